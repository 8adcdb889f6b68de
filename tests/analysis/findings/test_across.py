"""Across studies: every study by itself, the sign in words no wider than the weakest, and a forest plot."""

import json

import numpy as np
import pytest
from scipy import stats

from analysis import __main__ as command
from analysis import frames, text
from analysis.findings.across import across
from analysis.findings.build import collect
from analysis.findings.schema import Clusters
from analysis.report import across as report
from analysis.report import page, published
from analysis.report.figures import forest, style
from analysis.stats.estimate import Basis
from analysis.stats.prediction import prediction_interval
from study.errors import UserError
from study.ledger import ledger
from study.ledger.storage import Storage
from tests import synthetic
from tests.synthetic import Truth

BETTER, WORSE = Truth(2.5, 2.0, 0.2, 1000), Truth(1.2, 2.0, 0.2, 1000)
STUDIES = {"plain": (BETTER, WORSE), "adam": (BETTER, WORSE), "turned": (WORSE, BETTER), "level": (BETTER, BETTER)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    made = {}
    for first, (name, (candidate, baseline)) in enumerate(STUDIES.items()):
        folder = synthetic.write(
            tmp_path_factory.mktemp(name),
            {"net": candidate, "mlp": baseline},
            name=name,
            seeds=range(10 * first, 10 * first + 6),
            n_test=400,
            n_val=300,
            analysis={"resamples": 200},
        )
        made[str(folder)] = collect(frames.load(folder))
    return made


def retold(found, recipe=(), **about):
    """The findings as those of other runs, with these changes to their recipe and to what is said about them."""
    about = {"recipe": found.about.recipe | dict(recipe), **about}
    label = repr(sorted(about.items(), key=repr))
    return found.model_copy(
        update={
            "about": found.about.model_copy(update=about),
            "run_sets": {key: tuple(f"{run} {label}" for run in runs) for key, runs in found.run_sets.items()},
        }
    )


def test_every_gap_is_the_one_of_its_own_study(found):
    gaps = across(found).gaps
    assert [gap.study for gap in gaps] == list(STUDIES)
    for gap, own in zip(gaps, found.values(), strict=True):
        (comparison,) = own.comparisons
        assert (gap.seeds.estimate, gap.seeds.low) == (comparison.seeds.mean.estimate, comparison.seeds.mean.low)
        assert gap.images.low == comparison.images.low
        assert gap.unqualified == comparison.unqualified


def test_a_sign_that_turns_is_never_called_one_that_holds(found):
    (group,) = across(found).groups
    assert "turned" in group.behind
    assert {"plain", "adam"} <= set(group.ahead)
    assert "level" in group.undecided
    assert "the sign depends on the recipe" in group.sentence
    assert "; undecided in " in group.sentence
    agreeing = {source: f for source, f in found.items() if f.about.name in ("plain", "adam")}
    (group,) = across(agreeing).groups
    assert "ahead in both studies" in group.sentence
    assert "prediction" not in group.sentence
    undecided = {source: f for source, f in found.items() if f.about.name in ("plain", "level")}
    (group,) = across(undecided).groups
    assert group.behind == group.undecided == ("level",)
    assert "the sign is not settled, ahead in 1 of 2 studies" in group.sentence


def test_models_that_are_practically_equivalent_are_not_undecided(tmp_path):
    """The study's own verdict is told of it, on every page of several studies."""
    truth = {"net": Truth(3.0, 1.0, 0.02, 1000), "mlp": Truth(3.0, 1.0, 0.02, 1000)}
    options = dict(seeds=10, n_test=1000, n_val=60, correlation=0.95)
    folder = synthetic.write(tmp_path, truth, **options, analysis={"margin": 0.05, "resamples": 200})
    own = collect(frames.load(folder))
    assert "for these test images and for new ones: practically equivalent" in own.answer
    assert "net is practically as accurate as mlp, by a margin of 5 points, for new images" in page.headline(own)
    assert published._gap(own, own.comparisons[0]).endswith("), practically equivalent")
    one = across({"one": own})
    (group,) = one.groups
    assert (group.equivalent, group.undecided) == (("synthetic",), ())
    assert "; practically equivalent in synthetic" in group.sentence
    assert "undecided" not in group.sentence
    assert list(report.tabulated(one).shown["Decided"]) == ["equivalent"]


def test_other_datasets_and_other_models_are_never_put_together(found):
    plain, adam, *_ = found.values()
    elsewhere = retold(adam, dataset_sha256="f" * 64)
    assert len(across({"a": plain, "b": adam}).groups) == 1
    assert len(across({"a": plain, "b": elsewhere}).groups) == 2


def named(found, *models):
    """The findings of a study whose two models have these names and are made of those, (name, made of) each."""
    about, (comparison,) = found.about, found.comparisons
    (candidate, _), (baseline, _) = models
    made = [
        model.model_copy(update={"name": name, "constructor": source})
        for model, (name, source) in zip(about.models, models, strict=True)
    ]
    settings = about.settings.model_copy(update={"candidate": candidate, "baselines": (baseline,)})
    about = about.model_copy(update={"models": tuple(made), "settings": settings})
    return found.model_copy(
        update={"about": about, "comparisons": (comparison.model_copy(update={"baseline": baseline}),)}
    )


def test_studies_are_put_together_by_what_models_are_made_of(found):
    plain, adam, *_ = found.values()
    other = named(adam, ("net_1998", "net"), ("mlp_tanh", "mlp"))
    both = across({"a": plain, "b": other})
    (group,) = both.groups
    assert (group.candidate, group.baseline, group.ahead) == ("net", "mlp", ("plain", "adam"))
    assert "net against mlp on mnist: ahead in both studies" in group.sentence
    shown = report.tabulated(both).shown
    assert list(shown["Recipe"]) == ["—", "net_1998, mlp_tanh"]
    assert list(shown["Candidate"]) == ["net", "net"]
    assert [label for label, _ in forest._rows(both, ("net", "mlp"))] == ["plain", "adam"]


def test_a_study_says_whether_its_images_are_taken_as_independent(found, tmp_path):
    plain, adam, *_ = found.values()
    about = adam.about.model_copy(update={"clusters": Clusters(count=297, smallest=8, largest=130, sha256="0" * 64)})
    both = across({"a": plain, "b": adam.model_copy(update={"about": about})})
    shown = report.tabulated(both)
    assert list(shown.shown["Images"]) == ["independent", "297 clusters"]
    assert "probably too short" in shown.caption
    archives = [tmp_path / f"{name}.zip" for name in ("a", "b")]
    links = published.write(tmp_path, [(archives[0], plain), (archives[1], adam.model_copy(update={"about": about}))])
    rows = [line.split(" | ") for line in links.read_text().splitlines() if line.startswith("| ")][1:]
    assert [row[2] for row in rows] == ["independent", "297 clusters"]
    assert "probably too short" in links.read_text()


def test_two_models_made_of_one_go_by_their_names(found):
    plain, adam, *_ = found.values()
    assert [gap.made_of for gap in across({"a": named(plain, ("wide", "mlp"), ("mlp", None))}).gaps] == [
        ("wide", "mlp")
    ]
    # Nor does one take the name that stands for another.
    crossing = {"a": named(adam, ("mlp", "mynets:Net"), ("small", "mlp"))}
    assert [gap.made_of for gap in across(crossing).gaps] == [("mynets:Net", "mlp")]
    about = plain.about
    more = about.models[0].model_copy(update={"name": "more", "constructor": "mynets:Net"})
    third = plain.comparisons[0].model_copy(update={"baseline": "more"})
    three = named(plain, ("mlp", "mynets:Net"), ("small", "mlp"))
    settings = three.about.settings.model_copy(update={"baselines": ("small", "more")})
    about = three.about.model_copy(update={"models": (*three.about.models, more), "settings": settings})
    three = three.model_copy(update={"about": about, "comparisons": (*three.comparisons, third)})
    assert [gap.made_of for gap in across({"a": three}).gaps] == [("mlp", "small"), ("mlp", "more")]


def test_studies_of_one_name_are_told_apart_and_what_differs_is_shown(found):
    plain = next(iter(found.values()))
    gaps = across({"here": plain, "there": retold(plain, {"batch_size": 16})}).gaps
    assert [gap.study for gap in gaps] == ["plain (here)", "plain (there)"]
    assert [gap.recipe for gap in gaps] == [{"batch_size": str(plain.about.recipe["batch_size"])}, {"batch_size": "16"}]


def test_what_pixels_are_normalised_by_is_told_where_one_dataset_has_several(found):
    plain = next(iter(found.values()))

    def told(**changes):
        return [gap.recipe for gap in across({"here": plain, "there": retold(plain, changes)}).gaps]

    assert told(pixel_mean=0.5, dataset_sha256="f" * 64) == [{}, {}]
    assert told(pixel_mean=0.5) == [{"pixel_mean": str(plain.about.recipe["pixel_mean"])}, {"pixel_mean": "0.5"}]


def test_of_a_recipe_the_table_shows_what_most_studies_have_not(found):
    plain = next(iter(found.values()))

    studies = {
        "a": plain,
        "b": retold(plain),
        "c": retold(plain, {"batch_size": 16}),
        "d": retold(plain, {"pixel_mean": 0.9}),
        "e": retold(plain, {"pixel_mean": 0.7, "dataset_sha256": "f" * 64}, dataset_sha256="f" * 64),
    }
    shown = list(report.tabulated(across(studies)).shown["Recipe"])
    assert shown == ["—", "—", "batch_size: 16", "pixel_mean: 0.9", "—"]


def test_files_of_one_name_with_other_content_are_drawn_once(found):
    plain, adam, *_ = found.values()
    elsewhere = retold(adam, dataset_sha256="f" * 64)
    both = across({"a": plain, "b": elsewhere})
    labels = [label for label, _ in forest._rows(both, ("net", "mlp"))]
    assert labels == ["plain", "adam"]


def test_a_study_counts_once_however_it_is_kept(found):
    plain, adam, *_ = found.values()
    with pytest.raises(UserError, match=r"across: found all runs of 'a' in 'a\.zip' too; allowed: every study once"):
        across({"a": plain, "b": adam, "a.zip": plain})
    # The folder has grown since it was exported.
    older = plain.model_copy(update={"run_sets": dict([max(plain.run_sets.items(), key=lambda item: len(item[1]))])})
    key, runs = next(iter(older.run_sets.items()))
    older = older.model_copy(update={"run_sets": {key: runs[1:]}})
    with pytest.raises(UserError, match=r"found all runs of 'a\.zip' in 'a' too"):
        across({"a": plain, "a.zip": older})
    partly = older.model_copy(update={"run_sets": {key: (*runs[1:], "another")}})
    assert len(across({"a": plain, "b": partly}).gaps) == 2


def test_studies_that_compare_no_models_are_named_and_change_nothing(found, tmp_path):
    plain, adam, turned, _ = found.values()
    alone = retold(turned, {"batch_size": 16}).model_copy(update={"comparisons": ()})
    both = across({"a": plain, "b": adam, "c": alone})
    assert both.without == ("turned",)
    assert both.gaps == across({"a": plain, "b": adam}).gaps
    report.write(both, tmp_path)
    assert "No gap from turned, which compares no models." in (tmp_path / "across.md").read_text()
    alone = [alone, retold(alone, name="other")]
    assert report._sentences(across({"a": alone[0], "b": alone[1]})) == [
        "No gap from turned and other, which compare no models."
    ]


def test_the_gap_with_runs_that_did_not_learn_stands_beside(tmp_path, found):
    states = {("net", 0.01, 3): "collapsed"}
    options = dict(seeds=8, n_test=400, n_val=60, learning_rates=[0.01], states=states, analysis={"resamples": 200})
    failing = synthetic.write(tmp_path, {"net": BETTER, "mlp": WORSE}, name="failing", **options)
    plain, *_ = found.values()
    both = across({"plain": plain, "failing": collect(frames.load(failing))})
    assert both.gaps[0].scored_at_chance is None
    value = both.gaps[1].scored_at_chance.estimate
    assert value < both.gaps[1].seeds.estimate
    (group,) = both.groups
    assert f"; with runs that did not learn scored at chance {text.points(value)} (failing)." in group.sentence


def test_the_forest_plot_says_what_is_drawn_and_no_more(found):
    plain, adam, *_ = found.values()
    elsewhere = adam.model_copy(
        update={"about": adam.about.model_copy(update={"dataset": "b", "dataset_sha256": "f" * 64})}
    )
    several = {source: retold(f, {"batch_size": 2**i}) for i, (source, f) in enumerate(found.items())}
    two, datasets, many = across({"a": plain, "b": adam}), across({"a": plain, "b": elsewhere}), across(several)
    assert not any(group.prediction.low is not None for group in two.groups)
    assert any(group.prediction.low is not None for group in many.groups)
    assert ["Dotted" in forest.caption(of) for of in (two, datasets, many)] == [False, False, True]
    assert ["Colours" in forest.caption(of) for of in (two, datasets, many)] == [False, True, False]
    hollow = [any(not gap.unqualified for gap in of.gaps) for of in (two, many)]
    assert ["Hollow" in forest.caption(of) for of in (two, many)] == hollow
    with style.applied():
        keys = [t.get_text() for t in forest._forest(datasets).legends[0].get_texts()]
    assert [key for key in keys if key.startswith("on ")] == [f"on {gap.dataset}" for gap in datasets.gaps]


def test_a_recipe_is_counted_once_however_many_studies_follow_it(found):
    plain, adam, turned, level = found.values()
    studies = {"a": plain, "b": adam, "c": retold(turned, {"batch_size": 16}), "d": retold(level, {"batch_size": 32})}
    both = across(studies)
    (group,) = both.groups
    gaps = [gap.seeds.estimate for gap in both.gaps]
    assert (group.prediction.n, group.prediction.planned, group.prediction.unit) == (3, 3, "recipes")
    assert group.prediction.estimate == pytest.approx(np.mean([np.mean(gaps[:2]), gaps[2], gaps[3]]))
    assert "a further recipe, drawn as these 3 were, would be expected at" in group.sentence
    assert across({"a": plain, "b": adam, "c": retold(turned)}).groups[0].prediction.declined
    # Nor is a model of another size the same recipe, and the table says so.
    models = tuple(model.model_copy(update={"n_parameters": 999}) for model in adam.about.models)
    sized = across({"a": plain, "b": retold(adam, models=models), "c": retold(plain, {"batch_size": 8})})
    assert sized.groups[0].prediction.n == 3
    assert "999 against 999 parameters" in list(report.tabulated(sized).shown["Recipe"])[1]


def test_a_prediction_interval_holds_the_next_as_often_as_it_says():
    rng = np.random.default_rng(0)
    basis = Basis(method="", n=0, planned=0, unit="studies")
    drawn = rng.normal(0.01, 0.004, (4000, 6))
    held = []
    for *known, following in drawn:
        e = prediction_interval(known, 0.9, basis, (-1, 1))
        held.append(e.low <= following <= e.high)
    assert abs(np.mean(held) - 0.9) < 0.015
    e = prediction_interval([1.0, 2.0, 4.0], 0.9, basis, (-9, 9))
    half = stats.t.ppf(0.95, 2) * np.std([1, 2, 4], ddof=1) * np.sqrt(4 / 3)
    assert (e.low, e.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert prediction_interval([1.0, 2.0], 0.9, basis, (-9, 9)).declined
    assert prediction_interval([1.0] * 5, 0.9, basis, (-9, 9)).declined


def test_what_is_written_is_the_same_every_time(found, tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        report.write(across(found), folder)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert {"across.json", "across.md", "across.csv", "across.tex", "forest.pdf", "forest.svg"} <= set(files)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(json.loads((tmp_path / "a" / "across.json").read_text())["gaps"]) == len(STUDIES)


def test_the_command_writes_it_and_a_mistake_is_one_line(found, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["analysis", "across", *arguments])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        return stopped.value.code, capsys.readouterr()

    first, second, *_ = found
    code, said = run(first, second, "--out", str(tmp_path / "out"))
    assert code == 0
    assert "net against mlp on mnist: ahead in both studies" in " ".join(said.out.split())
    assert (tmp_path / "out" / "across.md").is_file()
    code, said = run(first, first, "--out", str(tmp_path / "again"))
    assert code == 2
    assert said.err.count("\n") == 1
    assert "every study once" in said.err
    ledger.export(Storage(first), tmp_path / "same.zip")
    code, said = run(first, str(tmp_path / "same.zip"), "--out", str(tmp_path / "again"))
    assert (code, said.err.count("\n")) == (2, 1)
    assert "same.zip' too; allowed: every study once" in said.err
    code, said = run(first, str(tmp_path / "none"), "--out", str(tmp_path / "again"))
    assert code == 2
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err

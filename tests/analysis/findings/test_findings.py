"""Findings: every number against the ledger itself, the same bytes every time, and no case that breaks them."""

import dataclasses
import json
import shutil
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from analysis import frames, text
from analysis.findings import costs, preregistration
from analysis.findings.build import collect
from analysis.findings.schema import FORMAT, Findings
from analysis.report import figures
from analysis.stats.estimate import Basis, Estimate
from study.errors import UserError
from study.ledger import ledger
from study.ledger.ledger import Ledger
from study.ledger.storage import Storage
from tests import synthetic
from tests.synthetic import Truth

FAST = {"resamples": 200}
STATES = {
    ("lenet5", 0.01, 1): "diverged",
    ("mlp", 0.01, 2): "failed",
    ("mlp", 0.03, 0): "missing",
    ("mlp_matched", 0.003, 3): "collapsed",
}
RATES = (0.003, 0.01, 0.03)
MODELS = {
    "lenet5": Truth(2.5, 2.0, 0.2, 44_426),
    "mlp": Truth(2.2, 2.0, 0.2, 469_160),
    "mlp_matched": Truth(1.9, 2.0, 0.2, 44_439),
}
"""So many errors that no two seeds of a few hundred digits come out alike."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("findings")
    return synthetic.write(folder, MODELS, seeds=6, n_test=400, n_val=300, states=STATES, analysis=FAST)


@pytest.fixture(scope="module")
def loaded(written):
    return frames.load(written)


@pytest.fixture(scope="module")
def findings(loaded):
    return collect(loaded)


@pytest.fixture(scope="module")
def records(written):
    """(model, learning rate, seed) → record, read without the frames."""
    found, _ = Ledger(Storage(written)).records()
    return {(r.run.model, r.run.learning_rate, r.run.seed): r for r in found.values()}


ONE = Truth(1.5, 1.0, 0.1)
CONSTANT = Truth(0.0, 1e9, 0.0)
"""A digit is always right or always wrong: all seeds are equal."""

PERFECT = Truth(50.0, 0.0, 0.0)


def estimates(value):
    """Every estimate in a tree of findings, with its path."""
    if isinstance(value, Estimate):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from estimates(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from estimates(part)
    elif hasattr(type(value), "model_fields"):
        for name in type(value).model_fields:
            yield from estimates(getattr(value, name))


def based(value):
    """Everything in a tree of findings that says which runs it rests on, whatever else it is."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from based(part)
    elif hasattr(type(value), "model_fields"):
        if isinstance(value, Basis):
            yield value
        for name in type(value).model_fields:
            yield from based(getattr(value, name))


def strict(text):
    """JSON, and nothing that only Python takes for it."""

    def refuse(constant):
        raise AssertionError(f"{constant} in findings.json")

    return json.loads(text, parse_constant=refuse)


# against the ledger


def test_counts_are_those_of_the_ledger(findings):
    assert sum(c.planned for c in findings.completeness) == findings.about.planned == 54
    for c in findings.completeness:
        assert c.finished + c.diverged + c.failed + c.missing == c.planned == 6
    totals = {s: sum(getattr(c, s) for c in findings.completeness) for s in ("diverged", "failed", "missing")}
    assert totals == {"diverged": 1, "failed": 1, "missing": 1}
    assert sum(c.collapsed for c in findings.completeness) == 1


def test_configurations_against_statsmodels(findings, records):
    for c in findings.configurations:
        runs = [r for (m, rate, _), r in records.items() if (m, rate) == (c.model, c.learning_rate)]
        trained = [r for r in runs if r.final and r.final["train_accuracy"] >= 0.2]
        for estimate, metric in (
            (c.test_accuracy, "test_accuracy"),
            (c.val_accuracy, "val_accuracy"),
            (c.test_loss, "test_loss"),
        ):
            values = DescrStatsW([r.final[metric] for r in trained])
            assert estimate.estimate == pytest.approx(values.mean, rel=1e-10)
            low, high = values.tconfint_mean()
            assert estimate.low == pytest.approx(low, rel=1e-10)
            assert estimate.high == pytest.approx(min(high, 1.0) if metric.endswith("accuracy") else high, rel=1e-10)
            assert (estimate.n, estimate.planned) == (len(trained), 6)
        assert c.test_accuracy_sd == pytest.approx(stats.tstd([r.final["test_accuracy"] for r in trained]), rel=1e-10)


def test_the_gap_from_the_records_by_hand(findings, records):
    def scored(record):
        return record.final["val_accuracy"] if record.final and record.final["train_accuracy"] >= 0.2 else 0.1

    for comparison in findings.comparisons:
        chosen = {}
        for model in ("lenet5", comparison.baseline):
            outcomes = {rate: [r for (m, x, _), r in records.items() if (m, x) == (model, rate)] for rate in RATES}
            means = {rate: np.mean([scored(r) for r in rs if r.state != "failed"]) for rate, rs in outcomes.items()}
            chosen[model] = max(means, key=lambda rate: round(means[rate], 12))  # ties: the smaller rate
            assert findings.selection[model].mean.scores == pytest.approx(tuple(means.values()), rel=1e-12)
        assert (comparison.candidate_rate, comparison.baseline_rate) == tuple(chosen.values())
        pairs = [[records.get((m, rate, s)) for m, rate in chosen.items()] for s in range(6)]
        both = [p for p in pairs if all(r and r.final and r.final["train_accuracy"] >= 0.2 for r in p)]
        d = [p[0].final["test_accuracy"] - p[1].final["test_accuracy"] for p in both]
        assert (comparison.pairs, comparison.planned) == (len(d), 6)
        values = DescrStatsW(d)
        assert comparison.seeds.mean.estimate == pytest.approx(values.mean, rel=1e-10)
        assert (comparison.seeds.mean.low, comparison.seeds.mean.high) == pytest.approx(
            values.tconfint_mean(), rel=1e-9
        )
        level = values.tconfint_mean(0.025)
        assert (comparison.seeds.verdict.interval.low, comparison.seeds.verdict.interval.high) == pytest.approx(level)
        assert comparison.seeds.verdict.interval.level == pytest.approx(0.975)
        assert comparison.seeds.verdict.equivalence_interval.level == pytest.approx(0.95)
        expected = {p[0].run_id for p in both} | {p[1].run_id for p in both}
        assert set(findings.run_sets[comparison.seeds.mean.runs]) == expected


def test_outcomes_that_are_missing_from_the_pairs_are_counted(tmp_path):
    states = {("lenet5", 0.01, 1): "diverged", ("lenet5", 0.01, 2): "missing", ("mlp", 0.01, 3): "failed"}
    folder = synthetic.write(tmp_path, seeds=6, n_test=300, n_val=200, learning_rates=[0.01], states=states)
    found = collect(frames.load(folder), FAST).comparisons[0]
    assert (found.pairs, found.planned) == (3, 6)
    assert found.not_learned == {"lenet5": 1, "mlp": 0}
    assert found.absent == {"lenet5": 1, "mlp": 1}


def test_both_populations_come_from_the_same_pairs(findings, loaded):
    for c in findings.comparisons:
        assert c.images.estimate == pytest.approx(c.seeds.mean.estimate, rel=1e-10)
        assert (c.images.n, c.images.population, c.seeds.mean.population) == (c.pairs, "seeds and test images", "seeds")
        assert c.images.high - c.images.low > c.seeds.mean.high - c.seeds.mean.low
        ids = findings.run_sets[c.images.runs]
        right = loaded.correct(ids)
        x = right[: c.pairs].astype(float) - right[c.pairs :]
        assert x.mean() == pytest.approx(c.images.estimate)
        assert findings.images[c.baseline].crossed.gap.changed(role="confirmatory") == c.images
        assert c.images_verdict.level == pytest.approx(0.975)
        assert c.images_verdict.low < c.images.low < c.images.high < c.images_verdict.high


# families


def test_holm_within_each_family_counts_every_member(findings):
    sweep = [r for s in findings.sweep.values() for r in s.rates]
    classes = [c for d in findings.images.values() for c in d.classes]
    assert len(sweep) == 2 * 3
    assert len(classes) == 2 * 10
    # Six pairs cannot give a p-value below 2 / 2⁶, let alone 0.05 / 6.
    assert all("could reach 0.00833" in r.sign_flip.warning for r in sweep)
    families = [
        ([c.seeds.sign_flip.p_value for c in findings.comparisons], [c.p_holm for c in findings.comparisons]),
        ([r.sign_flip.p_value for r in sweep], [r.adjusted_p for r in sweep]),
        ([c.gap.p_value for c in classes], [c.adjusted_p for c in classes]),
    ]
    for raw, adjusted in families:
        expected = multipletests([1.0 if p is None else p for p in raw], method="holm")[1]
        for p, found, wanted in zip(raw, adjusted, expected, strict=True):
            assert (found is None) if p is None else found == pytest.approx(wanted)


def test_the_verdict_is_held_to_the_level_of_the_family(loaded):
    one = collect(loaded, FAST | {"baselines": ["mlp"]}).comparisons[0].seeds
    two = collect(loaded, FAST).comparisons[0].seeds
    assert (one.verdict.interval.level, two.verdict.interval.level) == (pytest.approx(0.95), pytest.approx(0.975))
    assert one.mean == two.mean


# selection and its luck


def test_best_of_n_against_all_subsets(findings, loaded, records):
    grid = {m: np.array([[_score(records.get((m, r, s))) for s in range(6)] for r in RATES]) for m in loaded.models}
    for comparison in findings.comparisons:
        expected = []
        for n in (1, 2, 3):
            best = []
            for model in ("lenet5", comparison.baseline):
                val, test = np.nanmean(grid[model], axis=1).round(12).T
                best.append(np.mean([test[max(s, key=lambda i: val[i])] for s in combinations(range(3), n)]))
            expected.append(best[0] - best[1])
        assert [e.estimate for e in comparison.best_of_n] == pytest.approx(expected, rel=1e-10)


def test_best_of_n_lets_both_models_choose_among_the_same_rates(tmp_path):
    states = dict.fromkeys([("second", 0.03, s) for s in range(3)], "failed")
    folder = synthetic.write(tmp_path, TWO, seeds=3, n_test=80, n_val=60, states=states)
    loaded = frames.load(folder)
    (c,) = collect(loaded, FAST).comparisons
    assert len(c.best_of_n) == 2
    assert all("of the learning rates 0.003, 0.01, over" in e.method for e in c.best_of_n)
    runs = loaded.runs[loaded.runs["learning_rate"] < 0.02].groupby("model")["final_test_accuracy"].mean()
    assert c.best_of_n[0].estimate == pytest.approx(runs["first"] - runs["second"], rel=1e-10)
    assert (c.best_of_n[0].n, c.best_of_n[0].planned) == (12, 18)


def _score(record):
    if record is None or record.state == "failed":
        return np.nan, np.nan
    if record.final is None or record.final["train_accuracy"] < 0.2:
        return 0.1, 0.1
    return record.final["val_accuracy"], record.final["test_accuracy"]


def test_cross_fitting_chooses_each_seeds_rate_without_it(findings, loaded, records):
    for comparison in findings.comparisons:
        d = []
        for s in range(6):
            pair = []
            for model in ("lenet5", comparison.baseline):
                others = [[_score(records.get((model, r, x)))[0] for x in range(6) if x != s] for r in RATES]
                rate = RATES[int(np.argmax([np.nanmean(row).round(12) for row in others]))]
                record = records.get((model, rate, s))
                trained = record is not None and record.final is not None and record.final["train_accuracy"] >= 0.2
                pair.append(record.final["test_accuracy"] if trained else np.nan)
            d.append(pair[0] - pair[1])
        found = comparison.sensitivity["cross_fitted"]
        assert found.estimate == pytest.approx(np.nanmean(d), rel=1e-10)
        assert found.n == np.isfinite(d).sum()


def test_luck_frequencies_add_up_and_the_range_claims_no_coverage(findings):
    for choice in findings.selection.values():
        assert sum(choice.luck.values()) == pytest.approx(1)
        assert sum(choice.cross_fitted.values()) == pytest.approx(1)
        assert choice.images_resampled
    for comparison in findings.comparisons:
        range_ = comparison.sensitivity["re_selected"]
        assert range_.role == "sensitivity"
        assert range_.low is None or (range_.low <= range_.estimate <= range_.high and "no coverage" in range_.warning)
        for name in ("scored_at_chance", "worst_case", "median", "cross_fitted"):
            assert comparison.sensitivity[name].low is None


def test_a_rate_at_the_edge_of_the_grid_is_warned_of(tmp_path):
    folder = synthetic.write(tmp_path, seeds=3, n_test=100, n_val=2000, learning_rates=[0.01, 0.3], analysis=FAST)
    found = collect(frames.load(folder))
    assert [w for w in found.warnings if "edge of the grid" in w]
    one = synthetic.write(tmp_path / "one", seeds=3, n_test=100, n_val=50, learning_rates=[0.01], analysis=FAST)
    assert not collect(frames.load(one)).warnings


@pytest.mark.parametrize(("state", "words"), [("diverged", "learned at no learning rate"), ("missing", "no run with")])
def test_a_rate_chosen_for_want_of_a_better_one_is_warned_of(state, words, tmp_path):
    states = dict.fromkeys(product(("b",), RATES, range(2)), state)
    folder = synthetic.write(tmp_path, {"a": ONE, "b": ONE}, seeds=2, n_test=30, n_val=2000, states=states)
    found = collect(frames.load(folder), FAST)
    assert [w.split()[0] for w in found.warnings if words in w] == ["b"]
    assert "no answer" in found.answer


# provenance of the numbers


def test_every_estimate_says_what_it_rests_on(findings, loaded):
    known = set(loaded.runs["run_id"])
    everything = list(estimates(findings))
    assert len(everything) > 100
    for estimate in everything:
        assert estimate.method
        assert estimate.unit
        assert estimate.n <= estimate.planned
    for runs in findings.run_sets.values():
        assert set(runs) <= known
        assert len(set(runs)) == len(runs)
    for found in based(findings):
        assert found.runs in findings.run_sets
        assert 0 < found.n <= found.planned
        if "pairs" in found.unit:
            assert len(findings.run_sets[found.runs]) >= 2 * found.n
    for c in findings.comparisons:
        for estimate in (*estimates(c.seeds), c.images):
            assert estimate.runs == c.seeds.mean.runs
        for at in findings.sweep[c.baseline].rates:
            runs = loaded.runs.set_index("run_id").loc[list(findings.run_sets[at.gap.runs])]
            assert set(runs["learning_rate"]) == {at.learning_rate}
            assert len(runs) == 2 * at.gap.n


def test_resampling_names_its_seed(loaded):
    found = collect(loaded, FAST | {"seed": 7})
    (c, *_), one = found.comparisons, found.selection["lenet5"]
    drawn = [c.seeds.checks.bca.method, one.rests_on.method, c.sensitivity["re_selected"].method]
    drawn += [found.images[c.baseline].crossed.bootstrap.method, found.random_halves["lenet5"].method]
    for method in drawn:
        assert "seed 7" in method


def test_confirmatory_are_the_primary_intervals_and_the_primary_test_alone(findings):
    expected = []
    for c in findings.comparisons:
        expected += [c.seeds.mean, c.seeds.sign_flip, c.seeds.verdict.interval, c.seeds.verdict.equivalence_interval]
        expected += [c.images, c.images_verdict]
    assert [e for e in estimates(findings) if e.role == "confirmatory"] == expected


def test_runs_are_named_once(findings):
    assert len(set(findings.run_sets.values())) == len(findings.run_sets)


def test_the_same_ledger_gives_the_same_bytes_wherever_it_lies(written, findings, tmp_path):
    moved = shutil.copytree(written, tmp_path / "moved")
    ledger.export(Storage(written), tmp_path / "study.zip")
    text = findings.to_json()
    assert collect(frames.load(moved)).to_json() == text
    assert collect(frames.load(tmp_path / "study.zip")).to_json() == text
    assert Findings.model_validate_json(text) == findings
    assert strict(text)["format"] == FORMAT


def test_time_and_machine_are_in_the_costs_alone(written, findings, tmp_path):
    moved = shutil.copytree(written, tmp_path / "moved")
    for path in (moved / "runs").iterdir():
        record = json.loads(path.read_text())
        record["provenance"] |= {"train_seconds": 5.0, "node": "elsewhere", "attempts": 2}
        path.write_text(json.dumps(record))
    other = frames.load(moved)
    assert collect(other).to_json() == findings.to_json()
    cost = strict(costs.to_json(other, findings))
    n = int((other.runs["state"] != "missing").sum())
    assert cost["train_seconds"] == 5.0 * n
    assert cost["nodes"] == ["elsewhere"]
    assert cost["runs_with_several_attempts"] == n
    assert sum(m["runs"] for m in cost["by_model"].values()) == n
    for plan in cost["hours_of_training_for"]:
        # Two runs of 5 seconds a seed at the selected rates, six on the whole grid of both models.
        assert plan["hours_at_selected_rates"] == round(plan["seeds"] * 10 / 3600, 3)
        assert plan["hours_of_whole_grid"] == round(plan["seeds"] * 30 / 3600, 3)
    assert cost["hours_of_training_for"]


def test_preregistration_knows_what_was_declared(loaded, findings):
    assert findings.preregistration.as_declared
    assert findings.preregistration.deviations == ()
    assert findings.preregistration.declared_sha256 == loaded.study.launches[0].analysis_sha256
    other = collect(loaded, {"margin": 0.002, "baselines": ["mlp"]}).preregistration
    assert not other.as_declared
    assert [(d.key, d.declared, d.used) for d in other.deviations] == [
        ("baselines", ["mlp", "mlp_matched"], ["mlp"]),
        ("margin", 0.001, 0.002),
    ]
    assert not collect(loaded, {"margin": 0.001, "candidate": "lenet5"}).preregistration.deviations


def test_a_margin_chosen_later_is_not_called_preset(loaded, findings):
    other = collect(loaded, {"margin": 0.05})
    assert "against a threshold of 5 points, not the one declared (0.1), the result" in other.answer
    assert "preset" not in other.answer
    assert "against the preset threshold of 0.1 points the result" in findings.answer
    assert "the analysis made is not the one declared: margin 0.05, not 0.001" in other.warnings


def test_all_that_a_reader_must_know_is_warned_of(loaded, tmp_path):
    assert "2 of 54 planned runs have no outcome: 1 failed, 1 missing" in collect(loaded).warnings
    problems = [ledger.Problem(f"runs/{i}.json", "torn") for i in range(4)]
    planned = loaded.study.packs[0].runs[:2]
    warnings = collect(dataclasses.replace(loaded, problems=problems, set_aside=planned)).warnings
    assert "4 unusable files of the ledger enter no number: runs/0.json, runs/1.json, runs/2.json, …" in warnings
    assert [w for w in warnings if w.startswith("2 planned runs of another recipe")]


def relaunched(loaded, **changes):
    """The same study launched again with these changes to its config, by which its last launch goes."""
    (first,) = loaded.study.launches
    again = first.model_copy(update=dict(config=first.config | changes))
    return dataclasses.replace(loaded, study=loaded.study.model_copy(update=dict(launches=[first, again])))


def test_models_that_come_later_change_what_was_declared(loaded):
    order = ["mlp", "lenet5", "mlp_matched"]
    runs = loaded.runs.sort_values("model", key=lambda m: m.map(order.index), kind="stable")
    found = collect(dataclasses.replace(relaunched(loaded, models=order), runs=runs)).preregistration
    assert found.declared_sha256 == found.used_sha256
    assert not found.as_declared
    assert [(d.key, d.declared, d.used) for d in found.deviations] == [
        ("baselines", ["mlp", "mlp_matched"], ["lenet5", "mlp_matched"]),
        ("candidate", "lenet5", "mlp"),
    ]
    assert preregistration.compare(loaded.study.launches, loaded.config["analysis"], loaded.models).as_declared


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 8}, "seeds added after the first launch: 6, 7"),
        ({"seeds": [2, 9]}, "seeds added after the first launch: 9"),
        ({"learning_rates": [0.01, 0.1, 0.3]}, "learning_rates added after the first launch: 0.1, 0.3"),
        ({"models": ["lenet5", "mlp", "new", "mlp_matched"]}, "models added after the first launch: new"),
    ],
)
def test_what_was_planned_after_the_first_launch_is_a_deviation(loaded, changes, words):
    found = collect(relaunched(loaded, **changes))
    assert not found.preregistration.as_declared
    assert f"the analysis made is not the one declared: {words}" in found.warnings
    assert collect(relaunched(loaded, seeds=3)).preregistration.as_declared


def test_a_factorial_gives_components_of_variance_and_a_warning(tmp_path):
    folder = synthetic.write(
        tmp_path,
        {"only": Truth(2.0, 2.0, 0.3)},
        seeds={"init": 3, "order": 4, "split": 2},
        learning_rates=[0.01],
        n_test=300,
        n_val=40,
        analysis=FAST,
    )
    loaded = frames.load(folder)
    found = collect(loaded)
    assert found.comparisons == ()
    assert found.about.splits == 2
    components = found.variance["only"].components
    assert dict(components.levels) == {"init": 3, "order": 4, "split": 2}
    # The mean square of the init seeds by hand; three levels, each the mean of eight runs.
    means = loaded.runs.groupby("init_seed")["final_test_accuracy"].mean()
    weights = {"init": 8, "init × order": 2, "init × split": 4}
    raw = {c.effect: c.raw for c in components.components}
    (last,) = [effect for effect in raw if effect.startswith("init × order × split")]
    expected = sum(w * raw[effect] for effect, w in weights.items()) + raw[last]
    assert 8 * means.var(ddof=1) == pytest.approx(expected, rel=1e-9)
    assert [w for w in found.warnings if "not independent" in w]
    assert components.standard_deviation > 0
    assert len(found.variance["only"].against_itself.gaps) == 3 * 2


def test_pairs_that_share_seeds_get_no_verdict(tmp_path):
    seeds = {"init": 3, "order": 3, "split": 2}
    truth = {"first": Truth(2.5, 1.0, 0.1), "second": Truth(1.0, 1.0, 0.1)}
    found = collect(frames.load(synthetic.write(tmp_path, truth, seeds=seeds, learning_rates=[0.01], n_test=300)), FAST)
    (c,) = found.comparisons
    assert c.seeds.mean.low > 0.1
    assert c.images.low > 0.1
    assert not c.independent
    assert (c.seeds.verdict.words, c.unqualified) == (None, False)
    for e in (c.seeds.mean, c.seeds.verdict.interval, c.seeds.sign_flip, c.images):
        assert "share initial weights or batch orders" in e.warning
    assert (
        "share initial weights or batch orders, so both intervals are too short, and no verdict is given"
        in found.answer
    )
    assert "more accurate" not in found.answer
    assert "with one training set and 2 splits." in found.answer


def test_references_stand_beside_our_numbers(tmp_path):
    block = FAST | {
        "references": {"mlp": [{"source": "A & B 1998", "accuracy": 0.97, "note": "other loss"}]},
        "expected": {"mlp": [0.2, 0.3], "lenet5": [0.5, 1 - 1e-9]},
    }
    found = collect(frames.load(synthetic.write(tmp_path, seeds=3, n_test=100, n_val=50, analysis=block)))
    (reference,) = found.literature
    rate = found.selection["mlp"].mean.learning_rate
    ours = next(c for c in found.configurations if (c.model, c.learning_rate) == ("mlp", rate))
    assert (reference.source, reference.accuracy, reference.ours) == ("A & B 1998", 0.97, ours.test_accuracy)
    (warning,) = [w for w in found.warnings if "expected" in w]
    assert warning.startswith("mlp reaches")
    assert "learning rate, number of epochs, preprocessing, implementation" in warning


# any models, any case

TWO = {"first": ONE, "second": Truth(1.3, 1.0, 0.1)}
EVERY = list(product(TWO, RATES, range(4)))

CASES = {
    "one seed": dict(seeds=1),
    "two seeds": dict(seeds=2),
    "one learning rate": dict(learning_rates=[0.1]),
    "one of everything": dict(seeds=1, learning_rates=[0.1], n_test=3, n_val=2),
    "two digits": dict(n_test=2, n_val=1, classes=2),
    "two classes": dict(classes=2),
    "all diverged": dict(states=dict.fromkeys(EVERY, "diverged")),
    "all collapsed": dict(states=dict.fromkeys(EVERY, "collapsed")),
    "all failed": dict(states=dict.fromkeys(EVERY, "failed")),
    "nothing trained yet": dict(states=dict.fromkeys(EVERY, "missing")),
    "one model diverged": dict(states=dict.fromkeys([k for k in EVERY if k[0] == "second"], "diverged")),
    "one model missing": dict(states=dict.fromkeys([k for k in EVERY if k[0] == "first"], "missing")),
    "one pair left": dict(states=dict.fromkeys([k for k in EVERY if k[2] > 0], "missing")),
    "unequal seeds": dict(states=dict.fromkeys([k for k in EVERY if k[0] == "first" and k[2] > 1], "missing")),
    "no seed in common": dict(states=dict.fromkeys([k for k in EVERY if (k[0] == "first") == (k[2] > 1)], "missing")),
    "predictions lost": dict(states=dict.fromkeys(EVERY, "unpredicted")),
    "some predictions lost": dict(states=dict.fromkeys(EVERY[::3], "unpredicted")),
    "all accuracies equal": dict(models={"first": CONSTANT, "second": CONSTANT}, correlation=1.0),
    "each model constant": dict(models={"first": CONSTANT, "second": CONSTANT}),
    "all perfect": dict(models={"first": PERFECT, "second": PERFECT}),
    "one perfect": dict(models={"first": PERFECT, "second": ONE}),
    "complete separation": dict(models={"first": PERFECT, "second": Truth(0.0, 0.1, 0.0)}),
    "one model": dict(models={"first": ONE}),
    "five models": dict(models={f"m{i}": Truth(1 + i / 10, 1.0, 0.1) for i in range(5)}, seeds=3),
    "a user's models": dict(models={"my.nets:A": ONE, "my.nets:B": ONE}, dataset="scans of 1998"),
    "a factorial": dict(seeds={"init": 2, "order": 2, "split": 2}),
    "random rates": dict(learning_rates=[0.001000001, 0.001000002, 0.3]),
    "no parameters": dict(models={"first": Truth(1.0, n_parameters=0), "second": ONE}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_case_gives_numbers_or_says_why_not(case, tmp_path):
    options = dict(models=TWO, seeds=4, n_test=60, n_val=40, analysis=FAST, shape=(4, 4)) | CASES[case]
    loaded = frames.load(synthetic.write(tmp_path, **options))
    with np.errstate(all="raise", under="ignore"):
        found = collect(loaded)
    text = found.to_json()
    assert Findings.model_validate_json(text) == found
    strict(text)
    assert "nan" not in found.answer.lower()
    assert len(found.comparisons) == len(options["models"]) - 1
    for c in found.comparisons:
        assert c.pairs <= c.planned
        assert c.planned > 0
        assert all(e.planned > 0 for e in estimates(c))
        assert (c.seeds.mean.low is None or not c.independent) == (c.seeds.verdict.words is None)
        assert c.independent == (case != "a factorial")
        if c.seeds.mean.low is None:
            assert c.seeds.mean.declined
        if c.seeds.verdict.words is None or c.seeds.mean.low is None:
            assert not c.unqualified
    for estimate in estimates(found):
        numbers = [estimate.estimate, estimate.low, estimate.p_value]
        assert any(n is not None for n in numbers) or estimate.declined
        assert estimate.low is None or estimate.low < estimate.high
    # Nothing is dropped: every run planned is in the counts.
    assert sum(c.planned for c in found.completeness) == len(loaded.runs) == found.about.planned


def test_declined_says_why(tmp_path):
    def first(**options):
        folder = synthetic.write(tmp_path / str(len(list(tmp_path.iterdir()))), **dict(models=TWO) | options)
        return collect(frames.load(folder), FAST).comparisons[0]

    small = dict(n_test=60, n_val=40)
    assert "n = 1" in first(seeds=1, **small).seeds.mean.declined
    lost = first(seeds=4, states=dict.fromkeys(EVERY, "unpredicted"), **small)
    assert lost.seeds.mean.low is not None
    assert "predictions" in lost.images.declined
    assert lost.mcnemar is None
    constant = first(seeds=4, **small | dict(models={"first": CONSTANT, "second": CONSTANT}))
    assert "all 4 values are equal" in constant.seeds.mean.declined
    assert constant.seeds.mean.estimate is not None


def test_swapping_the_models_swaps_the_sign_and_nothing_else(loaded):
    one = collect(loaded, FAST | {"candidate": "lenet5", "baselines": ["mlp"]}).comparisons[0]
    other = collect(loaded, FAST | {"candidate": "mlp", "baselines": ["lenet5"]}).comparisons[0]
    assert other.seeds.mean.estimate == pytest.approx(-one.seeds.mean.estimate, rel=1e-12)
    assert (other.seeds.mean.low, other.seeds.mean.high) == pytest.approx((-one.seeds.mean.high, -one.seeds.mean.low))
    assert other.seeds.sign_flip.p_value == one.seeds.sign_flip.p_value
    assert (other.seeds.effect.wins, other.seeds.effect.losses) == (one.seeds.effect.losses, one.seeds.effect.wins)
    assert other.images.estimate == pytest.approx(-one.images.estimate)
    assert [e.estimate for e in other.best_of_n] == pytest.approx([-e.estimate for e in one.best_of_n])


@pytest.mark.parametrize(
    "block",
    [
        {"candidate": "nobody"},
        {"baselines": ["lenet5"]},
        {"baselines": ["mlp", "mlp"]},
        {"baselines": ["nobody"]},
        {"confidence": 0.5},
    ],
)
def test_an_analysis_that_cannot_be_is_one_line(loaded, block):
    with pytest.raises(UserError, match="analysis"):
        collect(loaded, block)


# the answer


def test_the_answer_says_what_the_findings_say(findings):
    for paragraph, c in zip(findings.answer.split("\n\n"), findings.comparisons, strict=True):
        asked = findings.robustness[c.baseline]
        for piece in (
            "400 test images of mnist",
            f"lenet5 misclassified {100 * c.candidate_error_rate:.2f}%",
            f"and {c.baseline}, with",
            f"from {c.pairs} of {c.planned} planned pairs",
            f"ahead in {c.seeds.effect.wins} of these {c.pairs} pairs",
            f"{c.not_learned['lenet5']} and {c.not_learned[c.baseline]} trainings did not learn (",
            f"for this test set is: {c.seeds.verdict.words}",
            "threshold of 0.1 points",
            "95% confidence",
            "allowing for training luck",
            "allowing also for a different sample of such images",
            "only the learning rate was tuned",
            f"{asked.same_sign} of {asked.alternatives} alternative analyses ({asked.distinct} different estimates) of",
        ):
            assert piece in paragraph
        assert ("more accurate of the two" in paragraph) == c.unqualified
    assert "with one training set and one split." in findings.answer
    # None of 6 and none of 5 trainings that ended: 1 − 0.025^(1/n).
    assert "(up to 46% and up to 52% may)" in findings.answer
    assert "10.6 times as many" in findings.answer
    assert "about as many" in findings.answer


def test_more_accurate_without_a_population_needs_both_intervals(tmp_path):
    # So few digits that training luck is small beside the luck of the digits.
    truth = {"first": Truth(0.9, 3.0, 0.01), "second": Truth(0.75, 3.0, 0.01)}
    folder = synthetic.write(tmp_path, truth, seeds=20, n_test=150, n_val=50, correlation=0.0, analysis=FAST)
    found = collect(frames.load(folder))
    (c,) = found.comparisons
    assert c.seeds.mean.low > 0
    assert c.images.low < 0
    assert not c.unqualified
    assert "does not show that either model is the more accurate" in found.answer


def test_more_accurate_is_never_said_against_the_verdict(tmp_path):
    truth = MODELS | {"mlp": Truth(1.6, 2.0, 0.2), "mlp_matched": Truth(1.5, 2.0, 0.2)}
    loaded = frames.load(synthetic.write(tmp_path, truth, seeds=6, n_test=400, learning_rates=[0.01], analysis=FAST))
    findings = collect(loaded)
    # With two baselines the verdict is held to 1 − α / 2. At this confidence both intervals exclude 0, but not there.
    for c in findings.comparisons:
        p = max(c.seeds.checks.paired_t.p_value, _p(c.images))
        found = collect(loaded, FAST | {"confidence": 1 - 1.2 * p})
        other = next(x for x in found.comparisons if x.baseline == c.baseline)
        assert other.seeds.mean.low * other.seeds.mean.high > 0
        assert other.images.low * other.images.high > 0
        assert not other.unqualified
        for x in (*findings.comparisons, *found.comparisons):
            assert not x.unqualified or x.seeds.verdict.words.startswith(("better", "worse"))
    (one,) = collect(loaded, FAST | {"confidence": 1 - 1.2 * p, "baselines": [c.baseline]}).comparisons
    assert one.unqualified


def _p(e):
    """Two-sided p-value of a t interval, from its limits and the degrees of freedom that its method names."""
    df = float(e.method.partition("t, ")[2].split()[0])
    error = (e.high - e.low) / 2 / stats.t.ppf((1 + e.level) / 2, df)
    return 2 * stats.t.sf(abs(e.estimate) / error, df)


def test_a_model_without_any_outcome_leaves_true_counts(tmp_path):
    states = dict.fromkeys([k for k in EVERY if k[0] == "first"], "missing")
    folder = synthetic.write(tmp_path, TWO, seeds=4, n_test=60, n_val=40, states=states)
    found = collect(frames.load(folder), FAST)
    (c,) = found.comparisons
    assert (c.pairs, c.planned, c.absent) == (0, 4, {"first": 12, "second": 0})
    assert "In none of 4 planned pairs" in found.answer
    assert "12 and 0 have no outcome, of first at all learning rates)" in found.answer
    outcomes = found.robustness["second"].outcomes
    assert [outcomes[role].planned for role in ("candidate", "baseline")] == [12, 4]


def test_rates_chosen_from_unequal_numbers_of_runs(tmp_path):
    # Half of the first model's rates rest on few runs; the second has them all.
    states = dict.fromkeys([("first", 0.01, s) for s in range(1, 6)], "failed")
    options = dict(models=TWO, seeds=6, n_test=200, n_val=2000)
    found = collect(frames.load(synthetic.write(tmp_path, **options, states=states)), FAST)
    choice = found.selection["first"]
    assert choice.mean.n == (6, 1, 6)
    assert choice.mean.learning_rate == 0.01
    warning = (
        "first's learning rate was chosen from unequal numbers of runs: 1 of 6 at 0.01, the one chosen, 6 at 0.003"
    )
    assert [w for w in found.warnings if w.startswith(warning)]
    assert choice.common_seeds.n == (1, 1, 1)
    assert found.selection["second"].common_seeds is None
    assert found.comparisons[0].sensitivity["common_seeds"].estimate is not None
    whole = collect(frames.load(synthetic.write(tmp_path / "whole", **options)), FAST)
    assert "common_seeds" not in whole.comparisons[0].sensitivity
    assert not [w for w in whole.warnings if "unequal" in w]


def test_lost_predictions_cost_their_pairs_alone(tmp_path):
    states = {("mlp", 0.01, 1): "unpredicted"}
    options = dict(models=MODELS, seeds=5, n_test=300, n_val=60, learning_rates=[0.01])
    data = frames.load(synthetic.write(tmp_path, **options, states=states))
    found = collect(data, FAST)
    c, whole = found.comparisons
    assert (c.pairs, c.images.n, c.images.planned) == (5, 4, 5)
    assert c.images.warning.startswith("1 of 5 pairs that learned have lost their predictions")
    assert "from the 4 of 5 pairs whose predictions are there" in found.answer
    assert "mlp: predictions are there of 4 of 5 pairs that learned" in found.warnings
    kept = [s for s in range(5) if s != 1]
    runs = data.runs.set_index(["model", "seed"])["final_test_accuracy"]
    assert c.images.estimate == pytest.approx((runs["lenet5"][kept] - runs["mlp"][kept]).mean(), rel=1e-10)
    assert len(found.run_sets[c.images.runs]) == 8
    assert c.mcnemar.pairs == found.images["mlp"].hard.rests_on.n == 4
    assert whole.images.n == 5
    assert whole.images.warning is None
    # The caption of the confusions counts predictions, not runs.
    (caption,) = (c for c in figures.captions(found, data) if c.name == "confusion")
    assert "mlp 4 of 5" in caption.text


def test_classes_of_a_baseline_without_predictions_still_count_in_holms_family(tmp_path):
    options = dict(models=MODELS, seeds=4, n_test=300, n_val=60, learning_rates=[0.01])
    states = dict.fromkeys([("mlp_matched", 0.01, s) for s in range(4)], "unpredicted")
    found = collect(frames.load(synthetic.write(tmp_path, **options, states=states)), FAST)
    classes = found.images["mlp"].classes
    assert (len(classes), found.images["mlp_matched"].classes) == (10, ())
    smallest = min(classes, key=lambda c: c.gap.p_value)
    assert smallest.adjusted_p == pytest.approx(min(1.0, 20 * smallest.gap.p_value))
    assert "of none of the 4 pairs that learned are the predictions" in found.comparisons[1].images.declined


def test_the_same_gap_is_the_same_number_everywhere(findings):
    for c in findings.comparisons:
        asked = findings.robustness[c.baseline]
        (primary,) = [s for s in asked.specifications if s.primary]
        assert primary.gap.estimate == c.seeds.mean.estimate
        assert (primary.gap.low, primary.gap.high) == (c.seeds.mean.low, c.seeds.mean.high)
    # Two floats that differ by rounding alone, on either side of a tie.
    assert text.points(0.017349999999999997) == text.points(0.01735000000000002) == "+1.74"
    assert text.percent(0.017349999999999997) == text.percent(0.01735000000000002)


def test_a_second_interval_narrower_than_the_first_is_remarked_on(tmp_path):
    truth = {"first": Truth(1.5, 0.5, 0.3), "second": Truth(1.0, 0.5, 0.3)}
    found = collect(frames.load(synthetic.write(tmp_path, truth, seeds=2, n_test=600, n_val=60)), FAST)
    (c,) = found.comparisons
    assert c.images.high - c.images.low < c.seeds.mean.high - c.seeds.mean.low
    assert "narrower than the interval over seeds alone" in c.images.warning
    assert "The second interval is the narrower by chance" in found.answer


@pytest.mark.parametrize(
    ("dataset", "words"), [("fashion_mnist", "images of fashion_mnist"), ("a\n\nb", "images of a b")]
)
def test_other_datasets_are_of_images_and_never_split_the_answer(dataset, words, tmp_path):
    folder = synthetic.write(tmp_path, TWO, seeds=3, n_test=90, n_val=60, learning_rates=[0.01], dataset=dataset)
    found = collect(frames.load(folder), FAST)
    assert f"On the 90 test {words}, first misclassified" in found.answer
    assert "digits" not in found.answer
    assert "\n" not in found.answer

"""The answer in words, and what a reader must know before quoting it."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from analysis import frames, text
from analysis.findings import summary
from analysis.findings.build import collect
from analysis.findings.schema import Clusters
from analysis.report import page, paper, terminal, wandb_report
from analysis.report.figures import FIGURES
from analysis.report.tables import TABLES
from study.ledger import ledger
from study.ledger.runs import PlannedRun, digest
from tests import synthetic
from tests.analysis.findings.studies import EVERY, FAST, MODELS, ONE, TWO
from tests.synthetic import Truth


def test_all_that_a_reader_must_know_is_warned_of(loaded, tmp_path):
    assert "2 of 54 planned runs have no outcome: 1 failed, 1 missing" in collect(loaded).warnings
    problems = [ledger.Problem(f"runs/{i}.json", "torn") for i in range(4)]
    planned = loaded.study.packs[0].runs[:2]
    warnings = collect(dataclasses.replace(loaded, problems=problems, set_aside=planned)).warnings
    assert "4 unusable files of the ledger enter no number: runs/0.json, runs/1.json, runs/2.json, …" in warnings
    assert [w for w in warnings if w.startswith("2 planned runs of another recipe")]


def test_a_reader_is_warned_of_differences_that_one_bad_seed_skews(findings, loaded):
    (c, *others) = findings.comparisons
    values = (0.0149, 0.0151, 0.0153, 0.0168, 0.0168, 0.0176, 0.0202, 0.0393)
    seeds = c.seeds.model_copy(
        update={
            "mean": c.seeds.mean.changed(estimate=0.0195),
            "quantiles": tuple((0.0, value) for value in values),
            "skewness": c.seeds.skewness.changed(estimate=2.1, p_value=0.001, declined=None),
        }
    )
    skewed = findings.model_copy(update={"comparisons": (c.model_copy(update={"seeds": seeds}), *others)})
    said = f"{c.baseline}: the paired differences are skewed, of mean +1.95, median +1.68 and range +1.49 to +3.93"
    assert said in "\n".join(summary.warnings(skewed, loaded))
    assert not [w for w in summary.warnings(findings, loaded) if "skewed" in w]


def test_the_interval_that_allows_for_the_choice_of_rates_is_told_where_it_is_wider(findings):
    (c, *others) = findings.comparisons
    low, high = c.seeds.mean.interval

    def answer(spread):
        luck = c.sensitivity["selection_luck"].changed(low=low - spread, high=high + spread, level=0.95, declined=None)
        changed = c.model_copy(update={"sensitivity": {**c.sensitivity, "selection_luck": luck}})
        return summary.sentence(findings.model_copy(update={"comparisons": (changed, *others)})).split("\n\n")[0]

    wider = text.points_interval(low - 0.05, high + 0.05)
    assert f"the luck of choosing the learning rates, the interval over seeds is {wider} (at 95% it covers " in answer(
        0.05
    )
    assert "the luck of choosing" not in answer(0.0)


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


def test_the_answer_says_what_the_findings_say(findings):
    for paragraph, c in zip(findings.answer.split("\n\n"), findings.comparisons, strict=True):
        asked = findings.robustness[c.baseline]
        for piece in (
            "400 test images of mnist",
            f"lenet5 misclassified {100 * c.candidate_error_rate:.2f}%",
            f"and {c.baseline}, with",
            f"from {c.pairs} of {c.planned} planned pairs",
            f"ahead in {c.seeds.effect.wins} of these {c.pairs} pairs",
            c.seeds.verdict.words,
            c.verdict_for_new_images,
            "the verdict is (at 97.5%, as there are 2 baselines), for these test images",
            "threshold of 0.1 points",
            "95% confidence",
            "allowing for training luck",
            "allowing also for a different sample of such images",
            "only the learning rate was tuned",
            f"{asked.alternatives} alternative analyses of the same data give {asked.distinct} other gaps, all ",
        ):
            assert piece in paragraph
        assert ("more accurate of the two" in paragraph) == c.unqualified
    assert "with one training set and one split." in findings.answer
    # None of 6 and none of 5 trainings that ended: 1 − 0.025^(1/n). Elsewhere one diverged, of 12 and 11.
    learned = (
        "At the selected rates none of 6 trainings of lenet5 failed to learn (95% limit 46%) and none of 5 trainings "
        "of mlp failed to learn (95% limit 52%); at other rates "
    )
    assert learned in findings.answer
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
    # Six pairs can reach no p-value that small in the exact test, which the verdict needs too.
    assert one.seeds.verdict.interval.low > 0
    assert one.images_verdict.low > 0
    assert one.seeds.verdict.words.startswith("undecided: 6 pairs are too few for the exact test at ")
    assert not one.unqualified


def test_verdict_and_exact_test_agree_whatever_the_number_of_pairs(tmp_path):
    truth = {"first": Truth(3.0, 1.0, 0.05), "second": Truth(1.5, 1.0, 0.05), "third": Truth(1.0, 1.0, 0.05)}
    for seeds, needed in ((5, 7), (7, None)):
        folder = synthetic.write(tmp_path / str(seeds), truth, seeds=seeds, n_test=300, learning_rates=[0.01])
        found = collect(frames.load(folder), FAST)
        for c in found.comparisons:
            assert c.seeds.verdict.interval.low > found.about.settings.margin
            assert c.seeds.verdict.seeds_needed == needed
            assert c.unqualified == (needed is None)
            words = "undecided: 5 pairs are too few for the exact test at 0.025, 7 would do"
            words = "better by more than the margin" if needed is None else words
            assert c.seeds.verdict.words == c.verdict_for_new_images == words
        assert f"for these test images and for new ones: {words}. " in found.answer
        assert ("more accurate of the two" in found.answer) == (needed is None)


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
    assert found.answer == "first against second: no answer. first has no run with an outcome."
    outcomes = found.robustness["second"].outcomes
    assert [outcomes[role].planned for role in ("candidate", "baseline")] == [12, 4]


@pytest.mark.parametrize(
    ("dataset", "words"), [("fashion_mnist", "images of fashion_mnist"), ("a\n\nb", "images of a b")]
)
def test_other_datasets_are_of_images_and_never_split_the_answer(dataset, words, tmp_path):
    folder = synthetic.write(tmp_path, TWO, seeds=3, n_test=90, n_val=60, learning_rates=[0.01], dataset=dataset)
    found = collect(frames.load(folder), FAST)
    assert f"On the 90 test {words}, first misclassified" in found.answer
    assert "digits" not in found.answer
    assert "\n" not in found.answer


# runs that did not learn


SURE = {"first": Truth(2.5, 2.0, 0.05), "second": Truth(2.0, 2.0, 0.05)}


def one_of_eight(tmp_path, model):
    states = {(model, 0.01, 3): "collapsed"}
    options = dict(seeds=8, n_test=400, n_val=60, learning_rates=[0.01], states=states, analysis=FAST)
    loaded = frames.load(synthetic.write(tmp_path, SURE, **options))
    return loaded, collect(loaded)


@pytest.mark.parametrize("model", SURE)
def test_the_gap_is_given_with_and_without_the_runs_that_did_not_learn(model, tmp_path):
    _, found = one_of_eight(tmp_path, model)
    (c,) = found.comparisons
    at_chance = c.sensitivity["scored_at_chance"].estimate
    assert c.seeds.mean.estimate > 0.02
    assert abs(at_chance) > 0.02
    said = f"with the run that did not learn scored at chance the gap is {text.points(at_chance)} points, from 8 of 8"
    assert f"from 7 of 8 planned pairs of trainings, those in which both models learned; {said} pairs. " in found.answer
    assert any(said in warning for warning in found.warnings)
    # A candidate that failed once in eight trainings is not better; a baseline that did is no less behind.
    sure = model == "second"
    assert (at_chance > 0) == c.unqualified == sure
    assert ("first is the more accurate" in found.answer) == sure
    words = "better by more than the margin"
    if model == "first":
        words = f"undecided: {words} over the pairs that learned, but not with the other runs scored at chance"
        assert c.seeds.verdict.largest_supported_margin == 0
    assert c.verdicts == f"for these test images and for new ones: {words}"


def test_every_place_prints_the_same_verdict(tmp_path):
    loaded, found = one_of_eight(tmp_path, "first")
    see_the_verdict_everywhere(loaded, found, tmp_path)
    (c,) = found.comparisons
    assert page.tile(found, c).verdict.startswith("undecided for these test images and for new ones (better by")
    assert "not shown to be more or less accurate" in page.headline(found)


def see_the_verdict_everywhere(loaded, found, folder):
    printed = io.StringIO()
    terminal.show(found, Console(file=printed, width=80))
    (folder / "latex").mkdir()
    paper.write(found, loaded, folder / "latex", [])
    for c in found.comparisons:
        places = [
            found.answer,
            printed.getvalue(),
            TABLES["gaps"].table(found, loaded).shown.to_string(),
            FIGURES["gap"].caption(found, loaded).text,
            wandb_report.values(found)[f"gap/{c.baseline}/verdict"],
        ]
        assert [place for place in places if c.verdicts not in place] == []
        assert paper.breakable(c.verdicts) in (folder / "latex" / "main.tex").read_text()


def test_every_place_says_that_five_pairs_are_too_few_for_two_baselines(tmp_path):
    options = dict(seeds=5, n_test=300, n_val=60, learning_rates=[0.01], analysis=FAST, random_seed=1)
    loaded = frames.load(synthetic.write(tmp_path, {"first": ONE, "alike": ONE, "behind": Truth(0.5, 1.0)}, **options))
    found = collect(loaded)
    alike, behind = found.comparisons
    assert alike.seeds.verdict.interval.low < 0 < alike.seeds.verdict.interval.high
    assert behind.seeds.verdict.interval.low > 0
    words = "undecided: 5 pairs are too few for the exact test at 0.025, 7 would do"
    assert {c.verdicts for c in found.comparisons} == {f"for these test images and for new ones: {words}"}
    see_the_verdict_everywhere(loaded, found, tmp_path)


def test_the_answer_of_a_factorial_says_which_components_can_be_told_from_0(tmp_path):
    options = dict(
        seeds={"init": 3, "order": 3, "split": 2}, n_test=200, n_val=60, learning_rates=[0.01], analysis=FAST
    )
    found = collect(frames.load(synthetic.write(tmp_path, {"lenet5": Truth(2.5, 2.0, 0.2)}, **options)))
    of = found.variance["lenet5"].components
    paragraph, last = found.answer.split("\n\n")
    assert f"(SD {100 * of.standard_deviation:.3f} points)" in paragraph
    assert (
        "at 95% confidence, from 18 of 18 trainings at a learning rate of 0.01 with 3 init × 3 order × 2" in paragraph
    )
    told, limits = paragraph.partition("can be told from 0")[0], paragraph.partition(" Upper limits of the others: ")[2]
    top = of.components[-1]
    assert top.variance.low > 0
    assert f"{100 * top.share:.0f}% is of init × order × split (including nondeterminism)" in told
    named = re.findall(r"% is of (.+?)(?:;|,| and \d| \()", told)
    assert named == [c.effect.partition(",")[0] for c in of.components if c.variance.low]
    for c in of.components[:-1]:
        assert (f"{c.effect} {100 * (c.variance.high or 0) ** 0.5:.3f}" in limits) == (
            not c.variance.low and c.variance.high is not None
        )
    assert last == "synthetic trained one model, lenet5: there is no gap to estimate."


def test_a_factorial_with_a_run_missing_says_that_it_has_no_answer(tmp_path):
    seeds = {"init": 2, "order": 2, "split": 1}
    options = dict(seeds=seeds, n_test=100, n_val=60, learning_rates=[0.01], states={("second", 0.01, 1): "missing"})
    found = collect(frames.load(synthetic.write(tmp_path, TWO, **options, analysis=FAST)))
    first, second, gap = found.answer.split("\n\n")
    assert first.startswith("Of the estimated variance of first's test accuracy")
    assert second == (
        "Where the spread of second comes from has no answer: 1 of 4 runs have no accuracy, and the components need "
        "every one."
    )
    assert gap.startswith("On the 100 test images")
    assert page.lead(found).endswith(page.headline(found))


def test_a_rate_that_lost_by_one_run_is_told_apart_from_an_edge(tmp_path):
    states = {("second", 0.01, 2): "diverged"}
    found = collect(frames.load(synthetic.write(tmp_path, SURE, seeds=5, n_test=200, states=states, analysis=FAST)))
    assert found.selection["second"].mean.at_edge
    (why,) = [w for w in found.warnings if w.startswith("second: 0.01 lost to")]
    scores = dict(zip((0.003, 0.01, 0.03), found.selection["second"].mean.scores, strict=True))
    learned = next(c for c in found.configurations if (c.model, c.learning_rate) == ("second", 0.01)).val_accuracy
    lowered = f"from {100 * learned.estimate:.2f}% to {100 * scores[0.01]:.2f}%"
    assert f"1 of 5 runs did not learn, which lowered its mean validation accuracy {lowered}; the runs that" in why
    assert not [w for w in found.warnings if "second does best" in w]


def test_models_that_were_not_tuned_alike_are_warned_of(tmp_path):
    states = {("second", 0.01, 4): "missing"}
    folder = synthetic.write(tmp_path, SURE, seeds=5, n_test=200, states=states, analysis=FAST)
    path = folder / "study.json"
    study = json.loads(path.read_text())
    for pack in study["packs"]:
        runs = [PlannedRun.model_validate_json(json.dumps(run)) for run in pack["runs"]]
        kept = [p for p in runs if (p.run.model, p.run.learning_rate) != ("first", 0.03)]
        pack |= {
            "pack_id": digest([p.run_id for p in kept]),
            "runs": [json.loads(p.model_dump_json()) for p in kept],
        }
    path.write_text(json.dumps(study))
    warnings = collect(frames.load(folder)).warnings
    tried = "first 0.003, 0.01; second 0.003, 0.01, 0.03"
    assert f"the models were not tuned over the same learning rates: {tried}" in warnings
    assert "the selected learning rates rest on unequal numbers of seeds: first 5 and second 4" in warnings


def test_no_rate_is_selected_where_nothing_learned(tmp_path):
    states = dict.fromkeys([k for k in EVERY if k[0] == "second"], "diverged")
    folder = synthetic.write(tmp_path, SURE, seeds=4, n_test=200, states=states, analysis=FAST)
    found = collect(frames.load(folder))
    assert found.selection["second"].mean.learning_rate is None
    assert "second learned at no learning rate, so no learning rate could be chosen for it" in found.warnings
    counts = "first at 0.01: 0 did not learn, 0 have no outcome; second at all learning rates: 12 did not learn, 0 have"
    assert f"In none of 4 planned pairs of trainings did both models learn ({counts} no outcome)." in found.answer


def test_models_without_a_common_seed_have_no_answer_and_it_says_why(tmp_path):
    states = {(m, r, s): "missing" for m, r, s in EVERY if (m == "first") == (s < 2)}
    found = collect(frames.load(synthetic.write(tmp_path, TWO, seeds=4, n_test=100, states=states, analysis=FAST)))
    assert found.answer == (
        "first against second: no answer. No seed has a run of both models at their selected learning rates."
    )


def test_halves_of_the_test_file_that_differ_are_in_the_answer(tmp_path):
    folder = synthetic.write(tmp_path, SURE, seeds=6, n_test=400, n_val=60, learning_rates=[0.01], analysis=FAST)
    loaded = frames.load(folder)
    assert "throughout the test file" not in collect(loaded).answer
    # The baseline errs on every image of the second half.
    models = loaded.runs.set_index("run_id")["model"]
    wrong = (loaded.test_labels + 1) % 10
    second = np.arange(400) >= 200
    predictions = {
        run_id: p | ({"test": np.where(second, wrong, p["test"])} if models[run_id] == "second" else {})
        for run_id, p in loaded.predictions.items()
    }
    found = collect(dataclasses.replace(loaded, predictions=predictions))
    first, last = found.images["second"].crossed.halves
    said = f"{text.points(first.estimate)} ({text.points_interval(*first.interval)}) in its first half"
    assert f"The gap is not the same throughout the test file: {said}, {text.points(last.estimate)} (" in found.answer


def test_trainings_without_an_outcome_are_in_the_answer_with_the_gap_they_could_make(tmp_path):
    """Failed runs are of no chance that a limit could tell of: they may all be of the worst kind."""
    states = dict.fromkeys([("first", 0.01, seed) for seed in range(4)], "failed") | {("second", 0.01, 5): "missing"}
    folder = synthetic.write(
        tmp_path, TWO, seeds=8, n_test=200, n_val=50, learning_rates=(0.01,), states=states, analysis=FAST
    )
    found = collect(frames.load(folder))
    worst = text.points(found.comparisons[0].sensitivity["worst_case"].estimate)
    assert "Without an outcome, failed or missing: 4 of first and 1 of second; had they fallen against" in found.answer
    assert f"against first, the gap would be {worst} points. " in found.answer
    whole = synthetic.write(tmp_path / "whole", TWO, seeds=8, n_test=200, n_val=50, learning_rates=(0.01,))
    assert "Without an outcome" not in collect(frames.load(whole), FAST).answer


def test_an_alternative_that_differs_in_its_population_alone_has_a_name(findings):
    """Where predictions are lost, the gap for new images is of fewer pairs, and may have the other sign."""
    (primary,) = [s for s in findings.robustness["mlp"].specifications if s.primary]
    other = primary.model_copy(update={"population": "seeds and test images", "primary": False})
    assert summary._way(other) == "seeds and test images"
    assert summary._way(primary) == ""


def test_rates_that_tie_but_for_the_order_of_a_sum_are_warned_of_as_ties(findings, loaded):
    chosen = findings.selection["mlp"].mean
    best = chosen.scores[chosen.index]

    def warned(other):
        scores = tuple(best if k == chosen.index else other if k == (chosen.index + 1) % 3 else 0.1 for k in range(3))
        mean = chosen.model_copy(update={"scores": scores})
        choice = findings.selection["mlp"].model_copy(update={"mean": mean})
        return [w for w in summary._choice(findings, loaded, "mlp", choice) if "have the same mean" in w]

    assert len(warned(best - 2e-16)) == 1
    assert warned(best - 1e-6) == []


def test_a_single_cluster_is_one(findings):
    about = findings.about.model_copy(
        update={"clusters": Clusters(count=1, smallest=400, largest=400, sha256="0" * 64)}
    )
    assert "which come in 1 cluster;" in summary.sentence(findings.model_copy(update={"about": about}))


def test_trainings_that_all_learned_are_said_once(tmp_path):
    folder = synthetic.write(tmp_path, SURE, seeds=6, n_test=100, n_val=60, learning_rates=[0.01], analysis=FAST)
    said = "At the selected rates none of 6 trainings of either model failed to learn (95% limit 46%). "
    assert said in collect(frames.load(folder)).answer

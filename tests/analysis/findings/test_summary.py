"""The answer in words, and what a reader must know before quoting it."""

import dataclasses

import pytest
from scipy import stats

from analysis import frames
from analysis.findings.build import collect
from study.ledger import ledger
from tests import synthetic
from tests.analysis.findings.studies import EVERY, FAST, MODELS, TWO
from tests.synthetic import Truth


def test_all_that_a_reader_must_know_is_warned_of(loaded, tmp_path):
    assert "2 of 54 planned runs have no outcome: 1 failed, 1 missing" in collect(loaded).warnings
    problems = [ledger.Problem(f"runs/{i}.json", "torn") for i in range(4)]
    planned = loaded.study.packs[0].runs[:2]
    warnings = collect(dataclasses.replace(loaded, problems=problems, set_aside=planned)).warnings
    assert "4 unusable files of the ledger enter no number: runs/0.json, runs/1.json, runs/2.json, …" in warnings
    assert [w for w in warnings if w.startswith("2 planned runs of another recipe")]


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
            f"{asked.same_sign} of {asked.alternatives} alternative analyses ({asked.distinct} different estimates) of",
        ):
            assert piece in paragraph
        assert ("more accurate of the two" in paragraph) == c.unqualified
    assert "with one training set and one split." in findings.answer
    # None of 6 and none of 5 trainings that ended: 1 − 0.025^(1/n). Elsewhere one diverged, of 12 and 11.
    learned = (
        "At the selected rates none of 6 of lenet5 (95% limit 46%) and none of 5 of mlp (95% limit 52%) did not learn"
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
    assert "In none of 4 planned pairs" in found.answer
    assert "12 and 0 have no outcome, of first at all learning rates)" in found.answer
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

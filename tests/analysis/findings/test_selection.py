"""Selected learning rates, the luck in them, and what another choice would have given."""

import dataclasses
from itertools import combinations, product

import numpy as np
import pytest

from analysis import frames
from analysis.findings.build import collect
from tests import synthetic
from tests.analysis.findings.studies import FAST, ONE, RATES, TWO


def test_no_choice_depends_on_a_test_number(loaded, findings):
    """Test results dealt out anew among the runs that have any change the gaps, and no choice."""
    columns = ["final_test_accuracy", "final_test_loss"]
    runs = loaded.runs.copy()
    ended = runs.index[runs["final_test_accuracy"].notna()]
    dealt = np.random.default_rng(1).permutation(ended)
    runs.loc[ended, columns] = loaded.runs.loc[dealt, columns].to_numpy()
    ids = dict(zip(runs["run_id"][ended], runs["run_id"][dealt], strict=True))
    predictions = {
        run_id: {**labels, "test": loaded.predictions[ids[run_id]]["test"]}
        for run_id, labels in loaded.predictions.items()
    }
    found = collect(dataclasses.replace(loaded, runs=runs, predictions=predictions))
    assert found.selection == findings.selection
    for one, other in zip(found.comparisons, findings.comparisons, strict=True):
        assert (one.candidate_rate, one.baseline_rate) == (other.candidate_rate, other.baseline_rate)
        assert one.seeds.mean.estimate != other.seeds.mean.estimate


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

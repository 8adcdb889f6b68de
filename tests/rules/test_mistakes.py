"""Mistakes that others made in studies like this one: a test for each, red as soon as we make it too."""

import dataclasses
import inspect
import random
from itertools import product
from operator import attrgetter

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pydantic import ValidationError
from scipy import stats

from analysis import frames
from analysis.findings.build import collect
from analysis.grid import Validation, grids, without_test
from analysis.stats import paired, selection, sweep
from analysis.stats.estimate import Estimate
from analysis.stats.selection import choose
from tests import synthetic
from tests.analysis.grids import BASIS, grid
from tests.synthetic import Truth

FAST = {"resamples": 200}
MODELS = {"a": Truth(2.2, 2.0, 0.25), "b": Truth(2.0, 2.0, 0.25)}
SMALL = dict(models=MODELS, seeds=6, n_test=200, n_val=150, shape=(3, 3), analysis=FAST)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("mistakes"), **SMALL)


@pytest.fixture(scope="module")
def loaded(written):
    return frames.load(written)


@pytest.fixture(scope="module")
def findings(loaded):
    return collect(loaded)


def accuracies(loaded, findings):
    """Test accuracies of both models at their selected rates, by seed."""
    (c,) = findings.comparisons
    runs = loaded.runs.set_index(["model", "learning_rate", "seed"])["final_test_accuracy"]
    return runs["a", c.candidate_rate].sort_index(), runs["b", c.baseline_rate].sort_index()


def test_population_sd_where_sample_sd_was_meant(loaded, findings):
    first, second = accuracies(loaded, findings)
    d = (first - second).to_numpy()
    mean = findings.comparisons[0].seeds.mean
    half = stats.t.ppf(0.975, 5) * np.sqrt(np.sum((d - d.mean()) ** 2) / 5) / np.sqrt(6)
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=1e-10)
    for c in findings.configurations:
        values = loaded.runs.query("model == @c.model and learning_rate == @c.learning_rate")["final_test_accuracy"]
        assert c.test_accuracy_sd == pytest.approx(np.sqrt(np.sum((values - values.mean()) ** 2) / 5), rel=1e-10)


def test_seeds_drawn_from_a_global_generator(loaded, findings):
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    again = collect(loaded)
    after = np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert again == findings
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]
    other = collect(loaded, FAST | {"seed": 1})
    assert other.comparisons[0].seeds.checks.bca != findings.comparisons[0].seeds.checks.bca


@pytest.mark.parametrize("state", ["failed", "missing", "diverged", "collapsed"])
def test_failed_runs_averaged_in_or_dropped_in_silence(state, tmp_path):
    options = SMALL | dict(learning_rates=[0.01])
    (whole,) = collect(frames.load(synthetic.write(tmp_path / "whole", **options))).comparisons
    found = collect(frames.load(synthetic.write(tmp_path, **options, states={("a", 0.01, 2): state})))
    (c,) = found.comparisons
    assert (c.pairs, c.planned, c.seeds.mean.n, c.seeds.mean.planned) == (5, 6, 5, 6)
    absent = state in ("failed", "missing")
    assert (c.absent["a"], c.not_learned["a"]) == ((1, 0) if absent else (0, 1))
    assert "from 5 of 6 planned pairs" in found.answer
    # Its chance accuracy would have pulled the mean down by more than ten points.
    assert c.seeds.mean.estimate == pytest.approx(whole.seeds.mean.estimate, abs=0.03)
    scored = c.sensitivity["scored_at_chance"].estimate
    assert (scored < c.seeds.mean.estimate - 0.1) == (not absent)


def test_an_inner_join_that_loses_runs(tmp_path):
    states = {("b", 0.01, s): "missing" for s in (0, 3)}
    loaded = frames.load(synthetic.write(tmp_path, **SMALL | dict(learning_rates=[0.01]), states=states))
    assert len(loaded.runs) == 2 * 6
    found = collect(loaded)
    (c,) = found.comparisons
    (count,) = [x for x in found.completeness if x.model == "b"]
    assert (count.planned, count.finished, count.missing) == (6, 4, 2)
    assert (c.pairs, c.planned, c.absent) == (4, 6, {"a": 0, "b": 2})


def test_test_accuracy_used_to_select(loaded, findings):
    # Test numbers that speak for the smallest rate, wherever the frames have them.
    smallest = loaded.runs["learning_rate"] == 0.003
    flattered = loaded.runs.assign(
        final_test_accuracy=np.where(smallest, 0.99, 0.3), final_test_loss=np.where(smallest, 0.01, 3.0)
    )
    epochs = loaded.epochs.assign(test_accuracy=0.5, test_loss=1.0)
    labels = (loaded.test_labels + 1) % 10
    other = collect(dataclasses.replace(loaded, runs=flattered, epochs=epochs, test_labels=labels))
    assert other.selection == findings.selection
    assert findings.comparisons[0].candidate_rate == other.comparisons[0].candidate_rate != 0.003
    assert other.comparisons[0].seeds.mean != findings.comparisons[0].seeds.mean


def test_selection_cannot_be_given_a_test_number(loaded):
    assert not [name for name in without_test(loaded.runs) if "test" in name]
    assert "final_val_accuracy" in without_test(loaded.runs)
    assert {f.name for f in dataclasses.fields(Validation)} == {"rates", "score", "correct"}
    assert list(inspect.signature(choose).parameters) == ["validation", "basis", "resamples", "seed"]
    own = [f for _, f in inspect.getmembers(selection, inspect.isfunction) if f.__module__ == selection.__name__]
    assert [f.__name__ for f in own if "test" in inspect.signature(f).parameters] == ["best_of_n"]
    for model, table in grids(loaded).items():
        runs = loaded.runs[loaded.runs["model"] == model]
        validation = (
            runs.set_index(["learning_rate", "seed"])["final_val_accuracy"].sort_index().to_numpy().reshape(3, 6)
        )
        assert_allclose(table.validation.score, validation, rtol=1e-12)
        assert_allclose(table.validation.correct.mean(axis=2), validation, rtol=1e-12)


def test_one_sided_p_after_looking(findings, loaded):
    swapped = collect(loaded, FAST | {"candidate": "b", "baselines": ["a"]})
    one, other = findings.comparisons[0].seeds, swapped.comparisons[0].seeds
    for test in (
        "sign_flip",
        "verdict.tost",
        *(f"checks.{name}" for name in ("paired_t", "wilcoxon", "welch", "brunner_munzel")),
    ):
        assert attrgetter(test)(one).p_value == pytest.approx(attrgetter(test)(other).p_value, rel=1e-9)
    # All six ahead: 2 / 2⁶, not 1 / 2⁶; the t test with t = 23/6 / √(269/180) = 3.1357 and 5 degrees of freedom.
    ahead = np.array([3, 1, 4, 1, 5, 9])
    options = dict(level=0.95, verdict_level=0.95, margin=0.001, resamples=200, seed=0)
    found = paired.paired(100 + ahead, np.full(6, 100), 200, BASIS, **options)
    assert (found.sign_flip.p_value, found.checks.wilcoxon.p_value) == (2 / 64, 2 / 64)
    assert found.checks.paired_t.p_value == pytest.approx(0.02579, abs=5e-6)


def test_epochs_or_images_counted_as_replicates(findings, tmp_path):
    longer = frames.load(synthetic.write(tmp_path / "longer", **SMALL, epochs=9))
    (c,) = collect(longer).comparisons
    assert (c.seeds.mean.n, c.seeds.mean.unit) == (6, "pairs of runs")
    assert c.seeds.mean.changed(runs=None) == findings.comparisons[0].seeds.mean.changed(runs=None)
    for configuration in findings.configurations:
        assert configuration.test_accuracy.n == 6
    # The same images again, fifty times: nothing is known of training luck that was not known before.
    right = [np.array([150, 155, 160, 148, 151, 158]), np.array([149, 150, 151, 150, 149, 157])]
    options = dict(level=0.95, verdict_level=0.95, margin=0.001, resamples=200, seed=0)
    one, fifty = (paired.paired(*(k * r for r in right), 200 * k, BASIS, **options) for k in (1, 50))
    for name in ("mean", "checks.paired_t", "sign_flip"):
        assert attrgetter(name)(one).p_value == pytest.approx(attrgetter(name)(fifty).p_value)
        assert attrgetter(name)(one).low == pytest.approx(attrgetter(name)(fifty).low)


def test_percentile_bootstrap_of_few_seeds(tmp_path):
    found = collect(frames.load(synthetic.write(tmp_path, **SMALL | dict(seeds=5))))
    (c,) = found.comparisons
    d = np.array([value for _, value in c.seeds.quantiles])
    resampled = np.array([np.mean(draw) for draw in product(d, repeat=5)])
    percentile = np.quantile(resampled, [0.025, 0.975])
    assert c.seeds.mean.high - c.seeds.mean.low > 1.3 * np.ptp(percentile)
    assert c.seeds.mean.method.startswith("mean ± t")
    assert "below nominal" in c.seeds.checks.bca.warning
    assert c.seeds.checks.bca.role == "check"


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.1), (0.2, 0.1), (float("nan"), 0.1), (0.1, float("inf"))])
def test_a_zero_width_interval(low, high):
    with pytest.raises(ValidationError):
        Estimate(estimate=0.1, low=low, high=high, level=0.95, method="", n=2, planned=2, unit="runs")
    sound = Estimate(estimate=0.1, low=0.0, high=0.2, level=0.95, method="", n=2, planned=2, unit="runs")
    with pytest.raises(ValidationError):
        sound.changed(low=low, high=high)
    equal = paired.t_interval([0.01] * 5, 0.95, BASIS)
    assert (equal.estimate, equal.low) == (pytest.approx(0.01), None)
    assert "equal" in equal.declined


def test_p_values_put_back_in_the_wrong_order_after_holm():
    # By hand: 0.01 × 4, 0.02 × 3, then 0.03 × 2 = 0.06 and 0.04 × 1 raised to it.
    assert_allclose(paired.holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06], rtol=1e-12)
    # A test that was not made still counts: 0.01 × 3.
    assert paired.holm([None, 0.5, 0.01]) == [None, 1.0, pytest.approx(0.03)]


def test_misaligned_series_paired_by_position(loaded, findings):
    shuffled = loaded.runs.sample(frac=1, random_state=3)
    order = {m: i for i, m in enumerate(loaded.models)}
    by_model = shuffled.sort_values("model", key=lambda names: names.map(order), kind="stable")
    assert not by_model["run_id"].reset_index(drop=True).equals(loaded.runs["run_id"])
    for index in (by_model.index, pd.RangeIndex(len(by_model))):
        other = collect(dataclasses.replace(loaded, runs=by_model.set_axis(index)))
        assert other.comparisons[0].seeds.mean == findings.comparisons[0].seeds.mean
        assert other.comparisons[0].seeds.checks.pairing_gain == findings.comparisons[0].seeds.checks.pairing_gain
        assert other.selection == findings.selection
    first, second = accuracies(loaded, findings)
    assert findings.comparisons[0].seeds.checks.correlation.estimate == pytest.approx(np.corrcoef(first, second)[0, 1])


def test_random_resamples_called_exact(findings):
    rng = np.random.default_rng(2)
    k = rng.integers(-30, 60, 16)
    signs = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    assert paired.sign_flip(k)[0] == np.mean(np.abs(signs @ k) >= abs(k.sum()))
    assert "exact" in findings.comparisons[0].seeds.sign_flip.method
    # The band draws its flips where there are too many to enumerate, and says so.
    seeds = sweep.EXACT + 1
    right = [rng.binomial(1000, p, (seeds, 2)) for p in (0.95, 0.94)]
    drawn = sweep.across_rates(*(grid(counts.T) for counts in right), 1000, level=0.95, seed=0)
    assert all("exact" not in rate.band.method for rate in drawn.rates)

"""Selection: validation only, ties, missing runs, luck against brute force."""

from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from analysis.stats.selection import best_of_n, cross_fitted, gaps_anew, luck, select, with_luck
from tests.analysis.grids import BASIS

RATES = [0.003, 0.01, 0.03, 0.1]
VAL = np.array([[0.97, 0.96, 0.98], [0.98, 0.99, 0.97], [0.99, 0.90, 0.99], [0.10, 0.10, 0.10]])


def test_best_mean_wins_and_median_may_differ():
    by_mean, by_median = select(VAL, RATES), select(VAL, RATES, "median")
    assert (by_mean.index, by_mean.learning_rate, by_mean.n) == (1, 0.01, (3, 3, 3, 3))
    assert by_median.learning_rate == 0.03
    assert not by_mean.at_edge
    assert_allclose(by_mean.scores, VAL.mean(axis=1), rtol=1e-12)


def test_ties_go_to_the_smaller_rate_in_any_order_of_sums():
    # The same accuracies in another order: float sums differ in the last image.
    row = np.array([0.1, 0.2, 0.3, 0.6, 0.7])
    assert row.sum() != row[::-1].sum()
    for rows in ([row, row[::-1]], [row[::-1], row]):
        assert select(rows, [0.1, 0.01]).learning_rate == 0.01
        assert select(rows, [0.01, 0.1]).learning_rate == 0.01


@pytest.mark.parametrize(("best", "at_edge"), [(0, True), (1, False), (2, False), (3, True)])
def test_edge_of_the_grid_is_flagged(best, at_edge):
    val = np.full((4, 2), 0.9)
    val[best] = 0.95
    assert select(val, RATES).at_edge is at_edge


def test_missing_runs_are_counted_and_neither_scored_nor_spread():
    val = VAL.copy()
    val[1, 1] = np.nan
    val[3] = np.nan
    choice = select(val, RATES)
    assert choice.n == (3, 2, 3, 0)
    assert choice.planned == 3
    assert choice.scores[1] == pytest.approx(0.975)
    assert choice.scores[3] is None


@pytest.mark.parametrize("val", [np.full((2, 3), np.nan), np.empty((2, 0)), np.empty((0, 3))])
def test_no_runs_no_choice(val):
    rates = RATES[: len(val)]
    choice = select(val, rates)
    assert choice.index is None
    assert choice.learning_rate is None
    assert not choice.at_edge
    assert (luck(val, rates, resamples=5, seed=0).winners == -1).all()
    assert (cross_fitted(val, rates) == -1).all()


def test_cross_fitting_never_uses_its_own_seed():
    rng = np.random.default_rng(1)
    val = rng.normal(0.98, 0.01, (4, 6))
    chosen = cross_fitted(val, RATES)
    for s in range(6):
        assert chosen[s] == np.argmax(np.delete(val, s, axis=1).mean(axis=1))
        changed = val.copy()
        changed[:, s] = rng.uniform(size=4)
        assert cross_fitted(changed, RATES)[s] == chosen[s]


def test_luck_over_seeds_is_a_bootstrap_of_whole_seeds():
    # Rate 1 wins exactly when seed 0 is drawn at least twice among three: 7 of 27 draws.
    val = np.array([[0.9, 0.9, 0.9], [1.0, 0.8, 0.8]])
    result = luck(val, [0.1, 0.2], resamples=40_000, seed=3)
    assert result.frequencies.sum() == 1
    assert result.frequencies[1] == pytest.approx(7 / 27, abs=4 * np.sqrt(7 / 27 * 20 / 27 / 40_000))
    assert not result.images_resampled
    assert_allclose(np.bincount(result.winners) / 40_000, result.frequencies)


def test_luck_over_seeds_and_digits_against_a_loop():
    rng = np.random.default_rng(5)
    correct = rng.random((3, 4, 50)) < np.array([0.8, 0.82, 0.81])[:, None, None]
    accuracy = correct.mean(axis=2)
    accuracy[2, 1], correct[2, 1] = 0.85, False  # a score without predictions
    accuracy[0, 2], correct[0, 2] = np.nan, False  # missing
    result = luck(accuracy, RATES[:3], val_correct=correct, resamples=700, seed=9)
    seeds_stream, images_stream = np.random.default_rng(9).spawn(2)
    seeds = seeds_stream.integers(4, size=(700, 4))
    images = np.concatenate([images_stream.integers(50, size=(b, 50)) for b in (500, 200)])
    for b in range(700):
        redrawn = correct[:, :, images[b]].mean(axis=2)
        redrawn[2, 1] = 0.85
        redrawn[0, 2] = np.nan
        drawn = redrawn[:, seeds[b]]
        means = np.array([np.nanmean(row) if np.isfinite(row).any() else -np.inf for row in drawn])
        assert result.winners[b] == np.flatnonzero(means >= means.max() - 1e-12)[0]


def test_luck_is_reproducible_and_shared_between_models():
    val = np.random.default_rng(0).normal(0.98, 0.001, (4, 10))
    first, second = (luck(val, RATES, resamples=200, seed=1).winners for _ in range(2))
    assert (first == second).all()
    # A second model with the same ranking on every seed must win the same resamples.
    assert (luck(val - 0.01, RATES, resamples=200, seed=1).winners == first).all()
    assert (luck(val, RATES, resamples=200, seed=2).winners != first).any()


def test_luck_ignores_the_global_generator():
    val = np.random.default_rng(0).normal(0.98, 0.001, (4, 10))
    np.random.seed(0)  # noqa: NPY002
    first = luck(val, RATES, resamples=50, seed=1).winners
    np.random.seed(1)  # noqa: NPY002
    assert (luck(val, RATES, resamples=50, seed=1).winners == first).all()


@pytest.mark.parametrize("tied", [False, True])
def test_best_of_n_is_the_mean_over_all_subsets(tied):
    rng = np.random.default_rng(2)
    val, test = rng.normal(size=6), rng.normal(size=6)
    if tied:
        val[[1, 3, 4]] = val[2]
    expected = [
        np.mean([test[max(subset, key=lambda r: (val[r], -r))] for subset in combinations(range(6), n)])
        for n in range(1, 7)
    ]
    assert_allclose(best_of_n(val, test), expected, rtol=1e-12)


def test_best_of_n_ends_at_the_selected_rate_and_leaves_out_what_has_no_score():
    assert_allclose(best_of_n([0.5, np.nan, 0.7], [0.4, np.nan, 0.6]), [0.5, 0.6])
    assert best_of_n([np.nan], [np.nan]).shape == (0,)
    with pytest.raises(ValueError, match="no test score"):
        best_of_n([0.5, 0.6], [0.4, np.nan])


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"\[rate, seed\]"):
        select(VAL, RATES[:2])
    with pytest.raises(ValueError, match=r"\[rate\]"):
        best_of_n([1.0], [1.0, 2.0])


# the gap when the whole analysis is done again


def drawn(rng, means, seeds, sd=0.01, shared=0.5):
    """Validation and test accuracy [rate, seed] of runs of one model that share a part of their luck."""
    luck_of_runs = sd * rng.standard_normal((len(means), seeds))
    val, test = (
        np.asarray(means)[:, None]
        + np.sqrt(shared) * luck_of_runs
        + np.sqrt(1 - shared) * sd * rng.standard_normal(luck_of_runs.shape)
        for _ in range(2)
    )
    return val, test


def test_the_analysis_done_again_by_hand():
    rng = np.random.default_rng(3)
    sides = [drawn(rng, [0.90, 0.905, 0.85], 6) for _ in range(2)]
    scores = [test.copy() for _, test in sides]
    scores[1][1, 2] = np.nan
    winners = [luck(val, RATES[:3], resamples=50, seed=5).winners for val, _ in sides]
    found = gaps_anew(tuple(scores), tuple(winners), 5)
    assert len({*winners[0]}) > 1, "selection has a choice"
    draws = np.random.default_rng(5).spawn(2)[0].integers(6, size=(50, 6))
    for b, seeds in enumerate(draws):
        difference = scores[0][winners[0][b], seeds] - scores[1][winners[1][b], seeds]
        assert found[b] == pytest.approx(np.nanmean(difference), rel=1e-12)
        chosen = [select(val[:, seeds], RATES[:3]).index for val, _ in sides]
        assert chosen == [winners[0][b], winners[1][b]]


def test_with_one_rate_it_is_the_usual_interval():
    rng = np.random.default_rng(0)
    sides = [drawn(rng, [0.9], 8)[1] for _ in range(2)]
    none = np.zeros(40_000, np.int64)
    d = sides[0][0] - sides[1][0]
    found = with_luck(d.mean(), tuple(sides), (none, none), 1, 0.95, BASIS.changed(n=8, planned=8))
    half = stats.t.ppf(0.975, 7) * stats.sem(d)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.02)
    assert found.estimate == d.mean()


def test_no_pair_no_gap():
    lost = np.full((2, 3), np.nan)
    first = np.zeros(4, np.int64)
    assert np.isnan(gaps_anew((lost, lost), (first, first), 0)).all()
    assert np.isnan(gaps_anew((lost + 1, lost), (first - 1, first), 0)).all()


def coverage_with_luck(means, seeds, replications, test_means=0.0):
    """How often the interval covers the gap found on average, which is 0, as both models are alike."""
    rng = np.random.default_rng(seeds)
    basis, rates, covered = BASIS.changed(n=seeds, planned=seeds), RATES[: len(means)], 0
    for replication in range(replications):
        sides = [drawn(rng, means, seeds) for _ in range(2)]
        tests = [test + np.broadcast_to(test_means, len(means))[:, None] for _, test in sides]
        chosen = [select(val, rates).index for val, _ in sides]
        gap = (tests[0][chosen[0]] - tests[1][chosen[1]]).mean()
        winners = [luck(val, rates, resamples=300, seed=replication).winners for val, _ in sides]
        found = with_luck(gap, (tests[0], tests[1]), (winners[0], winners[1]), replication, 0.95, basis)
        covered += found.low <= 0 <= found.high
    return covered


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10, 20])
@pytest.mark.parametrize("means", [[0.95, 0.90, 0.80], [0.95, 0.949, 0.948, 0.947], [0.95, 0.95, 0.95]], ids=str)
def test_coverage_of_the_interval_that_allows_for_selection(seeds, means):
    """Never below 93%, where rates that are near ties on validation images are so on test images."""
    covered = coverage_with_luck(means, seeds, 1500)
    assert stats.binomtest(covered, 1500).proportion_ci().high > 0.93, covered / 1500


@pytest.mark.slow
def test_that_interval_covers_less_where_rates_tie_on_validation_images_alone():
    """As the table of sensitivities says."""
    covered = coverage_with_luck([0.95, 0.95], 20, 1000, test_means=[0.0, 0.04])
    low, high = stats.binomtest(covered, 1000).proportion_ci()
    assert 0.85 < low < high < 0.95, covered / 1000

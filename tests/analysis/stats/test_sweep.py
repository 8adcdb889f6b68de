"""The gap across learning rates against brute force over flips, Hotelling by hand, and what it must decline."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.stats import multivariate

from analysis.stats.paired import sign_flip, t_interval
from analysis.stats.sweep import EXACT, across_rates, critical_value, largest_t, signs
from tests.analysis.grids import BASIS, grid

RNG = np.random.default_rng(3)
N = 10_000
RATES = [0.003, 0.01, 0.03]
SEEDS = 7
LUCK = RNG.integers(-15, 16, (SEEDS, 1))
CANDIDATE = 9885 + LUCK + RNG.integers(-8, 9, (SEEDS, 3))
BASELINE = 9860 + LUCK + RNG.integers(-8, 9, (SEEDS, 3))
ALL = np.ones((SEEDS, 3), bool)


def sweep(c=CANDIDATE, b=BASELINE, learned_c=True, learned_b=True, ended_c=True, rates=RATES, **more):
    """The sweep of counts [seed, rate]; runs that ended without learning collapsed, those that did not are missing."""
    models = []
    for right, learned, ended in ((c, learned_c, ended_c), (b, learned_b, True)):
        outcome = np.where(learned, "learned", np.where(ended, "collapsed", "missing"))
        outcome = np.broadcast_to(outcome, np.shape(right)).T
        models.append(grid(np.asarray(right).T, outcome, rates=rates, model=str(len(models))))
    return across_rates(*models, N, **(dict(level=0.95, seed=0) | more))


def test_every_rate_is_the_paired_gap_of_that_rate():
    learned = ALL.copy()
    learned[2, 0] = False
    found = sweep(learned_c=learned)
    for r, at in enumerate(found.rates):
        k = (CANDIDATE - BASELINE)[learned[:, r], r]
        expected = t_interval(k / N, 0.95, BASIS)
        assert (at.gap.estimate, at.gap.low, at.gap.high) == (expected.estimate, expected.low, expected.high)
        assert at.sign_flip.p_value == sign_flip(k)[0]
        assert (at.learning_rate, at.gap.n, at.gap.planned) == (RATES[r], k.size, SEEDS)
        assert (at.candidate_learned, at.candidate_ended) == (k.size, SEEDS)
        assert (at.baseline_learned, at.baseline_ended) == (SEEDS, SEEDS)
        # Every rate rests on its own pairs.
        own = tuple(f"{m} {r} {s}" for m in "01" for s in range(SEEDS) if learned[s, r])
        assert at.gap.runs == at.sign_flip.runs == at.band.runs == own
    complete = [s for s in range(SEEDS) if s != 2]
    assert found.interaction.runs == tuple(f"{m} {r} {s}" for m in "01" for s in complete for r in range(3))


def test_a_test_that_no_result_could_pass_in_its_family_says_so():
    alone, of_six = (sweep(family=m).rates[0].sign_flip for m in (1, 6))
    # Seven pairs: 2 / 2⁷ = 0.0156, below 0.05 but not below 0.05 / 6.
    assert alone.warning is None
    assert of_six.warning == "no result of these pairs could reach 0.00833: the smallest p-value possible is 0.0156"
    assert sweep(CANDIDATE[:5], BASELINE[:5]).rates[0].sign_flip.warning is not None


# the band


def brute_force(d, level):
    """Largest |t| over columns under all 2ⁿ flips, with missing cells as NaN; its quantile."""
    e = d - np.nanmean(d, 0)
    largest = []
    for flip in product((1, -1), repeat=len(d)):
        flipped = e * np.array(flip)[:, None]
        t = [stats.ttest_1samp(c[~np.isnan(c)], 0).statistic for c in flipped.T]
        largest.append(np.abs(t).max())
    return np.quantile(largest, level, method="inverted_cdf")


def test_critical_value_against_all_flips():
    d = (CANDIDATE - BASELINE).astype(float)
    expected = brute_force(d, 0.95)
    assert critical_value(d - d.mean(0), ALL, 0.95, signs(SEEDS, 0)) == pytest.approx(expected, rel=1e-10)
    found = sweep()
    assert found.critical == pytest.approx(expected, rel=1e-10)
    for at, k in zip(found.rates, d.T, strict=True):
        half = expected * stats.sem(k) / N
        assert_allclose((at.band.low, at.band.high), (k.mean() / N - half, k.mean() / N + half), rtol=1e-10)


def test_critical_value_with_missing_pairs():
    d = (CANDIDATE - BASELINE).astype(float)
    learned = ALL.copy()
    learned[2, 0] = learned[5, 2] = False
    found = sweep(learned_c=learned)
    assert found.critical == pytest.approx(brute_force(np.where(learned, d, np.nan), 0.95), rel=1e-10)
    assert [at.gap.n for at in found.rates] == [6, 7, 6]


def test_counts_of_runs_that_did_not_learn_enter_nothing():
    learned = ALL.copy()
    learned[2, 0] = False
    spoilt = CANDIDATE.copy()
    spoilt[2, 0] = -1
    assert sweep(spoilt, learned_c=learned) == sweep(learned_c=learned)


def test_a_seed_without_any_pair_changes_nothing_but_the_counts():
    learned = ALL.copy()
    learned[6] = False
    assert sweep(learned_c=learned).critical == sweep(CANDIDATE[:6], BASELINE[:6]).critical


def test_a_rate_with_two_pairs_does_not_spoil_the_band_of_the_others():
    learned, ended = ALL.copy(), ALL.copy()
    learned[2:, 2] = ended[2:, 2] = False
    found = sweep(learned_c=learned, ended_c=ended)
    assert "fewer than 3 pairs" in found.rates[2].band.declined
    assert found.rates[2].gap.low is not None
    assert found.critical == sweep(CANDIDATE[:, :2], BASELINE[:, :2], rates=RATES[:2]).critical


def test_the_band_is_nowhere_narrower_than_the_interval_for_that_rate_alone():
    learned = ALL.copy()
    learned[:4, 2] = False
    found = sweep(learned_c=learned, ended_c=learned)
    assert found.critical < stats.t.ppf(0.975, 2), "three pairs at the last rate have a larger quantile"
    *_, last = found.rates
    assert_allclose((last.band.low, last.band.high), (last.gap.low, last.gap.high), rtol=1e-12)
    assert all(at.band.low <= at.gap.low < at.gap.high <= at.band.high for at in found.rates)


def test_drawn_flips_agree_with_enumerated_ones(monkeypatch):
    n = EXACT
    x = np.random.default_rng(1).standard_normal((n, 4))
    exact = critical_value(x - x.mean(0), np.ones_like(x, bool), 0.95, signs(n, 0))
    assert len(signs(n, 0)) == 2 ** (n - 1)
    monkeypatch.setattr("analysis.stats.sweep.EXACT", 0)
    assert len(signs(n, 0)) == 10_000
    drawn = critical_value(x - x.mean(0), np.ones_like(x, bool), 0.95, signs(n, 0))
    assert drawn == pytest.approx(exact, rel=0.05)
    assert drawn == critical_value(x - x.mean(0), np.ones_like(x, bool), 0.95, signs(n, 0))


def test_whole_seeds_are_flipped_so_equal_rates_need_no_wider_band():
    d = np.repeat(RNG.standard_normal((9, 1)), 5, axis=1)
    one = critical_value(d[:, :1] - d[:, :1].mean(0), np.ones((9, 1), bool), 0.95, signs(9, 0))
    assert critical_value(d - d.mean(0), np.ones((9, 5), bool), 0.95, signs(9, 0)) == pytest.approx(one, rel=1e-10)
    x = RNG.standard_normal((9, 5))
    assert critical_value(x - x.mean(0), np.ones((9, 5), bool), 0.95, signs(9, 0)) > one


def test_flips_without_spread_are_infinite_not_nan():
    residuals = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    t = largest_t(signs(4, 0), residuals, np.ones((4, 1), bool))
    assert sorted(t)[-1] == np.inf
    assert not np.isnan(t).any()
    assert (t == 0).any()


# interaction


def test_interaction_is_hotellings_t2_by_hand():
    d = CANDIDATE - BASELINE
    contrasts = np.column_stack([d[:, 1] - d[:, 0], d[:, 2] - d[:, 0]]).astype(float)
    n, m = contrasts.shape
    mean = contrasts.mean(0)
    t2 = n * mean @ np.linalg.inv(np.cov(contrasts.T)) @ mean
    p = stats.f.sf(t2 * (n - m) / (m * (n - 1)), m, n - m)
    found = sweep().interaction
    assert found.p_value == pytest.approx(p, rel=1e-10)
    assert "F with 2 and 5 degrees of freedom" in found.method
    assert found.p_value == pytest.approx(multivariate.test_mvmean(contrasts).pvalue, rel=1e-10)
    # Any other set of contrasts gives the same test.
    assert sweep(CANDIDATE[:, ::-1], BASELINE[:, ::-1]).interaction.p_value == pytest.approx(p, rel=1e-9)


def test_interaction_of_two_rates_is_a_paired_t_test():
    d = CANDIDATE - BASELINE
    p = stats.ttest_rel(d[:, 0], d[:, 1]).pvalue
    found = sweep(CANDIDATE[:, :2], BASELINE[:, :2], rates=RATES[:2])
    assert found.interaction.p_value == pytest.approx(p, rel=1e-10)


# what is declined


def test_a_rate_at_which_half_did_not_learn_has_no_inference():
    c, learned = CANDIDATE[:6], np.ones((6, 3), bool)
    learned[:3, 2] = False
    found = sweep(c, BASELINE[:6], learned_c=learned)
    last = found.rates[2]
    assert last.gap.declined == "3 of 6 runs of the candidate did not learn"
    assert all(e.low is None and e.p_value is None for e in (last.gap, last.sign_flip, last.band))
    assert (last.candidate_learned, last.candidate_ended) == (3, 6)
    others = sweep(c[:, :2], BASELINE[:6, :2], rates=RATES[:2])
    assert found.critical == others.critical
    assert found.interaction.p_value == others.interaction.p_value
    learned[0, 2] = True  # 4 of 6 train
    assert sweep(c, BASELINE[:6], learned_c=learned).rates[2].gap.low is not None
    assert sweep(c, BASELINE[:6], learned_b=~learned).rates[2].gap.declined.endswith("of the baseline did not learn")


def test_failed_and_missing_runs_are_no_outcome():
    learned, ended = ALL.copy(), ALL.copy()
    learned[:4, 0] = ended[:4, 0] = False
    at = sweep(learned_c=learned, ended_c=ended).rates[0]
    assert at.gap.low is not None
    assert (at.candidate_learned, at.candidate_ended, at.gap.n) == (3, 3, 3)
    ended[:] = learned[:] = False
    gone = sweep(learned_c=learned, ended_c=ended)
    assert all(at.gap.declined == "no run of the candidate has ended" for at in gone.rates)
    assert gone.interaction.declined
    assert gone.critical is None


@pytest.mark.parametrize("seeds", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("constant", [False, True])
def test_few_seeds_or_no_spread_are_declined_never_invented(seeds, constant):
    c = np.full((seeds, 3), 9885) if constant else CANDIDATE[:seeds]
    b = np.full((seeds, 3), 9860) if constant else BASELINE[:seeds]
    found = sweep(c, b)
    assert found.interaction.p_value is None or seeds > 2
    for at in found.rates:
        for e in (at.gap, at.band):
            assert (e.low is None) == (e.declined is not None)
            assert e.low is None or not constant
    if constant or seeds < 3:
        assert found.critical is None


def test_no_rates():
    empty = np.zeros((4, 0), int)
    assert sweep(empty, empty, rates=[]).rates == ()

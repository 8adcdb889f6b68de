"""The gap against independent computations: brute force, statsmodels against scipy, closed forms."""

import time
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from analysis.stats.estimate import Estimate, Frozen
from analysis.stats.paired import (
    Gap,
    held_to_outcomes,
    held_to_test,
    holm,
    mcnemar,
    paired,
    pairs_needed,
    sign_flip,
    t_interval,
    too_few,
    verdict,
    wilcoxon,
)
from tests.analysis.grids import BASIS

RNG = np.random.default_rng(20)
CANDIDATE = 9885 + RNG.integers(-12, 13, 12)
BASELINE = 9878 + RNG.integers(-15, 16, 12)
SETTINGS = dict(level=0.95, verdict_level=0.975, margin=0.001, resamples=500, seed=0)


def gap(c, b, n_images=10_000, **changes) -> Gap:
    return paired(np.array(c, int), np.array(b, int), n_images, BASIS, **(SETTINGS | changes))


def estimates(part) -> dict[str, Estimate]:
    found = {}
    for name, value in part:
        if isinstance(value, Estimate):
            found[name] = value
        elif isinstance(value, Frozen):
            found |= estimates(value)
    return found


# the primary interval


def test_t_interval_is_statsmodels_with_sample_sd():
    d = (CANDIDATE - BASELINE) / 10_000
    found = gap(CANDIDATE, BASELINE)
    outer, inner = found.verdict.interval, found.verdict.equivalence_interval
    for e, level in ((found.mean, 0.95), (outer, 0.975), (inner, 0.95)):
        assert_allclose((e.low, e.high), DescrStatsW(d).tconfint_mean(1 - level), rtol=1e-10)
        assert "11 degrees of freedom" in e.method  # pairs are the replicates, not epochs or images
        assert (e.n, e.planned, e.level, e.runs, e.population) == (12, 20, pytest.approx(level), ("a", "b"), "seeds")
    # The population SD would give an interval narrower by √(11/12).
    half = stats.t.ppf(0.975, 11) * d.std(ddof=1) / np.sqrt(12)
    assert found.mean.high - found.mean.estimate == pytest.approx(half, rel=1e-10)
    assert abs(found.mean.high - found.mean.estimate - half * np.sqrt(11 / 12)) > 1e-6


def test_t_interval_is_clipped_and_keeps_its_estimate():
    e = t_interval([0.99, 0.2], 0.95, BASIS)
    assert (e.low, e.high) == (-1.0, 1.0)
    assert e.estimate == pytest.approx(0.595)
    assert t_interval([1.0, 3.0], 0.95, BASIS, bounds=(0, np.inf)).high > 10


@pytest.mark.parametrize("d", [[], [0.1], [0.1, 0.1, 0.1], [0.9885 - 0.9828, 0.9886 - 0.9829]])
def test_t_interval_declines_what_has_no_spread(d):
    e = t_interval(d, 0.95, BASIS)
    assert e.declined
    assert e.low is None
    assert (e.estimate is None) == (len(d) == 0)


def test_t_interval_refuses_to_drop_a_run_silently():
    with pytest.raises(ValueError, match="1 of 3 numbers are not finite"):
        t_interval([0.1, np.nan, 0.2], 0.95, BASIS)


# the primary test


@pytest.mark.parametrize("n", [2, 5, 9, 13])
def test_sign_flip_against_scipys_enumeration(n):
    rng = np.random.default_rng(n)
    for k in (rng.integers(-9, 12, n), rng.integers(-2, 3, n), rng.integers(1, 900, n)):
        p, smallest = sign_flip(k)
        exact = stats.permutation_test((k,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True)
        assert p == pytest.approx(exact.pvalue, rel=1e-12)
        assert smallest == 2 / 2 ** np.count_nonzero(k) or not k.any()
        assert p >= smallest


@settings(max_examples=60)
@given(st.lists(st.integers(-30, 30), min_size=1, max_size=9))
def test_sign_flip_against_all_signs(k):
    k = np.array(k)
    sums = np.array([np.dot(signs, k) for signs in product((-1, 1), repeat=k.size)])
    assert sign_flip(k)[0] == np.mean(np.abs(sums) >= abs(k.sum()))


def test_sign_flip_is_exact_for_many_pairs():
    # All differences 1: the sum is binomial, also where 2**n overflows 64 bits.
    for n, ups in ((40, 29), (80, 55)):
        k = np.repeat([1, -1], [ups, n - ups])
        assert sign_flip(k)[0] == pytest.approx(stats.binomtest(ups, n).pvalue, rel=1e-12)
    # The 10,000 draws that others call exact cannot go below 1e-4.
    assert sign_flip(np.arange(1, 31))[0] == 2 / 2**30


def test_sign_flip_wants_integers_because_fractions_make_false_ties():
    with pytest.raises(TypeError, match="integer counts"):
        sign_flip([0.1, 0.2])
    assert sign_flip([]) == (1.0, 1.0)
    assert sign_flip([0, 0]) == (1.0, 1.0)


def test_too_few_pairs_to_reach_the_level_is_said():
    few = gap([9, 8, 9, 8, 9], [1, 2, 3, 1, 2], 10).sign_flip
    assert few.p_value == 0.0625
    assert few.warning
    assert "0.0625" in few.warning
    assert gap(CANDIDATE, BASELINE).sign_flip.warning is None


# beside it


def test_tests_against_other_implementations():
    k, d = CANDIDATE - BASELINE, (CANDIDATE - BASELINE) / 10_000
    found = gap(CANDIDATE, BASELINE)
    assert found.checks.paired_t.p_value == pytest.approx(sm.OLS(k, np.ones(12)).fit().pvalues[0], rel=1e-10)
    assert found.verdict.tost.p_value == pytest.approx(DescrStatsW(d).ttost_mean(-0.001, 0.001)[0], rel=1e-10)
    welch = CompareMeans(DescrStatsW(CANDIDATE / 10_000), DescrStatsW(BASELINE / 10_000))
    assert found.checks.welch.p_value == pytest.approx(welch.ttest_ind(usevar="unequal")[1], rel=1e-10)
    assert_allclose((found.checks.welch.low, found.checks.welch.high), welch.tconfint_diff(usevar="unequal"), rtol=1e-9)
    munzel = stats.brunnermunzel(CANDIDATE, BASELINE)
    assert found.checks.brunner_munzel.p_value == pytest.approx(munzel.pvalue, rel=1e-10)
    assert found.effect.standardised.estimate == pytest.approx(
        stats.ttest_1samp(k, 0).statistic / np.sqrt(12), rel=1e-10
    )


def test_brunner_munzel_estimates_wins_of_all_runs_over_all_runs():
    c, b = [7, 5, 5, 9], [5, 6, 4, 5]
    wins = np.mean([(x > y) + (x == y) / 2 for x in c for y in b])
    assert gap(c, b, 10).checks.brunner_munzel.estimate == wins


def test_wilcoxon_ranks_zeros_as_pratt_does():
    k = np.array([0, 3, 1, -2, 0, -6, -5])  # zeros dropped or ranked last would give another p
    ranks = stats.rankdata(np.abs(k))
    observed = abs(np.sum(np.sign(k) * ranks))
    sums = [abs(np.dot(signs, ranks[k != 0])) for signs in product((-1, 1), repeat=5)]
    found = gap(k + 6, np.full(7, 6), 10).checks.wilcoxon
    assert found.p_value == pytest.approx(np.mean(np.array(sums) >= observed - 1e-9), rel=1e-10)
    assert found.p_value == pytest.approx(stats.wilcoxon(k, zero_method="pratt").pvalue, rel=1e-10)
    no_ties = np.array([3, -1, 4, 2, 5, 7, -6, 9, 8, 11, 10, 13, -12, 15, 14, 17])
    expected = stats.wilcoxon(no_ties, method="exact").pvalue
    assert gap(no_ties + 20, np.full(16, 20), 50).checks.wilcoxon.p_value == pytest.approx(expected, rel=1e-10)


def test_bca_is_a_check_and_says_what_it_covers():
    found = gap(CANDIDATE, BASELINE).checks.bca
    assert found.role == "check"
    assert found.warning
    assert "83" in found.warning
    d = (CANDIDATE - BASELINE) / 10_000
    again = stats.bootstrap((d,), np.mean, n_resamples=500, method="BCa", rng=np.random.default_rng(0))
    assert (found.low, found.high) == tuple(again.confidence_interval)
    assert gap(CANDIDATE, BASELINE).checks.bca == found
    assert "500 resamples, seed 0" in found.method
    assert gap(np.tile(CANDIDATE, 5), np.tile(BASELINE, 5)).checks.bca.warning is None


def test_error_rate_ratio_is_the_delta_method_with_covariance():
    c, b = 10_000 - CANDIDATE, 10_000 - BASELINE
    cov = np.cov(c, b) / 12
    gradient = np.array([1 / c.mean(), -1 / b.mean()])
    half = stats.t.ppf(0.975, 11) * np.sqrt(gradient @ cov @ gradient)
    found = gap(CANDIDATE, BASELINE).effect.error_rate_ratio
    assert found.estimate == pytest.approx(c.mean() / b.mean(), rel=1e-12)
    assert_allclose(np.log([found.low, found.high]), np.log(found.estimate) + np.array([-half, half]), rtol=1e-10)


def test_error_rate_ratio_without_errors_is_declined():
    assert gap([8, 9], [10, 10], 10).effect.error_rate_ratio.declined
    assert gap([10, 10], [8, 9], 10).effect.error_rate_ratio.estimate == 0


def test_outperforming_puts_ties_against_each_limit():
    found = gap([5, 5, 6, 7, 8, 3], [5, 5, 5, 5, 5, 5], 10)
    assert (found.effect.wins, found.effect.ties, found.effect.losses) == (3, 2, 1)
    assert found.effect.outperforming.estimate == pytest.approx(4 / 6)
    assert found.effect.outperforming.low == pytest.approx(stats.binomtest(3, 6).proportion_ci(0.95).low, rel=1e-9)
    assert found.effect.outperforming.high == pytest.approx(stats.binomtest(5, 6).proportion_ci(0.95).high, rel=1e-9)


def test_skewness_is_tested_from_eight_pairs_on():
    """One bad seed of the baseline in eight."""
    differences = [149, 151, 153, 168, 169, 176, 202, 393]
    found = gap(9800 + np.array(differences), [9800] * 8).skewness
    assert found.estimate == pytest.approx(stats.skew(differences))
    assert found.p_value == pytest.approx(stats.skewtest(differences).pvalue)
    assert found.p_value < 0.01
    assert "at least 8 pairs" in gap(9800 + np.array(differences[:7]), [9800] * 7).skewness.declined


def test_bouthilliers_criterion():
    ahead, behind = np.full(20, 9), np.full(20, 8)
    assert gap(ahead, behind, 10).effect.bouthillier == "statistically significant and meaningful"
    assert gap(behind, ahead, 10).effect.bouthillier == "statistically significant and meaningful"
    mixed = np.where(np.arange(300) < 180, 9, 7)
    assert gap(mixed, np.full(300, 8), 10).effect.bouthillier == "statistically significant, not meaningful"
    assert gap([], []).effect.bouthillier is None


def test_what_pairing_gained():
    c, b = CANDIDATE, BASELINE
    found = gap(c, b)
    s1, s2, rho = c.std(ddof=1), b.std(ddof=1), np.corrcoef(c, b)[0, 1]
    expected = (s1**2 + s2**2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
    assert found.checks.pairing_gain.estimate == pytest.approx(expected, rel=1e-10)
    half = stats.norm.ppf(0.975) / np.sqrt(12 - 3)
    assert found.checks.correlation.estimate == pytest.approx(rho, rel=1e-10)
    assert_allclose(
        (found.checks.correlation.low, found.checks.correlation.high),
        np.tanh(np.arctanh(rho) + np.array([-half, half])),
        rtol=1e-10,
    )


def test_quantiles_are_in_order_and_of_the_differences():
    theoretical, values = zip(*gap(CANDIDATE, BASELINE).quantiles, strict=True)
    assert_allclose(values, np.sort(CANDIDATE - BASELINE) / 10_000)
    assert list(theoretical) == sorted(theoretical)
    assert np.sum(theoretical) == pytest.approx(0, abs=1e-12)


# pairing


def test_pairing_is_by_position_and_shapes_must_agree():
    shuffled = gap(CANDIDATE, BASELINE[::-1])
    assert shuffled.mean.estimate == pytest.approx(gap(CANDIDATE, BASELINE).mean.estimate)
    assert shuffled.mean.low != pytest.approx(gap(CANDIDATE, BASELINE).mean.low, rel=1e-3)
    with pytest.raises(ValueError, match="two arrays"):
        gap(CANDIDATE, BASELINE[:-1])
    with pytest.raises(TypeError, match="integer counts"):
        paired(CANDIDATE / 10_000, BASELINE / 10_000, 10_000, BASIS, **SETTINGS)


def test_unsigned_counts_do_not_wrap_around():
    found = paired(np.array([3, 5], np.uint16), np.array([4, 7], np.uint16), 10, BASIS, **SETTINGS)
    assert found.mean.estimate == pytest.approx(-0.15)


def test_swapping_the_models_mirrors_the_answer():
    one, other = gap(CANDIDATE, BASELINE), gap(BASELINE, CANDIDATE)
    assert one.mean.low == pytest.approx(-other.mean.high)
    one, other = estimates(one), estimates(other)
    for name in ("sign_flip", "paired_t", "wilcoxon", "welch", "tost"):
        assert one[name].p_value == pytest.approx(other[name].p_value, rel=1e-9), name


# degenerate data


@pytest.mark.parametrize(
    ("c", "b"),
    [
        ([], []),
        ([5], [4]),
        ([5], [5]),
        ([5, 5], [4, 4]),
        ([5, 6], [4, 3]),
        ([5, 6, 7], [5, 6, 7]),
        ([9, 9, 9], [1, 2, 3]),
        ([10, 10], [0, 0]),
        ([10, 9], [10, 10]),
        ([5, 6, 7, 8, 9], [4, 5, 6, 7, 8]),
    ],
)
def test_degenerate_data_are_declined_and_never_invented(c, b):
    found = gap(c, b, 10)
    for name, e in estimates(found).items():
        assert (e.n, e.planned) == (len(c), 20), name
        if len(c) < 2 and name != "outperforming":
            assert e.low is None, name
            assert e.declined or e.p_value is not None, name
    verdict = found.verdict
    assert (verdict.words is None) == (verdict.interval.declined is not None)
    assert (verdict.largest_supported_margin is None) == (verdict.words is None)


def test_every_small_case_gives_a_valid_finding():
    cases = [(c, b) for n in (1, 2) for c in product((0, 1, 9, 10), repeat=n) for b in product((0, 5, 10), repeat=n)]
    for c, b in cases:
        gap(c, b, 10, resamples=20)  # Estimate itself refuses NaN and zero width


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=6))
def test_any_counts_give_a_valid_finding(pairs):
    c, b = np.array(pairs, int).reshape(-1, 2).T
    found = gap(c, b, 10, resamples=20)
    assert found.effect.wins + found.effect.ties + found.effect.losses == len(pairs)
    for name, e in estimates(found).items():
        assert e.p_value is None or 0 <= e.p_value <= 1, name
        assert e.low is None or e.low <= e.estimate <= e.high or name == "bca", name


def test_complete_separation_gets_an_exact_test_and_no_interval():
    found = gap([8, 9, 7, 9], [1, 2, 3, 3], 10).checks.brunner_munzel
    exact = stats.mannwhitneyu([8, 9, 7, 9.5], [1, 2, 3, 3.5], method="exact")
    assert (found.estimate, found.low) == (1.0, None)
    assert found.declined
    assert found.p_value == pytest.approx(exact.pvalue, rel=1e-12)
    assert gap([1, 2], [8, 9], 10).checks.brunner_munzel.estimate == 0.0


# the verdict


@pytest.mark.parametrize(
    ("outer", "inner", "words"),
    [
        ((0.2, 0.5), (0.25, 0.45), "better by more than the margin"),
        ((0.01, 0.12), (0.02, 0.09), "better, by less than the margin"),
        ((0.01, 0.30), (0.05, 0.25), "better, size undecided"),
        ((0.01, 0.11), (0.02, 0.10), "better, size undecided"),
        ((0.10, 0.20), (0.11, 0.19), "better, size undecided"),
        ((-0.08, 0.08), (-0.05, 0.05), "practically equivalent"),
        ((0.00, 0.08), (0.01, 0.07), "practically equivalent"),
        ((-0.2, 0.05), (-0.10, 0.04), "undecided"),
        ((-0.2, 0.3), (-0.15, 0.25), "undecided"),
    ],
)
def test_verdict_and_its_mirror(outer, inner, words):
    assert verdict(*outer, *inner, 0.1) == words
    mirrored = words.replace("better", "worse")
    assert verdict(-outer[1], -outer[0], -inner[1], -inner[0], 0.1) == mirrored


def test_verdict_of_data_uses_its_own_levels():
    k = np.array([11, 25, 9, 30, 21, 8, 28, 17])
    found = gap(9000 + k, np.full(8, 9000), margin=0.0011)
    assert found.mean.low > 0.0011 > found.verdict.interval.low > 0
    assert found.verdict.words == "better, size undecided"
    assert found.verdict.largest_supported_margin == found.verdict.interval.low
    assert gap(9000 - k, np.full(8, 9000)).verdict.largest_supported_margin == 0


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.01, 2 / 2**9])
def test_a_better_needs_the_exact_test_too(alpha):
    needed = pairs_needed(alpha)
    assert sign_flip(np.ones(needed, int))[0] <= alpha < sign_flip(np.ones(needed - 1, int))[0]
    lacking = too_few(needed - 1, 0, alpha)
    assert lacking.endswith(f"{needed - 1} pairs are too few for the exact test at {alpha:.3g}, {needed} would do")
    assert too_few(needed, 0, alpha) is None
    few = held_to_test("better, size undecided", 0.001, alpha, lacking)
    assert few == "better, size undecided"  # what the test says decides, not the number
    for words in ("better by more than the margin", "worse, size undecided"):
        assert held_to_test(words, alpha, alpha, None) == words
        assert held_to_test(words, 2 * alpha, alpha, lacking) == f"undecided: {lacking}"
        assert held_to_test(words, 2 * alpha, alpha, None).startswith("undecided: the interval excludes 0, but")
    assert held_to_test("undecided", 1.0, alpha, lacking) == f"undecided: {lacking}"
    assert held_to_test("undecided", 1.0, alpha, None) == "undecided"
    assert held_to_test("practically equivalent", 1.0, alpha, lacking) == "practically equivalent"


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.05 / 3, 2 / 2**9])
def test_pairs_are_too_few_where_the_smallest_p_is_above_the_level(alpha):
    for n in range(1, 14):
        for ties in range(n):
            k = np.append(np.arange(1, n - ties + 1), np.zeros(ties, int))
            assert (too_few(n, ties, alpha) is not None) == (sign_flip(k)[1] > alpha)


def test_every_undecided_verdict_says_that_the_pairs_are_too_few():
    spread = gap(9000 + np.array([9, -8, 7, -6, 5]), np.full(5, 9000))
    assert spread.verdict.interval.low < 0 < spread.verdict.interval.high
    words = "undecided: 5 pairs are too few for the exact test at 0.025, 7 would do"
    assert (spread.verdict.words, spread.verdict.seeds_needed) == (words, 7)
    # Of eight pairs five differ: the interval excludes 0, and the smallest p is 2 / 2⁵.
    level = gap(9000 + np.array([0, 0, 0, 40, 41, 42, 43, 44]), np.full(8, 9000), verdict_level=0.95)
    assert level.verdict.interval.low > 0
    assert level.smallest_p == 0.0625
    words = "undecided: 8 pairs, 3 of them level, are too few for the exact test at 0.05, 6 that differ would do"
    assert (level.verdict.words, level.verdict.seeds_needed) == (words, 6)
    nothing = gap(9000 + np.array([90, -80, 70, -60, 50, 40, -30]), np.full(7, 9000))
    assert (nothing.verdict.words, nothing.verdict.seeds_needed) == ("undecided", None)


def test_no_verdict_of_data_contradicts_its_exact_test():
    for n in (5, 6, 7):
        found = gap(9000 + np.arange(30, 30 + n), np.full(n, 9000))
        assert found.verdict.interval.low > found.verdict.margin
        assert found.verdict.words.startswith("better") == (found.sign_flip.p_value <= 0.025) == (n == 7)
        assert found.verdict.seeds_needed == (None if n == 7 else 7)


def test_exact_tests_of_two_thousand_pairs_are_exact():
    k = np.ones(2000, int)
    k[:900] = -1
    assert sign_flip(k)[0] == pytest.approx(stats.binomtest(1100, 2000).pvalue, rel=1e-9)
    rng = np.random.default_rng(0)
    many = rng.integers(-40, 43, 1500)
    normal = 2 * stats.norm.sf(abs(many.sum()) / np.sqrt((many**2).sum()))
    assert sign_flip(many)[0] == pytest.approx(normal, rel=0.05)


def test_the_signed_rank_test_of_2000_pairs_takes_less_than_a_second():
    k = np.where(np.random.default_rng(0).random(2000) < 0.52, 1, -1) * np.arange(1, 2001)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        found = wilcoxon(k, BASIS)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1
    assert found.p_value == pytest.approx(stats.wilcoxon(k, method="approx").pvalue, rel=0.01)


# families


def test_holm_by_hand_and_in_the_order_given():
    assert_allclose(holm([0.04, 0.01, 0.03]), [0.06, 0.03, 0.06])
    shuffled = holm([0.01, 0.03, 0.04])
    assert_allclose(shuffled, [0.03, 0.06, 0.06])
    assert holm([]) == []


def test_holm_counts_tests_that_were_declined():
    assert holm([0.01, None, 0.02, None]) == [pytest.approx(0.04), None, pytest.approx(0.06), None]


# McNemar


def test_mcnemar_counts_pairs_and_pools_nothing():
    rng = np.random.default_rng(3)
    b = rng.random((6, 400)) < 0.9
    c = b.copy()
    c[0] |= rng.random(400) < 0.6
    c[1] &= rng.random(400) > 0.1
    found = mcnemar(c, b, 0.95, BASIS)
    ps = []
    for x, y in zip(c, b, strict=True):
        table = [[np.sum(x & y), np.sum(x & ~y)], [np.sum(~x & y), np.sum(~x & ~y)]]
        ps.append(statsmodels_mcnemar(table, exact=True).pvalue)
    assert found.candidate_better + found.baseline_better == np.sum(np.array(ps) < 0.05)
    assert (found.candidate_better, found.baseline_better, found.undecided, found.pairs) == (1, 1, 4, 6)
    assert (found.rests_on.n, found.rests_on.planned, found.rests_on.runs) == (6, 20, ("a", "b"))
    # 6 images gained and none lost: p = 0.031; 6 gained and 1 lost: p = 0.125.
    images = np.array([[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0]], bool)
    rest = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]], bool)
    assert [mcnemar(images, rest, level, BASIS).candidate_better for level in (0.86, 0.95, 0.98)] == [2, 1, 0]
    assert not [name for name in type(found).model_fields if "p_value" in name]
    with pytest.raises(ValueError, match="image"):
        mcnemar(c[0], b[0], 0.95, BASIS)
    assert mcnemar(np.empty((0, 5), bool), np.empty((0, 5), bool), 0.95, BASIS).pairs == 0


@pytest.mark.parametrize(
    ("words", "at_chance", "held"),
    [
        ("better by more than the margin", 0.02, None),
        ("better by more than the margin", 0.01, "better, size undecided"),
        ("better by more than the margin", 0.0, "undecided: better by more than the margin over"),
        ("better, by less than the margin", 0.02, "better, size undecided"),
        ("better, by less than the margin", 0.005, None),
        ("better, size undecided", -0.02, "undecided: better, size undecided over"),
        ("worse by more than the margin", -0.02, None),
        ("worse, by less than the margin", -0.02, "worse, size undecided"),
        ("worse by more than the margin", 0.02, "undecided: worse by more than the margin over"),
        ("practically equivalent", 0.005, None),
        ("practically equivalent", -0.02, "undecided: practically equivalent over"),
        ("undecided", 0.5, None),
    ],
)
def test_a_verdict_holds_only_with_the_other_runs_scored_too(words, at_chance, held):
    assert held_to_outcomes(words, at_chance, 0.01, None).startswith(held or words)
    lacks = held_to_outcomes(words, at_chance, 0.01, "2 pairs are too few").endswith("; 2 pairs are too few")
    assert lacks == (held or "").startswith("undecided")

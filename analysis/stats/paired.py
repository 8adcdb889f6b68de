"""The paired gap over seeds: estimates, intervals, tests and the verdict. Integer counts in, findings out."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.stats import checks
from analysis.stats.estimate import Basis, Estimate, Frozen


class Gap(Frozen):
    """Everything said of one candidate against one baseline over seeds (STATISTICS: the gap over seeds)."""

    mean: Estimate
    """Mean of the paired differences in accuracy, t interval: the primary estimate."""
    verdict_interval: Estimate
    """The same at the level that the verdict needs, 1 − α / B."""
    equivalence_interval: Estimate
    """The same at 1 − 2α / B, as two one-sided tests need it."""
    sign_flip: Estimate
    """The exact sign-flip test, two-sided: the primary test."""
    smallest_p: float
    """The smallest p-value that the sign-flip test could have given."""
    verdict: str | None
    """None where the intervals are declined, or the pairs are not independent."""
    margin: float
    """That of the verdict, a fraction of accuracy."""
    largest_supported_margin: float | None
    """Lower limit of the verdict's interval, at least 0; null where there is no verdict."""
    tost: Estimate
    """Two one-sided t tests of equivalence within the margin."""

    wins: int
    """Pairs in which the candidate is ahead."""
    ties: int
    """Pairs with as many right digits."""
    losses: int
    """Pairs in which the baseline is ahead."""
    outperforming: Estimate
    """Probability that the candidate is ahead on a paired seed; a tie counts one half."""
    bouthillier: str | None
    """What Bouthillier et al. (2021) would say of `outperforming`; null without its interval."""
    error_ratio: Estimate
    """Mean errors of the candidate over those of the baseline."""

    paired_t: Estimate
    """The paired t test."""
    bca: Estimate
    """BCa bootstrap interval of the mean, as a check."""
    correlation: Estimate
    """Of both models' counts over paired seeds."""
    pairing_gain: Estimate
    """By which factor pairing shrank the variance of the gap."""

    welch: Estimate
    """Difference of means as if unpaired."""
    wilcoxon: Estimate
    """Exact signed-rank test."""
    brunner_munzel: Estimate
    """Probability that any run of the candidate beats any of the baseline."""
    effect_size: Estimate
    """d_z: mean difference in SDs of the differences."""
    quantiles: tuple[tuple[float, float], ...]
    """QQ plot: (standard normal quantile, difference in accuracy) per pair, in order."""


class McNemar(Frozen):
    """How many pairs of networks differ significantly on the same digits, each tested by itself."""

    pairs: int
    """Pairs of networks tested."""
    level: float
    """1 − the p-value from which a pair counts."""
    candidate_better: int
    """Pairs significantly for the candidate."""
    baseline_better: int
    """Pairs significantly for the baseline."""
    undecided: int
    """All others."""
    rests_on: Basis
    """The pairs with predictions."""


def t_interval(
    d: ArrayLike,
    level: float,
    *,
    n_planned: int,
    unit: str,
    population: str | None = None,
    role: str = "descriptive",
    bounds: tuple[float, float] = (-1.0, 1.0),
    runs: str | None = None,
) -> Estimate:
    """Mean of `d` [n] ± t · SD / √n with n − 1 degrees of freedom, clipped to `bounds`.

    Declined for n < 2 and where all are equal. Raises ValueError if a number is not finite: what has no
    outcome is for the caller to take out and to count.
    """
    d = np.asarray(d, float)
    n = d.size
    if not np.isfinite(d).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(d))} of {n} numbers are not finite")
    about = dict(n=n, planned=n_planned, unit=unit, population=population, role=role, runs=runs)
    method = f"mean ± t, {n - 1} degrees of freedom" if n > 1 else "mean"
    center = float(np.clip(d.mean(), *bounds)) if n else None
    if reason := checks.spread_unknown(d, unit):
        return Estimate(estimate=center, method=method, declined=reason, **about)
    half = stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(d)
    low, high = np.clip([center - half, center + half], *bounds)
    return Estimate(estimate=center, low=low, high=high, level=level, method=method, **about)


def sign_flip(k: ArrayLike) -> tuple[float, float]:
    """Exact two-sided p-value of the mean of integers `k` [n] under all 2ⁿ flips of sign, and the smallest possible.

    The null hypothesis is symmetry about 0. Zeros change no sum and are set aside, so the smallest p-value
    that n pairs without ties can give is 2 / 2ⁿ. Raises TypeError for numbers that are not integers: sums of
    rounded fractions make false ties.
    """
    k = np.asarray(k)
    if k.size and not np.issubdtype(k.dtype, np.integer):
        raise TypeError(f"sign_flip needs integer counts, not {k.dtype}")
    signed = [int(v) for v in k if v]
    if not signed:
        return 1.0, 1.0
    divisor = gcd(*signed)
    sizes = [abs(v) // divisor for v in signed]
    total, observed = sum(sizes), abs(sum(signed)) // divisor
    # ways[j]: subsets of sizes that sum to j, found by convolution; flipping the others makes the sum 2j − total.
    ways = np.zeros(total + 1, dtype=np.int64 if len(sizes) < 63 else object)
    ways[0] = 1
    for size in sizes:
        ways[size:] = ways[size:] + ways[:-size]
    extreme = np.abs(2 * np.arange(total + 1) - total) >= observed
    return int(ways[extreme].sum()) / 2 ** len(sizes), 2 / 2 ** len(sizes)


def verdict(low: float, high: float, inner_low: float, inner_high: float, margin: float) -> str:
    """The verdict at `margin` from the outer interval [L, U] and, for equivalence, the inner one [l, u]."""
    if low > margin:
        return "better by more than the margin"
    if low > 0:
        return "better, by less than the margin" if inner_high < margin else "better, size undecided"
    if high < -margin:
        return "worse by more than the margin"
    if high < 0:
        return "worse, by less than the margin" if inner_low > -margin else "worse, size undecided"
    if -margin < inner_low and inner_high < margin:
        return "practically equivalent"
    return "undecided"


def holm(p_values: Sequence[float | None], level: float = 0.95) -> list[float | None]:
    """Holm-adjusted p-values in the order given. None (no test made) stays None but counts in the family's size."""
    if not p_values:
        return []
    filled = [1.0 if p is None else p for p in p_values]
    adjusted = multipletests(filled, alpha=1 - level, method="holm")[1]
    return [None if p is None else float(a) for p, a in zip(p_values, adjusted, strict=True)]


def mcnemar(
    correct_candidate: ArrayLike,
    correct_baseline: ArrayLike,
    level: float = 0.95,
    *,
    planned: int,
    runs: str | None = None,
) -> McNemar:
    """Exact McNemar test of every pair of networks, counted; both arrays bool [pair, digit].

    The pairs share their digits, so their p-values are neither pooled nor combined.
    """
    candidate, baseline = np.asarray(correct_candidate, bool), np.asarray(correct_baseline, bool)
    if candidate.shape != baseline.shape or candidate.ndim != 2:
        raise ValueError(f"expected two arrays [pair, digit], found {candidate.shape} and {baseline.shape}")
    gained = np.count_nonzero(candidate & ~baseline, axis=1)
    lost = np.count_nonzero(baseline & ~candidate, axis=1)
    p = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
    significant = p < 1 - level
    better, worse = (int(np.count_nonzero(significant & ahead)) for ahead in (gained > lost, gained < lost))
    n = len(candidate)
    method = f"exact McNemar test of each pair by itself, two-sided, at {level:g}"
    return McNemar(
        pairs=n,
        level=level,
        candidate_better=better,
        baseline_better=worse,
        undecided=n - better - worse,
        rests_on=Basis(method=method, n=n, planned=planned, unit="pairs of runs", runs=runs),
    )


def paired(
    counts_candidate: ArrayLike,
    counts_baseline: ArrayLike,
    n_digits: int,
    *,
    level: float,
    verdict_level: float,
    margin: float,
    planned: int,
    resamples: int,
    seed: int,
    runs: str | None = None,
    role: str = "descriptive",
) -> Gap:
    """The gap of pairs of runs that share their seed, from their counts of right digits, integer [n] each.

    Position s of both arrays is the same seed; only pairs in which both models trained belong here.
    `margin` is a fraction of accuracy; `resamples` and `seed` are the bootstrap's. `role` is that of the
    primary interval, the verdict's intervals and the primary test. Raises TypeError for counts that are not
    integers, ValueError for shapes that differ and for Series whose indices do: those would pair wrong seeds.
    """
    series = [x for x in (counts_candidate, counts_baseline) if isinstance(x, pd.Series)]
    if len(series) == 2 and not series[0].index.equals(series[1].index):
        raise ValueError("the two series are not aligned")
    right = [np.asarray(c) for c in (counts_candidate, counts_baseline)]
    if right[0].shape != right[1].shape or right[0].ndim != 1:
        raise ValueError(f"expected two arrays [n], found {right[0].shape} and {right[1].shape}")
    if right[0].size and not all(np.issubdtype(c.dtype, np.integer) for c in right):
        raise TypeError("expected integer counts of right digits")
    c, b = (r.astype(np.int64) for r in right)
    k = c - b
    n = k.size
    d = k / n_digits
    about = dict(n=n, planned=planned, unit="pairs of runs", population="seeds", runs=runs)

    def interval(at: float) -> Estimate:
        return t_interval(d, at, n_planned=planned, unit="pairs of runs", population="seeds", role=role, runs=runs)

    outer, inner = interval(verdict_level), interval(2 * verdict_level - 1)
    decided = outer.low is not None and inner.low is not None
    wins, losses = int(np.count_nonzero(k > 0)), int(np.count_nonzero(k < 0))
    won = checks.outperforming(wins, n - wins - losses, losses, level, about)
    return Gap(
        mean=interval(level),
        verdict_interval=outer,
        equivalence_interval=inner,
        sign_flip=flip_test(k, 1 - verdict_level, about | dict(role=role)),
        smallest_p=sign_flip(k)[1],
        verdict=verdict(outer.low, outer.high, inner.low, inner.high, margin) if decided else None,
        margin=margin,
        largest_supported_margin=max(0.0, outer.low) if decided else None,
        tost=checks.tost(d, margin, about),
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
        outperforming=won,
        bouthillier=checks.bouthillier(won),
        error_ratio=checks.error_ratio(n_digits - c, n_digits - b, level, about),
        paired_t=checks.paired_t(k, about),
        bca=checks.bca(d, level, resamples, seed, about),
        correlation=checks.correlation(c, b, level, about),
        pairing_gain=checks.pairing_gain(c, b, about),
        welch=checks.welch(c / n_digits, b / n_digits, level, about),
        wilcoxon=_wilcoxon(k, about),
        brunner_munzel=checks.brunner_munzel(c, b, level, about),
        effect_size=checks.effect_size(k, about),
        quantiles=checks.quantiles(d),
    )


def flip_test(k: NDArray[np.int64], alpha: float, about: dict) -> Estimate:
    """The sign-flip test of `k` [n] as a finding; it warns where no result of so many pairs could reach `alpha`."""
    method = "exact sign-flip test of the mean difference, two-sided"
    if not k.size:
        return Estimate(method=method, declined=checks.few(0), **about)
    p_value, smallest = sign_flip(k)
    warning = f"no result of these pairs could reach {alpha:.3g}: the smallest p-value possible is {smallest:.3g}"
    return Estimate(p_value=p_value, method=method, warning=warning if smallest > alpha else None, **about)


def not_independent(gap: Gap, warning: str) -> Gap:
    """The same numbers without verdict or criterion, each with the `warning`: for pairs that share too much."""
    warned = {name: e.warned(warning) for name, e in gap if isinstance(e, Estimate)}
    return gap.model_copy(update=dict(verdict=None, largest_supported_margin=None, bouthillier=None, **warned))


def _wilcoxon(k: NDArray[np.int64], about: dict) -> Estimate:
    """Signed-rank test with zeros ranked (Pratt 1959): the sign-flip test of the ranks, exact with ties too."""
    method = "exact Wilcoxon signed-rank test (Pratt), two-sided"
    if not k.any():
        return Estimate(method=method, declined="no pair differs" if k.size else checks.few(0), **about)
    twice = np.rint(2 * stats.rankdata(np.abs(k))).astype(np.int64)  # mean ranks of ties are halves
    return Estimate(p_value=sign_flip(np.sign(k) * twice)[0], method=method, **about)

"""The paired gap over seeds: estimate, tests, verdict, effect sizes, and checks by other methods.

Arrays hold one entry per pair of runs that share their seed, [n]. Every function takes the `Basis` that its result
rests on, and declines with a reason where the data cannot give a number.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import comb, gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.proportion import proportion_confint

from analysis.stats.estimate import Basis, Estimate, Frozen, mapped

BELOW_NOMINAL = (
    "below nominal for n < 50: at n = 5, 10 and 20 and 95% it covers about 83, 90 and 92% where seeds are normal, but "
    "67 to 86% where one seed in ten of a model is bad, and 76 to 87% where its luck is lognormal"
)
"""What was simulated: analysis/published/calibration.csv."""

MEANINGFUL = 0.75
"""The probability of outperforming that Bouthillier et al. (2021) ask for."""

LEAST_SKEWED = 8
"""Pairs that D'Agostino's test of skewness needs."""

INTEGERS = 62
"""Up to this many pairs the flips of sign are counted in 64-bit integers, beyond in floats."""


class Verdict(Frozen):
    """What the intervals of the gap say at the margin, where the exact test says it too."""

    words: str | None
    """The verdict; null where the intervals are declined, or the pairs are not independent."""
    seeds_needed: int | None
    """Fewest pairs with which the exact test could reach its level, if none is level; null where these pairs could."""
    margin: float
    """The smallest gap that matters, a fraction of accuracy."""
    interval: Estimate
    """The gap at the level that the verdict needs, 1 − α / B over B baselines."""
    equivalence_interval: Estimate
    """The same at 1 − 2α / B, as two one-sided tests need it."""
    largest_supported_margin: float | None
    """Lower limit of `interval` where the verdict is better, else 0; null where there is no verdict."""
    tost: Estimate
    """Two one-sided t tests of equivalence within the margin."""


class Effect(Frozen):
    """How large the gap is, in other units than accuracy."""

    wins: int
    """Pairs in which the candidate is ahead."""
    ties: int
    """Pairs with as many right test images."""
    losses: int
    """Pairs in which the baseline is ahead."""
    outperforming: Estimate
    """Probability that the candidate is ahead on a paired seed; a tie counts one half."""
    bouthillier: str | None
    """What Bouthillier et al. (2021) would say of `outperforming`; null without its interval."""
    error_rate_ratio: Estimate
    """Error rate of the candidate over that of the baseline."""
    difference_sd: float | None
    """SD of the paired differences in accuracy (n − 1); null for fewer than two pairs."""
    standardised: Estimate
    """d_z: mean difference in SDs of the differences."""


class Checks(Frozen):
    """The same gap by other methods, and what pairing gained."""

    paired_t: Estimate
    """The paired t test."""
    bca: Estimate
    """BCa bootstrap interval of the mean."""
    wilcoxon: Estimate
    """Exact signed-rank test."""
    welch: Estimate
    """Difference of means as if unpaired."""
    brunner_munzel: Estimate
    """Probability that any run of the candidate beats any of the baseline."""
    correlation: Estimate
    """Of both models' counts over paired seeds."""
    pairing_gain: Estimate
    """By which factor pairing shrank the variance of the gap."""


class Gap(Frozen):
    """Everything said of one candidate against one baseline over seeds."""

    mean: Estimate
    """Mean of the paired differences in accuracy, t interval: the primary estimate."""
    sign_flip: Estimate
    """The exact sign-flip test, two-sided: the primary test."""
    smallest_p: float
    """The smallest p-value that the sign-flip test could have given."""
    verdict: Verdict
    """What follows at the margin."""
    effect: Effect
    """How large it is in other units."""
    checks: Checks
    """By other methods."""
    quantiles: tuple[tuple[float, float], ...]
    """QQ plot: (standard normal quantile, difference in accuracy) per pair, in order."""
    skewness: Estimate
    """Sample skewness of the differences, with the p-value of D'Agostino's test that they are drawn without any."""

    @property
    def differences(self) -> list[float]:
        """The paired differences in accuracy [pair], in order."""
        return [value for _, value in self.quantiles]


class McNemar(Frozen):
    """How many pairs of networks differ significantly on the same test images, each tested by itself."""

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


# the primary interval, the primary test and the verdict


def t_interval(values: ArrayLike, level: float, basis: Basis, bounds: tuple[float, float] = (-1.0, 1.0)) -> Estimate:
    """Mean of `values` [n] ± t · SD / √n with n − 1 degrees of freedom, clipped to `bounds`.

    Declined for n < 2 and where all are equal. Raises ValueError if a number is not finite: what has no
    outcome is for the caller to take out and to count.
    """
    d = np.asarray(values, float)
    n = d.size
    if not np.isfinite(d).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(d))} of {n} numbers are not finite")
    basis = basis.changed(n=n, method=f"mean ± t, {n - 1} degrees of freedom" if n > 1 else "mean")
    center = float(np.clip(d.mean(), *bounds)) if n else None
    if reason := spread_unknown(d, basis.unit):
        return basis.declines(reason, center)
    half = stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(d)
    low, high = np.clip([center - half, center + half], *bounds)
    return basis.gives(center, low, high, level)


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
    n = len(signed)
    if not n or not sum(signed):
        return 1.0, 2.0 ** (1 - n) if n else 1.0
    divisor = gcd(*signed)
    sizes = sorted(abs(v) // divisor for v in signed)
    # Flipping a subset that sums to j makes the sum 2j − total: at most −|observed| where j is at most `most`, and by
    # symmetry as often at least |observed|.
    most = (sum(sizes) - abs(sum(signed)) // divisor) // 2
    # Two halves apart, as arrays half as long fit a cache; a subset is one of each.
    few, many = (_subsets(half, most, np.int64 if n <= INTEGERS else np.float64) for half in (sizes[::2], sizes[1::2]))
    up_to = np.cumsum(many.ways)
    pairs = few.ways @ up_to[np.minimum(most - np.arange(few.ways.size), up_to.size - 1)]
    return float(np.ldexp(float(pairs), few.halvings + many.halvings + 1 - n)), 2.0 ** (1 - n)


class _Subsets(NamedTuple):
    ways: NDArray
    """How many subsets have the sum j [j], in units of 2 ** halvings."""
    halvings: int


def _subsets(sizes: Sequence[int], most: int, dtype: type) -> _Subsets:
    """The subsets of `sizes`, ascending, by their sum up to `most`, by convolution."""
    length = min(sum(sizes), most) + 1
    # From one array to the other: adding in place, numpy copies what overlaps.
    ways: NDArray = np.zeros(length, dtype)
    sums = np.zeros_like(ways)
    ways[0] = 1
    reached = halvings = 0
    for used, size in enumerate(sizes, 1):
        if size > most:
            break
        reached = min(reached + size, most)
        sums[:size] = ways[:size]
        np.add(ways[size : reached + 1], ways[: reached + 1 - size], out=sums[size : reached + 1])
        ways, sums = sums, ways
        if used % 400 == 0:  # the product of both halves must be a float too
            ways *= 2.0**-400
            halvings += 400
    return _Subsets(ways, halvings)


def flip_test(k: NDArray[np.int64], alpha: float, basis: Basis) -> Estimate:
    """The sign-flip test of `k` [n] as a finding; it warns where no result of this many pairs could reach `alpha`."""
    basis = basis.changed(method="exact sign-flip test of the mean difference, two-sided")
    if not k.size:
        return basis.declines(few(0))
    p_value, smallest = sign_flip(k)
    warning = f"no result of these pairs could reach {alpha:.3g}: the smallest p-value possible is {smallest:.3g}"
    return basis.gives(p_value=p_value, warning=warning if smallest > alpha else None)


def too_few(n: int, ties: int, alpha: float) -> str | None:
    """That no result of `n` pairs, of them `ties` level, could reach `alpha` in the exact test; None where one could.

    It also says how many pairs would do.
    """
    needed = pairs_needed(alpha)
    if n - ties >= needed:
        return None
    level, that_differ = (f", {ties} of them level,", " that differ") if ties else ("", "")
    return f"{n} pairs{level} are too few for the exact test at {alpha:.3g}, {needed}{that_differ} would do"


def held_to_test(words: str, p: float, alpha: float, lacking: str | None) -> str:
    """The verdict `words` of intervals, if the exact test with p-value `p` reaches `alpha` as well.

    An undecided one says what the pairs are `lacking` for that test, whatever they show: `too_few`.
    """
    decided = words.startswith(("better", "worse"))
    if (decided and p <= alpha) or words == "practically equivalent":
        return words
    if lacking is not None:
        return f"undecided: {lacking}"
    if decided:
        return f"undecided: the interval excludes 0, but the exact test has p = {p:.2g}, above {alpha:.3g}"
    return words


def held_to_outcomes(words: str, at_chance: float, margin: float, lacking: str | None) -> str:
    """The verdict `words` over pairs that learned, if the gap with the other runs scored, `at_chance`, says it too.

    Where the two disagree on the sign, or on whether the gap matters at all, there is no verdict; where they disagree
    on the size alone, the size is undecided. Without a verdict it also says what the pairs are `lacking`, as there.
    """
    side = words.partition(" ")[0].rstrip(",")
    toward = -at_chance if side == "worse" else at_chance
    if side in ("better", "worse"):
        if toward > 0:
            large = toward > margin
            contradicted = "by less" in words if large else "by more" in words
            return f"{side}, size undecided" if contradicted else words
    elif words != "practically equivalent" or abs(at_chance) < margin:
        return words
    parts = [f"undecided: {words} over the pairs that learned, but not with the other runs scored at chance", lacking]
    return "; ".join(filter(None, parts))


def pairs_needed(alpha: float) -> int:
    """The fewest pairs with which the smallest two-sided p-value of the sign-flip test, 2 / 2ⁿ, is at most `alpha`."""
    return next(n for n in range(1, 2000) if 2.0 ** (1 - n) <= alpha)


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


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm-adjusted p-values in the order given. None (no test made) stays None but counts in the family's size."""
    if not p_values:
        return []
    filled = [1.0 if p is None else p for p in p_values]
    adjusted = multipletests(filled, method="holm")[1]
    return [None if p is None else float(a) for p, a in zip(p_values, adjusted, strict=True)]


def paired(
    candidate: ArrayLike,
    baseline: ArrayLike,
    n_images: int,
    basis: Basis,
    *,
    level: float,
    verdict_level: float,
    margin: float,
    resamples: int,
    seed: int,
) -> Gap:
    """The gap of pairs of runs that share their seed, from their counts of right test images, integer [n] each.

    Position s of both arrays is the same seed; only pairs in which both models learned belong here. `margin` is a
    fraction of accuracy; `resamples` and `seed` are the bootstrap's. The role of `basis` is that of the primary
    interval, the verdict's intervals and the primary test. Raises TypeError for counts that are not integers,
    ValueError for shapes that differ.
    """
    right = [np.asarray(candidate), np.asarray(baseline)]
    if right[0].shape != right[1].shape or right[0].ndim != 1:
        raise ValueError(f"expected two arrays [n], found {right[0].shape} and {right[1].shape}")
    if right[0].size and not all(np.issubdtype(r.dtype, np.integer) for r in right):
        raise TypeError("expected integer counts of right test images")
    c, b = (r.astype(np.int64) for r in right)
    k = c - b
    d = k / n_images
    basis = basis.changed(n=k.size)
    other = basis.changed(role="descriptive")
    return Gap(
        mean=t_interval(d, level, basis),
        sign_flip=flip_test(k, 1 - verdict_level, basis),
        smallest_p=sign_flip(k)[1],
        verdict=_verdict(k, n_images, verdict_level, margin, basis),
        effect=_effect(c, b, n_images, level, other),
        checks=Checks(
            paired_t=paired_t(k, other),
            bca=bca(d, level, resamples, seed, other),
            wilcoxon=wilcoxon(k, other),
            welch=welch(c / n_images, b / n_images, level, other),
            brunner_munzel=brunner_munzel(c, b, level, other),
            correlation=correlation(c, b, level, other),
            pairing_gain=pairing_gain(c, b, other),
        ),
        quantiles=quantiles(d),
        skewness=skewness(d, other),
    )


def _verdict(k: NDArray[np.int64], n_images: int, level: float, margin: float, basis: Basis) -> Verdict:
    d, alpha = k / n_images, 1 - level
    outer, inner = t_interval(d, level, basis), t_interval(d, 2 * level - 1, basis)
    lacking = too_few(k.size, int(np.count_nonzero(k == 0)), alpha)
    words = largest = None
    if outer.interval and inner.interval:
        said = verdict(*outer.interval, *inner.interval, margin)
        words = held_to_test(said, sign_flip(k)[0], alpha, lacking)
        largest = max(0.0, outer.interval[0]) if words.startswith("better") else 0.0
    return Verdict(
        words=words,
        seeds_needed=pairs_needed(alpha) if lacking else None,
        margin=margin,
        interval=outer,
        equivalence_interval=inner,
        largest_supported_margin=largest,
        tost=tost(d, margin, basis.changed(role="descriptive")),
    )


def _effect(c: NDArray, b: NDArray, n_images: int, level: float, basis: Basis) -> Effect:
    wins, losses = int(np.count_nonzero(c > b)), int(np.count_nonzero(c < b))
    ties = c.size - wins - losses
    won = outperforming(wins, ties, losses, level, basis)
    return Effect(
        wins=wins,
        ties=ties,
        losses=losses,
        outperforming=won,
        bouthillier=bouthillier(won),
        error_rate_ratio=error_rate_ratio(n_images - c, n_images - b, level, basis),
        difference_sd=float(np.std(c - b, ddof=1)) / n_images if c.size > 1 else None,
        standardised=effect_size(c - b, basis),
    )


def not_independent(gap: Gap, warning: str) -> Gap:
    """The same numbers without verdict or criterion, each with the `warning`: for pairs that share too much."""
    gap = mapped(gap, lambda part: part.warned(warning) if isinstance(part, Estimate) else part)
    return gap.model_copy(
        update=dict(
            verdict=gap.verdict.model_copy(update=dict(words=None, largest_supported_margin=None)),
            effect=gap.effect.model_copy(update=dict(bouthillier=None)),
        )
    )


def verdict_held_to_outcomes(gap: Gap, at_chance: float, lacking: str | None) -> Gap:
    """The same numbers with the verdict that `held_to_outcomes` leaves."""
    found = gap.verdict
    if found.words is None or found.largest_supported_margin is None:
        return gap
    held = dict(
        words=held_to_outcomes(found.words, at_chance, found.margin, lacking),
        largest_supported_margin=min(found.largest_supported_margin, max(0.0, at_chance)),
    )
    return gap.model_copy(update=dict(verdict=found.model_copy(update=held)))


# tests and intervals beside the primary ones


def tost(d: NDArray, margin: float, basis: Basis) -> Estimate:
    """Two one-sided t tests (Schuirmann 1987) that the mean of `d` lies within ± margin; p is the larger of the two."""
    basis = basis.changed(method=f"two one-sided t tests for equivalence within ±{100 * margin:g} percentage points")
    if reason := spread_unknown(d):
        return basis.declines(reason)
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return basis.gives(p_value=max(above, below))


def paired_t(k: NDArray, basis: Basis) -> Estimate:
    """Paired t test on integer differences `k`."""
    basis = basis.changed(method="paired t test, two-sided")
    if reason := spread_unknown(k):
        return basis.declines(reason)
    return basis.gives(p_value=stats.ttest_1samp(k, 0).pvalue)


def wilcoxon(k: NDArray, basis: Basis) -> Estimate:
    """Signed-rank test with zeros ranked (Pratt 1959): the sign-flip test of the ranks, exact with ties too."""
    basis = basis.changed(method="exact Wilcoxon signed-rank test (Pratt), two-sided")
    if not k.any():
        return basis.declines("no pair differs" if k.size else few(0))
    twice = np.rint(2 * stats.rankdata(np.abs(k))).astype(np.int64)  # mean ranks of ties are halves
    return basis.gives(p_value=sign_flip(np.sign(k) * twice)[0])


def bca(d: NDArray, level: float, resamples: int, seed: int, basis: Basis) -> Estimate:
    """BCa bootstrap interval (Efron 1987) of the mean of `d`."""
    basis = basis.changed(
        role="check", method=f"BCa bootstrap of the mean difference, {resamples:,} resamples, seed {seed}"
    )
    warning = BELOW_NOMINAL if d.size < 50 else None
    if reason := spread_unknown(d):
        return basis.declines(reason).warned(warning)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (d,),
            np.mean,
            n_resamples=resamples,
            confidence_level=level,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, result.confidence_interval)
    if not low < high:
        return basis.declines("the bootstrap distribution is degenerate", d.mean()).warned(warning)
    return basis.gives(d.mean(), low, high, level, warning=warning)


def welch(c: NDArray, b: NDArray, level: float, basis: Basis, bounds: tuple[float, float] = (-1.0, 1.0)) -> Estimate:
    """Welch's t test and interval for mean(c) − mean(b), as if the seeds were not paired; sizes may differ."""
    basis = basis.changed(method="difference of means, Welch's t, unpaired")
    if not c.size or not b.size:
        return basis.declines("one of the models has no run")
    estimate = float(c.mean() - b.mean())
    if min(c.size, b.size) == 1 or (spread_unknown(c) and spread_unknown(b)):
        reason = few(1) if min(c.size, b.size) == 1 else "the values of each model are all equal"
        return basis.declines(reason, estimate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one model may be constant: Welch's formula allows it
        result = stats.ttest_ind(c, b, equal_var=False)
    low, high = np.clip(result.confidence_interval(level), *bounds)
    return basis.gives(estimate, low, high, level, p_value=result.pvalue)


def brunner_munzel(c: NDArray, b: NDArray, level: float, basis: Basis) -> Estimate:
    """Probability that a run of the candidate beats one of the baseline under any seeds (Brunner and Munzel 2000).

    Where one model's runs are all ahead of the other's the variance is zero: the exact rank-sum p-value is given
    and no interval.
    """
    what = "probability that any run of the candidate beats any of the baseline"
    basis = basis.changed(method=f"{what}, Brunner–Munzel, unpaired")
    n = c.size
    if n == 0:
        return basis.declines(few(0))
    wins = float((c[:, None] > b).mean() + (c[:, None] == b).mean() / 2)
    if wins in (0, 1):
        exact = basis.changed(method=f"{what}; exact rank-sum test, unpaired")
        reason = "complete separation: no interval can be estimated"
        return exact.declines(reason, wins, p_value=2 / comb(2 * n, n))
    if n < 2 or (spread_unknown(c) and spread_unknown(b)):
        return basis.declines(few(n) if n < 2 else "the accuracies of each model are all equal", wins)
    result = rank_compare_2indep(c, b, use_t=True)
    low, high = np.clip(result.conf_int(alpha=1 - level), 0, 1)
    return basis.gives(wins, low, high, level, p_value=result.pvalue)


def mcnemar(correct_candidate: ArrayLike, correct_baseline: ArrayLike, level: float, basis: Basis) -> McNemar:
    """Exact McNemar test of every pair of networks, counted; both arrays bool [pair, image].

    The pairs share their test images, so their p-values are neither pooled nor combined.
    """
    candidate, baseline = np.asarray(correct_candidate, bool), np.asarray(correct_baseline, bool)
    if candidate.shape != baseline.shape or candidate.ndim != 2:
        raise ValueError(f"expected two arrays [pair, image], found {candidate.shape} and {baseline.shape}")
    gained = np.count_nonzero(candidate & ~baseline, axis=1)
    lost = np.count_nonzero(baseline & ~candidate, axis=1)
    p = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
    significant = p < 1 - level
    better, worse = (int(np.count_nonzero(significant & ahead)) for ahead in (gained > lost, gained < lost))
    n = len(candidate)
    return McNemar(
        pairs=n,
        level=level,
        candidate_better=better,
        baseline_better=worse,
        undecided=n - better - worse,
        rests_on=basis.changed(method=f"exact McNemar test of each pair by itself, two-sided, at {level:g}", n=n),
    )


# effect sizes


def error_rate_ratio(errors_candidate: NDArray, errors_baseline: NDArray, level: float, basis: Basis) -> Estimate:
    """Ratio of error rates (candidate / baseline), from the errors of each pair.

    Delta method on the logarithm: the relative errors e_c / mean(e_c) − e_b / mean(e_b) carry variances and
    covariance at once; t with n − 1 degrees of freedom.
    """
    basis = basis.changed(method="ratio of error rates, delta method on its logarithm with covariance, t")
    n = errors_candidate.size
    if n == 0:
        return basis.declines(few(0))
    mean_c, mean_b = errors_candidate.mean(), errors_baseline.mean()
    if mean_b == 0:
        return basis.declines("the baseline made no errors")
    ratio = float(mean_c / mean_b)
    if mean_c == 0:
        return basis.declines("the candidate made no errors: the logarithm of the ratio does not exist", ratio)
    relative = errors_candidate / mean_c - errors_baseline / mean_b
    if reason := spread_unknown(relative):
        return basis.declines(reason, ratio)
    half = stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(relative)
    if half > 300:  # beyond what exp can hold, and beyond any use
        return basis.declines(f"n = {n} is too few for an interval", ratio)
    low, high = ratio * np.exp([-half, half])
    return basis.gives(ratio, low, high, level)


def outperforming(wins: int, ties: int, losses: int, level: float, basis: Basis) -> Estimate:
    """Probability that the candidate is ahead on a paired seed, wins + ½ ties.

    Clopper–Pearson with every tie as a loss for the lower limit and as a win for the upper.
    """
    basis = basis.changed(method="share of pairs won, a tie counting ½; Clopper–Pearson, ties against each limit")
    n = wins + ties + losses
    if n == 0:
        return basis.declines(few(0))
    low = float(proportion_confint(wins, n, 1 - level, method="beta")[0])
    high = float(proportion_confint(wins + ties, n, 1 - level, method="beta")[1])
    return basis.gives((wins + ties / 2) / n, low, high, level)


def bouthillier(won: Estimate) -> str | None:
    """What Bouthillier et al. (2021, MLSys, section 5) would say of the interval of `outperforming`.

    Their criterion, with our exact interval in the place of their percentile bootstrap, and for whichever model is
    ahead, as they ask it of the one that is claimed to be better.
    """
    if won.low is None or won.high is None:
        return None
    low, high = (won.low, won.high) if won.high >= 0.5 else (1 - won.high, 1 - won.low)
    if low <= 0.5:
        return "not statistically significant"
    if high <= MEANINGFUL:
        return "statistically significant, not meaningful"
    return "statistically significant and meaningful"


def correlation(c: NDArray, b: NDArray, level: float, basis: Basis) -> Estimate:
    """Pearson correlation of both models' counts over paired seeds, interval by Fisher's transformation."""
    basis = basis.changed(method="Pearson correlation over paired seeds, Fisher's transformation")
    if reason := spread_unknown(c) or spread_unknown(b):
        return basis.declines(reason)
    if c.size == 2:
        return basis.declines("n = 2: a correlation of two pairs is always ±1")
    result = stats.pearsonr(c, b)
    rho = float(np.clip(result.statistic, -1, 1))
    if c.size < 4 or abs(rho) > 1 - 1e-12:
        reason = "n = 3: the interval needs at least 4 pairs" if c.size < 4 else "the correlation is perfect"
        return basis.declines(reason, rho)
    low, high = result.confidence_interval(level)
    return basis.gives(rho, float(low), float(high), level)


def pairing_gain(c: NDArray, b: NDArray, basis: Basis) -> Estimate:
    """(σ₁² + σ₂²) / (σ₁² + σ₂² − 2ρσ₁σ₂): how many unpaired seeds one pair is worth."""
    basis = basis.changed(method="variance of the gap without pairing, over that with pairing")
    if reason := spread_unknown(c - b):
        return basis.declines(reason)
    unpaired = np.var(c, ddof=1) + np.var(b, ddof=1)
    return basis.gives(float(unpaired / np.var(c - b, ddof=1)))


def effect_size(k: NDArray, basis: Basis) -> Estimate:
    """d_z: the mean difference in SDs of the differences (ddof = 1)."""
    basis = basis.changed(method="mean difference over the SD of differences (d_z)")
    if reason := spread_unknown(k):
        return basis.declines(reason)
    return basis.gives(float(k.mean() / k.std(ddof=1)))


def quantiles(d: NDArray) -> tuple[tuple[float, float], ...]:
    """QQ plot of `d`: (quantile of the standard normal at Filliben's positions, value), in order."""
    if d.size == 0:
        return ()
    theoretical, ordered = stats.probplot(d, fit=False)
    return tuple(zip(theoretical.tolist(), ordered.tolist(), strict=True))


def skewness(d: NDArray, basis: Basis) -> Estimate:
    """Skewness of `d` [pair], and D'Agostino's (1970) test, which needs eight pairs."""
    basis = basis.changed(method="sample skewness of the differences, D'Agostino's test", role="descriptive")
    if reason := spread_unknown(d):
        return basis.declines(reason)
    if d.size < LEAST_SKEWED:
        return basis.declines(f"n = {d.size}: the test needs at least {LEAST_SKEWED} pairs")
    return basis.gives(float(stats.skew(d)), p_value=float(stats.skewtest(d).pvalue))


# why a number is declined


def few(n: int, unit: str = "pairs of runs") -> str:
    """Why n = 0 or n = 1 is declined."""
    return f"none of the {unit} learned" if n == 0 else f"n = {n}: an interval or a test needs at least 2"


def spread_unknown(x: NDArray, unit: str = "pairs of runs") -> str | None:
    """Why the spread of `x` cannot be estimated, or None; equal up to float rounding is equal."""
    if x.size < 2:
        return few(x.size, unit)
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return f"all {x.size} values are equal: their spread cannot be estimated"
    return None

"""What stands beside the primary gap: checks by other methods, effect sizes, and the appendix.

Every function takes arrays over pairs [n] and `about`, the fields of `Estimate` that all of them share, and
declines with a reason where the data cannot give a number.
"""

from __future__ import annotations

import warnings
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.proportion import proportion_confint

from analysis.stats.estimate import Estimate

BELOW_NOMINAL = "below nominal for n < 50: at 95% it covers about 83, 90 and 92% at n = 5, 10 and 20"
MEANINGFUL = 0.75
"""The probability of outperforming that Bouthillier et al. (2021) ask for."""


def paired_t(k: NDArray, about: dict) -> Estimate:
    """Paired t test on integer differences `k`."""
    method = "paired t test, two-sided"
    if reason := spread_unknown(k):
        return Estimate(method=method, declined=reason, **about)
    return Estimate(p_value=stats.ttest_1samp(k, 0).pvalue, method=method, **about)


def tost(d: NDArray, margin: float, about: dict) -> Estimate:
    """Two one-sided t tests (Schuirmann 1987) that the mean of `d` lies within ± margin; p is the larger of the two."""
    method = f"two one-sided t tests for equivalence within ±{100 * margin:g} percentage points"
    if reason := spread_unknown(d):
        return Estimate(method=method, declined=reason, **about)
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return Estimate(p_value=max(above, below), method=method, **about)


def bca(d: NDArray, level: float, resamples: int, seed: int, about: dict) -> Estimate:
    """BCa bootstrap interval (Efron 1987) of the mean of `d`."""
    about = about | dict(role="check", warning=BELOW_NOMINAL if d.size < 50 else None)
    method = f"BCa bootstrap of the mean difference, {resamples:,} resamples, seed {seed}"
    if reason := spread_unknown(d):
        return Estimate(method=method, declined=reason, **about)
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
    estimate = float(d.mean())
    if not low < high:
        reason = "the bootstrap distribution is degenerate"
        return Estimate(estimate=estimate, method=method, declined=reason, **about)
    return Estimate(estimate=estimate, low=low, high=high, level=level, method=method, **about)


def error_ratio(errors_candidate: NDArray, errors_baseline: NDArray, level: float, about: dict) -> Estimate:
    """Ratio of mean errors (candidate / baseline), from the errors of each pair.

    Delta method on the logarithm: the relative errors e_c / mean(e_c) − e_b / mean(e_b) carry variances and
    covariance at once; t with n − 1 degrees of freedom.
    """
    method = "ratio of mean errors, delta method on its logarithm with covariance, t"
    n = errors_candidate.size
    if n == 0:
        return Estimate(method=method, declined=few(0), **about)
    mean_c, mean_b = errors_candidate.mean(), errors_baseline.mean()
    if mean_b == 0:
        return Estimate(method=method, declined="the baseline made no errors", **about)
    ratio = float(mean_c / mean_b)
    if mean_c == 0:
        reason = "the candidate made no errors: the logarithm of the ratio does not exist"
        return Estimate(estimate=ratio, method=method, declined=reason, **about)
    relative = errors_candidate / mean_c - errors_baseline / mean_b
    if reason := spread_unknown(relative):
        return Estimate(estimate=ratio, method=method, declined=reason, **about)
    half = stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(relative)
    if half > 300:  # beyond what exp can hold, and beyond any use
        return Estimate(estimate=ratio, method=method, declined=f"n = {n} is too few for an interval", **about)
    low, high = ratio * np.exp([-half, half])
    return Estimate(estimate=ratio, low=low, high=high, level=level, method=method, **about)


def outperforming(wins: int, ties: int, losses: int, level: float, about: dict) -> Estimate:
    """Probability that the candidate is ahead on a paired seed, wins + ½ ties.

    Clopper–Pearson with every tie as a loss for the lower limit and as a win for the upper.
    """
    method = "share of pairs won, a tie counting ½; Clopper–Pearson, ties against each limit"
    n = wins + ties + losses
    if n == 0:
        return Estimate(method=method, declined=few(0), **about)
    low = float(proportion_confint(wins, n, 1 - level, method="beta")[0])
    high = float(proportion_confint(wins + ties, n, 1 - level, method="beta")[1])
    return Estimate(estimate=(wins + ties / 2) / n, low=low, high=high, level=level, method=method, **about)


def bouthillier(won: Estimate) -> str | None:
    """What Bouthillier et al. (2021, MLSys, section 5) would say of the interval of `outperforming`.

    Their criterion, with our exact interval in the place of their percentile bootstrap.
    """
    if won.low is None or won.high is None:
        return None
    if won.low <= 0.5:
        return "not statistically significant"
    if won.high <= MEANINGFUL:
        return "statistically significant, not meaningful"
    return "statistically significant and meaningful"


def correlation(c: NDArray, b: NDArray, level: float, about: dict) -> Estimate:
    """Pearson correlation of both models' counts over paired seeds, interval by Fisher's transformation."""
    method = "Pearson correlation over paired seeds, Fisher's transformation"
    if reason := spread_unknown(c) or spread_unknown(b):
        return Estimate(method=method, declined=reason, **about)
    if c.size == 2:
        return Estimate(method=method, declined="n = 2: a correlation of two pairs is always ±1", **about)
    result = stats.pearsonr(c, b)
    rho = float(np.clip(result.statistic, -1, 1))
    if c.size < 4 or abs(rho) > 1 - 1e-12:
        reason = "n = 3: the interval needs at least 4 pairs" if c.size < 4 else "the correlation is perfect"
        return Estimate(estimate=rho, method=method, declined=reason, **about)
    low, high = map(float, result.confidence_interval(level))
    return Estimate(estimate=rho, low=low, high=high, level=level, method=method, **about)


def pairing_gain(c: NDArray, b: NDArray, about: dict) -> Estimate:
    """(σ₁² + σ₂²) / (σ₁² + σ₂² − 2ρσ₁σ₂): how many unpaired seeds one pair is worth."""
    method = "variance of the gap without pairing, over that with pairing"
    if reason := spread_unknown(c - b):
        return Estimate(method=method, declined=reason, **about)
    unpaired = np.var(c, ddof=1) + np.var(b, ddof=1)
    return Estimate(estimate=float(unpaired / np.var(c - b, ddof=1)), method=method, **about)


def welch(c: NDArray, b: NDArray, level: float, about: dict, bounds: tuple[float, float] = (-1.0, 1.0)) -> Estimate:
    """Welch's t test and interval for mean(c) − mean(b), as if the seeds were not paired; sizes may differ."""
    method = "difference of means, Welch's t, unpaired"
    if not c.size or not b.size:
        return Estimate(method=method, declined="one of the models has no run", **about)
    estimate = float(c.mean() - b.mean())
    if min(c.size, b.size) == 1 or (spread_unknown(c) and spread_unknown(b)):
        reason = few(1) if min(c.size, b.size) == 1 else "the values of each model are all equal"
        return Estimate(estimate=estimate, method=method, declined=reason, **about)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one model may be constant: Welch's formula allows it
        result = stats.ttest_ind(c, b, equal_var=False)
    low, high = np.clip(result.confidence_interval(level), *bounds)
    return Estimate(estimate=estimate, low=low, high=high, level=level, p_value=result.pvalue, method=method, **about)


def brunner_munzel(c: NDArray, b: NDArray, level: float, about: dict) -> Estimate:
    """Probability that a run of the candidate beats one of the baseline under any seeds (Brunner and Munzel 2000).

    Where one model's runs are all ahead of the other's the variance is zero: the exact rank-sum p-value is given
    and no interval.
    """
    method = "probability that any run of the candidate beats any of the baseline, Brunner–Munzel, unpaired"
    n = c.size
    if n == 0:
        return Estimate(method=method, declined=few(0), **about)
    wins = (c[:, None] > b).mean() + (c[:, None] == b).mean() / 2
    if wins in (0, 1):
        return Estimate(
            estimate=float(wins),
            p_value=2 / comb(2 * n, n),
            method="probability that any run of the candidate beats any of the baseline; exact rank-sum test, unpaired",
            declined="complete separation: no interval can be estimated",
            **about,
        )
    if n < 2 or (spread_unknown(c) and spread_unknown(b)):
        reason = few(n) if n < 2 else "the accuracies of each model are all equal"
        return Estimate(estimate=float(wins), method=method, declined=reason, **about)
    result = rank_compare_2indep(c, b, use_t=True)
    low, high = np.clip(result.conf_int(alpha=1 - level), 0, 1)
    return Estimate(
        estimate=float(wins), low=low, high=high, level=level, p_value=result.pvalue, method=method, **about
    )


def effect_size(k: NDArray, about: dict) -> Estimate:
    """d_z: the mean difference in SDs of the differences (ddof = 1)."""
    method = "mean difference over the SD of differences (d_z)"
    if reason := spread_unknown(k):
        return Estimate(method=method, declined=reason, **about)
    return Estimate(estimate=float(k.mean() / k.std(ddof=1)), method=method, **about)


def quantiles(d: NDArray) -> tuple[tuple[float, float], ...]:
    """QQ plot of `d`: (quantile of the standard normal at Filliben's positions, value), in order."""
    if d.size == 0:
        return ()
    theoretical, ordered = stats.probplot(d, fit=False)
    return tuple(zip(theoretical.tolist(), ordered.tolist(), strict=True))


def few(n: int, unit: str = "pairs of runs") -> str:
    """Why n = 0 or n = 1 is declined."""
    return f"none of the {unit} trained" if n == 0 else f"n = {n}: an interval or a test needs at least 2"


def spread_unknown(x: NDArray, unit: str = "pairs of runs") -> str | None:
    """Why the spread of `x` cannot be estimated, or None; equal up to float rounding is equal."""
    if x.size < 2:
        return few(x.size, unit)
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return f"all {x.size} values are equal: their spread cannot be estimated"
    return None

"""The gap at the same learning rate, for every rate at which both models train: intervals, band, interaction."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats.estimate import Estimate, Frozen
from analysis.stats.paired import flip_test, t_interval

EXACT = 12
"""Up to this many seeds all flips of sign are enumerated, 2¹¹ without mirror images; with more they are drawn."""

DRAWS = 9999
"""Flips drawn where they are not enumerated."""


class AtRate(Frozen):
    """The gap at one learning rate. `adjusted_p` is Holm's, over all baselines and learning rates."""

    learning_rate: float
    """Learning rate of both models."""
    candidate_trained: int
    """The candidate's runs that trained ..."""
    candidate_ended: int
    """Runs with an outcome: trained, or diverged or collapsed."""
    baseline_trained: int
    """The baseline's runs that trained ..."""
    baseline_ended: int
    """... of these with an outcome."""
    gap: Estimate
    """Mean of the paired differences, t interval for this rate alone."""
    sign_flip: Estimate
    """Exact test, not adjusted."""
    band: Estimate
    """The interval of the simultaneous band: all rates' together hold at its level."""
    adjusted_p: float | None = None
    """Of the exact test, by Holm over all baselines and learning rates; null where no test was made."""


class Sweep(Frozen):
    """The gap across learning rates."""

    rates: tuple[AtRate, ...]
    """Every rate planned for both models, ascending."""
    critical: float | None
    """Half-width of the band in standard errors; null where the band is declined."""
    interaction: Estimate
    """Hotelling's T² test that the gap is the same at every rate."""


def across_rates(
    rates: ArrayLike,
    right_candidate: ArrayLike,
    right_baseline: ArrayLike,
    trained_candidate: ArrayLike,
    trained_baseline: ArrayLike,
    n_digits: int,
    *,
    level: float,
    planned: int,
    seed: int,
    ended_candidate: ArrayLike | None = None,
    ended_baseline: ArrayLike | None = None,
    family: int = 1,
    rests_on: Callable[[str, NDArray[np.bool_]], str] = lambda what, cells: None,
) -> Sweep:
    """The gap at each of `rates` [rate] from counts of right digits, integer [seed, rate], of both models.

    `trained` says which runs trained, `ended` which have an outcome at all (default: every one); both bool
    [seed, rate]. Rows are the same seeds in all arrays; a pair belongs to a rate where both its runs trained.
    `planned` is the number of pairs planned at each rate, `seed` that of the flips drawn for the band. `family` is
    Holm's m: a test warns where no result could be rejected first among so many. `rests_on` notes
    the pairs, bool [seed, rate], behind a number, and gives their key.
    """
    counts = [np.asarray(a) for a in (right_candidate, right_baseline)]
    trained = [np.asarray(a, bool) for a in (trained_candidate, trained_baseline)]
    ended = [
        np.ones_like(t) if e is None else np.asarray(e, bool)
        for e, t in zip((ended_candidate, ended_baseline), trained, strict=True)
    ]
    rates = np.asarray(rates, float)
    shape = counts[0].shape
    if len(shape) != 2 or shape[1] != rates.size or any(a.shape != shape for a in (*counts, *trained, *ended)):
        raise ValueError(f"expected arrays [seed, rate] of one shape with {rates.size} rates, found {shape}")
    k = np.subtract(*(a.astype(np.int64) for a in counts))
    both = trained[0] & trained[1]
    n_trained, n_ended = [t.sum(0) for t in trained], [(e | t).sum(0) for e, t in zip(ended, trained, strict=True)]
    reasons = [_no_inference(*(a[r] for a in (*n_trained, *n_ended))) for r in range(rates.size)]
    about = dict(planned=planned, unit="pairs of runs", population="seeds")
    columns = np.eye(rates.size, dtype=bool)
    each = [about | dict(runs=rests_on(f" at {float(rates[r])!r}", both & columns[r])) for r in range(rates.size)]
    kept = np.array([reason is None for reason in reasons], bool)
    bands, critical = _bands(k, both & kept, n_digits, level, seed, each)
    complete = both[:, kept].all(1)
    interaction = about | dict(runs=rests_on(" at every rate", both & kept & complete[:, None]))
    found = []
    for r, (reason, here) in enumerate(zip(reasons, each, strict=True)):
        own = k[both[:, r], r]
        found.append(
            AtRate(
                learning_rate=float(rates[r]),
                candidate_trained=int(n_trained[0][r]),
                candidate_ended=int(n_ended[0][r]),
                baseline_trained=int(n_trained[1][r]),
                baseline_ended=int(n_ended[1][r]),
                gap=_gap(own / n_digits, reason, level, here),
                sign_flip=_sign_flip(own, reason, (1 - level) / family, here),
                band=bands[r],
            )
        )
    return Sweep(rates=tuple(found), critical=critical, interaction=_interaction(k[complete][:, kept], interaction))


def critical_value(residuals: NDArray, present: NDArray, level: float, flips: NDArray) -> float:
    """Quantile at `level` of the largest |t| over columns when rows of `residuals` [seed, rate] change sign by `flips`.

    Each flip keeps a seed's residuals together, and so their dependence across rates, and is studentised anew:
    t = mean / (SD / √n) over the cells `present` [seed, rate] of a column. inf where too many flips of too few
    seeds have no spread.
    """
    largest = largest_t(flips, residuals, present)
    # The smallest value that at least the share `level` of flips does not exceed.
    return float(np.sort(largest)[int(np.ceil(level * largest.size - 1e-9)) - 1])


def signs(n: int, seed: int) -> NDArray[np.float64]:
    """Flips of `n` signs, ±1 [flip, n]: all but mirror images for n ≤ EXACT, else DRAWS random ones and no flip."""
    if n <= EXACT:
        return np.array([(1, *rest) for rest in product((1, -1), repeat=n - 1)], float)
    drawn = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (DRAWS, n))
    return np.vstack([np.ones(n), drawn])


def largest_t(flips: NDArray, residuals: NDArray, present: NDArray) -> NDArray[np.float64]:
    """Largest |t| [flip] over the columns of `residuals` [seed, rate], 0 where not `present`; `flips` [flip, seed]."""
    n = present.sum(0)
    squares = (residuals**2).sum(0)  # the same under every flip
    means = flips @ residuals / n
    variance = np.maximum(squares - n * means**2, 0) / (n - 1)
    # Rounding leaves a spread of about 1e-16 where there is none.
    spread = variance > 1e-12 * squares / n
    t = np.where(means == 0, 0.0, np.inf) * np.ones_like(means)
    np.divide(np.abs(means), np.sqrt(variance / n), out=t, where=spread)
    return t.max(1)


def _no_inference(trained_c: int, trained_b: int, ended_c: int, ended_b: int) -> str | None:
    """Why a rate has no gap: half or more of either model's runs that ended did not train."""
    for name, trained, ended in (("candidate", trained_c, ended_c), ("baseline", trained_b, ended_b)):
        if ended == 0:
            return f"no run of the {name} has ended"
        if 2 * trained <= ended:
            return f"{ended - trained} of {ended} runs of the {name} did not train"
    return None


def _gap(d: NDArray, reason: str | None, level: float, about: dict) -> Estimate:
    if reason:
        return Estimate(method="mean of paired differences", declined=reason, n=d.size, **about)
    rest = {key: value for key, value in about.items() if key != "planned"}
    return t_interval(d, level, n_planned=about["planned"], **rest)


def _sign_flip(k: NDArray, reason: str | None, alpha: float, about: dict) -> Estimate:
    about = about | dict(n=k.size)
    if reason:
        return Estimate(method="exact sign-flip test of the mean difference, two-sided", declined=reason, **about)
    return flip_test(k, alpha, about)


def _bands(
    k: NDArray, both: NDArray, n_digits: int, level: float, seed: int, each: list[dict]
) -> tuple[list[Estimate], float | None]:
    """The band at every rate, declined where no pair or no spread stands behind it, and its critical value."""
    n = both.sum(0)
    mean = np.where(both, k, 0).sum(0) / np.maximum(n, 1)
    residuals = np.where(both, k - mean, 0.0)
    # Two residuals are equal up to sign: half of their flips have no spread, which would spoil the band of all rates.
    varies = np.array([n[r] > 2 and np.ptp(k[both[:, r], r]) > 0 for r in range(k.shape[1])], bool)
    exact = both[:, varies].any(1).sum() <= EXACT
    how = "all sign flips of whole seeds" if exact else f"{DRAWS:,} sign flips of whole seeds, drawn with seed {seed}"
    method = f"simultaneous band over {varies.sum()} learning rates: largest |t| over {how}"
    critical = None
    if varies.any():
        some = both[:, varies].any(1)
        cells = np.ix_(some, varies)
        critical = critical_value(residuals[cells], both[cells], level, signs(int(some.sum()), seed))
    bands = []
    for r in range(k.shape[1]):
        own = each[r] | dict(n=int(n[r]), method=method)
        center = float(mean[r] / n_digits) if n[r] else None
        if not varies[r]:
            reason = "the rate has no gap inference, fewer than 3 pairs, or pairs without spread"
            bands.append(Estimate(estimate=center, declined=reason, **own))
        elif not np.isfinite(critical):
            reason = "so few seeds have flips without any spread: the band would be infinitely wide"
            bands.append(Estimate(estimate=center, declined=reason, **own))
        else:
            half = critical * np.sqrt((residuals[:, r] ** 2).sum() / (n[r] - 1) / n[r]) / n_digits
            low, high = max(-1.0, center - half), min(1.0, center + half)
            bands.append(Estimate(estimate=center, low=low, high=high, level=level, **own))
    return bands, critical if critical is not None and np.isfinite(critical) else None


def _interaction(k: NDArray, about: dict) -> Estimate:
    """Hotelling's T²: the mean contrasts of each rate with the first are all 0, over seeds complete at all rates."""
    contrasts = k[:, 1:] - k[:, :1]
    n, m = contrasts.shape
    about = about | dict(n=n, unit="seeds with pairs at every rate")
    method = f"Hotelling's T² over {m} contrasts of learning rates within seeds"
    reason = None
    if m < 1:
        reason = "an interaction needs two or more learning rates at which both models train"
    elif n <= m:
        reason = f"n = {n} seeds are too few for {m} contrasts: it needs more seeds than contrasts"
    elif np.linalg.matrix_rank(contrasts - contrasts.mean(0)) < m:
        reason = "the contrasts have no spread in some direction, so their covariance cannot be inverted"
    if reason:
        return Estimate(method=method, declined=reason, **about)
    method += f", F with {m} and {n - m} degrees of freedom"
    mean = contrasts.mean(0)
    # statsmodels' test_mvmean gives the same, but not for a single contrast.
    t_squared = n * mean @ np.linalg.solve(np.cov(contrasts, rowvar=False).reshape(m, m), mean)
    p_value = float(stats.f.sf(t_squared * (n - m) / (m * (n - 1)), m, n - m))
    return Estimate(p_value=p_value, method=method, **about)

"""The gap at the same learning rate, for every rate at which both models learn: intervals, band, interaction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.grid import Grid
from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.paired import flip_test, t_interval

EXACT = 12
"""Up to this many seeds all flips of sign are enumerated, 2¹¹ without mirror images; with more they are drawn."""

DRAWS = 9999
"""Flips drawn where they are not enumerated."""


class AtRate(Frozen):
    """The gap at one learning rate. `adjusted_p` is Holm's, over all baselines and learning rates."""

    learning_rate: float
    """Learning rate of both models."""
    candidate_learned: int
    """The candidate's runs that learned ..."""
    candidate_ended: int
    """... of these with an outcome: learned, or diverged or collapsed."""
    baseline_learned: int
    """The baseline's runs that learned ..."""
    baseline_ended: int
    """... of these with an outcome."""
    gap: Estimate
    """Mean of the paired differences, t interval for this rate alone."""
    sign_flip: Estimate
    """Exact test, not adjusted."""
    band: Estimate
    """The interval of the simultaneous band, no narrower than that of `gap`: all rates' together hold at its level."""
    adjusted_p: float | None = None
    """Of the exact test, by Holm over all baselines and learning rates; null where no test was made."""


class Sweep(Frozen):
    """The gap across learning rates."""

    rates: tuple[AtRate, ...]
    """Every rate planned for both models, ascending."""
    critical: float | None
    """Half-width of the band in standard errors, where that of a rate's t interval is no larger; null where the band
    is declined."""
    interaction: Estimate
    """Hotelling's T² test that the gap is the same at every rate."""


def common_rates(candidate: Grid, baseline: Grid) -> NDArray[np.int64]:
    """Positions of the learning rates that were planned for both models."""
    return np.flatnonzero(candidate.planned.any(axis=1) & baseline.planned.any(axis=1))


def across_rates(candidate: Grid, baseline: Grid, n_images: int, *, level: float, seed: int, family: int = 1) -> Sweep:
    """The gap at each learning rate that was planned for both models, from their counts of right test images.

    `seed` is that of the flips drawn for the band. `family` is Holm's m: a test warns where no result could be
    rejected first among this many.
    """
    rows = common_rates(candidate, baseline)
    both = candidate.learned & baseline.learned
    k = candidate.right - baseline.right
    reasons = {r: _no_inference(candidate, baseline, r) for r in rows}
    kept = [r for r in rows if reasons[r] is None]
    bases = [_basis(candidate, baseline, [r], both[r]) for r in rows]
    inferred = both[rows] & np.isin(rows, kept)[:, None]
    bands, critical = _bands(k[rows].T, inferred.T, n_images, level, seed, bases)
    found = []
    for r, basis, band in zip(rows, bases, bands, strict=True):
        own = k[r][both[r]]
        found.append(
            AtRate(
                learning_rate=float(candidate.rates[r]),
                candidate_learned=int(candidate.learned[r].sum()),
                candidate_ended=int(candidate.ended[r].sum()),
                baseline_learned=int(baseline.learned[r].sum()),
                baseline_ended=int(baseline.ended[r].sum()),
                gap=_gap(own / n_images, reasons[r], level, basis),
                sign_flip=_sign_flip(own, reasons[r], (1 - level) / family, basis),
                band=band,
            )
        )
    complete = np.asarray(both[kept].all(axis=0))
    planned = max((basis.planned for basis in bases), default=0)
    basis = _basis(candidate, baseline, kept, complete).changed(planned=planned)
    interaction = _interaction(k[kept][:, complete].T, basis)
    return Sweep(rates=tuple(found), critical=critical, interaction=interaction)


def _basis(candidate: Grid, baseline: Grid, rows: Sequence[int], seeds: NDArray) -> Basis:
    """Of a number from the pairs of these `seeds` (bool) at these rates: the candidate's runs, then the baseline's."""
    planned = (candidate.planned & baseline.planned)[rows].sum(axis=1).max(initial=0)
    runs = [grid.run_ids[rows][:, seeds].T.ravel() for grid in (candidate, baseline)]
    return Basis(
        method="mean of paired differences",
        n=int(np.count_nonzero(seeds)),
        planned=int(planned),
        unit="pairs of runs",
        population="seeds",
        runs=tuple(map(str, np.concatenate(runs))),
    )


def critical_value(residuals: NDArray, present: NDArray, level: float, flips: NDArray) -> float:
    """Quantile at `level` of the largest |t| over columns when rows of `residuals` [seed, rate] change sign by `flips`.

    Each flip keeps a seed's residuals together, and so their dependence across rates, and is studentised anew:
    t = mean / (SD / √n) over the cells `present` [seed, rate] of a column. inf where too many flips of too few
    seeds have no spread.
    """
    largest = largest_t(flips, residuals, present)
    # The smallest value that at least the share `level` of flips does not exceed.
    return float(np.sort(largest)[int(np.ceil(level * largest.size - 1e-9)) - 1])


def half_width(critical: float, n: int, level: float) -> float:
    """Of the band at a rate of `n` pairs, in standard errors: never less than that of the t interval for it alone.

    What holds at all rates at once holds at each, and of few pairs t has the larger quantile.
    """
    return max(critical, float(stats.t.ppf((1 + level) / 2, n - 1)))


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


def _no_inference(candidate: Grid, baseline: Grid, row: int) -> str | None:
    """Why a rate has no gap: half or more of either model's runs that ended did not learn."""
    for name, grid in (("candidate", candidate), ("baseline", baseline)):
        learned, ended = int(grid.learned[row].sum()), int(grid.ended[row].sum())
        if ended == 0:
            return f"no run of the {name} has ended"
        if 2 * learned <= ended:
            return f"{ended - learned} of {ended} runs of the {name} did not learn"
    return None


def _gap(d: NDArray, reason: str | None, level: float, basis: Basis) -> Estimate:
    return basis.declines(reason) if reason else t_interval(d, level, basis)


def _sign_flip(k: NDArray, reason: str | None, alpha: float, basis: Basis) -> Estimate:
    if reason:
        return basis.changed(method="exact sign-flip test of the mean difference, two-sided").declines(reason)
    return flip_test(k, alpha, basis)


def _bands(
    k: NDArray, both: NDArray, n_images: int, level: float, seed: int, bases: Sequence[Basis]
) -> tuple[list[Estimate], float | None]:
    """The band at every rate, declined where no pair or no spread stands behind it, and its critical value.

    `k` [seed, rate] are differences of counts, `both` says which of them enter; one basis a rate.
    """
    n = both.sum(0)
    mean = np.where(both, k, 0).sum(0) / np.maximum(n, 1)
    residuals = np.where(both, k - mean, 0.0)
    # Two residuals are equal up to sign: half of their flips have no spread, which would spoil the band of all rates.
    varies = np.array([n[r] > 2 and np.ptp(k[both[:, r], r]) > 0 for r in range(k.shape[1])], bool)
    some = both[:, varies].any(1)
    exact = some.sum() <= EXACT
    how = "all sign flips of whole seeds" if exact else f"{DRAWS:,} sign flips of whole seeds, drawn with seed {seed}"
    method = f"simultaneous band over {varies.sum()} learning rates: largest |t| over {how}"
    critical = np.inf
    if varies.any():
        cells = np.ix_(some, varies)
        critical = critical_value(residuals[cells], both[cells], level, signs(int(some.sum()), seed))

    bands = []
    for r, basis in enumerate(bases):
        basis = basis.changed(n=int(n[r]), method=method)
        center = float(mean[r] / n_images) if n[r] else None
        if not varies[r]:
            reason = "the rate has no gap inference, fewer than 3 pairs, or pairs without spread"
            bands.append(basis.declines(reason, center))
        elif not np.isfinite(critical):
            reason = "so few seeds have flips without any spread: the band would be infinitely wide"
            bands.append(basis.declines(reason, center))
        else:
            half = (
                half_width(critical, n[r], level) * np.sqrt((residuals[:, r] ** 2).sum() / (n[r] - 1) / n[r]) / n_images
            )
            bands.append(basis.gives(center, max(-1.0, center - half), min(1.0, center + half), level))
    return bands, critical if np.isfinite(critical) else None


def _interaction(k: NDArray, basis: Basis) -> Estimate:
    """Hotelling's T²: the mean contrasts of each rate with the first are all 0; `k` [seed complete at all, rate]."""
    contrasts = k[:, 1:] - k[:, :1]
    n, m = contrasts.shape
    method = f"Hotelling's T² over {m} contrasts of learning rates within seeds"
    basis = basis.changed(method=method, n=n, unit="seeds with pairs at every rate")
    if m < 1:
        return basis.declines("an interaction needs two or more learning rates at which both models learn")
    if n <= m:
        return basis.declines(f"n = {n} seeds are too few for {m} contrasts: it needs more seeds than contrasts")
    mean = contrasts.mean(0)
    if np.linalg.matrix_rank(contrasts - mean) < m:
        return basis.declines("the contrasts have no spread in some direction, so their covariance cannot be inverted")
    # statsmodels' test_mvmean gives the same, but not for a single contrast.
    t_squared = n * mean @ np.linalg.solve(np.cov(contrasts, rowvar=False).reshape(m, m), mean)
    p_value = float(stats.f.sf(t_squared * (n - m) / (m * (n - 1)), m, n - m))
    return basis.changed(method=f"{method}, F with {m} and {n - m} degrees of freedom").gives(p_value=p_value)

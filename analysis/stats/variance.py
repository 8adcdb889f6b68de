"""The spread over seeds: what is this test set's luck, and what initial weights, order and split add; the A/A test."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.paired import sign_flip, spread_unknown

FACTORS = ("init", "order", "split")
INCLUDES = "including nondeterminism"

Effect = tuple[int, ...]
"""The axes of the factors that an effect is of: (0, 1) is init × order."""


class Component(Frozen):
    """One component of the variance of a run's accuracy."""

    effect: str
    """The factors it is of."""
    variance: Estimate
    """0 where it came out negative."""
    raw: float | None
    """Not truncated; null where it is declined."""
    share: float | None
    """Of the sum of all components, negative ones as 0."""


class Variance(Frozen):
    """Components of variance of one model, all seeds crossed."""

    levels: Mapping[str, int]
    """Factor → its number of seeds."""
    components: tuple[Component, ...]
    """Main effects first, the highest interaction last."""
    standard_deviation: float | None
    """Of a run with all its seeds drawn anew: the root of the sum of the components."""


class SelfComparison(Frozen):
    """The genuine A/A test: one model against itself under two init seeds, paired over order seeds.

    The tests share runs, so they are not independent. Two init seeds may truly differ: more rejections than
    1 − level say that initial weights matter beyond the batch order, as their component does.
    """

    gaps: tuple[float, ...]
    """Mean differences in accuracy, one per pair of init seeds and split seed."""
    sign_flip: tuple[float, ...]
    """p-value of the exact sign-flip test of each gap, in the same order."""
    paired_t: tuple[float | None, ...]
    """p-value of the paired t test; null where the differences have no spread."""
    smallest_p: float | None
    """The smallest p-value that the sign-flip test can give with this many pairs."""
    rejected: Estimate
    """Share of paired t tests with p below 1 − level."""


class SeedSpread(Frozen):
    """How far one model's accuracy spreads over seeds, and how much of that is the luck of these test images.

    Jordan (2023, arXiv 2304.01910): single test images flip between trainings, so accuracies on a finite test set
    spread even where the networks are equally good on all images of the kind.
    """

    on_test_set: Estimate
    """SD over seeds of the accuracy on these test images."""
    distribution_wise: Estimate
    """SD over seeds of the accuracy on all images of the kind; 0 where its variance came out negative."""
    raw: float | None
    """The variance that `distribution_wise` is the root of, not truncated; null where it is declined."""
    share: float | None
    """Of the variance on these test images, what is distribution-wise, from 0 to 1."""


def effects(shape: tuple[int, ...]) -> list[Effect]:
    """All effects of the factors with two or more levels, main effects first, the highest interaction last."""
    axes = [a for a, n in enumerate(shape) if n > 1]
    return [e for size in range(1, len(axes) + 1) for e in combinations(axes, size)]


def mean_squares(y: NDArray) -> dict[Effect, float]:
    """Mean squares of every effect in `y`, a balanced factorial without replication; one axis a factor."""
    found = {}
    for effect in effects(y.shape):
        # The effect's term: the means over all other factors, less every effect that it contains.
        term = y
        for a in range(y.ndim):
            mean = term.mean(axis=a, keepdims=True)
            term = term - mean if a in effect else mean
        found[effect] = _runs_per_level(effect, y.shape) * (term**2).sum() / _freedom(effect, y.shape)
    return found


def components(
    squares: Mapping[Effect, NDArray | float], shape: tuple[float, ...]
) -> dict[Effect, NDArray[np.float64]]:
    """Components of variance [...] from the mean squares [...] of all effects: ANOVA estimators, not truncated.

    All factors are random. E(MS of e) = Σ over effects f ⊇ e of σ²_f × the number of runs per level of f (Searle,
    Casella and McCulloch 1992, section 4.5); solved from the highest interaction down.
    """
    found: dict[Effect, NDArray] = {}
    for effect in reversed(list(squares)):
        above = sum(_runs_per_level(f, shape) * value for f, value in found.items() if set(effect) < set(f))
        found[effect] = np.asarray((squares[effect] - above) / _runs_per_level(effect, shape))
    return {effect: found[effect] for effect in squares}


def resample(
    squares: Mapping[Effect, float], shape: tuple[float, ...], resamples: int, seed: int
) -> dict[Effect, NDArray]:
    """Components [resample] for mean squares MS · df / χ²: a parametric bootstrap of the pivot SS / E(MS) ~ χ².

    Its percentiles are generalised confidence limits (Weerahandi 1993), for the highest interaction the classical
    ones. Drawing levels of 5 seeds again would instead give percentiles far too low.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for effect, value in squares.items():
        df = _freedom(effect, shape)
        drawn[effect] = value * df / rng.chisquare(df, resamples)
    return components(drawn, shape)


def variance(accuracy: ArrayLike, basis: Basis, *, level: float, resamples: int, seed: int) -> Variance:
    """Components of variance of `accuracy` [init, order, split], NaN where a run has none or did not learn.

    Declined, all of it, where a cell is missing: the estimators need a balanced design. Intervals: see `resample`.
    """
    y = np.asarray(accuracy, float)
    if y.ndim != len(FACTORS):
        raise ValueError(f"expected an array [init, order, split], found shape {y.shape}")
    levels = dict(zip(FACTORS, y.shape, strict=True))
    known = int(np.isfinite(y).sum())
    method = "analysis of variance of a balanced factorial, all factors random"
    basis = basis.changed(method=method, n=known, planned=y.size, unit="runs", population="seeds")
    all_effects = effects(y.shape)
    names = {e: " × ".join(FACTORS[a] for a in e) for e in all_effects}
    if all_effects:
        names[all_effects[-1]] += f", {INCLUDES}"
    reason: str | None
    if known < y.size:
        reason = f"{y.size - known} of {y.size} runs have no accuracy, and the components need every one"
    else:
        reason = spread_unknown(y) if y.size > 1 else "one run has no spread"
    if reason:
        empty = basis.declines(reason)
        declined = tuple(Component(effect=n, variance=empty, raw=None, share=None) for n in names.values())
        return Variance(levels=levels, components=declined, standard_deviation=None)
    squares = mean_squares(y)
    raw = {e: float(v) for e, v in components(squares, y.shape).items()}
    drawn = resample(squares, y.shape, resamples, seed)
    total = sum(max(v, 0.0) for v in raw.values())
    basis = basis.changed(
        method=f"{method}; interval: parametric bootstrap of the mean squares, {resamples:,} resamples, seed {seed}"
    )
    return Variance(
        levels=levels,
        components=tuple(
            Component(
                effect=names[e],
                variance=_interval(max(v, 0.0), drawn[e], level, basis),
                raw=v,
                share=max(v, 0.0) / total,
            )
            for e, v in raw.items()
        ),
        standard_deviation=float(np.sqrt(total)),
    )


def seed_spread(
    correct: ArrayLike,
    basis: Basis,
    *,
    level: float,
    resamples: int,
    seed: int,
    clusters: NDArray[np.int64] | None = None,
) -> SeedSpread:
    """The spread over seeds of `correct`, bool [seed, image]: of accuracy on these images, and on all of the kind.

    Jordan's unbiased estimator of the distribution-wise variance, m / (m − 1) · (s² − Σ sᵢ² / n²) over n images: s² is
    the variance over seeds of the accuracy, sᵢ² that of image i being right, and m = n. With the `clusters` [image] in
    which images come, numbered from 0 without a gap, sᵢ² is that of the number right in cluster i, and m = n² / Σ nᵢ²:
    the covariance over all pairs of images of different clusters. It is the component of seeds in a crossed analysis of
    variance, of clusters of equal size, and its interval comes like that of any component from `resample`. `level`,
    `resamples` and `seed` are those of the interval. Raises ValueError for another shape.
    """
    x = np.asarray(correct, float)
    if x.ndim != 2:
        raise ValueError(f"expected an array [seed, image], found shape {x.shape}")
    seeds, n = x.shape
    basis = basis.changed(n=seeds, unit="runs", population="seeds", method="SD of test accuracy over seeds")
    own = np.arange(n) if clusters is None else clusters
    drawn = "taken to be independent" if clusters is None else f"in {np.unique(own).size:,} clusters"
    general = basis.changed(
        method=f"distribution-wise SD over seeds (Jordan 2023), test images {drawn}; interval: "
        f"parametric bootstrap of the mean squares, {resamples:,} resamples, seed {seed}",
        population="seeds and test images",
    )
    accuracy = x.mean(axis=1) if n else np.zeros(seeds)
    lone = ("one test image" if clusters is None else "one cluster of test images") if np.unique(own).size < 2 else None
    if reason := spread_unknown(accuracy, "runs") or lone:
        return SeedSpread(
            on_test_set=basis.declines(reason), distribution_wise=general.declines(reason), raw=None, share=None
        )
    sums = x if clusters is None else cluster_sums(x, clusters)
    m = float(n**2 / (np.bincount(own).astype(float) ** 2).sum())
    here, within = float(accuracy.var(ddof=1)), float(sums.var(axis=0, ddof=1).sum()) / n**2
    raw = m / (m - 1) * (here - within)
    # Mean squares of seeds and of the residual; those of images do not enter the component of seeds.
    squares = {(0,): m * here, (1,): 0.0, (0, 1): (m**2 * within - m * here) / (m - 1)}
    resampled = resample(squares, (seeds, m), resamples, seed)[(0,)]
    found = _interval(max(raw, 0.0), resampled, level, general)
    if found.interval:
        low, high = map(float, np.sqrt(found.interval))
        found = general.gives(float(np.sqrt(max(raw, 0.0))), low, high, level)
    tails = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], seeds - 1)
    here_low, here_high = map(float, np.sqrt((seeds - 1) * here / tails))
    return SeedSpread(
        on_test_set=basis.changed(method=f"{basis.method}, χ² interval").gives(
            float(np.sqrt(here)), here_low, here_high, level
        ),
        distribution_wise=found,
        raw=raw,
        share=float(np.clip(raw / here, 0, 1)),
    )


def against_itself(
    right: ArrayLike, learned: ArrayLike, n_images: int, basis: Basis, *, level: float
) -> SelfComparison:
    """The A/A test from counts of right test images, integer [init, order, split]; `learned` bool, the same shape."""
    right, learned = np.asarray(right).astype(np.int64), np.asarray(learned, bool)
    if right.ndim != len(FACTORS) or right.shape != learned.shape:
        raise ValueError(f"expected two arrays [init, order, split], found {right.shape} and {learned.shape}")
    differences = [
        (right[i, :, split] - right[j, :, split])[learned[i, :, split] & learned[j, :, split]]
        for split in range(right.shape[2])
        for i, j in combinations(range(right.shape[0]), 2)
    ]
    known = [k for k in differences if k.size > 1]
    flips = [sign_flip(k) for k in known]
    t = [None if spread_unknown(k) else float(stats.ttest_1samp(k, 0).pvalue) for k in known]
    done = [p for p in t if p is not None]
    basis = basis.changed(
        method=f"share of paired t tests of a model against itself with p below {1 - level:.3g}",
        n=len(done),
        planned=len(differences),
        unit="tests",
    )
    if done:
        share = float(np.mean(np.array(done) < 1 - level))
        rejected = basis.gives(share, warning="the tests share runs, so there is no interval")
    else:
        rejected = basis.declines("it needs two init seeds, and two order seeds at which both learned")
    return SelfComparison(
        gaps=tuple(float(k.mean() / n_images) for k in known),
        sign_flip=tuple(p for p, _ in flips),
        paired_t=tuple(t),
        smallest_p=min((smallest for _, smallest in flips), default=None),
        rejected=rejected,
    )


def cluster_sums(x: NDArray, clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of `x` [S, n] over the images of each cluster: [S, G], for clusters numbered from 0 without a gap."""
    return np.stack([np.bincount(clusters, row, minlength=clusters.max() + 1) for row in x.astype(float)])


def _runs_per_level(effect: Effect, shape: tuple[float, ...]) -> float:
    return prod(n for a, n in enumerate(shape) if a not in effect)


def _freedom(effect: Effect, shape: tuple[float, ...]) -> float:
    return prod(shape[a] - 1 for a in effect)


def _interval(value: float, drawn: NDArray, level: float, basis: Basis) -> Estimate:
    low, high = np.maximum(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]), 0.0)
    if not low < high:
        return basis.declines("no interval: all but a few resamples are negative", value)
    return basis.gives(value, low, high, level)

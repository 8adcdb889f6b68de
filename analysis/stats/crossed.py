"""Seeds × test images: the gap on new images of the same kind, by class, and the images that one model alone gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats import variance
from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.variance import cluster_sums

BLOCK = 1000
"""Resamples drawn at once: 1,000 × 10,000 float32 counts are 40 MB."""

WIDER = (
    "the interval over seeds alone, which came out wider than the one over seeds and test images, as it may by chance"
)


Parts = tuple[float, float, float]
"""Of seeds, of test images or their clusters, and within both."""


class Component(Frozen):
    """A component of variance: the estimate, 0 where it came out negative, and the raw number."""

    name: str
    """Of seeds, test images, or seeds × test images with the residual."""
    variance: Estimate
    """0 where it came out negative."""
    raw: float
    """Not truncated."""


class Crossed(Frozen):
    """The gap over seeds and test images, and where its uncertainty comes from."""

    gap: Estimate
    """Mean difference, two-way crossed closed form."""
    bootstrap: Estimate
    """The crossed (pigeonhole) bootstrap as a check, conservative (Owen 2007); over clusters where they are known. For
    networks it is also called the Multi-Bootstrap (Sellam et al. 2022)."""
    components: tuple[Component, ...]
    """Of one network's gap on one image: seeds, test images, and their interaction with the residual."""
    image_share: float | None
    """Share of the squared standard error that more seeds cannot remove."""
    halves: tuple[Estimate, ...]
    """The gap on the first and on the second half of the test file, which may come from different sources."""


class ClassGap(Frozen):
    """The gap on the test images of one class. `adjusted_p` is Holm's, over all baselines and classes."""

    label: int
    """The class."""
    n_images: int
    """Its test images."""
    candidate_accuracy: float
    """Mean over the pairs' runs, a fraction."""
    baseline_accuracy: float
    """Mean over the pairs' runs, a fraction."""
    gap: Estimate
    """Mean paired difference on its images."""
    adjusted_p: float | None = None
    """By Holm over all baselines and classes; null where no test was made."""


class HardImages(Frozen):
    """Positions in the test file."""

    baseline_alone_wrong: tuple[int, ...]
    """Images that every seed of the baseline gets wrong and every seed of the candidate right ..."""
    candidate_alone_wrong: tuple[int, ...]
    """... and the other way round."""
    both_wrong: tuple[int, ...]
    """Images that no seed of either gets right."""
    rests_on: Basis
    """The pairs whose predictions agree."""


def mean_squares(x: NDArray) -> tuple[float, float, float]:
    """Mean squares of seeds, test images and residual of `x` [S, n]: two-way crossed ANOVA without replication."""
    squares = variance.mean_squares(x)
    return squares[0,], squares[1,], squares[0, 1]


def crossed(
    candidate: ArrayLike,
    baseline: ArrayLike,
    basis: Basis,
    *,
    level: float,
    resamples: int,
    seed: int,
    clusters: NDArray[np.int64] | None = None,
) -> Crossed:
    """The gap over seeds and images from who got which image right: bool [S, n], row s of both the same seed.

    `clusters` [n] numbers the images that belong together; without it they are taken as independent.
    """
    x = difference(candidate, baseline)
    seeds, images = x.shape
    half = images // 2
    basis = basis.changed(n=seeds, population="seeds and test images")
    components: tuple[Component, ...] = ()
    share = None
    if seeds > 1 and images > 1:
        ms_s, ms_i, ms_r = mean_squares(x)
        raw = {
            "seeds": (ms_s - ms_r) / images,
            "test images": (ms_i - ms_r) / seeds,
            "seeds × test images, residual": ms_r,
        }
        each = basis.changed(
            method="component of the two-way crossed analysis of variance, 0 where it came out negative"
        )
        components = tuple(
            Component(name=name, variance=each.gives(max(value, 0.0)), raw=value) for name, value in raw.items()
        )
    if error_of(x, clusters):
        error = Error.of(x, clusters)
        share = min(1.0, max(error.images, 0.0) / error.squared(seeds)) if error.squared(seeds) > 0 else None
    return Crossed(
        gap=gap_over_images(x, level, basis, clusters),
        bootstrap=bootstrap(x, level, resamples, seed, basis, clusters),
        components=components,
        image_share=share,
        halves=tuple(
            gap_over_images(x[:, part], level, basis, _part(clusters, part), where=f", {name} half of the test file")
            for part, name in ((slice(half), "first"), (slice(half, None), "second"))
        ),
    )


def error_from(squares: tuple[float, float, float], seeds: int, images: int) -> tuple[float, float]:
    """Standard error and degrees of freedom from the mean squares of seeds, images and residual.

    SE² = max(MS_s + MS_i − MS_r, MS_s, MS_i) / (S n); Satterthwaite's degrees of freedom for the sum. No component
    is truncated inside it.
    """
    parts = [ms / (seeds * images) for ms in squares]
    return _combined(parts, (seeds - 1, images - 1, (seeds - 1) * (images - 1)))


def clustered_error(x: NDArray, clusters: NDArray[np.int64]) -> tuple[float, float]:
    """Standard error of the mean of `x` [S, n], clustered by seeds and by `clusters` [n], and its degrees of freedom.

    Cameron, Gelbach and Miller (2011): with e = x − mean, summed over each seed (A), each cluster (B) and each cluster
    within a seed (C), SE² = (S/(S−1) Σ A² + G/(G−1) Σ B² − SG/(SG−1) Σ C²) / (S n)², never below either one-way part.
    Degrees of freedom by Satterthwaite over the three parts, G counted as `effective` clusters.
    """
    return _combined(*_clustered_parts(x, clusters))


def _clustered_parts(x: NDArray, clusters: NDArray[np.int64]) -> tuple[Parts, Parts]:
    """The three parts of the clustered variance of the mean, the last to be taken off, and their degrees of freedom."""
    seeds = len(x)
    cells = cluster_sums(x - x.mean(), clusters)
    g = cells.shape[1]
    squares = [(cells.sum(1) ** 2).sum(), (cells.sum(0) ** 2).sum(), (cells**2).sum()]
    counts = (seeds, g, seeds * g)
    over_seeds, over_clusters, within = (
        n / (n - 1) * float(s) / x.size**2 for n, s in zip(counts, squares, strict=True)
    )
    more = effective(np.bincount(clusters)) - 1
    return (over_seeds, over_clusters, within), (seeds - 1, more, (seeds - 1) * more)


def effective(sizes: NDArray[np.int64]) -> float:
    """How many clusters of equal size clusters of these sizes are worth, if an image shares all with its cluster.

    (Σ n²)² / Σ n⁴: the degrees of freedom of a sum of squares whose terms have variances as n² (Satterthwaite; Carter,
    Schnepel and Steigerwald 2017). Never fewer than two are counted.
    """
    squares = sizes[sizes > 0].astype(float) ** 2
    return max(2.0, float(squares.sum() ** 2 / (squares**2).sum()))


def _combined(parts: Sequence[float], freedom: Sequence[float]) -> tuple[float, float]:
    """Standard error from the variances over seeds, over images and within both, which is taken off, and its df."""
    total = parts[0] + parts[1] - parts[2]
    squared = max(total, parts[0], parts[1])
    df: float
    if squared > total:
        df = freedom[0] if parts[0] >= parts[1] else freedom[1]
    else:
        terms = sum(part**2 / f for part, f in zip(parts, freedom, strict=True))
        df = max(1.0, total**2 / terms) if terms else 1.0
    return float(np.sqrt(squared)), float(df)


@dataclass(frozen=True)
class Error:
    """The standard error over seeds and test images as it depends on the number of seeds, from what was seen."""

    parts: Parts
    """At the study's own number of seeds: over seeds, over images or their clusters, and within both."""
    seeds: int
    """That number."""
    freedom: float
    """Degrees of freedom of the part over images."""
    clustered: bool

    @classmethod
    def of(cls, x: NDArray, clusters: NDArray[np.int64] | None) -> Error:
        """From the differences `x` [S, n], two or more of each, and the clusters of the images [n] where known."""
        if clusters is None:
            seeds, images, within = (ms / x.size for ms in mean_squares(x))
            return cls((seeds, images, within), len(x), x.shape[1] - 1, clustered=False)
        parts, freedom = _clustered_parts(x, clusters)
        return cls(parts, len(x), freedom[1], clustered=True)

    @property
    def images(self) -> float:
        """The squared error that no number of seeds removes; not truncated."""
        left = self.parts[1] - self.parts[2]
        return left * self.seeds / (self.seeds - 1) if self.clustered else left

    def at(self, seeds: int) -> tuple[float, float]:
        """Standard error and degrees of freedom expected with this many seeds; the study's own at its own number."""
        over_seeds, _, within = (part * self.seeds / seeds for part in self.parts)
        if self.clustered:
            # A cluster's sum over all seeds also varies as its sums within them do, which `within` counts once.
            images = max(0.0, self.images * (seeds - 1) / seeds + within)
        else:
            images = max(0.0, self.images + within)
        return _combined((over_seeds, images, within), (seeds - 1, self.freedom, (seeds - 1) * self.freedom))

    def squared(self, seeds: int) -> float:
        """The squared standard error with this many seeds."""
        return self.at(seeds)[0] ** 2


def _part(clusters: NDArray[np.int64] | None, part: slice | NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """The clusters of a part of the test images, numbered without a gap."""
    return None if clusters is None else np.unique(clusters[part], return_inverse=True)[1]


def error_of(x: NDArray, clusters: NDArray[np.int64] | None) -> tuple[float, float] | None:
    """Standard error of the mean of `x` [S, n] over seeds and images, and its degrees of freedom; None for too few."""
    if min(x.shape) < 2 or (clusters is not None and clusters.max() == 0):
        return None
    return error_from(mean_squares(x), *x.shape) if clusters is None else clustered_error(x, clusters)


def gap_over_images(
    x: NDArray, level: float, basis: Basis, clusters: NDArray[np.int64] | None = None, where: str = ""
) -> Estimate:
    """Mean of `x` [S, n] with the t interval over seeds and test images, or their clusters where these are known.

    With few seeds its degrees of freedom may exceed S − 1 by so much that it is narrower than the interval over
    seeds, which an interval that allows for more cannot truly be: that one is then given, and a warning says so.
    """
    seeds, images = x.shape
    if clusters is None:
        method = f"two-way crossed analysis of variance over {seeds} seeds and {images:,} test images, t{where}"
    else:
        groups = np.unique(clusters).size
        method = (
            f"standard error clustered by {seeds} seeds and {groups:,} clusters of {images:,} test images, t{where}"
        )
    basis = basis.changed(n=seeds, population="seeds and test images", method=method)
    mean = float(x.mean()) if x.size else None
    found = error_of(x, clusters)
    if found is None:
        what = "test images" if clusters is None or images < 2 else "clusters of test images"
        return basis.declines(f"an interval over seeds and test images needs two or more seeds and {what}", mean)
    error, df = found
    if error == 0:
        reason = "the means of all seeds are equal, and those of all test images: their spread cannot be estimated"
        return basis.declines(reason, mean)
    half = stats.t.ppf((1 + level) / 2, df) * error
    independent = "; images taken as independent, so probably too short" if clusters is None else ""
    basis = basis.changed(method=f"{method}, {df:.1f} degrees of freedom{independent}")
    over_seeds = float(stats.t.ppf((1 + level) / 2, seeds - 1) * stats.sem(x.mean(1)))
    half, warning = max((half, None), (over_seeds, WIDER), key=itemgetter(0))
    return basis.gives(mean, max(-1.0, mean - half), min(1.0, mean + half), level, warning=warning)


def p_value(x: NDArray, clusters: NDArray[np.int64] | None = None) -> float | None:
    """Two-sided p-value of the t test over seeds and test images that the mean of `x` [S, n] is 0."""
    found = error_of(x, clusters)
    if found is None or found[0] == 0:
        return None
    mean, over_seeds = abs(float(x.mean())), float(stats.sem(x.mean(1)))
    p = 2 * stats.t.sf(mean / found[0], found[1])
    # As the interval is never narrower than that over seeds, so p is never smaller.
    return float(max(p, 2 * stats.t.sf(mean / over_seeds, len(x) - 1)) if over_seeds else p)


def crossed_bootstrap(x: ArrayLike, resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of `x` [S, n] with seeds and test images drawn again independently, [resample] (pigeonhole bootstrap).

    The mean of a resample is w · x · v for the multiplicities w [S] and v [n] of its draws.
    """
    x = np.asarray(x, np.float32)
    seeds, images = x.shape
    draw_seeds, draw_images = np.random.default_rng(seed).spawn(2)
    means = []
    for start in range(0, resamples, BLOCK):
        n = min(BLOCK, resamples - start)
        w = draw_seeds.multinomial(seeds, np.full(seeds, 1 / seeds), size=n)
        drawn = draw_images.integers(0, images, (n, images), dtype=np.int32)
        drawn += (np.arange(n, dtype=np.int32) * images)[:, None]
        v = np.bincount(drawn.ravel(), minlength=n * images).reshape(n, images).astype(np.float32)
        means.append(((v @ x.T) * w).sum(1, dtype=np.float64) / (seeds * images))
    return np.concatenate(means)


def cluster_bootstrap(x: NDArray, clusters: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.float64]:
    """The same with whole clusters of images drawn again: a resample's mean is over the images that it holds."""
    sums, sizes = cluster_sums(x, clusters), np.bincount(clusters).astype(float)
    seeds, groups = sums.shape
    draw_seeds, draw_clusters = np.random.default_rng(seed).spawn(2)
    w = draw_seeds.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    v = draw_clusters.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(float)
    return ((v @ sums.T) * w).sum(1) / (seeds * (v @ sizes))


def bootstrap(
    x: NDArray, level: float, resamples: int, seed: int, basis: Basis, clusters: NDArray[np.int64] | None = None
) -> Estimate:
    """Percentile interval of the crossed bootstrap over seeds and images, or their clusters, as a check."""
    over = "" if clusters is None else " of seeds and clusters of test images"
    basis = basis.changed(
        role="check", method=f"crossed (pigeonhole) bootstrap{over}, percentile, {resamples:,} resamples, seed {seed}"
    )
    if min(x.shape) < 2 or (clusters is not None and clusters.max() == 0):
        return basis.declines("it needs two or more seeds and test images")
    if clusters is None:
        means = crossed_bootstrap(x, resamples, seed)
    else:
        means = cluster_bootstrap(x, clusters, resamples, seed)
    low, high = (float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    if not low < high:
        return basis.declines("all resamples agree", float(x.mean()))
    warning = "conservative (Owen 2007)" + (", and coarse with so few seeds" if len(x) < 5 else "")
    return basis.gives(float(x.mean()), low, high, level, warning=warning)


def by_class(
    candidate: ArrayLike,
    baseline: ArrayLike,
    labels: ArrayLike,
    classes: int,
    level: float,
    basis: Basis,
    clusters: NDArray[np.int64] | None = None,
) -> tuple[ClassGap, ...]:
    """The gap on each class's test images, with the two-sided p-value of its t over seeds and images.

    `labels` [n] are the true classes. A class without images is left out; without seeds all are.
    """
    c, b, labels = np.asarray(candidate, bool), np.asarray(baseline, bool), np.asarray(labels)
    found = []
    for label in range(classes):
        own = labels == label
        if not own.any() or not len(c):
            continue
        x = difference(c[:, own], b[:, own])
        its = _part(clusters, own)
        gap = gap_over_images(x, level, basis, its, where=f", class {label}")
        found.append(
            ClassGap(
                label=label,
                n_images=int(own.sum()),
                candidate_accuracy=float(c[:, own].mean()),
                baseline_accuracy=float(b[:, own].mean()),
                gap=gap if gap.low is None else gap.changed(p_value=p_value(x, its)),
            )
        )
    return tuple(found)


def hard_images(candidate: ArrayLike, baseline: ArrayLike, basis: Basis) -> HardImages:
    """Test images on which all seeds of a model agree, from bool [S, n] of both."""
    c, b = np.asarray(candidate, bool), np.asarray(baseline, bool)

    def where(mask: NDArray | np.bool_) -> tuple[int, ...]:
        return tuple(int(i) for i in np.flatnonzero(mask))

    return HardImages(
        baseline_alone_wrong=where(c.all(0) & ~b.any(0)),
        candidate_alone_wrong=where(b.all(0) & ~c.any(0)),
        both_wrong=where(~b.any(0) & ~c.any(0)),
        rests_on=basis.changed(method="test images on which all runs of a model agree", n=len(c)),
    )


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> tuple[tuple[float, ...], ...]:
    """Mean confusion matrix of runs: [true class][predicted class], rows sum to 1; `predicted` uint8 [S, n]."""
    predicted, labels = np.asarray(predicted, int), np.asarray(labels, int)
    cells = (labels[None] * classes + predicted).ravel()
    counts = np.bincount(cells[predicted.ravel() < classes], minlength=classes * classes).reshape(classes, classes)
    rows = np.maximum(counts.sum(1, keepdims=True), 1)
    return tuple(tuple(float(v) for v in row) for row in counts / rows)


def difference(candidate: ArrayLike, baseline: ArrayLike) -> NDArray[np.int8]:
    """Who got an image right that the other got wrong: 1 the candidate, −1 the baseline, else 0."""
    c, b = np.asarray(candidate, bool), np.asarray(baseline, bool)
    if c.shape != b.shape or c.ndim != 2:
        raise ValueError(f"expected two arrays [seed, image] of one shape, found {c.shape} and {b.shape}")
    return c.astype(np.int8) - b.astype(np.int8)

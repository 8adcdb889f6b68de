"""Seeds × test images: the gap on new images of the same kind, by class, and the images that one model alone gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats import variance
from analysis.stats.estimate import Basis, Estimate, Frozen

BLOCK = 1000
"""Resamples drawn at once: 1,000 × 10,000 float32 counts are 40 MB."""

NARROWER = "narrower than the interval over seeds alone, which an interval that allows for more cannot truly be"


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
    """The crossed (pigeonhole) bootstrap as a check, conservative (Owen 2007)."""
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
    candidate: ArrayLike, baseline: ArrayLike, basis: Basis, *, level: float, resamples: int, seed: int
) -> Crossed:
    """The gap over seeds and images from who got which image right: bool [S, n], row s of both the same seed."""
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
        squared = max(ms_s + ms_i - ms_r, ms_s, ms_i)
        # What is left of the squared error when the number of seeds grows without bound: the images' component / n.
        share = min(1.0, max(ms_i - ms_r, 0.0) / squared) if squared > 0 else None
    return Crossed(
        gap=gap_over_images(x, level, basis),
        bootstrap=bootstrap(x, level, resamples, seed, basis),
        components=components,
        image_share=share,
        halves=tuple(
            gap_over_images(part, level, basis, where=f", {name} half of the test file")
            for part, name in ((x[:, :half], "first"), (x[:, half:], "second"))
        ),
    )


def error_from(squares: tuple[float, float, float], seeds: int, images: int) -> tuple[float, float]:
    """Standard error and degrees of freedom from the mean squares of seeds, images and residual.

    SE² = max(MS_s + MS_i − MS_r, MS_s, MS_i) / (S n); Satterthwaite's degrees of freedom for the sum. No component
    is truncated inside it.
    """
    ms_s, ms_i, ms_r = squares
    total = ms_s + ms_i - ms_r
    squared = max(total, ms_s, ms_i)
    freedom = (seeds - 1, images - 1, (seeds - 1) * (images - 1))
    df: float
    if squared > total:
        df = freedom[0] if ms_s >= ms_i else freedom[1]
    else:
        terms = sum(ms**2 / f for ms, f in zip(squares, freedom, strict=True))
        df = max(1.0, total**2 / terms) if terms else 1.0
    return float(np.sqrt(squared / (seeds * images))), float(df)


def gap_over_images(x: NDArray, level: float, basis: Basis, where: str = "") -> Estimate:
    """Mean of `x` [S, n] with the t interval over seeds and test images, and its two-sided p-value.

    With few seeds its degrees of freedom may exceed S − 1 by so much that it is narrower than the interval over
    seeds: a warning says so.
    """
    seeds, images = x.shape
    method = f"two-way crossed analysis of variance over {seeds} seeds and {images:,} test images, t{where}"
    basis = basis.changed(n=seeds, population="seeds and test images", method=method)
    mean = float(x.mean()) if x.size else None
    if seeds < 2 or images < 2:
        return basis.declines("an interval over seeds and test images needs two or more of each", mean)
    squares = mean_squares(x)
    error, df = error_from(squares, seeds, images)
    if error == 0:
        reason = "the means of all seeds are equal, and those of all test images: their spread cannot be estimated"
        return basis.declines(reason, mean)
    half = stats.t.ppf((1 + level) / 2, df) * error
    basis = basis.changed(
        method=f"{method}, {df:.1f} degrees of freedom; images taken as independent, so probably too short"
    )
    over_seeds = stats.t.ppf((1 + level) / 2, seeds - 1) * np.sqrt(squares[0] / (seeds * images))
    warning = NARROWER if half < over_seeds else None
    return basis.gives(mean, max(-1.0, mean - half), min(1.0, mean + half), level, warning=warning)


def p_value(x: NDArray) -> float | None:
    """Two-sided p-value of the t test over seeds and test images that the mean of `x` [S, n] is 0."""
    if min(x.shape) < 2:
        return None
    error, df = error_from(mean_squares(x), *x.shape)
    return float(2 * stats.t.sf(abs(float(x.mean())) / error, df)) if error else None


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


def bootstrap(x: NDArray, level: float, resamples: int, seed: int, basis: Basis) -> Estimate:
    """Percentile interval of `crossed_bootstrap`, as a check."""
    seeds, images = x.shape
    basis = basis.changed(
        role="check", method=f"crossed (pigeonhole) bootstrap, percentile, {resamples:,} resamples, seed {seed}"
    )
    if seeds < 2 or images < 2:
        return basis.declines("it needs two or more seeds and test images")
    means = crossed_bootstrap(x, resamples, seed)
    low, high = (float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    if not low < high:
        return basis.declines("all resamples agree", float(x.mean()))
    warning = "conservative (Owen 2007)" + (", and coarse with so few seeds" if seeds < 5 else "")
    return basis.gives(float(x.mean()), low, high, level, warning=warning)


def by_class(
    candidate: ArrayLike, baseline: ArrayLike, labels: ArrayLike, classes: int, level: float, basis: Basis
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
        gap = gap_over_images(x, level, basis, where=f", class {label}")
        found.append(
            ClassGap(
                label=label,
                n_images=int(own.sum()),
                candidate_accuracy=float(c[:, own].mean()),
                baseline_accuracy=float(b[:, own].mean()),
                gap=gap if gap.low is None else gap.changed(p_value=p_value(x)),
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

"""Seeds × digits: the gap on new digits of the same kind, by class, and the digits that only one model can read."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats.estimate import Basis, Estimate, Frozen

BLOCK = 1000
"""Resamples drawn at once: 1,000 × 10,000 float32 counts are 40 MB."""

NARROWER = "narrower than the interval over seeds alone, which an interval that allows for more cannot truly be"


class Component(Frozen):
    """A component of variance: the estimate, 0 where it came out negative, and the raw number."""

    name: str
    """Of seeds, digits, or seeds × digits with the residual."""
    variance: Estimate
    """0 where it came out negative."""
    raw: float
    """Not truncated."""


class Crossed(Frozen):
    """The gap over seeds and digits, and where its uncertainty comes from."""

    gap: Estimate
    """Mean difference, two-way crossed closed form."""
    bootstrap: Estimate
    """The crossed (pigeonhole) bootstrap as a check, conservative (Owen 2007)."""
    components: tuple[Component, ...]
    """Of one network's gap on one digit: seeds, digits, and their interaction with the residual."""
    digit_share: float | None
    """Share of the squared standard error that more seeds cannot remove."""
    halves: tuple[Estimate, ...]
    """The gap on the first and on the second half of the test file, which may come from different sources."""


class ClassGap(Frozen):
    """The gap on the digits of one class. `adjusted_p` is Holm's, over all baselines and classes."""

    label: int
    """The class."""
    n_digits: int
    """Its test digits."""
    candidate_accuracy: float
    """Mean over the pairs' runs, a fraction."""
    baseline_accuracy: float
    """Mean over the pairs' runs, a fraction."""
    gap: Estimate
    """Mean paired difference on its digits."""
    adjusted_p: float | None = None
    """By Holm over all baselines and classes; null where no test was made."""


class HardDigits(Frozen):
    """Positions in the test file."""

    baseline_alone_wrong: tuple[int, ...]
    """Digits that every seed of the baseline gets wrong and every seed of the candidate right ..."""
    candidate_alone_wrong: tuple[int, ...]
    """... and the other way round."""
    both_wrong: tuple[int, ...]
    """Digits that no seed of either gets right."""
    rests_on: Basis
    """The pairs whose predictions agree."""


def mean_squares(x: NDArray) -> tuple[float, float, float]:
    """Mean squares of seeds, digits and residual of `x` [S, n]: two-way crossed ANOVA without replication."""
    seeds, digits = x.shape
    grand, rows, columns = x.mean(), x.mean(1), x.mean(0)
    ms_seeds = digits * float(((rows - grand) ** 2).sum()) / (seeds - 1)
    ms_digits = seeds * float(((columns - grand) ** 2).sum()) / (digits - 1)
    residual = x - rows[:, None] - columns[None] + grand
    return ms_seeds, ms_digits, float((residual**2).sum()) / ((seeds - 1) * (digits - 1))


def crossed(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    level: float,
    planned: int,
    resamples: int,
    seed: int,
    runs: str | None = None,
) -> Crossed:
    """The gap over seeds and digits from who got which digit right: bool [S, n], row s of both the same seed."""
    x = _difference(candidate, baseline)
    seeds, digits = x.shape
    half = digits // 2
    estimate = gap_over_digits(x, level=level, planned=planned, runs=runs)
    components: tuple[Component, ...] = ()
    share = None
    if seeds > 1 and digits > 1:
        ms_s, ms_d, ms_r = mean_squares(x)
        raw = (("seeds", (ms_s - ms_r) / digits), ("digits", (ms_d - ms_r) / seeds), ("seeds × digits, residual", ms_r))
        about = dict(method="component of the two-way crossed analysis of variance, 0 where it came out negative")
        about |= dict(n=seeds, planned=planned, unit="pairs of runs", population="seeds and digits", runs=runs)
        components = tuple(
            Component(name=name, variance=Estimate(estimate=max(v, 0.0), **about), raw=v) for name, v in raw
        )
        squared = max(ms_s + ms_d - ms_r, ms_s, ms_d)
        # What is left of the squared error when the number of seeds grows without bound: the digits' component / n.
        share = min(1.0, max(ms_d - ms_r, 0.0) / squared) if squared > 0 else None
    parts = ((x[:, :half], "first"), (x[:, half:], "second"))
    return Crossed(
        gap=estimate,
        bootstrap=_bootstrap(x, level, resamples, seed, planned, runs),
        components=components,
        digit_share=share,
        halves=tuple(
            gap_over_digits(part, level=level, planned=planned, runs=runs, where=f", {name} half of the test file")
            for part, name in parts
        ),
    )


def standard_error(x: NDArray) -> tuple[float, float]:
    """Standard error of the mean of `x` [S, n] over seeds and digits, and its degrees of freedom."""
    return error_from(mean_squares(x), *x.shape)


def error_from(squares: tuple[float, float, float], seeds: int, digits: int) -> tuple[float, float]:
    """Standard error and degrees of freedom from the mean squares of seeds, digits and residual.

    SE² = max(MS_s + MS_d − MS_r, MS_s, MS_d) / (S n); Satterthwaite's degrees of freedom for the sum. No component
    is truncated inside it.
    """
    ms_s, ms_d, ms_r = squares
    total = ms_s + ms_d - ms_r
    squared = max(total, ms_s, ms_d)
    freedom = (seeds - 1, digits - 1, (seeds - 1) * (digits - 1))
    if squared > total:
        df = freedom[0] if ms_s >= ms_d else freedom[1]
    else:
        terms = sum(ms**2 / f for ms, f in zip(squares, freedom, strict=True))
        df = max(1.0, total**2 / terms) if terms else 1.0
    return float(np.sqrt(squared / (seeds * digits))), float(df)


def gap_over_digits(
    x: NDArray, *, level: float, planned: int, runs: str | None = None, where: str = "", role: str = "descriptive"
) -> Estimate:
    """Mean of `x` [S, n] with the t interval over seeds and digits, by `standard_error`.

    With few seeds its degrees of freedom may exceed S − 1 by so much that it is narrower than the interval over
    seeds: a warning says so.
    """
    seeds, digits = x.shape
    about = dict(n=seeds, planned=planned, unit="pairs of runs", population="seeds and digits", role=role, runs=runs)
    method = f"two-way crossed analysis of variance over {seeds} seeds and {digits:,} digits, t{where}"
    if seeds < 2 or digits < 2:
        value = float(x.mean()) if x.size else None
        reason = "an interval over seeds and digits needs two or more of each"
        return Estimate(estimate=value, method=method, declined=reason, **about)
    squares = mean_squares(x)
    error, df = error_from(squares, seeds, digits)
    if error == 0:
        reason = "the means of all seeds are equal, and those of all digits: their spread cannot be estimated"
        return Estimate(estimate=float(x.mean()), method=method, declined=reason, **about)
    half = stats.t.ppf((1 + level) / 2, df) * error
    mean = float(x.mean())
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    method += f", {df:.1f} degrees of freedom; digits taken as independent, so probably too short"
    over_seeds = stats.t.ppf((1 + level) / 2, seeds - 1) * np.sqrt(squares[0] / (seeds * digits))
    warning = NARROWER if half < over_seeds else None
    return Estimate(estimate=mean, low=low, high=high, level=level, method=method, warning=warning, **about)


def crossed_bootstrap(x: ArrayLike, resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of `x` [S, n] with seeds and digits drawn again independently, [resample] (pigeonhole bootstrap).

    The mean of a resample is w · x · v for the multiplicities w [S] and v [n] of its draws.
    """
    x = np.asarray(x, np.float32)
    seeds, digits = x.shape
    draw_seeds, draw_digits = np.random.default_rng(seed).spawn(2)
    means = []
    for start in range(0, resamples, BLOCK):
        n = min(BLOCK, resamples - start)
        w = draw_seeds.multinomial(seeds, np.full(seeds, 1 / seeds), size=n)
        drawn = draw_digits.integers(0, digits, (n, digits), dtype=np.int32)
        drawn += (np.arange(n, dtype=np.int32) * digits)[:, None]
        v = np.bincount(drawn.ravel(), minlength=n * digits).reshape(n, digits).astype(np.float32)
        means.append(((v @ x.T) * w).sum(1, dtype=np.float64) / (seeds * digits))
    return np.concatenate(means)


def bootstrap_variance(x: NDArray) -> float:
    """The exact variance of the crossed bootstrap's mean, from the mean squares of `x` [S, n]."""
    seeds, digits = x.shape
    ms_s, ms_d, ms_r = mean_squares(x)
    a, b = 1 - 1 / seeds, 1 - 1 / digits
    return (a * ms_s + b * ms_d + a * b * ms_r) / (seeds * digits)


def by_class(
    candidate: ArrayLike,
    baseline: ArrayLike,
    labels: ArrayLike,
    classes: int,
    *,
    level: float,
    planned: int,
    runs: str | None = None,
) -> list[tuple[ClassGap, float | None]]:
    """The gap on each class's digits, with the two-sided p-value of its t over seeds and digits (None if declined).

    `labels` [n] are the true classes. A class without digits is left out; without seeds all are.
    """
    c, b, labels = np.asarray(candidate, bool), np.asarray(baseline, bool), np.asarray(labels)
    found = []
    for label in range(classes):
        own = labels == label
        if not own.any() or not len(c):
            continue
        x = _difference(c[:, own], b[:, own])
        gap = gap_over_digits(x, level=level, planned=planned, runs=runs, where=f", class {label}")
        p = None
        if gap.low is not None:
            error, df = standard_error(x)
            p = float(2 * stats.t.sf(abs(gap.estimate) / error, df))
        means = float(c[:, own].mean()), float(b[:, own].mean())
        entry = ClassGap(
            label=label, n_digits=int(own.sum()), candidate_accuracy=means[0], baseline_accuracy=means[1], gap=gap
        )
        found.append((entry, p))
    return found


def hard_digits(candidate: ArrayLike, baseline: ArrayLike, *, planned: int, runs: str | None = None) -> HardDigits:
    """Digits on which all seeds of a model agree, from bool [S, n] of both."""
    c, b = np.asarray(candidate, bool), np.asarray(baseline, bool)

    def where(mask: NDArray) -> tuple[int, ...]:
        return tuple(int(i) for i in np.flatnonzero(mask))

    return HardDigits(
        baseline_alone_wrong=where(c.all(0) & ~b.any(0)),
        candidate_alone_wrong=where(b.all(0) & ~c.any(0)),
        both_wrong=where(~b.any(0) & ~c.any(0)),
        rests_on=Basis(
            method="digits on which all runs of a model agree",
            n=len(c),
            planned=planned,
            unit="pairs of runs",
            runs=runs,
        ),
    )


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> tuple[tuple[float, ...], ...]:
    """Mean confusion matrix of runs: [true class][predicted class], rows sum to 1; `predicted` uint8 [S, n]."""
    predicted, labels = np.asarray(predicted, int), np.asarray(labels, int)
    cells = (labels[None] * classes + predicted).ravel()
    counts = np.bincount(cells[predicted.ravel() < classes], minlength=classes * classes).reshape(classes, classes)
    rows = np.maximum(counts.sum(1, keepdims=True), 1)
    return tuple(tuple(float(v) for v in row) for row in counts / rows)


def _difference(candidate: ArrayLike, baseline: ArrayLike) -> NDArray[np.int8]:
    c, b = np.asarray(candidate, bool), np.asarray(baseline, bool)
    if c.shape != b.shape or c.ndim != 2:
        raise ValueError(f"expected two arrays [seed, digit] of one shape, found {c.shape} and {b.shape}")
    return c.astype(np.int8) - b.astype(np.int8)


def _bootstrap(x: NDArray, level: float, resamples: int, seed: int, planned: int, runs: str | None) -> Estimate:
    seeds, digits = x.shape
    about = dict(n=seeds, planned=planned, unit="pairs of runs", population="seeds and digits", role="check", runs=runs)
    method = f"crossed (pigeonhole) bootstrap, percentile, {resamples:,} resamples, seed {seed}"
    if seeds < 2 or digits < 2:
        return Estimate(method=method, declined="it needs two or more seeds and digits", **about)
    means = crossed_bootstrap(x, resamples, seed)
    low, high = (float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    if not low < high:
        return Estimate(estimate=float(x.mean()), method=method, declined="all resamples agree", **about)
    warning = "conservative (Owen 2007)" + (", and coarse with so few seeds" if seeds < 5 else "")
    return Estimate(estimate=float(x.mean()), low=low, high=high, level=level, method=method, warning=warning, **about)

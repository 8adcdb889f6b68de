"""Which learning rate each model uses: chosen by validation accuracy alone, and how near the choice was.

No function here chooses by a test number: `best_of_n`, `gaps_anew` and `with_luck` are given those of choices made.
Accuracies are fractions. Outcomes are scored before they come here: a run that diverged or collapsed at
1 / classes, one that failed or is missing as NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.grid import Validation
from analysis.stats.estimate import Basis, Estimate, Frozen

Average = Literal["mean", "median"]

MOST_EMPTY = 0.01
"""Share of resamples without a pair above which they say nothing of the luck of selection."""

TIE = 1e-12
"""Scores closer than this are equal: the order of a sum must not decide between learning rates."""
CHUNK = 500
"""Resamples drawn at once: 500 × 5,000 images as float32 are 10 MB."""


class Selection(Frozen):
    """The learning rate chosen for one model, and what it was chosen from."""

    index: int | None
    """Position in the grid; None where no learning rate has a validation accuracy."""
    learning_rate: float | None
    """The rate chosen; null like `index`."""
    rule: Average
    """What it has the best of."""
    at_edge: bool
    """The choice is the smallest or largest rate tried: a better one may lie outside the grid."""
    scores: tuple[float | None, ...]
    """Mean (or median) validation accuracy of every rate."""
    n: tuple[int, ...]
    """Runs behind each score ..."""
    planned: int
    """... of this many planned."""


class Choice(Frozen):
    """How a model's learning rate was chosen, from validation accuracies alone, and how near the choice was."""

    mean: Selection
    """The primary rule."""
    median: Selection
    """The same by median."""
    common_seeds: Selection | None
    """The primary rule over the seeds that every rate has a score of; null where these are all that any rate has."""
    luck: Mapping[str, float]
    """Learning rate → share of resamples of seeds and validation images in which it wins."""
    images_resampled: bool
    """Whether validation images were resampled too, which needs the predictions."""
    cross_fitted: Mapping[str, float]
    """Learning rate → share of seeds for which the other seeds choose it."""
    rests_on: Basis
    """The runs with a score, and the resamples of `luck`."""


class Chosen(NamedTuple):
    """A choice, with the rates it chose seed by seed and resample by resample, in positions of `Validation.rates`."""

    choice: Choice
    folds: NDArray[np.int64]
    """The rate that the other seeds choose [seed]; −1 for none."""
    winners: NDArray[np.int64]
    """The rate that wins each resample [resample]; −1 for none."""
    by_seeds: NDArray[np.int64]
    """The same where seeds alone are drawn again, and validation images are what they are."""


@dataclass(frozen=True, eq=False)
class SelectedRates:
    """The learning rates that a rule selected for a pair of models, seed by seed.

    Positions in their common grid [seed], −1 for none. A rule is a tuple of these whose weights add up to 1: there is
    one, but for re-selection, which averages over the choices made in resamples.
    """

    candidate: NDArray[np.int64]
    baseline: NDArray[np.int64]
    weight: float = 1.0


Rule = tuple[SelectedRates, ...]


class Luck(NamedTuple):
    """How the choice falls when seeds and validation images are drawn again."""

    winners: NDArray[np.int64]
    """Position of the winning rate [resample]; −1 where no rate had a score."""
    frequencies: NDArray[np.float64]
    """Share of resamples that each rate wins [rate]."""
    images_resampled: bool


def choose(validation: Validation, basis: Basis, *, resamples: int, seed: int) -> Chosen:
    """Choose a model's learning rate, and choose again in resamples and without each seed.

    `basis` names the runs with a score.
    """
    rates, score = validation.rates, validation.score
    known = np.isfinite(score)
    common = known.all(axis=0)
    units = "seeds and validation images" if validation.correct is not None else "seeds"
    drawn = luck(score, rates, resamples=resamples, seed=seed, val_correct=validation.correct)
    folds = cross_fitted(score, rates)
    choice = Choice(
        mean=select(score, rates),
        median=select(score, rates, "median"),
        common_seeds=select(score[:, common], rates) if (known.any(axis=0) & ~common).any() else None,
        luck={_name(rate): float(share) for rate, share in zip(rates, drawn.frequencies, strict=True)},
        images_resampled=drawn.images_resampled,
        cross_fitted={_name(rate): float(np.mean(folds == i)) for i, rate in enumerate(rates)},
        rests_on=basis.changed(
            method=f"mean validation accuracy over seeds; luck: {resamples:,} resamples of {units}, seed {seed}",
            n=int(known.sum()),
        ),
    )
    by_seeds = drawn.winners
    if drawn.images_resampled:
        by_seeds = luck(score, rates, resamples=resamples, seed=seed).winners
    return Chosen(choice, folds, drawn.winners, by_seeds)


def select(val_accuracy: ArrayLike, rates: ArrayLike, rule: Average = "mean") -> Selection:
    """The rate with the best mean (or median) of `val_accuracy` [rate, seed] over seeds; ties go to the smaller rate.

    `rates` [rate] may come in any order. Seeds without a number (NaN) are left out and show in `n`.
    """
    val_accuracy, rates = _grid(val_accuracy, rates)
    present = np.isfinite(val_accuracy)
    average = np.mean if rule == "mean" else np.median
    scores = np.array(
        [average(row[ok]) if ok.any() else -np.inf for row, ok in zip(val_accuracy, present, strict=True)]
    )
    best = int(_best(scores[None], rates)[0])
    chosen = float(rates[best]) if best >= 0 else None
    return Selection(
        index=best if best >= 0 else None,
        learning_rate=chosen,
        rule=rule,
        at_edge=chosen is not None and chosen in (rates.min(), rates.max()),
        scores=tuple(float(s) if np.isfinite(s) else None for s in scores),
        n=tuple(int(k) for k in present.sum(axis=1)),
        planned=val_accuracy.shape[1],
    )


def cross_fitted(val_accuracy: ArrayLike, rates: ArrayLike, rule: Average = "mean") -> NDArray[np.int64]:
    """For every seed, the position of the rate that the other seeds choose [seed]; −1 where they choose none.

    `val_accuracy` [rate, seed] and `rates` [rate] as for `select`.
    """
    val_accuracy, rates = _grid(val_accuracy, rates)
    others = (select(np.delete(val_accuracy, s, axis=1), rates, rule) for s in range(val_accuracy.shape[1]))
    return np.array([-1 if choice.index is None else choice.index for choice in others], dtype=np.int64)


def luck(
    val_accuracy: ArrayLike,
    rates: ArrayLike,
    *,
    resamples: int,
    seed: int,
    val_correct: NDArray[np.bool_] | None = None,
) -> Luck:
    """Winners by mean validation accuracy when seeds, and with `val_correct` also images, are drawn with replacement.

    `val_accuracy` [rate, seed]; `val_correct` bool [rate, seed, validation image] says which images were right.
    A run without predictions, all False there, keeps its score. The same `seed` draws the same seeds and images
    for every model of a study, so the winners of two models belong together resample by resample.
    """
    val_accuracy, rates = _grid(val_accuracy, rates)
    n_rates, n_seeds = val_accuracy.shape
    present = np.isfinite(val_accuracy)
    score = np.where(present, val_accuracy, 0.0)
    # Apart, so that the seeds drawn do not depend on whether images are drawn too.
    draw_seeds, draw_images = np.random.default_rng(seed).spawn(2)
    seeds = _multiplicities(draw_seeds, resamples, n_seeds)
    weights = (present[None] * seeds[:, None]).astype(float)
    total = weights.sum(axis=2)
    if val_correct is None:
        accuracy = np.broadcast_to(score, (resamples, n_rates, n_seeds))
        sums = np.einsum("brs,brs->br", weights, accuracy)
    else:
        sums = np.empty((resamples, n_rates))
        for start in range(0, resamples, CHUNK):
            part = slice(start, min(start + CHUNK, resamples))
            accuracy = _redrawn(val_correct, score, draw_images, part.stop - part.start)
            sums[part] = np.einsum("brs,brs->br", weights[part], accuracy)
    means = np.where(total > 0, sums / np.maximum(total, 1), -np.inf)
    winners = _best(means, rates)
    frequencies = np.array([np.mean(winners == r) for r in range(n_rates)])
    return Luck(winners, frequencies, images_resampled=val_correct is not None)


def best_of_n(val: ArrayLike, test: ArrayLike) -> NDArray[np.float64]:
    """Expected test score of the validation-best among n rates, over all n-subsets of the grid: [n − 1], n = 1 … N.

    `val` and `test` [rate], in order of the rates: a tie goes to the earlier. Without replacement: the rate of
    ascending rank i (from 1) is best in C(i − 1, n − 1) of the C(N, n) subsets. Rates without a validation
    score (NaN) are left out. Raises ValueError where one with a validation score has no test score.
    """
    val, test = np.asarray(val, float), np.asarray(test, float)
    if val.shape != test.shape or val.ndim != 1:
        raise ValueError(f"expected two arrays [rate], found {val.shape} and {test.shape}")
    kept = np.isfinite(val)
    if not np.isfinite(test[kept]).all():
        raise ValueError("a learning rate with a validation score has no test score")
    ascending = test[kept][_ranking(val[kept])]
    n_rates = ascending.size
    ways = [[comb(i, n - 1) / comb(n_rates, n) for i in range(n_rates)] for n in range(1, n_rates + 1)]
    return np.array(ways).reshape(n_rates, n_rates) @ ascending


def fixed(candidate: ArrayLike, baseline: ArrayLike) -> Rule:
    """A rule that selects one rate a seed for each model [seed]."""
    return (SelectedRates(np.asarray(candidate, np.int64), np.asarray(baseline, np.int64)),)


def reselected(candidate: NDArray[np.int64], baseline: NDArray[np.int64], n_seeds: int) -> Rule:
    """The choices made in resamples, from the winners [resample] of `luck` for both models."""
    pairs, times = np.unique(np.stack([candidate, baseline]), axis=1, return_counts=True)
    return tuple(
        SelectedRates(np.full(n_seeds, c), np.full(n_seeds, b), float(k / times.sum()))
        for (c, b), k in zip(pairs.T, times, strict=True)
    )


def gaps_anew(
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    winners: tuple[NDArray[np.int64], NDArray[np.int64]],
    seed: int,
) -> NDArray[np.float64]:
    """The gap when the whole analysis, selection and all, is done again in resamples of the seeds: [resample].

    `scores` of candidate and baseline [rate, seed], NaN where a run does not count; `winners` [resample] of `luck` for
    both, drawn with this `seed`: positions in `scores`, −1 for none. NaN where a resample holds no pair.
    """
    candidate, baseline = scores
    times = _multiplicities(np.random.default_rng(seed).spawn(1)[0], winners[0].size, candidate.shape[1])
    gaps = np.full(winners[0].size, np.nan)
    for c, b in np.unique(np.stack(winners), axis=1).T:
        difference = candidate[c] - baseline[b]
        paired = np.isfinite(difference)
        if c < 0 or b < 0 or not paired.any():
            continue
        own = (winners[0] == c) & (winners[1] == b)
        weights = times[own][:, paired]
        with np.errstate(invalid="ignore"):
            gaps[own] = weights @ difference[paired] / weights.sum(axis=1)
    return gaps


def with_luck(
    gap: float,
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    winners: tuple[NDArray[np.int64], NDArray[np.int64]],
    seed: int,
    level: float,
    basis: Basis,
) -> Estimate:
    """The primary `gap` over `basis.n` pairs, with a t interval that allows for the luck of both selections.

    Its standard error is that of `gaps_anew`, which takes the other arguments; n/(n − 1) undoes the shrinkage of
    resamples. With the choice the same in all of them this is the usual interval, up to the number of resamples.
    """
    if basis.n < 2:
        return basis.declines("an interval needs two or more pairs", gap)
    gaps = gaps_anew(scores, winners, seed)
    if np.isnan(gaps).mean() > MOST_EMPTY:
        return basis.declines("too many resamples hold no pair", gap)
    error = float(np.nanstd(gaps) * np.sqrt(basis.n / (basis.n - 1)))
    if error == 0:
        return basis.declines("all resamples give the same gap", gap)
    half = float(stats.t.ppf((1 + level) / 2, basis.n - 1)) * error
    return basis.gives(gap, max(-1.0, gap - half), min(1.0, gap + half), level)


def _grid(val_accuracy: ArrayLike, rates: ArrayLike) -> tuple[NDArray, NDArray]:
    val_accuracy, rates = np.asarray(val_accuracy, float), np.asarray(rates, float)
    if val_accuracy.ndim != 2 or rates.shape != val_accuracy.shape[:1]:
        raise ValueError(f"expected [rate, seed] and [rate], found {val_accuracy.shape} and {rates.shape}")
    return val_accuracy, rates


def _name(rate: float) -> str:
    """With all its digits, so that no two rates share a name."""
    return repr(float(rate))


def _best(scores: NDArray, rates: NDArray) -> NDArray[np.int64]:
    """Position of the best of `scores` [resample, rate], the smaller rate among equals; −1 where all are −inf."""
    order = np.argsort(rates, kind="stable")
    highest = scores.max(axis=1, initial=-np.inf)
    first = (scores[:, order] >= highest[:, None] - TIE).argmax(axis=1) if order.size else 0
    return np.where(np.isfinite(highest), order[first] if order.size else -1, -1)


def _ranking(val: NDArray) -> NDArray[np.int64]:
    """Positions by ascending `val`, the earlier of equals last, as it is the one chosen."""
    best_first: list[int] = []
    left = list(range(val.size))
    while left:
        best = max(val[left])
        best_first.append(next(i for i in left if val[i] >= best - TIE))
        left.remove(best_first[-1])
    return np.array(best_first[::-1], dtype=np.int64)


def _redrawn(val_correct: NDArray[np.bool_], score: NDArray, draw: np.random.Generator, resamples: int) -> NDArray:
    """Validation accuracy [resample, rate, seed] on images drawn with replacement, the same for all runs."""
    n_images = val_correct.shape[2]
    times = _multiplicities(draw, resamples, n_images).astype(np.float32)
    # Counts stay far below 2**24, so the float32 products are exact.
    right = times @ val_correct.reshape(-1, n_images).T.astype(np.float32)
    accuracy = right.astype(float).reshape(resamples, *score.shape) / n_images
    return np.where(val_correct.any(axis=2), accuracy, score)


def _multiplicities(draw: np.random.Generator, resamples: int, n: int) -> NDArray[np.int64]:
    """How often each of n units is drawn [resample, n], n at a time with replacement."""
    if n == 0:
        return np.zeros((resamples, 0), np.int64)
    kind = np.dtype(np.int32 if resamples * n < 2**31 else np.int64)  # which draw the same
    drawn = draw.integers(n, size=(resamples, n), dtype=kind) + n * np.arange(resamples, dtype=kind)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)

"""How each model's learning rate was chosen, and how near the choice was: made from validation accuracies alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.grid import Grid, Validation
from analysis.stats import selection
from analysis.stats.estimate import Basis, Frozen
from analysis.stats.specifications import Choice as Rates
from analysis.stats.specifications import fixed, reselected


class Choice(Frozen):
    """How a model's learning rate was chosen, from validation accuracies alone, and how near the choice was."""

    mean: selection.Selection
    """The primary rule."""
    median: selection.Selection
    """The same by median."""
    common_seeds: selection.Selection | None
    """The primary rule over the seeds that every rate has a score of; null where these are all that any rate has."""
    luck: Mapping[str, float]
    """Learning rate → share of resamples of seeds and validation digits in which it wins."""
    digits_resampled: bool
    """Whether validation digits were resampled too, which needs the predictions."""
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


def choose(validation: Validation, *, resamples: int, seed: int, planned: int, runs: str | None = None) -> Chosen:
    """Choose a model's learning rate, and choose again in resamples and without each seed.

    `planned` is the number of runs planned, `runs` names those with a score.
    """
    rates, score = validation.rates, validation.score
    known = np.isfinite(score)
    common = known.all(axis=0)
    units = "seeds and validation digits" if validation.correct is not None else "seeds"
    luck = selection.luck(score, rates, resamples=resamples, seed=seed, val_correct=validation.correct)
    folds = selection.cross_fitted(score, rates)
    choice = Choice(
        mean=selection.select(score, rates),
        median=selection.select(score, rates, "median"),
        common_seeds=selection.select(score[:, common], rates) if (known.any(axis=0) & ~common).any() else None,
        luck={_name(rate): float(share) for rate, share in zip(rates, luck.frequencies, strict=True)},
        digits_resampled=luck.digits_resampled,
        cross_fitted={_name(rate): float(np.mean(folds == i)) for i, rate in enumerate(rates)},
        rests_on=Basis(
            method=f"mean validation accuracy over seeds; luck: {resamples:,} resamples of {units}, seed {seed}",
            n=int(known.sum()),
            planned=planned,
            unit="runs",
            runs=runs,
        ),
    )
    return Chosen(choice, folds, luck.winners)


def rules(candidate: tuple[Grid, Chosen], baseline: tuple[Grid, Chosen]) -> dict[str, Rates]:
    """Every rule of selection → the rates it gives a pair of models, in positions of their common grid."""
    pair = (candidate, baseline)
    n_seeds = candidate[0].run_ids.shape[1]

    def constant(rule: str) -> Rates:
        positions = (grid.position(getattr(chosen.choice, rule).learning_rate) for grid, chosen in pair)
        return fixed(*(np.full(n_seeds, position) for position in positions))

    return {
        "mean": constant("mean"),
        "median": constant("median"),
        "cross-fitted": fixed(*(_in_grid(grid, chosen.folds) for grid, chosen in pair)),
        "re-selected": reselected(*(_in_grid(grid, chosen.winners) for grid, chosen in pair), n_seeds),
    }


def over_common_seeds(candidate: tuple[Grid, Chosen], baseline: tuple[Grid, Chosen]) -> Rates | None:
    """The rates that the seeds common to all rates choose; None where every seed is common to them."""
    pair = (candidate, baseline)
    if all(chosen.choice.common_seeds is None for _, chosen in pair):
        return None
    made = ((grid, chosen.choice.common_seeds or chosen.choice.mean) for grid, chosen in pair)
    n_seeds = candidate[0].run_ids.shape[1]
    return fixed(*(np.full(n_seeds, grid.position(choice.learning_rate)) for grid, choice in made))


def _in_grid(grid: Grid, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions among the model's own rates as positions among all of the study's."""
    own = np.append(np.searchsorted(grid.rates, grid.validation.rates), -1)
    return own[positions]


def _name(rate: float) -> str:
    """With all its digits, so that no two rates share a name."""
    return repr(float(rate))

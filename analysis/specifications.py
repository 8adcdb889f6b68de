"""The specification curve of one comparison: every way to analyse it (Simonsohn, Simmons and Nelson 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit, logit

from analysis import checks
from analysis.estimate import Estimate
from analysis.gap import t_interval

OUTCOMES = ("trained", "collapsed", "diverged", "failed", "missing")
"""The first three are outcomes of training; `failed` and `missing` are the absence of one and are never scored."""

Policy = Literal["both trained", "scored at chance", "worst case"]
Pairing = Literal["paired", "unpaired"]
Transform = Literal["raw", "logit"]

Choice = tuple[tuple[float, NDArray[np.int64], NDArray[np.int64]], ...]
"""What a selection rule chose: parts of (weight, candidate's rate [seed], baseline's rate [seed]).

Rates are positions in the grid, −1 for none. There is one part with weight 1, but for re-selection, which averages
over the choices made in resamples.
"""


@dataclass(frozen=True)
class ModelRuns:
    """All runs of one model, [rate, seed]: `counts` of right test digits, integer, and `outcome`, str, in OUTCOMES.

    A count is read only where the run trained. The outcome of a cell that nobody planned is "".
    """

    counts: NDArray
    outcome: NDArray


class Specification(BaseModel):
    """One way to analyse the same data, and the gap it gives, a fraction of accuracy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    selection: str
    outcomes: Policy
    pairing: Pairing
    transform: Transform
    population: Literal["seeds", "seeds and digits"]
    estimate: float
    low: float | None = None
    high: float | None = None
    level: float | None = None
    n: int
    """Pairs, or where unpaired the runs of the model with fewer."""
    primary: bool = False


def fixed(candidate: ArrayLike, baseline: ArrayLike) -> Choice:
    """A choice by one rule: each model's rate [seed], as `selection.cross_fitted` gives it or one rate repeated."""
    return ((1.0, np.asarray(candidate, np.int64), np.asarray(baseline, np.int64)),)


def reselected(candidate: NDArray[np.int64], baseline: NDArray[np.int64], n_seeds: int) -> Choice:
    """The choices made in resamples, from the winners [resample] of `selection.luck` for both models."""
    pairs, times = np.unique(np.stack([candidate, baseline]), axis=1, return_counts=True)
    return tuple(
        (float(k / times.sum()), np.full(n_seeds, c), np.full(n_seeds, b))
        for (c, b), k in zip(pairs.T, times, strict=True)
    )


def specifications(
    candidate: ModelRuns,
    baseline: ModelRuns,
    choices: Mapping[str, Choice],
    n_digits: int,
    classes: int,
    level: float,
    crossed: Callable[[NDArray, NDArray, NDArray], Estimate] | None,
) -> Iterator[Specification | None]:
    """Every specification that is a different analysis, None for those without an estimate.

    The product of rules (`choices`), policies and transforms, and where both trained also of pairings; raw pairs that
    trained besides over seeds and digits. Scored runs have no interval, so pairing and population would only repeat
    their points.
    """
    ways = [(policy, "paired", transform) for policy, transform in product(get_args(Policy), get_args(Transform))]
    ways += [("both trained", "unpaired", transform) for transform in get_args(Transform)]
    for (position, (rule, choice)), (policy, pairing, transform) in product(enumerate(choices.items()), ways):
        accuracies = [accuracies_of(candidate, baseline, part, policy, n_digits, classes) for part in choice]
        parts = [gap_between(c, b, pairing, transform, n_digits, level) for c, b in accuracies]
        estimate = average(choice, parts)
        if estimate is None:
            yield None
            continue
        simple = (policy, pairing, transform) == ("both trained", "paired", "raw")
        spec = Specification(
            selection=rule,
            outcomes=policy,
            pairing=pairing,
            transform=transform,
            population="seeds",
            estimate=estimate,
            n=min(e.n for e in parts),
            primary=simple and position == 0,
        )
        if len(parts) > 1:
            yield spec
            continue
        yield _with_interval(spec, parts[0]) if policy == "both trained" else spec
        if simple and crossed is not None:
            seeds = np.flatnonzero(np.isfinite(np.subtract(*accuracies[0])))
            _, rates_c, rates_b = choice[0]
            over_digits = crossed(rates_c[seeds], rates_b[seeds], seeds)
            both = spec.model_copy(update=dict(population="seeds and digits", primary=False))
            yield None if over_digits.low is None else _with_interval(both, over_digits)


def _with_interval(spec: Specification, e: Estimate) -> Specification:
    return spec.model_copy(update=dict(low=e.low, high=e.high, level=e.level if e.low is not None else None))


def gap_between(
    c: NDArray, b: NDArray, pairing: Pairing, transform: Transform, n_digits: int, level: float
) -> Estimate:
    """The gap of accuracies [seed], NaN where there is none.

    On logits (of empirical odds, ½ added to right and wrong digits, so that they are finite) it is turned back
    into the gap in accuracy that the same shift makes at the baseline's mean logit.
    """
    if pairing == "paired":
        both = np.isfinite(c - b)
        c, b = c[both], b[both]
    else:
        c, b = c[np.isfinite(c)], b[np.isfinite(b)]
    bounds = (-1.0, 1.0)
    if transform == "logit":
        c, b = (logit((x * n_digits + 0.5) / (n_digits + 1)) for x in (c, b))
        bounds = (-np.inf, np.inf)
    about = dict(n=min(c.size, b.size), planned=c.size, unit="pairs of runs", population="seeds")
    if pairing == "paired":
        e = t_interval(c - b, level, n_planned=c.size, unit="pairs of runs", bounds=bounds)
    else:
        e = checks.welch(c, b, level, about, bounds)
    if transform == "raw" or e.estimate is None:
        return e
    start = b.mean()
    shifted = {
        name: float(expit(start + value) - expit(start))
        for name in ("estimate", "low", "high")
        if (value := getattr(e, name)) is not None
    }
    return e.model_copy(update=shifted)


def accuracies_of(
    candidate: ModelRuns,
    baseline: ModelRuns,
    part: tuple[float, NDArray, NDArray],
    policy: Policy,
    n_digits: int,
    classes: int,
) -> tuple[NDArray, NDArray]:
    """Both models' accuracies [seed] under a policy, NaN where it gives none."""
    chance = 1 / classes
    chosen = []
    for runs, rates in zip((candidate, baseline), part[1:], strict=True):
        outcome = at_rates(runs.outcome, rates, "")
        accuracy = np.where(outcome == "trained", at_rates(runs.counts, rates, 0) / n_digits, np.nan)
        if policy != "both trained":
            accuracy[np.isin(outcome, ("collapsed", "diverged"))] = chance
        if policy == "worst case":
            # `chosen` is still empty for the candidate; the baseline comes second.
            worst = np.nanmax(np.append(accuracy, chance)) if chosen else chance
            accuracy[np.isin(outcome, ("failed", "missing"))] = worst
        chosen.append(accuracy)
    return chosen[0], chosen[1]


def at_rates(table: NDArray, rates: NDArray, absent: object) -> NDArray:
    """The entries of `table` [rate, seed] at one rate per seed [seed], `absent` where that is −1."""
    if not table.size:
        return np.full(rates.size, absent)
    return np.where(rates >= 0, table[rates, np.arange(rates.size)], absent)


def average(choice: Choice, parts: list[Estimate]) -> float | None:
    """The weighted mean of estimates; None where one of them is undefined."""
    if not parts or any(e.estimate is None for e in parts):
        return None
    return float(sum(weight * e.estimate for (weight, _, _), e in zip(choice, parts, strict=True)))

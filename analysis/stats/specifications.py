"""The specification curve of one comparison: every way to analyse it (Simonsohn, Simmons and Nelson 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from analysis.grid import OUTCOMES, ModelRuns
from analysis.stats import checks
from analysis.stats.estimate import Estimate, Frozen
from analysis.stats.paired import t_interval

Policy = Literal["both trained", "scored at chance", "worst case"]
SCORED: dict[Policy, tuple[str, ...]] = {
    "both trained": OUTCOMES[:1],
    "scored at chance": OUTCOMES[:3],
    "worst case": OUTCOMES,
}
"""Which runs each policy gives a number."""

Pairing = Literal["paired", "unpaired"]
Transform = Literal["raw", "logit"]

Choice = tuple[tuple[float, NDArray[np.int64], NDArray[np.int64]], ...]
"""What a selection rule chose: parts of (weight, candidate's rate [seed], baseline's rate [seed]).

Rates are positions in the grid, −1 for none. There is one part with weight 1, but for re-selection, which averages
over the choices made in resamples.
"""


RestsOn = Callable[[str, list[str]], str]
"""Notes the runs that a finding rests on under a key, and returns the key to name them by."""

Crossed = Callable[[str, NDArray, NDArray, NDArray], Estimate]
"""The gap over seeds and digits, given the rule that chose the rates, and the candidate's rate, the baseline's and the
seed of every pair that trained, positions in the grid [pair] each."""


class Specification(Frozen):
    """One way to analyse the same data, and the gap it gives, a fraction of accuracy."""

    selection: str
    """Rule that chose the learning rates."""
    outcomes: Policy
    """What runs that did not train score."""
    pairing: Pairing
    """Whether seeds are paired."""
    transform: Transform
    """Scale on which differences are averaged."""
    population: Literal["seeds", "seeds and digits"]
    """What the interval generalises to."""
    estimate: float
    """The gap, turned back into accuracy."""
    low: float | None = None
    """Lower limit of the interval; null where none is defined."""
    high: float | None = None
    """Upper limit."""
    level: float | None = None
    """Confidence of [low, high]."""
    n: int
    """Pairs, or where unpaired the runs of the model with fewer ..."""
    planned: int
    """... of this many planned."""
    unit: str
    """What n counts."""
    runs: str | None = None
    """Key into findings' `run_sets`."""
    primary: bool = False
    """Whether this is the primary analysis."""


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
    models: tuple[ModelRuns, ModelRuns],
    choices: Mapping[str, Choice],
    n_digits: int,
    classes: int,
    level: float,
    crossed: Crossed | None,
    rests_on: RestsOn | None = None,
) -> Iterator[Specification | None]:
    """Every specification of `models` (candidate, baseline) that is a different analysis, None without an estimate.

    The product of rules (`choices`), policies and transforms, and where both trained also of pairings; raw pairs that
    trained besides over seeds and digits. Scored runs have no interval, so pairing and population would only repeat
    their points.
    """
    ways = [(policy, "paired", transform) for policy, transform in product(get_args(Policy), get_args(Transform))]
    ways += [("both trained", "unpaired", transform) for transform in get_args(Transform)]
    for (position, (rule, choice)), (policy, pairing, transform) in product(enumerate(choices.items()), ways):
        scores = [scores_of(models, part, policy, n_digits, classes) for part in choice]
        parts = [gap_between(c, b, pairing, transform, n_digits, level) for c, b in scores]
        estimate = average(choice, parts)
        if estimate is None:
            yield None
            continue
        simple = (policy, pairing, transform) == ("both trained", "paired", "raw")
        about = dict(
            selection=rule,
            outcomes=policy,
            pairing=pairing,
            transform=transform,
            planned=planned_pairs(models, choice),
            unit="pairs of runs" if pairing == "paired" else "runs of the model with fewer",
            runs=rests_on and rests_on(f"{rule}, {policy}, {pairing}", runs_of(models, choice, policy, pairing)),
        )
        yield Specification(
            population="seeds",
            estimate=estimate,
            n=min(e.n for e in parts),
            primary=simple and position == 0,
            **(_interval(parts[0]) if policy == "both trained" and len(parts) == 1 else {}),
            **about,
        )
        if simple and len(parts) == 1 and crossed is not None:
            seeds = np.flatnonzero(np.isfinite(np.subtract(*scores[0])))
            _, *rates = choice[0]
            e = crossed(rule, *(r[seeds] for r in rates), seeds)
            both = about | dict(n=e.n, runs=e.runs or about["runs"], population="seeds and digits")
            yield None if e.low is None else Specification(estimate=e.estimate, **_interval(e), **both)


def _interval(e: Estimate) -> dict[str, float]:
    return {} if e.low is None else dict(low=e.low, high=e.high, level=e.level)


def gap_between(
    c: NDArray, b: NDArray, pairing: Pairing, transform: Transform, n_digits: int, level: float
) -> Estimate:
    """The gap in accuracy from right digits [seed] of `n_digits`, NaN where there is no number.

    Paired differences are taken between counts, as `gap.paired` takes them, so that the same gap is the same float.
    On logits (of empirical odds, ½ added to right and wrong digits, so that they are finite) it is turned back into
    the gap in accuracy that the same shift makes at the baseline's mean logit.
    """
    if pairing == "paired":
        both = np.isfinite(c - b)
        c, b = c[both], b[both]
    else:
        c, b = c[np.isfinite(c)], b[np.isfinite(b)]
    d, bounds = (c - b) / n_digits if pairing == "paired" else None, (-1.0, 1.0)
    if transform == "logit":
        c, b = (logit((x + 0.5) / (n_digits + 1)) for x in (c, b))
        d, bounds = c - b if pairing == "paired" else None, (-np.inf, np.inf)
    else:
        c, b = c / n_digits, b / n_digits
    about = dict(n=min(c.size, b.size), planned=c.size, unit="pairs of runs", population="seeds")
    if pairing == "paired":
        e = t_interval(d, level, n_planned=d.size, unit="pairs of runs", bounds=bounds)
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
    return e.changed(**shifted)


def scores_of(
    models: tuple[ModelRuns, ModelRuns],
    part: tuple[float, NDArray, NDArray],
    policy: Policy,
    n_digits: int,
    classes: int,
) -> tuple[NDArray, NDArray]:
    """Right digits of candidate and baseline [seed] under a policy, NaN where it gives none; chance as n / classes."""
    chance = n_digits / classes
    chosen = []
    for runs, rates in zip(models, part[1:], strict=True):
        outcome = at_rates(runs.outcome, rates, "")
        score = np.where(outcome == "trained", at_rates(runs.counts, rates, 0), np.nan)
        if policy != "both trained":
            score[np.isin(outcome, ("collapsed", "diverged"))] = chance
        if policy == "worst case":
            # `chosen` is still empty for the candidate; the baseline comes second.
            worst = np.nanmax(np.append(score, chance)) if chosen else chance
            score[np.isin(outcome, ("failed", "missing"))] = worst
        chosen.append(score)
    return chosen[0], chosen[1]


def runs_of(models: tuple[ModelRuns, ModelRuns], choice: Choice, policy: Policy, pairing: Pairing) -> list[str]:
    """The runs that a gap rests on: the candidate's, then the baseline's."""
    found: tuple[dict[str, None], dict[str, None]] = {}, {}
    for _, *rates in choice:
        scored = [np.isin(at_rates(m.outcome, r, ""), SCORED[policy]) for m, r in zip(models, rates, strict=True)]
        if pairing == "paired":
            scored = [np.logical_and(*scored)] * 2
        for ids, runs, r, own in zip(found, models, rates, scored, strict=True):
            ids |= dict.fromkeys(runs.run_ids[r[own], np.flatnonzero(own)])
    return [run_id for ids in found for run_id in ids]


def planned_seeds(runs: ModelRuns, rates: NDArray) -> NDArray[np.bool_]:
    """Whether a run was planned at `rates` [seed]; where no rate could be chosen (−1), whether one was at any."""
    planned = runs.outcome != ""
    return np.where(rates >= 0, at_rates(planned, rates, False), planned.any(axis=0))


def planned_pairs(models: tuple[ModelRuns, ModelRuns], choice: Choice) -> int:
    """Pairs of which both runs were planned; the most of any part of a choice."""
    pairs = (np.logical_and(*map(planned_seeds, models, rates)) for _, *rates in choice)
    return max((int(np.count_nonzero(both)) for both in pairs), default=0)


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

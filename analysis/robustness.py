"""Whether the answer survives other reasonable ways of asking: outcomes of training, specifications, random halves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from analysis import checks
from analysis.estimate import Estimate
from analysis.gap import t_interval

OUTCOMES = ("trained", "collapsed", "diverged", "failed", "missing")
"""The first three are outcomes of training; `failed` and `missing` are the absence of one and are never scored."""

Policy = Literal["both trained", "scored at chance", "worst case"]

Choice = tuple[tuple[float, NDArray[np.int64], NDArray[np.int64]], ...]
"""What a selection rule chose: (weight, candidate's rate [seed], baseline's rate [seed]), positions in the grid; −1: none.

One entry with weight 1, but for re-selection, which averages over the choices made in resamples.
"""


@dataclass(frozen=True)
class ModelRuns:
    """All runs of one model: `counts` of right test digits, integer [rate, seed], and `outcome` in OUTCOMES, str alike.

    A count is read only where the run trained.
    """

    counts: NDArray
    outcome: NDArray


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Outcomes(_Frozen):
    """What became of the planned runs of a configuration."""

    counts: Mapping[str, int]
    planned: int
    not_trained: Estimate
    """Share of runs with an outcome that diverged or collapsed, with Clopper–Pearson limits."""


class Specification(_Frozen):
    """One way to analyse the same data, and the gap it gives, a fraction of accuracy."""

    selection: str
    outcomes: Policy
    pairing: Literal["paired", "unpaired"]
    transform: Literal["raw", "logit"]
    population: Literal["seeds", "seeds and digits"]
    estimate: float
    low: float | None = None
    high: float | None = None
    level: float | None = None
    n_candidate: int
    n_baseline: int
    primary: bool = False


class Robustness(_Frozen):
    """One candidate against one baseline, asked in many ways. Descriptive: specifications share data."""

    outcomes: Mapping[str, Outcomes]
    """`candidate` and `baseline`, at their selected rates."""
    scored_at_chance: Estimate
    worst_case: Estimate
    specifications: tuple[Specification, ...]
    """In ascending order of their estimates."""
    undefined: int
    """Specifications that these data give no estimate for."""
    alternatives: int
    """Specifications other than the primary one ..."""
    same_sign: int | None
    """... and how many of them have its sign; None where it has no estimate."""


def outcomes(outcome: ArrayLike, level: float, runs: str | None = None) -> Outcomes:
    """Count the outcomes of a configuration's planned runs, str [seed], each in OUTCOMES."""
    counts = Counter(str(o) for o in np.asarray(outcome).ravel())
    if unknown := set(counts) - set(OUTCOMES):
        raise ValueError(f"unknown outcomes {sorted(unknown)}")
    planned = counts.total()
    bad = counts["collapsed"] + counts["diverged"]
    n = bad + counts["trained"]
    return Outcomes(
        counts={name: counts[name] for name in OUTCOMES},
        planned=planned,
        not_trained=_share(bad, n, level, dict(planned=planned, unit="runs", population="seeds", runs=runs)),
    )


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


def sensitivity(
    candidate: ModelRuns, baseline: ModelRuns, choice: Choice, policy: Policy, n_digits: int, classes: int
) -> Estimate:
    """The mean gap by another choice of rates or with runs that did not train scored: a point without an interval.

    "scored at chance": diverged and collapsed runs score 1 / classes. "worst case": besides, runs of the candidate
    that failed or are missing score 1 / classes, those of the baseline as its best run. With rare divergence a t
    interval on such scores covers far below its level, so there is none.
    """
    scored = [_scored(candidate, baseline, part, policy, n_digits, classes) for part in choice]
    estimate = _average(choice, [_point(c, b, "paired", "raw", n_digits) for c, b in scored])
    n = min((int(np.isfinite(c - b).sum()) for c, b in scored), default=0)
    about = dict(n=n, planned=candidate.counts.shape[1], unit="pairs of runs", population="seeds", role="sensitivity")
    method = f"mean of paired differences, {policy}; a point without an interval"
    return Estimate(
        estimate=estimate,
        method=method,
        declined="no pair of runs can be scored" if estimate is None else None,
        **about,
    )


def robustness(
    candidate: ModelRuns,
    baseline: ModelRuns,
    choices: Mapping[str, Choice],
    *,
    n_digits: int,
    classes: int,
    level: float,
    crossed: Callable[[NDArray, NDArray, NDArray], Estimate] | None = None,
) -> Robustness:
    """Ask one comparison in every way; the first of `choices` (rule → choice) is the primary one.

    `crossed`, given the candidate's rates, the baseline's rates and the seeds of the pairs that trained, [pair]
    each, gives the gap over seeds and digits; without it that population is left out.
    """
    first = next(iter(choices.values()))
    models = (candidate, baseline)
    picked = [_picked(runs.outcome, rates, "missing") for runs, rates in zip(models, first[0][1:], strict=True)]
    tried = list(_specifications(candidate, baseline, choices, n_digits, classes, level, crossed))
    found = [s for s in tried if s is not None]
    main = next((s for s in found if s.primary), None)
    others = [s for s in found if not s.primary]
    return Robustness(
        outcomes=dict(zip(("candidate", "baseline"), (outcomes(o, level) for o in picked), strict=True)),
        scored_at_chance=sensitivity(candidate, baseline, first, "scored at chance", n_digits, classes),
        worst_case=sensitivity(candidate, baseline, first, "worst case", n_digits, classes),
        specifications=tuple(sorted(found, key=lambda s: s.estimate)),
        undefined=len(tried) - len(found),
        alternatives=len(others),
        same_sign=None if main is None else sum(np.sign(s.estimate) == np.sign(main.estimate) for s in others),
    )


def random_halves(values: ArrayLike, level: float, *, splits: int, seed: int, planned: int) -> Estimate:
    """How often one model differs "significantly" from itself: `values` [seed] split at random into paired halves.

    The share of `splits` whose t interval excludes 0. All splits share the same runs, so this tests the pipeline,
    not the assumptions: it should give about 1 − level. Declined for fewer than 4 seeds.
    """
    values = np.asarray(values, float)
    half = values.size // 2
    about = dict(planned=planned, unit="random halves", role="check")
    method = f"share of splits into halves of {half} seeds whose t interval excludes 0"
    if half < 2 or checks.spread_unknown(values):
        reason = checks.spread_unknown(values) or "fewer than 4 seeds have two halves of at least 2"
        return Estimate(n=0, method=method, declined=reason, **about)
    draw = np.random.default_rng(seed)
    excluded = 0
    for _ in range(splits):
        one, other = draw.permutation(values)[: 2 * half].reshape(2, half)
        e = t_interval(one - other, level, n_planned=half, unit="pairs of runs", bounds=(-np.inf, np.inf))
        excluded += e.low is not None and not e.low <= 0 <= e.high
    warning = "a smoke test of the pipeline: the halves share their runs"
    return Estimate(estimate=excluded / splits, n=splits, method=method, warning=warning, **about)


def _specifications(
    candidate: ModelRuns,
    baseline: ModelRuns,
    choices: Mapping[str, Choice],
    n_digits: int,
    classes: int,
    level: float,
    crossed: Callable[[NDArray, NDArray, NDArray], Estimate] | None,
) -> Iterator[Specification | None]:
    """Every specification that is a different analysis, None for those without an estimate.

    Scored runs have no interval, so pairing and population would only repeat their points.
    """
    primary = next(iter(choices))
    grid = [("both trained", *way) for way in product(("paired", "unpaired"), ("raw", "logit"))]
    grid += [
        (policy, "paired", transform) for policy in ("scored at chance", "worst case") for transform in ("raw", "logit")
    ]
    for (rule, choice), (policy, pairing, transform) in product(choices.items(), grid):
        scored = [_scored(candidate, baseline, part, policy, n_digits, classes) for part in choice]
        estimate = _average(choice, [_point(c, b, pairing, transform, n_digits) for c, b in scored])
        if estimate is None:
            yield None
            continue
        alone = len(scored) == 1
        interval = (
            _interval(*scored[0], pairing, transform, n_digits, level) if alone and policy == "both trained" else None
        )
        n = [min(np.isfinite(x).sum() for x in side) for side in zip(*(_used(c, b, pairing) for c, b in scored))]
        fields = dict(
            selection=rule, outcomes=policy, pairing=pairing, transform=transform, n_candidate=n[0], n_baseline=n[1]
        )
        simplest = (policy, pairing, transform) == ("both trained", "paired", "raw")
        limits = interval or {}
        yield Specification(
            estimate=estimate, population="seeds", primary=simplest and rule == primary, **limits, **fields
        )
        if crossed is not None and simplest and alone:
            yield _crossed(crossed, choice[0], scored[0], fields)

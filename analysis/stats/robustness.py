"""Whether the answer survives other reasonable ways of asking: the specification curve, outcomes, random halves.

The specification curve is every way to analyse one comparison (Simonsohn, Simmons and Nelson 2020). `Models` are the
grids of candidate and baseline, rates their positions in these, one a seed, −1 for none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

from analysis.grid import OUTCOMES, Grid
from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.paired import spread_unknown, t_interval, welch
from analysis.stats.selection import Rule, SelectedRates

Models = tuple[Grid, Grid]

Policy = Literal["both learned", "scored at chance", "worst case"]
SCORED: dict[Policy, tuple[str, ...]] = {
    "both learned": OUTCOMES[:1],
    "scored at chance": OUTCOMES[:3],
    "worst case": OUTCOMES,
}
"""Which runs each policy gives a number."""

WAYS = ("selection", "outcomes", "pairing", "transform", "population")
"""What specifications differ in."""

FEWER = "best of"
"""How a selection among fewer rates is called."""

Pairing = Literal["paired", "unpaired"]
Transform = Literal["raw", "logit"]

OverImages = Callable[[SelectedRates], Estimate]
"""The gap over seeds and test images at selected rates, from the pairs that learned."""


class Outcomes(Frozen):
    """What became of the planned runs of a configuration."""

    counts: Mapping[str, int]
    """Outcome → runs."""
    planned: int
    """Runs planned."""
    not_learned: Estimate
    """Share of runs with an outcome that diverged or collapsed, with Clopper–Pearson limits."""


class Specification(Frozen):
    """One way to analyse the same data, and the gap it gives, a fraction of accuracy."""

    selection: str
    """Rule that chose the learning rates."""
    outcomes: Policy
    """What runs that did not learn score."""
    pairing: Pairing
    """Whether seeds are paired."""
    transform: Transform
    """Scale on which differences are averaged."""
    population: Literal["seeds", "seeds and test images"]
    """What the interval generalises to."""
    gap: Estimate
    """The gap, turned back into accuracy; without an interval where none is defined."""
    primary: bool = False
    """Whether this is the primary analysis."""


class Robustness(Frozen):
    """One candidate against one baseline, asked in many ways. Descriptive: specifications share data."""

    outcomes: Mapping[str, Outcomes]
    """`candidate` and `baseline`, at their selected rates."""
    scored_at_chance: Estimate
    """The gap where diverged and collapsed runs score as guessing: a point."""
    worst_case: Estimate
    """The gap where absent runs besides fall against the candidate: a point."""
    specifications: tuple[Specification, ...]
    """In ascending order of their estimates."""
    undefined: int
    """Specifications that these data give no estimate for."""
    alternatives: int
    """Specifications other than the primary one."""
    distinct: int
    """Different estimates among them, other than the primary one: some specifications coincide ..."""
    same_sign: int | None
    """... and how many of these have its sign; null where it has no estimate, or is 0."""


@dataclass(frozen=True)
class Coinciding:
    """Specifications that give the same estimate."""

    first: Specification
    """The one that departs least from the primary analysis."""
    count: int
    """How many they are."""
    choices: Mapping[str, tuple[str, ...]]
    """What they differ in → the choices that occur among them."""
    intervals: Mapping[str, Estimate]
    """Population → the gap with its interval over it, of the one that departs least; none where none is defined."""


def robustness(
    models: Models,
    rules: Mapping[str, Rule],
    over_images: OverImages,
    best_of_n: Sequence[Estimate] = (),
    *,
    n_images: int,
    classes: int,
    level: float,
) -> Robustness:
    """Ask one comparison in every way; the first of `rules` is the primary one.

    `best_of_n` are the expected gaps with the best of n = 1, 2, … N rates; the last of them is the choice among all.
    """
    primary = next(iter(rules.values()))
    tried = list(specifications(models, rules, over_images, n_images, classes, level))
    found = [*(s for s in tried if s is not None), *fewer_rates(best_of_n[:-1])]
    main = next((s for s in found if s.primary), None)
    others = [s for s in found if not s.primary]
    different = {_rounded(s) for s in others} - ({_rounded(main)} if main else set())
    return Robustness(
        outcomes={
            role: _outcomes_at(grid, rates, level)
            for role, grid, rates in zip(
                ("candidate", "baseline"), models, (primary[0].candidate, primary[0].baseline), strict=True
            )
        },
        scored_at_chance=sensitivity(models, primary, "scored at chance", n_images, classes),
        worst_case=sensitivity(models, primary, "worst case", n_images, classes),
        specifications=tuple(sorted(found, key=_estimate)),
        undefined=sum(s is None for s in tried),
        alternatives=len(others),
        distinct=len(different),
        same_sign=sum(value * _rounded(main) > 0 for value in different) if main and _rounded(main) else None,
    )


# the specification curve


def specifications(
    models: Models, rules: Mapping[str, Rule], over_images: OverImages, n_images: int, classes: int, level: float
) -> Iterator[Specification | None]:
    """Every specification that is a different analysis, None without an estimate.

    The product of rules, policies and transforms, and where both learned also of pairings; raw pairs that learned
    besides over seeds and test images. Scored runs have no interval, so pairing and population would only repeat
    their points.
    """
    ways = [(policy, "paired", transform) for policy, transform in product(get_args(Policy), get_args(Transform))]
    ways += [("both learned", "unpaired", transform) for transform in get_args(Transform)]
    for (position, (name, rule)), (policy, pairing, transform) in product(enumerate(rules.items()), ways):
        gap = gap_by(models, rule, policy, pairing, transform, n_images, classes, level)
        if gap.estimate is None:
            yield None
            continue
        simple = (policy, pairing, transform) == ("both learned", "paired", "raw")
        way = dict(selection=name, outcomes=policy, pairing=pairing, transform=transform)
        yield Specification(**way, population="seeds", gap=gap, primary=simple and position == 0)
        if simple and len(rule) == 1:
            both = over_images(rule[0])
            yield None if both.low is None else Specification(**way, population="seeds and test images", gap=both)


def fewer_rates(expected: Sequence[Estimate]) -> Iterator[Specification]:
    """The specifications in which each model tries n = 1, 2, … of the learning rates."""
    for n, gap in enumerate(expected, 1):
        yield Specification(
            selection=f"{FEWER} {n} {'rate' if n == 1 else 'rates'}",
            outcomes="scored at chance",
            pairing="unpaired",
            transform="raw",
            population="seeds",
            gap=gap,
        )


def coinciding(specs: Sequence[Specification]) -> list[Coinciding]:
    """The specifications by their estimates, each once, in ascending order."""
    groups: dict[float, list[Specification]] = {}
    for spec in specs:
        groups.setdefault(_rounded(spec), []).append(spec)
    found = []
    for _, group in sorted(groups.items()):
        nearest = sorted(
            group, key=lambda s: (not s.primary, s.gap.low is None, s.population != "seeds", s.pairing != "paired")
        )
        found.append(
            Coinciding(
                first=nearest[0],
                count=len(group),
                choices={way: tuple(dict.fromkeys(getattr(s, way) for s in group)) for way in WAYS},
                intervals={s.population: s.gap for s in reversed(nearest) if s.gap.interval},
            )
        )
    return found


def gap_by(
    models: Models,
    rule: Rule,
    policy: Policy,
    pairing: Pairing,
    transform: Transform,
    n_images: int,
    classes: int,
    level: float,
) -> Estimate:
    """The gap by one rule of selection, averaged over its parts; an interval for pairs that learned at one part."""
    basis = Basis(
        method="mean of paired differences" if pairing == "paired" else "difference of means",
        n=0,
        planned=planned_pairs(models, rule),
        unit="pairs of runs" if pairing == "paired" else "runs of the model with fewer",
        population="seeds",
        runs=runs_of(models, rule, policy, pairing),
    )
    parts = [
        gap_between(*scores_of(models, rates, policy, n_images, classes), pairing, transform, n_images, level, basis)
        for rates in rule
    ]
    if len(parts) == 1 and policy == "both learned":
        return parts[0]
    estimate = average(rule, parts)
    basis = basis.changed(n=min((e.n for e in parts), default=0))
    return basis.declines("no pair of runs can be scored") if estimate is None else basis.gives(estimate)


def gap_between(
    c: NDArray,
    b: NDArray,
    pairing: Pairing,
    transform: Transform,
    n_images: int,
    level: float,
    basis: Basis,
) -> Estimate:
    """The gap in accuracy from right test images [seed] of `n_images`, NaN where there is no number.

    Paired differences are taken between counts, as `paired.paired` takes them, so that the same gap is the same
    float. On logits (of empirical odds, ½ added to right and wrong images, so that they are finite) the gap is that of
    the accuracies whose logits are the two means. Both means are estimated: the interval is by the delta method, from
    logits made linear about them, whose differences carry variances and covariance at once.
    """
    if pairing == "unpaired":
        c, b = (_on_scale(x[np.isfinite(x)], transform, n_images) for x in (c, b))
        e = welch(c, b, level, basis.changed(n=min(c.size, b.size)))
    else:
        both = np.isfinite(c - b)
        d = (c - b)[both] / n_images
        if transform == "logit":
            d = np.subtract(*(_on_scale(x[both], transform, n_images) for x in (c, b)))
        e = t_interval(d, level, basis)
    return e if transform == "raw" else e.changed(method=f"{e.method}, on logits by the delta method")


def _on_scale(right: NDArray, transform: Transform, n_images: int) -> NDArray[np.float64]:
    """Accuracies [run], raw or as `on_logits` gives them."""
    return right / n_images if transform == "raw" or not right.size else on_logits(right, n_images)


def on_logits(right: NDArray, n_images: int, counted: NDArray[np.bool_] | bool = True) -> NDArray[np.float64]:
    """Accuracies [..., run] made linear about the mean logit of those `counted`, so that their mean is its accuracy."""
    logits = logit((right + 0.5) / (n_images + 1))
    mean = logits.mean(axis=-1, keepdims=True, where=counted)
    center = expit(mean)
    return center + center * (1 - center) * (logits - mean)


def scores_of(
    models: Models, rates: SelectedRates, policy: Policy, n_images: int, classes: int
) -> tuple[NDArray, NDArray]:
    """Right test images of candidate and baseline [seed] under a policy, NaN where it gives none.

    Chance is n / classes. The worst case is the candidate's: its absent runs score as guessing, those of the baseline
    as its best run.
    """
    chance = n_images / classes
    candidate = _scores(models[0], rates.candidate, policy, chance)
    baseline = _scores(models[1], rates.baseline, policy, chance)
    if policy == "worst case":
        candidate[_absent(models[0], rates.candidate)] = chance
        baseline[_absent(models[1], rates.baseline)] = np.nanmax(np.append(baseline, chance))
    return candidate, baseline


def _scores(grid: Grid, rates: NDArray, policy: Policy, chance: float) -> NDArray[np.float64]:
    """Right test images [seed] of the runs that learned; chance, where the policy says so, of those that did not."""
    score = np.where(at_rates(grid.learned, rates, False), at_rates(grid.right, rates, 0), np.nan)
    if policy != "both learned":
        score[at_rates(grid.not_learned, rates, False)] = chance
    return score


def _absent(grid: Grid, rates: NDArray) -> NDArray[np.bool_]:
    return at_rates(grid.absent, rates, False)


def runs_of(models: Models, rule: Rule, policy: Policy, pairing: Pairing) -> tuple[str, ...]:
    """The runs that a gap rests on: the candidate's, then the baseline's."""
    found: tuple[dict[str, None], dict[str, None]] = {}, {}
    for part in rule:
        rates = part.candidate, part.baseline
        scored = [np.isin(at_rates(m.outcome, r, ""), SCORED[policy]) for m, r in zip(models, rates, strict=True)]
        if pairing == "paired":
            scored = [np.logical_and(*scored)] * 2
        for ids, grid, r, own in zip(found, models, rates, scored, strict=True):
            ids |= dict.fromkeys(grid.run_ids[r[own], np.flatnonzero(own)])
    return tuple(str(run_id) for ids in found for run_id in ids)


def planned_pairs(models: Models, rule: Rule) -> int:
    """Pairs of which both runs were planned; the most of any part of a rule."""
    pairs = (planned_seeds(models[0], part.candidate) & planned_seeds(models[1], part.baseline) for part in rule)
    return max((int(np.count_nonzero(both)) for both in pairs), default=0)


def planned_seeds(grid: Grid, rates: NDArray) -> NDArray[np.bool_]:
    """Whether a run was planned at `rates` [seed]; where no rate could be chosen (−1), whether one was at any."""
    return np.where(rates >= 0, at_rates(grid.planned, rates, False), grid.planned.any(axis=0))


def at_rates(table: NDArray, rates: NDArray, absent: bool | int | str) -> NDArray:
    """The entries of `table` [rate, seed] at one rate per seed [seed], `absent` where that is −1."""
    if not table.size:
        return np.full(rates.size, absent)
    return np.where(rates >= 0, table[rates, np.arange(rates.size)], absent)


def average(rule: Rule, parts: list[Estimate]) -> float | None:
    """The weighted mean of estimates; None where one of them is undefined."""
    values = [e.estimate for e in parts if e.estimate is not None]
    if not parts or len(values) < len(parts):
        return None
    return float(sum(rates.weight * value for rates, value in zip(rule, values, strict=True)))


# outcomes and what scoring them does


def outcomes(outcome: ArrayLike, level: float, runs: tuple[str, ...] = ()) -> Outcomes:
    """Count the outcomes of a configuration's planned runs, str [seed], each in OUTCOMES; "" was not planned."""
    counts = Counter(str(o) for o in np.asarray(outcome).ravel() if o != "")
    if unknown := set(counts) - set(OUTCOMES):
        raise ValueError(f"unknown outcomes {sorted(unknown)}")
    planned = counts.total()
    bad = counts["collapsed"] + counts["diverged"]
    n = bad + counts["learned"]
    basis = Basis(
        method="share with Clopper–Pearson limits", n=n, planned=planned, unit="runs", population="seeds", runs=runs
    )
    if n == 0:
        share = basis.declines("no run has an outcome")
    else:
        low, high = proportion_confint(bad, n, 1 - level, method="beta")
        share = basis.gives(bad / n, float(low), float(high), level)
    return Outcomes(counts={name: counts[name] for name in OUTCOMES}, planned=planned, not_learned=share)


def _outcomes_at(grid: Grid, rates: NDArray, level: float) -> Outcomes:
    """The outcomes at the selected rates. Where none could be chosen, no run of any rate has one: all are counted."""
    chosen = (rates >= 0).all()
    outcome, run_ids = (
        at_rates(table, rates, "") if chosen else table.ravel() for table in (grid.outcome, grid.run_ids)
    )
    return outcomes(outcome, level, tuple(str(i) for i in run_ids if i))


def sensitivity(models: Models, rule: Rule, policy: Policy, n_images: int, classes: int) -> Estimate:
    """The mean gap by another choice of rates or with runs that did not learn scored: a point without an interval.

    "scored at chance": diverged and collapsed runs score 1 / classes. "worst case": besides, runs of the candidate
    that failed or are missing score 1 / classes, those of the baseline as its best run. With rare divergence a t
    interval on such scores covers far below its level, so there is none.
    """
    gap = gap_by(models, rule, policy, "paired", "raw", n_images, classes, 0.95)
    return gap.changed(
        method=f"mean of paired differences, {policy}: a point without an interval",
        role="sensitivity",
        low=None,
        high=None,
        level=None,
        declined=None if gap.estimate is not None else "no pair of runs can be scored",
    )


def random_halves(values: ArrayLike, level: float, basis: Basis, *, splits: int, seed: int) -> Estimate:
    """How often one model differs "significantly" from itself: `values` [seed] split at random into paired halves.

    The share of `splits` whose t interval excludes 0. All splits share the same runs, so this tests the pipeline,
    not the assumptions: it should come to about 1 − level. Declined for fewer than 4 seeds.
    """
    values = np.asarray(values, float)
    half = values.size // 2
    basis = basis.changed(
        method=f"share of splits into halves of {half} seeds whose t interval excludes 0, "
        f"{splits:,} drawn, seed {seed}",
        n=splits,
        planned=splits,
        unit="random halves",
        role="check",
    )
    if half < 2 or spread_unknown(values):
        reason = spread_unknown(values) or "fewer than 4 seeds have two halves of at least 2"
        return basis.changed(n=0).declines(reason)
    shuffled = np.random.default_rng(seed).permuted(np.tile(values, (splits, 1)), axis=1)
    d = shuffled[:, :half] - shuffled[:, half : 2 * half]
    spread = np.ptp(d, axis=1) > 1e-12  # without it there is no interval to exclude anything
    t = d[spread].mean(axis=1) / (d[spread].std(axis=1, ddof=1) / np.sqrt(half))
    excluded = np.count_nonzero(np.abs(t) > stats.t.ppf((1 + level) / 2, half - 1))
    return basis.gives(excluded / splits, warning="a smoke test of the pipeline: the halves share their runs")


def _rounded(spec: Specification) -> float:
    """The estimate; sums that differ by rounding alone are equal."""
    return round(_estimate(spec), 12) + 0.0


def _estimate(spec: Specification) -> float:
    """Every specification that is kept has an estimate."""
    assert spec.gap.estimate is not None
    return spec.gap.estimate

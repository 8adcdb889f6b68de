"""Whether the answer survives other reasonable ways of asking: outcomes of training, specifications, random halves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from analysis.grid import OUTCOMES, ModelRuns
from analysis.stats import checks
from analysis.stats.estimate import Estimate, Frozen
from analysis.stats.specifications import (
    Choice,
    Crossed,
    Policy,
    RestsOn,
    Specification,
    at_rates,
    average,
    gap_between,
    planned_pairs,
    runs_of,
    scores_of,
    specifications,
)


class Outcomes(Frozen):
    """What became of the planned runs of a configuration."""

    counts: Mapping[str, int]
    """Outcome → runs."""
    planned: int
    """Runs planned."""
    not_trained: Estimate
    """Share of runs with an outcome that diverged or collapsed, with Clopper–Pearson limits."""


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
    """Specifications other than the primary one ..."""
    same_sign: int | None
    """... and how many of them have its sign; None where it has no estimate."""
    distinct: int
    """Different estimates among all of them: where every run trained, some specifications coincide."""


def outcomes(outcome: ArrayLike, level: float, runs: str | None = None) -> Outcomes:
    """Count the outcomes of a configuration's planned runs, str [seed], each in OUTCOMES; "" was not planned."""
    counts = Counter(str(o) for o in np.asarray(outcome).ravel() if o != "")
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


def sensitivity(
    models: tuple[ModelRuns, ModelRuns],
    choice: Choice,
    policy: Policy,
    n_digits: int,
    classes: int,
    runs: str | None = None,
) -> Estimate:
    """The mean gap by another choice of rates or with runs that did not train scored: a point without an interval.

    "scored at chance": diverged and collapsed runs score 1 / classes. "worst case": besides, runs of the candidate
    that failed or are missing score 1 / classes, those of the baseline as its best run. With rare divergence a t
    interval on such scores covers far below its level, so there is none. `models`: candidate, baseline.
    """
    parts = [
        gap_between(*scores_of(models, part, policy, n_digits, classes), "paired", "raw", n_digits, 0.95)
        for part in choice
    ]
    estimate = average(choice, parts)
    return Estimate(
        estimate=estimate,
        method=f"mean of paired differences, {policy}: a point without an interval",
        n=min((e.n for e in parts), default=0),
        planned=planned_pairs(models, choice),
        unit="pairs of runs",
        population="seeds",
        role="sensitivity",
        declined="no pair of runs can be scored" if estimate is None else None,
        runs=runs,
    )


def robustness(
    candidate: ModelRuns,
    baseline: ModelRuns,
    choices: Mapping[str, Choice],
    *,
    n_digits: int,
    classes: int,
    level: float,
    crossed: Crossed | None = None,
    rests_on: RestsOn | None = None,
) -> Robustness:
    """Ask one comparison in every way; the first of `choices` (rule → choice) is the primary one.

    Without `crossed` the population of seeds and digits is left out. `rests_on` notes the runs.
    """
    first = next(iter(choices.values()))
    models = (candidate, baseline)
    tried = list(specifications(models, choices, n_digits, classes, level, crossed, rests_on))
    found = [s for s in tried if s is not None]
    main = next((s for s in found if s.primary), None)
    others = [s for s in found if not s.primary]

    def scored(policy: Policy) -> Estimate:
        key = rests_on and rests_on(policy, runs_of(models, first, policy, "paired"))
        return sensitivity(models, first, policy, n_digits, classes, key)

    def counted(role: str, runs: ModelRuns, rates: NDArray) -> Outcomes:
        # Where no rate could be chosen, no run of any rate has an outcome: all of them are counted.
        picked = [
            at_rates(table, rates, "") if (rates >= 0).all() else table.ravel()
            for table in (runs.outcome, runs.run_ids)
            if table is not None
        ]
        key = rests_on and rests_on(f"{role}'s planned", [i for i in picked[1] if i])
        return outcomes(picked[0], level, key)

    return Robustness(
        outcomes={
            role: counted(role, runs, rates)
            for role, runs, rates in zip(("candidate", "baseline"), models, first[0][1:], strict=True)
        },
        scored_at_chance=scored("scored at chance"),
        worst_case=scored("worst case"),
        specifications=tuple(sorted(found, key=lambda s: s.estimate)),
        undefined=len(tried) - len(found),
        alternatives=len(others),
        same_sign=None if main is None else sum(_sign(s) == _sign(main) for s in others),
        distinct=len({round(s.estimate, 12) for s in found}),
    )


def random_halves(
    values: ArrayLike, level: float, *, splits: int, seed: int, planned: int, runs: str | None = None
) -> Estimate:
    """How often one model differs "significantly" from itself: `values` [seed] split at random into paired halves.

    The share of `splits` whose t interval excludes 0. All splits share the same runs, so this tests the pipeline,
    not the assumptions: it should come to about 1 − level. Declined for fewer than 4 seeds.
    """
    values = np.asarray(values, float)
    half = values.size // 2
    about = dict(planned=planned, unit="random halves", role="check", runs=runs)
    method = f"share of splits into halves of {half} seeds whose t interval excludes 0, {splits:,} drawn, seed {seed}"
    if half < 2 or checks.spread_unknown(values):
        reason = checks.spread_unknown(values) or "fewer than 4 seeds have two halves of at least 2"
        return Estimate(n=0, method=method, declined=reason, **about)
    shuffled = np.random.default_rng(seed).permuted(np.tile(values, (splits, 1)), axis=1)
    d = shuffled[:, :half] - shuffled[:, half : 2 * half]
    spread = np.ptp(d, axis=1) > 1e-12  # without it there is no interval to exclude anything
    t = d[spread].mean(axis=1) / (d[spread].std(axis=1, ddof=1) / np.sqrt(half))
    excluded = np.count_nonzero(np.abs(t) > stats.t.ppf((1 + level) / 2, half - 1))
    warning = "a smoke test of the pipeline: the halves share their runs"
    return Estimate(estimate=excluded / splits, n=splits, method=method, warning=warning, **about)


def _sign(spec: Specification) -> float:
    """Of the estimate; sums that differ from 0 by rounding alone count as 0."""
    return float(np.sign(round(spec.estimate, 12)))


def _share(count: int, n: int, level: float, about: dict) -> Estimate:
    method = "share with Clopper–Pearson limits"
    if n == 0:
        return Estimate(n=0, method=method, declined="no run has an outcome", **about)
    low, high = map(float, proportion_confint(count, n, 1 - level, method="beta"))
    return Estimate(estimate=count / n, low=low, high=high, level=level, n=n, method=method, **about)

"""The primary estimand: the candidate against one baseline, each at its selected learning rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis import digits, gap, planning, robustness, selection, sweep
from analysis.estimate import Estimate
from analysis.findings import Comparison, Digits
from analysis.grid import Grid
from analysis.pair import Pair
from analysis.planning import Planning
from analysis.robustness import Robustness
from analysis.specifications import Choice as Rates
from analysis.specifications import accuracies_of, at_rates
from analysis.sweep import Sweep

WORDS = {
    "median": "with the best median",
    "cross-fitted": "chosen without the pair's own seed",
    "re-selected": "chosen again in each resample of seeds and validation digits",
}
"""Rules of selection in a reader's words."""

RANGE = "a range over resamples, not a confidence interval: no coverage is claimed"


def compare(pair: Pair) -> tuple[Comparison, Robustness]:
    """The primary gap with all that goes with it, and the same question asked in many other ways."""
    used, grids = pair.used, pair.grids
    n_test = pair.frames.study.dataset.n_test
    both = np.logical_and(*pair.of("trained", False))
    planned = np.logical_and(*pair.of("planned", False))
    right = [counts[both] for counts in pair.of("right", -1)]
    ids = [list(run_ids[both]) for run_ids in pair.of("run_ids", "")]
    key = pair.rests_on(pair.name, ids[0] + ids[1])
    over_seeds = gap.paired(
        *right,
        n_test,
        level=used.confidence,
        verdict_level=1 - (1 - used.confidence) / len(used.baselines),
        margin=used.margin,
        planned=int(planned.sum()),
        resamples=used.resamples,
        seed=used.seed,
        runs=key,
        role="confirmatory",
    )
    over_digits = pair.over_digits(pair.correct, key)
    asked = robustness.robustness(
        grids[0].runs,
        grids[1].runs,
        pair.rules,
        n_digits=n_test,
        classes=pair.frames.classes,
        level=used.confidence,
        crossed=lambda *cells: pair.over_digits(pair.right_digits(*cells)),
    )
    asked = _rests_on(pair, asked)
    errors = [float(1 - counts.mean() / n_test) if len(counts) else None for counts in right]
    found = Comparison(
        baseline=pair.baseline,
        candidate_rate=pair.chosen[0].choice.mean.learning_rate,
        baseline_rate=pair.chosen[1].choice.mean.learning_rate,
        candidate_error=errors[0],
        baseline_error=errors[1],
        pairs=int(both.sum()),
        planned=int(planned.sum()),
        not_trained=_count(grids, pair.of("untrained", False)),
        absent=_count(grids, pair.of("absent", False)),
        seeds=over_seeds,
        digits=over_digits,
        mcnemar=None if pair.correct is None else gap.mcnemar(*pair.correct, used.confidence),
        p_holm=None,
        sensitivity=sensitivities(pair) | {name: getattr(asked, name) for name in ("scored_at_chance", "worst_case")},
        best_of_n=best_of_n(pair),
        unqualified=_excludes_zero(over_seeds.mean) and _excludes_zero(over_digits),
    )
    return found, asked


def across_rates(pair: Pair) -> Sweep:
    """The gap at every learning rate that was planned for both models, p-values not yet adjusted."""
    c, b = pair.grids
    planned = c.planned & b.planned
    rows = planned.any(axis=1)
    both = c.trained & b.trained
    return sweep.across_rates(
        c.rates[rows],
        *(grid.right[rows].T for grid in pair.grids),
        *(grid.trained[rows].T for grid in pair.grids),
        pair.frames.study.dataset.n_test,
        level=pair.used.confidence,
        planned=int(planned.sum(axis=1).max(initial=0)),
        seed=pair.used.seed,
        ended_candidate=(c.trained | c.untrained)[rows].T,
        ended_baseline=(b.trained | b.untrained)[rows].T,
        runs=pair.rests_on(f"{pair.name}, all rates", [*c.run_ids[both], *b.run_ids[both]]),
    )


def on_digits(pair: Pair) -> Digits:
    """The primary gap digit by digit, p-values not yet adjusted."""
    if pair.correct is None:
        return Digits(crossed=None, classes=(), hard=None)
    about = dict(
        level=pair.used.confidence,
        planned=int(np.count_nonzero(np.logical_and(*pair.of("planned", False)))),
        runs=pair.name,
    )
    by_class = digits.by_class(*pair.correct, pair.frames.test_labels, pair.frames.classes, **about)
    return Digits(
        crossed=digits.crossed(*pair.correct, resamples=pair.used.resamples, seed=pair.used.seed, **about),
        classes=tuple(c.model_copy(update=dict(gap=c.gap.model_copy(update=dict(p_value=p)))) for c, p in by_class),
        hard=digits.hard_digits(*pair.correct),
    )


def plan(pair: Pair) -> Planning:
    """What more seeds would bring, for intervals of twice the margin, the margin and half of it."""
    both = np.logical_and(*pair.of("trained", False))
    n_test, margin = pair.frames.study.dataset.n_test, pair.used.margin
    return planning.plan(
        np.subtract(*(counts[both] for counts in pair.of("right", -1))) / n_test,
        None if pair.correct is None else np.subtract(*(c.astype(np.int8) for c in pair.correct)),
        n_test,
        level=pair.used.confidence,
        half_widths=(2 * margin, margin, margin / 2),
        planned=int(np.count_nonzero(np.logical_and(*pair.of("planned", False)))),
        runs=pair.name,
    )


def sensitivities(pair: Pair) -> dict[str, Estimate]:
    """The gap over pairs that trained, with the learning rates chosen by the other rules: points."""
    return {
        rule.replace("-", "_"): _with_range(pair, choice, rule) if len(choice) > 1 else _point(pair, choice, rule)
        for rule, choice in pair.rules.items()
        if rule != "mean"
    }


def best_of_n(pair: Pair) -> tuple[float, ...]:
    """Expected gap with the validation-best of n learning rates, n = 1, 2, … up to all that both models have.

    Runs that diverged or collapsed score as guessing; failed and missing ones have no score.
    """
    expected = []
    for grid in pair.grids:
        chance = 1 / pair.frames.classes
        test = np.where(grid.trained, grid.right / pair.frames.study.dataset.n_test, chance)
        counted = grid.trained | grid.untrained
        rows = np.flatnonzero(counted.any(axis=1))
        val = np.full(grid.run_ids.shape, np.nan)
        val[np.searchsorted(grid.rates, grid.validation.rates)] = grid.validation.score
        means = [[float(np.mean(scores[row][counted[row]])) for row in rows] for scores in (val, test)]
        expected.append(selection.best_of_n(*means))
    common = min(map(len, expected))
    return tuple(float(c - b) for c, b in zip(expected[0][:common], expected[1][:common], strict=True))


def _point(pair: Pair, choice: Rates, rule: str) -> Estimate:
    found = robustness.sensitivity(
        *(grid.runs for grid in pair.grids),
        choice,
        "both trained",
        pair.frames.study.dataset.n_test,
        pair.frames.classes,
    )
    key = pair.rests_on(f"{pair.name}, rates {WORDS[rule]}", _trained(pair, choice))
    return found.model_copy(update=dict(method=f"mean of paired differences, rates {WORDS[rule]}", runs=key))


def _with_range(pair: Pair, choice: Rates, rule: str) -> Estimate:
    """The mean over resamples with the range that holds the share `confidence` of them."""
    mean = _point(pair, choice, rule)
    if mean.estimate is None:
        return mean
    runs = [grid.runs for grid in pair.grids]
    n_test = pair.frames.study.dataset.n_test
    gaps = (accuracies_of(*runs, part, "both trained", n_test, pair.frames.classes) for part in choice)
    values = np.array([np.nanmean(c - b) for c, b in gaps])
    order = np.argsort(values)
    reached = np.cumsum([choice[i][0] for i in order])
    tail = (1 - pair.used.confidence) / 2
    low, high = (float(values[order][np.searchsorted(reached, q)]) for q in (tail + 1e-12, 1 - tail - 1e-12))
    if not low < high:
        return mean.model_copy(update=dict(warning="all but a few resamples choose the same rates: no range to give"))
    return mean.model_copy(update=dict(low=low, high=high, level=pair.used.confidence, warning=RANGE))


def _trained(pair: Pair, choice: Rates) -> list[str]:
    """The runs of all pairs that trained at the rates of a choice."""
    found = {}
    for _, *rates in choice:
        both = np.logical_and(*(at_rates(g.trained, r, False) for g, r in zip(pair.grids, rates, strict=True)))
        for grid, r in zip(pair.grids, rates, strict=True):
            found |= dict.fromkeys(grid.run_ids[r[both], np.flatnonzero(both)])
    return list(found)


def _rests_on(pair: Pair, asked: Robustness) -> Robustness:
    """The points that score runs which did not train rest on every planned pair."""
    planned = np.logical_and(*pair.of("planned", False))
    ids = [run_id for run_ids in pair.of("run_ids", "") for run_id in run_ids[planned]]
    key = pair.rests_on(f"{pair.name}, all planned", ids)
    points = {name: getattr(asked, name) for name in ("scored_at_chance", "worst_case")}
    return asked.model_copy(update={n: e.model_copy(update=dict(runs=key)) for n, e in points.items()})


def _count(grids: tuple[Grid, Grid], wanted: list[NDArray]) -> dict[str, int]:
    return {grid.model: int(np.count_nonzero(cells)) for grid, cells in zip(grids, wanted, strict=True)}


def _excludes_zero(estimate: Estimate) -> bool:
    return estimate.low is not None and (estimate.low > 0 or estimate.high < 0)

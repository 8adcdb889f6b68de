"""The primary estimand: the candidate against one baseline, each at its selected learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis import digits, gap, robustness, selection, sweep
from analysis.choice import Chosen, rules
from analysis.estimate import Estimate
from analysis.findings import Comparison, Digits, Settings
from analysis.frames import Frames
from analysis.grid import Grid
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


@dataclass(frozen=True)
class Pair:
    """Two models of a study that are compared, the candidate first, and what comparing them needs."""

    frames: Frames
    used: Settings
    grids: tuple[Grid, Grid]
    chosen: tuple[Chosen, Chosen]
    rests_on: Callable[[str, list[str]], str]
    """Notes the runs that a finding rests on under a key, which it returns."""

    @property
    def baseline(self) -> str:
        """The model that the candidate is compared with."""
        return self.grids[1].model

    @property
    def name(self) -> str:
        """Names the pair in `run_sets`."""
        return " against ".join(grid.model for grid in self.grids)

    @cached_property
    def rules(self) -> dict[str, Rates]:
        """Rule of selection → the rates it gives; the first is the primary one."""
        return rules(*zip(self.grids, self.chosen, strict=True))

    @cached_property
    def primary(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The selected rates of both models, positions in the grid [seed], −1 for none."""
        ((_, candidate, baseline),) = self.rules["mean"]
        return candidate, baseline

    def of(self, what: str, absent: object) -> list[NDArray]:
        """The array `what` of both grids at the selected rates: [seed] each."""
        return [at_rates(getattr(g, what), rates, absent) for g, rates in zip(self.grids, self.primary, strict=True)]

    @cached_property
    def correct(self) -> list[NDArray[np.bool_]] | None:
        """Which test digits each run of the pairs that trained got right: bool [pair, digit] each; None if unknown."""
        both = np.logical_and(*self.of("trained", False))
        return self.right_digits(*(rates[both] for rates in self.primary), np.flatnonzero(both))

    def right_digits(self, rates_c: NDArray, rates_b: NDArray, seeds: NDArray) -> list[NDArray[np.bool_]] | None:
        """The same for pairs at these rates and seeds, positions in the grid [pair]."""
        ids = [list(g.run_ids[rates, seeds]) for g, rates in zip(self.grids, (rates_c, rates_b), strict=True)]
        correct = [self.frames.correct(run_ids) for run_ids in ids]
        return None if any(c is None for c in correct) else correct

    def over_digits(self, correct: list[NDArray[np.bool_]] | None, key: str | None = None) -> Estimate:
        """The gap over seeds and digits."""
        planned = int(np.count_nonzero(np.logical_and(*self.of("planned", False))))
        if correct is None:
            return Estimate(
                method="two-way crossed analysis of variance",
                n=0,
                planned=planned,
                unit="pairs of runs",
                population="seeds and digits",
                role="confirmatory",
                runs=key,
                declined="no pair of runs trained whose predictions are all there",
            )
        difference = np.subtract(*(c.astype(np.int8) for c in correct))
        return digits.gap_over_digits(difference, level=self.used.confidence, planned=planned, runs=key)


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


def on_digits(pair: Pair) -> tuple[Digits, list[float | None]]:
    """The primary gap digit by digit, and the p-value of every class, not yet adjusted."""
    if pair.correct is None:
        return Digits(crossed=None, classes=(), hard=None), []
    about = dict(
        level=pair.used.confidence,
        planned=int(np.count_nonzero(np.logical_and(*pair.of("planned", False)))),
        runs=pair.name,
    )
    by_class = digits.by_class(*pair.correct, pair.frames.test_labels, pair.frames.classes, **about)
    found = Digits(
        crossed=digits.crossed(*pair.correct, resamples=pair.used.resamples, seed=pair.used.seed, **about),
        classes=tuple(entry for entry, _ in by_class),
        hard=digits.hard_digits(*pair.correct),
    )
    return found, [p for _, p in by_class]


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


def _count(grids: tuple[Grid, Grid], wanted: list[NDArray]) -> dict[str, int]:
    return {grid.model: int(np.count_nonzero(cells)) for grid, cells in zip(grids, wanted, strict=True)}


def _excludes_zero(estimate: Estimate) -> bool:
    return estimate.low is not None and (estimate.low > 0 or estimate.high < 0)

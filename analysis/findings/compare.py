"""The primary estimand: the candidate against one baseline, each at its selected learning rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.findings.pair import Pair
from analysis.findings.schema import Comparison, Digits
from analysis.stats import crossed, paired, robustness, sample_size, selection, sweep
from analysis.stats.choice import over_common_seeds
from analysis.stats.estimate import Estimate, excludes_zero
from analysis.stats.robustness import Robustness
from analysis.stats.sample_size import Planning
from analysis.stats.specifications import Choice as Rates
from analysis.stats.specifications import at_rates, runs_of, scores_of
from analysis.stats.sweep import Sweep

WORDS = {
    "median": "with the best median",
    "cross-fitted": "chosen without the pair's own seed",
    "re-selected": "chosen again in each of {resamples:,} resamples of seeds and validation digits, seed {seed}",
    "common seeds": "chosen over the seeds that every rate has a score of",
}
"""Rules of selection in a reader's words."""

RANGE = "a range over resamples, not a confidence interval: no coverage is claimed"

SHARED = "pairs share initial weights or batch orders: too short, or too small, by an unknown amount"
"""What is wrong with intervals and p-values over the seeds of a factorial."""


def compare(pair: Pair) -> tuple[Comparison, Robustness]:
    """The primary gap with all that goes with it, and the same question asked in many other ways."""
    used, n_test = pair.used, pair.frames.study.dataset.n_test
    right = [counts[pair.trained] for counts in pair.of("right", -1)]
    ids = [list(run_ids[pair.trained]) for run_ids in pair.of("run_ids", "")]
    over_seeds = paired.paired(
        *right,
        n_test,
        level=used.confidence,
        verdict_level=used.verdict_level,
        margin=used.margin,
        planned=pair.planned,
        resamples=used.resamples,
        seed=used.seed,
        runs=pair.rests_on(pair.name, ids[0] + ids[1]),
        role="confirmatory",
    )
    over_digits, at_verdict = (
        pair.over_digits("mean", *pair.cells, level, "confirmatory") for level in (used.confidence, used.verdict_level)
    )
    if not pair.independent:
        over_seeds = paired.not_independent(over_seeds, SHARED)
        over_digits, at_verdict = over_digits.warned(SHARED), at_verdict.warned(SHARED)
    asked = robustness.robustness(
        *pair.models,
        pair.rules,
        n_digits=n_test,
        classes=pair.frames.classes,
        level=used.confidence,
        crossed=lambda *cells: pair.over_digits(*cells, used.confidence),
        rests_on=lambda key, run_ids: pair.rests_on(f"{pair.name}, {key}", run_ids),
    )
    errors = [float(1 - counts.mean() / n_test) if len(counts) else None for counts in right]
    found = Comparison(
        baseline=pair.baseline,
        candidate_rate=pair.chosen[0].choice.mean.learning_rate,
        baseline_rate=pair.chosen[1].choice.mean.learning_rate,
        candidate_error=errors[0],
        baseline_error=errors[1],
        pairs=int(pair.trained.sum()),
        planned=pair.planned,
        not_trained=_count(pair, "untrained"),
        absent=_count(pair, "absent"),
        seeds=over_seeds,
        digits=over_digits,
        digits_verdict=at_verdict,
        mcnemar=None
        if pair.correct is None
        else paired.mcnemar(*pair.correct, used.confidence, planned=pair.planned, runs=over_digits.runs),
        p_holm=None,
        sensitivity=sensitivities(pair) | {name: getattr(asked, name) for name in ("scored_at_chance", "worst_case")},
        best_of_n=best_of_n(pair),
        independent=pair.independent,
        unqualified=pair.independent and excludes_zero(over_seeds.verdict_interval, at_verdict),
    )
    return found, asked


def common_rates(pair: Pair) -> NDArray[np.bool_]:
    """The learning rates that were planned for both models [rate]."""
    return np.logical_and(*(grid.planned for grid in pair.grids)).any(axis=1)


def across_rates(pair: Pair, family: int) -> Sweep:
    """The gap at every learning rate that was planned for both models, p-values not yet adjusted for the `family`."""
    c, b = pair.grids
    rows = common_rates(pair)

    def rests_on(what: str, cells: NDArray[np.bool_]) -> str:
        return pair.rests_on(pair.name + what, [i for grid in (c, b) for i in grid.run_ids[rows].T[cells]])

    return sweep.across_rates(
        c.rates[rows],
        *(grid.right[rows].T for grid in pair.grids),
        *(grid.trained[rows].T for grid in pair.grids),
        pair.frames.study.dataset.n_test,
        level=pair.used.confidence,
        planned=int((c.planned & b.planned).sum(axis=1).max(initial=0)),
        seed=pair.used.seed,
        ended_candidate=(c.trained | c.untrained)[rows].T,
        ended_baseline=(b.trained | b.untrained)[rows].T,
        family=family,
        rests_on=rests_on,
    )


def on_digits(pair: Pair, over_digits: Estimate) -> Digits:
    """The primary gap digit by digit, p-values not yet adjusted; `over_digits` names the runs it rests on."""
    if pair.correct is None:
        return Digits(crossed=None, classes=(), hard=None)
    basis = dict(planned=pair.planned, runs=over_digits.runs)
    about = dict(level=pair.used.confidence) | basis
    by_class = crossed.by_class(*pair.correct, pair.frames.test_labels, pair.frames.classes, **about)
    return Digits(
        crossed=crossed.crossed(*pair.correct, resamples=pair.used.resamples, seed=pair.used.seed, **about),
        classes=tuple(c.model_copy(update=dict(gap=c.gap.changed(p_value=p))) for c, p in by_class),
        hard=crossed.hard_digits(*pair.correct, **basis),
    )


def plan(pair: Pair) -> Planning:
    """What more seeds would bring, for intervals of twice the margin, the margin and half of it."""
    n_test, margin = pair.frames.study.dataset.n_test, pair.used.margin
    return sample_size.plan(
        np.subtract(*(counts[pair.trained] for counts in pair.of("right", -1))) / n_test,
        None if pair.correct is None else np.subtract(*(c.astype(np.int8) for c in pair.correct)),
        n_test,
        level=pair.used.confidence,
        half_widths=(2 * margin, margin, margin / 2),
        planned=pair.planned,
        runs=pair.name,
    )


def sensitivities(pair: Pair) -> dict[str, Estimate]:
    """The gap over pairs that trained, with the learning rates chosen by the other rules: points.

    Over common seeds only where the rates do not have the same ones.
    """
    rules = {rule: choice for rule, choice in pair.rules.items() if rule != "mean"}
    common = over_common_seeds(*zip(pair.grids, pair.chosen, strict=True))
    rules |= {} if common is None else {"common seeds": common}
    return {
        rule.replace("-", "_").replace(" ", "_"): _with_range(pair, choice, rule)
        if len(choice) > 1
        else _point(pair, choice, rule)
        for rule, choice in rules.items()
    }


def best_of_n(pair: Pair) -> tuple[Estimate, ...]:
    """Expected gap with the validation-best of n learning rates, n = 1, 2, … up to all that both models have.

    Runs that diverged or collapsed score as guessing; failed and missing ones have no score. Both models choose among
    the same rates: those at which each has an outcome.
    """
    counted = [grid.trained | grid.untrained for grid in pair.grids]
    rows = np.flatnonzero(np.logical_and(*(cells.any(axis=1) for cells in counted)))
    rates = pair.grids[0].rates[rows]
    expected, ids = [], []
    for grid, known in zip(pair.grids, counted, strict=True):
        chance = 1 / pair.frames.classes
        test = np.where(grid.trained, grid.right / pair.frames.study.dataset.n_test, chance)
        val = np.full(grid.run_ids.shape, np.nan)
        val[np.searchsorted(grid.rates, grid.validation.rates)] = grid.validation.score
        means = [[float(np.mean(scores[row][known[row]])) for row in rows] for scores in (val, test)]
        expected.append(selection.best_of_n(*means))
        ids += list(grid.run_ids[rows][known[rows]])
    key = pair.rests_on(f"{pair.name}, outcomes at common rates", ids)
    among = ", ".join(f"{rate:g}" for rate in rates)
    return tuple(
        Estimate(
            estimate=float(c - b),
            method=f"expected gap with the validation-best of {n} of the learning rates {among}, over all subsets",
            n=len(ids),
            planned=int(sum(np.count_nonzero(grid.planned) for grid in pair.grids)),
            unit="runs",
            population="seeds",
            runs=key,
        )
        for n, (c, b) in enumerate(zip(*expected, strict=True), 1)
    )


def _point(pair: Pair, choice: Rates, rule: str) -> Estimate:
    words = WORDS[rule].format(resamples=pair.used.resamples, seed=pair.used.seed)
    n_test, classes = pair.frames.study.dataset.n_test, pair.frames.classes
    key = pair.rests_on(f"{pair.name}, rates {words}", runs_of(pair.models, choice, "both trained", "paired"))
    found = robustness.sensitivity(pair.models, choice, "both trained", n_test, classes, key)
    return found.changed(method=f"mean of paired differences, rates {words}")


def _with_range(pair: Pair, choice: Rates, rule: str) -> Estimate:
    """The mean over resamples with the range that holds the share `confidence` of them."""
    mean = _point(pair, choice, rule)
    if mean.estimate is None:
        return mean
    n_test = pair.frames.study.dataset.n_test
    right = (scores_of(pair.models, part, "both trained", n_test, pair.frames.classes) for part in choice)
    values = np.array([np.nanmean(c - b) / n_test for c, b in right])
    order = np.argsort(values)
    reached = np.cumsum([choice[i][0] for i in order])
    tail = (1 - pair.used.confidence) / 2
    low, high = (float(values[order][np.searchsorted(reached, q)]) for q in (tail + 1e-12, 1 - tail - 1e-12))
    if not low < high:
        return mean.changed(warning="all but a few resamples choose the same rates: no range to give")
    return mean.changed(low=low, high=high, level=pair.used.confidence, warning=RANGE)


def _count(pair: Pair, what: str) -> dict[str, int]:
    """Runs of each model at its selected rate for which `what` holds; at all rates, where none could be selected."""
    return {
        grid.model: int(np.count_nonzero(at_rates(getattr(grid, what), rates, False)))
        if chosen.choice.mean.learning_rate is not None
        else int(np.count_nonzero(getattr(grid, what)))
        for grid, rates, chosen in zip(pair.grids, pair.primary, pair.chosen, strict=True)
    }

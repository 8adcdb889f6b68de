"""The candidate against one baseline, each at its selected learning rate: the primary estimand and all beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.findings.schema import Comparison, Images
from analysis.frames import Frames
from analysis.grid import Grid, independent
from analysis.stats import crossed, paired, robustness, sample_size, selection, sweep
from analysis.stats.estimate import Basis, Estimate, Role
from analysis.stats.paired import holm
from analysis.stats.robustness import Models, Robustness, at_rates, planned_pairs, runs_of, scores_of
from analysis.stats.sample_size import Planning
from analysis.stats.selection import Chosen, Rule, SelectedRates, fixed, reselected, with_luck
from analysis.stats.sweep import Sweep
from study.config import ResolvedAnalysis

WORDS = {
    "median": "with the best median",
    "cross-fitted": "chosen without the pair's own seed",
    "re-selected": "chosen again in each of {resamples:,} resamples of seeds and validation images, seed {seed}",
    "common seeds": "chosen over the seeds that every rate has a score of",
}
"""Rules of selection in a reader's words."""

RANGE = "a range over resamples, not a confidence interval: no coverage is claimed"

SIDES = ("better", "worse")
"""How a verdict begins that names the more accurate model."""

SHARED = "pairs share initial weights or batch orders: too short, or too small, by an unknown amount"
"""What is wrong with intervals and p-values over the seeds of a factorial."""

RUNS_SHARED = "runs share initial weights or batch orders: too short by an unknown amount"
"""The same of the intervals of one model."""


@dataclass(frozen=True)
class Pair:
    """Two models of a study that are compared, the candidate first, and what comparing them needs."""

    frames: Frames
    analysis: ResolvedAnalysis
    grids: Models
    chosen: tuple[Chosen, Chosen]

    @property
    def baseline(self) -> str:
        """The model that the candidate is compared with."""
        return self.grids[1].model

    @property
    def n_images(self) -> int:
        """Test images."""
        return self.frames.study.dataset.n_test

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """Rule of selection → the rates it gives; the first is the primary one."""
        return rules(self.grids, self.chosen)

    @cached_property
    def primary(self) -> SelectedRates:
        """The selected rates of both models."""
        return self.rules["mean"][0]

    def learned(self, rates: SelectedRates) -> NDArray[np.int64]:
        """Positions of the seeds at which both runs of a pair learned."""
        both = [at_rates(grid.learned, r, False) for grid, r in zip(self.grids, _sides(rates), strict=True)]
        return np.flatnonzero(np.logical_and(*both))

    def of(self, table: str, rates: SelectedRates, seeds: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
        """An array of both grids at these rates and seeds: [pair] each."""
        c, b = (getattr(grid, table)[r[seeds], seeds] for grid, r in zip(self.grids, _sides(rates), strict=True))
        return c, b

    @cached_property
    def right(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Right test images of both models in the primary pairs that learned [pair]."""
        return self.of("right", self.primary, self.learned(self.primary))

    @cached_property
    def planned(self) -> int:
        """Pairs planned at the selected rates; at any rate, of a model for which none could be chosen."""
        return planned_pairs(self.grids, self.rules["mean"])

    @cached_property
    def independent(self) -> bool:
        """Whether no two pairs share initial weights or batch order, as those of a factorial do."""
        runs = self.frames.runs
        return independent(runs[runs["model"].isin([grid.model for grid in self.grids])])

    @cached_property
    def basis(self) -> Basis:
        """What rests on the primary pairs that learned."""
        seeds = self.learned(self.primary)
        return Basis(
            method="paired differences",
            n=seeds.size,
            planned=self.planned,
            unit="pairs of runs",
            population="seeds",
            runs=runs_of(self.grids, self.rules["mean"], "both learned", "paired"),
        )

    def predicted(self, rates: SelectedRates) -> tuple[list[str], list[str]]:
        """The runs, candidate's and baseline's, of the pairs that learned at these rates and have both predictions."""
        ids = self.of("run_ids", rates, self.learned(rates))
        known = [pair for pair in zip(*ids, strict=True) if set(pair) <= self.frames.predictions.keys()]
        return [str(c) for c, _ in known], [str(b) for _, b in known]

    @cached_property
    def correct(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """Which test images each run of the primary pairs with predictions got right: bool [pair, image] each."""
        candidate, baseline = map(self.frames.correct, self.predicted(self.primary))
        return None if candidate is None or baseline is None else (candidate, baseline)

    @cached_property
    def images_basis(self) -> Basis:
        """What rests on the primary pairs that learned and have predictions."""
        candidate, baseline = self.predicted(self.primary)
        return self.basis.changed(n=len(candidate), population="seeds and test images", runs=(*candidate, *baseline))

    def over_images(self, rates: SelectedRates, level: float, role: Role = "descriptive") -> Estimate:
        """The gap over seeds and test images of the pairs that learned at these rates.

        A pair without the predictions of both its runs is left out, with a warning.
        """
        learned, (candidate, baseline) = self.learned(rates).size, self.predicted(rates)
        basis = Basis(
            method="gap over seeds and test images",
            n=len(candidate),
            planned=planned_pairs(self.grids, (rates,)),
            unit="pairs of runs",
            population="seeds and test images",
            role=role,
            runs=(*candidate, *baseline),
        )
        c, b = self.frames.correct(candidate), self.frames.correct(baseline)
        if not candidate or c is None or b is None:
            return basis.declines(
                f"of none of the {learned} pairs that learned are the predictions of both runs there"
                if learned
                else "no pair of runs learned, so there are no predictions to compare"
            )
        x = crossed.difference(c, b)
        lost = learned - len(x)
        warning = f"{lost} of {learned} pairs that learned have lost their predictions and are left out"
        return crossed.gap_over_images(x, level, basis, self.frames.test_clusters).warned(warning if lost else None)


def rules(grids: Models, chosen: tuple[Chosen, Chosen]) -> dict[str, Rule]:
    """Every rule of selection → the rates it gives a pair of models, in positions of their common grid."""
    n_seeds = grids[0].run_ids.shape[1]

    def constant(rule: str) -> Rule:
        rates = (grid.position(getattr(c.choice, rule).learning_rate) for grid, c in zip(grids, chosen, strict=True))
        return fixed(*(np.full(n_seeds, rate) for rate in rates))

    return {
        "mean": constant("mean"),
        "median": constant("median"),
        "cross-fitted": fixed(*(_in_grid(grid, c.folds) for grid, c in zip(grids, chosen, strict=True))),
        "re-selected": reselected(
            _in_grid(grids[0], chosen[0].winners), _in_grid(grids[1], chosen[1].winners), n_seeds
        ),
    }


def over_common_seeds(grids: Models, chosen: tuple[Chosen, Chosen]) -> Rule | None:
    """The rates that the seeds common to all rates choose; None where every seed is common to them."""
    if all(c.choice.common_seeds is None for c in chosen):
        return None
    made = ((grid, c.choice.common_seeds or c.choice.mean) for grid, c in zip(grids, chosen, strict=True))
    n_seeds = grids[0].run_ids.shape[1]
    return fixed(*(np.full(n_seeds, grid.position(choice.learning_rate)) for grid, choice in made))


def compare(pair: Pair) -> tuple[Comparison, Robustness]:
    """The primary gap with everything that goes with it, and the same question asked in many other ways."""
    used = pair.analysis
    over_seeds = paired.paired(
        *pair.right,
        pair.n_images,
        pair.basis.changed(role="confirmatory"),
        level=used.confidence,
        verdict_level=used.verdict_level,
        margin=used.margin,
        resamples=used.resamples,
        seed=used.seed,
    )
    over_images, at_verdict = (
        pair.over_images(pair.primary, level, "confirmatory") for level in (used.confidence, used.verdict_level)
    )
    if not pair.independent:
        over_seeds = paired.not_independent(over_seeds, SHARED)
        over_images, at_verdict = over_images.warned(SHARED), at_verdict.warned(SHARED)
    fewer = best_of_n(pair)
    asked = robustness.robustness(
        pair.grids,
        pair.rules,
        lambda rates: pair.over_images(rates, used.confidence),
        fewer,
        n_images=pair.n_images,
        classes=pair.frames.classes,
        level=used.confidence,
    )
    lacking = paired.too_few(pair.basis.n, over_seeds.effect.ties, 1 - used.verdict_level)
    not_learned = _count(pair, "not_learned")
    at_chance = asked.scored_at_chance.estimate if any(not_learned.values()) else None
    if at_chance is not None:
        over_seeds = paired.verdict_held_to_outcomes(over_seeds, at_chance, lacking)
    new = _verdict_for_new_images(pair, at_verdict, at_chance)
    errors = [float(1 - right.mean() / pair.n_images) if right.size else None for right in pair.right]
    found = Comparison(
        baseline=pair.baseline,
        candidate_rate=pair.chosen[0].choice.mean.learning_rate,
        baseline_rate=pair.chosen[1].choice.mean.learning_rate,
        candidate_error_rate=errors[0],
        baseline_error_rate=errors[1],
        pairs=pair.basis.n,
        planned=pair.planned,
        not_learned=not_learned,
        absent=_count(pair, "absent"),
        seeds=over_seeds,
        images=over_images,
        images_verdict=at_verdict,
        verdict_for_new_images=new,
        mcnemar=None if pair.correct is None else paired.mcnemar(*pair.correct, used.confidence, pair.images_basis),
        p_holm=None,
        sensitivity=sensitivities(pair) | {name: getattr(asked, name) for name in ("scored_at_chance", "worst_case")},
        best_of_n=fewer,
        independent=pair.independent,
        unqualified=any((over_seeds.verdict.words or "").startswith(w) and (new or "").startswith(w) for w in SIDES),
    )
    return found, asked


def _verdict_for_new_images(pair: Pair, at_verdict: Estimate, at_chance: float | None) -> str | None:
    """The verdict from the intervals over seeds and test images; the exact test over the same pairs must agree.

    These are the pairs that have predictions, which may be fewer than those behind the verdict for this test set. The
    gap `at_chance`, with the runs that did not learn scored, must agree too, where there are such runs.
    """
    used = pair.analysis
    inner = pair.over_images(pair.primary, 2 * used.verdict_level - 1)
    if not pair.independent or pair.correct is None or not at_verdict.interval or not inner.interval:
        return None
    candidate, baseline = (correct.sum(axis=1) for correct in pair.correct)
    differences = candidate - baseline
    alpha = 1 - used.verdict_level
    lacking = paired.too_few(differences.size, int(np.count_nonzero(differences == 0)), alpha)
    words = paired.verdict(*at_verdict.interval, *inner.interval, used.margin)
    words = paired.held_to_test(words, paired.sign_flip(differences)[0], alpha, lacking)
    return words if at_chance is None else paired.held_to_outcomes(words, at_chance, used.margin, lacking)


def across_rates(pair: Pair, family: int) -> Sweep:
    """The gap at every learning rate that was planned for both models, p-values not yet adjusted for the `family`."""
    used = pair.analysis
    return sweep.across_rates(*pair.grids, pair.n_images, level=used.confidence, seed=used.seed, family=family)


def on_images(pair: Pair) -> Images:
    """The primary gap image by image, p-values not yet adjusted."""
    if pair.correct is None:
        return Images(crossed=None, classes=(), hard=None)
    used, basis, clusters = pair.analysis, pair.images_basis, pair.frames.test_clusters
    labels, classes = pair.frames.test_labels, pair.frames.classes
    return Images(
        crossed=crossed.crossed(
            *pair.correct,
            basis,
            level=used.confidence,
            resamples=used.resamples,
            seed=used.seed,
            clusters=clusters,
        ),
        classes=crossed.by_class(*pair.correct, labels, classes, used.confidence, basis, clusters),
        hard=crossed.hard_images(*pair.correct, basis),
    )


def plan(pair: Pair) -> Planning:
    """What more seeds would bring, for intervals of twice the margin, the margin and half of it."""
    margin = pair.analysis.margin
    return sample_size.plan(
        np.subtract(*pair.right) / pair.n_images,
        None if pair.correct is None else crossed.difference(*pair.correct),
        pair.n_images,
        pair.basis.changed(population=None),
        level=pair.analysis.confidence,
        verdict_level=pair.analysis.verdict_level,
        half_widths=(2 * margin, margin, margin / 2),
        clusters=pair.frames.test_clusters,
    )


def sensitivities(pair: Pair) -> dict[str, Estimate]:
    """The gap over pairs that learned, with the learning rates chosen by the other rules: points.

    Over common seeds only where the rates do not have the same ones.
    """
    others = {name: rule for name, rule in pair.rules.items() if name != "mean"}
    common = over_common_seeds(pair.grids, pair.chosen)
    others |= {} if common is None else {"common seeds": common}
    return {"selection_luck": _with_selection(pair)} | {
        name.replace("-", "_").replace(" ", "_"): _with_range(pair, rule, name)
        if len(rule) > 1
        else _point(pair, rule, name)
        for name, rule in others.items()
    }


def best_of_n(pair: Pair) -> tuple[Estimate, ...]:
    """Expected gap with the validation-best of n learning rates, n = 1, 2, … up to all that both models have.

    Runs that diverged or collapsed score as guessing; failed and missing ones have no score. Both models choose among
    the same rates: those at which each has an outcome. Nothing where one of them never learned.
    """
    if not all(grid.learned.any() for grid in pair.grids):
        return ()
    rows = np.flatnonzero(pair.grids[0].ended.any(axis=1) & pair.grids[1].ended.any(axis=1))
    rates = pair.grids[0].rates[rows]
    expected: list[NDArray] = []
    ids: list[str] = []
    for grid in pair.grids:
        test = np.where(grid.learned, grid.right / pair.n_images, 1 / pair.frames.classes)
        val = np.full(grid.run_ids.shape, np.nan)
        val[np.searchsorted(grid.rates, grid.validation.rates)] = grid.validation.score
        means = [[float(np.mean(scores[row][grid.ended[row]])) for row in rows] for scores in (val, test)]
        expected.append(selection.best_of_n(*means))
        ids += map(str, grid.run_ids[rows][grid.ended[rows]])
    among = ", ".join(f"{rate:g}" for rate in rates)
    basis = Basis(
        method="expected gap",
        n=len(ids),
        planned=int(sum(np.count_nonzero(grid.planned) for grid in pair.grids)),
        unit="runs",
        population="seeds",
        runs=tuple(ids),
    )
    return tuple(
        basis.changed(
            method=f"expected gap with the validation-best of {n} of the learning rates {among}, over all subsets"
        ).gives(float(c - b))
        for n, (c, b) in enumerate(zip(*expected, strict=True), 1)
    )


def _sides(rates: SelectedRates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rates.candidate, rates.baseline


def _in_grid(grid: Grid, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions among the model's own rates as positions among all of the study's."""
    own = np.append(np.searchsorted(grid.rates, grid.validation.rates), -1)
    return own[positions]


def _point(pair: Pair, rule: Rule, name: str) -> Estimate:
    words = WORDS[name].format(resamples=pair.analysis.resamples, seed=pair.analysis.seed)
    found = robustness.sensitivity(pair.grids, rule, "both learned", pair.n_images, pair.frames.classes)
    return found.changed(method=f"mean of paired differences, rates {words}")


def _with_range(pair: Pair, rule: Rule, name: str) -> Estimate:
    """The mean over resamples with the range that holds the share `confidence` of them."""
    mean = _point(pair, rule, name)
    if mean.estimate is None:
        return mean
    scores = (scores_of(pair.grids, rates, "both learned", pair.n_images, pair.frames.classes) for rates in rule)
    values = np.array([np.nanmean(c - b) / pair.n_images for c, b in scores])
    order = np.argsort(values)
    reached = np.cumsum([rule[i].weight for i in order])
    tail = (1 - pair.analysis.confidence) / 2
    low, high = (float(values[order][np.searchsorted(reached, q)]) for q in (tail + 1e-12, 1 - tail - 1e-12))
    if not low < high:
        return mean.changed(warning="all but a few resamples choose the same rates: no range to give")
    return mean.changed(low=low, high=high, level=pair.analysis.confidence, warning=RANGE)


def _with_selection(pair: Pair) -> Estimate:
    """The primary gap, with an interval over seeds that allows for the luck of both selections."""
    used, (candidate, baseline) = pair.analysis, pair.right
    basis = pair.basis.changed(
        method=f"t interval, its standard error from {used.resamples:,} resamples of seeds, in each "
        f"of which both rates are chosen again, seed {used.seed}",
        role="sensitivity",
    )
    if not candidate.size:
        return basis.declines("no pair of runs learned")
    gap = float((candidate - baseline).mean()) / pair.n_images
    if candidate.size > 1 and not pair.independent:
        return basis.declines(SHARED, gap)
    scores = [np.where(grid.learned, grid.right / pair.n_images, np.nan) for grid in pair.grids]
    winners = [_in_grid(grid, chosen.by_seeds) for grid, chosen in zip(pair.grids, pair.chosen, strict=True)]
    return with_luck(gap, (scores[0], scores[1]), (winners[0], winners[1]), used.seed, used.confidence, basis)


def _count(pair: Pair, what: str) -> dict[str, int]:
    """Runs of each model at its selected rate for which `what` holds; at all rates, where none could be selected."""
    return {
        grid.model: int(np.count_nonzero(at_rates(getattr(grid, what), rates, False)))
        if chosen.choice.mean.learning_rate is not None
        else int(np.count_nonzero(getattr(grid, what)))
        for grid, rates, chosen in zip(pair.grids, _sides(pair.primary), pair.chosen, strict=True)
    }


# families of tests: p-values adjusted by Holm within each; whatever is in none of them is descriptive
#
# F1, confirmatory: the baselines at their selected rates. F2: baselines × learning rates. F3: baselines × classes. A
# test that was not made still counts in its family's size.


def adjust_comparisons(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """F1: the sign-flip tests of the primary gaps."""
    adjusted = holm([c.seeds.sign_flip.p_value for c in found])
    return tuple(c.model_copy(update=dict(p_holm=p)) for c, p in zip(found, adjusted, strict=True))


def adjust_sweeps(found: Mapping[str, Sweep]) -> dict[str, Sweep]:
    """F2: the sign-flip tests at every learning rate, by baseline."""
    adjusted = iter(holm([rate.sign_flip.p_value for swept in found.values() for rate in swept.rates]))
    return {
        baseline: swept.model_copy(
            update=dict(rates=tuple(r.model_copy(update=dict(adjusted_p=next(adjusted))) for r in swept.rates))
        )
        for baseline, swept in found.items()
    }


def adjust_classes(found: Mapping[str, Images], classes: int) -> dict[str, Images]:
    """F3: the tests on the images of each of so many `classes`, by baseline; without predictions none could be made."""
    made = [[c.gap.p_value for c in images.classes] for images in found.values()]
    adjusted = iter(holm([p for own in made for p in [*own, *[None] * (classes - len(own))]]))
    corrected = {}
    for baseline, images in found.items():
        own = [next(adjusted) for _ in range(classes)]
        entries = (c.model_copy(update=dict(adjusted_p=p)) for c, p in zip(images.classes, own, strict=False))
        corrected[baseline] = images.model_copy(update=dict(classes=tuple(entries)))
    return corrected

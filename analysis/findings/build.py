"""Builds all findings of a study: every number is computed once, in the module of its subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings import compare, preregistration, summary
from analysis.findings.compare import Pair
from analysis.findings.schema import (
    About,
    Clusters,
    Configuration,
    Confusion,
    Counts,
    Findings,
    Model,
    Published,
    Variance,
)
from analysis.frames import STATES, Frames
from analysis.grid import Grid, grids, independent
from analysis.stats import paired, sweep, variance
from analysis.stats.crossed import confusion
from analysis.stats.estimate import Basis, Estimate, mapped
from analysis.stats.robustness import random_halves
from analysis.stats.selection import Chosen, choose
from analysis.stats.variance import SeedSpread
from study.config import ResolvedAnalysis
from study.ledger import clusters
from study.ledger.records import METRICS
from study.ledger.runs import digest

SPLITS = 1000
"""Random halves drawn of each model's runs."""


def collect(frames: Frames, overrides: Mapping[str, Any] | None = None) -> Findings:
    """All findings of the study, by the analysis block of its last launch, or with `overrides` of that block.

    Raises UserError where the block is not valid.
    """
    launches, models = frames.study.launches, frames.models
    block = preregistration.used(launches, overrides or {})
    analysis = preregistration.read(block, models, frames.source)
    study = _Study(frames, analysis)
    pairs = study.pairs()
    compared = [compare.compare(pair) for pair in pairs]
    family = sum(len(sweep.common_rates(*pair.grids)) for pair in pairs)
    classes = np.unique(frames.test_labels).size
    findings = Findings(
        about=_about(frames, analysis),
        preregistration=preregistration.compare(launches, block, models),
        completeness=tuple(study.counts()),
        configurations=tuple(study.configurations()),
        selection={model: chosen.choice for model, chosen in study.chosen.items()},
        comparisons=compare.adjust_comparisons([comparison for comparison, _ in compared]),
        robustness={comparison.baseline: asked for comparison, asked in compared},
        sweep=compare.adjust_sweeps({pair.baseline: compare.across_rates(pair, family) for pair in pairs}),
        images=compare.adjust_classes({pair.baseline: compare.on_images(pair) for pair in pairs}, classes),
        confusion=study.confusion(),
        planning={pair.baseline: compare.plan(pair) for pair in pairs},
        variance=study.variance(),
        seed_spread=study.seed_spread(),
        random_halves=study.random_halves(),
        literature=(),
        warnings=(),
        run_sets={},
    )
    findings = findings.model_copy(update=dict(literature=_literature(findings)))
    words = dict(answer=summary.sentence(findings), warnings=tuple(summary.warnings(findings, frames)))
    return _with_run_sets(findings.model_copy(update=words))


def _about(frames: Frames, analysis: ResolvedAnalysis) -> About:
    info, runs = frames.study.dataset, frames.runs
    recipe = dict(frames.study.launches[-1].recipe)
    sizes = runs.drop_duplicates("model").set_index("model")
    current = set(runs["run_id"])
    made_of = {p.run.model: p.run.constructor for k in frames.study.packs for p in k.runs if p.run_id in current}
    return About(
        name=frames.study.name,
        dataset=info.name,
        dataset_sha256=info.sha256,
        n_train=info.n_train - recipe["validation_size"],
        n_val=recipe["validation_size"],
        n_test=info.n_test,
        clusters=_clusters(frames.test_clusters),
        splits=runs["split_seed"].nunique(),
        classes=info.classes,
        models=tuple(
            Model(
                name=m,
                constructor=made_of[m],
                n_parameters=int(sizes.loc[m, "n_parameters"]),
                macs=int(sizes.loc[m, "macs"]),
            )
            for m in frames.models
        ),
        learning_rates=tuple(sorted(float(r) for r in runs["learning_rate"].unique())),
        epochs=recipe["epochs"],
        batch_size=recipe["batch_size"],
        recipe=recipe,
        planned=len(runs),
        set_aside=len(frames.set_aside),
        problems=len(frames.problems),
        settings=analysis,
    )


def _clusters(ids: np.ndarray | None) -> Clusters | None:
    if ids is None:
        return None
    sizes = np.bincount(ids)
    return Clusters(count=sizes.size, smallest=int(sizes.min()), largest=int(sizes.max()), sha256=clusters.sha256(ids))


def _literature(findings: Findings) -> tuple[Published, ...]:
    """The config's references, each with our mean test accuracy at the selected rate where there is one."""
    return tuple(
        Published(model=model, ours=findings.accuracy(model), **dict(reference))
        for model, references in findings.about.settings.references.items()
        for reference in references
    )


def _with_run_sets(findings: Findings) -> Findings:
    """The findings in which every number names the runs it rests on by their key in `run_sets`, equal runs alike."""
    run_sets: dict[str, tuple[str, ...]] = {}

    def name(part: Basis) -> Basis:
        if not isinstance(part.runs, tuple):
            return part
        key = digest(part.runs)
        run_sets[key] = part.runs
        return part.model_copy(update=dict(runs=key))

    return mapped(findings, name).model_copy(update=dict(run_sets=run_sets))


class _Study:
    """The study's grids, and the findings that come straight from them."""

    def __init__(self, frames: Frames, analysis: ResolvedAnalysis) -> None:
        self.frames = frames
        self.analysis = analysis
        self.grids = grids(frames)
        self.chosen = {model: self._choose(grid) for model, grid in self.grids.items()}

    def _choose(self, grid: Grid) -> Chosen:
        basis = Basis(
            method="mean validation accuracy over seeds",
            n=int(grid.ended.sum()),
            planned=int(grid.planned.sum()),
            unit="runs",
            runs=tuple(map(str, grid.run_ids[grid.ended])),
        )
        return choose(grid.validation, basis, resamples=self.analysis.resamples, seed=self.analysis.seed)

    def counts(self) -> list[Counts]:
        """What became of every configuration's runs."""
        runs = self.frames.runs
        return [
            Counts(
                model=model,
                learning_rate=float(rate),
                planned=len(part),
                collapsed=int(part["collapsed"].sum()),
                **{state: int((part["state"] == state).sum()) for state in STATES},
            )
            for (model, rate), part in runs.groupby(["model", "learning_rate"], sort=False)
        ]

    def configurations(self) -> list[Configuration]:
        """Means over each configuration's runs that learned."""
        found = []
        for (model, rate), part in self.frames.runs.groupby(["model", "learning_rate"], sort=False):
            learned = part[part["learned"]]
            basis = _basis(learned["run_id"], len(part))
            warning = None if independent(part) else compare.RUNS_SHARED
            sd = learned[[f"final_{name}" for name in METRICS]].std(ddof=1)
            test = learned["final_test_accuracy"]
            numbers: dict[str, Any] = dict(
                test_accuracy_median=float(test.median()) if len(test) else None,
                test_accuracy_range=(float(test.min()), float(test.max())) if len(test) else None,
            )
            for name in METRICS:
                highest = 1.0 if name.endswith("accuracy") else np.inf
                numbers[name] = self._mean(learned[f"final_{name}"], basis, highest).warned(warning)
                numbers[f"{name}_sd"] = float(sd[f"final_{name}"]) if np.isfinite(sd[f"final_{name}"]) else None
            found.append(Configuration(model=model, learning_rate=float(rate), **numbers))
        return found

    def _mean(self, values: pd.Series, basis: Basis, highest: float) -> Estimate:
        """The mean over runs, at least 0 and at most `highest`."""
        return paired.t_interval(values, self.analysis.confidence, basis, bounds=(0.0, highest))

    def pairs(self) -> list[Pair]:
        """The candidate with every baseline."""
        return [
            Pair(
                self.frames,
                self.analysis,
                (self.grids[self.analysis.candidate], self.grids[baseline]),
                (self.chosen[self.analysis.candidate], self.chosen[baseline]),
            )
            for baseline in self.analysis.baselines
        ]

    def confusion(self) -> dict[str, Confusion]:
        """Confusion matrix of every model that learned at its selected rate."""
        matrices = {}
        for model in self.grids:
            runs = self.selected(model)
            known = [r for r in runs.loc[runs["learned"], "run_id"] if r in self.frames.predictions]
            if not known:
                continue
            predicted = np.stack([self.frames.predictions[r]["test"] for r in known])
            matrices[model] = Confusion(
                shares=confusion(predicted, self.frames.test_labels, self.frames.classes),
                rests_on=Basis(
                    method="mean over the runs that learned whose predictions are there",
                    n=len(known),
                    planned=len(runs),
                    unit="runs",
                    runs=tuple(known),
                ),
            )
        return matrices

    def variance(self) -> dict[str, Variance]:
        """Components of variance of every model whose seeds are a whole factorial."""
        found = {}
        for model in self.grids:
            runs = self.selected(model)
            factors = [np.unique(runs[f"{name}_seed"], return_inverse=True) for name in variance.FACTORS]
            shape = tuple(len(levels) for levels, _ in factors)
            if not len(runs) or prod(shape) != len(runs) or len(runs) == 1:
                continue
            cells = tuple(positions for _, positions in factors)
            accuracy, learned = np.full(shape, np.nan), np.zeros(shape, bool)
            accuracy[cells] = runs["final_test_accuracy"].where(runs["learned"])
            learned[cells] = runs["learned"]
            n_test = self.frames.study.dataset.n_test
            right = np.nan_to_num(accuracy * n_test).round().astype(np.int64)
            basis, level = _basis(runs["run_id"], len(runs)), self.analysis.confidence
            found[model] = Variance(
                components=variance.variance(
                    accuracy, basis, level=level, resamples=self.analysis.resamples, seed=self.analysis.seed
                ),
                against_itself=variance.against_itself(right, learned, n_test, basis, level=level),
            )
        return found

    def seed_spread(self) -> dict[str, SeedSpread]:
        """The spread over seeds of every model whose runs share neither initial weights nor batch order."""
        found = {}
        for model in self.grids:
            runs = self.selected(model)
            if not len(runs) or not independent(runs):
                continue
            known = [r for r in runs.loc[runs["learned"], "run_id"] if r in self.frames.predictions]
            if known and (correct := self.frames.correct(known)) is not None:
                found[model] = variance.seed_spread(
                    correct,
                    _basis(known, len(runs)),
                    clusters=self.frames.test_clusters,
                    level=self.analysis.confidence,
                    resamples=self.analysis.resamples,
                    seed=self.analysis.seed,
                )
        return found

    def selected(self, model: str) -> pd.DataFrame:
        """The runs of a model at its selected rate; none where it has none."""
        runs = self.frames.runs
        return runs[(runs["model"] == model) & (runs["learning_rate"] == self.chosen[model].choice.mean.learning_rate)]

    def random_halves(self) -> dict[str, Estimate]:
        """How often random halves of one model's runs at its selected rate differ."""
        halves = {}
        for model in self.grids:
            runs = self.selected(model)
            if len(runs):
                learned = runs[runs["learned"]]
                halves[model] = random_halves(
                    learned["final_test_accuracy"],
                    self.analysis.confidence,
                    _basis(learned["run_id"], len(runs)),
                    splits=SPLITS,
                    seed=self.analysis.seed,
                )
        return halves


def _basis(run_ids: Sequence[str], planned: int) -> Basis:
    """Of a number over these of the planned runs."""
    return Basis(method="mean", n=len(run_ids), planned=planned, unit="runs", population="seeds", runs=tuple(run_ids))

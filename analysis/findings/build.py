"""Collects all findings of a study: every number is computed once, by the module named for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings import cautions, families, literature, preregistration, summary
from analysis.findings.compare import across_rates, common_rates, compare, on_digits, plan
from analysis.findings.pair import Pair
from analysis.findings.schema import About, Configuration, Confusion, Counts, Findings, Model, Settings, Variance
from analysis.findings.settings import settings
from analysis.frames import STATES, Frames
from analysis.grid import Grid, grids
from analysis.stats import paired, variance
from analysis.stats.choice import Chosen, choose
from analysis.stats.crossed import confusion
from analysis.stats.estimate import Basis, Estimate
from analysis.stats.robustness import random_halves

SPLITS = 1000
"""Random halves drawn of each model's runs."""


def collect(frames: Frames, overrides: Mapping[str, Any] | None = None) -> Findings:
    """All findings of the study, by the analysis block of its last launch, or with `overrides` of that block."""
    block = {**frames.config["analysis"], **(overrides or {})}
    used = settings(frames, block)
    study = _Study(frames, used)
    configurations = study.configurations()
    choices = {model: chosen.choice for model, chosen in study.chosen.items()}
    ours = {c.model: c.test_accuracy for c in configurations if c.learning_rate == choices[c.model].mean.learning_rate}
    pairs = study.pairs()
    compared = [compare(pair) for pair in pairs]
    family = sum(int(common_rates(pair).sum()) for pair in pairs)
    classes = np.unique(frames.test_labels).size
    level = used.confidence
    declared = preregistration.compare(frames.study.launches, block, frames.models)
    findings = Findings(
        about=_about(frames, used),
        preregistration=declared,
        completeness=tuple(study.counts()),
        configurations=tuple(configurations),
        selection=choices,
        comparisons=families.comparisons([comparison for comparison, _ in compared], level),
        robustness={comparison.baseline: asked for comparison, asked in compared},
        sweep=families.sweeps({pair.baseline: across_rates(pair, family) for pair in pairs}, level),
        digits=families.classes(
            {pair.baseline: on_digits(pair, c.digits) for pair, (c, _) in zip(pairs, compared, strict=True)},
            level,
            classes,
        ),
        confusion=study.confusion(),
        planning={pair.baseline: plan(pair) for pair in pairs},
        variance=study.variance(),
        random_halves=study.random_halves(),
        literature=literature.beside(block.get("references") or {}, ours),
        warnings=(
            *cautions.cautions(frames, choices, declared),
            *literature.unexpected(block.get("expected") or {}, ours),
        ),
        run_sets=study.run_sets,
    )
    warnings = (*findings.warnings, *cautions.partial(findings))
    return findings.model_copy(update={"answer": summary.sentence(findings), "warnings": warnings})


def _about(frames: Frames, used: Settings) -> About:
    info, runs = frames.study.dataset, frames.runs
    recipe = dict(frames.study.launches[-1].recipe)
    sizes = runs.drop_duplicates("model").set_index("model")
    return About(
        name=frames.study.name,
        dataset=info.name,
        dataset_sha256=info.sha256,
        n_train=info.n_train - recipe["validation_size"],
        n_val=recipe["validation_size"],
        n_test=info.n_test,
        splits=runs["split_seed"].nunique(),
        classes=info.classes,
        models=tuple(
            Model(name=m, n_parameters=int(sizes.loc[m, "n_parameters"]), macs=int(sizes.loc[m, "macs"]))
            for m in frames.models
        ),
        learning_rates=tuple(sorted(float(r) for r in runs["learning_rate"].unique())),
        epochs=recipe["epochs"],
        batch_size=recipe["batch_size"],
        recipe=recipe,
        planned=len(runs),
        set_aside=len(frames.set_aside),
        problems=len(frames.problems),
        settings=used,
    )


class _Study:
    """The study's grids, and the findings that come straight from them."""

    def __init__(self, frames: Frames, used: Settings) -> None:
        self.frames = frames
        self.used = used
        self.grids = grids(frames)
        self.run_sets: dict[str, tuple[str, ...]] = {}
        self.chosen = {model: self._choose(grid) for model, grid in self.grids.items()}

    def rests_on(self, key: str, run_ids: Sequence[str]) -> str:
        """Note the runs that a finding rests on; returns the key to name them by, that of the same runs if noted."""
        runs = tuple(str(run_id) for run_id in run_ids)
        key = key if runs else "no run"
        for noted, known in self.run_sets.items():
            if known == runs:
                return noted
        if key in self.run_sets:
            raise ValueError(f"{key!r} already names other runs")
        self.run_sets[key] = runs
        return key

    def _choose(self, grid: Grid) -> Chosen:
        scored = grid.run_ids[grid.trained | grid.untrained]
        return choose(
            grid.validation,
            resamples=self.used.resamples,
            seed=self.used.seed,
            planned=int(grid.planned.sum()),
            runs=self.rests_on(f"{grid.model}, with an outcome", scored),
        )

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
        """Means over each configuration's runs that trained."""
        found = []
        for (model, rate), part in self.frames.runs.groupby(["model", "learning_rate"], sort=False):
            trained = part[part["trained"]]
            key = self.rests_on(f"{model} {float(rate)!r}", trained["run_id"])

            sd = trained[["final_test_accuracy", "final_val_accuracy"]].std(ddof=1)
            test_sd, val_sd = (float(v) if np.isfinite(v) else None for v in sd)
            found.append(
                Configuration(
                    model=model,
                    learning_rate=float(rate),
                    test_accuracy=self._mean(trained["final_test_accuracy"], 1.0, len(part), key),
                    val_accuracy=self._mean(trained["final_val_accuracy"], 1.0, len(part), key),
                    test_loss=self._mean(trained["final_test_loss"], np.inf, len(part), key),
                    test_accuracy_sd=test_sd,
                    val_accuracy_sd=val_sd,
                )
            )
        return found

    def _mean(self, values: pd.Series, highest: float, planned: int, key: str) -> Estimate:
        """The mean over runs, at least 0 and at most `highest`."""
        return paired.t_interval(
            values,
            self.used.confidence,
            n_planned=planned,
            unit="runs",
            population="seeds",
            bounds=(0.0, highest),
            runs=key,
        )

    def pairs(self) -> list[Pair]:
        """The candidate with every baseline."""
        return [
            Pair(
                self.frames,
                self.used,
                tuple(self.grids[m] for m in (self.used.candidate, baseline)),
                tuple(self.chosen[m] for m in (self.used.candidate, baseline)),
                self.rests_on,
            )
            for baseline in self.used.baselines
        ]

    def confusion(self) -> dict[str, Confusion]:
        """Confusion matrix of every model that trained at its selected rate."""
        matrices = {}
        for model in self.grids:
            runs = self.selected(model)
            known = [r for r in runs.loc[runs["trained"], "run_id"] if r in self.frames.predictions]
            if not known:
                continue
            predicted = np.stack([self.frames.predictions[r]["test"] for r in known])
            matrices[model] = Confusion(
                shares=confusion(predicted, self.frames.test_labels, self.frames.classes),
                rests_on=Basis(
                    method="mean over the runs that trained whose predictions are there",
                    n=len(known),
                    planned=len(runs),
                    unit="runs",
                    runs=self.rests_on(f"{model}, confusion", known),
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
            accuracy, trained = np.full(shape, np.nan), np.zeros(shape, bool)
            accuracy[cells] = runs["final_test_accuracy"].where(runs["trained"])
            trained[cells] = runs["trained"]
            n_test = self.frames.study.dataset.n_test
            about = dict(level=self.used.confidence, runs=self.rests_on(f"{model}, factorial", runs["run_id"]))
            found[model] = Variance(
                components=variance.variance(accuracy, resamples=self.used.resamples, seed=self.used.seed, **about),
                against_itself=variance.against_itself(
                    np.nan_to_num(accuracy * n_test).round().astype(np.int64), trained, n_test, **about
                ),
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
                trained = runs[runs["trained"]]
                halves[model] = random_halves(
                    trained["final_test_accuracy"],
                    self.used.confidence,
                    splits=SPLITS,
                    seed=self.used.seed,
                    planned=SPLITS,
                    runs=self.rests_on(f"{model}, random halves", trained["run_id"]),
                )
        return halves

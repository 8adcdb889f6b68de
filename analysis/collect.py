"""Collects all findings of a study: every number is computed once, by the module named for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import answer, gap, literature, preregistration
from analysis.choice import choose
from analysis.comparison import Pair, across_rates, compare, on_digits
from analysis.digits import ClassGap, confusion
from analysis.estimate import Estimate
from analysis.findings import About, Comparison, Configuration, Counts, Digits, Findings, Model, Settings
from analysis.frames import STATES, Frames
from analysis.grid import grids
from analysis.robustness import Robustness, random_halves
from analysis.sweep import Sweep
from study.errors import UserError

OVERRIDABLE = {
    "candidate": str,
    "baselines": lambda names: names.split(","),
    "confidence": float,
    "margin": float,
    "resamples": int,
    "seed": int,
}
"""Keys of the analysis block that `python -m analysis` may set otherwise than declared; each becomes a deviation."""

LIMITS = {"confidence": (0.5, 1), "margin": (0, 1), "resamples": (99, 1_000_001), "seed": (-1, 2**63)}
"""Between which values, both left out, the numbers among them may lie."""

SPLITS = 1000
"""Random halves drawn of each model's runs."""


def settings(frames: Frames, block: Mapping[str, Any]) -> Settings:
    """The analysis block with its defaults filled in: the first model against all others."""
    models = frames.models
    candidate = block.get("candidate") or models[0]
    baselines = block.get("baselines") or [m for m in models if m != candidate]
    for name in (candidate, *baselines):
        if name not in models:
            raise UserError(f"analysis: found model {name!r}; allowed: {', '.join(models)}")
    if candidate in baselines or len(set(baselines)) < len(baselines):
        raise UserError(f"analysis: found baselines {', '.join(baselines)}; allowed: other models, each once")
    if not block["confidence"] > 0.5:
        # The verdict needs the interval at 1 − 2α / B too.
        raise UserError(f"analysis.confidence: found {block['confidence']}; allowed: more than 0.5, less than 1")
    return Settings(
        candidate=candidate,
        baselines=tuple(baselines),
        **{key: block[key] for key in ("confidence", "margin", "resamples", "seed")},
    )


def collect(frames: Frames, overrides: Mapping[str, Any] | None = None) -> Findings:
    """All findings of the study, by the analysis block of its last launch, or with `overrides` of that block."""
    block = {**frames.config["analysis"], **(overrides or {})}
    used = settings(frames, block)
    study = _Study(frames, used)
    configurations = study.configurations()
    choices = {model: chosen.choice for model, chosen in study.chosen.items()}
    ours = {c.model: c.test_accuracy for c in configurations if c.learning_rate == choices[c.model].mean.learning_rate}
    pairs = study.pairs()
    comparisons, asked = study.comparisons(pairs)
    findings = Findings(
        about=_about(frames, used),
        preregistration=preregistration.compare(frames.study.launches, block),
        completeness=tuple(study.counts()),
        configurations=tuple(configurations),
        selection=choices,
        comparisons=comparisons,
        robustness=asked,
        sweep=study.sweep(pairs),
        digits=study.digits(pairs),
        confusion=study.confusion(),
        random_halves=study.random_halves(),
        literature=literature.beside(block.get("references") or {}, ours),
        warnings=tuple(literature.unexpected(block.get("expected") or {}, ours) + study.edge_warnings()),
        run_sets=study.run_sets,
    )
    return findings.model_copy(update={"answer": answer.sentence(findings)})


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
        self.chosen = {
            model: choose(grid.validation, resamples=used.resamples, seed=used.seed)
            for model, grid in self.grids.items()
        }

    def rests_on(self, key: str, run_ids: Sequence[str]) -> str:
        """Note the runs that a finding rests on; returns the key to name them by."""
        self.run_sets[key] = tuple(str(run_id) for run_id in run_ids)
        return key

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
            key = self.rests_on(f"{model} {rate:g}", trained["run_id"])

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
        return gap.t_interval(
            values,
            self.used.confidence,
            n_planned=planned,
            unit="runs",
            population="seeds",
            bounds=(0.0, highest),
            runs=key,
        )

    def edge_warnings(self) -> list[str]:
        """One line for each model that chose the smallest or largest rate of the grid."""
        return [
            f"{model} does best at {chosen.choice.mean.learning_rate:g}, an edge of the grid: "
            "a better rate may lie outside"
            for model, chosen in self.chosen.items()
            if chosen.choice.mean.at_edge and len(self.grids[model].validation.rates) > 1
        ]

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

    def comparisons(self, pairs: Sequence[Pair]) -> tuple[tuple[Comparison, ...], dict[str, Robustness]]:
        """The primary gap of every pair, p-values adjusted by Holm over the baselines (family F1)."""
        compared = {pair.baseline: compare(pair) for pair in pairs}
        found = [comparison for comparison, _ in compared.values()]
        adjusted = gap.holm([c.seeds.sign_flip.p_value for c in found], self.used.confidence)
        found = (c.model_copy(update=dict(p_holm=p)) for c, p in zip(found, adjusted, strict=True))
        return tuple(found), {baseline: asked for baseline, (_, asked) in compared.items()}

    def sweep(self, pairs: Sequence[Pair]) -> dict[str, Sweep]:
        """Every pair across learning rates, p-values adjusted by Holm over baselines × rates (family F2)."""
        found = {pair.baseline: across_rates(pair) for pair in pairs}
        p_values = [rate.sign_flip.p_value for every in found.values() for rate in every.rates]
        adjusted = iter(gap.holm(p_values, self.used.confidence))
        return {
            baseline: every.model_copy(
                update=dict(rates=tuple(r.model_copy(update=dict(adjusted_p=next(adjusted))) for r in every.rates))
            )
            for baseline, every in found.items()
        }

    def digits(self, pairs: Sequence[Pair]) -> dict[str, Digits]:
        """Every pair digit by digit, p-values adjusted by Holm over baselines × classes (family F3)."""
        found = {pair.baseline: on_digits(pair) for pair in pairs}
        p_values = [p for _, family in found.values() for p in family]
        adjusted = iter(zip(p_values, gap.holm(p_values, self.used.confidence), strict=True))
        return {
            baseline: every.model_copy(update=dict(classes=tuple(_tested(c, *next(adjusted)) for c in every.classes)))
            for baseline, (every, _) in found.items()
        }

    def confusion(self) -> dict[str, tuple[tuple[float, ...], ...]]:
        """Confusion matrix of every model that trained at its selected rate."""
        matrices = {}
        for model, grid in self.grids.items():
            row = grid.position(self.chosen[model].choice.mean.learning_rate)
            trained = grid.run_ids[row][grid.trained[row]] if row >= 0 else []
            predicted = [self.frames.predictions[r]["test"] for r in trained if r in self.frames.predictions]
            if predicted:
                matrices[model] = confusion(np.stack(predicted), self.frames.test_labels, self.frames.classes)
        return matrices

    def random_halves(self) -> dict[str, Estimate]:
        """How often random halves of one model's runs at its selected rate differ."""
        halves = {}
        for model, grid in self.grids.items():
            row = grid.position(self.chosen[model].choice.mean.learning_rate)
            if row >= 0:
                right = grid.right[row][grid.trained[row]] / self.frames.study.dataset.n_test
                halves[model] = random_halves(
                    right, self.used.confidence, splits=SPLITS, seed=self.used.seed, planned=SPLITS
                )
        return halves


def _tested(entry: ClassGap, p_value: float | None, adjusted: float | None) -> ClassGap:
    tested = entry.gap.model_copy(update=dict(p_value=p_value))
    return entry.model_copy(update=dict(gap=tested, adjusted_p=adjusted))

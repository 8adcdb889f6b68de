"""Collects all findings of a study: every number is computed once, by the module named for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import answer, gap, literature, preregistration, selection
from analysis.estimate import Estimate
from analysis.findings import About, Choice, Comparison, Configuration, Counts, Findings, Model, Settings
from analysis.frames import STATES, Frames
from analysis.grid import Grid, grids
from study.errors import UserError

OVERRIDABLE = {"confidence": float, "margin": float, "resamples": int, "seed": int}
"""Keys of the analysis block that `python -m analysis` may set otherwise than declared; each becomes a deviation."""

LIMITS = {"confidence": (0, 1), "margin": (0, 1), "resamples": (99, 1_000_001), "seed": (-1, 2**63)}
"""What lies between which values those keys may have."""


def settings(frames: Frames, block: Mapping[str, Any]) -> Settings:
    """The analysis block with its defaults filled in: the first model against all others."""
    models = frames.models
    candidate = block.get("candidate") or models[0]
    baselines = block.get("baselines") or [m for m in models if m != candidate]
    if len(models) < 2:
        raise UserError(f"models: found {', '.join(models)}; allowed: two or more, since a gap needs two")
    for name in (candidate, *baselines):
        if name not in models:
            raise UserError(f"analysis: found model {name!r}; allowed: {', '.join(models)}")
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
    chosen = {model: choice.mean.learning_rate for model, choice in study.choices.items()}
    ours = {c.model: c.test_accuracy for c in configurations if c.learning_rate == chosen[c.model]}
    findings = Findings(
        about=_about(frames, used),
        preregistration=preregistration.compare(frames.study.launches, block),
        completeness=tuple(study.counts()),
        configurations=tuple(configurations),
        selection=study.choices,
        comparisons=tuple(study.comparison(baseline) for baseline in used.baselines),
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
        self.choices = {model: self._choice(grid) for model, grid in self.grids.items()}

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
            f"{model} does best at {choice.mean.learning_rate:g}, an edge of the grid: a better rate may lie outside"
            for model, choice in self.choices.items()
            if choice.mean.at_edge and len(self.grids[model].rates) > 1
        ]

    def _choice(self, grid: Grid) -> Choice:
        rows = grid.planned.any(1)
        score, rates = grid.val_score[rows], grid.rates[rows]
        luck = selection.luck(
            score, rates, resamples=self.used.resamples, seed=self.used.seed, val_correct=self._val_correct(grid, rows)
        )
        folds = selection.cross_fitted(score, rates)
        return Choice(
            mean=selection.select(score, rates),
            median=selection.select(score, rates, "median"),
            luck={f"{rate:g}": float(share) for rate, share in zip(rates, luck.frequencies, strict=True)},
            digits_resampled=luck.digits_resampled,
            cross_fitted={f"{rate:g}": float(np.mean(folds == i)) for i, rate in enumerate(rates)},
        )

    def _val_correct(self, grid: Grid, rows: np.ndarray) -> np.ndarray | None:
        """Which validation digits each run got right, bool [rate, seed, digit], all False where it did not train."""
        trained = grid.trained & rows[:, None]
        found = self.frames.correct(list(grid.run_ids[trained]), "val")
        if found is None:
            return None
        correct = np.zeros((*grid.run_ids.shape, found.shape[1]), dtype=bool)
        correct[trained] = found
        return correct[rows]

    def row(self, model: str) -> int | None:
        """Position of the model's selected rate in its grid; None if it has none."""
        rate = self.choices[model].mean.learning_rate
        return None if rate is None else int(np.searchsorted(self.grids[model].rates, rate))

    def comparison(self, baseline: str) -> Comparison:
        """The primary gap and all that goes with it."""
        used, n_test = self.used, self.frames.study.dataset.n_test
        names = (used.candidate, baseline)
        grid = [self.grids[name] for name in names]
        rows = [self.row(name) for name in names]
        width = len(grid[0].seeds)
        if None in rows:
            pairs, right, ids = np.zeros(width, bool), [np.zeros(0, np.int64)] * 2, [[], []]
            planned = np.zeros(width, bool)
        else:
            pairs = grid[0].trained[rows[0]] & grid[1].trained[rows[1]]
            planned = grid[0].planned[rows[0]] & grid[1].planned[rows[1]]
            right = [g.right[r][pairs] for g, r in zip(grid, rows, strict=True)]
            ids = [list(g.run_ids[r][pairs]) for g, r in zip(grid, rows, strict=True)]
        key = self.rests_on(f"{used.candidate} against {baseline}", [*ids[0], *ids[1]])
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
        correct = [self.frames.correct(run_ids) for run_ids in ids]
        mcnemar = None if any(c is None for c in correct) else gap.mcnemar(*correct, used.confidence)
        over_digits = self._over_digits(correct, int(planned.sum()), key)
        mean_right = [r.mean() / n_test if len(r) else None for r in right]

        def count(k: int, wanted: np.ndarray) -> int:
            return 0 if rows[k] is None else int((wanted[rows[k]] & planned).sum())

        return Comparison(
            baseline=baseline,
            candidate_rate=self.choices[used.candidate].mean.learning_rate,
            baseline_rate=self.choices[baseline].mean.learning_rate,
            candidate_error=None if mean_right[0] is None else float(1 - mean_right[0]),
            baseline_error=None if mean_right[1] is None else float(1 - mean_right[1]),
            pairs=int(pairs.sum()),
            planned=int(planned.sum()),
            not_trained={n: count(k, grid[k].outcome & ~grid[k].trained) for k, n in enumerate(names)},
            absent={n: count(k, grid[k].planned & ~grid[k].outcome) for k, n in enumerate(names)},
            seeds=over_seeds,
            digits=over_digits,
            mcnemar=mcnemar,
            sensitivity={},
            unqualified=_excludes_zero(over_seeds.mean) and _excludes_zero(over_digits),
        )

    def _over_digits(self, correct: list[np.ndarray | None], planned: int, key: str) -> Estimate:
        about = dict(method="two-way crossed analysis of variance", planned=planned, unit="pairs of runs")
        about |= dict(population="seeds and digits", runs=key)
        if any(c is None for c in correct):
            return Estimate(n=0, declined="the predictions of some of these runs are missing", **about)
        return Estimate(n=len(correct[0]), declined="not computed yet", **about)


def _excludes_zero(estimate: Estimate) -> bool:
    return estimate.low is not None and (estimate.low > 0 or estimate.high < 0)

"""A study as arrays [learning rate, seed], one set per model: what the statistics take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.frames import Frames


@dataclass(frozen=True)
class Grid:
    """One model's runs on the study's grid. Arrays are [rate, seed]; a cell nobody planned has run_id ""."""

    model: str
    rates: np.ndarray
    """[rate], ascending."""
    seeds: np.ndarray
    """[seed], ascending."""
    run_ids: np.ndarray
    states: np.ndarray
    trained: np.ndarray
    """Finished and not collapsed."""
    outcome: np.ndarray
    """Finished, collapsed or diverged: training came to an end, and how it did counts."""
    right: np.ndarray
    """Right test digits of finished runs, int64; −1 elsewhere."""
    test_accuracy: np.ndarray
    """Of finished runs; NaN elsewhere."""
    val_score: np.ndarray
    """Validation accuracy as selection sees it: guessing where diverged or collapsed, NaN where failed or missing."""

    @property
    def planned(self) -> np.ndarray:
        """Bool [rate, seed]."""
        return self.run_ids != ""


def grids(frames: Frames) -> dict[str, Grid]:
    """The grid of every model, all over the same rates and seeds, so that equal positions pair."""
    runs = frames.runs
    rates, seeds = np.sort(runs["learning_rate"].unique()), np.sort(runs["seed"].unique())
    return {model: _grid(frames, model, rates, seeds) for model in frames.models}


def _grid(frames: Frames, model: str, rates: np.ndarray, seeds: np.ndarray) -> Grid:
    runs = frames.runs[frames.runs["model"] == model]
    rows = np.searchsorted(rates, runs["learning_rate"])
    columns = np.searchsorted(seeds, runs["seed"])

    def spread(values: object, empty: object, dtype: object) -> np.ndarray:
        array = np.full((len(rates), len(seeds)), empty, dtype=dtype)
        array[rows, columns] = values
        return array

    chance, n_test = 1 / frames.classes, frames.study.dataset.n_test
    finished, diverged = runs["state"] == "finished", runs["state"] == "diverged"
    scored = runs["final_val_accuracy"].where(runs["trained"], chance).where(finished | diverged)
    right = (runs["final_test_accuracy"] * n_test).round().fillna(-1).astype(int)
    return Grid(
        model=model,
        rates=rates,
        seeds=seeds,
        run_ids=spread(runs["run_id"], "", object),
        states=spread(runs["state"], "", object),
        trained=spread(runs["trained"], False, bool),
        outcome=spread(finished | diverged, False, bool),
        right=spread(right, -1, np.int64),
        test_accuracy=spread(runs["final_test_accuracy"], np.nan, float),
        val_score=spread(scored, np.nan, float),
    )

"""A study as arrays [learning rate, seed], one set per model: what the statistics take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.frames import Frames

STREAMS = ["split_seed", "order_seed", "init_seed"]
"""What a seed stands for. Runs are paired by these: in a later launch `seed` may label another combination."""


OUTCOMES = ("learned", "collapsed", "diverged", "failed", "missing")
"""The first three are outcomes of training; `failed` and `missing` are the absence of one and are never scored."""


@dataclass(frozen=True)
class Validation:
    """What the choice of one model's learning rate may rest on, without test numbers. Arrays [rate, seed]."""

    rates: NDArray[np.float64]
    """Rates planned for this model, ascending [rate]."""
    score: NDArray[np.float64]
    """Validation accuracy; guessing where a run diverged or collapsed, NaN where it failed or is missing. All NaN where
    no run of any rate learned."""
    correct: NDArray[np.bool_] | None
    """Which validation images each run got right, bool [rate, seed, image]; all False where it did not learn.

    None where predictions are missing or the splits differ.
    """


@dataclass(frozen=True)
class Grid:
    """One model's runs over all rates and seeds of the study, so that equal positions of two models pair."""

    model: str
    rates: NDArray[np.float64]
    """[rate], ascending."""
    run_ids: NDArray
    """str [rate, seed]; "" where nothing was planned."""
    outcome: NDArray
    """str [rate, seed], in OUTCOMES; "" where nothing was planned."""
    right: NDArray[np.int64]
    """Right test images of finished runs; −1 elsewhere."""
    validation: Validation

    @cached_property
    def planned(self) -> NDArray[np.bool_]:
        """Bool [rate, seed]."""
        return self.run_ids != ""

    @cached_property
    def learned(self) -> NDArray[np.bool_]:
        """Finished and not collapsed, bool [rate, seed]."""
        return self.outcome == "learned"

    @cached_property
    def not_learned(self) -> NDArray[np.bool_]:
        """Diverged or collapsed: outcomes of training too, bool [rate, seed]."""
        return np.isin(self.outcome, ("diverged", "collapsed"))

    @cached_property
    def ended(self) -> NDArray[np.bool_]:
        """With an outcome of training, bool [rate, seed]."""
        return self.learned | self.not_learned

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Failed or missing: no outcome of training, bool [rate, seed]."""
        return np.isin(self.outcome, ("failed", "missing"))

    def position(self, rate: float | None) -> int:
        """Where a rate stands in `rates`; −1 for None."""
        return -1 if rate is None else int(np.searchsorted(self.rates, rate))


def independent(runs: pd.DataFrame) -> bool:
    """Whether no two seeds of the runs frame share their initial weights or their batch order."""
    seeds = runs[STREAMS].drop_duplicates()
    return not any(seeds[stream].duplicated().any() for stream in ("init_seed", "order_seed"))


def grids(frames: Frames) -> dict[str, Grid]:
    """The grid of every model."""
    runs = frames.runs
    rates = np.sort(runs["learning_rate"].unique())
    seeds = pd.MultiIndex.from_frame(runs.sort_values(["seed", *STREAMS])[STREAMS].drop_duplicates())
    return {model: _grid(frames, model, rates, seeds) for model in frames.models}


def _grid(frames: Frames, model: str, rates: NDArray, seeds: pd.MultiIndex) -> Grid:
    runs = frames.runs[frames.runs["model"] == model]
    cells = np.searchsorted(rates, runs["learning_rate"]), seeds.get_indexer(pd.MultiIndex.from_frame(runs[STREAMS]))
    shape = len(rates), len(seeds)
    outcome = runs["state"].mask(runs["collapsed"], "collapsed").mask(runs["learned"], "learned")
    right = (runs["final_test_accuracy"] * frames.study.dataset.n_test).round().fillna(-1).astype(np.int64)
    return Grid(
        model=model,
        rates=rates,
        run_ids=_spread(runs["run_id"], cells, shape, ""),
        outcome=_spread(outcome, cells, shape, ""),
        right=_spread(right, cells, shape, -1),
        validation=_validation(frames, without_test(runs), rates, cells, shape),
    )


def without_test(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs frame without its test columns: what the choice of a learning rate starts from."""
    return runs.loc[:, [name for name in runs.columns if "test" not in name]]


def _validation(
    frames: Frames, runs: pd.DataFrame, rates: NDArray, cells: tuple[NDArray, NDArray], shape: tuple[int, int]
) -> Validation:
    ended = runs["state"].isin(["finished", "diverged"])
    # Where nothing learned at any rate, no rate can be chosen: none has a score.
    score = runs["final_val_accuracy"].where(runs["learned"], 1 / frames.classes).where(ended & runs["learned"].any())
    planned = np.unique(cells[0])
    found = frames.correct(list(runs.loc[runs["learned"], "run_id"]), "val")
    correct = None
    if found is not None:
        correct = np.zeros((*shape, found.shape[1]), dtype=bool)
        learned = runs["learned"].to_numpy()
        correct[cells[0][learned], cells[1][learned]] = found
        correct = correct[planned]
    return Validation(rates[planned], _spread(score, cells, shape, np.nan)[planned], correct)


def _spread(values: pd.Series, cells: tuple[NDArray, NDArray], shape: tuple[int, int], empty: object) -> NDArray:
    array = np.full(shape, empty, dtype=object if isinstance(empty, str) else type(empty))
    array[cells] = values
    return array

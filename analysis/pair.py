"""Two models of a study, the candidate and one baseline, at the learning rates selected for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis import digits
from analysis.choice import Chosen, rules
from analysis.estimate import Estimate
from analysis.findings import Settings
from analysis.frames import Frames
from analysis.grid import Grid
from analysis.specifications import Choice as Rates
from analysis.specifications import at_rates


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

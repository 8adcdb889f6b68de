"""Two models of a study, the candidate and one baseline, at the learning rates selected for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.findings.schema import Settings
from analysis.frames import Frames
from analysis.grid import Grid, ModelRuns, independent
from analysis.stats import crossed
from analysis.stats.choice import Chosen, rules
from analysis.stats.estimate import Estimate
from analysis.stats.specifications import Choice as Rates
from analysis.stats.specifications import at_rates, planned_pairs


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
    def trained(self) -> NDArray[np.bool_]:
        """Whether both runs of a pair trained [seed]."""
        return np.logical_and(*self.of("trained", False))

    @cached_property
    def planned(self) -> int:
        """Pairs planned at the selected rates; at any rate, of a model for which none could be chosen."""
        return planned_pairs(self.models, self.rules["mean"])

    @cached_property
    def independent(self) -> bool:
        """Whether no two pairs share initial weights or batch order, as those of a factorial do."""
        runs = self.frames.runs
        return independent(runs[runs["model"].isin([grid.model for grid in self.grids])])

    @property
    def models(self) -> tuple[ModelRuns, ModelRuns]:
        """Both models as the specification curve takes them."""
        return self.grids[0].runs, self.grids[1].runs

    @cached_property
    def cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The primary pairs that trained: candidate's rate, baseline's rate and seed [pair], positions in the grid."""
        candidate, baseline = (rates[self.trained] for rates in self.primary)
        return candidate, baseline, np.flatnonzero(self.trained)

    def predicted(self, rates_c: NDArray, rates_b: NDArray, seeds: NDArray) -> tuple[list[str], list[str]]:
        """The runs, candidate's and baseline's, of those of the pairs at these cells that have both predictions."""
        ids = [g.run_ids[rates, seeds] for g, rates in zip(self.grids, (rates_c, rates_b), strict=True)]
        known = [pair for pair in zip(*ids, strict=True) if set(pair) <= self.frames.predictions.keys()]
        return [c for c, _ in known], [b for _, b in known]

    @cached_property
    def correct(self) -> list[NDArray[np.bool_]] | None:
        """Which test digits each run of the primary pairs with predictions got right: bool [pair, digit] each."""
        found = [self.frames.correct(ids) for ids in self.predicted(*self.cells)]
        return None if found[0] is None else found

    def over_digits(
        self,
        rule: str,
        rates_c: NDArray,
        rates_b: NDArray,
        seeds: NDArray,
        level: float,
        role: str = "descriptive",
    ) -> Estimate:
        """The gap over seeds and digits of the pairs at these cells, which `rule` chose and which trained.

        A pair without the predictions of both its runs is left out, with a warning.
        """
        ids = self.predicted(rates_c, rates_b, seeds)
        key = self.rests_on(f"{self.name}, {rule}, with predictions", [*ids[0], *ids[1]])
        about = dict(planned=self.planned, runs=key, role=role)
        if not ids[0]:
            return Estimate(
                method="two-way crossed analysis of variance",
                n=0,
                unit="pairs of runs",
                population="seeds and digits",
                declined=f"of none of the {seeds.size} pairs that trained are the predictions of both runs there"
                if seeds.size
                else "no pair of runs trained, so there are no predictions to compare",
                **about,
            )
        x = np.subtract(*(self.frames.correct(own).astype(np.int8) for own in ids))
        lost = seeds.size - len(x)
        warning = f"{lost} of {seeds.size} pairs that trained have lost their predictions and are left out"
        return crossed.gap_over_digits(x, level=level, **about).warned(warning if lost else None)

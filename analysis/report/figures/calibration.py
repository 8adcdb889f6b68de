"""How often intervals and tests keep their promise, from the scores that `analysis.calibration` gives."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.report.figures.canvas import spread
from analysis.report.figures.style import INK, MARGIN, PAGE

COLUMNS = 3
APART = 2
"""Columns of the panels that have rows of their own."""
SHADES = ListedColormap(["#9ecae1", "#4292c6", "#2171b5", "#08306b"])
"""From few seeds to many."""

LOWEST = {"coverage": 80.0, "size": 0.0}
HIGHEST = {"coverage": 100.5, "size": 22.0}


def figure(scores: pd.DataFrame, bands: dict[str, tuple[float, float]]) -> Figure:
    """A panel for each target and method: per cent of coverage, or size, by scenario and number of seeds.

    `scores` is the table of calibration.csv; `bands` gives the fractions that count as kept, by quantity. A score
    outside the frame is drawn at its edge as an arrow; where an interval promises nothing, it has no panel. Panels of
    few scenarios stand below the others, with rows of their own. Called inside `style.applied`, as all that draw.
    """
    given = scores[scores["value"].notna() & (scores["label"] != "no promise")]
    seeds = sorted(given["seeds"].unique())
    colours = dict(zip(seeds, SHADES(np.linspace(0, 1, len(seeds))), strict=True))
    panels = [part for _, part in given.groupby(["target", "quantity", "method"], sort=False)]
    most = max((part["scenario"].nunique() for part in panels), default=0)
    many, few = ([p for p in panels if (2 * p["scenario"].nunique() > most) is wanted] for wanted in (True, False))
    names = list(dict.fromkeys(name for part in many for name in part["scenario"]))
    placed = [(many, names, COLUMNS)] * bool(many) + [(few, None, APART)] * bool(few)
    lines = [-(-len(group) // columns) for group, _, columns in placed]
    rows_of = [len(own or max((part["scenario"].unique() for part in group), key=len)) for group, own, _ in placed]
    rooms = [0.13 if own else 0.24 for _, own, _ in placed]
    heights = [n * (0.65 + room * max(rows, 2)) for n, rows, room in zip(lines, rows_of, rooms, strict=True)]
    drawn = Figure(figsize=(PAGE, sum(heights) + 0.3))
    parts = drawn.subfigures(len(placed), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, n, (group, shared, columns) in zip(parts, lines, placed, strict=True):
        axes = part.subplots(n, columns, squeeze=False)
        for at, (place, scored) in enumerate(zip(axes.flat, group, strict=False)):
            rows = shared or list(dict.fromkeys(scored["scenario"]))
            _panel(place, scored, rows, colours, bands)
            if shared and at % columns:
                place.tick_params(axis="y", labelleft=False)
        for place in axes.flat[len(group) :]:
            place.set_axis_off()
    marks = [Line2D([], [], ls="", marker="o", color=colours[n], ms=3, label=f"n = {n} seeds") for n in seeds]
    drawn.legend(handles=marks, loc="outside upper right", ncols=max(1, len(seeds)))
    return drawn


def _panel(
    axes: Axes,
    scored: pd.DataFrame,
    names: Sequence[str],
    colours: Mapping[int, Sequence[float]],
    bands: Mapping[str, tuple[float, float]],
) -> None:
    """The scores of one method for one target, in rows of these scenarios."""
    target, quantity, method = scored[["target", "quantity", "method"]].iloc[0]
    low, high = LOWEST[quantity], HIGHEST[quantity]
    axes.axvspan(*(100 * b for b in bands[quantity]), color=MARGIN, lw=0)
    axes.axvline(95 if quantity == "coverage" else 5, color=INK, lw=0.6)
    for shift, (n, colour) in zip(spread(len(colours), 0.24), colours.items(), strict=True):
        cells = scored[scored["seeds"] == n]
        y = np.array([names.index(name) for name in cells["scenario"]]) + shift
        values = 100 * cells["value"].to_numpy()
        inside = (values >= low) & (values <= high)
        limits = 100 * cells[["low", "high"]].to_numpy().T
        look: dict[str, Any] = dict(color=colour, clip_on=False)
        wide = abs(limits - values)[:, inside]
        axes.errorbar(values[inside], y[inside], xerr=wide, fmt="o", ms=2, lw=0.8, **look)
        for x, at in zip(values[~inside], y[~inside], strict=True):
            axes.plot(low if x < low else high, at, "<" if x < low else ">", ms=2.5, **look)
    axes.set_xlim(low, high)
    axes.set_title(textwrap.fill(f"{method}, {target}", 24))
    axes.set_xlabel("Coverage (%)" if quantity == "coverage" else "Rejections (%)")
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 46) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)

"""How often intervals and tests keep their promise, from the scores that `analysis.calibration` gives."""

from __future__ import annotations

import textwrap
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from analysis.report.figures.style import INK, MARGIN, PAGE

COLUMNS = 4
SHADES = ListedColormap(["#9ecae1", "#4292c6", "#2171b5", "#08306b"])
"""From few seeds to many."""

LOWEST = {"coverage": 80.0, "size": 0.0}
HIGHEST = {"coverage": 100.5, "size": 8.0}


def figure(scores: pd.DataFrame, bands: dict[str, tuple[float, float]]) -> Figure:
    """A panel for each target and method: per cent of coverage, or size, by scenario and number of seeds.

    `scores` is the table of calibration.csv; `bands` gives the fractions that count as kept, by quantity. A score
    outside the frame is drawn at its edge as an arrow; where an interval promises nothing, it has no panel. Called
    inside `style.applied`, as all that draw.
    """
    given = scores[scores["value"].notna() & (scores["label"] != "no promise")]
    names = list(dict.fromkeys(given["scenario"]))
    seeds = sorted(given["seeds"].unique())
    colours = dict(zip(seeds, SHADES(np.linspace(0, 1, len(seeds))), strict=True))
    panels = list(given.groupby(["target", "quantity", "method"], sort=False))
    rows = ceil(len(panels) / COLUMNS)
    drawn = Figure(figsize=(PAGE, rows * (0.55 + 0.13 * len(names)) + 0.3))
    axes = drawn.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for place, ((target, quantity, method), part) in zip(axes.flat, panels, strict=False):
        low, high = LOWEST[quantity], HIGHEST[quantity]
        place.axvspan(*(100 * b for b in bands[quantity]), color=MARGIN, lw=0)
        place.axvline(95 if quantity == "coverage" else 5, color=INK, lw=0.6)
        for n, cells in part.groupby("seeds"):
            y = np.array([names.index(name) for name in cells["scenario"]]) + 0.16 * (
                seeds.index(n) - (len(seeds) - 1) / 2
            )
            values = 100 * cells["value"].to_numpy()
            inside = (values >= low) & (values <= high)
            limits = 100 * cells[["low", "high"]].to_numpy().T
            look = dict(color=colours[n], clip_on=False)
            place.errorbar(
                values[inside],
                y[inside],
                xerr=abs(limits - values)[:, inside],
                fmt="o",
                ms=2,
                lw=0.8,
                **look,
            )
            for x, at in zip(values[~inside], y[~inside], strict=True):
                place.plot(low if x < low else high, at, "<" if x < low else ">", ms=2.5, **look)
        place.set_xlim(low, high)
        place.set_title(textwrap.fill(f"{method}, {target}", 20))
        place.set_xlabel("Coverage (%)" if quantity == "coverage" else "Rejections (%)")
    for row in axes:
        row[0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    marks = [drawn.axes[0].plot([], [], "o", color=colours[n], ms=3, label=f"n = {n} seeds")[0] for n in seeds]
    drawn.legend(handles=marks, loc="outside upper right", ncols=len(seeds))
    return drawn

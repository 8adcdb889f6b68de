"""The forest plot of one comparison across studies."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import text
from analysis.findings.across import Across, StudyGap
from analysis.report.figures import style
from analysis.report.figures.canvas import name_rows
from analysis.report.figures.style import COLOURS, INK, MUTED, PAGE, TALLEST
from analysis.stats.estimate import Estimate

PANELS = 3
"""Pairs of models side by side."""


def caption(found: Across) -> str:
    """What the forest plot shows of these studies, in words."""
    said = [
        "Difference in test accuracy, each model at its selected learning rate, in every study by itself. Points: mean "
        "over pairs of trainings.",
        "Hollow: the study calls neither model the more accurate."
        if any(gap.seeds.estimate is not None and not gap.unqualified for gap in found.gaps)
        else "",
        "Thick: interval over seeds (its test images). Thin: over seeds and test images"
        + (", probably too short where these are taken as independent." if _independent(found) else "."),
        "Dotted: the interval in which a further recipe's gap would be expected, were it drawn as these were."
        if _predicted(found)
        else "",
        "Colours: datasets." if len(_colours(found)) > 1 else "",
    ]
    return " ".join(filter(None, said))


def _independent(found: Across) -> bool:
    """Whether an interval supposes that test images are independent."""
    return any(gap.clusters is None and gap.images.low is not None for gap in found.gaps)


def draw(found: Across, folder: Path) -> list[Path]:
    """Draw the forest plot as forest.pdf, .svg and .png; the paths written."""
    with style.applied():
        return style.save(_forest(found), folder, "forest")


def _forest(found: Across) -> Figure:
    """A panel for each pair of models; its rows are studies, dataset by dataset."""
    pairs = list(dict.fromkeys(gap.made_of for gap in found.gaps))
    columns = min(PANELS, len(pairs))
    lines = -(-len(pairs) // columns)
    rows = max(len(_rows(found, pair)) for pair in pairs)
    figure = Figure(figsize=(PAGE if columns > 1 else PAGE / 1.6, min(TALLEST, lines * (0.75 + 0.19 * rows))))
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for axes in panels[len(pairs) :]:
        axes.set_visible(False)
    for place, (axes, pair) in enumerate(zip(panels, pairs, strict=False)):
        _panel(axes, found, pair)
        if place % columns and [label for label, _ in _rows(found, pair)] == [
            label for label, _ in _rows(found, pairs[place - 1])
        ]:
            axes.tick_params(axis="y", labelleft=False)
    keys = [
        Line2D([], [], lw=2.6, color=MUTED, solid_capstyle="butt", label="over seeds (these test images)"),
        Line2D([], [], lw=1.0, color=MUTED, label="over seeds and test images"),
    ]
    if _predicted(found):
        keys.append(Line2D([], [], lw=1.6, color=MUTED, ls=(0, (1.5, 1)), label="a further recipe (prediction)"))
    if len(colours := _colours(found)) > 1:
        keys += [
            Line2D([], [], ls="", marker="o", ms=3.8, color=colour, label=f"on {d}") for d, colour in colours.items()
        ]
    figure.legend(handles=keys, loc="outside upper center", ncols=len(keys) if columns > 1 and len(keys) < 5 else 3)
    return figure


def _predicted(found: Across) -> bool:
    """Whether the gap of a further recipe is drawn anywhere."""
    return any(group.prediction.low is not None for group in found.groups)


def _colours(found: Across) -> dict[str, str]:
    """Dataset → its colour."""
    return dict(zip(dict.fromkeys(gap.dataset for gap in found.gaps), cycle(COLOURS), strict=False))


def _rows(found: Across, pair: tuple[str, str]) -> list[tuple[str, StudyGap | Estimate]]:
    """Labels of a panel's rows with the study's gap, or with a dataset's prediction."""
    rows: list[tuple[str, StudyGap | Estimate]] = []
    for group in found.groups:
        if (group.candidate, group.baseline) == pair:
            of_group = {*group.ahead, *group.behind, *group.unanswered}
            rows += [(gap.study, gap) for gap in found.gaps if gap.study in of_group and gap.made_of == pair]
            if group.prediction.low is not None:
                rows.append((f"further, on {group.dataset}", group.prediction))
    return rows


def _panel(axes: Axes, found: Across, pair: tuple[str, str]) -> None:
    rows = _rows(found, pair)
    colours = _colours(found)
    axes.axvline(0, color=INK, lw=0.6)
    for row, (label, gap) in enumerate(rows):
        if isinstance(gap, Estimate):
            bar = _bar(axes, gap, row, dict(color=MUTED, lw=1.6, ls=(0, (1.5, 1))))
            style.tell(bar, [f"{label}: {text.points_interval(gap.low, gap.high)} points expected"])
            continue
        colour = colours[gap.dataset]
        _bar(axes, gap.images, row, dict(color=colour, lw=1.0, solid_capstyle="butt"))
        _bar(axes, gap.seeds, row, dict(color=colour, lw=2.6, solid_capstyle="butt"))
        if gap.seeds.estimate is None:
            axes.text(0, row, "no answer", color=MUTED, ha="center", va="center", fontsize=6)
            continue
        face = colour if gap.unqualified else "white"
        (mark,) = axes.plot(100 * gap.seeds.estimate, row, "o", ms=3.8, mfc=face, mec=colour, mew=0.9, zorder=4)
        limits = text.points_interval(gap.seeds.low, gap.seeds.high)
        style.tell(mark, [f"{label}: {text.points(gap.seeds.estimate)} points (over seeds {limits})"])
    name_rows(axes, [label for label, _ in rows])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(f"{pair[0]} − {pair[1]}")
    axes.set_xlabel("Percentage points")
    axes.grid(axis="x")


def _bar(axes: Axes, e: Estimate, row: int, looks: Mapping[str, Any]) -> Line2D:
    """An interval in percentage points; nothing where there is none."""
    ends = [] if e.low is None or e.high is None else [100 * e.low, 100 * e.high]
    (bar,) = axes.plot(ends, [row] * len(ends), **looks)
    return bar

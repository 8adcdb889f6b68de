"""The digits themselves: those that only one model reads, and what the classes are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas
from analysis.report.figures.canvas import Caption, Scene
from analysis.report.figures.style import COLUMN, INK, PAGE
from analysis.report.phrases import each, pairs

TALL = 1.3
"""Height of a row in widths of a digit: the digit, and its class above."""

# Light enough that dark numbers stand out on all of it.
SHADES = sns.light_palette("#56B4E9", as_cmap=True)

PER_ROW = 14
"""Digits drawn side by side across the page ..."""

PER_COLUMN = 5
"""... and across one column of it."""


class HardRow(NamedTuple):
    """Test digits that every run of one model gets wrong and every run of another right."""

    wrong: str
    right: str
    digits: tuple[int, ...]
    """Positions in the test file."""
    runs: str
    """Key into findings' `run_sets`."""

    @property
    def wide(self) -> bool:
        """Whether it needs the page's width."""
        return len(self.digits) > PER_COLUMN


def hard_rows(findings: Findings) -> list[HardRow]:
    """What the figure of hard digits shows, row by row."""
    candidate = findings.about.settings.candidate
    rows = []
    for baseline, found in findings.digits.items():
        if found.hard is not None:
            runs = found.hard.rests_on.runs
            rows += [HardRow(baseline, candidate, found.hard.baseline_alone_wrong, runs)]
            rows += [HardRow(candidate, baseline, found.hard.candidate_alone_wrong, runs)]
    return [row for row in rows if row.digits]


def hard_digits_caption(findings: Findings, frames: Frames) -> Caption:
    """Of the digits that only one model can read."""
    rows = hard_rows(findings)
    hard = {b: d.hard for b, d in findings.digits.items() if d.hard is not None}
    both = each((b, text.count(len(h.both_wrong))) for b, h in hard.items())
    first = f", of which the first {PER_ROW} are shown" if any(len(row.digits) > PER_ROW for row in rows) else ""
    return Caption(
        "Test digits that one model gets wrong with every seed and the other right with every seed. Above each: its "
        "true class, and what the model that is wrong takes it for most often. In brackets: how many there are"
        f"{first}. Read by neither with any seed: {both}. Planned pairs: {pairs(findings)}.",
        None if rows else "No test digit is read by every run of one model and by none of the other.",
        wide=any(row.wide for row in rows),
    )


@canvas.figure(section="images", title="Digits that only one model reads", caption=hard_digits_caption)
def hard_digits(scene: Scene) -> Figure:
    """Test digits that every seed of one model gets wrong and every seed of the other right, with what it reads."""
    rows = hard_rows(scene.findings)
    across = max(min(len(row.digits), PER_ROW) for row in rows)
    wide = any(row.wide for row in rows)
    figure = Figure(figsize=(PAGE if wide else COLUMN, 0.1 + 0.42 * TALL * len(rows)))
    axes = figure.subplots()
    height, width = scene.frames.test_images.shape[1:]
    x, y = (0.46 * side / max(height, width) for side in (width, height))
    for at, row in enumerate(rows):
        middle = TALL * at + 0.8
        wrong, right = scene.looks[row.wrong].label, scene.looks[row.right].label
        label = f"{wrong} wrong,\n{right} right ({text.count(len(row.digits))})"
        axes.text(-0.1, middle, label, ha="right", va="center", fontsize=6)
        taken = read_as(scene.frames, scene.findings.run_sets[row.runs], row.wrong, row.digits[:PER_ROW])
        for column, (digit, read) in enumerate(zip(row.digits, taken, strict=False)):
            # One axes for all: as many axes as digits would take seconds to lay out.
            extent = (column + 0.5 - x, column + 0.5 + x, middle + y, middle - y)
            axes.imshow(scene.frames.test_images[digit], cmap="gray_r", interpolation="nearest", extent=extent)
            axes.add_patch(Rectangle((column + 0.5 - x, middle - y), 2 * x, 2 * y, fill=False, ec="#b0b0b0", lw=0.4))
            above = f"{scene.frames.test_labels[digit]} → {read}"
            axes.text(column + 0.5, middle - 0.5, above, fontsize=6, ha="center")
    axes.set(xlim=(-0.1, PER_ROW if wide else across), ylim=(TALL * len(rows), 0), aspect="equal", anchor="W")
    axes.set_axis_off()
    return figure


def confusion_caption(findings: Findings, frames: Frames) -> Caption:
    """Of the confusion matrices."""
    n = each((model, text.of(found.rests_on.n, found.rests_on.planned)) for model, found in findings.confusion.items())
    return Caption(
        "Per cent of each true class predicted as each other class, mean over the runs that trained; right answers "
        f"are left out, and numbers below 0.05%. Planned runs: {n}.",
        None if findings.confusion else "No run has trained whose predictions are there.",
        wide=len(findings.confusion) > 1,
    )


@canvas.figure(section="images", title="Confusions at the selected learning rates", caption=confusion_caption)
def confusion(scene: Scene) -> Figure:
    """Mean share of each true class predicted as each class, right answers left out."""
    matrices = scene.findings.confusion
    columns = min(len(matrices), 3)
    rows = -(-len(matrices) // columns)
    width = PAGE if columns > 1 else COLUMN
    # As high as square panels of that width are, with their titles and labels.
    figure = Figure(figsize=(width, rows * ((width - 0.3) / columns - 0.15 + 0.55)))
    panels = figure.subplots(rows, columns, squeeze=False)
    wrong = {model: 100 * np.array(matrix.shares) for model, matrix in matrices.items()}
    for matrix in wrong.values():
        np.fill_diagonal(matrix, np.nan)
    highest = max(np.nanmax(matrix, initial=0.0) for matrix in wrong.values()) or 1.0
    for axes in panels.flat[len(wrong) :]:
        axes.set_visible(False)
    for axes, (model, matrix) in zip(panels.flat, wrong.items(), strict=False):
        _shares(axes, matrix, highest)
        axes.set_title(scene.looks[model].label)
        axes.set_xlabel("Predicted class")
    for axes in panels[:, 0]:
        axes.set_ylabel("True class")
    return figure


def _shares(axes: Axes, matrix: np.ndarray, highest: float) -> None:
    """One model's shares in per cent, written into their cells where there is room for it."""
    few = len(matrix) <= 12
    sns.heatmap(
        pd.DataFrame(matrix),
        ax=axes,
        cmap=SHADES,
        vmin=0,
        vmax=highest,
        square=True,
        cbar=False,
        annot=np.where(matrix >= 0.05, np.round(matrix, 1).astype(str), "") if few else False,
        fmt="",
        annot_kws={"fontsize": 5.6, "color": INK},
        linewidths=0.3 if few else 0,
        linecolor="#f2f2f2",
    )
    axes.tick_params(length=0, rotation=0)


def read_as(frames: Frames, run_ids: Sequence[str], model: str, digits: Sequence[int]) -> list[int]:
    """What the runs of `model` among `run_ids` predict most often for each of the test digits; of equals the smallest.

    Runs without predictions are left out; there must be one with them.
    """
    own = set(frames.runs.loc[frames.runs["model"] == model, "run_id"])
    known = [run_id for run_id in run_ids if run_id in own and run_id in frames.predictions]
    predicted = np.stack([frames.predictions[run_id]["test"] for run_id in known])[:, list(digits)]
    return [int(np.bincount(column).argmax()) for column in predicted.T]

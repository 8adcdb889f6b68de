"""The test images themselves: those that only one model gets right, and what the classes are taken for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas
from analysis.report.figures.canvas import Caption, Scene, in_lines
from analysis.report.figures.style import COLUMN, INK, LETTER, PAGE
from analysis.report.phrases import each, pairs

TALL = 1.3
"""Height of a row in widths of an image: the image, and its class above."""

HIGH = 1.6
"""The same with a second line above it."""

# Light enough that dark numbers stand out on all of it.
SHADES = sns.light_palette("#56B4E9", as_cmap=True)
CONTRAST = sns.diverging_palette(240, 35, s=85, l=72, as_cmap=True)

SHARE, DIFFERENCE = 3, 4
"""Letters of a number in a cell: 0.8, +0.8."""

PER_ROW = 14
"""Images drawn side by side across the page ..."""

PER_COLUMN = 5
"""... and across one column of it."""


class HardRow(NamedTuple):
    """Test images that every run of one model gets wrong and every run of another right."""

    wrong: str
    right: str
    images: tuple[int, ...]
    """Positions in the test file."""
    runs: str
    """Key into findings' `run_sets`."""

    @property
    def wide(self) -> bool:
        """Whether it needs the page's width."""
        return len(self.images) > PER_COLUMN


def hard_rows(findings: Findings) -> list[HardRow]:
    """What the figure of hard images shows, row by row; a row without images has only a word in the caption."""
    candidate = findings.about.settings.candidate
    rows = []
    for baseline, found in findings.images.items():
        if found.hard is not None:
            runs = str(found.hard.rests_on.runs)
            rows += [HardRow(baseline, candidate, found.hard.baseline_alone_wrong, runs)]
            rows += [HardRow(candidate, baseline, found.hard.candidate_alone_wrong, runs)]
    return rows


def hard_images_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the images that only one model gets right."""
    every = hard_rows(findings)
    rows = [row for row in every if row.images]
    empty = " or ".join(f"{row.wrong} wrong and {row.right} right" for row in every if not row.images)
    none = f" There is none with {empty}." if empty else ""
    hard = {b: d.hard for b, d in findings.images.items() if d.hard is not None}
    both = each((b, text.count(len(h.both_wrong))) for b, h in hard.items())
    first = f", of which the first {PER_ROW} are shown" if any(len(row.images) > PER_ROW for row in rows) else ""
    return Caption(
        "Test images that one model gets wrong with every seed and the other right with every seed. Above each: its "
        "true class, and what the model that is wrong takes it for most often. In brackets: how many there are"
        f"{first}.{none} Right with no seed of either: {both}. Planned pairs: {pairs(findings)}.",
        None if rows else "No test image is classified correctly by every run of one model and by none of the other.",
        wide=any(row.wide for row in rows),
    )


@canvas.figure(section="images", title="Images that only one model gets right", caption=hard_images_caption)
def hard_images(scene: Scene) -> Figure:
    """Test images that every seed of one model gets wrong and every seed of the other right, with what it reads."""
    rows = [row for row in hard_rows(scene.findings) if row.images]
    wide = any(row.wide for row in rows)
    across = max(min(len(row.images), PER_ROW) for row in rows)
    side = min(0.6, 0.42 * PER_ROW / across) if wide else 0.42  # inches: few images are larger, up to a limit
    figure = Figure(figsize=(PAGE if wide else COLUMN, 0.1 + side * TALL * len(rows)))
    axes = figure.subplots()
    for at, row in enumerate(rows):
        wrong, right = scene.looks[row.wrong].label, scene.looks[row.right].label
        label = f"{wrong} wrong,\n{right} right ({text.count(len(row.images))})"
        shown = row.images[:PER_ROW]
        taken = read_as(scene.frames, scene.findings.run_sets[row.runs], row.wrong, shown)
        above = [f"{scene.frames.test_labels[image]} → {read}" for image, read in zip(shown, taken, strict=True)]
        _row(axes, scene.frames, TALL * at, label, shown, above)
    axes.set(xlim=(-0.1, across), ylim=(TALL * len(rows), 0), aspect="equal", anchor="W")
    axes.set_axis_off()
    return figure


def _row(axes: Axes, frames: Frames, top: float, label: str, images: Sequence[int], above: Sequence[str]) -> None:
    """Test images side by side in frames, a line of text above each and the row's label before them."""
    height, width = frames.test_images.shape[-2:]
    x, y = (0.46 * side / max(height, width) for side in (width, height))
    middle = top + 0.8
    axes.text(-0.1, middle, label, ha="right", va="center", fontsize=6)
    for column, (image, line) in enumerate(zip(images, above, strict=True)):
        # One axes for all: as many axes as images would take seconds to lay out.
        extent = (column + 0.5 - x, column + 0.5 + x, middle + y, middle - y)
        # Images in colour lie by channel, and are drawn by pixel.
        pixels = (
            np.moveaxis(frames.test_images[image], 0, -1) if frames.test_images.ndim == 4 else frames.test_images[image]
        )
        axes.imshow(pixels, cmap="gray_r", interpolation="nearest", extent=extent)
        axes.add_patch(Rectangle((column + 0.5 - x, middle - y), 2 * x, 2 * y, fill=False, ec="#b0b0b0", lw=0.4))
        axes.text(column + 0.5, middle - 0.5, line, fontsize=6, ha="center")


def misclassified(findings: Findings, frames: Frames) -> dict[str, tuple[NDArray[np.bool_], list[str]]]:
    """Model → which test image each run at its selected rate gets wrong [run, image], and those runs' ids."""
    runs = frames.runs[frames.runs["learned"]]
    found = {}
    for model, choice in findings.selection.items():
        own = runs[(runs["model"] == model) & (runs["learning_rate"] == choice.mean.learning_rate)]
        run_ids = [run_id for run_id in own["run_id"] if run_id in frames.predictions]
        if run_ids:
            predicted = np.stack([frames.predictions[run_id]["test"] for run_id in run_ids])
            found[model] = predicted != frames.test_labels, run_ids
    return {model: (wrong, run_ids) for model, (wrong, run_ids) in found.items() if wrong.any()}


def gallery_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the images that are misclassified most often."""
    found = misclassified(findings, frames)
    chosen = {model: choice.mean.learning_rate for model, choice in findings.selection.items()}
    planned = {c.model: c.planned for c in findings.completeness if c.learning_rate == chosen.get(c.model)}
    n = each((model, text.of(len(run_ids), planned[model])) for model, (_, run_ids) in found.items())
    always = {model: int(wrong.all(axis=0).sum()) for model, (wrong, _) in found.items()}
    tied = each((model, text.count(images)) for model, images in always.items() if images > PER_ROW)
    first = f" Every run is wrong on more than these, which are the first by position: {tied}." if tied else ""
    return Caption(
        "The test images that the runs of each model get wrong most often, at its selected learning rate, at most "
        f"{PER_ROW}.{first} Above each: its true class, what it is taken for most often, and the share of runs that "
        f"are wrong. Planned runs: {n}.",
        None if found else "No run has learned whose predictions are there, or none is ever wrong.",
        wide=True,
    )


@canvas.figure(section="images", title="Images misclassified most often", caption=gallery_caption)
def gallery(scene: Scene) -> Figure:
    """A row for each model of the test images with the largest share of its runs wrong."""
    found = misclassified(scene.findings, scene.frames)
    figure = Figure(figsize=(PAGE, 0.1 + 0.42 * HIGH * len(found)))
    axes = figure.subplots()
    for at, (model, (wrong, run_ids)) in enumerate(found.items()):
        share = wrong.mean(axis=0)
        worst = np.argsort(-share, kind="stable")[:PER_ROW]
        shown = [int(image) for image in worst if share[image] > 0]
        taken = _taken_for(scene.frames, run_ids, wrong, shown)
        above = [
            f"{scene.frames.test_labels[image]} → {read}\n{text.percent(share[image], 0)}"
            for image, read in zip(shown, taken, strict=True)
        ]
        _row(axes, scene.frames, HIGH * at + HIGH - TALL, scene.looks[model].label, shown, above)
    axes.set(xlim=(-0.1, PER_ROW), ylim=(HIGH * len(found), 0), aspect="equal", anchor="W")
    axes.set_axis_off()
    return figure


def _taken_for(frames: Frames, run_ids: Sequence[str], wrong: NDArray[np.bool_], images: Sequence[int]) -> list[int]:
    """What the runs that get each image wrong predict most often for it; of equals the smallest."""
    predicted = np.stack([frames.predictions[run_id]["test"] for run_id in run_ids])
    return [int(np.bincount(predicted[wrong[:, image], image]).argmax()) for image in images]


def confusion_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the confusion matrices."""
    n = each((model, text.of(found.rests_on.n, found.rests_on.planned)) for model, found in findings.confusion.items())
    numbered = _numbered(len(findings.confusion), findings.about.classes, SHARE)
    return Caption(
        "Per cent of each true class predicted as each other class, mean over the runs that learned, "
        f"{_shown(numbered)}; the diagonal, of right answers, is blank. Planned runs: {n}.",
        None if findings.confusion else "No run has learned whose predictions are there.",
        wide=len(findings.confusion) > 1,
    )


@canvas.figure(section="images", title="Confusions at the selected learning rates", caption=confusion_caption)
def confusion(scene: Scene) -> Figure:
    """Mean share of each true class predicted as each class, right answers left out."""
    matrices = scene.findings.confusion
    figure, panels = _panels([scene.looks[model].label for model in matrices])
    wrong = {model: 100 * np.array(matrix.shares) for model, matrix in matrices.items()}
    for matrix in wrong.values():
        np.fill_diagonal(matrix, np.nan)
    highest = max(np.nanmax(matrix, initial=0.0) for matrix in wrong.values()) or 1.0
    for axes, matrix in zip(panels.flat, wrong.values(), strict=False):
        numbers = _numbers(matrix, "{:.1f}".format)
        _matrix(axes, matrix, numbers if _numbered(len(wrong), len(matrix), SHARE) else None, SHADES, (0, highest))
    _name_axes(panels)
    return figure


def _shown(numbered: bool) -> str:
    """How a matrix shows its values, in words."""
    return "as a number where that is 0.1 or more when rounded" if numbered else "as a shade"


def _numbers(matrix: np.ndarray, written: Callable[[float], str]) -> np.ndarray:
    """The cells as they are `written`, to a digit; blank where that digit is 0, and where there is no number."""
    words = [["" if np.isnan(x) else written(x) for x in row] for row in matrix]
    return np.array([["" if word == "0.0" else word for word in row] for row in words])


def _matrix(
    axes: Axes, matrix: np.ndarray, numbers: np.ndarray | None, shades: Colormap, limits: tuple[float, float]
) -> None:
    """A matrix of classes as a heat map, with these numbers in its cells."""
    sns.heatmap(
        pd.DataFrame(matrix),
        ax=axes,
        cmap=shades,
        vmin=limits[0],
        vmax=limits[1],
        square=True,
        cbar=False,
        annot=numbers,
        fmt="",
        annot_kws={"fontsize": 5.6, "color": INK},
        linewidths=0 if numbers is None else 0.3,
        linecolor="#f2f2f2",
    )
    axes.tick_params(length=0, rotation=0)


def confusion_difference_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the differences of the confusion matrices."""
    drawn = _differences(findings)
    shares = findings.confusion
    candidate = findings.about.settings.candidate
    numbered = _numbered(len(drawn), findings.about.classes, DIFFERENCE)
    n = each((m, text.of(shares[m].rests_on.n, shares[m].rests_on.planned)) for m in (candidate, *drawn) if m in shares)
    return Caption(
        f"Share of each true class predicted as each other class by the baseline minus that by {candidate}, in "
        f"percentage points, {_shown(numbered)}: orange, mistakes that {candidate} makes less often; blue, more often; "
        f"the diagonal, of right answers, is blank. Descriptive. Planned runs: {n}.",
        None if drawn else "There are no two models whose predictions are there.",
        wide=len(drawn) > 1,
    )


@canvas.figure(
    section="images",
    title="Confusions of each baseline minus those of {candidate}",
    caption=confusion_difference_caption,
)
def confusion_difference(scene: Scene) -> Figure:
    """The baseline's confusions minus the candidate's, a panel for each baseline."""
    matrices = _differences(scene.findings)
    figure, panels = _panels([f"{scene.looks[baseline].label} − {scene.candidate}" for baseline in matrices])
    highest = max(np.nanmax(np.abs(matrix), initial=0.0) for matrix in matrices.values()) or 1.0
    for axes, matrix in zip(panels.flat, matrices.values(), strict=False):
        numbers = _numbers(matrix, lambda x: text.signed(x, 1))
        numbered = _numbered(len(matrices), len(matrix), DIFFERENCE)
        _matrix(axes, matrix, numbers if numbered else None, CONTRAST, (-highest, highest))
    _name_axes(panels)
    return figure


def _differences(findings: Findings) -> dict[str, np.ndarray]:
    """Baseline → its confusions minus the candidate's in percentage points, right answers as NaN."""
    shares = {model: 100 * np.array(matrix.shares) for model, matrix in findings.confusion.items()}
    own = shares.get(findings.about.settings.candidate)
    baselines = [c.baseline for c in findings.comparisons if own is not None and c.baseline in shares]
    differences = {baseline: shares[baseline] - own for baseline in baselines}
    for matrix in differences.values():
        np.fill_diagonal(matrix, np.nan)
    return differences


def _name_axes(panels: np.ndarray) -> None:
    """Say which side holds the true classes and which the predicted ones."""
    for axes in panels.flat:
        axes.set_xlabel("Predicted class")
    for axes in panels[:, 0]:
        axes.set_ylabel("True class")


def _columns(n: int) -> int:
    """How many of `n` square panels stand in a row: three, or more where the page would not hold as many rows."""
    return min(n, max(3, math.ceil(math.sqrt(n))))


def _numbered(n: int, classes: int, letters: int) -> bool:
    """Whether the cells of `n` matrices of so many classes have room for numbers of so many letters."""
    return 72 * (PAGE / max(3, _columns(n)) - 0.25) >= 3.1 * letters * classes


def _panels(titles: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """A figure of square panels, as high as they are with these titles and their labels."""
    n = len(titles)
    columns = _columns(n)
    rows = -(-n // columns)
    width = PAGE if columns > 1 else COLUMN
    side = (width - 0.3) / columns - 0.15
    broken = [in_lines(title, int(side / LETTER)) for title in titles]
    above = 0.12 * max(title.count("\n") for title in broken)
    figure = Figure(figsize=(width, rows * (side + 0.55 + above)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, title in zip(panels.flat, broken, strict=False):
        axes.set_title(title)
    for axes in panels.flat[n:]:
        axes.set_visible(False)
    return figure, panels


def read_as(frames: Frames, run_ids: Sequence[str], model: str, images: Sequence[int]) -> list[int]:
    """What the runs of `model` among `run_ids` predict most often for each of the test images; of equals the smallest.

    Runs without predictions are left out; there must be one with them.
    """
    own = set(frames.runs.loc[frames.runs["model"] == model, "run_id"])
    known = [run_id for run_id in run_ids if run_id in own and run_id in frames.predictions]
    predicted = np.stack([frames.predictions[run_id]["test"] for run_id in known])[:, list(images)]
    return [int(np.bincount(column).argmax()) for column in predicted.T]

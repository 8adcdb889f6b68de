"""Draws the findings: each figure as PDF, SVG and PNG with its caption beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import architecture, gap, images, learning, spread, style, training
from analysis.report.figures.canvas import Caption, Drawing, Scene
from analysis.stats.curves import curves

FIGURES: Mapping[str, Drawing] = {
    drawing.name: drawing
    for drawing in (
        gap.gap,
        learning.learning_rates,
        gap.sweep,
        learning.learning_curves,
        training.generalisation,
        learning.losses,
        learning.selection,
        gap.classes,
        images.hard_images,
        images.gallery,
        images.confusion,
        images.confusion_difference,
        gap.specifications,
        training.cost,
        architecture.architecture,
        spread.components,
        spread.variance,
        spread.against_itself,
        spread.planning,
        spread.power,
        training.every_run,
        spread.normality,
    )
}
"""By name, in the order a reader meets them."""


def captions(findings: Findings, frames: Frames) -> tuple[Caption, ...]:
    """The caption of every figure."""
    return tuple(drawing.caption(findings, frames) for drawing in FIGURES.values())


def draw(findings: Findings, frames: Frames, folder: Path, *, processes: int = 1) -> list[Path]:
    """Draw every figure that has data into `folder`, with captions as .txt; the paths written.

    A figure without data has its caption only, which says why. With `processes` above 1 others help, which a script
    must allow for: multiprocessing starts them by importing its main module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = captions(findings, frames)
    written = [caption.write(folder) for caption in said]
    names = [caption.name for caption in said if caption.missing is None]
    if processes == 1:
        return written + _draw(findings, frames, folder, names)
    first, *others = (names[k::processes] for k in range(processes))
    with ProcessPoolExecutor(len(others), mp_context=get_context("spawn")) as pool:
        helping = [pool.submit(_draw, findings, frames, folder, part) for part in others]
        written += _draw(findings, frames, folder, first)
        return written + [path for part in helping for path in part.result()]


def _draw(findings: Findings, frames: Frames, folder: Path, names: Sequence[str]) -> list[Path]:
    """Draw these figures."""
    scene = _scene(findings, frames)
    written = []
    for name in names:
        with style.applied():
            written += style.save(FIGURES[name].draw(scene), folder, name)
    return written


def plot(findings: Findings, frames: Frames, name: str, ax: Axes | None = None) -> Figure | SubFigure:
    """Draw one figure; where `ax` is given, as a picture into it, and return the figure that it belongs to.

    Raises ValueError for a name that no figure has, and for a figure without data.
    """
    if name not in FIGURES:
        raise ValueError(f"found the figure {name!r}; allowed: {', '.join(FIGURES)}")
    if missing := FIGURES[name].caption(findings, frames).missing:
        raise ValueError(f"{name}: {missing}")
    with style.applied():
        figure = FIGURES[name].draw(_scene(findings, frames))
        if ax is None:
            return figure
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(style.DOTS)
        canvas.draw()
    ax.imshow(canvas.buffer_rgba())
    ax.set_axis_off()
    return ax.figure


def _scene(findings: Findings, frames: Frames) -> Scene:
    models = [model.name for model in findings.about.models]
    points = curves(frames.runs, frames.epochs, findings.about.settings.confidence)
    return Scene(findings, frames, points, style.looks(models))

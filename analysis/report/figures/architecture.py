"""The models themselves, drawn from the layers that study.json keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas
from analysis.report.figures.canvas import Caption, Scene
from analysis.report.figures.style import COLUMN, INK, MUTED, PAGE, Look
from study.ledger.records import Layer

NARROW, WIDE = 6, 12
"""Layers that stand side by side in a column and on a page, the image among them."""

MOST = 7
"""Rows that a page holds."""

ROW, SIDE, SHEETS = 1.08, 0.38, 6
"""Inches that a row is high and the largest feature map wide, and the most maps drawn of one layer."""

MIDDLE = 0.56
"""Inches at which outputs stand."""


def architecture_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the layers."""
    lines = _rows(findings, frames)
    rows = sum(map(len, lines.values()))
    missing = None
    if rows > MOST:
        missing = "The models have too many layers for a page; `python -m study models` lists them."
    elif not rows:
        missing = "The study was planned before layers were kept."
    return Caption(
        "Layers that have parameters, in the order in which an image passes them: what they compute, what one image's "
        "output measures, and their parameters. Squares: feature maps, to scale, at most six of them drawn. Bars: "
        "vectors, by the logarithm of their length. Arrows: what has no parameters, such as activations, and pooling, "
        "after which the next layer takes less than the last gave.",
        missing,
        wide=_across(lines) > NARROW,
    )


@canvas.figure(section="models", title="The models, layer by layer", caption=architecture_caption)
def architecture(scene: Scene) -> Figure:
    """A row of layers for each model, in several lines where they are many."""
    lines = _rows(scene.findings, scene.frames)
    shapes = [layer.output_shape for rows in lines.values() for row in rows for layer in row]
    side = max(max(shape[1:]) for shape in shapes if len(shape) == 3)
    longest = max([1, *(math.prod(shape) for shape in shapes if len(shape) != 3)])
    across = _across(lines)
    width = PAGE if across > NARROW else COLUMN
    n = sum(map(len, lines.values()))
    figure = Figure(figsize=(width, ROW * n))
    figure.set_layout_engine("none")  # every row lies where it is put
    panels = (figure.add_axes((0, 1 - (k + 1) / n, 1, 1 / n)) for k in range(n))
    about = {model.name: model for model in scene.findings.about.models}
    for model, rows in lines.items():
        look = scene.looks[model]
        for number, row in enumerate(rows):
            axes = next(panels)
            axes.set_axis_off()
            axes.set_xlim(0, width)  # in inches
            axes.set_ylim(0, ROW)
            if number == 0:
                counts = (
                    f"{text.count(about[model].n_parameters)} parameters, "
                    f"{text.count(about[model].macs)} multiply-accumulates an image"
                )
                axes.text(0.05, ROW - 0.13, look.label, weight="bold", color=look.colour)
                axes.text(0.05, ROW - 0.23, counts, color=MUTED, size=6)
            for place, layer in enumerate(row):
                _layer(axes, layer, (place + 0.5) * width / across, look, side, longest)
                if place:
                    edge = place * width / across
                    axes.annotate(
                        "", (edge + 0.05, MIDDLE), (edge - 0.05, MIDDLE), arrowprops={"arrowstyle": "->", "lw": 0.6}
                    )
    return figure


def _layer(axes: Axes, layer: Layer, x: float, look: Look, side: int, longest: int) -> None:
    """One layer's output around `x`, said in words below; for scale the largest map's side and the longest vector."""
    shape = layer.output_shape
    ink = look.colour if layer.kind else INK
    if len(shape) == 3:
        high, wide = (max(0.04, SIDE * size / side) for size in shape[1:])
        sheets = min(shape[0], SHEETS)
        for k in reversed(range(sheets)):
            shift = 0.02 * (k - (sheets - 1) / 2)
            corner = (x - wide / 2 + shift, MIDDLE - high / 2 + shift)
            axes.add_patch(Rectangle(corner, wide, high, facecolor="white", edgecolor=ink, lw=0.6))
    elif shape:
        high = 0.42 * math.log(1 + math.prod(shape)) / math.log(1 + longest)
        axes.add_patch(Rectangle((x - 0.035, MIDDLE - high / 2), 0.07, high, facecolor=ink, edgecolor="none"))
    said = [layer.kind or "image", "×".join(map(str, shape)), text.count(layer.n_parameters) if layer.kind else ""]
    for line, (words, colour) in enumerate(zip(said, (INK, INK, MUTED), strict=True)):
        axes.text(x, 0.26 - 0.095 * line, text.shortened(words, 12), ha="center", va="center", size=6, color=colour)


def _rows(findings: Findings, frames: Frames) -> dict[str, list[list[Layer]]]:
    """Model → its lines of layers, the image first; empty where study.json keeps no layers of a model."""
    image = Layer(name="", kind="", output_shape=frames.study.dataset.shape, formula="", n_parameters=0, macs=0)
    found = {model.name: [image, *frames.study.layers.get(model.name, ())] for model in findings.about.models}
    if any(len(layers) < 2 for layers in found.values()):
        return {}
    across = NARROW if max(map(len, found.values())) <= NARROW else WIDE
    return {model: [layers[i : i + across] for i in range(0, len(layers), across)] for model, layers in found.items()}


def _across(lines: Mapping[str, Sequence[Sequence[Layer]]]) -> int:
    """Layers for which there is room side by side."""
    return NARROW if max((len(row) for rows in lines.values() for row in rows), default=0) <= NARROW else WIDE

"""Draws the findings, and computes nothing: each figure as PDF and SVG with its caption beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.captions import CAPTIONS, captions
from analysis.report.figures import digits, gap, learning, spread, style
from analysis.report.figures.canvas import Scene
from analysis.stats.curves import curves

_DRAWN_IN = vars(gap) | vars(learning) | vars(digits) | vars(spread)

FIGURES: Mapping[str, Callable[[Scene], Figure]] = {name: _DRAWN_IN[name] for name in CAPTIONS}
"""The function that draws each figure, by the name of its caption: both are called alike."""


def draw(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Draw every figure that has data into `folder`, with captions as .txt and .tex; the paths written.

    A figure without data has its caption only, which says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = [model.name for model in findings.about.models]
    points = curves(frames.runs, frames.epochs, findings.about.settings.confidence)
    scene = Scene(findings, frames, points, style.looks(models))
    written = []
    for caption in captions(findings, frames):
        written += caption.write(folder)
        if caption.missing is None:
            with style.applied():
                written += style.save(FIGURES[caption.name](scene), folder, caption.name)
    return written

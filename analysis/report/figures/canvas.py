"""What a figure of the report is, what it draws from, and the marks, rows and legends that all figures share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.report.figures.style import TALLEST, Look

BINS = 30
"""Places along a dot plot in which dots pile up."""


@dataclass(frozen=True)
class Caption:
    """A figure's text; `missing` says why there is nothing to draw."""

    text: str
    missing: str | None = None
    wide: bool = False
    """Drawn at the full text width, not at one column's."""
    name: str = ""
    """The figure's, as its title: both are filled in from it."""
    title: str = ""

    def write(self, folder: Path) -> Path:
        """Write the caption as .txt beside the figure; its path."""
        path = folder / f"{self.name}.txt"
        shown = f"{self.title}. {self.text}" if self.missing is None else f"{self.title}: not drawn. {self.missing}"
        path.write_text(shown + "\n", encoding="utf-8")
        return path


@dataclass(frozen=True)
class Drawing:
    """A figure of the report: where it stands, what it is called, what it says and how it is drawn."""

    name: str
    section: str
    title: str
    says: Callable[[Findings, Frames], Caption]
    draws: Callable[[Scene], Figure]

    def draw(self, scene: Scene) -> Figure:
        """Draw it; what would be taller than a page has room for, denser."""
        drawn = self.draws(scene)
        drawn.set_figheight(min(drawn.get_figheight(), TALLEST))
        return drawn

    def caption(self, findings: Findings, frames: Frames) -> Caption:
        """What the figure shows in this study, in words."""
        title = self.title.format(candidate=findings.about.settings.candidate)
        return replace(self.says(findings, frames), name=self.name, title=title)


def figure(
    *, section: str, title: str, caption: Callable[[Findings, Frames], Caption]
) -> Callable[[Callable[[Scene], Figure]], Drawing]:
    """Make the function below a figure of the report, named as it is; `title` may hold {candidate}."""
    return lambda draw: Drawing(draw.__name__, section, title, caption, draw)


@dataclass(frozen=True)
class Scene:
    """What there is to draw."""

    findings: Findings
    frames: Frames
    curves: pd.DataFrame
    looks: Mapping[str, Look]

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates in order."""
        return tuple(sorted(self.findings.about.learning_rates))

    @property
    def room(self) -> float:
        """Decades between the two closest learning rates."""
        return min(np.diff(np.log10(self.rates)), default=1.0)

    @property
    def candidate(self) -> str:
        """The candidate, as it is labelled."""
        return self.looks[self.findings.about.settings.candidate].label

    @property
    def gap(self) -> str:
        """The label of an axis of gaps: whose, in which direction, in which unit."""
        return f"{self.candidate} − baseline\n(percentage points)"

    @property
    def level(self) -> str:
        """The confidence of all intervals."""
        return text.level(self.findings.about.settings.confidence)

    def selected(self, model: str) -> float | None:
        """The learning rate chosen for a model."""
        return self.findings.selection[model].mean.learning_rate if model in self.findings.selection else None

    def test_error(self, accuracy: pd.Series | np.ndarray) -> pd.Series | np.ndarray:
        """Accuracy on test images as a percentage wrong."""
        return error(accuracy, self.findings.about.n_test)

    def look(self, comparison: Comparison) -> Look:
        """A comparison looks like its baseline."""
        return self.looks[comparison.baseline]


def error(accuracy: pd.Series | np.ndarray, images: int) -> pd.Series | np.ndarray:
    """Accuracy, a fraction, as the percentage of `images` that is wrong; none wrong shows as half an image."""
    return (100 * (1 - accuracy)).clip(50 / images)


def spread(n: int, width: float) -> np.ndarray:
    """`n` places around 0 at most `width` away, so that points do not hide each other."""
    return np.linspace(-width, width, n) if n > 1 else np.zeros(n)


def stacked(values: np.ndarray) -> np.ndarray:
    """Heights that pile up points of nearly equal value, as in a dot plot; `values` in order."""
    if not values.size:
        return values
    places = np.floor((values - values.min()) / max(np.ptp(values), 1e-12) * BINS).astype(int)
    heights = np.zeros(len(values))
    for place in np.unique(places):
        pile = np.flatnonzero(places == place)
        heights[pile] = np.arange(len(pile))
    return heights * min(0.085, 0.34 / max(heights.max(), 1e-12))


def linear_within(points: Iterable[float]) -> float | None:
    """The power of ten within ± which an axis of `points` is linear, where some would flatten the others; else None."""
    distances = [abs(x) for x in points if x]
    if not distances or max(distances) <= 5 * np.median(distances):
        return None
    return float(10.0 ** round(math.log10(np.median(distances))))


def axis_within(linear: float | None) -> str:
    """A sentence of a caption on an axis that is linear within ±`linear` only."""
    if linear is None:
        return ""
    return f"The axis is linear within ±{text.plain(linear)} point{'s' * (linear != 1)}, logarithmic beyond."


def in_lines(label: str, width: int) -> str:
    """A label in lines of at most `width` characters, broken before a minus, at spaces, and after _, - and …."""
    lines: list[str] = []
    for whole in label.split("\n"):
        for line in [whole] if len(whole) <= width else re.split(" (?=− )", whole):
            lines.append("")
            for part in re.findall(r"(?:− )?[^\s_…-]*[\s_…-]*", line):
                if lines[-1] and len(lines[-1] + part.rstrip()) > width:
                    lines.append("")
                lines[-1] += part
    return "\n".join(text.shortened(line.strip(), max(3, width)) for line in lines)


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Name the rows 0, 1, … from the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def legend(figure: Figure, looks: Iterable[Look], *more: Artist) -> None:
    """Which model looks how, and the meaning of other marks, above the panels; nothing where there is one to name."""
    handles = [Line2D([], [], color=k.colour, ls=k.dash, marker=k.marker, ms=3.5, label=k.label) for k in looks]
    shown: list[Artist] = [*(handles if len(handles) > 1 else []), *more]
    if shown:
        longest = max(len(str(handle.get_label())) for handle in shown)
        columns = min(len(shown), max(1, int(figure.get_figwidth() / (0.4 + 0.06 * longest))))
        # Every further line of the legend makes the figure taller, not the panels smaller.
        figure.set_figheight(figure.get_figheight() + 0.13 * (-(-len(shown) // columns) - 1))
        figure.legend(handles=shown, loc="outside upper center", ncols=columns)

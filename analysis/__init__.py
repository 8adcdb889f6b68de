"""What a study says. `analysis.load(path)` gives its runs, its findings and its figures."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from analysis.findings.schema import Findings
    from analysis.frames import Frames
    from analysis.report.figures import Axes, Figure, SubFigure

__all__ = ["Results", "load"]


def load(path: str | Path, clusters: str | Path | None = None) -> Results:
    """The study at a folder, a URI or a ZIP that `python -m study export` wrote.

    `clusters` names a file that says which test images belong together, such as those of one writer. Raises
    UserError, one line, when there is none or it lacks its test images.
    """
    from analysis import frames

    return Results(frames.load(path, clusters))


class Results:
    """A study that has been read: everything in it is worked out when it is first asked for."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    @property
    def runs(self) -> pd.DataFrame:
        """One row per planned run, whatever has become of it; `frames.COLUMNS` names the columns."""
        return self.frames.runs

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per run and epoch: `run_id`, `epoch` (from 1), and the losses and accuracies of all three splits."""
        return self.frames.epochs

    @cached_property
    def findings(self) -> Findings:
        """All numbers of the report, by the analysis that the study declared."""
        from analysis.findings.build import collect

        return collect(self.frames)

    def plot(self, name: str, ax: Axes | None = None) -> Figure | SubFigure:
        """Draw a figure of the report, e.g. "gap"; as a picture into `ax` where one is given.

        Raises ValueError for a name that no figure has, and for a figure that this study has no data for.
        """
        from analysis.report import figures

        return figures.plot(self.findings, self.frames, name, ax)

    def _repr_html_(self) -> str:
        """The answer and the gaps, as a notebook shows them."""
        from analysis.report.tables import TABLES

        answer = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in self.findings.answer.split("\n\n"))
        gaps = TABLES["gaps"].table(self.findings, self.frames)
        return answer + ("" if gaps is None else gaps.shown.to_html(index=False, border=0))

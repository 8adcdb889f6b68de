"""What each figure shows, in words: interval, level and what it rests on; or why it is not drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis import text
from analysis.findings import Findings
from analysis.frames import Frames


@dataclass(frozen=True)
class Caption:
    """A figure's name, title and text; `missing` says why there is nothing to draw."""

    name: str
    title: str
    text: str
    missing: str | None = None
    wide: bool = False
    """Drawn at the full text width, not at one column's."""

    def write(self, folder: Path) -> list[Path]:
        """Write the caption as .txt and .tex beside the figure; the paths written."""
        shown = f"{self.title}. {self.text}" if self.missing is None else f"{self.title}: not drawn. {self.missing}"
        paths = {folder / f"{self.name}.txt": shown, folder / f"{self.name}.tex": text.latex(shown)}
        for path, content in paths.items():
            path.write_text(content + "\n", encoding="utf-8")
        return list(paths)


def captions(findings: Findings, frames: Frames) -> tuple[Caption, ...]:
    """The caption of every figure, in the order a reader meets them."""
    return ()

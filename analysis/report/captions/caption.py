"""What a caption is, and the phrases that several share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from analysis import text
from analysis.findings.schema import Findings
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


def each(pairs: Iterable[tuple[str, object]]) -> str:
    """Names with their values: "mlp 20 of 20, mlp_matched 20 of 20"."""
    return ", ".join(f"{name} {value}" for name, value in pairs)


def pairs(findings: Findings) -> str:
    """The pairs behind every comparison."""
    return each((c.baseline, text.of(c.pairs, c.planned)) for c in findings.comparisons)


def runs(findings: Findings) -> str:
    """What became of all planned runs, in a sentence."""
    counts = findings.completeness
    finished, diverged = (sum(getattr(c, name) for c in counts) for name in ("finished", "diverged"))
    return f"{text.of(finished, findings.about.planned)} planned runs finished, {text.count(diverged)} diverged."


def nothing_finished(frames: Frames) -> str | None:
    """Why no finished run can be drawn."""
    return None if (frames.runs["state"] == "finished").any() else "No run has finished."


def guessing(findings: Findings) -> str:
    """The test error of guessing: "90%"."""
    return f"{text.plain(round(100 * (1 - 1 / findings.about.classes), 1))}%"


def level(findings: Findings) -> str:
    """The confidence of all intervals: "95%"."""
    return text.level(findings.about.settings.confidence)

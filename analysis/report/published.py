"""Studies that are published together: a page of links to each one's files, and their comparison across studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis import text
from analysis.findings.across import across
from analysis.findings.schema import Comparison, Findings
from analysis.report import across as across_report
from analysis.report import paper, phrases

INDEX = "README.md"
ACROSS = "across"
FILES = {"report": "index.html", "paper": paper.PDF, "findings": "findings.json"}
"""What a study's folder is linked for, as far as it is there, beside its archive."""


def archives(folder: Path) -> list[Path]:
    """The studies published in `folder`: NAME/NAME.zip, by name."""
    return [path for path in sorted(folder.glob("*/*.zip")) if path.stem == path.parent.name]


def write(folder: Path, studies: Sequence[tuple[Path, Findings]]) -> Path:
    """Write the page of links into `folder`, for archives and the findings that lie beside each; its path.

    Where several studies compare models, their comparison across studies is written beside it.
    """
    lines = [
        "# Published studies",
        "",
        "Every gap is the test accuracy of the candidate minus that of the baseline, in percentage points, with its "
        "intervals over seeds / over seeds and test images. `make published` makes everything here anew from the "
        "archives.",
        "",
        "| study | dataset | gap | files |",
        "|---|---|---|---|",
    ]
    for archive, findings in studies:
        gaps = "<br>".join(_gap(findings, c) for c in findings.comparisons) or text.DASH
        links = {name: file for name, file in FILES.items() if (archive.parent / file).exists()}
        links |= {"archive": archive.name}
        shown = ", ".join(f"[{name}]({archive.parent.name}/{file})" for name, file in links.items())
        about = findings.about
        lines.append(f"| {text.markdown(about.name)} | {text.markdown(about.dataset)} | {gaps} | {shown} |")
    compared = {archive.parent.name: found for archive, found in studies if found.comparisons}
    if len(compared) > 1:
        across_report.write(across(compared), folder / ACROSS)
        lines += ["", f"[{across_report.TITLE}]({ACROSS}/across.md): where the sign and the size of the gap hold."]
    if (folder / "calibration.md").exists():
        lines += ["", "[How often the intervals and tests keep their promise](calibration.md) is simulated."]
    path = folder / INDEX
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _gap(findings: Findings, c: Comparison) -> str:
    """The gap to one baseline, as a cell of Markdown."""
    names = text.markdown(f"{findings.about.settings.candidate} against {c.baseline}")
    mean, images = c.seeds.mean, c.images
    if mean.estimate is None:
        return f"{names}: no answer"
    limits = " / ".join(text.points_interval(e.low, e.high) for e in (mean, images))
    level = phrases.level(findings)
    n = text.of(c.pairs, c.planned)
    return f"{names}: {text.points(mean.estimate)} ({limits}; {level}, n = {n})"

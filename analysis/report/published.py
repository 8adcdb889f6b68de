"""Studies that are published together: a page of links to each one's files, and their comparison across studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from analysis import text
from analysis.findings.across import across
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.report import across as across_report
from analysis.report import page, paper, phrases
from study.errors import UserError
from study.ledger import clusters

INDEX = "README.md"
ACROSS = "across"
LABELS = "qmnist-test-labels-idx2-int"
"""The file that names the writers of MNIST's test images; torchvision downloads it."""
FILES = {"report": "index.html", "paper": paper.PDF, "findings": "findings.json"}
"""What a study's folder is linked for, as far as it is there, beside its archive."""


def archives(folder: Path) -> list[Path]:
    """The studies published in `folder`: NAME/NAME.zip, by name."""
    return [path for path in sorted(folder.glob("*/*.zip")) if path.stem == path.parent.name]


def check_clusters(archive: Path, frames: Frames) -> None:
    """Raise UserError where the findings beside an archive rest on clusters of its test images, and `frames` on others.

    Intervals for new images would come out shorter, and nothing in their place would say so.
    """
    file = archive.parent / FILES["findings"]
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["about"]["clusters"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    now = None if frames.test_clusters is None else clusters.sha256(frames.test_clusters)
    if now != before:
        raise UserError(
            f"{file}: rests on clusters of test images (SHA-256 {before[:12]}…); found "
            f"{'none' if now is None else f'others ({now[:12]}…)'}; allowed: --clusters FILE, with make CLUSTERS=FILE, "
            f"that names them: of MNIST the {LABELS} that torchvision.datasets.QMNIST downloads"
        )


def write(folder: Path, studies: Sequence[tuple[Path, Findings]]) -> Path:
    """Write the page of links into `folder`, for archives and the findings that lie beside each; its path.

    Where several studies compare models, their comparison across studies is written beside it.
    """
    clustered = any(findings.about.clusters for _, findings in studies)
    how = (
        "`make published CLUSTERS=FILE` makes everything here anew from the archives and from FILE, which names the "
        f"writers of MNIST's test images and is not ours to publish: the `{LABELS}` that `torchvision.datasets.QMNIST` "
        "downloads."
        if clustered
        else "`make published` makes everything here anew from the archives."
    )
    lines = [
        "# Published studies",
        "",
        "Every gap is the test accuracy of the candidate minus that of the baseline, in percentage points, with its "
        "intervals over seeds / over seeds and test images; where these are taken as independent, the second is "
        "probably too short. Undecided: the study calls neither model the more accurate, at its own level and by the "
        f"exact test too. {how}",
        "",
        "| study | dataset | test images | gap | files |",
        "|---|---|---|---|---|",
    ]
    for archive, findings in studies:
        gaps = "<br>".join(_gap(findings, c) for c in findings.comparisons) or text.markdown(page.lead(findings))
        links = {name: file for name, file in FILES.items() if (archive.parent / file).exists()}
        links |= {"archive": archive.name}
        shown = ", ".join(f"[{name}]({archive.parent.name}/{file})" for name, file in links.items())
        about = findings.about
        drawn = phrases.images(about.clusters.count if about.clusters else None)
        lines.append(f"| {text.markdown(about.name)} | {text.markdown(about.dataset)} | {drawn} | {gaps} | {shown} |")
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
    decided = "" if c.unqualified else ", practically equivalent" if c.equivalent else ", undecided"
    return f"{names}: {text.points(mean.estimate)} ({limits}; {level}, n = {n}){decided}"

"""The page: one self-contained HTML file without scripts, that any browser shows offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import FIGURES
from analysis.report.figures.canvas import Caption
from analysis.report.table import Table
from analysis.report.tables import TABLES


class Tile(NamedTuple):
    """A number at the head of the page."""

    label: str
    value: str
    bad: bool = False


class Picture(NamedTuple):
    """A figure as the page shows it; `image` is a data URI, or None where it was not drawn."""

    name: str
    title: str
    text: str
    image: str | None
    missing: str | None
    wide: bool


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    title: str
    paragraphs: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


def write(findings: Findings, frames: Frames, folder: Path) -> Path:
    """Write index.html into `folder`, with the SVGs that `figures.draw` left in `folder`/figures; its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("index.html.j2").render(
        title=f"{findings.about.name}: {' and '.join(m.name for m in findings.about.models)}"
        if len(findings.about.models) < 3
        else f"{findings.about.name}: {len(findings.about.models)} models on {findings.about.dataset}",
        answer=findings.answer.split("\n\n"),
        alarms=findings.warnings,
        tiles=tiles(findings),
        sections=sections(findings, frames, folder / "figures"),
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def tiles(findings: Findings) -> list[Tile]:
    """The state of the study in a few numbers."""
    counts = findings.completeness
    totals = {name: sum(getattr(c, name) for c in counts) for name in ("finished", "collapsed", "diverged")}
    absent = sum(c.failed + c.missing for c in counts)
    shown = [Tile("Runs finished", text.of(totals["finished"], findings.about.planned), absent > 0)]
    shown += [Tile("Runs stuck at chance", text.count(totals["collapsed"]), totals["collapsed"] > 0)]
    shown += [Tile("Runs diverged", text.count(totals["diverged"]), totals["diverged"] > 0)]
    shown += [Tile("Runs failed or missing", text.count(absent), absent > 0)]
    return shown


SECTIONS = {
    "gap": "The gap",
    "rates": "Across learning rates",
    "learning": "Learning, and the choice of the learning rate",
    "images": "Digits and classes",
    "robustness": "Does the answer survive?",
    "planning": "Would more seeds help?",
    "literature": "Beside published results",
    "completeness": "What became of every run",
    "appendix": "Appendix: other methods",
}
"""The parts of the page that figures and tables stand in, from top to bottom."""


def sections(findings: Findings, frames: Frames, folder: Path) -> list[Section]:
    """The page from top to bottom, with the SVGs in `folder`; a section with nothing in it is left out."""
    shown = [
        Section(
            name,
            title,
            figures=[_picture(d.caption(findings, frames), folder) for d in FIGURES.values() if d.section == name],
            tables=[t for made in TABLES.values() if made.section == name and (t := made.table(findings, frames))],
        )
        for name, title in SECTIONS.items()
    ]
    shown += [
        Section("methods", "Methods", methods(findings), facts=recipe(findings)),
        Section("preregistration", "Pre-registration", facts=preregistration(findings)),
        Section("problems", "Problems", [f"{p.path}: {p.reason}" for p in frames.problems]),
    ]
    return [s for s in shown if s.paragraphs or s.facts or s.figures or s.tables]


def recipe(findings: Findings) -> list[tuple[str, str]]:
    """What was trained on what, and how."""
    about = findings.about
    facts = [
        ("Dataset", f"{about.dataset}, SHA-256 {about.dataset_sha256[:12]}…"),
        (
            "Digits",
            f"{text.count(about.n_train)} train, {text.count(about.n_val)} validation, {text.count(about.n_test)} test",
        ),
        ("Learning rates", ", ".join(map(text.plain, about.learning_rates))),
        ("Epochs, batch size", f"{about.epochs}, {about.batch_size}"),
    ]
    facts += [
        (
            f"Model {m.name}",
            f"{text.count(m.n_parameters)} parameters, {text.count(m.macs)} multiply-accumulates per image",
        )
        for m in about.models
    ]
    facts += [
        (name.replace("_", " ").capitalize(), _value(value))
        for name, value in about.recipe.items()
        if name not in ("epochs", "batch_size", "dataset_sha256")
    ]
    return facts


def methods(findings: Findings) -> list[str]:
    """How the numbers came about, in the words of the settings used."""
    s = findings.about.settings
    return [
        "Every model uses the learning rate with the best mean validation accuracy over seeds; ties go to the "
        "smaller rate. Test digits are measured and never used to choose anything. The final epoch is the last "
        "planned one. Only the learning rate was tuned, with one training set and "
        f"{text.splits(findings.about.splits)}.",
        f"The gap is {s.candidate} minus baseline, paired by seed: the same seed gives every model the same batches. "
        f"Its primary interval is mean ± t at {text.level(s.confidence)} over seeds (this test set); the second adds "
        "the digits as a crossed random factor (new digits of the same kind) and is probably too short where digits "
        f"cluster by writer. The primary test flips the signs of the differences, exactly. Over {len(s.baselines)} "
        f"{'baseline' if len(s.baselines) == 1 else 'baselines'} verdicts are corrected by Bonferroni, p-values "
        "within each family by Holm.",
        "Diverged and collapsed runs are outcomes: they score chance in selection, and the pairs they belong to are "
        "counted but not averaged. Failed and missing runs are never scored.",
        f"{text.count(s.resamples)} resamples, seed {s.seed}.",
    ]


def preregistration(findings: Findings) -> list[tuple[str, str]]:
    """The declared analysis against the one used."""
    p = findings.preregistration
    facts = [
        ("Declared", f"SHA-256 {p.declared_sha256}, stored with the first launch"),
        ("Used", f"SHA-256 {p.used_sha256}"),
        (
            "Verdict",
            "The analysis is the one declared." if p.as_declared else "The analysis deviates from the one declared.",
        ),
    ]
    return facts + [
        (f"Deviation: {d.key}", f"declared {_value(d.declared)}, used {_value(d.used)}") for d in p.deviations
    ]


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _picture(caption: Caption, folder: Path) -> Picture:
    image = None
    if caption.missing is None:
        svg = (folder / f"{caption.name}.svg").read_bytes()
        image = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return Picture(caption.name, caption.title, caption.text, image, caption.missing, caption.wide)

"""The page: one self-contained HTML file that any browser shows offline; a small script sorts, searches and copies."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import pandas as pd

from analysis import text
from analysis.findings import summary
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.report import phrases, provenance
from analysis.report.figures import FIGURES
from analysis.report.figures.canvas import Caption
from analysis.report.figures.style import SUFFIXES
from analysis.report.latex import as_latex
from analysis.report.table import Table, as_csv
from analysis.report.tables import TABLES

SECTIONS = {
    "gap": "How large is the gap?",
    "images": "On which images do the models differ?",
    "rates": "Does it depend on the learning rate?",
    "robustness": "Does the answer survive other analyses?",
    "learning": "Did the models learn, and was the learning rate well chosen?",
    "models": "Which models were compared?",
    "planning": "Would more seeds help?",
    "literature": "How does this compare with published results?",
    "completeness": "What became of every run?",
    "appendix": "Appendix: other methods",
}
"""The parts of the page that figures and tables stand in, in the order in which a reader asks."""

FOLDED = ("appendix", "methods", "preregistration")

MOST_RUNS, MOST_POINTS = 5_000, 300_000
"""Runs that are listed, and points of curves that the page carries; the ledger has them all."""

RUN_COLUMNS = ("Run", "Model", "State", "Rate", "Seed", "Train", "Validation", "Test", "Seconds")
CURVES = {"train": "train_accuracy", "validation": "val_accuracy", "test": "test_accuracy"}


FILES = ("findings.json", "costs.json", "paper.pdf", "{study}.zip")
FOLDERS = ("figures", "tables", "latex", "latex/figures", "latex/tables")
"""What lies beside the page, as far as it is there: the findings, the times, the paper, the archive; and the rest."""


class Tile(NamedTuple):
    """The answer against one baseline, at the head of the page."""

    label: str
    value: str
    lines: tuple[str, ...]
    verdict: str | None


class Picture(NamedTuple):
    """A figure as the page shows it: its `svg` where it has values to show, else an `image`, a data URI."""

    name: str
    title: str
    text: str
    svg: str | None
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
    texts: Sequence[tuple[str, str, str]] = ()
    """Names, descriptions and texts that a reader may copy."""
    figures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    runs: Sequence[Sequence[str]] = ()

    @property
    def folded(self) -> bool:
        """Whether a reader must open it."""
        return self.name in FOLDED


def write(findings: Findings, frames: Frames, folder: Path) -> Path:
    """Write index.html into `folder`, with the SVGs that `figures.draw` left in `folder`/figures; its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    style, script = (_source(environment, name) for name in ("style.css", "script.js"))
    parts = sections(findings, frames, folder / "figures")
    copied = {name: shown for part in parts for name, _, shown in part.texts}
    for table in (table for part in parts for table in part.tables):
        copied |= {f"{table.name}.csv": as_csv(table), f"{table.name}.tex": as_latex(table)}
    details = run_details(frames)
    page = environment.get_template("index.html.j2").render(
        title=title(findings),
        headline=lead(findings),
        tiles=[spread_tile(findings, model) for model in summary.spreads(findings)]
        + [tile(findings, comparison) for comparison in findings.comparisons],
        became=became(findings),
        incomplete=any(c.failed + c.missing for c in findings.completeness),
        warnings=findings.warnings,
        hero=_picture(FIGURES["gap"].caption(findings, frames), folder / "figures"),
        answer=findings.answer.split("\n\n"),
        sections=parts,
        figure_files=[suffix[1:] for suffix in SUFFIXES],
        files=files(findings, folder),
        run_columns=RUN_COLUMNS,
        detailed=bool(details),
        texts=_json(copied),
        run_details=_json(details),
        style=style,
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def title(findings: Findings) -> str:
    """What was compared on what, in which study."""
    about = findings.about
    others = list(about.settings.baselines)
    against = f" against {text.listed(others) if len(others) < 4 else f'{len(others)} models'}" if others else ""
    return f"{about.settings.candidate}{against} on {about.dataset} (study {about.name})"


def headline(findings: Findings) -> str:
    """The answer in one sentence; "more accurate" only where both intervals of a gap say so at the verdict's level."""
    settings = findings.about.settings
    if not findings.comparisons:
        return f"{settings.candidate} is the only model of this study: there is no gap to estimate."
    scope = f", for new images of the same kind too ({text.level(settings.verdict_level)} confidence)"
    groups: dict[tuple[str, str], list[str]] = {}
    for c in findings.comparisons:
        gap = c.seeds.mean.estimate
        if gap is None:
            said = "there is no answer against", ""
        elif c.equivalent:
            margin = f", by a margin of {text.plain(100 * settings.margin)} points"
            said = f"{settings.candidate} is practically as accurate as", f"{margin}{scope}"
        elif not c.unqualified:
            said = f"{settings.candidate} is not shown to be more or less accurate than", ""
        else:
            said = f"{settings.candidate} is {'more' if gap > 0 else 'less'} accurate than", scope
        groups.setdefault(said, []).append(c.baseline)
    parts = (f"{said} {text.listed(baselines)}{scope}" for (said, scope), baselines in groups.items())
    return f"On {' '.join(findings.about.dataset.split())}, {'; '.join(parts)}."


def files(findings: Findings, folder: Path) -> dict[str, list[str]]:
    """Folder beside the page → the files in it that belong to the report; "" is the page's own folder."""
    named = [name.format(study=findings.about.name) for name in FILES]
    there = {"": [name for name in named if (folder / name).is_file()]}
    there |= {
        name: sorted(path.name for path in (folder / name).glob("*") if path.is_file())
        for name in FOLDERS
        if (folder / name).is_dir()
    }
    return {name: names for name, names in there.items() if names}


def lead(findings: Findings) -> str:
    """What stands first: the headline, and before it what a factorial is for, the components of the spread."""
    spreads = [summary.spread(findings, model) for model in summary.spreads(findings)]
    if not spreads:
        return headline(findings)
    words = "; ".join(spreads)
    said = f"{words[0].upper()}{words[1:]} ({phrases.level(findings)} confidence)."
    return f"{said} {headline(findings)}" if findings.comparisons else said


def spread_tile(findings: Findings, model: str) -> Tile:
    """How far a model's accuracy spreads over all its seeds, and what of that each component that is there has."""
    found = findings.variance[model].components
    basis, sd = found.components[0].variance, found.standard_deviation
    told = [c for c in found.components if summary.told_from_0(c)]
    others = [summary.effect(c) for c in found.components if c not in told]
    lines = [
        f"{text.percent(c.share, 0)} of the variance is of {summary.effect(c)}: SD {summary.root(c.variance.estimate)} "
        f"({summary.root(c.variance.low)} to {summary.root(c.variance.high)}, {phrases.level(findings)})"
        for c in told
    ]
    if others and sd is not None:
        lines.append(f"not told from 0: {text.listed(others)}")
    lines.append(f"n = {text.of(basis.n, basis.planned)} trainings")
    value = text.DASH if sd is None else f"{text.sd(sd)} points"
    return Tile(f"{model}, SD over all seeds", value, tuple(lines), None)


def tile(findings: Findings, c: Comparison) -> Tile:
    """The gap to one baseline, its interval for new images, the verdict and what they rest on."""
    level = phrases.level(findings)
    mean, images = c.seeds.mean, c.images
    shown = text.DASH if mean.estimate is None else f"{text.points(mean.estimate)} points"
    new = f"no interval for new images: {images.declined}"
    if images.low is not None:
        supposed = "" if findings.about.clusters else ", taken as independent"
        fewer = f"; from {text.of(images.n, c.pairs)} pairs" if images.n < c.pairs else ""
        new = f"{text.points_interval(images.low, images.high)} for new images{supposed} ({level}{fewer})"
    at_chance = c.scored_at_chance
    scored = [] if at_chance is None else [f"{text.points(at_chance.estimate)} with the others scored at chance"]
    return Tile(
        label=f"{findings.about.settings.candidate} − {c.baseline}",
        value=shown,
        lines=(new, f"n = {text.of(c.pairs, c.planned)} pairs of trainings", *scored),
        verdict=_verdict(findings, c),
    )


def _verdict(findings: Findings, c: Comparison) -> str:
    """The verdicts in short, with the level that they are held to and what held them back."""
    if c.verdicts is None:
        shared = None if c.independent else "pairs share initial weights or batch orders"
        why = shared or c.seeds.verdict.interval.declined
        return f"no verdict: {why}"
    here, new = c.seeds.verdict.words or "", c.verdict_for_new_images or "no verdict"
    both = {"these test images and for new ones": here}
    said = both if here == new else {"these test images": here, "new ones": new}
    parts = []
    for images, words in said.items():
        short, _, why = words.partition(": ")
        parts.append(f"{short} for {images}{f' ({why})' if why else ''}")
    return f"{', '.join(parts)}, at {text.level(findings.about.settings.verdict_level)}"


def became(findings: Findings) -> str:
    """What became of the planned runs, in a sentence."""
    counts = findings.completeness
    total = {name: sum(getattr(c, name) for c in counts) for name in ("finished", "collapsed", "diverged")}
    absent = sum(c.failed + c.missing for c in counts)
    return (
        f"{text.of(total['finished'], findings.about.planned)} planned runs finished, {text.count(total['collapsed'])} "
        f"of them no better than guessing; {text.count(total['diverged'])} diverged, {text.count(absent)} failed or "
        "missing."
    )


def sections(findings: Findings, frames: Frames, folder: Path) -> list[Section]:
    """The page from top to bottom, with the SVGs in `folder`; a section with nothing in it is left out."""
    shown = [
        Section(
            name,
            title,
            figures=[
                _picture(drawing.caption(findings, frames), folder)
                for drawing in FIGURES.values()
                if drawing.section == name and drawing.name != "gap"  # which stands on the first screen
            ],
            tables=[
                table for t in TABLES.values() if t.section == name and (table := t.table(findings, frames)) is not None
            ],
            runs=run_rows(frames) if name == "completeness" else (),
        )
        for name, title in SECTIONS.items()
    ]
    citation = ("bibtex", "To cite it:", provenance.bibtex(findings, frames))
    shown[-1:-1] = [
        Section(
            "provenance",
            "Where does it come from, and how do I make it again?",
            facts=provenance.facts(findings, frames),
            texts=[*provenance.again(findings, frames), citation],
        ),
        Section("problems", "Problems", [f"{p.path}: {p.reason}" for p in frames.problems]),
    ]
    shown += [
        Section("methods", "Methods", methods(findings), facts=recipe(findings)),
        Section("preregistration", "Pre-registration", facts=preregistration(findings)),
    ]
    return [s for s in shown if s.paragraphs or s.facts or s.figures or s.tables or s.runs]


def run_rows(frames: Frames) -> list[list[str]]:
    """Every run in a line; none of a study that has too many to list."""
    if len(frames.runs) > MOST_RUNS:
        return []
    return [
        [
            run.run_id,
            run.model,
            "no better than guessing" if run.collapsed else run.state,
            text.plain(run.learning_rate),
            str(run.seed),
            *(text.percent(_known(getattr(run, f"final_{metric}")), sign="") for metric in CURVES.values()),
            text.DASH if _known(run.train_seconds) is None else f"{run.train_seconds:.1f}",
        ]
        for run in frames.runs.itertuples()
    ]


def run_details(frames: Frames) -> dict[str, Any]:
    """run_id → its curves, all that its record says, and where else it can be seen; empty if that is too much."""
    runs, epochs = frames.runs, frames.epochs
    if len(runs) > MOST_RUNS or len(epochs) * len(CURVES) > MOST_POINTS:
        return {}
    curves = dict(iter(epochs.groupby("run_id", sort=False)))
    details = {}
    for run in runs.to_dict("records"):
        run_id = run.pop("run_id")
        own = curves.get(run_id)
        facts = {str(key): shown for key, value in run.items() if (shown := _fact(value)) is not None}
        address = provenance.wandb(frames, run_id)
        details[run_id] = {
            "curves": {name: [] if own is None else own[metric].round(5).tolist() for name, metric in CURVES.items()},
            "facts": {key.replace("_", " ").capitalize(): value for key, value in facts.items()},
            "links": {} if address is None else {"Weights & Biases": quote(address, safe=":/")},
        }
    return details


def recipe(findings: Findings) -> list[tuple[str, str]]:
    """What was trained on what, and how."""
    about = findings.about
    facts = [
        ("Dataset", f"{about.dataset}, SHA-256 {about.dataset_sha256[:12]}…"),
        (
            "Images",
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
        "smaller rate. Test images are measured and never used to choose anything. The final epoch is the last "
        "planned one. Only the learning rate was tuned, with one training set and "
        f"{text.splits(findings.about.splits)}.",
        f"The gap is {s.candidate} minus baseline, paired by seed: the same seed gives every model the same batches. "
        f"Its primary interval is mean ± t at {text.level(s.confidence)} over seeds (this test set); the second adds "
        f"the test images (new images like these), {clusters(findings)}. The "
        f"primary test flips the signs of the differences, exactly. Over {len(s.baselines)} "
        f"{'baseline' if len(s.baselines) == 1 else 'baselines'} verdicts are corrected by Bonferroni, p-values "
        "within each family by Holm.",
        "Diverged and collapsed runs are outcomes: they score chance in selection, and the pairs they belong to are "
        "counted but not averaged. Failed and missing runs are never scored.",
        phrases.TOO_SHORT,
        f"{text.count(s.resamples)} resamples, seed {s.seed}.",
    ]


def clusters(findings: Findings) -> str:
    """How the interval for new images treats images that belong together."""
    known = findings.about.clusters
    if known is None:
        return (
            "as a crossed random factor: it supposes independent images, and is too short where they come in clusters, "
            "as those of one writer do"
        )
    return (
        f"clustered two ways (Cameron, Gelbach and Miller 2011): the {text.count(findings.about.n_test)} images come "
        f"in {text.count(known.count)} clusters of {known.smallest} to {known.largest} (SHA-256 of the ids "
        f"{known.sha256[:12]}…)"
    )


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
    svg = image = None
    if caption.missing is None:
        source = (folder / f"{caption.name}.svg").read_text(encoding="utf-8")
        if "<title>" in source:
            svg = _inline(source, caption)
        else:
            image = f"data:image/svg+xml;base64,{base64.b64encode(source.encode()).decode()}"
    return Picture(caption.name, caption.title, caption.text, svg, image, caption.missing, caption.wide)


def _inline(svg: str, caption: Caption) -> str:
    """An SVG as a part of the page: named, of any size, its ids its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.S)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{caption.name}-", body)
    (box,) = re.findall(r'viewBox="[^"]*"', body.partition(">")[0])
    label = jinja2.filters.escape(f"{caption.title}. {caption.text}")
    return f'<svg role="img" aria-label="{label}" {box}>{body.partition(">")[2]}'


def _source(environment: jinja2.Environment, name: str) -> str:
    if environment.loader is None:
        raise ValueError("an environment without templates")
    return environment.loader.get_source(environment, name)[0]


def _json(value: Mapping[str, Any]) -> str:
    """JSON for a script element: nothing in it ends the element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _known(value: float) -> float | None:
    return None if pd.isna(value) else value


def _fact(value: object) -> str | None:
    """A value of a record as it is shown; None where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return f"{value:.6g}" if isinstance(value, float) else str(value)

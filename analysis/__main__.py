"""The command line: python -m analysis DIR_OR_ZIP_OR_URI, and python -m analysis across, wandb or published …."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from analysis import frames
from analysis.findings import build, costs
from analysis.findings.across import across
from analysis.report import across as across_report
from analysis.report import figures, latex, page, paper, published, tables, terminal, wandb_report
from analysis.report.figures.style import SUFFIXES
from study import cli as command_line
from study.errors import StorageError, UserError
from study.ledger.storage import Storage

CLUSTERS = click.option(
    "--clusters",
    metavar="FILE",
    help="Which test images belong together: an id a line, a .npy file, or the labels of QMNIST.",
)
WRITERS = click.option(
    "--clusters", metavar="FILE", help="Which test images of mnist belong together, as for one study."
)
OF_WRITERS = ("mnist", "qmnist")
"""The datasets that the file of `WRITERS` speaks of, where it is given for studies of several."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="DIR_OR_ZIP_OR_URI")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, and nothing else.")
@click.option("--require-complete", is_flag=True, help="Refuse a study in which a planned run has no outcome.")
@CLUSTERS
@click.option("--out", metavar="DIR_OR_URI", help="Where the report is written. Default: report/ beside the study.")
@click.option("--paper", "as_paper", is_flag=True, help="Write the draft of a paper as well, and compile it.")
@click.option("--wandb", is_flag=True, help="Write the study's own run on W&B as well, with report and ledger.")
def cli(
    source: str,
    overrides: tuple[str, ...],
    as_json: bool,
    require_complete: bool,
    clusters: str | None,
    out: str | None,
    as_paper: bool,
    wandb: bool,
) -> None:
    """Answer the study's question, and write its findings, tables, figures and report.

    KEY=VALUE sets candidate, baselines (with commas between), confidence, margin, resamples or seed otherwise than
    the study declared; the report then says so.
    """
    block, report = _parse(overrides), Storage(out) if out else _beside(source)
    data = frames.load(source, clusters)
    if require_complete:
        _complete(data)
    findings = build.collect(data, block)
    with _folder(report) as folder:
        pdf = _write(findings, data, folder, as_paper=as_paper)
        address = wandb_report.publish(findings, data, folder) if wandb else None
    if as_json:
        click.echo(findings.to_json(), nl=False)
        return
    console = Console()
    terminal.show(findings, console)
    console.print(f"report: {report.address('index.html')}", markup=False, highlight=False, soft_wrap=True)
    if as_paper:
        said = (
            f"paper: {report.address(pdf.name)}"
            if pdf
            else f"paper: {report.address('latex/main.tex')}; {paper.ABSENT}"
        )
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    if address:
        console.print(f"W&B: {address}", markup=False, highlight=False, soft_wrap=True)


@click.command(name="wandb", context_settings=command_line.SETTINGS)
@click.argument("source", metavar="DIR_OR_ZIP_OR_URI")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")
@CLUSTERS
@click.option("--draft", is_flag=True, help="Save a draft, which its author alone sees.")
@click.option(
    "--spec", type=click.Path(path_type=Path), metavar="FILE", help="Write what would be saved, and save nothing."
)
def wandb_cli(source: str, overrides: tuple[str, ...], clusters: str | None, draft: bool, spec: Path | None) -> None:
    """Write the study's report on Weights & Biases, or write it anew, and print its address.

    The runs must be there (python -m study sync). With --spec no network is needed.
    """
    block = _parse(overrides)
    data = frames.load(source, clusters)
    findings = build.collect(data, block)
    if spec is None:
        click.echo(f"W&B report: {wandb_report.save(findings, data, draft=draft)}")
        return
    try:
        spec.write_text(wandb_report.spec(findings, data), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--spec {spec}: cannot be written: {error.strerror}") from None
    click.echo(f"{spec}: what would be saved as W&B report")


@click.command(name="across", context_settings=command_line.SETTINGS)
@click.argument("sources", nargs=-1, required=True, metavar="DIR_OR_ZIP_OR_URI…")
@WRITERS
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where to write.")
def across_cli(sources: tuple[str, ...], clusters: str | None, out: Path) -> None:
    """Set the same comparison side by side across studies: other recipes, other datasets.

    One gap for each study and baseline, a table, a forest plot and a sentence. Nothing is pooled.
    """
    if twice := sorted({source for source in sources if sources.count(source) > 1}):
        raise UserError(f"across: found {twice[0]!r} more than once; allowed: every study once")
    found = across({source: build.collect(_load(source, clusters)) for source in sources})
    if clusters and not any(gap.dataset in OF_WRITERS for gap in found.gaps):
        raise UserError(
            f"--clusters {clusters}: found no study of its images; allowed with studies of mnist and qmnist"
        )
    try:
        across_report.write(found, out)
    except OSError as error:
        raise StorageError(f"{out}: cannot write: {error.strerror or error}") from error
    console = Console()
    across_report.show(found, console)
    console.print(f"across studies: {out / 'across.md'}", markup=False, highlight=False, soft_wrap=True)


@click.command(name="published", context_settings=command_line.SETTINGS)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@WRITERS
def published_cli(folder: Path, clusters: str | None) -> None:
    """Make the reports and papers of studies anew from their archives, DIR/NAME/NAME.zip, with a page of links.

    Nothing is made where the findings beside an archive rest on clusters of test images that are not given again.
    """
    archives = published.archives(folder)
    if not archives:
        raise UserError(f"{folder}: found no study; allowed: a folder that holds NAME/NAME.zip")
    loaded = [(archive, _load(archive, clusters)) for archive in archives]
    for archive, data in loaded:
        published.check_clusters(archive, data)
    studies = []
    for archive, data in loaded:
        findings = build.collect(data)
        pdf = _write(findings, data, archive.parent, as_paper=True)
        click.echo(f"{archive}: made anew{'' if pdf else f'; {paper.ABSENT}'}")
        studies.append((archive, findings))
    click.echo(f"links: {published.write(folder, studies)}")


def _load(source: str | Path, clusters: str | None) -> frames.Frames:
    """One of several studies; the file is read where it speaks of its test images."""
    data = frames.load(source)
    return data.clustered(clusters) if clusters and data.study.dataset.name in OF_WRITERS else data


def _write(findings: build.Findings, data: frames.Frames, folder: Path, *, as_paper: bool) -> Path | None:
    """Write the report into `folder`, and the draft of a paper if asked; its PDF, or None where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "findings.json").write_text(findings.to_json(), encoding="utf-8")
        (folder / "costs.json").write_text(costs.to_json(data, findings), encoding="utf-8")
        written = tables.write(findings, data, folder / "tables")
        # The second process gets a copy of all that there is to draw.
        processes = 2 if (os.cpu_count() or 1) > 1 and len(data.runs) <= page.MOST_RUNS else 1
        written += figures.draw(findings, data, folder / "figures", processes=processes)
        floats = latex.write(findings, data, folder / "latex")
        _clear(Storage(folder), {path.relative_to(folder).as_posix() for path in (*written, *floats)})
        try:
            return _paper(findings, data, folder, floats) if as_paper else None
        finally:
            page.write(findings, data, folder)  # last, as it links what is there
    except OSError as error:
        raise StorageError(f"{folder}: cannot write the report: {error.strerror or error}") from error


def _clear(report: Storage, written: Collection[str]) -> None:
    """Remove the tables and figures that an earlier report left in `report` and this one has not `written`.

    A file is taken for one of a report's by its whole name: what others put beside them stays.
    """
    kinds = {
        "tables": (tables.TABLES, (".csv", ".md")),
        "figures": (figures.FIGURES, SUFFIXES),
        "latex/tables": (tables.TABLES, (".tex",)),
        "latex/figures": (figures.FIGURES, (".tex",)),
    }
    for place, (subjects, suffixes) in kinds.items():
        ours = {f"{subject}{suffix}" for subject in subjects for suffix in suffixes}
        for name in ours & set(report.names(place)):
            if f"{place}/{name}" not in written:
                report.delete(f"{place}/{name}")


def _paper(findings: build.Findings, data: frames.Frames, folder: Path, floats: list[Path]) -> Path | None:
    """Write the draft of a paper into `folder`; its PDF, or None where no LaTeX is installed."""
    try:
        paper.write(findings, data, folder / "latex", floats)
        return paper.compiled(folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot write the paper: {error.strerror or error}") from error


def _beside(source: str) -> Storage:
    """Where the report of a study is written: beside its ledger, or that of an archive into the working directory."""
    if Path(source).is_file():
        return Storage(f"{Path(source).stem}-report")
    storage = Storage(source)
    return Storage(storage.path("report")) if storage.local else storage / "report"


@contextlib.contextmanager
def _folder(report: Storage) -> Iterator[Path]:
    """The folder to write the report into; what it then holds is sent to where the report belongs, if that is a store.

    Raises StorageError.
    """
    if report.local:
        yield Path(report.path(""))
        return
    with tempfile.TemporaryDirectory(prefix="report-") as name:
        folder = Path(name)
        yield folder
        files = [file for file in folder.rglob("*") if file.is_file()]
        contents = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        report.write_all(contents)
        _clear(report, contents)


def _complete(data: frames.Frames) -> None:
    states = data.runs["state"]
    absent = int(states.isin(["failed", "missing"]).sum())
    if absent or data.problems:
        raise UserError(
            f"{data.source}: {absent} of {len(states)} planned runs have no outcome and {len(data.problems)} files are "
            "not valid; allowed with --require-complete: 0 and 0"
        )


OVERRIDABLE = ("candidate", "baselines", "confidence", "margin", "resamples", "seed")
"""Keys of the analysis block that may be set otherwise than declared; each becomes a deviation."""


def _parse(overrides: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE as a part of the analysis block; whether the values are allowed is for the block to say."""
    block: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if key not in OVERRIDABLE or not equals:
            raise UserError(f"{override!r}: found key {key!r}; allowed: {', '.join(OVERRIDABLE)}, each as key=value")
        if key == "baselines":
            block[key] = value.split(",")
        elif key == "candidate":
            block[key] = value
        else:
            try:
                block[key] = json.loads(value)
            except ValueError:
                block[key] = value
    return block


def main() -> None:
    """Run the command line; a user's mistake is one line and never a traceback."""
    others = {"across": across_cli, "published": published_cli, "wandb": wandb_cli}
    if sys.argv[1:2] and sys.argv[1] in others:
        # A folder of this name is given as ./across.
        command_line.run(others[sys.argv.pop(1)])
    command_line.run(cli)


if __name__ == "__main__":
    main()

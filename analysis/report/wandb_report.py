"""The study on Weights & Biases: its own run, which holds the findings, and the report that is written around it.

The only file of `analysis` that imports wandb, and only when it is asked to publish.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import page, provenance, table, tables
from analysis.report.figures import captions
from study import wandb_access
from study.errors import UserError
from study.ledger import ledger
from study.ledger.storage import Storage

if TYPE_CHECKING:
    import wandb
    import wandb_workspaces.reports.v2 as wr
    from wandb.apis.public import Run as PublicRun

JOB = "study"
"""The job type of the study's own run."""

NOT_INSTALLED = "a W&B report needs wandb-workspaces; allowed: pip install '.[study]'"


@dataclass(frozen=True)
class Place:
    """Where the study is on W&B."""

    study: str
    project: str
    entity: str | None

    @property
    def run_id(self) -> str:
        """The W&B id of the study's own run."""
        return f"{self.study}-study"


def place(frames: Frames) -> Place:
    """Where the last launch's config, or else the environment, says that the study is."""
    block = frames.config.get("wandb") or {}
    project = block.get("project") or wandb_access.known("project", os.environ) or wandb_access.PROJECT
    return Place(frames.study.name, project, block.get("entity") or wandb_access.known("entity", os.environ))


# The study's own run


def publish(findings: Findings, frames: Frames, folder: Path) -> str:
    """Write the study's run on W&B, from the report in `folder`; its address.

    Written again, the run has the new values, and new versions of its artifacts. Raises UserError and PublishError.
    """
    at = place(frames)
    patience = wandb_access.timeout(os.environ)
    with wandb_access.errors(at.entity, at.project):
        _, entity, _ = wandb_access.connect(at.entity, patience)
        import wandb

        run = wandb.init(
            id=at.run_id,
            name=at.study,
            job_type=JOB,
            tags=[at.study[:64], JOB],
            notes=findings.answer,
            config={"study": at.study, **frames.config},
            project=at.project,
            entity=entity,
            dir=os.environ.get("WANDB_DIR") or ".",
            mode="online",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                program="analysis/__main__.py",
                program_relpath="analysis/__main__.py",
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=patience,
                finish_timeout=4 * patience,
                finish_timeout_raises=True,
            ),
        )
        address = str(run.url)
        run.summary.update(values(findings))
        shown = {
            f"tables/{t.name}": wandb.Table(dataframe=t.data.astype(object)) for t in tables.build(findings, frames)
        }
        images = {
            f"figures/{caption.name}": wandb.Image(str(file), caption=caption.title)
            for caption in captions(findings, frames)
            if (file := folder / "figures" / f"{caption.name}.png").exists()
        }
        run.log({**shown, **images})
        _log_files(run, at, "report", [folder / "index.html", folder / "findings.json"])
        with tempfile.TemporaryDirectory(prefix="ledger-") as name:
            archive = Path(name) / f"{at.study}.zip"
            if Path(frames.source).is_file():
                archive = Path(frames.source)
            else:
                ledger.export(Storage(frames.source), archive)
            _log_files(run, at, "ledger", [archive])
            run.finish()
    return address


def values(findings: Findings) -> dict[str, Any]:
    """What the summary of the study's run says: its answer, its gaps, and what became of its runs."""
    counts = {
        f"runs/{name}": sum(getattr(c, name) for c in findings.completeness)
        for name in ("planned", "finished", "diverged", "failed", "missing", "collapsed")
    }
    found: dict[str, Any] = {"answer": findings.answer, "warnings": list(findings.warnings), **counts}
    for c in findings.comparisons:
        for name, e in (("seeds", c.seeds.mean), ("seeds_and_images", c.images)):
            found |= {f"gap/{c.baseline}/{name}/{part}": getattr(e, part) for part in ("estimate", "low", "high", "n")}
        found |= {
            f"gap/{c.baseline}/p_holm": c.p_holm,
            f"gap/{c.baseline}/verdict": c.verdicts,
            f"gap/{c.baseline}/scored_at_chance": c.sensitivity["scored_at_chance"].estimate,
            f"gap/{c.baseline}/candidate_rate": c.candidate_rate,
            f"gap/{c.baseline}/baseline_rate": c.baseline_rate,
        }
    for configuration in findings.configurations:
        key = f"accuracy/{configuration.model}/{configuration.learning_rate:g}"
        found[key] = configuration.test_accuracy.estimate
    return found


def _log_files(run: wandb.Run, at: Place, kind: str, files: list[Path]) -> None:
    import wandb

    artifact = wandb.Artifact(f"{at.study}-{kind}", type=kind)
    for file in files:
        artifact.add_file(str(file))
    run.log_artifact(artifact)


# The report


def save(findings: Findings, frames: Frames, *, draft: bool = False) -> str:
    """Save the report, or the one saved before anew; its address. Raises UserError and PublishError."""
    at = place(frames)
    with wandb_access.errors(at.entity, at.project):
        api, entity, _ = wandb_access.connect(at.entity, wandb_access.timeout(os.environ))
        path = f"{entity}/{at.project}"
        found = _study_run(api, f"{path}/{at.run_id}")
        if found is None:
            raise UserError(
                f"{frames.source}: {path} has no study {at.study!r} to report on; "
                f"first: python -m study sync {frames.source}"
            )
        made = report(findings, frames, entity)
        before = dict(found.summary).get("report_draft" if draft else "report")
        made.id = _id(before) if before else ""
        if made.id and not _exists(api, made.id):
            made.id = ""
        made.save(draft=draft)
        address = str(made.url)
        if address != before:
            found.summary["report_draft" if draft else "report"] = address
            found.summary.update()
    return address


def spec(findings: Findings, frames: Frames) -> str:
    """What would be saved, as JSON, made without a network."""
    made = report(findings, frames, place(frames).entity or "entity")
    return json.dumps(made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True), indent=1) + "\n"


def report(findings: Findings, frames: Frames, entity: str) -> wr.Report:
    """The report: the answer, figures that W&B draws of the runs themselves, tables, and how it was made."""
    wr = _workspaces()
    at = place(frames)
    mine = f"Config('study') == '{at.study}'"
    runs = wr.Runset(
        name="runs by model",
        filters=f"{mine} and JobType != '{JOB}'",
        groupby=["config.model.value"],
    )
    each = wr.Runset(
        name="every run",
        filters=f"{mine} and JobType != '{JOB}'",
        pinned_columns=["run:displayName", "summary:state", "config:model.value", "config:learning_rate.value"],
        visible_columns=["config:seed.value", "summary:final/val_accuracy", "summary:final/test_accuracy"],
    )
    study = wr.Runset(name="the study", filters=f"{mine} and JobType == '{JOB}'")
    built = {t.name: t for t in tables.build(findings, frames)}

    def curve(metric: str, title: str) -> object:
        return wr.LinePlot(
            title=title, x="epoch", y=[metric], groupby_aggfunc="mean", groupby_rangefunc="minmax", smoothing_factor=0
        )

    def shown(name: str) -> list[Any]:
        return [wr.MarkdownBlock(table.as_markdown(built[name]))] if name in built else []

    rate, accuracy = wr.Config("learning_rate"), wr.SummaryMetric("final/test_accuracy")
    axes = [wr.Config("model"), rate, wr.Config("seed"), wr.SummaryMetric("final/val_accuracy"), accuracy]
    blocks = [
        wr.H1("Answer"),
        *[wr.P(paragraph) for paragraph in findings.answer.split("\n\n") if paragraph],
        wr.UnorderedList(intervals(findings)),
        wr.PanelGrid(runsets=[study], panels=[wr.MediaBrowser(title="The gap", media_keys=["figures/gap"])]),
        *shown("gaps"),
        wr.H1("Learning"),
        wr.PanelGrid(
            runsets=[runs],
            panels=[
                curve("val/accuracy", "validation accuracy: mean and range over runs"),
                curve("test/accuracy", "test accuracy: mean and range over runs"),
                curve("train/loss", "training loss: mean and range over runs"),
            ],
        ),
        wr.H1("Learning rates"),
        wr.PanelGrid(
            runsets=[each],
            panels=[
                wr.ScatterPlot(title="test accuracy against learning rate", x=rate, y=accuracy, log_x=True),
                wr.ParallelCoordinatesPlot(
                    title="from setting to accuracy",
                    columns=[wr.ParallelCoordinatesPlotColumn(metric=axis, log=axis == rate or None) for axis in axes],
                ),
            ],
        ),
        wr.H1("What became of every run"),
        *shown("completeness"),
        wr.H1("How it was made"),
        wr.UnorderedList([f"{term}: {value}" for term, value in page.recipe(findings)]),
        *[wr.P(paragraph) for paragraph in page.methods(findings)],
        *[
            block
            for _, about, made in provenance.again(findings, frames)
            for block in (wr.P(about), wr.CodeBlock(code=made, language="json" if "\n" in made else "markdown"))
        ],
    ]
    return wr.Report(
        project=at.project,
        entity=entity,
        title=page.title(findings)[:128],
        description=page.lead(findings),
        blocks=blocks,
        width="fluid",
    )


def intervals(findings: Findings) -> list[str]:
    """The gap to each baseline in a line, with both its intervals."""
    return [
        f"{findings.about.settings.candidate} − {c.baseline}: {text.points(c.seeds.mean.estimate)} percentage points, "
        f"over seeds {text.points_interval(c.seeds.mean.low, c.seeds.mean.high)}, "
        f"over seeds and test images {text.points_interval(c.images.low, c.images.high)}"
        for c in findings.comparisons
    ]


def _workspaces() -> Any:  # noqa: ANN401
    """The library of reports, which warns of what it does itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import wandb_workspaces.reports.v2 as reports
    except ModuleNotFoundError:
        raise UserError(NOT_INSTALLED) from None
    return reports


def _study_run(api: wandb.Api, path: str) -> PublicRun | None:
    try:
        run = api.run(path)
        run.load(force=True)
    except Exception as error:
        if "ould not find" in str(error) or "not found" in str(error):
            return None
        raise
    return run


def _id(address: str) -> str:
    """The id of a saved report, from its address."""
    return str(address).rpartition("--")[2]


def _exists(api: wandb.Api, view: str) -> bool:
    """Whether a report is still there, or has been deleted."""
    query = "query SpecificReport($reportId: ID!) { view(id: $reportId) { id } }"
    answer: Mapping[str, Any] = api._service_api.execute_graphql(query, {"reportId": view})
    return bool(answer.get("view"))

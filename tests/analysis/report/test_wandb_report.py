"""The study's own run on W&B and its report, against a W&B server on this machine."""

import io
import json
import zipfile

import pytest
from click.testing import CliRunner
from PIL import Image

from analysis import __main__ as command
from analysis import frames
from analysis.findings import build
from analysis.report import wandb_report
from study import wandb_access
from study.errors import PublishError, UserError
from tests import synthetic

wandb = pytest.importorskip("wandb")
pytest.importorskip("wandb_workspaces")

MODELS = {"a": synthetic.Truth(2.2, 2.0, 0.25), "b": synthetic.Truth(2.0, 2.0, 0.25)}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    options = dict(seeds=3, epochs=2, n_test=60, n_val=40, shape=(2, 2), analysis={"resamples": 100})
    return synthetic.write(tmp_path_factory.mktemp("reported"), MODELS, **options)


@pytest.fixture(scope="module")
def data(ledger):
    return frames.load(str(ledger))


@pytest.fixture(scope="module")
def findings(data):
    return build.collect(data, {})


@pytest.fixture
def folder(tmp_path):
    """A report, as `publish` finds it."""
    (tmp_path / "report" / "figures").mkdir(parents=True)
    (tmp_path / "report" / "index.html").write_text("<p>the page</p>")
    (tmp_path / "report" / "findings.json").write_text("{}")
    Image.new("RGB", (4, 4)).save(tmp_path / "report" / "figures" / "gap.png")
    return tmp_path / "report"


def blocks(spec):
    """The types of a report's blocks, and of the panels in them."""
    found = [block["type"] for block in spec["blocks"]]
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    return found, [
        panel["viewType"] for grid in grids for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]
    ]


def test_what_would_be_saved_is_written_without_a_network(ledger, findings, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    file = tmp_path / "report.json"
    result = CliRunner().invoke(command.wandb_cli, [str(ledger), "--spec", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert str(file) in result.output
    view = json.loads(file.read_bytes())
    text = json.dumps(view, ensure_ascii=False)
    for paragraph in findings.answer.split("\n\n"):
        assert json.dumps(paragraph, ensure_ascii=False) in text
    (line,) = wandb_report.intervals(findings)
    assert line in text
    assert "over seeds and test images" in line
    kinds, panels = blocks(view["spec"])
    assert kinds.count("panel-grid") == 3
    assert sorted(set(panels)) == [
        "Media Browser",
        "Parallel Coordinates Plot",
        "Run History Line Plot",
        "Scatter Plot",
    ]
    assert panels.count("Run History Line Plot") == 3
    for said in (
        "figures/gap",
        "val/accuracy",
        "minmax",
        '"name": "model.value"',
        "python -m study run",
        "summary:state",
    ):
        assert said in text, said


@pytest.mark.slow
def test_the_study_has_a_run_with_its_findings(server, ledger, data, findings, folder):
    for version in (1, 2):
        address = wandb_report.publish(findings, data, folder)
        assert address == f"{server.url}/me/lenet5-vs-mlp/runs/synthetic-study"
        run = server.runs["synthetic-study"]
        assert (run.about["displayName"], run.about["jobType"], run.state) == ("synthetic", "study", "finished")
        assert run.about["tags"] == ["synthetic", "study"]
        assert run.config["study"]["value"] == "synthetic"
        assert run.config["seeds"]["value"] == 3
        assert run.summary["answer"] == findings.answer
        (comparison,) = findings.comparisons
        assert run.summary["gap/b/seeds/estimate"] == comparison.seeds.mean.estimate
        assert run.summary["gap/b/seeds_and_images/high"] == comparison.images.high
        assert (run.summary["runs/planned"], run.summary["runs/finished"]) == (18, 18)
        (row,) = run.rows[version - 1 :]
        assert row["tables/gaps"]["_type"] == "table-file"
        assert row["figures/gap"]["_type"] == "image-file"
        kept = [a for a in server.artifacts.values() if a["type"] in ("report", "ledger") and a["state"] == "COMMITTED"]
        assert [(a["name"], sorted(a["files"])) for a in sorted(kept, key=lambda a: a["name"])] == [
            *[("synthetic-ledger", ["synthetic.zip"])] * version,
            *[("synthetic-report", ["findings.json", "index.html"])] * version,
        ]
    archive = next(content for name, content in server.uploads.items() if name.endswith("/synthetic.zip"))
    assert "study.json" in zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert server.unknown == []


@pytest.mark.slow
def test_the_report_is_saved_and_saved_anew(server, ledger, data, findings, folder):
    with pytest.raises(UserError, match=r"has no study 'synthetic' to report on; first: python -m study sync"):
        wandb_report.save(findings, data)
    wandb_report.publish(findings, data, folder)
    first = wandb_report.save(findings, data)
    assert first.startswith(f"{server.url}/me/lenet5-vs-mlp/reports/")
    assert wandb_report.save(findings, data) == first
    (view,) = server.views.values()
    assert view["type"] == "runs"
    assert json.loads(view["spec"])["blocks"]
    draft = wandb_report.save(findings, data, draft=True)
    assert sorted(view["type"] for view in server.views.values()) == ["runs", "runs/draft"]
    assert draft != first
    # The study's run written again keeps the report's address; a report that was deleted is made anew.
    wandb_report.publish(findings, data, folder)
    assert wandb_report.save(findings, data) == first
    server.views.clear()
    wandb_report.save(findings, data)
    assert len(server.views) == 1
    assert server.unknown == []


@pytest.mark.slow
def test_what_keeps_from_publishing_is_one_line(server, data, findings, folder, monkeypatch):
    server.read_only.add("me")
    with pytest.raises(UserError, match=r"wandb.project: found lenet5-vs-mlp: .*permission denied"):
        wandb_report.publish(findings, data, folder)
    wandb_access.end()
    server.die()
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    with pytest.raises(PublishError, match="does not answer"):
        wandb_report.publish(findings, data, folder)
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "/nonexistent")
    with pytest.raises(UserError, match=r"W&B: found no key for 127\.0\.0\.1:"):
        wandb_report.save(findings, data)

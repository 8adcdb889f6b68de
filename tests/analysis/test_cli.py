"""python -m analysis: the answer, the files, one line for every mistake, and no need of torch, Ray or W&B."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from analysis import __main__ as command_line
from analysis import frames
from analysis.findings import build
from study.errors import UserError
from study.ledger import ledger
from study.ledger.storage import Storage
from tests import synthetic

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
STATES = {("mlp", 0.01, 1): "missing", ("lenet5", 0.003, 0): "failed", ("mlp", 0.03, 0): "diverged"}
SMALL = dict(seeds=3, n_test=120, n_val=60, shape=(6, 6), analysis={"resamples": 200})


def run(*arguments, cwd=ROOT):
    """Run the command as a user without a terminal does: exit code, stdout, stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "analysis", *map(str, arguments)]
    found = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    return found.returncode, found.stdout, found.stderr


@pytest.fixture
def call(monkeypatch, capsys):
    """The same in this process, for all that ends before anything is drawn."""

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["analysis", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return ended.value.code, *capsys.readouterr()

    return called


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("cli"), **SMALL, states=STATES)


@pytest.fixture(scope="module")
def ran(written):
    return run(written)


def test_the_answer_comes_first_then_the_table_behind_it(written, ran):
    code, output, errors = ran
    assert (code, errors) == (0, "")
    findings = json.loads((written / "report" / "findings.json").read_text())
    assert output.startswith(findings["answer"] + "\n"), "a paragraph is one line where nobody reads a screen"
    _, table = output.split("accuracy", 1)
    for c in findings["configurations"]:
        assert f"{100 * c['test_accuracy']['estimate']:.2f}" in table
    for c in findings["comparisons"]:
        gap, images = c["seeds"]["mean"], c["images"]
        row = next(line.split() for line in output.splitlines() if line.startswith(f"{c['baseline']} "))
        signed = [f"{100 * x:+.2f}".replace("-", "−") for x in (gap["estimate"], gap["low"], gap["high"])]
        assert [*row[1:3], row[4]] == signed
        assert row[5:8:2] == [f"{100 * x:+.2f}".replace("-", "−") for x in (images["low"], images["high"])]
        assert row[9:12] == [str(c["pairs"]), "of", str(c["planned"])]
        assert any(line.startswith(f"{c['baseline']}: for these test images") for line in output.splitlines())
    assert "\x1b" not in output
    # What the page warns of stands here too.
    assert len(findings["warnings"]) == output.count("warning: ")
    assert "warning: 2 of 27 planned runs have no outcome: 1 failed, 1 missing" in output
    assert str(written / "report" / "index.html") in output


def test_an_incomplete_study_is_analysed_with_its_counts(ran):
    _, table = ran[1].split("accuracy", 1)
    rows = [line.split() for line in table.splitlines() if line.startswith(("mlp", "lenet5"))]
    counts = {(row[0], row[1]): [*row[-5:-2], *row[-2:]] for row in rows}
    assert counts["mlp", "0.01"] == ["2", "of", "3", "0", "1"]
    assert counts["lenet5", "0.003"] == ["2", "of", "3", "0", "1"]
    assert counts["mlp", "0.03"] == ["2", "of", "3", "1", "0"]
    assert len(rows) == 9


def test_everything_it_promises_is_written(written, ran):
    report = written / "report"
    assert {p.name for p in report.iterdir()} == {
        "findings.json",
        "costs.json",
        "tables",
        "figures",
        "latex",
        "index.html",
    }
    assert json.loads((report / "costs.json").read_text())["train_seconds"] > 0
    assert list((report / "tables").iterdir())
    assert list((report / "figures").iterdir())


def test_what_an_earlier_report_left_is_removed_and_nothing_else(written, tmp_path):
    """Not the tables and figures that are written, nor what others put beside them."""
    out = tmp_path / "out"
    stale = ["tables/variance.csv", "tables/variance.md", "latex/tables/variance.tex", "latex/figures/variance.tex"]
    stale += [f"figures/variance.{kind}" for kind in ("pdf", "svg", "png")]
    others = ["tables/mine.csv", "tables/variance.txt", "figures/mine.pdf", "variance.csv", "latex/variance.tex"]
    for name in (*stale, *others):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("before")
    assert run(written, "--out", out)[0] == 0
    assert [name for name in stale if (out / name).exists()] == []
    assert [name for name in others if (out / name).read_text() != "before"] == []
    assert {"tables/gaps.csv", "figures/gap.svg", "latex/tables/gaps.tex"} <= {
        path.relative_to(out).as_posix() for path in out.rglob("*.*")
    }
    assert "not drawn" in (out / "figures" / "variance.txt").read_text()


def test_an_archive_reports_where_the_command_was_given_and_deviations_are_listed(written, ran, tmp_path):
    ledger.export(Storage(written), tmp_path / "mine.zip")
    code, output, errors = run("mine.zip", "margin=0.002", "baselines=mlp", "--json", cwd=tmp_path)
    assert (code, errors) == (0, "")
    report = tmp_path / "mine-report"
    assert output == (report / "findings.json").read_text()
    found, declared = json.loads(output), json.loads((written / "report" / "findings.json").read_text())
    assert not found["preregistration"]["as_declared"]
    assert {d["key"]: d["used"] for d in found["preregistration"]["deviations"]} == {
        "margin": 0.002,
        "baselines": ["mlp"],
    }
    assert [c["baseline"] for c in found["comparisons"]] == ["mlp"]
    assert found["configurations"] == declared["configurations"]
    assert "not the one declared" in (report / "index.html").read_text()


def test_across_and_wandb_take_the_clusters_of_test_images_too(written, call, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("\n".join(str(i // 4) for i in range(120)))
    other = synthetic.write(tmp_path, name="other", dataset="fashion_mnist", **SMALL | {"epochs": 2})
    assert call("across", written, other, "--clusters", ids, "--out", tmp_path / "across")[0] == 0
    gaps = json.loads((tmp_path / "across" / "across.json").read_text())["gaps"]
    clustered = {gap["dataset"]: "30 clusters" in gap["images"]["method"] for gap in gaps}
    assert clustered == {"mnist": True, "fashion_mnist": False}
    code, _, errors = call("across", other, "--clusters", ids, "--out", tmp_path / "again")
    assert (code, errors.count("\n")) == (2, 1)
    assert "found no study of its images" in errors
    assert call("wandb", written, "--clusters", ids, "--spec", tmp_path / "spec.json")[0] == 0
    assert "30 clusters" in (tmp_path / "spec.json").read_text()


def test_published_intervals_are_not_replaced_by_shorter_ones(written, call, tmp_path, monkeypatch):
    folder = tmp_path / "published"
    (folder / "mine").mkdir(parents=True)
    ledger.export(Storage(written), folder / "mine" / "mine.zip")
    for name, size in (("ids", 4), ("others", 5)):
        (tmp_path / name).write_text("\n".join(str(i // size) for i in range(120)))
    findings = folder / "mine" / "findings.json"
    findings.write_text(build.collect(frames.load(written, tmp_path / "ids")).to_json())
    before = findings.read_bytes()
    for options, found in (((), "found none"), (("--clusters", tmp_path / "others"), "found others")):
        code, output, errors = call("published", folder, *options)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        assert found in errors
        assert "qmnist-test-labels-idx2-int that torchvision.datasets.QMNIST downloads" in errors
    assert {path.name for path in folder.rglob("*")} == {"mine", "mine.zip", "findings.json"}
    assert findings.read_bytes() == before
    monkeypatch.setattr(command_line, "_write", lambda *_, **__: None)
    code, output, _ = call("published", folder, "--clusters", tmp_path / "ids")
    assert code == 0
    assert "CLUSTERS=FILE" in (folder / "README.md").read_text()


def test_another_candidate_alone_has_all_other_models_as_baselines(call, tmp_path, monkeypatch):
    declared = {"resamples": 100, "candidate": "lenet5", "baselines": ["mlp"]}
    folder = synthetic.write(tmp_path, **SMALL | {"analysis": declared})
    monkeypatch.setattr(command_line, "_write", lambda *_, **__: None)
    code, output, errors = call(folder, "candidate=mlp", "--json", "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    settings = json.loads(output)["about"]["settings"]
    assert (settings["candidate"], settings["baselines"]) == ("mlp", ["lenet5", "mlp_matched"])


def test_an_incomplete_study_can_be_refused(written, call, tmp_path):
    code, output, errors = call(written, "--require-complete", "--out", tmp_path / "out")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "2 of 27 planned runs have no outcome" in errors
    assert not (tmp_path / "out").exists()


def test_diverged_runs_are_outcomes_and_do_not_make_a_study_incomplete(tmp_path):
    folder = synthetic.write(tmp_path, **SMALL, states={("mlp", 0.01, 1): "diverged"})
    command_line._complete(frames.load(folder))
    (folder / "runs" / "0123456789ab.json").write_text("torn")
    with pytest.raises(UserError, match="1 files are not valid"):
        command_line._complete(frames.load(folder))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{nowhere}"], ["nowhere", "holds no study"]),
        (["{study}", "margin=0"], ["margin", "found 0", "allowed"]),
        (["{study}", "margin=lots"], ["margin", "'lots'", "allowed"]),
        (["{study}", "confidence=nan"], ["confidence", "nan", "allowed"]),
        (["{study}", "confidence=0.4"], ["confidence", "0.4", "greater than 0.5"]),
        (["{study}", "resamples=1"], ["resamples", "allowed"]),
        (["{study}", "seed=-1"], ["seed", "allowed"]),
        (["{study}", "learning_rate=3"], ["'learning_rate'", "allowed", "margin"]),
        (["{study}", "margin"], ["margin", "allowed"]),
        (["{study}", "candidate=resnet"], ["'resnet'", "allowed", "lenet5"]),
        (["{study}", "baselines=lenet5"], ["lenet5", "allowed"]),
        (["s3:///"], ["storage"]),
        (["ftp://x/y"], ["storage", "ftp"]),
    ],
)
def test_a_mistake_is_one_line(written, call, tmp_path, arguments, words):
    arguments = [a.format(study=written, nowhere=tmp_path / "nowhere") for a in arguments]
    code, output, errors = call(*arguments, "--out", tmp_path / "out")
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    for word in words:
        assert word in errors
    assert not (tmp_path / "out").exists()


def test_a_wrong_option_is_explained(written, call):
    code, _, errors = call(written, "--nonsense")
    assert code == 2
    assert "--nonsense" in errors


def test_a_folder_that_cannot_be_written_is_storage_that_stopped_us(written, call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, errors = call(written, "--out", tmp_path / "file" / "report")
    assert code == 3
    assert errors.count("\n") == 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as it is installed, built of a copy so that no checkout lends it a file."""
    folder = tmp_path_factory.mktemp("wheel")
    kept = shutil.ignore_patterns("__pycache__", "published")
    for package in ("study", "analysis"):
        shutil.copytree(ROOT / package, folder / package, ignore=kept)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(folder)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_everything_the_packages_read(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    read = [p for package in ("study/datasets", "analysis/report/templates") for p in (ROOT / package).rglob("*")]
    assert {str(p.relative_to(ROOT)) for p in read if p.is_file()} <= held
    sources = {str(p.relative_to(ROOT)) for package in ("study", "analysis") for p in (ROOT / package).rglob("*.py")}
    examples = {name for name in sources if name.startswith("analysis/examples/")}
    assert {name for name in held if name.endswith(".py")} == sources - examples


@pytest.mark.slow
@pytest.mark.parametrize("constraints", ["constraints.txt", "constraints-lowest.txt"])
def test_it_runs_where_torch_ray_and_wandb_are_not_installed(wheel, tmp_path, constraints):
    """With the newest versions that were tried, and with the oldest that setup.cfg allows."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"MPLCONFIGDIR": str(tmp_path)}

    def inside(*command):
        line = [str(python), *map(str, command)]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)

    installed = inside("-m", "pip", "install", "--quiet", "-c", ROOT / constraints, wheel)
    assert installed.returncode == 0, installed.stderr
    for package in ("torch", "ray", "wandb", "omegaconf"):
        assert "ModuleNotFoundError" in inside("-c", f"import {package}").stderr
    found = inside("-m", "analysis", GOLDEN / "study.zip", "--out", tmp_path / "out")
    assert (found.returncode, found.stderr) == (0, "")
    for table in GOLDEN.glob("*.md"):
        assert (tmp_path / "out" / "tables" / table.name).read_text() == table.read_text()
    if constraints == "constraints.txt":
        assert run(GOLDEN / "study.zip", "--out", tmp_path / "ours")[0] == 0
        assert (tmp_path / "out" / "findings.json").read_text() == (tmp_path / "ours" / "findings.json").read_text()

    refused = inside("-m", "study", "run", ROOT / "configs" / "smoke.yaml")
    assert refused.returncode == 2
    assert refused.stderr == "error: yaml is not installed; this command needs pip install '.[study]'\n"
    zipfile.ZipFile(GOLDEN / "study.zip").extractall(tmp_path / "golden")
    exported = inside("-m", "study", "export", "golden", "again.zip")
    assert (exported.returncode, exported.stderr) == (0, "")


def test_the_lowest_versions_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lowest = (ROOT / "constraints-lowest.txt").read_text().split()
    assert setup["options"]["install_requires"].split() == [line.replace("==", ">=") for line in lowest]

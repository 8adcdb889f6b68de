"""python -m analysis: the answer, the files, one line for every mistake, and no need of torch, Ray or W&B."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from study import ledger
from study.storage import Storage
from tests import synthetic

ROOT = Path(__file__).parent.parent
SMALL = dict(seeds=3, n_test=120, n_val=60, shape=(6, 6), analysis={"resamples": 200})


def run(*arguments, python=sys.executable, cwd=ROOT):
    """Run the command as a reader of its output would, without a terminal: exit code, stdout, stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if cwd != ROOT or python != sys.executable:
        environment["MPLCONFIGDIR"] = str(cwd)
    command = [str(python), "-m", "analysis", *map(str, arguments)]
    found = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    return found.returncode, found.stdout, found.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("cli"), **SMALL)


@pytest.fixture(scope="module")
def ran(written):
    return run(written)


def test_the_answer_comes_first_then_the_table_behind_it(written, ran):
    code, output, errors = ran
    assert (code, errors) == (0, "")
    findings = json.loads((written / "report" / "findings.json").read_text())
    assert output.split().index("misread") < output.split().index("accuracy")
    assert " ".join(output.split()).startswith(" ".join(findings["answer"].split()))
    for c in findings["configurations"]:
        assert f"{100 * c['test_accuracy']['estimate']:.2f}" in output
    assert output.count(" of 3") >= len(findings["configurations"])
    assert "\x1b" not in output
    assert str(written / "report" / "index.html") in output.replace("\n", "")


def test_everything_it_promises_is_written(written, ran):
    report = written / "report"
    assert {p.name for p in report.iterdir()} == {"findings.json", "costs.json", "tables", "figures", "index.html"}
    assert json.loads((report / "costs.json").read_text())["train_seconds"] > 0
    assert list((report / "tables").iterdir())
    assert list((report / "figures").iterdir())


def test_json_is_the_findings_and_nothing_else(written, ran, tmp_path):
    code, output, errors = run(written, "--json", "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    assert output == (written / "report" / "findings.json").read_text()
    assert output == (tmp_path / "out" / "findings.json").read_text()


def test_an_archive_reports_beside_where_the_command_was_given(written, ran, tmp_path):
    ledger.export(Storage(written), tmp_path / "mine.zip")
    code, output, errors = run("mine.zip", cwd=tmp_path)
    assert (code, errors) == (0, "")
    found = (tmp_path / "mine-report" / "findings.json").read_text()
    assert found == (written / "report" / "findings.json").read_text()


def test_what_was_not_declared_is_listed(written, tmp_path):
    code, _, errors = run(written, "margin=0.002", "baselines=mlp", "--out", tmp_path)
    assert (code, errors) == (0, "")
    found = json.loads((tmp_path / "findings.json").read_text())
    assert not found["preregistration"]["as_declared"]
    assert {d["key"]: d["used"] for d in found["preregistration"]["deviations"]} == {
        "margin": 0.002,
        "baselines": ["mlp"],
    }
    assert [c["baseline"] for c in found["comparisons"]] == ["mlp"]
    assert "not the one declared" in (tmp_path / "index.html").read_text()


def test_an_incomplete_study_is_analysed_with_its_counts_or_refused(tmp_path):
    states = {("mlp", 0.01, 1): "missing", ("lenet5", 0.003, 0): "failed"}
    folder = synthetic.write(tmp_path, **SMALL | dict(states=states))
    code, output, _ = run(folder)
    assert code == 0
    assert "2 of 3" in output
    code, output, errors = run(folder, "--require-complete")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "2 of 27 planned runs have no outcome" in errors


def test_a_complete_study_passes_require_complete_whatever_diverged(tmp_path):
    folder = synthetic.write(tmp_path, **SMALL | dict(states={("mlp", 0.01, 1): "diverged"}))
    assert run(folder, "--require-complete")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{nowhere}"], ["nowhere", "holds no study"]),
        (["{study}", "margin=0"], ["margin", "found 0.0", "allowed"]),
        (["{study}", "margin=lots"], ["margin", "'lots'", "allowed"]),
        (["{study}", "confidence=nan"], ["confidence", "nan", "allowed"]),
        (["{study}", "confidence=0.4"], ["confidence", "0.4", "more than 0.5"]),
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
def test_a_mistake_is_one_line(written, tmp_path, arguments, words):
    arguments = [a.format(study=written, nowhere=tmp_path / "nowhere") for a in arguments]
    code, output, errors = run(*arguments, "--out", tmp_path / "out")
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    for word in words:
        assert word in errors
    assert not (tmp_path / "out").exists()


def test_a_wrong_option_is_explained(written):
    code, _, errors = run(written, "--nonsense")
    assert code == 2
    assert "--nonsense" in errors


def test_a_folder_that_cannot_be_written_is_storage_that_stopped_us(written, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, errors = run(written, "--out", tmp_path / "file" / "report")
    assert code == 3
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_it_runs_where_torch_ray_and_wandb_are_not_installed(written, ran, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        if (ROOT / name).exists():
            (source / name).write_bytes((ROOT / name).read_bytes())
    for package in ("study", "analysis"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix in {".py", ".j2"}:
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "."]
    done = subprocess.run(install, cwd=source, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"MPLCONFIGDIR": str(tmp_path)}

    def inside(*command):
        return subprocess.run(
            [str(python), *map(str, command)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    for package in ("torch", "ray", "wandb", "omegaconf"):
        assert "ModuleNotFoundError" in inside("-c", f"import {package}").stderr
    found = inside("-m", "analysis", written, "--out", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out" / "findings.json").read_text() == (written / "report" / "findings.json").read_text()

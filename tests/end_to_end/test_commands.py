"""What the commands tell, of studies at every stage."""

import json
import re
import shlex
import time
import zipfile

import pytest
from click.testing import CliRunner

from study.__main__ import cli as study_cli
from study.errors import UserError
from study.launch import session
from tests import processes

pytestmark = pytest.mark.slow


def test_plan_counts_and_trains_nothing(place):
    path = processes.config(place)
    for command in (["plan", path], ["run", path, "--dry-run"]):
        code, output = processes.run(*command)
        assert code == 0, output
        assert "small: 2 models × 2 learning rates × 2 seeds × 3 epochs = 8 runs" in output
        assert "to train: 8 of 8 runs, in 4 packs" in output
        assert "lenet5: 4 runs in 2 packs" in output
        assert "estimated time on " in output
    assert not (place / "storage").exists()


def told(*arguments):
    """What `status` prints of a study that it can read, none of whose runs has failed."""
    result = CliRunner().invoke(study_cli, ["status", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_status_tells_what_there_is(undisturbed, place):
    code, output = processes.run("status", place / "nothing")
    assert code == 2
    assert output == (
        f"error: {place / 'nothing'}: holds no study yet (no study.json); to start one: python -m study run CONFIG\n"
    )
    output = told(undisturbed)
    assert "small: 8 finished, 0 diverged, 0 failed, 0 running, 0 missing, of 8 runs planned" in output
    assert output.count("mlp_matched") == 2
    assert "driver: none\n" in output
    # A damaged record is named, and its run is missing again.
    copy = place / "storage" / "small"
    processes.copy(undisturbed, copy)
    victim = sorted((copy / "runs").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-5])
    output = told(copy)
    assert "7 finished, 0 diverged, 0 failed, 0 running, 1 missing" in output
    assert f"{victim}: " in output
    assert "it is not counted as a record" in output


def test_status_counts_what_a_config_plans_now(undisturbed, place):
    path = processes.config(place)
    assert "0 running, 8 missing, of 8 runs planned" in told(path), "nothing has begun"
    assert told(path, "seeds=3").endswith(f"not run yet; to start: python -m study run {path} seeds=3\n")
    processes.copy(undisturbed, place / "storage" / "small")
    grown = told(path, "seeds=5")
    assert "small: 8 finished, 0 diverged, 0 failed, 0 running, 12 missing, of 20 runs planned" in grown
    assert "driver: none; run the study again to train what is missing" in grown
    other = told(path, "models=[lenet5]", "analysis.candidate=lenet5")
    assert "small: 4 finished, 0 diverged, 0 failed, 0 running, 0 missing, of 4 runs planned" in other
    assert "planned before and not in this config: 4 finished, 0 diverged, 0 failed, 0 running, 0 missing" in other


@pytest.mark.parametrize(
    "progress",
    [
        "odd",
        ["odd"],
        {"packs": 7, "seconds_left": "soon"},
        {"packs": [{}, 7], "seconds_left": float("nan")},
        {"seconds_left": [1]},
    ],
    ids=str,
)
def test_an_odd_heartbeat_is_no_traceback(undisturbed, place, progress):
    processes.copy(undisturbed, place / "copy")
    holder = {"pid": 7, "heartbeat": time.time(), "progress": progress}
    (place / "copy" / "driver.lock").write_text(json.dumps(holder))
    output = told(place / "copy")
    assert "8 finished, 0 diverged, 0 failed, 0 running, 0 missing" in output
    assert "driver: process 7 on None; ? left" in output


def test_status_of_a_study_that_trains_elsewhere(place):
    path = processes.config(place, training={"epochs": 400, "batch_size": 8}, launch={"workers": 1})
    process = processes.start("run", path)
    try:
        seen = []

        def training():
            seen.append(told(path))
            return f"driver: process {process.pid} on " in seen[-1] and " 2 running, " in seen[-1]

        processes.until(training, "status to tell of the training")
        assert "0 finished, 0 diverged, 0 failed, 2 running, 6 missing, of 8 runs planned" in seen[-1]
        assert re.search(r" on \S+; (\d+ s|\d+ min|\d+ h \d+ min|\?) left", seen[-1]), seen[-1]
        # Model, learning rate, finished, diverged, failed, running, missing, planned: one pack of each model's two.
        rows = [line.split() for line in seen[-1].splitlines() if line.startswith(("lenet5", "mlp_matched"))]
        assert sorted(row[5:] for row in rows) == [["1", "1", "2"]] * 2 + [["·", "2", "2"]] * 2
    finally:
        processes.kill(process)
    output = told(path)
    assert f"driver: none (process {process.pid} on " in output
    assert "died); run the study again to go on" in output
    assert "0 running, 8 missing" in output


def test_a_damaged_record_is_trained_again_to_the_same_bytes(undisturbed, place):
    path = processes.config(place)
    copy = place / "storage" / "small"
    processes.copy(undisturbed, copy)
    victim = sorted((copy / "runs").iterdir())[0]
    victim.write_bytes(b"{}")
    code, output = processes.run("run", path)
    assert code == 0, output
    assert f"{victim}: " in output
    assert "1 of 8 runs, in 1 pack" in output
    assert f"next, the answer: python -m analysis {copy}\nits report will be {copy}/report/index.html\n" in output
    processes.assert_same(copy, undisturbed)


def test_export_holds_the_ledger(undisturbed, place):
    code, output = processes.run("export", undisturbed, place / "small.zip")
    assert code == 0, output
    with zipfile.ZipFile(place / "small.zip") as archive:
        names = archive.namelist()
    assert sum(name.startswith("runs/") for name in names) == 8
    assert sum(name.startswith("predictions/") for name in names) == 8
    assert {"study.json", "dataset/test_labels.npy", "dataset/val_labels_0.npy"} <= set(names)


def test_every_launch_is_on_record(undisturbed):
    study = json.loads((undisturbed / "study.json").read_bytes())
    launch = study["launches"][0]
    assert launch["config"]["training"]["epochs"] == 3
    assert len(launch["analysis_sha256"]) == 64
    assert launch["versions"]["torch"]
    assert sum(len(pack["runs"]) for pack in study["packs"]) == 8
    assert study["dataset"]["n_test"] == 200


def test_provenance_says_where_a_record_comes_from(undisturbed):
    for path in (undisturbed / "runs").iterdir():
        provenance = json.loads(path.read_bytes())["provenance"]
        assert provenance["train_seconds"] > 0
        assert (provenance["pack_size"], provenance["device"], provenance["threads"]) == (2, "cpu", 1)
        assert provenance["attempts"] == 1
        assert provenance["error"] is None
        assert set(provenance["versions"]) >= {"python", "torch", "ray"}


def test_a_config_mistake_is_one_line_and_exit_2(place):
    path = processes.config(place, training={"epoch": 2})
    code, output = processes.run("run", path)
    assert code == 2
    assert output.count("\n") == 1
    assert f"error: {path}: training.epoch: unknown key (did you mean epochs?)" in output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "dataset=/nowhere",
            "dataset: found '/nowhere'; allowed: mnist, fashion_mnist, kmnist, qmnist, emnist/balanced",
        ),
        ("models=[lenet]", "models.0: found 'lenet', which is no model (did you mean lenet5?); allowed: lenet5, mlp"),
        ("training.validation_size=600", "training.validation_size: found 600; allowed: 1 to 599 for this dataset"),
        ("storage=ftp://x", "storage: found 'ftp://x'; allowed: a path, or an s3:// or gs:// URI"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_mistake_found_in_use_names_the_config_too(place, verb, override, message):
    path = processes.config(place)
    with pytest.raises(UserError) as error:
        study_cli([verb, str(path), override, "analysis.candidate=null"], standalone_mode=False)
    assert str(error.value).startswith(f"{path}: {message}")


def test_the_line_to_resume_by_can_be_pasted(place, monkeypatch):
    """Words with spaces in quotes, and every flag that the first command had."""
    told = []
    monkeypatch.setattr(session, "run", lambda _, __, options: told.append((shlex.split(options.again), options)) or 2)
    path = processes.config(place / "my studies")
    given = ["run", str(path), "seeds={init: 2, order: 1}", "name=a"]
    given += ["--address", "auto", "--report", "--retry-failed", "--dashboard", "--mix-recipes", "--wait-minutes", "2"]
    for _ in range(2):
        study_cli(given, standalone_mode=False)
        given = told[-1][0][3:]
    assert told[0] == told[1]
    assert told[0][1] == session.Options(
        again=shlex.join(told[0][0]),
        address="auto",
        retry_failed=True,
        dashboard=True,
        mix_recipes=True,
        wait_minutes=2,
    )


def test_studies_that_are_run_together_are_what_each_is_alone(undisturbed, place):
    paths = [processes.config(place / m / "study", name=m, models=[m]) for m in processes.SMALL["models"]]
    code, output = processes.run("run", *paths)
    assert code == 0, output
    found = {}
    for path in paths:
        model = path.parent.parent.name
        assert f"{model}: 4 finished, of 4 runs planned" in output
        found |= processes.results(path.parent / "storage" / model)
    assert found == processes.results(undisturbed)


def test_where_is_the_folder_that_analysis_takes(place):
    path = processes.config(place)
    assert CliRunner().invoke(study_cli, ["where", str(path), "name=b"]).output == f"{place}/storage/b\n"

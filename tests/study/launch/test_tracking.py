import json
import re
import subprocess
import sys
import time
import types
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from study.config_file import validate
from study.launch import tracking
from study.launch.tracking import Settings, Tracker
from study.ledger.records import METRICS
from study.ledger.runs import PlannedRun
from study.redaction import mask
from tests import processes
from tests.examples import RUN


def planned(k=2):
    runs = [RUN.model_copy(update={"learning_rate": 0.01 * (i + 1)}) for i in range(k)]
    return [PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=1) for run in runs]


def settings(folder, **changes):
    fields = dict(mode="offline", project="p", entity=None, folder=str(folder), study="s") | changes
    return Settings(**fields)


def metrics(epoch, k=2):
    return {name: np.arange(k) + epoch + 0.1 + 0.2 for name in METRICS}


def read_offline(file: Path) -> tuple[str, dict[int, dict[str, float]], dict[str, object]]:
    """A W&B file as wandb itself reads it: run id, step → what was logged, and the run's own record."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=processes.environment())
    history, run = {}, {}
    for line in done.stdout.splitlines():
        content = json.loads(line)
        if content["type"] == "history":
            items = content["history"]["item"]
            history[items["_step"]] = items
        elif content["type"] == "run":
            run = content["run"]
    return run["run_id"], history, run


def files(folder):
    return sorted(Path(folder).rglob("*.wandb"))


@pytest.mark.slow
def test_offline_files_hold_every_epoch_of_every_run_as_the_ledger_does(offline):
    folder, output, _ = offline
    where = re.search(r"W&B files of this launch, offline: (.*)", output)[1]
    records = {r["run_id"]: r for r in (json.loads(p.read_bytes()) for p in (folder / "runs").iterdir())}
    found = defaultdict(dict)
    for file in files(where):
        run_id, history, run = read_offline(file)
        found[run_id.removeprefix("small-")] |= history
        settings_ = records[run_id.removeprefix("small-")]["run"]
        assert run["run_group"].startswith(f"{settings_['model']} {settings_['learning_rate']:g} ")
        assert set(run["tags"]) == {"small", settings_["model"]}
    assert set(found) == set(records)
    for run_id, record in records.items():
        assert sorted(found[run_id]) == [1, 2, 3]
        for name in METRICS:
            assert [found[run_id][epoch][name] for epoch in (1, 2, 3)] == record["epochs"][name]


@pytest.mark.slow
def test_no_key_in_any_file_or_line(offline):
    folder, output, ray = offline
    where = Path(re.search(r"W&B files of this launch, offline: (.*)", output)[1])
    # The ledger and W&B's cache, its offline files, the logs of Ray, its workers and Tune.
    assert any("worker" in path.name for path in ray.rglob("*.err"))
    assert processes.leaks(folder.parent.parent, where, ray) == []
    assert processes.KEY not in output


@pytest.mark.slow
def test_a_worker_serves_one_pack_after_another(tmp_path):
    for study in ("one", "two"):
        tracker = Tracker(settings(tmp_path / study, study=study), planned())
        for epoch in (1, 2):
            tracker.log(epoch, metrics(epoch), np.array([True, epoch < 2]))
        tracker.fail("broken")
        assert tracker.warnings == []
    for study in ("one", "two"):
        steps = {run_id: sorted(history) for run_id, history, _ in map(read_offline, files(tmp_path / study))}
        assert steps == {f"{study}-{p.run_id}": [1, 2] if k == 0 else [1] for k, p in enumerate(planned())}


@pytest.mark.slow
def test_an_unreachable_server_costs_bounded_time_and_nothing_else(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # a worker reads its environment once, when it first logs
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", processes.KEY)
    monkeypatch.setattr(tracking, "_away_until", 0.0)
    tracker = Tracker(settings(tmp_path, mode="online", init_timeout=3), planned())
    began = time.monotonic()
    for epoch in (1, 2):
        tracker.log(epoch, metrics(epoch), np.array([True, True]))
    assert time.monotonic() - began < 1, "logging waits for nothing"
    tracker.fail("broken")
    assert time.monotonic() - began < 60
    assert any("logged offline" in w for w in tracker.warnings), tracker.warnings
    assert not any(processes.KEY in w for w in tracker.warnings)
    written = [file for file in files(tmp_path) if "offline-run-" in str(file)]
    assert [len(history) for _, history, _ in map(read_offline, written)] == [2, 2]
    # The next pack does not wait for it again.
    tracker = Tracker(settings(tmp_path / "next", mode="online", init_timeout=30), planned())
    tracker.log(1, metrics(1), np.array([True, True]))
    began = time.monotonic()
    tracker.fail("broken")
    assert time.monotonic() - began < 20
    assert tracker.warnings == []
    assert [len(history) for _, history, _ in map(read_offline, files(tmp_path / "next"))] == [1, 1]


class Fake:
    """Stands for wandb: notes what runs are started with; its runs refuse every epoch."""

    errors = types.SimpleNamespace(CommError=OSError, UsageError=TypeError)
    Settings = dict

    def __init__(self, error=None):
        self.error, self.started = error, []

    def init(self, **options):
        if self.error:
            raise self.error
        self.started.append(options)
        return self

    def log(self, *arguments, **options):
        raise RuntimeError("full")

    def finish(self, exit_code):
        pass

    @property
    def summary(self):
        return {}


@pytest.mark.parametrize("error", [PermissionError("read-only"), None], ids=["start", "epochs"])
def test_what_goes_wrong_is_said_once(tmp_path, monkeypatch, error):
    monkeypatch.setitem(sys.modules, "wandb", Fake(error))
    tracker = Tracker(settings(tmp_path), planned())
    for epoch in (1, 2, 3):
        tracker.log(epoch, metrics(epoch), np.array([True, True]))
    tracker.finish([])
    assert tracker.warnings == ["W&B: PermissionError: read-only" if error else "W&B: RuntimeError: full"]


def test_the_longest_names_that_a_config_may_hold_fit(tmp_path, monkeypatch):
    """W&B refuses more than 128 characters, and 64 in a tag."""
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tree = {"name": "s" * 80, "models": ["m" * 90], "learning_rates": [1.234567e-300], "seeds": [2**63 - 1]}
    config = validate(tree, "test")
    run = RUN.model_copy(
        update=dict(model=config.models[0], learning_rate=config.learning_rates[0], seed=config.seeds[0])
    )
    pack = [PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=1)]
    Tracker(settings(tmp_path, study=config.name), pack).finish([])
    (options,) = fake.started
    assert max(len(options[key]) for key in ("id", "name", "group")) <= 128
    assert options["group"].endswith(run.configuration_id)
    assert max(map(len, options["tags"])) <= 64


def test_disabled_does_nothing(tmp_path):
    tracker = Tracker(settings(tmp_path / "x", mode="disabled"), planned())
    tracker.log(1, metrics(1), np.array([True, True]))
    tracker.finish([])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("mode", "environ", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("online", {}, "online"),
    ],
)
def test_auto_is_online_with_a_key(mode, environ, expected):
    assert tracking.resolve(mode, {"NETRC": "/nonexistent"} | environ) == expected


def test_only_wandb_variables_travel():
    environ = {"WANDB_API_KEY": "k", "WANDB_SERVICE": "3-1-tcp-localhost-1", "AWS_SECRET_ACCESS_KEY": "s"}
    assert tracking.environment(environ) == {"WANDB_API_KEY": "k"}


def test_the_id_is_the_same_every_time_and_tells_studies_apart():
    assert tracking.wandb_id("a", "0" * 12) == "a-000000000000" != tracking.wandb_id("b", "0" * 12)


def test_settings_hold_no_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", processes.KEY)
    assert processes.KEY not in repr(settings("x"))


@pytest.mark.parametrize(
    "secret",
    [
        processes.KEY,
        "AKIAABCDEFGHIJKLMNOP",
        "wandb_v1_abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
    ],
)
def test_what_looks_like_a_key_is_masked(secret):
    assert secret not in mask(f"request failed with key {secret}: 401")


def test_values_of_secret_variables_are_masked(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    assert mask("login as me with hunter2hunter2, abc") == "login as me with ***, abc"
    assert mask("s3://user:secret@host/x") == "s3://***@host/x"

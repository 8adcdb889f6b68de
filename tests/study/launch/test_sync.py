"""Publishing from the ledger, against a W&B server on this machine that keeps every line it is sent."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from study import wandb_access
from study.__main__ import cli
from study.errors import LockedError, PublishError, UserError
from study.launch import sync
from study.ledger import lock
from study.ledger.ledger import Ledger
from study.ledger.records import METRICS
from study.ledger.storage import Storage
from tests import examples, processes, synthetic

STATES = {("b", 0.01, 0): "failed", ("b", 0.01, 1): "diverged", ("b", 0.03, 0): "missing"}
MODELS = {"a": synthetic.Truth(2.2, 2.0, 0.25), "b": synthetic.Truth(2.0, 2.0, 0.25)}
RUNS = 11


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A study of 12 planned runs: 9 have finished, one diverged, one failed, one is missing."""
    options = dict(seeds=2, epochs=4, n_test=60, n_val=40, shape=(2, 2), states=STATES)
    return synthetic.write(tmp_path_factory.mktemp("sync"), MODELS, **options)


def told(command, folder, *overrides):
    """What a command says, and its exit code."""
    text = io.StringIO()
    code = command(str(folder), overrides, Console(file=text, width=400))
    return code, text.getvalue()


def assert_published(server, folder):
    """The server has exactly what the ledger has, each epoch once."""
    records, _ = Ledger(Storage(folder)).records()
    assert set(server.runs) == {f"synthetic-{run_id}" for run_id in records}
    for run_id, record in records.items():
        run = server.runs[f"synthetic-{run_id}"]
        assert [row["_step"] for row in run.rows] == list(range(1, record.n_epochs + 1))
        for name in METRICS:
            assert tuple(row[name.replace("_", "/", 1)] for row in run.rows) == record.epochs[name]
        assert run.summary["state"] == record.state
        assert run.exit_code == (1 if record.state == "failed" else 0)
    assert server.unknown == []


@pytest.mark.slow
def test_everything_is_published_once_and_completed_from_any_point(server, ledger):
    code, output = told(sync.check, ledger)
    assert (code, f"synthetic: {RUNS} of {RUNS} runs differ" in output) == (1, True)
    code, output = told(sync.sync, ledger)
    assert (code, f"W&B has {RUNS} of {RUNS} runs\n" in output) == (0, True)
    assert f"W&B: {server.url}/me/lenet5-vs-mlp\n" in output
    assert_published(server, ledger)
    server.log.clear()
    assert told(sync.sync, ledger)[0] == 0
    assert {"UpsertBucket", "file_stream"}.isdisjoint(server.log), "nothing is sent twice"
    assert told(sync.check, ledger)[0] == 0
    # What a run may be left as: with no more than its beginning, without its end, or not at all.
    shortened, unended, gone, begun = [run for run in server.runs.values() if len(run.rows) == 4][:4]
    whole = dict(shortened.summary)
    shortened.lines, shortened.summary = shortened.lines[:2], {"_step": 2, "epoch": 2}
    unended.summary, unended.state = {"_step": 4}, "running"
    del server.runs[gone.name]
    # Its summary came further than its history.
    begun.lines = begun.lines[:1]
    code, output = told(sync.check, ledger)
    assert (code, "synthetic: 4 of 11 runs differ" in output) == (1, True)
    assert re.search(rf"{shortened.name} .*: epochs missing on W&B: 3, 4\n", output)
    assert re.search(rf"{gone.name} .*: W&B does not have it\n", output)
    assert told(sync.sync, ledger)[0] == 0
    assert_published(server, ledger)
    times = ("_runtime", "_timestamp", "_wandb")
    best = {name for name in whole if "/" in name and not name.startswith("final/")} | set(times)
    assert {k: v for k, v in shortened.summary.items() if k not in best} == {
        k: v for k, v in whole.items() if k not in best
    }


@pytest.mark.slow
def test_what_is_no_beginning_of_the_ledger_is_reported_and_left_alone(server, ledger):
    assert told(sync.sync, ledger)[0] == 0
    altered, doubled, longer = [run for run in server.runs.values() if len(run.rows) == 4][:3]
    row = json.loads(altered.lines[1])
    row["val/loss"] += 1e-12
    altered.lines[1] = json.dumps(row)
    doubled.lines.append(doubled.lines[-1])
    longer.lines.append(json.dumps(json.loads(longer.lines[-1]) | {"_step": 5, "epoch": 5}))
    altered.state = "running"
    before = {run.name: list(run.lines) for run in server.runs.values()}
    code, output = told(sync.check, ledger)
    assert (code, "synthetic: 3 of 11 runs differ" in output) == (1, True)
    assert re.search(rf"{altered.name} .*: epoch 2: val/loss: \S+ in the ledger, \S+ on W&B\n", output)
    assert re.search(rf"{doubled.name} .*: epoch 4: 2 times on W&B\n", output)
    assert re.search(rf"{longer.name} .*: epochs that the ledger does not have: 5\n", output)
    code, output = told(sync.sync, ledger)
    assert (code, "W&B has 8 of 11 runs; the others are in the ledger" in output) == (1, True)
    assert f"{altered.name}: left as it is, since W&B has something else: epoch 2: val/loss" in output
    assert {run.name: run.lines for run in server.runs.values()} == before


@pytest.mark.slow
def test_interrupted_anywhere_it_goes_on(server, ledger):
    """Killed after one, four and seven runs have been begun: what was sent is not sent again."""
    command = [sys.executable, "-m", "study", "sync", str(ledger)]
    for begun, number in ((1, signal.SIGKILL), (4, signal.SIGTERM), (7, signal.SIGKILL)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        processes.until(lambda begun=begun: len(server.runs) >= begun, "a run to begin")
        process.send_signal(number)
        output, _ = process.communicate(timeout=processes.PATIENCE)
        assert b"Traceback" not in output, output
    assert told(sync.sync, ledger)[0] == 0
    assert_published(server, ledger)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (dict(status=500), "500|no answer in time"),
        (dict(status=429), "429|no answer in time"),
        (dict(cut=True), "EOF"),
        (dict(delay=5), "no answer in time|deadline exceeded"),
    ],
    ids=["500", "429", "cut", "slow"],
)
def test_a_server_that_fails_is_one_line_and_soon_said(server, ledger, fault, why):
    for name, value in fault.items():
        setattr(server, name, value)
    began = time.monotonic()
    with pytest.raises(PublishError, match=f"W&B: 127.0.0.1:{server.port} does not answer .*({why})"):
        told(sync.sync, ledger)
    assert time.monotonic() - began < 45
    assert server.runs == {}


@pytest.mark.slow
def test_a_server_that_asks_for_patience_is_given_it(server, ledger, monkeypatch):
    """Refusals that pass are waited for, and nothing is lost or doubled by them."""
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "20")
    server.refuse_every = 9
    code, output = told(sync.sync, ledger)
    assert code == 0, output
    server.refuse_every = 0
    assert_published(server, ledger)


MISTAKES = [
    ("nothing", {}, "holds no study yet"),
    ("ledger", {"WANDB_API_KEY": "", "NETRC": "/nonexistent"}, "W&B: found no key for 127.0.0.1:"),
    ("ledger", {"WANDB_API_KEY": "short"}, "does not take the key"),
]


@pytest.mark.parametrize(("folder", "environ", "message"), MISTAKES)
def test_a_mistake_is_one_line(server, ledger, tmp_path, monkeypatch, folder, environ, message):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        told(sync.sync, ledger if folder == "ledger" else tmp_path)


@pytest.mark.slow
def test_whom_the_server_refuses_is_told_why(server, ledger, tmp_path):
    study = json.loads((ledger / "study.json").read_bytes())
    elsewhere = tmp_path / "synthetic"
    shutil.copytree(ledger, elsewhere)
    study["launches"][-1]["config"]["wandb"]["entity"] = "nobody"
    (elsewhere / "study.json").write_text(json.dumps(study))
    with pytest.raises(UserError, match=r"wandb.project: found nobody/lenet5-vs-mlp: .*entity nobody not found"):
        told(sync.sync, elsewhere)
    server.read_only.add("me")
    wandb_access.end()
    with pytest.raises(UserError, match=r"wandb.project: found lenet5-vs-mlp: .*permission denied"):
        told(sync.sync, ledger)


@pytest.mark.slow
def test_the_project_of_another_study_is_not_mixed_with_this_one(server, ledger, tmp_path):
    other = synthetic.write(tmp_path, {"c": MODELS["a"]}, seeds=1, epochs=1, n_test=20, n_val=20, shape=(2, 2))
    assert told(sync.sync, other)[0] == 0
    before = set(server.runs)
    with pytest.raises(UserError, match="holds another study 'synthetic', whose runs are not in this ledger"):
        told(sync.sync, ledger)
    assert set(server.runs) == before


def test_a_study_that_is_training_publishes_by_itself(server, ledger, tmp_path):
    copy = tmp_path / "synthetic"
    shutil.copytree(ledger, copy)
    with lock.Lock(Storage(copy)), pytest.raises(LockedError, match="it publishes at its end"):
        told(sync.sync, copy)


def test_check_is_an_option_of_sync(server, ledger, monkeypatch):
    called = []
    monkeypatch.setattr(sync, "sync", lambda *given: called.append("sync") or 0)
    monkeypatch.setattr(sync, "check", lambda *given: called.append("check") or 1)
    monkeypatch.setattr("study.__main__._analyse", lambda *given: called.append(given[1]) or 0)
    assert [cli(["sync", str(ledger), *more], standalone_mode=False) for more in ([], ["--check"])] == [0, 1]
    assert called == ["sync", "--wandb", "check"]


ROWS = [{"epoch": epoch, **{name.replace("_", "/", 1): 0.5 for name in METRICS}} for epoch in (1, 2)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS, []),
        (ROWS[:1], ["epochs missing on W&B: 2"]),
        ([], ["epochs missing on W&B: 1, 2"]),
        ([*ROWS, ROWS[1]], ["epoch 2: 2 times on W&B"]),
        ([*ROWS, ROWS[1] | {"epoch": 3}], ["epochs that the ledger does not have: 3"]),
        ([ROWS[0], ROWS[1] | {"val/loss": 0.4}], ["epoch 2: val/loss: 0.5 in the ledger, 0.4 on W&B"]),
        ([ROWS[0], ROWS[1] | {"val/loss": "NaN"}], ["epoch 2: val/loss: 0.5 in the ledger, NaN on W&B"]),
    ],
)
def test_every_difference_is_named(rows, expected):
    assert sync.differences(examples.record(), rows) == expected

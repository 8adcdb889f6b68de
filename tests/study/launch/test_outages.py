"""A launch whose W&B server fails in every way, before it begins or after the first pack. Ray is left out: packs are
trained in this process, one after another, by what a worker does with each.
"""

import contextlib
import io
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import wandb
from rich.console import Console

from study import config_file, wandb_access
from study.launch import cluster, messages, ray_tune, session, sync, tracking
from study.ledger.ledger import Ledger
from study.ledger.records import METRICS
from study.ledger.storage import Storage
from tests import processes

pytestmark = pytest.mark.slow
RUNS = 4

FAULTS = {
    "refuses": lambda server: server.die(),
    "500": lambda server: setattr(server, "status", 500),
    "429": lambda server: setattr(server, "status", 429),
    "slow": lambda server: setattr(server, "delay", 10),
    "cut": lambda server: setattr(server, "cut", True),
}


@pytest.fixture(autouse=True)
def worker(monkeypatch):
    """A worker that has not logged yet, and has little patience."""
    monkeypatch.setattr(tracking, "_worker", tracking._Worker())
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 1.0)


def config(folder, mode):
    return processes.config(folder / "x", models=["mlp_matched"], wandb={"mode": mode})


def launch(monkeypatch, path, after_first=lambda: None):
    """Run the study of a config as the command does; its exit code, what it said, and for how long packs waited."""

    def train(queues, watch):
        (queue,) = queues
        for index, pack in enumerate(queue.packs):
            queue.train(pack, queue.data, lambda message, index=index: queue.recorder.receive(index, message))
            if index == 0:
                after_first()
        # Here the process of the worker ends, and with it all that it has not sent.
        ended = threading.Event()
        tracking._worker.do(ended.set)
        assert ended.wait(60)
        wandb_access.end()

    monkeypatch.setattr(cluster, "connected", lambda *_, **__: contextlib.nullcontext(None))
    monkeypatch.setattr(cluster, "lack", lambda *_: None)
    monkeypatch.setattr(ray_tune, "launch", train)
    text = io.StringIO()
    code = session.run([config_file.load(path)], Console(file=text, width=400), session.Options(again="again"))
    return code, text.getvalue()


def heal(server):
    if server._listening is None:
        server.come_back()
    server.status, server.delay, server.cut = 200, 0, False


def assert_mirrored(server, folder):
    records, _ = Ledger(Storage(folder)).records()
    assert len(records) == RUNS
    assert set(server.runs) == {f"small-{run_id}" for run_id in records}
    for run_id, record in records.items():
        run = server.runs[f"small-{run_id}"]
        assert [row["_step"] for row in run.rows] == [1, 2, 3]
        for name in METRICS:
            assert tuple(row[name.replace("_", "/", 1)] for row in run.rows) == record.epochs[name]
        assert (run.state, run.summary["state"]) == ("finished", "finished")


@pytest.mark.parametrize(
    ("fault", "when"),
    [*((fault, "before") for fault in FAULTS), ("refuses", "midway"), ("500", "midway"), ("cut", "midway")],
)
def test_training_goes_on_and_one_command_publishes_the_rest(server, tmp_path, monkeypatch, fault, when):
    path = config(tmp_path, "online")
    folder = tmp_path / "x" / "storage" / "small"
    if when == "before":
        FAULTS[fault](server)
        code, output = launch(monkeypatch, path)
    else:
        code, output = launch(monkeypatch, path, lambda: FAULTS[fault](server))
    assert code == 0, output
    assert tracking._worker.waited < 2 * tracking.PATIENCE_SECONDS
    found = re.search(rf"W&B has (\d) of {RUNS} runs.* python -m study sync {folder}\n", output)
    assert found, output
    assert int(found[1]) == 0 if when == "before" else int(found[1]) <= 2
    assert f"{tmp_path}/wandb" in output
    wandb_access.end()
    heal(server)
    for _ in range(2):
        text = io.StringIO()
        assert sync.sync(str(folder), (), Console(file=text, width=400)) == 0, text.getvalue()
        assert f"W&B has {RUNS} of {RUNS} runs\n" in text.getvalue()
        assert_mirrored(server, folder)
    assert sync.check(str(folder), (), Console(file=text)) == 0


def test_what_stops_a_launch_leaves_the_count_and_the_command(server, tmp_path, monkeypatch):
    """Ctrl-C, SIGTERM and a storage that refuses: nothing is published then, and that is said."""
    path = config(tmp_path, "online")
    folder = tmp_path / "x" / "storage" / "small"
    # The server is well: what its worker's patience is does not matter here.
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 60.0)

    def stop(queues, watch):
        (queue,) = queues
        pack = queue.packs[0]
        queue.train(pack, queue.data, lambda message: queue.recorder.receive(0, message))
        del server.runs[f"small-{pack.runs[0].run_id}"]
        raise ray_tune.Interrupted("SIGTERM")

    def refuse(queues, watch):
        queues[0].recorder.receive(0, messages.Stopped("no room"))

    monkeypatch.setattr(cluster, "connected", lambda *_, **__: contextlib.nullcontext(None))
    monkeypatch.setattr(cluster, "lack", lambda *_: None)
    for train, expected in ((stop, 130), (refuse, 3)):
        monkeypatch.setattr(ray_tune, "launch", train)
        text = io.StringIO()
        code = session.run([config_file.load(path)], Console(file=text, width=400), session.Options(again="again"))
        assert code == expected, text.getvalue()
        assert f"W&B has 1 of 2 runs; the others are in the ledger, {folder}" in text.getvalue()
        assert f"python -m study sync {folder}\n" in text.getvalue()
    assert len(server.runs) == 1


def test_offline_says_where_the_runs_are(server, tmp_path, monkeypatch):
    path = config(tmp_path, "offline")
    began = time.monotonic()
    code, output = launch(monkeypatch, path)
    assert (code, time.monotonic() - began < 60) == (0, True)
    assert f"W&B: offline; its files: {tmp_path}/wandb\n" in output
    assert (
        f"W&B has 0 of {RUNS} runs, being offline; the others are in the ledger, {tmp_path}/x/storage/small" in output
    )
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == RUNS
    assert server.requests == 0


def test_wandb_itself_publishes_the_offline_files_and_reads_the_same(server, tmp_path, monkeypatch):
    """Its own `wandb sync` and public API, as a second reader of what we and the server of these tests make of W&B."""
    code, output = launch(monkeypatch, config(tmp_path, "offline"))
    assert code == 0, output
    files = sorted(map(str, (tmp_path / "wandb").glob("offline-run-*")))
    command = [str(Path(sys.executable).parent / "wandb"), "sync", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "x" / "storage" / "small"
    assert_mirrored(server, folder)
    records, _ = Ledger(Storage(folder)).records()
    runs = {run.id: run for run in wandb.Api(timeout=10).runs("me/lenet5-vs-mlp", lazy=False)}
    assert set(runs) == {f"small-{run_id}" for run_id in records}
    for run_id, record in records.items():
        run = runs[f"small-{run_id}"]
        rows = list(run.scan_history(use_cache=False))
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        for name in METRICS:
            section = name.replace("_", "/", 1)
            assert tuple(row[section] for row in rows) == record.epochs[name]
            assert run.summary[f"final/{name}"] == record.final[name]
            assert run.summary[section]["last"] == record.epochs[name][-1]
        assert run.config["learning_rate"] == record.run.learning_rate
        assert run.config["provenance/node"] == record.provenance.node
        assert run.job_type == record.run.model
        assert run.state == "finished"
    # What W&B has by its own command, ours finds complete.
    text = io.StringIO()
    assert sync.check(str(folder), (), Console(file=text)) == 0, text.getvalue()
    assert sync.sync(str(folder), (), Console(file=text)) == 0
    assert_mirrored(server, folder)


def test_a_key_from_netrc_logs_online_and_is_written_nowhere(server, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    netrc = tmp_path / "home" / "netrc"
    netrc.parent.mkdir()
    netrc.write_text(f"machine 127.0.0.1:{server.port}\n  login user\n  password {processes.KEY}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    code, output = launch(monkeypatch, config(tmp_path, "auto"))
    assert code == 0, output
    assert f"W&B has {RUNS} of {RUNS} runs\n" in output
    assert processes.KEY not in output
    assert_mirrored(server, tmp_path / "x" / "storage" / "small")
    assert list((tmp_path / "wandb").rglob("*.wandb"))
    assert processes.leaks(tmp_path) == [netrc]

"""Studies that log to a W&B server on this machine: in order, slow, out of order, and with workers killed."""

import json
from pathlib import Path

import pytest

from study.ledger.records import METRICS
from tests import processes, wandb_server

pytestmark = pytest.mark.slow


def environment(server):
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": processes.KEY, "WANDB_INIT_TIMEOUT": "5"}


def assert_mirrored(server, folder):
    """The server has every epoch of every run, once, with the ledger's numbers, and each run's end."""
    records = [json.loads(path.read_bytes()) for path in (folder / "runs").iterdir()]
    assert set(server.history) == {f"small-{record['run_id']}" for record in records}
    for record in records:
        rows = server.history[f"small-{record['run_id']}"]
        epochs = len(record["epochs"]["val_loss"])
        assert sorted(rows) == list(range(1, epochs + 1))
        for name in METRICS:
            assert [rows[epoch + 1][name] for epoch in range(epochs)] == record["epochs"][name]
    assert server.ended == dict.fromkeys(server.history, 0)


def test_every_epoch_reaches_the_server(undisturbed, place):
    with wandb_server.serve() as server:
        path = processes.config(place, wandb={"mode": "auto"})
        files = place / "files"
        files.mkdir()
        code, output = processes.run("run", path, **environment(server), TMPDIR=str(files))
    assert code == 0, output
    assert "offline" not in output
    assert processes.KEY not in output
    assert list(files.rglob("run-*.wandb"))
    assert processes.leaks(place, Path(processes.ray().head_node.get_session_dir_path())) == []
    folder = place / "storage" / "small"
    processes.assert_same(folder, undisturbed)
    assert_mirrored(server, folder)


def test_a_killed_worker_leaves_no_hole_on_the_server(longer, place):
    folder = place / "storage" / "small"
    with wandb_server.serve() as server:
        process = processes.start(
            "run", processes.config(place, wandb={"mode": "online"}, **processes.LONGER), **environment(server)
        )
        for _ in range(2):
            before = processes.durable(folder)
            processes.until(
                lambda before=before: processes.durable(folder) - before and processes.workers(), 60, "an epoch"
            )
            processes.workers()[0].kill()
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    processes.assert_same(folder, longer)
    assert_mirrored(server, folder)


@pytest.mark.parametrize(("status", "delay"), [(500, 0), (200, 30), (0, 0)], ids=["answers 500", "slow", "not there"])
def test_a_server_out_of_order_costs_no_run_and_little_time(undisturbed, place, status, delay):
    path = processes.config(place, wandb={"mode": "online"})
    with wandb_server.serve(status, delay) as server:
        if not status:
            server.server_close()
        code, output = processes.run("run", path, **environment(server))
        assert (server.requests > 0) == (status > 0)
    assert code == 0, output
    assert "W&B: the server does not answer" in output
    assert "logged offline" in output
    assert "Traceback" not in output
    assert processes.KEY not in output
    processes.assert_same(place / "storage" / "small", undisturbed)


def test_a_server_that_fails_midway_costs_no_run(longer, place):
    folder = place / "storage" / "small"
    with wandb_server.serve() as server:
        process = processes.start(
            "run", processes.config(place, wandb={"mode": "online"}, **processes.LONGER), **environment(server)
        )
        processes.until(lambda: any(server.history.values()), 120, "the first epoch on the server")
        server.status = 500
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    processes.assert_same(folder, longer)

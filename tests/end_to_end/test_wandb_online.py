"""Studies that log to a W&B server on this machine: in order, slow, out of order, away, and with workers killed.

Whatever happens, training ends as if nothing had, the launch says how many runs W&B has, and one command later W&B has
the ledger.
"""

import json
import re
import signal
from pathlib import Path

import pytest

from study.ledger.ledger import Ledger
from study.ledger.records import METRICS
from study.ledger.storage import Storage
from tests import processes, wandb_server

pytestmark = pytest.mark.slow

RUNS = 8
"""Of the small study."""


def environment(server, place, **changes):
    own = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": processes.KEY, "WANDB_INIT_TIMEOUT": "3"}
    return own | {"WANDB_DIR": str(place / "logged")} | changes


def assert_mirrored(server, folder):
    """The server has every epoch of every run, once and in order, with the ledger's numbers, and each run's end."""
    records = [json.loads(path.read_bytes()) for path in (folder / "runs").iterdir()]
    assert set(server.runs) - {"small-study"} == {f"small-{record['run_id']}" for record in records}
    for record in records:
        run = server.runs[f"small-{record['run_id']}"]
        epochs = len(record["epochs"]["val_loss"])
        assert [row["_step"] for row in run.rows] == list(range(1, epochs + 1))
        assert [row["epoch"] for row in run.rows] == list(range(1, epochs + 1))
        for name in METRICS:
            assert [row[name.replace("_", "/", 1)] for row in run.rows] == record["epochs"][name]
            assert run.summary[f"final/{name}"] == record["final"][name]
        assert (run.state, run.exit_code, run.summary["state"]) == ("finished", 0, "finished")
        assert run.about["program"] == "study/__main__.py"
        assert run.about["host"] == record["provenance"]["node"]
    assert server.unknown == []


def command(output, folder):
    """What a launch says at its end: how many runs W&B has, and the command that publishes the others."""
    found = re.search(rf"W&B has (\d+) of (\d+) runs.*python -m (study sync {folder})\n", output)
    assert found, output
    assert f"{folder.parent.parent}/logged/wandb" in output
    return int(found[1]), int(found[2]), found[3].split()[1:]


def test_every_epoch_reaches_the_server(undisturbed, place):
    with wandb_server.serve() as server:
        path = processes.config(place, wandb={"mode": "auto"})
        own = environment(server, place)
        code, output = processes.run("run", path, **own)
        assert code == 0, output
        assert "offline" not in output
        assert f"W&B has {RUNS} of {RUNS} runs\n" in output
        assert f"W&B: {server.url}/me/lenet5-vs-mlp\n" in output
        assert output.count(f"{server.url}/me/lenet5-vs-mlp/runs/small-") == RUNS
        assert processes.KEY not in output
        assert list(place.rglob("run-*.wandb"))
        assert processes.leaks(place, Path(processes.ray().head_node.get_session_dir_path())) == []
        folder = place / "storage" / "small"
        assert Ledger(Storage(folder)).published() == f"{server.url}/me/lenet5-vs-mlp"
        processes.assert_same(folder, undisturbed)
        assert_mirrored(server, folder)
        # Nothing is published twice.
        lines = {name: list(run.lines) for name, run in server.runs.items()}
        code, output = processes.run("run", path, **own)
        assert (code, f"W&B has {RUNS} of {RUNS} runs\n" in output) == (0, True), output
        assert {name: run.lines for name, run in server.runs.items()} == lines


def test_a_killed_worker_leaves_no_hole_on_the_server(longer, place):
    folder = place / "storage" / "small"
    with wandb_server.serve() as server:
        process = processes.start(
            "run", processes.config(place, wandb={"mode": "online"}, **processes.LONGER), **environment(server, place)
        )
        for _ in range(2):
            before = processes.durable(folder)
            processes.until(
                lambda before=before: processes.durable(folder) - before and processes.workers(), "an epoch"
            )
            processes.workers()[0].kill()
        output, _ = process.communicate(timeout=processes.PATIENCE)
    assert process.returncode == 0, output
    processes.assert_same(folder, longer)
    assert_mirrored(server, folder)


def refuse(server):
    server.die()


def out_of_order(server):
    server.status = 500


def heal(server, fault):
    if fault is refuse:
        server.come_back()
    server.status = 200


@pytest.mark.parametrize("fault", [refuse, out_of_order])
def test_a_server_out_of_order_costs_no_run(undisturbed, place, fault):
    path = processes.config(place, wandb={"mode": "online"})
    folder = place / "storage" / "small"
    with wandb_server.serve() as server:
        fault(server)
        code, output = processes.run("run", path, **environment(server, place))
        assert code == 0, output
        assert "Traceback" not in output
        assert processes.KEY not in output
        processes.assert_same(folder, undisturbed)
        has, of, sync = command(output, folder)
        assert (has, of) == (0, RUNS)
        heal(server, fault)
        # From any machine: the workers' files are not needed.
        code, output = processes.run(*sync, **environment(server, place / "elsewhere"))
        assert (code, f"W&B has {RUNS} of {RUNS} runs\n" in output) == (0, True), output
        assert_mirrored(server, folder)


@pytest.mark.parametrize("fault", [refuse])
def test_a_server_lost_midway_costs_no_run(longer, place, fault):
    folder = place / "storage" / "small"
    with wandb_server.serve() as server:
        process = processes.start(
            "run", processes.config(place, wandb={"mode": "online"}, **processes.LONGER), **environment(server, place)
        )
        processes.until(lambda: any(server.history.values()), "the first epoch on the server")
        fault(server)
        output, _ = process.communicate(timeout=processes.PATIENCE)
        assert process.returncode == 0, output
        assert "Traceback" not in output
        processes.assert_same(folder, longer)
        has, of, sync = command(output, folder)
        assert has < of == RUNS
        heal(server, fault)
        code, output = processes.run(*sync, **environment(server, place))
        assert code == 0, output
        assert_mirrored(server, folder)
        code, output = processes.run(*sync, "--check", **environment(server, place))
        assert (code, f"small: W&B equals the ledger in all {RUNS} runs\n" in output) == (0, True), output


def test_an_interrupted_study_says_what_w_and_b_has_and_goes_on_there(longer, place):
    path = processes.config(place, wandb={"mode": "online"}, launch={"workers": 1}, **processes.LONGER)
    folder = place / "storage" / "small"
    with wandb_server.serve() as server:
        own = environment(server, place)
        process = processes.start("run", path, **own)
        processes.until(lambda: len(list(folder.glob("runs/*.json"))) >= 2, "a pack's end")
        code, output, _ = processes.stop(process, signal.SIGTERM)
        assert code == 130, output
        has, of = map(int, re.search(r"W&B has (\d+) of (\d+) runs", output).groups())
        assert has <= of < RUNS
        if has < of:
            command(output, folder)
        code, output = processes.run("run", path, **own)
        assert code == 0, output
        assert f"W&B has {RUNS} of {RUNS} runs\n" in output
        processes.assert_same_records(folder, longer)
        assert_mirrored(server, folder)

"""Real processes are killed: what a study promises then. See README, "Reliability"; disks: test_full_disk.py."""

import json
import random
import signal
import time

import psutil
import pytest

from tests import processes

pytestmark = pytest.mark.slow


def test_a_second_run_trains_nothing_and_says_so(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()}
    code, output = processes.run("run", undisturbed.parent.parent / "small.yaml")
    assert code == 0
    assert "all 8 runs have a record; nothing to train" in output
    assert {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()} == before


def test_the_same_study_again_by_one_worker_is_the_same_bytes(undisturbed, place):
    """The undisturbed one had two, each reused for two packs."""
    code, output = processes.run("run", processes.config(place, launch={"workers": 1}))
    assert code == 0, output
    processes.assert_same(place / "storage" / "small", undisturbed)


def test_fresh_workers_give_the_bytes_of_reused_ones(undisturbed, place):
    """Two packs by two fresh workers, then two more by another two."""
    for seeds in (1, 2):
        code, output = processes.run("run", processes.config(place, seeds=seeds))
        assert code == 0, output
        assert "4 of " in output
    processes.assert_same_records(place / "storage" / "small", undisturbed)


def test_a_killed_worker_costs_nothing(longer, place):
    process = processes.start("run", processes.config(place, **processes.LONGER))
    folder = place / "storage" / "small"
    for checkpoint in ("kept", "kept", "lost"):
        before = processes.durable(folder)
        processes.until(lambda before=before: processes.durable(folder) - before and processes.workers(), "an epoch")
        training = processes.workers()
        if checkpoint == "lost":
            # As where a node goes, and with it what it alone had stored.
            for worker in training:
                worker.suspend()
            for path in folder.glob("checkpoints/*.pt"):
                path.unlink()
        training[0].kill()
        for worker in training[1:]:
            worker.resume()
    output, _ = process.communicate(timeout=processes.PATIENCE)
    assert process.returncode == 0, output
    assert "its worker died; started again" in output
    assert "(raylet)" not in output, "said once, by us"
    processes.assert_same(folder, longer)
    attempts = [json.loads(p.read_bytes())["provenance"]["attempts"] for p in (folder / "runs").iterdir()]
    assert max(attempts) > 1


def test_the_death_of_ray_itself_ends_the_driver_and_loses_nothing(longer, place):
    path = processes.config(place, **processes.LONGER)
    folder = place / "storage" / "small"
    process = processes.start("run", path, own_ray=True)
    processes.until(lambda: processes.durable(folder), "an epoch")
    (raylet,) = [child for child in psutil.Process(process.pid).children() if child.name() == "raylet"]
    raylet.kill()
    output, _ = process.communicate(timeout=processes.PATIENCE)
    assert process.returncode == 130, output
    assert "stopped by the death of Ray on this machine; every ended run is kept" in output
    assert "(raylet)" not in output, "said once, by us"
    code, output = processes.run("run", path)
    assert code == 0, output
    processes.assert_same(folder, longer)


def test_an_interrupted_study_stops_soon_and_goes_on(longer, place):
    path = processes.config(place, **processes.LONGER)
    folder = place / "storage" / "small"
    for number, own_ray in ((signal.SIGINT, True), (signal.SIGTERM, False)):
        before = processes.durable(folder)
        process = processes.start("run", path, own_ray=own_ray)
        processes.until(lambda before=before: processes.durable(folder) - before, "an epoch")
        code, output, seconds = processes.stop(process, number)
        assert code == 130, output
        assert f"stopped by {number.name}" in output
        assert f"to go on: python -m study run {path}" in output
        assert "Traceback" not in output
        assert seconds < 60
        assert not (folder / "driver.lock").exists()
    code, output = processes.run("run", path)
    assert code == 0, output
    processes.assert_same(folder, longer)


def test_a_second_driver_is_refused_and_takes_over_once_the_first_is_dead(longer, place):
    path = processes.config(place, **processes.LONGER)
    folder = place / "storage" / "small"
    process = processes.start("run", path)
    try:
        processes.until(lambda: processes.durable(folder), "an epoch")
        code, output = processes.run("run", path)
        assert code == 4
        assert output.count("\n") == 1
        assert f"held by another driver, process {process.pid} on " in output
    finally:
        # Its workers are left to notice, beside those of the next driver.
        processes.kill(process, wait=False)
    assert (folder / "driver.lock").exists(), "a killed driver leaves its lock"
    code, output = processes.run("run", path)
    assert code == 0, output
    processes.assert_same(folder, longer)


def test_unusable_checkpoints_are_reported_and_trained_again(longer, place):
    path = processes.config(place, **processes.LONGER)
    folder = place / "storage" / "small"
    process = processes.start("run", path)
    processes.until(lambda: len(list(folder.glob("checkpoints/*.pt"))) == 2, "two checkpoints")
    processes.kill(process)
    torn, foreign = sorted(folder.glob("checkpoints/*.pt"))
    content = torn.read_bytes()
    foreign.write_bytes(content)
    torn.write_bytes(content[:-100])
    torn.with_name(".writing-half").write_bytes(content[:-100])
    code, output = processes.run("run", path)
    assert code == 0, output
    assert f"{torn}: torn or no checkpoint; its pack is trained from the start" in output
    assert f"{foreign}: belongs to other runs; its pack is trained from the start" in output
    processes.assert_same(folder, longer)


def test_growing_a_study_trains_only_what_is_new_and_mixes_no_recipes(undisturbed, place):
    path = processes.config(place, seeds=1, learning_rates=[0.01])
    assert processes.run("run", path)[0] == 0
    folder = place / "storage" / "small"
    before = {p: p.read_bytes() for p in (folder / "runs").iterdir()}
    code, output = processes.run("run", path, "seeds=2", "learning_rates=[0.01, 0.03]")
    assert code == 0, output
    assert "6 of 8 runs" in output
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(processes.results(folder)) == sorted(processes.results(undisturbed))
    code, output = processes.run("run", path, "training.batch_size=64")
    assert code == 2
    assert "batch_size: 32 before, 64 now" in output
    assert "--mix-recipes" in output
    code, output = processes.run("run", path, "training.batch_size=64", "--mix-recipes")
    assert code == 0, output
    assert len(list((folder / "runs").iterdir())) == 8 + 2


MODELS = """
import os, torch
from torch import nn

class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        if os.path.exists({flag!r}):
            raise RuntimeError("broken on purpose, with the key " + os.environ.get("WANDB_API_KEY", "none"))
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        return self.layer(torch.flatten(x, 1))
"""


def test_a_failing_model_is_recorded_and_the_study_goes_on(place, undisturbed):
    flag = place / "broken"
    (place / "mymodels.py").write_text(MODELS.format(flag=str(flag)))
    path = processes.config(place, models=["mymodels:Fails", "mlp_matched"], seeds=1, launch={"max_failures": 1})
    changes = {"PYTHONPATH": f"{processes.ROOT}:{place}", "WANDB_API_KEY": processes.KEY}
    # The plan is made while the model works; its training then fails.
    process = processes.start("run", path, own_ray=True, **changes)
    processes.until((place / "storage" / "small" / "study.json").exists, "the plan")
    flag.touch()
    output, _ = process.communicate(timeout=processes.PATIENCE)
    assert process.returncode == 1, output
    assert "2 finished, 2 failed, of 4 runs planned" in output
    assert "broken on purpose" in output
    records = [json.loads(p.read_bytes()) for p in (place / "storage" / "small" / "runs").iterdir()]
    errors = [r["provenance"]["error"] for r in records if r["state"] == "failed"]
    assert len(errors) == 2
    assert all("broken on purpose" in e for e in errors)
    leaks = [p for p in place.rglob("*") if p.is_file() and processes.KEY.encode() in p.read_bytes()]
    assert leaks == []
    assert processes.KEY not in output
    code, output = processes.run("run", path, own_ray=True, **changes)
    assert code == 2
    assert output.startswith(f"error: {path}: models: 'mymodels:Fails' cannot be made: RuntimeError: broken on purpose")
    assert output.count("\n") == 1
    flag.unlink()
    code, output = processes.run("run", path, own_ray=True, **changes)
    assert code == 1
    assert "nothing to train" in output
    code, output = processes.run("run", path, "--retry-failed", own_ray=True, **changes)
    assert code == 0, output
    assert "4 finished, of 4 runs planned" in output


def test_a_pack_whose_worker_always_dies_fails_and_the_rest_goes_on(place, undisturbed):
    flag = place / "broken"
    source = MODELS.format(flag=str(flag)).replace("raise RuntimeError", "os._exit(9) or RuntimeError")
    (place / "mymodels.py").write_text(source)
    path = processes.config(place, models=["mymodels:Fails", "mlp_matched"], seeds=1)
    process = processes.start("run", path, own_ray=True, PYTHONPATH=f"{processes.ROOT}:{place}")
    processes.until((place / "storage" / "small" / "study.json").exists, "the plan")
    flag.touch()
    output, _ = process.communicate(timeout=processes.PATIENCE)
    assert process.returncode == 1, output
    assert "its worker died 5 times without a new epoch" in output
    assert "2 finished, 2 failed, of 4 runs planned" in output


def test_kill_after_kill_the_ledger_is_the_undisturbed_one(place):
    """Chaos: seeded kills of worker or driver, each some moments after the next durable epoch."""
    chaos = {"models": ["lenet5"], "training": {"epochs": 100, "batch_size": 8}, "learning_rates": [0.01, 1000.0]}
    reference = place.parent / "chaos-reference"
    assert processes.run("run", processes.config(reference, **chaos))[0] == 0
    path, folder = processes.config(place, **chaos), place / "storage" / "small"
    rng = random.Random(0)
    kills = {"worker": 0, "driver": 0}
    process = processes.start("run", path, own_ray=True)
    while process.poll() is None and sum(kills.values()) < 21:
        before = processes.durable(folder)
        processes.until(lambda b=before, p=process: processes.durable(folder) - b or p.poll() is not None, "an epoch")
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            break
        if rng.random() < 0.25:
            processes.kill(process)
            kills["driver"] += 1
            process = processes.start("run", path, own_ray=True)
        elif workers := processes.workers():
            rng.choice(workers).kill()
            kills["worker"] += 1
    output, _ = process.communicate(timeout=processes.PATIENCE)
    assert process.returncode == 0, output
    assert sum(kills.values()) >= 20, kills
    assert min(kills.values()) >= 3, kills
    processes.assert_same(folder, reference / "storage" / "small")

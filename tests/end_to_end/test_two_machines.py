"""Studies on machines of their own, by the files of configs/cluster: `ray job submit`."""

import json
import secrets
import tempfile
from pathlib import Path

import pytest

from tests import machines, processes
from tests.machines import Lab
from tests.processes import ROOT

CLUSTER = ROOT / "configs" / "cluster"
LIMITS = "--num-cpus=1 --object-store-memory=200000000"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(machines.lacking() is not None, reason=f"no machines to be had here: {machines.lacking()}"),
]


@pytest.fixture
def lab():
    # Not below pytest's own: the paths of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as folder:
        lab = Lab(Path(folder))
        yield lab
        lab.stop()


def until(process, condition, what, seconds=150):
    """Wait for a condition while a process runs."""
    try:
        processes.until(lambda: condition() or process.poll() is not None, seconds, what)
        assert process.poll() is None, "it has ended"
    except AssertionError as error:
        process.kill()
        raise AssertionError(f"{error}; it printed:\n{process.communicate()[0]}") from None


def provenances(folder):
    return [json.loads(path.read_bytes())["provenance"] for path in (folder / "runs").iterdir()]


def test_a_submitted_job_is_stopped_and_submitted_again(lab, longer, place):
    head = lab.add("n1")
    token = secrets.token_hex(32)
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    config, folder = processes.config(place, **processes.LONGER), place / "storage" / "small"
    head.run("ray", "start", "--head", *LIMITS.split(), f"--dashboard-host={head.address}", **secret)
    commit = "0123456789abcdef0123456789abcdef01234567"
    address = ["--address", f"http://{head.address}:8265"]
    submit = ["ray", "job", "submit", *address, "--working-dir", ROOT, "--runtime-env", CLUSTER / "runtime_env.yaml"]
    study = ["env", f"STUDY_COMMIT={commit}-dirty", "python", "-m", "study", "run", config, "--address", "auto"]
    process = lab.laptop.start(*submit, "--submission-id", "first", "--", *study, **secret)
    try:
        until(process, lambda: list(folder.glob("checkpoints/*.pt")), "an epoch")
        lab.laptop.run("ray", "job", "stop", *address, "first", **secret)
        first, _ = process.communicate(timeout=processes.PATIENCE)
    finally:
        process.kill()
    assert "stopped by SIGTERM; every ended run is kept; to go on: python -m study run" in first
    assert not (folder / "driver.lock").exists()
    second = lab.laptop.run(*submit, "--submission-id", "second", "--", *study, timeout=240, **secret)
    assert "succeeded" in second.lower()
    processes.assert_same(folder, longer)
    told = provenances(folder)
    assert {(p["git_commit"], p["git_dirty"]) for p in told} == {(commit, True)}
    assert max(p["attempts"] for p in told) == 2, "the pack that was stopped"
    assert token not in first + second

"""Runs studies as a user does, in processes of their own, and finds their workers to kill."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster

from analysis import frames
from analysis.findings import build
from tests import idx

ROOT = Path(__file__).parent.parent
SMALL = {
    "models": ["mlp_matched", "lenet5"],
    "learning_rates": [0.01, 0.03],
    "seeds": 2,
    "training": {"epochs": 3, "batch_size": 32, "validation_size": 100},
    "launch": {"checkpoint_seconds": 0},
    "wandb": {"mode": "disabled"},
    "analysis": {"resamples": 200},
}

LONGER = {"training": {"epochs": 25, "batch_size": 8}}
"""Changes that make it take long enough to be disturbed."""

PATIENCE = 600.0
"""Seconds to wait for what takes a few on a quiet machine, before a test fails."""

KEY = "0123456789abcdef0123456789abcdef01234567"
"""A W&B key as its own check of keys accepts it; no test may find it in a file or a line of output."""


def config(folder: Path, **changes: object) -> Path:
    """Write a small study of a small dataset into `folder`; its storage is folder/storage."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder.parent / "digits"
    if not data.exists():
        idx.write(data, idx.learnable())
    tree = {"name": "small", "dataset": str(data), "storage": str(folder / "storage"), **SMALL}
    for key, value in changes.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) and key != "seeds" else value
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user who has no W&B key."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "RAY_"))}
    return kept | {"PYTHONPATH": str(ROOT)} | changes


@functools.cache
def ray() -> Cluster:
    """The Ray that studies of this test session share: starting one each would take half of the tests' time."""
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 2**29}
    with pytest.MonkeyPatch.context() as patch:
        # Tests that log in this process leave the address of their W&B service, which is none of the workers'.
        for name in set(os.environ) - set(environment()):
            patch.delenv(name)
        cluster = Cluster(initialize_head=True, head_node_args=head)
    atexit.register(cluster.shutdown)
    return cluster


def ray_address() -> str:
    """Where a driver finds it."""
    return ray().address


def start(*arguments: object, own_ray: bool = False, **changes: str) -> subprocess.Popen[str]:
    """Start `python -m study …` in a session of its own, so that a signal reaches it alone.

    What it trains, it trains on the Ray of this test session, unless it is to start its own, as users do.
    """
    command = [sys.executable, "-m", "study", *map(str, arguments)]
    if arguments[0] == "run" and not own_ray and "--address" not in arguments:
        command += ["--address", ray_address()]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**changes),
        start_new_session=True,
    )


def run(*arguments: object, timeout: float = PATIENCE, own_ray: bool = False, **changes: str) -> tuple[int, str]:
    """Run `python -m study …` to its end: exit code and everything it printed."""
    process = start(*arguments, own_ray=own_ray, **changes)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        kill(process)
        output = (error.output or b"").decode()
        raise AssertionError(f"still running after {timeout} s; it printed:\n{output}") from None
    return process.returncode, output


def kill(process: subprocess.Popen[str], wait: bool = True) -> None:
    """SIGKILL a driver, `wait` until its workers have noticed, and end the Ray that it had started."""
    family, training = psutil.Process(process.pid).children(recursive=True), workers()
    process.kill()
    process.wait()
    process.stdout.close()
    if not wait:
        return
    assert psutil.wait_procs(training, PATIENCE)[1] == [], "the killed driver's workers go on"
    for other in family:
        # Ray's agents would take a minute to notice.
        with contextlib.suppress(psutil.NoSuchProcess):
            other.kill()


def workers() -> list[psutil.Process]:
    """The Ray worker processes that are running a trial."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "".join(child.cmdline()[:1]).startswith("ray::ImplicitFunc"):
                found.append(child)
    return found


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.02)


def durable(folder: Path) -> set[tuple[str, int]]:
    """What is durable of a study's progress: its checkpoints and records, each with its time of writing."""
    found = set()
    for pattern in ("checkpoints/*.pt", "runs/*.json"):
        for path in folder.glob(pattern):
            try:
                found.add((path.name, path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
    return found


def results(folder: Path) -> dict[str, bytes]:
    """Everything in a ledger that a study promises to reproduce: records without provenance, predictions, data."""
    found = {}
    for path in _files(folder):
        content = path.read_bytes()
        if path.parent.name == "runs":
            # It comes last in a record.
            content, provenance, _ = content.partition(b'"provenance": {')
            assert provenance, path
        found[str(path.relative_to(folder))] = content
    return found


def findings(folder: Path) -> str:
    """What analysis finds in a ledger, as findings.json holds it."""
    return build.collect(frames.load(str(folder)), {}).to_json()


expected_findings = functools.cache(findings)


def leaks(*folders: Path) -> list[Path]:
    """The files below some folders that hold the W&B key."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20, "there is something to search"
    return [path for path in files if KEY.encode() in path.read_bytes()]


def copy(source: Path, target: Path) -> None:
    """Copy a ledger, without the reports that other tests may have written beside it."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("report"))


def assert_same(folder: Path, expected: Path) -> None:
    """Nothing that a study promises differs between two ledgers, nor what is found in them; no checkpoint is left."""
    assert_same_records(folder, expected)
    assert findings(folder) == expected_findings(expected)


def assert_same_records(folder: Path, expected: Path) -> None:
    """As `assert_same`, of a study that was declared in another way, which its findings tell."""
    found, wanted = results(folder), results(expected)
    assert sorted(found) == sorted(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert not list((folder / "checkpoints").glob("*"))


def _files(folder: Path) -> Iterator[Path]:
    for part in ("runs", "predictions", "dataset"):
        yield from sorted(path for path in (folder / part).iterdir() if path.is_file())


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, float]:
    """Signal a driver: exit code, output, and the seconds it took to end."""
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output, time.monotonic() - began

"""What all benchmarks share: medians over alternating rounds, and one JSON line a result."""

from __future__ import annotations

import datetime
import functools
import gzip
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torchvision import transforms
from torchvision.datasets import MNIST

from study.config import Launching
from study.launch import provenance, tracking
from study.launch.worker import Setup
from study.training import data

RESULTS = Path(__file__).parent / "results.jsonl"
COMMIT, DIRTY = provenance.git()  # as it was before any result was appended


def rates(arms: Mapping[str, Callable[[], int]], rounds: int = 5) -> dict[str, float]:
    """Median units a second of each arm, which does some work and returns how many units it was.

    The arms take turns within a round, so that a noisy neighbour slows all of them and spoils no ratio.
    """
    for arm in arms.values():
        arm()
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.perf_counter()
            units = arm()
            found[name].append(units / (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in found.items()}


def matmul_flops(size: int = 1024) -> Callable[[], int]:
    """An arm that multiplies float32 matrices and counts floating-point operations: the bound on this core."""
    a, b = torch.randn(size, size), torch.randn(size, size)

    def arm() -> int:
        for _ in range(10):
            a @ b
        return 10 * 2 * size**3

    return arm


@functools.cache
def torchvision_folder() -> str:
    """A temporary folder that holds our MNIST as torchvision expects it; it lasts as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="mnist-")
    _kept.append(folder)
    raw = Path(folder.name) / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in data.FILES:
        (raw / file).write_bytes(gzip.decompress((data.PACKAGED / f"{file}.gz").read_bytes()))
    return folder.name


_kept: list[tempfile.TemporaryDirectory] = []


def torchvision_mnist(train: bool, folder: str | None = None) -> MNIST:
    """MNIST as every tutorial reads it: torchvision's class, one image at a time through its transforms."""
    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    return MNIST(folder or torchvision_folder(), train=train, transform=transforms.Compose(steps))


def settings(folder: str, study: str, mode: str) -> Setup:
    """What a worker is told, its ledger and W&B files in `folder`."""
    mirrored = tracking.Settings(mode=mode, project="benchmark", entity=None, folder=f"{folder}/wandb", study=study)
    return Setup(str(Path(folder) / study), Launching(max_failures=0), mirrored, (None, None))


def resident(pid: int | str = "self") -> float:
    """Memory that a process holds now, in MiB."""
    return _memory(pid, "VmRSS")


def peak(pid: int | str = "self") -> float:
    """The most memory that a process has held, in MiB."""
    return _memory(pid, "VmHWM")


def _memory(pid: int | str, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def record(benchmark: str, **values: object) -> None:
    """Append a result with machine, versions and date to results.jsonl, and print it."""
    line = {"benchmark": benchmark, **values}
    machine = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    line |= {"machine": machine, "versions": provenance.versions(), "commit": COMMIT, "dirty": DIRTY}
    line["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

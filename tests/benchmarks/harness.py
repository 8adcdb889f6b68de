"""What all benchmarks share: medians over alternating rounds, and one JSON line a result."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from study import provenance

RESULTS = Path(__file__).parent / "results.jsonl"


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


def record(benchmark: str, **values: object) -> None:
    """Append a result with machine, versions and date to results.jsonl, and print it."""
    line = {"benchmark": benchmark, **values}
    machine = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    commit, dirty = provenance.git()
    line |= {"machine": machine, "versions": provenance.versions(), "commit": commit, "dirty": dirty}
    line["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

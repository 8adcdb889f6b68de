"""Memory: a worker's peak against the members of its pack. The driver's, against packs: scheduler.py."""

from __future__ import annotations

import subprocess
import sys

import torch

from study.launch.worker import keep_memory
from study.training import data, models
from study.training.loop import train
from tests.benchmarks import harness
from tests.benchmarks.scheduler import planned

WIDTHS = (1, 6, 20, 60)
TRAINED = 2_000
"""Digits trained on: memory is at its peak after the first steps and the evaluations."""


def main() -> None:
    """Print the table and append it to results.jsonl."""
    print("peak memory of a process that trains one pack, MiB (as it is before the pack, and in it)")
    for model in models.BUILT_IN:
        found = {}
        for members in WIDTHS:
            command = [sys.executable, "-m", "tests.benchmarks.memory", model, str(members)]
            before, after = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            found[members] = (float(before), float(after))
        print(f"{model}: " + ", ".join(f"K = {k}: {a:,.0f} → {b:,.0f}" for k, (a, b) in found.items()))
        harness.record("memory", model=model, before_and_peak_mib={str(k): pair for k, pair in found.items()})


def one(model: str, members: int) -> None:
    """Train one pack on a few digits, and print the memory before it and its peak."""
    torch.set_num_threads(1)
    keep_memory()
    dataset = data.load("mnist")
    rates = [0.001 * (k + 1) for k in range(members)]
    training = {"epochs": 1, "validation_size": 60_000 - TRAINED}
    (pack,) = planned(dataset, models=[model], seeds=1, learning_rates=rates, training=training)
    before = harness.resident()
    for _ in train([run.run for run in pack.runs], dataset):
        pass
    print(round(before), round(harness.peak()))


if __name__ == "__main__":
    one(sys.argv[1], int(sys.argv[2]))

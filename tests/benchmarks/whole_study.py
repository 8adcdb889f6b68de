"""A whole small study, end to end: the ordinary Ray Tune recipe against ours, on the same grid."""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from torch.nn import functional as F
from torch.utils.data import DataLoader

from study.training import models
from tests.benchmarks import harness

MODELS = ("lenet5", "mlp_matched")
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SEEDS = 2  # as many packs of each model as workers here, or one of ours would idle
EPOCHS = 2
ROUNDS = 3


def main() -> None:
    """Print the ratio and append it to results.jsonl; a quarter of an hour on two cores."""
    runs = len(MODELS) * len(LEARNING_RATES) * SEEDS
    print(f"{runs} runs of {EPOCHS} epochs, {os.cpu_count()} cores, from start to exit, medians of {ROUNDS} in turn")
    folder = harness.torchvision_folder()
    usual_command = [sys.executable, "-m", "tests.benchmarks.whole_study", folder]
    seconds = [(timed(ours_command(tempfile.mkdtemp())), timed(usual_command)) for _ in range(ROUNDS)]
    ours, usual = zip(*seconds, strict=True)
    harness.record("whole_study", runs=runs, epochs=EPOCHS, ours_seconds=ours, usual_seconds=usual)
    one, other = statistics.median(ours), statistics.median(usual)
    print(f"ordinary Ray Tune recipe {other:.0f} s, ours {one:.0f} s: {other / one:.1f} ×")


def timed(command: list[str]) -> float:
    """Seconds that a command takes in a process of its own."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return round(time.perf_counter() - began, 1)


def ours_command(folder: str) -> list[str]:
    """Our study as a user runs it, W&B offline, ledger and all."""
    tree = {
        "name": "grid",
        "models": list(MODELS),
        "learning_rates": list(LEARNING_RATES),
        "seeds": SEEDS,
        "training": {"epochs": EPOCHS},
        "wandb": {"mode": "offline"},
        "storage": folder,
    }
    path = Path(folder) / "grid.yaml"
    path.write_text(yaml.safe_dump(tree))
    return [sys.executable, "-m", "study", "run", str(path)]


def usual(folder: str) -> None:
    """What the tutorials of Ray Tune and PyTorch add up to: one run a trial, an actor each, DataLoaders."""
    from ray import tune

    logging.disable()
    tune.Tuner(
        tune.with_resources(usual_trial, {"cpu": 1}),
        param_space={
            "folder": folder,
            "model": tune.grid_search(list(MODELS)),
            "learning_rate": tune.grid_search(list(LEARNING_RATES)),
            "seed": tune.grid_search(list(range(SEEDS))),
        },
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ).fit()


def usual_trial(config: dict) -> None:
    """One training, evaluated every epoch as ours are: on validation and test digits."""
    from ray import tune

    torch.manual_seed(config["seed"])
    full = harness.torchvision_mnist(True, config["folder"])
    train, val = torch.utils.data.random_split(full, (55_000, 5_000))
    loaders = [DataLoader(part, 1000) for part in (val, harness.torchvision_mnist(False, config["folder"]))]
    model = models.build(config["model"], (1, 28, 28), 10)
    optimizer = torch.optim.SGD(model.parameters(), config["learning_rate"], momentum=0.9)
    for _ in range(EPOCHS):
        model.train()
        for x, y in DataLoader(train, 64, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = [sum(int((model(x).argmax(1) == y).sum()) for x, y in loader) for loader in loaders]
        tune.report({"val_accuracy": correct[0] / 5_000, "test_accuracy": correct[1] / 10_000})


if __name__ == "__main__":
    usual(sys.argv[1])

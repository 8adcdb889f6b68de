"""What W&B and the ledger cost beside training: processor seconds a pack of six, by what does them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from study.launch import tracking
from study.launch.messages import Message
from study.launch.worker import train_pack
from study.ledger.ledger import Ledger
from study.ledger.storage import Storage
from study.training import checkpoints, data
from study.training.data import Dataset
from tests.benchmarks import harness
from tests.benchmarks.scheduler import Timed, planned

EPOCHS = 3
RECIPE_EPOCHS = 10


def main() -> None:
    """Print the table and append it to results.jsonl."""
    torch.set_num_threads(1)
    dataset = data.load("mnist")
    print(f"processor seconds of W&B (offline) and ledger for a pack of six, beside {RECIPE_EPOCHS} epochs of training")
    first = measure(dataset, "mlp_matched")["W&B start"]  # imports wandb and starts its process
    for model in ("lenet5", "mlp", "mlp_matched"):
        found = measure(dataset, model)
        share = found["bookkeeping"] / found["training"]
        print(f"{model}: " + ", ".join(f"{name} {value:.2f} s" for name, value in found.items()) + f": {share:.1%}")
        epoch = (found["W&B epochs"] + found["W&B process"] + found["checkpoints"]) / RECIPE_EPOCHS
        run = (found["W&B start"] + found["W&B finish"] + found["ledger"]) / 6
        print(f"  an epoch of the pack {1000 * epoch:.0f} ms, and once a run {1000 * run:.0f} ms")
        first -= found["W&B start"] if model == "mlp_matched" else 0
        harness.record("bookkeeping", model=model, share=round(share, 4), **{k: round(v, 3) for k, v in found.items()})
    harness.record("bookkeeping", once_a_worker=round(first, 3))
    print(f"once a worker, not a pack: {first:.2f} s to import wandb and start its process")


def measure(dataset: Dataset, model: str) -> dict[str, float]:
    """Train one pack of six with all its bookkeeping, and scale what happens every epoch to the whole recipe."""
    (pack,) = planned(dataset, models=[model], seeds=1, training={"epochs": EPOCHS})
    spent: dict[str, float] = {"start": 0.0, "epochs": 0.0, "finish": 0.0, "checkpoints": 0.0, "ledger": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        settings = harness.settings(folder, "timed", "offline")
        undo = [
            _timed(tracking.Tracker, "_start", spent, "start"),
            _timed(tracking.Tracker, "_log", spent, "epochs"),
            # In threads of their own, all runs of a pack at once.
            _timed(tracking, "end_run", spent, "finish"),
            _timed(checkpoints, "save", spent, "checkpoints"),
        ]
        driver = Timed(folder, [pack])
        began = _children()
        records: list[Message] = []
        train_pack(pack, dataset, records.append, settings)
        for restore in undo:
            restore()
        # W&B's own process writes the files.
        service = _children() - began
        clock = time.process_time()
        for message in records:
            driver.receive(0, message)
        spent["ledger"] = time.process_time() - clock
        seconds = sum(r.provenance.train_seconds or 0 for r in Ledger(Storage(folder) / "timed").records()[0].values())
    growth = RECIPE_EPOCHS / EPOCHS
    return {
        "training": seconds * growth,
        "W&B start": spent["start"],
        "W&B epochs": spent["epochs"] * growth,
        "W&B finish": spent["finish"],
        "W&B process": service * growth,
        "checkpoints": spent["checkpoints"] * growth,
        "ledger": spent["ledger"],
        "bookkeeping": spent["start"] + spent["finish"] + spent["ledger"]
        + (spent["epochs"] + spent["checkpoints"] + service) * growth,
    }  # fmt: skip


def _timed(owner: object, name: str, spent: dict[str, float], key: str) -> Callable[[], None]:
    """Count the processor time that calls of `owner.name` take; returns what undoes it."""
    original = getattr(owner, name)

    def counted(*arguments: object, **keywords: object) -> object:
        began = time.thread_time()
        try:
            return original(*arguments, **keywords)
        finally:
            spent[key] += time.thread_time() - began

    setattr(owner, name, counted)
    return lambda: setattr(owner, name, original)


def _children() -> float:
    """Processor seconds of this process's living children so far."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

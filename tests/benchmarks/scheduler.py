"""What launching costs: ten thousand packs that train nothing, and real packs on one worker and on two."""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from study.config import Launching
from study.config_file import validate
from study.launch import cluster, ray_tune
from study.launch.messages import Done, Message, Started
from study.launch.plan import packs, plan
from study.launch.progress import Progress
from study.launch.ray_tune import Queue, Train
from study.launch.recorder import Recorder
from study.launch.worker import Report, train_pack
from study.ledger.ledger import Ledger, npz
from study.ledger.records import METRICS, Provenance, Record
from study.ledger.runs import Pack
from study.ledger.storage import Storage
from study.training import data, models
from study.training.data import Dataset
from tests.benchmarks import harness

PACKS = 10_000
EVERY = 1_000


class Timed(Recorder):
    """The recorder of a study that also notes when packs start and end, and its own memory."""

    def __init__(self, folder: str, todo: Sequence[Pack]) -> None:
        console = Console(file=io.StringIO())
        super().__init__(Ledger(Storage(folder) / "timed"), todo, {}, Progress(todo, console))
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.memory: list[float] = []

    def receive(self, index: int, message: Message) -> None:
        """Take a message as ever, and note the time."""
        if isinstance(message, Started):
            self.starts.append(time.perf_counter())
        super().receive(index, message)
        if isinstance(message, Done):
            self.ends.append(time.perf_counter())
            if len(self.ends) % EVERY == 0:
                self.memory.append(harness.resident())
                rate = EVERY / (self.ends[-1] - self.ends[-EVERY])
                print(f"  {len(self.ends):,} packs: {rate:.0f} a second, driver {self.memory[-1]:,.0f} MiB", flush=True)


def main() -> None:
    """Print both and append them to results.jsonl."""
    scheduling(PACKS)
    scaling()


def launch(todo: Sequence[Pack], data: Dataset, train: Train, recorder: Recorder, workers: int | None = None) -> None:
    """Have the packs trained by a Ray of our own."""
    with cluster.connected(None):
        ray_tune.launch(Queue(todo, data, train, recorder, Launching(workers=workers)))


def planned(dataset: Dataset, **changes: object) -> tuple[Pack, ...]:
    """The packs of a study."""
    tree = {"name": "timed", "learning_rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], "training": {"epochs": 1}}
    config = validate(tree | changes, "benchmark")
    sizes = {name: models.identity(name, dataset.info.shape, dataset.info.classes) for name in config.models}
    return packs(plan(config, dataset.info, sizes), "learning_rates")


def scheduling(n: int) -> None:
    """Packs of six runs that only report: their start, and six records that the driver writes to the ledger."""
    todo = planned(data.load("mnist"), models=["mlp_matched"], seeds=n)
    nothing = Dataset(*[np.zeros((1, 1, 1), np.uint8)] * 4, info=data.load("mnist").info)
    print(f"{n:,} packs of six runs that train nothing, on all cores, ledger on local disk")
    with tempfile.TemporaryDirectory() as folder:
        driver = Timed(folder, todo)
        began = time.perf_counter()
        launch(todo, nothing, report_only, driver)
        seconds = time.perf_counter() - began
        written = len(list((Path(folder) / "timed" / "runs").iterdir()))
    rates = [EVERY / (b - a) for a, b in zip(driver.ends[::EVERY], driver.ends[EVERY - 1 :: EVERY], strict=False)]
    harness.record(
        "scheduling", packs=n, records=written, seconds=round(seconds, 1), rates=np.round(rates, 1).tolist(),
        driver_mib=np.round(driver.memory).tolist(), each=EVERY,
    )  # fmt: skip
    print(f"{written:,} records in {seconds:.0f} s: {n / seconds:.0f} packs, {6 * n / seconds:.0f} runs a second")


def report_only(pack: Pack, data: Dataset, report: Report) -> None:
    """What a worker reports of a pack, without the training."""
    report(Started("none"))
    predictions = npz({"val": np.zeros(5_000, np.uint8), "test": np.zeros(10_000, np.uint8)})
    checksum = hashlib.sha256(predictions).hexdigest()
    records = [
        Record(
            **dict(run),
            state="finished",
            epochs=dict.fromkeys(METRICS, (0.5,) * run.run.epochs),
            final=dict.fromkeys(METRICS, 0.5),
            predictions_sha256=checksum,
            provenance=Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs)),
        )
        for run in pack.runs
    ]
    report(Done(tuple((record, predictions) for record in records)))


def scaling(rounds: int = 3) -> None:
    """Real packs, two to a worker, from the first start to the last end, on one worker and on two in turn."""
    dataset = data.load("mnist")
    todo = planned(dataset, models=["lenet5"], seeds=4, learning_rates=[0.01, 0.03])
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, seconds in found.items():
            with tempfile.TemporaryDirectory() as folder:
                driver = Timed(folder, todo)
                train = partial(train_pack, setup=harness.settings(folder, "timed", "disabled"))
                launch(todo, dataset, train, driver, workers)
                seconds.append(driver.ends[-1] - driver.starts[0])
    one, two = (float(np.median(found[workers])) for workers in (1, 2))
    harness.record("scaling", one_worker=np.round(found[1], 2).tolist(), two_workers=np.round(found[2], 2).tolist())
    print(f"4 lenet5 packs, medians of {rounds}: one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} ×")


if __name__ == "__main__":
    main()

"""What launching costs: packs that train nothing, on all cores and on made-up GPUs; real packs on one and on two."""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from study.config import Launching
from study.config_file import validate
from study.launch import cluster, ray_tune
from study.launch.messages import Done, Message, Started
from study.launch.plan import packs, plan
from study.launch.progress import Progress, bar
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

PACKS = 16_667
"""Of six runs: 100,000."""

EVERY = 1_000
NODES, GPUS = 8, 8
SECONDS = 5.0
"""What a pack takes on a made-up GPU: long enough for the driver to keep all of them busy."""

MEMORY = 2**28
"""Bytes of object store that a made-up node has."""

WORKER = 2**29
"""Bytes that a worker which trains nothing may take, once it has imported torch and Ray: 0.4 GiB of its own."""


class Timed(Recorder):
    """The recorder of a study that also notes when packs start and end, and its own memory."""

    def __init__(self, folder: str, todo: Sequence[Pack]) -> None:
        console = Console(file=io.StringIO())
        super().__init__(Ledger(Storage(folder) / "timed"), todo, {}, Progress(todo, bar(console)))
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.memory: list[float] = []
        self.slots: dict[str, int] = {}
        """Slot → packs that it has taken up."""

    def receive(self, index: int, message: Message, node: str = "") -> None:
        """Take a message as ever, and note the time."""
        if isinstance(message, Started):
            self.starts.append(time.perf_counter())
            self.slots[message.node] = self.slots.get(message.node, 0) + 1
        super().receive(index, message, node)
        if isinstance(message, Done):
            self.ends.append(time.perf_counter())
            if len(self.ends) % EVERY == 0:
                self.memory.append(harness.resident())
                rate = EVERY / (self.ends[-1] - self.ends[-EVERY])
                print(f"  {len(self.ends):,} packs: {rate:.0f} a second, driver {self.memory[-1]:,.0f} MiB", flush=True)


def main() -> None:
    """Print all three and append them to results.jsonl."""
    scheduling(PACKS)
    slots(1_000)
    scaling()


def launch(
    todo: Sequence[Pack], data: Dataset, train: Train, recorder: Recorder, *, address: str | None = None, **knobs: int
) -> None:
    """Have the packs trained by a Ray of our own, or by that at an address."""
    with cluster.connected(address):
        ray_tune.launch([Queue(todo, data, train, recorder, Launching(**knobs))])


def planned(dataset: Dataset, **changes: object) -> tuple[Pack, ...]:
    """The packs of a study."""
    tree = {"name": "timed", "learning_rates": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], "training": {"epochs": 1}}
    config = validate(tree | changes, "benchmark")
    sizes = {name: models.identity(name, dataset.info.shape, dataset.info.classes) for name in config.models}
    return packs(plan(config, dataset.info, sizes), "learning_rates")


def scheduling(n: int) -> None:
    """Packs of six runs that only report: their start, and six records that the driver writes to the ledger."""
    todo = planned(data.load("mnist"), models=["mlp_matched"], seeds=n)
    print(f"{n:,} packs of six runs that train nothing, on all cores, ledger on local disk")
    with tempfile.TemporaryDirectory() as folder:
        driver = Timed(folder, todo)
        began = time.perf_counter()
        launch(todo, nothing(), report_only, driver)
        seconds = time.perf_counter() - began
        written = len(list((Path(folder) / "timed" / "runs").iterdir()))
    rates = [EVERY / (b - a) for a, b in zip(driver.ends[::EVERY], driver.ends[EVERY - 1 :: EVERY], strict=False)]
    harness.record(
        "scheduling", packs=n, records=written, seconds=round(seconds, 1), rates=np.round(rates, 1).tolist(),
        driver_mib=np.round(driver.memory).tolist(), each=EVERY,
    )  # fmt: skip
    print(f"{written:,} records in {seconds:.0f} s: {n / seconds:.0f} packs, {6 * n / seconds:.0f} runs a second")


def nothing() -> Dataset:
    """No images."""
    return Dataset(*[np.zeros((1, 1, 1), np.uint8)] * 4, info=data.load("mnist").info)


def slots(n: int) -> None:
    """Packs that take a while on the made-up GPUs of several nodes, all of them raylets on this machine.

    There are as many GPUs as its memory has room for workers, 64 at most.
    """
    gpus = min(GPUS, int(0.8 * psutil.virtual_memory().available / WORKER / NODES))
    todo = planned(data.load("mnist"), models=["mlp_matched"], seeds=n)
    print(f"{n:,} packs of six runs, {SECONDS:g} s each, on {NODES} nodes of {gpus} made-up GPUs")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    made_up = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES):
            made_up.add_node(num_cpus=gpus, num_gpus=gpus, object_store_memory=MEMORY)
        with tempfile.TemporaryDirectory() as folder:
            driver = Timed(folder, todo)
            began = time.perf_counter()
            launch(todo, nothing(), wait_only, driver, address=made_up.address, gpus_per_trial=1)
            seconds = time.perf_counter() - began
            written = len(list((Path(folder) / "timed" / "runs").iterdir()))
    finally:
        made_up.shutdown()
    busy = sum(
        max(0.0, min(end, driver.ends[-1]) - start) for start, end in zip(driver.starts, driver.ends, strict=True)
    )
    full = driver.starts[NODES * gpus - 1] - began if len(driver.starts) >= NODES * gpus else None
    rate = n / (driver.ends[-1] - driver.starts[0])
    harness.record(
        "slots", packs=n, records=written, nodes=NODES, gpus=NODES * gpus, seconds_a_pack=SECONDS,
        seconds=round(seconds, 1), slots_used=len(driver.slots), packs_a_slot=sorted(driver.slots.values()),
        all_busy_after=full and round(full, 1), busy=round(busy / (driver.ends[-1] - driver.starts[0]), 1),
        rate=round(rate, 2), driver_mib=round(harness.resident()),
    )  # fmt: skip
    print(
        f"{len(driver.slots)} of {NODES * gpus} slots used, {min(driver.slots.values())} packs or more on each, ",
        end="",
    )
    print(f"{rate:.1f} packs a second, {written:,} records")


def wait_only(pack: Pack, data: Dataset, report: Report) -> None:
    """What a made-up GPU does with a pack: it lets time go by, and reports."""
    context = ray.get_runtime_context()
    slot = f"{context.get_node_id()} GPU {context.get_accelerator_ids()['GPU'][0]}"

    def passed(message: Message) -> None:
        if isinstance(message, Done):
            time.sleep(SECONDS)
        report(Started(slot) if isinstance(message, Started) else message)

    report_only(pack, data, passed)


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
                launch(todo, dataset, train, driver, workers=workers)
                seconds.append(driver.ends[-1] - driver.starts[0])
    one, two = (float(np.median(found[workers])) for workers in (1, 2))
    harness.record("scaling", one_worker=np.round(found[1], 2).tolist(), two_workers=np.round(found[2], 2).tolist())
    print(f"4 lenet5 packs, medians of {rounds}: one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} ×")


if __name__ == "__main__":
    main()

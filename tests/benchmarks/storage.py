"""What the distance of an object store costs: a study of up to 100,000 runs read and told of at 50 ms a request."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from study.config_file import validate
from study.launch.messages import Done
from study.launch.plan import packs, plan
from study.launch.progress import Progress, bar
from study.launch.recorder import Recorder
from study.ledger import storage as storage_
from study.ledger.ledger import Ledger, npz
from study.ledger.records import METRICS, DatasetInfo, Launch, ModelInfo, Provenance, Record, Study
from study.ledger.storage import Storage
from tests.benchmarks import harness, object_store

DELAY = 0.05
"""Seconds that the store takes to answer a request."""

RUNS = (1_000, 10_000, 100_000)
BEFORE = 100
"""Runs read one after another, as it was: each costs the same."""

RATES = [0.001, 0.003, 0.01, 0.03, 0.1]
LOAD = """
import sys, time
from analysis import frames
from tests.benchmarks import harness
began = time.perf_counter()
found = frames.load(sys.argv[1])
print(time.perf_counter() - began, len(found.predictions), harness.peak())
"""

MEASURED = """
import re, runpy, sys, time
from pathlib import Path
began, module = time.perf_counter(), sys.argv.pop(1)
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert not ended.code, ended.code
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(time.perf_counter() - began, time.process_time(), peak)
"""
"""Runs a module as a command; then its seconds, those of the processor, and its peak in KiB."""


def main() -> None:
    """Print how long the parts take and append them to results.jsonl."""
    print(f"a study in an object store that answers each request after {1000 * DELAY:.0f} ms")
    one_by_one()
    writing()
    for n in RUNS:
        reading(n)
    analysing(RUNS[-1])


def one_by_one() -> None:
    """Seconds a record and a run's predictions take where each is asked for after the last has come."""
    with object_store.serving(DELAY, partial(files, BEFORE)) as uri:
        ledger = Ledger(Storage(uri))
        began = time.perf_counter()
        names = ledger.storage.names("runs")
        records = [ledger._record(name) for name in names]
        middle = time.perf_counter()
        for record in records:
            assert isinstance(record, Record)
            ledger.predictions(record)
        ended = time.perf_counter()
    found = {"record": (middle - began) / BEFORE, "predictions": (ended - middle) / BEFORE}
    harness.record("storage_before", runs=BEFORE, delay=DELAY, **{k: round(v, 4) for k, v in found.items()})
    hours = {name: 100_000 * seconds / 3600 for name, seconds in found.items()}
    print(f"one after another: 100,000 records {hours['record']:.1f} h, predictions {hours['predictions']:.1f} h")


def writing(n: int = 20) -> None:
    """Packs of five that one driver records a second: file by file and pack by pack, as it was, and as it is."""
    kept = files(50 * n)
    ended: dict[str, list[tuple[Record, bytes | None]]] = {}
    for name in kept:
        if name.startswith("runs/"):
            record = Record.model_validate_json(kept[name])
            ended.setdefault(record.provenance.pack_id, []).append((record, kept[f"predictions/{record.run_id}.npz"]))
    study = Study.model_validate_json(kept["study.json"])
    rates = {}
    with object_store.serving(DELAY) as uri:

        def measured(arm: str, write: Callable[[Ledger], int]) -> None:
            ledger = Ledger(Storage(uri) / arm)
            began = time.perf_counter()
            rates[arm] = round(write(ledger) / (time.perf_counter() - began), 2)
            assert len(ledger.storage.names("runs")) == len(ledger.storage.names("predictions"))

        def file_by_file(ledger: Ledger) -> int:
            for record, predictions in [run for pack in list(ended.values())[:n] for run in pack]:
                ledger.storage.write(f"predictions/{record.run_id}.npz", predictions or b"")
                ledger.storage.write(f"runs/{record.run_id}.json", record.model_dump_json(indent=1).encode())
            return n

        def pack_by_pack(ledger: Ledger) -> int:
            for pack in list(ended.values())[:n]:
                ledger.write_records(pack)
            return n

        def beside_one_another(ledger: Ledger) -> int:
            progress = Progress(study.packs, bar(Console(file=io.StringIO())))
            recorder = Recorder(ledger, study.packs, {}, progress)
            for index, pack in enumerate(study.packs):
                recorder.receive(index, Done(tuple(ended[pack.pack_id])))
            recorder.finish()
            assert recorder.complete
            return len(study.packs)

        for arm in (file_by_file, pack_by_pack, beside_one_another):
            measured(arm.__name__, arm)
    harness.record("storage_writing", packs=[n, n, len(study.packs)], pack_size=5, delay=DELAY, **rates)
    print("packs of five recorded a second: " + ", ".join(f"{rate} {arm}" for arm, rate in rates.items()))


def analysing(n: int, names: Sequence[str] = ("status", "report")) -> None:
    """`study status` and the whole report of so many runs, their ledger on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files(n).items():
            path = Path(folder) / "study" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name in names:
            words = {"status": ["study", "status"], "report": ["analysis"]}[name]
            command = [sys.executable, "-c", MEASURED, *words, f"{folder}/study"]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, processor, peak = map(float, told.splitlines()[-1].split())
            harness.record(
                "large", command=name, runs=n, seconds=round(seconds, 1), processor_seconds=round(processor, 1),
                peak_mib=round(peak / 1024),
            )  # fmt: skip
            print(f"{name} of {n:,} runs on this machine: {seconds:.0f} s, at most {peak / 1024:,.0f} MiB", flush=True)


def reading(n: int) -> None:
    """What a driver reads as it starts, `python -m study status`, and what the analysis loads."""
    with object_store.serving(DELAY, partial(files, n)) as uri:
        began = time.perf_counter()
        ledger = Ledger(Storage(uri))
        study = ledger.read_study()
        middle = time.perf_counter()
        records, problems = ledger.records(curves=False)
        start = time.perf_counter() - middle
        assert study is not None
        assert (len(records), problems) == (n, [])
        resident = harness.resident()
        del study, records
        command = time.perf_counter()
        told = subprocess.run([sys.executable, "-m", "study", "status", uri], capture_output=True, text=True)
        status = time.perf_counter() - command
        assert f"{n} finished" in told.stdout, told.stdout + told.stderr
        loaded = subprocess.run([sys.executable, "-c", LOAD, uri], capture_output=True, text=True, check=True)
        load, predicted, peak = map(float, loaded.stdout.split())
        assert predicted == n
    found = {"study_json": middle - began, "records": start, "status": status, "load": load}
    harness.record(
        "storage", runs=n, delay=DELAY, at_once=storage_.REQUESTS, **{k: round(v, 2) for k, v in found.items()},
        driver_mib=round(resident), load_mib=round(peak),
    )  # fmt: skip
    print(f"{n:,} runs: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items()), end="")
    print(f"; {resident:,.0f} MiB after the records, {peak:,.0f} MiB at most while loading", flush=True)


class Kept(Storage):
    """Keeps in memory what is written."""

    def __init__(self) -> None:
        super().__init__("/kept")
        self.files: dict[str, bytes] = {}

    def write(self, name: str, content: bytes) -> None:
        """Keep a file."""
        self.files[name] = content

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Keep files."""
        self.files |= files

    def exists(self, name: str) -> bool:
        """Whether it is kept."""
        return name in self.files


def files(n: int) -> dict[str, bytes]:
    """The ledger of a finished study of `n` runs of ten epochs on MNIST's scale, which nobody trained."""
    tree = {"name": "study", "models": ["lenet5", "mlp_matched"], "learning_rates": RATES, "seeds": n // 10}
    config = validate(tree, "benchmark")
    info = DatasetInfo(
        name="mnist", sha256="a" * 64, files={}, n_train=60_000, n_test=10_000, classes=10, shape=(1, 28, 28),
        pixel_mean=0.13, pixel_sd=0.31,
    )  # fmt: skip
    models = {name: ModelInfo(fingerprint=12 * "0", n_parameters=44_426, macs=416_520) for name in config.models}
    planned = plan(config, info, models)
    ledger = Ledger(Kept())
    labels = {"val": np.zeros(5_000, np.uint8), "test": np.zeros(10_000, np.uint8)}
    ledger.write_dataset({"test_images": np.zeros((10_000, 28, 28), np.uint8), "test_labels": labels["test"]})
    ledger.write_dataset({"val_labels_0": labels["val"]})
    launch = Launch(
        config=config.resolved(), analysis_sha256=config.analysis_sha256(), recipe=planned[0].run.recipe,
        git_commit=None, git_dirty=None, versions={}, started_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    grouped = packs(planned, "learning_rates")
    ledger.write_study(Study(name="study", dataset=info, launches=[launch], packs=grouped))
    rng = np.random.default_rng(0)
    for pack in grouped:
        wrong = {name: rng.integers(20, 200) for name in labels}
        predictions = npz(
            {name: np.where(np.arange(true.size) < wrong[name], 1, true) for name, true in labels.items()}
        )
        final = {name: 0.05 for name in METRICS if name.endswith("loss")} | {"train_accuracy": 0.995}
        final |= {f"{name}_accuracy": float(1 - wrong[name] / true.size) for name, true in labels.items()}
        epochs = {
            name: tuple(np.linspace(0.9, value, config.training.epochs).tolist()) for name, value in final.items()
        }
        checksum = hashlib.sha256(predictions).hexdigest()
        where = Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs), device="cpu", node="node", train_seconds=1.0)
        for run in pack.runs:
            record = Record(
                **dict(run), state="finished", epochs=epochs, final=final, predictions_sha256=checksum, provenance=where
            )
            ledger.write_record(record, predictions)
    assert isinstance(ledger.storage, Kept)
    return ledger.storage.files


if __name__ == "__main__":
    main()

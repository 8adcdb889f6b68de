"""A ledger as tables: one row per planned run, whatever has become of it."""

from __future__ import annotations

import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from study.errors import UserError
from study.ledger import Ledger, LedgerError, Problem
from study.records import METRICS, Record, Study
from study.runs import PlannedRun
from study.storage import Storage

STATES = ("finished", "diverged", "failed", "missing")
LARGEST_ARCHIVE = 20 * 2**30
"""Bytes that an exported ledger may unpack to."""


@dataclass(frozen=True, eq=False)
class Frames:
    """All that analysis knows of a study."""

    study: Study
    runs: pd.DataFrame
    """One row per planned run, in the order of models, learning rates, seeds: see COLUMNS."""
    epochs: pd.DataFrame
    """Key (run_id, epoch), epochs counted from 1: METRICS."""
    problems: list[Problem]
    """Files that are no valid record or no valid predictions; none of them enters a number."""
    set_aside: Sequence[PlannedRun] = ()
    """Planned runs of another recipe than the last launch's."""
    ledger: Ledger = field(repr=False, kw_only=True)
    records: dict[str, Record] = field(repr=False, kw_only=True)

    @property
    def config(self) -> dict:
        """The config of the last launch."""
        return dict(self.study.launches[-1].config)

    @property
    def models(self) -> list[str]:
        """Models in the order of the config, then any that only earlier launches planned."""
        configured = [m for m in self.config["models"] if m in set(self.runs["model"])]
        return list(dict.fromkeys([*configured, *self.runs["model"]]))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.study.dataset.classes

    @cached_property
    def predictions(self) -> dict[str, dict[str, np.ndarray]]:
        """run_id → `val` and `test`, the labels predicted, uint8 [digit]; only of runs whose file is sound."""
        found = {}
        n_test = self.study.dataset.n_test
        for run_id in self.runs.loc[self.runs["state"] == "finished", "run_id"]:
            try:
                arrays = self.ledger.predictions(self.records[run_id])
            except LedgerError as error:
                self.problems.append(Problem(*str(error).split(": ", 1)))
                continue
            if (
                set(arrays) >= {"val", "test"}
                and arrays["test"].shape == (n_test,)
                and arrays["test"].dtype == np.uint8
            ):
                found[run_id] = arrays
            else:
                path = self.ledger.storage.path(f"predictions/{run_id}.npz")
                self.problems.append(Problem(path, "holds no labels of this study's digits"))
        return found

    @cached_property
    def test_labels(self) -> np.ndarray:
        """Labels of the test digits, uint8 [digit]."""
        return self.ledger.dataset("test_labels")

    @cached_property
    def test_images(self) -> np.ndarray:
        """Test digits, uint8 [digit, height, width]."""
        return self.ledger.dataset("test_images")

    def val_labels(self, split_seed: int) -> np.ndarray:
        """Labels of a split's validation digits, uint8 [digit]."""
        return self.ledger.dataset(f"val_labels_{split_seed}")

    def correct(self, run_ids: Sequence[str], split: str = "test") -> np.ndarray | None:
        """Which digits each run gets right, bool [run, digit]; None if any of them has no sound predictions.

        For `val` all runs must share one split.
        """
        if not len(run_ids) or any(run_id not in self.predictions for run_id in run_ids):
            return None
        if split == "test":
            labels = self.test_labels
        else:
            splits = {self.records[run_id].run.split_seed for run_id in run_ids}
            if len(splits) > 1:
                return None
            labels = self.val_labels(splits.pop())
        return np.stack([self.predictions[run_id][split] for run_id in run_ids]) == labels


def load(path: str | Path) -> Frames:
    """The study at a folder or URI, or in a ZIP that `python -m study export` wrote.

    Raises UserError, one line, when there is none.
    """
    if str(path).lower().endswith(".zip") and Path(path).is_file():
        folder = tempfile.TemporaryDirectory(prefix="study-")
        _unpack(Path(path), Path(folder.name))
        frames = _load(Storage(folder.name))
        # Predictions are read on demand, so the folder must live as long as the frames do, and no longer.
        weakref.finalize(frames, folder.cleanup)
        return frames
    return _load(Storage(path))


def _load(storage: Storage) -> Frames:
    ledger = Ledger(storage)
    study = ledger.read_study()
    if study is None:
        raise UserError(f"{storage}: holds no study (no study.json)")
    records, problems = ledger.records()
    planned = [run for pack in study.packs for run in pack.runs]
    recipe = dict(study.launches[-1].recipe)
    ours = [p for p in planned if p.run.recipe == recipe]
    foreign = sorted(set(records) - {p.run_id for p in planned})
    problems += [
        Problem(storage.path(f"runs/{run_id}.json"), "belongs to no run this study planned") for run_id in foreign
    ]
    order = {model: i for i, model in enumerate(study.launches[-1].config["models"])}
    ours.sort(key=lambda p: (order.get(p.run.model, len(order)), p.run.model, p.run.learning_rate, p.run.seed))
    runs = pd.DataFrame([_row(p, records.get(p.run_id), study.dataset.classes) for p in ours], columns=list(COLUMNS))
    runs = runs.astype({name: kind for name, kind in COLUMNS.items() if kind is not object})
    parts = [_epochs(records[p.run_id]) for p in ours if p.run_id in records]
    columns = ["run_id", "epoch", *METRICS]
    epochs = pd.concat([pd.DataFrame(columns=columns), *parts]) if not parts else pd.concat(parts, ignore_index=True)
    return Frames(
        study=study,
        runs=runs,
        epochs=epochs,
        problems=problems,
        set_aside=[p for p in planned if p.run.recipe != recipe],
        ledger=ledger,
        records=records,
    )


COLUMNS: dict[str, object] = {
    "run_id": object,
    "configuration_id": object,
    "model": object,
    "learning_rate": float,
    "seed": int,
    "init_seed": int,
    "order_seed": int,
    "split_seed": int,
    "state": object,
    "diverged_epoch": "Int64",
    "epochs": int,
    "batch_size": int,
    "n_parameters": int,
    "macs": int,
    **{f"final_{name}": float for name in METRICS},
    "collapsed": bool,
    "trained": bool,
    "train_seconds": float,
    "pack_size": "Int64",
    "device": object,
    "node": object,
    "torch_version": object,
    "git_commit": object,
    "git_dirty": object,
    "started_at": object,
    "attempts": "Int64",
    "error": object,
}
"""Columns of the runs frame, those from `train_seconds` on from provenance.

`collapsed`: finished, with a final training accuracy below twice that of guessing. `trained`: finished, not collapsed.
"""


def _row(planned: PlannedRun, record: Record | None, classes: int) -> dict[str, object]:
    run = planned.run
    row: dict[str, object] = {name: getattr(run, name) for name in COLUMNS if name in type(run).model_fields}
    row |= dict(run_id=planned.run_id, configuration_id=run.configuration_id)
    row |= dict(n_parameters=planned.n_parameters, macs=planned.macs, state="missing")
    row |= dict(collapsed=False, trained=False)
    if record is not None:
        row |= dict(state=record.state, diverged_epoch=record.diverged_epoch)
        row |= {f"final_{name}": value for name, value in (record.final or {}).items()}
        collapsed = record.final is not None and record.final["train_accuracy"] < 2 / classes
        row |= dict(collapsed=collapsed, trained=record.state == "finished" and not collapsed)
        provenance = record.provenance
        row |= {name: getattr(provenance, name) for name in COLUMNS if name in type(provenance).model_fields}
        row["torch_version"] = provenance.versions.get("torch")
    return row


def _epochs(record: Record) -> pd.DataFrame:
    values = {name: np.array(record.epochs[name], dtype=float) for name in METRICS}
    return pd.DataFrame({"run_id": record.run_id, "epoch": np.arange(1, record.n_epochs + 1), **values})


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an exported ledger; names that would leave the folder are refused."""
    try:
        with zipfile.ZipFile(archive) as file:
            if sum(info.file_size for info in file.infolist()) > LARGEST_ARCHIVE:
                raise UserError(f"{archive}: unpacks to more than {LARGEST_ARCHIVE:,} bytes")
            storage = Storage(folder)
            for info in file.infolist():
                if not info.is_dir():
                    storage.write(info.filename, file.read(info))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: not a ZIP that `python -m study export` wrote ({error})") from None

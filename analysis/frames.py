"""A ledger as tables: one row per planned run, whatever became of it."""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ConfigDict, ValidationError, create_model

from study.config import Allowed, StudyConfig
from study.errors import StorageError, UserError
from study.ledger.clusters import read as read_clusters
from study.ledger.ledger import Ledger, LedgerError, Problem
from study.ledger.records import METRICS, Record, Study
from study.ledger.runs import PlannedRun
from study.ledger.storage import Storage, check_relative

STATES = ("finished", "diverged", "failed", "missing")
READ = ("models", "learning_rates", "seeds", "wandb")
"""Keys of a launch's config that the analysis reads, beside the analysis block, which `preregistration.read` checks."""

Read = create_model(  # type: ignore[call-overload]  # mypy wants the fields one by one
    "Read",
    __config__=ConfigDict(strict=True, allow_inf_nan=False),
    **{key: (StudyConfig.model_fields[key].annotation, StudyConfig.model_fields[key]) for key in READ},
)
"""A launch's config as far as the analysis reads it: old ledgers may lack other keys, or have more."""

LARGEST_ARCHIVE = 20 * 2**30
"""Bytes that an exported ledger may unpack to."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Everything that analysis knows about a study."""

    source: str
    """Where the study was read from."""
    study: Study
    runs: pd.DataFrame
    """One row per planned run, in the order of models, learning rates, seeds: see COLUMNS."""
    epochs: pd.DataFrame
    """Key (run_id, epoch), epochs counted from 1: METRICS."""
    predictions: Mapping[str, Mapping[str, np.ndarray]]
    """run_id → `val` and `test`, the labels predicted, uint8 [image]; only of finished runs whose file is sound."""
    test_images: np.ndarray
    """Test images, uint8 [image, height, width], in colour [image, channel, height, width]."""
    test_labels: np.ndarray
    """uint8 [image]."""
    test_clusters: np.ndarray | None
    """Which test images belong together, as those of one writer, int64 [image] from 0; None if unknown."""
    clusters_file: str | None
    """The name of the file that says so, if not the study's own; its folder is private."""
    val_labels: Mapping[int, np.ndarray]
    """Split seed → labels of its validation images, uint8 [image]."""
    wandb: str | None
    """The address of the W&B project in which the runs are published; None where they were not."""
    problems: Sequence[Problem]
    """Files, by their path in the study, that are not valid records or predictions; no number rests on them."""
    set_aside: Sequence[PlannedRun]
    """Planned runs of another recipe than the last launch's, or of an older source of their model."""

    def clustered(self, file: str | Path) -> Frames:
        """The same study with the clusters of its test images that `file` names. Raises UserError."""
        ids = read_clusters(file, self.study.dataset.n_test)
        return replace(self, test_clusters=ids, clusters_file=Path(file).name)

    @property
    def config(self) -> dict:
        """The config of the last launch."""
        return dict(self.study.launches[-1].config)

    @property
    def models(self) -> list[str]:
        """Models in the order of the config, then any that only earlier launches planned."""
        return list(dict.fromkeys(self.runs["model"]))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.study.dataset.classes

    def correct(self, run_ids: Sequence[str], split: str = "test") -> np.ndarray | None:
        """Which images each run gets right, bool [run, image]; None if any of them has no sound predictions.

        For `val` all runs must share one split, else None.
        """
        if not len(run_ids) or any(run_id not in self.predictions for run_id in run_ids):
            return None
        labels = self.test_labels
        if split == "val":
            splits = self.runs.loc[self.runs["run_id"].isin(run_ids), "split_seed"].unique()
            if len(splits) > 1:
                return None
            labels = self.val_labels[splits[0]]
        return np.stack([self.predictions[run_id][split] for run_id in run_ids]) == labels


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
    "learned": bool,
    "train_seconds": float,
    "pack_size": "Int64",
    "device": object,
    "node": object,
    "machine": object,
    "torch_version": object,
    "git_commit": object,
    "git_dirty": object,
    "started_at": object,
    "attempts": "Int64",
    "error": object,
}
"""Columns of the runs frame, those from `train_seconds` on from provenance.

`collapsed`: finished, with a final training accuracy near that of guessing. `learned`: finished, not collapsed.
"""


def load(path: str | Path, clusters: str | Path | None = None) -> Frames:
    """The study at a folder or URI, or in a ZIP that `python -m study export` wrote.

    `clusters` names a file that says which test images belong together, in the place of what the study says. Raises
    UserError, one line, when there is none or it lacks its test images.
    """
    if str(path).lower().endswith(".zip") and Path(path).is_file():
        with tempfile.TemporaryDirectory(prefix="study-") as folder:
            _unpack(Path(path), Path(folder))
            return _load(Storage(folder), str(path), clusters)
    return _load(Storage(path), str(path), clusters)


def _load(storage: Storage, source: str, clusters: str | Path | None) -> Frames:
    """The frames of the study at `storage`, step by step."""
    ledger = Ledger(storage)
    study = ledger.read_study()
    if study is None:
        raise UserError(f"{source}: holds no study (no study.json)")
    if not study.packs:
        raise UserError(f"{source}: the study has no planned run yet")
    test_images, test_labels = ledger.dataset("test_images"), ledger.dataset("test_labels")
    _check(study, len(test_images), test_labels, source)
    planned = [run for pack in study.packs for run in pack.runs]
    plan = _current_plan(study, planned)
    records, problems = _records(ledger, planned)
    val_labels = {split: ledger.dataset(f"val_labels_{split}") for split in {p.run.split_seed for p in plan}}
    ended = [records[p.run_id] for p in plan if p.run_id in records]
    predictions, unsound, contradicted = _sound_predictions(ledger, ended, test_labels, val_labels)
    records = {run_id: record for run_id, record in records.items() if run_id not in contradicted}
    ended = [record for record in ended if record.run_id not in contradicted]
    current = {p.run_id for p in plan}
    return Frames(
        source=source,
        study=study,
        runs=_runs_frame(plan, records, study.dataset.classes),
        epochs=_epochs_frame(ended),
        predictions=predictions,
        test_images=test_images,
        test_labels=test_labels,
        test_clusters=_test_clusters(ledger, clusters, study.dataset.n_test),
        clusters_file=Path(clusters).name if clusters else None,
        val_labels=val_labels,
        wandb=ledger.published(),
        problems=problems + unsound,
        set_aside=[p for p in planned if p.run_id not in current],
    )


def _check(study: Study, n_images: int, test_labels: np.ndarray, source: str) -> None:
    """Raise UserError where study.json contradicts the test images, or a launch lacks what analysis reads of it."""
    info, n_labels = study.dataset, test_labels.size
    classes = int(test_labels.max(initial=0)) + 1
    mistakes: list[tuple[str, object, str, bool]] = [
        ("dataset.n_test", info.n_test, f"{n_labels:,}, the number of test labels", info.n_test != n_labels),
        ("dataset.n_test", info.n_test, f"{n_images:,}, the number of test images", info.n_test != n_images),
        ("dataset.n_test", info.n_test, "1 or more", info.n_test < 1),
        (
            "dataset.classes",
            info.classes,
            f"{classes} to 256, as the labels have it",
            not classes <= info.classes <= 256,
        ),
    ]
    for i, launch in enumerate(study.launches):
        block = launch.config.get("analysis")
        mistakes.append((f"launches.{i}.config.analysis", block, "an analysis block", not isinstance(block, Mapping)))
        try:
            Read.model_validate_json(json.dumps(dict(launch.config)))
        except ValidationError as error:
            key = str(error.errors()[0]["loc"][0])
            words = [part.words for part in Read.model_fields[key].metadata if isinstance(part, Allowed)]
            allowed = words[-1] if words else "key: value pairs"
            mistakes.append((f"launches.{i}.config.{key}", launch.config.get(key), allowed, True))
    mistakes += [
        (f"packs.{i}.runs.{j}: {key}", found, "below 2⁶³", found >= 2**63)
        for i, pack in enumerate(study.packs)
        for j, planned in enumerate(pack.runs)
        for key, found in (*planned, *planned.run)
        if isinstance(found, int)
    ]
    for key, found, allowed, wrong in mistakes:
        if wrong:
            raise UserError(f"{source}: study.json: {key}: found {shown(found)}; allowed: {allowed}")


def shown(found: object) -> str:
    """What was found, in a message of one line: its middle is left out where it is long."""
    said = repr(found)
    return said if len(said) <= 80 else f"{said[:60]} … {said[-15:]}"


def _test_clusters(ledger: Ledger, file: str | Path | None, n_test: int) -> np.ndarray | None:
    """The clusters of the test images: those of the file, else those of the study, if any."""
    if file is not None:
        return read_clusters(file, n_test)
    found = ledger.test_clusters()
    if found is not None and len(found) != n_test:
        path = ledger.storage.path("dataset/test_clusters.npy")
        raise UserError(f"{path}: found {len(found):,} ids; allowed: {n_test:,}, one for each test image")
    return found


def _current_plan(study: Study, planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs of the last launch's recipe and of each model's latest source, by model, learning rate and seed."""
    recipe = dict(study.launches[-1].recipe)
    of_recipe = [p for p in planned if p.run.recipe == recipe]
    # An edited model is another model; packs are planned in order, so its last runs are of its latest source.
    latest = {p.run.model: p.run.model_fingerprint for p in of_recipe}
    order = {model: i for i, model in enumerate(study.launches[-1].models)}
    return sorted(
        (p for p in of_recipe if p.run.model_fingerprint == latest[p.run.model]),
        key=lambda p: (order.get(p.run.model, len(order)), p.run.model, p.run.learning_rate, p.run.seed),
    )


def _records(ledger: Ledger, planned: Sequence[PlannedRun]) -> tuple[dict[str, Record], list[Problem]]:
    """Every valid record by run_id, and the files that are not records or belong to no planned run, by path."""
    records, problems = ledger.records()
    problems = [Problem(p.path.removeprefix(ledger.storage.path("")), p.reason) for p in problems]
    foreign = sorted(set(records) - {p.run_id for p in planned})
    return records, problems + [Problem(f"runs/{r}.json", "belongs to no run this study planned") for r in foreign]


def _runs_frame(plan: Sequence[PlannedRun], records: Mapping[str, Record], classes: int) -> pd.DataFrame:
    """One row per planned run: see COLUMNS."""
    runs = pd.DataFrame([_row(p, records.get(p.run_id), classes) for p in plan], columns=list(COLUMNS))
    return runs.astype({name: kind for name, kind in COLUMNS.items() if kind is not object})


def _row(planned: PlannedRun, record: Record | None, classes: int) -> dict[str, object]:
    run = planned.run
    row: dict[str, object] = {name: getattr(run, name) for name in COLUMNS if name in type(run).model_fields}
    row |= dict(run_id=planned.run_id, configuration_id=run.configuration_id)
    row |= dict(n_parameters=planned.n_parameters, macs=planned.macs, state="missing")
    row |= dict(collapsed=False, learned=False)
    if record is not None:
        row |= dict(state=record.state, diverged_epoch=record.diverged_epoch)
        row |= {f"final_{name}": value for name, value in (record.final or {}).items()}
        collapsed = record.final is not None and record.final["train_accuracy"] < _no_better_than_chance(classes)
        row |= dict(collapsed=collapsed, learned=record.state == "finished" and not collapsed)
        provenance = record.provenance
        row |= {name: getattr(provenance, name) for name in COLUMNS if name in type(provenance).model_fields}
        row["torch_version"] = provenance.versions.get("torch")
    return row


def _no_better_than_chance(classes: int) -> float:
    """Training accuracy below which a run has collapsed: twice that of guessing, or halfway from it to 1 if lower.

    With two classes twice that of guessing would be 1, which no real run reaches.
    """
    return min(2 / classes, (1 + 1 / classes) / 2)


def _epochs_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row per run and finite epoch: `run_id`, `epoch` (from 1), METRICS."""
    lengths = [record.n_epochs for record in records]
    values = {name: [x for record in records for x in record.epochs[name]] for name in METRICS}
    return pd.DataFrame(
        {
            "run_id": np.repeat(np.array([record.run_id for record in records], dtype=object), lengths),
            "epoch": np.concatenate([np.arange(1, n + 1) for n in lengths] or [np.zeros(0, int)]),
            **{name: np.array(column, dtype=float) for name, column in values.items()},
        }
    )


def _sound_predictions(
    ledger: Ledger, ended: Sequence[Record], test_labels: np.ndarray, val_labels: Mapping[int, np.ndarray]
) -> tuple[dict[str, dict[str, np.ndarray]], list[Problem], set[str]]:
    """The labels that finished runs predicted, by run_id, the files that cannot hold those of this study, and the runs

    whose records contradict themselves or the predictions whose checksum they hold: these are damaged.
    """
    sound: dict[str, dict[str, np.ndarray]] = {}
    problems: list[Problem] = []
    contradicted = set()
    finished = [record for record in ended if record.state == "finished"]

    def ask(record: Record) -> dict[str, np.ndarray] | Problem:
        return _predictions(ledger, record, {"val": val_labels[record.run.split_seed], "test": test_labels})

    for record, found in zip(finished, ledger.storage.each(ask, finished), strict=True):
        if isinstance(found, Problem):
            problems.append(found)
            if found.path.startswith("runs/"):
                contradicted.add(record.run_id)
        else:
            sound[record.run_id] = found
    return sound, problems, contradicted


def _predictions(ledger: Ledger, record: Record, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | Problem:
    """The labels a run predicted, or why they cannot be those of this study's images, or its record contradicts them.

    What a finished run measures at its end it also notes as that of its last epoch, the same number.
    """
    name, of_record, final = f"predictions/{record.run_id}.npz", f"runs/{record.run_id}.json", record.final or {}
    for metric in METRICS:
        if not metric.startswith("train_") and record.epochs[metric][-1] != final[metric]:
            return Problem(of_record, f"gives another {metric} at its end than after its last epoch")
    try:
        arrays = ledger.predictions(record)
    except LedgerError as error:
        return Problem(name, str(error).removeprefix(f"{ledger.storage.path(name)}: "))
    found = {split: (array.shape, array.dtype) for split, array in arrays.items()}
    if found != {split: (true.shape, np.dtype(np.uint8)) for split, true in labels.items()}:
        return Problem(name, "holds no labels of this study's images")
    for split, true in labels.items():
        if round(final[f"{split}_accuracy"] * true.size) != np.count_nonzero(arrays[split] == true):
            return Problem(of_record, f"gives another {split} accuracy than its predictions")
    return arrays


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an exported ledger; names that would leave the folder are refused."""
    try:
        with zipfile.ZipFile(archive) as file:
            if sum(info.file_size for info in file.infolist()) > LARGEST_ARCHIVE:
                raise UserError(f"{archive}: unpacks to more than {LARGEST_ARCHIVE:,} bytes")
            for info in file.infolist():
                if not info.is_dir():
                    target = folder / check_relative(info.filename)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read(info))
    except OSError as error:
        raise StorageError(f"{archive}: cannot be unpacked: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive}: not a ZIP that `python -m study export` wrote ({error})") from None

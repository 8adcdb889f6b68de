"""All records of a study: the truth that analysis reads. Layout: study/README.md, "What is stored"."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from study.errors import UserError
from study.ledger import clusters
from study.ledger.records import Record, Study
from study.ledger.storage import Storage

RECORD_NAME = re.compile(r"^[0-9a-f]{12}\.json$")
CLUSTERS = "dataset/test_clusters.npy"
ADDRESS = re.compile(r"https?://[\w.:\[\]-]+(/[\w.%~-]+)+")


class LedgerError(UserError):
    """A damaged file of the ledger: its path and what is wrong with it."""


@dataclass(frozen=True)
class Problem:
    """A file under runs/ that is not a valid record, and so is left out of every number."""

    path: str
    reason: str


class Ledger:
    """Reads and writes one study's files. The driver is the only writer of records."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    # study.json

    def read_study(self) -> Study | None:
        """study.json, or None before the first launch. Raises LedgerError if it is not valid."""
        try:
            return Study.model_validate_json(self.storage.read("study.json"))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise LedgerError(f"{self.storage.path('study.json')}: {_first(error)}") from None

    def write_study(self, study: Study) -> None:
        """Replace study.json."""
        self.storage.write("study.json", study.model_dump_json(indent=1).encode() + b"\n")

    # records

    def records(
        self, *, curves: bool = True, known: Mapping[str, Record] | None = None
    ) -> tuple[dict[str, Record], list[Problem]]:
        """Every valid record by run_id, and every file under runs/ that is not one.

        Without `curves`, records lack their epochs and final metrics: those of 100,000 runs take a third of a gigabyte.
        Those in `known`, which were read before, are not read again.
        """
        known = known or {}
        names = self.storage.names("runs")
        found = {run_id: known[run_id] for name in names if (run_id := name.removesuffix(".json")) in known}
        unread = [name for name in names if name.removesuffix(".json") not in found]
        problems = []
        for answer in self.storage.each(self._record, unread):
            if isinstance(answer, Problem):
                problems.append(answer)
            else:
                found[answer.run_id] = answer if curves else answer.model_copy(update={"epochs": {}, "final": None})
        return dict(sorted(found.items())), problems

    def _record(self, name: str) -> Record | Problem:
        """The record in a file under runs/, or why it holds none."""
        path = f"runs/{name}"
        try:
            if not RECORD_NAME.match(name):
                raise ValueError("its name is not <run_id>.json")
            record = Record.model_validate_json(self.storage.read(path))
            if record.run_id != name.removesuffix(".json"):
                raise ValueError(f"it holds run {record.run_id}, a duplicate or a foreign record")
        except (ValueError, RecursionError) as error:
            return Problem(self.storage.path(path), _first(error))
        return record

    def write_records(self, ended: Sequence[tuple[Record, bytes | None]]) -> None:
        """Write what runs predicted, then their records, which are the commit marks.

        Predictions are the bytes of an .npz file (see `npz`) of the labels predicted, uint8: `val` [validation
        image] and `test` [test image].
        """
        for record, predictions in ended:
            if predictions is not None and hashlib.sha256(predictions).hexdigest() != record.predictions_sha256:
                raise ValueError(f"run {record.run_id}: the predictions are not those of its record")
        self.storage.write_all({f"predictions/{r.run_id}.npz": labels for r, labels in ended if labels is not None})
        texts = {f"runs/{r.run_id}.json": r.model_dump_json(indent=1) for r, _ in ended}
        self.storage.write_all({name: text.encode() + b"\n" for name, text in texts.items()})

    def write_record(self, record: Record, predictions: bytes | None = None) -> None:
        """The same for one run."""
        self.write_records([(record, predictions)])

    def predictions(self, record: Record) -> dict[str, np.ndarray]:
        """The labels that a finished run predicted: `val` and `test`, uint8.

        Raises LedgerError when the file is missing, altered or of another shape.
        """
        name = f"predictions/{record.run_id}.npz"
        try:
            content = self.storage.read(name)
        except FileNotFoundError:
            raise LedgerError(f"{self.storage.path(name)}: missing") from None
        if hashlib.sha256(content).hexdigest() != record.predictions_sha256:
            raise LedgerError(f"{self.storage.path(name)}: its SHA-256 is not the one in the record")
        return from_npz(content, self.storage.path(name))

    # what analysis needs of the data

    def write_dataset(self, arrays: dict[str, np.ndarray]) -> None:
        """Write dataset/<name>.npy for every array that is not stored yet."""
        for name, array in arrays.items():
            path = f"dataset/{name}.npy"
            if not self.storage.exists(path):
                buffer = io.BytesIO()
                np.save(buffer, array, allow_pickle=False)
                self.storage.write(path, buffer.getvalue())

    def dataset(self, name: str) -> np.ndarray:
        """`test_images` [image, height, width], `test_labels` [image] or `val_labels_<split_seed>` [image], uint8."""
        path = f"dataset/{name}.npy"
        try:
            content = self.storage.read(path)
        except FileNotFoundError:
            raise LedgerError(f"{self.storage.path(path)}: missing") from None
        with _decoding(self.storage.path(path)):
            array = np.load(io.BytesIO(content), allow_pickle=False)
            # Images in colour have an axis more.
            return _uint8(array, *((3, 4) if name == "test_images" else (1,)))

    def test_clusters(self) -> np.ndarray | None:
        """Which test images belong together, int64 [image] from 0, as `clusters` numbers them; None where none says."""
        path = self.storage.path(CLUSTERS)
        try:
            content = self.storage.read(CLUSTERS)
        except FileNotFoundError:
            return None
        with _decoding(path):
            ids = np.load(io.BytesIO(content), allow_pickle=False)
            if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or ids.ndim != 1:
                raise ValueError("no array of integers with one axis")
            return clusters.numbered(ids)

    # where else it is

    def write_published(self, project: str) -> None:
        """Note the address of the W&B project in which the runs are published."""
        self.storage.write("wandb.json", json.dumps({"project": project}).encode() + b"\n")

    def published(self) -> str | None:
        """That address; None where the study was never published, or where what is noted is no address."""
        try:
            noted = json.loads(self.storage.read("wandb.json"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        project = noted.get("project") if isinstance(noted, dict) else None
        return project if isinstance(project, str) and ADDRESS.fullmatch(project) else None

    def files(self) -> Iterator[str]:
        """The names of all files that make up the ledger, in order; checkpoints and reports are not among them."""
        yield "study.json"
        if self.storage.exists("wandb.json"):
            yield "wandb.json"
        for folder in ("runs", "predictions", "dataset"):
            for name in self.storage.names(folder):
                yield f"{folder}/{name}"


def export(storage: Storage, file: Path, *, with_clusters: bool = False) -> int:
    """Write the ledger at `storage` to one ZIP, the same bytes for the same ledger; returns how many files it holds.

    Which test images belong together is left out unless `with_clusters`: who wrote a digit is not for everybody who
    holds the data to pass on. Raises UserError when there is no study at `storage` or `file` cannot be written.
    """
    if not storage.exists("study.json"):
        raise UserError(f"{storage}: holds no study (no study.json)")
    names = [name for name in Ledger(storage).files() if with_clusters or name != CLUSTERS]
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in zip(names, storage.each(storage.read, names), strict=True):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from None
    return len(names)


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of an .npz file: the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def from_npz(content: bytes, path: str) -> dict[str, np.ndarray]:
    """The labels in the bytes of an .npz file, never unpickled. Raises LedgerError naming `path`."""
    with _decoding(path), np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: _uint8(arrays[name], 1) for name in arrays.files}


@contextlib.contextmanager
def _decoding(path: str) -> Iterator[None]:
    """Raise LedgerError naming `path` for any error: NumPy may raise almost anything where bytes are not an array."""
    try:
        yield
    except Exception as error:
        raise LedgerError(f"{path}: {_first(error)}") from None


def _uint8(array: np.ndarray, *axes: int) -> np.ndarray:
    """`array`, if it has one of these numbers of axes, of unsigned bytes. Raises ValueError otherwise."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim not in axes:
        raise ValueError(f"no array of unsigned bytes with {' or '.join(map(str, axes))} axes")
    return array


def _first(error: Exception) -> str:
    """The first complaint of an error, on one line."""
    if isinstance(error, ValidationError):
        complaint = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, complaint["loc"]))
        return " ".join(f"{where}: {complaint['msg']}".removeprefix(": ").split())
    if isinstance(error, json.JSONDecodeError):
        return "not valid JSON"
    return " ".join(str(error).split()) or type(error).__name__

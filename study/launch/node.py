"""Is a machine fit for a study? Asked by a worker before its first pack, and of all nodes by `study cluster check`."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from study.errors import StudyError, UserError
from study.launch import provenance
from study.ledger import lock
from study.ledger.runs import Pack
from study.ledger.storage import TEMPORARY, Storage
from study.redaction import mask
from study.training import models
from study.training.data import Dataset

SAME = ("python", "torch", "numpy")
"""Packages that results depend on to the last digit: every node has the driver's."""

PATIENCE = (1, 2, 4, 8)
"""Seconds between attempts to see what another machine has just written: mounts may show it late."""

MOST_SECONDS_APART = 60
"""By how much clocks may differ: a lock goes stale after twice as long."""


@functools.cache
def sources() -> str:
    """First 12 hex digits of SHA-256 over this package's source files."""
    root, content = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()[:12]


@dataclass(frozen=True)
class Expected:
    """What the driver's own machine has, and what it has written to the storage."""

    versions: Mapping[str, str] = field(default_factory=provenance.versions)
    sources: str = field(default_factory=sources)
    boot: str | None = field(default_factory=lock.boot)
    """Which machine that is: its storage need not be looked at again."""


@dataclass(frozen=True)
class Facts:
    """What a machine says of itself."""

    host: str
    versions: Mapping[str, str]
    sources: str
    memory: int
    """Bytes in all, and `free` of them."""
    free: int
    clock: float
    """Seconds since 1970."""
    gpus: tuple[str, ...]
    """Their names, as CUDA tells."""
    cuda: str | None
    """Why CUDA does not work; None where it does, or where no GPU is there."""
    storage: str | None
    """Why the storage cannot be used, if it was asked for."""


def facts(storage: str | None = None, mark: str | None = None) -> Facts:
    """What this machine is, and whether `storage` holds the file `mark` and can be written."""
    memory = psutil.virtual_memory()
    # Ray hides the GPUs from a task that asks for none.
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    gpus, cuda = _gpus()
    return Facts(
        host=provenance.node(),
        versions=provenance.versions(),
        sources=sources(),
        memory=memory.total,
        free=memory.available,
        clock=time.time(),
        gpus=gpus,
        cuda=cuda,
        storage=None if storage is None else _unusable(storage, mark),
    )


def faults(facts: Facts, expected: Expected, now: float, *, cuda: bool) -> list[str]:
    """What makes a machine unfit, one line each; `now` is the driver's clock as `facts` were told."""
    found = _differences(facts.versions, facts.sources, expected)
    if cuda and not facts.gpus:
        found.append(f"CUDA does not work: {facts.cuda or 'there is no GPU'}")
    if facts.storage:
        found.append(facts.storage)
    if abs(facts.clock - now) > MOST_SECONDS_APART:
        found.append(f"its clock is {facts.clock - now:+.0f} s off; allowed: {MOST_SECONDS_APART} s")
    return found


def unfit(device: str, expected: Expected, storage: str, token: str | None, pack: Pack, data: Dataset) -> str | None:
    """Why this machine is not to train the pack, if it is not: CUDA, package, storage, or another model of its name.

    `token` is that of the lock which the driver holds in `storage`; without one, the storage is not looked at.
    """
    reason = _machine(device, expected.sources, tuple(expected.versions.items()), expected.boot, storage, token)
    if reason or expected.boot == lock.boot():
        return reason
    return _model(pack.runs[0].run.model, pack.runs[0].run.model_fingerprint, data.info.shape, data.info.classes)


@functools.cache
def _machine(
    device: str, code: str, versions: tuple[tuple[str, str], ...], boot: str | None, storage: str, token: str | None
) -> str | None:
    expected = Expected(dict(versions), code, boot)
    if differences := _differences(provenance.versions(), sources(), expected):
        return "; ".join(differences)
    if device == "cuda":
        gpus, why = _gpus()
        if not gpus:
            return f"CUDA does not work: {why or 'there is no GPU'}"
    if token is None or (boot is not None and boot == lock.boot()):
        return None
    return _unusable(storage, token=token)


@functools.cache
def _model(name: str, fingerprint: str, shape: tuple[int, ...], classes: int) -> str | None:
    """Why the model of this name is not the one that was planned, if it is not."""
    try:
        found = models.identity(name, shape, classes).fingerprint
    except UserError as error:
        # What else it raises is a matter of its packs.
        return str(error) if "cannot be imported" in str(error) else None
    return None if found == fingerprint else f"its {name} ({found}) is not the one that was planned ({fingerprint})"


@functools.cache
def device_name(device: str) -> str:
    """The kind of device that a study is trained on: the GPU's name, or cpu."""
    return device if device == "cpu" else torch.cuda.get_device_name(0)


def _differences(versions: Mapping[str, str], code: str, expected: Expected) -> list[str]:
    found = [
        f"{package} {versions.get(package)}, and the driver has {expected.versions.get(package)}"
        for package in SAME
        if versions.get(package) != expected.versions.get(package)
    ]
    return found + [f"its sources of study ({code}) are not the driver's ({expected.sources})"] * (
        code != expected.sources
    )


def _gpus() -> tuple[tuple[str, ...], str | None]:
    """The names of the GPUs that compute, and why none does."""
    try:
        names = tuple(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
        for k in range(len(names)):
            ones = torch.ones(8, 8, device=f"cuda:{k}")
            if float((ones @ ones).sum()) != 512:
                return (), f"{names[k]} multiplies wrongly"
    except Exception as error:
        # Drivers, libraries and broken cards fail in many ways.
        return (), mask(" ".join(str(error).split())[:200])
    return names, None


def _unusable(storage: str, mark: str | None = None, token: str | None = None) -> str | None:
    """Why `storage` is not the driver's, or cannot be written; None where all is well."""
    try:
        place = Storage(storage, answered=True)
        for pause in (*PATIENCE, None):
            seen = place.exists(mark) if mark is not None else (lock.read(place) or {}).get("token") == token
            if seen:
                break
            if pause is None:
                return f"its {storage} is not the driver's: what the driver wrote is not there; is it shared?"
            time.sleep(pause)
        probe = f"{TEMPORARY}{provenance.node()}-{os.getpid()}"
        place.write(probe, b"")
        place.delete(probe)
    except (StudyError, OSError) as error:
        return mask(str(error))
    return None

"""Is a machine fit for a study? Asked by a worker before its first pack, and of all nodes by `study cluster check`."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil
import torch

from study.config import Model, StudyConfig
from study.errors import StudyError, UserError
from study.launch import provenance
from study.ledger import lock
from study.ledger.runs import Pack
from study.ledger.storage import TEMPORARY, Storage
from study.redaction import mask
from study.training import data as data_
from study.training import models
from study.training.data import Dataset

SAME = ("python", "torch", "numpy")
"""Packages that results depend on to the last digit: every node has the driver's."""

PATIENCE = (1, 2, 4, 8)
"""Seconds between attempts to see what another machine has just written: mounts may show it late."""

CUDA_SECONDS = 120
"""How long another process may take to say whether CUDA works."""

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
    models: tuple[str, ...]
    """What is wrong with models that were asked for."""


@dataclass(frozen=True)
class Models:
    """The models of a study, as its driver has them."""

    fingerprints: Mapping[str, str]
    """By what they are built from, in JSON."""
    shape: tuple[int, int, int]
    classes: int

    @classmethod
    def of(cls, config: StudyConfig) -> Self:
        """Those of a config. Raises UserError where its data or a model cannot be used."""
        info = data_.load(config.images).info
        named = config.named_models().values()
        return cls(
            {m.model_dump_json(): models.identity(m, info.shape, info.classes).fingerprint for m in named},
            info.shape,
            info.classes,
        )


def facts(
    storage: str | None = None,
    mark: str | None = None,
    planned: Models | None = None,
    environment: Mapping[str, str] | None = None,
) -> Facts:
    """What this machine is, whether `storage` holds the file `mark` and can be written, and has the models planned.

    `environment`: the variables by which the driver reaches the storage, as a study's workers get them.
    """
    os.environ.update(environment or {})
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
        models=() if planned is None else _others(planned),
    )


def _others(planned: Models) -> tuple[str, ...]:
    told = (_model(m, fingerprint, planned.shape, planned.classes) for m, fingerprint in planned.fingerprints.items())
    return tuple(reason for reason in told if reason)


def faults(facts: Facts, expected: Expected, now: float, *, gpus: float) -> list[str]:
    """What makes a machine unfit, one line each; `now` is the driver's clock as `facts` were told.

    `gpus`: how many of them Ray hands out there, each of which has to compute; 0 where none is wanted.
    """
    found = _differences(facts.versions, facts.sources, expected)
    if gpus and not facts.gpus:
        found.append(_no_cuda(facts.cuda))
    elif len(facts.gpus) < gpus:
        found.append(f"CUDA computes on {len(facts.gpus)} of the {gpus:g} GPUs that Ray counts")
    if facts.storage:
        found.append(facts.storage)
    found += facts.models
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
    run = pack.runs[0].run
    return _model(run.built_from.model_dump_json(), run.model_fingerprint, data.info.shape, data.info.classes)


@functools.cache
def _machine(
    device: str, code: str, versions: tuple[tuple[str, str], ...], boot: str | None, storage: str, token: str | None
) -> str | None:
    expected = Expected(dict(versions), code, boot)
    if differences := _differences(provenance.versions(), sources(), expected):
        return "; ".join(differences)
    if device == "cuda" and (reason := without_cuda()):
        return reason
    if token is None or (boot is not None and boot == lock.boot()):
        return None
    return _unusable(storage, token=token)


@functools.cache
def _model(described: str, fingerprint: str, shape: tuple[int, int, int], classes: int) -> str | None:
    """Why the model, described in JSON, is not the one that was planned, if it is not."""
    model = Model.model_validate_json(described)
    try:
        found = models.identity(model, shape, classes).fingerprint
    except UserError as error:
        # What else it raises is a matter of its packs.
        return str(error) if "cannot be imported" in str(error) else None
    if found == fingerprint:
        return None
    return f"its {model.name} ({found}) is not the one that was planned ({fingerprint})"


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


def without_cuda() -> str | None:
    """Why CUDA does not work in this process, if it does not."""
    gpus, why = _gpus()
    return None if gpus else _no_cuda(why)


def without_cuda_anew() -> str | None:
    """The same, asked by a process of its own: what an error has done to this one's CUDA is not there."""
    ask = "from study.launch import node; print(node.without_cuda() or '')"
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path])
    try:
        asked = subprocess.run(
            [sys.executable, "-c", ask],
            capture_output=True,
            text=True,
            timeout=CUDA_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _no_cuda(type(error).__name__)
    if asked.returncode:
        return _no_cuda(f"a process that asked ended with {asked.returncode}")
    return asked.stdout.strip() or None


def _no_cuda(why: str | None) -> str:
    return f"CUDA does not work: {why or 'there is no GPU'}"


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
        # Packs wait for a store that has answered the driver; who asks for facts waits for none so long.
        place = Storage(storage, answered=token is not None)
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

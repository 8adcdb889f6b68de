"""What a worker tells the driver of its pack: Started, an Epoch after each, then Done, Failed, Broken or Stopped.

Or nothing but Unfit, where its node is not to train it.
"""

from __future__ import annotations

from dataclasses import dataclass

from study.ledger.records import Provenance, Record

ERROR_LINES = 12
"""Last lines of an error that a failed run's record keeps."""


@dataclass(frozen=True)
class Started:
    """The worker has started the pack."""

    node: str
    attempts: int = 0
    """How often its training was started before, according to its checkpoint."""
    device: str = "cpu"
    """What it is trained on: cpu, or the GPU's name."""


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended."""

    epoch: int
    """From 1."""
    warning: str | None = None


@dataclass(frozen=True)
class Done:
    """All runs of the pack have ended."""

    records: tuple[tuple[Record, bytes | None], ...]
    """Each run's record, and the bytes of its predictions where it has finished."""
    warning: str | None = None
    published: int = 0
    """Runs that W&B has taken whole since the worker last told."""


@dataclass(frozen=True)
class Failed:
    """Training raised an error at every attempt."""

    provenance: Provenance


@dataclass(frozen=True)
class Broken:
    """An error has left the worker's device unusable for this process: it is to be ended, and another tries."""

    error: str


@dataclass(frozen=True)
class Stopped:
    """The storage refused a checkpoint: this node cannot go on, nor the study if it is the storage's fault."""

    reason: str
    node: str = ""


@dataclass(frozen=True)
class Unfit:
    """The worker's node cannot train the pack, which is no fault of the pack: it goes elsewhere."""

    node: str
    reason: str


Message = Started | Epoch | Done | Failed | Broken | Stopped | Unfit

"""In-flight packs: written atomically, read without unpickling, and recognised when torn or foreign."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Container, Sequence
from typing import Any

import torch

from study.ledger.records import METRICS
from study.ledger.runs import Pack
from study.ledger.storage import Storage
from study.training.optimizer import shapes

MAGIC = b"pack checkpoint 1\n"


def name(pack: Pack) -> str:
    """The file of a pack's checkpoint."""
    return f"checkpoints/{pack.pack_id}.pt"


def save(storage: Storage, pack: Pack, state: dict[str, Any]) -> None:
    """Replace the pack's checkpoint. Raises StorageError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    storage.write(name(pack), MAGIC + hashlib.sha256(body).digest() + body)


def load(storage: Storage, pack: Pack) -> tuple[dict[str, Any] | None, str | None]:
    """The state to resume from, or None; and what is wrong with the file, if it cannot be used."""
    try:
        content = storage.read(name(pack))
    except FileNotFoundError:
        return None, None
    path = storage.path(name(pack))
    checksum, body = content[len(MAGIC) : len(MAGIC) + 32], content[len(MAGIC) + 32 :]
    if not content.startswith(MAGIC) or hashlib.sha256(body).digest() != checksum:
        return None, f"{path}: torn or no checkpoint; its pack is trained from the start"
    try:
        state = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
    except Exception as error:
        # Torch may raise almost anything for a file that is not its own.
        return None, f"{path}: refused ({type(error).__name__}); its pack is trained from the start"
    if not isinstance(state, dict) or state.get("run_ids") != [run.run_id for run in pack.runs]:
        return None, f"{path}: belongs to other runs; its pack is trained from the start"
    if not _complete(state, pack):
        return None, f"{path}: lacks what its pack needs to go on; it is trained from the start"
    return state, None


def _complete(state: dict[str, Any], pack: Pack) -> bool:
    """Whether a checkpoint holds all that `training.train` restores, in shapes that can be the pack's."""
    try:
        members, epochs = len(pack.runs), state["epochs_done"]
        curves = [*(state["history"][metric] for metric in METRICS), state["finite"]]
        parameters = [tuple(t.shape) for t in state["parameters"]]
        optimizer = {name: [tuple(t.shape) for t in tensors] for name, tensors in state["optimizer"].items()}
        # Frozen parameters have no state.
        trained = next(iter(optimizer.values()))
        buffers = [tuple(t.shape) for t in state["buffers"]]
        size = sum(math.prod(shape) for shape in parameters)
        return bool(
            0 < epochs < pack.runs[0].run.epochs
            and all(tuple(curve.shape) == (epochs, members) for curve in curves)
            and trained
            and set(trained) <= set(parameters)
            and optimizer == shapes(trained, pack.runs[0].run.optimizer)
            and all(shape[:1] == (members,) for shape in buffers)
            and size == sum(planned.n_parameters for planned in pack.runs)
            and state["train_seconds"] >= 0
            and state.setdefault("attempts", 1) >= 0
        )
    except (KeyError, TypeError, AttributeError, RuntimeError, StopIteration):
        return False


def delete(storage: Storage, pack: Pack) -> None:
    """Remove the pack's checkpoint, if there is one. Raises StorageError."""
    storage.delete(name(pack))


def delete_ended(storage: Storage, packs: Sequence[Pack], ended: Container[str]) -> None:
    """Remove the checkpoints of packs whose runs are all among those `ended`. Raises StorageError."""
    names = {f"checkpoints/{file}" for file in storage.names("checkpoints")}
    for pack in packs:
        if name(pack) in names and all(run.run_id in ended for run in pack.runs):
            delete(storage, pack)

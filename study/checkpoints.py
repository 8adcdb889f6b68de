"""In-flight packs: written atomically, read without unpickling, and recognised when torn or foreign."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Container, Sequence
from typing import Any

import torch

from study.runs import Pack
from study.storage import Storage

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
    """The state to go on from, or None; and what is wrong with the file there is, if it cannot be used."""
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
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        return None, f"{path}: refused ({type(error).__name__}); its pack is trained from the start"
    if not isinstance(state, dict) or state.get("run_ids") != [run.run_id for run in pack.runs]:
        return None, f"{path}: belongs to other runs; its pack is trained from the start"
    return state, None


def delete(storage: Storage, pack: Pack) -> None:
    """Remove the pack's checkpoint, if there is one. Raises StorageError."""
    storage.delete(name(pack))


def delete_ended(storage: Storage, packs: Sequence[Pack], ended: Container[str]) -> None:
    """Remove the checkpoints of packs whose runs are all among those `ended`. Raises StorageError."""
    names = {f"checkpoints/{file}" for file in storage.names("checkpoints")}
    for pack in packs:
        if name(pack) in names and all(run.run_id in ended for run in pack.runs):
            delete(storage, pack)

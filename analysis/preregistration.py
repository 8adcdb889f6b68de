"""Was the analysis made the one that the study declared before its first run?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from study.records import Launch


class Deviation(BaseModel):
    """A key of the analysis block that was used with another value than declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    declared: Any
    used: Any


class Preregistration(BaseModel):
    """The declared analysis block against the one used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    declared_sha256: str
    """Stored with the study's first launch, before any run had ended."""
    used_sha256: str
    as_declared: bool
    deviations: tuple[Deviation, ...]


def sha256(block: Mapping[str, Any]) -> str:
    """Hash of an analysis block: SHA-256 of its canonical JSON."""
    return hashlib.sha256(json.dumps(block, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def compare(launches: Sequence[Launch], used: Mapping[str, Any]) -> Preregistration:
    """What the first launch declared against the block used, key by key."""
    declared = launches[0].config["analysis"]
    keys = sorted(set(declared) | set(used))
    deviations = [
        Deviation(key=key, declared=declared.get(key), used=used.get(key))
        for key in keys
        if declared.get(key) != used.get(key)
    ]
    return Preregistration(
        declared_sha256=launches[0].analysis_sha256,
        used_sha256=sha256(used),
        as_declared=launches[0].analysis_sha256 == sha256(used),
        deviations=tuple(deviations),
    )

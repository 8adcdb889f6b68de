"""Named random streams: every seed is the hash of a name, never a sum of numbers.

Neighbouring seeds made by `seed + epoch` share most of their streams; hashed names share nothing.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream(*name: str | int) -> int:
    """The seed of the stream called `name`, e.g. `stream("init", seed, model)`: an integer in [0, 2**63)."""
    digest = hashlib.sha256(json.dumps(name).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*name: str | int) -> np.random.Generator:
    """A NumPy generator on the stream called `name`."""
    return np.random.default_rng(stream(*name))

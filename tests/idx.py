"""Writes small folders of IDX files, for tests that need a dataset but not MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from study.training.data import FILES


def idx(array: np.ndarray) -> bytes:
    """An array as the bytes of an IDX file."""
    types = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    kind = types[array.dtype.str[1:]]
    return (
        bytes((0, 0, kind, array.ndim))
        + np.array(array.shape, ">u4").tobytes()
        + array.astype(f">{array.dtype.str[1:]}").tobytes()
    )


def write(folder: Path, arrays: list[np.ndarray], *, compressed: bool = True) -> Path:
    """Write train images, train labels, test images, test labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(FILES, arrays, strict=True):
        if compressed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(idx(array), mtime=0))
        else:
            (folder / file).write_bytes(idx(array))
    return folder


def learnable(
    n_train: int = 600, n_test: int = 200, classes: int = 10, side: int = 28, seed: int = 0
) -> list[np.ndarray]:
    """Noisy class prototypes: easy to learn within an epoch, and not perfectly."""
    rng = np.random.default_rng(seed)
    prototypes = rng.integers(0, 256, (classes, side, side))
    arrays = []
    for n in (n_train, n_test):
        labels = np.arange(n) % classes
        noise = rng.normal(0, 110, (n, side, side))
        arrays += [np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8), labels.astype(np.uint8)]
    return arrays

"""Which test images belong together, as those one hand wrote: ids read from a file, and their checksum."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from study.errors import UserError

WRITER = 2
"""The column of QMNIST's labels that names the writer (Yadav and Bottou 2019)."""

LARGEST = 2**28
"""Bytes that the file may decompress to."""


def read(path: str | Path, n_images: int) -> np.ndarray:
    """The cluster of each of `n_images` test images, int64, numbered from 0 by first appearance.

    The file holds one id a line, or is a .npy file of integers, or the labels of QMNIST's test images as torchvision
    downloads them, whose first 10,000 are MNIST's; each packed by gzip or not. Raises UserError.
    """
    content = _content(Path(path))
    if content[:3] == b"\0\0\x0c":
        ids = _writers(content, path)[:n_images]
    elif content[:6] == b"\x93NUMPY":
        try:
            ids = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UserError(f"{path}: not a .npy file of numbers: {error}") from None
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise UserError(f"{path}: found {ids.dtype} of shape {ids.shape}; allowed: one integer for each test image")
    else:
        try:
            ids = np.array(content.decode("utf-8").split("\n"))
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a text file in UTF-8 with one id a line") from None
        ids = np.char.strip(ids[:-1] if ids[-1] == "" else ids)
        if (blank := np.flatnonzero(ids == "")).size:
            raise UserError(f"{path}: line {blank[0] + 1}: found nothing; allowed: the id of a test image's cluster")
    if len(ids) != n_images:
        raise UserError(f"{path}: found {len(ids):,} ids; allowed: {n_images:,}, one for each test image")
    return numbered(ids)


def numbered(ids: np.ndarray) -> np.ndarray:
    """Ids of any kind [image] as int64, numbered from 0 by first appearance: the same for the same clusters."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def sha256(clusters: np.ndarray) -> str:
    """Checksum of numbered ids [image]: of their numbers as text, one a line."""
    return hashlib.sha256("\n".join(map(str, clusters.tolist())).encode()).hexdigest()


def _writers(content: bytes, path: str | Path) -> np.ndarray:
    """The writers in an IDX file of QMNIST's labels: big-endian int32 [image, 8]."""
    axes = content[3]
    shape = tuple(map(int, np.frombuffer(content[4 : 4 + 4 * axes], ">u4"))) if len(content) >= 4 + 4 * axes else ()
    data = content[4 + 4 * axes :]
    if axes != 2 or len(shape) != 2 or shape[1] <= WRITER or len(data) != 4 * math.prod(shape):
        raise UserError(f"{path}: found an IDX file of shape {shape}; allowed: QMNIST's labels, 8 numbers an image")
    return np.frombuffer(data, ">i4").reshape(shape)[:, WRITER]


def _content(path: Path) -> bytes:
    """The bytes of a file, decompressed where they are packed. Raises UserError."""
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = "truncated" if isinstance(error, EOFError) else getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST:,} bytes")
    return content

"""Datasets as four IDX files: found, checked by SHA-256, held as uint8 arrays, split once."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from study.config import Images
from study.errors import UserError
from study.ledger.records import DatasetInfo
from study.seeding import generator

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST_SHA256 = dict(
    zip(
        FILES,
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        strict=True,
    )
)
PACKAGED = Path(__file__).parent.parent / "datasets" / "mnist"
DOWNLOADED = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
"""Datasets that torchvision downloads, under its name for them."""

LARGEST = 2**31
"""Bytes that one decompressed IDX file may have: a small hostile archive must not fill the memory."""


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [image, height, width], labels uint8 [image], and what study.json says of them."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    info: DatasetInfo


def load(images: str | Images) -> Dataset:
    """The dataset of a config: mnist, fashion_mnist, kmnist, or a folder of IDX files, compressed or not.

    Raises UserError, one line, when a file is missing, truncated, altered or not IDX.
    """
    name = images if isinstance(images, str) else images.name
    if name == "mnist":
        folder, expected = PACKAGED, MNIST_SHA256
    elif name in DOWNLOADED:
        folder, expected = _download(name), {}
    elif Path(name).is_dir():
        folder, expected = Path(name), {}
    else:
        allowed = ", ".join(("mnist", *DOWNLOADED))
        raise UserError(f"dataset: found {name!r}; allowed: {allowed}, or an existing folder of IDX files")
    # What torchvision unpacked beside the archives nobody has checked.
    contents = {file: _read(folder, file, unpacked=name not in DOWNLOADED) for file in FILES}
    checksums = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    for file, checksum in expected.items():
        if checksums[file] != checksum:
            raise UserError(f"{folder / file}: altered: SHA-256 is {checksums[file][:12]}…, not {checksum[:12]}…")
    arrays = [_parse(folder / file, content) for file, content in contents.items()]
    title = name if name == "mnist" or name in DOWNLOADED else Path(name).resolve().name
    return _dataset(title, folder, arrays, checksums)


def split(n_train: int, validation_size: int, split_seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training split, validation split) of the training file's images, int64, by a seeded permutation.

    Raises UserError when the validation split would leave nothing to train on.
    """
    if not 0 < validation_size < n_train:
        raise UserError(
            f"training.validation_size: found {validation_size}; allowed: 1 to {n_train - 1} for this dataset"
        )
    permutation = generator("split", split_seed).permutation(n_train)
    return permutation[validation_size:], permutation[:validation_size]


def _download(name: str) -> Path:
    """The folder of a dataset's archives, fetched unless they are there; torchvision knows the MD5 of each.

    Raises UserError when they cannot be fetched, or are not what they should be.
    """
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind = getattr(datasets, DOWNLOADED[name])
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lenet5-vs-mlp"
    try:
        folder = Path(kind(str(cache), download=True).raw_folder)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"dataset: {name} could not be downloaded to {cache}: {reason[:200]}") from None
    for archive, md5 in kind.resources:
        # torchvision asks only whether the unpacked files are there.
        if not check_integrity(folder / archive, md5):
            raise UserError(f"{folder / archive}: missing or altered; delete {folder} to have it fetched again")
    return folder


def _read(folder: Path, file: str, *, unpacked: bool = True) -> bytes:
    """The decompressed bytes of an IDX file, stored as itself (if `unpacked` is to be looked for) or with .gz."""
    plain, compressed = folder / file, folder / f"{file}.gz"
    path = plain if unpacked and plain.is_file() else compressed
    try:
        with open(path, "rb") if path is plain else gzip.open(path) as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise UserError(f"{plain}: missing, with or without .gz") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = "truncated" if isinstance(error, EOFError) else " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST:,} bytes")
    return content


def _parse(path: Path, content: bytes) -> np.ndarray:
    """IDX: two zero bytes, a type (8 is uint8), the number of axes, each axis as big-endian uint32, the data."""
    axes = 3 if "idx3" in path.name else 1
    header = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < header:
        raise UserError(f"{path}: not an IDX file of unsigned bytes with {axes} axes")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", axes, offset=4))
    if len(content) - header != math.prod(shape):
        found = "truncated" if len(content) - header < math.prod(shape) else "too long"
        raise UserError(f"{path}: {found}: {len(content) - header:,} bytes of data for the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _dataset(name: str, folder: Path, arrays: list[np.ndarray], checksums: dict[str, str]) -> Dataset:
    train_images, train_labels, test_images, test_labels = arrays
    for part, images, labels in (("train", train_images, train_labels), ("t10k", test_images, test_labels)):
        if len(images) != len(labels) or images.size == 0:
            raise UserError(
                f"{folder}: {part} has {len(images)} images and {len(labels)} labels; allowed: equally many, not 0"
            )
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(f"{folder}: training images are {train_images.shape[1:]}, test images {test_images.shape[1:]}")
    # Sums of integers are exact, so the constants are the same everywhere; four decimals, as the field quotes them.
    n = train_images.size
    mean = int(train_images.sum(dtype=np.int64)) / n
    squares = (np.square(part, dtype=np.uint16).sum(dtype=np.int64) for part in np.array_split(train_images, 100))
    variance = int(sum(squares)) / n - mean**2
    if variance == 0:
        raise UserError(f"{folder}: all training pixels are equal, so they cannot be normalised")
    return Dataset(
        train_images,
        train_labels,
        test_images,
        test_labels,
        info=DatasetInfo(
            name=name,
            sha256=hashlib.sha256("".join(checksums[file] for file in FILES).encode()).hexdigest(),
            files=checksums,
            n_train=len(train_labels),
            n_test=len(test_labels),
            classes=int(max(train_labels.max(), test_labels.max())) + 1,
            shape=(1, *train_images.shape[1:]),
            pixel_mean=round(mean / 255, 4),
            pixel_sd=round(math.sqrt(variance) / 255, 4),
        ),
    )

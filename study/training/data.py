"""Datasets: found under their usual names, checked, held as four uint8 arrays, split once."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from study.config import Images
from study.errors import UserError
from study.ledger import clusters
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
DOWNLOADED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "fashion_mnist": ("FashionMNIST", {}),
    "kmnist": ("KMNIST", {}),
    "qmnist": ("QMNIST", {}),
    **{
        f"emnist/{split}": ("EMNIST", {"split": split})
        for split in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
    },
    "usps": ("USPS", {}),
    "cifar10": ("CIFAR10", {}),
}
"""Datasets that torchvision downloads: its class for them, and that class's options."""

NAMES = re.compile(
    r"(?:.*[-_.])?(?P<part>train|t10k|test)[-_.](?P<kind>images|labels)[-_.]idx\d[-_.][a-z]+(?:\.gz)?", re.IGNORECASE
)
"""Names of IDX files: those of MNIST's site, with a dataset's name before them, with dots as some archivers write."""

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
"""The third byte of an IDX file, and the type of its numbers."""

ARRAYS = (("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels"))
"""Names of the four arrays in a .npz file: those of Keras, those of MedMNIST."""

LARGEST = 2**31
"""Largest decompressed file, in bytes: a small hostile archive must not fill the memory."""


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [image, height, width], or [image, channel, height, width] in colour, as they are stored.

    Labels uint8 [image], from 0; and what study.json says of them.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    info: DatasetInfo
    test_clusters: np.ndarray | None = None
    """Which test images belong together, as those of one writer, int64 [image]; None where nobody says."""


def load(images: str | Images) -> Dataset:
    """The dataset of a config: mnist, one that torchvision downloads, a folder of IDX files, or a .npz file.

    Its arrays are the images as stored; `info.shape` is what models see, padded and repeated as the config says. Raises
    UserError, one line, when a file is missing, truncated, altered or not what it should be.
    """
    options = Images(name=images) if isinstance(images, str) else images
    path, title = Path(options.name), options.name
    if options.name == "mnist":
        path, arrays = PACKAGED, [_idx(file) for file in _find(PACKAGED)]
    elif options.name in DOWNLOADED:
        arrays = _download(options.name)
    elif path.is_dir():
        title, arrays = path.resolve().name, [_idx(file) for file in _find(path)]
    elif path.is_file():
        title, arrays = path.stem, _npz(path)
    else:
        allowed = ", ".join(("mnist", *DOWNLOADED))
        raise UserError(
            f"dataset: found {title!r}; allowed: {allowed}, or an existing folder of IDX files or .npz file"
        )
    dataset = _dataset(title, path, arrays, options)
    for file, expected in MNIST_SHA256.items() if options.name == "mnist" else ():
        if (found := dataset.info.files[file]) != expected:
            raise UserError(f"{path / file}: altered: SHA-256 is {found[:12]}…, not {expected[:12]}…")
    return replace(dataset, test_clusters=_clusters(options.name, path, dataset.info.n_test))


def _clusters(name: str, path: Path, n_test: int) -> np.ndarray | None:
    """The clusters of the test images: the writers of MNIST's and QMNIST's, where torchvision has downloaded QMNIST;

    of a folder, what its file `test-clusters` says. None where there is no such file.
    """
    places = [path / "test-clusters"]
    if name in ("mnist", "qmnist"):
        labels = _cache() / "QMNIST" / "raw" / "qmnist-test-labels-idx2-int"
        places = [labels, labels.with_suffix(".gz")]
    return next((clusters.read(place, n_test) for place in places if place.is_file()), None)


def _cache() -> Path:
    """Where torchvision downloads datasets to."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lenet5-vs-mlp"


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


def _download(name: str) -> list[np.ndarray]:
    """The four arrays of a dataset, fetched unless they are there; torchvision knows the MD5 of each archive.

    Raises UserError when they cannot be fetched, or are not what they should be.
    """
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    title, options = DOWNLOADED[name]
    kind = getattr(datasets, title)
    cache = _cache()
    try:
        train, test = (kind(str(cache), train=part, download=True, **options) for part in (True, False))
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"dataset: {name} could not be downloaded to {cache}: {reason[:200]}") from None
    folder, archives = cache, []
    if title in ("FashionMNIST", "KMNIST", "QMNIST"):
        resources = kind.resources
        listed = resources["train"] + resources["test"] if isinstance(resources, dict) else resources
        folder, archives = Path(train.raw_folder), [(url.rpartition("/")[2], md5) for url, md5 in listed]
    elif title == "USPS":
        archives = [kind.split_list[part][1:] for part in ("train", "test")]
    for archive, md5 in archives:
        # torchvision only checks that files exist, both archives and unpacked files.
        if not check_integrity(folder / archive, md5):
            raise UserError(f"{folder / archive}: missing or altered; delete {folder} to have it fetched again")
    if folder != cache:
        return [_idx(folder / archive) for archive, _ in archives]
    return [np.asarray(array) for part in (train, test) for array in (part.data, part.targets)]


def _find(folder: Path) -> list[Path]:
    """The four IDX files of a folder, or of the one `raw` below it, as in torchvision's root, in the order of FILES.

    Raises UserError when one is missing, or is there more than once.
    """
    places = [place for place in (folder, folder / "raw", *sorted(folder.glob("*/raw"))) if place.is_dir()]
    found = {place: files for place in places if any(files := _named(place))}
    if folder in found:
        found = {folder: found[folder]}
    if len(found) > 1:
        raise UserError(f"{folder}: found datasets in {', '.join(map(str, found))}; allowed: one of them")
    nothing: list[list[Path]] = [[] for _ in FILES]
    place, files = next(iter(found.items()), (folder, nothing))
    for file, candidates in zip(FILES, files, strict=True):
        if not candidates:
            beside = ", ".join(sorted(path.name for path in place.iterdir())[:6]) or "nothing"
            raise UserError(f"{place / file}: missing, with or without .gz; found in its folder: {beside}")
        if len(candidates) > 1:
            names = ", ".join(path.name for path in candidates)
            raise UserError(f"{place}: found {names}; allowed: one file for {file}")
    return [path for (path,) in files]


def _named(place: Path) -> list[list[Path]]:
    """The files of each name in FILES; where one is there packed and unpacked, the unpacked."""
    files: dict[str, dict[str, Path]] = {file: {} for file in FILES}
    for path in sorted(place.iterdir(), key=lambda path: path.suffix.lower() != ".gz"):
        if match := NAMES.fullmatch(path.name):
            file = FILES[2 * (match["part"].lower() != "train") + (match["kind"].lower() == "labels")]
            # Some archivers unpack a file into a folder of its name.
            files[file][path.name.lower().removesuffix(".gz")] = path / path.name if path.is_dir() else path
    return [sorted(candidates.values()) for candidates in files.values()]


def _idx(path: Path) -> np.ndarray:
    """The array in an IDX file, packed or not. Raises UserError.

    IDX: two zero bytes, a type, the number of axes, each axis as big-endian uint32, the data.
    """
    content = _content(path)
    little = UserError(f"{path}: written in little-endian order; allowed: IDX, whose numbers are big-endian")
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or not 0 < content[3] < 9:
        if len(content) > 4 and content[2:4] == b"\0\0" and content[1] in TYPES:
            raise little
        begin = content[:20].decode("ascii", "replace")
        raise UserError(f"{path}: not an IDX file: it begins with {begin!r}; allowed: two zero bytes, a type, the axes")
    kind, axes = np.dtype(f">{TYPES[content[2]]}"), content[3]
    sizes, data = content[4 : 4 + 4 * axes], content[4 + 4 * axes :]
    shape, reversed_ = (tuple(map(int, np.frombuffer(sizes[: len(sizes) // 4 * 4], order))) for order in (">u4", "<u4"))
    if len(data) != math.prod(shape) * kind.itemsize:
        if len(data) == math.prod(reversed_) * kind.itemsize:
            raise little
        found = "truncated" if len(data) < math.prod(shape) * kind.itemsize else "too long"
        raise UserError(f"{path}: {found}: {len(data):,} bytes of data for the shape {shape}")
    return np.frombuffer(data, kind).reshape(shape)


def _content(path: Path) -> bytes:
    """The bytes of a file, decompressed where they are packed, whatever its name says. Raises UserError."""
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = "truncated" if isinstance(error, EOFError) else " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST:,} bytes")
    return content


def _npz(path: Path) -> list[np.ndarray]:
    """The four arrays of a .npz file. Raises UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size > LARGEST for member in archive.infolist()):
                raise UserError(f"{path}: holds an array larger than {LARGEST:,} bytes")
        with np.load(path, allow_pickle=False) as found:
            for names in ARRAYS:
                if set(names) <= set(found.files):
                    return [found[name] for name in names]
            allowed = " or ".join(", ".join(names) for names in ARRAYS)
            raise UserError(f"{path}: found the arrays {', '.join(found.files) or 'none'}; allowed: {allowed}")
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as a .npz file: {' '.join(str(error).split())[:200]}") from None


def _pixels(images: np.ndarray, what: str) -> np.ndarray:
    """Images of any type and layout as uint8 [image, height, width], or [image, channel, height, width] in colour.

    Numbers from 0 to 1, if they are fractions, or from 0 to 255. Raises UserError.
    """
    if images.ndim == 2 and math.isqrt(images.shape[1]) ** 2 == images.shape[1]:
        images = images.reshape(len(images), math.isqrt(images.shape[1]), -1)
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] != 3) or images.size == 0:
        raise UserError(f"{what}: found an array of shape {images.shape}; allowed: images of one or three channels")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "iuf":
        raise UserError(f"{what}: found pixels of type {images.dtype}; allowed: numbers")
    low, high = images.min(), images.max()
    # Not `<`, which NaN would pass.
    if not (low >= 0 and high <= 255):
        raise UserError(f"{what}: found pixels from {low:g} to {high:g}; allowed: from 0 to 1, or from 0 to 255")
    scale = 255 if images.dtype.kind == "f" and high <= 1 else 1
    return np.ascontiguousarray(np.rint(images * images.dtype.type(scale)), dtype=np.uint8)


def _whole(labels: np.ndarray, what: str) -> np.ndarray:
    """Labels of any type as int64 [image]. Raises UserError."""
    # QMNIST's labels have seven more columns, of the writer and the like.
    if labels.ndim == 2 and labels.shape[1] in (1, 8):
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuf" or not np.all(labels == np.rint(labels)):
        raise UserError(f"{what}: found {labels.dtype} of shape {labels.shape}; allowed: one whole number an image")
    if len(labels) and (largest := np.abs(labels.astype(np.float64)).max()) >= 2**16:
        little = labels.dtype.kind != "f" and np.abs(labels.byteswap().astype(np.float64)).max() < 2**16
        why = ", as if written in little-endian order" if little else ""
        raise UserError(f"{what}: found the label {largest:,.0f}{why}; allowed: classes")
    return labels.astype(np.int64)


def _dataset(name: str, where: Path, arrays: list[np.ndarray], options: Images) -> Dataset:
    names = [f"{where}: {file}" for file in FILES]
    train_images, test_images = (_pixels(arrays[i], names[i]) for i in (0, 2))
    train_labels, test_labels = (_whole(arrays[i], names[i]) for i in (1, 3))
    for part, images, labels in (("train", train_images, train_labels), ("t10k", test_images, test_labels)):
        if len(images) != len(labels):
            raise UserError(f"{where}: {part} has {len(images)} images and {len(labels)} labels; allowed: equally many")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(f"{where}: training images are {train_images.shape[1:]}, test images {test_images.shape[1:]}")
    classes = np.unique(np.concatenate([train_labels, test_labels]))
    mapped = classes[0] != 0
    if mapped:
        train_labels, test_labels = (np.searchsorted(classes, labels) for labels in (train_labels, test_labels))
    n_classes = 1 + int(max(train_labels.max(), test_labels.max()))
    if n_classes > 256:
        raise UserError(f"{where}: found labels up to {n_classes - 1}; allowed: at most 256 classes")
    train_labels, test_labels = train_labels.astype(np.uint8), test_labels.astype(np.uint8)
    channels, height, width = train_images.shape[1:] if train_images.ndim == 4 else (1, *train_images.shape[1:])
    if options.channels == 1 < channels:
        raise UserError("dataset.channels: found 1; allowed: 3, since these images have 3")
    mean, sd = _constants(train_images, where) if options.normalise else (0.0, 1.0)
    parts = train_images, train_labels, test_images, test_labels
    checksums = {file: _checksum(array) for file, array in zip(FILES, parts, strict=True)}
    return Dataset(
        *parts,
        info=DatasetInfo(
            name=name,
            sha256=hashlib.sha256("".join(checksums.values()).encode()).hexdigest(),
            files=checksums,
            n_train=len(train_labels),
            n_test=len(test_labels),
            classes=n_classes,
            labels=tuple(classes.tolist()) if mapped else None,
            shape=(options.channels or channels, height + 2 * options.pad, width + 2 * options.pad),
            pixel_mean=mean,
            pixel_sd=sd,
        ),
    )


def _constants(images: np.ndarray, where: Path) -> tuple[float, float]:
    """Mean and SD of pixels in [0, 1], over all images as stored. Raises UserError where they cannot be normalised."""
    # Sums of integers are exact, so the constants are the same everywhere; four decimals, as the field quotes them.
    mean = int(images.sum(dtype=np.int64)) / images.size
    squares = (np.square(part, dtype=np.uint16).sum(dtype=np.int64) for part in np.array_split(images, 100))
    variance = int(sum(squares)) / images.size - mean**2
    sd = round(math.sqrt(max(0.0, variance)) / 255, 4)
    if sd == 0:
        raise UserError(f"{where}: all training pixels are equal, or nearly, so they cannot be normalised")
    return round(mean / 255, 4), sd


def _checksum(array: np.ndarray) -> str:
    """SHA-256 of a uint8 array as an IDX file, whatever file it came from."""
    digest = hashlib.sha256(bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes())
    digest.update(array.data)
    return digest.hexdigest()

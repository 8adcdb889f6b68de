import bz2
import gzip
import hashlib
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import datasets

from study.__main__ import main
from study.config import Images
from study.errors import UserError
from study.training import data
from tests import idx


@pytest.fixture(scope="module")
def mnist():
    return data.load("mnist")


def test_mnist_is_mnist(mnist):
    assert mnist.train_images.shape == (60000, 28, 28)
    assert mnist.test_images.shape == (10000, 28, 28)
    assert mnist.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert (mnist.info.pixel_mean, mnist.info.pixel_sd, mnist.info.classes) == (0.1307, 0.3081, 10)
    scaled = mnist.train_images / 255
    assert round(scaled.mean(), 4) == mnist.info.pixel_mean
    assert round(scaled.std(), 4) == mnist.info.pixel_sd


def test_the_split_is_seeded_and_covers_everything_once():
    train, validation = data.split(60000, 5000, 0)
    assert (len(train), len(validation)) == (55000, 5000)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(60000))
    assert np.array_equal(data.split(60000, 5000, 0)[1], validation)
    assert len(np.intersect1d(data.split(60000, 5000, 1)[1], validation)) < 600


@pytest.mark.parametrize("compressed", [True, False])
def test_a_folder_of_idx_files(tmp_path, compressed):
    arrays = idx.learnable(60, 20)
    found = data.load(str(idx.write(tmp_path / "mine", arrays, compressed=compressed)))
    for array, expected in zip(
        (found.train_images, found.train_labels, found.test_images, found.test_labels), arrays, strict=True
    ):
        assert np.array_equal(array, expected)
    assert (found.info.name, found.info.n_train, found.info.n_test) == ("mine", 60, 20)


def test_compression_and_place_do_not_change_the_identity(tmp_path):
    arrays = idx.learnable(60, 20)
    one = data.load(str(idx.write(tmp_path / "one", arrays, compressed=True)))
    two = data.load(str(idx.write(tmp_path / "two", arrays, compressed=False)))
    assert one.info.sha256 == two.info.sha256


def test_an_altered_mnist_is_refused(tmp_path, monkeypatch, mnist):
    images = mnist.test_images.copy()
    images[0, 0, 0] ^= 1
    idx.write(tmp_path, [mnist.train_images, mnist.train_labels, images, mnist.test_labels], compressed=False)
    monkeypatch.setattr(data, "PACKAGED", tmp_path)
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte: altered: SHA-256 is"):
        data.load("mnist")


def same(found, arrays):
    stored = (found.train_images, found.train_labels, found.test_images, found.test_labels)
    bytes_ = all(array.dtype == np.uint8 and array.flags.c_contiguous for array in stored)
    return bytes_ and all(np.array_equal(one, other) for one, other in zip(stored, arrays, strict=True))


RENAMED = {
    "dots": lambda file: file.replace("-idx", ".idx"),
    "upper case": str.upper,
    "EMNIST's": lambda file: f"emnist-letters-{file.replace('t10k', 'test')}.gz",
    "a folder a file": lambda file: f"{file}/{file}",
    "torchvision's root": lambda file: f"MNIST/raw/{file}",
    "packed in transit, under a plain name": str,
}


@pytest.mark.parametrize("names", RENAMED)
def test_files_are_found_under_the_names_that_people_have(tmp_path, names):
    arrays = idx.learnable(60, 20)
    for file, array in zip(data.FILES, arrays, strict=True):
        path = tmp_path / RENAMED[names](file)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = idx.idx(array)
        path.write_bytes(gzip.compress(content) if "packed" in names else content)
    found = data.load(str(tmp_path))
    assert same(found, arrays)
    assert found.info.sha256 == data.load(str(idx.write(tmp_path / "plain", arrays))).info.sha256


def test_two_datasets_below_one_folder_are_told_apart(tmp_path):
    for name in ("MNIST", "FashionMNIST"):
        idx.write(tmp_path / name / "raw", idx.learnable(60, 20))
    with pytest.raises(UserError, match=r"found datasets in .*/FashionMNIST/raw, .*/MNIST/raw; allowed: one of them$"):
        data.load(str(tmp_path))
    assert data.load(str(tmp_path / "MNIST")).info.n_train == 60


def test_numbers_of_any_type_are_the_same_data(tmp_path):
    arrays = idx.learnable(60, 20)
    expected = data.load(str(idx.write(tmp_path / "bytes", arrays))).info.sha256
    for kind in ("f4", "f8", "i2", "i4"):
        scale = 255 if kind[0] == "f" else 1
        others = [a.astype(kind) / scale if a.ndim == 3 else a.astype(kind) for a in arrays]
        found = data.load(str(idx.write(tmp_path / kind, [a.astype(kind) for a in others])))
        assert same(found, arrays)
        assert found.info.sha256 == expected


def test_labels_that_do_not_start_at_0_are_mapped_and_that_is_said(tmp_path):
    images, labels, test_images, test_labels = idx.learnable(60, 20)
    letters = data.load(str(idx.write(tmp_path / "letters", [images, labels + 1, test_images, test_labels + 1])))
    assert same(letters, [images, labels, test_images, test_labels])
    assert letters.info.relabelled == "the labels 1 to 10 of letters are trained as 0 to 9"
    arrays = [images, np.where(labels % 2, 3, 8), test_images, np.where(test_labels % 2, 3, 8)]
    pair = data.load(str(idx.write(tmp_path / "pair", [a.astype(np.uint8) for a in arrays])))
    assert (pair.info.classes, pair.info.labels) == (2, (3, 8))
    assert np.array_equal(pair.train_labels, 1 - labels % 2)
    assert pair.info.relabelled == "the labels 3, 8 of pair are trained as 0 to 1"
    assert data.load(str(idx.write(tmp_path / "plain", idx.learnable(60, 20)))).info.relabelled is None


def colour(images):
    """Three different channels [image, channel, height, width] of grey images."""
    return np.stack([images, 255 - images, images // 2], 1)


def test_three_channels_in_idx_and_npz_of_either_layout(tmp_path):
    images, labels, test_images, test_labels = idx.learnable(60, 20)
    arrays = [colour(images), labels, colour(test_images), test_labels]
    found = data.load(str(idx.write(tmp_path / "idx", arrays)))
    assert same(found, arrays)
    assert found.info.shape == (3, 28, 28)
    keras = [np.moveaxis(arrays[0], 1, 3), labels[:, None], np.moveaxis(arrays[2], 1, 3), test_labels[:, None]]
    for names in data.ARRAYS:
        np.savez(tmp_path / "colour.npz", **dict(zip(names, keras, strict=True)))
        again = data.load(str(tmp_path / "colour.npz"))
        assert same(again, arrays)
        assert again.info == found.info.model_copy(update={"name": "colour"})


def test_flat_images_in_an_npz(tmp_path):
    arrays = idx.learnable(60, 20)
    flat = [a.reshape(len(a), -1) / 255 if a.ndim == 3 else a for a in arrays]
    np.savez(tmp_path / "flat.npz", **dict(zip(data.ARRAYS[0], flat, strict=True)))
    assert same(data.load(str(tmp_path / "flat.npz")), arrays)


def test_a_bad_npz_is_one_line(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(
        UserError, match="found the arrays a; allowed: x_train, y_train, x_test, y_test or train_images"
    ):
        data.load(str(path))
    np.savez(path, **dict.fromkeys(data.ARRAYS[0], np.array([print], object)))
    with pytest.raises(UserError, match=r"cannot be read as a \.npz file: Object arrays cannot be loaded"):
        data.load(str(path))
    path.write_bytes(b"PK\3\4 no zip")
    with pytest.raises(UserError, match=r"cannot be read as a \.npz file"):
        data.load(str(path))


def test_options_say_what_models_see(tmp_path):
    folder = str(idx.write(tmp_path / "grey", idx.learnable(60, 20)))
    plain = data.load(folder).info
    padded = data.load(Images(name=folder, pad=2, channels=3)).info
    assert padded.shape == (3, 32, 32)
    assert padded.model_copy(update={"shape": plain.shape}) == plain
    raw = data.load(Images(name=folder, normalise=False)).info
    assert (raw.pixel_mean, raw.pixel_sd) == (0, 1)
    images, labels, test_images, test_labels = idx.learnable(60, 20)
    idx.write(tmp_path / "colour", [colour(images), labels, colour(test_images), test_labels])
    with pytest.raises(UserError, match=r"dataset\.channels: found 1; allowed: 3, since these images have 3"):
        data.load(Images(name=str(tmp_path / "colour"), channels=1))


def damage_missing(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


def damage_truncated_gzip(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])


def damage_truncated(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def damage_no_gzip(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")


def damage_kind(folder):
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01" + b"\0" * 40))


def damage_order(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(content[:4] + np.array((60, 28, 28), "<u4").tobytes() + content[16:])


def damage_whole_order(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(content[3::-1] + np.array((60, 28, 28), "<u4").tobytes() + content[16:])


def damage_label_order(folder):
    labels = np.arange(60) % 10
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(bytes((0, 0, 12, 1)) + np.array(60, ">u4").tobytes() + labels.astype("<i4").tobytes())


def damage_range(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(idx.idx(np.linspace(-1, 1, 60 * 784).reshape(60, 28, 28)))


def damage_constant(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(idx.idx(np.ones((60, 28, 28), np.uint8)))


def damage_twice(folder):
    labels = folder / "train-labels-idx1-ubyte.gz"
    (folder / "other-train-labels-idx1-ubyte.gz").write_bytes(labels.read_bytes())


def damage_all(folder):
    for path in folder.iterdir():
        path.unlink()


def damage_counts(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx.idx(np.zeros(7, np.uint8))))


DAMAGES = {
    "missing, with or without .gz": damage_missing,
    "truncated: ": damage_truncated,
    "not an IDX file: it begins with '<html>not found": damage_no_gzip,
    "cannot be read: truncated": damage_truncated_gzip,
    "too long: 36 bytes of data for the shape": damage_kind,
    "written in little-endian order; allowed: IDX, whose numbers are big-endian": damage_order,
    "written in little-endian order; allowed: IDX, whose": damage_whole_order,
    "found the label 150,994,944, as if written in little-endian order": damage_label_order,
    "found pixels from -1 to 1; allowed: from 0 to 1, or from 0 to 255": damage_range,
    "all training pixels are equal, or nearly, so they cannot be normalised": damage_constant,
    "allowed: one file for train-labels-idx1-ubyte": damage_twice,
    "found in its folder: nothing": damage_all,
    "20 images and 7 labels": damage_counts,
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_folder_is_one_clear_line(tmp_path, message):
    folder = idx.write(tmp_path, idx.learnable(60, 20))
    DAMAGES[message](folder)
    with pytest.raises(UserError, match=message) as error:
        data.load(str(folder))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_a_misspelt_dataset_names_what_is_allowed():
    with pytest.raises(
        UserError,
        match=r"found .mnsit.; allowed: mnist, fashion_mnist, kmnist, qmnist, emnist/balanced, .*, or an existing fold",
    ):
        data.load("mnsit")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A user's cache that holds kmnist as torchvision leaves it, and no network to fetch it from."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    folder = tmp_path / "lenet5-vs-mlp" / "KMNIST" / "raw"
    for compressed in (True, False):
        idx.write(folder, idx.learnable(60, 20), compressed=compressed)
    md5 = [(f"{file}.gz", hashlib.md5((folder / f"{file}.gz").read_bytes()).hexdigest()) for file in data.FILES]
    monkeypatch.setattr(datasets.KMNIST, "resources", md5)
    return folder


def test_a_downloaded_dataset_is_what_its_archives_hold(cache):
    before = data.load("kmnist")
    assert (before.info.name, before.info.n_train, before.info.n_test) == ("kmnist", 60, 20)
    labels = cache / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\7")
    after = data.load("kmnist")
    assert np.array_equal(after.train_labels, before.train_labels)
    assert after.info == before.info


def test_an_altered_download_is_refused(cache):
    archive = cache / "t10k-images-idx3-ubyte.gz"
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(UserError) as error:
        data.load("kmnist")
    assert str(error.value) == f"{archive}: missing or altered; delete {cache} to have it fetched again"


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_emnist_as_torchvision_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images, labels, test_images, test_labels = idx.learnable(60, 20)
    folder = tmp_path / "lenet5-vs-mlp" / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    arrays = [images, labels + 1, test_images, test_labels + 1]
    for file, array in zip(data.FILES, arrays, strict=True):
        (folder / f"emnist-letters-{file.replace('t10k', 'test')}").write_bytes(idx.idx(array))
    found = data.load("emnist/letters")
    assert same(found, [images, labels, test_images, test_labels])
    assert (found.info.name, found.info.labels) == ("emnist/letters", tuple(range(1, 11)))


def test_qmnist_as_torchvision_leaves_it(tmp_path, monkeypatch):
    """Eight numbers a label: the class is the first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arrays = idx.learnable(60, 20)
    folder = tmp_path / "lenet5-vs-mlp" / "QMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = {}
    for part, images, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        columns = np.column_stack([labels, np.full((len(labels), 7), 99)]).astype("i4")
        resources[part] = []
        for name, array in ((f"qmnist-{part}-images-idx3-ubyte", images), (f"qmnist-{part}-labels-idx2-int", columns)):
            (folder / name).write_bytes(idx.idx(array))
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx.idx(array)))
            resources[part].append((f"http://127.0.0.1:9/{name}.gz", md5(folder / f"{name}.gz")))
    monkeypatch.setattr(datasets.QMNIST, "resources", resources)
    assert same(data.load("qmnist"), arrays)
    assert same(data.load(str(folder)), arrays)


def test_usps_as_torchvision_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "lenet5-vs-mlp"
    cache.mkdir()
    files = {}
    for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        pixels = " ".join(f"{i}:{-1 + i % 2 * 2}" for i in range(1, 257))
        (cache / name).write_bytes(bz2.compress("".join(f"{label} {pixels}\n" for label in range(1, 11)).encode()))
        files[part] = ["http://127.0.0.1:9/", name, md5(cache / name)]
    monkeypatch.setattr(datasets.USPS, "split_list", files)
    found = data.load("usps")
    assert found.info.shape == (1, 16, 16)
    assert found.test_labels.tolist() == list(range(10))
    (cache / "usps.bz2").write_bytes(bz2.compress(b"1 1:0\n"))
    with pytest.raises(UserError, match=r"could not be downloaded|usps\.bz2: missing or altered; delete"):
        data.load("usps")


def test_cifar10_as_torchvision_leaves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "lenet5-vs-mlp" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 3 * 32 * 32)).astype(np.uint8)
    contents = {"data_batch_1": {"data": pixels, "labels": list(range(10)) * 2}, "batches.meta": {"label_names": []}}
    contents["test_batch"] = {"data": pixels[:10], "labels": list(range(10))}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5(folder / "data_batch_1")]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(folder / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    found = data.load("cifar10")
    assert found.info.shape == (3, 32, 32)
    assert np.array_equal(found.train_images, pixels.reshape(20, 3, 32, 32))


@pytest.mark.parametrize("name", ["kmnist", "fashion_mnist"])
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, capfd, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(getattr(datasets, data.DOWNLOADED[name][0]), "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(sys, "argv", ["study", "plan", "configs/quick.yaml", f"dataset={name}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.startswith(f"error: configs/quick.yaml: dataset: {name} could not be downloaded to {tmp_path}")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("size", [60, 61, 10**6])
def test_validation_must_leave_training_digits(size):
    with pytest.raises(UserError, match=r"training\.validation_size: found .*; allowed: 1 to 59"):
        data.split(60, size, 0)


@pytest.mark.slow
@settings(max_examples=1500)
@given(content=st.binary(max_size=60), file=st.sampled_from(data.FILES), compressed=st.booleans(), header=st.booleans())
def test_any_bytes_are_a_dataset_or_one_line(tmp_path_factory, content, file, compressed, header):
    folder = tmp_path_factory.getbasetemp() / "any"
    if not folder.exists():
        idx.write(folder, idx.learnable(20, 10), compressed=False)
    original = (folder / file).read_bytes()
    content = (original[:4] if header else b"") + content
    path = folder / (f"{file}.gz" if compressed else file)
    try:
        if compressed:
            (folder / file).unlink()
            content = gzip.compress(content)[: len(content) + 5]
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            data.load(str(folder))
        assert "\n" not in str(error.value)
    finally:
        path.unlink(missing_ok=True)
        (folder / file).write_bytes(original)


# clusters of test images


def test_a_folder_may_say_which_test_images_belong_together(tmp_path):
    folder = idx.write(tmp_path, idx.learnable())
    n_test = data.load(str(folder)).info.n_test
    assert data.load(str(folder)).test_clusters is None
    (folder / "test-clusters").write_text("".join(f"writer {i // 3}\n" for i in range(n_test)))
    assert np.array_equal(data.load(str(folder)).test_clusters, np.arange(n_test) // 3)
    assert data.load(str(folder)).info == data.load(str(folder)).info
    (folder / "test-clusters").write_text("one\n")
    with pytest.raises(UserError, match=f"test-clusters: found 1 ids; allowed: {n_test}"):
        data.load(str(folder))


def test_mnists_writers_are_those_of_qmnist_where_torchvision_has_downloaded_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.load("mnist").test_clusters is None
    rows = np.zeros((60_000, 8), ">i4")
    rows[:, 2] = np.arange(60_000) // 40
    raw = tmp_path / "lenet5-vs-mlp" / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    content = b"\0\0\x0c\x02" + np.array(rows.shape, ">u4").tobytes() + rows.tobytes()
    (raw / "qmnist-test-labels-idx2-int").write_bytes(content)
    assert np.array_equal(data.load("mnist").test_clusters, np.arange(10_000) // 40)

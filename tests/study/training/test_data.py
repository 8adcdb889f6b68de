import gzip
import hashlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import datasets

from study.__main__ import main
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


def damage_counts(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx.idx(np.zeros(7, np.uint8))))


DAMAGES = {
    "missing, with or without .gz": damage_missing,
    "truncated": damage_truncated_gzip,
    "truncated: ": damage_truncated,
    "cannot be read": damage_no_gzip,
    "not an IDX file of unsigned bytes": damage_kind,
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
    with pytest.raises(UserError, match="found 'mnsit'; allowed: mnist, fashion_mnist, kmnist, or an existing folder"):
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


@pytest.mark.parametrize("name", ["kmnist", "fashion_mnist"])
def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, capfd, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(getattr(datasets, data.DOWNLOADED[name]), "mirrors", ["http://127.0.0.1:9/"])
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
@settings(max_examples=1500, deadline=None)
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

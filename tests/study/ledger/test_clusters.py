"""Clusters of test images: read in every form that people have, refused in one line otherwise."""

import gzip

import numpy as np
import pytest

from study.errors import UserError
from study.ledger import clusters
from study.ledger.ledger import Ledger, LedgerError
from study.ledger.storage import Storage

NAMES = ["ann", "bob", "ann", "cy", "bob"]
EXPECTED = [0, 1, 0, 2, 1]


def qmnist(writers):
    """Labels as QMNIST's file has them: 8 columns of big-endian int32, the third of which names the writer."""
    rows = np.zeros((len(writers), 8), ">i4")
    rows[:, 2] = writers
    return b"\0\0\x0c\x02" + np.array(rows.shape, ">u4").tobytes() + rows.tobytes()


def npy(path, ids):
    np.save(path, np.array(ids))
    return path


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_an_array_and_qmnists_labels_are_read_alike(tmp_path, packed):
    pack = gzip.compress if packed else bytes
    files = [
        written(tmp_path / "text", pack("\n".join(NAMES).encode())),
        written(tmp_path / "lines", pack("".join(f"{name} \r\n" for name in NAMES).encode())),
        written(tmp_path / "qmnist", pack(qmnist([2433, 17, 2433, 5, 17, 99, 98]))),
        written(tmp_path / "array", pack(npy(tmp_path / "plain.npy", [9, 3, 9, 1, 3]).read_bytes())),
    ]
    for file in files:
        found = clusters.read(file, 5)
        assert (found.tolist(), found.dtype) == (EXPECTED, np.int64), file.name


def test_the_checksum_is_that_of_the_clusters_not_of_their_names():
    one, other, third = (clusters.numbered(np.array(ids)) for ids in (NAMES, [7, 0, 7, 3, 0], [7, 0, 7, 3, 3]))
    assert clusters.sha256(one) == clusters.sha256(other) != clusters.sha256(third)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1\n2\n3\n", "found 3 ids; allowed: 5, one for each test image"),
        (b"1\n2\n\n4\n5\n", "line 3: found nothing"),
        (b"\xff\xfe1\n2", "not a text file"),
        (b"\x93NUMPYnonsense", "not a .npy file"),
        (qmnist([1, 2, 3, 4, 5])[:-1], "allowed: QMNIST's labels"),
        (b"\0\0\x0c\x01\0\0\0\x05" + bytes(20), "allowed: QMNIST's labels"),
        (b"\0\0\x0c\xff", "allowed: QMNIST's labels"),
        (gzip.compress(b"1\n2\n", mtime=0)[:-3], "truncated"),
        (None, "cannot be read: No such file"),
    ],
)
def test_anything_else_is_one_line(tmp_path, content, words):
    path = tmp_path / "ids"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        clusters.read(path, 5)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_arrays_of_anything_but_integers_are_refused(tmp_path):
    for ids in ([0.5] * 5, [[1] * 5], ["a"] * 5):
        with pytest.raises(UserError, match="one integer for each test image"):
            clusters.read(npy(tmp_path / "ids.npy", ids), 5)


def test_a_ledger_keeps_them_with_its_dataset(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    assert ledger.test_clusters() is None
    ledger.write_dataset({"test_clusters": np.array([5, 5, 2])})
    assert ledger.test_clusters().tolist() == [0, 0, 1]
    assert "dataset/test_clusters.npy" in [*ledger.files()]
    (tmp_path / "dataset" / "test_clusters.npy").write_bytes(b"torn")
    with pytest.raises(LedgerError, match=r"test_clusters\.npy: "):
        ledger.test_clusters()

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import StorageError, UserError
from study.storage import TEMPORARY, Storage, check_relative


def test_write_read_list_delete(tmp_path):
    storage = Storage(tmp_path / "a" / "b")
    storage.write("runs/x.json", b"one")
    storage.write("runs/x.json", b"two")
    assert storage.read("runs/x.json") == b"two"
    assert storage.names("runs") == ["x.json"]
    assert storage.names("nothing") == []
    assert storage.exists("runs/x.json")
    storage.delete("runs/x.json")
    storage.delete("runs/x.json")
    assert not storage.exists("runs/x.json")
    with pytest.raises(FileNotFoundError):
        storage.read("runs/x.json")


def test_a_dead_writer_leaves_nothing_that_is_read(tmp_path):
    storage = Storage(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{TEMPORARY}abc").write_bytes(b"half a rec")
    storage.write("runs/x.json", b"whole")
    assert storage.names("runs") == ["x.json"]
    storage.sweep("runs")
    storage.sweep("nothing")
    assert os.listdir(tmp_path / "runs") == ["x.json"]


def test_no_temporary_file_stays(tmp_path):
    Storage(tmp_path).write("x", b"1")
    assert os.listdir(tmp_path) == ["x"]


def test_a_refusing_disk_is_a_storage_error(tmp_path):
    (tmp_path / "runs").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*runs/x\.json: "):
        Storage(tmp_path).write("runs/x.json", b"1")


def test_create_is_exclusive(tmp_path):
    storage = Storage(tmp_path)
    won = []
    threads = [threading.Thread(target=lambda i=i: won.append(storage.create("lock", b"%d" % i))) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 19 + [True]
    assert os.listdir(tmp_path) == ["lock"]


@pytest.mark.parametrize("uri", ["ftp://host/x", "nonsense://x", "s3://"])
def test_unknown_storage_is_the_users_mistake(uri):
    with pytest.raises((UserError, StorageError), match="storage: "):
        Storage(uri)


@given(st.text(alphabet="ab./\\\0", max_size=12))
def test_names_stay_inside(name):
    try:
        check_relative(name)
    except UserError:
        return
    inside = os.path.normpath(os.path.join("/root", name))
    assert inside == "/root" or inside.startswith("/root/")


def test_a_substorage_keeps_the_query_of_a_uri(tmp_path):
    assert str(Storage(f"file://{tmp_path}") / "study") == f"file://{tmp_path}/study"

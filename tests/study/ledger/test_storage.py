import contextlib
import errno
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import redaction
from study.config_file import load
from study.errors import LockedError, StorageError, UserError
from study.ledger.storage import TEMPORARY, Storage, check_relative


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


@pytest.mark.parametrize(("number", "asked"), [(errno.ESTALE, 4), (errno.EIO, 4), (errno.ENOSPC, 1), (errno.EACCES, 1)])
def test_a_mount_that_is_away_is_given_time_and_a_full_disk_is_not(tmp_path, monkeypatch, number, asked):
    replaced, waits, replace = [], [], os.replace

    def away(old, new):
        replaced.append(new)
        if len(replaced) < 4:
            raise OSError(number, os.strerror(number))
        replace(old, new)

    monkeypatch.setattr(os, "replace", away)
    monkeypatch.setattr(time, "sleep", waits.append)
    for write in (lambda: Storage(tmp_path).write("x", b"1"), lambda: Storage(tmp_path).write_all({"x": b"1"})):
        replaced.clear()
        waits.clear()
        with contextlib.nullcontext() if asked == 4 else pytest.raises(StorageError, match=os.strerror(number)):
            write()
        assert (len(replaced), waits) == (asked, [1, 2, 4][: asked - 1])
        assert os.listdir(tmp_path) == ["x"] * (asked == 4)


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


def test_create_is_exclusive_without_links_too(tmp_path, monkeypatch):
    def refused(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    storage = Storage(tmp_path)
    assert storage.create("lock", b"1")
    assert not storage.create("lock", b"2")
    assert storage.read("lock") == b"1"
    assert os.listdir(tmp_path) == ["lock"]


def test_a_file_that_may_still_be_written_is_not_swept(tmp_path):
    for name, age in (("old", 100), ("young", 0)):
        (tmp_path / f"{TEMPORARY}{name}").write_bytes(b"")
        os.utime(tmp_path / f"{TEMPORARY}{name}", (time.time() - age,) * 2)
    Storage(tmp_path).sweep(".", 60)
    assert os.listdir(tmp_path) == [f"{TEMPORARY}young"]


SECRETS = [
    "s3://AKIA:a/secret@bucket/x",
    "s3://KEY:a-secret@bucket",
    "s3://a-secret@bucket/x",
    "gs://bucket/x?access_key=a-secret",
    "abfs://bucket/x?region=y&sas_token=a%20-secret",
]


@pytest.mark.parametrize("uri", SECRETS)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    for ask in (lambda: Storage(uri), lambda: load("configs/smoke.yaml", [f"storage={uri}"])):
        with pytest.raises(UserError, match=r"storage: found .*\*\*\*.*AWS_SECRET_ACCESS_KEY") as error:
            ask()
        assert "secret" not in str(error.value).partition("allowed")[0]
    for kind in (UserError, StorageError, LockedError):
        assert "secret" not in str(kind(f"cannot read {uri}: no"))


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a@b", "s3://bucket/x?endpoint_override=127.0.0.1:9000&scheme=http", "a@b:c@d"]
)
def test_no_credentials_are_seen_where_there_are_none(uri):
    assert not redaction.in_address(uri)


def test_a_path_that_cannot_be_one_is_one_line():
    with pytest.raises(UserError, match="allowed: a path"):
        Storage("a\0b")


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


def test_a_file_in_a_store_is_named_by_a_uri_that_is_one():
    storage = Storage("s3://bucket/studies?endpoint_override=127.0.0.1:9&scheme=http")
    assert storage.address("runs/x.json") == "s3://bucket/studies/runs/x.json?endpoint_override=127.0.0.1:9&scheme=http"


def test_other_machines_are_told_how_to_reach_a_store_and_nothing_else(tmp_path):
    environ = {"AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "r", "HOME": "/root", "AWS_PROFILE": "mine"}
    store = Storage("s3://bucket/studies?endpoint_override=127.0.0.1:1&scheme=http&region=r")
    assert store.environment(environ) == {"AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "r"}
    assert Storage(tmp_path).environment(environ) == {}


def test_each_keeps_the_order_and_stops_at_the_first_error(tmp_path):
    """What was asked before the error is known has been asked; the rest of a long list is not."""
    asked = []

    def ask(k):
        asked.append(k)
        if k == 3:
            raise OSError("no")
        time.sleep(0.01 * (5 - k if k < 5 else 0))
        return k

    storage = Storage(tmp_path)
    assert list(storage.each(ask, [2, 0, 1])) == [2, 0, 1]
    answers = storage.each(ask, range(1000))
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no"):
        next(answers)
    assert len(asked) < 100

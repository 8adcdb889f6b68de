import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from study.errors import LockedError, StorageError
from study.ledger import lock
from study.ledger.lock import Lock
from study.ledger.storage import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path)


def leave(storage, **changes):
    """A lock file as another driver would have left it."""
    holder = dict(host="elsewhere", pid=1, boot="b", process_start="1", token="t", heartbeat=time.time(), progress={})
    storage.write(lock.NAME, json.dumps(holder | changes).encode())


def test_held_while_inside_and_gone_after(storage):
    with Lock(storage) as held:
        held.tell = lambda: {"running": 3}
        holder = lock.read(storage)
        assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
        assert lock.alive(holder)
    assert lock.read(storage) is None


def test_the_second_driver_is_told_who_the_first_is(storage):
    with Lock(storage), pytest.raises(LockedError, match=f"process {os.getpid()} on {socket.gethostname()}"):
        Lock(storage).__enter__()
    assert lock.read(storage) is None


def test_a_beating_driver_elsewhere_is_respected_a_silent_one_is_not(storage):
    leave(storage, heartbeat=time.time() - lock.STALE_SECONDS / 2)
    with pytest.raises(LockedError, match="process 1 on elsewhere"):
        Lock(storage).__enter__()
    leave(storage, heartbeat=time.time() - lock.STALE_SECONDS * 2)
    with Lock(storage):
        assert lock.read(storage)["pid"] == os.getpid()


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)


def test_who_waits_takes_over_from_a_driver_that_has_died_elsewhere(storage, soon):
    """A job that was started again on another machine, at once."""
    leave(storage, heartbeat=time.time() - lock.STALE_SECONDS + 0.5)
    told = []
    with Lock(storage, told.append):
        assert lock.read(storage)["pid"] == os.getpid()
    (line,) = told
    assert line.startswith("held by another driver, process 1 on elsewhere; waiting up to ")


@pytest.mark.parametrize("beats", [True, False], ids=["alive", "gives the study back"])
def test_who_waits_sees_what_the_other_does(storage, soon, beats):
    leave(storage)
    act = threading.Timer(0.1, lambda: leave(storage) if beats else storage.delete(lock.NAME))
    act.start()
    if beats:
        with pytest.raises(LockedError, match="process 1 on elsewhere"):
            Lock(storage, lambda line: None).__enter__()
    else:
        with Lock(storage, lambda line: None):
            pass
    act.join()


def test_nobody_waits_for_a_driver_of_this_host(storage, soon):
    told = []
    with Lock(storage), pytest.raises(LockedError):
        Lock(storage, told.append).__enter__()
    assert told == []


def test_a_killed_driver_of_this_host_is_recognised_at_once(storage, tmp_path):
    code = (
        "import time; from study.ledger.lock import Lock; from study.ledger.storage import Storage\n"
        f"with Lock(Storage({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LockedError):
        Lock(storage).__enter__()
    process.kill()
    process.communicate()
    assert not lock.alive(lock.read(storage))
    with Lock(storage):
        pass


def test_a_process_number_used_again_is_not_the_old_driver(storage):
    leave(storage, host=socket.gethostname(), boot=lock.boot(), pid=os.getpid(), process_start="0")
    with Lock(storage):
        pass


def test_a_process_number_of_another_container_says_nothing(storage, monkeypatch):
    """Two containers with the host's network share its name and its start, and count processes each for itself."""
    leave(storage, host=socket.gethostname(), boot=lock.boot(), pid=2**22 + 1)
    monkeypatch.setattr(lock.os, "readlink", lambda path: "pid:[another]")
    with pytest.raises(LockedError, match="if it is dead, its lock lapses 120 s after its last heartbeat"):
        Lock(storage).__enter__()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"pid": "x"}', b"\xff"])
def test_a_torn_lock_file_holds_nobody_up(storage, content):
    storage.write(lock.NAME, content)
    with Lock(storage):
        pass


def test_a_lost_lock_is_noticed_and_left_to_its_new_owner(storage, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with Lock(storage) as held:
        for _ in range(500):
            # Again and again: a heartbeat may be about to write over it.
            leave(storage)
            if held.lost:
                break
            time.sleep(0.01)
        assert held.lost
    assert lock.read(storage)["host"] == "elsewhere"


def test_of_two_that_take_over_one_has_the_study(storage, monkeypatch):
    """Both have read the dead driver's lock; the first has made its own before the second removes what it read."""
    leave(storage, host=socket.gethostname(), boot=lock.boot(), pid=2**22 + 1)
    second, rename = Lock(storage), Storage.rename
    with contextlib.ExitStack() as stack:

        def late(self, name, new):
            monkeypatch.setattr(Storage, "rename", rename)
            stack.enter_context(Lock(storage))
            return rename(self, name, new)

        monkeypatch.setattr(Storage, "rename", late)
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            second.__enter__()
        assert os.listdir(storage.root) == [lock.NAME]
    assert os.listdir(storage.root) == []


def test_a_lease_that_was_overwritten_is_found_out(storage):
    with Lock(storage) as held:
        held.confirm()
        leave(storage)
        with pytest.raises(LockedError, match="took this study over"):
            held.confirm()
        assert held.lost


def test_a_file_where_the_study_should_be_is_one_line(tmp_path):
    (tmp_path / "study").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*study/driver\.lock: File exists"):
        Lock(Storage(tmp_path / "study")).__enter__()


def test_a_lock_that_always_comes_back_is_given_up(storage, monkeypatch):
    monkeypatch.setattr(Storage, "create", lambda *arguments: False)
    with pytest.raises(StorageError, match="comes back"):
        Lock(storage).__enter__()


def test_a_heartbeat_that_cannot_tell_goes_on(storage, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with Lock(storage) as held:
        held.tell = lambda: 1 / 0
        before = lock.read(storage)["heartbeat"]
        for _ in range(500):
            if lock.read(storage)["heartbeat"] > before:
                break
            time.sleep(0.01)
        assert lock.read(storage)["heartbeat"] > before


def test_the_heartbeat_tells_the_progress(storage, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with Lock(storage) as held:
        held.tell = lambda: {"running": 7}
        for _ in range(500):
            if lock.read(storage)["progress"]:
                break
            time.sleep(0.01)
        assert lock.read(storage)["progress"] == {"running": 7}

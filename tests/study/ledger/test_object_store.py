"""A study kept in an object store: a real S3 server on this machine."""

import contextlib
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer

from study.errors import LockedError, StorageError
from study.ledger import lock
from study.ledger.ledger import Ledger
from study.ledger.lock import Lock
from study.ledger.storage import PAUSES, Storage
from tests import processes

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP", "AWS_SECRET_ACCESS_KEY": "a-secret-of-this-test"}


class Gate:
    """Stands before the server: notes what is asked for, and answers 503 while it is out of order."""

    def __init__(self, server):
        self.application, server.app = server.app, self
        self.requests = []
        self.out_of_order = False

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.out_of_order:
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        return self.application(environ, start_response)


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gate(server):
    return Gate(server._server)


@pytest.fixture(scope="module")
def bucket(server):
    """A URI of an empty bucket."""
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        yield f"s3://bucket/studies?endpoint_override={host}:{port}&scheme=http"


def test_write_read_list_delete(bucket):
    storage = Storage(bucket) / "one"
    storage.write("runs/x.json", b"1")
    storage.write("runs/x.json", b"2")
    assert storage.read("runs/x.json") == b"2"
    assert storage.names("runs") == ["x.json"]
    assert storage.names("nothing") == []
    storage.delete("runs/x.json")
    assert not storage.exists("runs/x.json")
    with pytest.raises(FileNotFoundError):
        storage.read("runs/x.json")


def test_the_lease_refuses_a_second_driver(bucket):
    storage = Storage(bucket) / "two"
    with Lock(storage), pytest.raises(LockedError, match="held by another driver"):
        Lock(storage).__enter__()
    assert lock.read(storage) is None


def test_a_file_is_one_request(bucket, gate):
    storage = Storage(bucket) / "three"
    before = len(gate.requests)
    storage.write("runs/x.json", b"1")
    assert gate.requests[before:] == [("PUT", "/bucket/studies/three/runs/x.json")]


class OutOfOrder:
    """A file system that fails `times` times before it answers."""

    def __init__(self, times, error):
        self.times, self.error, self.asked = times, error, 0

    def delete_file(self, path):
        self.asked += 1
        if self.asked <= self.times:
            raise OSError(f"When deleting: AWS Error {self.error} during DeleteObject operation")


@pytest.mark.parametrize(
    ("answered", "times", "error", "asked", "slept"),
    [
        (True, 3, "SLOW_DOWN", 4, [1, 2, 4]),
        (True, 99, "SERVICE_UNAVAILABLE", 8, list(PAUSES)),
        (True, 99, "ACCESS_DENIED", 1, []),
        (False, 99, "NETWORK_CONNECTION", 1, []),
    ],
)
def test_a_store_that_has_answered_before_is_given_time(bucket, monkeypatch, answered, times, error, asked, slept):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    storage = Storage(bucket, answered=answered)
    storage._fs = OutOfOrder(times, error)
    if times == 99:
        with pytest.raises(StorageError, match=error):
            storage.delete("x")
    else:
        storage.delete("x")
    assert (storage._fs.asked, waits) == (asked, slept)


def test_whatever_a_store_answers_is_an_answer(bucket):
    storage = Storage(bucket)
    assert not storage.answered
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")
    assert storage.answered


def download(uri, folder):
    """The ledger of an object store as a folder."""
    storage = Storage(uri) / "small"
    for name in Ledger(storage).files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read(name))
    assert storage.names("checkpoints") == []


def checkpoints(storage):
    """What is durable of packs in flight."""
    found = {}
    for name in storage.names("checkpoints"):
        with contextlib.suppress(FileNotFoundError):
            found[name] = storage.read(f"checkpoints/{name}")
    return found


@pytest.mark.slow
def test_a_study_in_an_object_store_outlives_kills_and_a_spell_of_503(bucket, gate, longer, place):
    path, storage = processes.config(place, **processes.LONGER), Storage(bucket) / "small"
    process = processes.start("run", path, f"storage={bucket}", own_ray=True)
    processes.until(lambda: checkpoints(storage), 60, "a checkpoint")
    gate.out_of_order = True
    time.sleep(9)
    gate.out_of_order = False
    for end in (lambda: processes.workers()[0].kill(), lambda: processes.kill(process)):
        before = checkpoints(storage)
        processes.until(
            lambda before=before: checkpoints(storage) != before and processes.workers(), 60, "the next checkpoint"
        )
        end()
    code, output = processes.run("run", path, f"storage={bucket}", own_ray=True)
    assert code == 0, output
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in output
    download(bucket, place / "small")
    processes.assert_same(place / "small", longer)
    code, output = processes.run("status", path, f"storage={bucket}")
    assert "8 finished, 0 diverged, 0 failed, 0 running, 0 missing, of 8 runs planned" in output

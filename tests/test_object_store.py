"""A study kept in an object store: a real S3 server on this machine."""

import json

import boto3
import pytest
from moto.server import ThreadedMotoServer

from study import lock
from study.errors import LockedError
from study.ledger import Ledger
from study.lock import Lock
from study.storage import Storage
from tests import cli

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP", "AWS_SECRET_ACCESS_KEY": "a-secret-of-this-test"}


@pytest.fixture(scope="module")
def bucket():
    """A URI of an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        yield f"s3://bucket/studies?endpoint_override={host}:{port}&scheme=http"
    server.stop()


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


@pytest.mark.slow
def test_a_study_lives_in_an_object_store(bucket, undisturbed, place):
    path = cli.config(place)
    code, output = cli.run("run", path, f"storage={bucket}", own_ray=True)
    assert code == 0, output
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in output
    storage = Storage(bucket) / "small"
    records, problems = Ledger(storage).records()
    assert problems == []
    expected = cli.results(undisturbed)
    for run_id, record in records.items():
        content = json.loads(record.model_dump_json())
        del content["provenance"]
        assert json.dumps(content) == expected[f"runs/{run_id}.json"]
        assert storage.read(f"predictions/{run_id}.npz") == expected[f"predictions/{run_id}.npz"]
    assert len(records) == 8
    assert storage.names("checkpoints") == []
    code, output = cli.run("run", path, f"storage={bucket}", own_ray=True)
    assert (code, "nothing to train" in output) == (0, True)
    code, output = cli.run("status", path, f"storage={bucket}")
    assert "8 finished, 0 diverged, 0 failed, 0 missing, of 8 runs planned" in output

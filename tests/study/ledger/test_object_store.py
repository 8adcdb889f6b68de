"""A study kept in an object store: a real S3 server on this machine."""

import _thread
import contextlib
import io
import shutil
import signal
import sys
import threading
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer
from rich.console import Console

from analysis import __main__ as command_line
from study.errors import LockedError, StorageError
from study.launch.messages import Done
from study.launch.progress import Progress, bar
from study.launch.recorder import Recorder
from study.ledger import lock
from study.ledger.ledger import Ledger, npz
from study.ledger.lock import Lock
from study.ledger.storage import PAUSES, Storage
from tests import processes, synthetic
from tests.examples import PACK, PREDICTIONS, RUN2, STARTED, record

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP", "AWS_SECRET_ACCESS_KEY": "a-secret-of-this-test"}


class Gate:
    """Stands before the server: notes what is asked for, and answers 503 while it is out of order."""

    def __init__(self, server):
        self.application, server.app = server.app, self
        self.requests = []
        self.out_of_order = False
        self.delay = 0
        self.at_once, self.most_at_once = 0, 0
        self._counting = threading.Lock()

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.out_of_order:
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        with self._counting:
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        time.sleep(self.delay)
        with self._counting:
            self.at_once -= 1
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


def client(server):
    return boto3.client("s3", endpoint_url="http://{}:{}".format(*server.get_host_and_port()))


@pytest.fixture(scope="module")
def bucket(server):
    """A URI of an empty bucket."""
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        client(server).create_bucket(Bucket="bucket")
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


class Interrupting:
    """A file system whose streams interrupt the main thread, as they are `opened` or as they are `written` to."""

    def __init__(self, system, moment):
        self._system = system
        self._moment = moment

    def _reach(self, moment):
        if moment == self._moment:
            _thread.interrupt_main(signal.SIGTERM)
            time.sleep(0.1)

    def open_output_stream(self, path, metadata=None):
        self._reach("opened")
        self._stream = self._system.open_output_stream(path, metadata=metadata)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stream.close()

    def write(self, content):
        self._reach("written")
        self._stream.write(content)


@pytest.mark.parametrize("moment", ["opened", "written"])
def test_an_interrupted_write_is_finished(bucket, moment):
    """Interrupted later, it left an empty file; at once, it went on while its reader read the old one."""
    storage = Storage(bucket) / "interrupted"
    storage.write("x", b"before")
    storage._fs = Interrupting(storage._fs, moment)
    # As a command handles it; SIGINT may be ignored here, as in what a shell starts in the background.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            storage.write("x", b"after")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (Storage(bucket) / "interrupted").read("x") == b"after"


def test_records_of_many_runs_are_asked_for_at_once(bucket, gate, monkeypatch):
    """And a file that is no record is found out among them, as ever."""
    ledger = Ledger(Storage(bucket) / "many")
    runs = [RUN2.model_copy(update={"learning_rate": 0.001 * k}) for k in range(1, 41)]
    for _ in ledger.storage.each(lambda run: ledger.write_record(record(run), npz(PREDICTIONS)), runs):
        pass
    ledger.storage.write(f"runs/{runs[7].run_id}.json", b"{")
    monkeypatch.setattr(gate, "delay", 0.1)
    monkeypatch.setattr(gate, "most_at_once", 0)
    records, problems = ledger.records()
    assert set(records) == {run.run_id for run in runs} - {runs[7].run_id}
    assert list(records) == sorted(records)
    assert [problem.reason for problem in problems] == ["Invalid JSON: EOF while parsing an object at line 1 column 1"]
    assert gate.most_at_once > 20


@pytest.mark.slow
def test_a_report_is_written_beside_the_study(bucket, server, tmp_path, monkeypatch):
    """Every file that was drawn, byte for byte, and none of an earlier report; a browser is told which is a page."""
    study = synthetic.write(tmp_path, seeds=2, n_test=60, n_val=30, shape=(6, 6), analysis={"resamples": 200})
    storage = Storage(bucket) / "reported"
    for name in Ledger(Storage(study)).files():
        storage.write(name, (study / name).read_bytes())
    for name in ("report/tables/variance.csv", "report/tables/mine.csv"):
        storage.write(name, b"before")
    write = command_line._write

    def kept(findings, data, folder, *, as_paper):
        write(findings, data, folder, as_paper=as_paper)
        shutil.copytree(folder, tmp_path / "report")

    monkeypatch.setattr(command_line, "_write", kept)
    monkeypatch.setattr(sys, "argv", ["analysis", str(storage)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 0
    files = [path for path in sorted((tmp_path / "report").rglob("*")) if path.is_file()]
    names = [f"report/{path.relative_to(tmp_path / 'report').as_posix()}" for path in files]
    assert {"report/index.html", "report/findings.json", "report/costs.json", "report/tables/gaps.csv"} <= set(names)
    assert [storage.read(name) for name in names] == [path.read_bytes() for path in files]
    assert not storage.exists("report/tables/variance.csv")
    assert storage.exists("report/tables/mine.csv")
    page = client(server).head_object(Bucket="bucket", Key=storage.path("report/index.html").removeprefix("bucket/"))
    assert page["ContentType"] == "text/html"


@pytest.fixture
def received(bucket, gate, monkeypatch, request):
    """The recorder of twelve packs in a store that answers late, just after it has received the last; their runs."""
    runs = [RUN2.model_copy(update={"learning_rate": 0.001 * k}) for k in range(1, 13)]
    packs = []
    for k, run in enumerate(runs):
        planned = PACK.runs[0].model_copy(update={"run_id": run.run_id, "run": run})
        packs.append(PACK.model_copy(update={"pack_id": f"{k:012}", "runs": (planned,)}))
    ledger = Ledger(Storage(bucket) / request.node.name)
    recorder = Recorder(ledger, packs, {}, Progress(packs, bar(Console(file=io.StringIO()))))
    monkeypatch.setattr(gate, "requests", [])
    monkeypatch.setattr(gate, "most_at_once", 0)
    monkeypatch.setattr(gate, "delay", 0.2)
    for index, run in enumerate(runs):
        recorder.receive(index, STARTED)
        recorder.receive(index, Done(((record(run), npz(PREDICTIONS)),)))
    yield recorder, runs
    recorder.finish()


def test_packs_are_recorded_beside_one_another_each_record_after_what_its_run_predicted(received, gate):
    recorder, runs = received
    assert not recorder.complete, "none has been waited for"
    assert recorder.idle
    assert recorder._progress.numbers()["states"] == {}, "a run has ended when its record exists"
    recorder.finish()
    assert recorder.complete
    assert recorder.stopped is None
    assert recorder._progress.numbers()["states"] == {"finished": 12}
    assert gate.most_at_once > 6
    order = [path.rpartition("/")[2] for method, path in gate.requests if method == "PUT"]
    for run in runs:
        assert order.index(f"{run.run_id}.npz") < order.index(f"{run.run_id}.json")
    records, problems = recorder._ledger.records()
    assert (set(records), problems) == ({run.run_id for run in runs}, [])


def test_what_was_received_is_written_before_a_study_is_given_back(received):
    recorder, runs = received
    assert recorder.close()
    assert len(recorder._ledger.records()[0]) == len(runs)


def test_a_pack_that_a_store_refuses_stops_the_study_and_is_not_counted(received, monkeypatch):
    recorder, _ = received
    recorder.finish()
    recorder._states[3].received = recorder._states[3].recorded = False
    run = RUN2.model_copy(update={"learning_rate": 0.5})

    def refuse(self, ended):
        raise StorageError("storage: cannot write: refused")

    monkeypatch.setattr(Ledger, "write_records", refuse)
    recorder.receive(3, Done(((record(run), npz(PREDICTIONS)),)))
    recorder.finish()
    assert recorder.stopped == "storage: cannot write: refused"
    assert not recorder.complete
    assert recorder._progress.numbers()["states"] == {"finished": 12}


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
    processes.until(lambda: checkpoints(storage), "a checkpoint")
    gate.out_of_order = True
    time.sleep(9)
    gate.out_of_order = False
    for end in (lambda: processes.workers()[0].kill(), lambda: processes.kill(process)):
        before = checkpoints(storage)
        processes.until(
            lambda before=before: checkpoints(storage) != before and processes.workers(), "the next checkpoint"
        )
        end()
    code, output = processes.run("run", path, f"storage={bucket}", own_ray=True)
    assert code == 0, output
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in output
    download(bucket, place / "small")
    processes.assert_same(place / "small", longer)
    code, output = processes.run("status", path, f"storage={bucket}")
    assert "8 finished, 0 diverged, 0 failed, 0 running, 0 missing, of 8 runs planned" in output

"""Ray Tune and the driver's side of it, with what a worker trains replaced."""

import io
import os
import re
import signal
import time

import psutil
import pytest
from rich.console import Console

from study.config import Launching
from study.errors import UserError
from study.launch.cluster import CONNECT_SECONDS, connected, cure
from study.launch.messages import Broken, Failed, Started
from study.launch.plan import packs
from study.launch.progress import Progress, bar
from study.launch.ray_tune import Interrupted, Queue, Watch, _Deaths, _LongestFirst, launch
from study.launch.recorder import Recorder
from study.ledger.ledger import Ledger
from study.ledger.records import Provenance
from study.ledger.runs import PlannedRun
from study.ledger.storage import Storage
from study.training import data
from tests import idx, processes
from tests.examples import PACK, RUN2

pytestmark = pytest.mark.slow

KEY = processes.KEY[::-1]
"""Not the one that other tests search Ray's logs for: what is raised before our code runs, Ray writes there itself."""


def unloadable():
    """What to do with a pack, for which a worker lacks a module. Made here, so that it travels by value."""
    driver = os.getpid()

    def load():
        if os.getpid() != driver:
            raise ModuleNotFoundError(f"No module named 'nets', with the key {KEY}")
        return Train()

    class Train:
        def __reduce__(self):
            return load, ()

        def __call__(self, pack, data, report):
            raise AssertionError("no worker has got this far")

    return Train()


def raising():
    def train(pack, data, report):
        raise ValueError("before a word was sent")

    return train


def start(folder, train, packs=(PACK,)):
    """Launch packs: their ledger and what was printed."""
    dataset = data.load(str(idx.write(folder / "digits", idx.learnable())))
    ledger, console = Ledger(Storage(folder / "ledger")), Console(file=io.StringIO(), width=200)
    recorder = Recorder(ledger, packs, {}, Progress(packs, bar(console)))
    with connected(processes.ray_address()):
        launch([Queue(packs, dataset, train, recorder, Launching())])
    return ledger, console.file.getvalue()


def failing():
    def train(pack, data, report):
        report(Started("here"))
        report(Failed(Provenance(pack_id=pack.pack_id, pack_size=1, error="on purpose")))

    return train


def most_overtaken(started, order):
    """The most packs that were still to start when a later one did: one for each other worker, however slow."""
    return max(len(set(order[: order.index(pack)]) - set(started[:place])) for place, pack in enumerate(started))


def test_packs_are_started_in_order_and_tune_holds_none_that_has_ended(tmp_path, monkeypatch):
    runs = [RUN2.model_copy(update={"learning_rate": 0.001 * k}) for k in range(1, 31)]
    planned = [PlannedRun(run_id=run.run_id, run=run, n_parameters=10, macs=10) for run in runs]
    held, started = [], []
    forget, receive = _Deaths.on_trial_complete, Recorder.receive

    def noted(self, iteration, trials, trial, **info):
        forget(self, iteration, trials, trial, **info)
        held.append(len(trials))

    def received(self, index, message, node):
        started.extend([index] if isinstance(message, Started) else [])
        receive(self, index, message, node)

    monkeypatch.setattr(_Deaths, "on_trial_complete", noted)
    monkeypatch.setattr(Recorder, "receive", received)
    ledger, _ = start(tmp_path, failing(), packs(planned, 1))
    assert len(ledger.records()[0]) == 30
    assert held[:-1] == sorted(held[:-1], reverse=True)
    assert held[-1] == 1
    assert most_overtaken(started, range(30)) <= 1


def test_packs_of_several_studies_start_longest_first(tmp_path, monkeypatch):
    dataset = data.load(str(idx.write(tmp_path / "digits", idx.learnable())))
    started, receive = [], Recorder.receive

    def received(self, index, message, node):
        started.extend([self._states[index].pack.runs[0].macs] if isinstance(message, Started) else [])
        receive(self, index, message, node)

    monkeypatch.setattr(Recorder, "receive", received)
    queues = []
    for study in range(2):
        runs = [RUN2.model_copy(update={"learning_rate": 0.001 * k}) for k in range(1, 9)]
        sizes = range(10 * (study + 1), 1000, 120)
        planned = [
            PlannedRun(run_id=r.run_id, run=r, n_parameters=1, macs=n) for r, n in zip(runs, sizes, strict=False)
        ]
        those, ledger = packs(planned, 1), Ledger(Storage(tmp_path / str(study)))
        recorder = Recorder(ledger, those, {}, Progress(those, bar(Console(file=io.StringIO()))))
        queues.append(Queue(those, dataset, failing(), recorder, Launching()))
    with connected(processes.ray_address()):
        launch(queues)
    assert len(started) == 16
    assert most_overtaken(started, sorted(started, reverse=True)) <= 1


def made_up(folder, n, macs, **knobs):
    """A queue of packs of one run each, that fail as soon as they are taken up."""
    runs = [RUN2.model_copy(update={"learning_rate": 0.001 * k}) for k in range(1, n + 1)]
    those = packs([PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=macs) for run in runs], 1)
    recorder = Recorder(Ledger(Storage(folder)), those, {}, Progress(those, bar(Console(file=io.StringIO()))))
    return Queue(
        those, data.load(str(idx.write(folder / "digits", idx.learnable()))), failing(), recorder, Launching(**knobs)
    )


def test_packs_that_nothing_can_train_keep_no_others_waiting(tmp_path):
    """There are more of them than Tune holds, and they are longer."""
    able, unable = made_up(tmp_path / "able", 5, 10), made_up(tmp_path / "unable", 250, 1000, gpus_per_trial=1)
    with connected(processes.ray_address()):
        launch([able, unable], Watch(lost=lambda: able.recorder.complete, wait_minutes=1))
    assert (able.recorder.complete, unable.recorder.complete) == (True, False)


def test_a_study_has_as_many_packs_at_a_time_as_it_allows(tmp_path):
    """Whatever others beside it allow."""
    searcher = _LongestFirst([made_up(tmp_path / "one", 9, 1000, workers=2), made_up(tmp_path / "any", 9, 10)])
    given = [searcher.suggest(str(k))["pack"] for k in range(5)]
    assert given == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    searcher.on_trial_result("0", {})
    assert searcher.suggest("5")["pack"] == (1, 3), "it is being trained"
    searcher.on_trial_complete("0")
    assert searcher.suggest("6")["pack"] == (0, 2)


def test_a_pack_that_broke_its_device_is_tried_by_a_fresh_worker(tmp_path):
    broken = tmp_path / "broken"

    def train(pack, data, report):
        report(Started("here"))
        if not broken.exists():
            broken.write_text(str(os.getpid()))
            report(Broken("CUDA error: device-side assert triggered"))
            return
        report(Failed(Provenance(pack_id=pack.pack_id, pack_size=1, error=f"in process {os.getpid()}")))

    ledger, printed = start(tmp_path, train)
    assert "its worker died; started again" in printed
    error = ledger.records()[0][RUN2.run_id].provenance.error
    assert error.startswith("in process ")
    assert error != f"in process {broken.read_text()}"


@pytest.mark.parametrize(
    ("train", "why"), [(unloadable(), "No module named 'nets'"), (raising(), "ValueError: before a word was sent")]
)
def test_workers_that_cannot_start_are_not_retried_for_ever(tmp_path, monkeypatch, train, why):
    monkeypatch.setattr("study.launch.recorder.MOST_DEATHS", 2)
    ledger, printed = start(tmp_path, train)
    record = ledger.records()[0][RUN2.run_id]
    assert record.state == "failed"
    assert why in record.provenance.error
    assert why in printed
    assert KEY not in printed + record.provenance.error


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "ray://127.0.0.1:10001", "127.0.0.1:99999"])
def test_a_wrong_address_is_one_line_and_soon(address):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^--address: found .*; allowed: ") as error, connected(address):
        pass
    assert address in str(error.value)
    assert time.monotonic() - began < CONNECT_SECONDS + 30


def test_a_start_that_failed_is_no_launch(place):
    code, output = processes.run("run", processes.config(place), "--address", "127.0.0.1:1")
    assert code == 2, output
    assert "error: --address: found '127.0.0.1:1', where nothing answers" in output
    assert "Traceback" not in output
    assert [path for path in (place / "storage").rglob("*") if path.is_file()] == []


def test_a_termination_before_training_ends_cleanly(place):
    """While the plan is made, and while Ray starts, which has a handler of its own."""
    path = processes.config(place)
    for seconds in (0, 1.5):
        process = processes.start("run", path, own_ray=True)
        assert "8 of 8 runs" in process.stdout.readline()
        time.sleep(seconds)
        code, output, _ = processes.stop(process, signal.SIGTERM)
        assert code == 130, output
        assert output.strip().startswith("stopped"), output
        assert output.strip().count("\n") == 0, output
        assert not (place / "storage" / "small" / "driver.lock").exists()


def test_the_dashboard_listens_on_loopback_only_and_its_address_is_printed(place):
    process = processes.start("run", processes.config(place, **processes.LONGER), "--dashboard", own_ray=True)
    try:
        assert "8 of 8 runs" in process.stdout.readline()
        found = re.fullmatch(r"Ray's dashboard: http://127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        listening = [c.laddr for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {address.ip for address in listening if address.port == int(found[1])} == {"127.0.0.1"}
    finally:
        processes.stop(process)


def test_an_error_of_ray_is_an_interruption(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("study.launch.ray_tune.tune.Tuner", full)
    with pytest.raises(Interrupted, match=r"an error of Ray \(OSError: .* No space left"):
        start(tmp_path, raising())


def test_a_temporary_folder_too_long_for_sockets_is_told_with_its_cure(tmp_path):
    """As batch systems set it."""
    folder = tmp_path / "somebody" / ("slurm_jobdir_" * 6) / "tmp.0016"
    folder.mkdir(parents=True)
    path = processes.config(tmp_path / "study")
    code, output = processes.run("run", path, own_ray=True, TMPDIR=str(folder))
    assert code == 5, output
    assert "Ray did not start: " in output
    assert "TMPDIR is too long a path for Ray's sockets; allowed: a shorter one, such as RAY_TMPDIR=/tmp" in output
    assert "Traceback" not in output


def test_a_cluster_that_cannot_be_joined_is_told_of_tokens(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token" in cure("10.0.0.1:6379", "no")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert cure("10.0.0.1:6379", "no") == ""

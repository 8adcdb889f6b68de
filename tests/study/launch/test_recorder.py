import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from study.launch.messages import Broken, Epoch, Started, Stopped, Unfit
from study.launch.progress import Progress, bar
from study.launch.recorder import MOST_DEATHS, Recorder
from study.ledger.ledger import Ledger
from study.ledger.storage import Storage
from study.training import checkpoints
from tests.examples import DONE, PACK, RUN2, STARTED
from tests.processes import KEY


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Storage(tmp_path))


@pytest.fixture
def recorder(ledger):
    return Recorder(ledger, [PACK], {}, Progress([PACK], bar(Console(file=io.StringIO()))))


def attempts(ledger):
    return ledger.records()[0][RUN2.run_id].provenance.attempts


def test_a_pack_is_recorded_with_every_start_it_took(ledger, recorder):
    for _ in range(3):
        recorder.receive(0, STARTED)
    recorder.receive(0, DONE)
    assert attempts(ledger) == 3
    assert not recorder.gives_up(0)


def test_a_pack_that_has_ended_is_not_trained_again(ledger, recorder):
    """Its worker dies after its last report, and Tune starts it once more."""
    recorder.receive(0, STARTED)
    recorder.receive(0, DONE)
    recorder.receive(0, STARTED)
    assert recorder.gives_up(0)
    assert attempts(ledger) == 1


def test_only_deaths_without_an_epoch_between_them_fail_a_pack(ledger, recorder):
    for epoch in range(1, 2 * MOST_DEATHS):
        recorder.receive(0, STARTED)
        recorder.receive(0, Epoch(epoch))
        recorder.died(0, "killed")
    assert not recorder.gives_up(0)
    for _ in range(MOST_DEATHS - 1):
        recorder.receive(0, STARTED)
        recorder.receive(0, Epoch(1))
        recorder.died(0, f"killed with {KEY}")
    assert recorder.gives_up(0), "an epoch trained again is no new one"
    failed = ledger.records()[0][RUN2.run_id]
    assert failed.state == "failed"
    assert failed.provenance.error.startswith("killed with ***\nits worker died 5 times without a new epoch")
    assert failed.provenance.ended_at, "else an older error would be the last one"


def test_a_worker_that_cannot_start_is_said_and_counted(ledger, recorder):
    for _ in range(MOST_DEATHS):
        assert not recorder.gives_up(0)
        recorder.died(0, "Traceback\nModuleNotFoundError: no nets")
    assert recorder.gives_up(0)
    printed = recorder._progress._console.file.getvalue()
    assert printed.count("its worker died: it could not start: ModuleNotFoundError: no nets\n") == MOST_DEATHS
    assert "ModuleNotFoundError" in ledger.records()[0][RUN2.run_id].provenance.error


def test_a_disk_that_refuses_the_record_of_a_failure_stops_the_study(ledger, recorder):
    (Path(ledger.storage.root) / "runs").write_bytes(b"a file where a folder should be")
    for _ in range(MOST_DEATHS):
        recorder.died(0, "killed")
    assert "cannot write" in recorder.stopped


def test_only_checkpoints_of_ended_packs_are_tidied_away(ledger):
    other = PACK.model_copy(update={"pack_id": "1" * 12})
    for pack in (PACK, other):
        checkpoints.save(ledger.storage, pack, {"run_ids": []})
    checkpoints.delete_ended(ledger.storage, [PACK], ())
    assert len(ledger.storage.names("checkpoints")) == 2
    checkpoints.delete_ended(ledger.storage, [PACK], {RUN2.run_id})
    assert ledger.storage.names("checkpoints") == [f"{'1' * 12}.pt"]


def test_a_node_that_is_not_fit_is_named_once_and_costs_its_pack_nothing(ledger, recorder):
    for _ in range(2 * MOST_DEATHS):
        recorder.receive(0, Unfit("n7", "CUDA does not work: no driver"))
        assert recorder.ends_worker(0)
        recorder.died(0, "the actor was killed")
        assert not recorder.ends_worker(0)
    recorder.receive(0, STARTED)
    recorder.receive(0, DONE)
    printed = recorder._progress._console.file.getvalue()
    assert printed.count("n7 is not used from now on: CUDA does not work: no driver\n") == 1
    assert "died" not in printed
    assert attempts(ledger) == 1


@pytest.mark.parametrize(("mix", "turned_away"), [(False, True), (True, False)])
def test_one_study_one_kind_of_device(ledger, mix, turned_away):
    packs = [PACK.model_copy(update={"pack_id": str(k) * 12}) for k in range(3)]
    recorder = Recorder(ledger, packs, {}, Progress(packs, bar(Console(file=io.StringIO()))), mix_devices=mix)
    recorder.receive(0, Started("n1", device="NVIDIA H100"))
    recorder.receive(1, Started("n2", device="NVIDIA T4"))
    recorder.receive(2, Started("n3", device="NVIDIA H100"))
    assert [recorder.ends_worker(k) for k in range(3)] == [False, turned_away, False]
    assert ("it would train on NVIDIA T4" in recorder._progress._console.file.getvalue()) == turned_away


def die(recorder, node, times=MOST_DEATHS):
    for _ in range(times):
        recorder.receive(0, STARTED, node)
        recorder.died(0, "killed", node)


def test_a_node_on_which_workers_die_is_left_before_the_pack_is_given_up(ledger, recorder):
    recorder.elsewhere = lambda: recorder.avoided != {"a", "b"}
    die(recorder, "a")
    assert not recorder.gives_up(0)
    assert recorder.avoided == {"a"}
    recorder.receive(0, STARTED, "b")
    recorder.receive(0, DONE, "b")
    assert recorder.avoided == {"a"}
    assert ledger.records()[0][RUN2.run_id].state == "finished"
    assert (
        "died 5 times without a new epoch on one node, which is not used" in recorder._progress._console.file.getvalue()
    )


def test_a_pack_that_dies_on_two_nodes_has_failed_and_neither_is_left_for_it(ledger, recorder):
    recorder.elsewhere = lambda: recorder.avoided != {"a", "b", "c"}
    die(recorder, "a")
    die(recorder, "b")
    assert recorder.gives_up(0)
    assert recorder.avoided == set()
    assert ledger.records()[0][RUN2.run_id].state == "failed"


def test_the_only_node_is_not_left(ledger, recorder):
    recorder.elsewhere = lambda: not recorder.avoided
    die(recorder, "a")
    assert recorder.gives_up(0)
    assert recorder.avoided == set()


def test_an_error_that_breaks_a_device_ends_its_worker_and_counts(ledger, recorder):
    for _ in range(MOST_DEATHS):
        recorder.receive(0, STARTED, "a")
        recorder.receive(0, Broken(f"RuntimeError: CUDA error: device-side assert, with {KEY}"), "a")
        assert recorder.ends_worker(0)
        assert recorder.avoided == set(), "the pack may be at fault"
        recorder.died(0, "the actor was killed", "a")
        assert not recorder.ends_worker(0)
    assert recorder.gives_up(0)
    error = ledger.records()[0][RUN2.run_id].provenance.error
    assert error.startswith("RuntimeError: CUDA error: device-side assert, with ***\nits worker died 5 times")


def test_storage_that_refuses_one_machine_costs_that_machine(ledger, recorder):
    recorder.elsewhere = lambda: recorder.avoided != {"a", "b", "c"}
    for _ in range(2):
        recorder.receive(0, STARTED, "a")
        recorder.receive(0, Stopped("cannot write", "elsewhere-1"), "a")
        assert recorder.ends_worker(0)
        recorder.died(0, "the actor was killed", "a")
    assert recorder.stopped is None
    assert recorder.avoided == {"a"}
    assert "elsewhere-1 is not used from now on: cannot write" in recorder._progress._console.file.getvalue()
    assert list(Path(ledger.storage.root).iterdir()) == [], "nothing is left of the attempt to write"
    recorder.receive(0, Stopped("cannot write", "elsewhere-2"), "b")
    assert recorder.stopped == "cannot write", "of two machines"


@pytest.mark.parametrize("why", ["it is our machine", "it refuses us too", "there is no other"])
def test_storage_that_refuses_us_too_stops_the_study(ledger, recorder, monkeypatch, why):
    recorder.elsewhere = lambda: why != "there is no other"
    if why == "it refuses us too":
        (Path(ledger.storage.root) / ".writing-probe").mkdir()
    host = socket.gethostname() if why == "it is our machine" else "elsewhere"
    recorder.receive(0, Stopped("cannot write", host), "a")
    assert recorder.stopped == "cannot write"
    assert recorder.avoided == set()


def test_attempts_of_earlier_launches_count(ledger, recorder):
    recorder.receive(0, Started("here", attempts=2))
    recorder.receive(0, Started("here", attempts=3))
    recorder.receive(0, DONE)
    assert attempts(ledger) == 2 + 2


def test_a_closed_recorder_records_nothing(ledger, recorder):
    recorder.receive(0, STARTED)
    assert recorder.close()
    assert not recorder.close()
    recorder.receive(0, DONE)
    assert ledger.records()[0] == {}

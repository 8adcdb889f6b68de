import io
from pathlib import Path

import pytest
from rich.console import Console

from study.launch.messages import Epoch, Started, Unfit
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
        assert recorder.turns_away(0)
        recorder.died(0, "the actor was killed")
        assert not recorder.turns_away(0)
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
    assert [recorder.turns_away(k) for k in range(3)] == [False, turned_away, False]
    assert ("it would train on NVIDIA T4" in recorder._progress._console.file.getvalue()) == turned_away


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

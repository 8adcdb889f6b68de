"""What one worker does with one pack, in this process: its checkpoints, what it does with errors, its records."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from study.config import Launching, Model
from study.launch import messages, node, tracking, worker
from study.launch.messages import Done, Epoch, Failed, Started
from study.launch.worker import Setup, record, train_pack
from study.ledger.records import METRICS, Provenance
from study.ledger.runs import Pack, PlannedRun, digest
from study.ledger.storage import Storage
from study.training import checkpoints, data, loop, models
from tests import idx
from tests.examples import RUN

WHERE = Provenance(pack_id="0" * 12, pack_size=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return data.load(str(idx.write(tmp_path_factory.mktemp("digits"), idx.learnable())))


@pytest.fixture(scope="module")
def pack():
    recipe = dict(model="mlp_matched", model_fingerprint="d023326501b0", validation_size=100, batch_size=32, epochs=5)
    runs = [RUN.model_copy(update=recipe | {"learning_rate": rate}) for rate in (0.01, 0.03)]
    planned = tuple(PlannedRun(run_id=run.run_id, run=run, n_parameters=44_439, macs=44_355) for run in runs)
    return Pack(pack_id=digest([run.run_id for run in runs]), runs=planned)


@pytest.fixture
def train(pack, dataset, tmp_path):
    """Train the pack: the list of its reports."""

    def run(max_failures=0, checkpoint_seconds=0.0):
        reports = []
        tracker = tracking.Settings(mode="disabled", project="p", entity=None, folder="", study="s")
        knobs = Launching(max_failures=max_failures, checkpoint_seconds=checkpoint_seconds)
        train_pack(pack, dataset, reports.append, Setup(str(tmp_path), knobs, tracker, (None, None)))
        return reports

    return run


def raise_(error):
    raise error


@pytest.fixture(scope="module")
def undisturbed(pack, dataset):
    *_, last = loop.train([planned.run for planned in pack.runs], dataset)
    return last


@pytest.fixture
def before_epoch(monkeypatch):
    """Have something done before every epoch: it is given the number of epochs trained before, also in vain."""

    def set_(do):
        train_epoch, count = loop.train_epoch, itertools.count()

        def disturbed(model, *arguments):
            do(next(count), model)
            return train_epoch(model, *arguments)

        monkeypatch.setattr(loop, "train_epoch", disturbed)

    return set_


def science(done):
    """The records of a pack, without provenance, and their predictions as bytes."""
    return [(r.model_dump(exclude={"provenance"}), predictions) for r, predictions in done.records]


def epochs(reports):
    return [report.epoch for report in reports if isinstance(report, Epoch)]


def finished(pack, last):
    """The report of a pack that nothing disturbed."""
    return Done(tuple(record(planned, k, last, WHERE) for k, planned in enumerate(pack.runs)))


def test_an_error_midway_is_tried_again_from_the_checkpoint(train, pack, undisturbed, before_epoch):
    def fail(trained, model):
        if trained == 3:
            raise MemoryError("for once")

    before_epoch(fail)
    reports = train(max_failures=1)
    assert epochs(reports) == [1, 2, 3, 4, 5], "no epoch twice"
    assert science(reports[-1]) == science(finished(pack, undisturbed))
    assert [r.provenance.attempts for r, _ in reports[-1].records] == [2, 2]


def test_a_model_that_is_not_the_planned_one_is_one_line_and_trains_nothing(pack, dataset, tmp_path):
    other = [planned.run.model_copy(update={"model_fingerprint": "0123456789ab"}) for planned in pack.runs]
    members = tuple(
        p.model_copy(update={"run": run, "run_id": run.run_id}) for p, run in zip(pack.runs, other, strict=True)
    )
    reports = []
    tracker = tracking.Settings(mode="disabled", project="p", entity=None, folder="", study="s")
    setup = Setup(str(tmp_path), Launching(max_failures=2), tracker, (None, None))
    train_pack(pack.model_copy(update={"runs": members}), dataset, reports.append, setup)
    assert [type(report) for report in reports] == [Started, Failed], "neither trained nor tried again"
    error = reports[-1].provenance.error
    assert "\n" not in error
    assert error.startswith("models: 'mlp_matched' is another model on ")
    assert "(d023326501b0) than was planned (0123456789ab)" in error


def test_a_stale_worker_beside_the_new_one_changes_no_byte(train, pack, undisturbed, before_epoch, tmp_path):
    """It still writes checkpoints of its own, older or newer, and the new one may have to go on from any of them."""
    storage = Storage(tmp_path)
    written = []

    def interfere(trained, model):
        if trained in (1, 2):
            written.append(storage.read(checkpoints.name(pack)))
        if trained == 3:
            storage.write(checkpoints.name(pack), written[0])
            raise MemoryError("for once")
        if trained == 5:
            storage.write(checkpoints.name(pack), written[1])

    before_epoch(interfere)
    reports = train(max_failures=1)
    assert epochs(reports) == [1, 2, 3, 2, 3, 4, 5]
    assert science(reports[-1]) == science(finished(pack, undisturbed))


@pytest.mark.parametrize("anew", [None, "CUDA does not work: no driver"])
def test_an_error_that_breaks_cuda_is_never_tried_again_in_its_process(pack, dataset, tmp_path, monkeypatch, anew):
    """It would break the next packs too; whether the pack or the card is at fault, a fresh process tells."""
    monkeypatch.setattr(node, "unfit", lambda *asked: None)
    monkeypatch.setattr(node, "device_name", lambda device: "A GPU")
    monkeypatch.setattr(node, "_gpus", lambda: ((), "device-side assert triggered"))
    monkeypatch.setattr(node, "without_cuda_anew", lambda: anew)
    monkeypatch.setattr(worker, "train", lambda *given, **more: raise_(RuntimeError("device-side assert triggered")))
    reports = []
    tracker = tracking.Settings(mode="disabled", project="p", entity=None, folder="", study="s")
    knobs = Launching(max_failures=3, gpus_per_trial=1)
    train_pack(pack, dataset, reports.append, Setup(str(tmp_path), knobs, tracker, (None, None)))
    started, last = reports
    assert isinstance(started, Started)
    if anew:
        assert last == messages.Unfit(socket.gethostname(), anew)
    else:
        assert isinstance(last, messages.Broken)
        assert last.error.endswith("RuntimeError: device-side assert triggered")


def test_an_error_every_time_fails_the_pack_and_keeps_its_last_lines(train, before_epoch):
    def fail(trained, model):
        if trained >= 3:
            raise MemoryError(f"attempt {trained - 2}")

    before_epoch(fail)
    reports = train(max_failures=2)
    assert epochs(reports) == [1, 2, 3]
    assert isinstance(reports[-1], Failed)
    provenance = reports[-1].provenance
    assert provenance.attempts == 3
    assert provenance.error.endswith("MemoryError: attempt 3")
    assert len(provenance.error.splitlines()) <= messages.ERROR_LINES


def test_a_pack_that_is_resumed_counts_its_attempts(train, pack, before_epoch, tmp_path):
    class Killed(BaseException):
        """As if the process ended here."""

    def kill(trained, model):
        if trained in (2, 4):
            raise Killed

    before_epoch(kill)
    for attempts in (0, 1):
        with pytest.raises(Killed):
            train()
        state, _ = checkpoints.load(Storage(tmp_path), pack)
        assert state["attempts"] == attempts + 1
    started, *_ = train()
    assert started.attempts == 2


def test_a_diverged_run_is_complete_up_to_that_epoch(train, pack, undisturbed, before_epoch):
    def poison(trained, model):
        if trained == 2:
            next(model.parameters()).data[1] = np.inf

    before_epoch(poison)
    first, second = (r for r, _ in train()[-1].records)
    assert (first.state, first.n_epochs, first.diverged_epoch) == ("finished", 5, None)
    assert first == record(pack.runs[0], 0, undisturbed, first.provenance)[0], "its neighbour is left alone"
    assert (second.state, second.n_epochs, second.diverged_epoch) == ("diverged", 2, 3)
    assert (second.final, second.predictions_sha256) == (None, None)
    for name in METRICS:
        assert second.epochs[name] == tuple(undisturbed.history[name][:2, 1])


@pytest.mark.parametrize(
    ("epoch_seconds", "checkpoint_seconds", "expected"),
    [
        (50, 60, [1, 2, 3, 4]),
        (20, 60, [3]),
        (20, 40, [2, 4]),
        (90, 60, [1, 2, 3, 4]),
        (1, 60, []),
        (1, 0, [1, 2, 3, 4]),
    ],
)
def test_a_death_costs_at_most_a_minute_or_an_epoch(
    train, before_epoch, monkeypatch, epoch_seconds, checkpoint_seconds, expected
):
    clock, saved = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "save", lambda storage, pack, state: saved.append(state["epochs_done"]))
    before_epoch(lambda trained, model: clock.__setitem__(0, clock[0] + epoch_seconds))
    train(checkpoint_seconds=checkpoint_seconds)
    assert saved == expected


def test_a_checkpoint_of_the_pack_that_cannot_be_used_costs_its_progress_alone(train, pack, tmp_path):
    storage = Storage(tmp_path)
    checkpoints.save(storage, pack, {"run_ids": [planned.run_id for planned in pack.runs], "epochs_done": 3})
    reports = train()
    assert epochs(reports) == [1, 2, 3, 4, 5]
    assert "lacks what its pack needs to go on; it is trained from the start" in reports[1].warning


NOISY = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width):
        super().__init__(
            nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(), nn.Linear(width, 10)
        )
"""
UNTIL_KILLED = """
import os, signal, sys
from study.config import Launching, Model
from study.launch.messages import Epoch
from study.launch.tracking import Settings
from study.launch.worker import Setup, train_pack
from study.ledger.runs import Pack
from study.training import data

def report(message):
    if isinstance(message, Epoch) and message.epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

pack, digits, storage = sys.argv[1:]
tracker = Settings(mode="disabled", project="p", entity=None, folder="", study="s")
setup = Setup(storage, Launching(checkpoint_seconds=0), tracker, (None, None))
train_pack(Pack.model_validate_json(pack), data.load(digits), report, setup)
"""


@pytest.mark.slow
def test_masks_statistics_and_the_optimisers_state_survive_a_killed_worker(tmp_path, monkeypatch):
    """Dropout, BatchNorm, Adam, a warm-up and a cosine: all that a checkpoint holds beside weights."""
    (tmp_path / "noisy_nets.py").write_text(NOISY)
    monkeypatch.syspath_prepend(str(tmp_path))
    digits = str(idx.write(tmp_path / "digits", idx.learnable()))
    dataset = data.load(digits)
    model = Model(name="noisy", model="noisy_nets:Net", arguments={"width": 20})
    info = models.identity(model, dataset.info.shape, dataset.info.classes)
    recipe = dict(model="noisy", constructor=model.model, arguments=model.arguments, model_fingerprint=info.fingerprint)
    recipe |= dict(validation_size=100, batch_size=32, epochs=5, momentum=0.0)
    recipe |= dict(optimizer="adam", betas=(0.9, 0.999), eps=1e-8, schedule="cosine", warmup_epochs=1.0)
    runs = [RUN.model_copy(update=recipe | {"learning_rate": rate}) for rate in (0.001, 0.01)]
    sizes = dict(n_parameters=info.n_parameters, macs=info.macs)
    planned = tuple(PlannedRun(run_id=run.run_id, run=run, **sizes) for run in runs)
    pack = Pack(pack_id=digest([run.run_id for run in runs]), runs=planned)
    command = [sys.executable, "-c", UNTIL_KILLED, pack.model_dump_json(), digits, str(tmp_path / "killed")]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    killed = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoints.load(Storage(tmp_path / "killed"), pack)[0]["epochs_done"] in (2, 3)
    tracker = tracking.Settings(mode="disabled", project="p", entity=None, folder="", study="s")
    ended = []
    for storage in ("killed", "undisturbed"):
        reports = []
        setup = Setup(str(tmp_path / storage), Launching(), tracker, (None, None))
        train_pack(pack, dataset, reports.append, setup)
        ended.append(science(reports[-1]))
    assert [m.epoch for m in reports if isinstance(m, Epoch)] == [1, 2, 3, 4, 5]
    assert ended[0] == ended[1]
    assert ended[0][0][0]["state"] == "finished"

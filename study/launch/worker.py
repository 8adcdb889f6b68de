"""What one worker does with one pack: train it, mirror it to W&B, checkpoint it, report it. No Ray in here."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from study.config import Launching
from study.errors import StorageError
from study.launch import messages, node, provenance, tracking
from study.launch.messages import ERROR_LINES, Message
from study.launch.node import Expected
from study.ledger.ledger import npz
from study.ledger.records import Provenance, Record
from study.ledger.runs import Pack, PlannedRun
from study.ledger.storage import Storage
from study.redaction import mask
from study.training import checkpoints, models
from study.training.data import Dataset
from study.training.loop import Epoch, train

Report = Callable[[Message], None]


@dataclass(frozen=True)
class Setup:
    """The settings of a launch that its workers need, without secrets."""

    storage: str
    launch: Launching
    tracking: tracking.Settings
    git: tuple[str | None, bool | None]
    expected: Expected = field(default_factory=Expected)
    token: str | None = None
    """Of the lock that the driver holds; None: the storage is not looked at."""

    @property
    def device(self) -> str:
        """What packs are trained on."""
        return "cuda" if self.launch.gpus_per_trial else "cpu"


def train_pack(pack: Pack, data: Dataset, report: Report, setup: Setup) -> None:
    """Train a pack and report: that it has started, every epoch, and at the end Done, Failed, Broken or Stopped.

    Where the node is not fit for it, only Unfit is reported.

    After an exception, training is retried from the last checkpoint, up to `max_failures` times. Storage that
    refuses a checkpoint is reported as Stopped, for the driver to judge. A model that differs here from the
    planned one is not trained. An error of CUDA stays in the process, for the next packs too: it is reported as Broken,
    or as Unfit where another process has no CUDA either.
    """
    torch.set_num_threads(setup.launch.cpus_per_trial)
    keep_memory()
    if reason := node.unfit(setup.device, setup.expected, setup.storage, setup.token, pack, data):
        report(messages.Unfit(provenance.node(), reason))
        return
    base = Provenance(
        pack_id=pack.pack_id,
        pack_size=len(pack.runs),
        device=node.device_name(setup.device),
        node=provenance.node(),
        machine=provenance.machine(),
        threads=setup.launch.cpus_per_trial,
        versions=provenance.versions(),
        git_commit=setup.git[0],
        git_dirty=setup.git[1],
        started_at=provenance.now(),
    )
    for attempt in range(1, setup.launch.max_failures + 2):
        where = base.model_copy(update={"attempts": attempt})
        try:
            report(_attempt(pack, data, report, setup, where))
            return
        except StorageError as error:
            report(messages.Stopped(mask(str(error)), provenance.node()))
            return
        except models.OtherModel as error:
            # Trying again would change nothing.
            failed = where.model_copy(update={"error": mask(str(error)), "ended_at": provenance.now()})
            break
        except Exception:
            # An error in a model fails its pack, never the study.
            text = mask("\n".join(traceback.format_exc().strip().splitlines()[-ERROR_LINES:]))
            if setup.device == "cuda" and node.without_cuda():
                reason = node.without_cuda_anew()
                report(messages.Unfit(provenance.node(), reason) if reason else messages.Broken(text))
                return
            failed = where.model_copy(update={"error": text, "ended_at": provenance.now()})
    report(messages.Failed(failed))


def keep_memory() -> None:
    """Let the C library keep freed memory: fresh pages for every large activation cost 40% of LeNet-5's time.

    Only glibc has these options; elsewhere this does nothing.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _attempt(pack: Pack, data: Dataset, report: Report, setup: Setup, where: Provenance) -> messages.Done:
    """Train the pack from its checkpoint, or from the start, to its end."""
    storage = Storage(setup.storage, answered=True)
    state, warning = checkpoints.load(storage, pack)
    earlier = state["attempts"] if state else 0
    if where.attempts == 1:
        report(messages.Started(provenance.node(), earlier, node.device_name(setup.device)))
    models.see_that_it_is_planned(pack.runs[0].run, data.info)
    tracker = tracking.Tracker(setup.tracking, pack.runs, where)
    if state:
        # Log again: a killed worker may not have sent what it logged. W&B ignores epochs that it already has.
        for e in range(state["epochs_done"]):
            history = {name: values[e].numpy() for name, values in state["history"].items()}
            tracker.log(e + 1, history, state["finite"][e])
    began = saved = now = time.monotonic()
    before = state["train_seconds"] if state else 0.0
    try:
        for epoch in train([planned.run for planned in pack.runs], data, device=setup.device, checkpoint=state):
            tracker.log(epoch.epoch, epoch.metrics, epoch.finite[-1])
            took = time.monotonic() - now
            now += took
            # If killed, all since the last checkpoint is lost, and the next epoch, which takes about as long.
            if epoch.final is None and now + took - saved > setup.launch.checkpoint_seconds:
                kept = {"train_seconds": before + now - began, "attempts": earlier + 1}
                checkpoints.save(storage, pack, {**epoch.state(), **kept})
                saved = now
            report(messages.Epoch(epoch.epoch, warning))
            warning = None
    except Exception as error:
        tracker.fail(mask(str(error)))
        raise
    seconds = round((before + now - began) / len(pack.runs), 3)
    where = where.model_copy(update={"train_seconds": seconds, "ended_at": provenance.now()})
    ended = tuple(record(planned, k, epoch, where) for k, planned in enumerate(pack.runs))
    warnings = tracker.finish([r for r, _ in ended])
    return messages.Done(ended, "; ".join(warnings) or None, tracker.published)


def record(planned: PlannedRun, k: int, last: Epoch, where: Provenance) -> tuple[Record, bytes | None]:
    """The record of member k after the last epoch, and its predictions as the ledger keeps them if it has finished."""
    n_finite = int(last.finite[:, k].sum())
    finished = n_finite == planned.run.epochs
    epochs = {name: tuple(values[:n_finite, k].tolist()) for name, values in last.history.items()}
    final = predictions = None
    if finished and last.final and last.predictions:
        final = {name: float(values[k]) for name, values in last.final.items()}
        predictions = npz({split: labels[k] for split, labels in last.predictions.items()})
    ended = Record(
        **dict(planned),
        state="finished" if finished else "diverged",
        epochs=epochs,
        diverged_epoch=None if finished else n_finite + 1,
        final=final,
        predictions_sha256=hashlib.sha256(predictions).hexdigest() if predictions else None,
        provenance=where,
    )
    return ended, predictions

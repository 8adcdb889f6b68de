"""What one worker does with one pack: train it, mirror it to W&B, checkpoint it, report it. No Ray in here."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from study import checkpoints, provenance, tracking
from study.data import Dataset
from study.errors import StorageError
from study.runs import Pack
from study.secrets import mask
from study.storage import Storage
from study.training import Epoch, train

ERROR_LINES = 12
"""Last lines of a traceback that a failed run's record keeps."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Settings:
    """Machine knobs that every worker of a launch shares; no secret among them."""

    storage: str
    threads: int
    device: str
    max_failures: int
    checkpoint_seconds: float
    tracking: tracking.Settings
    git: tuple[str | None, bool | None]


def train_pack(pack: Pack, data: Dataset, settings: Settings, report: Report) -> None:
    """Train a pack and report: its start, every epoch, and at the end either `done`, `failed` or `stopped`.

    An exception in training is tried again, `max_failures` times, from the last checkpoint.
    Storage that refuses a checkpoint is reported as `stopped`, for the driver to end the study.
    """
    torch.set_num_threads(settings.threads)
    started_at = provenance.now()
    report({"started": True, "node": provenance.node()})
    for attempt in range(1, settings.max_failures + 2):
        try:
            report(_attempt(pack, data, settings, report, started_at, attempt))
            return
        except StorageError as error:
            report({"stopped": mask(str(error))})
            return
        except Exception:
            # Whatever a model raises is a failure of its pack, never of the study.
            lines = traceback.format_exc().strip().splitlines()[-ERROR_LINES:]
            error_text = mask("\n".join(lines))
    where = _where(pack, settings, started_at, attempts=attempt) | {"error": error_text}
    report({"failed": where})


def _attempt(
    pack: Pack, data: Dataset, settings: Settings, report: Report, started_at: str, attempt: int
) -> dict[str, Any]:
    storage = Storage(settings.storage)
    state, warning = checkpoints.load(storage, pack)
    first = 0 if state is None else state["epochs_done"]
    tracker = tracking.Tracker(settings.tracking, pack.runs, resumed_epoch=first)
    began = saved = time.monotonic()
    before = 0.0 if state is None else state["train_seconds"]
    try:
        runs = [planned.run for planned in pack.runs]
        history: list[Epoch] = []
        for epoch in train(runs, data, device=settings.device, checkpoint=state):
            history.append(epoch)
            tracker.log(epoch.epoch, epoch.metrics, epoch.finite)
            seconds = before + time.monotonic() - began
            if epoch.final is None and time.monotonic() - saved >= settings.checkpoint_seconds:
                checkpoints.save(storage, pack, {**epoch.state(), "train_seconds": seconds})
                saved = time.monotonic()
            report({"epoch": epoch.epoch, "warning": warning})
            warning = None
        where = _where(pack, settings, started_at, attempts=attempt)
        where |= {"train_seconds": round(seconds / len(pack.runs), 3), "ended_at": provenance.now()}
        records = _records(pack, epoch, where)
        tracker.finish({r.run_id: r for r in records})
    except BaseException as error:
        tracker.fail(mask(str(error)))
        raise
    predictions = {} if epoch.final is None else {"val": epoch.val, "test": epoch.test}
    return {"done": True, "records": [r.model_dump_json() for r in records], "predictions": predictions}

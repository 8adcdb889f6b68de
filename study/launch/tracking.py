"""Weights & Biases: every epoch of every run, mirrored in the worker. The one file of `study` that imports wandb.

Nothing that W&B does may stop, slow or change training: all calls are made in order by one thread beside it,
which falls back to offline files when the server is away.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study.ledger.records import METRICS, Record
from study.ledger.runs import PlannedRun
from study.redaction import mask

if TYPE_CHECKING:
    import wandb


AWAY_SECONDS = 600.0
"""A worker that found the server away logs its packs offline for so long before it asks again."""

_away_until = 0.0


@dataclass(frozen=True)
class Settings:
    """How to log; holds no key."""

    mode: str
    """online, offline or disabled."""
    project: str
    entity: str | None
    folder: str
    """Where W&B keeps its files on the worker's machine."""
    study: str
    init_timeout: float = 30
    """Seconds the server has to answer before a pack's runs are written offline instead."""

    @property
    def finish_timeout(self) -> float:
        """Seconds that the end of a pack waits for the uploads."""
        return 2 * self.init_timeout


def resolve(mode: str, environ: Mapping[str, str]) -> str:
    """`auto` as online where there is a key, else offline; WANDB_MODE, which W&B's users know, comes first."""
    if mode != "auto":
        return mode
    if environ.get("WANDB_MODE") in ("online", "offline", "disabled"):
        return environ["WANDB_MODE"]
    netrc = Path(environ.get("NETRC", Path.home() / ".netrc"))
    try:
        known = "api.wandb.ai" in netrc.read_text()
    except (OSError, UnicodeDecodeError):
        known = False
    return "online" if environ.get("WANDB_API_KEY") or known else "offline"


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that workers on other machines need: theirs is their node's environment, not the driver's.

    But for the address of a service that runs beside the driver, as where a notebook that logs has started it.
    """
    return {name: value for name, value in environ.items() if name.startswith("WANDB_") and name != "WANDB_SERVICE"}


def timeout(environ: Mapping[str, str]) -> float:
    """Seconds to wait for the server, as WANDB_INIT_TIMEOUT or we say."""
    try:
        return float(environ["WANDB_INIT_TIMEOUT"])
    except (KeyError, ValueError):
        return Settings.init_timeout


def wandb_id(study: str, run_id: str) -> str:
    """The W&B id of a run: the same in every launch, so that a resumed run goes on where it was."""
    return f"{study}-{run_id}"


class Tracker:
    """Mirrors one pack to W&B, one W&B run per study run. No method raises, and only an end waits."""

    def __init__(self, settings: Settings, planned: Sequence[PlannedRun]) -> None:
        self.warnings: list[str] = []
        """What went wrong, one line each, without secrets; for the driver to print."""
        self._settings = settings
        self._planned = planned
        self._runs: list[wandb.Run] = []
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        if settings.mode != "disabled":
            self._thread.start()
            self._calls.put(self._start)

    def log(self, epoch: int, metrics: Mapping[str, np.ndarray], finite: np.ndarray) -> None:
        """Log an epoch: metrics name → [K]. Members that are not `finite` [K] are past their last epoch."""
        rows = [
            {name: float(metrics[name][k]) for name in METRICS} if finite[k] else None
            for k in range(len(self._planned))
        ]
        self._calls.put(lambda: self._log(epoch, rows))

    def finish(self, records: Sequence[Record]) -> None:
        """Write each run's state and final metrics to its summary and end it; waits `finish_timeout` at most."""
        self._calls.put(lambda: self._finish(records))
        self._end()

    def fail(self, error: str) -> None:
        """End all runs as failed."""
        self._calls.put(lambda: self._fail(error))
        self._end()

    def _end(self) -> None:
        if self._settings.mode == "disabled":
            return
        self._calls.put(None)
        self._thread.join(self._settings.finish_timeout)
        if self._thread.is_alive():
            _away()
            self._warn(
                f"not finished after {self._settings.finish_timeout:.0f} s; its files are in {self._settings.folder}"
            )

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                # W&B raises many kinds of errors; none of them is worth a run.
                self._warn(f"{type(error).__name__}: {error}")

    def _warn(self, text: str) -> None:
        line = mask("W&B: " + " ".join(text.split())[:300])
        if line not in self.warnings:
            self.warnings.append(line)

    def _start(self) -> None:
        import wandb

        settings = self._settings
        if settings.mode == "online" and time.monotonic() < _away_until:
            settings = replace(settings, mode="offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        Path(settings.folder).mkdir(parents=True, exist_ok=True)
        try:
            self._runs = [self._init(settings, planned) for planned in self._planned]
        except (wandb.errors.CommError, wandb.errors.UsageError, TimeoutError) as error:
            if settings.mode == "offline":
                raise
            self._warn(f"the server does not answer ({error}); logged offline for {AWAY_SECONDS / 60:.0f} minutes")
            _away()
            # Else W&B would hold on to the ids of the runs that it could not start.
            wandb.teardown()
            offline = replace(settings, mode="offline")
            self._runs = [self._init(offline, planned) for planned in self._planned]

    def _init(self, settings: Settings, planned: PlannedRun) -> wandb.Run:
        import wandb

        run = planned.run
        return wandb.init(
            id=wandb_id(settings.study, planned.run_id),
            name=f"{run.model} {run.learning_rate:g} seed {run.seed}",
            group=f"{run.model} {run.learning_rate:g} {run.configuration_id}",
            tags=[settings.study[:64], run.model[:64]],
            config={**run.model_dump(), **planned.model_dump(exclude={"run"}), "study": settings.study},
            project=settings.project,
            entity=settings.entity,
            dir=settings.folder,
            mode=settings.mode,
            resume="allow" if settings.mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=settings.init_timeout,
            ),
        )

    def _log(self, epoch: int, rows: Sequence[Mapping[str, float] | None]) -> None:
        # Where W&B did not start, there are no runs, and that has been said.
        for run, row in zip(self._runs, rows, strict=False):
            if row is not None:
                # Without commit the last epoch would stay in memory when the worker is killed.
                run.log({"epoch": epoch, **row}, step=epoch, commit=True)

    def _finish(self, records: Sequence[Record]) -> None:
        for run, record in zip(self._runs, records, strict=False):
            final = {f"final_{name}": value for name, value in (record.final or {}).items()}
            run.summary.update({"state": record.state, "diverged_epoch": record.diverged_epoch, **final})
            run.finish(exit_code=0)

    def _fail(self, error: str) -> None:
        for run in self._runs:
            run.summary.update({"state": "failed", "error": error})
            run.finish(exit_code=1)


def _away() -> None:
    """Note, for the packs that this worker trains next, that the server is not to be waited for."""
    global _away_until
    _away_until = time.monotonic() + AWAY_SECONDS

"""Weights & Biases: how a run looks there, and every epoch of every run mirrored by the worker that trains it.

Nothing that W&B does may stop or change training, nor hold it up for more than PATIENCE_SECONDS a worker in all: all
calls are made in order by one thread beside it, which falls back to offline files when the server is away. What W&B
lacks after that is published from the ledger: sync.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import ValidationError

from study.config import StudyConfig, Wandb
from study.errors import UserError
from study.ledger.records import METRICS, Provenance, Record
from study.ledger.runs import PlannedRun, Run
from study.redaction import mask
from study.wandb_access import CLOUD, PATIENCE, PROJECT, api_key, base_url, end, in_files, known, timeout

if TYPE_CHECKING:
    import wandb

PATIENCE_SECONDS = 5.0
"""Longest total wait of a worker for W&B, over all its packs."""

AWAY_SECONDS = 60.0
"""A worker that cannot reach the server logs offline for this long before it tries again."""

MOST_MEMBERS = 32
"""Runs of a pack that a worker logs as it trains; larger packs are published from the ledger alone."""

OF_ONE_RUN = ("WANDB_NAME", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_JOB_TYPE", "WANDB_SWEEP_ID")
"""What describes a single run, and so none of a study's."""

_OURS = ("WANDB_MODE", "WANDB_DIR", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_NOTES", "WANDB_PROJECT", "WANDB_ENTITY")
"""What the driver has read and passes on in `Settings`."""


@dataclass(frozen=True)
class Settings:
    """How to log; holds no key."""

    mode: str
    """online, offline or disabled."""
    project: str
    entity: str | None
    """None: whatever the key's owner has as default."""
    folder: str
    """W&B keeps its files in `wandb/` below it, on each machine that trains."""
    study: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """The study's config, for the command that makes a run again."""
    tags: tuple[str, ...] = ()
    """Beside those of the study and the model."""
    notes: str = ""
    system_metrics: bool = False
    init_timeout: float = PATIENCE
    """Seconds the server has to answer before a pack's runs are written offline instead."""

    @property
    def finish_timeout(self) -> float:
        """Seconds that the uploads of an ended run may take, beside the training of the next."""
        return 2 * self.init_timeout


# What W&B's users set outside of the config


def filled_in(config: StudyConfig, environ: Mapping[str, str]) -> StudyConfig:
    """The config with W&B's project and entity as W&B's own variables and settings files say where it leaves them open.

    Raises UserError for names that W&B would not take.
    """
    given = config.wandb
    found: dict[str, str | None] = {}
    for key, default in (("project", PROJECT), ("entity", None)):
        if getattr(given, key) is None:
            found[key] = known(key, environ) or default
    try:
        Wandb.model_validate(found)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise UserError(
            f"WANDB_{key.upper()}: found {found[key]!r}; allowed: 1 to 80 letters, digits, '.', '_' or '-', beginning "
            "with a letter or digit"
        ) from None
    return config.model_copy(update={"wandb": given.model_copy(update=found)})


def settings(config: StudyConfig, environ: Mapping[str, str]) -> Settings:
    """How the study's workers log. Raises UserError for `online` without a key, and for a mode that is none."""
    config = filled_in(config, environ)
    mode = resolve(config.wandb.mode, environ)
    if mode == "online" and not api_key(environ):
        raise UserError(
            f"wandb.mode: found online, and no key for {urlsplit(base_url(environ)).netloc}; allowed: a key, from "
            "`wandb login` or in WANDB_API_KEY, or wandb.mode: offline"
        )
    return Settings(
        mode=mode,
        project=config.wandb.project or PROJECT,
        entity=config.wandb.entity,
        folder=_folder(environ),
        study=config.name,
        config=config.resolved(),
        tags=_tags(environ),
        notes=environ.get("WANDB_NOTES") or "",
        system_metrics=config.wandb.system_metrics,
        init_timeout=timeout(environ),
    )


def of_study(name: str, config: Mapping[str, Any], wandb: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """How to publish a study whose launch had this config: where its block `wandb` says, else the environment."""
    return Settings(
        mode="online",
        project=wandb.get("project") or known("project", environ) or PROJECT,
        entity=wandb.get("entity") or known("entity", environ),
        folder=_folder(environ),
        study=name,
        config=config,
        tags=_tags(environ),
        notes=environ.get("WANDB_NOTES") or "",
        init_timeout=timeout(environ),
    )


def lines(config: StudyConfig, settings: Settings, environ: Mapping[str, str], members: int = 1) -> list[str]:
    """What to tell at the start of a launch: where W&B's files go, and what of W&B's variables does not decide.

    `members` has the largest pack.
    """
    if settings.mode == "disabled":
        return []
    where = "offline" if settings.mode == "offline" else f"project {settings.project} on {base_url(environ)}"
    told = [f"W&B: {where}; its files: {settings.folder}/wandb"]
    if members > MOST_MEMBERS:
        told.append(
            f"W&B: packs of more than {MOST_MEMBERS} runs, of which the largest has {members}, are published from the "
            f"ledger alone, {'at the end' if settings.mode == 'online' else 'by python -m study sync'}"
        )
    told += [
        f"WANDB_{key.upper()}={value} is not used: the config says wandb.{key}: {decided}"
        for key in ("project", "entity", "mode")
        if (value := environ.get(f"WANDB_{key.upper()}"))
        and (decided := getattr(config.wandb, key)) not in (None, "auto", value)
    ]
    if environ.get("WANDB_RUN_GROUP"):
        told.append(
            f"WANDB_RUN_GROUP={environ['WANDB_RUN_GROUP']} is a tag of every run instead: runs are grouped by "
            "configuration, over whose seeds W&B averages"
        )
    told += [f"{name} is not used: every run of a study has its own" for name in OF_ONE_RUN if environ.get(name)]
    return [mask(line) for line in told]


def resolve(mode: str, environ: Mapping[str, str]) -> str:
    """`auto` as WANDB_MODE says, which W&B's users know; else online where there is a key, and offline elsewhere."""
    if mode != "auto":
        return mode
    if given := environ.get("WANDB_MODE") or in_files("mode", environ):
        modes = {"online": "online", "offline": "offline", "disabled": "disabled", "run": "online", "dryrun": "offline"}
        if given not in modes:
            raise UserError(f"WANDB_MODE: found {given!r}; allowed: online, offline, disabled")
        return modes[given]
    return "online" if api_key(environ) else "offline"


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that workers on other machines need: theirs is their node's environment, not the driver's.

    Among them the key and the server's address, wherever the driver has them from; but not the address of a service
    that runs beside the driver, as where a notebook that logs has started it.
    """
    kept = {name: value for name, value in environ.items() if name.startswith("WANDB_")}
    for name in ("WANDB_SERVICE", *OF_ONE_RUN, *_OURS):
        kept.pop(name, None)
    if "WANDB_IDENTITY_TOKEN_FILE" not in kept and (found := api_key(environ)):
        kept["WANDB_API_KEY"] = found
    if (server := base_url(environ)) != CLOUD:
        kept["WANDB_BASE_URL"] = server
    return kept


def _folder(environ: Mapping[str, str]) -> str:
    return str(Path(environ.get("WANDB_DIR") or ".").expanduser().absolute())


def _tags(environ: Mapping[str, str]) -> tuple[str, ...]:
    tags = [*(environ.get("WANDB_TAGS") or "").split(","), environ.get("WANDB_RUN_GROUP") or ""]
    return tuple(dict.fromkeys(tag.strip()[:64] for tag in tags if tag.strip()))


# How a run looks on W&B


def wandb_id(study: str, run_id: str) -> str:
    """The W&B id of a run: the same in every launch, so that a resumed run continues."""
    return f"{study}-{run_id}"


def metric(name: str) -> str:
    """A metric's name in the section where W&B's readers look for it: train_loss is train/loss."""
    return name.replace("_", "/", 1)


def row(epoch: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """What is logged of an epoch, counted from 1."""
    return {"epoch": epoch, **{metric(name): metrics[name] for name in METRICS}}


def summary(record: Record) -> dict[str, Any]:
    """What a run's summary holds of its end, beside W&B's own last and best value of every metric."""
    end: dict[str, Any] = {"state": record.state}
    if record.diverged_epoch is not None:
        end["diverged_epoch"] = record.diverged_epoch
    if record.provenance.error:
        end["error"] = mask(record.provenance.error.splitlines()[-1])
    if record.provenance.train_seconds is not None:
        end["train_seconds"] = record.provenance.train_seconds
    return end | {f"final/{name}": value for name, value in (record.final or {}).items()}


def command(config: Mapping[str, Any], run: Run) -> str:
    """The command that trains a run again, from any checkout: every key that matters is set on the command line."""
    own = ("name", "models", "learning_rates", "seeds", "launch", "wandb", "storage", "analysis")
    models = [m for m in config.get("models", ()) if run.model in (m, m.get("name") if isinstance(m, dict) else None)]
    seeds = config.get("seeds")
    overrides = {
        "name": f"{config.get('name', 'study')[:74]}-again",
        **{name: value for name, value in config.items() if name not in own},
        "models": models or [run.model],
        "learning_rates": [run.learning_rate],
        "seeds": seeds if isinstance(seeds, dict) else [run.seed],
        "analysis": {},
    }
    words = [f"{k}={v if k in ('name', 'dataset') else json.dumps(v)}" for k, v in overrides.items()]
    return shlex.join(["python", "-m", "study", "run", "configs/smoke.yaml", *words])


def open_run(settings: Settings, planned: PlannedRun, where: Provenance) -> wandb.Run:
    """Start or resume a run on W&B, with everything that explains it. Raises as wandb does."""
    import wandb

    run = planned.run
    provenance = where.model_dump(
        include={"device", "node", "machine", "threads", "versions", "pack_size", "started_at", "attempts"}
    )
    provenance |= {"commit": where.git_commit, "dirty": where.git_dirty, "pack": where.pack_id}
    about = f"Made by `{command(settings.config, run)}`"
    opened = wandb.init(
        id=wandb_id(settings.study, planned.run_id),
        name=f"{run.model[:80]} lr {run.learning_rate:g} seed {run.seed}",
        group=f"{run.model} lr {run.learning_rate:g} {run.configuration_id}",
        job_type=run.model[:64],
        tags=list(dict.fromkeys([settings.study[:64], run.model[:64], *settings.tags])),
        notes="\n\n".join(filter(None, [settings.notes, about])),
        config={
            "study": settings.study,
            "run_id": planned.run_id,
            "configuration_id": run.configuration_id,
            **run.model_dump(),
            **planned.model_dump(exclude={"run", "run_id"}),
            **{f"provenance/{name}": value for name, value in provenance.items()},
        },
        project=settings.project,
        entity=settings.entity,
        dir=settings.folder,
        mode=settings.mode,  # type: ignore[arg-type]
        resume="allow" if settings.mode == "online" else None,
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            host=where.node or "unknown",
            program="study/__main__.py",
            program_relpath="study/__main__.py",
            x_disable_stats=not settings.system_metrics,
            x_disable_meta=True,
            init_timeout=settings.init_timeout,
            finish_timeout=settings.finish_timeout,
            finish_timeout_raises=True,
        ),
    )
    opened.define_metric("epoch")
    for name in METRICS:
        best = "max" if name.endswith("accuracy") else "min"
        opened.define_metric(metric(name), step_metric="epoch", summary=f"{best},last")
    return opened


def end_run(opened: wandb.Run, record: Record) -> None:
    """Write a run's end and wait for its uploads. A run that diverged has come to an end, one that failed has not."""
    opened.summary.update(summary(record))
    opened.finish(exit_code=1 if record.state == "failed" else 0)


def usable(settings: Settings) -> Settings:
    """The settings with a folder that W&B can write to on this machine: theirs, or else the temporary folder."""
    with contextlib.suppress(OSError):
        Path(settings.folder).mkdir(parents=True, exist_ok=True)
    if os.path.isdir(settings.folder) and os.access(settings.folder, os.W_OK):
        return settings
    folder = Path(tempfile.gettempdir()) / f"{PROJECT}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return replace(settings, folder=str(folder))


# What a worker does


class _Worker:
    """The one thread of this process that talks to W&B: it makes calls in order, pack after pack."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.waited = 0.0
        """Seconds that training has waited so far."""
        self.away_until = 0.0
        self.warnings: list[str] = []
        """What went wrong and has not been told, one line each, without secrets."""
        self.said: set[str] = set()
        self.published = 0
        """Runs that the server has taken whole, and that has not been told."""

    def do(self, call: Callable[[], None]) -> None:
        """Have a call made after all that were asked for before."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self.thread.start()
        self.calls.put(call)

    def wait(self) -> None:
        """Wait for all calls so far, within what is left of a worker's patience."""
        done = threading.Event()
        self.do(done.set)
        began = time.monotonic()
        done.wait(max(0.0, PATIENCE_SECONDS - self.waited))
        self.waited += time.monotonic() - began

    def warn(self, text: str) -> None:
        """Note a warning, the first time."""
        line = mask("W&B: " + " ".join(text.split())[:300])
        if line not in self.said:
            self.said.add(line)
            self.warnings.append(line)

    def away(self) -> None:
        """Remember, for this worker's next packs, not to wait for the server."""
        self.away_until = time.monotonic() + AWAY_SECONDS

    def _work(self) -> None:
        while True:
            call = self.calls.get()
            try:
                call()
            except Exception as error:
                # W&B raises many kinds of errors; none is worth losing a run.
                self.warn(f"{type(error).__name__}: {error}")


_worker = _Worker()


class Tracker:
    """Mirrors one pack to W&B, one W&B run per study run. No method raises, and only an end waits."""

    def __init__(self, settings: Settings, planned: Sequence[PlannedRun], where: Provenance) -> None:
        self._settings = settings
        self._planned = planned
        self._where = where
        self.published = 0
        """Runs that W&B has taken whole since the last pack's end, known at this one's."""
        self._runs: list[wandb.Run] = []
        self._online = False
        self._disabled = settings.mode == "disabled" or len(planned) > MOST_MEMBERS
        self._do(self._start)

    def log(self, epoch: int, metrics: Mapping[str, np.ndarray], finite: np.ndarray) -> None:
        """Log an epoch: metrics name → [K]. Members that are not `finite` [K] are past their last epoch."""
        rows = [
            row(epoch, {name: float(metrics[name][k]) for name in METRICS}) if finite[k] else None
            for k in range(len(self._planned))
        ]
        self._do(lambda: self._log(epoch, rows))

    def finish(self, records: Sequence[Record]) -> list[str]:
        """Write each run's state and final metrics to its summary and end it. Returns what has gone wrong so far."""
        self._do(lambda: self._finish(records))
        return self._end()

    def fail(self, error: str) -> list[str]:
        """End all runs as failed. Returns what has gone wrong so far."""
        self._do(lambda: self._fail(error))
        return self._end()

    def _do(self, call: Callable[[], None]) -> None:
        if not self._disabled:
            _worker.do(call)

    def _end(self) -> list[str]:
        if not self._disabled:
            _worker.wait()
        warnings, _worker.warnings = _worker.warnings, []
        self.published, _worker.published = _worker.published, 0
        return warnings

    def _start(self) -> None:
        import wandb

        settings = usable(self._settings)
        if settings.folder != self._settings.folder:
            _worker.warn(f"{self._settings.folder} cannot be written; W&B's files are in {settings.folder}/wandb")
        if settings.mode == "online" and time.monotonic() < _worker.away_until:
            settings = replace(settings, mode="offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        for name in OF_ONE_RUN:
            # A worker started on the driver's machine has the driver's environment.
            os.environ.pop(name, None)
        self._online = settings.mode == "online"
        try:
            self._runs = [open_run(settings, planned, self._where) for planned in self._planned]
        except (wandb.errors.CommError, wandb.errors.UsageError, TimeoutError) as error:
            if settings.mode == "offline":
                raise
            _worker.warn(f"the server does not answer ({error}); this worker logs offline for {AWAY_SECONDS:.0f} s")
            _worker.away()
            self._online = False
            # Otherwise W&B would hold on to the ids of runs that it could not start.
            end()
            offline = replace(settings, mode="offline")
            self._runs = [open_run(offline, planned, self._where) for planned in self._planned]

    def _log(self, epoch: int, rows: Sequence[Mapping[str, float] | None]) -> None:
        # Where W&B did not start, there are no runs; a warning has been given.
        for run, logged in zip(self._runs, rows, strict=False):
            if logged is not None:
                # Without commit, the last epoch would be lost with a killed worker.
                run.log(dict(logged), step=epoch, commit=True)

    def _finish(self, records: Sequence[Record]) -> None:
        self._all(lambda k: end_run(self._runs[k], records[k]))

    def _fail(self, error: str) -> None:
        def fail(k: int) -> None:
            self._runs[k].summary.update({"state": "failed", "error": error})
            self._runs[k].finish(exit_code=1)

        self._all(fail)

    def _all(self, end: Callable[[int], None]) -> None:
        """End all runs at once: of a server that is away, each is given up only after `finish_timeout`."""
        if not self._runs:
            return
        with ThreadPoolExecutor(len(self._runs)) as pool:
            ends = [pool.submit(end, k) for k in range(len(self._runs))]
        for ended in ends:
            if isinstance(error := ended.exception(), TimeoutError):
                _worker.away()
                _worker.warn(f"the server took more than {self._settings.finish_timeout:.0f} s to take a run's end")
            elif error:
                raise error
            else:
                _worker.published += self._online

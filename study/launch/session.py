"""One launch of a study: hold its lock, train what is missing, tell the user."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from study.config import StudyConfig
from study.errors import LockedError, StorageError, UserError
from study.launch import plan, provenance, sync, tracking
from study.launch.plan import Prepared
from study.launch.progress import Progress, duration, say
from study.launch.recorder import Recorder
from study.launch.worker import Setup, train_pack
from study.ledger.lock import Lock
from study.ledger.runs import Pack, work
from study.ledger.storage import URI, Storage

MACS_PER_SECOND = 8e9
"""Multiply-accumulates of forward passes a second and core during training, where no record tells."""


@dataclass(frozen=True)
class Options:
    """Options of a launch that come from the command line."""

    again: str
    """The command that resumes it, for messages."""
    address: str | None = None
    """Of the Ray cluster to join; None: Ray is started on this machine."""
    retry_failed: bool = False
    dashboard: bool = False
    mix_recipes: bool = False


def run(config: StudyConfig, console: Console, options: Options) -> int:
    """Train what is missing; returns the exit code.

    Raises UserError for what the config cannot have, StorageError when the storage cannot be read or written before
    training, LockedError when another driver holds the study or takes it over, RayError when Ray does not start.
    """
    # In the launch's record stands where its runs have gone on W&B, whoever said so.
    config = tracking.filled_in(config, os.environ)
    storage = Storage(config.storage)
    if options.address and not URI.match(config.storage) and not Path(config.storage).is_absolute():
        raise UserError(
            f"storage: found {config.storage!r}; allowed with --address: an absolute path on a shared mount, or a URI, "
            "since a relative path would end up in a job's temporary folder"
        )
    with Lock(storage / config.name) as lock:
        prepared = plan.prepare(config, mix_recipes=options.mix_recipes)
        todo = prepared.todo(options.retry_failed)
        for problem in prepared.problems:
            say(console, f"{problem.path}: {problem.reason}; it is not counted as a record", style="yellow")
        prepared.tidy(options.retry_failed)
        for note in prepared.notes:
            say(console, note)
        setup, code, published = _setup(prepared), None, 0
        if todo:
            say(console, f"{config.name}: {_extent(prepared, todo, options.retry_failed)}")
            largest = max(len(pack.runs) for pack in todo)
            for line in tracking.lines(config, setup.tracking, os.environ, largest):
                say(console, line)
            code, published = _train(prepared, setup, lock, console, options)
        else:
            say(console, f"{config.name}: all {len(prepared.planned)} runs have a record; nothing to train")
            if prepared.redeclared:
                plan.commit(prepared)
                say(console, "the analysis block differs from the last launch's: recorded, and the report will say so")
        with contextlib.suppress(StorageError) if code else contextlib.nullcontext():
            # Only what is published needs the curves.
            records, _ = prepared.ledger.records(curves=setup.tracking.mode == "online")
            prepared = replace(prepared, records=records)
        if todo or setup.tracking.mode == "online":
            mirrored = sync.Mirrored(prepared.study, prepared.records, setup.tracking, _full(storage / config.name))
            sync.at_end(mirrored, console, stopped=code is not None, published=published)
        if code is not None:
            return code
        if todo:
            prepared.tidy()
    return _summary(prepared, console)


def _train(prepared: Prepared, setup: Setup, lock: Lock, console: Console, options: Options) -> tuple[int | None, int]:
    """Train the packs; the exit code if something stopped them, else None.

    And how many runs W&B has, as far as the workers know.
    """
    # Ray takes seconds to import, and a study with nothing to train does not need it.
    from study.launch import cluster, ray_tune

    with cluster.connected(options.address, dashboard=options.dashboard, memory=_memory(prepared)) as dashboard:
        if lack := cluster.lack(setup.launch):
            # A cluster may still grow.
            if options.address is None:
                raise UserError(lack)
            say(console, f"{lack} on a node of this cluster now; waiting for a node that has it", style="yellow")
        # Only now is the plan written: a failed start of Ray is not a launch.
        lock.confirm()
        plan.commit(prepared)
        if dashboard:
            say(console, f"Ray's dashboard: {dashboard}")
        todo, ended = prepared.todo(options.retry_failed), prepared.ended(options.retry_failed)
        published = 0
        while todo:
            with Progress(todo, console) as progress:
                lock.tell = progress.numbers
                queue = ray_tune.Queue(
                    packs=todo,
                    data=prepared.dataset,
                    train=partial(train_pack, setup=setup),
                    recorder=Recorder(prepared.ledger, todo, ended, progress),
                    knobs=setup.launch,
                    environment=tracking.environment(os.environ),
                )
                try:
                    ray_tune.launch(queue, lambda: lock.lost)
                except ray_tune.Interrupted as error:
                    progress.warn(f"stopped by {error}; every ended run is kept; to go on: {options.again}")
                    return 130, published + queue.recorder.published
            if lock.lost:
                raise LockedError(
                    f"{prepared.ledger.storage}: another driver took this study over; this one has stopped"
                )
            if stopped := queue.recorder.stopped:
                say(console, f"error: {stopped}", style="red")
                say(console, f"every ended run is kept; to go on once there is room: {options.again}")
                return 3, published + queue.recorder.published
            prepared = replace(prepared, records=prepared.ledger.records(curves=False)[0])
            published += queue.recorder.published
            # When a worker dies between two packs, Tune drops the second: launch it again, as long as that helps.
            before, todo, ended = len(todo), prepared.todo(), prepared.ended()
            if len(todo) == before:
                break
    return None, published


def _memory(prepared: Prepared) -> int:
    """Bytes that our own Ray's object store needs."""
    images = prepared.dataset.train_images.nbytes + prepared.dataset.test_images.nbytes
    return max(512 * 2**20, 4 * images)


def show_plan(config: StudyConfig, console: Console, *, retry_failed: bool = False, mix_recipes: bool = False) -> int:
    """Print what would run: counts, packs, estimated time."""
    prepared = plan.prepare(config, mix_recipes=mix_recipes)
    todo = prepared.todo(retry_failed)
    grid, seeds = config.learning_rate_grid(), len({p.run.seed for p in prepared.planned})
    models, epochs = len(config.models), config.training.epochs
    factors = ((models, "model"), (len(grid), "learning rate"), (seeds, "seed"), (epochs, "epoch"))
    product = " × ".join(_many(n, noun) for n, noun in factors)
    say(console, f"{config.name}: {product} = {_many(len(prepared.planned), 'run')}")
    for note in prepared.notes:
        say(console, note)
    say(console, f"to train: {_extent(prepared, todo, retry_failed)}")
    for model in config.named_models():
        packs = [pack for pack in todo if pack.runs[0].run.model == model]
        say(console, f"  {model}: {_many(sum(len(p.runs) for p in packs), 'run')} in {_many(len(packs), 'pack')}")
    workers = config.launch.workers or max(1, (os.cpu_count() or 1) // config.launch.cpus_per_trial)
    seconds = _seconds(todo, prepared) / workers
    say(console, f"estimated time on {_many(workers, 'worker')}: {duration(seconds)}")
    return 0


def _seconds(packs: Sequence[Pack], prepared: Prepared) -> float:
    """The packs' training time in seconds: estimated from a model's records, else from its arithmetic."""
    epochs: Counter[str] = Counter()
    spent: dict[str, float] = defaultdict(float)
    for record in prepared.records.values():
        if record.provenance.train_seconds:
            spent[record.run.model] += record.provenance.train_seconds
            epochs[record.run.model] += record.run.epochs
    n_train = prepared.dataset.info.n_train - prepared.config.training.validation_size
    seconds = 0.0
    for pack in packs:
        model = pack.runs[0].run.model
        if model in epochs:
            seconds += spent[model] / epochs[model] * sum(planned.run.epochs for planned in pack.runs)
        else:
            seconds += work(pack) * n_train / MACS_PER_SECOND
    return seconds


def place(config: StudyConfig) -> str:
    """The folder, absolute, or the URI where the study is kept."""
    return _full(Storage(config.storage) / config.name)


def _full(storage: Storage) -> str:
    return str(Path(storage.path("."))) if storage.local else storage.root


def _setup(prepared: Prepared) -> Setup:
    config = prepared.config
    return Setup(
        storage=_full(prepared.ledger.storage),
        launch=config.launch,
        tracking=tracking.settings(config, os.environ),
        git=provenance.git(),
    )


def _extent(prepared: Prepared, todo: list[Pack], retry_failed: bool) -> str:
    ended = prepared.ended(retry_failed)
    missing = sum(planned.run_id not in ended for planned in prepared.planned)
    return f"{missing} of {_many(len(prepared.planned), 'run')}, in {_many(len(todo), 'pack')}"


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _summary(prepared: Prepared, console: Console) -> int:
    """Print how many planned runs ended how; 0 if each has an outcome, 1 if some failed or are missing."""
    states = Counter(
        prepared.records[p.run_id].state if p.run_id in prepared.records else "missing" for p in prepared.planned
    )
    counts = ", ".join(f"{states[s]} {s}" for s in ("finished", "diverged", "failed", "missing") if states[s])
    say(console, f"{prepared.config.name}: {counts}, of {len(prepared.planned)} runs planned")
    where = prepared.ledger.storage
    say(console, f"records: {where}")
    if states["failed"]:
        failed = next(
            r for p in prepared.planned if (r := prepared.records.get(p.run_id)) is not None and r.state == "failed"
        )
        last = (failed.provenance.error or "").splitlines()[-1:]
        say(console, f"last line of a failure ({failed.run_id}, {failed.run.model}): {''.join(last)}", style="red")
        say(console, "to try them again: add --retry-failed")
    if states["finished"]:
        say(console, f"next, the answer: python -m analysis {shlex.quote(str(where))}")
        page = "report/index.html"
        say(console, f"its report will be {where.path(page) if where.local else where.address(page)}")
    return 1 if states["failed"] or states["missing"] else 0

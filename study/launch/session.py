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
from study.launch.progress import Progress, bar, duration, say
from study.launch.recorder import Recorder, devices
from study.launch.worker import Setup, train_pack
from study.ledger.lock import Lock
from study.ledger.records import Record
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
    mix_devices: bool = False
    wait_minutes: float | None = None
    """How long packs may wait for a node that has what they take; None: for ever."""


@dataclass
class _Study:
    """A study that this launch holds."""

    prepared: Prepared
    lock: Lock
    setup: Setup
    todo: list[Pack]
    """What is to be trained."""
    ended: dict[str, Record]
    """Records that are not to be made again."""
    published: int = 0
    """Runs that W&B has, as far as this launch's workers know."""


def run(configs: Sequence[StudyConfig], console: Console, options: Options) -> int:
    """Train what is missing of one or more studies, on one Ray; returns the exit code, the worst of theirs.

    Raises UserError for a config that cannot be run, StorageError when a storage cannot be read or written before
    training, LockedError when another driver holds a study or takes it over, RayError when Ray does not start.
    """
    # The launch's record names the W&B project and entity used, whatever set them.
    configs = [tracking.filled_in(config, os.environ) for config in configs]
    for config in configs:
        if options.address and not URI.match(config.storage) and not Path(config.storage).is_absolute():
            raise UserError(
                f"storage: found {config.storage!r}; allowed with --address: an absolute path on a shared mount, or a "
                "URI, since a relative path would end up in a job's temporary folder"
            )
    with contextlib.ExitStack() as locks:
        studies = [_open(config, console, options, locks) for config in configs]
        unfinished = [study for study in studies if study.todo]
        if not options.mix_devices:
            _one_kind(unfinished)
        code = _train(unfinished, console, options) if unfinished else None
        for study in studies:
            _end(study, console, trained=study in unfinished, stopped=code is not None)
        if code is not None:
            return code
    return max(_summary(study.prepared, console) for study in studies)


def _end(study: _Study, console: Console, *, trained: bool, stopped: bool) -> None:
    """See what a study has come to, publish on W&B what it lacks, and tidy."""
    with contextlib.suppress(StorageError) if stopped else contextlib.nullcontext():
        # Only where something is published are the curves needed, to see what of it is there.
        online = study.setup.tracking.mode == "online"
        study.prepared = replace(study.prepared, records=_read_on(study.prepared, curves=online))
    prepared, settings = study.prepared, study.setup.tracking
    if trained or settings.mode == "online":
        mirrored = sync.Mirrored(prepared.study, prepared.records, settings, prepared.ledger)
        sync.at_end(mirrored, console, stopped=stopped, published=study.published)
    if trained and not stopped:
        prepared.tidy()


def _read_on(prepared: Prepared, *, curves: bool = False) -> dict[str, Record]:
    """The records; without `curves` only those that have come since are read: we may be killed soon."""
    # A failed run may have been tried again.
    known = {} if curves else {run_id: r for run_id, r in prepared.records.items() if r.state != "failed"}
    return prepared.ledger.records(curves=curves, known=known)[0]


def _open(config: StudyConfig, console: Console, options: Options, locks: contextlib.ExitStack) -> _Study:
    """Take a study's lock, see what is to be done, and say it."""
    # Where a job of a cluster is started again, its dead driver was on another host.
    waiting = partial(say, console, style="yellow") if options.address else None
    lock = locks.enter_context(Lock(Storage(config.storage) / config.name, waiting))
    prepared = plan.prepare(config, mix_recipes=options.mix_recipes)
    todo, ended = prepared.todo(options.retry_failed), prepared.ended(options.retry_failed)
    for problem in prepared.problems:
        say(console, f"{problem.path}: {problem.reason}; it is not counted as a record", style="yellow")
    prepared.tidy(options.retry_failed)
    for note in prepared.notes:
        say(console, note)
    setup = _setup(prepared, lock)
    if todo:
        say(console, f"{config.name}: {_extent(prepared, todo, options.retry_failed)}")
        largest = max(len(pack.runs) for pack in todo)
        for line in tracking.lines(config, setup.tracking, os.environ, largest):
            say(console, line)
    else:
        say(console, f"{config.name}: all {len(prepared.planned)} runs have a record; nothing to train")
        if prepared.redeclared:
            plan.commit(prepared)
            say(console, "the analysis block differs from the last launch's: recorded, and the report will say so")
    if todo and not options.mix_devices:
        _same_devices(prepared, setup)
    return _Study(prepared, lock, setup, todo, ended)


def _train(studies: Sequence[_Study], console: Console, options: Options) -> int | None:
    """Train the packs; the exit code if something stopped them, else None."""
    # Ray takes seconds to import, and a study with nothing to train does not need it.
    from study.launch import cluster

    memory = sum(_memory(study.prepared) for study in studies)
    with cluster.connected(options.address, dashboard=options.dashboard, memory=memory) as dashboard:
        for study in studies:
            if lack := cluster.lack(study.setup.launch):
                # A cluster may still grow.
                if options.address is None:
                    raise UserError(lack)
                say(console, f"{lack} on a node of this cluster now; waiting for a node that has it", style="yellow")
        # Only now is the plan written: a failed start of Ray is not a launch.
        for study in studies:
            study.lock.confirm()
            plan.commit(study.prepared)
        if dashboard:
            say(console, f"Ray's dashboard: {dashboard}")
        while left := [study for study in studies if study.todo]:
            code = _launch(left, console, options)
            if code is not None:
                return code
            before = sum(len(study.todo) for study in left)
            for study in left:
                study.prepared = replace(study.prepared, records=_read_on(study.prepared))
                study.todo, study.ended = study.prepared.todo(), study.prepared.ended()
            # Of a worker that dies between two packs, Tune drops the second: it is launched again, while that helps.
            if sum(len(study.todo) for study in left) == before:
                break
    return None


def _launch(studies: Sequence[_Study], console: Console, options: Options) -> int | None:
    """Hand the packs to Ray Tune once; the exit code if something stopped them."""
    from study.launch import ray_tune

    with contextlib.ExitStack() as bars:
        shared = bars.enter_context(bar(console))
        several = len(studies) > 1
        shown = [Progress(s.todo, shared, s.prepared.config.name if several else None) for s in studies]
        recorders = [
            Recorder(study.prepared.ledger, study.todo, study.ended, progress, mix_devices=options.mix_devices)
            for study, progress in zip(studies, shown, strict=True)
        ]
        # Studies that share GPUs share the kinds of device that they may use.
        on_gpus = [r for s, r in zip(studies, recorders, strict=True) if s.setup.device == "cuda"]
        kinds = set().union(*(recorder.devices for recorder in on_gpus))
        for recorder in on_gpus:
            recorder.devices = kinds
        queues = []
        for study, progress, recorder in zip(studies, shown, recorders, strict=True):
            study.lock.tell = progress.numbers
            queues.append(
                ray_tune.Queue(
                    packs=study.todo,
                    data=study.prepared.dataset,
                    train=partial(train_pack, setup=study.setup),
                    recorder=recorder,
                    knobs=study.setup.launch,
                    environment=tracking.environment(os.environ)
                    | study.prepared.ledger.storage.environment(os.environ),
                )
            )

        def let_go(by: str) -> None:
            """End the studies' part of the launch at once, whatever Ray still has to do, and say so once."""
            closed = [recorder.close() for recorder in recorders]
            if all(closed):
                shown[0].warn(f"stopped by {by}; every ended run is kept; to go on: {options.again}")
            for study in studies:
                study.lock.release()

        watch = ray_tune.Watch(
            lost=lambda: any(study.lock.lost for study in studies),
            interrupted=let_go,
            waiting=lambda what: shown[0].warn(f"waiting: {what}"),
            wait_minutes=options.wait_minutes,
        )
        try:
            ray_tune.launch(queues, watch)
        except ray_tune.Interrupted as error:
            let_go(str(error))
            return 130
        finally:
            for study, recorder in zip(studies, recorders, strict=True):
                recorder.finish()
                study.published += recorder.published
    for study, recorder in zip(studies, recorders, strict=True):
        if study.lock.lost:
            place = study.prepared.ledger.storage
            raise LockedError(f"{place}: another driver took this study over; this one has stopped")
        if recorder.stopped:
            say(console, f"error: {recorder.stopped}", style="red")
            say(console, f"every ended run is kept; to go on once there is room: {options.again}")
            return 3
    return None


def _same_devices(prepared: Prepared, setup: Setup) -> None:
    """Raise UserError where a study that was trained on CPUs would go on on GPUs, or the other way round."""
    before = devices(prepared.records.values())
    if before and ("cpu" in before) != (setup.device == "cpu"):
        raise UserError(
            f"launch.gpus_per_trial: found {setup.launch.gpus_per_trial:g}, and {prepared.ledger.storage} holds runs "
            f"trained on {', '.join(sorted(before))}; allowed: the same kind of device, or --mix-devices"
        )


def _one_kind(studies: Sequence[_Study]) -> None:
    """Raise UserError where studies that would share GPUs were trained on different kinds before."""
    before = {s.prepared.config.name: devices(s.ended.values()) for s in studies if s.setup.device == "cuda"}
    kinds = {name: found for name, found in before.items() if found}
    if kinds and not set.intersection(*kinds.values()):
        found = "; ".join(f"{name} on {', '.join(sorted(k))}" for name, k in kinds.items())
        raise UserError(f"found studies trained on different GPUs ({found}); allowed: a command each, or --mix-devices")


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
    return (Storage(config.storage) / config.name).full


def _setup(prepared: Prepared, lock: Lock) -> Setup:
    config = prepared.config
    return Setup(
        storage=prepared.ledger.storage.full,
        launch=config.launch,
        tracking=tracking.settings(config, os.environ),
        git=provenance.git(),
        token=lock.token,
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

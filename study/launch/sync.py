"""Compares W&B with the ledger, and publishes from the ledger what W&B lacks.

The ledger is authoritative. A run that is missing or incomplete on W&B is completed; one that contradicts the ledger is
reported and left as it is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from study import config_file, wandb_access
from study.errors import LockedError, PublishError, StorageError, UserError
from study.launch import status, tracking
from study.launch.progress import say
from study.ledger import lock
from study.ledger.ledger import Ledger
from study.ledger.records import METRICS, Record, Study
from study.ledger.runs import PlannedRun
from study.ledger.storage import Storage
from study.redaction import mask

if TYPE_CHECKING:
    from wandb.apis.public import Run as PublicRun

AT_ONCE = 4
"""Runs that are published, or read, at the same time."""

PAGE = 200
"""Runs that W&B lists at a time."""

MOST_LINES = 20
"""Runs whose differences, or addresses, are printed one by one."""

END_SECONDS = 10.0
"""Seconds that W&B has, at the end of a launch, to say what it has."""


@dataclass(frozen=True)
class Mirrored:
    """A study, and how it is on W&B."""

    study: Study
    records: Mapping[str, Record]
    settings: tracking.Settings
    ledger: Ledger


@dataclass(frozen=True)
class State:
    """What W&B has of a study, run by run."""

    project: str
    """Its address, for people."""
    complete: frozenset[str]
    """run_ids that W&B has as the ledger has them, as far as a run's summary and its number of epochs tell."""
    found: Mapping[str, PublicRun]
    """run_id → the run on W&B, whatever it holds."""


# The commands


def sync(config_or_dir: str, overrides: Sequence[str], console: Console) -> int:
    """Publish what W&B lacks of a study; 0 if it then has every run of the ledger, else 1."""
    mirrored, storage = _target(config_or_dir, overrides)
    holder = lock.read(storage)
    if holder and lock.alive(holder):
        raise LockedError(
            f"{storage}: a driver is training this study, process {holder['pid']} on {holder['host']}; "
            "it publishes at its end"
        )
    return publish(mirrored, console)


def check(config_or_dir: str, overrides: Sequence[str], console: Console) -> int:
    """Compare W&B with the ledger, run by run, epoch by epoch, value by value; 1 if anything differs."""
    mirrored, _ = _target(config_or_dir, overrides)
    study, records, settings = mirrored.study, mirrored.records, mirrored.settings
    with wandb_access.errors(settings.entity, settings.project):
        state = look(mirrored)
        say(console, f"W&B: {state.project}")
        found = {
            record.run_id: lines
            for record, lines in _each(records.values(), lambda r: _compare(r, state.found.get(r.run_id)), console)
            if lines
        }
    for run_id, lines in sorted(found.items()):
        run = records[run_id].run
        name = f"{tracking.wandb_id(study.name, run_id)} ({run.model} lr {run.learning_rate:g} seed {run.seed})"
        for line in lines[:MOST_LINES]:
            say(console, f"{name}: {line}")
    end = (
        f"{len(found)} of {len(records)} runs differ" if found else f"W&B equals the ledger in all {len(records)} runs"
    )
    say(console, f"{study.name}: {end}")
    return 1 if found else 0


def publish(mirrored: Mirrored, console: Console) -> int:
    """Publish what W&B lacks of the records, and say what it has then; 0 if that is all of them, else 1.

    Raises UserError where the key or the config is at fault, PublishError where W&B does not even say what it has.
    """
    study, records, settings = mirrored.study, mirrored.records, mirrored.settings
    with wandb_access.errors(settings.entity, settings.project):
        state = look(mirrored)
    say(console, f"W&B: {state.project}")
    with contextlib.suppress(StorageError):
        mirrored.ledger.write_published(state.project)
    has, kept, why = set(state.complete), {}, ""
    lacking = [record for run_id, record in records.items() if run_id not in has]
    try:
        with wandb_access.errors(settings.entity, settings.project):
            for record, lines in _each(lacking, lambda r: _publish(r, state.found.get(r.run_id), settings), console):
                if lines:
                    kept[record.run_id] = lines
                else:
                    has.add(record.run_id)
            if lacking:
                has = set(look(mirrored).complete)
    except PublishError as error:
        why = f" ({str(error).removeprefix('W&B: ')})"
    for run_id, lines in list(kept.items())[:MOST_LINES]:
        name = tracking.wandb_id(study.name, run_id)
        say(console, f"{name}: left as it is, since W&B has something else: {lines[0]}", style="yellow")
    there = [records[planned.run_id] for pack in study.packs for planned in pack.runs if planned.run_id in has]
    for record in there[:MOST_LINES]:
        address = f"{state.project}/runs/{tracking.wandb_id(study.name, record.run_id)}"
        say(console, f"  {record.run.model} lr {record.run.learning_rate:g} seed {record.run.seed}: {address}")
    if len(has) > MOST_LINES:
        say(console, f"  and {len(has) - MOST_LINES} more")
    say(console, told(mirrored, len(has), why))
    return 0 if len(has) == len(records) else 1


def told(mirrored: Mirrored, has: int, why: str = "") -> str:
    """One line: how many runs W&B has, where the others are, and the command that publishes them."""
    of = len(mirrored.records)
    line = f"W&B has {has} of {of} {'run' if of == 1 else 'runs'}{why}"
    if has == of and not why:
        return line
    storage = mirrored.ledger.storage.full
    return (
        f"{line}; the others are in the ledger, {storage}, and as far as they were logged offline in "
        f"{mirrored.settings.folder}/wandb; to publish them: python -m study sync {shlex.quote(storage)}"
    )


def at_end(mirrored: Mirrored, console: Console, *, stopped: bool, published: int) -> None:
    """End a launch: publish what W&B lacks, unless it was `stopped`, and say what W&B has. Never fails.

    `published`: runs that are there as far as the workers know, which is all we can say where W&B does not answer.
    """
    settings = mirrored.settings
    if settings.mode == "disabled" or not mirrored.records:
        return
    if settings.mode == "offline":
        say(console, told(mirrored, 0, ", being offline"))
        return
    hasty = replace(mirrored, settings=replace(settings, init_timeout=min(settings.init_timeout, END_SECONDS)))
    try:
        if not stopped:
            publish(hasty, console)
            return
        with wandb_access.errors(settings.entity, settings.project):
            has = len(look(hasty).complete)
        say(console, told(mirrored, has))
    except Exception as error:
        # W&B raises many kinds of errors; none is worth failing a launch.
        why = mask(" ".join(str(error).split()) or type(error).__name__).removeprefix("W&B: ")
        say(console, told(mirrored, published, f", as far as is known ({why})"), style="yellow")


def _target(config_or_dir: str, overrides: Sequence[str]) -> tuple[Mirrored, Storage]:
    """The study, and how to reach W&B: as the config says, or else as its last launch did."""
    storage = status.find(config_or_dir, overrides)
    study = Ledger(storage).read_study()
    if study is None:
        raise UserError(f"{storage}: holds no study yet (no study.json)")
    launched = study.launches[-1].config
    wandb = dict(launched.get("wandb") or {})
    if status.is_config(config_or_dir):
        given = config_file.load(config_or_dir, overrides).wandb
        wandb |= {name: value for name, value in given.model_dump().items() if value is not None}
    settings = tracking.of_study(study.name, launched, wandb, os.environ)
    return Mirrored(study, Ledger(storage).records()[0], settings, Ledger(storage)), storage


def look(mirrored: Mirrored) -> State:
    """What W&B has of the study. Raises UserError where the project holds another one of its name, or as wandb does."""
    study, records, settings = mirrored.study, mirrored.records, mirrored.settings
    api, entity, address = wandb_access.connect(settings.entity, settings.init_timeout)
    path = f"{entity}/{settings.project}"
    planned = {planned.run_id for pack in study.packs for planned in pack.runs}
    prefix, found, strange = f"{study.name}-", {}, []
    runs = api.runs(path, filters={"tags": study.name[:64]}, per_page=PAGE, lazy=False)
    for run in _listed(runs):
        run_id = run.id.removeprefix(prefix)
        if run.config.get("study") != study.name or run.job_type == "study":
            continue
        if run_id in planned:
            found[run_id] = run
        else:
            strange.append(run.id)
    if strange:
        raise UserError(
            f"wandb.project: {path} holds another study {study.name!r}, whose runs are not in this ledger "
            f"({len(strange)} of them, as {strange[0]}); allowed: another wandb.project, or another name"
        )
    complete = frozenset(run_id for run_id, record in records.items() if _looks_complete(record, found.get(run_id)))
    return State(f"{address}/{path}", complete, found)


def _listed(runs: Iterable[PublicRun]) -> Iterator[PublicRun]:
    """The runs of a project; none where there is no such project yet."""
    try:
        yield from runs
    except ValueError as error:
        if "Could not find project" not in str(error):
            raise


def _looks_complete(record: Record, run: PublicRun | None) -> bool:
    """Whether a run's summary and its number of epochs are those of the record."""
    if run is None or run.state in ("running", "pending"):
        return False
    summary, end = run.summary, tracking.summary(record)
    if any(summary.get(name) != value for name, value in end.items()):
        return False
    return record.state == "failed" or run.history_line_count == record.n_epochs


def _compare(record: Record, run: PublicRun | None) -> list[str]:
    """How W&B differs from the ledger in one run."""
    if run is None:
        return ["W&B does not have it"]
    lines = [] if record.state == "failed" else differences(record, _history(run))
    for name, value in tracking.summary(record).items():
        if (there := run.summary.get(name)) != value:
            lines.append(f"{name}: {value} in the ledger, {there} on W&B")
    return lines


def differences(record: Record, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the rows of a history differ from the epochs of a record."""
    lines = []
    epochs = [row.get("epoch") for row in rows]
    for epoch in range(1, record.n_epochs + 1):
        there = [row for row in rows if row.get("epoch") == epoch]
        if len(there) > 1:
            lines.append(f"epoch {epoch}: {len(there)} times on W&B")
        for row in there[:1]:
            ours = tracking.row(epoch, {name: record.epochs[name][epoch - 1] for name in METRICS})
            lines += [
                f"epoch {epoch}: {name}: {value} in the ledger, {row.get(name)} on W&B"
                for name, value in ours.items()
                if row.get(name) != value
            ]
    missing = sorted(set(range(1, record.n_epochs + 1)) - set(epochs))
    if missing:
        lines.append(f"epochs missing on W&B: {', '.join(map(str, missing))}")
    if more := [epoch for epoch in epochs if epoch not in range(1, record.n_epochs + 1)]:
        lines.append(f"epochs that the ledger does not have: {', '.join(map(str, more))}")
    return lines


def _history(run: PublicRun) -> list[Mapping[str, Any]]:
    return list(run.scan_history(use_cache=False))


# Publishing


def _publish(record: Record, run: PublicRun | None, settings: tracking.Settings) -> list[str]:
    """Publish what W&B lacks of one run; what stands in the way, if it has anything but the ledger's beginning."""
    n = 0
    if run is not None and record.state != "failed":
        rows = _history(run)
        n = len(rows)
        begun = {name: values[:n] for name, values in record.epochs.items()}
        if n > record.n_epochs:
            return differences(record, rows)
        if lines := differences(record.model_copy(update={"epochs": begun}), rows):
            return lines
        if run.summary.get("_step", n) != n:
            # W&B goes on from the step that the summary names, and would drop what comes before it.
            run.summary["_step"] = n
            run.summary.update()
    planned = PlannedRun(**{name: getattr(record, name) for name in PlannedRun.model_fields})
    opened = tracking.open_run(replace(tracking.usable(settings), mode="online"), planned, record.provenance)
    for epoch in range(n + 1, record.n_epochs + 1):
        opened.log(tracking.row(epoch, {name: record.epochs[name][epoch - 1] for name in METRICS}), step=epoch)
    tracking.end_run(opened, record)
    return []


def _each(
    records: Iterable[Record], do: Callable[[Record], list[str]], console: Console
) -> Iterator[tuple[Record, list[str]]]:
    """What `do` says of each record, several at once, with a bar on a terminal. The first error ends it."""
    records = list(records)
    columns = TextColumn("[bold]W&B"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"), TimeRemainingColumn()
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar, ThreadPoolExecutor(AT_ONCE) as pool:
        task = bar.add_task("runs", total=len(records))
        done = [pool.submit(do, record) for record in records]
        try:
            for record, result in zip(records, done, strict=True):
                yield record, result.result()
                bar.advance(task)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

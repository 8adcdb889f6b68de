"""What a study has come to, told at any moment, also while it trains elsewhere: read from its files alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study import config_file, lock
from study.errors import UserError
from study.ledger import Ledger
from study.progress import duration, say
from study.records import Record
from study.runs import PlannedRun
from study.storage import URI, Storage

STATES = ("finished", "diverged", "failed", "missing")


def show(config_or_dir: str, overrides: Sequence[str], console: Console) -> int:
    """Print counts per configuration and state, the driver at work, the last error. Returns the exit code."""
    storage = find(config_or_dir, overrides)
    ledger = Ledger(storage)
    study = ledger.read_study()
    if study is None:
        raise UserError(f"{storage}: holds no study yet (no study.json)")
    planned = [run for pack in study.packs for run in pack.runs]
    records, problems = ledger.records()
    _print_counts(planned, records, console)
    totals = _counts(planned, records)
    say(
        console, f"{study.name}: " + ", ".join(f"{totals[s]} {s}" for s in STATES) + f", of {len(planned)} runs planned"
    )
    for problem in problems:
        say(console, f"{problem.path}: {problem.reason}; it is not counted as a record")
    if failed := [r for r in records.values() if r.state == "failed"]:
        last = max(failed, key=lambda r: r.provenance.ended_at or "")
        lines = (last.provenance.error or "").splitlines()
        say(console, f"last error ({last.run_id}, {last.run.model}): {lines[-1] if lines else 'unknown'}")
    say(console, _driver(storage, totals["missing"]))
    return 1 if totals["failed"] else 0


def find(config_or_dir: str, overrides: Sequence[str] = ()) -> Storage:
    """Where the study is kept that a config file describes, or a folder or URI holds."""
    if not URI.match(config_or_dir) and Path(config_or_dir).is_file():
        config = config_file.load(config_or_dir, overrides)
        return Storage(config.storage) / config.name
    if overrides:
        raise UserError(f"{overrides[0]!r}: allowed with a config file only; found {config_or_dir!r}")
    return Storage(config_or_dir)


def _counts(planned: Sequence[PlannedRun], records: dict[str, Record]) -> Counter[str]:
    return Counter(records[p.run_id].state if p.run_id in records else "missing" for p in planned)


def _print_counts(planned: Sequence[PlannedRun], records: dict[str, Record], console: Console) -> None:
    configurations: dict[tuple, list[PlannedRun]] = defaultdict(list)
    for run in planned:
        configurations[run.run.model, run.run.learning_rate, run.run.configuration_id].append(run)
    table = Table("model", "learning rate", *STATES, "planned", box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for (model, learning_rate, _), runs in configurations.items():
        counts = _counts(runs, records)
        table.add_row(model, f"{learning_rate:g}", *(str(counts[s] or "·") for s in STATES), str(len(runs)))
    console.print(table)


def _driver(storage: Storage, missing: int) -> str:
    """One line on who trains now and how long it will take."""
    holder = lock.read(storage)
    if holder and lock.alive(holder):
        progress = holder.get("progress") or {}
        left = progress.get("seconds_left")
        running = f"{progress.get('running', 0)} runs in training, {duration(left)} left"
        return f"driver: process {holder['pid']} on {holder['host']}; {running}"
    if holder is not None:
        return f"driver: none (process {holder.get('pid')} on {holder.get('host')} died); run the study again to go on"
    return "driver: none" + ("; run the study again to train what is missing" if missing else "")

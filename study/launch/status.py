"""The state of a study at any moment, also while it trains elsewhere: read from its files alone."""

from __future__ import annotations

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from study import config_file
from study.errors import UserError
from study.launch.progress import duration, say
from study.ledger import lock
from study.ledger.ledger import Ledger, Problem
from study.ledger.records import Record, Study
from study.ledger.runs import PlannedRun
from study.ledger.storage import URI, Storage

STATES = ("finished", "diverged", "failed", "running", "missing")


def show(config_or_dir: str, overrides: Sequence[str], console: Console) -> int:
    """Print counts per configuration and state, the driver at work, the last error. Returns the exit code."""
    storage = find(config_or_dir, overrides)
    # Read before the records: a run that ends in between is then not taken for missing.
    holder = lock.read(storage)
    study, planned, records, problems = _read(config_or_dir, overrides, storage)
    states = _states(study, records, _progress(holder))
    _print_counts(planned, states, console)
    totals = Counter(states[run.run_id] for run in planned)
    say(console, f"{study.name}: {_words(totals)}, of {len(planned)} runs planned")
    if others := set(states) - {run.run_id for run in planned}:
        say(console, f"planned before and not in this config: {_words(Counter(states[run_id] for run_id in others))}")
    for problem in problems:
        say(console, f"{problem.path}: {problem.reason}; it is not counted as a record")
    if failed := [r for r in records.values() if r.state == "failed"]:
        last = max(failed, key=lambda r: r.provenance.ended_at or "")
        lines = (last.provenance.error or "").splitlines()
        say(console, f"last error ({last.run_id}, {last.run.model}): {lines[-1] if lines else 'unknown'}")
    if holder is None and Ledger(storage).read_study() is None:
        say(console, f"not run yet; to start: {_start(config_or_dir, overrides)}")
    else:
        say(console, _driver(holder, totals["missing"]))
    return 1 if totals["failed"] else 0


def find(config_or_dir: str, overrides: Sequence[str] = ()) -> Storage:
    """Where the study is kept that a config file describes, or a folder or URI holds."""
    if is_config(config_or_dir):
        config = config_file.load(config_or_dir, overrides)
        return Storage(config.storage) / config.name
    if overrides:
        raise UserError(f"{overrides[0]!r}: allowed with a config file only; found {config_or_dir!r}")
    return Storage(config_or_dir)


def _start(config: str, overrides: Sequence[str] = ()) -> str:
    """The command that runs the study of a config file."""
    return shlex.join(["python", "-m", "study", "run", config, *overrides])


def is_config(config_or_dir: str) -> bool:
    """Whether it names a config file, and not the folder or URI of a study."""
    return not URI.match(config_or_dir) and Path(config_or_dir).is_file()


def _read(
    config_or_dir: str, overrides: Sequence[str], storage: Storage
) -> tuple[Study, Sequence[PlannedRun], Mapping[str, Record], Sequence[Problem]]:
    """The study; what a config file plans now, or the study ever planned; records, and files that are none."""
    if is_config(config_or_dir):
        # Here, since it takes torch.
        from study.launch import plan

        prepared = plan.prepare(config_file.load(config_or_dir, overrides), mix_recipes=True, to_train=False)
        return prepared.study, prepared.planned, prepared.records, prepared.problems
    study = Ledger(storage).read_study()
    if study is None:
        raise UserError(f"{storage}: holds no study yet (no study.json); to start one: {_start('CONFIG')}")
    return study, [run for pack in study.packs for run in pack.runs], *Ledger(storage).records(curves=False)


def _states(study: Study, records: Mapping[str, Record], progress: Mapping[str, Any]) -> dict[str, str]:
    """run_id → the state of its record, or whether its pack is being trained."""
    training = progress.get("packs")
    training = training if isinstance(training, list) else []
    states = {}
    for pack in study.packs:
        unrecorded = "running" if pack.pack_id in training else "missing"
        for run in pack.runs:
            states[run.run_id] = records[run.run_id].state if run.run_id in records else unrecorded
    return states


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES)


def _print_counts(planned: Sequence[PlannedRun], states: Mapping[str, str], console: Console) -> None:
    configurations: dict[tuple, list[PlannedRun]] = defaultdict(list)
    for run in planned:
        configurations[run.run.model, run.run.learning_rate, run.run.configuration_id].append(run)
    table = Table("model", "learning rate", *STATES, "planned", box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    # Whole names where there is room for them; a line is never folded.
    table.columns[0].no_wrap, table.columns[0].overflow = True, "ellipsis"
    for (model, learning_rate, _), runs in configurations.items():
        counts = Counter(states[run.run_id] for run in runs)
        table.add_row(model, f"{learning_rate:g}", *(str(counts[s] or "·") for s in STATES), str(len(runs)))
    console.print(table)


def _progress(holder: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The last progress that a live driver reported; nothing for any other lock file."""
    progress = holder.get("progress") if holder and lock.alive(holder) else None
    return progress if isinstance(progress, dict) else {}


def _driver(holder: Mapping[str, Any] | None, missing: int) -> str:
    """One line on who trains now and how long it will take."""
    if holder is None:
        return "driver: none" + ("; run the study again to train what is missing" if missing else "")
    if not lock.alive(holder):
        return f"driver: none (process {holder.get('pid')} on {holder.get('host')} died); run the study again to go on"
    left = _progress(holder).get("seconds_left")
    known = isinstance(left, int | float) and math.isfinite(left)
    return f"driver: process {holder['pid']} on {holder.get('host')}; {duration(left if known else None)} left"

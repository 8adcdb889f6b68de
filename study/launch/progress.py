"""What the user sees while a study trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from study.ledger.runs import Pack, work

LINE_SECONDS = 15.0
"""Without a terminal, ended packs print at most one line in this many seconds."""

QUIET_SECONDS = 60.0
"""Without a terminal, an epoch prints a line if the last one is this many seconds old."""


def duration(seconds: float | None) -> str:
    """A duration as people write it: "40 s", "12 min", "1 h 05 min"; "?" for None."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print one line of plain text, without markup, for the terminal to wrap."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def bar(console: Console) -> Bar:
    """A line a study, kept up to date on a terminal while it is entered; elsewhere, nothing."""
    return Bar(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        console=console,
        disable=not console.is_terminal,
    )


class Progress:
    """Counts runs done, running and failed, and estimates the time left from the work done so far."""

    def __init__(self, packs: Sequence[Pack], bar: Bar, name: str | None = None) -> None:
        """Shown as a line of `bar`; without a terminal, as lines that begin with `name` where there is one."""
        self._packs = packs
        self._console = bar.console
        self._name = name
        self._costs = [work(pack) for pack in packs]
        self._total = sum(self._costs)
        self._runs = sum(len(pack.runs) for pack in packs)
        self._epochs = [0] * len(packs)
        self._done = 0.0
        self._models = [pack.runs[0].run.model for pack in packs]
        self._left = dict.fromkeys(self._models, 0.0)
        for model, cost in zip(self._models, self._costs, strict=True):
            self._left[model] += cost
        # Models differ in speed, so each is estimated by its own once that is known.
        self._spent = dict.fromkeys(self._models, 0.0)
        self._trained = dict.fromkeys(self._models, 0.0)
        self._running: dict[int, float] = {}
        self._states: Counter[str] = Counter()
        self._printed = time.monotonic()
        self._bar = bar
        self._task = bar.add_task(name or "training", total=self._total or 1, counts="")
        self._show()

    def started(self, index: int) -> None:
        """A worker took up the pack."""
        self._running[index] = time.monotonic()
        self._show()

    def epoch(self, index: int, epoch: int) -> None:
        """The pack has ended an epoch, counted from 1."""
        model, now = self._models[index], time.monotonic()
        # One epoch, also after resuming from a checkpoint: earlier epochs say nothing about this session's speed.
        self._trained[model] += self._costs[index] / self._packs[index].runs[0].run.epochs
        self._spent[model] += now - self._running.get(index, now)
        self._running[index] = now
        self._advance(index, epoch)
        self._show(after=QUIET_SECONDS)

    def ended(self, index: int, states: Sequence[str]) -> None:
        """All runs of the pack have records, in these states."""
        self._advance(index, self._packs[index].runs[0].run.epochs)
        self._running.pop(index, None)
        self._states.update(states)
        self._show(after=LINE_SECONDS)

    def warn(self, text: str) -> None:
        """Print one line above the bar."""
        say(self._console, text, "yellow")

    # Called from the heartbeat thread: work on copies, each made in one step.

    def numbers(self) -> dict[str, Any]:
        """What the lock file tells others: runs by state, running and planned, packs running, seconds left."""
        running = [self._packs[i] for i in list(self._running)]
        return {
            "states": dict(self._states),
            "running": sum(len(pack.runs) for pack in running),
            "packs": [pack.pack_id for pack in running],
            "runs": self._runs,
            "seconds_left": self.seconds_left(),
        }

    def seconds_left(self) -> float | None:
        """From the speed of each model in this session so far; None before the first epoch."""
        spent, trained = dict(self._spent), dict(self._trained)
        speeds = {model: seconds / trained[model] for model, seconds in spent.items() if trained[model]}
        if not speeds:
            return None
        mean = sum(spent.values()) / sum(trained.values())
        seconds = sum(left * speeds.get(model, mean) for model, left in dict(self._left).items())
        return seconds / max(1, len(self._running))

    def _advance(self, index: int, epoch: int) -> None:
        epochs = self._packs[index].runs[0].run.epochs
        share = self._costs[index] * max(0, epoch - self._epochs[index]) / epochs
        self._done += share
        self._left[self._models[index]] -= share
        self._epochs[index] = max(epoch, self._epochs[index])

    def _counts(self) -> str:
        numbers = self.numbers()
        ended = sum(self._states.values())
        parts = [f"{ended} of {numbers['runs']} runs done", f"{numbers['running']} running"]
        parts += [f"{self._states[state]} {state}" for state in ("diverged", "failed") if self._states[state]]
        return " · ".join([*parts, f"{duration(numbers['seconds_left'])} left"])

    def _show(self, after: float = float("inf")) -> None:
        """Bring the bar up to date; without a terminal, print a line if the last is `after` seconds old."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._done, counts=self._counts())
        elif time.monotonic() - self._printed >= after or sum(self._states.values()) == self._runs:
            self._printed = time.monotonic()
            say(self._console, f"{self._name}: {self._counts()}" if self._name else self._counts())

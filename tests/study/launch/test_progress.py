"""What the user sees while a study trains, with a clock that the test turns."""

import io

import pytest
from rich.console import Console

from study.launch import progress
from study.launch.plan import packs
from study.ledger.runs import PlannedRun
from tests.examples import RUN


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def planned(models=("lenet5", "mlp"), rates=(0.01, 0.03), seeds=2, epochs=10):
    runs = []
    for model in models:
        for seed in range(seeds):
            for rate in rates:
                run = RUN.model_copy(
                    update=dict(
                        model=model, learning_rate=rate, seed=seed, init_seed=seed, order_seed=seed, epochs=epochs
                    )
                )
                runs.append(PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=100))
    return packs(runs, "learning_rates")


def plain():
    return progress.bar(Console(file=io.StringIO(), width=100))


def test_time_left_goes_by_each_models_own_speed(clock):
    """Two packs of each model, one worker: lenet5 takes 6 s an epoch, mlp 2 s, for the same arithmetic."""
    shown = progress.Progress(planned(), plain())
    assert shown.seconds_left() is None
    shown.started(0)
    for epoch in range(1, 11):
        clock[0] += 6
        shown.epoch(0, epoch)
    assert shown.seconds_left() == pytest.approx(3 * 60), "nothing is known of mlp yet"
    shown.ended(0, ["finished"] * 2)
    shown.started(2)
    clock[0] += 2
    shown.epoch(2, 1)
    assert shown.seconds_left() == pytest.approx(60 + 9 * 2 + 20)
    shown.started(1)
    assert shown.seconds_left() == pytest.approx((60 + 9 * 2 + 20) / 2), "two workers now"


def test_epochs_that_a_checkpoint_saved_are_done_but_not_fast(clock):
    shown = progress.Progress(planned(models=("mlp",), seeds=1), plain())
    shown.started(0)
    clock[0] += 4
    shown.epoch(0, 8)
    assert shown.seconds_left() == pytest.approx(2 * 4)


def test_plain_lines_without_a_terminal_now_and_then(clock):
    lines_of = plain()
    console = lines_of.console
    with lines_of:
        shown = progress.Progress(planned(), lines_of)
        shown.started(0)
        for epoch in range(1, 11):
            clock[0] += 20
            shown.epoch(0, epoch)
        lines = console.file.getvalue().splitlines()
        assert lines[0] == "0 of 8 runs done · 2 running · 12 min left"
        assert len(lines) == 3, "one a minute"
        clock[0] += 1
        shown.ended(0, ["finished", "diverged"])
        for index in (1, 2, 3):
            shown.ended(index, ["finished", "failed"])
    last = console.file.getvalue().splitlines()[-1]
    assert last.startswith("8 of 8 runs done · 0 running · 1 diverged · 3 failed")


def test_a_bar_on_a_terminal(clock):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with progress.bar(console) as shared:
        shown = progress.Progress(planned(), shared)
        shown.started(0)
        clock[0] += 5
        shown.epoch(0, 5)
        shown.warn("something [bold]odd[/bold]")
    text = console.file.getvalue()
    assert "training" in text
    assert "0 of 8 runs done · 2 running" in text
    assert "something [bold]odd[/bold]" in text, "markup in a message is text"


def test_the_heartbeat_may_ask_at_any_moment():
    """Its thread counts the runs in training while the driver's takes up more packs."""

    class Busy(list):
        def __getitem__(self, index):
            shown._running[len(shown._running)] = 0.0
            return super().__getitem__(index)

    shown = progress.Progress(planned(), plain())
    shown.started(0)
    shown._packs = Busy(shown._packs)
    assert shown.numbers()["running"] == 2
    assert shown.numbers()["running"] == 4


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, "?"), (40, "40 s"), (700, "12 min"), (5400, "1 h 30 min"), (3_900, "65 min")]
)
def test_durations(seconds, expected):
    assert progress.duration(seconds) == expected

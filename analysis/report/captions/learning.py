"""Captions of learning: over epochs, across learning rates, and the luck in choosing one."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.captions.caption import Caption, each, guessing, level, nothing_finished, runs

PANELS = 18
"""Learning rates that get a panel each; of more, only the selected ones do."""


def panel_rates(findings: Findings) -> tuple[float, ...]:
    """The learning rates that the learning curves show, in order."""
    rates = tuple(sorted(findings.about.learning_rates))
    if len(rates) <= PANELS:
        return rates
    chosen = {choice.mean.learning_rate for choice in findings.selection.values()} - {None}
    return tuple(sorted(chosen)) or rates[:PANELS]


def learning_rates(findings: Findings, frames: Frames) -> Caption:
    """Of the error of every run against its learning rate."""
    return Caption(
        "learning_rates",
        "Test error across learning rates",
        "Every finished run is a point, on a logarithmic axis; lines join the means over the runs that trained, so "
        f"collapsed runs, which lie about the dotted line of guessing ({guessing(findings)} error), are in no mean. "
        "Rings: the rate with the best mean validation accuracy. Crosses above the frame count diverged runs. Models "
        f"are set slightly apart. {runs(findings)}",
        nothing_finished(frames),
    )


def learning_curves(findings: Findings, frames: Frames) -> Caption:
    """Of the error over epochs."""
    shown, planned = len(panel_rates(findings)), len(findings.about.learning_rates)
    some = "" if shown == planned else f" ({shown} of {planned}: those selected)"
    return Caption(
        "learning_curves",
        "Learning curves",
        f"Error on the test digits after each epoch, one panel per learning rate{some}. Thin lines: runs, a cross "
        f"where one diverged; dotted: guessing ({guessing(findings)} error). Thick lines: mean over the runs that "
        f"trained, with its {level(findings)} t interval over seeds where all runs did. Outlined end marks: the rate "
        f"selected for that model. {_untrained(findings)}{runs(findings)}",
        None if len(frames.epochs) else "No run has completed an epoch.",
        wide=shown > 2,
    )


def losses(findings: Findings, frames: Frames) -> Caption:
    """Of calibration, and of validation against test."""
    return Caption(
        "losses",
        "Test loss, and validation against test",
        "Left: mean cross-entropy on the test digits of every finished run, marked as in the figure of test errors. "
        "Right: validation and test error of every finished run, filled at its model's selected rate; the line "
        f"marks equality, and a run without an error stands at half an error. {runs(findings)}",
        nothing_finished(frames),
        wide=True,
    )


def selection(findings: Findings, frames: Frames) -> Caption:
    """Of how near the choice of each learning rate was."""
    known = [c for c in findings.selection.values() if c.luck]
    digits = "and validation digits " if known and all(c.digits_resampled for c in known) else ""
    return Caption(
        "selection",
        "Luck in choosing the learning rate",
        f"Share of {text.count(findings.about.settings.resamples)} resamples of seeds {digits}in which each learning "
        "rate has the best mean validation accuracy. Without a claim to coverage. Models are set slightly apart. "
        f"{runs(findings)}",
        None if known and len(findings.about.learning_rates) > 1 else "There is only one learning rate to choose.",
    )


def _untrained(findings: Findings) -> str:
    """Where the runs drawn are not all in the mean, or none is."""
    shown = panel_rates(findings)
    rates: dict[str, list[str]] = {}
    for c in findings.completeness:
        if c.learning_rate in shown and c.diverged + c.collapsed:
            ended = c.finished + c.diverged
            trained = c.finished - c.collapsed
            rates.setdefault(c.model, []).append(f"{text.of(trained, ended)} at {text.plain(c.learning_rate)}")
    if not rates:
        return ""
    counts = each((model, " and ".join(found)) for model, found in rates.items())
    return f"Not all trained: {counts}; lines of runs that guess lie upon each other. "

"""Captions of the gap: at the selected rates, at equal rates, by class, by every way to analyse it."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.captions.caption import Caption, each, level, pairs

CURVES = 3
"""Baselines whose specification curves fit side by side; the table holds all."""


def curve_baselines(findings: Findings) -> list[str]:
    """The baselines whose specification curves are drawn."""
    return [baseline for baseline, asked in findings.robustness.items() if asked.specifications][:CURVES]


def gap(findings: Findings, frames: Frames) -> Caption:
    """Of the primary comparison."""
    settings = findings.about.settings
    untrained = each((c.baseline, n) for c in findings.comparisons if (n := sum(c.not_trained.values())))
    return Caption(
        "gap",
        f"Gap of {settings.candidate} to each baseline",
        f"Test accuracy of {settings.candidate} minus that of the baseline, each at its selected learning rate. Each "
        f"point is one pair of trainings that share their seed. Thick bars: mean and {level(findings)} t interval over "
        f"seeds (this test set). Thin bars: {level(findings)} interval over seeds and digits (new digits of the same "
        f"kind), two-way crossed. Grey: the margin of ±{text.plain(100 * settings.margin)} points. Planned pairs in "
        f"which both models trained: {pairs(findings)}."
        + (f" Runs at these rates that did not train and are not drawn: {untrained}." if untrained else ""),
        _no_pairs(findings),
    )


def sweep(findings: Findings, frames: Frames) -> Caption:
    """Of the gap at equal learning rates."""
    drawn = [(at, b) for b, s in findings.sweep.items() for at in s.rates if at.gap.estimate is not None]
    pairs_of = {(b, at.learning_rate): text.of(at.gap.n, at.gap.planned) for at, b in drawn}
    counts = each((f"{b} at {text.plain(rate)}", n) for (b, rate), n in pairs_of.items())
    if len(set(pairs_of.values())) == 1:
        counts = f"{next(iter(pairs_of.values()))} for each interval"
    return Caption(
        "sweep",
        "Gap at equal learning rates",
        "Mean paired difference where both models use the same learning rate, over seeds (this test set). Thick: "
        f"{level(findings)} t interval for that rate alone. Thin, with caps: simultaneous {level(findings)} band over "
        "all rates drawn. Crosses above the frame: no inference, as half or more of a model's runs did not train. "
        f"Models are set slightly apart. Planned pairs: {counts}.",
        None if drawn else "At no learning rate did both models train.",
    )


def classes(findings: Findings, frames: Frames) -> Caption:
    """Of the gap per class."""
    drawn = [c.gap for d in findings.digits.values() for c in d.classes]
    return Caption(
        "classes",
        "Gap by class",
        "Mean paired difference on the test digits of each class at the selected learning rates, with its "
        f"{level(findings)} interval over seeds and digits (new digits of the same kind). Filled: differs from 0 at "
        "that level after Holm's correction over all baselines and classes; hollow: does not. Models are set slightly "
        f"apart. Planned pairs: {pairs(findings)}.",
        None
        if any(e.estimate is not None for e in drawn)
        else "No pair of runs has trained whose predictions are there.",
    )


def specifications(findings: Findings, frames: Frames) -> Caption:
    """Of the specification curve."""
    asked = curve_baselines(findings)
    same = each((b, text.of(r.same_sign or 0, r.alternatives)) for b, r in findings.robustness.items() if b in asked)
    more = len(findings.comparisons) - len(asked)
    return Caption(
        "specifications",
        "Every way to analyse the same data",
        "The gap by every combination of the choices below, in order of its estimate, with a "
        f"{level(findings)} interval where one is defined. Black: the primary analysis. Alternatives with the same "
        f"sign: {same}. Descriptive, for specifications share data. Planned pairs that trained: {pairs(findings)}."
        + (f" Baselines that are in the table only: {more}." if more else ""),
        None if asked else "No pair of runs has trained.",
        wide=len(asked) > 1,
    )


def _no_pairs(findings: Findings) -> str | None:
    if not findings.comparisons:
        return "The study has one model."
    return None if any(c.pairs for c in findings.comparisons) else "No pair of runs trained at the selected rates."

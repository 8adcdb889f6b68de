"""The answer in words, generated from the findings: nothing here knows the name of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from analysis import text

if TYPE_CHECKING:
    from analysis.findings import Comparison, Findings


def sentence(findings: Findings) -> str:
    """The answer, one paragraph per baseline."""
    return "\n\n".join(_paragraph(findings, comparison) for comparison in findings.comparisons)


def _paragraph(findings: Findings, comparison: Comparison) -> str:
    about, gap = findings.about, comparison.seeds
    candidate, baseline = about.settings.candidate, comparison.baseline
    if comparison.candidate_error is None or gap.mean.estimate is None:
        reason = gap.mean.declined or "no pair of runs trained"
        return f"{candidate} against {baseline}: no answer, since {reason}."
    sizes = {m.name: m.n_parameters for m in about.models}
    ratio = sizes[baseline] / sizes[candidate]
    size = "about as many" if 0.95 < ratio < 1.05 else f"{ratio:.3g} times as many"
    parts = [
        f"On the {about.n_test:,} test digits of {about.dataset}, {candidate} misread "
        f"{100 * comparison.candidate_error:.2f}% and {baseline}, with {size} parameters, "
        f"{100 * comparison.baseline_error:.2f}%: a gap of {text.points(gap.mean.estimate)} percentage points"
    ]
    ranges = []
    if gap.mean.low is not None:
        ranges.append(f"{text.points_interval(gap.mean.low, gap.mean.high)} allowing for training luck")
    if comparison.digits.low is not None:
        interval = text.points_interval(comparison.digits.low, comparison.digits.high)
        ranges.append(f"{interval} allowing also for a different sample of such digits")
    if ranges:
        parts.append(f" ({', '.join(ranges)}; {text.level(about.settings.confidence)} confidence)")
    else:
        parts.append(f" (no interval: {gap.mean.declined})")
    parts.append(
        f", from {comparison.pairs} of {comparison.planned} planned pairs of trainings. "
        f"{candidate} was ahead in {gap.wins} of these {comparison.pairs} pairs; "
        f"{comparison.not_trained[candidate]} and {comparison.not_trained[baseline]} trainings failed to learn"
    )
    if gap.verdict is not None:
        parts.append(
            f"; against the preset threshold of {100 * gap.margin:g} points the result for this test set is: {gap.verdict}"
        )
    parts.append(
        ". This describes one training recipe in which only the learning rate was tuned, on validation digits, "
    )
    parts.append("with one training set and one split.")
    return "".join(parts)


def show(findings: Findings, console: Console) -> None:
    """Print the answer, then the table behind it."""
    for paragraph in findings.answer.split("\n\n"):
        console.print(paragraph, markup=False, highlight=False)
        console.print()
    table = Table(
        "model", "learning rate", "test accuracy", "interval", "runs", box=None, header_style="bold", pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for c in findings.configurations:
        chosen = findings.selection[c.model].mean.learning_rate == c.learning_rate
        e = c.test_accuracy
        interval = f"{text.percent(e.low)} to {text.percent(e.high)}" if e.low is not None else text.DASH
        mark = " *" if chosen else ""
        table.add_row(
            c.model, f"{c.learning_rate:g}{mark}", text.percent(e.estimate), interval, text.of(e.n, e.planned)
        )
    console.print(table)
    level = text.level(findings.about.settings.confidence)
    console.print(f"* selected on validation digits; intervals: mean ± t, {level}, over runs that trained", style="dim")
    for warning in findings.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)

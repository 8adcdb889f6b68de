"""The answer in words, generated from the findings: nothing here knows the name of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from analysis import text

if TYPE_CHECKING:
    from analysis.estimate import Estimate
    from analysis.findings import Comparison, Findings


def sentence(findings: Findings) -> str:
    """The answer, one paragraph per baseline."""
    if not findings.comparisons:
        return f"{findings.about.name} trained one model, {findings.about.models[0].name}: there is no gap to estimate."
    return "\n\n".join(_paragraph(findings, comparison) for comparison in findings.comparisons)


def _paragraph(findings: Findings, comparison: Comparison) -> str:
    about, gap = findings.about, comparison.seeds
    candidate, baseline = about.settings.candidate, comparison.baseline
    failed = comparison.not_trained
    outcomes = f"{failed[candidate]} and {failed[baseline]} trainings failed to learn"
    if gap.mean.estimate is None:
        absent = comparison.absent
        return (
            f"{candidate} against {baseline}: no answer. In none of {comparison.planned} planned pairs of trainings "
            f"did both models learn ({outcomes}, {absent[candidate]} and {absent[baseline]} have no outcome)."
        )
    digits = text.point_digits(gap.mean.low, gap.mean.high)
    verdict = ""
    if gap.verdict is not None:
        verdict = (
            f"; against the preset threshold of {text.plain(100 * gap.margin)} points the result for this test set is: "
            f"{gap.verdict}{_families(findings)}"
        )
    return (
        f"On the {about.n_test:,} test digits of {about.dataset}, {candidate} misread "
        f"{text.percent(comparison.candidate_error)} and {baseline}, with {_size(findings, baseline)} parameters, "
        f"{text.percent(comparison.baseline_error)}: a gap of {text.points(gap.mean.estimate, digits)} percentage "
        f"points ({_ranges(gap.mean, comparison.digits, about.settings.confidence)}), from {comparison.pairs} of "
        f"{comparison.planned} planned pairs of trainings. {candidate} was ahead in {gap.wins} of these "
        f"{comparison.pairs} pairs; {outcomes}{verdict}. {_both(comparison, candidate)}"
        f"{_alternatives(findings, baseline)}{_scope(about.splits)}"
    )


def _ranges(seeds: Estimate, digits: Estimate, confidence: float) -> str:
    """Both intervals, or why one of them is not there."""
    ranges = [
        f"no interval for training luck alone: {seeds.declined}"
        if seeds.low is None
        else f"{text.points_interval(seeds.low, seeds.high)} allowing for training luck",
        f"no interval for a different sample of such digits: {digits.declined}"
        if digits.low is None
        else f"{text.points_interval(digits.low, digits.high)} allowing also for a different sample of such digits",
    ]
    if None not in (seeds.low, digits.low):
        return f"{', '.join(ranges)}; {text.level(confidence)} confidence"
    known = seeds.low is not None or digits.low is not None
    return "; ".join([*ranges, f"{text.level(confidence)} confidence"] if known else ranges)


def _size(findings: Findings, baseline: str) -> str:
    sizes = {m.name: m.n_parameters for m in findings.about.models}
    ours, theirs = sizes[findings.about.settings.candidate], sizes[baseline]
    if ours == 0:
        return f"{theirs:,} to 0"
    ratio = theirs / ours
    return "about as many" if 0.95 < ratio < 1.05 else f"{ratio:.3g} times as many"


def _families(findings: Findings) -> str:
    """The level that the verdict is held to where several baselines share it."""
    settings = findings.about.settings
    if len(settings.baselines) == 1:
        return ""
    level = 1 - (1 - settings.confidence) / len(settings.baselines)
    return f" (at {text.level(level)}, as there are {len(settings.baselines)} baselines)"


def _both(comparison: Comparison, candidate: str) -> str:
    """Whether the candidate may be called more or less accurate without naming a population."""
    if comparison.unqualified:
        better = "more" if comparison.seeds.mean.estimate > 0 else "less"
        return f"Both intervals exclude 0: {candidate} is the {better} accurate of the two. "
    if None in (comparison.seeds.mean.low, comparison.digits.low):
        return ""
    return "The two intervals do not both exclude 0: this does not show that either model is the more accurate. "


def _alternatives(findings: Findings, baseline: str) -> str:
    asked = findings.robustness[baseline]
    if asked.same_sign is None or not asked.alternatives:
        return ""
    count = f"{asked.same_sign} of {asked.alternatives}"
    return f"The sign of the gap was the same in {count} alternative analyses of the same data. "


def _scope(splits: int) -> str:
    return (
        "This describes one training recipe in which only the learning rate was tuned, on validation digits, with one "
        f"training set and {'one split' if splits == 1 else f'{splits} splits'}."
    )


def show(findings: Findings, console: Console) -> None:
    """Print the answer, then the table behind it."""
    for paragraph in findings.answer.split("\n\n"):
        console.print(paragraph, markup=False, highlight=False)
        console.print()
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model")
    for head in ("learning\nrate  ", "test\naccuracy", "%\ninterval", "trained", "failed\nto learn", "no\noutcome"):
        table.add_column(head, justify="right")
    counts = {(c.model, c.learning_rate): c for c in findings.completeness}
    for c in findings.configurations:
        chosen = findings.selection[c.model].mean.learning_rate == c.learning_rate
        e, count = c.test_accuracy, counts[c.model, c.learning_rate]
        table.add_row(
            c.model,
            text.plain(c.learning_rate) + (" *" if chosen else "  "),
            text.DASH if e.estimate is None else f"{100 * e.estimate:.2f}",
            text.DASH if e.low is None else f"{100 * e.low:.2f} to {100 * e.high:.2f}",
            text.of(e.n, e.planned),
            str(count.diverged + count.collapsed),
            str(count.failed + count.missing),
        )
    console.print(table)
    level = text.level(findings.about.settings.confidence)
    note = f"* selected on validation digits; intervals: mean ± t, {level}, over runs that trained"
    console.print(note, style="dim", highlight=False)
    for warning in findings.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)

"""What the command line prints: the answer, the tables behind it, and the warnings."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from analysis import text
from analysis.findings.schema import Findings
from analysis.findings.summary import images


def show(findings: Findings, console: Console) -> None:
    """Print the answer, then the tables behind it, and what a reader must know before quoting it."""
    for paragraph in findings.answer.split("\n\n"):
        console.print(paragraph, markup=False, highlight=False)
        console.print()
    level = text.level(findings.about.settings.confidence)
    if findings.comparisons:
        console.print(_gaps(findings))
        note = f"percentage points; intervals: {level}; p: exact sign-flip test over seeds, by Holm over all baselines"
        console.print(note, style="dim", highlight=False)
        console.print()
    console.print(_models(findings))
    note = f"per cent; * selected on validation {images(findings)}; mean ± t over the runs that trained"
    console.print(note, style="dim", highlight=False)
    for warning in findings.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def _gaps(findings: Findings) -> Table:
    """The gap to each baseline."""
    # One blank between columns: the whole must fit 80 columns, and what does not is cut off.
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    longest = max(len(c.baseline) for c in findings.comparisons)
    table.add_column(f"{findings.about.settings.candidate}\nagainst", overflow="fold", min_width=min(longest, 22))
    for head in ("\ngap", "over\nseeds", f"over seeds\nand {images(findings)}", "\np", "\npairs"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("\nverdict")
    for c in findings.comparisons:
        mean = c.seeds.mean
        table.add_row(
            c.baseline,
            text.points(mean.estimate, text.point_digits(mean.low, mean.high)),
            text.points_interval(mean.low, mean.high),
            text.points_interval(c.digits.low, c.digits.high),
            text.p_value(c.p_holm),
            text.of(c.pairs, c.planned),
            c.seeds.verdict or text.DASH,
        )
    return table


def _models(findings: Findings) -> Table:
    """Every model at every learning rate."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    level = text.level(findings.about.settings.confidence)
    table.add_column("\nmodel")
    for head in (
        "learning\nrate  ",
        "test\naccuracy",
        f"{level}\ninterval",
        "\ntrained",
        "failed\nto learn",
        "no\noutcome",
    ):
        table.add_column(head, justify="right")
    counts = {(c.model, c.learning_rate): c for c in findings.completeness}
    for c in findings.configurations:
        chosen = findings.selection[c.model].mean.learning_rate == c.learning_rate
        e, count = c.test_accuracy, counts[c.model, c.learning_rate]
        table.add_row(
            c.model,
            text.plain(c.learning_rate) + (" *" if chosen else "  "),
            text.percent(e.estimate, sign=""),
            text.percent_interval(e.low, e.high, sign=""),
            text.of(e.n, e.planned),
            str(count.diverged + count.collapsed),
            str(count.failed + count.missing),
        )
    return table

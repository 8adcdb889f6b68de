"""What the command line prints: the answer, the tables behind it, and the warnings.

Prose is folded on a terminal and nowhere else, so that a line of a log or a pipe is a whole sentence; no table is wider
than 80 columns anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from analysis import text
from analysis.findings.schema import Findings
from analysis.report import phrases

COLUMNS = 80
"""What every terminal shows of a line."""


def show(findings: Findings, console: Console) -> None:
    """Print the answer, then the tables behind it, and what a reader must know before quoting it."""
    for paragraph in findings.answer.split("\n\n"):
        say(console, paragraph)
        say(console)
    level = phrases.level(findings)
    if findings.comparisons:
        _print(console, *_gaps(findings))
        note = f"percentage points; intervals: {level}; p: exact sign-flip test over seeds, by Holm over all baselines"
        say(console, note, "dim")
        for c in findings.comparisons:
            if c.verdicts is not None:
                say(console, f"{c.baseline}: {c.verdicts}")
        say(console)
    _print(console, *_models(findings))
    say(console, "per cent; * selected on validation images; mean ± t over the runs that learned", "dim")
    for warning in findings.warnings:
        say(console, f"warning: {warning}", "yellow")


def say(console: Console, line: str = "", style: str | None = None) -> None:
    """Print a line as it is, folded between words where a terminal would break it anywhere."""
    options = dict(width=min(console.width, COLUMNS)) if console.is_terminal else dict(soft_wrap=True)
    console.print(line, style=style, markup=False, highlight=False, **options)


def _gaps(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """The gap to each baseline: heads of two lines each, and rows."""
    heads = [
        f"{findings.about.settings.candidate}\nagainst",
        "\ngap",
        "over\nseeds",
        "over seeds\nand images",
        "p\n(Holm)" if len(findings.comparisons) > 1 else "\np",
        "\npairs",
    ]
    rows = [
        [
            c.baseline,
            text.points(c.seeds.mean.estimate, text.point_digits(c.seeds.mean.low, c.seeds.mean.high)),
            text.points_interval(c.seeds.mean.low, c.seeds.mean.high),
            text.points_interval(c.images.low, c.images.high),
            text.p_value(c.p_holm),
            text.of(c.pairs, c.planned),
        ]
        for c in findings.comparisons
    ]
    return heads, rows


def _models(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """Every model at every learning rate."""
    level = phrases.level(findings)
    heads = [
        "\nmodel",
        "learning\nrate  ",
        "test\naccuracy",
        f"{level}\ninterval",
        "\nlearned",
        "did not\nlearn",
        "no\noutcome",
    ]
    counts = {(c.model, c.learning_rate): c for c in findings.completeness}
    rows = []
    for c in findings.configurations:
        chosen = findings.selection[c.model].mean.learning_rate == c.learning_rate
        e, count = c.test_accuracy, counts[c.model, c.learning_rate]
        rows.append(
            [
                c.model,
                text.plain(c.learning_rate) + (" *" if chosen else "  "),
                text.percent(e.estimate, sign=""),
                text.percent_interval(e.low, e.high, sign=""),
                text.of(e.n, e.planned),
                str(count.diverged + count.collapsed),
                str(count.failed + count.missing),
            ]
        )
    return heads, rows


def _print(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, with heads of two lines; the first column is shortened to what the others leave of the line."""
    upper, lower = zip(*(head.split("\n") for head in heads), strict=True)
    widths = [max(map(len, column)) for column in zip(upper, lower, *rows, strict=True)]
    gap = 2 if sum(widths) + 2 * len(widths[1:]) <= COLUMNS else 1
    widths[0] = min(widths[0], COLUMNS - sum(gap + width for width in widths[1:]))
    names = text.short_names(list(dict.fromkeys(row[0] for row in rows)), widths[0])
    for cells in (upper, lower, *([names[name], *cells] for name, *cells in rows)):
        padded = [cell.rjust(gap + width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        line = text.shortened(cells[0], widths[0]).ljust(widths[0]) + "".join(padded)
        # Not folded in a window that was made small: it would be no table.
        style = "bold" if cells in (upper, lower) else None
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

"""How numbers stand in cells of every table."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Findings
from analysis.report.table import Cell, Rows, number, words
from analysis.stats.estimate import Estimate


def rate(x: float | None, *, chosen: bool = False) -> str:
    """A learning rate, with a star where it is the one selected."""
    return text.DASH if x is None else text.plain(x) + (" ★" if chosen else "")


def whole(e: Estimate) -> str:
    """An estimated number of things."""
    return text.DASH if e.estimate is None else text.count(e.estimate)


def percent(x: float | None) -> str:
    """A fraction in per cent, where the head of the column has the sign."""
    return text.DASH if x is None else f"{text.hundredfold(x):.2f}"


def figures(x: float | None) -> str:
    """Three significant figures."""
    return text.DASH if x is None else f"{x:.3g}".replace("-", text.MINUS)


def percent_interval(e: Estimate) -> str:
    """An interval of fractions, in per cent."""
    return text.DASH if e.low is None else f"{percent(e.low)} to {percent(e.high)}"


def interval(e: Estimate) -> str:
    """An interval to three significant figures."""
    return text.DASH if e.low is None else f"{figures(e.low)} to {figures(e.high)}"


def pairs(findings: Findings) -> str:
    """The pairs behind every comparison: "20 of 20 planned pairs against mlp, …"."""
    return ", ".join(f"{text.of(c.pairs, c.planned)} planned pairs against {c.baseline}" for c in findings.comparisons)


def method_row(rows: Rows, baseline: str, what: str, e: Estimate) -> None:
    """A row that says of an estimate all there is to say; where `what` ends in (pp) it is a gap, in those units."""
    points = what.endswith("(pp)")
    shown = text.points(e.estimate) if points else figures(e.estimate)
    limits = text.points_interval(e.low, e.high) if points else interval(e)
    # A test alone is declined for nothing: it has a p-value and no estimate.
    only_p = e.estimate is None and e.p_value is not None
    rows.add(
        Baseline=words("baseline", baseline),
        What=words("what", what),
        Estimate=rows.estimate("value", e, text.DASH if only_p else shown),
        Interval=Cell(limits, {}),
        Level=number("level", e.level, text.level(e.level)),
        p=number("p", e.p_value, text.p_value(e.p_value)),
        Population=words("population", e.population or text.DASH),
        Method=words("method", e.method),
        Runs=words("runs", text.rests_on(e)),
    )

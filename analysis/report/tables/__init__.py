"""The findings as tables. Every table says how many of the planned runs its numbers rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import table
from analysis.report.table import Table
from analysis.report.tables import gap, methods, planning, runs, selection

TABLES: Mapping[str, Callable[[Findings, Frames], Table | None]] = {
    make.__name__: make
    for make in (
        gap.gaps,
        runs.configurations,
        gap.sweep,
        selection.selection,
        gap.classes,
        gap.components,
        runs.outcomes,
        selection.sensitivity,
        methods.specifications,
        methods.variance,
        planning.planning,
        planning.sign_test,
        runs.hours,
        methods.literature,
        runs.completeness,
        runs.not_trained,
        methods.checks,
        selection.best_of_n,
    )
}
"""By name, in the order a reader meets them; None from one without rows."""


def build(findings: Findings, frames: Frames) -> tuple[Table, ...]:
    """All tables that have rows."""
    tables = (make(findings, frames) for make in TABLES.values())
    return tuple(table for table in tables if table is not None)


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write every table into `folder` as CSV, Markdown and LaTeX; the paths written."""
    return table.write(build(findings, frames), folder)

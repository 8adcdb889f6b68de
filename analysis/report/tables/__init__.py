"""The findings as tables. Every table says how many of the planned runs its numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import table
from analysis.report.table import Table, Tabulation
from analysis.report.tables import gap, methods, runs, selection

TABLES: Mapping[str, Tabulation] = {
    tabulation.name: tabulation
    for tabulation in (
        gap.gaps,
        runs.configurations,
        runs.training,
        gap.sweep,
        selection.selection,
        gap.classes,
        gap.components,
        runs.outcomes,
        selection.sensitivity,
        methods.specifications,
        methods.variance,
        methods.seed_spread,
        methods.planning,
        methods.sign_test,
        runs.hours,
        methods.literature,
        runs.completeness,
        runs.not_learned,
        methods.checks,
        selection.best_of_n,
    )
}
"""By name, in the order a reader meets them."""


def build(findings: Findings, frames: Frames) -> tuple[Table, ...]:
    """All tables that have rows."""
    tables = (tabulation.table(findings, frames) for tabulation in TABLES.values())
    return tuple(table for table in tables if table is not None)


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write every table into `folder` as CSV and Markdown; the paths written."""
    return table.write(build(findings, frames), folder)

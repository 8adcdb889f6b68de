"""The findings as tables. Every table says how many of the planned runs its numbers rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from analysis import formats
from analysis.findings import Findings
from analysis.formats import Table
from analysis.frames import Frames
from analysis.tables import choice, methods, planning, primary, runs

TABLES: Mapping[str, Callable[[Findings, Frames], Table | None]] = {
    make.__name__: make
    for make in (
        primary.gaps,
        runs.configurations,
        primary.sweep,
        choice.selection,
        primary.classes,
        primary.components,
        runs.outcomes,
        choice.sensitivity,
        methods.specifications,
        methods.variance,
        planning.planning,
        planning.sign_test,
        runs.hours,
        methods.literature,
        runs.completeness,
        runs.not_trained,
        methods.checks,
        choice.best_of_n,
    )
}
"""By name, in the order a reader meets them; None from one without rows."""


def build(findings: Findings, frames: Frames) -> tuple[Table, ...]:
    """All tables that have rows."""
    tables = (make(findings, frames) for make in TABLES.values())
    return tuple(table for table in tables if table is not None)


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write every table into `folder` as CSV, Markdown and LaTeX; the paths written."""
    return formats.write(build(findings, frames), folder)

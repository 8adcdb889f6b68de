"""What a table is, how numbers stand in its cells, and two of its forms: CSV with every digit, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import pandas as pd

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.stats.estimate import Basis, Estimate


@dataclass(frozen=True)
class Table:
    """A table: `shown` holds what is printed, `data` the same rows with every digit."""

    name: str
    title: str
    caption: str
    shown: pd.DataFrame
    data: pd.DataFrame
    numbers: frozenset[str] = frozenset()
    """Columns of `shown` that are set flush right."""
    notes: tuple[str, ...] = ()

    @cached_property
    def prose(self) -> frozenset[str]:
        """Columns whose cells are long and may be broken between words."""
        texts = {column: self.shown[column] for column in self.shown.columns if column not in self.numbers}
        return frozenset(
            column
            for column, cells in texts.items()
            if cells.str.len().max() > 34 and cells.str.split().explode().str.len().max() < 24
        )


class Cell(NamedTuple):
    """What a cell shows, and the columns it stands for in the CSV."""

    shown: str
    data: dict[str, object]
    number: bool = True


def words(column: str, value: object) -> Cell:
    """A cell of text."""
    return Cell(str(value), {column: value}, number=False)


def number(column: str, value: object, shown: str) -> Cell:
    """A cell of one number, unrounded in the CSV."""
    return Cell(shown, {column: value})


@dataclass
class Rows:
    """Collects rows of cells, and the reasons and warnings of estimates as numbered notes."""

    cells: list[dict[str, Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What else is to be said below the table."""
    caption: str = ""

    def add(self, **cells: Cell) -> None:
        """Append a row; keyword names become column heads, with their underscores as spaces."""
        self.cells.append({name.replace("_", " "): cell for name, cell in cells.items()})

    def marked(self, shown: str, reason: str | None) -> str:
        """`shown` with the mark of the note that says `reason`."""
        if reason is None:
            return shown
        if reason not in self.notes:
            self.notes.append(reason)
        return f"{shown} [{self.notes.index(reason) + 1}]"

    def estimate(self, column: str, e: Estimate | None, shown: str) -> Cell:
        """A cell of an estimate; why it is declined, or else its warning, becomes a note."""
        if e is None:
            return Cell(text.DASH, {column: None})
        return Cell(self.marked(shown, e.declined or e.warning), flat(column, e))

    def captioned(self, caption: str) -> Self:
        """These rows, with what they are called together."""
        self.caption = caption
        return self

    def table(self, name: str, title: str) -> Table:
        """The table of all rows added; there must be one."""
        return Table(
            name=name,
            title=title,
            caption=self.caption,
            shown=pd.DataFrame([{head: cell.shown for head, cell in row.items()} for row in self.cells]),
            data=pd.DataFrame([{k: v for cell in row.values() for k, v in cell.data.items()} for row in self.cells]),
            numbers=frozenset(head for row in self.cells for head, cell in row.items() if cell.number),
            notes=(*(f"[{i}] {note}" for i, note in enumerate(self.notes, 1)), *self.remarks),
        )


@dataclass(frozen=True)
class Tabulation:
    """A table of the report: where it stands, what it is called and how its rows are made."""

    name: str
    section: str
    title: str
    rows: Callable[[Findings, Frames], Rows]

    def table(self, findings: Findings, frames: Frames) -> Table | None:
        """The table in this study; None if it has no rows."""
        rows = self.rows(findings, frames)
        title = self.title.format(candidate=findings.about.settings.candidate)
        return rows.table(self.name, title) if rows.cells else None


def table(*, section: str, title: str) -> Callable[[Callable[[Findings, Frames], Rows]], Tabulation]:
    """Make the function below a table of the report, named as it is; `title` may hold {candidate}."""
    return lambda rows: Tabulation(rows.__name__, section, title, rows)


def rate(x: float | None, *, chosen: bool = False) -> str:
    """A learning rate, with a star where it is the one selected."""
    return text.DASH if x is None else text.plain(x) + (" ★" if chosen else "")


def whole(e: Estimate) -> str:
    """An estimated number of things."""
    return text.DASH if e.estimate is None else text.count(e.estimate)


def percent(x: float | None) -> str:
    """A fraction in per cent, where the head of the column has the sign."""
    return text.percent(x, sign="")


def figures(x: float | None) -> str:
    """Three significant figures."""
    return text.DASH if x is None else f"{x:.3g}".replace("-", text.MINUS)


def percent_interval(e: Estimate) -> str:
    """An interval of fractions, in per cent."""
    return text.percent_interval(e.low, e.high, sign="")


def interval(e: Estimate) -> str:
    """An interval to three significant figures."""
    return text.DASH if e.low is None else f"{figures(e.low)} to {figures(e.high)}"


def method_row(rows: Rows, baseline: str, what: str, e: Estimate, unit: str = "") -> None:
    """A row that says of an estimate all there is to say, in percentage points where `unit` is "pp"."""
    shown, limits = figures(e.estimate), interval(e)
    if unit == "pp":
        shown, limits = text.points(e.estimate), text.points_interval(e.low, e.high)
    # A test has a p-value and no estimate, and needs no reason for that.
    only_p = e.estimate is None and e.p_value is not None
    rows.add(
        Baseline=words("baseline", baseline),
        What=words("what", f"{what} ({unit})" if unit else what),
        Estimate=rows.estimate("value", e, text.DASH if only_p else shown),
        Interval=Cell(limits, {}),
        Level=number("level", e.level, text.level(e.level)),
        p=number("p", e.p_value, text.p_value(e.p_value)),
        Population=words("population", e.population or text.DASH),
        Method=words("method", e.method),
        Runs=words("runs", text.rests_on(e)),
    )


def flat(column: str, e: Estimate) -> dict[str, object]:
    """All that an estimate says, as columns of a CSV: numbers first, then what they rest on."""
    fields = e.model_dump(exclude={"estimate", "runs", "role"})
    fields = {name: fields[name] for name in sorted(fields, key=list(Basis.model_fields).__contains__)}
    return {column: e.estimate} | {f"{column}_{name}": value for name, value in fields.items()}


def as_csv(table: Table) -> str:
    """All digits, one row a line, no formatting."""
    return table.data.to_csv(index=False, lineterminator="\n")


def as_markdown(table: Table) -> str:
    """A GitHub table under its title, notes below."""
    line = "| {} |".format
    rows = [[text.markdown(str(cell)) for cell in row] for row in table.shown.itertuples(index=False)]
    rule = ["---:" if column in table.numbers else "---" for column in table.shown.columns]
    grid = [list(map(text.markdown, table.shown.columns)), rule, *rows]
    body = "\n".join(line(" | ".join(row)) for row in grid)
    notes = "\n\n".join(text.markdown(note) for note in (table.caption, *table.notes))
    return f"**{text.markdown(table.title)}**\n\n{body}\n\n{notes}\n"


def write(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table as CSV and Markdown; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for suffix, render in ((".csv", as_csv), (".md", as_markdown)):
            path = folder / f"{table.name}{suffix}"
            path.write_text(render(table), encoding="utf-8")
            written.append(path)
    return written

r"""The report for LaTeX: every table and every figure as a file to be \input, which fits the page in one column or two.

A document needs

    \usepackage[T1]{fontenc}
    \usepackage{array,booktabs,graphicx}
    \graphicspath{{../figures/}}

Tables and figures that are wider than a column are starred floats, which one-column documents take as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pandas as pd

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import figures, tables
from analysis.report.figures import style
from analysis.report.figures.canvas import Caption
from analysis.report.table import Table

COLUMN, PAGE = 58, 125
"""Characters, about, in a line of a column and of a page, in the size that tables are set in."""

LINES = 50
"""Lines of a table on one page, its notes included."""


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write tables/NAME.tex and figures/NAME.tex into `folder`; the paths written."""
    floats = {f"tables/{table.name}.tex": as_latex(table) for table in tables.build(findings, frames)}
    captions = figures.captions(findings, frames)
    floats |= {f"figures/{caption.name}.tex": as_figure(caption) for caption in captions if caption.missing is None}
    for name, content in floats.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in floats]


def as_figure(caption: Caption) -> str:
    """A figure with its caption."""
    star, inches = ("*", style.PAGE) if caption.wide else ("", style.COLUMN)
    width = f"\\ifdim\\linewidth<{inches}in\\linewidth\\else{inches}in\\fi"  # as it was drawn, or smaller
    return (
        f"\\begin{{figure{star}}}\n\\centering\n\\includegraphics[width={width}]{{{caption.name}.pdf}}\n"
        f"{_caption(caption.title, caption.text)}\\label{{fig:{caption.name}}}\n\\end{{figure{star}}}\n"
    )


def as_latex(table: Table) -> str:
    """A float, or several where the table is longer than a page."""
    parts = list(_parts(table))
    return "\n".join(_float(table, part, number, len(parts)) for number, part in enumerate(parts, 1))


def _float(table: Table, rows: pd.DataFrame, number: int, parts: int) -> str:
    """One part of a table; the first has the caption and the label, the last the notes."""
    star = "" if sum(_widths(table).values()) + 2 * len(table.shown.columns) <= COLUMN else "*"
    shown = rows.map(lambda cell: text.latex(str(cell)))
    shown.columns = [text.latex(column) for column in rows.columns]
    body = shown.style.hide(axis="index").to_latex(hrules=True, column_format=f"@{{}}{''.join(_columns(table))}@{{}}")
    counted = f" (part {number} of {parts})" if parts > 1 else ""
    caption = _caption(f"{table.title}{counted}", table.caption if number == 1 else "")
    label = f"\\label{{tab:{table.name}}}\n" if number == 1 else ""
    notes = "".join(f"\\par {text.latex(note)}\n" for note in table.notes) if number == parts else ""
    if notes:
        notes = f"\\par\\smallskip{{\\scriptsize\\raggedright\n{notes}\\par}}\n"
    # Made smaller where it is wider than there is room, and never larger.
    fitted = f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{body}}}\n"
    size = "\\smallskip\\scriptsize\\setlength{\\tabcolsep}{3pt}\n"
    return f"\\begin{{table{star}}}\n\\centering\n{caption}{label}{size}{fitted}{notes}\\end{{table{star}}}\n"


def _caption(title: str, words: str) -> str:
    """A caption, with the title alone for lists of tables and figures."""
    return f"\\caption[{text.latex(title)}]{{{text.latex(f'{title}. {words}'.strip())}}}\n"


def _widths(table: Table) -> dict[str, int]:
    """Characters that each column is wide: its longest cell, or its share of the line where it is one of prose."""
    cells = {column: [column, *map(str, table.shown[column])] for column in table.shown.columns}
    widest = {column: max(map(len, texts)) for column, texts in cells.items()}
    words = {c: max(len(word) for cell in texts for word in cell.split() or [""]) for c, texts in cells.items()}
    wanted = {column: min(widest[column], 60) for column in table.prose}
    room = PAGE - 2 * len(cells) - sum(width for column, width in widest.items() if column not in wanted)
    shares = {column: int(room * width / sum(wanted.values())) for column, width in wanted.items()}
    return widest | {column: max(words[column] + 1, min(shares[column], wanted[column])) for column in wanted}


def _columns(table: Table) -> list[str]:
    """Column types: numbers flush right, prose in paragraphs."""
    widths = _widths(table)
    prose = r">{{\raggedright\arraybackslash}}p{{{:.1f}em}}"
    return [
        prose.format(0.52 * widths[column]) if column in table.prose else "r" if column in table.numbers else "l"
        for column in table.shown.columns
    ]


def _parts(table: Table) -> Iterator[pd.DataFrame]:
    """The rows, page by page; room is kept for the notes under the last of them."""
    widths = _widths(table)
    lines = [
        max(ceil(len(str(cell)) / widths[column]) for column, cell in row.items() if column in table.prose or cell)
        if table.prose
        else 1
        for row in table.shown.to_dict("records")
    ]
    notes = sum(ceil(len(note) / PAGE) for note in table.notes)
    first, used = 0, 0
    for row, height in enumerate(lines):
        room = LINES if row < len(lines) - 1 else max(LINES // 4, LINES - notes)
        if row > first and used + height > room:
            yield table.shown.iloc[first:row]
            first, used = row, 0
        used += height
    yield table.shown.iloc[first:]

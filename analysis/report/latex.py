r"""The report for LaTeX: every table and every figure as a file to be \input, which fits the page in one column or two.

A document needs

    \usepackage[T1]{fontenc}
    \usepackage{array,booktabs,graphicx}
    \graphicspath{{../figures/}}

Tables and figures that are wider than a column are starred floats, which one-column documents take as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
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

COLUMN, PAGE = 60, 126
"""Digits in a line of a column and of a page, in the size that tables are set in."""

BETWEEN = 1.5
"""Digits between two columns."""

DIGIT = 0.5
"""The width of a digit in it, in em."""

PARTS = (re.compile(r"\S+"), re.compile(r"[^\s_-]+[_-]?|[_-]"))
"""What of a cell stays together in a line: words, or where these are too long, their parts, as `text.latex` parts them.
"""

SENTENCE = 45
"""Digits after which a longer cell is broken in any case, where not all cells fit."""

CROWDED = 1.15
"""Times the page that a table may be wide, and be set smaller, before its words are broken."""

SMALLEST = 0.7
"""Of that size, what a table may be shrunk to: 5 points where the text has 10. What is wider still sticks out."""

LINES = 50
"""Lines of a table on one page, its notes included."""

CAPTION = {False: 46, True: 98}
"""Digits in a line of a caption, under a figure that is wide or is not; LaTeX puts a few more there."""

AROUND = 6
"""Lines of text that the space around a figure takes, and above it the heading of a section."""

MANY = 4
"""Models that a caption speaks of one by one; of more it counts those of which it says the same."""

LONG = 20
"""Characters of a word that are kept together in a line, if that can be done."""

AVOIDED = r"\penalty2000{}"
"""Where a line is broken if no other way is left: within such words."""


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write tables/NAME.tex and figures/NAME.tex into `folder`; the paths written."""
    floats = {f"tables/{table.name}.tex": as_latex(table) for table in tables.build(findings, frames)}
    models = [model.name for model in findings.about.models]
    for caption in figures.captions(findings, frames):
        if caption.missing is None:
            floats[f"figures/{caption.name}.tex"] = as_figure(replace(caption, text=counted(caption.text, models)))
    for name, content in floats.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in floats]


def as_figure(caption: Caption) -> str:
    """A figure with its caption, of the size that it was drawn in, or smaller where both would not fit a page."""
    star, inches = ("*", style.PAGE) if caption.wide else ("", style.COLUMN)
    width = f"\\ifdim\\linewidth<{inches}in\\linewidth\\else{inches}in\\fi"
    lines = ceil(_long(f"{caption.title}. {caption.text}") / CAPTION[caption.wide]) + AROUND
    size = f"width={width},height=\\dimexpr\\textheight-{lines}\\baselineskip,keepaspectratio"
    return (
        f"\\begin{{figure{star}}}\n\\centering\n\\includegraphics[{size}]{{{caption.name}.pdf}}\n"
        f"{_caption(caption.title, caption.text)}\\label{{fig:{caption.name}}}\n\\end{{figure{star}}}\n"
    )


def counted(said: str, models: Collection[str]) -> str:
    """A caption in which sentences that list many models with a value each say how many have which value.

    "Planned pairs: a 4 of 4, b 4 of 4, …" becomes "Planned pairs: 4 of 4 (9 models)." Where most values differ there is
    nothing to count, and the list stays.
    """
    names = "|".join(re.escape(name) for name in sorted(models, key=len, reverse=True))
    listed = re.compile(rf"(?<=[:,;] )(?:{names}):? ")
    sentences = re.split(r"(?<=\.) (?=[A-Z])", said)
    for at, sentence in enumerate(sentences):
        lead, *values = listed.split(sentence)
        groups = Counter(value.rstrip(" ,;.") for value in values)
        if len(values) > MANY >= len(groups):
            shown = (f"{value} ({n} model{'s' * (n > 1)})" for value, n in groups.items())
            sentences[at] = f"{lead.rstrip(' ,:;')}: {'; '.join(shown)}."
    return " ".join(sentences)


def as_latex(table: Table) -> str:
    """A float, or several where the table is longer than a page."""
    parts = list(_parts(table))
    return "\n".join(_float(table, part, number, len(parts)) for number, part in enumerate(parts, 1))


def _float(table: Table, rows: pd.DataFrame, number: int, parts: int) -> str:
    """One part of a table; the first has the caption and the label, the last the notes."""
    star = "" if _width(_widths(table).values()) <= COLUMN else "*"
    shown = rows.map(lambda cell: text.latex(str(cell)))
    shown.columns = [text.latex(column) for column in rows.columns]
    body = shown.style.hide(axis="index").to_latex(hrules=True, column_format=f"@{{}}{''.join(_columns(table))}@{{}}")
    counted = f" (part {number} of {parts})" if parts > 1 else ""
    caption = _caption(f"{table.title}{counted}", table.caption if number == 1 else "")
    label = f"\\label{{tab:{table.name}}}\n" if number == 1 else ""
    notes = "".join(f"\\par {text.latex(note)}\n" for note in table.notes) if number == parts else ""
    if notes:
        notes = f"\\par\\smallskip{{\\scriptsize\\raggedright\n{notes}\\par}}\n"
    # Made smaller where it is wider than there is room, but not unreadable, and never larger.
    smaller = f"\\ifdim{SMALLEST}\\width>\\linewidth {SMALLEST}\\width\\else\\linewidth\\fi"
    fitted = f"\\resizebox{{\\ifdim\\width>\\linewidth{smaller}\\else\\width\\fi}}{{!}}{{%\n{body}}}\n"
    size = "\\smallskip\\scriptsize\\setlength{\\tabcolsep}{3pt}\n"
    return f"\\begin{{table{star}}}\n\\centering\n{caption}{label}{size}{fitted}{notes}\\end{{table{star}}}\n"


def _caption(title: str, words: str) -> str:
    """A caption, with the title alone for lists of tables and figures."""
    return f"\\caption[{prose(title)}]{{{prose(f'{title}. {words}'.strip())}}}\n"


def prose(shown: str) -> str:
    """Text for LaTeX, escaped, in which short names are broken between lines only where no other way is left."""
    words = ((word, text.latex(word)) for word in shown.split())
    return " ".join(
        latex if len(word) > LONG else latex.replace(r"\_\allowbreak{}", rf"\_{AVOIDED}") for word, latex in words
    )


def _long(shown: str) -> float:
    """How long a text is in a line, in digits: letters are as wide as these on average, but not each of them."""
    return sum(0.55 if c in "fijlrtI .,:;'()[]|!" else 1.5 if c in "mwMW%+−±<>=—★×" else 1.0 for c in shown)


def _width(columns: Iterable[float]) -> float:
    """Digits that columns take together."""
    widths = list(columns)
    return sum(widths) + BETWEEN * (len(widths) - 1)


def _widths(table: Table) -> dict[str, float]:
    """Digits that each column is wide: its longest cell, or less where cells must be broken to fit the page.

    What is there beyond the longest parts that cannot be broken is shared out by how much each column lacks.
    """
    cells = {column: [column, *map(str, table.shown[column])] for column in table.shown.columns}
    whole = {column: max(map(_long, texts)) for column, texts in cells.items()}
    if _width(whole.values()) <= PAGE:
        return whole
    for parts in PARTS:
        # A little more, as no line is filled to its end, and as most letters of names are wider than digits.
        longest = {
            c: 1 + 1.1 * max(_long(part) for cell in cells[c] for part in parts.findall(cell)) for c in _broken(table)
        }
        least = {column: min(width, longest.get(column, width)) for column, width in whole.items()}
        if _width(least.values()) <= (CROWDED * PAGE if parts is PARTS[0] else PAGE):
            break
    # Sentences may take several lines without making those break that are a few words long.
    wanted = {column: max(least[column], min(width, SENTENCE)) for column, width in whole.items()}
    lacking = _width(wanted.values()) - _width(least.values())
    share = max(0.0, PAGE - _width(least.values())) / lacking if lacking else 0.0
    return {column: min(whole[column], least[column] + share * (wanted[column] - least[column])) for column in cells}


def _broken(table: Table) -> list[str]:
    """Columns whose cells may stand in several lines: words, and no numbers."""
    return [column for column in table.shown.columns if column not in table.numbers]


def _columns(table: Table) -> list[str]:
    """Column types: numbers flush right, words in paragraphs where they do not fit a line."""
    widths = _widths(table)
    paragraph = r">{{\raggedright\arraybackslash}}p{{{:.1f}em}}"
    longest = {column: max(map(_long, map(str, table.shown[column]))) for column in table.shown.columns}
    return [
        "r" if column in table.numbers else paragraph.format(DIGIT * width) if width < longest[column] else "l"
        for column, width in widths.items()
    ]


def _parts(table: Table) -> Iterator[pd.DataFrame]:
    """The rows, page by page; room is kept for the notes under the last of them."""
    widths = _widths(table)
    lines = [
        max(ceil(_long(str(cell)) / widths[column]) for column, cell in row.items() if widths[column])
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

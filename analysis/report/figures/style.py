"""The style of all figures: sizes, fonts, colours, and how a figure becomes a file. Importing it changes nothing."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from analysis.text import plain, short_names

COLUMN, PAGE = 3.35, 7.0
"""Widths in inches: one column and the full text width of a two-column paper."""

TALLEST = 7.5
"""Inches of a page's height that its caption leaves for a figure."""

LETTER = 0.065
"""Inches that a letter of a title takes, or a little less."""

SUFFIXES = (".pdf", ".svg", ".png")
DOTS = 300
"""Of a PNG, an inch."""

APART = 0.12
"""Of the height of an axis with ticks at uneven distances, what must lie between two of them."""

TOLD, BETWEEN = "told:", "\u241e"
"""How `tell` hands values through matplotlib: in the id of the artist, this character between them."""

INK, MUTED, MARGIN = "#222222", "#767676", "#e6e6e6"

# Okabe and Ito (2008) without yellow and black: told apart with any common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES: tuple[str | tuple, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (7, 2)))

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    # matplotlib ships the first: the same figure on every machine. An SVG falls back on the others.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Bitstream Vera Sans"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.labelsize": 7,
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,  # a model's name may hold a dollar sign
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0.6,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.9,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.dpi": 150,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "none",  # text stays text: found, copied and read aloud
    "svg.hashsalt": "study",  # else the ids in an SVG are drawn at random
    "path.simplify": True,
}


@dataclass(frozen=True)
class Look:
    """How one model looks in every figure."""

    label: str
    colour: str
    marker: str
    dash: str | tuple


def looks(models: Sequence[str]) -> dict[str, Look]:
    """The look of every model, by its position in the config."""
    names = short_names(models)
    styles = zip(models, cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)
    return {model: Look(names[model], colour, marker, dash) for model, colour, marker, dash in styles}


@contextmanager
def applied() -> Iterator[None]:
    """Draw and save inside this context; outside it matplotlib is as it was."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def tell(artist: Artist, values: Iterable[str]) -> None:
    """Have an SVG show a value where the pointer rests: one for the whole artist, or one for each of its markers."""
    artist.set_gid(TOLD + BETWEEN.join(values))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PDF, SVG and PNG: the same bytes for the same figure, for none holds a date or a version."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for all files
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    # The canvases themselves: `savefig` would draw the figure twice for each file.
    FigureCanvasPdf(figure).print_pdf(paths[0], metadata={"CreationDate": None})
    drawn = io.StringIO()
    FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    paths[1].write_text(_told(drawn.getvalue()), encoding="utf-8")
    figure.set_dpi(DOTS)
    FigureCanvasAgg(figure).print_png(paths[2], metadata={"Software": None})
    return paths


def _told(svg: str) -> str:
    """An SVG with what `tell` noted as titles, which browsers show."""
    before, *groups = re.split(rf'<g id="{TOLD}', svg)
    parts = [before]
    for group in groups:
        noted, closed, rest = re.split(r'"(/?)>', group, maxsplit=1)
        if closed:  # nothing of it was drawn
            parts.append(rest)
            continue
        own, next_, after = rest.partition('<g id="')
        titles = [f"<title>{title}</title>" for title in noted.split(BETWEEN)]
        pieces = re.split(r"(<use [^>]*)/>", own)
        marks = range(1, len(pieces), 2)
        if len(titles) == 1:
            parts.append(f"<g>{titles[0]}" + rest)
        elif len(titles) == len(marks):
            for k, title in zip(marks, titles, strict=True):
                pieces[k] += f">{title}</use>"
            parts.append("<g>" + "".join(pieces) + next_ + after)
        else:  # matplotlib leaves out what has no place: which marks those are cannot be told, so none has a title
            parts.append("<g>" + rest)
    return "".join(parts)


def rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """A logarithmic axis of learning rates with the rates tried as its ticks, as far as there is room."""
    ordered = sorted(rates)
    axes.set_xscale("log")
    axes.set_xlim(ordered[0] / 1.5, ordered[-1] * 1.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(x)))
    axes.xaxis.set_major_locator(FixedLocator(ordered) if len(ordered) <= 7 else LogLocator())
    axes.set_xlabel("Learning rate")


def log_axis(axes: Axes, label: str, which: str = "y") -> None:
    """A logarithmic axis, its ticks written as a reader would: 0.5, 1, 2, 5, 10."""
    axes.set(**{f"{which}scale": "log", f"{which}label": label})
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    if high / low < 1.5:  # so that one run, or equal ones, do not fill the axis with digits of no meaning
        middle = math.sqrt(low * high)
        low, high = middle / 1.25, middle * 1.25
        axes.set(**{f"{which}lim": (low, high)})
    decades = math.log10(high / low)
    subs = tuple(range(1, 10)) if decades < 0.8 else (1, 2, 5) if decades < 2.5 else (1,)
    axis.set_major_locator(LogLocator(subs=subs) if decades > 0.25 else MaxNLocator(4))
    axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10))) if decades > 0.25 else NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda tick, _: plain(tick)))
    axis.set_minor_formatter(NullFormatter())


def signed_axis(axes: Axes, linear: float, mantissas: Sequence[int] = (1,)) -> None:
    """A vertical axis that is linear within ±`linear`, a power of ten, and logarithmic beyond, 0 among its ticks.

    Ticks outside the linear part are the `mantissas` of each power of ten, as far as there is room: the first are
    preferred.
    """
    axes.set_yscale("symlog", linthresh=linear)
    decades = 1 + max(0, math.ceil(math.log10(max(map(abs, axes.get_ylim())) / linear)))
    low, high = axes.get_ylim()

    def ticks(of: Iterable[int]) -> list[float]:
        both = (sign * m * linear * 10**d for m in of for d in range(decades) for sign in (1, -1))
        return [0.0, *(x for x in both if low <= x <= high)]

    places: dict[float, float] = {}
    for tick in ticks(mantissas):
        place = axes.transLimits.transform(axes.transScale.transform((0, tick)))[1]
        if all(abs(place - other) >= APART for other in places.values()):
            places[tick] = place
    axes.yaxis.set_major_locator(FixedLocator(list(places)))
    axes.yaxis.set_minor_locator(FixedLocator(ticks(range(1, 10))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: plain(tick).replace("-", "−")))
    axes.yaxis.set_minor_formatter(NullFormatter())

"""Numbers as a reader reads them, and text made safe for Markdown and LaTeX. Computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from analysis.stats.estimate import Estimate

DASH = "—"
MINUS = "−"

# Break up ligatures and quotes, so that a name is printed as it is spelt.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_\allowbreak{}",  # a long name may be broken there
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\char34{}",
        "`": r"\textasciigrave{}",
        "-": r"{-}\allowbreak{}",
        "[": "{[}",
        "]": "{]}",
        "−": r"$-$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "≈": r"$\approx$",
        "½": r"$\frac{1}{2}$",
        "²": r"$^2$",
        "ⁿ": r"$^n$",
        "√": r"$\surd$",
        "Δ": r"$\Delta$",
        "Φ": r"$\Phi$",
        "α": r"$\alpha$",
        "δ": r"$\delta$",
        "λ": r"$\lambda$",
        "μ": r"$\mu$",
        "ρ": r"$\rho$",
        "σ": r"$\sigma$",
        "τ": r"$\tau$",
        "χ": r"$\chi$",
        "ω": r"$\omega$",
        "·": r"$\cdot$",
        "→": r"$\rightarrow$",
        "★": r"$\star$",
        "§": r"\S{}",
        "–": "--",
        "—": "---",
        "…": r"\ldots{}",
        "’": "'",
        "“": "``",
        "”": "''",
        "\u202f": r"\,",
        "\u00a0": "~",
    }
)


_T1 = set("ĄąĆćČčĎďĘęĚěĞğİıŁłŃńŐőŒœŘřŚśŞşŠšŤťŮůŰűŸŹźŻżŽž")


def latex(text: str) -> str:
    """`text` for LaTeX: specials escaped, and "?" for what pdflatex's T1 fonts do not have."""
    line = " ".join(text.split())
    known = (c if ord(c) in _LATEX or (ord(c) < 0x100 and c.isprintable()) or c in _T1 else "?" for c in line)
    return "".join(known).translate(_LATEX)


def markdown(text: str) -> str:
    """`text` for a cell or paragraph of Markdown: nothing in it is markup, HTML or a column."""
    escaped = re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short_names(models: Sequence[str], width: int = 22) -> dict[str, str]:
    """Model → the name it is shown under, of at most `width` characters: without its import path where that is enough.

    Names that would be the same when cut stay whole.
    """
    names = {model: model.rpartition(":")[2] or model for model in models}
    if len(set(names.values())) < len(names):
        names = {model: model for model in models}
    cut = {model: shortened(name, width) for model, name in names.items()}
    return cut if len(set(cut.values())) == len(cut) else names


def shortened(name: str, width: int) -> str:
    """A name of at most `width` characters, its middle left out where it is longer."""
    half = max(1, (width - 1) // 2)
    return name if len(name) <= width else f"{name[:half]}…{name[half + 1 - width :]}"


def plain(x: float) -> str:
    """A learning rate or a tick, to four significant digits: 0.003, 20; 1e-06 only where it must be."""
    if x and not 1e-5 <= abs(x) < 1e6:
        return f"{x:.3g}"
    return f"{x:,.0f}" if abs(x) >= 1e4 else np.format_float_positional(x, 4, fractional=False, trim="-")


def count(n: float) -> str:
    """A whole number with its thousands separated."""
    return f"{n:,.0f}"


def signed(x: float, digits: int = 2) -> str:
    """A number with its sign, a real minus, and no "−0.00"."""
    text = f"{x:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def hundredfold(x: float) -> float:
    """A fraction in per cent, without the last digits, in which two ways to compute the same number may differ."""
    return round(100 * x, 9)


def percent(x: float | None, digits: int = 2, sign: str = "%") -> str:
    """A fraction as a percentage: 98.85%; 98.85 where the sign stands elsewhere."""
    return DASH if x is None else f"{hundredfold(x):.{digits}f}{sign}"


def percent_interval(low: float | None, high: float | None, sign: str = "%") -> str:
    """An interval of fractions as percentages: "98.80% to 98.90%"."""
    return DASH if low is None else f"{percent(low, sign=sign)} to {percent(high, sign=sign)}"


def level(x: float | None) -> str:
    """A confidence level: 95%, 97.5%."""
    return DASH if x is None else f"{100 * x:.4g}%"


def p_value(p: float | None) -> str:
    """A p-value: 0.23, 0.012, 0.0042, < 0.001."""
    if p is None:
        return DASH
    if p < 0.001:
        return "< 0.001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"


def p_statement(p: float | None) -> str:
    """What a sentence says of a p-value: p = 0.23, p < 0.001."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def points(x: float | None, digits: int = 2) -> str:
    """A difference of accuracies, a fraction, in percentage points with its sign."""
    return DASH if x is None else signed(hundredfold(x), digits)


def sd(x: float | None) -> str:
    """A standard deviation of accuracies, a fraction, in percentage points."""
    return DASH if x is None else f"{100 * x:.3f}"


def point_digits(low: float | None, high: float | None) -> int:
    """Decimals for an interval of fractions in percentage points: three where it is narrower than 0.1.

    More where a limit would else round to 0: on which side of 0 it lies is what a reader looks for.
    """
    if low is None or high is None:
        return 2
    digits = 2 if 100 * (high - low) >= 0.1 else 3
    while digits < 6 and any(limit and not round(100 * limit, digits) for limit in (low, high)):
        digits += 1
    return digits


def duration(hours: float) -> str:
    """A time in the unit that people read it in: 4.4 min, 1.5 h, 120 h."""
    seconds = 3600 * hours
    for unit, size in (("s", 60), ("min", 3600)):
        if seconds < size:
            return f"{plain(float(f'{60 * seconds / size:.2g}'))} {unit}"
    return f"{plain(float(f'{hours:.2g}'))} h" if hours < 100 else f"{count(hours)} h"


def points_interval(low: float | None, high: float | None) -> str:
    """An interval of fractions in percentage points: "+0.52 to +0.62"."""
    if low is None or high is None:
        return DASH
    digits = point_digits(low, high)
    return f"{points(low, digits)} to {points(high, digits)}"


def of(n: int, planned: int) -> str:
    """How many of how many planned: "18 of 20"."""
    return f"{count(n)} of {count(planned)}"


def rests_on(e: Estimate) -> str:
    """What a number rests on: "18 of 20 seeds"."""
    return f"{of(e.n, e.planned)} {e.unit}"


def splits(n: int) -> str:
    """Ways in which the training file was split: "one split", "2 splits"."""
    return "one split" if n == 1 else f"{n} splits"


def clusters(n: int) -> str:
    """Clusters of test images: "297 clusters", "1 cluster"."""
    return f"{count(n)} cluster{'' if n == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Words as a list in a sentence: "a, b and c"."""
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last

"""What each figure shows, in words: interval, level and what it rests on; or why it is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from analysis.captions import digits, gaps, learning, spreads
from analysis.captions.caption import Caption
from analysis.captions.digits import PER_ROW, hard_rows
from analysis.captions.gaps import curve_baselines
from analysis.captions.learning import panel_rates
from analysis.findings import Findings
from analysis.frames import Frames

__all__ = ["CAPTIONS", "PER_ROW", "Caption", "captions", "curve_baselines", "hard_rows", "panel_rates"]

CAPTIONS: Mapping[str, Callable[[Findings, Frames], Caption]] = {
    make.__name__: make
    for make in (
        gaps.gap,
        learning.learning_rates,
        gaps.sweep,
        learning.learning_curves,
        learning.losses,
        learning.selection,
        gaps.classes,
        digits.hard_digits,
        digits.confusion,
        gaps.specifications,
        spreads.variance,
        spreads.planning,
        spreads.normality,
    )
}
"""By name, in the order a reader meets them. A figure is drawn by the function of the same name."""


def captions(findings: Findings, frames: Frames) -> tuple[Caption, ...]:
    """The caption of every figure."""
    return tuple(make(findings, frames) for make in CAPTIONS.values())

"""What each figure shows, in words: interval, level and what it rests on; or why it is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.captions import digits, gap, learning, spread
from analysis.report.captions.caption import Caption
from analysis.report.captions.digits import PER_ROW, hard_rows
from analysis.report.captions.gap import curve_baselines
from analysis.report.captions.learning import panel_rates

__all__ = ["CAPTIONS", "PER_ROW", "Caption", "captions", "curve_baselines", "hard_rows", "panel_rates"]

CAPTIONS: Mapping[str, Callable[[Findings, Frames], Caption]] = {
    make.__name__: make
    for make in (
        gap.gap,
        learning.learning_rates,
        gap.sweep,
        learning.learning_curves,
        learning.losses,
        learning.selection,
        gap.classes,
        digits.hard_digits,
        digits.confusion,
        gap.specifications,
        spread.variance,
        spread.planning,
        spread.normality,
    )
}
"""By name, in the order a reader meets them. A figure is drawn by the function of the same name."""


def captions(findings: Findings, frames: Frames) -> tuple[Caption, ...]:
    """The caption of every figure."""
    return tuple(make(findings, frames) for make in CAPTIONS.values())

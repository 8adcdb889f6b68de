"""Captions of the digits themselves."""

from __future__ import annotations

from typing import NamedTuple

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.captions.caption import Caption, each, pairs

PER_ROW = 14
"""Digits drawn side by side across the page ..."""

PER_COLUMN = 5
"""... and across one column of it."""


class HardRow(NamedTuple):
    """Test digits that every run of one model gets wrong and every run of another right."""

    wrong: str
    right: str
    digits: tuple[int, ...]
    """Positions in the test file."""
    runs: str
    """Key into findings' `run_sets`."""

    @property
    def wide(self) -> bool:
        """Whether it needs the page's width."""
        return len(self.digits) > PER_COLUMN


def hard_rows(findings: Findings) -> list[HardRow]:
    """What the figure of hard digits shows, row by row."""
    candidate = findings.about.settings.candidate
    rows = []
    for baseline, found in findings.digits.items():
        if found.hard is not None:
            runs = found.hard.rests_on.runs
            rows += [HardRow(baseline, candidate, found.hard.baseline_alone_wrong, runs)]
            rows += [HardRow(candidate, baseline, found.hard.candidate_alone_wrong, runs)]
    return [row for row in rows if row.digits]


def hard_digits(findings: Findings, frames: Frames) -> Caption:
    """Of the digits that only one model can read."""
    rows = hard_rows(findings)
    hard = {b: d.hard for b, d in findings.digits.items() if d.hard is not None}
    both = each((b, text.count(len(h.both_wrong))) for b, h in hard.items())
    first = f", of which the first {PER_ROW} are shown" if any(len(row.digits) > PER_ROW for row in rows) else ""
    return Caption(
        "hard_digits",
        "Digits that only one model reads",
        "Test digits that one model gets wrong with every seed and the other right with every seed. Above each: its "
        "true class, and what the model that is wrong takes it for most often. In brackets: how many there are"
        f"{first}. Read by neither with any seed: {both}. Planned pairs: {pairs(findings)}.",
        None if rows else "No test digit is read by every run of one model and by none of the other.",
        wide=any(row.wide for row in rows),
    )


def confusion(findings: Findings, frames: Frames) -> Caption:
    """Of the confusion matrices."""
    n = each((model, text.of(found.rests_on.n, found.rests_on.planned)) for model, found in findings.confusion.items())
    return Caption(
        "confusion",
        "Confusions at the selected learning rates",
        "Per cent of each true class predicted as each other class, mean over the runs that trained; right answers "
        f"are left out, and numbers below 0.05%. Planned runs: {n}.",
        None if findings.confusion else "No run has trained whose predictions are there.",
        wide=len(findings.confusion) > 1,
    )

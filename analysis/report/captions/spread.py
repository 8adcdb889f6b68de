"""Captions of how far the results spread, why, and what more seeds would bring."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.captions.caption import Caption, each, level, pairs


def variance(findings: Findings, frames: Frames) -> Caption:
    """Of the components of variance."""
    drawn = {
        model: [c.variance for c in v.components.components if c.variance.estimate is not None]
        for model, v in findings.variance.items()
    }
    n = each((model, text.rests_on(known[0])) for model, known in drawn.items() if known)
    return Caption(
        "variance",
        "Where the spread comes from",
        "Components of variance of test accuracy at the selected rate, as standard deviations, with "
        f"{level(findings)} bootstrap intervals; negative estimates stand at 0. The highest interaction includes "
        f"nondeterminism. Planned: {n}.",
        None if n else "The seeds of this study are no complete factorial.",
    )


def planning(findings: Findings, frames: Frames) -> Caption:
    """Of what more seeds would bring."""
    margin = text.plain(100 * findings.about.settings.margin)
    return Caption(
        "planning",
        "Precision against the number of seeds",
        f"Expected half-width of the {level(findings)} interval of the gap if what was seen holds: over seeds (this "
        "test set), and over seeds and digits (new digits of the same kind), which more seeds never push below its "
        f"floor. Marks: this study, over seeds. Grey line: the margin of {margin} points. Planned pairs: "
        f"{pairs(findings)}.",
        None if any(p.precision for p in findings.planning.values()) else "The spread over seeds is unknown.",
    )


def normality(findings: Findings, frames: Frames) -> Caption:
    """Of the QQ plot."""
    enough = any(len(c.seeds.quantiles) > 2 for c in findings.comparisons)
    return Caption(
        "normality",
        "Differences against a normal distribution",
        "Paired differences in order, against the quantiles that a normal sample would have. Lines: a normal "
        "distribution of the same mean and SD; points near them speak for the t interval. Descriptive, for no test of "
        f"normality gates the analysis. Planned pairs: {pairs(findings)}.",
        None if enough else "Fewer than three pairs have trained.",
    )

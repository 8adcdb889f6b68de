"""Phrases that captions of figures and tables share."""

from __future__ import annotations

from collections.abc import Iterable

from analysis import text
from analysis.findings.schema import Findings
from analysis.findings.summary import LUCK_LEAST

TOO_SHORT = (
    "Intervals over seeds suppose seeds whose luck is not strongly skewed: in simulation, 95% t intervals over 5 to 50 "
    "seeds cover 80 to 93% where one seed in ten of a model is bad, and 89 to 91% where its luck is lognormal. For new "
    "images, those that take dependent images as independent cover 81 to 85%, and those over 5 seeds, where one in ten "
    "is bad, 92%. The sign-flip test supposes differences that lie symmetrically about 0 where there is no gap: a test "
    "at 5% over 10 to 50 seeds rejects the mean gap that there is in 8 to 20% of studies where one seed in ten of a "
    "model is bad, and in 9 to 10% where its luck is lognormal."
)
"""What fails, from analysis/published/calibration.csv."""

OVER_SEEDS = "over seeds (this test set; too short where their luck is strongly skewed)"
"""The population of the primary interval, and where that fails; by how much, TOO_SHORT says."""

LUCK_COVERS = (
    f"at 95% it covers in simulation as little as {LUCK_LEAST}, the less the more seeds, where rates tie on "
    "validation images and lie apart on test images; more than 95% where they tie on both"
)
"""What the interval that allows for the luck of selection covers, from there too."""


def each(pairs: Iterable[tuple[str, object]]) -> str:
    """Names with their values: "mlp 20 of 20, mlp_matched 20 of 20"."""
    return ", ".join(f"{name} {value}" for name, value in pairs)


def pairs(findings: Findings) -> str:
    """The pairs behind every comparison: "mlp 20 of 20, mlp_matched 20 of 20"."""
    return each((c.baseline, text.of(c.pairs, c.planned)) for c in findings.comparisons)


def over_seeds(findings: Findings) -> bool:
    """Whether any interval over seeds is there to be drawn: not where only one run of each kind has learned."""
    return any(c.test_accuracy.interval for c in findings.configurations)


def runs(findings: Findings) -> str:
    """What became of all planned runs, in a sentence."""
    counts = findings.completeness
    finished, diverged = (sum(getattr(c, name) for c in counts) for name in ("finished", "diverged"))
    return f"{text.of(finished, findings.about.planned)} planned runs finished, {text.count(diverged)} diverged."


def guessing(findings: Findings) -> str:
    """The test error of guessing: "90%"."""
    return f"{text.plain(round(100 * (1 - 1 / findings.about.classes), 1))}%"


def images(clusters: int | None) -> str:
    """How test images were drawn, as far as is known: "297 clusters", or "independent"."""
    return "independent" if clusters is None else text.clusters(clusters)


def new_images(findings: Findings) -> str:
    """The new images that an interval over seeds and test images speaks of, and what it supposes of them."""
    clusters = findings.about.clusters
    if clusters is None:
        return "new images like these, taken as independent: probably too short"
    return f"new images like these, which come in {images(clusters.count)}"


def level(findings: Findings) -> str:
    """The confidence of all intervals: "95%"."""
    return text.level(findings.about.settings.confidence)

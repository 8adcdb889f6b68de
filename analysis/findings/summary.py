"""The answer in words, generated from the findings: nothing here knows the name of a model."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Comparison, Findings

DIGITS = ("mnist",)
"""Datasets whose images are digits; of any other the answer speaks of images."""


def sentence(findings: Findings) -> str:
    """The answer, one paragraph per baseline."""
    if not findings.comparisons:
        return f"{findings.about.name} trained one model, {findings.about.models[0].name}: there is no gap to estimate."
    return "\n\n".join(_paragraph(findings, comparison) for comparison in findings.comparisons)


def _paragraph(findings: Findings, comparison: Comparison) -> str:
    about, gap = findings.about, comparison.seeds
    candidate, baseline = about.settings.candidate, comparison.baseline
    failed = comparison.not_trained
    outcomes = f"{failed[candidate]} and {failed[baseline]} trainings failed to learn"
    if gap.mean.estimate is None:
        return (
            f"{candidate} against {baseline}: no answer. In none of {comparison.planned} planned pairs of trainings "
            f"did both models learn ({outcomes}, {_absent(findings, comparison)})."
        )
    decimals = text.point_digits(gap.mean.low, gap.mean.high)
    # A dataset may be a folder of any name: a line break in it must not break the paragraph.
    dataset = " ".join(about.dataset.split())
    verdict = f"{_may_fail(findings, baseline)}{_verdict(findings, comparison)}"
    return (
        f"On the {about.n_test:,} test {images(findings)} of {dataset}, {candidate} misread "
        f"{text.percent(comparison.candidate_error)} and {baseline}, with {_size(findings, baseline)} parameters, "
        f"{text.percent(comparison.baseline_error)}: a gap of {text.points(gap.mean.estimate, decimals)} percentage "
        f"points ({_ranges(findings, comparison)}), from {comparison.pairs} of "
        f"{comparison.planned} planned pairs of trainings. {_narrower(comparison)}{candidate} was ahead in {gap.wins} "
        f"of these {comparison.pairs} pairs; {outcomes}{verdict}. "
        f"{_both(findings, comparison)}{_alternatives(findings, baseline)}{_scope(findings)}"
    )


def images(findings: Findings) -> str:
    """What the dataset's images are called."""
    return "digits" if findings.about.dataset in DIGITS else "images"


def _absent(findings: Findings, comparison: Comparison) -> str:
    """How many runs have no outcome, and of which models that holds at every learning rate."""
    counts = " and ".join(str(n) for n in comparison.absent.values())
    whole = [model for model in comparison.absent if findings.selection[model].mean.learning_rate is None]
    everywhere = f", of {text.listed(whole)} at all learning rates" if whole else ""
    return f"{counts} have no outcome{everywhere}"


def _ranges(findings: Findings, comparison: Comparison) -> str:
    """Both intervals, or why one of them is not there."""
    seeds, digits = comparison.seeds.mean, comparison.digits
    sample = f"a different sample of such {images(findings)}"
    ranges = [
        f"no interval for training luck alone: {seeds.declined}"
        if seeds.low is None
        else f"{text.points_interval(seeds.low, seeds.high)} allowing for training luck",
        f"no interval for {sample}: {digits.declined}"
        if digits.low is None
        else f"{text.points_interval(digits.low, digits.high)} allowing also for {sample}",
    ]
    if digits.low is not None and digits.n < comparison.pairs:
        ranges[1] += f", from the {text.of(digits.n, comparison.pairs)} pairs whose predictions are there"
    confidence = f"{text.level(findings.about.settings.confidence)} confidence"
    if None not in (seeds.low, digits.low):
        return f"{', '.join(ranges)}; {confidence}"
    known = seeds.low is not None or digits.low is not None
    return "; ".join([*ranges, confidence] if known else ranges)


def _narrower(comparison: Comparison) -> str:
    """A word where allowing for more came out narrower, as it may with few seeds."""
    seeds, digits = comparison.seeds.mean, comparison.digits
    if None in (seeds.low, digits.low) or digits.high - digits.low >= seeds.high - seeds.low:
        return ""
    return "The second interval is the narrower by chance, with so few pairs: go by the first. "


def _may_fail(findings: Findings, baseline: str) -> str:
    """Clopper–Pearson limits of the shares that fail to learn."""
    outcomes = findings.robustness[baseline].outcomes
    shares = [outcomes[role].not_trained for role in ("candidate", "baseline")]
    if any(e.low is None for e in shares):
        return ""
    limits = [
        f"up to {text.percent(e.high, 0)}" if e.low == 0 else f"{text.percent(e.low, 0)} to {text.percent(e.high, 0)}"
        for e in shares
    ]
    return f" ({' and '.join(dict.fromkeys(limits))} may)"


def _verdict(findings: Findings, comparison: Comparison) -> str:
    gap, deviation = comparison.seeds, findings.preregistration.of("margin")
    if not comparison.independent:
        return (
            "; these pairs share initial weights or batch orders, so both intervals are too short, and no verdict is "
            "given"
        )
    if gap.verdict is None:
        return ""
    threshold = f"the preset threshold of {text.plain(100 * gap.margin)} points"
    if deviation is not None:
        threshold = (
            f"a threshold of {text.plain(100 * gap.margin)} points, not the one declared "
            f"({text.plain(100 * deviation.declared)}),"
        )
    return f"; against {threshold} the result for this test set is: {gap.verdict}{_families(findings)}"


def _size(findings: Findings, baseline: str) -> str:
    sizes = {m.name: m.n_parameters for m in findings.about.models}
    ours, theirs = sizes[findings.about.settings.candidate], sizes[baseline]
    if ours == 0:
        return f"{theirs:,} to 0"
    ratio = theirs / ours
    return "about as many" if 0.95 < ratio < 1.05 else f"{ratio:.3g} times as many"


def _families(findings: Findings) -> str:
    """The level that the verdict is held to where several baselines share it."""
    settings = findings.about.settings
    if len(settings.baselines) == 1:
        return ""
    return f" (at {text.level(settings.verdict_level)}, as there are {len(settings.baselines)} baselines)"


def _both(findings: Findings, comparison: Comparison) -> str:
    """Whether the candidate may be called more or less accurate without naming a population."""
    settings = findings.about.settings
    held = "" if len(settings.baselines) == 1 else f" at {text.level(settings.verdict_level)} too"
    if comparison.unqualified:
        better = "more" if comparison.seeds.mean.estimate > 0 else "less"
        return f"Both intervals exclude 0{held}: {settings.candidate} is the {better} accurate of the two. "
    if None in (comparison.seeds.mean.low, comparison.digits.low) or not comparison.independent:
        return ""
    return (
        f"The two intervals do not both exclude 0{held.removesuffix(' too')}: this does not show that either model is "
        "the more accurate. "
    )


def _alternatives(findings: Findings, baseline: str) -> str:
    asked = findings.robustness[baseline]
    if asked.same_sign is None or not asked.alternatives:
        return ""
    different = "1 different estimate" if asked.distinct == 1 else f"{asked.distinct} different estimates"
    count = f"{asked.same_sign} of {asked.alternatives} alternative analyses ({different})"
    return f"The sign of the gap was the same in {count} of the same data. "


def _scope(findings: Findings) -> str:
    return (
        f"This describes one training recipe in which only the learning rate was tuned, on validation "
        f"{images(findings)}, with one training set and {text.splits(findings.about.splits)}."
    )

"""The answer in words and the warnings, generated from the findings. No model is named in this file."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.grid import independent
from analysis.stats.selection import Choice

NAMED = 3
"""Unusable files that are named; the page names them all."""

CHECKS = "learning rate, number of epochs, preprocessing, implementation"
"""What to look at when a model does not reach the accuracy expected of it."""

# the answer


def sentence(findings: Findings) -> str:
    """The answer, one paragraph per baseline."""
    if not findings.comparisons:
        return f"{findings.about.name} trained one model, {findings.about.models[0].name}: there is no gap to estimate."
    return "\n\n".join(_paragraph(findings, comparison) for comparison in findings.comparisons)


def _paragraph(findings: Findings, comparison: Comparison) -> str:
    about, gap = findings.about, comparison.seeds
    candidate, baseline = about.settings.candidate, comparison.baseline
    failed = comparison.not_learned
    outcomes = f"{failed[candidate]} and {failed[baseline]} trainings did not learn"
    if gap.mean.estimate is None:
        return (
            f"{candidate} against {baseline}: no answer. In none of {comparison.planned} planned pairs of trainings "
            f"did both models learn ({outcomes}, {_absent(findings, comparison)})."
        )
    decimals = text.point_digits(gap.mean.low, gap.mean.high)
    # A dataset may be a folder of any name; a line break in that must not break the paragraph.
    dataset = " ".join(about.dataset.split())
    errors = [text.percent(e) for e in (comparison.candidate_error_rate, comparison.baseline_error_rate)]
    return (
        f"On the {about.n_test:,} test images of {dataset}, {candidate} misclassified {errors[0]} and {baseline}, with "
        f"{_size(findings, baseline)} parameters, {errors[1]}: a gap of {text.points(gap.mean.estimate, decimals)} "
        f"percentage points ({_ranges(findings, comparison)}), from {comparison.pairs} of "
        f"{comparison.planned} planned pairs of trainings. {candidate} was ahead in {_pairs(comparison)}. "
        f"{_outcomes(findings, comparison)}{_verdict(findings, comparison)}"
        f"{_both(findings, comparison)}{_alternatives(findings, baseline)}{_scope(findings)}"
    )


def _absent(findings: Findings, comparison: Comparison) -> str:
    """How many runs have no outcome, and of which models that holds at every learning rate."""
    counts = " and ".join(str(n) for n in comparison.absent.values())
    whole = [model for model in comparison.absent if findings.selection[model].mean.learning_rate is None]
    everywhere = f", of {text.listed(whole)} at all learning rates" if whole else ""
    return f"{counts} have no outcome{everywhere}"


def _ranges(findings: Findings, comparison: Comparison) -> str:
    """Both intervals, or why one of them is missing."""
    seeds, images = comparison.seeds.mean, comparison.images
    clusters = findings.about.clusters
    drawn = "taken as independent" if clusters is None else f"which come in {clusters.count:,} clusters"
    sample = f"a different sample of such images, {drawn}"
    ranges = [
        f"no interval for training luck alone: {seeds.declined}"
        if seeds.low is None
        else f"{text.points_interval(seeds.low, seeds.high)} allowing for training luck",
        f"no interval for {sample}: {images.declined}"
        if images.low is None
        else f"{text.points_interval(images.low, images.high)} allowing also for {sample}",
    ]
    if images.low is not None and images.n < comparison.pairs:
        ranges[1] += f", from the {text.of(images.n, comparison.pairs)} pairs whose predictions are there"
    confidence = f"{text.level(findings.about.settings.confidence)} confidence"
    if None not in (seeds.low, images.low):
        return f"{', '.join(ranges)}; {confidence}"
    known = seeds.low is not None or images.low is not None
    return "; ".join([*ranges, confidence] if known else ranges)


def _pairs(comparison: Comparison) -> str:
    """In how many of the pairs the candidate was ahead."""
    wins, n = comparison.seeds.effect.wins, comparison.pairs
    return ("its only pair" if wins else "none: there is one pair") if n == 1 else f"{wins} of these {n} pairs"


def _outcomes(findings: Findings, comparison: Comparison) -> str:
    """How many trainings did not learn, at the selected rates with limits of what may be, and at other rates."""
    roles = findings.robustness[comparison.baseline].outcomes
    shares = [roles[role].not_learned for role in ("candidate", "baseline")]
    models = (findings.about.settings.candidate, comparison.baseline)
    failed = [comparison.not_learned[model] for model in models]
    each = [
        f"{n or 'none'} of {e.n} of {model}"
        + (f" ({text.level(e.level)} limit {text.percent(e.high, 0)})" if e.high else "")
        for n, e, model in zip(failed, shares, models, strict=True)
    ]
    chosen = {(model, findings.selection[model].mean.learning_rate) for model in models}
    others = [c for c in findings.completeness if c.model in models and (c.model, c.learning_rate) not in chosen]
    elsewhere = sum(c.diverged + c.collapsed for c in others)
    ended = sum(c.finished + c.diverged for c in others)
    rest = f"; at other rates {elsewhere} of {ended}" if elsewhere else ""
    return f"At the selected rates {' and '.join(each)} did not learn{rest}. "


def _verdict(findings: Findings, comparison: Comparison) -> str:
    """The verdicts for these test images and for new ones, at the margin."""
    gap, deviation = comparison.seeds, findings.preregistration.of("margin")
    if not comparison.independent:
        return (
            "These pairs share initial weights or batch orders, so both intervals are too short, and no verdict is "
            "given. "
        )
    if gap.verdict.words is None:
        return ""
    threshold = f"the preset threshold of {text.plain(100 * gap.verdict.margin)} points"
    if deviation is not None:
        threshold = (
            f"a threshold of {text.plain(100 * gap.verdict.margin)} points, not the one declared "
            f"({text.plain(100 * deviation.declared)}),"
        )
    here, new = gap.verdict.words, comparison.verdict_for_new_images
    said = f"for these test images: {here}; for new images: {new or 'no verdict'}"
    if here == new:
        said = f"for these test images and for new ones: {here}"
    return f"Against {threshold} the verdict is{_families(findings)}, {said}. "


def _size(findings: Findings, baseline: str) -> str:
    sizes = {m.name: m.n_parameters for m in findings.about.models}
    ours, theirs = sizes[findings.about.settings.candidate], sizes[baseline]
    if ours == 0:
        return f"{theirs:,} to 0"
    ratio = theirs / ours
    if 0.95 < ratio < 1.05:
        return "about as many"
    return f"{ratio:.3g} times as many" if ratio > 1 else f"{text.percent(ratio, 0 if ratio > 0.02 else 1)} as many"


def _families(findings: Findings) -> str:
    """The level that the verdict is held to where several baselines share it."""
    settings = findings.about.settings
    if len(settings.baselines) == 1:
        return ""
    return f" (at {text.level(settings.verdict_level)}, as there are {len(settings.baselines)} baselines)"


def _both(findings: Findings, comparison: Comparison) -> str:
    """Whether the candidate may be called more or less accurate without naming a population."""
    if comparison.unqualified:
        better = "more" if (comparison.seeds.mean.estimate or 0) > 0 else "less"
        return f"{findings.about.settings.candidate} is the {better} accurate of the two. "
    if comparison.seeds.verdict.words is None:
        return ""
    return "This does not show that either model is the more accurate. "


def _alternatives(findings: Findings, baseline: str) -> str:
    asked = findings.robustness[baseline]
    if asked.same_sign is None or not asked.alternatives:
        return ""
    if asked.distinct == 1:
        return f"All {asked.alternatives} alternative analyses of the same data give the same gap. "
    different = f"{asked.distinct} different estimates"
    count = f"{asked.same_sign} of {asked.alternatives} alternative analyses ({different})"
    return f"The sign of the gap was the same in {count} of the same data. "


def _scope(findings: Findings) -> str:
    return (
        f"This describes one training recipe in which only the learning rate was tuned, on validation "
        f"images, with one training set and {text.splits(findings.about.splits)}."
    )


# the warnings


def warnings(findings: Findings, frames: Frames) -> Iterator[str]:
    """What a reader must know before quoting a number, one sentence each."""
    yield from (f"the analysis made is not the one declared: {d.words}" for d in findings.preregistration.deviations)
    yield from _without_outcome(frames)
    for model, choice in findings.selection.items():
        yield from _choice(frames, model, choice)
    if not independent(frames.runs):
        yield (
            "the seeds are a factorial: runs share initial weights or batch orders, so they are not independent "
            "and intervals over seeds are too short; the components of variance are what this design is for"
        )
    yield from _unexpected(findings)
    for c in findings.comparisons:
        if c.images.n < c.pairs:
            yield f"{c.baseline}: predictions are there of {text.of(c.images.n, c.pairs)} pairs that learned"


def _unexpected(findings: Findings) -> Iterator[str]:
    """One sentence for each model whose mean test accuracy lies outside what the config expects of it."""
    for model, (low, high) in findings.about.settings.expected.items():
        ours = findings.accuracy(model)
        if ours is not None and ours.estimate is not None and not low <= ours.estimate <= high:
            yield (
                f"{model} reaches {100 * ours.estimate:.2f}% on the test set, outside the {100 * low:g}% to "
                f"{100 * high:g}% expected: check {CHECKS}"
            )


def _without_outcome(frames: Frames) -> Iterator[str]:
    states = frames.runs["state"]
    failed, missing = int((states == "failed").sum()), int((states == "missing").sum())
    if failed or missing:
        of = text.of(failed + missing, len(states))
        yield f"{of} planned runs have no outcome: {failed} failed, {missing} missing"
    if aside := len(frames.set_aside):
        yield f"{aside} planned runs of another recipe or of an older model source are set aside and enter no number"
    if problems := frames.problems:
        names = ", ".join(p.path for p in problems[:NAMED]) + (", …" if len(problems) > NAMED else "")
        yield f"{len(problems)} unusable files of the ledger enter no number: {names}"


def _choice(frames: Frames, model: str, choice: Choice) -> Iterator[str]:
    chosen = choice.mean
    if chosen.learning_rate is None:
        yield f"{model} has no run with an outcome, so no learning rate could be chosen for it"
        return
    runs = frames.runs[frames.runs["model"] == model]
    planned = runs["learning_rate"].value_counts().sort_index()
    if not runs.loc[runs["learning_rate"] == chosen.learning_rate, "learned"].any():
        yield f"{model} learned at no learning rate: {chosen.learning_rate:g} stands for all of them"
    elif chosen.at_edge and len(chosen.n) > 1:
        yield f"{model} does best at {chosen.learning_rate:g}, an edge of the grid: a better rate may lie outside"
    if len(set(chosen.n)) > 1 and chosen.index is not None:
        counts = pd.Series(chosen.n, index=planned.index)
        others = ", ".join(f"{n} at {rate:g}" for rate, n in counts.drop(chosen.learning_rate).items())
        yield (
            f"{model}'s learning rate was chosen from unequal numbers of runs: "
            f"{text.of(chosen.n[chosen.index], int(planned[chosen.learning_rate]))} at {chosen.learning_rate:g}, "
            f"the one chosen, {others}"
        )

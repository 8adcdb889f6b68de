"""The answer in words and the warnings, generated from the findings. No model is named in this file."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pandas as pd

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.grid import independent
from analysis.stats.estimate import Estimate
from analysis.stats.robustness import Specification, coinciding
from analysis.stats.selection import TIE, Choice, Selection
from analysis.stats.variance import Component

NAMED = 3
"""Unusable files that are named; the page names them all."""

WIDER = 1.1
"""Times the primary interval's width from which on the one that allows for the choice of learning rates is told."""

LUCK_LEAST = "89%"
"""The least that this one was simulated to cover where it should cover 95%: analysis/published/calibration.csv."""

SKEWED = 0.01
"""p-value from which on differences are called skewed: one gap in a hundred whose differences are normal."""

CHECKS = "learning rate, number of epochs, preprocessing, implementation"
"""What to look at when a model does not reach the accuracy expected of it."""

# the answer


def sentence(findings: Findings) -> str:
    """The answer, one paragraph per baseline; those of a factorial are about the models' spread, and stand first."""
    paragraphs = [_spread(findings, model) for model in spreads(findings)]
    paragraphs += [_paragraph(findings, comparison) for comparison in findings.comparisons]
    if not findings.comparisons:
        name, model = findings.about.name, findings.about.models[0].name
        paragraphs.append(f"{name} trained one model, {model}: there is no gap to estimate.")
    return "\n\n".join(paragraphs)


def spreads(findings: Findings) -> list[str]:
    """Models of a factorial: those whose spread has components."""
    return [model for model, found in findings.variance.items() if found.components.components]


def told_from_0(component: Component) -> bool:
    """Whether the interval of a component of variance leaves out 0."""
    return (component.variance.low or 0.0) > 0


def spread(findings: Findings, model: str) -> str:
    """Which components of the spread of a model of a factorial can be told from 0, in a sentence without its stop."""
    found = findings.variance[model].components
    if found.standard_deviation is None:
        return f"where the spread of {model} comes from has no answer: {found.components[0].variance.declined}"
    known = [f"{text.percent(c.share, 0)} is of {effect(c)}" for c in found.components if told_from_0(c)]
    others = sum(not told_from_0(c) for c in found.components)
    rest = "no component" if not known else "no other component" if others else "every component"
    said = f"{rest} can be told from 0"
    return (
        f"of the estimated variance of {model}'s test accuracy (SD {text.sd(found.standard_deviation)} points) "
        f"{f'{text.listed(known)}; {said}' if known else said}"
    )


def effect(component: Component) -> str:
    """The factors of a component of variance: "init × order (including nondeterminism)"."""
    factors, _, more = component.effect.partition(", ")
    return f"{factors} ({more})" if more else factors


def _spread(findings: Findings, model: str) -> str:
    """Where the spread of one model comes from: each component that can be told from 0, and what the others may be."""
    found, basis = findings.variance[model].components, findings.variance[model].components.components[0].variance
    if found.standard_deviation is None:
        return f"{_capital(spread(findings, model))}."
    rate = findings.selection[model].mean.learning_rate
    level = text.level(findings.about.settings.confidence)
    crossed = " × ".join(f"{n} {factor}" for factor, n in found.levels.items())
    limits = [
        f"{effect(c)} {root(c.variance.estimate)} ({root(c.variance.low)} to {root(c.variance.high)})"
        for c in found.components
        if told_from_0(c)
    ]
    others = [
        f"{effect(c)} {'has no interval' if c.variance.high is None else root(c.variance.high)}"
        for c in found.components
        if not told_from_0(c)
    ]
    at = "" if rate is None else f" at a learning rate of {text.plain(rate)}"
    return (
        f"{_capital(spread(findings, model))}, at {level} confidence, from {text.of(basis.n, basis.planned)} trainings"
        f"{at} with {crossed} seeds crossed."
        + (f" SDs in points: {'; '.join(limits)}." if limits else "")
        + (f" Upper limits of the others: {'; '.join(others)}." if others else "")
    )


def root(variance: float | None) -> str:
    """The standard deviation that a variance is the square of, in percentage points."""
    return text.sd(None if variance is None else variance**0.5)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _paragraph(findings: Findings, comparison: Comparison) -> str:
    about, gap = findings.about, comparison.seeds
    candidate, baseline = about.settings.candidate, comparison.baseline
    if gap.mean.estimate is None:
        return f"{candidate} against {baseline}: no answer. {_unanswered(findings, comparison)}."
    decimals = text.point_digits(gap.mean.low, gap.mean.high)
    # A dataset may be a folder of any name; a line break in that must not break the paragraph.
    dataset = " ".join(about.dataset.split())
    errors = [text.percent(e) for e in (comparison.candidate_error_rate, comparison.baseline_error_rate)]
    return (
        f"On the {about.n_test:,} test images of {dataset}, {candidate} misclassified {errors[0]} and {baseline}, with "
        f"{_size(findings, baseline)} parameters, {errors[1]}: a gap of {text.points(gap.mean.estimate, decimals)} "
        f"percentage points ({_ranges(findings, comparison)}), from {comparison.pairs} of "
        f"{comparison.planned} planned pairs of trainings{_survivors(comparison)}. {candidate} was "
        f"{_pairs(comparison)}. "
        f"{_outcomes(findings, comparison)}{_verdict(findings, comparison)}"
        f"{_both(findings, comparison)}{_selection(findings, comparison)}{_halves(findings, baseline)}"
        f"{_alternatives(findings, baseline)}{_scope(findings)}"
    )


def _unanswered(findings: Findings, comparison: Comparison) -> str:
    """Why there is no pair: what became of the runs of both models."""
    rates = {model: findings.selection[model].mean.learning_rate for model in comparison.not_learned}
    if not any(comparison.not_learned.values()):
        never = [model for model, rate in rates.items() if rate is None]
        if not never:
            return "No seed has a run of both models at their selected learning rates"
        return f"{text.listed(never)} {'has' if len(never) == 1 else 'have'} no run with an outcome"
    counts = "; ".join(
        f"{model} at {'all learning rates' if rate is None else text.plain(rate)}: {comparison.not_learned[model]} "
        f"did not learn, {comparison.absent[model]} have no outcome"
        for model, rate in rates.items()
    )
    return f"In none of {comparison.planned} planned pairs of trainings did both models learn ({counts})"


def _ranges(findings: Findings, comparison: Comparison) -> str:
    """Both intervals, or why one of them is missing."""
    seeds, images = comparison.seeds.mean, comparison.images
    clusters = findings.about.clusters
    drawn = "taken as independent" if clusters is None else f"which come in {text.clusters(clusters.count)}"
    sample = f"a different sample of such images, {drawn}"
    ranges = [
        f"no interval for training luck alone: {seeds.declined}"
        if seeds.low is None
        else f"{text.points_interval(seeds.low, seeds.high)} allowing for training luck at these learning rates",
        f"no interval for {sample}: {images.declined}"
        if images.low is None
        else f"{'the same' if images.interval == seeds.interval else text.points_interval(images.low, images.high)} "
        f"allowing also for {sample}",
    ]
    if images.low is not None and images.n < comparison.pairs:
        ranges[1] += f", from the {text.of(images.n, comparison.pairs)} pairs whose predictions are there"
    confidence = f"{text.level(findings.about.settings.confidence)} confidence"
    if None not in (seeds.low, images.low):
        return f"{', '.join(ranges)}; {confidence}"
    known = seeds.low is not None or images.low is not None
    return "; ".join([*ranges, confidence] if known else ranges)


def _survivors(comparison: Comparison) -> str:
    """That the gap is one over pairs that learned, where not all did, and what it is with the other runs scored."""
    at_chance = comparison.scored_at_chance
    if at_chance is None:
        return ""
    return f", those in which both models learned; {_at_chance(comparison, at_chance)}"


def _at_chance(comparison: Comparison, at_chance: Estimate) -> str:
    failed = sum(comparison.not_learned.values())
    others = "the run that did not learn" if failed == 1 else f"the {failed} runs that did not learn"
    return (
        f"with {others} scored at chance the gap is {text.points(at_chance.estimate)} points, from "
        f"{text.of(at_chance.n, at_chance.planned)} pairs"
    )


def _pairs(comparison: Comparison) -> str:
    """In how many of the pairs the candidate was ahead, and the two level."""
    found, n = comparison.seeds.effect, comparison.pairs
    if n == 1:
        how = "ahead" if found.wins else "behind" if found.losses else "level"
        return f"{how} in the only pair"
    level = f", level in {found.ties}" if found.ties else ""
    return f"ahead in {found.wins} of these {n} pairs{level}"


def _outcomes(findings: Findings, comparison: Comparison) -> str:
    """How many trainings did not learn, at the selected rates with limits of what may be, and at other rates."""
    roles = findings.robustness[comparison.baseline].outcomes
    shares = [roles[role].not_learned for role in ("candidate", "baseline")]
    models = (findings.about.settings.candidate, comparison.baseline)
    failed = [comparison.not_learned[model] for model in models]
    limits = [
        f" ({text.level(e.level)} limit {text.percent(e.high, 0 if e.high >= 0.01 else 2)})" if e.high else ""
        for e in shares
    ]
    if any(failed) or shares[0].n != shares[1].n:
        each = [
            f"{n or 'none'} of {e.n} {'training' if e.n == 1 else 'trainings'} of {model} failed to learn{limit}"
            for n, e, model, limit in zip(failed, shares, models, limits, strict=True)
        ]
    elif shares[0].n == 1:
        each = [f"neither model's only training failed to learn{limits[0]}"]
    else:
        each = [f"none of {shares[0].n} trainings of either model failed to learn{limits[0]}"]
    chosen = {(model, findings.selection[model].mean.learning_rate) for model in models}
    others = [c for c in findings.completeness if c.model in models and (c.model, c.learning_rate) not in chosen]
    elsewhere = sum(c.diverged + c.collapsed for c in others)
    ended = sum(c.finished + c.diverged for c in others)
    rest = f"; at other rates {elsewhere} of {ended} did" if elsewhere else ""
    return f"At the selected rates {' and '.join(each)}{rest}. {_absent(comparison, models)}"


def _absent(comparison: Comparison, models: tuple[str, str]) -> str:
    """How many trainings have no outcome, and what the gap would be if they had fallen against the candidate."""
    absent = [f"{comparison.absent[model]} of {model}" for model in models if comparison.absent[model]]
    worst = comparison.sensitivity["worst_case"].estimate
    if not absent:
        return ""
    if_ = (
        "" if worst is None else f"; had they fallen against {models[0]}, the gap would be {text.points(worst)} points"
    )
    return f"Without an outcome, failed or missing: {text.listed(absent)}{if_}. "


def _verdict(findings: Findings, comparison: Comparison) -> str:
    """The verdicts for these test images and for new ones, at the margin."""
    gap, deviation = comparison.seeds, findings.preregistration.of("margin")
    if not comparison.independent:
        return (
            "These pairs share initial weights or batch orders, so both intervals are too short, and no verdict is "
            "given. "
        )
    if gap.verdict.words is None:
        return f"There is no verdict: {gap.verdict.interval.declined}. "
    threshold = f"the preset threshold of {text.plain(100 * gap.verdict.margin)} points"
    if deviation is not None:
        threshold = (
            f"a threshold of {text.plain(100 * gap.verdict.margin)} points, not the one declared "
            f"({text.plain(100 * deviation.declared)}),"
        )
    return f"Against {threshold} the verdict is{_families(findings)}, {comparison.verdicts}. "


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


def _selection(findings: Findings, comparison: Comparison) -> str:
    """The interval over seeds that allows for the choice of the learning rates, where that makes it wider."""
    usual, wider = comparison.seeds.mean.interval, comparison.sensitivity["selection_luck"].interval
    if usual is None or wider is None or wider[1] - wider[0] < WIDER * (usual[1] - usual[0]):
        return ""
    return (
        f"Allowing also for the luck of choosing the learning rates, the interval over seeds is "
        f"{text.points_interval(*wider)} (at 95% it covers in simulation as little as {LUCK_LEAST}). "
    )


def _halves(findings: Findings, baseline: str) -> str:
    """That the gap is not the same in both halves of the test file, where their intervals do not meet."""
    crossed = findings.images[baseline].crossed
    halves = () if crossed is None else crossed.halves
    known = [(e, e.interval) for e in halves if e.interval is not None]
    if len(known) < 2 or max(low for _, (low, _) in known) <= min(high for _, (_, high) in known):
        return ""
    first, second = (f"{text.points(e.estimate)} ({text.points_interval(*limits)})" for e, limits in known)
    return (
        f"The gap is not the same throughout the test file: {first} in its first half, {second} in its second, at "
        f"{text.level(known[0][0].level)} for new images. "
    )


def _alternatives(findings: Findings, baseline: str) -> str:
    """What other analyses of the same runs give: how many other gaps, in which range, and which turn its sign."""
    asked = findings.robustness[baseline]
    main = next((s.gap.estimate for s in asked.specifications if s.primary), None)
    if main is None or not asked.alternatives:
        return ""
    if not asked.distinct:
        return f"All {asked.alternatives} alternative analyses of the same data give the same gap. "
    groups = coinciding(asked.specifications)
    values = [c.first.gap.estimate or 0.0 for c in groups]
    others = (
        f"one other gap, {text.points(values[0])} points"
        if asked.distinct == 1
        else f"{asked.distinct} other gaps, all between {text.points(values[0])} and {text.points(values[-1])} points"
    )
    said = f"{asked.alternatives} alternative analyses of the same data give {others}"
    if asked.same_sign is None:
        return f"{said}. "
    if asked.same_sign == asked.distinct:
        return f"{said}, with the same sign. "
    turned = [c for c, value in zip(groups, values, strict=True) if value * main <= 0]
    named = "; ".join(_way(c.first) for c in turned[:NAMED]) + ("; …" if len(turned) > NAMED else "")
    if asked.distinct == 1:
        return f"{said}, without its sign: {named}. "
    rest = "other" if len(turned) == 1 else "others"
    return f"{said}; {asked.same_sign} of the {asked.distinct} have its sign. The {rest}: {named}. "


def _way(spec: Specification) -> str:
    """An alternative analysis by what it does otherwise than the primary one."""
    usual = dict(selection="mean", outcomes="both learned", pairing="paired", transform="raw", population="seeds")
    others = [getattr(spec, way) for way, value in usual.items() if getattr(spec, way) != value]
    return ", ".join(others)


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
    yield from _survived(findings)
    yield from _skewed(findings)
    for model, choice in findings.selection.items():
        yield from _choice(findings, frames, model, choice)
    yield from _unlike(findings)
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


def _survived(findings: Findings) -> Iterator[str]:
    """One sentence for each gap that leaves out runs which did not learn."""
    for c in findings.comparisons:
        if c.scored_at_chance is not None and c.seeds.mean.estimate is not None:
            yield (
                f"{c.baseline}: the gap of {text.points(c.seeds.mean.estimate)} points is over the pairs in which both "
                f"models learned; {_at_chance(c, c.scored_at_chance)}"
            )


def _skewed(findings: Findings) -> Iterator[str]:
    """One sentence for each gap whose differences lie too unevenly for what its interval and test suppose."""
    for c in findings.comparisons:
        if c.seeds.skewness.p_value is None or c.seeds.skewness.p_value > SKEWED:
            continue
        differences = c.seeds.differences
        yield (
            f"{c.baseline}: the paired differences are skewed, of mean {text.points(c.seeds.mean.estimate)}, median "
            f"{text.points(median(differences))} and range {text.points(differences[0])} to "
            f"{text.points(differences[-1])}; the t interval over seeds and the sign-flip test suppose that they are "
            "not, and may say too much"
        )


def _unlike(findings: Findings) -> Iterator[str]:
    """Where the models that are compared were not tuned alike: over other rates, or from other numbers of seeds."""
    settings = findings.about.settings
    models = [settings.candidate, *settings.baselines]
    grids = {m: [c.learning_rate for c in findings.completeness if c.model == m] for m in models}
    if len({tuple(sorted(rates)) for rates in grids.values()}) > 1:
        tried = "; ".join(f"{model} {', '.join(map(text.plain, rates))}" for model, rates in grids.items())
        yield f"the models were not tuned over the same learning rates: {tried}"
    choices = {model: findings.selection[model].mean for model in models}
    seeds = {model: choice.n[choice.index] for model, choice in choices.items() if choice.index is not None}
    if len(set(seeds.values())) > 1:
        counted = text.listed(f"{model} {n}" for model, n in seeds.items())
        yield f"the selected learning rates rest on unequal numbers of seeds: {counted}"


def _lost(findings: Findings, model: str, chosen: Selection) -> Iterator[str]:
    """Why a rate lost whose runs that learned did better than the rate chosen: those that did not learn."""
    counts = {c.learning_rate: c for c in findings.completeness if c.model == model}
    own = [c for c in findings.configurations if c.model == model]
    learned = {c.learning_rate: c.val_accuracy.estimate or 0.0 for c in own}
    for rate, score in zip(sorted(learned), chosen.scores, strict=True):
        failed, ended = counts[rate].collapsed + counts[rate].diverged, counts[rate].finished + counts[rate].diverged
        if failed and chosen.learning_rate is not None and learned[rate] > learned[chosen.learning_rate]:
            yield (
                f"{model}: {text.plain(rate)} lost to {text.plain(chosen.learning_rate)} because "
                f"{text.of(failed, ended)} runs did not learn, which lowered its mean validation accuracy from "
                f"{text.percent(learned[rate])} to {text.percent(score)}; the runs that learned at "
                f"{text.plain(chosen.learning_rate)} have {text.percent(learned[chosen.learning_rate])}"
            )


def _choice(findings: Findings, frames: Frames, model: str, choice: Choice) -> Iterator[str]:
    chosen = choice.mean
    runs = frames.runs[frames.runs["model"] == model]
    if chosen.learning_rate is None:
        ended = runs["state"].isin(["finished", "diverged"]).any()
        why = "learned at no learning rate" if ended else "has no run with an outcome"
        yield f"{model} {why}, so no learning rate could be chosen for it"
        return
    planned = runs["learning_rate"].value_counts().sort_index()
    best = chosen.scores[chosen.index or 0] or 0.0
    if lost := list(_lost(findings, model, chosen)):
        yield from lost
    elif ties := sum(score is not None and score >= best - TIE for score in chosen.scores) - 1:
        yield (
            f"{model}: {ties + 1} learning rates have the same mean validation accuracy; the smallest, "
            f"{chosen.learning_rate:g}, is used"
        )
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

"""How far the results spread, why, and what more seeds would bring."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas, style
from analysis.report.figures.canvas import Caption, Scene, legend, name_rows, spread
from analysis.report.figures.style import COLUMN, MARGIN, MUTED
from analysis.report.phrases import each, images, level, new_images, pairs
from analysis.stats.curves import normal_line
from analysis.stats.sample_size import sign_test_power, t_test_power
from analysis.stats.variance import Component


def planning_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of what more seeds would bring."""
    margin = text.plain(100 * findings.about.settings.margin)
    return Caption(
        f"Expected half-width of the {level(findings)} interval of the gap if what was seen holds: over seeds (this "
        f"test set), and over seeds and test images ({new_images(findings)}), which more seeds never push below its "
        "floor. Steep up to about five seeds, where t has few degrees of freedom. Marks: this study, over seeds. Grey "
        f"line: the margin of {margin} points. Planned pairs: {pairs(findings)}.",
        None if any(p.precision for p in findings.planning.values()) else "The spread over seeds is unknown.",
    )


@canvas.figure(section="planning", title="Precision against the number of seeds", caption=planning_caption)
def planning(scene: Scene) -> Figure:
    """Half-width of both intervals against the number of seeds, with the floor that the test images set."""
    figure = Figure(figsize=(COLUMN, 2.5))
    axes = figure.subplots()
    planned = {b: p for b, p in scene.findings.planning.items() if p.precision}
    for baseline, plan in planned.items():
        look = scene.looks[baseline]
        seeds = [p.seeds for p in plan.precision]
        axes.plot(seeds, [100 * p.over_seeds for p in plan.precision], color=look.colour, lw=2.2, alpha=0.45)
        both = [(p.seeds, 100 * p.over_images) for p in plan.precision if p.over_images is not None]
        axes.plot(*np.array(both).reshape(-1, 2).T, color=look.colour, lw=1)
        if plan.floor is not None:
            axes.axhline(100 * plan.floor, color=look.colour, lw=0.8, ls=(0, (1, 1.5)))
        now = next(c.seeds.mean for c in scene.findings.comparisons if c.baseline == baseline)
        if now.interval:
            half = 50 * (now.interval[1] - now.interval[0])
            axes.plot(now.n, half, look.marker, color=look.colour, mec="white", mew=0.4, ms=4.5)
    axes.axhline(100 * scene.findings.about.settings.margin, color=MUTED, lw=0.7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: text.plain(tick)))
    axes.set_xlabel("Pairs of runs (seeds)")
    style.log_axis(axes, f"Half-width at {scene.level}\n(percentage points)")
    axes.grid(axis="y")
    keys = [
        Line2D([], [], color=MUTED, lw=2.2, alpha=0.6, label="seeds"),
        Line2D([], [], color=MUTED, lw=1, label="seeds and test images"),
        Line2D([], [], color=MUTED, lw=0.8, ls=(0, (1, 1.5)), label="floor"),
        Line2D([], [], color=MUTED, lw=0.7, label="margin"),
    ]
    axes.legend(handles=keys, loc="upper right", ncols=2, handlelength=1.4, columnspacing=0.9)
    # Dashes tell the intervals from the floor here, not the models.
    legend(figure, [replace(scene.looks[model], dash="-") for model in planned])
    return figure


def power_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the power to see a gap as small as the margin."""
    margin = text.plain(100 * findings.about.settings.margin)
    error = text.level(1 - findings.about.settings.verdict_level)
    return Caption(
        f"Probability that a paired t test at {error} finds a gap, were it as small as the margin of {margin} points, "
        "if the differences spread as they did here; over seeds (this test set). Marks: this study. Grey: the exact "
        "sign test of a model that is ahead in 75% of pairs, into which no data enter; its steps are those of counts. "
        f"Dotted: the usual aims of 80% and 90%. Planned pairs: {pairs(findings)}.",
        None if _spreads(findings) else "The spread over seeds is unknown.",
    )


@canvas.figure(section="planning", title="Power to find a gap as small as the margin", caption=power_caption)
def power(scene: Scene) -> Figure:
    """Power against the number of seeds, a line for each baseline and one for the sign test."""
    figure = Figure(figsize=(COLUMN, 2.2))
    axes = figure.subplots()
    settings = scene.findings.about.settings
    alpha = 1 - settings.verdict_level
    seeds = np.arange(2, 1001)
    for share in (80, 90):
        axes.axhline(share, color=MUTED, lw=0.5, ls=(0, (1, 2)))
    axes.plot(seeds, 100 * sign_test_power(seeds, 0.75, alpha), color=MUTED, lw=0.7, label="sign test, 75% ahead")
    for baseline, (sd, n) in _spreads(scene.findings).items():
        look = scene.looks[baseline]
        axes.plot(seeds, 100 * t_test_power(seeds, settings.margin, sd, alpha), color=look.colour, ls=look.dash)
        # Hollow, as the marks of two baselines may lie upon each other.
        hollow: dict[str, Any] = dict(ms=5, mfc="none", mec=look.colour, mew=1, zorder=4)
        axes.plot(n, 100 * t_test_power(n, settings.margin, sd, alpha), look.marker, **hollow)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: text.plain(tick)))
    axes.set_xlabel("Pairs of runs (seeds)")
    axes.set_ylim(0, 103)
    axes.set_ylabel("Power (%)")
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    legend(figure, (scene.looks[baseline] for baseline in _spreads(scene.findings)))
    return figure


def _spreads(findings: Findings) -> dict[str, tuple[float, int]]:
    """Baseline → SD of its paired differences, fractions of accuracy, and how many there are; where they spread."""
    values = {c.baseline: np.array(c.seeds.differences) for c in findings.comparisons}
    return {b: (float(d.std(ddof=1)), len(d)) for b, d in values.items() if len(d) > 1 and np.ptp(d) > 0}


def variance_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the components of variance."""
    drawn = {
        model: [c.variance for c in v.components.components if c.variance.estimate is not None]
        for model, v in findings.variance.items()
    }
    n = each((model, text.rests_on(known[0])) for model, known in drawn.items() if known)
    return Caption(
        "Components of variance of test accuracy at the selected rate, as standard deviations, with "
        f"{level(findings)} bootstrap intervals; negative estimates stand at 0. The highest interaction includes "
        f"nondeterminism. Planned: {n}.",
        None if n else "The seeds of this study are no complete factorial.",
    )


@canvas.figure(section="robustness", title="Where the spread comes from", caption=variance_caption)
def variance(scene: Scene) -> Figure:
    """Components of variance of every model's accuracy, as standard deviations."""
    drawn = {m: v.components for m, v in scene.findings.variance.items() if _known(v.components.components)}
    effects = list(dict.fromkeys(c.effect for v in drawn.values() for c in v.components))
    figure = Figure(figsize=(COLUMN, 0.6 + 0.24 * len(effects)))
    axes = figure.subplots()
    for shift, (model, found) in zip(spread(len(drawn), 0.22), drawn.items(), strict=True):
        look = scene.looks[model]
        for c in _known(found.components):
            y = effects.index(c.effect) + shift
            if c.variance.interval:
                axes.plot(100 * np.sqrt(c.variance.interval), [y, y], color=look.colour, lw=0.9)
            axes.plot(100 * np.sqrt(c.variance.estimate or 0), y, look.marker, color=look.colour, clip_on=False)
    name_rows(axes, [effect.replace(", ", ",\n") for effect in effects])
    axes.tick_params(axis="y", pad=4)  # clear of a mark at 0
    axes.set_xlim(left=0)
    axes.set_xlabel("SD (percentage points)")
    axes.grid(axis="x")
    legend(figure, (scene.looks[model] for model in drawn))
    return figure


def against_itself_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the A/A tests."""
    error = text.level(1 - findings.about.settings.confidence)
    drawn = {model: v.against_itself.rejected for model, v in findings.variance.items()}
    n = each((model, f"{text.rests_on(e)}, {text.percent(e.estimate)}") for model, e in drawn.items() if e.n)
    return Caption(
        "A/A: p-values of paired t tests of a model against itself under two init seeds, over the same batch orders: "
        "the share of tests at or below each p-value. Dotted: expected where there is no difference; above it, initial "
        "weights may make one. The tests share runs, so no line has an interval. Planned tests, and the share below "
        f"{error}: {n}.",
        None if n else "The seeds of this study are no complete factorial with several init and order seeds.",
    )


@canvas.figure(section="robustness", title="A model against itself", caption=against_itself_caption)
def against_itself(scene: Scene) -> Figure:
    """Distribution of the p-values of all A/A tests of every model, against the uniform one."""
    drawn = {m: v.against_itself for m, v in scene.findings.variance.items() if v.against_itself.rejected.n}
    figure = Figure(figsize=(COLUMN, 2.2))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 100], color=MUTED, lw=0.7, ls=(0, (1, 1.5)))
    axes.axvline(1 - scene.findings.about.settings.confidence, color=MUTED, lw=0.5)
    for model, found in drawn.items():
        look = scene.looks[model]
        p = np.sort([p for p in found.paired_t if p is not None])
        axes.step([0, *p, 1], [0, *(100 * np.arange(1, p.size + 1) / p.size), 100], where="post", color=look.colour)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 100)
    axes.set_xlabel("p-value")
    axes.set_ylabel("Tests at or below (%)")
    axes.grid()
    legend(figure, [replace(scene.looks[model], dash="-") for model in drawn])
    return figure


def components_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the spread over seeds and of the shares of the gap's uncertainty."""
    spreads = {model: v.on_test_set for model, v in findings.seed_spread.items() if v.on_test_set.estimate is not None}
    clusters = findings.about.clusters
    drawn = "images taken as independent" if clusters is None else f"images in {images(clusters.count)}"
    below = (
        " Below: the squared standard error of the gap over seeds and test images, at this study's number of seeds, in "
        "the share that more seeds remove and the share of the test images, which stays. "
        f"Planned pairs: {pairs(findings)}."
    )
    return Caption(
        f"{'Above: standard' if _shares(findings) else 'Standard'} deviation over seeds of test accuracy at the "
        f"selected rate, with {level(findings)} intervals: filled, on these test images (χ²); hollow, on all images of "
        f"the kind (Jordan 2023, bootstrap; {drawn}), 0 where its variance came out negative. "
        f"Planned runs: {each((model, text.rests_on(e)) for model, e in spreads.items())}."
        + (below if _shares(findings) else ""),
        None if spreads else "The spread over seeds is unknown.",
    )


@canvas.figure(section="robustness", title="Where the uncertainty comes from", caption=components_caption)
def components(scene: Scene) -> Figure:
    """Every model's SD over seeds, and how much of the gap's uncertainty is the seeds' and the images'."""
    spreads = {m: v for m, v in scene.findings.seed_spread.items() if v.on_test_set.estimate is not None}
    shares = _shares(scene.findings)
    figure = Figure(figsize=(COLUMN, 0.85 + 0.26 * len(spreads) + (0.6 + 0.22 * len(shares) if shares else 0)))
    heights = [0.6 + 0.26 * len(spreads), *([0.6 + 0.22 * len(shares)] if shares else [])]
    upper, *lower = figure.subplots(len(heights), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for row, (model, found) in enumerate(spreads.items()):
        look = scene.looks[model]
        for e, shift, face in ((found.on_test_set, -0.16, look.colour), (found.distribution_wise, 0.16, "white")):
            if e.estimate is None:
                continue
            if e.interval:
                upper.plot(100 * np.array(e.interval), [row + shift] * 2, color=look.colour, lw=0.9)
            upper.plot(100 * e.estimate, row + shift, look.marker, mfc=face, mec=look.colour, mew=0.8, clip_on=False)
    name_rows(upper, [scene.looks[model].label for model in spreads])
    upper.tick_params(axis="y", pad=4)
    upper.set_xlim(left=0)
    upper.set_xlabel("SD over seeds (percentage points)")
    upper.grid(axis="x")
    for axes in lower:
        for row, (baseline, share) in enumerate(shares.items()):
            axes.barh(row, 100 * share, 0.6, color=scene.looks[baseline].colour)
            axes.barh(row, 100 * (1 - share), 0.6, left=100 * share, color=MARGIN)
        name_rows(axes, [scene.looks[baseline].label for baseline in shares])
        axes.set_xlim(0, 100)
        axes.set_xlabel("Share of squared standard error (%)")
    marks = [("on these images", MUTED), ("on all such images", "white")]
    keys: list[Artist] = [
        Line2D([], [], ls="", marker="o", mfc=face, mec=MUTED, mew=0.8, label=label) for label, face in marks
    ]
    keys += [Patch(color=MUTED, label="test images (in colour)"), Patch(color=MARGIN, label="seeds")] if shares else []
    figure.legend(handles=keys, loc="outside upper center", ncols=2)
    return figure


def _shares(findings: Findings) -> dict[str, float]:
    """Baseline → share of the gap's squared standard error that more seeds cannot remove."""
    found = ((baseline, of.crossed.image_share if of.crossed else None) for baseline, of in findings.images.items())
    return {baseline: share for baseline, share in found if share is not None}


def normality_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the QQ plot."""
    enough = any(len(c.seeds.quantiles) > 2 for c in findings.comparisons)
    return Caption(
        "Paired differences in order, against the quantiles that a normal sample would have. Lines: a normal "
        "distribution of the same mean and SD; points near them speak for the t interval. Descriptive, for no test of "
        f"normality gates the analysis. Planned pairs: {pairs(findings)}.",
        None if enough else "Fewer than three pairs have learned.",
    )


@canvas.figure(section="appendix", title="Differences against a normal distribution", caption=normality_caption)
def normality(scene: Scene) -> Figure:
    """QQ plot of the pairs' differences against a normal distribution of their mean and SD."""
    drawn = [c for c in scene.findings.comparisons if len(c.seeds.quantiles) > 2]
    figure = Figure(figsize=(COLUMN, 2.3))
    axes = figure.subplots()
    for comparison in drawn:
        look = scene.look(comparison)
        x, y = np.array(comparison.seeds.quantiles).T
        axes.plot(x, 100 * y, ls="", marker=look.marker, color=look.colour, ms=2.8)
        axes.plot(x, 100 * normal_line(comparison.seeds.quantiles), color=look.colour, lw=0.6, ls="-", zorder=1)
    axes.set_xlabel("Standard normal quantile")
    axes.set_ylabel(scene.gap)
    axes.grid()
    legend(figure, map(scene.look, drawn))
    return figure


def _known(components: Iterable[Component]) -> list[Component]:
    return [c for c in components if c.variance.estimate is not None]

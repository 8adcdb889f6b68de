"""The gap: at the selected rates, at equal rates, by class, and by every way to analyse it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas, style
from analysis.report.figures.canvas import Caption, Scene, legend, name_rows, spread, stacked
from analysis.report.figures.style import COLUMN, INK, MARGIN, MUTED, PAGE
from analysis.report.phrases import each, level, new_images, over_seeds, pairs
from analysis.stats.estimate import Estimate
from analysis.stats.robustness import FEWER, WAYS, Coinciding, Robustness, coinciding

SLOPES = 6
"""Baselines whose pairs of accuracies fit side by side."""

CURVES = 3
"""Baselines whose specification curves fit side by side; the table holds all."""


def curve_baselines(findings: Findings) -> list[str]:
    """The baselines whose specification curves are drawn."""
    return [baseline for baseline, asked in findings.robustness.items() if asked.specifications][:CURVES]


def gap_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the primary comparison."""
    settings = findings.about.settings
    not_learned = each((c.baseline, n) for c in findings.comparisons if (n := sum(c.not_learned.values())))
    scored = ((c.baseline, c.scored_at_chance) for c in findings.comparisons)
    at_chance = each((baseline, text.points(e.estimate)) for baseline, e in scored if e is not None)
    verdicts = "; ".join(f"{c.baseline}: {c.verdicts}" for c in findings.comparisons if c.verdicts)
    intervals = (
        f"Thick bars: mean and {level(findings)} t interval over seeds (this test set). Thin bars: {level(findings)} "
        f"interval over seeds and test images ({new_images(findings)}). "
        if over_seeds(findings)
        else ""
    )
    above = "Above: test accuracies of every pair, each joined by a line; black: their means. Below: t"
    return Caption(
        f"{above if _has_slopes(findings) else 'T'}est accuracy of {settings.candidate} minus that of the baseline, "
        f"each at its selected learning rate. Numbers beside: the mean{' and both intervals' if intervals else ''}. "
        "Each point is one pair of trainings that share their seed. "
        f"{intervals or 'Black: the mean; one pair has no interval. '}"
        f"Grey: the margin of ±{text.plain(100 * settings.margin)} points. Planned pairs in "
        f"which both models learned: {pairs(findings)}."
        + (f" Runs at these rates that did not learn and are not drawn: {not_learned}." if not_learned else "")
        + (f" With them scored at chance the gap is {at_chance} points." if at_chance else "")
        + (f" Verdict at {text.level(settings.verdict_level)}, {verdicts}." if verdicts else ""),
        _no_pairs(findings),
    )


@canvas.figure(section="gap", title="Gap of {candidate} to each baseline", caption=gap_caption)
def gap(scene: Scene) -> Figure:
    """Above: both accuracies of every pair. Below: its difference, both intervals and the margin, numbers beside."""
    comparisons = scene.findings.comparisons
    slopes = _has_slopes(scene.findings)
    figure = Figure(figsize=(COLUMN, 0.85 + 0.75 * len(comparisons) + 1.35 * slopes))
    heights = dict(height_ratios=[1.2, 0.4 + 0.75 * len(comparisons)])
    panels = figure.subplots(2, 1, gridspec_kw=heights) if slopes else [figure.subplots()]
    if slopes:
        _slopes(panels[0], scene)
    axes = panels[-1]
    margin = 100 * scene.findings.about.settings.margin
    axes.axvspan(-margin, margin, color=MARGIN, lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.7)
    for row, comparison in enumerate(comparisons):
        look = scene.look(comparison)
        pairs = 100 * np.array([value for _, value in comparison.seeds.quantiles])
        (dots,) = axes.plot(pairs, row - 0.16 - stacked(pairs), "o", ms=2.5, mfc=look.colour, mec="white", mew=0.2)
        style.tell(dots, (f"one pair: {text.signed(pair, 3)} points" for pair in pairs))
        _interval(axes, comparison.seeds.mean, row + 0.08, look.colour, thick=True)
        _interval(axes, comparison.images, row + 0.28, look.colour, thick=False)
        beside: dict[str, Any] = dict(transform=axes.get_yaxis_transform(), va="center", fontsize=6)
        mean, new = comparison.seeds.mean, comparison.images
        axes.text(1.03, row - 0.14, text.points(mean.estimate, text.point_digits(mean.low, mean.high)), **beside)
        for e, y in ((mean, row + 0.08), (new, row + 0.28)):
            if e.low is not None:
                axes.text(1.03, y, text.points_interval(e.low, e.high), **beside)
    name_rows(axes, [f"{scene.candidate}\n− {scene.look(c).label}" for c in comparisons])
    keys: list[Artist] = [
        Line2D([], [], ls="", marker="o", ms=2.8, color=MUTED, label="one pair of trainings"),
        Patch(color=MARGIN, label="within the margin"),
    ]
    if over_seeds(scene.findings):
        thick: dict[str, Any] = dict(lw=2.6, color=MUTED, solid_capstyle="butt")
        keys.insert(1, Line2D([], [], **thick, label=f"{scene.level}: seeds (this test set)"))
        keys.append(Line2D([], [], lw=1.1, color=MUTED, label=f"{scene.level}: seeds and new images"))
    figure.legend(handles=keys, loc="outside upper center", ncols=2, handlelength=1.4, columnspacing=1)
    axes.set_xlabel("Difference in test accuracy (percentage points)")
    return figure


def _has_slopes(findings: Findings) -> bool:
    """Whether the accuracies of every pair are drawn: where there are any, and room for them."""
    return len(findings.comparisons) <= SLOPES and any(c.pairs for c in findings.comparisons)


def _slopes(axes: Axes, scene: Scene) -> None:
    """The accuracies of every pair, joined: the candidate's left, the baseline's right."""
    runs = scene.frames.runs[scene.frames.runs["learned"]]
    candidate = scene.findings.about.settings.candidate
    places, names = [], []
    for at, c in enumerate(scene.findings.comparisons):
        own, other = (
            runs[(runs["model"] == model) & (runs["learning_rate"] == rate)].set_index("seed")["final_test_accuracy"]
            for model, rate in ((candidate, c.candidate_rate), (c.baseline, c.baseline_rate))
        )
        joined = 100 * own.to_frame("own").join(other.rename("other"), how="inner")
        x = np.array([2.6 * at, 2.6 * at + 1])
        look, first = scene.look(c), scene.looks[candidate]
        axes.plot(x, joined.T.to_numpy(), color=look.colour, lw=0.4, alpha=0.5)
        for place, column, mark in ((x[0], "own", first), (x[1], "other", look)):
            small: dict[str, Any] = dict(ms=2.4, color=mark.colour, mec="none", alpha=0.7)
            (points,) = axes.plot([place] * len(joined), joined[column], mark.marker, **small)
            accuracies = zip(joined.index, joined[column], strict=True)
            style.tell(points, (f"{mark.label}, seed {seed}: {value:.2f}%" for seed, value in accuracies))
        axes.plot(x, joined.mean(), color=INK, lw=1.2, marker="_", ms=8, mew=1.2)
        places += list(x)
        names += [first.label, look.label]
    slanted: dict[str, Any] = dict(rotation=20, ha="right") if max(map(len, names)) * len(names) > 34 else {}
    axes.set_xticks(places, names, fontsize=6, **slanted)
    axes.set_xlim(-0.7, places[-1] + 0.7)
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_ylabel("Test accuracy (%)")
    axes.grid(axis="y")


def sweep_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the gap at equal learning rates."""
    drawn = [(at, b) for b, s in findings.sweep.items() for at in s.rates if at.gap.estimate is not None]
    pairs_of = {(b, at.learning_rate): text.of(at.gap.n, at.gap.planned) for at, b in drawn}
    counts = each((f"{b} at {text.plain(rate)}", n) for (b, rate), n in pairs_of.items())
    if len(set(pairs_of.values())) == 1:
        counts = f"{next(iter(pairs_of.values()))} for each {'interval' if over_seeds(findings) else 'rate'}"
    without = any(at.gap.estimate is None for s in findings.sweep.values() for at in s.rates)
    said = [
        "Mean paired difference where both models use the same learning rate, over seeds (this test set).",
        f"Thick: {level(findings)} t interval for that rate alone. Thin, with caps: simultaneous {level(findings)} "
        "band over all rates drawn."
        if over_seeds(findings)
        else "",
        "Crosses above the frame: no inference, as half or more of a model's runs did not learn." if without else "",
        "Baselines are set slightly apart." if len(findings.sweep) > 1 else "",
        f"Planned pairs: {counts}.",
    ]
    missing = None if drawn else "At no learning rate did both models learn."
    return Caption(" ".join(filter(None, said)), missing)


@canvas.figure(section="rates", title="Gap at equal learning rates", caption=sweep_caption)
def sweep(scene: Scene) -> Figure:
    """The gap at each learning rate: interval for that rate alone, and the band that holds for all of them."""
    figure = Figure(figsize=(COLUMN, 2.45))
    axes = figure.subplots()
    swept = {b: s.rates for b, s in scene.findings.sweep.items()}
    apart = dict(zip(swept, spread(len(swept), min(0.05, 0.2 * scene.room)), strict=True))
    alone: dict[str, Any] = dict(lw=5, alpha=0.35, solid_capstyle="butt")
    band: dict[str, Any] = dict(lw=0.8, marker="_", ms=4)
    axes.axhline(0, color=INK, lw=0.6)
    for baseline, rates in swept.items():
        look = scene.looks[baseline]
        for at in rates:
            x = at.learning_rate * 10 ** apart[baseline]
            for e, line in ((at.gap, alone), (at.band, band)):
                if e.interval:
                    (bar,) = axes.plot([x, x], [100 * limit for limit in e.interval], color=look.colour, **line)
                    at_rate = f"{look.label} at {text.plain(at.learning_rate)}: {text.points(at.gap.estimate)}"
                    style.tell(bar, [f"{at_rate} ({text.points_interval(e.low, e.high)}) points"])
            if at.gap.estimate is None:
                axes.plot(x, 1.02, "x", ms=3.5, color=look.colour, transform=axes.get_xaxis_transform(), clip_on=False)
        drawn = [(at.learning_rate, at.gap.estimate) for at in rates if at.gap.estimate is not None]
        where, means = [rate * 10 ** apart[baseline] for rate, _ in drawn], [100 * mean for _, mean in drawn]
        # Smaller than the thick bar is wide, which it would otherwise hide.
        marks: dict[str, Any] = dict(ls=look.dash, lw=0.6, marker=look.marker, ms=3.4, mec="white", mew=0.4, zorder=4)
        axes.plot(where, means, color=look.colour, **marks)
    style.rate_axis(axes, scene.rates)
    axes.set_ylabel(scene.gap)
    axes.grid(axis="y")
    keys = []
    if over_seeds(scene.findings):
        keys.append(Line2D([], [], color=MUTED, **alone, label=f"{scene.level}: this rate"))
        keys.append(Line2D([], [], color=MUTED, **band, label=f"{scene.level}: all rates"))
    if any(at.gap.estimate is None for rates in swept.values() for at in rates):
        keys.append(Line2D([], [], color=MUTED, ls="", marker="x", ms=3.5, label="no inference"))
    legend(figure, (scene.looks[baseline] for baseline in swept), *keys)
    return figure


def classes_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the gap per class."""
    drawn = [c.gap for d in findings.images.values() for c in d.classes]
    with_interval = (
        f", with its {level(findings)} interval over seeds and test images ({new_images(findings)}). Filled: differs "
        "from 0 at that level after Holm's correction over all baselines and classes; hollow: does not."
        if any(e.interval for e in drawn)
        else "."
    )
    return Caption(
        f"Mean paired difference on the test images of each class at the selected learning rates{with_interval}"
        f"{' Models are set slightly apart.' if len(findings.images) > 1 else ''} Planned pairs: {pairs(findings)}.",
        None
        if any(e.estimate is not None for e in drawn)
        else "No pair of runs has learned whose predictions are there.",
    )


@canvas.figure(section="images", title="Gap by class", caption=classes_caption)
def classes(scene: Scene) -> Figure:
    """The gap on the images of each class; filled where it differs from 0 after Holm."""
    figure = Figure(figsize=(COLUMN, 2.3))
    axes = figure.subplots()
    by_class = {b: d.classes for b, d in scene.findings.images.items() if d.classes}
    apart = dict(zip(by_class, spread(len(by_class), 0.14), strict=True))
    alpha = 1 - scene.findings.about.settings.confidence
    axes.axhline(0, color=INK, lw=0.6)
    for baseline, gaps in by_class.items():
        look = scene.looks[baseline]
        for c in gaps:
            x = c.label + apart[baseline]
            if c.gap.interval:
                axes.plot([x, x], [100 * limit for limit in c.gap.interval], color=look.colour, lw=0.9)
            if c.gap.estimate is not None:
                sure = c.adjusted_p is not None and c.adjusted_p < alpha
                face = look.colour if sure else "white"
                axes.plot(x, 100 * c.gap.estimate, look.marker, ms=3.2, mfc=face, mec=look.colour, mew=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("Class")
    axes.set_ylabel(scene.gap)
    axes.grid(axis="y")
    legend(figure, (scene.looks[baseline] for baseline in by_class))
    return figure


def specifications_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the specification curve."""
    asked = curve_baselines(findings)
    robustness = {baseline: findings.robustness[baseline] for baseline in asked}
    same = each((b, text.of(r.same_sign, r.distinct)) for b, r in robustness.items() if r.same_sign is not None)
    more = len(findings.comparisons) - len(asked)
    cut = any(_without_zero(drawn_specifications(found)) for found in robustness.values())
    axis = " Where it says so, the axis does not reach 0." if cut else ""
    return Caption(
        "Every different estimate of the gap that the choices below give, in order, with a "
        f"{level(findings)} interval where one is defined; each square is a choice that gives it. Black, and the "
        f"dashed line: the primary analysis.{axis} Not drawn, but in the table: the gap when fewer learning rates are "
        f"tried. Other estimates with the same sign, those counted: {same or 'none'}. Descriptive, for analyses share "
        f"data. Planned pairs that learned: {pairs(findings)}."
        + (f" Baselines that are in the table only: {more}." if more else ""),
        None if asked else "No pair of runs has learned.",
        wide=len(asked) > 1,
    )


@canvas.figure(section="robustness", title="Every way to analyse the same data", caption=specifications_caption)
def specifications(scene: Scene) -> Figure:
    """Above: the gap by every way to analyse the same data, in order. Below: the choices behind each."""
    asked = {b: drawn_specifications(scene.findings.robustness[b]) for b in curve_baselines(scene.findings)}
    choices = _choices(scene.findings, asked)
    below = 0.115 * len(choices)
    figure = Figure(figsize=(PAGE if len(asked) > 1 else COLUMN, 1.7 + below))
    heights = dict(height_ratios=[1.3, below], hspace=0.03)
    panels = figure.subplots(2, len(asked), squeeze=False, sharex="col", gridspec_kw=heights)
    for (upper, lower), (baseline, specs) in zip(panels.T, asked.items(), strict=True):
        look = scene.looks[baseline]
        primary = next((same.first.gap.estimate for same in specs if same.first.primary), None)
        if primary is not None:
            upper.axhline(100 * primary, color=MUTED, lw=0.6, ls=(0, (4, 2)))
        _gap_limits(upper, specs)
        for x, same in enumerate(specs, 1):
            spec = same.first
            colour = INK if spec.primary else look.colour
            if spec.gap.interval:
                limits = [100 * limit for limit in spec.gap.interval]
                upper.plot([x, x], limits, color=colour, lw=1.2 if spec.primary else 0.7)
            mark: dict[str, Any] = dict(marker="D", ms=4) if spec.primary else dict(marker="o", ms=2.4)
            upper.plot(x, 100 * (spec.gap.estimate or 0), color=colour, **mark)
            rows = [choices.index((way, value)) for way in WAYS for value in same.choices[way]]
            lower.plot([x] * len(rows), rows, "s", ms=1.7, color=colour)
        upper.set_title(look.label)
        upper.tick_params(axis="x", length=0)
        upper.spines["bottom"].set_visible(False)
        upper.grid(axis="y")
        lower.set_ylim(len(choices) - 0.5, -0.5)
        lower.tick_params(axis="y", length=0)
        lower.spines["left"].set_visible(False)
        lower.set_yticks(range(len(choices)), [""] * len(choices))
        for row, (way, _) in enumerate(choices[1:]):
            if way != choices[row][0]:
                lower.axhline(row + 0.5, color=MARGIN, lw=0.6)
        lower.set_xlim(0, len(specs) + 1)
        lower.set_xticks(_counting(len(specs)))
        lower.set_xlabel("Estimates, in order")
    labels = [
        value if row and choices[row - 1][0] == way else f"{way}: {value}" for row, (way, value) in enumerate(choices)
    ]
    panels[1, 0].set_yticks(range(len(choices)), labels, fontsize=6)
    panels[0, 0].set_ylabel(scene.gap)
    return figure


def drawn_specifications(asked: Robustness) -> list[Coinciding]:
    """The different estimates, without those of fewer learning rates, beside which the others look alike."""
    return coinciding([spec for spec in asked.specifications if not spec.selection.startswith(FEWER)])


def _limits(specs: Sequence[Coinciding]) -> tuple[float, float]:
    """The lowest and the highest of all estimates and intervals, in percentage points."""
    gaps = [same.first.gap for same in specs]
    values = [100 * x for gap in gaps for x in (gap.estimate, gap.low, gap.high) if x is not None]
    return min(values), max(values)


def _without_zero(specs: Sequence[Coinciding]) -> bool:
    """Whether 0 lies so far from all of them that an axis with it would show nothing else."""
    low, high = _limits(specs)
    return max(low, -high) > high - low > 0


def _gap_limits(axes: Axes, specs: Sequence[Coinciding]) -> None:
    """An axis on which the specifications can be told apart, with a line at 0 or a word on where that is."""
    low, high = _limits(specs)
    if not _without_zero(specs):
        axes.axhline(0, color=INK, lw=0.6)
        return
    room = 0.12 * (high - low)
    axes.set_ylim(low - room, high + room)
    side, y = ("bottom", 0.02) if low > 0 else ("top", 0.98)
    axes.text(
        0.99,
        y,
        f"0 is further {'down' if low > 0 else 'up'}",
        transform=axes.transAxes,
        ha="right",
        va=side,
        fontsize=6,
        color=MUTED,
    )


def _choices(findings: Findings, asked: dict[str, list[Coinciding]]) -> list[tuple[str, str]]:
    """Every (way, choice) among the specifications, way by way, the primary analysis' choice first."""
    everything = sorted((s for specs in asked.values() for s in specs), key=lambda s: not s.first.primary)
    usual = [s.first for s in everything if s.first.primary]
    found = {
        way: dict.fromkeys(
            [*(getattr(s, way) for s in usual), *(value for s in everything for value in s.choices[way])]
        )
        for way in WAYS
    }
    return [(way, value) for way, values in found.items() for value in values]


def _counting(n: int) -> list[int]:
    """Ticks of an axis that counts from 1 to n: 1, and round numbers after it."""
    step = next(s * 10**k for k in range(9) for s in (1, 2, 5) if n <= 5 * s * 10**k)
    return [1, *(t for t in range(step, n + 1, step) if t > 1)]


def _interval(axes: Axes, e: Estimate, y: float, colour: str, *, thick: bool) -> None:
    """An estimate of fractions with its interval, in percentage points, lying at height `y`."""
    if e.interval:
        (bar,) = axes.plot([100 * limit for limit in e.interval], [y, y], color=colour, lw=2.6 if thick else 1.1)
        bar.set_solid_capstyle("butt")
        shown = f"{text.points(e.estimate)} ({text.points_interval(e.low, e.high)}) points, {e.population}"
        style.tell(bar, [shown])
    if e.estimate is not None:
        axes.plot(100 * e.estimate, y, marker="|", ms=6, mew=1.0, color=INK, ls="")


def _no_pairs(findings: Findings) -> str | None:
    if not findings.comparisons:
        return "The study has one model."
    return None if any(c.pairs for c in findings.comparisons) else "No pair of runs learned at the selected rates."

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
from analysis.report.figures.canvas import (
    Caption,
    Scene,
    axis_within,
    in_lines,
    legend,
    linear_within,
    name_rows,
    spread,
    stacked,
)
from analysis.report.figures.style import COLUMN, INK, MARGIN, MUTED, PAGE
from analysis.report.phrases import OVER_SEEDS, each, level, new_images, over_seeds, pairs
from analysis.stats.estimate import Estimate
from analysis.stats.robustness import FEWER, WAYS, Coinciding, coinciding

SLOPES = 12
"""Baselines whose pairs of accuracies fit side by side on a page."""

NARROW = 3
"""Baselines whose gaps are drawn in one column; of more, rows and caption take the page's width."""

CURVES = 3
"""Baselines whose specification curves fit side by side; the table holds all."""


def _with_curves(findings: Findings) -> list[str]:
    """The baselines that have specification curves, of which the first `CURVES` are drawn."""
    return [baseline for baseline, asked in findings.robustness.items() if asked.specifications]


def gap_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the primary comparison."""
    settings = findings.about.settings
    not_learned = each((c.baseline, n) for c in findings.comparisons if (n := sum(c.not_learned.values())))
    scored = ((c.baseline, c.scored_at_chance) for c in findings.comparisons)
    at_chance = each((baseline, text.points(e.estimate)) for baseline, e in scored if e is not None)
    verdicts = "; ".join(f"{c.baseline}: {c.verdicts}" for c in findings.comparisons if c.verdicts)
    intervals = (
        f"Thick bars: mean and {level(findings)} t interval {OVER_SEEDS}. Thin bars: {level(findings)} "
        f"interval over seeds and test images ({new_images(findings)}). "
        if over_seeds(findings)
        else ""
    )
    above = (
        f"Above: test accuracies of every pair, {settings.candidate}'s left and the baseline's right, each joined "
        "by a line; thick lines: their means. Below: t"
    )
    return Caption(
        f"{above if _has_slopes(findings) else 'T'}est accuracy of {settings.candidate} minus that of the baseline, "
        f"each at its selected learning rate. Numbers beside: the mean{' and both intervals' if intervals else ''}. "
        "Each point is one pair of trainings that share their seed. "
        f"{intervals or 'Upright strokes: the mean; one pair has no interval. '}"
        f"Grey: the margin of ±{text.plain(100 * settings.margin)} points. Planned pairs in "
        f"which both models learned: {pairs(findings)}."
        + (f" Runs at these rates that did not learn and so make no pair: {not_learned}." if not_learned else "")
        + (f" With them scored at chance the gap is {at_chance} points." if at_chance else "")
        + (f" Verdict at {text.level(settings.verdict_level)}, {verdicts}." if verdicts else ""),
        _no_pairs(findings),
        wide=len(findings.comparisons) > NARROW,
    )


@canvas.figure(section="gap", title="Gap of {candidate} to each baseline", caption=gap_caption)
def gap(scene: Scene) -> Figure:
    """Above: both accuracies of every pair. Below: its difference, both intervals and the margin, numbers beside."""
    comparisons = scene.findings.comparisons
    slopes = _has_slopes(scene.findings)
    wide = len(comparisons) > NARROW
    figure = Figure(figsize=(PAGE if wide else COLUMN, 0.85 + 0.75 * len(comparisons) + 1.35 * slopes))
    heights = dict(height_ratios=[1.2, 0.4 + 0.75 * len(comparisons)])
    panels = figure.subplots(2, 1, gridspec_kw=heights) if slopes else [figure.subplots()]
    if slopes:
        _slopes(panels[0], scene, figure.get_figwidth())
    axes = panels[-1]
    margin = 100 * scene.findings.about.settings.margin
    axes.axvspan(-margin, margin, color=MARGIN, lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.7)
    for row, comparison in enumerate(comparisons):
        look = scene.look(comparison)
        pairs = 100 * np.array(comparison.seeds.differences)
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


def _slopes(axes: Axes, scene: Scene, width: float) -> None:
    """The accuracies of every pair, joined: the candidate's left, the baseline's right; in a figure of this width."""
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
    axes.set_xlim(-0.7, places[-1] + 0.7)
    # Beside the axes stand the names of the rows below, and numbers.
    inches = max(0.6, width - 0.8 - 0.055 * max(map(len, names)))
    wide = 0.05 / inches * (places[-1] + 1.4)  # of a letter
    if wide * max(map(len, names)) > 2.5:  # only the baselines', each below its pair
        places = [place + 0.5 for place in places[::2]]
        names = [in_lines(name, int(2.5 / wide)) for name in names[1::2]]
    elif any(wide * (len(own) + len(other)) > 1.8 for own, other in zip(names[::2], names[1::2], strict=True)):
        names[1::2] = [f"\n{name}" for name in names[1::2]]  # the baselines' a line further down
    axes.set_xticks(places, names, fontsize=6)
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
        f"Mean paired difference where both models use the same learning rate, {OVER_SEEDS}.",
        f"Thick: {level(findings)} t interval for that rate alone. Thin, with caps: simultaneous {level(findings)} "
        "band over all rates drawn."
        if over_seeds(findings)
        else "",
        "Crosses above the frame: no inference, as half or more of a model's runs did not learn." if without else "",
        "Baselines are set slightly apart." if len(findings.sweep) > 1 else "",
        axis_within(_swept_linear(findings)),
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
    if linear := _swept_linear(scene.findings):
        style.signed_axis(axes, linear, (1, 2, 5))
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


def _swept_linear(findings: Findings) -> float | None:
    """Within what distance of 0 the axis of the sweep is linear, where it is not so everywhere."""
    gaps = (at.gap.estimate for found in findings.sweep.values() for at in found.rates)
    return linear_within(100 * gap for gap in gaps if gap is not None)


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
    known = _with_curves(findings)
    asked = known[:CURVES]
    robustness = {baseline: findings.robustness[baseline] for baseline in asked}
    same = each((b, text.of(r.same_sign, r.distinct)) for b, r in robustness.items() if r.same_sign is not None)
    specs = [coinciding(r.specifications) for r in robustness.values()]
    near = [_near(drawn) for drawn in specs]
    beyond = any(_beyond(limits, drawn) for limits, drawn in zip(near, specs, strict=True) if limits)
    said = [
        f"The first {len(asked)} of {len(known)} baselines." if len(known) > len(asked) else "",
        "Top: every different estimate of the gap that the choices at the bottom give, in order; each mark there is a "
        "choice that gives it. Diamonds, and the dashed line: the primary analysis.",
        axis_within(_specified_linear(specs)),
        f"Middle: the same around the intervals, each panel on its own axis. Bars: {level(findings)} intervals where "
        f"one is defined; thick, {OVER_SEEDS}; thin, over seeds and test images ({new_images(findings)})."
        if any(near)
        else "",
        "Arrows: further that way." if beyond else "",
        "Best of n rates: the gap to expect when each model tries n of the learning rates."
        if any(spec.selection.startswith(FEWER) for r in robustness.values() for spec in r.specifications)
        else "",
        f"Other estimates with the same sign: {same or 'none'}. Descriptive, for analyses share data.",
        f"Planned pairs that learned: {pairs(findings)}.",
    ]
    missing = None if asked else "No pair of runs has learned."
    return Caption(" ".join(filter(None, said)), missing, wide=len(asked) > 1)


@canvas.figure(section="robustness", title="Every way to analyse the same data", caption=specifications_caption)
def specifications(scene: Scene) -> Figure:
    """From the top: the gap by every way to analyse the same data, those near the intervals, their choices."""
    asked = {b: coinciding(scene.findings.robustness[b].specifications) for b in _with_curves(scene.findings)[:CURVES]}
    near = {baseline: _near(specs) for baseline, specs in asked.items()}
    choices = _choices(scene.findings, asked)
    heights = [1.0, *([1.3] if any(near.values()) else []), 0.115 * len(choices)]
    figure = Figure(figsize=(PAGE if len(asked) > 1 else COLUMN, 0.4 + sum(heights)))
    ratios = dict(height_ratios=heights, hspace=0.03)
    panels = figure.subplots(len(heights), len(asked), squeeze=False, sharex="col", gridspec_kw=ratios)
    for axes in panels[0, 1:]:
        axes.sharey(panels[0, 0])
    for (upper, *middle, lower), (baseline, specs) in zip(panels.T, asked.items(), strict=True):
        look = scene.looks[baseline]
        for axes in (upper, *middle):
            _specified(axes, specs, look.colour)
            axes.tick_params(axis="x", length=0)
            axes.spines["bottom"].set_visible(False)
            axes.grid(axis="y")
        upper.axhline(0, color=INK, lw=0.6)
        upper.set_title(look.label)
        for axes in middle:
            if limits := near[baseline]:
                _zoomed(axes, limits, specs, look.colour)
            else:
                axes.set_visible(False)
        for x, same in enumerate(specs, 1):
            rows = [choices.index((way, value)) for way in WAYS for value in same.choices[way]]
            mark, size, own = ("D", 2.2, INK) if same.first.primary else ("s", 1.7, look.colour)
            lower.plot([x] * len(rows), rows, mark, ms=size, color=own)
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
    panels[0, 0].margins(y=0.1)
    if linear := _specified_linear(list(asked.values())):
        style.signed_axis(panels[0, 0], linear)
    labels = [
        value if row and choices[row - 1][0] == way else f"{way}: {value}" for row, (way, value) in enumerate(choices)
    ]
    panels[-1, 0].set_yticks(range(len(choices)), labels, fontsize=6)
    for axes in panels[:-1, 0]:
        axes.set_ylabel(in_lines(scene.gap, 19))
    figure.align_ylabels(panels[:-1, 0])
    return figure


def _specified(axes: Axes, specs: Sequence[Coinciding], colour: str) -> None:
    """The estimates in order, and a dashed line at the primary one."""
    for x, same in enumerate(specs, 1):
        gap = 100 * (same.first.gap.estimate or 0)
        mark, size, own = ("D", 4, INK) if same.first.primary else ("o", 3, colour)
        axes.plot(x, gap, mark, ms=size, color=own, mec="white", mew=0.4, zorder=4)
        if same.first.primary:
            axes.axhline(gap, color=MUTED, lw=0.6, ls=(0, (4, 2)))


def _near(specs: Sequence[Coinciding]) -> tuple[float, float] | None:
    """The lowest and the highest end of all intervals, in percentage points, and some room; None without intervals."""
    ends = [100 * x for same in specs for e in same.intervals.values() for x in e.interval or ()]
    if not ends:
        return None
    room = 0.12 * (max(ends) - min(ends))
    return min(ends) - room, max(ends) + room


def _beyond(limits: tuple[float, float], specs: Sequence[Coinciding]) -> list[tuple[int, bool]]:
    """Places in the order, from 1, of the estimates outside `limits`, and whether they lie above them."""
    estimates = [(x, 100 * (same.first.gap.estimate or 0)) for x, same in enumerate(specs, 1)]
    return [(x, gap > limits[1]) for x, gap in estimates if not limits[0] <= gap <= limits[1]]


def _zoomed(axes: Axes, limits: tuple[float, float], specs: Sequence[Coinciding], colour: str) -> None:
    """Show what lies within `limits` with its intervals, and arrows at the edge for what lies beyond."""
    axes.set_ylim(*limits)
    if limits[0] < 0 < limits[1]:
        axes.axhline(0, color=INK, lw=0.6)
    own = [INK if same.first.primary else colour for same in specs]
    for x, same in enumerate(specs, 1):
        for population, width in (("seeds", 2.2), ("seeds and test images", 0.8)):
            if (e := same.intervals.get(population)) and e.interval:
                ends = [100 * limit for limit in e.interval]
                axes.plot([x, x], ends, color=own[x - 1], lw=width, solid_capstyle="butt")
    for x, above in _beyond(limits, specs):
        y, mark = (0.97, "^") if above else (0.03, "v")
        axes.plot(x, y, mark, ms=3, color=own[x - 1], transform=axes.get_xaxis_transform())


def _specified_linear(curves: Sequence[Sequence[Coinciding]]) -> float | None:
    """Within what distance of 0 the axis of all estimates is linear, where it is not so everywhere."""
    return linear_within(100 * (same.first.gap.estimate or 0) for specs in curves for same in specs)


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
    # Fewer rates last, by their number.
    return [
        (way, value)
        for way, values in found.items()
        for value in sorted(values, key=lambda value: (len(value), value) if value.startswith(FEWER) else ())
    ]


def _counting(n: int) -> list[int]:
    """Ticks of an axis that counts from 1 to n."""
    step = next(s * 10**k for k in range(9) for s in (1, 2, 5) if n <= 6 * s * 10**k)
    return list(range(step, n + 1, step))


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

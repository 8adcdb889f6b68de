"""Draws the findings, and computes nothing: each figure as PDF and SVG with its caption beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis import style, text
from analysis.captions import captions, curve_baselines, panel_rates
from analysis.curves import curves
from analysis.estimate import Estimate
from analysis.findings import Comparison, Findings
from analysis.frames import Frames
from analysis.style import COLUMN, INK, MARGIN, MUTED, PAGE, Look
from analysis.variance import Component

GAP = "Gap (percentage points)"
PER_ROW = 14
"""Digits drawn side by side."""


@dataclass(frozen=True)
class Scene:
    """What there is to draw."""

    findings: Findings
    frames: Frames
    curves: pd.DataFrame
    looks: Mapping[str, Look]

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates in order."""
        return tuple(sorted(self.findings.about.learning_rates))

    @property
    def room(self) -> float:
        """Decades between the two closest learning rates."""
        return min(np.diff(np.log10(self.rates)), default=1.0)

    def selected(self, model: str) -> float | None:
        """The learning rate chosen for a model."""
        return self.findings.selection[model].mean.learning_rate if model in self.findings.selection else None

    def test_error(self, accuracy: pd.Series) -> pd.Series:
        """Accuracy on test digits as a percentage wrong."""
        return _error(accuracy, self.findings.about.n_test)

    def look(self, comparison: Comparison) -> Look:
        """A comparison looks like its baseline."""
        return self.looks[comparison.baseline]


def draw(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Draw every figure that has data into `folder`, with captions as .txt and .tex; the paths written.

    A figure without data has its caption only, which says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = [model.name for model in findings.about.models]
    points = curves(frames.runs, frames.epochs, findings.about.settings.confidence)
    scene = Scene(findings, frames, points, style.looks(models))
    written = []
    for caption in captions(findings, frames):
        written += caption.write(folder)
        if caption.missing is None:
            with style.applied():
                written += style.save(FIGURES[caption.name](scene), folder, caption.name)
    return written


# Learning


def learning_curves(scene: Scene) -> Figure:
    """Test error against epoch, one panel per learning rate: every run faint, the mean with its band."""
    rates = panel_rates(scene.findings)
    columns = min(len(rates), 6)
    rows = -(-len(rates) // columns)
    figure = Figure(figsize=(PAGE if columns > 2 else COLUMN, 0.5 + 1.5 * rows))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    means = scene.curves[scene.curves["metric"] == "test_accuracy"]
    runs = scene.frames.epochs.merge(scene.frames.runs[["run_id", "model", "learning_rate"]], on="run_id")
    runs["error"] = scene.test_error(runs["test_accuracy"])
    last = scene.findings.about.epochs
    for axes in panels.flat[len(rates) :]:
        axes.set_visible(False)
    for axes, rate in zip(panels.flat, rates, strict=False):
        for model, look in scene.looks.items():
            mine = runs[(runs["model"] == model) & (runs["learning_rate"] == rate)]
            lines = [run[["epoch", "error"]].to_numpy() for _, run in mine.groupby("run_id")]
            axes.add_collection(LineCollection(lines, colors=look.colour, linewidths=0.35, alpha=0.45))
            stopped = np.array([line[-1] for line in lines if line[-1, 0] < last]).reshape(-1, 2)
            axes.plot(*stopped.T, "x", ms=2.5, mew=0.6, color=look.colour)
            mean = means[(means["model"] == model) & (means["learning_rate"] == rate)]
            band = dict(color=look.colour, alpha=0.18, lw=0)
            axes.fill_between(mean["epoch"], scene.test_error(mean["high"]), scene.test_error(mean["low"]), **band)
            end = dict(marker=look.marker, markevery=[-1], ms=3, mec="white", mew=0.3)
            if rate == scene.selected(model):
                end |= dict(ms=4.2, mec=INK, mew=0.9)
            axes.plot(mean["epoch"], scene.test_error(mean["mean"]), color=look.colour, ls=look.dash, zorder=3, **end)
        axes.set_title(f"Rate {text.plain(rate)}")
        axes.set_xlim(1 - 0.05 * last, last * 1.05)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        axes.grid(axis="y")
    # The limits are those of the runs: a band around runs of which one collapsed would reach for zero.
    panels[0, 0].set_ylim(runs["error"].min() / 1.25, min(100.0, runs["error"].max()) * 1.15)
    for axes in panels[:, 0]:
        style.log_axis(axes, "Test error (%)")
    figure.supxlabel("Epoch", fontsize=7)
    _legend(figure, scene.looks.values())
    return figure


def learning_rates(scene: Scene) -> Figure:
    """Test error against learning rate: every run a point, means joined, the selected rate ringed."""
    figure = Figure(figsize=(COLUMN, 2.7))
    axes = figure.subplots()
    _against_rate(axes, scene, "final_test_accuracy", scene.test_error)
    style.log_axis(axes, "Test error (%)")
    _legend(figure, scene.looks.values())
    return figure


def losses(scene: Scene) -> Figure:
    """Test loss against learning rate, and test against validation error of every run."""
    figure = Figure(figsize=(PAGE, 2.7))
    left, right = figure.subplots(1, 2)
    _against_rate(left, scene, "final_test_loss", lambda loss: loss)
    style.log_axis(left, "Test loss (nats)")
    ended = scene.frames.runs[scene.frames.runs["state"] == "finished"]
    for model, look in scene.looks.items():
        of_model = ended[ended["model"] == model]
        for chosen, runs in of_model.groupby(of_model["learning_rate"] == scene.selected(model)):
            right.plot(
                _error(runs["final_val_accuracy"], scene.findings.about.n_val),
                scene.test_error(runs["final_test_accuracy"]),
                ls="",
                marker=look.marker,
                ms=3,
                mfc=look.colour if chosen else "none",
                mec=look.colour,
                mew=0.5,
                alpha=0.8,
            )
    right.set_xscale("log")
    style.log_axis(right, "Test error (%)")
    style.log_axis(right, "Validation error (%)", "x")
    low, high = (f(right.get_xlim() + right.get_ylim()) for f in (min, max))
    right.plot([low, high], [low, high], color=MUTED, lw=0.6, zorder=0, scalex=False, scaley=False)
    right.grid()
    _legend(figure, scene.looks.values())
    return figure


def _against_rate(axes: Axes, scene: Scene, metric: str, shown: Callable[[pd.Series], pd.Series]) -> None:
    runs = scene.frames.runs
    apart = dict(zip(scene.looks, _spread(len(scene.looks), min(0.09, 0.25 * scene.room)), strict=True))
    for model, look in scene.looks.items():
        for rate, group in runs[runs["model"] == model].groupby("learning_rate"):
            center = rate * 10 ** apart[model]
            ended = group[group["state"] == "finished"]
            x = center * 10 ** _spread(len(ended), min(0.022, 0.06 * scene.room))
            axes.plot(
                x, shown(ended[metric]), ls="", marker=look.marker, ms=2.2, mfc=look.colour, mec="none", alpha=0.5
            )
            if diverged := int((group["state"] == "diverged").sum()):
                top = axes.get_xaxis_transform()
                axes.plot(center, 1.02, "x", ms=3.5, color=look.colour, transform=top, clip_on=False)
                axes.annotate(
                    str(diverged),
                    (center, 1.02),
                    xycoords=top,
                    xytext=(0, 4),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6,
                    color=look.colour,
                )
        mean = runs[(runs["model"] == model) & runs["trained"]].groupby("learning_rate")[metric].mean()
        where = mean.index.to_numpy() * 10 ** apart[model]
        axes.plot(where, shown(mean), color=look.colour, ls=look.dash, marker="_", ms=6, mew=1.2)
        if (rate := scene.selected(model)) in mean.index:
            ring = dict(marker="o", ms=9, mfc="none", mec=look.colour, mew=0.9)
            axes.plot(rate * 10 ** apart[model], shown(mean[[rate]]), ls="", **ring)
    style.rate_axis(axes, scene.rates)
    axes.grid(axis="y")


# The gap


def gap(scene: Scene) -> Figure:
    """Every pair's difference, the interval over seeds, the interval over seeds and digits, and the margin."""
    comparisons = scene.findings.comparisons
    figure = Figure(figsize=(COLUMN, 0.7 + 0.75 * len(comparisons)))
    axes = figure.subplots()
    margin = 100 * scene.findings.about.settings.margin
    axes.axvspan(-margin, margin, color=MARGIN, lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.7)
    for row, comparison in enumerate(comparisons):
        look = scene.look(comparison)
        pairs = 100 * np.array([value for _, value in comparison.seeds.quantiles])
        heights = row - 0.16 - _stacked(pairs)
        axes.plot(pairs, heights, ls="", marker="o", ms=2.5, mfc=look.colour, mec="white", mew=0.2)
        _interval(axes, comparison.seeds.mean, row + 0.08, look.colour, thick=True)
        _interval(axes, comparison.digits, row + 0.28, look.colour, thick=False)
    _rows(axes, [scene.look(c).label for c in comparisons])
    keys = [
        Line2D([], [], ls="", marker="o", ms=2.8, color=MUTED, label="one pair"),
        Line2D([], [], lw=2.6, color=MUTED, solid_capstyle="butt", label="seeds"),
        Line2D([], [], lw=1.1, color=MUTED, label="seeds and digits"),
        Patch(color=MARGIN, label="margin"),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=4, handlelength=1.4, columnspacing=0.9)
    axes.set_xlabel(GAP)
    return figure


def sweep(scene: Scene) -> Figure:
    """The gap at each learning rate: interval for that rate alone, and the band that holds for all of them."""
    figure = Figure(figsize=(COLUMN, 2.3))
    axes = figure.subplots()
    swept = {b: s.rates for b, s in scene.findings.sweep.items()}
    apart = dict(zip(swept, _spread(len(swept), min(0.05, 0.2 * scene.room)), strict=True))
    axes.axhline(0, color=INK, lw=0.6)
    for baseline, rates in swept.items():
        look = scene.looks[baseline]
        for at in rates:
            x = at.learning_rate * 10 ** apart[baseline]
            if at.gap.low is not None:
                alone = dict(lw=3, alpha=0.4, solid_capstyle="butt")
                axes.plot([x, x], [100 * at.gap.low, 100 * at.gap.high], color=look.colour, **alone)
            if at.band.low is not None:
                band = dict(lw=0.8, marker="_", ms=4)
                axes.plot([x, x], [100 * at.band.low, 100 * at.band.high], color=look.colour, **band)
            if at.gap.estimate is None:
                axes.plot(x, 1.02, "x", ms=3.5, color=look.colour, transform=axes.get_xaxis_transform(), clip_on=False)
        drawn = [(at.learning_rate * 10 ** apart[baseline], at.gap) for at in rates if at.gap.estimate is not None]
        means = [100 * e.estimate for _, e in drawn]
        axes.plot(
            [x for x, _ in drawn], means, color=look.colour, ls=look.dash, lw=0.7, marker=look.marker, mec="white"
        )
    style.rate_axis(axes, scene.rates)
    axes.set_ylabel(GAP)
    axes.grid(axis="y")
    _legend(figure, (scene.looks[baseline] for baseline in swept))
    return figure


def classes(scene: Scene) -> Figure:
    """The gap on the digits of each class; filled where it differs from 0 after Holm."""
    figure = Figure(figsize=(COLUMN, 2.2))
    axes = figure.subplots()
    by_class = {b: d.classes for b, d in scene.findings.digits.items() if d.classes}
    apart = dict(zip(by_class, _spread(len(by_class), 0.14), strict=True))
    alpha = 1 - scene.findings.about.settings.confidence
    axes.axhline(0, color=INK, lw=0.6)
    for baseline, gaps in by_class.items():
        look = scene.looks[baseline]
        for c in gaps:
            x = c.label + apart[baseline]
            if c.gap.low is not None:
                axes.plot([x, x], [100 * c.gap.low, 100 * c.gap.high], color=look.colour, lw=0.9)
            if c.gap.estimate is not None:
                sure = c.adjusted_p is not None and c.adjusted_p < alpha
                face = look.colour if sure else "white"
                axes.plot(x, 100 * c.gap.estimate, look.marker, ms=3.2, mfc=face, mec=look.colour, mew=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("Class")
    axes.set_ylabel(GAP)
    axes.grid(axis="y")
    _legend(figure, (scene.looks[baseline] for baseline in by_class))
    return figure


def hard_digits(scene: Scene) -> Figure:
    """Test digits that every seed of one model gets wrong and every seed of the other right, their class above."""
    candidate = scene.looks[scene.findings.about.settings.candidate].label
    rows = []
    for baseline, found in scene.findings.digits.items():
        if found.hard is not None:
            other = scene.looks[baseline].label
            rows += [(f"{other} wrong,\n{candidate} right", found.hard.baseline_alone_wrong)]
            rows += [(f"{candidate} wrong,\n{other} right", found.hard.candidate_alone_wrong)]
    rows = [(label, digits) for label, digits in rows if digits]
    tall = 1.3  # a row in widths of a digit: the digit, and its class above
    figure = Figure(figsize=(PAGE, 0.1 + 0.42 * tall * len(rows)))
    axes = figure.subplots()
    height, width = scene.frames.test_images.shape[1:]
    x, y = (0.46 * side / max(height, width) for side in (width, height))
    for row, (label, digits) in enumerate(rows):
        middle = tall * row + 0.8
        axes.text(-0.1, middle, f"{label} ({text.count(len(digits))})", ha="right", va="center", fontsize=6)
        for column, digit in enumerate(digits[:PER_ROW]):
            # One axes for all: as many axes as digits would take seconds to lay out.
            extent = (column + 0.5 - x, column + 0.5 + x, middle + y, middle - y)
            axes.imshow(scene.frames.test_images[digit], cmap="gray_r", interpolation="nearest", extent=extent)
            axes.text(column + 0.5, middle - 0.5, scene.frames.test_labels[digit], fontsize=6, ha="center")
    axes.set(xlim=(-0.6, PER_ROW), ylim=(tall * len(rows), 0), aspect="equal")
    axes.set_axis_off()
    return figure


def specifications(scene: Scene) -> Figure:
    """Above: the gap by every way to analyse the same data, in order. Below: the choices behind each."""
    asked = {b: scene.findings.robustness[b].specifications for b in curve_baselines(scene.findings)}
    everything = sorted((s for specs in asked.values() for s in specs), key=lambda s: not s.primary)
    ways = ("selection", "outcomes", "pairing", "transform", "population")
    choices = [(way, value) for way in ways for value in dict.fromkeys(getattr(s, way) for s in everything)]
    below = 0.115 * len(choices)
    figure = Figure(figsize=(PAGE if len(asked) > 1 else COLUMN, 1.7 + below))
    heights = dict(height_ratios=[1.3, below], hspace=0.03)
    panels = figure.subplots(2, len(asked), squeeze=False, sharex="col", gridspec_kw=heights)
    for (upper, lower), (baseline, specs) in zip(panels.T, asked.items(), strict=True):
        look = scene.looks[baseline]
        upper.axhline(0, color=INK, lw=0.6)
        for x, spec in enumerate(specs, 1):
            colour = INK if spec.primary else look.colour
            if spec.low is not None:
                upper.plot([x, x], [100 * spec.low, 100 * spec.high], color=colour, lw=1.2 if spec.primary else 0.7)
            upper.plot(
                x, 100 * spec.estimate, "D" if spec.primary else "o", color=colour, ms=4 if spec.primary else 2.4
            )
            rows = [choices.index((way, getattr(spec, way))) for way in ways]
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
        lower.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        lower.set_xlabel("Specification, by its estimate")
    labels = [
        value if row and choices[row - 1][0] == way else f"{way}: {value}" for row, (way, value) in enumerate(choices)
    ]
    panels[1, 0].set_yticks(range(len(choices)), labels, fontsize=6)
    panels[0, 0].set_ylabel(GAP)
    return figure


def selection(scene: Scene) -> Figure:
    """How often each learning rate is the one selected when seeds and validation digits are drawn again."""
    figure = Figure(figsize=(COLUMN, 1.9))
    axes = figure.subplots()
    apart = dict(zip(scene.looks, _spread(len(scene.looks), min(0.06, 0.25 * scene.room)), strict=True))
    for model, choice in scene.findings.selection.items():
        look = scene.looks[model]
        x = np.array([float(rate) for rate in choice.luck]) * 10 ** apart[model]
        share = 100 * np.array(list(choice.luck.values()))
        axes.vlines(x, 0, share, color=look.colour, lw=1.6)
        axes.plot(x, share, ls="", marker=look.marker, color=look.colour)
    style.rate_axis(axes, scene.rates)
    axes.set_ylim(0, 105)
    axes.set_ylabel("Selected in resamples (%)")
    axes.grid(axis="y")
    _legend(figure, scene.looks.values())
    return figure


def planning(scene: Scene) -> Figure:
    """Half-width of both intervals against the number of seeds, with the floor that the test digits set."""
    figure = Figure(figsize=(COLUMN, 2.5))
    axes = figure.subplots()
    planned = {b: p for b, p in scene.findings.planning.items() if p.precision}
    for baseline, plan in planned.items():
        look = scene.looks[baseline]
        seeds = [p.seeds for p in plan.precision]
        axes.plot(seeds, [100 * p.over_seeds for p in plan.precision], color=look.colour, lw=2.2, alpha=0.45)
        both = [(p.seeds, 100 * p.over_digits) for p in plan.precision if p.over_digits is not None]
        axes.plot(*np.array(both).reshape(-1, 2).T, color=look.colour, lw=1)
        if plan.floor is not None:
            axes.axhline(100 * plan.floor, color=look.colour, lw=0.8, ls=(0, (1, 1.5)))
        now = next(c.seeds.mean for c in scene.findings.comparisons if c.baseline == baseline)
        if now.low is not None:
            half = 50 * (now.high - now.low)
            axes.plot(now.n, half, look.marker, color=look.colour, mec="white", mew=0.4, ms=4.5)
    axes.axhline(100 * scene.findings.about.settings.margin, color=MUTED, lw=0.7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: text.plain(tick)))
    axes.set_xlabel("Pairs of runs (seeds)")
    style.log_axis(axes, "Half-width (percentage points)")
    axes.grid(axis="y")
    keys = [
        Line2D([], [], color=MUTED, lw=2.2, alpha=0.6, label="seeds"),
        Line2D([], [], color=MUTED, lw=1, label="seeds and digits"),
        Line2D([], [], color=MUTED, lw=0.8, ls=(0, (1, 1.5)), label="floor"),
        Line2D([], [], color=MUTED, lw=0.7, label="margin"),
    ]
    axes.legend(handles=keys, loc="upper right", ncols=2, handlelength=1.4, columnspacing=0.9)
    _legend(figure, map(scene.looks.get, planned))
    return figure


def variance(scene: Scene) -> Figure:
    """Components of variance of every model's accuracy, as standard deviations."""
    drawn = {m: v.components for m, v in scene.findings.variance.items() if _known(v.components.components)}
    effects = list(dict.fromkeys(c.effect for v in drawn.values() for c in v.components))
    figure = Figure(figsize=(COLUMN, 0.6 + 0.24 * len(effects)))
    axes = figure.subplots()
    for shift, (model, found) in zip(_spread(len(drawn), 0.22), drawn.items(), strict=True):
        look = scene.looks[model]
        for c in _known(found.components):
            y = effects.index(c.effect) + shift
            if c.variance.low is not None:
                axes.plot(100 * np.sqrt([c.variance.low, c.variance.high]), [y, y], color=look.colour, lw=0.9)
            axes.plot(100 * np.sqrt(c.variance.estimate), y, look.marker, color=look.colour)
    _rows(axes, [effect.replace(", ", ",\n") for effect in effects])
    axes.set_xlim(left=0)
    axes.set_xlabel("SD (percentage points)")
    axes.grid(axis="x")
    _legend(figure, (scene.looks[model] for model in drawn))
    return figure


def _known(components: Iterable[Component]) -> list[Component]:
    return [c for c in components if c.variance.estimate is not None]


def normality(scene: Scene) -> Figure:
    """QQ plot of the pairs' differences against a normal distribution."""
    drawn = [c for c in scene.findings.comparisons if len(c.seeds.quantiles) > 2]
    figure = Figure(figsize=(COLUMN, 2.2))
    axes = figure.subplots()
    for comparison in drawn:
        look = scene.look(comparison)
        x, y = np.array(comparison.seeds.quantiles).T
        axes.plot(x, 100 * y, ls="", marker=look.marker, color=look.colour, ms=2.8)
    axes.set_xlabel("Standard normal quantile")
    axes.set_ylabel("Difference (percentage points)")
    axes.grid()
    _legend(figure, map(scene.look, drawn))
    return figure


def confusion(scene: Scene) -> Figure:
    """Mean share of each true class predicted as each class, right answers left out."""
    matrices = scene.findings.confusion
    columns = min(len(matrices), 3)
    rows = -(-len(matrices) // columns)
    width = PAGE if columns > 1 else COLUMN
    figure = Figure(figsize=(width, 0.35 + rows * (width / max(columns, 2) + 0.1)))
    panels = figure.subplots(rows, columns, squeeze=False)
    wrong = {model: 100 * np.array(matrix) for model, matrix in matrices.items()}
    for matrix in wrong.values():
        np.fill_diagonal(matrix, np.nan)
    highest = max(np.nanmax(matrix, initial=0.0) for matrix in wrong.values()) or 1.0
    for axes in panels.flat[len(wrong) :]:
        axes.set_visible(False)
    for axes, (model, matrix) in zip(panels.flat, wrong.items(), strict=False):
        few = len(matrix) <= 12
        sns.heatmap(
            pd.DataFrame(matrix),
            ax=axes,
            cmap="Blues",
            vmin=0,
            vmax=highest,
            square=True,
            cbar=False,
            annot=np.where(matrix >= 0.05, np.round(matrix, 1).astype(str), "") if few else False,
            fmt="",
            annot_kws={"fontsize": 4.6},
            linewidths=0.3 if few else 0,
            linecolor="#f2f2f2",
        )
        axes.set_title(scene.looks[model].label)
        axes.tick_params(length=0, rotation=0)
        axes.set_xlabel("Predicted class")
    for axes in panels[:, 0]:
        axes.set_ylabel("True class")
    return figure


# What several figures share


def _error(accuracy: pd.Series, digits: int) -> pd.Series:
    """Accuracy, a fraction, as the percentage of `digits` that is wrong; none wrong shows as half a digit."""
    return (100 * (1 - accuracy)).clip(lower=50 / digits)


def _spread(n: int, width: float) -> np.ndarray:
    """`n` places around 0 at most `width` away, so that points do not hide each other."""
    return np.linspace(-width, width, n) if n > 1 else np.zeros(n)


def _stacked(values: np.ndarray, bins: int = 60, step: float = 0.085) -> np.ndarray:
    """Heights that pile up points of nearly equal value, as in a dot plot; `values` in order."""
    if not values.size:
        return values
    widest = max(np.ptp(values), 1e-12)
    places = np.floor((values - values.min()) / widest * bins / 2).astype(int)
    heights = np.zeros(len(values))
    for place in np.unique(places):
        pile = np.flatnonzero(places == place)
        heights[pile] = step * np.arange(len(pile))
    return heights * min(1.0, 0.34 / max(heights.max(), 1e-12))


def _interval(axes: Axes, e: Estimate, y: float, colour: str, *, thick: bool) -> None:
    """An estimate of fractions with its interval, in percentage points, lying at height `y`."""
    if e.low is not None:
        axes.plot([100 * e.low, 100 * e.high], [y, y], color=colour, lw=2.6 if thick else 1.1, solid_capstyle="butt")
    if e.estimate is not None:
        axes.plot(100 * e.estimate, y, marker="|", ms=6, mew=1.0, color=INK, ls="")


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Name the rows 0, 1, … from the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, looks: Iterable[Look]) -> None:
    """Which model looks how, above the panels; nothing to say where there is only one."""
    handles = [Line2D([], [], color=k.colour, ls=k.dash, marker=k.marker, ms=3.5, label=k.label) for k in looks]
    if len(handles) > 1:
        longest = max(len(handle.get_label()) for handle in handles)
        columns = min(len(handles), max(1, int(figure.get_figwidth() / (0.4 + 0.06 * longest))))
        # Every line of it beyond the first makes the figure taller, not the panels lower.
        figure.set_figheight(figure.get_figheight() + 0.13 * (-(-len(handles) // columns) - 1))
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)


FIGURES: Mapping[str, Callable[[Scene], Figure]] = {
    draw_one.__name__: draw_one
    for draw_one in (
        gap,
        learning_rates,
        sweep,
        learning_curves,
        losses,
        selection,
        classes,
        hard_digits,
        confusion,
        specifications,
        variance,
        planning,
        normality,
    )
}
"""Figure by the name of its caption."""

"""How training went: on the images trained on and on others, run by run, and at what cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas, style
from analysis.report.figures.canvas import Caption, Scene, in_lines, legend
from analysis.report.figures.style import COLUMN, INK, LETTER, MUTED, PAGE
from analysis.report.phrases import each, level, over_seeds, runs
from analysis.stats.curves import curves

SPLITS = {"train": ("-", 1.0), "val": ((0, (3, 1.2)), 1.0), "test": ("-", 1.8)}
"""The dash and the width of each split's curve."""

MARKS = {"train": "^", "val": "o", "test": "s"}
"""What stands for the curves of a single epoch."""

NAMES = {"train": "training", "val": "validation", "test": "test"}

WITHIN = 1.0
"""Percentage points within which the axis of the generalisation gap is linear; beyond it the first epochs' lag fits."""

CELLS = 20_000
"""Runs that are drawn as cells; of more the picture would show nothing."""


def selected_rates(findings: Findings, frames: Frames) -> dict[str, float]:
    """Model → its selected learning rate, of the models that learned there."""
    learned = frames.runs[frames.runs["learned"]]
    pairs = set(zip(learned["model"], learned["learning_rate"], strict=True))
    rates = {model: choice.mean.learning_rate for model, choice in findings.selection.items()}
    return {model: rate for model, rate in rates.items() if rate is not None and (model, rate) in pairs}


def generalisation_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the curves of all three splits."""
    rates = selected_rates(findings, frames)
    counts = {(c.model, c.learning_rate): c for c in findings.configurations}
    with_interval = f", with its {level(findings)} t interval over seeds where all runs learned" * over_seeds(findings)
    points = curves(_at(rates, frames.runs), frames.epochs, findings.about.settings.confidence)
    within = canvas.axis_within(_linear(points))
    n = each((m, text.of(counts[m, r].test_accuracy.n, counts[m, r].test_accuracy.planned)) for m, r in rates.items())
    return Caption(
        "Above: error after each epoch at the selected learning rate, mean over the runs that learned; training error "
        "is the mean over the epoch's batches, as the weights change, so that it lags behind, most in the first "
        f"epochs. Below: generalisation gap, test error minus training error{with_interval}. "
        f"{within and f'{within} '}Planned runs: {n}.",
        None if rates else "No run learned at a selected learning rate.",
        wide=len(rates) > 1,
    )


@canvas.figure(section="learning", title="Training, validation and test error", caption=generalisation_caption)
def generalisation(scene: Scene) -> Figure:
    """Error of the three splits over epochs, a panel for each model, and test minus training error below."""
    rates = selected_rates(scene.findings, scene.frames)
    figure = Figure(figsize=(PAGE if len(rates) > 1 else COLUMN, 3.1))
    heights = dict(height_ratios=[1.6, 1])
    letters = int((figure.get_figwidth() - 0.6) / len(rates) / LETTER)  # of a title above a panel
    alone = scene.findings.about.epochs == 1
    panels = figure.subplots(2, len(rates), squeeze=False, sharex=True, sharey="row", gridspec_kw=heights)
    for (upper, lower), (model, rate) in zip(panels.T, rates.items(), strict=True):
        look = scene.looks[model]
        own = scene.curves[(scene.curves["model"] == model) & (scene.curves["learning_rate"] == rate)]
        for split, (dash, width) in SPLITS.items():
            curve = own[own["metric"] == f"{split}_accuracy"]
            error = canvas.error(curve["mean"], _images(scene.findings, split))
            alpha = 1 if split == "test" else 0.75
            upper.plot(curve["epoch"], error, color=look.colour, ls=dash, lw=width, alpha=alpha)
            # Told where the pointer rests; of a single epoch there is nothing else to see.
            (points,) = upper.plot(
                curve["epoch"], error, ls="", marker=MARKS[split], ms=4.5, color=look.colour, alpha=alone * alpha
            )
            at = zip(curve["epoch"], error, strict=True)
            style.tell(points, (f"{look.label}, {split}, epoch {epoch}: {y:.3g}%" for epoch, y in at))
        gap = own[own["metric"] == "generalisation_gap"]
        lower.axhline(0, color=INK, lw=0.6)
        lower.plot(gap["epoch"], 100 * gap["mean"], color=look.colour, marker="o" if alone else "")
        lower.fill_between(gap["epoch"], 100 * gap["low"], 100 * gap["high"], color=look.colour, alpha=0.2, lw=0)
        upper.set_title(in_lines(f"{look.label} at {text.plain(rate)}", letters))
        lower.xaxis.set_major_locator(FixedLocator([1]) if alone else MaxNLocator(5, integer=True))
        lower.set_xlabel("Epoch")
        for axes in (upper, lower):
            axes.grid(axis="y")
    style.log_axis(panels[0, 0], "Error (%)")
    if linear := _linear(_at(rates, scene.curves)):
        style.signed_axis(panels[1, 0], linear, (1, 5, 2))
    panels[1, 0].set_ylabel("Test − training error\n(percentage points)")
    keys = [
        Line2D([], [], color=MUTED, ls="", marker=MARKS[split], label=NAMES[split])
        if alone
        else Line2D([], [], color=MUTED, ls=dash, lw=width, label=NAMES[split])
        for split, (dash, width) in SPLITS.items()
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=3)
    return figure


def _at(rates: dict[str, float], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are of a model's selected rate."""
    return table[table["learning_rate"] == table["model"].map(rates)]


def _linear(points: pd.DataFrame) -> float | None:
    """Within what distance of 0 the axis of the generalisation gap is linear, where it is not so everywhere."""
    gaps = points.loc[points["metric"] == "generalisation_gap", ["mean", "low", "high"]]
    return WITHIN if (100 * gaps.abs() > WITHIN).any(axis=None) else None


def every_run_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the heat map."""
    states = frames.runs["state"]
    marks = [
        "crosses: runs that diverged" if (states == "diverged").any() else "",
        "empty: runs that failed or are missing" if states.isin(["failed", "missing"]).any() else "",
    ]
    said = "".join(f"; {mark}" for mark in marks if mark)
    shown = (states == "finished").any() and len(states) <= CELLS
    return Caption(
        f"After the last epoch; each row is a seed, each column a learning rate{said}. {runs(findings)}",
        None if shown else f"No run has finished, or there are more than {text.count(CELLS)}.",
        wide=_wide_map(findings),
    )


@canvas.figure(section="completeness", title="Test error of every run", caption=every_run_caption)
def every_run(scene: Scene) -> Figure:
    """A cell for each run: a panel for each model, seeds down, learning rates across."""
    table = scene.frames.runs.assign(error=scene.test_error(scene.frames.runs["final_test_accuracy"]))
    seeds = sorted(table["seed"].unique())
    size = (PAGE if _wide_map(scene.findings) else COLUMN, 0.75 + min(3.5, max(0.8, 0.07 * len(seeds))))
    figure = Figure(figsize=size)
    panels = figure.subplots(1, len(scene.looks), squeeze=False, sharey=True)[0]
    letters = int((size[0] - 0.9) / len(panels) / LETTER)  # of a title above a panel
    low, high = table["error"].min(), table["error"].max()
    norm = LogNorm(low, max(high, low * 1.5))
    for axes, (model, look) in zip(panels, scene.looks.items(), strict=True):
        own = table[table["model"] == model]
        grid = own.pivot_table("error", "seed", "learning_rate").reindex(index=seeds, columns=scene.rates)
        cells = axes.pcolormesh(np.ma.masked_invalid(grid), cmap="cividis_r", norm=norm, edgecolors="white", lw=0.2)
        lost = own[own["state"] == "diverged"]
        x = [scene.rates.index(rate) + 0.5 for rate in lost["learning_rate"]]
        axes.plot(x, [seeds.index(seed) + 0.5 for seed in lost["seed"]], "x", ms=2.5, mew=0.6, color=INK)
        axes.set_title(in_lines(look.label, letters))
        every = -(-len(scene.rates) // 6)
        where = range(0, len(scene.rates), every)
        axes.set_xticks([k + 0.5 for k in where], [text.plain(scene.rates[k]) for k in where], rotation=90)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    step = -(-len(seeds) // 6)
    panels[0].set_yticks([k + 0.5 for k in range(0, len(seeds), step)], [str(s) for s in seeds[::step]])
    panels[0].invert_yaxis()
    panels[0].set_ylabel("Seed")
    figure.supxlabel("Learning rate", fontsize=7)
    bar = figure.colorbar(cells, ax=list(panels), fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0)
    style.log_axis(bar.ax, "Test error (%)")
    if high < 10 * low:
        bar.ax.yaxis.set_major_locator(MaxNLocator(3))  # the bar is as low as the rows are few
    return figure


def cost_caption(findings: Findings, frames: Frames) -> Caption:
    """Of accuracy against what it costs."""
    rates = selected_rates(findings, frames)
    counts = {(c.model, c.learning_rate): c.test_accuracy for c in findings.configurations}
    n = each((model, text.of(counts[model, rate].n, counts[model, rate].planned)) for model, rate in rates.items())
    with_interval = f", with its {level(findings)} t interval over seeds" * over_seeds(findings)
    time = " Seconds: the median of a run's training there, on the machines used." if _timed(findings, frames) else ""
    return Caption(
        f"Mean test accuracy at each model's selected learning rate{with_interval}, against its trainable parameters "
        "and the multiply-accumulates of one image's forward pass."
        f"{time} Planned runs: {n}.",
        None if rates else "No run learned at a selected learning rate.",
        wide=True,
    )


@canvas.figure(section="robustness", title="Accuracy against cost", caption=cost_caption)
def cost(scene: Scene) -> Figure:
    """Test accuracy against parameters, multiply-accumulates and seconds."""
    rates = selected_rates(scene.findings, scene.frames)
    found = {(c.model, c.learning_rate): c.test_accuracy for c in scene.findings.configurations}
    about = {m.name: m for m in scene.findings.about.models}
    costs: dict[str, dict[str, float]] = {
        "Thousand parameters": {m: about[m].n_parameters / 1000 for m in rates},
        "Thousand multiply-accumulates an image": {m: about[m].macs / 1000 for m in rates},
        "Seconds a run": _timed(scene.findings, scene.frames),
    }
    costs = {what: values for what, values in costs.items() if values and min(values.values()) > 0}
    figure = Figure(figsize=(PAGE, 2.1))
    panels = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    for axes, (what, values) in zip(panels, costs.items(), strict=True):
        for model, x in values.items():
            look, e = scene.looks[model], found[model, rates[model]]
            if e.estimate is None:
                continue
            if e.low is not None and e.high is not None:
                axes.plot([x, x], [100 * e.low, 100 * e.high], color=look.colour, lw=0.8, marker="_", ms=5)
            # Smaller than most intervals, which it would otherwise hide.
            (point,) = axes.plot(x, 100 * e.estimate, look.marker, ms=2.6, color=look.colour, mec="white", mew=0.3)
            style.tell(point, [f"{look.label}: {text.percent(e.estimate)}, {x:,.4g} {what.lower()}"])
        axes.set_xscale("log")
        low, high = min(values.values()), max(values.values())
        axes.set_xlim(low / 2, high * 2)
        style.log_axis(axes, what, "x")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))  # panels are narrow
        axes.grid()
    panels[0].set_ylabel("Test accuracy (%)")
    legend(figure, (scene.looks[model] for model in rates))
    return figure


def _timed(findings: Findings, frames: Frames) -> dict[str, float]:
    """Model → median seconds of a run at its selected rate; empty where a model has none."""
    rates = selected_rates(findings, frames)
    runs = frames.runs[frames.runs["learned"]]
    medians = {
        model: runs.loc[(runs["model"] == model) & (runs["learning_rate"] == rate), "train_seconds"].median()
        for model, rate in rates.items()
    }
    return {} if any(pd.isna(m) for m in medians.values()) else {model: float(m) for model, m in medians.items()}


def _wide_map(findings: Findings) -> bool:
    return len(findings.about.models) * len(findings.about.learning_rates) > 20


def _images(findings: Findings, split: str) -> int:
    about = findings.about
    return {"train": about.n_train, "val": about.n_val, "test": about.n_test}[split]

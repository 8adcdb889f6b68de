"""How the models learn: error over epochs, error and loss across learning rates, luck in choosing one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.figures import canvas, style
from analysis.report.figures.canvas import Caption, Scene, error, legend, spread
from analysis.report.figures.style import COLUMN, INK, MUTED, PAGE, Look
from analysis.report.phrases import each, guessing, level, over_seeds, runs
from analysis.stats.selection import Choice

PANELS = 18
"""Learning rates that get a panel each; of more, only the selected ones do."""


def panel_rates(findings: Findings) -> tuple[float, ...]:
    """The learning rates that the learning curves show, in order."""
    rates = tuple(sorted(findings.about.learning_rates))
    if len(rates) <= PANELS:
        return rates
    chosen = {choice.mean.learning_rate for choice in findings.selection.values()}
    return tuple(rate for rate in rates if rate in chosen) or rates[:PANELS]


def learning_curves_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the error over epochs."""
    rates = panel_rates(findings)
    shown, planned = len(rates), len(findings.about.learning_rates)
    some = "" if shown == planned else f" ({shown} of {planned}: those selected)"
    drawn = frames.runs[frames.runs["learning_rate"].isin(rates)]
    diverged = drawn[drawn["state"] == "diverged"]
    at_once = ~diverged["run_id"].isin(frames.epochs["run_id"])
    crosses = [
        "a cross where one diverged" if (~at_once).any() else "",
        "above the frame a cross with their number for those that diverged in the first epoch" if at_once.any() else "",
    ]
    with_interval = f", with its {level(findings)} t interval over seeds where all runs did" * over_seeds(findings)
    said = [
        f"Error on the test images after each epoch, one panel per learning rate{some}.",
        f"{', '.join(['Thin lines: runs', *filter(None, crosses)])}.",
        f"Dotted: guessing ({guessing(findings)} error)." if near_guessing(frames, rates) else "",
        f"Thick lines: mean over the runs that learned{with_interval}."
        if drawn["learned"].any()
        else "No run learned, so there is no mean.",
        "Outlined end marks: the rate selected for that model." if drawn["learned"].any() else "",
        _not_learned(findings),
        runs(findings),
    ]
    missing = None if len(frames.epochs) else "No run has completed an epoch."
    return Caption(" ".join(filter(None, said)), missing, wide=shown > 2)


@canvas.figure(section="learning", title="Learning curves", caption=learning_curves_caption)
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
    ended = scene.frames.runs[scene.frames.runs["state"] == "diverged"]
    lost = ended[~ended["run_id"].isin(runs["run_id"])]
    guessed = near_guessing(scene.frames, rates)
    last = scene.findings.about.epochs
    for axes in panels.flat[len(rates) :]:
        axes.set_visible(False)
    for axes, rate in zip(panels.flat, rates, strict=False):
        at_once = lost.loc[lost["learning_rate"] == rate, "model"].value_counts()
        for place, model in enumerate(model for model in reversed(list(scene.looks)) if model in at_once):
            _diverged_at_once(axes, int(at_once[model]), scene.looks[model], place)
        for model, look in scene.looks.items():
            own = runs[(runs["model"] == model) & (runs["learning_rate"] == rate)]
            _runs(axes, own, look, last)
            mean = means[(means["model"] == model) & (means["learning_rate"] == rate)]
            band = dict(color=look.colour, alpha=0.18, lw=0)
            axes.fill_between(mean["epoch"], scene.test_error(mean["high"]), scene.test_error(mean["low"]), **band)
            end: dict[str, Any] = dict(marker=look.marker, markevery=[-1], ms=3, mec="white", mew=0.3)
            if rate == scene.selected(model):
                end |= dict(ms=4.2, mec=INK, mew=0.9)
            axes.plot(mean["epoch"], scene.test_error(mean["mean"]), color=look.colour, ls=look.dash, zorder=3, **end)
        if guessed:
            chance(axes, scene)
        axes.set_title(f"Rate {text.plain(rate)}")
        axes.set_xlim(1 - 0.05 * last, last * 1.05)
        axes.set_xticks(sorted({1, max(1, last // 2), last}))
        axes.grid(axis="y")
    panels[0, 0].set_ylim(runs["error"].min() / 1.25, min(100.0, runs["error"].max()) * 1.15)
    for axes in panels[:, 0]:
        style.log_axis(axes, "Test error (%)")
    figure.supxlabel("Epoch", fontsize=7)
    legend(figure, scene.looks.values())
    return figure


def _runs(axes: Axes, runs: pd.DataFrame, look: Look, last: int) -> None:
    """Every run a faint line, with a cross where it stopped before the last epoch."""
    lines = [run[["epoch", "error"]].to_numpy() for _, run in runs.groupby("run_id")]
    axes.add_collection(LineCollection(lines, colors=look.colour, linewidths=0.35, alpha=0.45))
    stopped = np.array([line[-1] for line in lines if line[-1, 0] < last]).reshape(-1, 2)
    axes.plot(*stopped.T, "x", ms=2.5, mew=0.6, color=look.colour)


def learning_rates_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of the error of every run against its learning rate."""
    said = [
        "Every finished run is a point, on a logarithmic axis; lines join the medians of the runs that learned.",
        f"Dotted: guessing ({guessing(findings)} error); collapsed runs lie about it and are in no median."
        if near_guessing(frames)
        else "",
        "Rings: the rate with the best mean validation accuracy.",
        "Crosses above the frame count diverged runs." if (frames.runs["state"] == "diverged").any() else "",
        "Models are set slightly apart." if len(findings.about.models) > 1 else "",
        runs(findings),
    ]
    return Caption(" ".join(filter(None, said)), _nothing_finished(frames))


@canvas.figure(section="rates", title="Test error across learning rates", caption=learning_rates_caption)
def learning_rates(scene: Scene) -> Figure:
    """Test error against learning rate: every run a point, medians joined, the selected rate ringed."""
    figure = Figure(figsize=(COLUMN, 2.7))
    axes = figure.subplots()
    _against_rate(axes, scene, "test_accuracy", scene.test_error)
    if near_guessing(scene.frames):
        chance(axes, scene)
    style.log_axis(axes, "Test error (%)")
    legend(figure, scene.looks.values())
    return figure


def losses_caption(findings: Findings, frames: Frames) -> Caption:
    """Of calibration, and of validation against test."""
    return Caption(
        "Left: mean cross-entropy on the test images of every finished run, marked as in the figure of test errors. "
        "Right: validation and test error of every finished run, filled at its model's selected rate; the line "
        f"marks equality, and a run without an error stands at half an error. {runs(findings)}",
        _nothing_finished(frames),
        wide=True,
    )


@canvas.figure(section="learning", title="Test loss, and validation against test", caption=losses_caption)
def losses(scene: Scene) -> Figure:
    """Test loss against learning rate, and test against validation error of every run."""
    figure = Figure(figsize=(PAGE, 2.7))
    left, right = figure.subplots(1, 2)
    _against_rate(left, scene, "test_loss", lambda loss: loss)
    style.log_axis(left, "Test loss (nats)")
    ended = scene.frames.runs[scene.frames.runs["state"] == "finished"]
    for model, look in scene.looks.items():
        of_model = ended[ended["model"] == model]
        for chosen, group in of_model.groupby(of_model["learning_rate"] == scene.selected(model)):
            right.plot(
                error(group["final_val_accuracy"], scene.findings.about.n_val),
                scene.test_error(group["final_test_accuracy"]),
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
    legend(figure, scene.looks.values())
    return figure


def selection_caption(findings: Findings, frames: Frames) -> Caption:
    """Caption of how near the choice of each learning rate was."""
    known = _selected(findings)
    images = "and validation images " if known and all(c.images_resampled for c in known.values()) else ""
    missing = None if known else "No learning rate could be selected."
    if len(findings.about.learning_rates) == 1:
        missing = "There is only one learning rate to choose."
    return Caption(
        f"Share of {text.count(findings.about.settings.resamples)} resamples of seeds {images}in which each learning "
        "rate has the best mean validation accuracy. Without a claim to coverage. Models are set slightly apart. "
        f"{runs(findings)}",
        missing,
    )


@canvas.figure(section="learning", title="Luck in choosing the learning rate", caption=selection_caption)
def selection(scene: Scene) -> Figure:
    """How often each learning rate is the one selected when seeds and validation images are drawn again."""
    figure = Figure(figsize=(COLUMN, 1.9))
    axes = figure.subplots()
    apart = dict(zip(scene.looks, spread(len(scene.looks), min(0.06, 0.25 * scene.room)), strict=True))
    known = _selected(scene.findings)
    for model, choice in known.items():
        look = scene.looks[model]
        x = np.array([float(rate) for rate in choice.luck]) * 10 ** apart[model]
        share = 100 * np.array(list(choice.luck.values()))
        axes.vlines(x, 0, share, color=look.colour, lw=1.6)
        axes.plot(x, share, ls="", marker=look.marker, color=look.colour, clip_on=False)
    style.rate_axis(axes, scene.rates)
    axes.set_ylim(0, 105)
    axes.set_ylabel("Selected in resamples (%)")
    axes.grid(axis="y")
    legend(figure, (scene.looks[model] for model in known))
    return figure


def _selected(findings: Findings) -> dict[str, Choice]:
    """The choices of the models for which any resample has one."""
    return {model: choice for model, choice in findings.selection.items() if any(choice.luck.values())}


def _against_rate(axes: Axes, scene: Scene, metric: str, shown: Callable[[pd.Series], pd.Series]) -> None:
    """Every finished run at its rate, the medians of those that learned, and the number that diverged above."""
    runs = scene.frames.runs
    apart = dict(zip(scene.looks, spread(len(scene.looks), min(0.09, 0.25 * scene.room)), strict=True))
    # A mean lies where no run is when one of few runs is far off.
    learned = runs[runs["learned"]].groupby(["model", "learning_rate"])[f"final_{metric}"].median()
    for model, look in scene.looks.items():
        for rate, group in runs[runs["model"] == model].groupby("learning_rate"):
            center = rate * 10 ** apart[model]
            ended = group[group["state"] == "finished"]
            x = center * 10 ** spread(len(ended), min(0.022, 0.06 * scene.room))
            small: dict[str, Any] = dict(ms=2.2, mfc=look.colour, mec="none", alpha=0.5)
            y = shown(ended[f"final_{metric}"])
            (points,) = axes.plot(x, y, ls="", marker=look.marker, **small)
            runs_of = zip(ended["seed"], y, strict=True)
            style.tell(points, (f"{look.label} at {text.plain(rate)}, seed {seed}: {v:.3g}" for seed, v in runs_of))
            if diverged := int((group["state"] == "diverged").sum()):
                _count_above(axes, center, diverged, look)
        medians = learned[learned.index.get_level_values("model") == model].droplevel("model")
        where, heights = medians.index.to_numpy() * 10 ** apart[model], shown(medians.to_numpy())
        axes.plot(where, heights, color=look.colour, ls=look.dash, marker="_", ms=6, mew=1.2)
        if (selected := scene.selected(model)) in medians.index:
            at = medians.index.get_loc(selected)
            axes.plot(where[at], heights[at], "o", ms=9, mfc="none", mec=look.colour, mew=0.9)
    style.rate_axis(axes, scene.rates)
    axes.grid(axis="y")


def _diverged_at_once(axes: Axes, n: int, look: Look, place: int) -> None:
    """A cross above the frame, right of the title, with the number of runs without a curve; others below it."""
    words: dict[str, Any] = dict(ha="right", va="bottom", fontsize=6, color=look.colour, transform=axes.transAxes)
    axes.text(1, 1.035 + 0.09 * place, f"× {text.count(n)}", **words)


def near_guessing(frames: Frames, rates: Sequence[float] | None = None) -> bool:
    """Whether an error among what is drawn is at least half that of guessing, so that the line of guessing is near it.

    Of all epochs at `rates` where they are given, else of the finished runs.
    """
    runs = frames.runs
    if rates is None:
        accuracies = runs.loc[runs["state"] == "finished", "final_test_accuracy"]
    else:
        drawn = runs.loc[runs["learning_rate"].isin(rates), "run_id"]
        accuracies = frames.epochs.loc[frames.epochs["run_id"].isin(drawn), "test_accuracy"]
    return bool((1 - accuracies.astype(float) >= (1 - 1 / frames.classes) / 2).any())


def _count_above(axes: Axes, x: float, n: int, look: Look) -> None:
    """A cross above the frame with the number of runs it stands for."""
    top = axes.get_xaxis_transform()
    axes.plot(x, 1.02, "x", ms=3.5, color=look.colour, transform=top, clip_on=False)
    looks: dict[str, Any] = dict(ha="center", fontsize=6, color=look.colour)
    axes.annotate(str(n), (x, 1.02), xycoords=top, xytext=(0, 4), textcoords="offset points", **looks)


def chance(axes: Axes, scene: Scene) -> None:
    """A thin line at the error of guessing."""
    axes.axhline(100 * (1 - 1 / scene.findings.about.classes), color=MUTED, lw=0.6, ls=(0, (1, 2)), zorder=1)


def _not_learned(findings: Findings) -> str:
    """Where the runs drawn are not all in the mean, or none is."""
    shown = panel_rates(findings)
    rates: dict[str, list[str]] = {}
    alike = 0
    for c in findings.completeness:
        if c.learning_rate in shown and c.diverged + c.collapsed:
            ended = c.finished + c.diverged
            learned = c.finished - c.collapsed
            alike = max(alike, c.collapsed)
            rates.setdefault(c.model, []).append(f"{text.of(learned, ended)} at {text.plain(c.learning_rate)}")
    if not rates:
        return ""
    counts = each((model, " and ".join(found)) for model, found in rates.items())
    return f"Not all learned: {counts}{'; lines of runs that guess lie upon each other' if alike > 1 else ''}."


def _nothing_finished(frames: Frames) -> str | None:
    """Why no finished run can be drawn."""
    return None if (frames.runs["state"] == "finished").any() else "No run has finished."

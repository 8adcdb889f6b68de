"""What each figure shows, in words: interval, level and what it rests on; or why it is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from analysis import text
from analysis.findings import Findings
from analysis.frames import Frames

PANELS = 18
"""Learning rates that get a panel each; of more, only the selected ones do."""

CURVES = 3
"""Baselines whose specification curves fit side by side; the table holds all."""


@dataclass(frozen=True)
class Caption:
    """A figure's name, title and text; `missing` says why there is nothing to draw."""

    name: str
    title: str
    text: str
    missing: str | None = None
    wide: bool = False
    """Drawn at the full text width, not at one column's."""

    def write(self, folder: Path) -> list[Path]:
        """Write the caption as .txt and .tex beside the figure; the paths written."""
        shown = f"{self.title}. {self.text}" if self.missing is None else f"{self.title}: not drawn. {self.missing}"
        paths = {folder / f"{self.name}.txt": shown, folder / f"{self.name}.tex": text.latex(shown)}
        for path, content in paths.items():
            path.write_text(content + "\n", encoding="utf-8")
        return list(paths)


def captions(findings: Findings, frames: Frames) -> tuple[Caption, ...]:
    """The caption of every figure, in the order a reader meets them."""
    return tuple(caption(findings, frames) for caption in CAPTIONS)


def panel_rates(findings: Findings) -> tuple[float, ...]:
    """The learning rates that the learning curves show, in order."""
    rates = tuple(sorted(findings.about.learning_rates))
    if len(rates) <= PANELS:
        return rates
    chosen = {choice.mean.learning_rate for choice in findings.selection.values()} - {None}
    return tuple(sorted(chosen)) or rates[:PANELS]


def curve_baselines(findings: Findings) -> list[str]:
    """The baselines whose specification curves are drawn."""
    return [baseline for baseline, asked in findings.robustness.items() if asked.specifications][:CURVES]


def gap(findings: Findings, frames: Frames) -> Caption:
    """Of the primary comparison."""
    settings = findings.about.settings
    untrained = _each((c.baseline, n) for c in findings.comparisons if (n := sum(c.not_trained.values())))
    return Caption(
        "gap",
        f"Gap of {settings.candidate} to each baseline",
        f"Test accuracy of {settings.candidate} minus that of the baseline, each at its selected learning rate. Each "
        "point is one pair of trainings that share their seed. Thick bars: mean and "
        f"{text.level(settings.confidence)} t interval over seeds (this test set). Thin bars: "
        f"{text.level(settings.confidence)} interval over seeds and digits (new digits of the same kind). Grey: the "
        f"margin of ±{text.plain(100 * settings.margin)} points. Planned pairs in which both models trained: "
        f"{_pairs(findings)}."
        + (f" Runs at these rates that did not train and are not drawn: {untrained}." if untrained else ""),
        _no_pairs(findings),
    )


def learning_rates(findings: Findings, frames: Frames) -> Caption:
    """Of the error of every run against its learning rate."""
    chance = text.plain(round(100 * (1 - 1 / findings.about.classes), 1))
    return Caption(
        "learning_rates",
        "Test error across learning rates",
        "Every finished run is a point, on a logarithmic axis, collapsed ones near the top "
        f"({chance}% error); lines join the means over the runs that trained. Rings: the rate with the best mean "
        "validation accuracy. Crosses above the frame count diverged runs. Models are set slightly apart. "
        f"{_runs(findings)}",
        _nothing_finished(frames),
    )


def sweep(findings: Findings, frames: Frames) -> Caption:
    """Of the gap at equal learning rates."""
    level = text.level(findings.about.settings.confidence)
    drawn = [(at, b) for b, s in findings.sweep.items() for at in s.rates if at.gap.estimate is not None]
    counts = _each((f"{b} at {text.plain(at.learning_rate)}", text.of(at.gap.n, at.gap.planned)) for at, b in drawn)
    return Caption(
        "sweep",
        "Gap at equal learning rates",
        f"Mean paired difference where both models use the same learning rate. Thick: {level} t interval for that "
        f"rate alone. Thin: simultaneous {level} band over all rates drawn. Crosses: no inference, as half or more "
        f"of a model's runs did not train. Planned pairs: {counts}.",
        None if drawn else "At no learning rate did both models train.",
    )


def learning_curves(findings: Findings, frames: Frames) -> Caption:
    """Of the error over epochs."""
    shown, planned = len(panel_rates(findings)), len(findings.about.learning_rates)
    some = "" if shown == planned else f" ({shown} of {planned}: those selected)"
    return Caption(
        "learning_curves",
        "Learning curves",
        f"Error on the test digits after each epoch, one panel per learning rate{some}. Thin lines: runs, a cross "
        f"where one diverged. Thick lines: mean over seeds with its {text.level(findings.about.settings.confidence)} "
        "t interval at each epoch, over the runs still finite there. Outlined end marks: the rate selected for that "
        "model. " + _runs(findings),
        None if len(frames.epochs) else "No run has completed an epoch.",
        wide=True,
    )


def losses(findings: Findings, frames: Frames) -> Caption:
    """Of calibration, and of validation against test."""
    return Caption(
        "losses",
        "Test loss, and validation against test",
        "Left: mean cross-entropy on the test digits of every finished run, marked as in the figure of test errors. "
        "Right: validation and test error of every finished run, filled at its model's selected rate; the line "
        f"marks equality, and a run without an error stands at half an error. {_runs(findings)}",
        _nothing_finished(frames),
        wide=True,
    )


def selection(findings: Findings, frames: Frames) -> Caption:
    """Of how near the choice of each learning rate was."""
    known = [c for c in findings.selection.values() if c.luck]
    digits = "and validation digits " if known and all(c.digits_resampled for c in known) else ""
    return Caption(
        "selection",
        "Luck in choosing the learning rate",
        f"Share of {text.count(findings.about.settings.resamples)} resamples of seeds {digits}in which each learning "
        f"rate has the best mean validation accuracy. Without a claim to coverage. {_runs(findings)}",
        None if known and len(findings.about.learning_rates) > 1 else "There is only one learning rate to choose.",
    )


def classes(findings: Findings, frames: Frames) -> Caption:
    """Of the gap per class."""
    level = text.level(findings.about.settings.confidence)
    drawn = [c.gap for d in findings.digits.values() for c in d.classes]
    return Caption(
        "classes",
        "Gap by class",
        f"Mean paired difference on the test digits of each class at the selected learning rates, with its {level} "
        "interval over seeds and digits. Filled: differs from 0 at that level after Holm's correction over all "
        f"baselines and classes. Planned pairs: {_pairs(findings)}.",
        None
        if any(e.estimate is not None for e in drawn)
        else "No pair of runs has trained whose predictions are there.",
    )


def hard_digits(findings: Findings, frames: Frames) -> Caption:
    """Of the digits that only one model can read."""
    hard = {b: d.hard for b, d in findings.digits.items() if d.hard is not None}
    found = any(h.baseline_alone_wrong or h.candidate_alone_wrong for h in hard.values())
    both = _each((b, text.count(len(h.both_wrong))) for b, h in hard.items())
    return Caption(
        "hard_digits",
        "Digits that only one model reads",
        "Test digits that one model gets wrong with every seed and the other right with every seed, their true "
        "class above; how many there are in brackets, of which the first are shown. Read by neither with any seed: "
        f"{both}. Planned pairs: {_pairs(findings)}.",
        None if found else "No test digit is read by every run of one model and by none of the other.",
        wide=True,
    )


def confusion(findings: Findings, frames: Frames) -> Caption:
    """Of the confusion matrices."""
    n = _each(
        (c.model, text.of(c.test_accuracy.n, c.test_accuracy.planned))
        for c in findings.configurations
        if c.model in findings.confusion and findings.selection[c.model].mean.learning_rate == c.learning_rate
    )
    return Caption(
        "confusion",
        "Confusions at the selected learning rates",
        "Per cent of each true class predicted as each other class, mean over the runs that trained; right answers "
        f"are left out, and shares below 0.05%. Planned runs: {n}.",
        None if findings.confusion else "No run has trained whose predictions are there.",
        wide=len(findings.confusion) > 1,
    )


def specifications(findings: Findings, frames: Frames) -> Caption:
    """Of the specification curve."""
    asked = curve_baselines(findings)
    same = _each((b, text.of(r.same_sign or 0, r.alternatives)) for b, r in findings.robustness.items() if b in asked)
    more = len(findings.comparisons) - len(asked)
    return Caption(
        "specifications",
        "Every way to analyse the same data",
        "The gap by every combination of the choices below, in order of its estimate, with a "
        f"{text.level(findings.about.settings.confidence)} interval where one is defined. Black: the primary analysis. "
        f"Alternatives with the same sign: {same}. Descriptive, for specifications share data. Planned pairs that "
        f"trained: {_pairs(findings)}." + (f" Baselines that are in the table only: {more}." if more else ""),
        None if asked else "No pair of runs has trained.",
        wide=len(asked) > 1,
    )


def variance(findings: Findings, frames: Frames) -> Caption:
    """Of the components of variance."""
    drawn = {
        model: [c.variance for c in v.components.components if c.variance.estimate is not None]
        for model, v in findings.variance.items()
    }
    n = _each((model, text.rests_on(known[0])) for model, known in drawn.items() if known)
    return Caption(
        "variance",
        "Where the spread comes from",
        "Components of variance of test accuracy at the selected rate, as standard deviations, with "
        f"{text.level(findings.about.settings.confidence)} bootstrap intervals; negative estimates stand at 0. The "
        f"highest interaction includes nondeterminism. Planned: {n}.",
        None if n else "The seeds of this study are no complete factorial.",
    )


def planning(findings: Findings, frames: Frames) -> Caption:
    """Of what more seeds would bring."""
    margin = text.plain(100 * findings.about.settings.margin)
    return Caption(
        "planning",
        "Precision against the number of seeds",
        f"Expected half-width of the {text.level(findings.about.settings.confidence)} interval of the gap if what "
        "was seen holds: over seeds, and over seeds and digits, which more seeds never push below its floor. Marks: "
        f"this study, over seeds. Grey line: the margin of {margin} points. Planned pairs: {_pairs(findings)}.",
        None if any(p.precision for p in findings.planning.values()) else "The spread over seeds is unknown.",
    )


def normality(findings: Findings, frames: Frames) -> Caption:
    """Of the QQ plot."""
    enough = any(len(c.seeds.quantiles) > 2 for c in findings.comparisons)
    return Caption(
        "normality",
        "Differences against a normal distribution",
        "Paired differences in order, against the quantiles that a normal sample would have: a straight line speaks "
        "for the t interval. Descriptive, for no test of normality gates the analysis. Planned pairs: "
        f"{_pairs(findings)}.",
        None if enough else "Fewer than three pairs have trained.",
    )


CAPTIONS: tuple[Callable[[Findings, Frames], Caption], ...] = (
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


def _each(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)


def _pairs(findings: Findings) -> str:
    return _each((c.baseline, text.of(c.pairs, c.planned)) for c in findings.comparisons)


def _no_pairs(findings: Findings) -> str | None:
    if not findings.comparisons:
        return "The study has one model."
    return None if any(c.pairs for c in findings.comparisons) else "No pair of runs trained at the selected rates."


def _runs(findings: Findings) -> str:
    counts = findings.completeness
    finished, diverged = (sum(getattr(c, name) for c in counts) for name in ("finished", "diverged"))
    return f"{text.of(finished, findings.about.planned)} planned runs finished, {text.count(diverged)} diverged."


def _nothing_finished(frames: Frames) -> str | None:
    return None if (frames.runs["state"] == "finished").any() else "No run has finished."

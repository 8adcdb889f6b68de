"""What each figure shows, in words: interval, level and what it rests on; or why it is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from analysis import text
from analysis.findings import Findings
from analysis.frames import Frames


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


def gap(findings: Findings, frames: Frames) -> Caption:
    """Of the primary comparison."""
    settings = findings.about.settings
    pairs = _each((c.baseline, text.of(c.pairs, c.planned)) for c in findings.comparisons)
    apart = _each(
        (c.baseline, sum(c.not_trained.values())) for c in findings.comparisons if sum(c.not_trained.values())
    )
    drawn = any(c.pairs for c in findings.comparisons)
    return Caption(
        "gap",
        f"Gap of {settings.candidate} to each baseline",
        "Each point is one pair of trainings that share their seed, each model at its selected learning rate. Thick bars: "
        f"mean with {text.level(settings.confidence)} t interval over seeds (this test set); thin bars: "
        f"{text.level(settings.confidence)} interval over seeds and digits (new digits of the same kind). Grey: the margin of "
        f"±{text.plain(100 * settings.margin)} points. Pairs in which both trained: {pairs}."
        + (f" Runs that did not train at these rates and are not drawn: {apart}." if apart else ""),
        None if drawn else "No pair of runs has trained at the selected learning rates.",
    )


def learning_rates(findings: Findings, frames: Frames) -> Caption:
    """Of the error of every run against its learning rate."""
    return Caption(
        "learning_rates",
        "Test error across learning rates",
        f"Every finished run is a point; lines join the means over seeds, so collapsed runs (near {_chance(findings)}% error) "
        "pull them up. Rings: the rate with the best mean validation accuracy. Crosses above the frame count diverged runs. "
        f"Models are set slightly apart. {_runs(findings)}",
        _nothing_finished(frames),
    )


def learning_curves(findings: Findings, frames: Frames) -> Caption:
    """Of the error over epochs."""
    return Caption(
        "learning_curves",
        "Learning curves",
        "Error on the test digits after each epoch, one panel per learning rate. Thin lines: runs, a cross where one diverged. "
        f"Thick lines: mean over seeds with its {text.level(findings.about.settings.confidence)} t interval at each epoch, over "
        f"the runs still finite there. Outlined end marks: the rate selected for that model. {_runs(findings)}",
        None if len(frames.epochs) else "No run has completed an epoch.",
        wide=True,
    )


def losses(findings: Findings, frames: Frames) -> Caption:
    """Of calibration, and of validation against test."""
    return Caption(
        "losses",
        "Test loss, and validation against test",
        "Left: mean cross-entropy on the test digits of every finished run, means joined, marks as in the figure of test errors. "
        "Right: validation and test error of every finished run, filled at its model's selected rate; the line marks equality. "
        f"{_runs(findings)}",
        _nothing_finished(frames),
        wide=True,
    )


def selection(findings: Findings, frames: Frames) -> Caption:
    """Of how near the choice of each learning rate was."""
    known = [c for c in findings.selection.values() if c.luck]
    digits = all(c.digits_resampled for c in known)
    return Caption(
        "selection",
        "Luck in choosing the learning rate",
        f"Share of {text.count(findings.about.settings.resamples)} resamples of seeds {'and validation digits ' * digits}in "
        "which each learning rate has the best mean validation accuracy. A description of how near the choice was, without a "
        f"claim to coverage. {_runs(findings)}",
        None if known and len(findings.about.learning_rates) > 1 else "There is only one learning rate to choose.",
    )


def normality(findings: Findings, frames: Frames) -> Caption:
    """Of the QQ plot."""
    enough = [c for c in findings.comparisons if len(c.seeds.quantiles) > 2]
    return Caption(
        "normality",
        "Differences against a normal distribution",
        "Paired differences in order, against the quantiles that a normal sample would have: a straight line speaks for the t "
        f"interval. Descriptive; no test gates the analysis. Pairs: {_each((c.baseline, text.of(c.pairs, c.planned)) for c in enough)}.",
        None if enough else "Fewer than three pairs have trained.",
    )


CAPTIONS: tuple[Callable[[Findings, Frames], Caption], ...] = (
    gap,
    learning_rates,
    learning_curves,
    losses,
    selection,
    normality,
)


def _each(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)


def _chance(findings: Findings) -> str:
    return text.plain(round(100 * (1 - 1 / findings.about.classes), 1))


def _runs(findings: Findings) -> str:
    counts = findings.completeness
    finished, diverged = (sum(getattr(c, name) for c in counts) for name in ("finished", "diverged"))
    return f"{text.of(finished, findings.about.planned)} planned runs finished, {text.count(diverged)} diverged."


def _nothing_finished(frames: Frames) -> str | None:
    return None if (frames.runs["state"] == "finished").any() else "No run has finished."

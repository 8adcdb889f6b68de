"""The findings as tables. Every table says how many of the planned runs its numbers rest on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import formats, text
from analysis.estimate import Estimate
from analysis.findings import Comparison, Findings
from analysis.formats import Cell, Rows, Table, number, words
from analysis.frames import Frames


def build(findings: Findings) -> tuple[Table, ...]:
    """All tables that have rows, in the order a reader meets them."""
    tables = (make(findings) for make in TABLES)
    return tuple(table for table in tables if table is not None)


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write every table into `folder` as CSV, Markdown and LaTeX; the paths written."""
    return formats.write(build(findings), folder)


def gaps(findings: Findings) -> Table | None:
    """The primary comparison: the gap per baseline, both populations, test and verdict."""
    rows = Rows()
    settings = findings.about.settings
    for c in findings.comparisons:
        mean = c.seeds.mean
        digits = text.point_digits(mean.low, mean.high)
        rows.add(
            Baseline=words("baseline", c.baseline),
            Errors=Cell(
                f"{_percent(c.candidate_error)} / {_percent(c.baseline_error)}",
                {
                    "candidate_rate": c.candidate_rate,
                    "baseline_rate": c.baseline_rate,
                    "candidate_error": c.candidate_error,
                    "baseline_error": c.baseline_error,
                },
            ),
            Gap=rows.estimate("gap", mean, text.points(mean.estimate, digits)),
            Over_seeds=number("over_seeds", mean.low, text.points_interval(mean.low, mean.high)),
            And_digits=_crossed(rows, c),
            p=rows.estimate("sign_flip", c.seeds.sign_flip, text.p_value(c.seeds.sign_flip.p_value)),
            Ahead=number("wins", c.seeds.wins, f"{c.seeds.wins} : {c.seeds.ties} : {c.seeds.losses}"),
            Pairs=Cell(text.of(c.pairs, c.planned), {"pairs": c.pairs, "pairs_planned": c.planned}),
            Verdict=words("verdict", c.seeds.verdict or text.DASH),
        )
    return rows.table(
        "gaps",
        f"Gap of {settings.candidate} to each baseline",
        f"Test accuracy of {settings.candidate} minus that of the baseline, in percentage points, each at the learning "
        "rate with the best mean validation accuracy. Errors: mean per cent of test digits wrong, candidate / baseline. "
        f"Intervals at {text.level(settings.confidence)}: over seeds by t (this test set); and digits: over seeds and "
        "digits, two-way crossed closed form (new digits of the same kind). p: exact sign-flip test, two-sided. Ahead: "
        f"pairs won : tied : lost. Verdict at a margin of {text.plain(100 * settings.margin)} points, over seeds, at "
        f"{text.level(1 - (1 - settings.confidence) / max(1, len(settings.baselines)))}.",
    )


def configurations(findings: Findings) -> Table | None:
    """Every model at every learning rate."""
    rows = Rows()
    counts = {(c.model, c.learning_rate): c for c in findings.completeness}
    for c in findings.configurations:
        selection = findings.selection.get(c.model)
        chosen = selection is not None and selection.mean.learning_rate == c.learning_rate
        test, val, loss = c.test_accuracy, c.val_accuracy, c.test_loss
        known = counts[c.model, c.learning_rate]
        rows.add(
            Model=words("model", c.model),
            Rate=number("learning_rate", c.learning_rate, _rate(c.learning_rate) + (" ★" if chosen else "")),
            **{
                "Val. %": rows.estimate("val_accuracy", val, _percent(val.estimate)),
                "Test %": rows.estimate("test_accuracy", test, _percent(test.estimate)),
                "SD": number("test_accuracy_sd", c.test_accuracy_sd, _percent(c.test_accuracy_sd)),
                "Interval": number("test_low", test.low, _range(test)),
                "Test loss": rows.estimate("test_loss", loss, _figures(loss.estimate)),
                "Trained": Cell(text.of(test.n, test.planned), {"n": test.n, "planned": test.planned}),
                "Not trained": words("not_trained", _outcomes(known)),
            },
        )
    return rows.table(
        "configurations",
        "Accuracy of every configuration",
        "Mean over the runs that trained, of all planned; ★ the rate selected by mean validation accuracy; SD with "
        f"n − 1; {text.level(findings.about.settings.confidence)} t interval over seeds, in per cent.",
    )


def completeness(findings: Findings) -> Table | None:
    """What became of every planned run."""
    rows = Rows()
    for c in findings.completeness:
        states = {name: getattr(c, name) for name in ("finished", "collapsed", "diverged", "failed", "missing")}
        rows.add(
            Model=words("model", c.model),
            Rate=number("learning_rate", c.learning_rate, _rate(c.learning_rate)),
            **{name.capitalize(): number(name, k, text.of(k, c.planned)) for name, k in states.items()},
        )
    return rows.table(
        "completeness",
        "What became of the planned runs",
        "Finished runs include the collapsed, whose final training accuracy stayed below twice that of guessing. "
        "Diverged and collapsed runs are outcomes of training; failed and missing ones are the absence of one and enter "
        "no number.",
    )


def checks(findings: Findings) -> Table | None:
    """The same comparison by other methods."""
    rows = Rows()
    points = {"mean", "verdict_interval", "equivalence_interval", "bca", "welch"}
    for c in findings.comparisons:
        for name, e in c.seeds:
            if isinstance(e, Estimate) and name != "mean":
                _row(rows, c.baseline, name.replace("_", " "), e, points=name in points)
    return rows.table(
        "checks",
        "The same gap by other methods",
        "Estimate and interval in percentage points where marked pp. None of these decides; the families' confirmatory "
        "test is the sign-flip test of the first table.",
        long=True,
    )


def sensitivity(findings: Findings) -> Table | None:
    """The gap under other treatments of selection and of runs that did not train."""
    rows = Rows()
    for c in findings.comparisons:
        for name, e in c.sensitivity.items():
            _row(rows, c.baseline, name.replace("_", " "), e, points=True)
    return rows.table(
        "sensitivity",
        "The gap under other choices",
        "Point sensitivities, without a claim to coverage unless an interval is given; percentage points.",
    )


def literature(findings: Findings) -> Table | None:
    """Published results beside ours."""
    rows = Rows()
    for r in findings.literature:
        ours = None if r.ours is None else r.ours.estimate
        rows.add(
            Model=words("model", r.model),
            Source=words("source", r.source),
            Published=number("published_accuracy", r.accuracy, text.percent(r.accuracy)),
            Ours=rows.estimate("ours", r.ours, text.percent(ours)),
            Runs=words("runs", text.DASH if r.ours is None else text.rests_on(r.ours)),
            Note=words("note", r.note),
        )
    return rows.table(
        "literature",
        "Beside published results",
        "Mean test accuracy at the selected learning rate; recipes differ as noted, so these are no like-for-like "
        "comparisons.",
    )


def _row(rows: Rows, baseline: str, what: str, e: Estimate, *, points: bool) -> None:
    shown = text.points(e.estimate) if points else _figures(e.estimate)
    interval = text.points_interval(e.low, e.high) if points else _range(e, 1)
    p = {} if e.p_value is None else {"p": e.p_value}
    rows.add(
        Baseline=words("baseline", baseline),
        What=words("what", what + (" (pp)" if points else "")),
        Estimate=rows.estimate("value", e, shown) if not p or e.estimate is not None else words("value", text.DASH),
        Interval=words("interval", interval),
        Level=number("level", e.level, text.level(e.level)),
        p=number("p", e.p_value, text.p_value(e.p_value)),
        Method=words("method", e.method + ("" if e.warning is None else f". {e.warning}")),
        Runs=words("runs", text.rests_on(e)),
    )


def _crossed(rows: Rows, c: Comparison) -> Cell:
    return rows.estimate("over_seeds_and_digits", c.digits, text.points_interval(c.digits.low, c.digits.high))


def _rate(rate: float | None) -> str:
    return text.DASH if rate is None else text.plain(rate)


def _percent(x: float | None) -> str:
    return text.DASH if x is None else f"{100 * x:.2f}"


def _figures(x: float | None) -> str:
    """Three significant figures."""
    return text.DASH if x is None else f"{x:.3g}".replace("-", text.MINUS)


def _range(e: Estimate, scale: float = 100) -> str:
    if e.low is None:
        return text.DASH
    shown = (lambda x: f"{scale * x:.2f}") if scale == 100 else _figures
    return f"{shown(e.low)} to {shown(e.high)}"


def _outcomes(counts: object) -> str:
    found = [f"{k} {name}" for name in ("collapsed", "diverged", "failed", "missing") if (k := getattr(counts, name))]
    return ", ".join(found) or "0"


TABLES: tuple[Callable[[Findings], Table | None], ...] = (
    gaps,
    configurations,
    completeness,
    sensitivity,
    checks,
    literature,
)

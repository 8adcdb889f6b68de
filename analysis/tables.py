"""The findings as tables. Every table says how many of the planned runs its numbers rest on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import formats, text
from analysis.estimate import Estimate
from analysis.findings import Comparison, Findings
from analysis.formats import Cell, Rows, Table, number, words
from analysis.frames import Frames


def build(findings: Findings, frames: Frames) -> tuple[Table, ...]:
    """All tables that have rows, in the order a reader meets them."""
    tables = [*(make(findings) for make in TABLES), not_trained(findings, frames)]
    return tuple(table for table in tables if table is not None)


def write(findings: Findings, frames: Frames, folder: Path) -> list[Path]:
    """Write every table into `folder` as CSV, Markdown and LaTeX; the paths written."""
    return formats.write(build(findings, frames), folder)


def gaps(findings: Findings) -> Table | None:
    """The primary comparison: the gap per baseline, both populations, test and verdict."""
    rows = Rows()
    settings = findings.about.settings
    for c in findings.comparisons:
        mean = c.seeds.mean
        digits = text.point_digits(mean.low, mean.high)
        rows.add(
            Baseline=words("baseline", c.baseline),
            Verdict=words("verdict", c.seeds.verdict or text.DASH),
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
            p=_holm(rows, c),
            Ahead=number("wins", c.seeds.wins, f"{c.seeds.wins} : {c.seeds.ties} : {c.seeds.losses}"),
            Pairs=Cell(text.of(c.pairs, c.planned), {"pairs": c.pairs, "pairs_planned": c.planned}),
        )
    return rows.table(
        "gaps",
        f"Gap of {settings.candidate} to each baseline",
        f"Test accuracy of {settings.candidate} minus that of the baseline, in percentage points, each at the "
        "learning rate with the best mean validation accuracy. Errors: mean per cent of test digits wrong, "
        f"candidate / baseline. Intervals at {text.level(settings.confidence)}: over seeds by t (this test set); and "
        "digits: over seeds and digits, two-way crossed closed form (new digits of the same kind). p: exact "
        "sign-flip test, two-sided, by Holm over all baselines. Ahead: pairs won : tied : lost. Verdict at a "
        f"margin of {text.plain(100 * settings.margin)} points, over seeds, at "
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
        "Mean over the runs that trained, of all planned; ★ the rate selected by mean validation accuracy; SD "
        f"with n − 1; {text.level(findings.about.settings.confidence)} t interval over seeds, in per cent.",
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
        "Diverged and collapsed runs are outcomes of training; failed and missing ones are the absence of one and "
        "enter no number.",
    )


def sweep(findings: Findings) -> Table | None:
    """The gap at equal learning rates."""
    rows = Rows()
    for baseline, swept in findings.sweep.items():
        for at in swept.rates:
            trained = f"{at.candidate_trained} of {at.candidate_ended} / {at.baseline_trained} of {at.baseline_ended}"
            rows.add(
                Baseline=words("baseline", baseline),
                Rate=number("learning_rate", at.learning_rate, _rate(at.learning_rate)),
                Gap=rows.estimate("gap", at.gap, text.points(at.gap.estimate)),
                Interval=number("low", at.gap.low, text.points_interval(at.gap.low, at.gap.high)),
                Band=rows.estimate("band", at.band, text.points_interval(at.band.low, at.band.high)),
                p=rows.estimate("sign_flip", at.sign_flip, text.p_value(at.sign_flip.p_value)),
                **{"p (Holm)": number("adjusted_p", at.adjusted_p, text.p_value(at.adjusted_p))},
                Trained=words("trained", trained),
                Pairs=Cell(text.of(at.gap.n, at.gap.planned), {"n": at.gap.n, "planned": at.gap.planned}),
            )
        e = swept.interaction
        rows.remarks.append(
            f"Model × learning rate, {baseline}: {e.method}, {text.p_statement(e.p_value)}"
            f"{'' if e.declined is None else f' ({e.declined})'}, {text.rests_on(e)}."
        )
    return rows.table(
        "sweep",
        "Gap at equal learning rates",
        f"Percentage points; {text.level(findings.about.settings.confidence)} t interval for each rate alone, and "
        "simultaneous band. p: exact sign-flip test, unadjusted and by Holm over all baselines and learning rates. "
        "Trained: of the runs with an outcome, candidate / baseline.",
    )


def classes(findings: Findings) -> Table | None:
    """The gap on the digits of each class."""
    rows = Rows()
    for baseline, found in findings.digits.items():
        for c in found.classes:
            rows.add(
                Baseline=words("baseline", baseline),
                Class=number("class", c.label, str(c.label)),
                Digits=number("n_digits", c.n_digits, text.count(c.n_digits)),
                **{
                    "Candidate %": number("candidate_accuracy", c.candidate_accuracy, _percent(c.candidate_accuracy)),
                    "Baseline %": number("baseline_accuracy", c.baseline_accuracy, _percent(c.baseline_accuracy)),
                    "Gap": rows.estimate("gap", c.gap, text.points(c.gap.estimate)),
                    "Interval": number("low", c.gap.low, text.points_interval(c.gap.low, c.gap.high)),
                    "p (Holm)": number("adjusted_p", c.adjusted_p, text.p_value(c.adjusted_p)),
                    "Pairs": words("pairs", text.of(c.gap.n, c.gap.planned)),
                },
            )
    return rows.table(
        "classes",
        "Gap by class",
        f"Percentage points; {text.level(findings.about.settings.confidence)} intervals over seeds and digits; "
        "p-values by Holm over all baselines and classes.",
        long=True,
    )


def specifications(findings: Findings) -> Table | None:
    """Every way to analyse the same data."""
    rows = Rows()
    for baseline, asked in findings.robustness.items():
        for s in asked.specifications:
            ways = {way: getattr(s, way) for way in ("selection", "outcomes", "pairing", "transform", "population")}
            limits = {"low": s.low, "high": s.high, "level": s.level}
            rows.add(
                Baseline=words("baseline", baseline + (" ★" if s.primary else "")),
                **{way.capitalize(): words(way, value) for way, value in ways.items()},
                Gap=number("gap", s.estimate, text.points(s.estimate)),
                Interval=Cell(text.points_interval(s.low, s.high), limits),
                Pairs=number("n", s.n, text.of(s.n, _planned(findings, baseline))),
            )
    return rows.table(
        "specifications",
        "Every way to analyse the same data",
        "Gap in percentage points, in order; ★ the primary analysis. Descriptive: specifications share data.",
        long=True,
    )


def outcomes(findings: Findings) -> Table | None:
    """How often training itself did not work at the selected rates."""
    rows = Rows()
    seen = set()
    for c in findings.comparisons:
        for role, model in (("candidate", findings.about.settings.candidate), ("baseline", c.baseline)):
            share = findings.robustness[c.baseline].outcomes[role].not_trained
            if model not in seen:
                seen.add(model)
                interval = (
                    text.DASH if share.low is None else f"{text.percent(share.low)} to {text.percent(share.high)}"
                )
                rows.add(
                    Model=words("model", model),
                    **{
                        "Did not train": rows.estimate("not_trained", share, text.percent(share.estimate)),
                        "Interval": number("low", share.low, interval),
                        "Runs with an outcome": words("runs", text.of(share.n, share.planned)),
                    },
                )
    return rows.table(
        "outcomes",
        "Runs that did not train at the selected rates",
        "Share of the runs with an outcome that diverged or collapsed, with Clopper–Pearson limits at "
        f"{text.level(findings.about.settings.confidence)}.",
    )


def checks(findings: Findings) -> Table | None:
    """The same comparison by other methods."""
    rows = Rows()
    points = {"mean", "verdict_interval", "equivalence_interval", "bca", "welch"}
    for c in findings.comparisons:
        for name, e in c.seeds:
            if isinstance(e, Estimate) and name != "mean":
                _row(rows, c.baseline, name.replace("_", " "), e, points=name in points)
        crossed = findings.digits[c.baseline].crossed
        if crossed is not None:
            _row(rows, c.baseline, "crossed bootstrap", crossed.bootstrap, points=True)
            for half, e in zip(("first", "second"), crossed.halves, strict=True):
                _row(rows, c.baseline, f"{half} half of the test digits", e, points=True)
        if c.mcnemar is not None:
            rows.remarks.append(
                f"McNemar's exact test of each of {c.mcnemar.pairs} pairs of networks against {c.baseline}, each by "
                f"itself at {text.level(c.mcnemar.level)}: {c.mcnemar.candidate_better} for the candidate, "
                f"{c.mcnemar.baseline_better} for the baseline, {c.mcnemar.undecided} undecided. Never pooled."
            )
    for model, e in findings.random_halves.items():
        _row(rows, model, "random halves of its own runs", e, points=False)
    return rows.table(
        "checks",
        "The same gap by other methods",
        "Values marked pp are in percentage points. The confirmatory test is the sign-flip test; everything else is "
        "a check or descriptive.",
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
        "Percentage points (pp). Points, or ranges over resamples, without a claim to coverage.",
    )


def not_trained(findings: Findings, frames: Frames) -> Table | None:
    """Every run that did not train, and why."""
    rows = Rows()
    runs = frames.runs
    for run in runs[~runs["trained"]].itertuples():
        why = {
            "diverged": f"not finite in epoch {run.diverged_epoch}",
            "finished": f"stayed at {text.percent(run.final_train_accuracy)} of its training digits",
            "failed": str(run.error or "no error recorded"),
            "missing": "no record",
        }
        rows.add(
            Run=words("run_id", run.run_id),
            Model=words("model", run.model),
            Rate=number("learning_rate", run.learning_rate, _rate(run.learning_rate)),
            Seed=number("seed", run.seed, str(run.seed)),
            State=words("state", "collapsed" if run.collapsed else run.state),
            Why=words("why", why[run.state]),
        )
    counted = text.of(len(rows.cells), len(runs))
    return rows.table("not_trained", "Runs that did not train", f"{counted} planned runs.", long=len(rows.cells) > 12)


def planning(findings: Findings) -> Table | None:
    """Seeds that an interval of a stated half-width needs."""
    rows = Rows()
    for baseline, plan in findings.planning.items():
        for need in plan.needed:
            rows.add(
                Baseline=words("baseline", baseline),
                **{
                    "Half-width": number("half_width", need.half_width, f"±{text.plain(100 * need.half_width)}"),
                    "Seeds": rows.estimate("seeds", need.over_seeds, _whole(need.over_seeds)),
                    "Seeds, and digits": rows.estimate("over_digits", need.over_digits, _whole(need.over_digits)),
                    "Seen in": words("runs", text.rests_on(need.over_seeds)),
                },
            )
        rows.remarks.append(f"{baseline}: {plan.sentence}")
    return rows.table(
        "planning",
        "Pairs that a narrower interval needs",
        "Half-widths in percentage points, of the interval over seeds and of that over seeds and digits, if what "
        "was seen holds.",
    )


def variance(findings: Findings) -> Table | None:
    """Components of variance."""
    rows = Rows()
    for model, v in findings.variance.items():
        for c in v.components.components:
            rows.add(
                Model=words("model", model),
                Component=words("component", c.effect),
                Variance=rows.estimate("variance", c.variance, _figures(c.variance.estimate)),
                Interval=number("low", c.variance.low, _range(c.variance, 1)),
                Raw=number("raw", c.raw, _figures(c.raw)),
                Share=number("share", c.share, text.percent(c.share, 0)),
                Runs=words("runs", text.rests_on(c.variance)),
            )
        rejected = v.against_itself.rejected
        rows.remarks.append(
            f"A/A, {model} against itself under two init seeds: {rejected.method}, {text.percent(rejected.estimate)}"
            f"{'' if rejected.declined is None else f' ({rejected.declined})'}, {text.rests_on(rejected)}."
        )
    return rows.table(
        "variance",
        "Where the spread comes from",
        f"Components of variance of test accuracy (a fraction), {text.level(findings.about.settings.confidence)} "
        "bootstrap intervals; a negative estimate prints as 0 beside its raw value.",
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


def _holm(rows: Rows, c: Comparison) -> Cell:
    """The primary test: adjusted in print, both in the CSV."""
    cell = rows.estimate("sign_flip", c.seeds.sign_flip, text.p_value(c.p_holm))
    return Cell(cell.shown, cell.data | {"p_holm": c.p_holm})


def _crossed(rows: Rows, c: Comparison) -> Cell:
    return rows.estimate("over_seeds_and_digits", c.digits, text.points_interval(c.digits.low, c.digits.high))


def _planned(findings: Findings, baseline: str) -> int:
    return next(c.planned for c in findings.comparisons if c.baseline == baseline)


def _rate(rate: float | None) -> str:
    return text.DASH if rate is None else text.plain(rate)


def _whole(e: Estimate) -> str:
    return text.DASH if e.estimate is None else text.count(e.estimate)


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
    sweep,
    classes,
    sensitivity,
    outcomes,
    checks,
    specifications,
    variance,
    planning,
    literature,
    completeness,
)

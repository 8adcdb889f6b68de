"""The same gap by other methods, and where the spread comes from."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.report.table import Cell, Rows, Table, number, words
from analysis.report.tables.cells import figures, interval, method_row

OVER_SEEDS = {
    "verdict_interval": "interval of the verdict (pp)",
    "equivalence_interval": "interval of equivalence (pp)",
    "sign_flip": "sign-flip test",
    "paired_t": "paired t test",
    "wilcoxon": "Wilcoxon test",
    "tost": "equivalence (TOST)",
    "bca": "BCa bootstrap (pp)",
    "welch": "Welch, unpaired (pp)",
    "brunner_munzel": "Brunner–Munzel, unpaired",
    "outperforming": "probability of being ahead",
    "error_ratio": "ratio of errors",
    "effect_size": "effect size",
    "correlation": "correlation over seeds",
    "pairing_gain": "gain of pairing",
}
"""What findings over seeds, but for the primary estimate, are called; (pp) where they are gaps."""


def checks(findings: Findings, frames: Frames) -> Table | None:
    """The same comparison by other methods."""
    rows = Rows()
    for c in findings.comparisons:
        for name, called in OVER_SEEDS.items():
            method_row(rows, c.baseline, called, getattr(c.seeds, name))
        _criterion(rows, c)
        _supported(rows, c)
        method_row(rows, c.baseline, "interval of the verdict (pp)", c.digits_verdict)
        crossed = findings.digits[c.baseline].crossed
        if crossed is not None:
            method_row(rows, c.baseline, "crossed bootstrap (pp)", crossed.bootstrap)
            for half, e in zip(("first", "second"), crossed.halves, strict=True):
                method_row(rows, c.baseline, f"{half} half of the test digits (pp)", e)
        if c.mcnemar is not None:
            rows.remarks.append(
                f"McNemar's exact test of each of {c.mcnemar.pairs} pairs of networks against {c.baseline}, each by "
                f"itself at {text.level(c.mcnemar.level)}: {c.mcnemar.candidate_better} for the candidate, "
                f"{c.mcnemar.baseline_better} for the baseline, {c.mcnemar.undecided} undecided. Never pooled."
            )
    for model, e in findings.random_halves.items():
        method_row(rows, model, "random halves of its own runs", e)
    return rows.table(
        "checks",
        "The same gap by other methods",
        "Values marked pp are in percentage points. Population: seeds is this test set; seeds and digits, new digits "
        "of the same kind. The confirmatory test is the sign-flip test; everything else is a check or descriptive.",
        long=True,
    )


def _criterion(rows: Rows, c: Comparison) -> None:
    """What Bouthillier et al. would say, quoted as theirs."""
    won = c.seeds.outperforming
    if c.seeds.bouthillier is not None:
        method = (
            f"Bouthillier et al. (2021), from the interval of the probability of being ahead: {c.seeds.bouthillier}"
        )
        e = won.model_copy(update=dict(method=method))
        method_row(rows, c.baseline, "Bouthillier et al.'s criterion", e)


def _supported(rows: Rows, c: Comparison) -> None:
    """The largest margin by which the candidate is better for sure."""
    margin, outer = c.seeds.largest_supported_margin, c.seeds.verdict_interval
    if margin is not None:
        fields = dict(estimate=margin, low=None, high=None, p_value=None)
        method = f"lower limit of the verdict interval at {text.level(outer.level)}, at least 0"
        e = outer.changed(**fields, method=method)
        method_row(rows, c.baseline, "largest supported margin (pp)", e)


def specifications(findings: Findings, frames: Frames) -> Table | None:
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
                Pairs=Cell(text.of(s.n, s.planned), {"n": s.n, "planned": s.planned, "unit": s.unit}),
            )
        if asked.same_sign is not None:
            rows.remarks.append(
                f"{baseline}: {text.of(asked.same_sign, asked.alternatives)} alternatives have the sign of the primary "
                f"analysis; {asked.distinct} of the estimates differ, {asked.undefined} specifications give none."
            )
    return rows.table(
        "specifications",
        "Every way to analyse the same data",
        f"Gap in percentage points, in order, with {text.level(findings.about.settings.confidence)} intervals where "
        "one is defined; ★ the primary analysis. Unpaired: runs of the model with fewer stand for the pairs. "
        "Descriptive: specifications share data.",
        long=True,
    )


def variance(findings: Findings, frames: Frames) -> Table | None:
    """Components of variance."""
    rows = Rows()
    for model, v in findings.variance.items():
        for c in v.components.components:
            rows.add(
                Model=words("model", model),
                Component=words("component", c.effect),
                Variance=rows.estimate("variance", c.variance, figures(c.variance.estimate)),
                Interval=number("low", c.variance.low, interval(c.variance)),
                Raw=number("raw", c.raw, figures(c.raw)),
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


def literature(findings: Findings, frames: Frames) -> Table | None:
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

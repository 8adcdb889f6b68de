"""The same gap by other methods, where the spread comes from, and what more seeds would bring."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.report import phrases
from analysis.report.phrases import pairs
from analysis.report.table import Cell, Rows, method_row, number, table, whole, words
from analysis.stats.estimate import Estimate
from analysis.stats.robustness import coinciding

OVER_SEEDS = {
    "verdict.interval": ("interval of the verdict", "pp"),
    "verdict.equivalence_interval": ("interval of equivalence", "pp"),
    "sign_flip": ("sign-flip test", ""),
    "checks.paired_t": ("paired t test", ""),
    "checks.wilcoxon": ("Wilcoxon test", ""),
    "verdict.tost": ("equivalence (TOST)", ""),
    "checks.bca": ("BCa bootstrap", "pp"),
    "checks.welch": ("Welch, unpaired", "pp"),
    "checks.brunner_munzel": ("Brunner–Munzel, unpaired", ""),
    "effect.outperforming": ("probability of outperforming", ""),
    "effect.error_rate_ratio": ("ratio of error rates", ""),
    "effect.standardised": ("effect size", ""),
    "checks.correlation": ("correlation over seeds", ""),
    "checks.pairing_gain": ("gain of pairing", ""),
    "skewness": ("skewness of the differences", ""),
}
"""What findings over seeds, but for the primary estimate, are called, and the unit of those that have one."""


@table(section="appendix", title="The same gap by other methods")
def checks(findings: Findings, frames: Frames) -> Rows:
    """The same comparison by other methods."""
    rows = Rows()
    for c in findings.comparisons:
        for name, (what, unit) in OVER_SEEDS.items():
            e = attrgetter(name)(c.seeds)
            if _says_nothing_new(name, e, c):
                continue
            method_row(rows, c.baseline, "rank-sum test, unpaired" if "rank-sum" in e.method else what, e, unit)
        _supported(rows, c)
        if c.images_verdict.interval != c.images.interval:
            method_row(rows, c.baseline, "interval of the verdict", c.images_verdict, "pp")
        crossed = findings.images[c.baseline].crossed
        if crossed is not None:
            method_row(rows, c.baseline, "crossed bootstrap", crossed.bootstrap, "pp")
            for half, e in zip(("first", "second"), crossed.halves, strict=True):
                method_row(rows, c.baseline, f"{half} half of the test images", e, "pp")
        if c.seeds.effect.bouthillier is not None:
            rows.remarks.append(
                f"Bouthillier et al. (2021) would call the difference to {c.baseline} {c.seeds.effect.bouthillier}, "
                "from the interval of the probability of outperforming."
            )
        if c.mcnemar is not None:
            rows.remarks.append(
                f"McNemar's exact test of each of {c.mcnemar.pairs} pairs of networks against {c.baseline}, each by "
                f"itself at {text.level(c.mcnemar.level)}: {c.mcnemar.candidate_better} for the candidate, "
                f"{c.mcnemar.baseline_better} for the baseline, {c.mcnemar.undecided} undecided. Never pooled."
            )
    for model, e in findings.random_halves.items():
        method_row(rows, model, "random halves of its own runs", e)
    return rows.captioned(
        "Values marked pp are in percentage points. Population: seeds is this test set; seeds and test images, "
        f"{phrases.new_images(findings)}. The confirmatory test is the sign-flip test; everything else is a check or "
        "descriptive.",
    )


def _says_nothing_new(name: str, e: Estimate, c: Comparison) -> bool:
    """Whether a row would repeat the primary interval, or say of a gap far from 0 that it is not equivalent to 0."""
    repeated = name.startswith("verdict.") and e.interval is not None and e.interval == c.seeds.mean.interval
    return repeated or (name == "verdict.tost" and text.p_value(e.p_value) == "1.00")


def _supported(rows: Rows, c: Comparison) -> None:
    """The largest margin by which the candidate is better for sure."""
    margin, outer = c.seeds.verdict.largest_supported_margin, c.seeds.verdict.interval
    if margin is not None:
        fields = dict(estimate=margin, low=None, high=None, p_value=None)
        method = f"lower limit of the verdict interval at {text.level(outer.level)}, at least 0"
        e = outer.changed(**fields, method=method)
        method_row(rows, c.baseline, "largest supported margin", e, "pp")


@table(section="robustness", title="Every way to analyse the same data")
def specifications(findings: Findings, frames: Frames) -> Rows:
    """Every way to analyse the same data."""
    rows = Rows()
    for baseline, asked in findings.robustness.items():
        for same in coinciding(asked.specifications):
            gap = same.first.gap
            limits: dict[str, object] = {"low": gap.low, "high": gap.high, "level": gap.level}
            chosen = {way: ", ".join(values) for way, values in same.choices.items() if way != "population"}
            rows.add(
                Baseline=words("baseline", baseline + (" ★" if same.first.primary else "")),
                Gap=number("gap", gap.estimate, text.points(gap.estimate, 3)),
                Interval=Cell(text.points_interval(gap.low, gap.high), limits),
                Analyses=number("analyses", same.count, str(same.count)),
                **{way.capitalize(): words(way, value) for way, value in chosen.items()},
                Basis=Cell(text.rests_on(gap), {"n": gap.n, "planned": gap.planned, "unit": gap.unit}),
            )
        if asked.same_sign is not None:
            none = "specification gives none" if asked.undefined == 1 else "specifications give none"
            without = f"; {asked.undefined} {none}" if asked.undefined else ""
            rows.remarks.append(
                f"{baseline}: {text.of(asked.same_sign, asked.distinct)} other estimates have the sign of the primary "
                f"analysis{without}."
            )
    return rows.captioned(
        "Every different estimate of the gap, in percentage points and in order, the number of analyses that give it, "
        f"and the choices that occur among these; ★ the primary analysis. Intervals at "
        f"{phrases.level(findings)} {phrases.OVER_SEEDS}, where one is defined, of the "
        "first of the choices named. Best of 1 rate, of 2 rates …: each model tries only this many learning rates, "
        "expected over all ways to pick them. Descriptive: analyses share data.",
    )


@table(section="robustness", title="Where the spread comes from")
def variance(findings: Findings, frames: Frames) -> Rows:
    """Components of variance."""
    rows = Rows()
    for model, v in findings.variance.items():
        for c in v.components.components:
            rows.add(
                Model=words("model", model),
                Component=words("component", c.effect),
                SD=rows.estimate("variance", c.variance, _root(c.variance.estimate)),
                Interval=Cell(
                    _limits(c.variance, _root), {"low": c.variance.low, "high": c.variance.high, "raw": c.raw}
                ),
                Share=number("share", c.share, text.percent(c.share, 0)),
                Runs=words("runs", text.rests_on(c.variance)),
            )
        rejected = v.against_itself.rejected
        rows.remarks.append(
            f"A/A, {model} against itself under two init seeds: {rejected.method}, {text.percent(rejected.estimate)}"
            f"{'' if rejected.declined is None else f' ({rejected.declined})'}, {text.rests_on(rejected)}."
        )
    level = phrases.level(findings)
    return rows.captioned(
        f"What each part of the seed adds to the spread of test accuracy: the SD, in percentage points, with {level} "
        "bootstrap intervals, and the share of the variance. A negative component of variance counts as 0; the CSV has "
        "the variances of fractions.",
    )


@table(section="robustness", title="How much of the spread over seeds is the luck of these test images")
def seed_spread(findings: Findings, frames: Frames) -> Rows:
    """SD over seeds on these test images, and on all images of the kind."""
    rows = Rows()
    clusters = findings.about.clusters
    drawn = "to be independent" if clusters is None else f"to come in {phrases.images(clusters.count)}"
    for model, v in findings.seed_spread.items():
        here, general = v.on_test_set, v.distribution_wise
        rows.add(
            Model=words("model", model),
            **{
                "On these images": rows.estimate("on_test_set", here, text.sd(here.estimate)),
                "Interval": Cell(_limits(here, text.sd), {"on_test_set_low": here.low, "on_test_set_high": here.high}),
                "On all such images": rows.estimate("distribution_wise", general, text.sd(general.estimate)),
                "Its interval": Cell(
                    _limits(general, text.sd),
                    {"distribution_wise_low": general.low, "distribution_wise_high": general.high},
                ),
                "Share of variance": number("share", v.share, text.percent(v.share, 0)),
            },
            Runs=words("runs", text.rests_on(here)),
        )
    return rows.captioned(
        "SD over seeds of test accuracy at the selected rate, in percentage points: on these test images, with χ² "
        "interval, and on all images of the kind, by Jordan's (2023) unbiased estimator of the distribution-wise "
        "variance, with bootstrap interval of the mean squares, both at "
        f"{phrases.level(findings)}. The rest is single images that one training gets right and "
        f"another wrong. Images are taken {drawn}. Descriptive.",
    )


def _root(variance: float | None) -> str:
    return text.sd(None if variance is None else max(0.0, variance) ** 0.5)


def _limits(e: Estimate, shown: Callable[[float], str]) -> str:
    return text.DASH if e.interval is None else " to ".join(map(shown, e.interval))


@table(section="literature", title="Beside published results")
def literature(findings: Findings, frames: Frames) -> Rows:
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
    return rows.captioned(
        "Mean test accuracy at the selected learning rate; recipes differ as noted, so these are no like-for-like "
        "comparisons.",
    )


@table(section="planning", title="Pairs that a narrower interval needs")
def planning(findings: Findings, frames: Frames) -> Rows:
    """Seeds that an interval of a stated half-width needs."""
    rows = Rows()
    for baseline, plan in findings.planning.items():
        for need in plan.needed:
            rows.add(
                Baseline=words("baseline", baseline),
                **{
                    "Half-width": number("half_width", need.half_width, f"±{text.plain(100 * need.half_width)}"),
                    "Seeds": rows.estimate("seeds", need.over_seeds, whole(need.over_seeds)),
                    "Seeds, and images": rows.estimate("over_images", need.over_images, whole(need.over_images)),
                    "Seen in": words("runs", text.rests_on(need.over_seeds)),
                },
            )
        rows.remarks.append(f"{baseline}: {plan.sentence}")
    return rows.captioned(
        f"Half-widths in percentage points, of the {phrases.level(findings)} t interval over seeds (this test set) and "
        f"of the one over seeds and test images ({phrases.new_images(findings)}), if what was seen holds.",
    )


@table(section="planning", title="Seeds that the sign test needs")
def sign_test(findings: Findings, frames: Frames) -> Rows:
    """Seeds that the sign test needs: no data enter, so all baselines need the same."""
    rows = Rows()
    plans = list(findings.planning.values())
    for need in plans[0].sign_test if plans else ():
        rows.add(
            **{
                "Ahead in": number("outperforming", need.outperforming, text.percent(need.outperforming, 0)),
                "Power": number("power", need.power, text.percent(need.power, 0)),
                "Seeds": number("seeds", need.seeds, text.count(need.seeds)),
            }
        )
    return rows.captioned(
        "Fewest pairs with which the exact two-sided sign test at "
        f"{text.level(1 - findings.about.settings.verdict_level)} finds, with the power stated, a model that is ahead "
        "in that share of pairs: exact binomial power, no data enter. "
        f"Planned pairs of this study: {pairs(findings)}.",
    )

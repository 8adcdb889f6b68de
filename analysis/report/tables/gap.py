"""The gap: at the selected rates, at equal rates, and by class."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.frames import Frames
from analysis.report import phrases
from analysis.report.table import Cell, Rows, figures, number, percent, rate, table, words


@table(section="gap", title="Gap of {candidate} to each baseline")
def gaps(findings: Findings, frames: Frames) -> Rows:
    """The primary comparison: the gap per baseline, both populations, test and verdict."""
    rows = Rows()
    settings = findings.about.settings
    for c in findings.comparisons:
        mean = c.seeds.mean
        digits = text.point_digits(mean.low, mean.high)
        rows.add(
            Baseline=words("baseline", c.baseline),
            Verdict=words("verdict", c.verdicts or text.DASH),
            Errors=Cell(
                f"{percent(c.candidate_error_rate)} / {percent(c.baseline_error_rate)}",
                {
                    "candidate_rate": c.candidate_rate,
                    "baseline_rate": c.baseline_rate,
                    "candidate_error_rate": c.candidate_error_rate,
                    "baseline_error_rate": c.baseline_error_rate,
                },
            ),
            Gap=rows.estimate("gap", mean, text.points(mean.estimate, digits)),
            Over_seeds=number("over_seeds", mean.low, text.points_interval(mean.low, mean.high)),
            And_images=rows.estimate(
                "over_seeds_and_images", c.images, text.points_interval(c.images.low, c.images.high)
            ),
            p=_holm(rows, c),
            Ahead=number(
                "wins", c.seeds.effect.wins, f"{c.seeds.effect.wins} : {c.seeds.effect.ties} : {c.seeds.effect.losses}"
            ),
            Pairs=Cell(text.of(c.pairs, c.planned), {"pairs": c.pairs, "pairs_planned": c.planned}),
        )
        if c.images.n < c.pairs:
            rows.remarks.append(
                f"{c.baseline}: over seeds and images, from the {text.of(c.images.n, c.pairs)} pairs whose predictions "
                "are there."
            )
        if c.scored_at_chance is not None:
            rows.remarks.append(
                f"{c.baseline}: with runs that did not learn scored at chance, a gap of "
                f"{text.points(c.scored_at_chance.estimate)}, from "
                f"{text.of(c.scored_at_chance.n, c.scored_at_chance.planned)} pairs."
            )
    several = (
        f", which may reject where the verdict, held to the unadjusted p at {text.level(1 - settings.verdict_level)}, "
        "does not"
    )
    return rows.captioned(
        f"Test accuracy of {settings.candidate} minus that of the baseline, in percentage points, each at the "
        "learning rate with the best mean validation accuracy. Errors: mean per cent of test images wrong, "
        f"candidate / baseline. Intervals at {text.level(settings.confidence)}: by t {phrases.OVER_SEEDS}; and "
        f"images: over seeds and test images ({phrases.new_images(findings)}). p: exact "
        f"sign-flip test, two-sided, by Holm over all baselines{several if len(settings.baselines) > 1 else ''}. "
        "Ahead: pairs won : tied : lost. Verdict at a "
        f"margin of {text.plain(100 * settings.margin)} points, at {text.level(settings.verdict_level)}. "
        "Pairs: those in which both models learned, of all planned.",
    )


@table(section="rates", title="Gap at equal learning rates")
def sweep(findings: Findings, frames: Frames) -> Rows:
    """The gap at equal learning rates."""
    rows = Rows()
    for baseline, swept in findings.sweep.items():
        for at in swept.rates:
            learned = f"{at.candidate_learned} of {at.candidate_ended} / {at.baseline_learned} of {at.baseline_ended}"
            rows.add(
                Baseline=words("baseline", baseline),
                Rate=number("learning_rate", at.learning_rate, rate(at.learning_rate)),
                Gap=rows.estimate("gap", at.gap, text.points(at.gap.estimate)),
                Interval=number("low", at.gap.low, text.points_interval(at.gap.low, at.gap.high)),
                Band=rows.estimate("band", at.band, text.points_interval(at.band.low, at.band.high)),
                p=rows.estimate("sign_flip", at.sign_flip, text.p_value(at.sign_flip.p_value)),
                **{"p (Holm)": number("adjusted_p", at.adjusted_p, text.p_value(at.adjusted_p))},
                Learned=words("learned", learned),
                Pairs=Cell(text.of(at.gap.n, at.gap.planned), {"n": at.gap.n, "planned": at.gap.planned}),
            )
        e = swept.interaction
        rows.remarks.append(
            f"Model × learning rate, {baseline}: {e.method}, {text.p_statement(e.p_value)}"
            f"{'' if e.declined is None else f' ({e.declined})'}, {text.rests_on(e)}."
        )
    return rows.captioned(
        f"Percentage points, {phrases.OVER_SEEDS}; {phrases.level(findings)} t interval "
        "for each rate alone, and simultaneous band. p: exact sign-flip test, unadjusted and by Holm over all "
        "baselines and learning rates. Learned: of the runs with an outcome, candidate / baseline.",
    )


@table(section="images", title="Gap by class")
def classes(findings: Findings, frames: Frames) -> Rows:
    """The gap on the images of each class."""
    rows = Rows()
    for baseline, found in findings.images.items():
        for c in found.classes:
            rows.add(
                Baseline=words("baseline", baseline),
                Class=number("class", c.label, str(c.label)),
                Images=number("n_images", c.n_images, text.count(c.n_images)),
                **{
                    "Candidate %": number("candidate_accuracy", c.candidate_accuracy, percent(c.candidate_accuracy)),
                    "Baseline %": number("baseline_accuracy", c.baseline_accuracy, percent(c.baseline_accuracy)),
                    "Gap": rows.estimate("gap", c.gap, text.points(c.gap.estimate)),
                    "Interval": number("low", c.gap.low, text.points_interval(c.gap.low, c.gap.high)),
                    "p (Holm)": number("adjusted_p", c.adjusted_p, text.p_value(c.adjusted_p)),
                    "Pairs": words("pairs", text.of(c.gap.n, c.gap.planned)),
                },
            )
    return rows.captioned(
        "Accuracy on the test images of each class and its gap in percentage points, with "
        f"{phrases.level(findings)} intervals over seeds and test images ({phrases.new_images(findings)}); p-values by "
        "Holm over all baselines and classes.",
    )


@table(section="images", title="Where the uncertainty of the gap comes from")
def components(findings: Findings, frames: Frames) -> Rows:
    """Where the uncertainty over seeds and test images comes from."""
    rows = Rows()
    for baseline, found in findings.images.items():
        if found.crossed is None:
            continue
        for c in found.crossed.components:
            value = c.variance.estimate
            spread = None if value is None else value**0.5
            rows.add(
                Baseline=words("baseline", baseline),
                Component=words("component", c.name),
                Variance=rows.estimate("variance", c.variance, _squared(value)),
                Raw=number("raw", c.raw, _squared(c.raw)),
                SD=number("sd", spread, text.DASH if spread is None else figures(100 * spread)),
                Pairs=Cell(text.of(c.variance.n, c.variance.planned), {}),
            )
        share = found.crossed.image_share
        if share is not None:
            rows.remarks.append(
                f"{baseline}: {text.percent(share, 0)} of the squared standard error is the images' share, which more "
                "seeds cannot remove."
            )
    return rows.captioned(
        "Components of variance of one pair's difference on one test image (right minus right: −1, 0 or 1), by two-way "
        "crossed analysis of variance, in squared percentage points. A negative one prints as 0 beside its raw value; "
        "none is truncated inside a standard error. SD: its root, in percentage points.",
    )


def _squared(variance: float | None) -> str:
    """A variance of fractions, in squared percentage points."""
    return figures(None if variance is None else 1e4 * variance)


def _holm(rows: Rows, c: Comparison) -> Cell:
    """The primary test: adjusted in print, both in the CSV."""
    cell = rows.estimate("sign_flip", c.seeds.sign_flip, text.p_value(c.p_holm))
    return Cell(cell.shown, cell.data | {"p_holm": c.p_holm})

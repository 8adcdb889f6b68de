"""How the learning rates were chosen, and what another way of choosing gives."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report import phrases
from analysis.report.phrases import pairs
from analysis.report.table import Cell, Rows, number, percent, rate, table, words

OTHER = {
    "median": "best median",
    "cross_fitted": "by other seeds",
    "selection_luck": "selection luck",
    "re_selected": "in resamples",
    "common_seeds": "by common seeds",
    "scored_at_chance": "scored at chance",
    "worst_case": "worst case",
}
"""What other rules of selection and other treatments of runs that did not learn are called."""


@table(section="learning", title="How the learning rates were chosen")
def selection(findings: Findings, frames: Frames) -> Rows:
    """The validation score of every rate, and how often each wins when the choice is made again."""
    rows = Rows()
    planned = {(c.model, c.learning_rate): c.planned for c in findings.completeness}
    for model, choice in findings.selection.items():
        mean, median = choice.mean, choice.median
        for name, score, middle, n in zip(choice.luck, mean.scores, median.scores, mean.n, strict=True):
            own = float(name)
            luck, folds = choice.luck[name], choice.cross_fitted[name]
            rows.add(
                Model=words("model", model),
                Rate=number("learning_rate", own, rate(own, chosen=own == mean.learning_rate)),
                **{
                    "Mean %": number("mean_val_accuracy", score, percent(score)),
                    "Median %": number(
                        "median_val_accuracy", middle, percent(middle) + (" ★" if own == median.learning_rate else "")
                    ),
                    "Scored": Cell(text.of(n, planned[model, own]), {"n": n, "planned": planned[model, own]}),
                    "In resamples": number("share_of_resamples", luck, text.percent(luck, 1)),
                    "By other seeds": number("share_of_seeds", folds, text.percent(folds, 1)),
                },
            )
    resampled = "seeds and validation images" if _images_too(findings) else "seeds"
    return rows.captioned(
        "Mean and median validation accuracy over the runs with an outcome, of all planned; diverged and collapsed "
        "runs score as guessing. ★ the rate each rule selects; the analysis uses the mean. In resamples: share of "
        f"{text.count(findings.about.settings.resamples)} resamples of {resampled} in which the rate has the best "
        "mean. By other seeds: share of seeds for which all other seeds choose it. Without a claim to coverage.",
    )


@table(section="robustness", title="The gap under other choices")
def sensitivity(findings: Findings, frames: Frames) -> Rows:
    """The gap under other treatments of selection and of runs that did not learn."""
    rows = Rows()
    for c in findings.comparisons:
        scored = {"scored_at_chance": any(c.not_learned.values())}
        scored["worst_case"] = scored["scored_at_chance"] or any(c.absent.values())
        for name, e in c.sensitivity.items():
            if not scored.get(name, True):
                continue  # the primary gap once more
            limits = text.points_interval(e.low, e.high)
            rows.add(
                Baseline=words("baseline", c.baseline),
                Choice=words("choice", OTHER[name]),
                Gap=rows.estimate("gap", e, text.points(e.estimate)),
                Range=Cell(limits, {}),
                Population=words("population", e.population or text.DASH),
                Method=words("method", e.method),
                Pairs=Cell(text.of(e.n, e.planned), {}),
            )
    level = phrases.level(findings)
    return rows.captioned(
        "In percentage points. Selection luck: the primary gap with an interval over seeds that allows for the choice "
        f"of both rates ({level}, t; {phrases.LUCK_COVERS}). In resamples: "
        f"the mean, and the range that holds {level} of them, without a claim to coverage. All others: points.",
    )


@table(section="appendix", title="The gap when fewer learning rates are tried")
def best_of_n(findings: Findings, frames: Frames) -> Rows:
    """The gap when each model tries fewer learning rates."""
    rows = Rows()
    for c in findings.comparisons:
        for n, e in enumerate(c.best_of_n, 1):
            rows.add(
                Baseline=words("baseline", c.baseline),
                Rates=Cell(text.of(n, len(c.best_of_n)), {"n_rates": n, "of_rates": len(c.best_of_n)}),
                Gap=rows.estimate("gap", e, text.points(e.estimate)),
                Runs=words("runs", text.rests_on(e)),
            )
    return rows.captioned(
        "Expected gap, in percentage points, when each model uses the validation-best of this many of the learning "
        "rates, over all subsets of that size; runs that diverged or collapsed score as guessing. Over seeds (this "
        f"test set); points without intervals. Planned pairs that learned at the selected rates: {pairs(findings)}.",
    )


def _images_too(findings: Findings) -> bool:
    return all(choice.images_resampled for choice in findings.selection.values())

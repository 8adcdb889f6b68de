"""The runs: what every configuration reached, what became of all that were planned, and what they took."""

from __future__ import annotations

from typing import Any

from analysis import text
from analysis.findings import costs
from analysis.findings.schema import Counts, Findings
from analysis.frames import Frames
from analysis.report import phrases
from analysis.report.table import Cell, Rows, figures, number, percent, percent_interval, rate, table, words
from analysis.stats.estimate import Estimate


@table(section="rates", title="Accuracy of every configuration")
def configurations(findings: Findings, frames: Frames) -> Rows:
    """Every model at every learning rate."""
    rows = Rows()
    counts = {(c.model, c.learning_rate): c for c in findings.completeness}
    for c in findings.configurations:
        chosen = findings.selection[c.model].mean.learning_rate == c.learning_rate
        test, val = c.test_accuracy, c.val_accuracy
        lowest, highest = c.test_accuracy_range or (None, None)
        rows.add(
            Model=words("model", c.model),
            Rate=number("learning_rate", c.learning_rate, rate(c.learning_rate, chosen=chosen)),
            **{
                "Val. %": rows.estimate("val_accuracy", val, percent(val.estimate)),
                "Test %": rows.estimate("test_accuracy", test, percent(test.estimate)),
                "SD": number("test_accuracy_sd", c.test_accuracy_sd, percent(c.test_accuracy_sd)),
                "Interval": number("test_low", test.low, percent_interval(test)),
                "Median": number("test_accuracy_median", c.test_accuracy_median, percent(c.test_accuracy_median)),
                "Range": Cell(
                    text.percent_interval(lowest, highest, sign=""),
                    {"test_accuracy_lowest": lowest, "test_accuracy_highest": highest},
                ),
                "Learned": Cell(text.of(test.n, test.planned), {"n": test.n, "planned": test.planned}),
                "Did not learn": words("not_learned", _outcomes(counts[c.model, c.learning_rate])),
            },
        )
    return rows.captioned(
        "Mean over the runs that learned, of all planned; ★ the rate selected by mean validation accuracy; SD of test "
        f"accuracy with n − 1, the {phrases.level(findings)} t interval of its mean over "
        "seeds, and its median and range over runs, which say more where a few runs lie far off; in per cent.",
    )


@table(section="learning", title="Training, validation and test")
def training(findings: Findings, frames: Frames) -> Rows:
    """Accuracy and loss on all three splits, of every model at every learning rate."""
    rows = Rows()
    for c in findings.configurations:
        chosen = findings.selection[c.model].mean.learning_rate == c.learning_rate
        cells = {}
        for split, name in (("train", "Training"), ("val", "Validation"), ("test", "Test")):
            for kind, unit, shown in (("accuracy", " %", percent), ("loss", " loss", figures)):
                e, sd = getattr(c, f"{split}_{kind}"), getattr(c, f"{split}_{kind}_sd")
                spread = "" if sd is None else f" ± {shown(sd)}"
                cell = rows.estimate(f"{split}_{kind}", e, f"{shown(e.estimate)}{spread}")
                cells[name + unit] = Cell(cell.shown, cell.data | {f"{split}_{kind}_sd": sd})
        rows.add(
            Model=words("model", c.model),
            Rate=number("learning_rate", c.learning_rate, rate(c.learning_rate, chosen=chosen)),
            **cells,
            Learned=Cell(text.of(c.test_accuracy.n, c.test_accuracy.planned), {}),
        )
    spreads = (
        f"{c.baseline} {figures(100 * c.seeds.effect.difference_sd)}"
        for c in findings.comparisons
        if c.seeds.effect.difference_sd is not None
    )
    if said := ", ".join(spreads):
        rows.remarks.append(f"SD of the paired differences in test accuracy, in percentage points: {said}.")
    return rows.captioned(
        "Mean ± SD (n − 1) over the runs that learned, after the last epoch and in evaluation mode; accuracy in per "
        "cent, loss in nats; ★ the rate selected by mean validation accuracy.",
    )


@table(section="completeness", title="What became of the planned runs")
def completeness(findings: Findings, frames: Frames) -> Rows:
    """What became of every planned run."""
    rows = Rows()
    smooth = [c for c in findings.completeness if not (c.collapsed or c.diverged or c.failed or c.missing)]
    for c in findings.completeness:
        if c in smooth:
            continue
        states = {name: getattr(c, name) for name in ("finished", "collapsed", "diverged", "failed", "missing")}
        rows.add(
            Model=words("model", c.model),
            Rate=number("learning_rate", c.learning_rate, rate(c.learning_rate)),
            **{name.capitalize(): number(name, k, text.of(k, c.planned)) for name, k in states.items()},
        )
    if smooth:
        learned = f"{text.count(sum(c.planned for c in smooth))} planned runs of {len(smooth)}"
        rows.remarks.append(f"All {learned} other configurations learned.")
    return rows.captioned(
        "Finished runs include the collapsed, whose final training accuracy stayed below twice that of guessing. "
        "Diverged and collapsed runs are outcomes of training; failed and missing ones are the absence of one and "
        "enter no number.",
    )


@table(section="robustness", title="Runs that did not learn at the selected rates")
def outcomes(findings: Findings, frames: Frames) -> Rows:
    """How often training itself did not work at the selected rates."""
    shares: dict[str, Estimate] = {}
    for c in findings.comparisons:
        for role, model in (("candidate", findings.about.settings.candidate), ("baseline", c.baseline)):
            shares.setdefault(model, findings.robustness[c.baseline].outcomes[role].not_learned)
    rows = Rows()
    for model, share in shares.items():
        if share.estimate == 0:
            continue  # the answer says so, with the limit
        rows.add(
            Model=words("model", model),
            **{
                "Did not learn": rows.estimate("not_learned", share, text.percent(share.estimate)),
                "Interval": number("low", share.low, text.percent_interval(share.low, share.high)),
                "Runs with an outcome": words("runs", text.of(share.n, share.planned)),
            },
        )
    return rows.captioned(
        "Share of the runs with an outcome that diverged or collapsed, with Clopper–Pearson limits at "
        f"{phrases.level(findings)}.",
    )


@table(section="completeness", title="Runs that did not learn")
def not_learned(findings: Findings, frames: Frames) -> Rows:
    """Every run that did not learn, and why."""
    rows = Rows()
    runs = frames.runs
    for run in runs[~runs["learned"]].itertuples():
        why = {
            "diverged": f"not finite in epoch {run.diverged_epoch}",
            "finished": f"stayed at {text.percent(run.final_train_accuracy)} of its training images",
            "failed": str(run.error or "no error recorded"),
            "missing": "no record",
        }
        rows.add(
            Run=words("run_id", run.run_id),
            Model=words("model", run.model),
            Rate=number("learning_rate", run.learning_rate, rate(run.learning_rate)),
            Seed=number("seed", run.seed, str(run.seed)),
            State=words("state", "collapsed" if run.collapsed else run.state),
            Why=words("why", why[run.state]),
        )
    counted = text.of(len(rows.cells), len(runs))
    return rows.captioned(
        f"{counted} planned runs.",
    )


@table(section="planning", title="Time that a narrower interval would take")
def hours(findings: Findings, frames: Frames) -> Rows:
    """Time that the seeds for a narrower interval would take."""
    rows = Rows()
    for cost in costs.of_more_seeds(frames, findings):
        rows.add(
            Baseline=words("baseline", cost["baseline"]),
            **{
                "Half-width": number("half_width", cost["half_width"], f"±{text.plain(100 * cost['half_width'])}"),
                "Population": words("population", cost["population"]),
                "Seeds": number("seeds", cost["seeds"], text.count(cost["seeds"])),
                "Selected rates": _hours("hours_at_selected_rates", cost),
                "Whole grid": _hours("hours_of_whole_grid", cost),
            },
        )
    timed = text.of(int(frames.runs["train_seconds"].notna().sum()), len(frames.runs))
    return rows.captioned(
        "Of training, one run at a time: seeds for an interval of the half-width in percentage points, times the "
        "median seconds of a run at each model's selected rate, or of all its rates. Runs that trained together share "
        f"their time. Timed: {timed} planned runs.",
    )


def _hours(name: str, cost: dict[str, Any]) -> Cell:
    return number(name, cost[name], text.duration(cost[name]))


def _outcomes(counts: Counts) -> str:
    found = [f"{k} {name}" for name in ("collapsed", "diverged", "failed", "missing") if (k := getattr(counts, name))]
    return ", ".join(found) or "0"

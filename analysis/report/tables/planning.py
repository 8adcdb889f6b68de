"""What more seeds would bring."""

from __future__ import annotations

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.report.table import Rows, Table, number, words
from analysis.report.tables.cells import pairs, whole


def planning(findings: Findings, frames: Frames) -> Table | None:
    """Seeds that an interval of a stated half-width needs."""
    rows = Rows()
    for baseline, plan in findings.planning.items():
        for need in plan.needed:
            rows.add(
                Baseline=words("baseline", baseline),
                **{
                    "Half-width": number("half_width", need.half_width, f"±{text.plain(100 * need.half_width)}"),
                    "Seeds": rows.estimate("seeds", need.over_seeds, whole(need.over_seeds)),
                    "Seeds, and digits": rows.estimate("over_digits", need.over_digits, whole(need.over_digits)),
                    "Seen in": words("runs", text.rests_on(need.over_seeds)),
                },
            )
        rows.remarks.append(f"{baseline}: {plan.sentence}")
    return rows.table(
        "planning",
        "Pairs that a narrower interval needs",
        f"Half-widths in percentage points, of the {text.level(findings.about.settings.confidence)} t interval over "
        "seeds (this test set) and of the one over seeds and digits (new digits of the same kind), if what was seen "
        "holds.",
    )


def sign_test(findings: Findings, frames: Frames) -> Table | None:
    """Seeds that the sign test needs: no data enter, so all baselines need the same."""
    rows = Rows()
    plans = list(findings.planning.values())
    for need in plans[0].sign_test if plans else ():
        rows.add(
            **{
                "Ahead in": number("ahead", need.ahead, text.percent(need.ahead, 0)),
                "Power": number("power", need.power, text.percent(need.power, 0)),
                "Seeds": number("seeds", need.seeds, text.count(need.seeds)),
            }
        )
    return rows.table(
        "sign_test",
        "Seeds that the sign test needs",
        "Fewest pairs with which the exact two-sided sign test at "
        f"{text.level(1 - findings.about.settings.confidence)} finds, with the power stated, a model that is ahead in "
        "that share of pairs: exact binomial power, no data enter. "
        f"This study: {pairs(findings)}.",
    )

"""Numbers as read, and one table in its forms."""

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import text
from analysis.report import table
from analysis.stats.estimate import Estimate

NASTY = r"my_pkg.nets:My<Net>&%_#$~^\{}|\"[x]--``"


@pytest.mark.parametrize(
    ("function", "value", "shown"),
    [
        (text.plain, 0.001, "0.001"),
        (text.plain, 1e-4, "0.0001"),
        (text.plain, 20.0, "20"),
        (text.plain, 3e-7, "3e-07"),
        (text.duration, 0.074, "4.4 min"),
        (text.duration, 0.004, "14 s"),
        (text.duration, 1.25, "1.2 h"),
        (text.duration, 1234.5, "1,234 h"),
        (text.p_value, 2 / 2**20, "< 0.001"),
        (text.p_value, 0.00421, "0.0042"),
        (text.p_value, 0.0421, "0.042"),
        (text.p_value, 0.4213, "0.42"),
        (text.p_value, None, "—"),
        (text.p_statement, 2 / 2**20, "p < 0.001"),
        (text.p_statement, 0.4213, "p = 0.42"),
        (text.points, 0.00574, "+0.57"),
        (text.points, -0.00574, "−0.57"),
        (text.points, -0.000001, "0.00"),
        (text.percent, 0.98847, "98.85%"),
        (text.level, 0.975, "97.5%"),
        (text.level, 0.95, "95%"),
    ],
)
def test_numbers_as_a_reader_reads_them(function, value, shown):
    assert function(value) == shown


def test_narrow_intervals_get_three_decimals():
    assert text.points_interval(0.0052, 0.0064) == "+0.52 to +0.64"
    assert text.points_interval(0.0052, 0.0054) == "+0.520 to +0.540"
    assert text.points_interval(None, None) == "—"
    # A limit on one side of 0 is not printed as 0; one that is 0 is.
    assert text.points_interval(0.00002, 0.0064) == "+0.002 to +0.640"
    assert text.points_interval(-0.0064, -0.0000004) == "−0.64000 to −0.00004"
    assert text.points_interval(0.0, 0.0064) == "0.00 to +0.64"


def test_short_names_stay_distinct():
    assert text.short_names(["mlp", "pkg.nets:Net"]) == {"mlp": "mlp", "pkg.nets:Net": "Net"}
    assert text.short_names(["a:Net", "b:Net"]) == {"a:Net": "a:Net", "b:Net": "b:Net"}
    alike = [f"{'x' * 40}{k}{'y' * 40}" for k in "12"]
    assert len(set(text.short_names(alike).values())) == 2


def example(name: str = "mlp") -> table.Table:
    gap = Estimate(
        estimate=0.0057312345,
        low=0.005,
        high=0.0064,
        level=0.95,
        p_value=1e-6,
        method="mean ± t",
        n=18,
        planned=20,
        unit="pairs",
    )
    none = Estimate(method="mean ± t", n=1, planned=20, unit="pairs", declined="one pair has no spread")
    rows = table.Rows()
    for e in (gap, none, none):
        rows.add(
            Baseline=table.words("baseline", name),
            Gap=rows.estimate("gap", e, text.points(e.estimate)),
            Runs=table.words("runs", text.rests_on(e)),
        )
    return rows.captioned("95% t intervals.").table("example", "An example")


def test_a_declined_number_is_a_dash_with_its_reason_once():
    table = example()
    assert list(table.shown["Gap"]) == ["+0.57", "— [1]", "— [1]"]
    assert table.notes == ("[1] one pair has no spread",)
    assert pd.isna(table.data["gap"][1])
    assert table.data["gap_declined"][1] == "one pair has no spread"


def test_csv_keeps_every_digit():
    assert "0.0057312345,0.005,0.0064,0.95,1e-06,,,mean ± t,18,20,pairs," in table.as_csv(example())


def test_markdown_has_one_row_a_line_and_as_many_columns():
    lines = [line for line in table.as_markdown(example(NASTY)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert "<Net>" not in lines[2]


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_escaped_latex_is_balanced_and_holds_no_bare_special(name):
    escaped = text.latex(name)
    bare = re.sub(r"\\[a-zA-Z]+(\{\})?|\\[&%$#_{},]|\$\\?[a-zA-Z^0-9{}-]+\$|\{[-\[\]]\}|\{\}|~", "", escaped)
    assert not set(bare) & set("&%$#_^{}\\")

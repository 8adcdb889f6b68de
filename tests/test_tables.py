"""The findings as tables: the right numbers, k of N in every table, and LaTeX that compiles."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis import collect, frames, tables
from tests import synthetic
from tests.test_formats import compiled

STATES = {
    ("lenet5", 0.03, 0): "diverged",
    ("lenet5", 0.03, 1): "collapsed",
    ("mlp", 0.01, 2): "failed",
    ("mlp", 0.003, 1): "missing",
}
ANALYSIS = {
    "resamples": 300,
    "references": {"mlp": [{"source": "A & B, 50% off #1_x", "accuracy": 0.9705, "note": "<other> input"}]},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    data = frames.load(synthetic.write(folder, seeds=4, n_test=400, states=STATES, analysis=ANALYSIS))
    return collect.collect(data), data


def test_written_in_three_forms(study, tmp_path):
    written = {path.name for path in tables.write(*study, tmp_path)}
    names = [table.name for table in tables.build(*study)]
    assert written == {f"{name}{suffix}" for name in names for suffix in (".csv", ".md", ".tex")}
    assert {"gaps", "configurations", "completeness", "sweep", "classes", "checks", "literature"} <= set(names)


def test_every_table_says_how_many_of_how_many(study):
    for table in tables.build(*study):
        text = " ".join([table.caption, *table.notes, *table.shown.astype(str).to_numpy().ravel()])
        assert re.search(r"\d of \d", text), table.name


def test_gaps_hold_the_numbers_of_the_findings(study, tmp_path):
    findings, data = study
    tables.write(findings, data, tmp_path)
    frame = pd.read_csv(tmp_path / "gaps.csv")
    for row, comparison in zip(frame.itertuples(), findings.comparisons, strict=True):
        e = comparison.seeds.mean
        found = [row.gap, row.gap_low, row.gap_high, row.gap_level, row.gap_n, row.gap_planned]
        np.testing.assert_array_equal(found, [e.estimate, e.low, e.high, e.level, e.n, e.planned])
        assert row.over_seeds_and_digits_low == comparison.digits.low
        assert row.pairs == comparison.pairs
        assert row.pairs_planned == 4


def test_configurations_agree_with_the_runs(study, tmp_path):
    findings, data = study
    tables.write(findings, data, tmp_path)
    frame = pd.read_csv(tmp_path / "configurations.csv").set_index(["model", "learning_rate"])
    runs = data.runs[data.runs["trained"]].groupby(["model", "learning_rate"])["final_test_accuracy"]
    for key, values in runs:
        assert frame.loc[key, "test_accuracy"] == pytest.approx(values.mean(), abs=1e-12)
        assert frame.loc[key, "test_accuracy_sd"] == pytest.approx(values.std(ddof=1), abs=1e-12)
        assert frame.loc[key, "test_accuracy_n"] == len(values)
    assert frame.loc[("lenet5", 0.03), "not_trained"] == "1 collapsed, 1 diverged"


def test_runs_that_did_not_train_are_listed_with_their_reason(study):
    (table,) = (table for table in tables.build(*study) if table.name == "not_trained")
    assert sorted(table.shown["State"]) == ["collapsed", "diverged", "failed", "missing"]
    assert "RuntimeError: broken" in set(table.shown["Why"])


def test_warnings_stand_below_the_table_as_notes(study):
    findings, _ = study
    built = {table.name: table for table in tables.build(*study)}
    # Four pairs against a family of six tests: 2 / 2⁴ at best.
    at = findings.sweep["mlp"].rates[0]
    assert [note for note in built["sweep"].notes if at.sign_flip.warning in note]
    assert [note for note in built["checks"].notes if "below nominal" in note]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_all_latex_compiles_and_fits_the_page(study, tmp_path):
    written = tables.write(*study, tmp_path)
    printed = compiled(tmp_path, [path.stem for path in written if path.suffix == ".tex"])
    assert "A & B, 50% off #1_x" in printed


def test_no_number_is_printed_as_nan(study):
    for table in tables.build(*study):
        cells = table.shown.astype(str).to_numpy().ravel()
        assert not [cell for cell in cells if re.search(r"\b(nan|None|inf)\b", cell)], table.name

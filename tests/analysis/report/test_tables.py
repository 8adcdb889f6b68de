"""The findings as tables: the right numbers, k of N in every table, and LaTeX that compiles."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import frames, text
from analysis.findings import build, costs
from analysis.report import figures, page, tables
from analysis.report.tables import methods, selection
from analysis.stats.estimate import Estimate, Frozen
from analysis.stats.paired import Gap
from tests import synthetic

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
    return build.collect(data), data


def test_written_in_two_forms(study, tmp_path):
    written = {path.name for path in tables.write(*study, tmp_path)}
    names = [table.name for table in tables.build(*study)]
    assert written == {f"{name}{suffix}" for name in names for suffix in (".csv", ".md")}
    assert {"gaps", "configurations", "completeness", "sweep", "classes", "checks", "literature"} <= set(names)


def test_every_table_says_how_many_of_how_many(study):
    for table in tables.build(*study):
        text = " ".join([table.caption, *table.notes, *table.shown.astype(str).to_numpy().ravel()])
        assert re.search(r"\d of \d", text), table.name


def test_what_supposes_independent_images_says_so_once(study):
    """In the captions of tables and figures and on the tiles, wherever new images are spoken of."""
    findings, data = study
    clustered = replace(data, test_clusters=np.arange(400) // 4)
    for found, of in ((findings, data), (build.collect(clustered), clustered)):
        built = tables.build(found, of)
        said = {table.name: table.caption for table in built}
        said |= {f"figure {caption.name}": caption.text for caption in figures.captions(found, of)}
        said |= {f"tile {c.baseline}": " ".join(page.tile(found, c).lines) for c in found.comparisons}
        said = {name: words for name, words in said.items() if "new images" in words}
        assert {"gaps", "classes", "planning", "checks", "figure gap", "figure classes", "tile mlp"} <= set(said)
        independent = found is findings
        assert all(words.count("taken as independent") == independent for words in said.values()), said
        assert independent or "which come in 100 clusters" in said["gaps"]
        assert not any("independent" in cell for cell in built[0].shown.to_numpy().ravel())


@pytest.mark.parametrize(
    ("rates", "states", "rows"),
    [
        ([0.01], {}, set()),
        ([0.01], {("mlp", 0.01, 2): "missing"}, {"worst case"}),
        ([0.01], {("mlp", 0.01, 2): "diverged"}, {"scored at chance", "worst case"}),
        ([0.01, 0.03], {("mlp", 0.03, 2): "diverged"}, set()),
    ],
)
def test_runs_that_did_not_learn_are_scored_only_where_there_are_any(rates, states, rows, tmp_path):
    options = dict(learning_rates=rates, seeds=3, n_test=100, n_val=2000, analysis={"resamples": 100})
    folder = synthetic.write(tmp_path, states=states, **options)
    data = frames.load(folder)
    findings = build.collect(data)
    table = tables.TABLES["sensitivity"].table(findings, data)
    of_mlp = table.shown[table.shown["Baseline"] == "mlp"]
    assert set(of_mlp["Choice"]) & {"scored at chance", "worst case"} == rows
    assert len(of_mlp) == len(findings.comparisons[0].sensitivity) - 2 + len(rows)


def test_gaps_hold_the_numbers_of_the_findings(study, tmp_path):
    findings, data = study
    tables.write(findings, data, tmp_path)
    frame = pd.read_csv(tmp_path / "gaps.csv")
    for row, comparison in zip(frame.itertuples(), findings.comparisons, strict=True):
        e = comparison.seeds.mean
        found = [row.gap, row.gap_low, row.gap_high, row.gap_level, row.gap_n, row.gap_planned]
        np.testing.assert_array_equal(found, [e.estimate, e.low, e.high, e.level, e.n, e.planned])
        assert row.over_seeds_and_images_low == comparison.images.low
        assert row.pairs == comparison.pairs
        assert row.pairs_planned == 4


def test_configurations_agree_with_the_runs(study, tmp_path):
    findings, data = study
    tables.write(findings, data, tmp_path)
    frame = pd.read_csv(tmp_path / "configurations.csv").set_index(["model", "learning_rate"])
    runs = data.runs[data.runs["learned"]].groupby(["model", "learning_rate"])["final_test_accuracy"]
    for key, values in runs:
        assert frame.loc[key, "test_accuracy"] == pytest.approx(values.mean(), abs=1e-12)
        assert frame.loc[key, "test_accuracy_sd"] == pytest.approx(values.std(ddof=1), abs=1e-12)
        assert frame.loc[key, "test_accuracy_n"] == len(values)
    assert frame.loc[("lenet5", 0.03), "not_learned"] == "1 collapsed, 1 diverged"


def test_runs_that_did_not_train_are_listed_with_their_reason(study):
    (table,) = (table for table in tables.build(*study) if table.name == "not_learned")
    assert sorted(table.shown["State"]) == ["collapsed", "diverged", "failed", "missing"]
    assert "RuntimeError: broken" in set(table.shown["Why"])


def test_warnings_stand_below_the_table_as_notes(study):
    findings, _ = study
    built = {table.name: table for table in tables.build(*study)}
    # Four pairs against a family of six tests: 2 / 2⁴ at best.
    at = findings.sweep["mlp"].rates[0]
    assert [note for note in built["sweep"].notes if at.sign_flip.warning in note]
    assert [note for note in built["checks"].notes if "below nominal" in note]


def test_no_number_is_printed_as_nan(study):
    for table in tables.build(*study):
        cells = table.shown.astype(str).to_numpy().ravel()
        assert not [cell for cell in cells if re.search(r"\b(nan|None|inf)\b", cell)], table.name


def table(study, name):
    return next(t for t in tables.build(*study) if t.name == name)


def test_every_estimate_over_seeds_is_among_the_checks():
    def estimates(part, path=""):
        for name, field in part.model_fields.items():
            if field.annotation is Estimate:
                yield path + name
            elif isinstance(field.annotation, type) and issubclass(field.annotation, Frozen):
                yield from estimates(field.annotation, f"{name}.")

    assert set(methods.OVER_SEEDS) == set(estimates(Gap)) - {"mean"}


def test_every_other_choice_has_a_name(study):
    for comparison in study[0].comparisons:
        assert set(comparison.sensitivity) <= set(selection.OTHER)


def test_checks_name_the_population_the_criterion_and_the_margin_supported(study):
    findings, _ = study
    shown = table(study, "checks").shown
    assert {"seeds", "seeds and test images"} <= set(shown["Population"])
    for c in findings.comparisons:
        own = shown[shown["Baseline"] == c.baseline].drop_duplicates("What").set_index("What")
        said = f"Bouthillier et al. (2021) would call the difference to {c.baseline} {c.seeds.effect.bouthillier}, "
        assert any(note.startswith(said) for note in table(study, "checks").notes)
        supported = own.loc["largest supported margin (pp)", "Estimate"]
        assert supported == text.points(c.seeds.verdict.largest_supported_margin)


def test_no_row_repeats_the_primary_interval_or_tells_that_a_large_gap_is_not_none(study):
    findings, _ = study
    shown = table(study, "checks").shown
    for c in findings.comparisons:
        own = shown[shown["Baseline"] == c.baseline]
        # Of two baselines, 1 − 2α / 2 is the level of the primary interval.
        assert c.seeds.verdict.equivalence_interval.interval == c.seeds.mean.interval
        assert "interval of equivalence (pp)" not in set(own["What"])
        assert "interval of the verdict (pp)" in set(own["What"])
        assert ("equivalence (TOST)" in set(own["What"])) == (text.p_value(c.seeds.verdict.tost.p_value) != "1.00")


def test_an_exact_rank_sum_test_is_called_one(study):
    findings, _ = study
    shown = table(study, "checks").data
    unpaired = shown[shown["what"].isin(["rank-sum test, unpaired", "Brunner–Munzel, unpaired"])]
    assert len(unpaired) == len(findings.comparisons)
    for (_, row), c in zip(unpaired.iterrows(), findings.comparisons, strict=True):
        assert row["what"].startswith("rank-sum") == (c.seeds.checks.brunner_munzel.estimate in (0, 1))


def test_only_configurations_in_which_something_failed_have_rows(study):
    findings, _ = study
    smooth = [c for c in findings.completeness if not c.collapsed + c.diverged + c.failed + c.missing]
    shown = table(study, "completeness")
    assert 0 < len(shown.shown) == len(findings.completeness) - len(smooth)
    learned = f"All {sum(c.planned for c in smooth)} planned runs of {len(smooth)} other configurations learned."
    assert learned in shown.notes


def test_the_choice_of_every_learning_rate_is_shown(study):
    findings, _ = study
    data = table(study, "selection").data.set_index(["model", "learning_rate"])
    for model, found in findings.selection.items():
        for position, (name, luck) in enumerate(found.luck.items()):
            row = data.loc[model, float(name)]
            assert (row["share_of_resamples"], row["share_of_seeds"]) == (luck, found.cross_fitted[name])
            assert (row["mean_val_accuracy"], row["n"]) == (found.mean.scores[position], found.mean.n[position])
    assert table(study, "selection").shown["Rate"].str.contains("★").sum() == len(findings.selection)


def test_the_gap_with_fewer_rates_the_sign_test_and_the_hours_are_shown(study):
    findings, data = study
    best = table(study, "best_of_n").data
    assert list(best["gap"]) == [e.estimate for c in findings.comparisons for e in c.best_of_n]
    needed = findings.planning["mlp"].sign_test
    assert list(table(study, "sign_test").data["seeds"]) == [need.seeds for need in needed]
    hours = table(study, "hours").data
    assert list(hours["hours_of_whole_grid"]) == [c["hours_of_whole_grid"] for c in costs.of_more_seeds(data, findings)]


def test_a_negative_component_prints_as_0_beside_its_raw_value(study):
    findings, data = study
    crossed = findings.images["mlp"].crossed
    seeds = crossed.components[0].model_copy(
        update=dict(variance=crossed.components[0].variance.changed(estimate=0.0), raw=-1.5e-7)
    )
    changed = crossed.model_copy(update=dict(components=(seeds, *crossed.components[1:])))
    images = {**findings.images, "mlp": findings.images["mlp"].model_copy(update=dict(crossed=changed))}
    shown = table((findings.model_copy(update=dict(images=images)), data), "components")
    assert list(shown.shown.iloc[0][["Variance", "Raw", "SD"]]) == ["0", "−0.0015", "0"]
    assert any(f"{text.percent(crossed.image_share, 0)} of the squared standard error" in note for note in shown.notes)

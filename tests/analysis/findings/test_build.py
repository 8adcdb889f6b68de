"""Findings: every number against the ledger itself, the same bytes every time, and no case that breaks them."""

import shutil

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from analysis import frames
from analysis.findings.build import collect
from analysis.findings.schema import FORMAT, Findings
from analysis.stats.estimate import Basis
from study.ledger import ledger
from study.ledger.records import METRICS
from study.ledger.storage import Storage
from tests import synthetic
from tests.analysis.findings.studies import EVERY, FAST, ONE, TWO, estimates, strict
from tests.synthetic import Truth

CONSTANT = Truth(0.0, 1e9, 0.0)
"""A digit is always right or always wrong: all seeds are equal."""
PERFECT = Truth(50.0, 0.0, 0.0)


def based(value):
    """Everything in a tree of findings that says which runs it rests on, whatever else it is."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from based(part)
    elif hasattr(type(value), "model_fields"):
        if isinstance(value, Basis):
            yield value
        for name in type(value).model_fields:
            yield from based(getattr(value, name))


def test_counts_are_those_of_the_ledger(findings):
    assert sum(c.planned for c in findings.completeness) == findings.about.planned == 54
    for c in findings.completeness:
        assert c.finished + c.diverged + c.failed + c.missing == c.planned == 6
    totals = {s: sum(getattr(c, s) for c in findings.completeness) for s in ("diverged", "failed", "missing")}
    assert totals == {"diverged": 1, "failed": 1, "missing": 1}
    assert sum(c.collapsed for c in findings.completeness) == 1


def test_configurations_against_statsmodels(findings, records):
    for c in findings.configurations:
        runs = [r for (m, rate, _), r in records.items() if (m, rate) == (c.model, c.learning_rate)]
        trained = [r for r in runs if r.final and r.final["train_accuracy"] >= 0.2]
        for metric in METRICS:
            estimate = getattr(c, metric)
            values = DescrStatsW([r.final[metric] for r in trained])
            assert estimate.estimate == pytest.approx(values.mean, rel=1e-10)
            low, high = values.tconfint_mean()
            assert estimate.low == pytest.approx(low, rel=1e-10)
            assert estimate.high == pytest.approx(min(high, 1.0) if metric.endswith("accuracy") else high, rel=1e-10)
            assert (estimate.n, estimate.planned) == (len(trained), 6)
            assert getattr(c, f"{metric}_sd") == pytest.approx(
                stats.tstd([r.final[metric] for r in trained]), rel=1e-10
            )
    for c in findings.comparisons:
        d = [value for _, value in c.seeds.quantiles]
        assert c.seeds.effect.difference_sd == pytest.approx(stats.tstd(d), rel=1e-10)


def test_every_estimate_says_what_it_rests_on(findings, loaded):
    known = set(loaded.runs["run_id"])
    everything = list(estimates(findings))
    assert len(everything) > 100
    for estimate in everything:
        assert estimate.method
        assert estimate.unit
        assert estimate.n <= estimate.planned
    for runs in findings.run_sets.values():
        assert set(runs) <= known
        assert len(set(runs)) == len(runs)
    for found in based(findings):
        assert found.runs in findings.run_sets
        assert 0 < found.n <= found.planned
        if "pairs" in found.unit:
            assert len(findings.run_sets[found.runs]) >= 2 * found.n
    for c in findings.comparisons:
        for estimate in (*estimates(c.seeds), c.images):
            assert estimate.runs == c.seeds.mean.runs
        for at in findings.sweep[c.baseline].rates:
            runs = loaded.runs.set_index("run_id").loc[list(findings.run_sets[at.gap.runs])]
            assert set(runs["learning_rate"]) == {at.learning_rate}
            assert len(runs) == 2 * at.gap.n


def test_spread_over_seeds_is_of_the_runs_that_learned_at_the_selected_rate(findings, loaded):
    assert findings.seed_spread
    for model, found in findings.seed_spread.items():
        runs = list(findings.run_sets[found.on_test_set.runs])
        chosen = loaded.runs.set_index("run_id").loc[runs]
        assert set(chosen["learning_rate"]) == {findings.selection[model].mean.learning_rate}
        assert chosen["learned"].all()
        sd = chosen["final_test_accuracy"].std(ddof=1)
        assert found.on_test_set.estimate == pytest.approx(sd, rel=1e-10)
        assert found.distribution_wise.n == len(runs)


def test_resampling_names_its_seed(loaded):
    found = collect(loaded, FAST | {"seed": 7})
    (c, *_), one = found.comparisons, found.selection["lenet5"]
    drawn = [c.seeds.checks.bca.method, one.rests_on.method, c.sensitivity["re_selected"].method]
    drawn += [found.images[c.baseline].crossed.bootstrap.method, found.random_halves["lenet5"].method]
    for method in drawn:
        assert "seed 7" in method


def test_confirmatory_are_the_primary_intervals_and_the_primary_test_alone(findings):
    expected = []
    for c in findings.comparisons:
        expected += [c.seeds.mean, c.seeds.sign_flip, c.seeds.verdict.interval, c.seeds.verdict.equivalence_interval]
        expected += [c.images, c.images_verdict]
    assert [e for e in estimates(findings) if e.role == "confirmatory"] == expected


def test_models_say_what_they_are_made_of_where_that_is_not_their_name(tmp_path):
    folder = synthetic.write(tmp_path, TWO, seeds=2, n_test=60, n_val=40, made_of={"second": "mlp"}, analysis=FAST)
    assert [(m.name, m.constructor) for m in collect(frames.load(folder)).about.models] == [
        ("first", None),
        ("second", "mlp"),
    ]


def test_runs_are_named_once(findings):
    assert len(set(findings.run_sets.values())) == len(findings.run_sets)


def test_the_same_ledger_gives_the_same_bytes_wherever_it_lies(written, findings, tmp_path):
    moved = shutil.copytree(written, tmp_path / "moved")
    ledger.export(Storage(written), tmp_path / "study.zip")
    text = findings.to_json()
    assert collect(frames.load(moved)).to_json() == text
    assert collect(frames.load(tmp_path / "study.zip")).to_json() == text
    assert Findings.model_validate_json(text) == findings
    assert strict(text)["format"] == FORMAT


CASES = {
    "one seed": dict(seeds=1),
    "two seeds": dict(seeds=2),
    "one learning rate": dict(learning_rates=[0.1]),
    "one of everything": dict(seeds=1, learning_rates=[0.1], n_test=3, n_val=2),
    "two digits": dict(n_test=2, n_val=1, classes=2),
    "two classes": dict(classes=2),
    "all diverged": dict(states=dict.fromkeys(EVERY, "diverged")),
    "all collapsed": dict(states=dict.fromkeys(EVERY, "collapsed")),
    "all failed": dict(states=dict.fromkeys(EVERY, "failed")),
    "nothing trained yet": dict(states=dict.fromkeys(EVERY, "missing")),
    "one model diverged": dict(states=dict.fromkeys([k for k in EVERY if k[0] == "second"], "diverged")),
    "one model missing": dict(states=dict.fromkeys([k for k in EVERY if k[0] == "first"], "missing")),
    "one pair left": dict(states=dict.fromkeys([k for k in EVERY if k[2] > 0], "missing")),
    "unequal seeds": dict(states=dict.fromkeys([k for k in EVERY if k[0] == "first" and k[2] > 1], "missing")),
    "no seed in common": dict(states=dict.fromkeys([k for k in EVERY if (k[0] == "first") == (k[2] > 1)], "missing")),
    "predictions lost": dict(states=dict.fromkeys(EVERY, "unpredicted")),
    "some predictions lost": dict(states=dict.fromkeys(EVERY[::3], "unpredicted")),
    "all accuracies equal": dict(models={"first": CONSTANT, "second": CONSTANT}, correlation=1.0),
    "each model constant": dict(models={"first": CONSTANT, "second": CONSTANT}),
    "all perfect": dict(models={"first": PERFECT, "second": PERFECT}),
    "one perfect": dict(models={"first": PERFECT, "second": ONE}),
    "complete separation": dict(models={"first": PERFECT, "second": Truth(0.0, 0.1, 0.0)}),
    "one model": dict(models={"first": ONE}),
    "five models": dict(models={f"m{i}": Truth(1 + i / 10, 1.0, 0.1) for i in range(5)}, seeds=3),
    "a user's models": dict(models={"my.nets:A": ONE, "my.nets:B": ONE}, dataset="scans of 1998"),
    "a factorial": dict(seeds={"init": 2, "order": 2, "split": 2}),
    "random rates": dict(learning_rates=[0.001000001, 0.001000002, 0.3]),
    "no parameters": dict(models={"first": Truth(1.0, n_parameters=0), "second": ONE}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_case_gives_numbers_or_says_why_not(case, tmp_path):
    options = dict(models=TWO, seeds=4, n_test=60, n_val=40, analysis=FAST, shape=(4, 4)) | CASES[case]
    loaded = frames.load(synthetic.write(tmp_path, **options))
    with np.errstate(all="raise", under="ignore"):
        found = collect(loaded)
    text = found.to_json()
    assert Findings.model_validate_json(text) == found
    strict(text)
    assert "nan" not in found.answer.lower()
    assert len(found.comparisons) == len(options["models"]) - 1
    for c in found.comparisons:
        assert c.pairs <= c.planned
        assert c.planned > 0
        assert all(e.planned > 0 for e in estimates(c))
        assert (c.seeds.mean.low is None or not c.independent) == (c.seeds.verdict.words is None)
        assert c.independent == (case != "a factorial")
        if c.seeds.mean.low is None:
            assert c.seeds.mean.declined
        if c.seeds.verdict.words is None or c.seeds.mean.low is None:
            assert not c.unqualified
    for estimate in estimates(found):
        numbers = [estimate.estimate, estimate.low, estimate.p_value]
        assert any(n is not None for n in numbers) or estimate.declined
        assert estimate.low is None or estimate.low < estimate.high
    # Nothing is dropped: every run planned is in the counts.
    assert sum(c.planned for c in found.completeness) == len(loaded.runs) == found.about.planned


def test_declined_says_why(tmp_path):
    def first(**options):
        folder = synthetic.write(tmp_path / str(len(list(tmp_path.iterdir()))), **dict(models=TWO) | options)
        return collect(frames.load(folder), FAST).comparisons[0]

    small = dict(n_test=60, n_val=40)
    assert "n = 1" in first(seeds=1, **small).seeds.mean.declined
    lost = first(seeds=4, states=dict.fromkeys(EVERY, "unpredicted"), **small)
    assert lost.seeds.mean.low is not None
    assert "predictions" in lost.images.declined
    assert lost.mcnemar is None
    constant = first(seeds=4, **small | dict(models={"first": CONSTANT, "second": CONSTANT}))
    assert "all 4 values are equal" in constant.seeds.mean.declined
    assert constant.seeds.mean.estimate is not None

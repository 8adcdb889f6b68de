"""Findings: every number against the ledger itself, the same bytes every time, and no case that breaks them."""

import json
import shutil
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from analysis import costs, frames
from analysis.collect import collect
from analysis.estimate import Estimate
from analysis.findings import Findings
from study import ledger
from study.errors import UserError
from study.ledger import Ledger
from study.storage import Storage
from tests import synthetic
from tests.synthetic import Truth

FAST = {"resamples": 200}
STATES = {
    ("lenet5", 0.01, 1): "diverged",
    ("mlp", 0.01, 2): "failed",
    ("mlp", 0.03, 0): "missing",
    ("mlp_matched", 0.003, 3): "collapsed",
}
RATES = (0.003, 0.01, 0.03)
MODELS = {
    "lenet5": Truth(2.5, 2.0, 0.2, 44_426),
    "mlp": Truth(2.2, 2.0, 0.2, 469_160),
    "mlp_matched": Truth(1.9, 2.0, 0.2, 44_439),
}
"""So many errors that no two seeds of a few hundred digits come out alike."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("findings")
    return synthetic.write(folder, MODELS, seeds=6, n_test=400, n_val=300, states=STATES, analysis=FAST)


@pytest.fixture(scope="module")
def loaded(written):
    return frames.load(written)


@pytest.fixture(scope="module")
def findings(loaded):
    return collect(loaded)


@pytest.fixture(scope="module")
def records(written):
    """(model, learning rate, seed) → record, read without the frames."""
    found, _ = Ledger(Storage(written)).records()
    return {(r.run.model, r.run.learning_rate, r.run.seed): r for r in found.values()}


ONE = Truth(1.5, 1.0, 0.1)
CONSTANT = Truth(0.0, 1e9, 0.0)
"""A digit is always right or always wrong: all seeds are equal."""

PERFECT = Truth(50.0, 0.0, 0.0)


def estimates(value):
    """Every estimate in a tree of findings, with its path."""
    if isinstance(value, Estimate):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from estimates(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from estimates(part)
    elif hasattr(type(value), "model_fields"):
        for name in type(value).model_fields:
            yield from estimates(getattr(value, name))


def strict(text):
    """JSON, and nothing that only Python takes for it."""

    def refuse(constant):
        raise AssertionError(f"{constant} in findings.json")

    return json.loads(text, parse_constant=refuse)


# against the ledger


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
        for estimate, metric in (
            (c.test_accuracy, "test_accuracy"),
            (c.val_accuracy, "val_accuracy"),
            (c.test_loss, "test_loss"),
        ):
            values = DescrStatsW([r.final[metric] for r in trained])
            assert estimate.estimate == pytest.approx(values.mean, rel=1e-10)
            low, high = values.tconfint_mean()
            assert estimate.low == pytest.approx(low, rel=1e-10)
            assert estimate.high == pytest.approx(min(high, 1.0) if metric.endswith("accuracy") else high, rel=1e-10)
            assert (estimate.n, estimate.planned) == (len(trained), 6)
        assert c.test_accuracy_sd == pytest.approx(stats.tstd([r.final["test_accuracy"] for r in trained]), rel=1e-10)


def test_the_gap_from_the_records_by_hand(findings, records):
    def scored(record):
        return record.final["val_accuracy"] if record.final and record.final["train_accuracy"] >= 0.2 else 0.1

    for comparison in findings.comparisons:
        chosen = {}
        for model in ("lenet5", comparison.baseline):
            outcomes = {rate: [r for (m, x, _), r in records.items() if (m, x) == (model, rate)] for rate in RATES}
            means = {rate: np.mean([scored(r) for r in rs if r.state != "failed"]) for rate, rs in outcomes.items()}
            chosen[model] = max(means, key=lambda rate: round(means[rate], 12))  # ties: the smaller rate
            assert findings.selection[model].mean.scores == pytest.approx(tuple(means.values()), rel=1e-12)
        assert (comparison.candidate_rate, comparison.baseline_rate) == tuple(chosen.values())
        pairs = [[records.get((m, rate, s)) for m, rate in chosen.items()] for s in range(6)]
        both = [p for p in pairs if all(r and r.final and r.final["train_accuracy"] >= 0.2 for r in p)]
        d = [p[0].final["test_accuracy"] - p[1].final["test_accuracy"] for p in both]
        assert (comparison.pairs, comparison.planned) == (len(d), 6)
        values = DescrStatsW(d)
        assert comparison.seeds.mean.estimate == pytest.approx(values.mean, rel=1e-10)
        assert (comparison.seeds.mean.low, comparison.seeds.mean.high) == pytest.approx(
            values.tconfint_mean(), rel=1e-9
        )
        level = values.tconfint_mean(0.025)
        assert (comparison.seeds.verdict_interval.low, comparison.seeds.verdict_interval.high) == pytest.approx(level)
        assert comparison.seeds.verdict_interval.level == pytest.approx(0.975)
        assert comparison.seeds.equivalence_interval.level == pytest.approx(0.95)
        expected = {p[0].run_id for p in both} | {p[1].run_id for p in both}
        assert set(findings.run_sets[comparison.seeds.mean.runs]) == expected


def test_outcomes_that_are_missing_from_the_pairs_are_counted(tmp_path):
    states = {("lenet5", 0.01, 1): "diverged", ("lenet5", 0.01, 2): "missing", ("mlp", 0.01, 3): "failed"}
    folder = synthetic.write(tmp_path, seeds=6, n_test=300, n_val=200, learning_rates=[0.01], states=states)
    found = collect(frames.load(folder), FAST).comparisons[0]
    assert (found.pairs, found.planned) == (3, 6)
    assert found.not_trained == {"lenet5": 1, "mlp": 0}
    assert found.absent == {"lenet5": 1, "mlp": 1}


def test_both_populations_come_from_the_same_pairs(findings, loaded):
    for c in findings.comparisons:
        assert c.digits.estimate == pytest.approx(c.seeds.mean.estimate, rel=1e-10)
        assert (c.digits.n, c.digits.population, c.seeds.mean.population) == (c.pairs, "seeds and digits", "seeds")
        assert c.digits.high - c.digits.low > c.seeds.mean.high - c.seeds.mean.low
        ids = findings.run_sets[c.digits.runs]
        right = loaded.correct(ids)
        x = right[: c.pairs].astype(float) - right[c.pairs :]
        assert x.mean() == pytest.approx(c.digits.estimate)
        assert findings.digits[c.baseline].crossed.gap == c.digits


# families


def test_holm_within_each_family_counts_every_member(findings):
    sweep = [r for s in findings.sweep.values() for r in s.rates]
    classes = [c for d in findings.digits.values() for c in d.classes]
    assert len(sweep) == 2 * 3
    assert len(classes) == 2 * 10
    families = [
        ([c.seeds.sign_flip.p_value for c in findings.comparisons], [c.p_holm for c in findings.comparisons]),
        ([r.sign_flip.p_value for r in sweep], [r.adjusted_p for r in sweep]),
        ([c.gap.p_value for c in classes], [c.adjusted_p for c in classes]),
    ]
    for raw, adjusted in families:
        expected = multipletests([1.0 if p is None else p for p in raw], method="holm")[1]
        for p, found, wanted in zip(raw, adjusted, expected, strict=True):
            assert (found is None) if p is None else found == pytest.approx(wanted)


def test_the_verdict_is_held_to_the_level_of_the_family(loaded):
    one = collect(loaded, FAST | {"baselines": ["mlp"]}).comparisons[0].seeds
    two = collect(loaded, FAST).comparisons[0].seeds
    assert (one.verdict_interval.level, two.verdict_interval.level) == (pytest.approx(0.95), pytest.approx(0.975))
    assert one.mean == two.mean.model_copy(update={"runs": one.mean.runs})


# selection and its luck


def test_best_of_n_against_all_subsets(findings, loaded, records):
    grid = {m: np.array([[_score(records.get((m, r, s))) for s in range(6)] for r in RATES]) for m in loaded.models}
    for comparison in findings.comparisons:
        expected = []
        for n in (1, 2, 3):
            best = []
            for model in ("lenet5", comparison.baseline):
                val, test = np.nanmean(grid[model], axis=1).round(12).T
                best.append(np.mean([test[max(s, key=lambda i: val[i])] for s in combinations(range(3), n)]))
            expected.append(best[0] - best[1])
        assert comparison.best_of_n == pytest.approx(expected, rel=1e-10)


def _score(record):
    if record is None or record.state == "failed":
        return np.nan, np.nan
    if record.final is None or record.final["train_accuracy"] < 0.2:
        return 0.1, 0.1
    return record.final["val_accuracy"], record.final["test_accuracy"]


def test_cross_fitting_chooses_each_seeds_rate_without_it(findings, loaded, records):
    for comparison in findings.comparisons:
        d = []
        for s in range(6):
            pair = []
            for model in ("lenet5", comparison.baseline):
                others = [[_score(records.get((model, r, x)))[0] for x in range(6) if x != s] for r in RATES]
                rate = RATES[int(np.argmax([np.nanmean(row).round(12) for row in others]))]
                record = records.get((model, rate, s))
                trained = record is not None and record.final is not None and record.final["train_accuracy"] >= 0.2
                pair.append(record.final["test_accuracy"] if trained else np.nan)
            d.append(pair[0] - pair[1])
        found = comparison.sensitivity["cross_fitted"]
        assert found.estimate == pytest.approx(np.nanmean(d), rel=1e-10)
        assert found.n == np.isfinite(d).sum()


def test_luck_frequencies_add_up_and_the_range_claims_no_coverage(findings):
    for choice in findings.selection.values():
        assert sum(choice.luck.values()) == pytest.approx(1)
        assert sum(choice.cross_fitted.values()) == pytest.approx(1)
        assert choice.digits_resampled
    for comparison in findings.comparisons:
        range_ = comparison.sensitivity["re_selected"]
        assert range_.role == "sensitivity"
        assert range_.low is None or (range_.low <= range_.estimate <= range_.high and "no coverage" in range_.warning)
        for name in ("scored_at_chance", "worst_case", "median", "cross_fitted"):
            assert comparison.sensitivity[name].low is None


def test_a_rate_at_the_edge_of_the_grid_is_warned_of(tmp_path):
    folder = synthetic.write(tmp_path, seeds=3, n_test=100, n_val=2000, learning_rates=[0.01, 0.3], analysis=FAST)
    found = collect(frames.load(folder))
    assert [w for w in found.warnings if "edge of the grid" in w]
    one = synthetic.write(tmp_path / "one", seeds=3, n_test=100, n_val=50, learning_rates=[0.01], analysis=FAST)
    assert not collect(frames.load(one)).warnings


@pytest.mark.parametrize(("state", "words"), [("diverged", "learned at no learning rate"), ("missing", "no run with")])
def test_a_rate_chosen_for_want_of_a_better_one_is_warned_of(state, words, tmp_path):
    states = dict.fromkeys(product(("b",), RATES, range(2)), state)
    folder = synthetic.write(tmp_path, {"a": ONE, "b": ONE}, seeds=2, n_test=30, n_val=2000, states=states)
    found = collect(frames.load(folder), FAST)
    assert [w.split()[0] for w in found.warnings if words in w] == ["b"]
    assert "no answer" in found.answer


# provenance of the numbers


def test_every_estimate_says_what_it_rests_on(findings, loaded):
    known = set(loaded.runs["run_id"])
    everything = list(estimates(findings))
    assert len(everything) > 100
    for estimate in everything:
        assert estimate.method
        assert estimate.unit
        assert estimate.n <= estimate.planned
        assert estimate.runs is None or estimate.runs in findings.run_sets
    for runs in findings.run_sets.values():
        assert set(runs) <= known
        assert len(set(runs)) == len(runs)
    for c in findings.comparisons:
        for estimate in (*estimates(c.seeds), c.digits):
            assert estimate.runs == f"lenet5 against {c.baseline}"


def test_the_same_ledger_gives_the_same_bytes_wherever_it_lies(written, findings, tmp_path):
    moved = shutil.copytree(written, tmp_path / "moved")
    ledger.export(Storage(written), tmp_path / "study.zip")
    text = findings.to_json()
    assert collect(frames.load(moved)).to_json() == text
    assert collect(frames.load(tmp_path / "study.zip")).to_json() == text
    assert Findings.model_validate_json(text) == findings
    assert strict(text)["format"] == 1


def test_time_and_machine_are_in_the_costs_alone(written, findings, tmp_path):
    moved = shutil.copytree(written, tmp_path / "moved")
    for path in (moved / "runs").iterdir():
        record = json.loads(path.read_text())
        record["provenance"] |= {"train_seconds": 5.0, "node": "elsewhere", "attempts": 2}
        path.write_text(json.dumps(record))
    other = frames.load(moved)
    assert collect(other).to_json() == findings.to_json()
    cost = strict(costs.to_json(other, findings))
    n = int((other.runs["state"] != "missing").sum())
    assert cost["train_seconds"] == 5.0 * n
    assert cost["nodes"] == ["elsewhere"]
    assert cost["runs_with_several_attempts"] == n
    assert sum(m["runs"] for m in cost["by_model"].values()) == n
    for plan in cost["hours_of_training_for"]:
        # Two runs of 5 seconds a seed at the selected rates, six on the whole grid of both models.
        assert plan["hours_at_selected_rates"] == round(plan["seeds"] * 10 / 3600, 3)
        assert plan["hours_of_whole_grid"] == round(plan["seeds"] * 30 / 3600, 3)
    assert cost["hours_of_training_for"]


def test_preregistration_knows_what_was_declared(loaded, findings):
    assert findings.preregistration.as_declared
    assert findings.preregistration.deviations == ()
    assert findings.preregistration.declared_sha256 == loaded.study.launches[0].analysis_sha256
    other = collect(loaded, {"margin": 0.002, "baselines": ["mlp"]}).preregistration
    assert not other.as_declared
    assert [(d.key, d.declared, d.used) for d in other.deviations] == [
        ("baselines", None, ["mlp"]),
        ("margin", 0.001, 0.002),
    ]
    assert not collect(loaded, {"margin": 0.001}).preregistration.deviations


def test_a_factorial_gives_components_of_variance_and_a_warning(tmp_path):
    folder = synthetic.write(
        tmp_path,
        {"only": Truth(2.0, 2.0, 0.3)},
        seeds={"init": 3, "order": 4, "split": 2},
        learning_rates=[0.01],
        n_test=300,
        n_val=40,
        analysis=FAST,
    )
    loaded = frames.load(folder)
    found = collect(loaded)
    assert found.comparisons == ()
    assert found.about.splits == 2
    components = found.variance["only"].components
    assert dict(components.levels) == {"init": 3, "order": 4, "split": 2}
    # The mean square of the init seeds by hand; three levels, each the mean of eight runs.
    means = loaded.runs.groupby("init_seed")["final_test_accuracy"].mean()
    weights = {"init": 8, "init × order": 2, "init × split": 4}
    raw = {c.effect: c.raw for c in components.components}
    (last,) = [effect for effect in raw if effect.startswith("init × order × split")]
    expected = sum(w * raw[effect] for effect, w in weights.items()) + raw[last]
    assert 8 * means.var(ddof=1) == pytest.approx(expected, rel=1e-9)
    assert [w for w in found.warnings if "not independent" in w]
    assert components.standard_deviation > 0
    assert len(found.variance["only"].against_itself.gaps) == 3 * 2


def test_references_stand_beside_our_numbers(tmp_path):
    block = FAST | {
        "references": {"mlp": [{"source": "A & B 1998", "accuracy": 0.97, "note": "other loss"}]},
        "expected": {"mlp": [0.2, 0.3], "lenet5": [0.5, 1 - 1e-9]},
    }
    found = collect(frames.load(synthetic.write(tmp_path, seeds=3, n_test=100, n_val=50, analysis=block)))
    (reference,) = found.literature
    rate = found.selection["mlp"].mean.learning_rate
    ours = next(c for c in found.configurations if (c.model, c.learning_rate) == ("mlp", rate))
    assert (reference.source, reference.accuracy, reference.ours) == ("A & B 1998", 0.97, ours.test_accuracy)
    (warning,) = [w for w in found.warnings if "expected" in w]
    assert warning.startswith("mlp reaches")
    assert "learning rate, number of epochs, preprocessing, implementation" in warning


# any models, any case

TWO = {"first": ONE, "second": Truth(1.3, 1.0, 0.1)}
EVERY = list(product(TWO, RATES, range(4)))

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
        assert (c.seeds.mean.low is None) == (c.seeds.verdict is None)
        if c.seeds.mean.low is None:
            assert c.seeds.mean.declined
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
    assert "predictions" in lost.digits.declined
    assert lost.mcnemar is None
    constant = first(seeds=4, **small | dict(models={"first": CONSTANT, "second": CONSTANT}))
    assert "all 4 values are equal" in constant.seeds.mean.declined
    assert constant.seeds.mean.estimate is not None


def test_swapping_the_models_swaps_the_sign_and_nothing_else(loaded):
    one = collect(loaded, FAST | {"candidate": "lenet5", "baselines": ["mlp"]}).comparisons[0]
    other = collect(loaded, FAST | {"candidate": "mlp", "baselines": ["lenet5"]}).comparisons[0]
    assert other.seeds.mean.estimate == pytest.approx(-one.seeds.mean.estimate, rel=1e-12)
    assert (other.seeds.mean.low, other.seeds.mean.high) == pytest.approx((-one.seeds.mean.high, -one.seeds.mean.low))
    assert other.seeds.sign_flip.p_value == one.seeds.sign_flip.p_value
    assert (other.seeds.wins, other.seeds.losses) == (one.seeds.losses, one.seeds.wins)
    assert other.digits.estimate == pytest.approx(-one.digits.estimate)
    assert other.best_of_n == pytest.approx([-g for g in one.best_of_n])


@pytest.mark.parametrize(
    "block",
    [
        {"candidate": "nobody"},
        {"baselines": ["lenet5"]},
        {"baselines": ["mlp", "mlp"]},
        {"baselines": ["nobody"]},
        {"confidence": 0.5},
    ],
)
def test_an_analysis_that_cannot_be_is_one_line(loaded, block):
    with pytest.raises(UserError, match="analysis"):
        collect(loaded, block)


# the answer


def test_the_answer_says_what_the_findings_say(findings):
    for paragraph, c in zip(findings.answer.split("\n\n"), findings.comparisons, strict=True):
        asked = findings.robustness[c.baseline]
        for piece in (
            "400 test digits of mnist",
            f"lenet5 misread {100 * c.candidate_error:.2f}%",
            f"and {c.baseline}, with",
            f"from {c.pairs} of {c.planned} planned pairs",
            f"ahead in {c.seeds.wins} of these {c.pairs} pairs",
            f"{c.not_trained['lenet5']} and {c.not_trained[c.baseline]} trainings failed to learn",
            f"for this test set is: {c.seeds.verdict}",
            "threshold of 0.1 points",
            "95% confidence",
            "allowing for training luck",
            "allowing also for a different sample of such digits",
            "only the learning rate was tuned",
            f"{asked.same_sign} of {asked.alternatives} alternative",
        ):
            assert piece in paragraph
        assert ("more accurate of the two" in paragraph) == c.unqualified
    assert "with one training set and one split." in findings.answer
    assert "10.6 times as many" in findings.answer
    assert "about as many" in findings.answer


def test_more_accurate_without_a_population_needs_both_intervals(tmp_path):
    # So few digits that training luck is small beside the luck of the digits.
    truth = {"first": Truth(0.9, 3.0, 0.01), "second": Truth(0.75, 3.0, 0.01)}
    folder = synthetic.write(tmp_path, truth, seeds=20, n_test=150, n_val=50, correlation=0.0, analysis=FAST)
    found = collect(frames.load(folder))
    (c,) = found.comparisons
    assert c.seeds.mean.low > 0
    assert c.digits.low < 0
    assert not c.unqualified
    assert "does not show that either model is the more accurate" in found.answer

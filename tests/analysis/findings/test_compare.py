"""The comparison: both populations from the same pairs, families of tests, and what becomes of lost runs."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from analysis import frames, text
from analysis.findings.build import collect
from analysis.report import figures, page, tables
from tests import synthetic
from tests.analysis.findings.studies import FAST, MODELS, RATES
from tests.synthetic import Truth


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
        assert (comparison.seeds.verdict.interval.low, comparison.seeds.verdict.interval.high) == pytest.approx(level)
        assert comparison.seeds.verdict.interval.level == pytest.approx(0.975)
        assert comparison.seeds.verdict.equivalence_interval.level == pytest.approx(0.95)
        expected = {p[0].run_id for p in both} | {p[1].run_id for p in both}
        assert set(findings.run_sets[comparison.seeds.mean.runs]) == expected


def test_outcomes_that_are_missing_from_the_pairs_are_counted(tmp_path):
    states = {("lenet5", 0.01, 1): "diverged", ("lenet5", 0.01, 2): "missing", ("mlp", 0.01, 3): "failed"}
    folder = synthetic.write(tmp_path, seeds=6, n_test=300, n_val=200, learning_rates=[0.01], states=states)
    found = collect(frames.load(folder), FAST).comparisons[0]
    assert (found.pairs, found.planned) == (3, 6)
    assert found.not_learned == {"lenet5": 1, "mlp": 0}
    assert found.absent == {"lenet5": 1, "mlp": 1}


def test_both_populations_come_from_the_same_pairs(findings, loaded):
    for c in findings.comparisons:
        assert c.images.estimate == pytest.approx(c.seeds.mean.estimate, rel=1e-10)
        assert (c.images.n, c.images.population, c.seeds.mean.population) == (c.pairs, "seeds and test images", "seeds")
        assert c.images.high - c.images.low > c.seeds.mean.high - c.seeds.mean.low
        ids = findings.run_sets[c.images.runs]
        right = loaded.correct(ids)
        x = right[: c.pairs].astype(float) - right[c.pairs :]
        assert x.mean() == pytest.approx(c.images.estimate)
        assert findings.images[c.baseline].crossed.gap.changed(role="confirmatory") == c.images
        assert c.images_verdict.level == pytest.approx(0.975)
        assert c.images_verdict.low < c.images.low < c.images.high < c.images_verdict.high


def test_holm_within_each_family_counts_every_member(findings):
    sweep = [r for s in findings.sweep.values() for r in s.rates]
    classes = [c for d in findings.images.values() for c in d.classes]
    assert len(sweep) == 2 * 3
    assert len(classes) == 2 * 10
    # Six pairs cannot give a p-value below 2 / 2⁶, let alone 0.05 / 6.
    assert all("could reach 0.00833" in r.sign_flip.warning for r in sweep)
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
    assert (one.verdict.interval.level, two.verdict.interval.level) == (pytest.approx(0.95), pytest.approx(0.975))
    assert one.mean == two.mean


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


def test_pairs_that_share_seeds_get_no_verdict(tmp_path):
    seeds = {"init": 3, "order": 3, "split": 2}
    truth = {"first": Truth(2.5, 1.0, 0.1), "second": Truth(1.0, 1.0, 0.1)}
    found = collect(frames.load(synthetic.write(tmp_path, truth, seeds=seeds, learning_rates=[0.01], n_test=300)), FAST)
    (c,) = found.comparisons
    assert c.seeds.mean.low > 0.1
    assert c.images.low > 0.1
    assert not c.independent
    assert (c.seeds.verdict.words, c.unqualified) == (None, False)
    for e in (c.seeds.mean, c.seeds.verdict.interval, c.seeds.sign_flip, c.images):
        assert "share initial weights or batch orders" in e.warning
    assert (
        "share initial weights or batch orders, so both intervals are too short, and no verdict is given"
        in found.answer
    )
    assert "more accurate" not in found.answer
    assert "with one training set and 2 splits." in found.answer


def test_swapping_the_models_swaps_the_sign_and_nothing_else(loaded):
    one = collect(loaded, FAST | {"candidate": "lenet5", "baselines": ["mlp"]}).comparisons[0]
    other = collect(loaded, FAST | {"candidate": "mlp", "baselines": ["lenet5"]}).comparisons[0]
    assert other.seeds.mean.estimate == pytest.approx(-one.seeds.mean.estimate, rel=1e-12)
    assert (other.seeds.mean.low, other.seeds.mean.high) == pytest.approx((-one.seeds.mean.high, -one.seeds.mean.low))
    assert other.seeds.sign_flip.p_value == one.seeds.sign_flip.p_value
    assert (other.seeds.effect.wins, other.seeds.effect.losses) == (one.seeds.effect.losses, one.seeds.effect.wins)
    assert other.images.estimate == pytest.approx(-one.images.estimate)
    assert [e.estimate for e in other.best_of_n] == pytest.approx([-e.estimate for e in one.best_of_n])


def test_lost_predictions_cost_their_pairs_alone(tmp_path):
    states = {("mlp", 0.01, 1): "unpredicted"}
    options = dict(models=MODELS, seeds=5, n_test=300, n_val=60, learning_rates=[0.01])
    data = frames.load(synthetic.write(tmp_path, **options, states=states))
    found = collect(data, FAST)
    c, whole = found.comparisons
    assert (c.pairs, c.images.n, c.images.planned) == (5, 4, 5)
    assert c.images.warning.startswith("1 of 5 pairs that learned have lost their predictions")
    assert "from the 4 of 5 pairs whose predictions are there" in found.answer
    assert "mlp: predictions are there of 4 of 5 pairs that learned" in found.warnings
    kept = [s for s in range(5) if s != 1]
    runs = data.runs.set_index(["model", "seed"])["final_test_accuracy"]
    assert c.images.estimate == pytest.approx((runs["lenet5"][kept] - runs["mlp"][kept]).mean(), rel=1e-10)
    assert len(found.run_sets[c.images.runs]) == 8
    assert c.mcnemar.pairs == found.images["mlp"].hard.rests_on.n == 4
    assert whole.images.n == 5
    assert whole.images.warning is None
    # The caption of the confusions counts predictions, not runs.
    (caption,) = (c for c in figures.captions(found, data) if c.name == "confusion")
    assert "mlp 4 of 5" in caption.text


def test_the_verdict_for_new_images_rests_on_the_pairs_that_its_interval_rests_on(tmp_path):
    """Two of eight pairs have predictions: their interval leaves out 0, and no test of two pairs can say so."""
    truth = {"first": Truth(2.5, 1.0, 0.01), "second": Truth(0.5, 1.0, 0.01)}
    states = dict.fromkeys([("first", 0.01, seed) for seed in range(2, 8)], "unpredicted")
    folder = synthetic.write(
        tmp_path, truth, seeds=8, n_test=2000, n_val=50, learning_rates=(0.01,), states=states, analysis=FAST
    )
    found = collect(frames.load(folder))
    (c,) = found.comparisons
    assert (c.pairs, c.images.n, c.images.low > 0) == (8, 2, True)
    assert c.seeds.verdict.words == "better by more than the margin"
    assert c.verdict_for_new_images == "undecided: 2 pairs are too few for the exact test at 0.05, 6 would do"
    assert not c.unqualified
    assert page.tile(found, c).lines[0].endswith("(95%; from 2 of 8 pairs)")
    assert "second: over seeds and images, from the 2 of 8 pairs" in " ".join(
        tables.TABLES["gaps"].table(found, frames.load(folder)).notes
    )


def test_classes_of_a_baseline_without_predictions_still_count_in_holms_family(tmp_path):
    options = dict(models=MODELS, seeds=4, n_test=300, n_val=60, learning_rates=[0.01])
    states = dict.fromkeys([("mlp_matched", 0.01, s) for s in range(4)], "unpredicted")
    found = collect(frames.load(synthetic.write(tmp_path, **options, states=states)), FAST)
    classes = found.images["mlp"].classes
    assert (len(classes), found.images["mlp_matched"].classes) == (10, ())
    smallest = min(classes, key=lambda c: c.gap.p_value)
    assert smallest.adjusted_p == pytest.approx(min(1.0, 20 * smallest.gap.p_value))
    assert "of none of the 4 pairs that learned are the predictions" in found.comparisons[1].images.declined


def test_the_same_gap_is_the_same_number_everywhere(findings):
    for c in findings.comparisons:
        asked = findings.robustness[c.baseline]
        (primary,) = [s for s in asked.specifications if s.primary]
        assert primary.gap.estimate == c.seeds.mean.estimate
        assert (primary.gap.low, primary.gap.high) == (c.seeds.mean.low, c.seeds.mean.high)
    # Two floats that differ by rounding alone, on either side of a tie.
    assert text.points(0.017349999999999997) == text.points(0.01735000000000002) == "+1.74"
    assert text.percent(0.017349999999999997) == text.percent(0.01735000000000002)


def test_the_interval_for_new_images_is_never_the_narrower_one(tmp_path):
    truth = {"first": Truth(1.5, 0.5, 0.3), "second": Truth(1.0, 0.5, 0.3)}
    found = collect(frames.load(synthetic.write(tmp_path, truth, seeds=2, n_test=600, n_val=60)), FAST)
    (c,) = found.comparisons
    assert (c.images.low, c.images.high) == pytest.approx((c.seeds.mean.low, c.seeds.mean.high))
    assert "the interval over seeds alone, which came out wider" in c.images.warning


def test_clusters_widen_every_interval_for_new_images_and_nothing_else(written, findings, tmp_path):
    # Images on which the candidate is ahead of both baselines lie together, and so do those on which it is behind.
    loaded = frames.load(written)
    models = loaded.runs.set_index("run_id")["model"]
    ahead = sum(
        (p["test"] == loaded.test_labels) * (2 if models[run_id] == "lenet5" else -1)
        for run_id, p in loaded.predictions.items()
    )
    ids = np.argsort(np.argsort(ahead, kind="stable")) // 10
    (tmp_path / "ids").write_text("\n".join(map(str, ids)))
    found = collect(frames.load(written, tmp_path / "ids"))
    assert (found.about.clusters.count, found.about.clusters.smallest, found.about.clusters.largest) == (40, 10, 10)
    assert len(found.about.clusters.sha256) == 64
    assert findings.about.clusters is None
    for c, alone in zip(found.comparisons, findings.comparisons, strict=True):
        assert c.seeds == alone.seeds
        assert c.images.estimate == pytest.approx(alone.images.estimate)
        assert c.images.high - c.images.low > 1.1 * (alone.images.high - alone.images.low)
        assert c.images_verdict.high - c.images_verdict.low > c.images.high - c.images.low
        assert found.planning[c.baseline].floor > findings.planning[c.baseline].floor
        specs = [s.gap for s in found.robustness[c.baseline].specifications if s.population == "seeds and test images"]
        assert all("clusters" in gap.method for gap in specs)
    assert "a different sample of such images, which come in 40 clusters; 95%" in found.answer
    assert "a different sample of such images, taken as independent; 95%" in findings.answer

"""The simulated truth against brute force, and the vectorised intervals against those that the analysis reports."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose
from scipy.special import ndtr

from analysis.calibration import __main__ as calibration
from analysis.calibration import coverage, simulation
from analysis.calibration.__main__ import calibrate, label, main, markdown, score
from analysis.calibration.coverage import RESAMPLES
from analysis.calibration.simulation import BASELINE, CANDIDATE, SCENARIOS, UNEVEN, Model, Scenario
from analysis.stats import crossed, paired, robustness, sweep
from tests.analysis.calibration.spread import seed_sd
from tests.analysis.grids import BASIS, bootstrap_variance, grid

BASE = SCENARIOS[0]
BY_NAME = {s.name: s for s in SCENARIOS}


# the truth


def test_models_are_as_stated():
    assert_allclose([100 * m.accuracy for m in (CANDIDATE, BASELINE)], [98.85, 98.28], atol=0.01)
    assert_allclose([100 * seed_sd(m) for m in (CANDIDATE, BASELINE)], [0.08, 0.10], atol=0.005)
    wide = BY_NAME["baseline with 3 times the candidate's SD"]
    assert seed_sd(wide.baseline) == pytest.approx(3 * seed_sd(wide.candidate), rel=0.01)
    assert wide.gap == pytest.approx(BASE.gap)


@pytest.mark.parametrize(("name", "expected"), [("gap 0, same difficulties", 0), ("gap 0, other difficulties", 0)])
def test_gaps_are_as_named(name, expected):
    assert BY_NAME[name].gap == expected
    assert BY_NAME["gap 0.1 points"].gap == pytest.approx(0.001)
    assert BY_NAME["gap 1 point"].gap == pytest.approx(0.01)


def test_identical_models_have_no_gap_on_any_images():
    scenario = BY_NAME["gap 0, same difficulties"]
    assert scenario.identical
    assert np.array_equal(*scenario.images(np.random.default_rng(0)))
    other = BY_NAME["gap 0, other difficulties"]
    assert not other.identical
    here = [simulation.accuracy_here(CANDIDATE, ease) for ease in other.images(np.random.default_rng(0))]
    assert here[0] != here[1]


def test_difficulties_are_correlated_as_asked():
    for correlation in (0.5, 0.9):
        sides = Scenario("", correlation=correlation).images(np.random.default_rng(0), 200_000)
        assert np.corrcoef(*sides)[0, 1] == pytest.approx(correlation, abs=0.005)


@pytest.mark.parametrize("scenario", UNEVEN[:3], ids=lambda s: s.baseline.luck)
def test_luck_that_is_not_normal(scenario):
    values, weights = simulation.luck(scenario.baseline.luck)
    assert_allclose([weights.sum(), weights @ values, weights @ values**2], [1, 0, 1], atol=1e-12)
    rng = np.random.default_rng(0)
    _, ease = scenario.images(rng, 500)
    p, counts = simulation.right_counts(scenario.baseline, ease), np.arange(501)
    mean = simulation.accuracy_here(scenario.baseline, ease)
    assert p @ counts / 500 == pytest.approx(mean, abs=2e-4)
    runs = [simulation.differences(scenario, 40, rng, 500)[0].sum(1).mean() / 500 for _ in range(400)]
    assert np.mean(runs) == pytest.approx(scenario.gap, abs=4 * np.std(runs) / 20)


def test_bad_seeds_are_worse_than_luck():
    for name in ("lognormal", "bimodal"):
        values, weights = simulation.luck(name)
        assert weights @ values**3 < -2, "a tail of bad seeds"


def test_images_of_one_writer_are_alike():
    who, scenario = simulation.writers(10_000), UNEVEN[3]
    sizes = np.bincount(who)
    assert (sizes.size, sizes.sum()) == (297, 10_000)
    assert sizes.min() < 10 < 120 < sizes.max()
    for side in scenario.images(np.random.default_rng(0)):
        means = np.array([side[who == g].mean() for g in range(297)])
        within = np.mean([side[who == g].var(ddof=1) for g in range(297)])
        shared = means.var(ddof=1) - within * (1 / sizes).mean()
        assert shared / (shared + within) == pytest.approx(0.2, abs=0.05)


def test_writers_are_what_the_analysis_clusters():
    rng, scenario = np.random.default_rng(2), UNEVEN[3]
    x, there = simulation.differences(scenario, 5, rng)
    whole = np.zeros((5, there.size), np.int8)
    whole[:, there] = x
    found = crossed.gap_over_images(whole, 0.95, BASIS, simulation.writers(there.size))
    middle, half = (found.high + found.low) / 2, (found.high - found.low) / 2
    for shift, expected in ((0.999, 1), (1.001, 0)):
        assert coverage.clustered_covers(x, there, middle + shift * half) == expected


def test_distribution_of_counts_by_all_outcomes():
    ease = np.array([1.0, -0.3, 0.4, 9.0, -9.0])
    model = Model(0, 1, 0)
    p = ndtr(ease[:3])
    expected = np.zeros(6)
    for outcome in product((0, 1), repeat=3):
        expected[1 + sum(outcome)] += np.prod(np.where(outcome, p, 1 - p))
    assert_allclose(simulation.right_counts(model, ease), expected, atol=1e-15)


def test_distribution_of_counts_is_that_of_drawn_images():
    rng = np.random.default_rng(1)
    model = Model(1.0, 1.5, 0.4)
    ease = model.ease(rng.standard_normal(300))
    p = simulation.right_counts(model, ease)
    counts = np.arange(301)
    assert p @ counts / 300 == pytest.approx(simulation.accuracy_here(model, ease), abs=1e-6)
    runs = rng.standard_normal((20_000, 300)) < ease + model.omega * rng.standard_normal((20_000, 1))
    drawn = runs.sum(1)
    assert p @ counts == pytest.approx(drawn.mean(), abs=5 * drawn.std() / np.sqrt(20_000))
    assert p @ counts**2 - (p @ counts) ** 2 == pytest.approx(drawn.var(), rel=0.05)
    inverted = simulation.draw(p, 20_000, rng)
    assert_allclose([inverted.mean(), inverted.std()], [drawn.mean(), drawn.std()], rtol=0.03)


def test_new_images_have_the_gap_of_the_population_and_the_correlation_of_images():
    rng = np.random.default_rng(0)
    scenario = Scenario("", Model(1.0, 1.2, 0.02), Model(0.5, 1.0, 0.02))
    drawn = [simulation.differences(scenario, 2, rng, 200)[0] for _ in range(3000)]
    means = np.array([x.sum(1) / 200 for x in drawn])
    assert means.mean() == pytest.approx(scenario.gap, abs=4 * means.mean(1).std() / np.sqrt(3000))
    # Two seeds share their images, but not their luck.
    assert 0.05 < np.corrcoef(means.T)[0, 1] < 0.5


def test_images_left_out_are_those_that_cannot_differ():
    rng = np.random.default_rng(0)
    certain = Scenario("", Model(50, 1, 0.01), Model(-50, 1, 0.01))
    assert (simulation.differences(certain, 3, rng, 20)[0] == 1).all()
    assert simulation.differences(replace(certain, baseline=Model(50, 1, 0.01)), 3, rng, 20)[0].shape == (3, 0)


# the intervals


def mostly(rng, shape):
    """Which runs learned [replication, seed]: four in five; in replication 8 the first alone, in 9 none."""
    learned = rng.random(shape) < 0.8
    learned[8] = np.arange(shape[1]) == 0
    learned[9] = False
    return learned


@pytest.mark.filterwarnings("error")
def test_t_interval_is_the_one_reported():
    rng = np.random.default_rng(0)
    d = rng.normal(0.005, 0.002, (200, 6))
    learned = mostly(rng, d.shape)
    d[7] = d[7, 0]
    hits = coverage.t_covers(d, learned, 0.006)
    for row, own, hit in zip(d, learned, hits, strict=True):
        e = paired.t_interval(row[own], 0.95, BASIS)
        assert np.isnan(hit) == (e.low is None)
        assert np.isnan(hit) or hit == (e.low <= 0.006 <= e.high)
    assert np.isnan(hits[[7, 8, 9]]).all()
    assert set(hits[~np.isnan(hits)]) == {0, 1}


@pytest.mark.filterwarnings("error")
def test_welchs_interval_and_the_error_ratios_are_those_reported():
    rng = np.random.default_rng(0)
    c, b = 200 - rng.integers(0, 9, (200, 6)), 195 - rng.integers(0, 12, (200, 6))
    learned = mostly(rng, c.shape)
    c[7], b[7] = 198, 190
    welch = coverage.welch_covers(c, b, learned, 6.0)
    ratio = coverage.ratio_covers(200 - c, 200 - b, learned, 0.45)
    for row_c, row_b, own, *hits in zip(c, b, learned, welch, ratio, strict=True):
        basis = BASIS.changed(n=int(own.sum()))
        reported = (
            (paired.welch(row_c[own], row_b[own], 0.95, basis, (-np.inf, np.inf)), 6.0),
            (paired.error_rate_ratio(200 - row_c[own], 200 - row_b[own], 0.95, basis), 0.45),
        )
        for hit, (e, truth) in zip(hits, reported, strict=True):
            assert np.isnan(hit) == (e.low is None)
            assert np.isnan(hit) or hit == (e.low <= truth <= e.high)
    for hits in (welch, ratio):
        assert np.isnan(hits[[7, 8, 9]]).all()
        assert set(hits[~np.isnan(hits)]) == {0, 1}


@pytest.mark.filterwarnings("error")
def test_interval_on_logits_is_the_one_reported():
    rng = np.random.default_rng(0)
    c, b = 9900 - rng.integers(0, 90, (200, 6)), 9850 - rng.integers(0, 120, (200, 6))
    learned = mostly(rng, c.shape)
    c[7], b[7] = 9900, 9850
    hits = coverage.logits_cover(c, b, learned, 0.0045)
    for row_c, row_b, own, hit in zip(c, b, learned, hits, strict=True):
        sides = (np.where(own, row, np.nan) for row in (row_c, row_b))
        e = robustness.gap_between(*sides, "paired", "logit", 10_000, 0.95, BASIS.changed(n=int(own.sum())))
        assert np.isnan(hit) == (e.low is None)
        assert np.isnan(hit) or hit == (e.low <= 0.0045 <= e.high)
    assert np.isnan(hits[[7, 8, 9]]).all()
    assert set(hits[~np.isnan(hits)]) == {0, 1}


def test_truth_on_logits_is_what_many_runs_give():
    _, ease = UNEVEN[1].images(np.random.default_rng(0))
    counts = simulation.right_counts(UNEVEN[1].baseline, ease)
    runs = simulation.draw(counts, 400_000, np.random.default_rng(1))
    truth = coverage._accuracy_of_mean_logit(counts)
    assert robustness.on_logits(runs, 10_000).mean() == pytest.approx(truth, abs=3e-5)
    assert abs(counts @ np.arange(10_001) / 10_000 - truth) > 1e-4


def test_the_sign_flip_test_asks_for_the_mean_gap_where_seeds_are_skewed(monkeypatch):
    """At 10 seeds it rejects a true one in more than 5% of studies."""
    monkeypatch.setattr(coverage, "TEST_SETS", 1)
    assert coverage.sensitivity(UNEVEN[1]) == {coverage.LOGITS, coverage.SIGN_FLIP}
    assert coverage.sensitivity(BASE) == {coverage.LOGITS}
    hits = coverage.on_this_test_set(
        UNEVEN[1], {coverage.SIGN_FLIP}, 1000, np.random.default_rng(0), {(10, coverage.SIGN_FLIP)}
    )
    assert list(hits) == [(10, coverage.SIGN_FLIP)]
    assert 0.1 < hits[10, coverage.SIGN_FLIP].mean() < 0.3


def test_the_luck_of_selection_is_scored_where_it_is_allowed_for_and_where_it_is_not(monkeypatch):
    monkeypatch.setattr(coverage, "SEEDS", (50,))
    alike, apart = calibrate(500, 0, [], ties=(0.0, 4.0))
    assert alike.scenario == "rates tie on validation and test images"
    assert apart.scenario == "rates tie on validation images, 4 SDs apart on test images"
    assert {alike.method, apart.method} == {coverage.SELECTION}
    assert alike.value > 0.95 > apart.value > 0.8


def test_bca_interval_is_the_one_reported():
    rng = np.random.default_rng(0)
    hits = []
    for seed in range(20):
        d = rng.normal(0.005, 0.002, 5)
        e = paired.bca(d, 0.95, RESAMPLES, seed, BASIS)
        hit = coverage.bca_covers(d[None], 0.0065, np.random.default_rng(seed))[0]
        assert hit == (e.low <= 0.0065 <= e.high)
        hits.append(hit)
    assert 0 < np.mean(hits) < 1
    assert np.isnan(coverage.bca_covers(np.full((1, 5), 0.1), 0.1, rng)).all()


def test_band_is_the_one_reported():
    rng = np.random.default_rng(0)
    k = rng.integers(-10, 15, (60, 7, 3))
    hits = coverage.band_covers(k, 7.0, sweep.signs(7, 0))
    for rows, hit in zip(k, hits, strict=True):
        models = grid(100 + rows.T), grid(np.full(rows.T.shape, 100))
        found = sweep.across_rates(*models, 1000, level=0.95, seed=0)
        assert hit == all(at.band.low <= 0.007 <= at.band.high for at in found.rates)
    assert 0 < hits.mean() < 1


def test_intervals_on_new_images_are_those_reported():
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(30):
        x, _ = simulation.differences(BASE, 4, rng, 300)
        whole = np.hstack([x, np.zeros((4, 300 - x.shape[1]), np.int8)])
        assert_allclose(coverage.sparse_mean_squares(x, 300), crossed.mean_squares(whole), rtol=1e-9, atol=1e-12)
        truth = BASE.gap + 0.005
        interval = crossed.gap_over_images(whole, 0.95, BASIS)
        seeds = paired.t_interval(whole.mean(1), 0.95, BASIS)
        if interval.low is None or seeds.low is None:
            continue
        half = 1.959964 * np.sqrt(bootstrap_variance(whole))
        expected = (
            interval.low <= truth <= interval.high,
            abs(whole.mean() - truth) <= half,
            seeds.low <= truth <= seeds.high,
        )
        assert coverage.new_images_covers(x, 300, truth) == expected
        seen.append(expected)
    assert {True, False} <= {value for row in seen for value in row}
    assert np.isnan(coverage.new_images_covers(np.zeros((1, 5), np.int8), 300, 0)).all()
    assert np.isnan(coverage.new_images_covers(np.zeros((3, 5), np.int8), 300, 0)).all()


# scores


@pytest.mark.parametrize(
    ("quantity", "low", "high", "expected"),
    [
        ("coverage", 0.94, 0.96, "reaches"),
        ("coverage", 0.93, 0.96, "unresolved"),
        ("coverage", 0.94, 0.97, "unresolved"),
        ("coverage", 0.90, 0.93, "fails"),
        ("coverage", 0.97, 0.99, "conservative"),
        ("size", 0.04, 0.054, "reaches"),
        ("size", 0.04, 0.056, "unresolved"),
        ("size", 0.056, 0.07, "fails"),
        ("size", 0.0, 0.01, "conservative"),
    ],
)
def test_labels(quantity, low, high, expected):
    assert label(quantity, low, high) == expected


def test_score_counts_what_was_declined_apart():
    found = score("s", 5, "t over seeds", "this test set", np.array([1, 1, 0, np.nan]))
    assert (found.replications, found.declined, found.value) == (3, 1, pytest.approx(2 / 3))
    none = score("s", 5, "t over seeds", "this test set", np.array([np.nan]))
    assert none.value is None
    assert score("s", 5, "t over seeds", "new images", np.array([0.0])).label == "no promise"


def test_an_interval_that_is_too_short_fails():
    rng = np.random.default_rng(0)
    d = rng.standard_normal((20_000, 5))
    right = coverage.t_covers(d, np.ones(d.shape, bool), 0)
    assert score("", 5, "t", "this test set", right).label == "reaches"
    half = 1.96 * d.std(1, ddof=1) / np.sqrt(5)  # the normal's quantile in place of t's
    assert score("", 5, "t", "this test set", (np.abs(d.mean(1)) <= half).astype(float)).label == "fails"


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "TEST_SETS", 1)
        return calibrate(100, 3, SCENARIOS[:2])


def test_scores_repeat_and_name_everything(small, monkeypatch):
    monkeypatch.setattr(coverage, "TEST_SETS", 1)
    assert calibrate(100, 3, SCENARIOS[:2], processes=2) == small
    text = markdown(small, 100, 3)
    assert "seed 3" in text
    assert "nan" not in text.lower()
    for word in (*coverage.NEW_IMAGES[:2], coverage.BAND, *coverage.FAST[:4], "BCa", SCENARIOS[1].name):
        assert word.lower() in text.lower()


def test_what_is_unresolved_is_simulated_four_times_as_often(small):
    unresolved = [s for s in small if s.label == "unresolved"]
    assert unresolved
    assert {s.replications + s.declined for s in unresolved} <= {400, 80}
    kept = {s.replications + s.declined for s in small if s.label in ("fails", "no promise")}
    assert kept & {100, 20}
    assert "×4" in markdown(small, 100, 3)
    assert ", 2000-01-02. " in markdown(small, 100, 3, "2000-01-02")


def test_command_writes_table_and_figure(small, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: small)
    result = CliRunner().invoke(main, ["--replications", "100", "--seed", "3", "--out", str(tmp_path / "a" / "c")])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "a" / "c.csv")
    assert len(table) == len(small)
    assert (tmp_path / "a" / "c.md").read_text() == markdown(small, 100, 3, figure="c")
    drawn = (tmp_path / "a" / "c.svg").read_text()
    assert "t over seeds, this" in drawn
    assert ">as in the study<" in drawn
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(main, ["--out", str(tmp_path / "file" / "c")])
    assert refused.exit_code == 1
    assert "cannot be written" in refused.output
    assert "Traceback" not in refused.output


@pytest.mark.slow
def test_primary_interval_and_test_keep_their_promises():
    scores = calibrate(3000, 1, [SCENARIOS[0], BY_NAME["gap 0, same difficulties"]])
    for s in scores:
        if s.target == "this test set" and s.method == "t over seeds":
            assert s.low < 0.965, s
            assert s.high > 0.935, s
        if s.quantity == "size":
            assert s.label != "fails", s
    over_seeds = [s for s in scores if s.label == "no promise" and s.seeds == 20 and s.scenario == SCENARIOS[0].name]
    assert over_seeds[0].high < 0.6  # the interval over seeds says little of new images

"""Components of variance against statsmodels, by hand and in simulation; the A/A test against its own truth."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.stats import crossed
from analysis.stats.paired import sign_flip
from analysis.stats.variance import FACTORS, against_itself, components, mean_squares, seed_spread, variance
from tests.analysis.grids import BASIS

RNG = np.random.default_rng(2)
SETTINGS = dict(level=0.95, resamples=2000, seed=0)


def factorial(shape, sd, rng=RNG):
    """Accuracies [init, order, split] whose effects have the SDs `sd`, effect → SD."""
    y = np.zeros(shape)
    for effect, size in sd.items():
        y = y + size * rng.standard_normal([n if a in effect else 1 for a, n in enumerate(shape)])
    return y


Y = factorial((4, 3, 5), {(0,): 3, (1,): 1, (2,): 2, (0, 1): 1, (0, 1, 2): 1})


@pytest.mark.filterwarnings("ignore:divide by zero")  # of statsmodels, which finds no residual to test against
def test_mean_squares_are_statsmodels():
    cells = np.indices(Y.shape).reshape(3, -1).astype(str)
    frame = pd.DataFrame(dict(zip(FACTORS, cells, strict=True)), dtype=str).assign(y=Y.ravel())
    table = anova_lm(ols("y ~ init * order * split", frame).fit())
    expected = (table["sum_sq"] / table["df"]).drop("Residual")
    found = {":".join(FACTORS[a] for a in e): ms for e, ms in mean_squares(Y).items()}
    for name, ms in found.items():
        assert ms == pytest.approx(expected[name], rel=1e-10)


def test_components_of_two_factors_by_the_textbook():
    y = Y[:, :, :1]
    ms = mean_squares(y)
    found = components(ms, y.shape)
    assert found[(0, 1)] == ms[(0, 1)]
    assert found[(0,)] == pytest.approx((ms[(0,)] - ms[(0, 1)]) / 3)
    assert found[(1,)] == pytest.approx((ms[(1,)] - ms[(0, 1)]) / 4)


def test_components_of_three_factors_by_the_textbook():
    ms = mean_squares(Y)
    i, o, s = 4, 3, 5
    found = components(ms, Y.shape)
    assert_allclose(found[(0, 1)], (ms[(0, 1)] - ms[(0, 1, 2)]) / s, rtol=1e-10)
    expected = (ms[(0,)] - ms[(0, 1)] - ms[(0, 2)] + ms[(0, 1, 2)]) / (o * s)
    assert_allclose(found[(0,)], expected, rtol=1e-10)
    expected = (ms[(2,)] - ms[(1, 2)] - ms[(0, 2)] + ms[(0, 1, 2)]) / (i * o)
    assert_allclose(found[(2,)], expected, rtol=1e-10)


def test_components_are_unbiased():
    rng = np.random.default_rng(8)
    truth = {(0,): 2.0, (1,): 1.0, (2,): 0.5, (0, 1): 0.7, (0, 2): 0.0, (1, 2): 0.3, (0, 1, 2): 0.4}
    drawn = [factorial((5, 5, 2), {e: np.sqrt(v) for e, v in truth.items()}, rng) for _ in range(3000)]
    raw = [components(mean_squares(y), y.shape) for y in drawn]
    for effect, value in truth.items():
        values = [r[effect] for r in raw]
        assert np.mean(values) == pytest.approx(value, abs=4.5 * np.std(values) / np.sqrt(3000)), effect


def test_the_highest_interaction_is_labelled_and_has_the_classical_interval():
    found = variance(Y, BASIS, level=0.9, resamples=200_000, seed=0)
    assert [c.effect for c in found.components][:3] == list(FACTORS)
    top = found.components[-1]
    assert top.effect == "init × order × split, including nondeterminism"
    df = 3 * 2 * 4
    expected = top.raw * df / stats.chi2.ppf([0.95, 0.05], df)
    assert_allclose((top.variance.low, top.variance.high), expected, rtol=0.01)
    assert found.levels == dict(init=4, order=3, split=5)
    assert sum(c.share for c in found.components) == pytest.approx(1)
    assert found.standard_deviation**2 == pytest.approx(sum(max(c.raw, 0) for c in found.components))


def test_a_factor_with_one_level_has_no_component():
    found = variance(Y[:, :, :1], BASIS, **SETTINGS)
    assert [c.effect for c in found.components] == ["init", "order", "init × order, including nondeterminism"]
    assert [c.effect for c in variance(Y[:1, :, :1], BASIS, **SETTINGS).components] == [
        "order, including nondeterminism"
    ]


def test_negative_components_print_as_0_with_their_raw_value():
    rng = np.random.default_rng(1)
    found = [c for _ in range(5) for c in variance(rng.standard_normal((5, 5, 2)), BASIS, **SETTINGS).components]
    negative = [c for c in found if c.raw < 0]
    assert negative
    assert all(c.variance.estimate == 0 == c.share for c in negative)
    for c in found:
        e = c.variance
        assert e.low is None or 0 <= e.low < e.high
        assert (e.low is None) == (e.declined is not None)


@pytest.mark.slow
def test_intervals_cover():
    rng = np.random.default_rng(4)
    truth = {(0,): 1.0, (1,): 1.0, (2,): 1.0, (0, 1, 2): 1.0}
    covered = {}
    for replication in range(1500):
        found = variance(factorial((5, 5, 5), truth, rng), BASIS, level=0.95, resamples=500, seed=replication)
        for c in found.components:
            if c.effect in FACTORS or c.effect.endswith("nondeterminism"):
                covered.setdefault(c.effect, []).append(
                    c.variance.low is not None and c.variance.low <= 1 <= c.variance.high
                )
    for effect, hits in covered.items():
        assert 0.925 < np.mean(hits) < 0.975, effect


# A/A


def test_gaps_are_those_of_one_model_against_itself():
    right = 9800 + RNG.integers(-20, 21, (3, 5, 2))
    found = against_itself(right, np.ones_like(right, bool), 10_000, BASIS, level=0.95)
    k = right[0, :, 0] - right[1, :, 0]
    assert found.gaps[0] == pytest.approx(k.mean() / 10_000)
    assert found.sign_flip[0] == sign_flip(k)[0]
    assert found.paired_t[0] == pytest.approx(stats.ttest_1samp(k, 0).pvalue)
    assert len(found.gaps) == found.rejected.n == 3 * 2  # pairs of init seeds × splits
    assert found.smallest_p == 2 / 2**5
    assert found.rejected.estimate == np.mean(np.array(found.paired_t) < 0.05)


def rejections(effects, studies=100):
    rng = np.random.default_rng(0)
    designs = (9800 + 30 * factorial((3, 6, 1), effects, rng) for _ in range(studies))
    found = [against_itself(np.rint(y), np.ones(y.shape, bool), 10_000, BASIS, level=0.95) for y in designs]
    return np.mean([f.rejected.estimate for f in found])


def test_rejections_are_nominal_unless_initial_weights_matter():
    assert rejections({(1,): 1, (0, 1): 1}, 300) == pytest.approx(0.05, abs=0.03)
    assert rejections({(0,): 1, (1,): 1, (0, 1): 1}) > 0.2


def test_runs_that_did_not_train_enter_no_pair():
    right = 9800 + RNG.integers(-20, 21, (2, 5, 1))
    learned = np.ones_like(right, bool)
    learned[0, 3] = False
    spoilt = right.copy()
    spoilt[0, 3] = -1
    found = against_itself(spoilt, learned, 10_000, BASIS, level=0.95)
    assert found.smallest_p == 2 / 2**4
    assert found.gaps[0] == pytest.approx((right[0] - right[1])[[0, 1, 2, 4]].mean() / 10_000)


# what is declined


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (2, 1, 1), (2, 2, 2), (5, 2, 1)])
@pytest.mark.parametrize("kind", ["constant", "random", "incomplete"])
def test_degenerate_designs_are_declined(shape, kind):
    y = np.full(shape, 0.98) if kind == "constant" else RNG.random(shape)
    if kind == "incomplete":
        y.ravel()[:1] = np.nan
    found = variance(y, BASIS, **SETTINGS)
    for c in found.components:
        assert (c.variance.low is None) == (c.variance.declined is not None)
        assert (c.raw is None) == (kind != "random")
    assert (found.standard_deviation is None) == (kind != "random" or np.prod(shape) < 2)
    if kind == "incomplete" and y.size:
        assert all(c.variance.declined.startswith("1 of ") for c in found.components)
    right = np.nan_to_num(1000 * y).astype(int)
    itself = against_itself(right, np.isfinite(y), 1000, BASIS, level=0.95)
    assert itself.rejected.estimate is not None or itself.rejected.declined


def test_no_runs_at_all():
    assert all(c.variance.declined for c in variance(np.zeros((0, 5, 2)), BASIS, **SETTINGS).components)
    assert against_itself(np.zeros((0, 5, 2)), np.zeros((0, 5, 2)), 10, BASIS, level=0.95).rejected.declined


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="init, order, split"):
        variance(Y[0], BASIS, **SETTINGS)
    with pytest.raises(ValueError, match="init, order, split"):
        against_itself(Y, np.ones((2, 2, 2), bool), 10, BASIS, level=0.95)


# the spread over seeds: this test set's, or real


def flipping(rng, seeds=10, images=300, spread=0.05):
    """Runs whose accuracy on all images has the SD `spread`: each image has its own chance to be right."""
    chance = rng.uniform(0.2, 0.8, images)
    return rng.random((seeds, images)) < chance + spread * rng.uniform(-np.sqrt(3), np.sqrt(3), (seeds, 1))


def test_distribution_wise_variance_by_jordans_formula_and_by_analysis_of_variance():
    x = flipping(np.random.default_rng(0))
    found = seed_spread(x, BASIS, **SETTINGS)
    accuracies = x.mean(1)
    assert found.on_test_set.estimate == pytest.approx(np.std(accuracies, ddof=1))
    covariance = np.cov(x.T.astype(float))
    off_diagonal = covariance.sum() - np.trace(covariance)
    assert found.raw == pytest.approx(off_diagonal / (300 * 299), rel=1e-10)
    of_seeds, _, residual = crossed.mean_squares(x.astype(float))
    assert found.raw == pytest.approx((of_seeds - residual) / 300, rel=1e-10)
    assert found.distribution_wise.estimate == pytest.approx(np.sqrt(found.raw))
    assert found.share == pytest.approx(found.raw / accuracies.var(ddof=1))


def test_distribution_wise_variance_is_unbiased_and_its_interval_covers():
    rng = np.random.default_rng(1)
    found = [seed_spread(flipping(rng), BASIS, level=0.95, resamples=500, seed=0) for _ in range(600)]
    raw = np.array([f.raw for f in found])
    assert raw.mean() == pytest.approx(0.05**2, abs=4 * raw.std() / np.sqrt(600))
    observed = np.array([f.on_test_set.estimate**2 for f in found])
    assert observed.mean() - 0.05**2 > 10 * observed.std() / np.sqrt(600) / 2
    assert np.mean([f.distribution_wise.low <= 0.05 <= f.distribution_wise.high for f in found]) > 0.92
    still = [seed_spread(flipping(rng, spread=0), BASIS, **SETTINGS).raw for _ in range(300)]
    assert np.mean(still) == pytest.approx(0, abs=4 * np.std(still) / np.sqrt(300))


def test_images_that_come_in_clusters_are_not_told_for_a_spread_on_all_images():
    """The covariance over all pairs of images of different clusters; lone images are clusters of one."""
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(60), rng.integers(1, 10, 60))
    n = clusters.size
    x = flipping(rng, images=n)
    covariance = np.cov(x.T.astype(float))
    apart = clusters[:, None] != clusters
    found = seed_spread(x, BASIS, **SETTINGS, clusters=clusters)
    assert found.raw == pytest.approx(covariance[apart].mean(), rel=1e-10)
    assert "60 clusters" in found.distribution_wise.method
    alone = seed_spread(x, BASIS, **SETTINGS, clusters=np.arange(n))
    assert (alone.raw, alone.distribution_wise.interval) == (
        pytest.approx(seed_spread(x, BASIS, **SETTINGS).raw),
        pytest.approx(seed_spread(x, BASIS, **SETTINGS).distribution_wise.interval),
    )
    # Whole clusters flip together, and no seed is better than another.
    still = [
        seed_spread(
            (rng.random((10, 60)) < 0.5)[:, clusters], BASIS, level=0.95, resamples=100, seed=0, clusters=clusters
        )
        for _ in range(300)
    ]
    raw = np.array([f.raw for f in still])
    assert raw.mean() == pytest.approx(0, abs=4 * raw.std() / np.sqrt(300))
    assert seed_spread(x, BASIS, **SETTINGS, clusters=np.zeros(n, int)).distribution_wise.declined


def test_a_spread_that_cannot_be_known_is_declined():
    for x in (np.ones((5, 40)), np.ones((1, 40)), np.zeros((0, 40)), np.zeros((3, 0))):
        found = seed_spread(x, BASIS, **SETTINGS)
        assert found.on_test_set.declined
        assert found.distribution_wise.declined
        assert found.raw is found.share is None
    with pytest.raises(ValueError, match="seed, image"):
        seed_spread(np.ones(4), BASIS, **SETTINGS)

"""Seeds × images against statsmodels, hand arithmetic, brute force and the bootstrap's exact variance."""

import time
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from analysis.stats.crossed import (
    by_class,
    cluster_bootstrap,
    clustered_error,
    confusion,
    crossed,
    crossed_bootstrap,
    effective,
    error_from,
    gap_over_images,
    hard_images,
    mean_squares,
    p_value,
)
from tests.analysis.grids import BASIS, bootstrap_variance

RNG = np.random.default_rng(8)
SETTINGS = dict(basis=BASIS, level=0.95, resamples=400, seed=0)


def networks(seeds, images, *, ease=1.5, rng=None):
    """Which images are right, bool [S, n]: some images are harder, some seeds luckier."""
    rng = rng or np.random.default_rng(5)
    return rng.standard_normal((seeds, images)) < ease + rng.standard_normal(images) + 0.5 * rng.standard_normal(
        (seeds, 1)
    )


def standard_error(x):
    return error_from(mean_squares(x), *x.shape)


C, B = networks(6, 60), networks(6, 60, ease=1.2, rng=np.random.default_rng(6))
X = C.astype(np.int8) - B.astype(np.int8)


def test_mean_squares_are_statsmodels():
    frame = pd.DataFrame(X).melt(ignore_index=False, var_name="image", value_name="x").reset_index(names="seed")
    table = anova_lm(ols("x ~ seed + image", frame.astype(dict(seed=str, image=str))).fit())
    expected = table["sum_sq"] / table["df"]
    assert_allclose(mean_squares(X), expected[["seed", "image", "Residual"]], rtol=1e-10)


def test_interval_by_hand():
    # Two seeds, two images: mean 3/4; seeds 1 and ½, images 1 and ½; each main effect has MS ¼, and so has the rest.
    x = np.array([[1, 1], [1, 0]], np.int8)
    assert mean_squares(x) == (0.25, 0.25, 0.25)
    assert standard_error(x)[0] == pytest.approx(np.sqrt(0.25 / 4))
    # Satterthwaite: MS² / Σ MS²/1 = 1/3, but never below one degree of freedom.
    assert standard_error(x)[1] == 1
    found = gap_over_images(x, 0.5, BASIS)
    assert_allclose((found.low, found.high), (0.75 - 0.25, 1.0), rtol=1e-10)  # t(1) at 50% is ±1; clipped at 1
    assert gap_over_images(x, 0.95, BASIS).low == -1


def test_standard_error_and_satterthwaite():
    s, n = X.shape
    ms_s, ms_d, ms_r = mean_squares(X)
    total = ms_s + ms_d - ms_r
    assert total > max(ms_s, ms_d)
    df = total**2 / (ms_s**2 / (s - 1) + ms_d**2 / (n - 1) + ms_r**2 / ((s - 1) * (n - 1)))
    error = np.sqrt(total / (s * n))
    assert_allclose(standard_error(X), (error, df), rtol=1e-10)
    found = crossed(C, B, **SETTINGS)
    assert_allclose((found.gap.low, found.gap.high), X.mean() + error * stats.t.ppf([0.025, 0.975], df), rtol=1e-10)
    assert (found.gap.n, found.gap.planned, found.gap.population, found.gap.runs) == (
        6,
        20,
        "seeds and test images",
        ("a", "b"),
    )
    assert "probably too short" in found.gap.method


def test_an_interval_is_never_narrower_than_that_over_seeds():
    # Two seeds far apart, and images that bring so many degrees of freedom that the quantile falls from 12.7 to 2.
    rng = np.random.default_rng(1)
    x = (rng.random((2, 400)) < np.array([[0.30], [0.36]])).astype(np.int8)
    found = gap_over_images(x, 0.95, BASIS)
    half = stats.t.ppf(0.975, 1) * stats.sem(x.mean(1))
    error, df = standard_error(x)
    assert stats.t.ppf(0.975, df) * error < half
    assert found.high - found.estimate == pytest.approx(half)
    assert "the interval over seeds alone" in found.warning
    assert p_value(x) == pytest.approx(stats.ttest_1samp(x.mean(1), 0).pvalue)
    assert crossed(C, B, **SETTINGS).gap.warning is None


def test_only_what_is_asked_for_is_confirmatory():
    found = crossed(C, B, **SETTINGS)
    assert {e.role for e in (found.gap, *found.halves)} == {"descriptive"}
    assert gap_over_images(X, 0.95, BASIS.changed(role="confirmatory")).role == "confirmatory"


def test_a_negative_component_prints_as_0_and_is_not_truncated_in_the_error():
    # Seeds err on different images but almost equally often: their mean square lies below the residual.
    x = np.kron(np.eye(4, dtype=np.int8), np.ones((1, 5), np.int8))
    x[0, 18:] = 1
    found = crossed(x == 1, np.zeros_like(x, bool), **SETTINGS)
    ms_s, ms_d, ms_r = mean_squares(x)
    assert 0 < ms_s < ms_r
    seeds = found.components[0]
    assert seeds.name == "seeds"
    assert seeds.variance.estimate == 0 > seeds.raw == pytest.approx((ms_s - ms_r) / 20)
    # The sum would be negative here, so the larger mean square takes over, with its degrees of freedom.
    assert ms_s + ms_d - ms_r < ms_d < ms_s
    assert standard_error(x) == pytest.approx((np.sqrt(ms_s / x.size), 3))


def test_means_that_are_all_equal_are_declined_though_the_entries_vary():
    x = np.kron(np.eye(4, dtype=bool), np.ones((1, 5), bool))
    found = crossed(x, np.zeros_like(x), **SETTINGS).gap
    assert found.estimate == 0.25
    assert found.low is None
    assert "equal" in found.declined


def test_components_sum_to_the_error_and_the_digits_share_is_what_seeds_cannot_remove():
    found = crossed(C, B, **SETTINGS)
    v_s, v_d, v_r = (c.raw for c in found.components)
    s, n = X.shape
    squared = standard_error(X)[0] ** 2
    assert squared == pytest.approx(v_s / s + v_d / n + v_r / (s * n), rel=1e-10)
    assert found.image_share == pytest.approx(v_d / n / squared, rel=1e-10)


def test_standard_error_covers_seeds_and_images():
    # Against the spread of the mean over fresh seeds and fresh images, which the seeds alone understate.
    rng = np.random.default_rng(0)
    means, errors, seeds_only = [], [], []
    for _ in range(400):
        x = networks(8, 200, rng=rng).astype(np.int8) - networks(8, 200, ease=1.2, rng=rng).astype(np.int8)
        means.append(x.mean())
        errors.append(standard_error(x)[0] ** 2)
        seeds_only.append(stats.sem(x.mean(1)) ** 2)
    truth = np.var(means, ddof=1)
    assert np.mean(errors) == pytest.approx(truth, rel=0.2)
    assert np.mean(seeds_only) < 0.85 * truth


# the bootstrap


def test_bootstrap_variance_is_exact():
    # All resamples of 3 seeds × 3 images, each equally likely: 27 × 27.
    x = np.array([[1, 0, -1], [1, 1, 0], [0, 1, 0]], np.int8)
    means = [
        x[np.ix_(rows, columns)].mean()
        for rows in product(range(3), repeat=3)
        for columns in product(range(3), repeat=3)
    ]
    assert bootstrap_variance(x) == pytest.approx(np.var(means), rel=1e-10)


def test_bootstrap_draws_seeds_and_digits_independently():
    means = crossed_bootstrap(X, 20_000, 3)
    assert means.shape == (20_000,)
    assert means.mean() == pytest.approx(X.mean(), abs=5 * np.sqrt(bootstrap_variance(X) / 20_000))
    assert means.var() == pytest.approx(bootstrap_variance(X), rel=0.05)
    assert_allclose(crossed_bootstrap(X, 1500, 3), means[:1500])  # the same draws however many follow
    assert not np.array_equal(crossed_bootstrap(X, 100, 4), means[:100])


def test_bootstrap_is_conservative_and_says_so():
    found = crossed(C, B, **(SETTINGS | dict(resamples=4000)))
    assert bootstrap_variance(X) > standard_error(X)[0] ** 2
    assert found.bootstrap.warning == "conservative (Owen 2007)"
    half = (found.bootstrap.high - found.bootstrap.low) / 2
    assert half == pytest.approx(1.96 * np.sqrt(bootstrap_variance(X)), rel=0.1)


@pytest.mark.slow
def test_bootstrap_of_a_whole_study_takes_seconds():
    x = networks(20, 10_000).astype(np.int8) - networks(20, 10_000, rng=np.random.default_rng(1)).astype(np.int8)
    start = time.process_time()
    crossed_bootstrap(x, 10_000, 0)
    assert time.process_time() - start < 10  # 3 seconds of one core; twice and more where it is shared


# clusters of test images

SIZES = [3, 1, 9, 2, 12, 6, 15, 4, 8]
CLUSTERS = np.repeat(np.arange(9), SIZES)[RNG.permutation(60)]


def long_data(x, clusters):
    """`x` [S, n] with a row a number: its seed and its image's cluster."""
    seeds, images = np.indices(x.shape)
    return x.ravel(), seeds.ravel(), clusters[images.ravel()]


def test_clustered_error_is_statsmodels_covariance_with_two_groups():
    y, seeds, groups = long_data(X.astype(float), CLUSTERS)
    fit = OLS(y, np.ones(y.size)).fit()
    both, over_seeds, over_clusters = cov_cluster_2groups(fit, seeds, groups)
    error, _ = clustered_error(X, CLUSTERS)
    assert error**2 == pytest.approx(max(both.item(), over_seeds.item(), over_clusters.item()), rel=1e-10)
    found = crossed(C, B, **SETTINGS, clusters=CLUSTERS)
    assert found.gap.estimate == pytest.approx(X.mean())
    assert "6 seeds and 9 clusters of 60 test images" in found.gap.method
    assert "independent" not in found.gap.method
    # Each part of the test file, and each class, by its own clusters.
    first = X[:, :30]
    y, seeds, groups = long_data(first.astype(float), CLUSTERS[:30])
    parts = cov_cluster_2groups(OLS(y, np.ones(y.size)).fit(), seeds, groups)
    df = clustered_error(first, np.unique(CLUSTERS[:30], return_inverse=True)[1])[1]
    half = stats.t.ppf(0.975, df) * np.sqrt(max(part.item() for part in parts))
    assert found.halves[0].high - found.halves[0].low == pytest.approx(2 * half, rel=1e-9)
    (entry, *_) = by_class(C, B, np.arange(60) % 3, 3, 0.95, BASIS, CLUSTERS)
    own = np.arange(60) % 3 == 0
    error, df = clustered_error(X[:, own], np.unique(CLUSTERS[own], return_inverse=True)[1])
    assert entry.gap.p_value == pytest.approx(2 * stats.t.sf(abs(X[:, own].mean()) / error, df))


def test_names_and_order_of_clusters_change_nothing():
    renamed = np.array([4, 7, 0, 8, 1, 2, 6, 5, 3])[CLUSTERS]
    order = RNG.permutation(60)
    for clusters, x in ((renamed, X), (CLUSTERS[order], X[:, order])):
        assert clustered_error(x, clusters) == pytest.approx(clustered_error(X, CLUSTERS), rel=1e-12)


def test_unequal_clusters_count_as_fewer():
    assert effective(np.full(7, 5)) == pytest.approx(7)
    assert effective(np.array([1, 1, 1, 100])) == 2.0
    by_hand = sum(n**2 for n in SIZES) ** 2 / sum(n**4 for n in SIZES)
    assert effective(np.array(SIZES)) == pytest.approx(by_hand)
    _, df = clustered_error(X, CLUSTERS)
    assert 1 <= df < 5 + by_hand - 1


def test_images_of_a_cluster_that_err_together_widen_the_interval():
    rng = np.random.default_rng(2)
    together = [np.repeat(networks(15, 60, ease=ease, rng=rng), 5, axis=1) for ease in (1.5, 1.2)]
    clusters = np.repeat(np.arange(60), 5)
    alone = crossed(*together, **SETTINGS)
    found = crossed(*together, **SETTINGS, clusters=clusters)
    assert found.gap.high - found.gap.low > 1.2 * (alone.gap.high - alone.gap.low)
    assert found.bootstrap.high - found.bootstrap.low > 1.2 * (alone.bootstrap.high - alone.bootstrap.low)
    assert "clusters of test images" in found.bootstrap.method


def test_bootstrap_draws_whole_clusters():
    means = cluster_bootstrap(X, CLUSTERS, 20_000, 3)
    # Of three seeds and two clusters of two and one image, all 27 × 4 resamples.
    x, clusters = np.array([[1, 0, -1], [1, 1, 0], [0, 1, 0]]), np.array([0, 0, 1])
    every = [
        np.concatenate([x[np.ix_(rows, clusters == g)] for g in groups], axis=1).mean()
        for rows in product(range(3), repeat=3)
        for groups in product(range(2), repeat=2)
    ]
    drawn = cluster_bootstrap(x, clusters, 40_000, 3)
    assert drawn.mean() == pytest.approx(np.mean(every), abs=0.01)
    assert drawn.std() == pytest.approx(np.std(every), rel=0.02)
    assert set(np.round(drawn, 9)) <= set(np.round(every, 9))
    error = clustered_error(X, CLUSTERS)[0]
    assert 0.7 * error < means.std() < 1.5 * error


def test_one_cluster_is_declined():
    found = crossed(C, B, **SETTINGS, clusters=np.zeros(60, int))
    assert (
        found.gap.declined
        == "an interval over seeds and test images needs two or more seeds and clusters of test images"
    )
    assert found.bootstrap.declined


# parts


def test_halves_of_the_test_file_apart():
    found = crossed(C, B, **SETTINGS)
    for part, x in zip(found.halves, (X[:, :30], X[:, 30:]), strict=True):
        assert part.estimate == pytest.approx(x.mean())
        assert part.high - part.estimate == pytest.approx(
            stats.t.ppf(0.975, standard_error(x)[1]) * standard_error(x)[0]
        )
    assert "first half" in found.halves[0].method
    assert "second half" in found.halves[1].method


def test_classes():
    labels = np.arange(60) % 3
    found = by_class(C, B, labels, 10, 0.95, BASIS)
    assert [entry.label for entry in found] == [0, 1, 2]  # classes without images are left out
    for entry, own in zip(found, (labels == k for k in range(3)), strict=True):
        error, df = standard_error(X[:, own])
        p = entry.gap.p_value
        assert (entry.n_images, entry.candidate_accuracy, entry.baseline_accuracy) == (
            20,
            pytest.approx(C[:, own].mean()),
            pytest.approx(B[:, own].mean()),
        )
        assert p == pytest.approx(2 * stats.t.sf(abs(X[:, own].mean()) / error, df))
        assert (p < 0.05) == (entry.gap.low > 0 or entry.gap.high < 0)


def test_images_that_only_one_model_reads():
    c = np.array([[1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1]], bool)
    b = np.array([[0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1]], bool)
    found = hard_images(c, b, BASIS)
    assert found.baseline_alone_wrong == (0,)
    assert found.candidate_alone_wrong == (2,)
    assert found.both_wrong == (3,)
    assert (found.rests_on.n, found.rests_on.planned, found.rests_on.runs) == (2, 20, ("a", "b"))


def test_confusion_is_a_mean_over_runs():
    labels = np.array([0, 0, 1, 2], np.uint8)
    predicted = np.array([[0, 1, 1, 2], [0, 0, 1, 0]], np.uint8)
    assert confusion(predicted, labels, 4) == (
        (0.75, 0.25, 0, 0),
        (0, 1, 0, 0),
        (0.5, 0, 0.5, 0),
        (0, 0, 0, 0),
    )


# what is declined


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seeds", [0, 1, 2, 3])
@pytest.mark.parametrize("images", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["random", "constant", "same in all seeds", "same on all images"])
def test_degenerate_arrays_are_declined_never_invented(seeds, images, kind):
    rng = np.random.default_rng(seeds * 10 + images)
    c, b = (rng.random((seeds, images)) < 0.5 for _ in range(2))
    if kind == "constant":
        c, b = np.ones_like(c), np.zeros_like(b)
    elif kind == "same in all seeds":
        c, b = (np.repeat(a[:1], len(a), 0) for a in (c, b))
    elif kind == "same on all images":
        c, b = (np.repeat(a[:, :1], a.shape[1], 1) for a in (c, b))
    found = crossed(c, b, **SETTINGS)
    for e in (found.gap, found.bootstrap, *found.halves):
        assert (e.low is None) == (e.declined is not None)
        if kind == "constant" or seeds < 2 or images < 2:
            assert e.low is None
    for entry in by_class(c, b, np.arange(images) % 2, 2, 0.95, BASIS):
        assert (entry.gap.p_value is None) == (entry.gap.low is None)
    assert (p_value(c.astype(int) - b) is None) == (found.gap.low is None)
    hard_images(c, b, BASIS)


def test_arrays_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        crossed(C, B[:5], **SETTINGS)
    with pytest.raises(ValueError, match=r"\[seed, image\]"):
        crossed(C[0], B[0], **SETTINGS)

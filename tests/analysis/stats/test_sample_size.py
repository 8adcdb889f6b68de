"""Planning against the intervals it plans for, brute-force power, and scipy's exact tests."""

import numpy as np
import pytest
from scipy import stats

from analysis.stats.crossed import gap_over_images
from analysis.stats.paired import t_interval
from analysis.stats.sample_size import (
    MOST,
    OverImages,
    first,
    half_width,
    hours,
    plan,
    sign_test_power,
    sign_test_seeds,
)
from tests.analysis.grids import BASIS

RNG = np.random.default_rng(11)
HARD = RNG.standard_normal(2000)
C = RNG.standard_normal((8, 2000)) < 2 + 2 * HARD + 0.1 * RNG.standard_normal((8, 1))
B = RNG.standard_normal((8, 2000)) < 1.8 + 2 * RNG.standard_normal(2000) + 0.1 * RNG.standard_normal((8, 1))
X = C.astype(np.int8) - B.astype(np.int8)
D = X.mean(1)
SETTINGS = dict(level=0.95, verdict_level=0.95, half_widths=(0.002, 0.0001))


def planning(d=D, x=X, **changes):
    return plan(d, x, 2000, BASIS, **(SETTINGS | changes))


def test_half_widths_at_the_studys_own_size_are_the_studys_own():

    found = plan(D, X, 2000, BASIS, **SETTINGS)
    seeds = t_interval(D, 0.95, BASIS)
    assert half_width(D.std(ddof=1), 8, 0.95) == pytest.approx((seeds.high - seeds.low) / 2, rel=1e-10)
    images = gap_over_images(X, 0.95, BASIS)
    assert OverImages(X, 0.95).half_width(8) == pytest.approx((images.high - images.low) / 2, rel=1e-10)
    widths = [(p.over_seeds, p.over_images) for p in found.precision]
    assert widths == sorted(widths, reverse=True)
    assert all(over_images > found.floor for _, over_images in widths)


def test_the_floor_is_what_infinitely_many_seeds_leave():
    found = planning()

    assert OverImages(X, 0.95).half_width(10**8) == pytest.approx(found.floor, rel=1e-4)
    crossed = OverImages(X, 0.95).half_width
    assert crossed(found.enough) <= 1.1 * found.floor < crossed(found.enough - 1)
    assert f"{100 * found.floor:.2g} percentage points" in found.sentence
    assert "2,000 test images" in found.sentence


def test_gaps_at_the_floor_are_found_half_the_time_and_detectable_ones_four_times_in_five():
    found, error = planning(), OverImages(X, 0.95).error
    # With infinitely many seeds only the images are left: a t of their degrees of freedom.
    draws = np.random.default_rng(1)
    scale = np.sqrt(error.images * draws.chisquare(error.freedom, 200_000) / error.freedom)
    luck = np.sqrt(error.images) * draws.standard_normal(200_000)
    for gap, power in ((found.floor, 0.5), (found.detectable, 0.8)):
        t = np.abs(gap + luck) / scale
        assert np.mean(t > stats.t.ppf(0.975, error.freedom)) == pytest.approx(power, abs=0.005)
    at = "points is found, at 95% confidence, less than half the time; "
    assert found.sentence.endswith(f"{at}one of {100 * found.detectable:.2g} with a power of 80%.")
    assert planning(x=None).detectable is None


def test_a_gap_is_found_at_the_level_of_the_verdict():
    usual, shared = planning(), planning(verdict_level=0.975)
    assert shared.floor == usual.floor == usual.even
    assert shared.even == OverImages(X, 0.975).floor > usual.even
    assert shared.detectable == OverImages(X, 0.975).detectable > usual.detectable
    assert f"{100 * shared.even:.2g} percentage points is found, at 97.5% confidence" in shared.sentence
    assert [t.seeds for t in shared.sign_test] == [
        sign_test_seeds(t.outperforming, t.power, 0.025) for t in usual.sign_test
    ]


def test_clusters_of_test_images_are_planned_for():
    clusters = RNG.integers(0, 100, 2000)
    clusters = np.unique(clusters, return_inverse=True)[1]
    images = gap_over_images(X, 0.95, BASIS, clusters)
    crossed = OverImages(X, 0.95, clusters)
    assert crossed.half_width(8) == pytest.approx((images.high - images.low) / 2, rel=1e-10)
    found = planning(clusters=clusters)
    assert found.floor == pytest.approx(crossed.half_width(10**8), rel=1e-3)
    assert [p.over_images for p in found.precision] == [crossed.half_width(p.seeds) for p in found.precision]
    assert found.floor != planning().floor
    assert planning(clusters=np.zeros(2000, int)).floor is None


@pytest.mark.parametrize("wanted", [0.5, 0.01, 0.002, 0.0005])
def test_seeds_for_a_half_width_are_the_fewest(wanted):
    sd = D.std(ddof=1)
    n = first(lambda k: half_width(sd, k, 0.95), wanted)
    assert half_width(sd, n, 0.95) <= wanted
    assert n == 2 or half_width(sd, n - 1, 0.95) > wanted
    assert first(lambda k: half_width(sd, k, 0.95), 1e-7) is None


def test_seeds_needed_carry_the_uncertainty_of_the_sd():
    wide, narrow = planning().needed
    e = wide.over_seeds
    assert e.low < e.estimate < e.high
    # Half-width falls as 1/√n, so seeds go as the variance; its 95% interval with 7 degrees of freedom.
    ratio = stats.chi2.ppf(0.975, 7) / stats.chi2.ppf(0.025, 7)
    assert e.high / e.low == pytest.approx(ratio, rel=0.15)
    assert wide.over_images.declined.startswith("no number of seeds")
    assert narrow.over_images.estimate is None
    assert planning(half_widths=(0.05,)).needed[0].over_images.estimate >= 2
    beyond = planning(half_widths=(1e-7,)).needed[0].over_seeds
    assert beyond.declined == f"more than {MOST:,} seeds"


# the sign test


@pytest.mark.parametrize("n", [1, 5, 6, 9, 20, 33])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_power_is_that_of_scipys_exact_test(n, alpha):
    rejected = [k for k in range(n + 1) if stats.binomtest(k, n).pvalue <= alpha]
    expected = sum(stats.binom.pmf(k, n, 0.75) for k in rejected)
    assert sign_test_power(n, 0.75, alpha) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ahead", [0.55, 0.75, 0.9, 1.0])
def test_seeds_for_the_sign_test_keep_their_power(ahead):
    n = sign_test_seeds(ahead, 0.8, 0.05)
    assert sign_test_power(n - 1, ahead, 0.05) < 0.8
    assert (sign_test_power(np.arange(n, n + 300), ahead, 0.05) >= 0.8).all()
    if ahead == 1:
        assert n == 6  # 2 / 2⁶ is the first to be below 0.05


def test_hours():
    assert hours(20, [90.0, 30.0]) == pytest.approx(2 / 3)


# what is declined


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("d", [[], [0.1], [0.1, 0.1]])
def test_without_spread_it_says_so(d):
    found = planning(np.array(d), X[: len(d)])
    assert found.precision == ()
    assert found.floor is found.enough is None
    assert "cannot be said" in found.sentence
    assert all(needed.over_seeds.declined for needed in found.needed)


def test_without_predictions():
    found = planning(x=None)
    assert found.floor is None
    assert all(p.over_images is None for p in found.precision)
    assert found.needed[0].over_images.declined == "no predictions"
    assert "Without predictions" in found.sentence


def test_without_a_component_of_images_there_is_no_floor():
    x = np.array([np.roll([1] * 5 + [0] * 15, 5 * s) for s in range(4)], np.int8)
    x[0, 18:] = 1
    found = planning(x.mean(1), x, half_widths=(0.01,))
    assert found.floor is None
    assert "No spread" in found.sentence
    widths = [p.over_images for p in found.precision]
    assert all(w > 0 for w in widths)


def test_enough_already():
    found = planning(np.tile(D, 40), np.tile(X, (40, 1)))
    assert found.enough <= 320
    assert "have stopped helping" in found.sentence

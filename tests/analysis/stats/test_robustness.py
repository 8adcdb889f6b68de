"""Robustness: outcomes are counted, never dropped; every specification by hand; A/A."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import expit, logit
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from analysis.stats.robustness import coinciding, gap_between, outcomes, random_halves, robustness, sensitivity
from analysis.stats.selection import fixed, reselected
from tests.analysis.grids import BASIS, grid

N_IMAGES, CLASSES = 1000, 10
REPLICATIONS = 3000
OPTIONS = dict(n_images=N_IMAGES, classes=CLASSES, level=0.95)
RNG = np.random.default_rng(11)


def model(accuracy: float, outcome: dict | None = None, n_rates: int = 2, n_seeds: int = 6):
    counts = RNG.binomial(N_IMAGES, accuracy, (n_rates, n_seeds))
    states = np.full((n_rates, n_seeds), "learned", dtype=object)
    for cell, state in (outcome or {}).items():
        states[cell] = state
        counts[cell] = -1
    return grid(counts, states)


def no_images(rates):
    return BASIS.declines("no predictions")


def asked(c, b, rules, over_images=no_images):
    return robustness((c, b), rules, over_images, **OPTIONS)


def constant(rate: int, other: int | None = None, n_seeds: int = 6):
    return fixed(np.full(n_seeds, rate), np.full(n_seeds, rate if other is None else other))


def find(result, **choices):
    (found,) = [s for s in result.specifications if all(getattr(s, k) == v for k, v in choices.items())]
    return found


# outcomes


def test_none_of_twenty_is_up_to_17_per_cent():
    found = outcomes(np.full(20, "learned"), 0.95).not_learned
    assert (found.estimate, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20), rel=1e-10)
    assert round(found.high, 2) == 0.17


def test_failed_and_missing_are_counted_and_are_no_outcome():
    found = outcomes(["learned", "diverged", "collapsed", "failed", "missing", "learned", ""], 0.9)
    assert found.counts == {"learned": 2, "collapsed": 1, "diverged": 1, "failed": 1, "missing": 1}
    assert found.planned == 6
    assert (found.not_learned.n, found.not_learned.planned, found.not_learned.estimate) == (4, 6, 0.5)
    limits = stats.binomtest(2, 4).proportion_ci(0.9)
    assert_allclose((found.not_learned.low, found.not_learned.high), limits, rtol=1e-10)
    with pytest.raises(ValueError, match="converged"):
        outcomes(["converged"], 0.95)


@pytest.mark.parametrize("states", [[], ["missing", "failed"]])
def test_no_outcome_at_all_is_declined(states):
    assert outcomes(states, 0.95).not_learned.declined


# point sensitivities


def test_failed_runs_are_never_scored_and_diverged_ones_only_where_it_says_so():
    c = model(0.95, {(0, 0): "diverged", (0, 1): "failed"})
    b = model(0.90, {(0, 2): "collapsed", (0, 3): "missing"})
    x, y = c.right[0] / N_IMAGES, b.right[0] / N_IMAGES
    both, at_chance, worst = (
        sensitivity((c, b), constant(0), policy, N_IMAGES, CLASSES)
        for policy in ("both learned", "scored at chance", "worst case")
    )
    assert both.estimate == pytest.approx(np.mean((x - y)[4:]), rel=1e-12)
    assert at_chance.estimate == pytest.approx(np.mean([0.1 - y[0], x[2] - 0.1, *(x - y)[4:]]), rel=1e-12)
    best = max(y[i] for i in (0, 1, 4, 5))
    expected = np.mean([0.1 - y[0], 0.1 - y[1], x[2] - 0.1, x[3] - best, *(x - y)[4:]])
    assert worst.estimate == pytest.approx(expected, rel=1e-12)
    assert [e.n for e in (both, at_chance, worst)] == [2, 4, 6]
    assert {e.planned for e in (both, at_chance, worst)} == {6}
    assert all(e.low is None for e in (both, at_chance, worst))


def test_worst_case_of_a_model_against_itself_treats_the_sides_apart():
    c = model(0.9, {(0, 0): "missing"})
    worst = sensitivity((c, c), constant(0), "worst case", N_IMAGES, CLASSES)
    assert worst.estimate == pytest.approx((0.1 - c.right[0].max() / N_IMAGES) / 6)


def test_nothing_to_score_is_declined():
    c = model(0.9, {(0, s): "failed" for s in range(6)})
    found = sensitivity((c, model(0.9)), constant(0), "scored at chance", N_IMAGES, CLASSES)
    assert found.estimate is None
    assert found.declined
    assert (found.n, found.planned) == (0, 6)


# specifications


def test_primary_and_unpaired_against_statsmodels():
    c, b = model(0.95, {(1, 0): "diverged"}), model(0.94, {(1, 1): "failed"})
    x, y = c.right[1] / N_IMAGES, b.right[1] / N_IMAGES
    result = asked(c, b, {"mean": constant(1)})
    common = dict(outcomes="both learned", population="seeds")
    primary = find(result, primary=True).gap
    d = DescrStatsW((x - y)[2:])
    assert primary.estimate == pytest.approx(d.mean, rel=1e-10)
    assert_allclose((primary.low, primary.high), d.tconfint_mean(), rtol=1e-10)
    assert primary.n == 4
    welch = CompareMeans(DescrStatsW(x[1:]), DescrStatsW(np.delete(y, 1)))
    unpaired = find(result, pairing="unpaired", transform="raw", **common).gap
    assert unpaired.estimate == pytest.approx(x[1:].mean() - np.delete(y, 1).mean(), rel=1e-10)
    assert_allclose((unpaired.low, unpaired.high), welch.tconfint_diff(usevar="unequal"), rtol=1e-9)
    assert unpaired.n == 5


def test_logit_is_turned_back_into_a_gap_in_accuracy():
    c, b = model(0.95), model(0.94)
    x, y = (logit((m.right[0] + 0.5) / (N_IMAGES + 1)) for m in (c, b))
    result = asked(c, b, {"mean": constant(0)})
    found = find(result, outcomes="both learned", transform="logit", pairing="paired").gap
    assert found.estimate == pytest.approx(expit(x.mean()) - expit(y.mean()), rel=1e-10)
    # By hand: the slopes of expit at both means, and the covariance of the two over seeds.
    p, q = expit(x.mean()), expit(y.mean())
    slopes = np.array([p * (1 - p), -q * (1 - q)])
    half = stats.t.ppf(0.975, 5) * np.sqrt(slopes @ np.cov(x, y) @ slopes / 6)
    assert_allclose((found.low, found.high), (p - q - half, p - q + half), rtol=1e-10)
    apart = find(result, outcomes="both learned", transform="logit", pairing="unpaired").gap
    parts = slopes**2 * [x.var(ddof=1) / 6, y.var(ddof=1) / 6]
    df = parts.sum() ** 2 / (parts**2 / 5).sum()
    assert apart.high - apart.estimate == pytest.approx(stats.t.ppf(0.975, df) * np.sqrt(parts.sum()), rel=1e-10)


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize("n_seeds", [5, 20, 50])
def test_intervals_on_logits_cover_as_they_say(n_seeds, pairing):
    """Counts of right images whose logits are normal with a correlation of 0.3, or of 0 where seeds are unpaired."""
    rng = np.random.default_rng(n_seeds)
    means, rho = np.array([4.5, 3.55]), 0.3 if pairing == "paired" else 0.0
    cov = np.diag([0.1, 0.06]) @ [[1, rho], [rho, 1]] @ np.diag([0.1, 0.06])
    logits = rng.multivariate_normal(means, cov, (REPLICATIONS, n_seeds))
    n_images = 10**9  # so that rounding to whole images says nothing
    right = np.rint((n_images + 1) * expit(logits) - 0.5)
    truth = expit(means[0]) - expit(means[1])
    found = [gap_between(c, b, pairing, "logit", n_images, 0.95, BASIS) for c, b in right.transpose(0, 2, 1)]
    covered = np.mean([e.low <= truth <= e.high for e in found])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / REPLICATIONS)


def test_logit_of_a_perfect_network_is_finite():
    c = grid(np.full((1, 4), N_IMAGES))
    b = grid([[900, 901, 902, 903]])
    result = asked(c, b, {"mean": constant(0, n_seeds=4)})
    found = find(result, outcomes="both learned", transform="logit", pairing="paired").gap
    assert 0 < found.low < found.estimate < found.high < 0.101


def test_cross_fitting_takes_each_seeds_own_rate():
    c, b = model(0.95), model(0.94)
    rates_c, rates_b = np.array([0, 1, 0, 1, 1, 0]), np.array([1, 1, 0, 0, 1, 0])
    result = asked(c, b, {"cross-fitted": fixed(rates_c, rates_b)})
    s = np.arange(6)
    expected = np.mean(c.right[rates_c, s] - b.right[rates_b, s]) / N_IMAGES
    assert find(result, primary=True).gap.estimate == pytest.approx(expected, rel=1e-12)


def test_reselection_averages_the_gap_over_resamples():
    c, b = model(0.95, n_rates=3), model(0.94, n_rates=3)
    winners_c, winners_b = RNG.integers(0, 3, 200), RNG.integers(0, 3, 200)
    choice = reselected(winners_c, winners_b, 6)
    assert sum(rates.weight for rates in choice) == pytest.approx(1)
    expected = np.mean([np.mean(c.right[i] - b.right[j]) for i, j in zip(winners_c, winners_b, strict=True)])
    result = asked(c, b, {"mean": constant(0), "re-selected": choice})
    found = find(result, selection="re-selected", outcomes="both learned", transform="raw", pairing="paired").gap
    assert found.estimate == pytest.approx(expected / N_IMAGES, rel=1e-10)
    assert found.low is None


def test_the_curve_is_sorted_and_counts_signs_of_the_alternatives():
    c, b = model(0.93), model(0.80)
    c.right[1], b.right[1] = 700, 800 + np.arange(6)
    choices = {"mean": constant(0), "median": constant(1)}
    result = asked(c, b, choices)
    estimates = [s.gap.estimate for s in result.specifications]
    assert estimates == sorted(estimates)
    assert len(estimates) == 16
    # Every run learned, so scoring and pairing change no point: raw and logit are all that differs, for each rate.
    assert (result.alternatives, result.distinct, result.same_sign, result.undefined) == (15, 3, 1, 2)
    assert sum(s.primary for s in result.specifications) == 1


def test_equal_estimates_are_one_row_that_says_how_many_analyses_give_it():
    c, b = model(0.93), model(0.80)
    rules = {"mean": constant(0), "median": constant(0)}
    fewer = [BASIS.gives(gap) for gap in (-0.2, 0.1, 0.13)]
    result = robustness((c, b), rules, no_images, fewer, **OPTIONS)
    first, second, *rest = coinciding(result.specifications)
    assert (first.count, first.choices["selection"], first.first.gap.estimate) == (1, ("best of 1 rate",), -0.2)
    assert (second.count, second.choices["selection"], second.choices["outcomes"]) == (
        1,
        ("best of 2 rates",),
        ("scored at chance",),
    )
    assert [same.count for same in rest] == [8, 8]  # raw and logit; the best of all rates is what "mean" is
    (primary,) = [same for same in rest if same.first.primary]
    assert primary.choices["transform"] == ("raw",)
    assert set(primary.choices["selection"]) == {"mean", "median"}
    assert set(primary.choices["pairing"]) == {"paired", "unpaired"}
    assert (result.alternatives, result.distinct, result.same_sign) == (17, 3, 2)
    assert result.undefined == 2  # for want of predictions, once a rule; the best of fewer rates are none of those


def test_a_gap_of_zero_has_no_sign_that_others_could_share():
    c = model(0.9)
    result = asked(c, c, {"mean": constant(0)})
    assert (result.alternatives, result.distinct, result.same_sign) == (7, 0, None)


def test_scored_runs_get_no_interval():
    result = asked(model(0.95, {(0, 1): "diverged"}), model(0.94), {"mean": constant(0)})
    for spec in result.specifications:
        assert (spec.gap.low is None) == (spec.outcomes != "both learned")


def test_the_other_population_comes_from_the_pairs_that_learned():
    c, b = model(0.95, {(0, 1): "missing"}), model(0.94)
    seen = []

    def over_images(rates):
        seen.append((list(rates.candidate), list(rates.baseline)))
        return BASIS.gives(0.0, -0.5, 0.5, 0.95)

    result = asked(c, b, {"mean": constant(0, 1)}, over_images)
    assert seen == [([0] * 6, [1] * 6)]
    found = find(result, population="seeds and test images")
    assert (found.gap.low, found.gap.high, found.primary) == (-0.5, 0.5, False)
    assert found.gap.estimate == 0.0  # its own, for it may rest on fewer pairs
    assert asked(c, b, {"mean": constant(0, 1)}).undefined == 1


@pytest.mark.parametrize("n_seeds", [0, 1, 2])
def test_few_seeds_decline_and_never_crash(n_seeds):
    states = ("learned", "diverged", "missing", "")
    for first, second in product(states, repeat=2):
        c = grid(np.full((1, n_seeds), 950), first)
        b = grid(np.full((1, n_seeds), 940), second)
        result = asked(c, b, {"mean": constant(0, n_seeds=n_seeds)})
        assert all(s.gap.low is None for s in result.specifications)
        primary = [s for s in result.specifications if s.primary]
        assert (
            (not primary) == (result.same_sign is None) == (n_seeds == 0 or (first, second) != ("learned", "learned"))
        )


def test_no_choice_gives_no_estimate():
    result = asked(model(0.95), model(0.94), {"mean": constant(-1, 0)})
    assert result.specifications == ()
    assert result.undefined == 8
    assert result.same_sign is None
    assert result.worst_case.declined


# A/A


def test_random_halves_differ_about_as_often_as_they_should():
    values = np.random.default_rng(4).normal(0.98, 0.001, 20)
    found = random_halves(values, 0.95, BASIS, splits=1000, seed=0)
    assert 0.03 <= found.estimate <= 0.07
    assert found.role == "check"
    assert found.warning
    few = [random_halves(values, 0.5, BASIS, splits=40, seed=seed) for seed in (1, 1, 2)]
    assert few[0] == few[1] != few[2]


@pytest.mark.parametrize("values", [[], [0.9], [0.9, 0.8, 0.7], [0.9] * 8])
def test_random_halves_decline_what_they_cannot_split(values):
    assert random_halves(values, 0.95, BASIS, splits=10, seed=0).declined

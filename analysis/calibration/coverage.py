"""Do they cover? Every interval and test of the analysis, vectorised, on simulated studies whose gap is known.

Arrays of hits [replication] are 1 where an interval covered its truth or a test rejected, 0 where not, NaN where the
analysis would have declined.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit, ndtri, stdtrit

from analysis.calibration import simulation
from analysis.calibration.simulation import IMAGES, Scenario
from analysis.stats import sweep
from analysis.stats.crossed import clustered_error, error_from
from analysis.stats.estimate import Basis
from analysis.stats.paired import sign_flip
from analysis.stats.robustness import on_logits
from analysis.stats.selection import luck, select, with_luck

LEVEL = 0.95
SEEDS = (5, 10, 20, 50)
SLOW = 5
"""What is slow (BCa, band, selection, images) is replicated this many times less."""

TEST_SETS = 10
RESAMPLES = 999
RATES = 5
"""Learning rates under the simultaneous band."""

SIGN_FLIP = "sign-flip test"
T = "t over seeds"
WELCH = "Welch's t over seeds"
RATIO = "error-rate ratio over seeds"
LOGITS = "paired t over seeds, on logits"
FAST = (T, WELCH, RATIO, LOGITS, SIGN_FLIP)
"""What is replicated in full."""
BCA = "BCa bootstrap over seeds"
BAND = f"simultaneous band over {RATES} rates"
SELECTION = "t over seeds with the luck of selection"
CLUSTERED = "standard error clustered by seeds and writers"
NEW_IMAGES = ("crossed analysis of variance", "pigeonhole bootstrap (its exact variance)", T)

Hits = dict[tuple[int, str], NDArray[np.float64]]
"""(number of seeds, method) → hits."""

Only = Collection[tuple[int, str]] | None
"""Which (number of seeds, method) to work out; None for all."""


# over seeds, on this test set


def primary(scenario: Scenario, band: bool) -> set[str]:
    """The methods of the main comparison; the simultaneous band where asked for."""
    found = {T, WELCH, RATIO}
    found |= set() if scenario.collapse else {BCA}
    found |= {SIGN_FLIP} if scenario.identical else set()
    return found | ({BAND} if band else set())


def sensitivity(scenario: Scenario) -> set[str]:
    """What is computed otherwise; and the test of a mean gap, where its null hypothesis supposes too much."""
    return {LOGITS, SIGN_FLIP} if scenario.baseline.luck != "normal" else {LOGITS}


def on_this_test_set(
    scenario: Scenario, methods: Collection[str], replications: int, rng: np.random.Generator, only: Only = None
) -> Hits:
    """What is said over seeds by these `methods`, against the gap, or the ratio of errors, on the test set.

    The `replications` are spread over TEST_SETS test sets.
    """
    hits: dict[tuple[int, str], list[NDArray]] = {}
    each = max(1, replications // TEST_SETS)
    few = max(1, each // SLOW)
    for _ in range(TEST_SETS):
        sides = scenario.images(rng)
        models = scenario.candidate, scenario.baseline
        accuracies = np.array(list(map(simulation.accuracy_here, models, sides)))
        truth = float(np.subtract(*accuracies))
        counts = list(map(simulation.right_counts, models, sides))
        truth_on_logits = _accuracy_of_mean_logit(counts[0]) - _accuracy_of_mean_logit(counts[1])
        for n in SEEDS:
            wanted = {method for method in methods if only is None or (n, method) in only}
            if not wanted:
                continue
            c, b = (simulation.draw(p, (each, n), rng) for p in counts)
            k = c - b
            learned = rng.random((each, n)) < (1 - scenario.collapse) ** 2
            found = {}
            if T in wanted:
                found[T] = t_covers(k / IMAGES, learned, truth)
            if WELCH in wanted:
                found[WELCH] = welch_covers(c, b, learned, truth * IMAGES)
            if RATIO in wanted:
                found[RATIO] = ratio_covers(IMAGES - c, IMAGES - b, learned, float(np.divide(*(1 - accuracies))))
            if LOGITS in wanted:
                found[LOGITS] = logits_cover(c, b, learned, truth_on_logits)
            if BCA in wanted:
                found[BCA] = bca_covers(k[:few] / IMAGES, truth, rng)
            if SIGN_FLIP in wanted:
                # Less the true gap no gap is left, to half an image.
                found[SIGN_FLIP] = sign_flip_rejects(k - round(truth * IMAGES), learned)
            if BAND in wanted:
                rates = np.subtract(*(simulation.draw(p, (few, n, RATES), rng) for p in counts))
                found[BAND] = band_covers(rates, truth * IMAGES, sweep.signs(n, int(rng.integers(2**31))))
            for method, values in found.items():
                hits.setdefault((n, method), []).append(values)
    return {key: np.concatenate(values) for key, values in hits.items()}


def t_covers(d: NDArray, learned: NDArray, truth: float) -> NDArray[np.float64]:
    """Whether the t interval of each row of `d` [replication, seed] covers, from the pairs that `learned`."""
    n, mean, variance = _moments(d, learned)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = stats.t.ppf((1 + LEVEL) / 2, np.maximum(n - 1, 1)) * np.sqrt(variance / n)
    lowest = np.where(learned, d, np.inf).min(1)
    highest = np.where(learned, d, -np.inf).max(1)
    return np.where((n > 1) & (highest > lowest), np.abs(mean - truth) <= half, np.nan)


def welch_covers(c: NDArray, b: NDArray, learned: NDArray, truth: float) -> NDArray[np.float64]:
    """Whether Welch's interval for the difference of means of `c` and `b` [replication, seed] covers."""
    (n, mean_c, var_c), (_, mean_b, var_b) = _moments(c, learned), _moments(b, learned)
    with np.errstate(invalid="ignore", divide="ignore"):
        squared = (var_c + var_b) / n
        df = squared**2 * (n - 1) / ((var_c / n) ** 2 + (var_b / n) ** 2)
        covers = np.abs(mean_c - mean_b - truth) <= stdtrit(df, (1 + LEVEL) / 2) * np.sqrt(squared)
    return np.where((n > 1) & (squared > 0), covers, np.nan)


def ratio_covers(c: NDArray, b: NDArray, learned: NDArray, truth: float) -> NDArray[np.float64]:
    """Whether the delta-method interval for the ratio of mean errors `c`, `b` [replication, seed] covers."""
    (_, mean_c, _), (_, mean_b, _) = _moments(c, learned), _moments(b, learned)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.log(mean_c / mean_b)
        relative = c / mean_c[:, None] - b / mean_b[:, None]
    return t_covers(log_ratio[:, None] + relative, learned, float(np.log(truth)))


def logits_cover(c: NDArray, b: NDArray, learned: NDArray, truth: float) -> NDArray[np.float64]:
    """Whether the interval on logits for right images `c`, `b` [replication, seed] covers; declined as the t interval.

    `truth` is the gap between the accuracies of the mean logits.
    """
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of rows of which nothing learned
        linear = [on_logits(right, IMAGES, learned) for right in (c, b)]
    return t_covers(np.subtract(*linear), learned, truth)


def _accuracy_of_mean_logit(probabilities: NDArray) -> float:
    """From the distribution of right images [count]."""
    return float(expit(probabilities @ logit((np.arange(probabilities.size) + 0.5) / probabilities.size)))


def _moments(x: NDArray, learned: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Number, mean and variance (ddof = 1) of each row's cells that `learned` [replication, seed]."""
    n = learned.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(learned, x, 0).sum(1) / n
        return n, mean, (np.where(learned, x - mean[:, None], 0) ** 2).sum(1) / (n - 1)


def bca_covers(d: NDArray, truth: float, rng: np.random.Generator, batch: int = 50) -> NDArray[np.float64]:
    """Whether the BCa interval of each row of `d` [replication, seed] covers; rows of a batch share their draws."""
    hits = []
    for start in range(0, len(d), batch):
        rows = d[start : start + batch]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            limits = stats.bootstrap(
                (rows,), np.mean, axis=-1, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", rng=rng
            ).confidence_interval
        given = limits.low < limits.high
        hits.append(np.where(given, (limits.low <= truth) & (truth <= limits.high), np.nan))
    return np.concatenate(hits)


def sign_flip_rejects(k: NDArray, learned: NDArray) -> NDArray[np.float64]:
    """Whether the sign-flip test of each row of `k` [replication, seed] rejects."""
    return np.array([sign_flip(row[own])[0] <= 1 - LEVEL for row, own in zip(k, learned, strict=True)], float)


def band_covers(k: NDArray, truth: float, flips: NDArray) -> NDArray[np.float64]:
    """Whether the simultaneous band covers at all rates; `k` [replication, seed, rate], `flips` [flip, seed]."""
    every = np.ones(k.shape[1:], bool)
    hits = np.full(len(k), np.nan)
    for r, (rows, mean, error) in enumerate(zip(k, k.mean(1), stats.sem(k, axis=1), strict=True)):
        critical = sweep.critical_value(rows - mean, every, LEVEL, flips)
        if error.all() and np.isfinite(critical):
            hits[r] = (np.abs(mean - truth) <= sweep.half_width(critical, len(rows), LEVEL) * error).all()
    return hits


def with_selection(apart: float, replications: int, rng: np.random.Generator, only: Only = None) -> Hits:
    """The interval with the luck of selection, between two models that are alike, of two rates each.

    The rates tie on validation images and lie `apart` on test images, in SDs over seeds.
    """
    hits = {}
    for n in SEEDS:
        if only is None or (n, SELECTION) in only:
            hits[n, SELECTION] = np.array([selection_covers(apart, n, rng) for _ in range(replications)])
    return hits


def selection_covers(apart: float, n: int, rng: np.random.Generator) -> float:
    """Whether that interval covers 0, the gap of alike models, in one study of `n` seeds."""
    rates = np.array([0.01, 0.1])
    val = 0.98 + 0.001 * rng.standard_normal((2, rates.size, n))
    test = 0.98 + 0.001 * (rng.standard_normal(val.shape) + apart * np.arange(rates.size)[:, None])
    draws = int(rng.integers(2**31))
    chosen = [select(one, rates).index for one in val]
    gap = float(np.mean(test[0, chosen[0]] - test[1, chosen[1]]))
    c, b = (luck(one, rates, resamples=RESAMPLES, seed=draws).winners for one in val)
    basis = Basis(method=SELECTION, unit="seeds", n=n, planned=n)
    e = with_luck(gap, (test[0], test[1]), (c, b), draws, LEVEL, basis)
    return np.nan if e.low is None or e.high is None else float(e.low <= 0 <= e.high)


# over seeds and images, on new images


def on_new_images(scenario: Scenario, replications: int, rng: np.random.Generator, only: Only = None) -> Hits:
    """Every method of NEW_IMAGES against the gap on new images, and CLUSTERED where they come by writers.

    Fewer seeds are the first of those with most.
    """
    sizes = [n for n in SEEDS if only is None or any(seeds == n for seeds, _ in only)]
    methods = (*NEW_IMAGES, CLUSTERED) if scenario.writers else NEW_IMAGES
    hits = {n: np.empty((replications, len(methods))) for n in sizes}
    for r in range(replications):
        x, there = simulation.differences(scenario, max(sizes), rng)
        learned = rng.random(len(x)) < (1 - scenario.collapse) ** 2
        for n in sizes:
            own = x[:n][learned[:n]]
            hits[n][r, : len(NEW_IMAGES)] = new_images_covers(own, IMAGES, scenario.gap)
            if scenario.writers:
                hits[n][r, -1] = clustered_covers(own, there, scenario.gap)
    found = {(n, method): hits[n][:, m] for n in sizes for m, method in enumerate(methods)}
    return {key: values for key, values in found.items() if only is None or key in only}


def new_images_covers(x: NDArray, images: int, truth: float) -> tuple[float, float, float]:
    """Whether each of NEW_IMAGES covers; `x` [seed, image] without the images, of `images`, where all entries are 0."""
    seeds = len(x)
    if seeds < 2:
        return np.nan, np.nan, np.nan
    ms_s, ms_d, ms_r = squares = sparse_mean_squares(x, images)
    mean = float(x.sum()) / (seeds * images)
    error, df = error_from(squares, seeds, images)
    a, b = 1 - 1 / seeds, 1 - 1 / images
    bootstrap = np.sqrt((a * ms_s + b * ms_d + a * b * ms_r) / (seeds * images))
    over_seeds = np.sqrt(ms_s / images / seeds)
    tail = (1 + LEVEL) / 2

    def within(half: float) -> float:
        return float(abs(mean - truth) <= half) if half > 0 else np.nan

    half_over_seeds = stdtrit(seeds - 1, tail) * over_seeds
    return (
        within(max(stdtrit(df, tail) * error, half_over_seeds)),  # as `gap_over_images` gives it
        within(ndtri(tail) * bootstrap),
        within(half_over_seeds),
    )


def clustered_covers(x: NDArray, there: NDArray[np.bool_], truth: float) -> float:
    """Whether the interval that knows the writers covers; `x` [seed, image] of those images that are `there`."""
    whole = np.zeros((len(x), there.size), np.int8)
    whole[:, there] = x
    error, df = clustered_error(whole, simulation.writers(there.size))
    half = stdtrit(df, (1 + LEVEL) / 2) * error
    over_seeds = stdtrit(len(x) - 1, (1 + LEVEL) / 2) * stats.sem(whole.mean(1))
    return float(abs(float(whole.mean()) - truth) <= max(half, over_seeds))


def sparse_mean_squares(x: NDArray, images: int) -> tuple[float, float, float]:
    """`crossed.mean_squares` of `x` [seed, image] and as many columns of zeros as make up `images`, from sums alone."""
    seeds = len(x)
    rows, columns = x.sum(1, dtype=np.int64), x.sum(0, dtype=np.int64)
    correction = float(rows.sum()) ** 2 / (seeds * images)
    ss_s = float(rows @ rows) / images - correction
    ss_d = float(columns @ columns) / seeds - correction
    ss_r = float(np.count_nonzero(x)) - correction - ss_s - ss_d
    return ss_s / (seeds - 1), ss_d / (images - 1), ss_r / ((seeds - 1) * (images - 1))

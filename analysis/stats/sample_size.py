"""How many more seeds would help: precision against seeds, and the floor that the test images set."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats.crossed import Error
from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.paired import spread_unknown

SEEDS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000)
"""Numbers of seeds at which the precision is shown."""

MOST = 100_000
"""More seeds than this are not planned for."""

TOO_MANY = f"more than {MOST:,} seeds"

POWERS = (0.8, 0.9)
OUTPERFORMING = (0.6, 0.75, 0.9)
"""Probabilities of outperforming on a paired seed for which the sign test is planned; 0.75 is Bouthillier et al.'s."""

NEAR = 1.1
"""More seeds stop helping where they could narrow the interval by less than a tenth."""


class Precision(Frozen):
    """Expected half-widths of the interval for the gap, fractions of accuracy."""

    seeds: int
    """Number of seeds (pairs)."""
    over_seeds: float
    """Over seeds: this test set."""
    over_images: float | None
    """Over seeds and test images; null without predictions."""


class Needed(Frozen):
    """Seeds (pairs) for an interval of ± `half_width`, a fraction of accuracy."""

    half_width: float
    """The precision wanted."""
    over_seeds: Estimate
    """Seeds for it over seeds."""
    over_images: Estimate
    """Seeds for it over seeds and test images."""


class SignTest(Frozen):
    """Seeds (pairs) that give the exact two-sided sign test a power."""

    outperforming: float
    """Probability that the candidate is ahead on a paired seed."""
    power: float
    """Probability that the test then rejects."""
    seeds: int
    """Fewest seeds (pairs) for it."""


class Planning(Frozen):
    """What more seeds would bring, if what was seen holds."""

    level: float
    """Confidence of the intervals planned."""
    verdict_level: float
    """Confidence that a gap has to be found with: `even`, `detectable` and `sign_test` are of it."""
    rests_on: Basis
    """What `precision`, `floor` and `enough` rest on."""
    precision: tuple[Precision, ...]
    """Empty where the spread over seeds is unknown."""
    floor: float | None
    """Half-width over seeds and test images with infinitely many seeds; null where they have no component."""
    even: float | None = None
    """The gap on new images that infinitely many seeds find half the time, a fraction of accuracy; null where there is
    no floor."""
    detectable: float | None = None
    """The same for a power of 80%."""
    enough: int | None
    """Seeds from which on more of them could narrow the interval over seeds and test images by less than a tenth."""
    needed: tuple[Needed, ...]
    """Seeds for each precision wanted."""
    sign_test: tuple[SignTest, ...]
    """Seeds for the sign test: exact binomial power, no data enter."""
    sentence: str
    """In words, when more seeds stop helping."""


def plan(
    d: ArrayLike,
    x: ArrayLike | None,
    n_images: int,
    basis: Basis,
    *,
    level: float,
    verdict_level: float,
    half_widths: Sequence[float],
    clusters: NDArray[np.int64] | None = None,
) -> Planning:
    """What more seeds would bring, from the paired differences in accuracy `d` [pair].

    `x` [pair, image] holds the differences in who got which image right, −1, 0 or 1; None where the predictions
    are not known. `half_widths` are the precisions wanted at `level`, fractions of accuracy; a gap is found at
    `verdict_level`. `clusters` [image] numbers the images that belong together, where that is known.
    """
    d = np.asarray(d, float)
    method = "expected half-widths from the SD of the differences and the mean squares seen"
    basis = basis.changed(method=method, n=d.size)
    tests = tuple(
        SignTest(outperforming=ahead, power=power, seeds=sign_test_seeds(ahead, power, 1 - verdict_level))
        for ahead in OUTPERFORMING
        for power in POWERS
    )
    if reason := spread_unknown(d):
        declined = basis.changed(method="planning").declines(reason)
        needed = tuple(Needed(half_width=h, over_seeds=declined, over_images=declined) for h in half_widths)
        sentence = f"How many seeds would be enough cannot be said: {reason}."
        return Planning(
            level=level,
            verdict_level=verdict_level,
            rests_on=basis,
            precision=(),
            floor=None,
            enough=None,
            needed=needed,
            sign_test=tests,
            sentence=sentence,
        )
    sd = float(d.std(ddof=1))
    one = x is None or np.shape(x)[1] < 2 or (clusters is not None and clusters.max() == 0)
    crossed = None if one else OverImages(np.asarray(x), level, clusters)
    floor = crossed.floor if crossed else None
    found = crossed.at(verdict_level) if crossed else None
    enough = first(crossed.half_width, NEAR * floor) if crossed and floor is not None else None
    return Planning(
        level=level,
        verdict_level=verdict_level,
        rests_on=basis,
        precision=tuple(
            Precision(
                seeds=n,
                over_seeds=half_width(sd, n, level),
                over_images=crossed.half_width(n) if crossed else None,
            )
            for n in SEEDS
        ),
        floor=floor,
        even=found.floor if found else None,
        detectable=found.detectable if found else None,
        enough=enough,
        needed=tuple(_needed(h, sd, crossed, level, basis) for h in half_widths),
        sign_test=tests,
        sentence=_sentence(found, enough, n_images, d.size),
    )


def half_width(sd: float, seeds: float, level: float) -> float:
    """Half-width t · SD / √n of the interval over `seeds` paired seeds."""
    return float(stats.t.ppf((1 + level) / 2, seeds - 1) * sd / np.sqrt(seeds))


def first(width: Callable[[int], float], wanted: float) -> int | None:
    """The fewest seeds, from 2, at which `width`(seeds), which falls, is at most `wanted`; None above MOST."""
    found = bisect_left(range(2, MOST + 1), -wanted, key=lambda n: -width(n)) + 2
    return found if found <= MOST else None


def sign_test_seeds(ahead: float, power: float, alpha: float) -> int:
    """The fewest pairs from which on the exact two-sided sign test at `alpha` has at least `power`.

    `ahead` is the probability of being ahead on a pair, not ½. The power of an exact test is a sawtooth in n, so
    the last n below the power counts.
    """
    # The normal approximation with room to spare bounds the search.
    z = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    n = np.arange(1, int(4 * (z / (2 * ahead - 1)) ** 2) + 100)
    below = n[sign_test_power(n, ahead, alpha) < power]
    return int(below[-1]) + 1 if below.size else 1


def sign_test_power(n: ArrayLike, ahead: float, alpha: float) -> NDArray[np.float64]:
    """Power of the exact two-sided sign test at `alpha` with `n` pairs [any shape] without ties."""
    n = np.asarray(n)
    # The most pairs that the side behind may win where the test still rejects; −1 where it never does.
    most = stats.binom.ppf(alpha / 2, n, 0.5)
    most = np.where(stats.binom.cdf(most, n, 0.5) > alpha / 2, most - 1, most)
    return stats.binom.cdf(most, n, ahead) + stats.binom.sf(n - most - 1, n, ahead)


def t_test_power(n: ArrayLike, gap: float, sd: float, alpha: float) -> NDArray[np.float64]:
    """Power of the two-sided paired t test at `alpha` with `n` pairs [any shape], true mean `gap`.

    Noncentral t (Cohen 1988): both tails beyond the critical value, with noncentrality gap √n / SD.
    """
    n = np.asarray(n, float)
    critical, shift = stats.t.isf(alpha / 2, n - 1), gap * np.sqrt(n) / sd
    return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)


def hours(seeds: float, seconds_per_run: Sequence[float]) -> float:
    """Hours that `seeds` seeds take, one run of each of `seconds_per_run` per seed, one at a time."""
    return seeds * sum(seconds_per_run) / 3600


class OverImages:
    """The interval over seeds and test images as a function of the number of seeds, from the error seen."""

    def __init__(self, x: NDArray, level: float, clusters: NDArray[np.int64] | None = None) -> None:
        self.level = level
        self.error = Error.of(x, clusters)

    def at(self, level: float) -> OverImages:
        """The interval at another level, from the same error."""
        other = copy(self)
        other.level = level
        return other

    def half_width(self, seeds: int) -> float:
        """Expected half-width; that of the study itself at its own number of seeds."""
        error, df = self.error.at(seeds)
        over_seeds = np.sqrt(self.error.parts[0] * self.error.seeds / seeds)
        tail = (1 + self.level) / 2
        return float(max(stats.t.ppf(tail, df) * error, stats.t.ppf(tail, seeds - 1) * over_seeds))

    @property
    def floor(self) -> float | None:
        """Its limit for infinitely many seeds; None where the images have no component of their own."""
        if self.error.images <= 0:
            return None
        return float(stats.t.ppf((1 + self.level) / 2, self.error.freedom) * np.sqrt(self.error.images))

    @property
    def detectable(self) -> float | None:
        """The gap that infinitely many seeds find with the first of POWERS; None as for the floor.

        The minimum detectable effect (Bloom 1995): standard error × (t of the level + t of the power). A gap at the
        floor itself is found half the time.
        """
        if self.floor is None:
            return None
        return self.floor + float(stats.t.ppf(POWERS[0], self.error.freedom) * np.sqrt(self.error.images))


def _needed(wanted: float, sd: float, crossed: OverImages | None, level: float, basis: Basis) -> Needed:
    return Needed(
        half_width=wanted,
        over_seeds=_needed_over_seeds(wanted, sd, level, basis),
        over_images=_needed_over_images(wanted, crossed, basis),
    )


def _needed_over_seeds(wanted: float, sd: float, level: float, basis: Basis) -> Estimate:
    n = basis.n
    # The SD is itself uncertain: the number of seeds inherits its chi-square interval.
    limits = [sd * float(np.sqrt((n - 1) / stats.chi2.ppf(q, n - 1))) for q in ((1 + level) / 2, (1 - level) / 2)]
    seeds, low, high = (first(partial(half_width, s, level=level), wanted) for s in (sd, *limits))
    how = "from the SD of the differences and its chi-square interval"
    basis = basis.changed(method=f"seeds for ±{100 * wanted:.3g} percentage points, {how}", population="seeds")
    if seeds is None:
        return basis.declines(TOO_MANY)
    if low is None or high is None:
        return basis.gives(seeds, warning=f"the SD is so uncertain that it may take {TOO_MANY}")
    return basis.gives(seeds, low, high, level) if low < high else basis.gives(seeds)


def _needed_over_images(wanted: float, crossed: OverImages | None, basis: Basis) -> Estimate:
    method = f"seeds for ±{100 * wanted:.3g} percentage points over seeds and test images"
    basis = basis.changed(method=method, population="seeds and test images")
    if crossed is None:
        return basis.declines("no predictions")
    seeds = first(crossed.half_width, wanted)
    if seeds is not None:
        return basis.gives(seeds)
    if crossed.floor is not None and crossed.floor >= wanted:
        return basis.declines(
            f"no number of seeds: the test images alone leave ±{100 * crossed.floor:.3g} percentage points"
        )
    return basis.declines(TOO_MANY)


def _sentence(found: OverImages | None, enough: int | None, n_images: int, n: int) -> str:
    """When more seeds stop helping, and which gaps this test set is likely to find."""
    if found is None:
        return (
            "Without predictions nothing can be said of new images. Over seeds, four times as many halve the interval."
        )
    if found.floor is None or found.detectable is None:
        return (
            "No spread beyond chance was found between test images, so no number of seeds is known from which on more "
            "of them would not help."
        )
    never = (
        f"However many seeds are trained, with {n_images:,} test images a gap on new images of less than about "
        f"{100 * found.floor:.2g} percentage points is found, at {100 * found.level:.3g}% confidence, less than half "
        f"the time; one of {100 * found.detectable:.2g} with a power of {100 * POWERS[0]:.0f}%."
    )
    if enough is None:
        return never
    helping = f"have stopped helping: with {n} pairs" if n >= enough else f"stop helping at about {enough} pairs:"
    return f"For new images more seeds {helping} the interval is within a tenth of its floor. {never}"

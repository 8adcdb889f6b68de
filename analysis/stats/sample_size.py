"""How many more seeds would help: precision against seeds, and the floor that the test digits set."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.stats import checks
from analysis.stats.crossed import error_from, mean_squares
from analysis.stats.estimate import Basis, Estimate, Frozen

SEEDS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000)
"""Numbers of seeds at which the precision is shown."""

MOST = 100_000
"""More seeds than this are not planned for."""

POWERS = (0.8, 0.9)
AHEAD = (0.6, 0.75, 0.9)
"""Probabilities of being ahead on a paired seed for which the sign test is planned; 0.75 is Bouthillier et al.'s."""

NEAR = 1.1
"""More seeds stop helping where they could narrow the interval by less than a tenth."""


class Precision(Frozen):
    """Expected half-widths of the interval for the gap, fractions of accuracy."""

    seeds: int
    """Number of seeds (pairs)."""
    over_seeds: float
    """Over seeds: this test set."""
    over_digits: float | None
    """Over seeds and digits; null without predictions."""


class Needed(Frozen):
    """Seeds (pairs) for an interval of ± `half_width`, a fraction of accuracy."""

    half_width: float
    """The precision wanted."""
    over_seeds: Estimate
    """Seeds for it over seeds."""
    over_digits: Estimate
    """Seeds for it over seeds and digits."""


class SignTest(Frozen):
    """Seeds (pairs) that give the exact two-sided sign test a power."""

    ahead: float
    """Probability that the candidate is ahead on a paired seed."""
    power: float
    """Probability that the test then rejects."""
    seeds: int
    """Fewest seeds (pairs) for it."""


class Planning(Frozen):
    """What more seeds would bring, if what was seen holds."""

    level: float
    """Confidence of the intervals planned."""
    rests_on: Basis
    """What `precision`, `floor` and `enough` rest on."""
    precision: tuple[Precision, ...]
    """Empty where the spread over seeds is unknown."""
    floor: float | None
    """Half-width over seeds and digits with infinitely many seeds; null where no component of digits was found."""
    enough: int | None
    """Seeds from which on more of them could narrow the interval over seeds and digits by less than a tenth."""
    needed: tuple[Needed, ...]
    """Seeds for each precision wanted."""
    sign_test: tuple[SignTest, ...]
    """Seeds for the sign test: exact binomial power, no data enter."""
    sentence: str
    """In words, when more seeds stop helping."""


def plan(
    d: ArrayLike,
    x: ArrayLike | None,
    n_digits: int,
    *,
    level: float,
    half_widths: Sequence[float],
    planned: int,
    runs: str | None = None,
) -> Planning:
    """What more seeds would bring, from the paired differences in accuracy `d` [pair].

    `x` [pair, digit] holds the differences in who got which digit right, −1, 0 or 1; None where the predictions
    are not known. `half_widths` are the precisions wanted, fractions of accuracy.
    """
    d = np.asarray(d, float)
    about = dict(n=d.size, planned=planned, unit="pairs of runs", runs=runs)
    basis = Basis(method="expected half-widths from the SD of the differences and the mean squares seen", **about)
    tests = tuple(
        SignTest(ahead=ahead, power=power, seeds=sign_test_seeds(ahead, power, 1 - level))
        for ahead in AHEAD
        for power in POWERS
    )
    if reason := checks.spread_unknown(d):
        declined = Estimate(method="planning", declined=reason, **about)
        needed = tuple(Needed(half_width=h, over_seeds=declined, over_digits=declined) for h in half_widths)
        sentence = f"How many seeds would be enough cannot be said: {reason}."
        empty = dict(precision=(), floor=None, enough=None)
        return Planning(level=level, rests_on=basis, needed=needed, sign_test=tests, sentence=sentence, **empty)
    sd = float(d.std(ddof=1))
    crossed = None if x is None or np.shape(x)[1] < 2 else OverDigits(np.asarray(x), level)
    floor = crossed.floor if crossed else None
    enough = None if floor is None else first(crossed.half_width, NEAR * floor)
    return Planning(
        level=level,
        rests_on=basis,
        precision=tuple(
            Precision(
                seeds=n,
                over_seeds=half_width(sd, n, level),
                over_digits=crossed.half_width(n) if crossed else None,
            )
            for n in SEEDS
        ),
        floor=floor,
        enough=enough,
        needed=tuple(_needed(h, sd, crossed, level, about) for h in half_widths),
        sign_test=tests,
        sentence=_sentence(floor, enough, crossed is not None, n_digits, d.size),
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

    `ahead` is the probability of being ahead on a pair, not ½. The power of an exact test saws as n grows, so it is
    the last n below the power that counts.
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


def hours(seeds: float, seconds_per_run: Sequence[float], processes: int = 1) -> float:
    """Hours that `seeds` seeds take, one run of each of `seconds_per_run` per seed, `processes` of them at a time."""
    return seeds * sum(seconds_per_run) / processes / 3600


class OverDigits:
    """The interval over seeds and digits as a function of the number of seeds, from the mean squares seen."""

    def __init__(self, x: NDArray, level: float) -> None:
        self.level = level
        seeds, self.digits = x.shape
        self.ms_s, ms_d, self.ms_r = mean_squares(x)
        self.component = (ms_d - self.ms_r) / seeds  # of digits

    def half_width(self, seeds: int) -> float:
        """Expected half-width; that of the study itself at its own number of seeds."""
        expected = (self.ms_s, max(0.0, seeds * self.component + self.ms_r), self.ms_r)
        error, df = error_from(expected, seeds, self.digits)
        return float(stats.t.ppf((1 + self.level) / 2, df) * error)

    @property
    def floor(self) -> float | None:
        """Its limit for infinitely many seeds; None where no component of digits was found."""
        if self.component <= 0:
            return None
        return float(stats.t.ppf((1 + self.level) / 2, self.digits - 1) * np.sqrt(self.component / self.digits))


def _needed(wanted: float, sd: float, crossed: OverDigits | None, level: float, about: dict) -> Needed:
    n = about["n"]
    # The SD is itself uncertain: the number of seeds inherits its chi-square interval.
    limits = [sd * float(np.sqrt((n - 1) / stats.chi2.ppf(q, n - 1))) for q in ((1 + level) / 2, (1 - level) / 2)]
    seeds, low, high = (first(lambda k, s=s: half_width(s, k, level), wanted) for s in (sd, *limits))
    method = (
        f"seeds for ±{100 * wanted:.3g} percentage points, from the SD of the differences and its chi-square interval"
    )
    over = about | dict(method=method, population="seeds")
    too_many = f"more than {MOST:,} seeds"
    if seeds is None:
        over_seeds = Estimate(declined=too_many, **over)
    elif high is None:
        over_seeds = Estimate(estimate=seeds, warning=f"the SD is so uncertain that it may take {too_many}", **over)
    elif low < high:
        over_seeds = Estimate(estimate=seeds, low=low, high=high, level=level, **over)
    else:
        over_seeds = Estimate(estimate=seeds, **over)
    over = about | dict(
        method=f"seeds for ±{100 * wanted:.3g} percentage points over seeds and digits", population="seeds and digits"
    )
    if crossed is None:
        return Needed(half_width=wanted, over_seeds=over_seeds, over_digits=Estimate(declined="no predictions", **over))
    seeds = first(crossed.half_width, wanted)
    if seeds is not None:
        over_digits = Estimate(estimate=seeds, **over)
    elif crossed.floor is not None and crossed.floor >= wanted:
        reason = f"no number of seeds: the test digits alone leave ±{100 * crossed.floor:.3g} percentage points"
        over_digits = Estimate(declined=reason, **over)
    else:
        over_digits = Estimate(declined=too_many, **over)
    return Needed(half_width=wanted, over_seeds=over_seeds, over_digits=over_digits)


def _sentence(floor: float | None, enough: int | None, known: bool, n_digits: int, n: int) -> str:
    """When more seeds stop helping, and what this test set can never resolve."""
    if not known:
        return (
            "Without predictions nothing can be said of new digits. Over seeds, four times as many halve the interval."
        )
    if floor is None:
        return (
            "No spread beyond chance was found between test digits, so no number of seeds is known from which on more "
            "of them would not help."
        )
    never = (
        f"However many seeds are trained, {n_digits:,} test digits cannot tell a gap on new digits of less than about "
        f"{100 * floor:.2g} percentage points from none."
    )
    if enough is None:
        return never
    if n >= enough:
        return f"For new digits more seeds have stopped helping: {n} pairs are within a tenth of the floor. {never}"
    return f"For new digits more seeds stop helping at about {enough}: they are within a tenth of the floor. {never}"

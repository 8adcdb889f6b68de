"""Where the next of several numbers may be expected."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.stats.estimate import Basis, Estimate
from analysis.stats.paired import spread_unknown

FEWEST = 3
"""Numbers below which their spread says next to nothing: with two, the interval is 22 times as wide as they differ."""


def prediction_interval(values: ArrayLike, level: float, basis: Basis, bounds: tuple[float, float]) -> Estimate:
    """Mean of `values` [n] and the interval that holds a further one: mean ± t · SD · √(1 + 1/n), clipped to `bounds`.

    Exact where all are drawn alike from one normal distribution (Hahn 1969). Declined for fewer than three, and where
    all are equal.
    """
    d = np.asarray(values, float)
    n = d.size
    basis = basis.changed(n=n, method=f"prediction interval, t with {n - 1} degrees of freedom" if n > 1 else "mean")
    center = float(d.mean()) if n else None
    if n < FEWEST:
        return basis.declines(f"{n} {basis.unit}, {FEWEST} are needed", center)
    if reason := spread_unknown(d, basis.unit):
        return basis.declines(reason, center)
    half = stats.t.ppf((1 + level) / 2, n - 1) * d.std(ddof=1) * np.sqrt(1 + 1 / n)
    low, high = np.clip([center - half, center + half], *bounds)
    return basis.gives(center, low, high, level)

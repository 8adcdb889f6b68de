"""A model's runs as arrays, for tests that need no ledger; and the basis of a number nobody asks the basis of."""

import numpy as np

from analysis.grid import Grid, Validation
from analysis.stats.crossed import mean_squares
from analysis.stats.estimate import Basis

BASIS = Basis(method="", n=0, planned=20, unit="pairs of runs", population="seeds", runs=("a", "b"))


def grid(right, outcome="learned", *, rates=None, model="model") -> Grid:
    """From counts of right test images [rate, seed] and outcomes of that shape, or one for all."""
    right = np.array(right)
    outcome = np.broadcast_to(np.array(outcome, dtype=object), right.shape).copy()
    rates = np.arange(1.0, len(right) + 1) if rates is None else np.array(rates, float)
    run_ids = np.empty(right.shape, dtype=object)
    for rate, seed in np.ndindex(right.shape):
        run_ids[rate, seed] = f"{model} {rate} {seed}" if outcome[rate, seed] else ""
    score = np.where(outcome == "learned", right / max(right.max(initial=1), 1), np.nan)
    return Grid(model, rates, run_ids, outcome, right, Validation(rates, score, None))


def bootstrap_variance(x):
    """The exact variance of the crossed bootstrap's mean."""
    seeds, images = x.shape
    ms_s, ms_i, ms_r = mean_squares(x)
    a, b = 1 - 1 / seeds, 1 - 1 / images
    return (a * ms_s + b * ms_i + a * b * ms_r) / (seeds * images)

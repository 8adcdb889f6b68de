"""Simulated truth as a real study has it: the model of simulation.py fitted to a ledger by the method of moments."""

from __future__ import annotations

from math import exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtri

from analysis.calibration.simulation import Model, Scenario
from analysis.findings import preregistration
from analysis.frames import Frames
from analysis.grid import grids
from analysis.stats.crossed import mean_squares
from analysis.stats.selection import select
from study.errors import UserError

CLOSEST = 0.9999
"""Latent correlations are looked for up to here."""


def fit(frames: Frames) -> list[Scenario]:
    """One scenario a baseline: both models at their selected learning rates, over the runs that learned.

    Raises UserError where a model has fewer than two such runs, or no image that some run gets wrong.
    """
    used = preregistration.read(frames.config["analysis"], frames.models, frames.source)
    made = grids(frames)
    right = {}
    for name in (used.candidate, *used.baselines):
        grid = made[name]
        rate = grid.position(select(grid.validation.score, grid.validation.rates).learning_rate)
        found = frames.correct(list(grid.run_ids[rate][grid.learned[rate]])) if rate >= 0 else None
        if found is None or len(found) < 2 or found.all():
            raise UserError(
                f"{frames.source}: {name} has too few runs that learned with predictions to fit the simulation to"
            )
        right[name] = found
    ours = right[used.candidate]
    return [
        Scenario(
            f"fitted to {frames.study.name}: {used.candidate} − {name}",
            moments(ours),
            moments(right[name]),
            correlation(ours, right[name]),
        )
        for name in used.baselines
    ]


def moments(right: NDArray[np.bool_]) -> Model:
    """The model with the accuracy, and the variances between images and between seeds, of `right` [seed, image]."""
    x = right.astype(float)
    p, (images, seeds) = x.mean(), latent(x)
    scale = 1 / sqrt(1 - images - seeds)
    return Model(mu=float(ndtri(p)) * scale, tau=sqrt(images) * scale, omega=sqrt(seeds) * scale)


def latent(x: NDArray) -> tuple[float, float]:
    """Shares τ² and ω² of the latent variance 1 + τ² + ω², from the components of a crossed analysis of variance."""
    seeds, images = x.shape
    ms_s, ms_d, ms_r = mean_squares(x)
    threshold = float(ndtri(x.mean()))
    of_images, of_seeds = (ms_d - ms_r) / seeds, (ms_s - ms_r) / images
    return _solve(max(of_images, 0.0), threshold, threshold), _solve(max(of_seeds, 0.0), threshold, threshold)


def correlation(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Correlation of an image's difficulty for two models, from how often both get it right; `a`, `b` [seed, image]."""
    covariance = float(np.cov(a.mean(0), b.mean(0))[0, 1])
    between = _solve(max(covariance, 0.0), float(ndtri(a.mean())), float(ndtri(b.mean())))
    own = latent(a.astype(float))[0] * latent(b.astype(float))[0]
    return min(1.0, between / sqrt(own)) if own else 0.0


def _solve(covariance: float, h: float, k: float) -> float:
    """The latent correlation that gives two indicators, of normals below `h` and `k`, this covariance.

    Plackett (1954): the covariance is the integral of the bivariate normal density at (h, k) over the correlation.
    """

    def density(r: float) -> float:
        return exp(-(h * h - 2 * r * h * k + k * k) / (2 * (1 - r * r))) / (2 * pi * sqrt(1 - r * r))

    def missing(r: float) -> float:
        return quad(density, 0, r)[0] - covariance

    return CLOSEST if missing(CLOSEST) < 0 else float(brentq(missing, 0, CLOSEST, xtol=1e-12))

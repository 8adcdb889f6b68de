"""How far simulated accuracies spread over seeds, for tests of the simulation's parameters."""

import numpy as np
from scipy.special import ndtr, ndtri

from analysis.calibration.simulation import _normal


def seed_sd(model, images=10_000):
    """SD over seeds of the accuracy of `model` on a typical set of test images."""
    luck, weights = _normal(40)
    typical = ndtri((np.arange(images) + 0.5) / images)
    p = ndtr(model.ease(typical)[:, None] + model.omega * luck)
    mean = p.mean(0)
    within = (p * (1 - p)).mean(0) @ weights / images
    return float(np.sqrt(within + weights @ mean**2 - (weights @ mean) ** 2))

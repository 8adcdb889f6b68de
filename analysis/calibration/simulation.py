"""Simulated truth: networks whose gap is known, for checking that intervals cover and tests keep their level.

An image is right with probability Φ(μ + τ z + ω u): z its difficulty for the model, u the luck of the seed, all
standard normal; the difficulties of one image for two models are correlated, the luck of their seeds is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

IMAGES = 10_000
CERTAIN = 5.0
"""An image this many SDs from the threshold goes one way in all but 3 in 10⁷ trainings: it is not drawn."""


@dataclass(frozen=True)
class Model:
    """The parameters of one model."""

    mu: float
    tau: float
    omega: float

    @property
    def accuracy(self) -> float:
        """Expected accuracy on new images: Φ(μ / √(1 + τ² + ω²))."""
        return float(ndtr(self.mu / np.sqrt(1 + self.tau**2 + self.omega**2)))

    def with_accuracy(self, accuracy: float) -> Model:
        """The same spread around another accuracy."""
        return replace(self, mu=float(ndtri(accuracy)) * np.sqrt(1 + self.tau**2 + self.omega**2))

    def ease(self, z: NDArray) -> NDArray:
        """How far each image lies from the threshold, from its difficulties `z`, for a seed of average luck."""
        return self.mu + self.tau * z


CANDIDATE = Model(8.27, 3.50, 0.055)
"""98.85% accurate, 0.08 points of SD over seeds on 10,000 images."""
BASELINE = Model(7.34, 3.32, 0.050)
"""98.28%, 0.10 points."""


@dataclass(frozen=True)
class Scenario:
    """Two models whose gap is known."""

    name: str
    candidate: Model = CANDIDATE
    baseline: Model = BASELINE
    correlation: float = 0.7
    """Of an image's difficulties for the two models; 1 makes them the same."""
    collapse: float = 0.0
    """Share of runs that do not train; a pair needs both of its runs."""

    @property
    def gap(self) -> float:
        """On new images."""
        return self.candidate.accuracy - self.baseline.accuracy

    @property
    def identical(self) -> bool:
        """Whether the gap is 0 on every set of images."""
        return self.correlation == 1 and self.candidate == self.baseline

    def images(self, rng: np.random.Generator, images: int = IMAGES) -> tuple[NDArray, NDArray]:
        """The ease of new images [image] for candidate and baseline."""
        z, other = rng.standard_normal((2, images))
        z_baseline = self.correlation * z + np.sqrt(1 - self.correlation**2) * other  # z itself for a correlation of 1
        return self.candidate.ease(z), self.baseline.ease(z_baseline)


SCENARIOS = (
    Scenario("as in the study"),
    Scenario("correlation 0.5", correlation=0.5),
    Scenario("correlation 0.9", correlation=0.9),
    Scenario(
        "baseline with 3 times the candidate's SD",
        baseline=replace(BASELINE, omega=0.1878).with_accuracy(BASELINE.accuracy),
    ),
    Scenario("5% of runs collapse", collapse=0.05),
    Scenario("gap 0, same difficulties", baseline=CANDIDATE, correlation=1.0),
    Scenario("gap 0, other difficulties", baseline=CANDIDATE),
    Scenario("gap 0.1 points", baseline=BASELINE.with_accuracy(CANDIDATE.accuracy - 0.001)),
    Scenario("gap 1 point", baseline=BASELINE.with_accuracy(CANDIDATE.accuracy - 0.01)),
)


def accuracy_here(model: Model, ease: NDArray) -> float:
    """Expected accuracy on the images of this `ease` [image], over seeds: the mean of Φ(ease / √(1 + ω²))."""
    return float(ndtr(ease / np.sqrt(1 + model.omega**2)).mean())


def right_counts(model: Model, ease: NDArray) -> NDArray[np.float64]:
    """Distribution of the number of right images over seeds, for images of this `ease` [image]: probabilities [count].

    Given the luck u the count is Poisson-binomial; u is integrated out by Gauss–Hermite quadrature, so drawing from
    the result is drawing every image of every run.
    """
    luck, weights = _normal(30)
    uncertain = ease[np.abs(ease) < CERTAIN]
    surely_wrong = int(np.count_nonzero(ease <= -CERTAIN))
    wrong = ndtr(-(uncertain[:, None] + model.omega * luck))
    most = wrong.sum(0).max()
    size = min(uncertain.size, int(most + 12 * np.sqrt(most) + 20)) + 1
    errors = np.zeros((size, luck.size))
    errors[0] = 1
    for p in wrong:
        errors[1:] += p * (errors[:-1] - errors[1:])
        errors[0] *= 1 - p
    found = np.zeros(ease.size + 1)
    first = surely_wrong + np.arange(size)
    found[ease.size - first] = errors @ weights
    return found / found.sum()


def draw(probabilities: NDArray, shape: int | Sequence[int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Independent draws of positions in `probabilities`, by inversion."""
    return np.searchsorted(np.cumsum(probabilities), rng.random(shape), side="right").clip(max=probabilities.size - 1)


def differences(scenario: Scenario, seeds: int, rng: np.random.Generator, images: int = IMAGES) -> NDArray[np.int8]:
    """Fresh seeds on fresh images, int8 [seed, image]: 1 where only the candidate is right, −1 where only the baseline.

    Left out are those of the `images` that are surely right, or surely wrong, for both: their difference is 0.
    """
    sides = scenario.images(rng, images)
    uncertain = [np.abs(ease) < CERTAIN for ease in sides]
    may_differ = uncertain[0] | uncertain[1] | ((sides[0] > 0) != (sides[1] > 0))
    right = []
    for model, ease, drawn in zip((scenario.candidate, scenario.baseline), sides, uncertain, strict=True):
        luck = model.omega * rng.standard_normal((seeds, 1), dtype=np.float32)
        noise = rng.standard_normal((seeds, np.count_nonzero(drawn)), dtype=np.float32)
        own = np.repeat((ease > 0)[None, may_differ], seeds, axis=0)
        own[:, drawn[may_differ]] = noise < ease[drawn].astype(np.float32) + luck
        right.append(own.view(np.int8))
    return right[0] - right[1]


def _normal(nodes: int) -> tuple[NDArray, NDArray]:
    """Nodes and weights of Gauss–Hermite quadrature for the standard normal."""
    x, w = hermegauss(nodes)
    return x, w / w.sum()

"""Simulated truth: networks whose gap is known, for checking that intervals cover and tests keep their level.

An image is right with probability Φ(μ + τ z + ω u): z its difficulty for the model, standard normal, u the luck of
the seed, of mean 0 and SD 1; the difficulties of one image for two models are correlated, the luck of their seeds is
not. Where images come by writers, those of one writer share a part of their difficulty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr, ndtri

IMAGES = 10_000
CERTAIN = 5.0
"""An image this many SDs from the threshold goes one way in all but 3 in 10⁷ trainings: it is not drawn."""

WRITERS = 297
"""As many as wrote MNIST's 10,000 test images."""

ATOMS = (np.arange(101) + 0.5) / 101
"""Quantiles that stand for a distribution of luck that is not normal: each as likely as another."""


@dataclass(frozen=True)
class Model:
    """The parameters of one model."""

    mu: float
    tau: float
    omega: float
    luck: str = "normal"
    """How the luck of seeds is distributed: see `luck`."""

    @property
    def accuracy(self) -> float:
        """Expected accuracy on new images: Φ(μ / √(1 + τ² + ω²)) if luck is normal."""
        if self.luck == "normal":
            return float(ndtr(self.mu / np.sqrt(1 + self.tau**2 + self.omega**2)))
        values, weights = luck(self.luck)
        return float(weights @ ndtr((self.mu + self.omega * values) / np.sqrt(1 + self.tau**2)))

    def with_accuracy(self, accuracy: float) -> Model:
        """The same spread around another accuracy, for normal luck."""
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
    writers: float = 0.0
    """Share of the variance of an image's difficulty that it has in common with the others of its writer."""

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
        if self.writers:
            shared = rng.standard_normal((2, WRITERS))[:, writers(images)]
            z, other = np.sqrt(1 - self.writers) * np.array([z, other]) + np.sqrt(self.writers) * shared
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

UNEVEN = (
    *(
        Scenario(f"baseline's seeds {name}, 3 times the SD", baseline=replace(BASELINE, omega=0.1878, luck=name))
        for name in ("lognormal", "bimodal", "heavy-tailed")
    ),
    Scenario("images by writers", writers=0.2),
    Scenario(
        "images by writers, baseline's seeds bimodal",
        baseline=replace(BASELINE, omega=0.1878, luck="bimodal"),
        writers=0.2,
    ),
)
"""What the intervals do not suppose: seeds whose luck is skewed, 10% bad, or heavy-tailed, and dependent images."""


TIES = (0.0, 1.0, 4.0)
"""How far two learning rates that tie on validation images lie apart on test images, in SDs over seeds."""


@cache
def luck(name: str) -> tuple[NDArray, NDArray]:
    """Values and probabilities of a seed's luck; for normal luck those of quadrature.

    lognormal: a tail of bad seeds, skewness −6 before it is cut at the last quantile; bimodal: one seed in ten is bad;
    heavy-tailed: t with three degrees of freedom.
    """
    if name == "normal":
        return _normal(30)
    if name == "bimodal":
        return np.array([-3.0, 1 / 3]), np.array([0.1, 0.9])
    values = -np.exp(ndtri(ATOMS)) if name == "lognormal" else stats.t(3).ppf(ATOMS)
    return (values - values.mean()) / values.std(), np.full(ATOMS.size, 1 / ATOMS.size)


@cache
def writers(images: int) -> NDArray[np.int64]:
    """Who wrote each image, [image] from 0: WRITERS of unequal size, about as those of MNIST's test images."""
    shares = np.exp(0.55 * ndtri((np.arange(WRITERS) + 0.5) / WRITERS))
    ends = np.round(images * np.cumsum(shares) / shares.sum()).astype(int)
    return np.repeat(np.arange(WRITERS), np.diff(ends, prepend=0))


def accuracy_here(model: Model, ease: NDArray) -> float:
    """Expected accuracy on the images of this `ease` [image] over seeds: the mean of Φ(ease / √(1 + ω²)) if normal."""
    if model.luck != "normal":
        values, weights = luck(model.luck)
        return float(ndtr(ease[:, None] + model.omega * values).mean(0) @ weights)
    return float(ndtr(ease / np.sqrt(1 + model.omega**2)).mean())


def right_counts(model: Model, ease: NDArray) -> NDArray[np.float64]:
    """Distribution of the number of right images over seeds, for images of this `ease` [image]: probabilities [count].

    Given the luck u the count is Poisson-binomial; u is integrated out, normal luck by Gauss–Hermite quadrature, so
    drawing from the result is drawing every image of every run.
    """
    values, weights = luck(model.luck)
    uncertain = ease[np.abs(ease) < CERTAIN]
    surely_wrong = int(np.count_nonzero(ease <= -CERTAIN))
    wrong = ndtr(-(uncertain[:, None] + model.omega * values))
    most = wrong.sum(0).max()
    size = min(uncertain.size, int(most + 12 * np.sqrt(most) + 20)) + 1
    errors = np.zeros((size, values.size))
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


def differences(
    scenario: Scenario, seeds: int, rng: np.random.Generator, images: int = IMAGES
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Fresh seeds on fresh images, int8 [seed, image]: 1 where only the candidate is right, −1 where only the baseline.

    Left out are those of the `images` that are surely right, or surely wrong, for both: their difference is 0. Second:
    which of the images are there.
    """
    sides = scenario.images(rng, images)
    uncertain = [np.abs(ease) < CERTAIN for ease in sides]
    may_differ = uncertain[0] | uncertain[1] | ((sides[0] > 0) != (sides[1] > 0))
    right = []
    for model, ease, drawn in zip((scenario.candidate, scenario.baseline), sides, uncertain, strict=True):
        if model.luck == "normal":
            offset = model.omega * rng.standard_normal((seeds, 1), dtype=np.float32)
        else:
            values, weights = luck(model.luck)
            offset = np.float32(model.omega) * rng.choice(values, (seeds, 1), p=weights).astype(np.float32)
        noise = rng.standard_normal((seeds, np.count_nonzero(drawn)), dtype=np.float32)
        own = np.repeat((ease > 0)[None, may_differ], seeds, axis=0)
        own[:, drawn[may_differ]] = noise < ease[drawn].astype(np.float32) + offset
        right.append(own.view(np.int8))
    return right[0] - right[1], may_differ


def _normal(nodes: int) -> tuple[NDArray, NDArray]:
    """Nodes and weights of Gauss–Hermite quadrature for the standard normal."""
    x, w = hermegauss(nodes)
    return x, w / w.sum()

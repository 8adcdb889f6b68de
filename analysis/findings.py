"""All numbers of the analysis in one object: the schema of findings.json. collect.py fills it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from analysis import digits, gap, literature, planning, preregistration, robustness, sweep, variance
from analysis.choice import Choice
from analysis.estimate import Basis, Estimate

FORMAT = 2
"""Version of findings.json; it goes up when a key changes its meaning or goes away."""


class Section(BaseModel):
    """A part of the findings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Section):
    """A model that the study compares."""

    name: str
    n_parameters: int
    macs: int
    """Multiply-accumulates of one image's forward pass."""


class Settings(Section):
    """The analysis block that was used, with its defaults filled in."""

    candidate: str
    baselines: tuple[str, ...]
    confidence: float
    margin: float
    resamples: int
    seed: int

    @property
    def verdict_level(self) -> float:
        """Confidence that a verdict is held to: 1 − α / B over B baselines (Bonferroni)."""
        return 1 - (1 - self.confidence) / max(1, len(self.baselines))


class About(Section):
    """What was studied."""

    name: str
    dataset: str
    dataset_sha256: str
    n_train: int
    n_val: int
    n_test: int
    splits: int
    """Ways in which the training file was split into training and validation images."""
    classes: int
    models: tuple[Model, ...]
    learning_rates: tuple[float, ...]
    epochs: int
    batch_size: int
    recipe: Mapping[str, Any]
    planned: int
    """Runs planned, of the last launch's recipe."""
    set_aside: int
    """Runs planned under another recipe, in no number here."""
    problems: int
    """Files that are no valid record or predictions, in no number here."""
    settings: Settings


class Counts(Section):
    """What became of one configuration's runs. `collapsed` runs are among the finished."""

    model: str
    learning_rate: float
    planned: int
    finished: int
    diverged: int
    failed: int
    missing: int
    collapsed: int


class Configuration(Section):
    """A model at a learning rate over seeds: means of its runs that trained, t intervals."""

    model: str
    learning_rate: float
    test_accuracy: Estimate
    val_accuracy: Estimate
    test_loss: Estimate
    test_accuracy_sd: float | None
    val_accuracy_sd: float | None


class Comparison(Section):
    """The candidate against one baseline, each at its selected learning rate: the primary estimand."""

    baseline: str
    candidate_rate: float | None
    baseline_rate: float | None
    candidate_error: float | None
    """Mean test error (a fraction) over the pairs."""
    baseline_error: float | None
    pairs: int
    planned: int
    not_trained: Mapping[str, int]
    """Model → runs at its selected rate that diverged or collapsed."""
    absent: Mapping[str, int]
    """Model → runs at its selected rate that failed or are missing; at all rates, where none could be selected."""
    seeds: gap.Gap
    """Over seeds: this test set."""
    digits: Estimate
    """Over seeds and digits: new digits of the same kind; declined without predictions."""
    digits_verdict: Estimate
    """The same at the level that the verdict needs, 1 − α / B."""
    mcnemar: gap.McNemar | None
    """Per pair of networks; null without predictions."""
    p_holm: float | None
    """The sign-flip test's p-value, adjusted by Holm over all baselines; null where there is none."""
    sensitivity: Mapping[str, Estimate]
    """The gap by other rules of selection and other treatments of runs that did not train, by name."""
    best_of_n: tuple[Estimate, ...]
    """Expected gap when each model uses the validation-best of n learning rates, n = 1, 2, …: over all n-subsets of
    the rates with an outcome of both models."""
    independent: bool
    """Whether no two pairs share initial weights or batch order; without it there is no verdict."""
    unqualified: bool
    """Whether both populations' intervals exclude 0 at the verdict's level, and the pairs are independent: what an
    unqualified "more accurate" needs."""


class Digits(Section):
    """The same comparison on the digits themselves: null and empty without predictions or pairs."""

    crossed: digits.Crossed | None
    classes: tuple[digits.ClassGap, ...]
    """By class; p-values adjusted by Holm over all baselines and classes."""
    hard: digits.HardDigits | None


class Confusion(Section):
    """What a model takes each class for at its selected rate."""

    shares: tuple[tuple[float, ...], ...]
    """Share of each true class [row] predicted as each class [column], over all runs' predictions."""
    rests_on: Basis


class Variance(Section):
    """Where one model's spread comes from, by a factorial of init, order and split seeds at its selected rate."""

    components: variance.Variance
    against_itself: variance.SelfComparison


class Findings(Section):
    """Everything the analysis says."""

    format: int = FORMAT
    about: About
    preregistration: preregistration.Preregistration
    completeness: tuple[Counts, ...]
    configurations: tuple[Configuration, ...]
    selection: Mapping[str, Choice]
    """By model."""
    comparisons: tuple[Comparison, ...]
    robustness: Mapping[str, robustness.Robustness]
    """Baseline → the same comparison, asked in many ways."""
    sweep: Mapping[str, sweep.Sweep]
    """Baseline → the gap across learning rates; p-values adjusted by Holm over all baselines and rates."""
    digits: Mapping[str, Digits]
    """Baseline → seeds × digits, classes, hard digits."""
    confusion: Mapping[str, Confusion]
    """By model."""
    planning: Mapping[str, planning.Planning]
    """Baseline → what more seeds would bring."""
    variance: Mapping[str, Variance]
    """By model; empty unless the study's seeds are a factorial."""
    random_halves: Mapping[str, Estimate]
    """Model → how often random halves of its runs at the selected rate differ: a smoke test of the pipeline."""
    literature: tuple[literature.Reference, ...]
    warnings: tuple[str, ...]
    run_sets: Mapping[str, tuple[str, ...]]
    """Key → run ids: what each finding rests on."""
    answer: str = ""

    def to_json(self) -> str:
        """The text of findings.json: the same bytes for the same ledger and analysis block."""
        return self.model_dump_json(indent=1) + "\n"

"""All numbers of the analysis in one object: the schema of findings.json. build.py fills it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from analysis.findings import preregistration
from analysis.stats import paired, robustness, sample_size, sweep, variance
from analysis.stats.crossed import ClassGap, Crossed, HardImages
from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.selection import Choice
from analysis.stats.variance import SeedSpread
from study.config import ResolvedAnalysis

FORMAT = 4
"""Version of findings.json; it goes up when a key changes its meaning or goes away.

4: `robustness.*.distinct` and `same_sign` count the estimates that differ from the primary one, those with fewer
learning rates among them; where nothing learned, no rate is selected.
3: test images for digits (`images`, `n_images`, "seeds and test images"), `not_learned` for runs that diverged or
collapsed, error rates, `outperforming`; `seeds` in groups (`verdict`, `effect`, `checks`); a specification's numbers
in its `gap`; verdicts need the exact test too, and there is one for new images; `settings` is the whole analysis
block; `run_sets` has hashes of run ids as keys.
2: `selection.*.common_seeds`, `comparisons.*.independent`.
"""


class Model(Frozen):
    """A model that the study compares."""

    name: str
    """As the config names it."""
    constructor: str | None = None
    """The built-in model, or the user's import path, that it is made of; null where that is its name."""
    n_parameters: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one image's forward pass."""


class Clusters(Frozen):
    """Test images that belong together, such as those of one writer."""

    count: int
    """Clusters."""
    smallest: int
    """Images in the smallest ..."""
    largest: int
    """... and in the largest."""
    sha256: str
    """Checksum of the ids used, numbered by first appearance."""


class About(Frozen):
    """What was studied."""

    name: str
    """Of the study."""
    dataset: str
    """Name of the dataset, or its folder."""
    dataset_sha256: str
    """Hash of its files."""
    n_train: int
    """Images trained on."""
    n_val: int
    """Images that choose the learning rate."""
    n_test: int
    """Images that measure, and choose nothing."""
    clusters: Clusters | None
    """Which of the test images belong together; null where nobody says, and they are taken as independent."""
    splits: int
    """Ways in which the training file was split into training and validation images."""
    classes: int
    """Classes to tell apart."""
    models: tuple[Model, ...]
    """All models, in the order of the config."""
    learning_rates: tuple[float, ...]
    """All rates tried, ascending."""
    epochs: int
    """Epochs planned of every run."""
    batch_size: int
    """Images in a step of training."""
    recipe: Mapping[str, Any]
    """Everything else that all runs share."""
    planned: int
    """Runs planned, of the last launch's recipe."""
    set_aside: int
    """Runs planned under another recipe, in no number here."""
    problems: int
    """Files that are no valid record or predictions, in no number here."""
    settings: ResolvedAnalysis
    """The analysis block used, its nulls spelt out."""


class Counts(Frozen):
    """What became of one configuration's runs. `collapsed` runs are among the finished."""

    model: str
    """Model."""
    learning_rate: float
    """Learning rate."""
    planned: int
    """Runs planned."""
    finished: int
    """Runs that reached the last epoch."""
    diverged: int
    """Runs whose numbers stopped being finite."""
    failed: int
    """Runs that ended in an error."""
    missing: int
    """Runs without a record."""
    collapsed: int
    """Finished runs with a final training accuracy below twice guessing."""


class Configuration(Frozen):
    """A model at a learning rate over seeds: means of its runs that learned, t intervals."""

    model: str
    """Model."""
    learning_rate: float
    """Learning rate."""
    test_accuracy: Estimate
    """Mean final test accuracy."""
    val_accuracy: Estimate
    """Mean final validation accuracy."""
    train_accuracy: Estimate
    """Mean final accuracy on the images trained on, in evaluation mode."""
    test_loss: Estimate
    """Mean final test loss, nats."""
    val_loss: Estimate
    """Mean final validation loss, nats."""
    train_loss: Estimate
    """Mean final loss on the images trained on, in evaluation mode, nats."""
    test_accuracy_median: float | None = None
    """Median final test accuracy; null where no run learned."""
    test_accuracy_range: tuple[float, float] | None = None
    """The lowest and the highest; null where no run learned."""
    test_accuracy_sd: float | None
    """SD over runs (n − 1); null for fewer than two."""
    val_accuracy_sd: float | None
    """SD over runs (n − 1); null for fewer than two."""
    train_accuracy_sd: float | None
    """SD over runs (n − 1); null for fewer than two."""
    test_loss_sd: float | None
    """SD over runs (n − 1); null for fewer than two."""
    val_loss_sd: float | None
    """SD over runs (n − 1); null for fewer than two."""
    train_loss_sd: float | None
    """SD over runs (n − 1); null for fewer than two."""


class Comparison(Frozen):
    """The candidate against one baseline, each at its selected learning rate: the primary estimand."""

    baseline: str
    """The model compared with."""
    candidate_rate: float | None
    """The candidate's selected learning rate; null where none could be."""
    baseline_rate: float | None
    """The baseline's selected learning rate; null where none could be."""
    candidate_error_rate: float | None
    """Mean over the pairs, a fraction of the test images."""
    baseline_error_rate: float | None
    """Mean over the pairs, a fraction of the test images."""
    pairs: int
    """Pairs in which both models learned."""
    planned: int
    """Pairs planned."""
    not_learned: Mapping[str, int]
    """Model → runs at its selected rate that diverged or collapsed."""
    absent: Mapping[str, int]
    """Model → runs at its selected rate that failed or are missing; at all rates, where none could be selected."""
    seeds: paired.Gap
    """Over seeds: these test images."""
    images: Estimate
    """Over seeds and test images: new images of the same kind; declined without predictions."""
    images_verdict: Estimate
    """The same at the level that the verdict needs, 1 − α / B."""
    verdict_for_new_images: str | None
    """The verdict from that interval; null where it is declined, or the pairs are not independent."""
    mcnemar: paired.McNemar | None
    """Per pair of networks; null without predictions."""
    p_holm: float | None
    """The sign-flip test's p-value, adjusted by Holm over all baselines; null where there is none."""
    sensitivity: Mapping[str, Estimate]
    """The gap by other rules of selection and other treatments of runs that did not learn, by name."""
    best_of_n: tuple[Estimate, ...]
    """Expected gap when each model uses the validation-best of n learning rates, n = 1, 2, …: over all n-subsets of
    the rates with an outcome of both models."""
    independent: bool
    """Whether no two pairs share initial weights or batch order; without it there is no verdict."""
    unqualified: bool
    """Whether the verdicts for these test images and for new ones are both better, or both worse: what an unqualified
    "more accurate" needs."""

    @property
    def verdicts(self) -> str | None:
        """Both verdicts as every place prints them; None where there is none."""
        here, new = self.seeds.verdict.words, self.verdict_for_new_images
        if here is None:
            return None
        if here == new:
            return f"for these test images and for new ones: {here}"
        return f"for these test images: {here}; for new images: {new or 'no verdict'}"

    @property
    def equivalent(self) -> bool:
        """Whether both verdicts call the models practically equivalent."""
        return self.seeds.verdict.words == self.verdict_for_new_images == "practically equivalent"

    @property
    def scored_at_chance(self) -> Estimate | None:
        """The gap with runs that did not learn scored at chance; None where all at the selected rates learned."""
        found = self.sensitivity["scored_at_chance"]
        return found if any(self.not_learned.values()) and found.estimate is not None else None


class Images(Frozen):
    """The same comparison image by image: null and empty without predictions or pairs."""

    crossed: Crossed | None
    """The gap over seeds and test images."""
    classes: tuple[ClassGap, ...]
    """By class; p-values adjusted by Holm over all baselines and classes."""
    hard: HardImages | None
    """Test images that only one of the models classifies correctly."""


class Confusion(Frozen):
    """What a model takes each class for at its selected rate."""

    shares: tuple[tuple[float, ...], ...]
    """Share of each true class [row] predicted as each class [column], over all runs' predictions."""
    rests_on: Basis
    """The runs whose predictions these are."""


class Variance(Frozen):
    """Where one model's spread comes from, by a factorial of init, order and split seeds at its selected rate."""

    components: variance.Variance
    """Components of variance."""
    against_itself: variance.SelfComparison
    """The genuine A/A test."""


class Published(Frozen):
    """One published result beside ours."""

    model: str
    """Our model beside it."""
    source: str
    """Who published it."""
    accuracy: float
    """Published test accuracy, a fraction."""
    note: str
    """How its recipe differs."""
    ours: Estimate | None
    """Our mean test accuracy at the selected rate; null without one."""


class Findings(Frozen):
    """Everything the analysis says."""

    format: int = FORMAT
    """Version of this schema; it goes up when a key changes its meaning or goes away."""
    about: About
    """What was studied, and by which settings."""
    preregistration: preregistration.Preregistration
    """The analysis declared against the one made."""
    completeness: tuple[Counts, ...]
    """What became of every configuration's runs."""
    configurations: tuple[Configuration, ...]
    """Every model at every learning rate."""
    selection: Mapping[str, Choice]
    """By model."""
    comparisons: tuple[Comparison, ...]
    """The candidate against every baseline."""
    robustness: Mapping[str, robustness.Robustness]
    """Baseline → the same comparison, asked in many ways."""
    sweep: Mapping[str, sweep.Sweep]
    """Baseline → the gap across learning rates; p-values adjusted by Holm over all baselines and rates."""
    images: Mapping[str, Images]
    """Baseline → seeds × test images, classes, hard images."""
    confusion: Mapping[str, Confusion]
    """By model."""
    planning: Mapping[str, sample_size.Planning]
    """Baseline → what more seeds would bring."""
    variance: Mapping[str, Variance]
    """By model; empty unless the study's seeds are a factorial."""
    seed_spread: Mapping[str, SeedSpread] = {}
    """Model → how far its runs at the selected rate spread over seeds, and how much of that is the luck of these test
    images; models whose runs share initial weights or batch order have none."""
    random_halves: Mapping[str, Estimate]
    """Model → how often random halves of its runs at the selected rate differ: a smoke test of the pipeline."""
    literature: tuple[Published, ...]
    """Published results beside ours."""
    warnings: tuple[str, ...]
    """What a reader must know before quoting a number."""
    run_sets: Mapping[str, tuple[str, ...]]
    """Hash of the run ids → the run ids: what each finding rests on."""
    answer: str = ""
    """The answer in words, a paragraph per baseline; before them, of a factorial, one per model on its spread."""

    def accuracy(self, model: str) -> Estimate | None:
        """Mean test accuracy of a model at its selected rate; None where none could be selected."""
        rate = self.selection[model].mean.learning_rate
        of_model = {c.learning_rate: c.test_accuracy for c in self.configurations if c.model == model}
        return None if rate is None else of_model[rate]

    def to_json(self) -> str:
        """The text of findings.json: the same bytes for the same ledger and analysis block."""
        return self.model_dump_json(indent=1) + "\n"


def json_schema() -> str:
    """The JSON schema of findings.json, as committed beside this file.

    To write it anew: python -c "from analysis.findings.schema import json_schema; print(json_schema(), end='')"
    """
    return json.dumps(Findings.model_json_schema(), indent=1, ensure_ascii=False) + "\n"

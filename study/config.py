"""StudyConfig: everything that one config file describes, typed and strict. Reading the file: config_file.py."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from study import redaction
from study.seeding import generator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
ModelName = Annotated[
    str, Field(max_length=90, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(:[A-Za-z_][A-Za-z0-9_]*)?$")
]
"""No longer, so that with learning rate, seed or configuration it still is a whole name for Weights & Biases."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

MOST_RUNS = 1_000_000
"""Runs a study may plan: more than that is a slip of the pen, and would fill the memory before anything is said."""


class Mistake(ValueError):
    """A mistake that spans several keys: carries the key it is reported under."""

    def __init__(self, key: str, found: object, allowed: str) -> None:
        super().__init__(allowed)
        self.key, self.found, self.allowed = key, found, allowed


class Block(BaseModel):
    """A part of the config: unknown keys, wrong types and non-finite numbers are mistakes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class LogUniform(Block):
    """Random search: `count` learning rates, log-uniform between two limits, rounded to four digits."""

    log_uniform: tuple[Positive, Positive]
    count: Annotated[int, Field(ge=1, le=10_000)]
    seed: Seed = 0

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        if not self.log_uniform[0] < self.log_uniform[1]:
            raise ValueError("log_uniform: two limits, the smaller first")
        if (distinct := len(self.rates())) < self.count:
            raise ValueError(f"wider limits, or a count of at most {distinct}: no more rates of four digits were drawn")
        return self

    def rates(self) -> tuple[float, ...]:
        """The learning rates drawn, each once: a larger count adds to those of a smaller one."""
        low, high = map(math.log, self.log_uniform)
        drawn = np.exp(generator("learning_rates", self.seed).uniform(low, high, 10 * self.count))
        return tuple(dict.fromkeys(float(f"{rate:.4g}") for rate in drawn))[: self.count]


class Factorial(Block):
    """Seeds of the variance study: every combination of so many init, order and split seeds."""

    init: Annotated[int, Field(ge=1, le=1000)]
    order: Annotated[int, Field(ge=1, le=1000)]
    split: Annotated[int, Field(ge=1, le=1000)] = 1


def _rates(value: object) -> str:
    """Which alternative of `learning_rates` a value is meant as. Tags are bracketed so that no key can equal one."""
    return "<search>" if isinstance(value, Mapping | LogUniform) else "<list>"


def _seeds(value: object) -> str:
    if isinstance(value, Mapping | Factorial):
        return "<factorial>"
    return "<list>" if isinstance(value, list | tuple) else "<count>"


def _width(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<count>"


Rates = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=10_000)]
SeedList = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100_000)]
SeedCount = Annotated[int, Field(ge=1, le=100_000)]
Seeds = int | tuple[int, ...] | Factorial


class Training(Block):
    """The recipe: one for all models of a study."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    validation_size: Annotated[int, Field(ge=1)] = 5000
    split_seed: Seed = 0


class Launching(Block):
    """Machine knobs: none of them is part of a run's identity."""

    cpus_per_trial: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0, le=64)] = 0
    pack: Annotated[
        Annotated[Literal["learning_rates"], Tag("<word>")] | Annotated[int, Field(ge=1, le=100_000), Tag("<count>")],
        Discriminator(_width),
    ] = "learning_rates"
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """At most so many packs at a time; null: as many as the CPUs and GPUs allow."""
    max_failures: Annotated[int, Field(ge=0, le=1000)] = 2
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60
    """A death costs at most so much training, or an epoch where that takes longer."""


class Wandb(Block):
    """Where Weights & Biases logs. A key never goes here: WANDB_API_KEY or `wandb login`."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: Name = "lenet5-vs-mlp"
    entity: Name | None = None


class Reference(Block):
    """A published result to set beside ours."""

    source: str
    accuracy: Annotated[float, Field(ge=0, le=1)]
    note: str = ""


class Analysis(Block):
    """The study's pre-registration: its hash is stored with the first launch."""

    candidate: ModelName | None = None
    """Null: the first model."""
    baselines: Annotated[tuple[ModelName, ...], Field(min_length=1)] | None = None
    """Null: all other models."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    margin: Fraction = 0.001
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    seed: Seed = 0
    references: dict[str, tuple[Reference, ...]] = {}
    expected: dict[str, tuple[Fraction, Fraction]] = {}
    """Test accuracy that each model is expected to reach at its selected rate; outside it, the report warns."""


class StudyConfig(Block):
    """Everything that one config file describes."""

    name: Name
    dataset: Annotated[str, Field(min_length=1, max_length=4096)] = "mnist"
    models: Annotated[tuple[ModelName, ...], Field(min_length=1, max_length=1000)]
    learning_rates: Annotated[
        Annotated[Rates, Tag("<list>")] | Annotated[LogUniform, Tag("<search>")], Discriminator(_rates)
    ]
    seeds: Annotated[
        Annotated[SeedCount, Tag("<count>")]
        | Annotated[SeedList, Tag("<list>")]
        | Annotated[Factorial, Tag("<factorial>")],
        Discriminator(_seeds),
    ]
    training: Training = Training()
    launch: Launching = Launching()
    wandb: Wandb = Wandb()
    storage: Annotated[str, Field(min_length=1, max_length=4096)] = "results"
    analysis: Analysis = Analysis()

    @field_validator("name")
    @classmethod
    def _no_parent(cls, name: str) -> str:
        if ".." in name:
            raise ValueError("a name without '..'")
        return name

    @field_validator("storage", "dataset")
    @classmethod
    def _home(cls, path: str) -> str:
        return os.path.expanduser(path)

    @field_validator("storage")
    @classmethod
    def _no_secret(cls, storage: str) -> str:
        if redaction.in_address(storage):
            raise Mistake("storage", redaction.mask(storage), redaction.ALLOWED)
        return storage

    @field_validator("models", "learning_rates", "seeds")
    @classmethod
    def _unique(cls, values: object) -> object:
        if isinstance(values, tuple) and (twice := sorted(v for v, n in Counter(values).items() if n > 1)):
            raise ValueError(f"each value once ({', '.join(map(str, twice[:3]))} is there twice)")
        return values

    @model_validator(mode="after")
    def _analysed_models_exist(self) -> Self:
        baselines = self.analysis.baselines or ()
        named = {"candidate": [self.candidate], "baselines": baselines}
        named |= {"references": self.analysis.references, "expected": self.analysis.expected}
        for key, models in named.items():
            for model in models:
                if model not in self.models:
                    raise Mistake(f"analysis.{key}", model, f"one of models: {', '.join(self.models)}")
        if len(set(baselines)) < len(baselines) or self.candidate in baselines:
            raise Mistake("analysis.baselines", list(baselines), "models other than the candidate, each once")
        for model, (low, high) in self.analysis.expected.items():
            if low > high:
                raise Mistake(f"analysis.expected.{model}", [low, high], "two accuracies, the lower first")
        return self

    @model_validator(mode="after")
    def _seeds_fit(self) -> Self:
        seeds, split_seed = self.seeds, self.training.split_seed
        if isinstance(seeds, Factorial):
            if split_seed != 0:
                raise Mistake("training.split_seed", split_seed, "0, since seeds: {split: n} sets the splits")
            n_seeds = seeds.init * seeds.order * seeds.split
        else:
            n_seeds = seeds if isinstance(seeds, int) else len(seeds)
        factors = len(self.models), len(self.learning_rate_grid()), n_seeds
        if math.prod(factors) > MOST_RUNS:
            found = " × ".join(f"{n:,}" for n in factors)
            raise Mistake("seeds", f"{found} runs", f"at most {MOST_RUNS:,} (models × learning rates × seeds)")
        return self

    @property
    def candidate(self) -> str:
        """The model whose advantage the study measures."""
        return self.analysis.candidate or self.models[0]

    def learning_rate_grid(self) -> tuple[float, ...]:
        """The learning rates, drawn where the config asks for random search."""
        if not isinstance(self.learning_rates, LogUniform):
            return self.learning_rates
        return self.learning_rates.rates()

    def resolved(self) -> dict[str, Any]:
        """The whole config as plain JSON values, defaults filled in."""
        return self.model_dump(mode="json")

    def analysis_sha256(self) -> str:
        """Hash of the analysis block: what the study declared before it saw any result."""
        text = json.dumps(self.resolved()["analysis"], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

"""StudyConfig: everything that one config file describes, typed and strict. Reading the file: config_file.py.

A field's docstring is its meaning, its Allowed says what it may hold: messages and configs/README.md repeat both.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from study import redaction
from study.seeding import generator


@dataclass(frozen=True)
class Allowed:
    """What a field may hold, where that takes more words than its type and limits."""

    words: str


Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"),
    Allowed("1 to 80 letters, digits, '.', '_' or '-', beginning with a letter or digit"),
]
BUILT_IN = ("lenet5", "mlp", "mlp_matched")
"""Models that come with the package, built in training/models.py."""
Source = Annotated[
    str,
    Field(max_length=90, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*(:[A-Za-z_][A-Za-z0-9_]*)?$"),
    Allowed(f"{', '.join(BUILT_IN)}, or an import path such as mypackage.nets:MyNet, of at most 90 letters"),
]
"""What makes a model. Short enough that W&B cuts no name made of it, a learning rate and a seed."""
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,89}$"), Allowed("the name of one of models")]
"""How a model is called: its source, or a name of the user's."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

MOST_RUNS = 1_000_000
"""Runs a study may plan: more is surely a mistake, and would exhaust the memory first."""


class Mistake(ValueError):
    """A mistake that spans several keys: carries the key it is reported under."""

    def __init__(self, key: str, found: object, allowed: str) -> None:
        super().__init__(allowed)
        self.key, self.found, self.allowed = key, found, allowed


def sha256(value: object) -> str:
    """SHA-256 of a value's canonical JSON: sorted keys, no white space, shortest floats."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Block(BaseModel):
    """A part of the config: unknown keys, wrong types and non-finite numbers are mistakes."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Model(Block):
    """One model of the study, where its source alone does not say it all."""

    name: Name
    """What the model is called in tables, figures and logs."""
    model: Source
    """What makes it: a built-in model, or a class or function of the user's that gives a torch.nn.Module."""
    arguments: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], JsonValue],
        Allowed("argument: value pairs, as the model's constructor takes them"),
    ] = {}
    """What it is called with. Built-in models also take these; see `python -m study models`."""
    input: Literal["flat", "rows"] | None = None
    """How it takes images: `flat`, [N, channels·height·width], or, of one channel, `rows`, [N, height, width]. By
    default [N, channels, height, width]."""
    output: Annotated[Annotated[int, Field(ge=0, le=1000)] | str | None, Allowed("a position, or a key")] = None
    """Which output holds the logits, of a model that gives several: its position, or its key."""

    @field_validator("arguments")
    @classmethod
    def _finite(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            json.dumps(arguments, allow_nan=False)
        except ValueError:
            raise ValueError("finite numbers") from None
        return arguments

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if self.name in BUILT_IN and (self.model != self.name or self.arguments or self.input):
            raise Mistake("models", self.name, "a name of its own: this one is a built-in model's")
        return self

    @classmethod
    def of(cls, model: str | Self) -> Self:
        """The model that an item of `models` stands for: a source alone is also its name."""
        return model if isinstance(model, cls) else cls.model_construct(name=model, model=model)


class Images(Block):
    """The dataset, where its name alone does not say it all."""

    name: Annotated[str, Field(min_length=1, max_length=4096)]
    """A dataset's name, or the path of a folder of IDX files or of a .npz file."""
    pad: Annotated[int, Field(ge=0, le=1000)] = 0
    """Background pixels to add on each side of every image: 2 makes 28×28 images 32×32."""
    channels: Annotated[Literal[1, 3] | None, Allowed("1 or 3")] = None
    """Channels that the models see: 3 repeats a grey image. Null: those that the images have."""
    normalise: bool = True
    """Whether pixels are normalised to mean 0 and SD 1 over the training images; else they lie in [0, 1]."""

    @field_validator("name")
    @classmethod
    def _home(cls, path: str) -> str:
        return os.path.expanduser(path)


class LogUniform(Block):
    """Random search: this many learning rates, log-uniform between two limits, rounded to four digits."""

    log_uniform: Annotated[tuple[Positive, Positive], Allowed("two numbers above 0, the smaller first")]
    """The limits."""
    count: Annotated[int, Field(ge=1, le=10_000)]
    """How many are drawn."""
    seed: Seed = 0
    """The seed they are drawn by."""

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
    """Seeds of the variance study: every combination of this many init, order and split seeds."""

    init: Annotated[int, Field(ge=1, le=1000)]
    """How many initial weights."""
    order: Annotated[int, Field(ge=1, le=1000)]
    """How many orders of the batches."""
    split: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many splits into training and validation images."""


def _kind(value: object) -> str:
    """Which alternative of a field a value is meant as. Tags are bracketed so that no key can equal one."""
    if isinstance(value, Mapping | Block):
        return "<block>"
    if isinstance(value, list | tuple):
        return "<list>"
    return "<word>" if isinstance(value, str) else "<number>"


Seeds = int | tuple[int, ...] | Factorial

OF_OPTIMIZER: Mapping[str, Mapping[str, Any]] = {
    "momentum": {"sgd": 0.9, "rmsprop": 0.0},
    "nesterov": {"sgd": False},
    "weight_decay": {"sgd": 0.0, "adam": 0.0, "adamw": 0.01, "rmsprop": 0.0},
    "betas": {"adam": (0.9, 0.999), "adamw": (0.9, 0.999)},
    "alpha": {"rmsprop": 0.99},
    "eps": {"adam": 1e-8, "adamw": 1e-8, "rmsprop": 1e-8},
}
"""Parameter → optimiser that has it → its default: PyTorch's, but for the momentum of SGD."""

OF_SCHEDULE: Mapping[str, Mapping[str, Any]] = {"step_epochs": {"step": 1}, "step_factor": {"step": 0.7}}
"""Parameter → schedule that has it → its default: that of PyTorch's MNIST example."""


class Training(Block):
    """The recipe: one for all models of a study. A parameter that is null has its optimiser's or schedule's default."""

    model_config = ConfigDict(validate_default=True)

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Images in a batch; the last one of an epoch may be smaller."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    """As torch.optim's SGD, Adam, AdamW and RMSprop."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of sgd (0.9) and rmsprop (0)."""
    nesterov: bool | None = None
    """Of sgd: Nesterov's momentum."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """An L2 penalty (0); with adamw decoupled from the gradient (0.01)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None = None
    """Of adam and adamw: decay rates of the gradient's first and second moment ([0.9, 0.999])."""
    alpha: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of rmsprop: decay rate of the squared gradient (0.99)."""
    eps: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of adam, adamw and rmsprop: added to the denominator (1e-8)."""
    schedule: Literal["constant", "cosine", "step", "linear"] = "constant"
    """How the learning rate falls after the warm-up, step by step: to 0 along a cosine or a line, or in steps."""
    step_epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Of step: epochs between two steps (1)."""
    step_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of step: what the learning rate is multiplied by at each (0.7)."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs in which the learning rate rises linearly to its full value; may be a fraction."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes. Losses are recorded without it."""
    gradient_clip: Positive | None = None
    """The largest norm of a model's gradient; longer ones are scaled down to it. Null: none."""
    validation_size: Annotated[int, Field(ge=1)] = 5000
    """Training images that are set apart to choose by."""
    split_seed: Seed = 0
    """The seed they are drawn by."""

    @field_validator(*OF_OPTIMIZER, *OF_SCHEDULE)
    @classmethod
    def _of_its_choice(cls, value: object, info: ValidationInfo) -> object:
        """The default of the optimiser or schedule chosen; a value that it does not have is a mistake."""
        choice, table = ("optimizer", OF_OPTIMIZER) if info.field_name in OF_OPTIMIZER else ("schedule", OF_SCHEDULE)
        defaults, chosen = table[str(info.field_name)], info.data.get(choice)
        if value is None or chosen is None:
            return defaults.get(str(chosen))
        if chosen not in defaults:
            raise ValueError(f"null, since {chosen} has none, or {choice}: {' or '.join(defaults)}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nesterov and not self.momentum:
            raise Mistake("training.nesterov", True, "false, or a momentum above 0")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise Mistake("training.warmup_epochs", self.warmup_epochs, f"fewer than the {self.epochs} epochs")
        return self


class Launching(Block):
    """Machine knobs: none of them is part of a run's identity."""

    cpus_per_trial: Annotated[int, Field(ge=1, le=1024)] = 1
    """Cores that a pack trains on."""
    gpus_per_trial: Annotated[float, Field(ge=0, le=64)] = 0
    """A share of one GPU that a pack trains on, or whole ones; 0: on the CPU."""
    pack: Annotated[
        Annotated[Literal["learning_rates", "auto"], Tag("<word>")]
        | Annotated[int, Field(ge=1, le=100_000), Tag("<number>")],
        Discriminator(_kind),
        Allowed("learning_rates, auto, or a number of members above 0"),
    ] = "learning_rates"
    """Runs trained in lockstep as one: the learning rates of one model and seed, at most this many runs of a model, or
    auto: as many as its size and the device make fastest."""
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """At most this many packs at a time; null: as many as the CPUs and GPUs allow."""
    max_failures: Annotated[int, Field(ge=0, le=1000)] = 2
    """How often a pack whose training raised an exception is tried again."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60
    """A killed worker loses at most this many seconds of training, or an epoch where that takes longer."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _whole(cls, gpus: float) -> float:
        # Ray would wait for ever.
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("a share of one GPU such as 0.25, or a whole number of them")
        return gpus


class Wandb(Block):
    """Where Weights & Biases logs. A key never goes here: WANDB_API_KEY or `wandb login`."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: as WANDB_MODE says, else online where a key is found, else offline."""
    project: Name | None = None
    """The W&B project; null: WANDB_PROJECT, else lenet5-vs-mlp."""
    entity: Name | None = None
    """The W&B user or team; null: WANDB_ENTITY, else the key's default."""
    system_metrics: bool = False
    """Whether W&B watches processor and memory of every run, beside what is trained."""


class Reference(Block):
    """A published result to set beside ours."""

    source: str
    """Who published it."""
    accuracy: Annotated[float, Field(ge=0, le=1)]
    """Test accuracy, a fraction."""
    note: str = ""
    """How its recipe differs."""


class Analysis(Block):
    """The study's pre-registration: its hash is stored with the first launch."""

    candidate: ModelName | None = None
    """The model whose advantage is measured; null: the first."""
    baselines: Annotated[
        Annotated[tuple[ModelName, ...], Field(min_length=1)] | None,
        Allowed("a list of models other than the candidate"),
    ] = None
    """The models it is compared with; null: all others."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of the confidence intervals."""
    margin: Fraction = 0.001
    """Gap in accuracy below which two models count as equivalent: 0.001 is 0.1 percentage points."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Bootstrap resamples."""
    seed: Seed = 0
    """Seed of the resampling."""
    references: Annotated[
        dict[str, tuple[Reference, ...]],
        Allowed("model: a list of {source: text, accuracy: a number from 0 to 1, note: text}"),
    ] = {}
    """Published results to set beside ours, by model."""
    expected: Annotated[
        dict[str, tuple[Fraction, Fraction]], Allowed("model: [low, high], two accuracies between 0 and 1")
    ] = {}
    """Test accuracy that each model is expected to reach at its selected rate; outside it, the report warns."""

    def filled_in(self, models: Sequence[str]) -> ResolvedAnalysis:
        """The block with its nulls spelt out: the first of `models` against all others.

        Raises Mistake where it names another model, or the candidate among its baselines.
        """
        candidate = self.candidate or models[0]
        baselines = self.baselines or tuple(model for model in models if model != candidate)
        named = {"candidate": [candidate], "baselines": baselines}
        named |= {"references": list(self.references), "expected": list(self.expected)}
        for key, names in named.items():
            for name in names:
                if name not in models:
                    raise Mistake(f"analysis.{key}", name, f"one of models: {', '.join(models)}")
        if len(set(baselines)) < len(baselines) or candidate in baselines:
            raise Mistake("analysis.baselines", list(baselines), "models other than the candidate, each once")
        return ResolvedAnalysis.model_construct(**{**dict(self), "candidate": candidate, "baselines": baselines})


class ResolvedAnalysis(Analysis):
    """The analysis block as it is used: its candidate and baselines are named."""

    candidate: str
    """The model whose gap to every baseline is asked."""
    baselines: tuple[str, ...]
    """The models it is compared with."""

    @property
    def verdict_level(self) -> float:
        """Confidence that a verdict is held to: 1 − α / B over B baselines (Bonferroni)."""
        return 1 - (1 - self.confidence) / max(1, len(self.baselines))


class StudyConfig(Block):
    """Everything that one config file describes."""

    name: Name
    """The study's name: that of its folder under `storage`, and of its group in W&B."""
    dataset: Annotated[
        Annotated[str, Field(min_length=1, max_length=4096), Tag("<word>")] | Annotated[Images, Tag("<block>")],
        Discriminator(_kind),
        Allowed("a dataset's name, a path, or {name: …, pad: 2, channels: 3, normalise: true}"),
    ] = "mnist"
    """A dataset's name, or the path of a folder of IDX files or of a .npz file."""
    models: Annotated[
        tuple[
            Annotated[Annotated[Source, Tag("<word>")] | Annotated[Model, Tag("<block>")], Discriminator(_kind)], ...
        ],
        Field(min_length=1, max_length=1000),
        Allowed(
            "a list of built-in models (see `python -m study models`), import paths such as mypackage.nets:MyNet, of "
            "at most 90 letters, and {name: …, model: …, arguments: {…}, input: …, output: …}"
        ),
    ]
    """The models, the candidate first where `analysis.candidate` does not say otherwise."""
    learning_rates: Annotated[
        Annotated[tuple[Positive, ...], Field(min_length=1, max_length=10_000), Tag("<list>")]
        | Annotated[LogUniform, Tag("<block>")],
        Discriminator(_kind),
        Allowed("a list of numbers above 0, or {log_uniform: [low, high], count: n, seed: s}"),
    ]
    """The learning rates that every model is trained at."""
    seeds: Annotated[
        Annotated[int, Field(ge=1, le=100_000), Tag("<number>")]
        | Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100_000), Tag("<list>")]
        | Annotated[Factorial, Tag("<block>")],
        Discriminator(_kind),
        Allowed("a count above 0, a list of whole numbers from 0, or {init: n, order: n, split: n}"),
    ]
    """The seeds that every model is trained with at every learning rate: n stands for 0 to n − 1."""
    training: Training = Training()
    """The recipe."""
    launch: Launching = Launching()
    """On which hardware."""
    wandb: Wandb = Wandb()
    """Weights & Biases."""
    storage: Annotated[str, Field(min_length=1, max_length=4096)] = "results"
    """Where studies are kept: a path, or an s3:// or gs:// URI."""
    analysis: Analysis = Analysis()
    """The analysis, declared before anything is trained."""

    @field_validator("name")
    @classmethod
    def _no_parent(cls, name: str) -> str:
        if ".." in name:
            raise ValueError("a name without '..'")
        return name

    @field_validator("storage", "dataset")
    @classmethod
    def _home(cls, path: str | Images) -> str | Images:
        return os.path.expanduser(path) if isinstance(path, str) else path

    @field_validator("storage")
    @classmethod
    def _no_secret(cls, storage: str) -> str:
        if redaction.in_address(storage):
            raise Mistake("storage", redaction.mask(storage), redaction.ALLOWED)
        return storage

    @field_validator("models", "learning_rates", "seeds")
    @classmethod
    def _unique(cls, values: object) -> object:
        if isinstance(values, tuple):
            counts = Counter(v.name if isinstance(v, Model) else v for v in values)
            if twice := sorted(v for v, n in counts.items() if n > 1):
                raise ValueError(f"each value once ({', '.join(map(str, twice[:3]))} is there twice)")
        return values

    @model_validator(mode="after")
    def _analysed_models_exist(self) -> Self:
        self.analysis.filled_in(list(self.named_models()))
        for name, (low, high) in self.analysis.expected.items():
            if low > high:
                raise Mistake(f"analysis.expected.{name}", [low, high], "two accuracies, the lower first")
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
    def images(self) -> Images:
        """The dataset with its options."""
        return self.dataset if isinstance(self.dataset, Images) else Images(name=self.dataset)

    def named_models(self) -> dict[str, Model]:
        """Name → model, in the order of the config."""
        return {model.name: model for model in map(Model.of, self.models)}

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
        return sha256(self.resolved()["analysis"])

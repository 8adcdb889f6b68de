"""What a study consists of: runs as frozen values with an identity, planned before anything is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, product
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from study.config import Seeds, StudyConfig

Hex12 = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seed = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

LABELS = frozenset({"dataset", "seed"})
"""Fields of a run that only name it: the data are identified by their checksum, the seed by the three it stands for."""

SEEDS = frozenset({"init_seed", "order_seed", "split_seed"})


class Frozen(BaseModel):
    """An immutable value: types are taken literally, unknown keys and non-finite numbers refused."""

    # Older pydantic warns of fields that begin with model_ unless it is told that none is its own.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Run(Frozen):
    """One training of (model, learning_rate, seed), with everything scientific about it."""

    dataset: str
    dataset_sha256: Sha256
    validation_size: Count
    pixel_mean: float
    pixel_sd: float
    model: str
    model_fingerprint: Hex12
    learning_rate: float = Field(gt=0)
    seed: Seed
    init_seed: Seed
    order_seed: Seed
    split_seed: Seed
    batch_size: Count
    epochs: Count
    optimizer: str = "sgd"
    momentum: float
    weight_decay: float

    @property
    def run_id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON of everything scientific."""
        return digest(self.model_dump(exclude=set(LABELS)))

    @property
    def configuration_id(self) -> str:
        """Identity of the configuration: the run without its seeds."""
        return digest(self.model_dump(exclude=set(LABELS | SEEDS)))

    @property
    def recipe(self) -> dict[str, object]:
        """What all runs of a study share: the run without model, learning rate and seeds."""
        grid = {"model", "model_fingerprint", "learning_rate"}
        return self.model_dump(exclude=set(LABELS | SEEDS) | grid)


class PlannedRun(Frozen):
    """A run with the size of its model, as the plan in study.json lists it."""

    run_id: Hex12
    run: Run
    n_parameters: int = Field(ge=0)
    macs: int = Field(ge=0)


class Pack(Frozen):
    """Runs of one model trained in lockstep as one fused model, in this order."""

    pack_id: Hex12
    runs: tuple[PlannedRun, ...]


def digest(value: object) -> str:
    """First 12 hex digits of SHA-256 over canonical JSON: sorted keys, no white space, shortest floats."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def seed_table(seeds: Seeds, split_seed: int) -> list[dict[str, int]]:
    """Every seed of a study as the three it stands for, in order.

    A plain seed s initialises and orders by s, on the study's one split. In a factorial the seed is
    the position in the order split × order × init, and only labels the combination.
    """
    if isinstance(seeds, int):
        seeds = tuple(range(seeds))
    if isinstance(seeds, tuple):
        return [dict(seed=s, init_seed=s, order_seed=s, split_seed=split_seed) for s in seeds]
    combinations = product(range(seeds.split), range(seeds.order), range(seeds.init))
    return [
        dict(seed=position, init_seed=init, order_seed=order, split_seed=split)
        for position, (split, order, init) in enumerate(combinations)
    ]


def plan(config: StudyConfig, dataset: Mapping, models: Mapping[str, Mapping]) -> tuple[PlannedRun, ...]:
    """All runs of the study, ordered by model, seed, learning rate as the config lists them.

    `dataset` maps to the fields of `Run` that describe data (dataset, dataset_sha256, pixel_mean,
    pixel_sd); `models` maps each model's name to `model_fingerprint`, `n_parameters`, `macs`.
    """
    training, learning_rates = config.training, config.learning_rate_grid()
    planned = []
    for name in config.models:
        size = models[name]
        for seeds in seed_table(config.seeds, training.split_seed):
            for learning_rate in learning_rates:
                run = Run(
                    **dataset,
                    validation_size=training.validation_size,
                    model=name,
                    model_fingerprint=size["model_fingerprint"],
                    learning_rate=learning_rate,
                    **seeds,
                    batch_size=training.batch_size,
                    epochs=training.epochs,
                    momentum=training.momentum,
                    weight_decay=training.weight_decay,
                )
                planned.append(
                    PlannedRun(run_id=run.run_id, run=run, n_parameters=size["n_parameters"], macs=size["macs"])
                )
    return tuple(planned)


def packs(runs: Sequence[PlannedRun], width: str | int) -> tuple[Pack, ...]:
    """Group planned runs into packs.

    `width` "learning_rates" packs the learning rates of one (model, seed); a number packs at most that
    many members, across seeds of one model and one split.
    """
    if width == "learning_rates":
        groups = [list(g) for _, g in groupby(runs, key=lambda r: (r.run.model, r.run.seed))]
    else:
        groups = []
        for _, members in groupby(runs, key=lambda r: (r.run.model, r.run.split_seed)):
            members = list(members)
            groups += [members[i : i + width] for i in range(0, len(members), width)]
    return tuple(Pack(pack_id=digest([r.run_id for r in g]), runs=tuple(g)) for g in groups)


def share_batches(runs: Iterable[Run]) -> bool:
    """Whether the runs of a pack see the same batches, so that its members can share them."""
    return len({run.order_seed for run in runs}) == 1


def work(pack: Pack) -> int:
    """What training the pack takes, in multiply-accumulates of one training image's forward passes."""
    return sum(planned.macs * planned.run.epochs for planned in pack.runs)

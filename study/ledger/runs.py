"""What a study consists of: runs as frozen values with an identity, and the packs that they are trained in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from study.config import Model, sha256

Hex12 = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seed = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

LABELS = frozenset({"dataset", "seed"})
"""Fields of a run that only name it: the data are identified by their checksum, the seed by the three it stands for."""

SEEDS = frozenset({"init_seed", "order_seed", "split_seed"})

GRID = frozenset({"model", "model_fingerprint", "constructor", "arguments", "input", "output", "learning_rate"})
"""Fields in which the runs of a study differ beside their seeds."""


class Frozen(BaseModel):
    """An immutable value: no type coercion, no unknown keys, no non-finite numbers."""

    # Older versions of pydantic warn about fields that begin with model_.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Run(Frozen):
    """One training of (model, learning_rate, seed), with everything scientific about it.

    Fields that came later have a default, which stands for what was done before they came. It is left out wherever a
    run is written or hashed, so that old runs keep their ids.
    """

    dataset: str
    dataset_sha256: Sha256
    pad: int = 0
    channels: int | None = None
    """Null: those that the images have."""
    validation_size: Count
    pixel_mean: float
    pixel_sd: float
    model: str
    """Its name; also what makes it, unless there is a constructor."""
    model_fingerprint: Hex12
    constructor: str | None = None
    arguments: Mapping[str, JsonValue] = {}
    input: str | None = None
    """Null: images as they are, with channels, rows and columns."""
    output: int | str | None = None
    learning_rate: float = Field(gt=0)
    seed: Seed
    init_seed: Seed
    order_seed: Seed
    split_seed: Seed
    batch_size: Count
    epochs: Count
    optimizer: str = "sgd"
    momentum: float
    nesterov: bool = False
    weight_decay: float
    betas: tuple[float, float] | None = None
    alpha: float | None = None
    eps: float | None = None
    schedule: str = "constant"
    step_epochs: int | None = None
    step_factor: float | None = None
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float | None = None

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if LATER.get(key, self) != value}

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
        """What all runs of a study share: the run without model, learning rate and seeds, as JSON values."""
        return self.model_dump(mode="json", exclude=set(LABELS | SEEDS | GRID))

    @property
    def built_from(self) -> Model:
        """The model as the config names it."""
        source = self.constructor or self.model
        return Model.model_construct(
            name=self.model, model=source, arguments=dict(self.arguments), input=self.input, output=self.output
        )


LATER: Mapping[str, object] = {
    name: field.default
    for name, field in Run.model_fields.items()
    if not field.is_required() and name != "optimizer"  # the original one
}
"""Fields of a run that came later, and what was done before they came."""


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
    return sha256(value)[:12]


def share_batches(runs: Iterable[Run]) -> bool:
    """Whether the runs of a pack see the same batches, so that its members can share them."""
    return len({run.order_seed for run in runs}) == 1


def work(pack: Pack) -> int:
    """The cost of training the pack: multiply-accumulates of its forward passes of one training image."""
    return sum(planned.macs * planned.run.epochs for planned in pack.runs)

"""The schema of what a study leaves behind: one record per ended run, and study.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from study.ledger.runs import LABELS, SEEDS, Frozen, Hex12, Pack, Run, Sha256, digest

FORMAT: Literal[1] = 1
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
"""Metrics of every epoch. Losses are mean cross-entropies in nats, accuracies fractions in [0, 1].

Those of `train` are running means over the epoch's batches, as the weights change; those of `val` and
`test` are taken in evaluation mode over the whole split at the end of the epoch.
"""

LARGEST_LOSS = 3.5e38
"""The largest number of 32 bits: no loss that was computed in them is larger and finite."""

State = Literal["finished", "diverged", "failed"]


class Provenance(BaseModel):
    """Everything about time, machine, versions and attempts: no part of what a study promises to reproduce."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_seconds: float | None = None
    """Seconds the pack trained, divided by its members."""
    pack_id: Hex12
    pack_size: int
    device: str | None = None
    node: str | None = None
    machine: str | None = None
    """Its processor, cores and system."""
    threads: int | None = None
    versions: Mapping[str, str] = {}
    git_commit: str | None = None
    git_dirty: bool | None = None
    started_at: str | None = None
    ended_at: str | None = None
    attempts: int = 1
    error: str | None = None


class Record(Frozen):
    """What the ledger holds of one run. A run has ended when its record exists."""

    format: Literal[1] = FORMAT
    run_id: Hex12
    state: State
    run: Run
    n_parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    """Multiply-accumulates of one image's forward pass."""
    epochs: Mapping[str, tuple[float, ...]]
    """Metric → its value after each finite epoch; see METRICS."""
    diverged_epoch: int | None = None
    """The first epoch (from 1) whose losses or parameters were not finite."""
    final: Mapping[str, float] | None = None
    """METRICS at the end of the last epoch, those of `train` in evaluation mode over the whole training split."""
    predictions_sha256: Sha256 | None = None
    """Of the bytes of predictions/<run_id>.npz; null where the run has none."""
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.run_id != self.run.run_id:
            raise ValueError(f"run_id {self.run_id} does not belong to this run, whose id is {self.run.run_id}")
        if set(self.epochs) != set(METRICS) or len({len(v) for v in self.epochs.values()}) != 1:
            raise ValueError(f"epochs must hold equally many values of each of {', '.join(METRICS)}")
        ended = {
            "finished": self.n_epochs == self.run.epochs and self.diverged_epoch is None,
            "diverged": self.diverged_epoch == self.n_epochs + 1 <= self.run.epochs,
            "failed": self.n_epochs == 0 and self.diverged_epoch is None,
        }
        if not ended[self.state]:
            raise ValueError(f"state {self.state} contradicts the {self.n_epochs} epochs recorded")
        complete = self.final is not None and set(self.final) == set(METRICS) and self.predictions_sha256 is not None
        empty = self.final is None and self.predictions_sha256 is None
        if not (complete if self.state == "finished" else empty):
            raise ValueError("a finished run has final metrics and predictions, any other has neither")
        accuracies = [x for name in METRICS if name.endswith("accuracy") for x in self.epochs[name]]
        accuracies += [x for name, x in (self.final or {}).items() if name.endswith("accuracy")]
        if not all(0 <= x <= 1 for x in accuracies):
            raise ValueError("accuracies must lie in [0, 1]")
        losses = [x for name in METRICS if name.endswith("loss") for x in self.epochs[name]]
        losses += [x for name, x in (self.final or {}).items() if name.endswith("loss")]
        if not all(0 <= x <= LARGEST_LOSS for x in losses):
            raise ValueError(f"losses must lie in [0, {LARGEST_LOSS:g}]")
        return self

    @property
    def n_epochs(self) -> int:
        """Finite epochs recorded."""
        return len(self.epochs[METRICS[0]])


class DatasetInfo(Frozen):
    """What study.json says about the data."""

    name: str
    sha256: Sha256
    """Of the four files' checksums, in the order of `files`."""
    files: Mapping[str, Sha256]
    """IDX file → SHA-256 of its decompressed bytes, or of what these would be for data in another form."""
    n_train: int
    """Images in the training file: training and validation split together."""
    n_test: int
    classes: int
    labels: tuple[int, ...] | None = None
    """The files' labels of classes 0, 1, …; null: the same."""
    shape: tuple[int, int, int]
    """Channels, height, width, as models see them."""
    pixel_mean: float
    pixel_sd: float

    @property
    def relabelled(self) -> str | None:
        """A line for the user where the labels in the files differ from those trained with; else None."""
        if self.labels is None:
            return None
        first, last, n = self.labels[0], self.labels[-1], len(self.labels)
        theirs = f"{first} to {last}" if last - first == n - 1 else ", ".join(map(str, self.labels))
        return f"the labels {theirs} of {self.name} are trained as 0 to {n - 1}"


class Layer(Frozen):
    """One line of a model's description."""

    name: str
    """As the model's class names it."""
    kind: str
    """What it computes, in a word or two."""
    output_shape: tuple[int, ...]
    """Of one image's output; empty where there is none."""
    formula: str
    """How its parameters are counted."""
    n_parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    """Multiply-accumulates for one image."""


class ModelInfo(Frozen):
    """What a study says of a model, beside its name."""

    fingerprint: Hex12
    """Of parameter names and shapes, and of a user's source."""
    n_parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    """Multiply-accumulates of one image's forward pass."""
    layers: tuple[Layer, ...] = ()
    """Those that have parameters, in the order in which an image passes them."""


class Launch(BaseModel):
    """One start of the driver."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Mapping
    analysis_sha256: Sha256
    """Hash of the config's analysis block: the pre-registration."""
    recipe: Mapping
    git_commit: str | None
    git_dirty: bool | None
    versions: Mapping[str, str]
    started_at: str

    @property
    def models(self) -> list[str]:
        """The models' names, in the order of the config."""
        return [model if isinstance(model, str) else model["name"] for model in self.config["models"]]


class Study(BaseModel):
    """study.json: what was planned, in which packs, from which data, by which launches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    name: str
    dataset: DatasetInfo
    launches: Sequence[Launch] = Field(min_length=1)
    layers: Mapping[str, tuple[Layer, ...]] = {}
    """Model → its layers. Studies planned before this was kept have none, and stay as they are."""
    packs: Sequence[Pack]

    @model_serializer(mode="wrap")
    def _without_layers(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "layers" or self.layers}

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        run_ids = [planned.run_id for pack in self.packs for planned in pack.runs]
        if len(set(run_ids)) < len(run_ids):
            raise ValueError("packs: a run is planned twice")
        for pack in self.packs:
            for planned in pack.runs:
                if planned.run_id != planned.run.run_id:
                    raise ValueError(f"packs: run_id {planned.run_id} does not belong to its run")
            # Members of a pack share everything but learning rate and seeds, so the first run speaks for all.
            own = {*LABELS, *SEEDS, "learning_rate"} - {"split_seed"}
            shared = [planned.run.model_dump(exclude=own) for planned in pack.runs]
            if not shared or any(other != shared[0] for other in shared):
                raise ValueError(f"packs: {pack.pack_id} is empty, or its runs cannot be trained together")
            if pack.pack_id != digest([planned.run_id for planned in pack.runs]):
                raise ValueError(f"packs: pack_id {pack.pack_id} does not belong to its runs")
        recipes = [pack.runs[0].run.recipe for pack in self.packs]
        if any(launch.recipe not in recipes for launch in self.launches):
            raise ValueError("launches: a recipe that no run has")
        return self

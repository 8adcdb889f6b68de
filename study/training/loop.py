"""Trains one pack: the loop of the textbook, for K members at once. No Ray, no W&B, no files."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from study.ledger.records import METRICS
from study.ledger.runs import Run, share_batches
from study.seeding import generator, stream
from study.training import data as datasets
from study.training import models, process
from study.training.data import Dataset
from study.training.models import Members
from study.training.optimizer import Optimizer

EVALUATION_BATCH = 250
"""Images in an evaluation batch: the activations of a pack then stay in the cache."""


@dataclass(frozen=True)
class Epoch:
    """The state of a pack of K members after an epoch."""

    epoch: int
    """From 1."""
    history: Mapping[str, np.ndarray]
    """METRICS name → float64 [epoch, K], of all epochs so far, also those of before a checkpoint."""
    finite: np.ndarray
    """bool [epoch, K]: whether losses, parameters and buffers were finite, but for masks of −inf; once False for a
    member, always False."""
    state: partial[dict[str, Any]]
    """Call it for a checkpoint of tensors and plain numbers. Valid until the next epoch begins."""
    final: Mapping[str, np.ndarray] | None = None
    """After the last epoch: METRICS name → float64 [K], those of `train` in evaluation mode over the whole split."""
    predictions: Mapping[str, np.ndarray] | None = None
    """After the last epoch: `val` and `test`, the labels predicted, uint8 [K, image]."""

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """METRICS name → float64 [K], of this epoch."""
        return {name: values[-1] for name, values in self.history.items()}


def train(
    runs: Sequence[Run],
    data: Dataset,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    checkpoint: Mapping[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train `runs`, which differ in learning rate and seeds alone, in lockstep; yield after every epoch.

    With a `checkpoint`, which an earlier epoch's `state()` gave, training resumes from there, bit for bit.
    """
    deterministic(device)
    run = runs[0]
    shared = share_batches(runs)
    members = [_moved(initialised(r, data), device, dtype) for r in runs]
    model = models.joined(run.built_from, members, data.info.shape, data.info.classes, shared=shared)
    learning_rates = torch.tensor([r.learning_rate for r in runs], device=device, dtype=dtype)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    splits = Splits(run, data, len(runs), device, dtype)
    steps_per_epoch = math.ceil(splits.n_train / run.batch_size)
    optimizer = Optimizer(trained, learning_rates, run, steps_per_epoch)
    history: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    finite: list[np.ndarray] = []
    # Members are made afresh also to resume, so that this is what the first epoch began with.
    begun = [t.isfinite() for t in _tensors(model)]
    if checkpoint is not None:
        _restore(checkpoint, model, optimizer, history, finite)
        optimizer.steps_done = len(finite) * steps_per_epoch

    for epoch in range(len(finite) + 1, run.epochs + 1):
        seeds = [runs[0].order_seed] if shared else [r.order_seed for r in runs]
        orders = [generator("order", seed, epoch).permutation(splits.n_train) for seed in seeds]
        model.draw_from([generator("masks", seed, epoch) for seed in seeds])
        with process.undisturbed():
            with denormals_as_zeros():
                metrics = train_epoch(model, optimizer, splits, orders, run)
            val_predictions, metrics["val_loss"], metrics["val_accuracy"] = evaluate(model, splits.val, splits, shared)
            test_predictions, metrics["test_loss"], metrics["test_accuracy"] = evaluate(
                model, splits.test, splits, shared
            )
            for name in METRICS:
                history[name].append(metrics[name].cpu().numpy())
            if epoch == run.epochs:
                _, metrics["train_loss"], metrics["train_accuracy"] = evaluate(model, splits.train, splits, shared)
        final = predictions = None
        if epoch == run.epochs:
            final = {name: metrics[name].cpu().numpy() for name in METRICS}
            predictions = {"val": val_predictions.cpu().numpy(), "test": test_predictions.cpu().numpy()}
        finite.append(_finite(model, begun, metrics, history) & (finite[-1] if finite else True))
        yield Epoch(
            epoch=epoch,
            history={name: np.stack(values) for name, values in history.items()},
            finite=np.stack(finite),
            state=partial(_state, runs, model, optimizer, history, finite),
            final=final,
            predictions=predictions,
        )


def train_epoch(
    model: Members, optimizer: Optimizer, splits: Splits, orders: Sequence[np.ndarray], run: Run
) -> dict[str, Tensor]:
    """One pass over the training split in each of `orders` (one for all members, or one a member).

    Returns train_loss and train_accuracy, float64 [K]: means over the epoch's batches, as the weights changed.
    """
    model.train()
    order = torch.from_numpy(np.stack(orders)).to(splits.train[0].device)
    losses = torch.zeros(splits.members, dtype=torch.float64, device=order.device)
    corrects = torch.zeros(splits.members, dtype=torch.int64, device=order.device)
    for batch in order.split(run.batch_size, dim=1):
        x, target = splits.batch(batch[0] if len(orders) == 1 else batch)
        logits = model(x)
        loss = cross_entropy(logits, target)
        smoothed = cross_entropy(logits, target, run.label_smoothing) if run.label_smoothing else loss
        # The members' losses share no parameter, so the gradient of the sum is each member's own.
        smoothed.mean(1).sum().backward()
        optimizer.step()
        losses += loss.detach().double().sum(1)
        corrects += (predicted(logits) == target).sum(1)
    return {"train_loss": losses / splits.n_train, "train_accuracy": corrects.double() / splits.n_train}


@torch.no_grad()
def evaluate(
    model: Members, split: tuple[Tensor, Tensor], splits: Splits, shared: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels predicted uint8 [K, image], mean loss and accuracy float64 [K], in evaluation mode over a whole split."""
    model.eval()
    images, labels = split
    predictions, losses = [], torch.zeros(splits.members, dtype=torch.float64, device=images.device)
    for x, target in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
        x = splits.normalise(x)
        logits = model(x if shared else x.expand(splits.members, *x.shape))
        losses += cross_entropy(logits, target).double().sum(1)
        predictions.append(predicted(logits))
    guesses = torch.cat(predictions, 1)
    return guesses.byte(), losses / len(labels), (guesses == labels).double().mean(1)


def cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropies in nats [K, N], of logits [K, N, classes] and labels [N] or [K, N]."""
    # Along the classes as they lie in memory, apart: along the last axis the softmax of ten takes 18 times as long.
    logits, target = logits.transpose(1, 2), target.expand(logits.shape[:2])
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)


def predicted(logits: Tensor) -> Tensor:
    """The label that each of K members predicts, int64 [K, N], of logits [K, N, classes]."""
    return logits.detach().transpose(1, 2).max(1).indices


class Splits:
    """Training, validation and test split on the device: images uint8 [N, channels, height, width] and labels [N]."""

    def __init__(self, run: Run, data: Dataset, members: int, device: str, dtype: torch.dtype) -> None:
        train, validation = datasets.split(data.info.n_train, run.validation_size, run.split_seed)
        self.train = _on(device, data.train_images[train], data.train_labels[train], run)
        self.val = _on(device, data.train_images[validation], data.train_labels[validation], run)
        self.test = _on(device, data.test_images, data.test_labels, run)
        self.n_train = len(train)
        self.members = members
        self._dtype = dtype
        self._mean, self._sd = 255 * run.pixel_mean, 255 * run.pixel_sd

    def batch(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images [*members.shape, channels, height, width] and labels of some training images."""
        images, labels = self.train
        # By whole rows: indexing would gather pixel by pixel, eight times as slow.
        x = images.index_select(0, members.flatten()).view(*members.shape, *images.shape[1:])
        return self.normalise(x), labels.index_select(0, members.flatten()).view(members.shape)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels as the network sees them: mean 0 and SD 1 over the training images."""
        return images.to(self._dtype).sub_(self._mean).div_(self._sd)


def initialised(run: Run, data: Dataset) -> nn.Module:
    """The run's model with PyTorch's default initial weights, drawn from the stream of its seed and model."""
    seed = stream("init", run.init_seed, run.model)
    return models.build(run.built_from, data.info.shape, data.info.classes, seed=seed)


def _moved(model: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """The model on the device, in `dtype` what is float32: whatever has another type has it on purpose."""
    model.to(device)
    for tensor in (*model.parameters(), *model.buffers()) if dtype != torch.float32 else ():
        if tensor.dtype == torch.float32:
            tensor.data = tensor.data.to(dtype)
    return model


@contextlib.contextmanager
def denormals_as_zeros() -> Iterator[None]:
    """Velocities of dead units decay to denormal numbers and stay, since 0.9 of the smallest rounds to itself.

    As zeros they save a pack with a collapsed member up to a quarter of its time.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def deterministic(device: str) -> None:
    """The same numbers every time: on CPUs they are; on GPUs it takes the slower algorithms, and no TF32."""
    if device == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Every buffer is written before it is read, so filling it first would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def _on(device: str, images: np.ndarray, labels: np.ndarray, run: Run) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, channels, height, width], padded and repeated as the run says, and labels int64 [N]."""
    # Copies, since the arrays that workers share are read-only.
    pixels = torch.tensor(images, device=device)
    if pixels.dim() == 3:
        pixels = pixels.unsqueeze(1)
    if run.channels is not None:
        pixels = pixels.expand(-1, run.channels, -1, -1).contiguous()
    return F.pad(pixels, [run.pad] * 4), torch.tensor(labels, device=device, dtype=torch.int64)


def _tensors(model: Members) -> list[Tensor]:
    """Parameters and buffers, stacked on a leading axis K."""
    return [*(parameter.detach() for parameter in model.parameters()), *model.stacked_buffers()]


def _finite(
    model: Members, begun: Sequence[Tensor], metrics: Mapping[str, Tensor], history: Mapping[str, list[np.ndarray]]
) -> np.ndarray:
    """Whether, bool [K], each member's losses, parameters and buffers are all finite.

    Where a tensor was not finite as training began, as a mask of −inf is, nothing is asked: see `begun`, bool.
    """
    finite = np.isfinite([values[-1] for values in history.values()]).all(0)
    finite &= torch.stack([values.isfinite() for values in metrics.values()]).all(0).cpu().numpy()
    for stacked, was in zip(_tensors(model), begun, strict=True):
        # A buffer may be set to a tensor of another shape.
        good = stacked.isfinite() | ~was if stacked.shape == was.shape else stacked.isfinite()
        finite &= np.array([bool(own.all()) for own in good])
    return finite


def _state(
    runs: Sequence[Run], model: Members, optimizer: Optimizer, history: Mapping[str, list], finite: list
) -> dict[str, Any]:
    """A checkpoint. The random streams are hashed from the epoch, so the number of epochs is all of their state."""
    return {
        "run_ids": [run.run_id for run in runs],
        "epochs_done": len(finite),
        "parameters": [p.detach().cpu().clone() for p in model.parameters()],
        "buffers": [b.cpu().clone() for b in model.stacked_buffers()],
        "optimizer": {name: [t.cpu().clone() for t in tensors] for name, tensors in optimizer.state.items()},
        "history": {name: torch.from_numpy(np.stack(values)) for name, values in history.items()},
        "finite": torch.from_numpy(np.stack(finite)),
    }


@torch.no_grad()
def _restore(
    checkpoint: Mapping[str, Any], model: Members, optimizer: Optimizer, history: dict[str, list], finite: list
) -> None:
    for ours, saved in zip(model.parameters(), checkpoint["parameters"], strict=True):
        ours.copy_(saved)
    model.load_buffers(checkpoint["buffers"])
    for name, tensors in optimizer.state.items():
        for tensor, saved in zip(tensors, checkpoint["optimizer"][name], strict=True):
            tensor.copy_(saved)
    for name in METRICS:
        history[name] += list(checkpoint["history"][name].numpy())
    finite += list(checkpoint["finite"].numpy())

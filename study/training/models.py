"""The models: plain modules that a reader recognises, and how a config's name becomes one."""

from __future__ import annotations

import importlib
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from study.errors import UserError
from study.ledger.records import DatasetInfo, ModelInfo
from study.ledger.runs import Run, digest
from study.redaction import mask
from study.training import process, source
from study.training.fusion import Fused, NotFused, fuse, see_that_it_agrees
from study.training.side_by_side import SideBySide

Shape = tuple[int, ...]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Members = Fused | SideBySide
"""K models of one kind as one module, parameters and buffers stacked on a leading axis K."""


class LeNet5(nn.Module):
    """LeNet-5 as it is taught today: ReLU and max-pooling, no padding, 1×28×28 in (after LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)  # 6×24×24      (1·5·5 + 1)·6    =    156 parameters
        self.conv2 = nn.Conv2d(6, 16, 5)  # 16×8×8      (6·5·5 + 1)·16   =  2,416
        self.fc1 = nn.Linear(16 * 4 * 4, 120)  # 120    (256 + 1)·120    = 30,840
        self.fc2 = nn.Linear(120, 84)  # 84             (120 + 1)·84     = 10,164
        self.fc3 = nn.Linear(84, 10)  # 10              (84 + 1)·10      =    850

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # 6×12×12
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 16×4×4
        x = torch.flatten(x, 1)  # 256
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class MLP(nn.Module):
    """A perceptron with two hidden layers, 28·28 in."""

    def __init__(self, hidden1: int = 500, hidden2: int = 150) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, hidden1)  # (784 + 1)·500 = 392,500 parameters; matched: (784 + 1)·55 = 43,175
        self.fc2 = nn.Linear(hidden1, hidden2)  # (500 + 1)·150 =  75,150;           matched:  (55 + 1)·19 =  1,064
        self.fc3 = nn.Linear(hidden2, 10)  # (150 + 1)·10 =   1,510;           matched:  (19 + 1)·10 =    200

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


BUILT_IN: dict[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet5,
    "mlp": MLP,
    # The hidden widths bring it within 13 parameters of lenet5: what "of similar size" takes.
    "mlp_matched": lambda: MLP(55, 19),
}


@dataclass(frozen=True)
class Layer:
    """One line of a model's description."""

    name: str
    kind: str
    output_shape: Shape
    formula: str
    n_parameters: int
    macs: int
    """Multiply-accumulates for one image."""


def build(name: str, shape: Shape, classes: int, *, seed: int = 0) -> nn.Module:
    """The model of a config's name: built in, or a user's `package.module:Class`, called without arguments.

    Its weights are drawn from the stream of `seed`. `shape` is an image's (channels, height, width). Raises UserError
    if there is no such model, or if it does not map images [N, *shape] to logits [N, classes].
    """
    with process.undisturbed():
        # Imported before anything is seeded: a file may draw and seed as it likes.
        constructor = _constructor(name)
        process.seed(seed)
        try:
            model = constructor()
        except (Exception, SystemExit) as error:
            # A user's code may raise anything, and what it says may hold anything.
            raise UserError(f"models: {name!r} cannot be made: {type(error).__name__}: {mask(str(error))}") from None
        if not isinstance(model, nn.Module):
            raise UserError(f"models: found {name!r}, which makes a {type(model).__name__}; allowed: a torch.nn.Module")
        try:
            with torch.no_grad():
                output = model.eval()(torch.zeros(2, *shape))
        except (Exception, SystemExit) as error:
            raise UserError(f"models: {name!r} cannot take images of shape {shape}: {mask(str(error))}") from None
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"models: {name!r} gives {found} for 2 images; allowed: [2, {classes}], one logit a class")
    return model.train()


def joined(name: str, members: Sequence[nn.Module], shape: Shape, classes: int, *, shared: bool = True) -> Members:
    """The members, which `build` has made of this name, as one module: fused where that is exact, else side by side."""
    if why_apart(name, shape, classes, shared=shared) is None:
        return fuse(members, shared=shared)
    return SideBySide(members, shared=shared)


def why_apart(name: str, shape: Shape, classes: int, *, shared: bool = True) -> str | None:
    """Why the model trains side by side, in a few words; None where it trains fused. See `build`."""
    models = [build(name, shape, classes) for _ in range(2)]
    try:
        with process.undisturbed():
            see_that_it_agrees(models, shape, shared=shared)
    except NotFused as reason:
        return str(reason)
    except (Exception, SystemExit) as error:
        # A user's code may raise anything, also when it meets no tensor, or one in float64.
        return f"{type(error).__name__}: {mask(str(error))}"
    return None


def identity(name: str, shape: Shape, classes: int) -> ModelInfo:
    """What a model's runs say of it.

    Raises UserError if there is no such model; see `build`.
    """
    model = build(name, shape, classes)
    content: list[object] = [[key, list(p.shape)] for key, p in model.named_parameters()]
    if name not in BUILT_IN:
        content += source.code(*name.split(":"), model)
    layers = describe(model, shape)
    n_parameters = sum(p.numel() for p in model.parameters())
    return ModelInfo(fingerprint=digest(content), n_parameters=n_parameters, macs=sum(layer.macs for layer in layers))


def see_that_it_is_planned(run: Run, data: DatasetInfo) -> None:
    """Raise UserError where the run's model, as this process has it, is not the one that was planned."""
    if (found := identity(run.model, data.shape, data.classes).fingerprint) != run.model_fingerprint:
        raise UserError(
            f"models: {run.model!r} is another model on {platform.node()} ({found}) than was planned "
            f"({run.model_fingerprint}); allowed: the source as it was, then --retry-failed"
        )


def describe(model: nn.Module, shape: Shape) -> list[Layer]:
    """Every layer that has parameters, in the order in which an image of `shape` meets them; then what is left."""
    layers: list[Layer] = []
    names = {module: name or "itself" for name, module in model.named_modules()}

    def visit(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        n_parameters = sum(p.numel() for p in module.parameters(recurse=False))
        while isinstance(output, tuple | list):
            output = output[0]
        formula, macs = _arithmetic(module, output[0])
        layers.append(Layer(names[module], _kind(module), tuple(output.shape[1:]), formula, n_parameters, macs))

    hooks = [module.register_forward_hook(visit) for module in names if list(module.parameters(recurse=False))]
    mode = model.training
    try:
        with process.undisturbed(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    # Matrix products of bare parameters, attention: what no layer stands for. A multiply-accumulate is two operations.
    if (rest := counter.get_total_flops() // 2 - sum(layer.macs for layer in layers)) > 0:
        layers.append(Layer("outside layers", "products", (), "", 0, rest))
    return layers


def show(names: Sequence[str], console: Console) -> None:
    """Print each model layer by layer, for MNIST: output shape, parameters with their formula, multiply-accumulates.

    Raises UserError where there is no such model, or where it cannot be trained.
    """
    shape, classes = (1, 28, 28), 10
    for name in names or BUILT_IN:
        model = build(name, shape, classes)
        layers = describe(model, shape)
        reason = why_apart(name, shape, classes)
        trains = f"side by side ({reason})" if reason else "fused"
        title = f"{name}: {'×'.join(map(str, shape))} in, {classes} classes; trains {trains}"
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        table = Table(box=None, header_style="dim", pad_edge=False)
        for column, justify in (("layer", "left"), ("output", "left"), ("parameters", "left")):
            table.add_column(column, justify=justify)
        table.add_column("", justify="right")
        table.add_column("multiply-accumulates", justify="right")
        for layer in layers:
            output = "×".join(map(str, layer.output_shape))
            table.add_row(
                f"{layer.name} ({layer.kind})", output, layer.formula, f"{layer.n_parameters:,}", f"{layer.macs:,}"
            )
        total = sum(p.numel() for p in model.parameters())
        table.add_row("total", "", "", f"{total:,}", f"{sum(layer.macs for layer in layers):,}", style="bold")
        console.print(table)
        console.print()


def _constructor(name: str) -> Callable[[], object]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    allowed = f"{', '.join(BUILT_IN)}, or an import path such as mypackage.nets:MyNet"
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"models: found {name!r}; allowed: {allowed}")
    try:
        imported = importlib.import_module(module)
        source.remember()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {mask(str(error))}"
        raise UserError(f"models: found {name!r}, which cannot be imported ({reason}); allowed: {allowed}") from None
    if not hasattr(imported, attribute):
        raise UserError(f"models: found {name!r}, but {module} has no {attribute}; allowed: {allowed}")
    found = getattr(imported, attribute)
    if not callable(found):
        raise UserError(f"models: found {name!r}, which is a {type(found).__name__}; allowed: a class")
    return found


def _kind(module: nn.Module) -> str:
    if isinstance(module, CONVOLUTIONS):
        return f"conv {'×'.join(map(str, module.kernel_size))}"
    return {nn.Linear: "linear"}.get(type(module), type(module).__name__)


def _arithmetic(module: nn.Module, output: Tensor) -> tuple[str, int]:
    """The parameter formula with its numbers, and the multiply-accumulates of one image, which gives `output`."""
    bias = " + 1" if getattr(module, "bias", None) is not None else ""
    if isinstance(module, CONVOLUTIONS):
        inputs = module.in_channels // module.groups
        formula = f"({'·'.join(map(str, (inputs, *module.kernel_size)))}{bias})·{module.out_channels}"
        return formula, inputs * math.prod(module.kernel_size) * output.numel()
    if isinstance(module, nn.Linear):
        return f"({module.in_features}{bias})·{module.out_features}", module.in_features * output.numel()
    parameters = list(module.parameters(recurse=False))
    # Every weight of a recurrent layer is used once a step.
    steps = len(output) if isinstance(module, nn.RNNBase) else 0
    return " + ".join(str(p.numel()) for p in parameters), steps * sum(p.numel() for p in parameters if p.dim() > 1)

"""The models: plain modules that a reader recognises, and how a config's name becomes one."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise, product
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from study.config import Model
from study.errors import UserError
from study.ledger.records import DatasetInfo, Layer, ModelInfo
from study.ledger.runs import Run, digest
from study.redaction import mask
from study.training import process, source
from study.training.fusion import Fused, NotFused, fuse, see_that_it_agrees
from study.training.side_by_side import SideBySide

Shape = tuple[int, ...]
PADS = (0, 2, 1, 3, 4, 10, 18, 98)
"""Paddings from 28×28 to the sizes that models are written for: 32×32, then others up to 224×224."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
PRICE = "as fast as one run after another, where fused ones are 1 to 3 times as fast"
"""What training side by side costs, as `python -m tests.benchmarks training_speed` measures it."""

Members = Fused | SideBySide
"""K models of one kind as one module, parameters and buffers stacked on a leading axis K."""


class LeNet5(nn.Module):
    """LeNet-5 as it is taught today: ReLU and max-pooling, no padding, 1×28×28 in (after LeCun et al. 1998).

    conv1  6×24×24   (1·5·5 + 1)·6    =    156 parameters
    conv2  16×8×8    (6·5·5 + 1)·16   =  2,416
    fc1    120       (16·4·4 + 1)·120 = 30,840
    fc2    84        (120 + 1)·84     = 10,164
    fc3    10        (84 + 1)·10      =    850
    """

    def __init__(
        self,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        channels: Sequence[int] = (6, 16),
        hidden: Sequence[int] = (120, 84),
        kernel: int = 5,
        activation: str = "relu",
        pooling: str = "max",
    ) -> None:
        """One convolution for each of `channels`, one linear layer for each of `hidden` and one for the logits."""
        super().__init__()
        self.activation = _one_of("activation", activation, ACTIVATIONS)
        self.pooling = _one_of("pooling", pooling, {"max": F.max_pool2d, "average": F.avg_pool2d})
        inputs, height, width = shape
        for i, outputs in enumerate(_widths("channels", channels), 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, _widths("kernel", [kernel])[0]))
            inputs, height, width = outputs, (height - kernel + 1) // 2, (width - kernel + 1) // 2
        if min(height, width) < 1:
            raise ValueError(
                f"images of {shape[1]}×{shape[2]} are too small for {len(channels)} convolutions and poolings"
            )
        _add_linear(self, [inputs * height * width, *_widths("hidden", hidden), classes])

    def forward(self, x: Tensor) -> Tensor:
        for layer in _layers(self, "conv"):
            x = self.pooling(self.activation(layer(x)), 2)
        x = torch.flatten(x, 1)
        *hidden, last = _layers(self, "fc")
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)


class MLP(nn.Module):
    """A perceptron, by default with two hidden layers, 28·28 in.

    fc1  500  (784 + 1)·500 = 392,500 parameters   matched: (784 + 1)·55 = 43,175
    fc2  150  (500 + 1)·150 =  75,150                        (55 + 1)·19 =  1,064
    fc3  10   (150 + 1)·10  =   1,510                        (19 + 1)·10 =    200
    """

    def __init__(
        self,
        shape: Shape = (1, 28, 28),
        classes: int = 10,
        hidden: Sequence[int] = (500, 150),
        activation: str = "relu",
    ) -> None:
        """One hidden layer for each width of `hidden`; without any, softmax regression."""
        super().__init__()
        self.activation = _one_of("activation", activation, ACTIVATIONS)
        _add_linear(self, [math.prod(shape), *_widths("hidden", hidden), classes])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        *hidden, last = _layers(self, "fc")
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
}

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "mlp": MLP,
    # The hidden widths bring it within 13 parameters of lenet5: what "of similar size" takes.
    "mlp_matched": partial(MLP, hidden=(55, 19)),
}
"""Called with an image's shape, the number of classes and the config's arguments."""


class Adapted(nn.Module):
    """A model that takes images in another form, or has several outputs, as one of [N, C, H, W] to logits."""

    def __init__(self, model: nn.Module, input_: str | None, output: int | str | None) -> None:
        super().__init__()
        self.model, self.input, self.output = model, input_, output

    def forward(self, x: Tensor) -> Tensor:
        if self.input is not None:
            x = x.flatten(1) if self.input == "flat" else x.squeeze(1)
        y = self.model(x)
        return y if self.output is None else y[self.output]


def build(model: str | Model, shape: Shape, classes: int, *, seed: int = 0) -> nn.Module:
    """The module of a config's model: built in, or a user's `package.module:Class`, with the arguments given.

    Its weights are drawn from the stream of `seed`. `shape` is an image's (channels, height, width). Raises UserError
    if there is no such model, or if it does not map images [N, *shape] to logits [N, classes].
    """
    spec = Model.of(model)
    with process.undisturbed():
        module = _made(spec, shape, classes, seed)
        lazy = any(isinstance(part, LazyModuleMixin) for part in module.modules())
        try:
            output = _tried(module, shape)
        except (Exception, SystemExit) as error:
            # A user's code may raise anything, and what it says may hold anything.
            cure = _other_input(spec, shape, classes) or _other_images(spec, shape, classes)
            raise UserError(
                f"models: {spec.name!r} cannot take images of {_times(shape)} ({mask(str(error))}){cure}"
            ) from None
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        found = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        cure = _one_output(spec, output, classes) if spec.output is None else ""
        cure = cure or _other_input(spec, shape, classes)
        raise UserError(
            f"models: {spec.name!r} gives {found} for 2 images; allowed: [2, {classes}], one logit a class{cure}"
        )
    if unused := [name for name, p in (*module.named_parameters(), *module.named_buffers()) if is_lazy(p)]:
        raise UserError(
            f"models: {spec.name!r}: {unused[0]} has no size, since forward does not use its lazy layer; allowed: lazy "
            "layers that forward uses"
        )
    if spec.model in BUILT_IN or lazy:
        return module.train()
    # Another one, since a model may take its first batch, here two black images, to initialise itself by.
    with process.undisturbed():
        return _made(spec, shape, classes, seed).train()


def _made(spec: Model, shape: Shape, classes: int, seed: int) -> nn.Module:
    """A module fresh from its constructor, not called yet."""
    # Imported before anything is seeded: a file may draw random numbers and seed on import.
    constructor = _constructor(spec.model)
    _see_that_arguments_fit(spec, constructor)
    if spec.input == "rows" and shape[0] != 1:
        raise UserError(f"models: {spec.name!r}: input: found 'rows'; allowed for {shape[0]} channels: flat, or null")
    process.seed(seed)
    given = (shape, classes) if spec.model in BUILT_IN else ()
    try:
        # Copies, since a constructor may modify its arguments.
        module = constructor(*given, **copy.deepcopy(spec.arguments))
    except (Exception, SystemExit) as error:
        # A user's code may raise anything, and what it says may hold anything.
        raise UserError(f"models: {spec.name!r} cannot be made: {type(error).__name__}: {mask(str(error))}") from None
    if not isinstance(module, nn.Module):
        raise UserError(
            f"models: found {spec.name!r}, which makes a {type(module).__name__}; allowed: a torch.nn.Module"
        )
    return module if spec.input is None and spec.output is None else Adapted(module, spec.input, spec.output)


@torch.no_grad()
def _tried(module: nn.Module, shape: Shape) -> object:
    """A module's output for two images."""
    return module.eval()(torch.zeros(2, *shape))


def _other_input(spec: Model, shape: Shape, classes: int) -> str:
    """The form of images that would suit the model, as the end of a message."""
    for form in ("flat", "rows") if spec.input is None else ():
        other = spec.model_copy(update={"input": form})
        try:
            output = _tried(_made(other, shape, classes, 0), shape)
        except (Exception, SystemExit):
            continue
        if _one_output(other, output, classes) or (isinstance(output, Tensor) and output.shape == (2, classes)):
            return (
                f"; allowed: images of the form that it takes, with {{name: …, model: {spec.model!r}, input: {form}}}"
            )
    return ""


def _other_images(spec: Model, shape: Shape, classes: int) -> str:
    """The dataset options with which its images would suit the model, as the end of a message."""
    channels, height, width = shape
    for depth, pad in product((channels, 4 - channels), PADS):
        other = (depth if depth in (1, 3) else channels, height + 2 * pad, width + 2 * pad)
        try:
            output = _tried(_made(spec, other, classes, 0), other)
        except (Exception, SystemExit):
            continue
        if not isinstance(output, Tensor) or output.shape == (2, classes):
            options = [f"pad: {pad}"] * (pad > 0) + [f"channels: {other[0]}"] * (other[0] != channels)
            return f"; allowed: {_times(other)}, with dataset: {{name: …, {', '.join(options)}}}"
    return ""


def _one_output(spec: Model, output: object, classes: int) -> str:
    """Which of several outputs may be the logits, as the end of a message."""
    outputs = (
        output.items() if isinstance(output, Mapping) else enumerate(output if isinstance(output, tuple | list) else ())
    )
    for key, one in outputs:
        if isinstance(one, Tensor) and one.shape == (2, classes):
            given = "" if spec.input is None else f"input: {spec.input}, "
            return f", as its output {key!r} has: {{name: …, model: {spec.model!r}, {given}output: {key}}}"
    return ""


def check(
    model: str | Model,
    shape: Shape,
    classes: int,
    *,
    smallest_batch: int = 2,
    pixel_mean: float = 0.0,
    pixel_sd: float = 1.0,
) -> list[str]:
    """Check that the model trains and that its seed decides its initial weights; returns what a user should know.

    `smallest_batch` is how many images the last batch of an epoch has; pixels, in [0, 1], are normalised by
    `pixel_mean` and `pixel_sd`. Raises UserError, one line, where training it would fail or mean nothing.
    """
    spec = Model.of(model)
    if spec.model in BUILT_IN:
        return []
    first, again, other = (build(spec, shape, classes, seed=seed) for seed in (0, 0, 1))
    constants = _shared(spec, first, other)
    _see_that_an_optimizer_takes(spec, first)
    _see_that_memory_is_apart(spec, first)
    named, again_named, other_named = (dict(model.named_parameters()) for model in (first, again, other))
    weights = {name: (p, again_named[name], other_named[name]) for name, p in named.items()}
    if not any(p.requires_grad for p, _, _ in weights.values()):
        raise UserError(f"models: {spec.name!r} has no parameters that train")
    fixed = [name for name, (p, _, q) in weights.items() if torch.equal(p, q)]
    varied = [name for name in fixed if weights[name][0].unique().numel() > 1]
    if varied:
        # The file may use a seed of its own, or the clock, which shows a second later.
        time.sleep(1)
        later = dict(build(spec, shape, classes, seed=0).named_parameters())
        weights = {name: (p, later[name], q) for name, (p, _, q) in weights.items()}
    foreign = [name for name, (p, q, _) in weights.items() if not torch.equal(p, q)]
    buffers = dict(again.named_buffers())
    foreign += [name for name, b in first.named_buffers() if not torch.equal(b, buffers[name])]
    if foreign:
        raise UserError(
            f"models: {spec.name!r}: {foreign[0]} differs from one making to the next with the same seed; allowed: "
            "weights drawn from the generators of torch, NumPy or Python, not from time, os.urandom or default_rng()"
        )
    if len(fixed) == len(weights):
        raise UserError(
            f"models: {spec.name!r} begins with the same weights for every seed; allowed: a model whose weights are "
            "drawn as it is made, without a seed of its own such as torch.manual_seed(42)"
        )
    batch = f" on a batch of {smallest_batch} (the last of an epoch)" if smallest_batch < 2 else ""
    images = torch.rand(smallest_batch, *shape, generator=torch.Generator().manual_seed(0))
    try:
        logits = _trained(first, (images - pixel_mean) / pixel_sd, classes)
    except (Exception, SystemExit) as error:
        cure = ""
        if (pixel_mean, pixel_sd) != (0, 1):
            with contextlib.suppress(Exception, SystemExit):
                _trained(again, images, classes)
                cure = "; allowed: pixels in [0, 1], with dataset: {name: …, normalise: false}"
        raise UserError(f"models: {spec.name!r} cannot be trained{batch}: {mask(str(error))}{cure}") from None
    if not isinstance(logits, Tensor) or logits.shape != (smallest_batch, classes):
        found = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError(
            f"models: {spec.name!r} gives {found} as it trains{batch}; allowed: [{smallest_batch}, {classes}], as in "
            "evaluation"
        )
    if changed := [name for name, (now, before) in constants.items() if not torch.equal(now, before)]:
        raise _is_shared(spec, changed[0])
    same = ", ".join(name for name in varied if weights[name][0].requires_grad)
    return [f"{spec.name}: every seed begins with the same {same}"] if same else []


def _trained(model: nn.Module, images: Tensor, classes: int) -> object:
    """What the model gives for the images as it trains, after two steps: one must not need what is left of another."""
    with process.undisturbed():
        for _ in range(2):
            # A copy, since a layer may work in place.
            logits = model(images.clone())
            if isinstance(logits, Tensor) and logits.shape == (len(images), classes):
                logits.sum().backward()
    return logits


def _shared(spec: Model, first: nn.Module, other: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The buffers that two models of one kind share, by name, and what they hold: constants may be shared.

    Raises UserError where the models share a parameter.
    """
    elsewhere = {id(tensor) for tensor in (*other.parameters(), *other.buffers())}
    if parameters := [name for name, p in first.named_parameters() if id(p) in elsewhere]:
        raise _is_shared(spec, parameters[0])
    return {name: (b, b.clone()) for name, b in first.named_buffers() if id(b) in elsewhere}


def _is_shared(spec: Model, name: str) -> UserError:
    return UserError(
        f"models: {spec.name!r}: {name} is the same tensor in all models of its kind; allowed: layers that the "
        "constructor makes, not those of a default argument or of the file's top level"
    )


def _see_that_an_optimizer_takes(spec: Model, model: nn.Module) -> None:
    """Raise UserError where the parameters that train are not real numbers of one type."""
    first: dict[torch.dtype, str] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            first.setdefault(parameter.dtype, name)
        if parameter.requires_grad and parameter.is_complex():
            raise UserError(
                f"models: {spec.name!r}: {name} is complex; allowed: real parameters, as the two parts of which "
                "torch.view_as_complex makes one"
            )
    if len(first) > 1:
        found = ", ".join(f"{name}: {str(dtype).removeprefix('torch.')}" for dtype, name in first.items())
        raise UserError(f"models: {spec.name!r}: found parameters of several types ({found}); allowed: one for all")


def _see_that_memory_is_apart(spec: Model, model: nn.Module) -> None:
    """Raise UserError where a parameter that trains lies in the memory of another tensor, which training would part."""
    spans = sorted(
        (t.data_ptr(), t.data_ptr() + t.element_size() * (1 + _reach(t)), name, t.requires_grad)
        for name, t in (*model.named_parameters(), *model.named_buffers())
        if t.numel() and t.layout is torch.strided
    )
    for (_, end, one, trains), (start, _, other, too) in pairwise(spans):
        if start < end and (trains or too):
            raise UserError(
                f"models: {spec.name!r}: {one} and {other} share memory, and would not as they train; allowed: the "
                "same Parameter in both places, or F.linear(x, weight.t()) and the like"
            )


def _reach(tensor: Tensor) -> int:
    """How far its last number lies from its first, in numbers."""
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def joined(
    model: str | Model, members: Sequence[nn.Module], shape: Shape, classes: int, *, shared: bool = True
) -> Members:
    """The members, made by `build`, as one module: fused where that is exact, else side by side."""
    if why_apart(model, shape, classes, shared=shared) is None:
        return fuse(members, shape, shared=shared)
    return SideBySide(members, shared=shared)


def why_apart(model: str | Model, shape: Shape, classes: int, *, shared: bool = True) -> str | None:
    """Why the model trains side by side, in a few words; None where it trains fused. See `build`."""
    models = [build(model, shape, classes, seed=seed) for seed in range(2)]
    try:
        with process.undisturbed():
            see_that_it_agrees(models, shape, shared=shared)
    except NotFused as reason:
        return str(reason)
    except (Exception, SystemExit) as error:
        # A user's code may raise anything, in particular when it is traced or runs in float64.
        return f"{type(error).__name__}: {mask(str(error))}"
    return None


def identity(model: str | Model, shape: Shape, classes: int) -> ModelInfo:
    """What a model's runs record about it.

    Raises UserError if there is no such model; see `build`.
    """
    spec, module = Model.of(model), build(model, shape, classes)
    content: list[object] = [[key, list(p.shape)] for key, p in module.named_parameters()]
    if spec.model not in BUILT_IN:
        name, _, attribute = spec.model.partition(":")
        content += source.code(name, attribute, module.model if isinstance(module, Adapted) else module)
    content += [{"arguments": spec.arguments}] if spec.arguments else []
    content += [{"input": spec.input}] if spec.input is not None else []
    content += [{"output": spec.output}] if spec.output is not None else []
    layers = describe(module, shape)
    n_parameters = sum(p.numel() for p in module.parameters())
    return ModelInfo(
        fingerprint=digest(content),
        n_parameters=n_parameters,
        macs=sum(layer.macs for layer in layers),
        layers=tuple(layers),
    )


class OtherModel(UserError):
    """The model differs from the planned one."""


def see_that_it_is_planned(run: Run, data: DatasetInfo) -> None:
    """Raise OtherModel where this process has another model than the run's planned one."""
    if (found := identity(run.built_from, data.shape, data.classes).fingerprint) != run.model_fingerprint:
        raise OtherModel(
            f"models: {run.model!r} is another model on {platform.node()} ({found}) than was planned "
            f"({run.model_fingerprint}); allowed: the source as it was, then --retry-failed"
        )


def describe(model: nn.Module, shape: Shape) -> list[Layer]:
    """Every layer that has parameters, in the order in which an image of `shape` passes them; then the rest."""
    layers: list[Layer] = []
    names = {module: name or "itself" for name, module in model.named_modules()}

    def visit(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ANN401
        n_parameters = sum(p.numel() for p in module.parameters(recurse=False))
        while isinstance(output, tuple | list | Mapping):
            output = next(iter(output.values() if isinstance(output, Mapping) else output), None)
        image = output[0] if isinstance(output, Tensor) else torch.empty(0)
        formula, macs = _arithmetic(module, image)
        layers.append(
            Layer(
                name=names[module],
                kind=_kind(module),
                output_shape=tuple(image.shape),
                formula=formula,
                n_parameters=n_parameters,
                macs=macs,
            )
        )

    hooks = [module.register_forward_hook(visit) for module in names if list(module.parameters(recurse=False))]
    mode = model.training
    try:
        with process.undisturbed(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    # Matrix products outside layers, such as attention. A multiply-accumulate is two operations.
    if (rest := counter.get_total_flops() // 2 - sum(layer.macs for layer in layers)) > 0:
        layers.append(
            Layer(name="outside layers", kind="products", output_shape=(), formula="", n_parameters=0, macs=rest)
        )
    return layers


def show(names: Sequence[str], console: Console) -> None:
    """Print each model layer by layer, for MNIST: output shape, parameters with their formula, multiply-accumulates.

    Raises UserError where there is no such model, or where it cannot be trained.
    """
    shape, classes = (1, 28, 28), 10
    for name in names or BUILT_IN:
        notes = check(name, shape, classes)
        model = build(name, shape, classes)
        layers = describe(model, shape)
        reason = why_apart(name, shape, classes)
        trains = f"side by side ({reason})" if reason else "fused"
        title = f"{name}: {_times(shape)} in, {classes} classes; trains {trains}"
        console.print(title, style="bold", highlight=False, soft_wrap=True)
        table = Table(box=None, header_style="dim", pad_edge=False)
        for column in ("layer", "output", "parameters"):
            table.add_column(column)
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
        for note in notes:
            console.print(note, highlight=False, soft_wrap=True)
        if name in BUILT_IN:
            arguments = ", ".join(f"{key}: {value}" for key, value in _arguments(name).items())
            console.print(f"arguments: {arguments}", highlight=False, soft_wrap=True)
        console.print()


def _see_that_arguments_fit(spec: Model, constructor: Callable[..., object]) -> None:
    """Raise UserError where the config's arguments are not those that the model's class or function takes."""
    try:
        parameters = inspect.signature(constructor).parameters.values()
    except (ValueError, TypeError):
        # No signature, as of a function written in C: calling it will tell.
        return
    own = [p for p in parameters if not (spec.model in BUILT_IN and p.name in ("shape", "classes"))]
    known = [p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [key for key in spec.arguments if key not in known]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in own):
        allowed = ", ".join(known) or "none"
        raise UserError(f"models: {spec.name!r}: found the argument {unknown[0]!r}; allowed: {allowed}")
    needed = [p.name for p in own if p.name in known and p.default is p.empty and p.name not in spec.arguments]
    if needed:
        values = ", ".join(f"{name}: …" for name in needed)
        raise UserError(
            f"models: {spec.name!r} needs arguments ({', '.join(needed)}); "
            f"allowed: {{name: …, model: {spec.model!r}, arguments: {{{values}}}}}"
        )


def _arguments(name: str) -> dict[str, object]:
    """The arguments of a built-in model and their defaults."""
    parameters = inspect.signature(BUILT_IN[name]).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in ("shape", "classes")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def _widths(name: str, widths: Sequence[int]) -> list[int]:
    """The widths of layers. Raises ValueError for anything but whole numbers from 1."""
    if not isinstance(widths, list | tuple) or not all(type(width) is int and width > 0 for width in widths):
        raise ValueError(f"{name}: found {widths!r}; allowed: a list of whole numbers from 1")
    return list(widths)


def _one_of(name: str, word: str, words: Mapping[str, Callable[..., Tensor]]) -> Callable[..., Tensor]:
    if word not in words:
        raise ValueError(f"{name}: found {word!r}; allowed: {', '.join(words)}")
    return words[word]


def _add_linear(module: nn.Module, sizes: Sequence[int]) -> None:
    for i, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        module.add_module(f"fc{i}", nn.Linear(inputs, outputs))


def _layers(module: nn.Module, kind: str) -> list[nn.Module]:
    return [layer for name, layer in module.named_children() if name.startswith(kind)]


def _constructor(name: str) -> Callable[..., object]:
    if name in BUILT_IN:
        return BUILT_IN[name]
    allowed = f"{', '.join(BUILT_IN)}, or an import path such as mypackage.nets:MyNet"
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"models: found {name!r}; allowed: {allowed}")
    try:
        # Not part of building the model: what a file sets on import, it sets once per process, and what it draws is
        # the same in all of them.
        with process.undisturbed():
            process.seed(0)
            imported = importlib.import_module(module)
        source.remember()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {mask(str(error))}"
        raise UserError(f"models: found {name!r}, which cannot be imported ({reason}); allowed: {allowed}") from None
    if not hasattr(imported, attribute):
        raise UserError(f"models: found {name!r}, but {module} has no {attribute}; allowed: {allowed}")
    found = getattr(imported, attribute)
    if isinstance(found, nn.Module):
        # Created on import of its file: to draw other weights, the file is run again.
        return lambda: getattr(source.run_again(imported), attribute)
    if not callable(found):
        raise UserError(f"models: found {name!r}, which is a {type(found).__name__}; allowed: a class")
    return found


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _kind(module: nn.Module) -> str:
    if isinstance(module, CONVOLUTIONS):
        return f"conv {'×'.join(map(str, module.kernel_size))}"
    return "linear" if type(module) is nn.Linear else type(module).__name__


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

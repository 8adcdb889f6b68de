"""K models of one kind as one: horizontally fused training (Wang et al., MLSys 2021).

The plain module is traced, and each layer replaced by one that holds K of it (layers.py). Until the first layer with
parameters, members that share a batch also share the activations.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from study.training import layers, process
from study.training.layers import Masks

IMAGES = 7
"""Images that a model is traced with."""

ELEMENTWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Tanhshrink, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish),
    *(nn.Hardshrink, nn.Softshrink, nn.Threshold, nn.Identity),
)
SPATIAL_MODULES = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.LPPool1d, nn.LPPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.CircularPad1d, nn.CircularPad2d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
)
"""Modules that treat every channel alike and apart."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _words("""
    relu relu_ relu6 elu elu_ selu selu_ celu celu_ gelu leaky_relu leaky_relu_ silu mish softplus softsign tanh tanh_
    tanhshrink hardtanh hardtanh_ sigmoid sigmoid_ logsigmoid hardsigmoid hardswish hardshrink softshrink threshold
    threshold_ abs exp expm1 log log1p sqrt rsqrt square sin cos atan erf neg neg_ reciprocal clamp clamp_min clamp_max
    pow add add_ sub sub_ mul mul_ div div_ true_divide truediv iadd isub imul itruediv maximum minimum
""")
"""Names of functions, methods and operators that treat every number apart; of two activations, pair by pair."""

SPATIAL = _words("""
    max_pool1d max_pool2d avg_pool1d avg_pool2d lp_pool1d lp_pool2d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d
""")
RESHAPES = {"view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "ravel"}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
DROPOUTS = {"dropout", "dropout2d"}
SAME = {"contiguous", "clone"}
"""Methods that give what they are given."""

UNTRACED = nn.Module.__call__, nn.Module.__getattr__


class NotFused(Exception):
    """Why a model cannot be fused, in a few words: it trains side by side."""


class Fused(fx.GraphModule):
    """K models of one kind: [N, C, H, W] (or [K, N, C, H, W] if its members do not share batches) to [K, N, classes].

    Its parameters and buffers are those of the models, stacked on a leading axis K.
    """

    masks: Masks
    streams: Sequence[np.random.Generator] = ()

    def draw_from(self, streams: Sequence[np.random.Generator]) -> None:
        """Seed each forward pass from these streams: one for all members, or K."""
        self.streams = streams

    def stacked_buffers(self) -> list[Tensor]:
        """The members' buffers, such as running means, stacked on a leading axis K."""
        return list(self.buffers())

    @torch.no_grad()
    def load_buffers(self, saved: Sequence[Tensor]) -> None:
        """Set the members' buffers to what `stacked_buffers` gave."""
        for buffer, stack in zip(self.buffers(), saved, strict=True):
            buffer.copy_(stack)


def _seed_masks(fused: Fused, inputs: tuple[Tensor, ...]) -> None:
    if fused.streams:
        fused.masks.seed([int(stream.integers(2**63)) for stream in fused.streams], inputs[0].device)


def fuse(models: Sequence[nn.Module], shape: Sequence[int], *, shared: bool = True) -> Fused:
    """All `models` as one, of images of `shape`. Raises NotFused, naming the layer, where one cannot be fused."""
    plain, when = _traced(models[0], shape)
    fusion = _Fusion(plain, when, models, shared)
    fused = Fused(fusion.root, fusion.graph)
    fusion.keep_unused(fused)
    fused.masks = fusion.masks
    if any(isinstance(module, layers.FusedDropout) for module in fused.modules()):
        fused.register_forward_pre_hook(_seed_masks)
    return fused


def see_that_it_agrees(models: Sequence[nn.Module], shape: Sequence[int], *, shared: bool = True) -> None:
    """Raise NotFused unless `models` compute fused what they compute apart, in values, gradients and buffers.

    Whatever a tracer cannot see in a model, a random batch in float64 shows. The models are converted, and of no
    further use.
    """
    apart = [model.double() for model in models]
    fused = fuse(apart, shape, shared=shared)
    seeds = [1] * len(models) if shared else list(range(len(models)))
    random = torch.Generator().manual_seed(0)
    images = [torch.randn(3, *shape, dtype=torch.float64, generator=random) for _ in models]
    if shared:
        images = images[:1] * len(models)
    # Copies, since layers in place would write into what another member reads.
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for mode in (False, True):
        for module in (fused, *apart):
            module.train(mode)
        alone = []
        for model, x, seed in zip(apart, images, seeds, strict=True):
            process.seed(int(np.random.default_rng(seed).integers(2**63)))
            alone.append(model(x.clone()))
        fused.draw_from([np.random.default_rng(seed) for seed in (seeds[:1] if shared else seeds)])
        together = fused(images[0].clone() if shared else torch.stack(images))
        pairs["logits in training" if mode else "logits in evaluation"] = (torch.stack(alone), together)
    weights = torch.randn(together.shape, dtype=torch.float64, generator=random)
    (torch.stack(alone) * weights).sum().backward()
    (together * weights).sum().backward()
    named = [dict(model.named_parameters()) | dict(model.named_buffers()) for model in apart]
    for name, stack in {**dict(fused.named_parameters()), **dict(fused.named_buffers())}.items():
        own = [tensors[name] for tensors in named]
        pairs[name] = torch.stack(own).detach(), stack.detach()
        if stack.grad is not None or own[0].grad is not None:
            *parts, whole = (torch.zeros_like(p) if p.grad is None else p.grad for p in (*own, stack))
            pairs[f"gradient of {name}"] = torch.stack(parts), whole
    # A gradient that is zero, as of a bias before a batch norm, is rounding of the others.
    gradients = [expected for what, (expected, _) in pairs.items() if what.startswith("gradient")]
    largest = max((float(gradient.abs().max()) for gradient in gradients), default=0.0)
    for what, (expected, found) in pairs.items():
        scale = largest if what.startswith("gradient") else expected.abs().max()
        # Not `>`, which NaN would pass.
        if expected.shape != found.shape or not (expected - found).abs().max() <= 1e-9 * scale:
            raise NotFused(f"fused, it computes something else ({what})")


class _Activation(fx.Proxy):
    """What a traced layer gives: its shape is known, so that a model may ask for it; its values are not."""

    @property
    def value(self) -> Tensor:
        """A tensor of its shape, without values."""
        return self.node.meta["value"]

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.dim()

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.value.shape if dim is None else self.value.shape[dim]

    def dim(self) -> int:
        return self.value.dim()

    def numel(self) -> int:
        return self.value.numel()

    def __len__(self) -> int:
        return len(self.value)


class _Tracer(fx.Tracer):
    """Traces a module on the meta device, where tensors have shapes and no values."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self._images = torch.empty(IMAGES, *shape, device="meta", dtype=torch.float64)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Activation(node, self)

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest: Any, **named: Any) -> fx.Proxy:  # noqa: ANN401
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            # The graph would have its layers, and not the precision that they compute in.
            raise NotFused("it uses autocast")
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        if kind != "output":
            # Tracing turns every call of a module into a node, also those within a layer.
            traced = nn.Module.__call__, nn.Module.__getattr__
            nn.Module.__call__, nn.Module.__getattr__ = UNTRACED
            try:
                proxy.node.meta["value"] = self._value(proxy.node)
            finally:
                nn.Module.__call__, nn.Module.__getattr__ = traced
        return proxy

    def _value(self, node: fx.Node) -> object:
        if "value" in node.meta:
            return node.meta["value"]
        if node.op == "placeholder":
            return self._images
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.root)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._value)
        if node.op == "call_module":
            layer = self.root.get_submodule(node.target)
            # Without a momentum, a batch norm asks how many batches it has seen, which here is no number.
            return args[0] if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) else layer(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


class _Model(nn.Module):
    """A model that is given the images alone: its other arguments keep their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _traced(model: nn.Module, shape: Sequence[int]) -> tuple[fx.GraphModule, dict[fx.Node, tuple[bool, bool]]]:
    """The model as a graph, and when each functional dropout in it is active: as it trains, and as it is evaluated."""
    try:
        # A copy, so that tracing leaves no state in the model.
        root = _Model(copy.deepcopy(model).to("meta", torch.float64))
        modes, numbers = [], []
        for mode in (True, False, True):
            with torch.no_grad():
                tracer = _Tracer(shape)
                modes.append(fx.GraphModule(root, tracer.trace(root.train(mode))))
            numbers.append(_numbers(root))
    except NotFused:
        raise
    except (Exception, SystemExit) as error:
        # A user's code may raise anything when it meets no values.
        raise NotFused(f"it cannot be traced ({type(error).__name__})") from None
    if numbers[0] != numbers[2]:
        raise NotFused("its own numbers change as it trains")
    training, evaluation, _ = (list(plain.graph.nodes) for plain in modes)
    when = {}
    for node, other in zip(training, evaluation, strict=False):
        if node.op == "call_function" and _name(node) in DROPOUTS:
            when[node] = _active(node), _active(other)
            # Otherwise alike: a rate that changes is no dropout's that can be fused.
            if "training" in node.kwargs and "training" in other.kwargs:
                other.kwargs = {**other.kwargs, "training": node.kwargs["training"]}
            other.args = (*other.args[:2], *node.args[2:3], *other.args[3:])
    if [_described(node) for node in training] != [_described(node) for node in evaluation]:
        raise NotFused("it does other things as it trains than as it is evaluated")
    return modes[0], when


def _numbers(root: nn.Module) -> dict[tuple[str, str], float]:
    """The plain numbers that a model and its layers hold, as a rate that changes from one step to the next."""
    return {
        (name, key): value
        for name, module in root.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float) and key != "training"
    }


def _described(node: fx.Node) -> tuple[object, ...]:
    return node.op, node.target, repr(node.args), repr(node.kwargs)


def _active(node: fx.Node) -> bool:
    return bool(_arguments(node, ("p", "training", "inplace")).get("training", True))


def _arguments(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """The arguments of a call after its input, by name."""
    return dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)


def _name(node: fx.Node) -> str:
    """The name of the function, method or operator that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


@dataclass(frozen=True)
class _Part:
    """An activation of the fused graph, and what a member sees of it."""

    node: fx.Node
    shape: tuple[int, ...]
    """Of one image, in one member: channels first, or features alone."""
    shared: bool
    """Whether it is one for all members."""

    @property
    def features(self) -> bool:
        return len(self.shape) == 1


class _Fusion:
    """Rewrites the traced graph node by node."""

    def __init__(
        self,
        plain: fx.GraphModule,
        when: dict[fx.Node, tuple[bool, bool]],
        models: Sequence[nn.Module],
        shared: bool,
    ) -> None:
        self.root, self.graph, self.masks = nn.Module(), fx.Graph(), Masks()
        self._plain, self._when, self._models, self._members = plain, when, models, len(models)
        self._siblings = [dict(model.named_modules(remove_duplicate=False)) for model in models]
        self._stacks: dict[int, Tensor] = {}
        self._parts: dict[fx.Node, _Part] = {}
        _in_first_place(plain)
        _pool_before_relu(plain)
        for node in plain.graph.nodes:
            if node.op == "output":
                self._output(node)
            elif node.op == "placeholder":
                x = self.graph.placeholder("x")
                new = x if shared else self.graph.call_function(layers.to_channels, (x,))
                self._parts[node] = _Part(new, self._shape(node), shared)
            elif node.op == "call_module":
                self._parts[node] = self._module(node)
            elif node.op in ("call_function", "call_method"):
                self._parts[node] = self._function(node)
            else:
                raise NotFused(f"{node.target.removeprefix('model.')} is outside layers")
        self.graph.lint()

    def keep_unused(self, fused: nn.Module) -> None:
        """Give `fused` what no layer uses, as a checkpoint keeps it."""
        for name, first in (*self._models[0].named_parameters(), *self._models[0].named_buffers()):
            if id(first) not in self._stacks:
                stack = self._stack([operator.attrgetter(name)(model) for model in self._models])
                owner, leaf = _place(fused, name)
                (owner.register_parameter if isinstance(first, nn.Parameter) else owner.register_buffer)(leaf, stack)

    def _output(self, node: fx.Node) -> None:
        part = self._part(node.args[0], node)
        if part.shared or not part.features:
            raise NotFused("it does not end in features of each member's own")
        self.graph.output(self.graph.call_method("transpose", (part.node, 1, 2)))

    def _module(self, node: fx.Node) -> _Part:
        name = node.target.removeprefix("model.")
        siblings = [modules[name] for modules in self._siblings]
        layer, kind = siblings[0], type(siblings[0])
        if len({repr(sibling) for sibling in siblings}) > 1:
            raise self._cannot(node, "it differs between two instances of the model")
        if len(node.args) != 1 or node.kwargs:
            raise self._cannot(node)
        part = self._part(node.args[0], node)
        if kind in (nn.Flatten, nn.Unflatten):
            return self._reshape(node, part)
        if kind in ELEMENTWISE_MODULES or (kind in SPATIAL_MODULES and (part.shared or not part.features)):
            return self._add(node, part, name, layer)
        if kind in (nn.LogSoftmax, nn.Softmax):
            return self._softmax(node, part, kind is nn.LogSoftmax, layer.dim)
        if kind in (nn.Dropout, nn.Dropout2d):
            return self._dropout(node, part, name, layer.p, kind is nn.Dropout2d, (True, False))
        stack = self._stack_of(siblings)
        if kind is nn.Linear and part.features:
            return self._add(node, part, name, layers.FusedLinear(stack), shared=False)
        if (
            kind in (nn.Conv1d, nn.Conv2d)
            and layer.padding_mode == "zeros"
            and len(part.shape) == layer.weight.dim() - 1
        ):
            return self._add(node, part, name, layers.FusedConv(layer, stack), shared=False)
        own, features = self._own(part), part.features
        if kind is nn.BatchNorm2d or (kind is nn.BatchNorm1d and len(part.shape) <= 2):
            return self._add(node, own, name, layers.FusedBatchNorm(layer, stack, features=features))
        if kind is nn.GroupNorm:
            return self._add(node, own, name, layers.FusedGroupNorm(layer, stack, self._members, features=features))
        if kind is nn.LayerNorm:
            return self._add(node, own, name, layers.FusedLayerNorm(layer, stack, self._members, features=features))
        if kind is nn.PReLU:
            return self._add(node, own, name, layers.FusedPReLU(stack, features=features))
        raise self._cannot(node, kind.__name__)

    def _function(self, node: fx.Node) -> _Part:
        name = _name(node)
        if name in ELEMENTWISE:
            return self._elementwise(node)
        if name == "cat" or name == "concat":
            return self._cat(node)
        part = self._part(node.args[0] if node.args else None, node)
        if name in SAME:
            return part
        if name in RESHAPES:
            return self._reshape(node, part)
        if name in DROPOUTS:
            p = _arguments(node, ("p", "training", "inplace")).get("p", 0.5)
            return self._dropout(node, part, node.name, p, name == "dropout2d", self._when[node])
        if name in ("softmax", "log_softmax"):
            dim = _arguments(node, ("dim",)).get("dim")
            return self._softmax(node, part, name == "log_softmax", dim)
        if part.shared or (name in SPATIAL and not part.features):
            return self._copy(node, part)
        if name == "pad" and not part.features and len(node.args[1]) <= 2 * (len(part.shape) - 1):
            return self._copy(node, part)
        if name in REDUCTIONS:
            return self._reduce(node, part)
        raise self._cannot(node)

    def _elementwise(self, node: fx.Node) -> _Part:
        given = [part for part in (*node.args, *node.kwargs.values()) if isinstance(part, fx.Node)]
        parts = {other: self._part(other, node) for other in given}
        if not all(part.shared for part in parts.values()):
            parts = {other: self._own(part) for other, part in parts.items()}
            first, *others = (part.shape for part in parts.values())
            # Channels lie members by members, so there is none for all of a member's.
            if any(len(first) != len(other) or (len(first) > 1 and first[0] != other[0]) for other in others):
                raise self._cannot(node, "of activations of several shapes")
        new = self.graph.node_copy(node, lambda other: parts[other].node)
        return _Part(new, self._shape(node), parts[given[0]].shared)

    def _cat(self, node: fx.Node) -> _Part:
        dim = _arguments(node, ("dim",)).get("dim", 0)
        parts = [self._part(other, node) for other in node.args[0]]
        axes = len(parts[0].shape) + 1
        dim %= axes
        shared = all(part.shared for part in parts)
        own = [part if shared else self._own(part) for part in parts]
        nodes = [part.node for part in own]
        if dim == 0:
            raise self._cannot(node, "of images")
        if dim == 1 and not shared and axes > 2:
            new = self.graph.call_function(layers.join_channels, (nodes, self._members))
        else:
            new = self.graph.call_function(torch.cat, (nodes, dim))
        return _Part(new, self._shape(node), shared)

    def _reshape(self, node: fx.Node, part: _Part) -> _Part:
        shape = self._shape(node)
        if not shape:
            raise self._cannot(node, "of images")
        if part.shared:
            new = self.graph.call_function(layers.reshape_shared, (part.node, *shape))
        elif part.features and len(shape) == 1:
            new = part.node
        elif part.features:
            new = self.graph.call_function(layers.reshape_features, (part.node, *shape))
        elif len(shape) == 1:
            new = self.graph.call_function(layers.features, (part.node, self._members))
        elif shape == part.shape:
            new = part.node
        else:
            new = self.graph.call_function(layers.reshape_channels, (part.node, self._members, *shape))
        return _Part(new, shape, part.shared)

    def _reduce(self, node: fx.Node, part: _Part) -> _Part:
        """A mean or the like over other axes than images and channels."""
        given = _arguments(node, ("dim", "keepdim"))
        dims = given.get("dim")
        dims = [dim % (len(part.shape) + 1) for dim in ((dims,) if isinstance(dims, int) else dims or (0,))]
        if min(dims) < 2 or part.features:
            raise self._cannot(node, "over images, channels or features")
        new, shape = self.graph.node_copy(node, lambda other: self._parts[other].node), self._shape(node)
        if len(shape) == 1:
            new = self.graph.call_function(layers.features, (new, self._members))
        return _Part(new, shape, False)

    def _softmax(self, node: fx.Node, part: _Part, log: bool, dim: int | None) -> _Part:
        if not part.features or part.shared or dim not in (None, 1, -1):
            raise self._cannot(node)
        new = self.graph.call_function(F.log_softmax if log else F.softmax, (part.node, 1))
        return _Part(new, part.shape, False)

    def _dropout(self, node: fx.Node, part: _Part, name: str, p: float, whole: bool, when: tuple[bool, bool]) -> _Part:
        if whole and len(part.shape) != 3:
            raise self._cannot(node, "of anything but images")
        layer = layers.FusedDropout(
            p, self.masks, self._members, whole=whole, features=part.features, shared=part.shared, when=when
        )
        return self._add(node, part, name, layer)

    def _own(self, part: _Part) -> _Part:
        """A shared activation as one of each member's own."""
        if not part.shared:
            return part
        convert = layers.own_features if part.features else layers.own_channels
        return _Part(self.graph.call_function(convert, (part.node, self._members)), part.shape, False)

    def _copy(self, node: fx.Node, part: _Part) -> _Part:
        """The same call on the fused activation."""
        if any(other is not node.args[0] for other in node.all_input_nodes):
            raise self._cannot(node)
        new = self.graph.node_copy(node, lambda other: self._parts[other].node)
        return _Part(new, self._shape(node), part.shared)

    def _add(self, node: fx.Node, part: _Part, name: str, module: nn.Module, shared: bool | None = None) -> _Part:
        """A call of `module`, in the place of the plain one of that name; a layer that is used twice is one layer."""
        owner, leaf = _place(self.root, name)
        there = getattr(owner, leaf, None)
        if there is None:
            owner.add_module(leaf, module)
        elif vars(there).get("features") != vars(module).get("features") or type(there) is not type(module):
            raise self._cannot(node, "it is used in two ways")
        new = self.graph.call_module(name, (part.node,))
        return _Part(new, self._shape(node), part.shared if shared is None else shared)

    def _stack_of(self, siblings: Sequence[nn.Module]) -> Callable[[str], Tensor | None]:
        return lambda name: self._stack([getattr(sibling, name) for sibling in siblings])

    def _stack(self, own: Sequence[Tensor | None]) -> Tensor | None:
        """The members' tensors on a leading axis K; a tensor that two layers share is one here too."""
        first = own[0]
        if first is None:
            return None
        if id(first) not in self._stacks:
            stack = torch.stack([tensor.detach() for tensor in own if tensor is not None])
            is_parameter = isinstance(first, nn.Parameter)
            self._stacks[id(first)] = nn.Parameter(stack, first.requires_grad) if is_parameter else stack
        return self._stacks[id(first)]

    def _part(self, source: object, node: fx.Node) -> _Part:
        if not isinstance(source, fx.Node) or source not in self._parts:
            raise self._cannot(node)
        return self._parts[source]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        """What a node gives of one image."""
        value = node.meta["value"]
        if not isinstance(value, Tensor) or value.dim() < 2 or len(value) != IMAGES:
            raise self._cannot(node)
        return tuple(value.shape[1:])

    def _cannot(self, node: fx.Node, why: str | None = None) -> NotFused:
        name = node.target.removeprefix("model.") if node.op == "call_module" else _name(node)
        return NotFused(f"layer {name} ({why})" if why else f"layer {name}")


def _place(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Where a dotted name belongs below `root`: in which module, and its last part."""
    *parents, leaf = name.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    return root, leaf


def _in_first_place(plain: fx.GraphModule) -> None:
    """Give every call its input as first argument, also where the model names it: self.layer(input=x)."""
    for node in plain.graph.nodes:
        for name in ("input", "tensors"):
            if not node.args and name in node.kwargs:
                others = dict(node.kwargs)
                node.args, node.kwargs = (others.pop(name),), others


def _pool_before_relu(plain: fx.GraphModule) -> None:
    """Swap max-pooling with the ReLU before it: a quarter of the ReLUs, and the same values and gradients.

    ReLU is monotone, so the largest of four stays the largest, and where it is not positive both give no gradient.
    """
    for pool in list(plain.graph.nodes):
        relu = pool.args[0] if pool.args else None
        if not (_is(pool, plain, nn.MaxPool2d, "max_pool2d") and _is(relu, plain, nn.ReLU, "relu")):
            continue
        source = relu.args[0]
        # Whoever else reads what the ReLU takes or gives must find it as it was: the ReLU may work in place.
        if len(relu.users) == len(source.users) == 1:
            pool.replace_all_uses_with(relu)
            pool.replace_input_with(relu, source)
            relu.replace_input_with(source, pool)
            pool.append(relu)
            relu.meta["value"] = pool.meta["value"]


def _is(node: object, plain: fx.GraphModule, layer: type[nn.Module], function: str) -> bool:
    """Whether a node calls this kind of layer or this function."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        return isinstance(plain.get_submodule(node.target), layer)
    return node.op == "call_function" and _name(node) == function

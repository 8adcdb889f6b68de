"""K models of one kind as one: horizontally fused training (Wang et al., MLSys 2021).

The plain module is traced, and each layer replaced by one that holds K of it (layers.py). Until the first layer
with parameters, members that share a batch also share the activations.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from study.training.layers import Flatten, FusedConv2d, FusedLinear, ToImages

ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Identity)
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
FUNCTIONS = {
    *(F.relu, F.tanh, F.sigmoid, F.gelu, F.silu, F.elu, F.leaky_relu, F.softplus),
    *(torch.relu, torch.tanh, torch.sigmoid),
}
POOLING_FUNCTIONS = {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.max_pool2d}
METHODS = {"relu", "tanh", "sigmoid"}
SUMS = {operator.add, operator.iadd, torch.add}


class NotFused(Exception):
    """Why a model cannot be fused, in a few words: it trains side by side."""


@dataclass(frozen=True)
class Layout:
    """How an activation lies in memory: shared by all members or each member's own, images or features."""

    shared: bool
    images: bool


class Fused(fx.GraphModule):
    """K models of one kind: [N, C, H, W] (or [K, N, C, H, W] if its members do not share batches) to [K, N, classes].

    Its parameters and buffers are those of the models, stacked on a leading axis K, under the same names.
    """

    def draw_from(self, streams: Sequence[np.random.Generator]) -> None:
        """Let every forward pass draw its random numbers by the next seed of these streams: one for all, or K."""

    def stacked_buffers(self) -> list[Tensor]:
        """The members' buffers, such as running means, stacked on a leading axis K."""
        return list(self.buffers())

    @torch.no_grad()
    def load_buffers(self, saved: Sequence[Tensor]) -> None:
        """Set the members' buffers to what `stacked_buffers` gave."""
        for buffer, stack in zip(self.buffers(), saved, strict=True):
            buffer.copy_(stack)


def fuse(models: Sequence[nn.Module], *, shared: bool = True) -> Fused:
    """All `models` as one. Raises NotFused, naming the layer, where they hold one that cannot be fused."""
    if frozen := [name for name, parameter in models[0].named_parameters() if not parameter.requires_grad]:
        raise NotFused(f"{frozen[0]} is frozen")
    try:
        plain = fx.symbolic_trace(models[0])
    except (Exception, SystemExit) as error:
        # A user's code may raise anything when it meets no tensor.
        raise NotFused(f"it cannot be traced ({type(error).__name__})") from None
    if len(given := [node.name for node in plain.graph.nodes if node.op == "placeholder"]) > 1:
        raise NotFused(f"forward takes {', '.join(given)}")
    _in_first_place(plain)
    siblings = [dict(model.named_modules()) for model in models]
    fusion = _Fusion(plain, siblings, shared)
    fused = Fused(fusion.modules, fusion.graph)
    expected, found = dict(models[0].named_parameters()), dict(fused.named_parameters())
    if set(expected) != set(found):
        raise NotFused(f"parameters outside layers: {', '.join(sorted({*expected} ^ {*found}))}")
    return fused


def see_that_it_agrees(models: Sequence[nn.Module], shape: tuple[int, ...], *, shared: bool = True) -> None:
    """Raise NotFused unless `models` compute fused what they compute apart, in values and gradients.

    `shape` is an image's (channels, height, width). Whatever a tracer cannot see in a model, a random batch in
    float64 shows. The models are converted, and of no further use.
    """
    apart = [model.double() for model in models]
    fused = fuse(apart, shared=shared).double()
    random = torch.Generator().manual_seed(0)
    images = [torch.randn(3, *shape, dtype=torch.float64, generator=random) for _ in models]
    if shared:
        images = images[:1] * len(models)
    # Copies, since layers in place would write into what another member reads.
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for mode in (False, True):
        for module in (fused, *apart):
            module.train(mode)
        alone = torch.stack([model(x.clone()) for model, x in zip(apart, images, strict=True)])
        together = fused(images[0].clone() if shared else torch.stack(images))
        pairs["logits in training" if mode else "logits in evaluation"] = (alone, together)
    weights = torch.randn(alone.shape, dtype=torch.float64, generator=random)
    (alone * weights).sum().backward()
    (together * weights).sum().backward()
    for name, parameter in fused.named_parameters():
        pairs[f"gradient of {name}"] = (torch.stack([m.get_parameter(name).grad for m in apart]), parameter.grad)
    for what, (expected, found) in pairs.items():
        # Not `>`, which NaN would pass.
        if not (expected - found).abs().max() <= 1e-9 * expected.abs().max():
            raise NotFused(f"fused, it computes something else ({what})")


class _Fusion:
    """Rewrites the traced graph node by node, keeping track of each activation's layout."""

    def __init__(self, plain: fx.GraphModule, siblings: Sequence[dict[str, nn.Module]], shared: bool) -> None:
        self.modules = nn.Module()
        self.graph = fx.Graph()
        self._plain = plain
        self._siblings = siblings
        self._new: dict[fx.Node, fx.Node | None] = {}
        self._layouts: dict[fx.Node, Layout] = {}
        _pool_before_relu(plain)
        for node in plain.graph.nodes:
            self._new[node] = self._convert(node, shared)
        self.graph.lint()

    def _convert(self, node: fx.Node, shared: bool) -> fx.Node | None:
        if node.op == "placeholder":
            self._layouts[node] = Layout(shared, images=True)
            new = self.graph.placeholder("x")
            return new if shared else self._call("to_images", ToImages(), new)
        if node.op == "output":
            layout = self._layout(node.args[0], node)
            if layout.shared or layout.images:
                raise NotFused("it does not end in a linear layer")
            logits = self.graph.call_method("transpose", (self._new[node.args[0]], 1, 2))
            return self.graph.output(logits)
        if node.op == "call_module":
            return self._module(node)
        if node.op == "call_function" and node.target in SUMS:
            return self._sum(node)
        pools = node.op == "call_function" and node.target in POOLING_FUNCTIONS
        plain = (node.op == "call_function" and node.target in FUNCTIONS) or (
            node.op == "call_method" and node.target in METHODS
        )
        if pools or plain:
            self._layouts[node] = self._layout(node.args[0], node, images=True if pools else None)
            return self.graph.node_copy(node, lambda old: self._new[old])
        if _flattens(node):
            return self._flatten(node, node.args[0], node.name)
        if _counts_images(node):
            # Only a view needs it, and what the view flattens knows it.
            return None
        raise self._cannot(node)

    def _module(self, node: fx.Node) -> fx.Node:
        layer, source = self._plain.get_submodule(node.target), node.args[0]
        layers = [modules[node.target] for modules in self._siblings]
        if len({repr(other) for other in layers}) > 1:
            raise self._cannot(node, "it differs between two instances of the model")
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            return self._flatten(node, source, node.target)
        if isinstance(layer, ELEMENTWISE + POOLING):
            images = True if isinstance(layer, POOLING) else None
            self._layouts[node] = self._layout(source, node, images)
            return self._call(node.target, layer, self._new[source])
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros":
            self._layout(source, node, images=True)
            self._layouts[node] = Layout(shared=False, images=True)
            return self._call(node.target, FusedConv2d(layers), self._new[source])
        if type(layer) is nn.Linear:
            self._layout(source, node, images=False)
            self._layouts[node] = Layout(shared=False, images=False)
            return self._call(node.target, FusedLinear(layers), self._new[source])
        raise self._cannot(node, type(layer).__name__)

    def _flatten(self, node: fx.Node, source: fx.Node, name: str) -> fx.Node:
        layout = self._layout(source, node)
        if not layout.images:
            self._layouts[node] = layout
            return self._new[source]
        self._layouts[node] = Layout(layout.shared, images=False)
        return self._call(name, Flatten(len(self._siblings), layout.shared), self._new[source])

    def _sum(self, node: fx.Node) -> fx.Node:
        left, right = node.args[:2]
        if not (isinstance(left, fx.Node) and isinstance(right, fx.Node) and len(node.args) == 2 and not node.kwargs):
            raise self._cannot(node)
        if self._layout(left, node) != self._layout(right, node):
            raise self._cannot(node, "sum of a shared and an own activation")
        self._layouts[node] = self._layouts[left]
        return self.graph.node_copy(node, lambda old: self._new[old])

    def _layout(self, source: object, node: fx.Node, images: bool | None = None) -> Layout:
        if not isinstance(source, fx.Node) or source not in self._layouts:
            raise self._cannot(node)
        if images is not None and self._layouts[source].images != images:
            raise self._cannot(node, "it needs " + ("images" if images else "a flatten before it"))
        return self._layouts[source]

    def _call(self, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
        parent, _, leaf = name.rpartition(".")
        owner = self.modules
        for part in filter(None, parent.split(".")):
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(leaf, module)
        return self.graph.call_module(name, (source,))

    def _cannot(self, node: fx.Node, why: str | None = None) -> NotFused:
        target = getattr(node.target, "__name__", node.target)
        reason = f" ({why})" if why else ""
        return NotFused(f"layer {target}{reason}")


def _in_first_place(plain: fx.GraphModule) -> None:
    """Give every call its input as first argument, also where the model names it: self.layer(input=x)."""
    for node in plain.graph.nodes:
        if not node.args and "input" in node.kwargs:
            others = dict(node.kwargs)
            node.args, node.kwargs = (others.pop("input"),), others


def _pool_before_relu(plain: fx.GraphModule) -> None:
    """Swap max-pooling with the ReLU before it: a quarter of the ReLUs, and the same values and gradients.

    ReLU is monotone, so the largest of four stays the largest, and where it is not positive both give no gradient.
    """
    for pool in list(plain.graph.nodes):
        relu = pool.args[0] if pool.args else None
        if not (_is(pool, plain, nn.MaxPool2d, F.max_pool2d) and _is(relu, plain, nn.ReLU, F.relu)):
            continue
        source = relu.args[0]
        # Whoever else reads what the ReLU takes or gives must find it as it was: the ReLU may work in place.
        if len(relu.users) == len(source.users) == 1:
            pool.replace_all_uses_with(relu)
            pool.replace_input_with(relu, source)
            relu.replace_input_with(source, pool)
            pool.append(relu)


def _is(node: object, plain: fx.GraphModule, layer: type[nn.Module], function: object) -> bool:
    """Whether a node calls this kind of layer or this function."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        return isinstance(plain.get_submodule(node.target), layer)
    return node.op == "call_function" and getattr(node.target, "__name__", "") == function.__name__


def _flattens(node: fx.Node) -> bool:
    """Whether a call flattens all but the batch axis."""
    if node.target in ("view", "reshape"):
        return len(node.args) == 3 and _counts_images(node.args[1]) and node.args[2] == -1
    arguments = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | dict(node.kwargs)
    flattens = (arguments.get("start_dim", 0), arguments.get("end_dim", -1)) == (1, -1)
    return node.target in (torch.flatten, "flatten") and flattens


def _counts_images(node: object) -> bool:
    """Whether a node is x.size(0) or x.shape[0], or the x.shape of the latter."""
    if not isinstance(node, fx.Node):
        return False
    if node.target is operator.getitem:
        return _counts_images(node.args[0]) and node.args[1] == 0
    return (node.target, *node.args[1:]) in (("size", 0), (getattr, "shape"))

"""The layers of a fused model: K plain ones in one, parameters and buffers stacked on a leading axis K.

Activations that are each member's own lie in two layouts: with channels as [N, K·C, …], so that K convolutions are one
grouped convolution and K batch norms one, and features as [K, F, N], so that K linear layers are one batched matrix
product W·x whose operands, results and gradients all lie as they are needed next, and nothing is ever transposed in
memory. Activations that the members share, before the first layer that is their own, are plain: [N, …].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stack = Callable[[str], Any]
"""Gives the parameter or buffer of that name of K plain layers, stacked; None where they have none."""


class FusedLinear(nn.Module):
    """K linear layers: inputs [N, F] shared, or [K, F, N]; outputs [K, O, N]."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.weight, self.bias = stack("weight"), stack("bias")

    def forward(self, x: Tensor) -> Tensor:
        members, outputs, inputs = self.weight.shape
        if x.dim() == 3:
            if self.bias is None:
                return torch.bmm(self.weight, x)
            return torch.baddbmm(self.bias.unsqueeze(2), self.weight, x)
        # One product for all members: they read the same inputs.
        weight = self.weight.view(-1, inputs)
        y = weight @ x.t() if self.bias is None else torch.addmm(self.bias.view(-1, 1), weight, x.t())
        return y.view(members, outputs, -1)


class FusedConv(nn.Module):
    """K convolutions along one or two axes: inputs [N, C, …] shared, or [N, K·C, …]; outputs [N, K·O, …]."""

    def __init__(self, layer: nn.Conv1d | nn.Conv2d, stack: Stack) -> None:
        super().__init__()
        self.weight, self.bias = stack("weight"), stack("bias")
        self.inputs, self.groups = layer.in_channels, layer.groups
        self.stride: Any = layer.stride
        self.padding: Any = layer.padding
        self.dilation: Any = layer.dilation

    def forward(self, x: Tensor) -> Tensor:
        members = len(self.weight)
        weight, bias = self.weight.flatten(0, 1), None if self.bias is None else self.bias.view(-1)
        groups = members * self.groups
        if x.shape[1] == self.inputs:
            # One group where the members share their images.
            groups, x = (1, x) if self.groups == 1 else (groups, own_channels(x, members))
        if x.dim() == 3:
            return F.conv1d(x, weight, bias, self.stride, self.padding, self.dilation, groups)
        x, weight = channels_last(x), channels_last(weight)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)


class FusedBatchNorm(nn.Module):
    """K batch norms of [N, K·C, …] or, of `features`, [K, F, N]; running statistics are each member's own."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, stack: Stack, *, features: bool) -> None:
        super().__init__()
        self.weight, self.bias = stack("weight"), stack("bias")
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, stack(name))
        self.momentum, self.eps, self.features = layer.momentum, layer.eps, features

    def forward(self, x: Tensor) -> Tensor:
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            # Without a momentum, running statistics are means over all batches.
            momentum = 1 / int(self.num_batches_tracked[0]) if momentum is None else momentum
        # Features as one image of K·F channels, N pixels wide.
        y = x.reshape(1, -1, x.shape[2]) if self.features else x
        mean, variance, weight, bias = map(_flat, (self.running_mean, self.running_var, self.weight, self.bias))
        training = self.training or mean is None
        return F.batch_norm(y, mean, variance, weight, bias, training, momentum or 0.0, self.eps).view(x.shape)


class FusedGroupNorm(nn.Module):
    """K group norms of [N, K·C, …] or, of `features`, [K, F, N]."""

    def __init__(self, layer: nn.GroupNorm, stack: Stack, members: int, *, features: bool) -> None:
        super().__init__()
        self.weight, self.bias = stack("weight"), stack("bias")
        self.groups, self.eps, self.members, self.features = layer.num_groups, layer.eps, members, features

    def forward(self, x: Tensor) -> Tensor:
        y = rows(x).flatten(1) if self.features else x
        y = F.group_norm(y, self.members * self.groups, _flat(self.weight), _flat(self.bias), self.eps)
        return features(y, self.members) if self.features else y


class FusedLayerNorm(nn.Module):
    """K layer norms of [N, K·C, …] or, of `features`, [K, F, N]."""

    def __init__(self, layer: nn.LayerNorm, stack: Stack, members: int, *, features: bool) -> None:
        super().__init__()
        self.weight, self.bias = stack("weight"), stack("bias")
        self.shape, self.eps, self.members, self.features = layer.normalized_shape, layer.eps, members, features

    def forward(self, x: Tensor) -> Tensor:
        # [N, K, F] or [N, K, C, …]: the axes that are normalised stand last, as they do in each member.
        y = rows(x) if self.features else x.reshape(len(x), self.members, -1, *x.shape[2:])
        y = F.layer_norm(y, self.shape, eps=self.eps)
        between = [1] * (y.dim() - 2 - len(self.shape))
        if self.weight is not None:
            y = y * self.weight.view(self.members, *between, *self.shape)
        if self.bias is not None:
            y = y + self.bias.view(self.members, *between, *self.shape)
        return y.permute(1, 2, 0) if self.features else y.reshape(x.shape)


class FusedPReLU(nn.Module):
    """K parametric ReLUs of [N, K·C, …] or, of `features`, [K, F, N]: a slope a member, or a channel."""

    def __init__(self, stack: Stack, *, features: bool) -> None:
        super().__init__()
        self.weight, self.features = stack("weight"), features

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1] if self.features else x.shape[1] // len(self.weight)
        slopes = self.weight.expand(-1, channels)
        # Features as one image of K·F channels, N pixels wide.
        y = x.reshape(1, -1, x.shape[2]) if self.features else x
        return F.prelu(y, slopes.reshape(-1)).view(x.shape)


class Masks:
    """The generators that a fused model's masks are drawn from: one that all members share, or one a member."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []

    def seed(self, seeds: Sequence[int], device: torch.device) -> None:
        """Begin the streams of these seeds."""
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def draw(self, shape: Sequence[int], keep: float, like: Tensor) -> list[Tensor]:
        """Masks of a plain activation's shape: 0, or 1/`keep` with probability `keep`, as torch draws them."""
        empty = [like.new_empty(*shape) for _ in self.generators]
        drawn = zip(empty, self.generators, strict=True)
        return [mask.bernoulli_(keep, generator=generator).div_(keep) for mask, generator in drawn]


class FusedDropout(nn.Module):
    """K dropouts of [N, K·C, …] or, of `features`, [K, F, N]; of a `shared` activation [N, …], one for all members.

    `whole` channels are dropped by Dropout2d. `when` is whether it is active as the model trains and is evaluated.
    """

    def __init__(
        self,
        p: float,
        masks: Masks,
        members: int,
        *,
        whole: bool,
        features: bool,
        shared: bool,
        when: tuple[bool, bool],
    ) -> None:
        super().__init__()
        self.p, self.masks, self.members = p, masks, members
        self.whole, self.features, self.shared, self.when = whole, features, shared, when

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.when[not self.training]:
            return x
        if self.p == 1:
            return x * 0
        if self.features and not self.shared:
            masks = self.masks.draw((x.shape[2], x.shape[1]), 1 - self.p, x)
            return x * (masks[0] if len(masks) == 1 else torch.stack(masks)).transpose(-1, -2)
        channels = x.shape[1] if self.shared else x.shape[1] // self.members
        axes = [1] * (x.dim() - 2) if self.whole else x.shape[2:]
        masks = [_as_channels(mask) for mask in self.masks.draw((len(x), channels, *axes), 1 - self.p, x)]
        if self.shared:
            return x * masks[0]
        if len(masks) > 1:
            return x * torch.cat(masks, 1)
        # Every member's channels meet the same mask.
        return (x.unflatten(1, (self.members, channels)) * masks[0].unsqueeze(1)).flatten(1, 2)


def channels_last(x: Tensor) -> Tensor:
    """`x` [N, C, H, W] with its channels innermost in memory: fourfold speed for grouped convolutions on CPUs.

    One channel lies the same either way, and then only the strides tell PyTorch which is meant.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    return x.as_strided(x.shape, (channels * height * width, 1, channels * width, channels))


def to_channels(x: Tensor) -> Tensor:
    """Each member's own images [K, N, C, H, W] as [N, K·C, H, W]."""
    return x.transpose(0, 1).flatten(1, 2)


def own_channels(x: Tensor, members: int) -> Tensor:
    """Shared [N, C, …] as [N, K·C, …]."""
    return x.repeat(1, members, *[1] * (x.dim() - 2))


def own_features(x: Tensor, members: int) -> Tensor:
    """Shared [N, F] as [K, F, N]."""
    return x.t().expand(members, -1, -1)


def features(x: Tensor, members: int) -> Tensor:
    """[N, K·C, …] as [K, F, N]: each member's values of an image in a row."""
    return x.reshape(len(x), members, -1).permute(1, 2, 0)


def rows(x: Tensor) -> Tensor:
    """[K, F, N] as [N, K, F]."""
    return x.permute(2, 0, 1)


def reshape_features(x: Tensor, *shape: int) -> Tensor:
    """[K, F, N] as [N, K·C, …], of which `shape` is C, …."""
    return rows(x).reshape(x.shape[2], len(x) * shape[0], *shape[1:])


def reshape_channels(x: Tensor, members: int, *shape: int) -> Tensor:
    """[N, K·C, …] in another shape: `shape` is the new C, …."""
    return x.reshape(len(x), members * shape[0], *shape[1:])


def reshape_shared(x: Tensor, *shape: int) -> Tensor:
    """A shared [N, …] as [N, *shape]."""
    return x.reshape(len(x), *shape)


def join_channels(parts: Sequence[Tensor], members: int) -> Tensor:
    """Several [N, K·C, …] side by side within each member: [N, K·(C + C' + …), …]."""
    return torch.cat([part.unflatten(1, (members, -1)) for part in parts], 2).flatten(1, 2)


def _as_channels(mask: Tensor) -> Tensor:
    """A mask as its activation lies in memory."""
    return mask.contiguous(memory_format=torch.channels_last) if mask.dim() == 4 else mask


def _flat(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.view(-1)

"""The layers of a fused model: K plain ones in one, parameters stacked on a leading axis K.

Activations travel in two layouts: images as [N, K·C, H, W], so that K convolutions are one grouped convolution,
and features as [K, F, N], so that K linear layers are one batched matrix product W·x whose operands, results and
gradients all lie as they are needed next, and nothing is ever transposed in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FusedLinear(nn.Module):
    """K linear layers: inputs [N, F] shared, or [K, F, N]; outputs [K, O, N]."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = None
        if layers[0].bias is not None:
            self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

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


class FusedConv2d(nn.Module):
    """K convolutions: inputs [N, C, H, W] shared, or [N, K·C, H, W]; outputs [N, K·O, H, W]."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = layers[0]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = None
        if first.bias is not None:
            self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers if layer.bias is not None]))
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.flatten(0, 1), None if self.bias is None else self.bias.view(-1)
        # One group where the members share their images, else one a member.
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(channels_last(x), channels_last(weight), bias, self.stride, self.padding, self.dilation, groups)


def channels_last(x: Tensor) -> Tensor:
    """`x` [N, C, H, W] with its channels innermost in memory: fourfold speed for grouped convolutions on CPUs.

    One channel lies the same either way, and then only the strides tell PyTorch which is meant.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    return x.as_strided(x.shape, (channels * height * width, 1, channels * width, channels))


class ToImages(nn.Module):
    """Each member's own images [K, N, C, H, W] as [N, K·C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1, 2)


class Flatten(nn.Module):
    """Images as features: [N, C, H, W] to [N, F] where shared, [N, K·C, H, W] to [K, F, N] where not."""

    def __init__(self, members: int, shared: bool) -> None:
        super().__init__()
        self.members, self.shared = members, shared

    def forward(self, x: Tensor) -> Tensor:
        if self.shared:
            return x.flatten(1)
        return x.reshape(len(x), self.members, -1).permute(1, 2, 0)

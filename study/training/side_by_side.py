"""K plain modules behind one interface, trained in the same loop on the same batches, where they cannot be fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from study.training import process


class SideBySide(nn.Module):
    """K plain modules: [N, C, H, W] (or [K, N, C, H, W] if not `shared`) to [K, N, classes].

    Its parameters are those of the members, stacked on a leading axis K, as in a fused model; the members' own are
    views of them, so that a step of the stack is a step of each.
    """

    def __init__(self, members: Sequence[nn.Module], *, shared: bool = True) -> None:
        super().__init__()
        # In a tuple, so that the members' parameters are not counted beside the stacked ones.
        self.members = tuple(members)
        self.shared = shared
        self._streams: Sequence[np.random.Generator] = ()
        self.stacked = nn.ParameterList()
        self._own: list[list[tuple[nn.Parameter, Tensor]]] = [[] for _ in self.members]
        for parameters in zip(*(member.parameters() for member in members), strict=True):
            stack = torch.stack([parameter.detach() for parameter in parameters])
            for own, parameter, slice_ in zip(self._own, parameters, stack.unbind(), strict=True):
                parameter.data = slice_
                own.append((parameter, slice_))
            self.stacked.append(nn.Parameter(stack, requires_grad=parameters[0].requires_grad))
        self.trained = [[p for p in member.parameters() if p.requires_grad] for member in members]

    def draw_from(self, streams: Sequence[np.random.Generator]) -> None:
        """Seed each forward pass from these streams: one for all members, or K."""
        self._streams = streams

    @torch.no_grad()
    def stacked_buffers(self) -> list[Tensor]:
        """The members' buffers, such as running means, stacked on a leading axis K."""
        return [torch.stack(of_one) for of_one in zip(*(member.buffers() for member in self.members), strict=True)]

    @torch.no_grad()
    def load_buffers(self, saved: Sequence[Tensor]) -> None:
        """Set the members' buffers to what `stacked_buffers` gave."""
        for k, member in enumerate(self.members):
            for buffer, stack in zip(member.buffers(), saved, strict=True):
                if buffer.shape == stack.shape[1:]:
                    buffer.copy_(stack[k])
                else:
                    # A state of each batch's own, as many rows as that had images.
                    buffer.data = stack[k].to(buffer.device, copy=True)

    def train(self, mode: bool = True) -> SideBySide:
        for member in self.members:
            member.train(mode)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return _Apart.apply(self, x, *(p for p in self.stacked if p.requires_grad))

    def apart(self, x: Tensor) -> list[Tensor]:
        """The logits [N, classes] of each member."""
        seeds = next_seeds(self._streams, len(self.members))
        logits = []
        for k, member in enumerate(self.members):
            if seeds:
                process.seed(seeds[k])
            # A copy, since an in-place layer would overwrite what another member reads.
            logits.append(member((x if self.shared else x[k]).clone()))
            for parameter, slice_ in self._own[k]:
                # `weight.data = …` in a forward, as where it bounds their norm: a step of the stack would miss it.
                if parameter.data_ptr() != slice_.data_ptr():
                    slice_.copy_(parameter.data)
                    parameter.data = slice_
        return logits


class _Apart(torch.autograd.Function):
    """Each member's own graph, behind one function of the stacked parameters.

    So their gradients are written once, where the optimiser reads them.
    """

    @staticmethod
    def forward(ctx: Any, model: SideBySide, x: Tensor, *stacked: Tensor) -> Tensor:  # noqa: ANN401
        grad = any(ctx.needs_input_grad)
        with torch.set_grad_enabled(grad):
            logits = model.apart(x)
        if grad:
            ctx.logits, ctx.own = logits, model.trained
        return torch.stack([own.detach() for own in logits])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        found = [
            torch.autograd.grad(logits, own, part, allow_unused=True)
            for logits, own, part in zip(ctx.logits, ctx.own, gradient.unbind(), strict=True)
        ]
        del ctx.logits
        return None, None, *(_stack(of_one) for of_one in zip(*found, strict=True))


def _stack(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """The members' gradients as one; zero for a member that did not use the parameter, None if no member did."""
    used = [gradient for gradient in gradients if gradient is not None]
    if not used:
        return None
    return torch.stack([torch.zeros_like(used[0]) if gradient is None else gradient for gradient in gradients])


def next_seeds(streams: Sequence[np.random.Generator], members: int) -> list[int]:
    """The next seed of each member: one stream stands for all of them; without streams there are none."""
    seeds = [int(stream.integers(2**63)) for stream in streams]
    return seeds * members if len(seeds) == 1 else seeds

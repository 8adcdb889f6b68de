"""Stochastic gradient descent of a pack: one step for all members, each by its own learning rate."""

from __future__ import annotations

from itertools import compress

import torch
from torch import Tensor, nn


class SGD:
    """SGD with momentum, the numbers of torch.optim.SGD; parameters are stacked on a leading axis of K members.

    A step of a wide layer waits for memory. On CPUs PyTorch's fused kernel passes over it once, a member at a
    time; on GPUs a kernel a member would cost more than a second pass.
    """

    def __init__(
        self, parameters: list[nn.Parameter], learning_rates: Tensor, momentum: float, weight_decay: float
    ) -> None:
        """`learning_rates` has shape [K]."""
        self.parameters = parameters
        self.velocities = [torch.zeros_like(p) for p in parameters]
        self.fused = learning_rates.device.type == "cpu"
        self._momentum, self._weight_decay = momentum, weight_decay
        self._rates = learning_rates
        # A member's slices are views: a step of the slice is a step of the stack.
        self._members = list(zip(_members(parameters), _members(self.velocities), learning_rates.tolist(), strict=True))

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients, those that have one, and forget the gradients."""
        gradients = [p.grad for p in self.parameters]
        if self.fused:
            self._by_member(gradients)
        else:
            self._stacked(gradients)
        for parameter in self.parameters:
            parameter.grad = None

    def _by_member(self, gradients: list[Tensor]) -> None:
        settings = dict(weight_decay=self._weight_decay, momentum=self._momentum, dampening=0.0)
        settings |= dict(nesterov=False, maximize=False, is_first_step=False)
        used = [gradient is not None for gradient in gradients]
        own_gradients = _members(list(compress(gradients, used)))
        for (parameters, velocities, rate), own in zip(self._members, own_gradients, strict=True):
            if not all(used):
                parameters, velocities = list(compress(parameters, used)), list(compress(velocities, used))
            # The kernel of torch.optim.SGD(fused=True), without the 40 µs that its bookkeeping takes a member.
            torch._fused_sgd_(parameters, own, velocities, lr=rate, **settings)

    def _stacked(self, gradients: list[Tensor]) -> None:
        for parameter, velocity, gradient in zip(self.parameters, self.velocities, gradients, strict=True):
            if gradient is None:
                continue
            if self._weight_decay:
                gradient = gradient.add(parameter, alpha=self._weight_decay)
            torch.add(gradient, velocity, alpha=self._momentum, out=velocity)
            rate = self._rates.view(-1, *[1] * (parameter.dim() - 1))
            parameter.addcmul_(velocity, rate, value=-1)


def _members(stacked: list[Tensor]) -> list[list[Tensor]]:
    """Each member's slices of tensors stacked on a leading axis, as views."""
    return [list(own) for own in zip(*(tensor.detach().unbind() for tensor in stacked), strict=True)]

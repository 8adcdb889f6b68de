"""The optimisers of a pack: one step for all members, each by its own learning rate; and how learning rates change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop

from study.ledger.runs import Run

T = TypeVar("T")

STATE = {
    "sgd": ("velocity",),
    "adam": ("exp_avg", "exp_avg_sq", "steps"),
    "adamw": ("exp_avg", "exp_avg_sq", "steps"),
    "rmsprop": ("square_avg", "velocity", "steps"),
}
"""What each optimiser remembers of a parameter, beside the parameter itself."""


class Optimizer:
    """The steps of torch.optim's SGD, Adam, AdamW and RMSprop, for parameters stacked on a leading axis of K members.

    A step of a wide layer waits for memory. On CPUs PyTorch's fused kernels pass over it once, a member at a time; on
    GPUs, for SGD, a kernel a member would cost more than a second pass over the whole stack.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rates: Tensor, run: Run, steps_per_epoch: int = 1
    ) -> None:
        """`learning_rates` has shape [K]; of `run` the recipe counts, which all members share."""
        self.parameters = list(parameters)
        self.state = {name: [_zeros(name, p) for p in self.parameters] for name in STATE[run.optimizer]}
        """Name → a tensor a parameter, stacked as that is: with the parameters, all that a checkpoint needs."""
        self.steps_done = 0
        self.fused = learning_rates.device.type == "cpu"
        self._run = run
        self._rates = learning_rates
        self._steps_per_epoch = steps_per_epoch
        # A member's slices are views: a step of the slice is a step of the stack.
        self._members = _members(self.parameters)
        self._states = {name: _members(tensors) for name, tensors in self.state.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients, at the schedule's learning rates, and forget the gradients.

        A parameter without a gradient stays as it is, as in torch.optim.
        """
        used = [parameter.grad is not None for parameter in self.parameters]
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self._run.gradient_clip is not None:
            clip(gradients, self._run.gradient_clip)
        rates = self._rates * schedule(self._run, self.steps_done, self._steps_per_epoch)
        if self._run.optimizer == "sgd" and not self.fused:
            self._stacked_sgd(gradients, used, rates)
        else:
            for k, (rate, own) in enumerate(zip(rates.tolist(), _members(gradients), strict=True)):
                parameters = self._members[k]
                state = {name: tensors[k] for name, tensors in self._states.items()}
                if not all(used):
                    parameters = list(compress(parameters, used))
                    state = {name: list(compress(tensors, used)) for name, tensors in state.items()}
                self._step_of_member(parameters, own, state, rate)
        for parameter in self.parameters:
            parameter.grad = None
        self.steps_done += 1

    def _step_of_member(
        self, parameters: list[Tensor], gradients: list[Tensor], state: dict[str, list[Tensor]], rate: float
    ) -> None:
        run = self._run
        if run.optimizer == "sgd":
            # The kernel of torch.optim.SGD(fused=True), without the 40 µs that its bookkeeping takes a member.
            torch._fused_sgd_(
                parameters,
                gradients,
                # Without momentum the kernel wants none.
                state["velocity"] if run.momentum else [],
                lr=rate,
                momentum=run.momentum,
                weight_decay=run.weight_decay,
                nesterov=run.nesterov,
                dampening=0.0,
                maximize=False,
                is_first_step=False,
            )
        elif run.optimizer == "rmsprop":
            rmsprop(
                parameters,
                gradients,
                state["square_avg"],
                [],
                state["velocity"],
                state["steps"],
                lr=rate,
                alpha=_given(run.alpha),
                eps=_given(run.eps),
                weight_decay=run.weight_decay,
                momentum=run.momentum,
                centered=False,
            )
        else:
            beta1, beta2 = _given(run.betas)
            {"adam": adam, "adamw": adamw}[run.optimizer](
                parameters,
                gradients,
                state["exp_avg"],
                state["exp_avg_sq"],
                [],
                state["steps"],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=rate,
                weight_decay=run.weight_decay,
                eps=_given(run.eps),
                maximize=False,
            )

    def _stacked_sgd(self, gradients: list[Tensor], used: list[bool], rates: Tensor) -> None:
        run = self._run
        stacks = zip(self.parameters, self.state["velocity"], strict=True)
        for (parameter, velocity), gradient in zip(compress(stacks, used), gradients, strict=True):
            if run.weight_decay:
                gradient = gradient.add(parameter, alpha=run.weight_decay)
            torch.add(gradient, velocity, alpha=run.momentum, out=velocity)
            direction = gradient.add(velocity, alpha=run.momentum) if run.nesterov else velocity
            parameter.addcmul_(direction, _along(rates, parameter), value=-1)


def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Scale each member's gradients, stacked on a leading axis K, down to a norm of `largest`, in place.

    As torch.nn.utils.clip_grad_norm_ does for one model: a norm that is not finite spoils that member and no other.
    """
    norms = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients])
    factors = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(_along(factors, gradient))


def schedule(run: Run, step: int, steps_per_epoch: int) -> float:
    """What the learning rates are multiplied by at a step, from 0.

    With T steps in all, W of them in the warm-up, as these schedulers of torch.optim.lr_scheduler, stepped after each
    step: LinearLR(start_factor=1/W, total_iters=W−1) until step W; from there ConstantLR(1), CosineAnnealingLR(T−W),
    LinearLR(1, 0, total_iters=T−W), or StepLR(step_epochs in steps, step_factor).
    """
    warmup = round(run.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    done, left = step - warmup, run.epochs * steps_per_epoch - warmup
    if run.schedule == "cosine":
        return (1 + math.cos(math.pi * done / left)) / 2
    if run.schedule == "linear":
        return 1 - done / left
    if run.schedule == "step":
        return _given(run.step_factor) ** (done // (_given(run.step_epochs) * steps_per_epoch))
    return 1.0


def shapes(parameters: Sequence[tuple[int, ...]], optimizer: str) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of an optimiser's state, of parameters of these shapes."""
    return {name: [p[:1] if name == "steps" else p for p in parameters] for name in STATE[optimizer]}


def _zeros(name: str, parameter: Tensor) -> Tensor:
    """A state before the first step. Counts of steps are float32 as in torch.optim, one a member."""
    if name == "steps":
        return torch.zeros(len(parameter), device=parameter.device)
    return torch.zeros_like(parameter)


def _members(stacked: Sequence[Tensor]) -> list[list[Tensor]]:
    """Each member's slices of tensors stacked on a leading axis, as views."""
    return [list(own) for own in zip(*(tensor.detach().unbind() for tensor in stacked), strict=True)]


def _along(values: Tensor, stacked: Tensor) -> Tensor:
    """Values [K] as they multiply a tensor stacked on a leading axis of K members."""
    return values.view(-1, *[1] * (stacked.dim() - 1))


def _given(value: T | None) -> T:
    """A setting of the optimiser or schedule chosen, which the config has filled in."""
    assert value is not None
    return value

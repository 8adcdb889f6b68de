"""Before anything is trained: does a model compute fused what it computes alone?"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from study.errors import UserError
from study.training.fusion import ALLOWED, fuse


def check(name: str, models: Sequence[nn.Module], shape: tuple[int, ...], *, shared: bool = True) -> None:
    """See that `models`, of the config's name `name`, compute fused what they compute plain, in values and gradients.

    `shape` is an image's (channels, height, width). Whatever a tracer cannot see in a model, a random batch in
    float64 shows. Raises UserError naming the model, and the layer where it is known.
    """
    try:
        _compare(models, shape, shared)
    except (Exception, SystemExit) as error:
        # A user's code may raise anything.
        reason = str(error) if isinstance(error, UserError) else f"cannot be fused: {type(error).__name__}: {error}"
        raise UserError(f"models: {name!r}: {reason.removeprefix('models: ')}") from None


def _compare(models: Sequence[nn.Module], shape: tuple[int, ...], shared: bool) -> None:
    plain = [copy.deepcopy(model).double() for model in models]
    fused = fuse(plain, shared=shared).double()
    random = torch.Generator().manual_seed(0)
    images = [torch.randn(3, *shape, dtype=torch.float64, generator=random) for _ in models]
    if shared:
        images = images[:1] * len(models)
    # Copies, since a layer in place would write into what another member reads.
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for mode in (False, True):
        for module in (fused, *plain):
            module.train(mode)
        alone = torch.stack([model(x.clone()) for model, x in zip(plain, images, strict=True)])
        together = fused(images[0].clone() if shared else torch.stack(images))
        pairs["logits in training" if mode else "logits in evaluation"] = (alone, together)
    weights = torch.randn(alone.shape, dtype=torch.float64, generator=random)
    (alone * weights).sum().backward()
    (together * weights).sum().backward()
    for name, parameter in fused.named_parameters():
        pairs[f"gradient of {name}"] = (torch.stack([m.get_parameter(name).grad for m in plain]), parameter.grad)
    for what, (expected, found) in pairs.items():
        # Not `>`, which NaN would pass.
        if not (expected - found).abs().max() <= 1e-9 * expected.abs().max():
            raise UserError(f"models: fused, it does not compute what it computes alone ({what}); {ALLOWED}")

import pytest
import torch
from torch import nn

from study.training.optimizer import SGD

RATES = [0.01, 0.1, 1.0]
SHAPES = [(4, 5), (4,)]


@pytest.mark.parametrize("fused", [True, False], ids=["a member at a time", "all at once"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_each_member_steps_as_torch_would_step_it_alone(fused, weight_decay):
    """Both ways, the one of CPUs and the one of GPUs; K = 3 members, 20 steps."""
    rng = torch.Generator().manual_seed(0)

    def draw(shape):
        return torch.randn(len(RATES), *shape, generator=rng, dtype=torch.float64)

    stacked = [nn.Parameter(draw(shape)) for shape in SHAPES]
    alone = [[nn.Parameter(p.detach()[k].clone()) for p in stacked] for k in range(len(RATES))]
    ours = SGD(stacked, torch.tensor(RATES, dtype=torch.float64), 0.9, weight_decay)
    ours.fused = fused
    theirs = [
        torch.optim.SGD(own, rate, momentum=0.9, weight_decay=weight_decay)
        for own, rate in zip(alone, RATES, strict=True)
    ]
    for _ in range(20):
        for p, shape, *separate in zip(stacked, SHAPES, *alone, strict=True):
            p.grad = draw(shape)
            for k, own in enumerate(separate):
                own.grad = p.grad[k].clone()
        ours.step()
        for optimizer in theirs:
            optimizer.step()
    assert all(p.grad is None for p in stacked)
    for k, separate in enumerate(alone):
        for p, own in zip(stacked, separate, strict=True):
            torch.testing.assert_close(p.detach()[k], own.detach(), rtol=0, atol=1e-12)

"""Each member of a pack against torch.optim and torch.optim.lr_scheduler on a plain copy of it."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from study.training.optimizer import Optimizer, schedule
from tests.examples import RUN

RATES = [0.001, 0.01, 0.1]
SHAPES = [(4, 5), (4,), ()]
STEPS = 50
PER_EPOCH = 5
PLAIN = dict(momentum=0.0, weight_decay=0.0, epochs=10)
TORCH = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
RECIPES = {
    "sgd": dict(optimizer="sgd"),
    "momentum": dict(optimizer="sgd", momentum=0.9, weight_decay=0.01),
    "nesterov": dict(optimizer="sgd", momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": dict(optimizer="adam", betas=(0.9, 0.999), eps=1e-8),
    "adam, all": dict(optimizer="adam", betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1),
    "adamw": dict(optimizer="adamw", betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    "rmsprop": dict(optimizer="rmsprop", alpha=0.99, eps=1e-8),
    "rmsprop, all": dict(optimizer="rmsprop", alpha=0.9, eps=1e-3, momentum=0.5, weight_decay=0.1),
    "cosine": dict(optimizer="adam", betas=(0.9, 0.999), eps=1e-8, schedule="cosine"),
    "warm-up, then cosine": dict(optimizer="sgd", momentum=0.9, schedule="cosine", warmup_epochs=1.5),
    "linear": dict(optimizer="sgd", momentum=0.9, schedule="linear", warmup_epochs=2.0),
    "step": dict(optimizer="sgd", momentum=0.9, schedule="step", step_epochs=3, step_factor=0.5),
    "warm-up": dict(optimizer="sgd", momentum=0.9, warmup_epochs=0.2),
    "clipped": dict(optimizer="sgd", momentum=0.9, gradient_clip=1.0),
    "adam, clipped": dict(optimizer="adam", betas=(0.9, 0.999), eps=1e-8, gradient_clip=5.0),
}


def theirs(run, parameters, rate):
    """torch.optim's optimiser and scheduler of a run."""
    names = {"momentum", "nesterov", "weight_decay", "betas", "eps", "alpha"}
    kind = TORCH[run.optimizer]
    accepted = {name: getattr(run, name) for name in names & set(kind([torch.zeros(1)]).defaults)}
    optimizer = kind(parameters, rate, **accepted)
    warmup = round(run.warmup_epochs * PER_EPOCH)
    left = run.epochs * PER_EPOCH - warmup
    then = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, left),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=left),
        "step": lambda: lr_scheduler.StepLR(optimizer, run.step_epochs * PER_EPOCH, run.step_factor),
    }[run.schedule]
    if not warmup:
        return optimizer, then()
    rise = lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
    return optimizer, lr_scheduler.SequentialLR(optimizer, [rise, then()], [warmup])


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize(
    ("recipe", "fused"),
    [(name, True) for name in RECIPES] + [(name, False) for name in RECIPES if RECIPES[name]["optimizer"] == "sgd"],
    ids=lambda value: {True: "a member at a time", False: "all at once"}.get(value, value),
)
def test_each_member_steps_as_torch_would_step_it_alone(recipe, fused):
    """Both ways of SGD, that of CPUs and that of GPUs; K = 3 members, 50 steps in float64."""
    run = RUN.model_copy(update=PLAIN | RECIPES[recipe])
    rng = torch.Generator().manual_seed(0)

    def draw(shape):
        return torch.randn(len(RATES), *shape, generator=rng, dtype=torch.float64)

    stacked = [nn.Parameter(draw(shape)) for shape in SHAPES]
    alone = [[nn.Parameter(p.detach()[k].clone()) for p in stacked] for k in range(len(RATES))]
    ours = Optimizer(stacked, torch.tensor(RATES, dtype=torch.float64), run, PER_EPOCH)
    ours.fused = fused
    separate = [theirs(run, own, rate) for own, rate in zip(alone, RATES, strict=True)]
    for _ in range(STEPS):
        for p, shape, *copies in zip(stacked, SHAPES, *alone, strict=True):
            p.grad = draw(shape)
            for k, own in enumerate(copies):
                own.grad = p.grad[k].clone()
        ours.step()
        for (optimizer, scheduler), own in zip(separate, alone, strict=True):
            if run.gradient_clip:
                nn.utils.clip_grad_norm_(own, run.gradient_clip)
            optimizer.step()
            scheduler.step()
    assert all(p.grad is None for p in stacked)
    for k, own in enumerate(alone):
        for p, q in zip(stacked, own, strict=True):
            torch.testing.assert_close(p.detach()[k], q.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("recipe", ["momentum", "adam", "rmsprop, all"])
def test_a_parameter_without_a_gradient_stays_as_it_is(recipe):
    run = RUN.model_copy(update=PLAIN | RECIPES[recipe])
    used, unused = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimizer = Optimizer([unused, used], torch.tensor([0.1, 0.2]), run)
    used.grad = torch.ones(2, 3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 3))
    assert (used != 1).all()


@pytest.mark.parametrize("recipe", ["adam, clipped", "clipped"])
def test_a_member_that_diverges_spoils_no_other(recipe):
    run = RUN.model_copy(update=PLAIN | RECIPES[recipe])
    found = []
    for wild in (1.0, float("inf"), float("nan")):
        parameter = nn.Parameter(torch.ones(3, 2))
        optimizer = Optimizer([parameter], torch.tensor(RATES), run)
        for _ in range(3):
            parameter.grad = torch.tensor([[3.0, 4.0], [wild, 1.0], [0.1, 0.2]])
            optimizer.step()
        found.append(parameter.detach()[[0, 2]])
        assert parameter[1].isfinite().all() == (wild == 1.0)
    assert all(torch.equal(other, found[0]) for other in found)


def test_a_schedule_ends_where_it_should():
    cosine, linear = (RUN.model_copy(update=dict(schedule=name, epochs=4)) for name in ("cosine", "linear"))
    assert [schedule(linear, step, 1) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [round(schedule(cosine, step, 1), 4) for step in range(4)] == [1, 0.8536, 0.5, 0.1464]
    rising = RUN.model_copy(update=dict(warmup_epochs=2.0, epochs=4))
    assert [schedule(rising, step, 2) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]

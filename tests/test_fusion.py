import pytest
import torch
from torch import nn
from torch.nn import functional as F

from study import models
from study.errors import UserError
from study.fusion import fuse, member
from study.training import SGD, cross_entropy

RATES = [0.001, 0.01, 0.1, 0.3, 1e308]
"""The last member diverges within a few steps."""
STEPS = 50


class Residual(nn.Module):
    """Layers of all kinds that can be fused, as modules and as functions, nested, with a sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh())
        self.out = nn.Linear(8, 10, bias=False)

    def forward(self, x):
        x = self.stem(x)
        x = x + torch.relu(self.body(x))
        x = self.head(self.pool(x))
        return self.out(F.gelu(x))


BUILDERS = models.BUILT_IN | {"residual": Residual}


def plain_and_fused(name, members, shared, seed=0):
    torch.manual_seed(seed)
    plain = [BUILDERS[name]().double() for _ in range(members)]
    return plain, fuse(plain, shared=shared).double()


@pytest.mark.parametrize("shared", [True, False], ids=["one batch for all", "a batch each"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("name", BUILDERS)
def test_fused_equals_separate(name, weight_decay, shared):
    """K members fused, and one by one with torch.optim.SGD on plain modules: equal to 1e-10 after 50 steps."""
    torch.manual_seed(1)
    plain, fused = plain_and_fused(name, len(RATES), shared)
    optimizers = [
        torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=weight_decay)
        for model, rate in zip(plain, RATES, strict=True)
    ]
    optimizer = SGD(list(fused.parameters()), torch.tensor(RATES, dtype=torch.float64), 0.9, weight_decay)
    for _ in range(STEPS):
        x = torch.randn(1 if shared else len(RATES), 8, 1, 28, 28, dtype=torch.float64)
        y = torch.randint(10, x.shape[:2])
        for k, (model, separate) in enumerate(zip(plain, optimizers, strict=True)):
            separate.zero_grad()
            F.cross_entropy(model(x[0 if shared else k]), y[0 if shared else k]).backward()
            separate.step()
        logits = fused(x[0] if shared else x)
        cross_entropy(logits, y[0] if shared else y).mean(1).sum().backward()
        optimizer.step()
    for k, model in enumerate(plain):
        state = member(fused, k)
        finite = all(p.isfinite().all() for p in model.parameters())
        assert finite == (k < 4), "the last member, and no other, was meant to diverge"
        for key, parameter in model.named_parameters():
            if finite:
                torch.testing.assert_close(state[key], parameter.detach(), rtol=0, atol=1e-10)
        assert finite or not all(value.isfinite().all() for value in state.values())


def test_a_pack_of_one_goes_the_same_way():
    plain, fused = plain_and_fused("lenet5", 1, True)
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(fused(x)[0], plain[0](x), rtol=0, atol=1e-12)


def test_a_member_fits_its_plain_module():
    plain, fused = plain_and_fused("lenet5", 3, True)
    model = models.LeNet5().double()
    model.load_state_dict(member(fused, 2))
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    assert torch.equal(model(x), plain[2](x))


def test_pooling_before_relu_changes_neither_values_nor_gradients():
    """Ties are the hard case: black backgrounds make whole regions equal."""
    x = torch.randint(-2, 3, (5, 3, 8, 8), dtype=torch.float64)
    found = []
    for f in (lambda t: F.max_pool2d(F.relu(t), 2), lambda t: F.relu(F.max_pool2d(t, 2))):
        leaf = x.clone().requires_grad_()
        y = f(leaf)
        (y * torch.arange(y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        found.append((y.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


class BatchNormed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))


class Dropped(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))


class Reshaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        return self.layer(x.reshape(-1, 784))


class Unflattened(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(28, 10))


class Grouped(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4 * 24 * 24, 10))


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        return self.layer(torch.flatten(x, 1)) * self.scale


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        return self.layer(torch.flatten(x, 1)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (BatchNormed, "1 (BatchNorm2d)"),
        (Dropped, "1 (Dropout)"),
        (Reshaped, "reshape"),
        (Unflattened, "needs a flatten before it"),
        (Grouped, "1 (Conv2d)"),
        (Loose, "scale"),
        (Branching, "cannot be traced"),
    ],
)
def test_what_cannot_be_fused_is_named(model, named):
    with pytest.raises(UserError) as error:
        fuse([model(), model()])
    assert named in str(error.value)
    assert "\n" not in str(error.value)

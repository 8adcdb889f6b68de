import pytest
import torch
from torch import nn
from torch.nn import functional as F

from study.training import models
from study.training.fusion import NotFused, fuse, see_that_it_agrees
from study.training.loop import cross_entropy
from study.training.optimizer import Optimizer
from tests.examples import RUN

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


def member(fused, index):
    """The state dict of one member as its plain module takes it."""
    return {name: parameter.detach()[index].clone() for name, parameter in fused.named_parameters()}


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
    run = RUN.model_copy(update={"weight_decay": weight_decay})
    optimizer = Optimizer(list(fused.parameters()), torch.tensor(RATES, dtype=torch.float64), run)
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


class Layers(nn.Module):
    """A model that can be fused, for others to spoil."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.act = nn.ReLU()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        return self.layer(torch.flatten(self.act(self.conv(x)), 1))


class Frozen(Layers):
    def __init__(self):
        super().__init__()
        self.conv.weight.requires_grad_(False)


class Alternating(Layers):
    """Its second instance is another one than its first."""

    slope = 0.0

    def __init__(self):
        super().__init__()
        Alternating.slope += 0.1
        self.act = nn.LeakyReLU(Alternating.slope)


class Masked(Layers):
    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


class Parameterless(nn.Flatten):
    pass


class Training(Layers):
    """Fused, it would be evaluated as it trains."""

    def forward(self, x):
        return super().forward(F.relu(x) if self.training else x)


class Aliased(Layers):
    """Flattening copies the members' images, so that the ELU in place is lost."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2 * 784, 10)

    def forward(self, x):
        y = self.conv(x)
        F.elu(torch.flatten(y, 1), inplace=True)
        return self.layer(torch.flatten(y, 1))


class Exits(Layers):
    def forward(self, x):
        if isinstance(x, torch.fx.Proxy):
            raise SystemExit(3)
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (BatchNormed, "layer 1 (BatchNorm2d)"),
        (Dropped, "layer 1 (Dropout)"),
        (Reshaped, "layer reshape"),
        (Unflattened, "layer 0 (it needs a flatten before it)"),
        (Grouped, "layer 1 (Conv2d)"),
        (Loose, "layer scale"),
        (Branching, "it cannot be traced (TraceError)"),
        (Frozen, "conv.weight is frozen"),
        (Alternating, "layer act (it differs between two instances of the model)"),
        (Masked, "forward takes x, mask"),
        (Parameterless, "it does not end in a linear layer"),
        (Training, "fused, it computes something else (logits in evaluation)"),
        (Aliased, "fused, it computes something else (logits in evaluation)"),
        (Exits, "it cannot be traced (SystemExit)"),
    ],
)
def test_what_cannot_be_fused_is_named(model, named):
    with pytest.raises(NotFused) as error:
        see_that_it_agrees([model(), model()], (1, 28, 28))
    assert str(error.value) == named


class Twice(Layers):
    """One convolution for images that the members share and for their own."""

    def forward(self, x):
        return super().forward(self.conv(x))


class InPlace(Layers):
    """Max-pooling may not go before a ReLU in place whose input is used again."""

    def __init__(self):
        super().__init__()
        self.act, self.layer = nn.ReLU(inplace=True), nn.Linear(196, 10)

    def forward(self, x):
        y = self.conv(x)
        return self.layer(torch.flatten(F.max_pool2d(self.act(y), 2) + F.avg_pool2d(y, 2), 1))


class Named(Layers):
    def forward(self, x):
        return self.layer(input=torch.flatten(input=F.relu(input=self.conv(input=x)), start_dim=1))


class Sized(Layers):
    def forward(self, x):
        return self.layer(self.conv(x).view(x.size(0), -1))


class Shaped(Layers):
    def forward(self, x):
        y = self.conv(x)
        return self.layer(y.reshape(y.shape[0], -1))


@pytest.mark.parametrize("shared", [True, False], ids=["one batch for all", "a batch each"])
@pytest.mark.parametrize("model", [Layers, Twice, InPlace, Named, Sized, Shaped, Residual])
def test_ways_to_write_a_model_that_can_be_fused(model, shared):
    see_that_it_agrees([model(), model(), model()], (1, 28, 28), shared=shared)


def test_the_check_sees_a_wrong_gradient(monkeypatch):
    """The values are right: only training would tell."""
    monkeypatch.setattr("study.training.layers.Flatten.forward", lambda self, x: _doubled(self, x))
    with pytest.raises(NotFused, match=r"computes something else \(gradient of conv\.weight\)"):
        see_that_it_agrees([Layers(), Layers()], (1, 28, 28))


def _doubled(self, x):
    x = x + (x - x.detach())
    return x.reshape(len(x), self.members, -1).permute(1, 2, 0)

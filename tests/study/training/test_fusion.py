import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from study.training import layers, models, process
from study.training.fusion import NotFused, fuse, see_that_it_agrees
from study.training.loop import cross_entropy
from study.training.optimizer import Optimizer
from tests.examples import RUN

RATES = [0.003, 0.03, 1e308]
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


class Forward(nn.Module):
    """Layers, and what `forward` does with them and an image."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.say = forward

    def forward(self, x):
        return self.say(self, x)


def conv(inputs=1, outputs=4, **options):
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, **options)


def net(*layers, features=4 * 36):
    """A network of one convolution, these layers, and a linear one."""
    return nn.Sequential(conv(), *layers, nn.Flatten(), nn.Linear(features, 10))


def helper(x, scale):
    return scale * torch.tanh(x / 3) - 0.1


def in_numbers(self, x):
    """Arithmetic with numbers, a call of a helper, and shapes asked for, as people write them."""
    n, c, h, w = x.shape
    if x.ndim == 4 and len(x) == n:
        x = x.reshape(-1, c, h, w)
    y = helper(self.a(x), 1.7) ** 2
    y = -y.view(-1, y.size(1) * y.shape[2] * y.shape[-1])
    return self.b(1 - y) / 2.0


def joined(self, x):
    """Branches side by side: of the image itself, of own activations, and of features."""
    y, z = self.a(x), F.pad(self.b(x), (1, 0, 0, 1))
    y = torch.cat([F.avg_pool2d(x, 2), F.relu(y), self.c(y)], 1)
    y, z = y.flatten(1), z.mean((2, 3))
    return self.d(torch.cat((y, z, self.e(z)), dim=-1))


def squeezed(self, x):
    """Squeeze and excitation: features become images again, and images meet images of one pixel."""
    y = self.a(x)
    gate = torch.sigmoid(self.b(y.mean(dim=[2, 3]))).view(-1, 4, 1, 1)
    y = y * gate + y.mean((2, 3), keepdim=True) + gate.unsqueeze(-1).squeeze(-1)
    return self.c(y.view(y.size(0), 4, -1).amax(2))


LAYERS = {
    "batch norm": lambda: net(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), features=36),
    "batch norm of features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(144, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10), nn.BatchNorm1d(10, affine=0)
    ),
    "batch norm of images, without statistics or momentum": lambda: nn.Sequential(
        nn.BatchNorm2d(1, momentum=None), net(nn.BatchNorm2d(4, track_running_stats=False))
    ),
    "layer norm": lambda: net(nn.LayerNorm([4, 6, 6]), nn.LayerNorm(6), nn.Flatten(), nn.LayerNorm(144)),
    "group norm": lambda: net(nn.GroupNorm(2, 4), nn.Flatten(), nn.GroupNorm(4, 144)),
    "dropout": lambda: nn.Sequential(
        nn.Dropout(0.1), net(nn.Dropout(0.25), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.Dropout(), features=8)
    ),
    "dropout of channels": lambda: nn.Sequential(net(nn.Dropout2d(0.5), nn.Dropout(0.0)), nn.Dropout(1e-3)),
    "dropout as a function": lambda: Forward(
        lambda self, x: self.b(F.dropout(F.dropout2d(self.a(x), 0.2, self.training), 0.5, self.training).flatten(1)),
        a=conv(),
        b=nn.Linear(144, 10),
    ),
    "dropout that is evaluated": lambda: Forward(
        lambda self, x: self.b(F.dropout(self.a(x.flatten(1)), 0.3)), a=nn.Linear(144, 8), b=nn.Linear(8, 10)
    ),
    "groups": lambda: nn.Sequential(
        net(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 1, groups=8), nn.Conv2d(8, 4, 1), features=64)
    ),
    "groups of what is shared": lambda: Forward(
        lambda self, x: self.b(self.a(torch.cat([x, x * 2], 1)).flatten(1)),
        a=conv(2, 4, groups=2),
        b=nn.Linear(144, 10),
    ),
    "parametric ReLU": lambda: net(nn.PReLU(), nn.PReLU(4), nn.Flatten(), nn.PReLU()),
    "padding": lambda: net(nn.ZeroPad2d(1), nn.ReflectionPad2d((1, 0, 0, 1)), nn.ConstantPad2d(1, 0.5), features=484),
    "arithmetic": lambda: Forward(in_numbers, a=conv(), b=nn.Linear(144, 10)),
    "concatenation": lambda: Forward(
        joined, a=conv(), b=nn.Conv2d(1, 2, 4, 2), c=nn.Conv2d(4, 3, 1), d=nn.Linear(8 * 36 + 5, 10), e=nn.Linear(2, 3)
    ),
    "means and products": lambda: Forward(squeezed, a=conv(), b=nn.Linear(4, 4), c=nn.Linear(4, 10)),
    "pooling at the end": lambda: nn.Sequential(conv(1, 10), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LogSoftmax(1)),
    "softmax at the end": lambda: Forward(lambda self, x: F.softmax(self.a(x.view(-1, 144)), 1), a=nn.Linear(144, 10)),
    "one axis": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 4, 5, stride=4), nn.BatchNorm1d(4), nn.AvgPool1d(5), nn.Flatten(), nn.Linear(28, 10)
    ),
}
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Tanhshrink, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink),
    *(nn.Softshrink, lambda: nn.Threshold(0.1, 0.0)),
)


def tied():
    """A frozen layer, one that is not used, and two that share a weight."""
    model = Forward(
        lambda self, x: self.c(torch.tanh(self.b(torch.tanh(self.b(self.a(torch.tanh(self.frozen(x.flatten(1))))))))),
        frozen=nn.Linear(144, 8),
        a=nn.Linear(8, 8),
        b=nn.Linear(8, 8),
        unused=nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        c=nn.Linear(8, 10),
    )
    model.b.weight = model.a.weight
    model.frozen.requires_grad_(False)
    return model


LAYERS["frozen, tied and unused"] = tied
BUILDERS = models.BUILT_IN | {"residual": Residual}


def drawn(streams, model, x):
    """What a plain model gives as it draws by the next seed of its stream."""
    process.seed(int(next(streams)))
    return model(x.clone())


def assert_fused_equals_separate(build, shape, shared, weight_decay=0.0):
    """K members fused, and one by one with torch.optim.SGD on plain modules: equal to 1e-10 after 50 steps."""
    members = len(RATES)
    torch.manual_seed(0)
    plain = [build().double().train() for _ in range(members)]
    fused = fuse(plain, shape, shared=shared).train()
    seeds = [0] * members if shared else list(range(members))
    fused.draw_from([np.random.default_rng(seed) for seed in (seeds[:1] if shared else seeds)])
    streams = [iter(np.random.default_rng(seed).integers(2**63, size=STEPS + 1)) for seed in seeds]
    optimizers = [
        torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=weight_decay)
        for model, rate in zip(plain, RATES, strict=True)
    ]
    run = RUN.model_copy(update={"weight_decay": weight_decay})
    trained = [parameter for parameter in fused.parameters() if parameter.requires_grad]
    optimizer = Optimizer(trained, torch.tensor(RATES, dtype=torch.float64), run)
    rng = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(1 if shared else members, 8, *shape, dtype=torch.float64, generator=rng)
        y = torch.randint(10, x.shape[:2], generator=rng)
        for k, (model, separate) in enumerate(zip(plain, optimizers, strict=True)):
            separate.zero_grad()
            F.cross_entropy(drawn(streams[k], model, x[0 if shared else k]), y[0 if shared else k]).backward()
            separate.step()
        logits = fused(x[0] if shared else x)
        cross_entropy(logits, y[0] if shared else y).mean(1).sum().backward()
        optimizer.step()
    tensors = dict(fused.named_parameters()) | dict(fused.named_buffers())
    for k, model in enumerate(plain):
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        assert tensors.keys() == own.keys()
        finite = all(tensor.isfinite().all() for tensor in own.values())
        assert finite == (k < members - 1), "the last member, and no other, was meant to diverge"
        for key, tensor in own.items():
            if finite:
                torch.testing.assert_close(tensors[key][k].detach(), tensor.detach(), rtol=0, atol=1e-10)
        assert finite or not all(tensor[k].isfinite().all() for tensor in tensors.values())
    fused.eval()
    together = fused(x[0].clone() if shared else x)
    for k, model in enumerate(plain[:-1]):
        alone = drawn(streams[k], model.eval(), x[0 if shared else k])
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-9)


SHARED = pytest.mark.parametrize("shared", [True, False], ids=["one batch for all", "a batch each"])


@SHARED
@pytest.mark.parametrize("name", BUILDERS)
def test_fused_equals_separate(name, shared):
    assert_fused_equals_separate(BUILDERS[name], (1, 28, 28), shared, weight_decay=0.01)


@SHARED
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_fused_equals_separate(layer, shared):
    assert_fused_equals_separate(LAYERS[layer], (1, 12, 12), shared, weight_decay=0.01 * shared)


@pytest.mark.parametrize("part", [ACTIVATIONS[0::2], ACTIVATIONS[1::2]], ids=["even", "odd"])
def test_all_activations_fused_equal_separate(part):
    assert_fused_equals_separate(
        lambda: nn.Sequential(
            nn.Flatten(),
            *(layer for act in part for layer in (nn.Linear(144 if act is part[0] else 12, 12), act())),
            nn.Linear(12, 10),
        ),
        (1, 12, 12),
        shared=True,
    )


def test_a_pack_of_one_goes_the_same_way():
    plain = models.BUILT_IN["lenet5"]().double()
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(fuse([plain], (1, 28, 28))(x)[0], plain(x), rtol=0, atol=1e-12)


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


class Unflattened(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(28, 28), nn.Flatten(), nn.Linear(784, 10))


class Transposed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.ConvTranspose2d(1, 1, 3), nn.Flatten(), nn.Linear(900, 10))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(28, 4, batch_first=True), nn.Linear(4, 10)

    def forward(self, x):
        return self.out(self.rnn(x.squeeze(1))[0][:, -1])


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


class Alternating(Layers):
    """Its second instance is another one than its first."""

    slope = 0.0

    def __init__(self):
        super().__init__()
        Alternating.slope += 0.1
        self.act = nn.LeakyReLU(Alternating.slope)


class Parameterless(nn.Flatten):
    pass


class Training(Layers):
    """Fused, it would be evaluated as it trains."""

    def forward(self, x):
        return super().forward(F.relu(x) if self.training else x)


class Hidden(Layers):
    """A hook, which no tracer sees."""

    def __init__(self):
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: output * 2)


class Aliased(Layers):
    """Flattening copies the members' images, so that the ELU in place is lost."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2 * 784, 10)

    def forward(self, x):
        y = self.conv(x)
        F.elu(torch.flatten(y, 1), inplace=True)
        return self.layer(torch.flatten(y, 1))


class Scheduled(Layers):
    """Drops ever more: fused, it would drop as much as when it was traced."""

    rate = 0.0

    def forward(self, x):
        self.rate = self.rate + 0.1 * self.training
        return super().forward(F.dropout(x, self.rate, self.training))


class Mixed(Layers):
    """In float64, in which fusing is checked, it computes as without autocast."""

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class Exits(Layers):
    def forward(self, x):
        if isinstance(x, torch.fx.Proxy):
            raise SystemExit(3)
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Transposed, "layer 0 (ConvTranspose2d)"),
        (Recurrent, "layer rnn (GRU)"),
        (Unflattened, "layer 0 (Linear)"),
        (Loose, "scale is outside layers"),
        (Branching, "it cannot be traced (TraceError)"),
        (Alternating, "layer act (it differs between two instances of the model)"),
        (Parameterless, "it does not end in features of each member's own"),
        (Training, "it does other things as it trains than as it is evaluated"),
        (Hidden, "fused, it computes something else (logits in evaluation)"),
        (Aliased, "fused, it computes something else (logits in evaluation)"),
        (Scheduled, "its own numbers change as it trains"),
        (Mixed, "it uses autocast"),
        (Exits, "it cannot be traced (SystemExit)"),
    ],
)
def test_what_cannot_be_fused_is_named(model, named):
    with pytest.raises(NotFused) as error:
        see_that_it_agrees([model(), model()], (1, 28, 28))
    assert str(error.value) == named


class Masked(Layers):
    """Further arguments keep their defaults."""

    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


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
@pytest.mark.parametrize("model", [Layers, Masked, Twice, InPlace, Named, Sized, Shaped, Residual])
def test_ways_to_write_a_model_that_can_be_fused(model, shared):
    see_that_it_agrees([model(), model(), model()], (1, 28, 28), shared=shared)


def test_the_check_sees_a_wrong_gradient(monkeypatch):
    """The values are right: only training would tell."""
    real = layers.features
    monkeypatch.setattr(layers, "features", lambda x, members: real(x + (x - x.detach()), members))
    with pytest.raises(NotFused, match=r"computes something else \(gradient of conv\.weight\)"):
        see_that_it_agrees([Layers(), Layers()], (1, 28, 28))


def test_tracing_leaves_a_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(784, 10))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state()
    fuse([model], (1, 28, 28))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(states, torch.get_rng_state())

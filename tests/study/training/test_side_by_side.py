import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from study.ledger.records import METRICS
from study.seeding import generator
from study.training import data, loop, process
from study.training.loop import cross_entropy, train
from study.training.models import build, why_apart
from study.training.optimizer import Optimizer
from study.training.side_by_side import SideBySide
from tests import idx
from tests.examples import RUN

SOURCE = '''
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn, self.out = kind(28, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x):
        states, _ = self.rnn(x.squeeze(1))
        return self.out(states[:, -1])


class Gated(Recurrent):
    def __init__(self):
        super().__init__(nn.GRU)


class Attention(nn.Module):
    """Attends to rows, with bare parameters, dropout and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(28, 28))
        self.attention = nn.MultiheadAttention(28, 4, dropout=0.1, batch_first=True)
        self.norm, self.out = nn.BatchNorm1d(28), nn.Linear(28, 10)

    def forward(self, x):
        if x.ndim == 4:
            x = x.squeeze(1)
        x = x + self.place
        x, _ = self.attention(x, x, x, need_weights=False)
        return self.out(self.norm(x.mean(1)))


class Partly(nn.Module):
    """A frozen layer, an unused one, and a tied one."""

    def __init__(self):
        super().__init__()
        self.frozen, self.a, self.b = nn.Linear(784, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.unused, self.out = nn.Linear(5, 5), nn.Linear(16, 10)
        self.b.weight = self.a.weight
        self.frozen.requires_grad_(False)

    def forward(self, x):
        x = torch.relu(self.frozen(torch.flatten(x, 1)))
        return self.out(torch.sin(self.b(torch.sin(self.a(x)))))


class Noisy(nn.Module):
    """Draws from all three generators as it trains."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)

    def forward(self, x):
        x = torch.flatten(x, 1)
        if self.training:
            x = x + torch.randn_like(x) + float(np.random.rand()) + random.random()
        return self.out(x)


class Bounded(nn.Module):
    """Bounds the norm of its weights by setting them, as EEGNet does."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)

    def forward(self, x):
        self.out.weight.data = torch.renorm(self.out.weight.data, 2, 0, 0.5)
        return self.out(torch.flatten(x, 1))


class Double(nn.Module):
    """Computes in double precision, and holds a complex constant."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10).double()
        self.register_buffer("turn", torch.tensor(1j))

    def forward(self, x):
        x = torch.flatten(x, 1).double()
        return self.out(x - (x * self.turn * self.turn).real)


class Leaky(nn.Module):
    """A membrane of each image, as a buffer, which charges and leaks."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)
        self.register_buffer("membrane", torch.zeros(0))

    def forward(self, x):
        self.membrane = torch.zeros(len(x), 10)
        for _ in range(3):
            self.membrane = 0.9 * self.membrane + self.out(torch.flatten(x, 1))
        return self.membrane


class Masked(nn.Module):
    """Its mask is of minus infinities; its mean is finite."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        return self.out(torch.flatten(x, 1)) + self.mask.exp()[1] + self.mean
'''
NAMES = ("Recurrent", "Gated", "Attention", "Partly", "Noisy", "Bounded")
RATES = (0.01, 0.1, 1e308)
"""The last member diverges within a few steps."""
STEPS = 50


@pytest.fixture(autouse=True, scope="module")
def side_nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "side_nets.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return data.load(str(idx.write(tmp_path_factory.mktemp("digits"), idx.learnable())))


def runs(name, rates=(0.01, 0.03), **changes):
    fields = dict(model=f"side_nets:{name}", validation_size=100, batch_size=32, epochs=3) | changes
    return [RUN.model_copy(update=fields | {"learning_rate": rate}) for rate in rates]


def last(pack, dataset, **options):
    *_, epoch = train(pack, dataset, **options)
    return epoch


def built(name, seed):
    return build(f"side_nets:{name}", (1, 28, 28), 10, seed=seed)


@pytest.mark.parametrize("shared", [True, False], ids=["one batch for all", "a batch each"])
@pytest.mark.parametrize("name", NAMES)
def test_side_by_side_equals_separate(name, shared):
    """K members side by side, and one by one with torch.optim.SGD: equal to 1e-10 after 50 steps, with their masks."""
    seeds = [0] if shared else list(range(len(RATES)))
    plain, members = ([built(name, k).double() for k in range(len(RATES))] for _ in range(2))
    assert (why_apart(f"side_nets:{name}", (1, 28, 28), 10) is None) == (name == "Partly")
    model = SideBySide(members, shared=shared)
    model.draw_from([generator("masks", seed, 1) for seed in seeds])
    streams = [generator("masks", seed, 1) for seed in (seeds if not shared else [0] * len(RATES))]
    trained = [p for p in model.parameters() if p.requires_grad]
    run = RUN.model_copy(update={"weight_decay": 0.01})
    optimizer = Optimizer(trained, torch.tensor(RATES, dtype=torch.float64), run)
    optimizers = [
        torch.optim.SGD(m.parameters(), rate, momentum=0.9, weight_decay=0.01)
        for m, rate in zip(plain, RATES, strict=True)
    ]
    rng = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(1 if shared else len(RATES), 8, 1, 28, 28, dtype=torch.float64, generator=rng)
        y = torch.randint(10, x.shape[:2], generator=rng)
        for k, (m, separate) in enumerate(zip(plain, optimizers, strict=True)):
            process.seed(int(streams[k].integers(2**63)))
            separate.zero_grad()
            F.cross_entropy(m(x[0 if shared else k]), y[0 if shared else k]).backward()
            separate.step()
        logits = model(x[0] if shared else x)
        cross_entropy(logits, y[0] if shared else y).mean(1).sum().backward()
        optimizer.step()
    buffers = model.stacked_buffers()
    for k, m in enumerate(plain):
        finite = all(p.isfinite().all() for p in m.parameters())
        assert finite == (k < 2), "the last member, and no other, was meant to diverge"
        stacked = zip([*m.parameters(), *m.buffers()], [*model.parameters(), *buffers], strict=True)
        for expected, found in stacked if finite else ():
            torch.testing.assert_close(found.detach()[k], expected.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["Attention", "Noisy", "Leaky"])
def test_a_checkpoint_goes_on_bit_for_bit(name, dataset, tmp_path):
    """Running means, numbers drawn and all."""
    whole = last(runs(name), dataset)
    going = train(runs(name), dataset)
    torch.save(next(going).state(), tmp_path / "state")
    process.seed(99)
    rest = last(runs(name), dataset, checkpoint=torch.load(tmp_path / "state", weights_only=True))
    for metric in METRICS:
        assert rest.history[metric].tobytes() == whole.history[metric].tobytes()
    assert rest.predictions["test"].tobytes() == whole.predictions["test"].tobytes()


def test_what_is_drawn_is_the_same_packed_or_not_and_hangs_on_the_order_seed(dataset):
    def loss(rates, **changes):
        return last(runs("Noisy", rates, epochs=1, **changes), dataset, dtype=torch.float64).history["train_loss"][0]

    alone = loss((0.01,))[0]
    assert loss((0.03, 0.01))[1] == pytest.approx(alone, rel=1e-12)
    assert abs(loss((0.01,), order_seed=1)[0] / alone - 1) > 1e-3


def test_training_leaves_the_generators_where_they_were(dataset):
    process.seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    last(runs("Noisy", epochs=1), dataset)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2][1], np.random.get_state()[1])  # noqa: NPY002


def test_a_member_whose_running_variance_overflows_has_diverged(dataset, monkeypatch):
    real = loop.train_epoch

    def overflowing(model, *rest):
        metrics = real(model, *rest)
        model.members[1].norm.running_var[0] = torch.inf
        return metrics

    monkeypatch.setattr(loop, "train_epoch", overflowing)
    assert last(runs("Attention", epochs=1), dataset).finite.tolist() == [[True, False]]


def test_a_mask_of_minus_infinities_is_no_divergence(dataset, tmp_path):
    """Nor when it resumes; what was finite as training began is tested still."""
    torch.save(next(train(runs("Masked"), dataset)).state(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    assert last(runs("Masked"), dataset, checkpoint=state).finite.all()
    state["buffers"][1][1] = torch.inf
    assert last(runs("Masked"), dataset, checkpoint=state).finite[-1].tolist() == [True, False]


def test_tensors_of_other_types_keep_them(dataset):
    epoch = last(runs("Double", epochs=1), dataset)
    assert [t.dtype for t in (*epoch.state()["parameters"], *epoch.state()["buffers"])] == [
        *(torch.float64, torch.float64, torch.complex64)
    ]
    assert (epoch.final["test_accuracy"] > 0.5).all()

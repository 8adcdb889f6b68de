import re
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from torch import nn

from study.config import Model
from study.errors import UserError
from study.training import models, process

MNIST = ((1, 28, 28), 10)
SOURCE = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, {hidden}), nn.Tanh(), nn.Linear({hidden}, 10))

class Twelve(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 12))

def no_module():
    return 3

number = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    def write(name, hidden):
        (tmp_path / f"{name}.py").write_text(SOURCE.format(hidden=hidden))
        return f"{name}:Tiny"

    monkeypatch.syspath_prepend(str(tmp_path))
    return write


@pytest.mark.parametrize(
    ("name", "n_parameters", "macs"),
    [("lenet5", 44_426, 281_640), ("mlp", 469_160, 468_500), ("mlp_matched", 44_439, 44_355)],
)
def test_sizes(name, n_parameters, macs):
    model = models.build(name, *MNIST)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    identity = models.identity(name, *MNIST)
    assert (identity.n_parameters, identity.macs) == (n_parameters, macs)
    assert sum(layer.n_parameters for layer in models.describe(model, MNIST[0])) == n_parameters


def test_lenet5_layer_by_layer():
    layers = models.describe(models.build("lenet5", *MNIST), MNIST[0])
    assert [(layer.name, layer.output_shape, layer.n_parameters, layer.macs) for layer in layers] == [
        ("conv1", (6, 24, 24), 156, 25 * 6 * 24 * 24),
        ("conv2", (16, 8, 8), 2416, 150 * 16 * 8 * 8),
        ("fc1", (120,), 30840, 256 * 120),
        ("fc2", (84,), 10164, 120 * 84),
        ("fc3", (10,), 850, 84 * 10),
    ]


@pytest.mark.parametrize("name", models.BUILT_IN)
def test_each_formula_gives_its_number(name):
    for layer in models.describe(models.build(name, *MNIST), MNIST[0]):
        # Digits, brackets, plus and times only: arithmetic that a reader can do.
        assert set(layer.formula) <= set("0123456789()+· ")
        inside, _, outputs = layer.formula.removeprefix("(").partition(")·")
        factors, _, bias = inside.partition(" + ")
        product = 1
        for factor in factors.split("·"):
            product *= int(factor)
        assert (product + int(bias)) * int(outputs) == layer.n_parameters


def test_the_command_prints_the_calculation():
    done = subprocess.run([sys.executable, "-m", "study", "models"], capture_output=True, text=True, check=True)
    for text in ("44,426", "469,160", "44,439", "(6·5·5 + 1)·16", "2,416", "16×8×8", "153,600", "281,640"):
        assert text in done.stdout


def test_a_users_model_by_import_path(nets):
    name = nets("mynets", 7)
    assert isinstance(models.build(name, *MNIST), nn.Module)
    identity = models.identity(name, *MNIST)
    assert identity.n_parameters == 785 * 7 + 8 * 10


def test_a_users_source_is_in_the_fingerprint(nets):
    one = models.identity(nets("nets_one", 7), *MNIST)
    two = models.identity(nets("nets_two", 8), *MNIST)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == models.identity("nets_one:Tiny", *MNIST).fingerprint


FACTORY = """
from functools import partial
from torch import nn

def make(bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=bias))

frozen = partial(make, False)
"""


@pytest.mark.parametrize("attribute", ["make", "frozen"])
def test_the_source_of_what_makes_a_model_is_in_the_fingerprint(tmp_path, monkeypatch, attribute):
    """Its class is torch's own, and tells nothing."""
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for source in (FACTORY, FACTORY + "# more", FACTORY.replace("Flatten()", "Flatten( 1)")):
        monkeypatch.delitem(sys.modules, "factories", raising=False)
        (tmp_path / "factories.py").write_text(source)
        found.append(models.identity(f"factories:{attribute}", *MNIST).fingerprint)
    assert found[0] == found[1] != found[2]


def test_a_users_fingerprint_is_frozen(tmp_path, monkeypatch):
    (tmp_path / "frozen_nets.py").write_text(SOURCE.format(hidden=7))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert models.identity("frozen_nets:Tiny", *MNIST).fingerprint == "15fe44289bce"


def test_fingerprints_of_the_models_are_frozen():
    found = {name: models.identity(name, *MNIST).fingerprint for name in models.BUILT_IN}
    assert found == {"lenet5": "71b80d5cb2cc", "mlp": "e46bbba3f80c", "mlp_matched": "d023326501b0"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet", "found 'lenet'; allowed: lenet5, mlp, mlp_matched, or an import path"),
        ("no_such_module:Net", "cannot be imported"),
        ("bad_nets:Missing", "has no Missing"),
        ("bad_nets:number", "is a int; allowed: a class"),
        ("bad_nets:no_module", "makes a int; allowed: a torch.nn.Module"),
        ("bad_nets:Twelve", r"gives \[2, 12\] for 2 images; allowed: \[2, 10\]"),
    ],
)
def test_a_wrong_model_is_one_line(nets, name, message):
    nets("bad_nets", 7)
    with pytest.raises(UserError, match=message) as error:
        models.build(name, *MNIST)
    assert str(error.value).startswith("models: ")


def of(name, source, output=None, input=None, **arguments):
    return Model(name=name, model=source, arguments=arguments, input=input, output=output)


@pytest.mark.parametrize("name", models.BUILT_IN)
@pytest.mark.parametrize(
    ("shape", "classes"), [((1, 32, 32), 10), ((1, 28, 28), 26), ((3, 32, 40), 2), ((1, 16, 16), 300)]
)
def test_built_in_models_fit_the_images_and_classes(name, shape, classes):
    assert models.build(name, shape, classes)(torch.zeros(3, *shape)).shape == (3, classes)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (of("wide", "mlp", hidden=[1000, 300]), [(1000, 784), (300, 1000), (10, 300)]),
        (of("deep", "mlp", hidden=[9, 8, 7]), [(9, 784), (8, 9), (7, 8), (10, 7)]),
        (of("linear", "mlp_matched", hidden=[]), [(10, 784)]),
        (of("thin", "lenet5", channels=[2], hidden=[]), [(2, 1, 5, 5), (10, 288)]),
        (
            of("small", "lenet5", kernel=3, activation="tanh", pooling="average"),
            [(6, 1, 3, 3), (16, 6, 3, 3), (120, 400)],
        ),
    ],
)
def test_built_in_models_take_width_and_depth(model, sizes):
    module = models.build(model, *MNIST)
    found = [tuple(p.shape) for name, p in module.named_parameters() if name.endswith("weight")]
    assert found[: len(sizes)] == sizes
    assert models.why_apart(model, *MNIST) is None


def test_arguments_are_in_the_fingerprint():
    plain = models.identity("lenet5", *MNIST).fingerprint
    found = {models.identity(of("tanh", "lenet5", activation=a), *MNIST).fingerprint for a in ("tanh", "gelu", "relu")}
    assert len({plain, *found}) == 4
    one, two = (models.identity(of(name, "mlp", hidden=[7]), *MNIST) for name in ("one", "two"))
    assert one == two


ARGUMENTS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width, bias=True):
        super().__init__(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10, bias=bias))

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net(5)
    def forward(self, x):
        y = self.net(x)
        return x, y
"""


@pytest.fixture
def takes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "taking", raising=False)
    (tmp_path / "taking.py").write_text(ARGUMENTS)


def test_a_users_model_takes_arguments_and_gives_one_of_its_outputs(takes):
    model = of("wide", "taking:Net", width=11, bias=False)
    assert models.identity(model, *MNIST).n_parameters == 785 * 11 + 11 * 10
    assert models.why_apart(of("both", "taking:Both", output=1), *MNIST) is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (of("a", "mlp", width=3), "models: 'a': found the argument 'width'; allowed: hidden, activation"),
        (of("a", "mlp", hidden=3), "models: 'a' cannot be made: ValueError: hidden: found 3; allowed: a list of whole"),
        (of("a", "mlp", hidden=[0]), "hidden: found [0]; allowed: a list of whole numbers from 1"),
        (of("a", "lenet5", activation="relo"), "activation: found 'relo'; allowed: relu, tanh, sigmoid, gelu"),
        (of("a", "lenet5", channels=[2, 2, 2]), "images of 28×28 are too small for 3 convolutions and poolings"),
        (of("a", "taking:Net"), "models: 'a' needs arguments (width); allowed: {name: …, model: 'taking:Net', argum"),
        (of("a", "taking:Net", depth=1), "models: 'a': found the argument 'depth'; allowed: width, bias"),
        (of("a", "taking:Net", width="x"), "models: 'a' cannot be made: TypeError: "),
        (of("a", "taking:Both", output=2), "models: 'a' cannot take images of 1×28×28 (tuple index out of"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(takes, model, message):
    with pytest.raises(UserError) as error:
        models.build(model, *MNIST)
    assert message in str(error.value)


EXITS = """
from torch import nn
{module}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {constructor}
    def forward(self, x):
        {forward}
"""


@pytest.mark.parametrize("place", ["module", "constructor", "forward"])
def test_a_model_that_exits_is_one_line(tmp_path, monkeypatch, place):
    source = EXITS.format(
        **dict.fromkeys(("module", "constructor", "forward"), "pass") | {place: "raise SystemExit(3)"}
    )
    (tmp_path / f"exits_{place}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=rf"^models: .*exits_{place}:Net.*\b3\b"):
        models.build(f"exits_{place}:Net", *MNIST)


def test_what_is_shown_says_how_it_trains(tmp_path, monkeypatch, capsys):
    source = SOURCE.format(hidden=7).replace("nn.Tanh()", "nn.RReLU()")
    (tmp_path / "random_nets.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    models.show(["lenet5", "random_nets:Tiny"], Console(width=200))
    shown = capsys.readouterr().out
    assert "lenet5: 1×28×28 in, 10 classes; trains fused" in shown
    assert "random_nets:Tiny: 1×28×28 in, 10 classes; trains side by side (layer 2 (RReLU))" in shown


SEEDED = """
import os
import random
import time

import numpy as np
import torch
from torch import nn

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
seeded_script = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))


class Numpied(Plain):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self[1].weight.copy_(torch.from_numpy(np.random.randn(10, 784) / 28))
            self[1].bias.fill_(random.random())


class Seeded(Plain):
    def __init__(self):
        torch.manual_seed(42)
        super().__init__()


class Half(Plain):
    def __init__(self):
        super().__init__()
        torch.manual_seed(42)
        self.append(nn.Linear(10, 10))


class Zeros(Plain):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self[1].weight), nn.init.zeros_(self[1].bias)


class Clock(Plain):
    def __init__(self):
        super().__init__()
        torch.manual_seed(int(time.time()))
        self.append(nn.Linear(10, 10))


class Entropy(Plain):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self[1].weight.copy_(torch.tensor(np.random.default_rng().normal(size=(10, 784))))


class Buffered(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("noise", torch.tensor(os.urandom(1)[0]))


class DataDependent(Plain):
    # Initialises itself by the first batch that it sees.

    def __init__(self):
        super().__init__()
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, x):
        if not self.ready:
            self[1].bias.data.fill_(float(x.mean()))
            self.ready.fill_(True)
        return super().forward(x)


ORDER = np.random.permutation(784)


class Permuted(Plain):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self[1].weight.copy_(self[1].weight[:, ORDER])


class Still(nn.Flatten):
    def forward(self, x):
        return super().forward(x)[:, :10]


class Frozen(Plain):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Detached(Plain):
    def forward(self, x):
        return super().forward(x).detach()


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))


class Squeezing(Plain):
    def forward(self, x):
        return super().forward(x).squeeze()


class Auxiliary(Plain):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)
"""


SCRIPT = """
from torch import nn

script = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture
def seeded(tmp_path, monkeypatch):
    (tmp_path / "seeded_nets.py").write_text(SEEDED)
    (tmp_path / "script_nets.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("seeded_nets", "script_nets"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return lambda name: f"{'script' if name == 'script' else 'seeded'}_nets:{name}"


def weights(name, seed):
    return torch.cat([p.detach().flatten() for p in models.build(name, *MNIST, seed=seed).parameters()])


@pytest.mark.parametrize("name", ["Plain", "Numpied", "Permuted", "script"])
def test_weights_hang_on_the_seed_alone(seeded, name):
    """Whatever the file draws, seeds and sets as it is imported, and whatever has been drawn since."""
    first = weights(seeded(name), 3)
    process.seed(99)
    assert torch.equal(first, weights(seeded(name), 3))
    process.seed(98)
    del sys.modules[seeded(name).partition(":")[0]]
    assert torch.equal(first, weights(seeded(name), 3))
    assert not torch.equal(first, weights(seeded(name), 4))
    assert first.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert models.check(seeded(name), *MNIST) == []


def test_a_model_that_initialises_itself_by_its_first_batch_has_seen_none(seeded):
    model = models.build(seeded("DataDependent"), *MNIST)
    model(torch.full((2, *MNIST[0]), 3.0))
    assert (model[1].bias == 3).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Seeded", "begins with the same weights for every seed; allowed: .* such as torch.manual_seed(42)"),
        ("seeded_script", "begins with the same weights for every seed"),
        ("Zeros", "begins with the same weights for every seed"),
        ("Clock", "2.weight differs from one making to the next with the same seed; allowed: .* not from time"),
        ("Entropy", "1.weight differs from one making to the next with the same seed"),
        ("Buffered", "noise differs from one making to the next"),
        ("Still", "has no parameters that train"),
        ("Frozen", "has no parameters that train"),
        ("Auxiliary", "gives a tuple as it trains; allowed: .2, 10., as in evaluation"),
        ("Detached", "cannot be trained: element 0 of tensors does not require grad"),
    ],
)
def test_a_model_whose_seed_means_nothing_or_that_cannot_be_trained_is_one_line(seeded, name, message):
    with pytest.raises(UserError) as error:
        models.check(seeded(name), *MNIST)
    assert re.search(
        re.escape(f"models: 'seeded_nets:{name}'") + ":? " + message.replace("(42)", r"\(42\)"), str(error.value)
    )
    assert "\n" not in str(error.value)


ODD = """
import torch
from torch import nn

TABLE = torch.arange(10.0)


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))


class Shared(Plain):
    def __init__(self, act=nn.PReLU()):
        super().__init__()
        self.append(act)


class Counted(Plain):
    def __init__(self, norm=nn.BatchNorm1d(10, affine=False)):
        super().__init__()
        self.append(norm)


class Constant(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", TABLE)


class Complex(Plain):
    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.randn(10, dtype=torch.cfloat))

    def forward(self, x):
        return (super().forward(x) * self.turn).abs()


class Mixed(Plain):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand((), dtype=torch.float64))

    def forward(self, x):
        return super().forward(x) * self.scale


class Tied(Plain):
    def __init__(self):
        super().__init__()
        self.insert(1, nn.Linear(784, 10))
        self.insert(2, nn.Linear(10, 784))
        self[2].weight.data = self[1].weight.data.t()


class Lazy(Plain):
    def __init__(self):
        super().__init__()
        self.add_module("unused", nn.LazyLinear(5))

    def forward(self, x):
        return self[1](self[0](x))


class Levels(Plain):
    def __init__(self):
        super().__init__()
        self.levels = nn.Embedding(256, 1)

    def forward(self, x):
        return self[1](self.levels((255 * x).long()).flatten(1))


class Carried(Plain):
    carried = 0.0

    def forward(self, x):
        x = self[1](self[0](x)) + self.carried
        self.carried = x.mean(0)
        return x


def scripted():
    return torch.jit.script(Plain())
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "odd_nets.py").write_text(ODD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_nets", raising=False)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Shared", "2.weight is the same tensor in all models of its kind; allowed: layers that the constructor makes"),
        ("Counted", "2.running_mean is the same tensor in all models of its kind"),
        ("Constant", None),
        ("Complex", "turn is complex; allowed: real parameters"),
        ("Tied", "1.weight and 2.weight share memory, and would not as they train; allowed: the same Parameter"),
        ("Lazy", "unused.weight has no size, since forward does not use its lazy layer"),
        ("scripted", None),
        ("Carried", "cannot be trained: Trying to backward through the graph a second time"),
        ("Mixed", "found parameters of several types (scale: float64, 1.weight: float32); allowed: one for all"),
    ],
)
def test_an_odd_model_trains_or_is_one_line(odd, name, message):
    if message is None:
        assert models.check(f"odd_nets:{name}", *MNIST) == []
        return
    with pytest.raises(UserError) as error:
        models.check(f"odd_nets:{name}", *MNIST)
    assert re.match(f"models: 'odd_nets:{name}':? {re.escape(message)}", str(error.value)), error.value
    assert "\n" not in str(error.value)


def test_a_model_of_pixels_that_are_not_normalised_is_given_such(odd):
    assert models.check("odd_nets:Levels", *MNIST) == []
    with pytest.raises(UserError, match=r"cannot be trained: .*; allowed: .* dataset: {name: …, normalise: false}$"):
        models.check("odd_nets:Levels", *MNIST, pixel_mean=0.1307, pixel_sd=0.3081)


@pytest.mark.slow
def test_weights_that_are_the_same_for_every_seed_are_said(seeded):
    assert models.check(seeded("Half"), *MNIST) == [
        "seeded_nets:Half: every seed begins with the same 2.weight, 2.bias"
    ]


def test_a_last_batch_that_is_too_small_for_a_batch_norm_is_one_line(seeded):
    assert models.check(seeded("Normed"), *MNIST) == []
    with pytest.raises(UserError, match=r"cannot be trained on a batch of 1 \(the last of an epoch\)"):
        models.check(seeded("Normed"), *MNIST, smallest_batch=1)
    with pytest.raises(
        UserError, match=r"gives \[10\] as it trains on a batch of 1 \(the last of an epoch\); allowed: \[1, 10\]"
    ):
        models.check(seeded("Squeezing"), *MNIST, smallest_batch=1)


CURABLE = """
import torch
from torch import nn

class Larger(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 14 * 14, 10))

class Coloured(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

class Both(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

class Flat(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(784, 10))

class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(28, 5, batch_first=True), nn.Linear(5, 10)
    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])

class Neither(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(17, 10))

class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)
    def forward(self, x):
        return x, self.fc(x.flatten(1))

class Named(Tuple):
    def forward(self, x):
        return dict(features=x, logits=self.fc(x.flatten(1)))
"""


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("Larger", "; allowed: 1×32×32, with dataset: {name: …, pad: 2}"),
        ("Coloured", "; allowed: 3×28×28, with dataset: {name: …, channels: 3}"),
        ("Both", "; allowed: 3×32×32, with dataset: {name: …, pad: 2, channels: 3}"),
        (
            "Flat",
            "; allowed: images of the form that it takes, with {name: …, model: 'curable_nets:Flat', input: flat}",
        ),
        (
            "Rows",
            "; allowed: images of the form that it takes, with {name: …, model: 'curable_nets:Rows', input: rows}",
        ),
        ("Neither", "shapes cannot be multiplied (2x784 and 17x10))"),
        ("Tuple", "one logit a class, as its output 1 has: {name: …, model: 'curable_nets:Tuple', output: 1}"),
        ("Named", "as its output 'logits' has: {name: …, model: 'curable_nets:Named', output: logits}"),
    ],
)
def test_a_model_that_does_not_fit_is_told_with_its_cure(tmp_path, monkeypatch, name, cure):
    (tmp_path / "curable_nets.py").write_text(CURABLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as error:
        models.build(f"curable_nets:{name}", *MNIST)
    assert str(error.value).endswith(cure)
    assert "\n" not in str(error.value)


def test_a_model_takes_images_flat_or_row_by_row(tmp_path, monkeypatch):
    (tmp_path / "curable_nets.py").write_text(CURABLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    flat, rows = (of(form, f"curable_nets:{form.title()}", input=form) for form in ("flat", "rows"))
    assert models.check(flat, *MNIST) == models.check(rows, *MNIST) == []
    assert models.why_apart(flat, *MNIST) is None
    assert (
        models.identity(of("m", "mlp", input="flat"), *MNIST).fingerprint != models.identity("mlp", *MNIST).fingerprint
    )
    with pytest.raises(UserError, match="input: found 'rows'; allowed for 3 channels: flat, or null"):
        models.build(rows, (3, 28, 28), 10)

import importlib
import re
import sys

import pytest

from study.ledger.runs import digest
from study.training import models, source

FILES = {
    "kit/__init__.py": "from .blocks import Block\nfrom . import acts\n",
    "kit/base.py": '''
from torch import nn

WIDTH = 16  # of the hidden layer


class Base(nn.Module):
    """Flattens."""

    def images(self, x):
        return x.flatten(1)
''',
    "kit/acts.py": """
import torch
from torch import nn

ACTS = {"relu": nn.ReLU}
ACTS["tanh"] = nn.Tanh


def act(name):
    return ACTS[name]()


def unused():
    return 5
""",
    "kit/blocks.py": """
from torch import nn

from kit import acts
from kit.base import *


class Block(Base):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.fc, self.act = nn.Linear(784, width), acts.act("relu")

    def forward(self, x):
        return self.act(self.fc(self.images(x)))
""",
    "kit/layers.py": "REGISTRY = {}\n\n\ndef register(kind):\n    REGISTRY[kind.__name__] = kind\n    return kind\n",
    "kit/heads.py": """
from torch import nn

from kit.layers import register


@register
class Head(nn.Linear):
    def __init__(self):
        super().__init__(16, 10)
""",
    "kit/nets.py": '''
"""Nets."""
import torch
import torch.nn as nn

import kit.heads
from kit import Block, layers

torch.manual_seed(1)
scale = 1.0


class Net(nn.Module):
    """The net."""

    def __init__(self):
        super().__init__()
        scale = 3
        self.block, self.out = Block(), nn.Linear(16, 10)

    def forward(self, x):
        # Through the block.
        return self.out(self.block(x))


class Registered(Net):
    def __init__(self):
        super().__init__()
        self.out = layers.REGISTRY["Head"]()


class Patched(Net):
    pass


setattr(Patched, "factor", 1)


def make():
    from kit.blocks import Block as Inner

    return nn.Sequential(Inner(), nn.Linear(16, 10))


def dynamic():
    return eval("Net()")


class Other(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))


if __name__ == "__main__":
    print(Net())
''',
}
NAMES = ("Net", "Registered", "Patched", "make", "dynamic", "Other")


@pytest.fixture
def fingerprints(tmp_path, monkeypatch):
    """The fingerprints of kit.nets's models, with `edits` of its files: (file, what, by what)."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def of(*edits, names=NAMES):
        for name, text in FILES.items():
            for file, what, by in edits:
                if file == name:
                    assert what in text
                    text = text.replace(what, by)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        for module in [m for m in sys.modules if re.match(r"kit(\.|$)", m)]:
            del sys.modules[module]
        for cached in tmp_path.rglob("*.pyc"):
            cached.unlink()
        built = {name: models.build(f"kit.nets:{name}", (1, 28, 28), 10) for name in names}
        return {name: digest(source.code("kit.nets", name, model)) for name, model in built.items()}

    yield of
    for module in [m for m in sys.modules if re.match(r"kit(\.|$)", m)]:
        del sys.modules[module]


BLOCK = {"Net", "Registered", "Patched", "make", "dynamic"}
"""Models that the block is part of."""


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("kit/base.py", "x.flatten(1)", "x.flatten(1) * 2"), BLOCK),
        (("kit/base.py", "WIDTH = 16", "WIDTH = 8 + 8"), BLOCK),
        (("kit/base.py", "from torch import nn", "from torch import nn as nn, fx"), set()),
        (("kit/acts.py", '"relu": nn.ReLU', '"relu": nn.Sigmoid'), BLOCK),
        (("kit/acts.py", "= nn.Tanh", "= nn.Mish"), BLOCK),
        (("kit/acts.py", "ACTS[name]()", "ACTS[name.lower()]()"), BLOCK),
        (("kit/acts.py", "return 5", "return 6"), {"dynamic"}),
        (("kit/blocks.py", "self.fc(self.images(x))", "self.fc(self.images(x) + 1)"), BLOCK),
        (("kit/__init__.py", "from .blocks import Block", "from kit.blocks import Block"), set()),
        (("kit/heads.py", "super().__init__(16, 10)", "super().__init__(16, 5 + 5)"), {"Registered", "dynamic"}),
        (("kit/nets.py", "self.out(self.block(x))", "self.out(self.block(x)) / 2"), BLOCK - {"make"}),
        (("kit/nets.py", "import torch.nn as nn", "from torch import nn"), set()),
        (("kit/nets.py", '"factor", 1', '"factor", 2'), {"Patched", "dynamic"}),
        (("kit/nets.py", "nn.Sequential(Inner()", "nn.Sequential(nn.Identity(), Inner()"), {"make", "dynamic"}),
        (("kit/nets.py", 'eval("Net()")', 'eval("Net( )")'), {"dynamic"}),
        (("kit/nets.py", "nn.Flatten(), nn.Linear(784", "nn.Flatten(1), nn.Linear(784"), {"Other", "dynamic"}),
        # What changes no model but one that may be made of anything in the file.
        (("kit/nets.py", "class Other", "class More(nn.Module):\n    pass\n\n\nclass Other"), {"dynamic"}),
        (("kit/nets.py", "scale = 1.0", "scale = 2.0"), {"dynamic"}),
        (("kit/nets.py", "torch.manual_seed(1)", "torch.manual_seed(2)"), {"dynamic"}),
        # What changes none.
        (("kit/nets.py", "# Through the block.", "# Straight through."), set()),
        (("kit/nets.py", '"""The net."""', '"""A net."""'), set()),
        (("kit/nets.py", '"""Nets."""', ""), set()),
        (("kit/base.py", "  # of the hidden layer", ""), set()),
        (("kit/nets.py", "print(Net())", "print(Other())"), set()),
    ],
    ids=lambda value: f"{value[0]} {value[2]}" if isinstance(value, tuple) else "",
)
def test_a_fingerprint_changes_with_what_the_model_is_made_of_and_with_nothing_else(fingerprints, edit, changed):
    before, after = fingerprints(), fingerprints(edit)
    assert {name for name in NAMES if before[name] != after[name]} == changed


def test_all_models_differ_and_are_frozen(fingerprints):
    found = fingerprints()
    assert len(set(found.values())) == len(found)
    assert found["Net"] == fingerprints()["Net"]
    assert (found["Net"], found["make"]) == ("c8c789ac0fd7", "e9b2f56858ed")


def test_the_folder_and_the_name_of_a_file_do_not_count(tmp_path, monkeypatch):
    text = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    found = []
    for path in ("here/plain_nets.py", "there/deeper/other_nets.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
        monkeypatch.syspath_prepend(str((tmp_path / path).parent))
        found.append(models.identity(f"{(tmp_path / path).stem}:make", (1, 28, 28), 10).fingerprint)
    assert found[0] == found[1]


MADE = """
import torch
from torch import nn

WIDTHS = [784, 10]
net = nn.Sequential(nn.Flatten(), nn.Linear(*WIDTHS))
for layer in net:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.1)
with torch.no_grad():
    net[1].weight.mul_(2)
_ = net.apply(lambda layer: layer)
others = [2 * width for width in WIDTHS]
if WIDTHS:
    others.append(3)
"""


def test_what_a_file_does_with_a_model_that_it_makes_counts_also_if_it_is_named_as_one_of_pythons(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "profile", None)
    found = []
    for what, by in (
        ("", ""),
        ("std=0.1", "std=0.3"),
        ("mul_(2)", "mul_(3)"),
        (": layer)", ": None)"),
        ("d(3)", "d(4)"),
    ):
        (tmp_path / "profile.py").write_text(MADE.replace(what, by))
        del sys.modules["profile"]
        importlib.invalidate_caches()
        found.append(models.identity("profile:net", (1, 28, 28), 10).fingerprint)
        for cached in tmp_path.rglob("*.pyc"):
            cached.unlink()
    assert len(set(found)) == 4
    assert found[0] == found[4], "a list that the model does not reach"


def test_an_edit_after_the_import_changes_neither_the_model_nor_its_fingerprint(fingerprints, tmp_path):
    fingerprints()
    before = models.identity("kit.nets:Net", (1, 28, 28), 10).fingerprint
    (tmp_path / "kit/nets.py").write_text("")
    assert models.identity("kit.nets:Net", (1, 28, 28), 10).fingerprint == before


def test_a_module_whose_file_has_gone_is_in_nobodys_way(fingerprints, tmp_path, monkeypatch):
    (tmp_path / "gone.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "gone", importlib.import_module("gone"))
    (tmp_path / "gone.py").unlink()
    assert fingerprints(names=["Other"])


def test_a_package_installed_anywhere_on_the_path_is_not_the_users(tmp_path, monkeypatch):
    theirs, other = tmp_path / "theirs", tmp_path / "other"
    for folder, package in ((theirs, "apackage"), (other, "asource")):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("from torch import nn\nWIDTH = 3\n")
        (folder / f"{package}-1.dist-info").mkdir()
        (folder / f"{package}-1.dist-info" / "METADATA").write_text(f"Name: {package}\nVersion: 1\n")
        (folder / f"{package}-1.dist-info" / "top_level.txt").write_text(package)
        monkeypatch.syspath_prepend(folder)
    (theirs / "apackage-1.dist-info" / "INSTALLER").write_text("pip\n")
    source._distributions.cache_clear()
    try:
        assert not source._is_users(importlib.import_module("apackage"))
        assert source._is_users(importlib.import_module("asource")), "a folder of sources, as of an editable install"
    finally:
        source._distributions.cache_clear()
        del sys.modules["apackage"], sys.modules["asource"]

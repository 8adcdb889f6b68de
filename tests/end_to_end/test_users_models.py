"""Models of many kinds, as people bring them, in one study: fused and side by side, killed and resumed."""

import json
import os

import pytest

from tests import processes

pytestmark = pytest.mark.slow

SOURCE = '''
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Convs(nn.Module):
    """Batch norm, dropout of channels, global pooling, log-softmax."""

    def __init__(self):
        super().__init__()
        self.blocks, self.drop = nn.Sequential(block(1, 6), block(6, 8)), nn.Dropout2d(0.1)
        self.out = nn.Conv2d(8, 10, 1)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.out(self.drop(self.blocks(x.view(-1, 1, 28, 28)))), 1)
        return F.log_softmax(x.view(-1, 10), dim=1)


class Lazy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.LazyLinear(9), nn.LazyBatchNorm1d(), nn.Dropout(), nn.LazyLinear(10))


class Rows(nn.Module):
    """An image as a sequence of rows."""

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn, self.out = kind(28, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x):
        n, _, _, _ = x.size()
        states, _ = self.rnn(x.squeeze(1))
        return self.out(states[:, -1, :]) if n else None


class Attends(nn.Module):
    """Attention over patches, with places as bare parameters and dropout."""

    def __init__(self):
        super().__init__()
        self.patches, self.place = nn.Conv2d(1, 8, 7, 7), nn.Parameter(0.1 * torch.randn(16, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.out = nn.Linear(8, 10)

    def forward(self, x):
        return self.out(self.layer(self.patches(x).flatten(2).transpose(1, 2) + self.place).mean(1))


class Several(nn.Module):
    """Logits and features; frozen, unused and shared layers; weights by NumPy."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(784, width), nn.Linear(width, width), nn.Linear(3, 3)
        self.out = nn.Linear(width, 10)
        self.first.requires_grad_(False)
        with torch.no_grad():
            self.out.weight.copy_(torch.from_numpy(np.random.randn(10, width) / 4))

    def forward(self, x):
        features = torch.relu(self.second(torch.relu(self.second(self.first(x.flatten(1))))))
        return features, self.out(features) / 2


class Large(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 5, 2), nn.PReLU(), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(392, 10))


script = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
'''


@pytest.fixture
def study(place):
    """A config of these models, and the environment in which they can be imported."""
    (place / "people.py").write_text(SOURCE)

    def of(*models, **changes):
        path = processes.config(place, models=list(models), analysis={"candidate": None}, **changes)
        return path, {"PYTHONPATH": f"{place}{os.pathsep}{processes.ROOT}"}

    return of


SEVERAL = {"name": "several", "model": "people:Several", "arguments": {"width": 16}, "output": 1}


def test_all_kinds_train(study, place):
    names = [f"people:{name}" for name in ("Convs", "Lazy", "Rows", "Attends", "script")]
    path, environment = study(*names, SEVERAL, training={"epochs": 2})
    code, output = processes.run("run", path, own_ray=True, **environment)
    assert code == 0, output
    assert f"small: {6 * 2 * 2} finished, of {6 * 2 * 2} runs planned" in output
    assert [line.partition(" trains side by side")[0] for line in output.splitlines() if "side by side" in line] == [
        "people:Attends",
        "people:Rows",
    ]
    records = [json.loads(file.read_bytes()) for file in (place / "storage" / "small" / "runs").iterdir()]
    final = {}
    for record in records:
        key = record["run"]["model"], record["run"]["learning_rate"]
        final.setdefault(key, set()).add(record["final"]["test_loss"])
    assert all(len(losses) == 2 for losses in final.values()), "each seed has its own"


def test_images_that_a_model_takes_can_be_made(study):
    path, environment = study("people:Large", training={"epochs": 2}, seeds=1)
    code, output = processes.run("run", path, own_ray=True, **environment)
    assert code == 2
    assert output.count("\n") == 1
    assert "allowed: 1×32×32, with dataset: {name: …, pad: 2}" in output
    dataset = f"dataset={{name: {path.parent.parent / 'digits'}, pad: 2}}"
    code, output = processes.run("run", path, dataset, own_ray=True, **environment)
    assert code == 0, output


def test_masks_and_running_statistics_survive_a_killed_driver(study, place):
    recipe = {"optimizer": "adam", "schedule": "cosine", "epochs": 12}
    path, environment = study("people:Convs", "people:Attends", training=recipe, seeds=1)
    folder, undisturbed = place / "storage" / "small", place / "undisturbed"
    code, output = processes.run("run", path, f"storage={undisturbed}", own_ray=True, **environment)
    assert code == 0, output
    process = processes.start("run", path, own_ray=True, **environment)
    processes.until(lambda: processes.durable(folder), "an epoch")
    processes.kill(process)
    code, output = processes.run("run", path, own_ray=True, **environment)
    assert code == 0, output
    processes.assert_same_records(folder, undisturbed / "small")

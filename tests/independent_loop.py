"""The study's training in plain PyTorch: one model, one seed, no packs, no fusion, no Ray. Read this first.

    python -m tests.independent_loop lenet5 0.01 0      # model, learning rate, seed; the recipe of configs/paper.yaml

It takes nothing from the study but the seeds of its random streams, so that our runs can be checked number by number.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from study import seeding

MNIST = Path(__file__).parents[1] / "study" / "datasets" / "mnist"


def convolution(channels, maps):
    return nn.Sequential(nn.Conv2d(channels, maps, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2))


def perceptron(n, hidden1, hidden2):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(n, hidden1), nn.ReLU(), nn.Linear(hidden1, hidden2), nn.ReLU(), nn.Linear(hidden2, 10)
    )


MODELS = {
    "lenet5": lambda: nn.Sequential(convolution(1, 6), convolution(6, 16), perceptron(256, 120, 84)),
    "mlp": lambda: perceptron(784, 500, 150),
    "mlp_matched": lambda: perceptron(784, 55, 19),
}


def read(file, header, *shape):
    content = gzip.decompress((MNIST / f"{file}-ubyte.gz").read_bytes())
    return torch.tensor(np.frombuffer(content, np.uint8, offset=header)).view(-1, *shape)


def train(name, learning_rate, seed, epochs=10, dtype=torch.float32, stream=seeding.stream):
    """Yield the mean training loss and the validation and test accuracy after every epoch."""
    images, test_images = (
        (read(file, 16, 1, 28, 28).to(dtype) / 255 - 0.1307) / 0.3081
        for file in ("train-images-idx3", "t10k-images-idx3")
    )
    labels, test_labels = (read(file, 8).long() for file in ("train-labels-idx1", "t10k-labels-idx1"))
    shuffled = torch.tensor(np.random.default_rng(seeding.stream("split", 0)).permutation(60_000))
    validation, training = shuffled[:5_000], shuffled[5_000:]

    torch.manual_seed(stream("init", seed, name))
    model = MODELS[name]().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng(stream("order", seed, epoch)).permutation(55_000)
        total = 0.0
        for batch in training[order].split(64):
            loss = cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            val = (model(images[validation]).argmax(1) == labels[validation]).double().mean()
            test = (model(test_images).argmax(1) == test_labels).double().mean()
        yield total / 55_000, val.item(), test.item()


if __name__ == "__main__":
    model, learning_rate, seed = sys.argv[1:]
    for epoch, (loss, val, test) in enumerate(train(model, float(learning_rate), int(seed)), 1):
        print(f"epoch {epoch:2}: training loss {loss:.4f}, validation accuracy {val:.2%}, test accuracy {test:.2%}")

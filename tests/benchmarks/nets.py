"""Networks as people bring them: with dropout, and with batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Examples(nn.Module):
    """As in PyTorch's own MNIST example: two convolutions, dropout twice, log-softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(self.dropout1(x), 1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


class ConvNet(nn.Sequential):
    """Two convolutions with batch norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__(*_block(1, 16), *_block(16, 32), nn.Flatten(), nn.Linear(7 * 7 * 32, 10))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 5, padding=2), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)


class DropoutMLP(nn.Sequential):
    """Two hidden layers of 256, dropout after each."""

    def __init__(self) -> None:
        first = nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2)
        super().__init__(*first, nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))

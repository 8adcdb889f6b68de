"""Global state that a model's code may use or change: random generators and PyTorch's defaults."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed(number: int) -> None:
    """Set the generators of torch, NumPy and Python to the stream of `number`, in [0, 2**63)."""
    # torch.manual_seed looks for every kind of device: 230 µs, and side by side models are seeded at every step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the generators (of the CPU) and defaults at the end, whatever was drawn, seeded or set within."""
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    defaults = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    gradients, deterministic = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.set_rng_state(generators[0])
        random.setstate(generators[1])
        np.random.set_state(generators[2])  # noqa: NPY002
        torch.set_default_dtype(defaults[0])
        if torch.get_default_device() != defaults[1]:
            torch.set_default_device(defaults[1])
        if torch.get_num_threads() != defaults[2]:
            torch.set_num_threads(defaults[2])
        torch.set_grad_enabled(gradients)
        torch.use_deterministic_algorithms(deterministic)

"""Images a second on one thread: the DataLoader loop, the in-memory loop, fused packs, and the matmul bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Subset

from study.launch.worker import keep_memory
from study.ledger.runs import Run
from study.training import data, models
from study.training.fusion import fuse
from study.training.loop import Splits, initialised, train_epoch
from study.training.models import Members
from study.training.optimizer import Optimizer
from study.training.side_by_side import SideBySide
from tests.benchmarks import harness

BATCH = 64
WIDTHS = (1, 5, 6, 20, 60)
STEPS = {"lenet5": 40, "mlp": 40, "mlp_matched": 200}
"""Steps a round: about a second each."""

NETS = {
    f"tests.benchmarks.nets:{name}": steps for name, steps in (("Examples", 4), ("ConvNet", 10), ("DropoutMLP", 40))
}
"""Networks as users bring them, and steps a round."""


def main() -> None:
    """Print the table and append it to results.jsonl."""
    torch.set_num_threads(1)
    keep_memory()
    dataset = data.load("mnist")
    print("images a second, one thread, batch 64, medians of 5 alternating rounds (fused: images × members)")
    for name in models.BUILT_IN:
        arms = {"dataloader": dataloader(name), "in memory": in_memory(name, dataset)}
        arms |= {f"fused {k}": fused(name, dataset, k) for k in WIDTHS}
        found = harness.rates(arms | {"matmul flop": harness.matmul_flops()})
        bound = found.pop("matmul flop") / flops(name)
        found = {arm: round(rate) for arm, rate in found.items()}
        best = max(found["fused 5"], found["fused 6"])
        harness.record("training_speed", model=name, rates=found, bound=round(bound))
        print(f"{name}: " + ", ".join(f"{arm} {rate:,}" for arm, rate in found.items()) + f", bound {bound:,.0f}")
        print(
            f"  fused 5 or 6 is {best / found['dataloader']:.1f} × the DataLoader loop, "
            f"{best / found['in memory']:.1f} × the in-memory loop, {best / bound:.0%} of the matmul bound"
        )
        print(
            "  where a step of fused 6 goes: " + ", ".join(f"{op} {part:.0%}" for op, part in shares(name, dataset, 6))
        )
    print("networks as users bring them, six members")
    for name in NETS:
        arms = {"in memory": in_memory(name, dataset), "fused 6": fused(name, dataset, 6)}
        arms["side by side 6"] = fused(name, dataset, 6, join=SideBySide)
        found = {arm: round(rate) for arm, rate in harness.rates(arms).items()}
        harness.record("training_speed", model=name, rates=found)
        ratios = (found[arm] / found["in memory"] for arm in ("fused 6", "side by side 6"))
        print(f"{name}: " + ", ".join(f"{arm} {rate:,}" for arm, rate in found.items()))
        print("  fused is {:.2f} ×, side by side {:.2f} × the in-memory loop".format(*ratios))
        print(
            "  where a step of fused 6 goes: " + ", ".join(f"{op} {part:.0%}" for op, part in shares(name, dataset, 6))
        )


def flops(name: str) -> int:
    """Floating-point operations to train on one image: forward, and both gradients but the one of the input image."""
    layers = models.describe(models.build(name, (1, 28, 28), 10), (1, 28, 28))
    return 2 * (3 * sum(layer.macs for layer in layers) - layers[0].macs)


def dataloader(name: str) -> Callable[[], int]:
    """The loop of every tutorial."""
    model, optimizer = plain(name)
    n = (STEPS | NETS)[name] * BATCH
    loader = DataLoader(Subset(harness.torchvision_mnist(train=True), range(n)), BATCH, shuffle=True)

    def arm() -> int:
        for x, y in loader:
            step(model, optimizer, x, y)
        return n

    return arm


def in_memory(name: str, dataset: data.Dataset) -> Callable[[], int]:
    """The same with all images in one tensor."""
    model, optimizer = plain(name)
    n = (STEPS | NETS)[name] * BATCH
    x = torch.tensor(dataset.train_images[:n]).float().div(255).sub(0.1307).div(0.3081).unsqueeze(1)
    y = torch.tensor(dataset.train_labels[:n]).long()

    def arm() -> int:
        for batch in torch.randperm(n).split(BATCH):
            step(model, optimizer, x[batch], y[batch])
        return n

    return arm


def plain(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A plain model with torch's own optimiser."""
    model = models.build(name, (1, 28, 28), 10)
    return model, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """One step of the plain loops."""
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def fused(
    name: str, dataset: data.Dataset, members: int, join: Callable[[list[nn.Module]], Members] | None = None
) -> Callable[[], int]:
    """The study's own loop, a pack of `members` learning rates, fused unless they are to be joined otherwise."""
    run = Run(
        dataset=dataset.info.name,
        dataset_sha256=dataset.info.sha256,
        pixel_mean=dataset.info.pixel_mean,
        pixel_sd=dataset.info.pixel_sd,
        validation_size=len(dataset.train_labels) - (STEPS | NETS)[name] * BATCH,
        model=name,
        model_fingerprint="0" * 12,
        learning_rate=0.01,
        seed=0,
        init_seed=0,
        order_seed=0,
        split_seed=0,
        batch_size=BATCH,
        epochs=1,
        momentum=0.9,
        weight_decay=0.0,
    )
    modules = [initialised(run, dataset) for _ in range(members)]
    model = fuse(modules, dataset.info.shape) if join is None else join(modules)
    model.draw_from([np.random.default_rng(0)])
    optimizer = Optimizer(list(model.parameters()), torch.full((members,), 0.01), run)
    splits = Splits(run, dataset, members, "cpu", torch.float32)
    rng = np.random.default_rng(0)

    def arm() -> int:
        train_epoch(model, optimizer, splits, [rng.permutation(splits.n_train)], run)
        return splits.n_train * members

    return arm


def shares(name: str, dataset: data.Dataset, members: int, most: int = 8) -> list[tuple[str, float]]:
    """The operators that a step's time goes to, as the profiler counts them, largest first."""
    arm = fused(name, dataset, members)
    arm()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        arm()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    found = {event.key.removeprefix("aten::"): event.self_cpu_time_total / total for event in events}
    return sorted(found.items(), key=lambda item: -item[1])[:most]


if __name__ == "__main__":
    main()

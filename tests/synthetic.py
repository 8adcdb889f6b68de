"""Writes ledgers of studies that were never trained, drawn from a known truth, for the tests of the analysis."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from study.config_file import validate
from study.launch.plan import packs, plan
from study.ledger.ledger import Ledger, npz
from study.ledger.records import METRICS, DatasetInfo, Launch, Layer, ModelInfo, Provenance, Record, Study
from study.ledger.runs import PlannedRun
from study.ledger.storage import Storage


@dataclass(frozen=True)
class Truth:
    """A model's images are right with probability Φ(μ + τ z_i + ω u_s): z per image, u per seed, standard normal."""

    mu: float
    tau: float = 3.4
    omega: float = 0.05
    n_parameters: int = 44_426


LENET = Truth(8.27, 3.50, 0.055, 44_426)
MLP = Truth(7.34, 3.32, 0.050, 469_160)
MATCHED = Truth(6.4, 3.2, 0.060, 44_439)
DEFAULT = {"lenet5": LENET, "mlp": MLP, "mlp_matched": MATCHED}


def write(
    folder: Path,
    models: Mapping[str, Truth] = DEFAULT,
    *,
    learning_rates: Sequence[float] = (0.003, 0.01, 0.03),
    seeds: int | Sequence[int] | Mapping[str, int] = 5,
    epochs: int = 3,
    n_test: int = 1000,
    n_val: int = 300,
    classes: int = 10,
    shape: tuple[int, int] = (28, 28),
    correlation: float = 0.7,
    states: Mapping[tuple[str, float, int], str] | None = None,
    analysis: Mapping[str, object] | None = None,
    name: str = "synthetic",
    dataset: str = "mnist",
    made_of: Mapping[str, str] | None = None,
    random_seed: int = 0,
) -> Path:
    """Write a whole ledger into `folder`/`name` and return that folder.

    The middle learning rate is each model's best. `states` maps (model, learning_rate, seed) to diverged, failed,
    missing, collapsed, or unpredicted (finished, its predictions lost); every other run finishes. `made_of` maps models
    to what they are made of where that is not their name.
    """
    rng = np.random.default_rng(random_seed)
    states = dict(states or {})
    tree = {
        "name": name,
        "dataset": dataset,
        "models": [{"name": m, "model": made_of[m]} if made_of and m in made_of else m for m in models],
        "learning_rates": list(learning_rates),
        "seeds": seeds if isinstance(seeds, int | dict) else list(seeds),
        "training": {"epochs": epochs, "validation_size": n_val},
        "analysis": dict(analysis or {}),
    }
    config = validate(tree, "synthetic")
    info = DatasetInfo(
        name=dataset,
        sha256="a" * 64,
        files={},
        n_train=6 * n_test,
        n_test=n_test,
        classes=classes,
        shape=(1, *shape),
        pixel_mean=0.13,
        pixel_sd=0.31,
    )
    described = {model: _described(model, truth, shape, classes) for model, truth in models.items()}
    planned = plan(config, info, described)
    ledger = Ledger(Storage(folder) / name)
    labels = {"test": _labels(rng, n_test, classes), "val": _labels(rng, n_val, classes)}
    ledger.write_dataset(
        {
            "test_images": rng.integers(0, 256, (n_test, *shape), dtype=np.uint8),
            "test_labels": labels["test"],
            **{f"val_labels_{s}": labels["val"] for s in sorted({p.run.split_seed for p in planned})},
        }
    )
    launch = Launch(
        config=config.resolved(),
        analysis_sha256=config.analysis_sha256(),
        recipe=planned[0].run.recipe,
        git_commit="0" * 40,
        git_dirty=False,
        versions={"torch": "2.0"},
        started_at="2000-01-01T00:00:00+00:00",
    )
    layers = {model: of.layers for model, of in described.items()}
    grouped = packs(planned, "learning_rates")
    ledger.write_study(Study(name=name, dataset=info, launches=[launch], layers=layers, packs=grouped))
    difficulty = {
        split: _correlated(rng, len(models), n, correlation) for split, n in (("test", n_test), ("val", n_val))
    }
    best = sorted(learning_rates)[len(learning_rates) // 2]
    for p in planned:
        run = p.run
        state = states.get((run.model, run.learning_rate, run.seed), "finished")
        k = list(models).index(run.model)
        distance = abs(np.log(run.learning_rate / best))
        truth = models[run.model]
        luck = rng.standard_normal()
        predictions = {}
        for split in ("val", "test"):
            ease = truth.mu - 0.25 * distance + truth.tau * difficulty[split][k] + truth.omega * luck
            right = rng.random(len(ease)) < norm.cdf(ease)
            wrong = (labels[split] + 1 + rng.integers(0, classes - 1, len(ease))) % classes
            predictions[split] = np.where(right, labels[split], wrong).astype(np.uint8)
        if state != "missing":
            _write(ledger, p, state, predictions, labels, classes, rng)
    return folder / name


def _described(model: str, truth: Truth, shape: tuple[int, int], classes: int) -> ModelInfo:
    """A model of two layers, the first of feature maps."""
    maps, last = (4, *shape), truth.n_parameters // 3
    first = Layer(name="conv1", kind="conv 3×3", output_shape=maps, formula="", n_parameters=2 * last, macs=last)
    second = Layer(name="fc1", kind="linear", output_shape=(classes,), formula="", n_parameters=last, macs=last)
    return ModelInfo(
        fingerprint=hashlib.sha256(model.encode()).hexdigest()[:12],
        n_parameters=truth.n_parameters,
        macs=truth.n_parameters,
        layers=(first, second),
    )


def _write(
    ledger: Ledger,
    planned: PlannedRun,
    state: str,
    predictions: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    classes: int,
    rng: np.random.Generator,
) -> None:
    epochs = planned.run.epochs
    if state == "collapsed":
        predictions = {split: np.zeros_like(labels[split]) for split in predictions}
    final = {f"{split}_accuracy": float((predictions[split] == labels[split]).mean()) for split in predictions}
    final["train_accuracy"] = 1 / classes if state == "collapsed" else min(1.0, final["test_accuracy"] + 0.004)
    final |= {
        f"{split}_loss": -np.log(max(final[f"{split}_accuracy"], 1e-3)) * 1.2 for split in ("train", "val", "test")
    }
    curve = {
        metric: tuple(
            float(final[metric] + (0.05 if metric.endswith("loss") else -0.02) * (epochs - e) / epochs)
            for e in range(1, epochs + 1)
        )
        for metric in METRICS
    }
    curve = {m: tuple(max(v, 0.0) for v in values) for m, values in curve.items()}
    n_finite = {"diverged": epochs - 1, "failed": 0}.get(state, epochs)
    finished = n_finite == epochs
    record = Record(
        **dict(planned),
        state="finished" if finished else state,
        epochs={metric: values[:n_finite] for metric, values in curve.items()},
        diverged_epoch=epochs if state == "diverged" else None,
        final={k: float(v) for k, v in final.items()} if finished else None,
        predictions_sha256=hashlib.sha256(npz(predictions)).hexdigest() if finished else None,
        provenance=Provenance(
            pack_id="0" * 12,
            pack_size=1,
            device="cpu",
            node="node",
            train_seconds=float(np.round(rng.uniform(1, 2), 3)),
            versions={"torch": "2.0"},
            error="RuntimeError: broken" if state == "failed" else None,
        ),
    )
    ledger.write_record(record, npz(predictions) if finished else None)
    if state == "unpredicted":
        ledger.storage.delete(f"predictions/{record.run_id}.npz")


def _labels(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    return rng.permutation(np.arange(n) % classes).astype(np.uint8)


def _correlated(rng: np.random.Generator, k: int, n: int, correlation: float) -> np.ndarray:
    """Standard normals [k, n], every pair of rows correlated alike."""
    common = rng.standard_normal(n)
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.standard_normal((k, n))

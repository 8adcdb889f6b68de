"""From a config to what must be trained: the plan, the frozen packs, and what the ledger already holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import TypedDict

from study.config import Seeds, StudyConfig
from study.errors import UserError
from study.launch import provenance
from study.ledger.ledger import Ledger, Problem
from study.ledger.lock import STALE_SECONDS
from study.ledger.records import DatasetInfo, Launch, ModelInfo, Record, Study
from study.ledger.runs import Pack, PlannedRun, Run, digest, share_batches, work
from study.ledger.storage import Storage
from study.training import checkpoints, data, models
from study.training.data import Dataset

DATA = ("dataset_sha256", "validation_size")
"""Parts of the recipe that say which images are predicted: a study keeps the labels of one such choice."""


@dataclass(frozen=True)
class Prepared:
    """A study ready to be trained or described."""

    config: StudyConfig
    dataset: Dataset
    ledger: Ledger
    planned: tuple[PlannedRun, ...]
    study: Study
    """study.json as this launch would leave it."""
    records: Mapping[str, Record]
    """Records that exist, of this plan and of earlier ones."""
    problems: Sequence[Problem]
    notes: Sequence[str] = ()
    """Lines for the user about the data and the models to be trained."""

    def todo(self, retry_failed: bool = False) -> list[Pack]:
        """Packs of this plan in which a run has no record yet, longest first, so that no core idles at the end."""
        wanted = {p.run_id for p in self.planned}
        ended = self.ended(retry_failed)
        open_packs = [
            pack for pack in self.study.packs if any(r.run_id in wanted and r.run_id not in ended for r in pack.runs)
        ]
        return sorted(open_packs, key=work, reverse=True)

    @property
    def redeclared(self) -> bool:
        """Whether this launch declares another analysis than the last one did."""
        return len({launch.analysis_sha256 for launch in self.study.launches[-2:]}) > 1

    def ended(self, retry_failed: bool = False) -> dict[str, Record]:
        """Records that must not be made again."""
        return {k: r for k, r in self.records.items() if not (retry_failed and r.state == "failed")}

    def tidy(self, retry_failed: bool = False) -> None:
        """Remove what killed drivers and workers left: half-written files, checkpoints of ended packs."""
        for folder in ("runs", "predictions", "checkpoints", "dataset"):
            self.ledger.storage.sweep(folder)
        # Heartbeats and drivers that want the lock write here.
        self.ledger.storage.sweep(".", STALE_SECONDS)
        checkpoints.delete_ended(self.ledger.storage, self.study.packs, self.ended(retry_failed))


class SeedRow(TypedDict):
    """A seed of a study, and the three that it stands for."""

    seed: int
    init_seed: int
    order_seed: int
    split_seed: int


def seed_table(seeds: Seeds, split_seed: int) -> list[SeedRow]:
    """Every seed of a study as the three it stands for, in order.

    A plain seed s initialises and orders by s, on the study's one split. In a factorial the seed is
    the position in the order split × order × init, and only labels the combination.
    """
    if isinstance(seeds, int):
        seeds = tuple(range(seeds))
    if isinstance(seeds, tuple):
        return [SeedRow(seed=s, init_seed=s, order_seed=s, split_seed=split_seed) for s in seeds]
    combinations = product(range(seeds.split), range(seeds.order), range(seeds.init))
    return [
        SeedRow(seed=position, init_seed=init, order_seed=order, split_seed=split)
        for position, (split, order, init) in enumerate(combinations)
    ]


def plan(config: StudyConfig, dataset: DatasetInfo, models: Mapping[str, ModelInfo]) -> tuple[PlannedRun, ...]:
    """All runs of the study, ordered by model, seed, learning rate as the config lists them; `models` by their name."""
    training = config.training
    recipe = training.model_dump(exclude={"epochs", "batch_size", "validation_size", "split_seed"})
    planned = []
    for name, model in config.named_models().items():
        info = models[name]
        for seeds in seed_table(config.seeds, training.split_seed):
            for learning_rate in config.learning_rate_grid():
                run = Run(
                    dataset=dataset.name,
                    dataset_sha256=dataset.sha256,
                    pad=config.images.pad,
                    channels=config.images.channels,
                    pixel_mean=dataset.pixel_mean,
                    pixel_sd=dataset.pixel_sd,
                    validation_size=training.validation_size,
                    model=name,
                    model_fingerprint=info.fingerprint,
                    constructor=None if model.model == name else model.model,
                    arguments=model.arguments,
                    input=model.input,
                    output=model.output,
                    learning_rate=learning_rate,
                    **seeds,
                    batch_size=training.batch_size,
                    epochs=training.epochs,
                    **recipe | {"momentum": training.momentum or 0.0, "nesterov": bool(training.nesterov)},
                )
                planned.append(PlannedRun(run_id=run.run_id, run=run, n_parameters=info.n_parameters, macs=info.macs))
    return tuple(planned)


WIDEST = {"cpu": 2_500_000, "gpu": 25_000_000}
"""Multiply-accumulates of an image, over all members of a pack, beyond which `auto` packs no more.

On a core it is where packs of learning rates were fastest: 6 of lenet5, 5 of mlp (`python -m tests.benchmarks
training_speed`). On a GPU it is an estimate: what one of 10 TFLOP/s does of a batch of 64 while the next step's
hundred kernels are launched, a millisecond.
"""

MOST_MEMBERS = 100
"""Members of a pack that `auto` makes at most: a pack that dies is trained again whole."""


def packs(runs: Sequence[PlannedRun], width: str | int, device: str = "cpu") -> tuple[Pack, ...]:
    """Group planned runs into packs.

    `width` "learning_rates" packs the learning rates of one (model, seed); a number packs at most that
    many members, across seeds of one model and one split. "auto" packs by the model's size, for a `device` cpu or
    gpu: whole seeds where several fit a GPU; a core, on which several were slower than one, gets one seed or less.
    """
    groups: list[list[PlannedRun]] = []
    if width == "learning_rates":
        groups = [list(g) for _, g in groupby(runs, key=lambda r: (r.run.model, r.run.seed))]
    else:
        for _, group in groupby(runs, key=lambda r: (r.run.model, r.run.split_seed)):
            members = list(group)
            if not isinstance(width, int):
                groups += _by_size(members, device)
            else:
                groups += [members[i : i + width] for i in range(0, len(members), width)]
    return tuple(Pack(pack_id=digest([r.run_id for r in g]), runs=tuple(g)) for g in groups)


def _by_size(members: Sequence[PlannedRun], device: str) -> list[list[PlannedRun]]:
    """Runs of one model and split in packs as `auto` makes them."""
    most = min(MOST_MEMBERS, max(1, WIDEST[device] // max(1, members[0].macs)))
    groups: list[list[PlannedRun]] = []
    for _, group in groupby(members, key=lambda r: r.run.seed):
        seed = list(group)
        if device == "gpu" and groups and len(groups[-1]) + len(seed) <= most:
            groups[-1] += seed
        else:
            # Evenly: a last pack of one would take nearly as long as the others.
            n = -(-len(seed) // most)
            groups += [seed[len(seed) * i // n : len(seed) * (i + 1) // n] for i in range(n)]
    return groups


def prepare(config: StudyConfig, *, mix_recipes: bool = False, to_train: bool = True) -> Prepared:
    """Load the data, plan all runs, join the plan to what the ledger holds, and check the models still `to_train`.

    Packs are frozen once planned: runs that are new form new packs, whatever `launch.pack` says now. Raises
    UserError when the dataset, a model or the storage cannot be used, or when the study of this name was trained
    by another recipe or from other source of a model, unless `mix_recipes`; StorageError when the storage cannot be
    read.
    """
    dataset = data.load(config.images)
    data.split(dataset.info.n_train, config.training.validation_size, config.training.split_seed)
    named = config.named_models()
    described = {name: models.identity(m, dataset.info.shape, dataset.info.classes) for name, m in named.items()}
    planned = plan(config, dataset.info, described)
    ledger = Ledger(Storage(config.storage) / config.name)
    study = ledger.read_study()
    records, problems = ledger.records(curves=False)
    recipe = planned[0].run.recipe
    frozen = () if study is None else study.packs
    if study is not None:
        _same_study(study, config.name, recipe, ledger, mix_recipes)
        if not mix_recipes:
            _same_models(frozen, planned, ledger)
    known = {run.run_id for pack in frozen for run in pack.runs}
    device = "gpu" if config.launch.gpus_per_trial else "cpu"
    fresh = packs([run for run in planned if run.run_id not in known], config.launch.pack, device)
    commit, dirty = provenance.git()
    launch = Launch(
        config=config.resolved(),
        analysis_sha256=config.analysis_sha256(),
        recipe=recipe,
        git_commit=commit,
        git_dirty=dirty,
        versions=provenance.versions(),
        started_at=provenance.now(),
    )
    study = Study(
        name=config.name,
        dataset=dataset.info,
        launches=(*(() if study is None else study.launches), launch),
        layers={**({} if study is None else study.layers), **{name: info.layers for name, info in described.items()}},
        packs=(*frozen, *fresh),
    )
    prepared = Prepared(config, dataset, ledger, planned, study, records, problems)
    todo = prepared.todo(retry_failed=True) if to_train else []
    notes = [dataset.info.relabelled] if to_train and dataset.info.relabelled else []
    shape, classes = dataset.info.shape, dataset.info.classes
    last_batch = (dataset.info.n_train - config.training.validation_size) % config.training.batch_size
    for name in sorted({pack.runs[0].run.model for pack in todo}):
        notes += models.check(
            named[name],
            shape,
            classes,
            smallest_batch=1 if last_batch == 1 else 2,
            pixel_mean=dataset.info.pixel_mean,
            pixel_sd=dataset.info.pixel_sd,
        )
        # Whether members share their batches may differ from pack to pack.
        packs_ = (pack.runs for pack in todo if pack.runs[0].run.model == name)
        for shared in sorted({share_batches(member.run for member in members) for members in packs_}):
            if reason := models.why_apart(named[name], shape, classes, shared=shared):
                notes.append(f"{name} trains side by side, not fused ({reason}): {models.PRICE}")
                break
    return replace(prepared, notes=tuple(notes))


def commit(prepared: Prepared) -> None:
    """Write study.json and the arrays that analysis needs, before anything is trained."""
    dataset, validation_size = prepared.dataset, prepared.config.training.validation_size
    arrays = {"test_images": dataset.test_images, "test_labels": dataset.test_labels}
    if dataset.test_clusters is not None:
        arrays["test_clusters"] = dataset.test_clusters
    for split_seed in sorted({planned.run.split_seed for planned in prepared.planned}):
        _, validation = data.split(dataset.info.n_train, validation_size, split_seed)
        arrays[f"val_labels_{split_seed}"] = dataset.train_labels[validation]
    prepared.ledger.write_dataset(arrays)
    prepared.ledger.write_study(prepared.study)


def _same_study(study: Study, name: str, recipe: Mapping[str, object], ledger: Ledger, mix_recipes: bool) -> None:
    """Raise UserError where runs of this recipe cannot join the study."""
    if study.name != name:
        raise UserError(f"{ledger.storage.path('study.json')}: found the study {study.name!r}; allowed: {name!r}")
    before = study.launches[-1].recipe
    different = {
        key: f"{key}: {before.get(key)!r} before, {recipe.get(key)!r} now"
        for key in sorted({*before, *recipe})
        if before.get(key) != recipe.get(key)
    }
    if others := [different[key] for key in DATA if key in different]:
        raise UserError(
            f"{ledger.storage}: holds a study of other data ({'; '.join(others)}), which no recipe can join; "
            "allowed: the same data, or another name=…"
        )
    if different and not mix_recipes:
        raise UserError(
            f"{ledger.storage}: holds a study of another recipe ({'; '.join(different.values())}); "
            "allowed: the same recipe, another name=…, or --mix-recipes"
            + "; either trains from the start, since weights of finished runs are not kept"
            * ("epochs" in different)
        )


def _same_models(frozen: Sequence[Pack], planned: Sequence[PlannedRun], ledger: Ledger) -> None:
    """Raise UserError where a model's name would stand for two models of one recipe."""
    recipe = planned[0].run.recipe
    before = {r.run.model: r.run.model_fingerprint for p in frozen for r in p.runs if r.run.recipe == recipe}
    now = {p.run.model: p.run.model_fingerprint for p in planned}
    if changed := [name for name in now if before.get(name, now[name]) != now[name]]:
        raise UserError(
            f"{ledger.storage}: holds runs of another {changed[0]}: its source has changed since they were planned; "
            "allowed: the source as it was, another name=…, or --mix-recipes, which sets the older runs aside"
        )

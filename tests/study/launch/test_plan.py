"""A config's runs and packs, joined to what its ledger holds, and what a launch tidies; nothing is trained."""

import contextlib
import dataclasses
import functools
import io
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from study.config_file import load, validate
from study.errors import UserError
from study.launch import cluster, plan, ray_tune, session
from study.launch.messages import Failed, Started
from study.launch.plan import Prepared
from study.ledger.records import METRICS, DatasetInfo, ModelInfo, Provenance, Record
from study.training import checkpoints, data, models
from tests import idx
from tests.examples import MNIST_SHA256

MNIST = DatasetInfo(
    name="mnist",
    sha256=MNIST_SHA256,
    files=data.MNIST_SHA256,
    n_train=60_000,
    n_test=10_000,
    classes=10,
    shape=(1, 28, 28),
    pixel_mean=0.1307,
    pixel_sd=0.3081,
)
SIZES = {
    "lenet5": ModelInfo(fingerprint="0123456789ab", n_parameters=44426, macs=416520),
    "mlp": ModelInfo(fingerprint="ba9876543210", n_parameters=469160, macs=468500),
    "mlp_matched": ModelInfo(fingerprint="00112233aabb", n_parameters=44439, macs=44355),
}
QUICK = load("configs/quick.yaml")


def planned(config):
    return plan.plan(config, MNIST, SIZES)


def test_run_ids_of_the_paper_are_frozen():
    """With the data and the models as they are: those that its published records carry."""
    dataset = data.load("mnist")
    assert dataset.info == MNIST
    config = load("configs/paper.yaml")
    identities = {name: models.identity(name, dataset.info.shape, dataset.info.classes) for name in config.models}
    runs = plan.plan(config, dataset.info, identities)
    found = {p.run.model: p.run_id for p in runs if (p.run.learning_rate, p.run.seed) == (0.01, 0)}
    assert found == {"lenet5": "6616d91bbaf4", "mlp": "3698f8ca14e8", "mlp_matched": "0f262357615e"}


MACHINE_KNOBS = [
    "launch.cpus_per_trial=2",
    "launch.gpus_per_trial=0.5",
    "launch.pack=4",
    "launch.pack=auto",
    "launch.workers=3",
    "launch.max_failures=0",
    "launch.checkpoint_seconds=0",
    "wandb.mode=disabled",
    "wandb.project=other",
    "wandb.entity=me",
    "storage=s3://bucket/x",
    "name=other",
    "analysis.margin=0.01",
]


@pytest.mark.parametrize("knob", MACHINE_KNOBS)
def test_machine_knobs_are_not_in_the_identity(knob):
    ids = [p.run_id for p in planned(QUICK)]
    assert [p.run_id for p in planned(load("configs/quick.yaml", [knob]))] == ids


AUTO = {
    ("cpu", "6"): {"lenet5": [6, 6, 6, 6], "mlp": [3] * 8, "mlp_matched": [6, 6, 6, 6]},
    ("cpu", "16"): {"lenet5": [5, 5, 6] * 4, "mlp": [4] * 16, "mlp_matched": [16] * 4},
    ("gpu", "6"): {"lenet5": [24], "mlp": [24], "mlp_matched": [24]},
    ("gpu", "50"): {"lenet5": [50] * 4, "mlp": [50] * 4, "mlp_matched": [100] * 2},
}


@pytest.mark.parametrize(("device", "rates"), AUTO)
def test_auto_packs_by_the_models_size_and_the_device(device, rates):
    """A core trains the learning rates of one seed at most, evenly; a GPU whole seeds."""
    grid = f"learning_rates={{log_uniform: [0.001, 0.1], count: {rates}, seed: 0}}"
    runs = planned(load("configs/quick.yaml", ["seeds=4", grid]))
    found = plan.packs(runs, "auto", device)
    sizes = {}
    for pack in found:
        sizes.setdefault(pack.runs[0].run.model, []).append(len(pack.runs))
    assert sizes == AUTO[device, rates]
    assert sorted(r.run_id for pack in found for r in pack.runs) == sorted(r.run_id for r in runs)


RECIPES = [
    "training.optimizer=adam",
    "training.optimizer=adamw",
    "training.optimizer=rmsprop",
    "training.nesterov=true",
    "training.momentum=0",
    "training.schedule=cosine",
    "training.schedule=step",
    "training.schedule=linear",
    "training.warmup_epochs=0.5",
    "training.label_smoothing=0.1",
    "training.gradient_clip=1",
    "dataset.pad=2",
    "dataset.channels=3",
    "models=[lenet5, {name: mlp, model: 'mlp', output: 0}, mlp_matched]",
]


def test_every_recipe_has_ids_of_its_own():
    ids = [{p.run_id for p in planned(load("configs/quick.yaml", [override]))} for override in ["seeds=8", *RECIPES]]
    assert ids[0] == {p.run_id for p in planned(QUICK)}
    for i, one in enumerate(ids):
        assert all(one != other for other in ids[:i])


def test_a_run_names_what_its_model_is_made_from():
    config = load("configs/smoke.yaml", ["models=[lenet5, {name: wide, model: mlp, arguments: {hidden: [900]}}]"])
    runs = plan.plan(config, MNIST, {**SIZES, "wide": SIZES["mlp"]})
    found = {p.run.model: p.run.built_from.model_dump() for p in runs}
    assert found == {name: model.model_dump() for name, model in config.named_models().items()}


@pytest.mark.parametrize("file", sorted(Path("configs/recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_recipes_are_planned(file):
    """Fashion-MNIST, which would be downloaded, with the images of MNIST."""
    config = load(file, ["dataset=mnist"] if file.stem == "fashion_mnist" else [])
    info = data.load(config.images).info
    described = {name: models.identity(m, info.shape, info.classes) for name, m in config.named_models().items()}
    runs = plan.plan(config, info, described)
    # A recipe that takes long has the rates about the best.
    assert len(runs) == 3 * (4 if file.stem in ("batch_16", "epochs_30") else 6) * 8
    # One model of the size of the candidate, one larger.
    candidate, larger, matched = (info.n_parameters for info in described.values())
    assert abs(matched - candidate) < 0.002 * candidate < larger
    paper = planned(load("configs/paper.yaml"))[0].run.recipe
    assert runs[0].run.recipe != paper or file.stem == "fashion_mnist"


def test_more_epochs_say_that_they_train_from_the_start(tmp_path):
    folder = idx.write(tmp_path / "digits", idx.learnable(60, 20))
    overrides = [f"dataset={folder}", f"storage={tmp_path}", "training.validation_size=10", "training.epochs=2"]
    prepared = plan.prepare(load("configs/smoke.yaml", overrides), to_train=False)
    prepared.ledger.write_study(prepared.study)
    more = load("configs/smoke.yaml", [*overrides[:3], "training.epochs=5"])
    with pytest.raises(
        UserError, match=r"epochs: 2 before, 5 now.*; either trains from the start, since weights of fin"
    ):
        plan.prepare(more, to_train=False)


def test_the_plan_is_the_whole_grid_once():
    runs = planned(QUICK)
    grid = itertools.product(QUICK.models, range(8), (0.003, 0.01, 0.03))
    assert [(p.run.model, p.run.seed, p.run.learning_rate) for p in runs] == list(grid)
    assert len({p.run_id for p in runs}) == 72
    assert len({p.run.configuration_id for p in runs}) == 9


def test_growing_a_study_keeps_the_old_ids():
    before = {p.run_id for p in planned(QUICK)}
    after = {
        p.run_id for p in planned(load("configs/quick.yaml", ["seeds=10", "learning_rates=[0.003, 0.01, 0.03, 0.1]"]))
    }
    assert before < after
    assert len(after) == 3 * 10 * 4


def test_a_plain_seed_equals_its_cell_of_a_factorial():
    factorial = planned(load("configs/quick.yaml", ["seeds={init: 2, order: 2, split: 2}"]))
    assert len(factorial) == 3 * 8 * 3
    assert len({p.run_id for p in factorial}) == 72
    assert {p.run.seed for p in factorial} == set(range(8))
    plain = {p.run_id for p in planned(QUICK) if p.run.seed < 2}
    assert plain < {p.run_id for p in factorial}


def test_packs_hold_the_learning_rates_of_one_seed():
    found = plan.packs(planned(QUICK), "learning_rates")
    assert len(found) == 24
    for pack in found:
        assert [p.run.learning_rate for p in pack.runs] == [0.003, 0.01, 0.03]
        assert len({(p.run.model, p.run.seed) for p in pack.runs}) == 1


@given(width=st.integers(1, 50), seeds=st.integers(1, 6))
def test_any_width_packs_every_run_once(width, seeds):
    runs = planned(
        validate({"name": "x", "models": ["mlp", "lenet5"], "learning_rates": [0.1, 0.2], "seeds": seeds}, "x")
    )
    found = plan.packs(runs, width)
    assert [p.run_id for pack in found for p in pack.runs] == [p.run_id for p in runs]
    assert all(len(pack.runs) <= width and len({p.run.model for p in pack.runs}) == 1 for pack in found)
    assert len({pack.pack_id for pack in found}) == len(found)


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        tree = dict(
            name="small",
            dataset=str(idx.write(tmp_path / "digits", idx.learnable(seed=changes.pop("data", 0)))),
            storage=str(tmp_path / "storage"),
            models=["mlp_matched"],
            learning_rates=[0.1],
            seeds=2,
            training={"epochs": 3, "validation_size": 100},
            wandb={"mode": "disabled"},
        )
        return validate(tree | changes, "test")

    return make


@pytest.fixture
def no_ray(monkeypatch):
    """Packs are handed to what stands in for Ray Tune, and no Ray is started."""
    monkeypatch.setattr(cluster, "connected", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "lack", lambda knobs: None)


def failed(prepared):
    """Write failed records of all runs."""
    for pack in prepared.study.packs:
        for planned in pack.runs:
            provenance = Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs))
            record = Record(**dict(planned), state="failed", epochs=dict.fromkeys(METRICS, ()), provenance=provenance)
            prepared.ledger.write_record(record)
            checkpoints.save(prepared.ledger.storage, pack, {})


def test_an_interrupted_retry_keeps_its_checkpoints(config):
    prepared = plan.prepare(config())
    plan.commit(prepared)
    failed(prepared)
    prepared = plan.prepare(config())
    assert len(prepared.todo(retry_failed=True)) == 2
    prepared.tidy(retry_failed=True)
    assert len(prepared.ledger.storage.names("checkpoints")) == 2
    prepared.tidy()
    assert prepared.ledger.storage.names("checkpoints") == []


@pytest.mark.parametrize("retry_failed", [True, False])
def test_a_launch_tidies_under_its_lock_and_keeps_what_it_retries(config, monkeypatch, no_ray, retry_failed):
    prepared = plan.prepare(config())
    plan.commit(prepared)
    failed(prepared)
    tidied = []

    def tidy(self, *arguments):
        tidied.append((self.ledger.storage.exists("driver.lock"), *arguments))

    monkeypatch.setattr(Prepared, "tidy", tidy)
    monkeypatch.setattr(ray_tune, "launch", lambda *arguments: None)
    console = Console(file=io.StringIO())
    assert session.run([config()], console, session.Options(again="", retry_failed=retry_failed)) == 1
    assert tidied == [(True, retry_failed)] + [(True,)] * retry_failed


def test_a_study_of_another_name_is_refused(config):
    prepared = plan.prepare(config())
    renamed = prepared.study.model_copy(update={"name": "other"})
    plan.commit(dataclasses.replace(prepared, study=renamed))
    with pytest.raises(UserError, match=r"study\.json: found the study 'other'; allowed: 'small'"):
        plan.prepare(config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": 1}, "dataset_sha256: '"),
        ({"training": {"epochs": 3, "validation_size": 50}}, "validation_size: 100 before, 50 now"),
    ],
)
def test_other_data_never_join_a_study(config, changes, message):
    """Its predictions would be held against the labels that the study keeps."""
    plan.commit(plan.prepare(config()))
    with pytest.raises(UserError, match="holds a study of other data") as error:
        plan.prepare(config(**changes), mix_recipes=True)
    assert message in str(error.value)
    another = config(training={"epochs": 4, "validation_size": 100})
    assert len(plan.prepare(another, mix_recipes=True).planned) == 2
    with pytest.raises(UserError, match="epochs: 3 before, 4 now"):
        plan.prepare(another)


MODELS = """
from torch import nn

class Noisy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.RReLU(), nn.Linear(784, 10))

class Fine(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "planned_nets.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planned_nets", raising=False)


def test_a_model_that_trains_side_by_side_is_named_in_one_line(config, nets):
    said = io.StringIO()
    session.show_plan(config(models=["mlp_matched", "planned_nets:Noisy"]), Console(file=said, width=60))
    assert "\nplanned_nets:Noisy trains side by side, not fused (layer 1 (RReLU)): as fast as " in said.getvalue()
    assert "mlp_matched trains" not in said.getvalue()


def test_an_edited_model_joins_no_study_of_its_name_unless_told_to(config, nets, tmp_path):
    ours = config(models=["mlp_matched", "planned_nets:Fine"])
    plan.commit(plan.prepare(ours))
    before = plan.prepare(ours)
    (tmp_path / "planned_nets.py").write_text(MODELS.replace("nn.Linear(784, 10)", "nn.Linear(784, 10, bias=False)"))
    del sys.modules["planned_nets"]
    with pytest.raises(UserError, match=r"of another planned_nets:Fine: its source has changed .* or --mix-recipes"):
        plan.prepare(ours)
    assert plan.prepare(config()).planned, "a model that is not asked for may have changed"
    mixed = plan.prepare(ours, mix_recipes=True)
    assert len(mixed.todo()) == 2 + 2
    plan.commit(mixed)
    after = plan.prepare(ours)
    assert {p.run_id for p in after.planned} != {p.run_id for p in before.planned}
    assert len(after.study.packs) == 2 + 2 + 2


def test_another_model_in_the_same_file_leaves_the_first_as_it_was(config, nets, tmp_path):
    plan.commit(plan.prepare(config(models=["mlp_matched", "planned_nets:Fine"])))
    more = MODELS + "\n\nclass More(Fine):\n    pass\n"
    (tmp_path / "planned_nets.py").write_text(more)
    del sys.modules["planned_nets"]
    grown = plan.prepare(config(models=["mlp_matched", "planned_nets:Fine", "planned_nets:More"]))
    assert len(grown.planned) == 2 * 3
    assert len(grown.study.packs) == 2 * 3


@pytest.mark.parametrize(("pack", "shared"), [("learning_rates", {True}), (2, {False}), (1, {True})])
def test_models_are_checked_with_the_batches_that_their_packs_have(config, monkeypatch, pack, shared):
    checked = set()
    monkeypatch.setattr("study.training.models.why_apart", lambda *_, shared: checked.add(shared))
    plan.prepare(config(launch={"pack": pack}))
    assert checked == shared


def test_another_analysis_of_an_ended_study_is_noted_once(config):
    prepared = plan.prepare(config())
    plan.commit(prepared)
    failed(prepared)
    said = io.StringIO()
    for margin, launches in ((0.001, 1), (0.002, 2), (0.002, 2), (0.001, 3)):
        assert session.run([config(analysis={"margin": margin})], Console(file=said), session.Options(again="")) == 1
        study = prepared.ledger.read_study()
        assert [len(study.launches), study.launches[-1].config["analysis"]["margin"]] == [launches, margin]
    assert said.getvalue().count("the analysis block differs from the last launch's") == 2


def test_one_is_not_many(config):
    said = io.StringIO()
    session.show_plan(config(seeds=1, launch={"workers": 1}), Console(file=said))
    text = said.getvalue()
    assert "1 model × 1 learning rate × 1 seed × 3 epochs = 1 run\n" in text
    assert "1 of 1 run, in 1 pack\n" in text
    assert "mlp_matched: 1 run in 1 pack\n" in text
    assert "estimated time on 1 worker:" in text


def test_a_pack_that_was_dropped_is_launched_again_while_that_helps(config, monkeypatch, no_ray):
    """As Tune drops the second of two packs between which a worker died."""
    launches = []

    def dropping(queues, watch, most):
        (queue,) = queues
        launches.append(len(queue.packs))
        for index, pack in enumerate(queue.packs[:most]):
            where = Provenance(pack_id=pack.pack_id, pack_size=1, error="raised on purpose")
            queue.recorder.receive(index, Failed(where))

    for most, expected in ((1, [3, 2, 1]), (0, [1])):
        launches.clear()
        monkeypatch.setattr(ray_tune, "launch", functools.partial(dropping, most=most))
        seeds = 3 if most else 4
        output = io.StringIO()
        assert session.run([config(seeds=seeds)], Console(file=output), session.Options(again="")) == 1
        assert launches == expected, output.getvalue()
    assert len(plan.prepare(config(seeds=4)).ledger.read_study().launches) == 2, "a launch again is no new one"


def test_a_stopped_study_says_how_to_go_on_once_and_is_given_back_before_ray_has_ended(config, monkeypatch, no_ray):
    """As `ray job stop` needs it, which waits for three seconds."""
    output, held = io.StringIO(), []

    def stopped(queues, watch):
        lock = queues[0].recorder._ledger.storage
        held.append(lock.exists("driver.lock"))
        watch.interrupted("SIGTERM")
        held.append(lock.exists("driver.lock"))
        raise ray_tune.Interrupted("SIGTERM")

    monkeypatch.setattr(ray_tune, "launch", stopped)
    assert session.run([config()], Console(file=output, width=200), session.Options(again="the same command")) == 130
    assert held == [True, False]
    said = "stopped by SIGTERM; every ended run is kept; to go on: the same command"
    assert output.getvalue().count(said) == 1


def test_studies_that_share_gpus_are_trained_on_one_kind(config, monkeypatch, no_ray):
    """What one is trained on, the other is too; which is impossible where they were trained on two kinds before."""
    launched = []
    monkeypatch.setattr(ray_tune, "launch", lambda queues, watch: launched.extend(q.recorder for q in queues))
    studies = [config(launch={"gpus_per_trial": 1}), config(name="other", launch={"gpus_per_trial": 0.5})]

    def run(**more):
        return session.run(studies, Console(file=io.StringIO()), session.Options(again="", **more))

    assert run() == 1, "nothing was trained"
    first, other = launched[:2]
    first.receive(0, Started("a", device="NVIDIA L4"), "a")
    other.receive(0, Started("b", device="NVIDIA A10G"), "b")
    assert (first.ends_worker(0), other.ends_worker(0)) == (False, True)
    kinds = iter([{"NVIDIA L4"}, {"NVIDIA A10G"}] * 2)
    monkeypatch.setattr(session, "_same_devices", lambda prepared, setup: None)
    monkeypatch.setattr(session, "devices", lambda records: next(kinds))
    with pytest.raises(
        UserError, match=r"found studies trained on different GPUs \(small on NVIDIA L4; other on NVIDIA A10G"
    ):
        run()


def test_several_studies_are_trained_on_one_ray(config, monkeypatch, no_ray):
    launched = []

    def fail_all(queues, watch):
        launched.append([len(queue.packs) for queue in queues])
        for queue in queues:
            for index, pack in enumerate(queue.packs):
                where = Provenance(pack_id=pack.pack_id, pack_size=1, error="raised on purpose")
                queue.recorder.receive(index, Failed(where))

    monkeypatch.setattr(ray_tune, "launch", fail_all)
    output = io.StringIO()
    studies = [config(), config(name="other", seeds=3)]
    assert session.run(studies, Console(file=output, width=200), session.Options(again="")) == 1
    assert launched == [[2, 3]]
    for name, runs in (("small", 2), ("other", 3)):
        assert f"{name}: {runs} failed, of {runs} runs planned" in output.getvalue()
        assert f"{name}: {runs} of {runs} runs done" in output.getvalue()


def test_a_study_goes_on_on_its_own_kind_of_device(config, no_ray):
    prepared = plan.prepare(config())
    plan.commit(prepared)
    planned = prepared.planned[0]
    where = Provenance(pack_id="0" * 12, pack_size=1, device="NVIDIA H100")
    nothing = dict.fromkeys(METRICS, ())
    record = Record(**dict(planned), state="diverged", diverged_epoch=1, epochs=nothing, provenance=where)
    prepared.ledger.write_record(record)
    with pytest.raises(
        UserError, match=r"gpus_per_trial: found 0, and .* holds runs trained on NVIDIA H100; allowed: "
    ):
        session.run([config()], Console(file=io.StringIO()), session.Options(again=""))

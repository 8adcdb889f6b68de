import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.config_file import load, validate
from study.ledger.runs import Run, packs, plan
from study.training import data, models

MNIST = dict(dataset="mnist", dataset_sha256="c65580678af93f1ea48c2c0d01d543ec89307c6b8a0eb7ca542d7c18c5f4c681")
DATASET = MNIST | dict(pixel_mean=0.1307, pixel_sd=0.3081)
SIZES = {
    "lenet5": dict(model_fingerprint="0123456789ab", n_parameters=44426, macs=416520),
    "mlp": dict(model_fingerprint="ba9876543210", n_parameters=469160, macs=468500),
    "mlp_matched": dict(model_fingerprint="00112233aabb", n_parameters=44439, macs=44355),
}
RUN = Run(
    **DATASET,
    validation_size=5000,
    model="lenet5",
    model_fingerprint="0123456789ab",
    learning_rate=0.01,
    seed=0,
    init_seed=0,
    order_seed=0,
    split_seed=0,
    batch_size=64,
    epochs=10,
    momentum=0.9,
    weight_decay=0.0,
)
SCIENTIFIC = dict(
    dataset_sha256="a" * 64,
    validation_size=4000,
    pixel_mean=0.5,
    pixel_sd=0.5,
    model="mlp",
    model_fingerprint="ffffffffffff",
    learning_rate=0.02,
    init_seed=1,
    order_seed=1,
    split_seed=1,
    batch_size=32,
    epochs=11,
    optimizer="adam",
    momentum=0.8,
    weight_decay=0.1,
)
QUICK = load("configs/quick.yaml")


def planned(config):
    return plan(config, DATASET, SIZES)


def test_run_ids_are_frozen():
    # A change here orphans every record that exists. Do it on purpose, or not at all.
    assert RUN.run_id == "a0d26d9077b3"
    assert RUN.configuration_id == "aba8024f023d"
    changed = RUN.model_copy(update=dict(learning_rate=0.003, init_seed=3, order_seed=3))
    assert changed.run_id == "c204e721cd90"


def test_run_ids_of_the_paper_are_frozen():
    """With the data and the models as they are: those that its published records carry."""
    dataset = data.load("mnist")
    assert dataset.identity() == DATASET
    config = load("configs/paper.yaml")
    identities = {name: models.identity(name, dataset.info.shape, dataset.info.classes) for name in config.models}
    planned = plan(config, dataset.identity(), identities)
    found = {p.run.model: p.run_id for p in planned if (p.run.learning_rate, p.run.seed) == (0.01, 0)}
    assert found == {"lenet5": "6616d91bbaf4", "mlp": "3698f8ca14e8", "mlp_matched": "0f262357615e"}


@pytest.mark.parametrize("key", SCIENTIFIC)
def test_everything_scientific_is_in_the_identity(key):
    assert RUN.model_copy(update={key: SCIENTIFIC[key]}).run_id != RUN.run_id


def test_names_are_not_in_the_identity():
    assert set(SCIENTIFIC) | {"dataset", "seed"} == set(Run.model_fields)
    assert RUN.model_copy(update=dict(dataset="my_copy", seed=9)).run_id == RUN.run_id


MACHINE_KNOBS = [
    "launch.cpus_per_trial=2",
    "launch.gpus_per_trial=0.5",
    "launch.pack=4",
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


def test_the_plan_is_the_whole_grid_once():
    runs = planned(QUICK)
    grid = itertools.product(QUICK.models, range(5), (0.003, 0.01, 0.03))
    assert [(p.run.model, p.run.seed, p.run.learning_rate) for p in runs] == list(grid)
    assert len({p.run_id for p in runs}) == 45
    assert len({p.run.configuration_id for p in runs}) == 9


def test_growing_a_study_keeps_the_old_ids():
    before = {p.run_id for p in planned(QUICK)}
    after = {
        p.run_id for p in planned(load("configs/quick.yaml", ["seeds=7", "learning_rates=[0.003, 0.01, 0.03, 0.1]"]))
    }
    assert before < after
    assert len(after) == 3 * 7 * 4


def test_a_plain_seed_equals_its_cell_of_a_factorial():
    factorial = planned(load("configs/quick.yaml", ["seeds={init: 2, order: 2, split: 2}"]))
    assert len(factorial) == 3 * 8 * 3
    assert len({p.run_id for p in factorial}) == 72
    assert {p.run.seed for p in factorial} == set(range(8))
    plain = {p.run_id for p in planned(QUICK) if p.run.seed < 2}
    assert plain < {p.run_id for p in factorial}


def test_packs_hold_the_learning_rates_of_one_seed():
    found = packs(planned(QUICK), "learning_rates")
    assert len(found) == 15
    for pack in found:
        assert [p.run.learning_rate for p in pack.runs] == [0.003, 0.01, 0.03]
        assert len({(p.run.model, p.run.seed) for p in pack.runs}) == 1


@given(width=st.integers(1, 50), seeds=st.integers(1, 6))
def test_any_width_packs_every_run_once(width, seeds):
    runs = planned(
        validate({"name": "x", "models": ["mlp", "lenet5"], "learning_rates": [0.1, 0.2], "seeds": seeds}, "x")
    )
    found = packs(runs, width)
    assert [p.run_id for pack in found for p in pack.runs] == [p.run_id for p in runs]
    assert all(len(pack.runs) <= width and len({p.run.model for p in pack.runs}) == 1 for pack in found)
    assert len({pack.pack_id for pack in found}) == len(found)

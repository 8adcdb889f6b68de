import json

import pytest

from study.ledger.runs import LATER, Run
from tests.examples import RUN

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
    pad=2,
    channels=3,
    constructor="lenet5",
    arguments={"hidden": [9]},
    input="flat",
    output=0,
    nesterov=True,
    betas=(0.8, 0.99),
    alpha=0.9,
    eps=1e-6,
    schedule="cosine",
    step_epochs=2,
    step_factor=0.5,
    warmup_epochs=1.0,
    label_smoothing=0.1,
    gradient_clip=1.0,
)


def test_run_ids_are_frozen():
    # A change here orphans every record that exists. Do it on purpose, or not at all.
    assert RUN.run_id == "a0d26d9077b3"
    assert RUN.configuration_id == "aba8024f023d"
    changed = RUN.model_copy(update=dict(learning_rate=0.003, init_seed=3, order_seed=3))
    assert changed.run_id == "c204e721cd90"


@pytest.mark.parametrize("key", SCIENTIFIC)
def test_everything_scientific_is_in_the_identity(key):
    assert RUN.model_copy(update={key: SCIENTIFIC[key]}).run_id != RUN.run_id


@pytest.mark.parametrize("key", SCIENTIFIC)
def test_a_run_is_read_as_it_was_written(key):
    run = RUN.model_copy(update={key: SCIENTIFIC[key]})
    again = Run.model_validate_json(run.model_dump_json())
    assert again == run
    assert again.run_id == run.run_id
    assert again.recipe == run.recipe
    assert json.loads(json.dumps(run.recipe)) == run.recipe


def test_what_came_later_is_not_written_where_it_says_nothing():
    """So that runs of the plain recipe keep their ids, and their records their bytes."""
    assert set(RUN.model_dump()) == set(Run.model_fields) - set(LATER)


def test_names_are_not_in_the_identity():
    assert set(SCIENTIFIC) | {"dataset", "seed"} == set(Run.model_fields)
    assert RUN.model_copy(update=dict(dataset="my_copy", seed=9)).run_id == RUN.run_id

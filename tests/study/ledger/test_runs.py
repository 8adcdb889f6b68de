import pytest

from study.ledger.runs import Run
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


def test_names_are_not_in_the_identity():
    assert set(SCIENTIFIC) | {"dataset", "seed"} == set(Run.model_fields)
    assert RUN.model_copy(update=dict(dataset="my_copy", seed=9)).run_id == RUN.run_id

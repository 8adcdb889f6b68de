"""A config joined to what its ledger holds, and what a launch tidies; nothing is trained."""

import dataclasses
import io

import pytest
from rich.console import Console

from study import checkpoints, launch, planning, session
from study.config_file import validate
from study.errors import UserError
from study.planning import Prepared
from study.records import METRICS, Provenance, Record
from tests import idx


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        tree = dict(
            name="small",
            dataset=str(idx.write(tmp_path / "digits", idx.learnable(seed=changes.pop("digits", 0)))),
            storage=str(tmp_path / "storage"),
            models=["mlp_matched"],
            learning_rates=[0.1],
            seeds=2,
            training={"epochs": 3, "validation_size": 100},
            wandb={"mode": "disabled"},
        )
        return validate(tree | changes, "test")

    return make


def failed(prepared):
    """Write failed records of all runs."""
    for pack in prepared.study.packs:
        for planned in pack.runs:
            provenance = Provenance(pack_id=pack.pack_id, pack_size=len(pack.runs))
            record = Record(**dict(planned), state="failed", epochs=dict.fromkeys(METRICS, ()), provenance=provenance)
            prepared.ledger.write_record(record)
            checkpoints.save(prepared.ledger.storage, pack, {})


def test_an_interrupted_retry_keeps_its_checkpoints(config):
    prepared = planning.prepare(config())
    planning.commit(prepared)
    failed(prepared)
    prepared = planning.prepare(config())
    assert len(prepared.todo(retry_failed=True)) == 2
    prepared.tidy(retry_failed=True)
    assert len(prepared.ledger.storage.names("checkpoints")) == 2
    prepared.tidy()
    assert prepared.ledger.storage.names("checkpoints") == []


@pytest.mark.parametrize("retry_failed", [True, False])
def test_a_launch_tidies_under_its_lock_and_keeps_what_it_retries(config, monkeypatch, retry_failed):
    prepared = planning.prepare(config())
    planning.commit(prepared)
    failed(prepared)
    tidied = []

    def tidy(self, *arguments):
        tidied.append((self.ledger.storage.exists("driver.lock"), *arguments))

    monkeypatch.setattr(Prepared, "tidy", tidy)
    monkeypatch.setattr(launch, "launch", lambda *arguments, **options: None)
    console = Console(file=io.StringIO())
    assert session.run(config(), console, again="", retry_failed=retry_failed) == 1
    assert tidied == [(True, retry_failed)] + [(True,)] * retry_failed


def test_a_study_of_another_name_is_refused(config):
    prepared = planning.prepare(config())
    renamed = prepared.study.model_copy(update={"name": "other"})
    planning.commit(dataclasses.replace(prepared, study=renamed))
    with pytest.raises(UserError, match=r"study\.json: found the study 'other'; allowed: 'small'"):
        planning.prepare(config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digits": 1}, "dataset_sha256: '"),
        ({"training": {"epochs": 3, "validation_size": 50}}, "validation_size: 100 before, 50 now"),
    ],
)
def test_other_digits_never_join_a_study(config, changes, message):
    """Its predictions would be held against the labels that the study keeps."""
    planning.commit(planning.prepare(config()))
    with pytest.raises(UserError, match="holds a study of other digits") as error:
        planning.prepare(config(**changes), mix_recipes=True)
    assert message in str(error.value)
    another = config(training={"epochs": 4, "validation_size": 100})
    assert len(planning.prepare(another, mix_recipes=True).planned) == 2
    with pytest.raises(UserError, match="epochs: 3 before, 4 now"):
        planning.prepare(another)

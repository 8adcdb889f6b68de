"""Whether a machine is fit for a study; this one is, unless it is told to expect something else."""

import dataclasses
import os
import time
import types

import pytest

from study.config_file import validate
from study.launch import node
from study.launch.node import Expected
from study.ledger import storage as storage_
from study.ledger.lock import Lock
from study.ledger.runs import Pack, PlannedRun
from study.ledger.storage import Storage
from study.training import data, models
from tests import idx
from tests.examples import RUN

ELSEWHERE = dataclasses.replace(Expected(), boot="another machine")


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    monkeypatch.setattr(node, "PATIENCE", ())
    node._machine.cache_clear()
    node._model.cache_clear()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return data.load(str(idx.write(tmp_path_factory.mktemp("digits"), idx.learnable())))


def pack(dataset, fingerprint=None):
    """A pack of one run of mlp_matched, of this or of another source."""
    fingerprint = fingerprint or models.identity("mlp_matched", dataset.info.shape, dataset.info.classes).fingerprint
    run = RUN.model_copy(update=dict(model="mlp_matched", model_fingerprint=fingerprint))
    return Pack(pack_id="0" * 12, runs=(PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=1),))


def unfit(dataset, expected, storage="", token=None, device="cpu", **changes):
    return node.unfit(device, expected, str(storage), token, pack(dataset, **changes), dataset)


def test_the_drivers_own_machine_is_fit(dataset):
    assert unfit(dataset, Expected()) is None


def test_another_package_or_library_is_named(dataset):
    other = dataclasses.replace(Expected(), sources="0" * 12, versions={**Expected().versions, "torch": "1.0"})
    reason = unfit(dataset, other)
    assert "torch " in reason
    assert "and the driver has 1.0" in reason
    assert f"its sources of study ({node.sources()}) are not the driver's ({'0' * 12})" in reason


def test_another_model_of_the_same_name_is_named(dataset):
    assert unfit(dataset, ELSEWHERE, fingerprint="0" * 12) == (
        f"its mlp_matched (d023326501b0) is not the one that was planned ({'0' * 12})"
    )
    assert unfit(dataset, Expected(), fingerprint="0" * 12) is None, "here its packs fail, and say so"


def test_a_model_of_a_config_is_looked_at_by_what_it_is_built_from(dataset, tmp_path, monkeypatch):
    """Whatever the study calls it, and for `cluster check` as for a worker."""
    tree = {"name": "s", "dataset": str(tmp_path), "learning_rates": [0.1], "seeds": 1}
    tree["models"] = [{"name": "narrow", "model": "mlp", "arguments": {"hidden": [9]}}]
    idx.write(tmp_path, idx.learnable())
    config = validate(tree, "test")
    planned = node.Models.of(config)
    assert node.facts(planned=planned).models == ()
    other = dataclasses.replace(planned, fingerprints=dict.fromkeys(planned.fingerprints, "0" * 12))
    (reason,) = node.facts(planned=other).models
    assert reason.startswith("its narrow (")
    assert reason in node.faults(node.facts(planned=other), Expected(), time.time(), gpus=0)
    run = RUN.model_copy(
        update=dict(model="narrow", constructor="mlp", arguments={"hidden": [9]}, model_fingerprint="0" * 12)
    )
    strange = Pack(pack_id="0" * 12, runs=(PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=1),))
    assert node.unfit("cpu", ELSEWHERE, "", None, strange, dataset) == reason


def test_another_process_is_asked_where_this_one_has_lost_cuda():
    assert node.without_cuda_anew() == node.without_cuda()


def test_a_gpu_that_is_asked_for_has_to_compute(dataset, monkeypatch):
    monkeypatch.setattr(node, "_gpus", lambda: ((), "no driver"))
    assert unfit(dataset, Expected(), device="cuda") == "CUDA does not work: no driver"


def test_the_storage_of_another_machine_has_to_be_the_drivers(dataset, tmp_path):
    with Lock(Storage(tmp_path / "shared")) as lock:
        assert unfit(dataset, ELSEWHERE, tmp_path / "shared", lock.token) is None
        assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["driver.lock"]
        reason = unfit(dataset, ELSEWHERE, tmp_path / "other", lock.token)
        assert "is not the driver's: what the driver wrote is not there; is it shared?" in reason
        assert unfit(dataset, Expected(), tmp_path / "other", lock.token) is None, "here it is known to be"


def test_a_storage_that_cannot_be_written_is_named(dataset, tmp_path, monkeypatch):
    with Lock(Storage(tmp_path)) as lock:
        monkeypatch.setattr(Storage, "write", lambda self, *_: (_ for _ in ()).throw(OSError("read-only")))
        assert "read-only" in unfit(dataset, ELSEWHERE, tmp_path, lock.token)


def test_what_a_check_of_all_nodes_finds(monkeypatch):
    facts = node.facts()
    assert facts.memory >= facts.free > 0
    assert node.faults(facts, Expected(), time.time(), gpus=0) == []
    monkeypatch.setattr(node, "_gpus", lambda: ((), None))
    facts = dataclasses.replace(node.facts(), clock=time.time() - 100, storage="cannot write")
    gpu, storage, clock = node.faults(facts, Expected(), time.time(), gpus=1)
    assert gpu == "CUDA does not work: there is no GPU"
    assert storage == "cannot write"
    assert clock == "its clock is -100 s off; allowed: 60 s"


def test_a_node_reaches_a_store_as_the_driver_does_and_says_soon_that_it_cannot(monkeypatch):
    """By variables that it is given; and it does not wait for the store longer than the driver waits for the node."""
    waits = []

    def away(path):
        raise OSError(f"AWS Error NETWORK_CONNECTION, asked in {os.environ['AWS_REGION']}")

    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setenv("AWS_REGION", "elsewhere")
    system = types.SimpleNamespace(get_file_info=away)
    monkeypatch.setattr(storage_, "_connect", lambda uri: (system, "bucket/studies"))
    facts = node.facts("s3://bucket/studies", "mark", environment={"AWS_REGION": "where-the-driver-is"})
    assert facts.storage.endswith("asked in where-the-driver-is")
    assert waits == []

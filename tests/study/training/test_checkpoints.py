import hashlib
import io
import pickle

import pytest
import torch

from study.ledger.records import METRICS
from study.ledger.runs import Pack, PlannedRun
from study.ledger.storage import Storage
from study.training import checkpoints
from tests.examples import RUN


def pack(*rates):
    runs = [RUN.model_copy(update={"learning_rate": rate}) for rate in rates]
    planned = tuple(PlannedRun(run_id=r.run_id, run=r, n_parameters=1, macs=1) for r in runs)
    return Pack(pack_id="0" * 12, runs=planned)


PACK = pack(0.1, 0.2)
STATE = {
    "run_ids": [r.run_id for r in PACK.runs],
    "epochs_done": 3,
    "parameters": [torch.arange(2.0).view(2, 1)],
    "optimizer": {"velocity": [torch.ones(2, 1)]},
    "buffers": [torch.zeros(2, 3)],
    "history": {name: torch.ones(3, 2) for name in METRICS},
    "finite": torch.ones(3, 2, dtype=torch.bool),
    "train_seconds": 1.5,
}


@pytest.fixture
def storage(tmp_path):
    storage = Storage(tmp_path)
    checkpoints.save(storage, PACK, STATE)
    return storage


def wrapped(body):
    return checkpoints.MAGIC + hashlib.sha256(body).digest() + body


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_what_is_saved_is_loaded(storage):
    state, warning = checkpoints.load(storage, PACK)
    assert warning is None
    assert torch.equal(state["parameters"][0], STATE["parameters"][0])
    checkpoints.delete(storage, PACK)
    assert checkpoints.load(storage, PACK) == (None, None)


OTHER = [torch.ones(2, 2)]
DAMAGES = {
    "torn": lambda good: good[:-1],
    "empty": lambda good: b"",
    "altered": lambda good: good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
    "no checkpoint": lambda good: b"something else entirely",
    "a plain pickle": lambda good: wrapped(pickle.dumps(STATE)),
    "a hostile pickle": lambda good: wrapped(pickle.dumps(Bomb())),
    "a hostile torch file": lambda good: wrapped(saved({"run_ids": Bomb()})),
    "of other runs": lambda good: wrapped(saved(STATE | {"run_ids": ["0" * 12]})),
    "no dictionary": lambda good: wrapped(saved([1, 2])),
    "an empty dictionary": lambda good: wrapped(saved({})),
    "no zip": lambda good: wrapped(b"PK\3\4" + bytes(100)),
    "too many epochs": lambda good: wrapped(saved(STATE | {"epochs_done": 10})),
    "no epochs": lambda good: wrapped(saved(STATE | {"epochs_done": 0})),
    "a curve too few": lambda good: wrapped(saved(STATE | {"history": {METRICS[0]: torch.ones(3, 2)}})),
    "curves too short": lambda good: wrapped(saved(STATE | {"finite": torch.ones(2, 2)})),
    "other parameters": lambda good: wrapped(saved(STATE | {"parameters": OTHER})),
    "buffers of other members": lambda good: wrapped(saved(STATE | {"buffers": [torch.zeros(3, 3)]})),
    "velocities too few": lambda good: wrapped(saved(STATE | {"optimizer": {"velocity": []}})),
    "no optimiser": lambda good: wrapped(saved(STATE | {"optimizer": {}})),
    "another optimiser": lambda good: wrapped(saved(STATE | {"optimizer": {"exp_avg": [torch.ones(2, 1)]}})),
    "another model": lambda good: wrapped(saved(STATE | {"parameters": OTHER, "optimizer": {"velocity": OTHER}})),
    **{
        f"without {key}": lambda good, key=key: wrapped(saved({k: v for k, v in STATE.items() if k != key}))
        for key in STATE
    },
    **{f"with a word for {key}": lambda good, key=key: wrapped(saved(STATE | {key: "word"})) for key in STATE},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_else_is_reported_and_not_used(storage, damage):
    name = checkpoints.name(PACK)
    storage.write(name, DAMAGES[damage](storage.read(name)))
    state, warning = checkpoints.load(storage, PACK)
    assert state is None
    assert warning.startswith(storage.path(name))
    assert warning.endswith("trained from the start")
    assert "\n" not in warning


def test_a_pack_in_another_order_is_another_pack(storage):
    turned = pack(0.2, 0.1)
    assert checkpoints.load(storage, turned)[0] is None

"""What several tests make their own cases of: a run, its record, its pack, its worker's messages."""

import hashlib

import numpy as np

from study.launch.messages import Done, Started
from study.ledger.ledger import npz
from study.ledger.records import METRICS, Provenance, Record
from study.ledger.runs import Pack, PlannedRun, Run

MNIST_SHA256 = "c65580678af93f1ea48c2c0d01d543ec89307c6b8a0eb7ca542d7c18c5f4c681"
RUN = Run(
    dataset="mnist",
    dataset_sha256=MNIST_SHA256,
    pixel_mean=0.1307,
    pixel_sd=0.3081,
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
RUN2 = RUN.model_copy(update={"epochs": 2})
PREDICTIONS = {"val": np.arange(5, dtype=np.uint8), "test": np.arange(7, dtype=np.uint8)}


def record(run=RUN2, state="finished", **changes):
    epochs = {"finished": run.epochs, "diverged": 1, "failed": 0}[state]
    fields = dict(
        run_id=run.run_id,
        state=state,
        run=run,
        n_parameters=10,
        macs=10,
        epochs=dict.fromkeys(METRICS, (0.5,) * epochs),
        diverged_epoch=2 if state == "diverged" else None,
        final=dict.fromkeys(METRICS, 0.5) if state == "finished" else None,
        predictions_sha256=hashlib.sha256(npz(PREDICTIONS)).hexdigest() if state == "finished" else None,
        provenance=Provenance(pack_id="0123456789ab", pack_size=1),
    )
    return Record(**fields | changes)


PACK = Pack(pack_id="0" * 12, runs=(PlannedRun(run_id=RUN2.run_id, run=RUN2, n_parameters=10, macs=10),))
STARTED = Started("here")
DONE = Done(((record(), npz(PREDICTIONS)),))

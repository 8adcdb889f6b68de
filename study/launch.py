"""Ray Tune launches the packs; the driver writes the ledger as they end. The one file that imports Ray."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import psutil

# Ray reads it as it is imported: we say ourselves what has died.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|Raylet is terminated|marked dead")

import ray
from ray import tune
from ray.tune.stopper import NoopStopper

from study.data import Dataset
from study.driver import Driver
from study.errors import UserError
from study.records import DatasetInfo
from study.runs import Pack
from study.worker import Report

Train = Callable[[Pack, Dataset, Report], None]
"""What a worker does with a pack; it must travel to the workers, so a function of a module, or a partial of one."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Interrupted(Exception):
    """What ended the launch before its packs had: SIGINT or SIGTERM, or the death of the Ray that we started."""


def launch(
    packs: Sequence[Pack],
    data: Dataset,
    train: Train,
    driver: Driver,
    *,
    lost: Callable[[], bool] = bool,
    address: str | None = None,
    cpus_per_trial: int = 1,
    gpus_per_trial: float = 0,
    workers: int | None = None,
    dashboard: bool = False,
    secrets: dict[str, str] | None = None,
    warn: Callable[[str], None] = print,
) -> None:
    """Have each pack trained by `train`, and hand every report to `driver`, which decides when to stop; so does `lost`.

    Raises Interrupted on SIGINT and SIGTERM, and when the Ray that it started has died; UserError when a trial asks
    for more than this machine has. A cluster may still grow, so there `warn` is told. `secrets` are environment
    variables for the workers; they travel in memory only.
    """
    _quiet()
    resources = {"cpu": cpus_per_trial} | ({"gpu": gpus_per_trial} if gpus_per_trial else {})
    # In this order: ray.init sets handlers of its own.
    with _cluster(address, data, dashboard), _signals() as signals:
        if (lack := _lack(resources)) and address is None:
            raise UserError(lack)
        if lack:
            warn(f"{lack} on a node of this cluster now; waiting for a node that has it")
        raylet = _Raylet()
        # NumPy arrays reach the workers without a copy, and thousands of packs without being unpickled whole.
        texts = [pack.model_dump_json().encode() for pack in packs]
        trainable = tune.with_parameters(
            _trial,
            arrays=[np.ascontiguousarray(getattr(data, name)) for name in ARRAYS],
            info=data.info.model_dump_json(),
            text=np.frombuffer(b"".join(texts), np.uint8),
            ends=np.cumsum([len(text) for text in texts]),
            train=train,
            secrets=secrets or {},
        )
        with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as scratch:
            tune.Tuner(
                tune.with_resources(trainable, resources),
                param_space={"pack": tune.grid_search(list(range(len(packs))))},
                tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=workers),
                run_config=tune.RunConfig(
                    name="packs",
                    storage_path=scratch,
                    verbose=0,
                    stop=_Reports(driver, lambda: bool(signals) or raylet.gone() or lost()),
                    # Tune counts killed workers and lost nodes as failures of the trial: the counting is ours.
                    failure_config=tune.FailureConfig(max_failures=-1),
                ),
            ).fit()
        if signals:
            raise Interrupted(signals[0])
        if raylet.died:
            raise Interrupted("the death of Ray on this machine")


def _trial(
    config: dict[str, int],
    arrays: list[np.ndarray],
    info: str,
    text: np.ndarray,
    ends: np.ndarray,
    train: Train,
    secrets: dict[str, str],
) -> None:
    """Ray Tune's unit of work: one pack."""
    os.environ.update(secrets)
    index = config["pack"]
    begin = 0 if index == 0 else int(ends[index - 1])
    pack = Pack.model_validate_json(text[begin : int(ends[index])].tobytes())
    data = Dataset(*arrays, info=DatasetInfo.model_validate_json(info))
    train(pack, data, lambda message: tune.report({"pack": index, "message": message}))


class _Reports(tune.Stopper):
    """Hands each report to the driver, and asks it whether to go on.

    Tune shows a result to its stopper before anything else, so the report is taken out before Tune keeps it.
    """

    def __init__(self, driver: Driver, ended: Callable[[], bool]) -> None:
        self._driver = driver
        self._ended = ended

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a restore that we never do; the driver stays out of it.
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        message = result.pop("message", None)
        if message is not None:
            self._driver.receive(result["pack"], message)
        return self._driver.gives_up(result["pack"])

    def stop_all(self) -> bool:
        return self._driver.stopped is not None or self._ended()


class _Raylet:
    """Notes when the Ray of our own has died: Tune would wait for it, until Ray ends this process without a word."""

    def __init__(self) -> None:
        self._processes = [child for child in psutil.Process().children() if child.name().startswith("raylet")]
        self.died = False

    def gone(self) -> bool:
        """Whether it has died; a cluster's raylet is no child of ours and not watched."""
        self.died = self.died or any(p.status() == psutil.STATUS_ZOMBIE for p in self._processes)
        return self.died


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Note SIGINT and SIGTERM in the list given, instead of raising inside Ray, whose C++ code does not bear it."""
    noted: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _cluster(address: str | None, data: Dataset, dashboard: bool) -> Iterator[None]:
    """A Ray of our own on this machine, or the cluster at `address`; left alone if one is connected already."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = dict(log_to_driver=False, logging_level=logging.CRITICAL)
    if address is None:
        held = sum(getattr(data, name).nbytes for name in ARRAYS)
        options |= dict(address="local", object_store_memory=max(512 * 2**20, 4 * held))
        options |= dict(include_dashboard=dashboard, dashboard_host="127.0.0.1")
    else:
        options |= dict(address=address)
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def _lack(resources: dict[str, float]) -> str | None:
    """What a trial asks for that no node has, as one line; Ray would wait for it without a word."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, wanted in resources.items():
        most = max((node.get(kind.upper(), 0) for node in nodes), default=0)
        # A fraction of a GPU is a share of one, and whole GPUs are never cut.
        if wanted > most:
            return f"launch.{kind}s_per_trial: found {wanted:g}; allowed: at most {math.floor(most)}"
    return None


def _quiet() -> None:
    """Silence Tune and Ray, whose place on the screen our own progress takes."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    for name in ("ray", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

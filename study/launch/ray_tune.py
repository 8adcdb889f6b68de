"""Ray Tune launches the packs; the driver writes the ledger as they end."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

# Ray reads it as it is imported: we say ourselves what has died.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|Raylet is terminated|marked dead")

from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.stopper import NoopStopper

from study.errors import UserError
from study.launch import cluster
from study.launch.recorder import Driver
from study.launch.worker import Report
from study.ledger.records import DatasetInfo
from study.ledger.runs import Pack
from study.redaction import mask
from study.training.data import Dataset

Train = Callable[[Pack, Dataset, Report], None]
"""What a worker does with a pack; it must travel to the workers, so a function of a module, or a partial of one."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Interrupted(Exception):
    """What ended the launch before its packs had: SIGINT or SIGTERM, or Ray, by its death or by an error of its own."""


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
    ready: Callable[[str | None], None] = lambda dashboard: None,
) -> None:
    """Have each pack trained by `train`, and hand every report to `driver`, which decides when to stop; so does `lost`.

    `ready` is called once Ray is there, before anything is trained, with the URL of its dashboard. `secrets` are
    environment variables for the workers; they travel in memory only.

    Raises Interrupted on SIGINT and SIGTERM, and when Ray has died or cannot go on; RayError when it cannot start;
    UserError for a wrong address, and when a trial asks for more than this machine has. A cluster may still grow, so
    there `warn` is told.
    """
    resources = {"cpu": cpus_per_trial} | ({"gpu": gpus_per_trial} if gpus_per_trial else {})
    memory = max(512 * 2**20, 4 * sum(getattr(data, name).nbytes for name in ARRAYS))
    # In this order: ray.init sets handlers of its own.
    with cluster.connected(address, memory, dashboard) as url, _signals() as signals, _errors():
        if (lack := cluster.lack(resources)) and address is None:
            raise UserError(lack)
        if lack:
            warn(f"{lack} on a node of this cluster now; waiting for a node that has it")
        ready(url)
        raylet = cluster.Raylet()
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
                    callbacks=[_Deaths(driver)],
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


class _Deaths(tune.Callback):
    """Tells the driver of every worker that died, also of those that could not start and never sent a word."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return tune.Callback, ()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        index = trial.config["pack"]
        self._driver.died(index, _last_error(trial))
        if self._driver.gives_up(index):
            # Tune has already asked for another worker; if that cannot start either, it is the last.
            trial.max_failures = 0

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        # A worker that dies between two packs: Tune drops the second. It stays missing, for the next launch to train.
        self._driver.died(trial.config["pack"], _last_error(trial))


def _last_error(trial: Trial) -> str:
    """What Tune knows of the last death of a trial's worker, in its scratch."""
    try:
        return Path(trial.error_file or "").read_text(errors="replace").rpartition("Failure # ")[2].partition("\n")[2]
    except OSError:
        return ""


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Raise Interrupted for what Ray raises when it cannot go on: a full disk, a lost cluster, an error of its own."""
    try:
        yield
    except (RayError, tune.TuneError, OSError, RuntimeError) as error:
        text = mask(" ".join(str(error).split())[:400])
        raise Interrupted(f"an error of Ray ({type(error).__name__}: {text})") from error


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

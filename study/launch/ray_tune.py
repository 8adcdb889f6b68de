"""Ray Tune launches the packs; the recorder writes the ledger as they end."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.tune.stopper import NoopStopper

from study.config import Launching
from study.launch import cluster
from study.launch.recorder import Recorder
from study.launch.worker import Report
from study.ledger.records import DatasetInfo
from study.ledger.runs import Pack
from study.redaction import mask
from study.training.data import Dataset

Train = Callable[[Pack, Dataset, Report], None]
"""What a worker does with a pack: a module-level function or a partial of one, so that it can be sent to workers."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Interrupted(Exception):
    """The launch ended before its packs did: SIGINT or SIGTERM, Ray's death, or an error in Ray."""


@dataclass(frozen=True)
class Queue:
    """The packs of a study that wait to be trained, and everything their training needs."""

    packs: Sequence[Pack]
    data: Dataset
    train: Train
    recorder: Recorder
    knobs: Launching
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for the workers, including secrets: passed in memory only."""

    def shipment(self) -> _Shipment:
        """The part that is sent to the workers."""
        # NumPy arrays are shared without a copy, so a worker need not unpickle thousands of packs.
        texts = [pack.model_dump_json().encode() for pack in self.packs]
        return _Shipment(
            arrays=[np.ascontiguousarray(getattr(self.data, name)) for name in ARRAYS],
            info=self.data.info.model_dump_json(),
            text=np.frombuffer(b"".join(texts), np.uint8),
            ends=np.cumsum([len(text) for text in texts]),
            train=self.train,
            environment=dict(self.environment),
        )


def launch(queue: Queue, lost: Callable[[], bool] = bool) -> None:
    """Have each pack trained, and hand every message to the recorder, which decides when to stop; so does `lost`.

    Ray is there: see `cluster.connected`. Raises Interrupted on SIGINT and SIGTERM, and when Ray has died or cannot
    go on.
    """
    with _signals() as signals, _errors():
        raylet = cluster.Raylet()
        trainable = tune.with_parameters(_trial, shipment=queue.shipment())
        with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as scratch:
            tune.Tuner(
                tune.with_resources(trainable, cluster.resources(queue.knobs)),
                tune_config=tune.TuneConfig(
                    search_alg=_InOrder(),
                    num_samples=len(queue.packs),
                    reuse_actors=True,
                    max_concurrent_trials=queue.knobs.workers,
                ),
                run_config=tune.RunConfig(
                    name="packs",
                    storage_path=scratch,
                    verbose=0,
                    stop=_Reports(queue.recorder, lambda: bool(signals) or raylet.gone() or lost()),
                    callbacks=[_Deaths(queue.recorder)],
                    # Tune counts killed workers and lost nodes as failures of the trial. We count ourselves.
                    failure_config=tune.FailureConfig(max_failures=-1),
                ),
            ).fit()
        if signals:
            raise Interrupted(signals[0])
        if raylet.died:
            raise Interrupted("the death of Ray on this machine")


@dataclass(frozen=True)
class _Shipment:
    """A queue as its workers have it."""

    arrays: list[np.ndarray]
    info: str
    text: np.ndarray
    """uint8: the packs as JSON, one after another."""
    ends: np.ndarray
    """int64 [pack]: where each ends."""
    train: Train
    environment: dict[str, str]

    def pack(self, index: int) -> Pack:
        begin = 0 if index == 0 else int(self.ends[index - 1])
        return Pack.model_validate_json(self.text[begin : int(self.ends[index])].tobytes())


def _trial(config: dict[str, int], shipment: _Shipment) -> None:
    """Ray Tune's unit of work: one pack."""
    os.environ.update(shipment.environment)
    index = config["pack"]
    data = Dataset(
        **dict(zip(ARRAYS, shipment.arrays, strict=True)), info=DatasetInfo.model_validate_json(shipment.info)
    )
    shipment.train(shipment.pack(index), data, lambda message: tune.report({"pack": index, "message": message}))


class _InOrder(Searcher):
    """Gives Tune the packs one after another: of a grid, Tune would copy all values again for each of its trials."""

    def __init__(self) -> None:
        super().__init__()
        self._packs = itertools.count()

    def suggest(self, trial_id: str) -> dict[str, int]:
        """The next pack."""
        return {"pack": next(self._packs)}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: no pack depends on another."""

    def save(self, checkpoint_path: str) -> None:
        """Write what nobody restores; Tune wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""
        raise NotImplementedError


class _Reports(tune.Stopper):
    """Hands each message to the recorder, and asks it whether to continue.

    Tune shows a result to its stopper before anything else, so the message is taken out before Tune keeps it.
    """

    def __init__(self, recorder: Recorder, ended: Callable[[], bool]) -> None:
        self._recorder = recorder
        self._ended = ended

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a restore that we never do; leave the recorder out.
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        message = result.pop("message", None)
        if message is not None:
            self._recorder.receive(result["pack"], message)
        return self._recorder.gives_up(result["pack"])

    def stop_all(self) -> bool:
        return self._recorder.stopped is not None or self._ended()


class _Deaths(tune.Callback):
    """Tells the recorder about every worker that died, including those that could not start."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return tune.Callback, ()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        # It is Tune's own list, in which it looks for the next trial to start, and at its end for one to tell of.
        if len(trials) > 1:
            trials.remove(trial)
        # Of every number that was ever reported Tune keeps statistics, 17 KB a trial.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        index = trial.config["pack"]
        self._recorder.died(index, _last_error(trial))
        if self._recorder.gives_up(index):
            # Tune has already asked for another worker; if that cannot start either, it is the last.
            trial.max_failures = 0

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        # A worker that dies between two packs: Tune drops the second. It stays missing, for the next launch to train.
        self._recorder.died(trial.config["pack"], _last_error(trial))


def _last_error(trial: Trial) -> str:
    """Tune's account of the last death of a trial's worker."""
    try:
        return Path(trial.error_file or "").read_text(errors="replace").rpartition("Failure # ")[2].partition("\n")[2]
    except OSError:
        return ""


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Raise Interrupted when Ray cannot continue: a full disk, a lost cluster, an error of its own."""
    try:
        yield
    except (RayError, tune.TuneError, OSError, RuntimeError) as error:
        text = mask(" ".join(str(error).split())[:400])
        raise Interrupted(f"an error of Ray ({type(error).__name__}: {text})") from error


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Append SIGINT and SIGTERM to the list, instead of raising inside Ray's C++ code."""
    noted: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

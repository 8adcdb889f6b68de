"""Ray Tune launches the packs; the recorder writes the ledger as they end."""

from __future__ import annotations

import contextlib
import os
import queue as queue_
import re
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import NoopStopper

from study.cli import terminations
from study.config import Launching
from study.errors import RayError as StudyRayError
from study.launch import cluster
from study.launch.recorder import Recorder
from study.launch.worker import Report
from study.ledger.records import DatasetInfo
from study.ledger.runs import Pack, work
from study.redaction import mask
from study.training.data import Dataset

Train = Callable[[Pack, Dataset, Report], None]
"""What a worker does with a pack: a module-level function or a partial of one, so that it can be sent to workers."""

LACK = re.compile(r"^(?:ModuleNotFoundError|ImportError): .+", re.MULTILINE)
WHERE = re.compile(r"\bip(?:=|: )([0-9a-fA-F.:]+)")
"""What Ray says of a worker that could not be unpickled, and on which machine a worker was."""

LOOK_SECONDS = 2.0
WAIT_SECONDS = 60.0
"""Packs that wait say so this often."""

Kind = frozenset[tuple[str, float]]
"""Resources that a pack takes, and how much of each."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Interrupted(Exception):
    """The launch ended before its packs did: a signal, Ray's death, or an error in Ray."""


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


@dataclass(frozen=True)
class Watch:
    """What a launch asks and tells while packs are trained."""

    lost: Callable[[], bool] = bool
    """Whether another driver has taken the study over."""
    interrupted: Callable[[str], None] = lambda name: None
    """Told the name of a signal as soon as it comes, in a thread of its own: its sender may not wait for Ray's end."""
    waiting: Callable[[str], None] = lambda what: None
    """Told every minute what packs wait for while no worker has one."""
    wait_minutes: float | None = None
    """How long they may wait; None: for ever."""


def launch(queues: Sequence[Queue], watch: Watch = Watch()) -> None:
    """Have the packs of one or more studies trained, longest first, and hand every message to its study's recorder.

    A recorder decides when to stop, and so does `watch`. Ray is there: see `cluster.connected`. Raises Interrupted on
    SIGINT, SIGTERM and SIGHUP, and when Ray has died or cannot go on; RayError when packs have waited too long, or when
    this machine is the only one and not fit.
    """
    recorders = [queue.recorder for queue in queues]
    placements = [cluster.Placement([cluster.bundle(queue.knobs)]) for queue in queues]
    for queue in queues:
        queue.recorder.avoided = cluster.avoided(queue.knobs)
        queue.recorder.elsewhere = partial(cluster.elsewhere, queue.knobs, queue.recorder.avoided)
    with _signals(watch.interrupted) as signals, _errors(recorders), _patience(queues, watch) as patience:
        raylet = cluster.Raylet()

        def unfit() -> list[str]:
            """Why this machine is not fit, where there is no other."""
            return [f"{node}: {why}" for r in recorders for node, why in r.unfit.items()] if raylet.ours else []

        trainable = tune.with_parameters(_trial, shipments=[queue.shipment() for queue in queues])
        with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as scratch, _inside(scratch):
            tune.Tuner(
                tune.with_resources(trainable, lambda config: placements[config["pack"][0]]),
                tune_config=tune.TuneConfig(
                    search_alg=_LongestFirst(queues),
                    scheduler=_FirstWaiting(),
                    num_samples=sum(len(queue.packs) for queue in queues),
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="packs",
                    storage_path=scratch,
                    verbose=0,
                    stop=_Reports(
                        recorders, lambda: bool(signals or patience or unfit()) or raylet.gone() or watch.lost()
                    ),
                    callbacks=[_Deaths(recorders)],
                    # Tune counts killed workers and lost nodes as failures of the trial. We count ourselves.
                    failure_config=tune.FailureConfig(max_failures=-1),
                ),
            ).fit()
        if reasons := unfit():
            raise StudyRayError(f"this machine is not fit: {'; '.join(reasons)}")
        if patience:
            raise StudyRayError(f"waited {watch.wait_minutes:g} minutes, in vain: {'; '.join(patience)}")
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


def _kind(queue: Queue) -> Kind:
    return frozenset(cluster.resources(queue.knobs).items())


def _trial(config: dict[str, tuple[int, int]], shipments: list[_Shipment]) -> None:
    """Ray Tune's unit of work: one pack."""
    study, index = config["pack"]
    shipment = shipments[study]
    os.environ.update(shipment.environment)
    data = Dataset(
        **dict(zip(ARRAYS, shipment.arrays, strict=True)), info=DatasetInfo.model_validate_json(shipment.info)
    )
    told = {"pack": (study, index), "node": ray.get_runtime_context().get_node_id()}
    shipment.train(shipment.pack(index), data, lambda message: tune.report({**told, "message": message}))


class _LongestFirst(Searcher):
    """Gives Tune the packs of all studies one after another: of a grid, it would copy all values for each trial.

    Of a study there are at most as many at a time as it allows. Of those that wait, as many may take the same resources
    as leave room for the others: packs for which there is no node do not keep out those for which there is one.
    """

    def __init__(self, queues: Sequence[Queue]) -> None:
        super().__init__()
        # Not the queues themselves: Tune pickles its settings for a restore that we never do.
        self._most = [queue.knobs.workers for queue in queues]
        self._kinds = [_kind(queue) for queue in queues]
        self._share = cluster.MOST_PENDING // len(set(self._kinds))
        sizes = [[work(pack) for pack in queue.packs] for queue in queues]
        self._left = [deque(sorted(enumerate(of), key=itemgetter(1), reverse=True)) for of in sizes]
        self._open: dict[str, int] = {}
        """The study of each trial that has not ended."""
        self._waiting: dict[str, int] = {}
        """The same of those that no worker has taken up."""

    def suggest(self, trial_id: str) -> dict[str, tuple[int, int]] | None:
        """The longest pack that may be next; None while none may."""
        many, waiting = Counter(self._open.values()), Counter(self._kinds[study] for study in self._waiting.values())
        able = [
            study
            for study, most in enumerate(self._most)
            if self._left[study] and (most is None or many[study] < most) and waiting[self._kinds[study]] < self._share
        ]
        if not able:
            return None
        study = max(able, key=lambda study: self._left[study][0][1])
        self._open[trial_id] = self._waiting[trial_id] = study
        return {"pack": (study, self._left[study].popleft()[0])}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """A worker has taken it up."""
        self._waiting.pop(trial_id, None)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Another may take its place."""
        self._waiting.pop(trial_id, None)
        self._open.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Write what nobody restores; Tune wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""
        raise NotImplementedError


class _FirstWaiting(FIFOScheduler):
    """Has a worker that is free take up the first pack that waits.

    Tune's own scheduler names a trial again while a worker is being made ready for it, and a second worker that is free
    then takes up any of those that wait.
    """

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """The first trial that no worker has been given to."""
        waiting = (
            trial
            for trial in tune_controller.get_trials()
            if trial.status == Trial.PENDING and trial.temporary_state.ray_actor is None
        )
        return next(waiting, None)


class _Reports(tune.Stopper):
    """Hands each message to the recorder, and asks it whether to continue.

    Tune shows a result to its stopper before anything else, so the message is taken out before Tune keeps it.
    """

    def __init__(self, recorders: Sequence[Recorder], ended: Callable[[], bool]) -> None:
        self._recorders = recorders
        self._ended = ended

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its settings for a restore that we never do; leave the recorder out.
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        message = result.pop("message", None)
        study, index = result["pack"]
        recorder = self._recorders[study]
        if message is not None:
            recorder.receive(index, message, result["node"])
        return recorder.gives_up(index)

    def stop_all(self) -> bool:
        return any(recorder.stopped is not None for recorder in self._recorders) or self._ended()


class _Deaths(tune.Callback):
    """Tells the recorder about every worker that died, including those that could not start.

    And ends those whose node is not fit.
    """

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = recorders

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return tune.Callback, ()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        # It is Tune's own list, in which it looks for the next trial to start, and at its end for one to tell of.
        if len(trials) > 1:
            trials.remove(trial)
        # Of every number that was ever reported Tune keeps statistics, 17 KB a trial.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: object) -> None:
        study, index = trial.config["pack"]
        actor = trial.temporary_state.ray_actor
        if actor is not None and self._recorders[study].ends_worker(index):
            # Tune then asks for another worker, on a node that is not avoided.
            ray.kill(actor)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        study, index = trial.config["pack"]
        error = _last_error(trial)
        lack, where = LACK.search(error), WHERE.search(error)
        nodes = cluster.nodes_at(where[1]) if where else set()
        if lack and where:
            self._recorders[study].cannot_start(index, where[1], mask(lack[0]), nodes)
        last = (trial.last_result or {}).get("node")
        # Where several nodes have one address, as made-up ones have, it is the one that was heard of last.
        known = last if last in nodes else min(nodes) if len(nodes) == 1 else ""
        self._recorders[study].died(index, error, known)
        if self._recorders[study].gives_up(index):
            # Tune has already asked for another worker; if that cannot start either, it is the last.
            trial.max_failures = 0

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        # A worker that dies between two packs: Tune drops the second. It stays missing, for the next launch to train.
        study, index = trial.config["pack"]
        self._recorders[study].died(index, _last_error(trial))


def _last_error(trial: Trial) -> str:
    """Tune's account of the last death of a trial's worker."""
    try:
        return Path(trial.error_file or "").read_text(errors="replace").rpartition("Failure # ")[2].partition("\n")[2]
    except OSError:
        return ""


@contextlib.contextmanager
def _errors(recorders: Sequence[Recorder]) -> Iterator[None]:
    """Raise Interrupted when Ray cannot continue: a full disk, a lost cluster, an error of its own.

    After the last record it costs nothing any more.
    """
    try:
        yield
    except (RayError, tune.TuneError, OSError, RuntimeError) as error:
        for recorder in recorders:
            recorder.finish()
        if all(recorder.complete for recorder in recorders):
            return
        text = mask(" ".join(str(error).split())[:400])
        raise Interrupted(f"an error of Ray ({type(error).__name__}: {text})") from error


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Work in a folder that stays: Ray may unpack a job's own anew while it runs, and Tune asks where it is."""
    try:
        before = os.getcwd()
    except FileNotFoundError:
        before = "/"
    os.chdir(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(before)


@contextlib.contextmanager
def _patience(queues: Sequence[Queue], watch: Watch) -> Iterator[list[str]]:
    """Tell every minute what packs wait for while none of those that take the same is trained.

    Noted in the list given once none at all has been trained for too long.
    """
    exhausted: list[str] = []
    ended = threading.Event()
    kinds: dict[Kind, list[Queue]] = {}
    for queue in queues:
        kinds.setdefault(_kind(queue), []).append(queue)

    def look() -> None:
        since = time.monotonic()
        told = dict.fromkeys(kinds, since)
        while not ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            waiting = {}
            for kind, those in kinds.items():
                open_ = [queue for queue in those if not queue.recorder.complete]
                if open_ and all(queue.recorder.idle for queue in those):
                    waiting[kind] = open_[0]
                else:
                    told[kind] = now
            if not waiting or not all(queue.recorder.idle for queue in queues):
                since = now
            late = watch.wait_minutes is not None and now - since >= 60 * watch.wait_minutes
            with contextlib.suppress(Exception):
                # Ray may be about to die, which others notice.
                for kind, queue in waiting.items():
                    if late or now - told[kind] >= WAIT_SECONDS:
                        missing, told[kind] = cluster.missing(queue.knobs, queue.recorder.avoided), now
                        exhausted.append(missing) if late else watch.waiting(missing)
                if late:
                    return

    thread = threading.Thread(target=look, name="patience", daemon=True)
    thread.start()
    try:
        yield exhausted
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _signals(interrupted: Callable[[str], None]) -> Iterator[list[str]]:
    """Append SIGINT, SIGTERM and SIGHUP to the list, instead of raising inside Ray's C++ code."""
    noted: list[str] = []
    # Its put may be called in the midst of another.
    names: queue_.SimpleQueue[str | None] = queue_.SimpleQueue()

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)
        names.put(noted[0])

    def tell() -> None:
        if (name := names.get()) is not None:
            interrupted(name)

    thread = threading.Thread(target=tell, name="signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, *terminations())}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        names.put(None)
        thread.join()

"""Starts Ray on this machine, or joins a cluster. Only this file and ray_tune.py import Ray."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import secrets
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import psutil
import ray
from ray import tune
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.table import Table

from study.cli import terminations
from study.config import Launching, StudyConfig
from study.errors import RayError, UserError
from study.launch import node, provenance
from study.launch.node import Expected, Facts
from study.launch.progress import say
from study.ledger.storage import TEMPORARY, Storage
from study.redaction import mask

NODE_ID = "ray.io/node-id"
"""Ray labels every node with it."""

ASK_SECONDS = 90.0
"""How long a node has to say what it is: longer than it waits for a mount that is away."""

CONNECT_SECONDS = 5.0
"""Seconds that a cluster's address has to answer; Ray itself would try for minutes."""

MOST_PENDING = 200
"""Packs that Tune holds for workers to come, as many as it would of a grid: an autoscaler sees what is wanted."""


@contextlib.contextmanager
def connected(address: str | None, *, dashboard: bool = False, memory: int = 512 * 2**20) -> Iterator[str | None]:
    """Ray on this machine, or the cluster at `address`; gives the dashboard's URL if one was started.

    `memory`: bytes of the object store of a Ray of our own. A Ray that is already connected is left alone. Raises
    UserError for an invalid address, RayError when Ray does not start.
    """
    if ray.is_initialized():
        yield None
        return
    _quiet()
    options: dict[str, Any] = dict(log_to_driver=False, logging_level=logging.CRITICAL)
    if address is None:
        options |= dict(address="local", object_store_memory=memory)
        options |= dict(include_dashboard=dashboard, dashboard_host="127.0.0.1")
    else:
        _check_address(address)
        options |= dict(address=address)
    try:
        with _interruptible():
            try:
                context = ray.init(**options)
            except Exception as error:
                # Ray raises many kinds of errors here; no traceback of theirs helps.
                where = "Ray did not start" if address is None else f"Ray's cluster at {address} cannot be joined"
                told = f"{where}: {type(error).__name__}: {str(error)[:400]}{cure(address, str(error))}"
                raise RayError(told) from error
        yield f"http://{context.dashboard_url}" if dashboard and context.dashboard_url else None
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt where SIGINT, SIGTERM or SIGHUP came, whatever Ray's handlers made of it.

    Theirs for SIGTERM ends the process silently, or not at all: Python ignores what a handler raises in a destructor.
    """
    heard, told = socket.socketpair()
    with heard, told:
        heard.setblocking(False)
        told.setblocking(False)
        terminated = signal.getsignal(signal.SIGTERM)
        wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGTERM, terminated)
            with contextlib.suppress(BlockingIOError):
                if {signal.SIGINT, *terminations()} & set(heard.recv(4096)):
                    raise KeyboardInterrupt from None


def cure(address: str | None, error: str) -> str:
    """What to do where Ray does not start, if its error does not say."""
    if "AF_UNIX path length" in error:
        name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        return f"; {name} is too long a path for Ray's sockets; allowed: a shorter one, such as RAY_TMPDIR=/tmp"
    if address and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        # Ray gives up without a word of it.
        return (
            "; a cluster that was started with a token, as `ray start` does by itself since Ray 2.60, wants it here "
            "too: RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    return ""


_avoided: defaultdict[str, set[str]] = defaultdict(set)
"""Ids of nodes on which nothing more is placed, by what a trial takes."""


def avoided(knobs: Launching) -> set[str]:
    """Ids of nodes on which no more trials of these resources are placed; what is added is avoided from then on.

    A node whose CUDA is broken may still train on its CPU.
    """
    return _avoided[_key(bundle(knobs))]


def bundle(knobs: Launching) -> dict[str, float]:
    """What a trial takes, as Ray writes it."""
    return {kind.upper(): amount for kind, amount in resources(knobs).items()}


def _key(bundle: Mapping[str, float]) -> str:
    return json.dumps({kind: float(amount) for kind, amount in sorted(bundle.items())})


def nodes_at(address: str) -> set[str]:
    """Ids of the nodes at this address."""
    return {info["NodeID"] for info in ray.nodes() if info["Alive"] and info["NodeManagerAddress"] == address}


def elsewhere(knobs: Launching, without: Collection[str]) -> bool:
    """Whether there is a node that has what a trial takes, without these."""
    return any(
        all(info["Resources"].get(kind, 0) >= wanted for kind, wanted in bundle(knobs).items())
        for info in ray.nodes()
        if info["Alive"] and info["NodeID"] not in without
    )


class Placement(tune.PlacementGroupFactory):
    """What a trial takes, of one node that is not avoided at the moment when it is asked for."""

    def to_placement_group(self) -> PlacementGroup:
        # Tune hands what one trial waits for to the first that takes the same, of whatever study.
        without = ",".join(sorted(_avoided[_key(self.bundles[0])]))
        selector = [{NODE_ID: f"!in({without})"}] * len(self.bundles) if without else None
        return placement_group(self.bundles, self.strategy, bundle_label_selector=selector)


def resources(knobs: Launching) -> dict[str, float]:
    """The resources that a trial needs on its node."""
    return {"cpu": knobs.cpus_per_trial} | ({"gpu": knobs.gpus_per_trial} if knobs.gpus_per_trial else {})


def lack(knobs: Launching) -> str | None:
    """One line on a resource that a trial needs and no node has; Ray would wait for it silently."""
    nodes = [info["Resources"] for info in ray.nodes() if info["Alive"]]
    for kind, wanted in resources(knobs).items():
        most = max((has.get(kind.upper(), 0) for has in nodes), default=0)
        # A fraction is a share of one GPU.
        if wanted > most:
            return f"launch.{kind}s_per_trial: found {wanted:g}; allowed: at most {math.floor(most)}"
    return None


def missing(knobs: Launching, without: Collection[str] = ()) -> str:
    """What a pack waits for, as one line: what it takes, what each node has but those without, and what is free."""
    wanted = " and ".join(_amount(kind, amount) for kind, amount in resources(knobs).items())
    nodes = [f"{info['NodeManagerHostname']} ({_use(info, without)})" for info in ray.nodes() if info["Alive"]]
    free = ", ".join(_amounts(ray.available_resources())) or "nothing"
    return f"a pack takes {wanted} of one node; there are: {', '.join(nodes) or 'no nodes'}; free now: {free}"


def _use(info: Mapping[str, Any], without: Collection[str]) -> str:
    return "not fit" if info["NodeID"] in without else ", ".join(_amounts(info["Resources"])) or "no CPU, no GPU"


def _amounts(resources: Mapping[str, float]) -> list[str]:
    return [_amount(kind, resources[kind]) for kind in ("CPU", "GPU") if resources.get(kind)]


def _amount(kind: str, amount: float) -> str:
    return f"{amount:g} {kind.upper()}{'s' if amount > 1 else ''}"


class Raylet:
    """Notices when our own Ray has died: Tune would wait for it, until Ray ends this process silently."""

    def __init__(self) -> None:
        self._processes = [child for child in psutil.Process().children() if child.name().startswith("raylet")]
        self.died = False

    @property
    def ours(self) -> bool:
        """Whether Ray is our own, on this machine alone."""
        return bool(self._processes)

    def gone(self) -> bool:
        """Whether it has died; a cluster's raylet is not our child and not watched."""
        self.died = self.died or any(not _lives(process) for process in self._processes)
        return self.died


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _check_address(address: str) -> None:
    """Raise UserError for an address at which nothing answers."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    # Not ray://, where the driver would run remotely, far from its ledger.
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--address: found {address!r}; allowed: auto, or host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--address: found {address!r}, where nothing answers ({error}); allowed: Ray's port") from None


def _quiet() -> None:
    """Silence Tune and Ray: our own progress is shown instead."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # Nothing is ever restored from Tune's own state; our ledger is.
        "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
        "TUNE_MAX_PENDING_TRIALS_PG": str(MOST_PENDING),
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    for name in ("ray", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def check(address: str, console: Console, config: StudyConfig | None = None) -> int:
    """Say of every node whether it is fit for a study, or for that of `config`; 1 if one is not, else 0.

    Raises UserError for a wrong address, RayError when the cluster cannot be joined, StorageError when this machine
    cannot use the storage either.
    """
    place = None if config is None else Storage(config.storage) / config.name
    mark = f"{TEMPORARY}check-{secrets.token_hex(4)}"
    planned = None if config is None else node.Models.of(config)
    # Without a config it may be for any study, on GPUs as well.
    cuda = config is None or config.launch.gpus_per_trial > 0
    table = Table("node", "CPUs", "GPUs", "memory", "fit", box=None, header_style="bold", pad_edge=False)
    wrong: list[str] = []
    with connected(address):
        if place is not None:
            place.write(mark, b"")
        try:
            environment = {} if place is None else place.environment(os.environ)
            answers = _ask_all(None if place is None else place.full, mark, planned, environment)
        finally:
            if place is not None:
                place.delete(mark)
        for info, answer, now in answers:
            has, host = info["Resources"], info["NodeManagerHostname"]
            # Where Ray counts no GPU, no pack is placed that would need one.
            wanted = has.get("GPU", 0) if cuda else 0
            faults = [answer] if isinstance(answer, str) else node.faults(answer, Expected(), now, gpus=wanted)
            memory, gpus = "?", f"{has.get('GPU', 0):g}"
            if isinstance(answer, Facts):
                memory = f"{answer.memory / 2**30:.0f} GiB, {answer.free / 2**30:.0f} free"
                gpus = ", ".join(answer.gpus) or gpus
            table.add_row(host, f"{has.get('CPU', 0):g}", gpus, memory, "no" if faults else "yes")
            wrong += [f"{host}: {fault}" for fault in faults]
        lacking = lack(config.launch) if config is not None else None
    console.print(table)
    versions = provenance.versions()
    say(console, f"expected: {', '.join(f'{p} {versions[p]}' for p in node.SAME)}, sources of study {node.sources()}")
    for line in [*wrong, *([lacking] if lacking else [])]:
        say(console, line, style="red")
    say(console, "storage: not looked at; name a config" if place is None else f"storage: {place}")
    return 1 if wrong or lacking else 0


def _ask_all(
    storage: str | None, mark: str, planned: node.Models | None, environment: Mapping[str, str]
) -> list[tuple[dict[str, Any], Facts | str, float]]:
    """Every node, what it says of itself or why it says nothing, and this machine's clock when that came."""
    # Ray's own order is that of its random ids.
    alive = (info for info in ray.nodes() if info["Alive"])
    nodes = sorted(alive, key=lambda info: (info["NodeManagerHostname"], info["NodeManagerAddress"]))
    ask: Any = ray.remote(num_cpus=0, max_retries=0)(node.facts)
    refs = []
    for info in nodes:
        there = NodeAffinitySchedulingStrategy(info["NodeID"], soft=False)
        refs.append(ask.options(scheduling_strategy=there).remote(storage, mark, planned, environment))
    came: dict[Any, float] = {}
    waiting, end = list(refs), time.monotonic() + ASK_SECONDS
    while waiting and (left := end - time.monotonic()) > 0:
        ready, waiting = ray.wait(waiting, timeout=left)
        came |= dict.fromkeys(ready, time.time())
    return [
        (info, _answer(ref) if ref in came else f"says nothing within {ASK_SECONDS:.0f} s", came.get(ref, 0.0))
        for info, ref in zip(nodes, refs, strict=True)
    ]


def _answer(ref: Any) -> Facts | str:  # noqa: ANN401
    try:
        answer: Facts = ray.get(ref)
    except Exception as error:
        # A node without the package, or one that dies, raises nearly anything.
        lines = mask(str(error)).strip().splitlines()
        return f"says nothing: {type(error).__name__}: {lines[-1] if lines else ''}"
    return answer

"""Starts Ray on this machine, or joins a cluster. Only this file and ray_tune.py import Ray."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import ray

from study.config import Launching
from study.errors import RayError, UserError

CONNECT_SECONDS = 5.0
"""Seconds that a cluster's address has to answer; Ray itself would try for minutes."""


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
    before = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(**options)
    except SystemExit:
        # Ray's own handler of SIGTERM ends the process silently.
        raise KeyboardInterrupt from None
    except Exception as error:
        # Ray raises many kinds of errors here; no traceback of theirs helps.
        where = "Ray did not start" if address is None else f"Ray's cluster at {address} cannot be joined"
        raise RayError(f"{where}: {type(error).__name__}: {str(error)[:400]}{cure(address, str(error))}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield f"http://{context.dashboard_url}" if dashboard and context.dashboard_url else None
    finally:
        ray.shutdown()


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


def resources(knobs: Launching) -> dict[str, float]:
    """The resources that a trial needs on its node."""
    return {"cpu": knobs.cpus_per_trial} | ({"gpu": knobs.gpus_per_trial} if knobs.gpus_per_trial else {})


def lack(knobs: Launching) -> str | None:
    """One line on a resource that a trial needs and no node has; Ray would wait for it silently."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, wanted in resources(knobs).items():
        most = max((node.get(kind.upper(), 0) for node in nodes), default=0)
        # A fraction is a share of one GPU.
        if wanted > most:
            return f"launch.{kind}s_per_trial: found {wanted:g}; allowed: at most {math.floor(most)}"
    return None


class Raylet:
    """Notices when our own Ray has died: Tune would wait for it, until Ray ends this process silently."""

    def __init__(self) -> None:
        self._processes = [child for child in psutil.Process().children() if child.name().startswith("raylet")]
        self.died = False

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
        # As many as of a grid: enough for an autoscaler to see what is wanted.
        "TUNE_MAX_PENDING_TRIALS_PG": "200",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    for name in ("ray", "ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

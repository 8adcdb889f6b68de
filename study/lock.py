"""One driver per study: an exclusive lock file with host, pid and heartbeat.

On local and shared mounts the file is created exclusively, and a dead driver's file is taken over. Object
stores have no exclusive creation here, so there the lock is a lease by best effort: it refuses a driver
whose heartbeat is fresh, but two that start within the same second can both believe they hold it. Even
then nothing is lost: both write the same records.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from study.errors import LockedError, StorageError
from study.storage import Storage

NAME = "driver.lock"
BEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
"""A driver on another host that has not beaten for so long is dead. Clocks of hosts must agree to within this."""


def read(storage: Storage) -> dict[str, Any] | None:
    """What the lock file says of its driver (host, pid, heartbeat, progress), or None if there is none."""
    try:
        holder = json.loads(storage.read(NAME))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def alive(holder: Mapping[str, Any] | None) -> bool:
    """Whether the driver a lock file names is there: by its process on this host, by its heartbeat elsewhere."""
    if not holder:
        return False
    pid, heartbeat = holder.get("pid"), holder.get("heartbeat")
    if not isinstance(pid, int) or not isinstance(heartbeat, int | float):
        return False
    if holder.get("host") == socket.gethostname() and holder.get("boot") == _boot():
        return _process_start(pid) == holder.get("process_start")
    return time.time() - heartbeat < STALE_SECONDS


class Lock:
    """Holds the study for this process; a context manager. Raises LockedError on entry if another driver is alive."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.tell: Callable[[], Mapping[str, Any]] = dict
        """Gives what each heartbeat tells readers of the lock file: the study's progress."""
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.lost = False
        """Whether another driver took the lock over, because this one's heartbeat had stopped for too long."""

    def __enter__(self) -> Self:
        while not self._storage.create(NAME, self._content()):
            holder = read(self._storage)
            if alive(holder):
                raise LockedError(
                    f"{self._storage}: held by another driver, process {holder['pid']} on {holder['host']}; "
                    "wait for it, or stop it"
                )
            self._remove(None if holder is None else holder.get("token"))
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._beating.join()
        with contextlib.suppress(StorageError):
            self._remove(self._token)

    def _remove(self, token: str | None) -> None:
        """Delete the lock file if it still is the one with this token."""
        holder = read(self._storage)
        if holder is not None and holder.get("token") == token:
            self._storage.delete(NAME)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # A storage that refuses a heartbeat will soon refuse a record, and that is where it is reported.
            with contextlib.suppress(StorageError):
                holder = read(self._storage)
                if holder is not None and holder.get("token") not in (None, self._token):
                    self.lost = True
                    return
                self._storage.write(NAME, self._content())

    def _content(self) -> bytes:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": _boot(),
            "process_start": _process_start(os.getpid()),
            "token": self._token,
            "heartbeat": time.time(),
            "progress": dict(self.tell()),
        }
        return json.dumps(holder).encode()


def _boot() -> str | None:
    """The current start of this machine: hosts may share a name, and process numbers begin again."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _process_start(pid: int) -> str | None:
    """When process `pid` started, so that a number used again is not taken for the old process; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        return _process_exists(pid)
    return None if fields[0] in "ZX" else fields[19]


def _process_exists(pid: int) -> str | None:
    """For systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"

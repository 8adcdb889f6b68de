"""One driver per study: an exclusive lock file with host, pid and heartbeat.

On local and shared mounts the file is created exclusively, and a dead driver's file is taken over. Object
stores have no exclusive creation here, so there the lock is best-effort: it refuses a driver
whose heartbeat is fresh, and of two that start within the same second the one whose lease was overwritten
finds out before it plans anything, or at its next heartbeat. Even until then nothing is lost: both write the
same records.
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
from study.ledger.storage import TEMPORARY, Storage

NAME = "driver.lock"
BEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
"""A driver on another host without a heartbeat for this long is dead. The hosts' clocks must agree to within this."""

MOST_TAKEOVERS = 5
"""After this many takeovers of a lock that keeps coming back, give up."""


def read(storage: Storage) -> dict[str, Any] | None:
    """What the lock file says of its driver (host, pid, heartbeat, progress), or None if there is none."""
    try:
        return _parse(storage.read(NAME))
    except FileNotFoundError:
        return None


def alive(holder: Mapping[str, Any] | None) -> bool:
    """Whether the driver that a lock file names is alive: by its process on this host, by its heartbeat elsewhere."""
    if not holder:
        return False
    pid, heartbeat = holder.get("pid"), holder.get("heartbeat")
    if not isinstance(pid, int) or not isinstance(heartbeat, int | float):
        return False
    if _is_here(holder):
        return _process_start(pid) == holder.get("process_start")
    return time.time() - heartbeat < STALE_SECONDS


class Lock:
    """Holds the study for this process; a context manager. Raises LockedError on entry if another driver is alive."""

    def __init__(self, storage: Storage, waiting: Callable[[str], None] | None = None) -> None:
        """With `waiting`, wait for a heartbeat of a driver on another host before refusing, and report the wait to it.

        A job that is started again elsewhere at once, after its driver has died, is then not refused.
        """
        self._storage = storage
        self._waiting = waiting
        self.tell: Callable[[], Mapping[str, Any]] = dict
        """Returns the progress that each heartbeat writes into the lock file."""
        self.token = uuid.uuid4().hex
        """Distinguishes this lock from every other; its file holds it."""
        self._ended = threading.Event()
        self._giving = threading.Lock()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.lost = False
        """Whether another driver took the lock over, because this one's heartbeat had stopped for too long."""

    def __enter__(self) -> Self:
        for _ in range(MOST_TAKEOVERS):
            if self._storage.create(NAME, self._content()):
                self._beating.start()
                return self
            holder = read(self._storage)
            if holder is not None and alive(holder) and not self._lapses(holder):
                raise LockedError(
                    f"{self._storage}: held by another driver, process {holder['pid']} on {holder['host']}; "
                    f"wait for it, or stop it{_lapse(holder)}"
                )
            self._remove(None if holder is None else holder.get("token"))
        raise StorageError(f"storage: cannot take over {self._storage.path(NAME)}: it comes back each time")

    def _lapses(self, holder: Mapping[str, Any]) -> bool:
        """Wait for the next heartbeat of a driver on another host; whether none has come."""
        if self._waiting is None or _is_here(holder):
            return False
        self._waiting(
            f"held by another driver, process {holder['pid']} on {holder['host']}; waiting up to "
            f"{STALE_SECONDS:.0f} s to see whether it is alive"
        )
        while alive(holder):
            time.sleep(BEAT_SECONDS / 2)
            now = read(self._storage)
            if now is None or (now.get("token"), now.get("heartbeat")) != (holder.get("token"), holder["heartbeat"]):
                return now is None
        return True

    def confirm(self) -> None:
        """Raise LockedError if another driver has taken the study over."""
        holder = read(self._storage)
        self.lost = self.lost or (holder is not None and holder.get("token") not in (None, self.token))
        if self.lost:
            raise LockedError(f"{self._storage}: another driver took this study over; this one has stopped")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the study back, once; whoever calls it again waits until it is."""
        with self._giving:
            if self._ended.is_set():
                return
            self._ended.set()
            self._beating.join()
            with contextlib.suppress(StorageError):
                self._remove(self.token)

    def _remove(self, token: str | None) -> None:
        """Delete the lock file with this token and no other, even if another driver does the same at once.

        It is renamed first, then read, and put back if it turns out to be a new lock.
        """
        aside = f"{TEMPORARY}{uuid.uuid4().hex}"
        if not self._storage.rename(NAME, aside):
            return
        moved = self._storage.read(aside)
        if _parse(moved).get("token") != token:
            self._storage.create(NAME, moved)
        self._storage.delete(aside)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # Storage that refuses a heartbeat will soon refuse a record, and is reported then.
            # Whatever else goes wrong, a live driver must not look dead.
            with contextlib.suppress(Exception):
                self.confirm()
                self._storage.write(NAME, self._content())
            if self.lost:
                return

    def _content(self) -> bytes:
        progress: Mapping[str, Any] = {}
        with contextlib.suppress(Exception):
            progress = dict(self.tell())
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot": boot(),
            "process_start": _process_start(os.getpid()),
            "token": self.token,
            "heartbeat": time.time(),
            "progress": progress,
        }
        return json.dumps(holder).encode()


def _parse(content: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _lapse(holder: Mapping[str, Any]) -> str:
    """A note for the lock of a driver whose process cannot be looked up from here."""
    if _is_here(holder):
        return ""
    return f"; if it is dead, its lock lapses {STALE_SECONDS:.0f} s after its last heartbeat"


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Whether a driver's process can be looked up from here."""
    return holder.get("host") == socket.gethostname() and holder.get("boot") == boot()


def boot() -> str | None:
    """Identifies the namespace of process ids: this boot of this machine, and this container on it."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return None


def _process_start(pid: int) -> str | None:
    """When process `pid` started, so that a recycled id is not taken for the old process; None if it is gone."""
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

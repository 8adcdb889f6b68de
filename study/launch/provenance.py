"""Where results come from: commit, versions, hardware. Nothing here enters a run's identity."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

COMMIT = "STUDY_COMMIT"
"""The variable that carries the commit to where the code is a copy without its history, as in a submitted job."""

PACKAGES = ("torch", "torchvision", "ray", "wandb", "numpy")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def node() -> str:
    """The name of this machine."""
    return socket.gethostname()


@cache
def machine() -> str:
    """What this machine is: processor, cores, system."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, where installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git() -> tuple[str | None, bool | None]:
    """The commit of the code in use and whether it was changed since.

    Outside a checkout: as STUDY_COMMIT tells, written as `git describe --always --dirty --abbrev=40 --exclude='*'`
    does; else (None, None).
    """
    folder = Path(__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    # Installed inside another project's checkout, the code is not part of that project's commit.
    if commit is None or _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        told = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", os.environ.get(COMMIT, ""))
        return (told[1], told[2] is not None) if told else (None, None)
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

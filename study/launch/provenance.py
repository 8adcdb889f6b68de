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

from study.errors import UserError

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
    does; else (None, None). Raises UserError where it tells something else.
    """
    module = Path(__file__).resolve()
    root = next((folder for folder in module.parents if (folder / ".git").exists()), None)
    commit = root and _git(root, "rev-parse", "HEAD")
    # Installed inside another project's checkout, the code is not part of that project's commit.
    if not root or not commit or _git(root, "ls-files", "--error-unmatch", str(module.relative_to(root))) is None:
        return _told(os.environ.get(COMMIT, ""))
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit, bool(changes)


def _told(written: str) -> tuple[str | None, bool | None]:
    if not written:
        return None, None
    told = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", written)
    if told is None:
        raise UserError(
            f"{COMMIT}: found {written!r}; allowed: a commit's 40 hex digits, with -dirty behind them where the code "
            "was changed"
        )
    return told[1], told[2] is not None


def _git(root: Path, *arguments: str) -> str | None:
    """What git says of the checkout at `root`, also where another user owns it, as on a head that root has set up.

    Git uses such a repository only where it is named, or by `-c safe.directory`, which it heeds since 2.38. Whoever
    could do harm by it could as well by the code that is running.
    """
    # Its index is not written, nor is a program started to watch its files.
    named = [f"--git-dir={root / '.git'}", f"--work-tree={root}", "--no-optional-locks", "-c", "core.fsmonitor=false"]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *named, *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

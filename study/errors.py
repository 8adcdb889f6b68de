"""The errors a user can cause or meet, each one line and one exit code."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in usage, config or data: one line that says where, what was found and what is allowed."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        # What was found may hold anything: line ends and terminal controls among it are not passed on.
        line = " ".join(message.split())
        super().__init__("".join(c if c.isprintable() else "?" for c in line))


class StorageError(Exception):
    """The storage refused to read or write: full, read-only, unreachable."""

    exit_code = 3


class LockedError(Exception):
    """Another driver holds this study."""

    exit_code = 4

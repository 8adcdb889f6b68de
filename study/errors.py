"""The errors that end a command, each with a one-line message and an exit code."""

from __future__ import annotations

from study.redaction import mask


class StudyError(Exception):
    """An error that ends a command: a one-line message and an exit code."""

    exit_code: int

    def __init__(self, message: str) -> None:
        # The message may quote user input: mask secrets, and drop line breaks and terminal control characters.
        line = " ".join(mask(message).split())
        super().__init__("".join(c if c.isprintable() else "?" for c in line))


class UserError(StudyError):
    """A mistake in usage, config or data: one line that says where, what was found and what is allowed."""

    exit_code = 2


class StorageError(StudyError):
    """The storage refused to read or write: full, read-only, unreachable."""

    exit_code = 3


class LockedError(StudyError):
    """Another driver holds this study."""

    exit_code = 4


class RayError(StudyError):
    """Ray did not start on this machine, or its cluster could not be joined."""

    exit_code = 5


class PublishError(StudyError):
    """W&B does not answer, or does not take what it is given: what it lacks can be published later."""

    exit_code = 1

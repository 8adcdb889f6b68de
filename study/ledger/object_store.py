"""What object stores need beyond Arrow: one PUT for a file, and patience with a store that is out of order."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
from pyarrow import fs

from study.errors import StorageError

if TYPE_CHECKING:
    from study.storage import Storage

P, T = ParamSpec("P"), TypeVar("T")

PAUSES = (1, 2, 4, 8, 16, 16, 16)
"""Seconds between attempts. Arrow itself tries for six seconds each time, so it is two minutes in all."""

REFUSED = re.compile(r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|TOKEN|HTTP status 40[0134]")
"""Errors of S3 that asking again does not mend."""


def connect(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it. Raises as Arrow does."""
    if is_s3(uri) and "allow_delayed_open=" not in uri and int(pa.__version__.split(".")[0]) >= 21:
        # Else, as with older Arrows, a small file takes three requests, and a killed writer leaves an upload unseen.
        uri += ("&" if "?" in uri else "?") + "allow_delayed_open=true"
    return fs.FileSystem.from_uri(uri)


def is_s3(uri: str) -> bool:
    """Whether a URI names S3, or what speaks its protocol. The clients of other stores are patient by themselves."""
    return uri.startswith("s3://")


def patiently(method: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    """Where `method` fails on an S3 that has answered before, try it again for two minutes."""

    @functools.wraps(method)
    def tried(self: Storage, *args: P.args, **kwargs: P.kwargs) -> T:
        pauses = iter(PAUSES)
        while True:
            try:
                answer = method(self, *args, **kwargs)
            except FileNotFoundError:
                self.answered = True
                raise
            except StorageError as error:
                pause = next(pauses, None)
                if pause is None or not (self.answered and is_s3(self.root)) or REFUSED.search(str(error)):
                    raise
                time.sleep(pause)
            else:
                self.answered = True
                return answer

    return tried

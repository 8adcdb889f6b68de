"""Where a study is kept: a folder or an object store, with whole-file atomic writes."""

from __future__ import annotations

import contextlib
import errno
import functools
import mimetypes
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Concatenate, ParamSpec, TypeVar

import pyarrow as pa
from pyarrow import fs

from study import redaction
from study.errors import StorageError, UserError

URI = re.compile(r"^([a-z][a-z0-9+.-]*)://")
TEMPORARY = ".writing-"
P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")

OF_S3 = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
)  # fmt: skip
"""Variables that say where an S3 is and who asks."""

REQUESTS = 128
"""Requests sent to an object store at once; each mostly waits for the round trip."""

LOCAL_REQUESTS = 8
"""The same for a disk or a shared mount."""

PAUSES = (1, 2, 4, 8, 16, 16, 16)
"""Seconds between attempts: a minute. Arrow itself keeps trying for six seconds each time: two minutes in all."""

PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What a shared mount may answer while its server is away or starts again; a disk that is full, never."""

REFUSED = re.compile(r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|TOKEN|HTTP status 40[0134]")
"""Errors of S3 that no retry will cure."""


def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it. Raises as Arrow does."""
    if _is_s3(uri) and "allow_delayed_open=" not in uri and int(pa.__version__.split(".")[0]) >= 21:
        # Otherwise, as in older Arrows, a small file takes three requests, and a killed writer leaves a hidden upload.
        uri += ("&" if "?" in uri else "?") + "allow_delayed_open=true"
    # Arrow opens as many connections to a store as it has I/O threads at that moment.
    pa.set_io_thread_count(max(pa.io_thread_count(), REQUESTS))
    return fs.FileSystem.from_uri(uri)


def _is_s3(uri: str) -> bool:
    """Whether a URI names S3 or a compatible store. The clients of other stores retry by themselves."""
    return uri.startswith("s3://")


def _patiently(method: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    """Retry `method` where what it fails on may pass: two minutes on an S3, one on a mount."""

    @functools.wraps(method)
    def tried(self: Storage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        pauses = iter(PAUSES)
        while True:
            try:
                answer = method(self, *args, **kwargs)
            except FileNotFoundError:
                self.answered = True
                raise
            except StorageError as error:
                pause = next(pauses, None)
                if pause is None or not self._may_pass(error):
                    raise
                time.sleep(pause)
            else:
                self.answered = True
                return answer

    return tried


class Storage:
    """Files under one root, named by relative paths with `/`.

    A local path or a shared mount is written by temporary file, fsync and rename; an object store by one
    whole-object PUT, or where that is too large, by parts that appear as a whole. A reader therefore sees an old
    file or a new one, never a torn one.
    """

    def __init__(self, root: str | os.PathLike[str], *, answered: bool = False) -> None:
        """An object store that has `answered` before is given two minutes to do so again.

        Raises UserError for a URI with credentials or of no known kind, StorageError if it is out of reach.
        """
        self.root = os.fspath(root)
        self.answered = answered
        if redaction.in_address(self.root):
            raise UserError(f"storage: found {redaction.mask(self.root)!r}; allowed: {redaction.ALLOWED}")
        if "\0" in self.root:
            raise UserError(f"storage: found {self.root!r}; allowed: a path, or an s3:// or gs:// URI")
        scheme = URI.match(self.root)
        self.local = scheme is None or scheme[1] == "file"
        try:
            if scheme:
                self._fs, self._base = _connect(self.root)
            else:
                self._fs, self._base = fs.LocalFileSystem(), str(Path(self.root).absolute())
        except (pa.ArrowInvalid, NotImplementedError) as error:
            raise UserError(
                f"storage: found {self.root!r}; allowed: a path, or an s3:// or gs:// URI ({error})"
            ) from None
        except OSError as error:
            raise self._stopped("open", "", error) from error
        if not self._base.strip("/"):
            raise UserError(f"storage: found {self.root!r}; allowed: a URI that names a bucket")

    def __str__(self) -> str:
        return self.root

    @property
    def full(self) -> str:
        """The root as any process may name it: an absolute path, or the URI."""
        return self._base if self.local else self.root

    def __truediv__(self, name: str) -> Storage:
        """The storage of a sub-folder. A URI keeps its query, where an endpoint may be named."""
        return Storage(self.address(name), answered=self.answered)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables by which other machines reach an S3 as this one does: none where a role lets it in."""
        return {name: environ[name] for name in OF_S3 if name in environ} if _is_s3(self.root) else {}

    def address(self, name: str) -> str:
        """Where a file or folder is, as a user may name it: its path, or its URI."""
        root, question, query = self.root.partition("?") if URI.match(self.root) else (self.root, "", "")
        return root.rstrip("/") + "/" + check_relative(name) + question + query

    def path(self, name: str) -> str:
        """The full path of a file, for messages and for local access."""
        return f"{self._base}/{check_relative(name)}"

    def each(self, ask: Callable[[V], T], of: Iterable[V]) -> Iterator[T]:
        """The results of `ask` for each, in order, with many calls in flight: latency is what a store costs.

        What a call raises is raised in its turn, and no further calls are made then.
        """
        threads = LOCAL_REQUESTS if self.local else REQUESTS
        asked: deque[Future[T]] = deque()
        with ThreadPoolExecutor(threads, "storage") as pool:
            try:
                for one in of:
                    asked.append(pool.submit(ask, one))
                    # Not far ahead: results may be large.
                    if len(asked) > 4 * threads:
                        yield asked.popleft().result()
                while asked:
                    yield asked.popleft().result()
            finally:
                for waiting in asked:
                    waiting.cancel()

    @_patiently
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError where there is none, StorageError for anything else."""
        try:
            if self.local:
                return Path(self.path(name)).read_bytes()
            with self._fs.open_input_stream(self.path(name)) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(self.path(name)) from None
        except OSError as error:
            raise self._stopped("read", name, error) from error

    @_patiently
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        try:
            return self._fs.get_file_info(self.path(name)).type == fs.FileType.File
        except OSError as error:
            raise self._stopped("read", name, error) from error

    @_patiently
    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, sorted, without temporary files left by a dead writer."""
        with self._told("list", folder):
            selector = fs.FileSelector(self.path(folder), allow_not_found=True)
            infos = self._fs.get_file_info(selector)
        files = [i.base_name for i in infos if i.type == fs.FileType.File]
        return sorted(name for name in files if not name.startswith(TEMPORARY))

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file atomically. Raises StorageError."""
        if self.local:
            self._replace(name, content)
            self._sync(name.rpartition("/")[0])
        else:
            self._put(name, content)

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Write whole files, many at once: a disk too serves several that wait for it together. Raises StorageError."""
        put = self._replace if self.local else self._put
        for _ in self.each(lambda name: put(name, files[name]), files):
            pass
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in files) if self.local else ():
            self._sync(folder)

    @_patiently
    def _put(self, name: str, content: bytes) -> None:
        # The content type tells a browser whether to show a file or to save it.
        kind, _ = mimetypes.guess_type(name)
        metadata = {"Content-Type": kind} if kind else None

        def put() -> None:
            with self._fs.open_output_stream(self.path(name), metadata=metadata) as file:
                file.write(content)

        with self._told("write", name):
            _apart(put)

    @_patiently
    def _replace(self, name: str, content: bytes) -> None:
        with self._told("write", name):
            _replace(Path(self.path(name)), content)

    @_patiently
    def _sync(self, folder: str) -> None:
        with self._told("write", folder):
            _sync(Path(self.path(folder)))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not be there yet; False if it is. Atomic on local and shared mounts only."""
        if not self.local:
            if self.exists(name):
                return False
            self.write(name, content)
            return True
        path = Path(self.path(name))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # Not FileExistsError: a file in place of the folder is not the file to create.
            raise self._stopped("write", name, error) from error
        try:
            with _temporary(path, content) as temporary:
                _publish(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._stopped("write", name, error) from error
        return True

    @_patiently
    def rename(self, name: str, new: str) -> bool:
        """Give a file another name; False if there is none. Atomic on local and shared mounts only."""
        try:
            if self.local:
                os.rename(self.path(name), self.path(new))
            else:
                self._fs.move(self.path(name), self.path(new))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._stopped("rename", name, error) from error
        return True

    @_patiently
    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""
        try:
            self._fs.delete_file(self.path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._stopped("delete", name, error) from error

    def sweep(self, folder: str, seconds: float = 0) -> None:
        """Remove the temporary files that killed writers left in a folder in which nobody is writing now.

        Where somebody may be writing, files younger than `seconds` are spared.
        """
        if self.local:
            for file in Path(self.path(folder)).glob(f"{TEMPORARY}*"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - file.stat().st_mtime >= seconds:
                        self.delete(f"{folder}/{file.name}")

    @contextlib.contextmanager
    def _told(self, verb: str, name: str) -> Iterator[None]:
        """Raise StorageError for what the system refuses."""
        try:
            yield
        except OSError as error:
            raise self._stopped(verb, name, error) from error

    def _may_pass(self, error: StorageError) -> bool:
        """Whether what failed so may succeed soon: on a mount that is away, or an S3 that has answered before."""
        if self.local:
            return isinstance(error.__cause__, OSError) and error.__cause__.errno in PASSING
        return self.answered and _is_s3(self.root) and not REFUSED.search(str(error))

    def _stopped(self, verb: str, name: str, error: OSError) -> StorageError:
        where = self.address(name) if name else self.root
        reason = error.strerror or str(error).splitlines()[0]
        return StorageError(f"storage: cannot {verb} {where}: {reason}")


def _apart(call: Callable[[], None]) -> None:
    """Call where no KeyboardInterrupt can come between its steps, and wait for its end, also when interrupted.

    Closing a stream uploads what was written to it, which would be nothing.
    """
    if threading.current_thread() is threading.main_thread():
        with ThreadPoolExecutor(1, "storage") as pool:
            # A pool waits only for threads that it has finished starting: interrupted before, it would forget the call.
            pool.submit(int).result()
            pool.submit(call).result()
    else:
        call()


def check_relative(name: str) -> str:
    """`name` unchanged, if it stays inside the root it is joined to. Raises UserError otherwise."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"storage: found the name {name!r}; allowed: a name that stays inside the storage")
    return name


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[str]:
    """A temporary file beside `path` that durably holds `content`; removed at the end unless renamed."""
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _publish(temporary: str, path: Path) -> None:
    """Give a temporary file its name. Raises FileExistsError if there is such a file."""
    try:
        # Linking is exclusive on NFS too, where O_EXCL is not always.
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # exFAT, SMB and some FUSE mounts have no links. Any other error recurs below.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically; that it has its name is durable only once its folder is synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, content) as temporary:
        os.replace(temporary, path)


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""An object store in memory that speaks as much of S3 as the ledger needs, and answers each request late."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

FOLDER = "bucket/study"
PAGE = 1000
"""Names that one request lists, as in S3."""


class _Connection(asyncio.Protocol):
    """One client's connection: requests come one after another, each is answered `delay` seconds after it came."""

    def __init__(self, objects: dict[str, bytes], delay: float) -> None:
        self._objects, self._delay = objects, delay
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode().split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
            length = end + 4 + int(headers.get("content-length", 0))
            if headers.get("transfer-encoding") == "chunked":
                length = self._buffer.find(b"\r\n0\r\n\r\n", end) + len(b"\r\n0\r\n\r\n")
            if len(self._buffer) < length or length < end:
                if "expect" in headers and len(self._buffer) == end + 4:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self._buffer[end + 4 : length])
            del self._buffer[:length]
            for encoding in ("transfer-encoding", "content-encoding"):
                body = _unchunked(body) if headers.get(encoding, "").endswith("chunked") else body
            method, target, _ = first.split(" ")
            answer = self._answer(method, target, headers, body)
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        name = unquote(url.path).lstrip("/")
        if "list-type" in query:
            return _response(200, self._list(name.rstrip("/"), query))
        if method == "PUT":
            self._objects[name] = body
            return _response(200, etag=hashlib.md5(body).hexdigest())
        if method == "DELETE":
            self._objects.pop(name, None)
            return _response(204)
        found = self._objects.get(name, b"" if "/" not in name.strip("/") else None)
        if found is None:
            return _response(404, b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
        if method == "GET" and "range" in headers:
            begin, _, end = headers["range"].removeprefix("bytes=").partition("-")
            part = found[int(begin) : int(end) + 1 if end else None]
            return _response(206, part, range_=f"bytes {begin}-{int(begin) + len(part) - 1}/{len(found)}")
        return _response(200, found, head=method == "HEAD")

    def _list(self, bucket: str, query: dict[str, str]) -> bytes:
        prefix, token = f"{bucket}/{query.get('prefix', '')}", query.get("continuation-token", "")
        # Sorted anew only by whoever asks for a first page: others have its order.
        if not token or not hasattr(self, "_names"):
            self._names = sorted(self._objects)
        at = bisect.bisect_right(self._names, token) if token else bisect.bisect_left(self._names, prefix)
        items, more = [], False
        folders: dict[str, None] = {}
        for name in self._names[at:]:
            if not name.startswith(prefix):
                break
            if len(items) + len(folders) == PAGE:
                more = True
                break
            inside, slash, _ = name[len(prefix) :].partition("/")
            if query.get("delimiter") and slash:
                folders[f"{prefix}{inside}/"[len(bucket) + 1 :]] = None
            else:
                items.append(
                    f"<Contents><Key>{escape(name[len(bucket) + 1 :])}</Key><Size>{len(self._objects[name])}</Size>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
            token = name
        items += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        tail = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult '
            f'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>{str(more).lower()}</IsTruncated>'
            f"<KeyCount>{len(items)}</KeyCount>{''.join(items)}{tail}</ListBucketResult>"
        ).encode()


def _response(status: int, body: bytes = b"", *, head: bool = False, etag: str = "0", range_: str = "") -> bytes:
    extra = f"Content-Range: {range_}\r\n" if range_ else ""
    head_ = f'HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nETag: "{etag}"\r\n{extra}\r\n'
    return head_.encode() + (b"" if head else body)


def _unchunked(body: bytes) -> bytes:
    """The content of a body that came in chunks, of HTTP's kind or of AWS's, whose last may have trailers."""
    content, at = bytearray(), 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if not size:
            return bytes(content)
        content += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2


def _serve(port: multiprocessing.Queue, delay: float, filled: Callable[[], dict[str, bytes]]) -> None:
    async def main() -> None:
        objects = {f"{FOLDER}/{name}": content for name, content in filled().items()}
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(objects, delay), "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def serving(delay: float, filled: Callable[[], dict[str, bytes]] = dict) -> Iterator[str]:
    """A URI under which a store, `filled` with files by name, answers `delay` seconds after it is asked."""
    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue = context.Queue()
    process = context.Process(target=_serve, args=(port, delay, filled), daemon=True)
    process.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "benchmark")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            yield f"s3://{FOLDER}?endpoint_override=127.0.0.1:{port.get()}&scheme=http"
    finally:
        process.kill()
        process.join()

"""A small W&B server on this machine: what a run's logging needs of the protocol, and the ways it can fail."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCHEMA = {"__schema": {"types": []}, "__type": {"fields": [], "inputFields": [], "enumValues": []}}


class Server(ThreadingHTTPServer):
    """Keeps what runs send: run id → step → metrics. `status` 500 refuses everything, `delay` makes it slow."""

    daemon_threads = True

    def __init__(self, status: int = 200, delay: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.delay = status, delay
        self.history: dict[str, dict[int, dict]] = {}
        self.started: list[str] = []
        self.ended: dict[str, int] = {}
        self.requests = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serve(status: int = 200, delay: float = 0) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server(status, delay)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.requests += 1
        time.sleep(self.server.delay)
        if self.server.status != 200:
            self._answer({"error": "out of order"})
        elif self.path.endswith("/graphql"):
            self._answer({"data": self._graphql(json.loads(body))})
        elif match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self._stream(match[1], json.loads(body))
            self._answer({})
        else:
            self._answer({})

    def _graphql(self, request: dict) -> dict:
        query, variables = request["query"], request.get("variables") or {}
        if "upsertBucket" in query:
            name = variables.get("name") or variables.get("id") or "run"
            with self.server.lock:
                new = name not in self.server.started
                self.server.started.append(name)
            project = {"name": variables.get("project") or "p", "entity": {"name": "me"}}
            bucket = {"id": name, "name": name, "displayName": name, "config": "{}", "sweepName": None}
            bucket |= {"historyLineCount": len(self.server.history.get(name, {})), "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if "RunResumeStatus" in query:
            return {"model": self._resumed(variables)}
        if "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in variables.get("files", [])
            ]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            return {"viewer": {"id": "me", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        return {**SCHEMA, "serverInfo": None, "project": None, "model": None, "notifyScriptableRunAlert": None}

    def _resumed(self, variables: dict) -> dict | None:
        name = variables["name"]
        history = self.server.history.get(name)
        if not history:
            return None
        last = history[max(history)]
        return {
            "id": "p", "name": "p", "entity": {"id": "me", "name": "me"},
            "bucket": {
                "name": name, "summaryMetrics": json.dumps(last), "displayName": name, "logLineCount": 0,
                "historyLineCount": len(history), "eventsLineCount": 0, "historyTail": json.dumps([json.dumps(last)]),
                "eventsTail": "[]", "config": "{}", "tags": [], "wandbConfig": '{"t": 1}',
            },
        }  # fmt: skip

    def _stream(self, name: str, body: dict) -> None:
        with self.server.lock:
            rows = self.server.history.setdefault(name, {})
            for line in (body.get("files") or {}).get("wandb-history.jsonl", {}).get("content", []):
                row = json.loads(line)
                rows[row["_step"]] = row
            if body.get("complete"):
                self.server.ended[name] = body.get("exitcode", 0)

    def _body(self) -> bytes:
        import gzip

        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: dict) -> None:
        body = json.dumps(content).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(self.server.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass

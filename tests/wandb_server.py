"""A small W&B server on this machine: what it speaks with those who log, read and report, and the ways it can fail.

It keeps a run's history as the lines that the run has sent, each at the offset that came with it, so that an epoch sent
twice is there twice.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCHEMA = {"__schema": {"types": []}, "__type": {"fields": [], "inputFields": [], "enumValues": []}}
USER = {"id": "me", "name": "me", "username": "me", "email": "me@example.com", "admin": False}


@dataclass
class Run:
    """One run as the server has it."""

    entity: str
    project: str
    name: str
    """Its id; what people read is the display name."""
    about: dict = field(default_factory=dict)
    """displayName, groupName, jobType, notes, tags, host, program: as they came with the last upsert that said so."""
    config: dict = field(default_factory=dict)
    """Key → {"value": …}, as W&B stores it."""
    summary: dict = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"
    exit_code: int | None = None

    @property
    def rows(self) -> list[dict]:
        """The history, a row a line."""
        return [json.loads(line) for line in self.lines]

    def node(self) -> dict:
        """The run as the public API describes it."""
        about = self.about.get
        return {
            "id": base64.b64encode(f"Run:{self.name}".encode()).decode(),
            "projectId": "1",
            "name": self.name,
            "displayName": about("displayName") or self.name,
            "tags": about("tags") or [],
            "state": self.state,
            "config": json.dumps(self.config),
            "group": about("groupName"),
            "jobType": about("jobType"),
            "notes": about("notes"),
            "summaryMetrics": json.dumps(self.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(self.lines),
            "historyKeys": {"lastStep": max((row["_step"] for row in self.rows), default=-1)},
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:00:00",
            "user": USER,
            "readOnly": False,
            **dict.fromkeys(("sweepName", "commit", "description")),
        }


class Server(ThreadingHTTPServer):
    """Keeps what runs send, and fails on demand.

    `status` other than 200 refuses everything, `delay` seconds make it slow, `cut` closes the connection in the middle
    of every answer, `refuse_every` answers 429 each so many requests, and `die` stops listening until `come_back`. It
    knows no entity but `entities`, and takes nothing from those that are `read_only`.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, status: int = 200, delay: float = 0, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = self.server_address[1]
        self.status, self.delay, self.cut = status, delay, False
        self.refuse_every, self.answered = 0, 0
        self.entities = {"me"}
        self.read_only: set[str] = set()
        self.runs: dict[str, Run] = {}
        self.projects: set[tuple[str, str]] = set()
        self.views: dict[str, dict] = {}
        self.artifacts: dict[str, dict] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests = 0
        self.log: list[str] = []
        """The operation of every request, in order."""
        self.unknown: list[str] = []
        """Requests that this server does not understand."""
        self.lock = threading.RLock()
        self._listening: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL is set to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def history(self) -> dict[str, dict[int, dict]]:
        """Run id → step → metrics, of the runs of models."""
        with self.lock:
            return {name: {row["_step"]: row for row in run.rows} for name, run in self.runs.items()}

    def listen(self) -> None:
        """Answer, in a thread."""
        self._listening = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._listening.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no error of ours."""

    def die(self) -> None:
        """Refuse all connections from now on."""
        if self._listening:
            self.shutdown()
            self._listening.join()
            self._listening = None
        self.server_close()

    def come_back(self) -> None:
        """Listen again where it did before, with all that it has kept."""
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server_address = ("127.0.0.1", self.port)
        self.server_bind()
        self.server_activate()
        self.listen()


@contextlib.contextmanager
def serve(status: int = 200, delay: float = 0) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server(status, delay)
    server.listen()
    try:
        yield server
    finally:
        server.die()


class Refused(Exception):
    """What the server answers in GraphQL's list of errors."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if match := re.fullmatch(r"/download/(\w+)/(.+)", self.path):
            self._send(self.server.uploads.get(f"{match[1]}/{match[2]}", b""))
        else:
            self._answer({})

    def do_PUT(self) -> None:
        body = self._body()
        if self._failed():
            return
        with self.server.lock:
            self.server.uploads[self.path.removeprefix("/upload/")] = body
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.requests += 1
        if self._failed():
            return
        if self.path.endswith("/graphql"):
            self._graphql(json.loads(body))
        elif match := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", self.path):
            with self.server.lock:
                self.server.log.append("file_stream")
                self._stream(self.server.runs.get(match[3]) or Run(match[1], match[2], match[3]), json.loads(body))
            self._answer({})
        else:
            if "/otel/" not in self.path:
                self.server.unknown.append(self.path)
            self._answer({})

    def _failed(self) -> bool:
        """Whether the server is to fail now; it has then answered, or closed the connection."""
        time.sleep(self.server.delay)
        if self.server.cut:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"data": {')
            self.close_connection = True
            return True
        with self.server.lock:
            self.server.answered += 1
        if self.server.refuse_every and self.server.answered % self.server.refuse_every == 0:
            self._answer({"error": "too many requests"}, 429)
            return True
        if self.server.status != 200:
            self._answer({"error": "out of order"}, self.server.status)
            return True
        return False

    # GraphQL: answered by the operation's name, as a client of W&B's writes it.

    def _graphql(self, request: dict) -> None:
        query, variables = request["query"], request.get("variables") or {}
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = match[1] if match else "anonymous"
        answer = getattr(self, f"_{name}", None)
        with self.server.lock:
            self.server.log.append(name)
            if answer is None:
                self.server.unknown.append(query)
                self._answer({"data": {**SCHEMA, "serverInfo": None, "project": None, "model": None}})
                return
            try:
                data = answer(variables)
            except Refused as error:
                self._answer({"data": None, "errors": [{"message": str(error)}]})
                return
        self._answer({"data": data})

    def _Viewer(self, _: dict) -> dict:
        teams = {"edges": [{"node": {"name": name}} for name in sorted(self.server.entities)]}
        return {"viewer": {**USER, "entity": "me", "flags": "{}", "teams": teams, "apiKeys": {"edges": []}}}

    _GetViewer = _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, _: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def _allowed(self, entity: str) -> str:
        entity = entity or "me"
        if entity not in self.server.entities:
            raise Refused(f"entity {entity} not found during upsertBucket")
        if entity in self.server.read_only:
            raise Refused("permission denied")
        return entity

    def _UpsertBucket(self, given: dict) -> dict:
        entity = self._allowed(given.get("entity"))
        project = given.get("project") or "uncategorized"
        name = given.get("name")
        if given.get("id"):
            name = base64.b64decode(given["id"]).decode().removeprefix("Run:")
        run = self.server.runs.get(name)
        new = run is None
        if run is None:
            run = self.server.runs[name] = Run(entity, project, name)
        self.server.projects.add((run.entity, run.project))
        about = ("displayName", "groupName", "jobType", "notes", "tags", "host", "program")
        run.about |= {key: given[key] for key in about if given.get(key) is not None}
        if given.get("config"):
            run.config = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        if given.get("state") or new:
            run.state = given.get("state") or "running"
        node = run.node()
        owner = {"id": "p", "name": run.project, "entity": {"id": run.entity, "name": run.entity}}
        return {"upsertBucket": {"bucket": {**node, "project": owner}, "inserted": new}}

    def _RunResumeStatus(self, given: dict) -> dict:
        run = self.server.runs.get(given["name"])
        bucket = None
        if run:
            config = run.config.get("_wandb", {}).get("value", {})
            tail = [run.lines[-1]] if run.lines else []
            bucket = {
                **run.node(), "logLineCount": 0, "eventsLineCount": len(run.events), "historyTail": json.dumps(tail),
                "eventsTail": "[]", "wandbConfig": json.dumps({"t": config.get("t", 1)}),
            }  # fmt: skip
        return {"model": {"id": "p", "name": given["project"], "entity": {"id": "me", "name": "me"}, "bucket": bucket}}

    def _CreateRunFiles(self, given: dict) -> dict:
        files = [{"name": n, "uploadUrl": f"{self.server.url}/upload/{given['run']}/{n}"} for n in given["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    # the public API

    def _Runs(self, given: dict) -> dict:
        entity, project = given["entity"], given["project"]
        if (entity, project) not in self.server.projects:
            return {"project": None}
        found = [run for run in self.server.runs.values() if (run.entity, run.project) == (entity, project)]
        found = [run for run in found if _matches(run, json.loads(given.get("filters") or "{}"))]
        first = int(given.get("cursor") or 0)
        page = found[first : first + (given.get("perPage") or 50)]
        last = first + len(page)
        edges = [{"node": run.node(), "cursor": str(first + k + 1)} for k, run in enumerate(page)]
        info = {"endCursor": str(last), "hasNextPage": last < len(found)}
        runs = {"edges": edges, "pageInfo": info}
        return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}

    def _run(self, given: dict) -> Run | None:
        run = self.server.runs.get(given.get("run") or given.get("name") or given.get("runName"))
        return run if run and (run.entity, run.project) == (given["entity"], given["project"]) else None

    def _Run(self, given: dict) -> dict:
        if (given["entity"], given["project"]) not in self.server.projects:
            return {"project": None}
        run = self._run(given)
        return {"project": {"internalId": "1", "run": run.node() if run else None}}

    _RunHistoryKeys = _QueryRunInfo = _RunState = _Run

    def _HistoryPage(self, given: dict) -> dict:
        lines = [row for row in self._run(given).rows if given["minStep"] <= row["_step"] < given["maxStep"]]
        return {"project": {"run": {"history": [json.dumps(row) for row in lines]}}}

    def _RunParquetHistory(self, given: dict) -> dict:
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": self._run(given).rows}}}}

    def _RunFullHistory(self, given: dict) -> dict:
        run = self._run(given)
        return {"project": {"run": {"history": run.lines, "events": run.events}}}

    # reports

    def _GetProjects(self, given: dict) -> dict:
        nodes = [
            {
                "id": name, "name": name, "entityName": entity, "createdAt": "2026-01-01T00:00:00",
                "isBenchmark": False, "internalId": "1", "readOnly": False, "user": None,
            }
            for entity, name in sorted(self.server.projects)
        ]  # fmt: skip
        edges = [{"cursor": node["name"], "node": node} for node in nodes]
        return {"models": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def _upsertView(self, given: dict) -> dict:
        self._allowed(given["entityName"])
        view = given.get("id") or f"view{len(self.server.views) + 1}"
        new = view not in self.server.views
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        kept = {key: given[key] for key in ("type", "name", "displayName", "description", "spec")}
        self.server.views[view] = {**kept, "id": view, "project": project, "updatedAt": "2026-01-01T00:00:00"}
        return {"upsertView": {"view": self.server.views[view], "inserted": new}}

    def _SpecificReport(self, given: dict) -> dict:
        return {"view": self.server.views.get(given["reportId"])}

    # artifacts

    def _ArtifactType(self, given: dict) -> dict:
        return {"project": {"artifact": None}}

    def _FetchArtifactDigestAlgorithm(self, given: dict) -> dict:
        return {"project": None}

    def _XXHashDigestsEnabled(self, given: dict) -> dict:
        return {"entity": None}

    def _CreateArtifact(self, given: dict) -> dict:
        given = given["input"]
        key = f"artifact{len(self.server.artifacts) + 1}"
        name = given["artifactCollectionName"]
        self.server.artifacts[key] = {"name": name, "type": given["artifactTypeName"], "state": "PENDING", "files": {}}
        sequence = {"id": f"sequence-{name}", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": key, "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, given: dict) -> dict:
        file = {"id": "f", "uploadUrl": None, "uploadHeaders": []}
        if given.get("includeUpload"):
            file["uploadUrl"] = f"{self.server.url}/upload/{given['artifactID']}/{given['name']}"
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest-" + given["artifactID"], "file": file}}}

    def _UpdateArtifactManifest(self, given: dict) -> dict:
        artifact = given["artifactManifestID"].removeprefix("manifest-")
        file = {"id": "f", "uploadUrl": f"{self.server.url}/upload/{artifact}/manifest.json", "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": given["artifactManifestID"], "file": file}}}

    def _CreateArtifactFiles(self, given: dict) -> dict:
        nodes = []
        for file in given["input"]["artifactFiles"]:
            artifact, name = file["artifactID"], file["name"]
            url = f"{self.server.url}/upload/{artifact}/{name}"
            self.server.artifacts[artifact]["files"][name] = f"{artifact}/{name}"
            node = {"storagePath": f"path/{name}", "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}
            nodes.append({"node": {**node, "artifact": {"id": artifact}}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _CommitArtifact(self, given: dict) -> dict:
        self.server.artifacts[given["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}

    # file_stream

    def _stream(self, run: Run, body: dict) -> None:
        for name, chunk in (body.get("files") or {}).items():
            content, offset = chunk.get("content", []), chunk.get("offset", 0)
            if name in ("wandb-history.jsonl", "wandb-events.jsonl"):
                lines = run.lines if "history" in name else run.events
                lines[offset : offset + len(content)] = content
            elif name == "wandb-summary.json" and content:
                run.summary = json.loads(content[-1])
        if body.get("complete"):
            run.exit_code = body.get("exitcode", 0)
            run.state = "failed" if run.exit_code else "finished"

    # HTTP

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: dict, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status)

    def _send(self, body: bytes, status: int = 200) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def _matches(run: Run, filters: dict) -> bool:
    """Whether a run meets MongoDB-like filters, of which the simple ones are known."""
    for key, wanted in filters.items():
        if key == "$and":
            if not all(_matches(run, part) for part in wanted):
                return False
            continue
        if key.startswith("config."):
            found = run.config.get(key.removeprefix("config.").removesuffix(".value"), {}).get("value")
        else:
            found = {"tags": run.about.get("tags") or [], "name": run.name, "jobType": run.about.get("jobType"),
                     "group": run.about.get("groupName"), "state": run.state}[key]  # fmt: skip
        wanted = wanted if isinstance(wanted, dict) else {"$eq": wanted}
        for operator, value in wanted.items():
            held = {
                "$eq": lambda f=found, v=value: f == v or (isinstance(f, list) and v in f),
                "$ne": lambda f=found, v=value: f != v,
                "$in": lambda f=found, v=value: any(x in v for x in (f if isinstance(f, list) else [f])),
            }[operator]()
            if not held:
                return False
    return True

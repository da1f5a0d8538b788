"""A W&B server of its own: what wandb's client sends is kept, as a server would keep it.

It knows the queries that a run needs and no account; answers follow W&B's GraphQL schema.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "an-entity"


@dataclass
class RemoteRun:
    """A run as the server knows it."""

    first: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        return [self.lines[number] for number in sorted(self.lines)]


class Server(ThreadingHTTPServer):
    """Listens on a free port of this machine; ``runs`` by id, ``accounts`` as they were sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, RemoteRun] = defaultdict(RemoteRun)
        self.deaf_after_start = False
        self.refuses = False
        self.paths: set[str] = set()
        self.accounts: set[str] = set()

    def handle_error(self, *_: object) -> None:
        """Ignore errors: a client that is killed is not the server's fault."""

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": variables.get("project"), "entity": {"name": ENTITY}}
        if operation == "UpsertBucket":
            new = variables["name"] not in self.runs
            run = self.runs[variables["name"]]
            run.first = run.first or variables
            bucket = {"id": "b", "name": variables["name"], "project": project, "config": "{}"}
            return {"upsertBucket": {"bucket": bucket, "inserted": new}}
        if operation == "RunResumeStatus":
            known = variables["name"] in self.runs
            return {"model": {**project, "bucket": self._bucket(variables) if known else None}}
        if operation == "CreateRunFiles":
            self.runs[variables["run"]].files.update(variables["files"])
            files = [{"name": f, "uploadUrl": f"{self.url}/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}

    def _bucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        history = self.runs[variables["name"]].history
        last = json.dumps(history[-1]) if history else "{}"
        return {
            "id": "b",
            "name": variables["name"],
            "summaryMetrics": last,
            "historyTail": json.dumps([last]),
            "historyLineCount": len(history),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "config": "{}",
            "tags": [],
            "wandbConfig": '{"t": 1}',  # a run without it counts as never started
        }


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.paths.add(self.path)
        self.server.accounts.add(self.headers.get("Authorization", ""))
        if self.server.refuses:
            self.send_error(401)
            return
        if self.path == "/graphql":
            query = json.loads(body)
            data = self.server.graphql(query["operationName"], query.get("variables", {}))
            self._answer({"data": data})
            return
        if self.server.deaf_after_start:
            self.send_error(500)
            return
        if self.path.endswith("/file_stream"):
            self._keep(self.server.runs[self.path.split("/")[4]], json.loads(body))
        self._answer({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _keep(self, run: RemoteRun, content: dict[str, Any]) -> None:
        stream = (content.get("files") or {}).get("wandb-history.jsonl", {})
        for number, line in enumerate(stream.get("content", []), stream.get("offset", 0)):
            run.lines[number] = json.loads(line)
        if content.get("complete"):
            run.exit_code = content["exitcode"]

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

"""A model hub on a loopback port, speaking the real one's HTTP: model info, resolve with redirects, ranges, ETags.

Faults are switched on by file, or by "api" for the model info; each holds for a number of requests.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

LARGE = 500  # bytes; from there on a file is one of LFS, as on the real hub only by its kind
PIECE = 64 << 10  # bytes sent at once


@dataclass
class Fault:
    """What goes wrong with a request."""

    status: int = 0  # answer with it
    error_code: str = ""  # X-Error-Code: "GatedRepo", "RepoNotFound", ...
    cut_after: int = -1  # bytes of this answer, then the connection ends
    stall_after: int = -1  # bytes of this answer, then nothing comes until the hub closes
    short: int = 0  # bytes that are left out at the end, and not promised either
    corrupt: bool = False  # other bytes, as many
    times: int = 1  # requests that it happens to


@dataclass
class Hub:
    """What is there, what was asked, what went out."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    token: str = ""  # what a client must show
    served: Counter[str] = field(default_factory=Counter)  # bytes of content by file
    ranges: dict[str, list[int]] = field(default_factory=dict)  # where each request for a file began
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    gates: dict[str, threading.Semaphore] = field(default_factory=dict)  # a piece of the file for each release
    closing: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def put(self, repository: str, files: Mapping[str, bytes]) -> None:
        self.repositories[repository] = dict(files)
        told = repr(sorted((name, hashlib.sha1(content).hexdigest()) for name, content in files.items()))
        self.commits[repository] = hashlib.sha1(told.encode()).hexdigest()

    def fail(self, path: str, **fault: Any) -> None:
        self.faults.setdefault(path, []).append(Fault(**fault))

    def next_fault(self, path: str) -> Fault:
        waiting = self.faults.get(path, [])
        if not waiting:
            return Fault()
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times == 0 else waiting[0]


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        hub, path = self.hub, unquote(self.path.split("?")[0])
        hub.requests.append((self.command, self.path, dict(self.headers)))
        try:
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self._info(found[1])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(found[1], found[3])
            elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
                self._content(found[1], found[2])
            else:
                self._refuse(404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _admitted(self, repository: str, fault: Fault) -> bool:
        hub = self.hub
        if fault.status:
            self._refuse(fault.status, fault.error_code)
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._refuse(401, "RepoNotFound")
        elif repository not in hub.repositories:
            self._refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        else:
            return True
        return False

    def _info(self, repository: str) -> None:
        hub = self.hub
        if not self._admitted(repository, hub.next_fault("api")):
            return
        siblings = []
        for name, content in hub.repositories[repository].items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git(content)}
            if len(content) >= LARGE:
                sha256 = _sha256(content)
                entry["blobId"] = _git(f"pointer to {sha256}".encode())
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        info = {"_id": "1", "id": repository, "modelId": repository, "sha": hub.commits[repository], "private": False}
        info |= {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0, "gated": False}
        body = json.dumps(info).encode()
        self._begin(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _resolve(self, repository: str, name: str) -> None:
        hub = self.hub
        content = hub.repositories.get(repository, {}).get(name)
        if content is None or len(content) < LARGE:
            if self._admitted(repository, Fault()):
                self._content(repository, name)
            return
        if not self._admitted(repository, Fault()):
            return
        sha256 = _sha256(content)
        headers = {
            "X-Repo-Commit": hub.commits[repository],
            "X-Linked-Etag": f'"{sha256}"',
            "ETag": f'"{_git(content)}"',
        }
        headers |= {
            "X-Linked-Size": str(len(content)),
            "Location": f"{hub.url}/cdn/{repository}/{name}?signature=secret",
        }
        self._begin(302, {**headers, "Content-Length": "0"})

    def _content(self, repository: str, name: str) -> None:
        hub = self.hub
        fault = hub.next_fault(name)
        if fault.status:
            self._refuse(fault.status, fault.error_code)
            return
        content = hub.repositories.get(repository, {}).get(name)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        sent = content if not fault.corrupt else bytes(byte ^ 1 for byte in content)
        sent = sent[: len(sent) - fault.short]
        begin = self._range_begin()
        hub.ranges.setdefault(name, []).append(begin)
        if begin >= len(sent) and begin:
            self._refuse(416)
            return
        headers = {"ETag": f'"{_git(content)}"', "X-Repo-Commit": hub.commits[repository], "Accept-Ranges": "bytes"}
        headers["Content-Length"] = str(len(sent) - begin)
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {begin}-{len(sent) - 1}/{len(sent)}"
        self._begin(206 if "Range" in self.headers else 200, headers)
        if self.command == "GET":
            self._send(name, sent[begin:], fault)

    def _range_begin(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def _send(self, name: str, content: bytes, fault: Fault) -> None:
        hub = self.hub
        limit = max(fault.cut_after, fault.stall_after)
        promised, content = len(content), content if limit < 0 else content[:limit]
        gate = hub.gates.get(name)
        for begin in range(0, len(content), PIECE):
            while gate is not None and not gate.acquire(timeout=0.05):
                if hub.closing.is_set():
                    return
            piece = content[begin : begin + PIECE]
            self.wfile.write(piece)
            self.wfile.flush()
            hub.served[name] += len(piece)
        if len(content) < promised:
            self.close_connection = True
            if fault.stall_after >= 0:
                hub.closing.wait()

    def _refuse(self, status: int, code: str = "") -> None:
        headers = {"Content-Length": "0"} | ({"X-Error-Code": code, "X-Error-Message": "no"} if code else {})
        self._begin(status, headers)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@lru_cache  # the files of some tests are large
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache
def _git(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

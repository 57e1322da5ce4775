"""A hub of models on this machine that answers as huggingface.co does, errors included.

What huggingface_hub 0.36 (which whisperx needs) and 2.x ask is served: a repository's description,
its list of files, and its files.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

_COMMIT = "c0ffee" * 6 + "beef"
_ROUTE = re.compile(
    r"/api/models/(?P<described>[^/]+/[^/]+)(?:/revision/[^/]+)?"
    r"|/api/models/(?P<listed>[^/]+/[^/]+)/tree/[^/]+"
    r"|/(?P<held>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)"
)


@dataclass
class FakeHub:
    """What the hub holds and whom it knows; may be changed while it runs.

    Args:
        repositories: folders by hub id.
        gated: hub ids whose terms must be accepted.
        accepted: what the account of each known token has accepted.
        narrow: known tokens that may not read gated repositories.
        disabled: hub ids that nobody may have any more.
        private: nobody is told anything without a token.
        broken: every answer is 503.
        cuts: every file ends before its announced length.
        stalls: names of files whose last byte is kept back for as long as they are here.
        sizes: what a repository's description says of files, where it is not the truth.
    """

    repositories: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    accepted: dict[str, set[str]] = field(default_factory=dict)
    narrow: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    private: bool = False
    broken: bool = False
    cuts: bool = False
    stalls: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    address: str = ""

    def downloads(self) -> list[str]:
        """The files that were fetched, by their names."""
        files = (_ROUTE.fullmatch(line.removeprefix("GET ")) for line in self.requests)
        return [match["file"] for match in files if match and match["file"]]

    def refusal(self, repository: str, file: bool, token: str) -> tuple[int, dict[str, str]] | None:
        """The status and the headers with which the hub refuses a request, or None."""
        if self.broken:
            return 503, {}
        if self.private and not token:
            return 403, {}
        if repository in self.disabled:
            return 403, {"X-Error-Message": "Access to this resource is disabled."}
        if token and token not in self.accepted:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        if repository not in self.repositories:
            return (404 if token else 401), {"X-Error-Code": "RepoNotFound"}
        # The description of a gated repository is public, its files are not.
        if not file or repository not in self.gated:
            return None
        if not token:
            return 401, {"X-Error-Code": "GatedRepo"}
        if token in self.narrow:
            return 403, {"X-Error-Message": "Please enable access to public gated repositories"}
        if repository not in self.accepted[token]:
            return 403, {"X-Error-Code": "GatedRepo"}
        return None

    def files(self, repository: str) -> list[str]:
        """The paths of a repository's files."""
        root = self.repositories[repository]
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@contextmanager
def serving(hub: FakeHub, host: str = "127.0.0.1") -> Iterator[FakeHub]:
    """Serve a hub on a free port until the end of the context."""

    class Conversation(_Conversation):
        model = hub

    with ThreadingHTTPServer((host, 0), Conversation) as server:
        hub.address = f"http://{host}:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Conversation(BaseHTTPRequestHandler):
    model: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.model.requests.append(f"{self.command} {path}")
        self.model.tokens.add(token)
        match = _ROUTE.fullmatch(path)
        if match is None:
            self._send(404, b"")
            return
        repository = match["described"] or match["listed"] or match["held"]
        refusal = self.model.refusal(repository, bool(match["file"]), token)
        if refusal:
            self._send(refusal[0], b"", refusal[1])
        elif match["described"]:
            self._send_json(self._description(repository))
        elif match["listed"]:
            self._send_json(
                [self._entry(repository, name) for name in self.model.files(repository)]
            )
        else:
            self._send_file(self.model.repositories[repository] / match["file"])

    def _description(self, repository: str) -> dict[str, Any]:
        root = self.model.repositories[repository]
        siblings = [
            {
                "rfilename": name,
                "size": self.model.sizes.get(name, (root / name).stat().st_size),
            }
            for name in self.model.files(repository)
        ]
        return {
            "id": repository,
            "modelId": repository,
            "sha": _COMMIT,
            "private": False,
            "gated": "auto" if repository in self.model.gated else False,
            "tags": [],
            "downloads": 0,
            "siblings": siblings,
        }

    def _entry(self, repository: str, name: str) -> dict[str, Any]:
        content = (self.model.repositories[repository] / name).read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _COMMIT})
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": _COMMIT}
        cut = content[:-1] if self.model.cuts else content
        self._send(200, cut, {**headers, "Content-Length": str(len(content))}, path.name)
        self.close_connection = self.model.cuts

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        file: str = "",
    ) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content[:-1])
                while file in self.model.stalls:
                    time.sleep(0.05)
                self.wfile.write(content[-1:])


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()

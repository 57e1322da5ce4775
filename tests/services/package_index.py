"""An index of packages that has none, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from .web import web


@dataclass
class PackageIndex:
    """Where it is, which paths were asked for, and with which credentials."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)


@contextmanager
def package_index() -> Iterator[PackageIndex]:
    """Run an index on this machine's loopback."""
    index = PackageIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            index.credentials.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, format: str, *_: object) -> None:
            """Stay silent."""

    with web(Handler) as index.address:
        yield index

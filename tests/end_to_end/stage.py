"""The stage on which a test sets up its services, Nginx and the proxy.

Test modules import the fixtures by the names of their functions: the tests are in more than one
folder, so there is no conftest.py for all of them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.end_to_end.parts import Client, Nginx, Program, Project, Proxy, make_certificate

P = TypeVar("P", bound=Project)
T = TypeVar("T")


class Stage:
    """Services behind the proxy behind Nginx.

    Attributes:
        through_nginx: sends with TLS and the password.
        direct: sends to the proxy, as if it were Nginx.
    """

    def __init__(self, folder: Path, certificate: Path, context: ssl.SSLContext) -> None:
        self.folder = folder
        self.proxy = Proxy(folder)
        self.nginx = Nginx(folder / "nginx", self.proxy.port, certificate)
        self.through_nginx = Client(self.nginx.port, context)
        self.direct = Client(self.proxy.port)
        self._projects: list[Project] = []
        self._threads = ThreadPoolExecutor(256)

    def keep(self, project: P) -> P:
        """Create the container of a project that ends with the test."""
        self._projects.append(project)
        project.create()
        return project

    def program(self, allowed: Iterable[str] = ("listen", "end")) -> Program:
        """A sleeping container."""
        return self.keep(Program(self.folder, allowed))

    def configure(self, host: str, project: Project, **keys: Any) -> None:
        """Put a service into the configuration; keys are those of the file."""
        self.proxy.config["services"][host] = {
            "composeDir": str(project.folder),
            "proxyPort": project.port,
            "startTimeout": "60s",
            **keys,
        }

    def service(
        self, host: str, allowed: Iterable[str] = ("listen", "end"), **keys: Any
    ) -> Program:
        """A service with a sleeping container of its own."""
        program = self.program(allowed)
        self.configure(host, program, **keys)
        return program

    def start(self) -> None:
        """Start the proxy and Nginx."""
        self.proxy.start()
        self.nginx.start(self.proxy.config["services"])

    def soon(self, call: Callable[..., T], *arguments: Any, **keys: Any) -> Future[T]:
        """Run something beside the test."""
        return self._threads.submit(call, *arguments, **keys)

    def end(self) -> None:
        self.nginx.end()
        self.proxy.end()
        self._threads.shutdown()
        for project in self._projects:
            project.down()


@pytest.fixture(scope="session", name="certificate")
def sign_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A folder with a certificate, and what trusts it."""
    folder = tmp_path_factory.mktemp("certificate")
    return folder, make_certificate(folder)


@contextmanager
def staged(folder: Path, certificate: tuple[Path, ssl.SSLContext]) -> Iterator[Stage]:
    """A stage in a folder of its own, which all of example.org leads to.

    Clients use the very URLs of users that way.
    """
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *rest: Any, **keys: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".example.org") else host, *rest, **keys)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", resolve_here)
        stage = Stage(folder, *certificate)
        try:
            yield stage
        finally:
            stage.end()


@pytest.fixture(name="stage")
def set_stage(tmp_path: Path, certificate: tuple[Path, ssl.SSLContext]) -> Iterator[Stage]:
    with staged(tmp_path, certificate) as stage:
        yield stage

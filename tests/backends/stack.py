"""A throw-away Compose project on the real engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autostart_proxy.backends.compose.backend import ComposeBackend

IMAGE = "python:3.11-slim"

Start = Callable[..., ComposeBackend]
"""Makes a backend for a stack; keys are those of `ServiceConfig`."""


def program(source: str, *arguments: str) -> dict[str, Any]:
    """A Compose service that runs a Python program, on the engine's own bridge.

    So no network has to be created for a project; `0.0.0.0 8000` are its arguments by default.
    """
    return {
        "image": IMAGE,
        "command": ["python", "-u", "-c", source, *(arguments or ("0.0.0.0", "8000"))],
        "network_mode": "bridge",
    }


def published(port: int) -> dict[str, Any]:
    """What a service needs to be reached from here."""
    return {"ports": [f"127.0.0.1:{port}:8000"]}


def after(**conditions: str) -> dict[str, Any]:
    """`depends_on` with conditions, by service: started, healthy or completed_successfully."""
    return {
        "depends_on": {
            service: {"condition": f"service_{condition}"}
            for service, condition in conditions.items()
        }
    }


class Stack:
    """A folder with a Compose file, whose project is removed by `down`.

    What is done here by hand is what an operator could do beside the proxy.

    Args:
        name: of the folder, and so of the project; by default one that nobody has.
    """

    def __init__(self, parent: Path, name: str = "") -> None:
        self.name = name or f"autostart-test-{uuid.uuid4().hex[:12]}"
        self.folder = parent / self.name
        self.folder.mkdir(parents=True)

    def write(self, file: str = "docker-compose.yml", /, **services: dict[str, Any]) -> None:
        """Write a Compose file; JSON is YAML."""
        self.write_text(file, json.dumps({"services": services}, indent=1))

    def write_text(self, file: str, text: str) -> None:
        """Write any file of the folder."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    async def environment(self, service: str) -> dict[str, str]:
        """What a service's container was created with."""
        given = json.loads(
            await self.docker("inspect", service, "--format", "{{json .Config.Env}}")
        )
        return dict(each.split("=", 1) for each in given)

    async def compose(self, *arguments: str) -> str:
        """Run `docker compose` in the folder."""
        return await asyncio.to_thread(_run, ["docker", "compose", *arguments], self.folder)

    async def docker(self, command: str, service: str, *options: str) -> str:
        """Run `docker COMMAND` on a service's container."""
        container = f"{self.name}-{service}-1"
        return await asyncio.to_thread(_run, ["docker", command, *options, container], self.folder)

    async def run(self, *command: str) -> str:
        """Run any program in the folder."""
        return await asyncio.to_thread(_run, [*command], self.folder)

    async def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        await asyncio.to_thread(_run, ["docker", "tag", image, name], self.folder)

    async def commit(self, service: str, name: str) -> None:
        """Make a new image from a service's container, as a rebuild would."""
        container = f"{self.name}-{service}-1"
        await asyncio.to_thread(_run, ["docker", "commit", container, name], self.folder)

    async def remove_image(self, name: str) -> None:
        """Remove a name and its image, with the containers made from it."""
        await asyncio.to_thread(self.down)
        await asyncio.to_thread(_run, ["docker", "image", "rm", "-f", name], self.folder)

    async def remove_network(self) -> None:
        """Remove the project's own network, as `docker network prune` would."""
        command = ["docker", "network", "rm", f"{self.name}_default"]
        await asyncio.to_thread(_run, command, self.folder)

    async def inspect(self, service: str, what: str) -> str:
        """One value of what the engine knows of a service's container."""
        return (await self.docker("inspect", service, "--format", "{{" + what + "}}")).strip()

    async def status(self, service: str) -> str:
        """As created, running, exited."""
        return await self.inspect(service, ".State.Status")

    async def containers(self) -> list[str]:
        """The names of the project's containers, whatever became of them."""
        command = ["docker", "ps", "-a", "--format", "{{.Names}}"]
        command += ["--filter", f"label=com.docker.compose.project={self.name}"]
        return sorted((await asyncio.to_thread(_run, command, self.folder)).split())

    async def starts(self, since: str) -> list[str]:
        """The services that were started since then, in order."""
        now = (await asyncio.to_thread(_run, ["date", "+%s.%N"], self.folder)).strip()
        command = [
            "docker", "events", "--since", since, "--until", now,
            "--filter", "event=start", "--filter", f"label=com.docker.compose.project={self.name}",
            "--format", '{{index .Actor.Attributes "com.docker.compose.service"}}',
        ]  # fmt: skip
        return (await asyncio.to_thread(_run, command, self.folder)).split()

    async def now(self) -> str:
        """A moment, for `starts`."""
        return (await asyncio.to_thread(_run, ["date", "+%s.%N"], self.folder)).strip()

    def down(self) -> None:
        """Remove the project by its labels, whatever its Compose file says by now."""
        command = ["docker", "compose", "-p", self.name, "down", "-t", "0", "-v"]
        _run(command, self.folder.parent)


def _environment() -> dict[str, str]:
    """Straight to the engine, whatever address a test gives to the backend."""
    return {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}


def _run(command: list[str], folder: Path) -> str:
    answer = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True)
    assert answer.returncode == 0, f"{command}: {answer.stderr}"
    return answer.stdout

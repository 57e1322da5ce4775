"""What a service can be made of: one kind of value for each backend.

Two services with equal units are the same service under other limits. A new kind is a class here,
its keys in `model`, a backend, and a line in `backends.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class ComposeUnit:
    """Containers of a Compose project.

    `containers` names the services that must run; None for what `docker compose up` starts.
    `profiles` are the active ones; none: what the project's own files say. The unit listens on
    `host` and `port`, as the containers publish them.
    """

    folder: Path
    containers: tuple[str, ...] | None
    host: str
    port: int
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandUnit:
    """A program, run without a shell; `env` is set on top of the few variables that it gets of the
    proxy's environment, and may hold secrets."""

    command: tuple[str, ...]
    cwd: Path | None
    env: Mapping[str, str] = field(repr=False)
    host: str
    port: int


Unit: TypeAlias = ComposeUnit | CommandUnit

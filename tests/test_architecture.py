"""The shape of the house: what each folder may touch; docs/architecture.md tells why."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import house
from tests.house import House

ROOT = Path(__file__).parent.parent
PACKAGE = House(ROOT / "autostart_proxy")
TESTS = ROOT / "tests"
LONGEST_FILE = 450

FLOORS = [
    frozenset(floor)
    for floor in (
        {"__main__"},
        {"commands"},
        {"run"},
        {"config_file", "control"},
        {"fleet"},
        {"service"},
        {"readiness", "relay"},
        {"backends", "status"},
        {"config", "lifecycle", "logs"},
        {"journal", "wire"},
        {"errors", "log_writer", "pages", "unix_socket"},
    )
]

ONLY = {
    "backends": {"config", "errors"},
    "commands": {"config", "config_file", "control", "errors", "logs", "relay", "run"},
    "control": {"errors", "fleet", "unix_socket"},
    "relay": {"errors", "journal", "pages", "status", "unix_socket", "wire"},
}
"""Rooms that may not know all that lies below: the running proxy alone touches a backend."""

_VALUES = {"collections", "dataclasses", "enum", "functools", "types", "typing"}
PURE = {
    "errors": _VALUES,
    "lifecycle": _VALUES,
    "wire": _VALUES | {"html", "http", "ipaddress", "json", "re", "string"},
    "config": _VALUES
    | {"bisect", "difflib", "ipaddress", "json", "math", "pathlib", "re"}
    | {"pydantic", "pydantic_core", "yaml"},
    "autostart_proxy.backends.compose.project": _VALUES,
    "autostart_proxy.backends.docker.container": _VALUES | {"pathlib"},
}
"""What decides and touches nothing, and the packages of others that it may import."""


def pure_files() -> list[str]:
    """The files of the pure modules, from the top of the repository."""
    return [
        str(module.path.relative_to(ROOT))
        for module in PACKAGE.modules
        if module.name in PURE or module.room in PURE
    ]


CHECKS: dict[str, Callable[[House, Path], list[str]]] = {
    "imports run only downwards": lambda package, _: house.upward(package, FLOORS),
    "some rooms do not know each other": lambda package, _: house.strangers(package, ONLY),
    "no imports run in a circle": lambda package, _: house.circles(package),
    "pure modules touch nothing": lambda package, _: house.impure(package, PURE),
    "every module has a test": lambda package, tests: house.untested(package, tests),
    "every file can be read at one go": lambda package, _: house.long(package, LONGEST_FILE),
    "names say what a thing is": lambda package, _: house.misnamed(package),
    "no assert stands guard": lambda package, _: house.asserting(package),
}


@pytest.mark.parametrize("rule", CHECKS)
def test_the_rules_hold(rule: str) -> None:
    assert CHECKS[rule](PACKAGE, TESTS) == []


# Each of these once passed unnoticed, or would have.
BREACHES = [
    ("lifecycle/machine.py", "import subprocess", "imports subprocess"),
    *(
        ("lifecycle/machine.py", f"import {name}", f"imports {name}")
        for name in ("os", "select", "pathlib", "ssl", "datetime", "secrets", "threading", "time")
    ),
    ("lifecycle/machine.py", "from asyncio import sleep", "imports asyncio"),
    ("lifecycle/machine.py", "def f() -> None:\n    import random", "imports random"),
    ("lifecycle/machine.py", "x = open('/dev/null')", "calls open"),
    *(
        ("backends/compose/project.py", f"import {name}", f"imports {name}")
        for name in ("asyncio", "time", "socket")
    ),
    ("config/model.py", "from importlib.resources import files", "imports importlib"),
    ("wire/requests.py", "from autostart_proxy.service import Service", "imports autostart_proxy."),
    ("wire/requests.py", "from ..service import Service", "imports autostart_proxy.service"),
    ("wire/requests.py", "from .. import service", "imports autostart_proxy.service"),
    ("wire/requests.py", "import autostart_proxy.service", "imports autostart_proxy.service"),
    (
        "control/server.py",
        "from ..backends.compose.backend import ComposeBackend",
        "imports autostart_proxy.backends.compose.backend",
    ),
    (
        "commands/cli.py",
        "def f() -> None:\n    from autostart_proxy.backends.process import ProcessBackend",
        "imports autostart_proxy.backends.process",
    ),
    (
        "relay/exchange.py",
        "from autostart_proxy.backends.docker import api",
        "imports autostart_proxy.backends.docker.api",
    ),
    (
        "relay/upstream.py",
        "from autostart_proxy.backends.compose.backend import ComposeBackend",
        "imports autostart_proxy.backends.compose.backend",
    ),
    ("backends/process.py", "from autostart_proxy import logs", "imports autostart_proxy.logs"),
    ("relay/upstream.py", "from autostart_proxy.relay.exchange import Exchange", " -> "),
    ("relay/upstream.py", "from .exchange import Exchange", " -> "),
    ("wire/hosts.py", "import autostart_proxy.wire.framing", " -> "),
    ("relay/newcomer.py", "def f() -> int:\n    return 1", "relay/test_newcomer.py is missing"),
    ("newcomer.py", "", "newcomer: stands on no floor"),
    ("relay/upstream.py", "\n" * LONGEST_FILE, "lines"),
    ("relay/upstream.py", "class PoolManager: ...", "PoolManager"),
    ("relay/upstream.py", "assert True", "assert"),
]


@pytest.mark.parametrize(("file", "line", "told"), BREACHES)
def test_a_breach_is_found_and_told(file: str, line: str, told: str, tmp_path: Path) -> None:
    copy = tmp_path / "autostart_proxy"
    shutil.copytree(PACKAGE.folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / file).open("a") as module:
        module.write(f"\n{line}\n")
    package = House(copy)
    found = [problem for check in CHECKS.values() for problem in check(package, TESTS)]
    where = file.removesuffix(".py").replace("/", ".")
    assert any(where in problem and told in problem for problem in found), found


def test_docker_s_own_library_is_no_part_of_the_proxy() -> None:
    for module in PACKAGE.modules:
        assert "docker" not in PACKAGE.outside(module), module.name


def test_the_resident_proxy_loads_no_web_framework() -> None:
    for module in PACKAGE.modules:
        assert "aiohttp" not in PACKAGE.outside(module), module.name


def test_proxy_and_services_do_not_know_each_other() -> None:
    services = [House(each.parent) for each in (ROOT / "services").glob("*/*/__init__.py")]
    theirs = {each.folder.name for each in services}
    assert theirs >= {"speech_service", "faster_whisper_engine", "whisperx_engine"}
    for module in PACKAGE.modules:
        assert not theirs & PACKAGE.outside(module), module.name
    for service in services:
        for module in service.modules:
            assert "autostart_proxy" not in service.outside(module), module.name


# The documentation.

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_page_names_every_room_and_no_other() -> None:
    named = re.findall(r"^\| `([\w/]+?)/?` \|", PAGE, re.MULTILINE)
    assert sorted(named) == sorted(PACKAGE.rooms - {"__main__"})


def test_the_page_draws_the_rooms_floor_by_floor() -> None:
    drawn = [
        set(re.findall(r"\w+(?=\[)", line))
        for line in re.findall(r"^ *subgraph .*\n((?:.*\n)*?) *end$", PAGE, re.MULTILINE)
    ]
    assert drawn == [set(floor) for floor in FLOORS[1:]]

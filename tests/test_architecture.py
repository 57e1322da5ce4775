"""The shape of the house: what each folder may touch; docs/architecture.md tells why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house import (
    Breach,
    Check,
    House,
    Module,
    asserts_on_guard,
    circles,
    copied,
    hidden_imports,
    impurities,
    long_files,
    modules_without_test,
    names_that_say_nothing,
    strange_rooms,
    upward_imports,
)

ROOT = Path(__file__).parent.parent
NAME = "autostart_proxy"
HOUSE = House(ROOT, {NAME: NAME})
MOST_LINES = 450

FLOORS = [
    {f"{NAME}.{room}" for room in floor}
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
        {"errors", "log_writer", "operation", "pages", "unix_socket"},
    )
] + [{NAME}]

KNOWN = {
    "backends": {"config", "errors"},
    "commands": {"config", "config_file", "control", "errors", "logs", "relay", "run"},
    "control": {"errors", "fleet", "unix_socket"},
    "relay": {"errors", "journal", "pages", "status", "unix_socket", "wire"},
}
"""Rooms that may not know all that lies below: the running proxy alone touches a backend."""

_VALUES = {"collections", "dataclasses", "enum", "functools", "types", "typing"}
PURE = {
    f"{NAME}.{place}": allowed
    for place, allowed in {
        "errors": _VALUES,
        "lifecycle": _VALUES,
        "wire": _VALUES
        | {"html", "http", "ipaddress", "json", "math", "re", "string", "urllib.parse"},
        "config": _VALUES
        | {"bisect", "difflib", "ipaddress", "itertools", "json", "math", "pathlib", "re"}
        | {"pydantic", "pydantic_core", "yaml"},
        "backends.compose.ownership": _VALUES | {"re"},
        "backends.compose.project": _VALUES,
        "backends.compose.references": _VALUES | {"yaml"},
        "backends.compose.snapshot": _VALUES,
        "backends.docker.container": _VALUES | {"datetime", "ipaddress", "pathlib"},
    }.items()
}
"""What decides and touches nothing, and the packages of others that it may import."""


def pure_files() -> list[str]:
    """The files of the pure modules, from the root of the checkout."""
    return HOUSE.files(PURE)


def place_of_test(module: Module) -> Path:
    """Where a module's test belongs; that of a folder's `__init__` stands beside the folder."""
    *folders, stem = module.name.split(".")
    return Path("tests", *folders[1:], f"test_{stem}.py")


upward = upward_imports(FLOORS)
strange = strange_rooms(
    {f"{NAME}.{room}": {f"{NAME}.{other}" for other in others} for room, others in KNOWN.items()}
)
impure = impurities(PURE)
without_test = modules_without_test(place_of_test)
long = long_files(MOST_LINES)

CHECKS: list[Check] = [
    upward,
    strange,
    circles,
    impure,
    hidden_imports,
    without_test,
    long,
    names_that_say_nothing,
    asserts_on_guard,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_the_house_keeps_its_shape(check: Check) -> None:
    assert list(check(HOUSE)) == []


MACHINE, HOSTS = f"{NAME}/lifecycle/machine.py", f"{NAME}/wire/hosts.py"
REQUESTS, UPSTREAM = f"{NAME}/wire/requests.py", f"{NAME}/relay/upstream.py"
CONTROL = f"{NAME}/control/server.py"
PROJECT = f"{NAME}/backends/compose/project.py"

BREACHES = [
    *(
        Breach(impure, MACHINE, f"import {name}")
        for name in ("subprocess", "os", "select", "pathlib", "ssl", "datetime", "secrets")
    ),
    *(Breach(impure, MACHINE, f"import {name}") for name in ("threading", "time", "logging")),
    Breach(impure, MACHINE, "from asyncio import sleep"),
    Breach(impure, MACHINE, "def f():\n    import random"),
    Breach(impure, MACHINE, "x = open('/dev/null')"),
    *(Breach(impure, PROJECT, f"import {name}") for name in ("asyncio", "time", "socket")),
    Breach(impure, PROJECT, "from autostart_proxy.backends.docker import api"),
    Breach(impure, f"{NAME}/config/model.py", "from importlib.resources import files"),
    Breach(upward, REQUESTS, "from autostart_proxy.service import Service"),
    Breach(upward, REQUESTS, "from ..service import Service"),
    Breach(upward, REQUESTS, "from .. import service"),
    Breach(upward, REQUESTS, "import autostart_proxy.service"),
    Breach(upward, f"{NAME}/lifecycle/events.py", "from autostart_proxy.config import model"),
    Breach(strange, CONTROL, "from ..backends.compose.backend import ComposeBackend"),
    Breach(
        strange,
        f"{NAME}/commands/cli.py",
        "def f():\n    from autostart_proxy.backends.process import ProcessBackend",
    ),
    Breach(strange, f"{NAME}/relay/exchange.py", "from autostart_proxy.backends.docker import api"),
    Breach(strange, UPSTREAM, "from autostart_proxy.backends.compose import backend"),
    Breach(strange, f"{NAME}/backends/process.py", "from autostart_proxy import logs"),
    Breach(circles, UPSTREAM, "from autostart_proxy.relay.exchange import Exchange"),
    Breach(circles, UPSTREAM, "from .exchange import Exchange"),
    Breach(circles, HOSTS, "import autostart_proxy.wire.requests"),
    Breach(hidden_imports, UPSTREAM, "from importlib import import_module"),
    Breach(without_test, f"{NAME}/relay/newcomer.py", "def f():\n    return 1"),
    Breach(upward, f"{NAME}/newcomer.py", ""),
    Breach(long, UPSTREAM, "# more\n" * MOST_LINES),
    Breach(names_that_say_nothing, UPSTREAM, "class PoolManager: ..."),
    Breach(asserts_on_guard, UPSTREAM, "assert True"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> House:
    """The package and the tests, to seed breaches into."""
    made = copied(HOUSE, (NAME, "tests"), tmp_path_factory.mktemp("house"))
    assert [line for check in CHECKS for line in check(made)] == []
    return made


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_a_breach_is_noticed_and_its_file_named(breach: Breach, copy: House) -> None:
    found = breach.found_in(copy)
    assert found, "the check let it pass"
    assert all(breach.file in line for line in found), found


def test_every_check_has_been_seen_to_fail() -> None:
    assert {breach.check for breach in BREACHES} == set(CHECKS)


def test_the_resident_proxy_loads_neither_dockers_library_nor_a_web_framework() -> None:
    for module in HOUSE.modules.values():
        assert not {"docker", "aiohttp"} & HOUSE.libraries(module), module.file


def test_the_proxy_does_not_know_the_services() -> None:
    theirs = {each.parent.name for each in (ROOT / "services").glob("*/*/__init__.py")}
    assert theirs >= {"speech_service", "faster_whisper_engine", "whisperx_engine"}
    for module in HOUSE.modules.values():
        assert not theirs & HOUSE.libraries(module), module.file


# The documentation.

PAGE, _, SERVICES = (
    (ROOT / "docs" / "architecture.md").read_text().partition("## The speech services")
)


def named_in(page: str) -> list[str]:
    """The rooms in the table of a page."""
    return sorted(re.findall(r"^\| `([\w/]+?)/?` \|", page, re.MULTILINE))


def test_the_page_names_every_room_and_no_other() -> None:
    rooms = {name.split(".")[1] for name in HOUSE.modules if "." in name}
    assert named_in(PAGE) == sorted(rooms - {"__main__"})
    shared = ROOT / "services" / "common" / "speech_service"
    theirs = {each.stem for each in shared.iterdir() if list(each.glob("*.py"))} | {"app"}
    assert named_in(SERVICES) == sorted(theirs)


def test_the_page_draws_the_rooms_floor_by_floor() -> None:
    drawn = [
        set(re.findall(r"\w+(?=\[)", line))
        for line in re.findall(r"^ *subgraph .*\n((?:.*\n)*?) *end$", PAGE, re.MULTILINE)
    ]
    floors = [{room.partition(".")[2] for room in floor} for floor in FLOORS]
    assert drawn == floors[1:-1]

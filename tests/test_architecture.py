"""The shape of the house, kept by reading every import of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autostart_proxy"
MODULES = sorted(PACKAGE.rglob("*.py"))
SERVICES = sorted((ROOT / "services").rglob("*.py"))

PURE = {"config", "errors", "lifecycle", "wire"}

# Imports run only from a layer to those below it.
LAYERS = [
    {"__main__", "commands", "demo"},
    {"run"},
    {"control", "config_file"},
    {"fleet"},
    {"service"},
    {"backends", "readiness", "relay"},
    {*PURE, "logs"} - {"errors"},
    {"errors"},
]
NOT_PURE = {"asyncio", "aiohttp", "docker", "logging", "time", "random", "socket", "subprocess"}


def name_of(module: Path) -> str:
    """The part of the house a module belongs to: its own name, or its folder's."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; `from a import b` counts as `a.b`."""
    tree = ast.parse(module.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(module: Path) -> set[str]:
    """The parts of the house that a module imports."""
    return {
        dotted.split(".")[1]
        for dotted in imports(module)
        if dotted.startswith("autostart_proxy.") and not dotted.split(".")[1].startswith("__")
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_only_downwards(module: Path) -> None:
    name = name_of(module)
    if module == PACKAGE / "__init__.py":
        return
    depths = [at for at, layer in enumerate(LAYERS) if name in layer]
    assert len(depths) == 1, f"{name} needs one place in the layers"
    depth = depths[0]
    below = set().union(*LAYERS[depth + 1 :])
    allowed = below | ({"backends"} if name in ("backends", "readiness") else LAYERS[depth])
    assert own(module) <= allowed, f"{name} imports {own(module) - allowed}"


@pytest.mark.parametrize(
    "module", [each for each in MODULES if name_of(each) in PURE], ids=lambda p: str(p)
)
def test_pure_modules_touch_neither_clock_nor_wire(module: Path) -> None:
    touched = {dotted.split(".")[0] for dotted in imports(module)} & NOT_PURE
    assert not touched


def test_docker_is_imported_only_by_backends_and_only_when_needed() -> None:
    for module in MODULES:
        everywhere = {dotted.split(".")[0] for dotted in imports(module)}
        at_once = {dotted.split(".")[0] for dotted in imports(module, top_level_only=True)}
        assert "docker" not in at_once, module
        assert "docker" not in everywhere or name_of(module) == "backends", module


def test_backends_know_only_errors_and_configuration() -> None:
    for module in MODULES:
        if name_of(module) == "backends":
            assert own(module) <= {"errors", "config", "backends"}, module


def test_the_running_proxy_is_the_only_one_that_touches_a_backend() -> None:
    for module in MODULES:
        assert name_of(module) not in ("control", "commands") or "backends" not in own(module)


def test_proxy_and_services_do_not_know_each_other() -> None:
    for module in SERVICES:
        assert "autostart_proxy" not in {dotted.split(".")[0] for dotted in imports(module)}
    theirs = {p.parent.name for p in (ROOT / "services").glob("*/*/__init__.py")}
    assert theirs, "the services' packages have moved"
    for module in MODULES:
        assert not theirs & {dotted.split(".")[0] for dotted in imports(module)}


def test_nothing_is_named_after_not_knowing_what_it_is() -> None:
    for module in [*MODULES, *SERVICES]:
        assert not re.search(r"util|helper|manager|common$|misc", module.stem), module
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ClassDef):
                assert not re.search(r"(Manager|Helper)$", node.name), f"{module}: {node.name}"


def test_no_asserts_stand_guard_in_the_product() -> None:
    """`python -O` removes them, so what must hold is checked by other means."""
    for module in [*MODULES, *SERVICES]:
        nodes = ast.walk(ast.parse(module.read_text()))
        found = [node.lineno for node in nodes if isinstance(node, ast.Assert)]
        assert not found, f"{module}: lines {found}"

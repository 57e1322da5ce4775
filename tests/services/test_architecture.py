"""The shape of the speech services, kept by reading every import of every module.

A check is a function of a `House` that returns its breaches, one line each, beginning with the file
at fault. Every check is tested by a breach of it, seeded into a copy of the house.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGES = {
    "speech_service": "services/common/speech_service",
    "faster_whisper_engine": "services/faster-whisper/faster_whisper_engine",
    "whisperx_engine": "services/whisperx/whisperx_engine",
}
TESTS = "tests/services"
"""A module's test is where the module is: `http/forms.py` of the package `speech_service` has its
own in `tests/services/speech_service/http/test_forms.py`."""

FLOORS = [
    "whisperx_engine",
    "faster_whisper_engine",
    "speech_service.app",
    "speech_service.routes",
    "speech_service.http",
    "speech_service.work",
    "speech_service.media",
    "speech_service.contract",
    "speech_service.process",
    "speech_service",
]
"""From the roof to the ground: imports run only downwards, or within a room. The second engine is
built on the first; what they share knows neither."""

PURE = {
    "speech_service.contract.engine",
    "speech_service.contract.errors",
    "speech_service.contract.languages",
    "speech_service.contract.response_format",
    "speech_service.contract.transcript",
    "speech_service.http.cues",
    "speech_service.http.formats",
    "speech_service.http.forms",
    "speech_service.http.openapi",
    "speech_service.media.utterances",
    "speech_service.media.windows",
}
"""Decisions without I/O; every line and branch of them is tested."""
PURE_MAY_IMPORT = {
    *("__future__", "collections", "contextlib", "dataclasses", "enum", "html", "itertools"),
    *("json", "math", "numpy", "pydantic", "typing"),
}
PURE_MAY_NOT_CALL = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}

HEAVY = {
    *("av", "ctranslate2", "faster_whisper", "huggingface_hub", "lightning", "nltk", "numpy"),
    *("pyannote", "tokenizers", "torch", "torchaudio", "tqdm", "transformers", "whisperx"),
}
"""Imported only when they are needed: a service answers before they are there."""
WEB = {"fastapi", "multipart", "python_multipart", "starlette", "uvicorn", "websockets"}
WITHOUT_WEB = ("work", "media", "contract", "process")

MOST_LINES = 450
VAGUE = re.compile(r"util|helper|manager|misc|^common$", re.IGNORECASE)


@dataclass(frozen=True)
class Import:
    """One imported name; `lazy` is one that costs nothing when the module is imported."""

    name: str
    lazy: bool


@dataclass(frozen=True)
class Module:
    """A file of a package; `name` is what it is imported by."""

    name: str
    path: Path
    root: Path

    @property
    def file(self) -> str:
        """Its path in the house."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text("utf-8"))

    def imports(self) -> Iterator[Import]:
        """All names that are imported, absolute; `from a import b` counts as `a.b`."""
        yield from self._imports(self.tree, lazy=False)

    def _imports(self, node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                yield from (Import(alias.name, lazy) for alias in node.names)
            case ast.ImportFrom():
                base = self._base(node)
                yield from (Import(f"{base}.{alias.name}", lazy) for alias in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from self._imports(child, lazy or is_function or for_types)

    def _base(self, node: ast.ImportFrom) -> str:
        """What the names of a `from` import belong to; each dot but the first is a step up."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*kept, *([node.module] if node.module else [])])


class House:
    """The packages below a folder, and the tests beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {
            module.name: module
            for package, folder in PACKAGES.items()
            for module in self._package(package, root / folder)
        }

    def _package(self, package: str, folder: Path) -> Iterator[Module]:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield Module(".".join([package, *parts]).removesuffix(".__init__"), path, self.root)

    def owned(self, name: str) -> str | None:
        """The module of the house that an imported name is, or is in."""
        while name:
            if name in self.modules:
                return name
            name = name.rpartition(".")[0]
        return None

    def neighbours(self, module: Module) -> set[str]:
        """The modules of the house that a module imports."""
        owned = {self.owned(found.name) for found in module.imports()}
        return {name for name in owned if name} - {module.name}


def floor_of(name: str) -> int | None:
    """The number of the floor that a module is on; None if it has no room."""
    if name == "speech_service":
        return FLOORS.index(name)
    rooms = [floor for floor in FLOORS[:-1] if f"{name}.".startswith(f"{floor}.")]
    return FLOORS.index(rooms[0]) if rooms else None


def upward_imports(house: House) -> Iterator[str]:
    for module in house.modules.values():
        floor = floor_of(module.name)
        if floor is None:
            yield f"{module.file}: is in no room of the house"
            continue
        for name in sorted(house.neighbours(module)):
            there = floor_of(name)
            if there is not None and there < floor:
                yield f"{module.file}: imports {name}, which stands above it"


def families_that_know_each_other(house: House) -> Iterator[str]:
    routes = "speech_service.routes."
    for module in house.modules.values():
        if module.name.startswith(routes):
            for name in sorted(house.neighbours(module)):
                if name.startswith(routes):
                    yield f"{module.file}: imports {name}, another family of clients"


def circles(house: House) -> Iterator[str]:
    graph = {module.name: house.neighbours(module) for module in house.modules.values()}
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[str]:
        if name in way:
            circle = [*way[way.index(name) :], name]
            files = " -> ".join(house.modules[part].file for part in circle)
            yield f"{files}: a circle of imports"
        elif name not in done:
            for neighbour in sorted(graph[name]):
                yield from walk(neighbour, [*way, name])
            done.add(name)

    for name in graph:
        yield from walk(name, [])


def rooms_that_do_something(house: House) -> Iterator[str]:
    for module in house.modules.values():
        if not module.is_package:
            continue
        if not ast.get_docstring(module.tree):
            yield f"{module.file}: does not say what the room holds"
        for node in module.tree.body[1:]:
            if not isinstance(node, ast.Assign):
                yield f"{module.file}: a room holds modules, no code (line {node.lineno})"


def impurities(house: House) -> Iterator[str]:
    for name in sorted(PURE):
        module = house.modules.get(name)
        if module is None:
            yield f"{name}: is said to be pure and does not exist"
            continue
        for found in module.imports():
            own = house.owned(found.name)
            if own is None and found.name.partition(".")[0] not in PURE_MAY_IMPORT:
                yield f"{module.file}: is pure and imports {found.name}"
            elif own is not None and own not in PURE:
                yield f"{module.file}: is pure and imports {own}, which is not"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name) and node.id in PURE_MAY_NOT_CALL:
                yield f"{module.file}: is pure and uses {node.id} (line {node.lineno})"


def heavy_imports_at_once(house: House) -> Iterator[str]:
    for module in house.modules.values():
        for found in module.imports():
            if not found.lazy and found.name.partition(".")[0] in HEAVY:
                yield f"{module.file}: imports {found.name} before it is needed"


def strangers(house: House) -> Iterator[str]:
    """Libraries in rooms that do not know them."""
    for module in house.modules.values():
        package, _, rest = module.name.partition(".")
        room = rest.partition(".")[0]
        for found in module.imports():
            library = found.name.partition(".")[0]
            if library == "autostart_proxy":
                yield f"{module.file}: knows the proxy"
            if found.name.startswith("importlib.import"):
                yield f"{module.file}: imports what nobody can read beforehand"
            if package != "speech_service" or house.owned(found.name):
                continue
            if room in WITHOUT_WEB and library in WEB:
                yield f"{module.file}: knows the web framework ({found.name})"
            if room == "process" and library not in sys.stdlib_module_names:
                yield f"{module.file}: needs more than the standard library ({found.name})"


def modules_and_tests_apart(house: House) -> Iterator[str]:
    expected = set()
    for module in house.modules.values():
        if module.path.stem in ("__init__", "__main__"):
            continue
        package, *folders, stem = module.name.split(".")
        test = Path(TESTS, package, *folders, f"test_{stem}.py")
        expected.add(test)
        if not (house.root / test).is_file():
            yield f"{module.file}: has no test; it belongs into {test}"
    for package in PACKAGES:
        for path in sorted((house.root / TESTS / package).rglob("test_*.py")):
            if path.relative_to(house.root) not in expected:
                yield f"{path.relative_to(house.root)}: is the test of no module"


def long_files(house: House) -> Iterator[str]:
    for module in house.modules.values():
        lines = len(module.path.read_text("utf-8").splitlines())
        if lines > MOST_LINES:
            yield f"{module.file}: has {lines} lines, {MOST_LINES} at most"


def names_that_say_nothing(house: House) -> Iterator[str]:
    for module in house.modules.values():
        classes = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        for name in (module.path.stem, *classes):
            if VAGUE.search(name):
                yield f"{module.file}: {name} does not say what it is"


def asserts_on_guard(house: House) -> Iterator[str]:
    """`python -O` removes them, so what must hold is checked by other means."""
    for module in house.modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assert):
                yield f"{module.file}: asserts something (line {node.lineno})"


Check = Callable[[House], Iterator[str]]

CHECKS: list[Check] = [
    upward_imports,
    families_that_know_each_other,
    circles,
    rooms_that_do_something,
    impurities,
    heavy_imports_at_once,
    strangers,
    modules_and_tests_apart,
    long_files,
    names_that_say_nothing,
    asserts_on_guard,
]


def pure_files() -> list[str]:
    """The files of the pure modules, from the root of the checkout."""
    return sorted(module.file for name, module in House(ROOT).modules.items() if name in PURE)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_the_house_keeps_its_shape(check: Check) -> None:
    assert list(check(House(ROOT))) == []


@dataclass(frozen=True)
class Breach:
    """Code added to the end of a file, which may be new, that one check must not let pass."""

    check: Check
    file: str
    code: str

    def __str__(self) -> str:
        return f"{self.check.__name__}: {self.file}: {self.code[:40]!r}"


COMMON = PACKAGES["speech_service"]
PLAIN, ALIGNED = PACKAGES["faster_whisper_engine"], PACKAGES["whisperx_engine"]
PURE_BREACHES = [
    *("import os", "import select", "import time", "import asyncio", "import socket"),
    *("import datetime", "import secrets", "import random", "import threading", "import logging"),
    *("import pathlib", "from subprocess import run", "import starlette.responses"),
    "def late():\n    import tempfile",
    "def read(path):\n    return open(path)",
    "print('loaded')",
]
BREACHES = [
    Breach(upward_imports, f"{COMMON}/work/service.py", "import faster_whisper_engine.settings"),
    Breach(upward_imports, f"{COMMON}/work/job.py", "def f():\n    import whisperx_engine.app"),
    Breach(upward_imports, f"{COMMON}/contract/errors.py", "from ..work.job import Job"),
    Breach(upward_imports, f"{COMMON}/contract/engine.py", "from .. import app"),
    Breach(
        upward_imports,
        f"{COMMON}/contract/transcript.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..media import audio",
    ),
    Breach(upward_imports, f"{COMMON}/media/audio.py", "from ..routes import openai"),
    Breach(upward_imports, f"{COMMON}/media/__init__.py", "from ..routes import openai"),
    Breach(upward_imports, f"{COMMON}/http/sse.py", "import speech_service.routes.openai"),
    Breach(upward_imports, f"{COMMON}/routes/page.py", "from speech_service.app import create_app"),
    Breach(upward_imports, f"{COMMON}/process/logs.py", "from ..contract import errors"),
    Breach(upward_imports, f"{PLAIN}/engine.py", "from whisperx_engine.settings import *"),
    Breach(upward_imports, f"{COMMON}/queue/worker.py", '"""A room that nobody planned."""'),
    Breach(families_that_know_each_other, f"{COMMON}/routes/plain.py", "from . import openai"),
    Breach(circles, f"{COMMON}/http/cues.py", "from . import formats"),
    Breach(circles, f"{COMMON}/work/turns.py", "def f():\n    from .service import SpeechService"),
    Breach(circles, f"{ALIGNED}/watching.py", "from whisperx_engine.pipeline import Stretch"),
    Breach(rooms_that_do_something, f"{COMMON}/http/__init__.py", "from . import formats"),
    Breach(rooms_that_do_something, f"{COMMON}/new/__init__.py", ""),
    *(Breach(impurities, f"{COMMON}/http/formats.py", code) for code in PURE_BREACHES),
    Breach(impurities, f"{COMMON}/http/forms.py", "from ..contract.settings import Settings"),
    Breach(impurities, f"{COMMON}/media/windows.py", "from . import audio"),
    Breach(heavy_imports_at_once, f"{COMMON}/work/hub.py", "import huggingface_hub.errors"),
    Breach(heavy_imports_at_once, f"{ALIGNED}/pipeline.py", "import torch"),
    Breach(heavy_imports_at_once, f"{PLAIN}/voice.py", "try:\n    import av\nfinally:\n    pass"),
    Breach(strangers, f"{COMMON}/work/job.py", "from starlette.responses import Response"),
    Breach(strangers, f"{COMMON}/process/healthcheck.py", "import httpx"),
    Breach(strangers, f"{COMMON}/app.py", "from autostart_proxy.errors import ProxyError"),
    Breach(strangers, f"{ALIGNED}/app.py", "def f():\n    import autostart_proxy"),
    Breach(strangers, f"{COMMON}/contract/engine.py", "from importlib import import_module"),
    Breach(modules_and_tests_apart, f"{COMMON}/media/opus.py", '"""Not tested."""'),
    Breach(modules_and_tests_apart, f"{TESTS}/speech_service/media/test_opus.py", '"""No use."""'),
    Breach(names_that_say_nothing, f"{COMMON}/media/audio_utils.py", '"""Anything."""'),
    Breach(names_that_say_nothing, f"{COMMON}/work/models.py", "class ModelManager: pass"),
    Breach(asserts_on_guard, f"{COMMON}/work/turns.py", "def f(x):\n    assert x"),
    Breach(long_files, f"{COMMON}/media/windows.py", "# more\n" * MOST_LINES),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and of their tests."""
    root = tmp_path_factory.mktemp("house")
    for folder in (*PACKAGES.values(), *(f"{TESTS}/{package}" for package in PACKAGES)):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert [line for check in CHECKS for line in check(House(root))] == []
    return root


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_a_breach_is_noticed_and_its_file_named(breach: Breach, copied: Path) -> None:
    path = copied / breach.file
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_text(f"{(before or b'').decode()}\n{breach.code}\n")
        found = list(breach.check(House(copied)))
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)
    assert found, "the check let it pass"
    assert all(breach.file in line for line in found), found


def test_every_check_has_been_seen_to_fail() -> None:
    assert {breach.check for breach in BREACHES} == set(CHECKS)


def test_the_pure_modules_are_the_files_whose_coverage_is_complete() -> None:
    assert len(pure_files()) == len(PURE)
    assert all((ROOT / file).is_file() for file in pure_files())

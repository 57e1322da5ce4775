"""The shape of the speech services, kept by reading every import of every module.

Every check is tested by a breach of it, seeded into a copy of the house.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
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
    upward_imports,
)

ROOT = Path(__file__).parents[2]

PACKAGES = {
    "speech_service": "services/common/speech_service",
    "faster_whisper_engine": "services/faster-whisper/faster_whisper_engine",
    "whisperx_engine": "services/whisperx/whisperx_engine",
}
TESTS = "tests/services"
"""A module's test is where the module is: `http/forms.py` of the package `speech_service` has its
own in `tests/services/speech_service/http/test_forms.py`."""

HOUSE = House(ROOT, PACKAGES)

FLOORS = [
    {"whisperx_engine"},
    {"faster_whisper_engine"},
    {"speech_service.app"},
    {"speech_service.routes"},
    {"speech_service.http"},
    {"speech_service.work"},
    {"speech_service.media"},
    {"speech_service.contract"},
    {"speech_service.process"},
    {"speech_service"},
]
"""From the roof to the ground: imports run only downwards, or within a room. The second engine is
built on the first; what they share knows neither."""

_VALUES = {
    *("binascii", "bisect", "collections", "contextlib", "dataclasses", "enum", "html"),
    *("itertools", "json", "langcodes", "math", "numpy", "pydantic", "re", "typing"),
}
PURE = dict.fromkeys(
    (
        "speech_service.contract.engine",
        "speech_service.contract.errors",
        "speech_service.contract.languages",
        "speech_service.contract.response_format",
        "speech_service.contract.transcript",
        "speech_service.http.cues",
        "speech_service.http.formats",
        "speech_service.http.forms",
        "speech_service.http.openapi",
        "speech_service.http.spellings",
        "speech_service.media.containers",
        "speech_service.media.timeline",
        "speech_service.media.utterances",
        "speech_service.media.windows",
        "whisperx_engine.speakers",
    ),
    _VALUES,
) | {"faster_whisper_engine.prompts": _VALUES | {"faster_whisper", "tokenizers"}}
"""Decisions without I/O, and what they may import; every line and branch of them is tested."""

HEAVY = {
    *("av", "ctranslate2", "faster_whisper", "huggingface_hub", "langcodes", "lightning", "nltk"),
    *("numpy",),
    *("pyannote", "tokenizers", "torch", "torchaudio", "tqdm", "transformers", "whisperx"),
}
"""Imported only when they are needed: a service answers before they are there."""
WEB = {"fastapi", "multipart", "python_multipart", "starlette", "uvicorn", "websockets"}
WITHOUT_WEB = ("work", "media", "contract", "process")

MOST_LINES = 450


def families_that_know_each_other(house: House) -> Iterator[str]:
    routes = "speech_service.routes."
    for module in house.modules.values():
        if module.name.startswith(routes):
            for name in sorted(house.neighbours(module)):
                if name.startswith(routes):
                    yield f"{module.file}: imports {name}, another family of clients"


def rooms_that_do_something(house: House) -> Iterator[str]:
    for module in house.modules.values():
        if not module.is_package:
            continue
        if not ast.get_docstring(module.tree):
            yield f"{module.file}: does not say what the room holds"
        for node in module.tree.body[1:]:
            if not isinstance(node, ast.Assign):
                yield f"{module.file}: a room holds modules, no code (line {node.lineno})"


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
            if package != "speech_service" or house.owned(found.name):
                continue
            if room in WITHOUT_WEB and library in WEB:
                yield f"{module.file}: knows the web framework ({found.name})"
            if room == "process" and library not in sys.stdlib_module_names:
                yield f"{module.file}: needs more than the standard library ({found.name})"


def orphaned_tests(house: House) -> Iterator[str]:
    expected = {place_of_test(module) for module in house.modules.values()}
    for package in PACKAGES:
        for path in sorted((house.root / TESTS / package).rglob("test_*.py")):
            if path.relative_to(house.root) not in expected:
                yield f"{path.relative_to(house.root)}: is the test of no module"


def place_of_test(module: Module) -> Path:
    """Where a module's test belongs."""
    *folders, stem = module.name.split(".")
    return Path(TESTS, *folders, f"test_{stem}.py")


upward = upward_imports(FLOORS)
impure = impurities(PURE)
without_test = modules_without_test(place_of_test)
long = long_files(MOST_LINES)

CHECKS: list[Check] = [
    upward,
    families_that_know_each_other,
    circles,
    rooms_that_do_something,
    impure,
    heavy_imports_at_once,
    hidden_imports,
    strangers,
    without_test,
    orphaned_tests,
    long,
    names_that_say_nothing,
    asserts_on_guard,
]


def pure_files() -> list[str]:
    """The files of the pure modules, from the root of the checkout."""
    return HOUSE.files(PURE)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_the_house_keeps_its_shape(check: Check) -> None:
    assert list(check(HOUSE)) == []


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
    Breach(upward, f"{COMMON}/work/service.py", "import faster_whisper_engine.settings"),
    Breach(upward, f"{COMMON}/work/job.py", "def f():\n    import whisperx_engine.app"),
    Breach(upward, f"{COMMON}/contract/errors.py", "from ..work.job import Job"),
    Breach(upward, f"{COMMON}/contract/engine.py", "from .. import app"),
    Breach(
        upward,
        f"{COMMON}/contract/transcript.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..media import audio",
    ),
    Breach(upward, f"{COMMON}/media/audio.py", "from ..routes import openai"),
    Breach(upward, f"{COMMON}/media/__init__.py", "from ..routes import openai"),
    Breach(upward, f"{COMMON}/http/sse.py", "import speech_service.routes.openai"),
    Breach(upward, f"{COMMON}/routes/page.py", "from speech_service.app import create_app"),
    Breach(upward, f"{COMMON}/process/logs.py", "from ..contract import errors"),
    Breach(upward, f"{PLAIN}/engine.py", "from whisperx_engine.settings import *"),
    Breach(upward, f"{COMMON}/queue/worker.py", '"""A room that nobody planned."""'),
    Breach(families_that_know_each_other, f"{COMMON}/routes/plain.py", "from . import openai"),
    Breach(circles, f"{COMMON}/http/cues.py", "from . import formats"),
    Breach(circles, f"{COMMON}/work/turns.py", "def f():\n    from .service import SpeechService"),
    Breach(circles, f"{ALIGNED}/watching.py", "from whisperx_engine.pipeline import Stretch"),
    Breach(rooms_that_do_something, f"{COMMON}/http/__init__.py", "from . import formats"),
    Breach(rooms_that_do_something, f"{COMMON}/new/__init__.py", ""),
    *(Breach(impure, f"{COMMON}/http/formats.py", code) for code in PURE_BREACHES),
    Breach(impure, f"{COMMON}/http/forms.py", "from ..contract.settings import Settings"),
    Breach(impure, f"{COMMON}/media/windows.py", "from . import audio"),
    Breach(heavy_imports_at_once, f"{COMMON}/work/hub.py", "import huggingface_hub.errors"),
    Breach(heavy_imports_at_once, f"{ALIGNED}/pipeline.py", "import torch"),
    Breach(heavy_imports_at_once, f"{PLAIN}/voice.py", "try:\n    import av\nfinally:\n    pass"),
    Breach(strangers, f"{COMMON}/work/job.py", "from starlette.responses import Response"),
    Breach(strangers, f"{COMMON}/process/healthcheck.py", "import httpx"),
    Breach(strangers, f"{COMMON}/app.py", "from autostart_proxy.errors import ProxyError"),
    Breach(strangers, f"{ALIGNED}/app.py", "def f():\n    import autostart_proxy"),
    Breach(hidden_imports, f"{COMMON}/contract/engine.py", "from importlib import import_module"),
    Breach(without_test, f"{COMMON}/media/opus.py", "def f():\n    return 1"),
    Breach(orphaned_tests, f"{TESTS}/speech_service/media/test_opus.py", '"""No use."""'),
    Breach(names_that_say_nothing, f"{COMMON}/media/audio_utils.py", '"""Anything."""'),
    Breach(names_that_say_nothing, f"{COMMON}/work/models.py", "class ModelManager: pass"),
    Breach(asserts_on_guard, f"{COMMON}/work/turns.py", "def f(x):\n    assert x"),
    Breach(long, f"{COMMON}/media/windows.py", "# more\n" * MOST_LINES),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> House:
    """The packages and their tests, to seed breaches into."""
    folders = (*PACKAGES.values(), *(f"{TESTS}/{package}" for package in PACKAGES))
    made = copied(HOUSE, folders, tmp_path_factory.mktemp("house"))
    assert [line for check in CHECKS for line in check(made)] == []
    return made


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_a_breach_is_noticed_and_its_file_named(breach: Breach, copy: House) -> None:
    found = breach.found_in(copy)
    assert found, "the check let it pass"
    assert all(breach.file in line for line in found), found


def test_every_check_has_been_seen_to_fail() -> None:
    assert {breach.check for breach in BREACHES} == set(CHECKS)


def test_the_pure_modules_are_the_files_whose_coverage_is_complete() -> None:
    assert len(pure_files()) == len(PURE)

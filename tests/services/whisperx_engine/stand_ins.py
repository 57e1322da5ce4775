"""Stand-ins for the libraries that fill gigabytes; the image is tested with the real ones."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> ModuleType:
    """Let a module be imported that is not installed here, with what it is to hold."""
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    parent, _, own = name.rpartition(".")
    if parent:
        if parent not in sys.modules:
            stand_in(monkeypatch, parent)
        monkeypatch.setattr(sys.modules[parent], own, module, raising=False)
    return module

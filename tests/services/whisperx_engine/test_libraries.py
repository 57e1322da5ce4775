"""The large libraries: imported once, whoever asks, and quiet afterwards."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from whisperx_engine import libraries, trust

from .stand_ins import stand_in


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Libraries that can be imported, none of them so far."""
    told = SimpleNamespace(threads=[], limited=[])
    stand_in(monkeypatch, "torch", set_num_threads=told.threads.append)
    for name in ("alignment", "asr", "diarize"):
        stand_in(monkeypatch, f"whisperx.{name}")
    monkeypatch.setattr(trust, "limit_pickles", lambda: told.limited.append(True))
    monkeypatch.setattr(libraries, "_done", False)
    with warnings.catch_warnings():
        yield told


def test_they_are_imported_once_however_many_ask_at_once(torch: SimpleNamespace) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(libraries.imported, [3] * 8))
    assert torch.threads == [3]
    assert torch.limited == [True]


def test_what_fails_to_be_imported_is_tried_again(
    torch: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "whisperx.diarize")
        patched.delattr(sys.modules["whisperx"], "diarize")
        with pytest.raises(ImportError):
            libraries.imported(3)
    assert torch.threads == []
    libraries.imported(3)
    assert torch.threads == [3]


def test_their_loggers_keep_no_handlers_of_their_own(torch: SimpleNamespace) -> None:
    loud = logging.getLogger("whisperx")
    loud.addHandler(logging.StreamHandler())
    loud.propagate = False
    loud.setLevel(logging.INFO)
    libraries.imported(1)
    assert (loud.handlers, loud.propagate, loud.level) == ([], True, logging.WARNING)

"""What operators read: one line per event, which programs can read back."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_service.contract.transcript import Stage
from speech_service.process.logs import KeyValueFormatter, configure

log = logging.getLogger("speech_service.test")


def line(message: str, **data: object) -> str:
    record = log.makeRecord(log.name, logging.INFO, "", 0, message, (), None, extra=data)
    return KeyValueFormatter().format(record).partition(" INFO ")[2]


def read_back(pairs: str) -> dict[str, str]:
    """The data of a line, by a reader that knows nothing but the rule."""
    found = re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|[^ ]+)', pairs)
    return {key: json.loads(value) if value[0] == '"' else value for key, value in found}


@pytest.fixture
def root() -> Iterator[None]:
    """Leaves the log as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    for name in ("speech_service", "faster_whisper_engine", "whisperx_engine"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_data_stands_behind_the_message() -> None:
    assert line("stage", stage=Stage.ALIGN, seconds=1.5) == (
        "speech_service.test: stage stage=align seconds=1.5"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Systran/faster-whisper-small", "Systran/faster-whisper-small"),
        ("alignment:en", "alignment:en"),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb", '"a\\nb"'),
        ("ü", '"\\u00fc"'),
        ("", '""'),
        (None, "None"),
    ],
)
def test_a_value_is_quoted_where_it_has_to_be(value: object, written: str) -> None:
    assert line("model loaded", model=value).endswith(f" model={written}")


@given(st.text(), st.text())
def test_whatever_is_logged_can_be_read_back(one: str, two: str) -> None:
    pairs = line("x", one=one, two=two).removeprefix("speech_service.test: x")
    assert "\n" not in pairs
    assert read_back(pairs) == {"one": one, "two": two}


LEVELS = ("debug", "info", "warning", "error", "critical")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("level", LEVELS)
def test_libraries_are_heard_from_warnings_on(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level)
    written: dict[str, list[str]] = {}
    for name in ("speech_service.test", "whisperx_engine.hub", "httpx", "uvicorn.error", "new"):
        for said in LEVELS:
            getattr(logging.getLogger(name), said)(said)
        lines = capsys.readouterr().err.splitlines()
        written[name] = [each.rpartition(": ")[2] for each in lines]
    wanted = list(LEVELS[LEVELS.index(level) :])
    quiet = [each for each in wanted if each not in ("debug", "info")]
    own = ("speech_service.test", "whisperx_engine.hub")
    assert written == {name: wanted if name in own else quiet for name in written}

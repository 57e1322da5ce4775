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


@pytest.mark.usefixtures("root")
def test_what_libraries_say_of_a_request_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    log.info("model loaded", extra={"model": "base"})
    for name in ("httpx", "httpx2", "faster_whisper"):
        logging.getLogger(name).info("HTTP Request: GET https://huggingface.co/secret")
        logging.getLogger(name).warning("something is wrong")
    written = capsys.readouterr().err
    assert "model loaded model=base" in written
    assert "secret" not in written
    assert written.count("something is wrong") == 3

"""What the log lines look like, in the journal and as JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import pytest

from autostart_proxy import logs
from autostart_proxy.journal import RequestEnded

_log = logging.getLogger("autostart_proxy.test")


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    logs._handler = None
    root.handlers[:] = before
    root.setLevel(level)


def configured(format: Literal["text", "json"] = "text", level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(format=format, level=level, stream=stream)
    return stream


def one_request() -> None:
    logs.tell(
        RequestEnded(
            service="a.example",
            method="GET",
            status=200,
            bytes_in=0,
            bytes_out=12,
            held_seconds=0.00004,
            total_seconds=0.00126,
            request_id="abc",
            client="127.0.0.1",
        )
    )


def test_a_request_is_one_line_of_keys_and_values() -> None:
    stream = configured()
    one_request()
    [line] = stream.getvalue().splitlines()
    assert line.split(" ", 1)[1] == (
        "INFO request service=a.example method=GET status=200 in=0 out=12 held_ms=0.0 "
        "total_ms=1.3 id=abc client=127.0.0.1"
    )


def test_json_lines_are_objects_with_the_same_data() -> None:
    stream = configured("json")
    one_request()
    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["status"], line["service"]) == (
        "request",
        "info",
        200,
        "a.example",
    )


def test_values_that_could_be_mistaken_are_quoted() -> None:
    stream = configured()
    _log.info("state", extra={"reason": 'a "b"\nc', "empty": ""})
    assert 'reason="a \\"b\\"\\nc" empty=""' in stream.getvalue()


def test_a_list_is_written_as_one() -> None:
    stream = configured()
    _log.info("last lines", extra={"lines": ['no "model"', "it's over"]})
    assert stream.getvalue().endswith('last lines lines=["no \\"model\\"", "it\'s over"]\n')


def test_requests_are_not_logged_above_info() -> None:
    stream = configured(level="WARNING")
    one_request()
    assert stream.getvalue() == ""


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A stream that the journal reads."""
    with (tmp_path / "journal").open("w+") as stream:
        file = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{file.st_dev}:{file.st_ino}")
        yield stream


def written_to(journal: TextIO) -> list[str]:
    journal.seek(0)
    return journal.read().splitlines()


def test_in_the_journal_lines_carry_a_priority_and_no_time(journal: TextIO) -> None:
    logs.configure(level="DEBUG", stream=journal)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        _log.log(level, "x")
    assert written_to(journal) == [
        "<7>DEBUG x",
        "<6>INFO x",
        "<4>WARNING x",
        "<3>ERROR x",
        "<2>CRITICAL x",
    ]


def test_json_in_the_journal_carries_a_priority_too(journal: TextIO) -> None:
    logs.configure(format="json", stream=journal)
    _log.warning("x")
    [line] = written_to(journal)
    assert line.startswith("<4>")
    assert json.loads(line.removeprefix("<4>"))["message"] == "x"


def test_where_a_service_of_systemd_writes_elsewhere_lines_carry_their_time(
    journal: TextIO,
) -> None:
    stream = configured()
    _log.warning("x")
    assert stream.getvalue().startswith("20")
    assert written_to(journal) == []


def test_every_line_of_a_traceback_carries_the_priority(journal: TextIO) -> None:
    logs.configure(stream=journal)
    try:
        raise ValueError("broken")
    except ValueError:
        _log.exception("x")
    lines = written_to(journal)
    assert len(lines) > 2 and all(line.startswith("<3>") for line in lines)


def test_a_traceback_stays_inside_its_json_object() -> None:
    stream = configured("json")
    try:
        raise ValueError("broken")
    except ValueError:
        _log.exception("x")
    assert "ValueError: broken" in json.loads(stream.getvalue())["exception"]


async def test_inside_the_loop_lines_are_written_together_but_warnings_at_once() -> None:
    stream = configured()
    _log.info("first")
    assert stream.getvalue() == ""
    _log.warning("second")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["first", "second"]
    _log.info("third")
    await asyncio.sleep(0.2)
    assert stream.getvalue().endswith("third\n")


def test_configuring_again_replaces_the_first() -> None:
    first = configured()
    second = configured()
    _log.info("x")
    assert first.getvalue() == "" and "x" in second.getvalue()


def test_a_line_that_cannot_be_formatted_breaks_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = configured()
    root = logging.getLogger()
    root.handlers[:] = root.handlers[-1:]  # pytest's own would raise
    _log.info("%d", "not a number")
    _log.info("next")
    assert "next" in stream.getvalue()
    assert "Logging error" in capsys.readouterr().err

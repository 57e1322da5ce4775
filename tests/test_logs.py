"""What the log lines look like, in the journal and as JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import pytest

from autostart_proxy import logs
from autostart_proxy.journal import Fact, Journal, RequestEnded

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


def request_ended(**other: Any) -> RequestEnded:
    fact = RequestEnded(
        service="a.example",
        method="GET",
        path="/v1/models",
        status=200,
        bytes_in=0,
        bytes_out=12,
        held_seconds=0.00004,
        total_seconds=0.00126,
        request_id="abc",
        client="127.0.0.1",
        user_agent="curl/8.1 (x)",
    )
    return fact._replace(**other)


def refused(**other: Any) -> RequestEnded:
    return request_ended(service="-", status=404, error="unknown_host", host="b.example", **other)


def one_request() -> None:
    logs.tell(request_ended())


def test_a_request_is_one_line_of_keys_and_values() -> None:
    stream = configured()
    one_request()
    [line] = stream.getvalue().splitlines()
    assert line.split(" ", 1)[1] == (
        "INFO request service=a.example method=GET path=/v1/models status=200 in=0 out=12 "
        'held_ms=0.0 total_ms=1.3 id=abc client=127.0.0.1 user_agent="curl/8.1 (x)"'
    )


def test_a_refused_request_says_which_host_was_asked_for_and_why_it_was_refused() -> None:
    stream = configured()
    logs.tell(refused())
    assert stream.getvalue().endswith(" host=b.example error=unknown_host\n")


def test_json_lines_are_objects_with_the_same_data() -> None:
    stream = configured("json")
    one_request()
    logs.tell(refused())
    served, not_served = map(json.loads, stream.getvalue().splitlines())
    assert (served["message"], served["level"], served["status"], served["service"]) == (
        "request",
        "info",
        200,
        "a.example",
    )
    assert (served["path"], served["user_agent"]) == ("/v1/models", "curl/8.1 (x)")
    assert not {"host", "error"} & served.keys()
    assert (not_served["host"], not_served["error"]) == ("b.example", "unknown_host")


@pytest.mark.parametrize("claim", ["path", "user_agent", "host"])
@pytest.mark.parametrize(
    "text",
    ['x\nINFO request service="b" status=200', 'x" status=500 y="', "x\r\n\x1b[2J\x07", "a\\",
     "\x7f", "\x85\u2028\u202e", "\\x00", "", " ", "a=b"],
)  # fmt: skip
@pytest.mark.parametrize("format", ["text", "json"])
def test_what_a_client_claims_can_forge_nothing(
    format: Literal["text", "json"], text: str, claim: str
) -> None:
    stream = configured(format)
    claims: dict[str, Any] = {claim: text}
    logs.tell(refused()._replace(**claims))
    [line, nothing] = stream.getvalue().split("\n")
    assert nothing == ""
    assert line.isascii() and line.isprintable() or format == "json"
    if format == "json":
        assert json.loads(line)[claim] == text
    else:
        value = line.partition(f" {claim}=")[2]
        told, end = json.JSONDecoder().raw_decode(value)
        assert told == text
        assert value[end : end + 1] in ("", " ")


async def test_of_a_flood_of_refused_requests_only_so_many_are_written_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "REFUSALS_PER_SECOND", 10)
    stream = configured()
    journal = Journal()
    journal.subscribe(logs.tell)
    facts: list[Fact] = []
    journal.subscribe(facts.append)
    for number in range(1000):
        journal.record(refused(request_id=str(number)))
    journal.record(refused()._replace(error="bad_host"))
    for _ in range(50):
        journal.record(request_ended())
    await asyncio.sleep(0.2)
    lines = stream.getvalue().splitlines()
    assert sum("error=unknown_host" in line for line in lines) == 10
    assert sum("error=bad_host" in line for line in lines) == 1, "another kind is told all the same"
    assert sum("status=200" in line for line in lines) == 50, "what is served is always told"
    assert len(facts) == 1051
    await asyncio.sleep(1.2)
    [line] = stream.getvalue().splitlines()[len(lines) :]
    assert line.endswith("WARNING refused requests left out service=- error=unknown_host count=990")
    journal.record(refused())
    await asyncio.sleep(0.2)
    assert stream.getvalue().endswith("error=unknown_host\n"), "the next second begins anew"


async def test_what_was_left_out_is_told_at_the_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "REFUSALS_PER_SECOND", 1)
    stream = configured()
    for _ in range(3):
        logs.tell(refused())
    logging.shutdown()
    assert "left out service=- error=unknown_host count=2" in stream.getvalue()


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

"""Which of the proxy's own answers a request gets."""

from __future__ import annotations

import json

import pytest

from autostart_proxy import errors
from autostart_proxy.relay.refusals import is_navigation, refusal
from autostart_proxy.wire.requests import Request
from tests.relay.wire import Message, StandInService, read_message
from tests.wire.heads import read, request

BROWSER = b"Accept: text/html,*/*;q=0.8"


def answered(error: errors.ProxyError, asked: Request, *, awaited: bool = False) -> Message:
    service = StandInService(("127.0.0.1", 1), ready=False)
    written = refusal(error, asked, b"id-1", service if awaited else None, close=True)
    head, _, body = written.partition(b"\r\n\r\n")
    message = read_message(head)
    message.body = body
    return message


def test_programs_get_json_and_browsers_a_page() -> None:
    error = errors.UnknownHost()
    assert json.loads(answered(error, read(request())).body)["request_id"] == "id-1"
    assert b"<!doctype html>" in answered(error, read(request(BROWSER))).body


def test_an_answer_to_head_has_no_body() -> None:
    got = answered(errors.UnknownHost(), read(request(first=b"HEAD / HTTP/1.1")))
    assert got.body == b"" and int(got["content-length"]) > 0


def test_the_waiting_page_is_for_a_service_that_starts() -> None:
    starting = errors.Starting(retry_after_seconds=4)
    page = answered(starting, read(request(BROWSER)), awaited=True)
    assert b"A &lt;service&gt; is waking up" in page.body
    assert (page.status, page["retry-after"], page["x-autostart"]) == (503, "4", "starting")


def test_other_refusals_of_who_does_not_wait_are_no_waiting_page() -> None:
    page = answered(errors.ShuttingDown(), read(request(BROWSER)), awaited=True)
    assert b"is waking up" not in page.body and page["x-autostart"] == "shutting_down"


@pytest.mark.parametrize(
    ("lines", "navigation"),
    [((BROWSER,), True), ((b"Sec-Fetch-Mode: cors", BROWSER), False), ((), False)],
)
def test_a_navigation_is_told_by_its_fields(lines: tuple[bytes, ...], navigation: bool) -> None:
    assert is_navigation(read(request(*lines))) is navigation

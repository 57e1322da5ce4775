"""How a waiting page is answered, and what it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autostart_proxy import errors
from autostart_proxy.relay.waiting import outlook, own_answer, waiting_page
from autostart_proxy.wire.requests import Request
from autostart_proxy.wire.waiting import PAGE_PATH, STATE_PATH
from tests.relay.wire import Message, Relay, StandInService, get, read_message
from tests.wire.heads import read, request


def service(**told: Any) -> StandInService:
    return StandInService(("127.0.0.1", 1), told={"state": "starting", **told})


def asked(path: bytes, method: bytes = b"GET", *lines: bytes) -> Request:
    return read(request(*lines, first=b"%b %b HTTP/1.1" % (method, path)))


def message(written: bytes) -> Message:
    head, _, body = written.partition(b"\r\n\r\n")
    got = read_message(head)
    got.body = body
    return got


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"state": "starting"}, "waking"),
        ({"state": "adopting"}, "waking"),
        ({"state": "draining"}, "waking"),
        ({"state": "stopping"}, "waking"),
        ({"state": "stopping", "message": "Why."}, "failed"),
        ({"state": "failed", "message": "Why."}, "failed"),
        ({"state": "stopped", "message": "Why."}, "failed"),
        ({"state": "stopped"}, "asleep"),
        ({"state": "ready"}, "ready"),
        ({"state": "ready", "message": "It could not be stopped."}, "ready"),
    ],
)
def test_every_state_has_an_outlook(told: dict[str, Any], state: str) -> None:
    assert outlook(service(**told)).state == state


def test_only_the_start_itself_counts_as_waiting() -> None:
    assert outlook(service(state="starting")).elapsed_seconds == 3.0
    assert outlook(service(state="stopping")).elapsed_seconds == 0.0


def test_a_script_is_told_the_state() -> None:
    written = own_answer(asked(STATE_PATH + b"?x"), b"id-1", service(), close=False)
    assert written is not None
    got = message(written)
    assert (got.status, got["content-type"]) == (200, "application/json")
    assert (got["cache-control"], got["x-request-id"]) == ("no-store", "id-1")
    assert json.loads(got.body)["state"] == "waking"
    assert "connection" not in got


def test_a_page_without_script_reloads_itself_until_it_can_go_on() -> None:
    there = PAGE_PATH + b"?to=%2Fa%3Fb"
    waking = own_answer(asked(there), b"id-1", service(), close=True)
    assert waking is not None
    assert b"waiting?to=%2Fa%3Fb" in message(waking).body
    ready = own_answer(asked(there), b"id-1", service(state="ready"), close=True)
    assert ready is not None
    got = message(ready)
    assert (got.status, got["location"], got["connection"]) == (303, "/a?b", "close")


def test_an_answer_to_head_has_no_body() -> None:
    written = own_answer(asked(STATE_PATH, b"HEAD"), b"id-1", service(), close=True)
    assert written is not None
    assert message(written).body == b""


@pytest.mark.parametrize(
    "other",
    [
        asked(STATE_PATH + b"s"),
        asked(b"/.well-known/autostart-proxy/"),
        asked(STATE_PATH, b"POST"),
        asked(STATE_PATH, b"GET", b"Content-Length: 2"),
    ],
)
def test_whatever_is_no_such_question_is_the_services(other: Request) -> None:
    assert own_answer(other, b"id-1", service(), close=True) is None


def test_the_page_has_the_status_that_a_program_would_get() -> None:
    error = errors.Starting(retry_after_seconds=4)
    got = message(waiting_page(error, asked(b"/a?b"), b"id-1", service(), close=False))
    assert (got.status, got["retry-after"], got["x-autostart"]) == (503, "4", "starting")
    assert b"waiting?to=%2Fa%3Fb" in got.body


async def test_what_a_page_asks_wakes_nobody_and_is_no_line_of_the_log(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    relay.service.ready = False
    client = await relay.client()
    await client.send(get(STATE_PATH.decode()) * 3)
    for _ in range(3):
        assert json.loads((await client.answer()).body)["state"] == "waking"
    relay.service.ready = True
    await client.send(get(STATE_PATH.decode(), "Connection: close"))
    assert json.loads((await client.answer()).body)["state"] == "ready"
    assert await client.rest() == b""
    assert (relay.service.wakes, relay.service.arrivals) == (0, 0)
    assert caplog.records == []

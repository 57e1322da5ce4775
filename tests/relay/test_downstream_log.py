"""What the access log says of a request: who asked for what, and how long it took."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.relay.wire import OK, Line, Relay, access_log, get

SLOW_SECONDS = 0.2
SLOW_MS = 190  # an event loop may count in whole milliseconds


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def send_slowly(client: Line, request: bytes) -> None:
    await client.send(request[:10])
    await asyncio.sleep(SLOW_SECONDS)
    await client.send(request[10:])


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get(host="unknown.example"), 404),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (get("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
    ],
    ids=["unknown host", "broken head", "ambiguous framing"],
)
async def test_a_refused_request_counts_from_its_first_byte(
    relay: Relay, request_: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = await relay.client()
    await asyncio.sleep(SLOW_SECONDS)  # an idle connection is no request
    await send_slowly(client, request_)
    assert (await client.answer()).status == status
    [entry] = access_log(caplog)
    assert entry["status"] == status
    assert SLOW_MS <= entry["total_ms"] < 2 * SLOW_MS
    assert entry["held_ms"] < SLOW_MS


async def test_a_served_request_counts_from_its_first_byte_but_is_held_only_from_its_head(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    client = await relay.client()
    await send_slowly(client, get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    [entry] = access_log(caplog)
    assert entry["total_ms"] >= SLOW_MS
    assert entry["held_ms"] < SLOW_MS


async def test_a_request_behind_another_counts_from_the_end_of_that_one(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever pipelines waits for its own earlier request, not for the proxy."""
    client = await relay.client()
    await client.send(get("/first") + get(host="unknown.example") + get(host="unknown.example"))
    line = await relay.upstream.next()
    await line.head()
    await asyncio.sleep(SLOW_SECONDS)
    await line.send(OK)
    for _ in range(3):
        await client.answer()
    first, second, third = access_log(caplog)
    assert first["total_ms"] >= SLOW_MS
    assert second["status"] == third["status"] == 404
    assert max(second["total_ms"], third["total_ms"]) < SLOW_MS


async def test_a_request_is_told_with_what_was_asked_and_by_whom(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    agent = "User-Agent: curl/8 " + "x" * 300
    await relay.exchange(get("/v1/models?key=secret", agent))
    [entry] = access_log(caplog)
    assert (entry["path"], entry["user_agent"]) == ("/v1/models", "curl/8 " + "x" * 193)
    assert "host" not in entry and "secret" not in str(entry)


@pytest.mark.parametrize(
    ("request_", "status", "method", "path", "host"),
    [
        (get("/a?secret", host="unknown.example:80"), 404, "GET", "/a", "unknown.example"),
        (get("/a?secret", host="a..b"), 400, "GET", "/a", "a..b"),
        (get("/a?secret", *(f"X{n}: 1" for n in range(201))), 431, "GET", "/a", "a.example"),
        (get("/a?secret", "Cookie: " + "c" * 33_000), 431, "GET", "/a", "a.example"),
        (get("/" + "p" * 17_000), 414, "GET", "/" + "p" * 199, "a.example"),
        (get("/a b"), 400, "GET", "/a", "a.example"),
        (get("/a?secret", "X: a\0b"), 400, "GET", "/a", "a.example"),
        (b"GET /a?secret HTTP/1.1\nHost: a.example\n\n", 400, "GET", "/a", "a.example"),
        (b"\x16\x03\x01 / Host", 400, "-", "", None),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_refused_request_is_told_with_what_could_be_read_of_it(
    relay: Relay,
    request_: bytes,
    status: int,
    method: str,
    path: str,
    host: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await relay.client()
    await client.send(request_)
    assert (await client.answer()).status == status
    client.close()
    [entry] = access_log(caplog)
    assert (entry["method"], entry["path"], entry.get("host")) == (method, path, host)
    assert "secret" not in str(entry)

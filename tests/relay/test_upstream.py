"""Services that die, lie or stay silent, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.relay.wire import OK, Line, Relay, access_log, get, relaying

POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"


async def asked(relay: Relay, request: bytes) -> tuple[Line, Line]:
    """A client that has sent a request, and the service's connection that has read its head."""
    client = await relay.client()
    await client.send(request)
    line = await relay.upstream.next()
    await line.head()
    return client, line


async def served_afresh(relay: Relay, client: Line) -> Line:
    """See a request that was sent answered on a new connection to the service."""
    fresh = await relay.upstream.next()
    await fresh.head()
    await fresh.send(OK)
    assert (await client.answer()).body == b"ok"
    return fresh


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1_000_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 103 Early\r\n\r\ngarbage\r\n\r\n",
        # What never ends, and can no longer become right.
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r+\nok",
        b"HTTP/1.1 2x0 OK\r\nX: a\r\n",
        b"HTTP/1.1 \0\1\2 garbage",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n",
        b"HTTP/1.1 200 OK\r\nX : 1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n",
        b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1\x7f 200",
        b"\r\nHTTP/1.1 200 OK\r\n",
    ],
)
@pytest.mark.parametrize("closes", [False, True])
async def test_an_answer_that_is_not_valid_http_is_a_bad_upstream(
    relay: Relay, answer: bytes, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client, line = await asked(relay, get())
    line.writer.write(answer)
    if closes:
        line.close()
    got = await client.answer()
    if got.status == 103:
        got = await client.answer()
    assert got.status == 502
    told = json.loads(got.body)
    assert told["error"] == "bad_upstream"
    assert str(relay.upstream.port) not in told["message"]
    await line.until_gone()
    line.close()
    [warning] = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert vars(warning)["id"] == told["request_id"]


@pytest.mark.parametrize("partial", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_a_service_that_dies_before_its_answer_is_named_as_closed(
    relay: Relay, partial: bytes
) -> None:
    client, line = await asked(relay, get())
    await line.send(partial)
    line.close()
    got = await client.answer()
    assert (got.status, json.loads(got.body)["error"]) == (502, "upstream_closed")
    assert relay.upstream.unclaimed == 0


@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", Line.close),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n", Line.close),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n", Line.reset),
        (b"HTTP/1.1 200 OK\r\n\r\n", Line.reset),
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_service_that_dies_within_its_answer_cuts_the_client_off(
    relay: Relay, head: bytes, end: object, version: bytes
) -> None:
    client, line = await asked(relay, get().replace(b"1.1", version))
    await line.send(head + b"part")
    got = await client.head()
    assert got.status == 200
    await client.exactly(4)
    await asyncio.sleep(0.02)
    end(line)  # type: ignore[operator]
    with pytest.raises(ConnectionError):
        rest = await client.rest()
        raise AssertionError(f"ended in good order with {rest!r}")


async def test_broken_chunks_within_an_answer_cut_the_client_off(relay: Relay) -> None:
    client, line = await asked(relay, get())
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await client.head()
    await line.send(b"zz\r\n")
    with pytest.raises(ConnectionError):
        await client.rest()
    line.close()


async def test_an_upload_whose_service_dies_is_seen_exactly_once(relay: Relay) -> None:
    client, line = await asked(relay, POST + b"Content-Length: 1000\r\n\r\npart")
    line.close()
    got = await client.answer()
    assert (got.status, json.loads(got.body)["error"]) == (502, "upstream_closed")
    assert await client.rest() == b""
    assert relay.upstream.count == 1
    client.close()


async def keep_one_idle(relay: Relay) -> tuple[Line, Line]:
    client, line = await asked(relay, get("/first"))
    await line.send(OK)
    await client.answer()
    return client, line


async def test_a_get_on_a_stale_connection_is_sent_again_once(relay: Relay) -> None:
    client, line = await keep_one_idle(relay)
    await client.send(get("/second"))
    await line.head()
    line.close()
    again = await relay.upstream.next()
    assert b"/second" in (await again.head()).first
    again.close()
    assert (await client.answer()).status == 502
    assert relay.upstream.count == 2


async def test_a_get_with_a_byte_of_answer_is_not_sent_again(relay: Relay) -> None:
    client, line = await keep_one_idle(relay)
    await client.send(get("/second"))
    await line.head()
    await line.send(b"H")
    await asyncio.sleep(0.02)
    line.close()
    assert (await client.answer()).status == 502
    assert relay.upstream.count == 1


async def test_a_get_on_a_fresh_connection_is_not_sent_again(relay: Relay) -> None:
    client, line = await asked(relay, get())
    line.close()
    assert (await client.answer()).status == 502
    assert relay.upstream.count == 1


@pytest.mark.parametrize(
    "request_", [POST + b"\r\n", POST + b"Content-Length: 2\r\n\r\nhi",
                 get("/", "Content-Length: 2") + b"hi"]
)  # fmt: skip
async def test_a_request_that_may_not_be_repeated_is_not(relay: Relay, request_: bytes) -> None:
    client, line = await keep_one_idle(relay)
    await client.send(request_)
    await line.head()
    line.close()
    assert (await client.answer()).status == 502
    assert relay.upstream.count == 1


async def test_a_post_does_not_use_a_connection_that_has_just_ended(relay: Relay) -> None:
    for _ in range(20):
        client, line = await keep_one_idle(relay)
        line.shut_down()
        await client.send(POST + b"Content-Length: 2\r\n\r\nhi")
        fresh = await served_afresh(relay, client)
        fresh.close()
        client.close()


async def test_a_connection_with_surplus_bytes_is_not_used_again(relay: Relay) -> None:
    client, line = await asked(relay, get())
    await line.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    assert (await client.answer()).body == b"ok"
    assert await line.until_gone() == b""
    await client.send(get("/next"))
    (await served_afresh(relay, client)).close()
    line.close()


async def test_bytes_on_an_idle_connection_end_it(relay: Relay) -> None:
    client, line = await keep_one_idle(relay)
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    assert await line.until_gone() == b""
    await client.send(get("/next"))
    (await served_afresh(relay, client)).close()
    line.close()


@pytest.mark.parametrize("request_", [get("/next"), POST + b"Content-Length: 2\r\n\r\nhi"])
async def test_what_a_service_says_unasked_never_answers_a_request_that_comes_with_it(
    relay: Relay, request_: bytes
) -> None:
    """Both are there before the relay looks at either."""
    for _ in range(20):
        client, line = await keep_one_idle(relay)
        line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        client.writer.write(request_)
        fresh = await served_afresh(relay, client)
        for each in (line, fresh, client):
            each.reset()


async def test_a_get_does_not_use_a_connection_that_has_just_ended(relay: Relay) -> None:
    for _ in range(20):
        client, line = await keep_one_idle(relay)
        line.shut_down()
        await client.send(get("/next"))
        fresh = await served_afresh(relay, client)
        fresh.close()
        client.close()


async def test_connection_close_of_a_service_is_obeyed(relay: Relay) -> None:
    client, line = await asked(relay, get())
    await line.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (await client.answer()).body == b"ok"
    assert await line.until_gone() == b""
    line.close()


@pytest.mark.parametrize("leave", [Line.close, Line.reset])
async def test_a_client_that_leaves_within_an_upload_ends_it_upstream(
    relay: Relay, leave: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        client, line = await asked(relay, POST + b"Content-Length: 1000\r\n\r\npart")
        leave(client)  # type: ignore[operator]
        assert await line.until_gone() in (b"part", b"")
        await relay.service.until(lambda s: not s.flowing)
    statuses = [entry["status"] for entry in access_log(caplog)]
    assert statuses == [499]
    line.close()


async def test_a_client_that_leaves_an_upload_its_service_does_not_read_is_noticed(
    relay: Relay,
) -> None:
    client, line = await asked(relay, POST + b"Content-Length: 100000000\r\n\r\n")
    line.reader._transport.pause_reading()  # type: ignore[attr-defined]
    try:
        async with asyncio.timeout(0.5):
            while True:
                client.writer.write(b"x" * 1_000_000)
                await client.writer.drain()
    except TimeoutError:
        pass
    client.reset()
    await relay.service.until(lambda s: not s.flowing)
    line.reset()


@pytest.mark.parametrize("leave", [Line.close, Line.reset])
async def test_a_client_that_leaves_a_stream_ends_it_upstream(relay: Relay, leave: object) -> None:
    client, line = await asked(relay, get("/events"))
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await client.head()
    leave(client)  # type: ignore[operator]
    await line.until_gone()
    await relay.service.until(lambda s: not s.flowing)
    line.close()


async def test_a_thousand_exchanges_leave_no_connection_behind() -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            await line.send(OK)

    async with relaying(script=script) as relay:
        for _ in range(20):
            clients = [await relay.client() for _ in range(50)]
            for client in clients:
                await client.send(get())
            for client in clients:
                assert (await client.answer()).body == b"ok"
                client.close()
        assert relay.upstream.count <= 60

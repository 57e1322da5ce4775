"""No connection holds the event loop: what is done for one in a turn is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from autostart_proxy.journal import Fact
from autostart_proxy.relay import downstream, turns
from autostart_proxy.wire.chunks import CHUNKS_AT_A_TIME
from autostart_proxy.wire.responses import INTERIMS_AT_A_TIME
from tests.relay.wire import OK, PATIENCE_SECONDS, Relay, get, until

POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
COUNT = 20_000
ONE_READ_BYTES = 256 * 1024


async def most_in_a_turn(done: Callable[[], int], total: int) -> int:
    """The most that was done in one turn of the event loop, until all is.

    What is read in a turn comes on top of what was left for it: a connection has twice its share
    where the one ends and the other begins.
    """
    most = before = done()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while before < total:
            await asyncio.sleep(0)
            now = done()
            most, before = max(most, now - before), now
    return most


def flowing(relay: Relay) -> list[object]:
    """The exchanges under way."""
    return [each.exchange for each in relay.server.connections if each.exchange is not None]


def sum_of(relay: Relay, name: str) -> Callable[[], int]:
    return lambda: sum(getattr(each, name) for each in flowing(relay))


@pytest.mark.parametrize("host", ["unknown.example", "a.example"])
async def test_requests_that_are_answered_at_once_are_so_many_in_a_turn(
    relay: Relay, host: str
) -> None:
    relay.service.config.max_body = None
    relay.service.config.blocking = False
    relay.service.ready = False
    facts: list[Fact] = []
    relay.server.journal.subscribe(facts.append)
    client = await relay.client()
    count = 3000
    client.writer.write(get(host=host) * count)
    most = await most_in_a_turn(lambda: len(facts), count)
    assert 1 < most <= 2 * downstream.REQUESTS_AT_A_TIME
    for _ in range(count):
        assert (await client.answer()).status in (404, 503)
    client.close()


async def test_large_heads_are_fewer_in_a_turn(relay: Relay) -> None:
    facts: list[Fact] = []
    relay.server.journal.subscribe(facts.append)
    client = await relay.client()
    request = get("/", "X: " + "x" * 6000, host="unknown.example")
    client.writer.write(request * 200)
    most = await most_in_a_turn(lambda: len(facts), 200)
    assert 1 < most <= 2 * (downstream.HEAD_BYTES_AT_A_TIME // len(request) + 1)
    client.close()


async def test_an_upload_in_small_chunks_is_read_in_turns_and_arrives_whole(relay: Relay) -> None:
    client = await relay.client()
    await client.send(POST + CHUNKED)
    line = await relay.upstream.next()
    await line.head()
    client.writer.write(b"1\r\na\r\n" * COUNT)
    most = await most_in_a_turn(sum_of(relay, "bytes_in"), COUNT)
    assert most <= 2 * CHUNKS_AT_A_TIME + 20, "and they go on as one"
    client.writer.write(b"0\r\n\r\n" + get("/next"))
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += await line.until(b"\r\n")
    assert got.count(b"a") == COUNT
    assert got.count(b"\r\n") < COUNT // 100
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    assert b"/next" in (await line.head()).first
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_a_held_upload_in_small_chunks_is_read_in_turns_once_admitted(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    client.writer.write(POST + CHUNKED + b"1\r\na\r\n" * COUNT + b"0\r\n\r\n")
    await relay.service.until(lambda s: len(s.held) == 1)
    await asyncio.sleep(0.1)
    exchange = flowing(relay)[0]
    relay.service.open()
    await until(lambda: getattr(exchange, "bytes_in") > 0)  # noqa: B009
    line = await relay.upstream.next()
    await line.head()
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += await line.until(b"\r\n")
    assert got.count(b"a") == COUNT
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


@pytest.mark.parametrize("closes", [False, True])
async def test_an_answer_in_small_chunks_is_read_in_turns_and_arrives_whole(
    relay: Relay, closes: bool
) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED)
    await client.head()
    line.writer.write(b"1\r\na\r\n" * COUNT)
    most = await most_in_a_turn(sum_of(relay, "bytes_out"), COUNT)
    assert most <= 2 * CHUNKS_AT_A_TIME + 20
    line.writer.write(b"1\r\na\r\n" * COUNT + b"0\r\n\r\n")
    if closes:
        line.close()
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += await client.until(b"\r\n")
    assert got.count(b"a") == 2 * COUNT
    assert got.count(b"\r\n") < COUNT // 50
    line.close()


async def test_what_a_service_has_sent_before_it_was_reset_still_arrives(relay: Relay) -> None:
    """A reset throws away what the kernel has, but not what the relay has read already."""
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\n" + CHUNKED)
    await client.head()
    await line.send(b"1\r\na\r\n" * 5000 + b"0\r\n\r\n")
    exchange = flowing(relay)[0]
    await until(lambda: getattr(exchange, "bytes_out") > 0)  # noqa: B009
    line.reset()
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        got += await client.until(b"\r\n")
    assert got.count(b"a") == 5000


async def test_interim_answers_are_passed_in_turns_and_all_of_them(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    count = 2000
    line.writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * count + OK)
    exchange = flowing(relay)[0]
    most = await most_in_a_turn(lambda: int(getattr(exchange, "interims")), count)  # noqa: B009
    assert 1 < most <= 2 * INTERIMS_AT_A_TIME
    for _ in range(count):
        assert (await client.head()).status == 103
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_all_that_is_read_in_bulk_in_one_turn_is_bounded(relay: Relay) -> None:
    clients = [await relay.client() for _ in range(40)]
    size = 3_000_000
    for client in clients:
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
    lines = [await relay.upstream.next() for _ in clients]
    for line in lines:
        await line.head()
        line.reader._limit = 2 * size  # type: ignore[attr-defined]
    exchanges = flowing(relay)
    for client in clients:
        client.writer.write(b"x" * size)
    most = await most_in_a_turn(
        lambda: sum(int(getattr(each, "bytes_in")) for each in exchanges),  # noqa: B009
        size * len(clients),
    )
    limit = turns.BYTES_PER_TURN + (turns.RESUMED_PER_TURN + 1) * ONE_READ_BYTES
    assert most <= max(limit, len(clients) * ONE_READ_BYTES), "all of them once, at the start"
    for line, client in zip(lines, clients, strict=True):
        assert await line.exactly(size) == b"x" * size
        await line.send(OK)
        assert (await client.answer()).body == b"ok"
        client.close()
        line.close()


async def test_a_client_that_is_refused_and_goes_on_sending_is_read_in_turns(relay: Relay) -> None:
    clients = [await relay.client() for _ in range(5)]
    for client in clients:
        client.writer.write(b"nonsense\r\n" + b"\r\n" * 2_000_000)
    for client in clients:
        assert (await client.answer()).status == 400
    await asyncio.sleep(0.05)
    for client in clients:
        client.reset()

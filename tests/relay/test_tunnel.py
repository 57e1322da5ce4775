"""WebSocket and every other Upgrade: held, switched, piped."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.relay.wire import OK, Line, Relay, access_log, get, relaying

ASK = ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


async def test_an_upgrade_is_held_and_bytes_right_behind_it_arrive_exactly(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    protocols = ("Sec-WebSocket-Protocol: one, two", "Sec-WebSocket-Protocol: three")
    await client.send(get("/ws", *ASK, *protocols) + b"\x81\x02hi\r\n\r\n\x00")
    await relay.service.until(lambda s: len(s.held) == 1)
    relay.service.open()
    line = await relay.upstream.next()
    seen = await line.head()
    assert (seen["connection"], seen["upgrade"]) == ("Upgrade", "websocket")
    assert seen.all("sec-websocket-protocol") == ["one, two", "three"]
    assert await line.silent()
    await line.send(SWITCH + b"Sec-WebSocket-Protocol: two\r\n\r\n\x81\x05hello")
    got = await client.head()
    assert got.status == 101
    assert (got["connection"], got["upgrade"]) == ("Upgrade", "websocket")
    assert got["sec-websocket-protocol"] == "two"
    assert await client.exactly(7) == b"\x81\x05hello"
    assert await line.exactly(9) == b"\x81\x02hi\r\n\r\n\x00"
    await client.send(b"ping")
    assert await line.exactly(4) == b"ping"
    await line.send(b"pong")
    assert await client.exactly(4) == b"pong"
    assert len(relay.service.flowing) == 1
    client.close()
    await line.until_gone()
    line.close()


async def test_a_tunnel_is_a_lease_until_both_directions_have_ended(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    client = await relay.client()
    with caplog.at_level(logging.INFO):
        await client.send(get("/", *ASK))
        line = await relay.upstream.next()
        await line.head()
        await line.send(SWITCH + b"\r\n")
        await client.head()
        client.writer.write_eof()
        assert await line.rest() == b""
        await line.send(b"still talking")
        assert await client.exactly(13) == b"still talking"
        assert len(relay.service.flowing) == 1
        line.close()
        assert await client.rest() == b""
        await relay.service.until(lambda s: not s.flowing)
    [record] = access_log(caplog)
    assert (record["status"], record["out"]) == (101, 13)


async def test_a_service_may_end_its_direction_first(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get("/", *ASK))
    line = await relay.upstream.next()
    await line.head()
    await line.send(SWITCH + b"\r\n")
    await client.head()
    line.writer.write_eof()
    assert await client.rest() == b""
    await client.send(b"last words")
    assert await line.exactly(10) == b"last words"
    client.close()
    assert await line.rest() == b""
    line.close()


async def test_a_refused_upgrade_passes_as_an_ordinary_answer(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get("/", *ASK))
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    got = await client.answer()
    assert (got.status, got.body) == (403, b"no")
    await client.send(get("/next"))
    assert b"/next" in (await line.head()).first
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_bytes_behind_a_refused_upgrade_are_never_taken_for_a_request(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get("/", *ASK) + get("/smuggled"))
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    got = await client.answer()
    assert (got.status, got["connection"]) == (403, "close")
    assert await client.rest() == b""
    assert await line.silent()
    client.close()


@pytest.mark.parametrize("framing", ["Content-Length: 3", "Transfer-Encoding: chunked"])
async def test_an_upgrade_with_a_body_is_refused(relay: Relay, framing: str) -> None:
    got = await relay.refused(get("/", *ASK, framing))
    assert got.status == 400
    assert json.loads(got.body)["error"] == "bad_request"
    assert relay.upstream.count == 0


async def test_an_upgrade_to_h2c_is_not_passed_on(relay: Relay) -> None:
    ask = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    seen, got = await relay.exchange(get("/", *ask))
    assert got.status == 200
    assert not {"upgrade", "http2-settings", "connection"} & {n.lower() for n, _ in seen.fields}


async def test_an_upgrade_field_without_connection_upgrade_is_dropped(relay: Relay) -> None:
    seen, _ = await relay.exchange(get("/", "Upgrade: websocket"))
    assert "upgrade" not in seen


async def test_a_switch_that_nobody_asked_for_is_a_bad_answer(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(SWITCH + b"\r\n")
    assert json.loads((await client.answer()).body)["error"] == "bad_upstream"
    client.close()


async def test_a_tunnel_carries_megabytes_both_ways_with_back_pressure(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get("/", *ASK))
    line = await relay.upstream.next()
    await line.head()
    await line.send(SWITCH + b"\r\n")
    await client.head()
    payload = bytes(range(256)) * 20_000
    async with asyncio.TaskGroup() as group:
        group.create_task(client.send(payload))
        group.create_task(line.send(payload))
        up = group.create_task(line.exactly(len(payload)))
        down = group.create_task(client.exactly(len(payload)))
    assert up.result() == down.result() == payload
    line.close()
    assert await client.rest() == b""
    client.close()


async def test_a_tunnel_ends_when_its_client_is_reset(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get("/", *ASK))
    line = await relay.upstream.next()
    await line.head()
    await line.send(SWITCH + b"\r\n")
    await client.head()
    client.reset()
    await line.until_gone()
    await relay.service.until(lambda s: not s.flowing)


async def test_two_hundred_tunnels_can_be_open() -> None:
    async def echo(line: Line) -> None:
        await line.head()
        await line.send(SWITCH + b"\r\n")
        while data := await line.reader.read(100):
            await line.send(data)
        line.close()

    async with relaying(script=echo) as relay:
        clients = [await relay.client() for _ in range(200)]
        for client in clients:
            await client.send(get("/", *ASK))
        for number, client in enumerate(clients):
            assert (await client.head()).status == 101
            await client.send(b"%4d" % number)
        for number, client in enumerate(clients):
            assert await client.exactly(4) == b"%4d" % number
        assert len(relay.service.flowing) == 200
        for client in clients:
            client.close()

"""Clients that are slow, many or large."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterable
from itertools import repeat
from pathlib import Path

import psutil
import pytest

from autostart_proxy.relay import downstream, patience, server, upstream
from tests.relay.wire import (
    OK,
    Config,
    Line,
    Relay,
    ScriptedUpstream,
    access_log,
    get,
    relaying,
    until,
)

POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"


@pytest.fixture
async def hasty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    """A relay whose time limits are over within a second."""
    for name in ("HEAD_SECONDS", "KEEP_ALIVE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(downstream, name, 0.3)
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(patience, "RESPONSE_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(upstream, "CLOSE_SECONDS", 0.3)
    async with relaying(config=Config(body_timeout=0.3)) as relay:
        yield relay


@contextlib.asynccontextmanager
async def dribbling(to: Line, pieces: Iterable[bytes], pause_seconds: float) -> AsyncIterator[None]:
    """Send one piece after the other, slowly, until the end of the context."""

    async def dribble() -> None:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                await to.send(piece)
                await asyncio.sleep(pause_seconds)

    sending = asyncio.ensure_future(dribble())
    try:
        yield
    finally:
        sending.cancel()


async def test_a_head_that_dribbles_in_runs_out_of_time(
    hasty: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    client = await hasty.client()

    head = get("/", "X: " + "y" * 1000)
    with caplog.at_level(logging.INFO):
        async with dribbling(client, (bytes([byte]) for byte in head), 0.02):
            got = await client.answer()
    assert (got.status, json.loads(got.body)["error"]) == (408, "request_timeout")
    client.close()
    [entry] = access_log(caplog)
    assert 300 <= entry["total_ms"] < 3000, "from the first byte"


async def test_a_client_that_says_nothing_is_closed(hasty: Relay) -> None:
    client = await hasty.client()
    assert await client.rest() == b""
    client.close()


async def test_an_idle_connection_is_closed_on_both_sides(hasty: Relay) -> None:
    client = await hasty.client()
    await client.send(get())
    line = await hasty.upstream.next()
    await line.head()
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    assert await client.rest() == b""
    assert await line.until_gone() == b""
    client.close()
    line.close()


async def test_an_upload_that_stops_runs_out_of_time(hasty: Relay) -> None:
    client = await hasty.client()
    await client.send(POST + b"Content-Length: 1000\r\n\r\n")
    line = await hasty.upstream.next()
    await line.head()
    for _ in range(10):  # slow is not stopped
        await client.send(b"x" * 20)
        await asyncio.sleep(0.1)
    got = await client.answer()
    assert (got.status, got["connection"]) == (408, "close")
    assert await client.rest() == b""
    assert await line.until_gone() == b"x" * 200
    client.close()
    line.close()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"Content-Length: 1000\r\n\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
    ids=["a byte", "a chunk", "a trailer", "an extension"],
)
async def test_a_body_that_dribbles_in_keeps_no_service_awake(
    hasty: Relay, head: bytes, piece: bytes
) -> None:
    client = await hasty.client()
    await client.send(POST + head)
    line = await hasty.upstream.next()
    await line.head()

    async with dribbling(client, repeat(piece), 0.1):
        async with asyncio.timeout(15):
            got = await client.answer()
        assert (got.status, json.loads(got.body)["error"]) == (408, "request_timeout")
        await hasty.service.until(lambda s: not s.flowing)
    await line.until_gone()
    client.close()


async def test_a_body_may_take_its_time_where_no_limit_is_configured(hasty: Relay) -> None:
    hasty.service.config.body_timeout = None
    client = await hasty.client()
    await client.send(POST + b"Content-Length: 2\r\n\r\na")
    line = await hasty.upstream.next()
    await line.head()
    await asyncio.sleep(0.8)
    await client.send(b"b")
    assert await line.exactly(2) == b"ab"
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


@pytest.mark.parametrize(
    ("first", "then"),
    [(b"HTTP/1.1 200 OK\r\nX: ", b"y"), (b"HTTP/1.1 103 Early\r\n\r\nHT", b"")],
    ids=["dribbles", "stops behind an interim one"],
)
async def test_a_response_head_that_does_not_end_runs_out_of_time(
    hasty: Relay, first: bytes, then: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = await hasty.client()
    await client.send(get())
    line = await hasty.upstream.next()
    await line.head()
    await line.send(first)

    async with dribbling(line, repeat(then) if then else (), 0.05):
        async with asyncio.timeout(15):
            got = await client.answer()
            if got.status == 103:
                got = await client.answer()
        assert (got.status, json.loads(got.body)["error"]) == (504, "response_timeout")
        await hasty.service.until(lambda s: not s.flowing)
    assert any("response_timeout" in str(vars(each)) for each in caplog.records)
    line.close()


async def test_a_service_has_as_long_for_its_first_byte_as_it_is_given(hasty: Relay) -> None:
    hasty.service.config.response_timeout = 0.4
    client = await hasty.client()
    await client.send(POST + b"Content-Length: 100\r\n\r\n" + b"x" * 50)
    line = await hasty.upstream.next()
    await line.head()
    await asyncio.sleep(0.2)
    await client.send(b"x" * 50)  # from here on it counts
    await asyncio.sleep(0.2)
    await line.send(b"HTTP/1.1 102 Processing\r\n\r\n")  # and from here on anew
    await asyncio.sleep(0.3)
    await line.send(OK)
    assert (await client.answer()).status == 102
    assert (await client.answer()).status == 200
    await client.send(get("/slow"))
    await line.exactly(100)
    await line.head()
    async with asyncio.timeout(15):
        got = await client.answer()
    assert (got.status, json.loads(got.body)["error"]) == (504, "response_timeout")
    assert await line.until_gone() == b""
    line.close()


async def test_a_client_that_does_not_read_its_answer_is_cut_off(hasty: Relay) -> None:
    client = await hasty.client()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(get())
    line = await hasty.upstream.next()
    await line.head()
    line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000)
    await hasty.service.until(lambda s: not s.flowing)
    line.reset()
    client.reset()


async def test_a_service_may_take_its_time_and_so_may_a_silent_stream(hasty: Relay) -> None:
    client = await hasty.client()
    await client.send(get())
    line = await hasty.upstream.next()
    await line.head()
    await asyncio.sleep(0.8)
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    await client.head()
    await asyncio.sleep(0.8)
    await line.send(b"ok")
    assert await client.exactly(2) == b"ok"
    line.close()


async def test_a_held_request_has_no_time_limit_of_the_relay(hasty: Relay) -> None:
    hasty.service.ready = False
    client = await hasty.client()
    await client.send(POST + b"Content-Length: 5\r\n\r\nab")
    await asyncio.sleep(0.8)
    assert len(hasty.service.held) == 1
    hasty.service.open()
    line = await hasty.upstream.next()
    await line.head()
    await client.send(b"cde")
    assert await line.exactly(5) == b"abcde"
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_an_open_tunnel_has_no_time_limit_but_a_half_closed_one_has(hasty: Relay) -> None:
    client = await hasty.client()
    await client.send(get("/", "Connection: Upgrade", "Upgrade: x"))
    line = await hasty.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    await client.head()
    await asyncio.sleep(0.8)
    assert len(hasty.service.flowing) == 1
    client.writer.write_eof()
    assert await line.rest() == b""  # and it goes on talking to nobody: it never closes
    await hasty.service.until(lambda s: not s.flowing)
    client.close()
    line.close()


async def test_a_refused_client_that_goes_on_sending_is_cut_off_in_the_end(hasty: Relay) -> None:
    client = await hasty.client()
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.answer()).status == 400
    with pytest.raises(ConnectionError):
        while True:
            await client.send(b"x" * 1000)
            await asyncio.sleep(0.01)
    client.close()


async def test_many_slow_clients_do_not_keep_a_good_one_waiting(relay: Relay) -> None:
    slow_heads = [await relay.client() for _ in range(150)]
    for client in slow_heads:
        await client.send(b"GET / HTTP/1.1\r\nHo")
    slow_bodies = [await relay.client() for _ in range(150)]
    for client in slow_bodies:
        await client.send(POST + b"Content-Length: 100\r\n\r\nx")
    lines = [await relay.upstream.next() for _ in slow_bodies]
    for line in lines:
        await line.head()
    async with asyncio.timeout(15):
        _, got = await relay.exchange(get("/good"))
    assert got.body == b"ok"
    for client in slow_heads + slow_bodies:
        client.reset()
    for line in lines:
        line.reset()


PROXY = textwrap.dedent("""
    import asyncio, sys
    from types import SimpleNamespace

    import uvloop

    from autostart_proxy.journal import Journal
    from autostart_proxy.relay.server import Server

    class Service:
        host, ready = "a.example", True
        config = SimpleNamespace(
            name="a", blocking=True, max_body=None, response_timeout=None, body_timeout=30.0
        )
        address = "127.0.0.1", int(sys.argv[1])

        def claim(self, lease):
            if self.ready:
                return self.address
            self.unreachable(lease)

        def unreachable(self, lease):
            asyncio.get_running_loop().call_later(0.3, lease.admitted, self.address)

        def depart(self, lease):
            pass

    async def main():
        service = Service()
        service.ready = sys.argv[2] == "warm"
        print((await Server(lambda _: service, Journal()).listen("127.0.0.1:0")), flush=True)
        await asyncio.Event().wait()

    uvloop.run(main())
""")


class Proxy:
    """The relay in a process of its own, so that its memory and descriptors can be counted."""

    def __init__(self, upstream_port: int, state: str, *, open_files: int | None = None) -> None:
        limit = (open_files, open_files) if open_files else None
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROXY, str(upstream_port), state],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
            if limit
            else None,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(b":")[2])
        self.seen = psutil.Process(self.process.pid)

    async def client(self) -> Line:
        return Line(*await asyncio.open_connection("127.0.0.1", self.port))

    def end(self) -> str:
        self.process.terminate()
        return self.process.communicate()[1].decode()


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize(("framing", "size"), [("length", 500_000_000), ("chunked", 100_000_000)])
async def test_half_a_gigabyte_goes_up_to_a_cold_service_in_constant_memory(
    framing: str, size: int
) -> None:
    block = os.urandom(1_000_000)
    seen = asyncio.get_running_loop().create_future()

    async def digest(line: Line) -> None:
        head = await line.head()
        sha = hashlib.sha256()
        left = int(head["content-length"]) if framing == "length" else -1
        while left:
            if framing == "chunked":
                count = int(await line.until(b"\r\n"), 16)
                data = (await line.exactly(count + 2))[:-2]
                left = -count
            else:
                data = await line.reader.read(min(left, 1_000_000))
                left -= len(data)
            sha.update(data)
        seen.set_result(sha.hexdigest())
        await line.send(OK)

    async with ScriptedUpstream(digest) as upstream:
        proxy = Proxy(upstream.port, "cold")
        client = await proxy.client()
        before = proxy.seen.memory_info().rss
        expected = hashlib.sha256()
        if framing == "length":
            await client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        else:
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        peak = before
        for number in range(size // len(block)):
            expected.update(block)
            client.writer.write(
                block if framing == "length" else b"%x\r\n%b\r\n" % (len(block), block)
            )
            await client.writer.drain()
            if number % 20 == 0:
                peak = max(peak, proxy.seen.memory_info().rss)
        if framing == "chunked":
            await client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == b"ok"
        assert await seen == expected.hexdigest()
        assert max(peak, proxy.seen.memory_info().rss) - before < 50_000_000
        client.close()
        proxy.end()


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_the_memory_of_clients_that_did_not_read_comes_back() -> None:
    async def endless(line: Line) -> None:
        await line.head()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            while True:
                await line.send(b"x" * 500_000)

    async with ScriptedUpstream(endless) as upstream:
        proxy = Proxy(upstream.port, "warm")
        before = proxy.seen.memory_info().rss
        for _ in range(3):  # the first rush may leave nothing behind by itself
            crowd = [deaf_client(proxy.port) for _ in range(300)]
            await until(lambda: proxy.seen.memory_info().rss - before > 100_000_000)
            for client in crowd:
                client.close()
            await until(lambda: proxy.seen.memory_info().rss - before < 20_000_000)
        proxy.end()


def deaf_client(port: int) -> socket.socket:
    """Asks, and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.connect(("127.0.0.1", port))
    client.sendall(get())
    return client


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_running_out_of_descriptors_is_survived_without_spinning() -> None:
    async def script(line: Line) -> None:
        while True:
            await line.head()
            await line.send(OK)

    async with ScriptedUpstream(script) as upstream:
        proxy = Proxy(upstream.port, "warm", open_files=64)
        crowd = [await proxy.client() for _ in range(200)]
        await asyncio.sleep(0.3)
        before = sum(proxy.seen.cpu_times()[:2])
        await asyncio.sleep(1)
        assert sum(proxy.seen.cpu_times()[:2]) - before < 0.5
        for client in crowd:
            client.reset()
        for _ in range(50):
            client = await proxy.client()
            try:
                await client.send(get())
                assert (await client.answer()).body == b"ok"
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
            finally:
                client.close()
        else:
            raise AssertionError("it never recovered: " + proxy.end())
        proxy.end()

"""Requests and answers through the relay, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket

import pytest

from tests.relay.wire import HOST, OK, Line, Relay, get, relaying

POST = b"POST /up HTTP/1.1\r\nHost: a.example\r\n"


async def test_a_get_request_reaches_the_service_and_its_answer_the_client(relay: Relay) -> None:
    seen, got = await relay.exchange(get("/path?q=1", "Accept: */*", "X-Own: 1"))
    assert seen.first == b"GET /path?q=1 HTTP/1.1"
    assert seen["host"] == HOST
    assert seen["x-own"] == "1"
    assert (got.status, got.body) == (200, b"ok")


async def test_both_connections_are_kept_for_the_next_request(relay: Relay) -> None:
    client = await relay.client()
    line = None
    for number in range(3):
        await client.send(get(f"/{number}"))
        line = line or await relay.upstream.next()
        assert (await line.head()).first == f"GET /{number} HTTP/1.1".encode()
        await line.send(OK)
        assert (await client.answer()).body == b"ok"
    assert relay.upstream.count == 1
    assert line is not None
    line.close()


async def test_ten_pipelined_requests_are_answered_in_order() -> None:
    async def echo_path(line: Line) -> None:
        while True:
            path = (await line.head()).first.split()[1]
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path)
            await line.send(answer)

    async with relaying(script=echo_path) as relay:
        client = await relay.client()
        await client.send(b"".join(get(f"/{number}") for number in range(10)))
        for number in range(10):
            assert (await client.answer()).body == f"/{number}".encode()


async def test_a_pipelined_request_behind_a_body_is_the_next_request(relay: Relay) -> None:
    client = await relay.client()
    await client.send(POST + b"Content-Length: 3\r\n\r\nabc" + get("/second"))
    line = await relay.upstream.next()
    assert (await line.head())["content-length"] == "3"
    assert await line.exactly(3) == b"abc"
    assert await line.silent()
    await line.send(OK)
    assert (await line.head()).first == b"GET /second HTTP/1.1"
    await line.send(OK)
    assert (await client.answer()).body == (await client.answer()).body == b"ok"
    line.close()


async def test_chunked_bodies_pass_in_both_directions_with_their_trailers(relay: Relay) -> None:
    client = await relay.client()
    await client.send(POST + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n")
    line = await relay.upstream.next()
    seen = await line.head()
    assert seen["transfer-encoding"] == "chunked"
    assert await line.exactly(8) == b"3\r\nabc\r\n"
    await client.send(b"0\r\nX-Sum: 6\r\nContent-Length: 7\r\n\r\n")
    assert await line.until(b"\r\n\r\n") == b"0\r\nX-Sum: 6\r\n\r\n"
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    assert (await client.head())["transfer-encoding"] == "chunked"
    assert await client.exactly(7) == b"2\r\nok\r\n"
    await line.send(b"0\r\nX-Sum: 5\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
    assert await client.until(b"\r\n\r\n") == b"0\r\nX-Sum: 5\r\n\r\n"
    line.close()
    client.close()


async def test_chunk_extensions_go_no_further_in_either_direction(relay: Relay) -> None:
    client = await relay.client()
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n5 ;a\r\nhello\r\n2;\r\nok\r\n")
    line = await relay.upstream.next()
    await line.head()
    assert await line.exactly(12) == b"7\r\nhellook\r\n"
    await client.send(b'0;a="b\r\n\r\n')
    assert await line.exactly(5) == b"0\r\n\r\n"
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nwo")
    await client.head()
    assert await client.exactly(5) == b"5\r\nwo"
    await line.send(b"rld\r\n0;last\r\n\r\n")
    assert await client.exactly(10) == b"rld\r\n0\r\n\r\n"
    line.close()


async def test_what_only_the_proxy_says_is_not_taken_over_from_a_service(relay: Relay) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nX-Autostart: starting\r\nX-Own: 1\r\n\r\n")
    _, got = await relay.exchange(get(), answer)
    assert "x-autostart" not in got and got["x-own"] == "1"


async def test_an_event_passes_as_soon_as_the_service_has_sent_it(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get("/events"))
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.head()
    for number in range(5):
        event = b"data: %d\n\n" % number
        await line.send(b"%x\r\n%b\r\n" % (len(event), event))
        assert event in await client.until(b"\n\n\r\n")
    await line.send(b"0\r\n\r\n")
    await client.until(b"0\r\n\r\n")
    line.close()
    client.close()


async def test_an_answer_that_ends_with_its_connection_is_sent_in_chunks(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.0 200 OK\r\n\r\nuntil ")
    await line.send(b"the end")
    line.close()
    got = await client.answer()
    assert got.body == b"until the end"
    assert got["transfer-encoding"] == "chunked"
    await client.send(get("/next"))
    again = await relay.upstream.next()
    await again.head()
    await again.send(OK)
    assert (await client.answer()).body == b"ok"
    again.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
    ],
)
async def test_a_client_of_http_1_0_gets_neither_chunks_nor_keep_alive(
    relay: Relay, answer: bytes
) -> None:
    client = await relay.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
    line = await relay.upstream.next()
    await line.head()
    await line.send(answer)
    line.close()
    whole = await client.rest()
    head, _, body = whole.partition(b"\r\n\r\n")
    assert body == b"ok"
    assert b"chunked" not in head.lower()
    assert b"connection: close" in head.lower()


async def test_a_client_of_http_1_0_keeps_its_connection_if_it_asks(relay: Relay) -> None:
    client = await relay.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
    line = await relay.upstream.next()
    await line.head()
    await line.send(OK)
    assert (await client.answer())["connection"] == "keep-alive"
    await client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
    await line.head()
    await line.send(OK)
    assert (await client.answer())["connection"] == "close"
    assert await client.rest() == b""
    line.close()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
    ],
)
@pytest.mark.parametrize("wrong_body", [b"", b"wrong"])
async def test_an_answer_without_a_body_has_none_whatever_the_service_sends(
    relay: Relay, method: str, answer: bytes, wrong_body: bytes
) -> None:
    client = await relay.client()
    await client.send(f"{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    line = await relay.upstream.next()
    await line.head()
    await line.send(answer + wrong_body)
    got = await client.answer(head_only=True)
    assert got.first == answer.split(b"\r\n")[0]
    await client.send(get("/next"))
    fresh = await relay.upstream.next()
    await fresh.head()
    await fresh.send(OK)
    assert (await client.answer()).body == b"ok"
    assert await line.until_gone() == b""
    fresh.close()


async def test_a_204_answer_claims_no_length(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
    assert "content-length" not in await client.head()
    client.close()


async def test_interim_answers_pass_and_the_final_one_follows(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.1 102 Pro")
    hints = await client.head()
    assert (hints.status, hints["link"]) == (103, "</s.css>")
    await line.send(b"cessing\r\n\r\n" + OK)
    assert (await client.head()).status == 102
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_interim_answers_are_kept_from_clients_of_http_1_0(relay: Relay) -> None:
    client = await relay.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert (await client.answer()).status == 200
    line.close()


async def test_an_expectation_is_met_only_once_the_service_is_ready(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    await relay.service.until(lambda s: len(s.held) == 1)
    assert await client.silent()
    relay.service.open()
    assert (await client.head()).status == 100
    line = await relay.upstream.next()
    assert "expect" not in await line.head()
    await client.send(b"abc")
    assert await line.exactly(3) == b"abc"
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_an_early_answer_reaches_a_client_that_is_still_sending(relay: Relay) -> None:
    client = await relay.client()
    await client.send(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 1000)
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    got = await client.answer()
    assert (got.status, got.body, got["connection"]) == (413, b"big", "close")
    await client.send(b"x" * 1_000_000)  # a client that looks late is not reset
    assert await client.rest() == b""
    client.close()
    await line.until_gone()


def answer_early_and_reset(listener: socket.socket, answer: bytes) -> None:
    """Take a part of an upload, answer, and close with the rest unread: the kernel resets."""
    line, _ = listener.accept()
    with line:
        got = 0
        while got < 300_000:
            got += len(line.recv(65536))
        line.sendall(answer)


def upload(address: str) -> bytes:
    """Send without a pause until an answer is there; returns its first line."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                if select.select([line], [], [], 0)[0]:
                    break
                line.sendall(b"x" * 50_000)
        return line.recv(65536).split(b"\r\n")[0]


async def test_an_early_answer_survives_a_service_that_resets_behind_it(relay: Relay) -> None:
    good = relay.service.address
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay.service.address = listener.getsockname()
        for _ in range(10):
            answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
            serving = asyncio.to_thread(answer_early_and_reset, listener, answer)
            _, got = await asyncio.gather(serving, asyncio.to_thread(upload, relay.address))
            assert got == b"HTTP/1.1 401 Unauthorized"
    relay.service.address = good


async def test_a_slow_client_slows_the_service_down(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    sent = 0
    try:
        async with asyncio.timeout(0.5):
            while sent < 100_000_000:
                line.writer.write(b"x" * 100_000)
                await line.writer.drain()
                sent += 100_000
    except TimeoutError:
        pass
    assert sent < 50_000_000, "the relay took in what nobody reads"
    client.reset()
    await line.until_gone()


async def test_a_slow_service_slows_the_client_down(relay: Relay) -> None:
    client = await relay.client()
    await client.send(POST + b"Content-Length: 100000000\r\n\r\n")
    line = await relay.upstream.next()
    await line.head()
    line.reader._transport.pause_reading()  # type: ignore[attr-defined]
    sent = 0
    try:
        async with asyncio.timeout(0.5):
            while sent < 100_000_000:
                client.writer.write(b"x" * 100_000)
                await client.writer.drain()
                sent += 100_000
    except TimeoutError:
        pass
    assert sent < 50_000_000, "the relay took in what nobody reads"
    client.reset()
    line.reset()

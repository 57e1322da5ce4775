"""What the relay refuses, straight from the wire."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from autostart_proxy.journal import Fact, RequestEnded
from autostart_proxy.relay.server import CannotListen
from tests.relay.wire import OK, Config, Message, Relay, get, relaying

POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"


def tag(message: Message) -> object:
    return json.loads(message.body)["error"]


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        *(
            POST + b"Content-Length:" + length + b"\r\n\r\nhello"
            for length in (b"+5", b" 0x5", b"1_0", b"", b" ", b"5 5", b"-1", b"5.", b"9" * 19)
        ),
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        *(
            POST + b"Transfer-Encoding:" + coding + b"\r\n\r\n0\r\n\r\n"
            for coding in (
                b",chunked",
                b"xchunked",
                b"gzip, chunked",
                b"identity",
                b"",
                b"\x0bchunked",
            )
        ),
        b"POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        get("/", "X: 1\r\n folded"),
        get("/", " X: 1"),
        get("/", "X : 1"),
        get("/", "X\t: 1"),
        get("/", "no colon"),
        get("/", ": no name"),
        get("/", "X: a\0b"),
        get("/", "X: a\x01b"),
        get("/", "X: a\rb"),
        get("/", "X: a\nY: b"),
        get("/", "Xé: b"),
        b"GET / HTTP/1.1\nHost: a.example\n\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\n",
        b"GET /a b HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a.example\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        get("/", "Expect: something-else"),
    ],
)
async def test_a_malformed_head_is_refused_and_nothing_of_it_goes_on(
    relay: Relay, request_: bytes
) -> None:
    got = await relay.refused(request_)
    assert (got.status, tag(got), got["connection"]) == (400, "bad_request", "close")
    assert relay.upstream.count == 0


@pytest.mark.parametrize(
    "begun",
    [
        b"*1\r\n$4\r\nPING\r\n",
        b"\tGET / HTTP/1.1\r\nHost: a.example\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/1.2\r\n",
        b"GET / HTTP/1.1\r\nHost : a.example\r\n",
        b"GET / HTTP/1.1\nHost",
        b"\r\n\r\nGET /a b",
    ],
)
async def test_a_head_that_no_further_byte_can_make_right_is_refused_at_once(
    relay: Relay, begun: bytes
) -> None:
    async with asyncio.timeout(15):
        got = await relay.refused(begun)
    assert (got.status, tag(got), got["connection"]) == (400, "bad_request", "close")


async def test_bytes_beyond_ascii_in_a_target_go_on_percent_encoded(relay: Relay) -> None:
    seen, got = await relay.exchange("GET /é?q=ü HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    assert seen.first == b"GET /%C3%A9?q=%C3%BC HTTP/1.1"
    assert got.status == 200


@pytest.mark.parametrize("body", [b"x\r\n", b"5\nhello", b"3\r\nabcd\r\n", b"-1\r\n", b"f" * 16,
                                  b"5;\x00\r\n", b" 5\r\n", b"0\r\nX : y\r\n\r\n"])  # fmt: skip
async def test_broken_chunks_are_refused_and_nothing_beyond_the_valid_prefix_goes_on(
    relay: Relay, body: bytes
) -> None:
    client = await relay.client()
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    line = await relay.upstream.next()
    await line.head()
    assert await line.exactly(7) == b"2\r\nok\r\n"
    await client.send(body)
    got = await client.answer()
    assert (got.status, tag(got)) == (400, "bad_request")
    assert await client.rest() == b""
    assert await line.until_gone() == b""
    line.close()


@pytest.mark.parametrize("line", ["A.EXAMPLE:8080", "a.example.", "a.example:", "A.Example.:80"])
async def test_every_spelling_of_a_host_finds_its_service_and_is_forwarded_canonically(
    relay: Relay, line: str
) -> None:
    seen, got = await relay.exchange(get(host=line))
    assert got.status == 200
    port = line.rpartition(":")[2] if line[-1].isdigit() else ""
    assert seen["host"] == ("a.example:" + port if port else "a.example")


@pytest.mark.parametrize(
    "host",
    ["a..example", "a/example", "a\\example", "a.example:x", "a.example:99999", "[::1", "[::g]",
     "", "a example", "a,b", "-a", "a@b", "ä"],
)  # fmt: skip
async def test_a_bad_host_is_refused(relay: Relay, host: str) -> None:
    got = await relay.refused(get(host=host))
    assert (got.status, tag(got)) == (400, "bad_host")
    assert relay.upstream.count == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        b"GET http://b..example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http://user@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http:///path HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ],
)
async def test_a_missing_or_doubled_host_is_refused(relay: Relay, request_: bytes) -> None:
    got = await relay.refused(request_)
    assert (got.status, tag(got)) == (400, "bad_host")


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("http://A.example:81/p?q", "/p?q"),
        ("HTTPS://a.example", "/"),
        ("http://a.example?q", "/?q"),
    ],
)
async def test_the_authority_of_an_absolute_target_wins_over_host(
    relay: Relay, target: str, origin: str
) -> None:
    seen, got = await relay.exchange(get(target, host="other.example"))
    assert got.status == 200
    assert seen.first == f"GET {origin} HTTP/1.1".encode()
    assert seen["host"] == ("a.example:81" if ":81" in target else "a.example")
    assert seen["x-forwarded-host"] == seen["host"]


async def test_options_of_everything_is_forwarded(relay: Relay) -> None:
    seen, _ = await relay.exchange(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert seen.first == b"OPTIONS * HTTP/1.1"
    seen, _ = await relay.exchange(b"OPTIONS http://a.example HTTP/1.1\r\nHost: b\r\n\r\n")
    assert seen.first == b"OPTIONS * HTTP/1.1"


async def test_unknown_hosts_are_answered_on_one_connection(relay: Relay) -> None:
    facts: list[Fact] = []
    relay.server.journal.subscribe(facts.append)
    client = await relay.client()
    await client.send(b"".join(get("/secret?q", host=f"h{n}.example") for n in range(1000)))
    for _ in range(1000):
        got = await client.answer()
        assert (got.status, tag(got)) == (404, "unknown_host")
    requests = [each for each in facts if isinstance(each, RequestEnded)]
    assert [each.host for each in requests] == [f"h{n}.example" for n in range(1000)]
    assert {each.service for each in requests} == {"-"}
    assert {each.path for each in requests} == {"/secret"}
    client.close()


@pytest.mark.parametrize(
    ("request_", "status", "expected"),
    [
        (get("/" + "x" * 16_400), 414, "uri_too_long"),
        (get("/", "X: " + "x" * 33_000), 431, "headers_too_large"),
        (get("/", *(f"X{n}: " + "x" * 9000 for n in range(8))), 431, "headers_too_large"),
        (get("/", *(f"X{n}: 1" for n in range(201))), 431, "headers_too_large"),
        (b"GET /" + b"x" * 17_000, 414, "uri_too_long"),
        (get("/", "X: " + "x" * 33_000)[:-4], 431, "headers_too_large"),
        (get("/", *(f"X{n}: " + "x" * 9000 for n in range(8)))[:-4], 431, "headers_too_large"),
        (get("/", *(f"X{n}: 1" for n in range(202)))[:-4], 431, "headers_too_large"),
    ],
)
@pytest.mark.parametrize("step", [500, 1_000_000])
async def test_heads_beyond_the_limits_are_refused_across_segments_too(
    relay: Relay, request_: bytes, status: int, expected: str, step: int
) -> None:
    client = await relay.client()
    for at in range(0, len(request_), step):
        await client.send(request_[at : at + step])
    got = await client.answer()
    assert (got.status, tag(got)) == (status, expected)
    client.close()


async def test_headers_as_large_as_ordinary_web_applications_send_them_pass(relay: Relay) -> None:
    lines = [
        "Cookie: " + "; ".join(["session=" + "x" * 3900] * 8),
        *(f"X{n}: 1" for n in range(190)),
    ]
    cookies = b"".join(b"Set-Cookie: a%d=%b\r\n" % (n, b"x" * 3900) for n in range(15))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + cookies + b"\r\nok"
    seen, got = await relay.exchange(get("/" + "p" * 16_000, *lines), answer)
    assert len(seen["cookie"]) > 31_000 and len(seen.fields) > 190
    assert (got.status, len(got.all("set-cookie"))) == (200, 15)


@pytest.mark.parametrize(
    "trailers",
    [b"X: y\r\n" * 201, b"X: " + b"y" * 33_000, (b"X: %b\r\n" % (b"y" * 9000)) * 8],
    ids=["fields", "line", "in all"],
)
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_trailers_beyond_the_limits_are_refused(
    relay: Relay, trailers: bytes, end: bytes
) -> None:
    client = await relay.client()
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
    line = await relay.upstream.next()
    await line.head()
    await client.send(trailers + end)
    got = await client.answer()
    assert (got.status, tag(got)) == (431, "headers_too_large")
    client.close()
    await line.until_gone()


async def test_a_declared_body_above_the_limit_is_refused_before_any_start() -> None:
    async with relaying(config=Config(max_body=10)) as relay:
        relay.service.ready = False
        got = await relay.refused(POST + b"Content-Length: 11\r\n\r\nhello world")
        assert (got.status, tag(got)) == (413, "body_too_large")
        assert relay.service.arrivals == 0


async def test_a_chunked_body_above_the_limit_is_refused_on_its_way() -> None:
    async with relaying(config=Config(max_body=10)) as relay:
        client = await relay.client()
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
        line = await relay.upstream.next()
        await line.head()
        assert await line.exactly(11) == b"6\r\nabcdef\r\n"
        await client.send(b"6\r\nghijkl\r\n")
        got = await client.answer()
        assert (got.status, tag(got)) == (413, "body_too_large")
        assert await line.until_gone() == b""
        client.close()


async def test_an_error_is_html_where_the_client_prefers_it(relay: Relay) -> None:
    accept = "Accept: text/html;q=0.9, application/json;q=0.5, <script>"
    got = await relay.refused(get("/<script>", accept, host="<b>"))
    assert got["content-type"] == "text/html; charset=utf-8"
    assert b"bad_host" in got.body
    assert b"<script>" not in got.body and b"<b>" not in got.body


async def test_the_error_of_a_head_request_has_no_body(relay: Relay) -> None:
    client = await relay.client()
    await client.send(b"HEAD / HTTP/1.1\r\nHost: unknown.example\r\n\r\n" + get("/next"))
    assert (await client.answer(head_only=True)).status == 404
    line = await relay.upstream.next()
    await line.head()
    await line.send(OK)
    assert (await client.answer()).status == 200
    line.close()


async def test_empty_lines_before_a_request_are_ignored(relay: Relay) -> None:
    _, got = await relay.exchange(b"\r\n\r\n\r\n" + get())
    assert got.status == 200


# What each side learns of the other.


async def test_fields_of_one_connection_do_not_cross(relay: Relay) -> None:
    lines = ("Connection: x-foo, Keep-Alive", "X-Foo: 1", "Keep-Alive: 5", "TE: trailers",
             "Proxy-Connection: x", "X-Bar: 2")  # fmt: skip
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: x-baz, close\r\nX-Baz: 1\r\nKeep-Alive: timeout=5\r\n"
        b"X-Own: 1\r\nX-Own: 2\r\nContent-Length: 2\r\n\r\nok"
    )
    seen, got = await relay.exchange(get("/", *lines), answer)
    assert [name for name, _ in seen.fields] == [
        "Host", "X-Bar", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-ID",
    ]  # fmt: skip
    assert [name for name, _ in got.fields] == ["X-Own", "X-Own", "Content-Length", "X-Request-ID"]


SPOOFED = (
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: outer.example",
    "X-Forwarded-Port: 443",
    "X-Real-IP: 203.0.113.7",
    "Forwarded: for=203.0.113.7",
    "X-Request-ID: from-outside",
    "X_Forwarded_For: 203.0.113.8",
)


async def test_a_trusted_proxy_is_believed_and_the_peer_appended(relay: Relay) -> None:
    seen, got = await relay.exchange(get("/", *SPOOFED))
    assert seen["x-forwarded-for"] == "203.0.113.7, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-host"] == "outer.example"
    assert seen["x-forwarded-port"] == "443"
    assert seen["x-real-ip"] == "203.0.113.7"
    assert "forwarded" not in seen
    assert seen["x-request-id"] == got["x-request-id"] == "from-outside"
    assert "x_forwarded_for" not in seen


async def test_anybody_else_is_not_believed() -> None:
    async with relaying(trusted=("192.0.2.0/24",)) as relay:
        seen, got = await relay.exchange(get("/", *SPOOFED))
        assert seen["x-forwarded-for"] == "127.0.0.1"
        assert seen["x-forwarded-proto"] == "http"
        assert seen["x-forwarded-host"] == "a.example"
        assert "203.0.113" not in str(seen.fields)
        assert "x-forwarded-port" not in seen
        assert seen["x-request-id"] == got["x-request-id"] != "from-outside"


async def test_end_to_end_fields_pass_untouched_in_order_and_repeated(relay: Relay) -> None:
    lines = ("Authorization: Basic c2VjcmV0", "Cookie: a=1", "X-B:  2\t", "cookie: c=3", "X-B:")
    client = await relay.client()
    await client.send(get("/", *lines))
    line = await relay.upstream.next()
    raw = await line.until(b"\r\n\r\n")
    assert "\r\n".join(lines).encode() in raw
    await line.send(OK)
    await client.answer()
    line.close()


async def test_a_unix_socket_serves_trusted_peers_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    async with relaying(listen=f"unix:{path}", trusted=()) as relay:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        seen, got = await relay.exchange(get("/", "X-Forwarded-For: 203.0.113.7"))
        assert seen["x-forwarded-for"] == "203.0.113.7"
        with pytest.raises(CannotListen, match="somebody listens there already"):
            await relay.server.listen(f"unix:{path}")
    assert os.listdir(tmp_path) == []

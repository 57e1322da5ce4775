"""Request heads: every rule, and agreement with another parser."""

from __future__ import annotations

import contextlib
import string

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autostart_proxy import errors
from autostart_proxy.wire.requests import Request, RequestReader
from autostart_proxy.wire.responses import ResponseReader
from tests.wire.heads import read, request, response, whole


def test_a_request_is_written_anew_with_what_the_proxy_knows() -> None:
    head = read(request(b"Accept: */*", b"Content-Length: 007")).upstream_head(b"id-1")
    assert head == (
        b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nContent-Length: 7\r\n"
        b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: a.example\r\nX-Request-ID: id-1\r\n\r\n"
    )


def test_the_same_fields_are_read_once_and_other_fields_anew() -> None:
    reader = RequestReader(peer=b"", trusted=True)
    one = whole(reader, request(b"X: 1"))
    two = whole(reader, request(b"X: 1", first=b"POST /b HTTP/1.1"))
    three = whole(reader, request(b"X: 2"))
    assert one.fields is two.fields
    assert (two.method, two.target) == (b"POST", b"/b")
    assert three.field(b"x") == b"2"
    assert "trusted" in repr(reader)
    old = whole(reader, request(b"X: 2", first=b"GET / HTTP/1.0"))
    assert not old.fields.keep_alive
    with pytest.raises(errors.BadRequest):
        whole(reader, request(b"X : 2"))
    assert whole(reader, request(b"X: 2")).field(b"x") == b"2"


def test_a_head_that_differs_in_its_request_id_alone_is_known() -> None:
    reader = RequestReader(peer=b"", trusted=True)
    one = whole(reader, request(b"X-Request-ID: one", b"X: 1"))
    two = whole(reader, request(b"X-Request-ID: two", b"X: 1"))
    assert (one.request_id, two.request_id) == (b"one", b"two")
    assert one.fields is two.fields
    for line in (b"X-Request-ID: t o", b"X-Request-ID: x\0", b"X-Request-ID: " + b"x" * 129):
        try:
            assert whole(reader, request(line, b"X: 1")).request_id == b""
        except errors.BadRequest:
            assert b"\0" in line
        assert whole(reader, request(b"X-Request-ID: one", b"X: 1")).request_id == b"one"
    assert whole(reader, request(b"X-Request-ID: one", b"X: 2")).lines == b"X: 2\r\n"
    assert reader.read(request(b"X-Request-ID: one", b"X: 2")[:-20]) is None


@pytest.mark.parametrize(
    "lines",
    [(b"x-request-id:  one ",), (b"X-Request-ID: two", b"X-Request-ID: one"),
     (b"X-Request-ID: one", b"x-request-id: one")],
)  # fmt: skip
def test_an_unusual_request_id_is_read_the_same_every_time(lines: tuple[bytes, ...]) -> None:
    reader = RequestReader(peer=b"", trusted=True)
    for _ in range(3):
        got = whole(reader, request(*lines))
        assert got.request_id == b"one"
        assert b"request-id" not in got.lines.lower()


@pytest.mark.parametrize("dash", [b"-", b"_"])
@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding", b"X-Forwarded-For"])
def test_only_dashes_make_a_name_that_counts(dash: bytes, name: bytes) -> None:
    known = {b"Content-Length": b"1", b"Transfer-Encoding": b"chunked"}.get(name, b"192.0.2.9")
    got = read(request(name.replace(b"-", dash) + b": " + known), trusted=True)
    written = got.upstream_head(b"").lower()
    assert got.fields.has_body is (dash == b"-" and name != b"X-Forwarded-For")
    assert name.replace(b"-", b"_").lower() not in written


def test_a_trusted_peer_tells_client_scheme_host_and_request_id() -> None:
    fields = read(
        request(
            b"X-Forwarded-For: 203.0.113.7",
            b"X-Forwarded-For: 198.51.100.1",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Proto: ftp",
            b"X-Forwarded-Host: outer",
            b"X-Forwarded-Host: other",
            b"X-Forwarded-Port: 443",
            b"X-Request-ID: abc",
        ),
        peer=b"2001:db8::1",
        trusted=True,
    )
    assert fields.fields.client == "198.51.100.1"
    assert fields.request_id == b"abc"
    assert fields.fields.forwarded == (
        b"X-Forwarded-For: 203.0.113.7, 198.51.100.1, 2001:db8::1\r\n"
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\n"
    )
    assert fields.lines == b"X-Forwarded-Port: 443\r\n"


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    "name",
    ["Forwarded", "X-Forwarded", *(f"X-Forwarded-{of}" for of in (
        "By", "Client-Cert", "Email", "For-", "For_", "Groups", "Host-", "Port_", "Prefix",
        "Scheme", "Server", "Ssl", "Uri", "User", "Whatever",
    ))],
)  # fmt: skip
def test_what_is_claimed_of_the_way_beyond_what_the_proxy_knows_ends_here(
    name: str, trusted: bool
) -> None:
    for spelled in (name, name.lower(), name.upper(), name.replace("-", "_")):
        got = read(request(spelled.encode() + b": claim", b"X: kept"), trusted=trusted)
        written = got.upstream_head(b"")
        assert b"claim" not in written
        assert b"X: kept\r\n" in written


def test_a_unix_socket_has_no_address_to_append() -> None:
    alone = read(request(), peer=b"", trusted=True).fields
    assert (alone.client, alone.forwarded) == ("unix", b"X-Forwarded-Proto: http\r\n")
    behind = read(request(b"X-Forwarded-For: 192.0.2.9"), peer=b"", trusted=True).fields
    assert b"X-Forwarded-For: 192.0.2.9\r\n" in behind.forwarded


@pytest.mark.parametrize("bad", [b"a b", b"x" * 129, b"", b'"<script>"'])
def test_a_request_id_that_could_break_a_log_is_not_taken_over(bad: bytes) -> None:
    assert read(request(b"X-Request-ID: " + bad), trusted=True).request_id == b""


def test_a_forwarded_for_that_is_no_address_is_not_logged() -> None:
    got = read(request(b"X-Forwarded-For: <script>"), trusted=True)
    assert got.fields.client == "192.0.2.1"


def test_upgrades_are_offered_whole_but_never_h2c() -> None:
    upgrade = request(b"Connection: upgrade", b"Upgrade: h2c, WebSocket", b"Upgrade: foo/2")
    assert read(upgrade).fields.upgrade == b"WebSocket, foo/2"
    assert read(request(b"Connection: upgrade", b"Upgrade: h2c")).fields.upgrade == b""
    assert read(request(b"Connection: upgrade")).fields.upgrade == b""
    old = request(b"Connection: upgrade", b"Upgrade: x", first=b"GET / HTTP/1.0")
    assert read(old).fields.upgrade == b""
    for bad in ((b"Upgrade: a b",), (b"Upgrade: x", b"Content-Length: 1")):
        with pytest.raises(errors.BadRequest):
            read(request(b"Connection: upgrade", *bad))


def test_an_expectation_is_known_or_refused() -> None:
    assert read(request(b"Expect: 100-Continue")).fields.expects_continue
    old = request(b"Expect: 100-continue", first=b"POST / HTTP/1.0")
    assert not read(old).fields.expects_continue
    for bad in ((b"Expect: 200-ok",), (b"Expect: 100-continue",) * 2):
        with pytest.raises(errors.BadRequest):
            read(request(*bad))


def test_a_field_that_connection_names_ends_here_but_not_what_frames_the_message() -> None:
    got = read(request(b"Connection: x-a, host, content-length", b"X-A: 1", b"Content-Length: 3"))
    written = got.upstream_head(b"")
    assert b"X-A" not in written
    assert b"Host: a.example\r\n" in written
    assert b"Content-Length: 3\r\n" in written
    assert response(b"Connection: x-a", b"X-A: 1", b"X-B: 2").lines == b"X-B: 2\r\n"


@pytest.mark.parametrize(
    ("first", "target", "host", "authority"),
    [
        (b"GET /a?b HTTP/1.1", b"/a?b", "a.example", b"a.example"),
        (b"GET http://B.example:81/p HTTP/1.1", b"/p", "b.example", b"b.example:81"),
        (b"GET https://b.example?q HTTP/1.1", b"/?q", "b.example", b"b.example"),
        (b"OPTIONS * HTTP/1.1", b"*", "a.example", b"a.example"),
        (b"OPTIONS http://b.example HTTP/1.1", b"*", "b.example", b"b.example"),
        (b"OPTIONS http://b.example/ HTTP/1.1", b"/", "b.example", b"b.example"),
    ],
)
def test_one_host_routes_and_is_forwarded(
    first: bytes, target: bytes, host: str, authority: bytes
) -> None:
    got = read(request(first=first))
    assert (got.target, got.fields.host, got.fields.authority) == (target, host, authority)
    assert b"\r\nHost: %b\r\n" % authority in got.upstream_head(b"")
    assert b"\r\nX-Forwarded-Host: %b\r\n" % authority in got.upstream_head(b"")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", errors.BadHost),
        (b"GET / HTTP/1.0\r\n\r\n", errors.BadHost),
        (request(b"Host: a.example"), errors.BadHost),
        (request(b"Host: a.example", first=b"GET / HTTP/1.0"), errors.BadHost),
        (request(host=b"a..b"), errors.BadHost),
        (request(first=b"GET http://a_b@c/ HTTP/1.1"), errors.BadHost),
        (request(first=b"CONNECT a.example:1 HTTP/1.1"), errors.BadRequest),
        (request(first=b"GET * HTTP/1.1"), errors.BadRequest),
        (request(first=b"GET nowhere HTTP/1.1"), errors.BadRequest),
        (request(first=b"GET / HTTP/3.0"), errors.BadRequest),
    ],
)
def test_a_target_or_host_in_doubt_is_refused(
    head: bytes, expected: type[errors.ProxyError]
) -> None:
    with pytest.raises(expected):
        read(head)


def test_http_1_0_may_name_its_host_in_the_target_alone() -> None:
    assert read(b"GET http://a.example/ HTTP/1.0\r\n\r\n").fields.host == "a.example"


@pytest.mark.parametrize(
    "head",
    [
        request(b"X: " + b"y" * 33_000),
        request(*[b"X: " + b"y" * 9000] * 8),
        request(*[b"X: y"] * 200),
    ],
    ids=["line", "in all", "fields"],
)
def test_large_header_sections_are_refused(head: bytes) -> None:
    with pytest.raises(errors.HeadersTooLarge):
        read(head)


def test_limits_are_those_of_ordinary_web_applications() -> None:
    assert len(read(request(*[b"X: y"] * 199)).lines) == 199 * len(b"X: y\r\n")
    cookie = b"Cookie: " + b"; ".join([b"session=" + b"x" * 3900] * 8)
    assert cookie + b"\r\n" in read(request(cookie, cookie[:30_000])).lines
    longest = b"GET /" + b"x" * (16 * 1024 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    assert read(request(first=longest)).target.endswith(b"xx")
    with pytest.raises(errors.UriTooLong):
        read(request(first=longest.replace(b"GET /", b"GET /x")))


@pytest.mark.parametrize("end", [b"\n", b"a\rb", b"\0", b"\x7f", b"x\n\n"])
def test_an_unfinished_head_is_refused_as_soon_as_it_is_hopeless(end: bytes) -> None:
    reader, good = RequestReader(peer=b"", trusted=False), b"GET / HTTP/1.1\r\nX: 1"
    assert reader.read(good) is None
    with pytest.raises(errors.BadRequest):
        reader.read(good + end)


def test_an_unfinished_head_may_end_anywhere() -> None:
    reader, head = RequestReader(peer=b"", trusted=False), request(b"X: 1")
    for _ in range(2):  # with nothing remembered, and with the same head remembered
        for end in range(len(head)):
            assert reader.read(head[:end]) is None
        whole(reader, head)
    with pytest.raises(errors.UriTooLong):
        reader.read(b"GET /" + b"x" * 17_000)


@pytest.mark.parametrize(
    "first",
    [b"*1\r\n$4\r\nPING\r\n", b"\tGET / HTTP/1.1", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n",
     b"GET / HTTP/1.2", b"GET / HTTP/2", b"GET /a b", b"PRI * HTTP/2.0\r\n", b"GET /\r\n",
     b"GET\t/", b"x" * 33, b"GET / http", b"{}", b"GET / HTTP/1.1\r\n\tX: folded",
     b"GET / HTTP/1.1\r\nX : 1"],
)  # fmt: skip
def test_a_line_that_no_further_byte_can_make_right_is_refused_at_once(first: bytes) -> None:
    with pytest.raises(errors.BadRequest):
        RequestReader(peer=b"", trusted=False).read(first)


def test_a_remembered_head_does_not_lift_the_limit_of_the_request_line() -> None:
    reader = RequestReader(peer=b"", trusted=False)
    whole(reader, request())
    with pytest.raises(errors.UriTooLong):
        reader.read(request(first=b"GET /" + b"x" * 17_000 + b" HTTP/1.1"))


def salvaged(data: bytes, *, trusted: bool = False) -> Request:
    return RequestReader(peer=b"192.0.2.1", trusted=trusted).salvage(b"before" + data, 6)


@pytest.mark.parametrize(
    ("data", "method", "path", "host", "accept"),
    [
        (b"", b"-", "", "", b""),
        (b"\0\0\0", b"-", "", "", b""),
        (b"GET", b"-", "", "", b""),
        (b"GET /a b\r\nHost: a\tb\x1b\r\n", b"GET", "/a", "a\tb\x1b", b""),
        (b"HEAD /x?q HTTP/9\r\nAccept: text/html\r\nbroken", b"HEAD", "/x", "", b"text/html"),
        (b'B"AD / HTTP/1.1\r\n', b"-", "", "", b""),
        (b"GET http://me:secret@B/p?q HTTP/1.1\r\nHost: a\r\n", b"GET", "/p", "B", b""),
        (b"GET /" + b"x" * 20_000, b"GET", "/" + "x" * 199, "", b""),
        (b"GET /\xc3\xa9 HTTP/1.1\nHost: \xc3\xa9\xff", b"GET", "/%C3%A9", "é\\xff", b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nAccept: text/html\r\n", b"GET", "/", "a", b""),
    ],
)
def test_what_can_be_read_of_a_refused_head_serves_its_answer_and_the_log_and_goes_nowhere(
    data: bytes, method: bytes, path: str, host: str, accept: bytes
) -> None:
    found = salvaged(data)
    assert (found.method, found.path, found.fields.host) == (method, path, host)
    assert (found.field(b"accept"), found.fields.client) == (accept, "192.0.2.1")
    assert found.fields.has_body and not found.fields.keep_alive, "its end cannot be told"


def test_of_a_refused_head_too_only_a_trusted_peer_says_for_whom_it_speaks() -> None:
    lines = (b"X-Forwarded-For: 203.0.113.7", b"X-Request-ID: abc", b"User-Agent: curl/8")
    data = request(*lines, host=b"a..b")
    for trusted, client, request_id in ((True, "203.0.113.7", b"abc"), (False, "192.0.2.1", b"")):
        found = salvaged(data, trusted=trusted)
        assert (found.fields.client, found.request_id) == (client, request_id)
        assert (found.fields.host, found.fields.user_agent) == ("a..b", "curl/8")
    assert salvaged(data.replace(b"abc", b'"a"'), trusted=True).request_id == b""


def test_bytes_beyond_ascii_in_a_target_go_on_percent_encoded() -> None:
    for first, target in (
        (b"GET /\xc3\xa9?q=\xff%C3 HTTP/1.1", b"/%C3%A9?q=%FF%C3"),
        (b"GET http://a.example/\x80 HTTP/1.1", b"/%80"),
    ):
        got = read(request(first=first))
        assert got.target == target
        assert got.upstream_head(b"").startswith(b"GET %b HTTP/1.1\r\n" % target)


def test_the_path_is_without_the_query_and_bounded() -> None:
    assert read(request(first=b"GET /a/b?secret HTTP/1.1")).path == "/a/b"
    assert read(request(first=b"OPTIONS * HTTP/1.1")).path == "*"
    assert len(read(request(first=b"GET /" + b"a" * 999 + b" HTTP/1.1")).path) == 200


# Agreement with llhttp: what passes here is read there as the same message.

token = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=12)
value = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
).map(lambda text: text.encode("latin-1").strip(b" \t"))
noise = st.lists(st.sampled_from([*b"\r\n \t:;,\0\x7f\x80aA0_-", 0x0B]), max_size=3).map(bytes)


class Heard:
    """What llhttp makes of a head."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


@settings(deadline=None)
@given(st.lists(st.tuples(token.map(str.encode), value), max_size=8), noise, st.integers(0, 400))
def test_what_passes_is_read_as_the_same_fields_by_llhttp(
    fields: list[tuple[bytes, bytes]], inserted: bytes, at: int
) -> None:
    head = request(*(name + b": " + content for name, content in fields))
    at %= len(head) - 4
    head = head[:at] + inserted + head[at:]
    if head.count(b"\r\n\r\n") != 1 or not head.endswith(b"\r\n\r\n"):
        return
    try:
        got = read(head)
    except errors.ProxyError:
        return
    heard = Heard()
    parser = httptools.HttpRequestParser(heard)
    written = got.upstream_head(b"id")
    try:
        parser.feed_data(written)
    except httptools.HttpParserUpgrade:
        assert got.fields.upgrade
    except httptools.HttpParserInvalidMethodError:
        return  # llhttp has a list of methods; a proxy must pass those that come later
    assert heard.complete
    assert parser.get_method() == got.method
    lines = [line.partition(b":") for line in written.split(b"\r\n")[1:-2]]
    assert heard.fields == [(name, content.strip(b" \t")) for name, _, content in lines]
    names = [name.lower() for name, _, _ in lines]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_at_all_make_the_reader_fail_in_another_way(data: bytes) -> None:
    for head in (data + b"\r\n\r\n", request(data), request(host=data), request(first=data)):
        try:
            RequestReader(peer=b"", trusted=True).read(head)
            RequestReader(peer=b"", trusted=True).salvage(head)
        except errors.ProxyError as error:
            assert error.status in (400, 414, 431)
    with contextlib.suppress(errors.BadUpstream):
        ResponseReader().read(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")

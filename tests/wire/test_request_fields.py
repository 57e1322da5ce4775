"""What the fields of a request mean, and how much of them is remembered."""

from __future__ import annotations

import pytest

from autostart_proxy import errors
from autostart_proxy.wire import request_fields
from autostart_proxy.wire.request_fields import (
    RequestFields,
    client_of,
    read_fields,
    read_line,
    shown,
    understood,
)

PEER = b"192.0.2.1"


def fields_of(*lines: bytes, trusted: bool = False) -> tuple[RequestFields, bytes, bytes]:
    section = b"".join(line + b"\r\n" for line in (b"Host: a.example", *lines))
    return read_fields(section, False, PEER, trusted)


def test_the_clients_program_is_noted_and_its_line_passes_in_order() -> None:
    fields, lines, _ = fields_of(b"A: 1", b"user-agent: curl/8", b"User-Agent: x", b"B: 2")
    assert fields.user_agent == "curl/8"
    assert lines == b"A: 1\r\nuser-agent: curl/8\r\nUser-Agent: x\r\nB: 2\r\n"
    assert fields_of()[0].user_agent == ""


def test_what_a_client_claims_is_shown_in_part_and_whatever_bytes_it_holds() -> None:
    assert shown(b"a" * 300) == "a" * 200
    assert shown("é\t\x1b".encode() + b"\xff") == "é\t\x1b\\xff"
    assert client_of(b"203.0.113.7, 198.51.100.1", PEER) == "198.51.100.1"
    assert client_of(b"unknown", PEER) == "192.0.2.1"
    assert client_of(b"", b"") == "unix"


def test_trust_decides_what_a_line_means_though_lines_are_remembered() -> None:
    lines = (b"X-Forwarded-For: 203.0.113.7", b"X-Forwarded-Port: 443", b"X-Request-ID: abc")
    for _ in range(2):
        believed, passing, request_id = fields_of(*lines, trusted=True)
        assert (believed.client, passing, request_id) == (
            "203.0.113.7", lines[1] + b"\r\n", b"abc"
        )  # fmt: skip
        doubted, passing, request_id = fields_of(*lines)
        assert (doubted.client, passing, request_id) == ("192.0.2.1", b"", b"")


@pytest.mark.parametrize("line", [b"", b"x", b": y", b"X : y", b" X: y", b"X: a\0", b"X\x80: y"])
def test_a_line_that_is_no_field_is_refused_each_time(line: bytes) -> None:
    for _ in range(2):
        with pytest.raises(errors.BadRequest):
            fields_of(line)


def test_a_line_that_means_nothing_here_passes() -> None:
    assert read_line(b"Accept: */*", False) is None
    assert read_line(b"X-Real-IP: x", True) == (b"x-real-ip", b"x", True)
    assert read_line(b"X-Real-IP: x", False) == (b"x-real-ip", b"x", False)


@pytest.mark.parametrize(
    "lines",
    [(b"Connection: " + b"a," * 100,), (b"Connection: upgrade", b"Upgrade: a" + b",a" * 100)],
)
def test_a_list_of_very_many_items_is_refused(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(errors.BadRequest):
        fields_of(*lines)


def test_what_is_remembered_is_bounded() -> None:
    """A client that sends ever new fields takes no memory, and large ones are not kept at all."""
    lines, meanings = request_fields._known_line, request_fields._known_meaning
    fields_of(b"X: y")
    before = lines.cache_info().currsize, meanings.cache_info().currsize
    long = b"X: " + b"y" * 5000
    assert fields_of(long)[1] == long + b"\r\n"
    assert (lines.cache_info().currsize, meanings.cache_info().currsize) == before
    for number in range(3000):
        fields_of(b"Expect: 100-continue", b"User-Agent: %d" % number)
    assert lines.cache_info().currsize <= 1024 and meanings.cache_info().currsize <= 512


def test_what_has_been_understood_is_the_same_object() -> None:
    assert fields_of(b"X: 1")[0] is fields_of(b"X: 2")[0]
    assert understood((), True, PEER, False).host == ""

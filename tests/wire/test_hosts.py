"""Which spellings of a host are one, and which are refused (RFC 9110 section 7.2, RFC 3986)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autostart_proxy.errors import BadHost
from autostart_proxy.wire.hosts import Routes, canonical_host

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"a.example", "a.example"),
        (b"A.EXAMPLE:8080", "a.example"),
        (b"a.example.", "a.example"),
        (b"a.example.:80", "a.example"),
        (b"a.example:", "a.example"),
        (b"a.example:65535", "a.example"),
        (b"faster_whisper.local", "faster_whisper.local"),
        (b"xn--mller-kva.example", "xn--mller-kva.example"),
        (b"127.0.0.1:8890", "127.0.0.1"),
        (b"[::1]:8890", "[::1]"),
        (b"[0:0:0:0:0:0:0:1]", "[::1]"),
        (b"[2001:DB8::A]:", "[2001:db8::a]"),
        (b"[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]"),
        (b"[::FFFF:7f00:1]:80", "[::ffff:127.0.0.1]"),
        (b"[::127.0.0.1]", "[::7f00:1]"),
        ("A.Example", "a.example"),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
    ],
)
def test_one_host_has_one_canonical_spelling(authority: bytes | str, host: str) -> None:
    assert canonical_host(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        b"",
        b".",
        b":80",
        b"..",
        b"a..example",
        b"a.example..",
        b".a.example",
        b"a/b",
        b"a\\b",
        b"a b",
        b" a",
        b"a\n",
        b"a\0",
        b"a\x7f",
        b"a\xe9.example",
        "müller.example",
        "\u212aelvin.example",  # lower() would make it an ASCII k
        b"a%41",
        b"a,b",
        b"a@b",
        b"user@a.example",
        b"-a.example",
        b"a-.example",
        b"a.example:x",
        b"a.example:+80",
        b"a.example:65536",
        b"a.example:000080",
        b"a.example:80:80",
        "a.example:\u0668\u0660",  # digits, but not ASCII ones
        b"[::1",
        b"::1",
        b"[]",
        b"[a.example]",
        b"[1::2::3]",
        b"[::1]x",
        b"[::1].",
        b"[fe80::1%25eth0]",
        b"[v1.x]",
        b"a" * 64 + b".example",
        b".".join([b"a" * 49] * 5 + [b"abcd"]) + b":65535",
        b"a" * 10_000,
    ],
)
def test_what_is_no_host_is_refused(authority: bytes | str) -> None:
    with pytest.raises(BadHost):
        canonical_host(authority)


def test_a_name_may_have_253_characters_and_no_more() -> None:
    longest = ".".join(["a" * 49] * 5 + ["abc"])
    assert len(longest) == 253
    assert canonical_host(f"{longest}.:65535") == longest
    with pytest.raises(BadHost):
        canonical_host(longest + "d")


@given(NAME, st.booleans(), st.none() | st.integers(0, 65535))
def test_case_dot_and_port_make_no_difference(name: str, dot: bool, port: int | None) -> None:
    spelt = name.upper() + ("." if dot else "") + ("" if port is None else f":{port}")
    assert canonical_host(spelt.encode()) == name


@given(st.binary(max_size=40) | st.text("ab.:[]-_19 \\/", max_size=12).map(str.encode))
def test_a_canonical_host_is_its_own_canonical_spelling(authority: bytes) -> None:
    try:
        host = canonical_host(authority)
    except BadHost:
        return
    assert canonical_host(host) == host == host.lower()


def test_refusals_are_not_remembered() -> None:
    before = canonical_host.cache_info().currsize
    for number in range(100):
        with pytest.raises(BadHost):
            canonical_host(f"refused..{number}")
    assert canonical_host.cache_info().currsize == before


@dataclass
class Named:
    aliases: tuple[str, ...] = ()


def test_a_service_is_found_by_its_host_and_by_its_aliases() -> None:
    routes = Routes({"a.example": Named(("b.example", "[::1]")), "c.example": Named()})
    assert routes.find("a.example") == "a.example"
    assert routes.find("b.example") == "a.example"
    assert routes.find("[::1]") == "a.example"
    assert routes.find("c.example") == "c.example"
    assert routes.find("d.example") is None
    assert routes.find("") is None

"""How values are written: what is read, and what is refused with which cure."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from autostart_proxy.config import values


def read(kind: Any, written: object) -> Any:
    return TypeAdapter(kind).validate_python(written)


def refusal(kind: Any, written: object) -> str:
    with pytest.raises(ValidationError) as caught:
        read(kind, written)
    [only] = caught.value.errors()
    return only["msg"]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0),
        (1.5, 1.5),
        (0, 0.0),
        ("90s", 90.0),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("1d1h1m1s500ms", 90061.5),
        ("0s", 0.0),
        ("365d", 365 * 86400.0),
    ],
)
def test_durations_are_seconds(written: object, seconds: float) -> None:
    assert values.seconds(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    ["", "90", "s", "30 s", "30S", "30sec", "1m1h", "1m1m", "-1s", "+1s", "1e3s", ".5s", "1.s"]
    + ["٣s", "90s\n", "1234567890s", None, True, [30], {}],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected seconds, or a duration"):
        values.seconds(written)


@pytest.mark.parametrize("written", [-1, -0.001, 365 * 86400 + 1, 10**400, "366d"])
def test_a_duration_has_limits(written: object) -> None:
    with pytest.raises(ValueError, match="a year"):
        values.seconds(written)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_units_add_up(hours: int, minutes: int, seconds: int) -> None:
    written = f"{hours}h{minutes}m{seconds}s"
    assert values.seconds(written) == hours * 3600 + minutes * 60 + seconds


def test_some_durations_must_be_longer_than_nothing() -> None:
    assert values.positive_seconds("1ms") == 0.001
    with pytest.raises(ValueError, match="more than 0"):
        values.positive_seconds(0)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (524288000, 524288000),
        ("1B", 1),
        ("500MB", 500_000_000),
        ("500MiB", 500 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("1GB", 10**9),
    ],
)
def test_sizes_are_bytes(written: object, size: int) -> None:
    assert values.size(written) == size


@pytest.mark.parametrize(
    "written", ["500M", "500", "MB", "1mb", "-1B", "1  MB", -1, 1.5, True, None]
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="MiB"):
        values.size(written)


@pytest.mark.parametrize(
    ("written", "ranges"),
    [
        (200, ((200, 200),)),
        ("204", ((204, 204),)),
        ("200-399", ((200, 399),)),
        ([200, "401-403"], ((200, 200), (401, 403))),
        (((200, 299), (401, 401)), ((200, 299), (401, 401))),
    ],
)
def test_statuses_are_ranges(written: object, ranges: object) -> None:
    assert read(values.Statuses, written) == ranges


@pytest.mark.parametrize(
    "written",
    [99, 600, "399-200", "2xx", "<500", [200, None], [[200, 299]], None, True, 2.0, {}]
    + [((299, 200),), ((200, 299, 300),)],
)
def test_what_is_no_status_is_refused(written: object) -> None:
    assert "expected a status, a range" in refusal(values.Statuses, written)


@pytest.mark.parametrize("written", ["/", "/health?full=1", "/a%20b", '/"~'])
def test_a_request_path_is_kept_as_it_is(written: str) -> None:
    assert read(values.RequestPath, written) == written


@pytest.mark.parametrize("written", ["", "health", "/a b", "/a\r\nX: y", "/ä", "/a#b", None, 1])
def test_what_is_no_request_path_is_refused(written: object) -> None:
    assert "begins with /" in refusal(values.RequestPath, written)


def test_an_absolute_path_is_kept() -> None:
    assert values.absolute_path(Path("/opt/a")) == Path("/opt/a")
    assert values.absolute_path("/opt/whisper-faster/") == Path("/opt/whisper-faster")
    assert values.absolute_path("/opt/mit leer $(id)") == Path("/opt/mit leer $(id)")


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("../x", "absolute"),
        ("x", "absolute"),
        ("", "absolute"),
        ("-f", "absolute"),
        ("$(id)", "not expanded; expected an absolute"),
        ("~/x", "not expanded; expected an absolute"),
        ("/opt/../etc", "without .."),
        ("/opt/\0", "expected a path"),
        ("/opt/\n", "expected a path"),
        (None, "expected a path"),
        (3, "expected a path"),
    ],
)
def test_a_path_that_depends_on_something_is_refused(written: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        values.absolute_path(written)


def test_the_path_of_a_socket_fits_into_the_kernels_address() -> None:
    longest = "/" + "ä" * 53
    assert values.socket_path(longest) == Path(longest)
    with pytest.raises(ValueError, match="107"):
        values.socket_path(longest + "x")


@pytest.mark.parametrize(
    ("written", "host"),
    [("A.example.", "a.example"), ("[::0:1]", "[::1]"), ("a_b", "a_b"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_host_is_made_canonical(written: str, host: str) -> None:
    assert values.host(written) == host


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("a.example:80", "without scheme, port or path; write a.example"),
        ("a.example:", "without scheme, port or path; write a.example"),
        ("[::1]:80", r"without scheme, port or path; write \[::1\]"),
        ("https://a.example", "without scheme, port or path; write a.example$"),
        ("HTTPS://A.example:8443/path?x#y", "without scheme, port or path; write a.example$"),
        ("//a.example", "without scheme, port or path; write a.example$"),
        (" a.example\n", "without scheme, port or path; write a.example$"),
        ("http://[::1]:80/", r"without scheme, port or path; write \[::1\]"),
        ("https://müller.example/", "; write xn--mller-kva.example"),
        ("https://", "this is not a host name$"),
        ("müller.example", "; write xn--mller-kva.example"),
        ("a b", "this is not a host name$"),
        ("ä b", "this is not a host name$"),
        ("ä..b", "this is not a host name$"),
        ("*.a.example", "this is not a host name$"),
        (3, "expected a host name"),
    ],
)
def test_what_is_no_host_is_refused(written: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        values.host(written)


@pytest.mark.parametrize(
    ("written", "address"),
    [("127.0.0.1", "127.0.0.1"), ("0::1", "::1"), ("Engine", "engine"), ("[::1]", "[::1]")],
)
def test_an_address_is_a_name_or_an_ip_address(written: str, address: str) -> None:
    assert values.address(written) == address


@pytest.mark.parametrize("written", ["", "a b", 3, None, "127.0.0.1:80"])
def test_what_is_no_address_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="host"):
        values.address(written)


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("127.0.0.1:8890", ("127.0.0.1", 8890)),
        ("[::1]:8890", ("::1", 8890)),
        ("localhost:0", ("localhost", 0)),
        ("unix:/run/x.sock", Path("/run/x.sock")),
    ],
)
def test_a_place_to_listen_is_a_port_or_a_socket(written: str, where: object) -> None:
    assert values.listen(written) == where
    assert values.listen_text(written) == written


@pytest.mark.parametrize(
    "written",
    ["8890", ":8890", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http", "::1:8890"]
    + ["[::1:8890", "[a]:1", "unix:x.sock", "unix:", "a b:1", 8890, None],
)
def test_what_is_no_place_to_listen_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected|not a host name"):
        values.listen_text(written)


def test_networks_are_read_in_cidr_notation() -> None:
    assert values.network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert values.network("::1") == ip_network("::1/128")
    assert values.network(ip_network("::1/128")) == ip_network("::1/128")
    for written in ("10.0.0.1/8", "localhost", 3, None):
        with pytest.raises(ValueError, match="IP address or a network"):
            values.network(written)


@pytest.mark.parametrize(
    ("kind", "good", "bad", "reason"),
    [
        (values.Line, ["Whisper – API"], ["", "a\nb", "\x1b[31m", 3, None], "a line of text"),
        (values.Argument, ["", "$(id)\n"], ["\0", 8001, None], "a string; put numbers in quotes"),
        # An option must not pass for a container.
        (
            values.Container,
            ["faster-whisper_1.0"],
            ["-f", "--all", "a b", "", "a/b", "a\n", 3],
            "the name of a service in the Compose file",
        ),
        (values.Variable, ["A_1", "_"], ["1A", "A=B", "A B", "", "Ä"], "a name of letters"),
        (values.Port, [1, 65535], [0, 65536, True, 1.0, "1", None], "from 1 to 65535"),
        (values.Count, [1, 10**6], [0, True, 1.0, "1", None], "a whole number of at least 1"),
        (values.Blocking, [True, False, "auto"], ["Auto", 1, 0, [], None], "true, false or"),
        (values.Containers, [("a", "b")], ["a", {}, None, 3], "valid tuple"),
        (values.Containers, [("a",)], [[], ()], "expected a list that is not empty"),
        (values.Command, [("a", "")], [[]], "expected a list that is not empty"),
    ],
)
def test_a_kind_of_value_is_kept_or_refused_in_one_sentence(
    kind: Any, good: list[object], bad: list[object], reason: str
) -> None:
    for written in good:
        value = read(kind, written)
        assert value == written
        assert type(value) is type(written)
    for written in bad:
        assert reason in refusal(kind, written)


def test_of_a_list_only_the_members_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        read(values.Containers, ["a", "-b", "c", 3])
    assert [each["loc"] for each in caught.value.errors()] == [(1,), (3,)]

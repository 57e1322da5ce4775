"""How values are written: what is read, and what is refused with which cure."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autostart_proxy import notation
from autostart_proxy.notation import Form


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
    assert notation.seconds(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    ["", "90", "s", "30 s", "30S", "30sec", "1m1h", "1m1m", "-1s", "+1s", "1e3s", ".5s", "1.s"]
    + ["٣s", "90s\n", "1234567890s", None, True, [30], {}],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected seconds, or a duration"):
        notation.seconds(written)


@pytest.mark.parametrize("written", [-1, -0.001, 365 * 86400 + 1, 10**400, "366d"])
def test_a_duration_has_limits(written: object) -> None:
    with pytest.raises(ValueError, match="a year"):
        notation.seconds(written)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_units_add_up(hours: int, minutes: int, seconds: int) -> None:
    written = f"{hours}h{minutes}m{seconds}s"
    assert notation.seconds(written) == hours * 3600 + minutes * 60 + seconds


def test_some_durations_must_be_longer_than_nothing() -> None:
    assert notation.positive_seconds("1ms") == 0.001
    with pytest.raises(ValueError, match="more than 0"):
        notation.positive_seconds(0)


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
    assert notation.size(written) == size


@pytest.mark.parametrize(
    "written", ["500M", "500", "MB", "1mb", "-1B", "1  MB", -1, 1.5, True, None]
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="MiB"):
        notation.size(written)


@pytest.mark.parametrize(
    ("written", "ranges"),
    [
        (200, ((200, 200),)),
        ("204", ((204, 204),)),
        ("200-399", ((200, 399),)),
        ([200, "401-403"], ((200, 200), (401, 403))),
    ],
)
def test_statuses_are_ranges(written: object, ranges: object) -> None:
    assert notation.statuses(written) == ranges


@pytest.mark.parametrize(
    "written", [99, 600, "399-200", "2xx", "<500", [], [200, None], None, True, 2.0]
)
def test_what_is_no_status_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="status"):
        notation.statuses(written)


@pytest.mark.parametrize("written", ["/", "/health?full=1", "/a%20b", '/"~'])
def test_a_request_path_is_kept_as_it_is(written: str) -> None:
    assert notation.request_path(written) == written


@pytest.mark.parametrize("written", ["", "health", "/a b", "/a\r\nX: y", "/ä", "/a#b", None, 1])
def test_what_is_no_request_path_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="begins with /"):
        notation.request_path(written)


def test_an_absolute_path_is_kept() -> None:
    assert notation.absolute_path("/opt/whisper-faster/") == Path("/opt/whisper-faster")
    assert notation.absolute_path("/opt/mit leer $(id)") == Path("/opt/mit leer $(id)")


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
        notation.absolute_path(written)


def test_the_path_of_a_socket_fits_into_the_kernels_address() -> None:
    longest = "/" + "ä" * 53
    assert notation.socket_path(longest) == Path(longest)
    with pytest.raises(ValueError, match="107"):
        notation.socket_path(longest + "x")


@pytest.mark.parametrize(
    ("written", "host"),
    [("A.example.", "a.example"), ("[::0:1]", "[::1]"), ("a_b", "a_b"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_host_is_made_canonical(written: str, host: str) -> None:
    assert notation.host(written) == host


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("a.example:80", "without its port; write a.example"),
        ("a.example:", "without its port; write a.example"),
        ("[::1]:80", r"without its port; write \[::1\]"),
        ("müller.example", "; write xn--mller-kva.example"),
        ("a b", "this is not a host name$"),
        ("ä b", "this is not a host name$"),
        ("ä..b", "this is not a host name$"),
        ("https://a.example", "this is not a host name$"),
        ("*.a.example", "this is not a host name$"),
        (3, "expected a host name"),
    ],
)
def test_what_is_no_host_is_refused(written: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        notation.host(written)


@pytest.mark.parametrize(
    ("written", "address"),
    [("127.0.0.1", "127.0.0.1"), ("0::1", "::1"), ("Engine", "engine"), ("[::1]", "[::1]")],
)
def test_an_address_is_a_name_or_an_ip_address(written: str, address: str) -> None:
    assert notation.address(written) == address


@pytest.mark.parametrize("written", ["", "a b", 3, None, "127.0.0.1:80"])
def test_what_is_no_address_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="host"):
        notation.address(written)


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
    assert notation.listen(written) == where
    assert notation.listen_text(written) == written


@pytest.mark.parametrize(
    "written",
    ["8890", ":8890", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http", "::1:8890"]
    + ["[::1:8890", "[a]:1", "unix:x.sock", "unix:", "a b:1", 8890, None],
)
def test_what_is_no_place_to_listen_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected|not a host name"):
        notation.listen_text(written)


def test_networks_are_read_in_cidr_notation() -> None:
    assert notation.network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert notation.network("::1") == ip_network("::1/128")
    for written in ("10.0.0.1/8", "localhost", 3, None):
        with pytest.raises(ValueError, match="IP address or a network"):
            notation.network(written)


def test_text_is_a_line_that_says_something() -> None:
    assert notation.text("Whisper – API") == "Whisper – API"
    for written in ("", "a\nb", "\x1b[31m", 3, None):
        with pytest.raises(ValueError, match="line of text"):
            notation.text(written)


def test_an_argument_may_be_anything_but_nul() -> None:
    assert notation.argument("") == ""
    assert notation.argument("$(id)\n") == "$(id)\n"
    for written in ("\0", 8001, None):
        with pytest.raises(ValueError, match="quotes"):
            notation.argument(written)


def test_a_container_is_never_an_option() -> None:
    assert notation.container("faster-whisper_1.0") == "faster-whisper_1.0"
    for written in ("-f", "--all", "a b", "", "a/b", 3):
        with pytest.raises(ValueError, match="Compose file"):
            notation.container(written)


def test_variables_are_names_and_strings() -> None:
    assert notation.variables({"A_1": "", "b": "x=y"}) == {"A_1": "", "b": "x=y"}
    for written, reason in [
        ({"1A": "x"}, "'1A' is no name"),
        ({"A=B": "x"}, "no name"),
        ({"PORT": 8001}, "PORT: .*quotes"),
        (["A=b"], "object"),
    ]:
        with pytest.raises(ValueError, match=reason):
            notation.variables(written)


def test_a_value_of_a_variable_is_never_repeated() -> None:
    with pytest.raises(ValueError, match="TOKEN") as caught:
        notation.variables({"TOKEN": "hf_secret\0"})
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "written", "reason"),
    [
        (notation.whole(1, 9), 0, "from 1 to 9"),
        (notation.whole(1, 9), 10, "from 1 to 9"),
        (notation.whole(1), 0, "of at least 1"),
        (notation.whole(1), True, "whole number"),
        (notation.whole(1), 1.0, "whole number"),
        (notation.whole(1), "1", "whole number"),
        (notation.one_of(True, False, "auto"), "Auto", 'expected true, false or "auto"'),
        (notation.one_of(True, False, "auto"), 1, "expected true"),
        (notation.one_of(True, False, "auto"), [], "expected true"),
        (notation.nullable(notation.TEXT), "", "line of text"),
        (notation.list_of(notation.TEXT), "a", "a list"),
        (notation.list_of(notation.TEXT), ["a", ""], "item 2: expected a line"),
        (notation.list_of(notation.TEXT, at_least=1), [], "not empty"),
    ],
)
def test_a_form_refuses_what_does_not_fit(form: Form, written: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        form.read(written)


@pytest.mark.parametrize(
    ("form", "written", "value"),
    [
        (notation.whole(1, 9), 9, 9),
        (notation.whole(1), 10**6, 10**6),
        (notation.one_of(True, False, "auto"), False, False),
        (notation.one_of(True, False, "auto"), "auto", "auto"),
        (notation.nullable(notation.TEXT), None, None),
        (notation.nullable(notation.TEXT), "a", "a"),
        (notation.list_of(notation.TEXT), [], ()),
        (notation.list_of(notation.TEXT, at_least=1), ["a", "b"], ("a", "b")),
    ],
)
def test_a_form_reads_what_fits(form: Form, written: Any, value: Any) -> None:
    assert form.read(written) == value

"""The proxy's own answers."""

from __future__ import annotations

import json
import re

import pytest

from autostart_proxy import errors, pages
from autostart_proxy.wire import own_responses
from tests.relay.wire import read_message

ERROR = pages.template("error.html")
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        (b"text/html", True),
        (b"TEXT/HTML ; q=0.5, */*;q=0.1", True),
        (b"application/xhtml+xml", True),
        (b"", False),
        (b"*/*", False),
        (b"application/json", False),
        (b"application/json, text/html;q=0.9", False),
        (b"text/html;q=0.9, application/json;q=0.9", True),
        (b"text/html;q=0", False),
        (b"text/html;q=0.2, application/*;q=0.4", False),
        (b"text/html;q=nonsense", True),
        (b"\xff\xfe", False),
        (b"text/x," * 40 + b"text/html", False),
        (b"text/html" + b",text/x" * 4000, True),
    ],
)
def test_html_is_for_those_who_ask_for_it(accept: bytes, html: bool) -> None:
    assert own_responses.prefers_html(accept) is html


@pytest.mark.parametrize(
    ("method", "mode", "accept", "navigation"),
    [
        ("GET", b"navigate", b"*/*", True),
        ("HEAD", b"navigate", b"", True),
        ("GET", b"cors", BROWSER, False),
        ("GET", b"", BROWSER, True),
        ("GET", b"", b"*/*", False),
        ("POST", b"navigate", BROWSER, False),
    ],
)
def test_a_navigation_is_a_browser_that_opens_a_page(
    method: str, mode: bytes, accept: bytes, navigation: bool
) -> None:
    assert own_responses.is_navigation(method, mode, accept) is navigation


def every_error() -> list[type[errors.ProxyError]]:
    found, todo = [], [errors.ProxyError]
    while todo:
        todo += (children := todo.pop().__subclasses__())
        found += [child for child in children if "status" in vars(child)]
    return found


@pytest.mark.parametrize("error", every_error())
@pytest.mark.parametrize("accept", [b"application/json", BROWSER])
def test_every_error_is_one_complete_message(error: type[errors.ProxyError], accept: bytes) -> None:
    written = own_responses.error_response(
        error(detail="/secret"),
        page=ERROR,
        request_id=b"id-1",
        accept=accept,
        head_only=False,
        close=True,
    )
    head, _, body = written.partition(b"\r\n\r\n")
    got = read_message(head)
    assert got.status == error.status
    assert int(got["content-length"]) == len(body)
    assert got["cache-control"] == "no-store"
    assert got["x-request-id"] == "id-1"
    assert got["connection"] == "close"
    assert ("retry-after" in got) is (error.status == 503)
    assert error.tag.encode() in body
    assert b"id-1" in body
    assert b"secret" not in written
    if accept is not BROWSER:
        assert json.loads(body) == {
            "error": error.tag, "message": error.message, "request_id": "id-1",
        }  # fmt: skip
    else:
        assert b"<!doctype html>" in body
        assert not re.search(rb"(?:src|href)=(?!.data:)|//", body), (
            "the page must need nothing else"
        )


def test_what_is_remembered_of_an_error_is_not_its_request_nor_its_message() -> None:
    written = set()
    for error in (errors.BadRequest(), errors.BadRequest("Why."), errors.UnknownHost()):
        for id_, head_only, close in (
            (b"1", False, True),
            (b"22", False, False),
            (b"1", True, True),
        ):
            response = own_responses.error_response(
                error, page=ERROR, request_id=id_, accept=b"", head_only=head_only, close=close
            )
            head, _, body = response.partition(b"\r\n\r\n")
            got = read_message(head)
            assert (got.status, got["x-request-id"]) == (error.status, id_.decode())
            assert int(got["content-length"]) == len(body) or head_only
            assert ("connection" in got) is close
            assert head_only or json.loads(body)["message"] == error.public
            written.add(response)
    assert len(written) == 9


def test_pages_escape_what_they_show() -> None:
    error = errors.StartFailed("<b>&")
    page = own_responses.error_response(
        error, page=ERROR, request_id=b"id", accept=BROWSER, head_only=False, close=False
    )
    assert b"&lt;b&gt;&amp;" in page and b"<b>" not in page


def test_any_other_message_is_complete_as_well() -> None:
    head, _, body = own_responses.response(
        303, "ready", "text/plain", "\u00fc", request_id=b"id-1",
        location="/a%20b", head_only=False, close=True,
    ).partition(b"\r\n\r\n")  # fmt: skip
    got = read_message(head)
    assert (got.status, got["x-autostart"], got["x-request-id"]) == (303, "ready", "id-1")
    assert (got["location"], got["connection"]) == ("/a%20b", "close")
    assert (got["cache-control"], "retry-after" in got) == ("no-store", False)
    assert (body.decode(), got["content-length"]) == ("\u00fc", "2")

"""The waiting page's words and paths."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from autostart_proxy import pages
from autostart_proxy.wire import waiting
from autostart_proxy.wire.waiting import Outlook

WAKING = waiting.waking("WhisperX", 3.2, 5.1)
FAILED = waiting.failed("WhisperX", "The service could not be started.", 3.2)


def written(outlook: Outlook = WAKING, target: str = "/", **words: str) -> str:
    usual = {"host": "whisperx.example.org", "request_id": "4b98dcc623-1"}
    return waiting.page(pages.template("waiting.html"), outlook, target=target, **usual | words)


class _Found(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def the(self, tag: str) -> dict[str, str | None]:
        (found,) = [attributes for name, attributes in self.tags if name == tag]
        return found


def test_a_page_without_script_asks_the_proxy_and_not_the_visitors_address() -> None:
    page = written(target="/a?b=1&c=%20#d")
    found = _Found(page)
    (refresh,) = [each for tag, each in found.tags if each.get("http-equiv") == "refresh"]
    assert refresh["content"] == (
        "2;url=/.well-known/autostart-proxy/waiting?to=%2Fa%3Fb%3D1%26c%3D%2520%23d"
    )
    target = refresh["content"].partition("url=")[2].encode()
    assert waiting.target_of_page(target) == "/a?b=1&c=%20#d"


def test_a_page_with_a_very_long_address_begins_at_the_top() -> None:
    assert 'waiting?to=%2F"' in written(target="/" + "a" * 5000)


def test_a_failure_offers_the_next_try_and_does_not_try_by_itself() -> None:
    page = written(FAILED, target="/a?b=1")
    assert "http-equiv" not in page
    assert "The service could not be started." in page
    assert "The next try is possible in 4 s." in page
    assert "4b98dcc623-1" in page
    link = _Found(page).the("a")
    assert link["href"] == "/a?b=1"


def test_nothing_that_is_filled_in_becomes_markup() -> None:
    evil = '"><script>alert(1)</script>'
    page = written(waiting.failed(evil, evil, 0), target=f"/{evil}", host=evil, request_id=evil)
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_what_is_told_is_told_as_json() -> None:
    assert json.loads(FAILED.as_json()) == {
        **{"state": "failed", "headline": "WhisperX is not available", "action": "Try again"},
        **{"words": "The service could not be started.", "retry_seconds": 3.2},
        **{"elapsed_seconds": 0.0, "expected_seconds": None},
    }


def test_what_the_last_start_took_is_told_where_it_is_known() -> None:
    assert "The last start took 5 s." in WAKING.words
    assert "took" not in waiting.waking("WhisperX", 3.2, None).words
    assert "took 1 s" in waiting.waking("WhisperX", 0, 0.02).words


@pytest.mark.parametrize(
    ("outlook", "over"),
    [
        (WAKING, False),
        (waiting.ready("A"), False),
        (FAILED, True),
        (waiting.asleep("A"), True),
    ],
)
def test_where_nothing_is_to_be_waited_for_there_is_something_to_press(
    outlook: Outlook, over: bool
) -> None:
    assert outlook.over is over
    assert bool(outlook.action) is over
    assert ("http-equiv" in written(outlook)) is not over


@pytest.mark.parametrize(
    ("target", "local"),
    [
        (b"/", "/"),
        (b"/a%20b?c=d&e", "/a%20b?c=d&e"),
        (b"/\xc3\xa9", "/%C3%A9"),
        (b"/a//b", "/a//b"),
        (b"//evil.example/", "/"),
        (b"/\\evil.example/", "/%5Cevil.example/"),
        (b"http://evil.example/", "/"),
        (b"javascript:alert(1)", "/"),
        (b"*", "/"),
        (b"", "/"),
        (b'/"<>', "/%22%3C%3E"),
    ],
)
def test_a_target_leads_nowhere_but_to_the_same_site(target: bytes, local: str) -> None:
    assert waiting.local_target(target) == local


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (b"", "/"),
        (b"?to=", "/"),
        (b"?to=%2Fa%3Fb%3D%2520", "/a?b=%20"),
        (b"?x=1&to=%2Fa", "/a"),
        (b"?to=%2F%2Fevil.example", "/"),
        (b"?to=%2F%5Cevil.example", "/%5Cevil.example"),
        (b"?to=%2Fa%0d%0aSet-Cookie:%20x", "/a%0D%0ASet-Cookie:%20x"),
        (b"?to=%2F%C3%A9", "/%C3%A9"),
    ],
)
def test_a_page_leads_on_to_what_it_was_told(query: bytes, target: str) -> None:
    assert waiting.target_of_page(waiting.PAGE_PATH + query) == target

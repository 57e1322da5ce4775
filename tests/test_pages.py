"""The pages that the proxy shows in its own name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autostart_proxy import pages

PLACES = {
    "error.html": {"title", "message", "tag", "request_id"},
    "waiting.html": {
        "refresh", "state", "headline", "words", "to", "action", "due", "choice_hidden",
        "elapsed_seconds", "expected_seconds", "retry_seconds", "host", "request_id", "state_path",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_page_has_places_for_what_is_told_and_no_other(name: str) -> None:
    page = pages.template(name)
    assert set(page.get_identifiers()) == PLACES[name]
    filled = page.substitute(dict.fromkeys(PLACES[name], "WORD"))
    assert filled.count("WORD") >= len(PLACES[name])


@pytest.mark.parametrize("name", PLACES)
def test_a_page_asks_for_nothing_from_elsewhere(name: str) -> None:
    assert not re.search(
        r"(?:src|href)\s*=(?!\"(?:\$|data:))|//|@import|url\(", pages.template(name).template
    )


def test_a_page_is_read_once() -> None:
    assert pages.template("error.html") is pages.template("error.html")


def test_every_page_of_the_folder_is_used() -> None:
    folder = Path(pages.__file__).parent
    assert {each.name for each in folder.glob("*.html")} == PLACES.keys()

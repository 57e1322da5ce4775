"""The formats that clients may ask for."""

from __future__ import annotations

import pytest
from speech_service.contract.response_format import ResponseFormat


@pytest.mark.parametrize("name", ["json", "text", "srt", "verbose_json", "vtt", "diarized_json"])
def test_a_format_is_asked_for_by_openais_name(name: str) -> None:
    assert ResponseFormat(name).value == name


def test_subtitles_are_cut_between_words_and_nothing_else_needs_their_times() -> None:
    assert [format for format in ResponseFormat if format.wants_words] == ["srt", "vtt"]

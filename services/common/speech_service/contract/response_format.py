"""The formats of a transcript that OpenAI's clients may ask for."""

from __future__ import annotations

from enum import StrEnum


class ResponseFormat(StrEnum):
    """The values of OpenAI's `response_format`; the last is for engines that know speakers."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VERBOSE_JSON = "verbose_json"
    VTT = "vtt"
    DIARIZED_JSON = "diarized_json"

    @property
    def wants_words(self) -> bool:
        """Whether the format needs word times: subtitles are cut between words."""
        return self in (ResponseFormat.SRT, ResponseFormat.VTT)

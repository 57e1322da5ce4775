"""Writers of the response formats: json, verbose_json, diarized_json, text, srt, vtt, tsv.

Pure functions of a `Transcript`; what they return is ready for the wire.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from itertools import groupby
from json import dumps
from typing import Any

from ..contract.transcript import Segment, Transcript, Word
from .cues import cues

JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"
VTT = "text/vtt; charset=utf-8"


def duration_usage(seconds: float) -> dict[str, Any]:
    """Return OpenAI's `usage` object of models that are billed by duration."""
    return {"type": "duration", "seconds": round(seconds, 3)}


def token_usage(transcript: Transcript) -> dict[str, Any]:
    """Return OpenAI's `usage` object of streamed transcriptions, with the duration added.

    OpenAI's type for the last streamed event knows token counts only. An input token is one
    position of Whisper's encoder, 20 ms of audio.
    """
    seconds = transcript.summary.duration
    audio, output = math.ceil(seconds * 50), transcript.output_tokens
    return {
        "type": "tokens",
        "input_tokens": audio,
        "input_token_details": {"audio_tokens": audio, "text_tokens": 0},
        "output_tokens": output,
        "total_tokens": audio + output,
        "seconds": round(seconds, 3),
    }


def warnings(transcript: Transcript) -> dict[str, list[str]]:
    """Return the field that says what was asked for and could not be done, if there is such."""
    found = transcript.summary.warnings
    return {"warnings": list(found)} if found else {}


def json(transcript: Transcript) -> dict[str, Any]:
    """Return OpenAI's `json` response."""
    usage = duration_usage(transcript.summary.duration)
    return {"text": transcript.text, "usage": usage, **warnings(transcript)}


def verbose_json(transcript: Transcript, words: bool = False) -> dict[str, Any]:
    """Return OpenAI's `verbose_json` response; `language` is a code, as Whisper servers have it.

    Args:
        words: whether `timestamp_granularities[]` asks for words: in one list, as OpenAI has them,
            and in their segments, as Whisper and faster-whisper-server do.
    """
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": transcript.language,
        "duration": round(transcript.summary.duration, 3),
        "text": transcript.text,
        "segments": [segment_object(segment, words) for segment in transcript.segments],
    }
    if words:
        body["words"] = [
            word_object(word) for segment in transcript.segments for word in segment.words or ()
        ]
    body["usage"] = duration_usage(transcript.summary.duration)
    return body | warnings(transcript)


def diarized_json(transcript: Transcript) -> dict[str, Any]:
    """Return OpenAI's `diarized_json` response; a voice that nobody has is called `unknown`."""
    return {
        "task": "transcribe",
        "duration": round(transcript.summary.duration, 3),
        "text": transcript.text,
        "segments": [diarized_segment(segment) for segment in transcript.segments],
        "usage": duration_usage(transcript.summary.duration),
        **warnings(transcript),
    }


def diarized_segment(segment: Segment) -> dict[str, Any]:
    """Return one element of the `segments` of `diarized_json`, which is also a streamed event."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment.id + 1:03}",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text.strip(),
        "speaker": segment.speaker or "unknown",
    }


def whisper_json(transcript: Transcript, words: bool) -> str:
    """Return the JSON that Whisper's own command writes; words inside their segments if asked."""
    segments = [segment_object(segment, words) for segment in transcript.segments]
    body = {"text": transcript.text, "segments": segments, "language": transcript.language}
    return dumps(body | warnings(transcript), ensure_ascii=False)


def segment_object(segment: Segment, words: bool = False) -> dict[str, Any]:
    """Return one element of `segments`, with its words if asked."""
    body: dict[str, Any] = {
        "id": segment.id,
        "seek": segment.seek,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
        **({"speaker": segment.speaker} if segment.speaker else {}),
    }
    if words:
        body["words"] = [word_object(word) for word in segment.words or ()]
    return body


def word_object(word: Word) -> dict[str, Any]:
    """Return one element of `words`, without the space in front of the word.

    OpenAI has no `speaker` here; it is there where somebody asked for it.
    """
    heard = {} if word.probability is None else {"probability": word.probability}
    times = {"start": round(word.start, 3), "end": round(word.end, 3)}
    said = {"speaker": word.speaker} if word.speaker else {}
    return {"word": word.word.strip(), **times, **heard, **said}


def text(transcript: Transcript) -> str:
    """Return the bare text, ended by a line feed as OpenAI does; a line for each speaker's turn."""
    if not transcript.speakers:
        return transcript.text + "\n"
    turns = groupby(transcript.segments, lambda segment: segment.speaker)
    said = ((who, "".join(segment.text for segment in segments).strip()) for who, segments in turns)
    return "".join(f"{_named(text, who)}\n" for who, text in said)


def srt(transcript: Transcript) -> str:
    """Return SubRip subtitles: `HH:MM:SS,mmm`, numbered from 1."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n"
        # An arrow in the text would be read as a line of times.
        f"{_named(cue.text, cue.speaker).replace('-->', '->')}\n\n"
        for number, cue in enumerate(cues(transcript.segments), 1)
    )


def vtt(transcript: Transcript) -> str:
    """Return WebVTT (W3C WebVTT section 4): `HH:MM:SS.mmm`, text with `&`, `<`, `>` escaped.

    A cue's speaker is its voice span (section 4.2.2), which players can style.
    """
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        f"{f'<v {escape(cue.speaker)}>' if cue.speaker else ''}{escape(cue.text, quote=False)}\n\n"
        for cue in cues(transcript.segments)
    )


def tsv(transcript: Transcript) -> str:
    """Return Whisper's table: start and end in milliseconds and text, separated by tabs."""
    rows = (
        f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t"
        f"{_named(' '.join(segment.text.split()), segment.speaker)}\n"
        for segment in transcript.segments
    )
    return "start\tend\ttext\n" + "".join(rows)


PLAIN_WRITERS: dict[str, tuple[Callable[[Transcript], str], str]] = {
    "text": (text, PLAIN),
    "srt": (srt, PLAIN),
    "vtt": (vtt, VTT),
}
"""Formats that are text: their writer and media type."""


def _named(text: str, speaker: str | None) -> str:
    return f"{speaker}: {text}" if speaker else text


def _clock(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"

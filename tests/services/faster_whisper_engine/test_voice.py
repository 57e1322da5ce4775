"""Silence is cut away, and times are put back to where the voice was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from faster_whisper_engine.voice import Voice, padded
from speech_service.contract.transcript import VoiceActivity

RATE = 16_000


def test_quiet_is_kept_around_speech_but_never_twice() -> None:
    assert padded([(1000, 2000), (2200, 3000)], 400, 10_000) == [(600, 2100), (2100, 3400)]


def test_padding_ends_with_the_recording() -> None:
    assert padded([(100, 2000)], 400, 2100) == [(0, 2100)]
    assert padded([], 400, 2100) == []


def found(*times: tuple[float, float], words: bool = True) -> Any:
    spoken = [SimpleNamespace(start=start, end=end) for start, end in times]
    start, end = times[0][0], times[-1][1]
    return SimpleNamespace(start=start, end=end, words=spoken if words else None)


def test_words_come_back_to_where_they_were_and_never_before_the_voice() -> None:
    speech = [(RATE, 2 * RATE), (10 * RATE, 12 * RATE)]
    voice = Voice(np.zeros(0, np.float32), speech, padded(speech, 6400, 13 * RATE))
    # Of the recording 0.6 to 2.4 and 9.6 to 12.4 seconds are left.
    (segment,) = voice.restored(iter([found((0.0, 1.6), (1.8, 3.0), (3.0, 4.6))]))
    assert segment.words is not None
    times = [(round(word.start, 2), round(word.end, 2)) for word in segment.words]
    assert times == [(0.95, 2.05), (9.95, 10.8), (10.8, 12.05)]
    assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


def test_a_segment_without_words_is_tightened_too() -> None:
    speech = [(RATE, 2 * RATE)]
    voice = Voice(np.zeros(0, np.float32), speech, padded(speech, 6400, 3 * RATE))
    (segment,) = voice.restored(iter([found((0.0, 1.8), words=False)]))
    assert (round(segment.start, 2), round(segment.end, 2)) == (0.95, 2.05)


def test_silence_leaves_nothing() -> None:
    voice = Voice.of(np.zeros(3 * RATE, np.float32), VoiceActivity())
    assert (len(voice.samples), voice.speech, voice.kept) == (0, [], [])

"""Whose each word is, with a library that hears the turns the test wants."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from speech_service.contract.transcript import Speakers
from whisperx_engine.diarization import POOL_NAME, Diarizer

from ..harness import segment
from .stand_ins import stand_in

SAMPLES = np.zeros(16_000, np.float32)
SAID = segment("one two")


def assigned(turns: dict[str, Any], result: Any, fill_nearest: bool) -> Any:
    """As the library: names segments and words by when they begin."""
    assert fill_nearest
    for each in result["segments"]:
        each["speaker"] = turns["segment"]
        for word in each["words"]:
            if word["start"] in turns:
                word["speaker"] = turns[word["start"]]
    return result


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "whisperx.diarize", assign_word_speakers=assigned)


def test_segments_and_words_have_speakers_of_their_own() -> None:
    asked: dict[str, Any] = {}

    def pipeline(samples: Any, **options: Any) -> dict[Any, str]:
        asked.update(options)
        return {"segment": "SPEAKER_00", 0.0: "SPEAKER_00", 0.5: "SPEAKER_01"}

    def report(percent: float) -> None:
        """Told how far it is."""

    [found] = Diarizer(pipeline).assign([SAID], SAMPLES, Speakers(2, 1, 3), report)
    assert found.speaker == "SPEAKER_00"
    assert [word.speaker for word in found.words or ()] == ["SPEAKER_00", "SPEAKER_01"]
    assert replace(found, words=SAID.words, speaker=None) == SAID
    assert asked == {
        "num_speakers": 2,
        "min_speakers": 1,
        "max_speakers": 3,
        "progress_callback": report,
    }


def test_what_nobody_is_known_to_say_has_no_speaker() -> None:
    plain = replace(SAID, words=None)
    turns: dict[Any, Any] = {"segment": None}
    found = Diarizer(lambda samples, **options: turns).assign(
        [SAID, plain], SAMPLES, Speakers(), print
    )
    assert [each.speaker for each in found] == [None, None]
    assert [word.speaker for word in found[0].words or ()] == [None, None]
    assert found[1].words is None


def test_one_recording_is_listened_to_at_a_time() -> None:
    inside = threading.Lock()

    def pipeline(samples: Any, **options: Any) -> dict[Any, str]:
        assert inside.acquire(blocking=False), "the library keeps the state of a call in itself"
        threading.Event().wait(0.01)
        inside.release()
        return {"segment": "SPEAKER_00"}

    diarizer = Diarizer(pipeline)
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(diarizer.assign, [SAID], SAMPLES, Speakers(), print) for _ in range(4)
        ]
        assert all(each.result()[0].speaker == "SPEAKER_00" for each in asked)


def test_no_client_can_ask_for_its_model() -> None:
    assert ":" in POOL_NAME

"""Who speaks when, with a library that hears the turns the test wants."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from speech_service.contract.errors import InvalidRequest
from speech_service.contract.transcript import KnownSpeaker, Speakers
from whisperx_engine.diarization import POOL_NAME, Diarizer

from ..harness import segment

SAMPLES = np.zeros(16_000, np.float32)
SAID = segment("one two")


def table(*turns: tuple[float, float, str]) -> dict[str, list[Any]]:
    """Turns as the library has them: a table, of which its columns are used."""
    columns = [list(column) for column in zip(*turns, strict=True)] or [[], [], []]
    return dict(zip(("start", "end", "speaker"), columns, strict=True))


def test_segments_and_words_have_speakers() -> None:
    asked: dict[str, Any] = {}

    def pipeline(samples: Any, **options: Any) -> dict[str, list[Any]]:
        asked.update(options)
        return table((0.0, 0.5, "SPEAKER_07"), (0.5, 1.0, "SPEAKER_02"))

    def report(percent: float) -> None:
        """Told how far it is."""

    found = Diarizer(pipeline).assign([SAID], SAMPLES, Speakers(2, 1, 3), report)
    assert [(part.speaker, part.text) for part in found] == [
        ("SPEAKER_00", " one"),
        ("SPEAKER_01", " two"),
    ]
    assert asked == {
        "num_speakers": 2,
        "min_speakers": 1,
        "max_speakers": 3,
        "progress_callback": report,
        "return_embeddings": False,
    }


ANNA = KnownSpeaker("Anna", bytes(64_000))


def test_a_voice_that_is_known_has_its_name() -> None:
    def pipeline(samples: Any, num_speakers: int | None, **options: Any) -> Any:
        assert options.pop("return_embeddings")
        if num_speakers == 1:
            return table((0.0, 2.0, "SPEAKER_00")), {"SPEAKER_00": [0.0, 2.0]}
        turns = table((0.0, 0.5, "SPEAKER_00"), (0.5, 1.0, "SPEAKER_01"))
        return turns, {"SPEAKER_00": [1.0, 0.1], "SPEAKER_01": [0.1, 1.0]}

    diarizer = Diarizer(pipeline)
    voices = diarizer.voices([ANNA])
    assert voices == {"Anna": [0.0, 2.0]}
    found = diarizer.assign([SAID], SAMPLES, Speakers(), print, voices)
    assert [part.speaker for part in found] == ["SPEAKER_00", "Anna"]


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        ({}, "nobody is heard to speak in the recording of 'Anna'"),
        ({"SPEAKER_00": [math.nan]}, "nobody is heard to speak in the recording of 'Anna'"),
        (None, "cannot compare voices"),
    ],
)
def test_a_voice_that_is_none_is_refused(heard: Any, reason: str) -> None:
    diarizer = Diarizer(lambda samples, **options: (table(), heard))
    with pytest.raises(InvalidRequest, match=reason):
        diarizer.voices([ANNA])


def test_where_no_voices_can_be_compared_nobody_is_known() -> None:
    diarizer = Diarizer(lambda samples, **options: (table((0.0, 1.0, "A")), None))
    [found] = diarizer.assign([SAID], SAMPLES, Speakers(), print, {"Anna": [1.0]})
    assert found.speaker == "SPEAKER_00"


def test_where_nobody_is_heard_there_is_no_speaker() -> None:
    assert Diarizer(lambda samples, **options: table()).assign(
        [SAID], SAMPLES, Speakers(), print
    ) == [SAID]


def test_one_recording_is_listened_to_at_a_time() -> None:
    inside = threading.Lock()

    def pipeline(samples: Any, **options: Any) -> dict[str, list[Any]]:
        assert inside.acquire(blocking=False), "the library keeps the state of a call in itself"
        threading.Event().wait(0.01)
        inside.release()
        return table((0.0, 1.0, "SPEAKER_00"))

    diarizer = Diarizer(pipeline)
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(diarizer.assign, [SAID], SAMPLES, Speakers(), print) for _ in range(4)
        ]
        assert all(each.result()[0].speaker == "SPEAKER_00" for each in asked)


def test_no_client_can_ask_for_its_model() -> None:
    assert ":" in POOL_NAME

"""Who speaks when, with a library that hears the turns the test wants."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from speech_service.contract.transcript import Speakers
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
    }


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

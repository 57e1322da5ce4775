"""What the service asks of an engine, asked of all there are; the second one without its libraries,
which plain transcription needs none of.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from faster_whisper_engine.engine import FasterWhisper
from faster_whisper_engine.settings import EngineSettings
from numpy.typing import NDArray
from speech_service.contract.engine import SAMPLE_RATE, Abilities, Engine
from speech_service.contract.errors import ModelNotFound
from speech_service.contract.transcript import Options, Progress, Segment, Summary
from whisperx_engine.engine import WhisperX
from whisperx_engine.settings import WhisperXSettings

from ...harness import FakeEngine
from ...program import MODEL
from ...test_faster_whisper import ENGLISH

ENGINES: dict[str, Callable[[], Engine]] = {
    "fake": FakeEngine,
    "faster-whisper": lambda: FasterWhisper(EngineSettings(model=str(MODEL), offline=True)),
    "whisperx": lambda: WhisperX(WhisperXSettings(model=str(MODEL), offline=True)),
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An engine that is prepared; what it changes of the process is put back."""
    timeout, environment = socket.getdefaulttimeout(), dict(os.environ)
    with pytest.MonkeyPatch.context() as patched:
        cache = str(tmp_path_factory.mktemp("cache"))
        patched.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)
        prepared = ENGINES[request.param]()
        prepared.prepare(lambda name: nullcontext())
        yield prepared
    socket.setdefaulttimeout(timeout)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def recognizer(engine: Engine) -> Any:
    return engine.load(engine.resolve(None))


def blocks(samples: NDArray[np.int16]) -> Iterator[NDArray[np.int16]]:
    yield from np.array_split(samples, 7)


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.name and engine.default_model
    assert isinstance(engine.abilities, Abilities)


def test_its_default_model_is_here_and_has_a_name(engine: Engine) -> None:
    name = engine.resolve(None)
    assert engine.resolve("whisper-1") == engine.resolve(name) == name
    assert engine.is_local(name)
    assert name in [card.id for card in engine.local_models()]


def test_a_name_that_no_model_has_is_refused(engine: Engine) -> None:
    with pytest.raises(ModelNotFound):
        engine.resolve("no-such-model")


async def test_what_is_here_is_not_fetched(engine: Engine) -> None:
    steps: list[tuple[int, int]] = []
    await engine.fetch(engine.resolve(None), lambda done, total: steps.append((done, total)))
    assert steps == []


def test_speech_is_found_where_it_is(engine: Engine) -> None:
    quiet = np.zeros(SAMPLE_RATE, np.int16)
    samples = np.concatenate((quiet, ENGLISH.samples(), quiet))
    found = engine.speech(samples)
    assert found
    assert all(0 <= start < end <= len(samples) for start, end in found)
    assert all(one[1] <= two[0] for one, two in zip(found, found[1:], strict=False))
    assert engine.speech(quiet) == []


def test_a_recognizer_yields_segments_in_order_and_one_summary_last(recognizer: Any) -> None:
    samples = ENGLISH.samples()
    *items, summary = recognizer.transcribe(blocks(samples), Options())
    assert isinstance(summary, Summary)
    assert summary.duration == pytest.approx(len(samples) / SAMPLE_RATE)
    segments = [item for item in items if not isinstance(item, Progress)]
    assert all(isinstance(item, Segment) for item in segments)
    assert [segment.id for segment in segments] == list(range(len(segments)))
    starts = [segment.start for segment in segments]
    assert starts == sorted(starts)


def test_a_language_alone_is_told_without_a_word(recognizer: Any) -> None:
    options = Options(language_only=True)
    [summary] = recognizer.transcribe(blocks(ENGLISH.samples()), options)
    assert isinstance(summary, Summary) and summary.language


def test_a_recognizer_that_was_given_up_between_two_items_hears_the_next(recognizer: Any) -> None:
    given_up = recognizer.transcribe(blocks(ENGLISH.samples()), Options())
    first = next(given_up)
    given_up.close()
    assert next(recognizer.transcribe(blocks(ENGLISH.samples()), Options())) == first

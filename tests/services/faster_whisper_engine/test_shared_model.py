"""Several transcriptions share one model, and each hears what it would hear alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from ctranslate2 import StorageView  # type: ignore[attr-defined]
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper_engine.recognizer import WhisperRecognizer
from faster_whisper_engine.shared_model import SharedModel
from speech_service.contract.transcript import Options, Segment, Summary

from ..decoder import Watched
from ..harness import wait_until
from ..program import MODEL
from ..test_faster_whisper import ENGLISH, SHORT, Sample


@pytest.fixture(scope="module")
def whisper() -> WhisperModel:
    return WhisperModel(str(MODEL), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.fixture
def watched(whisper: WhisperModel) -> Iterator[Watched]:
    plain = whisper.model
    watched = Watched(plain)
    whisper.model = SharedModel(watched, token(whisper, "startoftranscript"))
    yield watched
    whisper.model = plain


def token(whisper: WhisperModel, name: str) -> int:
    found = whisper.hf_tokenizer.token_to_id(f"<|{name}|>")
    assert found is not None
    return found


def heard(whisper: WhisperModel, sample: Sample, **options: Any) -> list[Segment | Summary]:
    recognizer = WhisperRecognizer(whisper)
    return list(recognizer.transcribe(iter([sample.samples()]), Options(**options)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def window(whisper: WhisperModel) -> StorageView:
    features = whisper.feature_extractor(ENGLISH.samples().astype(np.float32) / 32768)
    return whisper.encode(pad_or_trim(features))


def decoded(
    whisper: WhisperModel, window: StorageView, language: str = "en", before: Sequence[int] = ()
) -> Any:
    """Decode a window, as said to be in a language and behind a text."""
    names = ["startoftranscript", language, "transcribe"]
    previous = [token(whisper, "startofprev"), *before] if before else []
    prompt = [*previous, *(token(whisper, name) for name in names)]
    (result,) = whisper.model.generate(window, [prompt])
    return result.sequences_ids


def together(
    watched: Watched, whisper: WhisperModel, work: Sequence[Callable[[], Any]]
) -> list[Future[Any]]:
    """Do all of it at once: the first one keeps the model until all others wait for it."""
    watched.let.clear()
    with ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(part) for part in work]
        wait_until(lambda: whisper.model.waiting == len(work) - 1, 30)
        watched.let.set()
    return futures


def test_what_is_heard_in_company_is_what_is_heard_alone(
    whisper: WhisperModel, watched: Watched
) -> None:
    alone = [heard(whisper, sample, words=True) for sample in SHORT]
    assert set(watched.batches) == {1}
    watched.decoded.clear()
    work = [partial(heard, whisper, sample, words=True) for sample in SHORT]
    assert [future.result() for future in together(watched, whisper, work)] == alone
    assert max(watched.batches) > len(SHORT) / 2


def test_what_waits_while_the_model_is_busy_is_one_batch(
    whisper: WhisperModel, watched: Watched, window: StorageView
) -> None:
    alone = decoded(whisper, window)
    futures = together(watched, whisper, [partial(decoded, whisper, window)] * 5)
    assert [future.result() for future in futures] == [alone] * 5
    assert watched.batches == [1, 1, 4]


def test_prompts_of_other_lengths_are_decoded_in_their_turn(
    whisper: WhisperModel, watched: Watched, window: StorageView
) -> None:
    before = whisper.hf_tokenizer.encode(" Hello world.", add_special_tokens=False).ids
    texts = [before[:count] for count in (0, 0, 1, 2, 0, 1, 0)]
    work = [partial(decoded, whisper, window, "en", text) for text in texts]
    alone = [part() for part in work]
    watched.decoded.clear()
    assert [future.result() for future in together(watched, whisper, work)] == alone
    # One by itself, and the rest by length; which was the first is left to the threads.
    assert (sum(watched.batches), len(watched.batches)) in ((7, 3), (7, 4))


def test_only_who_caused_an_error_learns_of_it(
    whisper: WhisperModel, watched: Watched, window: StorageView
) -> None:
    alone = decoded(whisper, window)
    bad = token(whisper, "fr")
    watched.fails = lambda prompts: any(bad in prompt for prompt in prompts)
    languages = ("en", "fr", "en", "en", "en")
    work = [partial(decoded, whisper, window, language) for language in languages]
    futures = together(watched, whisper, work)
    with pytest.raises(RuntimeError, match="out of memory"):
        futures.pop(1).result()
    assert [future.result() for future in futures] == [alone] * 4
    assert decoded(whisper, window) == alone


def test_several_windows_of_one_caller_are_passed_on(
    whisper: WhisperModel, watched: Watched
) -> None:
    features = np.zeros((2, 80, 3000), np.float32)
    names = ("startoftranscript", "en", "transcribe")
    prompt = [token(whisper, name) for name in names]
    window = whisper.model.encode(StorageView.from_array(features))
    assert len(whisper.model.generate(window, [prompt, prompt])) == 2
    assert (watched.encoded, watched.batches) == (1, [2])
    assert whisper.model.is_multilingual

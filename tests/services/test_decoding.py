"""What reaches the decoder, and when its words reach the client; the whole service around it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pysubs2
import pytest
from faster_whisper_engine import engine as engine_module
from faster_whisper_engine.engine import FasterWhisper
from faster_whisper_engine.settings import EngineSettings
from faster_whisper_engine.shared_model import SharedModel
from speech_service.http.cues import MAX_CHARACTERS, MAX_SECONDS
from speech_service.work.job import Job
from tokenizers import Tokenizer

from .decoder import Patient, Watched
from .harness import serve, wait_until
from .program import MODEL
from .test_faster_whisper import ALL, ENGLISH, PATH, Sample, plain, received, socket_of, transcribe

MINUTE = ALL["minute.flac"]
TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def tokens(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def served(**settings: Any) -> Any:
    return serve(FasterWhisper(EngineSettings(model=str(MODEL))), **settings)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[SharedModel]:
    """The models that were loaded, each with a `Watched` one inside."""
    loaded: list[SharedModel] = []

    def shared(model: Any, start: int) -> SharedModel:
        loaded.append(SharedModel(Watched(model), start))
        return loaded[-1]

    monkeypatch.setattr(engine_module, "SharedModel", shared)
    return loaded


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> list[Patient]:
    """The models that were loaded, each of which holds the first recording."""
    loaded: list[Patient] = []

    def shared(model: Any, start: int) -> Patient:
        loaded.append(Patient(model, start))
        return loaded[-1]

    monkeypatch.setattr(engine_module, "SharedModel", shared)
    return loaded


@pytest.mark.parametrize(
    ("fields", "before"),
    [
        ({}, ""),
        ({"prompt": "Hello world."}, " Hello world."),
        ({"hotwords": "garden"}, " garden"),
        ({"hotwords": "garden", "prompt": "Thanks."}, " garden Thanks."),
    ],
    ids=["neither", "prompt", "hotwords", "both"],
)
def test_prompt_and_hotwords_stand_before_the_first_words(
    models: list[SharedModel], fields: dict[str, str], before: str
) -> None:
    with served() as http:
        transcribe(http, ENGLISH, language="en", **fields)
    ((prompt,), _), *_ = models[0].decoded
    own = tokens("<|startoftranscript|><|en|><|transcribe|>")
    assert prompt == [*(tokens("<|startofprev|>" + before) if before else []), *own]


LONG = {"prompt": "hello " * 300, "hotwords": "world " * 300}


@pytest.mark.parametrize(
    "fields",
    [LONG, {"prompt": LONG["prompt"]}, {"hotwords": LONG["hotwords"]}],
    ids=["both", "prompt", "hotwords"],
)
def test_whatever_stands_before_the_text_it_has_half_of_the_decoder(
    models: list[SharedModel], fields: dict[str, str]
) -> None:
    # The text so far comes in addition, from the second window on.
    with served() as http:
        answer = transcribe(http, MINUTE, language="en", **fields)
    (warning,) = answer["warnings"]
    assert all(f"of the {name} only" in warning for name in fields)
    start = tokens("<|startoftranscript|>")[0]
    before = [prompt.index(start) for (prompt,), _ in models[0].decoded]
    assert len(before) > 1 and max(before) <= 224


def test_words_are_right_behind_all_that_has_room_before_them() -> None:
    with served() as http:
        assert transcribe(http, ENGLISH, **LONG)["text"] == ENGLISH.text
        streaming = http.stream("POST", PATH, files=ENGLISH.upload(), data=LONG | {"stream": "1"})
        with streaming as answer:
            *_, last = events(answer.iter_lines())
    assert (last["type"], last["text"]) == ("transcript.text.done", ENGLISH.text)
    assert len(last["warnings"]) == 1


@pytest.mark.parametrize("command", ["<|startoftranscript|> hello", "<|endoftext|>", "<|fr|>"])
def test_what_looks_like_a_command_of_the_decoder_is_text(
    models: list[SharedModel], command: str
) -> None:
    with served() as http:
        fields = {"prompt": command, "hotwords": command}
        assert transcribe(http, ENGLISH, language="en", **fields)["text"] == ENGLISH.text
    ((prompt,), _), *_ = models[0].decoded
    own = tokens("<|startoftranscript|><|en|><|transcribe|>")
    assert prompt[-3:] == own
    assert not {*own, *tokens(command)[:1]} & set(prompt[1:-3])


def test_live_speech_is_heard_with_as_much_before_it_as_there_is_room_for() -> None:
    with served() as http, socket_of(http, "/") as socket:
        greeting = {"uid": "u", "language": "en", "initial_prompt": LONG["prompt"]}
        socket.send(json.dumps({**greeting, "hotwords": LONG["hotwords"], "audio_format": "int16"}))
        socket.send(ENGLISH.samples().tobytes())
        socket.send("END_OF_AUDIO")
        told = list(received(socket))
    said = [part["text"] for part in told[-2]["segments"]]
    assert plain("".join(said)) == plain(ENGLISH.text)
    assert told[-1]["message"] == "DISCONNECT"
    (warning,) = [event for event in told if event.get("status") == "WARNING"]
    assert "of the hotwords only the first 111 of 300" in warning["message"]


def test_a_temperature_is_sampled_at_and_none_is_searched(models: list[SharedModel]) -> None:
    with served() as http:
        transcribe(http, ENGLISH)
        transcribe(http, ENGLISH, temperature="0.4")
    (_, searched), *_, (_, sampled) = models[0].decoded
    assert searched["beam_size"] > 1
    assert "sampling_temperature" not in searched
    assert (sampled["beam_size"], sampled["sampling_topk"]) == (1, 0)
    assert sampled["sampling_temperature"] == 0.4


def streamed(http: httpx.Client, sample: Sample) -> AbstractContextManager[httpx.Response]:
    # A language that must be found out would be listened for first: one window more.
    fields = {"stream": "true", "language": sample.language}
    return http.stream("POST", PATH, files=sample.upload(), data=fields)


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    return (json.loads(line.removeprefix("data: ")) for line in lines if line)


def test_the_first_words_are_sent_before_the_second_window_is_heard(
    patient: list[Patient],
) -> None:
    with served() as http, streamed(http, MINUTE) as answer:
        arriving = events(answer.iter_lines())
        first = next(arriving)
        assert first == {"type": "transcript.text.delta", "delta": MINUTE.segments[0]["text"]}
        patient[0].let.set()
        *deltas, last = [first, *arriving]
    assert last["type"] == "transcript.text.done"
    assert last["text"] == "".join(event["delta"] for event in deltas) == MINUTE.text


def test_nothing_more_is_decoded_for_a_client_that_left(
    patient: list[Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed, cancel = threading.Event(), Job.cancel

    def cancelled(job: Job) -> None:
        cancel(job)
        noticed.set()

    monkeypatch.setattr(Job, "cancel", cancelled)
    with served() as http:
        with streamed(http, MINUTE) as answer:
            next(events(answer.iter_lines()))
        assert noticed.wait(20)
        # The thread stands before its second of three windows; that one still ends.
        patient[0].let.set()
        wait_until(lambda: "speech_jobs_running 0.0" in http.get("/metrics").text, 30)
        assert "speech_jobs_cancelled_total 1.0" in http.get("/metrics").text
        assert patient[0].windows == 2
        assert transcribe(http, ENGLISH)["text"] == ENGLISH.text


def test_live_speech_is_heard_while_a_long_recording_is_under_way(patient: list[Patient]) -> None:
    with served(max_jobs=2) as http, ThreadPoolExecutor(1) as pool:
        recording = pool.submit(transcribe, http, MINUTE, language="en")
        wait_until(lambda: bool(patient) and patient[0].windows == 2, 30)
        with socket_of(http, f"{PATH}?language=en") as socket:
            socket.send(ENGLISH.samples().tobytes())
            *_, last = received(socket)
        assert plain(last["text"]) == plain(ENGLISH.text)
        assert not recording.done()
        patient[0].let.set()
        assert recording.result()["text"] == MINUTE.text


def test_recordings_decoded_at_once_have_the_subtitles_they_have_alone(
    models: list[SharedModel],
) -> None:
    files = ("minute.flac", "half-minute.flac", "long-french.flac", "dialogue.flac")

    def subtitles(http: httpx.Client, file: str) -> str:
        written = transcribe(http, ALL[file], response_format="srt")
        assert isinstance(written, str)
        return written

    with served(max_jobs=4) as http, ThreadPoolExecutor(4) as pool:
        alone = [subtitles(http, file) for file in files]
        watched: Watched = models[0]._model
        assert max(watched.batches) == 1
        watched.let.clear()
        futures = [pool.submit(subtitles, http, file) for file in files]
        wait_until(lambda: models[0].waiting == len(files) - 1, 30)
        watched.let.set()
        written = [future.result() for future in futures]
    assert max(watched.batches) > 1
    assert written == alone
    for file, text in zip(files, written, strict=True):
        cues = pysubs2.SSAFile.from_string(text, format_="srt")
        assert " ".join(cue.plaintext for cue in cues) == ALL[file].text
        assert all(cue.duration <= MAX_SECONDS * 1000 for cue in cues)
        assert all(len(cue.plaintext) <= MAX_CHARACTERS for cue in cues)

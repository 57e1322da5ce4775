"""OpenAI's audio API over a real socket, with the engine's words decided by the test."""

from __future__ import annotations

import errno
import json
import threading
import time
from typing import Any

import httpx
import openai
import pytest
from speech_service.contract.engine import Abilities
from speech_service.contract.errors import ModelUnavailable
from speech_service.contract.transcript import VoiceActivity

from ... import media
from ...harness import FakeEngine, segment, serve, wait_until

TEXT = "one two three four five"
PATH = "/v1/audio/transcriptions"
BLOBS = {"response_format": "text", "language": "German"}


def file(data: bytes | None = None) -> dict[str, Any]:
    return {"file": ("speech.wav", media.tone() if data is None else data)}


def client_of(http: httpx.Client) -> openai.OpenAI:
    return client_at(str(http.base_url))


def client_at(address: str) -> openai.OpenAI:
    """The official client, strict with what it reads."""
    return openai.OpenAI(
        base_url=f"{address}/v1",
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


def impatient(http: httpx.Client) -> httpx.Client:
    return httpx.Client(base_url=http.base_url, timeout=0.5, trust_env=False)


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return answer.status_code, error["code"], error["param"]


def test_the_official_client_reads_every_format() -> None:
    with serve() as http, client_of(http) as client:
        create = client.audio.transcriptions.create
        audio = ("speech.wav", media.tone())
        answer = create(file=audio, model="whisper-1")
        assert answer.text == TEXT
        assert answer.usage is not None and answer.usage.type == "duration"
        verbose = create(
            file=audio,
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert verbose.words is not None and verbose.segments is not None
        assert [word.word for word in verbose.words] == TEXT.split()
        assert [part.text for part in verbose.segments] == [" one two three", " four five"]
        assert create(file=audio, model="whisper-1", response_format="text") == TEXT + "\n"
        assert "-->" in create(file=audio, model="whisper-1", response_format="srt")
        assert create(file=audio, model="whisper-1", response_format="vtt").startswith("WEBVTT")


# The client calls the route deprecated; it is still there and still used.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_the_official_client_translates() -> None:
    engine = FakeEngine()
    with serve(engine) as http, client_of(http) as client:
        translations = client.audio.translations
        assert translations.create(file=("a.wav", media.tone()), model="whisper-1").text == TEXT
        assert engine.asked[-1].task == "translate"


def test_the_official_client_reads_the_stream() -> None:
    with serve() as http, client_of(http) as client:
        stream = client.audio.transcriptions.create(
            file=("speech.wav", media.tone()), model="whisper-1", stream=True
        )
        events = list(stream)
    assert [event.type for event in events] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert deltas == TEXT
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == TEXT


def test_media_types_are_exact() -> None:
    with serve() as http:
        kinds = {
            name: http.post(PATH, files=file(), data={"response_format": name}).headers[
                "content-type"
            ]
            for name in ("json", "text", "srt", "vtt", "verbose_json")
        }
    assert kinds == {
        "json": "application/json",
        "text": "text/plain; charset=utf-8",
        "srt": "text/plain; charset=utf-8",
        "vtt": "text/vtt; charset=utf-8",
        "verbose_json": "application/json",
    }


def test_fields_reach_the_engine_in_every_spelling() -> None:
    engine = FakeEngine()
    fields = {
        "model": "org/small",
        "language": "English",
        "prompt": "Hello",
        "hotwords": "Zebra",
        "temperature": "0.4",
        "vad_filter": "0",
        "without_timestamps": "true",
        "response_format": "verbose_json",
        "timestamp_granularities": "word",
        "include[]": "logprobs",
        "something_else": "ignored",
    }
    with serve(engine) as http:
        assert http.post(PATH, files=file(), data=fields).status_code == 200
        asked = engine.asked[-1]
        assert (asked.language, asked.prompt, asked.hotwords) == ("en", "Hello", "Zebra")
        assert (asked.temperature, asked.voice_activity, asked.words) == (0.4, None, True)
        assert asked.without_timestamps
        assert engine.loads == ["tiny", "org/small"]
        http.post(
            PATH,
            files=file(),
            data={
                "chunking_strategy[type]": "server_vad",
                "chunking_strategy[threshold]": "0.3",
                "chunking_strategy[silence_duration_ms]": "700",
            },
        )
        assert engine.asked[-1].voice_activity == VoiceActivity(0.3, 700, None)
        strategy = json.dumps({"type": "server_vad", "prefix_padding_ms": 90})
        http.post(PATH, files=file(), data={"chunking_strategy": strategy})
        assert engine.asked[-1].voice_activity == VoiceActivity(None, None, 90)


@pytest.mark.parametrize(
    "spelt",
    [
        {"timestamp_granularities": "word"},
        {"timestamp_granularities[0]": "word"},
        {"timestamp_granularities[]": ["segment", "Word"]},
        {"timestamp_granularities": '["word"]'},
        {"timestamp_granularities[]": "word,segment"},
    ],
    ids=str,
)
def test_a_list_is_understood_in_every_spelling(spelt: dict[str, Any]) -> None:
    with serve() as http:
        data = {"response_format": "Verbose_JSON\n", "language": "auto", **spelt}
        answer = http.post(PATH, files=file(), data=data).json()
    assert [word["word"] for word in answer["words"]] == TEXT.split()
    assert [word["word"] for word in answer["segments"][1]["words"]] == ["four", "five"]


def test_words_are_for_verbose_json_and_do_no_harm_elsewhere() -> None:
    words = {"timestamp_granularities[]": "word"}
    with serve() as http:
        for name in ("json", "text", "srt", "vtt"):
            plain = http.post(PATH, files=file(), data={"response_format": name})
            asked = http.post(PATH, files=file(), data={"response_format": name, **words})
            assert (asked.status_code, asked.text) == (200, plain.text)


def test_fields_come_as_files_repeated_and_in_the_query() -> None:
    engine = FakeEngine()
    blobs = {name: ("blob", value.encode()) for name, value in BLOBS.items()}
    with serve(engine) as http:
        answer = http.post(
            PATH,
            params={"temperature": "0.2", "language": "fr"},
            files={**file(), **blobs},
            data={"model": ["tiny", "tiny"], "hotwords[]": ["Zebra", "Gnu"]},
        )
        assert (answer.status_code, answer.text) == (200, TEXT + "\n")
        asked = engine.asked[-1]
        assert (asked.language, asked.temperature, asked.hotwords) == ("de", 0.2, "Zebra, Gnu")
        refused = http.post(PATH, files=file(), data={"model": ["tiny", "org/small"]})
        assert error_of(refused) == (422, "invalid_field", "model")
        refused = http.post(PATH, files={**file(), "language": ("blob", b"xx")})
        assert error_of(refused) == (422, "invalid_field", "language")


def test_defaults_come_from_the_settings() -> None:
    engine = FakeEngine()
    with serve(engine, default_language="de", default_response_format="text") as http:
        assert http.post(PATH, files=file()).text == TEXT + "\n"
        assert engine.asked[-1].language == "de"


def test_verbose_json_without_granularities_has_segments_and_no_words() -> None:
    with serve() as http:
        answer = http.post(PATH, files=file(), data={"response_format": "verbose_json"}).json()
    assert "words" not in answer
    assert len(answer["segments"]) == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "xx"}, (422, "invalid_field", "language")),
        ({"temperature": "2"}, (422, "invalid_field", "temperature")),
        ({"temperature": "warm"}, (422, "invalid_field", "temperature")),
        ({"response_format": "docx"}, (422, "invalid_field", "response_format")),
        ({"stream": "perhaps"}, (422, "invalid_field", "stream")),
        ({"model": "nothing-like-it"}, (404, "model_not_found", "model")),
        (
            {"timestamp_granularities[]": "phoneme"},
            (422, "invalid_field", "timestamp_granularities"),
        ),
        ({"chunking_strategy": "{"}, (422, "invalid_field", "chunking_strategy")),
        (
            {"chunking_strategy[threshold]": "7"},
            (422, "invalid_field", "chunking_strategy.threshold"),
        ),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, str], expected: tuple[int, str, str]) -> None:
    engine = FakeEngine()
    with serve(engine) as http:
        assert error_of(http.post(PATH, files=file(), data=fields)) == expected
    assert engine.asked == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (400, "empty_file", "file")),
        (b"%PDF-1.7\n" * 100, (415, "not_audio", "file")),
        (
            media.ffmpeg("-f", "lavfi", "-i", "testsrc=d=0.2", "-f", "matroska"),
            (422, "no_audio", "file"),
        ),
        (media.silence(20.0), (413, "too_long", "file")),
    ],
    ids=["empty", "pdf", "no sound", "long"],
)
def test_a_bad_file_is_refused_before_any_model_is_loaded(
    data: bytes, expected: tuple[int, str, str]
) -> None:
    engine = FakeEngine()
    with serve(engine, max_audio_seconds=10) as http:
        wait_until(lambda: http.get("/ready").status_code == 200)
        before = list(engine.loads)
        answer = http.post(PATH, files=file(data), data={"model": "org/small"})
        assert error_of(answer) == expected
        assert engine.loads == before


def test_no_file_and_no_form_are_named() -> None:
    with serve() as http:
        assert error_of(http.post(PATH, data={"model": "tiny"})) == (422, "invalid_field", "file")
        assert error_of(http.post(PATH, json={"file": "x"})) == (422, "invalid_field", "file")
        broken = http.post(
            PATH, content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert 400 <= broken.status_code < 500


def test_a_file_over_the_limit_is_refused_declared_or_not() -> None:
    with serve(max_upload_bytes=50_000) as http:
        assert error_of(http.post(PATH, files=file(media.tone(3.0)))) == (413, "too_large", "file")

        def endless() -> Any:
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(100):
                yield bytes(100_000)

        headers = {"content-type": "multipart/form-data; boundary=b"}
        try:
            answer = http.post(PATH, content=endless(), headers=headers)
        except httpx.WriteError:
            # The refusal came while the rest was being sent.
            return
        assert error_of(answer) == (413, "too_large", "file")


@pytest.mark.parametrize("name", ["../../x", "-i", "a" * 4096, "con\x01trol", "ü.wav", "a;b|c"])
def test_the_name_of_a_file_is_never_used(name: str) -> None:
    with serve() as http:
        assert http.post(PATH, files={"file": (name, media.tone())}).json()["text"] == TEXT


def test_a_full_queue_refuses_with_the_time_to_wait() -> None:
    allowed = threading.Event()
    engine = FakeEngine(pace=lambda: allowed.wait(20))
    with serve(engine, max_queued=1) as http:
        answers: list[httpx.Response] = []

        def send() -> None:
            answers.append(httpx.post(f"{http.base_url}{PATH}", files=file(), timeout=30))

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: "speech_queue_length 1.0" in http.get("/metrics").text)
        refused = http.post(PATH, files=file())
        assert error_of(refused) == (429, "queue_full", None)
        assert int(refused.headers["retry-after"]) >= 1
        assert http.get("/health").text == "OK"
        allowed.set()
        for thread in threads:
            thread.join(20)
        assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}], ids=["json", "stream"])
def test_the_job_of_a_client_that_leaves_is_stopped(fields: dict[str, str]) -> None:
    many = tuple(segment("one", float(number), number) for number in range(400))
    engine = FakeEngine(many, pace=lambda: time.sleep(0.05))
    with serve(engine) as http:
        with (
            pytest.raises(httpx.ReadTimeout),
            impatient(http) as leaving,
            leaving.stream("POST", PATH, files=file(), data=fields) as answer,
        ):
            # A stream keeps arriving; its reader stops listening after the first event.
            next(answer.iter_lines())
            raise httpx.ReadTimeout("enough")
        wait_until(lambda: "speech_jobs_running 0.0" in http.get("/metrics").text, 5)
        assert engine.decoded < 200
        assert "speech_jobs_cancelled_total 1.0" in http.get("/metrics").text
        engine.pace = lambda: None
        assert http.post(PATH, files=file()).status_code == 200


def test_whoever_leaves_the_queue_is_never_decoded() -> None:
    allowed = threading.Event()
    engine = FakeEngine(pace=lambda: allowed.wait(20))
    with serve(engine) as http:
        first = threading.Thread(
            target=lambda: httpx.post(f"{http.base_url}{PATH}", files=file(), timeout=30)
        )
        first.start()
        wait_until(lambda: len(engine.asked) == 1)
        with pytest.raises(httpx.ReadTimeout), impatient(http) as leaving:
            leaving.post(PATH, files=file())
        wait_until(lambda: "speech_queue_length 0.0" in http.get("/metrics").text)
        allowed.set()
        first.join(20)
        assert len(engine.asked) == 1


def test_a_stream_begins_before_the_end_is_decoded() -> None:
    steps = threading.Semaphore(1)
    engine = FakeEngine(pace=lambda: steps.acquire(timeout=20))
    with serve(engine) as http:
        with http.stream("POST", PATH, files=file(), data={"stream": "true"}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.iter_lines()
            first = next(lines)
            assert json.loads(first.removeprefix("data: "))["delta"] == "one two three"
            assert engine.decoded == 1
            steps.release()
            rest = [line for line in lines if line]
        assert json.loads(rest[-1].removeprefix("data: "))["text"] == TEXT


def test_a_failure_in_the_middle_of_a_stream_is_an_event() -> None:
    steps = iter([None, ModelUnavailable("the disk is gone")])

    def pace() -> None:
        if error := next(steps):
            raise error

    with serve(FakeEngine(pace=pace)) as http:
        answer = http.post(PATH, files=file(), data={"stream": "true"})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert answer.status_code == 200
    assert events[0]["type"] == "transcript.text.delta"
    assert events[-1]["error"]["message"] == "the disk is gone"


def test_the_stream_of_faster_whisper_server_is_kept_for_its_clients() -> None:
    with serve() as http:
        answer = http.post(f"{PATH}?stream_format=fws", files=file(), data={"stream": "true"})
    assert [json.loads(line[6:]) for line in answer.text.splitlines() if line] == [
        {"text": " one two three"},
        {"text": " four five"},
    ]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("text", "one two three", "four five"),
        ("srt", "1", "1"),
        ("vtt", "WEBVTT", "WEBVTT"),
        ("verbose_json", '"duration": 1.5', '"duration": 3.0'),
        ("diarized_json", '"id": "seg_001"', '"id": "seg_002"'),
    ],
)
def test_that_stream_has_each_segment_alone_in_the_format_asked_for(
    name: str, first: str, second: str
) -> None:
    engine = FakeEngine(abilities=Abilities(live=True, speakers=True))
    fields = {"stream": "true", "response_format": name}
    with serve(engine) as http:
        answer = http.post(f"{PATH}?stream_format=fws", files=file(), data=fields)
    begin = [line for line in answer.text.splitlines() if first in line or second in line]
    assert first in begin[0] and second in begin[1]
    assert "one two three" in answer.text and "four five" in answer.text


def test_a_broken_engine_is_a_500_without_its_secrets() -> None:
    def pace() -> None:
        raise RuntimeError("/secret/path")

    with serve(FakeEngine(pace=pace)) as http:
        answer = http.post(PATH, files=file())
        assert error_of(answer) == (500, "internal_error", None)
        assert "secret" not in answer.text
        assert http.get("/health").text == "OK"


def test_a_full_disk_is_named_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Any, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serve() as http:
        with monkeypatch.context() as patched:
            patched.setattr("speech_service.http.upload.SpooledTemporaryFile.write", write)
            assert error_of(http.post(PATH, files=file())) == (507, "no_space", None)
        assert http.post(PATH, files=file()).json()["text"] == TEXT

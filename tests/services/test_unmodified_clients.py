"""The clients that users have, as published, through the proxy to the shipped container.

One container for all of them: the first client finds it asleep.
"""

from __future__ import annotations

import io
import json
import ssl
import wave
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import openai
import pysubs2
import pytest
import requests
import webvtt
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from tests.end_to_end.parts import plain_engine
from tests.end_to_end.stage import Stage, sign_certificate, staged  # noqa: F401 - fixture

from .speech_service.routes.test_openai import client_at
from .test_engine_image import image  # noqa: F401 - fixture
from .test_faster_whisper import ALL, Sample, plain
from .test_whisper_live_client import client, heard_by  # noqa: F401 - fixture

pytestmark = pytest.mark.docker

ENGLISH, FRENCH = ALL["english.wav"], ALL["french.wav"]


@pytest.fixture(scope="module")
def stage(
    image: str,  # noqa: F811
    certificate: tuple[Path, ssl.SSLContext],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("clients"), certificate) as stage:
        engine = stage.keep(plain_engine(stage.folder))
        stage.configure("127.0.0.1", engine)
        stage.proxy.start()
        assert not engine.runs()
        yield stage
        assert engine.starts() == 1


@pytest.fixture(scope="module")
def address(stage: Stage) -> str:
    return f"http://127.0.0.1:{stage.proxy.port}"


@pytest.fixture(scope="module")
def official(address: str) -> Iterator[openai.OpenAI]:
    with client_at(address) as published:
        yield published


def test_openai_transcribes_in_every_format(official: openai.OpenAI) -> None:
    create = official.audio.transcriptions.create
    file = ENGLISH.path
    assert create(model="whisper-1", file=file).text == ENGLISH.text
    verbose = create(
        model="whisper-1",
        file=file,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert verbose.words is not None and verbose.segments is not None
    assert verbose.text == ENGLISH.text
    assert verbose.duration == pytest.approx(ENGLISH.duration, abs=0.01)
    for word, spoken in zip(verbose.words, ENGLISH.words, strict=True):
        assert plain(word.word) == plain(spoken["word"])
        assert word.start == pytest.approx(spoken["start"], abs=0.3)
    assert create(model="whisper-1", file=file, response_format="text").strip() == ENGLISH.text
    cues = pysubs2.SSAFile.from_string(create(model="whisper-1", file=file, response_format="srt"))
    assert " ".join(cue.plaintext for cue in cues) == ENGLISH.text
    vtt = io.StringIO(create(model="whisper-1", file=file, response_format="vtt"))
    assert " ".join(cue.text for cue in webvtt.from_buffer(vtt).captions) == ENGLISH.text


# The client calls the route deprecated; it is still there and still used.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_openai_translates(official: openai.OpenAI) -> None:
    answer = official.audio.translations.create(
        model="whisper-1", file=FRENCH.path, extra_body={"vad_filter": False}
    )
    assert answer.text == FRENCH.translation


def test_openai_reads_the_stream(official: openai.OpenAI) -> None:
    with official.audio.transcriptions.create(
        model="whisper-1", file=ENGLISH.path, stream=True
    ) as stream:
        *deltas, done = list(stream)
    assert done.type == "transcript.text.done"
    assert done.text == ENGLISH.text
    said = [event.delta for event in deltas if event.type == "transcript.text.delta"]
    assert len(said) == len(deltas)
    assert "".join(said) == ENGLISH.text


def test_openai_is_told_what_is_wrong(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        official.audio.transcriptions.create(model="no-such-model", file=ENGLISH.path)


@pytest.mark.parametrize("sample", [ENGLISH, ALL["pause.wav"]], ids=lambda sample: sample.file)
def test_whisper_lives_client_hears_every_word(
    stage: Stage,
    client: Path,  # noqa: F811
    sample: Sample,
) -> None:
    assert heard_by(client, stage.proxy.port, sample) == plain(sample.text)


def samples_of(sample: Sample) -> bytes:
    with wave.open(str(sample.path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return bytes(file.readframes(file.getnframes()))


def test_bazarr_gets_its_subtitles(address: str) -> None:
    """The requests of its Whisper provider, with its library; it cannot be installed alone.

    It decodes by itself, so `encode` is false; it asks for the language, then for subtitles in
    that language, or for English ones.
    """
    with closing(requests.Session()) as session:
        session.trust_env = False

        def post(path: str, sample: Sample, **query: str) -> requests.Response:
            files = {"audio_file": samples_of(sample)}
            answer = session.post(f"{address}/{path}", params=query, files=files, timeout=(5, 60))
            assert answer.status_code == 200, answer.text
            return answer

        told = post("detect-language", FRENCH, encode="false").json()
        assert (told["language_code"], told["detected_language"]) == ("fr", "french")
        for task, sample, text in (
            ("transcribe", FRENCH, FRENCH.text),
            ("translate", FRENCH, FRENCH.translation),
            ("transcribe", ENGLISH, ENGLISH.text),
        ):
            query = {"task": task, "language": sample.language, "output": "srt", "encode": "false"}
            subtitles = post("asr", sample, **query).content
            cues = pysubs2.SSAFile.from_string(subtitles.decode(), format_="srt")
            assert " ".join(cue.plaintext for cue in cues) == text


def test_websockets_speaks_live_to_the_route_of_faster_whisper_server(address: str) -> None:
    url = address.replace("http", "ws") + "/v1/audio/transcriptions?language=en"
    heard: list[str] = []
    with connect(url, proxy=None) as socket:
        audio = samples_of(ENGLISH)
        for start in range(0, len(audio), 8192):
            socket.send(audio[start : start + 8192])
        with pytest.raises(ConnectionClosedOK):
            while True:
                heard.append(json.loads(socket.recv(timeout=30))["text"])
    assert plain(heard[-1]) == plain(ENGLISH.text)
    assert all(plain(ENGLISH.text).startswith(plain(so_far)) for so_far in heard)

"""WhisperX in its container: what it keeps in memory, in which process, and for how long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .harness import wait_until
from .speech_service.routes.test_openai import error_of
from .whisperx import Container, docker, figure, running, sample, text, transcribed

pytestmark = pytest.mark.docker


def test_plain_words_wait_for_none_of_the_other_stages(folder: Path) -> None:
    with running(folder) as service:
        answer = service.http.post("/v1/audio/transcriptions", files={"file": sample("demo.wav")})
        ready = service.http.get("/ready")
        assert answer.json()["text"] == "Hello world. Open garden window seven. Thanks."
        assert ready.status_code == 503
        assert "imported" in ready.json()["reason"]
        service.until_ready()
        assert service.http.get("/api/ps").json()["models"] == ["tiny"]


def test_models_of_all_stages_are_given_back(folder: Path) -> None:
    with running(folder, WHISPERX__TTL="2") as service:
        service.until_ready()
        transcribed(service.http, sample("demo.wav"), diarize="true")
        assert set(loaded(service)) == {"tiny", "alignment:en", "diarization:"}
        wait_until(lambda: loaded(service) == [], 30)


def test_idle_it_is_small_and_wakes_as_fast_as_from_the_start(folder: Path) -> None:
    started = time.monotonic()
    with running(folder, WHISPERX__TTL="2") as service:
        transcribed(service.http, sample("demo.wav"), diarize="true")
        cold = time.monotonic() - started
        transcribed(service.http, sample("minute.flac"), diarize="true")
        service.http.post("/v1/audio/transcriptions", files={"file": sample("minute.flac")})
        wait_until(lambda: len(service.processes()) == 1, 30)
        assert loaded(service) == []
        assert service.memory_bytes() < 150_000_000
        assert service.http.get("/ready").status_code == 200
        again = time.monotonic()
        found = transcribed(service.http, sample("demo.wav"), diarize="true")
        assert text(found) == "Hello world. Open garden window seven. Thanks."
        # Twice, because this machine may have other work meanwhile.
        assert time.monotonic() - again < 2 * cold


def test_plain_words_bring_no_large_library_back(folder: Path) -> None:
    with running(folder, WHISPERX__TTL="2") as service:
        service.until_ready()
        assert service.has_mapped("libtorch")
        wait_until(lambda: len(service.processes()) == 1, 30)
        files = {"file": sample("demo.wav")}
        answer = service.http.post("/v1/audio/transcriptions", files=files)
        assert answer.json()["text"] == "Hello world. Open garden window seven. Thanks."
        assert len(service.processes()) == 2
        assert not service.has_mapped("libtorch")


def test_the_large_libraries_leave_though_plain_words_go_on(folder: Path) -> None:
    with running(folder, WHISPERX__TTL="3") as service:
        transcribed(service.http, sample("demo.wav"), diarize="true")
        assert service.has_mapped("libtorch")

        def without_libraries() -> bool:
            files = {"file": sample("demo.wav")}
            assert service.http.post("/v1/audio/transcriptions", files=files).status_code == 200
            return not service.has_mapped("libtorch")

        wait_until(without_libraries, 30)
        assert loaded(service) == ["tiny"]


def test_a_worker_that_is_killed_fails_its_own_request_alone(folder: Path) -> None:
    with running(folder) as service, ThreadPoolExecutor(1) as beside:
        service.until_ready()
        files, fields = {"file": sample("minute.flac")}, {"diarize": "true"}
        answer = beside.submit(service.http.post, "/transcribe", files=files, data=fields)
        wait_until(lambda: figure(service.http, "speech_jobs_running") == 1)
        [worker] = [process for process in service.processes() if process.number != 1]
        docker("exec", service.name, "sh", "-c", f"kill -9 {worker.number}")
        assert error_of(answer.result())[:2] == (500, "worker_ended")
        found = transcribed(service.http, sample("demo.wav"), diarize="true")
        assert text(found) == "Hello world. Open garden window seven. Thanks."


def loaded(service: Container) -> list[str]:
    names: list[str] = service.http.get("/api/ps").json()["models"]
    return names

"""The demonstration, as a user starts it: real proxy, real engine, real speech."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

DEMO = Path(__file__).parents[1] / "scripts" / "demo.py"
SPEECH = Path(__file__).parent / "speech"
SAMPLE = next(
    each
    for each in json.loads((SPEECH / "samples" / "samples.json").read_text())
    if each["file"] == "demo.wav"
)


def demo(*more: str, audio: Path = SPEECH / "samples" / "demo.wav") -> tuple[int, str, str]:
    argv = [sys.executable, str(DEMO), "--audio", str(audio)]
    argv += ["--model", str(SPEECH / "model"), *more]
    with installed_proxy():
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout, ended.stderr


@contextlib.contextmanager
def installed_proxy() -> Iterator[None]:
    """Somebody listens at the default address, as where the proxy is installed."""
    with contextlib.ExitStack() as open_sockets:
        with contextlib.suppress(OSError):  # one is installed here indeed
            open_sockets.enter_context(socket.create_server(("127.0.0.1", 8890)))
        yield


def test_it_wakes_the_service_prints_the_words_and_sees_it_sleep() -> None:
    code, out, err = demo("--expect", SAMPLE["text"], "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["transcript"] == figures["expected"] == SAMPLE["text"]
    assert figures["slept"] is True
    assert figures["cold_seconds"] > figures["ready_seconds"] > 0
    assert figures["warm_seconds"] > 0


def test_other_words_than_expected_are_a_failure() -> None:
    code, out, err = demo("--expect", "something else")
    assert code == 1
    assert "something else" in err
    assert "asleep again" in out, "the timeline is for people"


def test_a_proxy_that_cannot_listen_is_not_mistaken_for_who_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code, _, err = demo("--listen", address)
    assert code == 1
    assert f"cannot listen on {address}" in err


def test_told_to_end_it_leaves_nothing_behind(tmp_path: Path) -> None:
    argv = [sys.executable, str(DEMO), "--audio", str(SPEECH / "samples" / "demo.wav")]
    argv += ["--model", str(SPEECH / "model"), "--stay"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if "cold" in line:  # in the middle of it, with the service awake
                break
        started = psutil.Process(running.pid).children(recursive=True)
        assert len(started) >= 2, "the proxy and the engine"
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 128 + signal.SIGTERM
    assert [each for each in started if each.is_running()] == []
    assert [*tmp_path.iterdir()] == []


def test_a_recording_that_is_not_there_is_named() -> None:
    code, _, err = demo(audio=Path("/nonexistent/speech.wav"))
    assert code == 1
    assert "/nonexistent/speech.wav is not a file" in err

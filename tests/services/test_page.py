"""The page at `/`, in a real browser with a real file and a pretended microphone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from . import media
from .harness import FakeEngine, segment, serve
from .test_live import Recorder, sound

TEXT = "one two three four five"


def chromium() -> str:
    """The path of a Chromium; without one the test is skipped, or fails where `CI` is set."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("needs Chromium: apt-get install chromium", pytrace=False)
    pytest.skip("needs Chromium")


@contextmanager
def browser(http: httpx.Client, *flags: str) -> Iterator[Page]:
    """A phone-sized page that has loaded the service's page; any script error fails the test."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--no-proxy-server", *flags]
        )
        context = running.new_context(
            viewport={"width": 390, "height": 780}, permissions=["microphone"]
        )
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        requests: list[str] = []
        page.goto(str(http.base_url) + "/")
        yield page
        assert errors == []
        own = (str(http.base_url), "data:", "blob:")
        assert [url for url in requests if not url.startswith(own)] == []
        running.close()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(media.tone(2.0))
    return path


def test_a_file_is_transcribed_and_its_subtitles_saved(recording: Path, tmp_path: Path) -> None:
    engine = FakeEngine()
    with serve(engine) as http, browser(http) as page:
        expect(page.locator("#model option")).to_have_text(["default", "tiny", "org/small"])
        page.set_input_files("#file", recording)
        page.select_option("#language", "de")
        page.select_option("#model", "org/small")
        page.click("#send")
        expect(page.locator("#out")).to_have_text(TEXT)
        expect(page.locator("#status")).to_contain_text("Done")
        assert engine.asked[-1].language == "de"
        assert engine.loads[-1] == "org/small"
        with page.expect_download() as saved:
            page.click("#srt")
        assert saved.value.suggested_filename == "talk.srt"
        saved.value.save_as(tmp_path / "saved.srt")
        assert (tmp_path / "saved.srt").read_text().startswith("1\n00:00:00,000 --> ")
        page.select_option("#format", "vtt")
        page.click("#send")
        expect(page.locator("#out")).to_contain_text("WEBVTT")


def test_the_page_fits_a_phone() -> None:
    with serve() as http, browser(http) as page:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


def test_an_error_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "notes.txt"
    broken.write_text("no audio at all")
    with serve() as http, browser(http) as page:
        page.set_input_files("#file", broken)
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("no audio or video format")


def test_markup_in_a_transcript_is_text(recording: Path) -> None:
    engine = FakeEngine(says=(segment("<img src=x onerror=alert(1)>"),))
    with serve(engine) as http, browser(http) as page:
        page.set_input_files("#file", recording)
        page.click("#send")
        expect(page.locator("#out")).to_have_text("<img src=x onerror=alert(1)>")
        assert page.locator("#out img").count() == 0


def test_what_is_spoken_into_the_microphone_appears(tmp_path: Path) -> None:
    spoken = tmp_path / "spoken.wav"
    spoken.write_bytes(media.wav(sound(1.0, 1.5)))
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
    )
    with serve(Recorder()) as http, browser(http, *flags) as page:
        page.click("#record")
        expect(page.locator("#status")).to_have_text("Listening…", timeout=10_000)
        expect(page.locator("#out")).to_contain_text("utterance", timeout=15_000)
        page.click("#record")
        expect(page.locator("#status")).to_have_text("Done.", timeout=10_000)
        expect(page.locator("#srt")).to_be_enabled()
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("Done in", timeout=10_000)


def test_the_page_can_be_switched_off() -> None:
    with serve(enable_ui=False) as http:
        assert http.get("/").status_code == 404
    with serve() as http:
        answer = http.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]

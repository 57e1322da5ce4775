"""The page at `/`, in a real browser with a real file and a pretended microphone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from . import media
from .browser import browser
from .harness import FakeEngine, segment, serve
from .test_live import Recorder, sound

TEXT = "one two three four five"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(media.tone(2.0))
    return path


def test_a_file_is_transcribed_and_its_subtitles_saved(recording: Path, tmp_path: Path) -> None:
    engine = FakeEngine()
    with serve(engine) as http, browser(str(http.base_url)) as page:
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
    with serve() as http, browser(str(http.base_url)) as page:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


def test_an_error_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "notes.txt"
    broken.write_text("no audio at all")
    with serve() as http, browser(str(http.base_url)) as page:
        page.set_input_files("#file", broken)
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("no audio or video format")


def test_markup_in_a_transcript_is_text(recording: Path) -> None:
    engine = FakeEngine(says=(segment("<img src=x onerror=alert(1)>"),))
    with serve(engine) as http, browser(str(http.base_url)) as page:
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
    with serve(Recorder()) as http, browser(str(http.base_url), *flags) as page:
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

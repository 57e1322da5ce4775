"""The page at `/`, in a real browser with a real file and a pretended microphone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from speech_service.contract.transcript import Speakers

from ... import media
from ...browser import below, browser
from ...harness import FakeEngine, segment, serve
from ...spoken import Recorder, sound
from ...test_speakers import diarizing

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


def microphone(folder: Path) -> tuple[str, ...]:
    """What makes a browser hear a sound of one second and a half, over and over."""
    spoken = folder / "spoken.wav"
    spoken.write_bytes(media.wav(sound(1.0, 1.5)))
    return (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
    )


def speak(page: Page) -> None:
    """Record until words have come."""
    page.click("#record")
    expect(page.locator("#status")).to_have_text("Listening…", timeout=10_000)
    expect(page.locator("#out")).to_contain_text("utterance", timeout=15_000)
    page.click("#record")
    expect(page.locator("#status")).to_have_text("Done.", timeout=10_000)


def test_what_is_spoken_into_the_microphone_appears(tmp_path: Path) -> None:
    with serve(Recorder()) as http, browser(str(http.base_url), *microphone(tmp_path)) as page:
        speak(page)
        expect(page.locator("#srt")).to_be_enabled()
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("Done in", timeout=10_000)


def test_a_service_that_cannot_listen_gets_the_recording_when_it_ends(tmp_path: Path) -> None:
    with serve(diarizing()) as http, browser(str(http.base_url), *microphone(tmp_path)) as page:
        page.click("#record")
        expect(page.locator("#status")).to_have_text("Recording…")
        page.wait_for_timeout(300)  # something has to be recorded
        page.click("#record")
        expect(page.locator("#out")).to_have_text("one two three four five & six")
        expect(page.locator("#status")).to_contain_text("Done in")


def test_who_speaks_is_shown_turn_by_turn(recording: Path, tmp_path: Path) -> None:
    engine = diarizing()
    with serve(engine) as http, browser(str(http.base_url)) as page:
        page.set_input_files("#file", recording)
        expect(page.locator("#count")).to_be_disabled()
        page.check("#diarize")
        page.fill("#count", "2")
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("Done in")
        turns = page.locator("#out div")
        expect(turns).to_have_text(["SPEAKER_00: one two three four", "SPEAKER_01: five & six"])
        assert engine.asked[-1].speakers == Speakers(exactly=2)
        with page.expect_download() as saved:
            page.click("#srt")
        saved.value.save_as(tmp_path / "saved.srt")
        assert "SPEAKER_01: five & six" in (tmp_path / "saved.srt").read_text()


def test_speakers_are_not_offered_where_nobody_can_tell_them() -> None:
    with serve() as http, browser(str(http.base_url)) as page:
        expect(page.locator("#speakers")).to_be_hidden()


# With characters that the name of a WebSocket's protocol may not have.
KEY = "s3cret/(+)="


def test_the_key_is_asked_for_once_and_opens_everything(recording: Path, tmp_path: Path) -> None:
    flags = microphone(tmp_path)
    with serve(Recorder(), api_key=KEY) as http, browser(str(http.base_url), *flags) as page:
        page.fill("#key", "wrong")
        page.click("#lock button")
        expect(page.locator("#status")).to_have_text("This key is not accepted.")
        page.fill("#key", KEY)
        page.click("#lock button")
        expect(page.locator("#lock")).to_be_hidden()
        expect(page.locator("#model option")).to_have_count(3)
        page.set_input_files("#file", recording)
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("Done in")
        speak(page)
        page.reload()
        expect(page.locator("#model option")).to_have_count(3)
        assert page.evaluate("Object.values(localStorage)") == []


def test_the_key_is_kept_on_the_device_only_if_that_is_wanted() -> None:
    with serve(api_key=KEY) as http, browser(str(http.base_url)) as page:
        for keep, kept in ((True, [KEY]), (False, [])):
            page.evaluate("localStorage.clear(), sessionStorage.clear()")
            page.reload()
            page.fill("#key", KEY)
            page.set_checked("#keep", keep)
            page.click("#lock button")
            expect(page.locator("#model option")).to_have_count(3)
            assert page.evaluate("Object.values(localStorage)") == kept


def test_the_page_works_below_the_path_of_a_proxy(recording: Path) -> None:
    with (
        serve(root_path="/whisper") as http,
        below(http, "/whisper") as address,
        browser(f"{address}/") as page,
    ):
        page.set_input_files("#file", recording)
        page.click("#send")
        expect(page.locator("#out")).to_have_text(TEXT)


def test_the_page_can_be_switched_off() -> None:
    with serve(enable_ui=False) as http:
        assert http.get("/").status_code == 404
    with serve() as http:
        answer = http.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]

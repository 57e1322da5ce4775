"""Long recordings are cut where it is quiet, and nothing is lost."""

from __future__ import annotations

import numpy as np
from speech_service.media.windows import windows

RATE = 16_000


def test_a_recording_that_fits_is_not_cut() -> None:
    samples = np.arange(RATE * 30, dtype=np.int16)
    (window,) = windows(iter([samples[:1000], samples[1000:]]), seconds=60)
    assert window.start == 0
    assert np.array_equal(window.samples, samples.astype(np.float32) / 32768)


def test_a_long_one_is_cut_in_its_pauses_and_stays_whole() -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, RATE * 200).astype(np.int16)
    for pause in (55, 108, 165):
        samples[pause * RATE : (pause + 1) * RATE] = 0
    found = list(windows(iter(np.array_split(samples, 37)), seconds=60))
    whole = np.concatenate([window.samples for window in found])
    assert np.array_equal(whole, samples.astype(np.float32) / 32768)
    starts = [window.start for window in found]
    assert starts[0] == 0
    assert 55 < starts[1] < 56
    assert 108 < starts[2] < 109
    assert all(len(window.samples) <= 80 * RATE for window in found)


def test_nothing_gives_no_window() -> None:
    assert list(windows(iter([]))) == []

"""Where an utterance ends."""

from __future__ import annotations

import pytest
from speech_service.media.utterances import Pace, Utterance, utterance

RATE = 16_000
PADDING = int(0.3 * RATE)


def at(seconds: float) -> int:
    return int(seconds * RATE)


def speech(*stretches: tuple[float, float]) -> list[tuple[int, int]]:
    return [(at(start), at(end)) for start, end in stretches]


def test_nobody_speaks() -> None:
    assert utterance([], at(3), Pace(), ended=True) is None


def test_a_pause_ends_an_utterance() -> None:
    found = utterance(speech((0.5, 2.0), (3.0, 4.0)), at(4), Pace(), ended=False)
    assert found == Utterance(at(0.5), at(2.0), at(2.0) + PADDING, True)


def test_a_short_gap_does_not() -> None:
    found = utterance(speech((0.5, 2.0), (2.3, 4.0)), at(4.1), Pace(), ended=False)
    assert found == Utterance(at(0.5), at(4.0), at(4.1), False)


def test_quiet_at_the_end_is_a_pause() -> None:
    found = utterance(speech((0.5, 2.0)), at(2.5), Pace(), ended=False)
    assert found == Utterance(at(0.5), at(2.0), at(2.0) + PADDING, True)


def test_the_end_of_the_audio_ends_an_utterance() -> None:
    found = utterance(speech((0.5, 2.0)), at(2.1), Pace(), ended=True)
    assert found == Utterance(at(0.5), at(2.0), at(2.1), True)


def test_the_client_alone_decides_where_pauses_mean_nothing() -> None:
    pace = Pace(endpoints=False, longest=60)
    stretches = speech((0.5, 2.0), (9.0, 10.0))
    found = utterance(stretches, at(20), pace, ended=False)
    assert found is not None and not found.over
    found = utterance(stretches, at(20), pace, ended=True)
    assert found == Utterance(at(0.5), at(10.0), at(10.0) + PADDING, True)


def test_too_long_an_utterance_is_cut_in_its_last_short_gap() -> None:
    found = utterance(speech((0.0, 12.0), (12.2, 17.0)), at(17), Pace(), ended=False)
    assert found == Utterance(0, at(12.0), at(12.1), True)


def test_without_a_gap_it_is_cut_where_it_is_too_long() -> None:
    found = utterance(speech((1.0, 17.0)), at(17), Pace(), ended=False)
    assert found == Utterance(at(1), at(16), at(16), True)


def test_quiet_that_ends_nothing_is_not_waited_out_for_ever() -> None:
    pace = Pace(endpoints=False, longest=60)
    found = utterance(speech((0.5, 2.0)), at(62), pace, ended=False)
    assert found == Utterance(at(0.5), at(2.0), at(2.0) + PADDING, True)


def test_a_short_utterance_waits_until_there_is_enough_of_it() -> None:
    pace = Pace(shortest=2.0)
    found = utterance(speech((0.0, 0.4)), at(1.9), pace, ended=False)
    assert found is not None and not found.over
    found = utterance(speech((0.0, 0.4)), at(2.0), pace, ended=False)
    assert found == Utterance(0, at(0.4), at(0.4) + PADDING, True)
    found = utterance(speech((0.0, 0.4), (1.2, 2.1)), at(3.0), pace, ended=False)
    assert found == Utterance(0, at(2.1), at(2.1) + PADDING, True)


@pytest.mark.parametrize(
    ("pace", "length", "quiet", "over"),
    [
        (Pace(), 100, 100, False),
        (Pace(inactivity=2.5, window=5), 4.9, 4.9, False),
        (Pace(inactivity=2.5, window=5), 5, 2.4, False),
        (Pace(inactivity=2.5, window=5), 5, 2.5, True),
        (Pace(inactivity=9, window=5), 20, 5, True),
    ],
)
def test_silence_ends_a_session_once_it_was_listened_to_long_enough(
    pace: Pace, length: float, quiet: float, over: bool
) -> None:
    assert pace.is_over(at(length), at(quiet)) is over

"""The tree of errors, and what each of them promises."""

from __future__ import annotations

import pytest

from autostart_proxy import errors
from autostart_proxy.errors import ProxyError, explained


def every_error() -> list[type[ProxyError]]:
    found, todo = [], [ProxyError]
    while todo:
        children = todo.pop().__subclasses__()
        todo += children
        found += [each for each in children if "status" in vars(each)]
    return found


@pytest.mark.parametrize("error", every_error())
def test_every_error_says_what_is_wrong_and_what_can_be_done(error: type[ProxyError]) -> None:
    assert 400 <= error.status <= 599
    assert error.tag.replace("_", "").islower()
    assert error.message.endswith(".") and error.message[0].isupper()
    assert error.remedy and not error.remedy.endswith(".") and error.remedy[0].islower()


def test_no_two_errors_share_a_tag() -> None:
    tags = [error.tag for error in every_error()]
    assert len(tags) == len(set(tags))


@pytest.mark.parametrize("error", every_error())
def test_whoever_is_to_come_back_is_told_when(error: type[ProxyError]) -> None:
    assert (error().retry_after_seconds is not None) is (error.status == 503)
    assert error(retry_after_seconds=7).retry_after_seconds == 7


def test_details_are_for_the_log_alone() -> None:
    error = errors.StartFailed("It is broken.", detail="/secret")
    assert (error.public, str(error)) == ("It is broken.", "It is broken. (/secret)")
    assert str(errors.StartFailed()) == errors.StartFailed.message


def test_a_start_is_not_a_stop() -> None:
    """What operators are told of one must never be told of the other."""
    assert not issubclass(errors.StopFailed, errors.StartError)
    assert not issubclass(errors.Overtaken, errors.OperationError)
    assert "start" not in errors.StopFailed.message + errors.StopFailed.remedy
    assert "stop" not in errors.StartFailed.message + errors.StartFailed.remedy


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "gone"), "there is no such file or folder; create it"),
        (PermissionError(13, "no"), "may not be read by user 7; check owner and mode"),
        (NotADirectoryError(20, "no"), "is no folder; name the folder"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_the_systems_refusals_are_told_with_a_cure(error: OSError, words: str) -> None:
    assert explained(error, 7).startswith(words)

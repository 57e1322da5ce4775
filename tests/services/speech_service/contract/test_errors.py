"""Errors and the clients that retry: what would fail again gets a status that they leave alone."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from speech_service.contract.errors import (
    Conflict,
    HttpError,
    InternalError,
    InvalidRequest,
    ModelMissing,
    ModelUnavailable,
    NoSpace,
    QueueFull,
    ShuttingDown,
    SpeechError,
    TooLarge,
    TooSlow,
    Unauthorized,
)


def below(kind: type[SpeechError]) -> Iterator[type[SpeechError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from below(one)


def retried(status: int) -> bool:
    """What OpenAI's clients send again by themselves."""
    return status in (408, 409, 429) or status >= 500


@pytest.mark.parametrize("kind", list(below(InvalidRequest)))
def test_what_is_wrong_with_a_request_is_not_sent_again(kind: type[SpeechError]) -> None:
    assert 400 <= kind.status < 500
    assert not retried(kind.status) or kind is Conflict
    assert kind.type == "invalid_request_error"


@pytest.mark.parametrize(
    "error", [QueueFull("", 3.2), ModelUnavailable(""), ShuttingDown("")], ids=lambda e: e.code
)
def test_what_may_work_later_says_when(error: SpeechError) -> None:
    assert retried(error.status)
    assert int(error.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(("seconds", "after"), [(0.0, 1), (0.2, 1), (3.2, 4), (600.0, 600)])
def test_a_full_queue_names_whole_seconds(seconds: float, after: int) -> None:
    assert QueueFull("later", seconds).headers["Retry-After"] == str(after)


@pytest.mark.parametrize(
    "error",
    [TooLarge(""), TooSlow(""), QueueFull("", 1), ShuttingDown(""), NoSpace("")],
    ids=lambda error: error.code,
)
def test_who_leaves_a_body_unread_closes_the_connection(error: SpeechError) -> None:
    assert error.headers["Connection"] == "close"


def test_the_body_is_openais() -> None:
    assert ModelUnavailable("set HF_TOKEN", "hf_token_missing").as_openai() == {
        "error": {
            "message": "set HF_TOKEN",
            "type": "server_error",
            "param": "model",
            "code": "hf_token_missing",
        }
    }


@pytest.mark.parametrize(("error", "status"), [(InternalError(), 500), (TooSlow(""), 408)])
def test_a_defect_or_a_slow_body_is_not_sent_again(error: SpeechError, status: int) -> None:
    assert retried(error.status)
    assert (error.status, error.headers["X-Should-Retry"]) == (status, "false")


def test_other_failures_say_nothing_of_headers() -> None:
    assert SpeechError("x").headers == {}
    assert Unauthorized("x").headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(("status", "code"), [(404, "not_found"), (405, "invalid_request")])
def test_the_frameworks_refusals_keep_their_status(status: int, code: str) -> None:
    error = HttpError(status, "no")
    assert (error.status, error.code) == (status, code)


def test_what_is_missing_keeps_its_name_between_processes() -> None:
    missing = pickle.loads(pickle.dumps(ModelMissing("alignment:org/french")))  # noqa: S301
    assert (missing.name, str(missing)) == ("alignment:org/french", missing.message)
    assert "'alignment:org/french' is not on this machine" in missing.message
    assert (missing.status, missing.code) == (503, "model_unavailable")

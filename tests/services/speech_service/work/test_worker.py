"""The worker's side of the conversations, here in a thread; `test_isolation` has the process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from speech_service.contract.errors import ModelUnavailable
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options, Segment, Summary
from speech_service.work.conversation import Gone, Link, Load, Transcribe, Word
from speech_service.work.worker import Worker

from ...harness import wait_until
from ...obedient_engine import ObedientEngine


@pytest.fixture
def service() -> Iterator[Link]:
    """The other end of a worker's link."""
    ours, theirs = map(Link, socket.socketpair())
    worker = Worker(theirs, ObedientEngine(Settings()))
    attending = threading.Thread(target=theirs.attend, args=(worker.serve,))
    attending.start()
    yield ours
    ours.end()
    ours.attend(worker.serve)
    attending.join(10)


def test_a_model_is_kept_as_long_as_the_conversation(service: Link) -> None:
    held = service.converse()
    key = held.ask(Load("tiny"))
    del held

    def is_gone() -> bool:
        try:
            service.converse().ask(Transcribe(key, Options()))
        except KeyError:
            return True
        return False

    wait_until(is_gone)


def test_samples_are_asked_for_as_they_are_needed(service: Link) -> None:
    held = service.converse()
    with service.converse() as conversation:
        assert conversation.ask(Transcribe(held.ask(Load("tiny")), Options())) is Word.MORE
        assert conversation.ask(np.full(3, 7, np.int16)) is Word.MORE
        said = conversation.ask(Word.END)
        assert isinstance(said, Segment) and said.text.startswith("tiny [7]")
        assert isinstance(conversation.ask(Word.GO_ON), Summary)
        assert conversation.ask(Word.GO_ON) is Word.END
        with pytest.raises(Gone):
            conversation.hear()


def test_who_is_stopped_ends_first_and_says_so(service: Link, tmp_path: Path) -> None:
    held = service.converse()
    key = held.ask(Load("tiny"))
    conversation = service.converse()
    conversation.ask(Transcribe(key, Options(prompt=f"count {tmp_path / 'end'}")))
    assert conversation.ask(Word.STOP) is Word.END
    assert (tmp_path / "end").exists()


def test_who_is_left_alone_ends(service: Link, tmp_path: Path) -> None:
    held = service.converse()
    key = held.ask(Load("tiny"))
    with service.converse() as conversation:
        conversation.ask(Transcribe(key, Options(prompt=f"count {tmp_path / 'end'}")))
    wait_until((tmp_path / "end").exists)


def test_what_goes_wrong_is_told(service: Link) -> None:
    with pytest.raises(ModelUnavailable):
        service.converse().ask(Load("away"))
    held = service.converse()
    key = held.ask(Load("tiny"))
    with pytest.raises(RuntimeError, match="LibraryError: in the middle"):
        service.converse().ask(Transcribe(key, Options(prompt="fail in the middle")))


def test_a_model_is_borrowed_of_the_service(service: Link) -> None:
    tiny, other = service.converse(), service.converse()
    other_key = other.ask(Load("other"))
    conversation = service.converse()
    conversation.say(Transcribe(tiny.ask(Load("tiny")), Options(prompt="borrow other")))
    lending = service.accept()
    assert lending.hear() == "other"
    lending.say(other_key)
    said = conversation.hear()
    assert said.text.startswith("tiny borrows other")
    assert isinstance(conversation.ask(Word.GO_ON), Summary)
    with pytest.raises(Gone):
        lending.hear()


def test_a_refusal_to_lend_is_raised_where_it_was_wanted(service: Link) -> None:
    tiny = service.converse()
    conversation = service.converse()
    conversation.say(Transcribe(tiny.ask(Load("tiny")), Options(prompt="borrow other")))
    lending = service.accept()
    lending.hear()
    lending.fail(ModelUnavailable("away"))
    with pytest.raises(ModelUnavailable):
        conversation.hear()

"""Conversations between two processes, here both ends in one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from speech_service.contract.errors import ModelUnavailable
from speech_service.work.conversation import Conversation, Gone, Link, Word

from ...obedient_engine import LibraryError

Ends = tuple[Link, Link]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = map(Link, socket.socketpair())
    yield one, other
    one.end()
    for end in (one, other):
        end.attend(Conversation.hear)


def conversation(ends: Ends) -> tuple[Conversation, Conversation]:
    begun = ends[0].converse()
    return begun, ends[1].accept()


def test_either_side_begins_and_none_waits_for_another(ends: Ends) -> None:
    one, other = ends
    here, there = one.converse(), other.converse()
    second = one.converse()
    second.say("second")
    here.say("first")
    assert other.accept().hear() == "first"
    assert other.accept().hear() == "second"
    there.say("back")
    assert one.accept().hear() == "back"


def test_what_is_said_is_understood(ends: Ends) -> None:
    here, there = conversation(ends)
    here.say(Word.MORE)
    assert there.hear() is Word.MORE
    large = {"a": (1, b"x" * 1_000_000)}  # more than fits between the two
    threading.Thread(target=there.say, args=(large,)).start()
    assert here.hear() == large


def test_closing_one_side_is_the_end_for_both(ends: Ends) -> None:
    here, there = conversation(ends)
    with here:
        pass
    with pytest.raises(Gone):
        there.hear()
    with pytest.raises(Gone):
        there.say("anybody?")


def test_the_last_reference_closes_it(ends: Ends) -> None:
    here, there = conversation(ends)
    del here
    with pytest.raises(Gone):
        there.hear()


def test_an_error_that_every_process_knows_is_raised_as_it_is(ends: Ends) -> None:
    here, there = conversation(ends)
    there.fail(ModelUnavailable("away", "hub_unreachable"))
    with pytest.raises(ModelUnavailable, match="away") as raised:
        here.hear()
    assert raised.value.code == "hub_unreachable"
    assert not hasattr(raised.value, "__notes__")
    there.fail(ValueError("too much"))
    with pytest.raises(ValueError, match="too much"):
        here.hear()


def test_of_a_librarys_error_only_the_words_are_sent(ends: Ends) -> None:
    def inner_most() -> None:
        raise LibraryError("no such layer")

    here, there = conversation(ends)
    try:
        inner_most()
    except LibraryError as error:
        there.fail(error)
    with pytest.raises(RuntimeError) as raised:
        here.hear()
    assert str(raised.value) == "LibraryError: no such layer"
    [note] = raised.value.__notes__
    assert "in inner_most" in note


def test_a_link_is_attended_to_until_its_end(ends: Ends) -> None:
    one, other = ends

    def answer(conversation: Conversation) -> None:
        with conversation:
            conversation.say(conversation.hear() * 2)

    attending = threading.Thread(target=other.attend, args=(answer,))
    attending.start()
    answers: list[Any] = [one.converse().ask(number) for number in range(5)]
    assert answers == [0, 2, 4, 6, 8]
    one.end()
    attending.join(10)
    assert not attending.is_alive()
    with pytest.raises(Gone):
        one.converse()
    with pytest.raises(Gone):
        one.accept()
    one.end()


def test_a_librarys_time_limit_for_sockets_is_not_ours(ends: Ends) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.05)
    try:
        here, there = conversation(ends)
    finally:
        socket.setdefaulttimeout(before)
    threading.Timer(0.2, lambda: there.say("late")).start()
    assert here.hear() == "late"

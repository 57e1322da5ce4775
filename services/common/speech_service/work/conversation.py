"""Conversations between the service and its worker process: either may begin one at any time.

Rules: the socket that links both carries nothing but the ends of further ones. Each conversation
has its own, so none waits for another, and lasts as long as its connection: closing it ends what
the other side does or keeps for it, and the end of a process ends all of its conversations. Who has
been asked something answers before anything else is said.
"""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from typing import Any

from ..contract.errors import SpeechError
from ..contract.transcript import Options


class Word(Enum):
    """What needs no more than a word."""

    MORE = auto()
    """The worker wants the next block of samples; the answer is one, or `END`."""
    GO_ON = auto()
    """The service has taken an item."""
    STOP = auto()
    """Nobody waits for this transcription any more; the answer to whatever the worker said last."""
    END = auto()
    """There is nothing more to come."""


@dataclass(frozen=True, slots=True)
class Load:
    """Asks for a model, kept as long as the conversation; the answer is its key."""

    model: str


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Asks for the items of the model with this key; `END` comes behind the last of them."""

    key: int
    options: Options


class Gone(Exception):
    """The other side has ended the conversation, or has itself come to an end."""


class Conversation:
    """One side of a conversation; the end of its context, or of its last reference, ends it."""

    def __init__(self, descriptor: int) -> None:
        self._connection: Connection[Any, Any] = Connection(descriptor)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def say(self, message: object) -> None:
        """Send a message.

        Raises:
            Gone: nobody hears it.
        """
        try:
            self._connection.send(message)
        except OSError as error:
            raise Gone from error

    def hear(self) -> Any:
        """Return the next message.

        Raises:
            Gone: there comes none.
            whatever the other side could not do: see `fail`.
        """
        try:
            message = self._connection.recv()
        except (EOFError, OSError) as error:
            raise Gone from error
        if isinstance(message, _Failure):
            raise message.error
        return message

    def ask(self, message: object) -> Any:
        """Send a message and return the answer; errors as `hear`."""
        self.say(message)
        return self.hear()

    def fail(self, error: Exception) -> None:
        """Let an error be raised where the answer is heard.

        It keeps its kind if every process knows that; what a library raises would be imported
        there, with the whole library. A note tells where it came from.
        """
        known = isinstance(error, SpeechError) or type(error).__module__ == "builtins"
        told = error if known else RuntimeError(f"{type(error).__qualname__}: {error}")
        if not isinstance(error, SpeechError):
            told.add_note("".join(traceback.format_exception(error)))
        self.say(_Failure(told))


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception


class Link:
    """One end of what links the two processes.

    Args:
        control: one of a pair of sockets, for this link alone.
    """

    def __init__(self, control: socket.socket) -> None:
        control.setblocking(True)
        self._control = control
        self._sending = threading.Lock()

    def converse(self) -> Conversation:
        """Begin a conversation.

        Raises:
            Gone: the other process has ended.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                # Libraries have a default of their own for new sockets.
                end.setblocking(True)
            try:
                with self._sending:
                    socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
            except OSError as error:
                raise Gone from error
            return Conversation(ours.detach())

    def accept(self) -> Conversation:
        """Wait for a conversation that the other side begins.

        Raises:
            Gone: it has ended, or the link has.
        """
        try:
            _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        except OSError as error:
            raise Gone from error
        if not descriptors:
            raise Gone
        return Conversation(descriptors[0])

    def attend(self, serve: Callable[[Conversation], None]) -> None:
        """Serve all conversations that the other side begins, each in a thread, until its end."""
        with self._control, suppress(Gone):
            while True:
                threading.Thread(target=serve, args=(self.accept(),), daemon=True).start()

    def end(self) -> None:
        """End the link; whoever attends to it on either side returns."""
        with suppress(OSError):  # where the other side was faster
            self._control.shutdown(socket.SHUT_RDWR)

"""Models in a process of their own, which ends when the last of them is given back.

A library that has been imported stays in memory for as long as the process that imported it, and so
does much of what a decoder has allocated. So the service itself imports next to nothing, and a
worker process holds whatever is large.

Rules: a worker lives as long as a model in it is held, and is started when one is wanted and there
is none that takes more. One of the models may stand for a burden, such as large libraries: once
that has been given back, its worker takes no further models, those in it count as worn out, and it
ends with the last of its transcriptions. A worker that died takes all of its models with it; the
next request starts another.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..contract.engine import Borrow, Engine, Item
from ..contract.errors import SpeechError
from ..contract.settings import Settings
from ..contract.transcript import Options
from . import worker
from .conversation import Conversation, Gone, Link, Load, Transcribe, Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_END_SECONDS = 5.0


class WorkerEnded(SpeechError):
    """The process that transcribes has ended in the middle of it."""

    code = "worker_ended"


class RemoteModel:
    """A model in a worker process, for as long as somebody refers to it.

    It is a `Recognizer` if what the engine loaded there is one.
    """

    def __init__(self, worker: _WorkerProcess, held: Conversation, key: int) -> None:
        self.key = key
        self._worker = worker
        self._held = held

    @property
    def worn_out(self) -> bool:
        """Whether it should rather be loaded anew than used once more."""
        return not self._worker.takes_models

    def is_in(self, worker: _WorkerProcess) -> bool:
        """Say whether it is a model of this process."""
        return self._worker is worker

    def transcribe(
        self, audio: Iterator[NDArray[np.int16]], options: Options
    ) -> Generator[Item, None, None]:
        """See `Recognizer.transcribe`.

        Raises:
            WorkerEnded: the process of the model has.
        """
        with self._worker.conversation() as conversation:
            conversation.say(Transcribe(self.key, options))
            while (said := conversation.hear()) is not Word.END:
                answer: object = Word.GO_ON
                try:
                    if said is Word.MORE:
                        answer = next(audio, Word.END)
                    else:
                        yield said
                except BaseException:
                    _stop(conversation)
                    raise
                conversation.say(answer)


def _stop(conversation: Conversation) -> None:
    """Return once the worker transcribes no more: what it used is free then."""
    with suppress(Exception):  # that something else went wrong meanwhile is nobody's concern now
        while conversation.ask(Word.STOP) is not Word.END:
            pass


class _WorkerProcess:
    """A running worker process; it ends with the last reference to it.

    Args:
        kind: the engine, as its class.
        settings: what the engine is made with.
        borrow: claims models of this process' pool.
    """

    def __init__(self, kind: Callable[[Any], Engine], settings: Settings, borrow: Borrow) -> None:
        ours, theirs = socket.socketpair()
        self._link = Link(ours)
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-m", worker.__name__, str(descriptor)]
            self._process = subprocess.Popen(command, pass_fds=[descriptor])
        self.retired = False
        weakref.finalize(self, self._link.end)
        # Whatever a thread refers to lives as long as the thread does.
        lend = partial(_lend, weakref.ref(self), borrow)
        attending = partial(_attend, self._link, self._process, lend)
        threading.Thread(target=attending, daemon=True).start()
        with self.conversation() as conversation:
            conversation.say((kind, settings))

    @property
    def takes_models(self) -> bool:
        """Whether further models may be loaded here."""
        return not self.retired and self._process.poll() is None

    @contextmanager
    def conversation(self) -> Iterator[Conversation]:
        """Begin a conversation for as long as the context lasts.

        Raises:
            WorkerEnded: from wherever the other side is found gone.
        """
        try:
            with self._link.converse() as conversation:
                yield conversation
        except Gone as error:
            raise self._ended() from error

    def load(self, name: str) -> RemoteModel:
        """Load a model here; errors as `Engine.load`, and WorkerEnded."""
        try:
            held = self._link.converse()
            return RemoteModel(self, held, held.ask(Load(name)))
        except Gone as error:
            raise self._ended() from error

    def retire(self) -> None:
        """Take no further models."""
        self.retired = True

    def _ended(self) -> WorkerEnded:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        status = self._process.returncode
        log.error("worker ended", extra={"status": status})
        if status == -signal.SIGKILL:
            return WorkerEnded(
                "the process that transcribes was killed: there is too little memory"
            )
        return WorkerEnded(
            "the process that transcribes has ended; the log of the service says why"
        )


def _attend(
    link: Link, process: subprocess.Popen[bytes], lend: Callable[[Conversation], None]
) -> None:
    """Serve a worker process until the link to it ends, and see to it that it ends, too."""
    link.attend(lend)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:  # it has no reason to take longer than a moment
        process.kill()
        process.wait()
    log.info("worker process ended", extra={"pid": process.pid})


def _lend(
    borrower: weakref.ref[_WorkerProcess], borrow: Borrow, conversation: Conversation
) -> None:
    """Claim a model for a worker for as long as the conversation lasts."""
    with conversation, suppress(Gone):
        name = conversation.hear()
        try:
            with borrow(name) as model, suppress(Gone):
                process = borrower()
                if process and not model.is_in(process):
                    # It takes no more models for others, but has begun something that needs this.
                    model = process.load(name)
                conversation.ask(model.key)
        except Exception as error:
            conversation.fail(error)


class Workers:
    """Loads models in a worker process, starting one if need be.

    Args:
        kind: the engine that runs there, as its class; it is made of the settings alone.
        settings: of the engine.
        burden: name of the model whose worker takes no others once it is given back.
    """

    def __init__(self, kind: Callable[[Any], Engine], settings: Settings, burden: str) -> None:
        self._kind = kind
        self._settings = settings
        self._burden = burden
        self._lock = threading.Lock()
        self._newest: weakref.ref[_WorkerProcess] | None = None
        self._waiting: _WorkerProcess | None = None

    def prepare(self, borrow: Borrow) -> None:
        """Start a first worker process; return at once.

        Args:
            borrow: what the engines there claim models with.
        """
        self._borrow = borrow
        self._waiting = self._process()

    def load(self, name: str) -> RemoteModel:
        """Load a model; errors as `Engine.load`, and WorkerEnded."""
        process = self._process()
        try:
            model = process.load(name)
        finally:
            self._waiting = None
        if name == self._burden:
            weakref.finalize(model, process.retire)
        return model

    def _process(self) -> _WorkerProcess:
        """Return the process that takes models."""
        with self._lock:
            newest = self._newest() if self._newest else None
            if newest is None or not newest.takes_models:
                newest = _WorkerProcess(self._kind, self._settings, self._borrow)
                self._newest = weakref.ref(newest)
            return newest

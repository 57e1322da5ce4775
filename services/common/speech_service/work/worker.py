"""The worker process: an engine by itself, which lends its models to the service.

`python -m speech_service.work.worker DESCRIPTOR`, where the descriptor is one end of a `Link`. It
lives as long as the link: it has no state worth saving, so nothing is ended in good order but its
temporary files. Signals that a terminal or a supervisor sends to all processes of the service are
the service's to heed.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..contract.engine import Engine
from ..contract.transcript import Options
from ..process import logs
from ..process.memory import hand_back
from .conversation import Conversation, Gone, Link, Load, Transcribe, Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Stopped(Exception):
    """Nobody waits for this transcription any more."""


class Worker:
    """Serves the service's conversations.

    Args:
        link: to the service.
        engine: not prepared yet.
    """

    def __init__(self, link: Link, engine: Engine) -> None:
        self._link = link
        self._engine = engine
        self._models: dict[int, Any] = {}
        self._keys = itertools.count()
        engine.prepare(self._borrow)

    def serve(self, conversation: Conversation) -> None:
        """Do what the other side asks for; return when it is done, or not wanted any more."""
        with conversation, suppress(Gone):
            try:
                match conversation.hear():
                    case Load(model):
                        self._load(conversation, model)
                    case Transcribe(key, options):
                        self._transcribe(conversation, self._models[key], options)
            except (Stopped, Gone):
                pass
            except Exception as error:
                conversation.fail(error)
                return
            conversation.say(Word.END)

    def _load(self, conversation: Conversation, name: str) -> None:
        key = next(self._keys)
        self._models[key] = self._engine.load(name)
        try:
            conversation.ask(key)  # which is never answered: the other side only ever closes
        finally:
            del self._models[key]
            hand_back()

    def _transcribe(self, conversation: Conversation, model: Any, options: Options) -> None:
        def asked(message: object) -> Any:
            answer = conversation.ask(message)
            if answer is Word.STOP:
                raise Stopped
            return answer

        def blocks() -> Iterator[NDArray[np.int16]]:
            while (block := asked(Word.MORE)) is not Word.END:
                yield block

        with closing(model.transcribe(blocks(), options)) as items:
            for item in items:
                asked(item)

    @contextmanager
    def _borrow(self, name: str) -> Iterator[Any]:
        """See `contract.engine.Borrow`: the service decides which models stay in memory."""
        with self._link.converse() as conversation:
            yield self._models[conversation.ask(name)]


def main(descriptor: int) -> None:
    """Serve the link until it ends; the first conversation says what engine this is."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    link = Link(socket.socket(fileno=descriptor))
    with suppress(Gone), tempfile.TemporaryDirectory(prefix="worker-") as folder:
        tempfile.tempdir = folder
        with link.accept() as conversation:
            kind, settings = conversation.hear()
        logs.configure(settings.log_level)
        link.attend(Worker(link, kind(settings)).serve)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    finally:
        # Threads that still compute would be waited for.
        os._exit(0)

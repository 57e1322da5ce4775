"""What the live protocols share: samples that arrive over a WebSocket, and both its directions.

Rules: a connection is counted from its handshake on, and a session from then on as well; those
beyond are told so in their protocol, and where even too many wait to be told, by the handshake.
Whoever is connected has to say something in time. A client's leaving is noticed also while
something else is waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..contract.errors import QueueFull, SpeechError
from ..work.live import LiveSession
from ..work.places import Places
from .refusals import refuse_request, translated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
log = logging.getLogger(__name__)

LONGEST_MESSAGE_BYTES = 2 << 20
"""Half a minute of audio, as samples of 32 bits at 16 kHz or as base64 of pcm16 at 24 kHz."""

END_OF_AUDIO = "END_OF_AUDIO"
POLICY_VIOLATION, INTERNAL_ERROR, TRY_AGAIN_LATER = 1008, 1011, 1013


GREETING_SECONDS = 10.0
"""In which a client that speaks first has to do so."""
_EARLY_MESSAGES = 64
_EARLY_BYTES = LONGEST_MESSAGE_BYTES
"""How much of a client waits here; what it sends beyond stays with it until this has been read."""


class Connections:
    """ASGI middleware: lets so many WebSockets be open, and refuses the handshakes of others."""

    def __init__(self, app: ASGIApp, places: Places) -> None:
        self._app = app
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        with ExitStack() as held:
            try:
                held.enter_context(self._places.one())
            except QueueFull as error:
                await refuse_request(error, scope, receive, send)
            else:
                await self._app(scope, receive, send)


class Inbox:
    """What a client sends, in order, also what it sends while something else is waited for."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._early: deque[Message] = deque()

    async def receive(self) -> Message:
        """Return the next message."""
        return self._early.popleft() if self._early else await self._websocket.receive()

    async def meanwhile(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; cancel it as soon as the client is gone.

        Raises:
            WebSocketDisconnect: the client has left.
        """
        working = asyncio.ensure_future(work)
        try:
            while not working.done() and self._has_room():
                await self._listen(working)
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def _has_room(self) -> bool:
        waiting = sum(_size(message) for message in self._early)
        return len(self._early) < _EARLY_MESSAGES and waiting < _EARLY_BYTES

    async def _listen(self, working: asyncio.Future[T]) -> None:
        """Keep the next message, unless the work is done before one comes."""
        receiving = asyncio.ensure_future(self._websocket.receive())
        await asyncio.wait((working, receiving), return_when=asyncio.FIRST_COMPLETED)
        receiving.cancel()
        [message] = await asyncio.gather(receiving, return_exceptions=True)
        if isinstance(message, BaseException):
            if not isinstance(message, asyncio.CancelledError):
                raise message
            return
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        self._early.append(message)


def _size(message: Message) -> int:
    return len(message.get("bytes") or b"") + len(message.get("text") or "")


async def converse(
    receiving: Coroutine[Any, Any, bool], sending: Coroutine[Any, Any, None]
) -> None:
    """Run both directions of a connection until the sender is done or the client has left.

    Args:
        receiving: returns whether the client still waits for what is left to say.
        sending: ends by itself once the audio has ended.
    """
    receiver, sender = asyncio.ensure_future(receiving), asyncio.ensure_future(sending)
    try:
        await asyncio.wait((receiver, sender), return_when=asyncio.FIRST_COMPLETED)
        if sender.done() or receiver.result():
            await sender
    except WebSocketDisconnect:
        pass
    finally:
        for task in (receiver, sender):
            task.cancel()
        await asyncio.gather(receiver, sender, return_exceptions=True)


class Patience:
    """Waits for what a client sends, yet not for ever: one that is idle holds a place of others.

    Args:
        seconds: without audio, until a client counts as gone.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin to wait anew: audio has come."""
        self._until = asyncio.get_running_loop().time() + self._seconds

    async def receive(self, inbox: Inbox) -> Message | None:
        """Return the next message, or None where the client has been idle for too long."""
        try:
            async with asyncio.timeout_at(self._until):
                return await inbox.receive()
        except TimeoutError:
            return None


async def receive_samples(
    inbox: Inbox,
    session: LiveSession,
    kind: SampleKind,
    max_seconds: float,
    patience: float,
) -> bool:
    """Feed a session from a client until it is done, has left, or has had its time.

    Args:
        max_seconds: of audio, which are its time.
        patience: seconds without audio that mean the client is done.
    Returns:
        Whether the client is still there.
    """
    waiting = Patience(patience)
    width, rest = _WIDTH[kind], b""
    while session.seconds < max_seconds:
        message = await waiting.receive(inbox)
        if message is None:
            break
        if message["type"] == "websocket.disconnect":
            return False
        data = message.get("bytes") or b""
        if message.get("text") == END_OF_AUDIO or data == END_OF_AUDIO.encode():
            break
        rest += data
        whole = len(rest) // width * width
        if whole:
            samples, rest = _samples(rest[:whole], kind), rest[whole:]
            del message, data  # the session may take its time
            await session.feed(samples)
            waiting.renew()
    session.end()
    return True


SampleKind = Literal["float32", "int16", "uint8"]

_WIDTH: dict[SampleKind, int] = {"float32": 4, "int16": 2, "uint8": 1}


def _samples(data: bytes, kind: SampleKind) -> NDArray[np.int16]:
    """Return the samples of a message; what is no number counts as silence."""
    import numpy as np

    match kind:
        case "int16":
            return np.frombuffer(data, "<i2").astype(np.int16)
        case "uint8":
            return (np.frombuffer(data, np.uint8).astype(np.int16) - 128) * 256
        case "float32":
            floats = np.nan_to_num(np.frombuffer(data, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
            np.clip(floats, -1.0, 1.0, out=floats)
            floats *= 32767
            samples: NDArray[np.int16] = floats.astype(np.int16)
            return samples


@asynccontextmanager
async def orderly(
    websocket: WebSocket, written: Callable[[SpeechError], str]
) -> AsyncIterator[None]:
    """Let whatever ends a session be told in its protocol before the connection closes.

    A client that has left is told nothing; a failure that nobody foresaw goes to the log as well.

    Args:
        written: returns the protocol's message for an error.
    """
    try:
        yield
    except WebSocketDisconnect:
        pass
    except Exception as error:
        if not isinstance(error, SpeechError):
            log.exception("session failed")
        refusal = translated(error)
        await refuse(websocket, written(refusal), refusal)


async def refuse(websocket: WebSocket, message: str, error: SpeechError) -> None:
    """Say why, then close (RFC 6455, section 7.4.1).

    With 1013 for what may work later, 1011 for a failure of this service, 1008 for what never will.
    """
    later = error.status in (429, 503)
    never = POLICY_VIOLATION if error.status < 500 else INTERNAL_ERROR
    with suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_text(message)
        await websocket.close(TRY_AGAIN_LATER if later else never)

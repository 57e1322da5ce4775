"""What the live protocols share: samples that arrive over a WebSocket, and both its directions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..contract.errors import InvalidRequest, SpeechError
from ..work.live import LiveSession
from ..work.service import SpeechService
from .refusals import translated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

END_OF_AUDIO = "END_OF_AUDIO"
POLICY_VIOLATION, INTERNAL_ERROR, TRY_AGAIN_LATER = 1008, 1011, 1013


@asynccontextmanager
async def orderly(
    websocket: WebSocket, worded: Callable[[SpeechError], str]
) -> AsyncIterator[None]:
    """Hold a conversation: however it fails, the client is told in its own words, then it closes.

    Args:
        worded: an error as the protocol has it.
    """
    try:
        yield
    except WebSocketDisconnect:
        return
    except Exception as error:
        if not isinstance(error, SpeechError):
            log.exception("conversation failed")
        refusal = translated(error)
        await refuse(websocket, worded(refusal), refusal)


def json_object(text: str | None) -> dict[str, Any]:
    """Return a message that is one JSON object.

    Raises:
        InvalidRequest: it is something else, is nested too deeply, or holds half a character, which
            no answer could repeat.
    """
    try:
        found = json.loads(text or "")
        if "\\u" in (text or ""):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("every message must be a JSON object") from error
    if not isinstance(found, dict):
        raise InvalidRequest("every message must be a JSON object")
    return found


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


async def receive_samples(
    websocket: WebSocket,
    session: LiveSession,
    kind: Literal["float32", "int16"],
    service: SpeechService,
    patience: float | None = None,
) -> bool:
    """Feed a session from a client until it is done, has left, or has had its time.

    Args:
        patience: seconds of silence on the wire that mean the client is done.
    Returns:
        Whether the client is still there.
    """
    limit = service.settings.max_audio_seconds
    rest = b""
    while session.seconds < limit:
        try:
            message = await asyncio.wait_for(websocket.receive(), patience)
        except TimeoutError:
            break
        if message["type"] == "websocket.disconnect":
            return False
        data = message.get("bytes") or b""
        if message.get("text") == END_OF_AUDIO or data == END_OF_AUDIO.encode():
            break
        rest += data
        whole = len(rest) // _WIDTH[kind] * _WIDTH[kind]
        if whole:
            await session.feed(_samples(rest[:whole], kind))
            rest = rest[whole:]
    session.end()
    return True


_WIDTH = {"float32": 4, "int16": 2}


def _samples(data: bytes, kind: Literal["float32", "int16"]) -> NDArray[np.int16]:
    """Return the samples of a message; what is no number counts as silence."""
    import numpy as np

    if kind == "int16":
        return np.frombuffer(data, "<i2").astype(np.int16)
    floats = np.nan_to_num(np.frombuffer(data, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
    samples: NDArray[np.int16] = (np.clip(floats, -1.0, 1.0) * 32767).astype(np.int16)
    return samples


async def refuse(websocket: WebSocket, message: str, error: SpeechError) -> None:
    """Say why, then close (RFC 6455, section 7.4): 1013 if it may work later, 1011 if it is our
    fault, 1008 if it never will."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_text(message)
        await websocket.close(_close_code(error))


def _close_code(error: SpeechError) -> int:
    if error.status in (429, 503):
        return TRY_AGAIN_LATER
    return INTERNAL_ERROR if error.status >= 500 else POLICY_VIOLATION

"""What the live protocols share: samples that arrive over a WebSocket, and both its directions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..contract.errors import SpeechError
from ..work.live import LiveSession
from ..work.service import SpeechService

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

END_OF_AUDIO = "END_OF_AUDIO"
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


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
    """Say why, then close: 1013 for what may work later, 1008 for what never will."""
    later = error.status in (429, 503)
    with suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_text(message)
        await websocket.close(TRY_AGAIN_LATER if later else POLICY_VIOLATION)

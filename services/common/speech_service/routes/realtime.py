"""OpenAI's Realtime API for transcription: `WS /v1/realtime?intent=transcription`.

Events: https://platform.openai.com/docs/api-reference/realtime. Both shapes of a session are
understood, the nested one (`session.update`) and the earlier flat one
(`transcription_session.update`); what is sent has the nested one. Nothing is confirmed that is not
done: formats that are not decoded and models that cannot be had are refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.websockets import WebSocket

from ..contract.errors import (
    EmptyCommit,
    InvalidField,
    InvalidRequest,
    SessionExpired,
    SpeechError,
)
from ..contract.languages import LanguageCode
from ..contract.transcript import Options, Transcript
from ..http import formats
from ..http.forms import json_object, parse
from ..http.intake import Service
from ..http.sockets import Inbox, Patience, converse, orderly
from ..http.spellings import Form, FreeText
from ..media.streams import Encoding, StreamDecoder
from ..media.utterances import Pace
from ..work.live import Failed, Heard, LiveSession, SpeechStarted, SpeechStopped
from ..work.service import SpeechService

router = APIRouter()

SUBPROTOCOL = "realtime"
SHORTEST_COMMIT_SECONDS = 0.1
"""OpenAI's service takes less for a mistake, too."""
_LONGEST_NAME = 512
_TRANSCRIPTION = "conversation.item.input_audio_transcription"

ENCODINGS = {
    "audio/pcm": Encoding("pcm_s16le", 24_000, 2),
    "audio/pcmu": Encoding("pcm_mulaw", 8_000, 1),
    "audio/pcma": Encoding("pcm_alaw", 8_000, 1),
}
"""The formats of OpenAI's sessions; all are mono."""
_FLAT_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
"""Their names in earlier sessions."""


def _named_format(value: Any) -> Any:
    """Return a format in its nested shape; a bare name is one as well."""
    if isinstance(value, str):
        return {"type": _FLAT_FORMATS.get(value, value)}
    return value


class AudioFormat(BaseModel):
    """How the samples that come in are written."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None

    @property
    def encoding(self) -> Encoding:
        """What a decoder has to know.

        Raises:
            InvalidField: the samples come at another rate than the format has.
        """
        encoding = ENCODINGS[self.type]
        if self.rate not in (None, encoding.rate):
            raise InvalidField(
                f"{self.type} comes at {encoding.rate} samples per second here, not {self.rate}; "
                "resample the audio before sending it",
                "format.rate",
            )
        return encoding

    def described(self) -> dict[str, Any]:
        """Return the format as OpenAI's clients know it: only one of them tells its rate."""
        rate = {"rate": ENCODINGS[self.type].rate} if self.type == "audio/pcm" else {}
        return {"type": self.type, **rate}


class TurnDetection(BaseModel):
    """How the end of an utterance is found; `semantic_vad` is taken for `server_vad`."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    silence_duration_ms: int = Field(default=500, ge=100, le=10_000)


class Transcription(Form):
    """Which model is to hear which language."""

    model: str | None = None
    language: LanguageCode = None
    prompt: Annotated[str | None, FreeText()] = None
    keywords: Annotated[str | None, FreeText(", ", is_list=True)] = None


class SessionInput(BaseModel):
    """What a client may set, brought into one shape."""

    model_config = ConfigDict(extra="ignore")

    format: Annotated[AudioFormat, BeforeValidator(_named_format)] = AudioFormat()
    transcription: Transcription = Transcription()
    turn_detection: TurnDetection | None = TurnDetection()

    def pace(self) -> Pace:
        """Return when an utterance ends."""
        if self.turn_detection is None:
            return Pace(longest=60.0, endpoints=False)
        return Pace(silence=self.turn_detection.silence_duration_ms / 1000)

    def described(self) -> dict[str, Any]:
        """Return the settings as OpenAI's clients know them: those that are followed."""
        return {
            "format": self.format.described(),
            "transcription": self.transcription.model_dump(
                include={"model", "language", "prompt"}, exclude_none=True
            ),
            "turn_detection": self.turn_detection and self.turn_detection.model_dump(),
        }


def session_input(update: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return the input settings after an update in either shape; what is not named stays."""
    nested = (update.get("audio") or {}).get("input") or {}
    flat = {
        "format": update.get("input_audio_format"),
        "transcription": update.get("input_audio_transcription"),
        "turn_detection": update.get("turn_detection", ...),
    }
    changed = dict(before)
    for source in (flat, nested):
        if source.get("format"):
            changed["format"] = source["format"]
        if source.get("transcription"):
            changed["transcription"] = before.get("transcription", {}) | source["transcription"]
        if source.get("turn_detection", ...) is not ...:
            changed["turn_detection"] = source["turn_detection"]
    return changed


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket, service: Service) -> None:
    """Speak OpenAI's Realtime protocol; only transcription is on offer."""
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    async with orderly(websocket, lambda error: _event("error", error=_details(error))):
        with service.live_sessions.one():
            await _Conversation(websocket, service).run()


class _Conversation:
    """One client and its session."""

    def __init__(self, websocket: WebSocket, service: SpeechService) -> None:
        self._websocket = websocket
        self._inbox = Inbox(websocket)
        self._service = service
        self._id = _new("sess")
        model = websocket.query_params.get("model") or "whisper-1"
        self._wanted = parse(SessionInput, {"transcription": {"model": model}})
        self._decoder = StreamDecoder(self._wanted.format.encoding)
        self._item = _new("item")
        self._previous: str | None = None
        self._session = LiveSession(service, *self._wishes())

    def _wishes(self) -> tuple[str | None, Options, Pace]:
        """Return model, options and pace that the session's settings come down to."""
        wanted = self._wanted.transcription
        language = wanted.language or self._service.settings.default_language
        options = Options(language=language, prompt=wanted.prompt, hotwords=wanted.keywords)
        return wanted.model, options, self._wanted.pace()

    async def run(self) -> None:
        """Serve the client until it leaves, its patience or its time ends."""
        await self._provide(self._wanted)
        await self._send("session.created", session=self._description())
        await converse(self._receive(), self._report())

    async def _provide(self, wanted: SessionInput) -> None:
        """Return once the model is here; it is fetched for as long as the client waits."""
        await self._inbox.meanwhile(self._service.provide(wanted.transcription.model))

    async def _receive(self) -> bool:
        settings = self._service.settings
        waiting = Patience(settings.max_idle_seconds)
        while (heard := self._session.seconds) < settings.max_audio_seconds:
            message = await waiting.receive(self._inbox)
            if message is None:
                seconds = settings.max_idle_seconds
                await self._fail(SessionExpired(f"no audio came for {seconds:g} seconds"))
                break
            if message["type"] == "websocket.disconnect":
                return False
            event_id = None
            try:
                event = json_object(message.get("text"))
                event_id = _named(event.get("event_id"))
                await self._handle(event)
            except SpeechError as error:
                await self._fail(error, event_id)
            if self._session.seconds > heard:
                waiting.renew()
        else:
            seconds = settings.max_audio_seconds
            await self._fail(SessionExpired(f"the session has had its {seconds:g} seconds"))
        self._session.end()
        return True

    async def _fail(self, error: SpeechError, event_id: str | None = None) -> None:
        """Tell the client what went wrong; the session goes on."""
        await self._send("error", error=_details(error) | {"event_id": event_id})

    async def _handle(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "session.update" | "transcription_session.update":
                await self._update(event.get("session"))
            case "input_audio_buffer.append":
                await self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                self._commit()
            case "input_audio_buffer.clear":
                self._session.clear()
                await self._send("input_audio_buffer.cleared")
            case other:
                raise InvalidRequest(f"unknown event type {_named(other)!r}", "type")

    async def _update(self, update: Any) -> None:
        if not isinstance(update, dict):
            raise InvalidField("session must be an object", "session")
        try:
            wanted = session_input(update, self._wanted.model_dump())
        except (AttributeError, TypeError) as error:
            raise InvalidField("session does not have the shape of a session", "session") from error
        checked = parse(SessionInput, wanted)
        encoding = checked.format.encoding
        await self._provide(checked)
        if encoding != self._wanted.format.encoding:
            self._decoder = StreamDecoder(encoding)
        # Only what is known is kept: whatever else a client sends would add up.
        self._wanted = checked
        self._session.configure(*self._wishes())
        await self._send("session.updated", session=self._description())

    async def _append(self, audio: Any) -> None:
        try:
            data = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise InvalidField("audio must be base64 of samples", "audio") from error
        samples = await asyncio.to_thread(self._decoder.decode, data)
        if len(samples):
            await self._session.feed(samples)

    def _commit(self) -> None:
        # The resampler may hold a millisecond back.
        seconds = round(self._session.uncommitted_seconds, 2)
        if seconds < SHORTEST_COMMIT_SECONDS:
            raise EmptyCommit(
                f"the buffer holds {seconds * 1000:.0f} ms of audio; at least "
                f"{SHORTEST_COMMIT_SECONDS * 1000:.0f} ms are needed"
            )
        self._session.commit()

    async def _report(self) -> None:
        """Send what happens in the session."""
        async for event in self._session.events():
            match event:
                case SpeechStarted(at):
                    await self._item_event(
                        "input_audio_buffer.speech_started", audio_start_ms=round(at * 1000)
                    )
                case SpeechStopped(at):
                    await self._item_event(
                        "input_audio_buffer.speech_stopped", audio_end_ms=round(at * 1000)
                    )
                    await self._item_event(
                        "input_audio_buffer.committed", previous_item_id=self._previous
                    )
                case Heard(transcript):
                    await self._completed(transcript)
                case Failed(error):
                    await self._failed(error)
        await self._websocket.close()

    async def _completed(self, transcript: Transcript) -> None:
        if transcript.text:
            delta = {"content_index": 0, "delta": transcript.text}
            await self._item_event(f"{_TRANSCRIPTION}.delta", **delta)
        await self._item_event(
            f"{_TRANSCRIPTION}.completed",
            content_index=0,
            transcript=transcript.text,
            usage=formats.duration_usage(transcript.summary.duration),
            **formats.warnings(transcript),
        )
        self._next_item()

    async def _failed(self, error: SpeechError) -> None:
        await self._item_event(f"{_TRANSCRIPTION}.failed", content_index=0, error=_details(error))
        self._next_item()

    def _next_item(self) -> None:
        self._previous, self._item = self._item, _new("item")

    async def _item_event(self, kind: str, **fields: Any) -> None:
        await self._send(kind, item_id=self._item, **fields)

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._websocket.send_text(_event(kind, **fields))

    def _description(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {"input": self._wanted.described()},
        }


def _event(kind: str, **fields: Any) -> str:
    event = {"event_id": _new("event"), "type": kind, **fields}
    return json.dumps(event, ensure_ascii=False)


def _named(value: Any) -> str | None:
    """Return what a client calls something, to be told to it again; None for what is no name."""
    return value[:_LONGEST_NAME] if isinstance(value, str) else None


def _details(error: SpeechError) -> dict[str, Any]:
    details: dict[str, Any] = error.as_openai()["error"]
    return details


def _new(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"

"""What routes are given: the service, and those that take speech an intake for their request.

Rules: no route lets the framework read its body, which it would keep whole, before anything can be
asked. A full queue refuses before the body is read, and only so many are read at a time. What has
been received is closed when the request ends, however it ends, unless a job has taken it over. What
a client waits for is given up once it has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from typing import IO, Annotated, TypeVar

from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request

from ..contract.engine import SAMPLE_RATE
from ..contract.errors import InvalidRequest, SpeechError
from ..contract.settings import Settings
from ..contract.transcript import KnownSpeaker, Options, Transcript
from ..media.audio import MediaFile, Recording
from ..media.remote import fetch
from ..work.job import Job
from ..work.service import SpeechService
from .disconnect import unless_client_leaves
from .forms import SpeakerFields, json_object, parse
from .spellings import nested
from .upload import Limits, Upload, read_body, read_form

F = TypeVar("F", bound=BaseModel)

_JSON_BYTES = 1 << 20
_LEAST_VOICE_SECONDS, _MOST_VOICE_SECONDS = 1.95, 10.05
"""OpenAI's 2 to 10 seconds, and what codecs take or add."""


class SpeechIntake:
    """Takes the recording of one request in and has it transcribed.

    Args:
        request: its body must be unread.
        service: does the work.
        received: closed when the request ends.
        keep: see `Limits.keep`.
    """

    def __init__(
        self,
        request: Request,
        service: SpeechService,
        received: ExitStack,
        keep: Callable[[int], None],
    ) -> None:
        self.service = service
        self._keep = keep
        self._request = request
        self._received = received

    @property
    def settings(self) -> Settings:
        """Those of the service."""
        return self.service.settings

    async def form(
        self, kind: type[F], file_fields: tuple[str, ...] = ("file",)
    ) -> tuple[Upload, F]:
        """Return the recording of a multipart body, and its other fields as a form.

        What the body does not name may be in the query.

        Args:
            kind: of the form.
            file_fields: names under which the file may come.
        Raises:
            QueueFull, InvalidField; and what `read_form` raises.
        """
        self.service.turns.check()
        limits = self._limits(self.settings.max_upload_bytes)
        with self.service.uploads.one():
            upload, fields = await read_form(self._request, limits, file_fields)
        self._received.callback(upload.file.close)
        query = nested(self._request.query_params.multi_items())
        return upload, parse(kind, {**query, **fields})

    async def json(self, kind: type[F]) -> F:
        """Return a body in JSON as a form.

        Raises:
            QueueFull, InvalidField; and what `read_body` and `json_object` raise.
        """
        with self.service.uploads.one():
            body = await read_body(self._request, self._limits(_JSON_BYTES))
        return parse(kind, json_object(body.decode(errors="replace"), "the body"))

    def _limits(self, max_bytes: int) -> Limits:
        settings = self.settings
        return Limits(max_bytes, settings.upload_timeout, settings.min_free_disk, self._keep)

    async def fetched(self, url: str, track: int | None) -> Recording:
        """Return the recording at an address that the client names; errors as `fetch`, QueueFull.

        Args:
            track: see `MediaFile`.
        Raises:
            ClientLeft: nobody is left to answer.
        """
        self.service.turns.check()
        with self.service.uploads.one():
            fetching = self._fetch(url)
            recording = MediaFile(await unless_client_leaves(self._request, fetching), track)
        self._received.callback(recording.close)
        return recording

    async def _fetch(self, url: str) -> IO[bytes]:
        # In threads of their own: a server that dawdles holds up nobody's transcription.
        loop, limit = asyncio.get_running_loop(), self.settings.max_upload_bytes
        return await loop.run_in_executor(self.service.downloads, fetch, url, limit)

    async def introduced(self, form: SpeakerFields, options: Options) -> Options:
        """Return the options with the speakers that the form introduces.

        Raises:
            InvalidRequest: they cannot be told apart, or a recording of a voice is no use.
        """
        if not form.known_speaker_names and not form.known_speaker_references:
            return options
        known = form.known()
        if options.speakers is None:
            raise InvalidRequest(
                "known speakers need diarize=true, or response_format=diarized_json",
                "known_speaker_names",
            )
        voices = await asyncio.to_thread(lambda: [_voice(*each) for each in known])
        return replace(options, speakers=replace(options.speakers, known=tuple(voices)))

    async def submit(self, recording: Recording, model: str | None, options: Options) -> Job:
        """Hand a recording over and return once its job runs; see `SpeechService.submit`.

        Raises:
            ClientLeft: nobody is left to answer.
        """
        self._received.pop_all()
        working = self.service.submit(recording, model, options)
        return await unless_client_leaves(self._request, working)

    async def finish(self, job: Job) -> Transcript:
        """Return the transcript of a job; it ends early if the client leaves.

        Raises:
            ClientLeft: nobody is left to answer.
        """
        return await unless_client_leaves(self._request, job.transcript())

    async def transcribe(
        self, recording: Recording, model: str | None, options: Options
    ) -> Transcript:
        """Have a recording transcribed; arguments and errors as `submit`."""
        return await self.finish(await self.submit(recording, model, options))


def _voice(name: str, data: bytes) -> KnownSpeaker:
    """Decode what a client brings of a voice."""
    try:
        blocks = list(MediaFile(BytesIO(data)).decode(_MOST_VOICE_SECONDS))
    except SpeechError as error:
        message = f"known_speaker_references: the recording of {name!r}: {error.message}"
        raise InvalidRequest(message, "known_speaker_references") from error
    samples = b"".join(block.tobytes() for block in blocks)
    if len(samples) < _LEAST_VOICE_SECONDS * SAMPLE_RATE * 2:
        raise InvalidRequest(
            f"known_speaker_references: the recording of {name!r} is shorter than 2 seconds",
            "known_speaker_references",
        )
    return KnownSpeaker(name, samples)


def _service(connection: HTTPConnection) -> SpeechService:
    service: SpeechService = connection.app.state.service
    return service


Service = Annotated[SpeechService, Depends(_service)]
"""Parameter of a route: the service it belongs to."""


async def _intake(request: Request, service: Service) -> AsyncIterator[SpeechIntake]:
    with ExitStack() as received, service.fields.share() as keep:
        yield SpeechIntake(request, service, received, keep)


Intake = Annotated[SpeechIntake, Depends(_intake)]
"""Parameter of a route that takes speech."""

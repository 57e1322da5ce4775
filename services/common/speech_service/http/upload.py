"""Reading a multipart upload: bounded, spooled to disk, never trusting the client's file name.

The body is read as it arrives; a file over 1 MiB goes to an unnamed temporary file, which the
system removes even if the process is killed.

Rules: a part is the recording by its field's name, or, where it has no name, by being a file. Every
other part is a field, also one that a client sends as a file; what is too large for a field and a
file beside the recording is nobody's, and left out.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from starlette.requests import Request

from ..contract.errors import EmptyFile, InvalidField, InvalidRequest, NoSpace, TooLarge
from .parts import Head, PartReader, Sink, text_of
from .spellings import nested

_FIELD_BYTES = 4 << 20
"""What one field may take; ten seconds of somebody's voice are among them."""
_ENVELOPE_BYTES = 8 << 20
"""What boundaries, part headers and the other fields of a form may take beside the file."""
_SPOOL_BYTES = 1 << 20
_MAX_PARTS = 200


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file, open for reading; whoever holds it closes `file`.

    `filename` is what the client said: for display only, never a path.
    """

    file: IO[bytes]
    filename: str
    size: int


async def read_form(
    request: Request, max_upload_bytes: int, file_fields: tuple[str, ...] = ("file",)
) -> tuple[Upload, dict[str, Any]]:
    """Read a multipart body into its one file and its other fields.

    Args:
        request: its body must be unread.
        max_upload_bytes: limit on the file.
        file_fields: names under which the file may come; the first of them wins.
    Returns:
        The upload and the fields, as `nested` has them.
    Raises:
        TooLarge: while reading, as soon as the limit is passed.
        EmptyFile: no bytes in the file.
        InvalidField: no file, more than one, or a field that is too long.
        InvalidRequest: no multipart body.
        NoSpace: the disk is full; what was written is gone.
        ClientDisconnect: the client has left.
    """
    content_type = request.headers.get("content-type", "")
    arriving = _bounded(request, max_upload_bytes)
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        async for _ in arriving:
            pass
        raise _missing(file_fields[0], "send it in a multipart/form-data body")
    with ExitStack() as held:
        body = _Body(file_fields, held)
        reader = PartReader(content_type, body.begin)
        async for data in arriving:
            reader.feed(data)
            await body.write()
        reader.close()
        await body.write()
        upload = body.upload()
        if not upload.size:
            raise EmptyFile("the file is empty", file_fields[0])
        if upload.size > max_upload_bytes:
            raise _too_large(max_upload_bytes)
        fields = nested((name, text_of(value)) for name, value in body.fields)
        for file in body.files:
            if file.data is not upload.file:
                file.data.close()
        held.pop_all()
        upload.file.seek(0)
        return upload, fields


async def _bounded(request: Request, max_upload_bytes: int) -> AsyncIterator[bytes]:
    """Yield a body that is not too large: refused at once where its length is declared."""
    limit = max_upload_bytes + _ENVELOPE_BYTES
    declared = request.headers.get("content-length", "")
    received = int(declared) if declared.isdecimal() else 0
    if received <= limit:
        received = 0
        async for data in request.stream():
            received += len(data)
            if received > limit:
                break
            yield data
    if received > limit:
        raise _too_large(max_upload_bytes)


@dataclass(slots=True)
class _File:
    """A part that may be the recording; `pending` has arrived and is not written yet."""

    name: str | None
    filename: str
    data: IO[bytes]
    size: int = 0
    pending: list[bytes] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        self.size += len(data)
        self.pending.append(data)


class _Body:
    """The parts of one body."""

    def __init__(self, file_fields: tuple[str, ...], held: ExitStack) -> None:
        self.files: list[_File] = []
        self.fields: list[tuple[str, bytearray]] = []
        self._names = file_fields
        self._held = held
        self._strangers: list[str] = []

    def begin(self, head: Head) -> Sink:
        """Return what takes the data of a part."""
        if len(self.files) + len(self.fields) >= _MAX_PARTS:
            raise InvalidRequest(f"a form has at most {_MAX_PARTS} fields")
        sounds = head.media_type.startswith(("audio/", "video/"))
        is_file = head.filename is not None or sounds
        if head.name in self._names or (not head.name and is_file):
            data = SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115
            self._held.callback(data.close)
            self.files.append(_File(head.name, head.filename or "audio", data))
            return self.files[-1].take
        if not head.name:
            raise InvalidRequest("a part of the multipart body has no name")
        if is_file:
            self._strangers.append(head.name)
        return self._field(head.name, is_file)

    def _field(self, name: str, is_file: bool) -> Sink:
        value = bytearray()
        self.fields.append((name, value))
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size <= _FIELD_BYTES:
                value.extend(data)
            elif is_file:
                value.clear()
            else:
                raise InvalidField(
                    f"the field {name[:80]!r} is longer than a field may be; the recording is "
                    f"expected in {self._names[0]!r}",
                    name,
                )

        return take

    async def write(self) -> None:
        """Put what has arrived into the files; in a thread where these are on the disk."""
        for file in self.files:
            data = b"".join(file.pending)
            file.pending.clear()
            try:
                if file.size > _SPOOL_BYTES and data:
                    await asyncio.to_thread(file.data.write, data)
                else:
                    file.data.write(data)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise NoSpace(
                    "the server has no room for this upload; try a smaller file"
                ) from error

    def upload(self) -> Upload:
        """Return the recording.

        Raises:
            InvalidField: there is none, or more than one under the same name.
        """
        expected = self._names[0]
        for name in (*self._names, None, ""):
            files = [file for file in self.files if file.name == name]
            filled = [file for file in files if file.size] or files[:1]
            if len(filled) > 1:
                raise InvalidField(f"one recording is expected in {name!r}, not several", expected)
            if filled:
                return Upload(filled[0].data, filled[0].filename, filled[0].size)
        raise _missing(expected, *(f"there is a file in {name!r}" for name in self._strangers[:1]))


def _missing(field: str, *hints: str) -> InvalidField:
    message = f"the multipart field {field!r} with the audio file is missing"
    return InvalidField("; ".join((message, *hints)), field)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the file is larger than the {limit} bytes that are accepted", "file")

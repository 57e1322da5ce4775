"""Reading a multipart upload: bounded, spooled to disk, never trusting the client's file name.

The body is read as it arrives; a file over 1 MiB goes to an unnamed temporary file, which the
system removes even if the process is killed.

Rules: a part is the recording by its field's name, or, where it has no name, by being a file. Every
other part is a field, also one that a client sends as a file; what is too large for a field and a
file beside the recording is nobody's, and left out. What is kept in memory has a limit of its own,
whatever a recording may have.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any

from starlette.requests import Request

from ..contract.errors import (
    EmptyFile,
    InvalidField,
    InvalidRequest,
    NoSpace,
    TooLarge,
    TooSlow,
)
from .parts import Head, PartReader, Sink, text_of
from .spellings import nested

_FIELD_BYTES = 4 << 20
"""What one field may take; ten seconds of somebody's voice are among them."""
_FIELDS_BYTES = 12 << 20
"""What all fields may take: recordings of four voices."""
_ENVELOPE_BYTES = 8 << 20
"""What boundaries, part headers and fields may have beside a file of the largest size."""
_SPOOL_BYTES = 1 << 20
_MAX_PARTS = 200
LOWEST_BYTES_PER_SECOND = 1_000
"""A body that comes more slowly has UPLOAD_TIMEOUT, and then no longer a place among those read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a body may take.

    Args:
        max_bytes: of its file.
        timeout: seconds that it may be behind its lowest rate.
        min_free_disk: share of the disk that has to stay free, 0 to 1.
        keep: is told of the bytes that are kept in memory, before they are, and may refuse them.
    """

    max_bytes: int
    timeout: float
    min_free_disk: float
    keep: Callable[[int], None] = lambda size: None


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file, open for reading; whoever holds it closes `file`.

    `filename` is what the client said: for display only, never a path.
    """

    file: IO[bytes]
    filename: str
    size: int


async def read_form(
    request: Request, limits: Limits, file_fields: tuple[str, ...] = ("file",)
) -> tuple[Upload, dict[str, Any]]:
    """Read a multipart body into its one file and its other fields.

    Args:
        request: its body must be unread.
        limits: of the body.
        file_fields: names under which the file may come; the first of them wins.
    Returns:
        The upload and the fields, as `nested` has them.
    Raises:
        TooLarge: while reading, as soon as the limit is passed.
        EmptyFile: no bytes in the file.
        InvalidField: no file, more than one, or a field that is too long.
        InvalidRequest: no multipart body.
        TooSlow: it came at less than the lowest rate for too long.
        QueueFull: other forms keep too much.
        NoSpace: the disk is full; what was written is gone.
        ClientDisconnect: the client has left.
    """
    content_type = request.headers.get("content-type", "")
    largest = limits.max_bytes + _ENVELOPE_BYTES
    arriving = _bounded(request, limits, largest, _too_large(limits.max_bytes))
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        async for _ in arriving:
            pass
        raise _missing(file_fields[0], "send it in a multipart/form-data body")
    with ExitStack() as held:
        body = _Body(file_fields, held, limits)
        reader = PartReader(content_type, body.begin)
        async for data in arriving:
            reader.feed(data)
            await body.write()
        reader.close()
        await body.write()
        upload = body.upload()
        if not upload.size:
            raise EmptyFile("the file is empty", file_fields[0])
        if upload.size > limits.max_bytes:
            raise _too_large(limits.max_bytes)
        fields = nested((name, text_of(value)) for name, value in body.fields)
        for file in body.files:
            if file.data is not upload.file:
                file.data.close()
        held.pop_all()
        upload.file.seek(0)
        return upload, fields


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body that is no form.

    Args:
        request: its body must be unread.
        limits: of the body.
    Raises:
        TooLarge: before reading, or as soon as the limit is passed.
        TooSlow: it came at less than the lowest rate for too long.
        ClientDisconnect: the client has left.
    """
    error = TooLarge(f"the body is larger than the {limits.max_bytes} bytes that are accepted")
    return b"".join([data async for data in _bounded(request, limits, limits.max_bytes, error)])


async def _bounded(
    request: Request, limits: Limits, limit: int, error: TooLarge
) -> AsyncIterator[bytes]:
    """Yield a body that is not too large: refused at once where its length is declared."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size > limit:
        raise error
    if size > _SPOOL_BYTES:
        _check_room(size, limits.min_free_disk)
    received = 0
    async for data in _in_time(request, limits.timeout):
        received += len(data)
        if received > limit:
            raise error
        yield data


async def _in_time(request: Request, most_seconds: float) -> AsyncIterator[bytes]:
    """Yield a body as long as it comes at its lowest rate.

    Each byte buys a fraction of a second, and nobody has more than `most_seconds` in hand: a
    pause is forgiven, a byte a minute is not.
    """
    stream, clock = request.stream(), asyncio.get_running_loop().time
    patience = most_seconds
    while True:
        asked = clock()
        try:
            async with asyncio.timeout(patience):
                data = await anext(stream, None)
        except TimeoutError as error:
            raise TooSlow(
                f"the body comes at less than {LOWEST_BYTES_PER_SECOND} bytes per second; send it "
                "over a better network, or let the operator raise UPLOAD_TIMEOUT"
            ) from error
        if data is None:
            return
        earned = len(data) / LOWEST_BYTES_PER_SECOND
        patience = min(most_seconds, patience - (clock() - asked) + earned)
        yield data


def _check_room(size: int, min_free: float) -> None:
    """Raise `NoSpace` where so many bytes more would leave too little of the uploads' disk."""
    disk = shutil.disk_usage(gettempdir())
    if disk.free - size < min_free * disk.total:
        raise _no_space(f"{min_free:.0%} of its disk stay free")


def _no_space(reason: str) -> NoSpace:
    return NoSpace(
        f"the server has no room for this upload ({reason}): try a smaller file, or let the "
        "operator make room, or lower MIN_FREE_DISK"
    )


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

    def __init__(self, file_fields: tuple[str, ...], held: ExitStack, limits: Limits) -> None:
        self.files: list[_File] = []
        self.fields: list[tuple[str, bytearray]] = []
        self._names = file_fields
        self._held = held
        self._limits = limits
        self._strangers: list[str] = []
        self._kept = 0

    def begin(self, head: Head) -> Sink:
        """Return what takes the data of a part."""
        if len(self.files) + len(self.fields) >= _MAX_PARTS:
            raise InvalidRequest(f"a form has at most {_MAX_PARTS} fields")
        sounds = head.media_type.startswith(("audio/", "video/"))
        is_file = head.filename is not None or sounds
        if head.name in self._names or (not head.name and is_file):
            return self._recording(head.name, head.filename or "audio")
        if not head.name:
            raise InvalidRequest("a part of the multipart body has no name")
        if is_file:
            self._strangers.append(head.name)
        return self._field(head.name, is_file)

    def _recording(self, name: str | None, filename: str) -> Sink:
        data = SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115
        self._held.callback(data.close)
        file = _File(name, filename, data)
        others = [other for other in self.files if other.name == name]
        self.files.append(file)

        def take(data: bytes) -> None:
            if any(other.size for other in others):
                expected = self._names[0]
                raise InvalidField(f"one recording is expected in {name!r}, not several", expected)
            file.take(data)

        return take

    def _field(self, name: str, is_file: bool) -> Sink:
        value = bytearray()
        self.fields.append((name, value))
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            fits = size <= _FIELD_BYTES
            if fits and self._kept + len(data) <= _FIELDS_BYTES:
                self._limits.keep(len(data))
                self._kept += len(data)
                value.extend(data)
            elif is_file:
                self._kept -= len(value)
                value.clear()
                size = _FIELD_BYTES  # nor is what comes next kept
            elif fits:
                raise TooLarge(
                    f"the fields beside the recording have more than {_FIELDS_BYTES} bytes; the "
                    f"recording is expected in {self._names[0]!r}"
                )
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
                    _check_room(len(data), self._limits.min_free_disk)
                    await asyncio.to_thread(file.data.write, data)
                else:
                    file.data.write(data)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise _no_space("its disk is full") from error

    def upload(self) -> Upload:
        """Return the recording.

        Raises:
            InvalidField: there is none.
        """
        for name in (*self._names, None, ""):
            files = [file for file in self.files if file.name == name]
            for file in sorted(files, key=lambda file: not file.size)[:1]:
                return Upload(file.data, file.filename, file.size)
        hints = (f"there is a file in {name!r}" for name in self._strangers[:1])
        raise _missing(self._names[0], *hints)


def _missing(field: str, *hints: str) -> InvalidField:
    message = f"the multipart field {field!r} with the audio file is missing"
    return InvalidField("; ".join((message, *hints)), field)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the file is larger than the {limit} bytes that are accepted", "file")

"""Reading a multipart upload: bounded, spooled to disk, never trusting the client's file name.

The body is parsed as it arrives (python-multipart through Starlette); a file over 1 MiB goes to an
unnamed temporary file, which the system removes even if the process is killed.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message

from ..contract.errors import EmptyFile, InvalidField, NoSpace, TooLarge

_FIELD_BYTES = 4 << 20
"""What one field may take; ten seconds of somebody's voice are among them."""
_ENVELOPE_BYTES = 8 << 20
"""What boundaries, part headers and the other fields of a form may take beside the file."""
_MAX_FIELDS = 200

_KEY = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")


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
        file_fields: names under which the file may come.
    Returns:
        The upload and the fields. `key[]` and a repeated key give a list, `key[sub]` a dict; an
        empty value counts as absent.
    Raises:
        TooLarge: while reading, as soon as the limit is passed.
        EmptyFile: no bytes in the file.
        InvalidField: no file.
        NoSpace: the disk is full; what was written is gone.
    """
    bounded = Request(request.scope, _bounded(request, max_upload_bytes))
    try:
        form = await bounded.form(
            max_files=len(file_fields) + 1, max_fields=_MAX_FIELDS, max_part_size=_FIELD_BYTES
        )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace("the server has no room for this upload; try a smaller file") from error
    files = [form.get(name) for name in file_fields]
    chosen = next((file for file in files if isinstance(file, UploadFile)), None)
    for _, value in form.multi_items():
        if isinstance(value, UploadFile) and value is not chosen:
            value.file.close()
    if chosen is None:
        name = file_fields[0]
        raise InvalidField(f"the multipart field {name!r} with the audio file is missing", name)
    try:
        _check_size(chosen.size or 0, max_upload_bytes, file_fields[0])
    except (EmptyFile, TooLarge):
        chosen.file.close()
        raise
    return Upload(chosen.file, chosen.filename or "audio", chosen.size or 0), _fields(form)


def _check_size(size: int, limit: int, param: str) -> None:
    if not size:
        raise EmptyFile("the file is empty", param)
    if size > limit:
        raise _too_large(limit)


def _bounded(request: Request, max_upload_bytes: int) -> Any:
    """Return a `receive` that refuses a body too large: at once where its length is declared."""
    limit = max_upload_bytes + _ENVELOPE_BYTES
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(max_upload_bytes)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(max_upload_bytes)
        return message

    return receive


def _fields(form: FormData) -> dict[str, Any]:
    """Return the text fields as nested values, in the spellings that form clients use."""
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        match = _KEY.fullmatch(key)
        if not isinstance(value, str) or not value or not match:
            continue
        name, sub = match.groups()
        if sub:
            inner = fields.setdefault(name, {})
            if isinstance(inner, dict):
                inner[sub] = value
        elif sub is not None or name in fields:
            earlier = fields.get(name, [])
            fields[name] = [*(earlier if isinstance(earlier, list) else [earlier]), value]
        else:
            fields[name] = value
    return fields


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the file is larger than the {limit} bytes that are accepted", "file")

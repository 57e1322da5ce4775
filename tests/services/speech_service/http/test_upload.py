"""A multipart body: within its limits, in every spelling of its fields, and nothing left open."""

from __future__ import annotations

import errno
import gc
from typing import Any

import pytest
from speech_service.contract.errors import EmptyFile, InvalidField, NoSpace, TooLarge
from speech_service.http.upload import Upload, read_form
from starlette.requests import Request
from starlette.types import Message

LIMIT = 1000


def part(name: str, value: str, filename: str | None = None) -> str:
    kind = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{kind}\r\n\r\n{value}\r\n'


def request(*parts: str, declared: int | None = None, blocks: int = 1) -> Request:
    """A request whose body comes in so many blocks."""
    body = ("".join(parts) + "--b--\r\n").encode()
    size = -(-len(body) // blocks)
    messages: list[Message] = [
        {"type": "http.request", "body": body[start : start + size], "more_body": True}
        for start in range(0, len(body), size)
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    if declared is not None:
        headers.append((b"content-length", str(declared).encode()))
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def read(*parts: str, **how: Any) -> tuple[Upload, dict[str, Any]]:
    upload, fields = await read_form(request(*parts, **how), LIMIT, ("file", "audio_file"))
    upload.file.close()
    return upload, fields


FILE = part("file", "speech", "a.wav")


async def test_the_file_and_its_name_are_kept_apart_from_the_fields() -> None:
    upload, fields = await read_form(request(FILE, part("model", "base"), blocks=7), LIMIT)
    with upload.file as file:
        assert file.read() == b"speech"
    assert (upload.filename, upload.size, fields) == ("a.wav", 6, {"model": "base"})


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("k", "1")], {"k": "1"}),
        ([("k", "")], {}),
        ([("k[]", "1")], {"k": ["1"]}),
        ([("k[]", "1"), ("k[]", "2")], {"k": ["1", "2"]}),
        ([("k", "1"), ("k", "2"), ("k", "3")], {"k": ["1", "2", "3"]}),
        ([("k[a]", "1"), ("k[b]", "2")], {"k": {"a": "1", "b": "2"}}),
        ([("k", "1"), ("k[a]", "2")], {"k": "1"}),
        ([("[]", "1"), ("a[b][c]", "1")], {}),
    ],
)
async def test_every_spelling_of_a_field_is_understood(
    parts: list[tuple[str, str]], expected: dict[str, Any]
) -> None:
    _, fields = await read(FILE, *(part(*each) for each in parts))
    assert fields == expected


async def test_the_first_name_that_a_file_may_have_wins_and_the_other_is_closed() -> None:
    upload, _ = await read(part("audio_file", "no", "b"), part("file", "yes", "a"))
    assert upload.filename == "a"
    gc.collect()  # an open file would be a warning here, which is an error


@pytest.mark.parametrize("parts", [[], [part("model", "base")], [part("file", "text")]])
async def test_a_form_without_a_file_says_which_field_it_misses(parts: list[str]) -> None:
    with pytest.raises(InvalidField, match="'file' with the audio file is missing") as refused:
        await read(*parts)
    assert refused.value.param == "file"


async def test_an_empty_file_is_named() -> None:
    with pytest.raises(EmptyFile):
        await read(part("file", "", "a.wav"))


async def test_a_file_over_the_limit_is_refused_once_it_is_there() -> None:
    with pytest.raises(TooLarge, match="larger than the 1000 bytes"):
        await read(part("file", "x" * (LIMIT + 1), "a.wav"))


async def test_a_body_over_the_limit_is_refused_before_or_while_it_comes() -> None:
    with pytest.raises(TooLarge):
        await read(FILE, declared=LIMIT + (8 << 20) + 1)
    long = part("file", "x" * (9 << 20), "a.wav")
    with pytest.raises(TooLarge):
        await read(long, blocks=50)


@pytest.mark.parametrize(
    ("number", "raised"), [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EIO, OSError)]
)
async def test_a_full_disk_is_told_from_a_broken_one(
    number: int, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(self: Any, data: bytes) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", write)
    with pytest.raises(raised):
        await read(FILE)

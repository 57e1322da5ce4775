"""A multipart body: within its limits, in every spelling of its fields, and nothing left open."""

from __future__ import annotations

import asyncio
import errno
import gc
from typing import Any

import pytest
from speech_service.contract.errors import (
    EmptyFile,
    InvalidField,
    InvalidRequest,
    NoSpace,
    TooLarge,
    TooSlow,
)
from speech_service.http.upload import Limits, Upload, read_body, read_form
from starlette.requests import Request
from starlette.types import Message

LIMIT = 1000


def limits(max_bytes: int) -> Limits:
    return Limits(max_bytes, timeout=30.0, min_free_disk=0.0)


def part(name: str, value: str, filename: str | None = None) -> str:
    kind = f'; filename="{filename}"' if filename is not None else ""
    return raw(f'form-data; name="{name}"{kind}', value)


def raw(disposition: str, value: str, *headers: str) -> str:
    lines = [f"Content-Disposition: {disposition}", *headers]
    return "--b\r\n" + "".join(f"{line}\r\n" for line in lines) + f"\r\n{value}\r\n"


def request(
    *parts: str,
    declared: int | None = None,
    blocks: int = 1,
    before: str = "",
    end: str = "--b--\r\n",
    kind: str = "multipart/form-data; boundary=b",
) -> Request:
    """A request whose body comes in so many blocks."""
    body = (before + "".join(parts) + end).encode()
    size = max(1, -(-len(body) // blocks))
    messages: list[Message] = [
        {"type": "http.request", "body": body[start : start + size], "more_body": True}
        for start in range(0, len(body), size)
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(b"content-type", kind.encode())]
    if declared is not None:
        headers.append((b"content-length", str(declared).encode()))
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def read(*parts: str, **how: Any) -> tuple[Upload, dict[str, Any]]:
    upload, fields = await read_form(request(*parts, **how), limits(LIMIT), ("file", "audio_file"))
    upload.file.close()
    return upload, fields


FILE = part("file", "speech", "a.wav")


async def test_the_file_and_its_name_are_kept_apart_from_the_fields() -> None:
    upload, fields = await read_form(request(FILE, part("model", "base"), blocks=7), limits(LIMIT))
    with upload.file as file:
        assert file.read() == b"speech"
    assert (upload.filename, upload.size, fields) == ("a.wav", 6, {"model": "base"})


async def test_a_field_may_come_as_a_file_and_in_brackets() -> None:
    blob = raw('form-data; name="response_format"; filename="blob"', "srt", "Content-Type: a/b")
    _, fields = await read(FILE, blob, part("k[]", "1"), part("k[]", "2"), part("o[a]", "é"))
    assert fields == {"response_format": "srt", "k": ["1", "2"], "o": {"a": "é"}}


DISPOSITIONS = [
    ('form-data; name="file"; filename="a.wav"', "a.wav"),
    ("form-data; name=file; filename*=utf-8''%E8%AF%AD%E9%9F%B3.wav", "语音.wav"),
    ('form-data; name="file"; filename="a"; filename*=utf-8\'\'%E8%AF%AD.wav', "a"),
    ("form-data; name=file; filename*=nonsense''a.wav", "a.wav"),
    ('form-data; name="file"; filename="語.wav"', "語.wav"),
    ('form-data; name="file"; filename="C:\\talks\\a.wav"', "a.wav"),
    ('form-data; name="file"', "audio"),
    ('form-data; name="audio_file"', "audio"),
    ('form-data; filename="a.wav"', "a.wav"),
    ('form-data; name=""; filename="a.wav"', "a.wav"),
    ("form-data", "audio"),
    ("", "audio"),
]
ENDS = ["--b--\r\n", "--b--", "--b-", "--b", "-", "", "--b--\r\nepilogue --b\r\n"]


@pytest.mark.parametrize(("disposition", "filename"), DISPOSITIONS)
@pytest.mark.parametrize("before", ["", "This is a multi-part message.\r\n", "\r\n--a\n\n"])
@pytest.mark.parametrize("end", ENDS)
async def test_a_recording_is_a_recording_however_it_is_wrapped(
    disposition: str, filename: str, before: str, end: str
) -> None:
    recording = raw(disposition, "speech", "Content-Type: audio/wav")
    for blocks in (1, 3, 1000):
        whole = request(part("model", "x"), recording, blocks=blocks, before=before, end=end)
        upload, fields = await read_form(whole, limits(LIMIT), ("file", "audio_file"))
        with upload.file as file:
            data = file.read()
        assert data == b"speech"
        assert (upload.filename, upload.size, fields) == (filename, 6, {"model": "x"})


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"kind": "multipart/form-data"}, "leave this header to the HTTP library"),
        ({"kind": "multipart/form-data; boundary=" + "b" * 300}, "too long"),
        ({"kind": "multipart/form-data; boundary=c"}, "does not have the boundary"),
        ({"before": "--b\r\nno header\x00\r\n\r\n"}, "malformed"),
    ],
)
async def test_what_is_no_multipart_body_says_what_to_do(how: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        await read(FILE, **how)


@pytest.mark.parametrize("kind", ["audio/wav", "", "application/x-www-form-urlencoded"])
async def test_a_body_of_another_kind_is_told_which_is_wanted(kind: str) -> None:
    with pytest.raises(InvalidField, match="send it in a multipart/form-data body") as refused:
        await read(FILE, kind=kind)
    assert refused.value.param == "file"


async def test_a_part_that_is_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="has no name"):
        await read(FILE, raw("form-data", "text"))
    with pytest.raises(InvalidRequest, match="at most 200 fields"):
        await read(FILE, *(part("k", "1") for _ in range(200)))


async def test_what_is_too_long_for_a_field_says_where_the_recording_belongs() -> None:
    long = "x" * ((4 << 20) + 1)
    with pytest.raises(InvalidField, match="'prompt' is longer .* expected in 'file'") as refused:
        await read_form(request(FILE, part("prompt", long)), limits(3 << 20))
    assert refused.value.param == "prompt"


async def test_a_large_file_that_nobody_asked_for_is_left_out() -> None:
    long = part("cover", "x" * (5 << 20), "cover.png")
    upload, fields = await read_form(request(FILE, long, blocks=9), limits(3 << 20))
    upload.file.close()
    assert (upload.size, fields) == (6, {"cover": ""})
    with pytest.raises(InvalidField, match="is missing; there is a file in 'cover'"):
        await read_form(request(long), limits(3 << 20))


async def test_a_large_recording_is_kept_whole() -> None:
    long = "0123456789abcdef" * (1 << 17)
    upload, _ = await read_form(request(part("file", long, "a.wav"), blocks=50), limits(3 << 20))
    with upload.file as file:
        assert file.read().decode() == long


async def test_two_recordings_are_one_too_many_unless_one_is_empty() -> None:
    upload, _ = await read(part("file", "", ""), FILE)
    assert upload.size == 6
    with pytest.raises(InvalidField, match="one recording is expected in 'file', not several"):
        await read(FILE, FILE)
    gc.collect()


async def test_the_first_name_that_a_file_may_have_wins_and_the_other_is_closed() -> None:
    upload, _ = await read(part("audio_file", "no", "b"), part("file", "yes", "a"))
    assert upload.filename == "a"
    gc.collect()  # an open file would be a warning here, which is an error


@pytest.mark.parametrize("parts", [[], [part("model", "base")]])
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
    def write(self: Any, data: bytes) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("speech_service.http.upload.SpooledTemporaryFile.write", write)
    with pytest.raises(raised):
        await read(FILE)


async def slowly(*pauses: float, size: int = 100) -> None:
    """Read a body, of which nothing is kept, whose blocks come after such pauses."""
    waits = iter(pauses)

    async def receive() -> Message:
        pause = next(waits, None)
        if pause is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": bytes(size), "more_body": True}

    kind = (b"content-type", b"application/octet-stream")
    slow = Request({"type": "http", "method": "POST", "headers": [kind]}, receive)
    with pytest.raises(InvalidField, match="missing"):
        await read_form(slow, Limits(1 << 30, timeout=0.1, min_free_disk=0.0))


async def test_a_body_that_keeps_its_lowest_rate_may_pause() -> None:
    # 100 bytes buy a tenth of a second, and nobody has more than a tenth in hand.
    await slowly(*[0.05] * 10)


@pytest.mark.parametrize(("pauses", "size"), [((0.3,), 100), ((0.0, 0.3), 1_000_000)])
async def test_a_body_that_falls_behind_is_given_up(pauses: tuple[float, ...], size: int) -> None:
    with pytest.raises(TooSlow, match="UPLOAD_TIMEOUT"):
        await slowly(*pauses, size=size)


async def test_bytes_that_only_drip_are_given_up() -> None:
    with pytest.raises(TooSlow):
        await slowly(*[0.03] * 20, size=1)


async def test_what_would_fill_the_disk_is_refused_whether_or_not_its_length_is_declared() -> None:
    long = part("file", "x" * (2 << 20), "a.wav")
    full = Limits(3 << 20, timeout=30.0, min_free_disk=0.9999)
    for declared in (None, 3 << 20):
        with pytest.raises(NoSpace, match="MIN_FREE_DISK"):
            await read_form(request(long, blocks=9, declared=declared), full)
    upload, _ = await read_form(request(FILE), full)
    with upload.file:
        assert upload.size, "what stays in memory takes no disk"


async def test_fields_have_a_limit_together_and_files_that_nobody_wants_do_not_count() -> None:
    long, most = "x" * (4 << 20), limits(20 << 20)
    with pytest.raises(TooLarge, match="the fields .* expected in 'file'"):
        await read_form(request(FILE, *(part(f"f{n}", long) for n in range(4))), most)
    covers = [part(f"c{n}", long + "x", "cover.png") for n in range(4)]
    upload, fields = await read_form(request(FILE, *covers, part("f", long), blocks=99), most)
    upload.file.close()
    assert [len(value) for value in fields.values()] == [0, 0, 0, 0, 4 << 20]


@pytest.mark.parametrize("declared", [None, LIMIT, LIMIT + 1])
async def test_a_body_that_is_no_form_has_a_limit(declared: int | None) -> None:
    most = limits(LIMIT)
    assert await read_body(request(end="x" * LIMIT, blocks=7), most) == b"x" * LIMIT
    with pytest.raises(TooLarge, match="the 1000 bytes that are accepted"):
        await read_body(request(end="x" * (LIMIT + 1), blocks=7, declared=declared), most)

"""A multipart body in its parts, cut anywhere; `test_upload` has what becomes of them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_service.contract.errors import InvalidRequest
from speech_service.http.parts import Head, PartReader, Sink, text_of


def parts_of(body: bytes, cuts: list[int]) -> list[tuple[Head, bytes]]:
    found: list[tuple[Head, bytearray]] = []

    def begin(head: Head) -> Sink:
        found.append((head, bytearray()))
        return found[-1][1].extend

    reader = PartReader("multipart/form-data; boundary=xyz", begin)
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in zip(places, places[1:], strict=False):
        reader.feed(body[start:end])
    reader.close()
    return [(head, bytes(data)) for head, data in found]


@given(
    st.lists(st.binary(max_size=40), max_size=4),
    st.lists(st.integers(0, 999), max_size=9),
    st.sampled_from([b"", b"preamble\r\n", b"\n", b"--xy\r\n"]),
)
def test_data_is_what_was_sent_wherever_it_is_cut(
    values: list[bytes], cuts: list[int], before: bytes
) -> None:
    head = b'--xyz\r\nContent-Disposition: form-data; name="k"\r\n\r\n'
    body = before + b"".join(head + value + b"\r\n" for value in values) + b"--xyz--\r\n"
    assert parts_of(body, cuts) == [(Head("k", None, ""), value) for value in values]


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_rubbish_is_read_or_refused(header: bytes, body: bytes) -> None:
    with suppress(InvalidRequest):
        parts_of(b"--xyz\r\nContent-Disposition: " + header + b"\r\n\r\n" + body, [7, 30])


@pytest.mark.parametrize(("data", "text"), [("é".encode(), "é"), (b"\xe9", "é"), (b"", "")])
def test_text_is_unicode_or_else_latin(data: bytes, text: str) -> None:
    assert text_of(data) == text

"""A multipart body in its parts (RFC 7578, RFC 2046 section 5.1), as clients really send them.

The grammar is python-multipart's. What it refuses and the standards or careless clients have: text
before the first boundary, a body that ends without the last one, and file names in the encoding of
RFC 5987, which RFC 7578 forbids and libraries send all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..contract.errors import InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


@dataclass(frozen=True, slots=True)
class Head:
    """What a part says of itself; `filename` is None where it names no file."""

    name: str | None
    filename: str | None
    media_type: str


Sink = Callable[[bytes], None]
"""Takes the data of one part, piece by piece."""


class PartReader:
    """Reads the parts of a body as it arrives.

    Args:
        content_type: the request's header; it says multipart/form-data.
        begin: told the head of each part; returns what takes its data.
    Raises:
        InvalidRequest: the header names no boundary.
    """

    def __init__(self, content_type: str, begin: Callable[[Head], Sink]) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest(
                "the Content-Type names no boundary; leave this header to the HTTP library"
            )
        self._end = b"\r\n--" + boundary + b"--\r\n"
        self._delimiter = b"--" + boundary
        self._begin = begin
        self._begun = False
        self._tail = b"\r\n"
        self._headers = Message()
        self._name = self._value = b""
        self._sink: Sink
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        self._ended = False
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise InvalidRequest("the boundary in the Content-Type is too long") from error

    def feed(self, data: bytes) -> None:
        """Read what has arrived; what comes behind the last boundary means nothing.

        Raises:
            InvalidRequest: it is no multipart body.
        """
        if not self._begun:
            data = self._without_preamble(data)
        if self._begun and not self._ended and data:
            size = len(self._end)
            self._tail = (self._tail + data[-size:])[-size:]
            self._write(data)

    def close(self) -> None:
        """Take the body for complete, also without its last boundary."""
        if not self._begun:
            raise InvalidRequest("the body does not have the boundary that the Content-Type names")
        if not self._ended:
            sizes = range(len(self._end), -1, -1)
            written = next(size for size in sizes if self._tail.endswith(self._end[:size]))
            self._write(self._end[written:])

    def _without_preamble(self, data: bytes) -> bytes:
        """Return what there is from the first boundary on, which begins a line."""
        data = self._tail + data
        place = data.find(b"\n" + self._delimiter)
        if place < 0:
            self._tail = data[-len(self._delimiter) - 1 :]
            return b""
        self._begun, self._tail = True, b""
        return data[place + 1 :]

    def _write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest("the multipart body is malformed") from error

    def _on_part_begin(self) -> None:
        self._headers = Message()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.decode("latin-1")] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get("Content-Disposition", "")
        _, options = parse_options_header(disposition)
        name, filename = options.get(b"name"), options.get(b"filename")
        self._sink = self._begin(
            Head(
                None if name is None else text_of(name),
                self._headers.get_filename() if filename is None else text_of(filename),
                self._headers.get_content_type() if "Content-Type" in self._headers else "",
            )
        )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._sink(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def text_of(data: bytes | bytearray) -> str:
    """Return what bytes of a form say: UTF-8, or else Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")

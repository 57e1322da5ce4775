"""What heads are made of, in both directions (RFC 9110, section 5; RFC 9112). Pure."""

from __future__ import annotations

import re
from collections.abc import Set
from functools import lru_cache

from autostart_proxy import errors

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]"
FIELDS = rb"(?:" + TOKEN + rb"++:" + TEXT + rb"*+\r\n)*+"
_FIELD_SECTION = re.compile(FIELDS)
_TRAILER_FORBIDDEN = re.compile(
    rb"(?i)(?:host|connection|content[-_](?:length|encoding|type|range)|transfer[-_]encoding"
    rb"|x[-_]forwarded(?:[-_][^:]++)?|x[-_]request[-_]id|x[-_]real[-_]ip|x[-_]autostart|forwarded"
    rb"|upgrade|expect|te|keep[-_]alive|proxy[-_][^:]++|http2[-_]settings|trailer|cookie"
    rb"|set[-_]cookie|(?:www[-_])?auth[^:]++|cache[-_]control|max[-_]forwards|range|if[-_][^:]++"
    rb"|location):"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")

PLAIN_CONNECTION = frozenset([b"keep-alive", b"close", b"upgrade", b"", b"te", b"http2-settings"])


def find_field(head: bytes, name: bytes) -> bytes:
    """Look up the first value of a field in anything that holds field lines; for rare uses."""
    found = _field_line(name).search(head)
    return found[1].strip(b" \t") if found else b""


@lru_cache(maxsize=16)
def _field_line(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?i)\n" + re.escape(name) + rb":([^\r\n]*)")


def clean_trailers(section: bytes) -> bytes | None:
    """Check a trailer section and leave out what only a header section may say.

    A trailer that frames, routes or authenticates would be taken for a header by servers that
    merge the two (RFC 9110, section 6.5.1).

    Args:
        section: the lines between the last chunk and the empty line, each with its CRLF.
    Returns:
        The lines that may pass; None if the section is malformed.
    """
    if not _FIELD_SECTION.fullmatch(section):
        return None
    lines = section.split(b"\r\n")[:-1]
    return b"".join(line + b"\r\n" for line in lines if not _TRAILER_FORBIDDEN.match(line))


def declared_body(
    length: bytes | None,
    coding: bytes | None,
    http10: bool,
    refusal: type[errors.ProxyError],
) -> tuple[int | None, bool]:
    """RFC 9112, section 6.3, without its leniency: whoever is in doubt refuses."""
    if coding is not None:
        if length is not None or http10 or coding.strip(b" \t") != b"chunked":
            raise refusal(detail="ambiguous framing")
        return None, True
    if length is None:
        return None, False
    digits = length.strip(b" \t")
    if not _LENGTH.fullmatch(digits):
        raise refusal(detail="bad Content-Length")
    return int(digits), False


def without_named(fields: bytes, names: Set[bytes]) -> bytes:
    """Leave out the fields that Connection names (RFC 9110, section 7.6.1)."""
    lines = fields.split(b"\r\n")[:-1]
    return b"".join(
        line + b"\r\n" for line in lines if line.partition(b":")[0].lower() not in names
    )

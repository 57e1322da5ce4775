"""Logging: one line per event on standard error, data behind the message as `key=value`.

A value of printable ASCII stays as it is, unless it holds a space, a quote, `=` or a backslash;
any other is quoted as JSON would, so that a line can be read back.

Rule: only our own records have the level that the operator wants. Libraries tell of headers,
queries and addresses with signatures, some of them at INFO already: of them only warnings are
written.
"""

from __future__ import annotations

import json
import logging
import re
import sys

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII but space, `"`, `=` and `\`
_OWN = ("speech_service", "faster_whisper_engine", "whisperx_engine")
"""Loggers that know what must not be written."""


class KeyValueFormatter(logging.Formatter):
    """Appends the `extra` fields of a record to its message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        data = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        pairs = (f" {key}={_quoted(value)}" for key, value in data.items())
        return super().formatMessage(record) + "".join(pairs)


def configure(level: str) -> None:
    """Send our own records to standard error from `level` on, and warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OWN:
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger(_OWN[0]).level))


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN(text) else json.dumps(text)

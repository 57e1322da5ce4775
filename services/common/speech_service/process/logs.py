"""Logging: one line per event on standard error, data behind the message as `key=value`.

A value of printable ASCII stays as it is, unless it holds a space, a quote, `=` or a backslash;
any other is quoted as JSON would, so that a line can be read back.
"""

from __future__ import annotations

import json
import logging
import re
import sys

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII but space, `"`, `=` and `\`
_TALKATIVE = ("faster_whisper", "httpx", "httpx2")
"""Loggers that tell at INFO what a request was about; the access line is enough."""


class KeyValueFormatter(logging.Formatter):
    """Appends the `extra` fields of a record to its message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        data = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        pairs = (f" {key}={_quoted(value)}" for key, value in data.items())
        return super().formatMessage(record) + "".join(pairs)


def configure(level: str) -> None:
    """Send the records of this process to standard error from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN(text) else json.dumps(text)

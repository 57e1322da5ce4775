"""Logging: one line per event on standard error, data behind the message as `key=value`."""

from __future__ import annotations

import logging
import sys

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class KeyValueFormatter(logging.Formatter):
    """Appends the `extra` fields of a record to its message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        data = (f" {key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
        return super().formatMessage(record) + "".join(data)


def configure(level: str) -> None:
    """Send the records of this process to standard error from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Both tell at INFO what a request was about; the access line is enough.
    for name in ("faster_whisper", "httpx"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))

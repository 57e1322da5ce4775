"""What an operator reads: one line per state change and per request, as text or JSON.

Messages are constant, data goes beside them (`extra=`). Under systemd every line carries its
priority (sd-daemon(3)), so that `journalctl -p warning` works, and no time, since the journal has
its own. Never a body, a token or a query string.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

_RECORD_KEYS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FLUSH_SECONDS = 0.05

_access = logging.getLogger("autostart_proxy.access")


def configure(
    *,
    format: Literal["text", "json"] = "text",
    level: str = "INFO",
    stream: TextIO | None = None,
) -> None:
    """Send the log to `stream` (standard error by default), replacing what was set before.

    Args:
        format: `text` for people, `json` for one JSON object per line.
        level: a name of the standard library's levels.
    """
    stream = stream or sys.stderr
    journal = stream is sys.stderr and "JOURNAL_STREAM" in os.environ
    handler = _Handler(stream)
    handler.setFormatter(
        _JsonFormatter() if format == "json" else _TextFormatter(journal=journal)
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _Handler):
            old.flush()
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def request(
    *,
    service: str,
    method: str,
    status: int,
    bytes_in: int,
    bytes_out: int,
    held_ms: float,
    total_ms: float,
    request_id: str,
    client: str,
    error_tag: str | None = None,
) -> None:
    """Log the end of one request.

    Args:
        service: canonical host of the service, `-` where none was found.
        status: what the client got; 499 if it left before its answer was complete.
        bytes_in: body bytes received from the client.
        bytes_out: body bytes sent to it.
        held_ms: milliseconds it waited for the service to be ready.
        total_ms: milliseconds from its first byte to the end.
        client: address as the proxy believes it; `unix` over a Unix socket.
        error_tag: tag of the proxy's own answer, where it gave one.
    """
    if not _access.isEnabledFor(logging.INFO):
        return
    data: dict[str, Any] = {
        "service": service,
        "method": method,
        "status": status,
        "in": bytes_in,
        "out": bytes_out,
        "held_ms": round(held_ms, 1),
        "total_ms": round(total_ms, 1),
        "id": request_id,
        "client": client,
    }
    if error_tag is not None:
        data["error"] = error_tag
    _access.info("request", extra=data)


def _data_of(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _RECORD_KEYS}


class _TextFormatter(logging.Formatter):
    """`INFO message key=value ...`, with the time in front where nobody else writes it."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        data = " ".join(f"{key}={_quoted(value)}" for key, value in _data_of(record).items())
        line = f"{record.levelname} {record.getMessage()} {data}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if self._journal:
            priority = _priority(record.levelno)
            return "\n".join(f"<{priority}>{part}" for part in line.split("\n"))
        return f"{_timestamp(record)} {line}"


class _JsonFormatter(logging.Formatter):
    """One object per line: `time`, `level`, `logger`, `message` and the data."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_data_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Handler(logging.Handler):
    """Writes lines in batches: a system call per request would cost as much as the request.

    A line waits at most 50 ms; warnings and worse, and lines from outside an event loop, do not
    wait at all.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []
        self._flush_due = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
            loop = asyncio._get_running_loop()
            if loop is None or record.levelno >= logging.WARNING:
                self.flush()
            elif not self._flush_due:
                self._flush_due = True
                loop.call_later(_FLUSH_SECONDS, self.flush)
        except Exception:  # as logging.Handler documents: a log never breaks its program
            self.handleError(record)

    def flush(self) -> None:
        self._flush_due = False
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()

    def close(self) -> None:
        self.flush()
        super().close()


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _priority(level: int) -> int:
    """syslog(3) priority of a logging level."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7

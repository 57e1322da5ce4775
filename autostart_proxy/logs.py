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
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol, TextIO

_RECORD_KEYS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FLUSH_SECONDS = 0.05
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII but space, `"`, `=` and `\`

_access = logging.getLogger("autostart_proxy.access")
_handler: _Handler | None = None


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
    global _handler
    stream = stream or sys.stderr
    journal = goes_to_journal(stream)
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
        _handler.close()
    lines = _JsonLines if format == "json" else _TextLines
    _handler = _Handler(stream, lines(journal=journal))
    root.addHandler(_handler)
    root.setLevel(level.upper())


def goes_to_journal(stream: TextIO) -> bool:
    """Whether systemd's journal reads a stream, and with it the priorities of its lines.

    `JOURNAL_STREAM` alone does not tell: whatever a service starts inherits it, often without the
    stream that it names (systemd.exec(5)).
    """
    try:
        file = os.fstat(stream.fileno())
    except OSError:  # it is no file, but memory
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}"


def prioritized(level: int, text: str) -> str:
    """Return lines as the journal takes them, each with its priority in front (sd-daemon(3))."""
    prefix = f"<{_priority(level)}>"
    return prefix + text.replace("\n", f"\n{prefix}")


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

    This is the one line of which a busy proxy writes thousands a second, so as text it goes
    straight to the handler of `configure`, past the making of a `LogRecord`.

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
    if _handler is not None and isinstance(_handler.lines, _TextLines):
        # None of these values can hold what needs quotes, and formatting them at one stroke takes
        # a fifth of the time.
        error = "" if error_tag is None else f" error={error_tag}"
        _handler.put(
            _handler.lines.text(
                datetime.now(UTC),
                logging.INFO,
                f"request service={service} method={method} status={status} in={bytes_in} "
                f"out={bytes_out} held_ms={held_ms:.1f} total_ms={total_ms:.1f} "
                f"id={request_id} client={client}{error}",
            )
        )
        return
    data: dict[str, object] = {
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


class _Lines(Protocol):
    """A format: how one line is written."""

    def line(
        self, at: datetime, level: int, logger: str, message: str, data: Mapping[str, object]
    ) -> str: ...


class _TextLines:
    """`INFO message key=value ...`, with the time in front where nobody else writes it."""

    def __init__(self, *, journal: bool) -> None:
        self._journal = journal

    def line(
        self, at: datetime, level: int, logger: str, message: str, data: Mapping[str, object]
    ) -> str:
        pairs = [f" {key}={_quoted(data[key])}" for key in data if key != "exception"]
        trace = f"\n{data['exception']}" if "exception" in data else ""
        return self.text(at, level, f"{message}{''.join(pairs)}{trace}")

    def text(self, at: datetime, level: int, words: str) -> str:
        """The line around a message and its data."""
        line = f"{logging.getLevelName(level)} {words}"
        if self._journal:
            return prioritized(level, line)
        return f"{at.isoformat(timespec='milliseconds')} {line}"


class _JsonLines:
    """One object per line: `time`, `level`, `logger`, `message` and the data."""

    def __init__(self, *, journal: bool) -> None:
        self._journal = journal

    def line(
        self, at: datetime, level: int, logger: str, message: str, data: Mapping[str, object]
    ) -> str:
        head = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": logging.getLevelName(level).lower(),
            "logger": logger,
            "message": message,
        }
        line = json.dumps({**head, **data}, default=str)
        return prioritized(level, line) if self._journal else line


class _Handler(logging.Handler):
    """Writes lines in batches: a system call per request would cost as much as the request.

    A line waits at most 50 ms; warnings and worse, and lines from outside an event loop, do not
    wait at all.
    """

    def __init__(self, stream: TextIO, lines: _Lines) -> None:
        super().__init__()
        self.lines = lines
        self._stream = stream
        self._waiting: list[str] = []
        self._flush_due = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = {key: value for key, value in vars(record).items() if key not in _RECORD_KEYS}
            if record.exc_info:
                data["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            at = datetime.fromtimestamp(record.created, UTC)
            message = record.getMessage()
            self.put(self.lines.line(at, record.levelno, record.name, message, data))
            if record.levelno >= logging.WARNING:
                self.flush()
        except Exception:  # as logging.Handler documents: a log never breaks its program
            self.handleError(record)

    def put(self, line: str) -> None:
        """Write a line soon."""
        self._waiting.append(line)
        if self._flush_due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._flush_due = True
            loop.call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        self._flush_due = False
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._stream.write("\n".join(waiting) + "\n")
            self._stream.flush()

    def close(self) -> None:
        self.flush()
        super().close()


def _quoted(value: object) -> str:
    if isinstance(value, list):
        return json.dumps(value, default=str)
    text = str(value)
    return text if _PLAIN(text) else json.dumps(text)


def _priority(level: int) -> int:
    """syslog(3) priority of a logging level."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7

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
import stat
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol, TextIO, assert_never

from autostart_proxy.errors import ProxyError
from autostart_proxy.journal import (
    ConfigApplied,
    Fact,
    PartKilled,
    RareFact,
    RequestEnded,
    ServiceFailed,
    ServiceMoved,
    SilenceExplained,
    StartMeasured,
    UpstreamFailed,
)
from autostart_proxy.log_writer import Writer

_RECORD_KEYS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FLUSH_SECONDS = 0.05
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII but space, `"`, `=` and `\`

_access = logging.getLogger("autostart_proxy.access")
_facts = logging.getLogger("autostart_proxy.journal")
_handler: _BatchedLog | None = None


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
    _handler = _BatchedLog(stream, lines(journal=journal))
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


def tell(fact: Fact) -> None:
    """Write a fact as one line; subscribes to the journal."""
    if isinstance(fact, RequestEnded):
        _tell_request(fact)
    else:
        level, message, data = _line_of(fact)
        _facts.log(level, message, extra={key: each for key, each in data if each is not None})


def _line_of(fact: RareFact) -> tuple[int, str, list[tuple[str, object]]]:
    """Level, message and data of a fact; what is None is left out."""
    match fact:
        case UpstreamFailed(service, request_id, error):
            data = [("service", service), ("id", request_id), *_told(error)]
            return logging.WARNING, "service did not answer", data
        case ServiceMoved(service, old, new, because, seconds):
            data = [("service", service), ("from", old), ("to", new), ("because", because)]
            return logging.INFO, "state", [*data, ("seconds", seconds and round(seconds, 3))]
        case ServiceFailed(service, error):
            return logging.ERROR, "failure", [("service", service), *_told(error)]
        case StartMeasured(service, preparing, starting, answering):
            stages = {"preparing": preparing, "starting": starting, "answering": answering}
            data = [(name, round(seconds, 3)) for name, seconds in stages.items()]
            return logging.DEBUG, "start measured", [("service", service), *data]
        case PartKilled(service, end):
            cure = "give it more time with stopTimeout, or find out why it ignores SIGTERM"
            data = [("service", service), ("part", end), ("cure", cure)]
            return logging.WARNING, "killed after its grace period", data
        case SilenceExplained(service, lines):
            data = [("service", service), ("lines", list(lines))]
            return logging.ERROR, "last lines of the service", data
        case ConfigApplied(services):
            return logging.INFO, "configuration in force", [("services", services)]
        case _:
            assert_never(fact)


def _told(error: ProxyError) -> list[tuple[str, object]]:
    """What only the operator may know."""
    return [("error", error.tag), ("reason", str(error)), ("cure", error.remedy)]


def _tell_request(fact: RequestEnded) -> None:
    """The one line of which a busy proxy writes thousands a second.

    As text it goes straight to the handler of `configure`, past the making of a `LogRecord`.
    """
    if not _access.isEnabledFor(logging.INFO):
        return
    held_ms, total_ms = fact.held_seconds * 1e3, fact.total_seconds * 1e3
    if _handler is not None and isinstance(_handler.lines, _TextLines):
        # None of these values can hold what needs quotes, and formatting them at one stroke takes
        # a fifth of the time.
        error = "" if fact.error is None else f" error={fact.error}"
        _handler.put(
            _handler.lines.text(
                datetime.now(UTC),
                logging.INFO,
                f"request service={fact.service} method={fact.method} status={fact.status} "
                f"in={fact.bytes_in} out={fact.bytes_out} held_ms={held_ms:.1f} "
                f"total_ms={total_ms:.1f} id={fact.request_id} client={fact.client}{error}",
            )
        )
        return
    data: dict[str, object] = {
        "service": fact.service,
        "method": fact.method,
        "status": fact.status,
        "in": fact.bytes_in,
        "out": fact.bytes_out,
        "held_ms": round(held_ms, 1),
        "total_ms": round(total_ms, 1),
        "id": fact.request_id,
        "client": fact.client,
    }
    if fact.error is not None:
        data["error"] = fact.error
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


class _BatchedLog(logging.Handler):
    """Writes lines in batches: a system call per request would cost as much as the request.

    A line waits at most 50 ms; warnings and worse, and lines from outside an event loop, do not
    wait at all.
    """

    def __init__(self, stream: TextIO, lines: _Lines) -> None:
        super().__init__()
        self.lines = lines
        self._waiting: list[str] = []
        self._flush_due = False
        self._sink: _Direct | Writer
        self._sink = Writer(stream, self._loss) if _may_stall(stream) else _Direct(stream)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = {key: value for key, value in vars(record).items() if key not in _RECORD_KEYS}
            if record.exc_info:
                data["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            at = datetime.fromtimestamp(record.created, UTC)
            message = record.getMessage()
            self.put(self.lines.line(at, record.levelno, record.name, message, data))
            if record.levelno >= logging.WARNING:
                self._pass_on()
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
            self._pass_on()
        else:
            self._flush_due = True
            loop.call_later(_FLUSH_SECONDS, self._pass_on)

    def _pass_on(self) -> None:
        self._flush_due = False
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._sink.write("\n".join(waiting) + "\n")

    def _loss(self, lines: int) -> str:
        data = {"lines": lines}
        at, name = datetime.now(UTC), _facts.name
        return self.lines.line(at, logging.WARNING, name, "log lines lost: nobody read", data)

    def flush(self) -> None:
        """Return once everything is written, or nobody reads."""
        self._pass_on()
        self._sink.drain()

    def close(self) -> None:
        self.flush()
        self._sink.close()
        super().close()


class _Direct:
    """Writes to where writing never has to wait: files, and memory."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def drain(self) -> None: ...
    def close(self) -> None: ...


def _may_stall(stream: TextIO) -> bool:
    """Whether a writer may have to wait for a reader: for pipes, sockets and terminals."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # it is no file, but memory
        return False


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

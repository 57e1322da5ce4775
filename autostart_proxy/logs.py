"""What an operator reads: one line per state change and per request, as text or JSON.

Messages are constant, data goes beside them (`extra=`). Under systemd every line carries its
priority (sd-daemon(3)), so that `journalctl -p warning` works, and no time, since the journal has
its own. Never a body, a token or a query string. What a client claims is quoted wherever it could
be taken for something else. Of a flood of refused requests only some are written, and how many
were not.
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
from functools import lru_cache
from time import time_ns
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

REFUSALS_PER_SECOND = 100
"""Lines on requests of one service that are refused for one reason. The systemd journal takes
10,000 lines in 30 s, and then throws away whatever else is said (journald.conf(5))."""

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
        _refusals.settle()
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
    if fact.error is not None and not _refusals.admit(fact.service, fact.error):
        return
    held_ms, total_ms = fact.held_seconds * 1e3, fact.total_seconds * 1e3
    if _handler is not None and isinstance(_handler.lines, _TextLines):
        # Formatting all at one stroke takes a fifth of the time. What a client claims apart, none
        # of these values can hold what needs quotes.
        path = fact.path if _PLAIN(fact.path) else _quoted(fact.path)
        host = "" if fact.host is None else f" host={_quoted(fact.host)}"
        error = "" if fact.error is None else f" error={fact.error}"
        _handler.put(
            _handler.lines.at_once(
                f"request service={fact.service} method={fact.method} path={path} "
                f"status={fact.status} in={fact.bytes_in} out={fact.bytes_out} "
                f"held_ms={held_ms:.1f} total_ms={total_ms:.1f} id={fact.request_id} "
                f"client={fact.client} user_agent={_quoted_agent(fact.user_agent)}{host}{error}",
            )
        )
        return
    data: dict[str, object] = {
        "service": fact.service,
        "method": fact.method,
        "path": fact.path,
        "status": fact.status,
        "in": fact.bytes_in,
        "out": fact.bytes_out,
        "held_ms": round(held_ms, 1),
        "total_ms": round(total_ms, 1),
        "id": fact.request_id,
        "client": fact.client,
        "user_agent": fact.user_agent,
    }
    for key, value in (("host", fact.host), ("error", fact.error)):
        if value is not None:
            data[key] = value
    _access.info("request", extra=data)


class _Refusals:
    """Counts the refused requests of this second, and admits so many of a kind to the log."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def admit(self, service: str, error: str) -> bool:
        """Whether another one is written; those that are not are told when the second is over."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return True
        if loop is not self._loop:
            self._loop = loop
            self.settle()
        if not self._seen:
            loop.call_later(1.0, self.settle)
        kind = service, error
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        return seen <= REFUSALS_PER_SECOND

    def settle(self) -> None:
        """Tell how many were left out, and count anew."""
        seen, self._seen = self._seen, {}
        for (service, error), count in seen.items():
            if count > REFUSALS_PER_SECOND:
                data = {"service": service, "error": error, "count": count - REFUSALS_PER_SECOND}
                _facts.warning("refused requests left out", extra=data)


_refusals = _Refusals()


class _Lines(Protocol):
    """A format: how one line is written."""

    def line(
        self, at: datetime, level: int, logger: str, message: str, data: Mapping[str, object]
    ) -> str: ...


class _TextLines:
    """`INFO message key=value ...`, with the time in front where nobody else writes it."""

    def __init__(self, *, journal: bool) -> None:
        self._journal = journal
        self._second = 0
        self._until_second = ""

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

    def at_once(self, words: str) -> str:
        """The line of this moment on something that is no trouble and fits one line.

        The time is written as `text` writes it, and all but its milliseconds once a second.
        """
        if self._journal:
            return f"<{_priority(logging.INFO)}>INFO {words}"
        second, rest = divmod(time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._until_second = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        return f"{self._until_second}.{rest // 1_000_000:03d}+00:00 INFO {words}"


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
        _refusals.settle()
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
    return text if _PLAIN(text) else json.dumps(text).replace("\x7f", "\\u007f")


_quoted_agent = lru_cache(maxsize=512)(_quoted)


def _priority(level: int) -> int:
    """syslog(3) priority of a logging level."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7

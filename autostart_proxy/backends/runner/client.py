"""The proxy's side: a command that the runner runs, as a backend.

- Nobody connects before the first start, so a runner whom nobody needs is not even started.
- Without a connection nothing runs: the runner ends what it runs for a proxy that hangs up, and
  systemd ends what it runs with the runner.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.backends.cancellation import over
from autostart_proxy.backends.runner.messages import (
    NEWS_LIMIT_BYTES,
    Cancel,
    Changed,
    Made,
    News,
    Nonsense,
    Order,
    Orders,
    Outcome,
    Verb,
    line,
    read_news,
    refused,
)
from autostart_proxy.backends.watchers import Watchers
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.errors import BackendRefused, Misconfigured, StartFailed

VARIABLE = "AUTOSTART_PROXY_RUNNER"
"""The environment variable with the runner's socket; without it the proxy runs commands itself."""

_log = logging.getLogger(__name__)

_CURE = "enable docker-autostart-commands.socket"


def runner_socket(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return where the runner listens, if there is to be one."""
    named = environment.get(VARIABLE)
    return Path(named) if named else None


def missing(path: Path, unit: CommandUnit) -> Iterator[tuple[str, str]]:
    """Yield the keys of a unit that name something that is not there, and why not.

    What the proxy may not look at, the runner may.
    """
    if not path.is_socket():
        yield "command", f"runs as a user of its own, and {path} is not there; {_CURE}"
    program = Path(unit.command[0])
    for key, named in (("cwd", unit.cwd), ("command", program if program.is_absolute() else None)):
        try:
            if named is not None:
                named.stat()
        except (FileNotFoundError, NotADirectoryError):
            yield key, f"{named}: there is no such file or folder; create it, or correct the path"
        except OSError:
            continue


class RunnerBackend:
    """Starts, stops and watches one command by way of the runner.

    Args:
        path: of the runner's socket.
        made: what the service is.
    """

    def __init__(self, path: Path, made: Made) -> None:
        self._path = path
        self._made = made
        self._connection: _Connection | None = None
        self._watchers = Watchers()

    async def start(self, launched: Callable[[], None]) -> Upstream:
        """See `Backend.start`.

        Raises:
            BackendRefused: the runner refuses, ends, or cannot be reached.
        """
        connection = self._open
        if connection is None:
            connection = self._connection = await self._connect()
        self._insist(await connection.call("start", launched=launched))
        self._watchers.tell()
        # Not what the runner says: requests go nowhere but where the configuration has them go.
        return Upstream(self._made.unit.host, self._made.unit.port)

    async def verify(self) -> None:
        """See `Backend.verify`."""
        self._insist(await self._call("verify"))

    async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
        """See `Backend.stop`; without a runner nothing runs."""
        outcome = await self._call("stop", grace_seconds)
        return outcome.exits if outcome else ()

    async def observe(self) -> Observation:
        """Look once; never fails."""
        outcome = await self._call("observe")
        return (outcome and outcome.seen) or Observation(running=False)

    def watch(self) -> AsyncIterator[Observation]:
        """Yield an observation now and after every change; see `Backend.watch`."""
        return self._watchers.watch(self.observe)

    async def log_tail(self) -> tuple[str, ...]:
        """The last lines the command wrote since its last start."""
        outcome = await self._call("log_tail")
        return outcome.lines if outcome else ()

    async def close(self) -> None:
        """Stop the command, since nobody could stop or adopt it later."""
        await self.stop(None)
        if self._connection is not None:
            await self._connection.close()

    @property
    def _open(self) -> _Connection | None:
        return None if self._connection is None or self._connection.lost else self._connection

    async def _connect(self) -> _Connection:
        try:
            streams = await asyncio.open_unix_connection(self._path, limit=NEWS_LIMIT_BYTES)
        except OSError as error:
            reason = f"command: nobody runs it at {self._path}: {error.strerror}; {_CURE}"
            raise BackendRefused(Misconfigured(detail=reason)) from error
        return _Connection(*streams, self._made, self._watchers.tell)

    async def _call(self, verb: Verb, grace_seconds: float | None = None) -> Outcome | None:
        connection = self._open
        return None if connection is None else await connection.call(verb, grace_seconds)

    def _insist(self, outcome: Outcome | None) -> None:
        if outcome is None:
            reason = f"who runs the commands at {self._path} has ended, and so has the command"
            raise BackendRefused(StartFailed(detail=reason))


class _Connection:
    """What the runner has of a service.

    Args:
        changed: is called where another look is worth while.

    Attributes:
        lost: whether the runner has hung up.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        made: Made,
        changed: Callable[[], None],
    ) -> None:
        self.lost = False
        self._reader = reader
        self._writer = writer
        self._changed = changed
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Outcome | None]] = {}
        self._launched: dict[int, Callable[[], None]] = {}
        writer.write(line(made))
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def call(
        self,
        verb: Verb,
        grace_seconds: float | None = None,
        launched: Callable[[], None] = lambda: None,
    ) -> Outcome | None:
        """Give an order and wait for its outcome; None where the runner ends meanwhile.

        Raises:
            BackendRefused: the runner says no.
        Cancellation: the order is cancelled too, and returns once it is over.
        """
        number = next(self._numbers)
        reply = asyncio.get_running_loop().create_future()
        self._replies[number], self._launched[number] = reply, launched
        self._say(Order(number, verb, grace_seconds))
        try:
            outcome: Outcome | None = await asyncio.shield(reply)
        except asyncio.CancelledError:
            self._say(Cancel(number))
            await over(reply)
            raise
        finally:
            del self._replies[number], self._launched[number]
        if outcome is not None and outcome.refusal is not None:
            raise refused(outcome.refusal)
        return outcome

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await over(self._reading)

    def _say(self, order: Orders) -> None:
        if self.lost:
            self._end_calls()
        else:
            self._writer.write(line(order))

    async def _read(self) -> None:
        try:
            async for sent in self._reader:
                self._take(read_news(sent))
                await asyncio.sleep(0)  # a runner that never stops talking holds nobody up
        except (Nonsense, ValueError) as error:  # ValueError: a line that is too long
            _log.warning("the runner of commands is not understood", extra={"reason": str(error)})
        except ConnectionError:
            pass
        finally:
            self.lost = True
            self._writer.close()
            self._end_calls()
            self._changed()

    def _take(self, news: News) -> None:
        match news:
            case Changed():
                self._changed()
            case Outcome(launched=True):
                self._launched.get(news.call, lambda: None)()
            case Outcome():
                self._answer(self._replies.get(news.call), news)

    def _end_calls(self) -> None:
        for reply in self._replies.values():
            self._answer(reply, None)

    def _answer(
        self, reply: asyncio.Future[Outcome | None] | None, outcome: Outcome | None
    ) -> None:
        if reply is not None and not reply.done():
            reply.set_result(outcome)

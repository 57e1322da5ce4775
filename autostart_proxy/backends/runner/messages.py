"""What the proxy and the runner say to each other: lines of JSON, over a unix socket.

A connection is a service. It begins with `Made`, in which the proxy says what the service is; then
each `Order` is followed by one `Outcome` (with `launched` before it, for a start), a `Cancel` has
the order end early, and `Changed` tells that another look is worth while. The end of the connection
ends the service, whoever hangs up.

Neither side takes anything but these: the runner has the rights of what it runs, so the proxy
believes it no more than any service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.errors import (
    BackendRefused,
    Misconfigured,
    OperationError,
    PortInUse,
    StartFailed,
    StopFailed,
)

ORDER_LIMIT_BYTES = 4 * 1024 * 1024
"""More than the arguments and the environment of a program may have (execve(2))."""

NEWS_LIMIT_BYTES = 256 * 1024
"""More than the last lines of a program may have."""


Verb: TypeAlias = Literal["start", "verify", "stop", "observe", "log_tail"]


class Nonsense(Exception):
    """The other side said something that is none of these."""


@dataclass(frozen=True, slots=True)
class Made:
    """What the service is; `grace_seconds` as for `ProcessBackend`."""

    host: str
    unit: CommandUnit
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Order:
    """A call of the backend; `call` is the number of its outcome. `grace_seconds` is a stop's."""

    call: int
    verb: Verb
    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for a call any more."""

    cancel: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call failed, as the tag and the detail of an `OperationError`."""

    tag: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a refusal, or what it gives, which depends on the verb.

    With `launched` it is none yet: the call goes on, and its preparation is over.
    """

    call: int
    launched: bool = False
    refusal: Refusal | None = None
    upstream: Upstream | None = None
    exits: tuple[Exit, ...] = ()
    seen: Observation | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """The service looks otherwise than before."""

    changed: Literal[True]


Orders: TypeAlias = Order | Cancel
News: TypeAlias = Outcome | Changed

_MADE = TypeAdapter(Made)
_ORDERS: TypeAdapter[Orders] = TypeAdapter(Orders)
_NEWS: TypeAdapter[News] = TypeAdapter(News)
_REASONS = {each.tag: each for each in (Misconfigured, PortInUse, StartFailed, StopFailed)}


def line(message: Made | Orders | News) -> bytes:
    """Return a message as it is sent."""
    return TypeAdapter(type(message)).dump_json(message) + b"\n"


def read_made(sent: bytes) -> Made:
    """Return how a connection begins.

    Raises:
        Nonsense: it is something else.
    """
    made: Made = _read(_MADE, sent)
    return made


def read_order(sent: bytes) -> Orders:
    """Return what the proxy says then; raises as `read_made`."""
    order: Orders = _read(_ORDERS, sent)
    return order


def read_news(sent: bytes) -> News:
    """Return what the runner says; raises as `read_made`."""
    news: News = _read(_NEWS, sent)
    return news


def _read(kind: TypeAdapter[Any], sent: bytes) -> Any:
    try:
        return kind.validate_json(sent)
    except ValidationError as error:  # its text would repeat what was sent, `env` included
        raise Nonsense(f"{error.error_count()} mistakes in {len(sent)} bytes") from None


def refusal(reason: OperationError) -> Refusal:
    """Return why a backend refused, to be sent."""
    return Refusal(reason.tag, reason.detail)


def refused(told: Refusal) -> BackendRefused:
    """Return the error that a refusal stands for; one with an unknown tag is a failed start."""
    return BackendRefused(_REASONS.get(told.tag, StartFailed)(detail=told.detail))

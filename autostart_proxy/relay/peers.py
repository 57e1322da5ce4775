"""The two sides that an exchange stands between, as it sees them.

`service.Service` and `downstream.DownstreamConnection` say what each of these means. Nothing of
them is imported here, so that the relay can be tested and measured with stand-ins.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal, Protocol

from autostart_proxy import errors
from autostart_proxy.journal import Journal
from autostart_proxy.relay.patience import Watched
from autostart_proxy.relay.upstream import Address, Pool
from autostart_proxy.status import ServiceStatus

NOBODY = "-"
"""The host of what stands in for a service where none was found."""


class ServiceKeys(Protocol):
    """What the relay reads of a service's configuration."""

    @property
    def name(self) -> str: ...
    @property
    def blocking(self) -> bool | Literal["auto"]: ...
    @property
    def max_body(self) -> int | None: ...
    @property
    def response_timeout(self) -> float | None: ...
    @property
    def body_timeout(self) -> float | None: ...


class Lease(Hashable, Protocol):
    """One request's claim on a service, from its arrival to its last byte."""

    @property
    def cause(self) -> str: ...

    def admitted(self, address: Address, /) -> None: ...
    def refused(self, error: errors.ProxyError, /) -> None: ...
    def cut(self) -> None: ...


class Service(Protocol):
    """What the relay asks of a service."""

    @property
    def config(self) -> ServiceKeys: ...
    @property
    def host(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    def claim(self, lease: Lease, /) -> Address | errors.ProxyError | None: ...
    def depart(self, lease: Lease, /) -> None: ...
    def unreachable(self, lease: Lease, /) -> None: ...
    def wake(self, cause: str, /) -> errors.ProxyError: ...
    def status(self) -> ServiceStatus: ...


class Occupant(Watched, Protocol):
    """To whom the bytes of a client belong at present: an exchange, or its tunnel."""

    @property
    def outlives_half_close(self) -> bool:
        """Whether it goes on when the client sends no more."""
        ...

    @property
    def takes_client_data(self) -> bool:
        """Whether what the client sends now is its own, and not the next request."""
        ...

    def client_data(self, data: bytes) -> None:
        """Take in what the client sent; b"" to go on with what was left for later.

        Raises:
            ProxyError: it is refused; `fail` has to follow.
        """
        ...

    def client_ended(self) -> bool:
        """The client sends no more; returns whether it may still be written to."""
        ...

    def client_gone(self) -> None:
        """The client's connection is gone."""
        ...

    def client_writable(self, writable: bool) -> None:
        """The client's write buffer has emptied, or is full."""
        ...

    def fail(self, error: errors.ProxyError) -> None:
        """End, with an answer of the proxy's own if none has begun."""
        ...


class Client(Protocol):
    """The side of the client, as an exchange and a tunnel see it."""

    write_paused: bool
    pauses: int

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow."""
        ...

    @property
    def pool(self) -> Pool: ...
    @property
    def journal(self) -> Journal: ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """Takes bytes for the client; an attribute, since it is called for every message."""
        ...

    def answer(self, data: bytes) -> None:
        """As `write`, for words of the proxy's own: those of one turn go out together."""
        ...

    def write_eof(self) -> None: ...
    def pause(self, why: int) -> None: ...
    def resume(self, why: int) -> None: ...
    def read_while(self, possible: bool, otherwise: int) -> None: ...
    def fall_behind(self) -> None:
        """Leave what has arrived for a later turn; `client_data` is called with b"" then."""
        ...

    def keep(self, data: bytes) -> None:
        """Take back bytes that belong to the next request."""
        ...

    def occupy(self, by: Occupant) -> None:
        """Hand to another what the client sends from now on."""
        ...

    def over(self, ended: float, *, keep_alive: bool, request_read: bool) -> None:
        """The exchange has ended: go on with the next, or close once all is written."""
        ...

    def reset(self) -> None:
        """Drop the connection so that the client cannot take it for a complete response."""
        ...

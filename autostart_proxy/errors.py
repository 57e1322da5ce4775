"""Everything that can go wrong, as one tree.

The class decides the answer: `status` and `tag` are what a client sees, `remedy` is what an
operator can do about it and goes to the log. The message of an instance is shown to clients, so
it never holds a path, an address or text that a client sent; `detail` holds those for the log.
"""

from __future__ import annotations

from typing import ClassVar


class ProxyError(Exception):
    """A request that the proxy answers itself.

    Args:
        message: one sentence for the client; the class' own by default.
        detail: what only the log may say (exit codes, paths, last log lines).
        retry_after_seconds: for `Retry-After` (RFC 9110, section 10.2.3); at least 1. Every
            answer with status 503 carries one.
    """

    status: ClassVar[int]
    tag: ClassVar[str]
    message: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: str = "",
        retry_after_seconds: int | None = None,
    ) -> None:
        self.public = message or type(self).message
        self.detail = detail
        if retry_after_seconds is None and self.status == 503:
            retry_after_seconds = 5
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{self.public} ({detail})" if detail else self.public)


# What the client got wrong.


class BadHost(ProxyError):
    """`Host` is missing, doubled or not a host name (RFC 9112, section 3.2)."""

    status = 400
    tag = "bad_host"
    message = "The Host header is missing or is not a valid host name."
    remedy = "send exactly one Host header with a name from the configuration"


class UnknownHost(ProxyError):
    """No service answers to this host name."""

    status = 404
    tag = "unknown_host"
    message = "No service is configured for this host name."
    remedy = "add the host to `services` or to a service's `aliases` in the configuration"


class BadRequest(ProxyError):
    """The request is malformed or its framing is ambiguous (RFC 9112, section 6.3)."""

    status = 400
    tag = "bad_request"
    message = "The request is not valid HTTP/1.1."
    remedy = "look at the client: the proxy never guesses where a message ends"


class UriTooLong(ProxyError):
    """The request line is longer than the proxy reads."""

    status = 414
    tag = "uri_too_long"
    message = "The request line is too long."
    remedy = "shorten the URL, or send the data in the body"


class HeadersTooLarge(ProxyError):
    """The header section or the trailer section is larger than the proxy reads."""

    status = 431
    tag = "headers_too_large"
    message = "The request headers are too large."
    remedy = "send fewer or shorter headers; cookies are the usual cause"


class RequestTimeout(ProxyError):
    """The client did not finish its request head in time, or sends its body too slowly."""

    status = 408
    tag = "request_timeout"
    message = "The request did not arrive in time."
    remedy = "look at the client or the network in front of the proxy, or raise bodyTimeout"


class BodyTooLarge(ProxyError):
    """The body is larger than the service's `maxBody`."""

    status = 413
    tag = "body_too_large"
    message = "The request body is larger than this service accepts."
    remedy = "raise maxBody, or send less"


# What became of a start or a stop.


class OperationError(ProxyError):
    """A start or a stop that did not do what it was to do."""


class StartError(OperationError):
    """A start that did not end in a ready service."""


class HoldExpired(StartError):
    """A request waited longer than `startTimeout`; the start may still succeed."""

    status = 504
    tag = "start_timeout"
    message = "The service did not become ready in time."
    remedy = "raise startTimeout, or check that it listens at proxyHost and proxyPort"


class ContainerExited(StartError):
    """A container or process ended while the service was starting."""

    status = 502
    tag = "container_exited"
    message = "The service stopped while it was starting."
    remedy = "read the service's last log lines, which stand beside this one"


class Unhealthy(StartError):
    """The service runs, and its own healthcheck says that it does not work."""

    status = 503
    tag = "unhealthy"
    message = "The service's own health check has failed."
    remedy = "see what the healthcheck said last (`docker inspect`), and the service's log"


class StartFailed(StartError):
    """The service could not be started: a port taken, an image missing, a broken Compose file."""

    status = 503
    tag = "start_failed"
    message = "The service could not be started."
    remedy = "run `docker compose up` in the service's folder and read what it says"


class PortInUse(StartError):
    """Something that is not the service listens where the service should."""

    status = 503
    tag = "port_in_use"
    message = "Something else uses the service's port."
    remedy = "stop what listens there, or give the service another proxyPort"


class Misconfigured(StartError):
    """What the configuration names is missing or makes no sense; other services go on."""

    status = 503
    tag = "misconfigured"
    message = "The service is not configured correctly."
    remedy = "run `autostart-proxy check`: it says what is wrong"


class StopFailed(OperationError):
    """The service could not be stopped: something of it may still run."""

    status = 503
    tag = "stop_failed"
    message = "The service could not be stopped."
    remedy = "stop it by hand (`docker compose stop` in its folder, or kill); that says why"


class DockerUnavailable(OperationError):
    """The Docker daemon did not answer."""

    status = 503
    tag = "docker_unavailable"
    message = "The container engine is not available."
    remedy = "check `systemctl status docker` and that the proxy's user is in the group docker"


class Overtaken(ProxyError):
    """Somebody wanted the opposite before it was done: a sleep during a wake, or a wake during a
    sleep. Nothing failed."""

    status = 409
    tag = "overtaken"
    message = "Somebody wanted the opposite before this was done."
    remedy = "ask `autostart-proxy status` who woke it, and try again if it is still wanted"


class Starting(ProxyError):
    """The service is being started, and this request does not wait for it (`blocking`)."""

    status = 503
    tag = "starting"
    message = "The service is starting."
    remedy = "try again in a few seconds, or set `blocking` to true to have requests wait"


class TooManyHeld(ProxyError):
    """`maxHeld` requests already wait for this service."""

    status = 503
    tag = "too_many_held"
    message = "Too many requests are waiting for this service."
    remedy = "raise maxHeld, or find out who sends so many"


class ShuttingDown(ProxyError):
    """The proxy is stopping."""

    status = 503
    tag = "shutting_down"
    message = "The proxy is shutting down."
    remedy = "try again once the proxy runs again"


# What the service behind us got wrong.


class UpstreamError(ProxyError):
    """The service did not give a usable answer."""


class UpstreamUnreachable(UpstreamError):
    """No connection to the service could be made although it was ready."""

    status = 502
    tag = "upstream_unreachable"
    message = "The service could not be reached."
    remedy = "check that proxyPort is the port the service publishes on the host"


class UpstreamClosed(UpstreamError):
    """The service closed the connection before it answered."""

    status = 502
    tag = "upstream_closed"
    message = "The service closed the connection before it answered."
    remedy = "read the service's log: it most likely crashed or restarted"


class BadUpstream(UpstreamError):
    """The service's answer is not valid HTTP/1.1, or its framing is ambiguous."""

    status = 502
    tag = "bad_upstream"
    message = "The service gave an answer that is not valid HTTP."
    remedy = "check that proxyPort speaks plain HTTP/1.1"


class ResponseTimeout(UpstreamError):
    """The service did not begin its answer within `responseTimeout`, or did not end its head."""

    status = 504
    tag = "response_timeout"
    message = "The service did not answer in time."
    remedy = "raise responseTimeout, or find out what the service is waiting for"


# What concerns operators only.


class BackendUnreachable(Exception):
    """The daemon behind a backend did not answer; safe to try again."""


class BackendRefused(Exception):
    """The daemon behind a backend said no, or a start died; the same call will fail again.

    Args:
        reason: what to tell whoever waits for the start or the stop.
    """

    def __init__(self, reason: OperationError) -> None:
        self.reason = reason
        super().__init__(str(reason))


class ConfigError(Exception):
    """The configuration cannot be used.

    Args:
        problems: one line each, with file, line, column, key path and a suggestion.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def explained(error: OSError, user: int) -> str:
    """What the system says of a file or folder, and what to do about it.

    Args:
        user: the id of the user that asked.
    """
    match error:
        case FileNotFoundError():
            return "there is no such file or folder; create it, or correct the path"
        case PermissionError():
            return f"may not be read by user {user}; check owner and mode"
        case NotADirectoryError():
            return "is no folder; name the folder that holds the file"
        case _:
            return f"cannot be read: {error.strerror}"

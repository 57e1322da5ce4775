"""One tree of errors; the status, the machine-readable code and the cure belong to the class.

Rule: OpenAI's clients retry 408, 409, 429 and every 5xx. So whatever would fail again in the same
way carries another 4xx, overload carries 429 with `Retry-After`, and 503 means "not now". A defect
is a 500 with `X-Should-Retry: false`, which those clients obey; a body that comes too slowly is a
408 with the same.
"""

from __future__ import annotations

import math


class SpeechError(Exception):
    """A request that cannot be served; never carries a path, a token or a stack trace.

    Args:
        message: what is wrong and what to do about it, for the person who sent the request.
        param: name of the request field at fault, if one is.
    """

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {}

    def as_openai(self) -> dict[str, dict[str, str | None]]:
        """Return the body of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(SpeechError):
    """The request can never succeed as it is."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InternalError(SpeechError):
    """A defect: nobody knows that it would not happen again, so no client is to try by itself."""

    def __init__(self) -> None:
        super().__init__("the service failed; its log says why")

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Should-Retry": "false"}


class HttpError(InvalidRequest):
    """What the framework refuses by itself: no such route, wrong method, malformed multipart."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        if status == 404:
            self.code = "not_found"


class EmptyFile(InvalidRequest):
    """The uploaded file has no bytes."""

    code = "empty_file"


class EmptyCommit(InvalidRequest):
    """There is no audio to commit; the code is that of OpenAI's Realtime API."""

    code = "input_audio_buffer_commit_empty"


class SessionExpired(InvalidRequest):
    """No audio came for MAX_IDLE_SECONDS; the code is that of OpenAI's Realtime API."""

    code = "session_expired"


class UrlBlocked(InvalidRequest):
    """The address leads where this service may not fetch from."""

    code = "url_blocked"


class Unauthorized(InvalidRequest):
    """The bearer token is missing or wrong."""

    status = 401
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class UnauthorizedBrowser(Unauthorized):
    """The same for a browser, as 403.

    After a 401 a browser forgets the password that it sent, which is the one for the site in front
    of the service, and asks for it again at the next request.
    """

    status = 403

    @property
    def headers(self) -> dict[str, str]:
        return {}


class CrossSite(InvalidRequest):
    """A page of another site asks, through the browser of somebody who visits it."""

    status = 403
    code = "cross_site"


class UnknownHost(InvalidRequest):
    """The service is asked for by a name that it does not have."""

    status = 403
    code = "unknown_host"


class NotFound(InvalidRequest):
    """No such route or thing."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No model has this name here, nor can it be fetched."""

    code = "model_not_found"


class ModelNotAllowed(ModelNotFound):
    """The operator does not let clients have it fetched: ALLOW_MODELS, MAX_MODEL_BYTES.

    Args:
        code: which limit it is.
    """

    code = "model_not_allowed"

    def __init__(self, message: str, code: str = "model_not_allowed") -> None:
        super().__init__(message, "model")
        self.code = code


class Conflict(InvalidRequest):
    """The thing is in a state that forbids the request; only `/api/ps` answers so."""

    status = 409
    code = "conflict"


class TooSlow(SpeechError):
    """The body came at less than the lowest rate for longer than UPLOAD_TIMEOUT."""

    status = 408
    type = "invalid_request_error"
    code = "upload_too_slow"

    @property
    def headers(self) -> dict[str, str]:
        # It holds a place of others, and would come no faster if it were sent again.
        return {"Connection": "close", "X-Should-Retry": "false"}


class TooLarge(InvalidRequest):
    """The body or the file exceeds MAX_UPLOAD_BYTES."""

    status = 413
    code = "too_large"

    @property
    def headers(self) -> dict[str, str]:
        # The rest of the body stays unread, so the connection cannot carry another request.
        return {"Connection": "close"}


class TooLong(InvalidRequest):
    """The audio plays for longer than MAX_AUDIO_SECONDS."""

    status = 413
    code = "too_long"


class NotAudio(InvalidRequest):
    """The bytes are no audio or video format that is accepted."""

    status = 415
    code = "not_audio"


class IncompleteFile(InvalidRequest):
    """The file begins as an accepted format does, and ends before its audio."""

    status = 422
    code = "incomplete_file"


class InvalidField(InvalidRequest):
    """A form field or query parameter has a value outside its range."""

    status = 422
    code = "invalid_field"


class NoAudio(InvalidRequest):
    """A media file without an audio stream, or one of which nothing can be decoded."""

    status = 422
    code = "no_audio"


class QueueFull(SpeechError):
    """As many as may be (MAX_QUEUED, MAX_UPLOADS, MAX_LIVE_SESSIONS) are here already.

    Args:
        retry_after: seconds after which a place is likely to be free; at least 1.
    """

    status = 429
    type = "rate_limit_error"
    code = "queue_full"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after), "Connection": "close"}


class ModelUnavailable(SpeechError):
    """The model cannot be had now, yet may be later.

    Args:
        code: which condition it is, such as `hub_unreachable`.
    """

    status = 503
    code = "model_unavailable"

    def __init__(self, message: str, code: str = "model_unavailable") -> None:
        super().__init__(message, "model")
        self.code = code

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "30"}


class ModelMissing(ModelUnavailable):
    """A recognizer lacks a further model, and has yielded nothing yet.

    The service has it fetched and asks anew; clients are told where that was no help.

    Args:
        name: as `Engine.fetch` knows it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the model {name!r} is not on this machine any more: try again")
        self.name = name

    def __reduce__(self) -> tuple[type[ModelMissing], tuple[str]]:
        return type(self), (self.name,)


class ShuttingDown(SpeechError):
    """The service is about to end and takes no new work."""

    status = 503
    code = "shutting_down"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5", "Connection": "close"}


class NoSpace(SpeechError):
    """The disk that holds uploads is full, but for the share MIN_FREE_DISK."""

    status = 507
    code = "no_space"

    @property
    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}

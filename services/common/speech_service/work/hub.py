"""What trouble with the Hugging Face hub means to whoever wanted a model, and how it is cured.

Rules: a situation has one meaning, whichever engine meets it. What the operator can mend is a 503
that names the cure; a name that no model has is a 404. Libraries wrap what happened, often twice:
the first cause that says something of the hub, the network or the disk counts. What says nothing of
them is a defect, and passes as it is. The hub's library is imported once something has failed.
"""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError

from pydantic import SecretStr

from ..contract.errors import ModelNotFound, ModelUnavailable, SpeechError

_SITE = "https://huggingface.co"
_TOKENS = f"{_SITE}/settings/tokens"
_TOKEN = re.compile(r"hf_\w+", re.ASCII)
_REPOSITORY_IN_URL = re.compile(r"https?://[^/]+/(?:api/models/)?([^/]+/[^/]+)")
_TRANSPORT = {
    ("httpx", "TransportError"),
    ("httpx2", "TransportError"),
    ("huggingface_hub", "XetDownloadError"),
    ("huggingface_hub", "XetError"),
    ("requests", "RequestException"),
    ("urllib3", "HTTPError"),
}
"""What the hub's library and those under it raise for the network, by package and name: which of
them there are depends on its version."""
_LIBRARY = "huggingface_hub"


@contextmanager
def translated(model: str) -> Iterator[None]:
    """Turn what the libraries raise because of the hub, the network or the disk into its meaning.

    Args:
        model: the name of what is being fetched or loaded, for the message.
    Raises:
        ModelNotFound, ModelUnavailable; whatever else was raised, if it is none of the hub's.
    """
    try:
        yield
    except SpeechError:
        raise
    except Exception as error:
        meaning = _meaning(model, error)
        if meaning is None:
            raise
        raise meaning from error


def well_formed(token: SecretStr | None) -> str | None:
    """Return the token, or None where there is none or it is not one.

    What is no token must not be sent: HTTP libraries quote what a header may not hold.
    """
    secret = token.get_secret_value().strip() if token else ""
    return secret if _TOKEN.fullmatch(secret) else None


def checked(token: SecretStr | None) -> str | None:
    """Return the token or None.

    Raises:
        ModelUnavailable: what is configured is no token.
    """
    secret = well_formed(token)
    if token and token.get_secret_value().strip() and secret is None:
        raise ModelUnavailable(
            f"HF_TOKEN is no token of the hub, which starts with hf_: make one at {_TOKENS}",
            "hf_token_invalid",
        )
    return secret


def not_baked(model: str) -> ModelUnavailable:
    """Return the error of a model that is absent while HF_HUB_OFFLINE forbids fetching it."""
    return ModelUnavailable(
        f"{model} is not on this machine and HF_HUB_OFFLINE is set: put it into the image or into "
        "the cache volume",
        "model_not_baked",
    )


def _meaning(model: str, error: Exception) -> SpeechError | None:
    """Return what an error means, or None if it tells nothing of the hub, the network or the disk.

    That something is not in the cache is no reason by itself; what lies behind it is.
    """
    from huggingface_hub import errors

    missing = False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, errors.LocalEntryNotFoundError):
            missing = True
        elif meaning := _one_meaning(model, cause):
            return meaning
        cause = cause.__cause__ or cause.__context__
    return _unreachable(model) if missing else None


def _one_meaning(model: str, error: BaseException) -> SpeechError | None:
    """Return what an error means by itself."""
    from huggingface_hub import errors

    match error:
        case errors.OfflineModeIsEnabled():
            return not_baked(model)
        case errors.HfHubHTTPError() if error.response is not None:
            return _refusal(model, error)
        case errors.HFValidationError():
            return ModelNotFound(f"{model!r} is neither a hub id nor a folder", "model")
        case OSError() if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return ModelUnavailable(
                "the cache of models cannot be written: give its folder to the service's user",
                "cache_not_writable",
            )
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ModelUnavailable("no room for the model in the cache volume", "no_space")
        case _ if _is_of_the_network(error):
            return _unreachable(model)
        case _:
            return None


def _is_of_the_network(error: BaseException) -> bool:
    """Say whether an error means that the hub did not answer, or not to the end."""
    match error:
        case ConnectionError() | TimeoutError() | socket.gaierror() | ssl.SSLError() | URLError():
            return True
        case http.client.HTTPException():
            return True
        # Of a download that ends early the library makes an error of its own; what is wrong with
        # a file on this disk has a number.
        case OSError() | RuntimeError() if getattr(error, "errno", None) is None:
            if _raised_by(error) == _LIBRARY:
                return True
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return not names.isdisjoint(_TRANSPORT)


def _raised_by(error: BaseException) -> str:
    """Return the package whose code raised an error."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = place.tb_frame.f_globals.get("__name__", "") if place else ""
    return str(module).partition(".")[0]


def _refusal(model: str, error: Any) -> SpeechError:
    """Return what a response of the hub means; `error` is an `HfHubHTTPError`.

    The repository is the one in the address: a configuration may refer to others than `model`.
    """
    from huggingface_hub import errors

    response = error.response
    address = _REPOSITORY_IN_URL.match(str(response.url))
    model = address[1] if address else model
    signed = "authorization" in response.request.headers
    match error:
        case errors.GatedRepoError() if signed:
            return ModelUnavailable(
                f"the account of HF_TOKEN has not accepted the terms of {model}: accept them at "
                f"{_SITE}/{model}",
                "hf_terms_not_accepted",
            )
        case errors.GatedRepoError():
            return _no_token(f"{model} is gated", model)
        case errors.RepositoryNotFoundError():
            # Without a token the hub does not tell what is private from what does not exist.
            cure = "let HF_TOKEN read it" if signed else "set HF_TOKEN"
            return ModelNotFound(
                f"the hub has no model {model}: check its name, or {cure} if it is private", "model"
            )
        case errors.DisabledRepoError():
            return ModelNotFound(f"the hub has disabled {model}: use another model", "model")
    return _status(model, response.status_code, signed)


def _status(model: str, status: int, signed: bool) -> SpeechError:
    """Return what a status of the hub means that it gave no other reason for."""
    match status:
        case 401 | 403 if not signed:
            return _no_token(f"the hub refuses {model} without a token", model)
        case 401:
            return ModelUnavailable(
                f"the hub does not know the token in HF_TOKEN: make one at {_TOKENS}",
                "hf_token_invalid",
            )
        case 403:
            return ModelUnavailable(
                f"the token in HF_TOKEN may not read {model}: let it read the contents of public "
                f"gated repositories, at {_TOKENS}",
                "hf_token_invalid",
            )
        case 404:
            return ModelNotFound(
                f"the hub's {model} lacks a file that is needed: is it a model of this kind?",
                "model",
            )
        case _:
            return _unreachable(model)


def _no_token(reason: str, model: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{reason}: accept its terms at {_SITE}/{model} and set HF_TOKEN to a token from {_TOKENS}",
        "hf_token_missing",
    )


def _unreachable(model: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{model} is not on this machine and the hub cannot be reached: check the network, or put "
        "the model into the image or into the cache volume",
        "hub_unreachable",
    )

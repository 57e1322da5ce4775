"""What trouble with the hub means: the same to both engines, with its cure, and never a defect."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from huggingface_hub import errors, hf_hub_download, snapshot_download
from pydantic import SecretStr
from speech_service.contract.errors import ModelNotFound, ModelUnavailable, SpeechError
from speech_service.work import hub as translator

from tests.ports import free_port

from ...fake_hub import FakeHub
from ...hub_questions import PIPELINE, TOKEN, Ask

PAGE = f"https://huggingface.co/{PIPELINE}"
TOKENS = "https://huggingface.co/settings/tokens"


def nothing(hub: FakeHub) -> None:
    """The hub is as it is: the model gated, its terms accepted by the account of `TOKEN`."""


def terms_are_open(hub: FakeHub) -> None:
    hub.accepted[TOKEN].clear()


def token_is_narrow(hub: FakeHub) -> None:
    hub.narrow.add(TOKEN)


def hub_is_private(hub: FakeHub) -> None:
    hub.private = True


def model_is_disabled(hub: FakeHub) -> None:
    hub.disabled.add(PIPELINE)


def hub_is_broken(hub: FakeHub) -> None:
    hub.broken = True


def downloads_end_early(hub: FakeHub) -> None:
    hub.cuts = True


def hub_is_away(hub: FakeHub) -> None:
    hub.address = f"http://127.0.0.1:{free_port()}"


@dataclass(frozen=True)
class Situation:
    """What is the matter, and what is to be said: status, code, and what the message names."""

    prepare: Callable[[FakeHub], None]
    status: int
    code: str
    cure: tuple[str, ...]
    token: str = TOKEN
    model: str = PIPELINE
    offline: bool = False


SITUATIONS = {
    "gated, no token": Situation(
        nothing, 503, "hf_token_missing", (PAGE, "set HF_TOKEN", TOKENS), token=""
    ),
    "gated, terms not accepted": Situation(terms_are_open, 503, "hf_terms_not_accepted", (PAGE,)),
    "gated, token of few rights": Situation(
        token_is_narrow, 503, "hf_token_invalid", ("gated repositories", TOKENS)
    ),
    "token that the hub does not know": Situation(
        nothing, 503, "hf_token_invalid", ("does not know the token", TOKENS), token="hf_unknown"
    ),
    "token of somebody else's": Situation(
        nothing, 503, "hf_token_invalid", ("starts with hf_", TOKENS), token="sk-1234567890"
    ),
    "token of two lines": Situation(
        nothing, 503, "hf_token_invalid", ("starts with hf_",), token="hf_two\nlines"
    ),
    "token of strange letters": Situation(
        nothing, 503, "hf_token_invalid", ("starts with hf_",), token="hf_sign–sign"
    ),
    "no such model": Situation(
        nothing, 404, "model_not_found", ("check its name", "HF_TOKEN"), model="org/nothing"
    ),
    "no such model, or a private one, no token": Situation(
        nothing, 404, "model_not_found", ("check its name", "set HF_TOKEN"), "", "org/nothing"
    ),
    "model disabled": Situation(
        model_is_disabled, 404, "model_not_found", ("disabled", "another model")
    ),
    "hub that tells nothing to strangers": Situation(
        hub_is_private, 503, "hf_token_missing", ("set HF_TOKEN", TOKENS), token=""
    ),
    "hub away": Situation(hub_is_away, 503, "hub_unreachable", ("check the network",)),
    "hub broken": Situation(hub_is_broken, 503, "hub_unreachable", ("check the network",)),
    "download cut": Situation(downloads_end_early, 503, "hub_unreachable", ("check the network",)),
    "offline": Situation(
        nothing, 503, "model_not_baked", ("HF_HUB_OFFLINE", "cache volume"), offline=True
    ),
}


@pytest.fixture
def hub(hub: FakeHub, pipeline: Path) -> FakeHub:
    """A hub whose one repository is a model for either engine."""
    for name in ("model.bin", "config.json"):
        (pipeline / name).write_text("{}")
    return hub


@pytest.mark.parametrize("engine", ["whisper", "diarization"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_has_one_meaning_for_both_engines(
    ask: Ask, hub: FakeHub, name: str, engine: str
) -> None:
    situation = SITUATIONS[name]
    situation.prepare(hub)
    question = {engine: situation.model}
    answer = ask(situation.token, offline=situation.offline, **question)
    assert (answer["status"], answer["code"]) == (situation.status, situation.code)
    assert [words for words in situation.cure if words not in answer["message"]] == []
    if "starts with hf_" in situation.cure or situation.offline:
        assert hub.requests == [], "what is no token is never sent, and offline nothing is asked"


ON_THE_WIRE = [
    name
    for name, situation in SITUATIONS.items()
    if "starts with hf_" not in situation.cure
    and not situation.offline
    # It tries for five seconds to get the rest.
    and situation.prepare is not downloads_end_early
]


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_it_is_the_meaning_of_what_the_hubs_library_raises(
    hub: FakeHub, name: str, tmp_path: Path
) -> None:
    situation = SITUATIONS[name]
    situation.prepare(hub)
    with pytest.raises(SpeechError) as told, translator.translated("the name it goes by"):
        snapshot_download(
            situation.model,
            allow_patterns="config.json",
            token=situation.token or False,
            endpoint=hub.address,
            cache_dir=tmp_path / "cache",
        )
    assert (told.value.status, told.value.code) == (situation.status, situation.code)
    assert [words for words in situation.cure if words not in told.value.message] == []


@pytest.mark.parametrize(
    ("token", "sent"),
    [(None, None), ("", None), (" \n", None), ("hf_secret\n", "hf_secret"), (TOKEN, TOKEN)],
)
def test_a_token_is_sent_without_the_space_around_it(token: str | None, sent: str | None) -> None:
    assert translator.checked(token if token is None else SecretStr(token)) == sent


def test_what_is_no_token_is_named_as_what_it_should_be() -> None:
    with pytest.raises(ModelUnavailable, match="starts with hf_") as refused:
        translator.checked(SecretStr("sk-1234567890"))
    assert refused.value.code == "hf_token_invalid"
    assert "sk-" not in refused.value.message
    assert translator.well_formed(SecretStr("sk-1234567890")) is None


@pytest.mark.parametrize("engine", ["whisper", "diarization"])
def test_where_nothing_is_the_matter_the_model_comes(ask: Ask, engine: str) -> None:
    question = {engine: PIPELINE}
    assert Path(ask(TOKEN, **question)["folder"]).is_dir()


def test_a_file_that_a_model_lacks_is_not_blamed_on_the_network(
    hub: FakeHub, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFound, match="lacks a file"), translator.translated("its name"):
        hf_hub_download(PIPELINE, "absent", token=TOKEN, endpoint=hub.address, cache_dir=tmp_path)


def wrapped(error: Exception) -> Exception:
    """An error as a library passes it on that has wrapped it twice, once without saying so."""
    try:
        try:
            try:
                raise error
            except Exception:
                raise KeyError("while handling it")  # noqa: B904 - libraries do
        except KeyError as inner:
            raise ValueError("cannot load") from inner
    except ValueError as outer:
        return outer


def library_error(kind: str) -> Exception:
    """An error that the code of the hub's library raises by itself."""
    namespace: dict[str, Any] = {"__name__": "huggingface_hub.file_download"}
    exec(f"def fail(): raise {kind}('Consistency check failed')", namespace)
    try:
        namespace["fail"]()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EACCES, "Permission denied"), "cache_not_writable"),
        (OSError(errno.EROFS, "Read-only file system"), "cache_not_writable"),
        (OSError(errno.ENOSPC, "No space left on device"), "no_space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no_space"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "hub_unreachable"),
        (TimeoutError("timed out"), "hub_unreachable"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "hub_unreachable"),
        (ssl.SSLError("certificate has expired"), "hub_unreachable"),
        (URLError("unknown url type"), "hub_unreachable"),
        (http.client.IncompleteRead(b""), "hub_unreachable"),
        (errors.LocalEntryNotFoundError("not in the cache"), "hub_unreachable"),
        (errors.OfflineModeIsEnabled("offline"), "model_not_baked"),
        (library_error("OSError"), "hub_unreachable"),
        (library_error("RuntimeError"), "hub_unreachable"),
    ],
    ids=str,
)
@pytest.mark.parametrize("passed_on", [lambda error: error, wrapped], ids=["bare", "wrapped"])
def test_network_and_disk_are_told_apart(
    error: Exception, code: str, passed_on: Callable[[Exception], Exception]
) -> None:
    with pytest.raises(ModelUnavailable) as told, translator.translated("org/small"):
        raise passed_on(error)
    assert (told.value.status, told.value.code) == (503, code)
    assert told.value.__cause__ is not None


def test_a_name_that_no_hub_could_have_is_unknown() -> None:
    refused = pytest.raises(ModelNotFound, match="neither a hub id nor a folder")
    with refused, translator.translated("a/b/c"):
        raise errors.HFValidationError("Repo id must be in the form 'namespace/repo_name'")


@pytest.mark.parametrize(
    "defect",
    [
        TypeError("unexpected keyword argument"),
        KeyError("sha"),
        RuntimeError("CUDA error"),
        OSError("no file named model.safetensors found in directory"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        library_error("TypeError"),
    ],
    ids=str,
)
def test_a_defect_passes_as_it_is(defect: Exception) -> None:
    with pytest.raises(type(defect)) as raised, translator.translated("org/small"):
        raise defect
    assert raised.value is defect


def test_an_error_that_has_its_meaning_keeps_it() -> None:
    with pytest.raises(ModelUnavailable) as kept, translator.translated("org/small"):
        raise ModelUnavailable("no config.yaml", "model_unavailable")
    assert kept.value.code == "model_unavailable"

"""`python -m whisperx_engine.bake MODEL...`: put models into the image while it is built.

    whisper:small            a size, or a hub id such as whisper:Systran/faster-whisper-tiny
    align:en                 what aligns a language
    diarization              pyannote/speaker-diarization-community-1
    diarization:OWNER/NAME   another pipeline that lies in one repository
    punkt                    NLTK's sentence models, in place of the small ones that are here anyway

The token of the hub is read from /run/secrets/hf_token, a secret of the build, and kept nowhere.
WHISPERX__REVISIONS says which commits of alignment and diarization models are wanted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr
from speech_service.contract.errors import ModelMissing, ModelUnavailable, SpeechError
from speech_service.work import hub
from speech_service.work.download import download

from . import sources
from .sources import Sources

T = TypeVar("T")

log = logging.getLogger(__name__)

SECRET = Path("/run/secrets/hf_token")
_DIARIZATION = "pyannote/speaker-diarization-community-1"
_REFERENCE = re.compile(r":\s*['\"]?([A-Za-z0-9][\w.-]*/[\w.-]+)['\"]?\s*$", re.MULTILINE)


def bake(
    word: str, models: Path, token: SecretStr | None, revisions: Mapping[str, str] | None = None
) -> None:
    """Put one model under `models`, laid out as `sources` expects it.

    Args:
        word: what it is; see above.
        models: the folder.
        token: of the hub.
        revisions: see `Sources`.
    Raises:
        SpeechError: it cannot be had; the message says what to do.
    """
    kind, _, name = word.partition(":")
    pipeline = name or _DIARIZATION
    known = Sources(pipeline, token=token, revisions=revisions or {}, models=models)
    match kind, name:
        case "whisper", name if name:
            _whisper(name, models / "whisper" / name, token)
        case "align", language if language:
            _alignment(language, known)
        case "diarization", _:
            _diarization(known)
        case "punkt", "":
            _punkt(models / "nltk_data")
        case _:
            raise SpeechError(
                f"{word!r} names no model; write whisper:small, align:en, diarization or punkt"
            )


def _whisper(name: str, folder: Path, token: SecretStr | None) -> None:
    from faster_whisper import available_models, download_model

    if "/" not in name and name not in available_models():
        raise SpeechError(f"{name!r} is neither a size of Whisper nor a hub id")
    with hub.translated(name):
        download_model(name, output_dir=str(folder), use_auth_token=hub.well_formed(token))
    # What the library remembers of a download, should it go on another time.
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _alignment(language: str, known: Sources) -> None:
    """Copy a folder of the hub's, or the file of one of torchaudio's bundles."""
    try:
        source = _fetched(known, lambda: known.alignment(language))
    except sources.NoAlignmentModel as error:
        raise SpeechError(str(error)) from error
    folder = known.models / "alignment"
    if source.model_dir is None:
        _copy(Path(source.model_name), folder / language)
    else:
        _copy(Path(source.model_dir), folder)


def _diarization(known: Sources) -> None:
    found = _fetched(known, known.diarization)
    elsewhere = _REFERENCE.findall((found / "config.yaml").read_text(encoding="utf-8"))
    if elsewhere:
        raise SpeechError(
            f"{known.pipeline} refers to {', '.join(elsewhere)}, so it would need the hub at run "
            f"time; bake a pipeline that lies in one repository, such as {_DIARIZATION}"
        )
    _copy(found, known.models / "diarization" / known.pipeline)


def _fetched(known: Sources, find: Callable[[], T]) -> T:
    """Return what is found, once it has been fetched if need be."""
    try:
        return find()
    except ModelMissing as missing:
        asyncio.run(download(known.download(missing.name), lambda done, total: None))
    return find()


def _punkt(folder: Path) -> None:
    from nltk.downloader import Downloader

    fetch: Any = Downloader().download  # type: ignore[no-untyped-call]
    if not fetch("punkt_tab", download_dir=str(folder), quiet=True):
        raise ModelUnavailable("NLTK's models cannot be fetched: check the network")


def _copy(found: Path, folder: Path) -> None:
    """Copy a folder of the cache, whose files are links; do nothing if it is there already."""
    if found != folder:
        shutil.copytree(found, folder, dirs_exist_ok=True)


def main(words: list[str]) -> int:
    """Bake all models; return the exit status."""
    sources.prepare_environment()
    # The libraries would tell where they fetch from, with all that signs such an address.
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    token = SecretStr(SECRET.read_text(encoding="utf-8")) if SECRET.is_file() else None
    revisions = json.loads(os.environ.get("WHISPERX__REVISIONS") or "{}")
    with tempfile.TemporaryDirectory() as cache:
        # Only finished models may stay in the layer, no caches and no chunks of files.
        os.environ.update(HF_HOME=cache, TORCH_HOME=cache, HF_HUB_DISABLE_XET="1")
        for word in words:
            log.info("baking %s", word)
            try:
                bake(word, sources.MODELS, token, revisions)
            except SpeechError as error:
                print(f"{word}: {error.message}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

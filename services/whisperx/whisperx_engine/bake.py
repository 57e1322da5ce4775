"""`python -m whisperx_engine.bake MODEL...`: put models into the image while it is built.

    whisper:small            a size, or a hub id such as whisper:Systran/faster-whisper-tiny
    align:en                 what aligns a language
    diarization              pyannote/speaker-diarization-community-1
    diarization:OWNER/NAME   another pipeline that lies in one repository
    punkt                    NLTK's sentence models, in place of the small ones that are here anyway

The token of the hub is read from /run/secrets/hf_token, a secret of the build, and kept nowhere.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from speech_service.contract.errors import ModelUnavailable, SpeechError
from speech_service.work import hub

from . import sources

log = logging.getLogger(__name__)

SECRET = Path("/run/secrets/hf_token")
_DIARIZATION = "pyannote/speaker-diarization-community-1"
_REFERENCE = re.compile(r":\s*['\"]?([A-Za-z0-9][\w.-]*/[\w.-]+)['\"]?\s*$", re.MULTILINE)


def bake(word: str, models: Path, token: SecretStr | None) -> None:
    """Put one model under `models`, laid out as `sources` expects it.

    Raises:
        SpeechError: it cannot be had; the message says what to do.
    """
    kind, _, name = word.partition(":")
    match kind, name:
        case "whisper", name if name:
            _whisper(name, models / "whisper" / name, token)
        case "align", language if language:
            _alignment(language, models, token)
        case "diarization", name:
            _diarization(name or _DIARIZATION, models, token)
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


def _alignment(language: str, models: Path, token: SecretStr | None) -> None:
    """Take a folder of the hub as it is; let torch download what is one of torchaudio's bundles."""
    from whisperx.alignment import load_align_model

    try:
        source = sources.alignment_source(language, None, token, False, models)
    except sources.NoAlignmentModel as error:
        raise SpeechError(str(error)) from error
    found = Path(source.model_name)
    if found.is_dir():
        _copy(found, models / "alignment" / language)
        return
    with hub.translated(f"the alignment model of {language!r}"):
        load_align_model(language, "cpu", source.model_name, str(models / "alignment"))


def _diarization(name: str, models: Path, token: SecretStr | None) -> None:
    found = sources.diarization_folder(name, token, False, models)
    elsewhere = _REFERENCE.findall((found / "config.yaml").read_text(encoding="utf-8"))
    if elsewhere:
        raise SpeechError(
            f"{name} refers to {', '.join(elsewhere)}, so it would need the hub at run time; "
            f"bake a pipeline that lies in one repository, such as {_DIARIZATION}"
        )
    _copy(found, models / "diarization" / name)


def _punkt(folder: Path) -> None:
    from nltk.downloader import Downloader

    fetch: Any = Downloader().download  # type: ignore[no-untyped-call]
    if not fetch("punkt_tab", download_dir=str(folder), quiet=True):
        raise ModelUnavailable("NLTK's models cannot be fetched: check the network")


def _copy(found: Path, folder: Path) -> None:
    """Copy a folder of the cache, whose files are links; do nothing if it is there already."""
    if found != folder:
        shutil.copytree(found, folder)


def main(words: list[str]) -> int:
    """Bake all models; return the exit status."""
    sources.prepare_environment()
    # The libraries would tell where they fetch from, with all that signs such an address.
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    token = SecretStr(SECRET.read_text(encoding="utf-8")) if SECRET.is_file() else None
    with tempfile.TemporaryDirectory() as cache:
        # Only finished models may stay in the layer, no caches and no chunks of files.
        os.environ.update(HF_HOME=cache, TORCH_HOME=cache, HF_HUB_DISABLE_XET="1")
        for word in words:
            log.info("baking %s", word)
            try:
                bake(word, sources.MODELS, token)
            except SpeechError as error:
                print(f"{word}: {error.message}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

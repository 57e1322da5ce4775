"""Asks an engine for a model, in a process of its own: `hub_program.py JSON`.

The answer is a line of JSON on standard output; the log, with whole tracebacks, is on standard
error. The token comes in the environment, as it does in use. `JSON` holds what to ask:
`{"whisper": hub id}` of the first engine, and of the second `{"diarization": hub id}`,
`{"alignment": language, "directory": path or null}`, `{"file": hub id, "while_loading": name}`, or
`{"bundle": language}`, for the addresses where we and torchaudio look for a file; and `"models"`,
what the image has at `/models`, and `"revisions"`, those that are wanted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from speech_service.work import hub
from whisperx_engine import sources

T = TypeVar("T")


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; an error of the engine is an answer as well."""
    from pydantic import SecretStr
    from speech_service.contract.errors import SpeechError

    token = SecretStr(os.environ.get("HF_TOKEN", ""))
    directory = question.get("directory")
    known = sources.Sources(
        question.get("diarization", ""),
        directory=directory and Path(directory),
        token=token,
        offline=os.environ.get("HF_HUB_OFFLINE") == "1",
        revisions=question.get("revisions", {}),
        models=Path(question["models"]),
    )
    try:
        if model := question.get("whisper"):
            return {"folder": str(_whisper(model))}
        if question.get("diarization"):
            return {"folder": str(_fetched(known, known.diarization))}
        if question.get("alignment"):
            source = _fetched(known, lambda: known.alignment(question["alignment"]))
            return {"name": source.model_name, "dir": source.model_dir}
        if language := question.get("bundle"):
            return _addresses(known, language)
        from huggingface_hub import hf_hub_download

        with hub.translated(question["while_loading"]):
            secret = hub.well_formed(token)
            return {"file": hf_hub_download(question["file"], "pytorch_model.bin", token=secret)}
    except sources.NoAlignmentModel as error:
        return {"impossible": str(error)}
    except SpeechError as error:
        logging.getLogger("test").exception("refused")
        return {"status": error.status, "code": error.code, "message": error.message}


def _fetched(known: sources.Sources, find: Callable[[], T]) -> T:
    """What is found, once it has been fetched if need be; as the service does it."""
    from speech_service.contract.errors import ModelMissing
    from speech_service.work.download import download

    try:
        return find()
    except ModelMissing as missing:
        asyncio.run(download(known.download(missing.name), lambda done, total: None))
    return find()


def _addresses(known: sources.Sources, language: str) -> dict[str, Any]:
    import torchaudio.pipelines
    from speech_service.contract.errors import ModelMissing
    from torchaudio.pipelines._wav2vec2 import utils
    from whisperx.alignment import DEFAULT_ALIGN_MODELS_TORCH

    asked = []

    def ask(address: str, **_: Any) -> Any:
        asked.append(address)
        raise LookupError

    utils.load_state_dict_from_url = ask
    with suppress(LookupError):
        getattr(torchaudio.pipelines, DEFAULT_ALIGN_MODELS_TORCH[language]).get_model()
    try:
        known.alignment(language)
    except ModelMissing as missing:
        return {"theirs": asked, **asdict(known.download(missing.name))}
    return {}


def _whisper(model: str) -> Path:
    from faster_whisper_engine.catalog import Catalog
    from faster_whisper_engine.engine import FasterWhisper
    from faster_whisper_engine.settings import EngineSettings

    settings = EngineSettings(model=model)
    asyncio.run(FasterWhisper(settings).fetch(model, lambda done, total: None))
    return Catalog(settings, {}).directory(model)


if __name__ == "__main__":
    sources.prepare_environment()
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    print(json.dumps(answer(json.loads(sys.argv[1]))))

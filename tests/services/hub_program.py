"""Asks an engine for a model, in a process of its own: `hub_program.py JSON`.

The answer is a line of JSON on standard output; the log, with whole tracebacks, is on standard
error. The token comes in the environment, as it does in use. `JSON` holds what to ask:
`{"whisper": hub id}` of the first engine, and of the second `{"diarization": hub id}`,
`{"alignment": language, "directory": path or null}`, `{"file": hub id, "while_loading": name}`, or
`{"weights": address}`, for torch to download; and `"models"`, what the image has at `/models`, and
`"revisions"`, those that are wanted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from speech_service.work import hub
from whisperx_engine import sources


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; an error of the engine is an answer as well."""
    from pydantic import SecretStr
    from speech_service.contract.errors import SpeechError

    token = SecretStr(os.environ.get("HF_TOKEN", ""))
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    models = Path(question["models"])
    try:
        if model := question.get("whisper"):
            return {"folder": str(_whisper(model))}
        if model := question.get("diarization"):
            wanted = question.get("revisions", {})
            folder = sources.diarization_folder(model, token, offline, models, wanted)
            return {"folder": str(folder)}
        if language := question.get("alignment"):
            directory = question["directory"] and Path(question["directory"])
            source = sources.alignment_source(language, directory, token, offline, models)
            return {"name": source.model_name, "dir": source.model_dir}
        if address := question.get("weights"):
            import torch.hub

            with hub.translated(address):
                return dict(torch.hub.load_state_dict_from_url(address))
        from huggingface_hub import hf_hub_download

        with hub.translated(question["while_loading"]):
            secret = hub.well_formed(token)
            return {"file": hf_hub_download(question["file"], "pytorch_model.bin", token=secret)}
    except sources.NoAlignmentModel as error:
        return {"impossible": str(error)}
    except SpeechError as error:
        logging.getLogger("test").exception("refused")
        return {"status": error.status, "code": error.code, "message": error.message}


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

"""Where the models of alignment and diarization come from.

Rules:
- A folder that the operator names is taken as it is.
- What lies under /models comes first: models that were baked into the image or mounted there, as
  `whisper/<size or hub id>`, `alignment/<language>`, `diarization/<hub id>`, `nltk_data`.
- Then the cache; the hub is asked only for what neither holds. A model that is here needs neither
  network nor token.
- A model is fetched as a whole before the library that loads it is imported, which takes seconds:
  trouble with a token is told at once, and the library never goes online itself.
- The token is handed to the hub's library and to nobody else.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from pydantic import SecretStr
from speech_service.contract.errors import ModelUnavailable
from speech_service.process.startup import NO_REPORTS
from speech_service.work import hub

MODELS = Path("/models")
"""Models that belong to the image; nothing is ever written here at run time."""

_ENVIRONMENT = {
    **NO_REPORTS,
    "PYANNOTE_METRICS_ENABLED": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
}
_ANSWER_SECONDS = 5.0
_SILENCE_SECONDS = 10.0
"""What the hub's library waits for the next bytes of a file; torch and NLTK would wait for ever."""
Revisions: TypeAlias = Mapping[str, str]
"""Commits, branches or tags of repositories, by their hub ids."""
_NEWEST: Revisions = MappingProxyType({})
_PART = re.compile(r"\$model/([\w./-]+)")


class NoAlignmentModel(Exception):
    """Nobody trained a model that could align this language; plain transcription works."""


@dataclass(frozen=True, slots=True)
class AlignmentSource:
    """What `whisperx.load_align_model` has to be told, by the names of its parameters.

    `model_name` is a folder, or a bundle of torchaudio's that is downloaded into `model_dir`.
    """

    model_name: str
    model_dir: str | None = None


def prepare_environment() -> None:
    """Forbid the libraries to report on their users, to draw, and to wait for a server for ever.

    And to take anything but weights out of a file of weights; see `trust`.

    Call it before any of them is imported.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    socket.setdefaulttimeout(_SILENCE_SECONDS)


def whisper_models(models: Path = MODELS) -> dict[str, Path]:
    """Return the folders of Whisper models under `models`, by the names that clients use."""
    root = models / "whisper"
    return {
        str(weights.parent.relative_to(root)): weights.parent
        for pattern in ("*/model.bin", "*/*/model.bin")
        for weights in sorted(root.glob(pattern))
    }


def diarization_folder(
    model: str,
    token: SecretStr | None,
    offline: bool,
    models: Path = MODELS,
    revisions: Revisions = _NEWEST,
) -> Path:
    """Return a folder that `whisperx.diarize.DiarizationPipeline` loads.

    Args:
        model: a hub id or a folder.
        token: of the hub; most diarization models are gated.
        offline: forbids to ask the hub.
        revisions: which one of it is wanted.
    Raises:
        ModelUnavailable: it is not on this machine and cannot be fetched; the code says why.
    """
    for folder in (Path(model), models / "diarization" / model):
        if (folder / "config.yaml").is_file():
            return folder
    if model.startswith(("/", ".", "~")):
        raise ModelUnavailable(
            f"the folder {Path(model).name!r} of WHISPERX__DIARIZE_MODEL holds no config.yaml; "
            "is the volume mounted?"
        )
    wish = _Wish(model, "config.yaml", _is_pipeline, revision=revisions.get(model))
    return _fetched(wish, token, offline)


def alignment_source(
    language: str,
    directory: Path | None,
    token: SecretStr | None,
    offline: bool,
    models: Path = MODELS,
    revisions: Revisions = _NEWEST,
) -> AlignmentSource:
    """Return what to load for a language; imports torch where it needs a public model.

    Args:
        language: ISO 639-1 code.
        directory: holds `<language>/config.json`, or `config.json` for all languages, or neither:
            then it is the cache of public models.
        token: of the hub.
        offline: forbids to ask the hub, and PyTorch's server.
        revisions: which one of a repository is wanted.
    Raises:
        NoAlignmentModel: there is no public model for this language, nor one of the operator's.
        ModelUnavailable: there is one, but it cannot be fetched.
    """
    for folder in _folders(language, directory, models):
        if (folder / "config.json").is_file():
            return AlignmentSource(str(folder))
    from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF, DEFAULT_ALIGN_MODELS_TORCH

    if bundle := DEFAULT_ALIGN_MODELS_TORCH.get(language):
        return _bundle(bundle, language, directory, offline, models)
    if repository := DEFAULT_ALIGN_MODELS_HF.get(language):
        revision = revisions.get(repository)
        wish = _Wish(repository, "config.json", _is_ctc, directory, revision)
        return AlignmentSource(str(_fetched(wish, token, offline)))
    raise NoAlignmentModel(f"there is no alignment model for {language!r}")


def _folders(language: str, directory: Path | None, models: Path) -> Iterator[Path]:
    for root in (directory, models / "alignment"):
        if root is not None:
            yield root / language
            yield root


def _bundle(
    name: str, language: str, directory: Path | None, offline: bool, models: Path
) -> AlignmentSource:
    """Return one of torchaudio's own models, which torch downloads when it is loaded."""
    import torchaudio.pipelines
    from torch.hub import get_dir

    file = getattr(torchaudio.pipelines, name)._path
    cache = directory or Path(get_dir(), "checkpoints")
    for folder in (cache, models / "alignment"):
        if (folder / file).is_file():
            return AlignmentSource(name, str(folder))
    if offline:
        raise hub.not_baked(f"the alignment model of {language!r}")
    return AlignmentSource(name, str(cache))


@dataclass(frozen=True, slots=True)
class _Wish:
    """A repository of the hub, wanted as a folder.

    `config` is a file that each has; `complete` says whether a folder holds all that is needed, as
    a download may have been cut; `cache` None is the hub's own, `revision` None the newest that the
    cache or else the hub has.
    """

    repository: str
    config: str
    complete: Callable[[Path], bool]
    cache: Path | None = None
    revision: str | None = None


def _fetched(wish: _Wish, token: SecretStr | None, offline: bool) -> Path:
    """Return the folder of a repository, downloading what is missing."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    name = wish.repository
    with hub.translated(name):
        found = try_to_load_from_cache(
            name, wish.config, cache_dir=wish.cache, revision=wish.revision
        )
    if isinstance(found, str) and wish.complete(Path(found).parent):
        return Path(found).parent
    if offline:
        raise hub.not_baked(name)
    secret = hub.checked(token)
    with hub.translated(name):
        folder = snapshot_download(
            name,
            revision=wish.revision,
            cache_dir=wish.cache,
            token=secret,
            allow_patterns=_wanted(wish, secret),
        )
    return Path(folder)


def _wanted(wish: _Wish, token: str | None) -> list[str]:
    """Return patterns of the files worth downloading.

    This first question has a time limit. Without it, a hub that is away is noticed only after the
    library has tried again for 23 seconds.
    """
    from huggingface_hub import HfApi

    hub_api = HfApi(token=token)
    info = hub_api.model_info(wish.repository, revision=wish.revision, timeout=_ANSWER_SECONDS)
    names = {file.rfilename for file in info.siblings or ()}
    # Repositories keep the same weights in several formats, and language models beside them.
    weights = "model.safetensors" if "model.safetensors" in names else "pytorch_model.bin"
    return ["*.json", "*.yaml", "*.npz", weights, "*/pytorch_model.bin"]


def _is_pipeline(folder: Path) -> bool:
    """Say whether all parts of a pipeline are there that its configuration keeps beside itself."""
    config = folder / "config.yaml"
    return config.is_file() and all(
        (folder / part / "pytorch_model.bin").is_file()
        or all((folder / part / name).is_file() for name in ("plda.npz", "xvec_transform.npz"))
        for part in _PART.findall(config.read_text(encoding="utf-8"))
    )


def _is_ctc(folder: Path) -> bool:
    """Say whether a folder holds a wav2vec 2.0 model that knows letters."""
    files = ("config.json", "preprocessor_config.json", "vocab.json")
    weights = ("model.safetensors", "pytorch_model.bin")
    return all((folder / name).is_file() for name in files) and any(
        (folder / name).is_file() for name in weights
    )

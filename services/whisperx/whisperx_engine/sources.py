"""Where the models of alignment and diarization come from.

Rules:
- A folder that the operator names is taken as it is.
- What lies under /models comes first: models that were baked into the image or mounted there, as
  `whisper/<size or hub id>`, `alignment/<language>`, `diarization/<hub id>`, `nltk_data`.
- Then the cache. A model that is here needs neither network nor token.
- What neither holds is named (`ModelMissing`) to whoever may wait for it, and fetched as a whole by
  a process of its own (`speech_service.work.download`), so that no library goes online while it
  loads. The exception are pipelines of the operator's choice that refer to other repositories.
- Which models there are, the operator's settings and the library say. So the token is sent for all
  of them; where it is no token, that is told at once.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from speech_service.contract.errors import ModelMissing, ModelUnavailable
from speech_service.process.startup import NO_REPORTS
from speech_service.work import hub
from speech_service.work.download import Download, WebFile

MODELS = Path("/models")
"""Models that belong to the image; nothing is ever written here at run time."""

_ENVIRONMENT = {
    **NO_REPORTS,
    "PYANNOTE_METRICS_ENABLED": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
}
_SILENCE_SECONDS = 10.0
"""What the hub's library waits for the next bytes of a file; NLTK would wait for ever."""
_BUNDLES = "https://download.pytorch.org/torchaudio/models"
_PART = re.compile(r"\$model/([\w./-]+)")


class NoAlignmentModel(Exception):
    """Nobody trained a model that could align this language; plain transcription works."""


@dataclass(frozen=True, slots=True)
class AlignmentSource:
    """What `whisperx.load_align_model` has to be told, by the names of its parameters.

    `model_name` is a folder, or a bundle of torchaudio's whose file is in `model_dir`.
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


@dataclass(frozen=True, slots=True)
class _Kind:
    """What repositories of the hub hold that are models of one kind.

    Args:
        config: a file that each has, and that says what it is.
        complete: whether a folder holds all that is needed; a download may have been cut.
        patterns, needed, last: see `Download`.
    """

    config: str
    complete: Callable[[Path], bool]
    patterns: list[str]
    needed: list[str]
    last: list[str]


@dataclass(frozen=True, slots=True)
class Sources:
    """The models of alignment and diarization that a service uses.

    A model that has to be fetched is called `diarization:` or `alignment:` with its hub id behind
    it, or with the name of torchaudio's file.

    Args:
        pipeline: the diarization model, a hub id or a folder.
        directory: holds `<language>/config.json`, or `config.json` for all languages, or neither:
            then it is the cache of public models.
        token: of the hub; most diarization models are gated.
        offline: forbids to fetch anything.
        revisions: commits, branches or tags of repositories, by their hub ids.
        min_free: share of the disk that stays free where clients choose what is fetched, by their
            languages.
        models: those of the image.
    """

    pipeline: str
    directory: Path | None = None
    token: SecretStr | None = None
    offline: bool = False
    revisions: Mapping[str, str] = field(default_factory=dict)
    min_free: float = 0.0
    models: Path = MODELS

    def diarization(self) -> Path:
        """Return a folder that `whisperx.diarize.DiarizationPipeline` loads.

        Raises:
            ModelMissing: it has to be fetched.
            ModelUnavailable: it is not on this machine and cannot be fetched; the code says why.
        """
        for folder in (Path(self.pipeline), self.models / "diarization" / self.pipeline):
            if (folder / "config.yaml").is_file():
                return folder
        if self.pipeline.startswith(("/", ".", "~")):
            raise ModelUnavailable(
                f"the folder {Path(self.pipeline).name!r} of WHISPERX__DIARIZE_MODEL holds no "
                "config.yaml; is the volume mounted?"
            )
        return self._found(f"diarization:{self.pipeline}")

    def alignment(self, language: str) -> AlignmentSource:
        """Return what to load for a language; imports torch where it needs a public model.

        Args:
            language: ISO 639-1 code.
        Raises:
            NoAlignmentModel: there is no public model for this language, nor one of the operator's.
            ModelMissing, ModelUnavailable: as `diarization`.
        """
        for folder in self._folders(language):
            if (folder / "config.json").is_file():
                return AlignmentSource(str(folder))
        import torchaudio.pipelines
        from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF, DEFAULT_ALIGN_MODELS_TORCH

        if bundle := DEFAULT_ALIGN_MODELS_TORCH.get(language):
            file = self._found(f"alignment:{getattr(torchaudio.pipelines, bundle)._path}")
            return AlignmentSource(bundle, str(file.parent))
        if repository := DEFAULT_ALIGN_MODELS_HF.get(language):
            return AlignmentSource(str(self._found(f"alignment:{repository}")))
        raise NoAlignmentModel(f"there is no alignment model for {language!r}")

    def path(self, name: str) -> Path | None:
        """Return where a model is that may have had to be fetched; None where it is not whole."""
        from huggingface_hub import try_to_load_from_cache

        kind, source = _parts(name)
        if kind is None:
            files = (folder / source for folder in (self._bundles, self.models / "alignment"))
            return next((file for file in files if file.is_file()), None)
        revision = self.revisions.get(source)
        with hub.translated(source):
            found = try_to_load_from_cache(
                source, kind.config, cache_dir=self._cache(kind), revision=revision
            )
        folder = Path(found).parent if isinstance(found, str) else None
        return folder if folder and kind.complete(folder) else None

    def download(self, name: str) -> Download | WebFile:
        """Return what to download so that a model is here.

        Raises:
            ModelUnavailable: nothing may be fetched, or what is configured is no token.
        """
        kind, source = _parts(name)
        if self.offline:
            raise hub.not_baked(source)
        if kind is None:
            return WebFile(f"{_BUNDLES}/{source}", str(self._bundles), self.min_free)
        cache = self._cache(kind)
        return Download(
            source,
            kind.patterns,
            kind.needed,
            kind.last,
            hub.checked(self.token),
            min_free=self.min_free if kind is _CTC else 0.0,
            revision=self.revisions.get(source),
            cache=str(cache) if cache else None,
        )

    def _found(self, name: str) -> Path:
        path = self.path(name)
        if path is None:
            self.download(name)  # what forbids it is told at once
            raise ModelMissing(name)
        return path

    def _folders(self, language: str) -> Iterator[Path]:
        for root in (self.directory, self.models / "alignment"):
            if root is not None:
                yield root / language
                yield root

    @property
    def _bundles(self) -> Path:
        """Where torch has always kept torchaudio's files, if nothing else is said."""
        home = os.environ.get("TORCH_HOME") or "~/.cache/torch"
        return self.directory or Path(home, "hub", "checkpoints").expanduser()

    def _cache(self, kind: _Kind) -> Path | None:
        """Return the cache of a kind of model; None is that of the hub's library."""
        return self.directory if kind is _CTC else None


def _parts(name: str) -> tuple[_Kind | None, str]:
    """Return of what kind a model is, None for torchaudio's own, and what it is called there."""
    kind, _, source = name.partition(":")
    if kind == "diarization":
        return _PIPELINE, source
    return (_CTC if "/" in source else None), source


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
    return all((folder / name).is_file() for name in _CTC.needed) and any(
        (folder / name).is_file() for name in _CTC.last
    )


_PIPELINE = _Kind(
    "config.yaml",
    _is_pipeline,
    ["*.json", "*.yaml", "*.npz", "pytorch_model.bin", "*/pytorch_model.bin"],
    [],
    ["config.yaml"],
)
_CTC = _Kind(
    "config.json",
    _is_ctc,
    ["*.json"],
    ["config.json", "preprocessor_config.json", "vocab.json"],
    # Repositories keep the same weights in several formats, and language models beside them.
    ["model.safetensors", "pytorch_model.bin"],
)

"""Which models there are: names, what is on this disk, and how to fetch the rest.

A name that a client sends is a size (`small`), a hub id (`Systran/faster-whisper-small`), an alias,
or the last part of a directory the operator configured. A client can never name a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from speech_service.contract.engine import ModelCard
from speech_service.contract.errors import ModelNotAllowed, ModelNotFound, ModelUnavailable
from speech_service.contract.settings import ANY_MODEL
from speech_service.work import hub
from speech_service.work.download import Download

from .settings import EngineSettings

OPENAI_NAME = "whisper-1"
_FILES = ["config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.*"]
_WEIGHTS = ["model.bin"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class Catalog:
    """The models of this machine and of the hub, by canonical name.

    Args:
        settings: which models are configured.
        directories: models that are part of the installation, by the names clients use.
    """

    def __init__(self, settings: EngineSettings, directories: Mapping[str, Path]) -> None:
        self._offline = settings.offline
        self._token = settings.hf_token
        self._aliases = settings.model_aliases
        configured = (settings.model, *settings.preload_models, *settings.model_aliases.values())
        paths = {name: Path(name).expanduser().resolve() for name in configured if _is_path(name)}
        self._spellings = {name: path.name for name, path in paths.items()}
        self._directories = {**directories, **{path.name: path for path in paths.values()}}
        self._default = settings.model
        self._any = ANY_MODEL in settings.allow_models
        self._own = {*configured, *settings.allow_models}
        self._max_bytes, self._min_free = settings.max_model_bytes, settings.min_free_disk
        self.default = self._spellings.get(settings.model, settings.model)

    def resolve(self, model: str | None) -> str:
        """Return the canonical name; see `Engine.resolve`."""
        name = self._aliases.get(model, model) if model else None
        if name is None or name == OPENAI_NAME:
            name = self._default
        name = self._spellings.get(name, name)
        if name in self._directories:
            return name
        name = _sizes().get(name, name)
        if not _HUB_ID.fullmatch(name) or ".." in name:
            raise ModelNotFound(
                f"there is no model {model!r}; use {OPENAI_NAME!r}, a size such as 'small', or a "
                "hub id such as 'Systran/faster-whisper-small'",
                "model",
            )
        return name

    def local(self) -> list[ModelCard]:
        """List the models on this disk; see `Engine.local_models`."""
        cards = [
            ModelCard(name, int(path.stat().st_mtime), "local")
            for name, path in self._directories.items()
            if (path / "model.bin").is_file()
        ]
        for repository in _cached_repositories():
            path = self.path(repository)
            if path:
                owner = repository.partition("/")[0]
                cards.append(ModelCard(repository, int(path.stat().st_mtime), owner))
        return cards

    def path(self, name: str) -> Path | None:
        """Return the directory of a model that is on this disk, or None.

        Raises:
            ModelNotFound: no hub could have this name.
        """
        from huggingface_hub import try_to_load_from_cache

        if name in self._directories:
            path = self._directories[name]
            return path if (path / "model.bin").is_file() else None
        with hub.translated(name):
            found = try_to_load_from_cache(name, "model.bin")
            config = try_to_load_from_cache(name, "config.json")
        if not isinstance(found, str) or not isinstance(config, str):
            return None
        return Path(found).parent

    def download(self, name: str) -> Download | None:
        """Return what to download so that a model can be loaded; None if it is here.

        What the operator configured is fetched with the operator's token, whatever its size; what
        only a client asks for without, and within limits.

        Raises:
            ModelNotAllowed: it is none of those that clients may have fetched.
            ModelNotFound, ModelUnavailable: as `Engine.fetch`.
        """
        if self.path(name):
            return None
        if name in self._directories:
            raise self._empty(name)
        if self._offline:
            raise self._not_here(name)
        if name in {_sizes().get(own, own) for own in self._own}:
            return Download(name, _FILES, [], _WEIGHTS, hub.checked(self._token))
        if not self._any and name not in _sizes().values():
            raise ModelNotAllowed(
                f"the model {name!r} is not here, and none of those that this service fetches: "
                "use one of /v1/models or a size such as 'small', or let the operator add it to "
                f"ALLOW_MODELS ({ANY_MODEL!r} allows any)"
            )
        limits = self._max_bytes, self._min_free
        return Download(name, _FILES, ["config.json", "tokenizer.json"], _WEIGHTS, False, *limits)

    def directory(self, name: str) -> Path:
        """Return the directory of a model that is to be loaded.

        Raises:
            ModelUnavailable: it is not here.
        """
        path = self.path(name)
        if path is None:
            if name in self._directories:
                raise self._empty(name)
            raise ModelUnavailable(f"the model {name!r} is not on this machine any more: try again")
        return path

    def _empty(self, name: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"the directory of model {name!r} holds no model.bin; is the volume mounted?"
        )

    def _not_here(self, name: str) -> ModelNotFound | ModelUnavailable:
        """Return the error of a model that is absent while HF_HUB_OFFLINE forbids fetching it."""
        if name == self.resolve(None):
            return hub.not_baked(name)
        # The operator's own model may still appear; a client's wish will fail again.
        return ModelNotFound(
            f"the model {name!r} is not on this machine and HF_HUB_OFFLINE is set", "model"
        )


def _is_path(name: str) -> bool:
    """Say whether a configured name is a directory rather than a size or a hub id."""
    return name.startswith(("/", "./", "../", "~")) or (Path(name) / "model.bin").is_file()


def _cached_repositories() -> Iterator[str]:
    """Yield the hub ids that have a folder in the cache."""
    from huggingface_hub import constants

    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        yield folder.name.removeprefix("models--").replace("--", "/", 1)


def _sizes() -> dict[str, str]:
    """Return the hub ids of the models that the library knows by a size."""
    from faster_whisper.utils import _MODELS

    return _MODELS

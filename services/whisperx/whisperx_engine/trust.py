"""What a model from outside may do while it is loaded: give numbers, and nothing else.

A pickle calls whatever it names. So torch takes tensors out of it, and the plain classes that are
named here; it is told so by a variable (`sources.prepare_environment`), which holds wherever a
library asks for more. And beside its pickles a pipeline names the class that is to be made of it in
`config.yaml`, and each of its parts one in itself: pyannote.audio would import and call any. They
have to be its own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from speech_service.contract.errors import ModelUnavailable

_PIPELINES = frozenset(
    {
        "pyannote.audio.pipelines.SpeakerDiarization",
        "pyannote.audio.pipelines.speaker_diarization.SpeakerDiarization",
    }
)
_ARCHITECTURES = "pyannote.audio.models."
_DIARIZATION = "the diarization model"


def limit_pickles() -> None:
    """Name what checkpoints of pyannote.audio may hold beside weights.

    All of it only stores what it is given.
    """
    import collections
    import typing

    import pyannote.audio.core.model
    import torch
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.listconfig import ListConfig
    from omegaconf.nodes import AnyNode
    from pyannote.audio.core.model import Introspection
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
    from torch.torch_version import TorchVersion

    torch.serialization.add_safe_globals(
        [
            *(Introspection, Problem, Resolution, Specifications, TorchVersion),
            *(EarlyStopping, ModelCheckpoint, ListConfig, AnyNode, ContainerMetadata, Metadata),
            *(typing.Any, collections.defaultdict, dict, int, list),
        ]
    )
    loader = pyannote.audio.core.model
    loader.import_module = _only_own(loader.import_module)


@contextmanager
def only_weights(model: str) -> Iterator[None]:
    """Tell what is wrong with a model that holds more than weights.

    Args:
        model: what it is, for the person who reads the error.
    Raises:
        ModelUnavailable: in place of what the library says.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise _mistrusted(model, "a file of it holds more than weights") from error


def _only_own(load: Callable[[str], ModuleType]) -> Callable[[str], ModuleType]:
    """Return a loader of modules that loads none but those of pyannote's models."""

    def checked(name: str) -> ModuleType:
        if not name.startswith(_ARCHITECTURES):
            raise _mistrusted(_DIARIZATION, f"a file of it names {name!r} as its kind of model")
        return load(name)

    return checked


def check_pipeline(folder: Path) -> None:
    """Check that a pipeline is made of nothing but pyannote's own parts.

    Args:
        folder: holds its `config.yaml`.
    Raises:
        ModelUnavailable: it names something else.
    """
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        name = str(config["pipeline"]["name"])
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ModelUnavailable(f"the config.yaml of {_DIARIZATION} names no pipeline") from error
    if name not in _PIPELINES:
        raise _mistrusted(_DIARIZATION, f"its config.yaml names {name!r} as its pipeline")
    if config.get("preprocessors"):
        raise _mistrusted(
            _DIARIZATION, "its config.yaml names preprocessors, which could be anything"
        )


def _mistrusted(model: str, reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{model} is not loaded, as it could run any program: {reason}; use the usual model",
        "model_mistrusted",
    )

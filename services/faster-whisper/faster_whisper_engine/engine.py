"""faster-whisper behind the protocol of the shared service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from speech_service.contract.engine import Abilities, Borrow, ModelCard, Reached
from speech_service.contract.errors import ModelUnavailable
from speech_service.work.download import download

from . import prompts
from .catalog import Catalog
from .cpus import available_cpus
from .recognizer import WhisperRecognizer
from .settings import ComputeType, Device, EngineSettings
from .shared_model import SharedModel
from .voice import spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


class FasterWhisper:
    """The engine: see `speech_service.contract.engine.Engine`.

    Args:
        settings: of the environment.
        directories: models that are part of the installation, by the names clients use.
    """

    name = "faster-whisper"
    abilities = Abilities(live=True, speakers=False)

    def __init__(
        self, settings: EngineSettings, directories: Mapping[str, Path] | None = None
    ) -> None:
        self._settings = settings
        self._catalog = Catalog(settings, directories or {})
        self.default_model = self._catalog.default

    def prepare(self, borrow: Borrow) -> None:
        """Import the library, a quarter of a second that no request should wait for."""
        import faster_whisper  # noqa: F401

    def complete(self) -> None:
        """See `Engine.complete`; there is nothing more."""

    def resolve(self, model: str | None) -> str:
        """See `Engine.resolve`."""
        return self._catalog.resolve(model)

    def local_models(self) -> list[ModelCard]:
        """See `Engine.local_models`."""
        return self._catalog.local()

    def is_local(self, model: str) -> bool:
        """See `Engine.is_local`."""
        return self._catalog.path(model) is not None

    def weight_bytes(self, model: str) -> int:
        """Return the size of a model's weights on disk; 0 if it is not here."""
        path = self._catalog.path(model)
        return (path / "model.bin").stat().st_size if path else 0

    async def fetch(self, model: str, progress: Reached) -> None:
        """See `Engine.fetch`."""
        wanted = await asyncio.to_thread(self._catalog.download, model)
        if wanted:
            log.info("downloading model", extra={"model": model})
            await download(wanted, progress)

    def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
        """See `Engine.speech`; Silero's detector, which comes with the library."""
        import numpy as np

        floats = samples.astype(np.float32) / 32768.0
        return spans(floats, min_silence_duration_ms=100, speech_pad_ms=30)

    def load(self, model: str) -> WhisperRecognizer:
        """See `Engine.load`."""
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer

        path = self._catalog.directory(model)
        if self._settings.offline and not (path / "tokenizer.json").is_file():
            raise ModelUnavailable(
                f"the model {model!r} has no tokenizer.json, and HF_HUB_OFFLINE is set"
            )
        device, compute_type = self._device()
        workers = self._settings.num_workers
        try:
            whisper = prompts.sharing(WhisperModel)(
                str(path),
                device=device,
                device_index=self._settings.device_index,
                compute_type=compute_type,
                cpu_threads=self._settings.cpu_threads or max(1, available_cpus() // workers),
                num_workers=workers,
            )
        except (RuntimeError, ValueError, OSError) as error:
            log.exception("model cannot be loaded", extra={"model": model})
            raise ModelUnavailable(
                f"the model {model!r} cannot be loaded; the log says why"
            ) from error
        # What a client writes is text, even where it looks like one of the decoder's commands.
        whisper.hf_tokenizer.encode_special_tokens = True
        start = Tokenizer(whisper.hf_tokenizer, multilingual=False).sot
        whisper.model = SharedModel(whisper.model, start)
        return WhisperRecognizer(whisper)

    def _device(self) -> tuple[str, str]:
        """Return the device and the compute type that the settings come down to here."""
        from ctranslate2 import (  # type: ignore[attr-defined]
            get_cuda_device_count,
            get_supported_compute_types,
        )

        device = self._settings.device
        if device is Device.AUTO:
            device = Device.CUDA if get_cuda_device_count() else Device.CPU
        if self._settings.compute_type is not ComputeType.DEFAULT:
            return device, self._settings.compute_type
        if device is Device.CPU:
            return device, ComputeType.INT8
        supported = get_supported_compute_types(device)
        return device, ComputeType.FLOAT16 if "float16" in supported else ComputeType.FLOAT32

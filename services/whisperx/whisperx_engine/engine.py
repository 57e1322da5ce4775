"""WhisperX behind the shared service: which model is loaded how, and what is imported when."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from faster_whisper_engine.cpus import available_cpus
from faster_whisper_engine.engine import FasterWhisper
from faster_whisper_engine.settings import Device
from speech_service.contract.engine import Abilities, Borrow, ModelCard, Reached
from speech_service.contract.errors import ModelNotFound
from speech_service.work import hub
from speech_service.work.download import download
from speech_service.work.isolation import Workers

from . import diarization, libraries, punkt, sources, trust
from .alignment import Aligner
from .diarization import Diarizer
from .pipeline import BatchedWhisper
from .recognizer import WhisperXRecognizer
from .settings import WhisperXSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


class WhisperX:
    """The engine: see `speech_service.contract.engine.Engine`.

    Whisper's own models are those of the plain engine, found, fetched and loaded by it.
    """

    name = "whisperx"
    abilities = Abilities(live=False, speakers=True)

    def __init__(self, settings: WhisperXSettings) -> None:
        self._settings = settings
        self._whisper = FasterWhisper(settings, sources.whisper_models())
        self._sources = sources.Sources(
            settings.diarize_model,
            directory=settings.align_model_dir,
            token=settings.hf_token,
            offline=settings.offline,
            revisions=settings.revisions,
            min_free=settings.min_free_disk,
        )
        self._threads = settings.cpu_threads or available_cpus()
        self.default_model = self._whisper.default_model

    def prepare(self, borrow: Borrow) -> None:
        """Import what plain transcription needs; the rest takes seconds and comes later."""
        sources.prepare_environment()
        self._borrow = borrow
        self._whisper.prepare(borrow)

    def complete(self) -> None:
        """See `Engine.complete`: some seconds that only words and speakers need."""
        with self._borrow(libraries.POOL_NAME):
            pass

    def resolve(self, model: str | None) -> str:
        """See `Engine.resolve`."""
        return self._whisper.resolve(model)

    def local_models(self) -> list[ModelCard]:
        """See `Engine.local_models`; those of the first stage."""
        return self._whisper.local_models()

    def is_local(self, model: str) -> bool:
        """See `Engine.is_local`; what `sources` calls missing has a colon in its name."""
        if ":" in model:
            return self._sources.path(model) is not None
        return self._whisper.is_local(model)

    async def fetch(self, model: str, progress: Reached) -> None:
        """See `Engine.fetch`."""
        if ":" not in model:
            await self._whisper.fetch(model, progress)
            return
        if await asyncio.to_thread(self.is_local, model):
            return
        log.info("downloading model", extra={"model": model})
        await download(self._sources.download(model), progress)
        if not await asyncio.to_thread(self.is_local, model):
            raise ModelNotFound(f"{model!r} lacks parts that it names: use another model", "model")

    def speech(self, samples: NDArray[np.int16]) -> list[tuple[int, int]]:
        """See `Engine.speech`."""
        return self._whisper.speech(samples)

    def load(self, model: str) -> Any:
        """See `Engine.load`; what is no Whisper model has a name of its own.

        That is the models of alignment and of diarization, and the libraries, which are claimed for
        as long as anything needs them.
        """
        kind, colon, rest = model.partition(":")
        if not colon:
            return self._recognizer(model)
        if model == libraries.POOL_NAME:
            return libraries.imported(self._threads)
        return self._diarizer() if model == diarization.POOL_NAME else self._aligner(rest)

    def _device(self) -> str:
        """Return where torch computes, as it names it."""
        import torch

        device = self._settings.device
        if device is Device.AUTO:
            device = Device.CUDA if torch.cuda.is_available() else Device.CPU
        index = self._settings.device_index
        first = index if isinstance(index, int) else index[0]
        return f"cuda:{first}" if device is Device.CUDA else "cpu"

    def _recognizer(self, model: str) -> WhisperXRecognizer:
        whisper = self._whisper.load(model)
        return WhisperXRecognizer(
            whisper,
            lambda: BatchedWhisper(
                whisper.whisper,
                self._device(),
                self._settings.batch_size,
                self._whisper.weight_bytes(model),
            ),
            self._borrow,
            self._alignment_source,
            self._sources.diarization,
        )

    def _alignment_source(self, language: str) -> sources.AlignmentSource:
        libraries.imported(self._threads)
        return self._sources.alignment(language)

    def _aligner(self, language: str) -> Aligner:
        source = self._alignment_source(language)
        from whisperx.alignment import load_align_model

        punkt.provide()
        device = self._device()
        name = f"the alignment model of {language!r}"
        with hub.translated(name), trust.only_weights(name):
            model, metadata = load_align_model(
                language,
                device,
                model_name=source.model_name,
                model_dir=source.model_dir,
            )
        return Aligner(model, metadata, device)

    def _diarizer(self) -> Diarizer:
        folder = self._sources.diarization()
        libraries.imported(self._threads)
        from whisperx.diarize import DiarizationPipeline

        trust.check_pipeline(folder)
        name = self._settings.diarize_model
        with hub.translated(name), trust.only_weights(name):
            return Diarizer(
                DiarizationPipeline(
                    model_name=str(folder),
                    token=hub.well_formed(self._settings.hf_token),
                    device=self._device(),
                )
            )


class IsolatedWhisperX(WhisperX):
    """The same engine with all of its models in a worker process, which ends when it is idle.

    What is found and fetched is found and fetched here.
    """

    def __init__(self, settings: WhisperXSettings) -> None:
        super().__init__(settings)
        self._workers = Workers(WhisperX, settings, burden=libraries.POOL_NAME)

    def prepare(self, borrow: Borrow) -> None:
        """See `Engine.prepare`."""
        self._workers.prepare(borrow)
        super().prepare(borrow)

    def load(self, model: str) -> Any:
        """See `Engine.load`."""
        return self._workers.load(model)

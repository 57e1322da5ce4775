"""Settings of this engine, beside those it shares with the plain one."""

from __future__ import annotations

from pathlib import Path

from faster_whisper_engine.settings import ComputeType, Device, EngineSettings, Threads
from pydantic import AliasChoices, Field


def _names(name: str, *others: str) -> AliasChoices:
    return AliasChoices(f"WHISPERX__{name}", f"WHISPERX_{name}", *others)


class WhisperXSettings(EngineSettings):
    """The variables of the service.

    `batch_size` 0 adapts to the memory there is; `align_model_dir` and `diarize_model` are
    described in `sources`. Recordings with words or speakers are held in memory as a whole, so
    `max_audio_seconds` and `max_jobs` are lower than elsewhere: four hours take 0.9 GB.
    """

    model: str = Field(default="base", validation_alias=_names("MODEL"))
    device: Device = Field(default=Device.AUTO, validation_alias=_names("DEVICE"))
    device_index: int | list[int] = Field(default=0, validation_alias=_names("DEVICE_INDEX"))
    compute_type: ComputeType = Field(
        default=ComputeType.DEFAULT, validation_alias=_names("COMPUTE_TYPE")
    )
    cpu_threads: Threads = Field(
        default=0, validation_alias=_names("CPU_THREADS", "OMP_NUM_THREADS")
    )
    num_workers: int = Field(default=1, ge=1, validation_alias=_names("NUM_WORKERS"))
    ttl: float = Field(default=300.0, ge=-1, validation_alias=_names("TTL"))
    batch_size: int = Field(default=0, ge=0, le=256, validation_alias=_names("BATCH_SIZE"))
    align_model_dir: Path | None = Field(default=None, validation_alias=_names("ALIGN_MODEL_DIR"))
    diarize_model: str = Field(
        default="pyannote/speaker-diarization-community-1",
        validation_alias=_names("DIARIZE_MODEL"),
    )
    revisions: dict[str, str] = Field(default={}, validation_alias=_names("REVISIONS"))
    max_jobs: int = Field(default=2, ge=1)
    max_audio_seconds: float = Field(default=14_400.0, gt=0)

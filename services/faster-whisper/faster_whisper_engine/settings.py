"""Settings of this engine, beside those every engine shares."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr
from speech_service.contract.settings import Settings


def _names(name: str, *others: str) -> AliasChoices:
    return AliasChoices(f"WHISPER__{name}", f"WHISPER_{name}", *others)


def _outermost(threads: object) -> object:
    """Return the first number of OpenMP's list, which has one for each level of nesting."""
    return threads.partition(",")[0] if isinstance(threads, str) else threads


Threads: TypeAlias = Annotated[int, BeforeValidator(_outermost), Field(ge=0)]
"""Threads that compute; 0 for all that the container may use."""


class Device(StrEnum):
    """Where to compute; `auto` takes a GPU where CTranslate2 finds one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ComputeType(StrEnum):
    """CTranslate2's quantization; `default` means int8 on a CPU and float16 on a GPU."""

    DEFAULT = "default"
    AUTO = "auto"
    INT8 = "int8"
    INT8_FLOAT32 = "int8_float32"
    INT8_FLOAT16 = "int8_float16"
    INT8_BFLOAT16 = "int8_bfloat16"
    INT16 = "int16"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class EngineSettings(Settings):
    """The variables of the service; `model` is a size, a hub id or a directory.

    `max_jobs` transcriptions run at the same time and share the decoder's batches; each holds some
    minutes of audio in memory. `num_workers` is how many batches are decoded at the same time.
    """

    model: str = Field(
        default="Systran/faster-whisper-small",
        validation_alias=_names("MODEL", "FASTERWHISPER_MODEL"),
    )
    device: Device = Field(default=Device.AUTO, validation_alias=_names("INFERENCE_DEVICE"))
    device_index: int | list[int] = Field(default=0, validation_alias=_names("DEVICE_INDEX"))
    compute_type: ComputeType = Field(
        default=ComputeType.DEFAULT, validation_alias=_names("COMPUTE_TYPE")
    )
    max_jobs: int = Field(default=4, ge=1)
    cpu_threads: Threads = Field(
        default=0, validation_alias=_names("CPU_THREADS", "OMP_NUM_THREADS")
    )
    hf_token: SecretStr | None = None
    offline: bool = Field(default=False, validation_alias="HF_HUB_OFFLINE")


class FasterWhisperSettings(EngineSettings):
    """What this engine alone reads: the ports of the WhisperLive server with HTTP beside it.

    Both are opened beside `port` where they are set, and serve the same.
    """

    whisper_live_port: int | None = Field(
        default=None, ge=1, le=65535, validation_alias="PORT_WHISPERLIVE"
    )
    http_port: int | None = Field(default=None, ge=1, le=65535, validation_alias="HTTP_PORT")

    @property
    def older_ports(self) -> frozenset[int]:
        """See `Settings.older_ports`."""
        return frozenset(port for port in (self.whisper_live_port, self.http_port) if port)

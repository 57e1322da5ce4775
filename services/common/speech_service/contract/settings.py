"""Settings every engine shares, read from the environment.

Old and new names of a variable both work; an empty variable counts as unset, because Compose files
pass `API_KEY=` through.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from .languages import LanguageCode
from .response_format import ResponseFormat

NEVER = -1.0
"""Value of `ttl` that keeps a model in memory."""


_LEAST_UPLOADS = 8
"""Where the queue is shorter, a slow upload must not keep all others out."""
ANY_MODEL = "*"
"""In `allow_models`: clients may have any model of the hub fetched."""


def _listed(value: Any) -> Any:
    """Return the names in a JSON list, or in a line with commas between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [name.strip() for name in value.split(",") if name.strip()]


Names: TypeAlias = Annotated[list[str], NoDecode, BeforeValidator(_listed)]
"""Several names in one variable: `a, b` or `["a", "b"]`."""


class Settings(BaseSettings):
    """What the shared service needs to know; engines add their own fields.

    `ttl` is in seconds: -1 never unloads a model, 0 unloads it at once after use. `allow_models`
    are those that clients may have fetched beside the configured ones and the library's own sizes.
    `upload_timeout` is how many seconds an upload may be behind its lowest rate, `min_free_disk`
    the share of a disk, 0 to 1, that neither uploads nor clients' models may take. Those from
    `max_no_data_seconds` on are faster-whisper-server's, for its live protocol alone.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", populate_by_name=True, frozen=True
    )

    host: str = Field(default="127.0.0.1", validation_alias="UVICORN_HOST")
    port: int = Field(default=8000, ge=0, le=65535, validation_alias="UVICORN_PORT")
    root_path: str = Field(default="", validation_alias="UVICORN_ROOT_PATH")
    shutdown_seconds: int = Field(
        default=25, ge=0, validation_alias="UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(str.lower)
    ] = "info"
    api_key: SecretStr | None = None
    allow_origins: list[str] = []
    allow_hosts: list[str] = []
    published_on: str = ""
    enable_ui: bool = True

    default_language: LanguageCode = None
    default_response_format: ResponseFormat = ResponseFormat.JSON

    ttl: float = Field(
        default=300.0, ge=-1, validation_alias=AliasChoices("WHISPER__TTL", "WHISPER_TTL")
    )
    num_workers: int = Field(
        default=1,
        ge=1,
        validation_alias=AliasChoices("WHISPER__NUM_WORKERS", "WHISPER_NUM_WORKERS"),
    )
    preload_models: list[str] = []
    model_aliases: dict[str, str] = {}
    allow_models: Names = []
    max_model_bytes: int = Field(default=10_000_000_000, ge=1)
    max_fetch_seconds: float = Field(default=3600.0, gt=0)

    max_upload_bytes: int = Field(default=500_000_000, ge=1)
    max_uploads: int | None = Field(default=None, ge=1)
    upload_timeout: float = Field(default=30.0, gt=0)
    min_free_disk: float = Field(default=0.02, ge=0, lt=1)
    max_audio_seconds: float = Field(default=36_000.0, gt=0)
    max_jobs: int = Field(default=1, ge=1)
    max_queued: int = Field(default=16, ge=0)
    max_live_sessions: int = Field(default=8, ge=0)
    max_idle_seconds: float = Field(default=600.0, gt=0)
    max_no_data_seconds: float = Field(default=1.0, gt=0)
    min_duration: float = Field(default=1.0, ge=0)
    max_inactivity_seconds: float = Field(default=2.5, gt=0)
    inactivity_window_seconds: float = Field(default=5.0, gt=0)
    allow_url: bool = False

    @property
    def jobs(self) -> int:
        """Transcriptions that run at the same time: no worker stays without one."""
        return max(self.max_jobs, self.num_workers)

    @property
    def uploads(self) -> int:
        """Bodies that are read at the same time: as many as there is room for behind, and a few."""
        return self.max_uploads or max(_LEAST_UPLOADS, self.max_queued + self.jobs)

    @property
    def older_ports(self) -> frozenset[int]:
        """Ports that an older server listened on, opened beside `port`; it said `healthy` there."""
        return frozenset()


S = TypeVar("S", bound=Settings)


class BadSettings(Exception):
    """The environment holds a value that cannot be used; one line per variable."""


def read_environment(kind: type[S]) -> S:
    """Return the settings of the environment.

    Raises:
        BadSettings: with the name of each variable at fault and what is wrong with it; the value
            itself is not repeated, as it may be a secret.
    """
    try:
        return kind()
    except ValidationError as error:
        lines = (f"{_variable(item['loc'])}: {item['msg']}" for item in error.errors())
        raise BadSettings("\n".join(lines)) from None
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        name = _variable((field[1] if field else "a variable",))
        raise BadSettings(f'{name}: must be JSON, such as ["a", "b"]') from None


def _variable(location: tuple[Any, ...]) -> str:
    return str(location[0]).upper()

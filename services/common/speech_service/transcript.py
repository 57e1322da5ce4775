"""Plain values of a transcription: what was asked, and what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; times in seconds from the start of the recording.

    `word` keeps the space Whisper puts before it, so that words can be joined as they are.
    """

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech as the model delivered it; the fields are those of Whisper.

    `start` and `end` are seconds, `seek` is in frames of 10 ms, `tokens` are the model's ids;
    `words` is None where word times were not asked for.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class VoiceActivity:
    """How silence is found before decoding; None leaves a value to the engine.

    `threshold` is a probability; the other two are milliseconds.
    """

    threshold: float | None = None
    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a client asks of one transcription.

    `language` is an ISO 639-1 code or None for detection; `temperature` 0 lets the engine raise it
    by itself where decoding fails, another value up to 1 is used as it is; `voice_activity` None
    decodes silence too; `words` asks for word times; `language_only` asks for the language of the
    first half minute and nothing else.
    """

    task: Task = "transcribe"
    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None
    temperature: float = 0.0
    voice_activity: VoiceActivity | None = field(default_factory=VoiceActivity)
    words: bool = False
    without_timestamps: bool = False
    language_only: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a recording as a whole, once it has been heard to its end.

    `language` is the language spoken (ISO 639-1), also for a translation; durations are seconds.
    """

    language: str
    language_probability: float
    duration: float
    duration_after_vad: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """A finished transcription."""

    task: Task
    summary: Summary
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole text on one line."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def language(self) -> str:
        """The language of the text: that of the speech, or English for a translation."""
        return "en" if self.task == "translate" else self.summary.language

    @property
    def output_tokens(self) -> int:
        """How many tokens the model generated."""
        return sum(len(segment.tokens) for segment in self.segments)

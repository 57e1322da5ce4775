"""Plain values of a transcription: what was asked, and what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Task = Literal["transcribe", "translate"]


class Stage(StrEnum):
    """The steps of a transcription that can take long enough to be watched."""

    TRANSCRIBE = "transcribe"
    ALIGN = "align"
    DIARIZE = "diarize"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come, 0 to 1; each stage that runs reports both."""

    stage: Stage
    done: float


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; times in seconds from the start of the recording.

    `word` keeps the space Whisper puts before it, so that words can be joined as they are.
    `probability` is None where the times were not heard but put between those of the neighbours,
    `speaker` where speakers were not asked for, or nobody could be told.
    """

    start: float
    end: float
    word: str
    probability: float | None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech as the model delivered it; the fields are those of Whisper.

    `start` and `end` are seconds, `seek` is in frames of 10 ms, `tokens` are the model's ids;
    `words` is None where word times were not asked for; `speaker` is who says all of it.
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
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """Somebody whose voice the client brings: `samples` are mono s16le, 16 kHz."""

    name: str
    samples: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Speakers:
    """How many people speak, as far as the client knows, at least 1 each; and who some are."""

    exactly: int | None = None
    at_least: int | None = None
    at_most: int | None = None
    known: tuple[KnownSpeaker, ...] = ()


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
    decodes silence too; `words` asks for word times; `speakers` asks who speaks, of engines that
    can tell; `batch_size` is how many stretches of speech may be decoded at once, None leaves it to
    the engine; `language_only` asks for the language of the first half minute and nothing else.
    """

    task: Task = "transcribe"
    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None
    temperature: float = 0.0
    voice_activity: VoiceActivity | None = field(default_factory=VoiceActivity)
    words: bool = False
    speakers: Speakers | None = None
    batch_size: int | None = None
    without_timestamps: bool = False
    language_only: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a recording as a whole, once it has been heard to its end.

    `language` is the language spoken (ISO 639-1), also for a translation; durations are seconds.
    `warnings` say what was asked for and could not be done, each with its reason.
    """

    language: str
    language_probability: float
    duration: float
    duration_after_vad: float
    warnings: tuple[str, ...] = ()


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
    def speakers(self) -> list[str]:
        """Who speaks, in the order of their first words."""
        return list(dict.fromkeys(each.speaker for each in self.segments if each.speaker))

    @property
    def output_tokens(self) -> int:
        """How many tokens the model generated."""
        return sum(len(segment.tokens) for segment in self.segments)

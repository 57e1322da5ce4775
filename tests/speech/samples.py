"""Make the recordings in `samples/`: `python -m tests.speech.samples MODEL FOLDER`.

Each is spoken by a held-out voice. A voice is taken only if the model gets the text
right, and would still do so with a little noise, another volume or other arithmetic:
tests on another processor must read the same words.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import av
import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from tests.speech.corpus import noise
from tests.speech.synthesis import RATE, Samples, Speech, join, silence, speak, write_wav
from tests.speech.vocabulary import TEST_VOICES, WORDS, translate

_SPEEDS = (150, 165, 140, 180)
# Word times reach back to the window's start; faster-whisper corrects what is over 0.5 s.
_LEAD = 0.7
_REDRAWS = 60
# How far the start of a word may lie from the truth, in seconds: by median, and at most.
_MEDIAN_ERROR, _LARGEST_ERROR = 0.06, 0.25
_LONG_SECONDS = 12.0
_MEDIAN_ERROR_LONG, _LARGEST_ERROR_LONG = 0.1, 0.3


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sample to make; without a text, sentences are drawn until `seconds` are full."""

    file: str
    language: str
    text: str = ""
    seconds: float = 0.0
    pause: float = 0.8
    voices: int = 1


WANTED = (
    Wanted("demo.wav", "en", "Hello world. Open garden window seven. Thanks."),
    Wanted("english.wav", "en", "Open garden window three. Hello world nine."),
    Wanted("french.wav", "fr", "Bonjour monde. Ouvrez fenêtre jardin quatre. Merci."),
    Wanted("russian.wav", "ru", "Привет мир. Откройте окно сад восемь. Спасибо."),
    Wanted("french-digits.wav", "fr", "Zéro un deux trois quatre. Cinq six sept huit neuf."),
    Wanted("russian-digits.wav", "ru", "Ноль один два три четыре. Пять шесть семь восемь девять."),
    Wanted("english-digits.wav", "en", "Zero one two three four. Five six seven eight nine."),
    Wanted("pause.wav", "en", "Hello garden five. Thanks world two.", pause=1.5),
    Wanted("dialogue.flac", "en", seconds=14, voices=2),
    Wanted("half-minute.flac", "en", seconds=25),
    Wanted("long-french.flac", "fr", seconds=20),
    Wanted("minute.flac", "en", seconds=70),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording with its truth; `sentences` are the segments the model should find."""

    speech: Speech
    sentences: list[dict[str, object]]
    voices: list[str]

    @property
    def texts(self) -> list[str]:
        return [str(sentence["text"]) for sentence in self.sentences]


def made(wanted: Wanted, judge: Judge) -> tuple[Sample, int] | None:
    """Return the first rendering of `wanted` that the model reads, and which one it was."""
    for attempt in range(100 if wanted.text else 8):
        voices = [TEST_VOICES[(attempt + i * 2) % len(TEST_VOICES)] for i in range(wanted.voices)]
        speed = _SPEEDS[attempt // len(TEST_VOICES) % len(_SPEEDS)]
        if wanted.text:
            parts = _spoken(wanted, voices, speed)
            sample = _composed(parts, voices, wanted.pause)
            if not judge.misread(sample, wanted.language):
                return sample, attempt + 1
        else:
            found = _drawn(wanted, voices, speed, judge)
            if found:
                return found, attempt + 1
    return None


def _spoken(wanted: Wanted, voices: list[str], speed: int) -> list[Speech]:
    texts = [f"{text.strip()}." for text in wanted.text.split(".") if text.strip()]
    return [
        speak(text, wanted.language, voices[i % len(voices)], speed=speed, lead=0, tail=0)
        for i, text in enumerate(texts)
    ]


def _drawn(wanted: Wanted, voices: list[str], speed: int, judge: Judge) -> Sample | None:
    """Return random sentences of `wanted.seconds` in all; those that are misread are redrawn."""
    random = np.random.default_rng((len(wanted.file), int(wanted.seconds), speed))

    def sentence(number: int) -> Speech:
        while True:
            text, voice = _sentence(random, wanted.language), voices[number % len(voices)]
            part = speak(text, wanted.language, voice, speed=speed, lead=0, tail=0)
            if judge.reads(part, wanted.language):
                return part

    parts: list[Speech] = []
    while sum(part.duration + wanted.pause for part in parts) < wanted.seconds:
        parts.append(sentence(len(parts)))
    for _ in range(_REDRAWS):
        sample = _composed(parts, voices, wanted.pause)
        misread = judge.misread(sample, wanted.language)
        if not misread:
            return sample
        for number in misread:
            parts[number] = sentence(number)
    return None


def _composed(parts: list[Speech], voices: list[str], pause: float) -> Sample:
    speech = join([silence(_LEAD), join(parts, pause), silence(0.5)])
    start, sentences = _LEAD, []
    for number, part in enumerate(parts):
        times = {"start": round(start, 3), "end": round(start + part.duration, 3)}
        voice = voices[number % len(voices)]
        sentences.append({**times, "text": f"{part.text}.", "voice": voice})
        start += part.duration + pause
    return Sample(speech, sentences, sorted(set(voices)))


def _sentence(random: np.random.Generator, language: str) -> str:
    words = random.choice(WORDS[language], int(random.integers(3, 7)), replace=False)
    return f"{' '.join(words).capitalize()}."


def _sentences(text: str) -> list[str]:
    return [f"{part.strip()}." for part in text.split(".") if part.strip()]


def _different(truth: list[str], heard: list[str]) -> set[int]:
    """Return which sentences of the truth are not among what was heard, or have company there."""
    found: set[int] = set()
    matcher = SequenceMatcher(None, truth, heard, autojunk=False)
    for kind, start, end, _, _ in matcher.get_opcodes():
        if kind != "equal":
            found |= set(range(start, end)) or {min(start, len(truth) - 1)}
    return found


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to decode a recording."""

    model: WhisperModel
    audio: Samples
    options: dict[str, Any]


class Judge:
    """Finds what is misread by any way of decoding, this processor's arithmetic or another's."""

    def __init__(self, folder: Path) -> None:
        self._exact, self._float = (
            WhisperModel(str(folder), device="cpu", compute_type=kind, cpu_threads=1)
            for kind in ("int8", "float32")
        )

    def reads(self, sentence: Speech, language: str) -> bool:
        """Return whether one sentence by itself is read right."""
        audio = join([silence(_LEAD), sentence, silence(0.5)]).audio
        segments, _ = self._exact.transcribe(audio, beam_size=1, language=language)
        return "".join(segment.text for segment in segments).strip() == f"{sentence.text}."

    def misread(self, sample: Sample, language: str) -> set[int]:
        """Return which sentences are not right in text, place or language; empty: all are."""
        every = set(range(len(sample.sentences)))
        for trial in self._trials(sample.speech.audio, language):
            segments, info = trial.model.transcribe(trial.audio, **trial.options)
            if info.language != language:
                return every
            text = "".join(segment.text for segment in segments)
            truth = sample.texts
            if trial.options.get("task") == "translate":
                truth = [translate(sentence, language) for sentence in truth]
            wrong = _different(truth, _sentences(text))
            if wrong:
                return wrong
        return self._misplaced(sample) or self._misread_at_once(sample)

    def _trials(self, audio: Samples, language: str) -> Iterator[Trial]:
        hiss = noise(np.random.default_rng(1), len(audio)) * np.float32(0.002)
        yield Trial(self._exact, audio, {"vad_filter": True, "beam_size": 1})
        yield Trial(self._exact, audio, {"vad_filter": True})
        yield Trial(self._exact, audio, {})
        yield Trial(self._exact, audio, {"beam_size": 1})
        yield Trial(self._exact, audio, {"language": language, "word_timestamps": True})
        # With word times, windows over 30 s are cut elsewhere.
        yield Trial(self._exact, audio, {"vad_filter": True, "word_timestamps": True})
        yield Trial(self._float, audio, {})
        yield Trial(self._exact, audio * np.float32(0.4), {})
        yield Trial(self._exact, audio + hiss, {"vad_filter": True})
        if language != "en":
            yield Trial(self._exact, audio, {"task": "translate"})

    def _misplaced(self, sample: Sample) -> set[int]:
        """Return the sentences that are no segment, or hold a word far from its true place."""
        segments = list(self._exact.transcribe(sample.speech.audio, word_timestamps=True)[0])
        texts = [segment.text.strip() for segment in segments]
        if texts != sample.texts:
            return _different(sample.texts, texts)
        words = [word for segment in segments for word in segment.words or ()]
        numbers = [n for n, segment in enumerate(segments) for _ in segment.words or ()]
        errors = [abs(w.start - t.start) for w, t in zip(words, sample.speech.words, strict=True)]
        bound = _MEDIAN_ERROR, _LARGEST_ERROR
        if sample.speech.duration > _LONG_SECONDS:
            bound = _MEDIAN_ERROR_LONG, _LARGEST_ERROR_LONG
        limit = bound[1] if float(np.median(errors)) < bound[0] else bound[0]
        return {n for n, error in zip(numbers, errors, strict=True) if error >= limit}

    def _misread_at_once(self, sample: Sample) -> set[int]:
        """Return what the library's batches, which know one window only, do not read."""
        if sample.speech.duration > 30:
            return set()
        batched = BatchedInferencePipeline(self._exact)
        segments, _ = batched.transcribe(sample.speech.audio, without_timestamps=True)
        return _different(sample.texts, _sentences("".join(segment.text for segment in segments)))


def write_flac(path: Path, speech: Speech) -> None:
    """Write a FLAC file: 16 kHz, mono, 16 bits."""
    samples = (speech.audio.clip(-1, 1) * 32767).round().astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        stream.options = {"compression_level": "12"}
        for start in range(0, len(samples), 4096):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 4096], "s16", "mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _described(wanted: Wanted, sample: Sample) -> dict[str, object]:
    text = " ".join(sample.texts)
    described: dict[str, object] = {"file": wanted.file, "language": wanted.language, "text": text}
    if wanted.language != "en":
        described["translation"] = translate(text, wanted.language)
    described |= {"duration": round(sample.speech.duration, 3), "voices": sample.voices}
    described["segments"] = sample.sentences
    described["words"] = [
        {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
        for word in sample.speech.words
    ]
    return described


def main() -> None:
    """Write the recordings and `samples.json`; fail if one cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(arguments.model)
    described: list[dict[str, object]] = []
    missing: list[str] = []
    for wanted in WANTED:
        found = made(wanted, judge)
        if found is None:
            missing.append(wanted.file)
            print(f"{wanted.file}: no candidate is right", flush=True)
            continue
        sample, attempt = found
        write = write_wav if wanted.file.endswith(".wav") else write_flac
        write(folder / wanted.file, sample.speech)
        described.append(_described(wanted, sample))
        print(f"{wanted.file}: {sample.voices}, candidate {attempt}", flush=True)
    random = np.random.default_rng(3)
    hiss = noise(random, 4 * RATE) * np.float32(0.02)
    for file, speech in (("silence.wav", silence(4.0)), ("noise.wav", Speech(hiss))):
        write_wav(folder / file, speech)
        empty = {"file": file, "language": "", "text": "", "duration": 4.0, "voices": []}
        described.append({**empty, "segments": [], "words": []})
    (folder / "samples.json").write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n")
    if missing:
        raise SystemExit(f"not made: {', '.join(missing)}")


if __name__ == "__main__":
    main()

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


def candidates(wanted: Wanted, judge: Judge) -> Iterator[Sample]:
    """Yield renderings of `wanted`, the plainest first."""
    texts = [f"{text.strip()}." for text in wanted.text.split(".") if text.strip()]
    for attempt in range(100):
        random = np.random.default_rng((attempt, len(wanted.text), int(wanted.seconds)))
        voices = [TEST_VOICES[(attempt + i * 2) % len(TEST_VOICES)] for i in range(wanted.voices)]
        speed = _SPEEDS[attempt // len(TEST_VOICES) % len(_SPEEDS)]

        def spoken(text: str, voice: str, speed: int = speed) -> Speech:
            return speak(text, wanted.language, voice, speed=speed, lead=0, tail=0)

        if texts:
            speakers = [voices[i % len(voices)] for i in range(len(texts))]
            parts = [spoken(text, voice) for text, voice in zip(texts, speakers, strict=True)]
        else:
            parts, speakers = [], []
            while sum(part.duration + wanted.pause for part in parts) < wanted.seconds:
                voice = voices[len(parts) % len(voices)]
                part = spoken(_sentence(random, wanted.language), voice)
                if judge.reads(part, wanted.language):
                    parts.append(part)
                    speakers.append(voice)
        yield _composed(parts, speakers, wanted.pause)


def _composed(parts: list[Speech], speakers: list[str], pause: float) -> Sample:
    speech = join([silence(_LEAD), join(parts, pause), silence(0.5)])
    start, sentences = _LEAD, []
    for part, speaker in zip(parts, speakers, strict=True):
        times = {"start": round(start, 3), "end": round(start + part.duration, 3)}
        sentences.append({**times, "text": f"{part.text}.", "voice": speaker})
        start += part.duration + pause
    return Sample(speech, sentences, sorted(set(speakers)))


def _sentence(random: np.random.Generator, language: str) -> str:
    words = random.choice(WORDS[language], int(random.integers(3, 7)), replace=False)
    return f"{' '.join(words).capitalize()}."


class Judge:
    """Accepts a sample only if every way of decoding it gives the true text."""

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

    def accepts(self, sample: Sample, language: str) -> bool:
        """Return whether texts, language, segments and times are all right."""
        truth = " ".join(str(sentence["text"]) for sentence in sample.sentences)
        audio, random = sample.speech.audio, np.random.default_rng(1)
        hiss = noise(random, len(audio))
        trials: list[tuple[WhisperModel, Samples, dict[str, Any]]] = [
            (self._exact, audio, {}),
            (self._exact, audio, {"beam_size": 1}),
            (self._exact, audio, {"vad_filter": True}),
            (self._exact, audio, {"vad_filter": True, "beam_size": 1}),
            (self._exact, audio, {"language": language, "word_timestamps": True}),
            (self._float, audio, {}),
            (self._exact, audio * np.float32(0.4), {}),
            (self._exact, audio + hiss * np.float32(0.002), {"vad_filter": True}),
        ]
        for model, heard, options in trials:
            segments, info = model.transcribe(heard, **options)
            if "".join(s.text for s in segments).strip() != truth or info.language != language:
                return False
        return self._segments_right(sample) and self._others_right(sample, truth, language)

    def _segments_right(self, sample: Sample) -> bool:
        segments = list(self._exact.transcribe(sample.speech.audio, word_timestamps=True)[0])
        words = [word for segment in segments for word in segment.words or ()]
        if len(segments) != len(sample.sentences) or len(words) != len(sample.speech.words):
            return False
        errors = [abs(w.start - t.start) for w, t in zip(words, sample.speech.words, strict=True)]
        return float(np.median(errors)) < 0.06 and max(errors) < 0.25

    def _others_right(self, sample: Sample, truth: str, language: str) -> bool:
        batched = BatchedInferencePipeline(self._exact)
        segments, _ = batched.transcribe(sample.speech.audio, without_timestamps=True)
        if "".join(segment.text for segment in segments).strip() != truth:
            return False
        if language == "en":
            return True
        segments, _ = self._exact.transcribe(sample.speech.audio, task="translate")
        return "".join(segment.text for segment in segments).strip() == translate(truth, language)


def write_flac(path: Path, speech: Speech) -> None:
    """Write a FLAC file: 16 kHz, mono, 16 bits."""
    samples = (speech.audio.clip(-1, 1) * 32767).round().astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        for start in range(0, len(samples), 4096):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 4096], "s16", "mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _described(wanted: Wanted, sample: Sample) -> dict[str, object]:
    text = " ".join(str(sentence["text"]) for sentence in sample.sentences)
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
        for tried, sample in enumerate(candidates(wanted, judge), 1):
            if judge.accepts(sample, wanted.language):
                write = write_wav if wanted.file.endswith(".wav") else write_flac
                write(folder / wanted.file, sample.speech)
                described.append(_described(wanted, sample))
                print(f"{wanted.file}: {sample.voices}, candidate {tried}", flush=True)
                break
        else:
            missing.append(wanted.file)
            print(f"{wanted.file}: no candidate is right", flush=True)
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

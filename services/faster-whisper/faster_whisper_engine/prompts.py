"""How prompt, hotwords and the text so far share the decoder's room.

Rules: one half of the decoder's positions belongs to the text it is to write, as in OpenAI's own
program; what stands before the text shares the other half. Prompt and hotwords are each sure of
half of that, and of what the other leaves. The first of the hotwords stay, whole words, for the
whole recording; of the prompt, and of the text that takes its place, the newest. The library gives
a half to each of them, and fails where they are long together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from speech_service.contract.transcript import Options

if TYPE_CHECKING:
    import faster_whisper.tokenizer
    from faster_whisper import WhisperModel as _Base
    from tokenizers import Tokenizer
else:
    _Base = object

M = TypeVar("M", bound=_Base)


class Sized(Protocol):
    """A loaded model, as far as this module wants to know it."""

    max_length: int
    hf_tokenizer: Tokenizer


def room(max_length: int) -> int:
    """Return how many tokens of prompt and hotwords there may be in so many positions."""
    return max_length // 2 - 1


def shares(prompt: int, hotwords: int, limit: int) -> tuple[int, int]:
    """Return how many tokens of prompt and hotwords are kept, of so many of each."""
    kept = min(hotwords, max(limit // 2, limit - prompt))
    return min(prompt, limit - kept), kept


def fitted(options: Options, model: Sized) -> tuple[Options, tuple[str, ...]]:
    """Return the options with no more hotwords than fit, and warnings that say what is not heard.

    The prompt stays as it is: its end is what the decoder is given anyway.
    """
    limit = room(model.max_length)
    prompt = len(_spans(model, options.prompt))
    spans = _spans(model, options.hotwords)
    before, kept = shares(prompt, len(spans), limit)
    if (before, kept) == (prompt, len(spans)):
        return options, ()
    cuts = []
    if before < prompt:
        cuts.append(f"of the prompt only the last {before} of {prompt} tokens were used")
    if kept < len(spans):
        cuts.append(f"of the hotwords only the first {kept} of {len(spans)} tokens were used")
        options = replace(options, hotwords=_first(_spoken(options.hotwords), spans, kept))
    warning = f"prompt and hotwords have room for {limit} tokens: {', '.join(cuts)}"
    return options, (warning,)


def _spoken(text: str | None) -> str:
    """Return a text as the library encodes it."""
    return f" {text.strip()}" if text else ""


def _spans(model: Sized, text: str | None) -> list[tuple[int, int]]:
    """Return the first and last character of each token."""
    encoding = model.hf_tokenizer.encode(_spoken(text), add_special_tokens=False)
    return encoding.offsets


def _first(text: str, spans: Sequence[tuple[int, int]], count: int) -> str:
    """Return the beginning of a text that so many tokens hold, as a rule without half a word.

    Where words are not set apart there is no space near, and the end is that of a character.
    """
    end = spans[count][0]
    whole = text.rfind(" ", 0, end + 1)
    return text[: whole if whole > end // 2 else end]


class SharedRoom(_Base):
    """What is different in a model of the library: prompts that leave the text its half."""

    def get_prompt(
        self,
        tokenizer: faster_whisper.tokenizer.Tokenizer,
        previous_tokens: list[int],
        without_timestamps: bool = False,
        prefix: str | None = None,
        hotwords: str | None = None,
    ) -> list[int]:
        """Return the prompt of one window.

        Args:
            previous_tokens: of the prompt and the text so far; the newest that fit are taken.
            hotwords: as `fitted` leaves them.
        """
        taken = len(tokenizer.encode(_spoken(hotwords))) if hotwords else 0
        left = max(0, room(self.max_length) - taken)
        newest = previous_tokens[len(previous_tokens) - min(left, len(previous_tokens)) :]
        return super().get_prompt(tokenizer, newest, without_timestamps, prefix, hotwords)


def sharing(model: type[M]) -> type[M]:
    """Return a class of the library's models with prompts as they are here."""
    made: Any = type(model.__name__, (SharedRoom, model), {})
    return cast("type[M]", made)

"""torch, pyannote.audio and WhisperX: imported once, in one thread, and quiet.

They take seconds to import, so that happens while the service answers already. transformers, which
they need, breaks if two threads import from it at once: whoever needs any of them calls `imported`
first, and waits for whoever came before.

Nothing gives back what has been imported but the end of its process. So the libraries are claimed
like a model: the worker process in which nobody claims them any more takes no further work.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings

from . import trust

log = logging.getLogger(__name__)

POOL_NAME = ":libraries"
"""What they are called among the models in memory, where they are not listed."""

_LOUD = ("whisperx", "lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning")
"""Loggers that bring handlers of their own and tell of every step."""

_lock = threading.Lock()
_done = False


def imported(threads: int) -> None:
    """Import them all, or return at once if that is done.

    Args:
        threads: how many torch may use for one computation.
    """
    global _done
    with _lock:
        if _done:
            return
        started = time.monotonic()
        with warnings.catch_warnings():
            # torchcodec finds no FFmpeg: recordings are decoded before they get there.
            warnings.simplefilter("ignore")
            _import(threads)
        _quieten()
        _done = True
    seconds = round(time.monotonic() - started, 3)
    log.info("libraries imported", extra={"seconds": seconds})


def _import(threads: int) -> None:
    import torch
    import whisperx.alignment
    import whisperx.asr
    import whisperx.diarize  # noqa: F401

    trust.limit_pickles()
    torch.set_num_threads(threads)


def _quieten() -> None:
    for name in _LOUD:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    # Statistics over very short turns; the results are as good as they can be.
    warnings.filterwarnings("ignore", module=r"pyannote\.")

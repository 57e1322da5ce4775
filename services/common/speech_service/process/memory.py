"""Memory that is not used any more, handed back to the system."""

from __future__ import annotations

import ctypes
import gc
import logging

log = logging.getLogger(__name__)


def hand_back() -> None:
    """Collect what nobody refers to, and let the allocator keep none of it."""
    gc.collect()
    try:
        # glibc keeps freed arenas; without this the process stays as large as it ever was.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        log.debug("malloc_trim is not available")

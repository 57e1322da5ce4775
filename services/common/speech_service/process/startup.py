"""What comes before all imports of a service: how they are made, and what they may not do."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

NO_REPORTS = {"HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""The hub's library and ONNX Runtime tell their makers who uses them, unless told otherwise."""


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import without garbage collection, and forbid what is imported to report on its users.

    What imports make stays for good: looking for garbage among it takes a tenth of the start.
    """
    for name, value in NO_REPORTS.items():
        os.environ.setdefault(name, value)
    gc.disable()
    yield
    gc.freeze()
    gc.enable()

"""What makes a service start faster; imports nothing itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import without garbage collection.

    What imports make stays for good: looking for garbage among it takes a tenth of the start.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()

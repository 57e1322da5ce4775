"""Read by schemathesis: requests that look right are given some sense, so that routes get to work.

What it makes up is never a sound, nor the name of a language or a model.
"""

from __future__ import annotations

from typing import Any

import schemathesis

from . import media

SENSE: dict[str, Any] = {
    "file": media.tone(),
    "audio_file": media.tone(),
    "language": "en",
    "model": "whisper-1",
}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Mend the fields of a form."""
    return sensible(body)


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Mend the parameters of a query."""
    return sensible(query)


@schemathesis.hook
def map_path_parameters(context: Any, parameters: Any) -> Any:
    """Mend the name of the model that a path has."""
    return sensible(parameters)


def sensible(values: Any) -> Any:
    """Return the values with those replaced that would make sense only by luck."""
    if not isinstance(values, dict):
        return values
    return {name: SENSE.get(name, value) for name, value in values.items()}

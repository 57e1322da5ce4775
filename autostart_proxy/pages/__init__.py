"""The pages that the proxy shows in its own name, as templates; each is read when first needed."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


@cache
def template(name: str) -> Template:
    """Return a page of this folder."""
    return Template(files(__name__).joinpath(name).read_text("utf-8"))

"""The stages of an exchange, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Stage(Enum):
    """How far an exchange has come.

    Attributes:
        bit, follows: a stage may follow another if its `bit` is one of that other's `follows`; a
            set of enum members would cost a microsecond for every request.
    """

    HELD = "held"
    CONNECTING = "connecting"
    SENT = "sent"
    RESPONDING = "responding"
    TUNNEL = "tunnel"
    OVER = "over"

    bit: int
    follows: int


STAGES: Mapping[Stage, frozenset[Stage]] = MappingProxyType(
    {
        Stage.HELD: frozenset({Stage.CONNECTING, Stage.SENT, Stage.OVER}),
        Stage.CONNECTING: frozenset({Stage.SENT, Stage.HELD, Stage.OVER}),
        Stage.SENT: frozenset({Stage.RESPONDING, Stage.TUNNEL, Stage.CONNECTING, Stage.OVER}),
        Stage.RESPONDING: frozenset({Stage.OVER}),
        Stage.TUNNEL: frozenset({Stage.OVER}),
        Stage.OVER: frozenset(),
    }
)
"""Every legal move from one stage to the next."""

for _at, _stage in enumerate(Stage):
    _stage.bit = 1 << _at
for _stage, _next in STAGES.items():
    _stage.follows = sum(each.bit for each in _next)

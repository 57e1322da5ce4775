"""The stages of an exchange."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autostart_proxy.relay.exchange import Exchange
from autostart_proxy.relay.stages import STAGES, Stage
from autostart_proxy.wire.requests import RequestReader


def test_the_bits_say_what_the_table_says() -> None:
    for stage in Stage:
        assert {each for each in Stage if stage.follows & each.bit} == STAGES[stage]


def test_nothing_follows_the_end_and_everything_leads_there() -> None:
    assert STAGES[Stage.OVER] == frozenset()
    assert all(Stage.OVER in STAGES[stage] for stage in Stage if stage is not Stage.OVER)


@pytest.mark.parametrize("old", list(Stage))
def test_an_exchange_asks_the_table(old: Stage) -> None:
    nobody: Any = SimpleNamespace(host="-")
    reader = RequestReader(peer=b"", trusted=False)
    for new in Stage:
        exchange = Exchange(nobody, reader.salvage(b"GET "), nobody, b"id", 0.0, 0.0)
        exchange.stage = old
        if new in STAGES[old]:
            exchange._move(new)
            assert exchange.stage is new
        else:
            with pytest.raises(RuntimeError, match=f"{old.value} -> {new.value}"):
                exchange._move(new)
            assert exchange.stage is old

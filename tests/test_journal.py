"""Facts, and those who are told of them."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

import pytest

from autostart_proxy import journal as journal_module
from autostart_proxy.journal import ConfigApplied, Fact, Journal, ServiceMoved

MOVED = ServiceMoved("a.example", "stopped", "starting", because="a request")


def test_every_subscriber_is_told_every_fact_in_order() -> None:
    journal = Journal()
    told: list[tuple[str, Fact]] = []
    journal.record(ConfigApplied(0))
    journal.subscribe(lambda fact: told.append(("first", fact)))
    journal.subscribe(lambda fact: told.append(("second", fact)))
    journal.record(MOVED)
    journal.record(ConfigApplied(2))
    assert told == [
        ("first", MOVED),
        ("second", MOVED),
        ("first", ConfigApplied(2)),
        ("second", ConfigApplied(2)),
    ]


def test_a_subscriber_that_fails_is_logged_and_told_the_next_fact_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal()
    told: list[Fact] = []
    failures = 0

    def broken(fact: Fact) -> None:
        nonlocal failures
        failures += 1
        raise RuntimeError("a defect")

    journal.subscribe(broken)
    journal.subscribe(told.append)
    journal.record(MOVED)
    journal.record(MOVED)
    assert told == [MOVED, MOVED] and failures == 2
    assert [record.message for record in caplog.records] == ["subscriber failed"] * 2
    assert vars(caplog.records[0])["fact"] == "ServiceMoved"


@pytest.mark.parametrize("kind", typing.get_args(Fact), ids=lambda kind: kind.__name__)
def test_a_fact_cannot_be_changed(kind: Any) -> None:
    names = [*inspect.signature(kind).parameters]
    fact: object = kind(*range(len(names)))
    for name in names:
        with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
            setattr(fact, name, "something else")
    assert kind.__doc__ and kind.__module__ == journal_module.__name__

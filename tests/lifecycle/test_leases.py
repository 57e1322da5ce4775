"""The books on who waits and who is served."""

from __future__ import annotations

import pytest

from autostart_proxy import errors
from autostart_proxy.lifecycle.events import Admit, Refuse
from autostart_proxy.lifecycle.leases import IllegalEvent, Leases


def holding(*names: str) -> Leases[str]:
    leases: Leases[str] = Leases()
    for at, name in enumerate(names):
        leases.hold(name, f"request {name}", float(at))
    return leases


def test_the_first_who_waits_is_the_cause() -> None:
    assert holding("a", "b").cause == "request a"
    leases = holding("a")
    leases.depart("a")
    leases.hold("c", "request c", 5.0)
    assert leases.cause == "request c"


def test_all_are_admitted_in_the_order_of_their_arrival() -> None:
    leases = holding("a", "b")
    assert leases.admit_all() == [Admit("a"), Admit("b")]
    assert (leases.held, leases.flowing) == ({}, {"a": 0.0, "b": 1.0})
    assert leases.admit_all() == []


def test_who_is_refused_is_forgotten() -> None:
    leases, reason = holding("a", "b", "c"), errors.ShuttingDown()
    assert leases.refuse("b", reason) == Refuse("b", reason)
    assert leases.refuse_all(reason) == [Refuse("a", reason), Refuse("c", reason)]
    assert leases.held == {}


def test_who_returns_keeps_its_time_and_is_the_cause() -> None:
    leases = holding("a")
    leases.admit_all()
    leases.give_back("a")
    assert (leases.held, leases.flowing) == ({"a": 0.0}, {})
    assert "nobody listening" in leases.cause


def test_whoever_departs_is_known_and_departs_once() -> None:
    leases = holding("a", "b")
    assert leases.depart("a") is False, "it did not flow"
    leases.admit_all()
    assert leases.depart("b") is True
    for lease in ("a", "b", "stranger"):
        with pytest.raises(IllegalEvent):
            leases.depart(lease)


def test_nobody_arrives_twice_or_returns_without_having_been_admitted() -> None:
    leases = holding("a")
    with pytest.raises(IllegalEvent):
        leases.check_new("a")
    with pytest.raises(IllegalEvent):
        leases.give_back("a")
    leases.admit_all()
    with pytest.raises(IllegalEvent):
        leases.check_new("a")
    leases.check_new("b")

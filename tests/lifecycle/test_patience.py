"""How long a start may take, and how long those who want it wait."""

from __future__ import annotations

from autostart_proxy.lifecycle.events import Policy
from autostart_proxy.lifecycle.patience import (
    LONGEST_OWN_GRACE_SECONDS,
    STOP_MARGIN_SECONDS,
    Patience,
    stop_deadline,
)

POLICY = Policy(start_timeout=30, prepare_timeout=100)


def launched(at: float) -> Patience:
    patience = Patience(0.0)
    patience.launched_at = at
    return patience


def test_a_preparation_has_its_own_time_before_the_first_container_starts() -> None:
    assert Patience(5.0).deadline(POLICY) == 135.0
    assert Patience(5.0).due({}, POLICY) == 135.0


def test_from_the_first_container_on_a_start_may_take_as_long_as_a_preparation() -> None:
    assert launched(10.0).deadline(POLICY) == 110.0
    patient = Policy(start_timeout=300, prepare_timeout=100)
    assert launched(10.0).deadline(patient) == 310.0, "and never less than a request waits"


def test_a_request_waits_from_its_arrival_or_from_the_first_container() -> None:
    held = {"early": 2.0, "late": 20.0}
    assert Patience(5.0).hold_deadlines(held, POLICY) == {"early": 35.0, "late": 50.0}
    assert launched(10.0).hold_deadlines(held, POLICY) == {"early": 40.0, "late": 50.0}
    assert launched(10.0).due(held, POLICY) == 40.0


def test_it_wears_out_once() -> None:
    patience = launched(10.0)
    assert patience.due({}, POLICY) == 40.0
    assert not patience.wears_out(39.9, POLICY)
    assert patience.wears_out(40.0, POLICY)
    assert not patience.wears_out(41.0, POLICY)
    assert patience.due({}, POLICY) == 110.0
    assert not Patience(0.0).wears_out(1e9, POLICY), "nothing runs yet"


def test_a_stop_is_given_up_some_time_after_its_grace_period() -> None:
    assert stop_deadline(1.0, Policy(stop_timeout=10)) == 11.0 + STOP_MARGIN_SECONDS
    own = 1.0 + LONGEST_OWN_GRACE_SECONDS + STOP_MARGIN_SECONDS
    assert stop_deadline(1.0, Policy(stop_timeout=None)) == own

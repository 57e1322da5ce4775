"""Random schedules against a lifecycle and a backend that is as slow and as broken as can be."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autostart_proxy import errors
from autostart_proxy.backends import Exit
from autostart_proxy.lifecycle.backoff import TROUBLES_PER_WINDOW, WINDOW_SECONDS
from autostart_proxy.lifecycle.events import (
    MOVES,
    Abandon,
    Admit,
    Adopt,
    Arrived,
    Closed,
    Cut,
    Departed,
    Disowned,
    Effect,
    Event,
    Explain,
    FoundFailing,
    FoundRunning,
    FoundStopped,
    Launched,
    Moved,
    Policy,
    PutToSleep,
    Reconfigured,
    Refuse,
    Returned,
    StartBackend,
    Started,
    StartFailed,
    State,
    StopBackend,
    StopFailed,
    Stopped,
    StopUnheard,
    Tick,
    Woken,
)
from autostart_proxy.lifecycle.machine import Lifecycle

POLICIES = st.builds(
    Policy,
    start_timeout=st.sampled_from([1.0, 30.0]),
    prepare_timeout=st.sampled_from([1.0, 100.0]),
    idle_timeout=st.sampled_from([None, 0.5, 20.0]),
    stop_timeout=st.sampled_from([0.0, 10.0]),
    drain_timeout=st.sampled_from([0.0, 5.0]),
    max_held=st.sampled_from([2, 1000]),
)
CARRIES_A_DEADLINE = {State.ADOPTING, State.STARTING, State.DRAINING, State.STOPPING, State.FAILED}
EXITED = errors.ContainerExited()
BROKEN = errors.StopFailed()
NO_DOCKER = errors.DockerUnavailable()


class World(RuleBasedStateMachine):
    """Clients, operators, a clock and a backend, each doing what it likes.

    Keeps its own books of what every lease is owed, from the effects alone, and compares.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.life: Lifecycle[int] = Lifecycle(Policy(), self.now)
        self.leases = 0
        self.waiting: set[int] = set()
        self.flowing: set[int] = set()
        self.operation: StartBackend | StopBackend | Adopt | None = None
        self.launched = False
        self.left = False
        self.closed = False
        self.troubles: list[float] = []

    def tell(self, event: Event[int]) -> list[Effect[int]]:
        before = self.life.state
        effects = self.life.handle(event, self.now)
        for effect in effects:
            match effect:
                case Admit(lease):
                    assert self.life.state in (State.READY, State.DRAINING)
                    self.waiting.remove(lease)
                    self.flowing.add(lease)
                case Refuse(lease, _):
                    self.waiting.remove(lease)
                case Cut(lease):
                    assert lease in self.flowing
                case StartBackend():
                    self.left = False
                    recent = [t for t in self.troubles if self.now - t < WINDOW_SECONDS]
                    assert len(recent) < TROUBLES_PER_WINDOW, "a crash loop must back off"
                    self.operation = effect
                    self.launched = False
                case StopBackend():
                    assert not self.flowing or before is not State.READY, "stopped while in use"
                    self.operation = effect
                case Adopt():
                    assert self.operation is None, "an adoption supersedes nothing"
                    self.operation = effect
                case Explain():
                    assert self.launched and before is State.STARTING
                case Abandon():
                    assert isinstance(self.operation, StopBackend | Adopt)
                    self.operation = None
                case Moved(old, new):
                    assert old is before and new in MOVES[old], f"{old} -> {new}"
                    before = new
        assert before is self.life.state, "every move is announced"
        return effects

    @rule(by=st.sampled_from([0.001, 0.5, 2.0, 25.0, 200.0]))
    def time_passes_and_the_timer_is_late_or_not(self, by: float) -> None:
        self.now += by
        self.tell(Tick())

    @rule()
    def the_timer_fires_exactly_at_the_deadline(self) -> None:
        deadline = self.life.deadline
        if deadline is not None:
            self.now = max(self.now, deadline)
            assert self.tell(Tick()), "a deadline must do something"

    @rule(asks_first=st.booleans())
    def a_request_arrives(self, asks_first: bool) -> None:
        self.leases += 1
        if asks_first and self.life.admit(self.leases, self.now):
            assert self.life.state is State.READY and not self.closed
            self.flowing.add(self.leases)
            return
        self.waiting.add(self.leases)
        self.tell(Arrived(self.leases))

    @precondition(lambda self: self.waiting or self.flowing)
    @rule(data=st.data(), tries_first=st.booleans())
    def a_request_ends_or_its_client_leaves(self, data: st.DataObject, tries_first: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.waiting | self.flowing)))
        flowed = lease in self.flowing
        self.waiting.discard(lease)
        self.flowing.discard(lease)
        if tries_first and self.life.release(lease, self.now):
            assert flowed and self.life.state is State.READY
        else:
            self.tell(Departed(lease))

    @precondition(lambda self: self.flowing)
    @rule(data=st.data())
    def an_admitted_request_finds_nobody_listening(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.flowing)))
        self.flowing.remove(lease)
        self.waiting.add(lease)
        self.tell(Returned(lease))

    @rule(by_operator=st.booleans())
    def somebody_wakes_it(self, by_operator: bool) -> None:
        if by_operator:
            self.troubles.clear()
        self.tell(Woken(by_operator))

    @rule()
    def an_operator_puts_it_to_sleep(self) -> None:
        if self.life.state is State.FAILED:
            self.troubles.clear()
        self.tell(PutToSleep())

    @precondition(lambda self: self.life.state is State.STARTING and self.operation)
    @rule()
    def the_first_container_starts(self) -> None:
        self.launched = True
        self.tell(Launched())

    @precondition(lambda self: isinstance(self.operation, Adopt) and not self.closed)
    @rule()
    def what_is_being_adopted_answers(self) -> None:
        self.operation = None
        self.tell(Started())

    @precondition(lambda self: self.operation == StartBackend() and not self.closed)
    @rule()
    def the_start_succeeds(self) -> None:
        self.operation = None
        self.tell(Started())

    @precondition(lambda self: self.operation == StartBackend() and not self.closed)
    @rule(reason=st.sampled_from([EXITED, NO_DOCKER]))
    def the_start_fails(self, reason: errors.StartError) -> None:
        self.operation = None
        self.troubles.append(self.now)
        self.tell(StartFailed(reason))

    @precondition(lambda self: isinstance(self.operation, Adopt) and not self.closed)
    @rule()
    def somebody_else_answers(self) -> None:
        self.operation = None
        self.troubles.append(self.now)
        self.tell(Disowned(errors.PortInUse()))

    @precondition(lambda self: self.operation == StopBackend() and not self.closed)
    @rule(
        end=st.sampled_from(
            [Stopped(), Stopped((Exit("db", 137),)), StopFailed(BROKEN), StopUnheard(NO_DOCKER)]
        )
    )
    def the_stop_ends(self, end: Event[int]) -> None:
        self.operation = None
        self.left = False
        self.tell(end)

    @rule(has_healthcheck=st.booleans())
    def it_is_seen_running(self, has_healthcheck: bool) -> None:
        self.left = False
        self.tell(FoundRunning(has_healthcheck))

    @rule(
        exit=st.sampled_from([None, Exit("web", 0), Exit("web", 3), Exit("web", 137, True)]),
        remains=st.booleans(),
    )
    def it_is_seen_stopped(self, exit: Exit | None, remains: bool) -> None:
        crash = exit is not None and exit.code != 0
        match self.life.state:
            case State.READY | State.ADOPTING if crash:
                self.troubles.append(self.now)
            case State.STARTING if exit is not None and self.launched:
                self.troubles.append(self.now)
            case _:
                pass
        self.left = remains  # until a start that follows at once takes it over
        self.tell(FoundStopped(exit, remains))

    @rule()
    def it_is_seen_failing(self) -> None:
        self.tell(FoundFailing())

    @rule(policy=POLICIES)
    def the_configuration_changes(self, policy: Policy) -> None:
        self.tell(Reconfigured(policy))

    @precondition(lambda self: self.leases > 8)
    @rule()
    def the_proxy_shuts_down(self) -> None:
        self.closed = True
        self.tell(Closed(errors.ShuttingDown()))

    @invariant()
    def the_books_agree(self) -> None:
        assert self.waiting == set(self.life.held)
        assert self.flowing == set(self.life.flowing)

    @invariant()
    def nobody_waits_without_an_end_in_sight(self) -> None:
        if self.waiting:
            assert self.life.state in (
                *(State.ADOPTING, State.STARTING),
                *(State.DRAINING, State.STOPPING),
            )
            assert self.life.deadline is not None

    @invariant()
    def these_states_always_carry_a_deadline(self) -> None:
        if self.life.state in CARRIES_A_DEADLINE and not self.closed:
            assert self.life.deadline is not None

    @invariant()
    def what_is_left_running_is_stopped_some_day(self) -> None:
        asleep = self.life.state in (State.STOPPED, State.FAILED)
        if asleep and self.left and self.life.policy.idle_timeout is not None and not self.closed:
            assert self.life.deadline is not None

    @invariant()
    def an_operation_runs_exactly_in_the_states_that_are_one(self) -> None:
        if self.closed:
            return
        match self.life.state:
            case State.STARTING:
                assert self.operation == StartBackend()
            case State.STOPPING:
                assert self.operation == StopBackend()
            case State.ADOPTING:
                assert isinstance(self.operation, Adopt)
            case _:
                assert self.operation is None


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=250 if os.environ.get("CI") else 60,
    stateful_step_count=60,
    deadline=None,
)

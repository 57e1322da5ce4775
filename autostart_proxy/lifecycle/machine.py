"""When to start, hold, admit, drain and stop one service: a pure state machine.

`Lifecycle.handle(event, now)` takes a fact and returns orders; `deadline` says when it wants a
`Tick` at the latest. It has no clock, no I/O and no locks, and these rules:

- A lease lives here from `Arrived` until it is refused or `Departed`, and nowhere else. "Idle"
  is decided in the same step that would admit a request, so the two can never cross.
- After every event one function (`_settle`) follows the state until nothing changes, so that no
  path can forget a waiting lease.
- adopting, starting, draining, stopping and failed always carry a deadline.
- What is found running is adopted once it answers, and requests wait for that. Where it takes
  `start_timeout`, those that still wait get a start of their own; what nobody waits for is taken
  over all the same, since it has to be put to sleep some day.
- A request that arrives while the service drains or stops waits and starts it again.
- A failed start passes through stopping: nothing half-started is left running. What is left of a
  service that ended by itself, or by hand, is stopped as well, after a while (`remains`).
- Requests give up before a start does (`patience`), unless its own healthcheck has failed.
- A stop that reached nobody has stopped nothing: the service is used on and stopped later.
- `StartBackend`, `StopBackend` and `Adopt` supersede each other: who carries them out ends the one
  before it begins the other, and reports nothing of an operation that was ended.
- An exit counts against a start only once its first container has been launched: what ended before
  that belongs to an earlier run.
- The idle clock starts at the end of the last lease.
- An event that cannot happen raises `IllegalEvent`, a move that is not in the table `IllegalMove`.
"""

from __future__ import annotations

from typing import Generic, assert_never

from autostart_proxy import errors
from autostart_proxy.lifecycle import events
from autostart_proxy.lifecycle.backoff import Backoff
from autostart_proxy.lifecycle.events import MOVES, Effect, Event, L, Policy, State
from autostart_proxy.lifecycle.exits import Exit, crashed
from autostart_proxy.lifecycle.leases import IllegalEvent, Leases
from autostart_proxy.lifecycle.patience import (
    FAILURE_SHOWN_SECONDS,
    STOP_AGAIN_SECONDS,
    Patience,
    stop_deadline,
)
from autostart_proxy.lifecycle.remains import Remains

_OPERATOR = "an operator"


class Lifecycle(Generic[L]):
    """One service's state, its held and flowing leases, and its clocks.

    All times are seconds of one monotonic clock.

    Attributes:
        state: what the service is doing, since `since`.
        held: waiting leases and when each arrived, oldest first.
        flowing: admitted leases and when each arrived.
        failure: why the last start or stop did not succeed; None once one does.
        killed: what the last stop had to kill.
        awake_because: who asked for the present or last start.
        backoff: when the next start may be tried.
        last_start_seconds: from the order to start until `Started`, of the last good start.
    """

    def __init__(self, policy: Policy, now: float) -> None:
        self.policy = policy
        self.state = State.STOPPED
        self.since = now
        self._leases: Leases[L] = Leases()
        self.held = self._leases.held
        self.flowing = self._leases.flowing
        self.failure: errors.OperationError | None = None
        self.killed: tuple[Exit, ...] = ()
        self.awake_because = ""
        self.last_start_seconds: float | None = None
        self._idle_since = now
        self._patience = Patience(now)
        self._failing = False
        self._remains = Remains()
        self._tidying = False
        self._wanted = False
        self._sleep_after_serving = False
        self._closed: errors.ProxyError | None = None
        self.backoff = Backoff()
        self._effects: list[Effect[L]] = []

    def __repr__(self) -> str:
        return (
            f"<Lifecycle {self.state.value} since {self.since:.3f} "
            f"held={len(self.held)} flowing={len(self.flowing)}>"
        )

    @property
    def deadline(self) -> float | None:
        """When a `Tick` is due at the latest; None while only other events can change anything."""
        if self._closed is not None:
            return None
        match self.state:
            case State.STOPPED:
                return self._tidy_deadline
            case State.ADOPTING:
                return self.since + self.policy.start_timeout
            case State.STARTING:
                return self._patience.due(self.held, self.policy)
            case State.READY:
                return self.idle_deadline
            case State.DRAINING:
                return self.since + self.policy.drain_timeout
            case State.STOPPING:
                return stop_deadline(self.since, self.policy)
            case State.FAILED:
                shown = max(self.since + FAILURE_SHOWN_SECONDS, self.backoff.due_at)
                return shown if self._tidy_deadline is None else min(shown, self._tidy_deadline)
            case _:
                assert_never(self.state)

    @property
    def idle_deadline(self) -> float | None:
        """When a ready service goes to sleep; None while it is in use or never sleeps."""
        if self.flowing or self.state is not State.READY or self.policy.idle_timeout is None:
            return None
        deadline = self._idle_since + self.policy.idle_timeout
        return deadline if self.failure is None else max(deadline, self.since + STOP_AGAIN_SECONDS)

    def refusal(self, now: float) -> errors.OperationError | None:
        """Why nobody can have the service started now; None where it can be tried."""
        if self.state not in (State.STOPPED, State.FAILED) or now >= self.backoff.due_at:
            return None
        return self.failure or self.backoff.reason

    def handle(self, event: Event[L], now: float) -> list[Effect[L]]:
        """Take in a fact and say what is to be done, in order.

        Args:
            event: what happened.
            now: when; never before an earlier call's.
        Raises:
            IllegalEvent: it cannot have happened; nothing was changed.
        """
        effects = self._effects = []
        match event:
            case events.Arrived(lease, cause):
                self._arrive(lease, cause, now)
            case events.Departed(lease):
                self._depart(lease, now)
            case events.Returned(lease):
                self._return(lease, now)
            case events.Woken(by_operator, cause):
                self._wake(by_operator, cause, now)
            case events.PutToSleep():
                self._put_to_sleep(now)
            case events.Launched():
                self._demand(event, State.STARTING)
                self._patience.launched_at = now
            case events.Started():
                self._demand(event, State.STARTING, State.ADOPTING)
                if self.state is State.STARTING:
                    self.last_start_seconds = now - self.since
                self._become_ready(now, self.failure)
            case events.StartFailed(reason):
                self._demand(event, State.STARTING)
                self._fail_start(reason, now)
            case events.Disowned(reason):
                self._demand(event, State.ADOPTING)
                self._disown(reason, now)
            case events.Stopped(killed):
                self._demand(event, State.STOPPING)
                self.killed = killed
                self._remains.forget()
                self._move(State.FAILED if self.failure else State.STOPPED, now)
            case events.StopFailed(reason):
                self._demand(event, State.STOPPING)
                self._fail_stop(reason, now)
            case events.StopUnheard(reason):
                self._demand(event, State.STOPPING)
                self._stay_awake(reason, now)
            case events.FoundRunning(has_healthcheck):
                if self.state in (State.STOPPED, State.FAILED):
                    self._adopt(has_healthcheck, now)
            case events.FoundStopped(exit, remains):
                self._lose(exit, remains, now)
            case events.FoundFailing():
                self._failing = True
                if self.state is State.STARTING and self._patience.worn:
                    self._fail_start(errors.Unhealthy(), now)
            case events.Reconfigured(policy):
                self.policy = policy
            case events.Closed(reason):
                self._closed = reason
            case events.Tick():
                self._tick(now)
            case _:
                assert_never(event)
        self._settle(now)
        return effects

    def admit(self, lease: L, now: float) -> bool:
        """Take in a lease that may flow at once; False if it may not, and `Arrived` has to be told.

        The same as `Arrived` and `Admit`, for the many requests of a service that is awake.

        Raises:
            IllegalEvent: it has arrived before.
        """
        self._leases.check_new(lease)
        if self.state is not State.READY or self._closed is not None:
            return False
        self.flowing[lease] = now
        return True

    def release(self, lease: L, now: float) -> bool:
        """End a lease that flowed; False if more comes of it, and `Departed` has to be told."""
        if self.state is not State.READY or lease not in self.flowing:
            return False
        del self.flowing[lease]
        self._idle_since = now
        return True

    def _demand(self, event: Event[L], *states: State) -> None:
        if self.state not in states:
            raise IllegalEvent(f"{type(event).__name__} while {self.state.value}")

    # Facts about leases.

    def _arrive(self, lease: L, cause: str, now: float) -> None:
        if self.admit(lease, now):
            self._effects.append(events.Admit(lease))
        elif len(self.held) >= self.policy.max_held:
            self._effects.append(events.Refuse(lease, errors.TooManyHeld()))
        else:
            self._leases.hold(lease, cause, now)

    def _depart(self, lease: L, now: float) -> None:
        if self._leases.depart(lease):
            self._idle_since = now

    def _return(self, lease: L, now: float) -> None:
        self._leases.give_back(lease)
        if self.state is State.READY and self._closed is None:
            self._start(now)

    # Facts about the service.

    def _wake(self, by_operator: bool, cause: str, now: float) -> None:
        if by_operator:
            self.backoff.forget()
        self._sleep_after_serving = False
        match self.state:
            case State.READY:
                self._idle_since = now
            case State.DRAINING:
                self._become_ready(now)
            case State.STOPPED | State.FAILED if now < self.backoff.due_at:
                pass
            case State.ADOPTING:
                self._wanted = True
            case _:
                self._wanted = True
                self.awake_because = _OPERATOR if by_operator else cause

    def _put_to_sleep(self, now: float) -> None:
        self._wanted = False
        match self.state:
            case State.READY:
                self._move(State.DRAINING, now, _OPERATOR)
            case State.STARTING | State.ADOPTING if self.held:
                self._sleep_after_serving = True
            case State.STARTING | State.ADOPTING:
                self._stop(now, _OPERATOR)
            case State.FAILED:  # whatever had failed: something may still run
                self.failure = None
                self.backoff.forget()
                self._tidy(now, _OPERATOR)
            case State.STOPPED if self._remains:
                self._tidy(now, _OPERATOR)
            case _:
                pass

    def _adopt(self, has_healthcheck: bool, now: float) -> None:
        """Wait for what runs to answer; that a stop was refused stays worth telling."""
        self.awake_because = "somebody else"
        if not isinstance(self.failure, errors.StopFailed):
            self.failure = None
        self._remains.forget()
        self._move(State.ADOPTING, now)
        self._effects.append(events.Adopt(has_healthcheck))

    def _lose(self, exit: Exit | None, remains: bool, now: float) -> None:
        """A stop by hand leads to stopped, a crash to failed, so that crash loops back off."""
        self._remains.see(remains, now)  # also meanwhile, in case a stop that follows fails
        match self.state:
            case State.STARTING:
                if exit is not None and self._patience.launched_at is not None:
                    self._fail_start(errors.ContainerExited(detail=str(exit)), now)
                return
            case State.STOPPING:
                return
            case State.DRAINING if remains:
                self._stop(now, "ended while it was put to sleep")
                return
            case State.ADOPTING:
                self._effects.append(events.Abandon())
        if self.state in (State.ADOPTING, State.READY) and crashed(exit):
            detail = f"while {self.state.value}: {exit}"
            self.failure = errors.ContainerExited("The service ended by itself.", detail=detail)
            self.backoff.note(self.failure, now)
            self._move(State.FAILED, now, "ended by itself")
        elif self.state in (State.ADOPTING, State.READY, State.DRAINING):
            self.failure = None
            self._move(State.STOPPED, now, "stopped by somebody else")

    def _tick(self, now: float) -> None:
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        match self.state:
            case State.ADOPTING if self.held or self._wanted:
                self._start(now)
            case State.ADOPTING:
                self._effects.append(events.Abandon())
                self._become_ready(now, self.failure)
            case State.STARTING if now >= self._patience.deadline(self.policy):
                self._fail_start(self._patience.too_late, now)
            case State.STARTING:
                self._lose_patience(now)
            case State.READY:
                self._move(State.DRAINING, now, "idle")
            case State.DRAINING:
                self._effects.extend(events.Cut(lease) for lease in self.flowing)
                self._stop(now, "the drain time is over")
            case State.STOPPING:
                self._effects.append(events.Abandon())
                self._fail_stop(errors.StopFailed(detail="it did not end in time"), now)
            case _ if self._tidy_deadline is not None and now >= self._tidy_deadline:
                self._tidy(now, "parts of it were left running")
            case _:  # failed: what is stopped has no other deadline
                self._move(State.STOPPED, now)

    def _lose_patience(self, now: float) -> None:
        """Answer those who have waited long enough; the start goes on, unless it has failed."""
        patience = self._patience
        worn = patience.wears_out(now, self.policy)
        if worn and self._failing:
            self._fail_start(errors.Unhealthy(), now)
            return
        prepared = patience.launched_at is not None
        doing = "has not answered yet, and goes on starting" if prepared else "being prepared still"
        expired = errors.HoldExpired(detail=doing)
        for lease, expires in patience.hold_deadlines(self.held, self.policy).items():
            if now >= expires:
                self._effects.append(self._leases.refuse(lease, expired))
        if worn:
            self._effects.append(events.Explain(expired))

    # Moves.

    def _settle(self, now: float) -> None:
        """Follow state-triggered moves until nothing changes; never ask how we got here."""
        if self._closed is not None:
            self._effects.extend(self._leases.refuse_all(self._closed))
            return
        if self.state is State.READY and not self.held and not self._sleep_after_serving:
            return  # as below, but this is where a busy service always is
        while True:
            before = self.state
            match self.state:
                case State.STOPPED | State.FAILED if self.held or self._wanted:
                    if refusal := self.refusal(now):
                        self._effects.extend(self._leases.refuse_all(refusal))
                    else:
                        self._start(now)
                case State.STOPPING if self.held and self.failure and not self._tidying:
                    self._effects.extend(self._leases.refuse_all(self.failure))
                case State.READY if self._sleep_after_serving:
                    self._effects.extend(self._leases.admit_all())
                    self._move(State.DRAINING, now, _OPERATOR)
                case State.READY if self.held:
                    self._effects.extend(self._leases.admit_all())
                case State.DRAINING if not self.flowing:
                    self._stop(now, "nothing is open any more")
            if self.state is before:
                return

    def _start(self, now: float) -> None:
        self.failure = None
        self._failing = False
        self._remains.forget()
        self._patience = Patience(now)
        if self.held:
            self.awake_because = self._leases.cause
        self._move(State.STARTING, now, self.awake_because)
        self._effects.append(events.StartBackend())

    def _stop(self, now: float, because: str) -> None:
        self._tidying = False
        self._move(State.STOPPING, now, because)
        self._effects.append(events.StopBackend())

    def _tidy(self, now: float, because: str) -> None:
        """Stop what is left of a service that is not awake; who comes meanwhile is served after."""
        self._stop(now, because)
        self._tidying = True

    def _become_ready(self, now: float, failure: errors.OperationError | None = None) -> None:
        self.failure = failure
        self._wanted = False
        self._idle_since = now
        self._move(State.READY, now)

    def _fail_start(self, reason: errors.OperationError, now: float) -> None:
        self._refuse_for_now(reason, now)
        self._stop(now, "the start failed")

    def _disown(self, reason: errors.OperationError, now: float) -> None:
        """What was found running is left alone: it is not what answers, and nobody asked for it."""
        self._refuse_for_now(reason, now)
        self._move(State.FAILED, now, "somebody else answers")

    def _refuse_for_now(self, reason: errors.OperationError, now: float) -> None:
        self.failure = reason
        self._wanted = self._sleep_after_serving = False
        self.backoff.note(reason, now)
        self._effects.extend(self._leases.refuse_all(reason))

    def _fail_stop(self, reason: errors.OperationError, now: float) -> None:
        self.failure = self.failure or reason
        self._move(State.FAILED, now)

    def _stay_awake(self, reason: errors.OperationError, now: float) -> None:
        """Refuse nobody what still runs; but what was not awake has not become so by it."""
        if self.failure is not None or self._tidying:
            self._fail_stop(reason, now)
        else:
            self._become_ready(now, failure=reason)

    def _move(self, new: State, now: float, because: str = "") -> None:
        old = self.state
        if new not in MOVES[old]:
            raise events.IllegalMove(f"{old.value} -> {new.value}")
        self.state, self.since = new, now
        if new is State.DRAINING:
            self._sleep_after_serving = False
            self.failure = None
        self._effects.append(events.Moved(old, new, because))

    # Clocks.

    @property
    def _tidy_deadline(self) -> float | None:
        failed = self.state is State.FAILED
        return self._remains.deadline(self.policy.idle_timeout, failed=failed)

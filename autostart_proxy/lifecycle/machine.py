"""When to start, hold, admit, drain and stop one service: a pure state machine.

`Lifecycle.handle(event, now)` takes a fact and returns orders; `deadline` says when it wants a
`Tick` at the latest. It has no clock, no I/O and no locks, and these rules:

- A lease lives here from `Arrived` until it is refused or `Departed`, and nowhere else. "Idle"
  is decided in the same step that would admit a request, so the two can never cross.
- After every event one function (`_settle`) follows the state until nothing changes. Waiting
  leases are answered there and only there, so no path can forget one.
- adopting, starting, draining, stopping and failed always carry a deadline.
- What is found running is adopted once it answers, and requests wait for that. Where it takes
  `start_timeout`, those that still wait get a start of their own; what nobody waits for is taken
  over all the same, since it has to be put to sleep some day.
- A request that arrives while the service drains or stops waits and starts it again.
- A failed start passes through stopping: nothing half-started is left running.
- A stop that reached nobody has stopped nothing: the service is used on and stopped later.
- `StartBackend`, `StopBackend` and `Adopt` supersede each other: who carries them out ends the one
  before it begins the other, and reports nothing of an operation that was ended.
- An exit counts against a start only once its first container has been launched: what ended before
  that belongs to an earlier run.
- The idle clock starts at the end of the last lease.
- An event that cannot happen in a state raises `IllegalEvent` and changes nothing. A move that is
  not in the table raises `IllegalMove`.
"""

from __future__ import annotations

from typing import Generic, assert_never

from autostart_proxy import errors
from autostart_proxy.lifecycle import events
from autostart_proxy.lifecycle.backoff import Backoff
from autostart_proxy.lifecycle.events import MOVES, Effect, Event, Exit, L, Policy, State

STOP_MARGIN_SECONDS = 60.0
"""How much longer than `stop_timeout` a stop may take: parts are stopped one after another."""

LONGEST_OWN_GRACE_SECONDS = 900.0
"""How long the grace period may be that a part has by itself."""

STOP_AGAIN_SECONDS = 5.0
"""How soon after a stop that reached nobody the next is tried, however short `idle_timeout` is."""

FAILURE_SHOWN_SECONDS = 60.0
"""How long a failed service stays `failed` when nobody asks for it again."""


ASKED_TO_END = frozenset({0, 130, 137, 143})
"""Exit codes of a program that was told to end: 0, or 128 + SIGINT, SIGKILL, SIGTERM."""


class IllegalEvent(Exception):
    """An event that cannot happen now: a bug in the caller, never a client's fault."""


class IllegalMove(Exception):
    """A move that is not in the table: a bug in the machine."""


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
        last_start_seconds: from the order to start until `Started`, of the last good start.
    """

    def __init__(self, policy: Policy, now: float) -> None:
        self.policy = policy
        self.state = State.STOPPED
        self.since = now
        self.held: dict[L, float] = {}
        self.flowing: dict[L, float] = {}
        self.failure: errors.OperationError | None = None
        self.killed: tuple[Exit, ...] = ()
        self.awake_because = ""
        self.last_start_seconds: float | None = None
        self._idle_since = now
        self._launched_at: float | None = None
        self._wanted = False
        self._sleep_after_serving = False
        self._closed: errors.ProxyError | None = None
        self._backoff = Backoff()
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
                return None
            case State.ADOPTING:
                return self.since + self.policy.start_timeout
            case State.STARTING:
                return min([self._start_deadline, *self._hold_deadlines().values()])
            case State.READY:
                return self.idle_deadline
            case State.DRAINING:
                return self.since + self.policy.drain_timeout
            case State.STOPPING:
                return self.since + self._grace + STOP_MARGIN_SECONDS
            case State.FAILED:
                return max(self.since + FAILURE_SHOWN_SECONDS, self._backoff.due_at)
            case _:
                assert_never(self.state)

    @property
    def idle_deadline(self) -> float | None:
        """When a ready service goes to sleep; None while it is in use or never sleeps."""
        if self.flowing or self.state is not State.READY or self.policy.idle_timeout is None:
            return None
        deadline = self._idle_since + self.policy.idle_timeout
        return deadline if self.failure is None else max(deadline, self.since + STOP_AGAIN_SECONDS)

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
            case events.Arrived(lease):
                self._arrive(lease, now)
            case events.Departed(lease):
                self._depart(lease, now)
            case events.Returned(lease):
                self._return(lease, now)
            case events.Woken(by_operator):
                self._wake(by_operator, now)
            case events.PutToSleep():
                self._put_to_sleep(now)
            case events.Launched():
                self._demand(event, State.STARTING)
                self._launched_at = now
            case events.Started():
                self._demand(event, State.STARTING, State.ADOPTING)
                if self.state is State.STARTING:
                    self.last_start_seconds = now - self.since
                self._become_ready(now, self.failure)
            case events.StartFailed(reason):
                self._demand(event, State.STARTING)
                self._fail_start(reason, now)
            case events.Stopped(killed):
                self._demand(event, State.STOPPING)
                self.killed = killed
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
            case events.FoundStopped(exit):
                self._lose(exit, now)
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
        if lease in self.flowing or lease in self.held:
            raise IllegalEvent("this lease has arrived before")
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

    def _arrive(self, lease: L, now: float) -> None:
        if self.admit(lease, now):
            self._effects.append(events.Admit(lease))
        elif len(self.held) >= self.policy.max_held:
            self._effects.append(events.Refuse(lease, errors.TooManyHeld()))
        else:
            self.held[lease] = now

    def _depart(self, lease: L, now: float) -> None:
        if lease in self.held:
            del self.held[lease]
        elif lease in self.flowing:
            del self.flowing[lease]
            self._idle_since = now
        else:
            raise IllegalEvent("this lease is unknown or over")

    def _return(self, lease: L, now: float) -> None:
        if lease not in self.flowing:
            raise IllegalEvent("only an admitted lease can return")
        self.held[lease] = self.flowing.pop(lease)
        if self.state is State.READY and self._closed is None:
            self._start(now)

    # Facts about the service.

    def _wake(self, by_operator: bool, now: float) -> None:
        if by_operator:
            self._backoff.forget()
        self._sleep_after_serving = False
        match self.state:
            case State.READY:
                self._idle_since = now
            case State.DRAINING:
                self._become_ready(now)
            case State.FAILED if now < self._backoff.due_at:
                pass
            case State.ADOPTING:
                self._wanted = True
            case _:
                self._wanted = True
                self.awake_because = "an operator" if by_operator else "a visitor"

    def _put_to_sleep(self, now: float) -> None:
        self._wanted = False
        match self.state:
            case State.READY:
                self._move(State.DRAINING, now)
            case State.STARTING | State.ADOPTING if self.held:
                self._sleep_after_serving = True
            case State.STARTING | State.ADOPTING:
                self._stop(now)
            case _:
                pass

    def _adopt(self, has_healthcheck: bool, now: float) -> None:
        """Wait for what runs to answer; that a stop was refused stays worth telling."""
        self.awake_because = "somebody else"
        if not isinstance(self.failure, errors.StopFailed):
            self.failure = None
        self._move(State.ADOPTING, now)
        self._effects.append(events.Adopt(has_healthcheck))

    def _lose(self, exit: Exit | None, now: float) -> None:
        """A stop by hand leads to stopped, a crash to failed, so that crash loops back off."""
        if self.state is State.STARTING:
            if exit is not None and self._launched_at is not None:
                self._fail_start(errors.ContainerExited(detail=str(exit)), now)
            return
        if self.state is State.ADOPTING:
            self._effects.append(events.Abandon())
        if self.state in (State.ADOPTING, State.READY) and _crashed(exit):
            self.failure = errors.ContainerExited(detail=str(exit))
            self._backoff.note(now)
            self._move(State.FAILED, now)
        elif self.state in (State.ADOPTING, State.READY, State.DRAINING):
            self.failure = None
            self._move(State.STOPPED, now)

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
            case State.STARTING if now >= self._start_deadline:
                self._fail_start(self._late_start(), now)
            case State.STARTING:
                for lease, expires in self._hold_deadlines().items():
                    if now >= expires:
                        self._refuse(lease, errors.HoldExpired(detail="still being prepared"))
            case State.READY:
                self._move(State.DRAINING, now)
            case State.DRAINING:
                self._effects.extend(events.Cut(lease) for lease in self.flowing)
                self._stop(now)
            case State.STOPPING:
                self._effects.append(events.Abandon())
                self._fail_stop(errors.StopFailed(detail="it did not end in time"), now)
            case _:  # failed: a stopped service has no deadline
                self._move(State.STOPPED, now)

    # Moves.

    def _settle(self, now: float) -> None:
        """Follow state-triggered moves until nothing changes; never ask how we got here."""
        if self._closed is not None:
            self._refuse_all(self._closed)
            return
        if self.state is State.READY and not self.held and not self._sleep_after_serving:
            return  # as below, but this is where a busy service always is
        while True:
            before = self.state
            match self.state:
                case State.STOPPED if self.held or self._wanted:
                    self._start(now)
                case State.FAILED if (self.held or self._wanted) and now >= self._backoff.due_at:
                    self._start(now)
                case State.STOPPING | State.FAILED if self.held and self.failure:
                    self._refuse_all(self.failure)
                case State.READY if self._sleep_after_serving:
                    self._admit_all()
                    self._move(State.DRAINING, now)
                case State.READY if self.held:
                    self._admit_all()
                case State.DRAINING if not self.flowing:
                    self._stop(now)
            if self.state is before:
                return

    def _start(self, now: float) -> None:
        self.failure = None
        self._launched_at = None
        if self.held:
            self.awake_because = "a request"
        self._move(State.STARTING, now)
        self._effects.append(events.StartBackend())

    def _stop(self, now: float) -> None:
        self._move(State.STOPPING, now)
        self._effects.append(events.StopBackend())

    def _become_ready(self, now: float, failure: errors.OperationError | None = None) -> None:
        self.failure = failure
        self._wanted = False
        self._idle_since = now
        self._move(State.READY, now)

    def _fail_start(self, reason: errors.OperationError, now: float) -> None:
        self.failure = reason
        self._wanted = False
        self._sleep_after_serving = False
        self._backoff.note(now)
        self._refuse_all(reason)
        self._stop(now)

    def _fail_stop(self, reason: errors.OperationError, now: float) -> None:
        self.failure = self.failure or reason
        self._move(State.FAILED, now)

    def _stay_awake(self, reason: errors.OperationError, now: float) -> None:
        """Refuse nobody what still runs; but what had failed before has not become good by it."""
        if self.failure is not None:
            self._fail_stop(reason, now)
        else:
            self._become_ready(now, failure=reason)

    def _move(self, new: State, now: float) -> None:
        old = self.state
        if new not in MOVES[old]:
            raise IllegalMove(f"{old.value} -> {new.value}")
        self.state, self.since = new, now
        if new is State.DRAINING:
            self._sleep_after_serving = False
            self.failure = None
        self._effects.append(events.Moved(old, new))

    # Answers.

    def _admit_all(self) -> None:
        held, self.held = self.held, {}
        self.flowing.update(held)
        self._effects.extend(events.Admit(lease) for lease in held)

    def _refuse(self, lease: L, reason: errors.ProxyError) -> None:
        del self.held[lease]
        self._effects.append(events.Refuse(lease, reason))

    def _refuse_all(self, reason: errors.ProxyError) -> None:
        for lease in list(self.held):
            self._refuse(lease, reason)

    # Clocks.

    @property
    def _grace(self) -> float:
        configured = self.policy.stop_timeout
        return LONGEST_OWN_GRACE_SECONDS if configured is None else configured

    @property
    def _start_deadline(self) -> float:
        if self._launched_at is None:
            return self.since + self.policy.prepare_timeout + self.policy.start_timeout
        return self._launched_at + self.policy.start_timeout

    def _late_start(self) -> errors.StartError:
        if self._launched_at is None:
            return errors.StartFailed("The service could not be prepared in time.")
        return errors.HoldExpired()

    def _hold_deadlines(self) -> dict[L, float]:
        """When each waiting request gives up: only while images are pulled or built.

        Once containers start, all are answered together at the end of the start.
        """
        if self._launched_at is not None:
            return {}
        limit = self.policy.start_timeout
        return {lease: max(arrived, self.since) + limit for lease, arrived in self.held.items()}


def _crashed(exit: Exit | None) -> bool:
    """Whether what ended was not asked to: a program that is told to end says so by its code."""
    return exit is not None and (exit.out_of_memory or exit.code not in ASKED_TO_END)

"""One service: the asyncio shell around its `Lifecycle`.

The lifecycle decides, this class carries out: it owns the backend, the one operation that may run
on it, the watcher and the timer. It has no state of its own that a decision depends on: what the
watcher sees is told to the lifecycle as it is, and `_healthy` is only how an operation that waits
for Docker's word hears it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Protocol, assert_never

from autostart_proxy import errors, readiness
from autostart_proxy.backends import Backend, Observation, Upstream
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.journal import (
    Journal,
    PartKilled,
    ServiceFailed,
    ServiceMoved,
    SilenceExplained,
    StartMeasured,
)
from autostart_proxy.lifecycle import events
from autostart_proxy.lifecycle.events import Policy, State
from autostart_proxy.lifecycle.machine import Lifecycle
from autostart_proxy.operation import Operation
from autostart_proxy.status import ServiceStatus, status_of

_log = logging.getLogger(__name__)

_WATCH_AGAIN_SECONDS = 1.0

Address = tuple[str, int]


class Lease(Hashable, Protocol):
    """One request's claim on a service. Every call comes from the event loop's thread."""

    @property
    def cause(self) -> str:
        """Which request it is, for people."""
        ...

    def admitted(self, address: Address) -> None:
        """Forward now, to this host and port; `Service.depart` must follow exactly once."""
        ...

    def refused(self, error: errors.ProxyError) -> None:
        """Answer with this error; the lease is over, no `depart` follows."""
        ...

    def cut(self) -> None:
        """Abort: the drain time is over; `Service.depart` must still follow."""
        ...


def policy_of(config: ServiceConfig) -> Policy:
    """The part of a service's configuration that its lifecycle decides by."""
    return Policy(
        start_timeout=config.start_timeout,
        prepare_timeout=config.prepare_timeout,
        idle_timeout=config.idle_timeout,
        stop_timeout=config.stop_timeout,
        drain_timeout=config.drain_timeout,
        max_held=config.max_held,
    )


class Service:
    """Wakes, holds, admits, drains and stops one configured service.

    Created inside a running event loop; watches its backend until `close`.

    Attributes:
        host: canonical host, the service's name in logs.
        config: what `config.json` says of it.
        misconfigured: why it could not be started, as far as its backend knows that already.
    """

    def __init__(
        self, host: str, config: ServiceConfig, backend: Backend, journal: Journal
    ) -> None:
        self.host = host
        self.config = config
        self._backend = backend
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._life: Lifecycle[Lease] = Lifecycle(policy_of(config), self._loop.time())
        self._address: Address = config.proxy_host, config.proxy_port
        self._orders: deque[events.Effect[Lease]] = deque()
        self._performing = False
        self._operation = Operation()
        self._healthy = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.misconfigured = ""
        self._told_failure: errors.OperationError | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._onlookers: set[Callable[[], None]] = set()
        self._when_empty: Callable[[], None] | None = None
        self._watching = self._loop.create_task(self._watch())

    def __repr__(self) -> str:
        return f"<Service {self.host} {self._life!r}>"

    # For the relay.

    @property
    def ready(self) -> bool:
        """Whether a lease that arrives now would be admitted at once."""
        return self._life.state is State.READY

    @property
    def empty(self) -> bool:
        """Whether no lease is held or flowing."""
        return not self._life.held and not self._life.flowing

    def claim(self, lease: Lease) -> Address | errors.ProxyError | None:
        """Ask for the service.

        Returns:
            Where to forward, as `Lease.admitted` has it. None while the service is not ready: the
            lease is held, and `admitted` or `refused` follows. An error where it is refused at
            once: there is no lease. It is no exception, since one failure may answer thousands.
        """
        if self._life.admit(lease, self._loop.time()):
            return self._address  # no timer: what is in use does not fall asleep
        return self._tell(events.Arrived(lease, lease.cause), asking=lease)

    def depart(self, lease: Lease) -> None:
        """End a lease: after its last byte, or because its client left while it was held."""
        if not self._life.release(lease, self._loop.time()):
            self._tell(events.Departed(lease))
        elif self._timer is None and not self._life.flowing:
            self._arm_timer()
        if self._when_empty is not None and self.empty:
            self._when_empty()

    def unreachable(self, lease: Lease) -> None:
        """Hold an admitted lease again: nobody listened, and not one of its bytes went out."""
        self._tell(events.Returned(lease))

    def wake(self, cause: str = "a visitor") -> errors.ProxyError:
        """Start without a lease and say what to answer a request that does not wait.

        Args:
            cause: which request it is, for people.
        Returns:
            `Starting`, or the failure while a service that failed is not tried again yet.
        """
        self._tell(events.Woken(cause=cause))
        refusal = self._life.refusal(self._now())
        if refusal is not None:
            return refusal
        return errors.Starting(retry_after_seconds=self._seconds_left())

    def _seconds_left(self) -> int:
        """How long a start will still take, by the last one; at least 1 s."""
        usual = self._life.last_start_seconds
        if usual is None:
            return 2
        under_way = self._life.state in (State.STARTING, State.ADOPTING)
        elapsed = self._now() - self._life.since if under_way else 0.0
        return max(1, math.ceil(usual - elapsed))

    # For operators.

    def order_wake(self) -> None:
        """Start on an operator's word, whatever failed before; returns at once."""
        self._tell(events.Woken(by_operator=True))

    async def until_awake(self) -> None:
        """Return once the service is ready.

        Raises:
            OperationError: the start failed.
            Overtaken: somebody put the service to sleep meanwhile.
        """
        state, failure = await self._until(State.READY, State.FAILED, State.STOPPED)
        if state is not State.READY:
            if failure is None or isinstance(failure, errors.StopFailed):
                raise errors.Overtaken("The service was put to sleep.")
            raise failure

    async def sleep(self) -> None:
        """Drain, stop, and return once that is over.

        Raises:
            OperationError: the stop failed.
            Overtaken: somebody woke the service meanwhile.
        """
        self._tell(events.PutToSleep())
        state, failure = await self._until(State.STOPPED, State.FAILED, State.READY)
        start_failed = state is State.FAILED and isinstance(failure, errors.StartError)
        if state is not State.STOPPED and not start_failed:  # what failed to start was cleaned up
            raise failure or errors.Overtaken("The service was woken again.")

    def status(self) -> ServiceStatus:
        """A snapshot for people."""
        return status_of(self.host, self.config.name, self._life, self._now())

    # For the fleet.

    def reconfigure(self, config: ServiceConfig) -> None:
        """Take over new limits; the backend's part of the configuration must be unchanged."""
        self.config = config
        self._tell(events.Reconfigured(policy_of(config)))
        self._arm_timer()

    def refuse(self, reason: errors.ProxyError) -> None:
        """Take no more requests, and answer those that wait; flowing ones go on."""
        self._tell(events.Closed(reason))

    def retire(self, when_empty: Callable[[], None]) -> None:
        """Serve the leases there are; `when_empty` is called when the last has ended."""
        self._when_empty = when_empty
        if self.empty:
            when_empty()

    async def close(self) -> None:
        """Stop watching and acting; what runs is left to the backend's own `close`."""
        self.refuse(errors.ShuttingDown())
        if self._timer is not None:
            self._timer.cancel()
        tasks = (self._watching, *self._errands)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._operation.end()
        await self._backend.close()

    # The loop of facts and orders.

    def _now(self) -> float:
        return self._loop.time()

    def _tell(
        self, event: events.Event[Lease], asking: Lease | None = None
    ) -> errors.ProxyError | None:
        """Hand a fact to the lifecycle and carry out its orders, in order.

        A lease's answer may itself bring the next fact (a pipelined request): its orders queue
        up behind the present ones.

        Returns:
            Why the lease that is asking is refused at once: it is told by that, and no other way.
        """
        orders, refusal = self._orders, None
        for order in self._life.handle(event, self._loop.time()):
            if isinstance(order, events.Refuse) and order.lease is asking:
                refusal = order.reason
            else:
                orders.append(order)
        if not self._performing:
            self._performing = True
            while orders:
                try:
                    self._perform(orders.popleft())
                except Exception:  # one lease's defect must not keep the others waiting
                    _log.exception("order not carried out", extra={"service": self.host})
            self._performing = False
        if self._timer is None:
            self._arm_timer()
        return refusal

    def _perform(self, order: events.Effect[Lease]) -> None:
        match order:
            case events.Admit(lease):
                lease.admitted(self._address)
            case events.Refuse(lease, reason):
                lease.refused(reason)
            case events.Cut(lease):
                lease.cut()
            case events.StartBackend():
                self._operation.begin(self._start)
            case events.StopBackend():
                self._operation.begin(self._stop)
            case events.Adopt(has_healthcheck):
                self._operation.begin(lambda: self._adopt(has_healthcheck))
            case events.Explain(reason):
                self._aside(self._explain(reason))
            case events.Abandon():
                self._operation.begin(None)
            case events.Moved(old, new, because):
                self._moved(old, new, because)
            case _:
                assert_never(order)

    def _moved(self, old: State, new: State, because: str) -> None:
        life = self._life
        started = old is State.STARTING and new is State.READY
        self._journal.record(
            ServiceMoved(
                self.host,
                old.value,
                new.value,
                because or None,
                life.last_start_seconds if started else None,
            )
        )
        known, self._told_failure = self._told_failure, life.failure
        if life.failure is not None and life.failure is not known:
            self._journal.record(ServiceFailed(self.host, life.failure))
        self._arm_timer()
        for onlooker in [*self._onlookers]:
            onlooker()

    async def _until(self, *states: State) -> tuple[State, errors.OperationError | None]:
        """Return the first of these states in which the service comes to rest, and the failure.

        Both as they are at that moment: whoever waits runs later, when more may have happened.
        """
        life = self._life
        seen: asyncio.Future[tuple[State, errors.OperationError | None]]
        seen = self._loop.create_future()

        def look() -> None:
            if life.state in states and not seen.done():
                seen.set_result((life.state, life.failure))

        look()
        self._onlookers.add(look)
        try:
            return await seen
        finally:
            self._onlookers.discard(look)

    # The timer. It is not moved for every request: it fires, looks, and is set anew.

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._life.deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._tell(events.Tick())

    # Operations on the backend.

    async def _start(self) -> None:
        self._healthy.clear()
        began = launched_at = self._now()

        def launched() -> None:
            nonlocal launched_at
            launched_at = self._now()
            self._tell(events.Launched())

        try:
            upstream = await self._backend.start(launched)
            started = self._now()
            await self._until_it_answers(upstream)
            await self._backend.verify()
        except errors.BackendRefused as refusal:
            self._tell(events.StartFailed(refusal.reason))
        except errors.BackendUnreachable as cause:
            self._tell(events.StartFailed(errors.DockerUnavailable(detail=str(cause))))
        except Exception as cause:  # a defect in a backend must not strand the leases that wait
            _log.exception("start broke", extra={"service": self.host})
            self._tell(events.StartFailed(errors.StartFailed(detail=repr(cause))))
        else:
            self._address = upstream.address
            stages = launched_at - began, started - launched_at, self._now() - started
            self._journal.record(StartMeasured(self.host, *stages))
            self._tell(events.Started())

    async def _adopt(self, has_healthcheck: bool) -> None:
        """Wait for what was started elsewhere as after a start of our own: it may be starting
        still, when the proxy was restarted meanwhile."""
        upstream = Upstream(self.config.proxy_host, self.config.proxy_port, has_healthcheck)
        try:
            await self._until_it_answers(upstream)
            await self._backend.verify()
        except errors.BackendRefused as refusal:
            self._tell(events.Disowned(refusal.reason))
        except Exception:  # as in _start; the lifecycle's deadline ends the adoption
            _log.exception("adoption broke", extra={"service": self.host})
        else:
            self._address = upstream.address
            self._tell(events.Started())

    async def _until_it_answers(self, upstream: Upstream) -> None:
        health = self.config.health
        if upstream.has_healthcheck and health.path is None:
            await self._healthy.wait()
        else:
            await readiness.until_ready(
                upstream, path=health.path or "/", host=self.host, accepts=health.accepts
            )

    async def _stop(self) -> None:
        try:
            killed = await self._backend.stop(self.config.stop_timeout)
        except errors.BackendRefused as refusal:
            self._tell(events.StopFailed(refusal.reason))
        except errors.BackendUnreachable as cause:
            self._tell(events.StopUnheard(errors.DockerUnavailable(detail=str(cause))))
        except Exception as cause:  # as in _start
            _log.exception("stop broke", extra={"service": self.host})
            self._tell(events.StopFailed(errors.StopFailed(detail=repr(cause))))
        else:
            for each in killed:
                self._journal.record(PartKilled(self.host, str(each)))
            self._tell(events.Stopped(killed))

    async def _explain(self, reason: errors.OperationError) -> None:
        """Say that a start takes longer than requests wait, and what the service says of it."""
        lines = await self._backend.log_tail()
        self._journal.record(ServiceFailed(self.host, reason))
        self._journal.record(SilenceExplained(self.host, lines))

    def _aside(self, errand: Coroutine[None, None, None]) -> None:
        """Do something that is no operation on the backend."""
        task = self._loop.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # What the world does without being told.

    async def _watch(self) -> None:
        while True:
            try:
                async for seen in self._backend.watch():
                    self._saw(seen)
            except Exception:  # watch() promises to survive; a defect in it must not blind us
                _log.exception("watching broke", extra={"service": self.host})
            await asyncio.sleep(_WATCH_AGAIN_SECONDS)

    def _saw(self, seen: Observation) -> None:
        self.misconfigured = seen.misconfigured
        if seen.healthy:
            self._healthy.set()
        else:
            self._healthy.clear()
        if seen.failing:
            self._tell(events.FoundFailing())
        if seen.running:
            self._tell(events.FoundRunning(has_healthcheck=seen.healthy is not None))
        else:
            self._tell(events.FoundStopped(seen.exit, seen.remains))

"""The shell around a lifecycle: orders become operations, and facts come back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from autostart_proxy import errors
from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.reader import parse
from autostart_proxy.service import Service
from tests.fakes import DIED, RUNNING, STOPPED, FakeBackend, FakeLease, logging_journal

LIMIT_SECONDS = 20
NOWHERE = Upstream("127.0.0.1", 1)
FOUND_STARTING = Observation(running=True, healthy=False)


def service_config(**keys: object) -> ServiceConfig:
    """A service as `config.json` would give it, with a command nobody runs."""
    service = {"command": ["true"], "proxyPort": 8001, **keys}
    text = json.dumps({"services": {"a.example": service}})
    parsed = parse(text, source="config.json")
    return parsed.services["a.example"]


Make = Callable[..., Awaitable[tuple[Service, FakeBackend]]]


@pytest.fixture
async def make(web: Upstream) -> AsyncIterator[Make]:
    made: list[Service] = []

    async def make(upstream: Upstream = web, **keys: object) -> tuple[Service, FakeBackend]:
        backend = FakeBackend(upstream)
        made.append(Service("a.example", service_config(**keys), backend, logging_journal()))
        return made[-1], backend

    yield make
    for service in made:
        await service.close()


async def answered(lease: FakeLease) -> FakeLease:
    async with asyncio.timeout(LIMIT_SECONDS):
        await lease.answered.wait()
    return lease


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to set
            await asyncio.sleep(0.005)


async def test_a_first_request_starts_the_backend_and_is_admitted_when_it_answers(
    make: Make, web: Upstream
) -> None:
    service, backend = await make()
    lease = FakeLease()
    lease.claims(service)
    assert (await answered(lease)).address == web.address
    assert backend.calls == ["start", "started"]


async def test_a_warm_request_is_admitted_before_arrive_returns(make: Make) -> None:
    service, _ = await make()
    first, second = FakeLease(), FakeLease()
    first.claims(service)
    await answered(first)
    second.claims(service)
    assert second.address is not None


async def test_an_idle_service_is_stopped_and_the_next_request_starts_it_again(make: Make) -> None:
    service, backend = await make(idleTimeout=0.05)
    for _ in range(2):
        lease = FakeLease()
        lease.claims(service)
        await answered(lease)
        service.depart(lease)
        await until(lambda: service.status().state == "stopped")
    assert backend.calls == ["start", "started", "stop", "stopped"] * 2


async def test_a_service_in_use_outlives_its_idle_time(make: Make) -> None:
    service, backend = await make(idleTimeout=0.02)
    lease = FakeLease()
    lease.claims(service)
    await answered(lease)
    await asyncio.sleep(0.2)
    assert service.ready and "stop" not in backend.calls


async def test_a_request_during_a_stop_waits_for_it_and_starts_again(make: Make) -> None:
    service, backend = await make()
    service.order_wake()
    await service.until_awake()
    backend.may_stop.clear()
    sleeping = asyncio.ensure_future(service.sleep())
    await until(lambda: "stop" in backend.calls)
    lease = FakeLease()
    lease.claims(service)
    await asyncio.sleep(0.02)
    assert not lease.answered.is_set()
    backend.may_stop.set()
    assert (await answered(lease)).error is None
    assert backend.calls == ["start", "started", "stop", "stopped", "start", "started"]
    sleeping.cancel()


async def test_a_start_that_takes_too_long_is_ended_before_the_stop_begins(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    service, backend = await make(startTimeout=0.05, prepareTimeout=0.2)
    backend.may_start.clear()
    lease = FakeLease()
    lease.claims(service)
    assert isinstance((await answered(lease)).error, errors.HoldExpired)
    assert service.status().state == "starting", "what runs may yet answer"
    await until(lambda: service.status().state == "failed")
    assert backend.calls == ["start", "start ended", "stop", "stopped"]
    assert any(vars(record).get("lines") == ["the last line"] for record in caplog.records)


async def test_a_start_that_takes_long_is_found_done_by_a_later_request(make: Make) -> None:
    service, backend = await make(startTimeout=0.05)
    backend.may_start.clear()
    lease, later = FakeLease(), FakeLease()
    lease.claims(service)
    assert isinstance((await answered(lease)).error, errors.HoldExpired)
    later.claims(service)
    backend.may_start.set()
    assert (await answered(later)).error is None
    assert backend.calls == ["start", "started"]


async def test_who_answers_and_is_somebody_else_is_not_given_a_request(make: Make) -> None:
    service, backend = await make()
    backend.impostor = errors.PortInUse(detail="nginx (pid 7) listens there")
    lease = FakeLease()
    lease.claims(service)
    error = (await answered(lease)).error
    assert isinstance(error, errors.PortInUse) and "pid 7" in error.detail
    await until(lambda: service.status().state == "failed")
    assert backend.calls[-1] == "stopped"


async def test_what_is_left_of_a_crashed_service_is_stopped(make: Make) -> None:
    service, backend = await make(idleTimeout=0.05)
    backend.shows(RUNNING)
    await until(lambda: service.ready)
    lease = FakeLease()
    lease.claims(service)
    backend.shows(Observation(running=False, exit=Exit("web", 3), remains=True))
    await until(lambda: "stopped" in backend.calls)
    assert backend.calls == ["stop", "stopped"]
    assert "web exited with 3" in service.status().why
    service.depart(lease)


async def test_what_had_to_be_killed_is_told_and_shown(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    service, backend = await make()
    service.order_wake()
    await service.until_awake()
    backend.killed = (Exit("db", 137),)
    await service.sleep()
    assert backend.grace is None, "each part has a grace period of its own"
    assert service.status().why == "idle; had to be killed: db exited with 137"
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert vars(warning)["part"] == "db exited with 137" and vars(warning)["cure"]
    service.order_wake()
    await service.until_awake()
    backend.killed = ()
    await service.sleep()
    assert service.status().why == "idle"


async def test_an_unhealthy_service_is_given_up_once_its_request_has_waited(make: Make) -> None:
    service, backend = await make(
        Upstream("127.0.0.1", 1, has_healthcheck=True), startTimeout=0.1, proxyPort=1
    )
    lease = FakeLease()
    lease.claims(service)
    await until(lambda: "started" in backend.calls)
    backend.shows(Observation(running=True, healthy=False, failing=True))
    assert isinstance((await answered(lease)).error, errors.Unhealthy)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (errors.BackendRefused(errors.StartFailed(detail="port taken")), errors.StartFailed),
        (errors.BackendUnreachable("no socket"), errors.DockerUnavailable),
        (RuntimeError("a defect"), errors.StartFailed),
    ],
)
async def test_every_way_a_start_can_fail_reaches_the_requests_that_wait(
    make: Make, failure: Exception, told: type[errors.ProxyError]
) -> None:
    service, backend = await make()
    backend.fails = failure
    lease = FakeLease()
    lease.claims(service)
    assert isinstance((await answered(lease)).error, told)
    again = FakeLease()
    await until(lambda: service.status().state == "failed")
    again.claims(service)
    assert (await answered(again)).error is None, "the next request tries again"


async def test_a_death_between_start_and_readiness_fails_at_once_with_the_last_lines(
    make: Make,
) -> None:
    service, backend = await make(NOWHERE)
    lease = FakeLease()
    lease.claims(service)
    await until(lambda: "started" in backend.calls)
    backend.shows(DIED)
    error = (await answered(lease)).error
    assert isinstance(error, errors.ContainerExited)
    assert "web exited with 3" in error.detail and "boom" in error.detail
    assert "boom" not in error.public


async def test_where_the_container_has_a_healthcheck_its_word_counts(make: Make) -> None:
    service, backend = await make(Upstream("127.0.0.1", 1, has_healthcheck=True))
    lease = FakeLease()
    lease.claims(service)
    backend.shows(Observation(running=True, healthy=False))
    await asyncio.sleep(0.05)
    assert not lease.answered.is_set()
    backend.shows(Observation(running=True, healthy=True))
    assert (await answered(lease)).error is None


async def test_a_health_path_is_asked_even_where_there_is_a_healthcheck(
    make: Make, web: Upstream
) -> None:
    upstream = Upstream(web.host, web.port, has_healthcheck=True)
    service, _ = await make(upstream, health={"path": "/up"})
    lease = FakeLease()
    lease.claims(service)
    assert (await answered(lease)).error is None


async def test_a_service_found_running_is_adopted_without_a_start(make: Make) -> None:
    service, backend = await make()
    backend.shows(RUNNING)
    await until(lambda: service.ready)
    lease = FakeLease()
    lease.claims(service)
    assert lease.address == ("127.0.0.1", 8001)
    assert backend.calls == []


async def test_a_service_found_running_is_adopted_once_it_answers(
    make: Make, web: Upstream
) -> None:
    service, backend = await make(proxyPort=web.port)
    backend.shows(Observation(running=True))
    await until(lambda: service.ready)
    assert backend.calls == []


async def test_a_service_found_running_is_not_adopted_where_somebody_else_answers(
    make: Make, web: Upstream
) -> None:
    service, backend = await make(proxyPort=web.port)
    backend.impostor = errors.PortInUse(detail="process 7 (nc) listens")
    backend.shows(Observation(running=True))
    await until(lambda: service.status().state == "failed")
    assert "process 7 (nc) listens" in service.status().why
    assert backend.calls == []


async def test_a_service_found_starting_is_adopted_once_it_is_healthy(make: Make) -> None:
    service, backend = await make()
    backend.shows(FOUND_STARTING)
    await until(lambda: service.status().why == "found running, does not answer yet")
    assert service.status().state == "adopting"
    backend.shows(RUNNING)
    await until(lambda: service.ready)
    assert backend.calls == []


async def test_a_service_found_running_that_never_answers_is_adopted_to_be_put_to_sleep(
    make: Make,
) -> None:
    service, backend = await make(proxyPort=NOWHERE.port, startTimeout=0.05, idleTimeout=0.05)
    backend.shows(Observation(running=True))
    await until(lambda: "stopped" in backend.calls)
    assert backend.calls == ["stop", "stopped"]


async def test_a_request_for_a_service_found_starting_waits_until_it_answers(make: Make) -> None:
    service, backend = await make(Upstream("127.0.0.1", 1, has_healthcheck=True))
    backend.shows(FOUND_STARTING)
    await until(lambda: "does not answer yet" in service.status().why)
    lease = FakeLease()
    lease.claims(service)
    await asyncio.sleep(0.05)
    assert (service.status().held, lease.answered.is_set()) == (1, False)
    backend.shows(RUNNING)
    assert (await answered(lease)).error is None
    assert backend.calls == [], "it was on its way already"


async def test_a_request_for_a_service_that_is_not_adopted_in_time_gets_a_start(
    make: Make, web: Upstream
) -> None:
    service, backend = await make(web, proxyPort=NOWHERE.port, startTimeout=0.2)
    backend.shows(Observation(running=True))
    await until(lambda: service.status().state == "adopting")
    lease = FakeLease()
    lease.claims(service)
    assert (await answered(lease)).address == web.address
    assert backend.calls == ["start", "started"]


async def test_an_adoption_that_breaks_ends_with_its_time(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("autostart_proxy.readiness.until_ready", broken)
    service, backend = await make(startTimeout=0.05)
    backend.shows(Observation(running=True))
    await until(lambda: service.ready)
    assert "adoption broke" in caplog.text


async def test_a_service_found_starting_can_be_put_to_sleep(make: Make) -> None:
    service, backend = await make(startTimeout=0.05)
    backend.shows(FOUND_STARTING)
    await until(lambda: "does not answer yet" in service.status().why)
    await service.sleep()
    assert backend.calls == ["stop", "stopped"]
    await asyncio.sleep(0.1)
    assert service.status().state == "stopped", "nothing is left of the adoption"


async def test_a_service_found_starting_may_end_again(make: Make) -> None:
    service, backend = await make(startTimeout=0.05)
    backend.shows(FOUND_STARTING)
    backend.shows(STOPPED)
    await asyncio.sleep(0.1)
    assert (service.status().state, service.status().why) == ("stopped", "idle")


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (STOPPED, "stopped"),
        (DIED, "failed"),
        (Observation(running=False, exit=Exit("web", 137)), "stopped"),
        (Observation(running=False, exit=Exit("web", 137, out_of_memory=True)), "failed"),
    ],
    ids=["stopped by hand", "crashed", "killed by hand", "out of memory"],
)
async def test_the_state_follows_what_happens_outside(
    make: Make, seen: Observation, state: str
) -> None:
    service, backend = await make()
    backend.shows(RUNNING)
    await until(lambda: service.ready)
    backend.shows(seen)
    await until(lambda: service.status().state == state)


async def test_watching_goes_on_after_it_broke(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("autostart_proxy.service._WATCH_AGAIN_SECONDS", 0.01)
    service, backend = await make()
    backend.shows(RuntimeError("a defect"))
    backend.shows(RUNNING)
    await until(lambda: service.ready)
    assert "watching broke" in caplog.text


async def test_an_unreachable_service_holds_the_request_again_and_is_healed(make: Make) -> None:
    service, backend = await make()
    backend.shows(RUNNING)
    await until(lambda: service.ready)
    lease = FakeLease()
    lease.claims(service)
    lease.answered.clear()
    service.unreachable(lease)
    assert (await answered(lease)).error is None
    assert backend.calls == ["start", "started"]


async def test_drain_time_over_cuts_what_still_flows(make: Make) -> None:
    service, backend = await make(drainTimeout=0.05)
    lease = FakeLease()
    lease.claims(service)
    await answered(lease)
    await service.sleep()
    assert lease.was_cut
    service.depart(lease)


async def test_one_lease_with_a_defect_does_not_keep_the_others_waiting(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeLease):
        def admitted(self, address: tuple[str, int]) -> None:
            raise RuntimeError("a defect")

    service, _ = await make()
    broken, sound = Broken(), FakeLease()
    broken.claims(service)
    sound.claims(service)
    assert (await answered(sound)).error is None
    assert "order not carried out" in caplog.text


async def test_a_request_that_arrives_from_within_an_answer_is_answered_too(make: Make) -> None:
    second = FakeLease()

    class Pipelined(FakeLease):
        def admitted(self, address: tuple[str, int]) -> None:
            service.depart(self)
            second.claims(service)

    service, _ = await make()
    Pipelined().claims(service)
    assert (await answered(second)).error is None


async def test_wake_says_that_it_starts_or_why_it_does_not(make: Make) -> None:
    service, backend = await make()
    assert isinstance(service.wake(), errors.Starting)
    await until(lambda: service.ready)
    backend.shows(DIED)
    await until(lambda: service.status().state == "failed")
    backend.fails = errors.BackendRefused(errors.StartFailed())
    service.wake()
    await until(lambda: service.status().state == "failed")
    assert isinstance(service.wake(), errors.StartFailed)


async def test_waiting_for_a_wake_tells_its_failure(make: Make) -> None:
    service, backend = await make()
    backend.fails = errors.BackendRefused(errors.StartFailed(detail="port taken"))
    service.order_wake()
    with pytest.raises(errors.StartFailed, match="port taken"):
        await service.until_awake()


async def test_a_wake_ended_by_a_sleep_says_so(make: Make) -> None:
    service, backend = await make()
    backend.may_start.clear()
    service.order_wake()
    waiting = asyncio.ensure_future(service.until_awake())
    await asyncio.sleep(0.01)
    await service.sleep()
    with pytest.raises(errors.Overtaken, match="put to sleep"):
        await waiting


async def test_a_wake_ended_by_a_sleep_that_fails_says_so_too(make: Make) -> None:
    service, backend = await make(NOWHERE)
    service.order_wake()
    waiting = asyncio.ensure_future(service.until_awake())
    await until(lambda: "started" in backend.calls)
    backend.fails = errors.BackendRefused(errors.StopFailed(detail="it hangs"))
    with pytest.raises(errors.StopFailed, match="it hangs"):
        await service.sleep()
    with pytest.raises(errors.Overtaken, match="put to sleep"):
        await waiting


async def test_a_sleep_ended_by_a_wake_says_so(make: Make) -> None:
    service, _ = await make()
    lease = FakeLease()
    lease.claims(service)
    await answered(lease)
    sleeping = asyncio.ensure_future(service.sleep())
    await until(lambda: service.status().state == "draining")
    service.order_wake()
    with pytest.raises(errors.Overtaken, match="woken again"):
        await sleeping
    service.depart(lease)


async def test_what_failed_to_start_can_be_put_to_sleep(make: Make) -> None:
    service, backend = await make()
    backend.fails = errors.BackendRefused(errors.StartFailed(detail="port taken"))
    backend.may_stop.clear()
    service.order_wake()
    await until(lambda: service.status().state == "stopping")
    sleeping = asyncio.ensure_future(service.sleep())
    await asyncio.sleep(0.01)
    backend.may_stop.set()
    await sleeping
    assert service.status().state == "failed" and "port taken" in service.status().why


async def test_status_tells_why_and_until_when_it_is_awake(make: Make) -> None:
    service, _ = await make(name="Whisper", idleTimeout="1h")
    assert service.status().why == "idle"
    lease = FakeLease()
    lease.claims(service)
    assert service.status().why == "woken by a request"
    await answered(lease)
    assert service.status().why == "in use, woken by a request"
    assert service.status().sleeps_in_seconds is None
    service.depart(lease)
    status = service.status()
    assert (status.name, status.state, status.leases) == ("Whisper", "ready", 0)
    assert status.last_start_seconds is not None
    assert status.sleeps_in_seconds is not None and 3500 < status.sleeps_in_seconds <= 3600


async def test_a_new_idle_time_holds_at_once(make: Make) -> None:
    service, _ = await make(idleTimeout=None)
    service.order_wake()
    await service.until_awake()
    assert service.status().why == "never sleeps"
    service.reconfigure(service_config(idleTimeout=0.01))
    await until(lambda: service.status().state == "stopped")


async def test_a_stop_that_reaches_nobody_is_told_and_the_service_stays(make: Make) -> None:
    service, backend = await make()
    service.order_wake()
    await service.until_awake()
    backend.fails = errors.BackendUnreachable("no socket")
    with pytest.raises(errors.DockerUnavailable, match="no socket"):
        await service.sleep()
    assert service.ready
    assert "no socket" in service.status().why
    await service.sleep()
    assert (service.status().state, service.status().why) == ("stopped", "idle")


async def test_a_stop_that_is_refused_is_told(make: Make) -> None:
    service, backend = await make()
    service.order_wake()
    await service.until_awake()
    backend.fails = errors.BackendRefused(errors.StopFailed(detail="it hangs"))
    with pytest.raises(errors.StopFailed, match="it hangs"):
        await service.sleep()
    assert service.status().state == "failed"


async def test_a_stop_that_breaks_is_told_as_a_stop(make: Make) -> None:
    service, backend = await make()
    service.order_wake()
    await service.until_awake()
    backend.fails = RuntimeError("a defect")
    with pytest.raises(errors.StopFailed, match="a defect"):
        await service.sleep()


async def test_a_refused_stop_is_told_even_if_the_service_is_seen_running_at_once(
    make: Make,
) -> None:
    service, backend = await make()
    service.order_wake()
    await service.until_awake()
    backend.fails = errors.BackendRefused(errors.StopFailed(detail="it hangs"))
    backend.may_stop.clear()
    sleeping = asyncio.ensure_future(service.sleep())
    await until(lambda: "stop" in backend.calls)
    await asyncio.sleep(0.01)  # every task has come to its place
    backend.may_stop.set()
    backend.shows(RUNNING)
    with pytest.raises(errors.StopFailed, match="it hangs"):
        await sleeping
    await until(lambda: service.ready)


async def test_closing_refuses_who_waits_and_leaves_the_service_running(make: Make) -> None:
    service, backend = await make()
    backend.may_start.clear()
    lease = FakeLease()
    lease.claims(service)
    await service.close()
    assert isinstance(lease.error, errors.ShuttingDown)
    assert "stop" not in backend.calls and backend.closed


async def test_a_failure_is_told_once_with_its_cure(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    service, backend = await make()
    for _ in range(2):
        backend.fails = errors.BackendRefused(errors.StartFailed(detail="port taken"))
        service.order_wake()
        await until(lambda: service.status().state == "failed")
    told = [vars(record) for record in caplog.records if record.message == "failure"]
    assert len(told) == 2
    assert "port taken" in told[0]["reason"] and told[0]["cure"]


async def test_each_state_change_is_one_line(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service, _ = await make()
    service.order_wake()
    await service.until_awake()
    moves = [(vars(r)["from"], vars(r)["to"]) for r in caplog.records if r.message == "state"]
    assert moves == [("stopped", "starting"), ("starting", "ready")]

"""All services together: boot, reload, names, shutdown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from autostart_proxy import errors
from autostart_proxy.backends import Backend, Observation, Upstream
from autostart_proxy.config.model import ServiceConfig
from autostart_proxy.config.reader import parse
from autostart_proxy.fleet import Fleet, UnknownService
from autostart_proxy.journal import Journal
from autostart_proxy.service import Service
from tests.fakes import RUNNING, FakeBackend, FakeLease
from tests.ports import free_port
from tests.test_service import answered, until


class Yard:
    """A fleet whose backends are fakes, by the port they were configured with."""

    def __init__(self) -> None:
        self.backends: dict[int, FakeBackend] = {}
        self.fleet = Fleet(Journal(), self._make)

    def _make(self, host: str, service: ServiceConfig) -> Backend:
        backend = FakeBackend(Upstream("127.0.0.1", service.proxy_port))
        self.backends[service.proxy_port] = backend
        return backend

    def apply(self, **services: dict[str, object]) -> None:
        """Configure `a` as host a.example with the given keys, and so on."""
        given = {
            f"{name}.example": {"command": ["true"], "proxyPort": 8001, **keys}
            for name, keys in services.items()
        }
        self.fleet.apply(parse(json.dumps({"services": given}), source="config.json"))

    def service(self, host: str) -> Service:
        found = self.fleet.find(host)
        assert found is not None
        return found

    async def running(self, port: int, host: str) -> Service:
        self.backends[port].shows(RUNNING)
        service = self.service(host)
        await until(lambda: service.ready)
        return service


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    yield yard
    await yard.fleet.close()


async def test_a_service_is_found_by_its_host_and_its_aliases(yard: Yard) -> None:
    yard.apply(a={"aliases": ["b.example"]})
    assert yard.fleet.find("a.example") is yard.fleet.find("b.example") is not None
    assert yard.fleet.find("c.example") is None


async def test_new_limits_leave_the_service_and_what_it_runs_alone(yard: Yard) -> None:
    yard.apply(a={})
    before = await yard.running(8001, "a.example")
    yard.apply(a={"idleTimeout": "1h"})
    assert yard.fleet.find("a.example") is before
    assert before.config.idle_timeout == 3600
    assert not yard.backends[8001].closed


async def test_what_flows_completes_where_it_began_when_the_port_changes(yard: Yard) -> None:
    yard.apply(a={})
    old = await yard.running(8001, "a.example")
    lease = FakeLease()
    lease.claims(old)
    yard.apply(a={"proxyPort": 8002})
    new = await yard.running(8002, "a.example")
    assert new is not old
    fresh = FakeLease()
    fresh.claims(new)
    assert fresh.address == ("127.0.0.1", 8002)
    assert not yard.backends[8001].closed
    old.depart(lease)
    await until(lambda: yard.backends[8001].closed)
    assert "stop" not in yard.backends[8001].calls


async def test_a_service_that_is_gone_ends_at_once_when_nothing_uses_it(yard: Yard) -> None:
    yard.apply(a={}, b={"proxyPort": 8002})
    yard.apply(b={"proxyPort": 8002})
    assert yard.fleet.find("a.example") is None
    await until(lambda: yard.backends[8001].closed)
    assert yard.fleet.find("b.example") is not None


async def test_operators_name_a_service_by_host_alias_or_name(yard: Yard) -> None:
    yard.apply(a={"name": "Whisper", "aliases": ["w.example"]})
    expected = yard.fleet.find("a.example")
    assert yard.fleet.named("A.example") is expected
    assert yard.fleet.named("w.example") is expected
    assert yard.fleet.named("Whisper") is expected


async def test_a_wrong_or_ambiguous_name_is_answered_with_the_right_ones(yard: Yard) -> None:
    yard.apply(a={"name": "Same"}, b={"name": "Same", "proxyPort": 8002})
    with pytest.raises(UnknownService, match="a.example, b.example"):
        yard.fleet.named("nobody")
    with pytest.raises(UnknownService, match="several"):
        yard.fleet.named("Same")


async def test_waking_and_sleeping_tell_the_status_they_ended_in(yard: Yard) -> None:
    yard.apply(a={})
    await yard.running(8001, "a.example")
    assert (await yard.fleet.wake("a.example")).state == "ready"
    assert (await yard.fleet.sleep("a.example")).state == "stopped"
    assert yard.fleet.start_wake("a.example").state == "starting"
    assert [status.host for status in await yard.fleet.snapshot()] == ["a.example"]


async def test_the_status_says_what_a_sleeping_service_lacks(yard: Yard) -> None:
    yard.apply(a={"cwd": "/no/such/folder"}, b={"proxyPort": 8002})
    lacking, whole = await yard.fleet.snapshot()
    assert lacking.why.startswith("misconfigured: cwd: /no/such/folder: there is no such")
    assert whole.why == "idle"
    yard.backends[8002].shows(Observation(running=False, misconfigured="no service ap"))
    await until(lambda: bool(yard.service("b.example").misconfigured))
    assert (await yard.fleet.snapshot())[1].why == "misconfigured: no service ap"
    yard.backends[8002].shows(Observation(running=False))
    await until(lambda: not yard.service("b.example").misconfigured)
    assert (await yard.fleet.snapshot())[1].why == "idle"


async def test_shutdown_refuses_who_waits_and_lets_the_rest_finish(yard: Yard) -> None:
    yard.apply(a={}, b={"proxyPort": 8002})
    warm = await yard.running(8001, "a.example")
    yard.backends[8002].may_start.clear()
    flowing, held, late = FakeLease(), FakeLease(), FakeLease()
    flowing.claims(warm)
    held.claims(yard.service("b.example"))
    yard.fleet.refuse()
    late.claims(warm)
    assert isinstance((await answered(held)).error, errors.ShuttingDown)
    assert isinstance((await answered(late)).error, errors.ShuttingDown)
    assert flowing.error is None and not flowing.was_cut
    warm.depart(flowing)
    await yard.fleet.close()
    assert all(backend.closed for backend in yard.backends.values())
    assert all("stop" not in backend.calls for backend in yard.backends.values())


async def test_what_a_service_is_made_of_decides_whether_it_is_the_same(yard: Yard) -> None:
    yard.apply(a={"env": {"A": "1"}})
    before = yard.service("a.example")
    yard.apply(a={"env": {"A": "1"}, "name": "other", "maxHeld": 3})
    assert yard.service("a.example") is before
    yard.apply(a={"env": {"A": "2"}})
    assert yard.service("a.example") is not before


async def test_a_fleet_makes_its_own_backends() -> None:
    fleet = Fleet(Journal())
    text = json.dumps({"services": {"a.example": {"command": ["true"], "proxyPort": free_port()}}})
    fleet.apply(parse(text, source="c.json"))
    service = fleet.find("a.example")
    assert service is not None
    service.order_wake()
    await until(lambda: service.status().state == "failed")  # `true` ends at once
    assert "true exited with 0" in service.status().why
    await fleet.close()

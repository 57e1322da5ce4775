"""What clients meet while a service starts, fails to, or stops."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from tests.end_to_end.parts import until
from tests.end_to_end.stage import Stage, set_stage, sign_certificate  # noqa: F401 - fixtures

pytestmark = pytest.mark.docker

HOST = "service.example.org"
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
}


def test_a_request_while_the_container_stops_is_served_by_a_new_start(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("listen",), idleTimeout="100ms", stopTimeout="60s")
    stage.start()
    first = stage.through_nginx.get(HOST)
    stage.proxy.until(HOST, state="stopping")
    until(lambda: "asked to end" in project.output(), "the container is told to end")
    second = stage.soon(stage.through_nginx.get, HOST)
    stage.proxy.until(HOST, held=1)
    assert project.runs(), "it still takes its time, and must not be asked for anything"
    project.allow("end")
    assert second.result().status == 200
    assert second.result().life != first.life
    assert project.starts() == 2


def test_the_idle_time_begins_at_the_end_of_the_last_request(stage: Stage) -> None:
    project = stage.service(HOST, idleTimeout="1s")
    stage.start()
    stream = stage.soon(stage.through_nginx.get, HOST, "/events?30,0.1")
    stage.proxy.until(HOST, state="ready", leases=1, sleeps_in_seconds=None)
    # What comes and goes meanwhile starts no clock.
    assert stage.through_nginx.get(HOST).status == 200
    assert stage.proxy.status(HOST)["sleeps_in_seconds"] is None
    assert stream.result().body.count(b"data: ") == 30
    project.until_stopped()
    assert project.starts() == 1
    ended = stage.proxy.log.until(r"^(\S+) INFO request .* out=\d{4}")[1]
    idle = stage.proxy.log.until(r"^(\S+) INFO state .* from=ready")[1]
    waited = datetime.fromisoformat(idle) - datetime.fromisoformat(ended)
    assert 0.95 < waited.total_seconds() < 3


def test_without_blocking_browsers_get_a_page_and_programs_an_answer_to_try_again(
    stage: Stage,
) -> None:
    project = stage.service(HOST, allowed=("end",), blocking=False, name="The <Service>")
    stage.start()
    page = stage.through_nginx.get(HOST, **BROWSER)
    assert page.status == 503
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert int(page.headers["Retry-After"]) >= 1
    assert "The &lt;Service&gt; is waking up" in page.body.decode()
    refusal = stage.through_nginx.request("POST", HOST, "/echo", b"x" * 100_000)
    assert refusal.status == 503
    assert int(refusal.headers["Retry-After"]) >= 1
    assert refusal.json()["error"] == "starting"
    assert refusal.json()["request_id"] == refusal.headers["X-Request-ID"]
    project.allow("listen")
    stage.proxy.until(HOST, state="ready")
    assert stage.through_nginx.get(HOST, **BROWSER).status == 200
    assert project.starts() == 1


def test_auto_shows_the_page_to_people_and_holds_programs(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("end",), blocking="auto")
    stage.start()
    held = stage.soon(stage.through_nginx.get, HOST)
    stage.proxy.until(HOST, held=1)
    assert stage.through_nginx.get(HOST, **BROWSER).status == 503
    assert not held.done()
    project.allow("listen")
    assert held.result().status == 200
    assert stage.through_nginx.get(HOST, **BROWSER).body == held.result().body


def test_who_has_waited_long_enough_is_told_and_the_start_goes_on(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("end",), startTimeout="3s")
    stage.start()
    first = stage.soon(stage.through_nginx.get, HOST)
    until(project.runs, "the container runs")
    time.sleep(1)  # the others come later, and have as much time
    others = [stage.soon(stage.through_nginx.get, HOST) for _ in range(20)]
    replies = [reply.result() for reply in [first, *others]]
    assert {(reply.status, reply.json()["error"]) for reply in replies} == {(504, "start_timeout")}
    assert all(3 <= each.ended - each.began < 5 for each in replies)
    stage.proxy.log.until("last lines of the service.*waiting until it may listen")
    late = stage.soon(stage.through_nginx.get, HOST)
    project.allow("listen")
    assert late.result().status == 200
    assert project.starts() == 1


def test_a_start_that_takes_longer_than_it_may_is_stopped(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("end",), startTimeout="1s", prepareTimeout="3s")
    stage.start()
    assert stage.through_nginx.get(HOST).status == 504
    assert project.runs()
    project.until_stopped()
    project.allow("listen")
    stage.proxy.command("wake", HOST, "--wait")
    assert stage.through_nginx.get(HOST).status == 200


def test_a_container_that_exits_while_it_starts_is_told_at_once(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("end",))
    stage.start()
    replies = [stage.soon(stage.through_nginx.get, HOST) for _ in range(20)]
    stage.proxy.until(HOST, held=20)
    project.allow("exit", "3")
    for reply in replies:
        assert reply.result().status == 502
        assert reply.result().json()["error"] == "container_exited"
        assert "settings" not in reply.result().body.decode(), "the log is for operators"
    told = datetime.now(UTC)
    ended = datetime.fromisoformat(project.state("FinishedAt")[:26] + "+00:00")
    assert (told - ended).total_seconds() < 2
    stage.proxy.log.until("container_exited.*exited with 3.*cannot find my settings")

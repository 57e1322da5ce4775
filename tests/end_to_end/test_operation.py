"""What operators do while requests are on their way: stop, kill, reconfigure, ask, read the log."""

from __future__ import annotations

import http.client
import json
import signal
import stat
import time

import pytest

from tests.end_to_end.parts import Report, until
from tests.end_to_end.stage import Stage, set_stage, sign_certificate  # noqa: F401 - fixtures

pytestmark = pytest.mark.docker

HOST = "service.example.org"
OTHER = "other.example.org"


def test_sigterm_finishes_what_flows_and_refuses_what_waits(stage: Stage) -> None:
    flowing = stage.service(HOST)
    waiting = stage.service(OTHER, allowed=("end",))
    stage.start()
    report = Report(stage.through_nginx, HOST)
    started = flowing.state("StartedAt")
    held = [stage.soon(stage.through_nginx.get, OTHER) for _ in range(10)]
    stage.proxy.until(OTHER, held=10)
    until(waiting.runs, "the other container starts")

    told = time.monotonic()
    stage.proxy.process.send_signal(signal.SIGTERM)
    for reply in held:
        assert reply.result().status == 503
        assert reply.result().json()["error"] == "shutting_down"
        assert reply.result().headers["Retry-After"]
        assert reply.result().ended - told < 2
    with pytest.raises(ConnectionRefusedError):
        stage.direct.get(HOST)
    assert stage.proxy.alive, "as long as a request is in flight"

    flowing.allow("report")
    finished = time.monotonic()
    assert report.rest() == b"done\n"
    assert stage.proxy.ended() == 0
    assert time.monotonic() - finished < 5, "Nginx's idle connections are nothing to wait for"
    assert flowing.runs()
    assert flowing.state("StartedAt") == started
    assert not stage.proxy.socket.exists()


def test_requests_in_flight_are_given_no_more_than_the_shutdown_time(stage: Stage) -> None:
    project = stage.service(HOST)
    stage.proxy.config["shutdownTimeout"] = "1s"
    stage.start()
    report = Report(stage.direct, HOST)
    told = time.monotonic()
    assert stage.proxy.end(signal.SIGTERM) == 0
    assert 1 <= time.monotonic() - told < 5
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        report.rest()  # cut, and visibly so
    assert project.runs()


def test_a_killed_proxy_comes_back_at_once_and_adopts_what_runs(stage: Stage) -> None:
    running = stage.service(HOST, idleTimeout="3s")
    sleeping = stage.service(OTHER)
    stage.start()
    life = stage.through_nginx.get(HOST).life
    started = running.state("StartedAt")
    assert stage.proxy.end(signal.SIGKILL) == -signal.SIGKILL
    assert stage.through_nginx.get(HOST).status == 502

    began = time.monotonic()
    stage.proxy.start()
    assert time.monotonic() - began < 2
    stage.proxy.until(HOST, state="ready")
    stage.proxy.until(OTHER, state="stopped")
    assert stage.through_nginx.get(HOST).life == life
    assert running.state("StartedAt") == started
    assert not sleeping.runs()
    running.until_stopped()  # adopted with an idle clock
    assert running.starts() == 1


def test_a_proxy_that_is_restarted_during_a_start_holds_requests_until_its_end(
    stage: Stage,
) -> None:
    project = stage.service(HOST, allowed=("end",))
    stage.start()
    lost = stage.soon(stage.through_nginx.get, HOST)
    until(project.runs, "the container starts")
    assert stage.proxy.end(signal.SIGTERM) == 0
    assert lost.result().status == 503
    stage.proxy.start()
    stage.proxy.until(HOST, why="found running, does not answer yet")
    held = stage.soon(stage.through_nginx.get, HOST)
    stage.proxy.until(HOST, held=1)
    project.allow("listen")
    assert held.result().status == 200
    assert project.starts() == 1


def test_a_saved_configuration_is_in_force_at_once(stage: Stage) -> None:
    stage.service(HOST)
    stage.start()
    assert stage.direct.get(OTHER).json()["error"] == "unknown_host"
    stage.service(OTHER)
    stage.proxy.save()
    began = time.monotonic()
    stage.proxy.log.until("configuration in force", times=2)
    assert time.monotonic() - began < 2
    assert stage.direct.get(OTHER).status == 200


def test_sighup_reads_the_configuration_again(stage: Stage) -> None:
    project = stage.service(HOST)
    stage.start()
    life = stage.direct.get(HOST).life
    stage.proxy.process.send_signal(signal.SIGHUP)
    stage.proxy.log.until("configuration in force", times=2)
    assert stage.direct.get(HOST).life == life
    assert project.starts() == 1


def test_an_invalid_configuration_leaves_the_last_good_one_in_force(stage: Stage) -> None:
    stage.service(HOST)
    stage.start()
    good = stage.proxy.file.read_text()
    stage.proxy.file.write_text(good.replace('"proxyPort"', '"proxyPrt"'))
    refused = stage.proxy.log.until(
        r"ERROR configuration refused.*config\.json:(\d+):(\d+).*proxyPrt"
    )
    line = good.splitlines()[int(refused[1]) - 1]
    assert line.index('"proxyPort"') == int(refused[2]) - 1
    assert "proxyPort" in refused.string, "what was probably meant"
    told = len(stage.proxy.log.find("ERROR"))
    assert stage.direct.get(HOST).status == 200

    stage.proxy.file.write_text(good[: len(good) // 2])
    stage.proxy.log.until("ERROR configuration refused", times=told + 1)
    assert stage.direct.get(HOST).status == 200
    stage.proxy.file.unlink()
    stage.proxy.log.until("ERROR configuration refused", times=told + 2)
    assert stage.direct.get(HOST).status == 200

    stage.proxy.config["services"][HOST]["aliases"] = [OTHER]
    stage.proxy.save()
    stage.proxy.log.until("configuration in force", times=2)
    assert stage.direct.get(OTHER).status == 200
    assert len(stage.proxy.log.find("ERROR")) == told + 2, "each fault is told once"


def test_requests_in_flight_outlive_a_change_of_port_and_a_removed_service(stage: Stage) -> None:
    before, after = stage.service(HOST), stage.program()
    stage.start()
    report = Report(stage.through_nginx, HOST)
    stage.configure(HOST, after)
    stage.proxy.save()
    stage.proxy.log.until("configuration in force", times=2)
    new = stage.through_nginx.get(HOST)
    assert new.status == 200
    assert new.life != report.life
    second = Report(stage.through_nginx, HOST)
    assert second.life == new.life

    del stage.proxy.config["services"][HOST]
    stage.proxy.save()
    stage.proxy.log.until("configuration in force", times=3)
    assert stage.through_nginx.get(HOST).status == 404
    for project, flowing in ((before, report), (after, second)):
        project.allow("report")
        assert flowing.rest() == b"done\n"


def test_operators_ask_the_running_proxy(stage: Stage) -> None:
    project = stage.service(HOST, name="The Service", idleTimeout="15m")
    stage.start()
    proxy = stage.proxy
    mode = proxy.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    assert proxy.command("check").endswith("good, 1 service")

    head, row = proxy.command("status").splitlines()
    assert head.split()[:3] == ["HOST", "NAME", "STATE"]
    assert row.split()[:4] == [HOST, "The", "Service", "stopped"]
    assert "ready" in proxy.command("wake", "The Service", "--wait")
    assert project.runs()
    [told] = json.loads(proxy.command("status", "--json"))
    assert (told["state"], told["leases"], told["held"]) == ("ready", 0, 0)
    assert 0 < told["last_start_seconds"] < 60
    assert 840 < told["sleeps_in_seconds"] <= 900
    assert "operator" in told["why"]
    assert "stopped" in proxy.command("sleep", HOST)
    assert not project.runs()
    with pytest.raises(AssertionError, match="nobody.example.org"):
        proxy.command("wake", "nobody.example.org")


def test_each_request_ends_in_one_line_of_the_log(stage: Stage) -> None:
    project = stage.service(HOST, allowed=("end",))
    stage.start()
    held = stage.soon(stage.through_nginx.request, "POST", HOST, "/echo?secret=1", b"12345")
    stage.proxy.until(HOST, held=1)
    project.allow("listen")
    assert held.result().status == 200
    line = stage.proxy.log.until(
        rf"INFO request service={HOST} method=POST path=/echo status=200 in=5 out=5 "
        r"held_ms=(\S+) total_ms=(\S+) id=(\S+) client=127.0.0.1 user_agent="
        r'"[^"]*"$'
    )
    assert 0 < float(line[1]) <= float(line[2])
    warm = stage.through_nginx.get(HOST, "/headers")
    given = dict(warm.json())["X-Request-ID"]
    line = stage.proxy.log.until(rf"request .* held_ms=(\S+) .* id={given} ")
    assert float(line[1]) < 50, "nothing to wait for"
    assert not stage.proxy.log.find("secret")
    moves = [(m[1], m[2]) for m in stage.proxy.log.find(r"state .*from=(\w+) to=(\w+)")]
    assert moves == [("stopped", "starting"), ("starting", "ready")]


def test_the_log_is_json_where_that_is_wanted(stage: Stage) -> None:
    stage.service(HOST)
    stage.proxy.config["log"] = {"format": "json"}
    stage.start()
    assert stage.through_nginx.get(HOST).status == 200
    entry = json.loads(stage.proxy.log.until('"message": "request"').string)
    assert entry["service"] == HOST
    assert (entry["status"], entry["in"], entry["out"]) == (200, 0, 32)
    assert 0 < entry["held_ms"] <= entry["total_ms"]
    assert entry["id"]
    assert stage.proxy.end(signal.SIGTERM) == 0
    for line in stage.proxy.log.lines:
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()

"""Containers as the engine describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends.docker.container import (
    Container,
    config_files,
    leads_to,
    read_container,
    read_listed,
    working_dir,
)

LABELS = {
    "com.docker.compose.project": "p",
    "com.docker.compose.service": "web",
    "com.docker.compose.container-number": "1",
    "com.docker.compose.config-hash": "f00",
    "com.docker.compose.image": "sha256:1",
    "com.docker.compose.depends_on": "db:service_healthy:false",
    "com.docker.compose.project.working_dir": "/a",
    "com.docker.compose.project.config_files": "/a/compose.yaml,/a/over.yaml",
}
SEEN: dict[str, Any] = {
    "Id": "abc",
    "Name": "/p-web-1",
    "Created": "2026-01-02T03:04:05.123456789Z",
    "RestartCount": 2,
    "State": {
        "Status": "exited",
        "ExitCode": 137,
        "OOMKilled": True,
        "Health": None,
        "StartedAt": "0001-01-01T00:00:00Z",
    },
    "Config": {
        "Image": "web:latest",
        "Tty": True,
        "Labels": LABELS,
        "StopTimeout": 40,
        "StopSignal": "SIGQUIT",
    },
    "HostConfig": {
        "NetworkMode": "p_default",
        "PortBindings": {
            "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}, {"HostPort": ""}],
            "8080/tcp": [{"HostIp": "", "HostPort": "9001-9003"}],
            "53/udp": [{"HostPort": "53"}],
            "9000/tcp": None,
        },
    },
    "NetworkSettings": {
        "Ports": {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9002"}], "9000/tcp": None}
    },
}


def read(
    config: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
) -> Container:
    """What is read where these facts differ."""
    return read_container(
        {
            **SEEN,
            "Config": {**SEEN["Config"], **(config or {})},
            "State": {**SEEN["State"], **(state or {})},
            "HostConfig": {**SEEN["HostConfig"], **(host or {})},
        }
    )


def test_what_counts_is_read() -> None:
    found = read()
    assert (found.id, found.name, found.status, found.exit_code) == (
        "abc",
        "p-web-1",
        "exited",
        137,
    )
    assert (found.out_of_memory, found.restarts, found.tty) == (True, 2, True)
    assert (found.project, found.service, found.number) == ("p", "web", "1")
    assert (found.image, found.image_id, found.config_hash) == ("web:latest", "sha256:1", "f00")
    assert found.depends_on == "db:service_healthy:false"
    assert (found.grace_seconds, found.stop_signal) == (40, "SIGQUIT")
    assert found.network_mode == "p_default"
    assert found.created_at == pytest.approx(1767323045.123456)
    assert found.started_at == 0, "it has never been started"
    assert read(state={"StartedAt": "2026-01-02T03:04:06Z"}).started_at == 1767323046
    assert working_dir(found.labels) == "/a"
    assert config_files(found.labels) == [Path("/a/compose.yaml"), Path("/a/over.yaml")]


def test_ports_are_those_it_asks_for_and_while_it_runs_those_it_got() -> None:
    asked = {("127.0.0.1", 8001), ("", 9001), ("", 9002), ("", 9003)}
    assert read().published == asked, "TCP ports that somebody can connect to"
    assert read(state={"Status": "running"}).published == {("0.0.0.0", 9002)}
    assert read(host={"PortBindings": None}).published == frozenset()


@pytest.mark.parametrize(
    ("address", "host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("192.0.2.1", "127.0.0.1", False),
        ("", "192.0.2.1", True),
        ("0.0.0.0", "::1", True),
        ("::", "127.0.0.1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("127.0.0.1", "localhost", True),
        ("192.0.2.1", "localhost", False),
        ("192.0.2.1", "some.example", True),
    ],
)
def test_a_port_leads_to_it_where_its_address_is_the_hosts(
    address: str, host: str, reached: bool
) -> None:
    assert leads_to({(address, 8001)}, host, 8001) is reached
    assert not leads_to({(address, 8001)}, host, 8002)


def test_it_publishes_what_leads_to_it() -> None:
    assert read().publishes("127.0.0.1", 8001)
    assert not read().publishes("192.0.2.1", 8001)


@pytest.mark.parametrize(
    ("status", "runs"),
    [
        ("running", True),
        ("paused", True),
        ("restarting", True),
        ("created", False),
        ("dead", False),
    ],
)
def test_it_runs_from_its_start_to_its_end(status: str, runs: bool) -> None:
    assert read(state={"Status": status}).runs is runs


@pytest.mark.parametrize(
    ("signal", "stop_signal", "ends"),
    [
        ("15", None, True),
        ("9", "SIGUSR1", True),
        ("1", None, False),
        ("10", "SIGTERM", False),
        ("10", "SIGUSR1", True),
        ("12", "USR2", True),
        ("12", "12", True),
    ],
)
def test_a_signal_that_usually_means_a_reload_ends_only_what_asks_to_be_ended_by_it(
    signal: str, stop_signal: str | None, ends: bool
) -> None:
    assert read({"StopSignal": stop_signal}).is_ended_by(signal) is ends


def test_the_lender_of_its_network_is_known() -> None:
    assert read(host={"NetworkMode": "container:f00d"}).lender == "f00d"
    assert read(host={"NetworkMode": "host"}).lender == ""


def test_what_was_made_to_replace_another_says_so() -> None:
    assert read({"Labels": {**LABELS, "com.docker.compose.replace": "abc"}}).is_replacement
    assert not read().is_replacement


@pytest.mark.parametrize(
    ("told", "health"),
    [
        (None, None),
        ({}, None),
        ({"Status": "none"}, None),
        ({"Status": ""}, None),
        ({"Status": "starting"}, "starting"),
        ({"Status": "healthy"}, "healthy"),
    ],
)
def test_a_healthcheck_that_is_switched_off_is_none(told: Any, health: str | None) -> None:
    assert read(state={"Health": told}).health == health


def test_a_container_without_labels_belongs_to_nobody() -> None:
    bare = {
        **SEEN,
        "Config": {"Image": "web"},
        "HostConfig": {"PortBindings": None},
        "State": {**SEEN["State"], "StartedAt": None},
    }
    del bare["RestartCount"], bare["Created"], bare["NetworkSettings"]
    found = read_container(bare)
    assert found.project == found.service == found.number == found.config_hash == ""
    assert found.image_id == found.depends_on == found.stop_signal == found.network_mode == ""
    assert working_dir(found.labels) == "" and config_files(found.labels) == []
    assert (found.published, found.restarts, found.tty) == (frozenset(), 0, False)
    assert (found.grace_seconds, found.created_at) == (None, 0)
    running = {**bare, "State": {**SEEN["State"], "Status": "running"}}
    assert read_container(running).published == frozenset()


def test_the_list_tells_where_a_container_comes_from_and_what_leads_to_it() -> None:
    listed = read_listed(
        {
            "Id": "abc",
            "Names": ["/p-web-1"],
            "Labels": LABELS,
            "State": "running",
            "Ports": [
                {"IP": "127.0.0.1", "PublicPort": 8001, "PrivatePort": 80, "Type": "tcp"},
                {"PublicPort": 53, "PrivatePort": 53, "Type": "udp"},
                {"PrivatePort": 81, "Type": "tcp"},
            ],
        }
    )
    assert (listed.id, listed.name, listed.status) == ("abc", "p-web-1", "running")
    assert listed.published == {("127.0.0.1", 8001)}
    assert str(listed) == "container p-web-1 (project p, folder /a)"


def test_the_list_may_tell_next_to_nothing() -> None:
    listed = read_listed({"Id": "abcdefabcdefabcdef"})
    assert str(listed) == "container abcdefabcdef"
    assert (listed.labels, listed.status, listed.published) == ({}, "", frozenset())

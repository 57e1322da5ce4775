"""Containers as the engine describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autostart_proxy.backends.docker.container import read_container

SEEN: dict[str, Any] = {
    "Id": "abc",
    "Name": "/p-web-1",
    "RestartCount": 2,
    "State": {"Status": "exited", "ExitCode": 137, "OOMKilled": True, "Health": None},
    "Config": {
        "Image": "web:latest",
        "Tty": True,
        "Labels": {
            "com.docker.compose.project": "p",
            "com.docker.compose.service": "web",
            "com.docker.compose.config-hash": "f00",
            "com.docker.compose.image": "sha256:1",
            "com.docker.compose.depends_on": "db:service_healthy:false",
            "com.docker.compose.project.config_files": "/a/compose.yaml,/a/over.yaml",
        },
    },
    "HostConfig": {
        "PortBindings": {
            "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}, {"HostPort": ""}],
            "53/udp": [{"HostPort": "53"}],
            "9000/tcp": None,
        }
    },
}


def test_what_counts_is_read() -> None:
    read = read_container(SEEN)
    assert (read.id, read.name, read.status, read.exit_code) == ("abc", "p-web-1", "exited", 137)
    assert (read.out_of_memory, read.restarts, read.tty) == (True, 2, True)
    assert read.ports == {8001}, "TCP ports that somebody can connect to"
    assert (read.project, read.service, read.config_hash) == ("p", "web", "f00")
    assert (read.image, read.image_id) == ("web:latest", "sha256:1")
    assert read.depends_on == "db:service_healthy:false"
    assert read.config_files == [Path("/a/compose.yaml"), Path("/a/over.yaml")]


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
    seen = {**SEEN, "State": {**SEEN["State"], "Health": told}}
    assert read_container(seen).health == health


def test_a_container_without_labels_belongs_to_nobody() -> None:
    seen = {**SEEN, "Config": {"Image": "web"}, "HostConfig": {"PortBindings": None}}
    del seen["RestartCount"]
    read = read_container(seen)
    assert read.project == read.service == read.config_hash == read.image_id == ""
    assert (read.config_files, read.ports, read.restarts, read.tty) == ([], frozenset(), 0, False)

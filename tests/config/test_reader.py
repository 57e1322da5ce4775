"""What the configuration file means."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from autostart_proxy.config.model import Config, HealthConfig, LogConfig, ServiceConfig
from autostart_proxy.config.reader import parse
from tests.config.files import parsed, problem, problems, service

SEED = """\
{"services": {"whisper.example.org": {"name": "Whisper API (faster-whisper)", \
"composeDir": "/opt/whisper-faster", "proxyPort": 8001, "blocking": true, \
"containers": ["faster-whisper"]}}}
"""


def test_a_file_in_the_old_format_loads_unchanged() -> None:
    config = parse(SEED, source="config.json")
    assert config == Config(
        services={
            "whisper.example.org": ServiceConfig(
                name="Whisper API (faster-whisper)",
                compose_dir=Path("/opt/whisper-faster"),
                proxy_port=8001,
                blocking=True,
                containers=("faster-whisper",),
            )
        }
    )


def test_what_is_not_said_has_its_default() -> None:
    config = parsed(services={"A.example.": service()})
    assert list(config.services) == ["a.example"]
    one = config.services["a.example"]
    assert one.name == "A.example."
    assert (one.aliases, one.containers, one.command, one.cwd, one.env) == (
        (),
        None,
        None,
        None,
        {},
    )
    assert (one.proxy_host, one.blocking) == ("127.0.0.1", True)
    assert (one.start_timeout, one.prepare_timeout, one.idle_timeout) == (30, 900, 900)
    assert (one.stop_timeout, one.drain_timeout) == (None, 30)
    assert (one.max_body, one.max_held) == (None, 1000)
    assert config.listen == "127.0.0.1:8890"
    assert config.trusted_proxies == (ip_network("127.0.0.1"), ip_network("::1"))
    assert config.control_socket is None
    assert config.log == LogConfig(format="text", level="info")
    assert config.shutdown_timeout == 30


def test_ready_is_any_answer_below_500_unless_told_otherwise() -> None:
    assert all(HealthConfig().accepts(status) for status in (101, 200, 302, 401, 404, 499))
    assert not any(HealthConfig().accepts(status) for status in (500, 502, 503))
    strict = HealthConfig(status=((200, 299), (401, 401)))
    assert [s for s in (199, 200, 299, 300, 400, 401, 402) if strict.accepts(s)] == [200, 299, 401]


def test_every_key_is_read() -> None:
    config = parsed(
        listen="unix:/run/a/http.sock",
        trustedProxies=["10.0.0.0/8"],
        controlSocket="/run/a/control.sock",
        log={"format": "json", "level": "debug"},
        shutdownTimeout="1m",
        services={
            "a.example": {
                "name": "A",
                "aliases": ["B.example", "[::1]"],
                "command": ["/opt/a/run", "--port", "8001"],
                "cwd": "/opt/a",
                "env": {"LOG": "info"},
                "proxyPort": 8001,
                "proxyHost": "localhost",
                "blocking": "auto",
                "startTimeout": 5,
                "prepareTimeout": "1h",
                "idleTimeout": None,
                "stopTimeout": 0,
                "drainTimeout": "500ms",
                "health": {"path": "/health", "status": [200, "301-302"]},
                "maxBody": "1MB",
                "maxHeld": 3,
            }
        },
    )
    assert config == Config(
        listen="unix:/run/a/http.sock",
        trusted_proxies=(ip_network("10.0.0.0/8"),),
        control_socket=Path("/run/a/control.sock"),
        log=LogConfig(format="json", level="debug"),
        shutdown_timeout=60,
        services={
            "a.example": ServiceConfig(
                name="A",
                aliases=("b.example", "[::1]"),
                command=("/opt/a/run", "--port", "8001"),
                cwd=Path("/opt/a"),
                env={"LOG": "info"},
                proxy_port=8001,
                proxy_host="localhost",
                blocking="auto",
                start_timeout=5,
                prepare_timeout=3600,
                idle_timeout=None,
                stop_timeout=0,
                drain_timeout=0.5,
                health=HealthConfig(path="/health", status=((200, 200), (301, 302))),
                max_body=1_000_000,
                max_held=3,
            )
        },
    )


def test_a_configuration_cannot_be_changed() -> None:
    config = parse(SEED, source="config.json")
    with pytest.raises(ValidationError, match="frozen"):
        config.listen = "0.0.0.0:80"  # type: ignore[misc]


@pytest.mark.parametrize("source", ["config.yaml", "/etc/a/config.yml"])
def test_yaml_is_told_by_the_name_of_the_file(source: str) -> None:
    text = yaml.safe_dump(json.loads(SEED))
    assert parse(text, source=source) == parse(SEED, source="config.json")
    assert problems(text, "config.conf") == ["config.conf:1:1: expected a value"]


def test_a_schema_may_be_named() -> None:
    assert parsed(services={}, **{"$schema": "./config.schema.json"}) == Config(services={})


# Defaults for all services.


def test_defaults_hold_where_a_service_says_nothing() -> None:
    config = parsed(
        defaults={"idleTimeout": "5m", "startTimeout": 1, "proxyHost": "10.0.0.2"},
        services={"a": service(), "b": service(composeDir="/opt/b", proxyPort=2, startTimeout=7)},
    )
    a, b = config.services["a"], config.services["b"]
    assert (a.idle_timeout, a.start_timeout, a.proxy_host) == (300, 1, "10.0.0.2")
    assert (b.idle_timeout, b.start_timeout, b.proxy_host) == (300, 7, "10.0.0.2")


def test_null_in_a_service_stands_against_the_defaults() -> None:
    config = parsed(defaults={"idleTimeout": "5m"}, services={"a": service(idleTimeout=None)})
    assert config.services["a"].idle_timeout is None


def test_health_and_env_are_merged_key_by_key() -> None:
    config = parsed(
        defaults={"health": {"path": "/up", "status": 200}, "env": {"A": "1", "B": "1"}},
        services={
            "a": {"command": ["x"], "proxyPort": 1, "health": {"status": 204}, "env": {"B": "2"}}
        },
    )
    assert config.services["a"].health == HealthConfig(path="/up", status=((204, 204),))
    assert config.services["a"].env == {"A": "1", "B": "2"}


def test_a_command_stands_against_a_compose_project_of_the_defaults_and_vice_versa() -> None:
    config = parsed(
        defaults={"composeDir": "/opt/all", "containers": ["x"]},
        services={"a": {"command": ["x"], "proxyPort": 1}, "b": {"proxyPort": 2}},
    )
    assert config.services["a"].compose_dir is None
    assert config.services["a"].containers is None
    assert config.services["b"].compose_dir == Path("/opt/all")
    config = parsed(
        defaults={"command": ["x"], "env": {"A": "1"}, "cwd": "/"}, services={"a": service()}
    )
    assert config.services["a"].command is None
    assert config.services["a"].env == {}


def test_a_port_may_come_from_the_defaults() -> None:
    config = parsed(defaults={"proxyPort": 9}, services={"a": {"command": ["x"]}})
    assert config.services["a"].proxy_port == 9


def test_a_problem_in_the_defaults_is_told_once() -> None:
    words = problem(
        defaults={"proxyPort": 0},
        services={"a": {"command": ["x"]}, "b": {"command": ["x"]}},
    )
    assert words == "defaults.proxyPort: expected a whole number from 1 to 65535; for example 8001"

"""Every problem in the configuration file at once, each with its place and its cure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autostart_proxy.config.model import ServiceConfig, schema
from autostart_proxy.config.reader import parse, read
from autostart_proxy.errors import ConfigError
from tests.config.files import parsed, problem, problems, service


def test_every_problem_is_told_with_file_line_column_key_and_cure() -> None:
    text = """\
{
  "listen": "8890",
  "services": {
    "a.example": {
      "composedir": "/opt/a",
      "proxyPort": "8001",
      "startTimeout": "30 s"
    },
    "b c": {"composeDir": "../b", "proxyPort": 8002}
  },
  "health": {}
}
"""
    assert problems(text, "/etc/autostart-proxy/config.json") == [
        "/etc/autostart-proxy/config.json:" + line
        for line in (
            '2:13: listen: expected an address and a port; for example "127.0.0.1:8890"'
            ' or "unix:/run/autostart-proxy/http.sock"',
            '5:7: services["a.example"].composedir: unknown key; did you mean composeDir?',
            '6:20: services["a.example"].proxyPort: expected a whole number from 1 to 65535;'
            " for example 8001",
            '7:23: services["a.example"].startTimeout: expected seconds, or a duration with its'
            ' unit; for example "30s"',
            '9:5: services["b c"]: this is not a host name',
            '9:27: services["b c"].composeDir: expected an absolute path;'
            ' for example "/opt/whisper-faster"',
            "11:3: health: unknown key; it belongs to a service, or to `defaults`",
        )
    ]


def test_a_list_is_told_of_where_it_stands_although_the_defaults_have_a_shorter_one() -> None:
    text = """\
{
  "defaults": {"command": []},
  "services": {"a.example": {"command": [3], "proxyPort": 8001}}
}
"""
    first, second = problems(text)
    assert first.startswith("config.json:2:27: defaults.command: expected a list")
    assert second.startswith('config.json:3:42: services["a.example"].command: item 1: expected')


def test_problems_in_yaml_have_their_places_too() -> None:
    text = "services:\n  a.example:\n    composeDir: /opt/a\n    proxyPort: 8001\n    maxbody: 1\n"
    assert problems(text, "c.yaml") == [
        'c.yaml:5:5: services["a.example"].maxbody: unknown key; did you mean maxBody?'
    ]


def test_a_syntax_error_is_the_only_problem() -> None:
    assert problems('{"services": {},}') == [
        "config.json:1:17: a comma before a closing bracket; remove the comma"
    ]


@pytest.mark.parametrize("text", ["[]", "3", "null", '"services"'])
def test_a_file_that_is_no_object_is_refused(text: str) -> None:
    assert problems(text) == ["config.json:1:1: expected an object with keys and values"]


def test_a_file_without_services_is_refused() -> None:
    assert problems("{}") == ['config.json:1:1: services: missing; write at least "services": {}']


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"compose_dir": "/x"}, "services.a.compose_dir: unknown key; did you mean composeDir?"),
        ({"port": 1}, "services.a.port: unknown key; did you mean proxyPort?"),
        (
            {"listen": "x"},
            "services.a.listen: unknown key; it belongs to the top level of the file",
        ),
        ({"$(id)": 1}, 'services.a["$(id)"]: unknown key; known here: aliases, blocking, body'),
        ({"health": 3}, "services.a.health: expected an object with keys and values"),
        ({"health": {"url": "/"}}, "services.a.health.url: unknown key; known here: path, status"),
        ({"aliases": "b"}, 'services.a.aliases: expected a list; for example ["stt.example.org"]'),
        (
            {"aliases": ["b:1"]},
            "services.a.aliases: item 1: a host stands here, without",
        ),
        ({"containers": []}, "services.a.containers: expected a list that is not empty"),
        ({"containers": ["-f"]}, "services.a.containers: item 1: expected the name of a service"),
        ({"blocking": "Auto"}, 'services.a.blocking: expected true, false or "auto"'),
        ({"blocking": 1}, 'services.a.blocking: expected true, false or "auto"'),
        ({"name": None}, "services.a.name: expected a line of text"),
        ({"proxyPort": 1.0}, "services.a.proxyPort: expected a whole number from 1 to 65535"),
        ({"health": {"status": 99}}, "services.a.health.status: expected a status, a range"),
        (
            {"health": {"status": [200, 99]}},
            "services.a.health.status: item 2: expected a status, a range",
        ),
        (
            {"composeDir": None, "command": ["x"], "env": 3},
            "services.a.env: expected an object with keys and values; for example",
        ),
        ({"startTimeout": 0}, "services.a.startTimeout: expected more than 0 seconds; for example"),
        ({"startTimeout": None}, "services.a.startTimeout: expected seconds, or a duration"),
        ({"env": {"A": "1"}}, "services.a.env: means something only with command; remove it"),
        ({"cwd": "/"}, "services.a.cwd: means something only with command; remove it"),
        ({"command": ["x"]}, "services.a.command: a service has either composeDir or command"),
        ({"composeDir": None}, "services.a.composeDir: missing; a service has either"),
        (
            {"composeDir": None, "command": ["x"], "containers": ["c"]},
            "services.a.containers: means something only with composeDir; remove it",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_refused(keys: dict[str, Any], words: str) -> None:
    assert problem(services={"a": service(**keys)}).startswith(words)


def test_a_group_is_for_a_unix_socket_alone() -> None:
    assert problem(services={}, listenGroup="www-data").startswith(
        'listenGroup: means something only with "listen": "unix:/path"; remove it'
    )
    assert problem(services={}, listenGroup="a b", listen="unix:/run/a").startswith(
        "listenGroup: expected the name of a group"
    )


JSON = '{"services": {"a": {"command": ["x"], "proxyPort": 1, "env": ENV}}}'
YAML = "services:\n  a:\n    command: [x]\n    proxyPort: 1\n    env:\n      ENV\n"
SECRETS = [
    *('{"A": "sesame" x}', '{"A": sesame}', '{"A": "sesame\n"}', '{"A": "\\q sesame"}', '"sesame"'),
    *('["sesame"]', '{"A": ["sesame"]}', '{"A": {"x": "sesame"}}', '{"A": "sesame\\u0000"}'),
    *('{"A": "sesame", "A": 1}', '{"A": "sesame', '{"A": "sesame\\ud800"}', "{'A': 'sesame'}"),
    *('{"A=sesame": ""}', '{"A=sesame": 1, "A=sesame": ""}', '{"A": "1", "A=sesame": "1"}'),
]
YAML_SECRETS = [
    *("A: *sesame", "A: !sesame x", "A: !x!sesame x", "A: !!sesame x", "A: 'sesame", "A: @sesame"),
    *("A: %sesame", "A: sesame: x", "A: {sesame", "A: &sesame", "- sesame", "sesame", "A: `sesame"),
    *("A: &sesame x\n      B: &sesame y", "A: |9sesame", "? [sesame]\n      : 1", "A=sesame: 1"),
    *("A: !!int sesame", "A: !!binary sesame", "A: 1:sesame", "A: !<sesame> x", "A: *sesame x"),
]


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.json", JSON.replace("ENV", each)) for each in SECRETS]
    + [("c.yaml", YAML.replace("ENV", each)) for each in YAML_SECRETS],
)
def test_what_stands_in_env_is_repeated_in_no_message(name: str, text: str) -> None:
    assert "sesame" in text
    try:
        config = parse(text, source=name)
    except ConfigError as error:
        assert "sesame" not in str(error)
        assert error.problems
    else:  # some of it is a value
        assert config.services["a"].env


@pytest.mark.parametrize("folder", ["../x", "-f", "$(id)", "~/x", "x", "/opt/../x"])
def test_a_compose_folder_that_is_no_plain_absolute_path_is_refused(folder: str) -> None:
    words = problem(services={"a": service(composeDir=folder)})
    assert words.startswith("services.a.composeDir: ")


def test_a_service_without_port_is_refused() -> None:
    words = problem(services={"a": {"composeDir": "/opt/a"}})
    assert words == "services.a.proxyPort: missing; write the port on which the service listens"


def test_a_service_that_is_no_object_is_refused() -> None:
    assert problem(services={"a": 3}) == "services.a: expected an object with keys and values"
    assert problem(services=[]) == "services: expected an object with keys and values"


def test_keys_that_null_switches_off_are_no_contradiction() -> None:
    config = parsed(services={"a": service(command=None, cwd=None)})
    assert config.services["a"].compose_dir == Path("/opt/a")


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ({"log": {"level": "loud"}}, 'log.level: expected "debug", "info", "warning" or "error"'),
        ({"log": {"lvl": "info"}}, "log.lvl: unknown key; did you mean level?"),
        ({"log": "json"}, "log: expected an object with keys and values"),
        ({"listne": "x"}, "listne: unknown key; did you mean listen?"),
        ({"idleTimeout": 1}, "idleTimeout: unknown key; it belongs to a service, or to `defaults`"),
        ({"trustedProxies": ["x"]}, "trustedProxies: item 1: expected an IP address or a network"),
        ({"$schema": 3}, '["$schema"]: expected a string'),
        ({"defaults": 3}, "defaults: expected an object with keys and values"),
        ({"defaults": {"port": 1}}, "defaults.port: unknown key; did you mean proxyPort?"),
        ({"defaults": {"health": {"path": "x"}}}, "defaults.health.path: expected a path that"),
        ({"defaults": {"health": 3}}, "defaults.health: expected an object with keys and values"),
        ({"defaults": {"aliases": ["x", "b c"]}}, "defaults.aliases: item 2: this is not a host"),
    ],
)
@pytest.mark.parametrize("services", [{}, {"a": service()}])
def test_a_setting_that_does_not_fit_is_refused_once(
    services: dict[str, Any], top: dict[str, Any], words: str
) -> None:
    assert problem(services=services, **top).startswith(words)


def test_members_are_told_apart_where_they_stand() -> None:
    text = """\
services:
  a:
    command: [x, 8001]
    proxyPort: 8001
    aliases:
      - b
      - b c
    env:
      PORT: 8001
      A B: x
"""
    assert problems(text, "c.yaml") == [
        "c.yaml:3:18: services.a.command: item 2: expected a string; put numbers in quotes",
        "c.yaml:7:9: services.a.aliases: item 2: this is not a host name; for example"
        ' ["stt.example.org"]',
        "c.yaml:9:13: services.a.env.PORT: expected a string; put numbers in quotes",
        "c.yaml:10:7: services.a.env: expected a name of letters, digits and _, not a digit"
        ' first; for example {"LOG_LEVEL": "info"}',
    ]


KEYS = st.sampled_from([*schema()["$defs"]["ServiceConfig"]["properties"], "path", "status", "x"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["/opt/a", "30s", "auto", "200-299", "a", "1MB", "\0", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TOP = st.sampled_from([*schema()["properties"], "format", "level"])
SERVICES = st.dictionaries(KEYS, VALUES) | VALUES


@given(st.dictionaries(TOP, VALUES), st.dictionaries(KEYS, SERVICES, max_size=3), SERVICES)
def test_whatever_is_written_is_read_or_refused_with_its_place(
    top: dict[str, Any], services: dict[str, Any], defaults: object
) -> None:
    text = json.dumps({**top, "services": services, "defaults": defaults}, indent=1)
    try:
        config = parse(text, source="c")
    except ConfigError as error:
        lines = text.splitlines()
        for problem in error.problems:
            _, line, column, words = problem.split(":", 3)
            assert lines[int(line) - 1][int(column) - 1 :].strip(), words
            assert "Input should" not in words
    else:
        assert all(one.proxy_port for one in config.services.values())


# What only one service may have.


def test_a_doubled_key_is_refused_where_it_stands_again() -> None:
    text = '{"services": {\n"a": {},\n"a": {}}}'
    text = text.replace("{}", '{"command": ["x"], "proxyPort": 1}', 1)
    assert problems(text) == ["config.json:3:1: services.a: stands in line 2 already; remove one"]


@pytest.mark.parametrize(
    "second",
    [
        {"A.EXAMPLE.": service(composeDir="/opt/b", proxyPort=8002)},
        {"b.example": service(composeDir="/opt/b", proxyPort=8002, aliases=["A.example"])},
    ],
)
def test_a_host_belongs_to_one_service(second: dict[str, Any]) -> None:
    words = problem(services={"a.example": service(), **second})
    owner = 'services["a.example"]'
    assert f"a.example stands at {owner} already; a host belongs to one service" in words


def test_what_a_service_takes_counts_even_where_the_rest_of_it_is_wrong() -> None:
    wrong = service(maxHeld=0, aliases=["c"])
    second = service(startTimeout=0, aliases=["c"])
    lines = problems(json.dumps({"services": {"a": wrong, "b": second}}))
    assert sorted(line.split(": ")[1] for line in lines) == [
        "services.a.maxHeld",
        "services.b.aliases",
        "services.b.composeDir",
        "services.b.proxyPort",
        "services.b.startTimeout",
    ]


def test_what_could_not_be_read_takes_nothing_away() -> None:
    wrong = {"composeDir": "x", "proxyPort": 0}
    lines = problems(json.dumps({"services": {"a": wrong, "b": wrong, "c d": 3}}))
    assert [line.split(": ")[1] for line in lines] == [
        "services.a.composeDir",
        "services.a.proxyPort",
        "services.b.composeDir",
        "services.b.proxyPort",
        'services["c d"]',
        'services["c d"]',
    ]
    unread = service(containers=[])
    [words] = problems(json.dumps({"services": {"a": unread, "b": service(proxyPort=2)}}))
    assert "containers: expected a list that is not empty" in words


def test_an_alias_is_listed_once() -> None:
    assert "b stands at" in problem(services={"a": service(aliases=["b", "B."])})
    assert "a stands at" in problem(services={"a": service(aliases=["a"])})


def test_a_port_belongs_to_one_service() -> None:
    words = problem(services={"a": service(), "b": service(composeDir="/opt/b")})
    assert words.startswith("services.b.proxyPort: port 8001 is used by services.a; give it")
    elsewhere = service(composeDir="/opt/b", proxyHost="10.0.0.2")
    assert len(parsed(services={"a": service(), "b": elsewhere}).services) == 2


@pytest.mark.parametrize("listen", ["127.0.0.1:8001", "0.0.0.0:8001", "[::1]:8001"])
def test_the_port_of_the_proxy_is_its_own(listen: str) -> None:
    words = problem(listen=listen, services={"a": service()})
    assert "port 8001 is used by the proxy itself" in words


def test_other_places_to_listen_take_no_port_away() -> None:
    for listen in ("unix:/run/a.sock", "10.0.0.1:8001"):
        assert parsed(listen=listen, services={"a": service()}).listen == listen


def test_services_of_one_project_must_not_share_containers() -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"containers": ["x"]}, {}),
        ({}, {"containers": ["x"]}),
        ({"containers": ["x", "y"]}, {"containers": ["y", "z"]}),
    ]
    for one, other in cases:
        words = problem(services={"a": service(**one), "b": service(proxyPort=2, **other)})
        assert words.startswith("services.b.composeDir: services.a has containers of the same")
    apart = parsed(
        services={
            "a": service(containers=["x"]),
            "b": service(containers=["y"], proxyPort=2),
        }
    )
    assert len(apart.services) == 2


# What is asked about a service from outside.


def test_a_service_is_inspected_once_it_is_well_formed() -> None:
    seen: list[str] = []

    def inspect(services: Mapping[str, ServiceConfig]) -> Iterator[tuple[str, str, str]]:
        seen.extend(services)
        yield "a", "composeDir", "there is no such folder"
        yield "a", "cwd", "nor this"

    services = {"a": service(), "b": service(composeDir="/opt/b", proxyPort=0)}
    with pytest.raises(ConfigError) as caught:
        read(json.dumps({"services": services}), source="c", inspect=inspect)
    assert seen == ["a"]
    assert [line.split(": ", 1)[1] for line in caught.value.problems] == [
        "services.a.cwd: nor this",
        "services.a.composeDir: there is no such folder",
        "services.b.proxyPort: expected a whole number from 1 to 65535; for example 8001",
    ]


def test_what_is_minded_about_one_service_does_not_refuse_the_others() -> None:
    def inspect(services: Mapping[str, ServiceConfig]) -> Iterator[tuple[str, str, str]]:
        for host, one in services.items():
            if one.proxy_port == 2:
                yield host, "composeDir", "there is no such folder"

    services = {"a": service(), "B.example": service(composeDir="/opt/b", proxyPort=2)}
    reading = read(json.dumps({"services": services}, indent=1), source="c", inspect=inspect)
    assert set(reading.config.services) == {"a", "b.example"}
    (mistake,) = reading.mistakes["b.example"]
    assert mistake == 'c:8:4: services["B.example"].composeDir: there is no such folder'
    assert set(reading.mistakes) == {"b.example"}


def test_no_value_of_the_environment_is_ever_repeated() -> None:
    for env in ({"TOKEN": 12345}, {"TOKEN": ["12345"]}, {"12345": "x"}, "12345"):
        words = problem(services={"a": {"command": ["x"], "proxyPort": 1, "env": env}})
        assert "12345" not in words or env == {"12345": "x"}


def test_env_is_not_shown_with_what_has_it() -> None:
    config = parsed(services={"a": service(composeDir=None, command=["x"], env={"A": "sesame"})})
    assert config.services["a"].env == {"A": "sesame"}
    shown = (config, config.services["a"], config.services["a"].unit)
    assert "sesame" not in "".join(f"{each!r} {each}" for each in shown)

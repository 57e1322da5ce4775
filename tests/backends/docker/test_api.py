"""The calls of the engine: what is asked, and what each kind of answer means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from autostart_proxy.backends.docker import api
from autostart_proxy.backends.docker.api import (
    DockerClient,
    DockerRefusal,
    docker_host,
    is_loopback,
    own_grace_seconds,
)
from autostart_proxy.backends.docker.container import Container, read_container, read_listed
from autostart_proxy.errors import BackendUnreachable
from tests.backends.docker.engine import ScriptedEngine, reply, scripted_engine
from tests.backends.docker.test_container import SEEN, read

WEB: Container = read_container({**SEEN, "Config": {"Image": "web"}})
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine(tmp_path) as engine:
        yield engine


@pytest.fixture
def client(engine: ScriptedEngine) -> DockerClient:
    return DockerClient(engine.address)


def asked(engine: ScriptedEngine, at: int = -1) -> tuple[str, str, dict[str, str]]:
    """Method, path and query of a request."""
    method, target, _ = engine.asked[at].splitlines()[0].split(" ")
    url = urlsplit(target)
    return method, url.path, {key: value for key, [value] in parse_qs(url.query).items()}


async def test_the_containers_of_compose_projects_are_listed_by_their_labels(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(reply(b'[{"Id": "abc", "Names": ["/a"]}]'))
    assert await client.compose_containers() == [read_listed({"Id": "abc", "Names": ["/a"]})]
    method, path, query = asked(engine)
    assert (method, path, query["all"]) == ("GET", "/containers/json", "1")
    assert json.loads(query["filters"]) == {
        "label": ["com.docker.compose.project", "com.docker.compose.oneoff=False"]
    }


async def test_what_runs_is_listed_whoever_it_belongs_to(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(reply(b'[{"Id": "abc"}]'))
    assert [each.id for each in await client.running_containers()] == ["abc"]
    assert asked(engine) == ("GET", "/containers/json", {})


async def test_a_container_is_looked_at_by_its_id_or_name_unless_it_is_gone(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(reply(json.dumps(SEEN).encode()), reply(b"{}", "404 Not Found"))
    engine.says(reply(b"{}", "403 Forbidden"))
    assert await client.container("abc") == read_container(SEEN)
    assert asked(engine)[1] == "/containers/abc/json"
    assert await client.container("abc") is None
    with pytest.raises(DockerRefusal):
        await client.container("abc")


async def test_what_changes_something_is_asked_by_id(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(NOTHING, NOTHING, NOTHING)
    await client.start(WEB)
    await client.unpause(WEB)
    await client.stop(WEB, 1.2)
    assert [asked(engine, at)[:2] for at in range(3)] == [
        ("POST", "/containers/abc/start"),
        ("POST", "/containers/abc/unpause"),
        ("POST", "/containers/abc/stop"),
    ]
    assert asked(engine)[2] == {"t": "2"}, "a grace period is whole seconds, and never less"


async def test_a_container_is_given_the_time_that_it_asks_for_itself(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(NOTHING)
    await client.stop(WEB, None)
    assert asked(engine)[2] == {}, "the engine knows"


@pytest.mark.parametrize(("asked_for", "seconds"), [(None, 10), (40, 40), (0, 0), (-1, 900)])
def test_a_containers_own_grace_period_is_known_for_the_calls_own_limit(
    asked_for: int | None, seconds: float
) -> None:
    assert own_grace_seconds(read({"StopTimeout": asked_for})) == seconds


async def test_a_stop_may_take_as_long_as_the_container_asks_for(
    engine: ScriptedEngine, client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "ACT_SECONDS", 0.1)
    engine.says([0.5, NOTHING], [0.5, NOTHING])
    await client.stop(read({"StopTimeout": 1}), None)
    with pytest.raises(BackendUnreachable):
        await client.stop(read({"StopTimeout": 1}), 0)


async def test_already_so_is_a_success_and_gone_cannot_be_stopped_any_more(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(b"HTTP/1.1 304 Not Modified\r\n\r\n", reply(b"{}", "404 Not Found"))
    await client.start(WEB)
    await client.stop(WEB, 1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message": "port is already allocated"}', "port is already allocated"),
        (b"plain words", "plain words"),
        (b"", "status 500"),
        (b'{"message": 3}', "3"),
        (b"[]", "[]"),
    ],
)
async def test_a_no_is_told_in_the_engines_words_with_the_call(
    engine: ScriptedEngine, client: DockerClient, body: bytes, words: str
) -> None:
    engine.says(reply(body, "500 Internal Server Error"))
    with pytest.raises(DockerRefusal) as refusal:
        await client.start(WEB)
    assert refusal.value.status == 500
    assert refusal.value.message == words
    assert str(refusal.value) == f"{words} (POST /containers/abc/start: 500)"


async def test_an_images_id_is_what_its_name_means_now(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(reply(b'{"Id": "sha256:1"}'))
    assert await client.image_id("registry.example/web:1") == "sha256:1"
    assert asked(engine)[1] == "/images/registry.example/web%3A1/json"


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "500 Oh No"])
async def test_an_image_that_the_engine_does_not_show_is_unknown_and_no_trouble(
    engine: ScriptedEngine, client: DockerClient, status: str
) -> None:
    engine.says(reply(b'{"message": "no"}', status))
    assert await client.image_id("web") is None


async def test_the_last_lines_are_taken_out_of_their_frames(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    frames = b"".join(
        bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
        for stream, data in ((1, b"one\ntw"), (2, b"o\n"))
    )
    engine.says(reply(frames), reply(b"raw\n"), reply(b"{}", "501 Not Implemented"))
    assert await client.log_tail(WEB) == ("one", "two")
    terminal = read_container({**SEEN, "Config": {"Image": "web", "Tty": True}})
    assert await client.log_tail(terminal) == ("raw",)
    assert await client.log_tail(WEB) == (), "its log driver keeps them"


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"nonsense\r\n\r\n",
        reply(b"no JSON"),
    ],
    ids=["nothing", "half a body", "half a chunk", "no HTTP", "no JSON"],
)
async def test_what_is_no_answer_is_an_engine_that_is_not_there(
    engine: ScriptedEngine, client: DockerClient, script: bytes
) -> None:
    engine.says(script)
    with pytest.raises(BackendUnreachable, match=f"{engine.address} failed") as silence:
        await client.image_id("web")
    assert "(GET /images/web/json)" in str(silence.value)


async def test_an_answer_may_end_with_its_connection(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    engine.says(b'HTTP/1.0 200 OK\r\n\r\n{"Id": "x"}')
    assert await client.image_id("web") == "x"


async def test_silence_is_given_up_after_its_time(
    engine: ScriptedEngine, client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "ACT_SECONDS", 0.05)
    engine.says([60.0])
    with pytest.raises(BackendUnreachable, match="did not answer in time"):
        await client.stop(WEB, 0.0)


async def test_events_are_lines_of_json_however_they_are_cut(
    engine: ScriptedEngine, client: DockerClient
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    first, second = b'{"Action": "die"}\n{"Act', b'ion": "start"}\n\n'
    chunks = [b"%x\r\n%b\r\n" % (len(data), data) for data in (first, second)]
    engine.says([head, 0.02, chunks[0], 0.02, chunks[1], 0.02])
    seen = []
    with pytest.raises(BackendUnreachable, match="failed"):
        async with aclosing(client.events("die", "start")) as events:
            async for event in events:
                seen.append(event)
    assert seen == [None, {"Action": "die"}, {"Action": "start"}], "None: the subscription stands"
    filters = json.loads(asked(engine)[2]["filters"])
    assert filters["event"] == ["die", "start"]
    assert filters["label"] == ["com.docker.compose.project"]


async def test_a_cancelled_call_hangs_up(engine: ScriptedEngine, client: DockerClient) -> None:
    engine.says([60.0])
    call = asyncio.ensure_future(client.ping())
    while not engine.asked:  # noqa: ASYNC110 - the engine has no event to set
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("address", ["ssh://host", "npipe:////./pipe/docker", "tcp://"])
async def test_an_address_that_cannot_be_used_is_told_with_those_that_can(address: str) -> None:
    with pytest.raises(BackendUnreachable, match="use unix:///path or tcp://host:port"):
        await DockerClient(address).ping()


async def test_an_engine_may_be_reached_over_tcp() -> None:
    engine = ScriptedEngine("")
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    engine.says(reply(b"OK"))
    await DockerClient(f"tcp://{host}:{port}").ping()
    server.close()
    with pytest.raises(BackendUnreachable):
        await DockerClient(f"tcp://{host}:{port}").ping()


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:///var/run/docker.sock", True),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://localhost", True),
        ("tcp://[::1]:2375", True),
        ("tcp://10.0.0.1:2375", False),
        ("tcp://socket-proxy:2375", False),
    ],
)
def test_an_engine_elsewhere_is_known_by_its_address(address: str, local: bool) -> None:
    assert DockerClient(address).is_local is local


def test_loopback_is_known_by_its_name_and_its_addresses() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.9", "::1")))
    assert not any(map(is_loopback, ("10.0.0.1", "some.example", "")))


def test_the_environment_says_where_the_engine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    assert docker_host() == "tcp://10.0.0.1:2375"
    monkeypatch.setenv("DOCKER_HOST", "")
    assert docker_host() == "unix:///var/run/docker.sock"

"""What is told of Compose projects before anything is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autostart_proxy.backends.compose.check import problems
from autostart_proxy.config.units import ComposeUnit

pytestmark = pytest.mark.docker

ON_HOST = "{image: x, network_mode: host}"
APP = f"services: {{app: {ON_HOST}}}\n"


def unit(folder: Path, text: str = APP, containers: tuple[str, ...] | None = None) -> ComposeUnit:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compose.yaml").write_text(text)
    return ComposeUnit(folder, containers, "127.0.0.1", 8001)


@pytest.mark.parametrize("other", [APP, APP.replace("app:", "web:")])
async def test_two_folders_that_are_one_project_are_told_with_both_paths(
    tmp_path: Path, other: str
) -> None:
    a, b = tmp_path / "a" / "docker", tmp_path / "b" / "docker"
    found = await problems({"a": unit(a), "b": unit(b, other), "c": unit(tmp_path / "c")})
    assert [(name, key) for name, key, _ in found] == [("a", "composeDir"), ("b", "composeDir")]
    assert all(str(a) in reason and str(b) in reason for _, _, reason in found)
    assert "a project docker;" in found[0][2]


async def test_another_name_or_the_same_folder_does_not_clash(tmp_path: Path) -> None:
    a, b, c = (tmp_path / each / "docker" for each in "abc")
    units = {
        "a": unit(a),
        "again": unit(a),
        "b": unit(b, "name: another\n" + APP),
        "c": unit(c, "name: other\n" + APP),
    }
    (tmp_path / "link").symlink_to(a)
    units["link"] = unit(tmp_path / "link", "name: docker\n" + APP)
    assert await problems(units) == []


async def test_what_compose_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    found = await problems(
        {
            "broken": unit(tmp_path / "broken", "services: {app: {imagine: x}}\n"),
            "unknown": unit(tmp_path / "unknown", containers=("ap",)),
        }
    )
    reasons = {name: reason for name, key, reason in found if key == "composeDir"}
    assert set(reasons) == {"broken", "unknown"}
    assert "imagine" in reasons["broken"]
    assert "there are: app" in reasons["unknown"]
    assert all("\n" not in reason for reason in reasons.values())


async def test_that_there_is_no_compose_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unit(tmp_path / "app")
    monkeypatch.setenv("PATH", str(tmp_path))
    [(name, key, reason)] = await problems({"app": made})
    assert (name, key) == ("app", "composeDir")
    assert "install docker-compose-plugin" in reason


WEB = "web: {image: x, ports: ['127.0.0.1:8001:80']}"


@pytest.mark.parametrize(
    "services",
    [
        f"{WEB}, app: {{image: x}}",
        f"{WEB.replace('127.0.0.1:', '')}, app: {{image: x}}",
        "web: {image: x, ports: ['8000-8002:80-82']}, app: {image: x}",
        f"{WEB[:-1]}, profiles: [other]}}, app: {{image: x}}",
        "app: {image: x, network_mode: host}",
        "app: {image: x, network_mode: 'container:gateway'}",
        "app: {image: x, network_mode: 'service:web'}, " + WEB,
        "app: {image: x}, web: {image: x, depends_on: [nobody], profiles: [other]}",
    ],
)
async def test_a_port_that_may_be_reached_is_none_of_our_business(
    tmp_path: Path, services: str
) -> None:
    made = unit(tmp_path / "app", f"services: {{{services}}}\n", ("app",))
    assert await problems({"app": made}) == []


@pytest.mark.parametrize(
    ("services", "published"),
    [
        ("app: {image: x}", "nothing"),
        ("app: {image: x, ports: ['127.0.0.1:8002:80', '8003:81']}", "127.0.0.1:8002, *:8003"),
        ("app: {image: x, ports: ['8001:80/udp']}", "nothing"),
        ("app: {image: x, ports: ['80']}", "nothing"),
        ("app: {image: x, ports: ['192.0.2.1:8001:80']}", "192.0.2.1:8001"),
    ],
)
async def test_a_port_that_nobody_publishes_is_told_with_those_that_are(
    tmp_path: Path, services: str, published: str
) -> None:
    made = unit(tmp_path / "app", f"services: {{{services}}}\n")
    [(name, key, reason)] = await problems({"app": made})
    assert (name, key) == ("app", "proxyPort")
    assert "publishes 127.0.0.1:8001; " in reason
    assert f"published there: {published}; " in reason


async def test_of_another_machines_ports_nothing_is_known(tmp_path: Path) -> None:
    made = unit(tmp_path / "app", "services: {app: {image: x}}\n")
    assert await problems({"app": replace(made, host="192.0.2.7")}) == []

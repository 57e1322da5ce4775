"""What is told of Compose projects before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from autostart_proxy.backends.compose.check import problems
from autostart_proxy.config.units import ComposeUnit

pytestmark = pytest.mark.docker

APP = "services: {app: {image: x}}\n"


def unit(folder: Path, text: str = APP, containers: tuple[str, ...] | None = None) -> ComposeUnit:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compose.yaml").write_text(text)
    return ComposeUnit(folder, containers, "127.0.0.1", 8001)


async def test_two_folders_that_make_the_same_containers_are_told_with_both_paths(
    tmp_path: Path,
) -> None:
    a, b = tmp_path / "a" / "docker", tmp_path / "b" / "docker"
    found = await problems({"a": unit(a), "b": unit(b), "c": unit(tmp_path / "c")})
    assert [(name, key) for name, key, _ in found] == [("a", "composeDir"), ("b", "composeDir")]
    assert all(str(a) in reason and str(b) in reason for _, _, reason in found)
    assert "project docker with app" in found[0][2]


async def test_other_services_another_name_or_the_same_folder_do_not_clash(tmp_path: Path) -> None:
    a, b, c = (tmp_path / each / "docker" for each in "abc")
    units = {
        "a": unit(a),
        "again": unit(a),
        "b": unit(b, "services: {web: {image: x}}\n"),
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
            "gone": ComposeUnit(tmp_path / "gone", None, "127.0.0.1", 1),
        }
    )
    reasons = {name: reason for name, key, reason in found if key == "composeDir"}
    assert set(reasons) == {"broken", "unknown", "gone"}
    assert "imagine" in reasons["broken"]
    assert "there are: app" in reasons["unknown"]
    assert "there is no such file or folder" in reasons["gone"]


async def test_without_compose_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unit(tmp_path / "app", "services: [")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await problems({"app": made}) == []

"""Whether a file has changed that Compose reads: measured by Compose itself, and by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from autostart_proxy.backends.compose.cli import Compose
from autostart_proxy.backends.compose.fingerprint import (
    Fingerprint,
    compose_file,
    fingerprint,
    names_compose_file,
)
from autostart_proxy.backends.docker.api import docker_host

WEB = "services:\n  web:\n    image: x\n"


def tree(folder: Path, files: dict[str, str]) -> Path:
    """Write files; return the folder `app` among them."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "app"


async def not_asked(texts: Sequence[str], *_: object) -> list[str] | None:
    raise AssertionError(f"asked about {texts}")


def taken(folder: Path) -> Fingerprint:
    return asyncio.run(fingerprint(folder, not_asked))


LAYOUTS: dict[str, dict[str, str]] = {
    "override": {
        "app/compose.yaml": WEB,
        "app/compose.override.yaml": "services: {web: {environment: {A: 1}}}\n",
    },
    "old names": {
        "app/docker-compose.yml": WEB,
        "app/docker-compose.override.yml": "services: {web: {environment: {A: 1}}}\n",
    },
    "variables": {
        "app/compose.yaml": WEB + "    environment: {A: '${A}'}\n",
        "app/.env": "A=1\n",
    },
    "env files": {
        "app/compose.yaml": WEB
        + "    env_file: [a.env, ../b.env, {path: sub/c.txt, required: false}]\n",
        "app/a.env": "A=1\n",
        "b.env": "B=1\n",
        "app/sub/c.txt": "C=1\n",
    },
    "env file with a variable in its name": {
        "app/compose.yaml": WEB + "    env_file: '${STAGE:-dev}.env'\n",
        "app/prod.env": "A=1\n",
        "app/.env": "STAGE=prod\n",
    },
    "include": {
        "app/compose.yaml": "include: [sub/web.yml]\n",
        "app/sub/web.yml": WEB + "    environment: {A: 1, B: '${B}'}\n    env_file: w.env\n",
        "app/sub/w.env": "W=1\n",
        "app/sub/.env": "B=1\n",
    },
    "include with everything": {
        "app/compose.yaml": "include:\n"
        "  - path: ['../${KIND}/web.yml', more.yml]\n"
        "    project_directory: ../${KIND}/base\n"
        "    env_file: ../inc.env\n",
        "app/.env": "KIND=lib\n",
        "lib/web.yml": WEB + "    env_file: '${NAME}.env'\n",
        "app/more.yml": "services: {web: {environment: {M: 1}}}\n",
        "lib/base/n.env": "N=1\n",
        "inc.env": "NAME=n\n",
    },
    "include in an include": {
        "app/compose.yaml": "include: [sub/one.yml]\n",
        "app/sub/one.yml": "include: [deep/two.yml]\n",
        "app/sub/deep/two.yml": WEB + "    env_file: [two.env]\n",
        "app/sub/deep/two.env": "T=1\n",
    },
    "extends": {
        "app/compose.yaml": "services: {web: {extends: {file: ../common/base.yml, service: b}}}\n",
        "common/base.yml": "services:\n  b:\n    extends: {file: more/root.yml, service: r}\n",
        "common/more/root.yml": "services: {r: {image: x, env_file: root.env}}\n",
        "common/more/root.env": "R=1\n",
    },
    "COMPOSE_FILE": {
        "app/.env": "COMPOSE_FILE=prod.yml:../over.yml\n",
        "app/prod.yml": WEB + "    env_file: [a.env]\n",
        "app/a.env": "A=1\n",
        "over.yml": "services: {web: {environment: {O: 1}}}\n",
    },
    "COMPOSE_FILE in another folder, by another separator": {
        "app/.env": "COMPOSE_FILE=sub/a.yml,b.yml\nCOMPOSE_PATH_SEPARATOR=,\n",
        "app/sub/a.yml": WEB + "    env_file: [a.env]\n",
        "app/sub/a.env": "A=1\n",
        "app/b.yml": "services: {web: {environment: {B: 1}}}\n",
    },
    "a folder above": {
        "compose.yaml": WEB + "    env_file: [a.env]\n    environment: {B: '${B}'}\n",
        "a.env": "A=1\n",
        ".env": "B=1\n",
        "app/readme.txt": "no Compose file here",
    },
    "anchors": {
        "app/compose.yaml": "x-c: &c {image: x, env_file: [c.env]}\nservices: {web: {<<: *c}}\n",
        "app/c.env": "C=1\n",
    },
    "one for all files": {
        "app/compose.yaml": WEB + "    env_file: '${HERE}/a.env'\n",
        "app/.env": "HERE=./conf\n",
        "app/conf/a.env": "A=1\n",
    },
}


def changed(text: str) -> str:
    """The same with another value at the end of it, or another variable."""
    for old, new in (("A: 1", "A: 2"), ("M: 1", "M: 2"), ("O: 1", "O: 2"), ("B: 1", "B: 2")):
        if old in text:
            return text.replace(old, new)
    if "image: x" in text:
        return text.replace("image: x", "image: y")
    if text.rstrip().endswith("=1"):
        return text.replace("=1", "=2")
    return text + "# changed\n"


@pytest.mark.docker
@pytest.mark.parametrize("layout", LAYOUTS)
async def test_whatever_changes_what_compose_says_is_noticed(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    app = tree(tmp_path, files)
    compose = Compose(app, (), docker_host(), "test.example")
    counted = 0
    for name, text in files.items():
        before, said = await fingerprint(app, compose.interpolated), await compose.config()
        assert before.complete and before.still_holds()
        (tmp_path / name).write_text(changed(text))
        if await compose.config() != said:
            counted += 1
            assert not before.still_holds(), name
        (tmp_path / name).write_text(text)
    assert counted >= min(2, len(files)), "most of these files count"


def test_a_file_that_comes_or_goes_counts(tmp_path: Path) -> None:
    app = tree(
        tmp_path, {"app/docker-compose.yml": WEB + "    env_file: {path: a, required: false}\n"}
    )
    for name in ("a", ".env", "compose.yaml", "docker-compose.override.yml"):
        before = taken(app)
        (app / name).write_text("")
        assert not before.still_holds(), name
        with_it = taken(app)
        (app / name).unlink()
        assert before.still_holds()
        assert not with_it.still_holds(), name


def test_what_compose_does_not_read_does_not_count(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/compose.yaml": WEB + "    volumes: ['./data.yml:/data.yml']\n"})
    before = taken(app)
    (app / "data.yml").write_text("x")
    (app / "other.env").write_text("x")
    assert before.still_holds()


def test_a_change_that_keeps_size_and_date_is_noticed(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/compose.yaml": WEB + "    env_file: a.env\n", "app/a.env": "A=1\n"})
    was = os.stat(app / "a.env")
    before = taken(app)
    (app / "a.env").write_text("A=2\n")
    os.utime(app / "a.env", ns=(was.st_atime_ns, was.st_mtime_ns))
    assert not before.still_holds()
    assert taken(app).changed_at > before.changed_at


def test_a_link_is_followed_to_the_file(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/compose.yaml": WEB + "    env_file: a.env\n", "real.env": "A=1\n"})
    (app / "a.env").symlink_to("../real.env")
    before = taken(app)
    (tmp_path / "real.env").write_text("A=22\n")
    assert not before.still_holds()


def test_the_home_of_the_user_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    app = tree(tmp_path, {"app/compose.yaml": WEB + "    env_file: ~/a.env\n"})
    before = taken(app)
    (tmp_path / "a.env").write_text("")
    assert not before.still_holds()


@pytest.mark.parametrize(
    "text",
    [
        "include: ['https://example.org/app.git']\n",
        "services: {web: {extends: {file: 'oci://example.org/base', service: b}}}\n",
        "include: [\n",
    ],
)
def test_what_cannot_be_followed_is_never_taken_for_unchanged(tmp_path: Path, text: str) -> None:
    found = taken(tree(tmp_path, {"app/compose.yaml": text}))
    assert not found.complete
    assert not found.still_holds()


async def test_a_variable_that_compose_cannot_replace_leaves_the_list_open(tmp_path: Path) -> None:
    async def cannot(*_: object) -> None:
        return None

    app = tree(tmp_path, {"app/compose.yaml": WEB + "    env_file: '${A:?missing}'\n"})
    assert not (await fingerprint(app, cannot)).complete


def test_a_file_that_cannot_be_read_leaves_the_list_open(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/.env": "A=1\n"})
    (app / "compose.yaml").write_bytes(b"\xff\xfe")
    assert not taken(app).complete


def test_files_that_name_each_other_end(tmp_path: Path) -> None:
    app = tree(
        tmp_path,
        {"app/compose.yaml": "include: [b.yml]\n", "app/b.yml": "include: [compose.yaml]\n"},
    )
    assert taken(app).still_holds()


def test_an_empty_folder_has_nothing_that_could_change_but_what_may_come(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/readme.txt": ""})
    found = taken(app)
    assert (found.roots, found.changed_at, found.still_holds()) == ([], 0.0, True)
    (app / "compose.yml").write_text(WEB)
    assert not found.still_holds()


def test_the_compose_file_of_a_folder_is_found_as_compose_finds_it(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/docker-compose.yml": WEB, "compose.yml": WEB})
    assert compose_file(app) == app / "docker-compose.yml"
    assert taken(app).roots == [app / "docker-compose.yml"]
    (app / "compose.yaml").write_text(WEB)
    assert compose_file(app) == app / "compose.yaml"
    (app / "sub").mkdir()
    assert compose_file(app / "sub") == app / "compose.yaml"
    assert compose_file(Path("/proc")) is None


def test_an_env_file_may_name_the_compose_files(tmp_path: Path) -> None:
    app = tree(tmp_path, {"app/.env": "COMPOSE_FILE=x.yml\n", "app/other": ""})
    assert names_compose_file(app / ".env")
    assert not names_compose_file(app / "other")
    assert not names_compose_file(app / "nothing")

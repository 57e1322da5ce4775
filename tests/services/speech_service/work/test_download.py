"""A repository of a hub on the loopback, downloaded by a process that can be ended."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from speech_service.contract.errors import (
    InternalError,
    ModelNotAllowed,
    ModelNotFound,
    ModelUnavailable,
)
from speech_service.work.download import Download, WebFile, download

from ...fake_hub import FakeHub, serving

TOKEN = "hf_" + "Secret" * 5
FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.bin": bytes(300_000)}
WANTED = Download(
    "org/small", ["*.json"], ["config.json", "tokenizer.json"], ["model.bin", "model.old"], False
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one model; the service's own environment holds a token."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in {**FILES, "README.md": b"large"}.items():
        (folder / name).write_bytes(content)
    with serving(FakeHub({"org/small": folder}, accepted={TOKEN: set()})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield hub


def silent(done: int, total: int) -> None:
    """Hear of a download, and do nothing."""


def children() -> set[int]:
    """The processes that this one has started and that have not ended."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


async def test_what_makes_it_a_model_comes_last_and_progress_counts_all_files(
    hub: FakeHub, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    await download(WANTED, lambda done, total: told.append((done, total)))
    assert hub.downloads()[-1] == "model.bin"
    assert set(hub.downloads()) == set(FILES)
    size = sum(map(len, FILES.values()))
    assert told[-1] == (size, size)
    [weights] = (tmp_path / "cache").rglob("snapshots/*/model.bin")
    assert weights.stat().st_size == 300_000


@pytest.mark.parametrize("token", [False, TOKEN])
async def test_the_operators_token_is_sent_only_where_it_is_said(
    token: str | bool, hub: FakeHub
) -> None:
    await download(replace(WANTED, token=token), silent)
    assert (TOKEN in hub.tokens) is (token == TOKEN)


async def test_what_is_too_large_is_refused_before_it_is_downloaded(hub: FakeHub) -> None:
    with pytest.raises(ModelNotAllowed, match="MAX_MODEL_BYTES") as refusal:
        await download(replace(WANTED, max_bytes=300_003), silent)
    assert (refusal.value.code, refusal.value.status) == ("model_too_large", 404)
    assert hub.downloads() == []
    await download(replace(WANTED, max_bytes=300_004), silent)


async def test_what_is_larger_than_the_hub_says_is_ended_on_its_way(hub: FakeHub) -> None:
    hub.sizes = dict.fromkeys(FILES, 1)
    (hub.repositories["org/small"] / "model.bin").write_bytes(bytes(21_000_000))
    hub.stalls.add("model.bin")
    with pytest.raises(ModelNotAllowed, match="MAX_MODEL_BYTES"):
        await download(replace(WANTED, max_bytes=1_000_000), silent)
    hub.stalls.clear()


async def test_a_share_of_the_disk_stays_free(hub: FakeHub) -> None:
    with pytest.raises(ModelUnavailable, match="MIN_FREE_DISK") as refusal:
        await download(replace(WANTED, min_free=0.9999), silent)
    assert refusal.value.code == "no_space"
    assert hub.downloads() == []


async def test_a_repository_that_lacks_a_needed_file_is_not_downloaded(hub: FakeHub) -> None:
    (hub.repositories["org/small"] / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFound, match=r"tokenizer\.json"):
        await download(WANTED, silent)
    assert hub.downloads() == []


async def test_of_several_formats_the_first_that_there_is_is_taken(
    hub: FakeHub, tmp_path: Path
) -> None:
    folder = hub.repositories["org/small"]
    (folder / "model.old").write_text("the same in an older format")
    await download(WANTED, silent)
    assert "model.old" not in hub.downloads()
    (folder / "model.bin").unlink()
    hub.requests.clear()
    await download(replace(WANTED, cache=str(tmp_path / "other")), silent)
    assert hub.downloads()[-1] == "model.old"
    (folder / "model.old").unlink()
    with pytest.raises(ModelNotFound, match=r"lacks model\.bin"):
        await download(WANTED, silent)


async def test_a_revision_is_asked_for_by_its_name_and_lies_where_it_is_wanted(
    hub: FakeHub, tmp_path: Path
) -> None:
    await download(replace(WANTED, revision="0" * 40, cache=str(tmp_path / "own")), silent)
    described, *_ = (line for line in hub.requests if "/api/models/" in line)
    assert described.endswith("/revision/" + "0" * 40)
    assert list((tmp_path / "own").rglob("snapshots/*/model.bin"))
    assert not (tmp_path / "cache").exists()


async def test_trouble_with_the_hub_has_its_meaning(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model org/other"):
        await download(replace(WANTED, repository="org/other"), silent)
    hub.broken = True
    with pytest.raises(ModelUnavailable) as away:
        await download(WANTED, silent)
    assert away.value.code == "hub_unreachable"


async def test_a_cache_that_cannot_be_written_is_named(hub: FakeHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "hub"
    cache.mkdir(parents=True)
    (cache / "models--org--small").symlink_to("/sys/kernel")  # where root may make no folder either
    with pytest.raises(ModelUnavailable) as refusal:
        await download(WANTED, silent)
    assert refusal.value.code == "cache_not_writable"


async def test_a_defect_is_no_trouble_with_the_hub(hub: FakeHub) -> None:
    with pytest.raises(InternalError):
        await download(replace(WANTED, last=[]), silent)


async def given_up(wanted: Download | WebFile, listener: socket.socket) -> None:
    """Begin a download from a server that says nothing, and have nobody want it any more."""
    listener.setblocking(False)
    before = children()
    fetching = asyncio.ensure_future(download(wanted, silent))
    asked, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), timeout=30)
    with asked:
        assert len(children() - before) == 1
        fetching.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(fetching, return_exceptions=True)
        assert children() <= before


async def test_a_download_from_a_silent_hub_ends_at_once_when_it_is_given_up(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        await given_up(WANTED, listener)


WEIGHTS = bytes(range(256)) * 1000


@dataclass
class Server:
    """A server of one file, which it sends as far as the test lets it."""

    ends_at: int | None = None
    heads: list[str] = field(default_factory=list)
    ranges: bool = True
    length: bool = True

    @contextmanager
    def serving(self, folder: Path) -> Iterator[WebFile]:
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answer, self)) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield WebFile(f"http://127.0.0.1:{server.server_port}/models/w.pt", str(folder))
            finally:
                server.shutdown()
                thread.join()


class _Answer(BaseHTTPRequestHandler):
    def __init__(self, served: Server, *rest: Any) -> None:
        self.served = served
        super().__init__(*rest)

    def do_GET(self) -> None:
        wish = self.headers.get("Range", "")
        self.served.heads.append(f"{self.path} {wish}")
        begin = int(wish.removeprefix("bytes=").removesuffix("-")) if self.served.ranges else 0
        self.send_response(206 if self.served.ranges else 200)
        if self.served.length:
            self.send_header("Content-Length", str(len(WEIGHTS) - begin))
        self.end_headers()
        self.wfile.write(WEIGHTS[begin : self.served.ends_at])

    def log_message(self, *_: object) -> None:
        """Write nothing."""


async def test_a_file_of_the_web_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    server, told = Server(ends_at=100_000), []
    folder = tmp_path / "cache" / "checkpoints"
    with server.serving(folder) as wanted:
        with pytest.raises(ModelUnavailable) as cut:
            await download(wanted, silent)
        assert cut.value.code == "hub_unreachable"
        assert [path.name for path in folder.iterdir()] == ["w.pt.part"]
        server.ends_at = None
        await download(wanted, lambda done, total: told.append((done, total)))
        assert [path.name for path in folder.iterdir()] == ["w.pt"]
        assert (folder / "w.pt").read_bytes() == WEIGHTS
        assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
        assert server.heads == ["/models/w.pt bytes=0-", "/models/w.pt bytes=99999-"]
        await download(wanted, silent)
        assert len(server.heads) == 2, "what is here is not asked for"


async def test_a_file_is_begun_anew_where_the_server_cannot_go_on(tmp_path: Path) -> None:
    (tmp_path / "w.pt.part").write_bytes(b"x" * 10)
    with Server(ranges=False).serving(tmp_path) as wanted:
        await download(wanted, silent)
    assert (tmp_path / "w.pt").read_bytes() == WEIGHTS


async def test_the_size_of_a_file_is_known_before_it_is_downloaded(tmp_path: Path) -> None:
    with Server().serving(tmp_path) as wanted:
        with pytest.raises(ModelUnavailable, match="MIN_FREE_DISK") as refusal:
            await download(replace(wanted, min_free=0.9999), silent)
        assert refusal.value.code == "no_space"
    with Server(length=False).serving(tmp_path) as wanted:
        with pytest.raises(ModelUnavailable) as away:
            await download(wanted, silent)
        assert away.value.code == "hub_unreachable"
    assert (tmp_path / "w.pt.part").stat().st_size == 0


async def test_a_silent_server_of_a_file_ends_at_once_when_it_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/w.pt"
        await given_up(WebFile(address, str(tmp_path)), listener)


PARENT = """
import asyncio
from speech_service.work.download import Download, download

wanted = Download("org/small", ["*"], [], ["model.bin"], False)
asyncio.run(download(wanted, lambda done, total: None))
"""


def test_a_download_ends_with_a_service_that_is_killed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        with subprocess.Popen([sys.executable, "-c", PARENT], env=environment) as service:
            listener.settimeout(30)
            asked, _ = listener.accept()
            service.kill()
            with asked:
                asked.settimeout(5)
                while asked.recv(65536):
                    pass  # the connection closes because the downloading process has ended

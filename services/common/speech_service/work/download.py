"""A repository of the hub, or a file of the web, downloaded by a process of its own.

The hub's library waits in threads that nothing can interrupt, for a silent hub minutes long; a
process can be ended at any moment. `python -m speech_service.work.download` takes one line of JSON
on its standard input, a `Download` or a `WebFile`, and answers with lines of JSON: how far it is,
and at the end what went wrong. It ends with whoever started it.

Rules: what there is and how large it is, is asked before anything is downloaded. The file that
makes it a model comes last, or gets its name last, so that a model which is here is whole. What was
downloaded so far stays, and the next download goes on from there.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from ..contract.errors import (
    InternalError,
    ModelNotAllowed,
    ModelNotFound,
    ModelUnavailable,
    SpeechError,
)
from . import hub

if TYPE_CHECKING:
    from ..contract.engine import Reached

_ANSWER_SECONDS = 10.0
"""For the first question; without a limit the library would wait for a silent hub for ever."""
_SILENCE_SECONDS = 10.0
"""For the next bytes of a file of the web."""
_LOOK_SECONDS = 0.5
_CHUNK = 1 << 20

Word: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[Word], None]


@dataclass(frozen=True, slots=True)
class Download:
    """What to download.

    Args:
        repository: hub id.
        patterns: of the files that are wanted.
        needed: files without which it is no model.
        last: what makes it a model, as the names that it may have. The first of them that there is
            comes last, and the others not at all.
        token: of the hub; None stands for that of a login on this machine, False for none at all.
        max_bytes: that the files may have in all; None: as many as they are.
        min_free: share of the disk that has to stay free, 0 to 1.
        revision: commit, branch or tag; None: the newest.
        cache: folder; None: that of the hub's library.
    """

    repository: str
    patterns: list[str]
    needed: list[str]
    last: list[str]
    token: str | bool | None = None
    max_bytes: int | None = None
    min_free: float = 0.0
    revision: str | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file to download.

    Args:
        address: whose last part is the name of the file.
        folder: where to put it; made if it is not there.
        min_free: as `Download` has it.
    """

    address: str
    folder: str
    min_free: float = 0.0

    @property
    def name(self) -> str:
        """What it is called."""
        return self.address.rpartition("/")[2]


async def download(wanted: Download | WebFile, progress: Reached) -> None:
    """Download a repository into a cache of the hub's library, or a file into its folder.

    Raises:
        ModelNotFound, ModelNotAllowed, ModelUnavailable.
    Cancellation: at any moment; the process has ended then.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C at the terminal is for the service
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise InternalError
        process.stdin.write(json.dumps(asdict(wanted)).encode() + b"\n")
        async for line in process.stdout:
            word = json.loads(line)
            if error := _error(word):
                raise error
            progress(word["done"], word["total"])
        if await process.wait():
            raise InternalError
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _error(word: Word) -> SpeechError | None:
    """Return the error that a line tells, if it tells one."""
    match word.get("kind"):
        case None:
            return None
        case ModelNotAllowed.__name__:
            return ModelNotAllowed(word["message"], word["code"])
        case ModelNotFound.__name__:
            return ModelNotFound(word["message"], "model")
        case ModelUnavailable.__name__:
            return ModelUnavailable(word["message"], word["code"])
        case _:
            return InternalError()


def _told(error: SpeechError) -> Word:
    return {"kind": type(error).__name__, "message": error.message, "code": error.code}


def _fetch_repository(wanted: Download, say: Say) -> None:
    """Download in this process; errors as `download`."""
    from huggingface_hub import HfApi, snapshot_download

    name, token, revision = wanted.repository, wanted.token, wanted.revision
    with hub.translated(name):
        info = HfApi(token=token).model_info(
            name, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS
        )
        siblings = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        last = next((file for file in wanted.last if file in siblings), wanted.last[0])
        for needed in (*wanted.needed, last):
            if needed not in siblings:
                raise ModelNotFound(
                    f"the hub's {name!r} is no model of this kind: it lacks {needed}", "model"
                )
        files = [
            file
            for file in siblings
            if file not in wanted.last and any(fnmatch(file, shape) for shape in wanted.patterns)
        ]
        total = sum(siblings[file] for file in (*files, last))
        _check(wanted, total, total)
        with _counted(wanted, total, say):
            for part in (files, [last]):
                if part:
                    snapshot_download(
                        name,
                        revision=revision,
                        cache_dir=wanted.cache,
                        token=token,
                        allow_patterns=part,
                    )


def _fetch_file(wanted: WebFile, say: Say) -> None:
    """Download in this process; errors as `download`."""
    folder = Path(wanted.folder)
    partial = folder / f"{wanted.name}.part"
    with hub.translated(wanted.name):
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            # Another service may have the same folder.
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (folder / wanted.name).exists():
                _append(wanted, file, say)
                partial.replace(folder / wanted.name)


def _append(wanted: WebFile, file: IO[bytes], say: Say) -> None:
    """Download what is missing at the end of a file."""
    # A range has at least one byte, so of a whole file the last one is asked for again.
    here = max(file.tell() - 1, 0)
    headers = {"Range": f"bytes={here}-"}
    request = urllib.request.Request(wanted.address, headers=headers)  # noqa: S310 - not a client's
    with urllib.request.urlopen(request, timeout=_SILENCE_SECONDS) as answer:  # noqa: S310
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            here = 0
        if answer.length is None:
            raise HTTPException("nobody says how large the file is")
        total = here + answer.length
        _check_room(wanted.name, Path(wanted.folder), answer.length, wanted.min_free)
        file.truncate(here)
        while data := answer.read(_CHUNK):
            file.write(data)
            here += len(data)
            say({"done": here, "total": total})
    if here != total:
        raise HTTPException("the file ended early")


@contextmanager
def _counted(wanted: Download, total: int, say: Say) -> Iterator[None]:
    """Tell how far a download is, and end it where more comes than the hub said.

    Bytes are counted where they arrive: what the library tells of them depends on its version.
    """
    from huggingface_hub.file_download import repo_folder_name

    repository = repo_folder_name(repo_id=wanted.repository, repo_type="model")
    folder = _cache(wanted) / repository / "blobs"
    before = _size(folder)
    over = threading.Event()

    def count() -> None:
        while not over.wait(_LOOK_SECONDS):
            here = _size(folder)
            try:
                _check(wanted, here - before, 0)
            except SpeechError as error:
                say(_told(error))
                os._exit(0)  # nothing else ends the library's threads
            say({"done": min(here, total), "total": total})

    counting = threading.Thread(target=count, daemon=True)
    counting.start()
    try:
        yield
    finally:
        over.set()
        counting.join()
    say({"done": total, "total": total})


def _size(folder: Path) -> int:
    """Return the bytes of the files in a folder; what goes meanwhile is not counted."""
    size = 0
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _check(wanted: Download, size: int, to_come: int) -> None:
    """Refuse what is too large.

    Args:
        size: bytes in all.
        to_come: how many of them the disk has yet to take.
    Raises:
        ModelNotAllowed: for MAX_MODEL_BYTES.
        ModelUnavailable: for the disk.
    """
    name = wanted.repository
    if wanted.max_bytes is not None and size > wanted.max_bytes:
        raise ModelNotAllowed(
            f"the model {name!r} has {size} bytes, more than the {wanted.max_bytes} that clients "
            "may have fetched: let the operator configure it, or raise MAX_MODEL_BYTES",
            "model_too_large",
        )
    _check_room(name, _cache(wanted), to_come, wanted.min_free)


def _check_room(name: str, folder: Path, to_come: int, min_free: float) -> None:
    """Raise `ModelUnavailable` if so many bytes would leave too little of a disk."""
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    disk = shutil.disk_usage(place)
    if disk.free - to_come < min_free * disk.total:
        raise ModelUnavailable(
            f"no room for the model {name!r} in the cache volume, of which {min_free:.0%} "
            "stay free: remove models there, or lower MIN_FREE_DISK",
            "no_space",
        )


def _cache(wanted: Download) -> Path:
    from huggingface_hub import constants

    return Path(wanted.cache or constants.HF_HUB_CACHE)


def main() -> int:
    """Download what standard input asks for; return the exit status."""
    # What a library prints is no word of ours.
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    wanted = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_service, daemon=True).start()

    turn = threading.Lock()

    def say(word: Word) -> None:
        with turn:
            print(json.dumps(word), file=words, flush=True)

    try:
        if "address" in wanted:
            _fetch_file(WebFile(**wanted), say)
        else:
            _fetch_repository(Download(**wanted), say)
    except SpeechError as error:
        say(_told(error))
    return 0


def _end_with_the_service() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

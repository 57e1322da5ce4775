"""A repository of the hub, downloaded by a process of its own.

The hub's library waits in threads that nothing can interrupt, for a silent hub minutes long; a
process can be ended at any moment. `python -m speech_service.work.download` takes one line of JSON
on its standard input, a `Download`, and answers with lines of JSON: how far it is, and at the end
what went wrong. It ends with whoever started it.

Rules: what a repository holds and how large it is, is asked before anything is downloaded. The file
that makes it a model comes last, so that a model which is here is whole. What was downloaded so far
stays, and the next download goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeAlias

from ..contract.engine import Reached
from ..contract.errors import (
    InternalError,
    ModelNotAllowed,
    ModelNotFound,
    ModelUnavailable,
    SpeechError,
)
from . import hub

_ANSWER_SECONDS = 10.0
"""For the first question; without a limit the library would wait for a silent hub for ever."""
_LOOK_SECONDS = 0.5

Word: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[Word], None]


@dataclass(frozen=True, slots=True)
class Download:
    """What to download.

    Args:
        repository: hub id.
        patterns: of the files that are wanted.
        needed: files without which it is no model; the last of them is downloaded last.
        token: of the hub; None stands for that of a login on this machine, False for none at all.
        max_bytes: that the files may have in all; None: as many as they are.
        min_free: share of the disk that has to stay free, 0 to 1.
    """

    repository: str
    patterns: list[str]
    needed: list[str]
    token: str | bool | None = None
    max_bytes: int | None = None
    min_free: float = 0.0


async def download(wanted: Download, progress: Reached) -> None:
    """Download a repository into the cache of the hub's library.

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


def _fetch(wanted: Download, say: Say) -> None:
    """Download in this process; errors as `download`."""
    from huggingface_hub import HfApi, snapshot_download

    name, token = wanted.repository, wanted.token
    with hub.translated(name):
        info = HfApi(token=token).model_info(name, files_metadata=True, timeout=_ANSWER_SECONDS)
        siblings = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        files = [
            file for file in siblings if any(fnmatch(file, shape) for shape in wanted.patterns)
        ]
        for needed in wanted.needed:
            if needed not in files:
                raise ModelNotFound(
                    f"the hub's {name!r} is no model of this kind: it lacks {needed}", "model"
                )
        total = sum(siblings[file] for file in files)
        last = wanted.needed[-1]
        _check(wanted, total, total)
        with _counted(wanted, total, say):
            for part in ([file for file in files if file != last], [last]):
                if part:
                    snapshot_download(name, token=token, allow_patterns=part)


@contextmanager
def _counted(wanted: Download, total: int, say: Say) -> Iterator[None]:
    """Tell how far a download is, and end it where more comes than the hub said.

    Bytes are counted where they arrive: what the library tells of them depends on its version.
    """
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(_cache(), repo_folder_name(repo_id=wanted.repository, repo_type="model"), "blobs")
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
    cache = Path(_cache())
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    disk = shutil.disk_usage(place)
    if disk.free - to_come < wanted.min_free * disk.total:
        raise ModelUnavailable(
            f"no room for the model {name!r} in the cache volume, of which {wanted.min_free:.0%} "
            "stay free: remove models there, or lower MIN_FREE_DISK",
            "no_space",
        )


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def main() -> int:
    """Download what standard input asks for; return the exit status."""
    # What a library prints is no word of ours.
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    wanted = Download(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_the_service, daemon=True).start()

    turn = threading.Lock()

    def say(word: Word) -> None:
        with turn:
            print(json.dumps(word), file=words, flush=True)

    try:
        _fetch(wanted, say)
    except SpeechError as error:
        say(_told(error))
    return 0


def _end_with_the_service() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any, TypeAlias

from ..contract.engine import Reached
from ..contract.errors import (
    InternalError,
    ModelNotAllowed,
    ModelNotFound,
    ModelUnavailable,
    SpeechError,
)
from ..process import logs
from . import hub

_ANSWER_SECONDS = 10.0
"""For the first question; without a limit the library would wait for a silent hub for ever."""

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
        _check(wanted, total, 0)
        last = wanted.needed[-1]
        here = 0
        for part in ([file for file in files if file != last], [last]):
            if part:
                bar = _reporting(_counted(wanted, here, total, say))
                snapshot_download(name, token=token, allow_patterns=part, tqdm_class=bar)
            here += sum(siblings[file] for file in part)


def _counted(wanted: Download, before: int, total: int, say: Say) -> Reached:
    """Return what is told of one part of a download; whatever the hub said of sizes, it counts."""

    def reached(done: int, of: int) -> None:
        try:
            _check(wanted, before + done, before + done)
        except SpeechError as error:
            # Not raised: it would end one of the library's threads, and not the others.
            say(_told(error))
            os._exit(0)
        say({"done": before + done, "total": max(total, before + of)})

    return reached


def _check(wanted: Download, size: int, here: int) -> None:
    """Refuse what is too large.

    Args:
        size: bytes in all.
        here: how many of them are on the disk already.
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
    disk = shutil.disk_usage(_existing(_cache()))
    if disk.free - (size - here) < wanted.min_free * disk.total:
        raise ModelUnavailable(
            f"no room for the model {name!r} in the cache volume, of which {wanted.min_free:.0%} "
            "stay free: remove models there, or lower MIN_FREE_DISK",
            "no_space",
        )


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _existing(folder: str) -> str:
    """Return a folder, or the next one above it that exists."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or os.sep
    return folder


def _reporting(progress: Reached) -> Any:
    """Return a progress bar class for the hub's library that draws nothing and reports bytes."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if self._bytes:
                progress(int(self.n), int(self.total or 0))
            return None

    return Reporting


def main() -> int:
    """Download what standard input asks for; return the exit status."""
    # What a library prints is no word of ours.
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logs.configure("warning")
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

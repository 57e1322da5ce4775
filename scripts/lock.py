"""Write down which files the installations and images are made of: version and hash of each.

    python3 scripts/lock.py             what changed in a pyproject.toml; all else stays as it is
    python3 scripts/lock.py --upgrade   the newest of everything
    python3 scripts/lock.py --check     whether the lists fit the files that they are made of

uv makes them, out of the index that it is told of (UV_DEFAULT_INDEX, UV_INDEX, or its settings, for
a mirror); where a file came from stands in none of them. The check needs no index.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ROOT / "services"
PYTORCH = ("torch~=2.8.0", "torchaudio~=2.8.0", "torchvision~=0.23.0")
"""Of one release, which pyannote.audio and whisperx agree on."""

TORCHCODEC = (
    "torchcodec<0.8; platform_machine == 'x86_64'",
    "torchcodec>=0.8; platform_machine != 'x86_64'",
)
"""The release that goes with this PyTorch has wheels for amd64 alone; others take a newer one."""

OWN = frozenset({"faster-whisper-engine", "speech-service", "whisperx-engine"})
"""The distributions of `services`, which no index has."""

_OF_PYTORCH = re.compile(r"torch|torchaudio|torchvision|triton|nvidia-.*")
"""What PyTorch's own index has in other builds, without CUDA, with other hashes."""


def _everything(_: str) -> bool:
    return True


def _of_pytorch(name: str) -> bool:
    return _OF_PYTORCH.fullmatch(name) is not None


def _other_than_pytorch(name: str) -> bool:
    return not _of_pytorch(name)


@dataclass(frozen=True)
class Lock:
    """A list of files.

    Attributes:
        path: of the list, from the root of the checkout.
        wanted: what it is made of, as lines of requirements.
        listed: which of the packages that were found stand in it.
    """

    path: str
    wanted: Callable[[], list[str]]
    listed: Callable[[str], bool] = _everything

    @property
    def file(self) -> Path:
        """The list itself."""
        return ROOT / self.path

    @property
    def head(self) -> str:
        """Its first lines, which tell what it was made of."""
        digest = hashlib.sha256("\n".join(sorted(self.wanted())).encode()).hexdigest()
        return f"# Made by scripts/lock.py; change pyproject.toml and run it again.\n# {digest}\n"

    @property
    def fresh(self) -> bool:
        """Whether it fits what it is to be made of now."""
        return self.file.exists() and self.file.read_text().startswith(self.head)

    def make(self, *, upgrade: bool) -> None:
        """Ask uv, which keeps the versions that fit unless it is told to upgrade.

        Raises:
            SystemExit: it finds none that fit, or no index; in uv's words.
        """
        with TemporaryDirectory() as folder:
            found = Path(folder) / "found"
            if not upgrade:
                found.write_text("".join(self._known()))
            done = subprocess.run(
                [
                    *(*_uv(), "pip", "compile", "-", "--universal", "--python-version=3.11"),
                    *("--generate-hashes", "--no-header", "--no-annotate", "--quiet"),
                    *("--no-emit-index-url", "--prerelease=if-necessary", f"--output-file={found}"),
                ],
                input="\n".join(self.wanted()),
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode != 0:
                raise SystemExit(f"{self.path}: {done.stderr[:2000]}")
            blocks = _blocks(found.read_text())
        self.file.write_text(self.head + "".join(b for b in blocks if self.listed(_name(b))))

    def _known(self) -> Iterator[str]:
        """What the lists of the same requirements hold; together that is all."""
        wanted = self.wanted()
        for each in LOCKS:
            if each.wanted() == wanted and each.file.exists():
                yield each.file.read_text()


def _proxy() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def _build() -> list[str]:
    project = tomllib.loads((SERVICES / "common" / "pyproject.toml").read_text())
    return list(project["build-system"]["requires"])


def _faster_whisper(extra: str) -> list[str]:
    return [*map(_in_image, _of_others(extra, "common", "faster-whisper"))]


def _whisperx() -> list[str]:
    others = _of_others("", "common", "faster-whisper", "whisperx")
    return [*map(_in_image, [*others, *PYTORCH, *TORCHCODEC])]


def _of_others(extra: str, *folders: str) -> Iterator[str]:
    """What services and their optional group `extra` need from elsewhere."""
    for folder in folders:
        project = tomllib.loads((SERVICES / folder / "pyproject.toml").read_text())["project"]
        optional = project.get("optional-dependencies", {}).get(extra, [])
        for wish in (*project["dependencies"], *optional):
            if _name(wish) not in OWN:
                yield wish


def _in_image(wish: str) -> str:
    """A requirement where it matters: with the Python of the images, whatever the processor."""
    what, _, condition = wish.partition(";")
    more = f" and ({condition.strip()})" if condition else ""
    return f"{what.strip()}; python_version < '3.12' and sys_platform == 'linux'{more}"


LOCKS = (
    Lock("requirements.lock", _proxy),
    Lock("services/build.lock", _build),
    Lock("services/faster-whisper/requirements-cpu.lock", lambda: _faster_whisper("cpu")),
    Lock("services/faster-whisper/requirements-cuda.lock", lambda: _faster_whisper("cuda")),
    Lock("services/whisperx/requirements.lock", _whisperx, _other_than_pytorch),
    Lock("services/whisperx/pytorch-cuda.lock", _whisperx, _of_pytorch),
)


def _uv() -> list[str]:
    if find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    if shutil.which("uv"):
        return ["uv"]
    raise SystemExit("there is no uv here: pip install uv")


def _blocks(text: str) -> list[str]:
    """The packages of a list, each with its hashes in the lines below."""
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return [each for each in blocks if each.strip() and not each.startswith("#")]


def _name(block: str) -> str:
    return re.split(r"[^\w.-]", block, maxsplit=1)[0]


def main() -> int:
    """Do what the command line says; the exit status is 1 where a list does not fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--upgrade", action="store_true", help="the newest of everything")
    how.add_argument("--check", action="store_true", help="say which lists do not fit; no index")
    options = parser.parse_args()
    stale = [each for each in LOCKS if options.upgrade or not each.fresh]
    if not options.check:
        for each in stale:
            each.make(upgrade=options.upgrade)
            print(f"{each.path}: made")
        return 0
    for each in stale:
        print(f"{each.path}: does not fit what it is made of; run scripts/lock.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

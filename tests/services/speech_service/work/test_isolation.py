"""Models in real worker processes: when they start, what they do, and when they end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from speech_service.contract.errors import ModelMissing, ModelUnavailable, TooLong
from speech_service.contract.settings import Settings
from speech_service.contract.transcript import Options, Segment, Summary
from speech_service.work.isolation import RemoteModel, WorkerEnded, Workers

from ...harness import wait_until
from ...obedient_engine import BURDEN, ObedientEngine

ROOT = Path(__file__).parents[4]


class Lender:
    """Claims models for the workers, which nobody keeps longer than they are used."""

    def __init__(self) -> None:
        self.lent: list[str] = []
        self.workers = Workers(ObedientEngine, Settings(), BURDEN)
        self.workers.prepare(self.borrow)

    @contextmanager
    def borrow(self, name: str) -> Iterator[RemoteModel]:
        self.lent.append(name)
        yield self.workers.load(name)
        self.lent.remove(name)


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import the tests' engine from here."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def lender() -> Iterator[Lender]:
    lender = Lender()
    yield lender
    del lender.workers
    wait_until(lambda: workers_here() == [])


def workers_here() -> list[int]:
    """The worker processes that this one has started."""
    gc.collect()
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if "speech_service.work.worker" in child.cmdline():
                found.append(child.pid)
    return found


def blocks(*firsts: int) -> Iterator[NDArray[np.int16]]:
    return iter([np.full(4, first, np.int16) for first in firsts])


def heard(model: Any, prompt: str = "say") -> str:
    said, summary = model.transcribe(blocks(1, 2), Options(prompt=prompt))
    assert isinstance(said, Segment) and isinstance(summary, Summary)
    return said.text


def test_what_is_heard_comes_from_another_process(lender: Lender) -> None:
    [worker] = workers_here()
    assert heard(lender.workers.load("tiny")) == f"tiny [1, 2] {worker}"


def test_all_models_share_one_process_that_ends_with_the_last(lender: Lender) -> None:
    models = [lender.workers.load(name) for name in ("tiny", "small")]
    [worker] = workers_here()
    assert [heard(model).split()[0] for model in models] == ["tiny", "small"]
    del models[0]
    assert workers_here() == [worker]
    assert not models[0].worn_out
    del models[0]
    wait_until(lambda: workers_here() == [])
    assert heard(lender.workers.load("tiny")) != f"tiny [1, 2] {worker}"


def test_a_process_whose_burden_is_given_back_takes_no_more_models(lender: Lender) -> None:
    tiny, burden = lender.workers.load("tiny"), lender.workers.load(BURDEN)
    [first] = workers_here()
    del burden
    assert tiny.worn_out
    assert heard(tiny).endswith(str(first)), "what has begun is finished"
    anew = lender.workers.load("tiny")
    assert not anew.worn_out
    assert len(workers_here()) == 2
    del tiny
    wait_until(lambda: len(workers_here()) == 1)
    assert heard(anew) == f"tiny [1, 2] {workers_here()[0]}"


def test_a_transcription_borrows_in_its_own_process(lender: Lender) -> None:
    tiny = lender.workers.load("tiny")
    [worker] = workers_here()
    assert heard(tiny, "borrow other:") == f"tiny borrows other: {worker}"
    wait_until(lambda: lender.lent == [])


def test_who_has_begun_in_a_process_that_takes_no_more_borrows_there_all_the_same(
    lender: Lender,
) -> None:
    tiny, burden = lender.workers.load("tiny"), lender.workers.load(BURDEN)
    [worker] = workers_here()
    del burden
    assert heard(tiny, f"borrow {BURDEN}") == f"tiny borrows {BURDEN} {worker}"
    wait_until(lambda: workers_here() == [worker])


@pytest.mark.parametrize("name", ["away", "defect"])
def test_what_cannot_be_borrowed_has_its_reason(lender: Lender, name: str) -> None:
    tiny = lender.workers.load("tiny")
    with pytest.raises((ModelUnavailable, RuntimeError), match="the hub is away|no such layer"):
        heard(tiny, f"borrow {name}")


def test_a_model_that_cannot_be_loaded_leaves_no_process(lender: Lender) -> None:
    for name, error in (("away", ModelUnavailable), ("defect", RuntimeError)):
        with pytest.raises(error):
            lender.workers.load(name)
    wait_until(lambda: workers_here() == [])


def test_what_is_missing_there_has_its_name_here(lender: Lender) -> None:
    tiny = lender.workers.load("tiny")
    with pytest.raises(ModelMissing) as missing:
        heard(tiny, "miss alignment:org/french")
    assert missing.value.name == "alignment:org/french"
    assert heard(tiny).startswith("tiny [1, 2]")


def test_closing_waits_until_the_work_has_ended(lender: Lender, tmp_path: Path) -> None:
    counting = lender.workers.load("tiny").transcribe(
        blocks(), Options(prompt=f"count {tmp_path / 'end'}")
    )
    for _ in range(3):
        next(counting)
    counting.close()
    assert (tmp_path / "end").exists()


def test_an_error_of_the_recording_ends_the_work_and_is_raised(lender: Lender) -> None:
    def too_long() -> Iterator[NDArray[np.int16]]:
        yield np.zeros(4, np.int16)
        raise TooLong("too long")

    tiny = lender.workers.load("tiny")
    with pytest.raises(TooLong):
        list(tiny.transcribe(too_long(), Options()))
    assert heard(tiny).startswith("tiny [1, 2]")


@pytest.mark.parametrize("order", ["die", "borrow deadly"])
def test_a_process_that_is_killed_fails_who_used_it_and_nobody_after(
    lender: Lender, order: str
) -> None:
    tiny = lender.workers.load("tiny")
    with pytest.raises(WorkerEnded, match="memory") as ended:
        heard(tiny, order)
    assert (ended.value.status, ended.value.code) == (500, "worker_ended")
    assert tiny.worn_out
    with pytest.raises(WorkerEnded):
        heard(tiny)
    assert heard(lender.workers.load("tiny")).startswith("tiny")


def test_a_process_that_dies_while_it_loads_is_not_the_last(lender: Lender) -> None:
    with pytest.raises(WorkerEnded):
        lender.workers.load("deadly")
    assert heard(lender.workers.load("tiny")).startswith("tiny")


def test_signals_for_all_processes_are_the_services_to_heed(lender: Lender) -> None:
    tiny = lender.workers.load("tiny")
    [worker] = workers_here()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker, number)
    assert heard(tiny).startswith("tiny")


def test_nothing_temporary_is_left(lender: Lender) -> None:
    tiny = lender.workers.load("tiny")
    folder = Path(heard(tiny, "where"))
    assert folder.is_dir()
    (folder / "something").touch()
    del tiny
    wait_until(lambda: workers_here() == [])
    assert not folder.exists()


SERVICE = """
import os, signal, sys
import psutil
from speech_service.contract.settings import Settings
from speech_service.work.isolation import Workers
from tests.services.obedient_engine import BURDEN, ObedientEngine
workers = Workers(ObedientEngine, Settings(), BURDEN)
workers.prepare(lambda name: None)
model = workers.load("tiny")
print(*(child.pid for child in psutil.Process().children()), flush=True)
os.kill(os.getpid(), getattr(signal, sys.argv[1])) if len(sys.argv) > 1 else None
"""


@pytest.mark.parametrize("end", [[], ["SIGKILL"]])
def test_no_process_outlives_the_service(end: list[str]) -> None:
    command = [sys.executable, "-c", SERVICE, *end]
    service = subprocess.run(command, capture_output=True, text=True, timeout=60)
    [worker] = map(int, service.stdout.split())

    wait_until(lambda: not runs(worker))


def runs(process: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False

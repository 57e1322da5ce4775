"""A log whose reader is slow, stuck or gone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

import pytest

from autostart_proxy import log_writer
from autostart_proxy.log_writer import Writer

PIPE_BYTES = 64 * 1024
LINE = "x" * 99 + "\n"


class Pipe:
    """A pipe: its reading end, and a writer at the other."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.stream: TextIO = os.fdopen(writing, "w")
        self.writer = Writer(self.stream, lambda lines: f"{lines} lost")

    def read(self, size: int) -> str:
        got = b""
        while len(got) < size and (more := os.read(self.reading, size - len(got))):
            got += more
        return got.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.writer.close()
    with suppress(OSError):
        os.close(pipe.reading)  # whoever still writes is told that nobody reads
    if pipe.writer._thread is not None:
        pipe.writer._thread.join(5)
        assert not pipe.writer._thread.is_alive()
    with suppress(OSError):
        pipe.stream.close()


def test_lines_arrive_in_order_and_drain_waits_for_them(pipe: Pipe) -> None:
    for number in range(100):
        pipe.writer.write(f"{number}\n")
    pipe.writer.drain()
    expected = "".join(f"{number}\n" for number in range(100))
    assert pipe.read(len(expected)) == expected


def test_nobody_waits_for_a_reader_that_does_not_read(pipe: Pipe) -> None:
    began = time.monotonic()
    for _ in range(10 * PIPE_BYTES // len(LINE)):
        pipe.writer.write(LINE)
    assert time.monotonic() - began < 1
    sent = 10 * PIPE_BYTES // len(LINE) * len(LINE)
    assert pipe.read(sent) == LINE * (sent // len(LINE))


def test_what_does_not_fit_is_lost_and_the_loss_is_told_once_somebody_reads(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "LIMIT_CHARACTERS", 2 * PIPE_BYTES)
    stuck = "y" * (PIPE_BYTES + 99) + "\n"
    pipe.writer.write(stuck)  # the thread waits in the middle of this
    while pipe.writer._texts:
        time.sleep(0.001)
    kept = 2 * PIPE_BYTES // len(LINE)
    for _ in range(kept + 7):
        pipe.writer.write(LINE)
    expected = stuck + LINE * kept + "7 lost\n"
    assert pipe.read(len(expected)) == expected
    pipe.writer.write("good again\n")
    assert pipe.read(11) == "good again\n"


def test_the_end_does_not_wait_for_ever(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "DRAIN_SECONDS", 0.1)
    pipe.writer.write(LINE * (2 * PIPE_BYTES // len(LINE)))
    began = time.monotonic()
    pipe.writer.drain()
    assert 0.09 < time.monotonic() - began < 2


def test_a_reader_that_has_gone_breaks_nothing(pipe: Pipe) -> None:
    os.close(pipe.reading)
    for _ in range(2):
        pipe.writer.write("to nobody\n")
        pipe.writer.drain()
    assert pipe.writer._thread is not None and pipe.writer._thread.is_alive()


def test_closing_ends_the_thread(pipe: Pipe) -> None:
    pipe.writer.write("x\n")
    pipe.writer.drain()
    thread = pipe.writer._thread
    assert thread is not None and thread.is_alive() and thread.daemon
    pipe.writer.close()
    thread.join(5)
    assert not thread.is_alive()

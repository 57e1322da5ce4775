"""Progress of blocking work as items of a generator."""

from __future__ import annotations

import threading

import pytest
from speech_service.contract.transcript import Progress, Stage
from whisperx_engine.watching import Report, watched


def test_progress_comes_while_the_work_goes_on_and_the_result_at_its_end() -> None:
    seen = threading.Event()

    def work(report: Report) -> str:
        report(25.0)
        assert seen.wait(10)
        report(100.0)
        return "done"

    stage = watched(Stage.ALIGN, work)
    assert next(stage) == Progress(Stage.ALIGN, 0.0)
    assert next(stage) == Progress(Stage.ALIGN, 0.25)
    seen.set()
    assert next(stage) == Progress(Stage.ALIGN, 1.0)
    with pytest.raises(StopIteration) as ended:
        next(stage)
    assert ended.value.value == "done"


def test_a_failure_comes_out_as_it_is() -> None:
    def work(report: Report) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(watched(Stage.ALIGN, work))


def test_closing_stops_the_work_and_waits_for_its_end() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(report: Report) -> None:
        try:
            while True:
                begun.set()
                report(1.0)
        finally:
            ended.set()

    stage = watched(Stage.DIARIZE, work)
    next(stage)
    assert begun.wait(10)
    stage.close()
    assert ended.is_set()

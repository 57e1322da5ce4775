"""Operations that supersede each other."""

from __future__ import annotations

import asyncio

from autostart_proxy.operation import Operation, Work


class Diary:
    """Notes what each operation does; one takes its time to let go."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.may_let_go = asyncio.Event()

    def work(self, name: str, *, lasts: bool = True) -> Work:
        async def work() -> None:
            self.lines.append(f"{name} begins")
            try:
                if lasts:
                    await asyncio.Event().wait()
                self.lines.append(f"{name} is done")
            except asyncio.CancelledError:
                await self.may_let_go.wait()
                self.lines.append(f"{name} has ended")
                raise

        return work


async def until(diary: Diary, last: str) -> None:
    async with asyncio.timeout(60):
        while diary.lines[-1:] != [last]:  # noqa: ASYNC110 - a list has no event to set
            await asyncio.sleep(0.001)


async def test_the_newer_begins_only_once_the_older_is_over() -> None:
    operation, diary = Operation(), Diary()
    operation.begin(diary.work("start"))
    await until(diary, "start begins")
    operation.begin(diary.work("stop", lasts=False))
    await asyncio.sleep(0.01)
    assert diary.lines == ["start begins"]
    diary.may_let_go.set()
    await until(diary, "stop is done")
    assert diary.lines == ["start begins", "start has ended", "stop begins", "stop is done"]


async def test_what_is_superseded_while_it_waits_never_begins() -> None:
    operation, diary = Operation(), Diary()
    operation.begin(diary.work("start"))
    await until(diary, "start begins")
    operation.begin(diary.work("stop"))
    await asyncio.sleep(0.01)
    operation.begin(diary.work("start again", lasts=False))
    diary.may_let_go.set()
    await until(diary, "start again is done")
    assert "stop begins" not in diary.lines


async def test_nothing_can_be_begun_to_end_what_is_under_way() -> None:
    operation, diary = Operation(), Diary()
    diary.may_let_go.set()
    operation.begin(diary.work("stop"))
    await until(diary, "stop begins")
    operation.begin(None)
    await until(diary, "stop has ended")


async def test_an_end_is_awaited() -> None:
    operation, diary = Operation(), Diary()
    await operation.end()
    operation.begin(diary.work("start"))
    await until(diary, "start begins")
    ending = asyncio.ensure_future(operation.end())
    await asyncio.sleep(0.01)
    assert not ending.done()
    diary.may_let_go.set()
    await ending
    assert diary.lines == ["start begins", "start has ended"]


async def test_after_one_that_is_done_the_next_begins_at_once() -> None:
    operation, diary = Operation(), Diary()
    for name in ("one", "two"):
        operation.begin(diary.work(name, lasts=False))
        await until(diary, f"{name} is done")

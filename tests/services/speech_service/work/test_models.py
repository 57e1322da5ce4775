"""Models in memory: loaded once, kept while used, given back after a time."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest
from speech_service.contract.errors import Conflict, ModelUnavailable, NotFound
from speech_service.work.models import ModelPool

MS = 0.001


class Model:
    """Something whose end can be watched."""


def recording(loads: list[str]) -> Callable[[str], Model]:
    def load(name: str) -> Model:
        loads.append(name)
        return Model()

    return load


async def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(10 * MS)
    raise AssertionError("it did not happen")


async def test_a_model_is_loaded_once_for_all() -> None:
    loads: list[str] = []
    pool = ModelPool(recording(loads), ttl=-1)
    leases = await asyncio.gather(*(pool.acquire("a") for _ in range(20)))
    assert loads == ["a"]
    assert len({id(lease.model) for lease in leases}) == 1


async def test_what_is_no_model_is_kept_like_one_and_not_listed() -> None:
    loads: list[str] = []
    pool = ModelPool(recording(loads), ttl=-1)
    for _ in range(2):
        (await pool.acquire(":libraries")).release()
    (await pool.acquire("alignment:en")).release()
    assert loads == [":libraries", "alignment:en"]
    assert pool.loaded == ["alignment:en"]


async def test_an_idle_model_is_given_back() -> None:
    pool = ModelPool(lambda name: Model(), ttl=20 * MS)
    lease = await pool.acquire("a")
    ended = weakref.ref(lease.model)
    await asyncio.sleep(60 * MS)
    assert pool.loaded == ["a"]
    lease.release()
    del lease
    await until(lambda: ended() is None)
    assert pool.loaded == []


async def test_use_before_the_end_of_its_time_keeps_a_model() -> None:
    loads: list[str] = []
    pool = ModelPool(recording(loads), ttl=100 * MS)
    for _ in range(4):
        (await pool.acquire("a")).release()
        await asyncio.sleep(50 * MS)
    assert loads == ["a"]


async def test_a_time_of_zero_gives_back_at_once() -> None:
    pool = ModelPool(lambda name: Model(), ttl=0)
    (await pool.acquire("a")).release()
    await until(lambda: pool.loaded == [])


async def test_a_failed_load_reaches_all_who_wait_and_is_tried_again() -> None:
    answers = iter([ModelUnavailable("away"), None])

    def load(name: str) -> Model:
        if error := next(answers):
            raise error
        return Model()

    pool = ModelPool(load, ttl=-1)
    failed = await asyncio.gather(*(pool.acquire("a") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [ModelUnavailable] * 3
    assert isinstance((await pool.acquire("a")).model, Model)


async def test_a_load_goes_on_when_its_client_leaves() -> None:
    allowed = threading.Event()
    pool = ModelPool(lambda name: Model() if allowed.wait(5) else None, ttl=-1)
    waiting = asyncio.ensure_future(pool.acquire("a"))
    await asyncio.sleep(20 * MS)
    waiting.cancel()
    allowed.set()
    await until(lambda: pool.loaded == ["a"])


async def test_a_model_nobody_waited_for_is_given_back_too() -> None:
    allowed = threading.Event()
    pool = ModelPool(lambda name: Model() if allowed.wait(5) else None, ttl=10 * MS)
    waiting = asyncio.ensure_future(pool.acquire("a"))
    await asyncio.sleep(20 * MS)
    waiting.cancel()
    await asyncio.sleep(0)
    allowed.set()
    await until(lambda: not pool._slots)


async def test_unloading_by_hand_respects_users() -> None:
    pool = ModelPool(lambda name: Model(), ttl=-1)
    with pytest.raises(NotFound):
        await pool.unload("a")
    lease = await pool.acquire("a")
    with pytest.raises(Conflict):
        await pool.unload("a")
    ended = weakref.ref(lease.model)
    lease.release()
    del lease
    await pool.unload("a")
    gc.collect()
    assert ended() is None
    assert pool.loaded == []


async def test_a_worker_keeps_what_it_has_borrowed_while_it_needs_it() -> None:
    pool = ModelPool(lambda name: Model(), ttl=0)
    own = await pool.acquire("a")
    seen: list[list[str]] = []

    def work() -> None:
        with pool.borrow("b") as model:
            assert isinstance(model, Model)
            seen.append(pool.loaded)

    await asyncio.to_thread(work)
    assert seen == [["a", "b"]]
    await until(lambda: pool.loaded == ["a"])
    own.release()


async def test_what_cannot_be_loaded_cannot_be_borrowed() -> None:
    def load(name: str) -> Model:
        if name == "b":
            raise ModelUnavailable("away")
        return Model()

    pool = ModelPool(load, ttl=-1)
    await pool.acquire("a")

    def work() -> None:
        with pytest.raises(ModelUnavailable), pool.borrow("b"):
            raise AssertionError("it was lent")

    await asyncio.to_thread(work)
    assert pool.loaded == ["a"]


class Worn(Model):
    """A model that may wear out."""

    worn_out = False


async def test_a_model_that_is_worn_out_is_loaded_anew_for_whoever_comes_next() -> None:
    pool = ModelPool(lambda name: Worn(), ttl=-1, worn_out=lambda model: model.worn_out)
    first = await pool.acquire("a")
    old = weakref.ref(first.model)
    first.model.worn_out = True
    second = await pool.acquire("a")
    assert second.model is not first.model
    assert pool.loaded == ["a"]
    first.release()
    del first
    await until(lambda: old() is None)
    assert (await pool.acquire("a")).model is second.model


async def test_a_model_that_wore_out_unused_is_given_back_before_the_next_is_used() -> None:
    pool = ModelPool(lambda name: Worn(), ttl=-1, worn_out=lambda model: model.worn_out)
    lease = await pool.acquire("a")
    old = weakref.ref(lease.model)
    lease.model.worn_out = True
    lease.release()
    del lease
    (await pool.acquire("a")).release()
    await until(lambda: old() is None)
    assert pool.loaded == ["a"]

"""Requests that wait for their service, and those that do not."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from autostart_proxy import errors
from tests.relay.wire import (
    OK,
    Config,
    Line,
    Message,
    Relay,
    ScriptedUpstream,
    access_log,
    get,
    relaying,
    until,
)

POST = b"POST /up HTTP/1.1\r\nHost: a.example\r\n"


async def test_a_request_waits_until_its_service_is_ready(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    await client.send(get())
    await relay.service.until(lambda s: len(s.held) == 1)
    assert await client.silent()
    assert relay.upstream.count == 0
    relay.service.open()
    line = await relay.upstream.next()
    await line.head()
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_the_body_of_a_held_request_stays_unread(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    client.writer.write(POST + b"Content-Length: 50000000\r\n\r\n")
    sent = 0
    try:
        async with asyncio.timeout(0.5):
            while sent < 50_000_000:
                client.writer.write(b"x" * 100_000)
                await client.writer.drain()
                sent += 100_000
    except TimeoutError:
        pass
    assert sent < 20_000_000, "the relay took in what it cannot pass on"
    relay.service.open()
    line = await relay.upstream.next()
    await line.head()
    got = len(await line.exactly(sent))
    assert got == sent
    client.reset()
    line.reset()


@pytest.mark.parametrize("request_", [get(), POST + b"Content-Length: 9\r\n\r\nabc"])
async def test_a_client_that_leaves_while_held_is_noticed_and_logged_as_499(
    relay: Relay, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    relay.service.ready = False
    with caplog.at_level(logging.INFO):
        client = await relay.client()
        await client.send(request_)
        await relay.service.until(lambda s: len(s.held) == 1)
        client.close()
        await relay.service.until(lambda s: not s.held)
    [line] = access_log(caplog)
    assert line["status"] == 499
    assert line["service"] == relay.service.host
    relay.service.open()
    await asyncio.sleep(0.05)
    assert relay.upstream.count == 0


async def test_one_of_two_waiters_leaves_and_the_other_is_served(relay: Relay) -> None:
    relay.service.ready = False
    leaver, stayer = await relay.client(), await relay.client()
    await leaver.send(get("/leaver"))
    await stayer.send(get("/stayer"))
    await relay.service.until(lambda s: len(s.held) == 2)
    leaver.close()
    await relay.service.until(lambda s: len(s.held) == 1)
    relay.service.open()
    line = await relay.upstream.next()
    assert b"/stayer" in (await line.head()).first
    await line.send(OK)
    assert (await stayer.answer()).body == b"ok"
    line.close()


async def test_two_hundred_waiters_with_bodies_all_get_their_own_answer() -> None:
    async def echo(line: Line) -> None:
        while True:
            size = int((await line.head())["content-length"])
            body = await line.exactly(size)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
            await line.send(answer)

    async with relaying(script=echo) as relay:
        relay.service.ready = False
        clients = [await relay.client() for _ in range(200)]
        for number, client in enumerate(clients):
            body = b"%d" % number * 1000
            await client.send(POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await relay.service.until(lambda s: len(s.held) == 200)
        relay.service.open()
        for number, client in enumerate(clients):
            assert (await client.answer()).body == b"%d" % number * 1000
            client.close()


async def test_a_refusal_is_answered_with_its_status_tag_and_request_id(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.service.ready = False
    client = await relay.client()
    with caplog.at_level(logging.INFO):
        await client.send(get())
        await relay.service.until(lambda s: len(s.held) == 1)
        relay.service.refuse(errors.StartFailed(detail="/secret/path"))
        got = await client.answer()
    told = json.loads(got.body)
    assert got.status == 503
    assert got["retry-after"] == "5"
    assert set(told) == {"error", "message", "request_id"}
    assert told["error"] == "start_failed"
    assert told["request_id"] == got["x-request-id"]
    assert b"secret" not in got.body
    [line] = access_log(caplog)
    assert line["id"] == told["request_id"]
    assert line["error"] == "start_failed"
    await client.send(get("/again"))  # the connection is still good
    await relay.service.until(lambda s: len(s.held) == 1)
    relay.service.open()
    line_ = await relay.upstream.next()
    await line_.head()
    await line_.send(OK)
    assert (await client.answer()).status == 200
    line_.close()


async def test_a_refused_upload_is_answered_and_ended_in_good_order(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    await client.send(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000)
    await relay.service.until(lambda s: len(s.held) == 1)
    relay.service.refuse(errors.HoldExpired())
    got = await client.answer()
    assert (got.status, got["connection"]) == (504, "close")
    await client.send(b"x" * 500_000)
    assert await client.rest() == b""
    client.close()


async def test_a_held_expectation_is_refused_without_a_100(relay: Relay) -> None:
    relay.service.ready = False
    client = await relay.client()
    await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    await relay.service.until(lambda s: len(s.held) == 1)
    relay.service.refuse(errors.HoldExpired())
    assert (await client.head()).status == 504
    client.close()


async def test_a_service_that_refuses_connections_is_given_back_and_the_request_waits(
    relay: Relay,
) -> None:
    assert relay.upstream.server is not None
    relay.upstream.server.close()
    await relay.upstream.server.wait_closed()
    relay.service.admit_returned = False
    client = await relay.client()
    await client.send(POST + b"Content-Length: 3\r\n\r\nabc")
    await relay.service.until(lambda s: len(s.held) == 1)
    assert relay.service.returns == 1
    assert await client.silent()
    await relay.upstream.__aenter__()
    relay.service.open()
    line = await relay.upstream.next()
    await line.head()
    assert await line.exactly(3) == b"abc"
    await line.send(OK)
    assert (await client.answer()).body == b"ok"
    line.close()


async def test_a_service_that_never_accepts_is_an_error_after_a_few_attempts() -> None:
    async with ScriptedUpstream() as gone, relaying() as relay:
        assert gone.server is not None
        gone.server.close()
        await gone.server.wait_closed()
        good = relay.service.address
        relay.service.address = "127.0.0.1", gone.port
        client = await relay.client()
        await client.send(get())
        got = await client.answer()
        assert got.status == 502
        assert json.loads(got.body)["error"] == "upstream_unreachable"
        assert str(gone.port).encode() not in got.body
        assert relay.service.returns == 3
        relay.service.address = good
        client.close()


async def test_a_lease_that_is_cut_before_its_answer_gets_an_error(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    relay.service.flowing[0].cut()
    assert (await client.answer()).status == 502
    assert relay.service.flowing == []
    assert await line.until_gone() == b""
    client.close()


async def test_a_lease_that_is_cut_within_its_answer_is_reset(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\n\r\npart")
    await client.head()
    relay.service.flowing[0].cut()
    with pytest.raises(ConnectionError):
        await client.rest()
    await line.until_gone()


# Requests that do not wait.

BROWSER = ("Accept: text/html,application/xhtml+xml,*/*;q=0.8",)


async def test_a_browser_gets_the_waiting_page_at_once() -> None:
    async with relaying(config=Config(blocking=False)) as relay:
        relay.service.ready = False
        got = await relay_once(relay, get("/deep?link=1", *BROWSER))
        assert got.status == 503
        assert got["retry-after"] == "7"
        assert got["cache-control"] == "no-store"
        assert got["content-type"] == "text/html; charset=utf-8"
        assert b"A &lt;service&gt; is waking up" in got.body
        assert b'data-elapsed="3.0"' in got.body
        assert b"waiting?to=%2Fdeep%3Flink%3D1" in got.body
        assert b"http://" not in got.body and b"https://" not in got.body and b"//" not in got.body
        assert relay.service.wakes == 1
        assert relay.service.arrivals == 0


async def relay_once(relay: Relay, request: bytes) -> Message:
    client = await relay.client()
    await client.send(request)
    got = await client.answer()
    client.close()
    return got


async def test_a_program_gets_json_and_a_time_to_come_back() -> None:
    async with relaying(config=Config(blocking=False)) as relay:
        relay.service.ready = False
        got = await relay_once(relay, get("/v1", "Accept: */*"))
        assert (got.status, got["retry-after"]) == (503, "7")
        assert json.loads(got.body)["error"] == "starting"


async def test_a_failed_service_says_so_instead_of_starting() -> None:
    async with relaying(config=Config(blocking=False)) as relay:
        relay.service.ready = False
        relay.service.wake_answer = errors.ContainerExited()
        relay.service.told = {"state": "failed", "message": "Why.", "retry_in_seconds": 2.5}
        program = await relay_once(relay, get("/"))
        assert program.status == 502
        assert b"container_exited" in program.body
        person = await relay_once(relay, get("/", *BROWSER))
        assert (person.status, person["x-autostart"]) == (502, "container_exited")
        assert b"A &lt;service&gt; is not available" in person.body
        assert b"The next try is possible in 3 s." in person.body


async def test_blocking_auto_shows_the_page_to_navigations_and_holds_the_rest() -> None:
    async with relaying(config=Config(blocking="auto")) as relay:
        relay.service.ready = False
        page = await relay_once(relay, get("/", "Sec-Fetch-Mode: navigate", *BROWSER))
        assert page.status == 503
        assert b"is waking up" in page.body
        fetch, program = await relay.client(), await relay.client()
        await fetch.send(get("/fetch", "Sec-Fetch-Mode: cors", *BROWSER))
        await program.send(POST + b"Content-Length: 2\r\n\r\nhi")
        await relay.service.until(lambda s: len(s.held) == 2)
        relay.service.open()
        for _ in range(2):
            line = await relay.upstream.next()
            await line.head()
            await line.send(OK)
        assert (await fetch.answer()).status == (await program.answer()).status == 200


async def test_a_ready_service_is_used_at_once_whatever_blocking_says() -> None:
    async with relaying(config=Config(blocking=False)) as relay:
        seen, got = await relay.exchange(get("/", *BROWSER))
        assert got.status == 200
        assert relay.service.wakes == 0


async def test_the_waiting_page_of_a_head_request_has_no_body() -> None:
    async with relaying(config=Config(blocking="auto")) as relay:
        relay.service.ready = False
        client = await relay.client()
        await client.send(get("/", *BROWSER).replace(b"GET", b"HEAD"))
        assert int((await client.answer(head_only=True))["content-length"]) > 100
        assert await client.silent()
        client.close()


async def test_closing_the_server_lets_requests_in_flight_finish(relay: Relay) -> None:
    idle, busy = await relay.client(), await relay.client()
    await busy.send(get())
    line = await relay.upstream.next()
    await line.head()
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.server.close(5))
        assert await idle.rest() == b""
        await until(lambda: relay.server.draining)
        await line.send(OK)
        got = await busy.answer()
        assert (got.body, got["connection"]) == (b"ok", "close")
        assert await busy.rest() == b""
    line.close()
    relay.server.draining = False
    relay.address = await relay.server.listen("127.0.0.1:0")


async def test_closing_the_server_does_not_wait_for_the_next_request_of_a_client(
    relay: Relay,
) -> None:
    """The answer had begun, and promised to go on, before anybody knew of the end."""
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert "connection" not in await client.head()
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.server.close(60))
        await until(lambda: relay.server.draining)
        await line.send(b"cde")
        assert await client.rest() == b"abcde"
    line.close()
    relay.server.draining = False
    relay.address = await relay.server.listen("127.0.0.1:0")


async def test_closing_the_server_cuts_off_what_is_left_after_its_time(relay: Relay) -> None:
    client = await relay.client()
    await client.send(get())
    line = await relay.upstream.next()
    await line.head()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    await client.head()
    await relay.server.close(0.05)
    with pytest.raises(ConnectionError):
        await client.rest()
    await line.until_gone()
    relay.server.draining = False
    relay.address = await relay.server.listen("127.0.0.1:0")

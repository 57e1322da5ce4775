"""One line and one count for each request, and an answer to what no route has caught."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest
from speech_service.http.access import Access
from speech_service.work.metrics import Metrics
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...harness import serve, wait_until

SECRET = "s3cret"


class Watched:
    """A request through the middleware, and what came of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.metrics = Metrics()
        self.sent: list[Message] = []
        self._access = Access(app, self.metrics)

    async def ask(
        self,
        route: str | None = "/v1/models/{model}",
        kind: str = "http",
        method: str = "GET",
    ) -> None:
        scope: dict[str, Any] = {
            "type": kind,
            "method": method,
            "path": f"/v1/models/{SECRET}",
            "query_string": f"token={SECRET}".encode(),
        }
        if route:
            scope["route"] = SimpleNamespace(path=route)

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self._access(scope, receive, send)

    def counted(self, route: str, status: str) -> bool:
        line = f'speech_requests_total{{route="{route}",status="{status}"}} 1.0'
        return line in generate_latest(self.metrics.registry).decode()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "speech_service.access")
    return caplog


async def test_a_request_is_recorded_by_its_route(log: pytest.LogCaptureFixture) -> None:
    watched = Watched(PlainTextResponse("ok"))
    await watched.ask()
    [record] = log.records
    assert record.getMessage() == "request"
    data = vars(record)
    assert (data["method"], data["route"], data["status"]) == ("GET", "/v1/models/{model}", 200)
    assert SECRET not in str(data)
    assert watched.counted("/v1/models/{model}", "200")


PATHS = ["/", "/health", "/ready", "/docs", "/docs/start.js", "/openapi.json", "/v1/models"]
OTHERS = ["/v1/models/tiny", "/api/ps", "/docs/assets/swagger-ui.css"]
REFUSED = ["/v1/models/none", "/nothing", "/v1/audio/transcriptions"]


@pytest.mark.parametrize("path", [*PATHS, *OTHERS, *REFUSED])
def test_head_is_answered_as_get_without_the_body(path: str) -> None:
    with serve() as http:
        wait_until(lambda: http.get("/ready").status_code == 200)
        got, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert (got.status_code == 200) is (path not in REFUSED)
        for name in ("content-type", "content-length", "allow"):
            assert head.headers.get(name) == got.headers.get(name)
        assert http.get("/health").text == "OK", "the connection is as it was"


async def test_head_is_recorded_as_what_it_was(log: pytest.LogCaptureFixture) -> None:
    watched = Watched(PlainTextResponse("ok"))
    await watched.ask(method="HEAD")
    [record] = log.records
    assert (vars(record)["method"], vars(record)["route"]) == ("HEAD", "/v1/models/{model}")


@pytest.mark.parametrize("route", ["/health", "/ready", "/metrics"])
async def test_what_probers_ask_is_counted_in_silence(
    route: str, log: pytest.LogCaptureFixture
) -> None:
    watched = Watched(PlainTextResponse("ok"))
    await watched.ask(route)
    assert log.records == []
    assert watched.counted(route, "200")


async def test_a_client_that_left_before_its_answer_is_a_499() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        """Answers nothing."""

    watched = Watched(gone)
    await watched.ask(route=None)
    assert watched.counted("other", "499")


async def test_a_defect_is_a_500_that_says_nothing_and_a_log_that_says_all(
    log: pytest.LogCaptureFixture,
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("/secret/path")

    watched = Watched(broken)
    await watched.ask()
    start, body = watched.sent
    assert start["status"] == 500
    assert b"internal_error" in body["body"]
    assert b"secret" not in body["body"]
    assert "RuntimeError: /secret/path" in log.text
    assert watched.counted("/v1/models/{model}", "500")


async def test_a_defect_in_the_middle_of_an_answer_is_left_to_the_server() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("later")

    watched = Watched(broken)
    with pytest.raises(RuntimeError, match="later"):
        await watched.ask()
    assert len(watched.sent) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"type": "websocket.accept"}, 101),
        ({"type": "websocket.http.response.start", "status": 403}, 403),
        ({"type": "websocket.close"}, 499),
    ],
)
async def test_a_websocket_has_a_line_of_its_own(
    sent: Message, status: int, log: pytest.LogCaptureFixture
) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send(sent)

    watched = Watched(answer)
    await watched.ask(kind="websocket")
    assert watched.sent == [sent]
    [record] = log.records
    data = vars(record)
    assert (record.getMessage(), data["route"], data["status"]) == (
        "websocket",
        "/v1/models/{model}",
        status,
    )
    assert SECRET not in str(data)


async def test_what_is_neither_passes(log: pytest.LogCaptureFixture) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        """Says nothing."""

    await Watched(nothing).ask(kind="lifespan")
    assert log.records == []

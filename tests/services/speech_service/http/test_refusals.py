"""Every failure in one shape."""

from __future__ import annotations

from ...harness import serve


def test_unknown_routes_and_methods_answer_in_one_shape() -> None:
    with serve() as http:
        unknown = http.get("/nothing")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        wrong = http.get("/v1/audio/transcriptions")
        assert wrong.status_code == 405
        assert wrong.json()["error"]["type"] == "invalid_request_error"
        assert wrong.headers["allow"] == "POST"
        assert http.get("/api/ps/base").headers["allow"] == "DELETE, POST"
        assert http.post("/health").headers["allow"] == "GET, HEAD"

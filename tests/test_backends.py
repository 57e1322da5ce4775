"""The values that backends and their callers exchange."""

from __future__ import annotations

from autostart_proxy.backends import Exit, Upstream


def test_an_upstream_can_be_connected_to() -> None:
    assert Upstream("127.0.0.1", 8001, has_healthcheck=True).address == ("127.0.0.1", 8001)


def test_an_exit_is_told_with_its_code_its_cause_and_the_last_lines() -> None:
    assert str(Exit("web", 3)) == "web exited with 3"
    killed = Exit("web", 137, out_of_memory=True, log_tail=("one", "two"))
    assert str(killed) == "web exited with 137, out of memory\n  one\n  two"

"""What the proxy and the runner say to each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from autostart_proxy.backends import Exit, Observation, Upstream
from autostart_proxy.backends.runner import messages
from autostart_proxy.backends.runner.messages import (
    Cancel,
    Changed,
    Made,
    News,
    Nonsense,
    Order,
    Orders,
    Outcome,
    Refusal,
)
from autostart_proxy.config.units import CommandUnit
from autostart_proxy.errors import Misconfigured, PortInUse, StartFailed, StopFailed

UNIT = CommandUnit(("/bin/true", "\N{SNOWMAN}\n"), Path("/opt/a b"), {"A": "1"}, "::1", 80)
EXIT = Exit("true", 137, True, ("one", "two"))


def test_what_a_service_is_comes_over_as_it_was() -> None:
    for unit in (UNIT, CommandUnit(("true",), None, {}, "127.0.0.1", 1)):
        made = Made("a.example", unit, 1.5)
        assert messages.read_made(messages.line(made)) == made


@pytest.mark.parametrize("order", [Order(1, "start"), Order(2, "stop", 0.5), Cancel(1)])
def test_orders_come_over_as_they_were(order: Orders) -> None:
    sent = messages.line(order)
    assert sent.count(b"\n") == 1
    assert messages.read_order(sent) == order


@pytest.mark.parametrize(
    "news",
    [
        Changed(changed=True),
        Outcome(1),
        Outcome(1, launched=True),
        Outcome(1, upstream=Upstream("127.0.0.1", 80)),
        Outcome(1, exits=(EXIT,), lines=("\x1b[31m",)),
        Outcome(1, seen=Observation(running=False, exit=EXIT, remains=True)),
        Outcome(1, refusal=Refusal("port_in_use", "somebody")),
    ],
)
def test_news_come_over_as_they_were(news: News) -> None:
    assert messages.read_news(messages.line(news)) == news


@pytest.mark.parametrize(
    "sent",
    [b"", b"\n", b"x\n", b"\xff\n", b"[]\n", b"{}\n", b"null\n", b"[" * 60_000 + b"\n"]
    + [b'{"call": 1, "verb": "exec"}\n', b'{"call": [1], "verb": "start"}\n'],
)
def test_nonsense_is_told_without_repeating_it(sent: bytes) -> None:
    for read in (messages.read_made, messages.read_order, messages.read_news):
        if sent.startswith(b'{"call": 1') and read is messages.read_news:
            continue  # an outcome with a key that does not count
        with pytest.raises(Nonsense, match=r"mistakes in \d+ bytes"):
            read(sent)


def test_a_secret_that_is_sent_wrongly_is_not_told() -> None:
    made = messages.line(Made("a", UNIT, 1)).replace(b'"A":"1"', b'"TOKEN":["sesame"]')
    with pytest.raises(Nonsense) as nonsense:
        messages.read_made(made)
    assert "sesame" not in str(nonsense.value)
    assert nonsense.value.__cause__ is None


@pytest.mark.parametrize("kind", [Misconfigured, PortInUse, StartFailed, StopFailed])
def test_a_refusal_keeps_its_reason(kind: type[StartFailed]) -> None:
    reason = messages.refused(messages.refusal(kind(detail="why"))).reason
    assert type(reason) is kind
    assert reason.detail == "why"


def test_a_refusal_that_nobody_knows_is_a_failed_start() -> None:
    assert type(messages.refused(Refusal("new", "why")).reason) is StartFailed

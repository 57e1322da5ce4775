"""For whose page a browser asks, as the shipped Nginx files judge it; how often one may guess."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import time
from collections import Counter
from datetime import date
from pathlib import Path

import aiohttp
import pytest

from tests.nginx_site import (  # noqa: F401 - fixtures
    HOST,
    Site,
    move_site,
    running,
    sign_certificates,
    start_echo,
    start_nginx,
)

PORTAL = "https://portal.example.org"
EVIL = "https://evil.example"
PASSWORD = "Basic " + base64.b64encode(b"you:secret").decode()
DAY = date(2026, 8, 1)

OWN = "https://{host}"  # as browsers write it: with the port, where it is not the usual one
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SOCKET = {"Upgrade": "websocket", "Connection": "Upgrade"}

ALLOWED = {
    "a program": ("POST", {}),
    "a program's WebSocket": ("GET", SOCKET),
    "its own page": ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": OWN}),
    "its own page, in an older browser": ("POST", {"Origin": OWN}),
    "its own page's WebSocket": ("GET", {"Origin": OWN, **SOCKET}),
    "its own page's WebSocket, taken for another site's": (
        "GET",
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "websocket", "Origin": OWN, **SOCKET},
    ),
    "its own page that hides where it is": (
        "POST",
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
    ),
    "the visitor": ("GET", {"Sec-Fetch-Site": "none", **LINK}),
    "a link": ("GET", {"Sec-Fetch-Site": "cross-site", **LINK}),
    "a link of a neighbour": ("HEAD", {"Sec-Fetch-Site": "same-site", **LINK}),
    "the portal": ("POST", {"Sec-Fetch-Site": "same-site", "Origin": PORTAL}),
    "the portal, in an older browser": ("DELETE", {"Origin": PORTAL}),
}
REFUSED = {
    "a form": ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": EVIL, **LINK}),
    "a form that says nothing of its page": ("POST", {"Sec-Fetch-Site": "cross-site", **LINK}),
    "a form of a neighbour": ("POST", {"Sec-Fetch-Site": "same-site", **LINK}),
    "a frame": (
        "GET",
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "iframe",
        },
    ),
    "an image": (
        "GET",
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    ),
    "a script": ("GET", {"Sec-Fetch-Site": "cross-site", "Origin": EVIL}),
    "a link with a body": ("PUT", {"Sec-Fetch-Site": "cross-site", **LINK}),
    "a browser that tells the site alone": ("GET", {"Sec-Fetch-Site": "cross-site"}),
    "an older browser": ("POST", {"Origin": EVIL}),
    "an older browser's WebSocket": ("GET", {"Origin": EVIL, **SOCKET}),
    "a WebSocket": ("GET", {"Sec-Fetch-Site": "cross-site", "Origin": EVIL, **SOCKET}),
    "a WebSocket that says so": (
        "GET",
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "websocket", "Origin": EVIL, **SOCKET},
    ),
    "a WebSocket that says nothing of its page": (
        "GET",
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "websocket", **SOCKET},
    ),
    "a form that was sent on from its own page": (
        "POST",
        {"Sec-Fetch-Site": "cross-site", "Origin": "null", **LINK},
    ),
    "a page without an origin": ("POST", {"Origin": "null"}),
    "its own name without TLS": ("POST", {"Origin": OWN.replace("https", "http")}),
    "its own name on another port": ("POST", {"Origin": f"https://{HOST}:1"}),
    "a name that begins like it": ("POST", {"Origin": f"{OWN}.evil.example"}),
    "a name that ends like it": ("POST", {"Origin": "https://evil-{host}"}),
    "two origins": ("POST", {"Origin": f"{EVIL} {OWN}"}),
    "two origins, its own first": ("POST", {"Origin": f"{OWN} {EVIL}"}),
    "a name that begins like the portal's": ("POST", {"Origin": f"{PORTAL}.evil.example"}),
}


async def ask(
    client: aiohttp.ClientSession, site: Site, method: str, fields: dict[str, str]
) -> tuple[int, str]:
    host = f"{HOST}:{site.https}"
    headers = {name: value.format(host=host) for name, value in fields.items()}
    async with client.request(method, f"https://{host}/", headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("who", ALLOWED)
async def test_a_visitor_his_own_pages_and_programs_come_in(
    site: Site, client: aiohttp.ClientSession, who: str
) -> None:
    method, fields = ALLOWED[who]
    status, _ = await ask(client, site, method, {"Authorization": PASSWORD, **fields})
    assert status == 200
    # And none of this stands for a password.
    status, _ = await ask(client, site, method, fields)
    assert status == 401


async def test_a_service_need_not_judge_again_who_was_let_in_by_name_or_key(
    site: Site, certificates: Path
) -> None:
    """Its own rules know neither; of everybody else it is told what the browser said."""
    key = f"Bearer {site.keys.add('a', DAY)}"
    async with running(site, certificates) as client:
        own = f"https://{HOST}:{site.https}"
        for password, origin, told in (
            (PASSWORD, PORTAL, None),
            (key, EVIL, None),
            (PASSWORD, own, own),
        ):
            where = "same-origin" if origin == own else "cross-site"
            fields = {"Origin": origin, "Sec-Fetch-Site": where, "Sec-Fetch-Mode": "cors"}
            status, body = await ask(client, site, "POST", {"Authorization": password, **fields})
            seen = json.loads(body)
            assert (status, seen.get("origin"), seen["sec-fetch-mode"]) == (200, told, "cors")
            assert seen.get("sec-fetch-site") == (told and "same-origin")


@pytest.mark.parametrize("who", REFUSED)
async def test_a_page_of_another_site_does_not_ride_on_the_visitors_password(
    site: Site, client: aiohttp.ClientSession, who: str
) -> None:
    method, fields = REFUSED[who]
    status, told = await ask(client, site, method, {"Authorization": PASSWORD, **fields})
    assert (status, '"code":"cross_site"' in told) == (403, True)


@pytest.mark.parametrize("who", REFUSED)
async def test_a_key_is_brought_on_purpose_and_counts_from_every_page(
    site: Site, certificates: Path, who: str
) -> None:
    key = site.keys.add("a", DAY)
    method, fields = REFUSED[who]
    for brought in (
        {"Authorization": f"Bearer {key}"},
        {"Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{key}"},
    ):
        async with running(site, certificates) as client:
            assert (await ask(client, site, method, {**brought, **fields}))[0] == 200
            wrong = {name: f"{value}x" for name, value in brought.items()}
            assert (await ask(client, site, method, {**wrong, **fields}))[0] == 403


@pytest.mark.parametrize(("who", "status"), [("a form", 403), ("a program", 200)])
async def test_a_site_without_a_password_is_nobody_elses_either(
    site: Site, certificates: Path, who: str, status: int
) -> None:
    """Whoever may reach it over the network may not be made to by a page."""
    site.change("sites-available/whisper.example.org.conf", "include snippets/basic-auth.conf;", "")
    async with running(site, certificates) as client:
        method, fields = {**REFUSED, **ALLOWED}[who]
        assert (await ask(client, site, method, fields))[0] == status


async def test_a_site_that_leaves_the_snippet_out_is_open_to_all_pages(
    site: Site, certificates: Path
) -> None:
    site.change(
        "sites-available/whisper.example.org.conf",
        "include snippets/autostart-same-origin.conf;",
        "",
    )
    async with running(site, certificates) as client:
        for method, fields in REFUSED.values():
            got, _ = await ask(client, site, method, {"Authorization": PASSWORD, **fields})
            assert got == 200


# How often one may guess.


def wrong(number: int) -> str:
    return "Basic " + base64.b64encode(f"you:{number}".encode()).decode()


@pytest.fixture(name="narrow")
async def narrow_site(site: Site) -> Site:
    """Three tries at once and none after them, each network from where `X-Real-IP` says."""
    site.change("conf.d/autostart-keys.conf", "rate=30r/s", "rate=1r/m")
    site.change("snippets/basic-auth.conf", "burst=1000 delay=300", "burst=2 nodelay")
    (site.folder / "conf.d" / "from.conf").write_text("set_real_ip_from 127.0.0.1;\n")
    return site


async def test_guesses_beyond_the_limit_are_not_looked_at(narrow: Site, certificates: Path) -> None:
    site = narrow
    key = site.keys.add("a", DAY)
    async with running(site, certificates) as client:
        for number in range(3):
            assert (await site.ask(client, Authorization=wrong(number))).status == 401
        for guess in (wrong(3), PASSWORD, f"Bearer {key}x", "Bearer sk-other"):
            told = await site.ask(client, Authorization=guess)
            assert (told.status, told.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        # Who brings nothing is told to, and a key that is right is never counted.
        assert (await site.ask(client)).status == 401
        for _ in range(9):
            assert (await site.ask(client, Authorization=f"Bearer {key}")).status == 200
    # What fail2ban's jail for such limits looks for.
    log = (site.folder / "error.log").read_text()
    found = r'limiting requests, excess: [\d.]+ by zone "autostart_guesses", client: 127\.0\.0\.1, '
    assert len(re.findall(found, log)) == 4


async def test_a_network_guesses_no_faster_from_many_addresses(
    narrow: Site, certificates: Path
) -> None:
    async with running(narrow, certificates) as client:

        async def statuses(*addresses: str) -> list[int]:
            return [
                (await narrow.ask(client, Authorization=wrong(n), X_Real_IP=address)).status
                for n, address in enumerate(addresses)
            ]

        assert await statuses(*["203.0.113.1"] * 4) == [401, 401, 401, 429]
        assert await statuses(*["203.0.113.2"] * 4) == [401, 401, 401, 429]
        many = [f"2001:db8::{n:x}:1" for n in (1, 0x10A, 0xFFFF, 7)]
        assert await statuses(*many) == [401, 401, 401, 429]
        assert await statuses("2001:db8:0:1::1", "2001:db8:0:a0a::1") == [401, 401]


async def test_a_page_of_many_files_is_not_held_up(
    site: Site, client: aiohttp.ClientSession
) -> None:
    async with asyncio.timeout(5):
        got = await asyncio.gather(
            *(site.ask(client, f"/{n}", Authorization=PASSWORD) for n in range(250))
        )
    assert Counter(each.status for each in got) == {200: 250}


async def test_guesses_are_paced_whatever_goes_on_beside_them(
    site: Site, certificates: Path
) -> None:
    """As shipped: 300 at once, 30 a second after them. A program with a key waits for none."""
    key = f"Bearer {site.keys.add('a', DAY)}"
    async with running(site, certificates) as client:
        begun = time.monotonic()
        guesses = asyncio.gather(
            *(site.ask(client, Authorization=wrong(number)) for number in range(390))
        )
        await asyncio.sleep(1)
        assert (await site.ask(client, Authorization=key)).status == 200
        assert not guesses.done()
        assert {told.status for told in await guesses} == {401}
        assert time.monotonic() - begun > 2


# HTTPS alone, where the operator says so.


async def test_browsers_are_told_to_use_https_alone_where_the_operator_says_so(
    site: Site, certificates: Path
) -> None:
    async with running(site, certificates) as client:
        for password in (PASSWORD, ""):
            told = await site.ask(client, Authorization=password)
            assert "Strict-Transport-Security" not in told.headers
    line = "'whisper.example.org' 'max-age=86400';"
    site.change("conf.d/autostart-proxy.conf", f"# {line}", line)
    async with running(site, certificates) as client:
        for password, accept in itertools.product((PASSWORD, ""), ("*/*", "text/html")):
            told = await site.ask(client, Authorization=password, Accept=accept)
            assert told.headers["Strict-Transport-Security"] == "max-age=86400"
        hung_up = await site.ask(client, "/hang-up", Authorization=PASSWORD)
        assert hung_up.status == 502
        assert hung_up.headers["Strict-Transport-Security"] == "max-age=86400"
        plain = f"http://{HOST}:{site.http}/"
        async with client.get(plain, allow_redirects=False) as answer:
            assert "Strict-Transport-Security" not in answer.headers

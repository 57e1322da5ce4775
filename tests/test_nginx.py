"""The shipped Nginx files on a real Nginx, with an echo in the proxy's place."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import aiohttp
import pytest

from autostart_proxy.commands.keys import NotReloaded, reload_nginx
from tests.nginx_site import (  # noqa: F401 - fixtures
    CLAIMS,
    HOST,
    LIMIT_SECONDS,
    PASSWORD,
    Response,
    Site,
    has_ipv6,
    move_site,
    reloading,
    running,
    sign_certificates,
    start_echo,
    start_nginx,
)

PORTAL = "https://portal.example.org"
DAY = date(2026, 8, 1)


def test_nginx_finds_nothing_wrong_with_the_shipped_files(site: Site) -> None:
    done = subprocess.run([*site.command, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.replace('http2" directive is deprecated', "")


async def test_the_proxy_learns_who_asked_and_never_the_password(
    site: Site, client: aiohttp.ClientSession
) -> None:
    replaced = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "gopher"}
    spoofed = replaced | dict.fromkeys(CLAIMS, "admin")
    async with client.get(
        f"https://{HOST}:{site.https}/a?b=c", headers={"Authorization": PASSWORD, **spoofed}
    ) as answer:
        seen = await answer.json(content_type=None)
    assert seen[""] == "GET /a?b=c HTTP/1.1"
    assert "authorization" not in seen
    assert seen["host"] == seen["x-forwarded-host"] == HOST
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", str(site.https))
    assert len(seen["x-request-id"]) == 32
    assert "connection" not in seen
    assert "admin" not in seen.values()


async def test_a_gate_of_ones_own_says_who_it_is(site: Site, certificates: Path) -> None:
    """Beside the shipped lines, and in the client's place."""
    proxy = "include snippets/autostart-proxy.conf;"
    said = "proxy_set_header Remote-User $remote_user;"
    for lines in (f"{proxy} {said}", f"{said} {proxy}"):
        site.change("sites-available/whisper.example.org.conf", proxy, lines)
        async with running(site, certificates) as client:
            told = await site.ask(client, Authorization=PASSWORD, Remote_User="admin")
        assert told.json()["remote-user"] == "you"
        site.change("sites-available/whisper.example.org.conf", lines, proxy)


async def test_without_password_or_key_nobody_passes(
    site: Site, client: aiohttp.ClientSession
) -> None:
    wrong = "Basic " + base64.b64encode(b"you:wrong").decode()
    for headers in ({}, {"Authorization": wrong}, {"Authorization": "Bearer x"}):
        async with client.get(f"https://{HOST}:{site.https}/", headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="autostart"'
    # What fail2ban's jail for Nginx looks for, with who it was.
    log = (site.folder / "error.log").read_text()
    assert re.search(r'\[error\] .* user "you": password mismatch, client: 127\.0\.0\.1, ', log)


async def test_a_key_opens_the_site_and_goes_no_further(site: Site, certificates: Path) -> None:
    key, other = site.keys.add("open-webui", DAY), site.keys.add("a", DAY)
    [*_, secret] = key.split("_")
    near = key[:-1] + ("a" if key[-1] != "a" else "b")
    async with running(site, certificates) as client:
        for right in (f"Bearer {key}", f"bearer  {key}", f"BEARER {other}"):
            told = await site.ask(client, Authorization=right)
            assert told.status == 200
            assert "authorization" not in told.json()
            assert secret.lower() not in told.body.lower()
        for wrong in (near, key[:-1], f"{key}a", key.swapcase(), f"autostart_a_{secret}"):
            assert (await site.ask(client, Authorization=f"Bearer {wrong}")).status == 401, wrong
        for scheme in ("", "Basic ", "Bearer", "Bearer\t", "Token ", f"Bearer {other}, Bearer "):
            assert (await site.ask(client, Authorization=scheme + key)).status == 401, scheme


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        ("realtime, KEY, openai-beta.realtime-v1", "realtime, openai-beta.realtime-v1"),
        ("KEY,realtime", "realtime"),
        ("realtime,KEY", "realtime"),
        ("KEY", None),
    ],
)
async def test_a_browser_brings_its_key_as_a_subprotocol(
    site: Site, certificates: Path, offered: str, told: str | None
) -> None:
    key = site.keys.add("a", DAY)

    async def offer(client: aiohttp.ClientSession, protocol: str, **fields: str) -> Response:
        names = offered.replace("KEY", f"openai-insecure-api-key.{protocol}")
        return await site.ask(
            client,
            Upgrade="websocket",
            Connection="Upgrade",
            Sec_WebSocket_Protocol=names,
            **fields,
        )

    async with running(site, certificates) as client:
        right = await offer(client, key)
        assert (right.status, right.json().get("sec-websocket-protocol")) == (200, told)
        assert (await offer(client, f"{key}x")).status == 401
        # A key of the service itself is none of Nginx's business.
        theirs = await offer(client, "k", Authorization=PASSWORD)
        assert theirs.json()["sec-websocket-protocol"].count("openai-insecure-api-key.k") == 1
        assert (await offer(client, "k")).status == 401


async def test_keys_count_once_nginx_has_read_them(
    site: Site, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put_on_path(monkeypatch)
    async with running(site, certificates) as client:
        key = f"Bearer {site.keys.add('a', DAY)}"
        assert (await site.ask(client, Authorization=key)).status == 401
        with reloading(site.folder / "nginx.pid"):
            reload_nginx()
        assert (await site.ask(client, Authorization=key)).status == 200
        site.keys.remove("a")
        broken = site.folder / "conf.d" / "broken.conf"
        broken.write_text("nonsense;")
        with pytest.raises(NotReloaded, match="unexpected end of file|nonsense"):
            reload_nginx()
        assert (await site.ask(client, Authorization=key)).status == 200
        broken.unlink()
        with reloading(site.folder / "nginx.pid"):
            reload_nginx()
        assert (await site.ask(client, Authorization=key)).status == 401
    with pytest.raises(NotReloaded, match=r"nginx\.pid"):
        reload_nginx()


def test_nginx_holds_many_keys_with_long_names(site: Site) -> None:
    for number in range(300):
        site.keys.add(f"{number:032}", DAY)
    done = subprocess.run([*site.command, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


async def test_an_upgrade_is_passed_on(site: Site, client: aiohttp.ClientSession) -> None:
    headers = {"Authorization": PASSWORD, "Upgrade": "websocket", "Connection": "Upgrade"}
    async with client.get(f"https://{HOST}:{site.https}/", headers=headers) as answer:
        seen = await answer.json(content_type=None)
    assert (seen["upgrade"], seen["connection"]) == ("websocket", "upgrade")


async def test_the_portals_pages_may_call_and_others_may_not(
    site: Site, client: aiohttp.ClientSession
) -> None:
    url = f"https://{HOST}:{site.https}/v1/audio/transcriptions"
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with client.options(url, headers={"Origin": PORTAL, **asked}) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == PORTAL
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    for origin in ("https://evil.example", "null", f"{PORTAL}.evil.example"):
        async with client.options(url, headers={"Origin": origin, **asked}) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_page_of_the_portal_can_read_answers_and_refusals(
    site: Site, client: aiohttp.ClientSession
) -> None:
    url = f"https://{HOST}:{site.https}/"
    for password, status in ((PASSWORD, 200), ("", 401)):
        headers = {"Origin": PORTAL, "Authorization": password}
        async with client.get(url, headers=headers) as answer:
            assert answer.status == status
            # One header, though the service sends one of its own.
            assert answer.headers.getall("Access-Control-Allow-Origin") == [PORTAL]
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    async with client.get(url, headers={"Authorization": PASSWORD}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_plain_http_renews_certificates_and_sends_the_rest_to_https(
    site: Site, client: aiohttp.ClientSession
) -> None:
    challenge = site.folder / "www" / ".well-known" / "acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("proof")
    plain = f"http://{HOST}:{site.http}"
    async with client.get(f"{plain}/.well-known/acme-challenge/token") as answer:
        assert (answer.status, await answer.text()) == (200, "proof")
    async with client.post(f"{plain}/a?b=c", data=b"x", allow_redirects=False) as answer:
        assert answer.status == 308
        assert answer.headers["Location"] == f"https://{HOST}/a?b=c"


async def test_a_body_reaches_the_proxy_before_it_is_complete(
    site: Site, client: aiohttp.ClientSession
) -> None:
    """The echo answers as soon as it has the head; the body here never ends by itself."""
    complete = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await complete.wait()

    async with asyncio.timeout(LIMIT_SECONDS):
        async with client.post(
            f"https://{HOST}:{site.https}/", data=body(), headers={"Authorization": PASSWORD}
        ) as answer:
            assert answer.status == 200
        complete.set()


async def test_a_body_of_500_mb_is_let_through_and_a_larger_one_is_not(
    site: Site, client: aiohttp.ClientSession
) -> None:
    """Nginx counts in MiB. What a client announces decides; nothing of it has to be sent."""
    for length, status in ((500 * 2**20, b"200"), (500 * 2**20 + 1, b"413")):
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", site.https, ssl=trust, server_hostname=HOST
        )
        writer.write(
            f"POST / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {PASSWORD}\r\n"
            f"Content-Length: {length}\r\n\r\n".encode()
        )
        async with asyncio.timeout(LIMIT_SECONDS):
            assert (await reader.readline()).split()[1] == status
        writer.close()


# What Nginx refuses in its own name.

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NOBODYS = f"realtime, openai-insecure-api-key.autostart_a_{'x' * 43}"


@pytest.mark.parametrize(
    ("path", "fields", "status", "code"),
    [
        ("/", {}, 401, "unauthorized"),
        ("/", {"Authorization": "Basic eDp5"}, 401, "unauthorized"),
        ("/", {"Authorization": "Bearer sk-none"}, 401, "invalid_api_key"),
        ("/", {"Sec-WebSocket-Protocol": NOBODYS}, 401, "invalid_api_key"),
        ("/", {"Authorization": PASSWORD, "Content-Length": "600000000"}, 413, "request_too_large"),
        ("/", {"Authorization": PASSWORD, "Host": "other.example.org"}, 421, "misdirected_request"),
        ("/hang-up", {"Authorization": PASSWORD}, 502, "bad_gateway"),
        ("/silence", {"Authorization": PASSWORD}, 504, "gateway_timeout"),
    ],
)
async def test_programs_get_openais_shape_of_a_refusal_and_browsers_a_page(
    site: Site, certificates: Path, path: str, fields: dict[str, str], status: int, code: str
) -> None:
    site.change(
        "snippets/autostart-proxy.conf", "proxy_read_timeout   600s", "proxy_read_timeout 1"
    )
    async with running(site, certificates) as client:
        told = await site.ask(client, path, Accept="*/*", **fields)
        page = await site.ask(client, path, Accept=BROWSER, **fields)
        mixed = await site.ask(client, path, Accept="application/json, text/html;q=.5", **fields)
    assert told.status == page.status == mixed.status == status
    assert told.body == mixed.body
    assert told.headers["Content-Type"] == "application/json"
    [error] = told.json().values()
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert (error["type"], error["param"], error["code"]) == (kind, None, code)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f"<p>{error['message']}</p>" in page.body
    assert f"{code} &middot; {page.headers['X-Request-ID']}" in page.body
    for answer in (told, page):
        assert answer.headers["Cache-Control"] == "no-store"
        asked = answer.headers.get("WWW-Authenticate")
        assert asked == ('Basic realm="autostart"' if status == 401 else None)


async def test_what_services_refuse_passes_as_it_is(
    site: Site, client: aiohttp.ClientSession
) -> None:
    for status in (401, 403, 404, 413, 500, 502, 503, 504):
        told = await site.ask(client, f"/status/{status}", Authorization=PASSWORD, Accept=BROWSER)
        assert told.status == status
        assert told.json()[""] == f"GET /status/{status} HTTP/1.1"
        assert "WWW-Authenticate" not in told.headers


async def test_passwords_that_nginx_cannot_read_open_nothing(
    site: Site, client: aiohttp.ClientSession
) -> None:
    (site.folder / "htpasswd").unlink()
    told = await site.ask(client, Authorization=PASSWORD)
    assert (told.status, told.json()["error"]["code"]) == (403, "forbidden")
    (site.folder / "htpasswd").mkdir()
    told = await site.ask(client, Authorization=PASSWORD)
    assert (told.status, told.json()["error"]["code"]) == (500, "web_server_failed")


# Names that no site has.


async def handshake(address: str, port: int, name: str | None) -> None:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(address, port, ssl=trust, server_hostname=name or "")
    writer.close()


ADDRESSES = ["127.0.0.1", *(["::1"] if has_ipv6() else [])]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("address", ADDRESSES)
async def test_tls_tells_no_name_of_a_site_to_who_does_not_know_it(
    site: Site, address: str
) -> None:
    await handshake(address, site.https, HOST)
    for name in ("other.example.org", "example.org", f"a.{HOST}", None):
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await handshake(address, site.https, name)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("address", ADDRESSES)
async def test_plain_http_answers_nobody_who_knows_no_name(site: Site, address: str) -> None:
    challenge = site.folder / "www" / ".well-known" / "acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("proof")

    async def ask(path: str, fields: str) -> bytes:
        reader, writer = await asyncio.open_connection(address, site.http)
        writer.write(f"GET {path} HTTP/1.0\r\n{fields}\r\n".encode())
        async with asyncio.timeout(LIMIT_SECONDS):
            answer = await reader.read()
        writer.close()
        return answer

    for fields in ("Host: other.example.org\r\n", "Host: 127.0.0.1\r\n", ""):
        assert await ask("/", fields) == b""
    # The first certificate of a name is had before its site is there.
    assert await ask("/.well-known/acme-challenge/token", "Host: new.example.org\r\n") != b""
    assert b" 308 " in await ask("/", f"Host: {HOST}\r\n")

"""The proxies that are compared, each as a command that listens and forwards to one upstream."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

HOST = "a.example"
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID")

NGINX_UPSTREAM = """
daemon off; master_process off; worker_processes 1; pid {folder}/upstream.pid; error_log stderr;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 300;
  default_type text/plain;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/files; }} }}
"""

NGINX_PROXY = """
daemon off; master_process off; worker_processes 1; pid {folder}/proxy.pid; error_log stderr;
events {{ worker_connections 8192; }}
http {{ access_log {folder}/access.log; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream files {{ server 127.0.0.1:{files}; keepalive 512; keepalive_requests 1000000000; }}
  upstream sink {{ server 127.0.0.1:{sink}; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection $connection_upgrade;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-ID $request_id;
    {tuning}
    location / {{ proxy_pass http://files; }}
    location /sink {{ proxy_pass http://sink; proxy_read_timeout 600; }} }} }}
"""

NGINX_TUNINGS = {
    "nginx tuned": "proxy_request_buffering off; client_body_buffer_size 256k; "
    "proxy_buffer_size 256k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k;",
    "nginx unbuffered": "proxy_request_buffering off; proxy_buffering off;",
}

NODE = """
const http = require("http"), { createProxyServer } = require("http-proxy");
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 1024 });
const proxy = createProxyServer({ agent, xfwd: true });
proxy.on("error", (error, request, response) => response.destroy());
const [port, files, sink] = process.argv.slice(2);
const target = (request) => "http://127.0.0.1:" + (request.url.startsWith("/sink") ? sink : files);
const server = http.createServer((q, a) => proxy.web(q, a, { target: target(q) }));
server.on("upgrade", (q, socket, head) => proxy.ws(q, socket, head, { target: target(q) }));
server.keepAliveTimeout = 300000;
server.listen(+port, "127.0.0.1", 4096);
"""


def serve_ours(port: int, files: int, sink: int, folder: Path) -> None:
    """This project's relay with the real service, lifecycle and access log."""
    import uvloop

    from autostart_proxy import logs
    from autostart_proxy.backends import Exit, Observation, Upstream
    from autostart_proxy.config.reader import parse
    from autostart_proxy.journal import Journal
    from autostart_proxy.relay.server import Server
    from autostart_proxy.service import Service

    class Running:
        """A backend whose program always runs."""

        def __init__(self, port: int) -> None:
            self._upstream = Upstream("127.0.0.1", port)

        async def start(self, launched: Callable[[], None]) -> Upstream:
            launched()
            return self._upstream

        async def verify(self) -> None: ...

        async def stop(self, grace_seconds: float | None) -> tuple[Exit, ...]:
            return ()

        async def observe(self) -> Observation:
            return Observation(running=True)

        async def watch(self) -> AsyncIterator[Observation]:
            yield Observation(running=True)
            await asyncio.Event().wait()

        async def log_tail(self) -> tuple[str, ...]:
            return ()

        async def close(self) -> None: ...

    async def run() -> None:
        services = {
            host: {"command": ["sleep", "1000"], "proxyPort": target}
            for host, target in ((HOST, files), ("sink.example", sink))
        }
        import json

        text = json.dumps({"services": services})
        config = parse(text, source="bench")
        journal = Journal()
        journal.subscribe(logs.tell)
        fleet = {
            host: Service(host, each, Running(each.proxy_port), journal)
            for host, each in config.services.items()
        }
        await Server(fleet.get, journal).listen(f"127.0.0.1:{port}")
        await asyncio.Event().wait()

    with open(folder / "ours.log", "w") as stream:
        logs.configure(stream=stream)
        uvloop.run(run())


def serve_aiohttp(port: int, files: int, sink: int, folder: Path) -> None:
    """What one would write with aiohttp: streaming both ways, pooled, on uvloop."""
    import uvloop
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

    async def run() -> None:
        session = ClientSession(
            connector=TCPConnector(limit=0, keepalive_timeout=300),
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
        )

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            target = sink if request.path.startswith("/sink") else files
            fields = [pair for pair in request.headers.items() if pair[0].lower() != "connection"]
            fields.append(("X-Forwarded-For", request.remote or ""))
            async with session.request(
                request.method,
                f"http://127.0.0.1:{target}{request.raw_path}",
                headers=fields,
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                response = web.StreamResponse(status=answer.status, headers=answer.headers)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()

    uvloop.run(run())


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    ports = [int(number) for number in numbers]
    here = Path(os.environ["BENCH_FOLDER"])
    {"ours": serve_ours, "aiohttp": serve_aiohttp}[name](ports[0], ports[1], ports[2], here)

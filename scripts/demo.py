"""One sleeping speech service, woken before your eyes; `scripts/demo` installs what it needs.

The proxy runs as its users run it, in a process of its own with a `config.json` and the command
line; only the files are temporary.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import statistics
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

HOST = "whisper.localhost"
COMPOSE_PORT = 8001
"""Where the shipped Compose file publishes the engine."""

IDLE_SECONDS = 3.0
START_SECONDS = 60.0
SLEEP_LIMIT_SECONDS = 60.0
REQUESTS_COMPARED = 50


class DemoFailed(Exception):
    """The demonstration could not be brought to its end; the message says why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was seen.

    `cold_seconds` and `warm_seconds` are from sending the audio to having the words,
    `ready_seconds` from sending to the service being ready, `overhead_ms` is what the proxy adds
    to a small warm request (median), `asleep_seconds` from the last answer to the service having
    stopped; None if it did not.
    """

    transcript: str
    expected: str | None
    cold_seconds: float
    ready_seconds: float
    warm_seconds: float
    overhead_ms: float
    slept: bool
    asleep_seconds: float | None


def main() -> int:
    """Run the demonstration; returns the exit status."""
    try:
        return asyncio.run(_until_told(_demo(_parser().parse_args())))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except DemoFailed as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description="Wake a speech service and show what it takes.")
    parser.add_argument("--audio", type=Path, required=True, help="recording to transcribe")
    parser.add_argument("--model", default=None, help="model: size, hub id or folder")
    parser.add_argument("--expect", default=None, help="fail unless these are the words")
    parser.add_argument("--docker", type=Path, metavar="DIR", help="Compose project to use instead")
    parser.add_argument("--listen", help="where the proxy listens (default: a free port)")
    parser.add_argument("--stay", action="store_true", help="keep running afterwards")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    return parser


async def _until_told(demo: Coroutine[None, None, int]) -> int:
    """Run the demonstration; SIGTERM ends it as Ctrl-C does, and all that it started."""
    task = asyncio.ensure_future(demo)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _demo(arguments: Namespace) -> int:
    if not arguments.audio.is_file():
        raise DemoFailed(f"{arguments.audio} is not a file; name a recording with --audio")
    # The usual port is taken where a proxy is installed already.
    arguments.listen = arguments.listen or f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="autostart-demo-") as name:
        folder = Path(name)
        config = folder / "config.json"
        port, service = _service(arguments, folder)
        config.write_text(
            json.dumps(
                {
                    "listen": arguments.listen,
                    "controlSocket": str(folder / "control.sock"),
                    "services": {HOST: service},
                },
                indent=2,
            )
        )
        say = (lambda _: None) if arguments.json else print
        async with AsyncExitStack() as started:
            if arguments.docker:
                say("building the image, where that has not been done yet")
                await started.enter_async_context(_project(folder / "project"))
            await started.enter_async_context(_proxy(config, folder / "proxy.log"))
            client = await started.enter_async_context(aiohttp.ClientSession())
            figures = await _watch(arguments, config, port, client, say)
            if arguments.json:
                print(json.dumps(asdict(figures)))
            if arguments.stay:
                await _stay(arguments, say)
    right = arguments.expect is None or _words(figures.transcript) == _words(arguments.expect)
    if not right:
        print(f"demo: expected {arguments.expect!r}", file=sys.stderr)
    if not figures.slept:
        print("demo: the service did not fall asleep", file=sys.stderr)
    return 0 if right and figures.slept else 1


def _service(arguments: Namespace, folder: Path) -> tuple[int, dict[str, Any]]:
    """The port the engine will listen on, and its part of `config.json`."""
    limits = {
        "name": "Whisper API (faster-whisper)",
        "idleTimeout": IDLE_SECONDS,
        "startTimeout": START_SECONDS,
        "health": {"path": "/health"},
    }
    if arguments.docker:
        project = folder / "project"
        project.mkdir()
        (project / "docker-compose.yml").write_text(_compose_file(arguments))
        return COMPOSE_PORT, {"composeDir": str(project), "proxyPort": COMPOSE_PORT, **limits}
    port = _free_port()
    env = {"UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": str(port)}
    if arguments.model:
        env["WHISPER__MODEL"] = str(_resolved(arguments.model))
    command = [sys.executable, "-m", "faster_whisper_engine"]
    return port, {"command": command, "env": env, "proxyPort": port, **limits}


def _compose_file(arguments: Namespace) -> str:
    """A project that extends the shipped one: another name, and the model as a volume."""
    shipped = arguments.docker.resolve() / "docker-compose.yml"
    if not shipped.is_file():
        raise DemoFailed(f"{shipped} is missing; name the folder of the Compose project")
    service: dict[str, Any] = {
        "extends": {"file": str(shipped), "service": "faster-whisper"},
        "container_name": "autostart-demo",
    }
    model = _resolved(arguments.model) if arguments.model else None
    if isinstance(model, Path):
        service["volumes"] = [f"{model}:/model:ro"]
        service["environment"] = {"WHISPER__MODEL": "/model"}
    elif model:
        service["environment"] = {"WHISPER__MODEL": model}
    return json.dumps(
        {
            "name": "autostart-demo",
            "services": {"faster-whisper": service},
            "volumes": {"huggingface": {}, "uploads": {}},
        }
    )


@asynccontextmanager
async def _project(project: Path) -> AsyncIterator[None]:
    """The Compose project with its image; containers, networks and volumes are gone afterwards."""
    try:
        await _build(project)
        yield
    finally:
        down = ("docker", "compose", "down", "--volumes", "--timeout", "5")
        await _run(*down, cwd=project)


async def _build(project: Path) -> None:
    """Build beforehand what a first start would build, since a request is not held that long."""
    process = await asyncio.create_subprocess_exec(
        "docker", "compose", "--progress", "plain", "build", cwd=project, stdout=PIPE, stderr=STDOUT
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        last = "\n".join(said.decode(errors="replace").splitlines()[-20:])
        raise DemoFailed(f"the image could not be built:\n{last}")


def _resolved(model: str) -> Path | str:
    """A model's folder, made absolute, or the name it is known by."""
    return Path(model).resolve() if Path(model).is_dir() else model


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _proxy(config: Path, log: Path) -> AsyncIterator[None]:
    """The proxy, running until the block ends."""
    with log.open("wb") as errors:
        running = await asyncio.create_subprocess_exec(
            *_cli("run", config), stdout=DEVNULL, stderr=errors
        )
    try:
        await _until_listening(running, log)
        yield
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGTERM)
        await running.wait()


async def _until_listening(running: Process, log: Path) -> None:
    for _ in range(200):
        if running.returncode is not None:
            raise DemoFailed(f"the proxy ended with {running.returncode}:\n{_text(log)}")
        if " listening " in _text(log):
            return
        await asyncio.sleep(0.05)
    raise DemoFailed("the proxy did not come up in time")


async def _watch(
    arguments: Namespace, config: Path, port: int, client: aiohttp.ClientSession, say: Any
) -> Figures:
    """Send the recording cold and warm, compare, and see the service fall asleep."""
    proxy = f"http://{arguments.listen}"
    loop = asyncio.get_running_loop()
    say(f"{HOST} sleeps; sending {arguments.audio.name} through {proxy}")

    cold, words = await _transcribe(client, proxy, arguments.audio)
    status = await _status(config)
    if status is None or status["last_start_seconds"] is None:
        raise DemoFailed("the service was not started by the request")
    ready = float(status["last_start_seconds"])
    say("  cold   0.00 s  sent; the service is started, the request waits")
    say(f"       {ready:6.2f} s  the service is ready, the request is forwarded")
    say(f"       {cold:6.2f} s  answered: {words}")

    warm, words = await _transcribe(client, proxy, arguments.audio)
    say("  warm   0.00 s  sent")
    say(f"       {warm:6.2f} s  answered: {words}")

    overhead = await _overhead_ms(client, proxy, f"http://127.0.0.1:{port}")
    say(f"  the proxy adds {overhead:.2f} ms to a warm request")

    answered = loop.time()
    asleep = None
    while loop.time() < answered + IDLE_SECONDS + SLEEP_LIMIT_SECONDS:
        status = await _status(config)
        if status is not None and status["state"] == "stopped":
            asleep = round(loop.time() - answered, 2)
            say(f"  asleep again {asleep} s after the last answer (idleTimeout {IDLE_SECONDS:g} s)")
            break
        await asyncio.sleep(0.1)
    return Figures(
        transcript=words,
        expected=arguments.expect,
        cold_seconds=round(cold, 3),
        ready_seconds=ready,
        warm_seconds=round(warm, 3),
        overhead_ms=round(overhead, 3),
        slept=asleep is not None,
        asleep_seconds=asleep,
    )


async def _transcribe(client: aiohttp.ClientSession, proxy: str, audio: Path) -> tuple[float, str]:
    """Seconds taken, and the words."""
    loop = asyncio.get_running_loop()
    form = aiohttp.FormData()
    form.add_field("file", await loop.run_in_executor(None, audio.read_bytes), filename=audio.name)
    began = loop.time()
    timeout = aiohttp.ClientTimeout(total=None)
    async with client.post(
        f"{proxy}/v1/audio/transcriptions", data=form, headers={"Host": HOST}, timeout=timeout
    ) as answer:
        body = await answer.text()
        if answer.status != 200:
            raise DemoFailed(f"the answer was {answer.status}: {body}")
    return loop.time() - began, str(json.loads(body)["text"]).strip()


async def _overhead_ms(client: aiohttp.ClientSession, proxy: str, direct: str) -> float:
    """Median of what a small request takes through the proxy, less the same without it."""
    loop = asyncio.get_running_loop()
    taken: dict[str, list[float]] = {proxy: [], direct: []}
    for _ in range(REQUESTS_COMPARED):
        for base in (proxy, direct):
            began = loop.time()
            async with client.get(f"{base}/health", headers={"Host": HOST}) as answer:
                await answer.read()
            taken[base].append((loop.time() - began) * 1000)
    return statistics.median(taken[proxy]) - statistics.median(taken[direct])


async def _stay(arguments: Namespace, say: Any) -> None:
    say("\nIt keeps running until Ctrl-C. Try:\n")
    say(
        f"  curl -H 'Host: {HOST}' -F file=@{shlex.quote(str(arguments.audio))} "
        f"http://{arguments.listen}/v1/audio/transcriptions\n"
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()


def _cli(command: str, config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "autostart_proxy", command, "--config", str(config), *more]


async def _status(config: Path) -> dict[str, Any] | None:
    """What the running proxy says of the one service, or None while it does not answer."""
    code, out = await _run(*_cli("status", config, "--json"))
    if code != 0:
        return None
    [service] = json.loads(out)
    return dict(service)


async def _run(*argv: str, cwd: Path | None = None) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=PIPE, stderr=DEVNULL, cwd=cwd, env=os.environ
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def _text(log: Path) -> str:
    return log.read_text(errors="replace").strip()


def _words(text: str) -> list[str]:
    """What counts when two transcripts are compared: the words, not their dress."""
    return re.findall(r"\w+", text.lower())


if __name__ == "__main__":
    sys.exit(main())

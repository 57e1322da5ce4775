"""The proxy as a process: starts, follows its configuration, tells systemd, shuts down.

Rules:

- What cannot work at the start ends it at once, with one line that says why.
- SIGTERM and SIGINT stop accepting; requests that wait are answered, those in flight finish within
  `shutdownTimeout`. A second signal ends the process on the spot.
- Containers are left running: the next proxy adopts them.
- SIGHUP reads the configuration again. `listen` and `controlSocket` change only with a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from autostart_proxy import __version__, logs
from autostart_proxy.config.model import Config
from autostart_proxy.config_file import ConfigFile
from autostart_proxy.control.server import ControlServer
from autostart_proxy.control.sockets import own_socket
from autostart_proxy.fleet import Fleet
from autostart_proxy.journal import Journal
from autostart_proxy.relay.server import CannotListen, Server

_FIRST_HANDED_OVER = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

_log = logging.getLogger(__name__)


def run(path: Path) -> None:
    """Run the proxy until it is told to stop.

    Args:
        path: the configuration file.
    Raises:
        ConfigError: the configuration cannot be used.
        ControlError: another proxy runs already, or the control socket cannot be made.
        CannotListen: the address is taken or not allowed.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(ConfigFile(path)))
    finally:
        logging.shutdown()  # what was logged stands before what the caller says of the end


def run_commands() -> None:
    """Run the commands of a proxy, as another user than the proxy's, until told to stop.

    systemd hands over the socket on which the proxy connects.

    Raises:
        CannotListen: nobody handed over a socket.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run_commands(_handed_over(os.environ)))
    finally:
        logging.shutdown()


async def _run_commands(listener: socket.socket) -> None:
    from autostart_proxy.backends.runner.server import Runner

    logs.configure()
    commands, stop, loop = Runner(), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await commands.listen(listener)
    _notify("READY=1")
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
    _notify("STOPPING=1")
    await commands.close()


def _handed_over(environment: Mapping[str, str]) -> socket.socket:
    """Return the socket that systemd has bound (sd_listen_fds(3))."""
    if environment.get("LISTEN_PID") == str(os.getpid()) and environment.get("LISTEN_FDS") == "1":
        listener = socket.socket(fileno=_FIRST_HANDED_OVER)
        listener.set_inheritable(False)  # no command may pose as the runner
        return listener
    raise CannotListen(
        "no socket was handed over; systemd does so: start docker-autostart-commands.socket"
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it is not built for every platform; asyncio's own loop does the same
        return None
    return uvloop.new_event_loop


async def _run(file: ConfigFile) -> None:
    config = file.load()
    _configure_logs(config)
    journal = Journal()
    journal.subscribe(logs.tell)
    fleet = Fleet(journal)
    server = Server(fleet.find, journal, trusted_proxies=config.trusted_proxies)
    operators = ControlServer(fleet)
    following = _Following(file, config, fleet, server)
    try:
        await operators.listen(config.control_socket or own_socket())
        fleet.apply(config)
        _tell_mistakes(file)
        address = await _listen(server, config)
        await following.until_told_to_stop(f"listening on {address}")
    finally:
        _notify("STOPPING=1")
        fleet.refuse()
        await server.close(following.config.shutdown_timeout)
        await operators.close()
        await fleet.close()
    _log.info("stopped")


async def _listen(server: Server, config: Config) -> str:
    try:
        bound = await server.listen(config.listen, config.listen_group)
    except CannotListen as error:
        cure = "stop what listens there, or change `listen`"
        if config.listen_group is not None:
            cure += f", or make the proxy's user a member of {config.listen_group}"
        raise CannotListen(f"cannot listen on {config.listen}: {error}; {cure}") from error
    _log.info("listening", extra={"address": bound, "version": __version__})
    return bound


def _tell_mistakes(file: ConfigFile) -> None:
    """Say what is wrong with single services; it keeps nobody from the others."""
    for host, lines in file.mistakes.items():
        for line in lines:
            _log.warning("service misconfigured", extra={"service": host, "problem": line})


def _configure_logs(config: Config) -> None:
    logs.configure(format=config.log.format, level=config.log.level)


class _Following:
    """Puts each new configuration in force, until a signal ends that.

    Attributes:
        config: the configuration in force.
    """

    def __init__(self, file: ConfigFile, config: Config, fleet: Fleet, server: Server) -> None:
        self.config = config
        self._file = file
        self._fleet = fleet
        self._server = server
        self._ready = ""

    async def until_told_to_stop(self, status: str) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        self._ready = f"READY=1\nSTATUS={status}"
        _notify(self._ready)
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(self._follow())
            await stop.wait()
            follower.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _reread(self) -> None:
        _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._file.ask()

    async def _follow(self) -> None:
        async for config in self._file.changes(self.config):
            old, self.config = self.config, config
            if _places(old) != _places(config):
                _log.warning("listen and controlSocket change only when the proxy is restarted")
            _configure_logs(config)
            self._server.trust(config.trusted_proxies)
            self._fleet.apply(config)
            _tell_mistakes(self._file)
            _notify(self._ready)


def _places(config: Config) -> tuple[object, ...]:
    return config.listen, config.listen_group, config.control_socket


def _notify(state: str) -> None:
    """Tell systemd, where it asked for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            supervisor.send(state.encode())
    except OSError as error:
        _log.warning("systemd could not be told", extra={"reason": str(error)})

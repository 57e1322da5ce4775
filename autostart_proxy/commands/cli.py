"""The command line: run, run-commands, check, status, wake, sleep, key.

Everything but parsing arguments is imported by the command that needs it: `run` has to listen
within 0.3 s, and `status` needs neither a relay nor an event loop's worth of backends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autostart_proxy import __version__

CONFIG_VARIABLE = "AUTOSTART_PROXY_CONFIG"
CONFIG_PATHS = (
    Path("/etc/autostart-proxy/config.json"),
    Path("/opt/docker-autostart/config.json"),
    Path("config.json"),
)
KEYS_PATH = Path("/etc/nginx/autostart-proxy/keys.conf")

_WIDTH = 160
"""Of a table that goes to no terminal."""

_EPILOG = f"""\
Without --config the file is the one that {CONFIG_VARIABLE} names, else the first of
{", ".join(map(str, CONFIG_PATHS))} that exists.
Exit status: 0 done, 1 not done (the reason stands on standard error), 2 wrong usage.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(words)
    try:
        status: int = options.command(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autostart-proxy",
        description="Wakes services on the first request and puts them to sleep when idle.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the proxy in the foreground")
    run.set_defaults(command=_run)
    run.add_argument("file", nargs="?", type=Path, help="the configuration file", metavar="FILE")

    run_commands = commands.add_parser(
        "run-commands", help="run what `command` names, for a proxy of another user; for systemd"
    )
    run_commands.set_defaults(command=_run_commands)

    check = commands.add_parser("check", help="say everything that is wrong with a configuration")
    check.set_defaults(command=_check)
    check.add_argument("file", nargs="?", type=Path, help="the configuration file", metavar="FILE")
    check.add_argument("--schema", action="store_true", help="print the JSON Schema and do no more")

    status = commands.add_parser("status", help="show every service: its state, and why")
    status.set_defaults(command=_status)
    status.add_argument("--json", action="store_true", help="for programs; durations in seconds")

    wake = commands.add_parser("wake", help="start a service before anybody asks for it")
    wake.set_defaults(command=_wake)
    wake.add_argument("name", help="host, alias or name of the service", metavar="NAME")
    wake.add_argument("--wait", action="store_true", help="return once it is ready, or has failed")

    sleep = commands.add_parser("sleep", help="finish open requests, then stop a service")
    sleep.set_defaults(command=_sleep)
    sleep.add_argument("name", help="host, alias or name of the service", metavar="NAME")

    for command in (run, check, status, wake, sleep):
        command.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    for command in (status, wake, sleep):
        command.add_argument("--socket", type=Path, metavar="PATH", help="the control socket")

    key = commands.add_parser("key", help="let programs through Nginx without a password")
    _add_key_commands(key.add_subparsers(metavar="COMMAND", required=True))
    return parser


def _add_key_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    add = commands.add_parser("add", help="make a key for a program and print it, this once")
    add.set_defaults(command=_key_add)

    listing = commands.add_parser("list", help="show whose keys there are, and since when")
    listing.set_defaults(command=_key_list)

    remove = commands.add_parser("remove", help="let a program in no more")
    remove.set_defaults(command=_key_remove)

    for command in (add, remove):
        command.add_argument("name", help="of the program; open-webui, for example", metavar="NAME")
        command.add_argument("--reload", action="store_true", help="have Nginx read the keys again")
    for command in (add, listing, remove):
        command.add_argument(
            "--file", type=Path, metavar="PATH", default=KEYS_PATH, help=f"instead of {KEYS_PATH}"
        )


def _config_path(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Path:
    if options.config:
        return Path(options.config)
    if named := environment.get(CONFIG_VARIABLE):
        return Path(named)
    return next((path for path in CONFIG_PATHS if path.exists()), CONFIG_PATHS[0])


def _fail(*lines: str) -> int:
    """Say why on standard error; where that is the journal, as errors."""
    import logging

    from autostart_proxy import logs
    from autostart_proxy.commands.tables import printable

    words = "\n".join(f"autostart-proxy: {printable(line)}" for line in lines)
    journal = logs.goes_to_journal(sys.stderr)
    print(logs.prioritized(logging.ERROR, words) if journal else words, file=sys.stderr)
    return 1


def _warn(*lines: str) -> None:
    from autostart_proxy.commands.tables import printable

    for line in lines:
        print(f"autostart-proxy: {printable(line)}", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    from autostart_proxy import run
    from autostart_proxy.control.sockets import ControlError
    from autostart_proxy.errors import ConfigError
    from autostart_proxy.relay.server import CannotListen

    try:
        run.run(options.file or _config_path(options))
    except ConfigError as error:
        return _fail(*error.problems)
    except (ControlError, CannotListen) as error:
        return _fail(str(error))
    return 0


def _run_commands(_: argparse.Namespace) -> int:
    from autostart_proxy import run
    from autostart_proxy.relay.server import CannotListen

    try:
        run.run_commands()
    except CannotListen as error:
        return _fail(str(error))
    return 0


def _check(options: argparse.Namespace) -> int:
    from itertools import chain

    from autostart_proxy.commands.tables import printable
    from autostart_proxy.config.model import schema
    from autostart_proxy.config_file import ConfigFile
    from autostart_proxy.errors import ConfigError

    if options.schema:
        print(json.dumps(schema(), indent=2))
        return 0
    file = ConfigFile(options.file or _config_path(options))
    try:
        config, problems = file.load(thoroughly=True), list(chain(*file.mistakes.values()))
    except ConfigError as error:
        problems = error.problems
    if problems:
        print(printable("\n".join(problems)))
        return 1
    _warn(*file.exposed(config))
    count = len(config.services)
    print(f"{file.path}: good, {count} service{'' if count == 1 else 's'}")
    return 0


def _status(options: argparse.Namespace) -> int:
    answer = _ask(options, {"command": "status"})
    if answer is None:
        return 1
    if options.json:
        print(json.dumps(answer["services"], indent=2))
    else:
        print(_for_people(answer["services"]))
    return 0


def _for_people(services: Sequence[Mapping[str, Any]]) -> str:
    from shutil import get_terminal_size

    from autostart_proxy.commands.tables import status_table

    if not services:
        return "no services are configured"
    return status_table(services, get_terminal_size((_WIDTH, 0)).columns)


def _wake(options: argparse.Namespace) -> int:
    request = {"command": "wake", "name": options.name, "wait": options.wait}
    return _say(_ask(options, request))


def _sleep(options: argparse.Namespace) -> int:
    return _say(_ask(options, {"command": "sleep", "name": options.name}))


def _key_add(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from autostart_proxy.commands.keys import KeyFile, KeyProblem

    try:
        key = KeyFile(options.file).add(options.name, datetime.now(UTC).date())
    except KeyProblem as error:
        return _fail(str(error))
    print(key, flush=True)
    print("autostart-proxy: this key is shown only now", file=sys.stderr)
    return _have_read(options)


def _key_list(options: argparse.Namespace) -> int:
    from autostart_proxy.commands.keys import KeyFile, KeyProblem
    from autostart_proxy.commands.tables import aligned

    try:
        keys = KeyFile(options.file).listed()
    except KeyProblem as error:
        return _fail(str(error))
    rows = [("NAME", "ADDED"), *((key.name, key.added or "-") for key in keys)]
    print(aligned(rows) if keys else "there are no keys; `autostart-proxy key add NAME` makes one")
    return 0


def _key_remove(options: argparse.Namespace) -> int:
    from autostart_proxy.commands.keys import KeyFile, KeyProblem

    try:
        KeyFile(options.file).remove(options.name)
    except KeyProblem as error:
        return _fail(str(error))
    print(f"{options.name}: removed", flush=True)
    return _have_read(options)


def _have_read(options: argparse.Namespace) -> int:
    """Have Nginx read the keys again, or tell how that is done."""
    from autostart_proxy.commands.keys import NotReloaded, reload_nginx

    if not options.reload:
        cure = "autostart-proxy: not in force before: sudo systemctl reload nginx"
        print(cure, file=sys.stderr)
        return 0
    try:
        reload_nginx()
    except NotReloaded as error:
        return _fail(str(error))
    return 0


def _say(answer: Mapping[str, Any] | None) -> int:
    if answer is None:
        return 1
    from autostart_proxy.commands.tables import duration, shortened

    service = answer["service"]
    took = service["last_start_seconds"]
    print(shortened(f"{service['host']}: {service['state']}", None), end="")
    print(f", the last start took {duration(took)}" if took is not None else "")
    return 0


def _ask(options: argparse.Namespace, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask the running proxy; tell the user and return None where that fails."""
    from autostart_proxy.control import client
    from autostart_proxy.control.sockets import ControlError, NoProxy

    socket = options.socket or _configured_socket(options)
    try:
        return client.ask(socket, request)
    except NoProxy as error:
        _fail(*([] if options.socket else _problems(_config_path(options))), str(error))
    except ControlError as error:
        _fail(str(error))
    return None


def _configured_socket(options: argparse.Namespace) -> Path:
    """Return the socket of the configuration, if that can be read and names one.

    A file that is being edited must not keep operators from the proxy that runs: what is wrong
    with it is told, and the proxy looked for at its usual place. Nothing but this one key is read,
    since the whole takes three times as long as all else that `status` does.
    """
    from autostart_proxy.control.client import socket_to_ask

    path = _config_path(options)
    try:
        named = _top_level(path).get("controlSocket")
    except PermissionError:  # of a file with secrets; who may ask the proxy need not see them
        named = None
        if options.config:
            _warn(*_problems(path))
    except (OSError, ValueError):
        named = None
        if options.config or path.exists():
            _warn(*_problems(path))
    return Path(named) if isinstance(named, str) else socket_to_ask()


def _top_level(path: Path) -> dict[str, Any]:
    """Return the keys of a configuration as they are written.

    Raises:
        OSError: it cannot be read.
        ValueError: it makes no sense.
    """
    text = path.read_text("utf-8-sig")
    if path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            read = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError from error
    else:
        read = json.loads(text)
    if not isinstance(read, dict):
        raise ValueError
    return read


def _problems(path: Path) -> list[str]:
    from autostart_proxy.config_file import ConfigFile
    from autostart_proxy.errors import ConfigError

    try:
        ConfigFile(path).load()
    except ConfigError as error:
        return error.problems
    return []

"""The shipped units, as systemd itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autostart_proxy.backends.runner.client import VARIABLE

FOLDER = Path(__file__).parent.parent / "systemd"
UNIT = FOLDER / "docker-autostart.service"
COMMANDS = FOLDER / "docker-autostart-commands.service"
SPEECH = FOLDER / "faster-whisper.service"


def settings(unit: Path = UNIT) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Z]\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


MOST_EXPOSED = 15
"""Tenths of systemd-analyze's points, of which 100 is the worst."""


@pytest.fixture(params=[UNIT, COMMANDS, SPEECH], ids=lambda unit: str(unit.stem))
def analyze(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A call of systemd-analyze, but for the verb; and beside it the unit with a real program."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze command")
    unit: Path = request.param
    [start] = settings(unit)["ExecStart"]
    text = unit.read_text().replace(start.split()[0], sys.executable)
    (tmp_path / unit.name).write_text(text)
    beside = unit.with_suffix(".socket")
    if beside.exists():
        shutil.copy(beside, tmp_path)
    return [program, str(tmp_path / unit.name)]


def test_systemd_finds_nothing_wrong_with_a_unit(analyze: list[str]) -> None:
    program, unit = analyze
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True)
    # Other units of the machine are none of our business.
    ours = [line for line in done.stderr.splitlines() if Path(unit).name in line]
    assert ours == []


def test_a_unit_gives_its_program_little_to_do_harm_with(analyze: list[str]) -> None:
    program, unit = analyze
    done = subprocess.run(
        [program, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit],
        capture_output=True,
        text=True,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot judge a unit that is not installed")
    assert done.returncode == 0, done.stdout


def calls_of(program: str, group: str) -> set[str]:
    """The system calls of a group of systemd's, and of the groups in it."""
    listing = subprocess.run(
        [program, "syscall-filter", group], capture_output=True, text=True, check=True
    )
    names = {line.strip() for line in listing.stdout.splitlines()[1:]} - {""}
    inner = {name for name in names if name.startswith("@")}
    plain = {name for name in names - inner if not name.startswith("#")}
    return plain.union(*(calls_of(program, each) for each in inner))


# For the socket of `listenGroup`; and what setpriv needs, with which backends/process.py starts
# every `command` where that is installed.
PRIVILEGED = [(UNIT, {"chown", "fchownat"}), (COMMANDS, {"capset"})]


@pytest.mark.parametrize(("analyze", "needed"), PRIVILEGED, indirect=["analyze"])
def test_of_privileged_calls_a_unit_allows_those_that_it_needs(
    analyze: list[str], needed: set[str]
) -> None:
    program, unit = analyze
    allowed: set[str] = set()
    for value in settings(FOLDER / Path(unit).name)["SystemCallFilter"]:
        group = value.removeprefix("~")
        calls = calls_of(program, group) if group.startswith("@") else {*group.split()}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    assert allowed & calls_of(program, "@privileged") == needed


def test_the_unit_runs_the_proxy_as_the_proxy_expects() -> None:
    unit = settings()
    assert unit["Type"] == ["notify"]
    hangup, check = unit["ExecReload"]
    [run] = unit["ExecStart"]
    assert check.split()[1:] == ["check", run.split()[-1]]
    assert hangup == "/bin/kill -HUP $MAINPID"
    assert unit["Restart"] == ["on-failure"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["SupplementaryGroups"] == ["docker"]
    assert unit["User"] != ["root"]
    # control.own_socket() and control.SYSTEM_SOCKET meet here.
    assert unit["RuntimeDirectory"] == ["autostart-proxy"]
    # Requests in flight have shutdownTimeout (30 s by default) before systemd loses patience.
    assert unit["TimeoutStopSec"] == ["60s"]
    assert unit["KillMode"] == ["mixed"]


def test_commands_run_as_a_user_who_may_do_nothing_of_the_proxys() -> None:
    unit, commands = settings(), settings(COMMANDS)
    socket = settings(COMMANDS.with_suffix(".socket"))
    assert f"{VARIABLE}={socket['ListenStream'][0]}" in unit["Environment"]
    # The proxy alone may say what is run.
    assert socket["SocketUser"] == unit["User"]
    assert socket["SocketMode"] == ["0600"]
    for key in ("User", "Group"):
        assert commands[key] not in (unit["User"], unit["Group"], ["root"])
    assert "SupplementaryGroups" not in commands
    [closed] = commands["InaccessiblePaths"]
    assert {"-/run/docker.sock", "-/run/autostart-proxy", "-/etc/autostart-proxy"} <= {
        *closed.split()
    }
    assert commands["NoNewPrivileges"] == ["yes"]
    assert commands["CapabilityBoundingSet"] == commands["AmbientCapabilities"] == [""]


def test_the_proxy_reaches_this_machine_alone() -> None:
    assert settings()["IPAddressDeny"] == ["any"]
    assert settings()["IPAddressAllow"] == ["localhost"]

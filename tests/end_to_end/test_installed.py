"""The units on a machine with systemd, installed by the lines of README.md: who may reach what.

The machine is a container; there is no Docker in it, only a socket where Docker's would be.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from autostart_proxy.backends.processes import VARIABLE as MARK
from tests.end_to_end.parts import run, until

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
PARTS = (
    *("autostart_proxy", "systemd", "pyproject.toml", "README.md", "LICENSE", "requirements.lock"),
    *("config.json", "config.schema.json", "services/build.lock"),
)
SOURCE = "/usr/local/src/autostart-proxy"
HTTP_SOCKET = "/run/autostart-proxy/http.sock"
CONTROL_SOCKET = "/run/autostart-proxy/control.sock"
RUNNER_SOCKET = "/run/autostart-commands.sock"
DOCKER_SOCKET = "/run/docker.sock"
OF_THE_UNIT, OF_CONFIG_JSON = "of-the-unit-5b1d", "of-config-json-9c3a"
CONFIG = {
    "listen": f"unix:{HTTP_SOCKET}",
    "listenGroup": "www-data",
    "services": {
        "curious.test": {
            "command": ["python3", "/opt/curious.py", "9001"],
            "env": {"TITLE": "Notes"},
            "proxyPort": 9001,
            "idleTimeout": "5s",
        },
        "other.test": {
            "command": ["python3", "-m", "http.server", "9002"],
            "env": {"TOKEN": OF_CONFIG_JSON},
            "proxyPort": 9002,
        },
    },
}
DOCKERFILE = f"""\
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends \\
    systemd systemd-sysv dbus procps sudo adduser curl && apt-get clean
RUN groupadd docker && useradd --groups www-data nginx && useradd member && useradd stranger
COPY . {SOURCE}
WORKDIR {SOURCE}
RUN bash -ex install.sh
"""
OVERRIDE = f"[Service]\nEnvironment=PLANTED={OF_THE_UNIT}\n"


def shell_lines(document: str, mark: str) -> str:
    """The block of a document's shell lines that has a mark in it."""
    text = (ROOT / document).read_text()
    [block] = [each for each in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if mark in each]
    return str(block)


def configuring(beginning: str) -> str:
    lines = shell_lines("README.md", "install -D -m 644 config.json").splitlines()
    [line] = [each for each in lines if each.startswith(beginning)]
    return line


class Machine:
    """A container in which systemd runs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, *command: str, user: str = "root") -> str:
        return run("docker", "exec", "--user", user, self._name, *command)

    def lines(self, script: str) -> str:
        return self.run("bash", "-ec", script)

    def refused(self, *command: str, user: str) -> str:
        """What a command says that must not succeed."""
        asked = ["docker", "exec", "--user", user, self._name, *command]
        ended = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        assert ended.returncode != 0, ended.stdout
        return ended.stderr

    def put(self, path: str, content: str) -> None:
        ended = ["docker", "exec", "-i", self._name, "tee", path]
        subprocess.run(ended, input=content, text=True, check=True, stdout=subprocess.DEVNULL)

    def get(self, host: str, query: str = "", user: str = "root") -> str:
        """What a service answers, asked as Nginx would."""
        socket = ("--unix-socket", HTTP_SOCKET)
        return self.run("curl", "-sS", *socket, f"http://{host}/{query}", user=user)

    def curious(self, **wishes: tuple[str, ...]) -> dict[str, Any]:
        query = urlencode([(trial, each) for trial, what in wishes.items() for each in what])
        found: dict[str, Any] = json.loads(self.get("curious.test", f"?{query}"))
        return found

    def main_pid(self, unit: str) -> str:
        return self.run("systemctl", "show", "-P", "MainPID", unit).strip()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    name = f"installed-{uuid.uuid4().hex[:8]}"
    context = tmp_path_factory.mktemp("machine")
    for part in PARTS:
        (context / part).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
        copy(ROOT / part, context / part)
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "install.sh").write_text(
        shell_lines("README.md", "python3 -m venv /opt/autostart-proxy/venv")
        + "adduser autostart www-data\nadduser member autostart\n"
    )
    subprocess.run(
        ["docker", "build", "--quiet", "--network", "host", "--tag", "installed-proxy", context],
        env={"DOCKER_BUILDKIT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin"},
        check=True,
        timeout=600,
    )
    rights = ("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE")
    unconfined = ("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")
    folders = (*("--tmpfs", "/run"), *("--tmpfs", "/tmp"), *("-v", "/sys/fs/cgroup:/sys/fs/cgroup"))
    run(
        *("docker", "run", "--detach", "--name", name, *rights, *unconfined, *folders),
        *("--env", "container=docker", "installed-proxy", "/lib/systemd/systemd"),
    )
    try:
        yield started(Machine(name))
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


def started(machine: Machine) -> Machine:
    """Return the machine once the proxy runs there, installed as the documents say."""
    bus = ("systemctl", "is-active", "dbus.socket")
    until(
        lambda: machine.run("bash", "-c", f"{' '.join(bus)} || true").strip() == "active", "systemd"
    )
    machine.put("/opt/curious.py", (Path(__file__).parent / "curious.py").read_text())
    install, check = configuring("sudo install"), configuring("sudo -u autostart")
    machine.lines(install)
    machine.put("/etc/autostart-proxy/config.json", json.dumps(CONFIG))
    machine.lines("chgrp autostart-env /etc/autostart-proxy/config.json")
    machine.lines("chmod 640 /etc/autostart-proxy/config.json")
    machine.lines("mkdir -p /etc/systemd/system/docker-autostart.service.d")
    machine.put("/etc/systemd/system/docker-autostart.service.d/override.conf", OVERRIDE)
    listening = "import socket, time; s = socket.socket(socket.AF_UNIX); "
    listening += f"s.bind({DOCKER_SOCKET!r}); s.listen(); time.sleep(100000)"
    machine.lines(f'python3 -c "{listening}" >/dev/null 2>&1 &')
    until(lambda: DOCKER_SOCKET in machine.lines("ls /run/*.sock || true"), "Docker's socket")
    machine.lines(f"chgrp docker {DOCKER_SOCKET} && chmod 660 {DOCKER_SOCKET}")
    machine.lines(shell_lines("docs/configuration.md", "install -m 644 systemd/docker-autostart-"))
    unit = shell_lines("README.md", "enable --now docker-autostart")
    machine.lines(check)
    machine.lines(re.sub(r".*journalctl.*\n", "", unit))
    return machine


def test_a_command_is_a_user_without_the_proxys_rights(machine: Machine) -> None:
    proxy = machine.main_pid("docker-autostart")
    here = machine.curious(
        connect=(DOCKER_SOCKET, CONTROL_SOCKET, HTTP_SOCKET, RUNNER_SOCKET),
        read=("/etc/autostart-proxy/config.json", f"/proc/{proxy}/environ", "/etc/shadow"),
        write=("/opt/autostart-proxy/venv", "/etc/autostart-proxy", "/run/autostart-proxy", "/opt"),
        signal=(proxy,),
    )
    assert here["groups"] == ["autostart-commands"]
    assert here["user"] == int(machine.run("id", "-u", "autostart-commands"))
    reached = {what: came for what, came in here["tried"].items() if not came.endswith("Error")}
    assert reached == {}
    assert here["environment"]["TITLE"] == "Notes"
    assert here["environment"].keys() <= {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("TITLE", MARK),
        *(name for name in here["environment"] if name.startswith("LC_")),
    }


def test_a_command_may_do_what_programs_may(machine: Machine) -> None:
    here = machine.curious(write=("/var/cache/autostart-commands", "/tmp"), read=("/etc/hostname",))
    assert [came for came in here["tried"].values() if came.endswith("Error")] == []


def test_a_command_ends_when_nobody_uses_it_and_with_the_proxy(machine: Machine) -> None:
    alone = "pgrep -f [/]opt/curious.py || true"
    machine.curious()
    assert machine.lines(alone)
    until(lambda: not machine.lines(alone), "sleep", 60)
    machine.curious()
    assert machine.lines(alone)
    machine.run("systemctl", "restart", "docker-autostart")
    assert not machine.lines(alone)
    assert machine.curious()["environment"]["TITLE"] == "Notes"


def test_groups_are_apart(machine: Machine) -> None:
    status = ("/usr/local/bin/autostart-proxy", "status")
    asking = ("curl", "-sS", "--unix-socket", HTTP_SOCKET, "http://curious.test/")
    assert "curious.test" in machine.run(*status)
    assert "curious.test" in machine.run(*status, user="member")
    assert "environment" in machine.run(*asking, user="nginx")
    for user in ("nginx", "stranger", "autostart-commands"):
        assert "may not ask the proxy" in machine.refused(*status, user=user)
    for user in ("member", "stranger", "autostart-commands"):
        assert "Failed to connect" in machine.refused(*asking, user=user)
    for user in ("member", "nginx", "stranger", "autostart-commands"):
        machine.refused("cat", "/etc/autostart-proxy/config.json", user=user)


def test_what_root_runs_is_roots(machine: Machine) -> None:
    places = "/opt/autostart-proxy /usr/local/bin/autostart-proxy /etc/systemd/system"
    others = machine.lines(f"find {places} ! -user root -o -perm /022 ! -type l")
    assert others == ""


def test_no_secret_is_told(machine: Machine) -> None:
    machine.get("other.test")
    told = machine.run("journalctl", "--no-pager") + machine.run("autostart-proxy", "status")
    assert "curious.test" in told
    assert OF_THE_UNIT not in told
    assert OF_CONFIG_JSON not in told

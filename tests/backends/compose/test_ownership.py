"""Which containers were made from a folder, and under which name it runs."""

from __future__ import annotations

from typing import Any

import pytest

from autostart_proxy.backends.compose.ownership import Home, effective_project, usual_name
from autostart_proxy.backends.docker.container import Container
from tests.backends.compose.test_project import container

HOME = Home(frozenset({"/srv/app"}), frozenset({"/srv/app/compose.yaml"}))


def labels(folder: str = "", files: str = "") -> dict[str, str]:
    prefix = "com.docker.compose.project."
    return {f"{prefix}working_dir": folder, f"{prefix}config_files": files}


def test_a_container_is_at_home_where_its_folder_or_one_of_its_files_is() -> None:
    assert HOME.holds(labels("/srv/app"))
    assert HOME.holds(labels("/elsewhere", "/x.yaml,/srv/app/compose.yaml"))
    assert not HOME.holds(labels("/srv/app2", "/srv/app2/compose.yaml"))
    assert not HOME.holds(labels())
    assert not HOME.holds({})


def test_its_files_may_be_asked_for_alone() -> None:
    assert HOME.holds_file(labels(files="/srv/app/compose.yaml"))
    assert not HOME.holds_file(labels("/srv/app", "/srv/app/other.yaml"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [("app", "app"), ("My App.2", "myapp2"), ("_x-1", "x-1"), ("docker_", "docker_")],
)
def test_a_project_is_usually_called_as_its_folder(folder: str, name: str) -> None:
    assert usual_name(folder) == name


def of(project: str, status: str = "exited", *, started_at: float = 0.0, **facts: Any) -> Container:
    """A container of the service `app`, in a project."""
    compose = "com.docker.compose."
    return container(
        "app",
        status,
        id=f"{project}-app",
        labels={f"{compose}project": project, f"{compose}service": "app"},
        started_at=started_at,
        **facts,
    )


OURS = frozenset({("127.0.0.1", 8001)})
OTHERS = frozenset({("127.0.0.1", 8002)})


class TestEffectiveProject:
    def of(self, *found: Container, may_keep: bool = True) -> str:
        return effective_project(
            "own", found, needed={"app"}, port=("127.0.0.1", 8001), may_keep=may_keep
        )

    def test_it_is_the_own_one_where_there_is_no_other(self) -> None:
        assert self.of() == self.of(of("own")) == "own"

    def test_it_is_the_one_that_runs(self) -> None:
        assert self.of(of("own", started_at=9), of("x", "running", published=OURS)) == "x"
        assert self.of(of("own", "paused"), of("x", "running", published=OURS)) == "own"

    def test_one_at_another_port_is_another_instance(self) -> None:
        assert self.of(of("x", "running", published=OTHERS)) == "own"

    def test_one_that_publishes_nothing_may_be_it(self) -> None:
        assert self.of(of("x", "running")) == "x"

    def test_one_without_what_is_needed_is_not_it(self) -> None:
        other = container("db", labels={"com.docker.compose.project": "x"})
        assert self.of(other) == "own"

    def test_a_name_given_by_hand_is_kept_where_the_own_one_was_never_used(self) -> None:
        hand = of("x", started_at=5, published=OURS)
        assert self.of(hand) == self.of(of("own", "created"), hand) == "x"
        assert self.of(of("own", started_at=1), hand) == "own"

    def test_the_last_of_several_is_kept(self) -> None:
        assert self.of(of("x", started_at=5), of("y", started_at=7), of("z", started_at=6)) == "y"

    def test_a_name_that_the_file_gives_counts_at_the_next_start(self) -> None:
        assert self.of(of("x", started_at=5), may_keep=False) == "own"
        assert self.of(of("x", "running"), may_keep=False) == "x"

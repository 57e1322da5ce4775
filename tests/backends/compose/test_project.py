"""What is decided about a Compose project, without an engine."""

from __future__ import annotations

from typing import Any

import pytest

from autostart_proxy.backends.compose.project import CRASH_LOOP_RESTARTS, Project, Snapshot, Unit
from autostart_proxy.backends.docker.container import Container


def container(service: str, status: str = "running", **facts: Any) -> Container:
    usual: dict[str, Any] = {
        "id": f"id-{service}",
        "name": f"p-{service}-1",
        "labels": {"com.docker.compose.service": service, "com.docker.compose.project": "p"},
        "status": status,
        "exit_code": 0,
        "out_of_memory": False,
        "health": None,
        "restarts": 0,
        "image": "x",
        "ports": frozenset(),
        "tty": False,
    }
    return Container(**usual | facts)


def project(**services: dict[str, str] | list[str]) -> Project:
    """Services with `depends_on`: a list, or conditions by service."""
    entries = {
        name: dict.fromkeys(wanted, "started") if isinstance(wanted, list) else wanted
        for name, wanted in services.items()
    }
    config = {
        "name": "p",
        "services": {
            name: {
                "depends_on": {
                    other: {"condition": f"service_{condition}", "required": True}
                    for other, condition in wanted.items()
                }
            }
            for name, wanted in entries.items()
        },
    }
    return Project.from_config(config, {})


def snapshot(*containers: Container, told_to_end: tuple[str, ...] = ()) -> Snapshot:
    return Snapshot.of_all(containers, told_to_end)


def seen(running: str = "", exited: str = "") -> Snapshot:
    return snapshot(
        *(container(name) for name in running.split()),
        *(container(name, "exited") for name in exited.split()),
    )


DIAMOND = project(app=["left", "right"], left=["base"], right=["base"], base=[])


class TestReading:
    def test_names_hashes_and_dependencies_are_taken_from_the_configuration(self) -> None:
        config = {
            "name": "p",
            "services": {
                "app": {
                    "container_name": "mine",
                    "depends_on": {"db": {"condition": "service_healthy", "required": False}},
                },
                "db": {},
            },
        }
        read = Project.from_config(config, {"app": "abc"})
        assert read.services["app"].config_hash == "abc"
        assert read.services["db"].config_hash is None
        assert read.unit(["mine"]).services == ("db", "app")
        assert read.unit(["p-db-1"]).services == read.unit(["p_db_1"]).services == ("db",)

    @pytest.mark.parametrize(
        "keys", [{"profiles": ["x"]}, {"scale": 0}, {"deploy": {"replicas": 0}}]
    )
    def test_what_compose_up_leaves_out_belongs_only_where_it_is_named_or_needed(
        self, keys: dict[str, Any]
    ) -> None:
        config = {"name": "p", "services": {"app": {}, "extra": keys}}
        assert Project.from_config(config, {}).unit(None).services == ("app",)
        assert Project.from_config(config, {}).unit(["extra"]).services == ("extra",)

    def test_optional_dependencies_that_are_left_out_are_not_waited_for(self) -> None:
        depends_on = {
            "extra": {"condition": "service_started", "required": False},
            "gone": {"condition": "service_started", "required": False},
        }
        services = {"app": {"depends_on": depends_on}, "extra": {"profiles": ["x"]}}
        unit = Project.from_config({"name": "p", "services": services}, {}).unit(None)
        assert unit.services == ("app",)

    def test_labels_tell_the_same(self) -> None:
        labels = {
            "com.docker.compose.service": "app",
            "com.docker.compose.depends_on": "db:service_healthy:false,old",
        }
        read = Project.from_containers(
            "p", [container("app", labels=labels), container("db"), container("old")]
        )
        assert read.unit(["app"]).services == ("db", "old", "app")
        assert not read.unit(["app"]).may_end("db")
        assert read.unit(["app"]).may_end("old")

    def test_an_unknown_name_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            DIAMOND.unit(["ap"])

    def test_a_circle_ends(self) -> None:
        assert set(project(a=["b"], b=["a"]).unit(None).services) == {"a", "b"}


class TestStarting:
    def test_everything_is_started_after_what_it_depends_on(self) -> None:
        order = DIAMOND.unit(None).to_start(seen(exited="app left right base"))
        assert order[0] == "base"
        assert order[-1] == "app"
        assert len(order) == 4

    def test_only_what_is_down_is_started(self) -> None:
        assert DIAMOND.unit(None).to_start(
            snapshot(
                container("app"),
                container("left"),
                container("right", "paused"),
                container("base"),
            )
        ) == ["right"]

    def test_a_dependency_that_was_stopped_is_healed(self) -> None:
        looked = snapshot(
            *map(container, ("app", "left", "right")),
            container("base", "exited"),
            told_to_end=("id-base",),
        )
        assert not DIAMOND.unit(None).all_up(looked)
        assert DIAMOND.unit(None).to_start(looked) == ["base"]

    def test_a_one_shot_runs_again_only_with_what_depends_on_it(self) -> None:
        unit = project(app={"migrate": "completed_successfully"}, migrate=[]).unit(None)
        assert unit.to_start(seen(running="app", exited="migrate")) == []
        assert unit.all_up(seen(running="app", exited="migrate"))
        assert unit.to_start(seen(exited="app migrate")) == ["migrate", "app"]

    @pytest.mark.parametrize(
        ("condition", "dependency", "due"),
        [
            ("started", container("db"), True),
            ("healthy", container("db", health="healthy"), True),
            ("healthy", container("db", health="starting"), False),
            ("completed_successfully", container("db"), False),
            ("completed_successfully", container("db", "exited"), True),
        ],
    )
    def test_a_dependent_is_due_once_its_condition_holds(
        self, condition: str, dependency: Container, due: bool
    ) -> None:
        unit = project(app={"db": condition}, db=[]).unit(None)
        looked = snapshot(dependency, container("app", "exited"))
        assert unit.is_due("app", looked, waiting=["app"]) is due
        assert not unit.is_due("app", looked, waiting=["app", "db"])

    @pytest.mark.parametrize(
        ("health", "complaint"),
        [("unhealthy", "unhealthy"), (None, "no healthcheck"), ("starting", "")],
    )
    def test_a_condition_that_cannot_come_true_is_told(
        self, health: str | None, complaint: str
    ) -> None:
        unit = project(app={"db": "healthy"}, db=[]).unit(None)
        blocker = unit.blocker("app", snapshot(container("db", health=health)))
        assert complaint in blocker
        assert bool(blocker) is bool(complaint)


class TestDeath:
    def dead(self, unit: Unit, *containers: Container) -> list[str]:
        return [each.service for each in unit.failed(snapshot(*containers), unit.services)]

    def test_an_end_of_a_named_service_is_a_death_whatever_its_code(self) -> None:
        unit = DIAMOND.unit(["app"])
        assert self.dead(unit, container("app", "exited")) == ["app"]

    def test_an_end_of_a_dependency_with_0_is_its_work_done(self) -> None:
        assert self.dead(DIAMOND.unit(["app"]), container("base", "exited")) == []
        assert self.dead(DIAMOND.unit(["app"]), container("base", "exited", exit_code=1)) == [
            "base"
        ]

    def test_a_dependency_whose_health_is_awaited_must_not_end(self) -> None:
        unit = project(app={"db": "healthy"}, db=[]).unit(None)
        assert self.dead(unit, container("db", "exited")) == ["db"]

    def test_restarts_are_patience_until_they_are_a_loop(self) -> None:
        unit = DIAMOND.unit(None)
        for restarts, dead in ((CRASH_LOOP_RESTARTS - 1, []), (CRASH_LOOP_RESTARTS, ["app"])):
            again = container("app", "restarting", restarts=restarts, exit_code=1)
            assert self.dead(unit, again) == dead
            assert not unit.is_up("app", snapshot(again))

    def test_what_is_optional_may_fail(self) -> None:
        depends_on = {"extra": {"condition": "service_healthy", "required": False}}
        services: dict[str, Any] = {"app": {"depends_on": depends_on}, "extra": {}}
        unit = Project.from_config({"name": "p", "services": services}, {}).unit(["app"])
        failed = container("extra", health="unhealthy")
        assert self.dead(unit, container("extra", "exited", exit_code=1)) == []
        assert unit.blocker("app", snapshot(failed)) == ""
        assert unit.is_due("app", snapshot(failed), waiting=["app"])

    def test_one_dead_replica_is_enough(self) -> None:
        unit = DIAMOND.unit(["base"])
        second = container("base", "exited", id="id-2", exit_code=1)
        assert self.dead(unit, container("base"), second) == ["base"]
        assert not unit.all_up(snapshot(container("base"), second))

    def test_a_container_that_is_being_removed_is_gone(self) -> None:
        assert DIAMOND.unit(["base"]).missing(snapshot(container("base", "removing"))) == ["base"]


class TestStopping:
    ALL = seen(running="app left right base")

    def test_dependents_are_stopped_before_what_they_depend_on(self) -> None:
        groups = DIAMOND.unit(None).to_stop(self.ALL, [])
        assert [sorted(group) for group in groups] == [["app"], ["left", "right"], ["base"]]

    def test_what_another_running_container_depends_on_is_left_running(self) -> None:
        unit = DIAMOND.unit(["left"])
        assert unit.to_stop(self.ALL, []) == [["left"]]
        assert unit.to_stop(seen(running="left base"), []) == [["left"], ["base"]]

    def test_what_another_service_names_is_left_running(self) -> None:
        other = DIAMOND.unit(["base"])
        assert DIAMOND.unit(["left"]).to_stop(seen(running="left base"), [other]) == [["left"]]

    def test_a_named_service_is_left_running_only_for_another_configured_service(self) -> None:
        base, app = DIAMOND.unit(["base"]), DIAMOND.unit(["app"])
        assert base.to_stop(self.ALL, []) == [["base"]]
        assert base.to_stop(self.ALL, [app]) == []
        assert base.to_stop(seen(running="base"), [app]) == [["base"]]


class TestFront:
    def test_it_is_the_container_that_publishes_the_port(self) -> None:
        unit = DIAMOND.unit(None)
        looked = snapshot(container("app"), container("left", ports=frozenset({8001})))
        front = unit.published(looked, 8001)
        assert front is not None
        assert front.service == "left"

    def test_it_is_the_only_named_one_where_nobody_publishes_the_port(self) -> None:
        front = DIAMOND.unit(["app"]).published(snapshot(container("app"), container("base")), 8001)
        assert front is not None
        assert front.service == "app"
        two = DIAMOND.unit(["left", "right"])
        assert two.published(snapshot(container("left"), container("right")), 8001) is None

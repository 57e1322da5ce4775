"""What is decided about a Compose project, without an engine."""

from __future__ import annotations

from typing import Any

import pytest

from autostart_proxy.backends.compose.project import CRASH_LOOP_RESTARTS, Project, Unit
from autostart_proxy.backends.compose.snapshot import Snapshot
from autostart_proxy.backends.docker.container import Container, Listed


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
        "published": frozenset(),
        "tty": False,
        "created_at": 0.0,
        "started_at": 0.0,
        "grace_seconds": None,
        "stop_signal": "",
        "network_mode": "p_default",
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
    return Snapshot.of_all(containers, told_to_end=told_to_end)


def seen(running: str = "", exited: str = "") -> Snapshot:
    return snapshot(
        *(container(name) for name in running.split()),
        *(container(name, "exited") for name in exited.split()),
    )


SERVICE, DEPENDS_ON = "com.docker.compose.service", "com.docker.compose.depends_on"
LABELS = {SERVICE: "app", "com.docker.compose.project": "p"}
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

    @pytest.mark.parametrize("keys", [{"scale": 0}, {"deploy": {"replicas": 0}}])
    def test_what_has_no_replicas_is_neither_started_nor_waited_for(
        self, keys: dict[str, Any]
    ) -> None:
        needs = {"extra": {"condition": "service_healthy"}}
        config = {"name": "p", "services": {"app": {"depends_on": needs}, "extra": keys}}
        assert Project.from_config(config, {}).unit(None).services == ("app",)
        assert Project.from_config(config, {}).unit(["app"]).services == ("app",)
        assert Project.from_config(config, {}).unit(["extra"]).services == ()

    def test_what_compose_left_in_is_active_whatever_its_profile(self) -> None:
        config = {"name": "p", "services": {"app": {"profiles": ["gpu"]}}}
        assert Project.from_config(config, {}).unit(None).services == ("app",)

    @pytest.mark.parametrize(
        ("keys", "may"),
        [
            ({}, False),
            ({"ports": [{"published": "8002", "protocol": "tcp"}]}, False),
            ({"ports": [{"published": "8001", "protocol": "udp"}]}, False),
            ({"ports": [{"published": "8000-8002", "protocol": "tcp"}]}, True),
            ({"network_mode": "host"}, True),
            ({"network_mode": "container:gateway"}, True),
            ({"network_mode": "service:vpn"}, False),
        ],
    )
    def test_it_may_be_reached_where_the_file_says_or_does_not_say(
        self, keys: dict[str, Any], may: bool
    ) -> None:
        project = Project.from_config({"name": "p", "services": {"app": keys, "vpn": {}}}, {})
        assert project.may_listen("127.0.0.1", 8001) is may

    def test_optional_dependencies_belong_where_compose_left_them_in(self) -> None:
        depends_on = {
            "extra": {"condition": "service_started", "required": False},
            "gone": {"condition": "service_started", "required": False},
        }
        services = {"app": {"depends_on": depends_on}, "extra": {"profiles": ["x"]}}
        unit = Project.from_config({"name": "p", "services": services}, {}).unit(None)
        assert unit.services == ("extra", "app")
        assert unit.required == {"app"}

    def test_hooks_are_known(self) -> None:
        hook = [{"command": ["true"]}]
        config = {"name": "p", "services": {"a": {"post_start": hook}, "b": {"pre_stop": hook}}}
        a, b = Project.from_config(config, {}).services.values()
        assert (a.has_start_hooks, a.has_stop_hooks) == (True, False)
        assert (b.has_start_hooks, b.has_stop_hooks) == (False, True)

    @pytest.mark.parametrize(
        ("keys", "filled"),
        [
            ({}, False),
            ({"secrets": [{"source": "inline"}]}, True),
            ({"secrets": [{"source": "file"}]}, False),
            ({"configs": [{"source": "file"}, {"source": "inline"}]}, True),
            ({"configs": [{"source": "unknown"}]}, False),
        ],
    )
    def test_what_compose_writes_into_containers_is_known(
        self, keys: dict[str, Any], filled: bool
    ) -> None:
        config = {
            "name": "p",
            "services": {"app": keys},
            "secrets": {"inline": {"environment": "TOKEN"}, "file": {"file": "/t"}},
            "configs": {"inline": {"content": "x"}, "file": {"file": "/c"}},
        }
        assert Project.from_config(config, {}).services["app"].is_filled is filled

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

    def test_compose_starts_what_has_hooks_and_what_it_has_to_fill(self) -> None:
        config = {
            "name": "p",
            "services": {
                "app": {},
                "filled": {"secrets": [{"source": "s"}]},
                "hooked": {"post_start": [{"command": ["true"]}]},
            },
            "secrets": {"s": {"environment": "TOKEN"}},
        }
        unit = Project.from_config(config, {}).unit(None)
        fresh = snapshot(container("app"), container("filled"), container("hooked"))
        assert unit.for_compose(fresh, changed=False) == {"filled", "hooked"}
        ran = snapshot(container("filled", started_at=1.0))
        assert unit.for_compose(ran, changed=False) == {"hooked"}
        assert unit.for_compose(ran, changed=True) == {"filled", "hooked"}

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

    def test_an_optional_one_that_ended_does_not_end_the_rest(self) -> None:
        depends_on = {"extra": {"condition": "service_started", "required": False}}
        services: dict[str, Any] = {"app": {"depends_on": depends_on}, "extra": {}}
        unit = Project.from_config({"name": "p", "services": services}, {}).unit(["app"])
        looked = snapshot(container("app"), container("extra", "exited", exit_code=1))
        assert unit.all_up(looked)
        assert unit.to_start(looked) == ["extra"], "the next start tries again"


class TestOthers:
    def test_a_container_that_is_being_removed_is_gone_and_keeps_its_service_busy(self) -> None:
        looked = snapshot(container("base", "removing"))
        assert DIAMOND.unit(["base"]).missing(looked) == ["base"]
        assert DIAMOND.unit(["base"]).is_busy(looked)
        assert not DIAMOND.unit(["base"]).is_busy(snapshot(container("app", "removing")))

    def test_what_was_told_to_end_is_waited_for(self) -> None:
        looked = Snapshot.of_all([container("left")], ending=["id-left"])
        assert DIAMOND.unit(["left"]).is_ending(looked)
        assert not DIAMOND.unit(["right"]).is_ending(looked)

    def test_strangers_are_in_the_way_only_where_they_bear_a_name_of_the_unit(self) -> None:
        labels = {"com.docker.compose.service": "left"}
        other = Listed("id", "p-left-1", labels, "running", frozenset())
        looked = Snapshot.of_all([], strangers=[other])
        assert DIAMOND.unit(["left"]).taken(looked) == [other]
        assert DIAMOND.unit(["right"]).taken(looked) == []

    def test_fewer_replicas_than_there_should_be_are_missing_some(self) -> None:
        config = {"name": "p", "services": {"app": {"deploy": {"replicas": 2}}}}
        unit = Project.from_config(config, {}).unit(None)
        assert unit.missing(snapshot(container("app"))) == ["app"]
        assert not unit.all_up(snapshot(container("app")))
        assert unit.missing(snapshot(container("app"), container("app", id="id-2"))) == []

    def test_what_has_lost_its_network_is_started_again(self) -> None:
        unit = project(app=["vpn"], vpn=[]).unit(["app"])
        app = container("app", network_mode="container:id-vpn", started_at=1.0)
        assert unit.to_start(snapshot(app, container("vpn", started_at=0.5))) == []
        looked = snapshot(app, container("vpn", started_at=2.0))
        assert unit.to_start(looked) == ["app"]
        assert not unit.all_up(looked) and unit.runs(looked)

    def test_what_is_left_of_a_unit_is_seen(self) -> None:
        unit = DIAMOND.unit(["app"])
        assert unit.runs(snapshot(container("app", "exited"), container("base")))
        assert not unit.runs(seen(exited="app base"))


class TestStopping:
    ALL = snapshot(
        container("app", labels=LABELS | {DEPENDS_ON: "left::,right::"}),
        container("left", labels=LABELS | {SERVICE: "left", DEPENDS_ON: "base::"}),
        container("right", labels=LABELS | {SERVICE: "right", DEPENDS_ON: "base::"}),
        container("base"),
    )

    def test_dependents_are_stopped_before_what_they_depend_on(self) -> None:
        groups = DIAMOND.unit(None).to_stop(self.ALL, [])
        assert [sorted(group) for group in groups] == [["app"], ["left", "right"], ["base"]]

    def test_what_another_running_container_depends_on_is_left_running(self) -> None:
        unit = DIAMOND.unit(["left"])
        assert unit.to_stop(self.ALL, []) == [["left"]]
        assert unit.to_stop(seen(running="left base"), []) == [["left"], ["base"]]

    def test_what_runs_and_stands_in_no_file_any_more_keeps_what_its_labels_say(self) -> None:
        unit = project(left=["base"], base=[]).unit(["left"])
        labels = {
            "com.docker.compose.service": "old",
            "com.docker.compose.depends_on": "base:service_started:false",
        }
        old = container("old", labels=labels)
        running = [container("left"), container("base")]
        assert unit.to_stop(snapshot(*running, old), []) == [["left"]]
        ended = container("old", "exited", labels=labels)
        assert unit.to_stop(snapshot(*running, ended), []) == [["left"], ["base"]]

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
        here, elsewhere = ("127.0.0.1", 8001), ("192.0.2.1", 8001)
        looked = snapshot(
            container("app", published=frozenset({elsewhere})),
            container("left", published=frozenset({here})),
        )
        front = unit.published(looked, "127.0.0.1", 8001)
        assert front is not None
        assert front.service == "left"

    def test_it_is_the_only_named_one_where_nobody_publishes_the_port(self) -> None:
        looked = snapshot(container("app"), container("base"))
        front = DIAMOND.unit(["app"]).published(looked, "127.0.0.1", 8001)
        assert front is not None
        assert front.service == "app"
        two = DIAMOND.unit(["left", "right"])
        both = snapshot(container("left"), container("right"))
        assert two.published(both, "127.0.0.1", 8001) is None

    def test_only_its_own_containers_may_listen_where_one_is_to_publish_the_port(
        self,
    ) -> None:
        ports = [
            {"target": 80, "published": "8001-8002", "host_ip": "127.0.0.1", "protocol": "tcp"},
            {"target": 53, "published": "53", "protocol": "udp"},
            {"target": 81},
        ]
        services: dict[str, Any] = {"app": {"ports": ports}, "front": {}}
        unit = Project.from_config({"name": "p", "services": services}, {}).unit(["app"])
        looked = snapshot(container("app"), container("front"))

        def candidates(host: str, port: int) -> list[str]:
            return [each.service for each in unit.candidates(looked, host, port)]

        assert candidates("127.0.0.1", 8002) == ["app"]
        assert candidates("127.0.0.1", 8003) == ["app", "front"]
        assert candidates("127.0.0.1", 53) == candidates("::1", 8001) == ["app", "front"]

    def test_a_lender_of_its_network_may_listen_for_it(self) -> None:
        services: dict[str, Any] = {"app": {"network_mode": "container:gateway"}}
        unit = Project.from_config({"name": "p", "services": services}, {}).unit(None)
        app, gateway = (container(name, network_mode="container:gateway") for name in ("app", "g"))
        known = Snapshot.of_all([app], lenders={"gateway": gateway})
        assert unit.candidates(known, "127.0.0.1", 8001) == [app, gateway]
        assert unit.candidates(Snapshot.of_all([app]), "127.0.0.1", 8001) == [app]
        assert unit.borrows_from(Listed("f00", "gateway", {}, "running", frozenset()))
        assert not unit.borrows_from(Listed("f00", "other", {}, "running", frozenset()))

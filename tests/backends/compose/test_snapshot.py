"""What was seen of a project at one moment."""

from __future__ import annotations

from typing import Any

import pytest

from autostart_proxy.backends.compose.snapshot import Snapshot
from autostart_proxy.backends.docker.container import Container
from tests.backends.compose.test_project import container


def replica(id: str, status: str = "running", *, replaces: bool = False, **facts: Any) -> Container:
    labels = {
        "com.docker.compose.service": "app",
        "com.docker.compose.container-number": "1",
        **({"com.docker.compose.replace": "something"} if replaces else {}),
    }
    return container("app", status, id=id, name=f"p-{id}", labels=labels, **facts)


def ids(seen: Snapshot) -> list[str]:
    return [each.id for each in seen.everything()]


def test_containers_are_found_by_their_service() -> None:
    seen = Snapshot.of_all([container("app"), container("db")])
    assert [each.id for each in seen.of("app")] == ["id-app"]
    assert seen.of("nothing") == []
    assert seen.busy == frozenset()


def test_one_that_is_being_removed_is_gone_and_somebody_is_at_work() -> None:
    seen = Snapshot.of_all([container("app", "removing"), container("db")])
    assert ids(seen) == ["id-db"]
    assert seen.busy == {"app"}


def test_replicas_are_no_replacements() -> None:
    two = container("app", id="id-2")
    seen = Snapshot.of_all([container("app"), two])
    assert len(seen.of("app")) == 2


class TestReplacement:
    OLD = replica("old", created_at=1.0)
    NEW = replica("new", "created", replaces=True, created_at=2.0)

    def test_the_old_one_counts_as_long_as_it_is_there(self) -> None:
        seen = Snapshot.of_all([self.NEW, self.OLD])
        assert (ids(seen), seen.busy) == (["old"], frozenset())

    @pytest.mark.parametrize("status", ["exited", "created", "dead"])
    def test_somebody_is_at_work_once_the_old_one_has_ended(self, status: str) -> None:
        seen = Snapshot.of_all([replica("old", status, created_at=1.0), self.NEW])
        assert (ids(seen), set(seen.busy)) == (["old"], {"app"})

    def test_the_new_one_counts_once_the_old_one_is_gone(self) -> None:
        for others in ([], [replica("old", "removing", created_at=1.0)]):
            assert ids(Snapshot.of_all([*others, self.NEW])) == ["new"]

    def test_one_that_was_itself_a_replacement_may_be_replaced(self) -> None:
        old = replica("old", replaces=True, created_at=1.0)
        assert ids(Snapshot.of_all([self.NEW, old])) == ["old"]


def test_one_that_was_told_to_end_and_still_runs_is_being_worked_on() -> None:
    seen = Snapshot.of_all([container("app")], told_to_end=["id-app"], ending=["id-app"])
    assert seen.told_to_end == seen.ending == {"id-app"}
    assert seen.busy == {"app"}
    gone = Snapshot.of_all([container("app", "exited")], ending=["id-app"])
    assert gone.busy == frozenset()


class TestNetwork:
    def app(self, started_at: float = 2.0, lender: str = "id-vpn") -> Container:
        return container("app", started_at=started_at, network_mode=f"container:{lender}")

    def is_connected(self, app: Container, *others: Container, **facts: Any) -> bool:
        return Snapshot.of_all([app, *others], **facts).is_connected(app)

    def test_a_network_of_its_own_is_always_there(self) -> None:
        assert self.is_connected(container("app", network_mode="p_default"))

    def test_a_lent_one_is_there_until_its_lender_ends_or_starts_again(self) -> None:
        assert self.is_connected(self.app(), container("vpn", started_at=1.0))
        assert not self.is_connected(self.app(), container("vpn", started_at=3.0))
        assert not self.is_connected(self.app(), container("vpn", "exited", started_at=1.0))

    def test_the_lender_may_be_a_stranger_called_by_its_name(self) -> None:
        app = self.app(lender="gateway")
        old, young = (container("x", started_at=at) for at in (1.0, 3.0))
        assert self.is_connected(app, lenders={"gateway": old})
        assert not self.is_connected(app, lenders={"gateway": young})
        assert not self.is_connected(app, lenders={"gateway": None}), "it is gone"
        assert self.is_connected(app), "nothing is known of it"

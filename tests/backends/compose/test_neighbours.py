"""Services that share a project."""

from __future__ import annotations

import asyncio

from autostart_proxy.backends.compose.neighbours import Neighbours
from autostart_proxy.backends.compose.project import ComposeService, Project, Unit


def unit(project: str, *services: str) -> Unit:
    made = Project(project, {name: ComposeService(name) for name in services})
    return made.unit(None)


def test_those_of_the_same_project_are_neighbours_but_nobody_of_oneself() -> None:
    neighbours, one, two, elsewhere = Neighbours(), object(), object(), object()
    neighbours.note(one, unit("p", "a"))
    neighbours.note(two, unit("p", "b"))
    neighbours.note(elsewhere, unit("q", "a"))
    assert neighbours.beside(one, "p") == [unit("p", "b")]
    assert neighbours.beside(elsewhere, "q") == []


def test_a_file_read_anew_replaces_what_was_read_before() -> None:
    neighbours, one, two = Neighbours(), object(), object()
    neighbours.note(two, unit("p", "b"))
    neighbours.note(two, unit("q", "b"))
    assert neighbours.beside(one, "p") == []
    assert neighbours.beside(one, "q") == [unit("q", "b")]


def test_who_has_left_needs_nothing() -> None:
    neighbours, one, two = Neighbours(), object(), object()
    neighbours.note(two, unit("p", "b"))
    neighbours.leave(two)
    neighbours.leave(two)
    assert neighbours.beside(one, "p") == []


async def test_only_those_of_one_project_wait_for_each_other() -> None:
    neighbours = Neighbours()
    async with neighbours.lock("p"):
        assert neighbours.lock("p").locked()
        async with asyncio.timeout(60), neighbours.lock("q"):
            pass

"""What a Python package's modules import, read from their source, and the rules on it.

A room is what stands at the top of a package: a folder, or a module of its own. Every rule is a
function that returns what breaks it, one line each, so that a test can show that it finds
something as well as that there is nothing to find.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Floors = Sequence[frozenset[str]]
"""Rooms from the roof down. Imports run downwards; rooms of one floor do not know each other."""

_DOES_IO = frozenset({"open", "input", "print", "exec", "eval", "compile", "__import__"})


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@dataclass(frozen=True)
class Module:
    """One file of a package; `name` is dotted, and that of a folder for its `__init__`."""

    name: str
    path: Path

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path.read_text())

    @property
    def room(self) -> str:
        """Its part of the house: the second part of its name."""
        return (self.name.split(".") + [""])[1]

    @property
    def imports(self) -> Iterator[str]:
        """Dotted names, wherever in the file they stand; `from a import b` counts as `a.b`."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] if node.level else ""
                whole = ".".join(part for part in (base, node.module) if part)
                yield from (f"{whole}.{alias.name}" for alias in node.names)

    @property
    def called(self) -> set[str]:
        """Plain names that are called."""
        calls = (node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return {each.id for each in calls if isinstance(each, ast.Name)}


class House:
    """The modules of one package.

    Args:
        folder: the package's own folder; its name is the package's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = [self._module(path) for path in sorted(folder.rglob("*.py"))]
        self.names = {module.name for module in self.modules}

    def _module(self, path: Path) -> Module:
        parts = path.relative_to(self.folder.parent).with_suffix("").parts
        return Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)

    @property
    def rooms(self) -> set[str]:
        return {module.room for module in self.modules} - {""}

    def within(self, module: Module) -> set[str]:
        """The modules of this package that a module imports, itself left out."""
        return {self._owner(dotted) for dotted in module.imports} - {"", module.name}

    def outside(self, module: Module) -> set[str]:
        """The packages of others that a module imports."""
        return {dotted.partition(".")[0] for dotted in module.imports if not self._owner(dotted)}

    def _owner(self, dotted: str) -> str:
        """The module that a dotted name stands for, or stands in; empty for another package."""
        while dotted and dotted not in self.names:
            dotted = dotted.rpartition(".")[0]
        return dotted


def room_of(module: str) -> str:
    return (module.split(".") + [""])[1]


def upward(house: House, floors: Floors) -> list[str]:
    """Imports that do not run to a floor further down."""
    depth = {room: at for at, floor in enumerate(floors) for room in floor}
    lost = [f"{room}: stands on no floor" for room in sorted(house.rooms - depth.keys())]
    return lost + [
        f"{module.name} imports {other}"
        for module in house.modules
        for other in sorted(house.within(module))
        if room_of(other) not in ("", module.room)
        and depth.get(room_of(other), -1) <= depth.get(module.room, len(floors))
    ]


def strangers(house: House, only: Mapping[str, Iterable[str]]) -> list[str]:
    """Imports of rooms that a room may not know, although they lie further down."""
    return [
        f"{module.name} imports {other}"
        for module in house.modules
        if module.room in only
        for other in sorted(house.within(module))
        if room_of(other) not in ("", module.room, *only[module.room])
    ]


def circles(house: House) -> list[str]:
    """A round of imports, if there is one; a package's `__init__` counts as what it holds."""
    graph = {module.name: house.within(module) for module in house.modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def impure(house: House, allowed: Mapping[str, Iterable[str]]) -> list[str]:
    """What pure modules import or call that they may not.

    Args:
        allowed: what each may import of other packages, by room or by module's name.
    """
    found = []
    for module in house.modules:
        rule = next((allowed[key] for key in (module.name, module.room) if key in allowed), None)
        if rule is None:
            continue
        touched = house.outside(module) - {"__future__", *rule}
        found += [f"{module.name} imports {each}" for each in sorted(touched)]
        found += [f"{module.name} calls {each}" for each in sorted(module.called & _DOES_IO)]
    return found


def untested(house: House, tests: Path) -> list[str]:
    """Modules that do something and have no test.

    `a/b.py` has `a/test_b.py`, a folder's `__init__` has `test_a.py`; there may be `test_b_*.py`
    beside it. Declarations alone (protocols, values, constants) need none.
    """
    found = []
    for module in house.modules:
        place = module.path.relative_to(house.folder).with_suffix("")
        if place.name == "__init__":
            place = place.parent
        test = place.parent / f"test_{place.name}.py"
        if _does_something(module) and place.name != "__main__" and not (tests / test).is_file():
            found.append(f"{module.name}: {test} is missing")
    return found


def _does_something(module: Module) -> bool:
    """Whether a module has a function with a body, or a loop or a condition at its top."""
    functions = (
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return any(isinstance(node, ast.For | ast.While | ast.If) for node in module.tree.body) or any(
        not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)
        for function in functions
        for node in function.body
    )


def long(house: House, limit: int) -> list[str]:
    """Files of more lines than one reader takes in."""
    counted = ((module.name, len(module.path.read_text().splitlines())) for module in house.modules)
    return [f"{name}: {lines} lines" for name, lines in counted if lines > limit]


def misnamed(house: House) -> list[str]:
    """Names that say that nobody knew what the thing is."""
    found = [
        f"{module.name}: the module's name"
        for module in house.modules
        if re.search(r"util|helper|manager|common$|misc", module.path.stem)
    ]
    return found + [
        f"{module.name}: {node.name}"
        for module in house.modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Handler)$", node.name)
    ]


def asserting(house: House) -> list[str]:
    """Asserts in the product: `python -O` removes them, so they guard nothing."""
    return [
        f"{module.name}:{node.lineno}: assert"
        for module in house.modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]

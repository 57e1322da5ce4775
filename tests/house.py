"""A house: packages, read from their source, and the rules on what their modules may import.

A check is a function of a `House` that gives its breaches, one line each, beginning with the file
at fault, so that a test can show that it finds something as well as that there is nothing to find.
Those with arguments are made by a function that takes them. A room is a folder of a package, or a
module beside the folders.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VAGUE = re.compile(r"util|helper|(^|_)misc(_|$)|^common$|manager|handler$", re.IGNORECASE)
DOES_IO = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}


@dataclass(frozen=True)
class Import:
    """One imported name; `lazy` is one that costs nothing when the module is imported."""

    name: str
    lazy: bool


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


@dataclass(frozen=True)
class Module:
    """A file of a package; `name` is what it is imported by."""

    name: str
    path: Path
    root: Path

    @property
    def file(self) -> str:
        """Its path in the house."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path.read_text("utf-8"))

    def imports(self) -> Iterator[Import]:
        """All names that are imported, absolute; `from a import b` counts as `a.b`."""
        yield from self._imports(self.tree, lazy=False)

    def _imports(self, node: ast.AST, lazy: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                yield from (Import(alias.name, lazy) for alias in node.names)
            case ast.ImportFrom():
                base = self._base(node)
                yield from (Import(f"{base}.{alias.name}", lazy) for alias in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from self._imports(child, lazy or is_function or for_types)

    def _base(self, node: ast.ImportFrom) -> str:
        """What the names of a `from` import belong to; each dot but the first is a step up."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*kept, *([node.module] if node.module else [])])

    def does_something(self) -> bool:
        """Whether it has a function with a body, or a loop or a condition at its top."""
        functions = (
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        return any(
            isinstance(node, ast.For | ast.While | ast.If) for node in self.tree.body
        ) or any(
            not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)
            for function in functions
            for node in function.body
        )


class House:
    """The packages below a folder.

    Args:
        root: what files are named from.
        packages: the folder of each package, by its name.
    """

    def __init__(self, root: Path, packages: Mapping[str, str]) -> None:
        self.root = root
        self.packages = packages
        self.modules = {
            module.name: module
            for package, folder in packages.items()
            for module in self._package(package, root / folder)
        }

    def _package(self, package: str, folder: Path) -> Iterator[Module]:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield Module(".".join([package, *parts]).removesuffix(".__init__"), path, self.root)

    def owned(self, name: str) -> str | None:
        """The module of the house that an imported name is, or is in."""
        while name:
            if name in self.modules:
                return name
            name = name.rpartition(".")[0]
        return None

    def neighbours(self, module: Module) -> set[str]:
        """The modules of the house that a module imports."""
        owned = {self.owned(found.name) for found in module.imports()}
        return {name for name in owned if name} - {module.name}

    def libraries(self, module: Module) -> set[str]:
        """The packages from elsewhere that a module imports."""
        return {name.partition(".")[0] for name in self.foreign(module)}

    def foreign(self, module: Module) -> set[str]:
        """What a module imports from elsewhere, by its whole name."""
        return {each.name for each in module.imports() if self.owned(each.name) is None}

    def files(self, names: Collection[str]) -> list[str]:
        """The files of these modules, and of all in these rooms."""
        return sorted(each.file for each in self.modules.values() if key_of(each.name, names))


Check = Callable[[House], Iterator[str]]


def key_of(name: str, keys: Collection[str]) -> str | None:
    """The longest of the keys that a module is, or is in."""
    found = [key for key in keys if f"{name}.".startswith(f"{key}.")]
    return max(found, key=len, default=None)


def upward_imports(floors: Sequence[Collection[str]]) -> Check:
    """Imports run only downwards, or within a room; rooms of one floor do not know each other.

    Args:
        floors: the rooms from the roof to the ground. A package is a room; one whose rooms are
            named as well stands for itself alone.
    """
    depth = {room: at for at, floor in enumerate(floors) for room in floor}
    divided = {room for room in depth for other in depth if other.startswith(f"{room}.")}

    def room_of(name: str) -> str | None:
        return name if name in divided else key_of(name, depth.keys() - divided)

    def upward_imports(house: House) -> Iterator[str]:
        for module in house.modules.values():
            room = room_of(module.name)
            if room is None:
                yield f"{module.file}: is in no room of the house"
                continue
            for name in sorted(house.neighbours(module)):
                other = room_of(name)
                if other is not None and other != room and depth[other] <= depth[room]:
                    yield f"{module.file}: imports {name}, which does not stand below it"

    return upward_imports


def strange_rooms(known: Mapping[str, Collection[str]]) -> Check:
    """Some rooms know only some of those below them.

    Args:
        known: the rooms that a room may import, itself left out.
    """

    def strange_rooms(house: House) -> Iterator[str]:
        for module in house.modules.values():
            room = key_of(module.name, known)
            if room is None:
                continue
            for name in sorted(house.neighbours(module)):
                if name not in house.packages and not key_of(name, {room, *known[room]}):
                    yield f"{module.file}: imports {name}, which is none of its business"

    return strange_rooms


def circles(house: House) -> Iterator[str]:
    """No imports run in a circle."""
    graph = {module.name: house.neighbours(module) for module in house.modules.values()}
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> Iterator[str]:
        if name in way:
            circle = [*way[way.index(name) :], name]
            files = " -> ".join(house.modules[part].file for part in circle)
            yield f"{files}: a circle of imports"
        elif name not in done:
            for neighbour in sorted(graph[name]):
                yield from walk(neighbour, [*way, name])
            done.add(name)

    for name in graph:
        yield from walk(name, [])


def impurities(allowed: Mapping[str, Collection[str]]) -> Check:
    """What decides touches nothing, and knows only what does not either.

    Args:
        allowed: by module or room, the packages or modules from elsewhere that it may import.
    """

    def impurities(house: House) -> Iterator[str]:
        yield from (
            f"{key}: is said to be pure and does not exist"
            for key in allowed
            if not house.files([key])
        )
        for module in house.modules.values():
            key = key_of(module.name, allowed)
            if key is None:
                continue
            pure = {"__future__", *allowed[key]}
            foreign = (name for name in house.foreign(module) if key_of(name, pure) is None)
            for library in sorted({name.partition(".")[0] for name in foreign}):
                yield f"{module.file}: is pure and imports {library}"
            for name in sorted(house.neighbours(module)):
                if key_of(name, allowed) is None and name not in house.packages:
                    yield f"{module.file}: is pure and imports {name}, which is not"
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Name) and node.id in DOES_IO:
                    yield f"{module.file}: is pure and uses {node.id} (line {node.lineno})"

    return impurities


def modules_without_test(place_of_test: Callable[[Module], Path]) -> Check:
    """Every module that does something has its test; declarations alone need none.

    Args:
        place_of_test: where the test of a module belongs, from the root of the house.
    """

    def modules_without_test(house: House) -> Iterator[str]:
        for module in house.modules.values():
            if module.path.name != "__main__.py" and module.does_something():
                test = place_of_test(module)
                if not (house.root / test).is_file():
                    yield f"{module.file}: has no test; it belongs into {test}"

    return modules_without_test


def long_files(most_lines: int) -> Check:
    """Every file can be read at one go."""

    def long_files(house: House) -> Iterator[str]:
        for module in house.modules.values():
            lines = len(module.path.read_text("utf-8").splitlines())
            if lines > most_lines:
                yield f"{module.file}: has {lines} lines, {most_lines} at most"

    return long_files


def names_that_say_nothing(house: House) -> Iterator[str]:
    """No name says that nobody knew what the thing is."""
    for module in house.modules.values():
        classes = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        for name in (module.path.stem, *classes):
            if VAGUE.search(name):
                yield f"{module.file}: {name} does not say what it is"


def asserts_on_guard(house: House) -> Iterator[str]:
    """`python -O` removes them, so what must hold is checked by other means."""
    for module in house.modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assert):
                yield f"{module.file}: asserts something (line {node.lineno})"


def hidden_imports(house: House) -> Iterator[str]:
    """Nothing is imported that nobody can read beforehand."""
    for module in house.modules.values():
        for found in module.imports():
            if found.name.startswith("importlib.import"):
                yield f"{module.file}: imports what nobody can read beforehand"


@dataclass(frozen=True)
class Breach:
    """Code added to the end of a file, which may be new, that one check must not let pass."""

    check: Check
    file: str
    code: str

    def __str__(self) -> str:
        return f"{self.check.__name__}: {self.file}: {self.code[:40]!r}"

    def found_in(self, copy: House) -> list[str]:
        """What the check says of a copy of the house into which this is seeded for a moment."""
        path = copy.root / self.file
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        try:
            path.write_text(f"{(before or b'').decode()}\n{self.code}\n")
            return list(self.check(House(copy.root, copy.packages)))
        finally:
            if before is None:
                path.unlink()
            else:
                path.write_bytes(before)


def copied(house: House, folders: Collection[str], to: Path) -> House:
    """Copy these folders of a house, to seed breaches into."""
    for folder in folders:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(house.root / folder, to / folder, ignore=ignored, dirs_exist_ok=True)
    return House(to, house.packages)

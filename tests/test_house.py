"""The plan of the house: arrows one way between houses and rooms, no circles, what must be light is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from sample_bundles import ROOT

HOUSES = ("ptycho_runtime", "ptycho_torch", "exporters")
GROUND_FLOOR = {f"ptycho_runtime.{name}" for name in ("contract", "errors", "files")}
# What each house may use of the others.
ALLOWED_HOUSES = {
    "ptycho_runtime": (),
    "ptycho_torch": (*sorted(GROUND_FLOOR), "ptycho_runtime"),  # the package itself: its __init__ is lazy
    "exporters": ("ptycho_torch", "ptycho_runtime"),
}
# Rooms of the runtime from the ground up; a room may use those of the lines before its own.
FLOORS = (
    {"contract", "errors", "files"},
    {"closing", "metrics", "demo", "drawing", "threads"},
    {"export"},
    {"scan", "engine"},
    {"image"},
    {"check", "api"},
    {"doctor", "live", "many"},
    {"cli"},
    {"__main__"},
)
HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "openvino"}
MOST_PARAMETERS = 6
ERA_TUPLE = re.compile(r'\(\s*"(A|A2|B|U|U2|J0|J|V)"\s*,\s*"(A|A2|B|U|U2|J0|J|V)"')


class Import:
    """One imported module: where it stands, and when it is imported."""

    def __init__(self, target: str, line: int, *, at_once: bool, for_types: bool) -> None:
        self.target, self.line, self.at_once, self.for_types = target, line, at_once, for_types


@cache
def modules() -> dict[str, Path]:
    """Return every module of the three houses by its dotted name."""
    found = {}
    for house in HOUSES:
        for path in sorted((ROOT / house).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    """Return a module's source, parsed."""
    return ast.parse(modules()[name].read_text())


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Return all imports of a module, those within functions and those for type checkers included."""
    package = name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]
    return tuple(_imports(tree(name).body, package, at_once=True, for_types=False))


def _imports(body: list[ast.stmt], package: str, *, at_once: bool, for_types: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_once=at_once, for_types=for_types)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                dotted = f"{base}.{alias.name}"
                target = dotted if dotted in modules() else base
                yield Import(target, node.lineno, at_once=at_once, for_types=for_types)
        else:
            types = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for _, value in ast.iter_fields(node):
                if isinstance(value, list):
                    blocks = [part for part in value if isinstance(part, (ast.stmt, ast.ExceptHandler, ast.match_case))]
                    for block in blocks:
                        statements = [block] if isinstance(block, ast.stmt) else block.body
                        yield from _imports(statements, package, at_once=at_once and not inside, for_types=types)


def arrows(name: str, *, types: bool = True) -> Iterator[tuple[str, str]]:
    """Return (target, place) of what a module imports, at any time; `types=False` leaves out what only type checkers see."""
    for found in imports(name):
        if types or not found.for_types:
            yield found.target, f"{modules()[name].relative_to(ROOT)}:{found.line} imports {found.target}"


def within(target: str, package: str) -> bool:
    """Return whether a module is a package or lies in it."""
    return target == package or target.startswith(f"{package}.")


def room(name: str) -> str | None:
    """Return the runtime's room that a module belongs to; none for the package's own `__init__`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "ptycho_runtime" and len(parts) > 1 else None


def test_houses_point_one_way() -> None:
    wrong = [
        place
        for name in modules()
        for target, place in arrows(name)
        for house in [name.partition(".")[0]]
        if target.partition(".")[0] in {*HOUSES} - {house}
        and not (target in ALLOWED_HOUSES[house] or (house == "exporters" and within(target, "ptycho_torch")))
        and not (house == "exporters" and within(target, "ptycho_runtime"))
    ]
    assert wrong == []


def test_runtime_uses_neither_pytorch_nor_onnx() -> None:
    wrong = [
        place
        for name in modules()
        if within(name, "ptycho_runtime")
        for target, place in arrows(name)
        if target.partition(".")[0] in {"torch", "onnx", "onnxscript", "onnx_ir", "pickle"}
    ]
    assert wrong == []


def test_bundles_are_read_without_pytorch() -> None:
    wrong = [
        place
        for name in modules()
        if within(name, "ptycho_torch.bundle")
        for target, place in arrows(name)
        if target.partition(".")[0] in HEAVY
    ]
    assert wrong == []


def test_ground_floor_imports_the_standard_library_alone() -> None:
    wrong = [
        place
        for name in sorted(GROUND_FLOOR)
        for target, place in arrows(name)
        if target.partition(".")[0] not in sys.stdlib_module_names and target not in GROUND_FLOOR
    ]
    assert wrong == []


def test_every_room_of_the_runtime_has_its_floor() -> None:
    floors = [name for floor in FLOORS for name in floor]
    assert len(floors) == len(set(floors))
    assert {room(name) for name in modules()} - {None} <= set(floors)


def test_rooms_of_the_runtime_use_those_below() -> None:
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    wrong = [
        place
        for name in modules()
        if (own := room(name))
        for target, place in arrows(name, types=False)
        if (other := room(target)) and other != own and floor_of[other] >= floor_of[own] and floor_of[own] > 0
    ]
    assert sorted(wrong) == []


def test_no_circle_of_imports() -> None:
    graph = {
        name: {
            found.target
            for found in imports(name)
            # A module may import from the package it lies in what that package's `__init__` has imported before it.
            if found.at_once and not found.for_types and found.target in modules() and not within(name, found.target)
        }
        for name in modules()
    }
    assert [sorted(circle) for circle in circles(graph)] == []


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of nodes that reach one another."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        left = [start]
        while left:
            for target in graph[left.pop()]:
                if target not in seen:
                    seen.add(target)
                    left.append(target)
        reached[start] = seen
    found: list[set[str]] = []
    for name in graph:
        together = {other for other in reached[name] if name in reached[other]}
        if together and together not in found:
            found.append(together)
    return found


def test_a_circle_would_be_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [{"b", "c"}]


def test_no_function_takes_over_six_parameters_outside_the_command_line() -> None:
    wrong = [
        f"{name}.{node.name}"
        for name in modules()
        if "cli" not in name.split(".")
        for node in ast.walk(tree(name))
        # PtychoPINN's models are called with what they take.
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "forward"
        if len(parameters(node)) > MOST_PARAMETERS
    ]
    assert sorted(wrong) == []


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters but the object it is called on."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [parameter.arg for parameter in every if parameter.arg not in ("self", "cls")]


def test_what_depends_on_an_era_stands_in_one_table() -> None:
    wrong = [name for name, path in modules().items() if ERA_TUPLE.search(path.read_text())]
    assert set(wrong) <= {"ptycho_torch.eras"}


def test_contract_loads_the_standard_library_alone() -> None:
    # What an environment loads at its start, such as an editable installation's finder, is not ours.
    loaded = loaded_by("import ptycho_runtime.contract") - loaded_by("pass")
    assert {name for name in loaded if within(name, "ptycho_runtime")} == {"ptycho_runtime", "ptycho_runtime.contract"}
    assert {name.partition(".")[0] for name in loaded} - {"ptycho_runtime"} <= sys.stdlib_module_names


def loaded_by(code: str) -> set[str]:
    """Return the modules that Python loads to run this."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("name", sorted(GROUND_FLOOR))
def test_ground_floor_is_light(name: str) -> None:
    assert loads_without([*HEAVY, "numpy", "h5py", "scipy"], f"import {name}") == ""


def loads_without(blocked: list[str], code: str) -> str:
    """Run code where some packages cannot be imported; return the last line of its errors."""
    block = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {sorted(blocked)!r}: raise ImportError(f'{{name}} is blocked')\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )
    done = subprocess.run([sys.executable, "-c", block + code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2]


def test_no_file_in_memory_lends_its_buffer() -> None:
    """Where writing it fails, the error keeps the loan, and CPython 3.12.1 crashes when it collects both; `getvalue` copies nothing."""
    assert [name for name, path in modules().items() if ".getbuffer()" in path.read_text()] == []


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Two of one name cannot be collected in one run."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_nothing_that_is_kept_leads_elsewhere() -> None:
    """A link to a folder of one machine leads nowhere on every other."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000 ")] == []

"""Imports go down only: reads every import in src/abreast, inside functions too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.whole

SOURCE = ROOT / "src" / "abreast"

# docs/design/README.md draws them. Siblings of L2 never import each other; executors, observe, journal and report know core only.
MAY_IMPORT = {
    "core": set(),
    "policy": {"core"},
    "executors": {"core"},
    "observe": {"core"},
    "journal": {"core"},
    "report": {"core"},
    "engine": {"core", "policy", "executors", "observe", "journal", "report"},
    # what users import
    "functions": {"core", "policy", "executors", "observe", "journal", "report", "engine"},
    "group_pool": {"core", "executors"},
    "group_processes": {"core"},
    "draining": {"core"},
    "group": {"core", "executors", "group_pool", "group_processes"},
    "pools": {"core", "policy", "executors", "observe", "journal", "report", "engine", "functions"},
    "recording": {"core", "observe", "report"},
    "process_pools": {"core", "executors", "pools"},
    "__init__": {"comparison", "core", "draining", "engine", "functions", "group", "pools", "process_pools", "recording"},
    "comparison": {"core", "policy", "executors", "observe", "report", "engine", "functions"},
    # the command
    "cli": {
        "__init__",
        "comparison",
        "core",
        "draining",
        "observe",
        "journal",
        "report",
        "engine",
        "functions",
        "group",
        "pools",
        "process_pools",
    },
    "__main__": {"cli"},
}


def room_of(module: str) -> str:
    """The part of the house a dotted name belongs to: abreast.core.future -> core; abreast -> __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "__init__"


def imports(path: Path):
    """Yield (line, dotted name) of every import of abreast in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; say the whole name"
            # 'from abreast import pools' names a module as well
            names = [f"{node.module}.{alias.name}" if node.module == "abreast" else node.module for alias in node.names]
        else:
            continue
        for name in names:
            if name == "abreast" or (name or "").startswith("abreast."):
                yield node.lineno, name


FILES = sorted(SOURCE.rglob("*.py"))


def test_finds_the_files():
    assert SOURCE / "core" / "future.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert room in MAY_IMPORT, f"{room} is a new part of the house: draw it in docs/design/README.md and here"
    for line, name in imports(path):
        other = room_of(name)
        allowed = MAY_IMPORT[room] | {room}
        assert other in allowed, (
            f"{path.relative_to(SOURCE)}:{line} imports {name}; {room} may import: {', '.join(sorted(allowed))}"
        )


def test_no_cycle_between_files():
    """Also not within a layer, and not hidden in functions. Imports for type checkers alone are left out."""
    graph = {}
    for path in FILES:
        name = ".".join(("abreast", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = []
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("abreast"):
                found.add(node.module)
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = found
    graph = {name: found & graph.keys() for name, found in graph.items()}

    def reachable(start):
        seen, todo = set(), [start]
        while todo:
            for other in graph[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    for name in graph:
        assert name not in reachable(name), f"{name} imports itself in the end"


def test_modules_named_by_a_string_are_in_one_place():
    """The public names, the subcommands; and the modules that the user names."""
    places = {
        SOURCE / "__init__.py",
        SOURCE / "cli/main.py",
        SOURCE / "cli/function.py",
        SOURCE / "executors/process/guarded.py",
        SOURCE / "observe/finding.py",
    }
    for path in FILES:
        if path not in places:
            text = path.read_text()
            assert "import_module" not in text, path
            assert "__import__" not in text, path

"""The public names: exactly `__all__`, typed, documented, with examples that run; found lazily; cheap to import."""

from __future__ import annotations

import ast
import concurrent.futures
import doctest
import inspect
import types

import abreast
import pytest

from tests.helpers import ROOT, run_python

pytestmark = pytest.mark.whole

STANDARD = set(abreast._HOMES["concurrent.futures"])
OURS = sorted(name for name in abreast.__all__ if name not in STANDARD and name != "__version__")


def test_every_name_is_there_and_nothing_else():
    for name in abreast.__all__:
        getattr(abreast, name)
    shown = {name for name in dir(abreast) if not name.startswith("_")} - {"annotations", "TYPE_CHECKING"}
    modules = {name for name in shown if isinstance(getattr(abreast, name), types.ModuleType)}
    assert shown - modules == set(abreast.__all__) - {"__version__"}
    assert modules <= {
        "cli",
        "comparison",
        "core",
        "draining",
        "engine",
        "executors",
        "functions",
        "group",
        "group_pool",
        "group_processes",
        "journal",
        "observe",
        "policy",
        "pools",
        "process_pools",
        "recording",
        "report",
    }, "only the parts of the house that have been imported"


def test_the_three_lists_of_names_agree():
    """`__all__`, the table of homes, and the imports that type checkers see."""
    tree = ast.parse((ROOT / "src/abreast/__init__.py").read_text())
    seen = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "typing", "importlib"):
            seen |= {alias.name: node.module for alias in node.names}
    homes = {name: home for home, names in abreast._HOMES.items() for name in names}
    assert seen == homes
    assert set(homes) | {"__version__"} == set(abreast.__all__)


def test_names_of_the_standard_library_are_its_objects():
    for name in STANDARD:
        assert getattr(abreast, name) is getattr(concurrent.futures, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'abreast' has no attribute 'Pool'"):
        abreast.Pool


def members(cls):
    """The public methods that a class of ours defines itself."""
    for base in cls.__mro__:
        if base.__module__.startswith("abreast."):
            for name, value in vars(base).items():
                if inspect.isfunction(value) and not name.startswith("_"):
                    yield f"{cls.__name__}.{name}", value


METHODS = dict(pair for name in OURS if inspect.isclass(getattr(abreast, name)) for pair in members(getattr(abreast, name)))


@pytest.mark.parametrize("name", OURS)
def test_has_a_docstring_with_an_example(name):
    doc = inspect.getdoc(getattr(abreast, name))
    assert doc
    assert ">>> " in doc, f"{name}: no example"


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_docstrings(name):
    assert inspect.getdoc(METHODS[name])


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_fully_typed(name):
    signature = inspect.signature(METHODS[name])
    untyped = [parameter.name for parameter in list(signature.parameters.values())[1:] if parameter.annotation is parameter.empty]
    assert not untyped
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", OURS)
def test_examples_run(name):
    value = getattr(abreast, name)
    finder = doctest.DocTestFinder(recurse=False)
    tests = finder.find(value, name, globs={})
    if inspect.isclass(value):
        for method_name, method in members(value):
            tests += finder.find(method, method_name, globs={})
    assert any(test.examples for test in tests)
    for test in tests:
        if test.examples:
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            lines: list[str] = []
            result = runner.run(test, out=lines.append)
            assert result.failed == 0, "".join(lines)


def test_importing_is_lazy():
    done = run_python("""
        import sys, abreast
        before = set(sys.modules)
        print(sorted(name for name in before if name.startswith(("abreast.", "concurrent"))))
        abreast.ThreadPoolExecutor
        print([name for name in ("asyncio", "multiprocessing", "rich", "sqlite3", "html", "dataclasses") if name in sys.modules])
        print("ThreadPoolExecutor" in vars(abreast))
        abreast.map(abs, [1], kind="thread")
        print([name for name in sys.modules if name.startswith(("multiprocessing", "abreast.executors.process", "pickle"))])
        abreast.ProcessPoolExecutor
        print([name for name in ("asyncio", "rich", "sqlite3", "html", "dataclasses", "cloudpickle") if name in sys.modules])
    """)
    assert done.stdout.split("\n")[:5] == ["[]", "[]", "True", "[]", "[]"], done


def test_import_works_where_modules_of_unix_are_missing():
    """Hidden here: fcntl, resource, and fork; as on Windows."""
    done = run_python("""
        import os, sys
        for name in ("fcntl", "resource", "grp", "pwd", "termios"):
            sys.modules[name] = None
        for name in ("fork", "register_at_fork", "sched_getaffinity"):
            if hasattr(os, name):
                delattr(os, name)
        import abreast
        with abreast.ThreadPoolExecutor(task_timeout=9) as executor:
            print(list(executor.map(abs, [-1])), executor._max_workers == min(32, os.cpu_count() + 4))
    """)
    assert done.stdout == "[1] True\n", done


def test_processes_say_where_they_run():
    """Not an error of importing: ``from abreast import *`` works on every platform."""
    done = run_python("""
        import sys, abreast
        for name in ("fcntl", "resource"):
            sys.modules[name] = None
        sys.platform = "darwin"
        for call in (abreast.ProcessPoolExecutor, lambda: abreast.map(abs, [-1], kind="process")):
            try:
                call()
            except NotImplementedError as error:
                print(error)
    """)
    assert done.stdout.splitlines() == [
        "ProcessPoolExecutor runs on Linux only so far; ThreadPoolExecutor runs everywhere",
        "kind='process' runs on Linux only so far; kind='thread' runs everywhere",
    ], done


def test_the_version_is_written_once():
    from importlib.metadata import version

    assert version("abreast") == abreast.__version__
    assert f'version = "{abreast.__version__}"' not in (ROOT / "pyproject.toml").read_text()

"""``MODULE:FUNCTION``: the user's function, and errors that say which half was wrong."""

from __future__ import annotations

import builtins
import difflib
import importlib
import inspect
import os
import re
import sys
import traceback
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from abreast.cli.errors import Refused
from abreast.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["described", "load_function", "name_of_function"]


def load_function(spec: str) -> Callable[[Any], Any]:
    """Import and return the function that ``MODULE:FUNCTION`` names; FUNCTION may have dots: ``json:JSONDecoder.decode``.

    The current directory is searched first, as ``python -m`` does.

    Raises:
        click.UsageError, Refused: this is not MODULE:FUNCTION, there is no such module or function, importing it fails, or it cannot be called on an input.
    """
    module_name, colon, path = spec.partition(":")
    if not colon or not module_name or not path:
        raise click.UsageError(f"{spec!r} is not MODULE:FUNCTION{_meant(spec)}")
    if module_name.endswith(".py") or "/" in module_name:
        stem = os.path.splitext(os.path.basename(module_name))[0]
        raise Refused(f"{module_name!r} is a file; its module is {stem!r}: say {stem}:{path}, in its directory")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    value: Any = _import(module_name)
    for index, name in enumerate(path.split(".")):
        try:
            value = getattr(value, name)
        except AttributeError:
            near = difflib.get_close_matches(name, dir(value), 1)
            owner = ".".join([module_name, *path.split(".")[:index]])
            raise Refused(f"{owner} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")) from None
    if not callable(value):
        raise Refused(f"{spec} cannot be called: it is {_kind(value)}")
    if inspect.iscoroutinefunction(value):
        raise Refused(f"{spec} is a coroutine function, which cannot be run on threads; give a plain function")
    return value  # type: ignore[no-any-return]  # callable, as has just been seen


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise Refused(f"there is no module {missing!r}, here or installed{_near_module(missing)}") from None
        raise Refused(f"importing {name} failed: {described(error)}") from error
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise Refused(f"importing {name} failed: {described(error)}") from error


def _near_module(name: str) -> str:
    if "." in name or len(name) < 3:
        return ""
    files = [entry.removesuffix(".py") for entry in os.listdir() if entry.endswith(".py")]
    near = difflib.get_close_matches(name, [*files, *sys.stdlib_module_names], 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _meant(spec: str) -> str:
    if ":" not in spec:
        module, _, name = spec.rpartition(".")
        if module:
            return f"; did you mean {module}:{name}?"
        if hasattr(builtins, spec):
            return f"; did you mean builtins:{spec}?"
        try:
            if find_spec(spec) is not None:
                return f"; which function of {spec}?"
        except (ImportError, ValueError):
            pass
    return ", such as os.path:getsize"


def _kind(value: object) -> str:
    return "a module" if inspect.ismodule(value) else f"of type {type(value).__name__}"


def described(error: BaseException) -> str:
    """Return an error in one line: its class, its text, and the last place of the user's where it was raised."""
    try:
        text = printable(" ".join(str(error).partition(_STACK)[0].split()))
    except Exception:  # its own __str__ fails
        text = ""
    name = type(error).__qualname__
    described = f"{name}: {text}" if text else name
    ours = os.path.dirname(os.path.dirname(__file__)) + os.sep
    places = [
        (file, line)
        for file, line in _places(error)
        if not file.startswith((ours, "<")) and os.path.basename(os.path.dirname(file)) != "importlib"
    ]
    return f"{described} ({os.path.basename(places[-1][0])}, line {places[-1][1]})" if places else described


_STACK = "; it was here:\n"
"""What stands in our errors before the stack of a task that was ended, or that has ended its process: that has many lines."""
_PLACE = re.compile(r'^[ |]*File "(.+?)", line (\d+)', re.MULTILINE)


def _places(error: BaseException) -> list[tuple[str, int | None]]:
    """Return file and line of each frame that an error has gone through, or that its task was in; the last one last."""
    stack = getattr(error, "stack", None)
    if isinstance(stack, str) and stack:
        if "(most recent call first)" in stack:  # faulthandler's, of a process; it shows all threads
            places = _PLACE.findall(stack.partition("Current thread ")[2].partition("\n\n")[0])[::-1]
        else:
            places = _PLACE.findall(stack)
    elif error.__traceback__ is not None:
        return [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    else:
        places = _PLACE.findall(getattr(error.__cause__, "tb", ""))  # from another process: its traceback is text
    return [(file, int(line)) for file, line in places]


def name_of_function(spec: str) -> str:
    """Return what the tasks are called: FUNCTION without what stands before it."""
    return spec.rpartition(":")[2]

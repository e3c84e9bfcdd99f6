"""Which part of a value cannot be pickled: finds the smallest one and says where it is. Imported when something could not be sent."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import types
from reprlib import repr as short
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Parts = list[tuple[str, Any]]

__all__ = ["find", "largest"]

TIME = 0.5
"""Seconds that the search may take, about; what it has found by then is told."""
DEPTH = 30


class _OutOfTime(Exception):
    pass


def find(parts: Parts, attempt: Callable[[Any], str]) -> tuple[str, str]:
    """Return the place of the part that is to blame, as ``args[0].conn (socket)``, and why; empty if the search leads nowhere.

    Args:
        parts: what was to be sent, each with what to call it.
        attempt: pickles a value and returns why that failed, or an empty string. A text and not the error: that would hold, by its
            traceback, the frames of this search, and by them all that it has looked at.
    """
    search = _Search(attempt)
    with contextlib.suppress(Exception):  # time is up, or an object does strange things: what has been found so far is told
        search.descend(parts, 0)
    return search.place, search.why


class _Search:
    def __init__(self, attempt: Callable[[Any], str]) -> None:
        self.attempt = attempt
        self.until = perf_counter() + TIME
        self.place = self.why = ""
        self.seen: set[int] = set()

    def descend(self, parts: Parts, depth: int) -> bool:
        """Find a part that fails and has no part that fails; False if there is none."""
        for label, value in self.failing(parts):
            if id(value) in self.seen:  # a circle: it leads back to where we came from
                continue
            self.seen.add(id(value))
            why = self.fails(value)
            if not why:  # only together with others
                continue
            self.place, self.why = f"{label} ({type(value).__name__})", why
            try:
                inner = _parts_of(value, label) if depth < DEPTH else []
            except Exception:  # it does not let itself be taken apart: that is why
                return True
            if not any(True for _ in self.failing(inner)) or self.descend(inner, depth + 1):
                return True
        return False

    def fails(self, value: Any) -> str:
        if perf_counter() > self.until:
            raise _OutOfTime
        return self.attempt(value)

    def failing(self, parts: Parts, known: bool = False) -> Iterator[tuple[str, Any]]:
        """Yield the parts that fail, by halving: a list of a million is pickled twice, not one by one. `known`: some do."""
        if not parts or not (known or self.fails([value for _, value in parts])):
            return
        if len(parts) == 1:
            yield parts[0]
            return
        left, right = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        count = 0
        for part in self.failing(left):
            count += 1
            yield part
        yield from self.failing(right, known=not count)


def largest(fn: Any, name: str, size: Callable[[Any], int]) -> str:
    """Return what to call the largest thing that a function drags along; empty if it is not to be found."""
    found, most = "", 0
    try:
        for label, value in _parts_of(fn, name):
            try:
                took = size(value)
            except Exception:  # noqa: S112  # alone it cannot be pickled: it is not the one
                continue
            if took > most:
                found, most = f"{label} ({type(value).__name__})", took
    except Exception:  # it does not let itself be taken apart
        return ""
    return found


def _parts_of(value: Any, label: str) -> Parts:
    """Return what is pickled for a value, each part with what to call it."""
    if isinstance(value, types.FunctionType):
        return list(_of_function(value, label))
    if isinstance(value, types.MethodType):
        return [(f"{label}.__self__", value.__self__), (f"{label}.__func__", value.__func__)]
    if isinstance(value, types.BuiltinMethodType) and not isinstance(value.__self__, types.ModuleType):
        return [(f"{label}.__self__", value.__self__)]
    if isinstance(value, functools.partial):
        parts = [(f"{label}.func", value.func)]
        parts += [(f"{label}.args[{n}]", part) for n, part in enumerate(value.args)]
        return parts + [(f"{label}.keywords[{name!r}]", part) for name, part in value.keywords.items()]
    if isinstance(value, type):
        return [(f"{label}.{name}", part) for name, part in vars(value).items() if name not in ("__dict__", "__weakref__")]
    if isinstance(value, staticmethod | classmethod):
        return [(label, value.__func__)]
    if type(value) in (tuple, list):
        return [(f"{label}[{n}]", part) for n, part in enumerate(value)]
    if type(value) is dict:
        parts = [(f"a key of {label}, {short(key)}", key) for key in value]
        return parts + [(f"{label}[{short(key)}]", part) for key, part in value.items()]
    if type(value) in (set, frozenset):
        return [(f"an element of {label}, {short(part)}", part) for part in value]
    return list(_of_object(value, label))


def _of_function(fn: types.FunctionType, label: str) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield f"the variable {name!r} of {label}", cell.cell_contents
        except ValueError:  # empty
            continue
    for name in dict.fromkeys(_names_in(fn.__code__)):
        if name in fn.__globals__:
            yield f"the global {name!r} of {label}", fn.__globals__[name]
    for n, default in enumerate(fn.__defaults__ or ()):
        yield f"{label}.__defaults__[{n}]", default
    for name, default in (fn.__kwdefaults__ or {}).items():
        yield f"{label}.__kwdefaults__[{name!r}]", default
    for name, value in fn.__dict__.items():
        yield f"{label}.{name}", value


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _of_object(value: Any, label: str) -> Iterator[tuple[str, Any]]:
    """As pickle sees it: what `__reduce_ex__` returns, not what the object has."""
    reducer = copyreg.dispatch_table.get(type(value))
    reduced: Any = reducer(value) if reducer else value.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if getattr(make, "__name__", "") in ("__newobj__", "__newobj_ex__"):
        make, args = args[0], args[1:]
    if isinstance(value, tuple):
        args = tuple.__iter__(value)
    for n, arg in enumerate(args):
        name = f"{label}.args[{n}]" if isinstance(value, BaseException) else f"{label}[{n}]" if isinstance(value, tuple) else None
        yield name or f"argument {n} of {getattr(make, '__name__', make)}() that makes {label}", arg
    states = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    if all(isinstance(part, dict) or part is None for part in states):
        for part in states:
            for name, attribute in (part or {}).items():
                yield f"{label}.{name}", attribute
    elif state is not None:
        yield f"{label}.__getstate__()", state
    for n, item in enumerate(items or ()):
        yield f"{label}[{n}]", item
    for key, item in pairs or ():
        yield f"{label}[{short(key)}]", item

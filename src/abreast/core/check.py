"""Checks of arguments: a wrong one fails at the call, with an error that names the argument and the value."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from reprlib import repr as short
from typing import Any

__all__ = [
    "callable_or_none",
    "count",
    "count_from_zero",
    "count_or_none",
    "function",
    "initargs_tuple",
    "module_names",
    "no_coroutine_function",
    "number",
    "seconds_or_none",
    "text_or_none",
]


def count(name: str, value: object, *, default: str = "", text: str = "") -> int:
    """Return `value` as an integer of at least 1, or raise TypeError or ValueError.

    A bool is refused although it is an int: ``max_workers=True`` is a mistake. So is 2.0; what has ``__index__`` (numpy's
    integers) is taken. `default` is the text of what else the argument may be; `text` opens the error of a number below 1
    where the standard library has a text of its own.
    """
    number = _integer(name, value, default)
    if number <= 0:
        raise ValueError(f"{text or f'{name} must be greater than 0'}, not {number}")
    return number


def count_from_zero(name: str, value: object, *, default: str = "") -> int:
    """As `count`, of at least 0."""
    number = _integer(name, value, default)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, not {number}")
    return number


def _integer(name: str, value: object, default: str) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer{default}, not {value!r}")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that it may lack __index__ is what is asked here
    except TypeError:
        raise TypeError(f"{name} must be an integer{default}, not {short(value)} ({type(value).__name__})") from None


def count_or_none(name: str, value: object, *, text: str = "") -> int | None:
    """As `count`, but None is allowed and returned."""
    return None if value is None else count(name, value, default=" or None", text=text)


def seconds_or_none(name: str, value: object) -> float | None:
    """Return `value` as a float above 0 (seconds), or None; else raise TypeError or ValueError."""
    if value is None:
        return None
    seconds = number(name, value, "a number of seconds or None")
    if not seconds > 0:  # also refuses nan
        raise ValueError(f"{name} must be greater than 0 seconds, not {seconds:g}")
    return seconds


def number(name: str, value: Any, what: str) -> float:
    """Return `value` as a float, or raise a TypeError that says `what` it must be; a bool or a text is none."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be {what}, not {short(value)} ({type(value).__name__})")
    return float(value)


def function(name: str, value: object) -> None:
    """Raise TypeError unless `value` can be called."""
    if not callable(value):
        hint = ""
        if inspect.iscoroutine(value):
            hint = ": a coroutine, which only an event loop can run"
        elif name in ("fn", "target"):
            hint = "; give the function itself and its arguments, as fn, 3, not what fn(3) returns"
        raise TypeError(f"{name} must be callable, not {short(value)} ({type(value).__name__}){hint}")


def no_coroutine_function(name: str, value: Any, who: str) -> None:
    """Raise TypeError if calling `value` gives something to await; `who` cannot do that."""
    for called in (value, getattr(value, "__call__", None)):  # noqa: B004  # not whether it can be called: what is
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            raise TypeError(
                f"{name} must not be a coroutine function ({getattr(value, '__qualname__', None) or short(value)}): {who} cannot await what it "
                "returns; give a plain function, or run coroutines in an event loop, with asyncio.gather or asyncio.TaskGroup"
            )


def callable_or_none(name: str, value: Callable[..., object] | None) -> None:
    """Raise TypeError unless `value` can be called or is None."""
    if value is not None:
        function(name, value)


def text_or_none(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a string or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {short(value)} ({type(value).__name__})")


def initargs_tuple(name: str, value: Iterable[object]) -> tuple[object, ...]:
    """Return `value` as a tuple of arguments; a string, the classic slip for ``("text",)``, is a TypeError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a tuple of arguments, not {short(value)} ({type(value).__name__})")
    return tuple(value)


def module_names(name: str, value: object) -> tuple[str, ...]:
    """Return names of modules as a tuple, or raise TypeError or ValueError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of names of modules, not {short(value)} ({type(value).__name__})")
    for one in value:
        if not isinstance(one, str):
            raise TypeError(f"{name} must be a list of names of modules; {short(one)} is of type {type(one).__name__}")
        if not all(part.isidentifier() for part in one.split(".")):
            raise ValueError(f"{name} must be a list of names of modules, as 'package.module'; {one!r} is none")
    return tuple(value)

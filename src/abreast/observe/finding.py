"""Finds observers by name: each is a file of this package that has `open_observer`. A new one is one new file.

An observer has a method ``attempts(log, some)``, which is called for tasks as they end, in whatever thread that is (core/watch.py: `Attempts`), and may have
``span(row, begin, end, state, what)``, ``over(log)`` and ``close()``. One that follows tasks on their way, to set context variables where they run, has ``origin``, ``begin``
and ``carry`` besides (there: `Follower`).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

import abreast.observe

__all__ = ["find", "names"]

_OTHERS = {"finding", "progress", "recorder"}


def names() -> list[str]:
    """Return the names of all observers."""
    return sorted(module.name for module in pkgutil.iter_modules(abreast.observe.__path__) if module.name not in _OTHERS)


def find(name: str) -> Any:
    """Return a new observer.

    Raises:
        ValueError: there is none of that name.
        ImportError: it needs a library that is not installed; the text says which.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
        raise ValueError(f"there is no observer {name!r}{hint}")
    return importlib.import_module(f"abreast.observe.{name}").open_observer()

"""The global variables of the main script, in a worker that does not have it.

A function that goes by value (by_value.py) brings along the globals that it uses, as they are in the parent; each has a namespace of its own
here. What it *assigns* must be seen by the others all the same, above all what an initializer assigns::

    def init(path):              def predict(x):
        global model                 return model(x)      # arrives with the parent's `model`, which is None, or missing
        model = load(path)

So: what code in this worker has assigned to a global of the main script is, from then on, what all its functions here have under that name.
Changes are looked for when a function arrives and after each task, in the namespaces of functions that assign at all; others cost nothing.
"""

from __future__ import annotations

import weakref
from types import CodeType
from typing import TYPE_CHECKING, Any

from abreast.executors.process import here

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["arrived", "watch_main"]

_MISSING = object()
_functions: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
"""All of the main script that are here."""
_watched: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
"""By identity: namespaces of functions that assign, and what was last seen there under the names that they assign."""
_assigned: dict[str, Any] = {}
"""What code in this worker has assigned."""
_assigned_by: weakref.WeakKeyDictionary[CodeType, frozenset[str]] = weakref.WeakKeyDictionary()


def arrived(fn: Any) -> None:
    """A function of the main script has been unpickled, with its globals."""
    look()
    namespace = fn.__globals__
    _functions.add(fn)
    for name in _names_of(fn.__code__):
        if name in _assigned:
            namespace[name] = _assigned[name]
    names = _assigned_in(fn.__code__)
    if names:
        _, seen = _watched.setdefault(id(namespace), (namespace, {}))  # it is held, so the number stays its own
        for name in names:
            seen[name] = namespace.get(name, _MISSING)
        here.after_task = look


def watch_main(namespace: dict[str, Any]) -> None:
    """In a copy of the parent: what is assigned in the main script that it has is to be seen by functions that arrive."""
    _watched[id(namespace)] = namespace, _All(namespace)


class _All(dict[str, Any]):
    """What was seen of a whole namespace."""


def look() -> None:
    """Note what has been assigned, and have all functions see it."""
    for namespace, seen in list(_watched.values()):
        for name in list(namespace if type(seen) is _All else seen):
            value = namespace.get(name, _MISSING)
            if value is not seen.get(name, _MISSING) and value is not _MISSING:
                seen[name] = _assigned[name] = value
                for fn in list(_functions):
                    if name in fn.__globals__:
                        fn.__globals__[name] = value
                for other, known in list(_watched.values()):
                    if other is not namespace and name in known:
                        other[name] = known[name] = value


def _names_of(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_of(constant)
    return names


def _assigned_in(code: CodeType) -> frozenset[str]:
    """Return the names of globals that some code assigns, or code inside it."""
    known = _assigned_by.get(code)
    if known is None:
        import dis

        names = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_GLOBAL"}
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                names |= _assigned_in(constant)
        known = _assigned_by[code] = frozenset(names)
    return known

"""Doing something when a module is imported, and not before: a worker should not import what its tasks may never need.

A finder stands first in `sys.meta_path`. It knows a few names; when one of them is imported it lets the others find the module,
and has the module's own loader followed by what is to be done. Then it forgets the name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["after_import"]


def after_import(name: str, do: Callable[[], object]) -> None:
    """Call `do` when the module `name` has been imported: now, if it has been already."""
    if name in sys.modules:
        do()
        return
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.known[name] = do


class _Finder:
    """See importlib.abc.MetaPathFinder; not imported, since that is 2 ms."""

    def __init__(self) -> None:
        self.known: dict[str, Callable[[], object]] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        do = self.known.pop(name, None)
        if do is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.loader is not None:
                    _follow(spec.loader, do)
                return spec
        return None


def _follow(loader: object, do: Callable[[], object]) -> None:
    """Have `do` called after the loader has executed its module; a loader is made for one import."""
    execute = loader.exec_module  # type: ignore[attr-defined]  # every loader has it, by now

    def exec_module(module: ModuleType) -> None:
        execute(module)
        do()

    loader.exec_module = exec_module  # type: ignore[attr-defined]  # shadows the method, of this one loader

"""What is in the directories in which workers will look for modules: listed by the guardian once, not by each worker at its first import.

Python's finders look at a directory's time of change at each import, and list it again if that is another one. But two changes within one tick of the
file system's clock leave the same time: what was put there just before the listing may have a sibling that was put there just behind it. So a listing
counts only of a directory that had not been changed for `SETTLED` seconds when it was made (as git does with its index: "racy git"); of
any other, each worker makes its own.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.machinery import FileFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["look_into"]

SETTLED = 3.0
"""Seconds; the coarsest clock of a file system, that of FAT, has ticks of 2."""
NOBODY = "abreast no module"


_sure: dict[str, tuple[tuple[int, int], FileFinder]] = {}
"""Those whose listings count, and which directory that was: a link may lead to another one by now, of the same time (all of a reproducible image have one)."""


def look_into(paths: Sequence[str]) -> None:
    """Have Python know what is in these directories, and of no other one."""
    sys.path_importer_cache.clear()  # what was found elsewhere, or not found, may be different by now
    # Not what depends on the working directory.
    found = {path: known for path in paths if os.path.isabs(path) and (known := _look(path)) is not None}
    _sure.clear()
    _sure.update(found)
    for path, (_, finder) in found.items():
        sys.path_importer_cache[path] = finder


def _look(path: str) -> tuple[tuple[int, int], FileFinder] | None:
    try:
        told = os.stat(path)
        if abs(time.time() - told.st_mtime) < SETTLED:
            return None
        which = told.st_dev, told.st_ino
        known = _sure.get(path)
        finder = known[1] if known is not None and known[0] == which else _finder(path)
        if finder is None:
            return None
        finder.find_spec(NOBODY)  # lists it, if that has not been done, or it has been changed since
    except OSError:  # it is not there yet, or no more
        return None
    return which, finder


def _finder(path: str) -> FileFinder | None:
    """Return what Python would ask for modules of this directory; None if that is not its own."""
    for hook in sys.path_hooks:
        try:
            finder = hook(path)
        except ImportError:
            continue
        return finder if type(finder) is FileFinder else None
    return None

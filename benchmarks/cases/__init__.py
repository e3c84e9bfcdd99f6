"""One file for each subject. A new benchmark is a new file here, with a function `cases(*, quick)`; nothing else names it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.case import Case


def find(*, quick: bool) -> list[Case]:
    """Return the cases of all files; with `quick`, small ones that only show that they work."""
    found: list[Case] = []
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        found += importlib.import_module(f"{__name__}.{name}").cases(quick=quick)
    return found

"""What a case is made of. A file in cases/ has a function `cases(*, quick)` that returns some of these."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ABREAST = "abreast"
STANDARD = "standard library"


@dataclass(frozen=True)
class Contender:
    """One way to do the work. `run` does one round, start to end, and returns the figure in the unit of the case."""

    run: Callable[[], float]
    package: str | None = None  # as it is installed with pip; None: the standard library, or abreast itself
    module: str | None = None  # as it is imported
    note: str = ""  # what a reader must know to compare it

    @property
    def installed(self) -> bool:
        return self.module is None or importlib.util.find_spec(self.module) is not None


@dataclass(frozen=True)
class Case:
    """One comparison. Figures are better the smaller they are."""

    name: str
    description: str
    unit: str
    contenders: Mapping[str, Contender]  # in the order of the table
    reference: str  # the contender that the ratios are against
    goal: str
    reached: Callable[[Mapping[str, float]], bool]  # from the medians by contender
    rounds: int
    warm_ups: int = 0  # rounds that are not counted
    unavailable: str = ""  # why it cannot be measured here; empty if it can


def peer(module: str) -> Any:
    """Import a peer when its round begins: it may be missing, and most have no types."""
    return importlib.import_module(module)

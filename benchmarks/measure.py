"""Measure one case: in each round every contender once, so that what the machine does meanwhile strikes them all alike."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass, field
from random import Random
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.case import Case


@dataclass
class Result:
    """All figures of a case, and what is computed from them."""

    case: Case
    rounds: int
    figures: dict[str, list[float]] = field(default_factory=dict)  # by contender, in the order of the rounds
    skipped: dict[str, str] = field(default_factory=dict)  # by contender, why
    failed: dict[str, str] = field(default_factory=dict)  # by contender, what it raised

    def median(self, name: str) -> float:
        return median(self.figures[name])

    def quartiles(self, name: str) -> tuple[float, float]:
        figures = self.figures[name]
        if len(figures) == 1:
            return figures[0], figures[0]
        lower, _, upper = quantiles(figures, n=4, method="inclusive")
        return lower, upper

    def ratio(self, name: str) -> float | None:
        """Return the median in medians of the reference; None without a reference."""
        if self.case.reference not in self.figures:
            return None
        return self.median(name) / self.median(self.case.reference)

    def paired_ratio(self, name: str) -> float | None:
        """Return the median of the ratios within each round: a slow minute of the machine is in both halves of a ratio."""
        if self.case.reference not in self.figures:
            return None
        return median(own / other for own, other in zip(self.figures[name], self.figures[self.case.reference], strict=True))

    def reached(self) -> bool | None:
        """Return whether the goal is reached; None if a contender that it is about is missing."""
        try:
            return self.case.reached({name: self.median(name) for name in self.figures})
        except KeyError:
            return None


def measure(case: Case, *, rounds: int) -> Result:
    result = Result(case, rounds)
    for name, contender in case.contenders.items():
        if case.unavailable:
            result.skipped[name] = case.unavailable
        elif not contender.installed:
            result.skipped[name] = "not installed"
        else:
            result.figures[name] = []
    for number in range(-case.warm_ups, rounds):
        names = list(result.figures)
        if not names:
            break
        progress(f"{case.name}: round {max(number + 1, 0)} of {rounds}")
        for name in order(names, number):
            gc.collect()
            try:
                figure = case.contenders[name].run()
            except Exception as error:  # a peer that breaks on this Python is named, and the others go on
                result.failed[name] = f"{type(error).__name__}: {error}"
                del result.figures[name]
            else:
                if number >= 0:
                    result.figures[name].append(figure)
    progress("")
    return result


def order(names: list[str], number: int) -> list[str]:
    """Return the names as they take their turns in this round: rotated, and each after each other equally often.

    Whom one follows changes on which cores the kernel puts its threads, and so what it costs, up to eightfold (ping_pong). Were
    the order only rotated, each would follow the same one for good. This is a Williams design, over names that are shuffled
    anew each time it is through: it is not balanced where one round meets the next.
    """
    size = len(names)
    shuffled = Random(number // size).sample(names, size)  # the same in every run
    zigzag = [(n + 1) // 2 if n % 2 else -(n // 2) for n in range(size)]  # 0, 1, -1, 2, -2: each step differs from the others
    return [shuffled[(place + number) % size] for place in zigzag]


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

"""Nanoseconds as a person reads them: ``350 µs``, ``12.5 ms``, ``1.50 s``, ``12.5 min``, ``3.2 h``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Unit", "about", "count", "duration", "percent", "percents", "precise", "unit_for"]

_UNITS = (
    ("µs", 1e3, 1e6),
    ("ms", 1e6, 1e8),
    ("s", 1e9, 6e11),
    ("min", 6e10, 7.2e12),
    ("h", 3.6e12, float("inf")),
)  # the third: up to where


class Unit(NamedTuple):
    """One unit and its digits, for numbers that are compared: those of a table, of a sum."""

    name: str
    nanoseconds: float
    digits: int

    def text(self, nanoseconds: float) -> str:
        """Return a duration in this unit, which is named: ``1.50 s``."""
        return f"{max(0.0, nanoseconds) / self.nanoseconds:.{self.digits}f} {self.name}"

    def number(self, nanoseconds: float) -> str:
        """Return it without the unit's name: ``1.50``."""
        return f"{max(0.0, nanoseconds) / self.nanoseconds:.{self.digits}f}"


def unit_for(nanoseconds: float) -> Unit:
    """Return the unit in which a duration, and those it is the sum of, read best."""
    name, size = next((name, size) for name, size, until in _UNITS if nanoseconds < until)
    digits = 2 if nanoseconds < 100 * size else 1
    return Unit(name, size, digits - (name == "µs"))


def duration(nanoseconds: float) -> str:
    """Return one duration, in the unit that fits it: ``1.50 s``."""
    return unit_for(nanoseconds).text(nanoseconds)


def precise(nanoseconds: float) -> str:
    """Return one duration with a digit more, where many are nearly as long: ``0.500 s``."""
    unit = unit_for(nanoseconds)
    return (unit._replace(digits=3) if unit.name == "s" and unit.digits == 2 else unit).text(nanoseconds)


def about(nanoseconds: float) -> str:
    """Return an estimate, which has two digits at most: ``0.5 s``, ``12 s``, ``350 µs``."""
    unit = unit_for(nanoseconds)
    number = float(f"{max(0.0, nanoseconds) / unit.nanoseconds:.1e}")
    return f"{number:.0f} {unit.name}" if number >= 10 else f"{number:g} {unit.name}"


def count(number: int, one: str, many: str = "") -> str:
    """Return how many of what: ``1 task``, ``200,000 tasks``; `many` if that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percents(parts: list[int]) -> list[int]:
    """Return how many hundredths of their sum each is. They add up to 100, or are all 0.

    Each is rounded down, and what is missing goes to those that lost most.
    """
    total = sum(parts)
    if total <= 0:
        return [0] * len(parts)
    shares = [100 * part // total for part in parts]
    by_loss = sorted(range(len(parts)), key=lambda i: (-(100 * parts[i] % total), i))
    for i in by_loss[: 100 - sum(shares)]:
        shares[i] += 1
    return shares


def percent(share: float) -> str:
    """Return a share, 0 to 1, as ``64 %``; 100 % is not said of less than 99.5."""
    whole = round(100 * share)
    if whole >= 100 and share < 0.995:
        whole = 99
    return f"{whole} %"

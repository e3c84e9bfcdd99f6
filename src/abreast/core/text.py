"""Texts that are shown, as a person reads them, and a terminal does not obey them: names, calls, errors, times."""

from __future__ import annotations

from reprlib import repr as short

__all__ = ["duration", "printable", "shown"]


def printable(text: str) -> str:
    r"""Return `text` with what a terminal would obey (escape codes, line ends, marks of direction) written as ``\x1b``."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(value: object) -> str:
    """Return a value of the user's as a short text; its ``__repr__`` may raise, which must hide nothing."""
    try:
        return short(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"


def duration(seconds: float) -> str:
    """Return a time with three digits in the unit that suits it: ``35.1 us``, ``1.20 ms``, ``4.50 s``, ``1800 s``."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"

"""Texts of the user's that are shown: names, calls, errors."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return `text` with what a terminal would obey (escape codes, line ends, marks of direction) written as ``\x1b``."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)

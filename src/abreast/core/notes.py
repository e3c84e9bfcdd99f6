"""Notes on errors of tasks: which task it was."""

from __future__ import annotations

from contextlib import suppress

__all__ = ["note"]

_MOST = 3  # runs in runs each add their own


def note(error: BaseException, text: str) -> None:
    """Add a note that begins with ``abreast: raised by``, unless the error has three of them, or refuses it."""
    with suppress(Exception):  # an exception class of the user's may forbid it; its error is worth more than our note
        # One object may be the error of many tasks: a constant that is raised, or what broke an executor.
        if sum(str(other).startswith("abreast: raised by") for other in getattr(error, "__notes__", ())) < _MOST:
            error.add_note(text)

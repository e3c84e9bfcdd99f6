"""The note on a task's error: which task it was."""

from __future__ import annotations

from contextlib import suppress

from abreast.core.text import shown

__all__ = ["add_note"]

_MOST = 3  # runs in runs each add their own


def add_note(
    error: BaseException, *, name: str, index: int, given: object, star: bool, worker: str, further: int, attempt: int = 1
) -> None:
    """Tell with the error, whose type stays, function, index, input, attempt and worker, and how many tasks failed besides."""
    call = f"{name}({', '.join(map(shown, given)) if star and isinstance(given, tuple) else shown(given)})"
    note = f"abreast: raised by {call}: input {index}, attempt {attempt}{f', on {worker}' if worker else ''}"
    if further > 0:
        note += f"; {further:,} further task{'s' * (further > 1)} failed"
    # One object may be the error of many tasks: a constant that is raised, or what broke an executor.
    if sum(str(other).startswith("abreast: raised by") for other in getattr(error, "__notes__", ())) >= _MOST:
        return
    with suppress(Exception):  # an exception class of the user's may forbid it; its error is worth more than our note
        error.add_note(note)

"""The note on a task's error: which task it was."""

from __future__ import annotations

from reprlib import repr as short

from abreast.core import notes as core_notes

__all__ = ["add_note"]


def add_note(
    error: BaseException, *, name: str, index: int, given: object, star: bool, worker: str, further: int, attempt: int = 1
) -> None:
    """Tell with the error, whose type stays, function, index, input, attempt and worker, and how many tasks failed besides."""
    call = f"{name}({', '.join(map(_shown, given)) if star and isinstance(given, tuple) else _shown(given)})"
    note = f"abreast: raised by {call}: input {index}, attempt {attempt}{f', on {worker}' if worker else ''}"
    if further > 0:
        note += f"; {further:,} further task{'s' * (further > 1)} failed"
    core_notes.note(error, note)


def _shown(value: object) -> str:
    try:
        return short(value)
    except Exception as error:  # a __repr__ that raises must not hide the task's error
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"

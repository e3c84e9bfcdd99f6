"""The note on a task's error: which task it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abreast.core.text import shown

if TYPE_CHECKING:
    from abreast.executors.batch import Batch

from abreast.core import notes as core_notes

__all__ = ["add_note"]


def add_note(error: BaseException, batch: Batch, place: int, *, further: int = 0) -> None:
    """Tell with the error, whose type stays, function, index, input, attempt and worker, and how many tasks failed besides.

    Args:
        batch, place: which task it was.
        further: how many others failed.
    """
    work, index, given = batch.work, batch.start + place, batch.items[place]
    call = f"{work.name}({', '.join(map(shown, given)) if work.star and isinstance(given, tuple) else shown(given)})"
    note = f"abreast: raised by {call}: input {index}, attempt {batch.attempts_at(index)}{f', on {batch.worker}' if batch.worker else ''}"
    if further > 0:
        note += f"; {further:,} further task{'s' * (further > 1)} failed"
    core_notes.note(error, note)

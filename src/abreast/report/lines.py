"""The line of cells that shows what one worker did: ``▏1░░░░░░✗▏4░░░░▒▒··``.

A task of three cells and more is a bar: an edge, its number, and its main state. Shorter ones share cells, of which each shows the main state of its time, or
idle. Where a cell is a mixture, what it did not show counts for the next: a worker that is busy for 40 % of the time has 40 % of its cells filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from abreast.core.states import CANCELLED, COMPUTING, CPU, CRASHED, FAILED, GIL, IDLE, LOCK, RETRIED, STATES, TIMEOUT, WAITING

if TYPE_CHECKING:
    from abreast.core.recording import Attempt

__all__ = ["MARKS", "NOT_KEPT", "RUNNING", "Cell", "cells", "colour", "glyph", "main_state", "meaning"]

RUNNING = len(STATES)
"""A state more: at work, and nobody knows whether it computed or waited."""
NOT_KEPT = RUNNING + 1
"""And another: nothing was kept of that time."""

MARKS = {FAILED: "✗", TIMEOUT: "✗", CRASHED: "✗", RETRIED: "↻", CANCELLED: "⊘"}
"""How the bar of an attempt ends, by outcome."""

_CLEAR = 0.95  # of a cell: then it is shown as that, and nothing is carried over
_MEANINGS = {WAITING: "waiting (I/O, sleep)"}


class Cell(NamedTuple):
    """One character.

    Attributes:
        state: one of `STATES` by place, `RUNNING` or `NOT_KEPT`.
        text: the character.
    """

    state: int
    text: str


def glyph(state: int) -> str:
    """Return the character of a state."""
    return "▓" if state == RUNNING else " " if state == NOT_KEPT else STATES[state].glyph


def meaning(state: int) -> str:
    """Return what a legend says of a state."""
    return "at work (CPU time not known)" if state == RUNNING else _MEANINGS.get(state, STATES[state].name)


def colour(state: int) -> str:
    """Return the colour of a state, as rich and HTML have it; empty if it has none."""
    return STATES[state].colour if state < len(STATES) else ""


def main_state(attempt: Attempt) -> int:
    """Return in which state an attempt spent most of its time."""
    _, _, _, _, _, begin, end, _, _, cpu, runqueue, gil, lock, *_ = attempt
    left = end - begin
    state, most = (RUNNING, 0) if cpu is None else (COMPUTING, cpu)
    left -= most
    for other, part in ((CPU, runqueue), (LOCK, lock), (GIL, gil)):
        if part:
            left -= part
            if part > most:
                state, most = other, part
    return (RUNNING if cpu is None else WAITING) if left > most else state


def cells(attempts: list[Attempt], begin: int, end: int, width: int, *, idle: int = IDLE) -> list[Cell]:
    """Return the cells of one worker.

    Args:
        attempts: of one row, by begin.
        begin, end: the time that the line shows, nanoseconds.
        width: how many cells, at least 1.
        idle: the state of a cell without an attempt, `IDLE` or `NOT_KEPT`.
    """
    scale = width / (end - begin) if end > begin else 0.0
    amounts: list[dict[int, float]] = [{} for _ in range(width)]
    bars: list[tuple[int, int, int, int]] = []
    marks: list[tuple[int, str]] = []
    for attempt in attempts:
        start, stop = (attempt[5] - begin) * scale, (attempt[6] - begin) * scale
        if start < 0 or stop > width or stop < start:  # not with min and max: there may be 200,000
            start = min(max(start, 0.0), width)
            stop = min(max(stop, start), width)
        first, last = int(start), int(stop)
        if last >= width:
            first, last = min(first, width - 1), width - 1
        if attempt[7] and attempt[7] in MARKS:
            marks.append((max(first, min(round(stop), width) - 1), MARKS[attempt[7]]))
        state = main_state(attempt)
        if first == last:
            # One that took no time leaves a trace too.
            amount = amounts[first]
            amount[state] = amount.get(state, 0.0) + (stop - start or 1e-9)
        elif stop - start >= 3:
            bars.append((round(start), round(stop), state, attempt[1]))
        else:
            amounts[first][state] = amounts[first].get(state, 0.0) + first + 1 - start
            for cell in range(first + 1, last):
                amounts[cell][state] = amounts[cell].get(state, 0.0) + 1
            amounts[last][state] = amounts[last].get(state, 0.0) + stop - last
    line: list[Cell | None] = [None] * width
    for start_cell, stop_cell, state, number in bars:
        label = f"▏{number}"
        text = label if len(label) < stop_cell - start_cell else "▏"
        for cell in range(start_cell, stop_cell):
            line[cell] = Cell(state, text[cell - start_cell] if cell - start_cell < len(text) else glyph(state))
    _fill(line, amounts, idle)
    for cell, mark in marks:
        line[cell] = Cell((line[cell] or Cell(idle, "")).state, mark)
    return [cell or Cell(idle, glyph(idle)) for cell in line]


def _fill(line: list[Cell | None], amounts: list[dict[int, float]], idle: int) -> None:
    """Fill the cells that no bar has taken."""
    carried: dict[int, float] = {}
    for cell, amount in enumerate(amounts):
        if line[cell] is not None:
            carried = {}
            continue
        known = sum(amount.values())
        shares = {state: part / max(known, 1.0) for state, part in amount.items()}
        shares[idle] = max(0.0, 1 - known)
        state = max(shares, key=shares.__getitem__)
        if shares[state] >= _CLEAR:
            carried = {}
        else:
            for other, share in shares.items():
                carried[other] = carried.get(other, 0.0) + share
            state = max(carried, key=carried.__getitem__)
            carried[state] -= 1
        line[cell] = Cell(state, glyph(state))
    if any(amounts) and all(cell is not None and cell.state == idle for cell in line):
        # Short tasks, and far between: one trace, where the most was done.
        cell, amount = max(enumerate(amounts), key=lambda pair: sum(pair[1].values()))
        state = max(amount, key=amount.__getitem__)
        line[cell] = Cell(state, glyph(state))

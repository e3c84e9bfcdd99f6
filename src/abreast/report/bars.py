"""A small timeline as text: a row for each worker, and what it did when.

::

    T1  ▏░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  3.00 s
    T2  ▏░░░░░░░░░░                        1.00 s
        0 s                        3.00 s
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Span", "bars"]


class Span(NamedTuple):
    """A stretch of time that one worker was at one task."""

    row: str
    begin: float
    end: float
    label: str = ""


def bars(spans: list[Span], *, width: int = 60, ascii_only: bool = False) -> list[str]:
    """Return the lines of a timeline of spans, all of which are of waiting.

    Args:
        spans: what happened, in any order; times in seconds on one clock.
        width: characters a line may have, at least 30.
        ascii_only: whether to do without the characters ``▏`` and ``░``.
    """
    if not spans:
        return []
    edge, filled, more = ("|", ".", "~") if ascii_only else ("▏", "░", "…")
    first, last = min(span.begin for span in spans), max(span.end for span in spans)
    names = min(max(len(span.row) for span in spans), width - 2 - 10 - 10)
    room = width - names - 2 - 10
    scale = room / max(last - first, 1e-9)
    begins: dict[str, int] = {}  # in characters: rows that look as if they had begun together stand in the order of their names
    for span in sorted(spans):
        begins.setdefault(span.row, round((span.begin - first) * scale))
    rows = sorted(begins, key=lambda row: (begins[row], row))
    lines = []
    for row in rows:
        cells = [" "] * room
        mine = sorted(span for span in spans if span.row == row)
        for span in mine:
            begin = min(room - 1, round((span.begin - first) * scale))
            end = max(begin + 1, min(room, round((span.end - first) * scale)))
            text = (edge + span.label).ljust(end - begin, filled)[: end - begin]
            cells[begin:end] = text
        busy = sum(span.end - span.begin for span in mine)
        name = row if len(row) <= names else more + row[len(row) - names + 1 :]  # workers differ at the end
        lines.append(f"{name:<{names}}  {''.join(cells)} {busy:6.2f} s")
    total = f"{last - first:.2f} s"
    lines.append(f"{'':<{names}}  0 s{total:>{room - 3}}")
    return lines

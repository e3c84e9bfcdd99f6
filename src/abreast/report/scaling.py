"""A comparison as text: a table, a plot of the speed-up over the workers, what was wrong, and one sentence of advice.

::

    8x |                      .        T  threads
       |                .              P  processes
    4x |           .  T                S  one after another
       |     .  P                      .  the ideal: n workers are n times as fast
    2x |   . T                         *  several of them
       | T
    1x |S___________________________
        1    2       4        8  workers
"""

from __future__ import annotations

import textwrap
from math import ceil, floor, log2
from reprlib import repr as short
from typing import TYPE_CHECKING

from abreast.core.text import duration, printable
from abreast.report.verdict import verdict

if TYPE_CHECKING:
    from abreast.core.comparison import Contender, Measured

__all__ = ["bounds", "error_text", "headline", "lines", "plot", "problems", "seconds_range", "ticks"]

LOWEST = 0.25
"""The smallest speed-up that a picture shows; what is slower stands at its edge: the table has the figure."""

ROWS = 10  # of the plot, about


def lines(measured: Measured, *, width: int = 80, ascii_only: bool = False) -> list[str]:
    """Return the whole report, without line ends.

    Args:
        measured: what was measured.
        width: characters that a line may have, at least 60.
        ascii_only: whether to do without other characters.
    """
    told = _wrapped(headline(measured), width)
    told += ["", *_table(measured, width), ""]
    picture = plot(measured, width=width)
    if picture:
        told += [*picture, ""]
    for problem in problems(measured):
        told += _wrapped(problem, width, indent="! ")
    for remark in measured.remarks:
        told += _wrapped(remark, width)
    told += _wrapped(f"-> {verdict(measured)}" if ascii_only else f"→ {verdict(measured)}", width)
    return [line.encode("ascii", "backslashreplace").decode() for line in told] if ascii_only else told


def headline(measured: Measured) -> str:
    """What was measured, on what."""
    runs = "once each" if measured.rounds == 1 else f"{measured.rounds} rounds, interleaved"
    return (
        f"{printable(measured.name)} on {measured.inputs:,} input{'s' * (measured.inputs != 1)}, {runs}; "
        f"Python {measured.python} {'with the' if measured.gil else 'without a'} GIL, {measured.cores} core{'s' * (measured.cores != 1)}"
    )


def problems(measured: Measured) -> list[str]:
    """What was wrong with contenders: errors, and results that are not those of the serial run."""
    told = []
    if not measured.is_steady:
        told.append(
            f"The function does not give the same results twice: {_difference(measured.serial, measured.inputs)}. "
            "So nothing can be said of the results of the others."
        )
    for row in measured.rows:
        if row.error is not None:
            told.append(f"{_capital(row.label)}: {error_text(row.error)}")
        elif row.differences and measured.is_steady:
            told.append(
                f"{_capital(row.label)}: OTHER RESULTS than one after another, {_difference(row, measured.inputs)}. "
                "Do not use it before you know why."
            )
    unknown = max((row.incomparable for row in measured.rows), default=0)
    if unknown:
        told.append(
            f"{unknown:,} of {measured.inputs:,} results cannot be compared: they have no == of their own. equal= takes a function that can."
        )
    return told


def _difference(row: Contender, inputs: int) -> str:
    told = f"{row.differences:,} of {inputs:,} differ"
    if row.first_difference is not None:
        index, given, expected, got = row.first_difference
        told += f", the first for input {index} ({_shown(given)}): {_shown(got)} instead of {_shown(expected)}"
    return told


def _shown(value: object) -> str:
    try:
        return printable(short(value))
    except Exception as error:  # a __repr__ of the user's
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"


def error_text(error: BaseException) -> str:
    """Class, text and last note of an error, in one line."""
    try:
        text = printable(" ".join(str(error).split()))
    except Exception:  # its own __str__ fails
        text = ""
    text = text if len(text) <= 300 else text[:300] + "..."
    name = printable(type(error).__qualname__)
    notes = [printable(str(note).removeprefix("abreast: ")) for note in getattr(error, "__notes__", ())[-1:]]
    return "; ".join([f"{name}: {text}" if text else name, *notes])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False)


def seconds_range(row: Contender) -> str:
    """The fastest and the slowest round: ``4.50 - 4.62 s``; nothing if there is one only."""
    if len(row.seconds) < 2:
        return ""
    fastest, slowest = duration(min(row.seconds)), duration(max(row.seconds))
    number, unit = fastest.split()
    return f"{number if slowest.endswith(f' {unit}') else fastest} - {slowest}"


def _table(measured: Measured, width: int) -> list[str]:
    head = ("kind", "workers", "median", "range", "speed-up", "of ideal", "start-up")
    rows: list[tuple[str, ...]] = [head]
    marks = [""]
    for row in measured.rows:
        if row.median is None or row.speed_up is None or row.efficiency is None:
            name = printable(type(row.error).__name__)[:24] if row.error is not None else "not run"
            rows.append((row.kind, str(row.max_workers), "failed", name, "", "", ""))
        else:
            start = "" if row.start_up is None else duration(row.start_up)
            share = "" if row.kind == "serial" else f"{row.efficiency:.0%}"
            rows.append(
                (row.kind, str(row.max_workers), duration(row.median), seconds_range(row), f"{row.speed_up:.2f}x", share, start)
            )
        marks.append(_mark(measured, row))
    told: list[str] = []
    for left_out in ((), ("start-up",), ("start-up", "range"), ("start-up", "range", "of ideal")):
        columns = [column for column, name in enumerate(head) if name not in left_out]
        told = _aligned(rows, marks, columns)
        if max(map(len, told)) <= width:
            break
    return [line[:width] for line in told]


def _aligned(rows: list[tuple[str, ...]], marks: list[str], columns: list[int]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in columns]
    told = []
    for row, mark in zip(rows, marks, strict=True):
        cells = [
            row[column].ljust(size) if column in (0, 3) else row[column].rjust(size)
            for column, size in zip(columns, widths, strict=True)
        ]
        told.append(f"{'  '.join(cells)}  {mark}".rstrip())
    return told


def _mark(measured: Measured, row: Contender) -> str:
    if row.differences:
        return "DIFFERS"
    return "best" if row is measured.best and len(measured.rows) > 1 else ""


def bounds(measured: Measured) -> tuple[int, float, float]:
    """What a picture has to hold: the most workers, and from which to which speed-up, powers of two."""
    shown = [row for row in measured.rows if row.speed_up is not None]
    most = max([2, *(row.max_workers for row in shown)])
    speeds = [max(LOWEST, row.speed_up or 0.0) for row in shown]
    return most, 2.0 ** floor(log2(min([1.0, *speeds]))), 2.0 ** ceil(log2(max([float(most), *speeds])))


def ticks(low: float, high: float) -> list[float]:
    """The powers of two from one to another, both included; at most twelve of them."""
    exponents = range(round(log2(low)), round(log2(high)) + 1)
    step = ceil(len(exponents) / 12)
    return [2.0**exponent for exponent in exponents[::step]]


def plot(measured: Measured, *, width: int = 80) -> list[str]:
    """Return the speed-up over the number of workers, both on scales of powers of two; nothing if there is nothing but the serial run."""
    shown = [row for row in measured.rows if row.speed_up is not None]
    if len(shown) < 2:
        return []
    most, low, high = bounds(measured)
    octaves = round(log2(high / low))
    per_octave = max(1, min(6, ROWS // octaves)) if octaves <= ROWS else 1
    height = octaves * per_octave if octaves <= 2 * ROWS else 2 * ROWS
    labels = {round(log2(tick / low) / octaves * height): f"{tick:g}x" for tick in ticks(low, high)}
    margin = max(len("speed-up"), *(len(text) for text in labels.values()))
    room = min(width - margin - 3, 64)

    def column(workers: float) -> int:
        return round(log2(workers) / log2(most) * (room - 1))

    def line(speed: float) -> int:
        return max(0, min(height, round(log2(max(speed, low) / low) / octaves * height)))

    cells = [[" "] * room for _ in range(height + 1)]
    for x in range(0, room, 2):
        ideal = most ** (x / (room - 1))
        cells[line(ideal)][x] = "."
    taken: dict[tuple[int, int], str] = {}
    for row in shown:
        place = (line(row.speed_up or 0.0), column(row.max_workers))
        letter = _letter(row.kind)
        taken[place] = letter if taken.get(place, letter) == letter else "*"
    for (y, x), letter in taken.items():
        cells[y][x] = letter
    told = [f"{labels.get(y, ''):>{margin}} | {''.join(cells[y])}".rstrip() for y in range(height, -1, -1)]
    told.append(f"{'':>{margin}} +{'-' * (room + 1)}")
    told.append(f"{'workers':>{margin}}   {_axis(sorted({row.max_workers for row in shown}), column, room)}".rstrip())
    kinds = {row.kind: f"{_letter(row.kind)} {row.kind}" for row in shown}
    legend = [*kinds.values(), ". ideal", *(["* several"] if "*" in taken.values() else [])]
    return [*_wrapped(f"{'speed-up':>{margin}}   {'   '.join(legend)}", width), *told]


def _letter(kind: str) -> str:
    return kind[:1].upper()


def _axis(numbers: list[int], column: object, room: int) -> str:
    """The numbers of workers below their places; those that there is no room for are left out."""
    assert callable(column)
    text = ""
    for number in numbers:
        label = str(number)
        place = min(column(number), room - len(label))
        if not text or place > len(text):
            text = text.ljust(place) + label
    return text

"""The workers of a work, a line each: figures, and what they did when.

::

    worker     thread id tasks  busy  compute    wait     GIL   0 s                                      1.50 s
    worker_0       21170     3 100 %   0.00 s  1.50 s  0.00 s   ▏1░░░░░░░░░░░░░░▏4░░░░░░░░░░░░░░▏7░░░░░░░░░░░░░░
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from abreast.core.states import COMPUTING, CPU, GIL, IDLE, LOCK, WAITING
from abreast.report.layout import Line, Pen, Piece, columns
from abreast.report.lines import NOT_KEPT, RUNNING, Cell, cells, colour, glyph, meaning
from abreast.report.units import count, duration, percent, unit_for

if TYPE_CHECKING:
    from abreast.core.recording import Host
    from abreast.report.summary import Worker, WorkSummary
    from abreast.report.units import Unit

__all__ = ["ROWS", "Table", "chosen"]

ROWS = 12
"""Workers; of more than that the busiest and the idlest are shown."""
CELLS = 48

_MARK = {"failed": "✗", "retried": "↻", "cancelled": "⊘"}


def chosen(workers: list[Worker], most: int) -> list[Worker]:
    """Return all of them, or `most`: the busiest and the idlest."""
    if len(workers) <= most:
        return sorted(workers, key=_by_name)  # which was seen first says nothing
    most = min(most, ROWS - 2)
    by_busy = sorted(workers, key=lambda worker: (-worker.busy, worker.row.serial))
    return by_busy[: (most + 1) // 2] + by_busy[len(by_busy) - most // 2 :]


def _by_name(worker: Worker) -> tuple[list[tuple[int, str]], int]:
    """worker_9 before worker_10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", worker.row.name)
    return [(int(part), "") if part[0].isdecimal() and len(part) < 20 else (-1, part) for part in parts], worker.row.serial


class Table:
    """Writes the table of the workers of one work.

    Args:
        pen: what it is written with.
        work: of which.
        host: where it was recorded.
        full: whether to say of workers that never had a task.
    """

    def __init__(self, pen: Pen, work: WorkSummary, host: Host, *, full: bool) -> None:
        self.pen = pen
        self.work = work
        self.host = host
        self.full = full
        self.made: dict[tuple[int, int], list[Cell]] = {}

    def lines(self, workers: list[Worker], *, legend: bool) -> list[Line]:
        """Return the lines for those of its workers that are to be shown."""
        if not workers:
            return []
        pen, work, all_workers = self.pen, self.work, self.work.workers
        unit = unit_for(max(work.elapsed, *(worker.busy for worker in all_workers)))
        name_width = min(24, max(6, *(columns(pen.clean(worker.row.name)) for worker in workers)))
        task_width = max(6, *(len(str(worker.tasks)) + 1 for worker in workers))
        is_process = all(worker.row.kind == "process" for worker in workers)
        figures = _figures(work, unit, self.host)
        id_header = "process" if is_process else "thread id"
        id_width = 3 + len(id_header)
        # What there is no room for: the ids first, then the figures that are looked at least.
        while True:
            used = 2 + name_width + id_width + task_width + 6 + sum(size for _, size, _ in figures) + 3
            if pen.width - used >= 16 or not (id_width or figures):
                break
            if id_width:
                id_width = 0
            else:
                figures = _fewer(figures)
        width = min(CELLS, pen.width - used)
        head = (
            "  "
            + pen.column("worker", name_width)
            + (id_header.rjust(id_width) if id_width else "")
            + f"{'tasks':>{task_width}}  busy"
        )
        head += "".join(pen.column(name, size, right=True) for name, size, _ in figures)
        end = duration(work.elapsed)
        lines: list[Line] = [
            [Piece(pen.cut(f"{head}   0 s{end:>{width - 3}}" if width > 3 + len(end) else head, pen.width), "dim")]
        ]
        idle = NOT_KEPT if work.missing else IDLE
        seen: set[int] = {COMPUTING, WAITING, idle, *([GIL] if any(name == "GIL" for name, _, _ in figures) else [])}
        marks: set[str] = set()
        skipped = len(all_workers) - len(workers)
        # The busiest are before the gap, the idlest behind it.
        gap = (len(workers) + 1) // 2 if skipped else -1
        for i, worker in enumerate(workers):
            if i == gap:
                lines.append(self._skipped(all_workers, workers))
            line: Line = [Piece("  " + pen.column(worker.row.name, name_width, keep_end=True))]
            if id_width:
                ident = worker.row.pid if is_process else worker.row.native_id
                line.append(Piece((str(ident) if ident else "-").rjust(id_width)))
            line.append(Piece(f"{worker.tasks:{task_width}}{percent(worker.share):>6}"))
            line += [Piece(pen.column(value(worker), size, right=True)) for _, size, value in figures]
            line.append(Piece("   "))
            row = self._cells(worker, width, idle)
            seen |= {cell.state for cell in row}
            marks |= {cell.text for cell in row if cell.text in _MARK.values()}
            line += _coloured(row, pen)
            lines.append(line)
        if gap >= len(workers):
            lines.append(self._skipped(all_workers, workers))
        never = work.work.workers - len(all_workers)
        if never > 0 and work.work.kind in ("thread", "process") and not work.missing and self.full:
            lines.append([pen.piece(f"  {count(never, 'worker')} more had nothing to do", "dim")])
        if legend:
            lines += self._legend(seen, marks)
        return lines

    def _cells(self, worker: Worker, width: int, idle: int) -> list[Cell]:
        """They are made once, however often the table is tried shorter."""
        key = (worker.row.serial, width)
        if key not in self.made:
            self.made[key] = cells(worker.attempts, self.work.work.begin, self.work.work.end, width, idle=idle)
        return self.made[key]

    def _skipped(self, workers: list[Worker], shown: list[Worker]) -> Line:
        hidden = [worker for worker in workers if all(worker is not other for other in shown)]
        low, high = min(worker.share for worker in hidden), max(worker.share for worker in hidden)
        busy = percent(low) if percent(low) == percent(high) else f"{percent(low)} … {percent(high)}"
        return [self.pen.piece(f"  … {len(hidden):,} more, {busy} busy", "dim")]

    def _legend(self, seen: set[int], marks: set[str]) -> list[Line]:
        items: list[Line] = [
            [self.pen.piece(glyph(state), colour(state)), self.pen.piece(f" {meaning(state)}")]
            for state in (COMPUTING, WAITING, RUNNING, LOCK, GIL, CPU, IDLE)
            if state in seen
        ]
        items += [[self.pen.piece(f"{mark} {name}")] for name, mark in _MARK.items() if mark in marks]
        return self.pen.flow(items, first="  ", other="  ", gap="   ")


def _figures(work: WorkSummary, unit: Unit, host: Host) -> list[tuple[str, int, Any]]:
    """Name, width and text of the columns of times."""

    def times(name: str) -> Any:
        def text(worker: Worker) -> str:
            value = getattr(worker.parts, name)
            return "?" if value is None else unit.text(value)

        return text

    found = []
    room = max(8, len(unit.text(max((worker.busy for worker in work.workers), default=0))) + 2)
    parts = work.parts
    if parts.computing is not None:
        found += [("compute", room + 1, times("computing")), ("wait", room, times("waiting"))]
    for name, value, attribute in (("lock", parts.lock, "lock"), ("no CPU", parts.runqueue, "runqueue")):
        if value and value * 100 >= max(work.work.wall, 1):
            found.append((name, room, times(attribute)))
    if parts.gil is not None and host.has_gil:
        found.append(("GIL", room, times("gil")))
    return found


def _fewer(figures: list[tuple[str, int, Any]]) -> list[tuple[str, int, Any]]:
    for rare in ("no CPU", "lock", "GIL"):
        if any(name == rare for name, _, _ in figures):
            return [figure for figure in figures if figure[0] != rare]
    return []


def _coloured(row: list[Cell], pen: Pen) -> Line:
    """Neighbours of one colour are one piece."""
    line: Line = []
    for cell in row:
        text, style = pen.clean(cell.text), colour(cell.state)
        if line and line[-1].style == style:
            line[-1] = Piece(line[-1].text + text, style)
        else:
            line.append(Piece(text, style))
    return line

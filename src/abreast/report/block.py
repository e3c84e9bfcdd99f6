"""The text of works, a block each, made of sections: header, times, errors, workers, the slowest, notes, advice.

Where there is not room for all of them, `_steps` says which go first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from abreast.core.states import COMPUTING, CPU, GIL, LOCK, WAITING
from abreast.report.advice import Advice, advise
from abreast.report.layout import Line, Pen, Piece
from abreast.report.lines import RUNNING, colour
from abreast.report.units import count, duration, percent, percents, precise, unit_for
from abreast.report.workers import ROWS, Table, chosen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abreast.core.recording import Attempt, Work
    from abreast.report.summary import HeldLock, Summary, Worker, WorkSummary

__all__ = ["Writer"]

LINES = 20
BLOCKS = 3  # works that have a block; each of the others has a line
LISTED = 3  # and so many of them

_NOUNS = {"thread": ("thread", "threads"), "process": ("process", "processes"), "main": ("thread", "threads")}


@dataclass
class _Block:
    """The sections of one work, in order."""

    table: Table
    header: list[Line] = field(default_factory=list)
    sums: list[Line] = field(default_factory=list)
    queue: list[Line] = field(default_factory=list)
    errors: list[Line] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    legend: bool = True
    slowest: list[Line] = field(default_factory=list)
    tail: list[Line] = field(default_factory=list)
    overhead: list[Line] = field(default_factory=list)
    notes: list[Line] = field(default_factory=list)
    more: list[Line] = field(default_factory=list)
    advice: list[Line] = field(default_factory=list)
    blanks: bool = True


class Writer:
    """Writes the report of a recording.

    Args:
        summary: what is told.
        pen: what it is written with.
        full: whether to tell all; else it is 20 lines at most.
    """

    def __init__(self, summary: Summary, pen: Pen, *, full: bool) -> None:
        self.summary = summary
        self.host = summary.host
        self.pen = pen
        self.full = full

    def lines(self) -> list[Line]:
        """Return all of it."""
        works = self.summary.works
        before = self._before()
        if not works:
            nothing = self.pen.wrap("Nothing was recorded: no run, no executor and no group did anything meanwhile.", other="  ")
            return [*before, *nothing, *self._notes()]
        most = len(works) if self.full else BLOCKS
        by_weight = sorted(works, key=lambda work: (work.elapsed, work.work.wall), reverse=True)
        most_important = {id(work) for work in by_weight[:most]}
        blocks = [work for work in works if id(work) in most_important]
        others = [work for work in works if id(work) not in most_important]
        after = self._others(others)
        written: list[list[Line]] = []
        left = LINES - len(before) - len(after)
        for i, work in enumerate(blocks):
            block = self._block(work, notes=self._notes() if i == len(blocks) - 1 else [])
            if self.full:
                written.append(self._written(block))
                continue
            # What one block leaves, the next may have; between two of them is an empty line.
            room = (left - (len(blocks) - i - 1)) // (len(blocks) - i)
            written.append(self._fitted(work, block, room))
            left -= len(written[-1]) + 1
        lines: list[Line] = [*before]
        for i, block_lines in enumerate(written):
            lines += [[], *block_lines] if i else block_lines
        return lines + after

    # What goes first, and last

    def _before(self) -> list[Line]:
        lines: list[Line] = []
        if self.full:
            host = self.host
            gil = "GIL on" if host.has_gil else "no GIL"
            items = [host.script or "recording", f"Python {host.python} ({gil})", count(host.cores, "core"), host.platform]
            gap = " - " if self.pen.ascii_only else " · "
            lines += [*self.pen.flow([[self.pen.piece(item, "dim")] for item in items], gap=gap), []]
        if not self.summary.complete:
            text = "The recording is not complete: it was saved while work went on, or the program was ended. What follows is true up to there."
            lines += self.pen.wrap(text, style="bold", most=2)
        return lines

    def _notes(self) -> list[Line]:
        """What concerns all works."""
        summary = self.summary
        lines: list[Line] = []
        share = summary.cost / summary.elapsed if summary.elapsed else 0.0
        if share > 0.02 or (self.full and summary.cost):
            lines += self._note(f"recording took ≈ {duration(summary.cost)} of it ({100 * share:.0f} %)")
        if summary.dropped_spans:
            lines += self._note(
                f"{count(summary.dropped_spans, 'wait')} for locks and results were not kept, since there were too many"
            )
        if summary.strays:
            lines += self._note(f"{count(summary.strays, 'attempt')} belong to no work of this recording: it is damaged")
        return lines

    def _note(self, text: str) -> list[Line]:
        return self.pen.wrap(text, first="  note: ", other="        ", style="dim", most=2)

    def _others(self, works: list[WorkSummary]) -> list[Line]:
        lines: list[Line] = []
        for work in works[:LISTED]:
            text = f"{self._what(work)}{_problems(work.work)}"
            if work.speed_up is not None and work.work.workers > 1 and not work.is_upper_bound:
                text += f", {work.speed_up:.2f}x"
            line = self.pen.cut(f"{self._name(work)}: {text}", self.pen.width - 2)
            lines.append([Piece("+ ", "dim"), Piece(line)])
        if rest := works[LISTED:]:
            tasks = sum(work.work.tasks for work in rest)
            failed = sum(work.work.failed for work in rest)
            text = f"{len(rest):,} more work{'s' * (len(rest) != 1)} with {count(tasks, 'task')}, {failed:,} failed: report(full=True) tells of them"
            lines.append([Piece("+ ", "dim"), Piece(self.pen.cut(text, self.pen.width - 2))])
        return lines

    # One work

    def _block(self, work: WorkSummary, notes: list[Line]) -> _Block:
        advice = advise(work, self.host)
        return _Block(
            Table(self.pen, work, self.host, full=self.full),
            header=self._header(work),
            sums=self._time(work),
            queue=self._queue(work),
            errors=self._errors(work),
            workers=chosen(work.workers, len(work.workers) if self.full else ROWS),
            slowest=self._slowest(work),
            tail=self._tail(work),
            overhead=self._overhead(work),
            notes=[*self._notes_of(work), *notes],
            more=self._locks(work.locks) if self.full else [],
            advice=self._advice(advice),
        )

    def _written(self, block: _Block) -> list[Line]:
        blank: list[Line] = [[]] if block.blanks else []
        table = block.table.lines(block.workers, legend=block.legend)
        last = [*block.slowest, *block.tail, *block.overhead, *block.more, *block.notes, *block.advice]
        lines = block.header
        for section in ([*block.sums, *block.queue, *block.errors], table, last):
            if section:
                lines = [*lines, *blank, *section]
        return lines

    def _fitted(self, work: WorkSummary, block: _Block, room: int) -> list[Line]:
        """Leave out, one after the other, what is missed least, until it fits."""
        for leave_out in _steps(block, work):
            lines = self._written(block)
            if len(lines) <= room:
                return lines
            leave_out()
        lines = self._written(block)
        keep = max(0, room - len(block.advice))
        if len(block.header) < keep < len(block.header) + len(block.sums):
            keep = len(block.header)  # a part of a sum would say something else
        return [*lines[:keep], *block.advice][:room] if len(lines) > room else lines

    def _name(self, work: WorkSummary) -> str:
        return self.pen.cut(work.work.name or work.work.kind, max(20, self.pen.width // 3))

    def _what(self, work: WorkSummary) -> str:
        total = work.work
        if not total.tasks and not work.kept:
            if total.resumed:
                return f"{count(total.resumed, 'result')} from the journal, and nothing had to run"
            return f"no task has ended in {duration(work.elapsed)}"
        tasks = count(total.tasks, "task")
        if total.kind == "serial":
            return f"{tasks} one after another in {duration(work.elapsed)}"
        kinds = {worker.row.kind for worker in work.workers}
        one, many = _NOUNS.get(kinds.pop() if len(kinds) == 1 else "", ("worker", "workers"))
        if total.kind in _NOUNS:
            one, many = _NOUNS[total.kind]
        foreign = f" of {self.pen.clean(total.kind)}" if total.kind not in (*_NOUNS, "group") else ""
        return f"{tasks} on {count(max(total.workers, 1), one, many)}{foreign} in {duration(work.elapsed)}"

    def _header(self, work: WorkSummary) -> list[Line]:
        name = self._name(work)
        items: list[Line] = [[Piece(name, "bold"), self.pen.piece(f": {self._what(work)}")]]
        if work.work.kind != "serial" and work.speed_up is not None and work.work.attempts > 1:
            sign = "at most" if work.is_upper_bound else "≈"
            items.append([self.pen.piece(f"one after another: {sign} {unit_for(work.elapsed).text(work.one_after_another)}")])
            items.append([self.pen.piece(_speed(work), "bold")])
        return self.pen.flow(items)

    def _time(self, work: WorkSummary) -> list[Line]:
        wall = max(0, work.work.wall)
        unit = unit_for(max(wall, work.elapsed))
        if not work.work.attempts:
            return []
        first = f"time in tasks {self.pen.column(unit.text(wall), 8, right=True)}"
        parts = work.parts
        shown: list[tuple[int, str, int]] = []
        may_be_gil = self.host.has_gil and parts.gil is None and work.work.kind not in ("process", "serial")
        for state, name, value in (
            (COMPUTING, "computing", parts.computing),
            (WAITING, "waiting" + (" (or for the GIL, which was not measured)" if may_be_gil else ""), parts.waiting),
            (
                RUNNING,
                "computing or waiting (CPU time not known)",
                parts.unknown if parts.computing is None or parts.unknown else None,
            ),
            (LOCK, "waiting for a lock", parts.lock),
            (CPU, "waiting for a CPU", parts.runqueue),
            (GIL, "held up by the GIL ≈", parts.gil if self.host.has_gil or parts.gil else None),
        ):
            if value is not None and (value * 200 > wall or self.full or state not in (LOCK, CPU)):
                shown.append((state, name, value))
        shares = percents([value for _, _, value in shown])
        items: list[Line] = []
        for (state, name, value), share in zip(shown, shares, strict=True):
            sign = "+  " if items else "=  "
            items.append([Piece(sign), self.pen.piece(name, colour(state)), self.pen.piece(f" {unit.text(value)} ({share:3} %)")])
        items[0] = [Piece(f"{first} "), *items[0]]
        return self.pen.flow(items, first="  ", other=" " * (25 if self.pen.width >= 96 else 4), gap="  ")

    def _queue(self, work: WorkSummary) -> list[Line]:
        total = work.work
        low, mean, high = work.queued
        if mean is None:
            queued = "not known"
        elif low is None or high is None:
            queued = f"{duration(mean)} on the average"
        else:
            unit = unit_for(max(high, work.elapsed))
            queued = f"{unit.number(low)} … {unit.text(high)}, mean {unit.text(mean)}"
        items: list[Line] = [[self.pen.piece(f"queued        {queued}")]] if total.attempts else []
        items.append([self.pen.piece(f"errors {total.failed:,}", "bold #D55E00" if total.failed else "")])
        items.append([self.pen.piece(f"retries {total.retries:,}")])
        for name, value in (
            ("time-outs", total.timeouts),
            ("crashes", total.crashes),
            ("cancelled", total.cancelled),
            ("from the journal", total.resumed),
        ):
            if value:
                items.append([self.pen.piece(f"{name} {value:,}")])
        gap = " " * (8 if len(items) <= 3 else 4)
        return self.pen.flow(items, first="  ", other=" " * 16, gap=gap)

    def _errors(self, work: WorkSummary) -> list[Line]:
        lines: list[Line] = []
        kinds = work.errors if self.full else work.errors[:3]
        for kind in kinds:
            text = f"{kind.type} × {kind.times:,}, first: task {kind.number}"  # noqa: RUF001  # a sign for times
            text += f", {kind.call}" if kind.call else ""
            text += f": {kind.message}" if kind.message else ""
            lines.append([Piece("  "), Piece(self.pen.cut(text, self.pen.width - 2), "#D55E00")])
        if rest := work.errors[len(kinds) :]:
            text = f"{count(len(rest), 'other type')} of error, {sum(kind.times for kind in rest):,} in all"
            lines.append([Piece("  "), self.pen.piece(text, "#D55E00")])
        unseen = work.work.failed - sum(kind.times for kind in work.errors)
        if work.missing and unseen > 0:
            lines.append([Piece("  "), self.pen.piece(f"{unseen:,} more failed of which the attempts were not kept", "#D55E00")])
        return lines

    def _slowest(self, work: WorkSummary) -> list[Line]:
        slowest = work.slowest[: 10 if self.full else 3]
        if not slowest or work.kept < 2:
            return []
        names = {worker.row.serial: worker.row.name for worker in work.workers}
        mean = sum(worker.parts.unknown + _known(worker) for worker in work.workers) / work.kept
        if not self.full:  # those that take as long as all others say nothing
            slowest = slowest[:1] + [attempt for attempt in slowest[1:] if _took(attempt) > 1.1 * mean]
        items: list[Line] = []
        for attempt in slowest:
            again = f", attempt {attempt.attempt}" if attempt.attempt > 1 else ""
            where = f" on {self.pen.cut(names.get(attempt.row, ''), 24, keep_end=True)}"
            items.append([self.pen.piece(f"{self.pen.cut(_title(attempt), 40)}  {precise(_took(attempt))}{where}{again}")])
        if self.full:
            return [
                line for i, item in enumerate(items) for line in self.pen.flow([item], first=" " * 12 if i else "  slowest   ")
            ]
        return self.pen.flow(items, first="  slowest   ", other=" " * 12)[:1]

    def _tail(self, work: WorkSummary) -> list[Line]:
        tail = work.tail
        if tail is None or tail.length * 10 < work.elapsed:
            return []
        who = "one worker busy" if tail.busy == 1 else f"{tail.busy} workers busy"
        tasks = ", ".join(_named(attempt) for attempt in tail.attempts[: tail.busy])
        more = " and others" if tail.several or tail.busy > len(tail.attempts) else ""
        text = f"last {duration(tail.length)}: {who}, {tail.idle} idle: {tasks}{more}"
        return [[Piece("  "), Piece(self.pen.cut(text, self.pen.width - 2))]]

    def _overhead(self, work: WorkSummary) -> list[Line]:
        overhead = work.overhead
        if not overhead or not work.elapsed or (overhead * 10 < work.elapsed and not self.full):
            return []
        text = f"  overhead  {duration(overhead)} for starting workers and pickling ({100 * overhead / work.elapsed:.0f} % of the time)"
        return [[Piece(self.pen.cut(text, self.pen.width))]]

    def _notes_of(self, work: WorkSummary) -> list[Line]:
        lines: list[Line] = []
        if work.missing:
            ended = work.kept - len(work.unfinished)
            lines += self._note(
                f"totals are exact; workers, slowest and errors are of the {ended:,} attempts that were kept of {work.work.attempts:,}"
            )
        if work.unfinished:
            first = min(work.unfinished, key=lambda attempt: attempt.begin)
            more = f" and {len(work.unfinished) - 1:,} more" if len(work.unfinished) > 1 else ""
            lines += self._note(f"started, and its end is not known: {_named(first)}{more}")
        if work.batch > 1:
            lines += self._note(f"CPU time was measured per batch, of {work.batch:,} tasks at most")
        if self.full and work.work.gil_bound is not None and self.host.has_gil:
            lines += self._note(f"held up by the GIL is an estimate; it is at most {duration(work.work.gil_bound)}")
        return lines

    def _locks(self, locks: list[HeldLock]) -> list[Line]:
        lines: list[Line] = []
        for lock in locks[:10]:
            text = f"waited {duration(lock.waited)} for {lock.what or 'a lock'}, {count(lock.times, 'time')}"
            text += f", {lock.site}" if lock.site else ""
            text += f", mostly held by {lock.holder}" if lock.holder else ""
            lines.append([Piece("  locks     " if not lines else " " * 12), Piece(self.pen.cut(text, self.pen.width - 12))])
        return lines

    def _advice(self, advice: Advice | None) -> list[Line]:
        if advice is None:
            return []
        return self.pen.wrap(advice.text, first=f"  {self.pen.clean('→')} ", other="    ", style="bold", most=3)


def _steps(block: _Block, work: WorkSummary) -> Iterator[Any]:
    """What may be left out of a block, what is missed least first."""

    def leave_out(name: str, value: object) -> Any:
        return lambda: setattr(block, name, value)

    yield leave_out("blanks", False)
    for rows in range(len(block.workers) - 1, 1, -1):
        if rows != len(work.workers) - 1:  # one less would be as many lines, with that which says so
            yield leave_out("workers", chosen(work.workers, rows))
    if len(block.notes) > 1:
        yield leave_out("notes", block.notes[:1])
    yield leave_out("overhead", [])
    yield leave_out("legend", False)
    yield leave_out("workers", [])
    yield leave_out("errors", block.errors[:1])
    yield leave_out("tail", [])
    yield leave_out("slowest", [])
    yield leave_out("notes", [])
    yield leave_out("errors", [])


def _speed(work: WorkSummary) -> str:
    speed_up, share = work.speed_up or 0.0, work.share or 0.0
    of_ideal = f"{percent(share)} of {count(max(work.work.workers, 1), 'worker')}"
    if work.is_upper_bound:
        return f"at most {speed_up:.2f}x faster, {of_ideal}"
    if speed_up < 0.995:
        return f"{speed_up:.2f}x: slower, {of_ideal}"
    return f"{speed_up:.2f}x faster, {of_ideal}"


def _problems(work: Work) -> str:
    pairs = (
        ("failed", work.failed),
        ("retries", work.retries),
        ("cancelled", work.cancelled),
        ("from the journal", work.resumed),
    )
    return "".join(f", {value:,} {name}" for name, value in pairs if value)


def _known(worker: Worker) -> int:
    return sum(value or 0 for value in worker.parts[:5])


def _took(attempt: Attempt) -> int:
    return max(0, attempt.end - attempt.begin)


def _title(attempt: Attempt) -> str:
    return attempt.call or f"task {attempt.number}"


def _named(attempt: Attempt) -> str:
    return f"task {attempt.number}" + (f", {attempt.call}" if attempt.call else "")

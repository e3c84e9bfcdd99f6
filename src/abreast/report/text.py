"""The report of a recording: at most 20 lines that say how long it took, why, and where, and end in a sentence of advice.

::

    square: 9 tasks on 3 threads in 1.50 s    one after another: ≈ 4.50 s    3.00x faster, 100 % of 3 workers

      time in tasks   4.50 s =  computing 0.00 s (  0 %)  +  waiting 4.50 s (100 %)  +  held up by the GIL ≈ 0.00 s (  0 %)
      queued        0.00 … 1.00 s, mean 0.50 s        errors 0        retries 0

      worker     thread id tasks  busy  compute    wait     GIL   0 s                                      1.50 s
      worker_0       21170     3 100 %   0.00 s  1.50 s  0.00 s   ▏1░░░░░░░░░░░░░░▏4░░░░░░░░░░░░░░▏7░░░░░░░░░░░░░░
      …

A work is a block, made of sections. Where there is not room for all, the sections say in which order they go: `_fitted`.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from abreast.core.recording import COMPUTING, CPU, GIL, IDLE, LOCK, STATES, WAITING, Recording
from abreast.report.advice import Advice, advise
from abreast.report.layout import Line, Pen, Piece, can_show, columns, plain
from abreast.report.lines import NOT_KEPT, RUNNING, Cell, cells, glyph, meaning
from abreast.report.summary import Summary, summarize
from abreast.report.units import count, duration, percents, precise, unit_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderResult

    from abreast.core.recording import Attempt, Host, Work
    from abreast.report.summary import HeldLock, Worker, WorkSummary
    from abreast.report.units import Unit

__all__ = ["Report"]

LINES = 20
BLOCKS = 3  # works that have a block; each of the others has a line
LISTED = 3  # and so many of them
ROWS = 12  # workers; of more than that the busiest and the idlest are shown
WIDTH = 120  # where nobody says how wide it may be
LEAST_WIDTH = 60
CELLS = 48

_MARK = {"failed": "✗", "retried": "↻", "cancelled": "⊘"}
_NOUNS = {"thread": ("thread", "threads"), "process": ("process", "processes"), "main": ("thread", "threads")}


class Report:
    """What was recorded, told in text.

    ``print(report)`` writes plain text, as wide as the terminal; `rich.print` and notebooks show it in colour.

    Args:
        recording: what it tells of.
        full: whether to tell all: every worker, every type of error, ten slowest tasks, locks. Else it is 20 lines at most.

    >>> from abreast.core.recording import Attempt, Host, Recording, Row, Work
    >>> host = Host("here", "3.13.0", "0.1", True, 2, "linux", 1, "squares.py")
    >>> second = 10**9
    >>> work = Work(0, "square", "thread", 2, 0, second, 2, 2, wall=2 * second, cpu=0, gil=0)
    >>> rows = [Row(n, "thread", f"worker_{n}", 0, 70 + n, 1, 0, second) for n in range(2)]
    >>> attempts = [Attempt(0, n, 1, n, 0, 0, second, 0, f"square({n})", cpu=0, gil=0) for n in range(2)]
    >>> report = Report(Recording(host, 0, second, [work], rows, attempts))
    >>> print(report.text(width=110).splitlines()[0])
    square: 2 tasks on 2 threads in 1.00 s    one after another: ≈ 2.00 s    2.00x faster, 100 % of 2 workers
    >>> report.to_dict()["works"][0]["speed_up"]
    2.0
    """

    def __init__(self, recording: Recording, *, full: bool = False) -> None:
        if not isinstance(recording, Recording):
            raise TypeError(f"recording must be a Recording, not {type(recording).__name__}")
        self._recording = recording
        self._full = full
        self._summary: Summary | None = None

    @property
    def summary(self) -> Summary:
        """The figures that all of it is made of."""
        if self._summary is None:
            self._summary = summarize(self._recording)
        return self._summary

    @property
    def advice(self) -> list[str]:
        """The sentence of advice of each work that has one, in the order in which the works began."""
        found = (advise(work, self.summary.host) for work in self.summary.works)
        return [Pen(LEAST_WIDTH, ascii_only=False).clean(advice.text) for advice in found if advice is not None]

    def text(self, *, width: int | None = None, ascii_only: bool | None = None, full: bool | None = None) -> str:
        """Return it as plain text, without colours.

        Args:
            width: columns, at least 60; by default as many as the terminal has, and 120 where there is none.
            ascii_only: whether to do without signs such as ``░``; by default if standard output cannot show them.
            full: whether to tell all; by default what was said when it was made.

        Raises:
            TypeError, ValueError: `width` is no whole number, or below 60.
        """
        if width is None:
            width = max(LEAST_WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        elif isinstance(width, bool) or not isinstance(width, int):
            raise TypeError(f"width must be a whole number, not {width!r}")
        elif width < LEAST_WIDTH:
            raise ValueError(f"width must be at least {LEAST_WIDTH}, not {width}")
        if ascii_only is None:
            ascii_only = not can_show(getattr(sys.stdout, "encoding", None))
        return "\n".join(map(plain, self._lines(width, ascii_only=ascii_only, full=full)))

    def to_dict(self) -> dict[str, Any]:
        """Return its figures as plain values, as JSON has them; times in seconds. ``works`` are in the order in which they began."""
        summary = self.summary
        works = []
        for work in summary.works:
            advice = advise(work, summary.host)
            works.append(
                {**work.to_dict(), "advice": advice and {"rule": advice.rule, "figure": advice.figure, "text": advice.text}}
            )
        return {
            "host": summary.host._asdict(),
            "elapsed": summary.elapsed / 1e9,
            "works": works,
            "complete": summary.complete,
            "dropped_spans": summary.dropped_spans,
            "cost": summary.cost / 1e9,
        }

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        works = self._recording.works
        return f"<Report of {count(len(works), 'work')}, {count(sum(work.tasks for work in works), 'task')}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width = max(LEAST_WIDTH, options.max_width)
        for line in self._lines(width, ascii_only=not can_show(options.encoding)):
            text = Text(no_wrap=True, overflow="ignore", end="\n")
            for piece in line:
                text.append(piece.text, piece.style)
            text.rstrip()
            yield text

    def _repr_html_(self) -> str:
        """For notebooks."""
        from html import escape

        def in_html(piece: Piece) -> str:
            text = escape(piece.text)
            for word in piece.style.split():
                if word.startswith("#"):
                    text = f'<span style="color:{word}">{text}</span>'
                elif word == "bold":
                    text = f"<b>{text}</b>"
            return text

        lines = ("".join(map(in_html, line)).rstrip() for line in self._lines(WIDTH, ascii_only=False))
        return '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">' + "\n".join(lines) + "</pre>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """For notebooks."""
        del include, exclude  # whoever asks picks
        return {"text/plain": self.text(width=WIDTH, ascii_only=False), "text/html": self._repr_html_()}

    def _lines(self, width: int, *, ascii_only: bool, full: bool | None = None) -> list[Line]:
        is_full = self._full if full is None else full
        return _Writer(self.summary, Pen(width, ascii_only=ascii_only), full=is_full).lines()


@dataclass
class _Block:
    """The sections of one work, in order."""

    header: list[Line] = field(default_factory=list)
    times: list[Line] = field(default_factory=list)
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


class _Writer:
    def __init__(self, summary: Summary, pen: Pen, *, full: bool) -> None:
        self.summary = summary
        self.host: Host = summary.host
        self.pen = pen
        self.full = full
        self.made: dict[tuple[int, int, int], list[Cell]] = {}

    def lines(self) -> list[Line]:
        works = self.summary.works
        before = self._before()
        if not works:
            nothing = self.pen.wrap("Nothing was recorded: no run, no executor and no group did anything meanwhile.", other="  ")
            return [*before, *nothing, *self._notes()]
        most = len(works) if self.full else BLOCKS
        by_weight = sorted(works, key=lambda work: (work.elapsed, work.work.wall), reverse=True)
        chosen = {id(work) for work in by_weight[:most]}
        blocks = [work for work in works if id(work) in chosen]
        others = [work for work in works if id(work) not in chosen]
        after = self._others(others)
        written: list[list[Line]] = []
        left = LINES - len(before) - len(after)
        for i, work in enumerate(blocks):
            block = self._block(work, notes=self._notes() if i == len(blocks) - 1 else [])
            if self.full:
                written.append(self._written(work, block))
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
            items = [f"{host.script or 'recording'}", f"Python {host.python} ({gil})", count(host.cores, "core"), host.platform]
            lines += [
                *self.pen.flow(
                    [[self.pen.piece(item, "dim")] for item in items], gap=" · " if not self.pen.ascii_only else " - "
                ),
                [],
            ]
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
            speed_up = (
                f", {work.speed_up:.2f}x"
                if work.speed_up is not None and work.work.workers > 1 and not work.is_upper_bound
                else ""
            )
            line = self.pen.cut(f"{self._name(work)}: {text}{speed_up}", self.pen.width - 2)
            lines.append([Piece("+ ", "dim"), Piece(line)])
        if rest := works[LISTED:]:
            tasks = sum(work.work.tasks for work in rest)
            failed = sum(work.work.failed for work in rest)
            text = (
                f"{count(len(rest), 'work')} more with {count(tasks, 'task')}, {failed:,} failed: report(full=True) tells of them"
            )
            lines.append([Piece("+ ", "dim"), Piece(self.pen.cut(text, self.pen.width - 2))])
        return lines

    # One work

    def _block(self, work: WorkSummary, notes: list[Line]) -> _Block:
        advice = advise(work, self.host)
        return _Block(
            header=self._header(work),
            times=[*self._time(work), *self._queue(work)],
            errors=self._errors(work),
            workers=_chosen(work.workers, len(work.workers) if self.full else ROWS),
            slowest=self._slowest(work),
            tail=self._tail(work),
            overhead=self._overhead(work),
            notes=[*self._notes_of(work), *notes],
            more=self._locks(work.locks, work) if self.full else [],
            advice=self._advice(advice),
        )

    def _written(self, work: WorkSummary, block: _Block) -> list[Line]:
        blank: list[Line] = [[]] if block.blanks else []
        table = self._table(work, block.workers, legend=block.legend)
        last = [*block.slowest, *block.tail, *block.overhead, *block.more, *block.notes, *block.advice]
        lines = block.header
        for section in ([*block.times, *block.errors], table, last):
            if section:
                lines = [*lines, *blank, *section]
        return lines

    def _fitted(self, work: WorkSummary, block: _Block, room: int) -> list[Line]:
        """Leave out, one after the other, what is missed least, until it fits."""
        for leave_out in _steps(block, work):
            lines = self._written(work, block)
            if len(lines) <= room:
                return lines
            leave_out()
        lines = self._written(work, block)
        keep = max(0, room - len(block.advice))
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
            (RUNNING, "computing or waiting (CPU time not known)", parts.unknown if parts.computing is None else None),
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
            items.append(
                [Piece(sign), self.pen.piece(name, _colour(state)), self.pen.piece(f" {unit.text(value)} ({share:3} %)")]
            )
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

    def _locks(self, locks: list[HeldLock], work: WorkSummary) -> list[Line]:
        del work
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

    # Its workers

    def _table(self, work: WorkSummary, workers: list[Worker], *, legend: bool) -> list[Line]:
        if not workers:
            return []
        pen = self.pen
        all_workers = work.workers
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
            line.append(Piece(f"{worker.tasks:{task_width}}{_percent(worker.share):>6}"))
            line += [Piece(pen.column(value(worker), size, right=True)) for _, size, value in figures]
            line.append(Piece("   "))
            row = self._cells(worker, work, width, idle)
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

    def _cells(self, worker: Worker, work: WorkSummary, width: int, idle: int) -> list[Cell]:
        """They are made once, however often the table is tried shorter."""
        key = (work.work.serial, worker.row.serial, width)
        if key not in self.made:
            self.made[key] = cells(worker.attempts, work.work.begin, work.work.end, width, idle=idle)
        return self.made[key]

    def _skipped(self, workers: list[Worker], shown: list[Worker]) -> Line:
        hidden = [worker for worker in workers if all(worker is not other for other in shown)]
        low, high = min(worker.share for worker in hidden), max(worker.share for worker in hidden)
        busy = _percent(low) if _percent(low) == _percent(high) else f"{_percent(low)} … {_percent(high)}"
        return [self.pen.piece(f"  … {len(hidden):,} more, {busy} busy", "dim")]

    def _legend(self, seen: set[int], marks: set[str]) -> list[Line]:
        items: list[Line] = [
            [self.pen.piece(glyph(state), _colour(state)), self.pen.piece(f" {meaning(state)}")]
            for state in (COMPUTING, WAITING, RUNNING, LOCK, GIL, CPU, IDLE)
            if state in seen
        ]
        items += [[self.pen.piece(f"{mark} {name}")] for name, mark in _MARK.items() if mark in marks]
        return self.pen.flow(items, first="  ", other="  ", gap="   ")


def _steps(block: _Block, work: WorkSummary) -> Iterator[Any]:
    """What may be left out of a block, what is missed least first."""

    def leave_out(name: str, value: object) -> Any:
        return lambda: setattr(block, name, value)

    yield leave_out("blanks", False)
    for rows in range(len(block.workers) - 1, 1, -1):
        if rows != len(work.workers) - 1:  # one less would be as many lines, with that which says so
            yield leave_out("workers", _chosen(work.workers, rows))
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


def _chosen(workers: list[Worker], most: int) -> list[Worker]:
    """All of them, or the busiest and the idlest."""
    if len(workers) <= most:
        return workers
    most = min(most, ROWS - 2)
    by_busy = sorted(workers, key=lambda worker: (-worker.busy, worker.row.serial))
    return by_busy[: (most + 1) // 2] + by_busy[len(by_busy) - most // 2 :]


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
        text, style = pen.clean(cell.text), _colour(cell.state)
        if line and line[-1].style == style:
            line[-1] = Piece(line[-1].text + text, style)
        else:
            line.append(Piece(text, style))
    return line


def _colour(state: int) -> str:
    return STATES[state].colour if state < len(STATES) else ""


def _speed(work: WorkSummary) -> str:
    speed_up, share = work.speed_up or 0.0, work.share or 0.0
    of_ideal = f"{_percent(share)} of {count(max(work.work.workers, 1), 'worker')}"
    if work.is_upper_bound:
        return f"at most {speed_up:.2f}x faster, {of_ideal}"
    if speed_up < 0.995:
        return f"{speed_up:.2f}x: slower, {of_ideal}"
    return f"{speed_up:.2f}x faster, {of_ideal}"


def _percent(share: float) -> str:
    """Not 100 % of what is less, nor 0 of what is more than nothing."""
    whole = round(100 * share)
    if whole >= 100 and share < 0.995:
        whole = 99
    return f"{whole} %"


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

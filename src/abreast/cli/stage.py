"""Where the course is played: its `sleep`, `print` and `show`, watched.

::

    main thread      clear ─▶ plays a step: starts the threads, waits for them ─▶ reads lines and spans
    course's threads          sleep() adds a span, print() a line, and writes it
    course's processes        return a Done each, which show() makes a line and a span of, in the main thread

`_lock` guards `lines` and `spans`, and the writing of a line, so that lines are whole. Threads of the course end when the stage is
closed, also those that nobody could cancel.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.report.bars import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SMAPS", "Done", "Stage", "done", "private_memory", "stage"]

SMAPS = "/proc/self/smaps_rollup"
TURNS, MOST_TURNS = 6, 200
"""Turns of threads that are told, and drawn."""


class Done(NamedTuple):
    """What a task that computes says of itself: its result, where it ran, and when, by `perf_counter`, which processes share."""

    result: int
    thread: str
    pid: int
    begin: float
    end: float


def done(result: int, begin: float) -> Done:
    """Return what the task that ends here, in this thread, has to say of itself."""
    return Done(result, threading.current_thread().name, os.getpid(), begin, perf_counter())


def private_memory() -> float:
    """Return how many kB of memory this process has for itself (USS); where that cannot be told, what it occupies (RSS)."""
    try:
        with open(SMAPS) as file:
            return sum(int(line.split()[1]) * 1.024 for line in file if line.startswith(("Private_Clean:", "Private_Dirty:")))
    except OSError:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1000


class Stage:
    """What the course calls, and what it leaves to be looked at.

    Attributes:
        speed: how much shorter every sleep is.
        lines: what has been printed since `clear`.
        spans: every sleep since `clear`, by the thread's name, and every task that was shown.
        indent: what stands before each line.
        width: characters that a line may have; longer ones are broken.
    """

    def __init__(self) -> None:
        self.speed = 1.0
        self.lines: list[str] = []
        self.spans: list[Span] = []
        self.indent = "    "
        self.width = 80
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._error: OSError | None = None

    def clear(self) -> None:
        with self._lock:
            self.lines, self.spans = [], []

    def check_output(self) -> None:
        """Raise the OSError that a `print` has met, in whatever thread."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the sleeps: of threads that are still at it when the command is ended by Ctrl-C."""
        self._closed.set()

    def sleep(self, seconds: float) -> None:
        """Sleep, shorter by `speed`, and note it as a span, labelled with the caller's ``number`` if it has one."""
        label = str(sys._getframe(1).f_locals.get("number", ""))
        begin = perf_counter()
        if self._closed.wait(seconds / self.speed):
            raise SystemExit  # ends this thread without a word
        span = Span(threading.current_thread().name, begin, perf_counter(), label)
        with self._lock:
            self.spans.append(span)

    def print(self, *values: object) -> None:
        line = " ".join(map(str, values))
        with self._lock:
            self.lines.append(line)
            try:
                sys.stdout.write(self._broken(line) + "\n")
                sys.stdout.flush()
            except OSError as error:  # raised where the step ends: a thread would only show a traceback
                self._error = self._error or error

    def show(self, tasks: Iterable[Done]) -> None:
        """Print what tasks have computed, and where; note each as a span."""
        for number, done in enumerate(tasks, 1):
            where = f"{done.thread} of process {done.pid}"
            self.print(f"{done.result}: {where}")
            row = done.thread if done.pid == os.getpid() else f"process {done.pid}"
            with self._lock:
                self.spans.append(Span(row, done.begin, done.end, str(number)))

    def show_turns(self, steps: list[tuple[str, int, float]]) -> None:
        """Print who counted from where to where, before another went on, of the first turns; note each turn as a span; forget the steps."""
        turns: list[list[Any]] = []
        for name, number, time in sorted(steps, key=lambda step: step[2]):
            if not turns or turns[-1][0] != name:
                turns.append([name, number, number, time, time])
            turns[-1][2], turns[-1][4] = number, time
        steps.clear()
        for place, (name, first, last, _, _) in enumerate(turns[:TURNS]):
            goes_on = f", and {turns[place + 1][0]} goes on" if place + 1 < len(turns) else ""
            self.print(f"{name} counts from {first:,} to {last:,}{goes_on}")
        more = f"... and so on: {len(turns)} turns in all" if len(turns) > TURNS else f"{len(turns)} turns in all"
        self.print(more)
        with self._lock:
            self.spans += [Span(name, begin, end, "") for name, _, _, begin, end in turns[:MOST_TURNS]]

    def _broken(self, line: str) -> str:
        return textwrap.fill(
            line,
            max(self.width, 20),
            initial_indent=self.indent,
            subsequent_indent=self.indent + "  ",
            break_on_hyphens=False,
        )


stage = Stage()
"""The one that the course uses: its threads have no other way to find it."""

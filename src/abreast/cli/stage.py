"""Where the course is played: its `sleep` and `print`, watched.

::

    main thread      clear ─▶ plays a step: starts the threads, waits for them ─▶ reads lines and spans
    course's threads          sleep() adds a span, print() a line, and writes it

`_lock` guards `lines` and `spans`, and the writing of a line, so that lines are whole. Threads of the course end when the stage is
closed, also those that nobody could cancel.
"""

from __future__ import annotations

import sys
import threading
from time import perf_counter

from abreast.report.bars import Span

__all__ = ["Stage", "stage"]


class Stage:
    """What the course calls, and what it leaves to be looked at.

    Attributes:
        speed: how much shorter every sleep is.
        lines: what has been printed since `clear`.
        spans: every sleep since `clear`, by the thread's name.
    """

    def __init__(self) -> None:
        self.speed = 1.0
        self.lines: list[str] = []
        self.spans: list[Span] = []
        self.indent = "    "
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
                sys.stdout.write(f"{self.indent}{line}\n")
                sys.stdout.flush()
            except OSError as error:  # raised where the step ends: a thread would only show a traceback
                self._error = self._error or error


stage = Stage()
"""The one that the course uses: its threads have no other way to find it."""

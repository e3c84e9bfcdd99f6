"""Signals that end a command: an exception in the main thread, as Ctrl-C is, but held back while a line is being written.

`raise_on_signals` lets SIGTERM and SIGHUP raise `Terminated`, a KeyboardInterrupt, so that everything that ends a run at Ctrl-C ends
it then too. Under `held`, a signal is noted, and raised at the end: so whatever ends the command, an output has whole lines.
A run lets what runs finish when SIGTERM comes, for a while: `draining`. What would be raised in its body comes as from that signal.
Handlers run in the main thread, between two steps of Python; so nothing here needs a lock.

The first signal is raised, and no other: one that struck the cleaning up behind the first would be a traceback wherever it came.

::

    first signal ──▶ raised (noted, under `held`) ──▶ the command cleans up ──▶ program ends
    further ones     for `PATIENCE`: nothing, it is ending       later: the program ends at once
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from abreast.draining import Drain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PATIENCE", "Draining", "Held", "Terminated", "draining", "held", "number_of", "raise_on_signals"]

PATIENCE = 1.0
"""Seconds that the command has to end after a signal, before another one ends it as it is."""


class Terminated(KeyboardInterrupt):
    """A signal asks the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Held:
    """Whether a signal has come while they are held back."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number: int | None = None


_held: list[Held] = []  # the innermost is the last
_first: float | None = None  # when the first signal came


def _handle(number: int, _frame: Any) -> None:
    global _first
    if _first is None:
        _first = monotonic()
        if _held:
            _held[-1].number = number
        else:
            _raise(number)
    elif monotonic() - _first > PATIENCE:
        _end_process(number)


def _end_process(number: int) -> None:
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")  # a bar has hidden the cursor
    os._exit(128 + number)


def _raise(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def number_of(error: KeyboardInterrupt) -> int:
    """Return the number of the signal that an error stands for."""
    return error.number if isinstance(error, Terminated) else signal.SIGINT


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within, SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise `Terminated`. No effect outside the main thread.

    A signal that is ignored (``nohup``) stays so. Behind it, when the program ends, each ends it at once: Python's own handler would
    show a traceback.
    """
    global _first
    _first = None
    taken = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _handle)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class Draining(Drain):
    """`abreast.drain_on`, whose interruptions are those of a signal: held back while a line is written."""

    def _raise(self, error: BaseException) -> None:  # noqa: ARG002  # whether nothing runs or the time is up
        _handle(self.signal or signal.SIGTERM, None)

    def _end_process(self, number: int) -> None:
        _end_process(number)


@contextlib.contextmanager
def draining(seconds: float) -> Iterator[Draining | None]:
    """Within, the first SIGTERM lets what runs finish, for so long. None where SIGTERM does not end the command."""
    if signal.getsignal(signal.SIGTERM) is not _handle:  # not the main thread; or it is ignored
        yield None
        return
    drain = Draining((signal.SIGTERM,), seconds)
    try:
        with drain:
            yield drain
    except SystemExit:
        if drain.signal is None:
            raise


@contextlib.contextmanager
def held() -> Iterator[Held]:
    """Within, a signal is noted; it is raised at the end."""
    mine = Held()
    _held.append(mine)
    try:
        yield mine
    finally:
        _held.remove(mine)
    if mine.number is not None:
        _raise(mine.number)

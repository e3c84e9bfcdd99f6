"""Signals that end a command: an exception in the main thread, as Ctrl-C is, but held back while a line is being written.

`raise_on_signals` lets SIGTERM and SIGHUP raise `Terminated`, a KeyboardInterrupt, so that everything that ends a run at Ctrl-C ends
it then too. Under `held`, a signal is noted, and raised at the end: so whatever ends the command, an output has whole lines.
Handlers run in the main thread, between two steps of Python; so nothing here needs a lock.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Held", "Terminated", "held", "raise_on_signals"]


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


def _handle(number: int, _frame: Any) -> None:
    if _held and _held[-1].number is None:
        _held[-1].number = number
    elif number == signal.SIGINT:  # also a second signal while one is held: whoever sends it will not wait
        raise KeyboardInterrupt
    else:
        raise Terminated(number)


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within, SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise `Terminated`. No effect outside the main thread.

    A signal that is ignored (``nohup``) stays so.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[Held]:
    """Within, the first signal is noted and raised at the end."""
    mine = Held()
    _held.append(mine)
    try:
        yield mine
    finally:
        _held.remove(mine)
    if mine.number is not None:
        _handle(mine.number, None)

"""`Held`: Ctrl-C and other signals wait while a step is taken that must not be left half done.

::

    main thread      with Held(): ─▶ handlers replaced by one that notes ─▶ the step ─▶ put back, and called for what was noted
                                       │ fork
    a forked child                     └─▶ put back, before anything of the user's runs; what was noted is the parent's

A handler of Python's runs in the main thread, between any two of its steps, and may raise: KeyboardInterrupt, SystemExit. In another thread there
is nothing to hold up. The signal mask would not do: the kernel gives the signal to a thread that does not block it, and Python the handler to the
main thread all the same; and a program that is started meanwhile would inherit the mask.

No lock: what is here is used by the main thread alone.

Invariants
    Each signal is noted or passed on, never lost. A second one of the same kind is passed on at once: the step may hang.
    From the moment in which `_holds` is False the handler passes everything on. So it does no harm where putting it back was interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Held"]

_all: list[Held] = []
"""Those that hold signals now: the last one those of what a handler does, that was passed on."""


class Held:
    """A ``with`` block in which handlers of signals wait, if this is the main thread."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: list[int] = []
        self._holds = False

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            self._holds = True
            _all.append(self)
            for number in sorted(signal.valid_signals()):  # SIGINT before others
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        except BaseException as error:
            self._put_back()
            if not isinstance(error, ValueError):  # the main thread of a sub-interpreter, where no handlers run
                raise

    def __exit__(self, *_: object) -> None:
        try:
            self._put_back()
        finally:
            self._call_noted()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._holds and number not in self._noted:
            self._noted.append(number)
        else:
            self._handlers[number](number, frame)

    def _put_back(self) -> None:
        self._holds = False
        with suppress(ValueError):
            _all.remove(self)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)

    def _call_noted(self) -> None:
        while self._noted:
            number = self._noted.pop(0)
            try:
                self._handlers[number](number, sys._getframe())
            finally:  # it may raise, and the others are to be called all the same
                self._call_noted()

    def leave(self) -> None:
        """In a forked child."""
        self._noted.clear()
        self._put_back()


def _leave() -> None:
    while _all:
        _all[-1].leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)

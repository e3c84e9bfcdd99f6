"""`Held`: Ctrl-C, and SIGTERM, wait while a step is taken that must not be left half done.

::

    main thread      with Held(): ─▶ handlers replaced by one that notes ─▶ the step ─▶ put back, and called for what was noted
                                       │ fork
    a forked child                     └─▶ put back; what was noted is the parent's

A handler of Python's runs in the main thread, between any two of its steps, and may raise: KeyboardInterrupt, SystemExit. In another thread there
is nothing to hold up. The signal mask would not do: the kernel gives the signal to a thread that does not block it, and Python the handler to the
main thread all the same; and a program that is started meanwhile would inherit the mask. Other signals (an alarm, say) are not held: what they
raise may be the very end of a step that takes too long.

No lock: what is here is used by the main thread alone.

Invariants
    Each signal is noted and its handler called, or passed on. A second one of the same kind is passed on at once, for both, and nothing is held any
    more: the step may hang.
    A loop within a `try` is in a function of its own: 3.12 and later do not cover all of its steps.
    Handlers are put back while signals are still held, SIGINT last: so one signal leaves none behind. Where more than one strikes, a handler that
    is left behind passes on.
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

_SIGNALS = signal.SIGINT, signal.SIGTERM

_all: list[Held] = []
"""Those that hold signals now: the last one those of what a handler does, that was passed on."""


class Held:
    """A ``with`` block in which handlers of SIGINT and SIGTERM wait, if this is the main thread."""

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
            self._take()
        except BaseException as error:
            self.__exit__()
            trace = error.__traceback__
            if (
                isinstance(error, ValueError)
                and trace is not None
                and trace.tb_next is not None
                and trace.tb_next.tb_next is None
            ):
                return  # of `signal.signal`: the main thread of a sub-interpreter, where no handlers run
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self._put_back()
        finally:
            self._holds = False
            try:
                self._call_noted()
            finally:
                with suppress(ValueError):
                    _all.remove(self)

    def _take(self) -> None:
        _all[:] = [held for held in _all if held._holds]  # others were left by more than one signal
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._holds and number not in self._noted:
            self._noted.append(number)
            return
        self._holds = False
        with suppress(ValueError):
            self._noted.remove(number)
        try:
            self._handlers[number](number, frame)
        finally:
            self._call_noted()

    def _put_back(self) -> None:
        for number in reversed(_SIGNALS):
            handler = self._handlers.get(number)
            if handler is not None and signal.getsignal(number) == self._note:
                signal.signal(number, handler)

    def _call_noted(self) -> None:
        if self._noted:
            number = self._noted.pop(0)
            try:
                self._handlers[number](number, sys._getframe())
            finally:  # it may raise, and the others are to be called all the same
                self._call_noted()

    def leave(self) -> None:
        """In a forked child."""
        self._noted.clear()
        self._put_back()
        self._holds = False


def _leave() -> None:
    while _all:
        _all.pop().leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)

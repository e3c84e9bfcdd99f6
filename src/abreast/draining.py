"""`drain_on`: when a signal asks the program to end, what runs finishes, what waits does not start, and then the program ends.

::

    main thread, in the block                     drain (a thread, from the first signal on)
    ─────────────────────────                     ──────────────────────────────────────────
    SIGTERM ─▶ handler: notes it, starts the  ──▶ core/draining.py: all executors, runs, groups start nothing more ─▶ futures
               thread, and returns                                                                                     │
    waits in result(), next(), __exit__ …  ◀────────────────────────── outcomes of what ran; Drained ──────────────────┘
    waits for something else               ◀── Drained, raised by the handler: once, when nothing runs, and nothing is to be taken
    second signal, deadline                ──▶ kills processes, abandons threads; Stopped, raised by the handler
    block is left ─▶ waits until nothing runs ─▶ SystemExit(128 + signal)

The handler takes no lock and calls nothing of the user's: it may strike at any step of the main thread. It starts the thread by
`_thread.start_new_thread`, since ``Thread.start`` takes locks that the main thread may just hold.

Another signal may strike the handler itself, whose handler raises. So leaving the block starts the thread once more; `_begun` is taken by the one
that drains.

What belongs to whom: `signal`, `_strikes` and `_error` are written by the drain thread and the handler, never at the same time (`_strike` first
writes, then sends the signal); `_leaving` by the main thread. No lock guards them. `_again` and `_over` are locks that are used as bells: who
waits acquires, who rings releases.
"""

from __future__ import annotations

import _thread
import os
import signal as signals
import threading
import time
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from abreast.core import draining
from abreast.core.check import seconds_or_none
from abreast.core.errors import Drained
from abreast.core.future import acquire_patiently

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Self

__all__ = ["Drain", "drain_on"]

POLL = 0.02
"""Seconds between two looks of the drain thread."""
STILL = 25
"""Looks in a row at which the main thread has not moved: then it waits."""
MOVED = 0.002
"""Seconds of CPU time that are no movement: who waits in steps takes a few microseconds for each."""
LAST = 5.0
"""Seconds that a block may take to end after everything has been killed, before the process is ended as it is."""
PATIENCE = 1.0
"""Seconds from the second signal on in which further ones do nothing: it is ending."""


class Stopped(KeyboardInterrupt):
    """Ends the block at the second signal, or the deadline: whatever ends a run or a group at Ctrl-C ends it then too."""


def drain_on(*numbers: int, deadline: float | None = 30.0) -> Drain:
    """Let what runs finish when a signal asks the program to end: the context manager for programs that are stopped from outside.

    Containers and service managers stop a program by SIGTERM, and kill it some time later. Within the block, at the first of these signals,
    every executor, run and group of this process starts nothing more, also those that were made before the block. Tasks that run finish; in
    a batch, the one that runs. What has not started ends with `Drained`: a future has it as its exception, `outcomes` yields it, ``submit``
    raises it; `map` and `imap` raise it behind what can be delivered. So the body ends soon: where it waits for tasks, at once; where it waits
    for something else (``time.sleep``, a socket, a queue), by a `Drained` raised there when nothing runs any more. A body that is still
    at work is not interrupted, and one that takes the rest of what tasks have returned neither.

    When the block is left, and all that ran has ended, the program ends with exit status 128 + signal: `SystemExit` is raised, unless the
    body has raised something else than `Drained`. A second signal, or the end of the deadline, ends it at once: processes are killed,
    threads abandoned. Without a signal the block costs nothing, and changes nothing when it is left but the handlers: back to what they were.

    What a running task starts is a part of it and finishes too, but for what it submits to an executor that is not its own. Tasks
    that a foreign executor runs go on; the run that has sent them starts no more. Worker processes that are started within the block outlive
    these signals themselves, since they may be sent to all processes of a service at once; they do not count for `multiprocessing.Process`.

    Args:
        numbers: the signals, as ``signal.SIGTERM``; at least one.
        deadline: seconds from the first signal to the end of what still runs, above 0. None: no limit.

    Returns:
        A context manager; ``with drain_on(…) as drain`` gives a `Drain`.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.
        ValueError: from ``with``, outside of the main thread, where signals cannot be handled.

    >>> import abreast, signal
    >>> with abreast.drain_on(signal.SIGTERM, deadline=20) as drain:
    ...     lengths = abreast.map(len, ["one", "three"])
    >>> lengths, drain.signal
    ([3, 5], None)
    """
    return Drain(numbers, deadline)


class Drain:
    """The block of `drain_on`.

    Attributes:
        signal (int | None): the signal that has asked the program to end; None before. A loop may look at it.

    >>> import abreast, signal
    >>> with abreast.drain_on(signal.SIGTERM) as drain:
    ...     while drain.signal is None:
    ...         break  # the next piece of work
    """

    def __init__(self, numbers: tuple[int, ...], deadline: float | None) -> None:
        self._numbers = _checked(numbers)
        self._deadline = seconds_or_none("deadline", deadline)
        self.signal: int | None = None
        self._entered = self._leaving = False
        self._pid = 0
        self._previous: dict[int, Any] = {}
        self._held: tuple[int, ...] = ()
        self._error: BaseException | None = None
        self._strikes = 0
        self._killed_at: float | None = None
        self._begun = threading.Lock()
        self._again, self._over = threading.Lock(), threading.Lock()
        self._again.acquire()
        self._over.acquire()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("drain_on works in the main thread only: it is there that signals are handled")
        if self._entered:
            raise RuntimeError("a block of drain_on can be entered once")
        self._entered = True
        self._pid = os.getpid()
        self._thread = threading.Thread(
            target=self._drain, name="abreast-drain", daemon=True
        )  # starts at the signal, if one comes
        self._held = draining.hold((*draining.held_signals(), *self._numbers))
        _blocks.append(self)
        try:
            for number in self._numbers:
                self._previous[number] = signals.signal(number, self._handle)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leaving = True  # from now on the handler raises nothing
        try:
            try:
                if self.signal is not None:
                    self._wait()
            finally:
                self._restore()
            if self.signal is None:
                return
            self._wait()  # for a signal that came last
            if error is None or _is_of_drain(error):
                raise SystemExit(128 + self.signal)
        finally:
            if self.signal is not None:
                draining.end()
            del error

    def _wait(self) -> None:
        """Wait until nothing runs any more."""
        # Once more: another signal may have struck the handler after it had noted this one, and before it had started the thread.
        if not self._begun.locked():
            self._launch()
        acquire_patiently(self._over, None)
        self._over.release()  # for the second wait

    def _restore(self) -> None:
        if self in _blocks:
            _blocks.remove(self)
            draining.hold(self._held)
        for number in self._numbers:
            if number in self._previous:
                previous = self._previous.pop(number)
                signals.signal(number, signals.SIG_DFL if previous is None else previous)  # None: not set by Python

    # ---- the handler, in the main thread, between any two of its steps

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._pass_on(number)
        elif self._strikes:
            self._strikes -= 1
            error, self._error = self._error, None
            try:
                if error is not None and not self._leaving:
                    self._raise(error)
            finally:
                del error, frame
        elif self.signal is None:
            self.signal = number
            draining.begin(_name(number))
            if not self._launch():
                raise Stopped from None
        elif self._killed_at is not None and monotonic() - self._killed_at > PATIENCE:
            self._end_process(number)  # whoever goes on sending it wants that
        else:
            with suppress(RuntimeError):  # it has been rung already
                self._again.release()

    def _raise(self, error: BaseException) -> None:
        """Raise an error in the body; the command does it in its own way (cli/signals.py)."""
        raise error

    def _end_process(self, number: int) -> None:
        os._exit(128 + number)

    def _pass_on(self, number: int) -> None:
        """In a forked child, before `_leave_to_parent`."""
        self._restore()
        os.kill(os.getpid(), number)

    def _launch(self) -> bool:
        """Start the drain thread, if that has not been done; False if the system gives no thread: then at least the program ends."""
        try:
            _thread.start_new_thread(self._start, ())
        except RuntimeError:
            if self._begun.acquire(blocking=False):
                self._over.release()
                return False
        return True

    # ---- the drain thread

    def _start(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        draining.begin(_name(self.signal or 0))  # if the handler was struck before it had
        try:
            self._thread.start()
        except RuntimeError:  # the system gives no second thread
            self._drain()

    def _drain(self) -> None:
        try:
            if not self._is_drained():
                self._kill()
        finally:
            self._over.release()

    def _is_drained(self) -> bool:
        """Drain everything; True when the block has been left and nothing runs, False when that has to be ended."""
        end = None if self._deadline is None else monotonic() + self._deadline
        telling = _in_thread(draining.drain_all)
        main = _MainThread()
        struck = False
        while end is None or monotonic() < end:
            if self._again.acquire(timeout=POLL):
                return False
            if telling.is_alive() or draining.is_any("is_working"):
                continue
            if self._leaving:
                return True
            if not struck and not draining.is_any("is_consumed") and main.stands_still():
                struck = True  # once: what the body does about it is not to be interrupted
                self._strike(Drained(f"the program has been asked to end, by {draining.reason()}, and nothing runs any more"))
        return False

    def _kill(self) -> None:
        self._killed_at = monotonic()
        if not self._leaving:
            self._strike(Stopped())  # first: or the body would find its process killed, and end with that error
        _in_thread(draining.drop_all).join(PATIENCE)
        while not self._leaving and monotonic() - self._killed_at < LAST:
            self._again.acquire(timeout=POLL)
        if not self._leaving:
            self._end_process(self.signal or 0)  # it is stuck, or does not want to end

    def _strike(self, error: BaseException) -> None:
        """Raise an error in the main thread, whatever it waits for."""
        self._error = error
        self._strikes += 1
        number = self.signal or 0
        if hasattr(signals, "pthread_kill"):
            signals.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            _thread.interrupt_main(signals.Signals(number))


_blocks: list[Drain] = []  # the innermost is the last


def _leave_to_parent() -> None:
    # In a forked child the blocks are the parent's: what its own parent sends, `Process.terminate` for instance, is to end it.
    for block in reversed(_blocks[:]):
        block._restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class _MainThread:
    """Whether the main thread moves, by the CPU time that it takes."""

    def __init__(self) -> None:
        self._looks = 0
        self._last = -1.0
        self._clock: int | None = None
        with suppress(AttributeError, OSError):  # not on every system: there the body has until the deadline
            self._clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)

    def stands_still(self) -> bool:
        """Look, and return whether it has not moved at the last `STILL` looks. Looks, not seconds: on a busy machine both wait."""
        if self._clock is None:
            return False
        now = time.clock_gettime(self._clock)
        if now - self._last > MOVED:
            self._last, self._looks = now, 0
        self._looks += 1
        return self._looks > STILL


def _in_thread(do: Callable[[], object]) -> threading.Thread:
    """Run what may call the user's code in a thread of its own."""
    thread = threading.Thread(target=do, name="abreast-drain-members", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        do()
        thread = threading.Thread(target=do)  # one that is not alive
    return thread


def _is_of_drain(error: BaseException) -> bool:
    """Whether an error says nothing but that the program was asked to end."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_of_drain, error.exceptions))
    return isinstance(error, (Drained, Stopped))


def _name(number: int) -> str:
    with suppress(ValueError):
        return signals.Signals(number).name
    return f"signal {number}"


def _checked(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers:
        raise ValueError("drain_on needs a signal: drain_on(signal.SIGTERM)")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"a signal is a number, as signal.SIGTERM, not {number!r}")
        if number not in signals.valid_signals():
            raise ValueError(f"there is no signal {number!r} here")
        if number in (getattr(signals, "SIGKILL", None), getattr(signals, "SIGSTOP", None)):
            raise ValueError(f"{_name(number)} cannot be handled, by any program")
    return tuple(dict.fromkeys(numbers))

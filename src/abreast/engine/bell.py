"""How the consumer of a run waits for news, and who wakes it.

::

    the thread that asks                                    any thread, with the run's lock
    ────────────────────                                    ───────────────────────────────
    a step begins: news = False                             ring: news = True, and the waker is called, once
      … looks at everything …
    begin_wait: no news so far? then a waker is there ◀──── (run.py and settling.py say what is news)
    park: until the waker releases a lock of this wait's own, or the time is up
    end_wait: no waker any more

The run's lock guards `Bell`; but a step sets `news` to False without it, *before* it looks at anything: what comes later is news again. The lock
that `park` makes guards nothing: its release is the wake-up.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from abreast.core.future import acquire_patiently

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Waits(Protocol):
        """A run, for who waits."""

        def begin_wait(self, waker: Callable[[], object], *, ask: bool = True) -> bool: ...

        def end_wait(self) -> None: ...


__all__ = ["Bell", "park", "patience"]

_PATIENCE = 0.001
"""Seconds to wait for a whole batch of tiny tasks before asking for what there is of it: without the GIL, a consumer that is quicker
than the workers would else be woken for each task, at 20 us."""
_TINY = 20e-6
_TINY_FOR_PROCESSES, _PATIENCE_FOR_PROCESSES = 500e-6, 0.008
"""The same where each wake-up of the consumer takes a core from the processes that compute: 40 us of CPU time, on two cores."""


class Bell:
    """Of one run.

    Attributes:
        news: whether something has come since the last step began, which it may have missed.
        waker: what wakes the consumer, while it waits.
        patient: whether it waits for more than one result.
        looks_at: when it looks by itself; 0 while it does.
    """

    __slots__ = ("looks_at", "news", "patient", "waker")

    def __init__(self) -> None:
        self.news = self.patient = False
        self.waker: Callable[[], object] | None = None
        self.looks_at = 0.0

    def ring(self) -> None:
        """There is news: wake the consumer, if it waits."""
        self.news = True
        waker, self.waker = self.waker, None
        if waker is not None:
            waker()

    def notice(self, when: float) -> None:
        """Something is to be done at a time: wake the consumer if it would sleep longer."""
        if when < self.looks_at:
            self.ring()


def patience(item: float | None, *, processes: bool) -> float | None:
    """Return how many seconds to wait for a whole batch before asking for parts of it; None: ask at once. `item`: seconds of a task."""
    tiny, seconds = (_TINY_FOR_PROCESSES, _PATIENCE_FOR_PROCESSES) if processes else (_TINY, _PATIENCE)
    return seconds if item is not None and item < tiny else None


def park(run: Waits, limit: float | None, *, ask: bool) -> bool:
    """Wait, in a thread, `limit` seconds at most; whether there is news. `ask`: see `Run.begin_wait`."""
    lock = threading.Lock()
    lock.acquire()
    try:
        if not run.begin_wait(lock.release, ask=ask):
            return True
        return acquire_patiently(lock, None if limit is None else min(limit, threading.TIMEOUT_MAX))
    finally:
        run.end_wait()

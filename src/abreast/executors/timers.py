"""Time limits of thread tasks, and what is to be done later: one thread, one heap, for all executors of the program.

::

    worker ──start()──▶ clock.since = now          (no lock: one store)
           ──rest()───▶ resting                    (only when it is about to wait for work)
                           │
    timer thread: heap of (due, clock) ── due ──▶ an Alarm: its action is called
                                              ├─▶ resting: dropped, start() enters it again
                                              ├─▶ since + limit not reached: pushed again, at the time it will be
                                              └─▶ reached: future._publish(TaskTimeout) decides who settles it
                                                    won:  the worker is given up and replaced, callbacks run
                                                    lost: the worker has just finished; nothing happens

A thread cannot be killed. So a limit gives the *task* up: its future fails on time, the thread is left behind, does not
count any more, is replaced, and ends when its function returns. One entry in the heap per worker, not per task: a short
task costs a look at the clock (70 ns), nothing is pushed or cancelled.

An `Alarm` is for a retry that nobody waits for. What it does must be short, and no code of the user's: it hands the work on.

`_condition` guards the heap, `_thread` and each clock's `resting` and `armed` (whether it is in the heap). `since` and the
worker's task are written by the worker without a lock and only read here; a stale look costs one more wake-up, since the
decision is the future's. A callback of the user's never runs in the timer thread: it could block.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import sys
import threading
import traceback
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any

from abreast.core import watch
from abreast.core.errors import TaskTimeout
from abreast.core.future import Future
from abreast.executors.attempt import Attempt
from abreast.executors.deadlock import describe_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Worker(Protocol):
        name: str
        group: Any
        task: Future[Any] | None

        @property
        def ident(self) -> int | None: ...


__all__ = ["Alarm", "Clock", "new_thread", "run_limited", "stop_all"]

LOGGER = logging.getLogger("concurrent.futures")

_condition = threading.Condition(threading.Lock())
_heap: list[tuple[float, int, Clock | Alarm]] = []
_numbers = itertools.count()  # so that the heap never compares clocks
_removed = 0  # entries of the heap that are not armed, or more
_thread: threading.Thread | None = None


class Clock:
    """When the task of one worker began, and how long it may run.

    Of all its tasks; or with `picks` of those alone that have a limit of their own, `only` being the one that runs now.
    """

    def __init__(self, worker: Worker, limit: float, *, picks: bool = False) -> None:
        self.worker = worker
        self.limit = limit
        self.picks = picks
        self.only: Future[Any] | None = None
        self.since = 0.0
        self.resting = True
        self.armed = False
        self.verdict: weakref.ref[TaskTimeout] | None = None  # weak: it holds the frames of all that it was raised in

    def start(self) -> None:
        """The worker begins a task. To be called before it shows the task: the timer reads the two the other way round."""
        self.since = monotonic()
        if self.resting:
            with _condition:
                if self.armed or _push(self, self.since + self.limit):
                    self.resting = False

    def rest(self) -> None:
        """The worker is about to wait for work: its entry is dropped when it comes up, so an idle program sleeps."""
        with _condition:
            self.resting = True

    def has_ended(self, task: Future[Any]) -> bool:
        """Whether the limit, and not its worker or somebody outside, has settled `task`."""
        return self.verdict is not None and task._exception is not None and self.verdict() is task._exception

    def stop(self) -> None:
        """The worker ends, or is left behind."""
        with _condition:
            self.resting = True
            if self.armed:
                _remove(self)


class Alarm:
    """Calls `action` at a time (of `monotonic`), once, in the timer thread; it must take no more than a moment, and run no code of the user's.

    Raises:
        RuntimeError: no thread can be started.
    """

    __slots__ = ("action", "armed", "due", "resting")

    def __init__(self, due: float, action: Callable[[], object]) -> None:
        self.due = due
        self.action = action
        self.resting = self.armed = False
        with _condition:
            if not _push(self, due):
                raise RuntimeError("no timer thread can be started, so a retry cannot be waited for")

    def stop(self) -> None:
        """It is not to be called any more; it may be just now."""
        with _condition:
            self.resting = True
            if self.armed:
                _remove(self)


def _remove(entry: Clock | Alarm) -> None:
    """Take out of the heap, with `_condition` held; for good when half of it has been taken out: ten thousand may be, one by one."""
    global _removed
    entry.armed = False
    _removed += 1
    if 2 * _removed >= len(_heap):
        _heap[:] = [other for other in _heap if other[2].armed]
        heapq.heapify(_heap)
        _removed = 0
        _condition.notify()  # nothing left: the timer thread ends


def run_limited(worker: Any, limit: float, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `fn` in a worker, under a limit of this task's own instead of the worker's."""
    clock: Clock | None = worker.own_limit  # kept: to enter the heap and leave it for each task would take 10 us
    if clock is None or clock.limit != limit:
        if clock is not None:
            clock.stop()
        worker.own_limit = clock = Clock(worker, limit, picks=True)
    if worker.clock is not None:
        worker.clock.rest()
    clock.start()
    clock.only = worker.task  # after `since`: the timer reads them the other way round
    try:
        return fn(*args, **kwargs)
    finally:
        clock.only = None
        clock.rest()


def _push(clock: Clock | Alarm, due: float) -> bool:
    """Enter a clock, with `_condition` held; wake the timer if it is the next one due. False if no timer can be started."""
    global _thread
    if _thread is None or not _thread.is_alive():
        thread = new_thread(_watch, "abreast-timer")
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # the task must not be lost for it; its successor tries again
            if isinstance(clock, Clock):
                LOGGER.warning("a task runs without its task_timeout, since no timer thread can be started: %s", error)
            return False
        _thread = thread
    clock.armed = True
    heapq.heappush(_heap, (due, next(_numbers), clock))
    if _heap[0][2] is clock:
        _condition.notify()
    return True


def new_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Return a daemon thread, or an ordinary one in a sub-interpreter, which has no daemons; not started."""
    try:
        return threading.Thread(target=target, name=name, daemon=True)
    except RuntimeError:
        return threading.Thread(target=target, name=name, daemon=False)


def _watch() -> None:
    """The timer thread: ends when there is nothing to watch."""
    global _thread
    while True:
        with _condition:
            clock = _next_due()
            if clock is None:
                _thread = None
                return
        if isinstance(clock, Alarm):
            try:
                clock.action()
            except BaseException:  # as below
                LOGGER.critical("what was to be done later could not be done", exc_info=True)
            del clock
            continue
        try:
            again = _look(clock)
        except BaseException:  # nothing may end the limits of all others
            LOGGER.critical("a task_timeout could not be enforced", exc_info=True)
            again = monotonic() + clock.limit
        with _condition:
            if again is not None and not clock.resting and not clock.armed:
                _push(clock, again)
        del clock


def _look(clock: Clock) -> float | None:
    """Look at the worker of a clock that is due; return when to look again, or None if it has been given up."""
    task = clock.worker.task  # first the task, then since when: a task seen has its own time, not the one before's
    if clock.picks and task is not clock.only:
        task = None  # it has just ended, or is about to begin
    since = clock.since
    now = monotonic()
    if task is not None and since + clock.limit > now:
        return since + clock.limit
    if task is not None and _expire(clock, task):
        return None
    return now + clock.limit  # between two tasks: the next one begins later than now


def _next_due() -> Clock | Alarm | None:
    """Wait, with `_condition` held, until the clock of a worker is due, or an alarm; None if there is none left."""
    while _heap:
        due, _, clock = _heap[0]
        wait = due - monotonic()
        if wait > 0:
            _condition.wait(min(wait, threading.TIMEOUT_MAX))
            continue
        heapq.heappop(_heap)
        was_armed, clock.armed = clock.armed, False
        if was_armed and not clock.resting:
            return clock
    return None


def _expire(clock: Clock, task: Future[Any]) -> bool:
    """Settle a task that is over its limit; False if its worker was quicker."""
    worker = clock.worker
    crew = getattr(worker, "group", None)
    if crew is None:  # the worker has ended
        return False
    # Shown before it is published: the worker that comes too late must find it.
    error = TaskTimeout(describe_call(task), clock.limit, worker.name, _stack(worker))
    clock.verdict = weakref.ref(error)
    if not task._publish(None, error):
        return False
    task._owner = None
    _tell_watchers(task, error)
    clock.stop()
    try:
        if task._done_callbacks:
            crew.aside(lambda: task._invoke_callbacks(BaseException))
        else:
            task._invoke_callbacks()
    finally:
        crew.give_up(worker)  # last: who waits for the crew waits for this worker until then
    return True


def _tell_watchers(task: Future[Any], error: TaskTimeout) -> None:
    fn: Any = task._fn  # None if it has just ended, when its worker tells them
    if isinstance(fn, Attempt):
        fn = fn.fn
    if isinstance(fn, watch.Watched):
        fn.expired(error)


def _stack(worker: Worker) -> str:
    """Return where the worker's thread is now, from the user's function on.

    Nothing without the GIL: there the thread goes on while its frames are being read, which crashes the interpreter
    (a segmentation fault in ``traceback.walk_stack`` after a minute of the soak, 3.13t).
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return ""
    frame = sys._current_frames().get(worker.ident or 0)
    if frame is None:
        return ""
    frames = traceback.extract_stack(frame)
    ours = [i for i, entry in enumerate(frames) if entry.filename == _RUN.co_filename and entry.name == _RUN.co_name]
    first = ours[0] + 1 if ours else 0
    while first < len(frames) - 1 and frames[first].filename.startswith((_HERE, watch.__file__)):
        first += 1
    return "".join(traceback.format_list(frames[first:]))


_HERE = __file__.removesuffix("timers.py")
_RUN = Future._run.__code__


def stop_all() -> None:
    """End the timer thread: at the end of the program, after everything has been waited for."""
    with _condition:
        _heap.clear()
        _condition.notify()


def _forget() -> None:
    global _condition, _thread
    _condition = threading.Condition(threading.Lock())  # another thread may have held it at the fork
    _heap.clear()
    _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

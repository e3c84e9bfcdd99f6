"""The threads of one executor and what they share: queue, idle list, growth, end.

::

    submit ──▶ put ──▶ [ SimpleQueue of futures ] ─▶ get ──▶ Worker: future._run(...)   (a thread each)
      │                                               ▲               │
      │ while the crew may grow:                      │               │ enters `idle` before its outcome can be seen,
      └──▶ idle.pop(): promised to an idle worker ────┘               │ if the queue is empty
           nobody idle: grow() starts one more                        ▼
                                                            waiter wakes, callbacks run (in the worker)

    A future carries its own call (core/future.py). None in the queue is EXIT, passed on from worker to worker.

Who holds whom
    executor → crew ← workers. Workers do not hold the executor: when it is collected, its weak reference's callback posts
    EXIT, the workers finish what is queued, and end. `SimpleQueue.put` is reentrant, so that callback is safe anywhere.

Which lock guards what
    `lock`: members, abandoned, the reasons to be closed, and starting threads. Nothing of the user's is called under it, and
    it is not taken to submit once all threads are there. The queue and `idle` (a list: append and pop are atomic, also
    free-threaded) need none.

Invariants
    *len(idle) = workers that wait or are about to, minus tasks promised to them*, so a new thread is started exactly when no worker
    is idle. An unpromised task that an idle worker takes takes an entry away; if a submitter was quicker, its promised task
    is left without a worker, and that worker starts one (`_unpromised`).

    *A submit is accepted or refused, never lost, while somebody else closes the crew*: `closed` is set before EXIT is
    posted, and looked at again after the task was put. If it is set then, the submitter cancels its own task: if that works
    nobody will run it, and the submit is refused; if not, a worker has it.

    *Who settles a future is decided by the future* (core/future.py): a worker, the time limit, or a cancel. A worker that
    comes too late knows that it has been given up, and ends.

At the end of the program a hook of `threading` (as in the standard library) closes all crews and joins their workers,
but not abandoned ones: threads are daemons for that, since it cannot be changed later. Sub-interpreters, which have no daemon
threads, get ordinary ones. In a forked child there are no workers: the crew starts afresh, and tasks of before the fork
fail there.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import sys
import threading
import weakref
from concurrent.futures.thread import BrokenThreadPool
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.executors import deadlock, timers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from abreast.core.future import Future

__all__ = ["Crew", "Worker"]

LOGGER = logging.getLogger("concurrent.futures")  # the standard library's: who listens there goes on hearing

_this_thread = threading.local()  # .worker, in a worker's thread
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
_program_ends = False


class Counts(NamedTuple):
    """How many tasks of a worker have ended, and how."""

    ended: int
    failed: int
    cancelled: int


_FAILED = Counts(1, 1, 0)
_CANCELLED = Counts(1, 0, 1)


class Worker(threading.Thread):
    """One thread of a crew."""

    def __init__(self, crew: Crew, name: str) -> None:
        # 3.14 lets a thread inherit the context of who starts it (by default where free-threaded): the first submitter's
        # values would live as long as the worker. A task brings its own context.
        context: dict[str, Any] = {"context": Context()} if sys.version_info >= (3, 14) else {}
        try:
            super().__init__(name=name, daemon=True, **context)
        except RuntimeError:  # 'daemon threads are disabled in this (sub)interpreter'
            super().__init__(name=name, daemon=False, **context)
        self.group = crew
        self.task: Future[Any] | None = None
        self.ended = self.failed = self.cancelled = 0  # written by this thread only
        self.clock: timers.Clock | None = None if crew.task_timeout is None else timers.Clock(self, crew.task_timeout)
        self.released = threading.Event()
        """Set once nobody needs to wait for this worker: it has ended, or was abandoned."""

    def run(self) -> None:
        _this_thread.worker = self
        try:
            if self.group.initialize():
                while not self._serve_until_exit():
                    pass
        finally:
            if self.clock is not None:
                self.clock.stop()
            self.released.set()

    def _serve_until_exit(self) -> bool:
        """Run tasks until EXIT comes or this worker was given up; False if an error came out of the blue."""
        try:
            self._serve()
        except BaseException as error:  # an exception thrown into this thread from outside may strike between two tasks
            LOGGER.critical("Exception in worker", exc_info=True)
            task, self.task = self.task, None
            if task is not None and task._publish(None, error):
                task._invoke_callbacks(BaseException)
            return False
        return True

    def _serve(self) -> None:
        crew = self.group
        clock = self.clock
        room = crew.room
        get, empty = crew.queue.get, crew.queue.empty
        registered: bool | None = False  # whether crew.idle holds an entry for this worker
        while True:
            idle = crew.idle
            if idle is not None and not registered and empty():
                idle.append(None)
                registered = True
            future = get() if clock is None else self._get_by(clock)
            if future is None:
                crew.queue.put(None)  # the next worker's EXIT
                return
            if registered and crew.idle is not None and not future._promised:
                crew._unpromised()
            if room is not None:
                room.leave(future)
            if clock is not None:
                clock.start()
            self.task = future
            idle = crew.idle
            registered = future._run(self, None if idle is None or not empty() else idle)
            self.task = None
            self.ended += 1
            if registered is None:
                if clock is not None and clock.has_ended(future):
                    return  # this worker is given up, and has been replaced
                if future.cancelled():
                    self.cancelled += 1
                registered = False
            future = None  # keep nothing of the user's while waiting

    def _get_by(self, clock: timers.Clock) -> Any:
        """Take the next item; before waiting for one, tell the clock."""
        try:
            return self.group.queue.get_nowait()
        except Empty:
            clock.rest()
            return self.group.queue.get()


class Room:
    """How many tasks may wait (`max_pending`): ``submit`` enters, a task that starts or is cancelled leaves.

    `condition` guards `waiting`. A set of futures, not a count: leaving twice (cancelled, then found by a worker) counts once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.condition = threading.Condition(threading.Lock())
        self.waiting: set[Future[Any]] = set()

    def enter(self, future: Future[Any], crew: Crew) -> None:
        """Wait until fewer than `limit` tasks wait, and let `future` be one of them.

        Raises:
            RuntimeError: the crew was closed meanwhile.
            DeadlockDetected: this thread is a worker, and nobody is left to make room.
        """
        if self._enter_now(future, crew):
            return
        worker = current_worker()
        while not self._enter_now(future, crew):
            if worker is None:
                self._wait(crew)
            else:
                deadlock.wait_or_raise(worker, crew, None, lambda: self._wait(crew))

    def _enter_now(self, future: Future[Any], crew: Crew) -> bool:
        with self.condition:
            if crew.closed:
                raise crew.refusal()
            if len(self.waiting) >= self.limit:
                return False
            self.waiting.add(future)
        # Cancelled, or failed since the pool broke: it leaves too. When it was run it has left long before.
        future.add_done_callback(self.leave)
        return True

    def _wait(self, crew: Crew) -> None:
        with self.condition:
            while len(self.waiting) >= self.limit and not crew.closed:
                self.condition.wait()

    def leave(self, future: Future[Any]) -> None:
        with self.condition:
            if future in self.waiting:
                self.waiting.remove(future)
                self.condition.notify()

    def wake_all(self) -> None:
        with self.condition:
            self.condition.notify_all()


class Crew:
    """The workers of one executor, their queue, and when they begin and end."""

    def __init__(
        self,
        *,
        name: str,
        max_workers: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[object, ...],
        max_pending: int | None,
        task_timeout: float | None,
    ) -> None:
        self.name = name
        self.max_workers = max_workers
        self.initializer = initializer
        self.initargs = initargs
        self.room = None if max_pending is None else Room(max_pending)
        self.task_timeout = task_timeout
        self.owner: object = None  # the executor's weak reference to itself, kept alive here for its callback
        self.lock = threading.Lock()
        self.closed = _program_ends
        self.broken: str = ""
        self.cause: BaseException | None = None
        self.exit_posted = False
        self.gone = Counts(0, 0, 0)  # of workers that have gone, and of tasks settled without one
        self.members: set[Worker] = set()
        self.abandoned: set[Worker] = set()
        self._start_afresh()
        _crews.add(self)

    def _start_afresh(self) -> None:
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.put = self.queue.put
        self.numbers = itertools.count()
        self.idle: list[None] | None = []
        """One entry for each idle worker nothing is promised to; None once all workers are there, when nobody counts."""
        self.direct = False
        """Whether a submit needs no more than put(): all workers are there, no max_pending, not closed."""

    # ---- a submit that is not direct

    def admit(self, future: Future[Any]) -> None:
        """Queue a task, starting a worker for it if none is idle and there may be more.

        Raises:
            RuntimeError: the crew is closed (BrokenThreadPool if broken), or not even one thread can be started.
        """
        if self.closed:
            raise self.refusal()
        if self.room is not None:
            self.room.enter(future, self)
        idle = self.idle
        future._promised = True
        if idle is not None:
            try:
                idle.pop()
            except IndexError:
                future._promised = False
        self.put(future)
        if not future._promised:
            self.grow(future)
        if self.closed:
            self.withdraw(future)  # type: ignore[unreachable]  # another thread may have closed it since

    def withdraw(self, future: Future[Any]) -> None:
        """The crew was closed while `future` was put: take it back and refuse it, unless a worker has it."""
        if future.cancel():
            raise self.refusal()

    def refusal(self) -> RuntimeError:
        """Return the error for a submit to this closed crew; a new object each time, since tracebacks grow."""
        if self.broken:
            error = BrokenThreadPool(self.broken)
            error.__cause__ = self.cause
            return error
        return RuntimeError(f"cannot schedule new futures after {'interpreter ' if _program_ends else ''}shutdown")

    # ---- growing

    def grow(self, future: Future[Any] | None = None) -> None:
        """Start one more worker, if there may be one.

        Raises:
            RuntimeError: the system gives no thread, and there is no worker to run `future`, which is withdrawn.
        """
        with self.lock:
            if not self.may_start_one():
                return
            try:
                self._start_one()
            except (RuntimeError, MemoryError) as error:
                if self.members or future is None:
                    LOGGER.warning("%s goes on with %d threads: %s", self.name, len(self.members), error)
                elif future.cancel():
                    raise
                return
            if len(self.members) >= self.max_workers:
                self.idle = None
                self.direct = self.room is None and not self.closed

    def _start_one(self) -> None:
        worker = Worker(self, f"{self.name}_{next(self.numbers)}")
        self.members.add(worker)
        try:
            worker.start()
        except BaseException:
            if worker.ident is None:  # else Ctrl-C struck while it was starting: it runs
                self.members.discard(worker)
            raise

    def _unpromised(self) -> None:
        """An idle worker has taken a task that nobody had promised it: take its entry away."""
        idle = self.idle
        if idle is not None:
            try:
                idle.pop()
            except IndexError:  # promised to somebody else meanwhile, and that task has no worker now
                self.grow()

    def may_start_one(self) -> bool:
        return self.idle is not None and not self.closed and len(self.members) < self.max_workers

    def has_room(self) -> bool:
        return self.room is None or self.closed or len(self.room.waiting) < self.room.limit

    def initialize(self) -> bool:
        """Run the initializer, in the worker; False if it failed, which breaks the crew."""
        if self.initializer is not None:
            try:
                self.initializer(*self.initargs)
            except BaseException as error:  # SystemExit as well: a worker that is not set up must not run tasks
                LOGGER.critical("Exception in initializer:", exc_info=True)
                self.break_down("A thread initializer failed, the thread pool is not usable anymore", error)
                return False
        return True

    # ---- waiting

    def wait_for(self, future: Future[Any]) -> None:
        """Wait for a future of this crew; see core/future.py, Owner."""
        worker = current_worker()
        if worker is None:
            future._park(None)
        else:
            deadlock.wait_or_raise(worker, self, future, lambda: future._park(None))

    def join(self) -> None:
        """Wait until the last worker has ended that is not abandoned. Ctrl-C abandons those at work."""
        if current_worker() in self.members:
            return  # a task that shuts down its own executor cannot wait for itself
        try:
            # Again and again: a worker that is given up for its time limit is replaced, also now.
            while working := [worker for worker in list(self.members) if not worker.released.is_set()]:
                for worker in working:
                    worker.released.wait()
            for worker in list(self.members):
                worker.join()
        except KeyboardInterrupt:
            self.abandon()
            raise

    # ---- ending

    def close(self) -> None:
        """Accept nothing more; the workers finish what is queued, and end."""
        with self.lock:
            self.closed = True
            self.direct = False
            if not self.exit_posted:
                self.exit_posted = True
                self.put(None)
        if self.room is not None:
            self.room.wake_all()

    def cancel_pending(self) -> None:
        """Cancel what is queued, and tell those who wait for it (the standard library's `shutdown` forgets `wait`)."""
        for future in self._drain():
            if future.cancel():
                future._claim()
                with self.lock:
                    self.gone = _sum((self.gone, _CANCELLED))

    def break_down(self, why: str, cause: BaseException | None = None) -> None:
        """Close for good: what is queued fails with BrokenThreadPool, saying `why`."""
        with self.lock:
            self.broken = why
            self.cause = cause
        self.close()
        for future in self._drain():
            if future._claim() and future._publish(None, self.refusal()):
                with self.lock:
                    self.gone = _sum((self.gone, _FAILED))
                future._invoke_callbacks(BaseException)

    def abandon(self) -> None:
        """Cancel what is queued, and wait for nobody: what runs is left behind."""
        self.close()
        self.cancel_pending()
        with self.lock:
            for worker in list(self.members):
                self._give_up(worker)

    def give_up(self, worker: Worker) -> None:
        """A worker's task has run over its limit: leave it behind and start another in its place."""
        with self.lock:
            self._give_up(worker)
            for other in [other for other in self.abandoned if not other.is_alive()]:
                self.abandoned.discard(other)
                self.gone = _sum((self.gone, other))
            self.gone = _sum((self.gone, _FAILED))
            stuck = len(self.abandoned)
            too_many = stuck > 2 * self.max_workers
            if not too_many and not self.broken:
                try:
                    self._start_one()
                except (RuntimeError, MemoryError) as error:
                    LOGGER.warning("%s cannot replace a thread left behind: %s", self.name, error)
                    too_many = not self.members
        if too_many:
            why = (
                f"{stuck} threads of {self.name} were left behind by tasks over their task_timeout, more than twice "
                f"max_workers={self.max_workers}: something blocks for good"
            )
            timers.aside(lambda: self.break_down(why))

    def _give_up(self, worker: Worker) -> None:
        self.members.discard(worker)
        self.abandoned.add(worker)
        worker.released.set()

    def _drain(self) -> list[Future[Any]]:
        """Take all tasks out of the queue; EXIT stays."""
        futures = []
        exits = 0
        while True:
            try:
                item = self.queue.get_nowait()
            except Empty:
                break
            if item is None:
                exits += 1
            else:
                futures.append(item)
        for _ in range(exits):
            self.put(None)
        return futures

    # ---- looking

    def counts(self) -> Counts:
        """Return how many tasks have ended, and how."""
        with self.lock:
            return _sum((self.gone, *self.members, *self.abandoned))

    def pending(self) -> int:
        """Return how many tasks wait for a worker, those included that were cancelled there."""
        return max(0, self.queue.qsize() - self.exit_posted)

    # ---- forked

    def _after_fork(self) -> None:
        """In the child: no worker is left. Tasks of before fail here; a new submit starts new workers."""
        self.lock = threading.Lock()
        lost = [worker.task for worker in self.members if worker.task is not None and worker is not current_worker()]
        old = self.queue
        while True:
            try:
                item = old.get_nowait()
            except Empty:
                break
            if item is not None:
                lost.append(item)
        old.put(None)  # should the forking thread be a worker: it ends after its task
        for future in lost:
            future._lose(BrokenThreadPool(f"this task was left in the parent when process {os.getpid()} was forked from it"))
        self.gone = _sum((self.gone, *self.members, *self.abandoned))
        self.members.clear()
        self.abandoned.clear()
        if self.room is not None:
            self.room.condition = threading.Condition(threading.Lock())
            self.room.waiting.clear()
        self.exit_posted = False
        self._start_afresh()


def _sum(parts: Iterable[Counts | Worker]) -> Counts:
    parts = tuple(parts)
    return Counts(sum(part.ended for part in parts), sum(part.failed for part in parts), sum(part.cancelled for part in parts))


def current_worker() -> Worker | None:
    """Return the worker that runs in this thread, or None."""
    return getattr(_this_thread, "worker", None)


def _end_of_program() -> None:
    """Close all crews, let them finish what is queued, wait for them; after Ctrl-C abandon them."""
    global _program_ends
    _program_ends = True
    crews = list(_crews)
    for crew in crews:
        crew.close()
    if _ended_by_ctrl_c():
        for crew in crews:
            crew.abandon()
    try:
        for crew in crews:
            crew.join()
    except KeyboardInterrupt:
        for crew in crews:
            crew.abandon()
        raise
    finally:
        timers.stop_all()


def _ended_by_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt that nobody caught is what ends the program (the interpreter leaves it in sys)."""
    last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return isinstance(last, KeyboardInterrupt) and not hasattr(sys, "ps1")  # at a prompt it may be an old one


def _after_fork_in_child() -> None:
    for crew in list(_crews):
        crew._after_fork()


try:
    # Runs before non-daemon threads are joined, also in sub-interpreters. Private, but what the standard library's own
    # executors use; atexit comes later, when 3.12 and later start no more threads.
    threading._register_atexit(_end_of_program)  # type: ignore[attr-defined]  # private: see above
except AttributeError:
    atexit.register(_end_of_program)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

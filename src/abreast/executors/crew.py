"""The threads of one executor and what they share: queue, idle list, growth, end.

::

    submit ──▶ put ──▶ [ SimpleQueue of futures ] ─▶ get ──▶ Worker: future._run(...)   (a thread each)
      │                                               ▲               │
      │ while the crew may grow:                      │               │ while the crew may grow: enters `idle`
      └──▶ idle.pop(): promised to an idle worker ────┘               │ before its outcome can be seen
           nobody idle: grow() starts one more                        ▼
                                                            waiter wakes, callbacks run (in the worker)

    A future carries its own call (core/future.py). None in the queue is EXIT, passed on from worker to worker.

Who holds whom
    executor → crew ← workers. Workers do not hold the executor: when it is collected, its weak reference's callback posts
    EXIT, the workers finish what is queued, and end. `SimpleQueue.put` is reentrant, so that callback is safe anywhere.

Which lock guards what
    `lock`: members, abandoned, the reasons to be closed, and starting threads. Nothing of the user's is called under it (a
    log handler neither), and it is not taken to submit once all threads are there. The queue and `idle` (a list: append
    and pop are atomic, also free-threaded) need none. `_crews_lock`: the list of all crews and `_program_ends`.

Invariants
    *len(idle) = workers that wait or are about to, minus tasks promised to them*, so a new thread is started exactly when no worker
    is idle; it is idle from birth, and the task that it was started for is promised to it. Any worker may get any task; so one that is in the list and gets an unpromised task takes an entry away (if a
    submitter was quicker, the task promised to that entry has no worker, and it starts one), and one that is not in the
    list and gets a promised task puts an entry back, for the worker that goes on waiting.

    *A submit is accepted or refused, never lost, while somebody else closes the crew*: `closed` is set before EXIT is
    posted, and looked at again after the task was put. If it is set then, the submitter cancels its own task: if that works
    nobody will run it, and the submit is refused; if not, a worker has it.

    *Who holds the crew may submit although it is closed*: a call that is to be tried again later (`hold`). EXIT is posted when nobody holds
    it any more; `ends` is set right before, and is to them what `closed` is to all others.

    *Between get() and `worker.task`* nothing of ours raises: the task would be in nobody's hands.

    *Who settles a future is decided by the future* (core/future.py): a worker, the time limit, or a cancel. A worker overtaken by
    the limit ends. It is a member until its successor is one, so who waits for the crew never finds it empty in between.

At the end of the program a hook of `threading` (as in the standard library) closes all crews and joins their workers,
but not abandoned ones: threads are daemons for that, since it cannot be changed later. Sub-interpreters, which have no daemon
threads, get ordinary ones. In a forked child there are no workers: the crew starts afresh, and tasks of before the fork
fail there.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
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

from abreast.core import draining, watch
from abreast.core.current import Scope, here
from abreast.core.errors import Drained
from abreast.core.future import STEP, Future
from abreast.executors import deadlock, timers
from abreast.executors.base import deliver_from
from abreast.executors.batch import run_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from abreast.executors.base import Deliver
    from abreast.executors.batch import Batch

    class Holder(Protocol):
        """What is to be done later, and needs the workers then."""

        def cancel(self) -> object:
            """Cancel it if it waits."""

        def drain(self) -> object:
            """It is not to be done any more: if it waits, it ends with Drained."""


__all__ = ["Crew", "Worker"]

LOGGER = logging.getLogger("concurrent.futures")  # the standard library's: who listens there goes on hearing

_this_thread = threading.local()  # .worker, in a worker; .aside_of (a crew), in a thread that runs callbacks beside it
_crews_lock = threading.Lock()
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
        self.registered = False
        """Whether crew.idle holds an entry for this worker."""
        self.ended = self.failed = self.cancelled = 0  # written by this thread only
        self.clock: timers.Clock | None = None if crew.task_timeout is None else timers.Clock(self, crew.task_timeout)
        self.own_limit: timers.Clock | None = None  # of tasks that have a limit of their own
        self.overtaken = self.over = False
        self.scope = Scope()
        """Cancelled when the worker is left behind: tells its task, if that asks."""
        self.released = threading.Event()
        """Set once nobody needs to wait for this worker: it has ended, or was abandoned."""

    def run(self) -> None:
        # Threads that a task starts inherit this; they are the user's and must not be daemons because ours are.
        self._daemonic = False
        _this_thread.worker = here.worker = self
        crew = self.group
        try:
            if crew.enlist(self) and crew.initialize():
                while not self._serve_until_exit():
                    pass
        finally:
            for clock in (self.clock, self.own_limit):
                if clock is not None:
                    clock.stop()
            if not self.overtaken:  # else give_up() does it, when the successor is there
                self.released.set()
            crew.forget(self)
            del self.group  # crew and workers would hold each other, and the initializer's arguments, until a collection

    def _serve_until_exit(self) -> bool:
        """Run tasks until EXIT comes or this worker is overtaken by a limit; False if an error came out of the blue."""
        try:
            self._serve()
        except BaseException as error:  # an exception thrown into this thread from outside may strike between two tasks
            task, self.task = self.task, None
            self.registered = False
            if task is not None and task._publish(None, error):
                task._invoke_callbacks(BaseException)
            if self.group.must_end():
                self.group.put(None)  # it may have been EXIT that was lost
            LOGGER.critical("Exception in worker", exc_info=error)  # last: a handler may raise too
            return False
        return True

    def _serve(self) -> None:
        crew = self.group
        clock = self.clock
        room = crew.room
        queue = crew.queue  # this one to the end: in a forked child the crew has another
        get = queue.get
        while True:
            # The short way, as in submit: nothing to count. All that follows costs 0.15 us more for each task.
            self.registered = self.registered and not crew.direct
            while crew.direct and clock is None:
                future = get()
                if future is None:
                    queue.put(None)  # the next worker's EXIT
                    return
                self.task = future
                if future._run(self) is None:
                    if self._was_overtaken(future):
                        return
                    self.cancelled += future.cancelled()
                self.task = None
                self.ended += 1
                del future  # keep nothing of the user's while waiting

            at_once = clock is None and (self.registered or crew.idle is None)
            future = get() if at_once else self._get_idle(queue)
            if future is None:
                queue.put(None)
                return
            if clock is not None:
                clock.start()
            self.task = future
            idle = crew.idle
            if idle is not None and self.registered != future._promised:
                crew.correct_idle(future)
            self.registered = False
            if room is not None:
                room.leave(future)
            ran = future._run(self, idle)
            self.task = None
            if ran is None:
                if self._was_overtaken(future):
                    return
                self.cancelled += future.cancelled()
            elif ran:
                self.registered = True
            self.ended += 1
            del future

    def run_limited(self, limit: float, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` in this worker, under a limit of its task's own."""
        return timers.run_limited(self, limit, fn, *args, **kwargs)

    def _was_overtaken(self, future: Future[Any]) -> bool:
        """Whether a time limit has settled the task that this worker has just run: then there is another in its place."""
        self.overtaken = any(clock is not None and clock.has_ended(future) for clock in (self.clock, self.own_limit))
        if self.overtaken:
            self.task = None
        return self.overtaken

    def _get_idle(self, queue: SimpleQueue[Any]) -> Any:
        """Take the next task; before waiting for one, enter the idle list and tell the clock.

        Only once the queue was found empty: looking whether it is would not do, since another worker may be quicker.
        """
        try:
            return queue.get_nowait()
        except Empty:
            pass
        if self.clock is not None:
            self.clock.rest()
        idle = self.group.idle
        if idle is not None and not self.registered:
            self.registered = True
            idle.append(None)
        return queue.get()


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
        worker = current_worker()
        try:
            while not self._enter_now(future, crew):
                if worker is None:
                    self._wait(crew)
                else:
                    deadlock.wait_or_raise(worker, crew, None, lambda: self._wait(crew))
        except BaseException:
            with self.condition:
                self.condition.notify()  # Ctrl-C: a wake-up that was for us is for another
            raise

    def _enter_now(self, future: Future[Any], crew: Crew) -> bool:
        with self.condition:
            if crew.closed:
                raise crew.refusal()
            if len(self.waiting) >= self.limit:
                return False
            self.waiting.add(future)
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
        self.place = watch.Place(name, "thread", max_workers)
        self.max_workers = max_workers
        self.initializer = initializer
        self.initargs = initargs
        self.room = None if max_pending is None else Room(max_pending)
        self.task_timeout = task_timeout
        self.owner: weakref.ref[Any] | None = None  # to the executor; kept here for its callback
        self.lock = threading.RLock()  # re-entrant for a finalizer that gives up a run of this crew
        self.broken: str = ""
        self.cause: BaseException | None = None
        self.drained = False
        self.exit_posted = self.ends = False
        self.holders: set[Holder] = set()
        self.gone = Counts(0, 0, 0)  # of workers that have gone, and of tasks settled without one
        self.members: set[Worker] = set()
        self.abandoned: set[Worker] = set()
        self.asides: set[threading.Event] = set()  # one for each thread beside the workers, set when it has ended
        self._start_afresh()
        with _crews_lock:
            self.closed = self.ends = _program_ends
            _crews.add(self)
        draining.enrol(self, draining.EXECUTOR)

    def _start_afresh(self) -> None:
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.put = self.queue.put
        self.numbers = itertools.count()
        self.idle: list[None] | None = []
        """One entry for each idle worker nothing is promised to; None once all workers are there, when nobody counts."""
        self.direct = False
        """Whether a submit needs no more than put(): all workers are there, no max_pending, not closed."""

    # ---- a submit that is not direct

    def admit(self, future: Future[Any], *, may_wait: bool = True, held: bool = False) -> None:
        """Queue a task, starting a worker for it if none is idle and there may be more.

        Args:
            future: the task.
            may_wait: whether to wait for room if there is a `max_pending`.
            held: whether it belongs to somebody who may hold the crew.

        Raises:
            RuntimeError: the crew is closed (BrokenThreadPool if broken), or not even one thread can be started.
        """
        if self.drained or (self.ends if held else self.closed):
            raise self.refusal()
        try:
            if self.room is not None and may_wait:
                self.room.enter(future, self)
            idle = self.idle
            if idle is not None:
                future._promised = self._find_worker(idle)
            self.put(future)
        except BaseException:
            if self.room is not None:
                self.room.leave(future)
            raise
        if self.drained or (self.ends if held else self.closed):  # type: ignore[redundant-expr]  # another thread may have drained it since
            self.withdraw(future)  # another thread may have closed it since

    # ---- held open, for what is to be done later

    def hold(self, holder: Holder) -> None:
        """Keep the crew at work until `let_go`, although it may be closed meanwhile; ``holder.cancel()`` is called when what waits is cancelled.

        Raises:
            RuntimeError: it is closed.
        """
        with self.lock:
            if self.closed:
                raise self.refusal()
            self.holders.add(holder)

    def let_go(self, holder: Holder) -> None:
        """End a `hold`; nothing happens if it has been ended."""
        with self.lock:
            self.holders.discard(holder)
            if self.closed:
                self._post_exit()

    def call_soon(self, action: Callable[[], object]) -> None:
        """Have a worker call `action`, for who holds the crew. Never waits."""
        errand: Future[Any] = Future()
        errand._owner = None
        errand._fn, errand._args = _do_errand, (action,)
        errand._kwargs = errand._context = None
        errand._promised = False
        self.admit(errand, may_wait=False, held=True)

    def submit_call(self, batch: Batch, deliver: Deliver) -> Future[Any]:
        """Queue a batch of a run; `deliver` is called by the worker once it is over. See executors/base.py.

        A worker that goes on with a run, from within `deliver`, is not held up by `max_pending`. When the crew ends, it is refused,
        and goes on by itself (`goes_on_here`): a task put behind EXIT would find nobody.

        Raises:
            RuntimeError: the crew is closed.
        """
        future: Future[Any] = Future()
        future._owner = self
        future._fn = _run_batch_here
        future._args = (batch,)
        future._kwargs = future._context = None
        future._promised = False
        future._watched().add(functools.partial(deliver_from, batch, deliver))  # no lock: nobody else knows of it yet
        worker = current_worker()
        mine = worker is not None and worker.group is self
        if mine and self.must_end():
            raise self.refusal()
        if self.direct:
            self.put(future)
        else:
            self.admit(future, may_wait=worker is None, held=mine)
        if self.must_end() if mine else self.closed:  # meanwhile
            self.withdraw(future)
        return future

    def wait_for_call(self, handle: Future[Any], wait: Callable[[], None]) -> None:
        """Call `wait`, which ends once the call of this crew that `handle` stands for goes on.

        Raises:
            DeadlockDetected: this thread is a worker, and that would be never.
        """
        worker = current_worker()
        if worker is None:
            wait()
        else:
            deadlock.wait_or_raise(worker, self, handle, wait)

    def goes_on_here(self) -> bool:
        """Whether this thread is a worker of this crew, which ends, and so must itself run what was started before."""
        worker = current_worker()
        return worker is not None and getattr(worker, "group", None) is self and self.must_end() and not self.broken

    def withdraw(self, future: Future[Any]) -> None:
        """The crew was closed while `future` was put: take it back and refuse it, unless a worker has it."""
        if future.cancel():
            raise self.refusal()

    def refusal(self) -> Exception:
        """Return the error for a submit to this closed crew; a new object each time, since tracebacks grow."""
        if self.broken:
            error = BrokenThreadPool(self.broken)
            error.__cause__ = self.cause
            return error
        if self.drained:
            return draining.drained(f"a task of {self.name}")
        return RuntimeError(f"cannot schedule new futures after {'interpreter ' if _program_ends else ''}shutdown")

    # ---- growing

    def _find_worker(self, idle: list[None]) -> bool:
        """Find an idle worker for one task, or start one; False if all there may be are at work.

        Raises:
            RuntimeError: the system gives no thread, and there is none yet.
        """
        try:
            idle.pop()
        except IndexError:
            return self.grow()
        return True

    def grow(self) -> bool:
        """Start one more worker, if there may be one; whether there is one more. It is idle, and not in the idle list.

        Raises:
            RuntimeError: the system gives no thread, and there is none yet.
        """
        with self.lock:
            if not self.may_start_one():
                return False
            try:
                problem = self._start_one()
            finally:
                if len(self.members) >= self.max_workers:
                    self.idle = None
                    self.direct = self.room is None and not self.closed
        if problem is None:
            return True
        if not self.members:
            raise problem
        LOGGER.warning("%s goes on with %d threads: %s", self.name, len(self.members), problem)
        return False

    def _start_one(self) -> BaseException | None:
        """Start a worker, with `lock` held; return why the system gives no thread for it."""
        worker = Worker(self, f"{self.name}_{next(self.numbers)}")
        worker.registered = True  # from now on, not from when it gets to run: else each submit until then starts another
        self.members.add(worker)
        try:
            worker.start()
        except BaseException as error:
            if worker.ident is None:  # else Ctrl-C struck when it was running already; if it comes to run, it enlists itself
                self.members.discard(worker)
                worker.released.set()
            if not isinstance(error, (RuntimeError, MemoryError)):
                raise
            if isinstance(error.__context__, KeyboardInterrupt):  # 3.11: 'release unlocked lock', out of Event.wait
                raise error.__context__ from None
            return error
        return None

    def enlist(self, worker: Worker) -> bool:
        """A worker begins: a member by now, unless starting it was interrupted. False if there is no place for it."""
        if worker not in self.members:
            with self.lock:
                if worker not in self.abandoned and worker not in self.members:
                    if len(self.members) >= self.max_workers:
                        return False
                    worker.released = threading.Event()
                    self.members.add(worker)
        return True

    def correct_idle(self, future: Future[Any]) -> None:
        """A worker got a task that was promised to another, or an unpromised one while it was in the idle list."""
        idle = self.idle
        if idle is None:
            return
        if future._promised:
            idle.append(None)  # for the worker that it was promised to, which goes on waiting
            return
        try:
            idle.pop()
        except IndexError:  # promised to somebody else meanwhile: that task has no worker now, so it gets a new one
            self.grow()

    def may_start_one(self) -> bool:
        return self.idle is not None and not self.ends and len(self.members) < self.max_workers

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

    def wait_for(self, future: Future[Any], timeout: float | None) -> None:
        """Wait for a future of this crew; see core/future.py, Owner."""
        worker = current_worker()
        if worker is None:
            future._park(timeout)
            return
        idle = self.idle
        mine = worker.group is self and worker.registered
        if mine and idle is not None and not future.done() and self.grow():
            # A destructor of the user's that runs in a worker which is idle by the list, and so may be the very one
            # that the task is promised to: hence one more, as idle as that.
            idle.append(None)
        if timeout is None:
            deadlock.wait_or_raise(worker, self, future, lambda: future._park(None))
        else:
            future._park(timeout)

    def cancelled(self, future: Future[Any]) -> None:
        """A future of this crew was cancelled; see core/future.py, Owner."""
        if self.room is not None:
            self.room.leave(future)

    def join(self) -> None:
        """Wait until the last worker has ended that is not abandoned, and all callbacks have run. Ctrl-C abandons those at work."""
        if current_worker() in self.members or getattr(_this_thread, "aside_of", None) is self:
            return  # a task or callback that shuts down its own executor cannot wait for itself
        if watch.active:
            with watch.joining(f"end of {self.name}"):
                self._join()
        else:
            self._join()

    def _join(self) -> None:
        try:
            # Again and again: a worker that is given up for its time limit is replaced, also now.
            while working := self._working():
                for ended in working:
                    while not ended.wait(STEP):  # in steps: see acquire_patiently
                        pass
            for worker in list(self.members):
                worker.join()
        except KeyboardInterrupt:
            self.abandon()
            raise

    def _working(self) -> list[threading.Event]:
        with self.lock:
            return [*(worker.released for worker in self.members if not worker.released.is_set()), *list(self.asides)]

    # ---- ending

    def close(self, *, at_once: bool = False) -> None:
        """Accept nothing more; the workers finish what is queued, and end: with `at_once` although somebody holds the crew."""
        with self.lock:
            self.closed = True
            self.direct = False
            if at_once:
                self.holders.clear()
            self._post_exit()
        if self.room is not None:
            self.room.wake_all()

    def _post_exit(self) -> None:
        """Tell the workers to end, with `lock` held, if nobody holds the crew."""
        if not self.holders and not self.exit_posted:
            self.ends = True
            self.put(None)  # first: were Ctrl-C to strike in between, a second EXIT does no harm
            self.exit_posted = True

    def cancel_pending(self) -> None:
        """Cancel what is queued, and what waits to be tried again, and tell those who wait for it (the standard library's `shutdown` forgets `wait`)."""

        def settle(future: Future[Any]) -> None:
            try:
                future.cancel()
            finally:  # also if a callback raises what ends this loop
                if future.cancelled():
                    future._claim()
                    with self.lock:
                        self.gone = _sum((self.gone, _CANCELLED))

        with self.lock:
            holders = list(self.holders)
        for holder in holders:
            holder.cancel()
        self._settle_pending(settle)

    def break_down(self, why: str, cause: BaseException | None = None) -> None:
        """Close for good: what is queued fails with BrokenThreadPool, saying `why`."""
        with self.lock:
            self.broken = why
            self.cause = cause
        self.close(at_once=True)
        self.fail_pending()

    def fail_pending(self) -> None:
        """What is queued fails with the error that a submit gets."""

        def settle(future: Future[Any]) -> None:
            if self.room is not None:
                self.room.leave(future)
            if future._claim() and future._publish(None, self.refusal()):
                with self.lock:
                    self.gone = _sum((self.gone, _FAILED))
                future._invoke_callbacks(BaseException)

        self._settle_pending(settle)

    def drain(self) -> None:
        """The program has been asked to end: what is queued fails with Drained, what runs goes on. See core/draining.py, Member."""
        self.drained = True
        self.close()
        with self.lock:
            holders = list(self.holders)
        for holder in holders:
            holder.drain()
        if self.pending():
            self.aside(self.fail_pending)  # in a thread of its own: callbacks of the user's may block

    def drop(self) -> None:
        """The program ends now: leave behind what runs, as Drained. See core/draining.py, Member."""
        self.drained = True
        tasks = [worker.task for worker in list(self.members)]
        self.abandon()
        for task in tasks:
            if task is not None and task._publish(
                None, Drained(f"a task of {self.name} was still running when the program ended")
            ):
                self.aside(functools.partial(task._invoke_callbacks, BaseException))

    def is_working(self) -> bool:
        return bool(self._working())

    def is_consumed(self) -> bool:
        return False

    def _settle_pending(self, settle: Callable[[Future[Any]], None]) -> None:
        """Settle all tasks in the queue; EXIT stays. One by one: if a callback raises or Ctrl-C strikes, the others are still there."""
        exits = 0
        try:
            while True:
                future = self.queue.get_nowait()
                if future is None:
                    exits += 1
                else:
                    settle(future)
        except Empty:
            pass
        finally:
            if exits or self.exit_posted:
                self.put(None)

    def abandon(self) -> None:
        """Cancel what is queued, and wait for nobody: what runs is left behind."""
        with self.lock:
            holders = list(self.holders)
        self.close(at_once=True)
        for holder in holders:
            holder.cancel()
        with self.lock:
            left_behind = list(self.members)
            for worker in left_behind:
                self._let_go(worker)
            self.asides.clear()
        self.cancel_pending()
        for worker in left_behind:
            worker.scope.cancel()

    def give_up(self, worker: Worker) -> None:
        """A worker's task has run over its limit: leave it behind and start another in its place."""
        why = ""
        problem = None
        with self.lock:
            stuck = 1 + sum(1 for other in self.abandoned if other.is_alive())
            if worker not in self.members or self.broken:
                pass  # abandoned already, or of no more use
            elif stuck > 2 * self.max_workers:
                why = (
                    f"{stuck} threads of {self.name} were left behind by tasks over their task_timeout, more than twice "
                    f"max_workers={self.max_workers}: something blocks for good"
                )
            else:
                problem = self._start_one()
                if problem is None:
                    if self.idle is not None:
                        self.idle.append(None)  # for the successor
                elif len(self.members) > 1:  # the next submit tries again
                    self.direct = False
                    if self.idle is None:
                        self.idle = []
                else:  # nobody is left to run what is queued
                    why = f"the last thread of {self.name} was left behind by a task over its task_timeout: {problem}"
        if problem is not None:
            LOGGER.warning("%s cannot replace a thread left behind: %s", self.name, problem)
        if why:
            self.aside(lambda: self.break_down(why))
        # Only now: in between, nobody who waits for the crew may find it empty.
        with self.lock:
            self._let_go(worker)
            self.gone = _sum((self.gone, _FAILED))
        worker.scope.cancel()

    def forget(self, worker: Worker) -> None:
        """A worker ends: if it had been left behind, keep only its counts."""
        with self.lock:
            worker.over = True
            if worker in self.abandoned:
                self.abandoned.discard(worker)
                self.gone = _sum((self.gone, worker))

    def _let_go(self, worker: Worker) -> None:
        self.members.discard(worker)
        if worker.over:
            self.gone = _sum((self.gone, worker))
        else:
            self.abandoned.add(worker)
        worker.released.set()

    def must_end(self) -> bool:
        """Whether EXIT is, or should be, in the queue: it ends, or its executor was collected."""
        owner = self.owner
        return self.ends or owner is None or owner() is None

    def aside(self, action: Callable[[], object]) -> None:
        """Run what may call the user's code in a thread of its own, which `join` waits for."""
        ended = threading.Event()

        def run() -> None:
            _this_thread.aside_of = self
            try:
                action()
            finally:
                self.asides.discard(ended)
                ended.set()

        self.asides.add(ended)
        try:
            timers.new_thread(run, f"{self.name}_callbacks").start()
        except (RuntimeError, MemoryError):  # at the end of the program no thread can be started
            run()
            del _this_thread.aside_of

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
        self.lock = threading.RLock()
        here = current_worker()
        lost = [worker.task for worker in self.members if worker.task is not None and worker is not here]
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
        self.asides.clear()
        if self.room is not None:
            self.room.condition = threading.Condition(threading.Lock())
            self.room.waiting.clear()
        self.exit_posted = self.ends = False
        self.holders.clear()
        self._start_afresh()


def _sum(parts: Iterable[Counts | Worker]) -> Counts:
    parts = tuple(parts)
    return Counts(sum(part.ended for part in parts), sum(part.failed for part in parts), sum(part.cancelled for part in parts))


def _do_errand(action: Callable[[], object]) -> None:
    """Do something of ours in a worker; it is no task that would be counted."""
    worker = current_worker()
    if worker is not None:
        worker.ended -= 1
    action()


def _run_batch_here(batch: Batch) -> None:
    """Run a batch in a worker, and count its tasks. What came of it is in the batch: a result would keep its errors alive in a cycle."""
    worker = current_worker()
    if worker is not None and batch.work.limit is not None:
        worker.run_limited(batch.work.limit, run_batch, batch)
    else:
        run_batch(batch)
    if worker is not None:
        worker.ended += len(batch.results) - 1  # the future counts for one
        worker.failed += len(batch.errors)


def current_worker() -> Worker | None:
    """Return the worker that runs in this thread, or None."""
    return getattr(_this_thread, "worker", None)


def _end_of_program() -> None:
    """Close all crews, let them finish what is queued, wait for them; after Ctrl-C abandon them."""
    global _program_ends
    with _crews_lock:
        _program_ends = True
        crews = list(_crews)
    for crew in crews:
        crew.close()
    try:
        if _ended_by_ctrl_c():
            raise KeyboardInterrupt
        for crew in crews:
            crew.join()
    except KeyboardInterrupt:
        for crew in crews:
            crew.abandon()
        if not _ended_by_ctrl_c():
            raise
    finally:
        timers.stop_all()
        if any(crew.abandoned for crew in crews):
            _let_writes_end()


def _let_writes_end() -> None:
    """Wait until no abandoned thread is in the middle of a write to the standard streams.

    The interpreter flushes them last, without waiting for such a thread: 'Fatal Python error: could not acquire lock for
    <_io.BufferedWriter name='<stdout>'> at interpreter shutdown'. Here it is still waited for.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None: nothing to wait for; a full disk is reported by the interpreter
            stream.flush()


def _ended_by_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt that nobody caught is what ends the program (the interpreter leaves it in sys)."""
    last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return isinstance(last, KeyboardInterrupt) and not hasattr(sys, "ps1")  # at a prompt it may be an old one


def _after_fork_in_child() -> None:
    global _crews_lock
    _crews_lock = threading.Lock()
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

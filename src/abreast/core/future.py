"""`Future`: the standard library's, made cheaply, because most are never waited on one by one.

A standard future makes a Condition at birth (an RLock, a deque, six bound methods). Here nothing is made until somebody
watches the future; then it gets a `_Watch`, which holds what each kind of watcher needs::

    who comes                                  what is made          where it waits
    ------------------------------------------ --------------------- ---------------------------------
    result(), exception() of a pending future  watch.parked          a bare lock of its own
    add_done_callback()                        watch.callbacks       -
    wait(), as_completed() and other code of   watch.condition,      as the standard library has it
      the standard library                     watch.waiters

Which lock guards what
    **If the condition exists, the state changes only while it is held. If none exists, the state changes only under the
    stripe lock, which also guards the creation of the condition.** It only goes from None to an object, under the stripe:
    a waiter that creates it before the publication makes the completer take the slow way; one that creates it after it
    sees FINISHED. `parked` and `callbacks` are appended to under the same rule, and only while the state is not final, so
    whoever made it final owns them from then on, without a lock.

    Stripes are leaves: nothing is acquired, called or unpickled under one. So they cannot be part of a cycle. There are 64,
    chosen by address, so that free-threaded builds do not queue up at one lock; they are also the memory barriers there.
    They are re-entrant because of what may run between any two steps: a signal's handler, or a finalizer of the
    garbage collection, that itself cancels a future. And `acquire` stands *inside* the ``try``: CPython runs signal handlers
    after the call of acquire() and before the next step, so Ctrl-C would leave a stripe locked for good (``with lock:`` does so
    on 3.14). `release` is C for the same reason. (Ctrl-C while a stripe is waited for, which takes a thread that was
    stopped within those 100 ns, then shows as a RuntimeError in whose context the KeyboardInterrupt is.)

    The result is stored before the state, so a reader that sees FINISHED needs no lock.

Rejected
    *One condition shared by many futures*: `wait()` takes the conditions of its futures in the order of their ids; two
    waiters over mixed sets would take shared ones in different orders, and deadlock.
    *Publishing without a lock, the GIL being there*: with the state set while `wait()` is between its two passes,
    ``wait(ALL_COMPLETED)`` returns early. Reproduced.
    *A Condition also for result()*: making one costs 2 us, and its lock makes the woken thread collide with the one that
    woke it; a ping-pong of submit().result() took 11.6 us instead of 7.1 on one core.

The cost, and why it looks as it does
    ``with lock:`` costs 134 ns on CPython 3.11, acquire() and release() bound beforehand 66 ns. Hence `_STRIPES` holds pairs of
    bound methods, and try/finally stands where a reader expects ``with``. `_run` is the hot path: all of a task's life in
    one call.

Private names of the standard library that this relies on (held by a test on every version): `_state`, `_result`,
`_exception`, `_condition`, `_waiters`, `_done_callbacks`, `_invoke_callbacks`, and the names of the states.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING, RUNNING
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from abreast.core import watch as watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol

    class Tally(Protocol):
        """Who counts the tasks that fail; written by one thread only."""

        failed: int

    class Owner(Protocol):
        """What a future asks of the executor it came from, when a thread has to wait for it."""

        def wait_for(self, future: Future[Any], timeout: float | None) -> None:
            """Wait until `future` is done, by `future._park(timeout)`; may raise instead if that would be for good."""

        def cancelled(self, future: Future[Any]) -> None:
            """`future` was cancelled. May be told more than once."""


__all__ = ["STEP", "Future", "acquire_patiently", "pause"]

T = TypeVar("T")

_FINAL = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
_LOCKS = [threading.RLock() for _ in range(64)]
_STRIPES = [(lock.acquire, lock.release) for lock in _LOCKS]  # bound methods: see "The cost" above


def _free_stripes() -> None:
    # In a forked child: a stripe that another thread of the parent held at that moment would stay locked for good. In
    # place, since the frame of a task that forks holds on to its stripe.
    for lock in _LOCKS:
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # private; what threading itself uses


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_stripes)


def _stripe(future: Future[Any]) -> tuple[Callable[[], bool], Callable[[], None]]:
    return _STRIPES[(id(future) >> 5) & 63]


STEP = 0.5
"""Seconds that the main thread waits at a time."""


def acquire_patiently(lock: Any, timeout: float | None) -> bool:
    """Acquire a lock that another thread releases; whether that has come within `timeout` seconds.

    The main thread waits in steps: Ctrl-C that comes right before a wait, when Python has looked for signals for the last time, would be
    seen only after it, which may be never (once in some 300 on a busy machine).
    """
    if threading.get_ident() != threading.main_thread().ident or (timeout is not None and timeout <= STEP):
        return lock.acquire(timeout=-1 if timeout is None else timeout)  # type: ignore[no-any-return]  # a lock's
    if timeout is None:
        while not lock.acquire(timeout=STEP):
            pass
        return True
    deadline = monotonic() + timeout
    while (left := deadline - monotonic()) > 0:
        if lock.acquire(timeout=min(left, STEP)):
            return True
    return False


def pause(seconds: float) -> None:
    """Let time pass in this thread; Ctrl-C ends it."""
    lock = threading.Lock()
    lock.acquire()
    acquire_patiently(lock, min(max(seconds, 0), threading.TIMEOUT_MAX))


class _Watch:
    """What those who watch a future have left with it."""

    __slots__ = ("callbacks", "condition", "parked", "waiters")

    # None where there is nothing yet: a waiter makes the watch and one list, not three.
    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], object]] | None = None
        self.parked: list[Any] | None = None  # locks, each held by the thread that waits for it a second time
        self.condition: threading.Condition | None = None
        self.waiters: list[Any] | None = None  # the standard library's

    def add(self, callback: Callable[[Any], object]) -> None:
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append(callback)


class Future(concurrent.futures.Future[T]):
    """The result of a call that runs elsewhere, and may not be there yet.

    A real `concurrent.futures.Future`, and right wherever one is expected: `concurrent.futures.wait`, ``as_completed``,
    `asyncio.wrap_future`. You get one from an executor's ``submit``; make one yourself only to write an executor.

    What differs from the standard one: it costs a fifth to make and half the memory; `result` in a task waits for a task of
    the same executor only while some worker can still run that (`DeadlockDetected`); a ``timeout`` may be infinite.

    >>> import abreast
    >>> with abreast.ThreadPoolExecutor() as executor:
    ...     future = executor.submit(pow, 2, 5)
    ...     future.result()
    32
    >>> future
    <Future at 0x... state=finished returned int>
    """

    # Slots for what every task touches: reading and writing all of it takes 39 ns instead of 222 in the instance's dict (405 on
    # 3.13). The dict stays, for what users attach. The standard __init__ must not run: it makes the Condition.
    __slots__ = ("_args", "_context", "_exception", "_fn", "_kwargs", "_owner", "_promised", "_result", "_state", "_watch")

    _state: str
    _result: T | None
    _exception: BaseException | None
    _watch: _Watch | None
    _owner: Owner | None

    # The call, for executors within this process: set before the future is queued, dropped when it has ended. Here and not
    # in an object of its own, which the garbage collection would visit as well. Not set in a bare future.
    _fn: Any  # Callable[..., T] | None
    _args: Any  # tuple[Any, ...] | None
    _kwargs: dict[str, Any] | None
    _context: Context | None  # None is an empty one
    _promised: bool  # see executors/crew.py

    def __init__(self) -> None:  # takes no argument, as the standard one
        self._state = PENDING
        self._result = None
        self._exception = None
        self._watch = None
        self._owner = None

    # ---- who watches

    def _watched(self) -> _Watch:
        """Return the watch, made if need be. To be called under the stripe, or when the state is final."""
        watch = self._watch
        if watch is None:
            watch = self._watch = _Watch()
        return watch

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # an attribute there
        """For the standard library's wait(), as_completed() and slow paths."""
        watch = self._watch
        if watch is None or watch.condition is None:
            new = threading.Condition()
            acquire, release = _stripe(self)
            try:
                acquire()
                watch = self._watched()
                if watch.condition is None:
                    watch.condition = new
            finally:
                release()
        return watch.condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # an attribute there
        """Only touched by code that holds the condition, so the watch is there."""
        watch = self._watched()
        if watch.waiters is None:
            watch.waiters = []
        return watch.waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        return [] if self._watch is None else self._watch.callbacks or []

    # ---- asking

    def done(self) -> bool:
        """Return True if the task has finished, failed or been cancelled."""
        return self._state in _FINAL

    def running(self) -> bool:
        """Return True if a worker is running the task now."""
        return self._state == RUNNING

    def cancelled(self) -> bool:
        """Return True if the task was cancelled before it started."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> T:
        """Return what the call returned, waiting for it if need be.

        Args:
            timeout: how long to wait at most, in seconds; None waits as long as it takes, 0 not at all.

        Raises:
            TimeoutError: the call had not ended after `timeout` seconds. It goes on.
            CancelledError: the future was cancelled.
            DeadlockDetected: this thread is a worker, and nobody is left to run the task.
            BaseException: what the call raised, as it was raised.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # else: error -> traceback -> this frame -> future -> error
        return self._result  # type: ignore[return-value]  # a T once FINISHED without an exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None if it returned; waits, and raises, as `result` does otherwise.

        Args:
            timeout: how long to wait at most, in seconds; None waits as long as it takes, 0 not at all.

        Raises:
            TimeoutError, CancelledError, DeadlockDetected: as `result`.

        >>> import abreast
        >>> with abreast.ThreadPoolExecutor() as executor:
        ...     executor.submit(int, "x").exception()
        ValueError("invalid literal for int() with base 10: 'x'")
        """
        if self._state != FINISHED:
            self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        """Return once FINISHED; raise if it was cancelled or the time is up."""
        if watching.active:
            with watching.joining("a future"):
                self._wait_here(timeout)
        else:
            self._wait_here(timeout)
        if self._state == FINISHED:
            return
        if self._state in _FINAL:
            raise CancelledError
        raise TimeoutError

    def _wait_here(self, timeout: float | None) -> None:
        owner = self._owner  # read once: it goes when the task ends
        if owner is not None:
            owner.wait_for(self, timeout)
        else:
            self._park(timeout)

    def _park(self, timeout: float | None) -> None:
        """Wait until the state is final, or `timeout` seconds have passed."""
        if timeout is not None:
            timeout = min(max(timeout, 0), threading.TIMEOUT_MAX)
        lock = threading.Lock()
        lock.acquire()
        acquire, release = _stripe(self)
        try:
            acquire()
            if self._state in _FINAL:
                return
            watch = self._watched()
            condition = watch.condition
            if condition is None:
                if watch.parked is None:
                    watch.parked = [lock]
                else:
                    watch.parked.append(lock)
        finally:
            release()
        if condition is not None:
            with condition:
                if self._state not in _FINAL:
                    condition.wait(timeout)
            return
        woken = False
        try:
            woken = acquire_patiently(lock, timeout)
        finally:
            if not woken:  # else a loop of result(timeout=1) would leave a lock each time
                parked = watch.parked  # read once: it goes when the task is done
                if parked is not None:
                    with contextlib.suppress(ValueError):
                        parked.remove(lock)

    # ---- changing

    def cancel(self) -> bool:
        """Cancel the task if it has not started.

        Returns:
            True if it is cancelled now (or was before); False if it is running or done, which cannot be undone.
        """
        acquire, release = _stripe(self)
        try:
            acquire()
            if self._state in (RUNNING, FINISHED):
                return False
            if self._state != PENDING:
                return True
            condition = None if self._watch is None else self._watch.condition
            if condition is None:
                self._state = CANCELLED
        finally:
            release()
        try:
            if condition is not None:
                return super().cancel()
            self._invoke_callbacks()
        finally:
            if self._owner is not None and self.cancelled():
                self._owner.cancelled(self)
        return True

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(future)`` when the task is done: at once, in this thread, if it is.

        Otherwise in the thread that completes or cancels it: for thread executors the worker. Callbacks run in the order
        in which they were added; what one raises is logged (logger ``concurrent.futures``) and the next one runs.

        Args:
            fn: called with this future, once.

        >>> import abreast
        >>> with abreast.ThreadPoolExecutor() as executor:
        ...     future = executor.submit(pow, 2, 5)
        ...     future.add_done_callback(lambda future: print(future.result()))
        32
        """
        acquire, release = _stripe(self)
        try:
            acquire()
            watch = None if self._state in _FINAL else self._watched()
            condition = None if watch is None else watch.condition
            if watch is not None and condition is None:
                watch.add(fn)
                return
        finally:
            release()
        if watch is not None and condition is not None:
            with condition:
                if self._state not in _FINAL:
                    watch.add(fn)
                    return
        self._call_back(fn, Exception)

    def set_running_or_notify_cancel(self) -> bool:
        """For executors: mark the task as running, or tell waiters that it was cancelled.

        Returns:
            True if the task should run now; False if it was cancelled and must not.

        Raises:
            RuntimeError: it runs already, or is finished.
        """
        acquire, release = _stripe(self)
        try:
            acquire()
            if self._watch is None or self._watch.condition is None:
                if self._state == PENDING:
                    self._state = RUNNING
                    return True
                if self._state == CANCELLED:
                    self._state = CANCELLED_AND_NOTIFIED
                    return False
        finally:
            release()
        return super().set_running_or_notify_cancel()

    def set_result(self, result: T) -> None:
        """For executors: the call returned `result`.

        Raises:
            InvalidStateError: the future is finished or cancelled already.
        """
        if not self._publish(result, None):
            self._refuse()
        self._invoke_callbacks()

    def set_exception(self, exception: BaseException | None) -> None:
        """For executors: the call raised `exception`.

        Raises:
            InvalidStateError: the future is finished or cancelled already.
        """
        if not self._publish(None, exception):
            self._refuse()
        self._invoke_callbacks()

    def _publish(self, result: T | None, exception: BaseException | None) -> bool:
        """Make the state FINISHED, under the stripe or else the condition; False if it is final already."""
        acquire, release = _stripe(self)
        try:
            acquire()
            if self._state in _FINAL:
                return False
            condition = None if self._watch is None else self._watch.condition
            if condition is None:
                self._result = result
                self._exception = exception
                self._state = FINISHED
                return True
        finally:
            release()
        with condition:
            if self._state in _FINAL:
                return False
            self._result = result
            self._exception = exception
            self._state = FINISHED
            for waiter in self._waiters:  # of the standard library's wait() and as_completed()
                if exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            condition.notify_all()
        return True

    def _refuse(self) -> NoReturn:
        raise InvalidStateError(f"{self._state}: {self!r}")

    # ---- the hot path

    def _run(self, tally: Tally, idle: list[None] | None = None) -> bool | None:
        """Run the task in this thread: claim it, call its function in its context, publish what it returned or raised.

        Args:
            tally: its `failed` is raised by one if the call raises.
            idle: gets an entry just before the outcome can be seen, unless callbacks are still to run: so the one who
                sees it and submits the next task finds this worker idle, and starts no other (trio's rule; gh-117344).

        Returns:
            None if the task was not to run (cancelled), or its outcome comes too late (somebody else has settled it);
            else whether `idle` got its entry.
        """
        acquire, release = _STRIPES[(id(self) >> 5) & 63]
        try:
            acquire()
            watch = self._watch
            if claimed := self._state == PENDING and (watch is None or watch.condition is None):
                self._state = RUNNING
        finally:
            release()
        if not claimed and not self._claim():
            self._drop_call()
            return None

        fn, args, kwargs, context = self._fn, self._args, self._kwargs, self._context
        value = error = None
        if context is None:
            context = Context()
        try:
            if kwargs:
                value = context.run(fn, *args, **kwargs)
            elif len(args) == 1:  # the commonest call; unpacking costs 70 ns
                value = context.run(fn, args[0])
            else:
                value = context.run(fn, *args)
        except BaseException as exc:  # whatever a task raises, SystemExit too, is its outcome: it belongs to whoever asks
            error = exc.with_traceback(_without_first(exc.__traceback__))  # it starts at the user's function

        # Let go of the arguments first: a destructor of the user's must not run in a worker that is in the idle list already.
        self._fn = self._args = self._kwargs = self._context = fn = args = kwargs = context = None
        registered: bool | None = False
        try:
            acquire()
            watch = self._watch
            if fast := self._state == RUNNING and (watch is None or watch.condition is None):
                if idle is not None and (watch is None or watch.callbacks is None):
                    idle.append(None)
                    registered = True
                if error is None:
                    self._result = value
                else:
                    self._exception = error
                self._owner = None
                self._state = FINISHED
        finally:
            release()
        if not fast:
            if self._publish(value, error):
                self._owner = None
            else:
                registered = watch = None
        if watch is not None:
            self._invoke_callbacks(BaseException)
        if error is not None:
            # The user's frame, which the traceback holds, has this one as its f_back: without this, a cycle from the
            # error to itself and to the future.
            if registered is not None:
                tally.failed += 1
            self = error = None  # type: ignore[assignment]  # self is on its way out
        return registered

    def _claim(self) -> bool:
        """The slow half of `_run`'s claim: there is a condition, or the future is not pending."""
        try:
            return self.set_running_or_notify_cancel()
        except RuntimeError:  # somebody has set a result from outside; the standard library has logged it
            return False

    def _drop_call(self) -> None:
        self._fn = self._args = self._kwargs = self._context = None

    # ---- what happens after a state has become final

    def _invoke_callbacks(self, caught: type[BaseException] = Exception) -> None:
        """Wake who is parked, then run the callbacks; also called by the standard library's `cancel`.

        `caught` is BaseException in a worker: SystemExit out of a callback must not end the worker (in the standard
        library the pool then hangs for good). On a bare future it goes to the caller, as it does there.
        """
        watch = self._watch  # it stays: code of the standard library may hold its condition and look for its waiters
        if watch is not None:
            parked, watch.parked = watch.parked, None
            if parked is not None:
                for lock in tuple(parked):  # one that has given up may take itself out meanwhile
                    lock.release()
            callbacks, watch.callbacks = watch.callbacks, None
            if callbacks is not None:
                for fn in callbacks:
                    self._call_back(fn, caught)

    def _call_back(self, fn: Callable[[Future[T]], object], caught: type[BaseException]) -> None:
        try:
            fn(self)
        except caught:
            LOGGER.exception("exception calling callback for %r", self)

    # ---- the rest

    def _lose(self, error: BaseException) -> None:
        """In a forked child: fail, since nobody here will complete it. The locks may be held by threads that are not here."""
        self._watch = self._owner = None
        if self._state not in _FINAL:
            self._exception = error
            self._state = FINISHED

    def __repr__(self) -> str:
        state = self._state  # one look: it may change meanwhile
        text = {CANCELLED_AND_NOTIFIED: "cancelled"}.get(state, state.lower())
        if state == FINISHED:
            if self._exception is not None:
                text += f" raised {type(self._exception).__name__}"
            else:
                text += f" returned {type(self._result).__name__}"
        return f"<{type(self).__name__} at {id(self):#x} state={text}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Future cannot be pickled or copied; send its result() instead")


def _without_first(traceback: TracebackType | None) -> TracebackType | None:
    return traceback if traceback is None else watching.without_frame(traceback.tb_next)

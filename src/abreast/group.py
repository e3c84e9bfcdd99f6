"""`TaskGroup`: functions that run at the same time, and none outlives the block; `sleep` and `checkpoint`, which end with it.

::

    with TaskGroup() as group:        body ── start(f) ──▶ thread T1: f() ─┐ outcome into its future
        …                                  ── start(g) ──▶ thread T2: g() ─┤
    __exit__: waits for all          ◀─────────────────────────────────────┘ the first error cancels the scope:
              raises one ExceptionGroup                                      what has not started is cancelled, what runs is asked
    timer (with `timeout`)            ── cancels the scope when the time is up

Each function has a thread of its own (with `max_workers`: a pool's). The scope (core/current.py) is what asks: tasks, inner groups and
runs in them, and `sleep` in the body, learn of its cancelling.

`_lock` guards `_unfinished`, `_errors`, `_futures`, `_threads` and the state. Nothing is called under it but the waker of the one thread that waits
in `__exit__`. It is re-entrant, for a signal handler that cancels the group.

Invariants: a future of the group is counted in `_unfinished` from before its thread starts until its outcome is known, so
`__exit__` cannot miss one, started by a task too. An outcome that comes when the block has been left (after a timeout
or Ctrl-C) changes nothing but its future.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from abreast.core.check import count_or_none, function, initargs_tuple, seconds_or_none, text_or_none
from abreast.core.current import Body, Scope, Task, body, current_scopes, here, name_of
from abreast.core.future import Future
from abreast.executors.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Self

__all__ = ["TaskGroup", "checkpoint", "sleep"]

P = ParamSpec("P")
T = TypeVar("T")

LOGGER = logging.getLogger("abreast")


class _Job:
    """What a thread of a group runs; what `current_task` asks."""

    __slots__ = ("failed", "name", "scope")

    def __init__(self, name: str, scope: Scope) -> None:
        self.name = name
        self.scope = scope
        self.failed = 0  # counted by Future._run

    def current_task(self) -> Task:
        worker = here.worker
        return Task(self.name, None, 1, (self.scope,) if worker is None else (self.scope, worker.scope))


class _Thread(threading.Thread):
    """A thread for one function. A daemon, since it may have to be left behind; threads that it starts are not."""

    def __init__(self, target: Callable[[], object], name: str) -> None:
        context: dict[str, Any] = {"context": Context()} if sys.version_info >= (3, 14) else {}  # the task brings its own
        try:
            super().__init__(target=target, name=name, daemon=True, **context)
        except RuntimeError:  # a sub-interpreter that has no daemon threads
            super().__init__(target=target, name=name, daemon=False, **context)

    def run(self) -> None:
        self._daemonic = False
        super().run()


class TaskGroup:
    """Functions that run at the same time, each in a thread of its own; leaving the block waits for all of them.

    The first error cancels what has not started, and asks the others to end: `current_task().cancelled` is true, and
    `abreast.sleep` and `abreast.checkpoint` raise `CancelledError` at once, in tasks and in the body of the block. A
    function that does not ask runs to its end. Groups can be nested: cancelling one cancels what is inside.

    Leaving the block raises, when all have ended: an ``ExceptionGroup`` of what the tasks and the body raised (tasks
    that ended with CancelledError because they were asked to are no errors). Ctrl-C goes first: what runs is left behind.

    Args:
        max_workers: how many functions may run at the same time, at least 1, on the threads of a pool. None: each has a thread.
        timeout: seconds that the block may take, above 0; then what runs is asked to end and left behind, and leaving the block
            raises TimeoutError. None: no limit.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.

    >>> import abreast
    >>> with abreast.TaskGroup() as group:
    ...     one = group.start(pow, args=(2, 5), name="T1")
    ...     two = group.submit(str.upper, "done")
    >>> one.result(), two.result()
    (32, 'DONE')
    """

    def __init__(self, max_workers: int | None = None, *, timeout: float | None = None) -> None:
        count_or_none("max_workers", max_workers)
        self._timeout = seconds_or_none("timeout", timeout)
        self._pool = None if max_workers is None else ThreadPool(max_workers, f"TaskGroup-{next(_numbers)}")
        self._lock = threading.RLock()
        self._scope = Scope()
        self._futures: set[Future[Any]] = set()  # not started yet, in a pool
        self._threads: set[threading.Thread] = set()
        self._unfinished = 0
        self._started = 0
        self._errors: list[BaseException] = []
        self._state = "new"  # -> "open" -> "closed"
        self._waker: Callable[[], object] | None = None
        self._outer: tuple[Scope, ...] = ()
        self._token: Token[Body | None] | None = None
        self._deadline: float | None = None
        self._timer: threading.Timer | None = None
        self._expired = False

    # ---- start

    @overload
    def start(self, target: threading.Thread, /) -> Future[None]: ...
    @overload
    def start(
        self,
        target: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> Future[T]: ...
    def start(
        self,
        target: Callable[..., T] | threading.Thread,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> Future[T] | Future[None]:
        """Start a function in a thread of its own, in `threading.Thread`'s spelling, or an unstarted `threading.Thread` as it is.

        Args:
            target: the function; or a Thread, whose ``run`` is what runs, and whose own name, context and daemon mark stay.
            args, kwargs: its arguments.
            name: the name of the thread and the task; default: the function's name and a number.

        Returns:
            The `Future` of the call; of a Thread, one whose result is None.

        Raises:
            TypeError: a wrong argument.
            RuntimeError: outside of the ``with`` block; a Thread that was started before; the system gives no more threads.

        >>> import abreast, threading
        >>> class A(threading.Thread):
        ...     def run(self):
        ...         self.done = True
        >>> thread = A()
        >>> with abreast.TaskGroup() as group:
        ...     future = group.start(thread)
        >>> thread.done
        True
        """
        if isinstance(target, threading.Thread):
            if args != () or kwargs is not None or name is not None:
                raise TypeError("args, kwargs and name do not go with a Thread: it has its own")
            return self._start_thread(target)
        function("target", target)
        text_or_none("name", name)
        arguments = initargs_tuple("args", args)
        if kwargs is not None and not hasattr(kwargs, "keys"):
            raise TypeError(f"kwargs must be a mapping of arguments, not {kwargs!r}")
        return self._start(target, arguments, dict(kwargs or {}), name)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start ``fn(*args, **kwargs)``; every keyword belongs to `fn`. Returns and raises as `start`.

        >>> import abreast
        >>> with abreast.TaskGroup() as group:
        ...     future = group.submit(sorted, [2, 1], reverse=False)
        >>> future.result()
        [1, 2]
        """
        function("fn", fn)
        return self._start(fn, args, kwargs, None)

    def _start(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None) -> Future[T]:
        future: Future[T] = Future()
        number = self._admit()
        if number is None:
            future.cancel()
            return future
        future._fn, future._args, future._kwargs = fn, args, kwargs
        future._context = copy_context()
        label = name or name_of(fn)
        run = partial(self._run, future, _Job(label, self._scope))
        try:
            if self._pool is not None:
                with self._lock:
                    self._futures.add(future)
                self._pool.submit(run)
            else:
                self._launch(_Thread(run, name or f"{label}-{number}"))
        except BaseException:
            self._settled(None)
            raise
        return future

    def _launch(self, thread: threading.Thread) -> None:
        with self._lock:
            if len(self._threads) > 2 * self._unfinished + 64:  # a group that goes on for long
                self._threads = {other for other in self._threads if other.is_alive()}
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self._threads.discard(thread)
            raise

    def _start_thread(self, thread: threading.Thread) -> Future[None]:
        future: Future[None] = Future()
        if thread.ident is not None:
            raise RuntimeError(f"{thread!r} has been started before; a group takes a Thread that has not")
        if self._admit() is None:
            future.cancel()
            return future
        future.set_running_or_notify_cancel()
        # The thread's own run() is wrapped on the instance, the one way to learn of its error; taken off again when it runs.
        thread.run = partial(self._run_thread, thread, thread.run, future)  # type: ignore[method-assign]  # see above
        try:
            self._launch(thread)
        except BaseException:
            self._settled(None)
            raise
        return future

    def _admit(self) -> int | None:
        """Count one more task; None if the group has been cancelled, and the task is not to start.

        Raises:
            RuntimeError: outside of the block.
        """
        with self._lock:
            if self._state != "open":
                when = "before its with block is entered" if self._state == "new" else "after its with block has been left"
                raise RuntimeError(f"a task cannot be started in a TaskGroup {when}")
            if self._scope.cancelled:
                return None
            self._unfinished += 1
            self._started += 1
            return self._started

    # ---- in the threads

    def _run(self, future: Future[Any], job: _Job) -> None:
        with self._lock:
            self._futures.discard(future)
        before, here.running = here.running, job
        try:
            future._run(job)  # claimed, called in its context, published; or found cancelled
        finally:
            here.running = before
            self._settled(future._exception)
            del future

    def _run_thread(self, thread: threading.Thread, run: Callable[[], object], future: Future[None]) -> None:
        del thread.run  # the wrapper; the class's own is there again
        before, here.running = here.running, _Job(thread.name, self._scope)
        error: BaseException | None = None
        try:
            run()
        except BaseException as raised:  # to the group, instead of threading.excepthook
            error = raised.with_traceback(raised.__traceback__ and raised.__traceback__.tb_next)
            future.set_exception(error)
        else:
            future.set_result(None)
        finally:
            here.running = before
            self._settled(error)
            del error, future, thread, run

    def _settled(self, error: BaseException | None) -> None:
        """A task has ended. Its error, unless it only did as it was asked, is the group's."""
        with self._lock:
            fails = error is not None and not (isinstance(error, CancelledError) and self._scope.cancelled)
            if fails and self._state == "open":
                self._errors.append(error)  # type: ignore[arg-type]  # not None: see above
            self._unfinished -= 1
            waker = self._waker if self._unfinished == 0 else None
        if fails:
            self.cancel()
        if waker is not None:
            waker()

    # ---- cancel

    def cancel(self) -> None:
        """Cancel what has not started, and ask what runs to end. Leaving the block still waits for it; it raises nothing of this.

        May be called from any thread, more than once.

        >>> import abreast
        >>> with abreast.TaskGroup() as group:
        ...     future = group.submit(abreast.sleep, 60)
        ...     group.cancel()
        >>> future.exception()
        CancelledError()
        """
        self._scope.cancel()
        with self._lock:
            futures = list(self._futures)
        for future in futures:
            future.cancel()  # its place in the pool finds it cancelled, and counts it as settled

    @property
    def cancelled(self) -> bool:
        """Whether the group has been cancelled: by `cancel`, an error, a timeout, or from outside."""
        return self._scope.cancelled

    # ---- the block

    def __enter__(self) -> Self:
        with self._lock:
            if self._state != "new":
                raise RuntimeError("a TaskGroup can be entered once")
            self._state = "open"
        if self._timeout is not None:
            self._deadline = monotonic() + self._timeout
            self._timer = threading.Timer(self._timeout, self._expire)
            self._timer.name, self._timer.daemon = "TaskGroup-timeout", True
            self._timer.start()
        self._outer = current_scopes()
        for scope in self._outer:
            scope.watch(self.cancel)
        self._token = body.set(Body(self._scope, here.running))
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        with suppress(ValueError, RuntimeError):  # left in another context than it was entered in (a generator's)
            if self._token is not None:
                body.reset(self._token)
        try:
            if error is not None:
                if isinstance(error, KeyboardInterrupt):
                    self._leave()
                    return False
                self.cancel()
            in_time = self._wait()
        except BaseException:  # KeyboardInterrupt while waiting
            self._leave()
            raise
        asked_to_end = isinstance(error, CancelledError) and self._scope.cancelled
        errors = ([] if error is None or asked_to_end else [error]) + self._errors
        if not in_time:
            self._leave()
            self._raise_timeout(errors)
        self._close(abandon=False)
        return self._finish(error, errors)

    def _finish(self, error: BaseException | None, errors: list[BaseException]) -> bool:
        try:
            if isinstance(error, (SystemExit, GeneratorExit)):  # as it is: who exits a program does not look for it in a group
                if others := [other for other in errors if other is not error]:
                    LOGGER.error("lost to a %r", error, exc_info=BaseExceptionGroup("errors in a TaskGroup", others))
                return False
            if errors:
                tasks = f"{len(errors)} error{'s' * (len(errors) > 1)} in a TaskGroup of {self._started} tasks"
                raise BaseExceptionGroup(tasks, errors) from None
            if error is not None and any(scope.cancelled for scope in self._outer):
                return False  # the outer group's doing: its CancelledError goes up to it
            return error is not None
        finally:
            # error -> traceback -> this frame -> errors
            self._errors = []
            del error, errors

    def _expire(self) -> None:
        """The time is up, in the timer's thread: tasks and body are asked to end, whatever the body is at."""
        self._expired = True
        self.cancel()

    def _wait(self) -> bool:
        """Wait until no task is left; False if the time is up."""
        while True:
            lock = threading.Lock()
            lock.acquire()
            with self._lock:
                if not self._unfinished:
                    break
                self._waker = lock.release
            try:
                limit = -1.0 if self._deadline is None else min(max(0.0, self._deadline - monotonic()), threading.TIMEOUT_MAX)
                if not lock.acquire(timeout=limit):
                    return False
            finally:
                with self._lock:
                    self._waker = None
        with self._lock:
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:  # their functions have ended; the threads are about to
            thread.join()
        return not self._expired

    def _raise_timeout(self, errors: list[BaseException]) -> None:
        try:
            timeout = TimeoutError(
                f"a TaskGroup took longer than its timeout of {self._timeout:g} s: {self._unfinished} tasks had not ended"
            )
            if errors:
                raise timeout from BaseExceptionGroup("errors before the timeout", errors)
            raise timeout
        finally:
            self._errors = []
            del errors

    def _leave(self) -> None:
        """End at once: cancel what has not started, leave behind what runs."""
        self.cancel()
        self._close(abandon=True)

    def _close(self, *, abandon: bool) -> None:
        with self._lock:
            self._state = "closed"
        for scope in self._outer:
            scope.unwatch(self.cancel)
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._pool is not None:
            if abandon:
                self._pool._crew.abandon()
            else:
                self._pool.shutdown(wait=True)

    def __repr__(self) -> str:
        state = f"{self._state}, cancelled" if self._scope.cancelled else self._state
        return f"<TaskGroup {state}: {self._started} started, {self._unfinished} not ended>"


_numbers = itertools.count()


# ---- what a task calls to end when it is asked to


def checkpoint() -> None:
    """Raise `CancelledError` if this task, or the group whose body this is, has been asked to end; else do nothing.

    For long loops: call it now and then. Outside of tasks and groups it does nothing.

    >>> import abreast
    >>> with abreast.TaskGroup() as group:
    ...     def work():
    ...         while True:
    ...             abreast.checkpoint()
    ...     future = group.submit(work)
    ...     group.cancel()
    """
    if any(scope.cancelled for scope in current_scopes()):
        raise CancelledError


def sleep(seconds: float) -> None:
    """Sleep; end at once with `CancelledError` when this task, or the group whose body this is, is asked to end.

    Args:
        seconds: how long, 0 or more.

    Raises:
        CancelledError: the task has been asked to end, before or meanwhile.
        TypeError, ValueError: `seconds` is not a number, or negative.

    >>> import abreast
    >>> abreast.sleep(0.01)
    """
    if isinstance(seconds, (bool, str)) or not hasattr(seconds, "__float__"):
        raise TypeError(f"seconds must be a number, not {seconds!r}")
    if not seconds >= 0:  # also refuses nan
        raise ValueError(f"seconds must be at least 0, not {seconds!r}")
    scopes = current_scopes()
    checkpoint()
    if seconds == 0:
        return
    woken = threading.Event()
    for scope in scopes:
        scope.watch(woken.set)
    try:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if woken.wait(min(left, threading.TIMEOUT_MAX)):
                break
    finally:
        for scope in scopes:
            scope.unwatch(woken.set)
    checkpoint()

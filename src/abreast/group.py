"""`TaskGroup`: functions that run at the same time, and none outlives the block; `sleep` and `checkpoint`, which end with it.

::

    with TaskGroup() as group:        body ── start(f) ──▶ thread T1: f() ─┐ outcome into its future
        …                                  ── start(g) ──▶ thread T2: g() ─┤
    __exit__: waits for all          ◀─────────────────────────────────────┘ the first error cancels the scope:
              raises one ExceptionGroup                                      what has not started is cancelled, what runs is asked
    timer (with `timeout`)            ── cancels the scope when the time is up

Each function has a thread of its own (with `max_workers`: a pool's), or with ``kind="process"`` a process (group_pool.py); processes of
`multiprocessing` are waited for by one thread (group_processes.py). The scope (core/current.py) is what asks: tasks, inner groups and
runs in them, and `sleep` in the body, learn of its cancelling.

`_lock` guards `_unfinished`, `_waiting`, `_errors`, `_threads` and the state. Nothing is called under it but the waker of the one thread that
waits in `__exit__`. It is re-entrant, for a signal handler that cancels the group.

Invariants
    A future of the group is in `_unfinished` from before its thread starts until its outcome is known, so `__exit__` cannot
    miss one, started by a task too; the state becomes "closed" in the moment in which none is left.

    It is in `_waiting` as well until a thread has begun it. Who takes it out of there settles it: a thread, that runs it; or
    `cancel`, and a thread that comes later finds nothing to do. Sets, not counts: a start that Ctrl-C interrupts cannot
    know whether its thread runs.

    Processes keep both invariants: the supervisor of their pool asks `_begin` before it sends a function to one.

    An outcome that comes when the block has been left (after a timeout or Ctrl-C) changes nothing but its future.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from reprlib import repr as short
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeGuard, TypeVar, cast, overload

from abreast.core import draining, watch
from abreast.core.check import count_or_none, function, initargs_tuple, no_coroutine_function, seconds_or_none, text_or_none
from abreast.core.current import Body, Scope, Task, current_scopes, here, locked, name_of
from abreast.core.errors import Drained
from abreast.core.future import Future, acquire_patiently
from abreast.core.notes import note
from abreast.executors.crew import _let_writes_end
from abreast.executors.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from multiprocessing.process import BaseProcess
    from types import TracebackType
    from typing import Literal, NoReturn, Self

    from abreast.group_pool import GroupPool
    from abreast.group_processes import ProcessWatch

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


class _Member:
    """A group as what is drained; see core/draining.py. Weakly: a group is not to be held by itself."""

    def __init__(self, group: weakref.ref[TaskGroup]) -> None:
        self._group = group

    def drain(self) -> None:
        group = self._group()
        if group is not None:
            group._drain()

    def drop(self) -> None:
        """Its pools are ended as every executor; its threads and its body are asked to end."""
        group = self._group()
        if group is not None:
            group.cancel()

    def is_working(self) -> bool:
        group = self._group()
        return group is not None and group._is_working()

    def is_consumed(self) -> bool:
        return False


class TaskGroup:
    """Functions that run at the same time, each in a thread or a process of its own; leaving the block waits for all of them.

    The first error cancels what has not started, and asks the others to end: `current_task().cancelled` is true, and
    `abreast.sleep` and `abreast.checkpoint` raise `CancelledError` at once, in tasks and in the body of the block. A
    function that does not ask runs to its end. Groups can be nested: cancelling one cancels what is inside.

    Leaving the block raises, when all have ended: an ``ExceptionGroup`` of what the tasks and the body raised, each with a note that names its
    task (tasks that ended with CancelledError because they were asked to are no errors). Ctrl-C goes first: threads that run are left behind,
    processes killed. What else comes out of the body and is no ``Exception``, such as SystemExit or asyncio's CancelledError, goes up as it is,
    when all have ended. A group that was cancelled from outside, and did not get everything done, raises `CancelledError`.

    Processes suit functions that compute. As in `ProcessPoolExecutor`, functions, arguments and results are pickled, lambdas and
    functions of the main script too; a process that dies costs its function alone, whose error is `WorkerCrashed`. A function in a
    process cannot start more in the group. A ``multiprocessing.Process`` is asked to end by SIGTERM, and killed if it has not ended
    5 seconds later.

    Args:
        max_workers: how many functions may run at the same time, at least 1, on the threads or processes of a pool. None: each has
            its own.
        kind: ``"thread"`` (default) or ``"process"``: where functions run. Processes run on Linux only so far.
        timeout: seconds that the block may take, above 0; then what runs is asked to end, threads are left behind, processes
            killed, and leaving the block raises TimeoutError. None: no limit.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.
        NotImplementedError: ``kind="process"`` on another system than Linux.

    >>> import abreast
    >>> with abreast.TaskGroup() as group:
    ...     one = group.start(pow, args=(2, 5), name="T1")
    ...     two = group.submit(str.upper, "done")
    >>> one.result(), two.result()
    (32, 'DONE')
    >>> import os
    >>> with abreast.TaskGroup(kind="process") as group:
    ...     pids = [group.submit(lambda: os.getpid()) for _ in range(2)]
    >>> len({os.getpid(), *(pid.result() for pid in pids)})
    3
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        kind: Literal["thread", "process"] = "thread",
        timeout: float | None = None,
    ) -> None:
        most = count_or_none("max_workers", max_workers)
        self._timeout = seconds_or_none("timeout", timeout)
        if kind not in ("thread", "process"):
            raise ValueError(f"kind must be 'thread' or 'process', not {short(kind)}")
        self._kind = kind
        self._name = f"TaskGroup-{next(_numbers)}"
        self._pool = ThreadPool(most, self._name) if most is not None and kind == "thread" else None
        self._processes = _open_processes(most, self._name) if kind == "process" else None
        self._watch: ProcessWatch | None = None
        self._place = watch.Place(self._name, "group", most or 0)
        if self._pool is not None:
            self._pool._crew.place.hidden = True
        self._lock = threading.RLock()
        self._scope = Scope()
        self._waiting: set[Future[Any]] = set()
        self._unfinished: set[Future[Any]] = set()
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._errors: list[BaseException] = []
        self._cut_short = False
        """Whether a task was cancelled, or ended with CancelledError because it was asked to."""
        self._state = "new"  # -> "open" -> "closed"
        self._drained = False
        self._member = _Member(weakref.ref(self))
        self._waker: Callable[[], object] | None = None
        self._outer: tuple[Scope, ...] = ()
        self._body: Body | None = None
        self._deadline: float | None = None
        self._timer: threading.Timer | None = None
        self._expired = False
        self._left: int | None = None
        """How many tasks had begun and not ended when the time was up."""

    # ---- start

    @overload
    def start(self, target: threading.Thread | BaseProcess, /) -> Future[None]: ...
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
        target: Callable[..., T] | threading.Thread | BaseProcess,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> Future[T] | Future[None]:
        """Start a function in a thread of its own, in `threading.Thread`'s spelling, or an unstarted `threading.Thread` as it is.

        With ``kind="process"`` the function runs in a process. A Thread or a `multiprocessing.Process` is started as it is in a
        group of either kind, in this thread, and does not count for `max_workers`.

        Args:
            target: the function; or a Thread, whose ``run`` is what runs, and whose own name, context and daemon mark stay; or a
                Process, of any start method: do not join it yourself while it runs.
            args, kwargs: the function's arguments.
            name: the name of the thread and the task; default: the function's name and a number. With `max_workers` or in a
                process, of the task.

        Returns:
            The `Future` of the call; of a Thread or a Process, one whose result is None. A Process that ends with another exit
            code than 0 has `WorkerCrashed` as its error, with the exit code or signal, or CancelledError if that was because the
            group had it end. A cancelled future, if the group has been cancelled.

        Raises:
            TypeError: a wrong argument.
            Drained: the program has been asked to end (`abreast.drain_on`).
            RuntimeError: outside of the ``with`` block; a Thread or Process that was started before; the system gives no more
                threads.
            BrokenProcessPool: no process can be started.
            Exception: what the ``start`` of a Process raised.

        >>> import abreast, threading
        >>> class A(threading.Thread):
        ...     def run(self):
        ...         self.done = True
        >>> thread = A()
        >>> with abreast.TaskGroup() as group:
        ...     future = group.start(thread)
        >>> thread.done
        True
        >>> import multiprocessing, sys
        >>> with abreast.TaskGroup() as group:
        ...     future = group.start(multiprocessing.get_context("fork").Process(target=sys.exit, args=(0,)))
        >>> print(future.result())
        None
        """
        what = "Thread" if isinstance(target, threading.Thread) else "Process" if _is_process(target) else None
        if what is not None and (args != () or kwargs is not None or name is not None):
            raise TypeError(f"args, kwargs and name do not go with a {what}: it has its own")
        if isinstance(target, threading.Thread):
            return self._start_thread(target)
        if _is_process(target):
            return self._start_process(target)
        function("target", target)
        no_coroutine_function("target", target, f"a {self._kind}")
        text_or_none("name", name)
        arguments = initargs_tuple("args", args)
        if kwargs is not None and not hasattr(kwargs, "keys"):
            raise TypeError(f"kwargs must be a mapping of arguments, not {kwargs!r}")
        return self._start(cast("Callable[..., T]", target), arguments, dict(kwargs or {}), name)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start ``fn(*args, **kwargs)``; every keyword belongs to `fn`. Returns and raises as `start`.

        >>> import abreast
        >>> with abreast.TaskGroup() as group:
        ...     future = group.submit(sorted, [2, 1], reverse=False)
        >>> future.result()
        [1, 2]
        """
        function("fn", fn)
        no_coroutine_function("fn", fn, f"a {self._kind}")
        return self._start(fn, args, kwargs, None)

    def _start(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None) -> Future[T]:
        if self._processes is not None:
            return self._start_in_process(self._processes, fn, args, kwargs, name or name_of(fn))
        future: Future[T] = Future()
        label = name or name_of(fn)
        future._fn = self._place.watched(fn, args, kwargs, name=label) if watch.active else fn
        future._args, future._kwargs = args, kwargs
        future._context = copy_context()
        run = partial(self._run, future, _Job(label, self._scope))
        try:
            number = self._admit(future)
            if number is None:
                self._give_up(future)
            elif self._pool is not None:
                future._owner = self._pool._crew  # a task that waits for it there for good is told (DeadlockDetected)
                self._pool.submit(run)
            else:
                self._launch(_Thread(run, name or f"{label}-{number}"))
        except BaseException:
            self._give_up(future)
            raise
        return future

    def _start_thread(self, thread: threading.Thread) -> Future[None]:
        future: Future[None] = Future()
        if thread.ident is not None:
            raise RuntimeError(f"{thread!r} has been started before; a group takes a Thread that has not")
        # The thread's run() is wrapped on the instance, the one way to learn of its error; taken off again when it runs.
        run, own = thread.run, vars(thread).get("run")
        try:
            if self._admit(future) is None:
                self._give_up(future)
            else:
                if watch.active:
                    run = self._place.watched(run, (), None)
                thread.run = partial(self._run_thread, thread, run, own, future)  # type: ignore[method-assign]  # see above
                self._launch(thread)
        except BaseException as error:
            if isinstance(error, Exception):  # else Ctrl-C: it may come to run yet, and is to find the wrapper
                _unwrap(thread, own)
            self._give_up(future)
            raise
        return future

    def _start_in_process(
        self, pool: GroupPool, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], name: str
    ) -> Future[T]:
        from abreast.executors.process.futures import ProcessFuture

        future: ProcessFuture[T] = ProcessFuture()
        settled = partial(self._settled, call=partial(watch.call_text, name, args, kwargs))
        try:
            if self._admit(future) is None:
                self._give_up(future)
            else:
                pool.start(future, fn, args, kwargs, name, begin=self._begin, settled=settled)
        except BaseException:
            self._give_up(future)
            raise
        return future

    def _start_process(self, process: BaseProcess) -> Future[None]:
        future: Future[None] = Future()
        if _has_started(process):
            raise RuntimeError(f"{process!r} has been started before; a group takes a Process that has not")
        try:
            if self._admit(future) is None:
                self._give_up(future)
            elif self._begin(future) and future._claim():  # else it was cancelled just now
                watch = self._watch_of_processes()
                watch.start(process, future, self._settled)
                if self._scope.cancelled:  # perhaps before there was a watch
                    watch.ask()
        except BaseException as error:
            if isinstance(error, Exception) or not _has_started(process):  # else Ctrl-C: it runs, and is watched
                self._give_up(future)
                self._end(future)
            raise
        return future

    @locked
    def _watch_of_processes(self) -> ProcessWatch:
        if self._watch is None:
            from abreast.group_processes import ProcessWatch

            self._watch = ProcessWatch(f"{self._name}-processes")
        return self._watch

    @locked
    def _admit(self, future: Future[Any]) -> int | None:
        """Count one more task; None if the group has been cancelled, and the task is not to start.

        Raises:
            RuntimeError: outside of the block.
        """
        if self._state != "open":
            when = "before its with block is entered" if self._state == "new" else "after its with block has been left"
            raise RuntimeError(f"a task cannot be started in a TaskGroup {when}")
        if self._drained:
            raise draining.drained("a task of a TaskGroup")
        self._waiting.add(future)
        self._unfinished.add(future)
        if self._scope.cancelled:  # looked at last: a `cancel` that comes now finds the future
            return None
        self._started += 1
        return self._started

    def _launch(self, thread: threading.Thread) -> None:
        self._keep(thread)
        try:
            thread.start()
        except BaseException as error:
            self._forget(thread)
            if isinstance(error.__context__, KeyboardInterrupt):  # 3.11: 'release unlocked lock', out of Event.wait
                raise error.__context__ from None
            raise

    @locked
    def _keep(self, thread: threading.Thread) -> None:
        if len(self._threads) > 2 * len(self._unfinished) + 64:  # a group that goes on for long
            self._threads = {other for other in self._threads if other.ident is None or other.is_alive()}
        self._threads.add(thread)

    @locked
    def _forget(self, thread: threading.Thread) -> None:
        if thread.ident is None:  # else Ctrl-C struck when it was running already
            self._threads.discard(thread)

    # ---- in the threads

    def _run(self, future: Future[Any], job: _Job) -> None:
        before, worker = here.running, here.worker
        outer = None if worker is None else worker.task
        args, kwargs = future._args, future._kwargs
        try:
            if self._begin(future):
                here.running = job
                if worker is not None:
                    worker.task = future  # what it runs, for who looks for a deadlock
                future._run(job)  # claimed, called in its context, published; or found cancelled
        finally:
            here.running = before
            if worker is not None:
                worker.task = outer
            self._settled(future, future._exception, partial(watch.call_text, job.name, args, kwargs))
            del future, outer, args, kwargs

    def _run_thread(self, thread: threading.Thread, run: Callable[[], object], own: object, future: Future[None]) -> None:
        _unwrap(thread, own)
        before = here.running
        error: BaseException | None = None
        try:
            if self._begin(future) and future._claim():
                here.running = _Job(thread.name, self._scope)
                try:
                    run()
                except BaseException as raised:  # to the group, instead of threading.excepthook
                    error = raised.with_traceback(raised.__traceback__ and watch.without_frame(raised.__traceback__.tb_next))
                if future._publish(None, error):
                    future._invoke_callbacks(BaseException)
        finally:
            here.running = before
            self._settled(future, error, partial(str, thread.name))
            del error, future, thread, run, own

    @locked
    def _begin(self, future: Future[Any]) -> bool:
        """A thread or process comes to run `future`. False if it was cancelled, and is settled."""
        begins = future in self._waiting
        self._waiting.discard(future)
        return begins

    def _settled(self, future: Future[Any], error: BaseException | None, call: Callable[[], str] | None = None) -> None:
        """A task has ended. Its error, unless it only did as it was asked, is the group's, and tells which `call` it was."""
        try:
            if error is not None and self._note(error):
                self.cancel()
                if call is not None:
                    note(error, f"abreast: raised by {call()}, in a TaskGroup")
        finally:
            self._end(future)

    @locked
    def _note(self, error: BaseException) -> bool:
        if isinstance(error, Drained) or (isinstance(error, CancelledError) and self._scope.cancelled):
            self._cut_short = True
            return False
        if self._state == "open":
            self._errors.append(error)
        return True

    @locked
    def _end(self, future: Future[Any]) -> bool:
        """Count a task no more; whether no thread had begun it."""
        waited = future in self._waiting
        self._unfinished.discard(future)
        self._waiting.discard(future)
        if not self._unfinished and self._waker is not None:
            self._waker()
            self._waker = None
        return waited

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
        try:
            self._scope.cancel()
        finally:
            try:
                self._cancel_waiting()
            finally:
                self._ask_processes()

    def _ask_processes(self) -> None:
        """Ask what runs in processes to end; what runs in threads looks at the scope."""
        if self._processes is not None:
            self._processes.ask_to_end()
        if self._watch is not None:
            self._watch.ask()

    def _cancel_waiting(self) -> None:
        for future in self._not_begun():
            try:
                self._give_up(future)
            except BaseException:  # Ctrl-C, or out of a callback of the user's: the others are cancelled all the same
                self._cancel_waiting()
                raise

    @locked
    def _not_begun(self) -> list[Future[Any]]:
        return list(self._waiting)

    def _give_up(self, future: Future[Any]) -> None:
        """Cancel a task, unless a thread has begun it."""
        if future.cancel():
            self._cut_short = True
            if self._end(future):
                future._claim()  # tells those who wait for it in the standard library's way
                future._drop_call()

    @property
    def cancelled(self) -> bool:
        """Whether the group has been cancelled: by `cancel`, an error, a timeout, or from outside."""
        return self._scope.cancelled

    # ---- the program has been asked to end

    def _drain(self) -> None:
        """What has not started fails with Drained, and nothing more can be started; what runs goes on."""
        self._refuse_as_drained()
        for future in self._not_begun():
            if self._begin(future):
                try:
                    if future._claim() and future._publish(None, draining.drained("a task of a TaskGroup")):
                        future._invoke_callbacks(BaseException)
                finally:
                    self._end(future)
                    future._drop_call()

    @locked
    def _refuse_as_drained(self) -> None:
        self._drained = True
        self._cut_short |= bool(self._waiting)

    @locked
    def _is_working(self) -> bool:
        return self._state == "open" and len(self._unfinished) > len(self._waiting)

    # ---- the block

    def __enter__(self) -> Self:
        self._open()
        try:
            draining.enrol(self._member, draining.GROUP)
            self._outer = current_scopes()
            for scope in self._outer:
                scope.watch(self.cancel)
            self._body = Body(self._scope)
            if self._timeout is not None:
                self._deadline = monotonic() + self._timeout
                self._timer = threading.Timer(min(self._timeout, threading.TIMEOUT_MAX), self._expire)
                self._timer.name = "TaskGroup-timeout"
                with suppress(RuntimeError):  # a sub-interpreter that has no daemon threads
                    self._timer.daemon = True
                self._timer.start()
        except BaseException:
            self._leave()
            raise
        return self

    @locked
    def _open(self) -> None:
        if self._state != "new":
            raise RuntimeError("a TaskGroup can be entered once")
        self._state = "open"

    def __exit__(self, exc_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        in_time = False
        try:
            if not isinstance(error, KeyboardInterrupt):
                if error is not None and not isinstance(error, Drained):  # what runs is to finish then
                    self.cancel()
                if watch.active:
                    with watch.joining(f"end of {self._name}"):
                        in_time = self._wait()
                else:
                    in_time = self._wait()
                if in_time:
                    self._close(abandon=False)
        except BaseException:  # KeyboardInterrupt while waiting
            self._leave()
            self._errors = []  # error -> traceback -> frame of its thread -> self
            raise
        if not in_time:
            if not isinstance(error, KeyboardInterrupt):
                self._count_left()
            self._leave()
        return self._finish(error, in_time)

    def _finish(self, error: BaseException | None, in_time: bool) -> bool:
        """Raise what is to be raised, now that all is over. Return whether the body's own error ends here."""
        errors, self._errors = self._errors, []
        problem: BaseException | None = None
        try:
            if isinstance(error, KeyboardInterrupt):
                return False
            asked_to_end = isinstance(error, CancelledError) and self._scope.cancelled
            if isinstance(error, Exception) and not asked_to_end and not isinstance(error, Drained):
                errors.insert(0, error)
            problem = self._problem(errors, in_time)
            if error is not None and not isinstance(error, Exception):  # nobody looks for a SystemExit in an ExceptionGroup
                if problem is not None:
                    LOGGER.error("a TaskGroup was left by %r; this is lost to it", error, exc_info=problem)
                return False
            if problem is not None:
                raise problem from problem.__cause__
            if isinstance(error, Drained):
                return False
            if self._drained and self._cut_short and not self._scope.cancelled:
                raise draining.drained("a task of a TaskGroup")
            if (asked_to_end or self._cut_short) and any(scope.cancelled for scope in self._outer):
                if error is not None:
                    return False
                raise CancelledError("the TaskGroup was cancelled: the task or group that it is part of has been asked to end")
            return asked_to_end
        finally:
            # error -> traceback -> this frame -> errors
            del error, errors, problem

    def _problem(self, errors: list[BaseException], in_time: bool) -> BaseException | None:
        """Return what to raise for the errors and the timeout, if anything."""
        once = list({id(error): error for error in errors}.values())  # the body too raises a task's, out of result()
        text = f"{_count(len(once), 'error')} in a TaskGroup of {_count(self._started, 'task')}"
        group = BaseExceptionGroup(text, once) if once else None
        if in_time:
            return group
        left = _count(self._left or 0, "task")
        problem = TimeoutError(f"a TaskGroup took longer than its timeout of {self._timeout:g} s: {left} had not ended")
        problem.__cause__ = group
        return problem

    def _expire(self) -> None:
        """The time is up, in the timer's thread: tasks and body are asked to end, whatever the body is at."""
        self._expired = True
        self._count_left()
        self.cancel()

    @locked
    def _count_left(self) -> None:
        if self._left is None:
            self._left = len(self._unfinished) - len(self._waiting)

    def _wait(self) -> bool:
        """Wait until no task is left, and close; False if the time is up."""
        while (lock := self._close_or_park()) is not None:
            limit = None if self._deadline is None else min(max(0.0, self._deadline - monotonic()), threading.TIMEOUT_MAX)
            if not acquire_patiently(lock, limit):
                return False
        for thread in self._ending_threads():
            thread.join()
        return not self._expired

    @locked
    def _close_or_park(self) -> threading.Lock | None:
        """Close if no task is left; else return a lock that is released when this is to be asked again."""
        if not self._unfinished:
            self._state = "closed"
            return None
        lock = threading.Lock()
        lock.acquire()
        self._waker = lock.release
        return lock

    @locked
    def _ending_threads(self) -> list[threading.Thread]:
        """Their functions have ended, and they are about to."""
        return [thread for thread in self._threads if thread.is_alive() and thread is not threading.current_thread()]

    def _leave(self) -> None:
        """End at once: cancel what has not started, leave behind what runs in threads, kill what runs in processes."""
        try:
            self.cancel()
        finally:  # also if a callback of the user's raises what ends that
            self._close(abandon=True)

    def _close(self, *, abandon: bool) -> None:
        self._refuse_starts()
        if self._body is not None:
            self._body.leave()
        for scope in self._outer:
            scope.unwatch(self.cancel)
        timer, self._timer = self._timer, None  # they hold each other
        if timer is not None:
            timer.cancel()
            if not abandon:
                timer.join()
        if self._pool is not None:
            if abandon:
                self._pool._crew.abandon()
            else:
                self._pool.shutdown(wait=True)
        try:
            if self._processes is not None:
                self._close_processes(self._processes, abandon=abandon)
        finally:  # also if Ctrl-C is pressed meanwhile
            if self._watch is not None:
                if abandon:
                    self._watch.leave()
                else:
                    self._watch.close()

    def _close_processes(self, pool: GroupPool, *, abandon: bool) -> None:
        if not abandon:
            pool.shutdown(wait=True)
        elif self._left is None:
            pool.kill("the process was killed: the block of its TaskGroup was left by Ctrl-C")
        else:
            pool.kill(f"the process was killed: its TaskGroup took longer than its timeout of {self._timeout:g} s")

    @locked
    def _refuse_starts(self) -> None:
        self._state = "closed"
        self._threads = set()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a TaskGroup cannot be pickled: what it starts in a process cannot start more in it; return what is to be started next"
        )

    def __repr__(self) -> str:
        state = f"{self._state}, cancelled" if self._scope.cancelled else self._state
        return f"<TaskGroup {state}: {self._started} started, {len(self._unfinished)} not ended>"


_numbers = itertools.count()
atexit.register(_let_writes_end)  # of threads that were left behind


def _open_processes(max_workers: int | None, name: str) -> GroupPool:
    if sys.platform != "linux":
        raise NotImplementedError("kind='process' runs on Linux only so far; kind='thread' runs everywhere")
    from abreast.group_pool import GroupPool

    return GroupPool(max_workers, name)


def _is_process(target: object) -> TypeGuard[BaseProcess]:
    """Whether `target` is a Process; who has one has imported its module."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and isinstance(target, module.BaseProcess)


def _has_started(process: BaseProcess) -> bool:
    return process.ident is not None


def _unwrap(thread: threading.Thread, own: Any) -> None:
    """Take the wrapper of ``run`` off a Thread; `own` is what its user had set there."""
    if own is None:
        vars(thread).pop("run", None)
    else:
        thread.run = own  # type: ignore[method-assign]  # as it was


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


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
    checkpoint()
    end = monotonic() + float(seconds)
    scopes = current_scopes()
    # A bare lock, since a signal handler may cancel at any step: an Event's own lock could be held by this very thread.
    # (SimpleQueue.get(timeout) waits for ever, on 3.11 and 3.12, if the time is up while it looks.)
    alarm = threading.Lock()
    alarm.acquire()

    def wake() -> None:
        with suppress(RuntimeError):  # another scope has woken it already
            alarm.release()

    try:
        for scope in scopes:
            scope.watch(wake)
        while (left := end - monotonic()) > 0:
            if acquire_patiently(alarm, min(left, threading.TIMEOUT_MAX)):
                break
    finally:
        for scope in scopes:
            scope.unwatch(wake)
    checkpoint()

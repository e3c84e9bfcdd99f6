"""The serial executor's machinery: `submit` runs the call at once, in the caller's thread. For debugging.

::

    submit ─▶ future._run: claim, call in its context, publish ─▶ returned when it is done

`_lock` guards the counts and nothing else; nothing is called under it.
"""

from __future__ import annotations

import concurrent.futures
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from abreast.core import draining, watch
from abreast.core.check import callable_or_none, count, function, initargs_tuple
from abreast.core.current import locked
from abreast.core.future import Future
from abreast.core.statistics import PoolStatistics
from abreast.executors.base import deliver_from
from abreast.executors.batch import run_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import Context

    from abreast.executors.attempt import Attempt
    from abreast.executors.base import Deliver
    from abreast.executors.batch import Batch

__all__ = ["Serial"]

P = ParamSpec("P")
T = TypeVar("T")


def _run(batch: Batch) -> None:
    """Run a batch; what came of it is in the batch."""
    run_batch(batch)


class _Tally:
    failed = 0


class _Now:
    """What runs, and whether more may; see core/draining.py, Member."""

    running = 0
    drained = False

    def drain(self) -> None:
        self.drained = True

    def drop(self) -> None:
        """What runs is run by the thread that has submitted it."""

    def is_working(self) -> bool:
        return self.running > 0

    def is_consumed(self) -> bool:
        return False


class Serial(concurrent.futures.Executor):
    """`submit`; the public class adds what runs over many inputs."""

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[object] = (),
    ) -> None:
        if max_workers is not None:
            count("max_workers", max_workers, default=" or None")
        callable_or_none("initializer", initializer)
        self._initializer = initializer
        self._initargs = initargs_tuple("initargs", initargs)
        self._closed = False
        self._place = watch.Place(type(self).__name__, "serial", 1)
        self._lock = threading.RLock()  # guards the counts: several threads may submit, and a task too
        self._ended = self._failed = 0
        self._now = _Now()
        draining.enrol(self._now, draining.EXECUTOR)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` here and now, in a copy of the context, and return its `Future`, which is done.

        What `fn` raises is the future's, as with other executors; only KeyboardInterrupt is raised, since it was meant for
        this thread.

        Raises:
            TypeError: `fn` cannot be called.
            RuntimeError: after `shutdown`.
            Drained: the program has been asked to end (`abreast.drain_on`).
            KeyboardInterrupt: Ctrl-C while `fn` ran.
            BaseException: what the initializer raised; it is called at the first submit, and again until it returns.
        """
        function("fn", fn)
        if watch.active and fn is not _run:
            fn = self._place.watched(fn, args, kwargs)
        return self._call(fn, args, kwargs, copy_context())

    def submit_attempt(
        self, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any], context: Context, *, held: bool = False
    ) -> Future[Any]:
        """For views: as `submit`, of a call that has options of its own."""
        if watch.active:
            attempt.fn = self._place.watched(attempt.fn, args, kwargs, number=attempt.number, context=context, name=attempt.name)
        return self._call(attempt, args, kwargs, context, held=held)

    def _call(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], context: Context, *, held: bool = False
    ) -> Future[T]:
        if self._closed and not held:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._now.drained:
            raise draining.drained(f"a task of a {type(self).__name__}")
        if self._initializer is not None:
            self._initializer(*self._initargs)
            self._initializer = None
        future: Future[T] = Future()
        future._fn, future._args, future._kwargs, future._context = fn, args, kwargs, context
        tally = _Tally()
        self._count(1, 0, 0)
        try:
            future._run(tally)
        finally:
            self._count(-1, 1, tally.failed)
        try:
            if isinstance(future._exception, KeyboardInterrupt):
                raise future._exception
            return future
        finally:
            del future  # else: an error -> its traceback -> this frame -> the future -> the error

    @locked
    def _count(self, running: int, ended: int, failed: int) -> None:
        """Add to the counts."""
        self._now.running += running
        self._ended += ended
        self._failed += failed

    def submit_call(self, batch: Batch, deliver: Deliver) -> Future[Any]:
        """For runs: run `batch` here and now, then call ``deliver(batch, None)``; see executors/base.py."""
        future = self.submit(_run, batch)
        self._count(0, len(batch.results) - 1, len(batch.errors))
        interrupts = [error for error in batch.errors.values() if isinstance(error, KeyboardInterrupt)]
        try:
            if interrupts:
                raise interrupts[0]
            deliver_from(batch, deliver, future)
            return future
        finally:
            del interrupts, batch, future  # else: a task's error -> its traceback -> this frame -> the error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  # as Executor has it
        """Accept no more tasks. Nothing is waiting or running, so `wait` and `cancel_futures` have nothing to do."""
        self._closed = True

    def statistics(self) -> PoolStatistics:
        """Return what the executor is doing and has done, as counts (`PoolStatistics`)."""
        return PoolStatistics(
            1, 1, int(not self._now.running), self._now.running, 0, self._ended - self._failed, self._failed, 0, 0
        )

    def __repr__(self) -> str:
        state = "shut down" if self._closed else "open"
        return f"<{type(self).__name__} {state}: {self._ended - self._failed} finished, {self._failed} failed>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an executor cannot be pickled: make one where it is used")

"""The thread executor's machinery: the standard library's `ThreadPoolExecutor`, on a crew of ours.

The life of a task, in the order things happen::

    submit ─▶ put ─▶ worker gets it ─▶ future._run: claim, call in its context, publish ─▶ waiters wake, callbacks run
    (here)    (crew.py)                (core/future.py)

A subclass, since asyncio's ``set_default_executor`` and others ask with isinstance. Nothing of its machinery is used: its
__init__ is not called. Private names that clients read are here: `_max_workers`, `_threads`, `_work_queue`, `_broken`,
`_shutdown`, `_thread_name_prefix`. Not here: `_idle_semaphore`, `_shutdown_lock`, `_adjust_thread_count`.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import weakref
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from abreast.core import watch
from abreast.core.check import callable_or_none, count, count_or_none, function, initargs_tuple, seconds_or_none, text_or_none
from abreast.core.future import Future
from abreast.core.statistics import PoolStatistics
from abreast.executors.crew import Crew, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import Context
    from queue import SimpleQueue
    from types import TracebackType

    from abreast.executors.attempt import Attempt
    from abreast.executors.base import Deliver
    from abreast.executors.batch import Batch
    from abreast.executors.crew import Holder

__all__ = ["ThreadPool", "default_threads"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count()


def default_threads() -> int:
    """Return how many threads an executor may have by default: 4 more than the usable cores, at most 32.

    More than the cores, since most tasks of threads wait; not many more, for tasks that compute. (bpo-35279.)
    """
    try:
        cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # no affinity on macOS and Windows
        cores = os.cpu_count()
    return min(32, (cores or 1) + 4)


class ThreadPool(concurrent.futures.ThreadPoolExecutor):
    """`submit`, and the life of the workers; the public class adds what runs over many inputs."""

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[object] = (),
        *,
        max_pending: int | None = None,
        task_timeout: float | None = None,
    ) -> None:
        workers = default_threads() if max_workers is None else count("max_workers", max_workers, default=" or None")
        callable_or_none("initializer", initializer)
        text_or_none("thread_name_prefix", thread_name_prefix)
        self._crew = crew = Crew(
            name=thread_name_prefix or f"ThreadPoolExecutor-{next(_numbers)}",
            max_workers=workers,
            initializer=initializer,
            initargs=initargs_tuple("initargs", initargs),
            max_pending=count_or_none("max_pending", max_pending),
            task_timeout=seconds_or_none("task_timeout", task_timeout),
        )
        crew.owner = weakref.ref(self, _let_go(weakref.ref(crew)))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in a worker thread, in a copy of this moment's context.

        Every keyword belongs to `fn`. With ``max_pending``, waits until fewer than that many tasks wait for a worker.

        Returns:
            The `Future` of the call.

        Raises:
            TypeError: `fn` cannot be called.
            RuntimeError: after `shutdown`, at the end of the program, or when no thread can be started.
            BrokenThreadPool: an initializer failed, or tasks over their limit have left too many threads behind.
            DeadlockDetected: all workers wait here for room.
        """
        if not callable(fn):
            function("fn", fn)  # type: ignore[unreachable]  # a caller without a type checker
        crew = self._crew
        future: Future[T] = Future()
        future._owner = crew
        future._fn = crew.place.watched(fn, args, kwargs) if watch.active else fn
        future._args = args
        future._kwargs = kwargs or None
        future._context = copy_context() or None  # an empty one is made again in the worker: one object less in the queue
        future._promised = False
        if crew.direct:
            crew.put(future)
            if crew.closed:  # by another thread, meanwhile
                crew.withdraw(future)
        else:
            crew.admit(future)
        return future

    def submit_attempt(
        self, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any], context: Context, *, held: bool = False
    ) -> Future[Any]:
        """For views: as `submit`, of a call that has options of its own.

        `held`: the caller holds this executor, so that it goes on after `shutdown`; then this never waits for room, and runs no code of the
        user's.
        """
        future: Future[Any] = Future()
        future._owner = self._crew
        if watch.active:
            attempt.fn = self._crew.place.watched(
                attempt.fn, args, kwargs, number=attempt.number, may_show=not held, context=context, name=attempt.name
            )
        future._fn, future._args, future._kwargs = attempt, args, kwargs or None
        future._context = context
        future._promised = False
        self._crew.admit(future, may_wait=not held, held=held)
        return future

    sends_quickly = True
    """Whether `submit_attempt` for who holds this executor takes no more than a moment, and runs no code of the user's."""

    def hold(self, holder: Holder) -> None:
        """For what is to be done later: `shutdown` waits until `let_go`; see crew.py."""
        self._crew.hold(holder)

    def let_go(self, holder: Holder) -> None:
        """End a `hold`."""
        self._crew.let_go(holder)

    def call_soon(self, action: Callable[[], object]) -> None:
        """For who holds this executor: have a worker call `action`."""
        self._crew.call_soon(action)

    def submit_call(self, batch: Batch, deliver: Deliver) -> Future[Any]:
        """For runs: have a worker run `batch`, then call ``deliver(batch, None)`` there; see executors/base.py.

        The batch brings the contexts of its tasks. It is counted as its tasks in `statistics`, and as one by ``max_pending``, which does
        not hold up a worker of this executor: it goes on with a run from within `deliver`.
        """
        return self._crew.submit_call(batch, deliver)

    def wait_for_call(self, handle: Future[Any], wait: Callable[[], None]) -> None:
        """For runs: call `wait`, which blocks until a call of this executor that `handle` stands for has gone on.

        Raises:
            DeadlockDetected: this thread is a worker, and nobody is left to run it.
        """
        self._crew.wait_for_call(handle, wait)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and wait until all have run. May be called more than once.

        Ctrl-C while waiting cancels what has not started and abandons the threads at work: nobody waits for them any more,
        not even the end of the program. Called from a task of this executor, it does not wait, since it would for itself.

        Args:
            wait: False returns at once; what is queued runs all the same, before the program ends.
            cancel_futures: cancel what has not started.
        """
        self._crew.close()
        if cancel_futures:
            self._crew.cancel_pending()
        if wait:
            self._crew.join()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            self._crew.abandon()  # the standard library waits here, for as long as the tasks take
        else:
            self.shutdown(wait=True)
        return None

    def statistics(self) -> PoolStatistics:
        """Return what the executor is doing and has done, as counts (`PoolStatistics`)."""
        crew = self._crew
        ended, failed, cancelled = crew.counts()
        workers = [worker for worker in list(crew.members) if worker.is_alive()]
        running = sum(1 for worker in workers if worker.task is not None)
        return PoolStatistics(
            crew.max_workers,
            len(workers),
            len(workers) - running,
            running,
            crew.pending(),
            ended - failed - cancelled,
            failed,
            cancelled,
            sum(1 for worker in list(crew.abandoned) if worker.is_alive()),
        )

    def __repr__(self) -> str:
        crew, now = self._crew, self.statistics()
        state = "broken" if crew.broken else "shut down" if crew.closed else "open"
        parts = [f"{type(self).__name__} {crew.name!r} {state}: {now.workers} of {now.max_workers} threads"]
        parts += [f"{n} {what}" for what, n in zip(now._fields[3:], now[3:], strict=True) if n]
        return f"<{', '.join(parts)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an executor cannot be pickled: make one where it is used")

    # ---- private names of the standard library that clients and its tests read

    @property
    def _max_workers(self) -> int:  # type: ignore[override]  # an attribute there
        return self._crew.max_workers

    @property
    def _threads(self) -> set[Worker]:  # type: ignore[override]  # an attribute there
        return self._crew.members

    @property
    def _work_queue(self) -> SimpleQueue[Any]:  # type: ignore[override]  # an attribute there
        return self._crew.queue

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]  # an attribute there
        return self._crew.broken or False

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]  # an attribute there
        return self._crew.closed

    @property
    def _thread_name_prefix(self) -> str:  # type: ignore[override]  # an attribute there
        return self._crew.name


def _let_go(crew_of: weakref.ref[Crew]) -> Callable[[object], None]:
    """Return what is called when an executor is collected: it posts EXIT, so the workers finish what is queued, and end."""

    def post_exit(_: object) -> None:
        crew = crew_of()  # weak: else the crew would hold itself, through its reference to the executor
        if crew is not None:
            crew.put(None)  # not close(): that takes a lock, which the thread that collects may hold just now

    return post_exit

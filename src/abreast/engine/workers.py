"""Where a run's tasks are run: a pool of its own, opened when the run starts and ended with it, or an executor of the user's."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

from abreast.executors.base import has_replaced_submit, is_ours
from abreast.executors.serial import Serial
from abreast.executors.threads import ThreadPool, default_threads
from abreast.policy.batch import Pace, time_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor, Future
    from weakref import WeakKeyDictionary

    from abreast.core.options import Kind

__all__ = ["Workers", "default_workers", "has_limits", "open_pool", "sends_each", "workers_of"]


class Workers:
    """An executor, and what a run must know of it.

    Attributes:
        executor: what has `submit`.
        count: how many workers it has, or may start.
        per_worker: how many batches may be with each: one that runs, and one that waits so that it need not. 1 for an executor
            that runs a call in ``submit``: its tasks run when they are asked for, not ahead.
        own: whether it ends with the run.
        closed: whether it has been said that nothing more will be sent.
        dispatch: a first guess of the seconds that sending one batch costs.
        least_time: seconds that a batch should take at least.
        chunksize: a batch size that this executor demands, or None.
        encodes: the classes of results that are still bytes, which the thread that asks for results unpickles; empty if they never are.
    """

    __slots__ = ("_paces", "chunksize", "closed", "count", "dispatch", "encodes", "executor", "least_time", "own", "per_worker")

    def __init__(self, executor: Executor, count: int, *, own: bool, limited: bool = False) -> None:
        serial = isinstance(executor, Serial)
        threads = isinstance(executor, ThreadPool)
        limited = isinstance(executor, ThreadPool) and (limited or executor._crew.task_timeout is not None)
        self.executor: Any = executor
        self.count = count
        self.per_worker = 1 if serial else 2
        self.own = own
        self.closed = False
        self.encodes: frozenset[type[Any]] = getattr(executor, "encodes", frozenset()) if is_ours(executor) else frozenset()
        # Of processes it is what waking four threads on two cores costs, measured as CPU time; most of it not where the batch is sent.
        self.dispatch = 10e-6 if threads or serial else 150e-6 if self.encodes else 60e-6
        # Tasks of 5 ms in batches of 7.5 ms took 1.15 of what bare processes take, in batches of 40 ms 1.00: each end of a batch takes a
        # core from a worker for a moment. The time box hands back what does not fit.
        self.least_time = 0.04 if self.encodes else 0.002
        self._paces: WeakKeyDictionary[Any, float] | None = executor.paces if self.encodes else None  # type: ignore[attr-defined]  # a pool of processes has it
        # A limit counts from the start of a call: with several tasks in one it would end the wrong one.
        # Who has replaced `submit` counts its calls (tqdm), and expects one for each task.
        self.chunksize = 1 if serial or limited or has_replaced_submit(executor) else None

    def first_pace(self, fn: object) -> Pace:
        """Return what a run of this function begins with: what the last one on this executor has learnt, of processes.

        To find that out takes 5 ms there, in which workers stand still. What is wrong of it is learnt anew as fast as ever, and the time box hands back
        what a batch is too large for.
        """
        item = self._paces.get(fn) if self._paces is not None and _can_be_key(fn) else None
        pace = Pace(self.dispatch, item=item, least_time=self.least_time)
        return pace if item is None else pace._replace(largest=max(1, int(time_target(pace, self.count) / item)))

    def keep_pace(self, fn: object, pace: Pace) -> None:
        """A run of this function has learnt that."""
        if self._paces is not None and pace.item is not None and _can_be_key(fn):
            self._paces[fn] = pace.item

    def close(self) -> None:
        """Say that nothing more will be sent: workers end when they find nothing to do. Does not wait.

        Processes may die, and what they have not begun is sent again then; so they stay until the run ends.
        """
        self.closed = True
        if not self.encodes:
            self.executor.shutdown(wait=False)

    def end(self, *, abandon: bool, handles: Sequence[Future[Any]] = ()) -> None:
        """End the run's own pool: wait for its workers, or leave behind what still runs.

        Of an executor of the user's, which goes on, end what runs of this run in processes; its threads cannot be ended.

        Args:
            abandon: whether the run is given up.
            handles: of the batches that were with the workers then.
        """
        if not self.own:
            if abandon and self.encodes:
                for handle in handles:
                    handle.abandon()  # type: ignore[attr-defined]  # those of processes have it
            return
        if abandon and isinstance(self.executor, ThreadPool):
            self.executor._crew.abandon()
        elif abandon and self.encodes:
            self.executor._kill("the run was given up")
        else:
            self.executor.shutdown(wait=True)


def _can_be_key(fn: object) -> bool:
    """Whether looking for it runs no code of the user's, and it can be held weakly."""
    return type(fn) is FunctionType


def has_limits(executor: Executor) -> bool:
    """Whether tasks of a run may have a limit of their own on this executor."""
    return is_ours(executor) and not isinstance(executor, Serial)


def sends_each(executor: Executor | None, chunksize: int | None) -> bool:
    """Whether what came of each task is sent before the next one begins: no process that dies takes outcomes along."""
    known = getattr(executor, "sends_each", None)  # our pools of processes say so
    if known is not None:
        return bool(known)
    # A foreign one may have processes too, whose batches come back as a whole.
    return executor is None or is_ours(executor) or isinstance(executor, ThreadPoolExecutor) or chunksize == 1


def default_workers(kind: Kind) -> int:
    """Return how many workers a run's own pool has if nobody says."""
    if kind == "serial":
        return 1
    if kind == "thread":
        return default_threads()
    from abreast.executors.process.cores import usable_cores
    from abreast.executors.process.here import is_worker

    return 1 if is_worker() else usable_cores()  # inside a worker the cores are taken: by its siblings


def open_pool(
    kind: Kind,
    max_workers: int | None,
    *,
    name: str,
    inputs: int | None,
    task_timeout: float | None,
    flush: Literal["auto", "each"] = "auto",
) -> Workers:
    """Return a pool for one run: never more workers than inputs."""
    if kind == "serial":
        return Workers(Serial(), 1, own=True)
    if kind == "process":
        return _open_processes(max_workers, name=name, inputs=inputs, task_timeout=task_timeout, flush=flush)
    count = default_workers(kind) if max_workers is None else max_workers
    if inputs is not None:
        count = max(1, min(count, inputs))
    return Workers(ThreadPool(count, name, task_timeout=task_timeout), count, own=True)


def _open_processes(
    max_workers: int | None, *, name: str, inputs: int | None, task_timeout: float | None, flush: Literal["auto", "each"]
) -> Workers:
    from abreast.executors.process.pool import ProcessPool

    count = default_workers("process") if max_workers is None else max_workers
    if inputs is not None:
        count = max(1, min(count, inputs))
    return Workers(ProcessPool(count, task_timeout=task_timeout, name=name, flush=flush), count, own=True)


def workers_of(executor: Executor, *, weakly: bool = False, limited: bool = False) -> Workers:
    """Return what a run must know of an executor of the user's. One that does not say how many workers it has gets work for the cores.

    `weakly` is for ``executor.map``, where everything is started at the call: what is left of the run does not keep the executor
    alive, since dropping it ends its threads, as in the standard library. They finish what was started.

    `limited`: whether tasks of this run have a limit of their own.
    """
    if weakly and isinstance(executor, ThreadPool) and is_ours(executor):
        workers = Workers(executor, executor._max_workers, own=False, limited=limited)
        workers.executor = executor._crew
        return workers
    if isinstance(executor, Serial):
        return Workers(executor, 1, own=False)
    count = getattr(executor, "_max_workers", None)
    if not isinstance(count, int) or count < 1:
        count = os.cpu_count() or 1
    return Workers(executor, count, own=False, limited=limited)

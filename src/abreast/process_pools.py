"""The public executor of processes. A module of its own, since its parent in the standard library costs 10 ms to import."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from abreast.pools import _Runs

if TYPE_CHECKING or sys.platform == "linux":
    from abreast.executors.process.pool import ProcessPool
else:  # its machinery cannot be imported there: epoll, eventfd, fcntl

    class ProcessPool:
        def __init__(self, *_: object, **__: object) -> None:
            raise NotImplementedError("ProcessPoolExecutor runs on Linux only so far; ThreadPoolExecutor runs everywhere")


__all__ = ["ProcessPoolExecutor"]


class ProcessPoolExecutor(_Runs, ProcessPool):
    """Runs calls in a pool of processes. The standard library's `ProcessPoolExecutor`, faster and without its traps.

    Processes suit work that computes in Python: each has an interpreter, and a lock (GIL), of its own. They are started when a task
    finds none idle, up to `max_workers`. Functions, arguments and results are pickled; what plain pickle cannot take goes by value:
    lambdas, closures, functions of the main script and of notebooks. Each task runs in a copy of the context (`contextvars`) of the
    moment it was submitted, as far as that can be pickled. Results are unpickled in the thread that asks for them.

    Where the standard one breaks or hangs: a process that dies (out of memory, killed, a crash in C code) costs its task alone, whose
    error is `WorkerCrashed`, and is replaced; with `task_timeout` a task that hangs is killed on time; Ctrl-C ends the program at
    once, and kills what runs; what cannot be pickled is its own task's error; no process outlives this one.

    It runs on Linux so far.

    Args:
        max_workers: the most processes there may be, at least 1. None: the usable cores; affinity and the container's limit count.
        mp_context: how processes are started: None, the name of a start method, or a context of `multiprocessing` with one of these.
            None and ``"forkserver"``: copies of a fresh interpreter that is kept for it, ready within milliseconds; directory, environment,
            limits, stdout and so on are those that this process has as one is started. ``"spawn"``: fresh interpreters. Neither
            imports the main script, so that no ``if __name__ == "__main__"`` is needed. ``"fork"``: copies of this process, as it is at the first submit, so that what its
            modules hold is inherited and not sent; it refuses `max_tasks_per_child`, and is unsafe where other threads run. None is
            ``"fork"`` where `initializer` or `initargs` can only be inherited, as a lock of multiprocessing's default context before 3.14.
        initializer: called at the start of each process with `initargs`. If it raises, it is logged, and everything waiting or
            submitted later fails with BrokenProcessPool.
        initargs: a tuple of arguments for `initializer`; locks, queues, pipes and shared values of `multiprocessing` too, which as
            arguments of a task are an error.
        max_tasks_per_child: how many tasks a process runs before another takes its place, at least 1. None: no limit.
        task_timeout: seconds a task may take from its start, above 0. One over it fails with `TaskTimeout`; its process is killed
            with all that it has started, and replaced. None: no limit.
        max_memory_per_child: bytes of memory (resident), at least 1. A process that holds more after a task is replaced; one that
            holds more than twice as much is killed, and its task fails with `MemoryLimitExceeded`. None: no limit.
        capture_output: True: what tasks print goes to this process's `sys.stdout` and `sys.stderr`, by whole lines, each with its
            worker's name. False (default): processes write to the descriptors that they inherit, as in the standard library.
        flush: when a process sends what came of its tasks. ``"auto"`` (default): of a task of more than 100 microseconds before the next
            one begins, of shorter ones together, after 200 microseconds of work; if the process dies then, those that were not sent run
            again, which `Outcome.attempts` tells. ``"each"``: always before the next one begins, so that no task ever runs twice.
        preload: names of modules, as ``["numpy", "shop.prices"]``, that are imported once, before the processes are started, which have
            them then from their first moment, in memory that they share. They are found by `sys.path` as it is at the first submit. One that
            cannot be imported, or that starts threads, breaks the pool, which says why. Not for ``"spawn"`` and ``"fork"``.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.
        NotImplementedError: this is not Linux.

    >>> import abreast
    >>> with abreast.ProcessPoolExecutor(max_workers=2) as executor:
    ...     list(executor.map(lambda number: number * number, [1, 2, 3]))
    ...     executor.submit(pow, 2, 10).result()
    [1, 4, 9]
    1024
    >>> executor
    <ProcessPoolExecutor shut down: 0 of 2 processes, 4 finished>
    """

"""The public executors: the machinery of a kind (L2) and, in one mixin, what runs a function over many inputs."""

from __future__ import annotations

import concurrent.futures
import inspect
from collections import deque
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from abreast.core.check import count, count_or_none, function
from abreast.executors.serial import Serial
from abreast.executors.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["SerialExecutor", "ThreadPoolExecutor"]

T = TypeVar("T")


class _Runs(concurrent.futures.Executor):
    """Methods over many inputs, built on `submit` alone."""

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call `fn` on the items of the iterables, side by side, and return an iterator over the results, in order.

        Everything is read and started at the call, even if nobody iterates; with `buffersize` only so far ahead, which suits
        endless inputs. After an error, or when the iterator is closed, the tasks that have not started are cancelled.

        Args:
            fn: called with one item of each iterable; the shortest ends the run.
            timeout: seconds from this call, after which the iterator raises TimeoutError instead of waiting.
            chunksize: at least 1; without effect on threads, as in the standard library.
            buffersize: how many tasks may have been started and not yet yielded; None is all. More are read, in the thread that
                iterates, as results are taken.

        Raises:
            TypeError, ValueError: a wrong argument, at the call.
            RuntimeError: the executor is shut down (with `buffersize` also from the iterator, later).
            TimeoutError: from the iterator.
            BaseException: what `fn` raised, from the iterator, which then ends; what an iterable raised.

        >>> import abreast, itertools
        >>> with abreast.ThreadPoolExecutor() as executor:
        ...     list(executor.map(pow, [1, 2, 3], [2, 2, 2]))
        ...     list(itertools.islice(executor.map(abs, itertools.count(-3), buffersize=4), 5))
        [1, 4, 9]
        [3, 2, 1, 0, 1]
        """
        function("fn", fn)
        if inspect.iscoroutinefunction(fn):
            raise TypeError(f"fn must not be a coroutine function ({fn!r}): this executor cannot await what it returns")
        count("chunksize", chunksize)
        count_or_none("buffersize", buffersize, text="buffersize must be None or > 0")
        if timeout is not None and (isinstance(timeout, (bool, str)) or not hasattr(timeout, "__float__")):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
        end = None if timeout is None else monotonic() + timeout
        inputs = zip(*iterables, strict=False)
        futures: deque[concurrent.futures.Future[T]] = deque()
        try:
            for args in islice(inputs, buffersize):
                futures.append(self.submit(fn, *args))
        except BaseException:
            _cancel(futures)
            raise
        # With no buffer the iterator must not keep the executor alive: dropping it ends its threads, as in the standard library.
        more = None if buffersize is None else self
        return _results(futures, end, more, fn, inputs)


def _results(
    futures: deque[concurrent.futures.Future[T]],
    end: float | None,
    more: _Runs | None,
    fn: Callable[..., T],
    inputs: Iterator[tuple[Any, ...]],
) -> Iterator[T]:
    """Yield the results in order; with `more`, an executor, start another task for each one that is taken."""
    try:
        while futures:
            # Waited for while it is still in the queue: if that is interrupted, it is cancelled with the others.
            futures[0].result(None if end is None else end - monotonic())
            if more is not None:
                for args in islice(inputs, 1):
                    futures.append(more.submit(fn, *args))
            yield futures.popleft().result()  # no name for it: nothing here may keep what the consumer has dropped
    finally:
        _cancel(futures)
        futures.clear()  # else: an error -> its traceback -> this frame -> its future -> the error


def _cancel(futures: Iterable[concurrent.futures.Future[Any]]) -> None:
    for future in futures:
        future.cancel()


class ThreadPoolExecutor(_Runs, ThreadPool):
    """Runs calls in a pool of threads. The standard library's `ThreadPoolExecutor`, faster and without its traps.

    Threads share memory, and suit work that waits: network, disk, databases. They are started when a task finds none idle, up
    to `max_workers`. Each task runs in its own copy of the context (`contextvars`) of the moment it was submitted.

    Where the standard one waits or hangs: Ctrl-C inside the ``with`` block cancels what has not started, abandons what runs,
    and ends the program; tasks that wait for each other for good get `DeadlockDetected`; a SystemExit in a callback does
    not kill the pool; with `task_timeout` a task that hangs fails on time, and its thread is replaced.

    Args:
        max_workers: the most threads there may be, at least 1. None: 4 more than the usable cores, at most 32.
        thread_name_prefix: the threads are named ``prefix_0``, ``prefix_1``, …; default ``ThreadPoolExecutor-N``.
        initializer: called at the start of each thread with `initargs`. If it raises, it is logged, and everything
            waiting or submitted later fails with BrokenThreadPool.
        initargs: a tuple of arguments for `initializer`.
        max_pending: the most tasks that may wait for a thread, at least 1: ``submit`` waits for room. None: no limit.
        task_timeout: seconds a task may take from its start, above 0. One over it fails with `TaskTimeout` at that moment; its
            thread, which cannot be killed, is left behind and replaced. None: no limit.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.

    >>> import abreast
    >>> def square(x):
    ...     return x * x
    >>> with abreast.ThreadPoolExecutor(max_workers=3, thread_name_prefix="square") as executor:
    ...     list(executor.map(square, [1, 2, 3]))
    ...     executor.submit(square, 4).result()
    [1, 4, 9]
    16
    >>> executor
    <ThreadPoolExecutor 'square' shut down: 0 of 3 threads, 4 finished>
    """


class SerialExecutor(_Runs, Serial):
    """Runs each call at once, in the thread that submits it: the same code, one after another, for debugging.

    Breakpoints, profilers and print work as in plain code, and Ctrl-C strikes where it is pressed.

    Args:
        max_workers: checked and otherwise unused, so that only the class need be changed: one at a time never exceeds it.
        initializer: called before the first task with `initargs`; what it raises, ``submit`` raises.
        initargs: a tuple of arguments for `initializer`.

    Raises:
        TypeError, ValueError: a wrong argument, named with its value.

    >>> import abreast, threading
    >>> with abreast.SerialExecutor() as executor:
    ...     executor.submit(threading.current_thread).result() is threading.current_thread()
    True
    """

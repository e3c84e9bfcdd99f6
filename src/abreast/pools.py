"""The public executors: the machinery of a kind (L2) and, in one mixin, what runs a function over many inputs."""

from __future__ import annotations

import concurrent.futures
from functools import partial
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from abreast.core.check import count, count_or_none, function, no_coroutine_function
from abreast.core.current import name_of
from abreast.core.options import TaskOptions, check_task_options
from abreast.engine.results import Results
from abreast.engine.run import Run
from abreast.engine.source import Source
from abreast.engine.views import View
from abreast.engine.workers import workers_of
from abreast.executors.serial import Serial
from abreast.executors.threads import ThreadPool
from abreast.functions import make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Never, Unpack

    from abreast.core.options import RunOptions
    from abreast.core.outcome import Outcome

__all__ = ["SerialExecutor", "ThreadPoolExecutor"]

T = TypeVar("T")


_POOLS_OWN = dict.fromkeys(("kind", "executor", "max_workers"), "it belongs to the executor whose method this is")


class _Runs(concurrent.futures.Executor):
    """Methods over many inputs, and with options."""

    def with_options(self, **options: Unpack[TaskOptions]) -> _View:
        """Return a view of this executor: its workers, with options for what is submitted through the view.

        It has `submit`, `map`, `imap` and `outcomes`, and may be given as ``executor=``. What one call of these gives goes before what
        the view has, and that before what the executor has. To shut a view down is to shut down the executor.

        Args:
            options: `TaskOptions`: ``task_timeout`` (seconds, of each attempt), ``retries`` (a number, or a `Retry`), ``name``.

        Raises:
            TypeError, ValueError: a wrong option; ``task_timeout`` of a `SerialExecutor`, which cannot end a task.

        >>> import abreast
        >>> def flaky(number):
        ...     if abreast.current_task().attempt < 3:
        ...         raise ConnectionError("try again")
        ...     return number
        >>> with abreast.ThreadPoolExecutor(2) as executor:
        ...     patiently = executor.with_options(retries=abreast.Retry(2, wait_initial=0.01, wait_jitter=0), task_timeout=5)
        ...     patiently.submit(flaky, number=7).result()
        ...     list(patiently.map(flaky, [8, 9]))
        7
        [8, 9]
        """
        return _View(self, options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
        **others: Never,
    ) -> Iterator[T]:
        """Call `fn` on the items of the iterables, side by side, and return an iterator over the results, in order.

        Everything is read and started at the call, even if nobody iterates; with `buffersize` only so far ahead, which suits
        endless inputs. After an error, or when the iterator is closed, the tasks that have not started are cancelled.

        Args:
            fn: called with one item of each iterable; the shortest ends the run.
            timeout: seconds from this call, after which the iterator raises TimeoutError instead of waiting.
            chunksize: how many tasks go to a worker at a time, at least 1; ``"auto"`` finds it by measuring.
            buffersize: how many tasks may have been started and not yet yielded; None is all. More are read, in the thread that
                iterates, as results are taken.
            others: none, as in the standard library; `imap`, `outcomes` and `with_options` have more.

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
        wrong: dict[str, Any] = dict(others)
        for name, value in wrong.items():
            cure = f"with_options({name}=…).map" if name in TaskOptions.__annotations__ else "imap or outcomes"
            raise TypeError(
                f"{name}={short(value)}: an executor's map has timeout, chunksize and buffersize; for more see its {cure}"
            )
        function("fn", fn)
        no_coroutine_function("fn", fn, "this executor")
        size = None if chunksize == "auto" else count("chunksize", chunksize, default=" or 'auto'")
        buffersize = count_or_none("buffersize", buffersize, text="buffersize must be None or > 0")
        if timeout is not None and (isinstance(timeout, (bool, str)) or not hasattr(timeout, "__float__")):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
        given = self.options if isinstance(self, View) else {}
        checked = check_task_options(given)
        limit, retry = checked.get("task_timeout"), checked.get("retries")
        executor = self.executor if isinstance(self, View) else self
        if limit is not None and size is not None and not hasattr(executor, "encodes"):
            raise ValueError(
                f"chunksize={size} and this view's task_timeout={limit:g} exclude each other: a limit counts from a task's start, so tasks "
                "with a limit go to a thread one by one"
            )
        run = Run(
            fn,
            Source(iterables, strict=False),
            # What has options needs the executor itself, and keeps it alive.
            partial(
                workers_of, executor, weakly=buffersize is None and retry is None and limit is None, limited=limit is not None
            ),
            name=checked.get("name") or name_of(fn),
            at_once=True,
            retry=retry,
            task_timeout=limit,
            buffersize=buffersize,
            chunksize=size,
            timeout=None if timeout is None else float(timeout),
        )
        try:
            run.start()
        except BaseException:
            run.give_up()
            raise
        return Results(run)

    def imap(self, fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> Results[T]:
        """As `abreast.imap`, on this executor: an iterator over the results; inputs are read lazily, from the first ``next()`` on.

        Args:
            fn: called with one item of each iterable.
            iterables: the inputs; they may be endless.
            options: as for `abreast.imap`, but for ``kind``, ``executor`` and ``max_workers``.

        Raises:
            TypeError, ValueError: a wrong argument or option, at the call.
            BaseException: from the iterator, as for `abreast.imap`; RuntimeError if the executor is shut down.

        >>> import abreast, itertools
        >>> with abreast.ThreadPoolExecutor() as executor:
        ...     next(executor.imap(str.upper, itertools.cycle("ab")))
        'A'
        """
        return Results(make_run(fn, iterables, options, executor=self, refused=_POOLS_OWN))

    def outcomes(self, fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> Results[Outcome[T]]:
        """As `abreast.outcomes`, on this executor: yields an `Outcome` for every input, and never raises a task's error.

        Args, Raises: as `imap`.

        >>> import abreast
        >>> with abreast.ThreadPoolExecutor() as executor:
        ...     [(outcome.value, outcome.error) for outcome in executor.outcomes(int, ["7", "x"], ordered=True)]
        [(7, None), (None, ValueError("invalid literal for int() with base 10: 'x'"))]
        """
        return Results(make_run(fn, iterables, options, outcomes=True, executor=self, refused=_POOLS_OWN))


class _View(_Runs, View):
    """What `with_options` returns: an executor with options of its own, whose workers are another's."""


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

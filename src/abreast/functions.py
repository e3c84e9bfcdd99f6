"""One call over many inputs: `map`, `imap`, `outcomes`, and for async code `amap`, `aimap`.

All take the same options, `RunOptions` in core/options.py, the one list. Each checks its arguments at the call, and makes a run of
them (engine/run.py).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from abreast.core.check import function, no_coroutine_function
from abreast.core.current import name_of
from abreast.core.options import RunOptions, check_run_options
from abreast.engine.results import Results, collect
from abreast.engine.run import Run
from abreast.engine.source import Source
from abreast.engine.views import View
from abreast.engine.workers import has_limits, open_pool, sends_each, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor
    from typing import Unpack

    from abreast.core.journal import Journal
    from abreast.core.outcome import Outcome
    from abreast.engine.async_results import AsyncResults
    from abreast.engine.journaled import Journaling
    from abreast.engine.workers import Workers
    from abreast.observe.progress import Progress

__all__ = ["aimap", "amap", "imap", "make_run", "map", "outcomes"]

A = TypeVar("A")
T = TypeVar("T")


@overload
def map(fn: Callable[[A], T], inputs: Iterable[A], /, **options: Unpack[RunOptions]) -> list[T]: ...
@overload
def map(
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[RunOptions]
) -> list[T]: ...
def map(fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> list[T]:
    """Call `fn` on every input, side by side, and return the list of results, in the order of the inputs.

    By default on threads, which suit functions that wait: network, disk, databases. Functions that compute are quicker with
    ``kind="process"``: function, inputs and results are pickled then, lambdas and functions of the main script too, without an
    ``if __name__ == "__main__"``. Each task runs in its own copy of the context (`contextvars`). The run has a pool of its own, which
    ends with it, unless `executor` is given.

    Args:
        fn: called with one input, or with one item of each iterable if there are several; then the shortest ends the run.
        iterables: the inputs, read in this thread as they are needed; they may be endless only if something else ends the run.
        options: see `abreast.RunOptions`: ``kind``, ``executor``, ``max_workers``, ``ordered``, ``buffersize``, ``chunksize``,
            ``timeout`` (seconds, of the run), ``strict``, ``progress``, ``name``, ``task_timeout`` (seconds, of each task), ``retries`` (more
            attempts for a task that fails), ``max_per_second`` (starts), ``journal`` (a file from which the
            same call goes on after it was killed), ``key``.

    Raises:
        TypeError, ValueError: a wrong argument or option, before any input is read.
        BaseException: what `fn` raised, as soon as it is known, with a note that names the input; nothing else is started then; threads
            that are at work are left behind, processes killed. A process that dies costs its task alone, whose error is
            `WorkerCrashed`. Use `outcomes` for a run that must go on.
        TimeoutError: the run took longer than `timeout`.
        CancelledError: the group or run that this call is part of was cancelled.

    >>> import abreast
    >>> def square_number(number):
    ...     return number * number
    >>> abreast.map(square_number, [1, 2, 3], max_workers=3)
    [1, 4, 9]
    >>> abreast.map(pow, [2, 3], [5, 2])
    [32, 9]
    >>> abreast.map(lambda number: sum(range(number)), [10, 100], kind="process")
    [45, 4950]
    """
    return collect(make_run(fn, iterables, options, keeps_all=True))


@overload
def imap(fn: Callable[[A], T], inputs: Iterable[A], /, **options: Unpack[RunOptions]) -> Results[T]: ...
@overload
def imap(
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[RunOptions]
) -> Results[T]: ...
def imap(fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> Results[T]:
    """As `map`, but return an iterator: results one by one, inputs read lazily, memory bounded; inputs may be endless.

    The run starts at the first ``next()``. Inputs are read in the thread that asks for results, at most `buffersize` ahead of it (by
    default two batches a worker). With ``ordered=False`` results come as they are completed. With tasks of very uneven length in
    order, a larger `buffersize` keeps the workers busy while the next result is waited for.

    Args:
        fn, iterables: as for `map`; the inputs may be endless.
        options: see `abreast.RunOptions`.

    Returns:
        `Results`: an iterator with `close`, `summary` and ``__length_hint__``.

    Raises:
        TypeError, ValueError: a wrong argument or option, at the call.
        BaseException: from the iterator, what `fn` raised: in order after the results before it, no task behind it being started;
            unordered as soon as it is known. What an input iterator raised, after the results of what was read.
        TimeoutError, CancelledError: from the iterator, as for `map`.
        RuntimeError: from the iterator, in a forked child: the run goes on in the parent. With a journal it is a `JournalError`.

    >>> import abreast, itertools
    >>> for square in abreast.imap(lambda number: number * number, itertools.count(1)):
    ...     if square > 10:
    ...         break
    >>> square
    16
    """
    return Results(make_run(fn, iterables, options))


@overload
def outcomes(fn: Callable[[A], T], inputs: Iterable[A], /, **options: Unpack[RunOptions]) -> Results[Outcome[T]]: ...
@overload
def outcomes(
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[RunOptions]
) -> Results[Outcome[T]]: ...
def outcomes(fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> Results[Outcome[T]]:
    """As `imap`, but yield an `Outcome` for every input, and never raise a task's error: for runs that must go on.

    When `timeout` is over, tasks that have not ended come as cancelled, and the iterator ends without an error. So they come when more tasks
    have failed than `max_failures` allows; then `TooManyFailures` is raised.

    Args:
        fn, iterables: as for `map`; the inputs may be endless.
        options: see `abreast.RunOptions`.

    Returns:
        `Results`: an iterator over `Outcome` objects.

    Raises:
        TypeError, ValueError: a wrong argument or option, at the call.
        TooManyFailures: from the iterator, at its end.
        Exception: from the iterator, what an input iterator raised; what the executor raised.

    >>> import abreast
    >>> for o in abreast.outcomes(lambda number: 6 / number, [3, 0]):
    ...     print(o.index, o.input, o.value if o.ok else repr(o.error))
    0 3 2.0
    1 0 ZeroDivisionError('division by zero')
    """
    return Results(make_run(fn, iterables, options, outcomes=True))


@overload
async def amap(fn: Callable[[A], T], inputs: Iterable[A], /, **options: Unpack[RunOptions]) -> list[T]: ...
@overload
async def amap(
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[RunOptions]
) -> list[T]: ...
async def amap(fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> list[T]:
    """As `map`, for async code: the functions run on threads, or in processes, and the event loop goes on meanwhile.

    Inputs are read in the event loop's thread. Cancelling the coroutine ends the run.

    Args:
        fn: called as by `map`; no coroutine function.
        iterables, options: as for `map`.

    Returns:
        The list of results, in the order of the inputs.

    Raises:
        TypeError, ValueError: a wrong argument or option, when it is awaited.
        BaseException: what `fn` raised, and all else that `map` raises.

    >>> import abreast, asyncio
    >>> asyncio.run(abreast.amap(str.upper, ["a", "b"]))
    ['A', 'B']
    """
    from abreast.engine.async_results import collect_async

    return await collect_async(make_run(fn, iterables, options, keeps_all=True))


@overload
def aimap(fn: Callable[[A], T], inputs: Iterable[A], /, **options: Unpack[RunOptions]) -> AsyncResults[T]: ...
@overload
def aimap(
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[RunOptions]
) -> AsyncResults[T]: ...
def aimap(fn: Callable[..., T], /, *iterables: Iterable[Any], **options: Unpack[RunOptions]) -> AsyncResults[T]:
    """As `imap`, for async code: an asynchronous iterator.

    Args:
        fn: called as by `map`; no coroutine function.
        iterables, options: as for `imap`.

    Returns:
        `AsyncResults`: for ``async for``, with `aclose`, `summary` and ``__length_hint__``.

    Raises:
        TypeError, ValueError: a wrong argument or option, at the call.
        BaseException: from the iterator, all that `imap` raises there.

    >>> import abreast, asyncio
    >>> async def main():
    ...     return [page async for page in abreast.aimap(str.upper, ["a", "b"])]
    >>> asyncio.run(main())
    ['A', 'B']
    """
    from abreast.engine.async_results import AsyncResults

    return AsyncResults(make_run(fn, iterables, options))


def make_run(
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    options: Mapping[str, Any],
    *,
    outcomes: bool = False,
    keeps_all: bool = False,
    executor: Executor | None = None,
    refused: Mapping[str, str] | None = None,
) -> Run:
    """Check the arguments, and return a run that has not started."""
    function("fn", fn)
    no_coroutine_function("fn", fn, "a process" if options.get("kind") == "process" else "a thread")
    if not iterables:
        raise TypeError("map() needs at least one iterable of inputs")
    executor = executor or options.get("executor")
    if isinstance(executor, View):
        options = {**executor.options, **{name: value for name, value in options.items() if name != "executor"}}
        executor = executor.executor
    get = check_run_options(options, refused=refused or {}, executor=executor).get
    name = get("name") or name_of(fn)
    source = Source(iterables, strict=get("strict", False))
    if get("max_failures") is not None and not outcomes:
        raise TypeError(
            f"max_failures={options['max_failures']!r} is for outcomes(), which goes on when tasks fail; this raises the first failed task's error"
        )
    if executor is not None and get("task_timeout") is not None and not has_limits(executor):
        kind = type(executor)
        who = kind.__name__ if kind.__module__.startswith("abreast.") else f"{kind.__module__}.{kind.__name__}"
        raise TypeError(
            f"task_timeout={options['task_timeout']!r}: a {who} cannot end a task for us; abreast's ThreadPoolExecutor and ProcessPoolExecutor can"
        )
    journal = get("journal")
    once = journal is not None and journal.at_most_once
    chunksize = get("chunksize", "auto")
    if once and not sends_each(executor, None if chunksize == "auto" else chunksize):
        cure = f"give the {type(executor).__name__} flush='each'" if hasattr(executor, "sends_each") else "give chunksize=1"
        raise ValueError(f"a Journal with at_most_once=True needs to know of each task that it has ended: {cure}")
    workers: Callable[[], Workers]
    if executor is not None:
        workers = partial(workers_of, executor, limited=get("task_timeout") is not None)
    else:
        workers = partial(
            open_pool,
            get("kind", "thread"),
            get("max_workers"),
            name=name,
            inputs=source.total,
            task_timeout=get("task_timeout"),
            flush="each" if once else "auto",
        )
    return Run(
        fn,
        source,
        workers,
        name=name,
        ordered=get("ordered", True),
        outcomes=outcomes,
        keeps_all=keeps_all,
        buffersize=get("buffersize"),
        chunksize=None if chunksize == "auto" else chunksize,
        timeout=get("timeout"),
        retry=get("retries"),
        task_timeout=None if executor is None else get("task_timeout"),
        max_per_second=get("max_per_second"),
        max_failures=get("max_failures"),
        journal=_journal(journal, fn, source, get("key")),
        progress=_progress(get("progress", False), source.total, name),
    )


def _journal(
    journal: Journal | None, fn: Callable[..., Any], source: Source, key: Callable[..., Any] | None
) -> Journaling | None:
    if journal is None:
        return None
    from abreast.engine.journaled import Journaling

    return Journaling(journal, fn, star=source.star, key=key)


def _progress(value: object, total: int | None, name: str) -> Callable[[], Progress | None] | None:
    if value is False:
        return None
    from abreast.observe.progress import check_progress, open_progress

    check_progress(value)
    return partial(open_progress, value, total=total, name=name)

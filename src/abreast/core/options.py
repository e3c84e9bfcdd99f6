"""The options of runs and tasks: the one list. Functions spell it ``**options: Unpack[RunOptions]``.

An option is here from the moment it works. Each is checked at the call, before any input is read; an unknown one is refused by name,
with the nearest that there is.
"""

from __future__ import annotations

import concurrent.futures  # noqa: TC003  # whoever looks up the annotations of RunOptions needs it
import os  # noqa: TC003  # as above
import sys
from collections.abc import Callable  # noqa: TC003  # as above
from math import isfinite
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from abreast.core.check import callable_or_none, count, count_from_zero, count_or_none, number, seconds_or_none, text_or_none
from abreast.core.journal import Journal, journal_or_none
from abreast.core.retry import Retry, retry_or_none

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Kind", "RunOptions", "TaskOptions", "check_run_options", "check_task_options"]

Kind = Literal["thread", "process", "serial"]


class TaskOptions(TypedDict, total=False):
    """What may be said of each task.

    Attributes:
        name: what the tasks are called in names of threads, notes and progress; default: the function's name.
        task_timeout: seconds a task may take from its start, above 0; one over it fails with `TaskTimeout`. Its thread is left behind,
            its process is killed. None: no limit, or what the executor that it runs on has.
        retries: how many more attempts a task gets that fails, runs into its `task_timeout`, or dies with its process; 0 (default) or more; or a
            `Retry`, which says for which errors and how long to wait. A task that waits for its next attempt holds no worker.

    >>> import abreast
    >>> per_task: abreast.TaskOptions = {"name": "length", "task_timeout": 30, "retries": 2}
    >>> abreast.map(len, ["one", "three"], **per_task)
    [3, 5]
    """

    name: str | None
    task_timeout: float | None
    retries: int | Retry


class RunOptions(TaskOptions, total=False):
    """The options of `map`, `imap`, `outcomes`, `amap` and `aimap`; those of `TaskOptions` too.

    Attributes:
        kind: ``"thread"`` (default) for functions that wait; ``"process"`` for functions that compute: processes of the run's own, to
            which function, inputs and results are sent (lambdas and functions of the main script too); or ``"serial"``: one after
            another in the caller's thread, for debugging.
        executor: any `concurrent.futures.Executor` to run on, which stays open; instead of a pool of the run's own.
        max_workers: the most workers of the run's own pool, at least 1; never more than inputs. None: of threads 4 more than
            the usable cores, at most 32; of processes the usable cores (affinity and container limit count), and 1 in a task that
            runs in a process itself.
        ordered: True (default): results in the order of the inputs; False: as they are completed.
        buffersize: how many inputs may be taken ahead of the consumer, at least 1. None: two batches a worker; of `map` and `amap` more. In
            order, a task that is slow or waits for a retry lets no more than these go on.
        chunksize: how many tasks go to a worker at a time, at least 1; ``"auto"`` (default) finds it by measuring.
            With threads, a number and `task_timeout` exclude each other.
        timeout: seconds the whole run may take, above 0; then `TimeoutError`: threads that are at work are left behind, processes
            killed. None: no limit.
        max_per_second: the most tasks that start per second, retries included, above 0 (``1/3`` is one in three seconds): on a schedule, of
            which 25 ms may be caught up. Counted where they are handed to a worker that is free. None: no limit.
        max_failures: for `outcomes` and ``executor.outcomes``: how many tasks may fail for good, at least 0; or what share of those that have
            ended, between 0 and 1, as a float, looked at from the 20th on. One more ends the run: the rest comes as cancelled, then
            `TooManyFailures` is raised. None: no limit.
        journal: a file, or a `Journal`, that records what came of each task: the same call again, also after the program was killed, returns
            what is recorded and runs the rest. None: nothing is recorded.
        key: with `journal`: a function that gets what `fn` gets, and returns what the task is to be known by in a later run, a str or bytes. None: the
            content of the input.
        strict: True: iterables of different lengths are a ValueError; False (default): the shortest ends the run.
        progress: False (default); True or a label: a bar on terminals and in notebooks, lines elsewhere; None: on terminals and in
            notebooks only, after half a second; a tqdm class or object, a rich Progress, or a function that gets the number
            of tasks newly done.

    >>> import abreast
    >>> politely: abreast.RunOptions = {"max_workers": 2, "timeout": 60}
    >>> abreast.map(len, ["one", "three"], **politely)
    [3, 5]
    """

    kind: Kind
    executor: concurrent.futures.Executor | None
    max_workers: int | None
    ordered: bool
    buffersize: int | None
    chunksize: int | Literal["auto"]
    timeout: float | None
    max_per_second: float | None
    max_failures: float | None
    journal: str | os.PathLike[str] | Journal | None
    key: Callable[..., str | bytes] | None
    strict: bool
    progress: Any


KNOWN = (*TaskOptions.__annotations__, *(name for name in RunOptions.__annotations__ if name not in TaskOptions.__annotations__))

_OF_POOLS = (
    "initializer",
    "initargs",
    "mp_context",
    "thread_name_prefix",
    "max_tasks_per_child",
    "max_memory_per_child",
    "max_pending",
    "capture_output",
)

_ELSEWHERE = {
    **dict.fromkeys(
        ("n_jobs", "processes", "n_workers", "num_workers", "threads", "concurrency", "max_concurrency"), "max_workers"
    ),
    **dict.fromkeys(("backend", "prefer"), "kind, 'thread' or 'process'"),
    **dict.fromkeys(("desc", "description", "tqdm"), "progress, True or a label"),
    **dict.fromkeys(("rate", "rate_limit", "per_second"), "max_per_second"),
    **dict.fromkeys(("attempts", "tries", "max_retries", "retry_on", "backoff"), "retries, a number or abreast.Retry(…)"),
    **dict.fromkeys(("batch_size", "batchsize"), "chunksize"),
    "unordered": "ordered=False",
    "total": "progress, which asks the inputs for their len()",
    "return_exceptions": "outcomes(), which gives the error of each input",
}
"""What other libraries call it, and what it is called here. By their letters they are far from it, or near to something else."""


def check_run_options(options: Mapping[str, Any], *, refused: Mapping[str, str], executor: object = None) -> dict[str, Any]:
    """Return `options` as plain integers and floats; raise TypeError or ValueError unless they are RunOptions that make sense.

    Args:
        options: as the user gave them.
        refused: options that exist, but not here, with the reason.
        executor: what the run is on, if not on a pool of its own.
    """
    for name, value in options.items():
        if name in refused:
            raise TypeError(f"{name}={short(value)}: {refused[name]}")
        if name not in KNOWN:
            raise TypeError(_unknown(name, value, [known for known in KNOWN if known not in refused]))
    checked = dict(options)
    get = options.get
    if get("kind", "thread") not in get_args(Kind):
        *kinds, last = map(repr, get_args(Kind))
        raise ValueError(f"kind must be {', '.join(kinds)} or {last}, not {short(get('kind'))}")
    for name in ("max_workers", "buffersize"):
        checked[name] = count_or_none(name, get(name))
    if get("chunksize", "auto") != "auto":
        if isinstance(get("chunksize"), str):
            raise ValueError(f"chunksize must be an integer or 'auto', not {get('chunksize')!r}")
        checked["chunksize"] = count("chunksize", get("chunksize"), default=" or 'auto'")
    for name in ("timeout", "task_timeout"):
        checked[name] = seconds_or_none(name, get(name))
    checked["retries"] = retry_or_none(get("retries", 0))
    checked["max_per_second"] = _rate_or_none(get("max_per_second"))
    checked["max_failures"] = _failures_or_none(get("max_failures"))
    for name in ("ordered", "strict"):
        if not isinstance(get(name, False), bool):
            raise TypeError(f"{name} must be True or False, not {short(get(name))}")
    text_or_none("name", get("name"))
    checked["journal"] = journal_or_none(get("journal"))
    callable_or_none("key", get("key"))
    if get("key") is not None and checked["journal"] is None:
        raise TypeError(f"key={short(get('key'))} is for a run with a journal, and there is none: give journal= too")
    with_processes = get("kind") == "process" or hasattr(executor, "encodes")
    if checked["task_timeout"] is not None and isinstance(checked.get("chunksize"), int) and not with_processes:
        raise ValueError(
            f"chunksize={get('chunksize')!r} and task_timeout={get('task_timeout')!r} exclude each other: "
            "a limit counts from a task's start, so tasks with a limit go to a thread one by one; processes can do both"
        )
    _check_executor(executor or options.get("executor"), options, checked)
    return checked


def check_task_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """As `check_run_options`, for TaskOptions."""
    known = TaskOptions.__annotations__
    for name, value in options.items():
        if name not in known:
            hint = "; give it to map, imap or outcomes" if name in KNOWN else ""
            raise TypeError((hint and f"{name}={short(value)} is no option of a task{hint}") or _unknown(name, value, known))
    checked = dict(options)
    if "retries" in options:
        checked["retries"] = retry_or_none(options["retries"])
    if "task_timeout" in options:
        checked["task_timeout"] = seconds_or_none("task_timeout", options["task_timeout"])
    text_or_none("name", options.get("name"))
    return checked


def _rate_or_none(value: object) -> float | None:
    if value is None:
        return None
    rate = number("max_per_second", value, "a number or None")
    if not (rate > 0 and isfinite(rate)):
        raise ValueError(f"max_per_second must be finite and greater than 0, not {rate:g}")
    return rate


def _failures_or_none(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        share = number("max_failures", value, "an integer, a share between 0 and 1, or None")
        if not 0 < share < 1:
            raise ValueError(f"max_failures must be an integer of at least 0, or a share between 0 and 1, not {value!r}")
        return share
    return count_from_zero("max_failures", value)


def _check_executor(executor: Any, options: Mapping[str, Any], checked: Mapping[str, Any]) -> None:
    if executor is None:
        if options.get("kind") == "serial":
            if options.get("task_timeout") is not None:
                raise ValueError(f"task_timeout={options['task_timeout']!r}: kind='serial' cannot end a task, it runs it itself")
            if (checked["max_workers"] or 1) > 1:
                raise ValueError(f"max_workers={options['max_workers']!r}: kind='serial' runs one task after another")
        elif options.get("kind") == "process" and sys.platform != "linux":
            raise NotImplementedError("kind='process' runs on Linux only so far; kind='thread' runs everywhere")
        return
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor, not {short(executor)} ({type(executor).__name__})")
    for name in ("kind", "max_workers"):
        if options.get(name) is not None:
            raise TypeError(f"{name}={short(options[name])} and executor= exclude each other: it belongs to the executor")


def _unknown(name: str, value: object, known: Collection[str]) -> str:
    if name in _OF_POOLS:
        return f"{name}={short(value)} belongs to a pool: give it to the executor's constructor, and the executor as executor="
    if name in _ELSEWHERE:
        return f"there is no option {name!r} (given {name}={short(value)}); here it is {_ELSEWHERE[name]}"
    import difflib

    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; the options are: {', '.join(known)}"
    return f"there is no option {name!r} (given {name}={short(value)}){hint}"

"""abreast: run Python functions side by side, and see what each of them did.

The map of the house; imports go down only (docs/design/README.md has the whole of it)::

    L5  cli/                                the command
    L4  __init__  functions  group  pools  process_pools  draining  comparison   what users import
    L3  engine/                             a run over many inputs
    L2  executors/  observe/  report/  journal/     the machinery of each kind of worker; progress; views of what was done; the journal's file
    L1  policy/                             pure decisions: batch, window, order, retry, rate, failures
    L0  core/                               futures, outcomes, options, errors, what runs in this thread

A name is imported when it is first used, so ``import abreast`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022  # grouped by what they are for
    # one call over many inputs
    "map",
    "imap",
    "outcomes",
    "amap",
    "aimap",
    "Outcome",
    "Results",
    "AsyncResults",
    "RunSummary",
    "RunOptions",
    "TaskOptions",
    "Retry",
    "Journal",
    # functions that run at the same time, and what a task can ask
    "TaskGroup",
    "current_task",
    "Task",
    "sleep",
    "checkpoint",
    # seeing what each of them did
    "record",
    "RecordedRun",
    # programs that are stopped from outside
    "drain_on",
    "Drain",
    # executors
    "ThreadPoolExecutor",
    "ProcessPoolExecutor",
    "SerialExecutor",
    "Future",
    "PoolStatistics",
    # what is fastest
    "compare",
    "Comparison",
    # errors
    "AbreastError",
    "DeadlockDetected",
    "Drained",
    "TaskTimeout",
    "TooManyFailures",
    "TaskError",
    "TaskPickleError",
    "TaskDecodeError",
    "ResultDecodeError",
    "WorkerCrashed",
    "MemoryLimitExceeded",
    "RecordingError",
    "JournalError",
    "JournalBusy",
    "JournalCorrupt",
    "JournalTrustError",
    "Interrupted",
    "JournalWarning",
    "InputChanged",
    # the standard library's, so that one import line is enough
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "InvalidStateError",
    "TimeoutError",
    "as_completed",
    "wait",
    "__version__",
]

if TYPE_CHECKING:
    from concurrent.futures import (
        ALL_COMPLETED,
        FIRST_COMPLETED,
        FIRST_EXCEPTION,
        BrokenExecutor,
        CancelledError,
        Executor,
        InvalidStateError,
        TimeoutError,  # noqa: A004  # the builtin itself, from 3.11 on
        as_completed,
        wait,
    )

    from abreast.comparison import Comparison, compare
    from abreast.core.current import Task, current_task
    from abreast.core.errors import (
        AbreastError,
        DeadlockDetected,
        Drained,
        RecordingError,
        TaskError,
        TaskTimeout,
        TooManyFailures,
    )
    from abreast.core.future import Future
    from abreast.core.journal import Journal
    from abreast.core.journal_errors import (
        InputChanged,
        Interrupted,
        JournalBusy,
        JournalCorrupt,
        JournalError,
        JournalTrustError,
        JournalWarning,
    )
    from abreast.core.options import RunOptions, TaskOptions
    from abreast.core.outcome import Outcome, RunSummary
    from abreast.core.process_errors import (
        MemoryLimitExceeded,
        ResultDecodeError,
        TaskDecodeError,
        TaskPickleError,
        WorkerCrashed,
    )
    from abreast.core.retry import Retry
    from abreast.core.statistics import PoolStatistics
    from abreast.draining import Drain, drain_on
    from abreast.engine.async_results import AsyncResults
    from abreast.engine.results import Results
    from abreast.functions import aimap, amap, imap, map, outcomes  # noqa: A004  # the name everybody knows
    from abreast.group import TaskGroup, checkpoint, sleep
    from abreast.pools import SerialExecutor, ThreadPoolExecutor
    from abreast.process_pools import ProcessPoolExecutor
    from abreast.recording import RecordedRun, record

# Where each name lives. The one place where a module is named by a string; a test holds it against the imports above.
_HOMES = {
    "abreast.pools": ("SerialExecutor", "ThreadPoolExecutor"),
    "abreast.process_pools": ("ProcessPoolExecutor",),
    "abreast.recording": ("RecordedRun", "record"),
    "abreast.functions": ("aimap", "amap", "imap", "map", "outcomes"),
    "abreast.group": ("TaskGroup", "checkpoint", "sleep"),
    "abreast.comparison": ("Comparison", "compare"),
    "abreast.draining": ("Drain", "drain_on"),
    "abreast.engine.results": ("Results",),
    "abreast.engine.async_results": ("AsyncResults",),
    "abreast.core.current": ("Task", "current_task"),
    "abreast.core.options": ("RunOptions", "TaskOptions"),
    "abreast.core.outcome": ("Outcome", "RunSummary"),
    "abreast.core.errors": (
        "AbreastError",
        "DeadlockDetected",
        "Drained",
        "RecordingError",
        "TaskError",
        "TaskTimeout",
        "TooManyFailures",
    ),
    "abreast.core.process_errors": (
        "MemoryLimitExceeded",
        "ResultDecodeError",
        "TaskDecodeError",
        "TaskPickleError",
        "WorkerCrashed",
    ),
    "abreast.core.journal": ("Journal",),
    "abreast.core.journal_errors": (
        "InputChanged",
        "Interrupted",
        "JournalBusy",
        "JournalCorrupt",
        "JournalError",
        "JournalTrustError",
        "JournalWarning",
    ),
    "abreast.core.retry": ("Retry",),
    "abreast.core.future": ("Future",),
    "abreast.core.statistics": ("PoolStatistics",),
    "concurrent.futures": (
        "ALL_COMPLETED",
        "FIRST_COMPLETED",
        "FIRST_EXCEPTION",
        "BrokenExecutor",
        "CancelledError",
        "Executor",
        "InvalidStateError",
        "TimeoutError",
        "as_completed",
        "wait",
    ),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            value = getattr(import_module(home), name)
            globals()[name] = value  # next time without this function
            return value
    raise AttributeError(f"module 'abreast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

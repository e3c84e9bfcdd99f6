"""What an executor says of itself: frozen counts, read by people and by tests."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PoolStatistics"]


class PoolStatistics(NamedTuple):
    """What an executor is doing and has done, at one moment; what ``executor.statistics()`` returns.

    Attributes:
        max_workers (int): how many workers there may be.
        workers (int): how many there are; they are started when needed.
        idle (int): how many of those wait for a task.
        running (int): how many tasks run.
        pending (int): how many tasks wait for a worker (those cancelled there included, until a worker comes across them).
        finished (int): how many tasks returned.
        failed (int): how many raised, or ran over their limit.
        cancelled (int): how many were cancelled before they started.
        abandoned (int): how many threads were left behind, after Ctrl-C or a ``task_timeout``, and still run.

    >>> import abreast
    >>> with abreast.ThreadPoolExecutor(max_workers=3) as executor:
    ...     executor.submit(pow, 2, 3).result()
    8
    >>> executor.statistics()
    PoolStatistics(max_workers=3, workers=0, idle=0, running=0, pending=0, finished=1, failed=0, cancelled=0, abandoned=0)
    """

    max_workers: int
    workers: int
    idle: int
    running: int
    pending: int
    finished: int
    failed: int
    cancelled: int
    abandoned: int

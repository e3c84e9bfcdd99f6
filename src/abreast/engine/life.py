"""The lives of tasks that have failed, in a run with retries: judged, waiting for their next attempt, or failed for good.

::

    a batch is over ─▶ take_out ─▶ [failed] ─ judge ─▶ wait ─▶ [waiting] ─ due ─▶ pending again: a batch of its own
      (run.py)                                  │        a heap, by time
                                                └─▶ failed for good: an outcome, or the error that ends the run

The run's lock guards all of it; it is not held by `judge`, which may run code of the user's: the function given as ``on``, what asking an
exception for its ``Retry-After`` calls, and what unpickling it does. So a task stays in `failed` while it is judged, and who has judged it asks
whether it is there still.

A task that waits is an entry of the heap: no thread, no timer, nothing of its error, whose traceback would hold the frames it was raised in.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from abreast.engine.decoding import decode_error
from abreast.engine.pieces import Stretch
from abreast.executors.batch import Batch
from abreast.policy.retry import next_attempt

if TYPE_CHECKING:
    from abreast.core.retry import Retry

__all__ = ["Lives", "decide", "judge"]


class Lives:
    """The tasks of a run that have failed and are not over.

    Attributes:
        tried: how many attempts at a task have failed and were not the last, by index.
        retries: the sum of these.
    """

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.tried: dict[int, int] = {}
        self.retries = 0
        self.no_more = False
        """Whether the executor has been told to cancel what waits: what fails now has failed for good."""
        self._failed: dict[int, Batch] = {}
        self._unjudged: deque[Batch] = deque()
        self._waiting: list[tuple[float, int, Stretch]] = []  # a heap

    def __len__(self) -> int:
        return len(self._failed) + len(self._waiting)

    def take_out(self, batch: Batch, place: int) -> None:
        """Take a failed task out of a batch that is over: a batch of its own, which is over too."""
        alone = Batch(batch.work, batch.start + place, batch.items[place : place + 1], batch.context, 1, None)
        alone.worker, alone.remote = batch.worker, batch.remote
        alone.results, alone.errors = [None], {0: batch.errors[place]}
        if batch.work.timed:
            alone.began = batch.ends[place - 1] if place else batch.began
            alone.ends = [batch.ends[place]]
        self._failed[alone.start] = alone
        self._unjudged.append(alone)

    def has_unjudged(self) -> bool:
        return bool(self._unjudged)

    def next_unjudged(self) -> Batch | None:
        return self._unjudged.popleft() if self._unjudged else None

    def is_over(self, alone: Batch) -> bool:
        """It has been judged; False if nobody wants to know any more."""
        if self._failed.get(alone.start) is not alone:
            return False
        del self._failed[alone.start]
        return True

    def wait(self, alone: Batch, due: float) -> None:
        """Have a task wait until `due` for its next attempt."""
        index = alone.start
        self.retries += 1
        self.tried[index] = self.tried.get(index, 0) + 1
        heapq.heappush(self._waiting, (due, index, Stretch(index, alone.items, 0, alone.context)))

    def forget(self, index: int) -> None:
        """A task is over: an endless run must not remember all that have ever failed."""
        self.tried.pop(index, None)

    @property
    def next_due(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def release(self, now: float) -> list[Stretch]:
        """Take out the tasks that are due, in the order of their inputs."""
        released = []
        while self._waiting and self._waiting[0][0] <= now:
            released.append(heapq.heappop(self._waiting)[2])
        return sorted(released, key=lambda stretch: stretch.start)

    def drop_behind(self, limit: int) -> int:
        """Let go of the tasks from index `limit` on; return how many."""
        before = len(self)
        self._failed = {index: alone for index, alone in self._failed.items() if index < limit}
        self._waiting = [entry for entry in self._waiting if entry[1] < limit]
        heapq.heapify(self._waiting)
        return before - len(self)

    def take_all(self) -> tuple[list[Batch], list[Stretch]]:
        """Take out all tasks: those that are being judged, and those that wait."""
        failed, waiting = list(self._failed.values()), [entry[2] for entry in self._waiting]
        self._failed, self._waiting = {}, []
        return failed, waiting


def judge(alone: Batch, retry: Retry, encodes: frozenset[type[Any]]) -> float | None:
    """Return after how many seconds a failed task is to be tried again; None if it has failed for good.

    Its error is unpickled for it, and stays so.
    """
    error = decode_error(alone.errors[0], encodes)
    try:
        wait, alone.errors[0] = decide(retry, error, alone.work.tried.get(alone.start, 0) + 1)
        return wait
    finally:
        del alone, error  # else: what `on` raises -> its traceback -> this frame -> the batch -> that error


def decide(retry: Retry, error: BaseException, attempts: int) -> tuple[float | None, BaseException]:
    """Return after how many seconds there is another attempt, or None, and the error: what the user's `on` raises takes its place."""
    from random import random  # when first needed: it takes 3 ms

    try:
        return next_attempt(retry, error, attempts, random(), time.time()), error  # noqa: S311  # no secret
    except KeyboardInterrupt:
        raise
    except BaseException as why:
        why.__context__ = None if why is error else error
        return None, why
    finally:
        del error

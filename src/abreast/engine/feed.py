"""What the workers are fed with: inputs that have been read and wait to be sent, batches that are with the workers, how much of either there may be.

::

    read ─▶ [pending] ─ cut ─▶ [running] ─▶ a batch is over (settling.py)
             ▲ ▲ ▲              │
             │ │ └─ put_back ◀──┤ a rest that was handed back, or could not be sent
             │ └ take_overdue ◀─┘ a rest that stands behind a slow task, for workers that have nothing to do; `give_back`, if in a process
             └─ release ◀─ tasks that have failed, and are due again (life.py)

The run's lock guards all of it, and is held by who calls. It only decides: no executor is called, no input is read.

Invariant
    Nothing at an index above `limit` is pending or sent, and what is with the workers there is told to start no further task.
"""

from __future__ import annotations

import sys
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from abreast.engine.pieces import Stretch
from abreast.executors.batch import Batch
from abreast.policy.batch import TIME_BOX, batch_size, stride, time_target
from abreast.policy.window import batch_limit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from abreast.engine.life import Lives
    from abreast.engine.source import Source
    from abreast.engine.starts import Starts
    from abreast.engine.tally import Tally
    from abreast.engine.workers import Workers
    from abreast.executors.batch import Work
    from abreast.policy.batch import Pace

__all__ = ["NEVER", "Feed"]

NEVER = sys.maxsize
"""The limit of a run that goes on."""
_SHARES = getattr(sys, "_is_gil_enabled", lambda: True)()


class Feed:
    """Of one run.

    Attributes:
        pending: what has been read and is not in a batch, in the order in which it is sent.
        running: the batches that are with the workers, by start.
        limit: no task at an index above it is started: the place of the first error where results come in order, -1 when the run is over.
        drained: whether the program has been asked to end: nothing more is started.
        pace: what has been learnt of the tasks.
        fixed_size: of batches, if somebody asked for one.
    """

    pace: Pace
    fixed_size: int | None

    def __init__(self, work: Work, source: Source, tally: Tally, *, lives: Lives | None, starts: Starts | None) -> None:
        self.pending: deque[Stretch] = deque()
        self.running: dict[int, Batch] = {}
        self.limit = NEVER
        self.drained = False
        self._work = work
        self._source = source
        self._tally = tally
        self._lives = lives
        self._starts = starts
        self._goes_deep = False

    def open(self, workers: Workers, chunksize: int | None, *, goes_deep: bool) -> None:
        """These are the workers; `goes_deep`: whether many small batches may be sent ahead, if somebody asked for such."""
        self._workers = workers
        self.fixed_size = workers.chunksize or chunksize
        self._goes_deep = goes_deep and self.fixed_size is not None
        self.pace = workers.first_pace(self._work.fn)
        if self._starts is not None and not self._starts.may_wait_ahead(workers.count):
            workers.per_worker = 1

    # ---- how much

    def batch_limit(self) -> int:
        """Return how many batches may be with the workers."""
        seconds = None
        if self._goes_deep and self.fixed_size is not None and self.pace.item is not None:
            seconds = self.pace.item * self.fixed_size
        return batch_limit(self._workers.count, self._workers.per_worker, seconds)

    def size(self) -> int:
        """Return how many tasks the next batch should have."""
        if self.fixed_size is not None:
            return self.fixed_size
        left = self._source.left()
        if left is not None:
            left += sum(map(len, self.pending))
        size = batch_size(self.pace, self._workers.count, left)
        return size if self._starts is None else min(size, self._starts.burst)

    def next_start(self) -> float | None:
        """Return when to look whether more may start, if the rate is what keeps pending tasks from free workers."""
        if self._starts is None or not self.pending or len(self.running) >= self.batch_limit():
            return None
        return self._starts.next()

    def is_something_stuck(self) -> bool:
        """Whether a batch holds tasks that have not started, while some worker has nothing to do."""
        return (
            _SHARES
            and not self.pending
            and any(batch.box is not None and len(batch.items) - len(batch.results) > 1 for batch in self.running.values())
        )

    # ---- from pending to the workers, and back

    def cut(self) -> Batch | None:
        """Cut a batch off what is pending, if there is room for one with the workers."""
        if not self.pending or len(self.running) >= self.batch_limit():
            return None
        stretch = self.pending[0]
        # One that goes again by itself: thousands may, and what is left is not to be counted for each.
        size = 1 if len(stretch) == 1 else self.size()
        if self._starts is not None and (size := self._starts.begin(min(size, len(stretch)))) == 0:
            return None
        start, pace = stretch.start, self.pace
        items = stretch.cut(size)
        step, box = stride(pace), None if self.fixed_size is not None else TIME_BOX * time_target(pace, self._workers.count)
        if not len(stretch):
            self.pending.popleft()
        batch = self.running[start] = Batch(self._work, start, items, stretch.context, step, box)
        return batch

    def put_back(self, batch: Batch, first: int, last: int) -> None:
        """Some tasks of a batch were not started: they are pending again."""
        self.pending.appendleft(Stretch(batch.start + first, batch.items[:last], first, batch.context))
        if self._starts is not None:
            self._starts.take_back(last - first)

    def give_back(self, batch: Batch, place: int) -> None:
        """A worker process that is at a long task has not begun those behind it, from `place` on, and will not."""
        if self.running.get(batch.start) is not batch or batch.start > self.limit or place >= len(batch.items):
            return
        if batch.start + place <= self.limit:
            self.put_back(batch, place, len(batch.items))
        else:
            self._tally.given_up += len(batch.items) - place
        batch.items = batch.items[:place]

    def release(self, lives: Lives, now: float) -> None:
        """What is due for its next attempt is pending again."""
        self.pending.extendleft(reversed(lives.release(now)))

    def take_overdue(self) -> float | None:
        """Take the tasks that have not started out of batches over their time, if workers have nothing to do. Return when to look again.

        The worker of such a batch is in a task that takes long, and looks at the clock only after it. Without this, tasks
        behind it would wait while others are idle, which shows at the end of a run (2 % of 2.5 s, when naps of 50 ms met in one batch).
        """
        look_again: float | None = None
        if self.pending or not _SHARES or len(self.running) >= self._workers.count:
            return look_again
        now = perf_counter()
        for batch in sorted(self.running.values(), key=lambda batch: batch.start):
            if (
                batch.box is None
                or not batch.began
                or batch.cut
                or batch.start > self.limit
                or len(batch.items) - len(batch.results) < 2
            ):
                continue
            overdue_at = batch.began + batch.box
            if now < overdue_at:
                look_again = min(look_again or overdue_at, overdue_at)
                continue
            # In this order. Once the signal is set, the worker starts at most the task at `done`: it looks at the signal after each
            # task, and then waits for the run's lock. With the GIL there is no third possibility; without, it would have to be shown
            # for each processor's order of memory, so there nothing is taken (_SHARES).
            batch.signal.append(None)
            batch.cut = True
            keep = len(batch.results) + 1
            if keep < len(batch.items):
                self.pending.append(Stretch(batch.start + keep, batch.items, keep, batch.context))
                if self._starts is not None:
                    self._starts.take_back(len(batch.items) - keep)
                batch.items = batch.items[:keep]
        return look_again

    # ---- no more

    def stop_behind(self, index: int) -> list[Future[Any]]:
        """Start no task behind `index`; return the handles of batches that need not be run."""
        self.limit = limit = min(self.limit, index)
        self._tally.given_up += sum(len(stretch) for stretch in self.pending if stretch.start >= limit)
        self.pending = deque(stretch for stretch in self.pending if stretch.start < limit)
        if self._lives is not None:
            self._tally.given_up += self._lives.drop_behind(limit)
        return _stop(batch for batch in self.running.values() if batch.start > limit)

    def drain(self) -> list[Future[Any]]:
        """Start nothing more: what waits for its next attempt is pending, and stays so. Return the handles of what is with the workers."""
        self.drained = True
        if self._lives is not None:
            self._lives.no_more = True
            self.release(self._lives, float("inf"))
        return _stop(self.running.values())


def _stop(batches: Iterable[Batch]) -> list[Future[Any]]:
    """Have no further task of these started; return their handles."""
    handles = []
    for batch in batches:
        batch.stopped = True
        batch.signal.append(None)
        if batch.handle is not None:
            handles.append(batch.handle)
    return handles

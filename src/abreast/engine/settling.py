"""What becomes of the tasks of a batch that is over, and whether that ends the run: the results delivered, the rest fed again, the errors judged.

::

    a batch is over ─▶ settle ─┬─ results ───────────────▶ Delivery.settled
                               ├─ a rest, not begun ─────▶ Feed.put_back
                               ├─ failed, may go again ──▶ Lives.take_out ─ judged (life.py) ─▶ waits, or has_failed ─┐
                               └─ failed ────────────────▶ an outcome like others, or fail: it ends the run ◀─────────┘

    other ends:  cut_short     the time is up, or too many have failed: the rest comes as cancelled
                 stop_all      nobody wants any more

The run's lock guards all of it, and is held by who calls. It only decides: batches that need not be run any more are *returned* as handles,
which the caller cancels when it has let the lock go, since that may run code of the user's.

Invariants
    A batch leaves `Feed.running` once, and only then do its outcomes count; what comes of one that has left is dropped: the run is over for it.
    The consumer is woken by everything that could matter to it.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError
from typing import TYPE_CHECKING, Any

from abreast.core.errors import TooManyFailures
from abreast.engine.feed import NEVER
from abreast.engine.pieces import Failure, Stretch
from abreast.executors.batch import Batch
from abreast.policy.batch import learn, learn_dispatch
from abreast.policy.failures import are_too_many
from abreast.policy.retry import is_for_good
from abreast.policy.window import wakes_reader

if TYPE_CHECKING:
    from concurrent.futures import Future

    from abreast.engine.bell import Bell
    from abreast.engine.delivery import Delivery
    from abreast.engine.feed import Feed
    from abreast.engine.life import Lives
    from abreast.engine.source import Source
    from abreast.engine.tally import Tally
    from abreast.engine.workers import Workers
    from abreast.executors.batch import Work

__all__ = ["Settling"]


class Settling:
    """Of one run.

    Attributes:
        failure: the task's error that ends the run, at its place.
        broken: what else ends it: the executor refused a batch, the journal cannot be written, or a bug of ours.
        executor_breaks: whether the executor fails all its futures just now.
        too_many: ends the run when the rest has come as cancelled: more tasks have failed than may.
        first_error: of those.
        halted: the handles that were to be cancelled then; the thread that asks ends them.
        why_cut: why the rest comes as cancelled, if it does.
    """

    _workers: Workers

    def __init__(
        self,
        work: Work,
        source: Source,
        feed: Feed,
        delivery: Delivery,
        tally: Tally,
        bell: Bell,
        *,
        lives: Lives | None,
        max_failures: float | None,
        ordered: bool,
        outcomes: bool,
        keeps_all: bool,
    ) -> None:
        self.failure: Failure | None = None
        self.broken: BaseException | None = None
        self.executor_breaks = False
        self.too_many: TooManyFailures | None = None
        self.first_error: Any = None
        self.halted: list[Future[Any]] = []
        self.why_cut = ""
        self._first_dropped = NEVER
        self._work = work
        self._source = source
        self._feed = feed
        self._delivery = delivery
        self._tally = tally
        self._bell = bell
        self._lives = lives
        self._max_failures = max_failures
        self._ordered = ordered
        self._outcomes = outcomes
        self._keeps_all = keeps_all

    def open(self, workers: Workers) -> None:
        """These are the workers."""
        self._workers = workers

    # ---- a batch is over

    def settle(self, batch: Batch, lost: BaseException | None) -> list[Future[Any]]:
        """Take a batch's outcomes, and its rest; return the handles that are to be cancelled because of its error."""
        feed, delivery, tally = self._feed, self._delivery, self._tally
        if feed.running.get(batch.start) is not batch:
            batch.errors.clear()
            return []  # the run has been given up
        if feed.drained and isinstance(lost, CancelledError):
            lost = None  # what of it has not begun is not lost: it comes as Drained
        del feed.running[batch.start]
        if delivery.head is batch:
            delivery.head = None
        done = len(batch.results)
        tally.count(batch, done)
        if batch.start > feed.limit:  # it was cancelled, or told to stop: nothing of it is wanted
            delivery.record_unwanted(batch, done)
            tally.given_up += len(batch.items) - done
            self._wake_after(batch)
            return []
        handles: list[Future[Any]] = []
        if lost is None and batch.lost is not None:
            handles = self._settle_lost(batch, done, *batch.lost)
        elif lost is None and done < len(batch.items):
            if batch.start + done <= feed.limit:
                feed.put_back(batch, done, len(batch.items))
            else:
                tally.given_up += len(batch.items) - done
        elif lost is not None:
            done = self._lose(batch, done, lost)
        if done and lost is None:
            pace = learn_dispatch(feed.pace, batch.sent)
            feed.pace = learn(pace, done, batch.seconds, self._workers.count, typical=bool(self._workers.encodes))
        last = done
        first_failed = min(batch.errors, default=done)
        if first_failed == done:
            pass
        elif self._lives is not None and not (lost is not None and is_for_good(lost)):
            self._take_out_failed(batch, done, self._lives)
        elif self._outcomes:
            if self._max_failures is not None:
                self.first_error = self.first_error or batch.errors[first_failed]
        else:
            last = first_failed
            delivery.record_unwanted(batch, done, first=last)
            # Those dropped with it may be before it.
            handles += self.fail(Failure(min(batch.start + last, self._first_dropped), batch.errors[last], batch, last))
        delivery.settled(batch.start + batch.taken, delivery.extract(batch, last))
        if self._lives is not None and first_failed == done == len(batch.items):
            self._lives.forget(batch.start)  # if it was one that had failed before: such a task is a batch of its own
        if self._max_failures is not None:
            handles += self._end_if_too_many(self._max_failures)
        # The worker may hold the batch a moment longer than the consumer wants its results; and an error must not hold itself,
        # through its traceback, whose frames may hold the batch.
        batch.results = []
        batch.errors.clear()
        self._wake_after(batch)
        return handles

    def _settle_lost(self, batch: Batch, done: int, place: int, error: BaseException, seconds: float) -> list[Future[Any]]:
        """A task was lost with its process; those before it, from place `done` on, are to run again, and those behind it have not run.

        It becomes a batch of its own, which is over.
        """
        alone = Batch(self._work, batch.start + place, batch.items[place : place + 1], batch.context, 1, None)
        alone.worker, alone.remote = batch.worker, True
        alone.results, alone.errors, alone.ends, alone.seconds = [None], {0: error}, [seconds], seconds
        for first, last in ((place + 1, len(batch.items)), (done, place)):
            if first < last and batch.start + first <= self._feed.limit:
                self._feed.put_back(batch, first, last)
            else:
                self._tally.given_up += last - first
        self._feed.running[alone.start] = alone
        return self.settle(alone, None)

    def _lose(self, batch: Batch, done: int, lost: BaseException) -> int:
        """The executor has lost a batch: tasks that it had not finished, as far as is known, have this error. Return the new count."""
        missing = len(batch.items) - done
        if isinstance(lost, CancelledError):  # by whoever owns the executor: what else is pending would meet the same
            self._tally.given_up += missing
            pending, self._feed.pending = self._feed.pending, deque()
            if not self._outcomes:
                self._tally.given_up += sum(map(len, pending))
                self._first_dropped = min((stretch.start for stretch in pending), default=NEVER)
            else:
                for stretch in pending:
                    self._delivery.settled(stretch.start, self._delivery.cancelled(stretch, lost))
        else:
            self._tally.tasks += missing
            self._tally.failures += missing
            self.executor_breaks = isinstance(lost, BrokenExecutor)
            if missing > 1:
                lost.add_note(f"abreast: {missing} tasks were lost together; which of them had run is not known")
        batch.results += [None] * missing
        batch.ends += [0.0] * (len(batch.results) - len(batch.ends))
        batch.errors.update(dict.fromkeys(range(done, done + missing), lost))
        return done + missing

    def _wake_after(self, batch: Batch) -> None:
        """Wake the consumer if it could do something now."""
        feed = self._feed
        if (
            self.is_failure_due()
            or (not feed.running and feed.drained)
            or (not feed.running and not feed.pending)
            or (
                not self._keeps_all
                and not self._bell.patient
                and (not self._ordered or batch.start <= self._delivery.order.next <= batch.start + len(batch.items))
            )
            or (len(feed.running) < self._workers.count and feed.is_something_stuck())
            or (not self._source.exhausted and wakes_reader(len(feed.running), feed.batch_limit(), self._workers.count))
        ):
            self._bell.ring()

    # ---- a task has failed, and may be tried again: life.py

    def _take_out_failed(self, batch: Batch, done: int, lives: Lives) -> None:
        """Take out of a batch what is to be judged; the results between go on."""
        for place in sorted(place for place in batch.errors if place < done):
            self._delivery.settled(batch.start + batch.taken, self._delivery.extract(batch, place))
            lives.take_out(batch, place)
            batch.taken = place + 1
            self._tally.tasks -= 1  # counted when it is over
            self._tally.failures -= 1

    def has_failed(self, alone: Batch, lives: Lives) -> list[Future[Any]]:
        """A task that was taken out has failed for good. Return the handles that are to be cancelled because of that."""
        self._tally.tasks += 1
        self._tally.failures += 1
        if self._outcomes:
            handles = []
            self._delivery.settled(alone.start, [self._delivery.outcome(alone, 0)])
            lives.forget(alone.start)
            if self._max_failures is not None:
                self.first_error = self.first_error or alone.errors[0]
                handles = self._end_if_too_many(self._max_failures)
        else:
            self._delivery.record_unwanted(alone, 1)
            handles = self.fail(Failure(alone.start, alone.errors[0], alone, 0))
        self._bell.ring()
        return handles

    # ---- an error ends the run

    def fail(self, failure: Failure) -> list[Future[Any]]:
        """A task's error ends the run: at once, or where results come in order at its place."""
        if failure.index > self._feed.limit:
            return []
        if self.failure is None or failure.index < self.failure.index:
            self.failure = failure
        return self._feed.stop_behind(failure.index if self._ordered and not self._keeps_all else -1)

    def is_failure_due(self) -> bool:
        """Whether what ends the run is next for the consumer: everything before it has been delivered."""
        failure, delivery = self.failure, self._delivery
        if self.broken is not None and (self._keeps_all or delivery.unrecorded or not (self._feed.running or delivery.recording)):
            return True  # what is before the failure, if there is one, cannot be run any more
        return failure is not None and (self._feed.limit < 0 or delivery.order.next >= failure.index)

    def stop_unrecorded(self, error: BaseException) -> list[Future[Any]]:
        """The journal has failed: nothing is started, and nothing unrecorded delivered, any more."""
        self._delivery.unrecorded = True
        self._delivery.recording = 0
        self.broken = error
        handles = self._feed.stop_behind(-1)
        self._bell.ring()
        return handles

    # ---- too many errors end it

    def is_one_too_many(self) -> bool:
        """Whether a task that has just failed ends the run. What has failed and will be tried again is not counted here."""
        if self._max_failures is None or self._lives is not None:
            return False
        running = self._feed.running.values()
        failures = self._tally.failures + sum(len(batch.errors) for batch in running)
        ended = self._tally.tasks + sum(len(batch.results) for batch in running)
        return are_too_many(failures, ended, self._max_failures)

    def _end_if_too_many(self, most: float) -> list[Future[Any]]:
        """End the run if more tasks have failed than may. Return the handles that are to be cancelled."""
        failures, tasks = self._tally.failures, self._tally.tasks
        if self._feed.limit != NEVER or not are_too_many(failures, tasks, most):
            return []
        self.too_many = TooManyFailures(failures, tasks, most)
        self.halted = self.cut_short(f"{failures:,} tasks of the run had failed, more than its max_failures={most!r} allows")
        self._bell.ring()
        return self.halted

    # ---- other ends

    def cut_short(self, why: str) -> list[Future[Any]]:
        """What is not finished comes as cancelled. Return the handles that are to be cancelled."""
        self.why_cut = why
        error = CancelledError(why)
        feed, delivery, tally = self._feed, self._delivery, self._tally
        pieces: list[tuple[int, list[Any]]] = []
        if self._lives is not None:
            failed, waiting = self._lives.take_all()
            feed.pending.extend(waiting)
            pieces += [(alone.start, [delivery.outcome(alone, 0)]) for alone in failed]  # it has failed, and nobody will judge it
            tally.tasks += len(failed)
            tally.failures += len(failed)
        pieces += [(stretch.start, delivery.cancelled(stretch, error)) for stretch in feed.pending]
        feed.pending.clear()
        handles = feed.stop_behind(-1)
        for batch in feed.running.values():
            done = len(batch.results)
            tally.count(batch, done)
            start = batch.start + batch.taken
            piece = delivery.extract(batch, done)
            rest = delivery.cancelled(Stretch(batch.start + done, batch.items, done, None), error)
            is_running: Any = batch.began
            if batch.remote:
                is_running = batch.handle is not None and batch.handle.has_begun(done)  # type: ignore[attr-defined]  # those of processes have it
            if is_running and rest:  # the first of them was running
                rest[0].attempts += 1
                rest[0].worker = batch.worker
            pieces.append((start, piece + rest))
        feed.running.clear()
        for start, piece in sorted(pieces, key=lambda piece: piece[0]):
            delivery.settled(start, piece)
        return handles

    def cancel_waiting(self, lives: Lives) -> list[Future[Any]]:
        """What waits for its next attempt is cancelled, and what fails now has failed for good. Return the handles that are to be cancelled."""
        lives.no_more = True
        if not lives:
            return []
        failed, waiting = lives.take_all()
        items = [(alone.start, alone.items[0]) for alone in failed] + [(stretch.start, stretch.items[0]) for stretch in waiting]
        index, item = min(items, key=lambda each: each[0])
        self._tally.given_up += len(items)
        handles = self.fail(Failure(index, CancelledError(), Batch(self._work, index, [item], None, 1, None), 0))
        self._bell.ring()
        return handles

    def stop_all(self) -> list[Future[Any]]:
        """Nobody wants any more: what has been done is recorded, the rest given up. Return the handles that are to be cancelled."""
        handles = self._feed.stop_behind(-1)
        running = self._feed.running
        self._tally.given_up += sum(len(batch.items) - len(batch.results) for batch in running.values())
        for batch in running.values():
            done = len(batch.results)
            self._delivery.record_unwanted(batch, done)
            self._tally.count(batch, done)
        running.clear()
        self._delivery.drop()
        self._bell.ring()
        return handles

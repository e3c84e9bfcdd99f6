"""A run: one function over many inputs, on an executor. Its life, in the order things happen::

    the thread that asks for results                            the threads that complete batches
    ────────────────────────────────                            ─────────────────────────────────
    step():
      read inputs ─▶ Feed: [pending] ─ cut ─▶ [running] ─ submit ─▶ run_batch (executors/batch.py)
                      ▲  ▲                                            │
                      │  └─ the rest of a batch ◀─┐                   ▼
                      └─ due again ◀─ [lives] ◀── Settling ◀──────── deliver, judge what has failed, submit what is pending
                                                  │
      collect ◀─ Delivery: [order] ◀─ [finished] ◀┴─ with a journal recorded first: the journal's thread
      wait: parked until the Bell rings

    an outcome reaches the consumer:  when its batch is settled;  or from a batch that still runs, if the consumer waits (live)

This file is what is *done*, by which thread: read, send, run, cancel, wait, raise. What is *known*, and decided by it, is in rooms of its own, each
of which opens with its picture:

    feed.py      inputs on their way to the workers, and how many          settling.py  what becomes of a batch that is over; how the run ends
    delivery.py  results on their way to the consumer                      life.py      tasks that have failed, and may go again
    bell.py      how the consumer waits, and is woken                      tally.py     what is counted

The engine has no thread of its own. Inputs are read by the thread that asks, and nobody else; what has been read (the rest that a
batch handed back, or everything for ``executor.map``) may be submitted by the thread that completes a batch.

Which lock guards what
    `_lock` guards everything here, and in these rooms, but `source`, which belongs to the thread that asks. Methods marked `locked` take it: they
    only decide, and no room takes it by itself. It is never held while calling the executor, an input iterator, or anything of the user's. It is
    re-entrant, since a finalizer or signal handler may close a run while this thread holds it.

Invariants, besides those of the rooms
    Each input is in exactly one place: not read, `pending`, in a batch that is `running`, in `_lives`, with the journal (counted by
    `recording`), `finished` or in `order`, or taken.
    No task at an index above `Feed.limit` is started once that is set: it is the place of the first error where results come in order, and
    -1 when the run is over.
    A consumer that waits is woken: `Bell.news` is set with everything that could matter to it, reset before a step looks at anything, and
    looked at before it parks. What is to happen at a time (a retry, a start by the rate) is news if that is before `Bell.looks_at`.
    With retries a task's error ends its batch (`Work.fails_fast`), so that there are no holes in one.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextvars import copy_context
from time import monotonic, perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from abreast.core import draining, watch
from abreast.core.current import Scope, current_scopes, here
from abreast.core.errors import Drained
from abreast.core.future import pause
from abreast.core.outcome import Outcome, RunSummary
from abreast.engine import forked
from abreast.engine.bell import Bell, park, patience
from abreast.engine.decoding import Decoder, decode_error
from abreast.engine.delivery import Delivery
from abreast.engine.feed import NEVER, Feed
from abreast.engine.hold import Hold
from abreast.engine.life import Lives, judge
from abreast.engine.locking import locked, weakly, weakly_told
from abreast.engine.notes import add_note
from abreast.engine.pieces import Stretch
from abreast.engine.settling import Settling
from abreast.engine.starts import Starts
from abreast.engine.tally import Tally
from abreast.engine.watched import end_log, follow, kind_of, log_batch
from abreast.executors.base import plain_sender, sender
from abreast.executors.batch import Batch, Work, run_batch
from abreast.policy.batch import inputs_at_once, learn_reading
from abreast.policy.window import items_to_read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from contextvars import Context

    from abreast.core.retry import Retry
    from abreast.engine.journaled import Journaling
    from abreast.engine.source import Source
    from abreast.engine.workers import Workers
    from abreast.executors.base import SubmitPlain
    from abreast.observe.progress import Progress

__all__ = ["Run"]

_BEHIND = 8192
"""Outcomes that wait to be recorded; while there are more, no task is started: results come faster than the disk takes them."""
_FAR = float("inf")
_SLOW_READ = 0.001
_LONG_READ = 0.01
"""Seconds of reading for which results that are due wait. A few turns of the GIL or of a busy core are no slow source: to stop at the first read
of 1 ms left workers without work while the consumer was at the result."""
_SHORT = 0.005
_LONG_ENOUGH = 50e-6
"""Seconds of a task whose CPU time is measured by itself, if somebody watches: that takes 0.4 us. Shorter ones share their batch's."""


def _stop(handle: Future[Any]) -> None:
    """Start no further task of a batch; the one that runs finishes, and is told nothing."""
    if hasattr(handle, "stop"):  # of processes
        handle.stop()
    else:
        handle.cancel()


class Run:
    """One function over many inputs.

    Args:
        fn: the user's function.
        source: its inputs.
        workers: opens the executor; called at the start.
        name: what the tasks are called.
        ordered: whether results come in the order of the inputs.
        outcomes: whether results are `Outcome` objects, and errors never raised.
        keeps_all: whether the consumer keeps every result and waits for the last: `map`. Errors are raised as soon as they are known.
        at_once: whether everything is read and started at the start: the standard library's ``executor.map``.
        buffersize, chunksize, timeout, max_per_second, max_failures: as the options.
        retry: as the option ``retries``; None if no task is tried again.
        task_timeout: as the option, where the executor is not made with it.
        journal: what records outcomes, and knows those of earlier runs; opened at the start.
        progress: makes the progress display, or None; called at the start.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        source: Source,
        workers: Callable[[], Workers],
        *,
        name: str,
        ordered: bool = True,
        outcomes: bool = False,
        keeps_all: bool = False,
        at_once: bool = False,
        buffersize: int | None = None,
        chunksize: int | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        task_timeout: float | None = None,
        max_per_second: float | None = None,
        max_failures: float | None = None,
        journal: Journaling | None = None,
        progress: Callable[[], Progress | None] | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.buffersize = buffersize
        self.started = False
        self.over = False
        """Whether nothing more will come of it: its end was reached, or it was given up."""
        self._open_workers = workers
        self._open_progress = progress
        self._outcomes = outcomes
        self._keeps_all = keeps_all
        self._live = not keeps_all
        self._at_once = at_once
        self._chunksize = chunksize
        self._timeout = timeout
        self._journal = journal
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release

        # reading and sending
        self._ahead = 0  # inputs read and not taken by the consumer
        self._reads = False
        self._sends: int | None = None  # the thread that is sending batches
        self._turned_away = False  # another one wanted to meanwhile
        self._go_on_here = False
        self._look_again: float | None = None  # when a batch will be overdue
        self._hold: Hold | None = None  # of the executor, if nobody need iterate
        self._send_at_once: SubmitPlain | None = None
        # the ends: `_stopped` is set by whoever gives the run up, `over` by who closes it
        self._expired = self._cancelled = self._stopped = self._drained_inputs = False
        self._outer_scopes: tuple[Scope, ...] = ()
        # who watches
        self._log: watch.Log | None = None
        self._progress: Progress | None = None
        self._drawn = 0.0

        self._lives = None if retry is None else Lives(retry)
        self._starts = None if max_per_second is None else Starts(max_per_second)
        self._decoder = Decoder(frozenset(), outcomes=outcomes)
        self._bell = Bell()
        self._tally = Tally()
        self.scope = Scope()
        self._work = Work(
            fn,
            star=source.star,
            name=name,
            fails_fast=not outcomes or retry is not None,
            timed=outcomes or journal is not None,
            scope=self.scope,
            heed=weakly(self, Run._heed),
            is_over_time=weakly(self, Run._is_over_time),
            settle=weakly_told(self, type(self)._settle_only),
            give_back=weakly_told(self, type(self)._give_back),
            send_plain=weakly(self, type(self)._send_plain),
            send_more=weakly(self, Run._send_more),
        )
        self._work.limit = task_timeout
        if max_failures is not None:
            self._work.is_too_many = weakly(self, Run._is_too_many)
        if self._lives is not None:
            self._work.tried = self._lives.tried
        self._feed = Feed(self._work, source, self._tally, lives=self._lives, starts=self._starts)
        self._delivery = Delivery(
            self._work, self._decoder, self._tally, journal, ordered=ordered, outcomes=outcomes, live=not keeps_all
        )
        self._settling = Settling(
            self._work,
            source,
            self._feed,
            self._delivery,
            self._tally,
            self._bell,
            lives=self._lives,
            max_failures=max_failures,
            ordered=ordered,
            outcomes=outcomes,
            keeps_all=keeps_all,
        )

    # ---- start

    def start(self) -> None:
        """Open the workers; from now on the time counts."""
        draining.enrol(self, draining.RUN)
        forked.enrol(self)
        if self._feed.drained:
            raise draining.drained(f"the run of {self.name}")
        self._tally.begun = perf_counter()
        if self._journal is not None:
            self._journal.open(self)
        self._deadline = None if self._timeout is None else monotonic() + self._timeout
        self._workers = workers = self._open_workers()
        self.started = True
        del self._open_workers  # it may hold the executor
        self._decoder.encodes = workers.encodes
        if watch.active:
            self._log = watch.Log(self.name, kind_of(workers.executor), workers.count)
            self._work.timed = True
        if self._journal is not None:
            self._journal.has_encoded(workers.encodes)
        self._settling.open(workers)
        self._send = sender(workers.executor)
        # Not where code of the user's, or a file, is asked before something is sent.
        if self._lives is None and self._journal is None and self._log is None:
            self._send_at_once = plain_sender(workers.executor)
        self._feed.open(workers, self._chunksize, goes_deep=self._keeps_all or self._at_once or self.buffersize is not None)
        # Everything is pending from the start, and the threads that complete batches send it. The one that iterates must not: the
        # executor may have been dropped or shut down since, when only its own workers can go on.
        self._sends_itself = self._at_once and self.buffersize is None
        if self._sends_itself and (self._lives is not None or self._work.limit is not None) and hasattr(workers.executor, "hold"):
            self._hold = Hold(workers.executor, self)
        self._outer_scopes = current_scopes()
        for scope in self._outer_scopes:
            scope.watch(self._cancel_from_outside)
        if self._open_progress is not None:
            self._progress = self._open_progress()
        if self._sends_itself:
            self._read(None)
        if self._at_once:
            self._fill()
            if self._sends_itself and self._lives is not None and self._hold is None:
                self._retry_here(self._lives)
            if self._hold is not None:
                self._let_go_if_done()  # there may have been no input
            error, self.source.error = self._settling.broken or self.source.error, None
            if error is not None:
                try:
                    raise error
                finally:
                    del error

    def _retry_here(self, lives: Lives) -> None:
        """Wait for retries and make them, in the caller's thread, which runs all tasks."""
        while self._settling.broken is None and (begins := lives.next_due) is not None:
            pause(begins - monotonic())
            self._fill()

    # ---- one step of the thread that asks

    def step(self) -> list[Any] | None:
        """Read and submit what there is room for; return results that are due.

        Returns:
            A list of results, not empty; an empty one at the end; None if they have to be waited for.

        Raises:
            BaseException: the task's error that ends the run; what an input iterator raised, in its place; TimeoutError,
                CancelledError; what the executor raised.
        """
        if self.over:
            return []
        if self._decoder.error is not None:  # before anything that stands behind it
            self._raise_undecodable()
        self._bell.news = False  # before anything is looked at: what comes from now on may have been missed by this step
        self._bell.looks_at = 0.0
        if self._settling.too_many is not None and not self._expired:
            self._end_rest(self._settling.halted)
        if not self._sends_itself:
            self._fill()
            self._take_overdue()
            if self._feed.pending:
                self._submit_pending()
        if self._workers.own and self._has_sent_all():
            self._workers.close()
        results = self._collect()
        if self._progress is not None:
            self._draw()
        if results:
            return self._decoded(results) if self._workers.encodes else results
        if self._cancelled:
            self.give_up()
            if self._feed.drained:
                raise Drained(f"the run of {self.name} was still going on when the program ended")
            raise CancelledError(
                f"the run of {self.name} was cancelled: the task or group that it is part of has been asked to end"
            )
        if self._settling.is_failure_due():
            self._raise_failure()
        if self._feed.drained and (self._is_dry() or self._drained_inputs):
            return self._rest_after_drain()
        if self._is_finished():
            return self._rest_after_timeout() if self._expired else self._end()
        if self._stopped:
            return []
        if self._deadline is not None and monotonic() >= self._deadline:
            results = self._expire()
            return self._decoded(results) if self._workers.encodes else results
        return None

    def taken(self, count: int) -> None:
        """The consumer has taken `count` results of those that `step` returned: there is room for as many inputs."""
        self._ahead -= count

    def fill(self) -> None:
        """Read and submit what there is room for."""
        if not self.over:
            self._fill()

    # ---- read

    def _fill(self) -> None:
        """Submit what is pending, and read more while there is room."""
        if self._feed.pending or self._lives is not None:
            self._submit_pending()
        reading = 0.0
        while not self.source.exhausted and (count := self._room()) > 0:
            begun = perf_counter()
            self._read(count)
            reading += perf_counter() - begun
            self._submit_pending()
            if reading > _LONG_READ and self._live and self._delivery.finished and not self._at_once:
                return  # results are due, and are not to wait until a slow source has filled the window

    @locked
    def _room(self) -> int:
        """Return how many inputs may be read now."""
        feed, most = self._feed, self._feed.batch_limit()
        if (
            self.source.exhausted
            or feed.pending
            or self._settling.broken is not None
            or feed.drained
            or feed.limit != NEVER
            or len(feed.running) >= most
            or (self._deadline is not None and monotonic() >= self._deadline)
        ):
            return 0
        size = feed.size()
        at_once = inputs_at_once(feed.pace, self._workers.count)
        if feed.fixed_size is None:  # else that many are waited for, however slowly they come
            size = min(size, at_once)
        if self._journal is not None and self.buffersize is None:
            size = max(size, min(self._journal.read_ahead, at_once))
        return items_to_read(
            size=size,
            ahead=self._ahead,
            limit=most,
            buffersize=self.buffersize,
            keeps_all=self._keeps_all,
            whole=feed.fixed_size is not None,
        )

    def _read(self, count: int | None) -> None:
        """Read up to `count` inputs, or all; they are pending then."""
        begun = perf_counter()
        start = self.source.read
        self._reads = True
        try:
            # Many are read while all of them are recorded. One that is new is not to wait for those behind it.
            hurries = self._feed.fixed_size is None and self._journal is not None and self._journal.read_ahead
            items = self.source.take(count, within=_SLOW_READ if hurries else None)
        finally:
            self._reads = False
        if items:
            if self._log is not None and self._journal is None:
                self._log.admit(start, items, star=self.source.star)
            context = copy_context() or None  # an empty one need not be copied for each task
            if self._journal is None:
                self._admit([Stretch(start, items, 0, context)], len(items), perf_counter() - begun)
            else:
                self._read_journal(self._journal, start, items, context, perf_counter() - begun)

    def _read_journal(self, journal: Journaling, start: int, items: list[Any], context: Context | None, seconds: float) -> None:
        """Let through what has been recorded, and have the rest run."""
        try:
            admitted = journal.admit(start, items, context)
        except Exception:
            if self._stopped:  # another thread has given the run up meanwhile, and closed the file
                return
            raise
        if admitted.error is not None:
            self.source.error = admitted.error
            self.source.close()
        elif admitted.taken < len(items):
            self.source.put_back(items[admitted.taken :])
        if self._log is not None:
            for stretch in admitted.stretches:
                self._log.admit(stretch.start, stretch.items[stretch.place :], star=self.source.star)
        if admitted.taken:
            self._admit(admitted.stretches, admitted.taken, seconds)
        if admitted.pieces:
            self._cancel(self._resume(admitted.pieces))

    @locked
    def _admit(self, stretches: list[Stretch], count: int, seconds: float) -> None:
        self._feed.pace = learn_reading(self._feed.pace, count, seconds)
        self._ahead += count
        if self._feed.limit == NEVER:
            self._feed.pending.extend(stretches)
        elif self._settling.why_cut:  # while they were read, too many tasks have failed
            for stretch in stretches:
                self._delivery.settled(stretch.start, self._delivery.cancelled(stretch, CancelledError(self._settling.why_cut)))
        else:  # or a task has ended the run, or another thread
            self._tally.given_up += sum(map(len, stretches))

    @locked
    def _resume(self, pieces: list[tuple[int, list[Outcome[Any]]]]) -> list[Future[Any]]:
        self._tally.resumed += sum(len(outcomes) for _, outcomes in pieces)
        return self._pass_on(pieces)

    # ---- send: one thread at a time

    def _submit_pending(self) -> None:
        """Send batches while there is room; one thread at a time, so that they are sent in the order of the inputs."""
        try:
            while (batch := self._form_to_send()) is not None:
                if not self._submit(batch):
                    return
        finally:
            if self._sends == threading.get_ident():  # left by an error
                self._sends = None

    @locked
    def _form_to_send(self) -> Batch | None:
        """Form a batch; None also if another thread is sending: that one goes on until there is nothing to form."""
        here_now = threading.get_ident()
        if self._sends not in (None, here_now):
            self._turned_away = True
            return None
        batch = self._cut()
        self._sends = None if batch is None else here_now
        if batch is None and self._starts is not None and (begins := self._next_start()) is not None:
            self._bell.notice(begins)
        if batch is None and self._turned_away:
            self._turned_away = False
            self._bell.ring()  # the thread that asks has found inputs pending, and has read no more
        return batch

    def _cut(self) -> Batch | None:
        """Cut a batch off what is pending, if there is room for one with the workers."""
        if self._feed.drained:
            return None
        if self._lives is not None:
            self._feed.release(self._lives, monotonic())
        if not self._feed.pending or self._settling.broken is not None or self._delivery.recording > _BEHIND:
            return None
        batch = self._feed.cut()
        if batch is None:
            return None
        if self._bell.waker is not None and self._live and len(batch.items) > 1:
            batch.signal.append(None)  # somebody waits for results already
        if self._journal is not None and len(batch.items) > 1:
            self._journal.look_soon()
        if self._log is not None:
            seconds = self._feed.pace.item or _FAR
            batch.measure = watch.Measure(each=len(batch.items) > 1 and seconds > _LONG_ENOUGH, is_short=seconds < _SHORT)
        return batch

    def _next_start(self) -> float | None:
        """Return when to look whether more may start by the rate, if that is what is waited for."""
        return None if self._feed.drained or self._settling.broken is not None else self._feed.next_start()

    def _submit(self, batch: Batch) -> bool:
        """Send a batch to the workers; False if this thread, a worker of a closed executor, is to go on with the run itself."""
        batch.submitting = threading.get_ident()
        begun = perf_counter()
        try:
            if self._journal is not None:
                self._journal.begin(batch)
            if self._log is not None:
                batch.queued = perf_counter_ns()
                follow(self._log, batch)
            handle = self._send(batch, self._deliver)
        except Exception as error:
            if self._take_back(batch) and not self._feed.drained:
                if self._at_once and isinstance(error, RuntimeError) and self._goes_on_here():
                    self._go_on_here = True
                else:
                    self._break(error)  # raised when what is known has been delivered
            return False
        finally:
            batch.submitting = None
        if not self._workers.encodes:  # else it is the pickling of the inputs above all, which grows with the batch
            batch.sent = perf_counter() - begun
        self._has_been_sent(batch, handle)
        return True

    def _has_been_sent(self, batch: Batch, handle: Future[Any]) -> None:
        batch.handle = handle
        if handle.cancelled():  # within submit(), when _deliver could not know whether it would be refused
            self._deliver(batch, CancelledError())
        if batch.start > self._feed.limit:  # stopped meanwhile, when there was no handle yet
            self._cancel([handle])
        elif self._feed.drained and not self._breaks():
            _stop(handle)

    @locked
    def _take_back(self, batch: Batch) -> bool:
        """A batch could not be sent: its inputs are pending again; False if the run has been given up meanwhile."""
        if self._feed.running.get(batch.start) is not batch:
            return False
        del self._feed.running[batch.start]
        self._feed.put_back(batch, 0, len(batch.items))
        return True

    @locked
    def _take_overdue(self) -> None:
        """Take what stands behind a slow task, for workers that have nothing to do."""
        feed = self._feed
        self._look_again = feed.take_overdue() if feed.running and not feed.pending else None

    @locked
    def _give_back(self, batch: Batch, place: int) -> bool:
        """A worker process that is at a long task gives back those behind it, from `place` on; whether something is pending."""
        self._feed.give_back(batch, place)
        return bool(self._feed.pending)

    @locked
    def _has_sent_all(self) -> bool:
        """Whether nothing more will be sent: so workers without work can end while others still work, and the end takes less time."""
        if not self.source.exhausted or self._feed.pending or self._workers.closed or self._lives is not None:
            return False
        return all(len(batch.items) == 1 and batch.handle is not None for batch in self._feed.running.values())

    # ---- a worker asks, between two tasks

    @locked
    def _heed(self, batch: Batch) -> bool:
        """Called by a worker between two tasks, because the batch's signal is set: whether it is to stop."""
        done = len(batch.results)
        if (
            self._feed.running.get(batch.start) is not batch
            or batch.start + done > self._feed.limit
            or done >= len(batch.items)
            or self._feed.drained
        ):
            return True
        if not batch.cut:
            batch.signal.clear()
        self._bell.ring()
        return False

    @locked
    def _is_over_time(self, batch: Batch) -> bool:
        """Called by a worker whose batch has reached its box: whether it is to hand back what it has not started.

        Not while a batch of the run waits in the executor's queue: then no worker is idle, and the rest would come behind that one.
        Tasks may wait for earlier ones, as they may in the standard library, which starts them in order.
        """
        return self._feed.running.get(batch.start) is not batch or all(other.began for other in self._feed.running.values())

    @locked
    def _is_too_many(self, _batch: Batch) -> bool:
        """Called by a worker when a task has failed: whether that ends the run."""
        return self._settling.is_one_too_many()

    # ---- a batch is over: in the thread that completed it

    def _deliver(self, batch: Batch, lost: BaseException | None) -> None:
        """Settle a batch, and submit what is pending; must not raise into the executor."""
        if batch.submitting == threading.get_ident() and isinstance(lost, CancelledError):
            return  # the executor takes it back and refuses it; see _submit
        try:
            if self._log is not None:
                log_batch(self._log, batch, lost, self._workers.encodes)
            self._cancel(self._settle(batch, lost))
            if self._lives is not None:
                self._judge(self._lives)
            if batch.submitting == threading.get_ident():
                return  # the executor runs calls in submit(): whoever called that goes on
            self._submit_pending()
            while self._go_on_here and (following := self._form_to_run_here()) is not None:
                if self._log is not None:
                    follow(self._log, following)
                run_batch(following)
                if self._log is not None:
                    log_batch(self._log, following, None, self._workers.encodes)
                self._cancel(self._settle(following, None))
                if self._lives is not None:
                    self._judge(self._lives)
            if self._hold is not None:
                self._let_go_if_done()
        except BaseException as error:  # raised where results are asked for
            self._break(error)
            self._let_go_if_done()

    def _settle_only(self, batch: Batch, lost: BaseException | None) -> bool:
        """The same in a thread that must run no code of the user's: whether something is pending, which another thread is to send."""
        try:
            if self._log is not None:
                log_batch(self._log, batch, lost, self._workers.encodes)
            self._cancel(self._settle(batch, lost))
        except BaseException as error:  # as above
            self._break(error)
            return self._hold is not None
        return bool(self._feed.pending) or self._hold is not None or (self._lives is not None and self._lives.has_unjudged())

    def _send_plain(self, _batch: Batch) -> bool:
        """Send, in that thread, what is pending, as far as that runs no code of the user's; whether more is to be done in another thread."""
        if self._send_at_once is None or self._hold is not None:
            return True
        try:
            while (batch := self._form_to_send()) is not None:
                try:
                    handle = self._send_at_once(batch, self._deliver)
                except BaseException:  # no memory, say
                    self._take_back(batch)
                    raise
                if handle is None:
                    self._take_back(batch)
                    return True
                self._has_been_sent(batch, handle)
        except BaseException as error:  # as above
            self._break(error)
        finally:
            if self._sends == threading.get_ident():
                self._sends = None
        return False

    def _send_more(self, _batch: Batch | None = None) -> bool:
        try:
            if self._lives is not None:
                self._judge(self._lives)
            self._submit_pending()
            if self._hold is not None:
                self._let_go_if_done()
        except BaseException as error:  # raised where results are asked for
            self._break(error)
            self._let_go_if_done()
        return True

    @locked
    def _settle(self, batch: Batch, lost: BaseException | None) -> list[Future[Any]]:
        """Take a batch's outcomes, and its rest; return the handles that are to be cancelled because of its error."""
        return self._settling.settle(batch, lost)

    def _cancel(self, handles: list[Future[Any]]) -> None:
        """Cancel what need not be run; not in an executor that breaks: the standard library's does not survive it half-way.

        (Its manager thread fails all futures, and dies at one that is cancelled: InvalidStateError; its processes stay.)
        """
        for handle in handles:
            if not self._breaks():
                handle.cancel()

    def _breaks(self) -> bool:
        """Whether the executor fails all its futures just now. The standard library's knows before the first of ours has failed."""
        return self._settling.executor_breaks or bool(getattr(self._workers.executor, "_broken", False))

    @locked
    def _break(self, error: BaseException) -> None:
        self._settling.broken = self._settling.broken or error
        self._bell.ring()

    def _goes_on_here(self) -> bool:
        """Whether this thread is a worker of an executor that ends: what was started before that is still run."""
        goes_on_here = getattr(self._workers.executor, "goes_on_here", None)
        return goes_on_here is not None and goes_on_here()

    @locked
    def _form_to_run_here(self) -> Batch | None:
        """Form a batch for this worker of an executor that ends; None while one is still in its queue, which is first."""
        return self._cut() if all(batch.began for batch in self._feed.running.values()) else None

    # ---- a task has failed, and may be tried again: life.py

    def _judge(self, lives: Lives) -> None:
        """Decide about all tasks that have failed. Runs code of the user's."""
        while (alone := self._next_unjudged(lives)) is not None:
            wait = judge(alone, lives.retry, self._workers.encodes)
            self._cancel(self._judged(lives, alone, wait))
            alone.errors = {}  # a traceback may hold who holds this batch
            del alone

    @locked
    def _next_unjudged(self, lives: Lives) -> Batch | None:
        return lives.next_unjudged()

    @locked
    def _judged(self, lives: Lives, alone: Batch, wait: float | None) -> list[Future[Any]]:
        """A failed task waits for its next attempt, or has failed for good. Return the handles that are to be cancelled because of that."""
        if not lives.is_over(alone):
            return []  # the run has been given up
        if alone.start > self._feed.limit:  # of a task before it, meanwhile
            self._tally.given_up += 1
            return []
        begins = NEVER if wait is None else monotonic() + wait
        if wait is not None and not lives.no_more and (self._deadline is None or begins < self._deadline):
            lives.wait(alone, begins)
            self._bell.notice(begins)
            if self._hold is not None:
                self._hold.ring_at(lives.next_due, self._ring)
            return []
        if self._log is not None:
            self._log.calls.pop(alone.start, None)
        return self._settling.has_failed(alone, lives)

    # ---- nobody need iterate: the executor is held until the last retry: hold.py

    def _ring(self) -> None:
        """A retry is due; in the timers' thread, which is not to be held up."""
        hold = self._hold
        try:
            if hold is not None:
                hold.call_soon(self._send_due)
        except RuntimeError as error:
            if self._hold is not None:  # else others have been quicker, and the run needs the executor no more
                self._break(error)
                self._let_go_if_done()

    def _send_due(self) -> None:
        self._send_more()
        self._set_next_alarm()

    @locked
    def _set_next_alarm(self) -> None:
        if self._hold is not None and self._lives is not None:
            self._hold.stop()
            self._hold.ring_at(self._lives.next_due, self._ring)

    def _let_go_if_done(self) -> None:
        while (begins := self._wait_to_be_done_here()) is not None:
            pause(begins - monotonic())
            self._submit_pending()
        hold = self._end_hold()
        if hold is not None:
            hold.let_go(self)

    @locked
    def _wait_to_be_done_here(self) -> float | None:
        """Return until when this thread is to wait for the next retry, since there is no alarm and nobody else to do it."""
        hold, feed = self._hold, self._feed
        if hold is None or hold.rings or feed.running or feed.pending or self._settling.broken or self._lives is None:
            return None
        return self._lives.next_due

    @locked
    def _end_hold(self) -> Hold | None:
        """Return the hold, which is to be let go, if nothing is left that the executor would be needed for."""
        feed = self._feed
        if feed.running or (self._settling.broken is None and ((feed.pending and not feed.drained) or self._lives)):
            return None
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.stop()
        return hold

    def cancel(self) -> None:
        """The executor is shut down, and what has not started is cancelled: so is what waits for its next attempt."""
        self._cancel(self._cancel_waiting())
        self._let_go_if_done()

    @locked
    def _cancel_waiting(self) -> list[Future[Any]]:
        return [] if self._lives is None else self._settling.cancel_waiting(self._lives)

    # ---- the journal's thread: journaled.py

    @locked
    def _record_done(self) -> bool:
        """Called by the journal's thread, from time to time: record what batches that are at work have done; whether there are such."""
        several = [batch for batch in self._feed.running.values() if len(batch.items) > 1]
        for batch in several:
            self._delivery.record_running(batch)
        return bool(several)

    def _recorded(self, pieces: list[tuple[int, list[Outcome[Any]]]]) -> None:
        """Called by the journal's thread: these are recorded."""
        self._cancel(self._take_recorded(pieces))

    @locked
    def _take_recorded(self, pieces: list[tuple[int, list[Outcome[Any]]]]) -> list[Future[Any]]:
        if self._stopped:
            return []
        self._delivery.recording -= sum(len(outcomes) for _, outcomes in pieces)
        handles = self._pass_on(pieces)
        self._bell.ring()
        return handles

    def _pass_on(self, pieces: list[tuple[int, list[Outcome[Any]]]]) -> list[Future[Any]]:
        """Outcomes that are recorded go to the consumer; return the handles that are to be cancelled because of an error."""
        return [handle for failure in self._delivery.pass_on(pieces) for handle in self._settling.fail(failure)]

    def _journal_failed(self, error: BaseException) -> None:
        """Called by the journal's thread: nothing can be recorded any more, so nothing is started, and nothing unrecorded delivered."""
        self._cancel(self._stop_unrecorded(error))

    @locked
    def _stop_unrecorded(self, error: BaseException) -> list[Future[Any]]:
        return self._settling.stop_unrecorded(error)

    # ---- in a forked child: engine/forked.py

    def leave(self) -> None:
        """It is the parent's: what is known is delivered here, then an error, also where the run could go on: its tasks would run twice."""
        self._lock = threading.RLock()  # another thread may have held it
        self._acquire, self._release = self._lock.acquire, self._lock.release
        for scope in (self.scope, *self._outer_scopes):
            scope.forget_threads()
        if not self.started or self.over or self._stopped:
            return
        self._log, self._settling.halted = None, []
        is_known = not (self._feed.pending or self._feed.running or self._lives or self._delivery.recording)
        self._feed.running.clear()
        if not (is_known and (self.source.exhausted or self._feed.limit != NEVER)):
            if self._journal is not None:
                self._journal.leave()
            name = self.name
            self._stop_unrecorded(
                RuntimeError(
                    f"the run of {name} belongs to the process that this one was forked from, which goes on with it: make another one here"
                )
            )

    # ---- collect results, in the thread that asks; those of processes are unpickled there, which runs code of the user's

    @locked
    def _collect(self) -> list[Any]:
        """Return what can be yielded now."""
        if self._feed.drained and self._outcomes:
            self._end_pending()
        return self._delivery.collect(self._feed.running)

    @locked
    def _is_finished(self) -> bool:
        """Whether every input has been read and every outcome taken; not if another thread has given the run up, and ends it."""
        return (
            not self._stopped
            and (self.source.exhausted or self._feed.limit != NEVER or self._feed.drained)
            and not self._feed.pending
            and not self._feed.running
            and not self._lives
            and not self._delivery.recording
            and not self._delivery.finished
            and not len(self._delivery.order)
        )

    def _decoded(self, results: list[Any]) -> list[Any]:
        results = self._decoder.decode(results)
        if not results and self._decoder.error is not None:
            self._raise_undecodable()
        return results

    def _raise_undecodable(self) -> None:
        error, self._decoder.error = self._decoder.error, None
        self.give_up()
        try:
            assert error is not None
            raise error
        finally:
            del error

    # ---- wait: bell.py

    def wait(self) -> None:
        """Wait, in a thread, until a `step` is worth while."""
        if self._log is not None:
            with watch.joining(f"results of {self.name}"):
                self._wait()
        else:
            self._wait()

    def _wait(self) -> None:
        limit = self.wait_limit()
        handle = self._handle_to_wait_for() if self._deadline is None and here.worker is not None else None
        if handle is not None:
            self._workers.executor.wait_for_call(handle, lambda: self._park(limit))
        else:
            self._park(limit)

    def _park(self, limit: float | None) -> None:
        if self._live:
            seconds = patience(self._feed.pace.item, processes=bool(self._workers.encodes))
            if seconds is not None and park(self, min(seconds, limit or seconds), ask=False):
                return
        park(self, limit, ask=True)

    @locked
    def begin_wait(self, waker: Callable[[], object], *, ask: bool = True) -> bool:
        """Have `waker` called, once, in any thread, when a `step` is worth while; False if it is now.

        Args:
            waker: must not block.
            ask: whether to ask the workers for what they have done of the batches that they are at.
        """
        if self._bell.news:
            return False
        self._bell.patient = not ask
        if ask and self._delivery.is_at_hand(self._feed.running):
            return False
        self._bell.waker = waker
        return True

    @locked
    def end_wait(self) -> None:
        self._bell.waker = None

    def wait_limit(self) -> float | None:
        """Return how many seconds to wait at most before the next step."""
        limits = []
        if (self._lives is not None or self._starts is not None) and (looks_at := self._next_look()) != _FAR:
            limits.append(max(0.0, looks_at - monotonic()))
        if self._deadline is not None:
            limits.append(max(0.0, self._deadline - monotonic()))
        if self._progress is not None:
            limits.append(self._progress.interval)
        if self._look_again is not None:
            limits.append(max(0.0, self._look_again - perf_counter()))
        return min(limits, default=None)

    @locked
    def _next_look(self) -> float:
        """Return when the consumer is to look by itself."""
        self._bell.looks_at = _FAR
        if not self._sends_itself and self._sends in (
            None,
            threading.get_ident(),
        ):  # else who sends just now does it, and wakes us
            retry = None if self._lives is None else self._lives.next_due
            start = self._next_start()
            self._bell.looks_at = min(_FAR if retry is None else retry, _FAR if start is None else start)
        return self._bell.looks_at

    @locked
    def _handle_to_wait_for(self) -> Future[Any] | None:
        """Return the handle of a batch that a worker's wait is for, if the executor can tell whether that would be for good."""
        if not hasattr(self._workers.executor, "wait_for_call"):
            return None
        handles = [
            batch.handle
            for batch in sorted(self._feed.running.values(), key=lambda batch: batch.start)
            if batch.handle is not None
        ]
        return next((handle for handle in handles if handle.running()), handles[0] if handles else None)

    # ---- the ends

    def _end(self) -> list[Any]:
        """Everything has been delivered: end the workers; then the error of the inputs, if there was one."""
        error: BaseException | None
        error, self.source.error = self._settling.too_many or self.source.error, None
        if self._settling.too_many is not None:
            self._settling.too_many.__cause__ = decode_error(self._settling.first_error, self._workers.encodes)
        self._settling.too_many = self._settling.first_error = None
        self._workers.keep_pace(self._work.fn, self._feed.pace)
        self._close(abandon=False, status="finished" if error is None else "stopped")
        if error is not None:
            try:
                raise error
            finally:
                del error
        return []

    def _raise_failure(self) -> None:
        failure, broken, first = self._settling.failure, self._settling.broken, self._delivery.order.next
        self.give_up()
        try:
            if self._journal is not None and self._journal.failure is not None:
                raise self._journal.failure  # the task's error could not be recorded, if there is one
            if broken is not None and (failure is None or failure.index > first):
                raise broken
            assert failure is not None
            if type(failure.error) in self._workers.encodes:
                failure.error = failure.error.decode()  # type: ignore[attr-defined]  # it is that class
            if not isinstance(failure.error, CancelledError):
                add_note(failure.error, failure.batch, failure.place, further=self._tally.failures - 1)
            raise failure.error
        finally:
            # error -> traceback -> this frame -> error; and the batch holds it too
            self._settling.failure = self._settling.broken = None
            del failure, broken

    def _expire(self) -> list[Any]:
        """The run's time is up."""
        if not self._outcomes:
            tasks = self._tally.tasks
            self.give_up()
            raise TimeoutError(
                f"the run of {self.name} took longer than its timeout of {self._timeout:g} s: {tasks:,} tasks had ended"
            )
        self._end_rest(self._cut_short(f"the timeout of {self._timeout:g} s of the run was over"))
        if self._journal is not None:
            self._journal.flush()
            if self._settling.is_failure_due():
                self._raise_failure()
        return self._collect() or self._rest_after_timeout()

    @locked
    def _cut_short(self, why: str) -> list[Future[Any]]:
        return self._settling.cut_short(why)

    def _end_rest(self, handles: list[Future[Any]]) -> None:
        self._expired = True
        self._cancel(handles)
        self.scope.cancel()
        self._workers.end(abandon=True, handles=handles)

    def _rest_after_timeout(self) -> list[Any]:
        """Read what is left of inputs that are known to end, to say that they were cancelled."""
        if self.source.total is not None and not self.source.exhausted:
            start = self.source.read
            items = self.source.take(256)
            if items:
                self._ahead += len(items)
                why = draining.drained(f"a task of {self.name}") if self._feed.drained else CancelledError(self._settling.why_cut)
                return self._delivery.cancelled(Stretch(start, items, 0, None), why)
        return self._end()

    def give_up(self) -> None:
        """End the run at once: cancel what waits, leave behind what runs. May be called from any thread, more than once."""
        if self.over:
            return
        self._close(abandon=True, handles=self._stop())

    def _stop(self) -> list[Future[Any]]:
        handles = self._stop_all()
        self._cancel(handles)
        self.scope.cancel()
        if self._hold is not None:
            self._let_go_if_done()
        return handles

    @locked
    def _stop_all(self) -> list[Future[Any]]:
        self._stopped = True
        return self._settling.stop_all()

    def _close(self, *, abandon: bool, handles: Sequence[Future[Any]] = (), status: str = "stopped") -> None:
        if not self._is_first_to_close():
            return
        self._tally.ended = perf_counter()
        if self._log is not None:
            end_log(self._log, self.summary())
        self.source.close()
        self._delivery.close()
        for scope in self._outer_scopes:
            scope.unwatch(self._cancel_from_outside)
        try:
            if self.started:
                self._workers.end(abandon=abandon, handles=handles)
        finally:
            if self._journal is not None:
                self._journal.close(status, self.source.read, waits=not self._lock._is_owned())  # type: ignore[attr-defined]  # CPython's and PyPy's have it
            if self._progress is not None:
                self._draw(last=True)
                self._progress.close()

    @locked
    def _is_first_to_close(self) -> bool:
        first, self.over = not self.over, True
        return first

    # ---- the task or group that it is part of is cancelled

    def _cancel_from_outside(self) -> None:
        self._note_cancelled()
        self.scope.cancel()  # tells the tasks, also if nobody asks for results just now

    @locked
    def _note_cancelled(self) -> None:
        self._cancelled = True
        self._bell.ring()

    # ---- the program has been asked to end: see core/draining.py, Member

    def drain(self) -> None:
        """Start nothing more. What has not started comes as Drained, when what runs has ended."""
        for handle in self._begin_drain():
            if not self._breaks():
                _stop(handle)
        self._let_go_if_done()

    @locked
    def _begin_drain(self) -> list[Future[Any]]:
        handles = self._feed.drain()
        self._bell.ring()
        return handles

    @locked
    def _end_pending(self) -> None:
        """Inputs that have been read, and not been begun, come as Drained."""
        for stretch in self._feed.pending:
            self._delivery.settled(stretch.start, self._delivery.cancelled(stretch, draining.drained(f"a task of {self.name}")))
        self._feed.pending.clear()

    @locked
    def _is_dry(self) -> bool:
        """Whether nothing that could still be delivered is to come of a run that is drained, and not everything has been."""
        if (
            self._stopped
            or self._feed.running
            or self._delivery.recording
            or self._lives
            or self._delivery.finished
            or (self._outcomes and self._feed.pending)
        ):
            return False
        return bool(self._feed.pending or len(self._delivery.order)) or self.source.left() != 0

    def _rest_after_drain(self) -> list[Any]:
        if self._outcomes and self.source.total is not None:
            self._drained_inputs = True
            return self._rest_after_timeout()
        ended = self._tally.tasks
        self.give_up()
        raise Drained(
            f"the run of {self.name} was ended before its last input: the program has been asked to end, "
            f"by {draining.reason() or 'a signal'}: {ended:,} tasks had ended"
        )

    def drop(self) -> None:
        """Its own pool is ended as every executor; who waits for a result is told."""
        self._feed.drained = True
        self._cancel_from_outside()

    @locked
    def is_working(self) -> bool:
        return bool(self._feed.running or self._delivery.recording)

    def is_consumed(self) -> bool:
        return self.started and not self.over and not self._reads

    # ---- looking

    def _draw(self, *, last: bool = False) -> None:
        progress = self._progress
        now = monotonic()
        if progress is not None and (last or now - self._drawn >= progress.interval):
            self._drawn = now
            finished, failed, running = self._counts()
            progress.update(finished, failed=failed, running=running)

    @locked
    def _counts(self) -> tuple[int, int, int]:
        """Return how many tasks have ended, how many failed (in batches that are over), and how many workers are at work."""
        finished = self._tally.finished(self._feed.running.values(), retries=self._lives is not None)
        return finished + self._tally.resumed, self._tally.failures, min(len(self._feed.running), self._workers.count)

    def left(self) -> int | None:
        """Return how many results are still to come, if the inputs can tell."""
        unread = self.source.left()
        return None if unread is None else unread + self._ahead

    def summary(self) -> RunSummary:
        if not self.started:
            return RunSummary(0, 0, 0.0, 0.0, 0)
        finished, failed, _ = self._counts()
        return self._tally.summary(finished - self._tally.resumed, failed, 0 if self._lives is None else self._lives.retries)

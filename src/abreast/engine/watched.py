"""What a run tells those who watch it: each batch that is over, and when its consumer waited."""

from __future__ import annotations

import logging
from concurrent.futures import BrokenExecutor, CancelledError
from contextvars import Context
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from abreast.core import watch
from abreast.core.errors import TaskTimeout
from abreast.core.states import CANCELLED, CRASHED, FAILED, TIMEOUT
from abreast.executors.crew import Crew
from abreast.executors.serial import Serial
from abreast.executors.threads import ThreadPool

if TYPE_CHECKING:
    from abreast.core.outcome import RunSummary
    from abreast.core.watch import Log
    from abreast.executors.batch import Batch

_NONE: dict[int, tuple[int, str]] = {}

__all__ = ["end_log", "follow", "kind_of", "log_batch"]


def kind_of(executor: object) -> str:
    """Return what kind of workers an executor has, as recordings say it."""
    if isinstance(executor, Serial):
        return "serial"
    if isinstance(executor, (ThreadPool, Crew)):
        return "thread"
    return "process" if hasattr(executor, "encodes") else type(executor).__name__


def follow(log: Log, batch: Batch) -> None:
    """A batch is about to be sent, or run: keep with it what those want who follow tasks."""
    if log.followers and batch.measure is not None:
        batch.measure.along = log.follow(batch.context or Context(), batch.work.name, batch.attempt)


def log_batch(log: Log, batch: Batch, lost: BaseException | None, encodes: frozenset[type[Any]]) -> None:
    """Tell that a batch is over: what of it was run. In the thread that completed it; of errors that are still bytes no code is run.

    Does not raise, whatever the user's errors do when they are asked for their text: who watches does not change the work.
    """
    try:
        _log_batch(log, batch, lost, encodes)
    except KeyboardInterrupt:
        raise
    except BaseException:
        logging.getLogger("abreast").exception("what became of %r cannot be recorded", batch)


def _log_batch(log: Log, batch: Batch, lost: BaseException | None, encodes: frozenset[type[Any]]) -> None:
    done = len(batch.results)
    ends = batch.ends[:done]
    measure = batch.measure
    if (
        lost is None
        and measure is not None
        and measure.is_over
        and not (batch.errors or encodes or log.calls)
        and len(ends) == done > 0
    ):
        # The usual way, at half the time: on threads, plain inputs, nothing failed.
        begin = int(batch.began * 1e9)
        items = batch.items if len(batch.items) == done else batch.items[:done]
        return log.attempts(
            watch.Attempts(
                batch.start,
                measure.row,
                batch.queued,
                begin,
                ends,
                _NONE,
                items,
                are_texts=False,
                number=batch.attempt,
                measure=measure,
                along=measure.along,
            )
        )
    failed = {place: _failure(error, encodes, batch) for place, error in list(batch.errors.items()) if place < done}
    if batch.lost is not None:  # with its process, behind others that are to run again
        return log.attempts(_lost(log, batch, batch.lost[0], batch.lost[1]))
    if lost is not None and not isinstance(lost, CancelledError) and batch.began and done < len(batch.items):
        ends.append(perf_counter())  # the one that was running
        failed[done] = _failure(lost, encodes)
        done += 1
    if not done:
        return None
    begin, row = int(batch.began * 1e9), None if batch.measure is None else batch.measure.row
    if encodes:  # their ends count from the batch's begin, in a process of its own
        begin, row = _begin_there(batch), watch.process_row(batch.worker)
        ends = [begin + int(end * 1e9) for end in ends]  # in nanoseconds: tasks of one process must not seem to overlap
    elif batch.remote or batch.worker.startswith("process "):  # of a foreign executor
        row = watch.process_row(batch.worker)
    ends += [ends[-1] if ends else begin] * (done - len(ends))
    calls = log.calls
    items = batch.items[:done]
    if are_texts := batch.start in calls:  # what is read together has texts, or has none
        take = calls.get if batch.work.fails_fast else calls.pop  # what has failed may be tried again
        items = [(take if place in failed else calls.pop)(batch.start + place, "") for place in range(done)]
    log.attempts(
        watch.Attempts(
            batch.start,
            row,
            batch.queued,
            begin,
            ends,
            failed,
            items,
            are_texts=are_texts,
            number=batch.attempt,
            # Of one that goes on, over its limit, what it says later is of a longer time.
            measure=measure if measure is not None and measure.is_over else None,
            along=None if batch.measure is None else batch.measure.along,
        )
    )
    return None


def _failure(error: Any, encodes: frozenset[type[Any]], batch: Batch | None = None) -> tuple[int, str]:
    if type(error) in encodes:
        return FAILED, error.told()
    if isinstance(error, CancelledError) and batch is not None and batch.scope.cancelled:  # it did as it was asked
        return CANCELLED, watch.error_text(error)
    outcome = TIMEOUT if isinstance(error, TaskTimeout) else CRASHED if isinstance(error, BrokenExecutor) else FAILED
    return outcome, watch.error_text(error)


def _lost(log: Log, batch: Batch, place: int, error: BaseException) -> watch.Attempts:
    index = batch.start + place
    are_texts = index in log.calls
    item = log.calls[index] if are_texts else batch.items[place]  # it may be tried again
    now = perf_counter()
    row = watch.process_row(batch.worker)
    failed = {0: _failure(error, frozenset())}
    return watch.Attempts(
        index,
        row,
        batch.queued,
        int(now * 1e9),
        [now],
        failed,
        [item],
        are_texts=are_texts,
        number=batch.attempts_at(index),
        along=None if batch.measure is None else batch.measure.along,
    )


def _begin_there(batch: Batch) -> int:
    """Return when a batch began in its process; if that did not say so (it died), from what its tasks took."""
    measure = batch.measure
    if measure is not None and measure.begun:
        return measure.begun
    return perf_counter_ns() - int(batch.seconds * 1e9)


def end_log(log: Log, summary: RunSummary) -> None:
    """The run is over."""
    log.end = perf_counter_ns()
    log.retries, log.cancelled, log.resumed = summary.retries, summary.cancelled, summary.resumed
    log.calls.clear()
    log.over()

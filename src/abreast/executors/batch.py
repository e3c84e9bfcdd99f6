"""`run_batch`: what runs in a worker, for every kind: the tasks of a batch, one after another, each in its own context.

::

    engine (core of a run)                 worker
    ─────────────────────                  ─────────────────────────────────────────────────
    Batch(items) ──── submit ────────────▶ run_batch: for each item
      .results  ◀──── grows ────────────────  call in a fresh context, append what it returned
      .errors   ◀───────────────────────────  or note what it raised, append None
      .signal   ───── "look up" ───────────▶  after a task, if set: heed() - may stop, may wake the consumer
    deliver     ◀──── over ───────────────  at the end, at the box, when told to stop: the rest is handed back

In this process the batch is shared: its lists grow while the worker runs, so each outcome can be taken as soon as it is there, and
nobody pays for telling. No lock guards them: only the worker appends (`errors` and `ends` before `results`, so what `results` counts
is complete), and list operations are atomic, also free-threaded. To another process a batch is sent without what is local
(`signal`, context), and `Finished` comes back.

A look at the clock costs 0.05 to 0.1 us, so it is taken every `stride` tasks, about 20 us. `signal` is looked at after every task,
which costs 5 ns: so a consumer that waits gets the next outcome at once, and a run that is stopped starts no other task.
"""

from __future__ import annotations

import itertools
import os
import threading
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.current import Scope, Task, here

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from abreast.core.watch import Along, Measure

__all__ = ["Batch", "Finished", "RemoteTraceback", "Work", "run_batch"]


class Work:
    """What all batches of a run have in common.

    Attributes:
        fn: the user's function.
        star: whether an item is a tuple of arguments.
        name: what its tasks are called.
        fails_fast: whether a task's error ends its batch; the rest is handed back. It ends the run, or the task goes again by itself.
        timed: whether each task's end is noted.
        scope: cancelled with the run.
        heed: called by a worker that found its batch's signal set; returns whether to stop. It takes no more than a moment.
        settle, send_plain, send_more: what `Deliver` does, in steps, for executors whose own thread must run no code of the user's:
            ``settle(batch, lost)`` returns whether something is to be sent; ``send_plain(batch)`` sends, by the executor's
            ``submit_plain``, what can be sent without such code, and returns whether ``send_more(batch)`` is to be called, in another thread.
        give_back: called by such an executor while a batch runs: ``give_back(batch, place)``, if its tasks from `place` on have not begun, and
            will not. Returns the same.
        is_too_many: called by a worker of this process when a task has failed; returns whether that ends the run.
        is_over_time: called by a worker whose batch has reached its box; returns whether to hand back the rest.
        deaths: by index of a batch's first task: how many worker processes died with it at hand before they began it.
        pickles_quickly: whether its inputs, if they are not plain, have been such that a plain pickle of each will do.
        sent: the function as an executor of processes sends it: for all of the run as it was when its first batch was sent.
        within: a context that batches have, and how it is sent: as it was when the first of those was.
        again: by index of a task: how often it ran in a process that died before what came of it was sent.
        tried: by index of a task: how often it failed before. Such a task is a batch of its own.
        limit: seconds that a task may take, if that is not as the executor has it.
    """

    __slots__ = (
        "again",
        "deaths",
        "fails_fast",
        "fn",
        "give_back",
        "heed",
        "is_over_time",
        "is_too_many",
        "limit",
        "name",
        "pickles_quickly",
        "scope",
        "send_more",
        "send_plain",
        "sent",
        "settle",
        "star",
        "timed",
        "tried",
        "within",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        star: bool,
        name: str,
        fails_fast: bool,
        timed: bool,
        scope: Scope,
        heed: Callable[[Batch], bool],
        is_over_time: Callable[[Batch], bool],
        settle: Callable[[Batch, BaseException | None], bool],
        send_more: Callable[[Batch], bool],
        send_plain: Callable[[Batch], bool],
        give_back: Callable[[Batch, int], bool],
    ) -> None:
        self.fn = fn
        self.star = star
        self.name = name
        self.fails_fast = fails_fast
        self.timed = timed
        self.scope = scope
        self.heed = heed
        self.is_over_time = is_over_time
        self.settle = settle
        self.send_more = send_more
        self.send_plain = send_plain
        self.give_back = give_back
        self.deaths: dict[int, int] = {}
        self.again: dict[int, int] = {}
        self.tried: dict[int, int] = {}
        self.limit: float | None = None
        self.sent: Any = None
        self.within: tuple[Context, Any] | None = None
        self.is_too_many: Callable[[Batch], bool] = _no
        self.pickles_quickly = True

    def __reduce__(self) -> tuple[Any, ...]:
        return _work_arrives, (self.fn, self.star, self.name, self.fails_fast, self.timed)


class Batch:
    """Some consecutive inputs of a run on their way through a worker."""

    __slots__ = (
        "began", "box", "context", "cut", "ends", "errors", "handle", "items", "lost", "measure", "queued", "remote", "results", "seconds", "sent", "signal", "start",
        "stopped", "stride", "submitting", "taken", "work", "worker",
    )  # fmt: skip

    def __init__(self, work: Work, start: int, items: list[Any], context: Context | None, stride: int, box: float | None) -> None:
        self.work = work
        self.start = start
        """The index of the first item."""
        self.items = items
        self.context = context
        """What each task gets a copy of; None is an empty one."""
        self.stride = stride
        self.box = box
        """Seconds after which the rest is handed back; None is never."""
        self.remote = False
        # of the worker
        self.results: list[Any] = []
        self.errors: dict[int, BaseException] = {}
        self.lost: tuple[int, BaseException, float] | None = None
        """Place, error and seconds of a task that was lost with its process, behind others that are handed back."""
        self.ends: list[float] = []
        self.worker = ""
        self.began = self.seconds = 0.0
        # of the engine
        self.signal: list[None] = []
        self.taken = 0
        self.stopped = False
        """Whether no task of it is to be started any more."""
        self.cut = False
        """Whether tasks that had not started were taken out of `items`; the signal stays set then."""
        self.handle: Future[Any] | None = None
        self.submitting: int | None = None
        self.sent = 0.0
        """Seconds that sending it took."""
        self.queued = 0
        self.measure: Measure | None = None
        """When it was sent, in nanoseconds, and what its worker measures, if somebody watches."""

    def current_task(self) -> Task:
        worker = here.worker
        scopes = (self.work.scope,) if worker is None else (self.work.scope, worker.scope)
        return Task(self.work.name, self.start + len(self.results), self.attempt, scopes)

    @property
    def attempt(self) -> int:
        """Which attempt it is at its first task; of a batch of several it is the first."""
        return 1 if len(self.items) > 1 else self.attempts_at(self.start)

    def attempts_at(self, index: int) -> int:
        """Return how often a task has been tried, with this batch."""
        work = self.work
        return 1 + work.again.get(index, 0) + work.tried.get(index, 0)

    @property
    def scope(self) -> Scope:
        return self.work.scope

    def current_call(self) -> tuple[Any, tuple[Any, ...]]:
        """Return the function and the arguments of the task that runs now, or ran last."""
        item = self.items[min(len(self.results), len(self.items) - 1)]
        return self.work.fn, item if self.work.star else (item,)

    def load(self, finished: Finished) -> None:
        """Take over what came back from another process; the results last, since what they count has to be complete."""
        if finished.results is not self.results:
            self.errors = {place: failure.error for place, failure in finished.errors.items()}
            self.ends, self.worker, self.began, self.seconds = finished[2:]
            self.results = finished.results

    def __repr__(self) -> str:
        return f"<Batch {self.work.name} {self.start}-{self.start + len(self.items) - 1}: {len(self.results)} done>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _batch_arrives, (self.work, self.start, self.items, self.stride, self.box, self.attempt)


class Finished(NamedTuple):
    """What `run_batch` returns, to be sent back: the batch's own lists, which are shorter than its items if a rest is handed back."""

    results: list[Any]
    errors: dict[int, Any]  # of BaseException; of _Failure from another process
    ends: list[float]
    worker: str
    began: float
    seconds: float


class RemoteTraceback(Exception):  # not an error, the cause of one; what the standard library calls it
    """The traceback of an error in another process, as text: the error's cause."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class _Failure:
    """A task's error on its way from another process, its traceback as text; made where it is pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        import pickle
        import traceback

        error = self.error
        text = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  # what was pickled in this very line
        except Exception as why:
            error = RuntimeError(f"the task raised {type(error).__name__}: {error}; which cannot be sent back: {why!r}")
        return _failure_arrives, (error, text)


def _failure_arrives(error: BaseException, text: str) -> _Failure:
    error.__cause__ = RemoteTraceback(text)
    return _Failure(error)


def _work_arrives(fn: Callable[..., Any], star: bool, name: str, fails_fast: bool, timed: bool) -> Work:
    return Work(
        fn,
        star=star,
        name=name,
        fails_fast=fails_fast,
        timed=timed,
        scope=Scope(),
        heed=_no,
        is_over_time=_yes,
        settle=_nothing,
        send_more=_no,
        send_plain=_no,
        give_back=_nothing,
    )


def _no(_batch: Batch) -> bool:
    return False


def _nothing(_batch: Batch, _: object) -> bool:
    return False


def _yes(_batch: Batch) -> bool:
    return True


def _batch_arrives(work: Work, start: int, items: list[Any], stride: int, box: float | None, attempt: int) -> Batch:
    if attempt > 1:
        work.tried[start] = attempt - 1
    batch = Batch(work, start, items, None, stride, box)
    batch.remote = True
    return batch


def run_batch(batch: Batch) -> Finished:
    """Run the tasks of a batch in this thread; what they raise is their outcome, whatever it is."""
    before = here.running
    try:  # from here on: Ctrl-C may strike anywhere if this is the main thread
        here.running = batch
        batch.worker = f"process {os.getpid()}" if batch.remote else threading.current_thread().name
        note_end = batch.ends.append if batch.measure is None else batch.measure.begin(batch.ends)
        batch.began = began = perf_counter()
        _run_tasks(batch, None if batch.box is None else began + batch.box, note_end)
        batch.seconds = perf_counter() - began
        return _finished(batch)
    finally:
        here.running = before
        if batch.measure is not None:
            batch.measure.end()
        # The frame lives as long as the traceback of an error: error -> traceback -> frame -> batch -> error.
        del batch, before


def _finished(batch: Batch) -> Finished:
    errors: dict[int, Any] = batch.errors
    if batch.remote:
        errors = {place: _Failure(error) for place, error in batch.errors.items()}
    return Finished(batch.results, errors, batch.ends, batch.worker, batch.began, batch.seconds)


def _run_tasks(batch: Batch, until: float | None, end: Callable[[float], object]) -> None:
    work, results, signal = batch.work, batch.results, batch.signal
    call, heed, timed = work.fn, work.heed, work.timed
    rest: Any  # a list's iterator
    if work.star:
        call = _Star(call)
    if batch.measure is not None and batch.measure.along is not None:
        call = _Followed(call, batch.start, results, batch.measure.along)
    fresh = Context if batch.context is None else batch.context.copy
    append, clock, stride = results.append, perf_counter, batch.stride
    total = len(batch.items)
    if batch.stopped:  # when a worker had it already, so that it could not be cancelled
        return
    rest = iter(batch.items)
    try:
        while True:
            try:
                if timed:
                    for item in itertools.islice(rest, stride):
                        value = fresh().run(call, item)
                        end(clock())
                        append(value)
                        if signal and heed(batch):
                            return
                else:
                    for item in itertools.islice(rest, stride):
                        append(fresh().run(call, item))
                        if signal and heed(batch):
                            return
            except BaseException as error:  # whatever a task raises, SystemExit too, is its outcome
                done = len(results)
                if timed:
                    del batch.ends[done:]
                    end(clock())
                batch.errors[done] = _from_user(error)
                append(None)
                # An exception thrown in from outside may have struck between a task and the next: go by what is counted.
                rest.__setstate__(done + 1)
                if work.fails_fast or work.is_too_many(batch) or (signal and heed(batch)):
                    return
            if len(results) >= total:
                return
            if until is not None and (now := clock()) >= until:
                if work.is_over_time(batch):
                    return
                until = now + (batch.box or 0)
    finally:
        # As in run_batch: this frame outlives the call if a task raised.
        del batch, work, results, signal, call, heed, fresh, append, end, rest
        item = value = None


class _Star:
    """Calls a function with the items of a tuple as its arguments."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return self.fn(*args)


class _Followed:
    """Tells observers that follow tasks that one begins, and calls it. It has no reference to the batch: a task's error may come to hold it."""

    __slots__ = ("along", "call", "results", "start")

    def __init__(self, call: Callable[[Any], Any], start: int, results: list[Any], along: Along) -> None:
        self.call = call
        self.start = start
        self.results = results
        self.along = along

    def __call__(self, item: Any) -> Any:
        self.along.begin(self.start + len(self.results))
        return self.call(item)


_OURS = {_run_tasks.__code__, _Star.__call__.__code__, _Followed.__call__.__code__}


def _from_user(error: BaseException) -> BaseException:
    """Return the error, its traceback beginning in the user's function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code in _OURS:
        trace = trace.tb_next
    return BaseException.with_traceback(error, trace)  # not error.with_traceback, which a class of the user's may override

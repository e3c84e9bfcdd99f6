"""The processes of a `TaskGroup` with ``kind="process"``: a pool that has one for each function, and tells the group of each end.

::

    group.start ─▶ GroupPool.start ─▶ supervisor ─▶ a worker of its own      Call.claim    the worker is there: the task has begun
                                                                             Call.resolve  ─┐ the user's callbacks, then the group's
                                                                             Call.over     ─┘ ``settled``, in the callbacks' thread

Who takes a future out of the group's ``_waiting`` settles it (group.py): here that is `claim`, or the cancelling.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from abreast.core import watch
from abreast.executors.process.futures import FutureCall, ProcessFuture
from abreast.executors.process.pool import ProcessPool
from abreast.executors.process.sending import OK, encode_args, encode_context
from abreast.executors.process.supervisor import Record, Records

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Begin: TypeAlias = Callable[[ProcessFuture[Any]], bool]
    Settled: TypeAlias = Callable[[ProcessFuture[Any], BaseException | None], object]

__all__ = ["GroupPool"]

NO_LIMIT = 1_000_000


class GroupPool(ProcessPool):
    """Runs the functions of one group, each in a fresh process; with `max_workers` in so many, one after another.

    Args:
        max_workers: how many functions may run at the same time; None is no limit.
        name: of its threads.
    """

    def __init__(self, max_workers: int | None, name: str) -> None:
        super().__init__(max_workers or NO_LIMIT, max_tasks_per_child=None if max_workers else 1, name=name)
        core = self._supervisor.core
        # Nothing is sent ahead to a worker that is at work: it could not be cancelled any more, and would run after an error.
        core.limits = core.limits._replace(short=0.0)
        self._failed = False
        """Whether a function has failed: no other is to begin, which the group says only when it is told of that."""

    def start(
        self,
        future: ProcessFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str,
        *,
        begin: Begin,
        settled: Settled,
    ) -> None:
        """As `submit`, for a future that the group knows.

        Args:
            future: of the call.
            fn, args, kwargs: the call.
            name: of the task.
            begin: asked once, before the function is sent to a process; False if the group has cancelled it meanwhile.
            settled: called with the future and its error when it is known what became of the call, after the user's callbacks.
        """
        self._check_open()
        supervisor = self._supervisor
        try:
            sent = self._functions.encode(fn)
            payload = encode_args(args, kwargs or None, name)
            within, along = copy_context(), None
            if watch.active and (along := self.place.log.follow(None, name, 1)) is not None:
                within = along.carrying(within)
            context = encode_context(within)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's pickling raises, SystemExit too, is this task's
            if begin(future):
                future._claim()
                future._settle(None, error)
            settled(future, error)
            return
        call = _Call(future, sent, payload, context, None, 0, name, (fn, args, kwargs))
        call.pool, call.begin, call.settled = self, begin, settled
        if watch.active:
            call.told = watch.Told(self.place.log, fn, args, kwargs, along=along)
        future._call = call
        future._courier = supervisor.callbacks
        future._owner = supervisor
        supervisor.submit(call)
        if supervisor.ended.is_set():  # it has ended meanwhile, and calls nothing back any more
            supervisor.refuse_late()
            if future.done():
                settled(future, _error_of(future))

    def ask_to_end(self) -> None:
        """Let `current_task().cancelled` be true in the tasks that have begun."""
        supervisor = self._supervisor
        if supervisor.is_started:
            supervisor.post(self._ask)

    def _ask(self, _: Any) -> None:
        """In the supervisor's thread."""
        supervisor = self._supervisor
        for sent in [sent for worker in supervisor.core.workers.values() for sent in worker.calls]:
            supervisor.halt(getattr(sent.call, "call", sent.call))  # of one that is sent again

    def fail(self) -> None:
        """A function has failed; in the supervisor's thread. What has been sent to its process just now does not begin."""
        self._failed = True
        self._ask(None)

    def kill(self, why: str) -> None:
        """End all processes at once. Returns when they are gone; does not wait for callbacks, in which the user may block."""
        supervisor = self._supervisor
        self._closed = True
        supervisor.post(supervisor.kill, why)
        if supervisor.is_started:
            supervisor.wait_for_end()
            supervisor.join()


class _Call(FutureCall):
    """One function of a group; all but `_report` is called in the supervisor's thread."""

    __slots__ = ("begin", "pool", "settled")

    packs = False  # each has a process of its own
    pool: GroupPool
    begin: Begin
    settled: Settled | None

    def claim(self) -> bool:
        if self.pool._failed or not self.begin(self.future):
            return False  # the group cancels it, or has done so
        if super().claim():
            return True
        self._tell()
        return False

    def cancelled(self) -> None:
        if self.begin(self.future):
            super().cancelled()
            self._tell()

    def drained(self, error: BaseException) -> None:
        if self.begin(self.future) or self.future.running():  # its process had not begun it
            super().drained(error)
            self._tell()

    def resolve(self, place: int, what: Any, offset: int = 0, count: int = 1) -> None:
        super().resolve(place, what, offset, count)
        if not isinstance(what, Records) and (not isinstance(what, Record) or what.encoded.status != OK):
            self.pool.fail()
        self._tell()

    def over(self, place: int, why: str | None, ran: int = 0) -> None:
        if place:
            super().over(place, why, ran)
            return
        if why is None or (self.pool._supervisor.core.killed and not self.future.cancelled()):
            self._let_go()
            self.future._settle(None, CancelledError(why or "its TaskGroup was cancelled before it began"))
        else:
            super().over(place, why)
        self._tell()

    def _tell(self) -> None:
        if self.settled is not None:
            self.pool._supervisor.callbacks.put(self._report, self.settled)
            self.settled = None

    def _report(self, settled: Settled) -> None:
        settled(self.future, _error_of(self.future))


def _error_of(future: ProcessFuture[Any]) -> BaseException | None:
    """Return what the call raised. What it returned is not unpickled for that."""
    encoded = future._encoded
    if future.cancelled() or (encoded is not None and encoded.status == OK):
        return None
    return future.exception(0)

"""What a process pool's `submit` returns, and what travels for it.

A `ProcessFuture` keeps the outcome as bytes, and unpickles it in the thread that asks: unpickling runs code of the user's, which
must hurt nobody but whoever asks for it::

    supervisor ── _settle: bytes, FINISHED, wakes ──▶ result(): decode once ──▶ value, or what it raised
                        └── callbacks' thread: the user's callbacks

A lock of the future's own, made for the first who asks, guards `_encoded` and what it becomes. It is re-entrant: what is unpickled
may ask for the very same future.
"""

from __future__ import annotations

import functools
import struct
import threading
from concurrent.futures import CancelledError
from concurrent.futures._base import FINISHED, RUNNING
from pickle import dumps
from reprlib import repr as short
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from abreast.core import watch
from abreast.core.current import name_of
from abreast.core.future import Future
from abreast.core.states import CRASHED, FAILED, TIMEOUT
from abreast.executors.process.core import Crashed, OverMemory, TimedOut, ended_by
from abreast.executors.process.frames import Phase
from abreast.executors.process.sending import OK, Encoded, Payload, Pickled, encode_small
from abreast.executors.process.supervisor import Record, Records
from abreast.executors.process.worker import CALL, EACH, FAILS_FAST, ITEM, PAIR, PLAIN, SINGLE, STAR, TIMED

if TYPE_CHECKING:
    from collections.abc import Callable

    from abreast.executors.base import Deliver
    from abreast.executors.batch import Batch
    from abreast.executors.process.express import Lane
    from abreast.executors.process.measures import Measures
    from abreast.executors.process.page import Page
    from abreast.executors.process.supervisor import Courier, Supervisor

__all__ = ["BatchCall", "FutureCall", "ProcessFuture", "body_of", "opening", "single_body"]

T = TypeVar("T")


class ProcessFuture(Future[T]):
    """A `Future` whose outcome is unpickled when it is asked for."""

    __slots__ = ("_call", "_courier", "_encoded")

    _call: FutureCall | None
    _courier: Courier | None
    _encoded: Encoded | None

    def __init__(self) -> None:
        super().__init__()
        self._encoded = None
        self._courier = None
        self._call = None

    def result(self, timeout: float | None = None) -> T:
        """As `Future.result`; unpickles what the worker has sent.

        Raises:
            ResultDecodeError: it cannot be unpickled here.
            WorkerCrashed: the worker died while it ran this call.
            TaskTimeout: the call was over its limit.
        """
        if self._state != FINISHED:
            self._wait(timeout)
        if self._encoded is not None:
            self._decode()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `Future.exception`; unpickles what the worker has sent."""
        if self._state != FINISHED:
            self._wait(timeout)
        if self._encoded is not None:
            self._decode()
        return self._exception

    def _decode(self) -> None:
        lock = self.__dict__.setdefault("_decoding", threading.RLock())  # atomic: all get the same one
        with lock:
            encoded = self._encoded
            if encoded is None:
                return
            try:
                value = encoded.decode()
            except KeyboardInterrupt:  # not the outcome's: whoever asks again gets it
                raise
            except BaseException as error:  # ResultDecodeError
                self._exception = error
            else:
                if encoded.status == OK:
                    self._result = value
                else:
                    self._exception = value
            self._encoded = None

    # ---- for the supervisor

    def _settle(self, encoded: Encoded | None, error: BaseException | None, value: Any = None) -> None:
        """Publish an outcome, and have the callbacks called in their thread. `value` is a plain one."""
        courier = self._courier
        self._encoded = encoded
        self._call = self._courier = None
        if encoded is not None and encoded.status != OK:
            error = _NOT_DECODED  # what waits for the first exception sees that there is one
        if not self._publish(value, error):
            self._encoded = None
            return
        self._owner = None
        watch = self._watch
        if watch is None:
            return
        parked, watch.parked = watch.parked, None
        for lock in tuple(parked or ()):
            lock.release()
        if watch.callbacks is not None and courier is not None:
            courier.put(functools.partial(Future._invoke_callbacks, caught=BaseException), self)


_NOT_DECODED = RuntimeError("not decoded")
"""Stands for an exception that is still bytes; nobody sees it."""


def opening(
    function: int,
    count: int,
    *,
    index: int = -1,
    box: float = 0.0,
    name: str = "",
    context: Payload | None = None,
    attempt: int = 1,
) -> bytes:
    """Return how the body of a CALL frame of `count` items begins."""
    told = name.encode(errors="replace")[:1000]
    within = b"" if context is None else context.data
    return CALL.pack(function, count, index, box, len(told), len(within), attempt, 0) + told + within


def body_of(head: bytes, items: list[Payload]) -> tuple[bytes, tuple[Any, ...]]:
    """Return body and buffers of a CALL frame whose items stand alone."""
    if len(items) == 1:
        data, buffers = items[0]
        return head + ITEM.pack(len(data), len(buffers)) + data, buffers
    parts = [head]
    out: list[Any] = []
    for data, buffers in items:
        parts += (ITEM.pack(len(data), len(buffers)), data)
        out += buffers
    return b"".join(parts), tuple(out)


def single_body(head: bytes, pickles: list[bytes]) -> bytes:
    """Return the body of a CALL frame whose items are SINGLE."""
    return b"".join((head, struct.pack(f"<{len(pickles)}I", *map(len, pickles)), *pickles))


class _Travels:
    """What all kinds of calls have.

    Attributes:
        function, definition: the number of the function, and its pickle.
        flags: of its CALL frame.
        body, buffers: of its CALL frame; made when it is sent, of one call of `submit`.
        what: tells a task, for errors: ``resize('a.png')``.
        worker: where it was sent.
    """

    __slots__ = ()

    deaths: int
    resends = True
    packs = False
    parts: Any = ()
    urgency = 2
    what: Callable[[int], str]

    body: bytes
    buffers: tuple[Any, ...]
    definition: bytes
    flags: int
    function: int
    limit: float | None
    meter: Measures | None
    size: int
    worker: str

    @property
    def each(self) -> bool:
        """Whether each outcome is sent before the next task begins."""
        return bool(self.flags & EACH)

    def frames(self) -> tuple[bytes, tuple[Any, ...]]:
        """Return body and buffers."""
        return self.body, self.buffers

    def sent_to(self, page: Page | None, first: int) -> None:
        """It is being sent to the worker with this page, its first task as number `first`."""

    def measured(self, meter: Measures) -> None:
        """The worker says what the tasks took whose outcomes come next; each takes its part of that."""
        self.meter = meter  # type: ignore[misc]  # a slot, or an attribute, of each kind

    def error_of(self, place: int, index: int | None, lost: Crashed | TimedOut | OverMemory) -> BaseException:
        worker, died = lost.worker, lost.died
        name = f"worker {worker.number} ({self.worker})"
        if isinstance(lost, TimedOut):
            from abreast.core.errors import TaskTimeout

            return TaskTimeout(self.what(place), lost.limit, name, died.stack)
        from abreast.core.process_errors import MemoryLimitExceeded, WorkerCrashed

        if isinstance(lost, OverMemory):
            return MemoryLimitExceeded(self.what(place), index, lost.used, lost.limit, name, lost.after, died.stack)
        pid = int(self.worker.rpartition(" ")[2] or 0)
        phase = Phase.TEXTS[died.phase] if died.phase < len(Phase.TEXTS) else ""
        signal_name = ended_by(died.status).removeprefix("died of ") if (died.status or 0) < 0 else ""
        return WorkerCrashed(
            self.what(place),
            index,
            f"worker {worker.number}",
            pid,
            died.status,
            signal_name,
            phase,
            lost.after,
            died.stack,
            died.hint,
        )


def broken(why: str) -> BaseException:
    """Return an error of its own for each future: tracebacks would add up in a shared one."""
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool(why)


class FutureCall(_Travels):
    """One call of `submit`.

    Attributes:
        sent: the number of its function, and the pickle.
        payload: its arguments; None if they are small plain values, which are pickled when they are sent.
        task: function, args, kwargs.
    """

    __slots__ = ("__dict__", "context", "flags", "future", "limit", "name", "payload", "sent", "task")

    packs = True
    size = 1
    # Set on few calls: they are not worth a slot.
    deaths = 0
    attempt = 1
    worker = ""
    lane: Lane | None = None
    told: watch.Told | None = None
    """Who watches it is told by this."""
    meter: Measures | None = None

    def __init__(
        self,
        future: ProcessFuture[Any],
        sent: tuple[int, bytes],
        payload: Payload | None,
        context: Payload | None,
        limit: float | None,
        flags: int,
        name: str,
        task: tuple[Any, tuple[Any, ...], dict[str, Any]],
    ) -> None:
        self.future = future
        self.sent = sent
        self.payload = payload
        self.context = context
        self.limit = limit
        self.flags = flags
        self.name = name
        self.task = task

    @property
    def function(self) -> int:  # type: ignore[override]  # an attribute of others
        return self.sent[0]

    @property
    def definition(self) -> bytes:  # type: ignore[override]  # an attribute of others
        return self.sent[1]

    def what(self, _place: int) -> str:
        fn, args, kwargs = self.task
        told = [*map(short, args), *(f"{name}={short(value)}" for name, value in kwargs.items())]
        return f"{name_of(fn)}({', '.join(told)})"

    def encoded(self) -> Payload:
        """Return its arguments as they travel."""
        return encode_small(self.task[1]) if self.payload is None else self.payload

    def frames(self) -> tuple[bytes, tuple[Any, ...]]:
        return body_of(opening(self.sent[0], 1, name=self.name, context=self.context, attempt=self.attempt), [self.encoded()])

    def _let_go(self) -> None:
        """Nothing of it will be sent any more."""
        self.payload = _NOTHING
        self.context = None

    @property
    def weight(self) -> int:
        return 64 if self.payload is None else len(self.payload[0])

    def goes_with(self, other: Any) -> bool:
        theirs, ours = other.payload, self.payload
        return (
            other.sent[0] == self.sent[0]
            and other.context is self.context
            and other.limit is self.limit  # nor those of `with_options` with others
            and other.name is self.name
            and other.attempt == self.attempt
            and (theirs is ours if theirs is None or ours is None else not theirs[1] and not ours[1])
        )

    def pack(self, parts: list[FutureCall]) -> Pack:
        return Pack(parts)

    def claim(self) -> bool:
        future = self.future
        if future._state == RUNNING or future.set_running_or_notify_cancel():
            return True
        self._let_go()
        self.future._call = None
        return False

    def cancel(self) -> None:
        self.future.cancel()

    def cancelled(self) -> None:
        """It was taken out of the queue."""
        self._let_go()
        self.future._call = None  # the user may keep the future for long, and it would keep the arguments
        if self.future.cancelled():
            self.future.set_running_or_notify_cancel()  # tells those who wait()

    def drained(self, error: BaseException) -> None:
        """It was taken out of the queue, since the program has been asked to end."""
        self._let_go()
        if self.future.cancelled():
            self.cancelled()
        else:
            self.future._settle(None, error)

    def resolve(self, place: int, what: Any, offset: int = 0, count: int = 1) -> None:  # noqa: ARG002  # always one
        if self.told is not None:
            self._tell_watcher(self.told, place, what, offset)
        if type(what) is Records:
            _settle_with(self.future, what.results[offset])
        elif type(what) is Record:
            self.future._settle(what.encoded, None)
        else:
            self.future._settle(None, self.error_of(place, None, what))

    def _tell_watcher(self, told: watch.Told, place: int, what: Any, offset: int) -> None:
        meter, row = self.meter, watch.process_row(self.worker)
        failed = None
        if type(what) is Records:
            seconds = what.seconds / what.count if what.durations is None else what.durations[offset]
        elif type(what) is Record:
            seconds = what.seconds
            if what.encoded.status != OK:
                failed = FAILED, what.encoded.told()
        else:
            seconds, meter = what.after, None
            failed = TIMEOUT if isinstance(what, TimedOut) else CRASHED, watch.error_text(self.error_of(place, None, what))
        if meter is None:
            end = perf_counter_ns()
            told.ended(row, end - int(seconds * 1e9), end, failed, None)
        else:
            told.ended(row, *meter.take(int(seconds * 1e9)), failed, meter.share(seconds))

    def over(self, place: int, why: str | None, ran: int = 0) -> None:  # noqa: ARG002  # it goes again by itself
        self._let_go()
        if place:
            return
        if self.future.cancelled():
            self.cancelled()
        else:  # halted before it began, if it is not the pool's end
            self.future._settle(None, CancelledError() if why is None else broken(why))


def _settle_with(future: ProcessFuture[Any], result: Any) -> None:
    """Settle it with a plain value, or with what is still bytes."""
    if type(result) is Pickled:
        future._settle(Encoded(OK, Payload(result)), None)
    else:
        future._settle(None, None, result)


_NOTHING = Payload(b"")


class Pack(_Travels):
    """Calls of `submit` that travel as one: of one function, in one context. Each keeps its own pickle, and its future."""

    __slots__ = ("definition", "flags", "function", "limit", "meter", "parts", "size", "worker")

    def __init__(self, parts: list[FutureCall]) -> None:
        first = parts[0]
        self.parts = parts
        self.size = len(parts)
        self.function, self.definition = first.sent
        self.limit = first.limit
        self.flags = first.flags | (PLAIN | STAR if first.payload is None else SINGLE | PAIR)
        self.worker = ""
        self.meter: Measures | None = None

    def frames(self) -> tuple[bytes, tuple[Any, ...]]:
        first = self.parts[0]
        head = opening(self.function, self.size, name=first.name, context=first.context, attempt=first.attempt)
        if first.payload is None:
            return head + dumps([part.task[1] for part in self.parts], 5), ()
        pickles = [part.payload[0] for part in self.parts]
        return single_body(head, pickles), ()

    def resolve(self, place: int, what: Any, offset: int = 0, count: int = 1) -> None:
        parts = self.parts
        if type(what) is Records and parts[place].told is None:
            for part, result in zip(parts[place : place + count], what.results[offset : offset + count], strict=True):
                _settle_with(part.future, result)
                part._let_go()
            return
        for part in parts[place : place + count]:
            part.worker = self.worker
            if part.told is not None:
                part.meter = self.meter
            part.resolve(0, what, offset)
            part._let_go()
            offset += 1

    def over(self, place: int, why: str | None, ran: int = 0) -> None:  # noqa: ARG002  # it goes again by itself
        for part in self.parts[place:]:
            part.over(0, why)

    def shorten(self, place: int) -> None:
        """Those from `place` on are no longer in it: they go alone."""
        del self.parts[place:]
        self.size = place


class _Handle(Future[Any]):
    """What a run has of a batch that it has sent."""

    __slots__ = ("_batch_call",)

    def __init__(self, call: BatchCall) -> None:
        super().__init__()
        self._batch_call: BatchCall | None = call

    def cancel(self) -> bool:
        """As `Future.cancel`; of a batch that is with a worker, no further task is started."""
        if super().cancel():
            return True
        call = self._batch_call
        if call is not None:
            call.supervisor.post(call.supervisor.halt, call)
        return False

    def stop(self) -> None:
        """As `cancel`; but a task that is running is to finish, and is not told."""
        call = self._batch_call
        if not super().cancel() and call is not None:
            call.supervisor.post(call.supervisor.stop, call)

    def has_begun(self, place: int) -> bool:
        """Whether the task at this place has begun, as its worker's page says."""
        call = self._batch_call
        page = None if call is None else call.page
        if call is None or page is None:
            return False
        try:
            return page.read()[0] >= call.first + place
        except ValueError:  # it is closed: the process is gone
            return False

    def let_go(self) -> None:
        """Nothing more comes: what the call keeps is not to wait for a full collection, which a cycle would."""
        self._batch_call = self._owner = None

    def abandon(self) -> None:
        """End the task that is running, too: its worker is killed, and replaced."""
        call = self._batch_call
        if not self.cancel() and call is not None:
            call.supervisor.post(call.supervisor.abandon, call)


class BatchCall(_Travels):
    """A batch of a run; its outcomes are put into the batch as they come, still as bytes."""

    __slots__ = (
        "batch", "body", "buffers", "definition", "deliver", "first", "flags", "function", "handle", "limit", "meter", "page", "size", "supervisor", "what", "worker",
    )  # fmt: skip

    resends = False

    def __init__(
        self,
        batch: Batch,
        deliver: Deliver,
        supervisor: Supervisor,
        function: tuple[int, bytes],
        limit: float | None,
        flags: int,
        what: Callable[[int], str],
    ) -> None:
        self.function, self.definition = function
        self.limit = limit
        self.size = len(batch.items)
        self.what = what
        self.worker = ""
        self.body, self.buffers = b"", ()
        self.flags = flags | (FAILS_FAST if batch.work.fails_fast else 0) | (TIMED if batch.work.timed else 0)
        self.batch = batch
        self.supervisor = supervisor
        self.handle = _Handle(self)
        self.deliver: Deliver | None = deliver
        """The run's, which lives until this call is over although nobody may iterate; what is called is `Work.settle`."""
        self.page: Page | None = None
        self.meter: Measures | None = None
        self.first = 0
        """Where it was sent, and the number of its first task there."""

    @property
    def deaths(self) -> int:
        """What is handed back comes again as another batch, so this is kept by the run, at the first task's index."""
        return self.batch.work.deaths.get(self.batch.start, 0)

    @deaths.setter
    def deaths(self, count: int) -> None:
        self.batch.work.deaths[self.batch.start] = count

    def sent_to(self, page: Page | None, first: int) -> None:
        self.page, self.first = page, first

    @property
    def urgency(self) -> int:  # type: ignore[override]  # an attribute of others
        return len(self.batch.signal) and 1

    def claim(self) -> bool:
        if self.handle.set_running_or_notify_cancel():
            return True
        self._tell(CancelledError())
        return False

    def cancel(self) -> None:
        self.handle.cancel()

    def cancelled(self) -> None:
        if self.handle.cancelled():
            self.handle.set_running_or_notify_cancel()
        self._tell(CancelledError())

    def drained(self, error: BaseException) -> None:
        if self.handle.cancelled():
            self.handle.set_running_or_notify_cancel()
        self._tell(error)

    def resolve(self, place: int, what: Any, offset: int = 0, count: int = 1) -> None:
        batch = self.batch
        batch.worker = self.worker
        before = batch.seconds
        if type(what) is Records:
            self._take(batch, what, offset, count)
        elif place > len(batch.results):  # lost, behind others that ran and are to run again
            batch.lost = place, self.error_of(place, batch.start + place, what), what.after
            return
        else:
            self._take_one(batch, place, what)
        if self.meter is not None and batch.measure is not None:
            seconds = batch.seconds - before
            begin, _ = self.meter.take(int(seconds * 1e9))
            batch.measure.add(begin, self.meter.share(seconds))
        if batch.signal:
            batch.work.heed(batch)

    def _take(self, batch: Batch, what: Records, offset: int, count: int) -> None:
        if what.durations is None or not batch.work.timed:
            batch.seconds += what.seconds * count / what.count
        else:
            for seconds in what.durations[offset : offset + count]:
                batch.seconds += seconds
                batch.ends.append(batch.seconds)
        batch.results += what.results[offset : offset + count]

    def _take_one(self, batch: Batch, place: int, what: Any) -> None:
        value: Any = None
        if type(what) is not Record:
            batch.seconds += what.after
            batch.errors[place] = self.error_of(place, batch.start + place, what)
        else:
            batch.seconds += what.seconds
            encoded: Any = what.encoded
            if encoded.status == OK:
                value = encoded
            else:
                batch.errors[place] = encoded
        if batch.work.timed:
            batch.ends.append(batch.seconds)
        batch.results.append(value)

    def over(self, place: int, why: str | None, ran: int = 0) -> None:
        self.body, self.buffers = b"", ()
        batch = self.batch
        again = batch.work.again
        for index in range(batch.start + place, batch.start + place + ran):
            again[index] = again.get(index, 0) + 1
        self._tell(None if why is None else broken(why))

    def give_back(self, place: int) -> None:
        """Tasks from `place` on have not begun, and will not: the run may send them elsewhere. Those before go on."""
        self.size = place
        work = self.batch.work
        if self.deliver is not None and work.give_back(self.batch, place) and work.send_plain(self.batch):
            self.supervisor.deliver(self._send_more, self.deliver)

    def _tell(self, lost: BaseException | None) -> None:
        """Tell the run, here in the supervisor's thread; what it sends next is pickled, by code of the user's, and so in another."""
        if self.deliver is None:
            return
        run, self.deliver = self.deliver, None
        work = self.batch.work
        is_more = work.settle(self.batch, lost) and work.send_plain(self.batch)
        if not self.handle.done():
            self.handle.set_result(None)
        self.handle.let_go()
        if is_more:
            self.supervisor.deliver(self._send_more, run)

    def _send_more(self, _run: Deliver) -> None:
        self.batch.work.send_more(self.batch)

"""Who watches: the one place that executors and runs look at, and what they tell.

::

    with abreast.record():  active = (a recorder,)
                                │
    a run, an executor ── Log ──┤  attempts(Attempts)   each batch, or call, that has ended          in whatever thread that is
                                │  over()               a run is over
    who waits for results ──────┴─ span(...)            what a row did besides

While nobody watches, `active` is empty, and nothing of this is built: looking at it costs 20 ns a batch, or a ``submit``.

An observer may follow tasks on their way (`Along`): from where they are submitted to where they begin, and there set context variables for them::

    origin(), where it is submitted ──▶ begin(origin, …), in the task's thread and context ──▶ attempts(log, some), with both in `some.along`
                        └─ to another process: carry(origin), a function that is sent with the context, and called in it there

`_changing` guards who watches, and that a place has one log; a recorder has a lock of its own. `active` is replaced as a whole by who starts and stops watching. A `Thread` of a row is an attribute
of the thread itself: what `threading.get_ident` says is used again as soon as a thread ends.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from reprlib import Repr
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

from abreast.core.current import current_scopes, name_of
from abreast.core.states import CANCELLED, FAILED, JOINING, TIMEOUT
from abreast.core.text import printable

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from types import TracebackType
    from typing import Protocol

    class Sink(Protocol):
        """Who watches. Called in the threads that do the work: takes no more than a moment, and must not raise."""

        def attempts(self, log: Log, some: Attempts) -> object: ...
        def span(self, row: Thread, begin: int, end: int, state: int, what: str) -> object: ...
        def over(self, log: Log) -> object: ...

    class Follower(Sink, Protocol):
        """Who follows tasks on their way, too."""

        def origin(self) -> Any:
            """Called where tasks are submitted, in the context that they will have; returns what is kept with them."""

        def begin(self, origin: Any, log: Log, name: str, index: int, number: int) -> Any:
            """Called in the thread and the context of a task of this process before it begins, that attempt at it; returns what is kept with it."""

        def carry(self, origin: Any) -> Callable[[], object] | None:
            """Return what is to be called in another process, in the context that tasks get copies of there. It is pickled."""


__all__ = [
    "FRAME",
    "Along",
    "Attempts",
    "Follower",
    "Log",
    "Measure",
    "Place",
    "Same",
    "Sink",
    "Thread",
    "Told",
    "Watched",
    "active",
    "carried",
    "error_text",
    "joining",
    "nanoseconds",
    "process_row",
    "shorten",
    "start",
    "stop",
    "text_of",
    "this_thread",
    "usage",
    "value_text",
    "was_asked_to_end",
    "without_frame",
]

active: tuple[Sink, ...] = ()
"""Those who watch now."""

_changing = threading.RLock()  # a finalizer, or a signal's handler, may run under it, and submit something itself


_BITS = 2000
"""Of an integer that is shown in digits. Python refuses to show one of very many (`sys.set_int_max_str_digits`), and takes time that grows with their square."""


class _Short(Repr):
    """Short texts of what may be large, without making the long one first: `repr` of a million bytes takes milliseconds."""

    def repr_bytes(self, value: bytes | bytearray, level: int) -> str:
        if type(value) not in (bytes, bytearray) or len(value) <= self.maxother:
            return self.repr_instance(value, level)
        return f"{value[: self.maxother // 6]!r}… ({len(value):,} bytes)"

    repr_bytearray = repr_bytes

    def repr_int(self, value: int, level: int) -> str:
        return _large(value) if value.bit_length() > _BITS else super().repr_int(value, level)


def _large(value: int) -> str:
    return f"<int of {value.bit_length():,} bits>"


_repr = _Short()
_repr.maxstring = _repr.maxother = 60
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 4
_COUNTS = hasattr(resource, "RUSAGE_THREAD")  # of Linux and FreeBSD, not of macOS
CALL = 80
"""Characters of a call's text."""
_PLAIN = frozenset((int, float, bool, type(None), complex))
"""Classes of which an object can be kept instead of its text: it is small, cannot change, and its text can be made later."""


def start(sink: Sink) -> None:
    """Have somebody watch, until `stop`: what is started from now on."""
    global active
    with _changing:
        active = (*active, sink)


def stop(sink: Sink) -> None:
    global active
    with _changing:
        active = tuple(other for other in active if other is not sink)
        if not active:
            _close_rows()


def _forget() -> None:
    """In a forked child: those who watch are the parent's. What they tell would be lost, and a lock of theirs may be held for good here."""
    global active, _changing
    _changing = threading.RLock()
    active = ()
    _close_rows()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _drop(sink: Sink, error: Exception) -> None:
    """An observer has raised: say so, once, and ask it no more."""
    if sink in active:
        stop(sink)
        logging.getLogger("abreast").error(
            "an observer (%s) raised, and is told nothing more", type(sink).__name__, exc_info=error
        )


class Log:
    """A run, an executor or a group that is watched.

    Attributes:
        name, kind, workers: as `core.recording.Work` has them.
        begin, end: nanoseconds; `end` is 0 while it goes on.
        retries, cancelled, resumed, overhead: as there.
        calls: the texts of calls that have been read and have not ended, by index, of inputs that are not plain.
        numbers: counts calls that have no index.
        place: where calls are submitted to, which has a new log when others watch; None for a run.
        base: how many calls its logs before this one have counted.
        sinks, followers: who watched when it began, and those of them who follow tasks on their way.
    """

    __slots__ = (
        "base",
        "begin",
        "calls",
        "cancelled",
        "end",
        "followers",
        "kind",
        "name",
        "numbers",
        "overhead",
        "place",
        "resumed",
        "retries",
        "sinks",
        "workers",
    )

    def __init__(self, name: str, kind: str, workers: int) -> None:
        self.sinks = sinks = active
        self.followers: tuple[Any, ...] = tuple(sink for sink in sinks if hasattr(sink, "origin"))
        self.name = name
        self.kind = kind
        self.workers = workers
        self.begin = perf_counter_ns()
        self.end = 0
        self.retries = self.cancelled = self.resumed = 0
        self.overhead: int | None = None
        self.calls: dict[int, str] = {}
        self.numbers = itertools.count()
        self.place: Place | None = None
        self.base = 0

    def attempts(self, some: Attempts) -> None:
        for sink in self.sinks:
            if sink not in active:  # it has stopped watching, or been dropped
                continue
            try:
                sink.attempts(self, some)
            except Exception as error:  # whatever an observer raises: watching does not change the work
                _drop(sink, error)
        if some.along is not None:  # else a recorder would keep it
            some.along = None
            if some.measure is not None:
                some.measure.along = None

    def over(self) -> None:
        """The run is over, and what it says of itself is noted here."""
        for sink in self.sinks:
            over = getattr(sink, "over", None)  # of the user's: it need not have it
            if over is not None:
                _asked(sink, over, self)

    def follow(self, context: Context | None, name: str, number: int) -> Along | None:
        """Return what goes along with tasks that are submitted now, or None if nobody follows them.

        Args:
            context: what they run in a copy of; None is the present one.
            name: of the task.
            number: which attempt at them it is.
        """
        return Along(self, context, name, number) if self.followers else None

    def admit(self, start: int, items: list[Any], star: bool) -> None:
        """Inputs have been read: make the texts of those that may be another, or gone, later. Runs code of the user's."""
        if not star and _PLAIN.issuperset(map(type, items)):
            return
        calls = self.calls
        for index, item in enumerate(items, start):
            calls[index] = ", ".join(map(value_text, item)) if star else value_text(item)


carried: ContextVar[list[Callable[[], object]]] = ContextVar("abreast.carried")
"""In a context that is sent to another process, and nowhere else: what is to be called in it there."""


class Along:
    """What observers that follow tasks keep with those of a batch, or a call, until they have been told what became of them."""

    __slots__ = ("_begun", "_log", "_name", "_number", "_origins")

    def __init__(self, log: Log, context: Context | None, name: str, number: int) -> None:
        self._log = log
        self._name = name
        self._number = number
        self._origins: list[Any] = []
        self._begun: list[dict[int, Any]] = [{} for _ in log.followers]
        for sink in log.followers:
            if context is None:
                self._origins.append(_asked(sink, sink.origin))
            else:  # a copy: somebody may be in it
                self._origins.append(_asked(sink, context.copy().run, sink.origin))

    def begin(self, index: int) -> None:
        """A task begins: in its thread and context."""
        for sink, origin, begun in zip(self._log.followers, self._origins, self._begun, strict=True):
            begun[index] = _asked(sink, sink.begin, origin, self._log, self._name, index, self._number)

    def carrying(self, context: Context) -> Context:
        """Return the context as it is to be sent to another process."""
        loads = [
            load
            for sink, origin in zip(self._log.followers, self._origins, strict=True)
            if (load := _asked(sink, sink.carry, origin)) is not None
        ]
        if loads:
            context = context.copy()
            context.run(carried.set, loads)
        return context

    def of(self, follower: object) -> tuple[str, Any, dict[int, Any]]:
        """Return the name of the tasks, what an observer's `origin` has returned, and, by index, what its `begin` has of those that began in this process."""
        for sink, origin, begun in zip(self._log.followers, self._origins, self._begun, strict=True):
            if sink is follower:
                return self._name, origin, begun
        raise LookupError(f"{follower!r} does not follow these tasks")


def _asked(sink: Any, what: Callable[..., Any], *args: Any) -> Any:
    if sink not in active:
        return None
    try:
        return what(*args)
    except Exception as error:  # as above
        _drop(sink, error)
        return None


STALE = 5_000_000
"""Nanoseconds for which what a thread has waited for a CPU is not read again, while its tasks are short."""


class Thread:
    """A row: a thread of this process, or another process."""

    __slots__ = ("begin", "end", "ident", "kind", "name", "native_id", "pid", "read", "schedstat", "waited")

    def __init__(self, kind: str, name: str, ident: int, native_id: int, pid: int) -> None:
        self.kind = kind
        self.name = name
        self.ident = ident
        self.native_id = native_id
        self.pid = pid
        self.begin = self.end = perf_counter_ns()
        self.waited: int | None = None
        """What `runqueue` has returned last."""
        self.read = 0
        """When a batch last asked for it, in nanoseconds."""
        self.schedstat = -1
        """A descriptor of the file in which Linux tells how long it has waited for a CPU; -1 if there is none."""

    def open(self) -> None:
        """In the thread itself: have it told how long it waits for a CPU, until `close`, its end, or until nobody watches."""
        if sys.platform == "linux":
            with suppress(OSError):
                self.schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
                _rows.add(self)
                if getattr(_here, "row", None) is not self:  # else letting go of the old one would close this descriptor
                    _here.row, _here.end = self, _End(self)

    def close(self) -> None:
        fd, self.schedstat = self.schedstat, -1  # first: a thread that reads just now is not to meet another file
        _rows.discard(self)
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def runqueue(self) -> int | None:
        """Return for how many nanoseconds the thread has waited for a CPU; None where that is not told."""
        if self.schedstat < 0:
            return None
        try:
            self.waited = waited = int(os.pread(self.schedstat, 64, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return waited


_processes: dict[str, Thread] = {}


def process_row(worker: str) -> Thread:
    """Return the row of a process by the name that its outcomes have, as ``process 4242``."""
    row = _processes.get(worker)
    if row is None:
        pid = worker.rpartition(" ")[2]
        row = Thread("process", worker, 0, 0, int(pid) if pid.isdecimal() else 0)
        _processes[worker] = row
    row.end = perf_counter_ns()
    return row


_rows: set[Thread] = set()
"""Those of threads of this process that have a descriptor, to be closed."""
_here = threading.local()


class _End:
    """Of a thread: what is local to it is let go when it ends. A group may start more threads than a program may have descriptors."""

    def __init__(self, row: Thread) -> None:
        self._row = row

    def __del__(self) -> None:
        if self._row in (_rows or ()):  # None when the interpreter ends
            self._row.close()


def this_thread() -> Thread:
    """Return the row of the thread that calls."""
    known: Thread | None = getattr(_here, "row", None)
    # Opened by this thread, and in this process: the usual way, at a tenth of the time.
    if known is not None and known.schedstat >= 0:
        return known
    thread = threading.current_thread()
    row: Thread | None = thread.__dict__.get("_abreast_row")
    if row is None or row.pid != os.getpid():
        kind = "main" if thread is threading.main_thread() else "thread"
        row = Thread(kind, thread.name, thread.ident or 0, threading.get_native_id(), os.getpid())
        thread.__dict__["_abreast_row"] = row
    row.name = thread.name
    if row.schedstat < 0 and active:  # what was submitted while somebody watched may begin later
        row.open()
    return row


def _close_rows() -> None:
    """Nobody watches any more: give the descriptors back."""
    _processes.clear()
    for row in list(_rows):
        row.close()


def usage() -> tuple[int, int | None]:
    """Return the CPU time of this thread in nanoseconds, and how often it has given up its CPU to wait; None if that is not told."""
    if not _COUNTS:
        return thread_time_ns(), None
    told = resource.getrusage(resource.RUSAGE_THREAD)
    return int((told.ru_utime + told.ru_stime) * 1e9), told.ru_nvcsw


class Measure:
    """What a thread does for a batch, or a call, of a work that is watched.

    Attributes:
        row: the thread.
        cpu: nanoseconds of CPU time, of all its tasks.
        cpus: the CPU time of the thread at its start, and after each task; empty if the tasks are too short to tell.
        switches, runqueue: how often it gave up its CPU to wait, and how long it waited for one; None if not known.
        begun: when it began, in nanoseconds, if that was in another process; 0 if it is not known.
        along: what those keep who follow its tasks; None if nobody does.
    """

    __slots__ = ("_ends", "_is_short", "along", "begun", "cpu", "cpus", "is_over", "row", "runqueue", "switches")

    def __init__(self, *, each: bool = False, is_short: bool = False) -> None:
        self._is_short = is_short
        self.row: Thread | None = None
        self.along: Along | None = None
        self.begun = 0
        self.is_over = False
        self.cpu = 0
        self.cpus: list[int] | None = [] if each else None
        self.switches: int | None = None
        self.runqueue: int | None = None

    @classmethod
    def of(cls, cpu: int, runqueue: int | None) -> Measure:
        """Return what was measured elsewhere."""
        measure = cls(each=False)
        measure.cpu, measure.runqueue, measure.is_over = cpu, runqueue, True
        return measure

    def add(self, begin: int, some: Measure) -> None:
        """Take what another process says of some of the tasks."""
        self.begun = self.begun or begin
        self.cpu += some.cpu
        if some.runqueue is not None:
            self.runqueue = (self.runqueue or 0) + some.runqueue
        self.is_over = True

    def begin(self, ends: list[float]) -> Callable[[float], object]:
        """Begin, in the thread that does it; return what is to be called with the time after each task."""
        self.row = row = this_thread()
        # Of short tasks what the thread has waited since the last one is counted too: to read it takes 2.5 us, and the GIL is given up for it.
        self.runqueue = row.waited if self._is_short and row.waited is not None else row.runqueue()
        self.cpu, self.switches = usage()
        if self.cpus is None:
            return ends.append
        self._ends = ends
        self.cpus.append(thread_time_ns())
        return self._note

    def _note(self, now: float) -> None:
        assert self.cpus is not None
        self.cpus.append(thread_time_ns())
        self._ends.append(now)

    def end(self) -> None:
        """The end, in the same thread."""
        row = self.row
        if row is None:
            return
        cpu, switches = usage()
        self.cpu = cpu - self.cpu
        self.switches = None if switches is None or self.switches is None else switches - self.switches
        row.end = now = perf_counter_ns()
        if self._is_short and row.waited is not None and now - row.read < STALE:
            runqueue: int | None = row.waited  # what has come since is counted with one of the next
        else:
            runqueue = row.runqueue()
            row.read = now
        self.runqueue = None if runqueue is None or self.runqueue is None else runqueue - self.runqueue
        self.is_over = True


def nanoseconds(time: float) -> int:
    """Return a time of `perf_counter`, or of `perf_counter_ns`, as the latter has it."""
    return time if type(time) is int else int(time * 1e9)


class Attempts:
    """Attempts that have ended: those of a batch, one after another, or a single one.

    Attributes:
        first: the index of the first.
        number: which attempt it is of each.
        row: the row that they ran on; None if it is not known.
        queued: when they were submitted, in nanoseconds; 0 if not known.
        begin: when the first began, in nanoseconds.
        ends: when each ended: seconds by `perf_counter`, or nanoseconds if they are integers.
        failed: by place, outcome (as in `core.states.OUTCOMES`) and text of the error, of those that did not return.
        items: their inputs, if they are plain; else their texts.
        are_texts: whether `items` are that.
        are_calls: whether `items` are the texts of whole calls.
        measure: what was measured; None if nothing was.
        submitter: the row that submitted them; None if not known.
        along: what those keep who follow them; None if nobody does, and when all have been told.
    """

    __slots__ = (
        "along",
        "are_calls",
        "are_texts",
        "begin",
        "ends",
        "failed",
        "first",
        "items",
        "measure",
        "number",
        "queued",
        "row",
        "submitter",
    )

    def __init__(
        self,
        first: int,
        row: Thread | None,
        queued: int,
        begin: int,
        ends: list[float] | list[int],
        failed: dict[int, tuple[int, str]],
        items: list[Any],
        *,
        are_texts: bool,
        are_calls: bool = False,
        number: int = 1,
        measure: Measure | None = None,
        submitter: Thread | None = None,
        along: Along | None = None,
    ) -> None:
        self.along = along
        self.first = first
        self.row = row
        self.queued = queued
        self.begin = begin
        self.ends = ends
        self.failed = failed
        self.items = items
        self.are_texts = are_texts
        self.are_calls = are_calls
        self.number = number
        self.measure = measure
        self.submitter = submitter


class Told:
    """A call of ``submit`` that is watched, from then to its end.

    Args:
        number: which attempt it is.
        may_show: whether code of the user's may be run, to show the arguments.
        along: what those keep who follow it.
    """

    __slots__ = ("_along", "_index", "_log", "_number", "_queued", "_submitter", "_text")
    _index: int
    _text: str

    def __init__(
        self,
        log: Log,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        *,
        number: int = 1,
        may_show: bool = True,
        along: Along | None = None,
    ) -> None:
        name = name_of(fn)
        same: Same | None = getattr(_here, "same", None)
        if same is not None and same.fn is not fn:  # submitted by what is called meanwhile: the pickling of arguments
            same = None
        before = None if same is None else same.told
        self._log = log
        self._along = along
        self._number = number
        if before is not None and before._log is log:
            self._index, self._text = before._index, before._text
        else:
            self._index = next(log.numbers)
            self._text = call_text(name, args, kwargs) if may_show else f"{printable(name)}(…)"
        if same is not None:
            same.told, _here.same = self, None  # once: a serial executor runs it within
        self._submitter = this_thread()
        self._queued = perf_counter_ns()

    def begin(self) -> None:
        """It begins: in its thread and context."""
        if self._along is not None:
            self._along.begin(self._index)

    def ended(self, row: Thread | None, begin: int, end: int, failed: tuple[int, str] | None, measure: Measure | None) -> None:
        """It has ended on that row, at that time."""
        some = Attempts(
            self._index,
            row,
            self._queued,
            begin,
            [end],
            {} if failed is None else {0: failed},
            [self._text],
            are_texts=True,
            are_calls=True,
            number=self._number,
            measure=measure,
            submitter=self._submitter,
            along=self._along,
        )
        self._along = None
        self._log.attempts(some)


class Same:
    """A call that is submitted again for each attempt at it: in the block, what is told of it has the number and the text that it had the first time."""

    __slots__ = ("fn", "told")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.told: Told | None = None

    def __enter__(self) -> None:
        _here.same = self

    def __exit__(self, *_: object) -> None:
        _here.same = None


class Watched:
    """Stands in for a function whose call is watched: calls it as it is called itself, and tells when, where, and what came of it."""

    def __init__(self, fn: Callable[..., Any], told: Told) -> None:
        self.__qualname__ = name_of(fn)
        self.__wrapped__ = fn
        self._told = told
        self._begun: list[tuple[Thread | None, int]] = []
        """Row and time; taken out by who tells the end: its thread, or the one that finds it over its limit."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        measure = Measure(each=False)
        measure.begin([])
        self._told.begin()
        self._begun.append((measure.row, perf_counter_ns()))
        failed = None
        try:
            return self.__wrapped__(*args, **kwargs)
        except BaseException as error:
            failed = CANCELLED if was_asked_to_end(error) else FAILED, error_text(error)
            raise
        finally:
            end = perf_counter_ns()
            measure.end()
            self._tell(end, failed, measure)

    def expired(self, error: BaseException) -> None:
        """It is over its limit, and its caller has been told; it goes on in its thread, which this is not."""
        self._tell(perf_counter_ns(), (TIMEOUT, error_text(error)), None)

    def _tell(self, end: int, failed: tuple[int, str] | None, measure: Measure | None) -> None:
        try:
            row, begin = self._begun.pop()
        except IndexError:  # it has been told
            return
        self._told.ended(row, begin, end, failed, measure)


def was_asked_to_end(error: BaseException) -> bool:
    """Whether the task of this thread, that raised it, only did as it was asked: it has not failed."""
    return isinstance(error, CancelledError) and any(scope.cancelled for scope in current_scopes())


FRAME = Watched.__call__.__code__


def without_frame(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frame of `Watched`, if it begins there."""
    return trace.tb_next if trace is not None and trace.tb_frame.f_code is FRAME else trace


class Place:
    """Where calls are submitted to: an executor, a group. Keeps its log, a new one when others watch.

    Attributes:
        hidden: whether its calls are told by somebody else: the group that it belongs to.
    """

    __slots__ = ("_log", "hidden", "kind", "name", "workers")

    def __init__(self, name: str, kind: str, workers: int) -> None:
        self.name = name
        self.kind = kind
        self.workers = workers
        self.hidden = False
        self._log: Log | None = None

    @property
    def log(self) -> Log:
        log = self._log
        if log is None or log.sinks is not active:
            with _changing:
                log = self._log  # another thread may have asked first
                if log is None or log.sinks is not active:
                    before, log = log, Log(self.name, self.kind, self.workers)
                    log.place = self
                    log.base = 0 if before is None else before.base + next(before.numbers)
                    self._log = log
        return log

    def watched(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        *,
        number: int = 1,
        may_show: bool = True,
        context: Context | None = None,
        name: str | None = None,
    ) -> Callable[..., Any]:
        """Return what is to be called in the place of `fn`. To be asked while somebody watches.

        `may_show`: whether code of the user's may be run, to show the arguments. `context`, `name`: as for `Log.follow`.
        """
        if self.hidden:
            return fn
        log = self.log
        along = log.follow(context, name or name_of(fn), number) if log.followers else None
        return Watched(fn, Told(log, fn, args, kwargs, number=number, may_show=may_show, along=along))


@contextmanager
def joining(what: str) -> Iterator[None]:
    """Tell that this thread waits for something. To be used while somebody watches."""
    begin = perf_counter_ns()
    try:
        yield
    finally:
        row, end = this_thread(), perf_counter_ns()
        for sink in active:
            if not hasattr(sink, "span"):  # of the user's: it need not have it
                continue
            try:
                sink.span(row, begin, end, JOINING, what)
            except Exception as error:  # as above
                _drop(sink, error)


def value_text(value: object) -> str:
    """Return a value as short text. Runs code of the user's."""
    kind = type(value)
    if kind in _PLAIN:
        if isinstance(value, int) and value.bit_length() > _BITS:
            return _large(value)
        return repr(value)[:CALL]
    try:
        return printable(_repr.repr(value))[:CALL]
    except Exception as error:  # a __repr__ of the user's
        return printable(f"<{kind.__name__}, whose repr raised {type(error).__name__}>")[:CALL]


def text_of(name: str, some: Attempts, place: int) -> str:
    """Return an attempt's call as text."""
    text = some.items[place] if some.are_texts else value_text(some.items[place])
    return str(text) if some.are_calls else shorten(f"{printable(name)}({text})")


def call_text(name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> str:
    """Return a call as text."""
    parts = [
        *map(value_text, args[:6]),
        *(f"{printable(str(key))}={value_text(value)}" for key, value in list((kwargs or {}).items())[:6]),
    ]
    return shorten(f"{printable(name)}({', '.join(parts)})")


def error_text(error: BaseException) -> str:
    """Return an error as one line of text. Runs code of the user's."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as why:  # SystemExit too: it is not what the task raised
        text = f"its text raised {type(why).__name__}"
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:300]


def shorten(text: str) -> str:
    return text if len(text) <= CALL else text[: CALL - 1] + "…"

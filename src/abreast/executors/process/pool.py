"""The process pool's machinery: the standard library's `ProcessPoolExecutor`, on a supervisor and workers of ours.

The life of a task, in the order things happen::

    submit ─▶ encode function, arguments, context ─▶ inbox ─▶ supervisor: core ─▶ task pipe ─▶ worker: decode, run, encode
    (here, in the caller's thread: sending.py)                                                      │
    result() decodes  ◀── future: bytes ◀── supervisor ◀── result pipe ◀─────────────────────────────┘

A subclass, since real clients ask with isinstance. Nothing of its machinery is used: its __init__ is not called. Private names that
clients read are here: `_max_workers`, `_processes`, `_mp_context`, `_broken`, `_shutdown_thread`.

`_holding` guards `_holders`, who are to send more although the pool may be closed. `_starting` guards the start of the supervisor, which is started by the first submit. The executor's object holds the supervisor, and nobody holds the executor: when it is collected, a weak reference's callback posts
that no more will come, the workers finish what is queued, and end.
"""

from __future__ import annotations

import concurrent.futures.process
import itertools
import os
import pickle
import sys
import threading
import weakref
from contextvars import Context, copy_context
from functools import partial
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from abreast.core import draining, watch
from abreast.core.check import callable_or_none, count, count_or_none, function, initargs_tuple, module_names, seconds_or_none
from abreast.core.current import name_of
from abreast.core.future import STEP
from abreast.core.statistics import PoolStatistics
from abreast.executors.process import contexts, guardian, logs
from abreast.executors.process.core import PoolCore, Worker
from abreast.executors.process.cores import usable_cores
from abreast.executors.process.forked import HasThreads
from abreast.executors.process.frames import MOST
from abreast.executors.process.futures import BatchCall, FutureCall, ProcessFuture, body_of, broken, opening, single_body
from abreast.executors.process.here import is_worker
from abreast.executors.process.launch import Process, dump_signal
from abreast.executors.process.sending import (
    Common,
    Encoded,
    Functions,
    Payload,
    Pickled,
    are_small,
    encode_args,
    encode_context,
    encode_items,
    encode_not_sent,
    encode_plain,
)
from abreast.executors.process.supervisor import Supervisor
from abreast.executors.process.worker import EACH, LIMITED, PLAIN, SINGLE, STAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from abreast.core.future import Future
    from abreast.executors.attempt import Attempt
    from abreast.executors.base import Deliver
    from abreast.executors.batch import Batch, Work
    from abreast.executors.process.template import Template

__all__ = ["ProcessPool", "usable_cores"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count()
_pools: weakref.WeakSet[Supervisor] = weakref.WeakSet()
_held: set[ProcessPool] = set()
_program_ends = False


class ProcessPool(concurrent.futures.ProcessPoolExecutor):
    """`submit`, and the life of the workers; the public class adds what runs over many inputs."""

    encodes = frozenset((Encoded, Pickled))
    """What outcomes of a run's batches are until they are asked for, but for plain values."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[object] = (),
        *,
        max_tasks_per_child: int | None = None,
        task_timeout: float | None = None,
        max_memory_per_child: int | None = None,
        capture_output: bool = False,
        flush: str = "auto",
        preload: Sequence[str] = (),
        name: str = "",
    ) -> None:
        # Inside a worker the cores are taken: by its siblings.
        usual = 1 if is_worker() else usable_cores()
        workers = usual if max_workers is None else count("max_workers", max_workers, default=" or None")
        callable_or_none("initializer", initializer)
        method = contexts.start_method(mp_context)
        if not isinstance(capture_output, bool):
            raise TypeError(f"capture_output must be True or False, not {short(capture_output)}")
        if flush not in ("auto", "each"):
            raise ValueError(f'flush must be "auto" or "each", not {short(flush)}')
        modules = module_names("preload", preload)
        if modules and method in ("fork", "spawn"):
            raise ValueError(
                f"preload={list(modules)!r} cannot be had with mp_context={method!r}: leave mp_context out, or use 'forkserver'"
            )
        self._max_workers = workers
        self._given_context = mp_context
        self._initializer: Any = initializer
        self._initargs = initargs_tuple("initargs", initargs)
        self._max_tasks_per_child = count_or_none("max_tasks_per_child", max_tasks_per_child)
        self._max_memory = count_or_none("max_memory_per_child", max_memory_per_child)
        self._task_timeout = seconds_or_none("task_timeout", task_timeout)
        self.sends_each = flush == "each"
        self.place = watch.Place(name or type(self).__name__, "process", workers)
        self._flags = (LIMITED if task_timeout is not None else 0) | (EACH if flush == "each" else 0)
        self._name = name or f"ProcessPoolExecutor-{next(_numbers)}"
        threads = max(1, usable_cores() // workers)
        start = _Start(
            initializer,
            self._initargs,
            method,
            threads=threads,
            capture=capture_output,
            recycles=self._max_tasks_per_child is not None,
            preload=modules,
        )
        self._functions = Functions(start.common)
        self.paces: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        """Seconds that a task of a function takes, as its last run has learnt; kept here for the engine."""
        self._closed = _program_ends
        self._starting = threading.Lock()  # guards the start of the supervisor
        self._holding = threading.Condition(threading.RLock())  # guards who holds it, and whether it is closed for all others
        self._holders: set[Any] = set()
        if method == "fork" and self._max_tasks_per_child is not None:
            raise ValueError(
                f"max_tasks_per_child={max_tasks_per_child!r} is incompatible with the 'fork' multiprocessing start method; "
                "supply a different mp_context."
            )
        core = PoolCore(workers, max_tasks_per_child=self._max_tasks_per_child, max_memory=self._max_memory)
        boot = partial(_boot, start, self._max_memory, threads, self._name)
        self._supervisor = supervisor = Supervisor(
            core, boot, start.launch, name=self._name, prepare=start.prepare, finish=start.finish, launched=start.launched
        )
        self._start = start
        # There, not here: a weak reference that is found as garbage together with what it refers to calls nobody.
        supervisor.owner = weakref.ref(self, partial(_let_go, weakref.ref(supervisor)))
        _pools.add(supervisor)
        supervisor.drain_holders = weakref.WeakMethod(self._drain_held)
        draining.enrol(supervisor, draining.EXECUTOR)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in a worker process.

        The arguments are pickled now, in this thread: what is changed in them later does not matter, but for large buffers (arrays
        from 128 KiB on), which are read when they are sent.

        Returns:
            The `Future` of the call. What cannot be pickled is its error.

        Raises:
            TypeError: `fn` cannot be called.
            RuntimeError: after `shutdown`, at the end of the program, in a forked child.
            BrokenProcessPool: no worker can be started, or the initializer failed.
        """
        if not callable(fn):
            function("fn", fn)  # type: ignore[unreachable]  # a caller without a type checker
        return self._send(fn, args, kwargs, copy_context(), self._task_timeout, name_of(fn))

    def submit_attempt(
        self, attempt: Attempt, args: tuple[Any, ...], kwargs: dict[str, Any], context: Context, *, held: bool = False
    ) -> Future[Any]:
        """For views: as `submit`, of a call that has options of its own. `held`: the caller holds this executor, which so goes on after `shutdown`."""
        limit = self._task_timeout if attempt.limit is None else attempt.limit
        return self._send(attempt.fn, args, kwargs, context, limit, attempt.name, attempt.number, held=held)

    sends_quickly = False
    """Whether `submit_attempt` runs no code of the user's: it pickles."""

    def _send(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        within: Context,
        limit: float | None,
        name: str,
        attempt: int = 1,
        *,
        held: bool = False,
    ) -> Future[T]:
        self._check_open(held=held)
        future: ProcessFuture[T] = ProcessFuture()
        supervisor = self._supervisor
        try:
            sent = self._functions.encode(fn)
            payload = None
            if kwargs or not are_small(args):
                payload = encode_args(args, kwargs or None, name, common=self._start.common)
                _refuse_huge(len(payload.data), f"the arguments of {name}")
            along = None
            if watch.active and not self.place.hidden and (along := self.place.log.follow(within, name, attempt)) is not None:
                within = along.carrying(within)
            context = encode_context(within, self._start.common)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's pickling raises, SystemExit too, is this task's
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        flags = self._flags if limit is None else self._flags | LIMITED
        call = FutureCall(future, sent, payload, context, limit, flags, name, (fn, args, kwargs))
        if attempt > 1:
            call.attempt = attempt
        if watch.active and not self.place.hidden:
            call.told = watch.Told(self.place.log, fn, args, kwargs, number=attempt, may_show=not held, along=along)
        future._call = call
        future._courier = supervisor.callbacks
        future._owner = supervisor
        lanes = supervisor.lanes
        if lanes is None or call.limit is not None or call.told is not None or not lanes.send(call):
            supervisor.submit(call)
        if supervisor.ended.is_set():  # it has ended meanwhile
            supervisor.refuse_late()
        return future

    def submit_call(self, batch: Batch, deliver: Deliver) -> Future[Any]:
        """For runs: have a worker run `batch`; see executors/base.py."""
        supervisor, work = self._supervisor, batch.work
        if not supervisor.is_delivering_here() or supervisor.core.broken is not None:
            self._check_open()
        if work.sent is None:
            work.sent = self._functions.encode(work.fn)
        common = self._start.common
        within = batch.context
        context = None
        if batch.measure is not None and batch.measure.along is not None:
            context = encode_context(batch.measure.along.carrying(within or Context()), common)
        elif within is not None:
            if work.within is None or work.within[0] is not within:
                work.within = within, encode_context(within, common)
            context = work.within[1]
        call = self._call_of(batch, deliver)
        _load(call, _head(batch, context), batch.items, work, common)
        _refuse_huge(len(call.body), f"{len(batch.items)} inputs of {work.name}")
        supervisor.submit(call)
        return call.handle

    def submit_plain(self, batch: Batch, deliver: Deliver) -> Future[Any] | None:
        """The same in the supervisor's thread, where no code of the user's may run; None if that would, or the pool is about to end.

        To hand it to another thread costs two changes of threads, which wait for the GIL: a millisecond while results are being consumed.
        """
        supervisor, work = self._supervisor, batch.work
        if supervisor.core.closed or supervisor.core.broken is not None:
            return None
        if work.sent is None or work.star or batch.measure is not None:
            return None
        context = None
        if batch.context is not None:
            within, context = work.within or (None, None)
            if within is not batch.context:
                return None
        together = encode_plain(batch.items, star=False)
        if together is None:
            return None
        call = self._call_of(batch, deliver)
        call.body = _head(batch, context) + together
        call.flags |= PLAIN
        supervisor.submit(call)
        return call.handle

    def _call_of(self, batch: Batch, deliver: Deliver) -> BatchCall:
        work = batch.work
        limit, flags = self._task_timeout, self._flags
        if work.limit is not None:
            limit, flags = work.limit, flags | LIMITED
        call = BatchCall(batch, deliver, self._supervisor, work.sent, limit, flags, partial(_told_item, batch))
        call.handle._owner = _CancelsCall(call)
        batch.remote = True
        return call

    # ---- held open, for what is to be done later: a retry

    def hold(self, holder: Any) -> None:
        """Go on until `let_go`, although the pool may be shut down meanwhile; ``holder.cancel()`` is called when what waits is cancelled.

        Raises:
            RuntimeError: it is shut down.
        """
        with self._holding:
            self._check_open()
            self._holders.add(holder)
            _held.add(self)

    def let_go(self, holder: Any) -> None:
        """End a `hold`; nothing happens if it has been ended."""
        with self._holding:
            self._holders.discard(holder)
            if self._holders:
                return
            _held.discard(self)
            if self._closed:
                self._supervisor.post(self._supervisor.close)
            self._holding.notify_all()

    def call_soon(self, action: Callable[[], object]) -> None:
        """For who holds this executor: have `action` called in the thread that sends what runs have left to send."""
        self._supervisor.post(partial(self._supervisor.deliver, _call), action)

    def _wait_for_holders(self) -> None:
        with self._holding:
            while self._holders and self._supervisor.core.broken is None and not self._supervisor.ended.is_set():
                self._holding.wait(STEP)

    def _cancel_held(self) -> None:
        with self._holding:
            holders = list(self._holders)
        for holder in holders:
            holder.cancel()

    def _drain_held(self) -> None:
        with self._holding:
            holders = list(self._holders)
        for holder in holders:
            holder.drain()

    def _check_open(self, *, held: bool = False) -> None:
        supervisor = self._supervisor
        if supervisor.forked:
            raise RuntimeError("this executor belongs to the parent process: make another one in a forked child")
        why = supervisor.core.broken
        if why is not None and not supervisor.core.killed:
            raise broken(why)
        if supervisor.is_drained:
            raise draining.drained(f"a task of {self._name}")
        if supervisor.core.closed or (not held and (self._closed or _program_ends)):
            raise RuntimeError("cannot schedule new futures after " + ("interpreter shutdown" if _program_ends else "shutdown"))
        if not supervisor.is_started:
            with self._starting:
                supervisor.begin()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and wait until all have run and the workers have ended. May be called more than once.

        Ctrl-C while waiting kills the workers; what they ran fails.

        Args:
            wait: False returns at once; what is queued runs all the same, before the program ends.
            cancel_futures: cancel what has not started.
        """
        supervisor = self._supervisor
        with self._holding:
            self._closed = True
            if not supervisor.forked and not self._holders:  # else who holds it last does
                supervisor.post(supervisor.close)
        if supervisor.forked:
            return
        if cancel_futures:
            supervisor.post(supervisor.cancel_pending)
            self._cancel_held()
        if wait:
            try:
                self._wait_for_holders()
                supervisor.join_all()
            except BaseException:  # KeyboardInterrupt above all
                self._kill("the executor was killed by Ctrl-C")
                raise

    def _kill(self, why: str) -> None:
        supervisor = self._supervisor
        self._closed = True
        if not supervisor.forked:
            self._cancel_held()
            supervisor.post(supervisor.kill, why)
            supervisor.join_all()

    def kill_workers(self) -> None:
        """Kill all workers, at once, and shut down: what was running fails with BrokenProcessPool, what waited is cancelled."""
        self._force("killed")

    def terminate_workers(self) -> None:
        """As `kill_workers`; workers get SIGTERM first, so that a handler of the user's can put things in order for a moment."""
        self._force("terminated")

    def _force(self, how: str) -> None:
        supervisor = self._supervisor
        self._closed = True
        self._cancel_held()
        supervisor.post(supervisor.cancel_pending)
        if how == "terminated":
            supervisor.post(supervisor.terminate)
        supervisor.post(supervisor.kill, f"the workers were {how}")

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        if exc_type is not None and not issubclass(exc_type, Exception):
            self._kill(f"the executor's block was left by {exc_type.__name__}")
        else:
            self.shutdown(wait=True)
        return None

    def statistics(self) -> PoolStatistics:
        """Return what the executor is doing and has done, as counts (`PoolStatistics`)."""
        core = self._supervisor.core
        workers = [worker for worker in list(core.workers.values()) if worker.state in (Worker.READY, Worker.RETIRING)]
        running = min(len(workers), sum(bool(worker.calls) for worker in workers) + self._supervisor.lent_calls)
        counts = self._supervisor.counts
        return PoolStatistics(
            self._max_workers, len(workers), len(workers) - running, running, len(core.pending), *counts, core.unkillable
        )

    def __repr__(self) -> str:
        core, now = self._supervisor.core, self.statistics()
        state = "broken" if core.broken and not core.killed else "shut down" if self._closed else "open"
        parts = [f"{type(self).__name__} {state}: {now.workers} of {now.max_workers} processes"]
        parts += [f"{n} {what}" for what, n in zip(now._fields[3:], now[3:], strict=True) if n]
        return f"<{', '.join(parts)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an executor cannot be pickled: make one where it is used")

    # ---- private names of the standard library that clients and its tests read

    @property
    def _processes(self) -> Any:  # type: ignore[override]  # an attribute there
        """By pid; None once the executor is shut down, as there."""
        return None if self._supervisor.ended.is_set() else self._supervisor.processes

    @property
    def _mp_context(self) -> Any:  # type: ignore[override]  # an attribute there
        import multiprocessing

        given = self._given_context
        if given is None or isinstance(given, str):
            return multiprocessing.get_context(self._start.method)
        return given

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]  # an attribute there
        return self._supervisor.core.broken or False

    @property
    def _shutdown_thread(self) -> bool:  # type: ignore[override]  # an attribute there
        return self._closed

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:  # type: ignore[override]  # an attribute there
        return None if self._supervisor.ended.is_set() else self._supervisor.thread


class _CancelsCall:
    """The owner of a batch's handle."""

    def __init__(self, call: BatchCall) -> None:
        self.call = call

    def wait_for(self, future: Future[Any], timeout: float | None) -> None:
        future._park(timeout)

    def cancelled(self, _future: Future[Any]) -> None:
        supervisor = self.call.supervisor
        supervisor.post(supervisor.cancel, self.call)


def _refuse_huge(size: int, what: str) -> None:
    """Raise if a pickle is larger than a frame may be."""
    if size > MOST - 10_000:  # what opens it, too
        from abreast.core.process_errors import TaskPickleError

        raise TaskPickleError(
            what, "", f"{size:,} bytes in one pickle; at most {MOST:,} can be sent, but for arrays, which travel beside it"
        )


def _head(batch: Batch, context: Payload | None) -> bytes:
    work = batch.work
    return opening(
        work.sent[0],
        len(batch.items),
        index=batch.start,
        box=batch.box or 0.0,
        name=work.name,
        context=context,
        attempt=batch.attempt,
    )


def _load(call: BatchCall, head: bytes, items: list[Any], work: Work, common: Common | None) -> None:
    """Put the items into the call, the quickest way that they allow."""
    star = work.star
    together = encode_plain(items, star=star)
    if together is not None:
        call.body = head + together
        call.flags |= PLAIN | (STAR if star else 0)
        return
    pickles = encode_items(items) if work.pickles_quickly else None
    if pickles is not None:
        call.body = single_body(head, pickles)
        call.flags |= SINGLE | (STAR if star else 0)
        return
    work.pickles_quickly = False  # large arrays, say, would be copied each time before that is seen
    call.body, call.buffers = body_of(head, [_encode_item(item if star else (item,), work.name, common) for item in items])


def _encode_item(args: tuple[Any, ...], name: str, common: Common | None) -> Payload:
    try:
        return encode_args(args, None, name, common=common)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # this task's, not its mates'
        return encode_not_sent(error)


def _told_item(batch: Batch, place: int) -> str:
    item = batch.items[place]
    return f"{batch.work.name}({', '.join(map(short, item)) if batch.work.star else short(item)})"


class _Start:
    """How the workers of one pool are started.

    Attributes:
        method: ``"fork"``, ``"spawn"`` or ``"forkserver"``.
        inherited: initializer and initargs, pickled; of a fork they are inherited as they are.
        common: what a fork has by name; None of fresh interpreters.
    """

    def __init__(
        self,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        method: str | None,
        *,
        threads: int,
        capture: bool,
        recycles: bool,
        preload: tuple[str, ...] = (),
    ) -> None:
        self.capture = capture
        self._initializer = initializer
        self._initargs = initargs
        self._template: Template | None = None
        self._has_launched = False
        self.inherited = contexts.Inherited()
        if method != "fork":
            try:
                self.inherited = contexts.encode_initializer(initializer, initargs)
            except (KeyboardInterrupt, SystemExit):
                raise
            except Exception:
                # Only a copy of this process can have them; as a lock of multiprocessing's default context, which tqdm hands over. Where
                # no start method is asked for, the standard library's default has always been to fork, on Linux before 3.14.
                if method is not None or recycles or preload:
                    raise
                method = "fork"
        self._guarded = guardian.Launcher(preload, _paths, threads) if method in (None, "forkserver") else None
        self.method = method or "spawn"
        self.common = Common() if method == "fork" else None

    def prepare(self) -> None:
        """In the thread of the first submit, before there are others of the pool."""
        if self.common is not None and self._template is None:
            from abreast.executors.process.template import Template

            self.common.take()
            self._template = Template(self._initializer, self._initargs, self.common)

    def launched(self) -> None:
        """Those workers have been started that were to be started at once."""
        if self._guarded is not None:
            self._guarded.have_started()

    def launch(self, number: int) -> Process:
        self._has_launched = True
        if self._template is not None:
            return self._template.launch(number, capture=self.capture)
        more: dict[str, Any] = {"capture": self.capture, "fds": self.inherited.fds, "tracker": contexts.tracker_fd()}
        if self._guarded is not None and (guardian.can_fork() or self._guarded.preload):
            try:
                return self._guarded.launch(number, **more)
            except HasThreads:
                if self._guarded.preload:
                    raise
        return Process(number, **more)

    def finish(self) -> None:
        """When all workers have ended: let go of what was kept for the next ones, which the user may wait to see collected."""
        template, self._template = self._template, None
        if self._has_launched:  # else the pool could not be started, and the next submit tries again
            self.inherited.close()
            self._initializer, self._initargs, self.inherited = None, (), contexts.Inherited()
        if template is not None:
            template.close()

    def forget(self) -> None:
        """In a forked child."""
        self.inherited.close()
        template, self._template = self._template, None
        if template is not None:
            template.forget()


def _paths() -> list[str]:
    """Return `sys.path` as it is to be in another process: the empty entry is the directory that this one is in, if that is there still."""
    if "" not in sys.path:
        return [*sys.path]
    try:
        here = os.getcwd()
    except OSError:
        return [entry for entry in sys.path if entry]
    return [entry or here for entry in sys.path]


def _boot(start: _Start, max_memory: int | None, threads: int, name: str, number: int) -> bytes:
    """Return what a worker is told at its start."""
    from multiprocessing.process import current_process

    forked = start.method == "fork"
    return pickle.dumps(
        {
            "path": _paths(),
            "argv": sys.argv,
            "max_memory": max_memory,
            "held": draining.held_signals(),
            "faulthandler": os.environ.get("PYTHONFAULTHANDLER", "1") != "0",
            "dump_signal": dump_signal(),
            "threads": threads,
            "logging": logs.configuration(),
            "capture": start.capture,
            "name": f"{name}_{number}",
            "authkey": bytes(current_process().authkey),
            "tracker": None if forked else contexts.tracker_fd(),
            "fds": tuple(start.inherited.fds),
            "initializer": start.inherited.initializer,
            "initargs": start.inherited.initargs,
        }
    )


def _let_go(supervisor_of: weakref.ref[Supervisor], _: object) -> None:
    supervisor = supervisor_of()
    if supervisor is not None and not supervisor.forked:  # of a forked child's parent: nobody would read it
        supervisor.post(supervisor.close)


def _end_of_program() -> None:
    """Let all pools finish what is queued, and wait for them; after Ctrl-C kill their workers."""
    global _program_ends
    _program_ends = True
    supervisors = [supervisor for supervisor in list(_pools) if supervisor.is_started and not supervisor.forked]
    try:
        last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if isinstance(last, KeyboardInterrupt):
            raise KeyboardInterrupt
        for pool in list(_held):
            pool._wait_for_holders()
        for supervisor in supervisors:
            supervisor.post(supervisor.close)
        for supervisor in supervisors:
            supervisor.join_all()
    except BaseException:  # Ctrl-C while it waits
        for supervisor in supervisors:
            supervisor.post(supervisor.kill, "the program was ended by Ctrl-C")
        for supervisor in supervisors:
            supervisor.join_all()
    guardian.end()


def _call(action: Callable[[], object]) -> None:
    action()


def _after_fork_in_child() -> None:
    for pool in list(_held):
        pool._holding = threading.Condition(threading.RLock())  # another thread may have held it
        pool._holders.clear()
    _held.clear()
    for supervisor in list(_pools):
        supervisor.after_fork()
        supervisor.launch.__self__.forget()  # type: ignore[attr-defined]  # _Start


# As the standard library's executors; atexit comes later, when 3.12 and later start no more threads.
threading._register_atexit(_end_of_program)  # type: ignore[attr-defined]  # private; what the standard library itself uses
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

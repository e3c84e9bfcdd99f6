"""The supervisor: one thread that owns the core, the workers' pipes and everything that is known of them.

::

    user threads ─ submit, cancel, close ─▶ inbox (SimpleQueue) + eventfd ─▶ SUPERVISOR: core, selector, descriptors
         ▲ result(): decoded here                                             │ task pipe   ──▶ worker
         └── Future, bytes ◀──────────────────────────────────────────────────┤ result pipe ◀── worker
    deliveries: runs are told ◀────────────────────────────────────────────────┤ pidfd, page
    callbacks:  futures' callbacks, log records ◀──────────────────────────────┘

It runs no code of the user's: nothing is unpickled here but plain values, by an unpickler that knows nothing else; callbacks and log handlers
have a thread of their own, and runs another.

Which lock guards what
    None. All that is here belongs to the supervisor's thread; others leave a message. `SimpleQueue.put` is reentrant, so weak references'
    callbacks, destructors and signal handlers may leave one too.

No wake-up is lost: the supervisor sets `parked`, looks at the inbox once more, and waits; who leaves a message puts it, and then writes the
eventfd if `parked` is set. Writing never blocks. A wait is capped, which is never needed (a test counts).

While nobody waits for the outcome of one call, and all workers have enough to do, it takes naps of up to `LONGEST_NAP` seconds, from which messages and deaths
wake it, and outcomes do not: with tasks of 200 us to 1 ms it would else be woken by each, for 40 us of a core that the workers need.

A turn: read pipes (at most 1 MiB each), inbox, deaths, timers, park. Reading comes before timers: after the machine has slept no
task that has ended is late.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import struct
import threading
from collections import OrderedDict
from itertools import accumulate
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any, ClassVar

from abreast.core import draining, failpoints, watch
from abreast.executors.process import core as effects
from abreast.executors.process import logs, surroundings
from abreast.executors.process.core import Died, PoolCore, ProtocolError, Worker
from abreast.executors.process.express import AT_ONCE, LOOK, READABLE, TIRED, Lane, Lanes
from abreast.executors.process.frames import BadFrame, Kind, Parser, Phase, frame
from abreast.executors.process.launch import dump_signal
from abreast.executors.process.measures import Measures
from abreast.executors.process.memory import oom_kills, resident_bytes
from abreast.executors.process.outbox import MEASURED, OBJECTS, RECORD, RECORDS, RETURN, ROWS, TIMED, TOGETHER
from abreast.executors.process.output import Output, Printer
from abreast.executors.process.page import Page
from abreast.executors.process.sending import OK, Encoded, Payload, Pickled, decode_plain, decode_rows, decode_together
from abreast.executors.process.worker import FUNCTIONS, MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from abreast.executors.process.frames import Frame
    from abreast.executors.process.launch import Process

__all__ = ["Record", "Records", "Supervisor"]

LOGGER = logging.getLogger("concurrent.futures")

CAP = 5.0
READ = 1 << 20
COPIED = 1 << 16
"""Bytes up to which what is to be written is put together first: copying them is cheaper than handing over the pieces."""
GRACE = 0.1
"""Seconds that a process may take to be gone after its pipe was closed; then it was a task that closed it."""
PATIENCE = 2.0
"""Seconds that a caller's thread may take for the few steps it is at; it needs microseconds, unless Ctrl-C has struck there twice."""
HALFWAY = 0.5
"""Seconds after which a frame that does not go on is looked at: if its worker is idle it never will, since a task has written it."""
MEMORY = 0.5
"""Seconds between two looks at the memory of workers, where there is a limit."""
SHORTEST_NAP, NAP, LONGEST_NAP = 0.001, 0.002, 0.01
"""Seconds in which outcomes gather, if nobody waits for them: at the beginning of work, and when it has lasted for ten times as long. With 10 ms
tasks of 50 and 200 us gain 2 % and more, but 20,000 tiny ones in a new pool lose a fifth: what is known of them then is spoilt by their cold beginning."""
LITTLE = 1 << 15
"""Bytes that came in a turn, up to which a nap does not let a pipe fill up."""
WITHOUT_PIDFD = 0.05
"""Seconds between two looks at processes where there is no pidfd."""


class Record:
    """The outcome of a task as a worker has sent it: bytes."""

    __slots__ = ("encoded", "seconds")

    def __init__(self, encoded: Encoded, seconds: float) -> None:
        self.encoded = encoded
        self.seconds = seconds


class Records:
    """The outcomes of some tasks in a row, all of which have returned.

    Attributes:
        seconds: what they took in all.
        results: of each what it returned, if that is a plain value, or a simple object: unpickled here, since no code of anybody's
            can run by that; else a `Pickled`, or a `Late`.
        durations: what each took, if that was asked for, or is known anyway, of a single one.
        groups: what a task took in the mean, and how many they are, of each frame that they came in.
    """

    __slots__ = ("count", "durations", "groups", "results", "seconds")

    def __init__(self, results: list[Any], seconds: float, durations: list[float] | None = None) -> None:
        self.results = results
        self.count = len(results)
        self.seconds = seconds
        self.durations = durations
        self.groups = [(seconds / self.count, self.count)]

    @classmethod
    def arrive(cls, body: bytes, flags: int) -> Records:
        """Return what a RECORDS frame says.

        Raises:
            BadFrame: it is none.
        """
        try:
            seconds, count = RECORDS.unpack_from(body)
            place = RECORDS.size
            if not 0 < count <= len(body):
                raise BadFrame(f"{count:,} outcomes in {len(body):,} bytes")
            durations = None
            if flags & TIMED:
                durations = list(struct.unpack_from(f"<{count}d", body, place))
                place += 8 * count
            results: list[Any]
            if flags & TOGETHER:
                decode = decode_rows if flags & ROWS else decode_together if flags & OBJECTS else decode_plain
                results = decode(body[place:])
                told = len(results)
            else:
                sizes = struct.unpack_from(f"<{count}I", body, place)
                place += 4 * count
                ends = list(accumulate(sizes, initial=place))
                results = list(map(Pickled, map(body.__getitem__, map(slice, ends, ends[1:]))))
                told = count if ends[-1] == len(body) else -1
        except BadFrame:
            raise
        except Exception as error:  # of struct, and whatever unpickling says to bytes that are no pickle
            raise BadFrame(f"outcomes that cannot be read: {type(error).__name__}: {error}") from error
        if told != count:
            raise BadFrame(f"{told} outcomes where {count} are told")
        return cls(results, seconds, durations)

    def add_one(self, result: Any, seconds: float) -> None:
        """Take the next one."""
        if self.durations is not None:
            self.durations.append(seconds)
        self.results.append(result)
        self.count += 1
        self.seconds += seconds
        self.groups.append((seconds, 1))

    def add(self, others: Records) -> None:
        """Take those that follow."""
        if self.durations is None or others.durations is None:
            self.durations = None  # some were not asked for
        else:
            self.durations += others.durations
        self.results += others.results
        self.count += others.count
        self.seconds += others.seconds
        self.groups += others.groups


class _Channel:
    """What the supervisor keeps of one worker."""

    __slots__ = (
        "closed_at",
        "eof",
        "functions",
        "halfway_at",
        "lane",
        "looks",
        "next_look",
        "out",
        "outputs",
        "parser",
        "process",
        "skipped",
        "watched",
        "worker",
    )

    def __init__(self, worker: Worker, process: Process) -> None:
        self.worker = worker
        self.process = process
        self.parser = Parser(Kind.OF_WORKER)
        self.out: list[Any] = []  # bytes and memoryviews of bytes that are to be written
        self.functions: OrderedDict[int, None] = OrderedDict()  # that the worker keeps, as it does
        self.eof = False
        self.watched = False
        """Whether the worker measures what its tasks take."""
        self.closed_at = 0.0
        self.halfway_at = 0.0
        """When bytes came last, if they were not the end of a frame."""
        self.lane = Lane(process.task_fd, process.result_fd, process.pidfd, self.functions)
        self.looks = 0
        """At a caller that does not let go of the lane."""
        self.next_look = 0.0
        self.skipped = 0
        """Calls of the lane that the core knows of."""
        self.outputs: dict[int, Output] = {}  # by descriptor: what its tasks print, if that is captured


class Supervisor:
    """Drives a pool until nothing is left to do.

    Args:
        core: the pool's decisions.
        boot: what a worker is told at its start, by its number; pickled when it is needed.
        launch: starts the process of the worker with this number.
        launched: called when those have been started that the core wanted at once.
        name: of the thread.
        prepare: called before the first thread is started, in the thread of the first submit.
        finish: called when all workers have ended.
    """

    def __init__(
        self,
        core: PoolCore,
        boot: Callable[[int], bytes],
        launch: Callable[[int], Process],
        *,
        name: str,
        prepare: Callable[[], object] = lambda: None,
        finish: Callable[[], object] = lambda: None,
        launched: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self.core = core
        self.boot = boot
        self.launch = launch
        self._prepare, self._finish, self._launched = prepare, finish, launched
        self._has_launched = False
        self.inbox: SimpleQueue[tuple[Callable[..., None] | None, Any]] = SimpleQueue()
        self.parked = False
        self.is_started = False
        self.owner: Any = None
        """The executor, weakly: whose end is the pool's."""
        self.forked = False
        self.is_drained = False
        self.drain_holders: Callable[[], Callable[[], object] | None] = lambda: None
        """Weakly, of the executor: drains who holds it."""
        self.ended_tasks = self.failed_tasks = self.cancelled_tasks = 0
        self.capped_waits = 0
        self.deliveries = Courier(f"{name}-deliveries")
        self.callbacks = Courier(f"{name}-callbacks")
        self._printer = Printer(self.callbacks.put)
        self.ended = threading.Event()
        self._gate = threading.Lock()  # held until everything has ended
        self._gate.acquire()
        self.epoll: select.epoll = None  # type: ignore[assignment]  # until `begin`
        self.processes: dict[int, Process] = {}
        """By pid; replaced as a whole, so that others may read it."""
        self._channels: dict[int, _Channel] = {}  # by worker's number
        self._by_fd: dict[int, tuple[str, _Channel]] = {}
        self._event = -1
        self._alarms: select.epoll = None  # type: ignore[assignment]  # until `begin`: what ends a nap
        self._busy_from = 0.0
        """Since when some worker has had something to do, all the time."""
        self._came_from = 0.0
        self._came = 0  # bytes in this turn
        self._room = memoryview(
            bytearray(1 << 18)
        )  # what is read comes here: new memory for each look at a pipe takes 10 us and more
        self._hints: dict[int, str] = {}  # by worker's number: why it was killed, if not for a limit
        self._memory_at = 0.0  # when to look at it
        self._unsent: dict[_Channel, None] = {}  # that have something to be written, at the end of the turn
        self._suspects: dict[_Channel, None] = {}  # from which perhaps nothing can come any more
        self._without_pidfd: dict[_Channel, None] = {}
        self.lanes = Lanes(self) if core.max_tasks_per_child is None and core.max_memory is None else None
        self._lent: dict[_Channel, None] = {}  # whose lanes are on offer, or with a caller
        self._adopted: dict[_Channel, None] = {}  # whose calls were adopted: a caller may still be reading the outcome
        self._express_ended = self._express_failed = 0  # of workers that are gone
        self._delivering = 0  # calls of `deliver` whose end is not known
        self._is_news = False  # outcomes have come: workers may have room
        self._oom_kills: int | None = None

    # ---- from any thread

    def begin(self) -> None:
        """Start, if that has not been done.

        All threads start here: at the end of the program 3.12 and later start none any more.

        Raises:
            BrokenProcessPool: a thread cannot be started.
        """
        if not self.is_started:
            try:
                self._prepare()
                self.epoll = select.epoll()
                self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self.epoll.register(self._event, select.EPOLLIN)
                self._alarms = select.epoll()
                self._alarms.register(self._event, select.EPOLLIN)
                self._oom_kills = oom_kills()
                self.deliveries.start()
                self.callbacks.start()
                self.thread = threading.Thread(target=self.run, name=f"{self.name}-supervisor", daemon=True)
                self.thread.start()
            except (RuntimeError, OSError) as error:  # the limits of this user, or of the container
                from concurrent.futures.process import BrokenProcessPool

                self._give_up_start()
                raise BrokenProcessPool(f"the pool cannot be started: {getattr(error, 'strerror', None) or error}") from error
            self.is_started = True

    def _give_up_start(self) -> None:
        self.deliveries.end()
        self.callbacks.end()
        self.deliveries.join()
        self.callbacks.join()
        self.deliveries, self.callbacks = Courier(self.deliveries.name), Courier(self.callbacks.name)
        self._printer = Printer(self.callbacks.put)
        self.thread = None
        self._close_own()
        self._finish()

    def _close_own(self) -> None:
        for epoll in (self.epoll, self._alarms):
            if epoll is not None:
                epoll.close()
        if self._event >= 0:
            os.close(self._event)
        self._event = -1

    def join_all(self) -> None:
        """Wait until everything has ended: workers, this thread, and the callbacks."""
        if not self.is_started:
            return
        self.wait_for_end()
        self.join()
        self.deliveries.join()
        self.callbacks.join()

    def wait_for_end(self) -> None:
        """Wait until all workers have ended.

        By a bare lock: Event.wait is Python code, in which Ctrl-C may leave its own lock in disorder. In steps: an interrupt of the main thread
        that came just before the wait would be seen only after it. `ended` decides: Ctrl-C may leave the lock taken.
        """
        while not self.ended.is_set():
            if self._gate.acquire(timeout=0.5):
                self._gate.release()

    def join(self) -> None:
        """Wait until the supervisor's own thread has ended."""
        if self.thread is not None and threading.current_thread() is not self.thread:
            self.thread.join()

    def wait_for(self, future: Any, timeout: float | None) -> None:
        """See core/future.py, Owner."""
        call = future._call
        if call is not None and call.lane is not None and self.lanes is not None:
            begun = monotonic()
            self.lanes.wait_for(call, timeout)
            if future.done():
                return
            if timeout is not None:
                timeout = max(0.0, timeout - (monotonic() - begun))
        future._park(timeout)

    def cancelled(self, future: Any) -> None:
        """See core/future.py, Owner."""
        call = future._call
        if call is not None:
            self.post(self.cancel, call)

    def refuse_late(self) -> None:
        """Settle what was posted after the end."""
        while True:
            try:
                do, what = self.inbox.get_nowait()
            except Empty:
                return
            if do is None:
                what.over(0, self.core.broken or "the executor has been shut down")
            elif do == self.cancel:
                what.cancelled()

    def after_fork(self) -> None:
        """In a forked child: this is the parent's; close what would keep its pipes open."""
        self.forked = True
        self.is_started = False
        for channel in self._channels.values():
            channel.process.forget()
        with contextlib.suppress(Exception):
            self._close_own()
        self._channels = {}
        self.processes = {}

    def post(self, do: Callable[..., None], what: Any = None) -> None:
        """Have the supervisor call ``do(what)``."""
        self.inbox.put((do, what))
        if self.parked:
            self.wake()

    def submit(self, call: Any) -> None:
        """Have it sent."""
        self.inbox.put((None, call))
        if self.parked:
            self.wake()

    def wake(self) -> None:
        try:  # noqa: SIM105  # at the very end of the program contextlib may be gone
            os.eventfd_write(self._event, 1)
        except (OSError, ValueError):  # full: it is awake; closed: it has ended
            pass

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many tasks have succeeded, failed, been cancelled."""
        states = [channel.lane.state for channel in list(self._channels.values())]
        ended = self.ended_tasks + self._express_ended + sum(state.done for state in states)
        failed = self.failed_tasks + self._express_failed + sum(state.failed for state in states)
        return ended - failed, failed, self.cancelled_tasks

    @property
    def lent_calls(self) -> int:
        """How many calls that have gone the short way the core does not know of."""
        return sum(bool(channel.lane.sent) for channel in list(self._lent))

    # ---- messages

    def cancel(self, call: Any) -> None:
        if self.core.cancel(call):
            self.cancelled_tasks += call.size
            call.cancelled()
            if self.core.closed:
                self._do(self.core.close(perf_counter()))

    def cancel_pending(self, _: Any) -> None:
        for call in list(self.core.pending):
            call.cancel()

    def halt(self, call: Any) -> None:
        """Start no further task of the call; the running one is told that it is to end, which it may ask for."""
        self._set_quiet(call, 0)
        self._do(self.core.halt(call))

    def stop(self, call: Any) -> None:
        """Start no further task of the call; the running one is to finish, and is told nothing."""
        self._set_quiet(call, 1)
        self._do(self.core.halt(call))

    def _set_quiet(self, call: Any, quiet: int) -> None:
        for channel in self._channels.values():
            page = channel.process.page
            if page is not None and any(getattr(sent.call, "call", sent.call) is call for sent in channel.worker.calls):
                page.words[Page.QUIET] = quiet

    def abandon(self, call: Any) -> None:
        """End the task of the call that is running."""
        self._do(self.core.halt(call))
        for channel in list(self._channels.values()):
            page = channel.process.page
            if page is not None and any(getattr(sent.call, "call", sent.call) is call for sent in channel.worker.calls):
                self._read(channel)
                seq, _, phase = page.read()
                self._do(self.core.abandon(channel.worker, call, seq, phase, perf_counter()))

    def deliver(self, do: Callable[[Any], object], what: Any) -> None:
        """Have the deliveries' thread call ``do(what)``, which may submit more, even if the pool has been closed meanwhile."""
        self._delivering += 1
        self.core.more_may_come = True
        self.deliveries.put(self._deliver, (do, what))

    def _deliver(self, job: tuple[Callable[[Any], object], Any]) -> None:
        do, what = job
        try:
            do(what)
        finally:
            self.post(self._delivered)

    def _delivered(self, _: Any) -> None:
        self._delivering -= 1
        if not self._delivering:
            self.core.more_may_come = False
            if self.core.closed:
                self._do(self.core.close(perf_counter()))

    def is_delivering_here(self) -> bool:
        """Whether this is the deliveries' thread: what it submits belongs to what was submitted before the pool was closed."""
        return self.deliveries.is_here()

    def close(self, _: Any) -> None:
        self._do(self.core.close(perf_counter()))

    def kill(self, why: str) -> None:
        self._do(self.core.kill(why, perf_counter()))

    def terminate(self, _: Any) -> None:
        for channel in list(self._channels.values()):
            channel.process.terminate()

    # ---- the program has been asked to end: see core/draining.py, Member. From any thread

    def drain(self) -> None:
        """What waits fails with Drained; what is with a worker goes on, and then the workers end."""
        self.is_drained = True
        drain_holders = self.drain_holders()
        if drain_holders is not None:
            drain_holders()
        self.post(self._drain)

    def _drain(self, _: Any) -> None:
        self.core.drained = True
        for channel in list(self._channels.values()):
            page = channel.process.page
            if page is not None:
                page.words[Page.DRAINED] = page.words[Page.QUIET] = 1
            for sent in list(channel.worker.calls):  # of several tasks, and amid them
                self._do(self.core.halt(getattr(sent.call, "call", sent.call)))
        for call in list(self.core.pending):
            if self.core.cancel(call):
                self.cancelled_tasks += call.size
                self._refuse_as_drained(call)
        self._do(self.core.close(perf_counter()))

    def _refuse_as_drained(self, call: Any, ran: int = 0) -> None:
        error = draining.drained(f"a task of {self.name}")
        if ran:
            error.add_note("abreast: it has run, in a process that died before what came of it was sent; it does not run again")
        getattr(call, "call", call).drained(error)

    def drop(self) -> None:
        """Kill the workers."""
        self.is_drained = True
        if self.is_working():
            self.post(self.kill, "the worker was killed: the program has been asked to end, and its time was up")
            self.ended.wait(PATIENCE)

    def is_working(self) -> bool:
        return self.is_started and not self.forked and not self.ended.is_set()

    def is_consumed(self) -> bool:
        return False

    # ---- the loop

    def run(self) -> None:
        try:
            while not self.core.is_over():
                self._turn()
        except BaseException as error:  # a bug of ours: nobody is to wait for ever
            LOGGER.critical("the supervisor of a pool of processes failed", exc_info=error)
            self._fail(error)
        finally:
            self._end()

    def _turn(self) -> None:
        events = self._wait()
        if self._lent:
            self._reclaim()
        for fd, event in events:
            what, channel = self._by_fd.get(fd, (None, None))
            if channel is None:
                if fd == self._event:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._event)
            elif what == "result":
                if channel.worker.lent:
                    sleep(0.0005)  # until the caller that is just at it has written, or has settled what it has read
                else:
                    self._read(channel)
            elif what == "task":
                self._flush(channel)
            elif what == "output":
                self._read_output(channel, fd)
            elif event and channel.worker.number in self._channels:
                self._gone(channel)
        for channel in list(self._adopted):
            self._read_after_caller(channel)
        self._take_messages()
        if self._is_news:
            self._is_news = False
            self._do(self.core.dispatch(perf_counter()))
        self._flush_unsent()
        if self._without_pidfd:
            self._look_without_pidfd()
        now = perf_counter()
        if self._suspects:
            self._look_at_suspects(now)
        if self.core.max_memory is not None and now >= self._memory_at:
            self._memory_at = now + MEMORY
            self._look_at_memory()
            now = perf_counter()
        if self.core.next_tick() <= now:
            self._do(self.core.tick(now))
        if self._is_news or self._unsent:  # of what has been read meanwhile
            self._is_news = False
            self._do(self.core.dispatch(perf_counter()))
            self._flush_unsent()

    def _wait(self) -> list[tuple[int, int]]:
        if not self.inbox.empty():
            return self.epoll.poll(0)
        if self.lanes is not None:
            self._offer(self.lanes)
        self.parked = True
        try:
            if not self.inbox.empty():
                return self.epoll.poll(0)
            limit = min(CAP, max(0.0, self.core.next_tick() - perf_counter()))
            if self._without_pidfd:
                limit = min(limit, WITHOUT_PIDFD)
            if self._suspects:
                limit = min(limit, GRACE)
            for channel in (*self._lent, *self._adopted):
                if channel.worker.lent:
                    limit = min(limit, LOOK)
                elif channel in self._adopted:
                    limit = min(limit, LOOK if channel.looks else HALFWAY)
            if self.core.max_memory is not None and self.core.is_busy():
                limit = min(limit, MEMORY)
            nap = min(limit, self._nap())
            if nap >= SHORTEST_NAP:
                begun = perf_counter()
                self._alarms.poll(nap)
                limit = max(0.0, limit - (perf_counter() - begun))
            events = self.epoll.poll(limit)
            if not events and limit == CAP and not self.inbox.empty():
                self.capped_waits += 1
            # Deaths last: what a process has written before its end comes first.
            return sorted(events, key=lambda pair: self._by_fd.get(pair[0], ("",))[0] == "pid") if len(events) > 1 else events
        finally:
            self.parked = False

    def _nap(self) -> float:
        """Return for how many seconds nothing is lost if outcomes are not read."""
        now = perf_counter()
        came, self._came = self._came, 0
        since, self._came_from = self._came_from, now
        if came > LITTLE or self._lent or self._adopted or self._suspects or self._without_pidfd:
            return 0.0
        spare: float | None = None
        for worker in self.core.workers.values():
            if worker.calls:
                if worker.state != Worker.READY or worker.handle.out:
                    return 0.0
                some = self.core.spare_time(worker, now)
                spare = some if spare is None else min(spare, some)
            elif worker.state == Worker.STARTING:
                return 0.0
        if spare is None:
            self._busy_from = now
            return 0.0
        longest = min(LONGEST_NAP, max(NAP, (now - self._busy_from) / 10))
        if came:  # no more than a pipe takes
            longest = min(longest, (now - since) * LITTLE / came)
        return min(longest, spare / 2)  # what is known of it is a mean

    def _take_messages(self) -> None:
        while not self.inbox.empty():
            do, what = self.inbox.get()
            if do is not None:
                do(what)
                del do, what
                continue
            calls = [what]
            try:
                while True:  # all that follow: tiny ones can be packed
                    do, what = self.inbox.get_nowait()
                    if do is not None:
                        break
                    calls.append(what)
            except Empty:
                do = None
            if self.is_drained:  # submitted just before that was known
                for call in calls:
                    self._refuse_as_drained(call)
            else:
                self._do(self.core.submit_all(calls, perf_counter()))
            if do is not None:
                do(what)
            del do, what, calls

    # ---- callers that take the short way

    def _offer(self, lanes: Lanes) -> None:
        core = self.core
        if core.pending or core.closed or core.broken is not None or self._suspects or self._without_pidfd:
            return
        for channel in self._channels.values():
            if len(self._lent) >= AT_ONCE:
                break
            if (
                core.is_idle(channel.worker)
                and channel not in self._lent
                and channel.parser.is_between_frames
                and not channel.eof
                and not channel.watched
            ):
                self._lent[channel] = None
                lanes.offer(channel.lane, channel.worker.sent + 1)

    def _reclaim(self) -> None:
        for channel in list(self._lent):
            self._reclaim_one(channel)

    def _reclaim_one(self, channel: _Channel) -> bool:
        """Take back a lane, and adopt its call, if it has one; False if a caller is just at it."""
        lane, worker = channel.lane, channel.worker
        assert self.lanes is not None
        free = self.lanes.take_back(lane)
        if free is None:
            if not self._is_tired_of(channel):
                worker.lent = True
                return False
            self._take_by_force(channel)
            free = not lane.sent
        channel.looks = 0
        del self._lent[channel]
        if worker.lent:
            worker.lent = False
            self._is_news = True
        seq, done, _ = lane.state
        done, channel.skipped = done - channel.skipped, done
        if free:
            self.core.skip(worker, done)
            return True
        call = lane.call
        assert call is not None
        lane.note_function(call.function)
        lane.call = call.lane = None
        call.worker = f"process {channel.process.pid}"
        self._adopted[channel] = None
        self._do(self.core.adopt(worker, call, seq, done, perf_counter()))
        return True

    def _read_after_caller(self, channel: _Channel) -> None:
        """Read what has been sent by a worker whose call was adopted; its caller may still wait for the outcome, and reads it then."""
        self._read(channel)
        if channel in self._adopted:
            lane = channel.lane
            if lane.has_come():
                if self._is_tired_of(channel):
                    self._take_by_force(channel)
                    self._read(channel)
            else:
                channel.looks = 0

    def _is_tired_of(self, channel: _Channel) -> bool:
        """Count a look at a caller that should be gone in a moment; whether that was one too many. Turns may come fast, looks do not."""
        now = monotonic()
        if now >= channel.next_look:
            channel.next_look = now + LOOK
            channel.looks += 1
        return channel.looks > TIRED

    def _take_by_force(self, channel: _Channel) -> None:
        """Go on without a caller that has been torn away at the lane."""
        channel.looks = 0
        channel.lane.reading = threading.Lock()
        with contextlib.suppress(OSError):
            self.epoll.modify(channel.process.result_fd, READABLE)

    # ---- reading

    def _read(self, channel: _Channel, patience: float = 0.0) -> bool:
        """Read what there is in a worker's pipe, at most 1 MiB, and take its frames; whether there may be more."""
        if channel.eof:
            return False
        lane = channel.lane
        if not (lane.reading.acquire(timeout=patience) if patience else lane.reading.acquire(blocking=False)):
            return False  # a caller reads, and wakes us if something is left
        try:
            self._adopted.pop(channel, None)
            return self._read_held(channel, lane.raw)
        finally:
            lane.reading.release()

    def _read_held(self, channel: _Channel, raw: list[bytes]) -> bool:
        parser, left = channel.parser, READ
        try:
            while raw:  # what a caller has read
                self._take_all(channel, parser.feed(raw.pop(0)))
            while left > 0:
                target = parser.target()
                if target is not None:
                    count = os.readv(channel.process.result_fd, [target[:left]])
                    frames = parser.filled(count)
                else:
                    asked = len(self._room)
                    count = os.readv(channel.process.result_fd, (self._room,))
                    frames = parser.feed(bytes(self._room[:count]))
                if not count:
                    self._end_of_file(channel)
                    return False
                left -= count
                self._came += count
                self._take_all(channel, frames)
                if target is None and count < asked:  # that was all: it need not be asked for, which is an exception, and 3 us
                    return self._drained(channel)
        except BlockingIOError:
            return self._drained(channel)
        except (BadFrame, ProtocolError) as error:
            self._distrust(channel, str(error))
            return False
        return True

    def _drained(self, channel: _Channel) -> bool:
        if not channel.parser.is_between_frames:
            channel.halfway_at = perf_counter()
            self._suspects[channel] = None
        elif channel.halfway_at:
            channel.halfway_at = 0.0
            self._suspects.pop(channel, None)
        return False

    def _read_output(self, channel: _Channel, fd: int) -> bool:
        """Read what a worker's tasks have printed; whether there may be more."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if data:
            channel.outputs[fd].feed(data)
        else:  # closed, by a task perhaps
            self._forget(fd)
        return bool(data)

    def _take_all(self, channel: _Channel, frames: Iterable[Frame]) -> None:
        """Take frames; outcomes that follow each other in one call are taken as one: in a nap some ten of them have gathered."""
        worker = channel.worker
        together: Records | None = None
        first = following = end = 0
        try:
            for arrived in frames:
                kind, flags, number, body, buffers = arrived
                if kind == Kind.RECORD and flags == OK and not buffers and RECORD.size <= len(body) <= COPIED:
                    (seconds,) = RECORD.unpack_from(body)
                    result = Pickled(body[RECORD.size :])
                    if together is not None and number == following < end:
                        together.add_one(result, seconds)
                        following += 1
                        continue
                    some = Records([result], seconds, [seconds])
                elif kind == Kind.RECORDS:
                    some = Records.arrive(body, flags)
                    if together is not None and number == following < end:
                        together.add(some)
                        following += some.count
                        continue
                else:
                    some = None
                if together is not None:
                    before, together = together, None
                    self._record(worker, first, before)
                if some is None:
                    self._take(channel, arrived)
                else:
                    together, first, following, end = some, number, number + some.count, worker.end_of_call(number)
        finally:  # what comes next may be none of ours: what has come before is whole
            if together is not None:
                self._record(worker, first, together)

    def _record(self, worker: Worker, first: int, some: Records) -> None:
        self._is_news = True
        self._do(
            self.core.record(
                worker, first, some, some.seconds, perf_counter(), count=some.count, groups=some.groups, dispatch=False
            )
        )

    def _take(self, channel: _Channel, arrived: Frame) -> None:
        worker, now = channel.worker, perf_counter()
        kind = arrived.kind
        if kind == Kind.RECORD:
            if len(arrived.body) < RECORD.size:
                raise BadFrame("an outcome without its opening")
            (seconds,) = RECORD.unpack_from(arrived.body)
            encoded = Encoded(arrived.flags, Payload(memoryview(arrived.body)[RECORD.size :], arrived.buffers))  # type: ignore[arg-type]  # pickle reads it as bytes
            self._is_news = True
            self._do(self.core.record(worker, arrived.number, Record(encoded, seconds), seconds, now, dispatch=False))
        elif kind == Kind.MEASURED:
            if len(arrived.body) != MEASURED.size:
                raise BadFrame("a measure of another size")
            meter = Measures(*MEASURED.unpack(arrived.body))
            for sent in worker.calls:  # whose outcomes have waited for each other
                getattr(sent.call, "call", sent.call).measured(meter)
        elif kind == Kind.OVER:
            self._do(self.core.over(worker, arrived.number, now))
        elif kind == Kind.RETURN:
            if len(arrived.body) != RETURN.size:
                raise BadFrame("tasks are given back up to no number")
            (last,) = RETURN.unpack(arrived.body)
            self._do(self.core.returned(worker, arrived.number, last, now))
        elif kind == Kind.READY:
            self._do(self.core.ready(worker, now))
        elif kind == Kind.FAILED:
            why = arrived.body.decode(errors="replace")
            why = "a worker's initializer raised an exception: " + (why.strip().splitlines() or [""])[-1]
            self._do(self.core.boot_failed(worker, why, now, final=True))
        elif kind == Kind.LOG:
            self.callbacks.put(logs.handle, arrived.body)
        elif kind == Kind.LEAVE:
            self._do(self.core.retire(worker, now))

    def _end_of_file(self, channel: _Channel) -> None:
        """The worker's end of the pipe is closed: it is about to be gone, or a task has closed it."""
        channel.eof = True
        self._forget(channel.process.result_fd)
        channel.closed_at = perf_counter()  # it has GRACE to be gone
        self._suspects[channel] = None

    def _distrust(self, channel: _Channel, why: str) -> None:
        LOGGER.error("a worker sent what it must not: %s; it is killed", why)
        self._lose(channel, why)

    def _lose(self, channel: _Channel, why: str) -> None:
        """Nothing more can be read of this worker."""
        channel.closed_at = channel.halfway_at = 0.0
        self._suspects.pop(channel, None)
        self._hints.setdefault(channel.worker.number, why)
        if not channel.eof:
            channel.eof = True
            self._forget(channel.process.result_fd)
        self._do(self.core.lost(channel.worker, perf_counter()))

    # ---- effects

    def _do(self, todo: list[Any]) -> None:
        for effect in todo:
            self._EFFECTS[type(effect)](self, effect)
        if self._has_launched:
            self._has_launched = False
            self._launched()

    def _spawn(self, effect: effects.Spawn) -> None:
        worker = effect.worker
        self._has_launched = True
        try:
            process = self.launch(worker.number)
        except OSError as error:
            why = f"a worker's process cannot be started: {error.strerror or error}"
            self._later(worker, why, final=getattr(error, "final", False))
            return
        channel = _Channel(worker, process)
        worker.handle = channel
        self._channels[worker.number] = channel
        self.processes = {**self.processes, process.pid: process}
        self._watch(process.result_fd, "result", channel, READABLE)
        if process.pidfd >= 0:
            self._watch(process.pidfd, "pid", channel, select.EPOLLIN)
        else:
            self._without_pidfd[channel] = None
        for fd, stream in ((process.out_fd, "stdout"), (process.err_fd, "stderr")):
            if fd >= 0:
                channel.outputs[fd] = Output(self._printer, stream, f"worker {worker.number}")
                self._watch(fd, "output", channel, READABLE)
        self._write(channel, frame(Kind.BOOT, body=self.boot(worker.number)))

    def _later(self, worker: Worker, why: str, *, final: bool) -> None:
        # Not now: the core is in the middle of telling us what to do.
        self.inbox.put((lambda _: self._do(self.core.boot_failed(worker, why, perf_counter(), final=final)), None))

    def _send(self, effect: effects.Send) -> None:
        channel: _Channel = effect.worker.handle
        call = effect.call
        call = getattr(call, "call", call)  # of one that is sent again
        parts: list[Any] = []
        if channel.watched != bool(watch.active):
            channel.watched = not channel.watched
            parts += frame(Kind.WATCH, int(channel.watched))
        functions = channel.functions
        if call.function in functions:
            functions.move_to_end(call.function)
        else:
            parts += frame(Kind.DEFINE, call.function, call.definition)
            functions[call.function] = None
            if len(functions) > FUNCTIONS:
                functions.popitem(last=False)
        body, buffers = call.frames()
        if effect.most:
            packed, place = MOST
            body = body[:place] + packed.pack(effect.most) + body[place + packed.size :]
        parts += frame(Kind.CALL, effect.first, body, buffers, call.flags)
        call.worker = f"process {channel.process.pid}"
        call.sent_to(channel.process.page, effect.first)
        self._write(channel, parts)

    def _write(self, channel: _Channel, parts: list[Any]) -> None:
        """Have it written at the end of this turn: several calls to one worker are one write."""
        channel.out += parts
        self._unsent[channel] = None

    def _flush_unsent(self) -> None:
        while self._unsent:
            channel, _ = self._unsent.popitem()
            if not self._flush(channel):
                self._watch(channel.process.task_fd, "task", channel, select.EPOLLOUT)

    def _flush(self, channel: _Channel) -> bool:
        """Write what there is to write, as far as the pipe takes it; whether that was all."""
        out, fd = channel.out, channel.process.task_fd
        if len(out) > 1 and sum(map(len, out)) <= COPIED:
            out[:] = [b"".join(out)]
        try:
            while out:
                count = os.write(fd, out[0]) if len(out) == 1 else os.writev(fd, out[:64])
                done = 0
                while done < len(out) and count >= len(out[done]):
                    count -= len(out[done])
                    done += 1
                del out[:done]
                if count:
                    out[0] = memoryview(out[0])[count:]
        except BlockingIOError:
            return False
        except BrokenPipeError:  # it is gone, which its pidfd will say
            out.clear()
        self._forget(fd)
        return True

    def _halt(self, effect: effects.Halt) -> None:
        page = effect.worker.handle.process.page
        if page is not None:
            page.words[Page.HALT] = effect.first

    def _retire(self, effect: effects.Retire) -> None:
        self._write(effect.worker.handle, frame(Kind.RETIRE))

    def _look(self, effect: effects.Look) -> None:
        worker = effect.worker
        channel: _Channel = worker.handle
        self._read(channel)  # first: an outcome that has been sent counts
        if worker.number in self._channels and channel.process.page is not None:
            seq, start, phase = channel.process.page.read()
            self._do(self.core.page(worker, seq, start, phase, perf_counter()))

    def _peek(self, effect: effects.Peek) -> None:
        worker = effect.worker
        channel: _Channel = worker.handle
        self._read(channel)
        if worker.number in self._channels and channel.process.page is not None:
            seq, _, _ = channel.process.page.read()
            self._do(self.core.peeked(worker, seq, perf_counter()))

    def _ask(self, effect: effects.Ask) -> None:
        process = effect.worker.handle.process
        if process.page is not None:
            process.page.words[Page.LAST] = effect.last
        process.signal(signal.SIGCONT)  # which does nothing to a process that goes on, but for what worker.py does

    def _dump_stack(self, effect: effects.DumpStack) -> None:
        effect.worker.handle.process.signal(dump_signal())

    def _stop(self, effect: effects.Stop) -> None:
        channel: _Channel = effect.worker.handle
        channel.process.signal(signal.SIGSTOP)
        deadline = perf_counter() + 0.02
        while not channel.process.is_stopped() and perf_counter() < deadline:
            pass  # 7 us in the median
        self._read(channel)
        page = channel.process.page
        if effect.worker.number in self._channels and page is not None:
            seq, start, phase = page.read()
            self._do(self.core.stopped(effect.worker, seq, start, phase, perf_counter()))

    def _continue(self, effect: effects.Continue) -> None:
        effect.worker.handle.process.signal(signal.SIGCONT)

    def _kill(self, effect: effects.Kill) -> None:
        channel: _Channel | None = effect.worker.handle
        if channel is not None:
            channel.process.kill()

    def _resolve(self, effect: effects.Resolve) -> None:
        call, place, what, offset, count = effect
        self.ended_tasks += count
        if type(what) is not Records and (type(what) is not Record or what.encoded.status):
            self.failed_tasks += 1
        if failpoints.hit is not None:
            failpoints.hit("parent.before_resolve")
        getattr(call, "call", call).resolve(place, what, offset, count)
        if failpoints.hit is not None:
            failpoints.hit("parent.after_resolve")

    def _over(self, effect: effects.Over) -> None:
        call = effect.call
        bare = getattr(call, "call", call)
        if self.core.drained and effect.why is None and bare.resends and not effect.place:  # its worker had not begun it
            self._refuse_as_drained(bare, effect.ran)
        else:
            bare.over(effect.place, effect.why, effect.ran)

    def _back(self, effect: effects.Back) -> None:
        effect.call.give_back(effect.place)

    def _broken(self, effect: effects.Broken) -> None:
        pass  # each call is told by its Over

    def _warn(self, effect: effects.Warn) -> None:
        LOGGER.warning("%s", effect.text)

    # ---- deaths

    def _look_at_suspects(self, now: float) -> None:
        """End workers from which nothing more can come: a task has closed their pipe, or has written half a frame into it."""
        for channel in list(self._suspects):
            if channel.closed_at and now - channel.closed_at > GRACE:
                self._lose(channel, "the task closed the worker's channel")
            elif channel.halfway_at and now - channel.halfway_at > HALFWAY and channel.worker.calls:
                channel.halfway_at = now
                page = channel.process.page
                if page is not None and page.read()[2] == Phase.IDLE and not self._read(channel) and channel.halfway_at:
                    self._distrust(channel, "half a frame")

    def _look_at_memory(self) -> None:
        for channel in list(self._channels.values()):
            worker, page = channel.worker, channel.process.page
            if not worker.calls or page is None:
                continue
            used = resident_bytes(channel.process.pid)
            if used > (self.core.max_memory or 0):
                self._read(channel)
                seq, _, phase = page.read()
                self._do(self.core.memory(worker, seq, phase, used, perf_counter()))

    def _look_without_pidfd(self) -> None:
        for channel in list(self._without_pidfd):
            if channel.process.has_ended():
                self._gone(channel)

    def _gone(self, channel: _Channel) -> None:
        """A process has ended: drain its pipe, end its group, take its status, and say what is known."""
        process, worker = channel.process, channel.worker
        deadline = monotonic() + PATIENCE
        while channel in self._lent and not self._reclaim_one(channel) and monotonic() < deadline:
            sleep(0.0005)  # a caller is just at it: its write fails, or it reads the end of the file
        while not channel.eof and self._read(
            channel, PATIENCE
        ):  # never wait for the end of the file: a grandchild may hold the pipe
            pass
        process.kill_group()
        for fd, output in channel.outputs.items():
            for _ in range(64):  # what the pipe holds; a process that left the group may go on writing for ever
                if not self._read_output(channel, fd):
                    break
            output.end()
        page = (0, 0.0, Phase.IDLE)
        if process.page is not None:
            page = process.page.read()
            surroundings.note(process.page.words[Page.OURS])
        status, peak = process.reap()
        hint = self._hints.pop(worker.number, "")
        hint = process.hint or hint
        if not hint and status == -signal.SIGKILL and worker.state != Worker.DYING:
            hint = self._why_killed()
            if peak:
                hint += f"; peak memory {peak / 1e3:,.0f} MB"
        seq, start, phase = page
        died = Died(status, phase, seq, start, process.stack(), hint)
        # Nobody reads or writes it any more: the numbers of its descriptors will belong to others.
        channel.lane.reading.acquire(timeout=PATIENCE)
        self._express_ended += channel.lane.state.done
        self._express_failed += channel.lane.state.failed
        del self._channels[worker.number]
        for watched in (self._unsent, self._suspects, self._without_pidfd, self._lent, self._adopted):
            watched.pop(channel, None)
        for fd in (process.result_fd, process.task_fd, process.pidfd, *channel.outputs):
            self._forget(fd)
        self.processes = {pid: one for pid, one in self.processes.items() if one is not process}
        process.close()
        self._do(self.core.exited(worker, died, perf_counter()))

    def _why_killed(self) -> str:
        """Return who may have sent SIGKILL, which was not we."""
        before, self._oom_kills = self._oom_kills, oom_kills()
        if before is None or self._oom_kills is None:
            return "perhaps out of memory"
        return "kernel OOM killer" if self._oom_kills > before else "killed from outside; the kernel's OOM killer was not at work"

    # ---- descriptors

    def _watch(self, fd: int, what: str, channel: _Channel, events: int) -> None:
        if fd not in self._by_fd:
            self._by_fd[fd] = (what, channel)
            self.epoll.register(fd, events)
            if what == "pid":
                self._alarms.register(fd, events)

    def _forget(self, fd: int) -> None:
        found = self._by_fd.pop(fd, None)
        if found is not None:
            with contextlib.suppress(OSError):
                self.epoll.unregister(fd)
            if found[0] == "pid":
                with contextlib.suppress(OSError):
                    self._alarms.unregister(fd)

    # ---- the end

    def _fail(self, error: BaseException) -> None:
        with contextlib.suppress(Exception):
            self._do(self.core.fail(f"the supervisor failed: {error!r}", perf_counter()))
        for channel in list(self._channels.values()):
            with contextlib.suppress(Exception):
                channel.process.kill()
                channel.process.reap()
                channel.process.close()

    def _end(self) -> None:
        self.parked = False
        if self.lanes is not None:
            self.lanes.offers.clear()
        self._close_own()
        for channel in self._channels.values():  # of workers that could not begin, or that cannot be killed
            channel.process.kill()
        for channel in self._channels.values():
            channel.process.end(within=0.25)
        self._channels = {}
        with contextlib.suppress(Exception):
            self._finish()
        self.ended.set()
        self._gate.release()
        self.refuse_late()
        self.deliveries.end()
        self.callbacks.end()

    _EFFECTS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        effects.Spawn: _spawn,
        effects.Send: _send,
        effects.Halt: _halt,
        effects.Retire: _retire,
        effects.Look: _look,
        effects.DumpStack: _dump_stack,
        effects.Peek: _peek,
        effects.Ask: _ask,
        effects.Stop: _stop,
        effects.Continue: _continue,
        effects.Kill: _kill,
        effects.Resolve: _resolve,
        effects.Back: _back,
        effects.Over: _over,
        effects.Broken: _broken,
        effects.Warn: _warn,
    }


class Courier:
    """A thread that calls what it is given, in order. What a call raises is logged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: SimpleQueue[tuple[Callable[[Any], object], Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = (
            None  # until it starts: multiprocessing's and CPython's tests look at all there are
        )

    def start(self) -> None:
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        thread.start()
        self._thread = thread

    def is_here(self) -> bool:
        return self._thread is threading.current_thread()

    def put(self, do: Callable[[Any], object], what: Any) -> None:
        """Have ``do(what)`` called."""
        self._queue.put((do, what))

    def end(self) -> None:
        """End after what has been put."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the end, if it has begun."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            do, what = job
            try:
                do(what)
            except BaseException:
                LOGGER.exception("an exception in %s", self.name)
            del job, do, what

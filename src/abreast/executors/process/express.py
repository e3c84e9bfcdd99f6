"""The short way for a call and its result, when a worker is idle: no thread of ours in between.

::

    the usual way    caller ─▶ inbox ─▶ supervisor ─▶ task pipe ─▶ worker ─▶ result pipe ─▶ supervisor ─▶ caller     4 threads woken
    the short way    caller ──────────────────────▶ task pipe ─▶ worker ─▶ result pipe ──────────────────▶ caller     2

    supervisor, before it waits:  offers[lane] ──────┐
    submit:       takes a lane, writes the call      │ lane.sent      the worker runs it, the supervisor sleeps
    result:       reads the outcome, settles it      │ lane.state     and the lane is on offer again
    supervisor, when anything wakes it: takes back what is on offer; a lane that has a call is *adopted*: from then on the call is the
                  core's, as if it had been submitted the usual way.

Who may do what
    `offers` hands a lane to one thread. Only that thread writes to the worker, until the lane is on offer again, or adopted.
    `lane.claim` holds one token. Whoever takes it decides what becomes of the call: its waiting thread (which then settles it), or the
        supervisor (which then adopts it). `lane.reading` guards the result pipe: its holder reads, and puts what it reads into `lane.raw`.
    Limits, memory, recycling need the supervisor to know of a call, so pools with those have no short way.

Ctrl-C may strike between any two steps of the main thread, in a handler too. So each step that must not be torn apart is *one* call of a C function, which
takes from one place and puts into another (``raw.extend(map(os.read, …))``), and what it has put tells the handler how far it came.
Rejected: callers that drive the core themselves, under a lock: Ctrl-C would leave the core half changed.

A thread that has taken a lane and has not yet written is only microseconds from doing so; the supervisor then leaves that worker alone
for this turn (`Worker.lent`), and is woken when the lane is on offer again (`lane.wanted`). If that does not happen for `TIRED` looks, two
strokes of Ctrl-C within microseconds have torn the caller away, and the supervisor goes on without it.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from itertools import islice
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.future import STEP
from abreast.executors.process.cores import usable_cores
from abreast.executors.process.frames import HEADER, Kind, frame
from abreast.executors.process.outbox import RECORD
from abreast.executors.process.sending import OK, Encoded, Payload
from abreast.executors.process.worker import AWAKE, FUNCTIONS, QUICK

if TYPE_CHECKING:
    from collections import OrderedDict

    from abreast.executors.process.futures import FutureCall

__all__ = ["AT_ONCE", "LOOK", "READABLE", "TIRED", "Lane", "Lanes"]

READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
MOST_AT_ONCE = 4096
"""Bytes that a pipe takes at once, or none (PIPE_BUF)."""
LARGEST = 3500
"""Bytes of arguments and function from which it is not even tried."""
LOOK = 0.005
"""Seconds between two looks at a caller that should be gone in a moment."""
TIRED = 400
"""Such looks. Not simply seconds, which pass while the program is stopped."""
AT_ONCE = 4
"""Lanes that are on offer at most: so many callers can make use of it, more only cost the supervisor time."""


class _State(NamedTuple):
    """Of a lane; replaced as a whole."""

    seq: int  # the number of the next task
    done: int  # calls that have gone the short way
    failed: int  # of these


class Lane:
    """The short way to one worker."""

    __slots__ = (
        "call",
        "claim",
        "functions",
        "is_quick",
        "poll",
        "raw",
        "reading",
        "result_fd",
        "sent",
        "state",
        "task_fd",
        "wanted",
    )

    def __init__(self, task_fd: int, result_fd: int, pidfd: int, functions: OrderedDict[int, None]) -> None:
        self.task_fd = task_fd
        self.result_fd = result_fd
        self.functions = functions
        """Numbers of the functions that the worker keeps; see supervisor.py."""
        self.state = _State(1, 0, 0)
        self.call: FutureCall | None = None
        self.sent: list[int] = []
        """Not empty: `call` has been written."""
        self.claim = [True]
        self.raw: list[bytes] = []
        """What has been read and is not yet with the parser, or settled."""
        self.reading = threading.Lock()
        self.wanted = False
        self.is_quick = True
        """Whether the last outcome came at once."""
        self.poll = select.poll()
        self.poll.register(result_fd, select.POLLIN)
        if pidfd >= 0:  # a process that the task has left behind may hold the pipe open when the worker is gone
            self.poll.register(pidfd, select.POLLIN)

    def bytes_of(self, call: FutureCall) -> bytes:
        """Return the frames that the call is."""
        body, _ = call.frames()
        parts = frame(Kind.CALL, self.state.seq, body, (), call.flags)
        if call.function not in self.functions:
            parts = [*frame(Kind.DEFINE, call.function, call.definition), *parts]
        return b"".join(parts)

    def note_function(self, number: int) -> None:
        """The worker has been told of this function, if it had not it already."""
        functions = self.functions
        functions[number] = None
        functions.move_to_end(number)
        if len(functions) > FUNCTIONS:
            functions.popitem(last=False)

    def has_come(self) -> bool:
        """Whether something has been read, or can be."""
        if self.raw:
            return True
        poll = select.poll()  # not `self.poll`: a caller may be in it
        poll.register(self.result_fd, select.POLLIN)
        return bool(poll.poll(0))

    def outcome(self) -> tuple[Encoded, float] | None:
        """Return what has been read, if it is the outcome of the call and nothing else."""
        if len(self.raw) != 1:
            return None
        data = self.raw[0]
        if len(data) < HEADER.size + RECORD.size:
            return None
        size, kind, status, buffers, seq = HEADER.unpack_from(data)
        if kind != Kind.RECORD or buffers or seq != self.state.seq or len(data) != HEADER.size + size:
            return None
        (seconds,) = RECORD.unpack_from(data, HEADER.size)
        return Encoded(status, Payload(memoryview(data)[HEADER.size + RECORD.size :])), seconds  # type: ignore[arg-type]  # pickle reads it as bytes


class Lanes:
    """The lanes of one pool that are on offer.

    Args:
        supervisor: has ``wake()``, and ``epoll``, which wakes it by what comes from the workers.
    """

    def __init__(self, supervisor: Any) -> None:
        self.offers: deque[Lane] = deque()
        self._supervisor = supervisor
        self._spins = usable_cores() > 1

    def send(self, call: FutureCall) -> bool:
        """Write the call to an idle worker; False if it has to go the usual way."""
        offers = self.offers
        if not offers or (call.payload is not None and call.payload[1]) or call.weight + len(call.definition) > LARGEST:
            return False
        taken: list[Lane] = []
        try:
            taken.extend(islice(iter(offers.pop, None), 1))  # IndexError: another thread was faster
            lane = taken[0]
            call.claim()  # its future is new: nobody can have cancelled it
            data = lane.bytes_of(call)
            if len(data) > MOST_AT_ONCE:
                raise OSError
            lane.call = call
            call.lane = lane
            lane.sent.extend(map(os.write, (lane.task_fd,), (data,)))
        except BaseException as error:
            if taken and not taken[0].sent:
                lane = taken[0]
                call.lane = lane.call = None
                self._give_back(lane)
            if isinstance(error, (IndexError, OSError)):  # OSError: too large, or the worker is gone, or does not read
                return False
            raise
        return True

    def wait_for(self, call: FutureCall, timeout: float | None) -> None:
        """Read the outcome of a call that has gone the short way; returns when the call is settled, or is the supervisor's business."""
        lane, supervisor = call.lane, self._supervisor
        if lane is None:
            return
        modify, fd, release = supervisor.epoll.modify, lane.result_fd, lane.reading.release
        held: list[bool] = []
        mine: list[bool] = []
        back: list[None] = []
        settled: _State | None = None
        try:
            held.extend(map(lane.reading.acquire, (False,)))
            if not held[0] or lane.call is not call or not lane.claim:
                return
            modify(fd, 0)  # the supervisor need not wake up for it
            self._wait(lane, timeout)
            lane.raw.extend(map(os.read, (fd,), (1 << 16,)))  # BlockingIOError: the time is up
            outcome = lane.outcome()
            if outcome is None:
                return  # something else has come, or not all of it
            mine.extend(islice(iter(lane.claim.pop, None), 1))  # IndexError: it has been adopted
            encoded, _ = outcome
            call.future._settle(encoded, None)
            lane.note_function(call.function)
            state = lane.state
            lane.state = settled = _State(state.seq + 1, state.done + 1, state.failed + (encoded.status != OK))
            self._clear(lane)
            back.extend(map(self.offers.append, (lane,)))
        except (OSError, IndexError):
            pass
        finally:
            # Each step in a `finally` of its own, and no function of ours in the last two: Ctrl-C may come here too.
            try:
                if mine and not back:  # Ctrl-C has struck
                    self._undo(lane, settled)
            finally:
                try:
                    if held and held[0]:
                        modify(fd, READABLE)
                except (OSError, ValueError):  # the worker is gone, or the pool
                    pass
                finally:
                    if held and held[0]:
                        release()
            if lane.raw or lane.wanted or not (back or call.future.done()):
                supervisor.wake()

    def _wait(self, lane: Lane, timeout: float | None) -> None:
        """Wait until something can be read: awake for a moment, if the last outcome came at once (see worker.py)."""
        poll = lane.poll.poll
        begin = now = perf_counter_ns()
        if self._spins and lane.is_quick:
            until = begin + AWAKE
            while now < until:
                if poll(0):
                    lane.is_quick = now - begin < QUICK
                    return
                now = perf_counter_ns()
        # In steps, as `acquire_patiently` waits.
        deadline = begin + int(1e9 * (1e9 if timeout is None else min(timeout, 1e9)))
        while not poll(1000 * min(STEP, max(0.0, (deadline - perf_counter_ns()) / 1e9))) and perf_counter_ns() < deadline:
            pass
        lane.is_quick = perf_counter_ns() - begin < QUICK

    def _undo(self, lane: Lane, settled: _State | None) -> None:
        if lane.state is settled:
            self._clear(lane)
            self.offers.append(lane)
        else:
            lane.claim.append(True)  # the supervisor adopts it

    def _clear(self, lane: Lane) -> None:
        lane.raw.clear()
        lane.call = None
        lane.sent.clear()
        if not lane.claim:
            lane.claim.append(True)

    def _give_back(self, lane: Lane) -> None:
        self.offers.append(lane)
        if lane.wanted:
            self._supervisor.wake()

    # ---- for the supervisor

    def offer(self, lane: Lane, seq: int) -> None:
        """Have callers use the lane; `seq` is the number of its next task."""
        lane.state = lane.state._replace(seq=seq)
        lane.wanted = False
        self._clear(lane)
        self.offers.append(lane)

    def take_back(self, lane: Lane) -> bool | None:
        """Return True if the lane was on offer, False if its call is to be adopted, None if a thread is just at it."""
        try:
            self.offers.remove(lane)
            return True
        except ValueError:
            pass
        lane.wanted = True
        if not lane.sent:
            return self._was_given_back(lane)
        try:
            lane.claim.pop()
        except IndexError:
            return self._was_given_back(lane)
        if not lane.sent:  # settled meanwhile, and its token put back
            lane.claim.append(True)
            return self._was_given_back(lane)
        return False

    def _was_given_back(self, lane: Lane) -> bool | None:
        try:  # once more: it may have been given back before `wanted` was seen
            self.offers.remove(lane)
        except ValueError:
            return None
        return True

"""`PoolCore`: what a pool of processes does about everything that happens to it; no I/O, no clock, no thread, no lock.

Events go in, effects come out, in the order they are to be done. The supervisor (supervisor.py) feeds it from pipes, pids and its
inbox; a seeded simulator in the tests feeds it from a random number, so the very code that runs in production is tested::

    submit  cancel  ready  record  over  returned  exited  boot_failed  lost  page  peeked  stopped  memory  halt  abandon  tick  close  kill
        └──────────────────────────────┬──────────────────────────────────────────────┘
                                   PoolCore
        ┌──────────────────────────────┴──────────────────────────────────────────────┐
    Spawn  Send  Halt  Retire  Look  Peek  Ask  DumpStack  Stop  Continue  Kill  Resolve  Back  Over  Broken  Warn

A task's place, at any moment exactly one of
    pending (in the deque), with a worker (in the `Sent` of its call), or out (resolved, or handed back by `Over` or `Back`).
    A call that its worker never began goes back to the front of the deque, or to whoever sent it if that is a run. So do tiny tasks that
    have run, and whose outcomes were not sent when their worker died (outbox.py): the only ones that run twice.

A worker's life
    STARTING → READY → RETIRING → gone; DYING from the moment that it is told to die. READY is idle if it has no call, and that is all that
    being idle is: no token is counted (gh-115634: hangs in the standard library from 3.11 to 3.15b3).
    Every worker has a number of its own, never used again: whatever comes late, of one that is gone, is known and dropped.

A limit
    The supervisor looks at the worker's page when the running task may be over its limit. Twice the same task, a millisecond apart:
    its stack is asked for, it is stopped, looked at for a last time, and killed, or goes on if it has ended meanwhile. So no
    task is killed for the limit of another.

What is kept back
    Outcomes of tiny tasks may wait in a worker while it is at a later one, which may take long, or wait for whoever gets them. So its page
    is looked at when nothing has come for a moment, and if it shows a later task than the one whose outcome is due, the worker is asked.

What stands behind a long task
    waits for its end, while others may have nothing to do. Then the worker is asked for that, too, and says itself, amid the task, which
    ones it will not begin (`returned`): so none begins twice. They go to the others.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.executors.process.frames import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol, TypeAlias

    class Call(Protocol):
        """What travels to a worker: some tasks of one function.

        Attributes:
            size: how many tasks.
            limit: seconds that each may take, or None.
            resends: whether a task that has not begun goes to another worker, if the call is of one task; else all that have not are
                handed back by `Over`.
            each: whether each outcome is sent before the next task begins.
            packs: whether it may travel together with others of its function: a call of one task. See `PoolCore._pack`. What they
                travel as has ``shorten(place)``: those from there on are no longer in it.
            urgency: 2 if somebody may wait for this very outcome; of a run 1 if somebody waits for its next one, else 0.
            parts: the calls that are packed in this one, each of one task; empty if it is none of that kind.
            function: which function it is of; calls that have none are of one kind.
            deaths: how many workers have died with it at hand before they began it. Counted here; kept by the call, since what is
                handed back comes again as another one.
        """

        size: int
        limit: float | None
        resends: bool
        deaths: int

        packs: bool
        parts: Any

        @property
        def urgency(self) -> int: ...

        def claim(self) -> bool:
            """Whether it is still wanted, now that it is to be sent; asked once."""


__all__ = [
    "BEGIN_TIMES",
    "BOOT_TIMES",
    "Ask",
    "Back",
    "Broken",
    "Continue",
    "Crashed",
    "Died",
    "DumpStack",
    "Halt",
    "Kill",
    "Limits",
    "Look",
    "Over",
    "OverMemory",
    "Peek",
    "PoolCore",
    "Resolve",
    "Retire",
    "Send",
    "Spawn",
    "Stop",
    "TimedOut",
    "Warn",
    "Worker",
]

BOOT_TIMES = 3
"""Starts in a row that may fail before the pool is broken; with other workers at work it goes on with those, and tries again later."""
FUNCTIONS = 1000
"""Functions whose times are remembered."""
BEGIN_TIMES = 3
"""Workers that may die with a call at hand before they begin it; then it is the call that kills them: too large to be read, say."""


class Limits(NamedTuple):
    """Numbers that the simulator draws at random, absurd ones too. Seconds.

    Attributes:
        boot: for a worker to be ready, and to unpickle a function.
        second_look: between the two looks at a task over its limit.
        dump: to write down the stack.
        stop: for a stopped process to stand still.
        dead: for a killed process to be gone, before it is given up as one that cannot be killed.
        retire: for a worker that was told to end, before it is killed.
        short: mean time of tasks up to which a second call is sent ahead.
        tiny: mean time up to which several are.
        ahead: work that is sent ahead then.
        most_ahead: calls that a worker may have.
        most_packed, heaviest: calls that may be packed into one, and bytes.
        patience: in which nothing comes of a worker that is at work, before its page is looked at.
    """

    boot: float = 60.0
    second_look: float = 0.001
    dump: float = 0.02
    stop: float = 0.02
    dead: float = 0.25
    retire: float = 5.0
    short: float = 0.005
    tiny: float = 0.0005
    ahead: float = 0.002
    most_ahead: int = 64
    most_packed: int = 500
    heaviest: int = 1 << 16
    patience: float = 0.01


# ---- what became of a task, where a worker did not say it itself


class Died(NamedTuple):
    """How a worker ended.

    Attributes:
        status: exit code; negative is a signal; None is not known.
        phase: what it was at.
        seq: the number of the task that it was at; 0 is none.
        start: when that began, on the clock of `tick`.
        stack: where it was, if that is known.
        hint: why it may have died.
    """

    status: int | None = None
    phase: int = Phase.IDLE
    seq: int = 0
    start: float = 0.0
    stack: str = ""
    hint: str = ""


class Crashed(NamedTuple):
    """The task was running when its worker died."""

    worker: Worker
    died: Died
    after: float


class TimedOut(NamedTuple):
    """The task was over its limit, and its worker was killed."""

    worker: Worker
    died: Died
    limit: float
    after: float


class OverMemory(NamedTuple):
    """The worker had taken so much memory that it was killed at the task."""

    worker: Worker
    died: Died
    used: int
    limit: int
    after: float


# ---- effects


class Spawn(NamedTuple):
    """Start its process."""

    worker: Worker


class Send(NamedTuple):
    """Write the call to its pipe. `most` is how many of its tasks the worker may run before it hands back the rest; 0 is all."""

    worker: Worker
    call: Any
    first: int  # the number of its first task
    most: int = 0


class Halt(NamedTuple):
    """Have it start no further task of the call that it is at."""

    worker: Worker
    first: int


class Retire(NamedTuple):
    """Tell it to end when it has done what it has."""

    worker: Worker


class Look(NamedTuple):
    """Read its page, and call `PoolCore.page`."""

    worker: Worker


class Peek(NamedTuple):
    """Read its page, and call `PoolCore.peeked`."""

    worker: Worker


class Ask(NamedTuple):
    """Have it send what it keeps back, although it is at a task; and give back what it has not begun, up to task number `last` (0: nothing)."""

    worker: Worker
    last: int = 0


class DumpStack(NamedTuple):
    """Have it write down where it is."""

    worker: Worker


class Stop(NamedTuple):
    """Stop it, and call `PoolCore.stopped` when it stands still."""

    worker: Worker


class Continue(NamedTuple):
    """Let it go on."""

    worker: Worker


class Kill(NamedTuple):
    """Kill it, and all that it has started; call `PoolCore.exited` when it is gone."""

    worker: Worker


class Resolve(NamedTuple):
    """What came of `number` tasks of a call from `place` on.

    `what` is what came from the worker, of which these are those from `offset` on; or Crashed, TimedOut, OverMemory, of one task. That one may
    be behind others whose outcomes were not sent; they are handed back by the `Over` that follows.
    """

    call: Any
    place: int
    what: Any
    offset: int = 0
    number: int = 1


class Over(NamedTuple):
    """Nothing more comes of the call; tasks from `place` on are handed back, but for one that was lost (`Resolve`).

    The first `ran` of them have run, and what came of it was not sent; the others have not begun. `why` is the pool's failure, if
    that is the reason.
    """

    call: Any
    place: int
    why: str | None
    ran: int = 0


class Back(NamedTuple):
    """Tasks of a call from `place` on are handed back, and have not begun; it goes on with those before."""

    call: Any
    place: int


class Broken(NamedTuple):
    """The pool is broken, for this reason."""

    why: str


class Warn(NamedTuple):
    """Tell the user."""

    text: str


if TYPE_CHECKING:
    Effect: TypeAlias = (
        Spawn
        | Send
        | Halt
        | Retire
        | Look
        | Peek
        | Ask
        | DumpStack
        | Stop
        | Continue
        | Kill
        | Resolve
        | Back
        | Over
        | Broken
        | Warn
    )


class Sent:
    """A call that is with a worker."""

    __slots__ = ("call", "counted", "done", "first", "halted", "long", "size")

    def __init__(self, call: Any, first: int) -> None:
        self.call = call
        self.first = first
        self.size: int = call.size
        """Tasks of it that are with the worker, or were: less than it has if some have been given back."""
        self.halted = False
        self.long = False
        """Whether, when it was sent, its tasks were not known to be short."""
        self.done = 0
        """Tasks whose outcome has come."""
        self.counted = 0
        """How many of its tasks are counted as given to the worker (`Worker.left`)."""


class Worker:
    """One process, from the wish to have it to its end."""

    STARTING, READY, RETIRING, DYING, GONE = range(5)
    # how far the end of a task over its limit has come
    SUSPECTED, DUMPED, STOPPED, KILLED = range(1, 5)

    __slots__ = (
        "abandoned", "ask_at", "busy_since", "calls", "due", "ending", "handle", "last", "left", "lent", "lost", "memory", "number", "over_limit", "sent",
        "state", "tasks",
    )  # fmt: skip

    def __init__(self, number: int, left: int | None, due: float) -> None:
        self.number = number
        self.state = Worker.STARTING
        self.calls: deque[Sent] = deque()
        self.sent = 0
        """Tasks sent to it so far: the next one's number is one more."""
        self.last = 0
        """The number of the last task whose outcome has come."""
        self.tasks = 0
        self.left = left
        """How many more tasks it may be given."""
        self.due = due
        """When something has to be done about it; `inf` is never."""
        self.ending = 0
        self.over_limit = 0
        """The number of the task that is looked at, or killed, because of its limit, or of the memory."""
        self.memory = 0
        """Bytes that it had taken when it was found to be too many; 0 is not found."""
        self.lent = False
        """Whether a caller is just at it, by the short way (express.py)."""
        self.abandoned = False
        """Whether its task is to be ended because nobody wants the outcome."""
        self.ask_at = _NEVER
        """When to look whether it keeps outcomes back."""
        self.lost = False
        """Whether what it sends cannot be read, or believed, any more."""
        self.busy_since = 0.0
        """When its first call was sent to it, or the last outcome came: so long at least it is at its task."""
        self.handle: Any = None
        """The supervisor's; None has no process."""

    def due_next(self) -> int:
        """Return the number of the task whose outcome is due; 0 is none."""
        return self.calls[0].first + self.calls[0].done if self.calls else 0

    def due_count(self, most: int) -> int:
        """Return of how many tasks in a row outcomes may come together, up to about `most`."""
        due, count = self.due_next(), 0
        for sent in self.calls:
            if sent.first + sent.done != due + count or count >= most:  # a call before it was ended early
                break
            count += sent.size - sent.done
        return count

    def at(self, seq: int) -> Sent | None:
        """Return the call that task number `seq` is of, if its outcome has not come."""
        for sent in self.calls:
            if sent.first + sent.done <= seq < sent.first + sent.size:
                return sent
        return None

    def end_of_call(self, seq: int) -> int:
        """Return the number behind the last task of the call that task `seq` is of; 0 if it is of none."""
        sent = self.at(seq)
        return 0 if sent is None else sent.first + sent.size

    def look_again(self, now: float) -> float:
        """Return when to look at it again, if its task is a new one: the first of its limits from now on."""
        return now + min((sent.call.limit for sent in self.calls if sent.call.limit is not None), default=_NEVER)

    def __repr__(self) -> str:
        return f"<Worker {self.number} {('starting', 'ready', 'retiring', 'dying', 'gone')[self.state]}: {len(self.calls)} calls>"


_NEVER = float("inf")
_BACK_OFF = (0.0, 0.0, 0.0, 0.05, 0.1, 0.2, 0.4, 1.0)


class PoolCore:
    """The pool's decisions. Every method takes `now`, and returns the effects in order.

    Attributes:
        pending: calls that wait for a worker.
        workers: those that are not gone, by number.
        closed: whether nothing more is accepted.
        broken: why the pool cannot be used, or None.
    """

    def __init__(
        self,
        max_workers: int,
        *,
        max_tasks_per_child: int | None = None,
        max_memory: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.max_workers = max_workers
        self.max_tasks_per_child = max_tasks_per_child
        self.max_memory = max_memory
        """Bytes from which a worker is replaced after its task; a task that takes it beyond twice that is ended."""
        self.limits = limits or Limits()
        self.pending: deque[Any] = deque()
        self.workers: dict[int, Worker] = {}
        self.closed = False
        self.drained = False
        """Whether no call is to be begun any more: what a worker has not begun does not go to another."""
        self.more_may_come = False
        """Whether, although closed, somebody who is being told of outcomes may submit more: the workers stay so long."""
        self.broken: str | None = None
        self.killed = False
        self.unkillable = 0
        self.mean = _NEVER
        """Seconds that a task takes, lately, of calls that do not say their function; infinite until the first has ended."""
        self.means: dict[int, float] = {}
        """The same by function."""
        self._numbers = 0
        self._boot_failures = 0
        self._deaths_in_a_row = 0
        self._idle_deaths: deque[float] = deque(maxlen=5)
        self._spawn_from = 0.0
        self._full = False
        """Whether, when it was last looked at, no worker could take a call and none could be started."""
        self._effects: list[Effect] = []

    # ---- events

    def submit(self, call: Call, now: float) -> list[Effect]:
        if self.broken is not None:
            self._effects.append(Over(call, 0, self.broken))
        else:
            self.pending.append(call)
            if not self._full or not len(self.pending) % 16:  # now and then: the more wait, the more is sent ahead
                self._dispatch(now)
        return self._take_effects()

    def submit_all(self, calls: list[Any], now: float) -> list[Effect]:
        """The same of several, in this order: those that are tiny can then be packed."""
        if self.broken is not None:
            self._effects += [Over(call, 0, self.broken) for call in calls]
        else:
            self.pending += calls
            self._dispatch(now)
        return self._take_effects()

    def dispatch(self, now: float) -> list[Effect]:
        """Send what can be sent: after outcomes that have been told of with ``dispatch=False``, several at a time."""
        self._dispatch(now)
        return self._take_effects()

    def adopt(self, worker: Worker, call: Call, seq: int, done: int, now: float) -> list[Effect]:
        """A caller has sent this call itself, as number `seq`, and before it `done` others, whose outcomes it has.

        Raises:
            ProtocolError: it is not the number that is due.
        """
        if worker.state != Worker.GONE:
            self.skip(worker, done)
            if seq != worker.sent + 1:
                raise ProtocolError(f"a caller has sent task {seq} to worker {worker.number}, and {worker.sent + 1} is due")
            worker.calls.append(Sent(call, seq))
            worker.sent = seq
            worker.busy_since = now
            if self.broken is not None:
                worker.calls.clear()
                self._effects.append(Over(call, 0, self.broken))
        return self._take_effects()

    def skip(self, worker: Worker, done: int) -> None:
        """A caller has sent so many calls of one task itself, and has their outcomes."""
        if done:
            worker.sent = worker.last = worker.sent + done
            worker.tasks += done
            self._deaths_in_a_row = 0

    def is_idle(self, worker: Worker) -> bool:
        """Whether the worker may be lent to a caller."""
        return worker.state == Worker.READY and not worker.calls and not worker.ending and not worker.lent and worker.left is None

    def cancel(self, call: Call) -> bool:
        """Take a call out of those that wait; whether it was one."""
        try:
            self.pending.remove(call)
        except ValueError:
            return False
        return True

    def ready(self, worker: Worker, now: float) -> list[Effect]:
        if worker.state == Worker.STARTING:
            worker.state = Worker.READY
            worker.due = _NEVER
            self._boot_failures = 0
            self._dispatch(now)
        return self._take_effects()

    def record(
        self,
        worker: Worker,
        seq: int,
        what: Any,
        seconds: float,
        now: float,
        *,
        count: int = 1,
        groups: Iterable[tuple[float, int]] = (),
        dispatch: bool = True,
    ) -> list[Effect]:
        """The outcomes of `count` tasks from number `seq` on have come; those of a worker come in the order of its tasks.

        Args:
            groups: seconds that a task took, and how many they are, of each group of them that came together; default: of all.

        Raises:
            ProtocolError: they are not those that are due.
        """
        if worker.state == Worker.GONE or self.broken is not None:
            return []  # given up, or killed with the pool: its tasks have their outcomes
        if seq != worker.due_next() or not 0 < count <= worker.due_count(count):
            raise ProtocolError(f"worker {worker.number} sent the outcomes of {count} tasks from {seq} on, which are not due")
        if not 0.0 <= seconds < _NEVER:
            raise ProtocolError(f"worker {worker.number} says that task {seq} took {seconds} s")
        worker.busy_since = now
        if seq <= worker.over_limit < seq + count:
            # It has ended: the page may still name it while the next one is about to begin.
            worker.over_limit = worker.memory = 0
            worker.abandoned = False
        worker.ask_at = now + self.limits.patience
        worker.last = seq + count - 1
        worker.tasks += count
        self._deaths_in_a_row = 0
        for mean, number in groups or ((seconds / count, count),):
            self._learn(worker.calls[0].call, mean, number)
        taken = 0
        while taken < count:
            sent = worker.calls[0]
            some = min(count - taken, sent.size - sent.done)
            self._effects.append(Resolve(sent.call, sent.done, what, taken, some))
            sent.done += some
            taken += some
            if sent.done == sent.size:
                self._end_of_call(worker, now)
        if dispatch:
            self._dispatch(now)
        return self._take_effects()

    def _learn(self, call: Call, seconds: float, count: int) -> None:
        """So many tasks took `seconds` each: the more they are, the more that is worth. Bad news is believed faster.

        The first task of a function takes a thousand times as long as the tiny ones that follow, since all is cold.
        """
        mean = self._mean_of(call)
        mean = seconds if mean == _NEVER else max(mean + min(0.1 * count, 0.5) * (seconds - mean), 0.25 * seconds)
        function = getattr(call, "function", None)
        if function is None:
            self.mean = mean
        else:
            if len(self.means) >= FUNCTIONS and function not in self.means:
                self.means.clear()
            self.means[function] = mean

    def _mean_of(self, call: Call) -> float:
        """Return how long a task of the call takes, as far as is known."""
        function = getattr(call, "function", None)
        return self.mean if function is None else self.means.get(function, _NEVER)

    def over(self, worker: Worker, seq: int, now: float) -> list[Effect]:
        """The worker has ended its first call before its last task; those from number `seq` on have not begun.

        Raises:
            ProtocolError: it has none, or other tasks are due.
        """
        if worker.state == Worker.GONE or self.broken is not None:
            return []
        if not worker.calls:
            raise ProtocolError(f"worker {worker.number} ended a call that it does not have")
        sent = worker.calls[0]
        if seq != sent.first + sent.done or sent.done == sent.size:
            raise ProtocolError(f"worker {worker.number} ended a call at task {seq}, which is not due")
        self._uncount(worker, sent, sent.done)
        self._hand_back(sent)
        self._end_of_call(worker, now)
        self._dispatch(now)
        return self._take_effects()

    def returned(self, worker: Worker, first: int, last: int, now: float) -> list[Effect]:
        """The worker, amid a task, gives back those from number `first` to `last`: it will not begin them.

        Raises:
            ProtocolError: it does not have them, or has told what came of one.
        """
        if worker.state == Worker.GONE or self.broken is not None:
            return []
        if not max(worker.due_next(), 1) <= first <= last + 1 or last > worker.sent:
            raise ProtocolError(f"worker {worker.number} gives back tasks {first} to {last}, which it does not have")
        calls, worker.calls = worker.calls, deque()
        for sent in reversed(calls):  # in this order, since each goes before what waits
            if sent.first > last or sent.first + sent.size <= first:
                worker.calls.appendleft(sent)
            elif sent.first >= first:
                self._uncount(worker, sent, 0)
                self._hand_back(sent)
            else:
                worker.calls.appendleft(sent)
                self._uncount(worker, sent, first - sent.first)
                self._shorten(sent, first - sent.first)
        if worker.calls and worker.calls[0].done == worker.calls[0].size:  # its last outcome has come before
            self._end_of_call(worker, now)
        elif calls and not (worker.calls and worker.calls[0] is calls[0]):
            self._begin_next(worker, now)
        self._dispatch(now)
        return self._take_effects()

    def _uncount(self, worker: Worker, sent: Sent, place: int) -> None:
        """The worker does not run the call's tasks from this place on: it may be given others for them, if no other one has come to replace it."""
        number = sent.counted - place
        if number > 0:
            sent.counted = place
            if worker.left or self._live() < self.max_workers:
                worker.left = (worker.left or 0) + number

    def _shorten(self, sent: Sent, place: int) -> None:
        """Tasks of a call from this place on go elsewhere; it has one before, at least."""
        call = sent.call
        if call.parts:
            rest = Sent(call, sent.first)
            rest.done = place
            self._hand_back(rest)
            call.shorten(place)
        else:
            self._effects.append(Back(call, place))
        sent.size = place

    def retire(self, worker: Worker, now: float) -> list[Effect]:
        """Give the worker nothing more; it ends after what it has."""
        if worker.state == Worker.READY:
            worker.left = 0
            for sent in worker.calls:
                sent.counted = 0
            self._retire_if_idle(worker, now)
            self._dispatch(now)
        return self._take_effects()

    def page(self, worker: Worker, seq: int, start: float, phase: int, now: float) -> list[Effect]:
        """What a look at the worker's page has shown, on the clock of `now`."""
        if worker.state == Worker.READY:
            self._judge(worker, seq, start, phase, now)
        elif worker.state == Worker.DYING and worker.due <= now:  # killed, and still there
            self.unkillable += 1
            hint = "it could not be killed: it hangs in the system"
            self._bury(worker, Died(phase=phase, seq=seq, start=start, hint=hint), now)
        return self._take_effects()

    def peeked(self, worker: Worker, seq: int, now: float) -> list[Effect]:
        """What a look at the page of a worker has shown of which nothing has come for a moment."""
        if worker.state == Worker.READY and worker.calls:
            quiet = now - worker.busy_since
            if not worker.ending and worker.at(seq) is not None:
                last = self._stuck_behind(worker, seq, now)
                if last or seq > worker.due_next():
                    self._effects.append(Ask(worker, last))
                    quiet = min(quiet, 1.0)
            worker.ask_at = now + max(self.limits.patience, quiet)  # ever more rarely: what takes so long is sent at once
        return self._take_effects()

    def _stuck_behind(self, worker: Worker, seq: int, now: float) -> int:
        """Return the number of the last task behind number `seq`, if others could do it; else 0."""
        sent = worker.calls[-1]
        last = sent.first + sent.size - 1
        return last if last > seq and self._has_nothing_for_some(now) else 0

    def _has_nothing_for_some(self, now: float) -> bool:
        """Whether a worker has nothing to do, or could be started, and nothing waits."""
        if self.pending or self.drained or self.broken is not None:
            return False
        busy = idle = 0
        for worker in self.workers.values():
            busy += bool(worker.calls) or worker.lent
            idle += worker.state == Worker.STARTING or (worker.left != 0 and not worker.ending and _is_free(worker))
        return busy < self.max_workers and (idle > 0 or (self._room() > 0 and self._spawn_from <= now))

    def memory(self, worker: Worker, seq: int, phase: int, used: int, now: float) -> list[Effect]:
        """The worker takes so many bytes; its page shows this."""
        if self.max_memory is None or used <= 2 * self.max_memory:
            return []
        if worker.state == Worker.READY and not worker.ending and _task_at(worker, seq, phase) is not None:
            worker.memory = used
            self._end_task(worker, seq, now)
        return self._take_effects()

    def halt(self, call: Call) -> list[Effect]:
        """No further task of this call is to be started, wherever it is: nobody wants the outcomes."""
        for worker in self.workers.values():
            for sent in worker.calls:
                if _bare(sent.call) is call and not sent.halted:
                    sent.halted = True
                    if sent is worker.calls[0]:
                        self._effects.append(Halt(worker, sent.first))
        return self._take_effects()

    def abandon(self, worker: Worker, call: Call, seq: int, phase: int, now: float) -> list[Effect]:
        """End the task of this call that the worker is at, if its page shows one: nobody wants its outcome."""
        sent = _task_at(worker, seq, phase)
        if worker.state == Worker.READY and not worker.ending and sent is not None and _bare(sent.call) is call:
            worker.abandoned = True
            self._end_task(worker, seq, now)
        return self._take_effects()

    def _end_task(self, worker: Worker, seq: int, now: float) -> None:
        """Stop it; if it is still at this task when it stands still, it is killed."""
        worker.over_limit = seq
        worker.ending = Worker.STOPPED
        worker.due = now + self.limits.stop
        self._effects.append(Stop(worker))

    def stopped(self, worker: Worker, seq: int, start: float, phase: int, now: float) -> list[Effect]:
        """The worker stands still (or cannot); its page shows this."""
        if worker.state == Worker.READY and worker.ending == Worker.STOPPED:
            self._judge(worker, seq, start, phase, now)
        return self._take_effects()

    def exited(self, worker: Worker, died: Died, now: float) -> list[Effect]:
        """The process has ended, and all that was in its pipe has been reported."""
        if worker.state != Worker.GONE:
            self._bury(worker, died, now)
        return self._take_effects()

    def boot_failed(self, worker: Worker, why: str, now: float, *, final: bool = False) -> list[Effect]:
        """The worker could not be started, or says that it cannot work; `final` if another would not either."""
        if worker.state == Worker.STARTING:
            self._fail_to_start(worker, why, now, final=final)
        elif worker.state == Worker.DYING and worker.handle is None:  # told to die before it was known that there is no process
            self._gone(worker)
            self._dispatch(now)
        return self._take_effects()

    def lost(self, worker: Worker, now: float) -> list[Effect]:
        """What the worker sends cannot be read any more, or not be believed: end it. What it was at is told by `exited`."""
        worker.lost = True
        if worker.state == Worker.STARTING:
            self._fail_to_start(worker, "a worker sent what it must not before it was ready", now)
        elif worker.state in (Worker.READY, Worker.RETIRING):
            self._doom(worker, now)
        return self._take_effects()

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        for worker in list(self.workers.values()):
            if worker.due <= now:
                self._tick_worker(worker, now)
            if worker.ask_at <= now:
                worker.ask_at = _NEVER
                self._effects.append(Peek(worker))
        if self._spawn_from and self._spawn_from <= now:
            self._spawn_from = 0.0
            self._dispatch(now)
        # Looks come last: what they show has effects at once, which must not overtake what has been decided before them.
        return sorted(self._take_effects(), key=lambda effect: isinstance(effect, (Look, Stop, Peek)))

    def next_tick(self) -> float:
        """Return when `tick` has to be called; infinite is never."""
        due = min((min(worker.due, worker.ask_at) for worker in self.workers.values()), default=_NEVER)
        return min(due, self._spawn_from) if self._spawn_from and self.pending else due

    def close(self, now: float) -> list[Effect]:
        """Accept nothing more; workers end when there is nothing left to do."""
        self.closed = True
        self._dispatch(now)
        return self._take_effects()

    def kill(self, why: str, now: float) -> list[Effect]:
        """End everything: whatever is pending or running fails for this reason."""
        self.closed = self.killed = True
        self._break(why, now)
        return self._take_effects()

    def fail(self, why: str, now: float) -> list[Effect]:
        """End everything: the supervisor itself has failed."""
        self._break(why, now)
        return self._take_effects()

    def is_busy(self) -> bool:
        """Whether a worker has something to do."""
        return any(worker.calls for worker in self.workers.values())

    def spare_time(self, worker: Worker, now: float) -> float:
        """Return for how many seconds the worker will have something to do, as far as is known; 0 if somebody waits for what comes of it.

        What it has done since its last outcome came is not left to be done.

        Who waits for the next of many tiny tasks of a run would be woken for each: there it can wait a moment.
        """
        work = worker.busy_since - now
        for sent in worker.calls:
            mean = self._mean_of(sent.call)
            urgency = sent.call.urgency
            if mean == _NEVER or urgency > 1 or (urgency and mean > self.limits.tiny):
                return 0.0
            work += (sent.size - sent.done) * mean
        return work

    def is_over(self) -> bool:
        """Whether nothing is left to do, nor to come."""
        return self.closed and not self.pending and not self.workers and not self.more_may_come

    # ---- sending

    def _dispatch(self, now: float) -> None:
        if self.broken is not None:
            return
        while self.pending:
            worker = self._least_busy(now)
            if worker is None:
                break
            call = self.pending.popleft()
            if not call.claim():
                continue
            if call.packs and worker.left is None:
                call = self._pack(call)
            self._send(worker, call, now)
        self._spawn(now)
        self._full = bool(self.pending) and self._room() <= 0 and not self._starting()
        if not self.pending:
            self._look_for_stuck(now)
        if self.closed and not self.pending and not self.more_may_come:
            for worker in list(self.workers.values()):
                self._retire_if_idle(worker, now)

    def _look_for_stuck(self, now: float) -> None:
        """See that a worker that has several tasks, at one of which it is for long, is looked at soon, if another one has nothing to do."""
        free = False
        stuck: list[Worker] = []
        for worker in self.workers.values():
            if _is_free(worker):
                free = True
            elif worker.ask_at - now > self.limits.patience and sum(sent.size - sent.done for sent in worker.calls) > 1:
                stuck.append(worker)
        if free:
            for worker in stuck:
                worker.ask_at = max(now, worker.busy_since + self.limits.patience)

    def _least_busy(self, now: float) -> Worker | None:
        """Return the worker that is to have the next call, or None if all have enough."""
        best = idle = None
        busy = 0
        for worker in self.workers.values():
            busy += bool(worker.calls) or worker.lent
            if worker.state != Worker.READY or worker.left == 0 or worker.ending or worker.lent:
                continue
            if not worker.calls:
                idle = idle or worker
            # Not to one whose task may take long, or does: what is sent there waits for it.
            elif (
                now - worker.busy_since <= self.limits.short
                and not worker.calls[0].long
                and (best is None or len(worker.calls) < len(best.calls))
            ):
                best = worker
        if idle is not None and busy < self.max_workers:  # the replacement of one that is at its last task waits for that
            return idle
        if best is None or len(best.calls) >= self._depth(self.pending[0]) or self._is_room_for_more(now):
            return None
        return best

    def _pack(self, call: Any) -> Any:
        """Return the call, or one of several that wait and can travel with it, if they are known to be tiny: no more than a fair share.

        Calls that may be packed have a `weight` in bytes, ``goes_with(other)``, and ``pack(parts)``, which makes one call of several.
        """
        mean = self._mean_of(call)
        if mean > self.limits.tiny:
            return call
        pending, limits = self.pending, self.limits
        count = min(int(limits.ahead / max(mean, 1e-9)), (len(pending) + 1) // (2 * self.max_workers), limits.most_packed)
        parts, weight = [call], call.weight
        while len(parts) < count and pending and (following := pending[0]).packs and call.goes_with(following):
            weight += following.weight
            if weight > limits.heaviest:
                break
            pending.popleft()
            if following.claim():
                parts.append(following)
        return call.pack(parts) if len(parts) > 1 else call

    def _is_room_for_more(self, now: float) -> bool:
        """Whether a worker is starting, or may be started, that will have nothing to do: then nothing waits behind another call."""
        room = self._room() if self._spawn_from <= now else 0
        return len(self.pending) <= self._starting() + room

    def _starting(self) -> int:
        return sum(worker.state == Worker.STARTING for worker in self.workers.values())

    def _live(self) -> int:
        """Return how many workers may be given calls, now or when they have started."""
        return sum(
            worker.state == Worker.STARTING or (worker.state == Worker.READY and worker.left != 0)
            for worker in self.workers.values()
        )

    def _room(self) -> int:
        """Return how many workers may be started. Those that are ending do not count, up to as many again: ending may take long."""
        return min(self.max_workers - self._live(), 2 * self.max_workers - len(self.workers))

    def _depth(self, call: Call) -> int:
        """Return how many calls a worker may have with this one: more than the one it runs only if it is known to be short."""
        mean = self._mean_of(call)
        if mean > self.limits.short:
            return 1
        if mean > self.limits.tiny or call.size > 1 or call.packs:
            return 2
        share = len(self.pending) // (2 * self.max_workers)
        return max(2, min(int(self.limits.ahead / max(mean, 1e-9)), share, self.limits.most_ahead))

    def _send(self, worker: Worker, call: Any, now: float) -> None:
        sent = Sent(call, worker.sent + 1)
        sent.long = self._mean_of(call) > self.limits.short
        worker.sent += call.size
        worker.calls.append(sent)
        most = 0
        if worker.left is not None:
            most = worker.left if worker.left < call.size else 0
            sent.counted = min(worker.left, call.size)
            worker.left -= sent.counted
        if len(worker.calls) == 1:
            worker.busy_since = now
        if worker.ask_at == _NEVER:
            worker.ask_at = now + self.limits.patience
        if call.limit is not None and not worker.ending:
            worker.due = min(worker.due, now + call.limit)
        self._effects.append(Send(worker, call, sent.first, most))

    def _spawn(self, now: float) -> None:
        """Start workers for calls that no worker will get soon."""
        if self.broken is not None or self._spawn_from > now:
            return
        coming = sum(
            worker.state == Worker.STARTING
            or (worker.state == Worker.READY and not worker.calls and worker.left != 0 and not worker.lent)
            for worker in self.workers.values()
        )
        room = self._room()
        while coming < len(self.pending) and room > 0:
            self._numbers += 1
            worker = Worker(self._numbers, self.max_tasks_per_child, now + self.limits.boot)
            self.workers[worker.number] = worker
            self._effects.append(Spawn(worker))
            coming += 1
            room -= 1

    def _end_of_call(self, worker: Worker, now: float) -> None:
        sent = worker.calls.popleft()
        if sent.done == sent.size:
            self._effects.append(Over(sent.call, sent.done, None))
        self._begin_next(worker, now)

    def _begin_next(self, worker: Worker, now: float) -> None:
        """The worker's first call is another one, or none."""
        worker.over_limit = worker.memory = 0
        worker.abandoned = False
        if worker.calls and worker.calls[0].halted:
            self._effects.append(Halt(worker, worker.calls[0].first))
        if worker.ending == Worker.SUSPECTED:
            worker.ending = 0
        if not worker.calls:
            worker.ask_at = _NEVER
        if not worker.ending and not worker.calls:  # else it is looked at when its first limit is over, and not for each task
            worker.due = _NEVER
        self._retire_if_idle(worker, now)

    def _retire_if_idle(self, worker: Worker, now: float) -> None:
        if (
            worker.state == Worker.READY
            and not worker.calls
            and not worker.ending
            and not worker.lent
            and (worker.left == 0 or self._has_no_use(worker))
        ):
            worker.state = Worker.RETIRING
            worker.due = now + self.limits.retire
            self._effects.append(Retire(worker))
        elif worker.state == Worker.STARTING and self._has_no_use(worker):
            self._doom(worker, now)

    def _has_no_use(self, _worker: Worker) -> bool:
        return self.closed and not self.pending and not self.more_may_come

    def _hand_back(self, sent: Sent, ran: int = 0, lost: int = -1) -> None:
        """Tasks without an outcome have not begun, or, the first `ran`, are to run again; but for the one that is `lost`."""
        if self.drained and sent.call.parts:
            for place in range(sent.done, sent.size):
                if place != lost:
                    self._effects.append(Over(sent.call.parts[place], 0, self.broken, int(place < sent.done + ran)))
        elif sent.call.parts and self.broken is None:
            for place in range(sent.size - 1, sent.done - 1, -1):
                if place != lost:
                    self.pending.appendleft(_again(sent.call.parts[place]))
        elif sent.call.resends and sent.call.size == 1 and not self.drained and not sent.halted and self.broken is None:
            self.pending.appendleft(_again(sent.call))
        else:
            self._effects.append(Over(sent.call, sent.done, self.broken, ran))

    # ---- limits

    def _tick_worker(self, worker: Worker, now: float) -> None:
        worker.due = _NEVER
        if worker.state == Worker.STARTING:
            self._fail_to_start(worker, f"a worker was not ready after {self.limits.boot:g} s", now)
        elif worker.state == Worker.RETIRING and not worker.calls:
            self._doom(worker, now)
        elif worker.state == Worker.DYING and worker.handle is not None:  # killed, and still there: `page` gives it up
            worker.due = now
            self._effects.append(Look(worker))
        elif worker.state == Worker.DYING:
            self._gone(worker)
            self._dispatch(now)
        elif worker.ending == Worker.DUMPED:
            worker.ending = Worker.STOPPED
            worker.due = now + self.limits.stop
            self._effects.append(Stop(worker))
        else:
            # Also of one that was stopped and is not known to stand still: it sits in the system, and cannot have gone on.
            self._effects.append(Look(worker))

    def _judge(self, worker: Worker, seq: int, start: float, phase: int, now: float) -> None:
        # A task that has ended, or whose outcome waits for us to read it, is not over its limit. It may be of a later call than the first:
        # the outcomes of tiny tasks before it may not have been sent yet.
        sent = _task_at(worker, seq, phase)
        if (worker.memory or worker.abandoned) and sent is not None and worker.over_limit == seq:
            self._kill(worker, now)
            return
        due = _NEVER if sent is None else self._due(sent, start, phase)
        if now < due:
            self._let_go_on(worker, now)
            if worker.state != Worker.READY:  # it has just been told to end, and is looked at when that takes too long
                return
            again = worker.look_again(now)
            if sent is not None and phase == Phase.LOAD:  # its function may be there any moment, and its own time begins then
                again = max(again, now + (now - start) / 20)
            worker.due = max(min(due, again), now + self.limits.second_look)
        elif worker.over_limit != seq:
            if worker.ending == Worker.STOPPED:  # because of another task
                self._effects.append(Continue(worker))
            worker.over_limit = seq
            worker.memory = 0
            worker.abandoned = False
            worker.ending = Worker.SUSPECTED
            worker.due = now + self.limits.second_look
        elif worker.ending == Worker.STOPPED:
            self._kill(worker, now)
        else:
            worker.ending = Worker.DUMPED
            worker.due = now + self.limits.dump
            self._effects.append(DumpStack(worker))

    def _due(self, sent: Sent, start: float, phase: int) -> float:
        """Return when a task is over its limit. To unpickle the function may be to import half a dozen libraries: not the task's time."""
        limit = _NEVER if sent.call.limit is None else sent.call.limit
        return start + (limit if phase != Phase.LOAD else max(limit, self.limits.boot))

    def _let_go_on(self, worker: Worker, now: float) -> None:
        if worker.ending == Worker.STOPPED:
            self._effects.append(Continue(worker))
        worker.ending = worker.over_limit = worker.memory = 0
        worker.abandoned = False
        worker.due = worker.look_again(now)
        self._retire_if_idle(worker, now)
        self._dispatch(now)  # its calls may have ended while it was looked at, and it could not get others

    def _kill(self, worker: Worker, now: float) -> None:
        worker.ending = Worker.KILLED
        self._doom(worker, now)

    def _doom(self, worker: Worker, now: float) -> None:
        worker.state = Worker.DYING
        worker.ask_at = _NEVER
        worker.due = now + self.limits.dead
        self._effects.append(Kill(worker))

    # ---- the end of a worker

    def _bury(self, worker: Worker, died: Died, now: float) -> None:
        was, calls = worker.state, worker.calls
        self._gone(worker)
        if was == Worker.STARTING:
            self._count_boot_failure(_boot_text(died), now)
            return
        worker.calls = deque()
        if calls:
            self._settle(worker, calls, died, now)
        elif was == Worker.READY:
            self._note_idle_death(died, now)
        if calls or was == Worker.READY:
            self._deaths_in_a_row += 1
            pause = _BACK_OFF[min(self._deaths_in_a_row, len(_BACK_OFF)) - 1]
            if pause:
                self._spawn_from = now + pause
        self._dispatch(now)

    def _settle(self, worker: Worker, calls: deque[Sent], died: Died, now: float) -> None:
        """Say what became of the tasks that the worker had.

        The last task that has begun is the one that was running, if its outcome has not come; those after it have not begun. Others before
        it without an outcome have run: if they are tiny, it was about to be sent, and they run again; if each outcome is sent at once, or the
        pipe was closed, or not to be believed, what came of them is lost.
        """
        begun, due = died.seq, calls[0].first + calls[0].done
        if begun != worker.last and not due <= begun <= worker.sent:
            begun = due  # something has written to the page: most likely the task that was due
        if begun < calls[0].first:
            self._note_not_begun(calls[0], worker, died)
        rest: list[tuple[Sent, int, int]] = []
        for sent in calls:
            first = sent.first + sent.done
            ran = max(0, min(begun, sent.first + sent.size) - first)
            if ran and (worker.lost or sent.call.each):
                for seq in range(first, first + ran):
                    self._lose(worker, sent, seq, died, now)
                ran, sent.done = 0, sent.done + ran
            if first <= begun < sent.first + sent.size:
                self._lose(worker, sent, begun, died, now)
                sent.done += not ran
            rest.append((sent, ran, begun - sent.first))
        for sent, ran, lost in reversed(rest):
            if sent.done == sent.size:
                self._effects.append(Over(sent.call, sent.done, None))
            else:
                self._hand_back(sent, ran, lost)

    def _lose(self, worker: Worker, sent: Sent, seq: int, died: Died, now: float) -> None:
        """A task has died with its worker."""
        after = max(0.0, now - died.start) if died.start and seq == died.seq else 0.0
        what: Crashed | TimedOut | OverMemory = Crashed(worker, died, after)
        if worker.ending == Worker.KILLED and worker.over_limit == seq and not worker.abandoned:
            what = (
                OverMemory(worker, died, worker.memory, self.max_memory or 0, after)
                if worker.memory
                else TimedOut(worker, died, sent.call.limit, after)
            )
        self._effects.append(Resolve(sent.call, seq - sent.first, what))

    def _note_not_begun(self, sent: Sent, worker: Worker, died: Died) -> None:
        """A worker died with this call at hand and had not begun it: it may have died of reading it, and so would the next one."""
        if sent.call.parts:
            return  # they go alone from now on, and are counted then
        call = _bare(sent.call)
        call.deaths += 1
        if call.deaths >= BEGIN_TIMES:
            call.deaths = 0  # the tasks behind the one that has to pay for it have their own
            hint = f"{BEGIN_TIMES} workers died before they could begin it"
            self._effects.append(Resolve(sent.call, 0, Crashed(worker, died._replace(hint=hint), 0.0)))
            sent.done = 1

    def _gone(self, worker: Worker) -> None:
        worker.state = Worker.GONE
        worker.due = worker.ask_at = _NEVER
        self.workers.pop(worker.number, None)

    def _note_idle_death(self, died: Died, now: float) -> None:
        self._idle_deaths.append(now)
        if len(self._idle_deaths) == self._idle_deaths.maxlen and now - self._idle_deaths[0] < 60:
            self._idle_deaths.clear()
            self._effects.append(Warn(f"5 idle workers died within a minute, the last one {ended_by(died.status)}"))

    def _fail_to_start(self, worker: Worker, why: str, now: float, *, final: bool = False) -> None:
        if worker.handle is None:
            self._gone(worker)
        else:  # it is there until `exited` says that it is not, so that nothing is left behind
            self._doom(worker, now)
        self._count_boot_failure(why, now, final=final)

    def _count_boot_failure(self, why: str, now: float, *, final: bool = False) -> None:
        self._boot_failures += 1
        if final or (self._boot_failures >= BOOT_TIMES and not self._has_able_worker()):
            self._break(why, now)
            return
        if self._boot_failures >= BOOT_TIMES:
            pause = min(5.0, 0.5 * 2.0 ** (self._boot_failures - BOOT_TIMES))
            if self._boot_failures == BOOT_TIMES:
                self._effects.append(Warn(f"{BOOT_TIMES} workers in a row could not be started, the others go on: {why}"))
            self._spawn_from = now + pause
        self._dispatch(now)

    def _has_able_worker(self) -> bool:
        return any(worker.state == Worker.READY and (worker.left != 0 or worker.calls) for worker in self.workers.values())

    def _break(self, why: str, now: float) -> None:
        """Fail everything, and end all workers."""
        if self.broken is None:
            self.broken = why
            self._effects.append(Broken(why))
        for call in self._drain():
            self._effects.append(Over(call, 0, why))
        for worker in list(self.workers.values()):
            for sent in worker.calls:
                self._effects.append(Over(sent.call, sent.done, why))
            worker.calls = deque()
            if worker.state != Worker.DYING:
                self._doom(worker, now)

    def _drain(self) -> Iterator[Any]:
        while self.pending:
            yield self.pending.popleft()

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects


class _Again:
    """A call that has been claimed before: its worker died before it began, or gave it back."""

    __slots__ = ("call", "each", "function", "limit", "resends", "size")

    packs = False
    parts = ()
    urgency = 2

    def __init__(self, call: Any) -> None:
        self.call = call
        self.each = call.each
        self.function = getattr(call, "function", None)
        self.size = call.size
        self.limit = call.limit
        self.resends = True

    def __repr__(self) -> str:
        return f"{self.call!r} again"

    def claim(self) -> bool:
        return True

    def cancel(self) -> None:
        """It cannot be: who waits for it has been told that it runs."""


def _is_free(worker: Worker) -> bool:
    """Whether it has nothing to do."""
    return worker.state == Worker.READY and not worker.calls and not worker.lent


def _bare(call: Any) -> Any:
    return call.call if isinstance(call, _Again) else call


def _again(call: Any) -> _Again:
    return call if isinstance(call, _Again) else _Again(call)


def _task_at(worker: Worker, seq: int, phase: int) -> Sent | None:
    """Return the call that the worker is at, if its page shows a task whose outcome is due, and which is being worked at."""
    return worker.at(seq) if phase in Phase.AT_WORK else None


class ProtocolError(Exception):
    """What came from a worker is not what was due: a task has written to its pipe, or the page."""


def ended_by(status: int | None) -> str:
    """Return how a process ended, in words."""
    if status is None:
        return "ended in a way that is not known"
    if status < 0:
        import signal

        try:
            return f"died of {signal.Signals(-status).name}"
        except ValueError:
            return f"died of signal {-status}"
    return f"ended with exit code {status}"


def _boot_text(died: Died) -> str:
    hint = f": {died.hint}" if died.hint else ""
    return f"a worker {ended_by(died.status)} before it was ready{hint}"

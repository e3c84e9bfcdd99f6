"""A pool of processes without processes: the real `PoolCore` and the real frames, simulated workers, a virtual clock, one seed.

::

    user ─ inbox ─▶ SimSupervisor: core, parsers ── task pipe: bytes ──▶ SimWorker: a generator, one store or a few bytes a step
      ▲                   ▲                      ◀─ result pipe: bytes ──┤   page: bytes
      └─ handed back ─────┘                                              └─ SimOutbox: outcomes kept back, by a rule that is drawn
    faults: kill at any byte, stop, stick, scribble, time that jumps, turns that come late or for nothing
    oracle: what the workers really did, compared with what the core says, after every step

What the oracle knows of each `Task`, through all calls that it is in: where it has begun (`runs`), and what came of it (`outcome`), once. A
worker knows which outcomes are wholly in its pipe (`ends`). So a task may begin again only where it ran unseen: its worker has died, no
outcome of it was in the pipe, the page showed a later task, its outcomes were not to be sent each, and the pipe was sound.

Everything is drawn from ``random.Random(seed)``, so a seed that fails fails again::

    python -m tests.executors.process.sim SEED        tells all that happened
    python -m tests.executors.process.sim FROM TO     tries many

`Wrong` is raised where the core breaks a promise. Which faults a seed has is drawn too: what many faults hide, few show.
"""

from __future__ import annotations

import itertools
import math
import random
import struct
import sys
from collections import Counter, deque

from abreast.executors.process import core as real_core
from abreast.executors.process.frames import BadFrame, Kind, Parser, frame
from abreast.executors.process.page import Page

BOOT, IDLE, DECODE, RUN, ENCODE, WRITE, EXIT, LOAD = range(8)
AT_WORK = (DECODE, RUN, ENCODE, LOAD)
INF = math.inf
LONG = 1e6  # seconds; looks at who may keep outcomes back go on, ever more rarely
EPS = 1e-6  # seconds: the page counts in nanoseconds, the clock in floats
HALT, LAST = 5, 8
CALL = struct.Struct("<QIf")
RECORD = struct.Struct("<d")
RECORDS = struct.Struct("<dI")
RETURN = struct.Struct("<Q")
ENTRY = struct.Struct("<QQII")
"""An outcome: of which task, as which number, of which worker, and bytes of its padding."""


class Wrong(AssertionError):
    """The core has broken a promise."""


def insist(true, *told):
    if not true:
        raise Wrong(" ".join(map(str, told)))


class SimPage(Page):
    """The real page's reading, of plain memory."""

    def __init__(self):
        self.words = memoryview(bytearray(128)).cast("Q")


class Task:
    """What a task is going to do, and the truth about it."""

    __slots__ = (
        "buffers", "deaths", "decode", "dies", "encode", "number", "outcome", "padding", "runs", "scribbles", "seconds", "shape", "status",
        "workers",
    )  # fmt: skip

    def __repr__(self):
        return f"task {self.number}"


class Manner:
    """How a call is to be done: what a call has in common with the one that its rest is sent as."""

    __slots__ = ("box", "each", "function", "limit", "packs", "plain", "resends")


class SimCall:
    """A call: one of `submit`, which goes again by itself, or a batch of a run, whose rest the user sends again."""

    parts = ()

    def __init__(self, number, tasks, manner, padding, buffers):
        self.number = number
        self.tasks = tasks
        self.size = len(tasks)
        self.manner = manner
        self.limit, self.resends, self.each, self.packs = manner.limit, manner.resends, manner.each, manner.packs
        self.plain, self.function = manner.plain, manner.function
        self.body = CALL.pack(number, self.size, manner.box) + padding
        self.buffers = buffers
        self.wanted = True
        self.claimed = False
        self.asked = 0
        self.sends = []  # (worker, number of the first task)
        self.done = 0  # outcomes that have come in order
        self.lost = None  # the place of one that came out of order
        self.halted = False
        self.out = None  # how it ended: "done", "handed back", "broken", "cancelled"
        self.poison = False

    @property
    def deaths(self):
        return self.tasks[0].deaths

    @deaths.setter
    def deaths(self, count):
        self.tasks[0].deaths = count

    @property
    def weight(self):
        return len(self.body)

    def goes_with(self, other):
        insist(self.packs and other.packs, self, "is compared with", other)
        return (
            (self.function, self.limit, self.each, self.plain) == (other.function, other.limit, other.each, other.plain)
            and not self.buffers
            and not other.buffers
        )

    def pack(self, parts):
        insist(parts[0] is self, self, "is not the first of", parts)
        return SimPack(parts)

    def claim(self):
        insist(not self.claimed and self.out in (None, "cancelled"), self, "is claimed twice")
        self.asked += 1
        insist(self.asked == 1, self, "is asked twice")
        if not self.wanted:
            self.out = "cancelled"
            return False
        self.claimed = True
        return True

    def __repr__(self):
        return f"call {self.number}[{self.size}]"


class SimPack:
    """Calls of one task that travel as one."""

    packs, resends = False, True

    def __init__(self, parts):
        first = parts[0]
        self.parts = parts
        self.number = first.number
        self.size = len(parts)
        self.tasks = [part.tasks[0] for part in parts]
        self.limit, self.each, self.plain, self.function = first.limit, first.each, first.plain, first.function
        self.body = CALL.pack(first.number, self.size, 0.0) + b"".join(part.body for part in parts)
        self.buffers = []
        self.poison = any(part.poison for part in parts)
        insist(self.size > 1 and all(first.goes_with(part) for part in parts), parts, "cannot be packed")

    def shorten(self, place):
        """As `Pack.shorten`; what the worker has got is not changed by that."""
        insist(0 < place < len(self.parts), self, "is cut at", place)
        self.parts = self.parts[:place]
        self.size = place

    def __repr__(self):
        return f"pack {self.parts}"


def calls_in(call):
    """Return the calls that this one stands for: itself, or those that are packed in it."""
    return call.parts or [getattr(call, "call", call)]


class SimOutbox:
    """As outbox.py: outcomes of one kind share a frame, frames share a write, by a rule that is drawn."""

    def __init__(self, one):
        self.one = one
        self.draw = one.sim.draw
        self.kind = None
        self.entries = []  # of the open run
        self.first = 0  # the number of its first, or of the next task
        self.frames = []  # (parts, numbers of the tasks whose outcomes are in it)
        self.begin = self.work = self.gathered = 0.0
        self.count = 0  # since the last write
        self.urgent = False

    def next(self):
        return self.first + len(self.entries)

    def open(self, first):
        if first != self.next() or self.one.sim.random.random() < 0.1:  # sometimes for nothing, as for one whose tasks are timed
            self.close()
            self.first = first
        self.begin = self.one.sim.now

    def add(self, task, seq):
        insist(seq == self.next(), self.one, "keeps the outcome of", seq, "as", self.next())
        entry = ENTRY.pack(task.number, seq, self.one.number, len(task.padding)) + task.padding
        self.count += 1
        if task.shape in ("error", "large"):
            self.close()
            self.account()
            body = RECORD.pack(self.work) + entry
            self.frames.append((frame(Kind.RECORD, seq, body, task.buffers, task.shape == "error"), [seq]))
            self.first, self.work, self.urgent = seq + 1, 0.0, True
            return
        if self.kind != task.shape and not (self.kind == "pickle" and self.entries):
            self.close()
            self.kind = task.shape
        self.entries.append(entry)

    def account(self):
        elapsed = self.one.sim.now - self.begin
        self.begin = self.one.sim.now
        self.work += elapsed
        self.gathered += elapsed
        return elapsed

    def is_due(self, elapsed):
        """Whether what is kept is to be written before the next task begins."""
        draw = self.draw
        return elapsed > draw.long or self.gathered > draw.most_work or self.count >= draw.most_kept or self.urgent

    def close(self):
        if len(self.entries) == 1:
            self.frames.append((frame(Kind.RECORD, self.first, RECORD.pack(self.work) + self.entries[0]), [self.first]))
        elif self.entries:
            body = RECORDS.pack(self.work, len(self.entries)) + b"".join(self.entries)
            self.frames.append((frame(Kind.RECORDS, self.first, body), [*range(self.first, self.next())]))
        self.first = self.next()
        self.entries = []
        self.work = 0.0

    def take(self):
        """Return all that is kept: frames, and the numbers of the tasks of each."""
        self.close()
        frames, self.frames = self.frames, []
        self.gathered, self.count, self.urgent = 0.0, 0, False
        return frames


class Died(Exception):
    """The process ends itself, with this status."""


class SimWorker:
    """A process as worker.py is one: its steps are a generator's, its pipes and its page are bytes.

    Between two steps it may be killed, stopped, or left alone for ever.
    """

    def __init__(self, sim, worker):
        self.sim = sim
        self.worker = worker
        self.number = worker.number
        self.task_pipe, self.result_pipe = bytearray(), bytearray()
        self.capacity = sim.draw.capacity
        self.page = SimPage()
        self.words = self.page.words
        self.words[1] = worker.number
        self.alive = True
        self.status = None
        self.stuck_until = 0.0  # in the system: neither runs, nor stops, nor dies
        self.stopped = False
        self.killed = False  # by SIGKILL, which comes when it is no longer stuck
        self.closed_channel = False
        self.scribbles = False
        self.wake = sim.now
        self.waits = None  # "read", "write"
        self.rest = b""  # of what is being written
        self.pushed = 0  # bytes of it that are in the pipe
        self.marks = deque()  # (bytes, numbers of the tasks whose outcomes are in the pipe then)
        self.outbox = SimOutbox(self)
        self.has_run = False
        self.running = 0  # the number of the task that has begun and whose outcome is not yet in the pipe
        self.begun = 0  # the number of the last that has begun
        self.ends = {}  # number of a task: True once its outcome is wholly in the pipe, "told" when the core knows it
        self.pieces = sim.random.random() < sim.draw.pieces
        self.calls = {}  # number of the first task: SimCall or SimPack, as sent
        self.fetched = 0  # the number behind the last task of its call that it is about to begin, or has; 0 is at none
        self.first = self.last = self.behind = 0  # of its call: its first task, behind the last to be run, behind its last
        self.returned = 0  # the number of the last task that was given back
        self.most = {}  # number of the first task: how many may be run
        self.life = self._life()
        # the supervisor's
        self.parser = Parser(Kind.OF_WORKER)
        self.out = bytearray()
        self.eof = False
        self.reaped = False
        self.spawned_at = sim.now
        self.was_ready = False
        self.retired_at = None
        self.killed_at = None
        self.killed_for = 0
        self.distrusted = False
        self.next_seq = 1
        self.looks = []  # (when, number of the task, phase)

    def __repr__(self):
        return f"worker {self.number}"

    # ---- what may happen to it

    def can_run(self):
        if not self.alive or self.stopped or self.wake > self.sim.now or self.stuck_until > self.sim.now:
            return False
        if self.waits == "read":
            return bool(self.task_pipe)
        if self.waits == "write":
            return len(self.result_pipe) < self.capacity
        return True

    def wakes(self):
        """When it may go on by itself."""
        if not self.alive or (self.stopped and not self.killed):
            return INF
        if self.killed:
            return self.stuck_until
        if (self.waits == "read" and not self.task_pipe) or (self.waits == "write" and len(self.result_pipe) >= self.capacity):
            return INF
        return max(self.wake, self.stuck_until)

    def step(self):
        self.waits = None
        try:
            delay = next(self.life)
        except StopIteration:
            self.end(0)
        except Died as died:
            self.end(died.args[0])
        else:
            self.wake = self.sim.now + delay

    def kill(self):
        self.killed = True
        if self.stuck_until <= self.sim.now:
            self.end(-9)

    def cut(self):
        """A kill in the middle of a write: some of what is left to write may have come through."""
        if self.rest:
            self._push(self.sim.random.randint(0, len(self.rest)))

    def end(self, status):
        if self.alive:
            self.alive = False
            self.status = status
            self.sim.note(self, "has ended", status, "at", self.page.read(), "running", self.running)

    # ---- what it does

    def _life(self):
        random, words = self.sim.random, self.words
        frames = deque()
        parser = Parser(Kind.OF_PARENT)
        boot = yield from self._next(parser, frames)
        insist(boot.kind == Kind.BOOT, self, "does not get BOOT first, but", boot)
        yield self.sim.boot_seconds()
        if random.random() < self.sim.draw.boots_dying:
            raise Died(random.choice((1, -11, -9)))
        if random.random() < self.sim.draw.initializer_raising:
            yield from self._write([(frame(Kind.FAILED, body=b"an error"), [])])
            yield self.sim.draw.exit_seconds
            return
        yield from self._write([(frame(Kind.READY), [])])
        words[2] = IDLE
        while True:
            arrived = yield from self._next(parser, frames)
            if arrived.kind == Kind.CALL:
                if arrived.number > self.returned:
                    yield from self._call(arrived)
            elif arrived.kind == Kind.RETIRE:
                yield from self._write_kept()
                words[2] = EXIT
                insist(not frames and not self.task_pipe and not self.out, self, "is told to end before a call")
                yield self.sim.draw.exit_seconds
                return
            else:
                insist(False, self, "gets a frame of kind", arrived.kind)

    def _next(self, parser, frames):
        random = self.sim.random
        while not frames:
            if self.has_run:  # all that has been read is done: nothing is kept back by one that waits
                yield from self._write_kept()
                self.words[2] = IDLE
                self.has_run = False
            self.waits = "read"
            yield 0
            target = parser.target()
            most = random.choice((1, 7, 1 << 20)) if self.pieces else 1 << 20
            count = min(most, len(self.task_pipe), len(target) if target is not None else most)
            data = bytes(self.task_pipe[:count])
            del self.task_pipe[:count]
            if target is not None:
                target[:count] = data
                frames.extend(parser.filled(count))
            else:
                frames.extend(parser.feed(data))
        return frames.popleft()

    def _call(self, arrived):
        sim, words, outbox = self.sim, self.words, self.outbox
        number, size, box = CALL.unpack_from(arrived.body)
        first = arrived.number
        call = self.calls.get(first)
        insist(call is not None and (number, size) == (call.number, call.size), self, "gets", number, "as", first)
        insist(arrived.body == call.body and list(arrived.buffers) == call.buffers, call, "arrives changed")
        self.has_run = True
        yield 0
        if call.poison:
            raise Died(-9)
        until = sim.now + box if box else INF
        seq = self.first = first
        self.last, self.behind = first + (self.most.get(first) or size), first + size
        stride = 1 if call.limit is not None or call.each or not call.plain else sim.draw.stride
        outbox.open(first)
        while seq < self.last and words[HALT] != first:
            begin = sim.now
            behind = min(seq + stride, self.last)
            while seq < min(behind, self.last):
                task = call.tasks[seq - first]
                self.fetched = seq + 1
                yield from self._run(call, task, seq, begin)
                outbox.add(task, seq)
                begin = None  # the page has no start for each of a stride
                seq += 1
                if task.dies == WRITE or task.shape == "error":
                    break
            elapsed = outbox.account()
            yield 0  # what is given back here is behind `seq`
            if outbox.is_due(elapsed) or call.each or task.dies == WRITE:
                yield from self._write_kept(task.status if task.dies == WRITE else None)
                yield 0
                outbox.begin = sim.now
            if sim.now >= until:
                break
        self.fetched = 0
        if seq < self.behind:
            outbox.close()
            outbox.frames.append((frame(Kind.OVER, seq), []))
            yield from self._write_kept()
        elif outbox.urgent:
            yield from self._write_kept()
        if sim.random.random() < sim.draw.leaving:
            yield 0
            yield from self._write([(frame(Kind.LEAVE), [])])

    def ask(self):
        """A signal: what is kept back is written amid a task, if there is room, and the worker is not just at it."""
        outbox = self.outbox
        if not self.alive or self.killed or self.stopped or self.rest or not self.has_run or self.closed_channel:
            return
        if self.stuck_until > self.sim.now or self.sim.random.random() < 0.2:
            return
        last, first = self.words[LAST], self.fetched
        gives_back = last > self.returned and first and self.first <= last and self.sim.random.random() < 0.9
        frames = outbox.take()
        if gives_back:
            frames.append((frame(Kind.RETURN, max(first, self.returned + 1), RETURN.pack(last)), []))
        if sum(len(part) for parts, _ in frames for part in parts) > self.capacity - len(self.result_pipe):
            outbox.frames = frames[:-1] if gives_back else frames
            return
        if gives_back:
            self.last = self.behind = first
            self.returned = last
            self.sim.counts["gives back"] += 1
            self.sim.note(self, "gives back", first, "to", last)
        for parts, numbers in frames:
            self.result_pipe += b"".join(map(bytes, parts))
            for seq in numbers:
                self.ends[seq] = True
                if seq == self.running:
                    self.running = 0

    def _run(self, call, task, seq, begin):
        """Run a task, up to its outcome: the page's stores are in the order of worker.py's."""
        sim, words = self.sim, self.words
        loads = begin is not None and sim.random.random() < sim.draw.loads
        if not call.plain:
            words[2] = LOAD if loads else DECODE
            yield 0
        if begin is not None:
            words[4] = int(begin * 1e9)
            yield 0
        if loads:
            words[2] = LOAD
            yield 0
            self._begin(call, task, seq)
            yield sim.boot_seconds()
            words[4] = int(sim.now * 1e9)
            yield 0
            words[2] = DECODE
            yield 0
        if not call.plain:
            if not loads:
                self._begin(call, task, seq)
            yield task.decode
            if task.dies == DECODE:
                raise Died(task.status)
            words[2] = RUN
        else:
            words[2] = RUN
            yield 0
            if not loads:
                self._begin(call, task, seq)
        yield task.seconds
        if task.scribbles:
            self._scribble(task.scribbles)
            yield task.seconds
        if task.dies in (RUN, DECODE):
            raise Died(task.status)
        if task.shape != "plain":
            words[2] = ENCODE
            yield task.encode
        if task.dies == ENCODE:
            raise Died(task.status)
        if task.shape != "error" and call.plain:
            words[2] = RUN

    def _begin(self, call, task, seq):
        insist(self.begun < seq, self, "runs task", seq, "after", self.begun)
        self.words[3] = seq
        self.running = self.begun = seq
        self.sim.insist_may_run(task)
        task.runs.append((self, seq, call.each))
        self.sim.counts["again"] += len(task.runs) > 1
        self.sim.note(self, "begins", task, "of", call, "as", seq)

    def _scribble(self, what):
        random = self.sim.random
        self.sim.note(self, "scribbles:", what)
        if what == "close":
            self.closed_channel = True
            return
        self.scribbles = self.sim.scribbled = True
        if what == "page":
            for word in random.sample((2, 3, 4), random.randint(1, 3)):
                self.words[word] = random.choice((0, 1, 3, 5, 7, random.getrandbits(8), random.getrandbits(64)))
        else:
            seconds = random.choice((math.nan, math.inf, -1.0, 1.0))
            entry = ENTRY.pack(1, self.begun, self.number, 0)
            count = random.choice((0, 1, 2, 1 << 31))
            body = random.choice((b"short", RECORD.pack(seconds) + entry, RECORDS.pack(seconds, count) + 2 * entry))
            number = random.choice((0, 1, self.begun, self.begun, 1 << 63))
            real = frame(random.choice(sorted(Kind.OF_WORKER)), number, body)[0]
            self.result_pipe += random.choice((random.randbytes(random.randint(1, 40)), real))

    def _write_kept(self, dies=None):
        """Write what is kept; if it `dies`, with this status, somewhere amid the last frame or before."""
        frames = self.outbox.take()
        if frames:
            self.words[2] = WRITE
            yield 0
            yield from self._write(frames, dies)

    def _write(self, frames, dies=None):
        data = b""
        for parts, numbers in frames:
            data += b"".join(map(bytes, parts))
            self.marks.append((len(data), numbers))
        self.pushed = 0
        self.rest = data
        if dies is not None:
            self.rest = data[: self.sim.random.randrange(len(data))]
        yield from self._write_rest()
        if dies is not None:
            raise Died(dies)
        insist(not self.marks, self, "has not noted the end of", self.marks)

    def _write_rest(self):
        random = self.sim.random
        if self.closed_channel:
            self.rest = b""
            yield INF
        while self.rest:
            self.waits = "write"
            yield 0
            self._push(random.choice((1, 3, 17, 1 << 20)) if self.pieces else 1 << 20)

    def _push(self, count):
        """So many bytes go into the pipe, if there is room."""
        count = min(count, self.capacity - len(self.result_pipe), len(self.rest))
        if count <= 0 or self.closed_channel:
            return
        self.result_pipe += self.rest[:count]
        self.rest = self.rest[count:]
        self.pushed += count
        while self.marks and self.marks[0][0] <= self.pushed:
            for seq in self.marks.popleft()[1]:  # from here on their outcomes must not be lost, whatever happens
                self.ends[seq] = True
                if seq == self.running:
                    self.running = 0

    def place_of(self, seq):
        for first, call in self.calls.items():
            if first <= seq < first + call.size:
                return call, seq - first
        raise Wrong(f"{self} has no task {seq}")


class Draw:
    """What this seed is like."""

    def __init__(self, random, core):
        some = lambda chance, most: random.uniform(0, most) if random.random() < chance else 0.0  # noqa: E731
        self.max_workers = random.choice((1, 1, 2, 2, 3, 4, 8))
        self.max_tasks_per_child = random.choice((None, None, None, 1, 2, 3, 7))
        self.calls = random.choice((3, 20, 60))
        self.sizes = random.choice((1, 1, 3, 10))
        self.scale = 10 ** random.uniform(-6, 0.5)  # seconds of a task
        self.jitter = 10 ** random.uniform(-7, -4)  # seconds that pass in a step
        self.limits = some(0.6, 1.0)
        self.limit_near = random.random() < 0.3  # limits near the time that the task takes
        self.batches = random.choice((0.0, 0.5, 1.0))  # calls of one task that are batches, and do not go again by themselves
        self.packs = random.choice((1.0, 1.0, 0.5, 0.0))
        self.functions = random.choice((0, 1, 1, 2))
        self.each = random.choice((0.0, 0.0, 0.3, 1.0))
        self.plain = random.choice((0.0, 0.5, 1.0))
        self.stride = random.choice((1, 3, 100))
        self.long = random.choice((0.0, 1e-4, 1e-4, self.scale, INF))  # the rule by which outcomes are kept back
        self.most_work = random.choice((0.0, 2e-4, 2e-4, 3 * self.scale, INF))
        self.most_kept = random.choice((1, 3, INF, INF, INF))
        self.errors = some(0.4, 0.5)
        self.pickles = some(0.5, 1.0)
        self.large = some(0.3, 0.3)
        self.halts = some(0.2, 0.3)
        self.together = random.choice((0.0, 0.5, 1.0))  # submitted by submit_all
        self.boxes = some(0.3, 1.0)
        self.buffers = some(0.2, 1.0)
        self.capacity = random.choice((32, 200, 5000, 1 << 18))
        self.read = max(self.capacity, random.choice((64, 1000, 1 << 20)))  # in one go at least what a pipe holds, as there
        self.pieces = random.choice((0.0, 0.3, 1.0))
        self.boot = 10 ** random.uniform(-3, 0)
        self.boots_dying = some(0.15, 0.3)
        self.boots_slow = some(0.1, 0.3)
        self.spawns_failing = some(0.1, 0.3)
        self.initializer_raising = some(0.04, 0.2)
        self.leaving = some(0.15, 0.5)
        self.exit_seconds = random.choice((0.0, 0.001, 1.0, 100.0))
        self.dying = some(0.4, 0.3)  # tasks by their own nature
        self.scribbling = some(0.08, 0.3)
        self.poison = some(0.1, 0.2)  # calls that kill who reads them
        self.closing = some(0.06, 0.2)
        self.loads = some(0.3, 0.5)  # tasks that have to unpickle their function
        self.endless = some(0.3, 0.3)
        self.kills = some(0.5, 0.03)  # faults, in a step
        self.stops = some(0.25, 0.03)
        self.sticks = some(0.25, 0.03)
        self.jumps = some(0.2, 0.02)
        self.cancels = some(0.3, 0.5)
        self.spurious = some(0.3, 0.3)
        self.memory = some(0.2, 0.1)  # looks that find too much of it
        self.late = random.choice((0.3, 0.3, 0.05, 0.7))  # of steps are the supervisor's
        self.stop_unseen = some(0.2, 1.0)  # a stop that does not come to stand in time
        self.steps = random.choice((30, 300, 1000, 1500))
        self.end = random.choice(("close", "close", "close", "close", "close", "close early", "kill"))
        mode = random.random()
        if mode < 0.3:  # tiny calls, many of which wait: they are packed, and outcomes are kept back
            self.max_workers = random.choice((1, 1, 2))
            self.max_tasks_per_child = random.choice((None, None, None, 20))
            self.calls, self.sizes = 120, random.choice((1, 1, 1, 10))
            self.scale = 10 ** random.uniform(-7, -4)
            self.jitter = 10 ** random.uniform(-7, -5.5)
            self.batches, self.packs, self.functions = 0.0, 1.0, random.choice((0, 1, 1, 2))
            self.capacity = random.choice((200, 5000, 1 << 18))
            self.read = max(self.capacity, self.read)
            self.long, self.most_work = random.choice(((1e-4, 2e-4), (INF, INF), (1e-4, INF), (INF, 1e-4)))
            self.each = random.choice((0.0, 0.0, 0.0, 0.3, 1.0))
            self.buffers = self.poison = self.closing = 0.0
            self.errors, self.dying, self.kills = self.errors / 10, self.dying / 10, some(0.7, 0.1)
            self.boots_slow = self.boots_dying = 0.0
            self.loads /= 20
            self.most_kept = random.choice((3, 10, INF, INF))
        self.uneven = 0.0  # of tasks take a thousand times as long
        limits = {"patience": random.choice((0.01, 0.01, self.scale, 1000.0, INF))}
        if 0.3 <= mode < 0.5:  # some tasks are long, and others, which were sent with them, could be done elsewhere
            self.uneven = random.choice((0.02, 0.1, 0.3))
            self.max_workers = random.choice((2, 2, 3, 4))
            self.sizes, self.calls = random.choice((1, 10, 10)), random.choice((3, 20, 60))
            self.scale = 10 ** random.uniform(-6, -3)
            self.jitter = 10 ** random.uniform(-7, -5)
            self.boxes, self.boot = random.choice((0.0, self.boxes)), 1e-3
            self.capacity = random.choice((200, 5000, 1 << 18))
            self.read = max(self.capacity, self.read)
            limits["patience"] = random.choice((0.01, 10 * self.scale, 100 * self.scale))
            limits["short"] = random.choice((0.005, 1000.0))
        if random.random() < 0.3:
            for name in ("second_look", "dump", "stop", "dead", "retire"):
                limits[name] = random.choice((0.0, 1e-6, 0.01, 1.0, 1000.0))
            if random.random() < 0.5:
                limits["boot"] = random.choice((0.001, 1.0, 1000.0))
        if random.random() < 0.5:
            limits.setdefault("short", random.choice((0.0, 0.005, 10.0, 1000.0)))
            limits["tiny"] = random.choice((0.0, 0.0005, 10.0))
            limits["ahead"] = random.choice((0.0, 0.002, 100.0))
            limits["most_ahead"] = random.choice((1, 2, 64))
            limits["most_packed"] = random.choice((1, 2, 5, 500))
            limits["heaviest"] = random.choice((0, 100, 1 << 16))
        self.core_limits = core.Limits(**limits)


class Sim:
    """One run: a pool, its user, its workers, and what befalls them.

    Args:
        seed: of everything.
        core: the module that is tried; another one has a mistake put into it on purpose.
        told: whether to keep what happened, in `notes`.
    """

    def __init__(self, seed, core=real_core, *, told=False):
        self.random = random.Random(seed)
        self.seed = seed
        self.module = core
        self.told = told
        self.notes = []
        self.now = 1000.0
        self.draw = draw = Draw(self.random, core)
        self.core = core.PoolCore(draw.max_workers, max_tasks_per_child=draw.max_tasks_per_child, limits=draw.core_limits)
        if draw.memory:
            self.core.max_memory = 1000
        self.calls = {}
        self.tasks = []
        self.to_dispatch = 0  # reads that have not ended, after which what waits is sent
        self.deliveries = 0  # what has been handed back, and is about to be sent again
        self.workers = {}  # by number, all that there ever were
        self.present = []  # SimWorkers that the supervisor has not reaped
        self.inbox = deque()
        self.faults = True
        self.scribbled = False
        self.depth = 0
        self.counts = Counter()
        self.is_closed = False
        self.in_end = False
        self.boot_failures = self.boot_failures_seen = 0  # in a row
        self.final = False  # an initializer has raised
        self.do_effect = {
            core.Spawn: self._spawn,
            core.Send: self._send,
            core.Halt: self._halt,
            core.Retire: self._retire,
            core.Look: self._look,
            core.Peek: self._peek,
            core.Ask: self._ask,
            core.DumpStack: self._dump_stack,
            core.Stop: self._stop,
            core.Continue: self._continue,
            core.Kill: self._kill,
            core.Resolve: self._resolve,
            core.Back: self._back,
            core.Over: self._over,
            core.Broken: self._broken,
            core.Warn: lambda effect: None,
        }

    def note(self, *told):
        if self.told:
            self.notes.append(f"{self.now:.9f}  {' '.join(map(str, told))}")

    # ---- the run

    def run(self):
        draw, random = self.draw, self.random
        for _ in range(draw.steps):
            self._step()
            if self.core.is_over():
                break
        self._to_the_end()
        self._judge_at_the_end()
        return self

    def _step(self):
        draw, random = self.draw, self.random
        self.now += random.random() * draw.jitter
        self._unstick()
        if random.random() < draw.jumps:
            self.now += 10 ** random.uniform(-3, 3)
            self.note("the clock jumps")
        chance = random.random()
        if chance < draw.late:
            self.turn()
        elif chance < draw.late + 0.12:
            self._user()
        elif chance < draw.late + 0.24 or not self._some_worker_runs():
            self._pass_time()
        if random.random() < draw.kills + draw.stops + draw.sticks:
            self._fault()

    def _some_worker_runs(self):
        able = [sim for sim in self.present if sim.can_run()]
        if not able:
            return False
        one = self.random.choice(able)
        for _ in range(self.random.choice((1, 1, 2, 5, 20))):
            if not one.can_run():
                break
            one.step()
        return True

    def _unstick(self):
        for one in self.present:
            if one.killed and one.alive and one.stuck_until <= self.now:
                one.end(-9)

    def _pass_time(self):
        """Let time pass until something is due; sometimes a little more, or less."""
        due = min([one.wakes() for one in self.present if one.wakes() > self.now], default=INF)
        tick = self.core.next_tick()
        if self.random.random() < 0.8 or self.in_end:
            due = min(due, tick)
        if due > self.now + LONG or due < self.now:
            return
        if any(one.can_run() or one.result_pipe or not one.alive for one in self.present) or self.inbox:
            if self.random.random() < 0.97:  # somebody has something to do now: it is rare that nobody does it for long
                due = min(due, self.now + 100 * self.draw.jitter)
        due += self.random.choice((0, 0, 0, 1e-6, 1e-3)) * self.random.random()
        self.now = max(self.now, due)

    def _user(self):
        draw, random = self.draw, self.random
        if draw.end == "close early" and not self.is_closed and random.random() < 0.1:
            self._close()
        if self.is_closed and random.random() < 0.9:  # a submit that overtakes close is possible
            return
        if random.random() < draw.cancels and self.calls:
            call = random.choice(list(self.calls.values()))
            if call.wanted and not call.claimed and call.out is None:
                call.wanted = False
                self.inbox.append(("cancel", call))
            return
        if random.random() < draw.halts and self.calls:
            call = random.choice(list(self.calls.values()))
            if call.claimed and call.out is None:
                self.inbox.append(("halt", call))
            return
        calls = [self._new_call() for _ in range(random.choice((1, 1, 3, 12, 40))) if len(self.calls) < draw.calls]
        if random.random() < draw.together:
            self.inbox.append(("submit_all", calls))
        else:
            self.inbox += [("submit", call) for call in calls]

    def _new_call(self):
        draw, random = self.draw, self.random
        tasks = [self._task() for _ in range(random.randint(1, draw.sizes))]
        limit = None
        if random.random() < draw.limits:
            near = tasks[0].seconds + random.uniform(-1e-3, 1e-3)
            limit = near if draw.limit_near and near > 0 else draw.scale * random.uniform(0.3, 30)
        if limit is not None and random.random() < draw.endless:
            task = random.choice(tasks)
            task.seconds = INF
        buffers = (
            [bytearray(random.randbytes(random.choice((0, 5, 300)))) for _ in range(2)] if random.random() < draw.buffers else []
        )
        padding = random.randbytes(random.choice((0, 0, 10, 400)))
        manner = Manner()
        manner.limit = limit
        manner.box = draw.scale * random.random() if random.random() < draw.boxes else 0.0
        manner.each = random.random() < draw.each
        manner.plain = random.random() < draw.plain
        manner.function = random.randint(1, draw.functions) if draw.functions else None
        manner.resends = len(tasks) == 1 and random.random() >= draw.batches
        manner.packs = manner.resends and random.random() < draw.packs
        call = SimCall(len(self.calls) + 1, tasks, manner, padding, buffers)
        call.poison = random.random() < draw.poison
        self.calls[call.number] = call
        return call

    def _again(self, call, tasks):
        """The user sends the rest of a batch again, as one batch or two, as engine/run.py does."""
        cut = self.random.randint(1, len(tasks)) if self.random.random() < 0.3 else len(tasks)
        for some in filter(None, (tasks[:cut], tasks[cut:])):
            again = SimCall(len(self.calls) + 1, some, call.manner, b"", [])
            again.poison = call.poison and some[0] is call.tasks[0]
            self.calls[again.number] = again
            self.inbox.append(("submit", again))

    def _task(self):
        draw, random = self.draw, self.random
        task = Task()
        task.number = len(self.tasks)
        self.tasks.append(task)
        task.deaths = 0
        task.runs = []  # (worker, number, whether its outcome was to be sent before the next task)
        task.workers = []  # that it was sent to, as the first of its call
        task.outcome = None
        task.seconds = draw.scale * random.expovariate(1) * (1000 if random.random() < draw.uneven else 1)
        task.decode = draw.scale * random.random() if random.random() < 0.1 else 0
        task.encode = draw.scale * random.random() if random.random() < 0.1 else 0
        task.dies = random.choice((DECODE, RUN, ENCODE, WRITE)) if random.random() < draw.dying else None
        task.status = random.choice((-11, -6, 3, 0))
        task.padding = random.randbytes(random.choice((0, 0, 20, 300)))
        task.buffers = ()
        task.shape = "pickle" if random.random() < draw.pickles else "plain"
        if random.random() < draw.errors:
            task.shape = "error"
        elif random.random() < draw.large:
            task.shape = "large"
            task.buffers = [bytearray(random.randbytes(random.choice((0, 9, 500))))] if random.random() < 0.5 else ()
        task.scribbles = None
        if random.random() < draw.scribbling:
            task.scribbles = random.choice(("page", "frames"))
        elif random.random() < draw.closing:
            task.scribbles = "close"
        return task

    def boot_seconds(self):
        if self.random.random() < self.draw.boots_slow:
            return self.draw.core_limits.boot * self.random.uniform(0.5, 2)
        return self.draw.boot * self.random.random()

    def _close(self):
        if not self.is_closed:
            self.is_closed = True
            self.inbox.append(("close", None))

    def _fault(self):
        draw, random = self.draw, self.random
        able = [one for one in self.present if one.alive]
        if not able:
            return
        ready = [one for one in able if one.was_ready]
        one = random.choice(ready if ready and random.random() < 0.8 else able)
        kind = random.choices(("kill", "stop", "stick"), (draw.kills, draw.stops, draw.sticks))[0]
        self.note("fault:", kind, one)
        self.counts[kind] += 1
        if kind == "kill":
            one.cut()
            one.kill()
        elif kind == "stop":
            one.stopped = not one.stopped
        else:
            one.stuck_until = self.now + random.choice((0.01, 0.1, 1.0, 1000.0, INF))

    # ---- the end

    def _to_the_end(self):
        self.in_end = True
        self.note("---- to the end")
        if self.draw.end == "kill":
            self.inbox.append(("kill", "killed at the end"))
        self._close()
        for one in self.present:
            one.stopped = False if one.worker.ending != self.module.Worker.STOPPED else one.stopped
            watched = one.running and one.words[2] in AT_WORK and one.place_of(one.running)[0].limit is not None
            if one.stuck_until > self.now and one.killed_at is None and not watched:
                one.stuck_until = 0.0
        for turns in range(20_000):
            if self.core.is_over():
                return
            if turns == 5_000 and self.scribbled:
                self.inbox.append(("kill", "looked at again and again"))
            self._unstick()
            ran = False
            for one in list(self.present):
                for _ in range(50):
                    if not one.can_run():
                        break
                    one.step()
                    ran = True
            before = self.counts["events"]
            self.turn()
            if not ran and before == self.counts["events"] and not self.inbox:
                at = self.now
                self._pass_time()
                if (
                    at == self.now
                    and self.core.next_tick() > self.now + LONG
                    and min((one.wakes() for one in self.present), default=INF) == INF
                ):
                    if (
                        self.scribbled and not self.core.killed
                    ):  # half a frame that nobody will finish: a user would lose patience
                        self.inbox.append(("kill", "waited too long"))
                    elif not self.core.is_over():
                        raise Wrong(f"nothing will ever happen: {self.core.workers}, {len(self.core.pending)} pending")
        raise Wrong(f"it goes on and on: {self.core.workers}, {len(self.core.pending)} pending")

    def _judge_at_the_end(self):
        insist(not self.inbox or self.core.is_over())
        while self.inbox:  # what comes after the end is refused, as `Supervisor.refuse_late` does
            what, call = self.inbox.popleft()
            if what in ("submit", "submit_all"):
                for late in call if what == "submit_all" else [call]:
                    self._end_call(late, "refused" if late.wanted else "cancelled")
            elif what == "cancel" and call.out is None:
                self._end_call(call, "cancelled")
        insist(self.core.next_tick() == INF, "something is due after the end")
        for call in self.calls.values():
            insist(call.out is not None, call, "is lost")
            if call.out == "done":
                insist(call.done == call.size, call, "has", call.done)
            elif call.out == "cancelled":
                self._end_call(call, "cancelled")
        for task in self.tasks:
            insist(task.outcome is not None, task, "has no outcome")
        for one in self.present:
            given_up = one.killed_at is not None and self.now >= one.killed_at + self.draw.core_limits.dead - EPS
            insist(given_up, one, "is left behind", one.alive)

    # ---- the supervisor

    def turn(self):
        random, core = self.random, self.core
        self._unstick()
        dead = [one for one in self.present if not one.alive]
        for one in random.sample(self.present, len(self.present)):
            if one.out:
                self._flush(one)
            if one.result_pipe or not one.alive or one.closed_channel:
                self._read(one)
        for one in dead:
            self._gone(one)
        for _ in range(len(self.inbox) if random.random() < 0.9 else 0):
            self._message(*self.inbox.popleft())
        if random.random() < self.draw.memory and self.present:
            self._look_at_memory(random.choice(self.present))
        if core.next_tick() <= self.now or random.random() < self.draw.spurious:
            self.do(core.tick(self.now))

    def _look_at_memory(self, one):
        if one.worker.calls:
            self._read(one)
            seq, _, phase = one.page.read()
            self.note(one, "is large, at", seq, "in", phase)
            self.do(self.core.memory(one.worker, seq, phase, self.random.choice((1500, 2001)), self.now))

    def _message(self, what, of):
        core = self.core
        self.counts["events"] += 1
        self.note("message:", what, of)
        if what == "submit":
            self.do(core.submit(of, self.now))
        elif what == "submit_all":
            self.do(core.submit_all(of, self.now))
        elif what == "delivered":
            self.deliveries -= 1
            core.more_may_come = self.deliveries > 0
            if core.closed and not core.more_may_come:
                self.do(core.close(self.now))
        elif what == "halt":
            with_worker = [sent for worker in core.workers.values() for sent in worker.calls if calls_in(sent.call) == [of]]
            of.halted = bool(with_worker)
            self.do(core.halt(of))
        elif what == "cancel":
            pending = any(call is of for call in core.pending)
            insist(core.cancel(of) == pending, "cancel of", of)
            if pending:
                of.out = "cancelled"
                if core.closed:
                    self.do(core.close(self.now))
        elif what == "close":
            self.do(core.close(self.now))
        elif what == "kill":
            self.do(core.kill(of, self.now))
        elif what == "boot_failed":
            self.boot_failures += of.state != self.module.Worker.DYING
            self.do(core.boot_failed(of, "no process", self.now))

    def do(self, effects):
        self.depth += 1
        for effect in effects:
            self.counts["events"] += 1
            if self.told:
                self.note("   ", type(effect).__name__, *effect)
            self.do_effect[type(effect)](effect)
        self.depth -= 1
        if not self.depth:
            self.check()

    def _read(self, one):
        """As Supervisor._read; whether there may be more."""
        if one.eof:
            return False
        parser, left, random = one.parser, self.draw.read, self.random
        dispatch = random.random() < 0.5  # at once, or when all has been read
        self.to_dispatch += not dispatch
        try:
            while left > 0:
                if not one.result_pipe:
                    if one.closed_channel or not one.alive:
                        one.eof = True
                        if one.alive:
                            self._distrust(one, "closed")
                    return False
                target = parser.target()
                count = min(left, len(one.result_pipe), len(target) if target is not None else left)
                if one.pieces:
                    count = random.randint(1, count)
                data = bytes(one.result_pipe[:count])
                del one.result_pipe[:count]
                left -= count
                self.counts["events"] += 1
                if target is not None:
                    target[:count] = data
                    frames = parser.filled(count)
                else:
                    frames = parser.feed(data)
                for arrived in frames:
                    self._take(one, arrived, dispatch)
        except (BadFrame, self.module.ProtocolError) as error:
            insist(one.scribbles, one, "is not believed:", error)
            self._distrust(one, str(error))
            return False
        finally:
            if not dispatch:
                self.to_dispatch -= 1
                self.do(self.core.dispatch(self.now))
        return True

    def _take(self, one, arrived, dispatch):
        core, worker, kind = self.core, one.worker, arrived.kind
        self.note(one, "has sent", kind, arrived.number)
        if kind in (Kind.RECORD, Kind.RECORDS):
            seconds, entries = self._entries_of(arrived)
            seq, count = arrived.number, len(entries)
            if not one.scribbles:
                for at, (number, told, writer, padding) in enumerate(entries, seq):
                    call, place = one.place_of(at)
                    task = call.tasks[place]
                    insist((number, told, writer) == (task.number, at, one.number), one, "says", number, told, writer)
                    shared = kind == Kind.RECORDS or (not arrived.flags and not arrived.buffers)
                    insist(
                        padding == task.padding and (shared or list(arrived.buffers) == list(task.buffers)), task, "is changed"
                    )
                    insist(bool(arrived.flags) == (task.shape == "error"), task, "has another status")
            self.counts["records"] += kind == Kind.RECORDS
            self.do(core.record(worker, seq, ("outcomes", one, entries), seconds, self.now, count=count, dispatch=dispatch))
            if not one.scribbles:
                one.ends.update(dict.fromkeys(range(seq, seq + count), "told"))
        elif kind == Kind.OVER:
            self.do(core.over(worker, arrived.number, self.now))
        elif kind == Kind.RETURN:
            try:
                (last,) = RETURN.unpack(arrived.body)
            except struct.error as error:
                raise BadFrame("tasks are given back up to no number") from error
            self.do(core.returned(worker, arrived.number, last, self.now))
        elif kind == Kind.READY:
            one.was_ready = True
            if worker.state == self.module.Worker.STARTING:
                self.boot_failures = 0
            self.do(core.ready(worker, self.now))
        elif kind == Kind.FAILED:
            self.final = self.final or worker.state == self.module.Worker.STARTING
            self.do(core.boot_failed(worker, "the initializer raised", self.now, final=True))
        elif kind == Kind.LEAVE:
            self.do(core.retire(worker, self.now))

    def _entries_of(self, arrived):
        """Return the seconds and the outcomes that a frame tells."""
        body, count = arrived.body, 1
        try:
            if arrived.kind == Kind.RECORD:
                (seconds,), place = RECORD.unpack_from(body), RECORD.size
            else:
                (seconds, count), place = RECORDS.unpack_from(body), RECORDS.size
            entries = []
            for _ in range(count):
                number, seq, writer, size = ENTRY.unpack_from(body, place)
                place += ENTRY.size + size
                entries.append((number, seq, writer, body[place - size : place]))
        except struct.error as error:
            raise BadFrame(f"outcomes that cannot be read: {error}") from error
        if place != len(body):
            raise BadFrame("outcomes of another length")
        return seconds, entries

    def _distrust(self, one, why):
        self.note(one, "is not trusted:", why)
        one.eof = one.distrusted = True
        one.killed_at = self.now
        one.kill()
        if hasattr(self.core, "lost"):
            self.boot_failures += one.worker.state == self.module.Worker.STARTING
            self.do(self.core.lost(one.worker, self.now))

    def _gone(self, one):
        while self._read(one):
            pass
        seq, start, phase = one.page.read()
        one.reaped = True
        self.present.remove(one)
        self.boot_failures += one.worker.state == self.module.Worker.STARTING
        self.counts["events"] += 1
        if one.worker.state != self.module.Worker.GONE and not self.core.broken and not one.distrusted:
            untold = [seq for seq, what in one.ends.items() if what != "told"]
            insist(not untold or one.scribbles, one, "has written what is not told:", untold)
        self.do(self.core.exited(one.worker, self.module.Died(one.status, phase, seq, start), self.now))

    def _flush(self, one):
        if not one.alive:
            one.out.clear()  # EPIPE
            return
        count = min(len(one.out), one.capacity - len(one.task_pipe))
        if one.pieces:
            count = self.random.randint(0, count)
        if count:
            self.counts["events"] += 1
            one.task_pipe += one.out[:count]
            del one.out[:count]
        elif one.out and len(one.task_pipe) < one.capacity:
            self.counts["events"] += 1

    def _push(self, one, parts):
        one.out += b"".join(map(bytes, parts))
        self._flush(one)

    # ---- effects

    def _one(self, worker):
        insist(worker.handle is not None, worker, "has no process")
        return worker.handle

    def _spawn(self, effect):
        worker = effect.worker
        insist(worker.number not in self.workers, worker, "is started twice")
        insist(not self.core.broken or worker.state == self.module.Worker.DYING, "a start in a broken pool")
        if self.random.random() < self.draw.spawns_failing and self.faults:
            self.workers[worker.number] = None
            self.inbox.append(("boot_failed", worker))
            return
        one = worker.handle = self.workers[worker.number] = SimWorker(self, worker)
        self.present.append(one)
        self._push(one, frame(Kind.BOOT, body=b"tell" * self.random.randint(0, 20)))

    def _send(self, effect):
        one = self._one(effect.worker)
        call = effect.call if effect.call.parts else getattr(effect.call, "call", effect.call)
        for place, part in enumerate(calls_in(call)):
            insist(part.claimed and part.out is None, part, "is sent, but", part.out)
            insist(not part.done and part.lost is None, part, "is sent, and has outcomes")
            part.sends.append((one, effect.first + place))
            part.tasks[0].workers.append(one)
            for task in part.tasks:
                self.insist_may_run(task)
        if call.parts:
            self.counts["packs"] += 1
            limits = self.draw.core_limits
            weight = sum(part.weight for part in call.parts)
            insist(call.size <= limits.most_packed and weight <= limits.heaviest, call, "is too large")
            insist(all(part.packs for part in call.parts), call, "has a call that is not to be packed")
            insist(all(a.number < b.number for a, b in itertools.pairwise(call.parts)), call, "is in another order")
        insist(one.was_ready and one.retired_at is None and one.killed_at is None, call, "is sent to", one)
        insist(not effect.worker.ending, call, "is sent to one that may have to die")
        insist(effect.first == one.next_seq, call, "is number", effect.first, "and not", one.next_seq)
        share = self.draw.max_tasks_per_child or INF
        before = (sent for sent in effect.worker.calls if sent.first < effect.first)
        used = effect.worker.tasks + sum(min(sent.size, one.most.get(sent.first, INF)) - sent.done for sent in before)
        insist(used < share, one, "has had its share of tasks")
        insist(used + (effect.most or call.size) <= share, call, "is more than the worker may run")
        one.next_seq += call.size
        one.calls[effect.first] = call
        insist(0 <= effect.most < call.size, call, "is to end after", effect.most)
        if effect.most:
            one.most[effect.first] = effect.most
            insist(share < INF, call, "is cut at", effect.most)
        self._push(one, frame(Kind.CALL, effect.first, call.body, call.buffers))

    def insist_may_run(self, task):
        """A task that has begun before may begin again only if what it did there has been lost unseen."""
        if self.scribbled:
            return
        insist(task.outcome is None, task, "has an outcome:", task.outcome)
        for one, seq, each in task.runs:
            insist(not one.alive or one.killed, task, "runs again, and", one, "lives")
            insist(seq not in one.ends, task, "runs again, and its outcome had been written")
            insist(one.words[3] != seq, task, "runs again, and was the one that ran when its worker died")
            insist(not each and not one.distrusted, task, "runs again, and its outcome may have been seen")

    def _halt(self, effect):
        one = self._one(effect.worker)
        call = one.calls[effect.first]  # which may have ended meanwhile, in the same frame
        insist(call.halted, one, "is to end", call)
        one.words[HALT] = effect.first

    def _retire(self, effect):
        one = self._one(effect.worker)
        insist(one.retired_at is None and one.killed_at is None, one, "is retired twice")
        insist(effect.worker.left == 0 or (self.core.closed and not self.core.pending), one, "is retired, and calls wait")
        one.retired_at = self.now
        self._push(one, frame(Kind.RETIRE))

    def _is_useless(self):
        return self.core.closed and not self.core.pending and not self.core.more_may_come

    def _look(self, effect):
        one = self._one(effect.worker)
        self._read(one)
        if one in self.present:
            seq, start, phase = one.page.read()
            one.looks.append((self.now, seq, phase, start))
            self.do(self.core.page(effect.worker, seq, start, phase, self.now))

    def _peek(self, effect):
        one = self._one(effect.worker)
        self._read(one)
        if one in self.present:
            seq, _, _ = one.page.read()
            self.do(self.core.peeked(effect.worker, seq, self.now))

    def _ask(self, effect):
        one = self._one(effect.worker)
        if effect.last:
            calls = effect.worker.calls
            insist(effect.last == calls[-1].first + calls[-1].size - 1, one, "is to give back", effect.last)
            insist(not self.core.pending, one, "is to give back what others have no time for")
        one.words[LAST] = effect.last
        one.ask()
        self.counts["asked"] += 1

    def _dump_stack(self, effect):
        one = self._one(effect.worker)
        insist(effect.worker.state == self.module.Worker.READY, one, "is asked for its stack")
        (first, seq, _, _), (second, again, phase, _) = [(0, 0, 0, 0), *one.looks][-2:]
        twice = seq == again == effect.worker.over_limit and second - first >= self.draw.core_limits.second_look - EPS
        insist(twice and phase in AT_WORK, one, "is asked for its stack, and was not seen twice:", one.looks[-2:])

    def _stop(self, effect):
        one = self._one(effect.worker)
        for _ in range(self.random.choice((0, self.random.randint(0, 12)))):  # it takes a moment until it stands
            if one.can_run():
                one.step()
        one.stopped = True
        self.now += self.random.random() * 1e-5
        if self.random.random() < self.draw.stop_unseen:
            return  # it is not known to stand still: the core looks when its time has come
        self._read(one)
        if one in self.present:
            seq, start, phase = one.page.read()
            one.looks.append((self.now, seq, phase, start))
            self.do(self.core.stopped(effect.worker, seq, start, phase, self.now))

    def _continue(self, effect):
        one = self._one(effect.worker)
        insist(one.alive or one in self.present, one)
        one.stopped = False

    def _kill(self, effect):
        worker, limits = effect.worker, self.draw.core_limits
        one = worker.handle
        if one is None:  # its start has failed, which the core will hear of
            return
        insist(one.killed_at is None or one.distrusted, one, "is killed twice")
        slow = not one.was_ready and self.now >= one.spawned_at + limits.boot - EPS
        self.boot_failures += slow
        if one.distrusted or self.core.broken is not None:
            pass
        elif worker.ending == self.module.Worker.KILLED:
            seq = worker.over_limit
            insist(one.scribbles or one.running == seq, one, "is killed for task", seq, "but runs", one.running)
            call, _ = one.place_of(seq)
            if worker.memory:
                insist(worker.memory == 2001, one, "is killed for little memory")
            else:
                late = self.now - one.words[4] / 1e9 - call.limit
                insist(late >= -EPS or one.scribbles, one, "is killed too early:", late)
            insist(one.words[2] in AT_WORK or one.scribbles, one, "is killed in phase", one.words[2])
            one.killed_for = seq
        elif one.retired_at is not None:
            insist(self.now >= one.retired_at + limits.retire - EPS, one, "had been told to end only now")
        else:
            insist(not one.was_ready and (slow or (self.core.closed and not self.core.pending)), one, "is killed for nothing")
        one.killed_at = self.now
        one.cut()
        one.kill()

    def _resolve(self, effect):
        what, module = effect.what, self.module
        lost = isinstance(what, (module.Crashed, module.TimedOut, module.OverMemory))
        insist(effect.number > 0 and (not lost or (effect.number, effect.offset) == (1, 0)), effect.call, "gets", effect.number)
        for at in range(effect.number):
            if effect.call.parts:
                call, place = effect.call.parts[effect.place + at], 0
                before = effect.call.parts[: effect.place + at]
                insist(lost or all(part.out for part in before), call, "has its outcome before those it was packed behind")
            else:
                call, place = getattr(effect.call, "call", effect.call), effect.place + at
            insist(call.out is None and call.lost is None, call, "is over, and place", place, "becomes", what)
            task = call.tasks[place]
            if lost:
                self._judge_loss(call, place, what)
                self.counts[type(what).__name__] += 1
                insist(call.done <= place < call.size, call, "place", place, "is lost after", call.done)
                if place > call.done:
                    self.counts["lost behind others"] += 1
                    call.lost = place
                else:
                    call.done += 1
            else:
                _, one, entries = what
                insist(place == call.done < call.size, call, "place", place, "after", call.done)
                number = entries[effect.offset + at][0]
                insist(number == task.number or one.scribbles, task, "of", call, "gets the outcome of", number)
                insist(call.sends[-1][0] is one, call, "is not of", one)
                call.done += 1
            insist(task.outcome is None, task, "has two outcomes:", task.outcome, what)
            task.outcome = what
            if effect.call.parts:
                call.out = "done"

    def _judge_loss(self, call, place, what):
        """A task is said to have died with its worker: had it begun, was it not told, is the reason right?"""
        module = self.module
        one, first = call.sends[-1]
        insist(what.worker.number == one.number, call, "is lost with", what.worker, "and was with", one)
        if one.scribbles:
            return
        seq = first + place
        if seq > one.begun:
            times = sum(not (sent.alive and not sent.killed) for sent in call.tasks[0].workers)
            insist(place == 0 and times >= module.BEGIN_TIMES, call, "place", place, "is lost, and had not begun")
        elif seq != one.words[3]:
            insist(call.each or one.distrusted, call, "place", place, "is lost, and could run again")
        insist(one.ends.get(seq) is None or one.distrusted, call, "place", place, "is lost, and was written")
        insist(one.reaped or one.killed, call, "is lost with", one, "which lives")
        if not one.reaped:
            insist(self.now >= one.killed_at + self.draw.core_limits.dead - EPS, one, "is given up too early")
        if isinstance(what, module.TimedOut):
            insist(one.killed_for == seq and what.limit == call.limit, call, "is told to be over a limit")
            insist(what.after >= call.limit - EPS, call, "ran", what.after, "of", call.limit)
        elif isinstance(what, module.OverMemory):
            insist(one.killed_for == seq and what.used == 2001, call, "is told to have taken too much memory")
        else:
            insist(one.killed_for != seq, call, "was killed for its limit, and is told to have crashed")

    def _over(self, effect):
        call, place, why = effect.call, effect.place, effect.why
        if why is not None:
            insist(why == self.core.broken, "why", why)
        if call.parts:
            insist(all(part.out for part in call.parts[:place]), call, "is over at", place)
            insist(place == call.size or why is not None, call, "is handed back, and not its parts")
            for part in call.parts[place:]:
                insist(part.out is None, part, "is over twice")
                self._end_call(part, "broken")
            return
        call = getattr(call, "call", call)
        insist(call.out is None, call, "is over twice")
        insist(place == call.done, call, "ends at", place, "after", call.done)
        if why is not None:
            self._end_call(call, "broken")
        elif place == call.size:
            call.out = "done"
        else:
            self._judge_rest(call, place, effect.ran)
            insist(call.halted or not call.resends, call, "is handed back, and not sent again")
            call.out = "handed back"
            if call.halted:
                self._end_call(call, "handed back")
                return
            self.core.more_may_come = True
            self.deliveries += 1
            lost = call.size if call.lost is None else call.lost
            for tasks in (call.tasks[place:lost], call.tasks[lost + 1 :]):
                if tasks:
                    self._again(call, tasks)
            self.inbox.append(("delivered", None))

    def _back(self, effect):
        call, place = effect.call, effect.place
        one, first = call.sends[-1]
        insist(not call.parts and not hasattr(call, "call") and call.out is None, call, "is handed back, and", call.out)
        insist(call.done <= place and 0 < place < call.size, call, "is cut at", place, "after", call.done)
        insist(first + place > one.begun or one.scribbles, call, "is handed back from", place, "and has begun")
        insist(not call.resends, call, "is handed back, and goes again by itself")
        self.counts["handed back amid a task"] += 1
        rest, call.tasks, call.size = call.tasks[place:], call.tasks[:place], place
        if call.halted:
            for task in rest:
                task.outcome = "handed back"
            return
        self.core.more_may_come = True
        self.deliveries += 1
        self._again(call, rest)
        self.inbox.append(("delivered", None))

    def _judge_rest(self, call, place, ran):
        """Are those that are said to have run those that have, and no others?"""
        one, first = call.sends[-1]
        lost = call.lost
        insist(lost is None or lost == place + ran, call, "has lost", lost, "and runs again from", place, "for", ran)
        if one.scribbles:
            return
        ran_there = lambda at: any((run[0], run[1]) == (one, first + at) for run in call.tasks[at].runs)  # noqa: E731
        begun = [at for at in range(place, call.size) if at != lost and ran_there(at)]
        insist(begun == [*range(place, place + ran)], call, "ran", begun, "and it is said", ran, "from", place)

    def _end_call(self, call, why):
        """No more comes of its tasks."""
        call.out = why
        for task in call.tasks:
            if task.outcome is None:
                task.outcome = why

    def _broken(self, effect):
        self.counts["broken"] += 1
        insist(self.counts["broken"] == 1, "broken twice")
        untold = sum(what == "boot_failed" for what, _ in self.inbox)  # a start that failed may have been given up before
        insist(self.core.killed or self.final or self.boot_failures + untold >= self.module.BOOT_TIMES, "broken for nothing")
        insist(effect.why == self.core.broken)

    # ---- what is true after every step

    def check(self):
        core, Worker = self.core, self.module.Worker
        places = Counter(id(part) for call in core.pending for part in calls_in(call))
        live = starting = idle = 0
        full = sum(bool(worker.calls) for worker in core.workers.values()) >= core.max_workers
        for number, worker in core.workers.items():
            state, calls = worker.state, worker.calls
            insist(number == worker.number and state != Worker.GONE, worker, "is gone and present")
            for sent in calls:
                insist(
                    sent.done < sent.size <= len(calls_in(sent.call)) if sent.call.parts else sent.size,
                    sent.call,
                    "is with a worker, and over",
                )
                for place, call in enumerate(calls_in(sent.call)):
                    insist(call.sends[-1] == (worker.handle, sent.first + place), call, "is elsewhere")
                    if sent.call.parts:
                        insist(bool(call.out) == (place < sent.done), call, "is", call.out, "and", sent.done, "of its pack are")
                    else:
                        insist(sent.done == call.done, call, "has", sent.done, "of", call.done)
                    places[id(call)] += not (sent.call.parts and place < sent.done)
            if state == Worker.READY:
                live += worker.left != 0
                idle += not calls and worker.left != 0
                insist(len(calls) <= max(2, core.limits.most_ahead), worker)
                self._check_timer(worker)
                kept = calls and worker.at(worker.handle.begun) is not None and worker.handle.begun > worker.due_next()
                insist(not kept or worker.ask_at < INF or core.limits.patience == INF or self.scribbled, worker, "is not asked")
                if calls and calls[0].halted:
                    insist(worker.handle.words[HALT] == calls[0].first or self.scribbled, worker, "is not told to end its call")
                if not calls and not self.to_dispatch and worker.ending not in (Worker.DUMPED, Worker.STOPPED):
                    insist(core.broken or not core.pending or worker.left == 0 or full, worker, "is idle, and calls wait")
                if not calls and not worker.ending:
                    insist(worker.left != 0, worker, "is to leave, and is not told")
                    insist(not self._is_useless() or full, worker, "is not told to end")
                insist(core.broken is None, worker, "lives in a broken pool")
                one = worker.handle
                if one.stopped and worker.ending == 0 and one.worker.over_limit:
                    insist(False, one, "is left stopped")
            else:
                insist(worker.due < INF, worker, "may stay so for ever")
                insist(not calls or state == Worker.DYING, worker, "has calls")
                if state == Worker.STARTING:
                    starting += 1
                    live += 1
        insist(live <= core.max_workers, live, "workers")
        insist(len(core.workers) <= 2 * core.max_workers, len(core.workers), "workers with those that are ending")
        busy = sum(bool(worker.calls) for worker in core.workers.values())
        insist(busy <= core.max_workers, busy, "workers have calls")
        if self.boot_failures > self.boot_failures_seen:
            too_often = self.boot_failures >= self.module.BOOT_TIMES and not core.closed
            able = any(worker.state == Worker.READY for worker in core.workers.values())
            insist(core.broken or not too_often or able, self.boot_failures, "starts have failed in a row")
        self.boot_failures_seen = self.boot_failures
        for one in self.present:
            if one.worker.state == Worker.GONE:
                insist(not one.worker.calls, one.worker, "is gone with calls")
                given_up = one.killed_at is not None and self.now >= one.killed_at + core.limits.dead - EPS
                insist(given_up, one.worker, "is gone, and its process is not")
        insist(core.broken is None or not core.pending, "calls wait in a broken pool")
        order = [(0, 0) if hasattr(call, "call") else (1, call.number) for call in core.pending]
        insist(order == sorted(order), "calls wait in this order:", order)
        sent = [call.call.sends[-1] for call in core.pending if hasattr(call, "call")]
        for (one, first), (other, second) in itertools.pairwise(sent):
            insist(one is not other or first < second or one.scribbles, "calls of", one, "wait in another order than they had")
        if core.pending and core.broken is None and not self.to_dispatch:
            waiting = len(core.pending)
            enough = (
                starting + idle >= waiting
                or live >= core.max_workers
                or len(core.workers) >= 2 * core.max_workers
                or (core._spawn_from and core.next_tick() < INF)
            )
            # What is about to die decides how soon the next one may start.
            enough = enough or any(worker.state == Worker.DYING for worker in core.workers.values())
            insist(enough, waiting, "wait and", live, "workers are enough?")
            insist(core._spawn_from <= self.now or core.next_tick() < INF or live, "calls wait for a start that never comes")
        for call in self.calls.values():
            there = places.get(id(call), 0)
            if call.out is not None:
                insist(there == 0, call, "is out and present")
            elif call.asked or there:
                insist(there == 1, call, "is in", there, "places")

    def _check_timer(self, worker):
        """Is the worker looked at when the task that it runs is over its limit?"""
        limits = [sent.call.limit for sent in worker.calls if sent.call.limit is not None]
        insist(not limits or worker.due < INF, worker, "has a limit and no timer")
        one = worker.handle
        if worker.ending or one.scribbles or not one.running or one.words[2] not in (DECODE, RUN, ENCODE):
            return
        call, _ = one.place_of(one.running)
        if call.limit is None or worker.at(one.running) is None:
            return
        start = one.words[4] / 1e9
        latest = start + call.limit
        for when, seq, phase, then in one.looks[-1:]:  # it may have come between the reading of the clock and the page's stores
            latest = max(
                latest, when + max(self.draw.core_limits.second_look, 0.0 if seq == one.running and phase != LOAD else call.limit)
            )
            if phase == LOAD:  # which may take long, and is not looked at all the time
                latest = max(latest, when + (when - then) / 20)
        insist(
            worker.due <= latest + EPS + self.draw.jitter,
            worker,
            "is looked at at",
            worker.due,
            "and its task is over its limit at",
            latest,
        )


def play(seed, core=real_core, *, told=False):
    """Run one seed."""
    return Sim(seed, core, told=told).run()


def told(seed, core=real_core, last=80):
    """Return what happened in a seed, as text, and how it ended."""
    sim = Sim(seed, core, told=True)
    try:
        sim.run()
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    else:
        end = f"all is well: {dict(sim.counts)}"
    return "\n".join([str(vars(sim.draw)), *sim.notes[-last:], end, f"again: python -m tests.executors.process.sim {seed}"])


def main(argv):
    if len(argv) == 1:
        print(told(int(argv[0]), last=100_000))
        return 0
    failed = 0
    for seed in range(int(argv[0]), int(argv[1])):
        try:
            play(seed)
        except Exception as error:
            failed += 1
            print(seed, f"{type(error).__name__}: {error}")
    print(f"{failed} of {int(argv[1]) - int(argv[0])} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

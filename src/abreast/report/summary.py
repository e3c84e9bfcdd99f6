"""What a recording says about its works, in figures: all that text, advice and pages tell.

::

    Recording ──summarize──▶ Summary ── works: WorkSummary ── workers, errors, slowest, tail, locks
                                │
                                ├──▶ advice.py     one sentence
                                └──▶ text.py       the report

Pure: the same recording gives the same figures. Totals are those of the `Work`, which are exact; what only attempts tell (the slowest, each worker's share) is
of those that were kept, and `missing` says how many were not. What is not known is None, never 0.

**One after another** is not the sum of the attempts' times: three tasks that compute on three threads take 3 s each where one alone takes 1 s, since each
one's time contains the turns of the others. What they were held up by (the GIL, the run queue, locks) is taken off, where it is known.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.recording import Row
from abreast.core.states import CRASHED, FAILED, LOCK, OUTCOMES, TIMEOUT, UNFINISHED

if TYPE_CHECKING:
    from abreast.core.recording import Attempt, Host, Recording, Work

__all__ = ["ErrorKind", "HeldLock", "Parts", "Summary", "Tail", "WorkSummary", "Worker", "split", "summarize"]

SECOND = 1e9

_begin, _end = itemgetter(5), itemgetter(6)  # of an `Attempt`: by place is twice as fast as by name, and there may be 200,000


class Parts(NamedTuple):
    """Where time in tasks went. What is known adds up to it.

    Attributes:
        computing: on a CPU.
        waiting: for anything outside; also for what is None of the other three.
        lock: for a lock.
        gil: held up by the GIL, an estimate.
        runqueue: for a CPU.
        unknown: what cannot be split, since CPU times are not known; if that is all, `computing` and `waiting` are None.
    """

    computing: int | None
    waiting: int | None
    lock: int | None
    gil: int | None
    runqueue: int | None
    unknown: int = 0

    @property
    def held_up(self) -> int:
        """What would not have been there, had the tasks run one after another."""
        return (self.lock or 0) + (self.gil or 0) + (self.runqueue or 0)


def split(wall: int, cpu: int | None, runqueue: int | None = None, lock: int | None = None, gil: int | None = None) -> Parts:
    """Return where `wall` nanoseconds in tasks went.

    Clocks are not exact, so what was measured may be more than there is: then the surest is believed first (CPU time, the run queue, locks), and the
    estimate of the GIL last.

    >>> split(100, 30, gil=64)
    Parts(computing=30, waiting=6, lock=None, gil=64, runqueue=None, unknown=0)
    >>> split(100, 80, gil=64)
    Parts(computing=80, waiting=0, lock=None, gil=20, runqueue=None, unknown=0)
    """
    left = max(0, wall)
    if cpu is not None:
        cpu = min(max(0, cpu), left)
        left -= cpu
    if runqueue is not None:
        runqueue = min(max(0, runqueue), left)
        left -= runqueue
    if lock is not None:
        lock = min(max(0, lock), left)
        left -= lock
    if gil is not None:
        gil = min(max(0, gil), left)
        left -= gil
    return Parts(cpu, None if cpu is None else left, lock, gil, runqueue, left if cpu is None else 0)


class Worker(NamedTuple):
    """What one row did for one work, of the attempts that were kept.

    Attributes:
        row: which.
        tasks: how many attempts it had.
        busy: nanoseconds with at least one attempt, within the time of the work.
        share: `busy` of the whole time of the work, 0 to 1.
        parts: where the time in its attempts went.
        attempts: by begin.
    """

    row: Row
    tasks: int
    busy: int
    share: float
    parts: Parts
    attempts: list[Attempt]


class ErrorKind(NamedTuple):
    """One type of error.

    Attributes:
        type: the name of its class, or what happened (``timeout``, ``crashed``) if there is none.
        times: how many tasks failed with it.
        number: the first of them, by index.
        call: its call.
        message: its error's text.
    """

    type: str
    times: int
    number: int
    call: str
    message: str


class Tail(NamedTuple):
    """The end of a work, when few workers were busy still.

    Attributes:
        begin: from when on.
        length: nanoseconds to the end of the last attempt.
        busy: how many workers were busy.
        idle: how many were not.
        attempts: what ran, the longest three, longest first.
        several: whether a worker had more than one.
    """

    begin: int
    length: int
    busy: int
    idle: int
    attempts: list[Attempt]
    several: bool


class HeldLock(NamedTuple):
    """One lock that tasks waited for.

    Attributes:
        what: its name.
        holder: who had it most of that time; empty if not known.
        site: file and line; empty if not known.
        waited: nanoseconds, of all.
        times: how often.
    """

    what: str
    holder: str
    site: str
    waited: int
    times: int


@dataclass(frozen=True, slots=True)
class WorkSummary:
    """What there is to tell of one `Work`. Times are nanoseconds.

    Attributes:
        work: its totals.
        elapsed: from its begin to its end.
        parts: where the time in tasks, ``work.wall``, went.
        one_after_another: what the tasks would have taken so, an estimate.
        is_upper_bound: whether it is at most that, since something that held tasks up was not measured.
        speed_up: `one_after_another` / `elapsed`; None if nothing ran.
        share: `speed_up` / ``work.workers``, 1.0 is the ideal; None if nothing ran.
        queued: the shortest, mean and longest time from submit to start; shortest and longest are None if attempts are missing, all if not known.
        queue: how many tasks waited for a worker, on the average; None if not known.
        idle: the share of its workers' time in which they had nothing to do, 0 to 1, before the tail begins.
        errors: most frequent first. If attempts are missing there may be less than ``work.failed``.
        workers: the rows that had an attempt of it, by serial.
        slowest: the longest ten attempts, longest first.
        tail: the end, if few workers were busy for more than a hundredth of the time.
        locks: longest waited for first.
        overhead: what pickling and starting workers cost of `elapsed`, as well as that can be told; None if not known.
        kept: how many attempts there are.
        missing: how many were not kept.
        unfinished: attempts of which the end is not known.
        batch: the most attempts over which one CPU time was measured.
    """

    work: Work
    elapsed: int
    parts: Parts
    one_after_another: int
    is_upper_bound: bool
    speed_up: float | None
    share: float | None
    queued: tuple[int | None, float | None, int | None]
    queue: float | None
    idle: float
    errors: list[ErrorKind]
    workers: list[Worker]
    slowest: list[Attempt]
    tail: Tail | None
    locks: list[HeldLock]
    overhead: int | None
    kept: int
    missing: int
    unfinished: list[Attempt]
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, as JSON has them; times in seconds."""
        work, parts = self.work, self.parts
        low, mean, high = self.queued
        return {
            "name": work.name,
            "kind": work.kind,
            "max_workers": work.workers,
            "tasks": work.tasks,
            "attempts": work.attempts,
            "failed": work.failed,
            "timeouts": work.timeouts,
            "crashes": work.crashes,
            "retries": work.retries,
            "cancelled": work.cancelled,
            "resumed": work.resumed,
            "unfinished": len(self.unfinished),
            "elapsed": self.elapsed / SECOND,
            "one_after_another": self.one_after_another / SECOND,
            "one_after_another_is_upper_bound": self.is_upper_bound,
            "speed_up": self.speed_up,
            "share_of_ideal": self.share,
            "time_in_tasks": {"total": max(0, work.wall) / SECOND, **_seconds(parts), "gil_at_most": _second(work.gil_bound)},
            "queued": {"min": _second(low), "mean": _second(mean), "max": _second(high)},
            "idle": self.idle,
            "overhead": _second(self.overhead),
            "errors": [error._asdict() for error in self.errors],
            "workers": [
                {
                    "name": worker.row.name,
                    "kind": worker.row.kind,
                    "native_id": worker.row.native_id,
                    "pid": worker.row.pid,
                    "tasks": worker.tasks,
                    "busy": worker.busy / SECOND,
                    "share": worker.share,
                    **_seconds(worker.parts),
                }
                for worker in self.workers
            ],
            "slowest": [_told(attempt) for attempt in self.slowest],
            "tail": self.tail
            and {
                "length": self.tail.length / SECOND,
                "busy": self.tail.busy,
                "idle": self.tail.idle,
                "attempts": [_told(attempt) for attempt in self.tail.attempts],
            },
            "locks": [lock._asdict() | {"waited": lock.waited / SECOND} for lock in self.locks],
            "missing_attempts": self.missing,
            "cpu_time_per_batch_of": self.batch,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What there is to tell of a recording.

    Attributes:
        host: where it was made.
        works: all of them, in the order in which they began.
        elapsed: from the begin of the first to the end of the last, nanoseconds.
        strays: attempts that belong to no work that is in the recording, which only a damaged file has.
        dropped_spans, cost, complete: as in `Recording`.
    """

    host: Host
    works: list[WorkSummary]
    elapsed: int
    strays: int
    dropped_spans: int
    cost: int
    complete: bool


def summarize(recording: Recording) -> Summary:
    """Return the figures of a recording.

    Args:
        recording: whole, or cut short; it is not changed.
    """
    of_work: dict[int, dict[int, list[Attempt]]] = {work.serial: {} for work in recording.works}
    strays = 0
    for attempt in recording.attempts:
        groups = of_work.get(attempt[0])
        if groups is None:
            strays += 1
        elif (group := groups.get(attempt[3])) is None:
            groups[attempt[3]] = [attempt]
        else:
            group.append(attempt)
    for groups in of_work.values():
        for group in groups.values():
            group.sort(key=_begin)
    rows = {row.serial: row for row in recording.rows}
    locks = _locks(recording, of_work)
    works = [
        _summarize_work(work, recording, of_work[work.serial], rows, locks.get(work.serial, []))
        for work in sorted(recording.works, key=lambda work: (work.begin, work.serial))
    ]
    begin = min((work.begin for work in recording.works), default=0)
    elapsed = max(0, max((work.end for work in recording.works), default=0) - begin)
    return Summary(recording.host, works, elapsed, strays, recording.dropped_spans, recording.cost, recording.complete)


def _summarize_work(
    work: Work, recording: Recording, groups: dict[int, list[Attempt]], rows: dict[int, Row], locks: list[HeldLock]
) -> WorkSummary:
    gathered = _Gathered()
    workers = [_worker(work, rows.get(serial) or _unknown_row(serial), groups[serial], gathered) for serial in sorted(groups)]
    kept = sum(worker.tasks for worker in workers)
    missing = max(0, work.attempts - (kept - len(gathered.unfinished)))
    elapsed = max(0, work.end - work.begin)
    unmeasured = 0 if work.cpu is None else min(max(0, work.unmeasured), max(0, work.wall))
    parts = split(work.wall - unmeasured, work.cpu, work.runqueue, work.lock, work.gil)
    if unmeasured:
        parts = parts._replace(unknown=unmeasured)
    one_after_another = max(0, work.wall) - parts.held_up
    ran = work.attempts > 0 and elapsed > 0
    speed_up = one_after_another / elapsed if ran else None
    width = max(work.workers, 1)
    tail = None if missing else _tail(workers, width, elapsed)
    return WorkSummary(
        work=work,
        elapsed=elapsed,
        parts=parts,
        one_after_another=one_after_another,
        is_upper_bound=_is_upper_bound(work, recording.host, elapsed),
        speed_up=speed_up,
        share=speed_up / width if speed_up is not None else None,
        queued=_queued(work, gathered, missing),
        queue=max(0, work.queued) / elapsed if elapsed and (gathered.shortest is not None or work.queued > 0) else None,
        idle=_idle(work, width, elapsed, tail, gathered.unfinished),
        errors=sorted(
            (ErrorKind(kind, *found) for kind, found in gathered.errors.items()),
            key=lambda kind: (-kind.times, kind.number, kind.type),
        ),
        workers=workers,
        slowest=nlargest(10, gathered.slowest, key=_length),
        tail=tail,
        locks=locks,
        overhead=_overhead(work, workers),
        kept=kept,
        missing=missing,
        unfinished=gathered.unfinished,
        batch=gathered.batch,
    )


class _Gathered:
    """What is looked for in all attempts of a work, worker by worker."""

    def __init__(self) -> None:
        self.errors: dict[str, tuple[int, int, str, str]] = {}
        self.slowest: list[Attempt] = []
        self.unfinished: list[Attempt] = []
        self.shortest: int | None = None  # in the queue
        self.longest = 0
        self.batch = 1

    def failed(self, attempt: Attempt) -> None:
        name, _, message = (attempt.error or "").partition(": ")
        name = name.strip() or OUTCOMES[attempt.outcome]
        count, number, call, first = self.errors.get(name, (0, attempt.number, attempt.call, message))
        if attempt.number < number:
            number, call, first = attempt.number, attempt.call, message
        self.errors[name] = (count + 1, number, call, first)


def _worker(work: Work, row: Row, attempts: list[Attempt], gathered: _Gathered) -> Worker:
    wall = unsplit = cpus = runqueues = locks = gils = busy = 0
    has_cpu = has_runqueue = has_lock = has_gil = False
    until, end_of_work = work.begin, work.end
    shortest, longest = gathered.shortest, gathered.longest
    for attempt in attempts:
        # By place, and all at once: this loop is most of what a report costs.
        _, _, _, _, queued, begin, end, outcome, _, cpu, runqueue, gil, lock, _, _, shares, *_ = attempt
        wall += (took := end - begin if end > begin else 0)
        if queued is not None:
            waited = begin - queued if begin > queued else 0
            if shortest is None or waited < shortest:
                shortest = waited
            longest = max(longest, waited)
        if cpu is None:
            unsplit += took
        else:
            has_cpu = True
            cpus += cpu
        if runqueue is not None:
            has_runqueue = True
            runqueues += runqueue
        if gil is not None:
            has_gil = True
            gils += gil
        if lock is not None:
            has_lock = True
            locks += lock
        # The attempts of a loop of coroutines overlap; only what is new counts as busy.
        until = max(until, begin)
        end = min(end, end_of_work)
        if end > until:
            busy += end - until
            until = end
        if outcome:
            if outcome in (FAILED, TIMEOUT, CRASHED):
                gathered.failed(attempt)
            elif outcome == UNFINISHED:
                gathered.unfinished.append(attempt)
        gathered.batch = max(gathered.batch, shares)
    gathered.shortest, gathered.longest = shortest, longest
    gathered.slowest += nlargest(10, attempts, key=_length)
    elapsed = work.end - work.begin
    parts = split(
        wall - unsplit if has_cpu else wall,
        cpus if has_cpu else None,
        runqueues if has_runqueue else None,
        locks if has_lock else None,
        gils if has_gil else None,
    )
    if has_cpu:
        parts = parts._replace(unknown=unsplit)
    return Worker(row, len(attempts), busy, min(1.0, busy / elapsed) if elapsed > 0 else 0.0, parts, attempts)


def _is_upper_bound(work: Work, host: Host, elapsed: int) -> bool:
    """Whether something may have held tasks up that was not measured."""
    if work.kind == "serial" or work.workers < 2:
        return False
    if host.has_gil and work.kind != "process" and (work.gil is None or 10 * work.unmeasured > work.wall):
        return True
    if work.runqueue is not None or (host.has_gil and work.kind != "process"):
        return False
    # Those that compute on too few cores wait for a CPU; those that wait for something else do not.
    return work.workers > host.cores and (work.cpu is None or 2 * work.cpu > host.cores * elapsed)


def _queued(work: Work, gathered: _Gathered, missing: int) -> tuple[int | None, float | None, int | None]:
    if gathered.shortest is None and work.queued <= 0:
        return None, None, None
    mean = max(0, work.queued) / work.attempts if work.attempts else None
    if missing or gathered.shortest is None:
        return None, mean, None
    return gathered.shortest, mean, gathered.longest


def _tail(workers: list[Worker], width: int, elapsed: int) -> Tail | None:
    """The end of a work, in which at most a quarter of the workers were busy, with what had been submitted before."""
    if width < 2 or len(workers) < 2 or sum(worker.tasks for worker in workers) < 2:
        return None
    ends = sorted(((max(map(_end, worker.attempts)), worker) for worker in workers), key=itemgetter(0), reverse=True)
    last = ends[0][0]
    # Of one busy worker, two, …: where most of the others' time was lost.
    busy = max(range(1, min(max(1, width // 4), len(ends) - 1) + 1), key=lambda n: (last - ends[n][0]) * (width - n))
    begin = ends[busy][0]
    if (last - begin) * 100 <= elapsed or width <= busy:
        return None
    found: list[Attempt] = []
    several = False
    for _, worker in ends[:busy]:
        mine = [attempt for attempt in worker.attempts if attempt.end > begin]
        if any(attempt.queued is not None and attempt.queued >= begin for attempt in mine):
            return None  # the work came late: nobody dawdled
        several = several or len(mine) > 1
        found += mine
    return Tail(begin, last - begin, busy, width - busy, nlargest(3, found, key=_length), several)


def _idle(work: Work, width: int, elapsed: int, tail: Tail | None, unfinished: list[Attempt]) -> float:
    """In the tail others are idle too, but that has a name of its own."""
    busy = max(0, work.wall) + sum(map(_length, unfinished))
    if tail is not None:
        busy -= tail.length * tail.busy
        elapsed -= tail.length
    if elapsed <= 0:
        return 0.0
    return min(1.0, max(0.0, 1 - busy / (width * elapsed)))


def _overhead(work: Work, workers: list[Worker]) -> int | None:
    """Workers start side by side, so of the times to start them only the longest counts."""
    boots = [worker.row.boot for worker in workers if worker.row.boot and worker.row.begin >= work.begin]
    if work.overhead is None:
        return max(boots, default=None)
    return max(0, work.overhead - sum(boots)) + max(boots, default=0)


def _locks(recording: Recording, of_work: dict[int, dict[int, list[Attempt]]]) -> dict[int, list[HeldLock]]:
    """The locks that the tasks of each work waited for. A span says its row only: its work is that of the attempt which it stands in."""
    spans = [span for span in recording.spans if span.state == LOCK and span.end > span.begin]
    if not spans:
        return {}
    wanted = {span.row for span in spans}
    on_row: dict[int, list[Attempt]] = {}
    for groups in of_work.values():
        for row in wanted & groups.keys():
            on_row.setdefault(row, []).extend(groups[row])
    begins: dict[int, list[int]] = {}
    for row, attempts in on_row.items():
        attempts.sort(key=_begin)
        begins[row] = list(map(_begin, attempts))
    found: dict[int, dict[tuple[str, str], list[Any]]] = {}
    for span in spans:
        place = bisect_right(begins.get(span.row, ()), span.begin)
        if place == 0 or (attempt := on_row[span.row][place - 1]).end < span.end:
            continue  # not in a task
        waits = found.setdefault(attempt.work, {}).setdefault((span.what, span.site), [0, 0, {}])
        waits[0] += span.end - span.begin
        waits[1] += 1
        if span.holder:
            waits[2][span.holder] = waits[2].get(span.holder, 0) + span.end - span.begin
    return {
        work: sorted(
            (
                HeldLock(what, max(sorted(holders), key=holders.__getitem__, default=""), site, waited, times)
                for (what, site), (waited, times, holders) in waits.items()
            ),
            key=lambda lock: (-lock.waited, lock.what, lock.site),
        )
        for work, waits in found.items()
    }


def _length(attempt: Attempt) -> int:
    return attempt[6] - attempt[5]


def _unknown_row(serial: int) -> Row:
    """Only a damaged file lacks a row."""
    return Row(serial, "thread", f"row {serial}", 0, 0, 0, 0, 0)


def _told(attempt: Attempt) -> dict[str, Any]:
    return {"number": attempt.number, "call": attempt.call, "duration": max(0, _length(attempt)) / SECOND, "row": attempt.row}


def _second(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / SECOND


def _seconds(parts: Parts) -> dict[str, float | None]:
    return {name: _second(value) for name, value in parts._asdict().items()}

"""The recorder: takes what executors and runs tell (core/watch.py), bounded, and makes a `Recording` of it.

::

    threads that do the work ── attempts(log, some) ─▶ [chunks]  kept as they come, one for each batch     `_lock` guards them, and the sums of what is not kept
                              ── span(row, …)       ─▶ [spans]   those that touch are one
                              ── over(log)          ─▶ {over}    what a run says of itself at its end
    the prober, a thread      ── every 10 ms ────────▶ [late]    whether it was held up (core/gil.py)

    recording(): chunks ─▶ Attempt for each task; what a thread was held up by the GIL

Sums are exact, whatever is kept: at most `limit` attempts. Nothing is made of what was told until somebody asks for it, but the sums of what is not kept.

Held up by the GIL, an estimate (docs/design/seeing.md): a thread that waits for the GIL wakes every switch interval, which is one voluntary switch, so
``bound = min(wait - run queue, switches * switch interval)``; what part of that it was is for core/gil.py, and known when all of a work has been added.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import time
from itertools import pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core import watch
from abreast.core.gil import WAKING, Prober, evident, plain
from abreast.core.recording import Attempt, Host, Recording, Row, Span, Work
from abreast.core.states import CANCELLED, CRASHED, FAILED, OK, RETRIED, TIMEOUT
from abreast.core.text import printable

if TYPE_CHECKING:
    from abreast.core.watch import Attempts, Log, Thread

__all__ = ["Recorder"]

LIMIT = 200_000
"""Attempts that are kept, of 180 bytes each."""
COST_OF_BATCH, COST_OF_ATTEMPT = 6_000, 150
"""Nanoseconds that recording takes, measured on one machine: said in the report, so that nobody wonders."""
_TOUCH = 1_000_000
"""Nanoseconds between two spans that are shown as one."""


_HeldUp = tuple[float, float]
"""Nanoseconds by the GIL, as far as something speaks for it: to be multiplied by the model's ratio, and for a machine that is busy."""


class _Sums:
    """What is exact of a work."""

    __slots__ = (
        "attempts", "bound", "cancelled", "cpu", "crashes", "failed", "gil", "held_back", "last", "plain", "queued", "retries", "runqueue", "timeouts", "unmeasured",
        "wall",
    )  # fmt: skip

    def __init__(self) -> None:
        self.attempts = self.failed = self.timeouts = self.crashes = self.retries = self.cancelled = 0
        self.wall = self.queued = self.unmeasured = self.held_back = 0
        self.plain = 0.0
        self.last = 0
        """When the last of them ended."""
        self.cpu: int | None = None
        self.runqueue: int | None = None
        self.gil: float | None = None
        """While attempts are added: the sum of `bound`, as far as something speaks for it; then the estimate. `plain` is that sum for a busy machine."""
        self.bound: int | None = None

    def copy(self) -> _Sums:
        other = _Sums()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def add(self, some: Attempts) -> None:
        count = len(some.ends)
        last = watch.nanoseconds(some.ends[-1])
        wall = last - some.begin
        self.attempts += count
        self.wall += wall
        self.last = max(self.last, last)
        if some.number > 1:
            self.retries += count
        if some.queued:
            self.queued += max(0, some.begin - some.queued) * count + _waited_for_each_other(some)
        for outcome, _ in some.failed.values():
            self.cancelled += outcome == CANCELLED
            self.failed += outcome != CANCELLED
            self.timeouts += outcome == TIMEOUT
            self.crashes += outcome == CRASHED
        measure = some.measure
        if measure is not None and measure.is_over:
            self.cpu = (self.cpu or 0) + min(measure.cpu, wall)
            if measure.runqueue is not None:
                self.runqueue = (self.runqueue or 0) + measure.runqueue
        else:
            self.unmeasured += wall

    def merge(self, other: _Sums) -> None:
        """Add the sums of others."""
        for name in self.__slots__:
            mine, others = getattr(self, name), getattr(other, name)
            if name == "last":
                self.last = max(mine, others)
            elif others is not None:
                setattr(self, name, (mine or 0) + others)

    def held_up(self, some: Attempts, prober: Prober | None, since: int) -> _HeldUp | None:
        """Add how long attempts of a work that began then were held up by the GIL at most, and what speaks for it, which is returned; None if nothing is known."""
        measure = some.measure
        if measure is None or not measure.is_over or measure.switches is None or prober is None:
            return None
        if some.row is not None and some.row.kind == "process":
            return None
        end = watch.nanoseconds(some.ends[-1])
        waited = end - some.begin - measure.cpu - (measure.runqueue or 0)
        bound = max(0, min(waited, measure.switches * int(sys.getswitchinterval() * 1e9)))
        share = prober.share(some.begin, end, since)
        by_model, by_share = bound * evident(share), bound * plain(share)
        self.held_back += max(0, (measure.runqueue or 0) - measure.switches * WAKING)
        self.bound, self.gil = (self.bound or 0) + bound, (self.gil or 0) + by_model
        self.plain += by_share
        return by_model, by_share

    def held_up_in_all(self, prober: Prober | None, begin: int) -> _HeldUp:
        """All has been added: make `gil` the estimate; return what part it is of what spoke for it, both ways."""
        if prober is None or not self.gil or self.bound is None:  # nothing speaks for it: the model takes 60 us, of 100,000 works
            return 0.0, 0.0
        ratio = prober.ratio(begin, self.last, self.wall - self.unmeasured, self.cpu or 0, self.held_back, self.bound)
        ratios = (0.0, 1.0) if ratio is None else (ratio, 0.0)
        self.gil = self.gil * ratios[0] + self.plain * ratios[1]
        return ratios


class _End(NamedTuple):
    """What a run has said at its end."""

    time: int
    retries: int
    cancelled: int
    resumed: int


class Recorder:
    """Watches from `start` to `stop`.

    Args:
        limit: how many attempts to keep at most.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._lock = threading.RLock()  # a finalizer, or a signal's handler, may run under it, and be watched itself
        self._chunks: list[tuple[Log, Attempts]] = []
        self._logs: dict[Log, _Sums] = {}
        self._over: dict[Log, _End] = {}
        self._spans: list[list[Any]] = []
        self._last_span: dict[Thread, list[Any]] = {}
        self._kept = self._dropped = self._dropped_spans = self._batches = 0
        self._zero_wall = time.time_ns()
        self._zero = self._end = perf_counter_ns()
        self._main: Thread | None = None
        self._prober = Prober() if _has_gil() else None

    # ---- while it goes on

    def start(self) -> None:
        self._zero_wall, self._zero = time.time_ns(), perf_counter_ns()
        self._end = 0
        if self._prober is not None:
            self._prober.start()
        watch.start(self)
        self._main = watch.this_thread()

    def stop(self) -> None:
        watch.stop(self)
        self._end = perf_counter_ns()
        if self._prober is not None:
            self._prober.stop()

    def attempts(self, log: Log, some: Attempts) -> None:
        """Take attempts that have ended: in the thread that did them, or settles them."""
        count = len(some.ends)
        with self._lock:
            if self._end:
                return
            self._batches += 1
            if self._kept + count <= self.limit:
                self._kept += count
                self._chunks.append((log, some))  # its sums are made when somebody asks
                return
            self._dropped += count
            sums = self._logs.get(log)
            if sums is None:
                sums = self._logs[log] = _Sums()
            sums.add(some)
            sums.held_up(some, self._prober, log.begin)

    def over(self, log: Log) -> None:
        """A run is over. Noted here and now: another one may end long after the recording."""
        with self._lock:
            if not self._end:
                self._over[log] = _End(log.end, log.retries, log.cancelled, log.resumed)

    def span(self, row: Thread, begin: int, end: int, state: int, what: str) -> None:
        """A row has waited for something."""
        with self._lock:
            if self._end:
                return
            last = self._last_span.get(row)
            if last is not None and begin - last[2] < _TOUCH and last[3:] == [state, what]:
                last[2] = end
                return
            if len(self._spans) >= self.limit:
                self._dropped_spans += 1
                return
            last = [row, begin, end, state, what]
            self._spans.append(last)
            self._last_span[row] = last

    # ---- what came of it

    def recording(self) -> Recording:
        """Return what has been recorded so far, or in all."""
        with self._lock:
            chunks, spans = list(self._chunks), [tuple(span) for span in self._spans]
            logs = {log: sums.copy() for log, sums in self._logs.items()}
            over = dict(self._over)
            end = self._end or perf_counter_ns()
            dropped, dropped_spans, batches, kept = self._dropped, self._dropped_spans, self._batches, self._kept
        maker = _Maker(self._zero, end, self._main)
        first = _first_of_each([*logs, *(log for log, _ in chunks)])
        of_all, logs = logs, {}
        for log, sums in of_all.items():
            logs.setdefault(first[log], _Sums()).merge(sums)
        held_up: list[_HeldUp | None] = []
        for log, some in chunks:
            sums = logs.setdefault(first[log], _Sums())
            sums.add(some)
            held_up.append(sums.held_up(some, self._prober, log.begin))
        for log in over:  # one of which all was resumed, or that had no inputs, has no attempts
            logs.setdefault(log, _Sums())
        logs = dict(sorted(logs.items(), key=lambda pair: pair[0].begin))
        works = {log: serial for serial, log in enumerate(logs)}
        ratios = {log: sums.held_up_in_all(self._prober, log.begin) for log, sums in logs.items()}
        attempts: list[Attempt] = []
        for (log, some), ways in zip(chunks, held_up, strict=True):
            one = first[log]
            gil = None if ways is None else int(ways[0] * ratios[one][0] + ways[1] * ratios[one][1])
            maker.add(attempts, works[one], one, some, gil, log.base - one.base)
        _mark_retried(attempts)
        rows: list[set[int]] = [set() for _ in works]
        for each in attempts:
            rows[each.work].add(each.row)
        made_spans = [maker.span(*span) for span in spans]
        return Recording(
            _host(self._prober is not None),
            self._zero_wall,
            end - self._zero,
            [maker.work(serial, log, logs[log], over.get(log), len(rows[serial])) for log, serial in works.items()],
            _lasting(maker.rows, attempts),
            attempts,
            made_spans,
            dropped,
            dropped_spans,
            batches * COST_OF_BATCH + (kept + dropped) * COST_OF_ATTEMPT,
            bool(self._end),
        )


def _first_of_each(logs: list[Log]) -> dict[Log, Log]:
    """Return the first log of the place of each: an executor has a new one whenever others watch, and is one work all the same."""
    first: dict[Any, Log] = {}
    for log in logs:
        if log.place is not None and first.setdefault(log.place, log).base > log.base:
            first[log.place] = log
    return {log: log if log.place is None else first[log.place] for log in logs}


def _waited_for_each_other(some: Attempts) -> int:
    """Return the sum of the times that tasks of a batch waited for those before them."""
    if len(some.ends) == 1:
        return 0
    return sum(map(watch.nanoseconds, some.ends[:-1])) - (len(some.ends) - 1) * some.begin


class _Maker:
    """Makes rows and attempts of what was told."""

    def __init__(self, zero: int, end: int, main: Thread | None) -> None:
        self.zero = zero
        self.end = end
        self.rows: list[Row] = []
        self._serials: dict[Thread | None, int] = {}
        if main is not None:
            self.serial(main)

    def serial(self, row: Thread | None) -> int:
        found = self._serials.get(row)
        if found is None:
            found = self._serials[row] = len(self.rows)
            if row is None:
                self.rows.append(Row(found, "thread", "unknown", 0, 0, os.getpid(), 0, 0))
            else:
                # Seen in an earlier recording, or in a later one.
                begin, end = (max(self.zero, min(time, self.end)) - self.zero for time in (row.begin, row.end))
                self.rows.append(Row(found, row.kind, row.name, row.ident, row.native_id, row.pid, begin, end))
        return found

    def add(self, attempts: list[Attempt], work: int, log: Log, some: Attempts, held_up: int | None, before: int) -> None:
        """`held_up`: how long they were, by the GIL; `before`: how many calls the logs of the same place before this one have counted."""
        measure = some.measure if some.measure is not None and some.measure.is_over else None
        count = len(some.ends)
        zero, row = self.zero, self.serial(some.row)
        submitter = None if some.submitter is None else self.serial(some.submitter)
        queued = some.queued - zero if some.queued else None
        ends = [watch.nanoseconds(end) - zero for end in some.ends]
        begins = [some.begin - zero, *ends[:-1]]
        wall = ends[-1] - begins[0]
        cpus: list[int | None] = [None] * count
        runqueues, gils, shares = cpus, cpus, 1
        if measure is not None:
            each = measure.cpus
            if each is not None and len(each) == count + 1:
                cpus = [after - before for before, after in pairwise(each)]
            else:
                shares = count
                cpus = _shared(min(measure.cpu, wall), begins, ends)
            waits = [max(0, end - begin - (cpu or 0)) for begin, end, cpu in zip(begins, ends, cpus, strict=True)]
            waited = sum(waits)
            if measure.runqueue is not None:
                runqueues = _in_proportion(min(measure.runqueue, waited), waits)
            if held_up is not None:
                gils = _in_proportion(held_up, waits)
        failed, first = some.failed, before + some.first
        for place in range(count):
            outcome, error = failed.get(place, (OK, None))
            attempts.append(
                Attempt(
                    work,
                    first + place,
                    some.number,
                    row,
                    queued,
                    begins[place],
                    ends[place],
                    outcome,
                    watch.text_of(log.name, some, place),
                    cpus[place],
                    runqueues[place],
                    gils[place],
                    None,
                    error,
                    submitter,
                    shares,
                )
            )

    def span(self, row: Thread, begin: int, end: int, state: int, what: str) -> Span:
        return Span(self.serial(row), begin - self.zero, end - self.zero, state, what)

    def work(self, serial: int, log: Log, sums: _Sums, over: _End | None, rows: int) -> Work:
        """`rows`: how many rows it had; of a group without a limit that is how many workers."""
        last = over.time if over is not None else sums.last
        # A run knows it better: a task that ran in a process, and goes again since that died before its result was sent, has a second attempt, and
        # nothing is told of the first.
        retries = over.retries if over is not None else sums.retries
        return Work(
            serial,
            log.name,
            log.kind,
            log.workers or rows,
            log.begin - self.zero,
            last - self.zero,
            sums.attempts - retries,
            sums.attempts,
            max(0, sums.failed - retries),
            sums.timeouts,
            sums.crashes,
            retries,
            sums.cancelled if over is None else over.cancelled,
            0 if over is None else over.resumed,
            sums.wall,
            sums.cpu,
            sums.queued,
            None if sums.gil is None else int(sums.gil),
            sums.runqueue,
            None,
            sums.bound,
            log.overhead,
            sums.unmeasured,
        )


def _lasting(rows: list[Row], attempts: list[Attempt]) -> list[Row]:
    """Return rows that last as long as what they did: a process is first seen when its first outcomes come."""
    begins, ends = [row.begin for row in rows], [row.end for row in rows]
    for each in attempts:
        row, begin, end = each.row, each.begin, each.end
        begins[row], ends[row] = min(begins[row], begin), max(ends[row], end)
    return [row._replace(begin=begin, end=end) for row, begin, end in zip(rows, begins, ends, strict=True)]


def _shared(cpu: int, begins: list[int], ends: list[int]) -> list[int | None]:
    """Give each task of a batch its share of the CPU time, in proportion to what it took."""
    return _in_proportion(cpu, [end - begin for begin, end in zip(begins, ends, strict=True)])


def _in_proportion(amount: int, weights: list[int]) -> list[int | None]:
    total = sum(weights)
    return [0 if total <= 0 else amount * weight // total for weight in weights]


def _mark_retried(attempts: list[Attempt]) -> None:
    """What failed and was tried again is known by the attempt that followed."""
    last: dict[tuple[int, int], int] = {}
    for each in attempts:
        if each.attempt > 1:
            key = (each.work, each.number)
            last[key] = max(last.get(key, 0), each.attempt)
    if last:
        for place, each in enumerate(attempts):
            if each.outcome in (FAILED, TIMEOUT, CRASHED) and last.get((each.work, each.number), 0) > each.attempt:
                attempts[place] = each._replace(outcome=RETRIED)


def _has_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _host(has_gil: bool) -> Host:
    implementation = platform.python_implementation()
    return Host(
        socket.gethostname(),
        platform.python_version() + ("" if implementation == "CPython" else f" ({implementation})"),
        getattr(sys.modules.get("abreast"), "__version__", ""),
        has_gil,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        sys.platform,
        os.getpid(),
        printable(sys.argv[0].replace("\\", "/").rpartition("/")[2] if sys.argv else ""),
        sys.getswitchinterval(),
    )

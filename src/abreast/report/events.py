"""A recording as trace events, a line each: what Perfetto, chrome://tracing and VizTracer's viewer draw.

Each rule here is kept for a fault that was seen in one of them; tests/report/trace_rules.py holds them:

* ``pid`` and ``tid`` are integers; a ``tid`` is the serial of a row, as identifiers of threads are used again.
* Slices (``X``) of a thread lie beside or within each other. What would cross another one is drawn on a further line of its row.
* Arrows (``s``, ``f``) begin and end strictly within slices, and no two slices of submitting overlap.
* ``M`` has no ``ts``. Times are microseconds with the nanoseconds behind the point, durations differences of integers.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate, chain, count
from typing import TYPE_CHECKING, Any, NamedTuple

from abreast.core.recording import Attempt, Span
from abreast.core.states import COMPUTING, CPU, GIL, IDLE, JOINING, LOCK, OUTCOMES, QUEUED, STATES, WAITING
from abreast.report.stored import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from abreast.core.recording import Recording, Row

__all__ = ["base", "lines"]

ARROWS = 20_000
"""Attempts up to which arrows are drawn, and the time in the queue of each; with more there is nothing to be seen, and viewers are slow."""

LANES = 100
"""Lines of a row. With more, as when 100,000 attempts overlap on one, the rest is left out, and counted."""

POINTS = 2000
"""Points of a counter; with more changes, as many at equal distances."""

SUBMIT = 1000
"""Nanoseconds that submitting is drawn with, at most: how long it took is not recorded."""

CATEGORIES = {
    COMPUTING: "compute",
    WAITING: "wait.io",
    LOCK: "wait.lock",
    GIL: "wait.gil",
    CPU: "wait.cpu",
    JOINING: "join",
    QUEUED: "queue",
    IDLE: "idle",
}

string = json.encoder.encode_basestring_ascii


class Submit(NamedTuple):
    """Tasks that a row has submitted at one moment."""

    row: int
    begin: int
    end: int
    tasks: int


class Flow(NamedTuple):
    """Where the arrow to an attempt begins."""

    serial: int
    pid: int
    tid: int
    at: int


def base(recording: Recording) -> int:
    """Return the time that the events count from: the recording's zero, or the earliest submit before it, since viewers know no time below 0."""
    attempts = recording.attempts
    first = min(map(_begin, chain(attempts, recording.spans, recording.rows)), default=0)
    return min(0, first, min((attempt.queued for attempt in attempts if attempt.queued is not None), default=0))


def lines(recording: Recording) -> Iterator[str]:
    """Return the events, without commas and line ends."""
    return _Picture(recording).lines()


def microseconds(time: int) -> str:
    """Return nanoseconds as microseconds.

    Perfetto multiplies a double by 1000 and cuts off what is behind the point: 1.001 gives 1000, so that slices that end together do not any more, and one is
    dropped. A fourth digit helps where that is so.

    >>> microseconds(1000), microseconds(1001)
    ('1.000', '1.0011')
    """
    return f"{time // 1000}.{time % 1000:03d}" if int(time / 1000 * 1000.0) == time else f"{time // 1000}.{time % 1000:03d}1"


def _begin(thing: Any) -> int:
    begin: int = thing.begin
    return begin


def _outermost_first(thing: Attempt | Span | Submit) -> tuple[int, int]:
    return thing.begin, -thing.end


def _head(name: str, category: str, pid: int, tid: int) -> str:
    """The beginning of a slice, the same for many."""
    return f'{{"name":{string(name)},"cat":"{category}","ph":"X","pid":{pid},"tid":{tid},"ts":'


class _Picture:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._base = base(recording)
        self._main = next((row for row in recording.rows if row.kind == "main"), next(iter(recording.rows), None))
        self._next_tid = len(recording.rows)
        self._is_small = len(recording.attempts) < ARROWS
        self._flows: dict[int, Flow] = {}  # by the identity of the attempt, whose tuple may be equal to another one's
        self._left_out = 0
        self._head = lru_cache(4096)(_head)

    def lines(self) -> Iterator[str]:
        recording = self._recording
        yield from self._processes()
        yield from self._counters()
        slices: list[list[Attempt | Span | Submit]] = [[] for _ in recording.rows]
        for attempt in recording.attempts:
            slices[attempt.row].append(attempt)
        for span in recording.spans:
            slices[span.row].append(span)
        if self._is_small:
            yield from self._queues()
            self._submits(slices)
        for row in recording.rows:
            yield from self._row(row, slices[row.serial])
        if self._left_out:
            yield self._meta(
                "process_labels", recording.host.pid, {"labels": f"{self._labels()}, {self._left_out} slices left out"}
            )

    def _time(self, time: int) -> str:
        return microseconds(time - self._base)

    # processes and threads

    def _labels(self) -> str:
        host = self._recording.host
        return f"Python {host.python} ({'GIL' if host.has_gil else 'no GIL'}), {host.cores} cores, {host.name}"

    def _processes(self) -> Iterator[str]:
        host = self._recording.host
        pids = dict.fromkeys((host.pid, *(row.pid for row in self._recording.rows)))
        boots = {row.pid: row.boot for row in self._recording.rows if row.boot is not None}
        for place, pid in enumerate(pids):
            yield self._meta("process_name", pid, {"name": host.script or "main" if pid == host.pid else f"process {pid}"})
            if pid == host.pid:
                yield self._meta("process_labels", pid, {"labels": self._labels()})
            elif pid in boots:
                yield self._meta("process_labels", pid, {"labels": f"started in {boots[pid] / 1e6:.0f} ms"})
            yield self._meta("process_sort_index", pid, {"sort_index": place})

    def _thread(self, row: Row, tid: int, lane: int) -> Iterator[str]:
        name = f"{row.name} (ident {row.ident}, native {row.native_id})" if not lane else f"{row.name}, at the same time ({lane})"
        yield self._meta("thread_name", row.pid, {"name": name}, tid)
        yield self._meta("thread_sort_index", row.pid, {"sort_index": row.serial * LANES + lane}, tid)

    @staticmethod
    def _meta(name: str, pid: int, args: dict[str, Any], tid: int | None = None) -> str:
        where = "" if tid is None else f',"tid":{tid}'
        return f'{{"name":"{name}","ph":"M","pid":{pid}{where},"args":{encode(args)}}}'

    # what rows did

    def _row(self, row: Row, slices: list[Attempt | Span | Submit]) -> Iterator[str]:
        """Give each slice a line of its row on which it crosses nothing: mostly the first."""
        slices.sort(key=_outermost_first)
        yield from self._thread(row, row.serial, 0)
        lanes: list[tuple[int, list[int]]] = [(row.serial, [])]  # tid; when what is open there ends, the innermost last
        for one in slices:
            for tid, ends in lanes:  # noqa: B007  # where it was left
                while ends and ends[-1] <= one.begin:
                    ends.pop()
                if not ends or one.end <= ends[-1]:
                    break
            else:
                if len(lanes) == LANES:
                    self._left_out += 1
                    continue
                tid, ends = self._next_tid, []
                yield from self._thread(row, tid, len(lanes))
                self._next_tid += 1
                lanes.append((tid, ends))
            ends.append(one.end)
            if isinstance(one, Attempt):
                yield self._attempt(one, row.pid, tid)
                if (flow := self._flows.pop(id(one), None)) is not None:
                    yield from self._arrow(flow, one, row.pid, tid)
            elif isinstance(one, Span):
                yield self._span(one, row.pid, tid)
            else:
                yield self._slice(self._head("submit", "submit", row.pid, tid), one, f'{{"tasks":{one.tasks}}}')

    def _slice(self, head: str, one: Attempt | Span | Submit, args: str) -> str:
        return f'{head}{microseconds(one.begin - self._base)},"dur":{microseconds(one.end - one.begin)},"args":{args}}}'

    def _attempt(self, one: Attempt, pid: int, tid: int) -> str:
        wall, cpu, gil, runqueue, lock, queued = one.end - one.begin, one.cpu, one.gil, one.runqueue, one.lock, one.queued
        args = f'{{"task":{one.number},"call":{string(one.call)},"state":"{OUTCOMES[one.outcome]}","attempt":{one.attempt}'
        if queued is not None:
            args += f',"queued_ms":{max(0, one.begin - queued) / 1e6:.3f}'
        if cpu is not None:
            rest = wall - cpu - (gil or 0) - (runqueue or 0) - (lock or 0)
            args += f',"cpu_ms":{cpu / 1e6:.3f},"wait_ms":{max(0, rest) / 1e6:.3f}'
            if one.shares != 1:
                args += f',"cpu_of_batch":{one.shares}'
        if gil is not None:
            args += f',"gil_ms":{gil / 1e6:.3f},"gil_exact":false'
        if runqueue is not None:
            args += f',"runq_ms":{runqueue / 1e6:.3f}'
        if lock is not None:
            args += f',"lock_ms":{lock / 1e6:.3f}'
        if one.error is not None:
            args += f',"error":{string(one.error)}'
        return self._slice(self._head(self._recording.works[one.work].name or "task", "task", pid, tid), one, args + "}")

    def _span(self, one: Span, pid: int, tid: int) -> str:
        category, what = CATEGORIES[one.state], one.what
        if one.state == WAITING and "sleep" in what:
            category = "wait.sleep"
        if one.state == LOCK:
            site = f" ({one.site})" if one.site else ""
            what = f"waiting for {what or 'a lock'}{site}" + (f", held by {one.holder}" if one.holder else "")
        args = {"state": STATES[one.state].name} | {
            name: value for name, value in (("what", one.what), ("holder", one.holder), ("site", one.site)) if value
        }
        return self._slice(self._head(what or STATES[one.state].name, category, pid, tid), one, encode(args))

    # queues and arrows, of small recordings

    def _queues(self) -> Iterator[str]:
        rows = self._recording.rows
        for serial, one in enumerate(self._recording.attempts):
            if one.queued is not None and one.queued < one.begin:
                home = rows[
                    one.submitter if one.submitter is not None else self._main.serial if self._main is not None else one.row
                ]
                what = f'"name":"queued","cat":"queue","pid":{home.pid},"tid":{home.serial},"id2":{{"local":"{serial}"}}'
                yield f'{{"ph":"b",{what},"ts":{self._time(one.queued)},"args":{{"task":{one.number},"call":{string(one.call)}}}}}'
                yield f'{{"ph":"e",{what},"ts":{self._time(one.begin)}}}'

    def _submits(self, slices: list[list[Attempt | Span | Submit]]) -> None:
        """Add a short slice for each moment at which a row has submitted something, if there is room for it and an arrow."""
        serials = count(1)
        submitted: dict[int, dict[int, list[Attempt]]] = {}
        for one in self._recording.attempts:
            if one.submitter is not None and one.queued is not None and one.queued < one.begin:
                submitted.setdefault(one.submitter, {}).setdefault(one.queued, []).append(one)
        for submitter, moments in submitted.items():
            row = self._recording.rows[submitter]
            edges = sorted({*moments, *(time for one in slices[submitter] for time in (one.begin, one.end))})
            for moment, attempts in moments.items():
                place = bisect_right(edges, moment)
                length = min(SUBMIT, edges[place] - moment) if place < len(edges) else SUBMIT
                if length < 4:
                    continue
                slices[submitter].append(Submit(submitter, moment, moment + length, len(attempts)))
                for one in attempts:
                    self._flows[id(one)] = Flow(next(serials), row.pid, submitter, moment + length // 2)

    def _arrow(self, flow: Flow, one: Attempt, pid: int, tid: int) -> Iterator[str]:
        at = one.begin + 1  # within the attempt, and before anything within that, which would get the arrow
        if flow.at < at < one.end:
            what = f'"name":"submit","cat":"submit","id":{flow.serial}'
            yield f'{{"ph":"s",{what},"pid":{flow.pid},"tid":{flow.tid},"ts":{self._time(flow.at)}}}'
            yield f'{{"ph":"f","bp":"e",{what},"pid":{pid},"tid":{tid},"ts":{self._time(at)}}}'

    # counters

    def _counters(self) -> Iterator[str]:
        """How many attempts ran, and waited to; and the share of the running ones that the GIL held up, by estimate."""
        attempts = self._recording.attempts
        if not attempts:
            return
        pid = self._recording.host.pid
        begins, ends = sorted(map(_begin, attempts)), sorted(one.end for one in attempts)
        waiting = [(one.queued, one.begin) for one in attempts if one.queued is not None and one.queued < one.begin]
        queued, started = sorted(pair[0] for pair in waiting), sorted(pair[1] for pair in waiting)
        times: list[int] = sorted({*begins, *ends, *queued}) if len(attempts) <= POINTS else []
        if not times or len(times) > POINTS:
            first, last = min(begins[0], *queued[:1]), ends[-1]
            times = [first + (last - first) * i // POINTS for i in range(POINTS + 1)]
        held = any(one.gil is not None for one in attempts)
        by_begin, by_end = (self._held_up(of_end) if held else [] for of_end in (False, True))
        for time in times:
            begun, ended = bisect_right(begins, time), bisect_right(ends, time)
            waits = bisect_right(queued, time) - bisect_right(started, time)
            where = f'"ph":"C","pid":{pid},"ts":{self._time(time)}'
            yield f'{{"name":"tasks",{where},"args":{{"running":{begun - ended},"queued":{waits}}}}}'
            if held:
                share = (by_begin[begun] - by_end[ended]) / max(1, begun - ended)
                yield f'{{"name":"held up by the GIL (estimate)",{where},"args":{{"percent":{min(100.0, max(0.0, 100 * share)):.1f}}}}}'

    def _held_up(self, of_end: bool) -> list[float]:
        """Return the shares that the GIL held the first 0, 1, 2, … attempts up, added up."""
        ordered = sorted(self._recording.attempts, key=(lambda one: one.end) if of_end else _begin)
        return [0.0, *accumulate((one.gil or 0) / max(1, one.end - one.begin) for one in ordered)]

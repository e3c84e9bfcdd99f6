"""What was recorded of some work: `Recording`, which the recorder writes, and reports, pages and trace files are made of.

::

    observe/recorder.py ──▶ Recording ──▶ report/: text and advice, the page, the trace file (which gives back an equal Recording)

Plain data, no clock, no lock. All times are integers: nanoseconds since `Recording.zero`, by `time.perf_counter_ns`, which all processes of a machine
share. What is not known is None, never 0.

A *row* is a line of the picture: a thread, or a process with one. It has a serial number of its own, since what `threading.get_ident` says is used again as
soon as a thread ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = [
    "Attempt",
    "Host",
    "Recording",
    "Row",
    "Span",
    "Work",
]


class Row(NamedTuple):
    """A thread, or a process.

    Attributes:
        serial: its number in this recording, from 0.
        kind: ``"thread"``, ``"process"`` (a worker in a process of its own), or ``"main"`` (the thread that recorded).
        name: of the thread, or ``process 4242``.
        ident, native_id: as `threading` has them.
        pid: of its process.
        begin, end: when it was first and last seen.
        boot: nanoseconds that its process took to start, where it has one of its own.
    """

    serial: int
    kind: str
    name: str
    ident: int
    native_id: int
    pid: int
    begin: int
    end: int
    boot: int | None = None


class Work(NamedTuple):
    """A run over many inputs, or what was submitted to one executor or group. Its sums are exact, also of attempts that were not kept.

    Attributes:
        serial: its number in this recording, from 0.
        name: of the function, or of the executor.
        kind: ``"thread"``, ``"process"``, ``"serial"``, ``"group"``, or the class of a foreign executor.
        workers: how many workers it could have.
        begin, end: of the run, or of the first submit and the last end.
        tasks: how many tasks have ended, failed ones included.
        attempts: how many attempts have ended; more than `tasks` if some were tried again.
        failed: how many tasks have failed for good, time-outs and crashes included.
        timeouts, crashes, retries, cancelled, resumed: how many of each.
        wall: the sum of the attempts' times from start to end.
        cpu: the sum of their CPU times; None if it is not known.
        queued: the sum of the times from submit to start.
        gil, runqueue, lock: the sums of what they were held up by; None if not known; `gil` is an estimate.
        gil_bound: the most that `gil` can be.
        overhead: nanoseconds that pickling and starting workers took, None if not known.
        unmeasured: the part of `wall` that no CPU time is known of: of tasks over their limit, or whose worker died.
    """

    serial: int
    name: str
    kind: str
    workers: int
    begin: int
    end: int
    tasks: int
    attempts: int
    failed: int = 0
    timeouts: int = 0
    crashes: int = 0
    retries: int = 0
    cancelled: int = 0
    resumed: int = 0
    wall: int = 0
    cpu: int | None = None
    queued: int = 0
    gil: int | None = None
    runqueue: int | None = None
    lock: int | None = None
    gil_bound: int | None = None
    overhead: int | None = None
    unmeasured: int = 0


class Attempt(NamedTuple):
    """One try at a task.

    Attributes:
        work: the serial of the `Work` that it is part of.
        number: the index of its input, from 0; or the how-manieth call.
        attempt: 1 for the first.
        row: the serial of the `Row` it ran on.
        queued: when it was submitted; None if not known.
        begin, end: of the attempt.
        outcome: one of `core.states.OUTCOMES`, by place.
        call: the call as text, cut, and without characters that do something on a terminal.
        cpu: nanoseconds of CPU time; None if it is not known.
        runqueue, gil, lock: nanoseconds that it waited for a CPU, for the GIL (an estimate), for a lock; None if not known.
        error: type and text of its error; None if there was none.
        submitter: the serial of the row that submitted it; None if not known.
        shares: how many attempts the CPU time was measured over, of which this is an equal share; 1 is its own.
    """

    work: int
    number: int
    attempt: int
    row: int
    queued: int | None
    begin: int
    end: int
    outcome: int
    call: str
    cpu: int | None = None
    runqueue: int | None = None
    gil: int | None = None
    lock: int | None = None
    error: str | None = None
    submitter: int | None = None
    shares: int = 1


class Span(NamedTuple):
    """Something else that a row did: waiting for results, for a lock.

    Attributes:
        row: the serial of the row.
        begin, end: when.
        state: one of `core.states.STATES`, by place.
        what: for what, as text.
        holder: who had it, as text; empty if that does not apply.
        site: file and line; empty if not known.
    """

    row: int
    begin: int
    end: int
    state: int
    what: str = ""
    holder: str = ""
    site: str = ""


class Host(NamedTuple):
    """Where it was recorded.

    Attributes:
        name: of the machine.
        python: version, and implementation if it is not CPython.
        abreast: version.
        has_gil: whether threads take turns.
        cores: how many this process could use.
        platform: as `sys.platform`.
        pid: of the process that recorded.
        script: what was run, as text.
        switch_interval: seconds, as `sys.getswitchinterval`.
    """

    name: str
    python: str
    abreast: str
    has_gil: bool
    cores: int
    platform: str
    pid: int
    script: str
    switch_interval: float = 0.005


@dataclass(slots=True)
class Recording:
    """What was recorded, whole or cut short.

    Attributes:
        host: where.
        zero: the wall-clock time that the times count from, nanoseconds since 1970.
        end: when the recording ended.
        works: runs, executors, groups, by serial.
        rows: by serial.
        attempts: in any order; those that were kept.
        spans: in any order.
        dropped: how many attempts were not kept, since there were too many; the sums of `works` contain them.
        dropped_spans: the same of spans.
        cost: nanoseconds that recording took, an estimate.
        complete: whether it came to its end; False if it was saved while work went on, or by a program that was killed.
    """

    host: Host
    zero: int
    end: int
    works: list[Work] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    dropped: int = 0
    dropped_spans: int = 0
    cost: int = 0
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as dictionaries and lists of plain values, as JSON has them."""
        return {
            "host": self.host._asdict(),
            "zero": self.zero,
            "end": self.end,
            "works": [work._asdict() for work in self.works],
            "rows": [row._asdict() for row in self.rows],
            "attempts": [attempt._asdict() for attempt in self.attempts],
            "spans": [span._asdict() for span in self.spans],
            "dropped": self.dropped,
            "dropped_spans": self.dropped_spans,
            "cost": self.cost,
            "complete": self.complete,
        }

"""Recordings made up for tests: what a recorder would have written of some plain shapes of work.

book = Book("fetch", kind="thread", workers=3)
book.task(0, 0.0, 0.5, cpu=0.1)           # on worker 0, from 0.0 to 0.5 s
recording = book.recording()              # totals are summed up of what was told
"""

from __future__ import annotations

from random import Random

from abreast.core.recording import Attempt, Host, Recording, Row, Span, Work
from abreast.core.states import CRASHED, FAILED, LOCK, OK, RETRIED, TIMEOUT, UNFINISHED

SECOND = 10**9

NAMES = [
    "",
    "f",
    "square",
    "a.b.<locals>.<lambda>",
    "x" * 90,
    "\x1b[2J\r\n",
    "\u202eexe.gpj",
    "[red]x[/foo]",
    "<b>&amp;",
    "漢字" * 20,
    "é\u0301",
    "\ud800",
    "…→≈",
]


def ns(seconds):
    return None if seconds is None else round(seconds * SECOND)


def host(*, cores=2, has_gil=True, python="3.13.0"):
    return Host("here", python, "0.1.0", has_gil, cores, "linux", 4242, "squares.py")


class Book:
    """One work that is written down task by task, in seconds."""

    def __init__(self, name="square", *, kind="thread", workers=3, serial=0, first_row=0, native=21170):
        self.name, self.kind, self.workers, self.serial, self.first_row, self.native = (
            name,
            kind,
            workers,
            serial,
            first_row,
            native,
        )
        self.attempts: list[Attempt] = []
        self.spans: list[Span] = []
        self.boots: dict[int, float] = {}
        self.totals: dict[str, object] = {}

    def task(
        self, worker, begin, end, *, cpu=0.0, gil=0.0, lock=None, runqueue=None, queued=0.0, outcome=OK, error=None, number=None,
        call=None, attempt=1, shares=1,
    ):  # fmt: skip
        number = len(self.attempts) if number is None else number
        call = f"{self.name}({number})" if call is None else call
        self.attempts.append(
            Attempt(
                self.serial,
                number,
                attempt,
                self.first_row + worker,
                ns(queued),
                ns(begin),
                ns(end),
                outcome,
                call,
                ns(cpu),
                ns(runqueue),
                ns(gil),
                ns(lock),
                error,
                None,
                shares,
            )  # fmt: skip
        )
        return self

    def waited(self, worker, begin, end, what="Lock#1", holder="", site=""):
        self.spans.append(Span(self.first_row + worker, ns(begin), ns(end), LOCK, what, holder, site))
        return self

    def work(self, **totals) -> Work:
        ended = [attempt for attempt in self.attempts if attempt.outcome != UNFINISHED]

        def known(name):
            values = [value for attempt in ended if (value := getattr(attempt, name)) is not None]
            return sum(values) if values else None

        def how_many(*outcomes):
            return sum(attempt.outcome in outcomes for attempt in ended)

        begin = min((a.begin if a.queued is None else a.queued for a in self.attempts), default=0)
        return Work(
            self.serial, self.name, self.kind, self.workers, begin, max((a.end for a in self.attempts), default=0),
            tasks=len(ended) - how_many(RETRIED), attempts=len(ended), failed=how_many(FAILED, TIMEOUT, CRASHED),
            timeouts=how_many(TIMEOUT), crashes=how_many(CRASHED), retries=how_many(RETRIED),
            wall=sum(a.end - a.begin for a in ended), cpu=known("cpu"), queued=sum(a.begin - a.queued for a in ended if a.queued is not None),
            gil=known("gil"), runqueue=known("runqueue"), lock=known("lock"), gil_bound=known("gil"),
        )._replace(**{**self.totals, **totals})  # fmt: skip

    def rows(self) -> list[Row]:
        kind = "process" if self.kind == "process" else "thread"
        rows = []
        for serial in sorted({attempt.row for attempt in self.attempts}):
            mine = [attempt for attempt in self.attempts if attempt.row == serial]
            native = self.native + serial
            name = f"process {native}" if kind == "process" else f"worker_{serial}"
            begin, end = min(attempt.begin for attempt in mine), max(attempt.end for attempt in mine)
            boot = ns(self.boots.get(serial - self.first_row))
            rows.append(
                Row(serial, kind, name, 140_000 + serial, native, native if kind == "process" else 4242, begin, end, boot)
            )
        return rows

    def recording(self, *, on=None, totals=None, **more) -> Recording:
        return together([self], on=on, totals=totals, **more)


def together(books, *, on=None, totals=None, **more) -> Recording:
    """Return one recording of several works, each with rows of its own."""
    works = [book.work(**(totals or {})) for book in books]
    return Recording(
        on or host(), 1_700_000_000 * SECOND, max((work.end for work in works), default=0), works,
        [row for book in books for row in book.rows()], [a for book in books for a in book.attempts],
        [span for book in books for span in book.spans], **more,
    )  # fmt: skip


def sleeping(tasks=9, workers=3, seconds=0.5, name="square", **more) -> Book:
    """Tasks that sleep, dealt out in turn; numbered from 1."""
    book = Book(name, workers=workers, **more)
    for i in range(tasks):
        begin = i // workers * seconds
        book.task(i % workers, begin, begin + seconds, number=i + 1)
    return book


def computing(tasks=3, seconds=0.3, name="crunch", **more) -> Book:
    """Tasks that compute under the GIL, each on a thread of its own; numbered from 1."""
    book = Book(name, workers=tasks, **{"native": 21198, **more})
    for i in range(tasks):
        end = tasks * seconds * (0.992 if i < tasks - 1 else 0.983)
        book.task(i, 0.0, end, cpu=seconds, gil=(tasks - 1) * seconds * 0.956, number=i + 1)
    book.totals = {"end": ns(tasks * seconds)}
    return book


def mixed(**more) -> Book:
    """Computing and waiting, with a lock and too few cores."""
    book = Book("mixed", workers=4, **more)
    for i in range(40):
        begin = i // 4 * 0.1
        book.task(i % 4, begin, begin + 0.1, cpu=0.04, gil=0.02, lock=0.01, runqueue=0.01, queued=begin / 2)
    return book


def processes(boot=0.08, **more) -> Book:
    """Processes that compute, started for it."""
    book = Book("crunch", kind="process", workers=2, **more)
    for i in range(8):
        begin = boot + i // 2 * 0.25
        book.task(i % 2, begin, begin + 0.25, cpu=0.25, gil=None, runqueue=0.0)
    book.boots = {0: boot, 1: boot}
    book.totals = {"overhead": ns(2 * boot + 0.01)}
    return book


def failing(**more) -> Book:
    book = Book("fetch", workers=4, **more)
    for i in range(20):
        begin = i // 4 * 0.1
        if i in (3, 7, 11):
            book.task(i % 4, begin, begin + 0.1, outcome=FAILED, error=f"ValueError: bad input {i}")
        elif i == 5:
            book.task(
                i % 4, begin, begin + 0.1, outcome=TIMEOUT, error="TaskTimeout: fetch(5) ran over its task_timeout of 0.1 s"
            )
        else:
            book.task(i % 4, begin, begin + 0.1, cpu=0.01)
    return book


def retried(**more) -> Book:
    book = Book("fetch", workers=2, **more)
    for i in range(4):
        book.task(0, i * 0.2, i * 0.2 + 0.1, outcome=RETRIED, error="ConnectionError: reset", number=i)
        book.task(1, i * 0.2 + 0.1, i * 0.2 + 0.2, queued=i * 0.2 + 0.1, number=i, attempt=2)
    return book


def many_workers(workers=64, **more) -> Book:
    """Worker n is busy for (n + 1) / workers of the time."""
    book = Book("load", workers=workers, **more)
    for i in range(workers):
        book.task(i, 0.0, 2.0 * (i + 1) / workers, cpu=0.001)
    return book


def dawdler(**more) -> Book:
    """One of eight gets a long task at the end."""
    book = Book("parse", workers=8, **more)
    for i in range(96):
        begin = i // 8 * 0.1
        book.task(i % 8, begin, begin + 0.1, cpu=0.05)
    return book.task(0, 1.2, 2.4, cpu=0.6, number=99)


def large(attempts=200_000, workers=4) -> Recording:
    """Tasks of 90 us, back to back."""
    made = []
    step, took = 100_000, 90_000
    for i in range(attempts):
        begin = i // workers * step
        made.append(
            Attempt(
                0, i, 1, i % workers, max(0, begin - 50_000), begin, begin + took, OK, f"tiny({i})", 40_000, None, 10_000, None
            )
        )
    end = made[-1].end
    work = Work(
        0, "tiny", "thread", workers, 0, end, attempts, attempts, wall=attempts * took, cpu=attempts * 40_000, queued=attempts * 50_000,
        gil=attempts * 10_000,
    )  # fmt: skip
    rows = [Row(n, "thread", f"worker_{n}", 140_000 + n, 21170 + n, 4242, 0, end) for n in range(workers)]
    return Recording(host(), 0, end, [work], rows, made)


def anything(seed: int, size: int) -> Recording:
    """Any recording, also one that no recorder writes: totals, rows and attempts know nothing of each other. With 0 it has next to nothing."""
    random = Random(seed)

    def some(most=3 * SECOND):
        return random.choice((0, 1, random.randrange(most), random.randrange(most)))

    def maybe(most=3 * SECOND):
        return None if random.random() < 0.3 else some(most)

    def name():
        return random.choice(NAMES)

    works = []
    for serial in range(random.randrange(min(size, 6) + 1)):
        begin, kind = some(), random.choice(["thread", "process", "serial", "group", "ClientExecutor", name()])
        counts = [random.choice((0, 0, 1, 5, 10**6)) for _ in range(8)]
        works.append(
            Work(
                serial,
                name(),
                kind,
                random.choice((0, 1, 4, 100)),
                begin,
                begin + some(10**11),
                *counts,
                some(10**12),
                maybe(10**12),
                some(),
                *(maybe(10**12) for _ in range(5)),
            )  # fmt: skip
        )
    rows = [
        Row(n, random.choice(["thread", "process", "main"]), name(), n, n, n, some(), some(), maybe())
        for n in range(random.randrange(16 * size + 1))
    ]
    attempts, spans = [], []
    for _ in range(random.randrange(20 * size + 1)):
        begin = some()
        attempts.append(
            Attempt(
                random.randrange(4),
                random.randrange(300),
                random.randrange(1, 4),
                random.randrange(4 * size + 1),
                maybe(),
                begin,
                begin + some(),
                random.randrange(7),
                name(),
                maybe(),
                maybe(),
                maybe(),
                maybe(),
                random.choice((None, "ValueError: " + name(), name())),
                None,
                random.choice((1, 64)),
            )  # fmt: skip
        )
    for _ in range(random.randrange(4 * size + 1)):
        begin = some()
        spans.append(Span(random.randrange(4), begin, begin + some(), random.randrange(8), name(), name(), name()))
    on = host(cores=random.choice((1, 2, 64)), has_gil=random.random() < 0.7)
    return Recording(
        on, 0, 10 * SECOND, works, rows, attempts, spans, some(5), some(5), some(), random.random() < 0.7,
    )  # fmt: skip

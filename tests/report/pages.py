"""Small recordings for the tests of the page."""

from __future__ import annotations

import random

from abreast.core.recording import Attempt, Host, Recording, Row, Span, Work
from abreast.core.states import CANCELLED, CPU, FAILED, GIL, JOINING, LOCK, OK, RETRIED

HOST = Host("box", "3.13.0", "0.1.0", True, 2, "linux", 4242, "squares.py")
MS = 1_000_000


def recording(
    rows: list[Row], attempts: list[Attempt], spans: list[Span] | None = None, *, name: str = "square", host: Host = HOST, **more
) -> Recording:
    """One run of what is given, with the sums that belong to it."""
    end = max([1, *(attempt.end for attempt in attempts), *(row.end for row in rows)])
    work = Work(
        0, name, "thread", max(1, len(rows) - 1), 0, end, len({attempt.number for attempt in attempts}), len(attempts),
        failed=sum(attempt.outcome == FAILED for attempt in attempts), retries=sum(attempt.outcome == RETRIED for attempt in attempts),
        cancelled=sum(attempt.outcome == CANCELLED for attempt in attempts), wall=sum(attempt.end - attempt.begin for attempt in attempts),
    )  # fmt: skip
    return Recording(host, 1_790_000_000_000_000_000, end, [work] if attempts else [], rows, attempts, spans or [], **more)


def thread(serial: int, end: int, name: str | None = None, **more) -> Row:
    return Row(
        serial,
        "thread" if serial else "main",
        name or (f"worker_{serial - 1}" if serial else "MainThread"),
        140_000 + serial,
        21_170 + serial,
        more.get("pid", 4242),
        0,
        end,
    )


def plain(number: int, row: int, begin: int, end: int, **more) -> Attempt:
    """An attempt, in milliseconds."""
    scaled = {
        key: value * MS if key in ("cpu", "gil", "lock", "runqueue") and value is not None else value
        for key, value in more.items()
    }
    queued = scaled.pop("queued", 0)
    return Attempt(
        0,
        number,
        scaled.pop("attempt", 1),
        row,
        None if queued is None else queued * MS,
        begin * MS,
        end * MS,
        scaled.pop("outcome", OK),
        scaled.pop("call", f"square({number})"),
        **scaled,
    )


def squares() -> Recording:
    """Nine tasks that sleep half a second, on three threads, as in the design."""
    attempts = [plain(i, 1 + i % 3, i // 3 * 500, i // 3 * 500 + 500, cpu=0, gil=0, submitter=0) for i in range(9)]
    rows = [thread(serial, 1500 * MS) for serial in range(4)]
    return recording(rows, attempts, [Span(0, 2 * MS, 1499 * MS, JOINING, "waiting for results")])


def mixed() -> Recording:
    """Everything that a page may have to show: states, outcomes, processes, waits inside tasks, tasks inside tasks."""
    dice = random.Random(7)
    rows = [thread(0, 3000 * MS), *(thread(serial, 3000 * MS) for serial in range(1, 5)),
            *(Row(serial, "process", f"process {5000 + serial}", 1, 5000 + serial, 5000 + serial, 120 * MS, 2900 * MS, 95 * MS) for serial in (5, 6))]  # fmt: skip
    attempts, spans = [], [Span(0, 5 * MS, 2950 * MS, JOINING, "waiting for results")]
    number = 0
    for row in range(1, 7):
        at = 0 if row < 5 else 150
        while at < 2800:
            length = dice.choice((30, 60, 120, 260, 420))
            if at + length > 2900:
                break
            cpu = length * dice.choice((0.05, 0.2, 0.6, 0.9))
            gil = (length - cpu) * dice.choice((0, 0, 0.5, 0.8)) if row < 5 else 0
            lock = (length - cpu - gil) * 0.6 if number % 9 == 4 else 0
            runq = (length - cpu - gil - lock) * dice.choice((0, 0, 0.4))
            outcome, error = OK, None
            if number % 17 == 11:
                outcome, error = FAILED, f"ValueError: cannot square {number}: it is not a number that I know"
            elif number % 17 == 5:
                outcome, error = RETRIED, "ConnectionError: the other end has gone away"
            elif number == 40:
                outcome, error = CANCELLED, None
            fn = "fetch" if number % 3 else "parse"
            attempts.append(Attempt(0, number, 1, row, max(0, int(at - dice.choice((5, 40, 400)))) * MS, at * MS, (at + length) * MS, outcome,
                                    f"{fn}('page-{number}.html')", int(cpu * MS), int(runq * MS), int(gil * MS), int(lock * MS), error, 0))  # fmt: skip
            if lock:
                spans.append(
                    Span(
                        row,
                        int((at + 0.2 * length) * MS),
                        int((at + 0.2 * length + lock) * MS),
                        LOCK,
                        "Lock#1 (squares.py:3)",
                        "worker_2",
                        "squares.py:14",
                    )
                )
            number += 1
            at += length + dice.choice((0, 0, 3, 25))
    attempts.append(Attempt(0, number, 1, 2, 250 * MS, 300 * MS, 340 * MS, OK, "inner(1)", 10 * MS, submitter=2))
    return recording(rows, attempts, spans, name="fetch", cost=3 * MS)


def large(count: int, rows: int = 64, *, known: bool = True) -> Recording:
    """As the prototype's: tasks of 50 ms on average; call, CPU time and queue time of each."""
    dice = random.Random(1)
    free = [0.0] * rows
    attempts = []
    for number in range(count):
        row = min(range(4), key=lambda _: dice.random()) if rows < 4 else dice.randrange(rows)
        begin = free[row] + dice.random() * 0.01
        length = dice.expovariate(20) + 0.001
        free[row] = begin + length
        share, failed = dice.random(), dice.random() < 0.001
        start = int(begin * 1e9)
        wall = int(length * 1e9)
        attempts.append(Attempt(0, number, 1, row + 1, max(0, start - int(dice.random() * 2e8)), start, start + wall, FAILED if failed else OK, f"work({number})",
                                int(wall * share), int(wall * (1 - share) * 0.1) if known else None, int(wall * (1 - share) * dice.random() * 0.8) if known else None, None, "ValueError: no" if failed else None, 0))  # fmt: skip
    end = max(attempt.end for attempt in attempts)
    return recording([thread(serial, end) for serial in range(rows + 1)], attempts, name="work")


__all__ = ["CPU", "GIL", "HOST", "MS", "large", "mixed", "plain", "recording", "squares", "thread"]

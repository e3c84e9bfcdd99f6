"""Recordings to test views with: a plausible one, a large one, and any that can be."""

from __future__ import annotations

import random

from abreast.core.recording import Attempt, Host, Recording, Row, Span, Work
from abreast.core.states import JOINING, LOCK, OUTCOMES, STATES, WAITING
from hypothesis import strategies as st

HOST = Host("box", "3.13.0", "0.1.0", True, 2, "linux", 4242, "squares.py")
SECOND = 10**9


def squares(count=9, workers=3):
    """Tasks of half a second on workers: the page's example."""
    rows = [Row(0, "main", "MainThread", 140_000_000_000_000, 4242, 4242, 0, count * SECOND)]
    rows += [
        Row(n + 1, "thread", f"worker_{n}", 140_000_000_000_100 + n, 21170 + n, 4242, 0, count * SECOND) for n in range(workers)
    ]
    attempts, spans = [], []
    for n in range(count):
        begin = n // workers * SECOND // 2 + 1001 * (n % workers + 1)
        attempts.append(
            Attempt(
                0,
                n,
                1,
                n % workers + 1,
                400 * n + 17,
                begin,
                begin + SECOND // 2,
                0,
                f"square({n + 1})",
                cpu=5_000_001,
                runqueue=9,
                submitter=0,
            )
        )
        spans.append(Span(n % workers + 1, begin + 1000, begin + SECOND // 2, WAITING, "time.sleep", site="squares.py:3"))
    end = max(one.end for one in attempts)
    spans += [Span(0, 10_000, end, JOINING, "waiting for results"), Span(0, 20_001, 30_003, LOCK, "Lock#1", "worker_1", "x.py:3")]
    work = Work(
        0, "square", "thread", workers, 0, end, count, count,
        wall=sum(one.end - one.begin for one in attempts), cpu=count * 5_000_001, queued=sum(one.begin - one.queued for one in attempts),
    )  # fmt: skip
    return Recording(HOST, 1_700_000_000 * SECOND, end, [work], rows, attempts, spans, cost=1234)


def large(count, workers=8):
    """Many tasks of up to a millisecond."""
    draw = random.Random(1)
    rows = [Row(0, "main", "MainThread", 140_000_000_000_000, 4242, 4242, 0, count * 10**6)]
    rows += [
        Row(n, "thread", f"worker_{n - 1}", 140_000_000_000_000 + n, 21170 + n, 4242, 0, count * 10**6)
        for n in range(1, workers + 1)
    ]
    free = [0] * (workers + 1)
    attempts = []
    for n in range(count):
        row = 1 + n % workers
        begin = free[row] + draw.randrange(200, 2000)
        end = free[row] = begin + draw.randrange(20_000, 900_000)
        attempts.append(
            Attempt(
                0,
                n,
                1,
                row,
                max(0, begin - 300_000),
                begin,
                end,
                0,
                f"square({n})",
                draw.randrange(end - begin),
                draw.randrange(1000),
                submitter=0,
            )
        )
    end = max(free)
    work = Work(0, "square", "thread", workers, 0, end, count, count, wall=sum(one.end - one.begin for one in attempts))
    return Recording(HOST, 1_700_000_000 * SECOND, end, [work], rows, attempts, [Span(0, 0, end, JOINING, "waiting for results")])


# Any that can be: times collide, attempts overlap, numbers are as large as they may be.

TEXT = st.one_of(
    st.sampled_from(
        ["", "f(1)", 'say "\\"', "</script>", "\x1b[31m", "\x7f", "é \U0001f600", '],\n"traceEvents":[', '\n]},\n"spans":{']
    ),
    st.text(max_size=8),
)
SMALL = st.integers(0, 40)
TIME = st.one_of(SMALL, st.integers(0, 5000), st.integers(0, 2**50))
SOME_TIME = st.none() | TIME
PID = st.sampled_from([4242, 1, 2, 99999])


@st.composite
def recordings(draw):
    rows = [
        Row(
            n,
            *draw(
                st.tuples(
                    st.sampled_from(["thread", "process", "main"]), TEXT, st.integers(0, 2**63), SMALL, PID, TIME, TIME, SOME_TIME
                )
            ),
        )
        for n in range(draw(st.integers(1, 4)))
    ]
    works = [
        Work(n, draw(TEXT), "thread", 3, 0, draw(TIME), 1, 1, cpu=draw(SOME_TIME), gil=draw(SOME_TIME))
        for n in range(draw(st.integers(1, 2)))
    ]

    def within(cls, *others):
        begin = draw(TIME)
        return begin, begin + draw(TIME)

    row = st.integers(0, len(rows) - 1)
    attempts = []
    for number in range(draw(st.integers(0, 7))):
        begin, end = within(Attempt)
        queued = draw(st.one_of(st.none(), TIME, st.integers(-50, 50), st.just(begin)))
        attempts.append(
            Attempt(
                draw(st.integers(0, len(works) - 1)), draw(SMALL), draw(st.integers(1, 3)), draw(row), queued, begin, end,
                draw(st.integers(0, len(OUTCOMES) - 1)), draw(TEXT), draw(SOME_TIME), draw(SOME_TIME), draw(SOME_TIME), draw(SOME_TIME),
                draw(st.none() | TEXT), draw(st.none() | row), draw(st.integers(1, 3)),
            )
        )  # fmt: skip
    if attempts and draw(st.booleans()):
        attempts.append(attempts[0])
    spans = []
    for _ in range(draw(st.integers(0, 4))):
        spans.append(Span(draw(row), *within(Span), draw(st.integers(0, len(STATES) - 1)), draw(TEXT), draw(TEXT), draw(TEXT)))
    host = HOST._replace(script=draw(TEXT), has_gil=draw(st.booleans()), switch_interval=draw(st.floats(0, 1)))
    return Recording(
        host, draw(st.integers(0, 2**62)), draw(TIME), works, rows, attempts, spans,
        draw(SMALL), draw(SMALL), draw(TIME), draw(st.booleans()),
    )  # fmt: skip

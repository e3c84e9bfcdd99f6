"""The figures of a recording: totals, one after another, who did what; on made-up recordings, and on any."""

from __future__ import annotations

import json
import time

import pytest
from abreast.core.states import COMPUTING, CPU, CRASHED, GIL, IDLE, LOCK, OUTCOMES, TIMEOUT, UNFINISHED, WAITING
from abreast.report.lines import NOT_KEPT, RUNNING, cells, main_state
from abreast.report.summary import Parts, split, summarize
from abreast.report.text import Report
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.builders import (
    SECOND,
    Book,
    anything,
    computing,
    dawdler,
    failing,
    host,
    large,
    many_workers,
    mixed,
    ns,
    processes,
    retried,
    sleeping,
    together,
)

pytestmark = pytest.mark.whole

RECORDINGS = st.builds(anything, st.integers(0, 2**32), st.integers(0, 6))


def only(book, **more):
    (work,) = summarize(book.recording(**more)).works
    return work


def test_tasks_that_sleep():
    work = only(sleeping())
    assert (work.elapsed, work.one_after_another, work.speed_up, work.share) == (1.5 * SECOND, 4.5 * SECOND, 3.0, 1.0)
    assert work.parts == Parts(0, 4.5 * SECOND, None, 0, None)
    assert work.queued == (0, 0.5 * SECOND, SECOND)
    assert [(w.row.name, w.tasks, w.busy, w.share) for w in work.workers] == [
        (f"worker_{n}", 3, 1.5 * SECOND, 1.0) for n in range(3)
    ]
    assert not work.is_upper_bound
    assert work.tail is None
    assert work.idle == 0


def test_the_sum_of_the_times_is_not_one_after_another_under_the_gil():
    work = only(computing())
    assert work.work.wall > 2.6 * SECOND
    assert work.one_after_another == pytest.approx(0.95 * SECOND, rel=0.01)
    assert work.speed_up == pytest.approx(1.055, abs=0.005)


def test_what_held_tasks_up_is_taken_off():
    work = only(mixed())
    assert work.one_after_another == pytest.approx(40 * 0.06 * SECOND)
    assert work.parts == Parts(ns(1.6), ns(0.8), ns(0.4), ns(0.8), ns(0.4))


def test_what_no_cpu_time_is_known_of_is_not_waiting():
    recording = sleeping().recording()
    recording.works[0] = recording.works[0]._replace(unmeasured=ns(4.0))  # tasks over their limit, of 4.5 s
    (work,) = summarize(recording).works
    assert work.parts == Parts(0, ns(0.5), None, 0, None, ns(4.0))
    assert work.is_upper_bound
    report = Report(recording)
    assert "computing or waiting (CPU time not known) 4.00 s ( 89 %)" in report.text(width=140)
    assert all(rule["rule"] != "waiting" for each in report.to_dict()["works"] if (rule := each["advice"]))


def test_what_was_not_measured_makes_it_an_upper_bound():
    assert only(sleeping(), totals={"gil": None}).is_upper_bound
    assert not only(sleeping(), totals={"gil": None}, on=host(has_gil=False)).is_upper_bound
    assert not only(processes()).is_upper_bound
    crowded = {"runqueue": None, "workers": 8}
    assert only(processes(), totals=crowded).is_upper_bound
    assert not only(processes(), totals={**crowded, "cpu": 0}).is_upper_bound


def test_more_than_there_is_is_cut_and_the_surest_is_believed_first():
    assert split(100, 80, runqueue=10, lock=20, gil=30) == Parts(80, 0, 10, 0, 10)
    assert split(100, None, gil=30) == Parts(None, None, None, 30, None, 70)
    assert split(0, 5) == Parts(0, 0, None, None, None)


def test_errors_by_type_with_the_first_by_index():
    work = only(failing())
    assert [(e.type, e.times, e.number, e.call, e.message) for e in work.errors] == [
        ("ValueError", 3, 3, "fetch(3)", "bad input 3"),
        ("TaskTimeout", 1, 5, "fetch(5)", "fetch(5) ran over its task_timeout of 0.1 s"),
    ]


def test_an_error_without_a_text_is_called_by_what_happened():
    book = Book().task(0, 0, 1, outcome=CRASHED).task(0, 1, 2, outcome=TIMEOUT, error="")
    assert [e.type for e in only(book).errors] == ["crashed", "timeout"]


def test_what_was_tried_again_is_no_error():
    work = only(retried())
    assert work.errors == []
    assert (work.work.tasks, work.work.retries) == (4, 4)


def test_a_straggler():
    tail = only(dawdler()).tail
    assert (tail.busy, tail.idle, tail.several) == (1, 7, False)
    assert tail.length == pytest.approx(1.2 * SECOND)
    assert [attempt.number for attempt in tail.attempts] == [99]


def test_one_that_still_has_a_batch_is_a_straggler_too():
    book = Book(workers=4)
    for n in range(4):
        book.task(n, 0, 1)
    for n in range(5):
        book.task(0, 1 + n, 2 + n)
    assert only(book).tail.several


def test_work_that_comes_late_makes_no_straggler():
    book = Book(workers=4)
    for n in range(4):
        book.task(n, 0, 1)
    assert only(book.task(0, 2, 4, queued=2)).tail is None


def test_locks_are_those_of_the_tasks():
    book = Book("save").task(0, 0, 1, lock=0.5).task(1, 0, 1, lock=0.3)
    book.waited(0, 0.1, 0.6, "Lock#1", "worker_1", "x.py:3").waited(1, 0.2, 0.5, "Lock#1", "worker_0", "x.py:3").waited(
        0, 0.7, 0.8, "Lock#2"
    )
    book.waited(0, 2, 3, "of no task")
    assert [(lock.what, lock.holder, lock.site, lock.waited, lock.times) for lock in only(book).locks] == [
        ("Lock#1", "worker_1", "x.py:3", ns(0.8), 2), ("Lock#2", "", "", ns(0.1), 1),
    ]  # fmt: skip


def test_workers_start_side_by_side():
    assert only(processes()).overhead == ns(0.08 + 0.01)


def test_attempts_that_were_not_kept_are_counted():
    work = only(sleeping(), totals={"attempts": 100, "tasks": 100, "wall": ns(50)})
    assert (work.missing, work.kept, work.queued) == (91, 9, (None, 0.045 * SECOND, None))
    assert work.one_after_another == ns(50)


def test_an_end_that_is_not_known():
    work = only(Book().task(0, 0, 1).task(1, 0.5, 1, outcome=UNFINISHED))
    assert [attempt.number for attempt in work.unfinished] == [1]
    assert work.missing == 0


def test_attempts_of_one_loop_overlap():
    assert only(Book().task(0, 0, 1).task(0, 0.5, 1.5).task(0, 3, 4)).workers[0].busy == ns(2.5)


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ({"cpu": 0.6}, COMPUTING), ({"cpu": 0.4}, WAITING), ({"cpu": 0.3, "gil": 0.6}, GIL), ({"cpu": 0.3, "lock": 0.6}, LOCK),
        ({"cpu": 0.3, "runqueue": 0.6}, CPU), ({"cpu": None}, RUNNING), ({"cpu": None, "gil": 0.6}, GIL),
    ],
    ids=str,
)  # fmt: skip
def test_main_state(parts, state):
    assert main_state(Book().task(0, 0, 1, **parts).attempts[0]) == state


def drawn(book, width, **more):
    return "".join(cell.text for cell in cells(book.attempts, 0, max(a.end for a in book.attempts), width, **more))


def test_cells_show_bars_numbers_and_what_came_of_them():
    book = Book().task(0, 0, 4, cpu=4).task(0, 4, 8, outcome=TIMEOUT).task(0, 9, 12, number=1000)
    assert drawn(book, 12) == "▏0██▏1░✗·▏░░"


def test_short_tasks_fill_as_many_cells_as_they_take_time():
    book = Book()
    for n in range(400):
        book.task(0, n * 0.01, n * 0.01 + 0.004, cpu=0.004)
    line = drawn(book, 40)
    assert set(line) == {"█", "·"}
    assert 14 <= line.count("█") <= 18


def test_a_moment_leaves_a_trace():
    book = Book().task(0, 5, 5)
    assert "".join(cell.text for cell in cells(book.attempts, 0, 10 * SECOND, 10)) == "·····█····"


def test_what_was_not_kept_is_not_called_idle():
    book = Book().task(0, 0, 4, cpu=4)
    assert [cell.state for cell in cells(book.attempts, 0, 8 * SECOND, 8, idle=NOT_KEPT)] == [COMPUTING] * 4 + [NOT_KEPT] * 4


@settings(max_examples=100, deadline=None)
@given(recording=RECORDINGS, width=st.integers(1, 60), end=st.integers(0, 12 * SECOND))
def test_there_are_as_many_cells_as_asked_for(recording, width, end):
    line = cells(sorted(recording.attempts, key=lambda attempt: attempt.begin), 0, end, width)
    assert [len(cell.text) for cell in line] == [1] * width
    assert any(cell.state != IDLE for cell in line) == bool(recording.attempts)


@settings(max_examples=200, deadline=None)
@given(recording=RECORDINGS)
def test_figures_of_any_recording_add_up(recording):
    summary = summarize(recording)
    assert len(summary.works) == len(recording.works)
    assert sum(work.kept for work in summary.works) + summary.strays == len(recording.attempts)
    for work in summary.works:
        assert sum(part or 0 for part in work.parts) == work.work.wall
        assert 0 <= work.one_after_another <= work.work.wall
        assert 0 <= work.idle <= 1
        assert sum(e.times for e in work.errors) == sum(
            OUTCOMES[a.outcome] in ("failed", "timeout", "crashed") for a in recording.attempts if a.work == work.work.serial
        )
        for worker in work.workers:
            assert sum(part or 0 for part in worker.parts) == sum(a.end - a.begin for a in worker.attempts)
            assert 0 <= worker.share <= 1
            assert 0 <= worker.busy <= work.elapsed
        json.dumps(work.to_dict(), allow_nan=False)


@pytest.mark.parametrize("attempts", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_200_000_attempts_take_well_below_a_second(attempts):
    recording = large(attempts)
    begin = time.thread_time()
    work = summarize(recording).works[0]
    assert time.thread_time() - begin < attempts / 200_000 + 0.1
    assert (work.kept, work.missing) == (attempts, 0)
    assert [worker.tasks for worker in work.workers] == [attempts / 4] * 4


def test_works_are_told_in_the_order_in_which_they_began():
    late, early = Book("late", serial=0).task(0, 2, 3, queued=2), Book("early", serial=1, first_row=5).task(0, 0, 1)
    assert [work.work.name for work in summarize(together([late, early])).works] == ["early", "late"]
    assert summarize(together([late, early])).elapsed == 3 * SECOND


def test_many_workers():
    work = only(many_workers())
    assert len(work.workers) == 64
    assert work.workers[63].share == 1.0

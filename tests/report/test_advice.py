"""One row of the table each, and which one goes first."""

from __future__ import annotations

import pytest
from abreast.core.states import RETRIED
from abreast.report.advice import advise
from abreast.report.summary import summarize
from hypothesis import given, settings

from tests.report.builders import Book, computing, dawdler, failing, host, mixed, ns, processes, sleeping
from tests.report.test_summary import RECORDINGS

pytestmark = pytest.mark.whole


def said(book, **more):
    recording = book.recording(**more)
    return advise(summarize(recording).works[0], recording.host)


def rule(book, **more):
    advice = said(book, **more)
    return advice and advice.rule


def test_errors():
    assert said(failing()).text == "4 of 20 tasks failed, 3 of them with ValueError; the first is task 3, fetch(3)."
    one = Book().task(0, 0, 1, outcome=1, error="KeyError: 'x'", call="")
    assert said(one).text == "1 of 1 task failed with KeyError; the first is task 0."


def test_errors_of_which_none_was_kept():
    assert said(sleeping(), totals={"failed": 7}).text == "7 of 9 tasks failed."


def test_overhead():
    advice = said(processes(boot=0.6))
    assert advice.rule == "overhead"
    assert advice.figure == pytest.approx(0.61 / 1.6)
    assert advice.text.startswith(
        "Starting workers and pickling took 38 % of the time (0.61 s): larger batches (chunksize=) cost less"
    )


def test_the_gil():
    assert said(computing()).text == (
        'The GIL let one thread compute at a time (≈ 64 %). Try kind="process" (up to 2x on 2 cores) or a free-threaded Python.'
    )
    assert "On 1 core processes would not be faster" in said(computing(), on=host(cores=1)).text
    assert "up to 2.8x on 8 cores" in said(computing(), on=host(cores=8)).text


def test_too_few_cores():
    book = Book("crunch", kind="process", workers=8)
    for n in range(8):
        book.task(n, 0, 1, cpu=0.25, gil=None, runqueue=0.75)
    assert said(book).text == "Tasks waited for a CPU 75 % of their time, 8 workers on 2 cores: max_workers=2 does as much."
    assert said(book, on=host(cores=8)).text.endswith("on 8 cores, which something else keeps busy too.")


def test_one_lock():
    book = Book(workers=2).task(0, 0, 1, lock=0.5).task(1, 0, 1, lock=0.2).waited(0, 0.1, 0.6, "Lock#1", "worker_1", "x.py:3")
    assert said(book).text == (
        "Tasks waited for Lock#1 (x.py:3) 25 % of their time, mostly held by worker_1: hold it for less, or give each worker a thing of its own."
    )


def test_idle_workers():
    book = Book(workers=8)
    for n in range(40):
        book.task(n % 8, n * 0.1, n * 0.1 + 0.1, queued=n * 0.1, cpu=0.05)
    assert said(book).text == "Workers were idle 88 % of the time, and nothing was queued: 2 of 8 would do, or feed them faster."


def test_a_straggler():
    assert (
        said(dawdler()).text
        == "For the last 1.20 s (50 % of the time) one worker was busy: start the longest tasks first, or cut them up."
    )


def test_eight_tasks_on_eight_workers_of_which_one_takes_long_are_not_too_many_workers():
    book = Book(workers=8)
    for n in range(8):
        book.task(n, 0, 4 if n == 7 else 0.5, cpu=0.2)
    assert rule(book) == "tail"


def test_waiting_and_what_more_workers_would_do():
    advice = said(sleeping())
    assert advice.text == "Almost all waiting (100 %): threads are right here, and more would help: ≈ 0.5 s with 9 workers."
    assert said(sleeping(tasks=1000, workers=8)).text.endswith("≈ 16 s with 32 workers.")
    assert rule(sleeping(tasks=3)) is None  # all ran at once
    assert "threads do as well here" in said(sleeping(kind="process")).text


def test_no_estimate_where_waiting_may_be_for_the_gil():
    assert said(sleeping(), totals={"gil": None}) is None


def test_computing_bounds_the_estimate():
    book = Book(workers=2)
    for n in range(40):
        book.task(n % 2, n // 2, n // 2 + 1, cpu=0.15)
    assert said(book).text.endswith("≈ 6 s with 32 workers.")


def test_none_where_nothing_fits():
    assert rule(mixed()) is None
    assert rule(processes()) is None
    assert rule(Book().task(0, 0, 1)) is None


def test_the_first_row_that_fits():
    held = {"gil": ns(2), "runqueue": ns(2), "cpu": 0}
    assert rule(failing(), totals={**held, "overhead": ns(1)}) == "errors"
    assert rule(sleeping(), totals={**held, "overhead": ns(1)}) == "overhead"
    assert rule(sleeping(), totals=held) == "gil"
    assert rule(sleeping(), totals={**held, "gil": 0}) == "cpu"
    assert rule(sleeping(), totals={"cpu": 0}) == "waiting"


@settings(max_examples=200, deadline=None)
@given(recording=RECORDINGS)
def test_any_recording_has_one_sentence_or_none(recording):
    for work in summarize(recording).works:
        advice = advise(work, recording.host)
        if advice is not None:
            assert advice.text.endswith(".")
            assert "nan" not in advice.text
            assert any(char.isdigit() for char in advice.text)


def held(**more):
    """Eight workers, batches of ten, each after the retry of a task of the batch before."""
    book = Book("fetch", workers=8)
    for turn in range(6):
        at = turn * 1.2
        for n in range(10):
            number = turn * 10 + n
            if n == 3:
                book.task(n % 8, at, at + 0.1, queued=at, number=number, outcome=RETRIED, error="OSError: busy")
                book.task(n % 8, at + 1.1, at + 1.2, queued=at + 1.1, number=number, attempt=2)
            else:
                book.task(n % 8, at, at + 0.1, queued=at, number=number)
    return book


def test_a_run_in_order_that_waits_for_retries():
    advice = said(held())
    assert advice.rule == "order"
    assert advice.figure == pytest.approx(5 / 6)
    assert advice.text == (
        "For 83 % of the time nothing new was started, since one task was waited for (5 times; longest for task 3, fetch(3), which had "
        "2 attempts): a run in order goes on meanwhile with ordered=False, or a larger buffersize=."
    )


def test_a_run_in_order_that_waits_for_a_slow_task():
    book = Book("fetch", workers=8)
    for n in range(60):
        late = 0 if n < 20 else 2
        begin = late + n * 0.01
        book.task(n % 8, begin, 2 if n == 3 else begin + 0.01, queued=begin)
    assert said(book).text == (
        "For 77 % of the time nothing new was started, since one task was waited for (task 3, fetch(3)): "
        "a run in order goes on meanwhile with ordered=False, or a larger buffersize=."
    )


def test_inputs_that_come_late_are_not_waiting_for_a_task():
    book = Book("fetch", workers=8)
    for n in range(60):
        begin = n // 20 * 2  # twenty at a time, and 2 s between
        book.task(n % 8, begin, begin + 0.1, queued=begin)
    assert rule(book) == "idle"


def test_a_retry_that_held_nobody_up_is_not_blamed():
    book = Book("fetch", workers=8)
    for n in range(60):
        book.task(n % 8, n // 8 * 0.1, n // 8 * 0.1 + 0.1, outcome=RETRIED if n == 3 else 0)
    book.task(0, 9, 9.1, queued=9.0, number=3, attempt=2)
    assert rule(book) != "order"


def test_few_errors_do_not_hide_why_a_run_was_slow():
    book = held()
    book.task(0, 7.2, 7.3, queued=7.2, outcome=1, error="KeyError: 'x'")
    assert rule(book) == "order"
    assert rule(held(), totals={"failed": 4}) == "errors"


def test_tasks_that_are_too_small():
    book = Book("abs", workers=2)
    for n in range(200):
        book.task(n % 2, n * 1e-4, n * 1e-4 + 2e-6, cpu=2e-6, gil=None)
    assert (
        said(book).text
        == "Handing tasks out takes longer than they do (≈ 2 µs each): a plain loop is faster, or tasks that do more."
    )
    assert rule(book, totals={"attempts": 99}) != "small"

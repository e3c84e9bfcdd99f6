"""Defects that a review by attack had found, each as the test that shows it."""

from __future__ import annotations

import concurrent.futures
import gc
import sys
import threading
import time

import abreast
import pytest
from abreast import CancelledError, DeadlockDetected, ThreadPoolExecutor
from abreast.core import current

from tests.helpers import in_threads


def square(x):
    return x * x


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("way", ["executor.map", "map", "imap"])
def test_a_task_may_wait_for_the_one_before_it(way, workers):
    """Tasks are started in the order of their inputs, as in the standard library, whatever is handed back."""
    done = [threading.Event() for _ in range(300)]

    def task(i):
        if i:
            assert done[i - 1].wait(20), f"{i} waits for {i - 1}, which was not started"
        if i % 7 == 0:
            time.sleep(0.001)  # so that batches reach their time box
        done[i].set()
        return i

    if way == "executor.map":
        with ThreadPoolExecutor(workers) as executor:
            assert list(executor.map(task, range(300))) == list(range(300))
    else:
        run = {"map": abreast.map, "imap": abreast.imap}[way]
        assert list(run(task, range(300), max_workers=workers)) == list(range(300))


@pytest.mark.parametrize("drop", [True, False])
def test_executor_map_goes_on_when_the_executor_is_dropped_or_shut_down(drop):
    for _ in range(20):
        executor = ThreadPoolExecutor(2)
        results = executor.map(square, range(2000))
        if drop:
            del executor
            gc.collect()
        else:
            executor.shutdown(wait=False)
        assert in_threads(lambda taken=results: list(taken)) == [[i * i for i in range(2000)]]


def test_cancelling_what_waits_in_the_middle_ends_executor_map():
    for n in range(60):
        executor = ThreadPoolExecutor(1 + n % 3)
        results = executor.map(lambda i: time.sleep(0.0002) or i, range(300), buffersize=None if n % 2 else 50)

        def consume(taken=results):
            got = []
            try:
                got.extend(taken)
            except (CancelledError, RuntimeError):
                return got
            return got

        def cancel(pool=executor, after=n % 20):
            time.sleep(after / 1000)
            pool.shutdown(cancel_futures=True)

        got, _ = in_threads(consume, cancel)
        assert got == list(range(len(got)))


def test_an_error_in_order_waits_for_what_was_handed_back_before_it():
    for n in range(40):
        slow, k = range(300 + n, 340 + n), 350 + n

        def task(i, slow=slow, k=k):
            if i == k:
                raise LookupError(i)
            if i in slow:
                time.sleep(0.002)
            return i

        got = []
        with pytest.raises(LookupError):
            got.extend(abreast.imap(task, range(2000), max_workers=1 + n % 5, buffersize=(None, 200, 1000)[n % 3]))
        # extend() has what came before the error
        assert got == list(range(k))


def test_ctrl_c_in_a_serial_run_leaves_nothing_behind_in_the_thread():
    armed = [True]

    def tracer(frame, event, arg):
        def local(frame, event, arg):
            if armed[0] and event == "line" and current.here.running is not None:
                armed[0] = False
                raise KeyboardInterrupt
            return local

        return local if frame.f_code.co_name == "run_batch" else None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with pytest.raises(KeyboardInterrupt):
            abreast.map(square, range(3), kind="serial")
    finally:
        sys.settrace(before)
    assert current.here.running is None
    assert abreast.map(square, range(3)) == [0, 1, 4]


def test_a_chunksize_and_a_task_timeout_exclude_each_other():
    with pytest.raises(ValueError, match="chunksize=4 and task_timeout=1 exclude each other"):
        abreast.map(square, range(3), chunksize=4, task_timeout=1)
    with ThreadPoolExecutor(
        1, task_timeout=0.2
    ) as executor:  # here the limit counts, and a chunksize may be given as to any pool
        assert list(executor.map(lambda x: time.sleep(0.1) or x, range(4), chunksize=4)) == [0, 1, 2, 3]


def test_a_second_thread_that_waits_on_the_same_iterator_is_refused():
    gate, begun = threading.Event(), threading.Event()
    results = abreast.imap(lambda _: begun.set() or gate.wait(20), range(3), max_workers=1)

    def first():
        return next(results)

    def second():
        begun.wait(20)
        with pytest.raises(ValueError, match="waited for already"):
            next(results)
        gate.set()

    in_threads(first, second)
    assert list(results) == [True, True]


def test_nested_in_the_only_worker_with_progress_is_still_a_deadlock_that_is_seen():
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(lambda: abreast.map(square, range(5), executor=executor, progress=lambda n: None))
        assert isinstance(future.exception(20), DeadlockDetected)


def test_an_iterator_closed_before_its_start_has_nothing():
    results = abreast.imap(square, range(3), progress=lambda n: None)
    results.close()
    assert list(results) == []
    assert results.summary().tasks == 0


@pytest.mark.parametrize("make", [ThreadPoolExecutor, concurrent.futures.ThreadPoolExecutor])
def test_what_is_known_is_yielded_before_the_refusal_of_an_executor_that_was_shut_down(make):
    ran, got = [], []
    executor = make(2)
    with pytest.raises(RuntimeError, match="after shutdown"):
        for outcome in abreast.outcomes(lambda i: ran.append(i) or i, range(1000), executor=executor, buffersize=30, chunksize=1):
            got.append(outcome.index)
            if outcome.index == 10:
                executor.shutdown(wait=True)
    assert got == sorted(ran)


def test_counts_of_a_run_that_failed_add_up():
    for n in range(30):
        read = []
        results = abreast.imap(lambda i: 1 // (i - 20), (read.append(i) or i for i in range(1000)), max_workers=1 + n % 4)
        with pytest.raises(ZeroDivisionError):
            list(results)
        summary = results.summary()
        assert summary.tasks + summary.cancelled == len(read)


def test_a_slow_source_does_not_hold_up_results_that_are_there():
    read = []

    def inputs():
        for i in range(8):
            time.sleep(0.03)
            read.append(i)
            yield i

    with abreast.imap(square, inputs(), max_workers=4) as results:
        assert next(results) == 0
        assert len(read) < 8, "the window of two batches a worker was filled first"


def test_who_reads_and_finds_another_thread_sending_reads_on_afterwards():
    """The fourth input was left unread while tasks 1 and 2 hung (free-threaded Python, once in some hundred runs)."""
    run_parts = abreast.imap(square, range(4), max_workers=4, chunksize=1)
    run = run_parts._run
    run.start()
    room, read = run._room, []

    def other_thread_is_sending():
        run._sends = -1  # as if a worker that has just completed a batch were sending what the consumer has read
        run._submit_pending()
        run._sends = None
        read.append(run.source.read)

    run._read(1)
    other_thread_is_sending()
    assert room() == 0
    assert run._form_to_send() is not None
    run._sends = threading.get_ident()
    assert run._form_to_send() is None
    assert run._bell.news
    run._feed.running.clear()
    run_parts.close()


def test_a_chunksize_is_obeyed_however_slowly_the_inputs_come():
    """On a busy machine even a range may take milliseconds: batches of fewer were sent then."""

    def slow_inputs():
        for i in range(12):
            time.sleep(0.003)
            yield i

    sizes = []

    class Recording(concurrent.futures.ThreadPoolExecutor):
        def submit(self, fn, batch, /):
            sizes.append(len(batch.items))
            return super().submit(fn, batch)

    with Recording(2) as executor:
        assert abreast.map(square, slow_inputs(), executor=executor, chunksize=3) == [square(i) for i in range(12)]
    assert sizes == [3] * 4


def test_nothing_that_stands_behind_a_result_that_cannot_be_unpickled_is_yielded():
    """The next piece came before its error, if it arrived between two steps."""
    results = abreast.imap(square, range(3), max_workers=1, chunksize=1)
    run = results._run
    run.start()
    run._decoder.error = ValueError("cannot be unpickled")
    with pytest.raises(ValueError, match="cannot be unpickled"):
        run.step()
    assert run.over
    assert list(results) == []

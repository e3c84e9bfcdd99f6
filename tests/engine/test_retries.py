"""Tasks that are tried again, in runs: on threads, in processes, one after another, on foreign executors."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import multiprocessing
import contextlib
import gc
import os
import threading
import time
import tracemalloc

import abreast
import pytest
from abreast.executors.batch import Finished
from abreast import CancelledError, ProcessPoolExecutor, Retry, TaskTimeout, ThreadPoolExecutor, WorkerCrashed

from tests.helpers import run_python
from tests.engine.stand_ins import PATIENCE, Gate, Inline, Recording, every_way, join_threads, kinds, lazily, value

pytestmark = pytest.mark.whole
SOON = Retry(3, wait_initial=0.005, wait_max=0.01, wait_jitter=0)
LATE = Retry(3, wait_initial=100, wait_max=100)


class Flaky:
    """Fails as often as it is told for each input; counts its calls."""

    def __init__(self, failures=lambda x: x % 3):
        self.failures = failures
        self.lock = threading.Lock()
        self.calls = collections.Counter()
        self.told = collections.defaultdict(list)

    def __call__(self, x):
        with self.lock:
            self.calls[x] += 1
            count = self.calls[x]
            self.told[x].append(abreast.current_task() and abreast.current_task().attempt)
        if count <= self.failures(x):
            raise ConnectionError(f"{x} for the {count}. time")
        return x * x


def attempt_or_die(x, failures):
    """In a process: fails, or ends it, or hangs, for the first attempts."""
    attempt = abreast.current_task().attempt
    if attempt <= failures:
        if x % 3 == 0:
            raise ConnectionError(x)
        if x % 3 == 1:
            os._exit(3)
        time.sleep(60)
    return x, attempt


@every_way
@pytest.mark.parametrize("ordered", [True, False])
@kinds
def test_what_fails_is_tried_again_and_the_rest_runs_once(run, ordered, kind):
    flaky = Flaky()
    results = run(flaky, range(40), retries=SOON, ordered=ordered, kind=kind)
    assert (results if ordered else sorted(results)) == [x * x for x in range(40)]
    assert flaky.calls == {x: 1 + x % 3 for x in range(40)}
    assert flaky.told == {x: list(range(1, 2 + x % 3)) for x in range(40)}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", ["auto", 7])
def test_outcomes_tell_the_attempts(ordered, chunksize):
    flaky = Flaky(lambda x: x % 6)
    found = list(abreast.outcomes(flaky, range(60), retries=SOON, ordered=ordered, chunksize=chunksize, max_workers=3))
    if ordered:
        assert [outcome.index for outcome in found] == list(range(60))
    assert {outcome.index: (outcome.ok, outcome.attempts) for outcome in found} == {
        x: (x % 6 <= 3, min(x % 6 + 1, 4)) for x in range(60)
    }
    assert flaky.calls == {x: min(x % 6 + 1, 4) for x in range(60)}
    failed = next(outcome for outcome in found if not outcome.ok)
    assert str(failed.error) == f"{failed.input} for the 4. time"


def test_what_is_over_is_forgotten():
    results = abreast.outcomes(Flaky(lambda x: x % 6), range(60), retries=SOON)
    assert len([outcome.attempts for outcome in results]) == 60
    assert results._run._lives.tried == {}
    assert not results._run._lives


def test_a_task_behind_one_that_ends_the_run_is_not_tried_again():
    """Both fail in the same moment; the first for good."""
    both = threading.Barrier(2, timeout=PATIENCE)
    flaky = []

    def task(x):
        flaky.append(x)
        if x < 2 and len(flaky) <= 2:
            both.wait()
        raise LookupError if x == 0 else ConnectionError

    with pytest.raises(LookupError):
        list(abreast.imap(task, range(2), retries=Retry(5, ConnectionError, wait_initial=0.01, wait_jitter=0), max_workers=2))
    assert flaky.count(0) == 1
    assert flaky.count(1) <= 2


def test_a_number_is_enough():
    assert abreast.map(Flaky(lambda _: 1), [2], retries=1) == [4]


def test_the_summary_counts_tasks_and_retries():
    results = abreast.outcomes(Flaky(lambda x: x), range(6), retries=SOON)
    assert sum(outcome.ok for outcome in results) == 4
    summary = results.summary()
    assert (summary.tasks, summary.failures, summary.retries, summary.cancelled) == (6, 2, 1 + 2 + 3 + 3 + 3, 0)
    assert "2 failed, 12 retries" in str(summary)
    assert "retr" not in str(abreast.RunSummary(1, 1, 0.0, 0.0, 0))
    assert str(abreast.RunSummary(1, 1, 0.0, 0.0, 0, retries=1)).endswith("0 failed, 1 retry")


@every_way
def test_the_last_error_is_raised_and_a_note_tells_the_attempt(run):
    flaky = Flaky(lambda x: 9 if x == 5 else 0)
    with pytest.raises(ConnectionError, match="5 for the 4. time") as caught:
        run(flaky, range(30), retries=SOON, max_workers=2)
    notes = getattr(caught.value, "__notes__", [])
    if notes:  # outcomes carry it as an attribute
        assert "input 5, attempt 4" in notes[0]


def test_in_order_the_results_before_it_come_first():
    results = abreast.imap(Flaky(lambda x: 9 if x == 5 else x % 3), range(30), retries=SOON, max_workers=3)
    found = []
    with pytest.raises(ConnectionError):
        for result in results:
            found.append(result)
    assert found == [x * x for x in range(5)]


class TestErrorsThatAreNotTriedAgain:
    @pytest.mark.parametrize("on", [TimeoutError, (TimeoutError, LookupError), lambda error: "busy" in str(error)])
    def test_others_than_on_says(self, on):
        flaky = Flaky(lambda _: 1)
        with pytest.raises(ConnectionError):
            abreast.map(flaky, range(3), retries=Retry(3, on), max_workers=1)
        assert flaky.calls == {0: 1}

    def test_in_order_no_task_behind_it_is_started(self):
        flaky = Flaky(lambda x: x == 2)
        with pytest.raises(ConnectionError):
            list(abreast.imap(flaky, range(100), retries=Retry(3, on=TimeoutError), max_workers=1))
        assert sorted(flaky.calls) == [0, 1, 2]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, CancelledError, abreast.DeadlockDetected])
    def test_what_no_attempt_would_change(self, error):
        calls = []

        def fail(x):
            calls.append(x)
            raise error

        (outcome,) = abreast.outcomes(fail, [1], retries=SOON)
        assert type(outcome.error) is error
        assert calls == [1]

    def test_what_on_raises_is_the_tasks_error(self):
        def on(_):
            raise LookupError("a bug in it")

        (outcome, other) = abreast.outcomes(Flaky(lambda x: x), [1, 0], retries=Retry(3, on))
        assert isinstance(outcome.error, LookupError)
        assert isinstance(outcome.error.__context__, ConnectionError)
        assert other.ok


@pytest.mark.whole
class TestWhileItWaits:
    def test_no_worker_does(self):
        """One worker: the others' tasks run in between."""
        order = []

        def task(x):
            order.append(x)
            if x == 0 and order.count(0) == 1:
                raise ConnectionError
            return x

        assert abreast.map(task, range(5), retries=Retry(1, wait_initial=0.5, wait_jitter=0), max_workers=1) == list(range(5))
        assert order == [0, 1, 2, 3, 4, 0]

    def test_it_counts_as_ahead(self):
        flaky = Flaky(lambda x: x == 0)
        read = []

        def inputs():
            for x in range(100):
                read.append(x)
                yield x

        results = abreast.imap(flaky, inputs(), retries=Retry(1, wait_initial=0.2, wait_jitter=0), max_workers=2, buffersize=4)
        deadline = time.monotonic() + PATIENCE
        thread = threading.Thread(target=lambda: seen.append(next(results)))
        seen = []
        thread.start()
        while sum(flaky.calls.values()) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert read == [0, 1, 2, 3]
        thread.join()
        assert seen == [0]
        results.close()

    def test_ten_thousand_take_a_kilobyte_each_and_no_thread(self):
        failed = threading.Semaphore(0)

        def fail(_):
            failed.release()
            raise ConnectionError("x" * 100)

        def wait():
            with contextlib.suppress(CancelledError):
                list(results)

        count = 10_000
        results = abreast.imap(fail, range(count), retries=LATE, max_workers=2, buffersize=count + 1)
        gc.collect()
        tracemalloc.start()
        try:
            waiter = threading.Thread(target=wait, daemon=True)
            before = tracemalloc.get_traced_memory()[0]
            waiter.start()
            for _ in range(count):
                assert failed.acquire(timeout=PATIENCE)
            deadline = time.monotonic() + PATIENCE
            while len(results._run._lives._waiting) < count and time.monotonic() < deadline:
                time.sleep(0.001)
            gc.collect()
            used = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert len(results._run._lives._waiting) == count
        assert not results._run._feed.running
        assert used / count < 1000
        assert threading.active_count() <= 4  # this one, the one that waits, two workers
        results._run._cancel_from_outside()
        waiter.join(PATIENCE)
        assert not waiter.is_alive()

    @lazily
    def test_giving_up_ends_it(self, start):
        flaky = Flaky(lambda x: x == 1)
        results = start(flaky, range(2), retries=LATE, ordered=False)
        assert value(next(iter(results))) == 0
        results.close()
        assert flaky.calls[1] <= 1

    def test_it_is_cancelled_with_the_group_it_is_part_of(self):
        flaky = Flaky(lambda _: 1)
        with pytest.raises(ExceptionGroup) as caught, abreast.TaskGroup() as group:
            group.start(lambda: abreast.map(flaky, [1], retries=LATE))
            while not flaky.calls:
                time.sleep(0.001)
            group.cancel()
            raise LookupError
        assert caught.group_contains(LookupError)

    def test_who_waits_sleeps(self):
        """Also while another thread is held up in the executor's submit, and the next attempt is due."""
        gate = threading.Event()

        class Slow(concurrent.futures.ThreadPoolExecutor):
            def submit(self, fn, batch):
                future = super().submit(fn, batch)
                if batch.attempt == 2 and batch.start == 0:
                    gate.wait(0.5)
                return future

        with Slow(2) as executor:
            results = abreast.imap(Flaky(lambda x: 1), range(4), retries=SOON, executor=executor)
            used = time.process_time()
            assert list(results) == [0, 1, 4, 9]
            assert time.process_time() - used < 0.3


@pytest.mark.whole
class TestWithTheRunsTimeout:
    @pytest.mark.parametrize("run", [abreast.map, lambda *a, **o: list(abreast.imap(*a, **o))], ids=["map", "imap"])
    def test_no_wait_beyond_it(self, run):
        """The error of the task, at once, instead of a TimeoutError later."""
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            run(Flaky(lambda _: 1), range(3), retries=LATE, timeout=50)
        assert time.monotonic() - begun < 20

    def test_outcomes_have_the_error(self):
        found = list(abreast.outcomes(Flaky(lambda x: x), range(3), retries=LATE, timeout=50))
        assert [type(outcome.error) for outcome in found] == [type(None), ConnectionError, ConnectionError]
        assert [outcome.attempts for outcome in found] == [1, 1, 1]

    def test_what_is_tried_to_the_end_comes_as_cancelled(self):
        endless = Retry(10**6, wait_initial=0.001, wait_max=0.001, wait_jitter=0)
        good, bad = abreast.outcomes(Flaky(lambda x: x * 10**6), range(2), retries=endless, timeout=1)
        assert good.ok
        assert bad.cancelled or isinstance(bad.error, ConnectionError)  # the last wait would have been too long
        assert bad.attempts > 5

    def test_map_raises_timeout_error(self):
        """Or the task's, if that fails so late that its next attempt would come after the end."""
        endless = Retry(10**6, wait_initial=0.0, wait_max=0.0, wait_jitter=0)
        with pytest.raises((TimeoutError, ConnectionError)):
            abreast.map(Flaky(lambda _: 10**6), range(2), retries=endless, timeout=0.3)
        with Gate() as gate:

            def task(x):
                return gate(x) if abreast.current_task().attempt == 2 else Flaky(lambda _: 1)(x)

            with pytest.raises(TimeoutError, match="longer than its timeout"):
                abreast.map(task, [1], retries=endless, timeout=0.3)


def test_retry_after_is_obeyed():
    class TooManyRequests(Exception):
        retry_after = 0.3

    begun = []

    def task(_):
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise TooManyRequests

    abreast.map(task, [1], retries=SOON)
    assert begun[1] - begun[0] >= 0.3


class TestOnThreads:
    def test_time_outs_are_tried_again(self):
        with Gate() as gate:

            def task(x):
                return gate(x) if abreast.current_task().attempt == 1 and x % 2 else x

            found = list(abreast.outcomes(task, range(4), retries=SOON, task_timeout=0.5, max_workers=4))
            assert [(outcome.value, outcome.attempts) for outcome in found] == [(0, 1), (1, 2), (2, 1), (3, 2)]
            gate.open()
            join_threads("TestOnThreads")

    def test_time_outs_count_with_errors(self):
        with Gate() as gate:

            def task(x):
                if abreast.current_task().attempt == 1:
                    raise ConnectionError
                return gate(x)

            (outcome,) = abreast.outcomes(task, [0], retries=Retry(1, wait_initial=0, wait_jitter=0), task_timeout=0.3)
            assert isinstance(outcome.error, TaskTimeout)
            assert outcome.attempts == 2
            gate.open()
            join_threads("TestOnThreads")

    def test_a_task_of_an_executor_that_is_shut_down_meanwhile(self):
        with ThreadPoolExecutor(1) as executor:
            results = executor.imap(Flaky(lambda _: 1), [1], retries=Retry(1, wait_initial=0.05, wait_jitter=0))
            threading.Timer(0.01, executor.shutdown, kwargs={"wait": False}).start()
            with pytest.raises(RuntimeError, match="after shutdown"):
                list(results)

    def test_the_program_ends_soon_with_threads_that_are_stuck(self):
        done = run_python("""
            import abreast, threading, time
            forever = threading.Event()
            soon = abreast.Retry(1, wait_initial=0, wait_jitter=0)
            begun = time.monotonic()
            found = list(abreast.outcomes(lambda x: forever.wait(), range(5), task_timeout=0.2, retries=soon, max_workers=5))
            print(time.monotonic() - begun, [(type(o.error).__name__, o.attempts) for o in found] == [("TaskTimeout", 2)] * 5)
            print(time.monotonic(), flush=True)
        """)
        ended = time.monotonic()
        (took, right), (left,) = (line.split() for line in done.stdout.splitlines())
        assert right == "True", done
        assert 0.4 <= float(took) < 4
        assert ended - float(left) < 4  # with the end of an interpreter, on a busy machine


@pytest.mark.whole
class TestInProcesses:
    @pytest.mark.parametrize("ordered", [True, False])
    def test_errors_crashes_and_time_outs_and_each_other_task_once(self, ordered, tmp_path):
        def task(x):
            with open(tmp_path / str(x), "a") as file:
                file.write("x")
            return attempt_or_die(x, 1 if x < 6 else 0)

        with ProcessPoolExecutor(2, task_timeout=1, flush="each") as executor:  # else tiny ones may run again with one that dies
            found = list(executor.outcomes(task, range(40), retries=SOON, ordered=ordered))
        assert {outcome.index: (outcome.value, outcome.attempts) for outcome in found} == {
            x: ((x, 2), 2) if x < 6 else ((x, 1), 1) for x in range(40)
        }
        assert [len((tmp_path / str(x)).read_text()) for x in range(40)] == [2] * 6 + [1] * 34

    def test_a_crash_that_comes_again_is_the_tasks_error(self):
        with pytest.raises(WorkerCrashed) as caught:
            abreast.map(attempt_or_die, [3, 1], [0, 9], kind="process", retries=Retry(1, wait_initial=0.01, wait_jitter=0))
        assert "input 1, attempt 2" in caught.value.__notes__[0]

    def test_on_sees_the_error_itself(self):
        seen = []

        def on(error):
            seen.append((type(error), threading.current_thread() is threading.main_thread()))
            return True

        assert abreast.map(attempt_or_die, [0], [1], kind="process", retries=Retry(1, on, wait_initial=0.01)) == [(0, 2)]
        assert seen == [(ConnectionError, False)]

    def test_an_input_that_does_not_pickle_is_not_sent_again(self):
        (outcome,) = abreast.outcomes(abs, [threading.Lock()], kind="process", retries=SOON)
        assert isinstance(outcome.error, abreast.TaskPickleError)
        assert outcome.attempts == 1


class TestOnForeignExecutors:
    @pytest.mark.parametrize("executor", [lambda: Recording(3), Inline], ids=["threads", "inline"])
    def test_of_this_process(self, executor):
        flaky = Flaky()
        with executor() as executor:
            assert abreast.map(flaky, range(30), retries=SOON, executor=executor) == [x * x for x in range(30)]
        assert flaky.calls == {x: 1 + x % 3 for x in range(30)}
        assert flaky.told == {x: list(range(1, 2 + x % 3)) for x in range(30)}

    def test_an_attempt_that_comes_back_unstarted_is_the_same_attempt(self):
        class HandsBack(Inline):
            def submit(self, fn, batch):
                if batch.attempt == 2 and not self.came_back:
                    self.came_back = True
                    return super().submit(Finished, [], {}, [], "", 0.0, 0.0)
                return super().submit(fn, batch)

        executor = HandsBack()
        executor.came_back = False
        flaky = Flaky(lambda _: 1)
        (outcome,) = abreast.outcomes(flaky, [3], retries=SOON, executor=executor)
        assert executor.came_back
        assert (outcome.value, outcome.attempts, flaky.told[3]) == (9, 2, [1, 2])

    def test_of_processes(self):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            assert abreast.map(attempt_or_die, [0, 3], [1, 2], retries=SOON, executor=executor) == [(0, 2), (3, 3)]

    def test_one_that_breaks_is_not_asked_again(self):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            found = list(abreast.outcomes(attempt_or_die, [1], [9], retries=SOON, executor=executor))
        assert isinstance(found[0].error, concurrent.futures.BrokenExecutor)
        assert found[0].attempts == 1


def test_the_event_loop_goes_on_while_a_task_waits():
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.005)

    async def main():
        other = asyncio.create_task(tick())
        results = [
            result async for result in abreast.aimap(Flaky(), range(9), retries=Retry(3, wait_initial=0.05, wait_jitter=0))
        ]
        other.cancel()
        return results

    assert asyncio.run(main()) == [x * x for x in range(9)]
    assert len(ticks) > 5


def test_progress_never_goes_back():
    told = []
    assert abreast.map(Flaky(), range(50), retries=SOON, progress=told.append) == [x * x for x in range(50)]
    assert all(new >= 0 for new in told)
    assert sum(told) == 50


def test_no_thread_and_no_process_is_left_by_a_pool_that_is_dropped_amid_retries():
    executor = ProcessPoolExecutor(1)
    results = executor.outcomes(attempt_or_die, [0, 3], [9, 0], retries=LATE, ordered=False)
    assert next(results).value == (3, 1)
    results.close()
    executor.shutdown()

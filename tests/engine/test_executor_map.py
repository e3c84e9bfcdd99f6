"""`executor.map` behaves as the standard library's; see tests/test_map.py for results, buffers and wrong arguments.

Here: that everything is read and started at the call, and who waits for it or cancels it.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import CancelledError
from concurrent.futures import ThreadPoolExecutor as StandardThreadPoolExecutor

import abreast
import pytest
from abreast import SerialExecutor, ThreadPoolExecutor

from tests.engine.stand_ins import PATIENCE, Gate, join_threads
from tests.helpers import FREE_THREADED, in_threads

batches = pytest.mark.parametrize("chunksize", ["auto", 1, 7, 10_000])


def square(x):
    return x * x


class TestAtTheCall:
    @batches
    @pytest.mark.parametrize("make", [ThreadPoolExecutor, SerialExecutor])
    def test_everything_is_read(self, make, chunksize):
        read = []
        with make(2) as executor:
            results = executor.map(square, (read.append(i) or i for i in range(500)), chunksize=chunksize)
            assert read == list(range(500))
            assert list(results) == [square(i) for i in range(500)]

    @batches
    @pytest.mark.parametrize("make", [ThreadPoolExecutor, SerialExecutor])
    def test_everything_is_run_although_nobody_iterates(self, make, chunksize):
        """Leaving the block waits for it, as ``shutdown(wait=True)`` does."""
        ran = []
        with make(2) as executor:
            executor.map(ran.append, range(3000), chunksize=chunksize)
        assert sorted(ran) == list(range(3000))

    @batches
    def test_everything_is_run_although_the_iterator_is_kept_and_not_asked(self, chunksize):
        ran = []
        with ThreadPoolExecutor(2) as executor:
            results = executor.map(ran.append, range(3000), chunksize=chunksize)
        assert sorted(ran) == list(range(3000))
        assert list(results) == [None] * 3000

    def test_an_input_of_an_error_is_raised_there_and_nothing_is_left_waiting(self):
        def inputs():
            yield from range(5)
            raise LookupError

        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            with pytest.raises(LookupError):
                executor.map(gate, inputs(), chunksize=1)
            gate.open()
        assert gate.started in ([], [0])

    def test_a_pool_that_is_shut_down_refuses(self):
        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.map(square, [1])

    def test_tasks_submitted_afterwards_come_after_it(self):
        ran = []
        with ThreadPoolExecutor(1) as executor:
            gate = threading.Event()
            executor.submit(gate.wait, PATIENCE)
            executor.map(ran.append, range(2), chunksize=1)
            executor.submit(ran.append, "later")
            gate.set()
        assert ran == [0, 1, "later"]

    def test_one_worker_runs_tasks_in_the_order_of_the_inputs(self):
        for _ in range(20):
            ran = []
            with ThreadPoolExecutor(1) as executor:
                executor.map(ran.append, range(100))
            assert ran == list(range(100))

    def test_statistics_count_tasks(self):
        with ThreadPoolExecutor(2) as executor:
            assert len(list(executor.map(square, range(1000)))) == 1000
        assert executor.statistics().finished == 1000


class TestShutdown:
    @batches
    def test_wait_true_waits_for_it(self, chunksize):
        with Gate() as gate:
            executor = ThreadPoolExecutor(2)
            results = executor.map(gate, range(40), chunksize=chunksize)
            in_threads(lambda: executor.shutdown(wait=True), gate.open)
            assert sorted(gate.started) == list(range(40))
            assert list(results) == list(range(40))

    @batches
    def test_wait_false_lets_it_run_to_its_end(self, chunksize):
        with Gate() as gate:
            executor = ThreadPoolExecutor(2, thread_name_prefix="rest")
            results = executor.map(gate, range(40), chunksize=chunksize)
            executor.shutdown(wait=False)
            gate.open()
            assert list(results) == list(range(40))
            join_threads("rest")

    @pytest.mark.parametrize("chunksize", ["auto", 1])
    def test_cancel_futures_cancels_what_has_not_started(self, chunksize):
        with Gate() as gate:
            executor = ThreadPoolExecutor(2)
            results = executor.map(gate, range(500), chunksize=chunksize)
            gate.wait_started(0, 1)
            executor.shutdown(wait=False, cancel_futures=True)
            gate.open()
            executor.shutdown(wait=True)
            assert [next(results), next(results)] == [0, 1]
            with pytest.raises(CancelledError):
                next(results)
            assert list(results) == []
        assert sorted(gate.started) == [0, 1]

    def test_cancel_futures_ends_a_consumer_that_waits(self):
        with Gate() as gate:
            executor = ThreadPoolExecutor(1)
            results = executor.map(gate, range(50), chunksize=1)

            def consume():
                assert next(results) == 0
                with pytest.raises(CancelledError):
                    next(results)

            def shut_down():
                gate.wait_started(0)
                executor.shutdown(wait=False, cancel_futures=True)
                gate.open()

            in_threads(consume, shut_down)
            executor.shutdown()

    @pytest.mark.parametrize("method", ["imap", "outcomes"])
    @pytest.mark.parametrize("make", [ThreadPoolExecutor, SerialExecutor])
    def test_of_a_lazy_run_is_an_error_never_a_shorter_list(self, method, make):
        executor = make(1)
        results = getattr(executor, method)(square, range(50), buffersize=2)
        next(results)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            list(results)

    @pytest.mark.parametrize("seed", range(10))
    def test_against_a_run_gives_everything_or_an_error(self, seed, busy_switching):
        executor = ThreadPoolExecutor(3)
        results = []

        def consume():
            try:
                for result in executor.imap(square, range(400), chunksize=[1, "auto"][seed % 2]):
                    results.append(result)
            except (RuntimeError, CancelledError) as error:
                return error
            return None

        def shut_down():
            while len(results) < 20 * seed:
                pass
            executor.shutdown(cancel_futures=bool(seed % 3))

        error, _ = in_threads(consume, shut_down)
        assert results == [square(i) for i in range(len(results))]
        assert error is not None or len(results) == 400

    @pytest.mark.parametrize("seed", range(10))
    def test_while_everything_is_started_runs_what_was(self, seed, busy_switching):
        """The executor ends while its own workers still submit what the call has read."""
        ran = []
        with ThreadPoolExecutor(1 + seed % 3) as executor:
            results = executor.map(lambda i: ran.append(i) or i, range(1000), chunksize=[3, "auto"][seed % 2])
        assert list(results) == list(range(1000))
        assert sorted(ran) == list(range(1000))


class TestDropped:
    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_an_iterator_that_was_never_asked_lets_everything_run(self, no_gc):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            results = executor.map(gate, range(20), chunksize=1)
            del results
            gate.open()
        assert sorted(gate.started) == list(range(20))

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    @pytest.mark.parametrize("make", [ThreadPoolExecutor, StandardThreadPoolExecutor])
    def test_an_iterator_that_was_asked_cancels_the_rest(self, make, no_gc):
        """As the standard library's does."""
        with Gate() as gate, make(1) as executor:
            results = executor.map(lambda i: gate(i) if i else i, range(20))
            assert next(results) == 0
            gate.wait_started(1)
            del results
            gate.open()
        assert gate.started == [1]

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_an_executor_that_is_dropped_finishes_what_was_started_and_its_threads_end(self, no_gc):
        ran = []
        executor = ThreadPoolExecutor(2, thread_name_prefix="dropped")
        results = executor.map(ran.append, range(2000))
        del executor
        assert list(results) == [None] * 2000
        join_threads("dropped")
        assert sorted(ran) == list(range(2000))


class TestAfterAnError:
    @batches
    def test_the_rest_is_cancelled_and_the_iterator_ends(self, chunksize):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:

            def task(i):
                gate.started.append(i)
                if i == 3:
                    raise LookupError
                return i

            results = executor.map(task, range(5000), chunksize=chunksize)
            assert [next(results) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(LookupError):
                next(results)
            assert list(results) == []
            executor.submit(int).result(PATIENCE)
            assert gate.started == [0, 1, 2, 3]

    @pytest.mark.parametrize("chunksize", ["auto", 1])
    def test_of_a_task_the_rest_is_not_run_although_nobody_asks(self, chunksize):
        """At once: nothing behind the error is started."""
        ran = []

        def task(i):
            ran.append(i)
            if i == 3:
                raise LookupError

        with ThreadPoolExecutor(1) as executor:
            executor.map(task, range(500), chunksize=chunksize)
        assert 3 in ran
        assert len(ran) <= 6

    def test_close_cancels_the_rest(self):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            results = executor.map(gate, range(20), chunksize=1)
            gate.wait_started(0)
            results.close()
            assert list(results) == []
            gate.open()
        assert gate.started == [0]


class TestInsideItsOwnWorkers:
    def test_with_a_worker_to_spare(self):
        with ThreadPoolExecutor(2) as executor:
            assert executor.submit(lambda: list(executor.map(square, range(200)))).result(PATIENCE) == [
                square(i) for i in range(200)
            ]

    @pytest.mark.parametrize("chunksize", ["auto", 1, 300])
    def test_with_none_is_a_deadlock_that_is_detected(self, chunksize):
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(lambda: list(executor.map(square, range(200), chunksize=chunksize)))
            with pytest.raises(abreast.DeadlockDetected):
                future.result(PATIENCE)

    def test_what_is_started_there_and_not_waited_for_runs(self):
        ran = []
        with ThreadPoolExecutor(1) as executor:
            executor.submit(lambda: executor.map(ran.append, range(500)) and None).result(PATIENCE)
        assert sorted(ran) == list(range(500))


class TestReplacedSubmit:
    """Who has replaced ``submit`` sees every call of the user's function (tqdm does so)."""

    @pytest.mark.parametrize("run", ["map", "imap", "outcomes"])
    def test_on_the_instance(self, run):
        calls = []
        with ThreadPoolExecutor(2) as executor:
            original = executor.submit
            executor.submit = lambda fn, *args: calls.append((fn, args)) or original(fn, *args)
            results = list(getattr(executor, run)(square, range(30)))
        assert [getattr(result, "value", result) for result in results] == [square(i) for i in range(30)]
        assert calls == [(square, (i,)) for i in range(30)]

    def test_in_a_subclass(self):
        class Counting(ThreadPoolExecutor):
            calls = 0

            def submit(self, fn, /, *args, **kwargs):
                type(self).calls += 1
                return super().submit(fn, *args, **kwargs)

        with Counting(2) as executor:
            assert list(executor.map(pow, range(20), itertools.repeat(2))) == [square(i) for i in range(20)]
        assert Counting.calls == 20


def test_options_that_map_of_an_executor_does_not_have_are_told_where_to_go():
    executor = SerialExecutor()
    with pytest.raises(TypeError, match=r"^retries=3: an executor's map has timeout, .* see its with_options\(retries=…\)\.map$"):
        executor.map(square, [1], retries=3)
    with pytest.raises(TypeError, match=r"^ordered=False: .* see its imap or outcomes$"):
        executor.map(square, [1], ordered=False)

"""Runs on executors that are not ours: the standard library's threads and processes, loky, one that runs calls in ``submit``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import operator
import os
import pickle
import re
import threading
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import abreast
import pytest
from abreast.executors.batch import Batch, Finished, _Failure

from tests.engine.stand_ins import PATIENCE, Backwards, Gate, Inline, Inputs, Recording, first_then
from tests.helpers import in_threads, run_python

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do

try:
    FORK = multiprocessing.get_context("fork")
except ValueError:  # not on Windows
    FORK = None

forks = pytest.mark.skipif(FORK is None, reason="no fork here")

# Module-level, so that they can be sent to processes by name.


def square(x):
    return x * x


def halve(x):
    return 8 / x


def give_lock(x):
    return threading.Lock() if x == 2 else x


class Unsendable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    """Can be pickled, and cannot be unpickled: its constructor wants more than ``args`` holds."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")


class Sendable(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


def raise_one_of(x):
    if x:
        raise [Unsendable("locked"), TwoArguments(1, "two"), Sendable(404, "gone"), SystemExit(3)][x - 1]
    return x


def die_at(x):
    if x == 3:
        os._exit(1)
    return x


def who(_):
    task = abreast.current_task()
    return task.name, task.index, task.attempt, task.cancelled, os.getpid()


def waits_for_event(_):
    EVENT.wait(PATIENCE)


EVENT = None


# Of the module: what they start (processes, a thread, a resource tracker) is there before a test's guard looks, and is used by many.


def open_forked():
    if FORK is None:
        pytest.skip("no fork here")
    pool = ProcessPoolExecutor(2, mp_context=FORK)
    assert list(pool.map(square, [1, 2])) == [1, 4]
    return pool


def open_spawned():
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def open_loky():
    return pytest.importorskip("loky").ProcessPoolExecutor(2)


def opened(make):
    pool = make()
    assert [future.result() for future in [pool.submit(abs, -1) for _ in range(8)]] == [1] * 8
    yield pool
    pool.shutdown(wait=True)


@pytest.fixture(scope="module", params=[open_forked, open_spawned, pytest.param(open_loky, marks=pytest.mark.clients)])
def processes(request):
    """Each kind of pool of processes, with functions that all of them can be sent."""
    yield from opened(request.param)


@pytest.fixture(scope="module")
def forked():
    yield from opened(open_forked)


@pytest.fixture(scope="module")
def loky():
    yield from opened(open_loky)


class TestProcesses:
    @pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 40}, {"buffersize": 7}], ids=str)
    def test_results_come_in_order(self, processes, options):
        assert list(abreast.imap(abs, range(-300, 0), executor=processes, **options)) == list(range(300, 0, -1))

    def test_results_of_map_and_amap(self, processes):
        assert abreast.map(abs, range(-300, 0), executor=processes) == list(range(300, 0, -1))
        assert asyncio.run(abreast.amap(abs, iter(range(-300, 0)), executor=processes)) == list(range(300, 0, -1))
        assert sorted(abreast.map(abs, range(-300, 0), executor=processes, ordered=False)) == list(range(1, 301))

    def test_several_iterables(self, processes):
        assert abreast.map(divmod, [7, 8], [2, 3], executor=processes) == [(3, 1), (2, 2)]

    def test_endless_inputs_are_read_lazily(self, processes):
        read = itertools.count()
        results = abreast.imap(operator.neg, read, executor=processes, chunksize=1)
        assert list(itertools.islice(results, 20)) == [-i for i in range(20)]
        results.close()
        assert next(read) < 40

    def test_errors_keep_their_type_and_carry_the_traceback_from_there(self, processes):
        with pytest.raises(ZeroDivisionError) as caught:
            abreast.map(divmod, [4, 1, 5], [2, 0, 5], executor=processes)
        assert "ZeroDivisionError" in str(caught.value.__cause__)
        assert re.fullmatch(r"abreast: raised by divmod\(1, 0\): input 1, attempt 1, on process \d+", caught.value.__notes__[-1])

    def test_in_order_what_comes_before_an_error_is_yielded(self, processes):
        results = abreast.imap(operator.truediv, [8] * 9, [1, 2, 4, 8, 0, 1, 1, 1, 1], executor=processes)
        assert list(itertools.islice(results, 4)) == [8, 4, 2, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)

    @pytest.mark.parametrize("chunksize", ["auto", 1, 5])
    def test_outcomes_go_on_and_tell_worker_and_duration(self, processes, chunksize):
        got = list(abreast.outcomes(divmod, [8] * 20, [1, 0] * 10, executor=processes, chunksize=chunksize))
        assert [outcome.index for outcome in got] == list(range(20))
        assert [outcome.ok for outcome in got] == [True, False] * 10
        assert {type(outcome.error) for outcome in got} == {type(None), ZeroDivisionError}
        assert all(re.fullmatch(r"process \d+", outcome.worker) for outcome in got)
        assert all(0 <= outcome.duration < PATIENCE for outcome in got)

    def test_the_pool_stays_usable_after_an_error(self, processes):
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                abreast.map(divmod, [1] * 30, [0] * 30, executor=processes)
        assert abreast.map(abs, [-1], executor=processes) == [1]

    @pytest.mark.parametrize("run", [abreast.map, lambda *args, **options: list(abreast.outcomes(*args, **options))[0].result()])
    def test_an_input_that_cannot_be_sent_is_an_error_and_the_pool_stays_usable(self, processes, run):
        with pytest.raises(Exception, match="pickle") as caught:
            run(id, [threading.Lock()], executor=processes)
        assert isinstance(caught.value, (TypeError, RuntimeError, Exception))
        assert abreast.map(abs, [-1], executor=processes) == [1]

    def test_the_summary_counts_processes(self, processes):
        results = abreast.imap(abs, range(100), executor=processes, chunksize=10)
        list(results)
        assert 1 <= results.summary().workers <= 2
        assert results.summary().tasks == 100


class TestForkedProcesses:
    """With functions of this file."""

    def test_tasks_run_there_and_know_who_they_are(self, forked):
        got = abreast.map(who, range(40), executor=forked, name="there")
        assert [task[:4] for task in got] == [("there", i, 1, False) for i in range(40)]
        assert os.getpid() not in {task[4] for task in got}

    def test_a_function_that_cannot_be_sent_is_an_error(self, forked):
        with pytest.raises(Exception, match="pickle|local object"):
            abreast.map(lambda x: x, [1], executor=forked)
        assert abreast.map(square, [2], executor=forked) == [4]

    @pytest.mark.parametrize("chunksize", [1, 4])
    def test_an_error_that_cannot_be_sent_says_so(self, forked, chunksize):
        got = list(abreast.outcomes(raise_one_of, [0, 1, 2, 0], executor=forked, chunksize=chunksize))
        assert [outcome.ok for outcome in got] == [True, False, False, True]
        assert str(got[1].error).startswith("the task raised Unsendable: locked; which cannot be sent back: ")
        assert str(got[2].error).startswith("the task raised TwoArguments: 1 two; which cannot be sent back: ")
        assert all(isinstance(outcome.error, RuntimeError) for outcome in got[1:3])
        assert "in raise_one_of" in str(got[1].error.__cause__)

    def test_an_error_that_can_be_sent_comes_with_what_it_holds(self, forked):
        with pytest.raises(Sendable) as caught:
            abreast.map(raise_one_of, [0, 3], executor=forked)
        assert (caught.value.args, caught.value.code) == ((404, "gone"), 404)
        cause = str(caught.value.__cause__)
        assert "Traceback (most recent call last)" in cause
        assert "in raise_one_of" in cause
        assert "_run_tasks" not in cause

    def test_system_exit_is_the_tasks_outcome_and_ends_no_process(self, forked):
        got = list(abreast.outcomes(raise_one_of, [0, 4, 0], executor=forked))
        assert isinstance(got[1].error, SystemExit)
        assert [outcome.ok for outcome in got] == [True, False, True]

    def test_a_result_that_cannot_be_sent_is_that_tasks_error(self, forked):
        got = list(abreast.outcomes(give_lock, range(4), executor=forked, chunksize=1))
        assert [outcome.ok for outcome in got] == [True, True, False, True]
        assert "pickle" in str(got[2].error)

    def test_a_result_that_cannot_be_sent_loses_none_silently(self, forked):
        """Its batch mates are lost with it, and say so."""
        got = list(abreast.outcomes(give_lock, range(4), executor=forked, chunksize=4))
        assert [outcome.index for outcome in got] == list(range(4))
        for outcome in got:
            assert outcome.value == outcome.input if outcome.ok else "pickle" in str(outcome.error)
        assert not got[2].ok

    def test_a_timeout_does_not_wait(self):
        global EVENT
        EVENT = FORK.Event()
        with ProcessPoolExecutor(1, mp_context=FORK) as pool:
            with pytest.raises(TimeoutError, match="longer than its timeout"):
                abreast.map(waits_for_event, range(5), executor=pool, timeout=0.2)
            assert not EVENT.is_set()
            EVENT.set()

    def test_a_consumer_that_stops_early_leaves_the_rest_undone(self):
        global EVENT
        EVENT = FORK.Event()
        EVENT.set()
        with ProcessPoolExecutor(1, mp_context=FORK) as pool:
            with abreast.imap(waits_for_event, range(1000), executor=pool, chunksize=1) as results:
                next(results)
            assert results.summary().tasks < 10


def test_what_comes_back_is_shown_when_it_is_complete():
    """The consumer may look at a batch at any moment; what `results` counts has to have its error and its time."""
    batch = Batch(None, 0, [1, 2], None, 1, None)
    shown = []

    class Errors(dict):
        def items(self):
            shown.append((len(batch.results), len(batch.ends)))
            return super().items()

    failure = pickle.loads(pickle.dumps(Finished([None], {0: _Failure(KeyError())}, [1.0], "", 0.0, 1.0))).errors[0]
    batch.load(Finished([None, 4], Errors({0: failure}), [1.0, 2.0], "there", 0.5, 1.5))
    assert all(not results for results, _ in shown)
    assert batch.results == [None, 4]
    assert isinstance(batch.errors[0], KeyError)
    assert batch.ends == [1.0, 2.0]


@forks
class TestBrokenProcesses:
    """A process that dies breaks the pool: that is the error, at once, and nothing waits for ever."""

    @pytest.fixture
    def pool(self):
        with ProcessPoolExecutor(2, mp_context=FORK) as pool:
            yield pool

    @pytest.mark.parametrize("chunksize", ["auto", 1, 10])
    def test_map_raises_it(self, pool, chunksize):
        with pytest.raises(BrokenProcessPool):
            abreast.map(die_at, range(200), executor=pool, chunksize=chunksize)

    @pytest.mark.parametrize("ordered", [True, False])
    def test_imap_raises_it_over_endless_inputs(self, pool, ordered):
        got = []
        with pytest.raises(BrokenProcessPool):
            for result in abreast.imap(die_at, itertools.count(), executor=pool, chunksize=1, ordered=ordered):
                got.append(result)
        assert 3 not in got
        assert len(got) == len(set(got))
        assert not ordered or got == [0, 1, 2][: len(got)]

    def test_outcomes_say_which_tasks_are_lost_and_then_raise_it(self, pool):
        got = []
        with pytest.raises(BrokenProcessPool):
            for outcome in abreast.outcomes(die_at, range(1000), executor=pool, chunksize=1):
                got.append(outcome)
        assert [outcome.index for outcome in got] == list(range(len(got)))
        assert all(
            outcome.value == outcome.input if outcome.ok else isinstance(outcome.error, BrokenProcessPool) for outcome in got
        )
        assert not got[3].ok if len(got) > 3 else True

    def test_tasks_that_are_lost_together_say_so(self, pool):
        outcome = next(abreast.outcomes(die_at, [3, 0, 0, 0], executor=pool, chunksize=4))
        assert isinstance(outcome.error, BrokenProcessPool)
        assert "abreast: 4 tasks were lost together; which of them had run is not known" in outcome.error.__notes__

    def test_other_futures_of_the_pool_are_told_too(self, pool):
        """Those that the run does not know: nothing that it does keeps the pool from settling them."""
        mine = []
        for i in range(20):
            mine.append(pool.submit(square, i))
        with pytest.raises(BrokenProcessPool):
            abreast.map(die_at, range(3, 300), executor=pool, chunksize=1)
        mine += [future for future in [self.submit(pool)] if future]
        for future in mine:
            future.exception(PATIENCE)

    @pytest.mark.parametrize("knows", [True, False])
    def test_what_is_sent_while_it_breaks_is_not_cancelled(self, knows):
        """The thread that fails its futures would die of it, and leave all others pending: here it does so amid a `submit`."""

        class Breaks(concurrent.futures.Executor):
            _max_workers = 4

            def __init__(self):
                self.futures = []

            def submit(self, fn, /, *args):
                self.futures.append(concurrent.futures.Future())
                if len(self.futures) == 3:
                    if knows:
                        self._broken = "a process died"
                    self.futures[0].set_exception(BrokenProcessPool())
                return self.futures[-1]

        executor = Breaks()
        with pytest.raises(BrokenProcessPool):
            abreast.map(square, range(8), executor=executor, chunksize=1)
        assert len(executor.futures) == 3
        for future in executor.futures[1:]:
            future.set_exception(BrokenProcessPool())  # InvalidStateError, if it was cancelled

    def submit(self, pool):
        try:
            return pool.submit(square, 1)
        except BrokenProcessPool:
            return None

    def test_a_pool_that_was_broken_before(self, pool):
        with pytest.raises(BrokenProcessPool):
            pool.submit(os._exit, 1).result()
        for run in (abreast.map, lambda *args, **options: list(abreast.outcomes(*args, **options))):
            with pytest.raises(BrokenProcessPool):
                run(square, range(10), executor=pool)


@pytest.mark.clients
class TestLoky:
    def test_functions_of_no_module_can_be_sent(self, loky):
        offset = 10
        assert abreast.map(lambda x: x + offset, range(50), executor=loky) == list(range(10, 60))

    def test_a_process_that_dies_is_its_error(self, loky):
        """In a program of its own: beside psutil, loky leaves a semaphore and a pipe behind until the program ends."""
        done = run_python("""
            import os, abreast, loky
            from concurrent.futures import BrokenExecutor
            pool = loky.ProcessPoolExecutor(1)
            try:
                abreast.map(lambda _: os._exit(1), range(5), executor=pool)
            except BrokenExecutor:
                print("broken")
            pool.shutdown(wait=True)
        """)
        assert (done.stdout, done.returncode) == ("broken\n", 0)


class TestThreads:
    """The standard library's ThreadPoolExecutor."""

    def test_runs_and_stays_open(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in range(3):
                assert abreast.map(square, range(500), executor=pool) == [square(i) for i in range(500)]
                assert list(abreast.imap(square, iter(range(500)), executor=pool, ordered=True)) == [
                    square(i) for i in range(500)
                ]
            assert pool.submit(square, 2).result() == 4

    def test_a_pool_that_its_owner_ends_is_an_error_never_a_shorter_list(self):
        pool = concurrent.futures.ThreadPoolExecutor(2)
        results = abreast.imap(square, range(5000), executor=pool, chunksize=1)
        got = [next(results)]
        pool.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            for result in results:
                got.append(result)
        assert got == [square(i) for i in range(len(got))]

    @pytest.mark.parametrize("run", [abreast.map, abreast.imap])
    def test_tasks_that_its_owner_cancels_are_an_error_never_a_shorter_list(self, run):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with Gate() as gate:

            def cancel():
                gate.wait_started(0)
                pool.shutdown(wait=False, cancel_futures=True)
                gate.open()

            def consume():
                with pytest.raises((CancelledError, RuntimeError)):
                    list(run(gate, range(50), executor=pool, chunksize=1))

            in_threads(cancel, consume)
            pool.shutdown()

    def test_tasks_that_its_owner_cancels_come_as_cancelled_outcomes(self):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        got = []
        with Gate() as gate:

            def cancel():
                gate.wait_started(0)
                pool.shutdown(wait=False, cancel_futures=True)
                gate.open()

            def consume():
                with pytest.raises(RuntimeError, match="after shutdown"):
                    for outcome in abreast.outcomes(gate, range(50), executor=pool, chunksize=1):
                        got.append(outcome)

            in_threads(cancel, consume)
            pool.shutdown()
        assert [outcome.index for outcome in got] == list(range(len(got)))
        assert all(outcome.index == 0 if outcome.ok else outcome.cancelled and outcome.attempts == 0 for outcome in got)

    def test_errors(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            with pytest.raises(ZeroDivisionError) as caught:
                abreast.map(halve, [2, 1, 0], executor=pool)
            assert "halve(0): input 2, attempt 1, on ThreadPoolExecutor-" in caught.value.__notes__[-1]
            assert [outcome.ok for outcome in abreast.outcomes(halve, [0, 2, 0], executor=pool)] == [False, True, False]

    def test_what_waits_is_cancelled_when_the_run_ends(self):
        with Gate() as gate, Recording(1) as pool:
            inputs = Inputs(1)
            with abreast.imap(first_then(inputs, gate), inputs, executor=pool, chunksize=1) as results:
                next(results)
                gate.wait_started(1)
            gate.open()
        assert gate.started == [1]


class TestInline:
    """An executor that runs each call within ``submit``, in the thread that asks."""

    @pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 7}, {"buffersize": 3}, {"ordered": False}], ids=str)
    def test_results(self, options):
        assert list(abreast.imap(square, range(3000), executor=Inline(), **options)) == [square(i) for i in range(3000)]

    def test_map_does_not_recurse(self):
        assert abreast.map(square, range(20_000), executor=Inline(), chunksize=1) == [square(i) for i in range(20_000)]

    def test_batches_are_single_calls(self):
        executor = Inline()
        abreast.map(square, range(100), executor=executor, chunksize=10)
        assert executor.calls == 10

    def test_endless_inputs(self):
        results = abreast.imap(square, itertools.count(), executor=Inline())
        assert list(itertools.islice(results, 500)) == [square(i) for i in range(500)]

    def test_errors_and_outcomes(self):
        with pytest.raises(ZeroDivisionError):
            abreast.map(halve, [1, 0], executor=Inline())
        assert [outcome.ok for outcome in abreast.outcomes(halve, [0, 2, 0], executor=Inline())] == [False, True, False]


class Refusing(concurrent.futures.Executor):
    """Takes so many calls, and no more."""

    def __init__(self, calls):
        self.left = calls
        self.inner = Inline()

    def submit(self, fn, /, *args, **kwargs):
        if not self.left:
            raise OSError("out of calls")
        self.left -= 1
        return self.inner.submit(fn, *args, **kwargs)


class Breaking(concurrent.futures.Executor):
    """Waits for so many calls, and then breaks: tells each future so, one after the other, as a pool of processes does."""

    def __init__(self, calls):
        self._max_workers = calls
        self.calls = calls
        self.futures = []
        self.refusals = []

    def submit(self, fn, /, *args):
        self.futures.append(concurrent.futures.Future())
        if len(self.futures) == self.calls:
            self.thread = threading.Thread(target=self.break_down)
            self.thread.start()
        return self.futures[-1]

    def break_down(self):
        while not self.futures[-1]._done_callbacks:  # the last one's comes when submit() has returned
            pass
        for future in self.futures:
            try:
                future.set_exception(concurrent.futures.BrokenExecutor("broken"))
            except concurrent.futures.InvalidStateError as error:
                self.refusals.append(error)


class TestExecutorsThatFail:
    # library's pool of processes does not expect that: its thread ends with InvalidStateError, other people's futures are never told,
    # and its queue's thread and pipes stay.
    @pytest.mark.parametrize(
        "run", [abreast.map, lambda *args, **options: list(abreast.imap(*args, **options))], ids=["map", "imap"]
    )
    def test_one_that_breaks_can_tell_all_its_futures_so(self, run):
        executor = Breaking(4)
        with pytest.raises(BrokenExecutor):
            run(square, range(4), executor=executor, chunksize=1)
        executor.thread.join(PATIENCE)
        assert executor.refusals == []

    @pytest.mark.parametrize("calls", [0, 1, 5])
    def test_what_submit_raises_is_raised_and_no_result_is_lost_silently(self, calls):
        with pytest.raises(OSError, match="out of calls"):
            abreast.map(square, range(100), executor=Refusing(calls), chunksize=1)
        got = []
        with pytest.raises(OSError, match="out of calls"):
            for result in abreast.imap(square, range(100), executor=Refusing(calls), chunksize=1):
                got.append(result)
        assert got == [square(i) for i in range(len(got))]
        assert len(got) <= calls

    def test_what_submit_raises_in_a_worker_is_raised_where_results_are_asked_for(self):
        """What has been read may be submitted by the thread that completes a batch."""

        class Late(concurrent.futures.ThreadPoolExecutor):
            def submit(self, fn, /, *args):
                if threading.current_thread() is not threading.main_thread():
                    raise OSError("not from here")
                return super().submit(fn, *args)

        def inputs():
            yield from range(3000)

        with Late(1) as pool:
            try:  # whether a worker submits at all is a matter of time
                got = list(abreast.imap(square, inputs(), executor=pool))
            except OSError as error:
                assert str(error) == "not from here"
            else:
                assert got == [square(i) for i in range(3000)]

    def test_what_a_future_raises_that_is_no_outcome_of_a_task_is_its_tasks_error(self):
        class Losing(Inline):
            def submit(self, fn, /, *args):
                if self.calls != 1:
                    return super().submit(fn, *args)
                self.calls += 1
                future = concurrent.futures.Future()
                future.set_exception(ConnectionError("lost"))
                return future

        got = list(abreast.outcomes(square, range(4), executor=Losing(), chunksize=1))
        assert [outcome.ok for outcome in got] == [True, False, True, True]
        assert str(got[1].error) == "lost"
        with pytest.raises(ConnectionError, match="lost"):
            abreast.map(square, range(4), executor=Losing(), chunksize=1)

    def test_an_executor_of_unknown_width_gets_work_for_the_cores(self):
        executor = Backwards(2 * (os.cpu_count() or 1))
        del executor._max_workers
        total = executor.count
        assert list(abreast.imap(square, range(total), executor=executor, chunksize=1)) == [square(i) for i in range(total)]

"""`with_options`: views of our executors, with retries and limits for what is submitted through them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import itertools
import os
import sys
import threading
import time
import weakref

import abreast
import pytest
from abreast import CancelledError, ProcessPoolExecutor, Retry, SerialExecutor, TaskTimeout, ThreadPoolExecutor, WorkerCrashed

from tests.engine.stand_ins import PATIENCE, Gate
from tests.helpers import run_python

pytestmark = pytest.mark.usefixtures("no_timer_is_left")

SOON = Retry(3, wait_initial=0.005, wait_max=0.01, wait_jitter=0)
LATE = Retry(1, wait_initial=100, wait_max=100)

processes = pytest.param(
    ProcessPoolExecutor,
    id="processes",
    marks=pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
)
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(ThreadPoolExecutor, id="threads"), pytest.param(SerialExecutor, id="serial"), processes]
)
pools = pytest.mark.parametrize("kind", [pytest.param(ThreadPoolExecutor, id="threads"), processes])


def flaky(x, failures=1, *, how="raise"):
    attempt = abreast.current_task().attempt
    if attempt <= failures:
        if how == "raise":
            raise ConnectionError(f"{x}, attempt {attempt}")
        if how == "die":
            os._exit(3)
        time.sleep(1)
    return x, attempt, abreast.current_task().name


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiting(view, count=1, fn=flaky):
    """Futures of calls that have failed once, and wait for their next attempt."""
    futures = [view.submit(fn, x) for x in range(count)]
    for future in futures:
        wait_until(lambda future=future: future._call is not None and future._call._alarm is not None)
    return futures


@pytest.mark.whole
class TestSubmit:
    @every_kind
    def test_tries_again(self, kind):
        with kind(2) as executor:
            view = executor.with_options(retries=SOON)
            futures = [view.submit(flaky, x, failures=x % 4) for x in range(12)]
            assert [future.result(PATIENCE) for future in futures] == [(x, x % 4 + 1, "flaky") for x in range(12)]

    def test_attempts_that_travel_together_know_which_they_are(self):
        with ProcessPoolExecutor(1) as executor:
            view = executor.with_options(retries=Retry(2, wait_initial=0.02, wait_jitter=0))
            futures = [view.submit(flaky, x, 2) for x in range(400)]  # of one function, in one context: they are packed
            assert [future.result(PATIENCE)[1] for future in futures] == [3] * 400

    @every_kind
    def test_every_keyword_is_the_functions(self, kind):
        with kind(1) as executor:
            view = executor.with_options(retries=1, name="told")
            assert view.submit(dict, retries=5, task_timeout=6, name="x", fn=7, self=8).result() == {
                "retries": 5, "task_timeout": 6, "name": "x", "fn": 7, "self": 8,
            }  # fmt: skip

    @every_kind
    def test_the_last_error_has_a_note(self, kind):
        with kind(1) as executor:
            error = executor.with_options(retries=SOON).submit(flaky, 7, 9).exception(PATIENCE)
        assert str(error) == "7, attempt 4"
        assert error.__notes__ == ["abreast: raised by flaky, attempt 4"]
        if kind is not ProcessPoolExecutor:
            assert error.__traceback__.tb_frame.f_code is flaky.__code__

    @every_kind
    def test_the_name_is_what_the_task_is_called(self, kind):
        with kind(1) as executor:
            assert executor.with_options(name="fetch").submit(flaky, 1, 0).result() == (1, 1, "fetch")
            assert executor.with_options(name="fetch", retries=1).submit(flaky, 1, 0).result() == (1, 1, "fetch")
            assert executor.with_options().submit(flaky, 1, 0).result() == (1, 1, "flaky")

    @every_kind
    def test_each_attempt_runs_in_the_context_of_the_submit(self, kind):
        variable = contextvars.ContextVar("variable", default="none")
        seen = []

        def task():
            seen.append(variable.get())
            variable.set("leaked")
            if kind is not ProcessPoolExecutor and len(seen) < 3:
                raise ConnectionError
            return variable.get()

        with kind(1) as executor:
            variable.set("mine")
            future = executor.with_options(retries=SOON).submit(task)
            variable.set("later")
            assert future.result(PATIENCE) == "leaked"
        assert seen == ([] if kind is ProcessPoolExecutor else ["mine"] * 3)

    @pools
    def test_a_limit_of_the_views_own(self, kind):
        with kind(4) as executor:
            view = executor.with_options(task_timeout=0.1)
            error = view.submit(flaky, 1, how="hang").exception(PATIENCE)
            assert isinstance(error, TaskTimeout)
            assert error.limit == 0.1
            assert "flaky(1, how='hang') ran longer than its task_timeout of 0.1 s" in str(error)
            assert "attempt.py" not in error.stack
            assert view.with_options(retries=SOON).submit(flaky, 1, how="sleep").result(PATIENCE) == (1, 2, "flaky")
            assert executor.submit(flaky, 1, 0).result() == (1, 1, "flaky")

    @pools
    def test_goes_before_the_executors(self, kind):
        with kind(4, task_timeout=0.1) as executor:
            assert executor.with_options(task_timeout=30).submit(time.sleep, 0.3).result(PATIENCE) is None
            assert isinstance(executor.submit(time.sleep, 1).exception(PATIENCE), TaskTimeout)
            with Gate():
                assert isinstance(executor.with_options(task_timeout=0.05).submit(time.sleep, 1).exception(PATIENCE), TaskTimeout)

    @pools
    def test_limits_do_not_mix(self, kind):
        """Calls of one function with several limits at once, none of which is another's."""
        with kind(3) as executor:
            views = [executor, executor.with_options(task_timeout=30), executor.with_options(task_timeout=20, retries=1)]
            futures = [view.submit(abs, -x) for x, view in zip(range(300), itertools.cycle(views), strict=False)]
            assert [future.result(PATIENCE) for future in futures] == list(range(300))
            hang = executor.with_options(task_timeout=0.1).submit(time.sleep, 1)
            slow = [executor.submit(time.sleep, 0.3), executor.with_options(task_timeout=20).submit(time.sleep, 0.3)]
            assert [future.result(PATIENCE) for future in slow] == [None, None]
            assert isinstance(hang.exception(PATIENCE), TaskTimeout)

    def test_a_worker_that_was_overtaken_serves_no_more(self):
        with Gate() as gate, ThreadPoolExecutor(2) as executor:
            view = executor.with_options(task_timeout=0.05)
            assert isinstance(view.submit(gate, 1).exception(PATIENCE), TaskTimeout)
            wait_until(lambda: executor.statistics().abandoned == 1)
            gate.open()
            wait_until(lambda: executor.statistics().abandoned == 0)
            executor.submit(abs, 1).result()
            assert executor.statistics().workers <= 2

    def test_a_crash_is_tried_again(self):
        with ProcessPoolExecutor(1) as executor:
            assert executor.with_options(retries=SOON).submit(flaky, 1, 2, how="die").result(PATIENCE) == (1, 3, "flaky")
            assert isinstance(executor.with_options(retries=0).submit(flaky, 1, how="die").exception(PATIENCE), WorkerCrashed)

    def test_what_does_not_pickle_is_not_sent_again(self):
        with ProcessPoolExecutor(1) as executor:
            future = executor.with_options(retries=LATE).submit(abs, threading.Lock())
            assert isinstance(future.exception(PATIENCE), abreast.TaskPickleError)

    @pools
    def test_no_worker_waits(self, kind):
        with kind(1) as executor:
            (future,) = waiting(executor.with_options(retries=LATE))
            assert not future.running()
            assert executor.submit(abs, -1).result(PATIENCE) == 1
            future.cancel()

    def test_what_on_raises_is_the_error(self):
        def on(_):
            raise LookupError("a bug")

        with ThreadPoolExecutor(1) as executor:
            error = executor.with_options(retries=Retry(1, on)).submit(flaky, 1).exception(PATIENCE)
        assert isinstance(error, LookupError)
        assert isinstance(error.__context__, ConnectionError)

    def test_in_a_task_of_the_same_executor(self):
        with ThreadPoolExecutor(2) as executor:
            view = executor.with_options(retries=SOON)
            assert executor.submit(lambda: view.submit(flaky, 1).result()).result(PATIENCE)[1] == 2
        with ThreadPoolExecutor(1) as executor:
            view = executor.with_options(retries=SOON)
            outer = executor.submit(lambda: view.submit(flaky, 1).result())
            assert isinstance(outer.exception(PATIENCE), abreast.DeadlockDetected)


class TestItsFuture:
    @pools
    def test_can_be_cancelled_while_it_waits(self, kind):
        called = []
        with kind(1) as executor:
            (future,) = waiting(executor.with_options(retries=LATE))
            future.add_done_callback(called.append)
            waiter = threading.Thread(target=concurrent.futures.wait, args=([future],))
            waiter.start()
            assert future.cancel()
            assert future.cancel()
            assert future.cancelled()
            waiter.join(PATIENCE)
            assert not waiter.is_alive()
            assert called == [future]
            with pytest.raises(CancelledError):
                future.result()

    @pools
    def test_can_be_cancelled_before_it_starts(self, kind):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            first = executor.submit(gate, 0)
            future = executor.with_options(retries=LATE).submit(flaky, 1)
            assert future.cancel()
            gate.open()
            assert first.result() == 0
            assert future.cancelled()

    def test_cannot_be_cancelled_while_it_runs(self):
        with Gate() as gate, ThreadPoolExecutor(1) as executor:
            future = executor.with_options(retries=LATE).submit(gate, 0)
            gate.wait_started(0)
            assert future.running()
            assert not future.cancel()
            gate.open()
            assert future.result() == 0
            assert not future.running()

    @pools
    def test_a_thousand_that_wait_are_cancelled_in_a_moment(self, kind):
        with kind(2) as executor:
            futures = waiting(executor.with_options(retries=LATE), 1000)
            begun = time.monotonic()
            assert all(future.cancel() for future in futures)
            assert time.monotonic() - begun < 2

    @pools
    def test_lets_go_of_what_it_was_made_of(self, kind):
        class Argument:
            def __eq__(self, other):
                return True

        with kind(1) as executor:
            argument = Argument()
            future = executor.with_options(retries=SOON).submit(id, argument) if kind is ThreadPoolExecutor else None
            if future is not None:
                future.result()
                gone = weakref.ref(argument)
                del argument
                wait_until(lambda: gone() is None or gc.collect() < 0)

    def test_for_asyncio(self):
        async def main(executor):
            return await asyncio.wrap_future(executor.with_options(retries=SOON).submit(flaky, 1))

        with ThreadPoolExecutor(1) as executor:
            assert asyncio.run(main(executor))[1] == 2


class TestShutdown:
    @pools
    def test_waits_for_what_waits(self, kind):
        executor = kind(1)
        (future,) = waiting(executor.with_options(retries=Retry(1, wait_initial=0.2, wait_jitter=0)))
        executor.shutdown()
        assert future.done()
        assert future.result()[1] == 2
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(abs, 1)

    @pools
    def test_takes_nothing_new_meanwhile(self, kind):
        executor = kind(1)
        view = executor.with_options(retries=Retry(1, wait_initial=0.2, wait_jitter=0))
        (future,) = waiting(view)
        executor.shutdown(wait=False)
        for call in (executor.submit, view.submit, executor.with_options(task_timeout=9).submit):
            with pytest.raises(RuntimeError, match="after shutdown"):
                call(abs, 1)
        with pytest.raises(RuntimeError, match="after shutdown"):
            view.map(abs, [1])
        with pytest.raises(RuntimeError, match="after shutdown"):
            list(executor.map(abs, [1]))
        assert future.result(PATIENCE)[1] == 2

    @pools
    def test_cancels_what_waits(self, kind):
        executor = kind(1)
        futures = waiting(executor.with_options(retries=LATE), 3)
        begun = time.monotonic()
        executor.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in futures)
        assert time.monotonic() - begun < 5

    def test_an_attempt_under_way_is_then_the_last(self):
        with Gate() as gate:

            def task(x):
                gate(x)
                raise ConnectionError

            executor = ThreadPoolExecutor(1)
            future = executor.with_options(retries=LATE).submit(task, 1)
            gate.wait_started(1)
            executor.shutdown(wait=False, cancel_futures=True)
            gate.open()
            assert isinstance(future.exception(PATIENCE), ConnectionError)
            executor.shutdown()

    @pools
    def test_a_block_left_by_ctrl_c_waits_for_nothing(self, kind):
        with pytest.raises(KeyboardInterrupt), kind(1) as executor:
            futures = waiting(executor.with_options(retries=LATE), 2)
            raise KeyboardInterrupt
        for future in futures:
            assert future.exception(PATIENCE) if not future.cancelled() else True

    def test_of_a_crew_that_breaks(self):
        fail = threading.Event()

        def initializer():
            if fail.is_set():
                raise LookupError

        executor = ThreadPoolExecutor(2, initializer=initializer)
        (future,) = waiting(executor.with_options(retries=Retry(1, wait_initial=0.3, wait_jitter=0)))
        fail.set()
        with Gate() as gate:
            executor.submit(gate, 0)
            with contextlib.suppress(concurrent.futures.BrokenExecutor):  # the first of these may have started the thread
                executor.submit(gate, 1)  # the second thread breaks the crew
            wait_until(lambda: executor._broken)
        assert isinstance(future.exception(PATIENCE), concurrent.futures.BrokenExecutor)
        executor.shutdown()

    @pools
    def test_of_one_that_is_dropped(self, kind):
        executor = kind(1)
        (future,) = waiting(executor.with_options(retries=Retry(1, wait_initial=0.2, wait_jitter=0)))
        executor = weakref.ref(executor)
        gc.collect()
        assert future.result(PATIENCE)[1] == 2
        del future
        wait_until(lambda: gc.collect() >= 0 and executor() is None)

    def test_kill_workers_ends_what_waits(self):
        executor = ProcessPoolExecutor(1)
        (future,) = waiting(executor.with_options(retries=LATE))
        executor.kill_workers()
        assert future.cancelled()
        executor.shutdown()

    @pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
    def test_the_end_of_the_program_waits_too(self, kind):
        done = run_python(f"""
            import abreast, time
            def task(x):
                if abreast.current_task().attempt < 2:
                    raise ConnectionError
                return x
            executor = abreast.{kind}(1)
            view = executor.with_options(retries=abreast.Retry(1, wait_initial=0.3, wait_jitter=0))
            view.submit(task, 1).add_done_callback(lambda future: print(future.result(), flush=True))
            results = view.map(task, [1, 2])
        """)
        assert done.stdout == "1\n", done
        assert done.stderr == ""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
    def test_a_forked_child_has_nothing_that_waits(self):
        done = run_python("""
            import abreast, os, time, warnings
            warnings.simplefilter("ignore")
            def task(x):
                if abreast.current_task().attempt < 2:
                    raise ConnectionError
                return x
            executor = abreast.ThreadPoolExecutor(1)
            future = executor.with_options(retries=abreast.Retry(1, wait_initial=0.5, wait_jitter=0)).submit(task, 1)
            while future._call._alarm is None:
                time.sleep(0.001)
            if os.fork() == 0:
                print("child", executor.submit(abs, -5).result(), flush=True)
            else:
                os.wait()
                print("parent", future.result(), flush=True)
            executor.shutdown()
        """)
        assert done.stdout == "child 5\nparent 1\n", done


@pytest.mark.whole
class TestRuns:
    @every_kind
    def test_map(self, kind):
        with kind(2) as executor:
            results = executor.with_options(retries=SOON, name="told").map(flaky, range(6), [0, 1, 2] * 2)
            assert list(results) == [(x, x % 3 + 1, "told") for x in range(6)]

    @pools
    def test_map_goes_on_although_nobody_iterates(self, kind):
        with kind(2) as executor:
            results = executor.with_options(retries=Retry(2, wait_initial=0.05, wait_jitter=0)).map(
                flaky, range(6), [0, 1, 2] * 2
            )
            run = results._run
        assert [value[1] for piece in sorted(run._delivery.finished) for value in _plain(piece[1])] == [1, 2, 3] * 2
        assert list(results) == [(x, x % 3 + 1, "flaky") for x in range(6)]

    @every_kind
    def test_map_of_nothing(self, kind):
        with kind(2) as executor:
            assert list(executor.with_options(retries=LATE).map(flaky, [])) == []
            assert list(executor.with_options(task_timeout=None).map(flaky, [])) == []

    @pools
    def test_map_of_a_dropped_executor(self, kind):
        executor = kind(2)
        results = executor.with_options(retries=SOON).map(flaky, range(6))
        executor = weakref.ref(executor)
        gc.collect()
        assert [attempt for _, attempt, _ in results] == [2] * 6
        del results
        wait_until(lambda: gc.collect() >= 0 and executor() is None)

    @pools
    def test_map_is_cancelled_by_shutdown(self, kind):
        with kind(1) as executor:
            results = executor.with_options(retries=LATE).map(flaky, range(3))
            wait_until(lambda: len(results._run._lives) == 3)
            executor.shutdown(cancel_futures=True)
            with pytest.raises(CancelledError):
                list(results)

    @pools
    def test_map_with_a_limit(self, kind):
        with kind(4) as executor:
            results = executor.with_options(retries=SOON, task_timeout=0.5).map(_hang_first, range(3))
            assert list(results) == [(0, 1), (1, 2), (2, 1)]

    def test_map_with_a_limit_on_threads_takes_no_chunksize(self):
        with (
            ThreadPoolExecutor(1) as executor,
            pytest.raises(ValueError, match="chunksize=3 and this view's task_timeout=2 exclude"),
        ):
            executor.with_options(task_timeout=2).map(abs, [1], chunksize=3)

    @every_kind
    def test_imap_and_outcomes_and_executor(self, kind):
        with kind(2) as executor:
            view = executor.with_options(retries=SOON, name="told")
            assert [attempt for _, attempt, _ in view.imap(flaky, range(6))] == [2] * 6
            assert [outcome.attempts for outcome in view.outcomes(flaky, range(6))] == [2] * 6
            assert abreast.map(flaky, range(6), executor=view) == [(x, 2, "told") for x in range(6)]
            assert [outcome.attempts for outcome in abreast.outcomes(flaky, range(6), executor=view, retries=0)] == [1] * 6

    @pools
    def test_a_limit_with_an_executor(self, kind):
        with kind(4) as executor:
            assert abreast.map(_hang_first, range(3), executor=executor, task_timeout=0.5, retries=SOON) == [
                (0, 1),
                (1, 2),
                (2, 1),
            ]
            (outcome,) = executor.outcomes(_hang_first, [1], task_timeout=0.1)
            assert isinstance(outcome.error, TaskTimeout)


def _plain(values):
    return [value.decode() if hasattr(value, "decode") else value for value in values]


def _hang_first(x):
    attempt = abreast.current_task().attempt
    if x == 1 and attempt == 1:
        time.sleep(1)
    return x, attempt


class TestOptions:
    def test_a_view_of_a_view(self):
        with ThreadPoolExecutor(1) as executor:
            view = executor.with_options(retries=2, name="one").with_options(name="two")
            assert view.options == {"retries": 2, "name": "two"}
            assert view.executor is executor
            assert repr(view).endswith(".with_options(retries=2, name='two')")
            assert isinstance(view, concurrent.futures.Executor)

    def test_a_block_is_the_executors(self):
        with ThreadPoolExecutor(1).with_options(retries=SOON) as view:
            future = view.submit(flaky, 1)
        assert future.done()
        with pytest.raises(RuntimeError, match="after shutdown"):
            view.submit(abs, 1)

    @every_kind
    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
            ({"retries": True}, TypeError, "retries must be an integer or a Retry, not True"),
            ({"task_timeout": 0}, ValueError, "task_timeout must be greater than 0 seconds, not 0"),
            ({"name": 5}, TypeError, "name must be a string, not 5"),
            ({"retrys": 1}, TypeError, "there is no option 'retrys' .*; did you mean 'retries'"),
            ({"timeout": 1}, TypeError, "timeout=1 is no option of a task; give it to map, imap or outcomes"),
            ({"max_per_second": 1}, TypeError, "max_per_second=1 is no option of a task"),
            ({"initializer": 1}, TypeError, "initializer=1 belongs to a pool"),
        ],
        ids=str,
    )
    def test_wrong_ones_are_refused_at_the_call(self, kind, options, error, text):
        with kind(1) as executor, pytest.raises(error, match=text):
            executor.with_options(**options)

    def test_one_that_cannot_be_honoured(self):
        with pytest.raises(ValueError, match="task_timeout=3: a SerialExecutor cannot end a task"):
            SerialExecutor().with_options(task_timeout=3)

        class Counting(ThreadPoolExecutor):
            def submit(self, fn, /, *args, **kwargs):
                return super().submit(fn, *args, **kwargs)

        with Counting(1) as executor, pytest.raises(TypeError, match="of a Counting, whose submit"):
            executor.with_options(retries=3)

    def test_what_is_no_function(self):
        with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError, match="fn must be callable, not 5"):
            executor.with_options(retries=3).submit(5)

"""`Future`: the standard one's behaviour, made lazily; the rule of its locks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import logging
import pickle
import sys
import threading
import weakref
from concurrent.futures import CancelledError, InvalidStateError, as_completed, wait
from concurrent.futures import _base

import pytest
from abreast import Future, ThreadPoolExecutor
from abreast.core.future import _stripe

from tests.helpers import FREE_THREADED, in_threads


class Error(Exception):
    pass


def test_is_a_real_future():
    assert isinstance(Future(), concurrent.futures.Future)


def test_makes_no_condition_until_somebody_waits_the_standard_way():
    future = Future()
    assert future._watch is None
    future.set_result(1)
    assert future.result() == 1
    assert future._watch is None
    assert wait([future]).done == {future}
    assert future._watch.condition is not None


def test_private_names_that_we_rely_on_are_there():
    """Of the standard library, on every version: the first line of defence against a change there."""
    standard = concurrent.futures.Future()
    for name in ("_state", "_result", "_exception", "_condition", "_waiters", "_done_callbacks", "_invoke_callbacks"):
        assert hasattr(standard, name), name
    assert (_base.PENDING, _base.RUNNING, _base.FINISHED) == ("PENDING", "RUNNING", "FINISHED")
    assert (_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED) == ("CANCELLED", "CANCELLED_AND_NOTIFIED")
    assert hasattr(threading, "_register_atexit")
    assert hasattr(threading.RLock(), "_at_fork_reinit")
    assert isinstance(_base.LOGGER, logging.Logger)


@pytest.mark.parametrize("watch", ["nobody", "condition", "callback"])
class TestStates:
    """Each state change, on the fast way and on the standard library's."""

    @pytest.fixture
    def future(self, watch):
        future = Future()
        if watch == "condition":
            assert future._condition is future._condition
        elif watch == "callback":
            future.add_done_callback(lambda _: None)
        return future

    def test_result(self, future):
        assert not future.done()
        assert future.set_running_or_notify_cancel()
        assert future.running()
        assert not future.cancel()
        future.set_result(42)
        assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
        assert (future.result(), future.exception()) == (42, None)

    def test_exception(self, future):
        error = Error()
        future.set_exception(error)
        assert future.exception() is error
        with pytest.raises(Error):
            future.result()

    def test_an_exception_that_is_falsy_is_raised(self, future):
        class Falsy(Exception):
            def __bool__(self):
                return False

        future.set_exception(Falsy())
        with pytest.raises(Falsy):
            future.result()

    def test_cancel(self, future):
        assert future.cancel()
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert not future.set_running_or_notify_cancel()
        with pytest.raises(CancelledError):
            future.result()
        with pytest.raises(CancelledError):
            future.exception(timeout=0)

    def test_settling_twice_is_refused(self, future):
        future.set_result(1)
        with pytest.raises(InvalidStateError, match="FINISHED"):
            future.set_result(2)
        with pytest.raises(InvalidStateError):
            future.set_exception(Error())
        assert not future.cancel()
        assert future.result() == 1

    def test_settling_a_cancelled_one_is_refused(self, future):
        future.cancel()
        with pytest.raises(InvalidStateError, match="CANCELLED"):
            future.set_result(1)

    def test_running_twice_is_refused_and_logged(self, future, caplog):
        future.set_running_or_notify_cancel()
        with pytest.raises(RuntimeError):
            future.set_running_or_notify_cancel()
        assert "in unexpected state" in caplog.text

    @pytest.mark.parametrize("timeout", [0, -1, 0.001, None, float("inf"), 1e12])
    def test_a_finished_one_answers_whatever_the_timeout(self, future, timeout):
        future.set_result(1)
        assert future.result(timeout) == 1

    @pytest.mark.parametrize("timeout", [0, -1, 0.001])
    def test_timeout(self, future, timeout):
        with pytest.raises(TimeoutError):
            future.result(timeout)
        with pytest.raises(TimeoutError):
            future.exception(timeout)
        future.set_result(1)
        assert future.result() == 1

    def test_timeouts_leave_nothing_behind(self, future):
        for _ in range(20):
            with pytest.raises(TimeoutError):
                future.result(0.0001)
        assert not future._watched().parked

    def test_many_wait_and_all_are_woken(self, future):
        def complete():
            future.set_result("x")

        results = in_threads(*[future.result] * 5, lambda: future.result(30), complete)
        assert results[:6] == ["x"] * 6

    def test_waiting_for_a_cancelled_one_ends(self, future):
        def waits():
            with pytest.raises(CancelledError):
                future.result()

        in_threads(waits, waits, future.cancel)

    def test_repr(self, future):
        assert repr(future).startswith("<Future at 0x")
        assert repr(future).endswith("state=pending>")
        future.set_running_or_notify_cancel()
        assert repr(future).endswith("state=running>")
        future.set_result([])
        assert repr(future).endswith("state=finished returned list>")


def test_repr_of_failed_and_cancelled():
    failed, cancelled = Future(), Future()
    failed.set_exception(Error())
    cancelled.cancel()
    assert repr(failed).endswith("state=finished raised Error>")
    assert repr(cancelled).endswith("state=cancelled>")


class TestCallbacks:
    def test_in_order_in_the_completing_thread_before_it_returns(self):
        future, calls = Future(), []
        for i in range(3):
            future.add_done_callback(lambda f, i=i: calls.append((i, f.result(), threading.get_ident())))
        future.set_result("x")
        assert calls == [(i, "x", threading.get_ident()) for i in range(3)]

    def test_at_once_if_done(self):
        future, calls = Future(), []
        future.set_result(1)
        future.add_done_callback(calls.append)
        assert calls == [future]

    def test_when_cancelled_once(self):
        future, calls = Future(), []
        future.add_done_callback(calls.append)
        future.cancel()
        future.cancel()
        future.set_running_or_notify_cancel()
        assert calls == [future]

    def test_one_that_raises_is_logged_and_the_next_runs(self, caplog):
        future, calls = Future(), []
        future.add_done_callback(lambda _: 1 / 0)
        future.add_done_callback(calls.append)
        future.set_result(1)
        assert calls == [future]
        assert "exception calling callback for <Future at" in caplog.text
        assert "ZeroDivisionError" in caplog.text

    def test_one_added_when_done_that_raises_is_logged(self, caplog):
        future = Future()
        future.set_result(1)
        future.add_done_callback(lambda _: 1 / 0)
        assert "ZeroDivisionError" in caplog.text

    def test_base_exception_reaches_the_caller_of_a_bare_future(self):
        future = Future()

        def stop(_):
            raise SystemExit

        future.add_done_callback(stop)
        with pytest.raises(SystemExit):
            future.set_result(1)
        assert future.result() == 1

    def test_waiters_are_woken_before_callbacks(self):
        future, waiting, seen = Future(), threading.Event(), threading.Event()
        future.add_done_callback(lambda _: seen.wait(30))

        def waits():
            waiting.set()
            assert future.result(30) == 1
            seen.set()

        def completes():
            waiting.wait(30)
            future.set_result(1)

        in_threads(waits, completes)
        assert seen.is_set()

    def test_from_a_callback_the_future_may_be_used_in_every_way(self):
        future, seen = Future(), []

        def use(f):
            f.add_done_callback(lambda _: seen.append("nested"))
            seen.append((f.result(0), f.cancel(), f.done(), wait([f]).done == {f}))

        future.add_done_callback(use)
        future.set_result(1)
        assert seen == ["nested", (1, False, True, True)]


class TestStandardLibrary:
    @pytest.mark.parametrize("foreign", [False, True], ids=["ours", "mixed with the standard library's"])
    def test_wait_and_as_completed(self, foreign):
        futures = [Future() for _ in range(3)]
        if foreign:
            futures += [concurrent.futures.Future() for _ in range(3)]
        futures[0].set_result(0)
        assert wait(futures, timeout=0).done == {futures[0]}
        assert wait(futures, return_when="FIRST_COMPLETED").done == {futures[0]}

        def complete():
            for i, future in enumerate(futures[1:], 1):
                future.set_result(i)

        everything, completed, _ = in_threads(
            lambda: wait(futures, timeout=30), lambda: [f.result() for f in as_completed(futures, timeout=30)], complete
        )
        assert everything.done == set(futures)
        assert sorted(completed) == list(range(len(futures)))

    def test_wait_for_the_first_exception(self):
        futures = [Future() for _ in range(3)]
        done, _ = in_threads(lambda: wait(futures, 30, "FIRST_EXCEPTION"), lambda: futures[1].set_exception(Error()))
        assert done.done == {futures[1]}

    def test_as_completed_sees_a_cancel(self):
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        assert list(as_completed([future], timeout=1)) == [future]

    def test_asyncio_wrap_future(self):
        async def main():
            good, bad, gone = Future(), Future(), Future()
            threading.Timer(0, good.set_result, [1]).start()
            threading.Timer(0, bad.set_exception, [Error("x")]).start()
            assert await asyncio.wrap_future(good) == 1
            with pytest.raises(Error):
                await asyncio.wrap_future(bad)
            wrapped = asyncio.wrap_future(gone)
            wrapped.cancel()
            await asyncio.sleep(0)
            assert gone.cancelled()
            other = Future()
            waiting = asyncio.wrap_future(other)
            other.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(main())


class TestReferences:
    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_a_dropped_future_is_freed_at_once(self, no_gc):
        future = Future()
        gone = weakref.ref(future)
        future.add_done_callback(lambda _: None)
        future.set_exception(Error())
        with pytest.raises(Error):
            future.result()
        del future
        assert gone() is None

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_raising_makes_no_cycle(self, no_gc):
        future, error = Future(), Error()
        gone = weakref.ref(error)
        future.set_exception(error)
        try:
            future.result()
        except Error:
            pass
        del future, error
        assert gone() is None

    @pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
    def test_callbacks_are_let_go_when_they_have_run(self, no_gc):
        class Callback:
            def __call__(self, _):
                pass

        callback, future = Callback(), Future()
        gone = weakref.ref(callback)
        future.add_done_callback(callback)
        del callback
        future.set_result(1)
        assert gone() is None

    def test_a_failed_task_makes_no_cycle(self, no_gc):
        class Argument:
            pass

        def fail(argument):
            raise Error

        with ThreadPoolExecutor(1) as executor:
            argument = Argument()
            gone = weakref.ref(argument)
            future = executor.submit(fail, argument)
            del argument
            assert isinstance(future.exception(), Error)
            executor.submit(int).result()
            assert gone() is not None  # the traceback holds fail's frame, as it should
            error = weakref.ref(future.exception())
            del future
            executor.submit(int).result()
            if not FREE_THREADED:
                assert error() is None
                assert gone() is None

    def test_a_traceback_starts_in_the_users_function(self):
        def fail():
            raise Error

        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(fail).exception().__traceback__.tb_frame.f_code is fail.__code__

    def test_cannot_be_pickled_or_copied(self):
        for send in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match=r"send its result\(\)"):
                send(Future())

    def test_users_may_attach_what_they_like(self):
        future = Future()
        future.label = "x"
        assert future.label == "x"

    def test_takes_no_argument(self):
        with pytest.raises(TypeError):
            Future(1)


def test_a_finalizer_that_cancels_the_future_it_interrupts_does_not_hang():
    """Stripes are re-entrant: a signal handler or a finalizer may run between any two steps."""
    future = Future()
    acquire, release = _stripe(future)
    try:
        acquire()
        assert future.cancel()
    finally:
        release()


class TestHammer:
    """Complete, cancel and wait at once; 300 rounds, a thread switch every microsecond."""

    ROUNDS = 300

    def test_wait_and_as_completed_against_two_completers(self, busy_switching):
        for _ in range(self.ROUNDS):
            futures = [Future() for _ in range(8)]

            def complete(part):
                for future in part:
                    future.set_result(id(future))

            everything, completed, *_ = in_threads(
                lambda: wait(futures, timeout=30),
                lambda: {f.result(0) for f in as_completed(futures, timeout=30)},
                lambda: complete(futures[::2]),
                lambda: complete(futures[1::2]),
            )
            assert everything.not_done == set()
            assert completed == {id(future) for future in futures}

    def test_result_against_complete_and_cancel(self, busy_switching):
        for _ in range(self.ROUNDS):
            future, called = Future(), []

            def complete():
                if future.set_running_or_notify_cancel():
                    future.set_result(1)
                    return 1
                return "cancelled"

            def waits():
                try:
                    return future.result(30)
                except CancelledError:
                    return "cancelled"

            def adds():
                future.add_done_callback(called.append)

            outcome, cancelled, first, second, everything, _ = in_threads(
                complete, future.cancel, waits, waits, lambda: wait([future], timeout=30), adds
            )
            assert first == second == outcome
            assert cancelled == (outcome == "cancelled")
            assert everything.done == {future}
            assert called == [future]

    def test_only_one_of_many_settles(self, busy_switching):
        for _ in range(self.ROUNDS):
            future = Future()

            def settle(value):
                try:
                    future.set_result(value)
                except InvalidStateError:
                    return None
                return value

            def fails():
                try:
                    future.set_exception(Error())
                except InvalidStateError:
                    return None
                return "error"

            *won, _ = in_threads(lambda: settle(1), lambda: settle(2), fails, lambda: future.exception(30))
            (winner,) = [value for value in won if value is not None]
            assert winner == ("error" if future.exception() else future.result())

    def test_the_condition_is_one_whoever_makes_it(self, busy_switching):
        for _ in range(self.ROUNDS):
            future = Future()
            made = in_threads(*[lambda: future._condition] * 4)
            assert len(set(map(id, made))) == 1

    def test_callbacks_run_once_whoever_adds_them(self, busy_switching):
        for _ in range(self.ROUNDS):
            future, calls = Future(), []
            in_threads(
                *[lambda i=i: future.add_done_callback(lambda _: calls.append(i)) for i in range(4)],
                lambda: future.set_result(1),
                lambda: future._condition,
            )
            assert sorted(calls) == [0, 1, 2, 3]


def test_costs_less_memory_than_half_a_standard_one():
    def size(make):
        gc.collect()
        before = sys.getallocatedblocks()
        kept = [make() for _ in range(1000)]
        return (sys.getallocatedblocks() - before) / len(kept)

    if not FREE_THREADED:  # which has another allocator
        assert size(Future) <= 0.5 * size(concurrent.futures.Future)

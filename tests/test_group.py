"""`TaskGroup`, `current_task`, `sleep`, `checkpoint`: what the contract says of groups, and what could go wrong in between."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import functools
import itertools
import logging
import operator
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import as_completed, wait

import abreast
import pytest
from abreast import (
    CancelledError,
    DeadlockDetected,
    Future,
    SerialExecutor,
    TaskGroup,
    ThreadPoolExecutor,
    checkpoint,
    current_task,
    sleep,
)
from abreast.executors import crew

from tests.helpers import FREE_THREADED, in_threads, interrupt, raises_group, run_python, was_cancelled

LONG = 3600


class Error(Exception):
    pass


def fail(*args):
    raise Error(*args)


def seen():
    """What a task sees of itself."""
    task = current_task()
    return task and (task.name, task.index, task.attempt, task.cancelled)


def ask_until_cancelled():
    """A task that ends only when it is asked to."""
    task, end = current_task(), time.monotonic() + 30
    while not task.cancelled:
        assert time.monotonic() < end, "has not been asked to end"
        time.sleep(0.001)
    return "was asked"


@pytest.fixture(params=[None, 3], ids=["a-thread-each", "pool"])
def max_workers(request):
    return request.param


class TestStart:
    def test_start_takes_threads_spelling_and_gives_a_future(self, max_workers):
        def task(*args, **kwargs):
            return args, kwargs

        with TaskGroup(max_workers) as group:
            futures = [
                group.start(task),
                group.start(task, (1, 2)),
                group.start(task, args=[1, 2]),
                group.start(task, args=(1,), kwargs={"name": 2, "target": 3, "args": 4}),
                group.start(target=task, args=(), kwargs=None, name=None),
            ]
            assert all(type(future) is Future for future in futures)
        assert [future.result(0) for future in futures] == [
            ((), {}),
            ((1, 2), {}),
            ((1, 2), {}),
            ((1,), {"name": 2, "target": 3, "args": 4}),
            ((), {}),
        ]

    def test_submit_leaves_every_keyword_to_the_function(self, max_workers):
        def task(*args, **kwargs):
            return args, kwargs

        with TaskGroup(max_workers) as group:
            future = group.submit(task, 1, self=2, fn=3, name=4, timeout=5, args=6)
        assert future.result(0) == ((1,), {"self": 2, "fn": 3, "name": 4, "timeout": 5, "args": 6})

    def test_the_example_of_the_course(self):
        lines = []

        def task(label):
            lines.append((label, threading.current_thread().name))

        with TaskGroup() as group:
            group.start(task, args=("Task 1",), name="T1")
            group.start(task, args=("Task 2",), name="T2")
        assert sorted(lines) == [("Task 1", "T1"), ("Task 2", "T2")]

    def test_a_thread_has_the_name_it_is_given_or_that_of_its_function_and_a_number(self):
        def name():
            return threading.current_thread().name

        with TaskGroup() as group:
            futures = [
                group.start(name, name="T1"),
                group.start(name),
                group.submit(functools.partial(name)),
                group.start(name, name=""),
            ]
        local = "TestStart.test_a_thread_has_the_name_it_is_given_or_that_of_its_function_and_a_number.<locals>.name"
        assert [future.result(0) for future in futures] == ["T1", f"{local}-2", f"{local}-3", f"{local}-4"]

    def test_each_function_has_a_thread_of_its_own(self):
        barrier = threading.Barrier(40)
        with TaskGroup() as group:
            futures = [group.submit(lambda: (barrier.wait(30), threading.get_ident())[1]) for _ in range(40)]
        assert len({future.result(0) for future in futures} | {threading.get_ident()}) == 41

    def test_unless_max_workers_is_given(self):
        barrier = threading.Barrier(3)
        running, most = [], []

        def task():
            running.append(1)
            most.append(len(running))
            barrier.wait(30)
            running.pop()
            return threading.current_thread().name

        with TaskGroup(max_workers=3) as group:
            futures = [group.submit(task) for _ in range(9)]
        assert max(most) == 3
        assert len({future.result(0) for future in futures}) == 3
        assert all(future.result(0).startswith("TaskGroup-") for future in futures)

    def test_threads_that_a_task_starts_are_not_daemons(self, max_workers):
        with TaskGroup(max_workers) as group:
            future = group.submit(lambda: threading.Thread().daemon)
        assert future.result(0) is False

    def test_a_future_is_right_wherever_the_standard_library_expects_one(self, max_workers):
        with TaskGroup(max_workers) as group:
            futures = [group.submit(pow, i, 2) for i in range(5)]
            assert {future.result(0) for future in as_completed(futures, timeout=30)} == {0, 1, 4, 9, 16}
            assert wait(futures).done == set(futures)

    def test_callbacks_have_run_when_the_block_is_over(self, max_workers):
        called = []
        with TaskGroup(max_workers) as group:
            for i in range(50):
                group.submit(int).add_done_callback(lambda _, i=i: called.append(i))
        assert sorted(called) == list(range(50))

    def test_a_callback_that_raises_anything_is_logged_and_is_no_error_of_the_group(self, max_workers, caplog):
        class Own(threading.Thread):
            def run(self):
                gate.wait(30)

        gate, called = threading.Event(), []
        with TaskGroup(max_workers) as group:
            for future in (group.submit(gate.wait, 30), group.start(Own())):
                future.add_done_callback(lambda _: sys.exit("in a callback"))
                future.add_done_callback(called.append)
            gate.set()
        assert len(called) == 2
        assert caplog.text.count("SystemExit: in a callback") == 2


class TestThreadObjects:
    """`start(thread)` starts and joins an unstarted Thread as it is."""

    def test_a_subclass_runs_its_run_and_is_joined(self):
        class A(threading.Thread):
            def __init__(self):
                super().__init__(name="A", daemon=False)
                self.ran_in = None

            def run(self):
                self.ran_in = threading.current_thread()
                return "not the result"

        thread = A()
        with TaskGroup() as group:
            future = group.start(thread)
            assert type(future) is Future
        assert thread.ran_in is thread
        assert not thread.is_alive()
        assert (thread.name, thread.daemon) == ("A", False)
        assert future.result(0) is None

    def test_one_with_a_target_and_a_daemon(self):
        results = []
        thread = threading.Thread(
            target=lambda *args, **kwargs: results.append((args, kwargs)), args=(1,), kwargs={"b": 2}, daemon=True
        )
        with TaskGroup() as group:
            group.start(thread)
        assert results == [((1,), {"b": 2})]
        assert thread.daemon
        assert not thread.is_alive()

    def test_also_in_a_group_of_few_workers_at_once(self):
        """It has its own thread: `max_workers` does not count it."""
        barrier = threading.Barrier(3)
        with TaskGroup(max_workers=1) as group:
            for _ in range(2):
                group.start(threading.Thread(target=barrier.wait, args=(30,)))
            group.submit(barrier.wait, 30)

    def test_what_was_set_on_it_stays(self):
        called = []
        thread = threading.Thread(target=fail)
        thread.run = mine = lambda: called.append(1)
        with TaskGroup() as group:
            group.start(thread)
        assert called == [1]
        assert thread.run is mine
        assert vars(threading.Thread()).get("run") is None

    def test_its_run_is_its_own_again_afterwards(self):
        class A(threading.Thread):
            def run(self):
                self.found = vars(self).get("run")

        thread = A()
        with TaskGroup() as group:
            group.start(thread)
        assert thread.found is None
        assert "run" not in vars(thread)

    def test_its_error_goes_to_the_group_and_not_to_the_excepthook(self, monkeypatch):
        hooked = []
        monkeypatch.setattr(threading, "excepthook", hooked.append)

        class A(threading.Thread):
            def run(self):
                fail("in run")

        for thread in (A(), threading.Thread(target=fail, args=("in run",))):
            with raises_group(Error) as errors, TaskGroup() as group:
                future = group.start(thread)
            assert str(errors[0]) == "in run"
            assert future.exception(0) is errors[0]
            assert errors[0].__traceback__.tb_frame.f_code.co_name == "run"
        assert hooked == []

    def test_its_task_has_its_name(self):
        class A(threading.Thread):
            def run(self):
                self.seen = seen()

        thread = A(name="Ann")
        with TaskGroup() as group:
            group.start(thread)
        assert thread.seen == ("Ann", None, 1, False)

    def test_it_is_asked_to_end(self):
        class A(threading.Thread):
            def run(self):
                started.set()
                sleep(LONG)

        started = threading.Event()
        with raises_group(Error), TaskGroup() as group:
            future = group.start(A())
            assert started.wait(30)
            group.submit(fail)
        assert was_cancelled(future)

    def test_one_that_was_started_before_is_refused(self):
        gate = threading.Event()
        alive, ended = threading.Thread(target=gate.wait, args=(30,)), threading.Thread()
        alive.start(), ended.start(), ended.join()
        with TaskGroup() as group:
            for thread in (alive, ended, threading.main_thread(), threading.current_thread()):
                with pytest.raises(RuntimeError, match="has been started before"):
                    group.start(thread)
            mine = threading.Thread()
            group.start(mine)
            with pytest.raises(RuntimeError, match="has been started before"):
                group.start(mine)
        gate.set()
        alive.join()

    @pytest.mark.parametrize("more", [{"args": (1,)}, {"kwargs": {}}, {"name": "T"}])
    def test_nothing_else_goes_with_it(self, more):
        thread = threading.Thread()
        with TaskGroup() as group, pytest.raises(TypeError, match="do not go with a Thread"):
            group.start(thread, **more)
        assert thread.ident is None

    def test_after_a_cancel_it_is_not_started(self):
        thread = threading.Thread()
        with TaskGroup() as group:
            group.cancel()
            future = group.start(thread)
            assert future.cancelled()
        assert thread.ident is None
        assert "run" not in vars(thread)

    def test_it_sees_the_context_that_a_thread_sees(self):
        """Empty, or the starter's on a Python of 3.14 or later that has it so: the group adds nothing."""
        variable = contextvars.ContextVar("variable", default="nothing")
        variable.set("mine")
        plain, ours = [], []
        thread = threading.Thread(target=lambda: plain.append(variable.get()))
        thread.start()
        thread.join()
        with TaskGroup() as group:
            group.start(threading.Thread(target=lambda: ours.append(variable.get())))
        assert ours == plain


class TestArguments:
    """A wrong one is an error at the call, and names the value; nothing is started."""

    @pytest.mark.parametrize(
        ("value", "error", "text"),
        [
            (True, TypeError, "max_workers must be an integer or None, not True"),
            (2.0, TypeError, "max_workers must be an integer or None, not 2.0"),
            ("3", TypeError, "max_workers must be an integer or None, not '3'"),
            (0, ValueError, "max_workers must be greater than 0, not 0"),
            (-1, ValueError, "max_workers must be greater than 0, not -1"),
        ],
    )
    def test_max_workers(self, value, error, text):
        with pytest.raises(error, match=text):
            TaskGroup(value)
        with pytest.raises(error, match=text):
            TaskGroup(max_workers=value)

    @pytest.mark.parametrize(
        ("value", "error", "text"),
        [
            (0, ValueError, "timeout must be greater than 0 seconds, not 0"),
            (-1, ValueError, "timeout must be greater than 0 seconds, not -1"),
            (float("nan"), ValueError, "timeout must be greater than 0 seconds, not nan"),
            ("1", TypeError, "timeout must be a number of seconds or None, not '1'"),
            (True, TypeError, "timeout must be a number of seconds or None, not True"),
        ],
    )
    def test_timeout(self, value, error, text):
        with pytest.raises(error, match=text):
            TaskGroup(timeout=value)

    @pytest.mark.parametrize("more", [{"max_worker": 3}, {"name": "x"}, {"kinds": "thread"}])
    def test_an_unknown_option(self, more):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            TaskGroup(**more)
        with pytest.raises(TypeError):
            TaskGroup(3, 5)

    @pytest.mark.parametrize("args", ["text", b"text", 5, None])
    def test_args_that_are_no_tuple(self, args):
        with TaskGroup() as group, pytest.raises(TypeError, match="args must be a tuple of arguments"):
            group.start(print, args)

    @pytest.mark.parametrize("kwargs", [5, "text", [("sep", "")]])
    def test_kwargs_that_are_no_mapping(self, kwargs):
        with TaskGroup() as group, pytest.raises(TypeError, match="kwargs must be a mapping"):
            group.start(print, (), kwargs)

    @pytest.mark.parametrize("name", [5, b"T1"])
    def test_a_name_that_is_no_string(self, name):
        with TaskGroup() as group, pytest.raises(TypeError, match="name must be a string"):
            group.start(print, name=name)

    @pytest.mark.parametrize("target", [5, None, "print"])
    def test_what_cannot_be_called(self, target):
        with TaskGroup() as group:
            with pytest.raises(TypeError, match="target must be callable, not"):
                group.start(target)
            with pytest.raises(TypeError, match="fn must be callable, not"):
                group.submit(target)
            with pytest.raises(TypeError):
                group.start()
            with pytest.raises(TypeError):
                group.submit()

    def test_a_coroutine_function_which_no_thread_can_run(self):
        async def fetch():
            pass

        class Fetch:
            async def __call__(self):
                pass

        with TaskGroup() as group:
            for call in (group.start, group.submit):
                for fn in (fetch, functools.partial(fetch), Fetch()):
                    with pytest.raises(TypeError, match="must not be a coroutine function .* a thread cannot await"):
                        call(fn)

    @pytest.mark.parametrize("seconds", [True, "1", None])
    def test_seconds_of_sleep_that_are_no_number(self, seconds):
        with pytest.raises(TypeError, match="seconds must be a number"):
            sleep(seconds)

    @pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
    def test_seconds_of_sleep_that_are_negative(self, seconds):
        with pytest.raises(ValueError, match="seconds must be at least 0"):
            sleep(seconds)

    def test_an_error_at_the_call_leaves_the_group_usable(self):
        with TaskGroup() as group:
            with pytest.raises(TypeError):
                group.start(5)
            assert not group.cancelled
            future = group.submit(int)
        assert future.result(0) == 0


class TestLeaving:
    """Leaving the block waits for all; errors come as one ExceptionGroup, after all have ended."""

    def test_waits_for_all(self, max_workers):
        ended = []
        gate = threading.Event()

        def task(i):
            gate.wait(30)
            ended.append(i)

        with TaskGroup(max_workers) as group:
            for i in range(8):
                group.submit(task, i)
            gate.set()
        assert sorted(ended) == list(range(8))
        assert "closed: 8 started, 0 not ended" in repr(group)

    def test_no_thread_is_left(self, max_workers):
        before = set(threading.enumerate())
        for _ in range(20):
            with TaskGroup(max_workers, timeout=LONG) as group:
                for _ in range(5):
                    group.submit(int)
                group.start(threading.Thread())
            assert set(threading.enumerate()) <= before

    def test_an_empty_block(self, max_workers):
        with TaskGroup(max_workers):
            pass

    def test_waits_for_what_tasks_start_meanwhile_too(self, max_workers):
        ran = []

        def task(depth):
            ran.append(depth)
            if depth < 6:
                group.submit(task, depth + 1)
                group.start(task, args=(depth + 1,))

        with TaskGroup(max_workers) as group:
            group.submit(task, 0)
        assert len(ran) == 2**7 - 1

    def test_one_exception_group_of_all_errors_after_all_have_ended(self, max_workers):
        barrier, ended = threading.Barrier(3), []

        def task(i):
            barrier.wait(30)
            if i:
                fail(i)
            ask_until_cancelled()
            ended.append(i)

        with raises_group(Error, Error) as errors, TaskGroup(max_workers) as group:
            for i in range(3):
                group.submit(task, i)
        assert {error.args for error in errors} == {(1,), (2,)}
        assert ended == [0]
        assert group.cancelled

    def test_it_is_an_exception_group_that_says_how_many(self, max_workers):
        with pytest.raises(ExceptionGroup, match="^1 error in a TaskGroup of 1 task$"):
            with TaskGroup(max_workers) as group:
                group.submit(fail)

    def test_an_error_begins_in_the_users_function(self, max_workers):
        with raises_group(Error) as errors, TaskGroup(max_workers) as group:
            group.submit(fail)
        assert errors[0].__traceback__.tb_frame.f_code is fail.__code__

    def test_the_bodys_error_is_in_it_first(self, max_workers):
        with pytest.raises(ExceptionGroup) as raised, TaskGroup(max_workers) as group:
            with contextlib.suppress(Error):
                group.submit(fail, "task").result()
            raise Error("body")
        assert [error.args for error in raised.value.exceptions] == [("body",), ("task",)]

    def test_the_bodys_error_alone(self):
        started = threading.Event()
        with raises_group(KeyError), TaskGroup() as group:
            future = group.submit(lambda: (started.set(), ask_until_cancelled())[1])
            assert started.wait(30)
            raise KeyError
        assert future.result(0) == "was asked"

    def test_an_error_that_the_body_meets_in_result_is_there_once(self, max_workers):
        with raises_group(Error), TaskGroup(max_workers) as group:
            group.submit(fail).result()

    def test_an_error_that_a_task_meets_in_result_is_there_once(self):
        with raises_group(Error), TaskGroup() as group:
            group.submit(group.submit(fail).result)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
    def test_whatever_a_task_raises_is_its_outcome_and_in_the_group(self, max_workers, error):
        def task():
            raise error("x")

        with raises_group(error) as errors, TaskGroup(max_workers) as group:
            future = group.submit(task)
        assert future.exception(0) is errors[0]

    def test_sys_exit_in_a_thread_object_is_in_the_group_too(self):
        with raises_group(SystemExit), TaskGroup() as group:
            group.start(threading.Thread(target=sys.exit))

    @pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
    def test_what_is_no_exception_leaves_the_body_as_it_is_after_all_have_ended(self, max_workers, error):
        started = threading.Event()
        with pytest.raises(error, match="x") as raised, TaskGroup(max_workers) as group:
            future = group.submit(lambda: (started.set(), ask_until_cancelled())[1])
            assert started.wait(30)
            raise error("x")
        assert raised.type is error
        assert future.result(0) == "was asked"

    def test_errors_of_tasks_that_are_lost_to_it_are_logged(self, caplog):
        with pytest.raises(SystemExit), TaskGroup() as group:
            wait([group.submit(fail, "of a task")])
            sys.exit()
        assert "Error: of a task" in caplog.text
        assert caplog.records[0].levelno == logging.ERROR

    def test_a_cancelled_error_that_nobody_asked_for_is_an_error(self):
        def task():
            raise CancelledError("mine")

        with raises_group(CancelledError), TaskGroup() as group:
            group.submit(task)

    def test_before_and_after_the_block_nothing_can_be_started(self, max_workers):
        group = TaskGroup(max_workers)
        for when in ("before its with block is entered", "after its with block has been left"):
            thread = threading.Thread()
            for start in (lambda: group.submit(int), lambda: group.start(int), lambda: group.start(thread)):
                with pytest.raises(RuntimeError, match=when):
                    start()
            assert "run" not in vars(thread)
            if "before" in when:
                with group:
                    pass

    def test_a_group_can_be_entered_once(self):
        with TaskGroup() as group, pytest.raises(RuntimeError, match="entered once"):
            group.__enter__()
        with pytest.raises(RuntimeError, match="entered once"):
            group.__enter__()

    def test_racing_starts_are_waited_for_or_refused_never_lost(self, max_workers, busy_switching):
        """By a thread that is none of the group's: a start that is accepted runs before the block is over."""
        for _ in range(30):
            futures = []

            def feed():
                with contextlib.suppress(RuntimeError):
                    for _ in range(40):
                        futures.append(group.submit(int))

            group = TaskGroup(max_workers)
            group.__enter__()
            threads = [threading.Thread(target=feed) for _ in range(2)]
            for thread in threads:
                thread.start()
            group.__exit__(None, None, None)
            done = [future.done() for future in list(futures)]
            for thread in threads:
                thread.join(30)
            assert all(done)
            assert all(future.done() for future in futures)


class TestFirstError:
    """The first error cancels what has not started, and asks the others to end."""

    def test_what_has_not_started_is_cancelled(self):
        ran, gate = [], threading.Event()

        def first():
            gate.wait(30)
            fail()

        with raises_group(Error), TaskGroup(max_workers=1) as group:
            group.submit(first)
            rest = [group.submit(ran.append, i) for i in range(5)]
            gate.set()
        assert ran == []
        assert all(future.cancelled() for future in rest)

    def test_those_who_wait_for_it_are_told(self):
        started, go_on = threading.Event(), threading.Event()
        with raises_group(Error), TaskGroup(max_workers=1) as group:
            group.submit(lambda: (started.set(), go_on.wait(30)))
            assert started.wait(30)
            rest = [group.submit(int) for _ in range(5)]
            called = []
            rest[0].add_done_callback(called.append)
            everything, completed, _ = in_threads(
                lambda: wait(rest, timeout=30), lambda: list(as_completed(rest, timeout=30)), group.cancel
            )
            assert everything.done == set(completed) == set(rest)
            assert called == rest[:1]
            go_on.set()
            fail()

    def test_the_others_are_asked_to_end(self, max_workers):
        barrier = threading.Barrier(3)

        def asks():
            barrier.wait(30)
            return ask_until_cancelled()

        def sleeps():
            barrier.wait(30)
            sleep(LONG)

        with raises_group(Error), TaskGroup(max_workers) as group:
            asking, sleeping = group.submit(asks), group.submit(sleeps)
            group.submit(lambda: (barrier.wait(30), fail()))
        assert asking.result(0) == "was asked"
        assert was_cancelled(sleeping)

    def test_the_body_is_asked_too(self, max_workers):
        reached = []
        with raises_group(Error), TaskGroup(max_workers) as group:
            group.submit(fail)
            sleep(LONG)
            reached.append("behind the sleep")
        assert reached == []

    def test_one_that_does_not_ask_runs_to_its_end(self, max_workers):
        gate, started = threading.Event(), threading.Event()

        def stubborn():
            started.set()
            gate.wait(30)
            return "done"

        with raises_group(Error), TaskGroup(max_workers) as group:
            future = group.submit(stubborn)
            assert started.wait(30)
            failing = group.submit(fail)
            wait([failing])
            gate.set()
        assert future.result(0) == "done"

    def test_a_start_afterwards_gives_a_cancelled_future(self, max_workers):
        ran = []
        with raises_group(Error), TaskGroup(max_workers) as group:
            group.submit(fail)
            with contextlib.suppress(CancelledError):
                sleep(LONG)
            late = group.submit(ran.append, 1)
            assert late.cancelled()
            assert wait([late], timeout=30).done == {late}
        assert ran == []

    def test_a_callback_that_raises_while_the_rest_is_cancelled_does_not_keep_the_group_waiting(self, monkeypatch):
        """SystemExit out of a callback, in the task whose error cancels them."""
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        gate, ran = threading.Event(), []
        with raises_group(Error), TaskGroup(max_workers=1) as group:
            group.submit(lambda: (gate.wait(30), fail()))
            rest = [group.submit(ran.append, i) for i in range(4)]
            for future in rest:
                future.add_done_callback(lambda _: sys.exit())
            gate.set()
        assert ran == []
        assert all(future.cancelled() for future in rest)


class TestCancel:
    def test_from_the_body(self, max_workers):
        with TaskGroup(max_workers) as group:
            futures = [group.submit(sleep, LONG) for _ in range(5)]
            assert not group.cancelled
            group.cancel()
            assert group.cancelled
        assert all(future.done() for future in futures)
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)

    def test_from_a_task(self, max_workers):
        with TaskGroup(max_workers) as group:
            future = group.submit(sleep, LONG)
            group.submit(group.cancel)
        with pytest.raises(CancelledError):
            future.result(0)

    def test_from_another_thread_while_the_block_waits(self, max_workers):
        started = threading.Event()
        with TaskGroup(max_workers) as group:
            other = threading.Thread(target=lambda: (started.wait(30), group.cancel()))
            other.start()
            group.submit(lambda: (started.set(), sleep(LONG)))
        other.join()

    def test_twice_and_by_many(self, max_workers):
        with TaskGroup(max_workers) as group:
            futures = [group.submit(sleep, LONG) for _ in range(10)]
            in_threads(*[group.cancel] * 5)
            group.cancel()
        group.cancel()
        assert all(future.done() for future in futures)

    def test_before_anything(self, max_workers):
        group = TaskGroup(max_workers)
        group.cancel()
        with group:
            future = group.submit(int)
            assert future.cancelled()
            with pytest.raises(CancelledError):
                checkpoint()

    def test_nothing_is_raised_of_it_but_errors_are(self, max_workers):
        started = threading.Event()

        def cleans_up_badly():
            started.set()
            try:
                sleep(LONG)
            except CancelledError:
                fail("cleaning up")

        with raises_group(Error) as errors, TaskGroup(max_workers) as group:
            group.submit(cleans_up_badly)
            group.submit(sleep, LONG)
            assert started.wait(30)
            group.cancel()
            sleep(LONG)
        assert [error.args for error in errors] == [("cleaning up",)]

    def test_the_block_goes_on_behind_it(self):
        reached = []
        with TaskGroup() as group:
            group.cancel()
            checkpoint()
            reached.append("inside")
        reached.append("behind")
        assert reached == ["behind"]

    def test_a_task_that_the_user_cancels_alone(self):
        gate = threading.Event()
        with TaskGroup(max_workers=1) as group:
            first = group.submit(gate.wait, 30)
            second, third = group.submit(fail), group.submit(int)
            assert second.cancel()
            gate.set()
        assert (first.result(0), third.result(0)) == (True, 0)
        assert not group.cancelled

    def test_a_signal_handler_may_cancel_at_any_step(self):
        """While the body starts, sleeps, waits: its locks may be held by the very thread that the handler runs in."""
        before = signal.getsignal(signal.SIGALRM)
        try:
            for i in range(400):
                group = TaskGroup(max_workers=None if i % 2 else 1)
                signal.signal(signal.SIGALRM, lambda *_, group=group: group.cancel())
                with group:
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 + i % 40 * 0.00001)
                    group.submit(sleep, LONG)
                    while True:
                        sleep(0.000001)
                assert group.cancelled
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class TestCtrlC:
    """KeyboardInterrupt inside goes first: what waits is cancelled, what runs is left behind."""

    def test_in_the_body(self):
        gate, started = threading.Event(), threading.Event()
        with pytest.raises(KeyboardInterrupt), TaskGroup(max_workers=1) as group:
            running = group.submit(lambda: (started.set(), gate.wait(30)))
            assert started.wait(30)
            waiting = [group.submit(int) for _ in range(3)]
            raise KeyboardInterrupt
        assert not running.done()
        assert all(future.cancelled() for future in waiting)
        assert wait(waiting, timeout=30).done == set(waiting)
        with pytest.raises(RuntimeError, match="after its with block"):
            group.submit(int)
        gate.set()
        assert running.result(30)

    def test_what_is_left_behind_is_asked_to_end(self, max_workers):
        started = threading.Event()
        with pytest.raises(KeyboardInterrupt), TaskGroup(max_workers) as group:
            future = group.submit(lambda: (started.set(), ask_until_cancelled())[1])
            assert started.wait(30)
            raise KeyboardInterrupt
        assert future.result(30) == "was asked"

    def test_while_waiting(self, max_workers):
        gate = threading.Event()

        def press():
            while group._waker is None:
                time.sleep(0.001)
            while "open" in repr(group):  # again: one that comes just before the main thread blocks is seen when it wakes
                os.kill(os.getpid(), signal.SIGINT)
                gate.wait(1)
            gate.wait(30)
            fail("too late to be anybody's but its future's")

        with pytest.raises(KeyboardInterrupt), TaskGroup(max_workers) as group:
            future = group.submit(press)
        gate.set()
        assert isinstance(future.exception(30), Error)

    @pytest.mark.parametrize("workers", ["", "2"])
    @pytest.mark.parametrize(
        "where",
        [
            "group.submit(stuck)",
            "group.submit(stuck); sleep(3600)",
            "group.submit(stuck).result()",
            "group.submit(stuck); group.submit(nested)",
            "group.submit(stuck); nested()",
            "group.start(threading.Thread(target=stuck, daemon=True))",
            "group.submit(stuck); map(stuck, [1, 2])",
        ],
        ids=["exit", "sleep", "result", "nested-task", "nested", "thread", "map"],
    )
    def test_ends_the_program_within_a_second(self, where, workers):
        program = subprocess.Popen(
            [sys.executable, "-c", f"""if 1:
                import threading, time
                from abreast import TaskGroup, map, sleep
                def stuck(*_):
                    print("started", flush=True)
                    time.sleep(3600)
                def nested():
                    with TaskGroup(timeout=3600) as inner:
                        inner.submit(time.sleep, 3600)
                with TaskGroup({workers}) as group:
                    {where}
            """],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert "started" in program.stdout.readline()
        took, stderr = interrupt(program)
        assert program.returncode in (-signal.SIGINT, 130), stderr
        assert stderr.count("KeyboardInterrupt") >= 1
        assert "Exception ignored" not in stderr
        assert took < 1

    @pytest.mark.parametrize("starts_threads", [True, False])
    def test_at_every_step(self, starts_threads):
        """Caught inside the block, which then ends as ever: no lock stays held, no task is counted that never runs, none sleeps on."""
        if starts_threads and sys.version_info >= (3, 14):
            pytest.skip("there Ctrl-C in Thread.start() leaves a lock of threading's own held, and no thread can end any more")
        done = run_python(f"""
            import contextlib, faulthandler, os, signal, threading, time
            from abreast import TaskGroup, sleep
            faulthandler.dump_traceback_later(25, exit=True)

            def press(*_):
                raise KeyboardInterrupt

            def use(group):
                group.submit(int)
                group.submit(sleep, 3600)
                if {starts_threads}:
                    group.start(threading.Thread(target=int, daemon=True))
                group.cancel()
                with contextlib.suppress(Exception):
                    sleep(0.0001)

            def look(group, free):
                for lock in (group._lock, group._scope._lock):
                    free.append(lock.acquire(timeout=5) and lock.release() is None)

            signal.signal(signal.SIGALRM, press)
            inside = rounds = 0
            end = time.monotonic() + 2
            while time.monotonic() < end:
                rounds += 1
                group = TaskGroup({None if starts_threads else 1}, timeout=3600 if rounds % 3 else None)
                with contextlib.suppress(KeyboardInterrupt):
                    with group:
                        group.submit(int)  # the pool's thread
                        try:
                            signal.setitimer(signal.ITIMER_REAL, 0.00001 + rounds % 97 * {0.00001 if starts_threads else 0.000002})
                            use(group)
                            signal.setitimer(signal.ITIMER_REAL, 0)
                        except KeyboardInterrupt:
                            inside += 1
                            group.cancel()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                free = []
                other = threading.Thread(target=look, args=(group, free))
                other.start()
                other.join()
                assert free == [True, True], "a lock is held"
            print("ended", inside > 10, flush=True)
            os._exit(0)  # a thread whose start was interrupted is in the books of threading for good
        """, timeout=60)  # fmt: skip
        assert done.stdout == "ended True\n", done.stderr[-3000:]
        assert done.returncode == 0

    def test_the_end_of_the_program_does_not_wait_for_what_was_left_behind(self, max_workers):
        done = run_python(f"""
            import threading, time
            from abreast import TaskGroup
            started = threading.Event()
            try:
                with TaskGroup({max_workers}) as group:
                    group.submit(lambda: (started.set(), time.sleep(3600)))
                    started.wait()
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                print("goes on")
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("goes on\n", "", 0)


@pytest.mark.whole
class TestTimeout:
    @pytest.fixture
    def hanging(self):
        """Tasks that hang until the test is over; each has begun when `start_in` returns."""

        class Hanging:
            def __init__(self):
                self.gate = threading.Event()

            def start_in(self, group):
                started = threading.Event()
                future = group.submit(lambda: (started.set(), self.gate.wait(30))[1])
                assert started.wait(30)
                return future

        made = Hanging()
        yield made
        made.gate.set()

    def test_all_done_in_time(self, max_workers):
        before = set(threading.enumerate())
        with TaskGroup(max_workers, timeout=LONG) as group:
            future = group.submit(int)
        assert future.result(0) == 0
        assert set(threading.enumerate()) == before

    def test_tasks_that_hang_are_left_behind(self, hanging, max_workers):
        """As in a call of C that nobody can interrupt."""
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"timeout of 0\.5 s: 2 tasks had not ended"):
            with TaskGroup(max_workers, timeout=0.5) as group:
                futures = [hanging.start_in(group) for _ in range(2)]
        assert time.monotonic() - begun < 10
        assert group.cancelled
        assert not any(future.done() for future in futures)
        hanging.gate.set()
        assert all(future.result(30) for future in futures)

    def test_what_had_not_started_is_cancelled(self, hanging):
        with pytest.raises(TimeoutError, match="1 task had not ended"), TaskGroup(1, timeout=0.5) as group:
            hanging.start_in(group)
            waiting = group.submit(int)
        assert waiting.cancelled()
        assert wait([waiting], timeout=30).done == {waiting}

    def test_the_body_asleep_is_woken(self, max_workers):
        with pytest.raises(TimeoutError, match="0 tasks had not ended"), TaskGroup(max_workers, timeout=0.05):
            sleep(LONG)

    def test_tasks_that_ask_end_by_themselves(self, max_workers):
        started = threading.Event()
        with pytest.raises(TimeoutError), TaskGroup(max_workers, timeout=0.5) as group:
            asking = group.submit(lambda: (started.set(), ask_until_cancelled())[1])
            sleeping = group.submit(sleep, LONG)
            assert started.wait(30)
        assert asking.result(30) == "was asked"
        assert was_cancelled(sleeping)

    def test_errors_of_before_are_its_cause(self, hanging):
        with pytest.raises(TimeoutError) as raised, TaskGroup(timeout=0.5) as group:
            hanging.start_in(group)
            wait([group.submit(fail)])
            raise KeyError
        assert [type(error) for error in raised.value.__cause__.exceptions] == [KeyError, Error]

    def test_system_exit_goes_before_it(self, hanging, caplog):
        with pytest.raises(SystemExit), TaskGroup(timeout=0.5) as group:
            hanging.start_in(group)
            sys.exit()
        assert "TimeoutError" in caplog.text

    @pytest.mark.parametrize("timeout", [float("inf"), 1e12, threading.TIMEOUT_MAX, 2])
    def test_a_long_one_and_an_endless_one(self, timeout):
        with TaskGroup(timeout=timeout) as group:
            future = group.submit(int)
        assert future.result(0) == 0

    def test_a_user_who_blocks_in_a_callback_does_not_hold_it_up(self, hanging):
        """A task that is cancelled when the time is up calls back in the timer's thread."""
        entered = threading.Event()
        with pytest.raises(TimeoutError), TaskGroup(1, timeout=0.5) as group:
            hanging.start_in(group)
            group.submit(int).add_done_callback(lambda _: (entered.set(), hanging.gate.wait(30)))
            assert entered.wait(30)
        assert not hanging.gate.is_set()


class TestCurrentTask:
    def test_in_a_group(self, max_workers):
        with TaskGroup(max_workers) as group:
            futures = [group.submit(seen), group.start(seen, name="T1"), group.submit(functools.partial(seen))]
        assert [future.result(0) for future in futures] == [
            ("seen", None, 1, False),
            ("T1", None, 1, False),
            ("seen", None, 1, False),
        ]

    def test_in_a_group_after_a_cancel(self, max_workers):
        def task():
            ask_until_cancelled()
            return seen(), repr(current_task())

        with TaskGroup(max_workers) as group:
            started = threading.Event()
            future = group.start(lambda: (started.set(), task())[1], name="T")
            assert started.wait(30)
            group.cancel()
        assert future.result(0) == (("T", None, 1, True), "<Task T, attempt 1, cancelled>")

    def test_in_map(self):
        assert abreast.map(lambda _: seen()[1:], "abc") == [(0, 1, False), (1, 1, False), (2, 1, False)]
        assert abreast.map(lambda _: seen()[1:], "abc", kind="serial") == [(0, 1, False), (1, 1, False), (2, 1, False)]

    def test_in_submit_of_an_executor(self):
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(seen).result() == ("seen", None, 1, False)

    def test_outside_there_is_none(self, max_workers):
        assert current_task() is None
        with TaskGroup(max_workers):
            assert current_task() is None
        assert in_threads(current_task) == [None]

    def test_in_a_callback_of_an_executor_there_is_none(self):
        gate, called = threading.Event(), []
        with ThreadPoolExecutor(1) as executor:
            executor.submit(gate.wait, 30).add_done_callback(lambda _: called.append(current_task()))
            gate.set()
        assert called == [None]

    @pytest.mark.parametrize("kind", ["thread", "serial"])
    def test_nested_runs_restore_it(self, max_workers, kind):
        def outer():
            before = seen()
            inside = abreast.map(lambda _: seen()[1], "ab", kind=kind)
            with TaskGroup() as inner:
                innermost = inner.start(seen, name="inner")
            with ThreadPoolExecutor(1) as executor:
                submitted = executor.submit(seen).result()
            return before, inside, innermost.result(), submitted, seen()

        with TaskGroup(max_workers) as group:
            future = group.start(outer, name="outer")
        me = ("outer", None, 1, False)
        assert future.result(0) == (me, [0, 1], ("inner", None, 1, False), ("seen", None, 1, False), me)

    def test_a_group_inside_a_task_of_a_run(self):
        def task(_):
            with TaskGroup(1) as group:
                inner = group.start(seen, name="inner").result()
            return inner, seen()[1]

        assert abreast.map(task, "ab") == [(("inner", None, 1, False), 0), (("inner", None, 1, False), 1)]

    def test_an_error_inside_restores_it_too(self):
        def outer():
            with contextlib.suppress(Error):
                abreast.map(fail, "ab", kind="serial")
            return seen()

        with TaskGroup() as group:
            future = group.start(outer, name="outer")
        assert future.result(0) == ("outer", None, 1, False)

    def test_in_a_task_whose_executor_was_abandoned_it_is_cancelled(self):
        started = threading.Event()
        with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as executor:
            future = executor.submit(lambda: (started.set(), ask_until_cancelled())[1])
            assert started.wait(30)
            raise KeyboardInterrupt
        assert future.result(30) == "was asked"


class TestSleep:
    """`sleep` and `checkpoint` end at once when they are asked to."""

    def test_sleeps(self):
        begun = time.monotonic()
        sleep(0.03)
        assert 0.03 <= time.monotonic() - begun < 5
        sleep(0)
        sleep(decimal.Decimal("0.001"))
        checkpoint()

    def test_in_a_task_wakes_whenever_it_is_cancelled(self, max_workers, busy_switching):
        for _ in range(30):
            with TaskGroup(max_workers) as group:
                futures = [group.submit(sleep, LONG) for _ in range(2)]
                group.submit(group.cancel)
            assert all(was_cancelled(future) for future in futures)

    def test_in_the_body(self, max_workers):
        for seconds in (LONG, float("inf")):
            with TaskGroup(max_workers) as group:
                group.submit(group.cancel)
                sleep(seconds)
                pytest.fail("was not woken")

    def test_once_cancelled_it_does_not_even_begin(self):
        with TaskGroup() as group:
            group.cancel()
            for call in (checkpoint, lambda: sleep(0), lambda: sleep(LONG)):
                with pytest.raises(CancelledError):
                    call()

    def test_checkpoint_ends_a_long_loop(self, max_workers):
        def count():
            for _ in itertools.count():
                checkpoint()

        with TaskGroup(max_workers) as group:
            future = group.submit(count)
            group.cancel()
        assert was_cancelled(future)

    def test_in_nested_groups(self, max_workers):
        """In the inner one's tasks and body, by cancelling the outer."""
        asleep = threading.Barrier(3)

        def nested():
            with TaskGroup(max_workers) as inner:
                inner.submit(lambda: (asleep.wait(30), sleep(LONG)))
                asleep.wait(30)
                sleep(LONG)

        with TaskGroup(max_workers) as outer:
            future = outer.submit(nested)
            asleep.wait(30)
            outer.cancel()
        assert was_cancelled(future)

    @pytest.mark.parametrize("how", ["map", "imap", "outcomes", "executor"])
    def test_in_a_run_inside_a_group(self, how):
        asleep = threading.Event()

        def task(_):
            asleep.set()
            sleep(LONG)

        def run():
            if how == "executor":
                with ThreadPoolExecutor(2) as executor:
                    return list(executor.map(task, "ab"))
            return list(getattr(abreast, how)(task, "ab", max_workers=2))

        with TaskGroup() as group:
            future = group.submit(run)
            assert asleep.wait(30)
            group.cancel()
        assert was_cancelled(future)

    @pytest.mark.parametrize("how", ["serial", "busy consumer"])
    def test_in_a_run_whose_consumer_does_not_look(self, how):
        """It runs the tasks itself, or is at something else."""
        asleep, asked, in_time = threading.Event(), threading.Event(), []

        def task(_):
            asleep.set()
            try:
                sleep(1)
            except CancelledError:
                asked.set()
                raise

        def run():
            if how == "serial":
                abreast.map(task, "a", kind="serial")
            else:
                results = abreast.imap(lambda i: i and task(i), [0, 1], max_workers=2)
                next(results)
                in_time.append(asked.wait(0.9))
                results.close()

        with TaskGroup() as group:
            group.submit(run)
            assert asleep.wait(30)
            group.cancel()
        assert asked.wait(5)
        assert False not in in_time

    def test_in_a_task_whose_executor_is_abandoned(self):
        started = threading.Event()
        with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as executor:
            future = executor.submit(lambda: (started.set(), sleep(LONG)))
            assert started.wait(30)
            raise KeyboardInterrupt
        assert was_cancelled(future)

    def test_a_task_of_an_executor_is_not_in_the_body_that_submits_it(self):
        """It has a copy of the body's context, and outlives the block."""
        gate = threading.Event()

        def task():
            gate.wait(30)
            checkpoint()
            sleep(0)
            return "not asked"

        with ThreadPoolExecutor(1) as executor:
            with TaskGroup() as group:
                future = executor.submit(task)
                context = contextvars.copy_context()
                thread = threading.Thread(target=lambda: context.run(checkpoint))
                group.cancel()
                thread.start()
                thread.join()
            gate.set()
            assert future.result(30) == "not asked"

    def test_a_call_of_a_serial_executor_is(self):
        """It runs in the body's thread, and holds it up."""
        with TaskGroup() as group:
            group.cancel()
            assert isinstance(SerialExecutor().submit(checkpoint).exception(), CancelledError)

    def test_after_the_block_nothing_is_asked(self, max_workers):
        with TaskGroup(max_workers) as group:
            group.cancel()
        checkpoint()
        with ThreadPoolExecutor(1) as executor:
            assert executor.submit(checkpoint).result() is None

    def test_thousands_asleep(self):
        with TaskGroup() as group:
            started = threading.Semaphore(0)
            for _ in range(300):
                group.submit(lambda: (started.release(), sleep(LONG)))
            for _ in range(300):
                assert started.acquire(timeout=30)
            group.cancel()


class TestNested:
    """Cancelling one cancels what is inside, and not what is outside."""

    def test_the_inner_ones_errors_are_raised_in_the_outer(self):
        with raises_group(ExceptionGroup) as errors, TaskGroup():
            with TaskGroup() as inner:
                inner.submit(fail)
        assert [type(error) for error in errors[0].exceptions] == [Error]

    def test_an_inner_cancel_leaves_the_outer_alone(self):
        with TaskGroup() as outer:
            with TaskGroup() as inner:
                inner.cancel()
                with pytest.raises(CancelledError):
                    checkpoint()
            checkpoint()
            assert not outer.cancelled
            assert outer.submit(int).result() == 0

    def test_an_outer_cancel_reaches_groups_in_bodies_and_tasks(self):
        entered = threading.Event()
        inside = []

        def nested():
            with TaskGroup() as inner:
                inside.append(inner)
                entered.set()
                sleep(LONG)

        with TaskGroup() as outer:
            outer.submit(nested)
            assert entered.wait(30)
            with TaskGroup() as inner:
                inside.append(inner)
                outer.cancel()
                assert inner.cancelled
        assert all(group.cancelled for group in inside)

    def test_one_that_is_entered_in_a_cancelled_one_is_cancelled(self):
        with TaskGroup() as outer:
            outer.cancel()
            with TaskGroup() as inner:
                assert inner.cancelled

    def test_an_inner_one_that_was_cut_short_from_outside_does_not_go_on_as_if_it_were_done(self):
        reached, started = [], threading.Event()

        def nested():
            with TaskGroup() as inner:
                inner.submit(lambda: (started.set(), sleep(LONG)))
            reached.append("behind the inner block")

        with TaskGroup() as outer:
            future = outer.submit(nested)
            assert started.wait(30)
            outer.cancel()
        assert was_cancelled(future)
        assert reached == []

    def test_one_whose_tasks_got_everything_done_goes_on(self):
        started, gate = threading.Event(), threading.Event()

        def nested():
            with TaskGroup() as inner:
                inner.submit(lambda: (started.set(), gate.wait(30)))
            return "done"

        with TaskGroup() as outer:
            future = outer.submit(nested)
            assert started.wait(30)
            outer.cancel()
            gate.set()
        assert future.result(0) == "done"

    def test_the_bodys_cancelled_error_goes_up_to_the_one_that_was_cancelled(self):
        reached = []
        with TaskGroup() as outer:
            with TaskGroup():
                outer.submit(outer.cancel)
                sleep(LONG)
            reached.append("behind the inner block")
        assert reached == []

    def test_an_outer_error_ends_all_and_is_the_only_one(self):
        asleep = threading.Barrier(4)

        def level(depth):
            with TaskGroup() as group:
                if depth:
                    group.submit(level, depth - 1)
                asleep.wait(30)
                sleep(LONG)

        with raises_group(Error), TaskGroup() as group:
            group.submit(level, 2)
            asleep.wait(30)
            group.submit(fail)

    def test_an_inner_timeout_is_an_error_of_the_outer(self):
        def nested():
            with TaskGroup(timeout=0.05):
                sleep(LONG)

        with raises_group(TimeoutError), TaskGroup(timeout=LONG) as outer:
            outer.submit(nested)

    def test_an_outer_timeout_ends_the_inner(self):
        def nested():
            with TaskGroup() as inner:
                inner.submit(sleep, LONG)

        with pytest.raises(TimeoutError), TaskGroup(timeout=0.05) as outer:
            future = outer.submit(nested)
        assert was_cancelled(future)

    def test_a_group_that_is_over_is_forgotten_by_the_one_around_it(self):
        with TaskGroup() as outer:
            for _ in range(10):
                with pytest.raises(ExceptionGroup), TaskGroup():
                    fail()
                with TaskGroup():
                    sleep(0.0001)
            assert len(outer._scope._watchers) == 0


class TestCoroutines:
    """A with block in a coroutine is its own: others of the thread are not asked to end."""

    def test_its_scope_does_not_leak_to_others(self):
        async def inside(entered, looked):
            with TaskGroup() as group:
                group.cancel()
                entered.set()
                await looked.wait()
                with pytest.raises(CancelledError):
                    checkpoint()

        async def main():
            entered, looked = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(inside(entered, looked))
            await entered.wait()
            checkpoint()
            sleep(0)
            with TaskGroup() as group:
                assert not group.cancelled
            looked.set()
            await task
            checkpoint()

        asyncio.run(main())

    def test_one_that_is_made_inside_is_asked_while_the_block_lasts(self):
        async def child(looked, left):
            with pytest.raises(CancelledError):
                checkpoint()
            looked.set()
            await left.wait()
            checkpoint()
            with TaskGroup() as group:
                assert not group.cancelled

        async def main():
            looked, left = asyncio.Event(), asyncio.Event()
            with TaskGroup() as group:
                group.cancel()
                task = asyncio.create_task(child(looked, left))
                await looked.wait()
            left.set()
            await task

        asyncio.run(main())

    def test_cancelling_the_coroutine_goes_through(self):
        async def inside(entered):
            with TaskGroup() as group:
                futures.append(group.submit(sleep, LONG))
                entered.set()
                await asyncio.sleep(LONG)

        async def main():
            entered = asyncio.Event()
            task = asyncio.create_task(inside(entered))
            await entered.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        futures = []
        asyncio.run(main())
        assert futures[0].done()

    def test_futures_can_be_awaited(self):
        async def main():
            with TaskGroup() as group:
                return await asyncio.wrap_future(group.submit(pow, 2, 5))

        assert asyncio.run(main()) == 32


class TestGenerators:
    def test_blocks_that_are_not_left_in_order(self):
        def block():
            with TaskGroup() as group:
                yield group

        first, second = block(), block()
        one, two = next(first), next(second)
        assert next(first, "left") == "left"
        checkpoint()
        two.cancel()
        with pytest.raises(CancelledError):
            checkpoint()
        assert not one.cancelled
        assert next(second, "left") == "left"
        checkpoint()

    def test_a_block_that_is_left_in_another_context(self):
        def block():
            with TaskGroup() as group:
                group.cancel()
                yield

        generator = block()
        with TaskGroup() as outer:
            next(generator)
            with pytest.raises(CancelledError):
                checkpoint()
            contextvars.Context().run(generator.close)
            checkpoint()
            outer.cancel()
            with pytest.raises(CancelledError):
                checkpoint()


class TestContext:
    """Each task runs in its own copy of the context at its start."""

    def test_a_copy_each_and_nothing_leaks(self, max_workers):
        variable = contextvars.ContextVar("variable", default="nothing")

        def swap(value):
            before = variable.get()
            variable.set(value)
            return before

        with TaskGroup(max_workers) as group:
            assert group.submit(swap, "leaks?").result() == "nothing"
            token = variable.set("mine")
            first = group.submit(swap, "leaks?")
            variable.reset(token)
            assert first.result() == "mine"
            assert group.start(swap, ("x",)).result() == "nothing"
            assert variable.get() == "nothing"

    def test_of_the_start_not_of_when_it_runs(self):
        variable = contextvars.ContextVar("variable")
        gate = threading.Event()
        with TaskGroup(max_workers=1) as group:
            group.submit(gate.wait, 30)
            token = variable.set("then")
            future = group.submit(variable.get)
            variable.reset(token)
            gate.set()
        assert future.result(0) == "then"

    def test_a_task_that_starts_another_hands_its_context_on(self, max_workers):
        variable = contextvars.ContextVar("variable")

        def outer():
            variable.set("from the task")
            return group.submit(variable.get).result()

        with TaskGroup(max_workers) as group:
            future = group.submit(outer)
        assert future.result(0) == "from the task"


@pytest.mark.skipif(FREE_THREADED, reason="what other threads have made is freed late there")
class TestReferences:
    """What the user drops is freed at once: no cycles, and nothing kept."""

    class Thing:
        pass

    def test_arguments_and_results_go_with_the_future(self, max_workers, no_gc):
        with TaskGroup(max_workers) as group:
            thing = self.Thing()
            argument = weakref.ref(thing)
            future = group.submit(lambda _: self.Thing(), thing)
            del thing
            result = weakref.ref(future.result())
            wait([group.submit(int) for _ in range(3)])
        assert argument() is None
        assert result() is not None
        del future
        assert result() is None

    def test_a_group_that_lasts_keeps_nothing_of_what_has_ended(self, max_workers, no_gc):
        results = []
        with TaskGroup(max_workers) as group:
            for _ in range(300):
                results.append(weakref.ref(group.submit(self.Thing).result()))
            assert len(group._threads) < 100
            assert len(group._unfinished) < 10
            wait([group.submit(int) for _ in range(3)])
            assert sum(ref() is not None for ref in results) < 10
        assert all(ref() is None for ref in results)

    def test_arguments_of_a_task_that_is_cancelled(self, no_gc):
        gate = threading.Event()
        with TaskGroup(max_workers=1) as group:
            group.submit(gate.wait, 30)
            thing = self.Thing()
            gone = weakref.ref(thing)
            future = group.submit(id, thing)
            del thing
            group.cancel()
            gate.set()
        assert future.cancelled()
        assert gone() is None

    @pytest.mark.parametrize("timeout", [None, LONG])
    def test_a_group_that_is_over(self, max_workers, timeout, no_gc):
        def use():
            with TaskGroup(max_workers, timeout=timeout) as group:
                group.submit(int)
                thread = threading.Thread()
                group.start(thread)
            return weakref.ref(group), weakref.ref(thread)

        assert [ref() for ref in use()] == [None, None]

    @pytest.mark.parametrize("how", ["task", "thread", "body", "result", "both", "exit", "ctrl-c", "timeout", "nested"])
    def test_errors(self, max_workers, how, no_gc):
        class Known(Exception):
            def __init__(self):
                known.append(weakref.ref(self))

        def raise_it():
            raise Known

        def nested():
            with TaskGroup(max_workers) as inner:
                inner.submit(raise_it)

        def use():
            with TaskGroup(max_workers, timeout=0.5 if how == "timeout" else None) as group:
                groups.append(weakref.ref(group))
                if how == "task":
                    group.submit(raise_it)
                elif how == "thread":
                    group.start(threading.Thread(target=raise_it))
                elif how == "body":
                    raise_it()
                elif how == "result":
                    group.submit(raise_it).result()
                elif how == "both":
                    group.submit(raise_it)
                    raise_it()
                elif how == "exit":
                    wait([group.submit(raise_it)])
                    sys.exit()
                elif how == "ctrl-c":
                    wait([group.submit(raise_it)])
                    raise KeyboardInterrupt
                elif how == "timeout":
                    wait([group.submit(raise_it)])
                    sleep(LONG)
                elif how == "nested":
                    group.submit(nested)

        known, groups = [], []
        logging.disable()
        try:
            use()
        except BaseException as error:
            assert not isinstance(error, AssertionError)
        finally:
            logging.disable(logging.NOTSET)
        assert known
        left = [ref() for ref in known + groups]
        if how in ("timeout", "ctrl-c"):  # the threads that were left behind are about to end
            deadline = time.monotonic() + 5
            while any(left) and time.monotonic() < deadline:
                time.sleep(0.001)
                left = [ref() for ref in known + groups]
        assert left == [None] * len(left)


class TestScarceThreads:
    """The system gives no more threads."""

    @pytest.fixture
    def scarce(self, monkeypatch):
        """A patch that refuses to start threads while it is in place."""

        def refuse(self):
            raise RuntimeError("can't start new thread")

        @contextlib.contextmanager
        def patch(cls):
            with monkeypatch.context() as patched:
                patched.setattr(cls, "start", refuse)
                yield

        return patch

    def test_the_start_raises_and_the_group_stays_usable(self, scarce):
        with TaskGroup() as group:
            first = group.submit(pow, 2, 5)
            with scarce(threading.Thread):
                for _ in range(3):
                    with pytest.raises(RuntimeError, match="can't start new thread"):
                        group.submit(int)
            second = group.submit(pow, 2, 6)
            assert len(group._threads) <= 2
        assert (first.result(0), second.result(0)) == (32, 64)
        assert not group.cancelled

    def test_with_max_workers(self, scarce):
        with TaskGroup(max_workers=2) as group:
            with scarce(crew.Worker), pytest.raises(RuntimeError, match="can't start new thread"):
                group.submit(int)
            future = group.submit(pow, 2, 5)
        assert future.result(0) == 32
        assert group._waiting == group._unfinished == set()

    def test_a_thread_object_can_be_started_later(self, scarce):
        ran = []
        thread = threading.Thread(target=ran.append, args=(1,))
        with TaskGroup() as group:
            with scarce(threading.Thread), pytest.raises(RuntimeError, match="can't start new thread"):
                group.start(thread)
            assert "run" not in vars(thread)
            group.start(thread)
        assert ran == [1]

    def test_uncaught_it_is_the_bodys_error(self, scarce):
        with raises_group(RuntimeError), TaskGroup() as group:
            started = threading.Event()
            future = group.submit(lambda: (started.set(), ask_until_cancelled())[1])
            assert started.wait(30)
            with scarce(threading.Thread):
                group.submit(int)
        assert future.result(0) == "was asked"

    def test_in_a_task_it_is_the_tasks_error(self, scarce):
        with raises_group(RuntimeError), TaskGroup() as group:
            ready = threading.Event()
            group.submit(lambda: (ready.wait(30), group.submit(int)))
            with scarce(threading.Thread):
                ready.set()
                with contextlib.suppress(CancelledError):
                    sleep(LONG)

    def test_the_timers(self, scarce):
        group = TaskGroup(timeout=LONG)
        with scarce(threading.Thread), pytest.raises(RuntimeError, match="can't start new thread"), group:
            pytest.fail("entered")
        with pytest.raises(RuntimeError):
            group.submit(int)
        checkpoint()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="sub-interpreters of before 3.13 have no public enough module")
def test_in_a_sub_interpreter():
    """Where threads cannot be daemons."""
    done = run_python("""
        try:
            import _interpreters
        except ImportError:
            import _xxsubinterpreters as _interpreters
        interpreter = _interpreters.create()
        problem = _interpreters.exec(interpreter, '''if 1:
            from abreast import TaskGroup, sleep
            for workers in (None, 2):
                with TaskGroup(workers, timeout=60) as group:
                    future = group.submit(pow, 2, 5)
                    group.submit(sleep, 0.001)
                print(future.result(), flush=True)
        ''')
        print(problem)
        _interpreters.destroy(interpreter)
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("32\n32\nNone\n", "", 0)


class TestDeadlock:
    """Tasks of a group with `max_workers` that wait for each other for good."""

    def test_a_task_that_waits_for_one_that_nobody_can_run(self):
        with raises_group(DeadlockDetected), TaskGroup(max_workers=1) as group:
            group.submit(lambda: group.submit(int).result())

    def test_two_that_wait_for_each_other(self):
        futures, made = [], threading.Event()

        def wait_for(i):
            made.wait(30)
            futures[i].result()

        with pytest.raises(ExceptionGroup), TaskGroup(max_workers=2) as group:
            futures += [group.submit(wait_for, 1), group.submit(wait_for, 0)]
            made.set()
        assert any(isinstance(future.exception(0), DeadlockDetected) for future in futures)

    def test_one_that_waits_for_a_task_that_can_run(self):
        with TaskGroup(max_workers=2) as group:
            future = group.submit(lambda: group.submit(pow, 2, 5).result())
        assert future.result(0) == 32


class TestMany:
    def test_tiny_tasks(self, max_workers):
        with TaskGroup(max_workers) as group:
            futures = [group.submit(operator.neg, i) for i in range(200)]
        assert [future.result(0) for future in futures] == [-i for i in range(200)]

    def test_by_many_threads(self, max_workers, busy_switching):
        with TaskGroup(max_workers) as group:
            futures = sum(in_threads(*[lambda: [group.submit(pow, i, 2) for i in range(30)]] * 3), [])
        assert sorted(future.result(0) for future in futures) == sorted([i**2 for i in range(30)] * 3)

    def test_errors_cancels_and_starts_race_and_the_counts_add_up(self, max_workers, busy_switching):
        for seed in range(60):
            chance = random.Random(seed)
            futures, ran = [], []

            def task(depth, dice):
                ran.append(1)
                if depth and dice > 0.3:
                    futures.append(group.submit(task, depth - 1, chance.random()))
                    futures.append(group.start(task, (depth - 1, chance.random())))
                if dice > 0.9:
                    fail()
                if dice > 0.8:
                    group.cancel()
                if dice > 0.6:
                    sleep(0.0001)
                elif dice > 0.5:
                    checkpoint()
                return "done"

            def feed():
                with contextlib.suppress(RuntimeError):
                    for _ in range(6):
                        futures.append(group.submit(task, 1, chance.random()))

            def stop():
                time.sleep(chance.random() * 0.002)
                group.cancel()

            found = []
            outside = [threading.Thread(target=target) for target in (feed, feed, stop)[: chance.randrange(4)]]
            try:
                with TaskGroup(max_workers) as group:
                    for thread in outside:
                        thread.start()
                    for _ in range(4):
                        futures.append(group.submit(task, 2, chance.random()))
            except ExceptionGroup as errors:
                found += errors.exceptions
                del errors
            over = len(ran)
            for thread in outside:
                thread.join(30)
                assert not thread.is_alive()
            assert len(ran) == over  # nothing outlives the block
            assert all(future.done() for future in futures)
            cancelled = sum(future.cancelled() for future in futures)
            raised = [future.exception(0) for future in futures if not future.cancelled()]
            assert len(raised) == len(futures) - cancelled == len(ran)
            assert {id(error) for error in raised if isinstance(error, Error)} == {id(error) for error in found}
            assert all(error is None or isinstance(error, (Error, CancelledError)) for error in raised)
            assert not wait(futures, timeout=30).not_done

    def test_timeouts_race_with_the_end(self, max_workers, busy_switching):
        """Each block ends one way or the other, and never leaves anything."""
        ended = {"in time": 0, "late": 0}
        for i in range(60):
            try:
                with TaskGroup(max_workers, timeout=0.001 + i % 6 * 0.0005) as group:
                    futures = [group.submit(sleep, 0.002) for _ in range(3)]
                ended["in time"] += 1
                assert [future.exception(0) for future in futures] == [None] * 3
            except TimeoutError:
                ended["late"] += 1
        assert sum(ended.values()) == 60


class NamedThread(threading.Thread):
    def run(self):
        raise KeyError("t")


class Unreadable:
    def __repr__(self):
        raise ValueError


def fetch(url, *, how=None):
    raise ValueError(how)


def note_of(start):
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        start(group)
    ((note,),) = (error.__notes__ for error in caught.value.exceptions)
    return note


def test_an_error_tells_which_task_raised_it():
    assert note_of(lambda group: group.submit(fetch, "a", how=1)) == "abreast: raised by fetch('a', how=1), in a TaskGroup"
    assert note_of(lambda group: group.start(fetch, args=("b",), name="F")) == "abreast: raised by F('b'), in a TaskGroup"
    assert note_of(lambda group: group.start(NamedThread(name="T1"))) == "abreast: raised by T1, in a TaskGroup"
    assert note_of(lambda group: group.submit(fetch, Unreadable())).startswith("abreast: raised by fetch(<Unreadable")

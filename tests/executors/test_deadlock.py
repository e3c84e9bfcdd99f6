"""F41: tasks that wait for each other for good get DeadlockDetected, at once, with the chain; others never do."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import as_completed
from pathlib import PurePosixPath

import pytest
from abreast import AbreastError, DeadlockDetected, Future, ThreadPoolExecutor
from abreast.executors import deadlock

from tests.helpers import in_threads


@pytest.fixture(autouse=True)
def no_wait_is_left_entered():
    yield
    assert deadlock._waits == {}


def inner(x):
    return x + 1


def test_one_worker_that_waits_for_its_own_executor():
    with ThreadPoolExecutor(1, thread_name_prefix="P") as executor:

        def outer(x):
            return executor.submit(inner, x).result()

        begun = time.monotonic()
        with pytest.raises(DeadlockDetected) as raised:
            executor.submit(outer, 1).result(30)
        assert time.monotonic() - begun < 0.1
    (line,) = raised.value.chain
    assert line.startswith("P_0 runs test_one_worker_that_waits_for_its_own_executor.<locals>.outer(1) and waits for")
    assert line.endswith("a task that is pending in P")
    assert line in str(raised.value)
    assert "more workers" in str(raised.value)


def test_exception_waits_too():
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(lambda: executor.submit(inner, 1).exception())
        assert isinstance(future.exception(30), DeadlockDetected)


def test_map_inside_a_task():
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(lambda: list(executor.map(inner, [1])))
        assert isinstance(future.exception(30), DeadlockDetected)


@pytest.mark.parametrize("workers", [2, 5])
def test_all_workers_wait_and_only_the_youngest_gets_the_error(workers):
    with ThreadPoolExecutor(workers, thread_name_prefix="P") as executor:
        barrier = threading.Barrier(workers)

        def outer(x):
            barrier.wait(30)
            return executor.submit(inner, x).result()

        futures = [executor.submit(outer, i) for i in range(workers)]
        errors = [future.exception(30) for future in futures]
    (failed,) = [i for i, error in enumerate(errors) if error is not None]
    assert isinstance(errors[failed], DeadlockDetected)
    assert len(errors[failed].chain) == workers
    assert f"outer({failed})" in errors[failed].chain[0]
    assert [future.result() for i, future in enumerate(futures) if i != failed] == [i + 1 for i in range(workers) if i != failed]


def test_a_chain_of_running_tasks():
    """The last waits for a pending one, the others for running ones: all are stuck."""
    with ThreadPoolExecutor(2, thread_name_prefix="P") as executor:
        ready = threading.Event()

        def first():
            ready.wait(30)
            return executor.submit(inner, 1).result()

        def second():
            ready.set()
            return running.result()

        running = executor.submit(first)
        futures = [running, executor.submit(second)]
        results = [future.exception(30) for future in futures]
    assert any(isinstance(error, DeadlockDetected) for error in results)


def test_a_circle_over_two_executors():
    with ThreadPoolExecutor(1, thread_name_prefix="A") as a, ThreadPoolExecutor(1, thread_name_prefix="B") as b:

        def in_a(x):
            return b.submit(in_b, x).result()

        def in_b(x):
            return a.submit(inner, x).result()

        with pytest.raises(DeadlockDetected) as raised:
            a.submit(in_a, 1).result(30)
        text = str(raised.value)
        assert "A_0 runs" in text
        assert "B_0 runs" in text
        assert a.submit(inner, 1).result(30) == b.submit(inner, 1).result(30) == 2


def test_a_task_that_waits_for_itself():
    with ThreadPoolExecutor(2) as executor:
        box, ready = [], threading.Event()

        def me():
            ready.wait(30)
            return box[0].result()

        box.append(executor.submit(me))
        ready.set()
        assert isinstance(box[0].exception(30), DeadlockDetected)
        box.clear()


def test_a_submit_that_waits_for_room_in_its_own_executor():
    with ThreadPoolExecutor(1, max_pending=1, thread_name_prefix="P") as executor:

        def outer():
            executor.submit(inner, 1)
            executor.submit(inner, 2)  # no room, and nobody but this task could make some

        error = executor.submit(outer).exception(30)
        assert isinstance(error, DeadlockDetected)
        assert "waits in submit for room in P (max_pending)" in str(error)


def test_not_when_a_worker_is_free():
    with ThreadPoolExecutor(2) as executor:

        def outer(x):
            return executor.submit(inner, x).result()

        for i in range(50):
            assert executor.submit(outer, i).result(30) == i + 1


def test_not_when_another_thread_may_be_started():
    with ThreadPoolExecutor(8) as executor:

        def deep(n):
            return n if n == 0 else executor.submit(deep, n - 1).result() + 1

        assert executor.submit(deep, 7).result(30) == 7
        with pytest.raises(DeadlockDetected):
            executor.submit(deep, 8).result(30)
        assert executor.submit(deep, 7).result(30) == 7


def test_not_when_the_executor_that_is_waited_for_is_another_that_works():
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        gate = threading.Event()
        slow = b.submit(gate.wait, 30)

        def outer():
            return b.submit(inner, 1).result()

        future = a.submit(outer)
        gate.set()
        assert slow.result(30)
        assert future.result(30) == 2


def test_not_for_a_wait_with_a_timeout_and_not_because_of_one():
    with ThreadPoolExecutor(2) as executor:
        both = threading.Barrier(2)

        def patient():
            both.wait(30)
            return executor.submit(inner, 1).result()

        def limited():
            future = executor.submit(inner, 1)
            both.wait(30)
            try:
                return future.result(0.2)
            except TimeoutError:
                return "gave up"

        one, two = executor.submit(patient), executor.submit(limited)
        assert one.result(30) == 2
        assert two.result(30) in ("gave up", 2)


def test_who_is_no_worker_may_wait_for_anything():
    with ThreadPoolExecutor(1) as executor:
        gate = threading.Event()
        executor.submit(gate.wait, 30)
        future = executor.submit(inner, 1)
        assert in_threads(future.result, future.result, gate.set)[:2] == [2, 2]


def test_a_handled_one_leaves_the_executor_as_it_was():
    with ThreadPoolExecutor(1) as executor:

        def outer(x):
            future = executor.submit(inner, x)
            try:
                return future.result()
            except DeadlockDetected:
                return future

        assert executor.submit(outer, 1).result(30).result(30) == 2


def test_many_nested_waits_never_hang_and_lose_nothing(busy_switching):
    """Random trees of nested tasks on few workers: each task has an outcome, an error only DeadlockDetected."""
    for _ in range(30):
        with ThreadPoolExecutor(3) as executor:

            def tree(depth):
                if depth == 0:
                    return 1
                return sum(future.result() for future in [executor.submit(tree, depth - 1) for _ in range(2)])

            futures = [executor.submit(tree, depth) for depth in (0, 1, 2, 3)]
            for future in as_completed(futures, timeout=30):
                error = future.exception()
                assert error is None or isinstance(error, DeadlockDetected)


def test_a_repr_that_fails_does_not_hide_the_error():
    class Bad:
        def __repr__(self):
            raise ZeroDivisionError

    with ThreadPoolExecutor(1) as executor:
        error = executor.submit(lambda _: executor.submit(inner, 1).result(), Bad()).exception(30)
        assert isinstance(error, DeadlockDetected)
        assert "Bad" in str(error)


def test_a_long_chain_is_shortened():
    with ThreadPoolExecutor(20) as executor:
        barrier = threading.Barrier(20)

        def outer():
            barrier.wait(30)
            return executor.submit(inner, 1).result()

        futures = [executor.submit(outer) for _ in range(20)]
        (error,) = [future.exception(30) for future in futures if future.exception(30)]
        assert len(error.chain) == 13
        assert error.chain[-1] == "… and 8 more"


def test_it_is_an_error_of_ours_and_pickles():
    error = pickle.loads(pickle.dumps(DeadlockDetected(("a waits for b",))))
    assert isinstance(error, AbreastError)
    assert isinstance(error, RuntimeError)
    assert error.chain == ("a waits for b",)
    assert "a waits for b" in str(error)


def test_a_path_is_shown_one_of_a_class_of_the_users_is_not():
    class OwnPath(PurePosixPath):
        def __str__(self):
            raise AssertionError("code of the user's")

    future = Future()
    future._kwargs = {}
    future._fn, future._args = open, (PurePosixPath("a/b.txt"), OwnPath("c"), [PurePosixPath("x" * 200)])
    text = deadlock.describe_call(future)
    assert text.startswith("open(PurePosixPath('a/b.txt'), <test_a_path_")
    assert "PurePosixPath('xxx" in text
    assert len(text) < 200

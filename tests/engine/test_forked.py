"""A forked child that goes on with a run of its parent's is told; it neither waits for threads that it has not, nor runs tasks twice."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import abreast
import pytest
from abreast import JournalError

from tests.helpers import FREE_THREADED, in_child

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.skipif(
        FREE_THREADED and sys.version_info < (3, 14), reason="3.13t may fork while a thread holds a lock of an object"
    ),
]

processes = pytest.param(
    "process", True, marks=pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far")
)


def double(x):
    return 2 * x


def is_told(error, journal=None):
    kind = RuntimeError if journal is None else JournalError
    return type(error) is kind and "forked" in str(error) and (str(journal) if journal else "run of double") in str(error)


def goes_on(results, values, journal=None):
    """In the child: what is known comes in its turn, then the error; again nothing."""
    try:
        for value, result in zip(values, results, strict=False):
            if result != value:
                return False
    except Exception as error:
        return is_told(error, journal) and list(results) == []
    return False


@pytest.mark.parametrize(("kind", "journaled"), [("serial", False), ("thread", False), ("thread", True), processes])
def test_the_child_gets_an_error_and_the_parent_everything(tmp_path, kind, journaled):
    path = tmp_path / "run.db" if journaled else None
    results = abreast.imap(double, range(100), kind=kind, journal=path, buffersize=4)
    assert next(results) == 0
    assert in_child(lambda: goes_on(results, range(2, 200, 2), path)) == 0
    assert list(results) == list(range(2, 200, 2))


def test_outcomes_never_raise_for_a_task_but_for_this():
    with abreast.outcomes(double, range(100), buffersize=4, ordered=False) as results:
        next(results)

        def child():
            try:
                return all(outcome.ok for outcome in results) and None
            except RuntimeError as error:
                return is_told(error)

        assert in_child(child) == 0
        assert sum(outcome.ok for outcome in results) == 99


def test_with_a_pool_of_the_users():
    with abreast.ThreadPoolExecutor(2) as pool:
        results = abreast.imap(double, range(100), executor=pool, buffersize=4)
        assert next(results) == 0
        assert in_child(lambda: goes_on(results, range(2, 200, 2)) and pool.submit(double, 1).result(10) == 2) == 0
        assert list(results) == list(range(2, 200, 2))


def test_executor_map():
    gate = threading.Event()
    with abreast.ThreadPoolExecutor(1) as pool:
        results = pool.map(lambda x: x == 0 or gate.wait(30), range(3), chunksize=1)
        assert next(results) is True

        def child():
            try:
                list(results)
            except RuntimeError as error:
                return "forked" in str(error)

        assert in_child(child) == 0
        gate.set()
        assert list(results) == [True, True]


def test_what_is_known_to_its_end_comes_to_its_end():
    with abreast.ThreadPoolExecutor(1) as pool:
        results = abreast.imap(double, range(3), executor=pool, chunksize=3)
        assert next(results) == 0
        pool.submit(double, 0).result(30)  # behind that batch
        assert in_child(lambda: list(results) == [2, 4]) == 0
        assert list(results) == [2, 4]


def test_a_run_that_has_not_begun_is_the_childs_own():
    results = abreast.imap(double, range(3))
    assert in_child(lambda: list(results) == [0, 2, 4]) == 0
    assert list(results) == [0, 2, 4]


def test_a_thread_that_holds_the_runs_lock_is_not_waited_for():
    results = abreast.imap(double, range(100), buffersize=4)
    assert next(results) == 0
    held, gate = threading.Event(), threading.Event()

    def hold():
        with results._run._lock, results._run.scope._lock:
            held.set()
            assert gate.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    try:
        assert in_child(lambda: goes_on(results, range(2, 200, 2))) == 0
    finally:
        gate.set()
        thread.join()
    results.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_by_the_inputs_amid_a_map():
    """The child comes back into the run, and is told there."""
    pids = []

    def inputs():
        yield 1
        pids.append(os.fork())
        yield 2

    status = 3
    try:
        results = abreast.map(double, inputs())
    except RuntimeError as error:
        status = 0 if is_told(error) else 2
    finally:
        if pids == [0]:
            os._exit(status)
    assert results == [2, 4]
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0


def test_async():
    async def main():
        results = abreast.aimap(double, range(100), buffersize=4)
        assert await anext(results) == 0

        def child():
            for _ in range(101):
                try:
                    results.__anext__().send(None)
                except StopIteration:
                    continue  # a result
                except RuntimeError as error:
                    return is_told(error)

        assert in_child(child) == 0
        await results.aclose()

    asyncio.run(main())

"""`executor.map`: the standard library's, with one behaviour on every version; for each executor of ours."""

from __future__ import annotations

import itertools
import threading
import time
import weakref

import pytest
from abreast import CancelledError, SerialExecutor, ThreadPoolExecutor

from tests.helpers import FREE_THREADED


def square(x):
    return x * x


@pytest.fixture(params=[ThreadPoolExecutor, SerialExecutor])
def executor(request):
    with request.param(3) as made:
        yield made


def test_in_order(executor):
    assert list(executor.map(square, range(100))) == [square(i) for i in range(100)]


def test_several_iterables_end_with_the_shortest(executor):
    assert list(executor.map(pow, [2, 3, 4], [1, 2])) == [2, 9]


@pytest.mark.parametrize("iterables", [([],), ([], [1]), ()])
def test_nothing(executor, iterables):
    assert list(executor.map(square, *iterables)) == []


@pytest.mark.parametrize("buffersize", [None, 1, 2, 100])
def test_the_same_with_any_buffer(executor, buffersize):
    assert list(executor.map(square, iter(range(20)), buffersize=buffersize)) == [square(i) for i in range(20)]


def test_starts_everything_at_the_call():
    ran = []
    with ThreadPoolExecutor(2) as executor:
        executor.map(ran.append, range(10))
    assert sorted(ran) == list(range(10))


@pytest.mark.parametrize("buffersize", [1, 3])
def test_with_a_buffer_reads_exactly_that_far_ahead(executor, buffersize):
    read = []

    def inputs():
        for i in itertools.count():
            read.append(i)
            yield i

    results = executor.map(square, inputs(), buffersize=buffersize)
    assert len(read) == buffersize
    for taken in range(1, 6):
        next(results)
        assert len(read) == buffersize + taken
    results.close()


def test_inputs_are_read_in_the_thread_that_iterates(executor):
    threads = set()

    def inputs():
        for i in range(9):
            threads.add(threading.get_ident())
            yield i

    assert list(executor.map(square, inputs(), buffersize=2)) == [square(i) for i in range(9)]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("buffersize", [None, 2])
def test_an_error_is_raised_in_its_place_and_ends_the_iterator(executor, buffersize):
    results = executor.map(divmod, [1, 1, 1, 1], [1, 1, 0, 1], buffersize=buffersize)
    assert [next(results), next(results)] == [(1, 0), (1, 0)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_after_an_error_what_has_not_started_is_cancelled():
    ran = []
    gate = threading.Event()

    def task(i):
        if i == 0:
            raise ZeroDivisionError
        gate.wait(30)
        ran.append(i)

    with ThreadPoolExecutor(1) as executor:
        hold = threading.Event()
        executor.submit(hold.wait, 30)
        results = executor.map(task, range(10))
        hold.set()
        with pytest.raises(ZeroDivisionError):
            next(results)
        gate.set()
    assert ran in ([], [1])  # the next one may have begun


def test_closing_cancels_what_has_not_started():
    ran, gate, started = [], threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: (started.set(), gate.wait(30)))
        started.wait(30)
        results = executor.map(ran.append, range(5), timeout=0.01)
        with pytest.raises(TimeoutError):
            next(results)
        gate.set()
    assert ran == []


def test_a_timeout_counts_from_the_call_and_ends_the_iterator():
    with ThreadPoolExecutor(2) as executor:
        gate = threading.Event()
        results = executor.map(lambda wait: wait and gate.wait(30), [False, True, False], timeout=0.2)
        begun = time.monotonic()
        assert next(results) is False
        with pytest.raises(TimeoutError):
            next(results)
        assert 0.1 < time.monotonic() - begun < 5
        assert list(results) == []
        gate.set()


def test_an_iterable_that_raises_cancels_what_was_submitted_and_the_pool_stays_usable(executor):
    def inputs():
        yield 1
        yield 2
        raise LookupError("cursor closed")

    with pytest.raises(LookupError, match="cursor closed"):
        executor.map(square, inputs())
    results = executor.map(square, inputs(), buffersize=1)
    assert next(results) == 1
    with pytest.raises(LookupError, match="cursor closed"):
        list(results)
    assert executor.submit(square, 3).result() == 9


def test_a_shutdown_between_two_reads_is_an_error_never_a_shorter_list():
    executor = ThreadPoolExecutor(1)
    results = executor.map(square, range(5), buffersize=1)
    assert next(results) == 0
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(results)


def test_with_a_buffer_the_executor_lives_as_long_as_the_iterator():
    """The standard library's of 3.14 holds it weakly, and then ends early without a word."""
    assert list(ThreadPoolExecutor(2).map(square, range(20), buffersize=2)) == [square(i) for i in range(20)]


@pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
@pytest.mark.parametrize("buffersize", [None, 2])
def test_results_are_not_kept(executor, buffersize, no_gc):
    class Thing:
        def __init__(self, _):
            pass

    for thing in executor.map(Thing, range(10), buffersize=buffersize):
        gone = weakref.ref(thing)
        del thing
        assert gone() is None


@pytest.mark.skipif(FREE_THREADED, reason="reference counts are merged late there")
def test_an_error_makes_no_cycle(no_gc):
    executor = ThreadPoolExecutor(1)

    class Error(Exception):
        pass

    def fail(_):
        raise Error

    results = executor.map(fail, [1, 2])
    try:
        next(results)
    except Error as error:
        gone = weakref.ref(error)
    executor.submit(int).result()
    del results
    assert gone() is None
    executor.shutdown()


def test_a_cancelled_task_ends_the_iterator():
    with ThreadPoolExecutor(1) as executor:
        made, original = [], executor.submit
        executor.submit = lambda *args: made.append(original(*args)) or made[-1]
        gate = threading.Event()
        results = executor.map(lambda i: gate.wait(30) and i, range(3))
        made[1].cancel()
        gate.set()
        assert next(results) == 0
        with pytest.raises(CancelledError):
            next(results)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"chunksize": 0}, ValueError, "chunksize must be greater than 0, not 0"),
        ({"chunksize": "2"}, TypeError, "chunksize must be an integer"),
        ({"buffersize": 0}, ValueError, "buffersize must be None or > 0, not 0"),
        ({"buffersize": True}, TypeError, "buffersize must be an integer or None, not True"),
        ({"buffersize": 1.5}, TypeError, "buffersize must be an integer or None, not 1.5"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds or None, not '1'"),
    ],
)
def test_wrong_arguments_fail_at_the_call_before_an_input_is_read(executor, options, error, text):
    with pytest.raises(error, match=text):
        executor.map(square, iter(lambda: pytest.fail("read"), 0), **options)


def test_a_function_that_cannot_be_called_and_a_coroutine_function_are_refused(executor):
    async def coroutine(x):
        return x

    with pytest.raises(TypeError, match="fn must be callable, not None"):
        executor.map(None, [1])
    with pytest.raises(TypeError, match="coroutine"):
        executor.map(coroutine, [1])

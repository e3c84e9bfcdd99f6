"""`SerialExecutor`: at once, in the caller."""

from __future__ import annotations

import contextvars
import pickle
import threading

import pytest
from abreast import SerialExecutor

from tests.helpers import in_threads


def square(x):
    return x * x


def test_runs_here_and_now():
    with SerialExecutor() as executor:
        future = executor.submit(threading.current_thread)
        assert future.done()
        assert future.result() is threading.current_thread()


def test_an_error_is_the_futures():
    with SerialExecutor() as executor:
        future = executor.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            future.result()
        assert executor.submit(lambda: (_ for _ in ()).throw(SystemExit)).exception().__class__ is SystemExit


def test_ctrl_c_is_raised():
    def press():
        raise KeyboardInterrupt

    with SerialExecutor() as executor, pytest.raises(KeyboardInterrupt):
        executor.submit(press)


def test_context_does_not_leak():
    variable = contextvars.ContextVar("variable", default=0)
    with SerialExecutor() as executor:
        executor.submit(variable.set, 5)
        assert variable.get() == 0


def test_nested_submits_need_no_worker():
    with SerialExecutor() as executor:
        assert executor.submit(lambda: executor.submit(square, 3).result()).result() == 9


def test_initializer_once_and_its_error_at_the_submit():
    calls = []
    with SerialExecutor(initializer=calls.append, initargs=("x",)) as executor:
        assert list(executor.map(square, [1, 2])) == [1, 4]
        assert calls == ["x"]
    with SerialExecutor(initializer=int, initargs=("x",)) as executor, pytest.raises(ValueError, match="invalid"):
        executor.submit(square, 1)


def test_map_endless_and_an_error_in_the_middle():
    import itertools

    with SerialExecutor() as executor:
        assert list(itertools.islice(executor.map(square, itertools.count(), buffersize=1), 3)) == [0, 1, 4]
        results = executor.map(divmod, [1, 1, 1], [1, 0, 1])
        assert next(results) == (1, 0)
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == []


def test_counts_are_right_when_several_threads_submit(busy_switching):
    with SerialExecutor() as executor:
        in_threads(*[lambda: [executor.submit(int, "x" if i % 2 else "1") for i in range(200)]] * 4)
        now = executor.statistics()
        assert (now.running, now.finished, now.failed) == (0, 400, 400)


def test_after_shutdown():
    executor = SerialExecutor()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_looking():
    with SerialExecutor(max_workers=8) as executor:
        seen = executor.submit(executor.statistics).result()
        executor.submit(int, "x")
        assert (seen.running, seen.finished) == (1, 0)
        now = executor.statistics()
        assert (now.max_workers, now.running, now.finished, now.failed) == (1, 0, 1, 1)
        assert repr(executor) == "<SerialExecutor open: 1 finished, 1 failed>"
    assert repr(executor) == "<SerialExecutor shut down: 1 finished, 1 failed>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(executor)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, not 0"),
        ({"initializer": 5}, TypeError, "initializer must be callable"),
        ({"initargs": "x"}, TypeError, "initargs must be a tuple"),
        ({"thread_name_prefix": "x"}, TypeError, "thread_name_prefix"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        SerialExecutor(**arguments)
    with SerialExecutor() as executor, pytest.raises(TypeError, match="fn must be callable"):
        executor.submit(5)

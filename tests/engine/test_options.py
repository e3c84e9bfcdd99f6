"""The options of runs: wrong ones fail at the call, before an input is read, with a text that says what is wrong."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import sys
import threading
from decimal import Decimal
from typing import get_args

import abreast
import pytest
from abreast import RunOptions, SerialExecutor, TaskOptions, ThreadPoolExecutor
from abreast.core.options import Kind

from tests.engine.stand_ins import WAYS, every_way

pytestmark = pytest.mark.whole  # hardly depends on the version of Python; there the fast set has enough to do


def square(x):
    return x * x


async def coroutine(x):
    return x


def unread():
    pytest.fail("an input has been read")
    yield


def call(name, fn, /, *iterables, **options):
    """Call a function, and do no more: what it raises, it raises at the call."""
    if name == "amap":  # a coroutine function: its call is when it is awaited
        return asyncio.run(abreast.amap(fn, *iterables, **options))
    if name == "aimap":
        return abreast.aimap(fn, *iterables, **options)
    if name.startswith("executor."):
        with ThreadPoolExecutor(1) as executor:
            return getattr(executor, name.removeprefix("executor."))(fn, *iterables, **options)
    return getattr(abreast, name)(fn, *iterables, **options)


NAMES = ["map", "imap", "outcomes", "amap", "aimap"]
everywhere = pytest.mark.parametrize("name", [*NAMES, "executor.imap", "executor.outcomes"])
on_own_pools = pytest.mark.parametrize("name", NAMES)
on_executors = pytest.mark.parametrize("name", ["executor.imap", "executor.outcomes"])


class TestWrong:
    @everywhere
    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"ordred": True}, TypeError, r"there is no option 'ordred' \(given ordred=True\); did you mean 'ordered'\?"),
            ({"chunk_size": 3}, TypeError, "did you mean 'chunksize'"),
            ({"buffer": 3}, TypeError, "did you mean 'buffersize'"),
            ({"time_out": 3}, TypeError, "did you mean 'timeout'"),
            ({"processes": 3}, TypeError, r"no option 'processes' \(given processes=3\); here it is max_workers"),
            ({"n_jobs": 3}, TypeError, "here it is max_workers"),
            ({"return_exceptions": True}, TypeError, r"here it is outcomes\(\), which gives the error of each input"),
            ({"zzz": 1}, TypeError, r"there is no option 'zzz' \(given zzz=1\); the options are: name, .*timeout"),
            (
                {"initializer": print},
                TypeError,
                "initializer=<built-in function print> belongs to a pool: .*constructor.*executor=",
            ),
            ({"initargs": ()}, TypeError, r"initargs=\(\) belongs to a pool"),
            ({"thread_name_prefix": "x"}, TypeError, "thread_name_prefix='x' belongs to a pool"),
            ({"mp_context": None}, TypeError, "mp_context=None belongs to a pool"),
            ({"max_tasks_per_child": 1}, TypeError, "max_tasks_per_child=1 belongs to a pool"),
            ({"max_pending": 1}, TypeError, "max_pending=1 belongs to a pool"),
            ({"max_memory_per_child": 1}, TypeError, "max_memory_per_child=1 belongs to a pool"),
            ({"capture_output": True}, TypeError, "capture_output=True belongs to a pool"),
            ({"buffersize": True}, TypeError, "buffersize must be an integer or None, not True"),
            ({"buffersize": 2.0}, TypeError, r"buffersize must be an integer or None, not 2\.0 \(float\)"),
            ({"buffersize": "2"}, TypeError, r"buffersize must be an integer or None, not '2' \(str\)"),
            ({"buffersize": 0}, ValueError, "buffersize must be greater than 0, not 0"),
            ({"buffersize": -1}, ValueError, "buffersize must be greater than 0, not -1"),
            ({"chunksize": True}, TypeError, "chunksize must be an integer or 'auto', not True"),
            ({"chunksize": 0}, ValueError, "chunksize must be greater than 0, not 0"),
            ({"chunksize": "big"}, ValueError, "chunksize must be an integer or 'auto', not 'big'"),
            ({"chunksize": "8"}, ValueError, "chunksize must be an integer or 'auto', not '8'"),
            ({"chunksize": None}, TypeError, "chunksize must be an integer or 'auto', not None"),
            ({"chunksize": 2.5}, TypeError, r"chunksize must be an integer or 'auto', not 2\.5"),
            ({"timeout": True}, TypeError, "timeout must be a number of seconds or None, not True"),
            ({"timeout": "5"}, TypeError, "timeout must be a number of seconds or None, not '5'"),
            ({"timeout": 0}, ValueError, "timeout must be greater than 0 seconds, not 0"),
            ({"timeout": -3}, ValueError, "timeout must be greater than 0 seconds, not -3"),
            ({"timeout": float("nan")}, ValueError, "timeout must be greater than 0 seconds, not nan"),
            ({"ordered": 1}, TypeError, "ordered must be True or False, not 1"),
            ({"ordered": None}, TypeError, "ordered must be True or False, not None"),
            ({"strict": "yes"}, TypeError, "strict must be True or False, not 'yes'"),
            ({"name": 5}, TypeError, "name must be a string, not 5"),
            ({"retries": True}, TypeError, "retries must be an integer or a Retry, not True"),
            ({"retries": 1.5}, TypeError, r"retries must be an integer or a Retry, not 1\.5 \(float\)"),
            ({"retries": "3"}, TypeError, "retries must be an integer or a Retry, not '3'"),
            ({"retries": None}, TypeError, "retries must be an integer or a Retry, not None"),
            ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
            ({"retry": 1}, TypeError, "did you mean 'retries'"),
            ({"max_per_second": True}, TypeError, "max_per_second must be a number or None, not True"),
            ({"max_per_second": "5"}, TypeError, "max_per_second must be a number or None, not '5'"),
            ({"max_per_second": 0}, ValueError, "max_per_second must be finite and greater than 0, not 0"),
            ({"max_per_second": -2.5}, ValueError, r"max_per_second must be finite and greater than 0, not -2\.5"),
            ({"max_per_second": float("nan")}, ValueError, "max_per_second must be finite and greater than 0, not nan"),
            ({"max_per_second": float("inf")}, ValueError, "max_per_second must be finite and greater than 0, not inf"),
            ({"max_failures": True}, TypeError, "max_failures must be an integer, a share between 0 and 1, or None, not True"),
            ({"max_failures": "5"}, TypeError, "max_failures must be an integer, a share between 0 and 1, or None, not '5'"),
            ({"max_failures": -1}, ValueError, "max_failures must be at least 0, not -1"),
            (
                {"max_failures": 0.0},
                ValueError,
                "max_failures must be an integer of at least 0, or a share between 0 and 1, not 0",
            ),
            ({"max_failures": 5.0}, ValueError, r"a share between 0 and 1, not 5\.0"),
            ({"max_failures": float("nan")}, ValueError, "a share between 0 and 1, not nan"),
        ],
        ids=str,
    )
    def test_is_refused_at_the_call_before_an_input_is_read(self, name, options, error, text):
        with pytest.raises(error, match=text):
            call(name, square, unread(), **options)

    @on_own_pools
    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"max_worker": 3}, TypeError, "did you mean 'max_workers'"),
            ({"max_workers": True}, TypeError, "max_workers must be an integer or None, not True"),
            ({"max_workers": 1.5}, TypeError, r"max_workers must be an integer or None, not 1\.5"),
            ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, not 0"),
            ({"kind": "threads"}, ValueError, "kind must be 'thread', 'process' or 'serial', not 'threads'"),
            ({"kind": None}, ValueError, "kind must be 'thread', 'process' or 'serial', not None"),
            ({"kind": ["thread"]}, ValueError, r"kind must be 'thread', 'process' or 'serial', not \['thread'\]"),
            ({"task_timeout": True}, TypeError, "task_timeout must be a number of seconds or None, not True"),
            ({"task_timeout": 0}, ValueError, "task_timeout must be greater than 0 seconds, not 0"),
            ({"kind": "serial", "task_timeout": 2}, ValueError, "task_timeout=2: kind='serial' cannot end a task"),
            ({"kind": "serial", "max_workers": 2}, ValueError, "max_workers=2: kind='serial' runs one task after another"),
            ({"executor": "pool"}, TypeError, "executor must be a concurrent.futures.Executor, not 'pool'"),
            ({"executor": SerialExecutor(), "max_workers": 3}, TypeError, "max_workers=3 and executor= exclude each other"),
            ({"executor": SerialExecutor(), "kind": "thread"}, TypeError, "kind='thread' and executor= exclude each other"),
            ({"executor": SerialExecutor(), "kind": "process"}, TypeError, "kind='process' and executor= exclude each other"),
            (
                {"task_timeout": 2, "chunksize": 3},
                ValueError,
                "chunksize=3 and task_timeout=2 exclude each other: .*processes can do both",
            ),
            ({"kind": "serial", "task_timeout": 2, "chunksize": 3}, ValueError, "exclude each other"),
            (
                {"executor": SerialExecutor(), "task_timeout": 3},
                TypeError,
                "task_timeout=3: a SerialExecutor cannot end a task",
            ),
            (
                {"executor": concurrent.futures.ThreadPoolExecutor(), "task_timeout": 3},
                TypeError,
                r"task_timeout=3: a concurrent\.futures\.thread\.ThreadPoolExecutor cannot .*; abreast's ThreadPoolExecutor",
            ),
        ],
        ids=lambda value: (
            type(value).__name__ if isinstance(value, dict) else str(value)
        ),  # an executor would have its address in it
    )
    def test_of_the_runs_own_pool_is_refused_at_the_call(self, name, options, error, text):
        with pytest.raises(error, match=text):
            call(name, square, unread(), **options)

    @on_own_pools
    def test_an_executor_that_is_a_class_is_refused_at_the_call(self, name):
        with pytest.raises(TypeError, match="executor must be a concurrent.futures.Executor, not <class"):
            call(name, square, unread(), executor=ThreadPoolExecutor)

    @on_executors
    @pytest.mark.parametrize(
        "options",
        [{"kind": "thread"}, {"executor": None}, {"max_workers": 2}, {"max_workers": None}],
        ids=str,
    )
    def test_what_is_an_executors_own_is_refused_by_its_methods(self, name, options):
        (option,) = options
        with pytest.raises(TypeError, match=f"{option}=.*: it belongs to the executor whose method this is"):
            call(name, square, unread(), **options)

    @on_executors
    def test_an_option_that_an_executors_method_would_refuse_is_not_proposed(self, name):
        with pytest.raises(TypeError, match="there is no option 'max_worker'") as caught:
            call(name, square, unread(), max_worker=3)
        assert "max_workers" not in str(caught.value)

    @everywhere
    @pytest.mark.parametrize("wrong", [None, 5, "text"], ids=repr)
    def test_a_function_that_cannot_be_called(self, name, wrong):
        with pytest.raises(TypeError, match="fn must be callable, not"):
            call(name, wrong, unread())

    @everywhere
    @pytest.mark.parametrize("wrong", [5, None])
    def test_inputs_that_are_none(self, name, wrong):
        with pytest.raises(TypeError, match=r"the inputs must be iterables, not (5 \(int\)|None \(NoneType\))"):
            call(name, square, wrong)

    @everywhere
    def test_no_inputs_at_all(self, name):
        with pytest.raises(TypeError, match="needs at least one iterable of inputs"):
            call(name, square)


class Asynchronous:
    async def __call__(self, x):
        return x

    async def method(self, x):
        return x


class TestPlatforms:
    @on_own_pools
    def test_where_processes_do_not_run_they_are_refused_at_the_call(self, name, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(NotImplementedError, match="kind='process' runs on Linux only so far; kind='thread' runs everywhere"):
            call(name, square, unread(), kind="process")


class TestCoroutineFunctions:
    """A kind that cannot run them refuses them: never a list of coroutine objects."""

    @everywhere
    @pytest.mark.parametrize(
        "fn", [coroutine, functools.partial(coroutine), Asynchronous().method], ids=["function", "partial", "method"]
    )
    def test_are_refused_at_the_call(self, name, fn):
        with pytest.raises(TypeError, match="fn must not be a coroutine function"):
            call(name, fn, unread())

    def test_objects_that_are_called_as_such_are_refused(self):
        results = []
        try:
            with pytest.raises(TypeError, match="coroutine"):
                results += abreast.map(Asynchronous(), [1])
        finally:
            for result in results:
                result.close()

    @pytest.mark.parametrize("kind", get_args(Kind))
    def test_by_every_kind(self, kind):
        with pytest.raises(TypeError, match="coroutine function"):
            abreast.map(coroutine, [1], kind=kind)

    def test_by_executor_map(self):
        for executor in (ThreadPoolExecutor(1), SerialExecutor()):
            with executor, pytest.raises(TypeError, match="coroutine function"):
                executor.map(coroutine, [1])


class TestRight:
    @every_way
    @pytest.mark.parametrize(
        "options",
        [
            {"buffersize": None, "timeout": None, "name": None, "chunksize": "auto"},
            {"chunksize": 3, "timeout": 60, "ordered": True, "strict": True, "name": "squares"},
            {"timeout": 60.5, "progress": False},
        ],
        ids=str,
    )
    def test_is_taken_everywhere(self, run, options):
        assert run(square, [1, 2, 3], **options) == [1, 4, 9]

    @on_own_pools
    @pytest.mark.parametrize(
        "options",
        [
            {"kind": "thread", "max_workers": 2, "task_timeout": 60},
            {"kind": "process", "max_workers": 1, "task_timeout": 60, "chunksize": 3},
            {"kind": "serial", "max_workers": 1},
            {"kind": "serial", "max_workers": None, "task_timeout": None},
            {"executor": None, "max_workers": 3},
            {"executor": SerialExecutor()},
        ],
        ids=str,
    )
    def test_is_taken_by_runs_with_a_pool_of_their_own(self, name, options):
        assert WAYS[name](square, [1, 2, 3], **options) == [1, 4, 9]

    def test_integers_of_other_types_are_integers(self):
        class Two:
            def __index__(self):
                return 2

        assert abreast.map(square, [3], max_workers=Two(), chunksize=Two()) == [9]
        assert list(abreast.imap(square, range(9), buffersize=Two())) == [square(i) for i in range(9)]

    @pytest.mark.parametrize("name", ["map", "imap", "executor.map"])
    def test_seconds_of_other_types_are_seconds(self, name):
        assert list(call(name, square, [3], timeout=Decimal(60))) == [9]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("run", [abreast.map, abreast.imap])
    def test_what_keeps_a_run_from_starting_is_what_is_raised(self, run):
        class Closed(concurrent.futures.Executor):
            @property
            def _max_workers(self):
                raise LookupError("the connection is closed")

        with pytest.raises(LookupError, match="the connection is closed"):
            list(run(square, [1], executor=Closed()))

    def test_every_option_in_the_list_is_taken(self, tmp_path):
        """RunOptions is the one list: what type checkers know of is what runs accept."""
        values = {
            "name": "x", "task_timeout": 60, "kind": "thread", "executor": None, "max_workers": 2, "ordered": True, "buffersize": 5,
            "chunksize": "auto", "timeout": 60, "strict": False, "progress": False, "retries": 2, "max_per_second": 100, "max_failures": 5,
            "journal": tmp_path / "run.db", "key": str,
        }  # fmt: skip
        assert set(values) == set(RunOptions.__annotations__)
        assert set(TaskOptions.__annotations__) < set(values)
        assert [outcome.value for outcome in abreast.outcomes(square, [1], **values)] == [1]

    @pytest.mark.parametrize("name", ["map", "imap", "outcomes", "amap", "aimap"])
    def test_the_first_argument_is_positional(self, name):
        signature = inspect.signature(getattr(abreast, name))
        assert next(iter(signature.parameters.values())).kind is inspect.Parameter.POSITIONAL_ONLY
        assert [parameter.name for parameter in signature.parameters.values()] == ["fn", "iterables", "options"]

    def test_an_executor_given_stays_open(self):
        with ThreadPoolExecutor(2) as executor:
            for _ in range(3):
                assert abreast.map(square, [1, 2], executor=executor) == [1, 4]
                assert list(abreast.imap(square, [1, 2], executor=executor)) == [1, 4]
            assert executor.submit(square, 3).result() == 9

    def test_an_executor_given_runs_the_tasks(self):
        with ThreadPoolExecutor(2, thread_name_prefix="mine") as executor:
            names = abreast.map(lambda _: threading.current_thread().name, range(20), executor=executor)
        assert {name[:4] for name in names} == {"mine"}

    def test_anything_with_a_submit_will_do_as_an_executor(self):
        class Duck:
            def submit(self, fn, *args):
                future = concurrent.futures.Future()
                future.set_result(fn(*args))
                return future

        assert abreast.map(square, range(10), executor=Duck()) == [square(i) for i in range(10)]

    def test_an_executor_that_is_shut_down_is_an_error_of_the_run(self):
        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            abreast.map(square, [1], executor=executor)
        for results in (abreast.imap(square, [1], executor=executor), executor.imap(square, [1]), executor.outcomes(square, [1])):
            with pytest.raises(RuntimeError, match="after shutdown"):
                next(results)

"""Each task runs in its own copy of the context at submit, and knows which task it is."""

from __future__ import annotations

import contextvars
import threading

import abreast
import pytest

from tests.engine.stand_ins import PATIENCE, Gate, Inline, Inputs, Recording, every_way, join_threads, kinds, value

var = contextvars.ContextVar("var", default="default")
other = contextvars.ContextVar("other", default="default")


@pytest.fixture(autouse=True)
def fresh_context(request):
    """Each test in a context of its own: what it sets is its."""
    token = var.set("default")
    yield
    var.reset(token)


def look(_=None):
    return var.get()


def look_and_set(x):
    before = var.get(), other.get()
    var.set(x)
    other.set(x)
    return before


class TestContext:
    @every_way
    @kinds
    def test_a_task_sees_what_its_caller_has_set(self, run, kind):
        var.set("mine")
        assert run(look, range(20), kind=kind) == ["mine"] * 20

    @every_way
    @kinds
    @pytest.mark.parametrize("chunksize", ["auto", 1, 10])
    def test_what_a_task_sets_does_not_leak_into_the_next_nor_to_the_caller(self, run, kind, chunksize):
        var.set("mine")
        assert run(look_and_set, range(200), kind=kind, chunksize=chunksize, max_workers=1) == [("mine", "default")] * 200
        assert (var.get(), other.get()) == ("mine", "default")

    @every_way
    @kinds
    def test_nothing_leaks_where_the_callers_context_is_empty(self, run, kind):
        assert contextvars.Context().run(run, look_and_set, range(20), kind=kind, max_workers=1) == [("default", "default")] * 20

    @every_way
    @kinds
    def test_nothing_leaks_from_a_task_that_fails(self, run, kind):
        def fail_late(x):
            before = look_and_set(x)
            if x == 3:
                raise KeyError(before)
            return before

        with pytest.raises(KeyError) as caught:
            run(fail_late, range(5), kind=kind, max_workers=1, chunksize=5)
        assert caught.value.args == (("default", "default"),)

    def test_a_context_variable_can_be_reset_by_the_task_that_set_it(self):
        def set_and_reset(x):
            token = var.set(x)
            var.reset(token)
            return var.get()

        assert abreast.map(set_and_reset, range(10)) == ["default"] * 10

    @kinds
    def test_it_is_the_context_of_the_moment_the_input_is_read(self, kind):
        results = abreast.imap(look, range(4), kind=kind, buffersize=1)
        var.set("first")
        assert next(results) == "first"  # the second has been read with it
        var.set("second")
        assert [next(results), next(results)] == ["first", "second"]
        results.close()

    @pytest.mark.parametrize("make", [lambda: Recording(2), Inline], ids=["threads", "inline"])
    def test_on_the_executors_of_others_too(self, make):
        var.set("mine")
        assert set(abreast.map(look_and_set, range(50), executor=make())) == {("mine", "default")}
        assert var.get() == "mine"

    def test_that_a_batch_hands_back_is_kept_with_it(self):
        """Tasks that are started by the thread that completes another batch."""
        var.set("mine")
        with abreast.ThreadPoolExecutor(2) as executor:
            assert list(executor.map(look_and_set, range(3000))) == [("mine", "default")] * 3000

    def test_of_executor_map_is_that_of_the_call(self):
        gate = threading.Event()
        var.set("call")
        with abreast.ThreadPoolExecutor(1) as executor:
            executor.submit(gate.wait, PATIENCE)
            results = executor.map(look, range(5))
            var.set("later")
            gate.set()
            assert list(results) == ["call"] * 5

    def test_nested_runs_hand_it_on(self):
        var.set("outer")

        def outer(x):
            var.set(x)
            return abreast.map(look, range(2))

        assert abreast.map(outer, ["a", "b"]) == [["a", "a"], ["b", "b"]]


def who(_=None):
    task = abreast.current_task()
    return task and (task.name, task.index, task.attempt, task.cancelled)


class TestCurrentTask:
    @every_way
    @kinds
    @pytest.mark.parametrize("chunksize", ["auto", 1, 7])
    def test_knows_its_name_index_and_attempt(self, run, kind, chunksize):
        got = run(who, range(100), kind=kind, chunksize=chunksize)
        assert got == [("who", i, 1, False) for i in range(100)]

    def test_has_the_name_given(self):
        assert abreast.map(who, [0], name="page") == [("page", 0, 1, False)]

    @kinds
    def test_there_is_none_outside(self, kind):
        assert who() is None
        abreast.map(who, range(3), kind=kind)
        assert who() is None

    @kinds
    def test_after_a_task_that_failed_it_is_the_next(self, kind):
        def task(i):
            if i % 2:
                raise KeyError(who()[1])
            return who()[1]

        got = abreast.outcomes(task, range(20), kind=kind, chunksize=20, max_workers=1)
        assert [outcome.error.args[0] if outcome.error else outcome.value for outcome in got] == list(range(20))

    @kinds
    def test_of_an_inner_run_is_its_own_and_then_the_outer_ones_again(self, kind):
        def outer(_):
            return who()[:2], abreast.map(who, [0], name="inner", kind=kind)[0][:2], who()[:2]

        assert abreast.map(outer, [0, 0], name="outer", kind=kind)[1] == (("outer", 1), ("inner", 0), ("outer", 1))

    @pytest.mark.parametrize("make", [lambda: Recording(2), Inline], ids=["threads", "inline"])
    def test_on_the_executors_of_others_too(self, make):
        assert [index for _, index, _, _ in abreast.map(who, range(50), executor=make())] == list(range(50))
        assert who() is None

    def test_is_cancelled_when_its_run_is_ended(self):
        seen = []
        inputs = Inputs(1)
        with Gate() as gate:

            def task(i):
                if i == 0:
                    inputs.wait()
                elif i == 1:
                    gate(i)
                    seen.append(abreast.current_task().cancelled)

            with abreast.imap(task, inputs, max_workers=2, chunksize=1, name="asked") as results:
                next(results)
                gate.wait_started(1)
            gate.open()
            join_threads("asked")
        assert seen == [True]

    def test_is_cancelled_when_another_task_has_failed(self):
        seen = []
        with Gate() as gate:

            def task(i):
                if i == 1:
                    gate.wait_started(0)
                    raise KeyError
                gate(i)
                seen.append(abreast.current_task().cancelled)

            with pytest.raises(KeyError):
                abreast.map(task, range(2), max_workers=2, chunksize=1, name="asked")
            gate.open()
            join_threads("asked")
        assert seen == [True]

    def test_is_not_cancelled_because_results_are_taken_to_the_end(self):
        task = abreast.map(lambda _: abreast.current_task(), [0])[0]
        assert not task.cancelled

    def test_a_run_inside_a_cancelled_one_is_cancelled(self):
        """What was given up asks all that it contains to end."""
        ended = []
        with Gate() as gate:

            def inner(i):
                gate(i)
                return i

            def outer(i):
                if i == 1:
                    gate.wait_started(0)
                    raise KeyError
                try:
                    abreast.map(inner, range(5), max_workers=1, name="inner")
                except abreast.CancelledError as error:
                    ended.append(str(error))

            with pytest.raises(KeyError):
                abreast.map(outer, [0, 1], max_workers=2, chunksize=1, name="outer")
            join_threads("outer")  # it need not wait for the task inside, which still runs
            assert len(ended) == 1
            assert "inner was cancelled" in ended[0]
            gate.open()
            join_threads("inner")
            assert gate.started == [0]


def test_value_is_that_of_an_outcome():
    """The helper that makes ways alike."""
    assert value(next(abreast.outcomes(abs, [-1]))) == 1

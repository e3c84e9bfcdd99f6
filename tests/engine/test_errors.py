"""What a task raises, what an input iterator raises, and Ctrl-C: where it is raised, with what note, and what still runs."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import CancelledError
from contextlib import suppress

import abreast
import pytest

from tests.engine.stand_ins import (
    LAZY,
    PATIENCE,
    WAYS,
    Backwards,
    Gate,
    Inline,
    every_way,
    join_threads,
    kinds,
    lazily,
    value,
)
from tests.helpers import in_threads, run_python


class Bad(Exception):
    pass


def ways(*names, of=WAYS):
    return [pytest.param(of[name], id=name) for name in names]


raising_in_order = pytest.mark.parametrize("start", ways("imap", "aimap", "executor.imap", of=LAZY))


def fails_at(*bad):
    ran = []

    def task(i):
        ran.append(i)
        if i in bad:
            raise Bad(i)
        return i

    return task, ran


def wait_failed(results, failures=1):
    end = time.monotonic() + PATIENCE
    while results.summary().failures < failures:
        assert time.monotonic() < end
        time.sleep(0)


class TestInOrder:
    @raising_in_order
    @kinds
    @pytest.mark.parametrize("options", [{"chunksize": 1}, {"chunksize": 5}, {"buffersize": 3}, {}], ids=str)
    def test_what_comes_before_is_yielded_then_the_error_is_raised_then_it_ends(self, start, kind, options):
        task, _ = fails_at(7)
        results = start(task, range(100), kind=kind, **options)
        assert [next(results) for _ in range(7)] == list(range(7))
        with pytest.raises(Bad) as caught:
            next(results)
        assert caught.value.args == (7,)
        assert list(results) == []
        results.close()

    @raising_in_order
    def test_no_task_behind_it_is_started_and_what_is_before_it_is_waited_for(self, start):
        """Two workers: one is held at 0, the other fails at 1 and has 2 and 3 waiting behind it."""
        with Gate() as gate:

            def task(i):
                gate.started.append(i) if i else gate(i)
                if i == 1:
                    raise Bad
                return i

            results = start(task, itertools.count(), max_workers=2, chunksize=1, name="order")
            in_threads(lambda: (wait_failed(results), gate.let(0)), lambda: value(next(results)))
            with pytest.raises(Bad):
                next(results)
            results.close()
            join_threads("order")
        assert sorted(gate.started) == [0, 1]

    @kinds
    def test_what_stands_behind_it_in_its_batch_is_not_started(self, kind):
        task, ran = fails_at(2)
        results = abreast.imap(task, range(100), kind=kind, chunksize=100, max_workers=1)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(Bad):
            next(results)
        assert ran == [0, 1, 2]

    def test_what_runs_behind_it_is_not_waited_for_and_is_asked_to_end(self):
        with Gate() as gate:
            asked = []

            def task(i):
                if i == 0:
                    gate.wait_started(1, 2)
                    raise Bad
                gate(i)
                asked.append(abreast.current_task().cancelled)

            with pytest.raises(Bad):
                next(abreast.imap(task, itertools.count(), max_workers=3, chunksize=1, name="behind"))
            gate.open()
            join_threads("behind")
            assert sorted(gate.started) == [1, 2]
            assert asked == [True, True]

    def test_of_several_errors_the_first_in_order_is_raised(self):
        task, _ = fails_at(1, 2, 3)
        results = abreast.imap(task, range(4), executor=Backwards(4), chunksize=1)
        assert next(results) == 0
        with pytest.raises(Bad) as caught:
            next(results)
        assert caught.value.args == (1,)

    def test_an_error_that_would_come_later_is_not_raised_to_a_consumer_that_stops_before(self):
        task, _ = fails_at(5)
        with abreast.imap(task, range(10), max_workers=2) as results:
            assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]

    def test_a_task_that_fails_in_an_inline_executor_ends_the_run_there(self):
        task, ran = fails_at(3)
        results = abreast.imap(task, itertools.count(), executor=Inline(), chunksize=1)
        assert list(itertools.islice(results, 3)) == [0, 1, 2]
        with pytest.raises(Bad):
            next(results)
        assert ran == [0, 1, 2, 3]


class TestAtOnce:
    """`map` and unordered runs raise an error as soon as it is known."""

    def held_and_failing(self, gate):
        def task(i):
            if i == 1:
                gate.wait_started(0)
                raise Bad
            return gate(i)

        return task

    @pytest.mark.parametrize("run", ways("map", "amap"))
    @pytest.mark.parametrize("ordered", [True, False])
    def test_map_raises_while_a_task_before_it_still_runs(self, run, ordered):
        with Gate() as gate:
            with pytest.raises(Bad):
                run(self.held_and_failing(gate), itertools.count(), max_workers=2, chunksize=1, ordered=ordered, name="once")
            gate.open()
            join_threads("once")
            assert gate.started == [0]  # what waited has been cancelled; what ran was left behind

    @raising_in_order
    def test_unordered_raises_while_a_task_before_it_still_runs(self, start):
        with Gate() as gate:
            results = start(
                self.held_and_failing(gate), itertools.count(), max_workers=2, chunksize=1, ordered=False, name="once"
            )
            with pytest.raises(Bad):
                next(results)
            gate.open()
            results.close()
            join_threads("once")
            assert gate.started == [0]

    @every_way
    @kinds
    @pytest.mark.parametrize("options", [{}, {"chunksize": 4}, {"ordered": False}], ids=str)
    def test_every_way_to_run_raises_it(self, run, kind, options):
        task, _ = fails_at(9)
        with pytest.raises(Bad) as caught:
            run(task, range(30), kind=kind, **options)
        assert caught.value.args == (9,)

    @kinds
    def test_map_ends_over_endless_inputs(self, kind):
        task, _ = fails_at(500)
        with pytest.raises(Bad):
            abreast.map(task, itertools.count(), kind=kind)

    def test_results_that_had_come_before_it_may_be_lost_but_the_error_never_is(self):
        task, _ = fails_at(0)
        assert list(abreast.outcomes(task, range(3)))[0].error.args == (0,)
        with pytest.raises(Bad):
            list(abreast.imap(task, range(3), ordered=False))

    def test_the_users_executor_stays_usable(self):
        task, _ = fails_at(0)
        with abreast.ThreadPoolExecutor(2) as executor:
            for _ in range(20):
                with pytest.raises(Bad):
                    abreast.map(task, range(50), executor=executor)
            assert list(executor.imap(abs, [-1])) == [1]


class TestOutcomes:
    """`outcomes` never raises a task's error."""

    @pytest.mark.parametrize("start", ways("outcomes", "executor.outcomes", of=LAZY))
    @kinds
    @pytest.mark.parametrize("options", [{}, {"chunksize": 7}, {"buffersize": 2}, {"ordered": False}], ids=str)
    def test_goes_on_after_every_error(self, start, kind, options):
        task, ran = fails_at(*range(0, 60, 3))
        results = start(task, range(60), kind=kind, **options)
        got = sorted(results, key=lambda outcome: outcome.index)
        assert [outcome.index for outcome in got] == list(range(60))
        assert [outcome.ok for outcome in got] == [i % 3 != 0 for i in range(60)]
        assert all(isinstance(outcome.error, Bad) and outcome.error.args == (outcome.index,) for outcome in got if not outcome.ok)
        assert sorted(ran) == list(range(60))
        assert results.summary().failures == 20
        results.close()

    @pytest.mark.parametrize(
        "error", [SystemExit(3), GeneratorExit(), CancelledError(), StopIteration(), StopAsyncIteration()], ids=repr
    )
    def test_whatever_is_raised(self, error):
        def task(i):
            if i == 1:
                raise error
            return i

        got = list(abreast.outcomes(task, range(3), max_workers=1))
        assert [outcome.error for outcome in got] == [None, error, None]
        assert [outcome.attempts for outcome in got] == [1, 1, 1]

    def test_keyboard_interrupt_of_a_thread_too(self):
        def task(i):
            if i == 1:
                raise KeyboardInterrupt

        assert [type(outcome.error) for outcome in abreast.outcomes(task, range(3))] == [
            type(None),
            KeyboardInterrupt,
            type(None),
        ]

    def test_no_note_is_added(self):
        task, _ = fails_at(0)
        (outcome,) = abreast.outcomes(task, [0])
        assert not hasattr(outcome.error, "__notes__")


class TestTheError:
    @every_way
    @kinds
    def test_is_the_one_that_was_raised(self, run, kind):
        error = Bad()

        def task(_):
            raise error

        with pytest.raises(Bad) as caught:
            run(task, [1], kind=kind)
        assert caught.value is error

    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), KeyboardInterrupt(), CancelledError()], ids=repr)
    @pytest.mark.parametrize("run", ways("map", "imap"))
    def test_may_be_any_exception(self, run, error):
        def task(_):
            raise error

        with pytest.raises(type(error)) as caught:
            list(run(task, [1]))
        assert caught.value is error

    @pytest.mark.parametrize("name", ["imap", "executor.imap"])
    @kinds
    def test_that_is_a_stop_iteration_does_not_end_the_iteration_silently(self, name, kind):
        def task(i):
            return next(iter([i] if i != 1 else []))  # the classic slip

        results = LAZY[name](task, range(3), kind=kind, max_workers=1)
        with pytest.raises((RuntimeError, StopIteration)) as caught:
            assert [result for result in results] == [0]  # noqa: C416
            raise AssertionError("it ended without a word")
        assert isinstance(caught.value, RuntimeError)
        results.close()

    def test_that_is_a_stop_iteration_does_not_pass_for_a_list_that_ended(self):
        def task(i):
            return next(iter([i] if i != 1 else []))

        with pytest.raises((RuntimeError, StopIteration)):
            abreast.map(task, range(3))

    def test_that_is_a_stop_async_iteration_does_not_end_the_iteration_silently(self):
        def task(i):
            if i == 1:
                raise StopAsyncIteration
            return i

        results = LAZY["aimap"](task, range(3), max_workers=1)
        try:
            with pytest.raises(RuntimeError):
                list(results)
        finally:
            results.close()

    @pytest.mark.parametrize("run", ways("map", "imap"))
    @kinds
    def test_has_a_traceback_that_leads_to_the_users_line_and_not_through_our_workers(self, run, kind):
        def fail(_):
            raise Bad("here")

        with pytest.raises(Bad) as caught:
            list(run(fail, [1], kind=kind))
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-1] == "fail"
        assert not {"run_batch", "_run_tasks", "_serve"} & set(names)

    def test_keeps_its_cause_and_its_notes(self):
        def task(_):
            error = Bad()
            error.add_note("mine")
            raise error from KeyError(1)

        with pytest.raises(Bad) as caught:
            abreast.map(task, [1])
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.__notes__[0] == "mine"
        assert len(caught.value.__notes__) == 2


def note_of(run, *arguments, **options):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        list(run(*arguments, **options))
    return caught.value.__notes__[-1]


class TestNote:
    @pytest.mark.parametrize("run", ways("map", "amap", "imap", "aimap", "executor.imap"))
    @kinds
    def test_names_function_index_input_attempt_and_worker(self, run, kind):
        def halve(x):
            return 8 / x

        note = note_of(run, halve, [4, 2, 0], kind=kind, max_workers=1, chunksize=1)
        worker = r"\S+_0" if kind == "thread" else "MainThread"
        assert re.fullmatch(rf"abreast: raised by \S*halve\(0\): input 2, attempt 1, on {worker}", note)

    def test_names_the_tasks_as_the_option_does(self):
        assert note_of(abreast.map, lambda x: 1 / x, [0], name="share").startswith("abreast: raised by share(0): input 0, ")

    @pytest.mark.parametrize("run", ways("map", "imap"))
    def test_shows_all_arguments_of_several_iterables(self, run):
        assert "divmod(1, 0): input 1" in note_of(run, divmod, [1, 1], [1, 0])

    def test_shows_an_input_that_is_a_tuple_as_one(self):
        assert "int((1, 2)): input 0" in note_of(abreast.map, int, [(1, 2)])

    def test_shortens_long_inputs(self):
        note = note_of(abreast.map, int, ["x" * 100_000])
        assert len(note) < 200
        assert "..." in note

    def test_survives_an_input_whose_repr_raises(self):
        class Shy:
            def __repr__(self):
                raise OSError

        note = note_of(abreast.map, int, [Shy()])
        assert "input 0" in note
        assert "Shy" in note

    def test_counts_further_failures(self):
        task, _ = fails_at(1, 2, 3)
        results = abreast.imap(task, range(4), executor=Backwards(4), chunksize=1)
        assert next(results) == 0
        assert note_of(lambda: results).endswith("; 2 further tasks failed")

    def test_counts_one_further_failure(self):
        task, _ = fails_at(0, 1)
        assert note_of(abreast.imap, task, range(2), executor=Backwards(2), chunksize=1).endswith("; 1 further task failed")

    def test_says_nothing_of_further_failures_where_there_are_none(self):
        task, _ = fails_at(1)
        assert "further" not in note_of(abreast.map, task, range(4))

    def test_is_printed_with_the_traceback(self):
        done = run_python("""
            import abreast
            abreast.map(int, ["1", "one"], name="number")
        """)
        assert done.returncode == 1
        assert done.stderr.rstrip().splitlines()[-2] == "ValueError: invalid literal for int() with base 10: 'one'"
        assert re.fullmatch(r"abreast: raised by number\('one'\): input 1, attempt 1, on number_\d", done.stderr.splitlines()[-1])


class Closed(Exception):
    pass


def closing_at(count):
    yield from range(count)
    raise Closed("the cursor is closed")


class TestInputsThatRaise:
    @lazily
    @kinds
    @pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 4}, {"buffersize": 3}], ids=str)
    def test_what_was_read_before_is_delivered_then_the_error_is_raised_then_it_ends(self, start, kind, options):
        results = start(abs, closing_at(10), kind=kind, **options)
        assert [value(next(results)) for _ in range(10)] == list(range(10))
        with pytest.raises(Closed, match="the cursor is closed"):
            next(results)
        assert list(results) == []
        results.close()

    @pytest.mark.parametrize("start", ways("imap", "outcomes", "aimap", of=LAZY))
    def test_unordered_too(self, start):
        results = start(abs, closing_at(10), ordered=False)
        assert sorted(value(next(results)) for _ in range(10)) == list(range(10))
        with pytest.raises(Closed):
            next(results)
        results.close()

    @pytest.mark.parametrize("run", ways("map", "amap"))
    @kinds
    def test_of_map_everything_that_was_read_is_run_before_it_is_raised(self, run, kind):
        ran = []
        with pytest.raises(Closed):
            run(ran.append, closing_at(10), kind=kind)
        assert sorted(ran) == list(range(10))

    @every_way
    def test_at_the_first_read(self, run):
        with pytest.raises(Closed):
            run(abs, closing_at(0))

    @every_way
    def test_in_iter(self, run):
        class Inputs:
            def __iter__(self):
                raise Closed

        with pytest.raises(Closed):
            run(abs, Inputs())

    def test_waits_for_what_runs(self):
        with Gate() as gate:
            results = abreast.imap(gate, closing_at(2), max_workers=2, chunksize=1)
            in_threads(lambda: (gate.wait_started(0, 1), gate.open()), lambda: [next(results), next(results)])
            with pytest.raises(Closed):
                next(results)

    def test_a_tasks_error_before_it_goes_first(self):
        task, _ = fails_at(1)
        results = abreast.imap(task, closing_at(3), max_workers=1)
        assert next(results) == 0
        with pytest.raises(Bad):
            next(results)
        assert list(results) == []

    @every_way
    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_what_is_meant_for_the_program_is_raised_at_once(self, run, error):
        def inputs():
            yield 1
            raise error

        with Gate() as gate, pytest.raises(error):
            run(gate, inputs(), max_workers=1)

    def test_of_several_iterables_any_may(self):
        results = abreast.imap(divmod, [4, 6, 8], (2 if i else Closed and 1 for i in closing_at(2)))
        assert [next(results), next(results)] == [(4, 0), (3, 0)]
        with pytest.raises(Closed):
            next(results)


class TestCtrlC:
    """A real signal to a real process whose main thread waits for tasks that hang."""

    @pytest.mark.parametrize(
        "line",
        [
            "abreast.map(stuck, range(9), max_workers=2)",
            "abreast.map(stuck, itertools.count(), max_workers=2, task_timeout=60, timeout=60)",
            "next(abreast.imap(stuck, itertools.count()))",
            "list(abreast.outcomes(stuck, range(9), ordered=False))",
            "asyncio.run(abreast.amap(stuck, range(9)))",
            "abreast.map(stuck, range(9), kind='serial')",
            "abreast.map(lambda i: abreast.map(stuck, [i]), range(3))",
            "with abreast.ThreadPoolExecutor(2) as executor: list(executor.imap(stuck, range(9)))",
            "with abreast.imap(stuck, range(9)) as results: next(results)",
            "abreast.map(stuck, range(9), progress=print)",
        ],
    )
    def test_ends_the_program_within_a_second(self, line):
        program = subprocess.Popen(
            [sys.executable, "-c", f"""if 1:
                import asyncio, itertools, os, threading
                import abreast
                forever = threading.Event()
                def stuck(_):
                    os.write(1, b"started\\n")
                    forever.wait()
                {line}
            """],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert program.stdout.readline() == "started\n"
            for _ in range(20):  # the main thread may not have come to where it waits: the signal is for whatever it does
                begun = time.monotonic()
                program.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    program.wait(1)
                    break
            took = time.monotonic() - begun
        finally:
            program.kill()
            _, stderr = program.communicate()
        assert program.returncode in (-signal.SIGINT, 130), stderr
        assert "KeyboardInterrupt" in stderr
        assert took < 1

    def test_cancels_what_waits_and_leaves_behind_what_runs(self):
        ended = threading.Event()

        def interrupt():
            gate.wait_started(0, 1)
            while True:  # one that comes just before the wait begins is seen only after it
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                if ended.wait(1):
                    return

        with Gate() as gate:
            killer = threading.Thread(target=interrupt)
            killer.start()
            with pytest.raises(KeyboardInterrupt):
                abreast.map(gate, range(20), max_workers=2, chunksize=1, name="stopped")
            ended.set()
            killer.join()
            gate.open()
            join_threads("stopped")
            assert sorted(gate.started) == [0, 1]

    def test_the_end_of_the_program_does_not_wait_for_what_was_left_behind(self):
        """By an error, a timeout, a consumer that stops early: nobody is interested any more."""
        done = run_python("""
            import itertools, threading, abreast
            forever = threading.Event()
            def task(i):
                return i if i == 0 else 1 / 0 if i == 3 else forever.wait()
            try:
                abreast.map(task, range(4), max_workers=4)
            except ZeroDivisionError:
                print("error")
            try:
                abreast.map(task, range(3), timeout=0.1)
            except TimeoutError:
                print("timeout")
            for _ in abreast.imap(task, itertools.count(), max_workers=2):
                break
            print("end")
        """)
        assert (done.returncode, done.stdout, done.stderr) == (0, "error\ntimeout\nend\n", "")

    def test_the_end_of_the_program_joins_the_threads_that_are_at_work(self):
        """What executor.map has started is run, although nobody asks for it."""
        done = run_python("""
            import time, abreast
            executor = abreast.ThreadPoolExecutor(2)
            results = executor.map(lambda i: (time.sleep(0.02), print(f"<{i}>", end="")), range(10))
        """)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(done.stdout[1:-1].split("><")) == list("0123456789")

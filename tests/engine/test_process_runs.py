"""Runs on real processes: every way to start one; what dies, fails or hangs costs its task alone, and each task runs once."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import abreast
import pytest
from abreast import Outcome, ProcessPoolExecutor, TaskError, TaskPickleError, TaskTimeout, WorkerCrashed
from abreast.engine.workers import open_pool
from abreast.executors.process.pool import usable_cores

from tests.engine.stand_ins import FromAsync, value
from tests.helpers import run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.slow,  # minutes: run before an issue closes
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 20
variable = contextvars.ContextVar("variable", default=0)


# ---- what tasks do


def square(x):
    return x * x


def divide(x):
    return 6 / x


def pid_of(_):
    return os.getpid()


def hang(_=None):
    threading.Event().wait(60)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def exit_at_once():
    os._exit(3)


def exit_at_5(x):
    return os._exit(3) if x == 5 else x


def raise_error(error):
    raise error


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

    __hash__ = None


class Demanding(Exception):
    """Cannot be unpickled: its constructor wants more than it hands on."""

    def __init__(self, code, text):
        super().__init__(f"{text} {code}")


class Breaks:
    """Does `what` when it is unpickled."""

    def __init__(self, what, *args):
        self.what, self.args = what, args

    def __reduce__(self):
        return self.what, self.args


class Witness:
    """An append-only file: what tasks write down is whole, in whatever process, and however that ends."""

    def __init__(self, path):
        self.path = str(path)

    def note(self, what):
        """Takes long enough to be no tiny task, which may run again when its worker dies (F44; test_batches.py)."""
        end = time.perf_counter() + 200e-6
        while time.perf_counter() < end:
            pass
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, f"{what}\n".encode())
        finally:
            os.close(fd)

    def seen(self):
        return [int(line) for line in Path(self.path).read_text().split()] if os.path.exists(self.path) else []

    def wait_for(self, count=1):
        until(lambda: len(self.seen()) >= count)
        return self.seen()


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path / "witness")


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


# ---- every way to start a run


def _to_list(results):
    with results:
        return [value(result) for result in results]


def _aimap(fn, *iterables, **options):
    results = FromAsync(lambda: abreast.aimap(fn, *iterables, **options))
    try:
        return list(results)
    finally:
        results.close()


def _on_executor(method):
    def run(fn, *iterables, **options):
        with ProcessPoolExecutor(options.pop("max_workers", None)) as executor:
            return [value(result) for result in getattr(executor, method)(fn, *iterables, **options)]

    return run


def on_processes(run):
    return lambda fn, *iterables, **options: run(fn, *iterables, **{"kind": "process", "max_workers": 2, **options})


FUNCTIONS = {
    "map": abreast.map,
    "imap": lambda *args, **options: _to_list(abreast.imap(*args, **options)),
    "outcomes": lambda *args, **options: _to_list(abreast.outcomes(*args, **options)),
    "amap": lambda *args, **options: asyncio.run(abreast.amap(*args, **options)),
    "aimap": _aimap,
}
WAYS = {name: on_processes(run) for name, run in FUNCTIONS.items()}
METHODS = {f"executor.{name}": _on_executor(name) for name in ("map", "imap", "outcomes")}

every_function = pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)
every_way = pytest.mark.parametrize("run", {**WAYS, **METHODS}.values(), ids={**WAYS, **METHODS})
in_both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
sizes = pytest.mark.parametrize("chunksize", ["auto", 1, 7])


class TestResults:
    @every_way
    def test_are_those_of_the_function_in_order(self, run):
        assert run(square, range(700)) == [x * x for x in range(700)]

    @every_function
    def test_come_unordered_on_request(self, run):
        assert sorted(run(square, range(300), ordered=False)) == [x * x for x in range(300)]

    @every_way
    def test_are_objects_again(self, run):
        assert run(Point, range(5)) == [Point(x) for x in range(5)]

    @every_way
    def test_order_is_that_of_inputs_of_uneven_length(self, run):
        assert run(lambda x: (time.sleep(x % 3 / 1000), x)[1], range(60)) == list(range(60))

    @every_way
    def test_a_lambda_with_what_it_closes_over(self, run):
        offset = 10
        assert run(lambda x: x + offset, [1, 2]) == [11, 12]

    @every_way
    def test_several_iterables(self, run):
        assert run(pow, [2, 3, 5], [5, 2]) == [32, 9]

    @every_function
    def test_strict_iterables(self, run):
        assert run(pow, [2, 3], [5, 2], strict=True) == [32, 9]
        with pytest.raises(ValueError, match="differ|length|shorter|longer"):
            run(pow, [2, 3, 5], [5, 2], strict=True)

    @every_way
    def test_no_inputs(self, run):
        assert run(square, []) == []

    @every_function
    def test_a_generator_is_read_in_this_thread(self, run):
        threads = set()

        def inputs():
            for x in range(50):
                threads.add(threading.get_ident())
                yield x

        assert run(square, inputs()) == [x * x for x in range(50)]
        assert threads == {threading.get_ident()}

    @in_both_orders
    def test_endless_inputs_are_read_as_results_are_taken(self, ordered):
        numbers = itertools.count()
        with abreast.imap(square, numbers, kind="process", max_workers=2, ordered=ordered, buffersize=10) as results:
            taken = [next(results) for _ in range(30)]
        assert next(numbers) <= 30 + 10
        assert set(taken) <= {x * x for x in range(40)}
        assert not ordered or taken == [x * x for x in range(30)]

    @pytest.mark.parametrize("chunksize", ["auto", 1, 3, 1000])
    @in_both_orders
    def test_each_task_runs_once_whatever_the_size_of_batches(self, chunksize, ordered, witness):
        results = abreast.imap(witness.note, range(200), kind="process", max_workers=2, chunksize=chunksize, ordered=ordered)
        assert list(results) == [None] * 200
        assert sorted(witness.seen()) == list(range(200))

    def test_the_main_script_needs_no_guard(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import abreast\nprint('begins', flush=True)\ndef double(x): return 2 * x\n"
            "print(abreast.map(double, range(4), kind='process'))\n"
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.stderr) == ("begins\n[0, 2, 4, 6]\n", "")


class TestWorkers:
    def test_run_tasks_elsewhere_and_are_as_many_as_asked_for(self):
        pids = set(abreast.map(pid_of, range(100), kind="process", max_workers=2, chunksize=1))
        assert os.getpid() not in pids
        assert 1 <= len(pids) <= 2

    @pytest.mark.parametrize(("asked", "inputs", "count"), [(None, None, usable_cores()), (None, 1, 1), (5, 2, 2), (3, None, 3)])
    def test_are_the_usable_cores_by_default_and_never_more_than_inputs(self, asked, inputs, count):
        workers = open_pool("process", asked, name="x", inputs=inputs, task_timeout=None)
        assert workers.count == workers.executor._max_workers == count
        workers.end(abandon=False)

    def test_end_with_the_run(self):
        pids = abreast.map(pid_of, range(20), kind="process", max_workers=2)
        assert all(map(is_gone, pids))

    def test_are_named_by_outcomes_with_how_long_they_took(self):
        outcomes = list(abreast.outcomes(pid_of, range(20), kind="process", max_workers=2))
        assert [outcome.worker for outcome in outcomes] == [f"process {outcome.value}" for outcome in outcomes]
        assert all(0 < outcome.duration < PATIENCE and outcome.attempts == 1 for outcome in outcomes)
        assert [outcome.index for outcome in outcomes] == [outcome.input for outcome in outcomes] == list(range(20))

    def test_are_counted_by_the_summary(self):
        with abreast.outcomes(divide, [1, 0, 2], kind="process", max_workers=1) as results:
            list(results)
        summary = results.summary()
        assert (summary.tasks, summary.failures, summary.workers) == (3, 1, 1)

    @pytest.mark.parametrize("chunksize", ["auto", 1, 5])
    def test_have_the_context_of_the_call_for_each_task_anew(self, chunksize):
        def see(x):
            seen = variable.get()
            variable.set(x + 100)
            return seen

        token = variable.set(7)
        try:
            assert abreast.map(see, range(20), kind="process", max_workers=2, chunksize=chunksize) == [7] * 20
        finally:
            variable.reset(token)
        assert abreast.map(see, range(3), kind="process", max_workers=1) == [0] * 3

    def test_tell_a_task_which_it_is(self):
        def told(_):
            task = abreast.current_task()
            return task.name, task.index

        names = abreast.map(told, range(30), kind="process", max_workers=2, name="told", chunksize=4)
        assert names == [("told", index) for index in range(30)]

    @every_function
    def test_progress_counts_them_all(self, run):
        new = []
        assert run(square, range(50), progress=new.append) == [x * x for x in range(50)]
        assert sum(new) == 50


class TestErrors:
    @pytest.mark.parametrize("name", ["map", "imap", "amap", "aimap"])
    @pytest.mark.parametrize("chunksize", ["auto", 1, 3])
    def test_are_raised_with_a_note_that_names_the_task(self, name, chunksize):
        with pytest.raises(ZeroDivisionError) as raised:
            WAYS[name](divide, [1, 2, 3, 0, 6], chunksize=chunksize)
        (note,) = raised.value.__notes__
        told, pid = note.rsplit(" ", 1)
        assert told == "abreast: raised by divide(0): input 3, attempt 1, on process"
        assert int(pid) != os.getpid()
        assert "in divide" in str(raised.value.__cause__)  # the traceback in the worker

    @every_function
    def test_arrive_unchanged_in_type(self, run):
        with pytest.raises(LookupError) as raised:
            run(raise_error, [KeyError("nothing")])
        assert type(raised.value) is KeyError
        assert raised.value.args == ("nothing",)

    @sizes
    def test_in_order_come_behind_the_results_before_them(self, chunksize):
        seen = []
        with pytest.raises(ZeroDivisionError):
            seen.extend(abreast.imap(divide, [1, 2, 3, 0, 6], kind="process", max_workers=2, chunksize=chunksize))
        with abreast.imap(divide, [1, 2, 3, 0, 6], kind="process", max_workers=2, chunksize=chunksize) as results:
            assert [next(results) for _ in range(3)] == [6, 3, 2]
            with pytest.raises(ZeroDivisionError):
                next(results)
            with pytest.raises(StopIteration):
                next(results)

    @sizes
    @in_both_orders
    def test_are_outcomes_of_a_run_that_goes_on(self, chunksize, ordered):
        options = {"kind": "process", "max_workers": 2, "chunksize": chunksize, "ordered": ordered}
        outcomes = sorted(abreast.outcomes(divide, [1, 0, 2] * 30, **options), key=lambda outcome: outcome.index)
        assert [outcome.index for outcome in outcomes] == list(range(90))
        assert [outcome.value for outcome in outcomes] == [6, None, 3] * 30
        assert [type(outcome.error) for outcome in outcomes] == [type(None), ZeroDivisionError, type(None)] * 30

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
    def test_of_any_class_are_outcomes(self, error):
        (outcome,) = abreast.outcomes(raise_error, [error], kind="process")
        assert type(outcome.error) is type(error)

    @sizes
    def test_whose_class_does_not_unpickle_are_told_by_another(self, chunksize):
        def demand(x):
            if x == 2:
                raise Demanding(5, "code")
            return x

        with pytest.raises(TaskError, match=r"Demanding: code 5") as raised:
            abreast.map(demand, range(5), kind="process", max_workers=2, chunksize=chunksize)
        assert any("input 2, attempt 1, on process" in note for note in raised.value.__notes__)
        outcomes = list(abreast.outcomes(demand, range(5), kind="process", max_workers=2, chunksize=chunksize))
        assert [outcome.index for outcome in outcomes if not outcome.ok] == [2]
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4]

    @sizes
    def test_of_a_result_that_does_not_pickle_are_its_tasks(self, chunksize):
        def lock_at_2(x):
            return threading.Lock() if x == 2 else x

        with pytest.raises(TaskPickleError, match="the result") as raised:
            abreast.map(lock_at_2, range(5), kind="process", max_workers=2, chunksize=chunksize)
        assert "lock_at_2(2): input 2, " in raised.value.__notes__[-1]
        outcomes = list(abreast.outcomes(lock_at_2, range(5), kind="process", max_workers=2, chunksize=chunksize))
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4]
        assert type(outcomes[2].error) is TaskPickleError

    @sizes
    @in_both_orders
    def test_of_a_result_that_does_not_unpickle_are_its_tasks(self, chunksize, ordered):
        def odd_at_2(x):
            return Breaks(int, "two") if x == 2 else x

        options = {"kind": "process", "max_workers": 2, "chunksize": chunksize, "ordered": ordered}
        with pytest.raises(abreast.ResultDecodeError, match="invalid literal"):
            list(abreast.imap(odd_at_2, range(5), **options))
        outcomes = sorted(abreast.outcomes(odd_at_2, range(5), **options), key=lambda outcome: outcome.index)
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4]
        assert type(outcomes[2].error) is abreast.ResultDecodeError

    def test_of_a_result_that_does_not_unpickle_name_the_task(self):
        with pytest.raises(abreast.ResultDecodeError) as raised:
            abreast.map(lambda x: Breaks(int, "two") if x == 2 else x, range(5), kind="process", max_workers=2)
        assert "input 2" in "".join(getattr(raised.value, "__notes__", ()))

    @every_function
    @sizes
    def test_of_an_input_that_does_not_pickle_are_its_tasks(self, run, chunksize):
        with pytest.raises(TaskPickleError, match="the arguments of bool") as raised:
            run(bool, [[1], threading.Lock(), [2]], chunksize=chunksize)
        assert run is WAYS["outcomes"] or "input 1, attempt 1" in raised.value.__notes__[-1]
        outcomes = list(abreast.outcomes(bool, [[1], threading.Lock(), [2]], kind="process", max_workers=2, chunksize=chunksize))
        assert [outcome.value for outcome in outcomes] == [True, None, True]

    @sizes
    def test_of_an_input_that_does_not_unpickle_are_its_tasks(self, chunksize):
        inputs = [[1], Breaks(int, "two"), [2]]
        outcomes = list(abreast.outcomes(bool, inputs, kind="process", max_workers=2, chunksize=chunksize))
        assert [outcome.value for outcome in outcomes] == [True, None, True]
        assert type(outcomes[1].error) is abreast.TaskDecodeError

    @every_function
    def test_of_a_function_that_does_not_pickle(self, run):
        lock = threading.Lock()
        with pytest.raises(TaskPickleError, match=r"the function .*locked cannot be pickled, because of the variable 'lock'"):
            run(locked_by(lock), [1, 2])

    @in_both_orders
    def test_of_the_inputs_come_behind_the_results_of_what_was_read(self, ordered):
        def inputs():
            yield from range(5)
            raise LookupError("no more")

        seen = []
        with pytest.raises(LookupError, match="no more"):
            for x in abreast.imap(square, inputs(), kind="process", max_workers=2, ordered=ordered):
                seen.append(x)
        assert sorted(seen) == [0, 1, 4, 9, 16]

    @in_both_orders
    def test_keep_the_tasks_behind_them_from_starting(self, ordered, witness):
        def fail_at_3(x):
            witness.note(x)
            if x == 3:
                raise ValueError(x)
            return x

        with pytest.raises(ValueError, match="3"):
            list(abreast.imap(fail_at_3, range(20), kind="process", max_workers=1, chunksize=20, ordered=ordered))
        assert witness.seen() == [0, 1, 2, 3]

    @pytest.mark.parametrize("name", ["map", "imap"])
    def test_are_raised_as_soon_as_they_are_known(self, name):
        with pytest.raises(ZeroDivisionError):
            WAYS[name](lambda x: hang() if x else divide(0), range(4), chunksize=4, max_workers=1, timeout=3)


def locked_by(lock):
    def locked(x):
        with lock:
            return x

    return locked


class TestDeath:
    """Of a worker: the error of the task that it was at; all others are right, and ran once."""

    @pytest.mark.parametrize("die", [exit_at_once, kill_self], ids=["exit", "SIGKILL"])
    @sizes
    @in_both_orders
    def test_costs_its_task_alone(self, die, chunksize, ordered, witness):
        def task(x):
            witness.note(x)
            if x == 77:
                die()
            return x * x

        options = {"kind": "process", "max_workers": 2, "chunksize": chunksize, "ordered": ordered}
        outcomes = list(abreast.outcomes(task, range(200), **options))
        assert not ordered or [outcome.index for outcome in outcomes] == list(range(200))
        assert sorted(outcome.index for outcome in outcomes) == list(range(200))
        (lost,) = [outcome for outcome in outcomes if not outcome.ok]
        assert type(lost.error) is WorkerCrashed
        assert (lost.index, lost.error.index, lost.input) == (77, 77, 77)
        assert lost.worker == f"process {lost.error.pid}"
        assert all(outcome.value == outcome.index**2 for outcome in outcomes if outcome.ok)
        assert sorted(witness.seen()) == list(range(200))

    @pytest.mark.parametrize("workers", [1, 2, 3])
    @sizes
    def test_near_the_end_costs_its_task_alone(self, workers, chunksize, witness):
        """What the worker had not begun is sent again when all else has been sent."""

        def task_of(last):
            def task(x):
                witness.note(x)
                if x == last:
                    os._exit(3)
                return x

            return task

        for place in range(14, 20):
            Path(witness.path).unlink(missing_ok=True)
            outcomes = list(abreast.outcomes(task_of(place), range(20), kind="process", max_workers=workers, chunksize=chunksize))
            assert [outcome.value for outcome in outcomes] == [None if x == place else x for x in range(20)]
            assert type(outcomes[place].error) is WorkerCrashed
            assert sorted(witness.seen()) == list(range(20))

    def test_when_all_else_has_been_sent_the_rest_is_sent_again(self):
        """A pool that had been told meanwhile that nothing more would come refused it, in every second of these runs."""

        def task(x):
            if x == 17:
                time.sleep(0.1)
                os._exit(3)
            return x

        for _ in range(6):
            outcomes = list(abreast.outcomes(task, range(20), kind="process", max_workers=2, chunksize=1))
            assert [outcome.index for outcome in outcomes if not outcome.ok] == [17]

    @sizes
    def test_of_many_costs_their_tasks(self, chunksize, witness):
        def task(x):
            witness.note(x)
            if x % 25 == 24:
                os._exit(3)
            return x

        outcomes = list(abreast.outcomes(task, range(100), kind="process", max_workers=2, chunksize=chunksize))
        assert [outcome.index for outcome in outcomes if not outcome.ok] == [24, 49, 74, 99]
        assert {type(outcome.error) for outcome in outcomes if not outcome.ok} == {WorkerCrashed}
        assert sorted(witness.seen()) == list(range(100))

    @pytest.mark.parametrize("name", ["map", "imap", "amap", "aimap"])
    def test_is_raised_with_index_and_note(self, name):
        with pytest.raises(
            WorkerCrashed, match=r"task #5 exit_at_5\(5\) — worker \d \(pid \d+\) ended with exit code 3"
        ) as raised:
            WAYS[name](exit_at_5, range(10))
        assert (raised.value.index, raised.value.exitcode) == (5, 3)
        assert raised.value.__notes__[-1].startswith(
            f"abreast: raised by exit_at_5(5): input 5, attempt 1, on process {raised.value.pid}"
        )

    @sizes
    def test_while_an_input_is_unpickled_costs_that_task(self, chunksize):
        inputs = [1, 2, Breaks(os._exit, 3), 4, 5]
        outcomes = list(abreast.outcomes(bool, inputs, kind="process", max_workers=2, chunksize=chunksize))
        assert [outcome.value for outcome in outcomes] == [True, True, None, True, True]
        assert type(outcomes[2].error) is WorkerCrashed

    def test_while_the_function_is_unpickled_costs_every_task_and_the_run_ends(self):
        outcomes = list(abreast.outcomes(Deadly(), range(4), kind="process", max_workers=2, timeout=50))
        assert [type(outcome.error) for outcome in outcomes] == [WorkerCrashed] * 4

    @sizes
    def test_on_an_executor_of_the_users_leaves_it_open(self, chunksize, witness):
        def task(x):
            witness.note(x)
            if x == 40:
                os._exit(3)
            return x

        with ProcessPoolExecutor(2) as executor:
            outcomes = list(executor.outcomes(task, range(100), chunksize=chunksize))
            assert [outcome.index for outcome in outcomes if not outcome.ok] == [40]
            assert sorted(witness.seen()) == list(range(100))
            with pytest.raises(WorkerCrashed):
                list(executor.map(task, range(100), chunksize=1 if chunksize == "auto" else chunksize))
            assert abreast.map(square, range(10), executor=executor) == [x * x for x in range(10)]


class Deadly:
    def __call__(self, x):
        return x

    def __reduce__(self):
        return os._exit, (3,)


class TestLimits:
    @sizes
    def test_of_tasks_count_from_their_own_start_inside_batches_too(self, chunksize, witness):
        def task(x):
            witness.note(x)
            if x == 5:
                hang()
            return x

        options = {"kind": "process", "max_workers": 1, "chunksize": chunksize, "task_timeout": 1.5}
        outcomes = list(abreast.outcomes(task, range(20), **options))
        assert [outcome.value for outcome in outcomes] == [None if x == 5 else x for x in range(20)]
        assert type(outcomes[5].error) is TaskTimeout
        assert "hang" in outcomes[5].error.stack
        assert outcomes[5].duration >= 1.5
        assert sorted(witness.seen()) == list(range(20))

    def test_of_tasks_are_not_those_of_a_batch(self):
        """Twelve tasks of 0.2 s, each within its limit of 1.5 s, though the batch is not."""
        assert abreast.map(time.sleep, [0.2] * 12, kind="process", max_workers=1, chunksize=12, task_timeout=1.5) == [None] * 12

    @pytest.mark.parametrize("name", ["map", "imap", "amap", "aimap"])
    def test_of_the_run_end_it(self, name, witness):
        def task(_):
            witness.note(os.getpid())
            hang()

        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="took longer than its timeout of 0.7 s"):
            WAYS[name](task, range(4), timeout=0.7)
        assert time.monotonic() - begin < 10
        assert all(map(is_gone, witness.seen()))

    def test_of_the_run_give_outcomes_that_are_cancelled(self, witness):
        def task(x):
            witness.note(os.getpid())
            if x:
                hang()
            return x

        outcomes = list(abreast.outcomes(task, range(4), kind="process", max_workers=1, timeout=2, chunksize=1))
        assert [(outcome.index, outcome.ok, outcome.cancelled) for outcome in outcomes] == [
            (0, True, False),
            *((x, False, True) for x in (1, 2, 3)),
        ]
        assert all(map(is_gone, witness.seen()))

    def test_of_the_run_leave_results_that_were_there(self):
        """Those behind a task that hangs have been collected only when the time is up."""
        outcomes = list(
            abreast.outcomes(lambda x: hang() if x == 0 else x, range(4), kind="process", max_workers=2, timeout=2, chunksize=1)
        )
        assert [outcome.value for outcome in outcomes] == [None, 1, 2, 3]

    def test_of_the_run_tell_what_was_running(self, witness):
        def task(x):
            witness.note(x)
            hang()

        first, second = abreast.outcomes(task, range(2), kind="process", max_workers=1, timeout=2, chunksize=1)
        assert witness.seen() == [0]
        assert (first.attempts, second.attempts) == (1, 0)


class TestEndedEarly:
    """What runs in processes is killed; what has not begun never does."""

    def task(self, witness):
        def task(x):
            if x:
                witness.note(os.getpid())
                hang()
            return x

        return task

    def test_by_break(self, witness):
        for x in abreast.imap(self.task(witness), itertools.count(), kind="process", max_workers=2, chunksize=1):
            assert x == 0
            pids = witness.wait_for(1)
            break
        assert all(map(is_gone, pids))
        assert all(map(is_gone, witness.seen()))

    @pytest.mark.parametrize("start", [abreast.imap, abreast.outcomes])
    def test_by_close(self, witness, start):
        results = start(self.task(witness), itertools.count(), kind="process", max_workers=2, chunksize=1)
        assert value(next(results)) == 0
        witness.wait_for(1)
        results.close()
        assert all(map(is_gone, witness.seen()))
        assert list(results) == []

    def test_by_an_error(self, witness):
        def task(x):
            if x:
                witness.note(os.getpid())
                hang()
            witness.wait_for(1)
            raise LookupError

        with pytest.raises(LookupError):
            abreast.map(task, range(2), kind="process", max_workers=2, chunksize=1)
        assert all(map(is_gone, witness.seen()))

    def test_by_cancelling_the_coroutine(self, witness):
        async def main():
            running = asyncio.create_task(abreast.amap(self.task(witness), range(1, 3), kind="process", max_workers=2))
            while not witness.seen():
                await asyncio.sleep(0.005)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(main())
        assert all(map(is_gone, witness.seen()))

    @pytest.mark.parametrize("call", ["abreast.map(task, range(4), {0})", "list(abreast.outcomes(task, range(4), {0}))"])
    def test_by_ctrl_c(self, witness, call):
        script = f"""
            import abreast, os, time
            path = {witness.path!r}
            def task(x):
                with open(path, "a") as file:
                    file.write(f"{{os.getpid()}}\\n")
                time.sleep(60)
            {call.format("kind='process', max_workers=2")}
        """
        with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE, text=True) as process:
            pids = witness.wait_for(2)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
            process.wait(PATIENCE)
        assert time.monotonic() - begin < 5
        assert said.endswith("KeyboardInterrupt\n")
        assert process.returncode in (-signal.SIGINT, 130, 1)
        until(lambda: all(map(is_gone, pids)))

    def test_on_an_executor_of_the_users_nothing_more_of_a_batch_is_started(self, witness):
        def task(x):
            witness.note(x)
            if x == 1:
                until(lambda: os.path.exists(witness.path + ".go"))
            return x

        with ProcessPoolExecutor(1) as executor:
            with executor.imap(task, range(50), chunksize=50) as results:
                assert next(results) == 0
            Path(witness.path + ".go").touch()
            assert executor.submit(square, 3).result(PATIENCE) == 9
        assert witness.seen() in ([0, 1], [0])


class TestNested:
    def test_a_run_in_a_worker_has_one_process_by_default(self):
        def inner(_):
            return os.getpid(), set(abreast.map(pid_of, range(8), kind="process", chunksize=1))

        ((outer, pids),) = abreast.map(inner, [0], kind="process")
        assert len(pids) == 1
        assert not pids & {outer, os.getpid()}

    def test_a_run_in_a_worker_may_have_more(self, witness):
        def meet(_):
            witness.note(os.getpid())
            witness.wait_for(2)

        def inner(_):
            abreast.map(meet, [0, 1], kind="process", max_workers=2, chunksize=1)
            return len(set(witness.seen()))

        assert abreast.map(inner, [0], kind="process") == [2]

    def test_a_death_in_the_inner_run_is_its_error(self):
        def inner(x):
            return [
                type(o.error).__name__ for o in abreast.outcomes(lambda y: os._exit(3) if y == x else y, range(3), kind="process")
            ]

        assert abreast.map(inner, [1, 5], kind="process", max_workers=2) == [
            ["NoneType", "WorkerCrashed", "NoneType"],
            ["NoneType"] * 3,
        ]

    def test_processes_of_a_worker_that_is_killed_end_with_it(self, witness):
        def inner(_):
            abreast.map(lambda _: (witness.note(os.getpid()), hang()), [0], kind="process")

        outcomes = list(abreast.outcomes(inner, [0], kind="process", task_timeout=2))
        assert type(outcomes[0].error) is TaskTimeout
        (pid,) = witness.wait_for(1)
        until(lambda: is_gone(pid))

    def test_an_executor_in_a_worker_has_one_process_by_default(self):
        def inner(_):
            with ProcessPoolExecutor() as executor:
                return executor._max_workers

        assert abreast.map(inner, [0], kind="process") == [1]

    def test_a_run_on_threads_in_a_worker(self):
        assert abreast.map(lambda _: abreast.map(square, range(5)), [0], kind="process") == [[0, 1, 4, 9, 16]]


class TestExecutor:
    """`ProcessPoolExecutor` under the engine."""

    def test_is_a_standard_one(self):
        import concurrent.futures

        with ProcessPoolExecutor(1) as executor:
            assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
            assert isinstance(executor.submit(square, 3), concurrent.futures.Future)

    def test_runs_several_runs_at_the_same_time(self):
        with ProcessPoolExecutor(2) as executor:
            first, second = executor.imap(square, itertools.count()), executor.imap(square, itertools.count(100))
            assert [(next(first), next(second)) for _ in range(20)] == [(x * x, (100 + x) ** 2) for x in range(20)]
            first.close()
            second.close()

    def test_map_starts_everything_at_the_call(self, witness):
        with ProcessPoolExecutor(2) as executor:
            executor.map(witness.note, range(100))
            until(lambda: len(witness.seen()) == 100)
        assert sorted(witness.seen()) == list(range(100))

    @pytest.mark.parametrize("chunksize", ["auto", 1, 50])
    def test_map_can_be_read_behind_the_block(self, chunksize):
        with ProcessPoolExecutor(2) as executor:
            results = executor.map(square, range(1000), chunksize=chunksize)
        assert list(results) == [x * x for x in range(1000)]

    def test_map_with_a_buffersize_takes_endless_inputs(self):
        numbers = itertools.count()
        with ProcessPoolExecutor(2) as executor:
            results = executor.map(square, numbers, buffersize=5)
            assert list(itertools.islice(results, 20)) == [x * x for x in range(20)]
            results.close()
        assert next(numbers) <= 26

    def test_map_times_out(self):
        with ProcessPoolExecutor(1) as executor:
            results = executor.map(time.sleep, [0, 3], timeout=2, chunksize=1)
            assert next(results) is None
            with pytest.raises(TimeoutError):
                next(results)

    def test_a_shut_down_one_refuses_runs(self):
        executor = ProcessPoolExecutor(1)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.map(square, [1])
        with pytest.raises(RuntimeError, match="after shutdown"):
            abreast.map(square, [1], executor=executor)

    def test_cannot_be_pickled(self):
        with ProcessPoolExecutor(1) as executor, pytest.raises(TypeError, match="an executor cannot be pickled"):
            pickle.dumps(executor)

    def test_limits_of_its_tasks_count_inside_batches(self):
        with ProcessPoolExecutor(1, task_timeout=1.5) as executor:
            outcomes = list(executor.outcomes(lambda x: hang() if x == 2 else x, range(5), chunksize=5))
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4]
        assert type(outcomes[2].error) is TaskTimeout

    def test_an_initializer_that_raises_ends_the_run(self, caplog):
        with ProcessPoolExecutor(1, initializer=raise_error, initargs=(LookupError("no"),)) as executor:
            with pytest.raises(abreast.BrokenExecutor, match="initializer"):
                abreast.map(square, range(5), executor=executor)

    def test_outcomes_are_picklable_again(self):
        """A worker may return outcomes of a run of its own."""

        def inner(_):
            return [outcome.error for outcome in abreast.outcomes(divide, [1, 0], kind="process")]

        assert [type(error) for error in abreast.map(inner, [0], kind="process")[0]] == [type(None), ZeroDivisionError]


def test_nothing_is_left_at_the_end_of_a_program_that_stops_in_the_middle():
    done = run_python("""
        import abreast, os, time
        results = abreast.imap(lambda x: (x, os.getpid()), iter(int, 1), kind="process", max_workers=2)
        print(next(results)[1])
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert is_gone(int(done.stdout))


def test_outcomes_have_their_public_type():
    (outcome,) = abreast.outcomes(square, [3], kind="process")
    assert type(outcome) is Outcome

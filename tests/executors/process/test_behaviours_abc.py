"""What others' test suites ask of an executor, on processes: docs/design/behaviours.md, sections A, B and C; D to G are in test_behaviours_dg.py.

Where another file has it already:

=====  =========================================================================================================================
A1     test_pool.py TestDeath.test_fails_only_the_task_that_was_running; test_crashes.py TestMatrix, TestDeath.test_every_way_to_die
A4     test_crashes.py TestMatrix, TestFunction, TestContext
A7     test_pool.py TestEnd.test_no_worker_outlives_a_parent_that_was_killed; test_faults.py (F22); nested ones here
B15    test_crashes.py TestMatrix, TestNotPicklable; test_pool.py TestDeath.test_while_arguments_are_unpickled...
B16    test_crashes.py TestMatrix, TestUnpickling.test_a_result_that_hangs_in_the_parent_holds_up_nobody_else
B17    test_sending.py test_an_error_that_cannot_be_sent_becomes_a_task_error and its neighbours; through a pool here
B22    test_sending.py test_lambdas_closures_and_recursive_functions_of_the_main_script; through a pool here
C26    test_crashes.py TestLimit.test_over_it
C28    test_crashes.py TestLimit.test_one_of_64; test_pool.py TestLimit.test_counts_for_each_task_of_a_run_and_not_for_its_batch
=====  =========================================================================================================================
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import abreast
import pytest
from abreast import ProcessPoolExecutor, TaskTimeout, WorkerCrashed
from abreast.core.process_errors import TaskDecodeError, TaskPickleError
from abreast.executors.process.memory import resident_bytes

from tests.executors.process import tasks
from tests.executors.process.tasks import CRASHES, DiesPickled, DiesUnpickled, square
from tests.helpers import in_threads, is_alive, run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.slow,  # minutes: run before an issue closes
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30


def lines(path):
    try:
        return Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []


def goes_on(pool, count=20):
    return [future.result(PATIENCE) for future in [pool.submit(square, i) for i in range(count)]] == [i * i for i in range(count)]


def meet(path, count):
    """Wait until so many tasks are here; return who they are."""
    tasks.note(path, os.getpid())
    return until(lambda: len(lines(path)) >= count and [int(line) for line in lines(path)])


def kill_another(path, count, order):
    """All meet; then each kills one other, in the order given; the last one is left."""
    pids = meet(path, count)
    mine = pids.index(os.getpid())
    victim = order[mine]
    if victim != mine:
        with contextlib.suppress(ProcessLookupError):  # another was faster
            os.kill(pids[victim], signal.SIGKILL)
    time.sleep(60 if victim != mine else 0.05)
    return mine


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


# ---- A. A worker dies


class TestDeath:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_killed_from_outside(self, pool, number, tmp_path):
        """A2."""
        running = pool.submit(tasks.note_and_sleep, str(tmp_path / "log"))
        pid = int(until(lambda: lines(tmp_path / "log"))[0])
        begin = time.monotonic()
        os.kill(pid, number)
        error = running.exception(PATIENCE)
        assert time.monotonic() - begin < 5
        assert isinstance(error, BrokenProcessPool)
        assert (error.exitcode, error.signal, error.pid) == (-number, number.name, pid)
        assert f"(pid {pid}) died of {number.name}" in str(error)
        assert goes_on(pool)

    def test_an_idle_one_is_killed(self, pool):
        """A3."""
        for _ in range(5):
            pid = pool.submit(os.getpid).result(PATIENCE)
            os.kill(pid, signal.SIGKILL)
            assert goes_on(pool)

    def test_one_is_killed_while_others_start(self, tmp_path):
        """A3."""
        with ProcessPoolExecutor(4) as pool:
            first = pool.submit(tasks.note_and_sleep, str(tmp_path / "log"))
            others = [pool.submit(tasks.notes_and_sleeps, str(tmp_path / "others"), i, 0.02) for i in range(12)]
            os.kill(int(until(lambda: lines(tmp_path / "log"))[0]), signal.SIGKILL)
            assert type(first.exception(PATIENCE)) is WorkerCrashed
            assert [future.result(PATIENCE) for future in others] == list(range(12))
        assert sorted(map(int, lines(tmp_path / "others"))) == list(range(12))

    @pytest.mark.parametrize(
        ("workers", "order"),
        [*itertools.product([1, 2, 5], ["next", "previous", "first", "last", "itself"]), (13, "next")],
    )
    def test_workers_kill_each_other(self, workers, order, tmp_path):
        """A3."""
        victims = {
            "next": [min(i + 1, workers - 1) for i in range(workers)],
            "previous": [max(i - 1, 0) for i in range(workers)],
            "first": [0] * workers,
            "last": [workers - 1] * workers,
            "itself": list(range(workers)),
        }[order]
        with ProcessPoolExecutor(workers, task_timeout=20) as pool:
            futures = [pool.submit(kill_another, str(tmp_path / "log"), workers, victims) for _ in range(workers)]
            until(lambda: len(lines(tmp_path / "log")) == workers)
            if order == "itself":
                assert sorted(future.result(PATIENCE) for future in futures) == list(range(workers))
            else:
                pids = [int(line) for line in lines(tmp_path / "log")]
                if workers > 1:
                    until(lambda: not all(map(is_alive, pids)))
                for pid in pids:  # those that are left sleep
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                assert not wait(futures, PATIENCE).not_done
                assert all(type(future.exception(0)) in (WorkerCrashed, type(None)) for future in futures)
            assert goes_on(pool)

    def test_after_its_result_was_sent(self, pool, tmp_path):
        """A5: the result has arrived; nobody fails."""
        for how in ("os._exit(0)", "segfault"):
            pid = pool.submit(dies_later, how, str(tmp_path / how)).result(PATIENCE)
            (tmp_path / how).touch()
            until(lambda: not is_alive(pid))
            assert goes_on(pool)

    @pytest.mark.parametrize("how", CRASHES)
    def test_in_the_destructor_of_an_argument(self, pool, how):
        """A5: the argument is freed before the result is sent, so it is that task which fails, and no other."""
        before = [pool.submit(square, i) for i in range(10)]
        error = pool.submit(tasks.first, 7, DiesFreed(how)).exception(PATIENCE)
        assert type(error) is WorkerCrashed
        assert CRASHES[how] in str(error)
        assert [future.result(PATIENCE) for future in before] == [i * i for i in range(10)]
        outcomes = list(pool.outcomes(tasks.first, range(6), [DiesFreed(how) if i == 2 else None for i in range(6)], chunksize=6))
        assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4, 5]
        assert goes_on(pool)

    @pytest.mark.parametrize("how", CRASHES)
    @pytest.mark.parametrize("workers", [1, 2])
    def test_during_shutdown(self, how, workers):
        """A6."""
        pool = ProcessPoolExecutor(workers)
        futures = [pool.submit(tasks.die, how) if i in (0, 5, 9) else pool.submit(square, i) for i in range(10)]
        begin = time.monotonic()
        pool.shutdown(wait=True)
        assert time.monotonic() - begin < PATIENCE
        assert [type(future.exception(0)) is WorkerCrashed for future in futures] == [i in (0, 5, 9) for i in range(10)]

    def test_between_the_last_result_and_shutdown(self):
        """A6."""
        for how in ("os._exit(0)", "SIGKILL"):
            pool = ProcessPoolExecutor(2)
            pids = {pool.submit(os.getpid).result(PATIENCE) for _ in range(4)}
            crashes = pool.submit(tasks.die, how)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            pool.shutdown()
            assert type(crashes.exception(0)) is WorkerCrashed

    def test_nested_workers_end_with_a_parent_that_is_killed(self):
        """A7."""
        program = subprocess.Popen(
            [sys.executable, "-c", """if 1:
                import abreast, os, time
                def inner():
                    with abreast.ProcessPoolExecutor(1) as pool:
                        print(os.getpid(), pool.submit(os.getpid).result(), flush=True)
                        pool.submit(time.sleep, 600).result()
                with abreast.ProcessPoolExecutor(2) as pool:
                    idle = pool.submit(os.getpid)
                    pool.submit(inner).result()
            """],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 2
        program.kill()
        program.communicate()
        until(lambda: not any(map(is_alive, pids)), 10)

    def test_each_future_has_an_error_of_its_own(self, pool):
        """A8: no traceback grows with what others ask."""
        futures = [pool.submit(os._exit, 3) for _ in range(4)]
        lengths = []
        for future in futures:
            try:
                future.result(PATIENCE)
            except WorkerCrashed as error:
                lengths.append(length_of(error.__traceback__))
        assert len(set(lengths)) == 1
        assert len({id(future.exception(0)) for future in futures}) == 4
        with ProcessPoolExecutor(1, initializer=os._exit, initargs=(3,)) as broken:
            futures = [broken.submit(square, i) for i in range(4)]
            assert len({id(future.exception(PATIENCE)) for future in futures}) == 4

    @pytest.mark.parametrize("value", [None, "0"])
    def test_a_segfault_tells_its_stack(self, value, monkeypatch):
        """A9: unless it is switched off."""
        if value is None:
            monkeypatch.delenv("PYTHONFAULTHANDLER", raising=False)
        else:
            monkeypatch.setenv("PYTHONFAULTHANDLER", value)
        with ProcessPoolExecutor(1) as pool:
            stack = pool.submit(tasks.die, "segfault").exception(PATIENCE).stack
        assert ("Segmentation fault" in stack and "in die" in stack) == (value is None)

    def test_the_pool_goes_on_and_so_does_a_fresh_one(self):
        """A10: it goes on with a new worker, idle or under load, and says nothing from `submit`."""
        for load in (0, 50):
            with ProcessPoolExecutor(2) as pool:
                before = [pool.submit(time.sleep, 0.001) for _ in range(load)]
                crash = pool.submit(os._exit, 1)
                after = [pool.submit(square, i) for i in range(load)]
                assert type(crash.exception(PATIENCE)) is WorkerCrashed
                with ProcessPoolExecutor(1) as fresh:
                    assert fresh.submit(square, 3).result(PATIENCE) == 9
                assert goes_on(pool)
                assert not wait([*before, *after], PATIENCE).not_done
                assert all(future.exception(0) is None for future in [*before, *after])
                assert not pool._broken

    def test_waiting_for_futures_that_break_ends(self, pool):
        """A11."""
        futures = [pool.submit(os._exit, 1) if i % 3 == 0 else pool.submit(square, i) for i in range(9)]
        done = list(concurrent.futures.as_completed(futures, PATIENCE))
        assert len(done) == 9
        assert not wait(futures, PATIENCE).not_done
        first = wait([pool.submit(time.sleep, 0.1), pool.submit(os._exit, 1)], PATIENCE, "FIRST_EXCEPTION")
        assert any(future.exception() for future in first.done)
        assert [future.result(0) for i, future in enumerate(futures) if i % 3] == [1, 4, 16, 25, 49, 64]
        got = []
        with pytest.raises(WorkerCrashed):
            for value in pool.map(exit_at_3, range(6), chunksize=2):
                got.append(value)
        assert got == [0, 1, 2]


def exit_at_3(i):
    return os._exit(1) if i == 3 else i


def dies_later(how, path):
    threading.Thread(target=lambda: (tasks.wait_for_file(path), tasks.die(how)), daemon=True).start()
    return os.getpid()


class DiesFreed:
    def __init__(self, how):
        self.how, self.home = how, os.getpid()

    def __del__(self):
        if os.getpid() != self.home:
            tasks.die(self.how)


def length_of(traceback):
    length = 0
    while traceback is not None:
        traceback, length = traceback.tb_next, length + 1
    return length


# ---- B. Pickling and data


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not me")


class Stops(BaseException):
    pass


class DemandingStop(BaseException):
    def __init__(self, code, text):
        super().__init__(f"{text} {code}")


class RaisesPickled:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Demanding(Exception):
    def __init__(self, code, text):
        super().__init__(f"{text} {code}")


def raise_frozen():
    raise Frozen(5)  # here it was


def raise_demanding():
    raise Demanding(5, "text")  # here it was


class SlowToPickle:
    begun, go = threading.Event(), threading.Event()

    def __reduce__(self):
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return int, (7,)


class Methods:
    def __init__(self, number=10):
        self.number = number

    def bound(self, x):
        return self.number + x

    @classmethod
    def of_class(cls, x):
        return cls(x).number

    @staticmethod
    def static(x):
        return -x

    def __call__(self, x):
        return self.number * x


class Freed:
    """Says in a file that it was freed."""

    def __init__(self, path, name):
        self.path, self.name, self.home = path, name, os.getpid()

    def __del__(self):
        if os.getpid() != self.home:
            tasks.note(self.path, self.name)


def make_a_cycle(path, name):
    freed = Freed(path, name)
    freed.home = 0
    freed.itself = freed


def log_of(path, _=None):
    return lines(path)


class TestPickling:
    def test_arguments_that_cannot_be_pickled(self, pool):
        """B12: 100 of them, and 100 good ones."""
        futures = [pool.submit(square, Unpicklable() if i % 2 else i) for i in range(200)]
        assert [future.result(PATIENCE) for future in futures[::2]] == [i * i for i in range(0, 200, 2)]
        for future in futures[1::2]:
            error = future.exception(PATIENCE)
            assert type(error) is TaskPickleError
            assert str(error).endswith("because of args[0] (Unpicklable): not me")
        outcomes = list(pool.outcomes(square, [Unpicklable() if i % 2 else i for i in range(200)]))
        assert [outcome.value for outcome in outcomes] == [None if i % 2 else i * i for i in range(200)]
        assert {type(outcome.error) for outcome in outcomes[1::2]} == {TaskPickleError}

    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), Stops("now")], ids=repr)
    def test_any_exception_while_an_argument_is_pickled(self, error):
        """B13: five executors in a row."""
        for _ in range(5):
            with ProcessPoolExecutor(1) as pool:
                before = pool.submit(square, 3)
                bad = pool.submit(square, RaisesPickled(error))
                assert type(bad.exception(PATIENCE)) is type(error)
                assert before.result(PATIENCE) == 9
                assert goes_on(pool)

    @pytest.mark.parametrize(
        ("error", "arrives"),
        [
            (SystemExit(3), SystemExit),
            (GeneratorExit(), GeneratorExit),
            (Stops("now"), Stops),
            (MemoryError("much"), MemoryError),
            (SystemExit(threading.Lock()), abreast.TaskError),
            (DemandingStop(5, "text"), abreast.TaskError),
        ],
        ids=[
            "SystemExit",
            "GeneratorExit",
            "the user's own",
            "MemoryError",
            "not picklable itself",
            "not to be unpickled itself",
        ],
    )
    def test_any_exception_while_an_input_is_pickled(self, pool, error, arrives):
        """B13: of a run, as from `submit`."""
        outcomes = list(pool.outcomes(square, [1, RaisesPickled(error), 3], chunksize=3))
        assert [outcome.value for outcome in outcomes] == [1, None, 9]
        assert type(outcomes[1].error) is arrives
        assert goes_on(pool)

    def test_an_argument_that_cannot_be_unpickled_tells_why(self, pool):
        """B14."""
        error = pool.submit(square, DiesUnpickled("ValueError")).exception(PATIENCE)
        assert type(error) is TaskDecodeError
        assert error.why == "ValueError: as it was told to"
        assert 'raise ValueError("as it was told to")' in str(error.__cause__)

    def test_a_result_that_cannot_be_pickled(self, pool):
        """B15: SystemExit while pickling it arrives as that; the pool goes on."""
        assert type(pool.submit(DiesPickled, "SystemExit").exception(PATIENCE)) is SystemExit
        error = pool.submit(DiesPickled, "ValueError").exception(PATIENCE)
        assert type(error) is TaskPickleError
        assert "ValueError: as it was told to" in str(error)
        assert goes_on(pool)

    def test_exceptions_that_do_not_survive_pickling(self, pool):
        """B17: the future fails with something that tells, and the traceback in the worker with the source line is its cause."""
        frozen, demanding = (pool.submit(fn).exception(PATIENCE) for fn in (raise_frozen, raise_demanding))
        assert type(frozen) is type(demanding) is abreast.TaskError  # a frozen one does not let its state be set
        assert "Frozen: 5" in str(frozen)
        assert "Demanding" in str(demanding)
        assert "text 5" in str(demanding)
        assert "raise Frozen(5)  # here it was" in str(frozen.__cause__)
        assert 'raise Demanding(5, "text")  # here it was' in str(demanding.__cause__)

    def test_an_exception_that_is_returned_is_a_result(self, pool):
        """B18."""
        assert repr(pool.submit(ValueError, 3).result(PATIENCE)) == "ValueError(3)"
        assert [repr(error) for error in pool.map(ValueError, range(3))] == [f"ValueError({i})" for i in range(3)]

    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_100_megabytes_in_and_out(self, pool, kind):
        """B19."""
        data = kind(b"abcd" * 25_000_000)
        assert pool.submit(tasks.first, data).result(PATIENCE) == data
        (outcome,) = pool.outcomes(tasks.first, [data])
        assert outcome.value == data

    @pytest.mark.slow
    @pytest.mark.skipif(
        os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 16_000_000_000, reason="too little memory is free"
    )
    def test_2_gigabytes_in_one_argument(self, pool):
        """B19."""
        size = 2_200_000_000
        assert pool.submit(len, bytes(size)).result(200) == size
        assert len(pool.submit(bytes, size).result(200)) == size
        assert goes_on(pool)

    @pytest.mark.parametrize(
        "how",
        ["kill", "crash", "stop", "cancel"],
    )
    def test_the_end_while_much_is_being_written(self, how):
        """B20: no deadlock, and the memory is released."""
        before = resident_bytes(os.getpid())
        pool = ProcessPoolExecutor(2)
        pids = {pool.submit(os.getpid).result(PATIENCE) for _ in range(8)}
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # so that the frames stay half written
        # Above 32 MB malloc gives memory back to the system for sure.
        futures = [pool.submit(len, bytes(40_000_000)) for _ in range(6)]
        until(lambda: any(channel.out for channel in list(pool._supervisor._channels.values())))
        begin = time.monotonic()
        if how == "kill":
            pool.kill_workers()
        elif how == "crash":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        elif how == "cancel":
            assert futures[-1].cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        else:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        pool.shutdown()
        assert time.monotonic() - begin < PATIENCE
        assert all(future.done() for future in futures)
        values = [future.result(0) if not future.cancelled() and not future.exception(0) else None for future in futures]
        if how in ("crash", "stop"):
            assert values == [40_000_000] * 6
        elif how == "cancel":
            assert set(values) <= {40_000_000, None}
            assert futures[-1].cancelled()
        del pool
        gc.collect()
        until(lambda: resident_bytes(os.getpid()) < before + 60_000_000, 10)  # although the futures are still there
        del futures

    def test_what_takes_long_to_pickle_holds_up_nobody(self, pool):
        """B21: it is pickled in the thread that submits it; shutdown waits for it."""
        SlowToPickle.begun.clear()
        SlowToPickle.go.clear()

        def submit_slowly():
            return pool.submit(square, SlowToPickle())

        def meanwhile():
            assert SlowToPickle.begun.wait(PATIENCE)
            try:
                assert goes_on(pool)
                assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]
            finally:
                SlowToPickle.go.set()

        future, _ = in_threads(submit_slowly, meanwhile)
        pool.shutdown()
        assert future.result(0) == 49

    def test_functions_without_a_name_in_a_module(self, pool):
        """B22: the definition of the moment counts; what one factory makes is not taken for one thing."""

        def factory(n):
            return lambda x: x + n

        def factorial(n):
            return n * factorial(n - 1) if n else 1

        assert [pool.submit(factory(n), 1).result(PATIENCE) for n in range(5)] == [1, 2, 3, 4, 5]
        assert pool.submit(factorial, 10).result(PATIENCE) == 3628800
        assert list(pool.map(factory(7), range(3))) == [7, 8, 9]

    def test_functions_of_python_c_and_of_redefined_helpers(self):
        """B22."""
        done = run_python("""
            import abreast
            def helper(x): return x + 1
            def task(x): return helper(x)
            with abreast.ProcessPoolExecutor(1) as pool:
                first = pool.submit(task, 1).result()
                def helper(x): return x + 100
                print(first, pool.submit(task, 1).result(), list(pool.map(task, [1, 2])))
                def task(x): return -x
                print(pool.submit(task, 1).result())
        """)
        assert (done.stdout, done.stderr) == ("2 101 [101, 102]\n-1\n", "")

    @pytest.mark.parametrize(
        ("function", "gives"),
        [
            (Methods(10).bound, 13),
            (Methods.of_class, 3),
            (Methods.static, -3),
            (Methods(10), 30),
            (functools.partial(pow, 2), 8),
            ([1, 2, 3, 3].count, 2),
            (Methods, None),
        ],
        ids=["bound", "classmethod", "staticmethod", "callable object", "partial", "of a built-in", "class"],
    )
    def test_methods(self, pool, function, gives):
        """B23."""
        value = pool.submit(function, 3).result(PATIENCE)
        assert (value.number if gives is None else value) == (3 if gives is None else gives)
        (value,) = pool.map(function, [3])
        assert (value.number if gives is None else value) == (3 if gives is None else gives)

    def test_methods_of_a_managers_proxies(self):
        """B23."""
        done = run_python("""
            import multiprocessing, abreast
            if __name__ == "__main__":
                with multiprocessing.Manager() as manager, abreast.ProcessPoolExecutor(2) as pool:
                    queue = manager.Queue()
                    print(pool.submit(queue.put, 3).result(), queue.get(timeout=20))
                    list(pool.map(queue.put, range(5)))
                    print(sorted(queue.get(timeout=20) for _ in range(5)))
        """)
        assert (done.stdout, done.stderr) == ("None 3\n[0, 1, 2, 3, 4]\n", "")


class TestFreed:
    def test_arguments_and_cycles_in_the_worker(self, tmp_path):
        """B24."""
        path = str(tmp_path / "log")
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(tasks.first, 1, Freed(path, "argument")).result(PATIENCE) == 1
            assert pool.submit(log_of, path).result(PATIENCE) == ["argument"]
            assert list(pool.map(log_of, [path, path], [Freed(path, "a"), None], chunksize=2))[1] == ["argument", "a"]
            for i in range(3):
                pool.submit(make_a_cycle, path, f"cycle {i}").result(PATIENCE)
            pool.submit(gc.collect).result(PATIENCE)
            assert lines(path)[2:] == ["cycle 0", "cycle 1", "cycle 2"]

    def test_arguments_and_futures_in_the_parent(self, pool, no_gc):
        """B24."""

        class Argument:
            pass

        argument = Argument()
        alive = weakref.ref(argument)
        future = pool.submit(id, argument)
        assert future.result(PATIENCE)
        assert pool.submit(square, 1).result(PATIENCE)
        del argument
        until(lambda: alive() is None)
        future_alive = weakref.ref(future)
        del future
        until(lambda: future_alive() is None)
        dropped = weakref.ref(pool.submit(square, 3))
        until(lambda: dropped() is None)
        argument = Argument()
        alive = weakref.ref(argument)
        failing = pool.submit(os._exit, argument)
        assert type(failing.exception(PATIENCE)) is TypeError
        del argument, failing
        until(lambda: alive() is None)

    def test_inputs_of_a_run_in_the_parent(self, pool, no_gc):
        """B24."""

        class Argument:
            pass

        argument = Argument()
        alive = weakref.ref(argument)
        assert len(list(pool.map(id, [argument]))) == 1
        del argument
        until(lambda: alive() is None, 5)


# ---- C. Time limits and cancelling


class TestLimits:
    def test_count_from_the_tasks_start(self, tmp_path):
        """C25: not from `submit`; TimeoutError in `result()` and in the callback; a new worker runs what comes next."""
        with ProcessPoolExecutor(1, task_timeout=1) as pool:
            futures = [pool.submit(time.sleep, 0.3) for _ in range(5)]
            assert [future.result(PATIENCE) for future in futures] == [None] * 5
            pid = pool.submit(os.getpid).result(PATIENCE)
            seen, called = [], threading.Event()
            slow = pool.submit(time.sleep, 600)
            slow.add_done_callback(lambda future: (seen.append(future.exception(0)), called.set()))
            with pytest.raises(TimeoutError) as raised:
                slow.result(PATIENCE)
            assert type(raised.value) is TaskTimeout
            assert called.wait(PATIENCE)
            assert seen == [raised.value]
            assert pool.submit(os.getpid).result(PATIENCE) != pid
            assert not is_alive(pid)

    def test_a_running_task_cannot_be_cancelled_through_its_future(self, tmp_path):
        """C27: not offered; as in the standard library. Through asyncio it is the waiting that is cancelled."""
        go = str(tmp_path / "go")
        with ProcessPoolExecutor(1) as pool:
            running = pool.submit(tasks.note_and_wait, str(tmp_path / "log"), go)
            pid = int(until(lambda: lines(tmp_path / "log"))[0])
            assert not running.cancel()
            assert running.running()

            async def main():
                wrapped = asyncio.wrap_future(running)
                wrapped.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await wrapped
                waiting = asyncio.get_running_loop().run_in_executor(pool, square, 3)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting

            asyncio.run(main())
            Path(go).touch()
            assert running.result(PATIENCE) == pid
            assert goes_on(pool)

    def test_what_waits_can_be_cancelled_and_says_so(self, tmp_path):
        """C27."""
        go = str(tmp_path / "go")
        with ProcessPoolExecutor(1) as pool:
            running = pool.submit(tasks.note_and_wait, str(tmp_path / "log"), go)
            until(lambda: lines(tmp_path / "log"))
            waiting = pool.submit(square, 3)
            called = []
            waiting.add_done_callback(called.append)
            assert waiting.cancel()
            until(lambda: called == [waiting])
            with pytest.raises(CancelledError):
                waiting.result(0)
            Path(go).touch()
            assert running.result(PATIENCE)
            assert pool.statistics().cancelled == 1

    @pytest.mark.parametrize("chunksize", ["auto", 1, 5])
    def test_items_that_fail_do_not_end_the_iteration(self, chunksize):
        """C29."""

        def task(i):
            if i == 3:
                raise ValueError(i)
            if i == 5:
                time.sleep(600)
            if i == 7:
                os._exit(2)
            return i

        with ProcessPoolExecutor(2, task_timeout=1) as pool:
            outcomes = list(pool.outcomes(task, range(12), chunksize=chunksize))
        assert [outcome.value for outcome in outcomes] == [None if i in (3, 5, 7) else i for i in range(12)]
        assert [type(outcome.error) for outcome in outcomes if not outcome.ok] == [ValueError, TaskTimeout, WorkerCrashed]

    def test_a_cancelled_map_starts_nothing_more(self, tmp_path):
        """C30."""
        log, go = str(tmp_path / "log"), str(tmp_path / "go")
        with ProcessPoolExecutor(1) as pool:
            results = pool.map(lambda i: (tasks.note(log, i), i and tasks.wait_for_file(go))[0], range(100), chunksize=1)
            assert next(results) is None
            until(lambda: len(lines(log)) == 2)
            results.close()
            with pytest.raises(StopIteration):
                next(results)
            Path(go).touch()
            assert goes_on(pool)
        assert len(lines(log)) <= 4

    def test_what_a_run_that_is_out_of_time_did_not_begin_says_so(self, tmp_path):
        """C30."""
        log = str(tmp_path / "log")
        with ProcessPoolExecutor(1) as pool:
            outcomes = []
            try:
                for outcome in pool.outcomes(
                    lambda i: (tasks.note(log, i), i and time.sleep(600)), range(20), chunksize=1, timeout=1.5
                ):
                    outcomes.append(outcome)
            except TimeoutError:
                pass
        assert outcomes[0].ok
        assert len(lines(log)) == 2
        assert [outcome.index for outcome in outcomes] == list(range(20))
        assert all(isinstance(outcome.error, (CancelledError, TimeoutError)) for outcome in outcomes[1:])
        assert [outcome.attempts for outcome in outcomes[2:]] == [0] * 18

    @pytest.mark.parametrize("chunksize", [1, 4])
    def test_map_out_of_time(self, tmp_path, chunksize):
        """C31: TimeoutError in time; the rest is cancelled; the iterator is closed."""
        log, go = str(tmp_path / "log"), str(tmp_path / "go")
        with ProcessPoolExecutor(1) as pool:
            assert goes_on(pool)
            begin = time.monotonic()
            results = pool.map(
                lambda i: (tasks.note(log, i), i and tasks.wait_for_file(go))[0], range(100), chunksize=chunksize, timeout=1
            )
            with pytest.raises(TimeoutError):
                list(results)
            assert 0.9 < time.monotonic() - begin < 5
            assert list(results) == []
            Path(go).touch()
            assert goes_on(pool)
        assert len(lines(log)) <= 8


class TestInputs:
    @pytest.mark.parametrize("chunksize", ["auto", 1, 3, 100])
    @pytest.mark.parametrize("method", ["map", "imap", "outcomes"])
    def test_an_iterable_that_raises_in_the_middle(self, pool, chunksize, method):
        """C32."""

        def inputs():
            yield from range(5)
            raise LookupError("in the middle")

        with pytest.raises(LookupError, match="in the middle"):
            list(getattr(pool, method)(square, inputs(), chunksize=chunksize))
        assert goes_on(pool)

    @pytest.mark.parametrize("chunksize", ["auto", 1, 3])
    def test_of_every_length(self, pool, chunksize):
        """C33."""
        assert list(pool.map(square, [], chunksize=chunksize)) == []
        assert list(pool.map(square, [3], chunksize=chunksize)) == [9]
        assert list(pool.map(pow, [2, 3, 4], [2], chunksize=chunksize)) == [4]
        assert list(pool.map(pow, [2, 3], itertools.count(1), chunksize=chunksize)) == [2, 9]
        assert list(pool.map(pow, [], [1, 2], chunksize=chunksize)) == []

    @pytest.mark.parametrize("chunksize", [0, -1])
    def test_a_chunksize_that_is_not_one(self, pool, chunksize):
        """C33."""
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(square, [1], chunksize=chunksize)

    def test_a_buffersize_that_is_not_one(self, pool):
        """C34."""
        for value, error in [("3", TypeError), (2.5, TypeError), (0, ValueError), (-1, ValueError)]:
            with pytest.raises(error, match="buffersize"):
                pool.map(square, [1], buffersize=value)

    def test_endless_and_several_and_empty_ones_with_a_buffersize(self, pool):
        """C34."""
        assert list(itertools.islice(pool.map(pow, itertools.count(), itertools.repeat(2), buffersize=3), 5)) == [0, 1, 4, 9, 16]
        assert list(pool.map(pow, itertools.count(), [2, 2, 2], buffersize=2)) == [0, 1, 4]
        assert list(pool.map(square, [], buffersize=2)) == []
        assert list(pool.map(square, range(3), buffersize=100)) == [0, 1, 4]

    @pytest.mark.parametrize("buffersize", [1, 2, 5])
    def test_never_reads_further_ahead_than_the_buffersize(self, pool, buffersize):
        """C34."""
        numbers = itertools.count()
        results = pool.map(square, numbers, buffersize=buffersize)
        for taken in range(20):
            assert goes_on(pool, 3)
            assert int(repr(numbers)[6:-1]) <= taken + buffersize
            assert next(results) == taken * taken
        results.close()

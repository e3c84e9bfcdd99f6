"""The process pool with real processes: what dies costs its task, nothing hangs, nothing is left behind."""

from __future__ import annotations

import concurrent.futures
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import abreast
import pytest
from abreast.core.process_errors import ResultDecodeError, TaskPickleError, WorkerCrashed
from abreast.executors.process.pool import ProcessPool

from tests.helpers import is_alive, run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far")

PATIENCE = 30
variable = contextvars.ContextVar("variable", default=0)


def square(x):
    return x * x


def segfault():
    import ctypes

    ctypes.string_at(0)


def raise_error(error):
    raise error


@pytest.fixture
def pool():
    with ProcessPool(2) as pool:
        yield pool


class TestSubmit:
    def test_a_call_with_arguments(self, pool):
        assert pool.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
        assert pool.submit(int, "11", base=2).result(PATIENCE) == 3

    def test_runs_elsewhere(self, pool):
        assert pool.submit(os.getpid).result(PATIENCE) not in (os.getpid(), None)

    def test_many(self, pool):
        futures = [pool.submit(square, i) for i in range(3000)]
        assert [future.result(PATIENCE) for future in futures] == [i * i for i in range(3000)]

    def test_a_closure(self, pool):
        offset = 10
        assert pool.submit(lambda x: x + offset, 1).result(PATIENCE) == 11

    def test_an_error_arrives_as_it_was_raised(self, pool):
        with pytest.raises(ZeroDivisionError) as raised:
            pool.submit(divmod, 1, 0).result(PATIENCE)
        assert type(raised.value.__cause__) is concurrent.futures.process._RemoteTraceback

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
    def test_any_exception_is_the_tasks_outcome(self, pool, error):
        assert type(pool.submit(raise_error, error).exception(PATIENCE)) is type(error)
        assert pool.submit(square, 3).result(PATIENCE) == 9

    def test_what_cannot_be_pickled_is_its_tasks_error(self, pool):
        bad, good = pool.submit(print, threading.Lock()), pool.submit(square, 3)
        assert isinstance(bad.exception(PATIENCE), TaskPickleError)
        assert good.result(PATIENCE) == 9
        assert isinstance(pool.submit(threading.Lock).exception(PATIENCE), TaskPickleError)

    def test_a_context_variable_travels(self, pool):
        token = variable.set(7)
        try:
            assert pool.submit(variable.get).result(PATIENCE) == 7
        finally:
            variable.reset(token)
        assert pool.submit(variable.get).result(PATIENCE) == 0

    def test_64_mebibytes_both_ways_on_all_workers(self, pool):
        data = bytes(1 << 26)
        futures = [pool.submit(bytes, data) for _ in range(3)]
        assert all(future.result(PATIENCE) == data for future in futures)

    def test_a_future_works_with_the_standard_librarys_functions(self, pool):
        futures = [pool.submit(square, i) for i in range(10)]
        assert {future.result() for future in concurrent.futures.as_completed(futures, PATIENCE)} == {i * i for i in range(10)}
        assert not concurrent.futures.wait(futures, PATIENCE).not_done

    def test_callbacks_see_the_outcome_and_what_they_raise_is_logged(self, pool, caplog):
        seen, done = [], threading.Event()
        future = pool.submit(square, 3)
        future.add_done_callback(lambda _: raise_error(SystemExit()))
        future.add_done_callback(lambda future: (seen.append(future.result()), done.set()))
        assert done.wait(PATIENCE)
        assert seen == [9]
        assert pool.submit(square, 2).result(PATIENCE) == 4

    def test_what_waits_can_be_cancelled(self, tmp_path):
        with ProcessPool(1) as pool:
            running = pool.submit(time.sleep, 0.3)
            waiting = [pool.submit(square, i) for i in range(5)]
            assert waiting[3].cancel()
            assert not concurrent.futures.wait([running, *waiting], PATIENCE).not_done
            assert [future.cancelled() for future in waiting] == [False, False, False, True, False]


class TestDeath:
    @pytest.mark.parametrize(
        ("how", "named"),
        [
            (lambda: os._exit(3), "ended with exit code 3"),
            (lambda: os._exit(0), "ended with exit code 0"),
            (os.abort, "died of SIGABRT"),
            (segfault, "died of SIGSEGV"),
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "died of SIGKILL"),
        ],
        ids=["exit", "exit 0", "abort", "segfault", "kill"],
    )
    @pytest.mark.parametrize("workers", [1, 2])
    def test_fails_only_the_task_that_was_running(self, how, named, workers, tmp_path):
        log = tmp_path / "log"

        def note(i):
            with open(log, "a") as file:
                file.write(f"{i}\n")
            return i

        with ProcessPool(workers) as pool:
            before = [pool.submit(note, i) for i in range(20)]
            culprit = pool.submit(how)
            after = [pool.submit(note, i) for i in range(20, 40)]
            error = culprit.exception(PATIENCE)
            assert isinstance(error, WorkerCrashed)
            assert isinstance(error, BrokenProcessPool)
            assert named in str(error)
            assert error.pid > 0
            assert [future.result(PATIENCE) for future in before + after] == list(range(40))
        assert sorted(map(int, log.read_text().split())) == list(range(40))  # each ran once

    def test_a_segfault_tells_where_it_was(self, pool):
        assert "segfault" in pool.submit(segfault).exception(PATIENCE).stack

    def test_each_task_may_crash(self, pool):
        futures = [pool.submit(os._exit, 1) for _ in range(6)]
        errors = [future.exception(PATIENCE) for future in futures]
        assert all(isinstance(error, WorkerCrashed) for error in errors)
        assert len({id(error) for error in errors}) == 6
        assert pool.submit(square, 3).result(PATIENCE) == 9

    def test_of_an_idle_worker_fails_nobody(self, pool):
        pid = pool.submit(os.getpid).result(PATIENCE)
        os.kill(pid, signal.SIGKILL)
        assert [pool.submit(square, i).result(PATIENCE) for i in range(10)] == [i * i for i in range(10)]

    def test_while_arguments_are_unpickled_and_while_the_result_is_pickled(self, pool):
        class DiesWhenUnpickled:
            def __reduce__(self):
                return os._exit, (5,)

        def makes_one():
            class DiesWhenPickled:
                def __reduce__(self):
                    os._exit(6)

            return DiesWhenPickled()

        assert "while its arguments were unpickled" in str(pool.submit(square, DiesWhenUnpickled()).exception(PATIENCE))
        assert "while its result was pickled" in str(pool.submit(makes_one).exception(PATIENCE))

    def test_a_task_that_closes_all_descriptors(self, pool):
        error = pool.submit(lambda: (os.closerange(0, 4096), time.sleep(60))).exception(PATIENCE)
        assert isinstance(error, WorkerCrashed)
        assert "closed the worker's channel" in str(error)
        assert pool.submit(square, 3).result(PATIENCE) == 9

    def test_what_a_task_has_started_goes_with_its_worker(self, pool, tmp_path):
        def starts_and_dies():
            process = subprocess.Popen(["sleep", "600"])
            tmp_path.joinpath("pid").write_text(str(process.pid))
            os._exit(1)

        assert isinstance(pool.submit(starts_and_dies).exception(PATIENCE), WorkerCrashed)
        pid = int(tmp_path.joinpath("pid").read_text())
        deadline = time.monotonic() + PATIENCE
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_alive(pid)

    def test_a_worker_that_cannot_start_breaks_the_pool_with_its_cause(self, caplog):
        with ProcessPool(1, initializer=raise_error, initargs=(ValueError("no luck"),)) as pool:
            assert "no luck" in str(pool.submit(square, 3).exception(PATIENCE))
            with pytest.raises(BrokenProcessPool, match="no luck"):
                pool.submit(square, 3)
        assert "Exception in initializer" in caplog.text


class TestLimit:
    @pytest.mark.parametrize(
        "task",
        [
            lambda: time.sleep(60),
            lambda: sum(range(10**12)),
            lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), time.sleep(60)),
        ],
        ids=["sleeps", "computes in C", "ignores SIGTERM"],
    )
    def test_a_task_over_it_is_killed_and_told(self, task):
        with ProcessPool(2, task_timeout=0.6) as pool:
            pool.submit(square, 1).result(PATIENCE)
            begun = time.monotonic()
            slow, quick = pool.submit(task), [pool.submit(square, i) for i in range(50)]
            error = slow.exception(PATIENCE)
            assert time.monotonic() - begun < 5
            assert isinstance(error, abreast.TaskTimeout)
            assert error.limit == 0.6
            assert not error.stack or "in <lambda>" in error.stack  # it has 20 ms to be written, also on a busy machine
            assert [future.result(PATIENCE) for future in quick] == [i * i for i in range(50)]

    def test_counts_for_each_task_of_a_run_and_not_for_its_batch(self):
        with ProcessPool(1, task_timeout=0.7) as pool:
            naps = abreast.outcomes(lambda i: time.sleep(60 if i == 3 else 0.05), range(16), executor=pool, chunksize=16)
            errors = [outcome.error for outcome in naps]
        assert [type(error) for error in errors].count(abreast.TaskTimeout) == 1
        assert isinstance(errors[3], abreast.TaskTimeout)


class TestRuns:
    @pytest.mark.parametrize("chunksize", [1, 7, "auto"])
    def test_results_in_order(self, pool, chunksize):
        assert abreast.map(square, range(500), executor=pool, chunksize=chunksize) == [i * i for i in range(500)]
        assert list(abreast.imap(square, iter(range(50)), executor=pool, chunksize=chunksize)) == [i * i for i in range(50)]
        assert sorted(abreast.imap(square, range(50), executor=pool, ordered=False)) == [i * i for i in range(50)]

    @pytest.mark.parametrize("place", [0, 5, 11])
    def test_a_crash_in_a_batch_fails_that_task_alone(self, pool, place):
        outcomes = list(abreast.outcomes(lambda i: os._exit(1) if i == place else i, range(12), executor=pool, chunksize=12))
        assert [outcome.value for outcome in outcomes] == [None if i == place else i for i in range(12)]
        assert isinstance(outcomes[place].error, WorkerCrashed)
        assert outcomes[place].error.index == place

    def test_an_error_names_its_input(self, pool):
        with pytest.raises(ValueError, match="invalid literal") as raised:
            abreast.map(int, ["1", "x"], executor=pool, chunksize=1)
        assert "raised by int('x'): input 1, attempt 1, on process" in raised.value.__notes__[0]

    def test_a_result_that_cannot_be_unpickled_is_its_tasks_error(self, pool):
        class Bad:
            def __reduce__(self):
                return raise_error, (ValueError("bad"),)

        outcomes = list(abreast.outcomes(lambda i: Bad() if i == 1 else i, range(3), executor=pool))
        assert [outcome.value for outcome in outcomes] == [0, None, 2]
        assert isinstance(outcomes[1].error, ResultDecodeError)
        got = []
        with pytest.raises(ResultDecodeError):
            for value in abreast.imap(lambda i: Bad() if i == 1 else i, range(3), executor=pool):
                got.append(value)
        assert got == [0]

    def test_an_input_that_cannot_be_pickled_is_its_tasks_error(self, pool):
        outcomes = list(abreast.outcomes(str, [1, threading.Lock(), 3], executor=pool, chunksize=3))
        assert [outcome.value for outcome in outcomes] == ["1", None, "3"]
        assert isinstance(outcomes[1].error, TaskPickleError)

    def test_current_task_knows_its_index(self, pool):
        assert abreast.map(lambda _: abreast.current_task().index, range(5), executor=pool) == list(range(5))


class TestEnd:
    def test_one_that_is_dropped_in_a_cycle_ends(self):
        pool = ProcessPool(1)
        assert pool.submit(square, 3).result() == 9
        thread = pool._supervisor.thread
        pool.itself = pool
        del pool
        gc.collect()
        thread.join(20)
        assert not thread.is_alive()

    def test_shutdown_waits_for_what_is_queued(self):
        pool = ProcessPool(2)
        futures = [pool.submit(square, i) for i in range(100)]
        pool.shutdown()
        assert [future.result(0) for future in futures] == [i * i for i in range(100)]
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(square, 1)
        pool.shutdown()

    def test_without_a_submit_and_twice_and_in_threads(self):
        pool = ProcessPool(1)
        threads = [threading.Thread(target=pool.shutdown) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    def test_cancel_futures(self):
        pool = ProcessPool(1)
        futures = [pool.submit(time.sleep, 0.2) for _ in range(10)]
        pool.shutdown(cancel_futures=True)
        assert all(future.done() for future in futures)
        assert futures[-1].cancelled()

    def test_kill_workers(self):
        pool = ProcessPool(2)
        running = pool.submit(time.sleep, 60)
        pool.submit(square, 1).result(PATIENCE)
        begun = time.monotonic()
        pool.kill_workers()
        assert isinstance(running.exception(PATIENCE), BrokenProcessPool)
        pool.shutdown()
        assert time.monotonic() - begun < 5

    def test_a_pool_that_is_dropped_finishes_its_work_and_ends(self):
        pool = ProcessPool(1)
        supervisor = pool._supervisor
        future = pool.submit(square, 3)
        dropped = weakref.ref(pool)
        del pool
        gc.collect()
        assert dropped() is None
        assert future.result(PATIENCE) == 9
        assert supervisor.ended.wait(PATIENCE)

    def test_the_end_of_the_program_waits_for_what_is_queued(self):
        done = run_python("""
            import os
            from abreast.executors.process.pool import ProcessPool
            pool = ProcessPool(1)
            for i in range(3):
                pool.submit(print, i)
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("0\n1\n2\n", "", 0)

    def test_no_worker_outlives_a_parent_that_was_killed(self):
        program = subprocess.Popen(
            [sys.executable, "-c", """if 1:
                import os, time
                from abreast.executors.process.pool import ProcessPool
                pool = ProcessPool(2)
                pids = {pool.submit(os.getpid).result() for _ in range(3)}
                pool.submit(time.sleep, 60)
                pool.submit(sum, range(10**12))
                print(*pool._processes, flush=True)
                time.sleep(60)
            """],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        pids = [int(pid) for pid in program.stdout.readline().split()]
        program.kill()
        program.communicate()
        assert pids
        deadline = time.monotonic() + PATIENCE
        while any(map(is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_alive, pids))

    def test_ctrl_c_ends_the_program_within_a_second(self):
        program = subprocess.Popen(
            [sys.executable, "-c", """if 1:
                import time
                from abreast.executors.process.pool import ProcessPool
                with ProcessPool(2) as pool:
                    futures = [pool.submit(time.sleep, 60) for _ in range(4)]
                    pool.submit(int)
                    print("started", flush=True)
                    futures[0].result()
            """],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert program.stdout.readline() == "started\n"
        time.sleep(0.3)  # the workers may be starting or not: both are to end
        begun = time.monotonic()
        program.send_signal(signal.SIGINT)
        _, stderr = program.communicate(timeout=PATIENCE)
        assert time.monotonic() - begun < 2
        assert stderr.count("Traceback") == 1
        assert program.returncode in (-signal.SIGINT, 130)

    def test_a_forked_child_is_told_that_it_is_not_its_pool(self, pool):
        pool.submit(square, 2).result(PATIENCE)
        pid = os.fork()
        if pid == 0:
            try:
                pool.submit(square, 3)
            except RuntimeError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert pool.submit(square, 3).result(PATIENCE) == 9

    def test_max_tasks_per_child(self):
        with ProcessPool(1, max_tasks_per_child=2) as pool:
            pids = [future.result(PATIENCE) for future in [pool.submit(os.getpid) for _ in range(6)]]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]

    def test_no_wait_was_ended_by_its_cap(self, pool):
        for i in range(50):
            pool.submit(square, i).result(PATIENCE)
        assert pool._supervisor.capped_waits == 0

    def test_a_pool_cannot_be_pickled_and_tells_its_state(self, pool):
        import pickle

        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(pool)
        pool.submit(square, 1).result(PATIENCE)
        assert repr(pool).startswith("<ProcessPool open: ")

    def test_cancelled_error_of_what_was_cancelled(self):
        with ProcessPool(1) as pool:
            pool.submit(time.sleep, 0.2)
            waiting = [pool.submit(square, i) for i in range(3)]
            waiting[2].cancel()
            with pytest.raises(CancelledError):
                waiting[2].result(PATIENCE)

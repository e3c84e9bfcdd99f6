"""Behaviours D to G of docs/design/behaviours.md: what other libraries' tests ask of a pool of processes.

Where a behaviour is tested elsewhere:

====  ==========================================================================================================
35    test_pool.py TestEnd::test_shutdown_waits_for_what_is_queued
36    test_faults.py TestEnds::test_queued_work_is_done
42    test_faults.py TestEnds::test_submit_at_exit_is_refused; after shutdown: test_pool.py TestEnd
46    test_faults.py TestCallbacks::test_one_that_raises_is_logged
47    test_pool.py TestSubmit::test_callbacks_see_the_outcome_and_what_they_raise_is_logged
54    test_faults.py TestRecycling
55    test_faults.py TestMemory
65    test_faults.py TestFork (processes), tests/executors/test_threads.py (threads)
41, 52, 53, 57: not offered
====  ==========================================================================================================
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool

import abreast
import pytest
from abreast import ProcessPoolExecutor, TaskTimeout, WorkerCrashed

from tests.helpers import in_threads, run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.slow,  # minutes: run before an issue closes
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30


def square(x):
    return x * x


def exit_1(*_):
    os._exit(1)


def raise_error(error):
    raise error


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def goes_on(pool, count=20):
    return [future.result(PATIENCE) for future in [pool.submit(square, i) for i in range(count)]] == [i * i for i in range(count)]


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


class TestShutdown:
    """D."""

    def test_under_load_waits_for_everything(self):
        """35"""
        pool = ProcessPoolExecutor(3)
        futures = [pool.submit(time.sleep, 0.001) for _ in range(300)]
        run = pool.imap(square, range(300))
        first = next(run)
        pool.shutdown()
        assert all(future.done() for future in futures)
        assert [future.result() for future in futures] == [None] * 300
        assert first == 0
        run.close()

    def test_dropped_with_work_queued(self):
        """37: the work finishes, then all workers end; a crash in that phase fails its future, the others run."""
        pool = ProcessPoolExecutor(2)
        futures = [pool.submit(exit_1 if i == 5 else square, i) for i in range(30)]
        until(lambda: pool._processes)
        pids = list(pool._processes)
        ended = pool._supervisor.ended
        del pool
        gc.collect()
        assert isinstance(futures[5].exception(PATIENCE), WorkerCrashed)
        assert [future.result(PATIENCE) for i, future in enumerate(futures) if i != 5] == [i * i for i in range(30) if i != 5]
        assert ended.wait(PATIENCE)
        assert all(map(is_gone, pids))

    @pytest.mark.parametrize("method", ["kill_workers", "terminate_workers"])
    def test_forced(self, method):
        """38: under 5 s with long tasks; what was pending fails with an error that says so."""
        pool = ProcessPoolExecutor(2)
        running = [pool.submit(time.sleep, 600) for _ in range(2)]
        until(lambda: all(future.running() for future in running))
        waiting = [pool.submit(square, i) for i in range(5)]
        begun = time.monotonic()
        getattr(pool, method)()
        for future in running:
            with pytest.raises(BrokenProcessPool, match="killed|terminated|SIGTERM"):
                future.result(PATIENCE)
        assert concurrent.futures.wait(waiting, PATIENCE).not_done == set()
        assert all(future.cancelled() or isinstance(future.exception(), BrokenProcessPool) for future in waiting)
        pool.shutdown()
        assert time.monotonic() - begun < 5
        with pytest.raises(RuntimeError):
            pool.submit(square, 1)

    @pytest.mark.parametrize("method", ["kill_workers", "terminate_workers"])
    @pytest.mark.parametrize("state", ["unused", "starting", "broken", "replacing", "shut down"])
    def test_forced_in_every_state(self, method, state):
        """38: before the first worker, on a broken pool, while a worker is being replaced, after shutdown."""
        pool = ProcessPoolExecutor(2, initializer=exit_1 if state == "broken" else None)
        futures = [] if state == "unused" else [pool.submit(exit_1 if state == "replacing" else square, 2)]
        if state == "broken":
            assert isinstance(futures[0].exception(PATIENCE), BrokenProcessPool)
        elif state == "replacing":
            assert isinstance(futures[0].exception(PATIENCE), WorkerCrashed)
            futures.append(pool.submit(time.sleep, 600))
        elif state == "shut down":
            pool.shutdown()
        getattr(pool, method)()
        getattr(pool, method)()
        assert not concurrent.futures.wait(futures, PATIENCE).not_done
        in_threads(pool.shutdown)

    def test_forced_with_a_pool_inside(self, tmp_path):
        """38: executors nested two deep: the workers of the inner one go too."""

        def outer():
            inner = ProcessPoolExecutor(1)
            inner.submit(lambda: ((tmp_path / "inner").write_text(str(os.getpid())), time.sleep(600))).result()

        pool = ProcessPoolExecutor(1)
        future = pool.submit(outer)
        until(lambda: (tmp_path / "inner").exists() and (tmp_path / "inner").read_text())
        begun = time.monotonic()
        pool.kill_workers()
        assert isinstance(future.exception(PATIENCE), BrokenProcessPool)
        pool.shutdown()
        until(lambda: is_gone(int((tmp_path / "inner").read_text())))
        assert time.monotonic() - begun < 5

    @pytest.mark.parametrize("how", ["shutdown", "crash", "initializer", "kill", "limit"])
    def test_nothing_is_left(self, how, tmp_path):
        """39: no process, thread, descriptor, memory, file; the resource tracker says nothing. Here too by the guards of conftest.py."""
        done = run_python(f"""
            import os, sys, threading, time
            import abreast
            how = {how!r}
            with abreast.ProcessPoolExecutor(1) as pool:
                pool.submit(pow, 2, 3).result()
            before = sorted(os.listdir("/proc/self/fd"))
            options = {{"initializer": os._exit, "initargs": (1,)}} if how == "initializer" else {{}}
            pool = abreast.ProcessPoolExecutor(2, task_timeout=0.2 if how == "limit" else None, **options)
            futures = [pool.submit(*((os._exit, 1) if how == "crash" else (time.sleep, 60) if how in ("kill", "limit") else (pow, 2, 3)))
                       for _ in range(2)]
            if how == "kill":
                pool.kill_workers()
            [future.exception() if not future.cancelled() else None for future in futures if how != "kill" or not future.cancel()]
            pool.shutdown()
            print(sorted(os.listdir("/proc/self/fd")) == before, threading.active_count(), os.listdir({str(tmp_path)!r}))
            from abreast.executors.process import guardian
            (one,) = guardian.kept()  # it stays for the next pool, until the end of the program
            for pid in (os.getpid(), one.pid):
                with open(f"/proc/{{pid}}/task/{{pid}}/children") as file:
                    print(sorted(set(file.read().split()) - {{str(one.pid)}}))
        """, timeout=PATIENCE)  # fmt: skip
        assert (done.stdout, done.stderr, done.returncode) == ("True 1 []\n[]\n[]\n", "", 0)

    def test_from_a_callback(self):
        """40: shutdown called from a done callback, waiting or not: no deadlock, then submit raises."""
        for wait in (False, True):
            pool = ProcessPoolExecutor(1)
            called = threading.Event()

            def shut_down(_, pool=pool, called=called, wait=wait):
                pool.shutdown(wait=wait)
                called.set()

            future = pool.submit(time.sleep, 0.1)
            future.add_done_callback(shut_down)
            assert called.wait(PATIENCE)
            with pytest.raises(RuntimeError, match="after shutdown"):
                pool.submit(square, 1)
            pool.shutdown()

    @pytest.mark.parametrize("seed", range(5))
    def test_submit_races_shutdown(self, seed):
        """43: accepted and done, or RuntimeError; never lost, never hung."""
        pool = ProcessPoolExecutor(2)
        pool.submit(square, 1).result(PATIENCE)
        accepted = [[] for _ in range(3)]

        def submit(n):
            with contextlib.suppress(RuntimeError):
                for i in range(100_000):
                    accepted[n].append((i, pool.submit(square, i)))

        def shut_down():
            until(lambda: sum(map(len, accepted)) > 50 * seed)
            pool.shutdown(wait=bool(seed % 2))

        in_threads(*[lambda n=n: submit(n) for n in range(3)], shut_down)
        for i, future in [pair for pairs in accepted for pair in pairs]:
            assert future.result(PATIENCE) == i * i
        pool.shutdown()

    def test_many_times(self):
        """44: twice, in several threads at once, inside `with`, with nothing submitted."""
        for used in (False, True):
            with ProcessPoolExecutor(2) as pool:
                futures = [pool.submit(square, i) for i in range(20 * used)]
                in_threads(
                    *[pool.shutdown] * 4, lambda: pool.shutdown(wait=False), lambda: pool.shutdown(cancel_futures=not used)
                )
            pool.shutdown()
            assert [future.result(0) for future in futures] == [i * i for i in range(20 * used)]

    def test_cancel_right_before(self):
        """45"""
        for _ in range(5):
            pool = ProcessPoolExecutor(1)
            futures = [pool.submit(square, i) for i in range(50)]
            cancelled = {future for future in futures if future.cancel()}
            pool.shutdown()
            assert all(future.done() for future in futures)
            assert all(future.cancelled() == (future in cancelled) for future in futures)


class TestCallbacks:
    """E."""

    def test_submit_from_a_callback(self, pool):
        """48: three chains of 100 links at once."""
        done = threading.Barrier(4)

        def chain(left):
            def again(future):
                assert future.result() == left * left
                if left:
                    chain(left - 1)
                else:
                    threading.Thread(target=done.wait, args=(PATIENCE,)).start()

            pool.submit(square, left).add_done_callback(again)

        for _ in range(3):
            chain(100)
        done.wait(PATIENCE)

    @pytest.mark.parametrize("place", ["run", "unpickle", "pickle", "unpickle result", "pickle argument"])
    @pytest.mark.parametrize("what", ["crash", "exit", "error"])
    def test_submit_from_a_callback_a_task_that_crashes(self, pool, what, place):
        """49"""
        do = {"crash": exit_1, "exit": sys.exit, "error": lambda: raise_error(ValueError("no"))}[what]
        if place in ("unpickle result", "pickle argument") and what == "crash":
            pytest.skip("would end this process")

        class Arrives:
            def __reduce__(self):
                return do, ()

        class Leaves:
            def __reduce__(self):
                do()

        tasks = {
            "run": (do,),
            "unpickle": (type, Arrives()),
            "pickle": (Leaves,),
            "unpickle result": (Arrives,),
            "pickle argument": (type, Leaves()),
        }
        futures, submitted = [], threading.Event()

        def submit(_):
            futures.append(pool.submit(*tasks[place]))
            submitted.set()

        pool.submit(time.sleep, 0.05).add_done_callback(submit)
        assert submitted.wait(PATIENCE)
        assert futures[0].exception(PATIENCE) is not None
        assert goes_on(pool)

    def test_sees_what_result_does_and_is_called_once(self):
        """50: timeouts, crashes, cancelling, errors, values."""
        with ProcessPoolExecutor(1, task_timeout=0.5) as pool:
            futures = [
                pool.submit(*call)
                for call in ((square, 3), (divmod, 1, 0), (exit_1,), (time.sleep, 60), (square, 4), (square, 5))
            ]
            seen = []
            for future in futures:
                future.add_done_callback(seen.append)
            futures[-1].cancel()
            concurrent.futures.wait(futures, PATIENCE)
            until(lambda: len(seen) >= 6)
        assert sorted(map(id, seen)) == sorted(map(id, futures))
        told = [None if future.cancelled() else type(future.exception(0)) for future in futures]
        assert told == [type(None), ZeroDivisionError, WorkerCrashed, TaskTimeout, type(None), None]


class TestWorkers:
    """F."""

    @pytest.mark.parametrize("n", [1, 2, 4])
    def test_more_than_cores_really_run_at_once(self, n, tmp_path):
        """51: a barrier of 2n + 2 tasks passes."""
        count = 2 * n + 2

        def meet(i):
            (tmp_path / str(i)).touch()
            deadline = time.monotonic() + PATIENCE
            while len(os.listdir(tmp_path)) < count:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.005)
            return True

        with ProcessPoolExecutor(count) as pool:
            assert [future.result(PATIENCE) for future in [pool.submit(meet, i) for i in range(count)]] == [True] * count

    def test_long_tasks_after_tiny_ones_run_at_once(self, tmp_path):
        """51: also when all tasks before were tiny, and tiny ones wait behind."""

        def meet(here, there):
            here.touch()
            deadline = time.monotonic() + 3
            while not there.exists():
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.002)
            return True

        for n in range(12):
            with ProcessPoolExecutor(2, mp_context="fork") as pool:
                assert goes_on(pool)
                a, b = tmp_path / f"a{n}", tmp_path / f"b{n}"
                futures = [pool.submit(meet, a, b), pool.submit(meet, b, a)]
                tiny = [pool.submit(square, i) for i in range(5)]
                assert [future.result(PATIENCE) for future in futures] == [True, True]
                assert [future.result(PATIENCE) for future in tiny] == [0, 1, 4, 9, 16]

    def test_a_replacement_that_cannot_be_started_fails_the_queue_with_the_reason(self, tmp_path):
        """54: at max_tasks_per_child too."""

        def once():
            try:
                (tmp_path / "once").touch(exist_ok=False)
            except FileExistsError:
                os._exit(9)

        with ProcessPoolExecutor(1, max_tasks_per_child=2, initializer=once) as pool:
            futures = [pool.submit(square, i) for i in range(6)]
            assert [future.result(PATIENCE) for future in futures[:2]] == [0, 1]
            for future in futures[2:]:
                with pytest.raises(BrokenProcessPool, match="exit code 9"):
                    future.result(PATIENCE)

    def test_the_initializer_runs_in_every_worker(self, tmp_path):
        """56: in replacements too."""

        def note(path):
            with open(path, "a") as file:
                file.write(f"{os.getpid()}\n")

        with ProcessPoolExecutor(2, initializer=note, initargs=(tmp_path / "log",), max_tasks_per_child=2) as pool:
            pids = {future.result(PATIENCE) for future in [pool.submit(os.getpid) for _ in range(8)]}
            assert isinstance(pool.submit(exit_1).exception(PATIENCE), WorkerCrashed)
            pids.add(pool.submit(os.getpid).result(PATIENCE))
        noted = (tmp_path / "log").read_text().split()
        assert len(noted) == len(set(noted))
        assert pids <= set(map(int, noted))

    @pytest.mark.parametrize("error", [ValueError("no luck"), SystemExit("no luck"), KeyboardInterrupt("no luck")])
    def test_one_that_fails_is_logged_and_breaks_the_pool(self, error, caplog):
        """56: by whatever it raises; what waits and what comes later fails."""
        with ProcessPoolExecutor(2, initializer=raise_error, initargs=(error,)) as pool:
            futures = []
            with contextlib.suppress(BrokenProcessPool):
                futures += [pool.submit(square, i) for i in range(5)]
            for future in futures:
                with pytest.raises(BrokenProcessPool, match="no luck"):
                    future.result(PATIENCE)
            with pytest.raises(BrokenProcessPool, match="no luck"):
                pool.submit(square, 3)
        assert [record.levelname for record in caplog.records if "Exception in initializer" in record.message]

    def test_one_that_takes_long_does_not_hold_up_shutdown(self):
        """56"""
        pool = ProcessPoolExecutor(2, initializer=time.sleep, initargs=(60,))
        future = pool.submit(square, 3)
        until(lambda: pool._processes)
        begun = time.monotonic()
        pool.shutdown(cancel_futures=True)
        assert time.monotonic() - begun < 10
        assert future.cancelled()

    def test_numpys_threads_in_the_parent(self):
        """58"""
        numpy = pytest.importorskip("numpy")
        a = numpy.ones((300, 300))
        a @ a

        def multiply(a):
            return float((a @ a).sum())

        with ProcessPoolExecutor(2) as pool:
            assert {future.result(PATIENCE) for future in [pool.submit(multiply, a) for _ in range(4)]} == {300.0**3}

    @pytest.mark.parametrize("what", ["stdin", "Process", "Pool", "standard", "ours", "ours without shutdown", "run"])
    def test_a_task_starts_processes_of_its_own(self, what, pool):
        """59: subprocesses that read stdin, multiprocessing, an executor of its own."""

        def task():
            import concurrent.futures
            import multiprocessing

            if what == "stdin":
                done = subprocess.run(
                    [sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"], capture_output=True, text=True
                )
                return done.stdout == "''\n"
            context = multiprocessing.get_context("fork")
            if what == "Process":
                process = context.Process(target=int)
                process.start()
                process.join()
                return process.exitcode == 0
            if what == "Pool":
                with context.Pool(2) as inner:
                    return inner.map(abs, [1, -2]) == [1, 2]
            if what == "standard":
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as inner:
                    return inner.submit(abs, -3).result() == 3
            if what == "run":
                return abreast.map(abs, range(-3, 3), kind="process") == [3, 2, 1, 0, 1, 2]
            inner = ProcessPoolExecutor(1)
            result = inner.submit(abs, -3).result()
            if what == "ours":
                inner.shutdown()
            return result == 3

        assert pool.submit(task).result(PATIENCE) is True
        begun = time.monotonic()
        pool.shutdown()
        assert time.monotonic() - begun < 10

    def test_pools_nested_three_deep(self):
        """59"""

        def nest(depth):
            if not depth:
                return 0
            with ProcessPoolExecutor(1) as inner:
                return 1 + inner.submit(nest, depth - 1).result()

        assert nest(3) == 3

    def test_no_warning_of_a_fork(self):
        """60"""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stop = threading.Event()
            thread = threading.Thread(target=stop.wait)
            thread.start()
            with ProcessPoolExecutor(2) as pool:
                assert goes_on(pool)
            stop.set()
            thread.join()

    @pytest.mark.parametrize("how", ["-c", "stdin", "script", "-m"])
    def test_from_anywhere_without_a_guard(self, how, tmp_path):
        """61"""
        code = "import abreast\ndef f(x): return x + offset\noffset = 1\nprint(abreast.map(f, range(3), kind='process'))\n"
        script = tmp_path / "script_without_guard.py"
        script.write_text(code)
        command = {"-c": ["-c", code], "stdin": ["-"], "script": [str(script)], "-m": ["-m", "script_without_guard"]}[how]
        done = subprocess.run(
            [sys.executable, *command],
            input=code if how == "stdin" else "",
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("[1, 2, 3]\n", "", 0)

    def test_workers_are_told_by_name_and_pid(self, pool):
        """62"""
        error = pool.submit(exit_1).exception(PATIENCE)
        assert error.worker.startswith("worker ")
        assert error.pid > 1
        assert pool.submit(os.getpid).result(PATIENCE) in pool._processes

    def test_a_tool_that_hooks_the_start_of_processes_is_started(self, tmp_path, monkeypatch):
        """62: as coverage does it, by a .pth file or sitecustomize."""
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.hooked = True\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")])))
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(lambda: getattr(sys, "hooked", False)).result(PATIENCE) is True


class TestManyUsers:
    """G."""

    def test_ten_threads_share_one(self):
        """63: map, submit, cancel mixed; results right, none lost."""
        with ProcessPoolExecutor(3) as pool:

            def use(n):
                for round_ in range(3):
                    futures = [pool.submit(square, i) for i in range(30)]
                    cancelled = [future for future in futures[::7] if future.cancel()]
                    assert list(pool.map(square, range(n, n + 20), chunksize=1 + round_)) == [i * i for i in range(n, n + 20)]
                    for i, future in enumerate(futures):
                        assert future.cancelled() if future in cancelled else future.result(PATIENCE) == i * i

            in_threads(*[lambda n=n: use(n) for n in range(10)])
            now = pool.statistics()
            assert (now.running, now.pending, now.failed) == (0, 0, 0)

    def test_the_same_while_workers_die(self):
        """64: those that have begun to work, so that none counts as one that could not start."""
        stop = threading.Event()
        ready = []
        with ProcessPoolExecutor(2) as pool:

            def use(n):
                for i in range(40):
                    crashes = i % 20 == n
                    future = pool.submit(os._exit, 1) if crashes else pool.submit(lambda i: (os.getpid(), i * i), i)
                    error = future.exception(PATIENCE)
                    assert isinstance(error, WorkerCrashed) or (error is None and not crashes)
                    if error is None:
                        assert future.result()[1] == i * i
                        ready.append(future.result()[0])

            def kill():
                while not stop.wait(0.3):
                    if ready and ready[-1] in pool._processes:
                        with contextlib.suppress(OSError):
                            os.kill(ready[-1], signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            try:
                in_threads(*[lambda n=n: use(n) for n in range(6)])
            finally:
                stop.set()
                killer.join()
            assert goes_on(pool)

    def test_the_program_forks_while_a_pool_runs(self):
        """65: the child ends, and can make a pool of its own."""
        done = run_python("""
            import os, sys, time
            import abreast
            with abreast.ProcessPoolExecutor(2) as pool:
                futures = [pool.submit(time.sleep, 0.01) for _ in range(50)]
                pid = os.fork()
                if pid == 0:
                    with abreast.ProcessPoolExecutor(1) as own:
                        ok = own.submit(pow, 2, 3).result(20) == 8
                    os._exit(0 if ok else 1)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), [future.result() for future in futures] == [None] * 50)
        """)
        assert (done.stdout, done.returncode) == ("0 True\n", 0)

    def test_futures_mixed_with_the_standard_librarys(self, pool):
        """66"""
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            futures = [one.submit(square, i) for i in range(10) for one in (pool, threads)]
            assert {future.result() for future in concurrent.futures.as_completed(futures, PATIENCE)} == {
                i * i for i in range(10)
            }
            assert not concurrent.futures.wait(futures, PATIENCE).not_done
            slow = [pool.submit(time.sleep, 60), threads.submit(square, 2)]
            done, not_done = concurrent.futures.wait(slow, PATIENCE, concurrent.futures.FIRST_COMPLETED)
            assert (done, not_done) == ({slow[1]}, {slow[0]})
            bad = [pool.submit(exit_1), *slow[:1]]
            done, _ = concurrent.futures.wait(bad, PATIENCE, concurrent.futures.FIRST_EXCEPTION)
            assert bad[0] in done
            pool.kill_workers()
        assert all(isinstance(future, concurrent.futures.Future) for future in futures)

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("mine")])
    def test_any_exception_reaches_its_future_and_nothing_else(self, error):
        """67: the worker serves on."""
        with ProcessPoolExecutor(1) as pool:
            pid = pool.submit(os.getpid).result(PATIENCE)
            assert type(pool.submit(raise_error, error).exception(PATIENCE)) is type(error)
            assert pool.submit(os.getpid).result(PATIENCE) == pid

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"max_workers": 0}, ValueError),
            ({"max_workers": -1}, ValueError),
            ({"max_workers": 1.5}, TypeError),
            ({"max_workers": "2"}, TypeError),
            ({"mp_context": "teleport"}, ValueError),
            ({"initializer": 7}, TypeError),
            ({"initializer": print, "initargs": 7}, TypeError),
            ({"max_tasks_per_child": 0}, ValueError),
            ({"max_tasks_per_child": "1"}, TypeError),
            ({"task_timeout": 0}, ValueError),
            ({"task_timeout": "1"}, TypeError),
            ({"max_memory_per_child": 0}, ValueError),
            ({"colour": "red"}, TypeError),
        ],
        ids=str,
    )
    def test_bad_arguments_fail_at_construction(self, options, error):
        """68"""
        with pytest.raises(error, match=next(iter(options)) if "initargs" not in options else "initargs"):
            ProcessPoolExecutor(**options)

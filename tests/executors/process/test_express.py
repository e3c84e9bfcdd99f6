"""The short way for single calls (express.py): nothing is lost, doubled or mixed up, whatever strikes meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from time import monotonic, sleep

import pytest

import abreast
from abreast.executors.process.express import Lanes
from tests.helpers import ROOT

PATIENCE = 60


def square(x):
    return x * x


def fail(x):
    raise ValueError(x)


def nap(seconds):
    sleep(seconds)
    return seconds


@pytest.fixture
def ways(monkeypatch):
    """Count the calls that go the short way."""
    counts = {"short": 0, "usual": 0}
    send = Lanes.send

    def counted(self, call):
        sent = send(self, call)
        counts["short" if sent else "usual"] += 1
        return sent

    monkeypatch.setattr(Lanes, "send", counted)
    return counts


class TestWays:
    def test_one_call_after_another_goes_the_short_way(self, ways):
        with abreast.ProcessPoolExecutor(2) as executor:
            executor.submit(square, 0).result(PATIENCE)
            for x in range(300):
                assert executor.submit(square, x).result(PATIENCE) == x * x
            assert executor.statistics().finished == 301
        assert ways["short"] > 100

    def test_errors_are_counted_and_told(self, ways):
        with abreast.ProcessPoolExecutor(1) as executor:
            for x in range(50):
                with pytest.raises(ValueError, match=f"^{x}$"):
                    executor.submit(fail, x).result(PATIENCE)
            assert executor.statistics()[5:7] == (0, 50)
        assert ways["short"] > 30

    @pytest.mark.parametrize("option", [{"max_tasks_per_child": 1000}, {"max_memory_per_child": 1 << 40}])
    def test_a_pool_that_has_to_watch_has_none(self, option):
        with abreast.ProcessPoolExecutor(1, **option) as executor:
            assert executor._supervisor.lanes is None
            assert [executor.submit(square, x).result(PATIENCE) for x in range(5)] == [0, 1, 4, 9, 16]

    def test_a_call_with_a_limit_does_not_take_it(self, ways):
        with abreast.ProcessPoolExecutor(1, task_timeout=PATIENCE) as executor:
            for x in range(20):
                executor.submit(square, x).result(PATIENCE)
        assert ways["short"] == 0

    def test_large_calls_and_results(self, ways):
        with abreast.ProcessPoolExecutor(1) as executor:
            for size in (3000, 3300, 3500, 4096, 70_000, 1_000_000):
                data = os.urandom(size)
                assert executor.submit(bytes, data).result(PATIENCE) == data
                assert executor.submit(bytes, size).result(PATIENCE) == bytes(size)
        assert ways["short"]
        assert ways["usual"]

    def test_more_functions_than_a_worker_keeps(self):
        functions = [lambda x, n=n: x + n for n in range(100)]
        with abreast.ProcessPoolExecutor(1) as executor:
            for _ in range(3):
                for n, function in enumerate(functions):
                    assert executor.submit(function, 1).result(PATIENCE) == 1 + n


class TestWaiting:
    def test_a_result_that_is_waited_for_in_slices(self):
        with abreast.ProcessPoolExecutor(1) as executor:
            executor.submit(square, 1).result(PATIENCE)
            for seconds in (0.0, 0.01, 0.05):
                future = executor.submit(nap, seconds)
                slices = 0
                while True:
                    try:
                        assert future.result(0.003) == seconds
                        break
                    except TimeoutError:
                        slices += 1
                assert slices > 2 or seconds < 0.05

    def test_all_other_ways_to_wait(self):
        with abreast.ProcessPoolExecutor(2) as executor:
            executor.submit(square, 1).result(PATIENCE)
            for x in range(50):
                called = threading.Event()
                future = executor.submit(square, x)
                future.add_done_callback(lambda _, called=called: called.set())
                assert called.wait(PATIENCE)
                assert future.result(0) == x * x
                assert [f.result(0) for f in as_completed([executor.submit(square, x)], PATIENCE)] == [x * x]
                done, _ = wait([executor.submit(square, x), executor.submit(square, x)], PATIENCE, FIRST_COMPLETED)
                assert done
                future = executor.submit(square, x)
                while not future.done():
                    sleep(0.0001)
                assert future.exception(0) is None

    def test_several_threads_wait_for_one(self):
        with abreast.ProcessPoolExecutor(1) as executor:
            executor.submit(square, 1).result(PATIENCE)
            for _ in range(20):
                future = executor.submit(nap, 0.01)
                got = []
                threads = [threading.Thread(target=lambda f=future, got=got: got.append(f.result(PATIENCE))) for _ in range(5)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(PATIENCE)
                assert got == [0.01] * 5


@pytest.mark.whole
class TestDisturbed:
    def test_log_records_come_between(self, caplog):
        def chatter(x):
            def talk():
                for i in range(200):
                    logging.getLogger("chatter").warning("line %d", i)

            threading.Thread(target=talk).start()
            return x

        with abreast.ProcessPoolExecutor(1) as executor:
            for x in range(30):
                assert executor.submit(chatter, x).result(PATIENCE) == x
                for y in range(20):
                    assert executor.submit(square, y).result(PATIENCE) == y * y
        assert len([record for record in caplog.records if record.name == "chatter"]) == 6000

    def test_workers_are_killed_meanwhile(self, tmp_path):
        """Each call has one outcome: its own result, or that its worker has crashed; it ran once at most."""
        ran = tmp_path / "ran"
        fd = os.open(ran, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        path = str(ran)

        def task(x):
            log = os.open(path, os.O_APPEND | os.O_WRONLY)
            os.write(log, b"%d\n" % x)
            os.close(log)
            return x

        crashed, results = [], []
        with abreast.ProcessPoolExecutor(2) as executor:
            over = threading.Event()

            def kill():
                while not over.wait(random.random() * 0.02):
                    for pid in random.sample(sorted(executor._processes), min(1, len(executor._processes))):
                        with contextlib.suppress(ProcessLookupError):  # it may have been killed, and reaped, a moment ago
                            os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill)
            executor.submit(square, 1).result(PATIENCE)
            killer.start()
            end, x = monotonic() + 3, 0
            while monotonic() < end:
                x += 1
                try:
                    results.append(executor.submit(task, x).result(PATIENCE) == x)
                except BrokenProcessPool:
                    crashed.append(x)
            over.set()
            killer.join()
        os.close(fd)
        assert all(results)
        assert len(results) + len(crashed) == x
        lines = ran.read_text().split()
        assert len(lines) == len(set(lines))
        assert len(lines) >= len(results)

    def test_many_threads(self, ways):
        wrong = []

        def work(executor, seed):
            rng = random.Random(seed)
            for _ in range(300):
                x = rng.randrange(10**6)
                if executor.submit(square, x).result(PATIENCE) != x * x:
                    wrong.append(x)

        with abreast.ProcessPoolExecutor(3) as executor:
            threads = [threading.Thread(target=work, args=(executor, seed)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert executor.statistics().finished == 1800
        assert not wrong
        assert ways["short"] > 100

    def test_single_calls_amid_runs(self):
        with abreast.ProcessPoolExecutor(2) as executor:
            for _ in range(20):
                run = executor.map(square, range(50))
                for x in range(20):
                    assert executor.submit(square, x).result(PATIENCE) == x * x
                assert list(run) == [x * x for x in range(50)]

    @pytest.mark.parametrize("how", ["shutdown", "kill_workers"])
    def test_the_end_comes_meanwhile(self, how):
        for _ in range(15):
            executor = abreast.ProcessPoolExecutor(2)
            executor.submit(square, 1).result(PATIENCE)
            outcomes = []

            def work(executor=executor, outcomes=outcomes):
                try:
                    while True:
                        outcomes.append(executor.submit(square, 3).result(PATIENCE))
                except (RuntimeError, BrokenProcessPool, CancelledError) as error:
                    outcomes.append(error)

            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads:
                thread.start()
            sleep(random.random() * 0.01)
            getattr(executor, how)()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
            executor.shutdown()
            assert set(map(type, outcomes)) <= {int, RuntimeError, BrokenProcessPool, CancelledError, abreast.WorkerCrashed}


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment(seconds):
    """The main thread is interrupted all the time, and goes on: no later call hangs, is lost, or gets another one's result."""
    program = f"""
        import os, random, signal, sys, threading, time, faulthandler
        import abreast
        faulthandler.dump_traceback_later({seconds} + 60, exit=True)

        def square(x):
            return x * x

        executor = abreast.ProcessPoolExecutor(2)
        executor.submit(abs, 1).result()
        main, over = threading.get_ident(), threading.Event()

        def strike():
            while not over.wait(random.random() * 0.002):
                signal.pthread_kill(main, signal.SIGINT)

        def interrupt(number, frame):
            if frame.f_code is not outer:  # else it would strike within the handling of the last one
                raise KeyboardInterrupt

        def work():
            global x, right
            while time.monotonic() < end:
                x += 1
                assert executor.submit(abs, -x).result() == x
                right += 1
            over.set()
            striker.join()

        outer = sys._getframe().f_code
        signal.signal(signal.SIGINT, interrupt)
        striker = threading.Thread(target=strike)
        right = struck = x = 0
        end = time.monotonic() + {seconds}
        is_over = False
        try:
            striker.start()
        except KeyboardInterrupt:
            pass
        while not is_over:
            try:
                work()
                is_over = True
            except KeyboardInterrupt:
                struck += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert [executor.submit(abs, -x).result(20) for x in range(100)] == list(range(100))
        assert [f.result(20) for f in [executor.submit(abs, -x) for x in range(100)]] == list(range(100))
        executor.shutdown()
        print(right, struck)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 100, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    right, struck = map(int, done.stdout.split())
    assert right > 20 * seconds
    assert struck > 20 * seconds


def test_statistics_count_calls_that_went_the_short_way():
    with abreast.ProcessPoolExecutor(1) as executor:
        executor.submit(square, 1).result(PATIENCE)
        future = executor.submit(nap, 0.5)
        assert executor.statistics().running == 1
        assert future.result(PATIENCE) == 0.5
        assert executor.statistics().running == 0

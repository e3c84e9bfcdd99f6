"""Faults of docs/design/failures.md with real processes: each costs its task alone, nothing hangs, nothing is left behind.

The number of the fault is in each class's docstring. F1 to F16 are in test_pool.py and test_process_runs.py.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import gc
import inspect
import itertools
import logging
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time
import tracemalloc
import uuid
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import abreast
import pytest
from abreast import ProcessPoolExecutor, TaskTimeout, WorkerCrashed
from abreast.core.process_errors import MemoryLimitExceeded
from abreast.executors.process import launch
from abreast.executors.process import pool as pool_module

from tests.helpers import is_alive, run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.slow,  # minutes: run before an issue closes
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may change its user id")


def square(x):
    return x * x


def exit_1(_=None):
    os._exit(1)


def raise_error(error):
    raise error


def state_of(pid):
    """The letter of /proc; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def goes_on(pool, count=20):
    return [future.result(PATIENCE) for future in [pool.submit(square, i) for i in range(count)]] == [i * i for i in range(count)]


class Program:
    """A program of the user's: it is found, and so is all that it starts, by a marker in the environment."""

    def __init__(self, code, *args, **more):
        self.marker = f"ABREAST_TEST_MARKER={uuid.uuid4().hex}"
        name, _, value = self.marker.partition("=")
        env = {**os.environ, name: value, "PYTHONUNBUFFERED": "1", **more.pop("env", {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **more,
        )  # fmt: skip

    def others(self):
        """The pids of all processes with the marker but the program's own."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and int(entry) != self.process.pid:
                with contextlib.suppress(OSError):
                    if self.marker.encode() in Path(f"/proc/{entry}/environ").read_bytes() and is_alive(int(entry)):
                        found.append(int(entry))
        return found

    def line(self):
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate(timeout=PATIENCE)[1]
        return line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # not by its number, which another process may have by now
        for pid in self.others():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def daemons(tmp_path):
    """The path of a file with the pids of what is to be killed at the end."""
    path = tmp_path / "daemons"
    yield path
    for pid in path.read_text().split() if path.exists() else ():
        with contextlib.suppress(OSError):
            if b"abreast.executors.process.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():  # still ours
                os.kill(int(pid), signal.SIGKILL)


def leave_a_daemon(path):
    """Fork twice: a grandchild in a session of its own holds all descriptors of the worker."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(120)
        os._exit(0)
    os.waitpid(pid, 0)
    while not os.path.exists(path) or not os.path.getsize(path):
        time.sleep(0.001)
    return os.getpid()


class TestGrandchildren:
    """F17: a task leaves daemons that hold the worker's descriptors."""

    def test_death_is_seen_although_the_pipes_stay_open(self, pool, daemons):
        future = pool.submit(lambda: (leave_a_daemon(daemons), os._exit(3)))
        error = future.exception(PATIENCE)
        assert isinstance(error, WorkerCrashed)
        assert error.exitcode == 3
        assert is_alive(int(daemons.read_text()))
        assert goes_on(pool)

    def test_neither_shutdown_nor_the_death_of_an_idle_worker_waits_for_them(self, daemons):
        with ProcessPoolExecutor(1) as pool:
            pid = pool.submit(leave_a_daemon, daemons).result(PATIENCE)
            os.kill(pid, signal.SIGKILL)
            assert goes_on(pool)
            assert pool.submit(leave_a_daemon, daemons).result(PATIENCE) != pid
            begun = time.monotonic()
            pool.shutdown()
            assert time.monotonic() - begun < 5
        assert all(is_alive(int(pid)) for pid in daemons.read_text().split())

    def test_those_in_the_workers_group_end_with_it(self, pool, tmp_path):
        def starts(how):
            process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
            (tmp_path / "pid").write_text(str(process.pid))
            how()

        for how in (exit_1, lambda: time.sleep(600)):
            with ProcessPoolExecutor(1, task_timeout=2) as own:
                assert isinstance(own.submit(starts, how).exception(PATIENCE), (WorkerCrashed, TaskTimeout))
                until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def replace_fds(fds):
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)


def our_worker():
    """In a task: the object of the worker that runs it."""
    found = sys._getframe()
    while type(found.f_locals.get("self")).__name__ != "_Worker":
        found = found.f_back
    return found.f_locals["self"]


class TestDescriptors:
    """F18: a task closes descriptors, or puts others in their place."""

    @pytest.mark.parametrize(
        "task",
        [
            lambda: os.closerange(0, 4096),
            lambda: replace_fds(range(190, 260)),
            lambda: os.close(our_worker().result_fd),
            lambda: replace_fds([our_worker().result_fd]),
            lambda: os.dup2(our_worker().task_fd, our_worker().result_fd),
        ],
        ids=["closes all", "replaces ours", "closes the result pipe", "replaces the result pipe", "puts one over the other"],
    )
    def test_the_task_fails_with_a_clear_text(self, pool, task):
        error = pool.submit(task).exception(PATIENCE)
        assert isinstance(error, WorkerCrashed)
        assert "closed the worker's channel" in str(error) or "ended with exit code" in str(error), str(error)
        assert goes_on(pool)

    @pytest.mark.parametrize(
        "task",
        [
            lambda: os.closerange(0, 100),
            lambda: os.closerange(1, 3),
            lambda: replace_fds(range(100)),
            lambda: (sys.stdout.close(), sys.stderr.close(), os.closerange(1, 3)),
            lambda: setattr(sys, "stdout", None),
        ],
        ids=["closes the low ones", "closes 1 and 2", "replaces the low ones", "closes the streams", "has no stream"],
    )
    def test_the_low_ones_are_not_ours(self, task):
        with ProcessPoolExecutor(1) as pool:
            pid = pool.submit(os.getpid).result(PATIENCE)
            assert pool.submit(lambda: (task(), None)[1]).result(PATIENCE) is None
            assert goes_on(pool)
            assert pool.submit(os.getpid).result(PATIENCE) == pid

    def test_closing_the_task_pipe_fails_nobody_but_perhaps_the_task(self, pool):
        future = pool.submit(lambda: os.close(our_worker().task_fd))
        assert future.exception(PATIENCE) is None or isinstance(future.exception(), WorkerCrashed)
        assert goes_on(pool)


class TestIdleDeaths:
    """F19: a worker dies idle: nobody fails, it is replaced; there is a warning after five."""

    def test_warns_after_five(self, caplog):
        with ProcessPoolExecutor(1) as pool:
            for _ in range(5):
                assert not caplog.records
                pid = pool.submit(os.getpid).result(PATIENCE)
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: pid not in pool._processes)
            until(lambda: caplog.records)
            assert goes_on(pool)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "5 idle workers died" in caplog.text
        assert "SIGKILL" in caplog.text

    def test_of_all_workers_at_once(self, pool):
        for _ in range(3):
            barrier = [pool.submit(time.sleep, 0.05) for _ in range(4)]
            concurrent.futures.wait(barrier, PATIENCE)
            for pid in list(pool._processes):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            assert goes_on(pool)


class TestStart:
    """F20: a worker cannot start: BrokenProcessPool with the cause after at most three tries, no storm, no hang."""

    @pytest.fixture
    def starts(self, monkeypatch):
        started, start = [], pool_module._Start.launch

        def counted(self, number):
            started.append(number)
            return start(self, number)

        monkeypatch.setattr(pool_module._Start, "launch", counted)
        return started

    def assert_breaks(self, pool, text, count=10):
        futures = []
        with contextlib.suppress(BrokenProcessPool):
            for _ in range(count):
                futures.append(pool.submit(square, 3))
        assert futures
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, BrokenProcessPool)
            assert text in str(error), str(error)
        assert len({id(future.exception()) for future in futures}) == len(futures)
        with pytest.raises(BrokenProcessPool, match=text):
            pool.submit(square, 3)

    @pytest.mark.parametrize("workers", [1, 4])
    def test_a_bad_initializer(self, starts, workers, caplog):
        with ProcessPoolExecutor(workers, initializer=raise_error, initargs=(SystemExit("no luck"),)) as pool:
            self.assert_breaks(pool, "no luck")
        assert 1 <= len(starts) <= workers
        assert "Exception in initializer" in caplog.text

    @pytest.mark.parametrize("workers", [1, 4])
    def test_an_initializer_that_kills_the_process(self, starts, workers):
        with ProcessPoolExecutor(workers, initializer=os._exit, initargs=(9,)) as pool:
            self.assert_breaks(pool, "exit code 9")
        assert 3 <= len(starts) <= 3 + workers

    @pytest.mark.parametrize("workers", [1, 4])
    def test_an_import_error(self, starts, workers, monkeypatch, capfd):
        monkeypatch.setattr(launch, "BEGIN", "import there_is_no_such_module")
        with ProcessPoolExecutor(workers, mp_context="spawn") as pool:  # of the guardian: test_guardian.py
            self.assert_breaks(pool, "ended with exit code 1 before it was ready")
        assert 3 <= len(starts) <= 3 + workers
        assert "there_is_no_such_module" in capfd.readouterr().err

    @pytest.mark.parametrize(
        ("content", "mode"), [(None, 0), ("", 0o755), ("x", 0o644)], ids=["none", "exec format", "no permission"]
    )
    def test_an_interpreter_that_cannot_be_executed(self, starts, content, mode, monkeypatch, tmp_path):
        path = tmp_path / "python"
        if content is not None:
            path.write_text(content)
            path.chmod(mode)
        monkeypatch.setattr(sys, "executable", str(path))
        with ProcessPoolExecutor(4) as pool:
            self.assert_breaks(pool, "a worker's process cannot be started")
        assert 3 <= len(starts) <= 3 + 4

    def test_it_can_do_again_with_a_fresh_executor(self):
        with ProcessPoolExecutor(1, initializer=os._exit, initargs=(9,)) as pool:
            assert isinstance(pool.submit(square, 3).exception(PATIENCE), BrokenProcessPool)
            with ProcessPoolExecutor(1) as other:
                assert goes_on(other)

    def test_too_few_descriptors(self):
        done = run_python("""
            import logging, os, resource, sys, threading, warnings
            from concurrent.futures.process import BrokenProcessPool
            import abreast
            with abreast.ProcessPoolExecutor(1) as pool:  # imports what it imports
                pool.submit(pow, 2, 3).result()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            failed = worked = 0
            before = os.listdir("/proc/self/fd")
            for more in range(0, 24):
                now = os.open(os.devnull, os.O_RDONLY)  # the next free one
                os.close(now)
                resource.setrlimit(resource.RLIMIT_NOFILE, (now + more, hard))
                try:
                    with abreast.ProcessPoolExecutor(2) as pool:
                        assert pool.submit(pow, 2, 3).result(20) == 8
                        worked += 1
                except BrokenProcessPool as error:
                    assert "cannot be started" in str(error) and "open files" in str(error), error
                    failed += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert os.listdir("/proc/self/fd") == before, more
            print(failed > 5, worked > 0, threading.active_count())
        """, timeout=50)  # fmt: skip
        assert (done.stdout, done.stderr, done.returncode) == ("True True 1\n", "", 0)

    @AS_ROOT
    @pytest.mark.parametrize("allowed", [1, 2, 3, 4])
    def test_too_few_processes(self, allowed):
        """The user may have so many threads: none for the pool, or none for a worker."""
        done = run_python(f"""
            import os, resource, threading, time
            from concurrent.futures.process import BrokenProcessPool
            import abreast
            with abreast.ProcessPoolExecutor(1) as pool:  # imports what it imports
                try:
                    pool.submit(os._exit, 1).result()
                except BrokenProcessPool as error:
                    str(error)
            resource.setrlimit(resource.RLIMIT_NPROC, ({allowed}, {allowed}))
            os.setresuid(*[54321 + {allowed}] * 3)
            begun = time.monotonic()
            for _ in range(3):
                with abreast.ProcessPoolExecutor(2) as pool:
                    for _ in range(5):
                        try:
                            pool.submit(pow, 2, 3).result(20)
                        except BrokenProcessPool as error:
                            assert "cannot be started" in str(error), error
                        else:
                            raise AssertionError
            print(time.monotonic() - begun < 10, threading.active_count())
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("True 1\n", "", 0)


def template_of(pool):
    """The process that forks the workers: their parent."""
    (pid,) = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pool._processes}
    return pid


KILLED = """
    import ctypes, os, signal, sys, time
    import abreast
    case = sys.argv[1]
    pool = abreast.ProcessPoolExecutor(2, mp_context="fork" if "template" in sys.argv else None, **({"initializer": time.sleep, "initargs": (600,)} if case == "booting" else {}))
    if case == "unborn":
        print("ready", flush=True)
        for _ in range(5): pool.submit(pow, 2, 3)
        time.sleep(600)
    if case != "booting":
        for future in [pool.submit(time.sleep, 0.05) for _ in range(3)]: future.result()
    task = {
        "in C code": lambda: sum(range(10**13)),
        "holding the GIL": lambda: ctypes.PyDLL(None).sleep(600),
        "asleep": lambda: time.sleep(600),
        "deaf": lambda: ([signal.signal(n, signal.SIG_IGN) for n in range(1, 30) if n not in (9, 19)], time.sleep(600)),
        "booting": int,
        "idle": None,
        "in a thread": lambda: __import__("threading").Thread(target=time.sleep, args=(600,)).start(),
        "of another user": lambda: os.setuid(12345),
        "queued": lambda: time.sleep(0.05),
    }[case]
    if task:
        futures = [pool.submit(task) for _ in range(1000 if case == "queued" else 2)]
        if case in ("in a thread", "of another user"): [future.result() for future in futures]
    while len(pool._processes) < 2: time.sleep(0.01)
    child = 0
    if "fork" in sys.argv:
        child = os.fork()
        if not child:
            time.sleep(600)
            os._exit(0)
    print(child, flush=True)
    time.sleep(600)
"""


class TestParentKilled:
    """F22, F23: the parent is killed: no worker is left after a second."""

    @pytest.mark.parametrize("fork", [False, True], ids=["", "with a forked child"])
    @pytest.mark.parametrize(
        "case", ["in C code", "holding the GIL", "asleep", "deaf", "idle", "booting", "in a thread", "queued"]
    )
    def test_no_worker_is_left(self, case, fork):
        with Program(KILLED, case, *["fork"] * fork) as program:
            child = int(program.line())
            assert len(set(program.others()) - {child}) >= 2
            program.process.kill()
            program.process.wait()
            begun = time.monotonic()
            until(lambda: set(program.others()) <= {child})
            assert time.monotonic() - begun < 3  # promised is one, of a machine that is not busy
            assert not fork or is_alive(child)

    @pytest.mark.parametrize("fork", [False, True], ids=["", "with a forked child"])
    @pytest.mark.parametrize("case", ["in C code", "deaf", "idle", "booting", "queued"])
    def test_no_copy_is_left(self, case, fork):
        """Workers that are copies of the parent, and the template that forks them."""
        with Program(KILLED, case, "template", *["fork"] * fork) as program:
            child = int(program.line())
            assert len(set(program.others()) - {child}) >= 3
            program.process.kill()
            program.process.wait()
            begun = time.monotonic()
            until(lambda: set(program.others()) <= {child})
            assert time.monotonic() - begun < 3
            assert not fork or is_alive(child)

    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
    def test_the_template_is_killed(self, busy):
        """F21, of copies: workers die with it, what they ran fails, what waits fails or runs; nothing hangs."""
        with ProcessPoolExecutor(2, mp_context="fork") as pool:
            futures = [pool.submit(time.sleep, 60 * busy) for _ in range(2)]
            until(lambda: pool.statistics().running == 2 if busy else all(future.done() for future in futures))
            futures += [pool.submit(square, i) for i in range(5 * busy)]
            os.kill(template_of(pool), signal.SIGKILL)
            for future in futures:
                error = future.exception(PATIENCE)
                assert isinstance(error, BrokenProcessPool) or (error is None and not busy)
            with contextlib.suppress(BrokenProcessPool):
                pool.submit(square, 2).result(PATIENCE)

    @pytest.mark.parametrize("after", [0, 0.01, 0.02, 0.03, 0.05, 0.08])
    def test_no_worker_that_is_just_being_started_is_left(self, after):
        with Program(KILLED, "unborn") as program:
            program.line()
            time.sleep(after)  # a point of time at random is what is wanted
            program.process.kill()
            program.process.wait()
            until(lambda: not program.others())

    @AS_ROOT
    @pytest.mark.parametrize("fork", [False, True], ids=["", "with a forked child"])
    def test_nor_one_that_has_changed_its_user(self, fork):
        """S12: changing the user id clears PDEATHSIG; the end of the pipe ends the worker, although a forked child lives on."""
        with Program(KILLED, "of another user", *["fork"] * fork) as program:
            child = int(program.line())
            workers = set(program.others()) - {child}
            assert any("12345" in Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].split()[0] for pid in workers)
            program.process.kill()
            program.process.wait()
            until(lambda: set(program.others()) <= {child})

    def test_before_the_worker_has_armed_itself(self):
        """F23: it stands before PDEATHSIG is armed while the parent is killed; it asks who its parent is."""
        with Program(
            """
            import signal, time, abreast
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the kernel sends to a stopped group that is orphaned
            pool = abreast.ProcessPoolExecutor(1)
            pool.submit(pow, 2, 3)
            print("ready", flush=True)
            time.sleep(600)
            """,
            env={"ABREAST_FP": "worker.before_pdeathsig=stop"},
        ) as program:
            program.line()
            pid = until(lambda: [pid for pid in program.others() if state_of(pid) == "T"])[0]
            program.process.kill()
            program.process.wait()
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
            until(lambda: not program.others())


INTERRUPTED = """
    import sys, time
    import abreast
    def nap(_=None): time.sleep(60)
    def tick(x): return x
    where, executor = sys.argv[1], abreast.ProcessPoolExecutor  # imported by that: an interrupted import is not ours
    print("started", flush=True)
    with executor(2) as pool:
        if where == "result":
            [pool.submit(nap) for _ in range(5)][0].result()
        elif where == "iteration":
            for _ in pool.imap(nap, range(100)): pass
        elif where == "quick iteration":
            for _ in pool.imap(tick, iter(int, 1)): pass
        elif where == "map":
            pool.map(tick, range(10**9))
        elif where == "submit":
            while True: pool.submit(tick, 1)
        elif where == "ping-pong":
            while True: pool.submit(tick, 1).result()
        elif where == "exit":
            for _ in range(5): pool.submit(nap)
"""
PLACES = ["result", "iteration", "quick iteration", "submit", "ping-pong", "exit"]


class TestCtrlC:
    """F24: Ctrl-C on a terminal, at any time: it ends within a second, with one traceback, and leaves nothing."""

    def interrupt(self, where, after, again=None):
        master, slave = pty.openpty()
        output = bytearray()
        try:
            with Program(
                INTERRUPTED, where, env={"PYTHONFAULTHANDLER": "1"},
                start_new_session=True, preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0), pass_fds=(slave,),
            ) as program:  # fmt: skip
                process = program.process
                reader = threading.Thread(target=lambda: [output.extend(line.encode()) for line in process.stderr], daemon=True)
                assert program.line() == "started"
                reader.start()
                time.sleep(after)
                begun = time.monotonic()
                os.write(master, b"\x03")
                if again is not None:
                    time.sleep(again)
                    os.write(master, b"\x03")
                try:
                    process.wait(PATIENCE / 3)
                except subprocess.TimeoutExpired:
                    if b"_get_module_lock" not in output:
                        process.send_signal(signal.SIGABRT)  # faulthandler tells where it hangs
                        reader.join(PATIENCE)
                        pytest.fail(f"hangs after ^C in {where!r}, {after:.3f} s after its start: {output.decode()}")
                    # It came in a weak reference's callback of the interpreter's import system, which has dropped it.
                    output.clear()
                    begun = time.monotonic()
                    os.write(master, b"\x03")
                    process.wait(PATIENCE / 3)
                took = time.monotonic() - begun
                reader.join(PATIENCE)
                text = output.decode()
                orphans = until(lambda: not program.others(), 5)
            assert orphans
            assert process.returncode == -signal.SIGINT, (process.returncode, text)
            assert took < 4, (took, text)  # a second, of a machine that is not busy: see below
            assert text.count("Traceback (most recent") <= (1 if again is None else 3), text
            assert "KeyboardInterrupt" in text
            return took
        finally:
            os.close(master)
            os.close(slave)

    def sweep(self, count, seed):
        chance = random.Random(seed)
        times = []
        for n in range(count):
            after = chance.choice([0.0, 0.02, 0.1, 0.3]) + chance.random() * 0.1
            times.append(self.interrupt(PLACES[n % len(PLACES)], after))
        assert sorted(times)[len(times) // 2] < 1, times

    @pytest.mark.parametrize("part", range(4))
    def test_at_random_times(self, part):
        self.sweep(6, part)

    @pytest.mark.parametrize("where", ["result", "exit", "quick iteration"])
    def test_twice(self, where):
        for again in (0.0, 0.01, 0.05):
            self.interrupt(where, 0.2, again)

    @pytest.mark.slow
    @pytest.mark.parametrize("part", range(10))
    def test_at_many_random_times(self, part):
        self.sweep(20, 1000 + part)


class TestStopped:
    """F26: the parent sleeps: what has ended meanwhile is not late."""

    @pytest.mark.parametrize("how", ["submit", "run"])
    def test_finished_tasks_are_not_over_their_limit(self, how):
        with Program(
            """
            import sys, time
            import abreast
            def nap(x):
                time.sleep(0.3)
                return x
            pool = abreast.ProcessPoolExecutor(2, task_timeout=1)
            [future.result() for future in [pool.submit(nap, i) for i in range(4)]]
            if sys.argv[1] == "submit":
                futures = [pool.submit(nap, i) for i in range(6)]
                print("ready", flush=True)
                results = [future.result() for future in futures]
            else:
                run = abreast.imap(nap, range(6), executor=pool, chunksize=3)
                print("ready", flush=True)
                results = list(run)
            print(results == list(range(6)), flush=True)
            pool.shutdown()
            """,
            how,
        ) as program:
            program.line()
            os.kill(program.process.pid, signal.SIGSTOP)
            time.sleep(2)
            os.kill(program.process.pid, signal.SIGCONT)
            out, error = program.process.communicate(timeout=PATIENCE)
            assert (out, error) == ("True\n", "")

    def test_a_worker_that_was_stopped_by_somebody_goes_on(self, pool):
        """A SIGSTOP of somebody else's, without a limit: the task takes longer, that is all."""
        future = pool.submit(time.sleep, 0.2)
        pid = until(lambda: [pid for pid in pool._processes or () if pool.statistics().running])[0]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(pid, signal.SIGCONT)
        assert future.result(PATIENCE) is None


class TestCallbacks:
    """F27: a callback raises, or never returns: it is logged; other tasks and limits go on."""

    def test_one_that_does_not_return(self):
        gate, entered = threading.Event(), threading.Event()
        with ProcessPoolExecutor(2, task_timeout=0.5) as pool:
            try:
                future = pool.submit(time.sleep, 0.1)
                future.add_done_callback(lambda _: (entered.set(), gate.wait(PATIENCE)))
                assert entered.wait(PATIENCE)
                assert goes_on(pool)
                assert isinstance(pool.submit(time.sleep, 60).exception(PATIENCE), TaskTimeout)
                assert isinstance(pool.submit(exit_1).exception(PATIENCE), WorkerCrashed)
                assert abreast.map(square, range(50), executor=pool) == [i * i for i in range(50)]
            finally:
                gate.set()

    def test_one_that_raises_is_logged(self, pool, caplog):
        future = pool.submit(time.sleep, 0.1)
        called = threading.Event()
        future.add_done_callback(lambda _: raise_error(ValueError("of a callback")))
        future.add_done_callback(lambda _: called.set())
        assert called.wait(PATIENCE)
        assert "of a callback" in caplog.text
        assert goes_on(pool)


class TestEnds:
    """F28: collected with work pending, shutdown without waiting, submit afterwards and at exit: as the standard library."""

    @pytest.mark.parametrize(
        "end",
        [
            "",
            "pool.shutdown(wait=False)",
            "del pool",
            "pool.shutdown(wait=False); del pool",
            "import atexit; atexit.register(pool.shutdown)",
            "import threading; threading.Thread(target=lambda: (time.sleep(0.2), pool.shutdown())).start()",
            "threading.Thread(target=lambda: [pool.submit(print, i, flush=True) for i in ()]).start()",
            "pool.cycle = pool; del pool",
        ],
    )
    @pytest.mark.parametrize("options", ["", ", max_tasks_per_child=2"])
    def test_queued_work_is_done(self, end, options):
        done = run_python(f"""
            import threading, time
            import abreast
            def note(i):
                time.sleep(0.01)
                print(i, flush=True)
            pool = abreast.ProcessPoolExecutor(1{options})
            for i in range(9):
                pool.submit(note, i)
            {end}
        """)
        assert (done.stdout.split(), done.stderr, done.returncode) == ([*map(str, range(9))], "", 0)

    def test_submit_at_exit_is_refused(self):
        done = run_python("""
            import atexit
            import abreast
            pool = abreast.ProcessPoolExecutor(1)
            other = abreast.ProcessPoolExecutor(1)
            pool.submit(pow, 2, 3).result()
            @atexit.register
            def late():
                for one in (pool, other, abreast.ProcessPoolExecutor):
                    try:
                        (one(1) if isinstance(one, type) else one).submit(pow, 2, 3)
                    except RuntimeError as error:
                        print(error)
        """)
        assert done.stdout == "cannot schedule new futures after interpreter shutdown\n" * 3
        assert (done.stderr, done.returncode) == ("", 0)

    def test_a_callback_that_submits_at_the_end_is_refused_or_heard(self):
        done = run_python("""
            import time
            import abreast
            pool = abreast.ProcessPoolExecutor(1)
            def again(future):
                try:
                    pool.submit(print, "more", flush=True)
                except RuntimeError:
                    print("refused", flush=True)
            pool.submit(time.sleep, 0.3).add_done_callback(again)
        """)
        assert done.stdout in ("more\n", "refused\n")
        assert (done.stderr, done.returncode) == ("", 0)

    def test_a_daemon_thread_that_submits_until_the_end_does_not_hold_it_up(self):
        done = run_python("""
            import threading, time
            import abreast
            pool = abreast.ProcessPoolExecutor(1)
            begun = threading.Event()
            def submit():
                try:
                    while True:
                        pool.submit(pow, 2, 3).result()
                        begun.set()
                except RuntimeError:
                    pass
            threading.Thread(target=submit, daemon=True).start()
            begun.wait(20)
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)

    def test_the_end_after_an_error_finishes_too(self):
        done = run_python("""
            import abreast
            pool = abreast.ProcessPoolExecutor(1)
            pool.submit(print, "done", flush=True)
            raise ValueError("of the program")
        """)
        assert done.stdout == "done\n"
        assert done.stderr.count("Traceback") == 1
        assert done.returncode == 1


class TestFork:
    """F29: os.fork() in the parent: the child is told, the parent unharmed, the end of a pipe still an end."""

    def test_at_any_time(self, pool):
        stop = threading.Event()

        def work():
            while not stop.is_set():
                assert goes_on(pool, 5)

        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            working = threads.submit(work)
            try:
                for _ in range(10):
                    pid = os.fork()
                    if pid == 0:
                        try:
                            pool.submit(square, 3)
                        except RuntimeError as error:
                            os._exit(7 if "forked child" in str(error) else 8)
                        os._exit(9)
                    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            finally:
                stop.set()
            working.result(PATIENCE)

    def test_a_child_ends_as_a_program_does_and_has_a_pool_of_its_own(self):
        done = run_python("""
            import os, sys, time
            import abreast
            pool = abreast.ProcessPoolExecutor(1)
            future = pool.submit(time.sleep, 0.5)
            pid = os.fork()
            if pid == 0:
                with abreast.ProcessPoolExecutor(1) as own:
                    print(own.submit(pow, 2, 3).result(), flush=True)
                pool.shutdown(wait=False)
                sys.exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            future.result()
            print(pool.submit(pow, 2, 4).result())
        """)
        assert (done.stdout, done.returncode) == ("8\n3\n16\n", 0)
        assert not done.stderr or "DeprecationWarning" in done.stderr


class TestStall:
    """F30: the supervisor stalls while tens of thousands are submitted: no deadlock, bounded memory."""

    def test_tens_of_thousands(self):
        gate = threading.Event()
        with ProcessPoolExecutor(2) as pool:
            pool.submit(square, 1).result(PATIENCE)
            pool._supervisor.post(lambda _: gate.wait(PATIENCE))
            tracemalloc.start()
            try:
                futures = [pool.submit(square, i) for i in range(20_000)]
                used, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                gate.set()
            assert sum(future.result(PATIENCE) for future in futures) == sum(i * i for i in range(20_000))
        assert used < 20_000 * 5000

    def test_what_is_cancelled_and_shut_down_meanwhile(self):
        gate = threading.Event()
        with ProcessPoolExecutor(2) as pool:
            pool.submit(square, 1).result(PATIENCE)
            pool._supervisor.post(lambda _: gate.wait(PATIENCE))
            futures = [pool.submit(square, i) for i in range(2000)]
            assert all(future.cancel() for future in futures[10::2])  # the first ones may be running
            pool.shutdown(wait=False)
            gate.set()
            assert [future.result(PATIENCE) for future in futures[1::2]] == [i * i for i in range(1, 2000, 2)]
            assert all(future.cancelled() for future in futures[10::2])


class TestSmallPipes:
    """F31: huge arguments both ways on all workers, through pipes of 4 KiB."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        sizes = []
        monkeypatch.setattr(launch, "_enlarge", lambda fd: sizes.append(fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)))
        yield
        assert set(sizes) == {4096}

    def test_large_ones(self, pool):
        data = os.urandom(1 << 24)
        futures = [pool.submit(lambda data: data[::-1], data) for _ in range(4)]
        assert all(future.result(PATIENCE) == data[::-1] for future in futures)

    def test_out_of_band(self, pool):
        data = bytearray(1 << 24)
        futures = [pool.submit(bytearray, data) for _ in range(4)]
        assert all(future.result(PATIENCE) == data for future in futures)

    def test_small_ones_in_batches(self, pool):
        texts = ["x" * n for n in range(3000)]
        assert abreast.map(str.upper, texts, executor=pool) == [text.upper() for text in texts]
        assert abreast.map(str.upper, texts, executor=pool, chunksize=500) == [text.upper() for text in texts]

    def test_a_crash_amid_it(self, pool):
        data = bytes(1 << 22)
        futures = [pool.submit(bytes if i != 3 else exit_1, data) for i in range(8)]
        assert [type(future.exception(PATIENCE)) for future in futures] == [type(None)] * 3 + [WorkerCrashed] + [type(None)] * 4


class TestWindow:
    """F32: a slow consumer of endless inputs: the window holds, in tasks and in bytes."""

    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("chunksize", [1, "auto"])
    def test_holds(self, pool, ordered, chunksize):
        read = itertools.count()
        taken = 0

        def inputs():
            nonlocal taken
            for taken in read:
                yield taken

        tracemalloc.start()
        try:
            with abreast.imap(
                lambda _: os.urandom(1 << 20), inputs(), executor=pool, buffersize=8, ordered=ordered, chunksize=chunksize
            ) as results:
                for consumed, result in enumerate(itertools.islice(results, 30)):
                    assert len(result) == 1 << 20
                    time.sleep(0.005)
                    assert taken - consumed <= 8 + 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 3 * 10 * (1 << 20)


class TestRecycling:
    """F33: max_tasks_per_child with a backlog, with a crash on the last one, with a shutdown meanwhile: exact counts."""

    def note(self, path):
        def task(i):
            with open(path, "a") as file:
                file.write(f"{os.getpid()} {i}\n")
            return i

        return task

    def counts(self, path):
        ran = [tuple(map(int, line.split())) for line in Path(path).read_text().splitlines()]
        pids = [pid for pid, _ in ran]
        return sorted(i for _, i in ran), {pid: pids.count(pid) for pid in pids}

    @pytest.mark.parametrize("wait", [True, False])
    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("most", [1, 2, 3])
    def test_a_backlog_and_a_shutdown(self, most, workers, wait, tmp_path):
        pool = ProcessPoolExecutor(workers, max_tasks_per_child=most)
        futures = [pool.submit(self.note(tmp_path / "log"), i) for i in range(13)]
        pool.shutdown(wait=wait)
        assert [future.result(PATIENCE) for future in futures] == list(range(13))
        pool.shutdown()
        ran, counts = self.counts(tmp_path / "log")
        assert ran == list(range(13))
        assert max(counts.values()) == most if workers == 1 else max(counts.values()) <= most
        if workers == 1:
            assert len(counts) == -(-13 // most)

    @pytest.mark.parametrize("workers", [1, 2])
    @pytest.mark.parametrize("most", [1, 2, 3])
    def test_a_crash_on_the_last_one(self, most, workers, tmp_path):
        note = self.note(tmp_path / "log")

        def task(i):
            note(i)
            sys.ran = getattr(sys, "ran", 0) + 1
            if sys.ran == most:
                os._exit(1)
            return i

        with ProcessPoolExecutor(workers, max_tasks_per_child=most, flush="each") as pool:
            futures = [pool.submit(task, i) for i in range(9)]
            errors = [future.exception(PATIENCE) for future in futures]
        ran, counts = self.counts(tmp_path / "log")
        assert ran == list(range(9))
        assert max(counts.values()) <= most
        assert sum(isinstance(error, WorkerCrashed) for error in errors) == sum(count == most for count in counts.values())
        assert all(error is None or isinstance(error, WorkerCrashed) for error in errors)

    @pytest.mark.parametrize("chunksize", [1, 5, 20, "auto"])
    @pytest.mark.parametrize("most", [1, 3])
    def test_of_runs_whose_batches_are_larger(self, most, chunksize, pool, tmp_path):
        with ProcessPoolExecutor(2, max_tasks_per_child=most) as pool:
            assert pool.map is not None
            assert abreast.map(self.note(tmp_path / "log"), range(20), executor=pool, chunksize=chunksize) == list(range(20))
        ran, counts = self.counts(tmp_path / "log")
        assert ran == list(range(20))
        assert max(counts.values()) <= most

    def test_an_error_at_the_limit_is_an_outcome(self):
        with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
            futures = [pool.submit(divmod, 1, i % 2) for i in range(6)]
            assert [type(future.exception(PATIENCE)) for future in futures] == [ZeroDivisionError, type(None)] * 3

    def test_a_collected_executor_strands_nothing(self):
        pool = ProcessPoolExecutor(1, max_tasks_per_child=1)
        futures = [pool.submit(square, i) for i in range(6)]
        ended = pool._supervisor.ended
        del pool
        gc.collect()
        assert [future.result(PATIENCE) for future in futures] == [i * i for i in range(6)]
        assert ended.wait(PATIENCE)


def take(size):
    """Occupy so many bytes for good."""
    sys.taken = [*getattr(sys, "taken", []), b"x" * size]
    return os.getpid()


class TestMemory:
    """F34: memory that grows: above the limit replaced between tasks, far above it killed."""

    def test_above_the_limit_it_is_replaced_without_a_loss(self):
        def grow(_):
            time.sleep(0.11)  # the worker looks at itself ten times a second
            return take(30_000_000)

        with ProcessPoolExecutor(1, max_memory_per_child=100_000_000) as pool:
            pids = [pool.submit(grow, i).result(PATIENCE) for i in range(8)]
        assert 2 <= len(set(pids)) <= 4, pids
        assert [pid for pid, _ in itertools.groupby(pids)] == list(dict.fromkeys(pids))

    def test_below_it_nothing_happens(self):
        with ProcessPoolExecutor(1, max_memory_per_child=2_000_000_000) as pool:
            assert len({pool.submit(take, 1000).result(PATIENCE) for _ in range(8)}) == 1

    @pytest.mark.parametrize("how", ["submit", "run"])
    def test_far_above_it_the_task_is_ended(self, how):
        def greedy(i):
            if i == 1:
                take(250_000_000)
                time.sleep(60)
            return i

        with ProcessPoolExecutor(1, max_memory_per_child=100_000_000) as pool:
            if how == "submit":
                futures = [pool.submit(greedy, i) for i in range(4)]
                errors = [future.exception(PATIENCE) for future in futures]
            else:
                errors = [outcome.error for outcome in abreast.outcomes(greedy, range(4), executor=pool, chunksize=4)]
        assert [type(error) for error in errors] == [type(None), MemoryLimitExceeded, type(None), type(None)]
        assert isinstance(errors[1], MemoryError)
        assert errors[1].limit == 100_000_000
        assert errors[1].used > 200_000_000
        assert "greedy(1)" in str(errors[1])


class TestManyCrashes:
    """F35: thousands of crashes: descriptors, threads, zombies and memory stay flat."""

    def soak(self, count):
        def seen():
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            links = [
                os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
            ]
            return {
                "descriptors": len(os.listdir("/proc/self/fd")),
                "threads": threading.active_count(),
                "children": len(children),
                "zombies": sum(state_of(pid) == "Z" for pid in children),
                "memfds": sum("memfd:" in link for link in links),
                "maps": Path("/proc/self/maps").read_text().count("memfd:"),
                "shm": len(os.listdir("/dev/shm")),
            }

        with ProcessPoolExecutor(2) as pool:

            def crash_and_go_on(crashes):
                # Not functions of this file: each new worker would import it, and pytest.
                futures = [pool.submit(os._exit if i % 2 else abs, i) for i in range(2 * crashes)]
                errors = [future.exception(PATIENCE) for future in futures]
                assert [type(error) for error in errors] == [type(None), WorkerCrashed] * crashes

            def have_two_workers():
                until(
                    lambda: (
                        [pool.submit(time.sleep, 0.02) for _ in range(4)][3].result(PATIENCE) is None
                        and len(pool._processes) == 2
                    )
                )

            crash_and_go_on(4)
            have_two_workers()
            before = seen()
            for _ in range(count // 20):
                crash_and_go_on(20)
            have_two_workers()
            assert before["zombies"] == 0
            deadline = time.monotonic() + 10
            while more := {what: (before[what], count) for what, count in seen().items() if count > before[what]}:
                assert time.monotonic() < deadline, more
                time.sleep(0.05)

    @pytest.mark.parametrize("part", range(3))
    def test_three_hundred(self, part):
        self.soak(100)

    @pytest.mark.slow
    def test_ten_thousand(self):
        self.soak(10_000)


def strays():
    """What a task writes where it must not, by name; functions get the worker. Imports here: it is called in workers too."""
    from abreast.executors.process.frames import Kind, frame
    from abreast.executors.process.worker import RECORD

    seven = b"\x80\x05K\x07."  # its pickle
    record = bytes([Kind.RECORD, 0])

    def due(body, status=0):
        return lambda worker: frame(Kind.RECORD, worker.running.first, body, (), status)[0]

    return {
        "half a header": b"\x05\x00\x00",
        "half a frame": frame(Kind.RECORD, 1, b"x" * 1000)[0][:500],
        "a large length": b"\xff\xff\xff\x7f" + record + bytes(10),
        "a buffer that does not come": b"\x08\x00\x00\x00"
        + record
        + b"\x01\x00"
        + bytes(8)
        + (1 << 30).to_bytes(8, "little")
        + bytes(8),
        "garbage": b"\xff" * 5000,
        "zeros": bytes(5000),
        "text": b"progress: 50%\n",
        "OVER": frame(Kind.OVER, 1)[0],
        "OVER that is due": lambda worker: frame(Kind.OVER, worker.running.first)[0],
        "READY": frame(Kind.READY)[0],
        "FAILED": frame(Kind.FAILED, 0, b"made up")[0],
        "LEAVE": frame(Kind.LEAVE)[0],
        "LOG": frame(Kind.LOG, 0, b"no pickle")[0],
        "LOG of a number": frame(Kind.LOG, 0, seven)[0],
        "CALL": frame(Kind.CALL, 1, b"x" * 100)[0],
        "RECORD of another": frame(Kind.RECORD, 99, RECORD.pack(0.0) + seven)[0],
        "RECORD that is due": due(RECORD.pack(0.0) + seven),
        "RECORD without an opening": due(b"xyz"),
        "RECORD of no pickle": due(RECORD.pack(0.0) + b"no pickle"),
        "RECORD of no time": due(RECORD.pack(float("nan")) + seven),
        "RECORD of an unknown status": due(RECORD.pack(0.0) + seven, 77),
    }


def stray_of(name):
    data = strays()[name]
    return data(our_worker()) if callable(data) else data


def write_stray(name):
    """Write to the worker's own result pipe, as a task that has found it."""
    os.write(our_worker().result_fd, stray_of(name))


class TestStrayBytes:
    """F39: a task writes into the result pipe, or the page: it is that task's crash or nothing; the pool goes on."""

    @pytest.mark.parametrize("after", ["returns", "goes on"])
    @pytest.mark.parametrize("stray", strays())
    def test_in_the_pipe(self, stray, after):
        """What the worker says after that cannot be believed: tasks that it has run since are crashes too, never wrong values."""
        with ProcessPoolExecutor(2, flush="each") as pool:
            pool.submit(square, 2).result(PATIENCE)
            future = pool.submit(lambda: (write_stray(stray), time.sleep(0.05 * (after != "returns")))[1])
            futures = [pool.submit(square, i) for i in range(5)]
            with contextlib.suppress(Exception):  # its own outcome may be what it has made up
                future.result(PATIENCE)
            for i, future in enumerate(futures):
                assert isinstance(future.exception(PATIENCE), WorkerCrashed) or future.result() == i * i
            assert goes_on(pool)
            outcomes = list(abreast.outcomes(lambda i: write_stray(stray) if i == 2 else i, range(6), executor=pool, chunksize=6))
            assert [outcome.value for outcome in outcomes[:2]] == [0, 1]
            for i, outcome in enumerate(outcomes[3:], 3):
                assert isinstance(outcome.error, WorkerCrashed) or outcome.value == i
            assert goes_on(pool)

    @pytest.mark.parametrize("stray", strays())
    def test_after_its_outcome(self, stray):
        """By a thread that a task has left behind, while the worker is idle."""

        def leaves_a_thread():
            worker, data = our_worker(), stray_of(stray)
            threading.Thread(target=lambda: (time.sleep(0.05), os.write(worker.result_fd, data)), daemon=True).start()

        with ProcessPoolExecutor(1) as pool:
            with contextlib.suppress(WorkerCrashed):
                pool.submit(leaves_a_thread).result(PATIENCE)
            time.sleep(0.1)  # it is not necessary that it has been written, but it is what is meant
            with contextlib.suppress(BrokenProcessPool):  # of the task that is there when half a frame comes
                pool.submit(square, 2).result(PATIENCE)
            assert goes_on(pool)

    @pytest.mark.parametrize("place", range(6))
    @pytest.mark.parametrize("value", [0, 1, 3, 2**64 - 1])
    def test_on_the_page(self, place, value):
        def scribble():
            our_worker().words[place] = value

        with ProcessPoolExecutor(1, task_timeout=20) as pool:
            pool.submit(square, 2).result(PATIENCE)
            with contextlib.suppress(WorkerCrashed):
                pool.submit(scribble).result(PATIENCE)
            assert goes_on(pool)
            with contextlib.suppress(WorkerCrashed):
                pool.submit(lambda: (scribble(), os._exit(1))).result(PATIENCE)
            assert goes_on(pool)

    def test_a_page_that_is_cut(self, pool):
        """It is sealed: it cannot be made shorter, which would end the parent by SIGBUS."""
        with pytest.raises(PermissionError):
            pool.submit(lambda: os.ftruncate(our_worker().page.fd, 0)).result(PATIENCE)
        assert goes_on(pool)


class TestFloods:
    """F43: a flood of output or log, a handler that raises, a pipe held open by a daemon: no worker is blocked, nothing lost."""

    @pytest.fixture
    def capturing(self, capsys):
        if "capture_output" not in inspect.signature(ProcessPoolExecutor.__init__).parameters:
            pytest.skip("capture_output is not there yet")
        return {"capture_output": True}

    @pytest.fixture
    def handler(self):
        class Handler(logging.Handler):
            def __init__(self):
                super().__init__()
                self.seen = []

            def emit(self, record):
                self.seen.append(record.getMessage())

        handler = Handler()
        logger = logging.getLogger("flood")
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.INFO)
        yield handler
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)

    def test_of_log_records(self, handler):
        def flood(x):
            for i in range(3000):
                logging.getLogger("flood").info("%s %s", x, i)
            return x

        with ProcessPoolExecutor(2) as pool:
            assert pool.map(flood, range(4)) == [0, 1, 2, 3] if isinstance(pool.map(flood, ()), list) else True
            handler.seen.clear()
            futures = [pool.submit(flood, x) for x in range(4)]
            assert [future.result(PATIENCE) for future in futures] == [0, 1, 2, 3]
        for x in range(4):
            assert [line for line in handler.seen if line.startswith(f"{x} ")] == [f"{x} {i}" for i in range(3000)]

    def test_a_slow_handler_holds_up_no_task(self, handler, monkeypatch):
        gate = threading.Event()
        monkeypatch.setattr(handler, "emit", lambda record: gate.wait(PATIENCE))

        def chatter(x):
            for i in range(500):
                logging.getLogger("flood").info("%s", "x" * 1000)
            return x

        with ProcessPoolExecutor(2, task_timeout=20) as pool:
            try:
                assert [future.result(PATIENCE) for future in [pool.submit(chatter, x) for x in range(8)]] == list(range(8))
            finally:
                gate.set()

    def test_a_handler_that_raises(self, handler, monkeypatch, caplog):
        monkeypatch.setattr(handler, "emit", lambda record: raise_error(SystemExit("of a handler")))
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(lambda: logging.getLogger("flood").error("x")).result(PATIENCE) is None
            assert goes_on(pool)
        assert "of a handler" in caplog.text

    def test_of_output(self, capturing, capsys):
        def flood(x):
            for i in range(5000):
                print(x, i)
            return x

        with ProcessPoolExecutor(2, **capturing) as pool:
            assert [future.result(PATIENCE) for future in [pool.submit(flood, x) for x in range(4)]] == [0, 1, 2, 3]
        lines = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
        for x in range(4):
            assert [line for line in lines if line.startswith(f"{x} ")] == [f"{x} {i}" for i in range(5000)]

    def test_a_daemon_holds_the_output_pipes(self, capturing, capsys, daemons):
        with ProcessPoolExecutor(1, **capturing) as pool:
            pool.submit(lambda: (print("before", flush=True), leave_a_daemon(daemons))).result(PATIENCE)
            assert isinstance(pool.submit(exit_1).exception(PATIENCE), WorkerCrashed)
            assert goes_on(pool)
        assert "before" in capsys.readouterr().out


def test_cancelled_futures_of_a_killed_pool_say_so():
    with ProcessPoolExecutor(1) as pool:
        running = pool.submit(time.sleep, 60)
        waiting = [pool.submit(square, i) for i in range(5)]
        until(lambda: running.running())
        pool.kill_workers()
        assert isinstance(running.exception(PATIENCE), BrokenProcessPool)
        for future in waiting:
            with pytest.raises((CancelledError, BrokenProcessPool)):
                future.result(PATIENCE)

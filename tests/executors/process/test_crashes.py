"""Crashes with real processes: {how} x {at what} x {where among others} x {how many workers} x {how it was sent}; F1 to F16 of failures.md.

An append-only file is the witness: each task writes a line at its start, so what is lost, or runs twice, is seen. The pools here have
``flush="each"``: with the default, tiny tasks may run again (F44), which test_batches.py, sim.py and soak.py look after.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import abreast
import pytest
from abreast import TaskTimeout, WorkerCrashed
from abreast.core.process_errors import ResultDecodeError, TaskDecodeError, TaskPickleError
from abreast.executors.process import forked, launch, supervisor
from abreast.executors.process import pool as pool_module
from abreast.executors.process.core import Worker

from tests.executors.process import tasks
from tests.executors.process.tasks import CRASHES, ERRORS, WAYS, DiesPickled, DiesUnpickled, square
from tests.helpers import is_alive, run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.slow,  # minutes: run before an issue closes
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

ProcessPoolExecutor = functools.partial(abreast.ProcessPoolExecutor, flush="each")
PATIENCE = 30
variable = contextvars.ContextVar("variable", default=None)


def goes_on(pool, count=20):
    return [future.result(PATIENCE) for future in [pool.submit(square, i) for i in range(count)]] == [i * i for i in range(count)]


class Log:
    """The witness."""

    def __init__(self, path):
        self.path = str(path)

    def lines(self):
        try:
            return [int(line) for line in Path(self.path).read_text().split()]
        except FileNotFoundError:
            return []

    def wait_for(self, count=1):
        return until(lambda: len(self.lines()) >= count and self.lines())


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


@pytest.fixture
def logs(tmp_path):
    """Makes a fresh one each time."""
    numbers = iter(range(10**6))
    return lambda: Log(tmp_path / f"log {next(numbers)}")


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


# ---- ways to send tasks; each returns a list of (value, error)


def outcome_of(future):
    error = future.exception(PATIENCE)
    return (None, error) if error is not None else (future.result(0), None)


def submitted(pool, fn, items):
    return [outcome_of(future) for future in [pool.submit(fn, item) for item in items]]


def one_by_one(pool, fn, items):
    """The short way for calls, which goes around the supervisor (express.py)."""
    return [outcome_of(pool.submit(fn, item)) for item in items]


def in_a_run(pool, fn, items, **options):
    return [(outcome.value, outcome.error) for outcome in pool.outcomes(fn, items, ordered=True, **options)]


def in_batches_of_64(pool, fn, items):
    return in_a_run(pool, fn, items, chunksize=64)


SENT = {"submit": submitted, "one by one": one_by_one, "run": in_a_run, "batches of 64": in_batches_of_64}
every_way_to_send = pytest.mark.parametrize("send", SENT.values(), ids=SENT)


# ---- the matrix

TASKS = 200
PLACES = {"first": 0, "middle": 100, "last": 199}
AT = {
    "unpickling the arguments": lambda how: DiesUnpickled(how),
    "running": lambda how: how,
    "pickling the result": lambda how: (DiesPickled, how),
    "unpickling the result": lambda how: (DiesUnpickled, how),
}
PHASES = {
    "unpickling the arguments": "while its arguments were unpickled",
    "running": "while running",
    "pickling the result": "while its result was pickled",
}


def check(error, how, at):
    """The error says what happened."""
    assert not isinstance(error, AssertionError), error
    if at == "unpickling the result":
        assert type(error) is ResultDecodeError
        assert type(error.__cause__).__name__ == how
    elif how in CRASHES:
        assert type(error) is WorkerCrashed
        assert isinstance(error, BrokenProcessPool)
        assert f"{CRASHES[how]} after " in str(error)
        assert error.phase == PHASES[at]
        assert error.pid > 0
        assert how != "segfault" or "in die" in error.stack
    elif at == "unpickling the arguments":
        assert type(error) is TaskDecodeError
        assert error.why.startswith(how)
    elif at == "pickling the result" and how == "ValueError":
        assert type(error) is TaskPickleError
    else:
        assert type(error).__name__ == how


def go_through(pool, send, log, at, how, place):
    """Send `TASKS` tasks of which one does it; the others are to be right, and all to have run once."""
    items = [(log.path, number, AT[at](how) if number == place else None) for number in range(TASKS)]
    outcomes = send(pool, tasks.work, items)
    assert [value for value, _ in outcomes] == [None if number == place else number for number in range(TASKS)]
    assert [number for number, (_, error) in enumerate(outcomes) if error is not None] == [place]
    check(outcomes[place][1], how, at)
    ran = [number for number in range(TASKS) if number != place or at != "unpickling the arguments"]
    assert sorted(log.lines()) == ran


class TestMatrix:
    """One task of 200 dies or raises: it fails, and says why; the others are right; each runs once. The pool is shared: it goes on."""

    @pytest.mark.parametrize("workers", [1, 2, 8])
    @pytest.mark.parametrize("sent", ["submit", "one by one", "run"])
    @pytest.mark.parametrize("at", AT)
    def test_one_of_200(self, at, sent, workers, logs):
        with ProcessPoolExecutor(workers) as pool:
            for how in ERRORS if at == "unpickling the result" else WAYS:
                for name, place in PLACES.items():
                    print(at, how, name, workers, sent)  # of a test that fails: where
                    go_through(pool, SENT[sent], logs(), at, how, place)
            assert goes_on(pool)

    @pytest.mark.parametrize("at", AT)
    def test_one_of_a_batch(self, at, logs):
        """F8, F10: first, in the middle, last of 64 that were sent together; what comes behind it runs elsewhere, in one attempt."""
        with ProcessPoolExecutor(2) as pool:
            for how in ERRORS if at == "unpickling the result" else WAYS:
                for place in (64, 95, 127):
                    print(at, how, place)
                    go_through(pool, in_batches_of_64, logs(), at, how, place)

    @every_way_to_send
    def test_every_third(self, pool, send, log):
        """Many deaths, of all kinds, in one go."""
        dies = {}
        for number in range(0, 96, 3):
            at = list(AT)[number % 4]
            dies[number] = (
                at,
                (ERRORS if at == "unpickling the result" else WAYS)[number // 4 % (2 if at == "unpickling the result" else 6)],
            )
        items = [(log.path, number, AT[dies[number][0]](dies[number][1]) if number in dies else None) for number in range(96)]
        outcomes = send(pool, tasks.work, items)
        assert [value for value, _ in outcomes] == [None if number in dies else number for number in range(96)]
        for number, (at, how) in dies.items():
            check(outcomes[number][1], how, at)
        errors = [error for _, error in outcomes if error is not None]
        assert len({id(error) for error in errors}) == len(errors) == len(dies)
        not_begun = {number for number, (at, _) in dies.items() if at == "unpickling the arguments"}
        assert sorted(log.lines()) == [number for number in range(96) if number not in not_begun]


# ---- functions and contexts that do it


def check_function(error, how, phase):
    if how in CRASHES:
        assert type(error) is WorkerCrashed
        assert f"{CRASHES[how]} after " in str(error)
        assert error.phase == phase
    else:
        assert type(error) is TaskDecodeError
        assert error.why.startswith(how)
        assert how in str(error.__cause__)


class TestFunction:
    """A function that dies, raises or hangs when it is unpickled: all its tasks fail, nobody else's."""

    @pytest.mark.parametrize("how", WAYS)
    def test_submitted(self, pool, how):
        before = pool.submit(square, 3)
        bad = [pool.submit(DiesUnpickled(how), i) for i in range(3)]
        assert goes_on(pool)
        for future in bad:
            check_function(future.exception(PATIENCE), how, "while its function was unpickled")
        assert before.result(0) == 9

    @pytest.mark.parametrize("how", WAYS)
    @pytest.mark.parametrize("chunksize", ["auto", 4])
    def test_mapped(self, pool, how, chunksize):
        outcomes = in_a_run(pool, DiesUnpickled(how), range(4), chunksize=chunksize)
        assert len(outcomes) == 4
        for _, error in outcomes:
            check_function(error, how, "while its function was unpickled")
        with pytest.raises((WorkerCrashed, TaskDecodeError)):
            abreast.map(DiesUnpickled(how), range(4), executor=pool, chunksize=chunksize)
        with pytest.raises((WorkerCrashed, TaskDecodeError)):
            abreast.map(DiesUnpickled(how), range(4), kind="process", max_workers=1, chunksize=chunksize)
        with pytest.raises((WorkerCrashed, TaskDecodeError)):
            list(pool.map(DiesUnpickled(how), range(4), chunksize=chunksize))
        assert goes_on(pool)

    @pytest.mark.parametrize("how", WAYS)
    def test_that_is_well_the_next_time(self, how, tmp_path):
        """Only the task that came across it fails: its batch mates have another try."""
        with ProcessPoolExecutor(1) as pool:
            fn = tasks.DiesUnpickledOnce(how, str(tmp_path / how))
            outcomes = in_a_run(pool, fn, range(8), chunksize=8)
        assert [value for value, _ in outcomes] == [None, *(i * i for i in range(1, 8))]
        check_function(outcomes[0][1], how, "while its function was unpickled")

    def test_that_hangs(self, tmp_path):
        """It may take as long as a worker's start may: a minute, here 2 s."""
        with ProcessPoolExecutor(1, task_timeout=0.2) as pool:
            assert goes_on(pool)
            core = pool._supervisor.core
            core.limits = core.limits._replace(boot=2.0)
            begun = time.monotonic()
            outcomes = in_a_run(pool, tasks.DiesUnpickledOnce("hang", str(tmp_path / "run")), range(4), chunksize=4)
            assert 1.9 < time.monotonic() - begun < PATIENCE
            assert [value for value, _ in outcomes] == [None, 1, 4, 9]
            assert type(outcomes[0][1]) is TaskTimeout
            once = tasks.DiesUnpickledOnce("hang", str(tmp_path / "submit"))
            hangs, mate = pool.submit(once, 2), pool.submit(square, 3)
            assert type(hangs.exception(PATIENCE)) is TaskTimeout
            assert mate.result(PATIENCE) == 9

    @pytest.mark.parametrize("in_run", [False, True], ids=["submit", "run"])
    def test_that_takes_long_does_not_take_the_limit_away(self, in_run):
        """F13: its task hangs once it is there; and so does one behind it. (Was: looked at again a minute after the unpickling began.)"""
        with ProcessPoolExecutor(1, task_timeout=0.3) as pool:
            assert goes_on(pool)
            begin = time.monotonic()
            if in_run:
                outcomes = in_a_run(pool, tasks.SlowToLoad(), [0, 600, 0], chunksize=3)
                assert [type(error) for _, error in outcomes] == [type(None), TaskTimeout, type(None)]
            else:
                assert type(pool.submit(tasks.SlowToLoad(), 600).exception(PATIENCE)) is TaskTimeout
            assert 0.9 <= time.monotonic() - begin < 10


class TestContext:
    """A context variable's value that dies, raises or hangs when it is unpickled."""

    @pytest.fixture(autouse=True)
    def _reset(self):
        token = variable.set(None)
        yield
        variable.reset(token)

    @pytest.mark.parametrize("how", [*CRASHES, "SystemExit"])
    def test_fails_the_tasks_that_have_it(self, pool, how):
        variable.set(DiesUnpickled(how))
        submitted_in_it = [pool.submit(square, i) for i in range(2)]
        outcomes = in_a_run(pool, square, range(2), chunksize=2)
        variable.set(None)
        assert goes_on(pool)
        for error in [*(future.exception(PATIENCE) for future in submitted_in_it), *(error for _, error in outcomes)]:
            check_function(error, how, "while its arguments were unpickled")

    def test_that_raises_an_error_is_left_out(self, pool):
        variable.set(DiesUnpickled("ValueError"))
        assert pool.submit(variable.get).result(PATIENCE) is None
        assert pool.map(square, range(4), chunksize=4) is not None
        assert in_a_run(pool, square, range(4), chunksize=4) == [(i * i, None) for i in range(4)]

    def test_that_hangs(self):
        with ProcessPoolExecutor(1, task_timeout=0.5) as pool:
            variable.set(DiesUnpickled("hang"))
            hangs = pool.submit(square, 2)
            outcomes = in_a_run(pool, square, range(2), chunksize=2)
            variable.set(None)
            assert goes_on(pool)
            assert [type(error) for error in (hangs.exception(PATIENCE), *(error for _, error in outcomes))] == [TaskTimeout] * 3

    @pytest.mark.parametrize("how", ERRORS)
    def test_that_raises_when_it_is_pickled(self, pool, how):
        variable.set(DiesPickled(how))
        future = pool.submit(square, 2)
        outcomes = in_a_run(pool, square, range(2)) if how == "ValueError" else []
        variable.set(None)
        if how == "ValueError":  # left out
            assert future.result(PATIENCE) == 4
            assert outcomes == [(0, None), (1, None)]
        else:
            assert type(future.exception(PATIENCE)) is SystemExit
        assert goes_on(pool)


# ---- F1 to F16


class TestDeath:
    """F1 to F4."""

    @every_way_to_send
    @pytest.mark.parametrize("workers", [1, 2, 8])
    def test_a_segfault_in_one_of_1000(self, workers, send, log):
        """F1."""
        with ProcessPoolExecutor(workers) as pool:
            items = [(log.path, number, "segfault" if number == 500 else None) for number in range(1000)]
            outcomes = send(pool, tasks.work, items)
            assert [value for value, _ in outcomes] == [None if number == 500 else number for number in range(1000)]
            check(outcomes[500][1], "segfault", "running")
            assert sorted(log.lines()) == list(range(1000))
            counts = pool.statistics()
            assert (counts.finished, counts.failed) == (999, 1)

    def test_the_worker_is_replaced_soon(self):
        """F1. Promised are 150 ms on a quiet machine."""
        with ProcessPoolExecutor(1) as pool:
            assert goes_on(pool)
            times = []
            for _ in range(5):
                crashes, next_one = pool.submit(tasks.die, "segfault"), pool.submit(time.perf_counter)
                ended = []
                crashes.add_done_callback(lambda _: ended.append(time.perf_counter()))
                begin = next_one.result(PATIENCE)
                until(lambda: ended)
                times.append(begin - ended[0])
            assert min(times) < 0.5, times

    @pytest.mark.parametrize(
        ("how", "args", "named"),
        [
            (os._exit, (3,), "ended with exit code 3"),
            (os._exit, (255,), "ended with exit code 255"),
            (os.abort, (), "died of SIGABRT"),
            (tasks.run_machine_code, (b"\x0f\x0b",), "died of SIGILL"),  # ud2
            (tasks.raise_signal, (signal.SIGILL,), "died of SIGILL"),
            (tasks.raise_signal, (signal.SIGFPE,), "died of SIGFPE"),
            (tasks.raise_signal, (signal.SIGTERM,), "died of SIGTERM"),
            (tasks.raise_signal, (signal.SIGRTMAX - 1,), f"died of signal {signal.SIGRTMAX - 1}"),
            (tasks.read_a_file_that_has_shrunk, (), "died of SIGBUS"),
            (tasks.overflow_the_stack, (), "died of SIGSEGV"),
        ],
        ids=["exit 3", "exit 255", "abort", "illegal instruction", "SIGILL", "SIGFPE", "SIGTERM", "real-time", "SIGBUS", "stack overflow"],
    )  # fmt: skip
    @pytest.mark.parametrize("in_run", [False, True], ids=["submit", "run"])
    def test_every_way_to_die(self, pool, how, args, named, in_run):
        """F2."""
        if args == (b"\x0f\x0b",) and os.uname().machine not in ("x86_64", "i686"):
            pytest.skip("x86 code")
        if in_run:
            ((_, error),) = in_a_run(pool, how, *([arg] for arg in args)) if args else in_a_run(pool, lambda _: how(), [0])
        else:
            error = pool.submit(how, *args).exception(PATIENCE)
        assert type(error) is WorkerCrashed
        assert f"{named} after " in str(error)
        assert error.phase == "while running"
        assert error.signal == (named.rpartition(" ")[2] if "SIG" in named else "" if "exit" in named else error.signal)
        if how in (os.abort, tasks.read_a_file_that_has_shrunk):
            assert "in abort" in error.stack or "in read_a_file" in error.stack or "in <lambda>" in error.stack or not in_run, (
                error.stack
            )
        assert goes_on(pool)

    @pytest.mark.parametrize(
        ("kills", "hint"),
        [([0, 0], "killed from outside"), ([0, 1], "kernel OOM killer"), ([None, None], "perhaps out of memory"), ([7, 7], "not at work")],
        ids=["from outside", "by the kernel", "not known", "an earlier one"],
    )  # fmt: skip
    def test_killed_from_outside(self, log, tmp_path, monkeypatch, kills, hint):
        """F3: the error says who may have done it, as far as the kernel's count tells."""
        counts = iter(kills)
        monkeypatch.setattr(supervisor, "oom_kills", lambda: next(counts))
        with ProcessPoolExecutor(2) as pool:
            running = pool.submit(tasks.note_and_wait, log.path, str(tmp_path / "never"))
            (pid,) = log.wait_for(1)
            os.kill(pid, signal.SIGKILL)
            error = running.exception(PATIENCE)
            assert (type(error), error.signal, error.pid, error.exitcode) == (WorkerCrashed, "SIGKILL", pid, -9)
            assert hint in error.hint
            assert "peak memory" in error.hint
            assert f"({error.hint})" in str(error)
            assert goes_on(pool)

    def test_the_kernel_takes_workers_first(self, pool):
        """F3."""
        mine = int(Path("/proc/self/oom_score_adj").read_text())
        theirs = pool.submit(lambda: int(Path("/proc/self/oom_score_adj").read_text())).result(PATIENCE)
        assert theirs > mine or mine == 1000

    @every_way_to_send
    def test_kills_at_random(self, send, tmp_path):
        """F4: for a second."""
        self.kill_at_random(send, tmp_path, 1, random.Random(send.__name__))

    @pytest.mark.slow
    @every_way_to_send
    def test_kills_at_random_for_a_minute(self, send, tmp_path):
        """F4."""
        self.kill_at_random(send, tmp_path, 60, random.Random())

    def kill_at_random(self, send, tmp_path, seconds, chance):
        """Every 0 to 20 ms one worker that is ready: three in a row that cannot even start rightly break a pool."""
        end = threading.Event()
        killed = []

        def kill():
            while not end.wait(chance.uniform(0, 0.02)) and time.monotonic() < begin + seconds:
                ready = [worker for worker in list(pool._supervisor.core.workers.values()) if worker.state == Worker.READY]
                if ready:
                    process = chance.choice(ready).handle.process
                    process.signal(signal.SIGKILL)
                    killed.append(process.pid)

        crashed = completed = 0
        with ProcessPoolExecutor(3) as pool:
            killer = threading.Thread(target=kill)
            begin, turn = time.monotonic(), 0
            killer.start()
            try:
                while time.monotonic() - begin < seconds:
                    log, turn = Log(tmp_path / f"log {turn}"), turn + 1
                    naps = [chance.choice((None, None, None, 0.001, 0.005)) for _ in range(300)]
                    outcomes = send(pool, tasks.work, [(log.path, i, nap and (time.sleep, nap)) for i, nap in enumerate(naps)])
                    ran = collections.Counter(log.lines())
                    os.unlink(log.path)
                    for number, (value, error) in enumerate(outcomes):
                        if error is None:
                            assert value == (None if naps[number] else number)
                            assert ran[number] == 1
                            completed += 1
                        else:
                            assert type(error) is WorkerCrashed
                            assert error.signal == "SIGKILL"
                            assert ran[number] <= 1
                            crashed += 1
            finally:
                end.set()
                killer.join()
            assert goes_on(pool)
        assert killed
        assert completed
        assert crashed <= len(killed)

    def test_kills_while_workers_start(self, log, tmp_path):
        """F4, F20: three in a row that cannot start, while another works, cost nobody a task."""
        with ProcessPoolExecutor(2) as pool:
            go = tmp_path / "go"
            works = pool.submit(tasks.note_and_wait, log.path, str(go))
            (pid,) = log.wait_for(1)
            waiting = [pool.submit(square, i) for i in range(5)]
            core, killed = pool._supervisor.core, set()
            while len(killed) < 3:
                for worker in list(core.workers.values()):
                    if worker.state == Worker.STARTING and worker.handle is not None and worker.number not in killed:
                        worker.handle.process.signal(signal.SIGKILL)
                        killed.add(worker.number)
            go.touch()
            assert works.result(PATIENCE) == pid
            assert [future.result(PATIENCE) for future in waiting] == [i * i for i in range(5)]


class TestHalfWrittenTask:
    """F5: killed while a task's frame is half written."""

    @pytest.mark.parametrize("in_run", [False, True], ids=["submit", "run"])
    def test_its_tasks_go_out_again(self, in_run, log):
        data = [bytes([i]) * (1 << 23) for i in range(3)]
        with ProcessPoolExecutor(1) as pool:
            pid = pool.submit(os.getpid).result(PATIENCE)
            os.kill(pid, signal.SIGSTOP)
            got = []
            if in_run:
                run = threading.Thread(target=lambda: got.extend(pool.outcomes(len, data, chunksize=3)))
                run.start()
            else:
                futures = [pool.submit(len, part) for part in data]
            self.kill_when_half_is_written(pool, pid)
            if in_run:
                run.join(PATIENCE)
                assert [outcome.value for outcome in got] == [1 << 23] * 3
            else:
                assert [future.result(PATIENCE) for future in futures] == [1 << 23] * 3
            assert pool.submit(os.getpid).result(PATIENCE) != pid

    def kill_when_half_is_written(self, pool, pid):
        def is_half_written():
            (channel,) = list(pool._supervisor._channels.values())
            return channel.out and channel.process.task_fd in pool._supervisor._by_fd

        until(is_half_written)
        os.kill(pid, signal.SIGKILL)

    @pytest.mark.parametrize("in_run", [False, True], ids=["submit", "run"])
    def test_one_that_kills_three_before_they_can_begin_it_fails(self, in_run, monkeypatch):
        """As a frame that is too large to be read would: not for ever."""
        monkeypatch.setenv("ABREAST_FP", "worker.after_ready=kill")
        with ProcessPoolExecutor(1) as pool:
            if in_run:
                ((_, error),) = in_a_run(pool, square, [3])
            else:
                error = pool.submit(square, 3).exception(PATIENCE)
            assert type(error) is WorkerCrashed
            assert error.hint == "3 workers died before they could begin it"
            monkeypatch.delenv("ABREAST_FP")
            assert goes_on(pool)


@pytest.fixture
def ends(monkeypatch):
    """How workers ended, by number."""
    ends = {}
    for kind in (launch.Process, forked.Forked):

        def recorded(self, reap=kind.reap):
            ended = reap(self)
            ends[self.number] = ended.status
            return ended

        monkeypatch.setattr(kind, "reap", recorded)
    return ends


@pytest.fixture
def fail_at(monkeypatch):
    """Sets a failpoint of the first worker. Failpoints are read when an interpreter starts: it has a guardian of its own."""

    def set_failpoint(text):
        launch_it = pool_module._Start.launch

        def launched(self, number):
            if number == 1:
                os.environ["ABREAST_FP"] = text
            try:
                return launch_it(self, number)
            finally:
                os.environ.pop("ABREAST_FP", None)

        monkeypatch.setattr(pool_module._Start, "launch", launched)

    return set_failpoint


class TestFailpoints:
    """F6, F7, F23 and all other places of a worker's life where it may die."""

    # What becomes of the task at hand (counted from 1), if anything, when the worker dies there for the n-th time.
    FATE = {
        "worker.after_decode": lambda n: (n, "while its arguments were unpickled", 0),
        "worker.after_run": lambda n: (n, "while running", 1),
        "worker.mid_write": lambda n: None if n == 1 else (n - 1, "while its result was sent", 1),  # the first write says READY
        "worker.after_write": lambda _: None,
    }

    @pytest.mark.parametrize("nth", [1, 2, 3])
    @pytest.mark.parametrize("place", FATE)
    @every_way_to_send
    def test_at_a_task(self, place, nth, send, log, ends, fail_at):
        fail_at(f"{place}=kill@{nth}")
        fate = self.FATE[place](nth)
        with ProcessPoolExecutor(1) as pool:
            outcomes = send(pool, tasks.work, [(log.path, number, None) for number in range(1, 7)])
        assert ends[1] == -signal.SIGKILL  # it has come by
        failed = {number: error for number, (_, error) in enumerate(outcomes, 1) if error is not None}
        assert [value for value, _ in outcomes] == [None if number in failed else number for number in range(1, 7)]
        ran = list(range(1, 7))
        if fate is None:
            assert not failed
        else:
            victim, phase, runs = fate
            assert list(failed) == [victim]
            assert type(failed[victim]) is WorkerCrashed
            assert failed[victim].phase == phase
            if not runs:
                ran.remove(victim)
        assert sorted(log.lines()) == ran

    @pytest.mark.parametrize("place", ["worker.before_pdeathsig", "worker.after_ready"])
    @pytest.mark.parametrize("action", ["kill", "exit", "raise"])
    @every_way_to_send
    def test_at_the_start(self, place, action, send, log, ends, fail_at, capfd):
        fail_at(f"{place}={action}")
        with ProcessPoolExecutor(1) as pool:
            outcomes = send(pool, tasks.work, [(log.path, number, None) for number in range(6)])
        assert ends[1] == {"kill": -signal.SIGKILL, "exit": 70, "raise": 1}[action]
        assert outcomes == [(number, None) for number in range(6)]
        assert sorted(log.lines()) == list(range(6))

    @pytest.mark.parametrize("action", ["kill", "exit", "raise"])
    def test_at_the_end(self, action, log, ends, fail_at, capfd):
        fail_at(f"worker.before_exit={action}")
        with ProcessPoolExecutor(1) as pool:
            assert goes_on(pool)
        assert ends[1] == {"kill": -signal.SIGKILL, "exit": 70, "raise": 1}[action]

    @pytest.mark.parametrize("nth", [1, 2, 3])
    @pytest.mark.parametrize("action", ["kill", "exit"])
    def test_before_a_batch_is_handed_back(self, nth, action, log, ends, fail_at):
        """An error ends a batch of `map`; what is behind it has not begun."""
        fail_at(f"worker.before_over={action}@{nth}")
        with ProcessPoolExecutor(1) as pool:
            for n in range(nth):
                with pytest.raises(ValueError, match="told"):
                    abreast.map(tasks.work, [(log.path, n, "ValueError"), (log.path, 99, None)], executor=pool, chunksize=2)
            assert goes_on(pool)
        assert ends[1] == (-signal.SIGKILL if action == "kill" else 70)
        assert log.lines() == list(range(nth))

    @pytest.mark.parametrize("action", ["kill", "exit"])
    def test_before_the_rest_is_handed_back(self, action, log, ends, fail_at):
        """A worker that may run 3 tasks hands back the rest of 8; none is lost or runs twice."""
        fail_at(f"worker.before_over={action}")
        with ProcessPoolExecutor(1, max_tasks_per_child=3) as pool:
            outcomes = in_a_run(pool, tasks.work, [(log.path, number, None) for number in range(8)], chunksize=8)
        assert ends[1] == (-signal.SIGKILL if action == "kill" else 70)
        assert outcomes == [(number, None) for number in range(8)]
        assert sorted(log.lines()) == list(range(8))

    @pytest.mark.parametrize("place", ["worker.after_decode", "worker.after_run"])
    @every_way_to_send
    def test_stopped_there(self, place, send, log, ends, fail_at):
        fail_at(f"{place}=stop@2")
        with ProcessPoolExecutor(1, task_timeout=0.5) as pool:
            outcomes = send(pool, tasks.work, [(log.path, number, None) for number in range(6)])
        assert [value for value, _ in outcomes] == [0, None, 2, 3, 4, 5]
        assert type(outcomes[1][1]) is TaskTimeout
        assert ends[1] == -signal.SIGKILL


class TestUnpickling:
    """F9, F11: what hangs."""

    @pytest.mark.parametrize("place", [0, 7, 15])
    def test_arguments_that_hang_inside_a_batch(self, place, log):
        with ProcessPoolExecutor(2, task_timeout=0.5) as pool:
            items = [(log.path, number, DiesUnpickled("hang") if number == place else None) for number in range(16)]
            outcomes = in_a_run(pool, tasks.work, items, chunksize=16)
        assert [value for value, _ in outcomes] == [None if number == place else number for number in range(16)]
        assert type(outcomes[place][1]) is TaskTimeout
        assert "in die" in outcomes[place][1].stack
        assert sorted(log.lines()) == [number for number in range(16) if number != place]

    def test_a_result_that_hangs_in_the_parent_holds_up_nobody_else(self, log):
        """F11. Here it waits for an event, so that it ends some time."""
        with ProcessPoolExecutor(2, task_timeout=0.5) as pool:
            hanging = pool.submit(return_what_hangs)
            asks = threading.Thread(target=lambda: got.append(hanging.result(PATIENCE)))
            got = []
            asks.start()
            assert HangsInTheParent.begun.wait(PATIENCE)
            begin = time.monotonic()
            slow = pool.submit(tasks.note_and_sleep, log.path)
            assert goes_on(pool)
            assert type(slow.exception(PATIENCE)) is TaskTimeout
            assert time.monotonic() - begin < 10
            assert [value for value, _ in in_a_run(pool, square, range(50))] == [i * i for i in range(50)]
            assert not got
            HangsInTheParent.go.set()
            asks.join(PATIENCE)
        assert got == ["arrived"]


class HangsInTheParent:
    begun, go = threading.Event(), threading.Event()

    def __reduce__(self):
        return hang_in_the_parent, ()


def return_what_hangs():
    return HangsInTheParent()


def hang_in_the_parent():
    HangsInTheParent.begun.set()
    assert HangsInTheParent.go.wait(PATIENCE)
    return "arrived"


class TestNotPicklable:
    """F12: the error names the part; lambdas and classes of the main script work."""

    @pytest.mark.parametrize("place", [0, 7, 15])
    def test_is_that_tasks_error_and_names_the_part(self, pool, place, log):
        inputs = [{"number": i, "lock": threading.Lock() if i == place else None} for i in range(16)]
        for send in (submitted, in_a_run, lambda *args: in_a_run(*args, chunksize=16)):
            outcomes = send(pool, dict, inputs)
            assert [error is None for _, error in outcomes] == [i != place for i in range(16)]
            error = outcomes[place][1]
            assert type(error) is TaskPickleError
            assert error.what.startswith("the arguments of dict")
            assert "['lock'] (lock)" in error.place

    @pytest.mark.parametrize("send", [submitted, in_a_run])
    def test_a_result_and_an_exception(self, pool, send):
        def fails(i):
            if i == 1:
                return {"here": threading.Lock()}
            if i == 2:
                raise ValueError("with", threading.Lock())
            return i

        outcomes = send(pool, fails, range(4))
        assert [value for value, _ in outcomes] == [0, None, None, 3]
        assert type(outcomes[1][1]) is TaskPickleError
        assert "result['here'] (lock)" in str(outcomes[1][1])
        assert type(outcomes[2][1]) is abreast.TaskError
        assert "ValueError" in str(outcomes[2][1])

    def test_lambdas_and_classes_of_the_main_script(self):
        done = run_python("""
            import abreast
            class Point:
                def __init__(self, x): self.x = x
                def __eq__(self, other): return type(other) is Point and self.x == other.x
            with abreast.ProcessPoolExecutor(1, flush="each") as pool:
                made = pool.submit(lambda x: Point(x + 1), 1).result()
                print(type(made) is Point, made == Point(2), pool.submit(lambda p: p.x, Point(5)).result())
                print(list(pool.map(lambda p: p == Point(3), [Point(2), Point(3)])))
        """)
        assert (done.stdout, done.stderr) == ("True True 5\n[False, True]\n", "")


def stop_self(path):
    tasks.note(path, os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def ignore_sigterm(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tasks.note_and_sleep(path)


def compute_in_c(path):
    tasks.note(path, os.getpid())
    sum(range(10**12))


class TestLimit:
    """F13, F14, F15."""

    @pytest.mark.parametrize("task", [tasks.note_and_sleep, compute_in_c, stop_self, ignore_sigterm])
    @pytest.mark.parametrize("in_run", [False, True], ids=["submit", "run"])
    def test_over_it(self, task, in_run, log):
        """F13: told on time, with the stack; the process is gone; its mates are unharmed. Promised is limit + 50 ms if the machine is quiet."""
        with ProcessPoolExecutor(2, task_timeout=0.3) as pool:
            assert goes_on(pool)
            if in_run:
                outcomes = in_a_run(pool, lambda i: task(log.path) if i == 3 else i, range(8), chunksize=8)
                assert [value for value, _ in outcomes] == [0, 1, 2, None, 4, 5, 6, 7]
                error = outcomes[3][1]
            else:
                begin = time.monotonic()
                slow, quick = pool.submit(task, log.path), [pool.submit(square, i) for i in range(50)]
                error = slow.exception(PATIENCE)
                assert 0.3 <= time.monotonic() - begin < 3
                assert [future.result(PATIENCE) for future in quick] == [i * i for i in range(50)]
            assert type(error) is TaskTimeout
            assert error.limit == 0.3
            (pid,) = log.lines()
            until(lambda: not is_alive(pid), 5)
            assert f"(process {pid})" in error.worker
            assert goes_on(pool)

    @pytest.mark.xfail(strict=True, reason="a worker that does not begin what it was sent is not looked for")
    def test_stopped_before_it_begins(self):
        """F13: a worker that stands still between tasks."""
        with ProcessPoolExecutor(1, task_timeout=0.2) as pool:
            core = pool._supervisor.core
            pid = pool.submit(os.getpid).result(PATIENCE)
            core.limits = core.limits._replace(boot=2.0)
            os.kill(pid, signal.SIGSTOP)
            future = pool.submit(square, 3)
            try:
                assert future.result(6) == 9
            finally:
                os.kill(pid, signal.SIGCONT)

    def test_one_of_64(self, log):
        """F14: the limit counts for each task, not for the batch."""
        with ProcessPoolExecutor(2, task_timeout=0.5) as pool:
            items = [(log.path, number, (time.sleep, 600 if number == 17 else 0.012)) for number in range(64)]
            begin = time.monotonic()
            outcomes = in_a_run(pool, tasks.work, items, chunksize=64)
            assert time.monotonic() - begin > 0.5 + 63 * 0.012
        assert [number for number, (_, error) in enumerate(outcomes) if error is not None] == [17]
        assert type(outcomes[17][1]) is TaskTimeout
        assert sorted(log.lines()) == list(range(64))

    @pytest.mark.parametrize("offset", [0.0, 0.021], ids=["at the limit", "when it is stopped"])
    def test_ends_at_its_limit(self, offset, log):
        """F15: one outcome, and the next task is not killed for it. Tasks end at the limit, or when they are stopped for it, 1 ms more or less."""
        self.end_at_the_limit(150, offset, log, 0.06)

    @pytest.mark.slow
    @pytest.mark.parametrize("offset", [0.0, 0.021], ids=["at the limit", "when it is stopped"])
    def test_ends_at_its_limit_often(self, offset, log):
        """F15."""
        self.end_at_the_limit(5000, offset, log, 0.02)

    def end_at_the_limit(self, tries, offset, log, limit):
        chance = random.Random(15)
        naps = [limit + offset + chance.uniform(-0.001, 0.001) for _ in range(tries)]
        with ProcessPoolExecutor(6, task_timeout=limit) as pool:
            ended = {}
            futures = []
            for number, nap in enumerate(naps):
                futures.append(pool.submit(tasks.notes_and_sleeps, log.path, 2 * number, nap))
                futures.append(pool.submit(begin_and_return, log.path, 2 * number + 1))
                for future in futures[-2:]:
                    future.add_done_callback(lambda future: ended.setdefault(future, time.perf_counter()))
            assert not wait(futures, 20 + tries).not_done
        killed = 0
        ran = collections.Counter(int(line.split()[0]) for line in Path(log.path).read_text().splitlines())
        begun = {int(line.split()[0]): float(line.split()[1]) for line in Path(log.path).read_text().splitlines() if " " in line}
        for number, future in enumerate(futures):
            error = future.exception(0)
            assert ran[number] == 1
            if error is None:
                assert future.result(0) == number
            else:
                assert type(error) is TaskTimeout
                # A quick one may be over the limit on a machine that is busy: but not right after its start.
                assert number % 2 == 0 or until(lambda: ended.get(future)) - begun[number] >= limit
                killed += 1
        assert killed <= tries + 5
        assert offset or killed < tries, killed  # they have ended before they are stopped: 20 ms later


def begin_and_return(path, number):
    tasks.note(path, f"{number} {time.perf_counter()}")
    return number


class TestCannotBeKilled:
    """F16: a worker that hangs in the system, played by a kill that does nothing."""

    @pytest.mark.parametrize("goes_on_later", [True, False])
    def test_is_given_up(self, log, tmp_path, monkeypatch, goes_on_later):
        go = tmp_path / "go"
        immortal = []
        signal_it, kill_group = forked.Forked.signal, forked.Forked.kill_group
        monkeypatch.setattr(forked.Forked, "signal", lambda self, n: self.pid in immortal or signal_it(self, n))
        monkeypatch.setattr(forked.Forked, "kill_group", lambda self: self.pid in immortal or kill_group(self))
        begin = time.monotonic()
        with ProcessPoolExecutor(1, task_timeout=0.3) as pool:
            immortal.append(pool.submit(os.getpid).result(PATIENCE))
            begin = time.monotonic()
            stuck = pool.submit(tasks.note_and_wait, log.path, str(go))
            waiting = [pool.submit(square, i) for i in range(5)]
            error = stuck.exception(PATIENCE)
            took = time.monotonic() - begin
            assert type(error) is TaskTimeout
            assert 0.3 + 0.25 <= took < 3, took  # the limit, 250 ms for the kill, and what a busy machine takes
            assert log.lines() == immortal
            assert is_alive(immortal[0])
            assert [future.result(PATIENCE) for future in waiting] == [i * i for i in range(5)]
            counts = pool.statistics()
            assert (counts.workers, counts.max_workers, counts.abandoned) == (1, 1, 1)
            assert "1 abandoned" in repr(pool)
            assert pool.submit(os.getpid).result(PATIENCE) not in immortal
            if goes_on_later:  # its outcome comes after all, and is nobody's
                go.touch()
                time.sleep(0.1)
                assert goes_on(pool)
                assert type(stuck.exception(0)) is TaskTimeout
                pid = immortal.pop()
            begin = time.monotonic()
        assert time.monotonic() - begin < 5
        if not goes_on_later:
            pid = immortal.pop()
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        until(lambda: not is_alive(pid), 5)

    def test_in_a_run(self, tmp_path, log, monkeypatch):
        go = tmp_path / "go"
        immortal = []
        signal_it, kill_group = forked.Forked.signal, forked.Forked.kill_group
        monkeypatch.setattr(forked.Forked, "signal", lambda self, n: self.pid in immortal or signal_it(self, n))
        monkeypatch.setattr(forked.Forked, "kill_group", lambda self: self.pid in immortal or kill_group(self))
        with ProcessPoolExecutor(1, task_timeout=0.3) as pool:
            immortal.append(pool.submit(os.getpid).result(PATIENCE))
            outcomes = in_a_run(pool, lambda i: tasks.note_and_wait(log.path, str(go)) if i == 2 else i, range(6), chunksize=6)
            assert [value for value, _ in outcomes] == [0, 1, None, 3, 4, 5]
            assert type(outcomes[2][1]) is TaskTimeout
            immortal.clear()

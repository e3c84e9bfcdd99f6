"""What a pool of processes offers: initializer, log records, recycling, context variables, statistics, threads of libraries."""

from __future__ import annotations

import builtins
import contextvars
import io
import logging
import os
import sys
import threading
import time

import abreast
import pytest
from abreast import ProcessPoolExecutor, WorkerCrashed
from abreast.executors.process import pool as pool_module
from abreast.executors.process.pool import usable_cores

from tests.helpers import run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
]

PATIENCE = 30
variable = contextvars.ContextVar("variable", default=0)
other_variable = contextvars.ContextVar("other_variable")


def square(x):
    return x * x


class TestInitializer:
    def test_its_arguments_arrive_once_in_each_worker(self):
        def initialize(*args):
            sys.initialized = [*getattr(sys, "initialized", []), args]

        with ProcessPoolExecutor(2, initializer=initialize, initargs=[1, {"two": 2}, None]) as pool:
            for future in [pool.submit(lambda: (time.sleep(0.02), sys.initialized)[1]) for _ in range(6)]:
                assert future.result(PATIENCE) == [(1, {"two": 2}, None)]

    def test_by_keyword_as_the_standard_librarys(self):
        with ProcessPoolExecutor(max_workers=1, mp_context=None, initializer=setattr, initargs=(sys, "given", 7)) as pool:
            assert pool.submit(lambda: sys.given).result(PATIENCE) == 7

    def test_a_closure(self):
        values = [1, 2]
        with ProcessPoolExecutor(1, initializer=lambda: setattr(sys, "given", sum(values))) as pool:
            assert pool.submit(lambda: sys.given).result(PATIENCE) == 3

    def test_arguments_that_cannot_be_pickled(self):
        """With a start method that pickles they are an error with the reason; where none is asked for they are inherited by a copy."""
        with pytest.raises(Exception, match="cannot be pickled|cannot pickle"):
            with ProcessPoolExecutor(1, "spawn", initializer=print, initargs=(threading.Lock(),)) as pool:
                pool.submit(square, 3).result(PATIENCE)
        with ProcessPoolExecutor(1, initializer=setattr, initargs=(sys, "lock", threading.Lock())) as pool:
            assert pool.submit(lambda: type(sys.lock).__name__).result(PATIENCE) == "lock"

    def test_its_log_records_arrive(self, records):
        with ProcessPoolExecutor(1, initializer=lambda: logging.getLogger("features").warning("beginning")) as pool:
            pool.submit(square, 1).result(PATIENCE)
        assert [record.getMessage() for record in records] == ["beginning"]


@pytest.fixture
def records():
    """What reaches the handlers of the loggers below "features" in this process."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            found.append(record)

    handler = Handler()
    logger = logging.getLogger("features")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def run_one(task, *args):
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(task, *args).result(PATIENCE)


class TestLog:
    def test_a_record_comes_with_all_it_had(self, records):
        def task():
            logging.getLogger("features").warning("%s is %d", "it", 7, extra={"user": "ada"})
            return os.getpid()

        pid = run_one(task)
        (record,) = records
        assert record.getMessage() == "it is 7"
        assert (record.name, record.levelname, record.user) == ("features", "WARNING", "ada")
        assert (record.process, record.funcName) == (pid, "task")
        assert abs(record.created - time.time()) < PATIENCE

    def test_levels_are_those_of_the_parent(self, records):
        names = ["features", "features.quiet", "features.loud", "features.off"]
        logging.getLogger("features.quiet").setLevel(logging.ERROR)
        logging.getLogger("features.loud").setLevel(logging.DEBUG)
        logging.getLogger("features.off").disabled = True

        def task():
            for name in names:
                for level in (10, 20, 30, 40):
                    logging.getLogger(name).log(level, "x")
            return [logging.getLogger(name).isEnabledFor(10) for name in names]

        try:
            assert run_one(task)[:3] == [False, False, True]
        finally:
            logging.getLogger("features.quiet").setLevel(logging.NOTSET)
            logging.getLogger("features.loud").setLevel(logging.NOTSET)
            logging.getLogger("features.off").disabled = False
        seen = [(record.name, record.levelno) for record in records]
        assert seen == [("features", 20), ("features", 30), ("features", 40), ("features.quiet", 40)] + [
            ("features.loud", level) for level in (10, 20, 30, 40)
        ]

    def test_logging_disable(self, records):
        logging.disable(logging.WARNING)
        try:
            run_one(lambda: [logging.getLogger("features").log(level, "x") for level in (30, 40)])
        finally:
            logging.disable(logging.NOTSET)
        assert [record.levelno for record in records] == [40]

    def test_an_exceptions_text(self, records):
        def task():
            try:
                1 / 0
            except ZeroDivisionError:
                logging.getLogger("features").exception("failed")

        run_one(task)
        (record,) = records
        assert record.exc_info is None
        assert "ZeroDivisionError" in record.exc_text
        assert "in task" in record.exc_text
        assert "ZeroDivisionError" in logging.Formatter().format(record)

    def test_what_does_not_pickle_comes_as_text(self, records):
        run_one(lambda: logging.getLogger("features").warning("%s", "x", extra={"lock": threading.Lock(), "number": 7}))
        (record,) = records
        assert record.getMessage() == "x"
        assert "lock" in record.lock
        assert record.number == 7

    def test_an_argument_that_does_not_pickle_is_in_the_message(self, records):
        run_one(lambda: logging.getLogger("features").warning("%s", threading.current_thread()))
        assert "MainThread" in records[0].getMessage()

    def test_from_a_thread_of_a_task(self, records):
        def task():
            threads = [
                threading.Thread(
                    target=lambda: [logging.getLogger("features").info("%s", i) for i in range(100)], name=f"mine-{n}"
                )
                for n in range(3)
            ]
            for thread in threads:
                thread.start()
            for i in range(50):
                logging.getLogger("features").info("main %s", i)
            for thread in threads:
                thread.join()

        run_one(task)
        assert len(records) == 350
        for n in range(3):
            assert [record.getMessage() for record in records if record.threadName == f"mine-{n}"] == [str(i) for i in range(100)]

    def test_those_of_a_task_that_crashes_arrive(self, records):
        with ProcessPoolExecutor(1) as pool:
            future = pool.submit(lambda: (logging.getLogger("features").info("last words"), os._exit(1)))
            assert isinstance(future.exception(PATIENCE), WorkerCrashed)
        assert [record.getMessage() for record in records] == ["last words"]

    def test_those_of_runs(self, records):
        assert abreast.map(lambda i: logging.getLogger("features").info("%s", i), range(50), kind="process") == [None] * 50
        assert sorted(int(record.getMessage()) for record in records) == list(range(50))

    def test_a_logger_that_a_task_makes_goes_by_its_parent(self, records):
        run_one(lambda: [logging.getLogger("features.new.one").log(level, "x") for level in (10, 20)])
        assert [(record.name, record.levelno) for record in records] == [("features.new.one", 20)]

    def test_a_warning_by_the_last_resort_is_printed_once(self):
        done = run_python("""
            import logging
            import abreast
            with abreast.ProcessPoolExecutor(1) as pool:
                pool.submit(lambda: logging.getLogger("mine").warning("only once")).result()
        """)
        assert (done.stdout, done.stderr) == ("", "only once\n")


class TestRecycling:
    @pytest.mark.parametrize("most", [1, 2, 5])
    def test_pids_change(self, most):
        with ProcessPoolExecutor(1, max_tasks_per_child=most) as pool:
            pids = [pool.submit(os.getpid).result(PATIENCE) for _ in range(10)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [most] * (10 // most)

    def test_without_a_limit_it_stays(self):
        with ProcessPoolExecutor(1) as pool:
            assert len({pool.submit(os.getpid).result(PATIENCE) for _ in range(30)}) == 1


class TestContext:
    def test_of_the_moment_of_submitting(self):
        with ProcessPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            futures = []
            for i in range(5):
                context.run(variable.set, i)
                futures.append(context.run(pool.submit, variable.get))
            assert [future.result(PATIENCE) for future in futures] == list(range(5))
            assert pool.submit(variable.get).result(PATIENCE) == 0

    def test_what_a_task_sets_stays_with_it(self):
        with ProcessPoolExecutor(1) as pool:
            pool.submit(lambda: (variable.set(99), 0)[1]).result(PATIENCE)
            assert pool.submit(variable.get).result(PATIENCE) == 0
            assert list(pool.map(lambda _: (variable.get(), variable.set(5))[0], range(4), chunksize=4)) == [0] * 4
        assert variable.get() == 0

    def test_one_that_cannot_be_pickled_does_not_travel(self):
        context = contextvars.copy_context()
        context.run(other_variable.set, threading.Lock())
        context.run(variable.set, 3)
        with ProcessPoolExecutor(1) as pool:
            future = context.run(pool.submit, lambda: (variable.get(), other_variable.get("none")))
            assert future.result(PATIENCE) == (3, "none")

    def test_in_runs(self):
        context = contextvars.copy_context()
        context.run(variable.set, 8)
        assert context.run(abreast.map, lambda _: variable.get(), range(5), kind="process") == [8] * 5


class TestStatistics:
    def test_through_a_life(self, tmp_path):
        stop = tmp_path / "stop"

        def work():
            while not stop.exists():
                time.sleep(0.005)

        pool = ProcessPoolExecutor(2)
        assert pool.statistics() == (2, 0, 0, 0, 0, 0, 0, 0, 0)
        assert repr(pool) == "<ProcessPoolExecutor open: 0 of 2 processes>"
        running = [pool.submit(work) for _ in range(2)]
        until(lambda: pool.statistics().running == 2)
        waiting = [pool.submit(square, i) for i in range(5)]
        assert waiting[0].cancel()
        until(lambda: pool.statistics()[4:] == (4, 0, 0, 1, 0))
        assert pool.statistics()[:4] == (2, 2, 0, 2)
        assert repr(pool) == "<ProcessPoolExecutor open: 2 of 2 processes, 2 running, 4 pending, 1 cancelled>"
        stop.touch()
        for future in running + waiting[1:]:
            future.result(PATIENCE)
        assert pool.submit(divmod, 1, 0).exception(PATIENCE) is not None
        assert pool.submit(os._exit, 1).exception(PATIENCE) is not None
        until(lambda: pool.statistics().failed == 2 and pool.statistics().idle == pool.statistics().workers)
        now = pool.statistics()
        assert (now.finished, now.failed, now.cancelled, now.running, now.pending) == (6, 2, 1, 0, 0)
        pool.shutdown()
        assert pool.statistics()[:5] == (2, 0, 0, 0, 0)
        assert repr(pool) == "<ProcessPoolExecutor shut down: 0 of 2 processes, 6 finished, 2 failed, 1 cancelled>"

    def test_of_runs(self):
        with ProcessPoolExecutor(2) as pool:
            assert len(list(abreast.outcomes(lambda i: 1 / i, range(100), executor=pool))) == 100
            until(lambda: sum(pool.statistics()[5:7]) == 100)
            assert pool.statistics()[5:7] == (99, 1)

    def test_broken(self, caplog):
        pool = ProcessPoolExecutor(1, initializer=os._exit, initargs=(1,))
        assert pool.submit(square, 1).exception(PATIENCE) is not None
        assert repr(pool).startswith("<ProcessPoolExecutor broken: ")
        pool.shutdown()


NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class TestThreadsOfLibraries:
    @pytest.mark.parametrize(("cores", "workers", "share"), [(8, 2, "4"), (8, 3, "2"), (2, 2, "1"), (2, 5, "1"), (6, 1, "6")])
    def test_each_worker_has_its_share_of_the_cores(self, cores, workers, share, monkeypatch):
        monkeypatch.setattr(pool_module, "usable_cores", lambda: cores)
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        with ProcessPoolExecutor(workers) as pool:
            assert pool.submit(lambda: [os.environ.get(name) for name in NAMES]).result(PATIENCE) == [share] * 5
        assert not set(NAMES) & set(os.environ)

    def test_what_the_user_has_set_counts(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "17")
        with ProcessPoolExecutor(2) as pool:
            assert pool.submit(os.environ.get, "OMP_NUM_THREADS").result(PATIENCE) == "17"

    def test_another_pool_of_the_same_program_has_another_share(self, monkeypatch):
        monkeypatch.setattr(pool_module, "usable_cores", lambda: 8)
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for workers, share in [(2, "4"), (8, "1"), (1, "8"), (2, "4")]:
            with ProcessPoolExecutor(workers) as pool:
                assert pool.submit(lambda: os.environ.get(NAMES[0])).result(PATIENCE) == share

    def test_copies_of_a_worker_have_it_too(self, monkeypatch):
        """Whose task has taken it out of the environment."""
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)

        def nested():
            for name in NAMES:
                del os.environ[name]
            with ProcessPoolExecutor(1, mp_context="fork") as pool:
                return pool.submit(lambda: [os.environ.get(name) for name in NAMES]).result(PATIENCE)

        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(nested).result(PATIENCE) == [str(usable_cores())] * 5


class TestCores:
    @pytest.mark.parametrize(
        ("files", "cores"),
        [
            ({"/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
            ({"/sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
            ({"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
            ({"/sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
            ({"/sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
            ({"/sys/fs/cgroup/cpu.max": "nonsense\n"}, 8),
            ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 3),
            ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8),
            ({}, 8),
        ],
    )
    def test_the_containers_limit_counts(self, files, cores, monkeypatch):
        real = builtins.open

        def fake(path, *args, **kwargs):
            if str(path).startswith("/sys/fs/cgroup"):
                if path not in files:
                    raise FileNotFoundError(path)
                return io.StringIO(files[path])
            return real(path, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", fake)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
        monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
        assert usable_cores() == cores
        assert ProcessPoolExecutor()._max_workers == cores

    def test_affinity_counts(self):
        done = run_python("""
            import os
            import abreast
            os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
            pool = abreast.ProcessPoolExecutor()
            print(pool._max_workers)
        """)
        assert (done.stdout, done.stderr) == ("1\n", "")

    def test_within_a_worker_one_is_usual(self):
        with ProcessPoolExecutor(1) as pool:
            assert pool.submit(lambda: ProcessPoolExecutor()._max_workers).result(PATIENCE) == 1


class TestFaulthandler:
    def crash(self):
        import ctypes

        with ProcessPoolExecutor(1) as pool:
            return pool.submit(lambda: ctypes.string_at(0)).exception(PATIENCE)

    def test_a_crash_tells_its_stack(self, monkeypatch, capfd):
        monkeypatch.delenv("PYTHONFAULTHANDLER", raising=False)
        error = self.crash()
        assert error.signal == "SIGSEGV"
        assert "string_at" in error.stack
        assert "string_at" in str(error)

    def test_it_can_be_turned_off(self, monkeypatch):
        monkeypatch.setenv("PYTHONFAULTHANDLER", "0")
        error = self.crash()
        assert error.signal == "SIGSEGV"
        assert error.stack == ""

    def test_an_initializer_may_do_it(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PYTHONFAULTHANDLER", "0")

        def enable():
            import faulthandler

            sys.stacks = open(tmp_path / "stacks", "w")
            faulthandler.enable(sys.stacks)

        with ProcessPoolExecutor(1, initializer=enable) as pool:
            assert isinstance(pool.submit(os.abort).exception(PATIENCE), WorkerCrashed)
        assert "Fatal Python error: Aborted" in (tmp_path / "stacks").read_text()

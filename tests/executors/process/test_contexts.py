"""Start methods, and what belongs to multiprocessing: copies of this process, its locks and queues, managers, names; captured output."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.managers
import multiprocessing.resource_tracker
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from abreast.core.process_errors import TaskPickleError, WorkerCrashed
from abreast.executors.process import contexts
from abreast.executors.process.pool import ProcessPool

from tests.executors.process.tasks import wait_for_file
from tests.helpers import ROOT, is_alive, run_python, until

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
    # 3.12 and later: of forking while there are threads, which the tests of forks do on purpose
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

PATIENCE = 30
METHODS = ("spawn", "forkserver", "fork")
GIVEN: list[object] = []
"""What the initializer has got, in a worker; and what copies of this process inherit."""


@pytest.fixture(scope="module", autouse=True)
def tracker():
    """Have what multiprocessing keeps for the rest of the program before a test counts: its resource tracker, its heap of shared memory."""
    multiprocessing.resource_tracker.ensure_running()
    kept = [multiprocessing.get_context(method).RawValue("i", 0) for method in METHODS]
    yield
    del kept


@pytest.fixture
def inherited():
    """Something that only a copy of this process has."""
    GIVEN[:] = [threading.Lock(), lambda: "inherited"]
    yield GIVEN
    GIVEN.clear()


def take(*given):
    GIVEN[:] = given


def look():
    return len(GIVEN), GIVEN[1]() if len(GIVEN) > 1 else None


def crash():
    os.kill(os.getpid(), signal.SIGKILL)


def environment(name):
    return os.environ.get(name)


def square(x):
    return x * x


def use(kind, value):
    """Use what the initializer has got."""
    (it,) = GIVEN
    if kind in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"):
        with it:
            return value
    if kind == "Event":
        it.set()
    elif kind == "Barrier":
        it.wait(PATIENCE)
    elif kind == "Value":
        with it.get_lock():
            it.value = value
    elif kind == "Array":
        it[2] = value
    elif kind == "Pipe":
        it.send((value, os.getpid()))
    else:
        it.put((value, os.getpid()))
    return value


def read_all_of(queue, count):
    return [queue.get() for _ in range(count)]


def names():
    return (
        multiprocessing.current_process().name,
        multiprocessing.parent_process().pid,
        multiprocessing.parent_process().is_alive(),
    )


def print_both(text):
    print(text)
    print("error", text, file=sys.stderr)
    os.write(1, b"raw\n")


def threads_of_blas():
    import numpy  # noqa: F401  # with its libraries
    import threadpoolctl

    return [info["num_threads"] for info in threadpoolctl.threadpool_info()]


def fork_and_wait():
    pid = os.fork()
    if not pid:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_a_thread_that_outlives_the_task():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid()


def descriptors():
    return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


def handlers():
    return [
        int(signal.getsignal(number)) if not callable(signal.getsignal(number)) else "handler"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    ]


class TestChoice:
    @pytest.mark.parametrize("method", METHODS)
    def test_by_name_and_by_context(self, method):
        for context in (method, multiprocessing.get_context(method)):
            with ProcessPool(1, context) as pool:
                assert pool.submit(square, 3).result(PATIENCE) == 9
                assert pool._mp_context.get_start_method() == method

    def test_none_is_a_fresh_interpreter(self, inherited):
        with ProcessPool(1) as pool:
            assert pool.submit(look).result(PATIENCE) == (0, None)

    @pytest.mark.parametrize("context", ["teleport", "", type("Context", (), {"get_start_method": lambda _: "loky"})()])
    def test_another_one_is_refused(self, context):
        with pytest.raises(ValueError, match=r"mp_context must be None, .*'spawn'"):
            ProcessPool(1, context)

    def test_no_context_at_all(self):
        with pytest.raises(TypeError, match="mp_context must be None, .*not 3"):
            ProcessPool(1, 3)

    def test_a_fork_recycles_no_processes(self):
        with pytest.raises(ValueError, match=r"max_tasks_per_child=2 is incompatible with the 'fork'"):
            ProcessPool(1, "fork", max_tasks_per_child=2)

    def test_capture_output_is_a_bool(self):
        with pytest.raises(TypeError, match="capture_output must be True or False, not 1"):
            ProcessPool(1, capture_output=1)


class TestFork:
    def test_what_this_process_has_is_inherited(self, inherited):
        with ProcessPool(2, "fork") as pool:
            assert pool.submit(look).result(PATIENCE) == (2, "inherited")
            assert pool.submit(os.getppid).result(PATIENCE) != os.getpid()

    def test_initializer_and_initargs_need_no_pickle(self):
        lock = threading.Lock()
        lock.acquire()
        with ProcessPool(1, "fork", initializer=lambda *given: take(lock, *given), initargs=(lambda: "as it is",)) as pool:
            assert pool.submit(look).result(PATIENCE) == (2, "as it is")
        assert not GIVEN

    def test_a_worker_that_crashes_is_replaced_by_another_copy(self, inherited):
        with ProcessPool(2, "fork") as pool:
            for _ in range(20):
                with pytest.raises(WorkerCrashed, match="SIGKILL"):
                    pool.submit(crash).result(PATIENCE)
                assert pool.submit(look).result(PATIENCE) == (2, "inherited")

    def test_copies_are_of_the_moment_of_the_first_submit(self, inherited):
        with ProcessPool(2, "fork") as pool:
            assert pool.submit(look).result(PATIENCE) == (2, "inherited")
            inherited.append(None)
            with pytest.raises(WorkerCrashed):
                pool.submit(crash).result(PATIENCE)
            assert pool.submit(look).result(PATIENCE) == (2, "inherited")

    def test_the_initializers_error_breaks_the_pool(self):
        with (
            ProcessPool(1, "fork", initializer=take(1) or (lambda: 1 / 0)) as pool,
            pytest.raises(BrokenProcessPool, match="ZeroDivision"),
        ):
            pool.submit(square, 1).result(PATIENCE)
        GIVEN.clear()

    def test_a_task_over_its_limit_is_killed_with_what_it_has_started(self, tmp_path):
        from abreast.core.errors import TaskTimeout

        with ProcessPool(1, "fork", task_timeout=0.5) as pool:
            with pytest.raises(TaskTimeout) as raised:
                pool.submit(start_and_hang, str(tmp_path / "pid")).result(PATIENCE)
            assert "start_and_hang" in raised.value.stack
            until(lambda: not is_alive(int((tmp_path / "pid").read_text())))
            assert pool.submit(square, 4).result(PATIENCE) == 16

    @pytest.mark.slow  # failed once beside other tests: the crash was told without its signal; to be looked into
    def test_without_pidfd(self, monkeypatch):
        monkeypatch.delattr(os, "pidfd_open")
        with ProcessPool(2, "fork") as pool:
            for _ in range(3):
                with pytest.raises(WorkerCrashed, match="SIGKILL"):
                    pool.submit(crash).result(PATIENCE)
                assert pool.submit(square, 3).result(PATIENCE) == 9

    def test_the_template_has_one_thread_and_no_zombies(self):
        with ProcessPool(2, "fork") as pool:
            for _ in range(4):
                with pytest.raises(WorkerCrashed):
                    pool.submit(crash).result(PATIENCE)
            assert pool.submit(square, 3).result(PATIENCE) == 9
            template = pool._start._template.pid
            assert os.listdir(f"/proc/{template}/task") == [str(template)]
            until(lambda: set(children_of(template)) == set(map(str, pool._processes)))

    def test_all_descriptors_used_up(self):
        """The template cannot be made: the pool is broken, nothing is left, and later it can be."""
        pool = ProcessPool(1, "fork", initializer=take, initargs=(1, lambda: "given"))
        before, children = descriptors(), our_children()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 1, hard))
        kept = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(2):
                with pytest.raises(BrokenProcessPool, match="cannot be started"):
                    pool.submit(square, 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in kept:
                os.close(fd)
        assert (descriptors(), our_children()) == (before, children)
        with pool:
            assert pool.submit(look).result(PATIENCE) == (2, "given")

    def test_the_exit_status_is_known(self):
        with ProcessPool(1, "fork") as pool, pytest.raises(WorkerCrashed, match="exit code 5"):
            pool.submit(os._exit, 5).result(PATIENCE)

    def test_signals_do_what_they_do_by_default(self):
        before = signal.signal(signal.SIGUSR1, lambda *_: None), signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            with ProcessPool(1, "fork") as pool:
                assert pool.submit(handlers).result(PATIENCE) == [signal.SIG_IGN, signal.SIG_DFL, signal.SIG_DFL]
        finally:
            signal.signal(signal.SIGUSR1, before[0])
            signal.signal(signal.SIGTERM, before[1])

    def test_a_program_that_ignores_sigchld(self):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with ProcessPool(1, "fork") as pool, pytest.raises(WorkerCrashed, match="exit code 6"):
                pool.submit(os._exit, 6).result(PATIENCE)
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_stdin_is_empty(self):
        with ProcessPool(1, "fork") as pool:
            assert pool.submit(read_stdin).result(PATIENCE) == ("", b"")

    def test_a_task_may_fork(self):
        for method in METHODS:
            with ProcessPool(1, method) as pool:
                assert pool.submit(fork_and_wait).result(PATIENCE) == 7

    def test_pools_of_the_parent_are_foreign_to_the_copies(self):
        global outer
        with ProcessPool(1) as outer:
            assert outer.submit(square, 2).result(PATIENCE) == 4
            with ProcessPool(1, "fork") as pool, pytest.raises(RuntimeError, match="belongs to the parent process"):
                pool.submit(submit_to_outer).result(PATIENCE)
            assert outer.submit(square, 3).result(PATIENCE) == 9

    def test_a_pool_in_a_pool(self):
        with ProcessPool(1, "fork") as pool:
            assert pool.submit(in_a_pool_of_its_own, "fork").result(PATIENCE) == 49
            assert pool.submit(in_a_pool_of_its_own, "spawn").result(PATIENCE) == 49

    def test_a_thread_that_ends_right_after_the_first_submit(self):
        pool = ProcessPool(1, "fork")
        futures = []
        thread = threading.Thread(target=lambda: futures.append(pool.submit(square, 5)))
        thread.start()
        thread.join()
        with pool:
            assert futures[0].result(PATIENCE) == 25
            with pytest.raises(WorkerCrashed):
                pool.submit(crash).result(PATIENCE)
            assert pool.submit(square, 6).result(PATIENCE) == 36

    def test_ten_busy_threads_at_the_fork(self):
        end, lock = threading.Event(), threading.Lock()

        def work():
            while not end.is_set():
                with lock:
                    json.loads(json.dumps(list(range(50))))

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                with ProcessPool(2, "fork") as pool:
                    assert [future.result(PATIENCE) for future in [pool.submit(square, i) for i in range(20)]] == [
                        i * i for i in range(20)
                    ]
        finally:
            end.set()
            for thread in threads:
                thread.join()

    def test_nothing_is_left_while_the_shut_down_pool_is_still_there(self):
        before, children = descriptors(), our_children()
        pools = []
        for _ in range(3):
            pool = ProcessPool(2, "fork", capture_output=True)
            assert pool.submit(square, 3).result(PATIENCE) == 9
            pool.shutdown()
            pools.append(pool)
        assert {fd: what for fd, what in descriptors().items() if fd not in before} == {}
        assert our_children() == children

    def test_workers_hold_none_of_the_pools_descriptors(self):
        with ProcessPool(3, "fork") as pool:
            futures = [pool.submit(descriptors_after, 0.2) for _ in range(3)]
            for future in futures:
                fds = future.result(PATIENCE)
                ours = [what for fd, what in fds.items() if what.startswith("/memfd:abreast")]
                assert len(ours) == 2, fds  # its page and its stack
                assert sum("pidfd" in what for what in fds.values()) <= 1, fds  # multiprocessing.parent_process()

    def test_the_parents_children_and_finalizers_are_left_alone(self, tmp_path):
        """A worker's end is like that of a child of multiprocessing, which ends the daemons that it has started; these are not its own."""
        said = run_python(f"""
            import multiprocessing, os, sys, time
            from abreast.executors.process.pool import ProcessPool
            sys.path.insert(0, {str(ROOT)!r})
            from tests.executors.process.tasks import square
            context = multiprocessing.get_context("fork")
            daemon = context.Process(target=time.sleep, args=(60,), daemon=True)
            daemon.start()
            lock = multiprocessing.get_context("spawn").Lock()
            with multiprocessing.Manager() as manager:
                shared = manager.list([1])
                with ProcessPool(2, "fork") as pool:
                    print([pool.submit(square, i).result(20) for i in range(4)])
                print(daemon.is_alive(), shared[0])
            import subprocess
            daemon.kill()
        """)
        assert said.returncode == 0, said.stderr
        assert said.stdout.splitlines() == ["[0, 1, 4, 9]", "True 1"], said.stderr

    def test_what_is_registered_for_the_end_of_the_program_is_done_once(self):
        said = run_python("""
            import atexit, sys, threading, weakref
            from abreast.executors.process.pool import ProcessPool
            sys.stdout = open(1, "w", closefd=False)
            sys.stdout.write("once, ")  # still in the buffer when it is forked, if that is not looked after
            atexit.register(print, "the end")
            class Cycle:
                def __init__(self): self.me = self
                def __del__(self): print("collected")
            import gc
            gc.disable()
            Cycle()
            def collect():
                import gc
                gc.collect()
            with ProcessPool(2, "fork") as pool:
                pool.submit(collect).result(20)
            gc.collect()
        """)
        assert said.stdout == "once, collected\nthe end\n", said
        assert said.returncode == 0


class TestForkedMain:
    """The main script is inherited: its functions and classes are the workers' own, and so are its globals."""

    SCRIPT = """
        import contextvars, enum, sys
        from abreast.executors.process.pool import ProcessPool
        STATE = None
        class Unsent:
            def __reduce__(self): raise AssertionError("it was sent")
        HUGE = Unsent()
        var = contextvars.ContextVar("var", default=0)
        class Point:
            made = 0
            def __init__(self, x): self.x = x; type(self).made += 1
            class Inner: pass
        class Colour(enum.Enum): RED = 1
        class Bad(Exception): pass
        def init(value):
            global STATE
            STATE = value
        def state(): return STATE, type(HUGE).__name__
        def same(point): return isinstance(point, Point) and type(point) is sys.modules["__main__"].Point
        def make(): return Point(5), Point.Inner(), Colour.RED
        def bad(): raise Bad("no")
        def get(): return var.get()
        with ProcessPool(1, "fork", initializer=init, initargs=(7,)) as pool:
            assert pool.submit(state).result(20) == (7, "Unsent"), pool.submit(state).result(20)
            point = Point(1)
            assert pool.submit(same, point).result(20)
            point, inner, colour = pool.submit(make).result(20)
            assert type(point) is Point and type(inner) is Point.Inner and colour is Colour.RED and Point.made == 1
            assert type(pool.submit(bad).exception(20)) is Bad
            var.set(3)
            assert pool.submit(get).result(20) == 3
            # what is new since the fork goes by value
            old = state
            class New(Point): pass
            def state(): return "another"
            def twice(x): return type(x).__name__, isinstance(x, Point), make()[2]
            assert pool.submit(state).result(20) == "another"
            old.__globals__["HUGE"] = 1  # which now goes along
            assert pool.submit(old).result(20) == (7, "int")
            assert pool.submit(twice, New(2)).result(20) == ("New", True, Colour.RED)
            assert isinstance(pool.submit(lambda: New(4)).result(20), New)
            assert list(map(lambda f: f.result(20), [pool.submit(lambda x=x: x + 1) for x in range(3)])) == [1, 2, 3]
        print("done")
        """

    def test_by_name(self):
        said = run_python(self.SCRIPT)
        assert said.stdout == "done\n", said.stderr


class TestGlobalsOfMain:
    """What a function of the main script assigns is seen by the others in that worker, although it does not have the main script."""

    @pytest.mark.parametrize("method", METHODS)
    def test_an_initializers(self, method):
        said = run_python(f"""
            from abreast.executors.process.pool import ProcessPool
            model = None
            class Model:
                made = 0
                def scale(self): return factor
                def set(self, value):
                    global factor
                    factor = value
            def init(value):
                global model, factor
                model, factor = {{"the": value}}, 10
            def get(): return model
            def get_factor(): return factor
            def through_a_helper(): return get()["the"] * factor
            def set_factor(value):
                global factor
                factor = value
                raise LookupError
            def count():
                global counted
                counted += 1
                return counted
            counted = 0
            with ProcessPool(1, {method!r}, initializer=init, initargs=(7,)) as pool:
                run = lambda fn, *args: pool.submit(fn, *args).result(20)
                assert run(get) == {{"the": 7}}
                assert run(through_a_helper) == 70 and run(lambda: factor) == 10 and run(Model().scale) == 10
                assert type(pool.submit(set_factor, 3).exception(20)) is LookupError
                run(abs, 1)
                assert run(through_a_helper) == 21 and run(lambda: factor) == 3 and run(get_factor) == 3
                run(Model().set, 4)
                assert run(get_factor) == 4 and run(Model().scale) == 4
                assert [run(count) for _ in range(3)] == [1, 2, 3] and run(lambda: counted) == 3
                assert run(get) == {{"the": 7}}
            assert model is None and counted == 0
            unassigned = 1
            def see(): return unassigned
            with ProcessPool(1, "spawn") as pool:
                assert pool.submit(see).result(20) == 1
                unassigned = 2
                assert pool.submit(see).result(20) == 2  # as ever: the parent's, at the moment of the submit
                unassigned = 1
                assert pool.submit(see).result(20) == 1
            print("done")
            """)
        assert said.stdout == "done\n", said.stderr


class TestEndOfTheParent:
    CODE = f"""
        import os, sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from abreast.executors.process.pool import ProcessPool
        from tests.executors.process.test_contexts import start_and_hang
        pool = ProcessPool(2, "fork")
        futures = [pool.submit(start_and_hang, name) for name in sys.argv[1:3]]
        template = pool._start._template.pid
        """

    def start(self, tmp_path, end):
        paths = [str(tmp_path / name) for name in "ab"]
        code = "\n".join(line.strip() for line in (self.CODE + end).splitlines())
        process = subprocess.Popen(
            [sys.executable, "-c", code, *paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return process, paths

    @pytest.mark.parametrize("child", [False, True], ids=["", "with a child that holds all descriptors"])
    def test_kill_9_leaves_nothing(self, tmp_path, child):
        """A child that C code has forked, not Python: nobody has closed there what is the parent's."""
        process, paths = self.start(
            tmp_path,
            """
            import ctypes
            libc, child = ctypes.PyDLL(None), None
            """
            + "child = libc.fork()\nif child == 0: libc.pause()\n" * child
            + """
            from tests.executors.process.tasks import wait_for_file
            for name in sys.argv[1:3]: wait_for_file(name)
            print(child or os.getpid(), template, *pool._processes, flush=True)
            futures[0].result()""",
        )
        first, *pids = [int(pid) for pid in process.stdout.readline().split()]
        pids += [int(Path(wait_for_file(path)).read_text()) for path in paths]
        assert len(pids) == 5
        assert all(map(is_alive, pids))
        process.kill()
        process.wait()
        try:
            until(lambda: not any(map(is_alive, pids)))
            assert not child or is_alive(first)
        finally:
            if child:
                os.kill(first, signal.SIGKILL)
            process.communicate()

    @pytest.mark.parametrize("end", ["futures[0].result()", "pool.shutdown()"])
    def test_ctrl_c(self, tmp_path, end):
        process, paths = self.start(tmp_path, f"""
            print(template, flush=True)
            with pool:
                {end}""".replace("\n            ", "\n").replace("with pool:\n    ", "with pool: "))  # fmt: skip
        pids = [int(process.stdout.readline()), *(int(Path(wait_for_file(path)).read_text()) for path in paths)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGINT, errors
        assert errors.rstrip().endswith("KeyboardInterrupt"), errors
        until(lambda: not any(map(is_alive, pids)))

    def test_a_dead_template_is_told_of(self):
        with ProcessPool(1, "fork") as pool:
            assert pool.submit(square, 3).result(PATIENCE) == 9
            os.kill(pool._start._template.pid, signal.SIGKILL)
            with pytest.raises(BrokenProcessPool, match="the process that forks the workers"):
                while True:  # the worker may still be there for a moment
                    with contextlib.suppress(WorkerCrashed):
                        pool.submit(square, 3).result(PATIENCE)

    def test_a_template_that_does_not_end_is_killed(self, monkeypatch):
        from abreast.executors.process import forked

        monkeypatch.setattr(forked, "LAST_PATIENCE", 0.1)
        with ProcessPool(1, "fork") as pool:
            assert pool.submit(square, 3).result(PATIENCE) == 9
            real = pool._start._template.close

            def close():
                os.kill(pool._start_pid, signal.SIGSTOP)
                real()

            pool._start_pid = pool._start._template.pid
            pool._start._template.close = close
        assert not is_alive(pool._start_pid)


def start_and_hang(path):
    """Start a process, write down its pid, and hang."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
    with open(path + ".new", "w") as file:
        file.write(str(child.pid))
    os.rename(path + ".new", path)
    time.sleep(600)


def read_stdin():
    return sys.stdin.read(), os.read(0, 1)


outer: ProcessPool | None = None


def submit_to_outer():
    outer.submit(square, 1)


def in_a_pool_of_its_own(method):
    with ProcessPool(1, method) as pool:
        return pool.submit(square, 7).result(PATIENCE)


def descriptors_after(seconds):
    time.sleep(seconds)  # until the other workers are there
    return descriptors()


def our_children():
    return children_of(os.getpid())


def children_of(pid):
    return sorted(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def made_in(context, kind):
    """Return an object of multiprocessing, what is handed over of it, and how to read what a worker did with it."""
    if kind == "Value":
        it = context.Value("i", 0)
        return it, it, lambda _: it.value
    if kind == "Array":
        it = context.Array("i", 3)
        return it, it, lambda _: it[2]
    if kind == "Barrier":
        it = context.Barrier(1)
        return it, it, lambda value: value if it.n_waiting == 0 and not it.broken else None
    if kind == "Event":
        it = context.Event()
        return it, it, lambda value: value if it.wait(PATIENCE) else None
    if kind == "Pipe":
        here, there = context.Pipe()
        return (here, there), there, lambda _: here.recv()[0]
    it = getattr(context, kind)()
    if kind.endswith("Queue"):
        return it, it, lambda _: it.get()[0]

    def read(value):  # nobody holds it any more
        assert it.acquire(timeout=PATIENCE)
        it.release()
        return value

    return it, it, read


KINDS = (
    "Lock",
    "RLock",
    "Semaphore",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Barrier",
    "Value",
    "Array",
    "Pipe",
    "Queue",
    "SimpleQueue",
    "JoinableQueue",
)


class TestInitargs:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("of", "given"), [(m, m) for m in METHODS] + [(m, None) for m in METHODS] + [("spawn", "fork")])
    def test_objects_of_multiprocessing(self, kind, of, given):
        it, handed, read = made_in(multiprocessing.get_context(of), kind)
        try:
            with ProcessPool(2, given, initializer=take, initargs=(handed,)) as pool:
                assert pool.submit(use, kind, 42).result(PATIENCE) == 42
                assert read(42) == 42
        finally:
            close(it)

    def test_replacements_have_them_too_although_the_parent_has_closed_its_end(self):
        here, there = multiprocessing.Pipe()
        pool = ProcessPool(1, "spawn", initializer=take, initargs=(there,))
        there.close()
        others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]  # the number belongs to another file now
        try:
            with pool:
                pids = set()
                for _ in range(3):
                    pool.submit(use, "Pipe", 1).result(PATIENCE)
                    pids.add(here.recv()[1])
                    with pytest.raises(WorkerCrashed):
                        pool.submit(crash).result(PATIENCE)
                assert len(pids) == 3
            with pytest.raises(EOFError):  # nobody holds the other end any more
                here.recv()
        finally:
            here.close()
            for fd in others:
                os.close(fd)

    def test_a_pool_that_was_never_used_leaves_no_descriptor(self):
        here, there = multiprocessing.Pipe()
        before = descriptors()
        ProcessPool(1, "spawn", initializer=take, initargs=(there,))
        gc.collect()
        assert descriptors() == before
        here.close()
        there.close()

    def test_deep_inside(self):
        here, there = multiprocessing.Pipe()
        with ProcessPool(1, "spawn", initializer=take_last, initargs=({"a": [Holder(Holder((there,)))]},)) as pool:
            pool.submit(use, "Pipe", 5).result(PATIENCE)
            assert here.recv()[0] == 5
        here.close()
        there.close()

    def test_a_socket(self):
        here, there = socket.socketpair()
        with here, there, ProcessPool(1, "spawn", initializer=take, initargs=(there,)) as pool:
            pool.submit(send_on_socket).result(PATIENCE)
            assert here.recv(10) == b"hello"

    def test_a_lock_excludes_two_workers(self):
        context = multiprocessing.get_context("spawn")
        lock, value = context.Lock(), context.RawValue("i", 0)
        with ProcessPool(2, "spawn", initializer=take, initargs=(lock, value)) as pool:
            for future in [pool.submit(count_up, 300) for _ in range(4)]:
                future.result(PATIENCE)
        assert value.value == 1200

    def test_a_lock_outlives_a_worker_that_dies(self):
        """A worker with a resource tracker of its own would have the lock's name removed with it."""
        lock = multiprocessing.get_context("spawn").Lock()
        with ProcessPool(1, "spawn", initializer=take, initargs=(lock,)) as pool:
            for _ in range(3):
                assert pool.submit(use, "Lock", 1).result(PATIENCE) == 1
                with pytest.raises(WorkerCrashed):
                    pool.submit(crash).result(PATIENCE)
            assert pool.submit(tracker_children).result(PATIENCE) == []

    def test_a_lock_of_a_fork_context_needs_a_fork(self):
        with pytest.raises(RuntimeError, match="fork context"):
            ProcessPool(1, "spawn", initializer=take, initargs=(multiprocessing.get_context("fork").Lock(),))

    def test_what_only_a_copy_can_have_makes_it_one(self):
        with ProcessPool(1, initializer=take, initargs=(threading.Lock(), lambda: 1)) as pool:
            assert pool.submit(look).result(PATIENCE) == (2, 1)
            assert pool._mp_context.get_start_method() == "fork"

    @pytest.mark.parametrize("more", [{"mp_context": "spawn"}, {"max_tasks_per_child": 3}])
    def test_where_none_is_wanted_it_is_an_error_at_once(self, more):
        with pytest.raises(TaskPickleError, match=r"the arguments of the initializer .*initargs\[1\]\.inner \(lock\)"):
            ProcessPool(1, initializer=take, initargs=(1, Holder(threading.Lock())), **more)

    def test_an_initializer_that_cannot_be_sent(self):
        with pytest.raises(TaskPickleError, match=r"the initializer .*lock"):
            ProcessPool(1, "spawn", initializer=Holder(threading.Lock()).look)

    @pytest.mark.clients
    def test_tqdm(self, monkeypatch):
        concurrent = pytest.importorskip("tqdm.contrib.concurrent")
        tqdm = pytest.importorskip("tqdm")
        bar = io.StringIO()
        monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # no thread
        options = {"max_workers": 2, "lock_name": "mp_lock", "file": bar, "mininterval": 0}
        got = concurrent._executor_map(ProcessPoolWithMap, square, range(10), **options)
        assert got == [i * i for i in range(10)]
        assert "0/10" in bar.getvalue()


def close(it):
    if isinstance(it, tuple):
        for one in it:
            one.close()
    elif hasattr(it, "_reader"):
        it.close()
        if hasattr(it, "join_thread"):
            it.join_thread()
            it._writer.close()
            it._reader.close()


class ProcessPoolWithMap(ProcessPool):
    def map(self, fn, *iterables, timeout=None, chunksize=1):
        futures = [self.submit(fn, *args) for args in zip(*iterables, strict=False)]
        return (future.result(PATIENCE) for future in futures)


class Holder:
    def __init__(self, inner):
        self.inner = inner

    def look(self):
        return self.inner


def take_last(held):
    take(held["a"][0].inner.inner[0])


def send_on_socket():
    GIVEN[0].send(b"hello")


def count_up(times):
    lock, value = GIVEN
    for _ in range(times):
        with lock:
            value.value += 1


def tracker_children():
    """Return the processes that this worker has: none, not even a tracker."""
    import multiprocessing.shared_memory

    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=16)
    memory.close()
    memory.unlink()
    return our_children()


class TestArguments:
    """Objects of multiprocessing as arguments of a task: those that can be sent, and those whose task fails before it is sent."""

    @pytest.fixture(params=["spawn", "fork"])
    def pool(self, request):
        with ProcessPool(1, request.param) as pool:
            pool.submit(square, 1).result(PATIENCE)
            yield pool

    def test_a_connection_is_refused(self, pool):
        here, there = multiprocessing.Pipe()
        try:
            error = pool.submit(len, [0, {"to": there}]).exception(PATIENCE)
            assert isinstance(error, TaskPickleError)
            assert error.place == "args[0][1]['to'] (Connection)"
            assert "initargs" in str(error)
            assert isinstance(
                pool.submit(multiprocessing.connection.wait, object_list=[there]).exception(PATIENCE), TaskPickleError
            )
            assert isinstance(pool.submit(there.send, 1).exception(PATIENCE), TaskPickleError)
        finally:
            here.close()
            there.close()

    def test_a_connection_as_a_result_is_refused(self, pool):
        error = pool.submit(make_pipe).exception(PATIENCE)
        assert isinstance(error, TaskPickleError)
        assert "Connection" in str(error)

    @pytest.mark.parametrize("kind", ["Lock", "Queue", "Event", "Value", "SimpleQueue"])
    def test_locks_and_queues_are_refused(self, pool, kind):
        it, _, _ = made_in(multiprocessing.get_context("spawn"), kind)
        try:
            error = pool.submit(len, it).exception(PATIENCE)
            assert isinstance(error, TaskPickleError)
            assert isinstance(error.__cause__, RuntimeError)
            assert "through inheritance" in str(error)
        finally:
            close(it)

    def test_a_socket_is_refused(self, pool):
        with socket.socket() as it:
            assert isinstance(pool.submit(len, it).exception(PATIENCE), TaskPickleError)

    def test_nothing_listens(self, pool):
        here, there = multiprocessing.Pipe()
        before = set(threading.enumerate())
        pool.submit(len, there).exception(PATIENCE)
        pool.submit(len, [there]).exception(PATIENCE)
        assert (
            "multiprocessing.resource_sharer" not in sys.modules
            or sys.modules["multiprocessing.resource_sharer"]._resource_sharer._listener is None
        )
        assert set(threading.enumerate()) == before
        here.close()
        there.close()

    def test_the_name_of_the_module_alone_is_harmless(self, pool):
        told = "multiprocessing.connection"
        assert pool.submit(str.upper, told).result(PATIENCE) == told.upper()

    def test_a_managers_proxies(self, pool):
        with multiprocessing.get_context("spawn").Manager() as manager:
            queue, counts = manager.Queue(), manager.dict()
            pool.submit(queue.put, 5).result(PATIENCE)
            assert queue.get(timeout=PATIENCE) == 5
            pool.submit(counts.update, {"a": 1}).result(PATIENCE)
            assert counts.copy() == {"a": 1}
            queue.put("back")
            assert pool.submit(read_all_of, queue, 1).result(PATIENCE) == ["back"]


def make_pipe():
    return multiprocessing.Pipe()


class TestWorkersKnowThemselves:
    @pytest.mark.parametrize("method", ["spawn", "fork"])
    def test_name_and_parent(self, method):
        with ProcessPool(1, method, name="pool") as pool:
            assert pool.submit(names).result(PATIENCE) == ("pool_1", os.getpid(), True)

    def test_daemons_of_multiprocessing_may_have_pools_whose_tasks_have_children(self):
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=in_a_daemon, args=(queue,), daemon=True)
        process.start()
        assert queue.get() == 0
        process.join(PATIENCE)
        queue.close()
        process.close()


def in_a_daemon(queue):
    with ProcessPool(1, "fork") as pool:
        queue.put(pool.submit(start_a_child).result(PATIENCE))


def start_a_child():
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join(PATIENCE)
    return process.exitcode


class TestThreads:
    def test_the_environment_says_it(self):
        with ProcessPool(2) as pool:
            told = pool.submit(environment, "OMP_NUM_THREADS").result(PATIENCE)
        assert told == os.environ.get("OMP_NUM_THREADS", told)
        assert int(told) >= 1

    def test_libraries_that_are_loaded_already(self):
        pytest.importorskip("numpy")
        pytest.importorskip("threadpoolctl")
        said = run_python(f"""
            import sys, threadpoolctl, os
            for name in {contexts.THREADS!r}: os.environ.pop(name, None)
            os.sched_getaffinity = lambda _: set(range(4))
            os.cpu_count = lambda: 4
            import numpy
            threadpoolctl.threadpool_limits(4)
            sys.path.insert(0, {str(ROOT)!r})
            from abreast.executors.process import pool as module
            module.usable_cores = lambda: 4
            from tests.executors.process.test_contexts import threads_of_blas
            with module.ProcessPool(2, "fork") as pool:
                print(set(pool.submit(threads_of_blas).result(20)), set(threads_of_blas()))
        """)
        assert said.stdout == "{2} {4}\n", said.stderr

    def test_what_the_user_has_set_stays(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "17")
        for method in ("spawn", "fork"):
            with ProcessPool(2, method) as pool:
                assert pool.submit(environment, "OMP_NUM_THREADS").result(PATIENCE) == "17"


class TestOutput:
    @pytest.mark.parametrize("method", ["spawn", "fork"])
    def test_what_workers_print_comes_here(self, method, monkeypatch):
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with ProcessPool(1, method, capture_output=True) as pool:
            pool.submit(print_both, "hello").result(PATIENCE)
        assert sorted(out.getvalue().splitlines()) == ["[worker 1] hello", "[worker 1] raw"]
        assert err.getvalue() == "[worker 1] error hello\n"

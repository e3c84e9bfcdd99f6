"""`TaskGroup` with processes: functions in processes of their own (``kind="process"``), and `multiprocessing.Process` objects."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import types
import weakref
from concurrent.futures import as_completed, wait
from concurrent.futures.process import BrokenProcessPool

import abreast
import pytest
from abreast import CancelledError, ResultDecodeError, TaskGroup, TaskPickleError, WorkerCrashed, current_task, sleep
from abreast import group_processes as watch_module
from abreast.executors.process import guardian

from tests.helpers import interrupt, is_alive, raises_group, run_python, was_cancelled

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform != "linux", reason="pools of processes run on Linux so far"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),  # what context to use is the user's business
]

LONG = 3600
PATIENCE = 30
variable = contextvars.ContextVar("variable", default="nothing")


class Error(Exception):
    pass


def make_tasks():
    """Functions that go by value, since they are local: a process that imports this file takes a quarter of a second for that."""

    def meet(folder, name, count):
        """Wait until so many have come; return who we are."""
        (folder / name).touch()
        end = time.monotonic() + 30
        while len(list(folder.iterdir())) < count:
            assert time.monotonic() < end, "alone"
            time.sleep(0.001)
        return os.getpid()

    def wait_for(path, *, then=None):
        (path.parent / f"{path.name}-started").write_text(str(os.getpid()))
        end = time.monotonic() + 30
        while not path.exists():
            assert time.monotonic() < end, f"{path} never came"
            time.sleep(0.001)
        if then is not None:
            raise then
        return "done"

    def ask(path):
        (path.parent / f"{path.name}-started").write_text(str(os.getpid()))
        end = time.monotonic() + 3
        while not current_task().cancelled:
            assert time.monotonic() < end, "has not been asked to end"
            time.sleep(0.001)
        return "was asked"

    def hang(path, seconds=LONG):
        (path.parent / f"{path.name}-started").write_text(str(os.getpid()))
        time.sleep(seconds)

    def call(path, fn, *args):
        """Call a function once it is known that the task runs."""
        (path.parent / f"{path.name}-started").write_text(str(os.getpid()))
        return fn(*args)

    def fail(*args):
        raise ValueError(*args)

    return types.SimpleNamespace(**locals())


tasks = make_tasks()


def started(path):
    """Wait until a task with this path runs, and return its pid."""
    file = path.parent / f"{path.name}-started"
    end = time.monotonic() + PATIENCE
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, "has not started"
        time.sleep(0.001)
    return int(file.read_text())


@pytest.fixture(params=[None, 3], ids=["a-process-each", "pool"])
def max_workers(request):
    return request.param


class TestFunctions:
    def test_start_takes_threads_spelling_and_submit_leaves_every_keyword_to_the_function(self, max_workers):
        def task(*args, **kwargs):
            return args, kwargs

        with TaskGroup(max_workers, kind="process") as group:
            futures = [
                group.start(task, (1, 2)),
                group.start(target=task, args=[1], kwargs={"name": 2, "target": 3}, name="T"),
                group.submit(task, 1, self=2, fn=3, name=4, timeout=5, begin=6, future=7),
            ]
            assert all(isinstance(future, abreast.Future) for future in futures)
        assert [future.result(0) for future in futures] == [
            ((1, 2), {}),
            ((1,), {"name": 2, "target": 3}),
            ((1,), {"self": 2, "fn": 3, "name": 4, "timeout": 5, "begin": 6, "future": 7}),
        ]

    def test_each_has_a_process_of_its_own(self, tmp_path):
        with TaskGroup(kind="process") as group:
            futures = [group.submit(tasks.meet, tmp_path, str(i), 6) for i in range(6)]
        assert len({os.getpid(), *(future.result(0) for future in futures)}) == 7

    def test_one_after_another_too(self):
        with TaskGroup(kind="process") as group:
            pids = [group.submit(os.getpid).result(PATIENCE) for _ in range(4)]
        assert len(set(pids)) == 4

    def test_with_max_workers_so_many_at_once(self, tmp_path):
        def task(i):
            mine = tmp_path / str(i)
            mine.touch()
            seen = len(list(tmp_path.iterdir()))
            time.sleep(0.02)
            seen = max(seen, len(list(tmp_path.iterdir())))
            mine.unlink()
            return seen, os.getpid()

        with TaskGroup(max_workers=2, kind="process") as group:
            futures = [group.submit(task, i) for i in range(12)]
        seen, pids = zip(*(future.result(0) for future in futures), strict=True)
        assert max(seen) <= 2
        assert len(set(pids)) <= 2
        (tmp_path / "both").mkdir()
        with TaskGroup(max_workers=2, kind="process") as group:
            futures = [group.submit(tasks.meet, tmp_path / "both", str(i), 2) for i in range(2)]
        assert len({future.result(0) for future in futures}) == 2

    def test_functions_of_the_main_script_without_a_guard(self):
        done = run_python("""
            import abreast
            factor = 3
            def scale(number):
                return number * factor
            with abreast.TaskGroup(kind="process") as group:
                one, two = group.submit(scale, 2), group.start(lambda: factor + 1)
            print(one.result(), two.result())
        """)
        assert (done.stdout, done.stderr, done.returncode) == ("6 4\n", "", 0)

    def test_the_name_is_the_tasks(self, max_workers):
        def name():
            return current_task().name, current_task().index, current_task().attempt

        with TaskGroup(max_workers, kind="process") as group:
            futures = [group.start(name, name="Ann"), group.start(name), group.submit(name), group.start(name, name="")]
        local = "TestFunctions.test_the_name_is_the_tasks.<locals>.name"
        assert [future.result(0) for future in futures] == [("Ann", None, 1), *[(local, None, 1)] * 3]

    def test_the_context_is_that_of_the_start(self, max_workers):
        variable.set("mine")
        with TaskGroup(max_workers, kind="process") as group:
            future = group.submit(variable.get)
            variable.set("later")
        assert future.result(0) == "mine"

    def test_threads_are_started_as_they_are(self):
        barrier = threading.Barrier(3)
        with TaskGroup(1, kind="process") as group:
            futures = [group.start(threading.Thread(target=barrier.wait, args=(PATIENCE,))) for _ in range(2)]
            barrier.wait(PATIENCE)
        assert [future.result(0) for future in futures] == [None, None]

    def test_futures_are_right_wherever_the_standard_library_expects_them(self, max_workers):
        with TaskGroup(max_workers, kind="process") as group:
            futures = [group.submit(pow, i, 2) for i in range(5)]
            assert {future.result(0) for future in as_completed(futures, timeout=PATIENCE)} == {0, 1, 4, 9, 16}
            assert wait(futures).done == set(futures)

    def test_callbacks_have_run_when_the_block_is_over_and_may_start_more(self, max_workers):
        called, more = [], []

        def call_back(future):
            called.append(future.result(0))
            more.append(group.submit(abs, -7))

        with TaskGroup(max_workers, kind="process") as group:
            group.submit(pow, 2, 3).add_done_callback(call_back)
        assert called == [8]
        assert more[0].result(0) == 7

    def test_many(self):
        with TaskGroup(kind="process", timeout=LONG) as group:
            futures = [group.submit(pow, i, 2) for i in range(12)]
        assert [future.result(0) for future in futures] == [i * i for i in range(12)]

    def test_an_empty_block(self, max_workers):
        with TaskGroup(max_workers, kind="process") as group:
            pass
        with pytest.raises(RuntimeError, match="after its with block has been left"):
            group.submit(int)

    def test_nothing_is_kept_of_a_group_that_is_over(self, max_workers, no_gc):
        def use():
            with TaskGroup(max_workers, kind="process", timeout=LONG) as group:
                group.start(multiprocessing.get_context("fork").Process())
                group.submit(int)
            return weakref.ref(group)

        assert use()() is None

    def test_inside_a_process_of_a_group(self):
        def outer():
            with TaskGroup(kind="process") as inner:
                future = inner.submit(os.getpid)
            return os.getpid(), future.result(0)

        with TaskGroup(kind="process") as group:
            future = group.submit(outer)
        assert len({os.getpid(), *future.result(0)}) == 3


class TestArguments:
    @pytest.mark.parametrize("kind", ["async", "serial", "processes", None, 5, ["process"]])
    def test_a_kind_that_there_is_not(self, kind):
        with pytest.raises(ValueError, match="kind must be 'thread' or 'process', not "):
            TaskGroup(kind=kind)

    def test_kind_goes_by_name(self):
        with pytest.raises(TypeError):
            TaskGroup(3, "process")

    @pytest.mark.parametrize("value", [0, True, "3"])
    def test_max_workers(self, value):
        with pytest.raises((TypeError, ValueError), match="max_workers must be"):
            TaskGroup(value, kind="process")

    def test_another_system_says_so(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(NotImplementedError, match="kind='process' runs on Linux only so far"):
            TaskGroup(kind="process")
        TaskGroup()

    def test_coroutine_functions(self):
        async def fetch():
            pass

        with TaskGroup(kind="process") as group:
            for call in (group.start, group.submit):
                with pytest.raises(TypeError, match="a process cannot await"):
                    call(fetch)

    def test_what_cannot_be_called(self):
        with TaskGroup(kind="process") as group:
            for call in (group.start, group.submit):
                with pytest.raises(TypeError, match="must be callable"):
                    call(5)

    def test_outside_of_the_block(self):
        process = multiprocessing.get_context("fork").Process()
        group = TaskGroup(kind="process")
        for start in (lambda: group.submit(int), lambda: group.start(process)):
            with pytest.raises(RuntimeError, match="before its with block is entered"):
                start()
        assert process.ident is None

    def test_a_group_does_not_travel(self):
        with pytest.raises(TypeError, match="a TaskGroup cannot be pickled: what it starts in a process cannot start more"):
            pickle.dumps(TaskGroup())
        with raises_group(TaskPickleError) as errors, TaskGroup(kind="process") as group:
            group.submit(lambda: group.submit(int))
        assert "a TaskGroup cannot be pickled" in str(errors[0])


class TestErrors:
    """Leaving the block waits for all; errors come as one ExceptionGroup, after all have ended."""

    def test_one_exception_group_after_all_have_ended(self, max_workers, tmp_path):
        def fail_late(name):
            tasks.meet(tmp_path, name, 3)
            raise ValueError(name)

        with raises_group(ValueError, ValueError) as errors, TaskGroup(max_workers, kind="process") as group:
            futures = [group.submit(fail_late, name) for name in "ab"]
            last = group.submit(tasks.meet, tmp_path, "c", 3)
        assert {error.args for error in errors} == {("a",), ("b",)}
        assert {id(future.exception(0)) for future in futures} == {id(error) for error in errors}
        assert last.result(0)

    def test_a_crash_costs_its_function_alone(self, max_workers, tmp_path):
        with raises_group(WorkerCrashed, WorkerCrashed) as errors, TaskGroup(max_workers, kind="process") as group:
            other = group.submit(tasks.wait_for, tmp_path / "go")
            started(tmp_path / "go")
            crash = group.submit(tasks.call, tmp_path / "crash", tasks.wait_for, tmp_path / "never")
            os.kill(started(tmp_path / "crash"), signal.SIGKILL)
            with contextlib.suppress(WorkerCrashed):
                crash.result(PATIENCE)
            (tmp_path / "go").touch()
            raise WorkerCrashed("the body's own")
        assert other.result(0) == "done"
        assert (errors[1].signal, errors[1].exitcode) == ("SIGKILL", -9)

    def test_an_exit_code(self, max_workers):
        with raises_group(WorkerCrashed) as errors, TaskGroup(max_workers, kind="process") as group:
            group.submit(os._exit, 3)
        assert errors[0].exitcode == 3
        assert errors[0].task == "_exit(3)"

    def test_sys_exit_is_the_functions_error(self, max_workers):
        with raises_group(SystemExit), TaskGroup(max_workers, kind="process") as group:
            group.submit(sys.exit, 3)

    def test_arguments_that_cannot_be_sent_are_its_error(self, max_workers):
        with raises_group(TaskPickleError), TaskGroup(max_workers, kind="process") as group:
            future = group.submit(id, threading.Lock())
            assert isinstance(future.exception(0), TaskPickleError)
            assert group.cancelled

    def test_a_result_that_cannot_be_read_is_for_who_asks_for_it(self, max_workers):
        with TaskGroup(max_workers, kind="process") as group:
            future = group.submit(lambda: Unreadable())
        with pytest.raises(ResultDecodeError):
            future.result(0)

    def test_what_has_not_started_is_cancelled(self, tmp_path):
        """Also behind functions so short that an executor would send the next one ahead."""
        with raises_group(ValueError), TaskGroup(max_workers=1, kind="process") as group:
            for _ in range(100):
                group.submit(int)
            group.submit(tasks.wait_for, tmp_path / "go", then=ValueError())
            rest = [group.submit((tmp_path / f"ran {i}").touch) for i in range(5)]
            started(tmp_path / "go")
            (tmp_path / "go").touch()
        assert all(map(was_cancelled, rest))
        assert wait(rest, timeout=PATIENCE).done == set(rest)
        assert not list(tmp_path.glob("ran*"))

    def test_a_start_afterwards_gives_a_cancelled_future(self, max_workers, tmp_path):
        with raises_group(ValueError), TaskGroup(max_workers, kind="process") as group:
            group.submit(tasks.fail)
            with contextlib.suppress(CancelledError):
                sleep(LONG)
            late = group.submit((tmp_path / "late").touch)
            assert late.cancelled()
        assert not (tmp_path / "late").exists()

    def test_one_that_does_not_ask_runs_to_its_end(self, max_workers, tmp_path):
        with raises_group(ValueError), TaskGroup(max_workers, kind="process") as group:
            future = group.submit(tasks.wait_for, tmp_path / "go")
            started(tmp_path / "go")
            with contextlib.suppress(ValueError):
                group.submit(tasks.fail).result(PATIENCE)
            assert group.cancelled or group.submit(int)
            (tmp_path / "go").touch()
        assert future.result(0) == "done"

    def test_what_is_no_exception_leaves_the_body_as_it_is_after_all_have_ended(self, max_workers, tmp_path):
        with pytest.raises(SystemExit), TaskGroup(max_workers, kind="process") as group:
            future = group.submit(tasks.wait_for, tmp_path / "go")
            started(tmp_path / "go")
            threading.Timer(0.1, (tmp_path / "go").touch).start()
            sys.exit()
        assert future.result(0) == "done"

    def test_a_process_that_cannot_be_started(self, monkeypatch):
        def refuse(_self, _number, **_):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        monkeypatch.setattr(guardian.Launcher, "launch", refuse)
        with raises_group(BrokenProcessPool) as errors, TaskGroup(kind="process") as group:
            future = group.submit(int)
        assert "cannot be started: Resource temporarily unavailable" in str(errors[0])
        assert future.exception(0) is errors[0]

    def test_a_process_that_cannot_be_started_costs_its_function_alone(self, monkeypatch, tmp_path):
        def refuse(_self, _number, **_):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        with contextlib.suppress(BaseExceptionGroup), TaskGroup(kind="process") as group:
            first = group.submit(tasks.wait_for, tmp_path / "go")
            started(tmp_path / "go")
            monkeypatch.setattr(guardian.Launcher, "launch", refuse)
            second = group.submit(int)
            wait([first, second], timeout=2)
            (tmp_path / "go").touch()
        assert first.result(0) == "done"


class Unreadable:
    def __reduce__(self):
        return tasks.fail, ("cannot be read",)


class TestAskedToEnd:
    """The first error, `cancel` and the timeout ask what runs to end: `current_task().cancelled`, `checkpoint`, `sleep`."""

    @pytest.mark.parametrize("how", ["error", "body", "cancel", "timeout", "outer"])
    def test_current_task_says_so(self, max_workers, how, tmp_path):
        ended = []
        with contextlib.suppress(ExceptionGroup, TimeoutError, CancelledError), TaskGroup() as outer:
            with TaskGroup(max_workers, kind="process", timeout=2.5 if how == "timeout" else None) as group:
                future = group.submit(tasks.ask, tmp_path / "asks")
                future.add_done_callback(lambda future: ended.append(future.result(0)))
                started(tmp_path / "asks")
                if how == "error":
                    group.submit(tasks.fail)
                elif how == "body":
                    raise Error
                elif how == "cancel":
                    group.cancel()
                elif how == "timeout":
                    with contextlib.suppress(CancelledError):
                        sleep(LONG)
                    future.result(PATIENCE)
                else:
                    outer.cancel()
        assert ended == ["was asked"]

    @pytest.mark.parametrize(
        "how",
        ["checkpoint", "map", "sleep", "group"],
    )
    def test_what_ends_with_it(self, max_workers, how, tmp_path):
        def work():
            if how == "sleep":
                abreast.sleep(3)
            elif how == "checkpoint":
                end = time.monotonic() + 3
                while time.monotonic() < end:
                    abreast.checkpoint()
                    time.sleep(0.001)
            elif how == "group":
                with TaskGroup() as inner:
                    inner.submit(abreast.sleep, 3)
            else:
                abreast.map(abreast.sleep, [3, 3], max_workers=2)

        with TaskGroup(max_workers, kind="process") as group:
            future = group.submit(tasks.call, tmp_path / "x", work)
            started(tmp_path / "x")
            begun = time.monotonic()
            group.cancel()
        assert was_cancelled(future)
        assert time.monotonic() - begun < 2.5

    def test_the_next_task_of_the_process_is_not_asked(self, tmp_path):
        """What belongs to one task does not leak into the next one."""

        def look():
            return current_task().cancelled, os.getpid()

        with abreast.ProcessPoolExecutor(1) as pool:
            first = pool.submit(tasks.ask, tmp_path / "asks")
            pid = started(tmp_path / "asks")
            supervisor = pool._supervisor
            supervisor.post(supervisor.halt, first._call)
            assert first.result(PATIENCE) == "was asked"
            assert pool.submit(look).result(PATIENCE) == (False, pid)


class TestCancel:
    def test_what_waits(self, tmp_path):
        with TaskGroup(1, kind="process") as group:
            running = group.submit(tasks.wait_for, tmp_path / "go")
            started(tmp_path / "go")
            waiting = [group.submit(int) for _ in range(4)]
            called = []
            waiting[0].add_done_callback(called.append)
            group.cancel()
            assert wait(waiting, timeout=PATIENCE).done == set(waiting)
            (tmp_path / "go").touch()
        assert running.result(0) == "done"
        assert all(future.cancelled() for future in waiting)
        assert called == waiting[:1]

    def test_before_anything(self, max_workers):
        group = TaskGroup(max_workers, kind="process")
        group.cancel()
        with group:
            assert group.submit(int).cancelled()

    def test_at_the_very_start(self, max_workers):
        """While processes come up: each function has run, or is cancelled, and the block ends."""
        for pause in (0, 0.01, 0.03, 0.06):
            with TaskGroup(max_workers, kind="process") as group:
                futures = [group.submit(int) for _ in range(4)]
                time.sleep(pause)
                group.cancel()
            # One that had been sent to its process, but not begun there, has the error without being `cancelled`.
            assert all(
                future.cancelled() or type(future.exception(0)) is CancelledError or future.result(0) == 0 for future in futures
            )
            assert not any("PENDING" in repr(future) or future._state == "CANCELLED" for future in futures)

    def test_a_task_that_the_user_cancels_alone(self, tmp_path):
        with TaskGroup(1, kind="process") as group:
            first = group.submit(tasks.wait_for, tmp_path / "go")
            started(tmp_path / "go")
            second, third = group.submit(tasks.fail), group.submit(int)
            assert second.cancel()
            (tmp_path / "go").touch()
        assert (first.result(0), third.result(0)) == ("done", 0)
        assert not group.cancelled
        assert wait([second], timeout=PATIENCE).done == {second}

    def test_by_many_threads_while_starting(self, max_workers):
        for _ in range(5):
            group = TaskGroup(max_workers, kind="process")
            with group:
                canceller = threading.Thread(target=group.cancel)
                futures = [group.submit(int) for _ in range(3)]
                canceller.start()
                futures += [group.submit(int) for _ in range(5)]
                canceller.join()
            assert all(future.done() for future in futures)
            assert not any(future.running() or future._state == "CANCELLED" for future in futures)


class TestCtrlC:
    """KeyboardInterrupt inside goes first: what waits is cancelled, what runs is killed."""

    def test_in_the_body(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), TaskGroup(1, kind="process") as group:
            running = group.submit(tasks.hang, tmp_path / "hangs")
            pid = started(tmp_path / "hangs")
            waiting = [group.submit(int) for _ in range(3)]
            raise KeyboardInterrupt
        assert not is_alive(pid)
        assert all(future.cancelled() for future in waiting)
        assert isinstance(running.exception(0), CancelledError)
        assert "the block of its TaskGroup was left by Ctrl-C" in str(running.exception(0))

    def test_while_waiting(self, tmp_path):
        def press():
            started(tmp_path / "hangs")
            while group._waker is None:
                time.sleep(0.001)
            while "open" in repr(group):  # again: one that comes just before the main thread blocks is seen when it wakes
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)

        presser = threading.Thread(target=press)
        with pytest.raises(KeyboardInterrupt), TaskGroup(kind="process") as group:
            group.submit(tasks.hang, tmp_path / "hangs")
            presser.start()
        presser.join()
        assert not is_alive(started(tmp_path / "hangs"))

    @pytest.mark.parametrize(
        "where",
        [
            'abreast.TaskGroup(kind="process")) as group: group.submit(hang)',
            'abreast.TaskGroup(kind="process")) as group: group.submit(hang).result()',
            "abreast.TaskGroup()) as group: group.start(multiprocessing.get_context('fork').Process(target=hang))",
            "abreast.TaskGroup()) as group: group.start(multiprocessing.get_context('fork').Process(target=stubborn))",
        ],
        ids=["exit", "result", "process", "stubborn"],
    )
    def test_ends_the_program_within_a_second(self, where):
        program = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", f"""if 1:
                import abreast, multiprocessing, os, signal, time
                def hang():
                    print("started", os.getpid(), flush=True)
                    time.sleep(3600)
                def stubborn():
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    hang()
                with ({where}
            """],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        pid = int(program.stdout.readline().removeprefix("started "))
        took, stderr = interrupt(program, within=1.5)
        assert program.returncode in (-signal.SIGINT, 130), stderr
        assert "Exception ignored" not in stderr
        assert not is_alive(pid)
        assert took < 1.5

    def test_between_the_fork_and_when_its_parent_knows_of_it_leaves_no_process(self, tmp_path):
        """As on a busy machine, where the child may be quick and the parent loses its turn."""
        real_fork = os.fork

        def fork():
            pid = real_fork()
            if pid:
                started(tmp_path / "hangs")
                signal.raise_signal(signal.SIGINT)
            return pid

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt), TaskGroup() as group:
            patch.setattr(os, "fork", fork)
            group.start(multiprocessing.get_context("fork").Process(target=tasks.hang, args=(tmp_path / "hangs",)))
        pid = started(tmp_path / "hangs")
        was_left = is_alive(pid)
        if was_left:
            os.kill(pid, signal.SIGKILL)
        assert not was_left

    def test_the_child_is_interrupted_as_ever(self, tmp_path):
        """What holds up Ctrl-C while it is started does not do so in the child."""

        def be_interrupted():
            try:
                tasks.hang(tmp_path / "hangs")
            except KeyboardInterrupt:
                sys.exit(0)

        with TaskGroup() as group:
            future = group.start(multiprocessing.get_context("fork").Process(target=be_interrupted))
            os.kill(started(tmp_path / "hangs"), signal.SIGINT)
        assert future.exception(0) is None


class TestTimeout:
    def test_all_done_in_time(self, max_workers):
        with TaskGroup(max_workers, kind="process", timeout=LONG) as group:
            future = group.submit(pow, 2, 3)
        assert future.result(0) == 8

    def test_processes_that_are_over_it_are_killed(self, max_workers, tmp_path):
        with pytest.raises(TimeoutError, match=r"timeout of 2 s: 2 tasks had not ended$"):
            with TaskGroup(max_workers, kind="process", timeout=2) as group:
                begun = time.monotonic()
                futures = [group.submit(tasks.hang, tmp_path / name) for name in "ab"]
                pids = [started(tmp_path / name) for name in "ab"]
        assert time.monotonic() - begun < 10
        assert not any(map(is_alive, pids))
        assert [type(future.exception(0)) for future in futures] == [CancelledError] * 2
        assert "took longer than its timeout of 2 s" in str(futures[0].exception(0))

    def test_what_had_not_started_is_cancelled(self, tmp_path):
        with pytest.raises(TimeoutError, match="1 task had not ended"), TaskGroup(1, kind="process", timeout=2) as group:
            group.submit(tasks.hang, tmp_path / "a")
            started(tmp_path / "a")
            waiting = group.submit(int)
        assert waiting.cancelled()
        assert wait([waiting], timeout=PATIENCE).done == {waiting}

    def test_errors_of_before_are_its_cause(self, tmp_path):
        with pytest.raises(TimeoutError) as raised, TaskGroup(kind="process", timeout=2) as group:
            group.submit(tasks.hang, tmp_path / "a")
            with contextlib.suppress(ValueError):
                group.submit(tasks.fail).result(PATIENCE)
            started(tmp_path / "a")
        assert [type(error) for error in raised.value.__cause__.exceptions] == [ValueError]

    def test_a_user_who_blocks_in_a_callback_does_not_hold_it_up(self, tmp_path):
        gate = threading.Event()
        with pytest.raises(TimeoutError), TaskGroup(kind="process", timeout=2) as group:
            group.submit(tasks.hang, tmp_path / "a")
            pid = started(tmp_path / "a")
            group.submit(int).add_done_callback(lambda _: gate.wait(PATIENCE))
        assert not gate.is_set()
        assert not is_alive(pid)
        gate.set()


# ---- multiprocessing.Process


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """Started before the guards look, and ended: the fork server and the resource tracker serve all processes of a program."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()
    forkserver.ensure_running()
    yield
    forkserver._forkserver._stop()


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def fork():
    return multiprocessing.get_context("fork")


class ForkProcess(multiprocessing.get_context("fork").Process):
    def __init__(self, path):
        super().__init__(name="A")
        self.path = path

    def run(self):
        self.path.write_text(self.name)


class SpawnProcess(multiprocessing.get_context("spawn").Process):
    run = ForkProcess.run

    def __init__(self, path):
        super().__init__(name="A")
        self.path = path


class ForkServerProcess(multiprocessing.get_context("forkserver").Process):
    run = ForkProcess.run

    def __init__(self, path):
        super().__init__(name="A")
        self.path = path


class TestProcessObjects:
    """`start(process)` starts and joins an unstarted `multiprocessing.Process` as it is."""

    @pytest.fixture(params=["thread", "process"], autouse=True)
    def kind(self, request):
        return request.param

    def test_one_with_a_target_is_joined(self, context, tmp_path, kind):
        process = context.Process(target=os.mkdir, args=(tmp_path / "made",), daemon=True, name="P")
        with TaskGroup(kind=kind) as group:
            future = group.start(process)
            assert type(future) is abreast.Future
        assert (tmp_path / "made").is_dir()
        assert (process.exitcode, process.name, process.daemon) == (0, "P", True)
        assert process not in multiprocessing.active_children()
        assert future.result(0) is None
        assert group._watch._pipe is None

    @pytest.mark.parametrize("cls", [ForkProcess, SpawnProcess, ForkServerProcess])
    def test_a_subclass_runs_its_run(self, cls, tmp_path, kind):
        with TaskGroup(kind=kind) as group:
            future = group.start(cls(tmp_path / "wrote"))
        assert future.result(0) is None
        assert (tmp_path / "wrote").read_text() == "A"

    def test_an_exit_code_is_an_error_that_names_it(self, context, kind):
        process = context.Process(target=sys.exit, args=(7,), name="P")
        with raises_group(WorkerCrashed) as errors, TaskGroup(kind=kind) as group:
            future = group.start(process)
        assert future.exception(0) is errors[0]
        assert (errors[0].task, errors[0].pid, errors[0].exitcode, errors[0].signal) == ("P", process.pid, 7, "")
        assert str(errors[0]).startswith(f"P — its process (pid {process.pid}) ended with exit code 7 after ")

    def test_a_signal_too(self, context, kind, tmp_path):
        process = context.Process(target=signal.pause)
        with raises_group(WorkerCrashed) as errors, TaskGroup(kind=kind) as group:
            group.start(process)
            os.kill(process.pid, signal.SIGKILL)
        assert (errors[0].exitcode, errors[0].signal) == (-9, "SIGKILL")

    def test_an_error_in_it(self, fork, kind, capfd):
        with raises_group(WorkerCrashed) as errors, TaskGroup(kind=kind) as group:
            group.start(fork.Process(target=tasks.fail, args=("in run",)))
        assert errors[0].exitcode == 1
        assert "ValueError: in run" in capfd.readouterr().err
        assert "traceback has gone to its standard error" in str(errors[0])

    def test_it_is_started_in_the_callers_thread(self, kind):
        class Own(multiprocessing.get_context("fork").Process):
            def start(self):
                self.started_in = threading.current_thread()
                super().start()

        process = Own()
        with TaskGroup(kind=kind) as group:
            group.start(process)
        assert process.started_in is threading.current_thread()

    def test_one_thread_waits_for_all(self, fork, kind):
        with TaskGroup(kind=kind) as group:
            futures = [group.start(fork.Process(target=signal.pause)) for _ in range(10)]
            assert [thread.name for thread in threading.enumerate()].count(f"{group._name}-processes") == 1
            assert not any(future.cancel() for future in futures)  # they run
            assert all(future.running() for future in futures)
            group.cancel()
        assert all(map(was_cancelled, futures))

    def test_max_workers_does_not_count_them(self, fork, kind, tmp_path):
        with TaskGroup(1, kind=kind) as group:
            futures = [group.start(fork.Process(target=tasks.meet, args=(tmp_path, str(i), 4))) for i in range(3)]
            futures.append(group.submit(tasks.meet, tmp_path, "mine", 4))
        assert [future.exception(0) for future in futures] == [None] * 4

    def test_one_that_was_started_before_is_refused(self, fork, kind):
        ended, alive = fork.Process(), fork.Process(target=signal.pause)
        for process in (ended, alive):
            process.start()
        ended.join()
        with TaskGroup(kind=kind) as group:
            for process in (ended, alive, multiprocessing.current_process()):
                with pytest.raises(RuntimeError, match="has been started before; a group takes a Process that has not"):
                    group.start(process)
            mine = fork.Process()
            group.start(mine)
            with pytest.raises(RuntimeError, match="has been started before"):
                group.start(mine)
        alive.kill()
        alive.join()

    @pytest.mark.parametrize("more", [{"args": (1,)}, {"kwargs": {}}, {"name": "T"}])
    def test_nothing_else_goes_with_it(self, fork, kind, more):
        process = fork.Process()
        with TaskGroup(kind=kind) as group, pytest.raises(TypeError, match="do not go with a Process"):
            group.start(process, **more)
        assert process.ident is None

    def test_after_a_cancel_it_is_not_started(self, fork, kind):
        process = fork.Process()
        with TaskGroup(kind=kind) as group:
            group.cancel()
            assert group.start(process).cancelled()
        assert process.ident is None

    def test_a_start_that_raises_raises_here_and_the_group_stays_usable(self, kind):
        process = multiprocessing.get_context("spawn").Process(target=id, args=(threading.Lock(),))
        with TaskGroup(kind=kind) as group:
            with pytest.raises(TypeError, match="cannot pickle"):
                group.start(process)
            assert not group.cancelled
            future = group.submit(int)
        assert future.result(0) == 0
        assert "0 not ended" in repr(group)

    def test_a_callback_that_raises_is_logged(self, fork, kind, caplog):
        called = []
        with TaskGroup(kind=kind) as group:
            process = fork.Process(target=time.sleep, args=(0.1,))
            future = group.start(process)
            future.add_done_callback(lambda _: sys.exit("in a callback"))
            future.add_done_callback(called.append)
        assert called == [future]
        assert "SystemExit: in a callback" in caplog.text
        process.close()  # the log's traceback keeps it until the test is over


class TestEndOfProcessObjects:
    """An error, a cancel: SIGTERM, later SIGKILL. A timeout, Ctrl-C: the same, within half a second."""

    @pytest.mark.parametrize("how", ["error", "body", "cancel", "process", "outer"])
    def test_it_is_terminated(self, context, how, tmp_path):
        process = context.Process(target=signal.pause, name="P")
        with contextlib.suppress(ExceptionGroup, CancelledError), TaskGroup() as outer, TaskGroup() as group:
            future = group.start(process)
            if how == "error":
                group.submit(tasks.fail)
            elif how == "body":
                raise Error
            elif how == "cancel":
                group.cancel()
            elif how == "process":
                group.start(context.Process(target=sys.exit, args=(1,)))
            else:
                outer.cancel()
        assert process.exitcode == -signal.SIGTERM
        assert isinstance(future.exception(0), CancelledError)
        assert str(future.exception(0)) == f"P (pid {process.pid}) was terminated with its TaskGroup"

    def test_that_is_no_error(self, fork):
        with raises_group(ValueError), TaskGroup() as group:
            group.start(fork.Process(target=signal.pause))
            group.submit(tasks.fail)

    @pytest.mark.parametrize(("code", "error"), [(0, None), (128 + signal.SIGTERM, CancelledError), (3, WorkerCrashed)])
    def test_one_that_ends_by_itself_then(self, fork, code, error, tmp_path):
        def run():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
            (tmp_path / "x-started").write_text("1")
            signal.pause()

        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(raises_group(WorkerCrashed)) if error is WorkerCrashed else []
            group = stack.enter_context(TaskGroup())
            future = group.start(fork.Process(target=run))
            started(tmp_path / "x")
            group.cancel()
        assert type(future.exception(0)) is (error or type(None))
        assert errors in ([], [future.exception(0)])

    def test_one_that_does_not_is_killed(self, fork, tmp_path, monkeypatch):
        monkeypatch.setattr(watch_module, "GRACE", 0.2)
        process = fork.Process(target=ignore_sigterm, args=(tmp_path / "x",))
        with TaskGroup() as group:
            future = group.start(process)
            started(tmp_path / "x")
            group.cancel()
        assert process.exitcode == -signal.SIGKILL
        assert "was killed with its TaskGroup" in str(future.exception(0))

    @pytest.mark.parametrize("how", ["timeout", "ctrl-c"])
    @pytest.mark.parametrize("stubborn", [False, True])
    def test_when_the_block_is_left_at_once(self, fork, how, stubborn, tmp_path):
        process = fork.Process(target=ignore_sigterm if stubborn else tasks.hang, args=(tmp_path / "x",))
        other = fork.Process(target=signal.pause)
        with pytest.raises(TimeoutError if how == "timeout" else KeyboardInterrupt) as raised:
            with TaskGroup(timeout=2 if how == "timeout" else None) as group:
                futures = [group.start(process), group.start(other)]
                started(tmp_path / "x")
                if how == "ctrl-c":
                    begun = time.monotonic()
                    raise KeyboardInterrupt
                begun = time.monotonic() + 2
        assert time.monotonic() - begun < 1.5
        assert not any(process in multiprocessing.active_children() for process in (process, other))
        assert process.exitcode == (-signal.SIGKILL if stubborn else -signal.SIGTERM)
        assert all(map(was_cancelled, futures))
        if how == "timeout":
            assert "2 tasks had not ended" in str(raised.value)

    def test_a_user_who_blocks_in_a_callback_does_not_hold_it_up(self, fork):
        gate, entered = threading.Event(), threading.Event()
        stuck = fork.Process(target=signal.pause)
        with pytest.raises(KeyboardInterrupt), TaskGroup() as group:
            group.start(fork.Process()).add_done_callback(lambda _: (entered.set(), gate.wait(PATIENCE)))
            future = group.start(stuck)
            assert entered.wait(PATIENCE)
            raise KeyboardInterrupt
        end = time.monotonic() + PATIENCE
        while is_alive(stuck.pid) and time.monotonic() < end:
            time.sleep(0.001)
        assert not is_alive(stuck.pid)
        assert not gate.is_set()
        gate.set()
        assert was_cancelled(future)

    def test_one_that_ends_just_when_it_is_asked_to(self, fork):
        for i in range(30):
            with contextlib.suppress(ExceptionGroup), TaskGroup() as group:
                futures = [group.start(fork.Process(target=time.sleep, args=(0.0005 * i,))) for _ in range(2)]
                time.sleep(0.0005 * i)
                group.cancel()
            assert all(future.exception(0) is None or was_cancelled(future) for future in futures)


def ignore_sigterm(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tasks.hang(path)


class TestWatching:
    """What makes it hard to tell that a process has ended."""

    def test_what_it_has_started_holds_its_sentinel(self, fork, tmp_path):
        def run():
            if not os.fork():
                tasks.hang(tmp_path / "child", 30)
                os._exit(0)
            tasks.meet(tmp_path, "child-started", 1)

        begun = time.monotonic()
        with TaskGroup() as group:
            future = group.start(fork.Process(target=run))
        assert future.result(0) is None
        assert time.monotonic() - begun < 20
        os.kill(started(tmp_path / "child"), signal.SIGKILL)

    def test_it_has_closed_its_sentinel_and_goes_on(self, fork, tmp_path):
        def run():
            os.closerange(3, 1000)
            tasks.wait_for(tmp_path / "go")

        with TaskGroup() as group:
            future = group.start(fork.Process(target=run))
            started(tmp_path / "go")
            time.sleep(watch_module.REAPED + 0.2)  # nothing happens: there is no event to wait for
            assert future.running()
            (tmp_path / "go").touch()
        assert future.result(0) is None

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_without_pidfds(self, method, monkeypatch, tmp_path):
        monkeypatch.delattr(os, "pidfd_open")
        context = multiprocessing.get_context(method)
        with raises_group(WorkerCrashed) as errors, TaskGroup() as group:
            fine = group.start(context.Process(target=os.mkdir, args=(tmp_path / "made",)))
            assert fine.result(PATIENCE) is None
            group.start(context.Process(target=sys.exit, args=(5,)))
        assert errors[0].exitcode == 5

    def test_without_pidfds_and_without_its_sentinel(self, fork, monkeypatch, tmp_path):
        monkeypatch.delattr(os, "pidfd_open")

        def run():
            os.closerange(3, 1000)
            tasks.wait_for(tmp_path / "go")

        with TaskGroup() as group:
            future = group.start(fork.Process(target=run))
            started(tmp_path / "go")
            assert future.running()
            (tmp_path / "go").touch()
        assert future.result(0) is None

    @pytest.mark.parametrize("pidfds", [True, False])
    def test_somebody_else_has_taken_its_exit_code(self, fork, pidfds, monkeypatch, tmp_path):
        if not pidfds:
            monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.setattr(watch_module, "REAPED", 0.1)
        process = fork.Process(target=tasks.wait_for, args=(tmp_path / "go",))
        with raises_group(WorkerCrashed) as errors, TaskGroup() as group:
            group.start(process)
            with watch_module._polling:  # else it is a race
                (tmp_path / "go").touch()
                os.waitpid(process.pid, 0)
        assert errors[0].exitcode is None
        assert "nobody knows how" in str(errors[0])
        multiprocessing.process._children.discard(process)

    def test_its_user_joins_it_too(self, context):
        with TaskGroup() as group:
            for _ in range(5):
                process = context.Process()
                future = group.start(process)
                assert future.result(PATIENCE) is None
                process.join()
                process.close()

    def test_processes_that_end_while_others_are_started(self, context):
        """`Process.start` asks all processes for their exit codes."""
        with TaskGroup() as group:
            futures = [group.start(context.Process(target=int)) for _ in range(12)]
        assert [future.result(0) for future in futures] == [None] * 12

    def test_no_thread_can_be_started_to_watch_it(self, fork, monkeypatch):
        def refuse(self):
            raise RuntimeError("can't start new thread")

        process = fork.Process(target=signal.pause)
        with TaskGroup() as group:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    group.start(process)
            assert process.exitcode == -signal.SIGKILL
            future = group.start(fork.Process())
        assert future.result(0) is None
        assert "0 not ended" in repr(group)

    def test_a_signal_handler_may_cancel_at_any_step(self, fork):
        before = signal.getsignal(signal.SIGALRM)
        try:
            for i in range(60):
                group = TaskGroup()
                signal.signal(signal.SIGALRM, lambda *_, group=group: group.cancel())
                with group:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + i % 30 * 0.0001)
                    future = group.start(fork.Process(target=wait_in_child))
                    while True:
                        sleep(0.0001)
                assert was_cancelled(future)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_one_that_is_forked_while_a_pool_is_at_work(self, fork):
        with TaskGroup(kind="process") as group:
            group.submit(int).result(PATIENCE)
            future = group.start(fork.Process())
            done = wait([future], timeout=3).done
            group.cancel()
        assert done == {future}

    def test_a_forked_child_can_have_groups_of_its_own(self, fork):
        def run():
            with TaskGroup() as inner:
                inner.start(fork.Process())
            with TaskGroup(kind="process") as inner:
                inner.submit(int)

        with TaskGroup() as group:
            group.start(fork.Process())
            future = group.start(fork.Process(target=run))
        assert future.result(0) is None


def wait_in_child():
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()


def test_errors_of_processes_are_logged_if_they_are_lost(caplog, fork):
    with pytest.raises(SystemExit), TaskGroup() as group:
        wait([group.start(fork.Process(target=sys.exit, args=(4,)))])
        sys.exit()
    assert "ended with exit code 4" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_an_error_tells_which_task_raised_it():
    with pytest.raises(ExceptionGroup) as caught, TaskGroup(kind="process") as group:
        group.start(int, args=("x",), name="X")
    assert caught.value.exceptions[0].__notes__ == ["abreast: raised by X('x'), in a TaskGroup"]

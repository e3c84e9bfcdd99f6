"""Run CPython's own tests of concurrent.futures with abreast's classes in place of the standard ones.

    python tests/conformance/run_cpython.py                                the three parts, side by side
    python tests/conformance/run_cpython.py --part threads|fork|spawn [-v] [-k words that the tests' names contain ...]

The tests are those of the Python that runs this (package `test.test_concurrent_futures`); nothing of them is copied. Our
classes are put into `concurrent.futures` before the test modules are imported, and also in the fresh interpreters that
some tests start. What is left out is named below, with the reason; it runs too, afterwards, and what passes meanwhile is printed. A
test that leaves a thread or a process behind has failed. Exit status: 0 all passed, 1 some failed, 3 this Python has no tests.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import faulthandler
import gc
import importlib
import io
import signal
import subprocess
import sys
import time
import unittest

SWAP = """
import concurrent.futures as _f, concurrent.futures._base as _b, concurrent.futures.thread as _t, concurrent.futures.process as _p
import abreast as _a
_f.Future = _b.Future = _a.Future
_f.ThreadPoolExecutor = _t.ThreadPoolExecutor = _a.ThreadPoolExecutor
_f.ProcessPoolExecutor = _p.ProcessPoolExecutor = _a.ProcessPoolExecutor
"""

MODULES = (
    "test_future",
    "test_thread_pool",
    "test_process_pool",
    "test_deadlock",
    "test_wait",
    "test_as_completed",
    "test_init",
    "test_shutdown",
)

# Name of a test of threads and futures -> why it is left out. At most 3, by agreement.
EXCEPTIONS: dict[str, str] = {}

# Names of tests of processes -> why they are left out. What is different on purpose:
DIFFERENT: dict[str, str] = {
    "test_killed_child": "a worker that dies costs its task alone; the executor goes on, and accepts more",
    "test_broken_process_pool_traceback": "it kills one worker, and waits for the tasks of the others to fail, which run on here",
    "test_traceback_when_child_process_terminates_abruptly": "the error itself tells the exit status, not a private class in its cause",
    "test_cancel_futures": "it wants one of 50 to have begun at once; a task is running here when a process has it, and can be cancelled before",
    "test_saturation": "its tasks cannot be pickled (a semaphore), for which no process is started",
    "test_processes_terminate": "its tasks cannot be pickled (a semaphore), for which no process is started",
    "test_gc_during_max_tasks_worker_exit_gh152967": "what is queued is run when its executor is collected; it does not fail",
    "test_shutdown_no_wait_max_tasks_gh119592": "what is queued is run when its executor is collected; it does not fail",
}
# What looks at private names, or puts mocks into their place:
PRIVATE: dict[str, str] = {
    "test_del_shutdown": "_call_queue",
    "test_shutdown_no_wait": "_call_queue",
    "test_failed_worker_replacement_breaks_pool": "a mock of _spawn_worker",
    "test_force_shutdown_during_max_tasks_worker_exit": "_force_shutting_down",
    "test_terminate_workers": "a mock of _force_shutdown",
    "test_kill_workers": "a mock of _force_shutdown",
}
# Defects of ours that are known: they are to go from here, and one that passes fails the run.
DEFECTS: dict[str, str] = {}
PROCESS_EXCEPTIONS = DIFFERENT | PRIVATE | DEFECTS

PARTS = ("threads", "fork", "spawn")

TIMEOUT = 40.0
"""Seconds for a test; then it is interrupted, and has failed. The slowest take 6."""
PATIENCE = 1.5
"""Seconds for a test that is left out."""


def wanted(test_id: str) -> bool:
    """Threads, futures and processes. Interpreters are another executor; forkserver and spawn are one launcher here, so spawn stands for both."""
    return "Interpreter" not in test_id and "orkserver" not in test_id


def part_of(test_id: str) -> str:
    """Return which part a test belongs to. Nearly all of them sleep, so the parts run side by side: a minute instead of two."""
    if "Fork" in test_id:
        return "fork"
    return "spawn" if "Spawn" in test_id or test_id.endswith("ResourcesTest.test_spawn") else "threads"


def left_out(test_id: str) -> str | None:
    """Return why a test is left out, None if it is not."""
    *_, class_name, name = test_id.split(".")
    table = PROCESS_EXCEPTIONS if "Process" in class_name or "FailingInitializerResources" in class_name else EXCEPTIONS
    return table.get(name) or table.get(f"{class_name}.{name}")


def swap_in_subprocesses() -> None:
    """Put our classes into the interpreters that tests start with ``-c``: script_helper runs them isolated."""
    from test.support import script_helper

    original = script_helper.run_python_until_end

    def run(*args: str, **env: object) -> object:
        at = args.index("-c")
        return original(*args[: at + 1], SWAP + "\n" + args[at + 1], *args[at + 2 :], **env)

    script_helper.run_python_until_end = run


def collect(part: str, patterns: list[str]) -> tuple[unittest.TestSuite, unittest.TestSuite]:
    """Return the tests of this Python that are to pass, and those that are left out."""
    loader = unittest.TestLoader()
    suite, others = unittest.TestSuite(), unittest.TestSuite()

    def add(tests: unittest.TestSuite) -> None:
        for test in tests:
            if isinstance(test, unittest.TestSuite):
                add(test)
            elif (
                wanted(test.id())
                and part_of(test.id()) == part
                and (not patterns or any(pattern in test.id() for pattern in patterns))
            ):
                (others if left_out(test.id()) else suite).addTest(test)

    for name in MODULES:
        add(loader.loadTestsFromModule(importlib.import_module(f"test.test_concurrent_futures.{name}")))
    return suite, others


def prove_swapped() -> None:
    """Fail if the tests have not taken our classes: a run against the standard ones would prove nothing."""
    import abreast
    from test.support.script_helper import assert_python_ok
    from test.test_concurrent_futures import test_future, util

    assert util.ThreadPoolMixin.executor_type is abreast.ThreadPoolExecutor, util.ThreadPoolMixin.executor_type
    for mixin in (util.ProcessPoolForkMixin, util.ProcessPoolForkserverMixin, util.ProcessPoolSpawnMixin):
        assert mixin.executor_type is abreast.ProcessPoolExecutor, mixin.executor_type
    assert test_future.Future is abreast.Future, test_future.Future
    assert type(util.PENDING_FUTURE) is abreast.Future, type(util.PENDING_FUTURE)
    ours = (abreast.Future, abreast.ThreadPoolExecutor, abreast.ProcessPoolExecutor)
    standard = {base for one in ours for base in one.__mro__ if base.__module__.startswith("concurrent.futures.")}
    for module_name, module in sys.modules.items():
        if module_name.startswith("test.test_concurrent_futures."):
            for name, value in vars(module).items():
                assert not isinstance(value, type) or value not in standard, f"{module_name}.{name} is the standard {value}"
    _, out, _ = assert_python_ok(
        "-c",
        "from concurrent.futures import ProcessPoolExecutor as P, process; print(P.__module__, process.ProcessPoolExecutor is P)",
    )
    assert out.split() == [b"abreast.process_pools", b"True"], out


class Result(unittest.TextTestResult):
    """Interrupts a test that hangs; fails one that leaves threads or processes behind, which CPython's own runner does."""

    timeout = TIMEOUT

    def startTestRun(self) -> None:
        super().startTestRun()
        self.passed: list[str] = []
        signal.signal(signal.SIGALRM, self._interrupt)

    def startTest(self, test: unittest.TestCase) -> None:
        self._set_limit()
        super().startTest(test)

    def _set_limit(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.timeout)
        # Should that not help: all stacks, and the end.
        faulthandler.dump_traceback_later(10 * self.timeout, exit=True, file=sys.__stderr__)

    def _interrupt(self, _signal: int, _frame: object) -> None:
        self._set_limit()  # it may wait again in its tearDown
        raise TimeoutError(f"CPython's test is not over after {self.timeout:g} s")

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(test.id())

    def stopTest(self, test: unittest.TestCase) -> None:
        from test import support

        gc.collect()  # what a failed test has left in cycles: a manager's process makes the end of its module wait for ever
        if support.environment_altered:
            support.environment_altered = False
            try:
                raise AssertionError("it leaves threads or processes behind: see the warnings")
            except AssertionError:
                self.addFailure(test, sys.exc_info())
        super().stopTest(test)
        self._set_limit()  # the end of a module may hang too

    def stopTestRun(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        super().stopTestRun()


class Impatient(Result):
    """For tests that are expected to fail."""

    timeout = PATIENCE


def main() -> int:
    try:
        importlib.import_module("test.test_concurrent_futures")
    except ImportError:
        print(f"Python {sys.version.split()[0]} is installed without its tests")
        return 3
    if "--part" in sys.argv:
        return run(sys.argv[sys.argv.index("--part") + 1])
    words = [sys.executable, *sys.argv, "--part"]
    runs = [subprocess.Popen([*words, part], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for part in PARTS]
    with concurrent.futures.ThreadPoolExecutor() as readers:
        for output, _ in readers.map(subprocess.Popen.communicate, runs):
            print(output, flush=True)
    return int(any(run.returncode for run in runs))


def run(part: str) -> int:
    """Run one part; return the exit status."""
    exec(SWAP, {})  # noqa: S102
    swap_in_subprocesses()
    from test import support

    support.use_resources = ["cpu", "walltime"]
    patterns = sys.argv[sys.argv.index("-k") + 1 :] if "-k" in sys.argv else []
    suite, others = collect(part, patterns)
    prove_swapped()
    begin = time.monotonic()
    verbosity = 2 if "-v" in sys.argv else 1
    result = unittest.TextTestRunner(verbosity=verbosity, resultclass=Result).run(suite)
    took = time.monotonic() - begin
    print(
        f"CPython {sys.version.split()[0]}, {part}: {result.testsRun} tests run with abreast's classes in {took:.0f} s, "
        f"{len(result.failures) + len(result.errors)} failed, {len(result.skipped)} skipped, "
        f"{others.countTestCases()} left out"
    )
    for test, reason in result.skipped:
        print(f"  skipped: {test.id()}: {reason}")
    for test in others:
        print(f"  left out: {test.id()}: {left_out(test.id())}")
    sys.stdout.flush()
    sys.stderr.flush()
    passed = pass_by_now(others)
    for name in passed:
        print(f"  LEFT OUT, AND PASSES BY NOW: {name}")
    mended = [name for name in passed if left_out(name) in DEFECTS.values()]
    return 0 if result.wasSuccessful() and not mended else 1


def pass_by_now(others: unittest.TestSuite) -> list[str]:
    """Run what is left out, which may fail as it likes, and return what passes."""

    from test import support

    support.verbose = 0
    output = io.StringIO()
    with contextlib.redirect_stderr(output):
        result = unittest.TextTestRunner(stream=output, resultclass=Impatient).run(others)
    return result.passed


if __name__ == "__main__":
    sys.exit(main())

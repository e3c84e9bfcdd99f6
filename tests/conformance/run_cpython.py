"""Run CPython's own tests of concurrent.futures with abreast's classes in place of the standard ones.

    python tests/conformance/run_cpython.py [-v] [unittest's -k patterns ...]

The tests are those of the Python that runs this (package `test.test_concurrent_futures`); nothing of them is copied. Our
classes are put into `concurrent.futures` before the test modules are imported, and also in the fresh interpreters that
some tests start. What is left out is named below, with the reason. Exit status: 0 all passed, 1 some failed, 3 this Python has no tests.
"""

from __future__ import annotations

import importlib
import sys
import unittest

SWAP = """
import concurrent.futures as _f, concurrent.futures._base as _b, concurrent.futures.thread as _t, abreast as _a
_f.Future = _b.Future = _a.Future
_f.ThreadPoolExecutor = _t.ThreadPoolExecutor = _a.ThreadPoolExecutor
"""

MODULES = ("test_future", "test_thread_pool", "test_wait", "test_as_completed", "test_init", "test_shutdown")

# Name of a test -> why it is left out. At most 3, by agreement.
EXCEPTIONS: dict[str, str] = {}


def wanted(test_id: str) -> bool:
    """Threads and futures; processes and interpreters are other executors."""
    return not any(word in test_id for word in ("Process", "Interpreter", "FailingInitializerResourcesTest"))


def swap_in_subprocesses() -> None:
    """Put our classes into the interpreters that tests start with ``-c``: script_helper runs them isolated."""
    from test.support import script_helper

    original = script_helper.run_python_until_end

    def run(*args: str, **env: object) -> object:
        at = args.index("-c")
        return original(*args[: at + 1], SWAP + "\n" + args[at + 1], *args[at + 2 :], **env)

    script_helper.run_python_until_end = run


def collect() -> unittest.TestSuite:
    """Return the tests that are wanted, of this Python."""
    loader = unittest.TestLoader()
    suite = unittest.TestSuite()

    def add(tests: unittest.TestSuite) -> None:
        for test in tests:
            if isinstance(test, unittest.TestSuite):
                add(test)
            elif wanted(test.id()) and not any(name in test.id() for name in EXCEPTIONS):
                suite.addTest(test)

    for name in MODULES:
        add(loader.loadTestsFromModule(importlib.import_module(f"test.test_concurrent_futures.{name}")))
    return suite


def prove_swapped() -> None:
    """Fail if the test modules have not taken our classes: a run against the standard ones would prove nothing."""
    import abreast
    from test.test_concurrent_futures import test_future, util

    assert util.ThreadPoolMixin.executor_type is abreast.ThreadPoolExecutor, util.ThreadPoolMixin.executor_type
    assert test_future.Future is abreast.Future, test_future.Future
    assert type(util.PENDING_FUTURE) is abreast.Future, type(util.PENDING_FUTURE)


def main() -> int:
    try:
        importlib.import_module("test.test_concurrent_futures")
    except ImportError:
        print(f"Python {sys.version.split()[0]} is installed without its tests")
        return 3
    exec(SWAP, {})  # noqa: S102
    swap_in_subprocesses()
    from test import support

    support.use_resources = ["cpu", "walltime"]
    suite = collect()
    if "-k" in sys.argv:
        patterns = sys.argv[sys.argv.index("-k") + 1 :]
        suite = unittest.TestSuite(test for test in suite if any(p in test.id() for p in patterns))
    prove_swapped()
    result = unittest.TextTestRunner(verbosity=2 if "-v" in sys.argv else 1).run(suite)
    print(
        f"CPython {sys.version.split()[0]}: {result.testsRun} tests run with abreast's classes, "
        f"{len(result.failures) + len(result.errors)} failed, {len(result.skipped)} skipped, {len(EXCEPTIONS)} left out"
    )
    for test, reason in result.skipped:
        print(f"  skipped: {test.id()}: {reason}")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())

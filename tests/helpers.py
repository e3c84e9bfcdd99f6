"""What several test files use."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str, *, timeout: float = 30, **more) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter, as a user would."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=timeout, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **more,
    )  # fmt: skip


def interrupt(program: subprocess.Popen[str], within: float = 1, presses: int = 20) -> tuple[float, str]:
    """Press Ctrl-C until a program ends; return how many seconds it took after the last one, and what it said on standard error.

    It may not have come to where it is to wait: the signal is for whatever it does.
    """
    for _ in range(presses):
        begun = time.monotonic()
        program.send_signal(signal.SIGINT)
        try:
            program.wait(within)
            break
        except subprocess.TimeoutExpired:
            pass
    else:
        program.kill()
    took = time.monotonic() - begun
    _, stderr = program.communicate()
    return took, stderr


def in_child(code: Callable[[], object]) -> int:
    """Run `code()` in a forked child; return its exit status, which is 0 if that returned True."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 'multi-threaded, use of fork()': that is the test
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)
            status = 0 if code() is True else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(found: Callable[[], T], patience: float = 30) -> T:
    """Ask until it is so, and return what was found."""
    deadline = time.monotonic() + patience
    while not (what := found()):
        assert time.monotonic() < deadline, "has not come"
        time.sleep(0.005)
    return what


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def was_cancelled(future: Future[object]) -> bool:
    """Whether a task ended with CancelledError: before it began, or because it was asked to."""
    try:
        return isinstance(future.exception(30), CancelledError)
    except CancelledError:
        return True


@contextlib.contextmanager
def raises_group(*errors: type[BaseException]) -> Iterator[list[BaseException]]:
    """The block raises an ExceptionGroup of exactly these classes, in any order; gives the list of the errors in it."""
    found: list[BaseException] = []
    with pytest.raises(BaseExceptionGroup) as raised:
        yield found
    found += raised.value.exceptions
    assert sorted(type(error).__name__ for error in found) == sorted(cls.__name__ for cls in errors)


def in_threads(*functions, timeout: float = 30) -> list[object]:
    """Run functions at the same time, from one barrier on, and return what they returned; raise what the first raised."""
    barrier = threading.Barrier(len(functions))
    results: list[object] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(i, fn):
        try:
            barrier.wait(timeout)
            results[i] = fn()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]
    return results

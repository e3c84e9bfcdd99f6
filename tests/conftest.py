"""Guards around every test, and the options of the suite.

A test fails if it leaves a thread, a child process, a file descriptor or a shared-memory file behind; one that hangs for a
minute prints all stacks and ends the run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import re
import signal
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key  # the stderr that is not captured, else nobody sees the stacks
from hypothesis import HealthCheck, settings

# No example is timed: that a busy machine is slow is no fault. In CI the examples are the same each time, so that a change is not refused for
# what another one has done; new ones are looked for wherever else the tests are run.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("untimed"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("ABREAST_REQUIRE_ALL") else "untimed")

# Pools of processes share multiprocessing's resource tracker with their workers, where a program has use for it. It stays; so it is there
# before the first test, which would else be said to have left it.
resource_tracker.ensure_running()

# So does the guardian, which forks the workers of all pools. A test may kill it, or change what this process is: then there is another one.
# `_left_over` takes away what belongs to the guardian without preloads that is there at the moment, and looks at its children in its place.
if sys.platform == "linux":
    from abreast.executors.process import guardian

    guardian.start()

# Started by nohup, or in the background of a script, they would be ignored here, and in every process that a test sends them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the hammers and soaks too")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read files that the fast set has nothing of: collecting takes as long as many of its tests."""
    if "not whole" not in config.option.markexpr or not collection_path.name.startswith("test_"):
        return None
    return re.search(r"^pytestmark = \[?pytest\.mark\.whole", collection_path.read_text(), flags=re.MULTILINE) is not None or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: asked for with --slow"))


def _left_over() -> dict[str, set[object]]:
    """What of each kind there is now."""
    found: dict[str, set[object]] = {"threads": set(threading.enumerate())}
    if sys.platform == "linux":
        found["descriptors"] = {(fd, _link(fd)) for fd in os.listdir("/proc/self/fd")}
        found["descriptors"] = {pair for pair in found["descriptors"] if pair[1] is not None}  # type: ignore[index]
        found["children"] = _children(os.getpid())
        for one in guardian.kept():
            if not one.preload:
                found["children"] = found["children"] - {str(one.pid)} | _children(one.pid)
                found["descriptors"] = {pair for pair in found["descriptors"] if int(pair[0]) not in one.descriptors()}  # type: ignore[index]
        # loky's and joblib's names say whose they are: not those of another run of these tests
        foreign = re.compile(rf"(sem\.loky-|joblib_memmapping_folder_)(?!{os.getpid()}[-_])")
        found["shared memory"] = {name for name in os.listdir("/dev/shm") if not foreign.match(name)}
    return found


def _children(pid: int) -> set[object]:
    """Of all its threads: a child belongs to the one that has started it, as long as that lives."""
    found: set[object] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # of a thread that has just ended, or a guardian that a test has just killed
            found |= set(path.read_text().split())
    return found


def _link(fd: str) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the descriptor of the listing itself
        return None


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest):
    limit = 600 if "slow" in request.keywords else 240 if "patient" in request.keywords else 60
    faulthandler.dump_traceback_later(limit, exit=True, file=request.config.stash.get(fault_handler_stderr_fd_key, 2))
    before = _left_over()
    yield
    begin = time.monotonic()
    while True:
        # What is ending still may take a moment (a daemon thread after its last task, on a busy machine); and another process of these
        # tests may have shared memory just now. Wait for that, not for an order.
        left = {kind: now - before[kind] for kind, now in _left_over().items() if now - before[kind]}
        if not left or time.monotonic() > begin + 20:
            break
        if time.monotonic() > begin + 0.1:  # most are gone by then; and looking through all objects takes as long
            gc.collect()
        time.sleep(0.005)
    faulthandler.cancel_dump_traceback_later()
    assert not left, f"left behind: {left}"


@pytest.fixture
def busy_switching():
    """Let threads be switched after every few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def no_gc():
    """No collection of cycles meanwhile: what is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def no_timer_is_left():
    """The timers' thread ends after the test."""
    from abreast.executors import timers

    yield
    deadline = time.monotonic() + 5
    while timers._thread is not None:
        assert time.monotonic() < deadline, timers._heap
        time.sleep(0.005)
    assert timers._heap == []

"""What happens to a run while its inputs are read, or its outcomes are recorded: another thread ends it, or a task does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref

import pytest

import abreast
from abreast.engine.journaled import Journaling

PATIENCE = 10


def double(x):
    return 2 * x


class Slow:
    """Inputs that can tell how many they are; from the second on they wait."""

    def __init__(self):
        self.is_waiting, self.go = threading.Event(), threading.Event()

    def __len__(self):
        return 5

    def __iter__(self):
        yield 0
        self.is_waiting.set()
        assert self.go.wait(PATIENCE)
        yield from range(1, 5)


@pytest.mark.parametrize("journal", [False, True])
def test_too_many_fail_while_inputs_are_read(tmp_path, journal):
    inputs = Slow()
    more = {"journal": tmp_path / "run.db"} if journal else {}

    def fail(x):
        assert inputs.is_waiting.wait(PATIENCE)
        raise ValueError(x)

    def go():  # when the run has been ended, in the worker
        while not results._run._settling.too_many:
            if done.wait(0.01):
                return
        inputs.go.set()

    done = threading.Event()
    results = abreast.outcomes(fail, inputs, max_workers=1, max_failures=0, **more)
    thread = threading.Thread(target=go)
    thread.start()
    seen = []
    with pytest.raises(abreast.TooManyFailures):
        while True:
            seen.append(next(results).index)
    done.set()
    thread.join()
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("options", [{}, {"buffersize": 2}], ids=["auto", "buffersize"])
def test_closed_by_another_thread_while_inputs_are_read(options):
    inputs, ended = Slow(), []
    results = abreast.imap(double, inputs, max_workers=1, **options)

    def consume():
        try:
            ended.append(list(results))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    assert inputs.is_waiting.wait(PATIENCE)
    results.close()
    inputs.go.set()
    thread.join(PATIENCE)
    assert ended in ([[]], [[0]])


def test_closed_by_another_thread_while_inputs_are_looked_up(tmp_path):
    abreast.map(double, range(3), journal=tmp_path / "run.db", key=str)
    is_waiting, go, ended = threading.Event(), threading.Event(), []

    def key(x):
        is_waiting.set()
        assert go.wait(PATIENCE)
        return str(x)

    def consume():
        try:
            ended.append(list(results))
        except BaseException as error:
            ended.append(error)

    results = abreast.imap(double, range(5), journal=tmp_path / "run.db", key=key, max_workers=1)
    thread = threading.Thread(target=consume)
    thread.start()
    assert is_waiting.wait(PATIENCE)
    results.close()
    go.set()
    thread.join(PATIENCE)
    assert ended == [[]]


class Result:
    """Can be held weakly."""


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="references are counted in the thread that made the object, which waits here",
)
def test_the_journals_thread_keeps_no_result(tmp_path):
    go = threading.Event()

    def work(x):
        assert x == 0 or go.wait(PATIENCE)
        return Result()

    gone = threading.Event()
    with abreast.imap(work, [0, 1], max_workers=1, buffersize=1, journal=tmp_path / "run.db") as results:
        result = weakref.ref(next(results), lambda _: gone.set())
        is_gone = gone.wait(PATIENCE / 2)  # before the second task gives up
        go.set()
    assert is_gone, result


class Pickled:
    is_written, go = threading.Event(), threading.Event()

    def __reduce__(self):
        self.is_written.set()
        assert self.go.wait(PATIENCE)
        return Pickled, ()


def make(_):
    return Pickled()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to itself")
def test_the_journal_is_closed_after_ctrl_c_twice(tmp_path):
    waits = threading.Event()
    wait = threading.Event.wait

    def waiting(self, timeout=None):
        if journalings and self is journalings[0]._has_ended:
            waits.set()
        return wait(self, timeout)

    journalings = []
    init = Journaling.__init__

    def made(self, *args, **options):
        init(self, *args, **options)
        journalings.append(self)

    def strike():
        assert Pickled.is_written.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        assert waits.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)

    closed = threading.Event()
    close = Journaling._close_store

    def closing(self, *args):
        close(self, *args)
        closed.set()

    journal = tmp_path / "run.db"
    thread = threading.Thread(target=strike)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Event, "wait", waiting)
        patch.setattr(Journaling, "__init__", made)
        patch.setattr(Journaling, "_close_store", closing)
        with pytest.raises(KeyboardInterrupt):
            abreast.map(make, [1], max_workers=1, journal=journal)
        Pickled.go.set()
        assert closed.wait(PATIENCE)
    thread.join()
    assert len(abreast.map(make, [1], max_workers=1, journal=journal)) == 1

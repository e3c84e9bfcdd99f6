"""`Held`: signals wait for the end of a step, and none is lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from abreast.core.interrupts import Held

from tests.helpers import in_child, in_threads, run_python

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")


@pytest.fixture
def noted():
    """What handlers of SIGUSR1, SIGUSR2 have been called with; each raises."""
    calls = []

    def handle(number, frame):
        calls.append(number)
        assert frame is not None
        raise InterruptedError(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield calls
    for number, handler in before.items():
        assert signal.signal(number, handler) is handle


def test_ctrl_c_waits_for_the_end_of_the_block():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with Held():
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_happens_without_a_signal(noted):
    with Held():
        pass
    assert noted == []


def test_a_second_one_is_passed_on_at_once(noted):
    with pytest.raises(InterruptedError) as caught:
        with Held():
            signal.raise_signal(signal.SIGUSR1)
            assert noted == []
            with pytest.raises(InterruptedError):
                signal.raise_signal(signal.SIGUSR1)
            assert noted == [signal.SIGUSR1]
    assert caught.value.args == (signal.SIGUSR1,)
    assert noted == [signal.SIGUSR1] * 2


def test_each_that_came_is_called_although_the_first_raises(noted):
    with pytest.raises(InterruptedError):
        with Held():
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR1)
    assert noted == [signal.SIGUSR2, signal.SIGUSR1]


def test_what_the_block_raises_is_the_context(noted):
    with pytest.raises(InterruptedError) as caught:
        with Held():
            signal.raise_signal(signal.SIGUSR1)
            raise LookupError
    assert isinstance(caught.value.__context__, LookupError)


def test_a_handler_that_was_set_within_the_block_stays(noted):
    calls = []

    def other(number, frame):
        calls.append(number)

    with Held():
        signal.signal(signal.SIGUSR1, other)
        signal.raise_signal(signal.SIGUSR1)
    assert signal.signal(signal.SIGUSR1, signal.SIG_IGN) is other
    assert calls == [signal.SIGUSR1]
    signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR2))


def test_a_block_within_one(noted):
    with pytest.raises(InterruptedError):
        with Held():
            with pytest.raises(InterruptedError):
                with Held():
                    signal.raise_signal(signal.SIGUSR1)
                    assert noted == []
                signal.raise_signal(signal.SIGUSR1)  # noted by the outer one; the next is passed on
                assert noted == []
                signal.raise_signal(signal.SIGUSR1)
            assert noted == [signal.SIGUSR1]
    assert noted == [signal.SIGUSR1] * 2


def test_in_another_thread_nothing_is_changed():
    def step():
        with Held():
            return signal.getsignal(signal.SIGINT)

    assert in_threads(step) == [signal.default_int_handler]


def test_a_forked_child_has_its_own_handlers_and_none_of_the_parents_signals(noted):
    def child():
        if noted or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return False
        try:
            signal.raise_signal(signal.SIGUSR2)
        except InterruptedError:
            return noted == [signal.SIGUSR2]

    with pytest.raises(InterruptedError):
        with Held():
            signal.raise_signal(signal.SIGUSR1)
            assert in_child(child) == 0
    assert noted == [signal.SIGUSR1]


def test_so_has_the_child_of_another_thread(noted):
    with Held():
        assert in_threads(lambda: in_child(lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler)) == [0]


def test_signals_of_another_process_at_any_moment_are_each_called_once_or_wait():
    """A program that holds signals again and again is sent 300; each raises, wherever it strikes but in a block."""
    done = run_python(
        """
        import os, signal, threading
        from abreast.core.interrupts import Held
        got, armed, inside, pressed = [], [], [0], []
        class Struck(Exception): pass
        def handle(number, frame):
            got.append(number)
            if armed:  # else where nothing catches it
                armed.clear()
                raise Struck
        signal.signal(signal.SIGUSR1, handle)
        def press():
            for n in range(300):
                os.kill(os.getpid(), signal.SIGUSR1)
                while len(got) <= n:
                    pass
            pressed.append(True)
        threading.Thread(target=press).start()
        def hold():
            while not pressed:  # is_alive() of 3.11 is wrong once it was interrupted
                with Held():
                    inside[0] += 1
                    before = len(got)
                    for _ in range(100):
                        pass
                    assert len(got) == before
        struck = 0
        while not pressed:
            try:
                armed.append(True)
                hold()
            except Struck:
                struck += 1
        print(len(got), inside[0] > 100, struck > 100)
        """
    )
    assert done.stdout == "300 True True\n", done.stderr

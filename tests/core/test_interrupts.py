"""`Held`: signals wait for the end of a step, and none is lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from abreast.core.interrupts import Held

from tests.helpers import in_child, in_threads, run_python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def noted():
    """What handlers of SIGTERM, SIGINT have been called with; each raises."""
    calls = []

    def handle(number, frame):
        calls.append(number)
        assert frame is not None
        raise InterruptedError(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
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


def test_a_second_one_is_passed_on_at_once_for_both(noted):
    """And with it what else has been noted; nothing is held any more."""
    with Held():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert noted == []
        with pytest.raises(InterruptedError):
            signal.raise_signal(signal.SIGTERM)
        assert noted == [signal.SIGTERM, signal.SIGINT]
        with pytest.raises(InterruptedError):
            signal.raise_signal(signal.SIGTERM)
    assert noted == [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]


def test_each_that_came_is_called_although_the_first_raises(noted):
    with pytest.raises(InterruptedError):
        with Held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
    assert noted == [signal.SIGINT, signal.SIGTERM]


def test_what_the_block_raises_is_the_context(noted):
    with pytest.raises(InterruptedError) as caught:
        with Held():
            signal.raise_signal(signal.SIGTERM)
            raise LookupError
    assert isinstance(caught.value.__context__, LookupError)


def test_a_handler_that_was_set_within_the_block_stays(noted):
    calls = []

    def other(number, frame):
        calls.append(number)

    with Held():
        signal.signal(signal.SIGTERM, other)
        signal.raise_signal(signal.SIGTERM)
    assert signal.signal(signal.SIGTERM, signal.SIG_IGN) is other
    assert calls == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))


def test_a_block_within_one(noted):
    with pytest.raises(InterruptedError):
        with Held():
            with Held():
                signal.raise_signal(signal.SIGTERM)
                assert noted == []
            assert noted == []  # the outer one has noted it
    assert noted == [signal.SIGTERM]


def test_an_alarm_is_not_held(noted):
    before = signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
    try:
        with pytest.raises(InterruptedError), Held():
            signal.raise_signal(signal.SIGALRM)
            pytest.fail("was held")
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_handler_raises_while_the_block_is_entered_is_raised(kind, monkeypatch):
    """And the block is not run, and all is as before."""

    def handle(number, frame):
        raise kind("mine")

    before = signal.signal(signal.SIGTERM, handle)
    real = signal.getsignal
    strikes = [signal.SIGTERM]

    def getsignal(number):
        if number == signal.SIGTERM and strikes:
            signal.raise_signal(strikes.pop())
        return real(number)

    monkeypatch.setattr(signal, "getsignal", getsignal)
    try:
        with pytest.raises(kind, match="mine"), Held():
            pytest.fail("was run")
        assert real(signal.SIGTERM) is handle
        assert real(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_changed():
    def step():
        with Held():
            return signal.getsignal(signal.SIGINT)

    assert in_threads(step) == [signal.default_int_handler]


def test_a_forked_child_has_its_own_handlers_and_none_of_the_parents_signals(noted):
    handler = signal.getsignal(signal.SIGTERM)

    def child():
        if noted or any(signal.getsignal(number) is not handler for number in (signal.SIGINT, signal.SIGTERM)):
            return False
        try:
            signal.raise_signal(signal.SIGINT)
        except InterruptedError:
            return noted == [signal.SIGINT]

    with pytest.raises(InterruptedError):
        with Held():
            signal.raise_signal(signal.SIGTERM)
            assert in_child(child) == 0
    assert noted == [signal.SIGTERM]


def test_so_has_the_child_of_another_thread():
    with Held():
        assert in_threads(lambda: in_child(lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler)) == [0]


def test_signals_of_another_process_at_any_moment_are_each_called_once_or_wait():
    """A program that holds signals again and again is sent 100; each raises, wherever it strikes but in a block."""
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
        signal.signal(signal.SIGTERM, handle)
        def press():
            for n in range(100):
                os.kill(os.getpid(), signal.SIGTERM)
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
        print(len(got), inside[0] > 30, struck > 30)
        """
    )
    assert done.stdout == "100 True True\n", done.stderr

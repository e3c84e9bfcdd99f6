"""Tasks of test_stuck.py, in a module of their own that workers import quickly."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import threading
import time


def note(path, number):
    fd = os.open(path, os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"%d\n" % number)
    os.close(fd)


def lines(path):
    try:
        with open(path) as file:
            return [int(line) for line in file]
    except FileNotFoundError:
        return []


def waits_for_the_others(path, others, item):
    """Number 3 ends when so many others have begun."""
    number = item if type(item) is int else item[0]
    note(path, number)
    if number == 3:
        deadline = time.monotonic() + 60
        while len(lines(path)) < others:
            assert time.monotonic() < deadline, "the others do not begin"
            time.sleep(0.001)
    return number


def dies_when_the_others_have_begun(path, others, how, number):
    waits_for_the_others(path, others, number)
    if number == 3:
        if how == "hang":
            threading.Event().wait()
        os._exit(1)
    return number


def tiny_or_not(path, item):
    number = item if type(item) is int else item[0]
    note(path, number)
    if number % 50 == 7:
        time.sleep(0.002)
    elif number % 10 == 3:
        sum(range(5000))
    return number


def returns(_which, item):
    return item


def waits_for(gate, _item):
    deadline = time.monotonic() + 60
    while not os.path.exists(gate):
        assert time.monotonic() < deadline, "the gate stays closed"
        time.sleep(0.001)


class Struck(Exception):
    """What is thrown into a task."""


def _strike(_number, _frame):
    raise Struck


def _raise_signal():
    signal.raise_signal(signal.SIGALRM)


def _throw():
    """As another thread may."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(Struck))


def struck_amid_what_is_asked(path, others, how, number):
    """Number 3 waits for so many others to begin; what is next written meanwhile is struck by an exception, which it catches."""
    if number != 3:
        return waits_for_the_others(path, others, number)
    real, strike = (os.write, os.writev), {"signal": _raise_signal, "thread": _throw}[how]

    def struck(which, fd, data):
        os.write, os.writev = real
        strike()
        return real[which](fd, data)

    before = signal.signal(signal.SIGALRM, _strike)
    note(path, number)
    os.write, os.writev = functools.partial(struck, 0), functools.partial(struck, 1)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.001)
    except Struck:
        return number
    finally:
        signal.signal(signal.SIGALRM, before)
    raise AssertionError("nothing is asked")

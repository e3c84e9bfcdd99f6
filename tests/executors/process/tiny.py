"""What tasks of the tests of batches do; in a module of its own, so that workers import it by name."""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import time

import abreast

from tests.executors.process.tasks import die, note

variable = contextvars.ContextVar("variable", default=None)


class Number(int):
    """A subclass: no plain value."""


class Text(str):
    """The same of a text."""

    __slots__ = ()


class Settings:
    """What tasks do, by their number; in the initializer's place, so that items can be plain numbers."""

    path = ""
    how: dict[int, str] = {}  # noqa: RUF012  # of this module


def settle(path, how):
    """Have tasks note their start in this file, and the ones with these numbers end in these ways."""
    Settings.path, Settings.how = path, how


def noted(number):
    """Note the start, then die if that is due. A number, or a list of one."""
    if type(number) is list:
        (number,) = number
    note(Settings.path, number)
    if number in Settings.how:
        die(Settings.how[number])
    return number


def value_of(number):
    """Return, or raise, something of any kind."""
    if type(number) is list:
        (number,) = number
    kind = number % 13
    if kind == 5:
        raise KeyError(number)
    return made(number, kind)


def made(number, kind):
    return (
        number,
        f"text {number}",
        (number, "tuple"),
        None,
        b"x" * 5000 + str(number).encode(),
        "an error",
        [number] * 3,
        number / 7,
        Number(number),
        "y" * 70_000 + str(number),
        bytearray(str(number).encode() * 40_000),
        number % 2 == 0,
        Text(number),
    )[kind]


def sometimes_a_tuple(number):
    return (number,) if number % 3 == 2 else number


def always_a_tuple(number):
    return (number,)


def same(number):
    return number


def index_of(_):
    return abreast.current_task().index


def in_context(_):
    return variable.get()


def with_names(a, *, b, c=3):
    return a, b, c


def forks(number):
    """Return in the child, too."""
    if number % 50 == 25:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
    return number


def forks_and_raises(number):
    """Raise in the child."""
    if number % 50 == 25:
        pid = os.fork()
        if not pid:
            raise ValueError("in the child")
        os.waitpid(pid, 0)
    return number


def sleeps_at_17(number):
    if number == 17:
        time.sleep(600)
    return number


def long_from_3000_on(number):
    if number >= 3000:
        note(Settings.path, number)
        time.sleep(0.005)
        if number == 3040:
            die("os._exit(3)")
    return number


def naps(number):
    if number % 10 == 5:
        time.sleep(0.003)
    return number


class Late(Exception):
    """Raised by a signal handler."""


def _late(_number, _frame):
    raise Late


def waits_at_240(number, path):
    """Wait for the one who waits for the one before."""
    while number == 240 and not os.path.exists(path):
        time.sleep(0.001)
    return number


def waits_at_240_unpacked(item, path):
    return waits_at_240(item[0], path)


def sets_a_timer(number):
    """Now and then have a signal handler raise, most likely after this task."""
    if number % 400 == 200:
        signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 1000 // 100))
    return number


def interrupts(item):
    """Raise where the worker goes on behind this task, as a signal's handler may: so many lines later. An item: its number, and lines."""
    number, lines = item
    if lines is None:
        return number
    left = lines

    def trace(_frame, event, _arg):
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Late
        return trace

    frame = sys._getframe()
    while frame.f_code.co_name not in ("_run_plain", "_run_each"):
        frame = frame.f_back
    frame.f_trace = trace
    sys.settrace(lambda *_: None)
    return number


def interrupts_at(number, *, lines):
    """The same of a plain number."""
    return interrupts((number, lines if number == 30 else None))

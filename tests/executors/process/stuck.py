"""Tasks of test_stuck.py, in a module of their own that workers import quickly."""

from __future__ import annotations

import os
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

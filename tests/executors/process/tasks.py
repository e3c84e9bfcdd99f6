"""What tasks of the tests of crashes do; in a module of its own, so that workers import it by name."""

from __future__ import annotations

import os
import sys
import time

CRASHES = {
    "segfault": "died of SIGSEGV",
    "os._exit(0)": "ended with exit code 0",
    "os._exit(3)": "ended with exit code 3",
    "exit(4) of libc": "ended with exit code 4",
}
"""Ways to end the process, and what the error says of each."""
ERRORS = ("ValueError", "SystemExit")
"""Exceptions."""
WAYS = (*CRASHES, *ERRORS)


def die(how: str) -> None:
    """End this process, or raise."""
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif how.startswith("os._exit"):
        os._exit(int(how[9]))
    elif how == "exit(4) of libc":
        import ctypes

        ctypes.CDLL(None).exit(4)
    elif how == "SIGKILL":
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hang":
        time.sleep(600)
    elif how == "ValueError":
        raise ValueError("as it was told to")
    elif how == "SystemExit":
        raise SystemExit(7)
    raise AssertionError(f"{how} did nothing")


class DiesUnpickled:
    """Dies, hangs or raises when it is unpickled; also a function and a context variable's value."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self):
        return die, (self.how,)

    def __call__(self, *_):
        return "called"


class DiesPickled:
    """Dies, hangs or raises when it is pickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self):
        die(self.how)


class DiesUnpickledOnce:
    """As `DiesUnpickled`, but only where a file is not there yet."""

    def __init__(self, how: str, path: str) -> None:
        self.how, self.path = how, path

    def __reduce__(self):
        return die_once, (self.how, self.path)

    def __call__(self, *_):
        return "called"


class SlowToLoad:
    """A function that takes its time to be unpickled, as one whose module imports much."""

    def __reduce__(self):
        return _load_slowly, ()

    def __call__(self, *_):
        return "called"


def _load_slowly():
    time.sleep(0.6)
    return time.sleep


def die_once(how, path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return square
    die(how)


def note(path: str, what: object) -> None:
    """Add a line to an append-only file: it is whole, in whatever process, and however that ends."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{what}\n".encode())
    finally:
        os.close(fd)


def work(item):
    """Note the start; then die, or return the number, or what dies later. An item: (path, number, what)."""
    path, number, what = item
    note(path, number)
    if what is None:
        return number
    if type(what) is str:
        die(what)
    return what[0](*what[1:])


def notes(path: str, number: int) -> int:
    note(path, number)
    return number


def notes_and_sleeps(path: str, number: int, seconds: float) -> int:
    note(path, number)
    if seconds:
        time.sleep(seconds)
    return number


def square(x):
    return x * x


def first(x, *_):
    return x


def raise_error(error):
    raise error


def wait_for_file(path: str, patience: float = 60) -> str:
    deadline = time.monotonic() + patience
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.002)
    return path


def note_and_wait(path: str, go: str) -> int:
    note(path, os.getpid())
    wait_for_file(go)
    return os.getpid()


def note_and_sleep(path: str, seconds: float = 600) -> None:
    note(path, os.getpid())
    time.sleep(seconds)


def overflow_the_stack() -> None:
    """Use up the C stack. A small limit, which the kernel looks at when the stack grows: Python's own ones come first otherwise."""
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_STACK, (1 << 17, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    sys.setrecursionlimit(100_000)

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    def deeper(n):
        return deeper(n + 1) if n < 5_000 else n

    deeper(0)


def read_a_file_that_has_shrunk() -> None:
    import ctypes
    import mmap
    import tempfile

    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), mmap.PAGESIZE)
        mapped = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        os.ftruncate(file.fileno(), 0)
        ctypes.string_at(address, 1)


def run_machine_code(code: bytes) -> None:
    import ctypes
    import mmap

    mapped = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    mapped.write(code)
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(mapped)))()


def raise_signal(number: int) -> None:
    import signal

    signal.raise_signal(number)
    time.sleep(60)

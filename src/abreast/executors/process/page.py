"""The progress page: which task a worker is at, since when. Shared memory without a name, one writer to each word.

::

    w0 magic   w1 number of the worker        the parent, before the start
    w2 phase                                  the worker: 0 boot 1 idle 2 decode 3 run 4 encode 5 write 6 exit 7 load
    w3 seq     the number of its task         the worker; growing over its life; 0 before the first
    w4 start   nanoseconds, perf_counter      the worker, written BEFORE seq
    w5 halt    number of a call's first task  the parent: start no further task of that call; its running one is asked to end
    w6 quiet   1 if `halt` is not to be told to the running task  the parent, when the program is drained: that task is to finish
    w7 drained 1 if no further call is to be begun             the parent, when the program is drained
    w8 last    number of a task           the parent, before SIGCONT: what has not begun up to this one is to be given back
    w9 ours    what tasks have imported of ours, as bits       the worker, when it ends (surroundings.py)

From the start on the parent reads, but for w5 to w8: seq, start, phase, then seq and start again, until they are stable. A torn read can only give a later start, hence a later end
of a task over its limit. While a function is unpickled `start` is that of the unpickling; it is stored anew before the phase goes on. A store costs 0.04 us. The clock has one zero for all processes of a host.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys

from abreast.executors.process.frames import Phase

__all__ = ["Page", "move_copy"]

MAGIC = 0x6162726561737401
SIZE = 128


class Page:
    """One worker's page; on either side."""

    PHASE, SEQ, START, HALT, QUIET, DRAINED, LAST, OURS = 2, 3, 4, 5, 6, 7, 8, 9

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = _mapped(fd)
        self.words = memoryview(self._map).cast("Q")

    @classmethod
    def make(cls, number: int) -> Page:
        """Make one, in the parent."""
        fd = nameless_file("abreast-page")
        try:
            os.ftruncate(fd, SIZE)
            with contextlib.suppress(OSError, AttributeError):  # where it cannot be sealed: a file, or macOS
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a task that shortened it would end the parent by SIGBUS
            page = cls(fd)
        except BaseException:
            os.close(fd)
            raise
        page.words[0] = MAGIC
        page.words[1] = number
        return page

    def read(self) -> tuple[int, float, int]:
        """Return (seq, start in seconds, phase)."""
        words = self.words
        for _ in range(100):
            seq, start, phase = words[3], words[4], words[2]
            if words[3] == seq and words[4] == start:
                break
        return seq, start / 1e9, phase if phase < len(Phase.TEXTS) else 0

    def close(self) -> None:
        self.words.release()
        self._map.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def nameless_file(name: str) -> int:
    """Return a descriptor of memory without a name, or of a file that has none any more; not inherited."""
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:  # refused, as in some sandboxes
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
    import tempfile  # 4 ms, which each worker would pay that imports this file

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("pools of processes run on Linux so far")


def _mapped(fd: int) -> mmap.mmap:
    """Map the file; without a further descriptor of it, where that can be had.

    mmap keeps a copy of `fd`, the lowest that is free: in a worker 3, where tasks write that mean a file of theirs. So they would write over the page, and
    the parent would wait for ever.
    """
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, SIZE, trackfd=False)
    return mmap.mmap(fd, SIZE)


def move_copy(fd: int, least: int) -> None:
    """Before Python 3.13, in a worker that has just been started: have the copy of `fd` that mmap keeps be no copy of it any more.

    It cannot be told to be another number, and is closed by that at the end; so something harmless is put in its place.
    """
    if sys.version_info >= (3, 13):
        return
    told = os.fstat(fd)
    for copy in range(3, least):
        try:
            found = os.fstat(copy)
            if (found.st_dev, found.st_ino) == (told.st_dev, told.st_ino):
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(null, copy, inheritable=False)
                os.close(null)
                return
        except OSError:
            pass

"""One run at a time on one journal: a lock on ``<journal>-lock``, held for the whole run, freed by the kernel however its process ends.

`fcntl.lockf`, not `flock`: that one lives on in a forked child (after kill -9 of the owner it was still held). But locks of `lockf` do not exclude
runs of the same process, and closing any descriptor of the file frees them; so `_held` knows what this process has, by device and inode; `_guard` guards it::

    _guard: look into _held ─▶ open the lock file ─▶ lockf ─▶ into _held        a run of this process, or another one: JournalBusy, at once

The file says who holds it, for the error that the next one gets, and that there was a journal, so that one that has become empty is not taken for new.
It stays: to delete a file that others may be opening just now would let two of them have a lock each.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
from typing import Any, NamedTuple

from abreast.core import failpoints
from abreast.core.journal_errors import JournalBusy, JournalError
from abreast.journal.trust import open_checked

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Holder", "Lock", "holder_of"]

_held: dict[tuple[int, int], float] = {}
"""Since when this process has which lock file."""
_guard = threading.Lock()


class Holder(NamedTuple):
    """What can be told of a lock without taking it.

    Attributes:
        is_held: whether somebody has it; None if that cannot be found out: on other systems than Linux, or if the file is somebody else's.
        pid, host, since: who has it, or had it last, by what the file says; 0 and empty if it says nothing.
        uuid: of the journal that was last locked; empty if there has been none.
    """

    is_held: bool | None
    pid: int = 0
    host: str = ""
    since: float = 0.0
    uuid: str = ""


def holder_of(journal: str) -> Holder:
    """Ask who has a journal's lock. Takes it not even for an instant: a run that began just then would be refused."""
    path = f"{journal}-lock"
    with _guard:
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return Holder(False)
        since = _held.get((found.st_dev, found.st_ino))
        if since is not None:  # not opened: closing it would free the lock
            return Holder(True, os.getpid(), socket.gethostname(), since)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, AttributeError):  # those flags are POSIX's
            return Holder(None)
        try:
            is_held = _is_held(fd)
            told = _told(fd)
        finally:
            os.close(fd)
    try:
        return Holder(is_held, int(told["pid"]), str(told["host"]), float(told["since"]), str(told["uuid"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return Holder(is_held)


def _is_held(fd: int) -> bool | None:
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    layout = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return None
    return bool(struct.unpack(layout, answer)[0] != fcntl.F_UNLCK)


class Lock:
    """The lock of a journal.

    Attributes:
        uuid: of the journal that was last locked here; empty if there has been none.
    """

    def __init__(self, journal: str, *, trust: bool) -> None:
        """Lock a journal.

        Raises:
            JournalBusy: somebody else has it.
            JournalTrustError, JournalError: the lock file is not ours, or cannot be made.
        """
        self.path = f"{journal}-lock"
        self._journal = journal
        self._fd = -1
        with _guard:
            try:
                found = os.stat(self.path, follow_symlinks=False)
            except OSError:
                found = None
            if found is not None and (since := _held.get((found.st_dev, found.st_ino))) is not None:
                raise JournalBusy(journal, os.getpid(), socket.gethostname(), since)  # before it is opened: see above
            fd, _ = open_checked(self.path, trust=trust, what="lock of the journal")
            try:
                opened = os.fstat(fd)
                self._id = (opened.st_dev, opened.st_ino)
                _lock(fd, journal)
                self.uuid = str(_told(fd).get("uuid", ""))
                _held[self._id] = time.time()
                self._fd = fd
            except BaseException:
                os.close(fd)
                raise
        with contextlib.suppress(OSError):  # a full disk is told of by what comes next
            self.tell(
                self.uuid
            )  # at once: opening may take long, and who is refused meanwhile is not to be told of a run that is over

    def tell(self, uuid: str) -> None:
        """Write down who has it."""
        self.uuid = uuid
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "uuid": uuid}).encode()
        os.pwrite(self._fd, text, 0)
        if failpoints.hit is not None:
            failpoints.hit("journal.mid_tell")
        os.ftruncate(self._fd, len(text))  # last: on a full disk what was there stays

    def release(self) -> None:
        with _guard:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                _held.pop(self._id, None)
                os.close(fd)

    def forget(self) -> None:
        """In a forked child: the lock is the parent's. Closing the descriptor frees none of its locks, and the child may have its own."""
        if self._fd >= 0:
            _held.pop(self._id, None)
            os.close(self._fd)
            self._fd = -1


def after_fork() -> None:
    """In a forked child, whose other threads are gone: nobody holds the guard."""
    global _guard
    _guard = threading.Lock()


def _lock(fd: int, journal: str) -> None:
    if fcntl is None:
        import msvcrt

        try:
            os.lseek(fd, 1 << 20, os.SEEK_SET)  # behind the text, which others may then read
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # of Windows
        except OSError:
            raise _busy(fd, journal) from None
        return
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise _busy(fd, journal) from None
    except OSError as error:
        raise JournalError(f"the journal {journal!r} cannot be locked: {error.strerror}; use a path on a local disk") from error


def _busy(fd: int, journal: str) -> JournalBusy:
    told = _told(fd)
    try:
        return JournalBusy(journal, int(told.get("pid", 0)), str(told.get("host", "")), float(told.get("since", 0.0)))
    except (TypeError, ValueError):
        return JournalBusy(journal)


def _told(fd: int) -> dict[str, Any]:
    """Return what the file says; nothing if that is not whole: its writer was killed."""
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        told, _ = json.JSONDecoder().raw_decode(
            os.read(fd, 4096).decode()
        )  # its writer may have been killed before it cut off the rest
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}

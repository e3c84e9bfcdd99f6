"""A process that does nothing but fork workers, its own side: the template's (template.py) and the guardian's (guarded.py).

::

    parent (forked.py)                                FORKER: one thread, waits for the socket and for the end of the parent
      ── REQUEST [, body] + descriptors ──▶             S: fork ──▶ worker: `serve` returns there, with the request
      ◀── ANSWER [, text] + pidfd ──                    R: take the status of one that has ended; G: of one that cannot be killed, later
                                                        Q, end of the file, the parent is gone: kill all workers' groups, end

The socket is one of a pair, inherited: nothing listens, nothing has a name. One request at a time, each with one answer.

A worker that has ended stays a zombie of the forker until the parent asks for its status, so its pid cannot have been given to another
process when its group is killed, by the parent or here. The end of the parent is seen by its pidfd, in milliseconds: the end of the file can be hidden
by a child that the user has forked, which has the parent's end of the socket too. Where there is no pidfd, `getppid` is asked twice a second.

A guardian imports this at its start, which somebody waits for: `_socket`, since `socket` costs 2 ms more.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import select
import signal
import struct
from typing import NamedTuple, NoReturn

__all__ = ["ANSWER", "FDS", "REQUEST", "REQUEST_ROOM", "TEXT_ROOM", "ForkServer", "Request", "receive"]

REQUEST = struct.Struct("<cqQH")
"""What is asked: ``S`` start a worker, ``R`` reap one, ``G`` give one up, ``P`` import modules, ``Q`` quit; of which pid; bytes of the body if that is in a file, which
is the last descriptor, else 0; how many descriptors. Those that one message cannot have come before it, in messages of kind ``F``."""
ANSWER = struct.Struct("<qqq")
"""A pid, or a wait status; an errno, or `REFUSED`, why is the text; the peak memory in kB."""
REFUSED = -1
HAS_THREADS = -2
FDS = 200
"""Descriptors in one message; the kernel takes 253."""
WITHOUT_PIDFD = 500
"""Milliseconds between two looks at whether the parent is still there, where there is no pidfd."""
REQUEST_ROOM = 1 << 16
TEXT_ROOM = 1 << 14
CLOEXEC = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
INT = struct.calcsize("i")


class Request(NamedTuple):
    """What the parent asks."""

    kind: bytes
    pid: int
    body: bytes
    fds: list[int]


class _Refused(Exception):
    """It cannot be done: the number is an errno, or `REFUSED`, or `HAS_THREADS`."""

    def __init__(self, number: int, text: str = "") -> None:
        self.number = number
        self.text = text


class ForkServer:
    """The loop of a process that forks workers.

    Args:
        requests: its end of the pair.
        parent: whom it serves, and with whom it ends.

    `serve` returns in a worker; in the process itself it never does.
    """

    def __init__(self, requests: _socket.socket, parent: int) -> None:
        self.requests = requests
        self.parent = parent
        self.pid = os.getpid()
        self.workers: set[int] = set()
        self.given_up: set[int] = set()
        """Of them those that nobody asks for any more, although they have not ended: they could not be killed."""
        self.watched = -1
        self.patience: float | None = None
        """Milliseconds after which `idle` is called, if nothing is asked meanwhile."""

    # ---- what a guardian does besides

    def before_fork(self, request: Request) -> None:
        """Become what the worker is to find."""

    def idle(self) -> None:
        """Nothing was asked for a while."""

    def load(self, request: Request) -> None:
        """Import the modules that it names."""

    # ---- the loop

    def serve(self) -> Request:
        """Do what is asked; returns in each worker, with the request that it is the answer to."""
        try:
            request = self._serve()
            if request is not None:
                return request
        finally:
            if os.getpid() == self.pid:
                self._end()
        raise AssertionError

    def _serve(self) -> Request | None:
        poll = select.poll()
        poll.register(self.requests, select.POLLIN)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # refused: an old kernel, a sandbox
                self.watched = os.pidfd_open(self.parent)
                poll.register(self.watched, select.POLLIN)
        while os.getppid() == self.parent:
            is_watching = self.watched >= 0 and not self.given_up
            limits = [limit for limit in (self.patience, None if is_watching else WITHOUT_PIDFD) if limit is not None]
            ready = {fd for fd, _ in poll.poll(min(limits, default=None))}
            if self.watched in ready:
                break
            if self.requests.fileno() in ready:
                request = self._receive()
                if request is None or request.kind == b"Q":
                    break
                if self._answer(request):
                    return request
            elif self.patience is not None:
                self.patience = None
                self.idle()
            for pid in list(self.given_up):
                self._reap(pid)
        return None

    def _end(self) -> NoReturn:
        for pid in self.workers:  # none has been reaped, so the number is still its own
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def _receive(self) -> Request | None:
        """Return the next request; None if the parent has closed its end."""
        fds: list[int] = []
        while True:
            try:
                data, more = receive(self.requests, REQUEST_ROOM, FDS + 8)
            except ConnectionResetError:
                return None
            fds += more
            if len(data) < REQUEST.size:
                return None
            kind, pid, size, count = REQUEST.unpack_from(data)
            if kind != b"F":
                break
        body = data[REQUEST.size :]
        if len(fds) < count:  # the kernel leaves out what would be more than are allowed
            for fd in fds:
                os.close(fd)
            self._tell(ANSWER.pack(0, errno.EMFILE, 0))
            return Request(b"", 0, b"", [])
        while len(fds) > count:  # of a request that the parent could not send to its end
            os.close(fds.pop(0))
        if size:
            body = _read(fds.pop(), size)
        return Request(kind, pid, body, fds)

    def _tell(self, data: bytes, fd: int = -1) -> None:
        with contextlib.suppress(OSError):  # it is gone, which the next look at the socket shows
            self.requests.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))] if fd >= 0 else [])

    def _answer(self, request: Request) -> bool:
        """Do what is asked, and say what came of it; True in a worker."""
        try:
            if request.kind == b"S":
                return self._fork(request)
            if request.kind == b"R":
                self._tell(self._reap(request.pid))
            elif request.kind == b"G":
                self.given_up.add(request.pid)
                self._tell(ANSWER.pack(0, 0, 0))
            elif request.kind == b"P":
                try:
                    self.load(request)
                finally:
                    for fd in request.fds:
                        os.close(fd)
                self._tell(ANSWER.pack(0, 0, 0))
        except _Refused as refused:
            self._tell(ANSWER.pack(0, refused.number, 0) + refused.text.encode(errors="replace")[: TEXT_ROOM - ANSWER.size])
        return False

    def _fork(self, request: Request) -> bool:
        pid = -1
        try:
            self.before_fork(request)
            pid = os.fork()
        except OSError as error:
            raise _Refused(error.errno or errno.EIO) from None
        finally:
            if pid != 0:
                for fd in request.fds:
                    os.close(fd)
        if pid == 0:
            self.requests.close()
            if self.watched >= 0:
                os.close(self.watched)
            try:  # noqa: SIM105  # surroundings.put_on
                os.setpgid(0, 0)
            except OSError:
                pass
            return True
        self.workers.add(pid)
        with contextlib.suppress(OSError):  # it has done it itself, and more
            os.setpgid(pid, pid)
        pidfd = -1
        if self.watched >= 0:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
        self._tell(ANSWER.pack(pid, 0, 0), pidfd)
        if pidfd >= 0:
            os.close(pidfd)
        return False

    def _reap(self, pid: int) -> bytes:
        try:
            got, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            self._bury(pid)
            return ANSWER.pack(0, errno.ECHILD, 0)
        if not got:
            return ANSWER.pack(0, errno.EAGAIN, 0)
        self._bury(pid)
        return ANSWER.pack(status, 0, usage.ru_maxrss)

    def _bury(self, pid: int) -> None:
        self.workers.discard(pid)
        self.given_up.discard(pid)


def receive(ends: _socket.socket, size: int, fds: int) -> tuple[bytes, list[int]]:
    """Return a message and the descriptors that came along, which are not inherited. (`socket.recv_fds` cannot do that before 3.14: it drops the flag.)"""
    data, told, _, _ = ends.recvmsg(size, _socket.CMSG_SPACE(INT * fds), CLOEXEC)
    got: list[int] = []
    for level, kind, packed in told:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            got += struct.unpack(f"{len(packed) // INT}i", packed[: len(packed) // INT * INT])
    return data, got


def _read(fd: int, size: int) -> bytes:
    """Return what is in a file, and close it."""
    try:
        parts, place = [], 0
        while place < size and (part := os.pread(fd, size - place, place)):
            parts.append(part)
            place += len(part)
        return b"".join(parts)
    finally:
        os.close(fd)

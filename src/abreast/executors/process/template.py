"""Workers that are copies of this process (``mp_context="fork"``): a template, forked once, which forks them.

::

    parent ── fork, at the first submit ──▶ TEMPLATE: one thread, waits for requests ── fork ──▶ worker, copy of the template
       supervisor ── socket pair: SPAWN + descriptors, REAP pid ──▶                      ◀── pid and pidfd; status

A process must not fork once it has threads that hold locks, which the pool's own would be; and a worker that has crashed has to be replaced
when there are many. So one fork is made before the pool has a thread, in the thread of the first submit, and its child does nothing but fork.
What workers have inherited is how the parent was at that moment.

Its end: the socket is closed, or the parent is gone (pidfd), then it kills its workers and ends. It has no PR_SET_PDEATHSIG, which would
follow the thread of the first submit; workers have, and die with the template. A worker that has ended stays a zombie of the template until
the parent asks for its status, so its pid cannot have been given to another process when the group is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from abreast.executors.process.launch import Ended, Process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Template"]

REQUEST = struct.Struct("<cq")
"""What is asked, ``S`` or ``R``, and of which pid."""
ANSWER = struct.Struct("<qqq")
"""A pid, or a status and whether there is one; an errno; the peak memory in kB."""
PATIENCE = 30.0
"""Seconds that the template may take to answer."""


class Template:
    """The parent's end. To be made in the thread that submits first, before there are others; then used by the supervisor alone.

    Args:
        initializer, initargs: of the workers, which inherit them.
        fork: forks; a test may have it fail.
    """

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for stream in (sys.stdout, sys.stderr):  # or what waits in them would be written by each copy
            with contextlib.suppress(Exception):
                stream.flush()
        try:
            self.pid = os.fork()
        except BaseException:
            ours.close()
            theirs.close()
            raise
        if self.pid == 0:
            try:
                ours.close()
                _serve(theirs, initializer, initargs)
            finally:
                os._exit(1)
        theirs.close()
        ours.settimeout(PATIENCE)
        self._socket = ours

    def launch(self, number: int, *, capture: bool = False) -> Copy:
        """Start a worker."""
        return Copy(number, self, capture=capture)

    def spawn(self, fds: list[int]) -> tuple[int, int]:
        """Have a worker forked, with these descriptors; return its pid and, where there is such a thing, its pidfd, or -1."""
        socket.send_fds(self._socket, [REQUEST.pack(b"S", 0)], fds)
        data, got, _, _ = socket.recv_fds(self._socket, ANSWER.size, 1)
        if len(data) < ANSWER.size:
            raise ChildProcessError("the template of the workers has died")
        pid, error, _ = ANSWER.unpack(data)
        if error:
            raise OSError(error, os.strerror(error))
        for fd in got:
            os.set_inheritable(fd, False)
        return pid, got[0] if got else -1

    def reap(self, pid: int) -> tuple[int, int] | None:
        """Return the wait status and the peak memory in kB of a worker that has ended; None if it has not, or that is not known."""
        try:
            self._socket.send(REQUEST.pack(b"R", pid))
            data = self._socket.recv(ANSWER.size)
        except OSError:
            return None
        if len(data) < ANSWER.size:
            return None
        status, error, peak = ANSWER.unpack(data)
        return None if error else (status, peak)

    def close(self) -> None:
        """End the template, and what it has started."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):  # reaped by somebody else
            os.waitpid(self.pid, 0)

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._socket.close()


class Copy(Process):
    """One worker's process, forked by the template; as the parent has it."""

    def __init__(self, number: int, template: Template, *, capture: bool = False) -> None:
        self._template = template
        self._has_ended = False
        super().__init__(number, capture=capture)

    def _run(self, given: list[int]) -> None:
        self.pid, self.pidfd = self._template.spawn(given)

    def _is_reaped(self) -> bool:
        return self._has_ended

    def has_ended(self) -> bool:
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] in b"ZX"
        except (OSError, IndexError):
            return True

    def reap(self) -> Ended:
        told = self._template.reap(self.pid)
        self._has_ended = True
        if told is None:
            return Ended(None, 0)
        status, peak = told
        self.exitcode = os.waitstatus_to_exitcode(status)
        return Ended(self.exitcode, peak)

    def _note(self, code: int | None) -> None:
        self._has_ended = True
        if code is not None:
            self.exitcode = code


# ---- the template's side


def _serve(requests: socket.socket, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> NoReturn:
    _become_quiet()
    parent = os.getppid()
    workers: set[int] = set()
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    watched = -1
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            watched = os.pidfd_open(parent)
            poll.register(watched, select.POLLIN)
    try:
        while True:
            ready = {fd for fd, _ in poll.poll(1000)}
            if watched in ready or os.getppid() != parent:
                break
            if requests.fileno() in ready and not _answer(requests, workers, watched, initializer, initargs):
                break
    finally:
        for pid in workers:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)


def _become_quiet() -> None:
    """Have nothing of the parent's act here: its signal handlers, its terminal's signals."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # those that cannot be handled
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)


def _answer(
    requests: socket.socket,
    workers: set[int],
    watched: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> bool:
    """Do what the parent asks; False if it has closed its end."""
    data, fds, _, _ = socket.recv_fds(requests, REQUEST.size, 8)
    if len(data) < REQUEST.size:
        return False
    kind, of = REQUEST.unpack(data)
    if kind == b"R":
        requests.send(_reap(of, workers))
        return True
    try:
        pid = os.fork()
    except OSError as error:
        requests.send(ANSWER.pack(0, error.errno or 1, 0))
        pid = -1
    if pid == 0:
        requests.close()
        if watched >= 0:
            os.close(watched)
        _work(fds, initializer, initargs)
    for fd in fds:
        os.close(fd)
    if pid > 0:
        workers.add(pid)
        with contextlib.suppress(OSError):  # it has done it itself, and more
            os.setpgid(pid, pid)
        pidfd = -1
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
        socket.send_fds(requests, [ANSWER.pack(pid, 0, 0)], [pidfd] if pidfd >= 0 else [])
        if pidfd >= 0:
            os.close(pidfd)
    return True


def _reap(pid: int, workers: set[int]) -> bytes:
    try:
        got, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        workers.discard(pid)
        return ANSWER.pack(0, 1, 0)
    if not got:
        return ANSWER.pack(0, 1, 0)
    workers.discard(pid)
    return ANSWER.pack(status, 0, usage.ru_maxrss)


def _work(fds: list[int], initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> NoReturn:
    from abreast.executors.process import worker

    code = 1
    try:
        template = os.getppid()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        if len(fds) > 4:
            os.dup2(fds[4], 1)
            os.dup2(fds[5], 2)
            os.close(fds[4])
            os.close(fds[5])
        worker.main(fds[0], fds[1], fds[2], fds[3], template, inherited=(initializer, initargs))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        # As multiprocessing ends its forked children: what the parent has registered with atexit is the parent's.
        util = sys.modules.get("multiprocessing.util")
        with contextlib.suppress(BaseException):
            if util is not None:
                util._exit_function()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(code)

"""Workers that are copies of this process (``mp_context="fork"``): a template, forked once, which forks them.

::

    parent ── fork, at the first submit ──▶ TEMPLATE: one thread, waits for requests ── fork ──▶ worker, copy of the template
       supervisor ── socket pair: SPAWN + descriptors, REAP pid ──▶                      ◀── pid and pidfd; status

A process must not fork once it has threads that hold locks, which the pool's own would be; and a worker that has crashed has to be replaced
when there are many. So one fork is made before the pool has a thread, in the thread of the first submit, and its child does nothing but fork.
What workers have inherited is how the parent was at that moment.

Its end: the parent says so, or the socket is closed, or the parent is gone (pidfd): then it kills its workers and ends. It has no
PR_SET_PDEATHSIG, which would follow the thread of the first submit; workers have, and die with the template; after that none can be started.
Nothing of the user's acts in it: signals are blocked until their handlers are gone, and what is garbage of the parent's is not collected here,
where its finalizers would run once more. A worker that has ended stays a zombie of the template until
the parent asks for its status, so its pid cannot have been given to another process when the group is killed.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import select
import signal
import socket
import struct
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from abreast.executors.process.launch import Ended, Process

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Sequence

    from abreast.executors.process.sending import Common

__all__ = ["Template"]

REQUEST = struct.Struct("<cq")
"""What is asked, and of which pid: ``S`` start a worker, ``R`` reap one, ``Q`` quit."""
ANSWER = struct.Struct("<qqq")
"""A pid, or a status and whether there is one; an errno; the peak memory in kB."""
PATIENCE = 30.0
"""Seconds that the template may take to answer; it needs milliseconds, unless the process is huge, or somebody has stopped it."""
LAST_PATIENCE = 5.0
"""Seconds that it may take to end; then it is killed."""
CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Template:
    """The parent's end. To be made in the thread that submits first, before there are others; then used by the supervisor alone.

    Args:
        initializer, initargs: of the workers, which inherit them.
        common: what workers have by name, since they inherit the main script (by_value.py).
    """

    def __init__(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], common: Common | None = None
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._pidfd = -1
        for stream in (sys.stdout, sys.stderr):  # or what waits in them would be written by each copy
            with contextlib.suppress(Exception):
                stream.flush()
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                try:
                    ours.close()
                    _become_quiet()
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                    _serve(_Inherited(parent, theirs, initializer, initargs, common))
                finally:
                    os._exit(1)
            if hasattr(os, "pidfd_open"):
                with contextlib.suppress(OSError):
                    self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        ours.settimeout(PATIENCE)

    def launch(self, number: int, *, capture: bool = False) -> Copy:
        """Start a worker.

        Raises:
            OSError: the limit of processes is reached, or the template has died.
        """
        return Copy(number, self, capture=capture)

    def spawn(self, fds: list[int]) -> tuple[int, int]:
        """Have a worker forked, with these descriptors; return its pid and, where there is such a thing, its pidfd, or -1."""
        data, got = self._ask(b"S", 0, fds)
        pid, error, _ = ANSWER.unpack(data)
        if error:
            raise OSError(error, os.strerror(error))
        return pid, got[0] if got else -1

    def reap(self, pid: int) -> tuple[int, int] | None:
        """Return the wait status and the peak memory in kB of a worker that has ended; None if it has not, or that is not known."""
        try:
            data, _ = self._ask(b"R", pid)
        except OSError:
            return None
        status, error, peak = ANSWER.unpack(data)
        return None if error else (status, peak)

    def _ask(self, what: bytes, pid: int, fds: Sequence[int] = ()) -> tuple[bytes, list[int]]:
        try:
            socket.send_fds(self._socket, [REQUEST.pack(what, pid)], fds)
            data, got, _, _ = socket.recv_fds(self._socket, ANSWER.size, 1, CLOEXEC)
        except OSError as error:
            self._socket.close()  # an answer that came later would be taken for that to the next question
            raise ChildProcessError(f"the process that forks the workers does not answer any more ({error})") from error
        if len(data) < ANSWER.size:
            raise ChildProcessError("the process that forks the workers has died")
        return data, got

    def close(self) -> None:
        """End the template, and what it has started."""
        with contextlib.suppress(OSError):  # it is gone, or stopped
            self._socket.send(REQUEST.pack(b"Q", 0), socket.MSG_DONTWAIT)
        self._socket.close()
        deadline = monotonic() + LAST_PATIENCE
        try:
            poll = select.poll()
            if self._pidfd >= 0:
                poll.register(self._pidfd, select.POLLIN)
            while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if monotonic() > deadline:
                    os.kill(self.pid, signal.SIGKILL)
                    break
                poll.poll(1000 * max(0.001, deadline - monotonic()) if self._pidfd >= 0 else 5)
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # reaped by somebody else
            pass
        finally:
            self.forget()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._socket.close()
        fd, self._pidfd = self._pidfd, -1
        if fd >= 0:
            os.close(fd)


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


class _Inherited(NamedTuple):
    """What the template and its workers have of the parent."""

    parent: int
    requests: socket.socket
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    common: Common | None


def _become_quiet() -> None:
    """Have nothing of the parent's act here: its signal handlers, its terminal's signals, its garbage."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # those that cannot be handled
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, no status would be left to be taken
    gc.freeze()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)


def _serve(inherited: _Inherited) -> NoReturn:
    requests = inherited.requests
    workers: set[int] = set()
    watched = -1
    try:
        with contextlib.suppress(ImportError):
            import ctypes  # noqa: F401  # what every worker needs, once for all
        poll = select.poll()
        poll.register(requests, select.POLLIN)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                watched = os.pidfd_open(inherited.parent)
                poll.register(watched, select.POLLIN)
        while os.getppid() == inherited.parent:
            ready = {fd for fd, _ in poll.poll(None if watched >= 0 else 1000)}
            if watched in ready:
                break
            if requests.fileno() in ready and not _answer(inherited, workers, watched):
                break
    finally:
        for pid in workers:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)


def _answer(inherited: _Inherited, workers: set[int], watched: int) -> bool:
    """Do what the parent asks; False if it says that this is the end, or has closed its end."""
    requests = inherited.requests
    data, fds, _, _ = socket.recv_fds(requests, REQUEST.size, 8, CLOEXEC)
    if len(data) < REQUEST.size:
        return False
    kind, of = REQUEST.unpack(data)
    if kind == b"R":
        requests.send(_reap(of, workers))
        return True
    if kind != b"S":
        return False
    template = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        requests.send(ANSWER.pack(0, error.errno or 1, 0))
        pid = -1
    if pid == 0:
        try:
            requests.close()
            if watched >= 0:
                os.close(watched)
            _work(inherited, template, fds)
        finally:
            os._exit(1)
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


# ---- the worker's side


def _work(inherited: _Inherited, template: int, fds: list[int]) -> NoReturn:
    from abreast.core.current import here
    from abreast.executors.process import contexts, namespace, sending, worker

    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        _own_streams(fds[4:])
        here.running = None  # the first submit was perhaps a task's
        contexts.parent = inherited.parent
        sending.common = inherited.common
        namespace.watch_main(vars(sys.modules["__main__"]))
        _forget_multiprocessing()
        worker.main(fds[0], fds[1], fds[2], fds[3], template, inherited=(inherited.initializer, inherited.initargs))
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


def _own_streams(output: list[int]) -> None:
    """Have stdin read nothing; and where output is captured, have it written there, even if the parent's streams are stand-ins."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # stays open
    if not output:
        return
    for fd, theirs in enumerate(output, 1):
        os.dup2(theirs, fd)
        os.close(theirs)
    sys.stdout = _stream(1, sys.stdout, "strict")
    sys.stderr = _stream(2, sys.stderr, "backslashreplace")


def _stream(fd: int, like: Any, errors: str) -> io.TextIOWrapper:
    encoding = getattr(like, "encoding", None) or "utf-8"
    return open(fd, "w", encoding=encoding, errors=errors, buffering=1, closefd=False)


def _forget_multiprocessing() -> None:
    """As multiprocessing does in its forked children: finalizers and children are the parent's, which would otherwise be ended here."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children = set()
        process._process_counter = itertools.count(1)
        current = process._current_process
        current._identity = ()
        current._config = {name: value for name, value in current._config.items() if name != "daemon"}
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()

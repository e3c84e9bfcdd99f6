"""Starting a worker's process, and signals to it. This file and forked.py, forking.py, guardian.py, template.py know pids, others do not.

A worker here is a fresh interpreter (spawn): nothing is shared with the parent but four descriptors, and the parent's script is not run
again. It has a process group of its own, which keeps the terminal's Ctrl-C away, and which is killed as a whole: what a task has
started goes with it. Signals go to the process by its pidfd, so never to another one with the same pid; the group is killed
before the process is reaped, so its number cannot have been given to another one either.

It is started by the supervisor's thread, since PR_SET_PDEATHSIG follows the *thread* that started the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from abreast.executors.process.page import Page, nameless_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Ended", "Process", "dump_signal", "start_interpreter"]

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BEGIN = "import sys; sys.path.insert(0, sys.argv[1]); from abreast.executors.process.worker import main; main(*map(int, sys.argv[2:]))"
PIPE_SIZE = 1 << 18


def dump_signal() -> int:
    """Return the signal that has a worker write down its stacks."""
    return int(getattr(signal, "SIGRTMIN", signal.SIGUSR2)) + (3 if hasattr(signal, "SIGRTMIN") else 0)


class Ended(NamedTuple):
    """How it ended, as far as is known: somebody else may have reaped it. Peak memory in kB."""

    status: int | None
    peak: int


class Process:
    """One worker's process, its pipes and its page, as the parent has them.

    Args:
        number: of the worker.
        capture: whether what it prints is to be read here, from `out_fd` and `err_fd`.
        fds: descriptors of the user's that it is to have, under their own numbers.
        tracker: descriptor of multiprocessing's resource tracker.

    It has what processes of multiprocessing have and clients use: `join`, `is_alive`, `terminate`, `kill`, `exitcode`, `pid`.
    """

    def __init__(self, number: int, *, capture: bool = False, fds: Sequence[int] = (), tracker: int | None = None) -> None:
        self.number = number
        self.pid = 0
        self.pidfd = -1
        self.task_fd = self.result_fd = self.stack_fd = self.out_fd = self.err_fd = -1
        self.page: Page | None = None
        self.exitcode: int | None = None
        """As `multiprocessing.Process.exitcode`; None until it has been reaped."""
        self.hint = ""
        """Why it may have ended, if that is known here."""
        self._inherits = [*fds, *(() if tracker is None else (tracker,))]
        self._tracker = tracker
        self._popen: subprocess.Popen[bytes] | None = None
        try:
            self._start(number, capture)
        except BaseException:
            self.close()
            raise

    def _start(self, number: int, capture: bool) -> None:
        self.page = Page.make(number)
        self.stack_fd = nameless_file("abreast-stack")
        theirs: list[int] = []
        try:
            task_read, self.task_fd = os.pipe()
            theirs.append(task_read)
            self.result_fd, result_write = os.pipe()
            theirs.append(result_write)
            for fd in (self.task_fd, self.result_fd):
                _enlarge(fd)
            given = [task_read, result_write, self.page.fd, self.stack_fd]
            if capture:
                self.out_fd, out_write = os.pipe()
                theirs.append(out_write)
                self.err_fd, err_write = os.pipe()
                theirs.append(err_write)
                given += (out_write, err_write)
            for fd in (self.task_fd, self.result_fd, self.out_fd, self.err_fd):
                if fd >= 0:
                    os.set_blocking(fd, False)
            self._run(given)
        finally:
            for fd in theirs:
                os.close(fd)
        if self.pidfd < 0 and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an old kernel, a sandbox: then its end is looked for now and then
                self.pidfd = os.pidfd_open(self.pid)

    def _run(self, given: list[int]) -> None:
        """Start the process with these descriptors: task pipe, result pipe, page, stack, and perhaps its output's."""
        fds, output = given[:4], given[4:]
        self._popen = start_interpreter(BEGIN, fds, self._inherits, output)
        self.pid = self._popen.pid

    # ---- signals

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0 and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.pid and not self._is_reaped():
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and all of its group."""
        self.signal(signal.SIGKILL)
        self.kill_group()

    def kill_group(self) -> None:
        """Kill what its tasks have started. To be called before it is reaped, when the group's number is still its own."""
        if self.pid and not self._is_reaped():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def is_stopped(self) -> bool:
        """Whether it stands still after SIGSTOP, or is gone."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] in b"TtZX"
        except (OSError, IndexError):
            return True

    # ---- the end

    def _is_reaped(self) -> bool:
        return self._popen is None or self._popen.returncode is not None

    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._is_reaped() and not self.has_ended()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended, `timeout` seconds at most."""
        deadline = None if timeout is None else monotonic() + timeout
        while self.is_alive() and (deadline is None or monotonic() < deadline):
            Event().wait(0.001)

    def has_ended(self) -> bool:
        """Whether the process has ended; it is not reaped by this."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # reaped by somebody else, or SIGCHLD is ignored
            return not os.path.exists(f"/proc/{self.pid}")

    def reap(self) -> Ended:
        """Take its status. To be called when it has ended."""
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            self._note(None)
            return Ended(None, 0)
        if not pid:
            return Ended(None, 0)
        code = os.waitstatus_to_exitcode(status)
        self._note(code)
        return Ended(code, usage.ru_maxrss)

    def end(self, *, within: float) -> None:
        """Wait so many seconds at most until the process, which has been killed, is gone; take its status, and close all."""
        deadline = monotonic() + within
        while not self.has_ended() and monotonic() < deadline:
            Event().wait(0.001)
        if self.reap().status is None:
            self._note(None)
        self.close()

    def _note(self, code: int | None) -> None:
        """It is reaped; None is not known by whom."""
        self.exitcode = code
        if self._popen is not None:
            self._popen.returncode = code or 0  # or Popen would wait for it in its destructor, and warn

    def stack(self) -> str:
        """Return what faulthandler has written."""
        try:
            size = os.fstat(self.stack_fd).st_size
            return os.pread(self.stack_fd, min(size, 1 << 16), 0).decode(errors="replace").strip("\0")
        except OSError:
            return ""

    def forget(self) -> None:
        """In a forked child: close what is the parent's, and wait for nothing."""
        self._note(None)
        self.close()

    def close(self) -> None:
        """Close all descriptors."""
        for name in ("task_fd", "result_fd", "stack_fd", "out_fd", "err_fd", "pidfd"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)
        if self.page is not None:
            self.page.close()
            self.page = None


def start_interpreter(begin: str, fds: Sequence[int], inherits: Sequence[int], output: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start this very interpreter with the same options, in a group of its own; `begin` is told where we are, the descriptors, and our pid.

    Args:
        begin: the code that it runs.
        fds, inherits: descriptors that it has, under their own numbers; the first are told.
        output: its stdout and stderr; none are ours.
    """
    return subprocess.Popen(
        [sys.executable, *_flags(), "-c", begin, HOME, *map(str, fds), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=output[0] if output else None,
        stderr=output[1] if output else None,
        pass_fds=(*fds, *inherits),
        process_group=0,
    )


def _flags() -> list[str]:
    """Return the options that this interpreter was started with: -O, -W, -X and so on."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]  # private; what multiprocessing itself uses


def _enlarge(fd: int) -> None:
    if hasattr(os, "pipe") and sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # beyond what this user may have
            fcntl.fcntl(fd, 1031, PIPE_SIZE)  # F_SETPIPE_SZ, which fcntl names from 3.10 on, on some platforms

"""The `multiprocessing.Process` objects of a `TaskGroup`: one thread waits for the end of all, and ends them when the group does.

::

    start(process): the caller's thread ── process.start() ──▶ process ── pidfd, sentinel ─┐
                                                                                           ▼
    ask(), leave() ── pipe ───────────────────────────────────────────────▶ thread: exit code into the future, the group is told
                                                                            SIGTERM when they are asked to end, SIGKILL later

Which lock guards what
    `_lock` of a `ProcessWatch` guards its members and what it is asked for; nothing is called under it. It is re-entrant, for a signal
    handler that cancels the group.
    `_polling` is held while a process is started or asked for its exit code: ``Process.start`` asks all processes for theirs, and
    two that read that of a fork server's process at once get a wrong one.

A process has ended when its exit code is known. The sentinel alone does not say so: what the process has started may hold it open, or
the process itself may have closed it.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from multiprocessing.connection import Pipe, wait
from time import monotonic
from typing import TYPE_CHECKING, Any

from abreast.core.current import locked
from abreast.core.interrupts import Held
from abreast.core.process_errors import WorkerCrashed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from typing import TypeAlias

    from abreast.core.future import Future

    Settled: TypeAlias = Callable[[Future[None], BaseException | None], object]

__all__ = ["ProcessWatch"]

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL when the group is cancelled."""
LAST_GRACE = 0.5
"""The same when the block is left by a timeout or Ctrl-C."""
REAPED = 1.0
"""Seconds after the end of a process until its exit code is given up: somebody else has taken it."""
LOOK = 0.01
LOOK_WITHOUT_PIDFD = 0.2

_NEVER = float("inf")
_polling = threading.RLock()
if hasattr(os, "register_at_fork"):  # the thread that forks holds it
    os.register_at_fork(after_in_child=_polling._at_fork_reinit)  # type: ignore[attr-defined]  # what threading itself uses


class _Member:
    """One process. What is here belongs to the thread of the watch, once the process has started."""

    def __init__(self, process: BaseProcess, future: Future[None], settled: Settled) -> None:
        self.process = process
        self.future = future
        self.settled = settled
        self.pid = 0
        self.pidfd = -1
        self.fds: list[int] = []
        self.begun = monotonic()
        self.fresh = True
        """Whether nobody has asked for its exit code yet."""
        self.gone_at = _NEVER
        self.kill_at = _NEVER
        self.terminated = self.killed = False

    def start(self) -> None:
        try:
            _polling.acquire()
            self.process.start()
        finally:
            try:  # noqa: SIM105  # as in core/current.py, locked
                _polling.release()
            except RuntimeError:
                pass

    def open(self) -> None:
        """It has been started."""
        self.pid = self.process.ident or 0
        self.fds = [self.process.sentinel]
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # an old kernel; or it has ended, and another thread has asked for its exit code
                self.pidfd = os.pidfd_open(self.pid)
                self.fds.append(self.pidfd)

    def heed(self, now: float, *, asked: bool, latest: float) -> None:
        """Send what signals are due."""
        with suppress(OSError, ValueError):  # it has ended; its user has closed it
            if asked and not self.terminated:
                self.terminated = True
                self.kill_at = now + GRACE
                self.process.terminate()
        self.kill_at = min(self.kill_at, latest)
        if self.kill_at <= now and not self.killed:
            self.kill()

    def kill(self) -> None:
        self.killed = True
        self.kill_at = _NEVER
        with suppress(OSError, ValueError):
            self.process.kill()

    def next_look(self, now: float) -> float:
        if self.fresh:
            return 0.0
        looks = LOOK if self.gone_at < _NEVER else LOOK_WITHOUT_PIDFD if self.pidfd < 0 else _NEVER
        return min(looks, _NEVER if self.killed else max(0.0, self.kill_at - now))

    def has_ended(self, ready: Collection[Any], now: float) -> bool:
        """Whether it has ended, as far as the descriptors that are ready show; its exit code has been taken then, if there is one."""
        seen = [fd for fd in self.fds if fd in ready]
        if not (seen or self.fresh or self.gone_at < _NEVER or self.pidfd < 0):
            return False
        self.fresh = False
        if self._exit_code() is not None:
            return True
        for fd in seen:  # it stays ready: not to be waited for again
            self.fds.remove(fd)
        if self.gone_at == _NEVER and (self.pidfd in seen if self.pidfd >= 0 else not _exists(self.pid)):
            self.gone_at = now
        return now - self.gone_at > REAPED

    def _exit_code(self) -> int | None:
        with _polling:
            try:
                code = self.process.exitcode
                if code is not None:
                    self.process.join()  # returns at once; off the list of multiprocessing.active_children()
            except ValueError:  # closed by its user, who has joined it
                self.gone_at = -_NEVER
                return None
            return code

    def publish(self) -> None:
        """Give the outcome to the future, and tell the group."""
        self.close()
        error = self._error()
        try:
            if self.future._publish(None, error):
                self.future._invoke_callbacks(BaseException)
        finally:
            self.settled(self.future, error)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _error(self) -> BaseException | None:
        code: int | None = None
        with suppress(ValueError):
            code = self.process.exitcode
        name = self.process.name
        if code == 0:
            return None
        if (self.terminated and code in (-signal.SIGTERM, 128 + signal.SIGTERM)) or (self.killed and code == -signal.SIGKILL):
            return CancelledError(f"{name} (pid {self.pid}) was {'killed' if self.killed else 'terminated'} with its TaskGroup")
        named = ""
        if code is not None and code < 0:
            with suppress(ValueError):  # a signal without a name
                named = signal.Signals(-code).name
        hint = "an error's traceback has gone to its standard error" if code == 1 else ""
        return WorkerCrashed(name, None, "its process", self.pid, code, named, "", monotonic() - self.begun, "", hint)


class ProcessWatch:
    """Waits for processes, in a thread of its own that begins with the first.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()
        self._members: dict[_Member, None] = {}
        self._thread: threading.Thread | None = None
        self._pipe: tuple[Connection[Any, Any], Connection[Any, Any]] | None = None
        self._woken = False
        self._asked = self._closed = False
        self._latest = _NEVER
        """When what still runs is killed."""

    # ---- in the threads of the group's users

    def start(self, process: BaseProcess, future: Future[None], settled: Settled) -> None:
        """Start a process in this thread; `settled` is called with the future and its error when it has ended.

        Raises:
            BaseException: what ``process.start()`` raised; it has not started then. KeyboardInterrupt is raised when it has, and is watched.
        """
        member = _Member(process, future, settled)
        # Ctrl-C between the fork and the line in which `process` learns of it would leave a child that nobody knows.
        with Held():
            try:
                member.start()
            finally:
                if process.ident is not None:
                    member.open()
                    self._keep(member)
            try:
                self._serve()
            except BaseException:
                if self._thread is None:  # there is no thread to watch it: nobody would end it
                    self._drop(member)
                    member.kill()
                    process.join()
                    member.close()
                raise

    @locked
    def _keep(self, member: _Member) -> None:
        self._members[member] = None

    @locked
    def _drop(self, member: _Member) -> None:
        self._members.pop(member, None)

    @locked
    def _serve(self) -> None:
        if self._pipe is None:
            self._pipe = Pipe(duplex=False)
        if self._thread is None:
            self._thread = thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            finally:
                if thread.ident is None:
                    self._thread = None
        self._wake()

    @locked
    def _wake(self) -> None:
        if self._pipe is not None and not self._woken:
            self._woken = True
            self._pipe[1].send_bytes(b"!")

    @locked
    def ask(self) -> None:
        """Have all processes, and those that come later, end: SIGTERM, and SIGKILL when they do not."""
        self._asked = True
        self._wake()

    def close(self) -> None:
        """Nothing more comes. Wait until all have ended."""
        self._close(_NEVER)
        if self._thread is not None:
            self._thread.join()

    def leave(self) -> None:
        """End all processes, by force after `LAST_GRACE`; wait for that, but not for callbacks, in which the user may block."""
        self._close(monotonic() + LAST_GRACE)
        try:
            if self._thread is not None:
                self._thread.join(LAST_GRACE + 0.5)
        finally:
            for member in self._all():
                member.kill()

    @locked
    def _close(self, latest: float) -> None:
        self._closed = True
        self._latest = latest
        self._asked |= latest < _NEVER
        self._wake()

    @locked
    def _all(self) -> list[_Member]:
        return list(self._members)

    # ---- its thread

    def _run(self) -> None:
        ready: Collection[Any] = ()
        while (todo := self._todo()) is not None:
            waits, limit = todo
            del todo
            ready = wait(waits, None if limit == _NEVER else limit)
            self._heard(ready)
            for member in self._all():
                if member.has_ended(ready, monotonic()):
                    self._drop(member)
                    member.publish()
                del member

    @locked
    def _todo(self) -> tuple[list[Any], float] | None:
        """Send the signals that are due; return what to wait for, and how long. None if nothing is left to come."""
        assert self._pipe is not None
        if self._closed and not self._members:
            for end in self._pipe:
                end.close()
            self._pipe = None
            return None
        now, limit = monotonic(), _NEVER
        waits: list[Any] = [self._pipe[0]]
        for member in self._members:
            member.heed(now, asked=self._asked, latest=self._latest)
            waits += member.fds
            limit = min(limit, member.next_look(now))
        return waits, limit

    @locked
    def _heard(self, ready: Collection[Any]) -> None:
        if self._pipe is not None and self._pipe[0] in ready:
            self._pipe[0].recv_bytes()
            self._woken = False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

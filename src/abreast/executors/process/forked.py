"""Workers that another process forks for this one, and that process as this one has it: a template or a guardian.

::

    supervisor of a pool ─┐                              ┌─ SPAWN + descriptors ─▶            ─ fork ─▶ worker
    supervisor of another ┴─▶ Forker._ask, under _lock ──┴─ REAP pid ────────────▶  (forking.py)

`_lock` guards the socket, for one request and its answer: supervisors of several pools ask the same guardian. In a forked child the
whole object is dropped (`forget`), so nobody asks for the lock there.

While the forker lives, a pid that has not been reaped through it is the worker's. When it has died its children belong to init, which reaps them at once: then
a number is believed only of a process that is shown to be the worker, or in its group and our session.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from abreast.executors.process.forking import ANSWER, FDS, HAS_THREADS, REQUEST, REQUEST_ROOM, TEXT_ROOM, receive
from abreast.executors.process.launch import Ended, Process
from abreast.executors.process.page import nameless_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CannotStart", "Forked", "Forker", "ForkerDied", "HasThreads"]

PATIENCE = 30.0
"""Seconds that it may take to answer; it needs milliseconds, unless the process is huge, or somebody has stopped it."""
LAST_PATIENCE = 5.0
"""Seconds that it may take to end; then it is killed."""
STATUS_PATIENCE = 0.5
"""Seconds until the status of a process that has ended can be taken: where there is no pidfd it may seem to have ended a moment too early."""


class CannotStart(ChildProcessError):
    """No worker can be started; `final` if it makes no sense to try again."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class HasThreads(CannotStart):
    """It will not fork, since it has threads that nobody has asked for."""


class ForkerDied(CannotStart):
    """It does not answer any more."""


class _NotSent(Exception):
    """The request could not be sent."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class Forker:
    """A process that forks workers, as the parent has it.

    Args:
        ours: this end of the pair of sockets.
        what: its name in errors.
    """

    def __init__(self, ours: socket.socket, what: str) -> None:
        self.pid = 0
        self.what = what
        self.has_died = False
        """Whether it is known to be dead, and was not told to end."""
        self.has_forked = False
        self._socket = ours
        self._lock = threading.Lock()
        self._is_mine = True
        self._is_closing = False

    # ---- what is asked

    def spawn(self, fds: Sequence[int], body: bytes = b"") -> tuple[int, int]:
        """Have a worker forked, with these descriptors; return its pid and, where there is such a thing, its pidfd, or -1.

        Raises:
            OSError: the limit of processes is reached, or it has died.
        """
        pid, _, got = self.ask(b"S", body=body, fds=fds)
        self.has_forked = True
        return pid, got

    def reap(self, pid: int) -> tuple[int, int] | None:
        """Return the wait status and the peak memory in kB of a worker that has ended; None if that is not known."""
        deadline = monotonic() + STATUS_PATIENCE
        while True:
            try:
                status, peak, _ = self.ask(b"R", pid)
            except BlockingIOError:  # EAGAIN: it has not ended yet
                if monotonic() > deadline:
                    return None
                sleep(0.001)
            except OSError:
                return None
            else:
                return status, peak

    def give_up(self, pid: int) -> None:
        """Nobody will ask for the status of this worker, which cannot be killed."""
        with contextlib.suppress(OSError):
            self.ask(b"G", pid)

    def ask(
        self, kind: bytes, pid: int = 0, *, body: bytes = b"", fds: Sequence[int] = (), patience: float | None = None
    ) -> tuple[int, int, int]:
        """Ask for something; return the number that it answers, the peak memory, and the descriptor that came along, or -1.

        Raises:
            OSError: it cannot be done.
            ForkerDied: it does not answer any more.
        """
        file = -1
        if len(body) > REQUEST_ROOM - REQUEST.size:
            file = nameless_file("abreast-request")
        try:
            size = 0
            if file >= 0:
                size = _write(file, body)
                fds, body = [*fds, file], b""
            with self._lock:
                if self._socket.fileno() < 0:
                    raise ForkerDied(self.obituary())
                try:
                    data, told = self._exchange(REQUEST.pack(kind, pid, size, len(fds)) + body, fds, patience or PATIENCE)
                except _NotSent as not_sent:
                    raise not_sent.error from None
                except OSError as error:
                    self._socket.close()  # an answer that came later would be taken for that to the next question
                    self.has_died = True
                    self._kill()
                    if isinstance(error, ConnectionError):
                        raise ForkerDied(self.obituary()) from error
                    raise ForkerDied(f"{self.what} does not answer any more ({error.strerror or error})") from error
                if len(data) < ANSWER.size:
                    self._socket.close()
                    self.has_died = True
                    raise ForkerDied(self.obituary())
        finally:
            if file >= 0:
                os.close(file)
        number, refused, peak = ANSWER.unpack_from(data)
        got = told[0] if told else -1
        if refused == HAS_THREADS:
            raise HasThreads(data[ANSWER.size :].decode(errors="replace"))
        if refused < 0:
            raise CannotStart(data[ANSWER.size :].decode(errors="replace"), final=True)
        if refused:
            raise OSError(refused, os.strerror(refused))
        return number, peak, got

    def _exchange(self, message: bytes, fds: Sequence[int], patience: float) -> tuple[bytes, list[int]]:
        self._socket.settimeout(patience)
        fds = list(fds)
        try:
            while len(fds) > FDS:
                part, fds = fds[:FDS], fds[FDS:]
                socket.send_fds(self._socket, [REQUEST.pack(b"F", 0, 0, 0)], part)
            socket.send_fds(self._socket, [message], fds)
        except (ConnectionError, TimeoutError):
            raise
        except (
            OSError
        ) as error:  # one of the descriptors is closed, or too many are on their way: nothing is wrong with the other end
            raise _NotSent(error) from error
        return receive(self._socket, TEXT_ROOM, 1)

    def obituary(self) -> str:
        """Return what is to be said when it turns out to be dead."""
        return f"{self.what} has died"

    # ---- its life and end

    def is_there(self) -> bool:
        """Whether it lives, as far as its end of the socket shows."""
        if self.has_died or self._socket.fileno() < 0:
            return False
        poll = select.poll()
        try:
            poll.register(self._socket, 0)
            if not poll.poll(0):
                return True
        except (OSError, ValueError):  # closed meanwhile
            return False
        self.has_died = not self._is_closing
        return False

    def is_left(self) -> None:
        """One of its workers has been reaped."""

    def close(self) -> None:
        """End it, and what it has started."""
        if not self._is_mine or self._is_closing:
            return
        self.is_there()  # or it is not known any more that it died
        self._is_closing = True
        with contextlib.suppress(OSError):  # it is gone, or stopped
            self._socket.send(REQUEST.pack(b"Q", 0, 0, 0), socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError, ValueError):
            self._socket.shutdown(socket.SHUT_WR)
            poll = select.poll()
            poll.register(self._socket, 0)
            if not poll.poll(1000 * LAST_PATIENCE):  # the end of its end
                self._kill()
        is_held = self._lock.acquire(timeout=LAST_PATIENCE)  # somebody may just be finding out that it is dead
        self._socket.close()
        if is_held:
            self._lock.release()
        self._bury()
        self.forget()

    def _kill(self) -> None:
        """Kill it, whatever it is at."""
        with contextlib.suppress(OSError):
            if self.pid and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(self.pid, signal.SIGKILL)  # our child, not reaped: the number is its own

    def _bury(self) -> None:
        """Take its status, when it has ended or been killed."""
        with contextlib.suppress(ChildProcessError):  # reaped by somebody else
            if self.pid:
                os.waitpid(self.pid, 0)

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._is_mine = False
        self._socket.close()


class Forked(Process):
    """One worker's process that has been forked by a `Forker`; as the parent has it."""

    def __init__(self, number: int, forker: Forker, *, capture: bool = False, **more: Any) -> None:
        self._forker = forker
        self._has_ended = False
        self._born = ""
        super().__init__(number, capture=capture, **more)

    def _run(self, given: list[int]) -> None:
        self.pid, self.pidfd = self._spawn(given)
        self._born = _born(self.pid) if self.pidfd < 0 else ""

    def _spawn(self, given: list[int]) -> tuple[int, int]:
        return self._forker.spawn(given)

    def _is_reaped(self) -> bool:
        # Without its parent it is reaped as it ends; its number may be another process's then. (A pidfd is never.)
        return self._has_ended or (not self._forker.is_there() and self.has_ended())

    def has_ended(self) -> bool:
        if self.pidfd >= 0:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            return bool(poll.poll(0))
        stat = _stat(self.pid)
        return not stat or stat[0] in "ZX" or stat[19] != self._born

    def kill_group(self) -> None:
        if not self.pid or self._has_ended:
            return
        if self._forker.is_there() or self._has_its_number():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        elif not _stat(self.pid):
            # It is reaped, by init. As long as somebody is left in its group no process gets this number, but when nobody is any one may have it, and make
            # a group of the same number. So: nobody has the number as his own, and who is in the group is in our session, as all that we start.
            self._kill_members()

    def _has_its_number(self) -> bool:
        """Whether the process, or its zombie, is there: then its number is its own."""
        if self.pidfd < 0:
            return self._born != "" and _born(self.pid) == self._born
        try:
            with open(f"/proc/self/fdinfo/{self.pidfd}") as file:
                return f"Pid:\t{self.pid}\n" in file.read()  # -1 once it is reaped
        except OSError:
            return False

    def _kill_members(self) -> None:
        session = str(os.getsid(0))
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and _is_in(entry, self.pid, session):
                with contextlib.suppress(OSError):
                    if not hasattr(os, "pidfd_open"):
                        os.kill(int(entry), signal.SIGKILL)
                        continue
                    try:
                        fd = os.pidfd_open(int(entry))
                    except OSError as error:
                        if error.errno in (errno.ENOSYS, errno.EPERM):
                            os.kill(int(entry), signal.SIGKILL)
                        continue
                    try:
                        if _is_in(entry, self.pid, session):  # still
                            signal.pidfd_send_signal(fd, signal.SIGKILL)
                    finally:
                        os.close(fd)

    def reap(self) -> Ended:
        told = self._forker.reap(self.pid)
        self._leave()
        if told is None:
            if self._forker.is_there():
                self._forker.give_up(self.pid)
            else:
                self.hint = self._forker.obituary()
            return Ended(None, 0)
        status, peak = told
        self.exitcode = os.waitstatus_to_exitcode(status)
        return Ended(self.exitcode, peak)

    def _note(self, code: int | None) -> None:
        self._leave()
        if code is not None:
            self.exitcode = code

    def _leave(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            if self.pid:
                self._forker.is_left()

    def forget(self) -> None:
        self._has_ended = True  # and the forker is not told: it is the parent's
        self.close()


def _stat(pid: int | str) -> list[str]:
    """Return what /proc says of a process, from its state on; nothing if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def _born(pid: int) -> str:
    """Return when it was started: another process of the same number has another time."""
    stat = _stat(pid)
    return stat[19] if stat else ""


def _is_in(pid: str, group: int, session: str) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX" and stat[2] == str(group) and stat[3] == session


def _write(fd: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)

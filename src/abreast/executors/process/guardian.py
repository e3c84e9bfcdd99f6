"""The guardian: our own fork server, from which workers come where no other way is asked for; as its parent has it.

::

    supervisor of a pool ─┐  launch ─▶ _take: the guardian of these modules, as this process is now (_lock)
    supervisor of another ┘     │         └─ none, dead, or not the same user, root, …: a new one
                                ▼
                    Guarded ── what a child would inherit (surroundings.py) + descriptors ──▶ GUARDIAN (guarded.py) ── fork ──▶ worker

    one per process, and one more for each tuple of `preload`; kept for later pools; ended at the end of the program

A fresh interpreter takes 40 ms and more to be ready, a fork of one that has all it needs 3. The guardian has one thread, so it may fork; the
parent must not, once it has any. It gets the worker's descriptors over a socket pair that it has inherited.

Which lock guards what
    `_lock`: `_kept`, `_retired`. Held while a guardian is started, but not while it is asked (forked.py has a lock for that). A forked child has new
    ones of both, and no guardian: it forgets the parent's, and starts its own.

If the guardian dies its workers die (PR_SET_PDEATHSIG); pools go on with workers of another one. A pool that sees `DEATHS` of them die within
`WINDOW` seconds gives up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from abreast.executors.process import surroundings
from abreast.executors.process.forked import CannotStart, Forked, Forker, ForkerDied, HasThreads
from abreast.executors.process.launch import start_interpreter
from abreast.executors.process.page import nameless_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Guardian", "Launcher", "can_fork", "end", "kept", "start"]

BEGIN = "import sys; sys.path.insert(0, sys.argv[1]); from abreast.executors.process.guarded import main; main(*map(int, sys.argv[2:]))"
NAME = "the guardian, which forks the workers,"
DEATHS, WINDOW = 3, 60.0
PATIENCE = 60.0
"""Seconds that the modules of `preload` may take to be imported."""

_lock = threading.Lock()
_kept: dict[tuple[str, ...], Guardian] = {}
_retired: list[Guardian] = []
"""Started when this process was another user's, say: they end when their last worker has."""
_has_threads = False
"""Whether a guardian has threads here as soon as it is started, so that it may not fork."""


class Guardian(Forker):
    """One guardian.

    Args:
        identity: what this process was when it was started (`surroundings.identity`).
        preload: names of modules that it imports before it forks.
    """

    def __init__(self, identity: tuple[object, ...], preload: tuple[str, ...]) -> None:
        self.identity = identity
        self.preload = preload
        self.is_retired = False
        self.users = 0
        """Workers that have been started by it and not been reaped, and pools that are about to start one."""
        self._said = ""
        self._has_loaded = not preload
        self._loading = threading.Lock()  # held by the first who needs the modules
        ours, theirs = map(_above_the_streams, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        super().__init__(ours, NAME)
        self._errors = -1
        try:
            self._errors = nameless_file("abreast-guardian")
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                self._popen = start_interpreter(BEGIN, [theirs.fileno()], (), (null, self._errors))
            finally:
                os.close(null)
        except BaseException:
            ours.close()
            if self._errors >= 0:
                os.close(self._errors)
            raise
        finally:
            theirs.close()
        self.pid = self._popen.pid

    def load(self, paths: Sequence[str]) -> None:
        """Have the modules imported, if that has not been done.

        Raises:
            CannotStart: one of them cannot be, or has started threads.
        """
        if self._has_loaded:
            return
        with self._loading:
            if not self._has_loaded:
                taken, fds, cwd = surroundings.take([], paths=paths, modules=self.preload)
                try:
                    self.ask(b"P", body=pickle.dumps(taken), fds=fds, patience=PATIENCE)
                except ForkerDied as died:
                    raise CannotStart(f"preload={list(self.preload)!r}: {died}", final=True) from died
                finally:
                    if cwd >= 0:
                        os.close(cwd)
                self._has_loaded = True

    def obituary(self) -> str:
        if self._errors >= 0:
            with contextlib.suppress(OSError):
                self._said = os.pread(self._errors, 1 << 16, 0).decode(errors="replace").strip()
        return f"{NAME} died" + (f": {self._said.splitlines()[-1]}" if self._said else "")

    def descriptors(self) -> set[int]:
        """Return what this process has of it."""
        return {fd for fd in (self._socket.fileno(), self._errors) if fd >= 0}

    def is_left(self) -> None:
        with _lock:
            self.users -= 1
            is_over = self.is_retired and self.users <= 0
            if self in _retired and is_over:
                _retired.remove(self)
        if is_over:
            self.close()

    def _bury(self) -> None:
        self._popen.wait()

    def _kill(self) -> None:
        self._popen.kill()  # it looks first whether the child is still there

    def close(self) -> None:
        self.obituary()
        super().close()

    def _close_errors(self) -> None:
        fd, self._errors = self._errors, -1
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        super().forget()
        if self._popen.returncode is None:
            self._popen.returncode = 0  # or Popen would wait for it in its destructor, and warn
        self._close_errors()


class _Moment:
    """What has been found out about this process, for workers of one pool that are started together.

    Args:
        threads: each one's share of the cores.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.status = surroundings.read_status()
        self.identity = surroundings.identity(self.status)
        self.taken: surroundings.Surroundings | None = None
        self.body = b""


class Guarded(Forked):
    """One worker's process, forked by the guardian."""

    _forker: Guardian

    def __init__(self, number: int, guardian: Guardian, moment: _Moment, **more: Any) -> None:
        self._moment = moment
        super().__init__(number, guardian, **more)

    def _spawn(self, given: list[int]) -> tuple[int, int]:
        moment = self._moment
        taken, fds, cwd = surroundings.take(
            self._inherits,
            given[4:] or (1, 2),
            threads=moment.threads,
            status=moment.status,
            like=moment.taken,
        )
        try:
            if taken is not moment.taken:
                moment.taken, moment.body = taken, pickle.dumps(taken)
            return self._forker.spawn([*given[:4], *fds], moment.body)
        finally:
            if cwd >= 0:
                os.close(cwd)


class Launcher:
    """Starts the workers of one pool; called by its supervisor alone.

    Args:
        preload: names of modules that the guardian is to have.
        paths: `sys.path` for them.
        threads: each worker's share of the cores.
    """

    def __init__(self, preload: tuple[str, ...], paths: Callable[[], Sequence[str]], threads: int) -> None:
        self.preload = preload
        self._paths = paths
        self._threads = threads
        self._last: Guardian | None = None
        self._deaths: list[float] = []
        self._moment: _Moment | None = None

    def launch(self, number: int, **more: Any) -> Guarded:
        """Start a worker.

        Raises:
            CannotStart, OSError: that is not possible, and why; `CannotStart.final` if it makes no sense to try again.
            HasThreads: a guardian cannot fork here; workers have to be started in another way.
        """
        global _has_threads
        while True:
            self._count_death()
            moment = self._moment
            if moment is None:
                moment = self._moment = _Moment(self._threads)
            guardian = self._last = _take(self.preload, moment.identity)
            try:
                guardian.load(self._paths())
                return Guarded(number, guardian, moment, **more)
            except BaseException as error:
                if isinstance(error, CannotStart):
                    _drop(guardian)
                guardian.is_left()
                if isinstance(error, HasThreads):
                    _has_threads = True
                if not isinstance(error, ForkerDied):
                    raise
                if not guardian.has_forked:  # it has not even begun: another one would do no better
                    raise CannotStart(str(error)) from error

    def have_started(self) -> None:
        """Those that are started together have been: for the next one this process is looked at again."""
        self._moment = None

    def _count_death(self) -> None:
        """See whether the guardian that was used last has died since."""
        last, now = self._last, monotonic()
        if last is None or last.is_there() or not (last.has_died and last.has_forked):
            return
        self._last = None
        self._deaths = [*(when for when in self._deaths if now - when < WINDOW), now]
        if len(self._deaths) >= DEATHS:
            self._deaths = []
            raise CannotStart(f"{last.obituary()}; that was {DEATHS} times within {WINDOW:.0f} s", final=True)


def _above_the_streams(end: socket.socket) -> socket.socket:
    """Where stdin or stdout is closed the next descriptor has its number: move ours away, or what is printed goes there."""
    if end.fileno() > 2:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _take(preload: tuple[str, ...], identity: tuple[object, ...]) -> Guardian:
    """Return a guardian that lives, and that this process, which is this, may have; it has one user more."""
    over: list[Guardian] = []
    try:
        with _lock:
            guardian = _kept.get(preload)
            if guardian is None or not guardian.is_there() or guardian.identity != identity:
                before, guardian = guardian, Guardian(identity, preload)
                _kept[preload] = guardian
                if before is not None:
                    _retire(before, over)
            guardian.users += 1
            return guardian
    finally:
        for one in over:
            one.close()


def _drop(guardian: Guardian) -> None:
    """Use it no more."""
    over: list[Guardian] = []
    with _lock:
        if _kept.get(guardian.preload) is guardian:
            del _kept[guardian.preload]
            _retire(guardian, over)
    for one in over:
        one.close()


def _retire(guardian: Guardian, over: list[Guardian]) -> None:
    """Under the lock: have it end when its last worker has; `over` gets it if that is now."""
    guardian.is_retired = True
    (over if guardian.users <= 0 or not guardian.is_there() else _retired).append(guardian)


def start() -> None:
    """Have one for workers to come."""
    _take((), surroundings.identity()).is_left()


def can_fork() -> bool:
    """Whether nothing is known that keeps guardians from forking."""
    return not _has_threads


def kept() -> list[Guardian]:
    """Return the guardians that this process has for workers to come."""
    with _lock:
        return list(_kept.values())


def end() -> None:
    """At the end of the program, when all pools have ended."""
    with _lock:
        guardians = [*_kept.values(), *_retired]
        _kept.clear()
        _retired.clear()
    for guardian in guardians:
        guardian.close()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for guardian in (*_kept.values(), *_retired):
        guardian.forget()
    _kept.clear()
    _retired.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""The guardian, its own side: a fresh interpreter with one thread, which forks the workers of the process that has started it (guardian.py).

::

    main: imports all that a worker needs ─▶ ForkServer.serve (forking.py) ─ fork ─▶ serve returns there ─▶ put_on ─▶ worker.main
                                                └─ idle for a moment: imports what most workers need later

Nothing of the user's acts here but the modules of `preload`. It holds neither the parent's stdout and stderr nor its directory: who reads them
in a pipeline sees their end when the program ends. What it has to say, at its start above all, goes to a file without a name
that the parent reads when the guardian is dead.
"""

from __future__ import annotations

import _socket
import contextlib
import faulthandler  # noqa: F401  # what every worker needs, imported once for all of them
import gc
import importlib
import os
import pickle
import resource
import signal
import sys
from typing import TYPE_CHECKING

from abreast.executors.process import contexts, surroundings, worker
from abreast.executors.process.forking import HAS_THREADS, REFUSED, ForkServer, Request, _Refused

if TYPE_CHECKING:
    from abreast.executors.process.surroundings import Changes, Surroundings

__all__ = ["main"]

IDLE = 50
"""Milliseconds without a request after which more is imported."""
FIXED = 4
"""A worker's own descriptors: task pipe, result pipe, page, stack."""


def main(fd: int, parent: int) -> None:
    """Serve this parent on this socket; returns in a worker, when it has done what there was to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which all of a service get; it ends with its parent
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as perhaps in the parent, no status would be left to be taken
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.path[:] = [entry for entry in sys.path if entry]  # not what happens to be in some directory
    os.chdir("/")  # no directory of the user's is kept in use
    with contextlib.suppress(OSError, ValueError):  # descriptors of many workers pass by
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.set_inheritable(fd, False)
    guardian = _Guardian(_socket.socket(fileno=fd), parent)
    request = guardian.serve()
    _work(request, guardian)


class _Guardian(ForkServer):
    def __init__(self, requests: _socket.socket, parent: int) -> None:
        super().__init__(requests, parent)
        self.wanted: Surroundings
        self.asked = b""
        """The last request's body, of which `wanted` is made."""
        self.changes: Changes
        self.environment = b""
        self.ignored = surroundings.ignored()
        self.has_loaded = False
        self.has_looked = False
        self.lifeline, self.held = os.pipe()
        """A pipe into which nothing is ever written; workers have the first end of it, and see, where prctl is refused, when this process is gone."""
        worker.find_prctl()
        surroundings.prepare_streams()
        gc.collect()

    def before_fork(self, request: Request) -> None:
        self._look()
        if request.body != self.asked:  # of workers that are started together it is the same
            self.wanted = pickle.loads(request.body)  # noqa: S301  # of our own parent
            self.environment = surroundings.become(self.wanted, self.environment)
            self.changes = surroundings.changes(self.wanted, self.ignored)
            self.asked = request.body
            if self.wanted.by_value:
                self._warm()
            for name in self.wanted.seen:  # ten workers on two cores would take five times as long, each time
                with contextlib.suppress(Exception):  # it was installed anew meanwhile, say: a task that needs it will tell
                    importlib.import_module(name)
        if sys.path_importer_cache:
            sys.path_importer_cache.clear()  # what was found in directories, or not, may be different by now; here, since freeing memory touches it
        gc.freeze()  # a collection in a worker would write to every object's page, and copy it

    def _look(self) -> None:
        if not self.has_looked:
            _refuse_threads(
                HAS_THREADS,
                "the guardian, which forks the workers, has {} at its start, of a sitecustomize or a .pth file perhaps",
            )
            self.has_looked = True
            self.patience = IDLE

    def idle(self) -> None:
        """Import what most workers come to need, now that nobody waits."""
        with contextlib.suppress(ImportError):
            import socket  # noqa: F401  # of many tasks
        self._warm()
        gc.collect()

    def _warm(self) -> None:
        """Import what functions need that go by value, as most of a script do: 8 ms here, 13 in each of two workers at a time."""
        with contextlib.suppress(ImportError):
            from abreast.executors.process import by_value, logs, namespace  # noqa: F401  # imported is all that is wanted

    def load(self, request: Request) -> None:
        self._look()
        self.has_loaded = True
        self.asked = b""
        wanted: Surroundings = pickle.loads(request.body)  # noqa: S301  # of our own parent
        self.environment = surroundings.become(wanted, self.environment)
        # Libraries that compute with threads start them as they are loaded; with one there is none. Workers have their share (contexts.py).
        contexts.limit_threads(1)
        self.environment = b""
        cwd, out, err = _streams(wanted, request.fds)
        kept = [os.dup(fd) for fd in (1, 2)]
        try:
            if cwd >= 0:
                os.fchdir(cwd)
            for number, fd in ((1, out), (2, err)):
                if fd >= 0:
                    os.dup2(fd, number)
            sys.path[:] = wanted.paths
            sys.path_importer_cache.clear()
            # Code of the user's, which may take long: nobody looks meanwhile whether the parent is there. Its thread that has started us waits for this.
            _die_with_starter(signal.SIGKILL)
            if os.getppid() != self.parent:
                os._exit(1)
            for name in wanted.modules:
                _import(name)
        finally:
            _die_with_starter(0)  # which ends with its pool
            signal.pthread_sigmask(
                signal.SIG_SETMASK, ()
            )  # a module may have blocked some; workers have those of the parent, and it is not set again if none is
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            for number, fd in enumerate(kept, 1):
                os.dup2(fd, number)
                os.close(fd)
            os.chdir("/")
        _refuse_threads(
            REFUSED,
            f"preload={wanted.modules!r} leaves {{}}: a process that has threads must not fork. Import what starts them in an initializer",
        )
        if any(name in sys.modules for name in contexts.COMPUTES):
            import threadpoolctl  # type: ignore[import-untyped]  # noqa: F401  # it has no types; for contexts.limit_threads
        self.ignored = surroundings.ignored()


def _die_with_starter(number: int) -> None:
    prctl = worker.find_prctl()
    if prctl is not None:
        prctl(1, number)  # PR_SET_PDEATHSIG


def _import(name: str) -> None:
    from importlib import import_module

    try:
        import_module(name)
    except BaseException as error:  # SystemExit too
        import traceback

        traceback.print_exc()
        raise _Refused(REFUSED, f"preload: the module {name!r} cannot be imported: {type(error).__name__}: {error}") from None


def _refuse_threads(number: int, why: str) -> None:
    """Refuse to go on if there are other threads, also those that Python does not know."""
    try:
        count = len(os.listdir("/proc/self/task"))
    except OSError:
        count = len(sys._current_frames())
    if count > 1:
        import threading

        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        told = f"{count - 1} thread{'s' * (count > 2)} ({', '.join(names) or 'of a library'})"
        raise _Refused(number, why.format(told))


def _streams(wanted: Surroundings, fds: list[int]) -> tuple[int, int, int]:
    """Return the first descriptors by what they are: working directory, stdout, stderr; -1 is none."""
    given = iter(fds)
    return tuple(next(given) if there else -1 for there in (wanted.has_cwd, *wanted.has_streams))  # type: ignore[return-value]  # three


def _work(request: Request, guardian: _Guardian) -> None:
    """Be a worker. Ends as any interpreter does: what its tasks have registered with atexit is called."""
    wanted = guardian.wanted
    os.close(guardian.held)
    lifeline, *fds = surroundings.place([guardian.lifeline, *request.fds], wanted.numbers)
    own, fds = fds[:FIXED], fds[FIXED:]
    cwd, out, err = _streams(wanted, fds)
    surroundings.put_on_streams(out, err, are_ours=not guardian.has_loaded)
    surroundings.put_on(wanted, cwd, guardian.changes)
    contexts.parent, contexts.share = wanted.parent, wanted.threads
    contexts.forget_multiprocessing()
    if "numpy.random" in sys.modules:  # of a preload; `random` sees to it itself
        sys.modules["numpy.random"].seed()
    task_fd, result_fd, page_fd, stack_fd = own
    worker.main(task_fd, result_fd, page_fd, stack_fd, guardian.pid, lifeline)  # never returns

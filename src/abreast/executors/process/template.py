"""Workers that are copies of this process (``mp_context="fork"``): a template, forked once, which forks them.

::

    parent ── fork, at the first submit ──▶ TEMPLATE: one thread, waits for requests ── fork ──▶ worker, copy of the template
       supervisor ── socket pair: SPAWN + descriptors, REAP pid ──▶                      ◀── pid and pidfd; status

A process must not fork once it has threads that hold locks, which the pool's own would be; and a worker that has crashed has to be replaced
when there are many. So one fork is made before the pool has a thread, in the thread of the first submit, and its child does nothing but fork.
What workers have inherited is how the parent was at that moment.

What it and the parent say to each other, and how it ends, is in forking.py and forked.py, as for the guardian. It has no
PR_SET_PDEATHSIG, which would follow the thread of the first submit; workers have, and die with the template; after that none can be started.
Nothing of the user's acts in it: signals are blocked until their handlers are gone, and what is garbage of the parent's is not collected here,
where its finalizers would run once more.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from abreast.executors.process import contexts
from abreast.executors.process.forked import Forked, Forker
from abreast.executors.process.forking import ForkServer

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from abreast.executors.process.sending import Common

__all__ = ["Template"]


class Template(Forker):
    """The parent's end. To be made in the thread that submits first, before there are others; then used by the supervisor alone.

    Args:
        initializer, initargs: of the workers, which inherit them.
        common: what workers have by name, since they inherit the main script (by_value.py).
    """

    def __init__(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], common: Common | None = None
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours, "the process that forks the workers")
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
                    _serve(_Inherited(parent, initializer, initargs, common), theirs)
                finally:
                    os._exit(1)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def launch(self, number: int, *, capture: bool = False) -> Forked:
        """Start a worker.

        Raises:
            OSError: the limit of processes is reached, or the template has died.
        """
        return Forked(number, self, capture=capture)


# ---- the template's side


class _Inherited(NamedTuple):
    """What the template and its workers have of the parent."""

    parent: int
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


def _serve(inherited: _Inherited, requests: socket.socket) -> NoReturn:
    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401  # what every worker needs, once for all
    template = ForkServer(requests, inherited.parent)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which all of a service get; it ends with its parent
    request = template.serve()
    signal.signal(signal.SIGTERM, before)
    _work(inherited, template.pid, request.fds)


# ---- the worker's side


def _work(inherited: _Inherited, template: int, fds: list[int]) -> NoReturn:
    from abreast.core.current import here
    from abreast.executors.process import namespace, sending, worker

    code = 1
    try:
        _own_streams(fds[4:])
        here.running = None  # the first submit was perhaps a task's
        contexts.parent = inherited.parent
        sending.common = inherited.common
        namespace.watch_main(vars(sys.modules["__main__"]))
        contexts.forget_multiprocessing()
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
